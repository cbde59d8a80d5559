//! Replicated state of one database, in memory and in the store.
//!
//! ```text
//! database root = compress(db, stored root, stored cells, catalogue root, aux root)
//! stored        4-ary sum tree over slots; a slot holds (segment root, cells) or (0, 0) once its segment was collected
//! catalogue     8-ary tree over projections
//! aux           BLAKE3 of the canonical [`Aux`]: owner, members, writers, leases, superseded segments, and a hash chain over all receipts
//! ```
//! Rule    whatever decides the outcome of an operation is under the root. Used segment ids and receipts are so through the chain: they
//!         are a function of the operations and outcomes it covers, and hashing them all again for each block would cost too much.
//!         An empty block changes nothing, unless a segment is collected at its height.

use crate::engine::Rules;
use crate::error::EngineError;
use crate::keys::{self, Cf};
use crate::store::{Batch, Store, StoreError, scan_all};
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_crypto::roots::{Catalogue, aux_root, catalogue_leaf, db_root};
use fluence_crypto::sign::SignError;
use fluence_crypto::sum_tree::SumTree;
use fluence_crypto::vote::members_hash;
use fluence_crypto::{Fr, field};
use fluence_types::block::{Checkpoint, Member, Members};
use fluence_types::codec::Bounded;
use fluence_types::limits::{DESCRIPTION_BYTES_MAX, STANDBY_MAX};
use fluence_types::op::{ClusterChange, Lease};
use fluence_types::segment::{LaneKind, PublicSchema};
use fluence_types::tree::{CatalogueEntry, CatalogueOpening, DbPreimage, SegmentPreimage};
use fluence_types::{
    Address, BlockHash, CatalogueRoot, DatabaseId, DbRoot, Height, OpId, ProjectionId, SegmentId, SegmentRoot,
    StoredRoot, TableId, codec,
};
use std::collections::{BTreeMap, BTreeSet};

/// Longest record of state: a public schema.
const STATE_BYTES_MAX: usize = DESCRIPTION_BYTES_MAX + (64 << 10);
/// Records read at once while loading.
const LOAD_STEP: usize = 1024;

/// The small state of a database that changes with every block.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Head {
    pub(crate) db: DatabaseId,
    pub(crate) height: Height,
    pub(crate) block: BlockHash,
    pub(crate) timestamp_ms: u64,
    pub(crate) root: DbRoot,
    pub(crate) owner: Address,
    /// The committee of the block after this one.
    pub(crate) members: Members,
    pub(crate) cluster: Cluster,
    /// Fixed at genesis.
    pub(crate) rules: Rules,
    /// Slots of the stored tree, free ones included.
    pub(crate) slots: u64,
    /// Chain over all receipts.
    pub(crate) history: [u8; 32],
}

/// What is to become of the committee.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Cluster {
    /// The committee of the next epoch, as it stands.
    pub(crate) next: Members,
    /// Its hash: what headers carry.
    pub(crate) next_hash: [u8; 32],
    /// Seats changed in this epoch.
    pub(crate) changed: u16,
    /// What the owner asked for and has not come true.
    pub(crate) wish: Option<ClusterChange>,
    /// Nodes that wait for a seat.
    pub(crate) standby: Bounded<Member, STANDBY_MAX>,
}

impl Cluster {
    /// Of a committee that stays.
    pub(crate) fn of(members: &Members) -> Result<Self, SignError> {
        let (wish, standby) = (None, Bounded::default());
        Ok(Self { next: members.clone(), next_hash: members_hash(members)?, changed: 0, wish, standby })
    }
}

/// What is kept of every block that was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct BlockRecord {
    /// Its hash.
    pub hash: BlockHash,
    /// The root after it.
    pub root: DbRoot,
    /// Hash of the next epoch's committee as it stood after it.
    pub next_members_hash: [u8; 32],
}

/// Where a writer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Writer {
    /// May write now. A writer that was removed keeps its chain, so that its old operations stay old if it comes back.
    pub(crate) allowed: bool,
    pub(crate) next_sequence: u64,
    pub(crate) previous: OpId,
}

impl Writer {
    pub(crate) fn fresh() -> Self {
        Self { allowed: true, next_sequence: 0, previous: OpId::default() }
    }
}

/// A segment that is stored: live, or superseded and not yet collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct StoredSegment {
    pub(crate) id: SegmentId,
    pub(crate) preimage: SegmentPreimage,
    pub(crate) rows: u64,
    pub(crate) projection: ProjectionId,
    pub(crate) slot: u64,
    pub(crate) superseded: Option<Height>,
}

/// A segment that left the stored tree. Earlier roots still name it, and are owed until their own time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct CollectedSegment {
    pub(crate) preimage: SegmentPreimage,
    /// First height whose root does not name it.
    pub(crate) since: Height,
}

/// A projection: its catalogue entry and the part of its schema that nodes use.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub(crate) entry: CatalogueEntry,
    pub(crate) lanes: Vec<LaneKind>,
    /// Bytes of its public schema.
    pub(crate) schema_bytes: u64,
}

/// What the aux root binds.
#[derive(BorshSerialize)]
struct Aux<'a> {
    version: u32,
    owner: Address,
    members: &'a Members,
    cluster: &'a Cluster,
    rules: Rules,
    writers: Vec<(Address, Writer)>,
    leases: Vec<(TableId, Lease)>,
    superseded: Vec<(u64, SegmentRoot, Height)>,
    history: [u8; 32],
}

/// All replicated state of a database, with its trees.
#[derive(Clone, Debug)]
pub(crate) struct DbState {
    pub(crate) head: Head,
    pub(crate) writers: BTreeMap<Address, Writer>,
    /// Of the tables that ever had one.
    pub(crate) leases: BTreeMap<TableId, Lease>,
    pub(crate) projections: Vec<Projection>,
    pub(crate) segments: BTreeMap<SegmentRoot, StoredSegment>,
    pub(crate) collected: BTreeMap<SegmentRoot, CollectedSegment>,
    pub(crate) stored: SumTree,
    pub(crate) free: BTreeSet<u64>,
    pub(crate) catalogue: Catalogue,
    pub(crate) preimage: DbPreimage,
}

/// A segment as a leaf of the stored tree.
pub(crate) fn leaf(root: SegmentRoot, cells: u64) -> (Fr, u64) {
    (field::from_bytes(&root.to_field()), cells)
}

impl DbState {
    /// A database before its first operation.
    pub(crate) fn genesis(
        db: DatabaseId,
        owner: Address,
        (members, cluster): (Members, Cluster),
        rules: Rules,
    ) -> Self {
        let head = Head {
            db,
            height: Height(0),
            block: BlockHash::default(),
            timestamp_ms: 0,
            root: DbRoot::default(),
            owner,
            members,
            cluster,
            rules,
            slots: 0,
            history: [0; 32],
        };
        let mut state = Self {
            preimage: DbPreimage {
                db,
                stored_root: StoredRoot::default(),
                stored_cells: 0,
                catalogue_root: CatalogueRoot::default(),
                aux_root: aux_root(&[]),
            },
            head,
            writers: BTreeMap::from([(owner, Writer::fresh())]),
            leases: BTreeMap::new(),
            projections: Vec::new(),
            segments: BTreeMap::new(),
            collected: BTreeMap::new(),
            stored: SumTree::default(),
            free: BTreeSet::new(),
            catalogue: Catalogue::default(),
        };
        state.compute_root();
        state
    }

    /// Sets `preimage` and `head.root` from the rest.
    pub(crate) fn compute_root(&mut self) {
        let (stored_root, stored_cells) = self.stored.root();
        let superseded =
            self.segments.iter().filter_map(|(root, s)| Some((s.slot, *root, s.superseded?))).collect::<Vec<_>>();
        let aux = Aux {
            version: 1,
            owner: self.head.owner,
            members: &self.head.members,
            cluster: &self.head.cluster,
            rules: self.head.rules,
            writers: self.writers.iter().map(|(a, w)| (*a, *w)).collect(),
            leases: self.leases.iter().map(|(t, l)| (*t, *l)).collect(),
            superseded,
            history: self.head.history,
        };
        self.preimage = DbPreimage {
            db: self.head.db,
            stored_root: StoredRoot::from_field(field::to_bytes(&stored_root)),
            stored_cells,
            catalogue_root: self.catalogue.root(),
            aux_root: aux_root(&codec::encode(&aux)),
        };
        self.head.root = db_root(&self.preimage);
    }

    /// Cells of all stored segments together.
    pub(crate) fn stored_cells(&self) -> u64 {
        self.stored.root().1
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { db: self.head.db, height: self.head.height, root: self.head.root }
    }

    pub(crate) fn record(&self) -> BlockRecord {
        let Head { block, root, ref cluster, .. } = self.head;
        BlockRecord { hash: block, root, next_members_hash: cluster.next_hash }
    }

    pub(crate) fn projection(&self, id: ProjectionId) -> Option<&Projection> {
        self.projections.get(id.0 as usize)
    }

    pub(crate) fn opening(&self, id: ProjectionId) -> Option<CatalogueOpening> {
        let entry = self.projection(id)?.entry.clone();
        Some(CatalogueOpening { db: self.preimage, entry, path: self.catalogue.path(id.0) })
    }

    /// Reads a database's state and checks that it makes the root it says.
    pub(crate) fn load(store: &dyn Store, head: Head) -> Result<Self, EngineError> {
        let db = head.db;
        let committee = (head.members.clone(), head.cluster.clone());
        let mut state = Self::genesis(db, head.owner, committee, head.rules);
        state.writers.clear();
        each(store, keys::of_database(keys::WRITER, db), "writer", |suffix, writer| {
            let address = <[u8; 20]>::try_from(suffix).ok().map(Address::from_bytes)?;
            state.writers.insert(address, writer);
            Some(())
        })?;
        each(store, keys::of_database(keys::LEASE, db), "lease", |suffix, lease| {
            let table = <[u8; 4]>::try_from(suffix).ok().map(u32::from_be_bytes)?;
            state.leases.insert(TableId(table), lease);
            Some(())
        })?;
        let mut entries: Vec<CatalogueEntry> = Vec::new();
        each(store, keys::of_database(keys::PROJECTION, db), "projection", |_, entry: CatalogueEntry| {
            let next = entry.projection.0 as usize == entries.len();
            entries.push(entry);
            next.then_some(())
        })?;
        for entry in entries {
            let schema: PublicSchema = schema(store, db, entry.projection)?
                .ok_or_else(|| damaged(db, format!("projection {} has no schema", entry.projection)))?;
            state.catalogue.set(entry.projection.0, catalogue_leaf(&entry));
            let schema_bytes = codec::encode(&schema).len() as u64;
            state.projections.push(Projection { entry, lanes: schema.lanes.to_vec(), schema_bytes });
        }
        let mut leaves = vec![(Fr::from(0u64), 0); usize::try_from(head.slots).unwrap_or(0)];
        state.free = (0..head.slots).collect();
        each(store, keys::of_database(keys::SEGMENT, db), "segment", |suffix, segment: StoredSegment| {
            let bytes = <[u8; 32]>::try_from(suffix).ok()?;
            let root = SegmentRoot::from_field(fluence_types::FieldBytes::from_canonical(bytes).ok()?);
            *leaves.get_mut(segment.slot as usize)? = leaf(root, segment.preimage.cells);
            state.free.remove(&segment.slot).then_some(())?;
            state.segments.insert(root, segment);
            Some(())
        })?;
        each(store, keys::of_database(keys::COLLECTED, db), "collected segment", |suffix, segment| {
            let bytes = <[u8; 32]>::try_from(suffix).ok()?;
            let root = SegmentRoot::from_field(fluence_types::FieldBytes::from_canonical(bytes).ok()?);
            state.collected.insert(root, segment);
            Some(())
        })?;
        state.stored = SumTree::new(leaves);
        let said = head.root;
        state.head = head;
        state.compute_root();
        if state.head.root != said {
            return Err(damaged(db, format!("its records make root {}, its head says {said}", state.head.root)));
        }
        Ok(state)
    }

    /// Writes the head.
    pub(crate) fn put_head(&self, batch: &mut Batch) {
        batch.put(Cf::State, keys::head(self.head.db), codec::encode(&self.head));
    }
    /// Writes a writer.
    pub(crate) fn put_writer(&self, batch: &mut Batch, address: Address) {
        batch.put(Cf::State, keys::writer(self.head.db, address), codec::encode(&self.writers[&address]));
    }
    /// Writes a lease.
    pub(crate) fn put_lease(&self, batch: &mut Batch, table: TableId) {
        batch.put(Cf::State, keys::lease(self.head.db, table), codec::encode(&self.leases[&table]));
    }
    /// Writes a stored segment.
    pub(crate) fn put_segment(&self, batch: &mut Batch, root: SegmentRoot) {
        batch.put(Cf::State, keys::segment(self.head.db, root), codec::encode(&self.segments[&root]));
    }
    /// Writes a projection's entry and puts its leaf into the catalogue.
    pub(crate) fn put_projection(&mut self, batch: &mut Batch, id: ProjectionId) {
        let entry = &self.projections[id.0 as usize].entry;
        self.catalogue.set(id.0, catalogue_leaf(entry));
        batch.put(Cf::State, keys::projection(self.head.db, id), codec::encode(entry));
    }
}

pub(crate) fn damaged(db: DatabaseId, why: String) -> EngineError {
    EngineError::Store(StoreError::Damaged(format!("database {db}: {why}")))
}

/// Decodes a record of state; one that does not decode is damage.
pub(crate) fn decode<T: BorshDeserialize>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(what, bytes, STATE_BYTES_MAX).map_err(|e| StoreError::Damaged(e.to_string()))
}

/// All heads.
pub(crate) fn heads(store: &dyn Store) -> Result<Vec<Head>, StoreError> {
    let mut found = Vec::new();
    scan_all(store, Cf::State, &[keys::HEAD], LOAD_STEP, &mut |(_, value)| {
        found.push(decode("head", &value)?);
        Ok(())
    })?;
    Ok(found)
}

/// A projection's public schema.
pub(crate) fn schema(store: &dyn Store, db: DatabaseId, id: ProjectionId) -> Result<Option<PublicSchema>, StoreError> {
    store.get(Cf::State, &keys::schema(db, id))?.map(|bytes| decode("schema", &bytes)).transpose()
}

/// Every record under `prefix`, with the rest of its key; `None` from `take` means that the record cannot be right.
fn each<T: BorshDeserialize>(
    store: &dyn Store,
    prefix: Vec<u8>,
    what: &'static str,
    mut take: impl FnMut(&[u8], T) -> Option<()>,
) -> Result<(), StoreError> {
    scan_all(store, Cf::State, &prefix, LOAD_STEP, &mut |(key, value)| {
        let record = decode(what, &value)?;
        take(&key[prefix.len()..], record).ok_or_else(|| {
            StoreError::Damaged(format!("a {what} record contradicts its key or another: 0x{}", hex::encode(&key)))
        })
    })
}
