//! Merging some live segments into one: those near in size, so that a table stays in few segments and no row is written again too often.
//!
//! ```text
//! prepare   choose ── read ── add weights ── seal ── to the members      beside other commits, as long as the inputs stay live
//! commit    retire the inputs, list the output                           at whatever version the table is then
//! ```
//! Rows    none changes: a retraction whose row lies elsewhere stays one
//! Memory  one segment's
//! Source  DESIGN section 3; [`crate::tiers`]

use super::{Committed, start_over};
use crate::error::ClientError;
use crate::seal::{SEGMENT_ROWS_MAX, SealStats, Sealer};
use crate::session::{ATTEMPTS, Meter, Table};
use crate::tiers;
use crate::transport::Transport;
use fluence_types::SegmentRoot;
use fluence_types::limits::LIVE_SEGMENTS_MAX;
use fluence_types::op::{OpRefusal, SegmentRef};

/// Several segments as one: sealed, and with the members or inside what it will be named by; not live yet.
#[derive(Debug)]
pub struct PreparedMerge {
    pub(crate) inputs: Vec<SegmentRoot>,
    /// None where everything cancelled out.
    pub(crate) output: Option<(SegmentRef, SegmentRoot)>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl<T: Transport> Table<T> {
    /// Merges live segments that are near in size; `None` where few are live, or all are as large as segments get.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn merge(&self) -> Result<Option<Committed>, ClientError> {
        for attempt in 1.. {
            let merged = async {
                match self.prepare_merge().await? {
                    Some(merge) => self.commit_merge(merge).await.map(Some),
                    None => Ok(None),
                }
            };
            match merged.await {
                Err(error) if start_over(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    /// The first half of [`Self::merge`], which needs no turn among commits.
    ///
    /// # Errors
    /// [`ClientError`]; [`OpRefusal::NotLive`] where another merge was faster.
    pub async fn prepare_merge(&self) -> Result<Option<PreparedMerge>, ClientError> {
        let entry = self.session.catalogue(&self.db(), self.projection()).await?.entry().clone();
        if entry.live.len() < tiers::SOFT {
            return Ok(None);
        }
        let views = self.session.views(&self.handle, &entry.live, &mut Meter::default()).await?;
        let sizes = views.iter().map(|view| (view.root(), view.header().rows)).collect();
        let chosen = tiers::choose(sizes, SEGMENT_ROWS_MAX as u64);
        if chosen.is_empty() { Ok(None) } else { self.merged(&chosen).await.map(Some) }
    }

    /// The second half: at the version at which the table is now.
    ///
    /// # Errors
    /// [`ClientError`]; [`OpRefusal::NotLive`] where one of the segments was retired meanwhile.
    pub async fn commit_merge(&self, merge: PreparedMerge) -> Result<Committed, ClientError> {
        for attempt in 1.. {
            let entry = self.session.catalogue(&self.db(), self.projection()).await?.entry().clone();
            if let Some(gone) = merge.inputs.iter().find(|root| !entry.live.contains(root)) {
                return Err(ClientError::Op(OpRefusal::NotLive(*gone)));
            }
            let output = merge.output.iter().map(|(reference, _)| reference.clone()).collect();
            match self.commit(output, merge.inputs.clone(), entry.version).await {
                // Another member is asked first, should this one have made the other commit up.
                Err(ClientError::Conflict { .. }) if attempt < ATTEMPTS => self.session.prefer_another(),
                other => return other.map(|committed| Committed { rows: merge.rows, ..committed }),
            }
        }
        unreachable!("the loop returns")
    }

    /// Reads segments from the members, adds the weights of equal rows, and seals what is left.
    pub(crate) async fn merged(&self, inputs: &[SegmentRoot]) -> Result<PreparedMerge, ClientError> {
        let mut sealer = Sealer::new(self.handle.keys.clone());
        for (batch, weights) in self.scan_segments(inputs).await? {
            sealer.push_weighted(&batch, &weights)?;
        }
        let mut merge = PreparedMerge { inputs: inputs.to_vec(), output: None, rows: 0, bytes: 0 };
        if sealer.rows() > 0 {
            let segment = self.seal(sealer, &mut SealStats::default(), &mut 0, &mut |_| {}).await?;
            let reference = self.deliver(&segment, &mut 0, &mut |_| {}).await?;
            (merge.rows, merge.bytes) = (segment.rows(), segment.byte_len());
            merge.output = Some((reference, segment.root()));
        }
        Ok(merge)
    }

    /// Makes room for a segment where the table has as many live ones as it may: by a merge, or by compacting all, where none helps.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn tidy(&self) -> Result<Option<Committed>, ClientError> {
        match self.merge().await? {
            None => self.compact().await,
            merged => Ok(merged),
        }
    }

    /// Merges segments where the table has as many live ones as it may, before a part of an import.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::TooManySegments`] where no room can be made: all live segments are as large as segments get.
    pub async fn make_room(&self) -> Result<(), ClientError> {
        let live = self.session.catalogue(&self.db(), self.projection()).await?.entry().live.len();
        if live < LIVE_SEGMENTS_MAX || self.merge().await?.is_some() {
            return Ok(());
        }
        Err(ClientError::TooManySegments { got: live + 1, limit: LIVE_SEGMENTS_MAX })
    }
}
