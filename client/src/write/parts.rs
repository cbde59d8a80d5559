//! An import in parts: each is one segment, sealed and with the members before the commit that makes it live, so that a caller can write
//! down what it is about to commit, and tell after a crash whether it did.
//!
//! Room    a projection holds a limited number of live segments. Where it is full, those near in size are merged first, as a group writer
//!         does; the memory that takes is one segment's.
//! Source  DESIGN section 3

use super::{Committed, Progress, start_over};
use crate::error::ClientError;
use crate::group::tiers;
use crate::seal::{SEGMENT_ROWS_MAX, SealStats, Sealer};
use crate::session::{ATTEMPTS, Meter, Table};
use crate::transport::Transport;
use arrow_array::RecordBatch;
use fluence_types::SegmentRoot;
use fluence_types::limits::LIVE_SEGMENTS_MAX;
use fluence_types::op::SegmentRef;

/// A part of an import: sealed, with a quorum of the members or short enough to travel in the operation, and not live yet.
#[derive(Debug)]
pub struct SealedPart {
    reference: SegmentRef,
    root: SegmentRoot,
    stats: SealStats,
}

impl SealedPart {
    /// The segment that will be live. A certified catalogue that lists it shows that the part was committed.
    #[must_use]
    pub const fn root(&self) -> SegmentRoot {
        self.root
    }
}

impl<T: Transport> Table<T> {
    /// Seals rows into one segment and gets it to the members.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is live.
    pub async fn seal_part(
        &self,
        batches: &[RecordBatch],
        mut progress: impl FnMut(Progress),
    ) -> Result<SealedPart, ClientError> {
        let mut sealer = Sealer::new(self.handle.keys.clone());
        batches.iter().try_for_each(|batch| sealer.push(batch))?;
        let (mut stats, mut rows, mut inline) = (SealStats::default(), 0, 0);
        let segment = self.seal(sealer, &mut stats, &mut rows, &mut progress).await?;
        let reference = self.deliver(&segment, &mut inline, &mut progress).await?;
        Ok(SealedPart { reference, root: segment.root(), stats })
    }

    /// Commits a part. [`Self::make_room`] comes before it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn commit_part(&self, part: SealedPart) -> Result<Committed, ClientError> {
        let mut committed = self.append_refs(vec![part.reference]).await?;
        (committed.rows, committed.seal) = (part.stats.rows, part.stats);
        Ok(committed)
    }

    /// Merges segments where the table has as many live ones as it may.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::TooManySegments`] where no room can be made: all live segments are as large as segments get.
    pub async fn make_room(&self) -> Result<(), ClientError> {
        let mut attempt = 1;
        while let Err(error) = self.try_make_room().await {
            if !start_over(&error) || attempt == ATTEMPTS {
                return Err(error);
            }
            self.session.forget_entry(&self.handle);
            attempt += 1;
        }
        Ok(())
    }

    async fn try_make_room(&self) -> Result<(), ClientError> {
        let entry = self.session.catalogue(&self.db(), self.projection()).await?.entry().clone();
        if entry.live.len() < LIVE_SEGMENTS_MAX {
            return Ok(());
        }
        let views = self.session.views(&self.handle, &entry.live, &mut Meter::default()).await?;
        let sizes = views.iter().map(|view| (view.root(), view.header().rows)).collect();
        let chosen = tiers::choose(sizes, SEGMENT_ROWS_MAX as u64);
        if chosen.is_empty() {
            return Err(ClientError::TooManySegments { got: entry.live.len() + 1, limit: LIVE_SEGMENTS_MAX });
        }
        let mut sealer = Sealer::new(self.handle.keys.clone());
        for (batch, weights) in self.scan_segments(&chosen).await? {
            sealer.push_weighted(&batch, &weights)?;
        }
        let (mut stats, mut rows, mut inline) = (SealStats::default(), 0, 0);
        let mut merged = Vec::new();
        if sealer.rows() > 0 {
            let segment = self.seal(sealer, &mut stats, &mut rows, &mut |_| {}).await?;
            merged.push(self.deliver(&segment, &mut inline, &mut |_| {}).await?);
        }
        self.commit(merged, chosen, entry.version).await.map(|_| ())
    }
}
