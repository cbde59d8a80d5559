//! Scans that are gathered: all rows of a range at one version, or what is left of some segments.
//!
//! Source  DESIGN section 3; `docs/protocol/query.md`

use super::groups::Groups;
use super::merge::{Pending, Reading};
use super::{Direction, Evidence, evidence, still_moving};
use crate::ask::moved;
use crate::error::ClientError;
use crate::open::SegmentView;
use crate::plan::{self, Wanted};
use crate::range::{Bounds, KeyRange};
use crate::session::{ATTEMPTS, Meter, Table, offload};
use crate::transport::Transport;
use arrow_array::RecordBatch;
use fluence_types::op::OpRefusal;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{LaneId, SegmentRoot, Version};
use fluence_verifier::answer::VerifiedAnswer;
use std::sync::Arc;
use std::time::Instant;

/// Times that cells are asked anew because the projection moved: a busy one does, between asking its entry and its cells.
const MOVES: usize = 4 * ATTEMPTS;

/// Rows of a scan, in its order, retractions cancelled.
pub(crate) struct Scanned {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: u64,
    pub(crate) entry: CatalogueEntry,
    pub(crate) evidence: Evidence,
}

impl<T: Transport> Table<T> {
    /// [`Self::try_scan`], again where the projection changed in between.
    pub(crate) async fn scan(
        &self,
        columns: &[usize],
        range: &KeyRange,
        limit: Option<u64>,
        direction: Direction,
    ) -> Result<Scanned, ClientError> {
        let version = |scanned: &Scanned| scanned.entry.version;
        self.session.freshly(&self.handle, version, || self.try_scan(columns, range, limit, direction)).await
    }

    /// The rows of a range, the first in a direction, all from one version.
    pub(crate) async fn try_scan(
        &self,
        columns: &[usize],
        range: &KeyRange,
        limit: Option<u64>,
        direction: Direction,
    ) -> Result<Scanned, ClientError> {
        let start = Instant::now();
        let bounds = range.bounds(self.schema())?;
        let mut meter = Meter::default();
        let entry = self.session.entry(&self.handle).await?;
        let views = self.session.views(&self.handle, &entry.live, &mut meter).await?;
        let (reading, mut groups) = self.reading(columns, views, bounds, direction, true);
        let (mut pending, mut batches) = (Pending::default(), Vec::new());
        let (mut emitted, mut rows) = (0u64, 0u64);
        let answer = loop {
            let left = limit.map(|l| l - emitted);
            let need = limit.map(|l| groups.need(l, emitted, 0));
            let portion = groups.next(self.session.portion_cells(), need)?;
            // Where nothing is to be read, the answer shows the version all the same.
            let nothing = || vec![Wanted::default(); entry.live.len()];
            let wanted = portion.as_ref().map_or_else(nothing, |p| p.wanted.clone());
            let (answer, bytes) = self.session.open(&plan::request(self.db(), &entry, wanted)?).await?;
            meter.opened(&answer, bytes);
            let Some(portion) = portion else { break answer };
            let job = Arc::clone(&reading);
            let (answer, taken, still_pending) = offload(move || {
                let taken = job.take(&answer, &portion, &mut pending, left);
                (answer, taken, pending)
            })
            .await;
            let merged = taken?;
            pending = still_pending;
            rows += merged.rows_seen;
            if let Some((batch, _)) = merged.batch {
                emitted += batch.num_rows() as u64;
                batches.push(batch);
            }
            if groups.is_done() || limit.is_some_and(|l| emitted >= l) {
                break answer;
            }
        };
        let evidence = evidence(&answer, rows, meter, start);
        Ok(Scanned { batches, rows: emitted, entry, evidence })
    }

    /// What to read for some columns of segments, and in which order. Key columns come first: then the bytes of a whole row begin with its
    /// key.
    pub(super) fn reading(
        &self,
        columns: &[usize],
        views: Vec<Arc<SegmentView>>,
        bounds: Bounds,
        direction: Direction,
        whole: bool,
    ) -> (Arc<Reading>, Groups) {
        let schema = self.schema();
        let keys = schema.key_indices();
        let mut read: Vec<usize> = Vec::with_capacity(keys.len() + columns.len());
        for column in keys.iter().chain(columns) {
            if !read.contains(column) {
                read.push(*column);
            }
        }
        let place = |c: &usize| read.iter().position(|r| r == c).expect("every column is read");
        let places = columns.iter().map(place).collect();
        let lanes: Vec<LaneId> = read.iter().map(|c| schema.column_lane(*c)).chain([schema.weight_lane()]).collect();
        let groups = Groups::new(views.clone(), lanes, &bounds, direction);
        let (keys, key_columns) = (self.handle.keys.clone(), keys.len());
        (Arc::new(Reading { keys, views, read, key_columns, places, bounds, direction, whole }), groups)
    }

    /// All rows of some live segments with what is left of their weights: what one retracts may lie in another that is not read. The
    /// projection may change meanwhile, as long as these segments stay live.
    pub(crate) async fn scan_segments(
        &self,
        segments: &[SegmentRoot],
    ) -> Result<Vec<(RecordBatch, Vec<i8>)>, ClientError> {
        let columns: Vec<usize> = (0..self.schema().columns().len()).collect();
        let bounds = KeyRange::ALL.bounds(self.schema())?;
        let views = self.session.views(&self.handle, segments, &mut Meter::default()).await?;
        let (reading, mut groups) = self.reading(&columns, views, bounds, Direction::Forwards, false);
        let (mut pending, mut rows) = (Pending::default(), Vec::new());
        while let Some(portion) = groups.next(self.session.portion_cells(), None)? {
            let (answer, _) = self.open_of(segments, None, &portion.wanted).await?;
            let job = Arc::clone(&reading);
            let (taken, still_pending) = offload(move || {
                let taken = job.take(&answer, &portion, &mut pending, None);
                (taken, pending)
            })
            .await;
            pending = still_pending;
            rows.extend(taken?.batch);
        }
        Ok(rows)
    }

    /// Opens cells of some live segments, at whatever version the projection is; not older than the one at which they were live.
    pub(super) async fn open_of(
        &self,
        segments: &[SegmentRoot],
        since: Option<Version>,
        wanted: &[Wanted],
    ) -> Result<(VerifiedAnswer, u64), ClientError> {
        for attempt in 1.. {
            let entry = self.session.entry(&self.handle).await?;
            if let Some(gone) = segments.iter().find(|s| !entry.live.contains(s)) {
                // Another task may have put back an entry of before they came.
                if since.is_some_and(|since| entry.version < since) && attempt < MOVES {
                    self.session.forget_entry(&self.handle);
                    continue;
                }
                return Err(ClientError::Op(OpRefusal::NotLive(*gone)));
            }
            let of = |root: &SegmentRoot| segments.iter().position(|s| s == root).map(|at| wanted[at].clone());
            let all = entry.live.iter().map(|root| of(root).unwrap_or_default()).collect();
            match self.session.open(&plan::request(self.db(), &entry, all)?).await {
                Err(error) if moved(&error) && attempt < MOVES => self.session.forget_entry(&self.handle),
                other => return other.map_err(|e| still_moving(e, &self.handle)),
            }
        }
        unreachable!("the loop returns")
    }
}
