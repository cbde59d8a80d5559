//! Writing: import, append, delete, update, compact. Each is one transaction: all of it becomes live at one certified height, or nothing.
//!
//! Delete   rows are read and verified, and appended again with weight -1 in a small new segment; update also appends the new rows (+1).
//! Compact  all live rows are read, retractions cancelled, sealed again under a fresh segment id, and replace what was live.
//! Retry    an append that lost a race is ordered again with the same sealed bytes; delete, update and compact start over from reading,
//!          because what they read may have changed. Sealed bytes whose commit failed are never reused for other data.
//! Rooms    `commit` what all share, `parts` imports in parts, `rewrite` delete and update, `compact` all, `merge` some, `upload`
//! Source   DESIGN section 3; `docs/protocol/segment.md`

mod commit;
mod compact;
mod merge;
mod parts;
mod rewrite;
mod upload;

pub(crate) use commit::{Part, Shown};
pub use merge::PreparedMerge;
pub use parts::SealedPart;
pub(crate) use rewrite::{NewRows, Rewrite};

use crate::error::ClientError;
use crate::schema::TableSchema;
use crate::seal::{SEGMENT_ROWS_MAX, SealStats, SealedSegment, Sealer};
use crate::session::{ATTEMPTS, Table, offload};
use crate::transport::Transport;
use crate::value::Value;
use arrow_array::RecordBatch;
use fluence_types::answer::OpenRefusal;
use fluence_types::codec::Bounded;
use fluence_types::limits::{LIVE_SEGMENTS_MAX, OP_BYTES_MAX};
use fluence_types::op::{Delivery, OpRefusal, SegmentRef};
use fluence_types::{DbRoot, Height, SegmentRoot, Version};
use fluence_wire::message::Refusal;
use std::sync::Arc;

/// Bytes of inline segments in one operation, leaving room for the rest of it.
const INLINE_BYTES_MAX: u64 = OP_BYTES_MAX as u64 - (64 << 10);

/// How far a write is.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// Rows read from the source so far.
    Read {
        /// Rows.
        rows: u64,
    },
    /// A segment was sealed.
    Sealed {
        /// Rows sealed so far.
        rows: u64,
        /// Of this segment.
        stats: SealStats,
    },
    /// Bytes of the segment at hand that a quorum of the members has.
    Uploaded {
        /// Bytes so far.
        bytes: u64,
        /// Bytes of the segment.
        total: u64,
    },
    /// It is certified.
    Committed {
        /// At this height.
        height: Height,
    },
}

/// Options of an import.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImportOptions {
    /// Rows of a segment; memory use is about a kilobyte a row.
    pub segment_rows: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { segment_rows: SEGMENT_ROWS_MAX }
    }
}

/// A transaction that is certified.
#[derive(Clone, PartialEq, Debug)]
pub struct Committed {
    /// At this height or a later one.
    pub height: Height,
    /// Database root there.
    pub root: DbRoot,
    /// Version of the projection.
    pub version: Version,
    /// Segments that became live.
    pub segments: Vec<SegmentRoot>,
    /// Rows written: inserted, deleted or updated, or left after compaction.
    pub rows: u64,
    /// Time and size of sealing, all segments together.
    pub seal: SealStats,
}

/// A row that a predicate looks at.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub(crate) schema: &'a TableSchema,
    pub(crate) batch: &'a RecordBatch,
    pub(crate) row: usize,
}

impl Row<'_> {
    /// The value of a column; `None` where there is no such column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<Value> {
        Value::at(self.batch.column(self.schema.index(column).ok()?), self.row)
    }

    pub(crate) fn values(&self) -> Vec<Value> {
        self.batch.columns().iter().map(|c| Value::at(c, self.row).expect("a column of the table")).collect()
    }
}

/// New values of some columns of a row.
pub type Assignments = Vec<(String, Value)>;

impl<T: Transport> Table<T> {
    /// Seals and commits batches in one transaction, reading no more than one segment ahead.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is live then, unless the error is of a connection that broke after the operation was sent.
    pub async fn import<E: std::fmt::Display>(
        &self,
        batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
        options: ImportOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<Committed, ClientError> {
        let limit = options.segment_rows.clamp(1, SEGMENT_ROWS_MAX);
        let mut refs: Vec<SegmentRef> = Vec::new();
        let mut inline = 0;
        let mut seal = SealStats::default();
        let (mut read, mut sealed_rows) = (0u64, 0u64);
        let mut sealer = Sealer::new(self.handle.keys.clone());
        let mut source = batches.into_iter();
        loop {
            let batch = source.next().transpose().map_err(|e| ClientError::Source(e.to_string()))?;
            let last = batch.is_none();
            let mut rest = batch;
            while let Some(batch) = rest.take() {
                let room = limit - sealer.rows();
                if batch.num_rows() <= room {
                    sealer.push(&batch)?;
                    read += batch.num_rows() as u64;
                } else {
                    sealer.push(&batch.slice(0, room))?;
                    read += room as u64;
                    rest = Some(batch.slice(room, batch.num_rows() - room));
                }
                progress(Progress::Read { rows: read });
                if sealer.rows() < limit {
                    continue;
                }
                let full = std::mem::replace(&mut sealer, Sealer::new(self.handle.keys.clone()));
                let segment = self.seal(full, &mut seal, &mut sealed_rows, &mut progress).await?;
                refs.push(self.deliver(&segment, &mut inline, &mut progress).await?);
            }
            if last {
                break;
            }
        }
        if sealer.rows() > 0 {
            let segment = self.seal(sealer, &mut seal, &mut sealed_rows, &mut progress).await?;
            refs.push(self.deliver(&segment, &mut inline, &mut progress).await?);
        }
        if refs.len() > LIVE_SEGMENTS_MAX {
            return Err(ClientError::TooManySegments { got: refs.len(), limit: LIVE_SEGMENTS_MAX });
        }
        let mut committed = self.append_refs(refs).await?;
        committed.rows = sealed_rows;
        committed.seal = seal;
        progress(Progress::Committed { height: committed.height });
        Ok(committed)
    }

    /// Appends rows: one small transaction.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn append(&self, batch: &RecordBatch) -> Result<Committed, ClientError> {
        self.import([Ok::<_, ClientError>(batch.clone())], ImportOptions::default(), |_| {}).await
    }

    pub(crate) async fn seal(
        &self,
        sealer: Sealer,
        total: &mut SealStats,
        rows: &mut u64,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Arc<SealedSegment>, ClientError> {
        let mut rng = self.session.fork_rng();
        let segment = offload(move || sealer.seal(&mut rng)).await?;
        let stats = segment.stats();
        total.rows += stats.rows;
        total.cells += stats.cells;
        total.permutations += stats.permutations;
        total.ms += stats.ms;
        total.hash_ms += stats.hash_ms;
        total.repeated_keys += stats.repeated_keys;
        *rows += segment.rows();
        progress(Progress::Sealed { rows: *rows, stats });
        Ok(Arc::new(segment))
    }

    /// Gets a segment to the members: inside the operation while there is room, else by upload.
    pub(crate) async fn deliver(
        &self,
        segment: &SealedSegment,
        inline: &mut u64,
        progress: &mut impl FnMut(Progress),
    ) -> Result<SegmentRef, ClientError> {
        if *inline + segment.byte_len() <= INLINE_BYTES_MAX
            && let Some(reference) = segment.inline()
        {
            *inline += segment.byte_len();
            return Ok(reference);
        }
        let receipts = self.session.upload(&self.db(), segment, progress).await?;
        Ok(segment.reference(Delivery::Receipts(Bounded::new(receipts).expect("one receipt a member"))))
    }

    /// One commit to this table alone.
    pub(crate) async fn commit(
        &self,
        append: Vec<SegmentRef>,
        retire: Vec<SegmentRoot>,
        version: Version,
    ) -> Result<Committed, ClientError> {
        let part = Part { handle: self.handle.clone(), version, append, retire };
        let segments = part.roots();
        let shown = match segments.is_empty() && part.retire.is_empty() {
            // Nothing to write: how the table stands.
            true => {
                let snapshot = self.session.catalogue(&self.db(), self.projection()).await?;
                let checkpoint = snapshot.checkpoint();
                Shown { height: checkpoint.height, root: checkpoint.root, entry: snapshot.entry().clone() }
            }
            false => self.session.commit(&self.db(), &[part], &[]).await?.pop().expect("one a part"),
        };
        let Shown { height, root, entry } = shown;
        Ok(Committed { height, root, version: entry.version, segments, rows: 0, seal: SealStats::default() })
    }

    /// Appends what was delivered, whatever was committed in between.
    async fn append_refs(&self, refs: Vec<SegmentRef>) -> Result<Committed, ClientError> {
        for attempt in 1.. {
            let version = self.session.catalogue(&self.db(), self.projection()).await?.entry().version;
            match self.commit(refs.clone(), Vec::new(), version).await {
                // Nothing was read that the other commit could have changed: the same sealed bytes go in after it.
                // Another member is asked first, should this one have made the other commit up.
                Err(ClientError::Conflict { .. }) if attempt < ATTEMPTS => self.session.prefer_another(),
                Err(ClientError::Op(OpRefusal::TooManyLive(_))) if attempt < ATTEMPTS => {
                    self.tidy().await?;
                }
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }
}

/// Whether what was read changed before the commit: nothing was written, so reading again is safe.
pub(crate) fn start_over(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Conflict { .. }
            | ClientError::Op(OpRefusal::NotLive(_))
            | ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Moved(_)), .. }
    )
}
