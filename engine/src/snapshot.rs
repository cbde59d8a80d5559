//! Snapshots: all replicated records of a database, to begin its log in the middle.
//!
//! ```text
//! "FLUSNAP1" db, then of each record, in order of section and key: prefix (1), length of the key's rest (1), the rest, length of the value (4, LE), value
//! sections   head, writers, projections, schemas, segments, leases, collected, blocks, used ids, receipts, committees
//! ```
//! Rule    every member at the same height makes the same bytes. What comes in is read aside, and written only when its records make the
//!         root that a quorum certified; what no root binds (receipts, used ids, blocks, committees) is bound by the digest, which the
//!         caller has from enough members that one of them is honest. Cells are not in it: every stored segment becomes a fill.
//! Source  DESIGN section 7

use crate::engine::{Engine, lock};
use crate::keys::{self, Cf};
use crate::past;
use crate::renew::Moved;
use crate::state::{BlockRecord, CollectedSegment, DbState, Head, Projection, StoredSegment, Writer, decode};
use crate::store::{Anchor, Batch, Durability, Entry, MemStore, Store, StoreError, scan_all};
use borsh::BorshDeserialize;
use fluence_crypto::roots::schema_hash;
use fluence_crypto::tree::segment_root;
use fluence_types::block::{Checkpoint, Members, epoch_of};
use fluence_types::limits::{EPOCH_BLOCKS, PROJECTIONS_MAX, SEGMENT_CELLS_MAX};
use fluence_types::op::{Lease, OpReceipt};
use fluence_types::segment::PublicSchema;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, SegmentRoot, codec};

/// Domain of the hash of a snapshot.
const DIGEST_TAG: &str = "FLU/engine/snapshot/v1";
/// Bytes of a snapshot that travel at once.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Longest snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// Blocks whose records a snapshot has: the anchors of this epoch and the last, and what headers may still carry.
const BLOCKS: u64 = 2 * EPOCH_BLOCKS;
/// Epochs whose committees a snapshot has.
const COMMITTEES: u64 = 16;
const MAGIC: [u8; 8] = *b"FLUSNAP1";
/// The sections, in order.
const SECTIONS: [(Cf, u8); 11] = [
    (Cf::State, keys::HEAD),
    (Cf::State, keys::WRITER),
    (Cf::State, keys::PROJECTION),
    (Cf::State, keys::SCHEMA),
    (Cf::State, keys::SEGMENT),
    (Cf::State, keys::LEASE),
    (Cf::State, keys::COLLECTED),
    (Cf::History, keys::BLOCK),
    (Cf::History, keys::SEGMENT_ID),
    (Cf::History, keys::RECEIPT),
    (Cf::History, keys::COMMITTEE),
];

/// A database at a height, without its cells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The last block in it.
    pub height: Height,
    /// The root after it.
    pub root: DbRoot,
    /// The last block.
    pub block: BlockHash,
    /// Its records.
    pub bytes: Vec<u8>,
    /// BLAKE3 of each [`SNAPSHOT_CHUNK_BYTES`] of them: a piece can be checked when it arrives.
    pub chunks: Vec<[u8; 32]>,
    /// [`snapshot_digest`].
    pub digest: [u8; 32],
}

/// Hash of a piece of a snapshot.
#[must_use]
pub fn chunk_digest(chunk: &[u8]) -> [u8; 32] {
    *blake3::hash(chunk).as_bytes()
}

/// What a snapshot is known by: BLAKE3 of the tag, its length and the hashes of its pieces.
#[must_use]
pub fn snapshot_digest(len: u64, chunks: &[[u8; 32]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(DIGEST_TAG);
    hasher.update(&len.to_le_bytes());
    chunks.iter().for_each(|chunk| _ = hasher.update(chunk));
    *hasher.finalize().as_bytes()
}

/// Why there is no snapshot, or why one was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is not kept here.
    #[error("database {0} is not kept here")]
    UnknownDatabase(DatabaseId),
    /// The database is here already, and not behind the snapshot.
    #[error("database {0} is here already, and not behind the snapshot")]
    Here(DatabaseId),
    /// Too many records.
    #[error("the snapshot has more than {limit} bytes")]
    Size {
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes are no snapshot of this database.
    #[error("no snapshot of database {db}: {why}")]
    Malformed {
        /// The database.
        db: DatabaseId,
        /// What is wrong.
        why: String,
    },
    /// The records make another root, or are of another height.
    #[error("the snapshot is of height {height} and root {root}, expected were {} and {}", .expected.height, .expected.root)]
    Root {
        /// Its height.
        height: Height,
        /// What its records make.
        root: DbRoot,
        /// What was certified.
        expected: Checkpoint,
    },
}

struct Writing {
    db: DatabaseId,
    bytes: Vec<u8>,
}

impl Writing {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        let rest = &key[17..];
        let (Ok(rest_len), Ok(value_len)) = (u8::try_from(rest.len()), u32::try_from(value.len())) else {
            return Err(StoreError::Damaged(format!("database {}: a record too long", self.db)).into());
        };
        if self.bytes.len() + 6 + rest.len() + value.len() > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::Size { limit: SNAPSHOT_BYTES_MAX });
        }
        self.bytes.extend_from_slice(&[key[0], rest_len]);
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(&value_len.to_le_bytes());
        self.bytes.extend_from_slice(value);
        Ok(())
    }
}

impl Engine {
    /// A snapshot of a database as it is now. No block is applied meanwhile.
    ///
    /// # Errors
    /// [`SnapshotError`]: unknown, too large, or a record that cannot be read.
    pub fn export(&self, db: DatabaseId) -> Result<Snapshot, SnapshotError> {
        let _turn = lock(&self.turn);
        let state = self.state(db).ok_or(SnapshotError::UnknownDatabase(db))?;
        let (store, height) = (self.store.as_ref(), state.head.height);
        let mut out = Writing { db, bytes: [&MAGIC[..], db.as_bytes()].concat() };
        for (cf, prefix) in SECTIONS {
            match prefix {
                keys::COLLECTED => {
                    // How long a member keeps them beyond the retention is its own business.
                    let kept =
                        |c: &CollectedSegment| c.since.0.saturating_add(state.head.rules.retention_blocks) > height.0;
                    for (root, collected) in state.collected.iter().filter(|(_, c)| kept(c)) {
                        out.put(&keys::collected(db, *root), &codec::encode(collected))?;
                    }
                }
                keys::BLOCK => {
                    for at in (height.0 + 1).saturating_sub(BLOCKS)..=height.0 {
                        let key = keys::block(db, Height(at));
                        let record = store.get(cf, &key)?;
                        let none = || StoreError::Damaged(format!("database {db}: no record of block {at}"));
                        out.put(&key, &record.ok_or_else(none)?)?;
                    }
                }
                keys::COMMITTEE => {
                    let now = epoch_of(Height(height.0 + 1));
                    for epoch in (now + 1).saturating_sub(COMMITTEES)..=now {
                        let key = keys::committee(db, epoch);
                        let record = store.get(cf, &key)?;
                        let none = || StoreError::Damaged(format!("database {db}: no committee of epoch {epoch}"));
                        out.put(&key, &record.ok_or_else(none)?)?;
                    }
                }
                _ => {
                    let mut failed = None;
                    scan_all(store, cf, &keys::of_database(prefix, db), 1024, &mut |(key, value)| {
                        if failed.is_none() {
                            failed = out.put(&key, &value).err();
                        }
                        Ok(())
                    })?;
                    if let Some(e) = failed {
                        return Err(e);
                    }
                }
            }
        }
        let chunks: Vec<_> = out.bytes.chunks(SNAPSHOT_CHUNK_BYTES).map(chunk_digest).collect();
        let digest = snapshot_digest(out.bytes.len() as u64, &chunks);
        let Head { root, block, .. } = state.head;
        Ok(Snapshot { height, root, block, bytes: out.bytes, chunks, digest })
    }

    /// Begins a database's log at a snapshot, after block `block`; where the database is here and behind, the snapshot takes its place.
    /// The caller has checked its digest; `notes` are kept with it. Segments whose cells are not here become fills.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is written then.
    pub fn import(
        &self,
        db: DatabaseId,
        bytes: &[u8],
        expected: &Checkpoint,
        block: BlockHash,
        notes: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), SnapshotError> {
        let _turn = lock(&self.turn);
        let before = self.state(db);
        if before.as_ref().is_some_and(|before| before.head.height >= expected.height) {
            return Err(SnapshotError::Here(db));
        }
        let (state, records) = read(db, bytes)?;
        let made = state.checkpoint();
        if made != *expected {
            return Err(SnapshotError::Root { height: made.height, root: made.root, expected: *expected });
        }
        if state.head.block != block {
            let why = format!("its last block is {}, not {block}", state.head.block);
            return Err(SnapshotError::Malformed { db, why });
        }
        let mut batch = Batch::new();
        let mut moved = match &before {
            Some(before) => self.clear(&mut batch, before, &state)?,
            None => Moved::default(),
        };
        for (cf, key, value) in records.writes() {
            batch.put(cf, key.to_vec(), value.expect("a snapshot removes nothing").to_vec());
        }
        past::begin(&mut batch, &state);
        batch.put(Cf::State, keys::origin(db), codec::encode(&made));
        for (name, value) in notes {
            batch.put(Cf::State, keys::note(db, &name), value);
        }
        self.begin_fills(&mut batch, &mut moved, before.as_deref(), &state);
        batch.anchor(db, Anchor { height: made.height, root: made.root });
        if let Err(e) = self.store.commit(batch, Durability::Synced) {
            moved.undo(self, db);
            return Err(e.into());
        }
        moved.done(self, db);
        lock(&self.lost).retain(|(of, root, _)| *of != db || state.segments.contains_key(root));
        self.begin(state);
        Ok(())
    }

    /// The height and root at which a database's log begins here; `None` where that is genesis.
    ///
    /// # Errors
    /// [`StoreError`] where the record cannot be read.
    pub fn origin(&self, db: DatabaseId) -> Result<Option<Checkpoint>, StoreError> {
        origin(self.store.as_ref(), db)
    }
}

pub(crate) fn origin(store: &dyn Store, db: DatabaseId) -> Result<Option<Checkpoint>, StoreError> {
    store.get(Cf::State, &keys::origin(db))?.map(|bytes| decode("origin", &bytes)).transpose()
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

/// Whether a record is one of its section.
fn is_record(prefix: u8, key: &[u8], value: &[u8]) -> bool {
    fn is<T: BorshDeserialize>(value: &[u8]) -> bool {
        decode::<T>("record", value).is_ok()
    }
    let of_segment = |preimage| segment_root(&preimage).to_field().as_bytes()[..] == *key;
    let cells = |n: u64| (1..=SEGMENT_CELLS_MAX).contains(&n);
    match prefix {
        keys::HEAD => key.is_empty() && is::<Head>(value),
        keys::WRITER => key.len() == 20 && is::<Writer>(value),
        keys::PROJECTION => {
            let entry = decode::<CatalogueEntry>("projection", value);
            entry.is_ok_and(|e| e.projection.0 < PROJECTIONS_MAX && key == e.projection.0.to_be_bytes())
        }
        keys::SCHEMA => key.len() == 4 && is::<PublicSchema>(value),
        keys::SEGMENT => {
            let segment = decode::<StoredSegment>("segment", value);
            segment.is_ok_and(|s| cells(s.preimage.cells) && of_segment(s.preimage))
        }
        keys::LEASE => key.len() == 4 && is::<Lease>(value),
        keys::COLLECTED => {
            let segment = decode::<CollectedSegment>("collected segment", value);
            segment.is_ok_and(|s| cells(s.preimage.cells) && of_segment(s.preimage))
        }
        keys::BLOCK => key.len() == 8 && is::<BlockRecord>(value),
        keys::SEGMENT_ID => key.len() == 16 && is::<SegmentRoot>(value),
        keys::RECEIPT => decode::<OpReceipt>("receipt", value).is_ok_and(|r| key == r.op.as_bytes()),
        keys::COMMITTEE => key.len() == 8 && is::<Members>(value),
        _ => false,
    }
}

/// Reads a snapshot aside: the state its records make, and the batch that writes them.
fn read(db: DatabaseId, bytes: &[u8]) -> Result<(DbState, Batch), SnapshotError> {
    let malformed = |why: &str| SnapshotError::Malformed { db, why: why.to_owned() };
    if bytes.len() > SNAPSHOT_BYTES_MAX {
        return Err(SnapshotError::Size { limit: SNAPSHOT_BYTES_MAX });
    }
    let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| malformed("it does not begin as one"))?;
    let mut rest = rest.strip_prefix(db.as_bytes()).ok_or_else(|| malformed("it is of another database"))?;
    let mut batch = Batch::new();
    let mut head: Option<Head> = None;
    let mut last: Option<(usize, &[u8])> = None;
    while !rest.is_empty() {
        let mut record = || {
            let &[prefix, key_len] = take(&mut rest, 2)? else { return None };
            let key = take(&mut rest, usize::from(key_len))?;
            let value_len = take(&mut rest, 4).and_then(|raw| raw.try_into().ok()).map(u32::from_le_bytes)?;
            Some((prefix, key, take(&mut rest, value_len as usize)?))
        };
        let (prefix, key, value) = record().ok_or_else(|| malformed("it ends within a record"))?;
        let section = SECTIONS.iter().position(|(_, p)| *p == prefix);
        let section = section.ok_or_else(|| malformed("a record of no section"))?;
        if last.is_some_and(|before| before >= (section, key)) {
            return Err(malformed("its records are out of order"));
        }
        last = Some((section, key));
        if !is_record(prefix, key, value) {
            return Err(malformed(&format!("a record of section {} is none", char::from(prefix))));
        }
        if prefix == keys::HEAD {
            head = Some(decode("head", value)?);
        }
        batch.put(SECTIONS[section].0, [&keys::of_database(prefix, db)[..], key].concat(), value.to_vec());
    }
    let head = head.filter(|h| h.db == db && h.slots <= h.rules.segments_max());
    let head = head.ok_or_else(|| malformed("it has no head of this database"))?;
    let height = head.height;
    let aside = MemStore::new();
    aside.commit(batch.clone(), Durability::Synced)?;
    let state = DbState::load(&aside, head).map_err(|e| malformed(&e.to_string()))?;
    // What the log needs to go on.
    let blocks = (height.0 + 1).saturating_sub(BLOCKS)..=height.0;
    let committees = (epoch_of(Height(height.0 + 1)) + 1).saturating_sub(COMMITTEES)..=epoch_of(Height(height.0 + 1));
    let wanted = blocks.clone().map(|h| keys::block(db, Height(h)));
    let wanted = wanted.chain(committees.clone().map(|e| keys::committee(db, e)));
    for key in wanted {
        if aside.get(Cf::History, &key)?.is_none() {
            return Err(malformed("a block or committee that the log needs is not in it"));
        }
    }
    let counted = |prefix| aside.scan(Cf::History, &keys::of_database(prefix, db), None, 1024);
    if counted(keys::BLOCK)?.len() != blocks.count() || counted(keys::COMMITTEE)?.len() != committees.count() {
        return Err(malformed("it has more blocks or committees than it should"));
    }
    let read = |key: Vec<u8>| aside.get(Cf::History, &key);
    if read(keys::block(db, height))? != Some(codec::encode(&state.record())) {
        return Err(malformed("its last block is not that of its head"));
    }
    if read(keys::committee(db, epoch_of(Height(height.0 + 1))))? != Some(codec::encode(&state.head.members)) {
        return Err(malformed("its last committee is not that of its head"));
    }
    let schemas = aside.scan(Cf::State, &keys::of_database(keys::SCHEMA, db), None, PROJECTIONS_MAX as usize + 1)?;
    let same = |((_, value), p): (&Entry, &Projection)| {
        decode::<PublicSchema>("schema", value).is_ok_and(|s| schema_hash(&s) == p.entry.schema)
    };
    if schemas.len() != state.projections.len() || !schemas.iter().zip(&state.projections).all(same) {
        return Err(malformed("its schemas are not those of its projections"));
    }
    let mut live = state.projections.iter().flat_map(|p| p.entry.live.iter().map(|root| (p.entry.projection, root)));
    let is_live = |(projection, root)| {
        state.segments.get(root).is_some_and(|s| s.projection == projection && s.superseded.is_none())
    };
    if !live.all(is_live) {
        return Err(malformed("its live segments are not stored"));
    }
    for (root, segment) in &state.segments {
        if read(keys::segment_id(db, segment.id))? != Some(codec::encode(root)) {
            return Err(malformed(&format!("the id of segment {root} is not among the used ones")));
        }
    }
    Ok((state, batch))
}
