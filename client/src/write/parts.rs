//! An import in parts: each is one segment, sealed and with the members before the commit that makes it live, so that a caller can write
//! down what it is about to commit, and tell after a crash whether it did.
//!
//! Room    a projection holds a limited number of live segments. Where it is full, those near in size are merged first
//! Source  DESIGN section 3

use super::{Committed, Progress};
use crate::error::ClientError;
use crate::seal::{SealStats, Sealer};
use crate::session::Table;
use crate::transport::Transport;
use arrow_array::RecordBatch;
use fluence_types::SegmentRoot;
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
}
