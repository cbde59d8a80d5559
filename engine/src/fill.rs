//! Fills: stored segments whose cells are not all here yet.
//!
//! ```text
//! a block stores a segment that others hold, or a snapshot was imported -> fill -> append_fill .. -> finish_fill: here, and served
//! ```
//! Rule    nothing of such a segment is served before the tree over all of it makes its root; a whole that does not is thrown away. A fill
//!         is in the store from the batch that makes its segment known, and ends when it is whole or its cells are due for removal.
//! Source  DESIGN section 7

use crate::engine::{Engine, lock};
use crate::error::{SegmentError, UploadError};
use crate::keys::{self, Cf};
use crate::segment::delete_cells;
use crate::state::{DbState, decode};
use crate::store::{Batch, Durability, Store, StoreError, scan_all};
use crate::upload::{Append, CheckedUpload, Kind, Shared, Upload, UploadRecord, Uploads, bytes_of, shared};
use fluence_crypto::tree::segment_root;
use fluence_types::tree::SegmentPreimage;
use fluence_types::{DatabaseId, SegmentRoot, codec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stored segment whose cells are not all here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// The segment.
    pub segment: SegmentRoot,
    /// Parts of its root.
    pub preimage: SegmentPreimage,
    /// Bytes that are here, from its first cell on.
    pub have: u64,
}

/// The fills of a store.
pub(crate) fn load(
    store: &dyn Store,
    databases: &BTreeMap<DatabaseId, Arc<DbState>>,
) -> Result<BTreeMap<(SegmentRoot, DatabaseId), Shared>, StoreError> {
    let mut fills = BTreeMap::new();
    scan_all(store, Cf::State, &[keys::FILL], 1024, &mut |(key, value)| {
        let record: UploadRecord = decode("fill", &value)?;
        let (db, root) = (record.db, segment_root(&record.preimage));
        let stored = |s: &Arc<DbState>| s.segments.contains_key(&root) || s.collected.contains_key(&root);
        if key != keys::fill(db, root) || !databases.get(&db).is_some_and(stored) {
            return Err(StoreError::Damaged(format!("a fill of segment {root}, which database {db} does not store")));
        }
        fills.insert((root, db), shared(Upload::of(root, record)));
        Ok(())
    })?;
    Ok(fills)
}

impl Uploads {
    pub(crate) fn fill(&self, db: DatabaseId, root: SegmentRoot) -> Option<Shared> {
        lock(&self.fills).get(&(root, db)).cloned()
    }

    /// A fill of that segment, whatever the database: an upload names none.
    pub(crate) fn fill_of(&self, root: SegmentRoot) -> Option<Shared> {
        let fills = lock(&self.fills);
        fills
            .range((root, DatabaseId::from_bytes([0; 16]))..)
            .take_while(|((r, _), _)| *r == root)
            .map(|(_, f)| f.clone())
            .next()
    }

    /// Begins a fill, in the batch that makes its segment known. `pages` of it are here already.
    pub(crate) fn begin_fill(&self, batch: &mut Batch, db: DatabaseId, preimage: SegmentPreimage, pages: u64) {
        let root = segment_root(&preimage);
        let record = UploadRecord::fill(db, preimage, pages);
        batch.put(Cf::State, keys::fill(db, root), codec::encode(&record));
        lock(&self.fills).insert((root, db), shared(Upload::of(root, record)));
    }

    /// Marks a fill as ended, waiting for whoever writes to it.
    pub(crate) fn stop_fill(&self, batch: &mut Batch, db: DatabaseId, root: SegmentRoot) -> Option<Shared> {
        let fill = self.fill(db, root)?;
        lock(&fill.upload).ended = true;
        batch.delete(Cf::State, keys::fill(db, root));
        Some(fill)
    }

    pub(crate) fn forget_fill(&self, db: DatabaseId, root: SegmentRoot) {
        lock(&self.fills).remove(&(root, db));
    }
}

impl Engine {
    /// The stored segments of a database whose cells are not all here, in order of root.
    #[must_use]
    pub fn missing(&self, db: DatabaseId) -> Vec<Missing> {
        let of_db = |((root, d), _): (&(SegmentRoot, DatabaseId), _)| (*d == db).then_some(*root);
        let fills: Vec<SegmentRoot> = lock(&self.uploads.fills).iter().filter_map(of_db).collect();
        fills.into_iter().filter_map(|root| self.missing_one(db, root)).collect()
    }

    /// How far a fill is; `None` where the segment is here, or unknown.
    #[must_use]
    pub fn missing_one(&self, db: DatabaseId, root: SegmentRoot) -> Option<Missing> {
        let fill = self.uploads.fill(db, root)?;
        let upload = lock(&fill.upload);
        let Upload { record, ended, .. } = &*upload;
        (!ended).then(|| Missing { segment: root, preimage: record.preimage, have: upload.have() })
    }

    /// Whether the cells of a stored segment are not all here.
    #[must_use]
    pub fn is_missing(&self, db: DatabaseId, root: SegmentRoot) -> bool {
        lock(&self.uploads.fills).contains_key(&(root, db))
    }

    /// Takes the next bytes of a fill, as [`Engine::append_upload`] does of an upload. The caller has checked them against the tree.
    ///
    /// # Errors
    /// [`UploadError`]; scalars that are not canonical throw away what was here.
    pub fn append_fill(
        &self,
        db: DatabaseId,
        root: SegmentRoot,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, UploadError> {
        let fill = self.uploads.fill(db, root).ok_or(UploadError::Unknown(root))?;
        let mut upload = lock(&fill.upload);
        if upload.ended {
            return Err(UploadError::Unknown(root));
        }
        match self.append(&mut upload, offset, bytes) {
            Ok(have) => Ok(have),
            Err(Append::Refused(e)) => Err(e),
            Err(Append::Failed(e)) => {
                self.reset_fill(&mut upload)?;
                Err(e)
            }
        }
    }

    /// Ends a fill whose bytes are all here, if they are the segment. From then on it is served.
    ///
    /// # Errors
    /// [`UploadError`]: not everything is here, or it is not the segment, and then all of it is thrown away.
    pub fn finish_fill(&self, db: DatabaseId, root: SegmentRoot) -> Result<(), UploadError> {
        let fill = self.uploads.fill(db, root).ok_or(UploadError::Unknown(root))?;
        let mut upload = lock(&fill.upload);
        if upload.ended {
            return Err(UploadError::Unknown(root));
        }
        let (have, need) = (upload.have(), bytes_of(&upload.record.preimage));
        if have != need {
            return Err(UploadError::Incomplete { have, need });
        }
        let mut batch = Batch::new();
        let whole = self.whole_root(&mut upload, &mut batch);
        let trusts = fluence_types::planted::are_pages_trusted();
        if !whole.as_ref().is_ok_and(|made| trusts || *made == upload.record.preimage.tree_root) {
            self.reset_fill(&mut upload)?;
            return Err(whole.err().unwrap_or_else(|| SegmentError::Root.into()));
        }
        batch.delete(Cf::State, keys::fill(db, root));
        self.store.commit(batch, Durability::Synced)?;
        upload.ended = true;
        drop(upload);
        self.uploads.forget_fill(db, root);
        Ok(())
    }

    /// A client's upload was overtaken by the block that stored its segment; what it sent may have been all that was missing.
    pub(crate) fn finish_straggler(&self, root: SegmentRoot) -> Result<CheckedUpload, UploadError> {
        let fill = self.uploads.fill_of(root).ok_or(UploadError::Unknown(root))?;
        let db = lock(&fill.upload).record.db;
        self.finish_fill(db, root)?;
        let state = self.state(db).ok_or(UploadError::UnknownDatabase(db))?;
        let segment = state.segments.get(&root).ok_or(UploadError::Unknown(root))?;
        let projection = state.projection(segment.projection).expect("a stored segment has a projection");
        Ok(CheckedUpload {
            db,
            preimage: segment.preimage,
            id: segment.id,
            rows: segment.rows,
            schema: projection.entry.schema,
            expiry: state.head.height,
        })
    }

    /// Throws away what a fill has, and does not take unchecked bytes again.
    pub(crate) fn reset_fill(&self, upload: &mut Upload) -> Result<(), StoreError> {
        let (db, root) = (upload.record.db, upload.root);
        upload.builder = None;
        upload.tail.clear();
        upload.record.pages = 0;
        upload.record.kind = Kind::Fill { distrusts: true };
        let mut batch = Batch::new();
        delete_cells(&mut batch, db, root, upload.record.preimage.cells);
        batch.put(Cf::State, keys::fill(db, root), codec::encode(&upload.record));
        self.store.commit(batch, Durability::Buffered)
    }
}
