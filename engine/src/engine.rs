//! The engine: databases by id, each with its own log, over one store.
//!
//! ```text
//! begin_upload .. append .. finish_upload     cells arrive, are hashed and checked, and wait for an operation that names them
//! VerifiedBlock::verify, apply                the log, block by block
//! view                                        one consistent state to read from: openings, headers, schemas, witnesses
//! scrub, flush                                care of the disk
//! ```
//! Rule    plain functions; a failed write stops all writing until the engine is opened again. Reads go on: they see the last state
//!         whose write was acknowledged.

use crate::apply::{self, Applied, Computed};
use crate::block::VerifiedBlock;
use crate::error::{ApplyError, EngineError};
use crate::keys::{self, Cf};
use crate::past;
use crate::state::{BlockRecord, DbState, heads};
use crate::store::{Batch, Durability, Entry, Store, StoreError, scan_all};
use crate::upload::{UploadGuard, Uploads};
use crate::view::View;
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_types::answer::{OpenRefusal, OpenRequest, SegmentOpening};
use fluence_types::block::{Checkpoint, Members};
use fluence_types::limits::{EXECUTION_LAG_MAX, SEGMENT_LEVELS_MAX, STORED_LEVELS_MAX};
use fluence_types::op::OpReceipt;
use fluence_types::shape::StorageShape;
use fluence_types::tree::CatalogueOpening;
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, OpId, ProjectionId, SegmentRoot, codec};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What is fixed at a database's genesis, under its root: members that differ in it disagree on the first root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Rules {
    /// Blocks for which a superseded segment is kept, so that checkpoints that name it can still be disputed.
    pub retention_blocks: u64,
    /// Levels of the stored tree that storage proofs reach: 4^levels segments, superseded ones included, at most [`STORED_LEVELS_MAX`].
    pub stored_levels: u32,
    /// Levels of a segment's tree that they reach: 8^levels cells, at most [`SEGMENT_LEVELS_MAX`].
    pub segment_levels: u32,
}

impl Rules {
    /// The rules of databases whose storage is proven in a shape.
    ///
    /// A writer that commits in every block, and merges what it wrote, leaves about 1.3 segments behind it a block: a retention of half as
    /// many blocks as there are places leaves room for those that live.
    #[must_use]
    pub const fn of(shape: StorageShape) -> Self {
        Self { retention_blocks: 2048, stored_levels: shape.stored_levels, segment_levels: shape.tree_levels }
    }

    /// The production rules with another retention, in blocks.
    #[must_use]
    pub const fn retaining(retention_blocks: u64) -> Self {
        Self { retention_blocks, ..Self::of(StorageShape::PRODUCTION) }
    }

    /// Most segments.
    pub(crate) fn segments_max(&self) -> u64 {
        1 << (2 * self.stored_levels.min(STORED_LEVELS_MAX as u32))
    }

    /// Most cells of a segment.
    pub(crate) fn cells_max(&self) -> u64 {
        1 << (3 * self.segment_levels.min(SEGMENT_LEVELS_MAX as u32))
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(StorageShape::PRODUCTION)
    }
}

/// Sizes and times of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// What is fixed at a database's genesis.
    pub rules: Rules,
    /// Blocks after which an upload that no operation named expires: the expiry of receipts signed for it.
    pub upload_blocks: u64,
    /// Blocks after that expiry for which its cells are still kept.
    pub upload_margin_blocks: u64,
    /// Bytes of cells that uploads may hold or have announced, all together.
    pub upload_bytes_max: u64,
    /// Uploads at once.
    pub uploads_max: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            upload_blocks: 1024,
            upload_margin_blocks: 64,
            upload_bytes_max: 4 << 30,
            uploads_max: 256,
        }
    }
}

/// Databases, uploads, and what is known to be lost.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: EngineConfig,
    databases: RwLock<BTreeMap<DatabaseId, Arc<DbState>>>,
    /// The last states of each, the newest last: what reads are served from while its root waits for its certificate.
    recent: RwLock<BTreeMap<DatabaseId, VecDeque<Arc<DbState>>>>,
    /// Blocks are applied one at a time.
    pub(crate) turn: Mutex<()>,
    /// The lowest height of each database that must stay provable.
    pins: Mutex<BTreeMap<DatabaseId, Height>>,
    pub(crate) uploads: Uploads,
    pub(crate) lost: Mutex<BTreeSet<(DatabaseId, SegmentRoot, u64)>>,
}

/// States kept of each database.
pub const RECENT: usize = 2 * EXECUTION_LAG_MAX as usize;

/// Where a database's log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Height of the last block applied.
    pub height: Height,
    /// Its hash.
    pub block: BlockHash,
    /// Its time.
    pub timestamp_ms: u64,
    /// The root after it.
    pub root: DbRoot,
    /// Hash of the next epoch's committee after it.
    pub next_members_hash: [u8; 32],
}

/// A lock that a panicking holder left: what it guards is replaced whole, never half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens the engine over a store: reads all state, recomputes every root, and compares it with the store's anchors.
    ///
    /// # Errors
    /// [`EngineError`] where the state is damaged, or is not the last acknowledged one nor the one in flight after it.
    pub fn open(store: Arc<dyn Store>, config: EngineConfig) -> Result<Self, EngineError> {
        let mut databases = BTreeMap::new();
        for head in heads(store.as_ref())? {
            databases.insert(head.db, Arc::new(DbState::load(store.as_ref(), head)?));
        }
        let anchors = store.anchors();
        for (db, anchor) in &anchors {
            let head = &databases.get(db).ok_or(EngineError::Missing(*db))?.head;
            let acknowledged = head.height == anchor.height && head.root == anchor.root;
            let mut in_flight = head.height.0 == anchor.height.0 + 1;
            if !acknowledged && !in_flight && head.height > anchor.height {
                // A snapshot that took the state's place is in flight with the height it jumps to.
                let made = Checkpoint { db: *db, height: head.height, root: head.root };
                in_flight = crate::snapshot::origin(store.as_ref(), *db)? == Some(made);
            }
            if !acknowledged && !in_flight {
                return Err(EngineError::Behind { db: *db, have: head.height, root: head.root, anchor: anchor.height });
            }
        }
        for (db, state) in databases.iter().filter(|(db, _)| !anchors.contains_key(db)) {
            // Only a genesis block or a snapshot can be in flight before there is an anchor.
            let began = crate::snapshot::origin(store.as_ref(), *db)?;
            if state.head.height > Height(0) && began != Some(state.checkpoint()) {
                let why = format!("at height {}, but never acknowledged", state.head.height);
                return Err(crate::state::damaged(*db, why));
            }
        }
        let uploads = Uploads::load(store.as_ref(), &databases)?;
        let pins = Mutex::new(past::pins(store.as_ref())?);
        let recent = databases.iter().map(|(db, state)| (*db, VecDeque::from([Arc::clone(state)])));
        let recent = RwLock::new(recent.collect());
        let databases = RwLock::new(databases);
        Ok(Self { store, config, databases, recent, turn: Mutex::default(), pins, uploads, lost: Mutex::default() })
    }

    /// Applies the next block of a database's log; the first one creates it. A block that was applied before changes nothing.
    ///
    /// # Errors
    /// [`ApplyError`]. After [`ApplyError::Store`], nothing can be written until the engine is opened again.
    pub fn apply(&self, block: &VerifiedBlock) -> Result<Applied, ApplyError> {
        let _turn = lock(&self.turn);
        let header = block.header();
        let before = self.state(header.db);
        if before.as_ref().is_some_and(|state| header.height <= state.head.height) {
            return apply::replay(self.store.as_ref(), block);
        }
        let Computed { state, mut batch, outcomes, stored, collected, removed } =
            apply::compute(self.store.as_ref(), before.as_deref(), block, self.config.rules, self.pinned(header.db))?;
        // Uploads of segments that this block stores end here: nobody may write their pages any more.
        let mut missing = Vec::new();
        let mut ended: Vec<UploadGuard> = Vec::new();
        for (root, inline) in stored {
            let upload = self.uploads.take(header.db, root);
            let here = inline || upload.as_ref().is_some_and(UploadGuard::is_checked);
            if !here {
                // What lies under this key is served only once it was checked. An upload on its way may be anything: it goes on as a fill.
                let preimage = state.segments[&root].preimage;
                self.uploads.begin_fill(&mut batch, header.db, preimage, upload.as_ref().map_or(0, UploadGuard::pages));
                missing.push(root);
            }
            if let Some(upload) = upload {
                batch.delete(Cf::State, keys::upload(root));
                ended.push(upload);
            }
        }
        let stopped: Vec<_> =
            removed.iter().filter_map(|root| self.uploads.stop_fill(&mut batch, header.db, *root)).collect();
        if let Err(e) = self.store.commit(batch, Durability::Synced) {
            ended.iter().for_each(|upload| self.uploads.revive(upload));
            stopped.iter().for_each(|fill| lock(&fill.upload).ended = false);
            missing.iter().for_each(|root| self.uploads.forget_fill(header.db, *root));
            return Err(e.into());
        }
        removed.iter().for_each(|root| self.uploads.forget_fill(header.db, *root));
        let checkpoint = state.checkpoint();
        self.keep_recent(&state);
        self.databases.write().unwrap_or_else(PoisonError::into_inner).insert(header.db, state);
        ended.into_iter().for_each(|upload| self.uploads.end(upload));
        if !collected.is_empty() {
            lock(&self.lost).retain(|(db, root, _)| *db != header.db || !collected.contains(root));
        }
        self.expire_uploads(header.db, header.height)?;
        Ok(Applied { checkpoint, outcomes, missing, replayed: false })
    }

    /// Keeps every root from `height` on provable, however many blocks follow: what is owed on chain, or may still be challenged, is
    /// not the log's to forget. A later pin lets go of what is below it.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be written.
    pub fn pin(&self, db: DatabaseId, height: Height) -> Result<(), StoreError> {
        let _turn = lock(&self.turn);
        let before = self.pinned(db);
        if before == Some(height) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(Cf::State, keys::pin(db), codec::encode(&height));
        if let (Some(before), Some(state)) = (before, self.state(db)) {
            past::forget(&mut batch, &state, before, height);
        }
        self.store.commit(batch, Durability::Synced)?;
        lock(&self.pins).insert(db, height);
        Ok(())
    }

    /// The lowest height of a database that is kept provable beyond the retention.
    #[must_use]
    pub fn pinned(&self, db: DatabaseId) -> Option<Height> {
        lock(&self.pins).get(&db).copied()
    }

    /// The latest height at which a database had `root`, if it can still be proven there.
    ///
    /// # Errors
    /// [`StoreError`] where a record cannot be read.
    pub fn height_of(&self, db: DatabaseId, root: DbRoot) -> Result<Option<Height>, StoreError> {
        let Some(state) = self.state(db) else { return Ok(None) };
        past::height_of(self.store.as_ref(), &state, root)
    }

    /// Makes a database known whose records were written.
    pub(crate) fn begin(&self, state: DbState) {
        let state = Arc::new(state);
        self.keep_recent(&state);
        self.databases.write().unwrap_or_else(PoisonError::into_inner).insert(state.head.db, state);
    }

    fn keep_recent(&self, state: &Arc<DbState>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let states = recent.entry(state.head.db).or_default();
        if states.len() == RECENT {
            states.pop_front();
        }
        states.push_back(Arc::clone(state));
    }

    pub(crate) fn state(&self, db: DatabaseId) -> Option<Arc<DbState>> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner).get(&db).cloned()
    }

    /// The databases here, in id order.
    #[must_use]
    pub fn databases(&self) -> Vec<DatabaseId> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// A database as it is now, to read from; later blocks do not change it.
    ///
    /// # Errors
    /// [`OpenRefusal::UnknownDatabase`].
    pub fn view(&self, db: DatabaseId) -> Result<View<'_>, OpenRefusal> {
        let state = self.state(db).ok_or(OpenRefusal::UnknownDatabase(db))?;
        Ok(View { engine: self, state })
    }

    /// The last block applied and the root after it.
    #[must_use]
    pub fn checkpoint(&self, db: DatabaseId) -> Option<Checkpoint> {
        self.state(db).map(|s| s.checkpoint())
    }

    /// The last block applied.
    #[must_use]
    pub fn head(&self, db: DatabaseId) -> Option<Head> {
        self.state(db).map(|s| Head {
            height: s.head.height,
            block: s.head.block,
            timestamp_ms: s.head.timestamp_ms,
            root: s.head.root,
            next_members_hash: s.head.cluster.next_hash,
        })
    }

    /// What is kept of a block that was applied: its hash, and what headers above it may carry.
    ///
    /// # Errors
    /// [`StoreError`] where the record cannot be read.
    pub fn block_record(&self, db: DatabaseId, height: Height) -> Result<Option<BlockRecord>, StoreError> {
        apply::applied_block(self.store.as_ref(), db, height)
    }

    /// The committee of a consensus epoch that began here.
    ///
    /// # Errors
    /// [`StoreError`] where the record cannot be read.
    pub fn committee(&self, db: DatabaseId, epoch: u64) -> Result<Option<Members>, StoreError> {
        let record = self.store.get(Cf::History, &keys::committee(db, epoch))?;
        record.map(|bytes| crate::state::decode("committee", &bytes)).transpose()
    }

    /// A note that this node keeps of a database, beside the replicated state.
    ///
    /// # Errors
    /// [`StoreError`] where the record cannot be read.
    pub fn note(&self, db: DatabaseId, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(Cf::State, &keys::note(db, name))
    }

    /// All notes whose name begins with `prefix`, by name.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub fn notes(&self, db: DatabaseId, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        let start = keys::note(db, prefix);
        let skip = start.len() - prefix.len();
        scan_all(self.store.as_ref(), Cf::State, &start, 256, &mut |(key, value)| {
            found.push((key[skip..].to_vec(), value));
            Ok(())
        })?;
        Ok(found)
    }

    /// Writes a note; on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be written.
    pub fn set_note(&self, db: DatabaseId, name: &[u8], bytes: Vec<u8>) -> Result<(), StoreError> {
        let _turn = lock(&self.turn);
        let mut batch = Batch::new();
        batch.put(Cf::State, keys::note(db, name), bytes);
        self.store.commit(batch, Durability::Synced)
    }

    /// A database as it was after one of its last blocks: up to [`RECENT`] below the head.
    #[must_use]
    pub fn view_at(&self, db: DatabaseId, height: Height) -> Option<View<'_>> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let state = recent.get(&db)?.iter().find(|s| s.head.height == height)?.clone();
        Some(View { engine: self, state })
    }

    /// The root after a block that was applied.
    ///
    /// # Errors
    /// [`StoreError`] where the record cannot be read.
    pub fn checkpoint_at(&self, db: DatabaseId, height: Height) -> Result<Option<Checkpoint>, StoreError> {
        let record = apply::applied_block(self.store.as_ref(), db, height)?;
        Ok(record.map(|record| Checkpoint { db, height, root: record.root }))
    }

    /// What became of an operation that was ordered.
    ///
    /// # Errors
    /// [`StoreError`] where the record cannot be read.
    pub fn receipt(&self, db: DatabaseId, op: OpId) -> Result<Option<OpReceipt>, StoreError> {
        apply::receipt(self.store.as_ref(), db, op)
    }

    /// [`View::snapshot`] of the state now.
    ///
    /// # Errors
    /// As there.
    pub fn snapshot(&self, db: DatabaseId, projection: ProjectionId) -> Result<CatalogueOpening, OpenRefusal> {
        self.view(db)?.snapshot(projection)
    }

    /// [`View::open_cells`] of the state now.
    ///
    /// # Errors
    /// As there.
    pub fn open_cells(&self, request: &OpenRequest) -> Result<(CatalogueOpening, Vec<SegmentOpening>), OpenRefusal> {
        self.view(request.db)?.open_cells(request)
    }

    /// Moves everything written so far into the files that reads are served from, and makes it durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.store.commit(crate::store::Batch::new(), Durability::Synced)?;
        self.store.flush()
    }
}
