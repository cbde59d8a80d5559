//! A database that is behind what others keep of its log: a later snapshot takes the place of its state.
//!
//! Rule    one batch. What only the old state named is removed with it; cells that both states name stay where they are, and so does a
//!         fill on its way. Notes, pins and committees of this node stay. Earlier roots are not provable here any more: the blocks in
//!         between, which would be undone, were never seen.
//! Source  DESIGN section 7; `docs/protocol/cluster.md`, "Sync"

use crate::engine::{Engine, lock};
use crate::keys::{self, Cf};
use crate::segment::delete_cells;
use crate::state::DbState;
use crate::store::{Batch, StoreError, scan_all};
use crate::upload::{Shared, UploadGuard};
use fluence_types::{DatabaseId, SegmentRoot};

/// Records of one state, which another state has none of or has in its own way.
const REPLACED: [(Cf, u8); 6] = [
    (Cf::State, keys::WRITER),
    (Cf::State, keys::PROJECTION),
    (Cf::State, keys::SCHEMA),
    (Cf::State, keys::SEGMENT),
    (Cf::State, keys::COLLECTED),
    (Cf::History, keys::PAST),
];

/// What a change of state does to uploads and fills, until its batch is written.
#[derive(Default)]
pub(crate) struct Moved {
    /// Segments whose fills begin.
    begun: Vec<SegmentRoot>,
    /// Uploads of segments that are stored now.
    ended: Vec<UploadGuard>,
    /// Fills of segments that nothing names any more.
    stopped: Vec<(SegmentRoot, Shared)>,
}

impl Moved {
    /// The batch was not written.
    pub(crate) fn undo(&self, engine: &Engine, db: DatabaseId) {
        self.ended.iter().for_each(|upload| engine.uploads.revive(upload));
        self.stopped.iter().for_each(|(_, fill)| lock(&fill.upload).ended = false);
        self.begun.iter().for_each(|root| engine.uploads.forget_fill(db, *root));
    }

    /// The batch is written.
    pub(crate) fn done(self, engine: &Engine, db: DatabaseId) {
        self.stopped.iter().for_each(|(root, _)| engine.uploads.forget_fill(db, *root));
        self.ended.into_iter().for_each(|upload| engine.uploads.end(upload));
    }
}

fn named(state: &DbState, root: SegmentRoot) -> bool {
    state.segments.contains_key(&root) || state.collected.contains_key(&root)
}

impl Engine {
    /// Takes `before` out of the store; to be put into the batch before the records of `after` are.
    pub(crate) fn clear(&self, batch: &mut Batch, before: &DbState, after: &DbState) -> Result<Moved, StoreError> {
        let (db, mut moved) = (before.head.db, Moved::default());
        for (cf, prefix) in REPLACED {
            scan_all(self.store.as_ref(), cf, &keys::of_database(prefix, db), 1024, &mut |(key, _)| {
                batch.delete(cf, key);
                Ok(())
            })?;
        }
        let stored = before.segments.iter().map(|(root, s)| (*root, s.preimage.cells));
        let kept = before.collected.iter().map(|(root, c)| (*root, c.preimage.cells));
        for (root, cells) in stored.chain(kept).filter(|(root, _)| !named(after, *root)) {
            let fill = self.uploads.stop_fill(batch, db, root);
            moved.stopped.extend(fill.map(|fill| (root, fill)));
            delete_cells(batch, db, root, cells);
        }
        Ok(moved)
    }

    /// Begins the fills of what `after` stores and `before` did not.
    pub(crate) fn begin_fills(&self, batch: &mut Batch, moved: &mut Moved, before: Option<&DbState>, after: &DbState) {
        let db = after.head.db;
        for (root, segment) in &after.segments {
            if before.is_some_and(|before| named(before, *root)) {
                continue;
            }
            let upload = self.uploads.take(db, *root);
            if !upload.as_ref().is_some_and(UploadGuard::is_checked) {
                let pages = upload.as_ref().map_or(0, UploadGuard::pages);
                self.uploads.begin_fill(batch, db, segment.preimage, pages);
                moved.begun.push(*root);
            }
            if let Some(upload) = upload {
                batch.delete(Cf::State, keys::upload(*root));
                moved.ended.push(upload);
            }
        }
    }
}
