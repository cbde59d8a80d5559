//! Rows as a stream: bounded memory for any number of rows, in either direction.
//!
//! Version  all rows are of one version: the one at which the first portion is read, or at which the segments named were live. Others may be
//!          committed while the stream runs; where one retires a segment of this one, nodes open it no more, and the stream ends in an error.
//! Ahead    the next portion is asked for while the last one is opened and merged. A stream that was begun by [`Table::read`] does so from its
//!          second portion on, so one that is left after a few rows has asked for no more.
//! Memory   two portions (`SessionOptions::portion_cells`), what came of them, and what stands beyond the frontier (`groups.rs`).
//! Source   `docs/protocol/query.md`, "Rows, MIN, MAX"

use super::groups::{Groups, Portion};
use super::merge::{Merged, Pending, Reading};
use super::{Evidence, Select};
use crate::error::ClientError;
use crate::plan::{self, Wanted};
use crate::session::{Meter, Table, offload};
use crate::transport::Transport;
use arrow_array::RecordBatch;
use fluence_types::{DbRoot, Height, SegmentRoot, Version};
use fluence_verifier::answer::VerifiedAnswer;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, MaybeDone, maybe_done, select};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A version of a table, by its live segments: rows of it can be read as long as they stay live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// A height at which it was the last one, certified.
    pub height: Height,
    /// The database root there.
    pub root: DbRoot,
    /// The version.
    pub version: Version,
    /// Its live segments.
    pub live: Vec<SegmentRoot>,
}

type Fetched = Result<(VerifiedAnswer, u64), ClientError>;
type Taken = Result<(Merged, Pending), ClientError>;

/// Rows in key order, or against it, retractions cancelled. Its futures may be dropped: nothing is lost by it.
pub struct RowStream<T> {
    table: Table<T>,
    segments: Arc<Vec<SegmentRoot>>,
    since: Option<Version>,
    reading: Arc<Reading>,
    groups: Groups,
    /// Rows that are still wanted.
    limit: Option<u64>,
    /// Rows that were given out.
    given: u64,
    /// Cells of the next portion.
    cells: u64,
    /// Whether the next portion is asked for while one is opened.
    ahead: bool,
    /// The portion that was asked for.
    asked: Option<(Portion, MaybeDone<BoxFuture<'static, Fetched>>)>,
    /// The portion that is being opened; rows that were read and not merged are there meanwhile.
    opening: Option<BoxFuture<'static, Taken>>,
    pending: Pending,
    ready: Option<RecordBatch>,
    evidence: Option<Evidence>,
}

impl<T> std::fmt::Debug for RowStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowStream({:?}, {} segments)", self.table, self.segments.len())
    }
}

impl<T: Transport + 'static> Table<T> {
    /// Streams the rows of a selection, all of the version at which this reads the first of them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read(&self, select: &Select) -> Result<RowStream<T>, ClientError> {
        let version = |rows: &RowStream<T>| rows.evidence.as_ref().map_or(Version(0), |e| e.version);
        self.session.freshly(&self.handle, version, || self.try_read(select)).await
    }

    async fn try_read(&self, select: &Select) -> Result<RowStream<T>, ClientError> {
        let start = Instant::now();
        let entry = self.session.entry(&self.handle).await?;
        let mut meter = Meter::default();
        let mut rows = self.streamed(&entry.live, Some(entry.version), select, &mut meter).await?;
        rows.cells = rows.first_cells();
        rows.evidence = Some(Evidence { version: entry.version, segments: entry.live.len(), ..Evidence::default() });
        // At this very version, also where there is nothing to read: what is answered is what was the last version then.
        let portion = rows.portion(0)?;
        let nothing = || vec![Wanted::default(); entry.live.len()];
        let wanted = portion.as_ref().map_or_else(nothing, |p| p.wanted.clone());
        let (answer, bytes) = self.session.open(&plan::request(self.db(), &entry, wanted)?).await?;
        meter.opened(&answer, bytes);
        rows.saw(&answer, meter);
        if let Some(portion) = portion {
            rows.open(portion, answer);
        }
        rows.worked(start);
        Ok(rows)
    }

    /// Streams the rows of a selection of a version that was read from before.
    ///
    /// # Errors
    /// [`ClientError`]; `Op(NotLive)` where a segment of it was retired since.
    pub async fn read_at(&self, pinned: &Pinned, select: &Select) -> Result<RowStream<T>, ClientError> {
        let start = Instant::now();
        let mut meter = Meter::default();
        let mut rows = self.streamed(&pinned.live, Some(pinned.version), select, &mut meter).await?;
        (rows.cells, rows.ahead) = (rows.first_cells(), false);
        rows.evidence = Some(Evidence {
            height: pinned.height,
            root: pinned.root,
            version: pinned.version,
            segments: pinned.live.len(),
            plan_bytes: meter.plan_bytes,
            requests: meter.requests,
            ..Evidence::default()
        });
        rows.worked(start);
        Ok(rows)
    }

    /// Streams the rows of a selection from `segments`: all that were live at one version, else retractions may lack their rows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, segments: &[SegmentRoot], select: &Select) -> Result<RowStream<T>, ClientError> {
        self.streamed(segments, None, select, &mut Meter::default()).await
    }

    async fn streamed(
        &self,
        segments: &[SegmentRoot],
        since: Option<Version>,
        select: &Select,
        meter: &mut Meter,
    ) -> Result<RowStream<T>, ClientError> {
        let bounds = select.range.bounds(self.schema())?;
        let columns = self.columns_of(select)?;
        let views = self.session.views(&self.handle, segments, meter).await?;
        let (reading, groups) = self.reading(&columns, views, bounds, select.direction, true);
        Ok(RowStream {
            table: self.clone(),
            segments: Arc::new(segments.to_vec()),
            since,
            reading,
            groups,
            limit: select.limit,
            given: 0,
            cells: self.session.portion_cells(),
            ahead: true,
            asked: None,
            opening: None,
            pending: Pending::default(),
            ready: None,
            evidence: None,
        })
    }
}

impl<T: Transport + 'static> RowStream<T> {
    /// What stands behind the rows so far; nothing is counted for [`Table::stream`], whose caller knows the version. Milliseconds are those
    /// in which rows were waited for.
    #[must_use]
    pub const fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    /// The version that is read, where that was fixed here.
    #[must_use]
    pub fn pinned(&self) -> Option<Pinned> {
        let Evidence { height, root, version, .. } = *self.evidence.as_ref()?;
        Some(Pinned { height, root, version, live: self.segments.to_vec() })
    }

    /// The next rows; none at the end, and after an error.
    ///
    /// # Errors
    /// [`ClientError`]; nothing that does not verify is returned.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        let start = Instant::now();
        let next = self.advance().await;
        if next.is_err() {
            (self.limit, self.asked, self.opening) = (Some(0), None, None);
        }
        self.worked(start);
        next
    }

    /// Every wait is for a future that stays here, so what it waits for is found again.
    async fn advance(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        loop {
            if let Some(batch) = self.ready.take() {
                return Ok(Some(batch));
            }
            if let Some(opening) = &mut self.opening {
                let taken = match &mut self.asked {
                    // The next answer may come meanwhile.
                    Some((_, answer)) => match select(opening.as_mut(), answer).await {
                        Either::Left((taken, _)) => taken,
                        Either::Right(((), opening)) => opening.await,
                    },
                    None => opening.await,
                };
                self.opening = None;
                let (merged, pending) = taken?;
                self.pending = pending;
                if let Some(evidence) = &mut self.evidence {
                    evidence.rows += merged.rows_seen;
                }
                if let Some((batch, _)) = merged.batch {
                    self.given += batch.num_rows() as u64;
                    self.limit = self.limit.map(|l| l.saturating_sub(batch.num_rows() as u64));
                    self.ready = Some(batch);
                }
                continue;
            }
            if self.limit == Some(0) {
                self.asked = None;
                return Ok(None);
            }
            if self.asked.is_none() {
                self.ask(0)?;
            }
            let Some((_, answer)) = &mut self.asked else { return Ok(None) };
            answer.await;
            let Some((portion, mut answer)) = self.asked.take() else { unreachable!("it was there a line above") };
            let (answer, bytes) = Pin::new(&mut answer).take_output().expect("it was waited for")?;
            let mut meter = Meter::default();
            meter.opened(&answer, bytes);
            self.saw(&answer, meter);
            if self.ahead {
                self.ask(portion.sure)?;
            }
            self.ahead = true;
            self.open(portion, answer);
        }
    }

    /// Cells of the first portion of a read, which may be all that is wanted: a quarter. Each that follows has twice as many as the last.
    fn first_cells(&self) -> u64 {
        self.table.session.portion_cells() / 4
    }

    /// The next portion, where there is one, and it is needed although so many rows are under way.
    fn portion(&mut self, under_way: u64) -> Result<Option<Portion>, ClientError> {
        let need = self.limit.map(|l| self.groups.need(l + self.given, self.given, under_way));
        let portion = self.groups.next(self.cells, need)?;
        self.cells = self.cells.saturating_mul(2).min(self.table.session.portion_cells());
        Ok(portion)
    }

    /// Asks for the next portion.
    fn ask(&mut self, under_way: u64) -> Result<(), ClientError> {
        let Some(portion) = self.portion(under_way)? else { return Ok(()) };
        let (table, segments, since) = (self.table.clone(), Arc::clone(&self.segments), self.since);
        let wanted = portion.wanted.clone();
        let answer = async move { table.open_of(&segments, since, &wanted).await };
        self.asked = Some((portion, maybe_done(answer.boxed())));
        Ok(())
    }

    /// Has a portion opened and merged.
    fn open(&mut self, portion: Portion, answer: VerifiedAnswer) {
        let (reading, limit) = (Arc::clone(&self.reading), self.limit);
        let mut pending = std::mem::take(&mut self.pending);
        let work = move || {
            let merged = reading.take(&answer, &portion, &mut pending, limit)?;
            Ok((merged, pending))
        };
        self.opening = Some(offload(work).boxed());
    }

    /// Counts an answer. A height at which the version was no more the last one shows nothing of it.
    fn saw(&mut self, answer: &VerifiedAnswer, meter: Meter) {
        let Some(evidence) = &mut self.evidence else { return };
        if evidence.version == answer.entry().version {
            (evidence.height, evidence.root) = (answer.checkpoint().height, answer.checkpoint().root);
        }
        evidence.requests += meter.requests;
        evidence.plan_bytes += meter.plan_bytes;
        evidence.native_bytes += meter.bytes;
        evidence.openings += meter.cells;
    }

    fn worked(&mut self, since: Instant) {
        if let Some(evidence) = &mut self.evidence {
            evidence.native_ms += since.elapsed().as_secs_f64() * 1e3;
        }
    }
}
