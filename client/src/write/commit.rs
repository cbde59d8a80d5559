//! One commit: signed under the leases that the session holds, ordered, and shown by the certified catalogue.
//!
//! Rule    what became of an operation is a member's word; the catalogue is the cluster's. A commit counts when every table that it changed
//!         shows it under a certified root.
//! Source  DESIGN section 7; `docs/protocol/cluster.md`, "What a client checks"

use crate::error::ClientError;
use crate::session::{Ordered, Session, TableHandle};
use crate::transport::Transport;
use fluence_crypto::tree::segment_root;
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::{CHANGES_MAX, LIVE_SEGMENTS_MAX};
use fluence_types::op::{Change, Op, OpRefusal, SegmentRef};
use fluence_types::tree::CatalogueEntry;
use fluence_types::{DatabaseId, DbRoot, Height, ProjectionId, SegmentRoot, TableId, Version};
use std::collections::BTreeSet;

/// What a commit does to one table.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) handle: TableHandle,
    /// The version that was read.
    pub(crate) version: Version,
    pub(crate) append: Vec<SegmentRef>,
    pub(crate) retire: Vec<SegmentRoot>,
}

impl Part {
    pub(crate) fn roots(&self) -> Vec<SegmentRoot> {
        self.append.iter().map(|s| segment_root(&s.preimage)).collect()
    }

    /// Whether an entry shows it: at the version after ours what was appended is live, and what was retired is not. A later commit may
    /// have retired the segments again, so that a later version shows nothing against it.
    fn is_shown(&self, entry: &CatalogueEntry) -> bool {
        let live = |s: &SegmentRoot| entry.live.contains(s);
        let shown = self.roots().iter().all(live) && !self.retire.iter().any(live);
        entry.version > self.version && (shown || entry.version.0 > self.version.0 + 1)
    }
}

/// A table as the cluster certified it after a commit.
pub(crate) struct Shown {
    pub(crate) height: Height,
    pub(crate) root: DbRoot,
    pub(crate) entry: CatalogueEntry,
}

impl<T: Transport> Session<T> {
    /// Commits `parts`, one a table, if none of them and of `reads` changed since the version named. Gives how each part's table stands
    /// afterwards.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Conflict`], and other refusals of the operation, nothing was written.
    pub(crate) async fn commit(
        &self,
        db: &DatabaseId,
        parts: &[Part],
        reads: &[(ProjectionId, Version)],
    ) -> Result<Vec<Shown>, ClientError> {
        let tables: BTreeSet<TableId> = parts.iter().map(|p| p.handle.keys.table_id()).collect();
        let too_many = |got| ClientError::TooManySegments { got, limit: LIVE_SEGMENTS_MAX };
        let too_wide = |got| ClientError::TooManyTables { got, limit: CHANGES_MAX };
        let fences = Bounded::new(self.fences(db, &tables)?).map_err(|e| too_wide(e.got))?;
        let mut changes = Vec::with_capacity(parts.len());
        for part in parts {
            changes.push(Change {
                projection: part.handle.projection,
                append: Bounded::new(part.append.clone()).map_err(|e| too_many(e.got))?,
                retire: Bounded::new(part.retire.clone()).map_err(|e| too_many(e.got))?,
            });
        }
        let mut all: Vec<_> = parts.iter().map(|p| (p.handle.projection, p.version)).collect();
        all.extend(reads.iter().filter(|(r, _)| parts.iter().all(|p| p.handle.projection != *r)));
        let op = Op::Commit {
            fences,
            reads: Bounded::new(all).map_err(|e| too_wide(e.got))?,
            changes: Bounded::new(changes).map_err(|e| too_wide(e.got))?,
        };
        let mut members = self.trust(db)?.committee.members.len();
        loop {
            let ordered = match self.submit(db, op.clone()).await {
                // After a broken connection the first copy may have been ordered: then the second one repeats it.
                Err(ClientError::Op(OpRefusal::Repeated(_))) if self.are_live(db, parts).await? => None,
                Err(error) => {
                    self.note_lost(db, &tables, &error);
                    return Err(error);
                }
                Ok(ordered) => Some(ordered),
            };
            let mut shown = Vec::with_capacity(parts.len());
            for part in parts {
                self.forget_entry(&part.handle);
                let snapshot = self.catalogue(db, part.handle.projection).await?;
                if !part.is_shown(snapshot.entry()) {
                    break;
                }
                let checkpoint = snapshot.checkpoint();
                shown.push(Shown { height: checkpoint.height, root: checkpoint.root, entry: snapshot.entry().clone() });
            }
            if shown.len() == parts.len() {
                return Ok(shown);
            }
            let Some(Ordered { node, request, response }) = ordered else {
                let projection = parts.get(shown.len()).map_or_else(ProjectionId::default, |p| p.handle.projection);
                return Err(ClientError::Moving { projection, attempts: 1 });
            };
            let what = "the certified catalogue does not show the commit that it says was ordered".to_owned();
            self.blame(node, &what, codec::encode(&request), response);
            self.prefer_another();
            members = members.saturating_sub(1);
            if members == 0 {
                return Err(ClientError::Protocol { node, what });
            }
        }
    }

    /// Whether all that the parts append is live.
    async fn are_live(&self, db: &DatabaseId, parts: &[Part]) -> Result<bool, ClientError> {
        for part in parts {
            let snapshot = self.catalogue(db, part.handle.projection).await?;
            if !part.roots().iter().all(|root| snapshot.entry().live.contains(root)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
