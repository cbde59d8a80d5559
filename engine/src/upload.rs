//! Uploads: segments on their way in, before an operation names them.
//!
//! ```text
//! begin(db, preimage) -> have     append(root, offset, bytes) -> have, ..     finish(root) -> CheckedUpload
//! ```
//! Cells are hashed as whole pages arrive and written at once under the keys they keep, so memory is one chunk and seven digests a
//! level whatever the segment's size; an upload survives a restart up to its last whole page. What is not finished is nobody's:
//! reads look only at segments that an operation stored.
//! Rule    bytes of unordered uploads are limited, and an upload expires by height, never by a clock. Uploads are this member's own
//!         business: nothing of them is under the database root.
//! Source  DESIGN sections 4 and 7

use crate::engine::{Engine, lock};
use crate::error::{SegmentError, UploadError};
use crate::keys::{self, Cf};
use crate::nodes::{NodeSink, PageDigests, SegmentReader, TreeBuilder};
use crate::page::{CELL_BYTES, cell, cells_fr};
use crate::segment::{Facts, delete_cells, put_pages};
use crate::state::{DbState, decode};
use crate::store::{Batch, Durability, Store, StoreError, scan_all};
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_crypto::field;
use fluence_crypto::tree::segment_root;
use fluence_types::limits::{PAGE_BYTES, PAGE_CELLS, SEGMENT_CELLS_MAX};
use fluence_types::op::Receipt;
use fluence_types::segment::SegmentHeader;
use fluence_types::tree::{Cell, SegmentPreimage};
use fluence_types::{DatabaseId, FieldBytes, Height, NodeId, SchemaHash, SegmentId, SegmentRoot, codec};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Longest chunk that [`Engine::append_upload`] takes, in bytes: it is the memory that an upload costs.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;

/// What is stored of an upload.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct UploadRecord {
    pub(crate) db: DatabaseId,
    pub(crate) preimage: SegmentPreimage,
    pub(crate) expiry: Height,
    pub(crate) pages: u64,
    pub(crate) checked: Option<(SegmentId, u64, SchemaHash)>,
    pub(crate) kind: Kind,
}

/// Why its bytes are on their way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A client sends them, and no operation has named the segment yet.
    Upload = 0,
    /// The segment is stored, and its cells are not all here.
    Fill {
        /// A whole was wrong: only bytes that were checked against the tree on arrival are taken from now on.
        distrusts: bool,
    } = 1,
}

impl UploadRecord {
    pub(crate) const fn fill(db: DatabaseId, preimage: SegmentPreimage, pages: u64) -> Self {
        Self { db, preimage, expiry: Height(u64::MAX), pages, checked: None, kind: Kind::Fill { distrusts: false } }
    }

    /// Where it is kept.
    pub(crate) fn key(&self, root: SegmentRoot) -> Vec<u8> {
        match self.kind {
            Kind::Upload => keys::upload(root),
            Kind::Fill { .. } => keys::fill(self.db, root),
        }
    }
}

/// What changes of an upload.
pub(crate) struct Upload {
    pub(crate) record: UploadRecord,
    pub(crate) root: SegmentRoot,
    /// `None` until the first chunk after a restart.
    pub(crate) builder: Option<TreeBuilder>,
    /// Bytes of a page that is not whole yet.
    pub(crate) tail: Vec<u8>,
    /// Ended: ordered, dropped, expired or filled. Whoever still holds it must not write.
    pub(crate) ended: bool,
}

/// An upload, with what never changes of it outside the lock.
pub(crate) struct Entry {
    db: DatabaseId,
    bytes: u64,
    pub(crate) upload: Mutex<Upload>,
}

pub(crate) type Shared = Arc<Entry>;

pub(crate) fn shared(upload: Upload) -> Shared {
    Arc::new(Entry { db: upload.record.db, bytes: bytes_of(&upload.record.preimage), upload: Mutex::new(upload) })
}

/// All uploads of an engine. Who holds an upload may wait for the map, so who holds the map never waits for an upload.
pub(crate) struct Uploads {
    by_root: Mutex<BTreeMap<SegmentRoot, Shared>>,
    /// Stored segments whose cells are not all here: no limit counts them, and no height ends them.
    pub(crate) fills: Mutex<BTreeMap<(SegmentRoot, DatabaseId), Shared>>,
}

/// A segment that is here whole and was checked: a member may sign for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckedUpload {
    /// The database it was uploaded for.
    pub db: DatabaseId,
    /// Parts of its root.
    pub preimage: SegmentPreimage,
    /// The id in its header.
    pub id: SegmentId,
    /// Its rows.
    pub rows: u64,
    /// The schema in its header, whose lanes it has.
    pub schema: SchemaHash,
    /// Last height at which an operation may name it.
    pub expiry: Height,
}

impl CheckedUpload {
    /// The receipt for `node` to sign.
    #[must_use]
    pub const fn receipt(&self, node: NodeId) -> Receipt {
        let Self { db, preimage: segment, id, rows, schema, expiry } = *self;
        Receipt { node, db, segment, id, rows, schema, expiry }
    }
}

/// An upload taken out of service, so that a block can store its segment.
pub(crate) struct UploadGuard {
    root: SegmentRoot,
    upload: Shared,
    checked: bool,
}

impl UploadGuard {
    pub(crate) fn is_checked(&self) -> bool {
        self.checked
    }

    /// The pages that are here.
    pub(crate) fn pages(&self) -> u64 {
        lock(&self.upload.upload).record.pages
    }
}

pub(crate) const fn bytes_of(preimage: &SegmentPreimage) -> u64 {
    preimage.cells * CELL_BYTES as u64
}

impl Upload {
    pub(crate) fn of(root: SegmentRoot, record: UploadRecord) -> Self {
        Self { record, root, builder: None, tail: Vec::new(), ended: false }
    }

    pub(crate) fn have(&self) -> u64 {
        let paged = (self.record.pages * PAGE_BYTES as u64).min(bytes_of(&self.record.preimage));
        paged + self.tail.len() as u64
    }

    pub(crate) fn reader<'a>(&self, store: &'a dyn Store) -> SegmentReader<'a> {
        SegmentReader { store, db: self.record.db, root: self.root, cells: self.record.preimage.cells }
    }

    fn checked(&self) -> Option<CheckedUpload> {
        let UploadRecord { db, preimage, expiry, checked, .. } = self.record;
        checked.map(|(id, rows, schema)| CheckedUpload { db, preimage, id, rows, schema, expiry })
    }
}

impl Uploads {
    pub(crate) fn load(store: &dyn Store, databases: &BTreeMap<DatabaseId, Arc<DbState>>) -> Result<Self, StoreError> {
        let mut by_root = BTreeMap::new();
        scan_all(store, Cf::State, &[keys::UPLOAD], 1024, &mut |(_, value)| {
            let record: UploadRecord = decode("upload", &value)?;
            if !databases.contains_key(&record.db) {
                return Err(StoreError::Damaged(format!("an upload for database {}, which is not here", record.db)));
            }
            let root = segment_root(&record.preimage);
            by_root.insert(root, shared(Upload::of(root, record)));
            Ok(())
        })?;
        let fills = crate::fill::load(store, databases)?;
        Ok(Self { by_root: Mutex::new(by_root), fills: Mutex::new(fills) })
    }

    fn get(&self, root: SegmentRoot) -> Option<Shared> {
        lock(&self.by_root).get(&root).cloned()
    }

    /// Marks the upload of a segment as ended, waiting for whoever writes to it.
    pub(crate) fn take(&self, db: DatabaseId, root: SegmentRoot) -> Option<UploadGuard> {
        let upload = self.get(root)?;
        let checked = {
            let mut inner = lock(&upload.upload);
            if inner.record.db != db || inner.ended {
                return None;
            }
            inner.ended = true;
            inner.record.checked.is_some()
        };
        Some(UploadGuard { root, upload, checked })
    }

    /// Puts an upload back into service: the block that would have ended it was not written.
    pub(crate) fn revive(&self, guard: &UploadGuard) {
        lock(&guard.upload.upload).ended = false;
    }

    /// Forgets an ended upload.
    pub(crate) fn end(&self, guard: UploadGuard) {
        let mut all = lock(&self.by_root);
        if all.get(&guard.root).is_some_and(|u| Arc::ptr_eq(u, &guard.upload)) {
            all.remove(&guard.root);
        }
    }
}

impl Engine {
    /// Starts or resumes an upload; says how many bytes are here, so where to go on. A segment that is stored is here whole.
    ///
    /// # Errors
    /// [`UploadError`] where the database is unknown, the size impossible, or a limit reached.
    pub fn begin_upload(&self, db: DatabaseId, preimage: &SegmentPreimage) -> Result<u64, UploadError> {
        if !(1..=SEGMENT_CELLS_MAX).contains(&preimage.cells) {
            return Err(UploadError::Size { got: preimage.cells, limit: SEGMENT_CELLS_MAX });
        }
        let root = segment_root(preimage);
        // The lock first: a block that stores the segment in between would have its cells overwritten by this upload.
        let mut all = lock(&self.uploads.by_root);
        let state = self.state(db).ok_or(UploadError::UnknownDatabase(db))?;
        if state.segments.contains_key(&root) {
            drop(all);
            let fill = self.uploads.fill(db, root);
            return Ok(fill.map_or(bytes_of(preimage), |fill| lock(&fill.upload).have()));
        }
        if state.collected.contains_key(&root) {
            return Err(UploadError::Collected(root));
        }
        if let Some(entry) = all.get(&root).cloned() {
            drop(all);
            if entry.db != db {
                return Err(UploadError::OtherDatabase { segment: root, db: entry.db });
            }
            return Ok(lock(&entry.upload).have());
        }
        let within = |what, got, limit| {
            if got > limit { Err(UploadError::Limit { what, got, limit }) } else { Ok(()) }
        };
        within("uploads", all.len() as u64 + 1, self.config.uploads_max)?;
        let announced: u64 = all.values().map(|entry| entry.bytes).sum();
        within("bytes of uploads", announced + bytes_of(preimage), self.config.upload_bytes_max)?;
        let expiry = Height(state.head.height.0.saturating_add(self.config.upload_blocks));
        let record = UploadRecord { db, preimage: *preimage, expiry, pages: 0, checked: None, kind: Kind::Upload };
        let mut batch = Batch::new();
        batch.put(Cf::State, keys::upload(root), codec::encode(&record));
        self.store.commit(batch, Durability::Buffered)?;
        let builder = Some(TreeBuilder::new(preimage.cells));
        let upload = Upload { record, root, builder, tail: Vec::new(), ended: false };
        all.insert(root, shared(upload));
        Ok(0)
    }

    /// Takes the next bytes of an upload: canonical scalars of 32 bytes, `offset` being where the copy here ends. Says how many bytes
    /// are here now.
    ///
    /// # Errors
    /// [`UploadError`]; a scalar that is not canonical drops the upload.
    pub fn append_upload(&self, root: SegmentRoot, offset: u64, bytes: &[u8]) -> Result<u64, UploadError> {
        let entry = self.uploads.get(root).or_else(|| self.uploads.fill_of(root)).ok_or(UploadError::Unknown(root))?;
        let mut upload = lock(&entry.upload);
        // One wrong whole is enough: from then on strangers' bytes go into no fill.
        if upload.ended || upload.record.kind == (Kind::Fill { distrusts: true }) {
            return Err(UploadError::Unknown(root));
        }
        match self.append(&mut upload, offset, bytes) {
            Err(Append::Refused(e)) => Err(e),
            Err(Append::Failed(e)) if upload.record.kind == Kind::Upload => {
                self.drop_upload(&mut upload)?;
                Err(e)
            }
            Err(Append::Failed(e)) => {
                self.reset_fill(&mut upload)?;
                Err(e)
            }
            Ok(have) => Ok(have),
        }
    }

    /// Takes the next bytes, of an upload or a fill.
    pub(crate) fn append(&self, upload: &mut Upload, offset: u64, bytes: &[u8]) -> Result<u64, Append> {
        let refuse = |e| Err(Append::Refused(e));
        let (have, need) = (upload.have(), bytes_of(&upload.record.preimage));
        if offset != have {
            return refuse(UploadError::Offset { got: offset, have });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > need {
            return refuse(UploadError::Overrun { got: end, limit: need });
        }
        if bytes.len() > CHUNK_BYTES_MAX {
            let (got, limit) = (bytes.len() as u64, CHUNK_BYTES_MAX as u64);
            return refuse(UploadError::Limit { what: "bytes of a chunk", got, limit });
        }
        let mut ready = std::mem::take(&mut upload.tail);
        ready.extend_from_slice(bytes);
        let whole = if end == need { ready.len() } else { ready.len() - ready.len() % PAGE_BYTES };
        upload.tail = ready.split_off(whole);
        if !ready.is_empty() {
            self.store_pages(upload, &ready).map_err(Append::Failed)?;
        }
        Ok(end)
    }

    /// Hashes and writes whole pages.
    fn store_pages(&self, upload: &mut Upload, bytes: &[u8]) -> Result<(), UploadError> {
        let first = upload.record.pages;
        let digests = bytes
            .par_chunks(PAGE_BYTES * PageDigests::AT_ONCE)
            .enumerate()
            .map(|(chunk, bytes)| {
                let page = first + (chunk * PageDigests::AT_ONCE) as u64;
                let scalar = |at: usize| UploadError::Scalar(page * PAGE_CELLS as u64 + at as u64);
                cells_fr(bytes).map(|cells| PageDigests::of(&cells)).map_err(scalar)
            })
            .collect::<Vec<_>>();
        let digests = digests.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (db, root) = (upload.record.db, upload.root);
        let mut builder = match upload.builder.take() {
            Some(builder) => builder,
            None => TreeBuilder::resume(&upload.reader(self.store.as_ref()), first)
                .map_err(|lost| UploadError::Lost(lost.page))?,
        };
        let mut batch = Batch::new();
        let mut sink = NodeSink { db, root, batch: &mut batch };
        for page in digests.iter().flatten() {
            builder.push(page, &mut sink);
        }
        put_pages(&mut batch, db, root, first, bytes);
        upload.record.pages = builder.pages();
        batch.put(Cf::State, upload.record.key(root), codec::encode(&upload.record));
        self.store.commit(batch, Durability::Buffered)?;
        upload.builder = Some(builder);
        Ok(())
    }

    /// Checks a complete upload: the whole tree, the header, the lanes against the schemas of the database. What it returns is durable.
    /// Asked again, it says the same.
    ///
    /// # Errors
    /// [`UploadError`]; a segment that breaks a rule is dropped.
    pub fn finish_upload(&self, root: SegmentRoot) -> Result<CheckedUpload, UploadError> {
        let Some(entry) = self.uploads.get(root) else { return self.finish_straggler(root) };
        let mut upload = lock(&entry.upload);
        if upload.ended {
            return Err(UploadError::Unknown(root));
        }
        if let Some(checked) = upload.checked() {
            return Ok(checked);
        }
        let (have, need) = (upload.have(), bytes_of(&upload.record.preimage));
        if have != need {
            return Err(UploadError::Incomplete { have, need });
        }
        match self.check_upload(&mut upload) {
            Ok(()) => Ok(upload.checked().expect("it was just checked")),
            Err(e) => {
                self.drop_upload(&mut upload)?;
                Err(e)
            }
        }
    }

    /// The root of the tree over all that was sent, with the records that complete it.
    pub(crate) fn whole_root(&self, upload: &mut Upload, batch: &mut Batch) -> Result<FieldBytes, UploadError> {
        let (db, root, preimage) = (upload.record.db, upload.root, upload.record.preimage);
        let store = self.store.as_ref();
        let lost = |lost: crate::nodes::Lost| UploadError::Lost(lost.page);
        let builder = match upload.builder.take() {
            Some(builder) => builder,
            None => TreeBuilder::resume(&upload.reader(store), upload.record.pages).map_err(lost)?,
        };
        let tree_root = if preimage.cells <= PAGE_CELLS as u64 {
            // One page: after a restart the builder has no digest of it, and hashing it again is cheap.
            let cells =
                cells_fr(&upload.reader(store).page(0).map_err(lost)?).map_err(|at| UploadError::Scalar(at as u64))?;
            let mut sink = NodeSink { db, root, batch };
            let mut builder = TreeBuilder::new(preimage.cells);
            builder.push(&PageDigests::of(&cells)[0], &mut sink);
            builder.finish(&mut sink)
        } else {
            builder.finish(&mut NodeSink { db, root, batch })
        };
        Ok(field::to_bytes(&tree_root))
    }

    fn check_upload(&self, upload: &mut Upload) -> Result<(), UploadError> {
        let (db, preimage) = (upload.record.db, upload.record.preimage);
        let store = self.store.as_ref();
        let mut batch = Batch::new();
        if self.whole_root(upload, &mut batch)? != preimage.tree_root {
            return Err(SegmentError::Root.into());
        }
        let header = read_header(&upload.reader(store))?;
        let facts = Facts::of_header(&preimage, &header)?;
        let state = self.state(db).ok_or(UploadError::UnknownDatabase(db))?;
        facts.fits(&state)?;
        upload.record.checked = Some((facts.id, facts.rows, facts.schema));
        batch.put(Cf::State, keys::upload(upload.root), codec::encode(&upload.record));
        self.store.commit(batch, Durability::Synced)?;
        Ok(())
    }

    /// Removes an upload with all its bytes.
    fn drop_upload(&self, upload: &mut Upload) -> Result<(), StoreError> {
        if upload.ended {
            return Ok(());
        }
        upload.ended = true;
        let mut batch = Batch::new();
        // What a block has stored meanwhile is not the upload's any more.
        let state = self.state(upload.record.db);
        let kept = |s: &DbState| s.segments.contains_key(&upload.root) || s.collected.contains_key(&upload.root);
        if !state.is_some_and(|s| kept(&s)) {
            delete_cells(&mut batch, upload.record.db, upload.root, upload.record.preimage.cells);
        }
        batch.delete(Cf::State, keys::upload(upload.root));
        let dropped = self.store.commit(batch, Durability::Buffered);
        lock(&self.uploads.by_root).remove(&upload.root);
        dropped
    }

    /// Drops the uploads of a database whose expiry and margin are past; called after each block.
    pub(crate) fn expire_uploads(&self, db: DatabaseId, height: Height) -> Result<(), StoreError> {
        let all: Vec<Shared> = lock(&self.uploads.by_root).values().cloned().collect();
        for entry in all.into_iter().filter(|entry| entry.db == db) {
            let mut upload = lock(&entry.upload);
            let last = upload.record.expiry.0.saturating_add(self.config.upload_margin_blocks);
            if height.0 > last {
                self.drop_upload(&mut upload)?;
            }
        }
        Ok(())
    }

    /// Bytes that uploads hold or have announced.
    #[must_use]
    pub fn upload_bytes(&self) -> u64 {
        lock(&self.uploads.by_root).values().map(|entry| entry.bytes).sum()
    }

    /// Says early what a block would say of an operation's uploaded segments, where they are here: that id and rows are the header's,
    /// and the schema is the projection's. The outcome in a block is the receipts' to decide, never this.
    ///
    /// # Errors
    /// [`SegmentError`] naming what differs.
    pub fn check_uploaded(&self, op: &fluence_types::op::UnsignedOp) -> Result<(), SegmentError> {
        let (fluence_types::op::Op::Commit { changes, .. }, Some(state)) = (&op.op, self.state(op.db)) else {
            return Ok(());
        };
        for change in changes.iter() {
            let Some(projection) = state.projection(change.projection) else { continue };
            for segment in change.append.iter() {
                let Some(entry) = self.uploads.get(segment_root(&segment.preimage)) else { continue };
                let Some((id, rows, schema)) = lock(&entry.upload).record.checked else { continue };
                let facts = Facts { id, rows, schema, lanes: projection.lanes.clone() };
                if let Some(why) = crate::apply::facts_differ(&facts, segment, projection) {
                    return Err(why);
                }
            }
        }
        Ok(())
    }
}

/// Why bytes were not taken.
pub(crate) enum Append {
    /// They are out of place; what is here stays.
    Refused(UploadError),
    /// They are wrong, or could not be written: what is here is worth nothing.
    Failed(UploadError),
}

/// The header cells of a segment that is here.
fn read_header(reader: &SegmentReader<'_>) -> Result<Vec<Cell>, UploadError> {
    let lost = |lost: crate::nodes::Lost| UploadError::Lost(lost.page);
    let first = reader.cells(0, 1).map_err(lost)?;
    let preamble = cell(&first).ok_or(UploadError::Scalar(0))?;
    let need = SegmentHeader::cells_from_preamble(&preamble).map_err(SegmentError::from)?;
    let bytes = reader.cells(0, need.min(reader.cells)).map_err(lost)?;
    bytes.chunks(CELL_BYTES).map(|raw| cell(raw).ok_or(UploadError::Scalar(0))).collect()
}

const _: () = assert!(CHUNK_BYTES_MAX.is_multiple_of(PAGE_BYTES));
