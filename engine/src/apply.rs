//! `apply(block) -> root`: the deterministic state machine.
//!
//! Order   segments whose retention ended are collected, then the operations act one by one, then the root is computed once.
//! Rule    an operation checks everything before it changes anything, so a refused one changes nothing, its writer's chain included.
//!         Its outcome depends on the block and the replicated state alone: never on which segments this member happens to hold.
//! Writes  one atomic batch per block with height and root in it, so that a block delivered twice is applied once.
//! Source  DESIGN section 7; the rules are those of [`fluence_types::op::OpRefusal`], each with a test

use crate::block::{CheckedOp, VerifiedBlock};
use crate::engine::Rules;
use crate::error::ApplyError;
use crate::keys::{self, Cf};
use crate::lease::Doer;
use crate::past;
use crate::segment::{Facts, delete_cells};
use crate::state::{BlockRecord, Cluster, CollectedSegment, DbState, Projection, StoredSegment, Writer, decode, leaf};
use crate::store::{Anchor, Batch, Store, StoreError};
use fluence_crypto::roots::schema_hash;
use fluence_crypto::sign::{SignError, verify_receipt};
use fluence_crypto::tree::segment_root;
use fluence_crypto::vote::verify_members;
use fluence_types::block::{BlockHeader, Checkpoint, ends_epoch, epoch_of, position, quorum};
use fluence_types::limits::{
    COUNT_BITS, EXECUTION_LAG_MAX, LIVE_SEGMENTS_MAX, PROJECTIONS_MAX, SCHEMAS_BYTES_MAX, WRITERS_EVER_MAX,
};
use fluence_types::op::{
    Change, Delivery, Lease, LeaseAction, Op, OpOutcome, OpReceipt, OpRefusal, SegmentRef, SignedReceipt,
};
use fluence_types::segment::{LaneKind, PublicSchema};
use fluence_types::tree::CatalogueEntry;
use fluence_types::{
    Address, BlockHash, DatabaseId, DbRoot, Fence, Height, NodeId, OpId, ProjectionId, SegmentId, SegmentRoot, TableId,
    Version, codec,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Domain of the hash chain over receipts.
const HISTORY_TAG: &str = "FLU/engine/history/v1";

/// What applying a block did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The block and the root after it.
    pub checkpoint: Checkpoint,
    /// What became of each operation, in order.
    pub outcomes: Vec<OpReceipt>,
    /// Segments that became live by receipts of others and whose cells are not here: fills began. Empty for a replayed block.
    pub missing: Vec<SegmentRoot>,
    /// The block was applied before; nothing was written now.
    pub replayed: bool,
}

impl Applied {
    /// Root of the database after the block.
    #[must_use]
    pub const fn root(&self) -> DbRoot {
        self.checkpoint.root
    }
}

/// A block that was computed but not yet written.
pub(crate) struct Computed {
    pub(crate) state: Arc<DbState>,
    pub(crate) batch: Batch,
    pub(crate) outcomes: Vec<OpReceipt>,
    /// Segments that were stored, and whether their cells came inline.
    pub(crate) stored: Vec<(SegmentRoot, bool)>,
    /// Segments that were collected.
    pub(crate) collected: Vec<SegmentRoot>,
    /// Segments whose cells were removed.
    pub(crate) removed: Vec<SegmentRoot>,
}

/// The record of an applied block.
pub(crate) fn applied_block(
    store: &dyn Store,
    db: DatabaseId,
    height: Height,
) -> Result<Option<BlockRecord>, StoreError> {
    store.get(Cf::History, &keys::block(db, height))?.map(|bytes| decode("block record", &bytes)).transpose()
}

/// The receipt of an operation.
pub(crate) fn receipt(store: &dyn Store, db: DatabaseId, op: OpId) -> Result<Option<OpReceipt>, StoreError> {
    store.get(Cf::History, &keys::receipt(db, op))?.map(|bytes| decode("receipt", &bytes)).transpose()
}

/// What a block that was applied before did.
pub(crate) fn replay(store: &dyn Store, block: &VerifiedBlock) -> Result<Applied, ApplyError> {
    let BlockHeader { db, height, .. } = *block.header();
    let BlockRecord { hash: ours, root, .. } = applied_block(store, db, height)?
        .ok_or_else(|| StoreError::Damaged(format!("database {db}: no record of block {height}")))?;
    if ours != block.hash() {
        return Err(ApplyError::Fork { height, ours, theirs: block.hash() });
    }
    let mut outcomes = Vec::new();
    for checked in &block.ops {
        outcomes.extend(receipt(store, db, checked.op.id())?);
    }
    let checkpoint = Checkpoint { db, height, root };
    Ok(Applied { checkpoint, outcomes, missing: Vec::new(), replayed: true })
}

/// Checks the header against the state before it.
fn check_header(store: &dyn Store, header: &BlockHeader, before: Option<&DbState>) -> Result<(), ApplyError> {
    let expected = before.map_or(Height(0), |s| Height(s.head.height.0 + 1));
    if header.height != expected {
        return Err(ApplyError::Height { got: header.height, expected });
    }
    let (parent, parent_ms) = before.map_or((BlockHash::default(), 0), |s| (s.head.block, s.head.timestamp_ms));
    if header.parent != parent {
        return Err(ApplyError::Parent { got: header.parent, expected: parent });
    }
    if header.timestamp_ms < parent_ms {
        return Err(ApplyError::Timestamp { got: header.timestamp_ms, parent: parent_ms });
    }
    if header.consensus_epoch != epoch_of(header.height) {
        return Err(ApplyError::Epoch { got: header.consensus_epoch, height: header.height });
    }
    let (height, theirs) = (header.executed_height, header.executed_root);
    if height.0.saturating_add(EXECUTION_LAG_MAX) < header.height.0 {
        return Err(ApplyError::Lag { height: header.height, executed: height });
    }
    let ours = match before {
        None if height == Height(0) => Some((DbRoot::default(), [0; 32])),
        None => None,
        Some(_) if height >= header.height => None,
        Some(state) => applied_block(store, state.head.db, height)?.map(|r| (r.root, r.next_members_hash)),
    };
    match ours {
        Some((root, _)) if root != theirs => Err(ApplyError::Executed { height, theirs, ours: Some(root) }),
        Some((_, next)) if next != header.next_members_hash => Err(ApplyError::NextMembers(header.height)),
        Some(_) => Ok(()),
        None => Err(ApplyError::Executed { height, theirs, ours: None }),
    }
}

/// Computes what a block does to the state before it.
pub(crate) fn compute(
    store: &dyn Store,
    before: Option<&DbState>,
    block: &VerifiedBlock,
    rules: Rules,
    pin: Option<Height>,
) -> Result<Computed, ApplyError> {
    let header = block.header();
    check_header(store, header, before)?;
    let mut ops = block.ops.iter();
    let mut outcomes = Vec::with_capacity(block.ops.len());
    let state = match before {
        Some(state) => state.clone(),
        None => {
            let first = ops.next().map(|c| &c.op);
            let created = first.map_or(Err(OpRefusal::Database(header.db)), |op| {
                create(header.db, rules, op.unsigned()).map(|mut state| {
                    let owner = state.writers.get_mut(&op.unsigned().writer).expect("genesis makes the owner a writer");
                    *owner = Writer { allowed: true, next_sequence: 1, previous: op.id() };
                    outcomes.push(OpReceipt { op: op.id(), height: header.height, outcome: Ok(()) });
                    state
                })
            });
            created.map_err(|why| ApplyError::Genesis { db: header.db, why })?
        }
    };
    let mut work = Work {
        store,
        height: header.height,
        now_ms: header.timestamp_ms,
        pin,
        batch: Batch::new(),
        new_ids: BTreeMap::new(),
        stored: Vec::new(),
        writers: BTreeSet::new(),
        state,
    };
    if before.is_none() {
        work.writers.insert(work.state.head.owner);
    }
    let collected = work.collect_garbage();
    for checked in ops {
        let op = &checked.op;
        let outcome = work.act(checked)?;
        if outcome.is_ok() && !matches!(op.unsigned().op, Op::Seat(_)) {
            let writer =
                work.state.writers.get_mut(&op.unsigned().writer).expect("only a writer's operation is accepted");
            *writer = Writer { next_sequence: writer.next_sequence + 1, previous: op.id(), ..*writer };
            work.writers.insert(op.unsigned().writer);
        }
        outcomes.push(OpReceipt { op: op.id(), height: header.height, outcome });
    }
    work.finish(block, before, outcomes, collected)
}

/// The state that a creation makes.
fn create(db: DatabaseId, rules: Rules, op: &fluence_types::op::UnsignedOp) -> Result<DbState, OpRefusal> {
    let Op::CreateDatabase { members } = &op.op else { return Err(OpRefusal::Database(db)) };
    if op.sequence != 0 {
        return Err(OpRefusal::Sequence { got: op.sequence, expected: 0 });
    }
    if op.previous != OpId::default() {
        return Err(OpRefusal::Chain { got: op.previous, expected: OpId::default() });
    }
    let refused = |why: SignError| OpRefusal::Cluster(why.to_string());
    verify_members(members).map_err(refused)?;
    let committee = (members.clone(), Cluster::of(members).map_err(refused)?);
    Ok(DbState::genesis(db, op.writer, committee, rules))
}

/// A block half-way.
struct Work<'a> {
    store: &'a dyn Store,
    height: Height,
    /// The block's time.
    now_ms: u64,
    /// Roots from here on stay provable, on this member: it decides what is deleted, and nothing else.
    pin: Option<Height>,
    state: DbState,
    batch: Batch,
    new_ids: BTreeMap<SegmentId, SegmentRoot>,
    stored: Vec<(SegmentRoot, bool)>,
    writers: BTreeSet<Address>,
}

/// A change that passed every check.
struct Ready<'a> {
    projection: ProjectionId,
    live: Vec<SegmentRoot>,
    retire: &'a [SegmentRoot],
    append: Vec<(&'a SegmentRef, SegmentRoot, Option<&'a Batch>)>,
}

impl Work<'_> {
    /// The block in which the first superseded segment goes.
    fn room_from(&self) -> Option<Height> {
        let first = self.state.segments.values().filter_map(|s| s.superseded).min();
        first.map(|height| Height(height.0.saturating_add(self.state.head.rules.retention_blocks)))
    }

    /// Frees the slots of segments that have been superseded for the retention time. The last root that names one is the one
    /// before, so its cells stay for the retention time again, and are removed then.
    fn collect_garbage(&mut self) -> (Vec<SegmentRoot>, Vec<SegmentRoot>) {
        let (db, retention) = (self.state.head.db, self.state.head.rules.retention_blocks);
        let due = |s: &StoredSegment| s.superseded.is_some_and(|h| h.0.saturating_add(retention) <= self.height.0);
        let due: Vec<(SegmentRoot, StoredSegment)> =
            self.state.segments.iter().filter(|(_, s)| due(s)).map(|(r, s)| (*r, *s)).collect();
        for (root, segment) in &due {
            self.state.segments.remove(root);
            self.state.stored.set(segment.slot, (0u64.into(), 0));
            self.state.free.insert(segment.slot);
            self.batch.delete(Cf::State, keys::segment(db, *root));
            let collected = CollectedSegment { preimage: segment.preimage, since: self.height };
            self.batch.put(Cf::State, keys::collected(db, *root), codec::encode(&collected));
            self.state.collected.insert(*root, collected);
        }
        let over = |c: &CollectedSegment| {
            c.since.0.saturating_add(retention) <= self.height.0 && self.pin.is_none_or(|pin| c.since <= pin)
        };
        let over: Vec<SegmentRoot> = self.state.collected.iter().filter(|(_, c)| over(c)).map(|(r, _)| *r).collect();
        for root in &over {
            let root = *root;
            let cells = self.state.collected.remove(&root).map_or(0, |c| c.preimage.cells);
            self.batch.delete(Cf::State, keys::collected(db, root));
            delete_cells(&mut self.batch, db, root, cells);
        }
        (due.into_iter().map(|(root, _)| root).collect(), over)
    }

    /// Checks an operation and, if nothing is wrong with it, does it.
    fn act(&mut self, checked: &CheckedOp) -> Result<OpOutcome, StoreError> {
        let op = checked.op.unsigned();
        if let Op::Seat(change) = &op.op {
            return Ok(crate::cluster::seat(&mut self.state.head, self.height, change));
        }
        if let Err(refusal) = self.check_writer(&checked.op) {
            return Ok(Err(refusal));
        }
        match &op.op {
            Op::DefineProjection { projection, table, schema } => Ok(self.define(*projection, *table, schema)),
            Op::SetWriters { writers } => Ok(self.set_writers(op.writer, writers)),
            Op::Cluster(change) => Ok(crate::cluster::wish(&mut self.state.head, op.writer, change)),
            Op::Lease { table, action } => Ok(self.lease(op.writer, *table, *action)),
            Op::Commit { fences, reads, changes } => {
                match self.check_commit(op.writer, fences, reads, changes, &checked.inline)? {
                    Ok(ready) => {
                        ready.into_iter().for_each(|change| self.change(change));
                        Ok(Ok(()))
                    }
                    Err(refusal) => Ok(Err(refusal)),
                }
            }
            // Creation happens once, at genesis; an operation that this version does not know is refused by its decoder.
            _ => Ok(Err(OpRefusal::Database(op.db))),
        }
    }

    fn check_writer(&self, op: &fluence_crypto::sign::VerifiedOp) -> Result<(), OpRefusal> {
        let op = op.unsigned();
        let writer = self.state.writers.get(&op.writer).filter(|w| w.allowed);
        let writer = writer.ok_or(OpRefusal::NotAllowed(op.writer))?;
        if op.sequence != writer.next_sequence {
            return Err(OpRefusal::Sequence { got: op.sequence, expected: writer.next_sequence });
        }
        if op.previous != writer.previous {
            return Err(OpRefusal::Chain { got: op.previous, expected: writer.previous });
        }
        Ok(())
    }

    fn define(&mut self, id: ProjectionId, table: fluence_types::TableId, schema: &PublicSchema) -> OpOutcome {
        if id.0 as usize != self.state.projections.len() || id.0 >= PROJECTIONS_MAX {
            return Err(OpRefusal::Projection(id));
        }
        let sums_after_bytes = schema.lanes.is_sorted_by_key(|kind| *kind == LaneKind::Sum);
        if schema.lanes.is_empty() || !sums_after_bytes {
            return Err(OpRefusal::Malformed("lanes must be at least one, byte lanes before sum lanes".to_owned()));
        }
        let encoded = codec::encode(schema);
        let schema_bytes = encoded.len() as u64;
        if self.state.projections.iter().map(|p| p.schema_bytes).sum::<u64>() + schema_bytes > SCHEMAS_BYTES_MAX {
            let why = format!("the schemas of a database may have {SCHEMAS_BYTES_MAX} bytes together");
            return Err(OpRefusal::Malformed(why));
        }
        let hash = schema_hash(schema);
        let entry = CatalogueEntry {
            projection: id,
            table,
            version: Version(0),
            schema: hash,
            live: codec::Bounded::default(),
        };
        self.state.projections.push(Projection { entry, lanes: schema.lanes.to_vec(), schema_bytes });
        self.state.put_projection(&mut self.batch, id);
        self.batch.put(Cf::State, keys::schema(self.state.head.db, id), encoded);
        Ok(())
    }

    fn set_writers(&mut self, signer: Address, writers: &[Address]) -> OpOutcome {
        if signer != self.state.head.owner {
            return Err(OpRefusal::NotAllowed(signer));
        }
        if !writers.is_sorted_by(|a, b| a < b) {
            return Err(OpRefusal::Malformed("writers must be sorted, without repeats".to_owned()));
        }
        // Those who never wrote leave nothing behind; the chains of the others stay for ever.
        let stays = |address: &Address, writer: &Writer| {
            *address == signer || writer.next_sequence > 0 || writers.binary_search(address).is_ok()
        };
        let staying = self.state.writers.iter().filter(|(a, w)| stays(a, w)).count();
        let new = writers.iter().filter(|a| !self.state.writers.contains_key(a)).count();
        if staying + new > WRITERS_EVER_MAX {
            return Err(OpRefusal::Malformed(format!("a database may have {WRITERS_EVER_MAX} writers in its life")));
        }
        let gone = self.state.writers.iter().filter(|(a, w)| !stays(a, w)).map(|(a, _)| *a).collect::<Vec<_>>();
        for address in gone {
            self.state.writers.remove(&address);
            self.writers.remove(&address);
            self.batch.delete(Cf::State, keys::writer(self.state.head.db, address));
        }
        for (address, writer) in &mut self.state.writers {
            writer.allowed = *address == signer || writers.binary_search(address).is_ok();
            self.writers.insert(*address);
        }
        for address in writers {
            self.state.writers.entry(*address).or_insert_with(Writer::fresh);
            self.writers.insert(*address);
        }
        // Who may not write any more holds nobody up.
        let allowed = |a: &Address| self.state.writers.get(a).is_some_and(|w| w.allowed);
        let left = self.state.leases.iter().filter(|(_, l)| l.holder.is_some_and(|h| !allowed(&h)));
        let left: Vec<TableId> = left.map(|(table, _)| *table).collect();
        for table in left {
            let lease = self.state.leases.get_mut(&table).expect("it was found among them");
            *lease = Lease { holder: None, until_ms: 0, ..*lease };
            self.state.put_lease(&mut self.batch, table);
        }
        Ok(())
    }

    fn doer(&self, writer: Address) -> Doer {
        Doer { writer, owns: writer == self.state.head.owner, now_ms: self.now_ms }
    }

    fn lease(&mut self, writer: Address, table: TableId, action: LeaseAction) -> OpOutcome {
        if !self.state.projections.iter().any(|p| p.entry.table == table) {
            return Err(OpRefusal::Table(table));
        }
        let lease = self.state.leases.get(&table).copied().unwrap_or_default();
        let next = crate::lease::act(table, lease, self.doer(writer), action)?;
        self.state.leases.insert(table, next);
        self.state.put_lease(&mut self.batch, table);
        Ok(())
    }

    /// All checks of a commit; what it returns cannot fail any more.
    fn check_commit<'c>(
        &self,
        writer: Address,
        fences: &[(TableId, Fence)],
        reads: &[(ProjectionId, Version)],
        changes: &'c [Change],
        inline: &'c [Option<Result<crate::segment::Inspected, String>>],
    ) -> Result<Result<Vec<Ready<'c>>, OpRefusal>, StoreError> {
        let malformed = |why: &str| Ok(Err(OpRefusal::Malformed(why.to_owned())));
        let mut tables: BTreeMap<TableId, bool> = BTreeMap::new();
        for change in changes {
            // One that is not there is refused below.
            let Some(projection) = self.state.projection(change.projection) else { continue };
            *tables.entry(projection.entry.table).or_default() |= !change.retire.is_empty();
        }
        if let Err(refusal) = crate::lease::check(&self.state.leases, self.doer(writer), fences, &tables) {
            return Ok(Err(refusal));
        }
        let read: BTreeMap<ProjectionId, Version> = reads.iter().copied().collect();
        if read.len() != reads.len() {
            return malformed("a projection is read twice");
        }
        for (id, read) in reads {
            let Some(projection) = self.state.projection(*id) else { return Ok(Err(OpRefusal::Projection(*id))) };
            let current = projection.entry.version;
            if current != *read {
                return Ok(Err(OpRefusal::Conflict { projection: *id, read: *read, current }));
            }
        }
        if changes.is_empty() {
            return malformed("a commit without changes");
        }
        let mut inline = inline.iter();
        let mut changed = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut ready: Vec<Ready<'c>> = Vec::with_capacity(changes.len());
        let mut cells: u64 = self.state.stored_cells();
        let rules = self.state.head.rules;
        let mut segments = self.state.segments.len() as u64;
        for change in changes {
            let id = change.projection;
            if !changed.insert(id) {
                return malformed("a projection is changed twice");
            }
            if !read.contains_key(&id) {
                return malformed("a projection is changed but not read");
            }
            if change.append.is_empty() && change.retire.is_empty() {
                return malformed("a change that changes nothing");
            }
            let projection = self.state.projection(id).expect("it was read, and what is read exists");
            let mut live = projection.entry.live.to_vec();
            for root in change.retire.iter() {
                let Some(at) = live.iter().position(|r| r == root) else { return Ok(Err(OpRefusal::NotLive(*root))) };
                live.remove(at);
            }
            let mut append = Vec::with_capacity(change.append.len());
            for segment in change.append.iter() {
                let inspected = inline.next().expect("one entry for each appended segment, in order");
                let root = segment_root(&segment.preimage);
                let refused = |why: String| Ok(Err(OpRefusal::Segment { segment: segment.id, why }));
                if !ids.insert(segment.id) || self.is_used(segment.id, root)? {
                    return Ok(Err(OpRefusal::Repeated(segment.id)));
                }
                if ready.iter().flat_map(|r| &r.append).chain(&append).any(|(_, other, _)| *other == root) {
                    return Ok(Err(OpRefusal::Repeated(segment.id)));
                }
                let most = rules.cells_max();
                if segment.rows == 0 || !(1..=most).contains(&segment.preimage.cells) {
                    let (rows, cells) = (segment.rows, segment.preimage.cells);
                    return refused(format!(
                        "{rows} rows in {cells} cells; a segment has at least one, and at most {most} cells"
                    ));
                }
                cells = cells.saturating_add(segment.preimage.cells);
                if cells >= 1 << COUNT_BITS {
                    return refused(format!("the database would have {cells} cells"));
                }
                segments += 1;
                if segments > rules.segments_max() {
                    return Ok(Err(OpRefusal::Full { limit: rules.segments_max(), until: self.room_from() }));
                }
                let records = match self.check_delivery(segment, projection, inspected.as_ref()) {
                    Ok(records) => records,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                live.push(root);
                append.push((segment, root, records));
            }
            if live.len() > LIVE_SEGMENTS_MAX {
                return Ok(Err(OpRefusal::TooManyLive(id)));
            }
            ready.push(Ready { projection: id, live, retire: &change.retire, append });
        }
        Ok(Ok(ready))
    }

    /// Whether the id was ever used, or a segment with the same root is stored.
    fn is_used(&self, id: SegmentId, root: SegmentRoot) -> Result<bool, StoreError> {
        if self.new_ids.contains_key(&id) || self.state.segments.contains_key(&root) {
            return Ok(true);
        }
        Ok(self.store.get(Cf::History, &keys::segment_id(self.state.head.db, id))?.is_some())
    }

    /// Checks where a segment's cells come from; gives the records of inline ones.
    fn check_delivery<'c>(
        &self,
        segment: &SegmentRef,
        projection: &Projection,
        inspected: Option<&'c Result<crate::segment::Inspected, String>>,
    ) -> Result<Option<&'c Batch>, OpRefusal> {
        match (&segment.delivery, inspected) {
            (Delivery::Receipts(receipts), _) => self.check_receipts(segment, projection, receipts).map(|()| None),
            (_, Some(Ok(inspected))) => {
                let wrong = facts_differ(&inspected.facts, segment, projection);
                match wrong {
                    Some(why) => Err(OpRefusal::Segment { segment: segment.id, why: why.to_string() }),
                    None => Ok(Some(&inspected.records)),
                }
            }
            (_, Some(Err(why))) => Err(OpRefusal::Segment { segment: segment.id, why: why.clone() }),
            (_, None) => Err(OpRefusal::Malformed("a delivery that this version does not know".to_owned())),
        }
    }

    /// Counts distinct members whose receipts are for this segment and still valid.
    /// Their members read the header, so that what the operation says of it is theirs to vouch for.
    fn check_receipts(
        &self,
        segment: &SegmentRef,
        projection: &Projection,
        receipts: &[SignedReceipt],
    ) -> Result<(), OpRefusal> {
        let members = &self.state.head.members;
        let good = |r: &&SignedReceipt| {
            position(members, &r.receipt.node).is_some()
                && r.receipt.db == self.state.head.db
                && r.receipt.segment == segment.preimage
                && (r.receipt.id, r.receipt.rows) == (segment.id, segment.rows)
                && r.receipt.schema == projection.entry.schema
                && r.receipt.expiry >= self.height
                && verify_receipt(r).is_ok()
        };
        let valid: BTreeSet<NodeId> = receipts.iter().filter(good).map(|r| r.receipt.node).collect();
        let needed = quorum(members.len());
        if valid.len() >= needed {
            return Ok(());
        }
        let count = |n: usize| u16::try_from(n).expect("MEMBERS_MAX is small");
        Err(OpRefusal::Receipts { segment: segment.id, valid: count(valid.len()), quorum: count(needed) })
    }

    /// Does a checked change.
    fn change(&mut self, change: Ready<'_>) {
        let db = self.state.head.db;
        for root in change.retire {
            let segment = self.state.segments.get_mut(root).expect("live segments are stored");
            segment.superseded = Some(self.height);
            self.state.put_segment(&mut self.batch, *root);
        }
        for (segment, root, records) in change.append {
            let slot = self.state.free.pop_first().unwrap_or(self.state.stored.len());
            self.state.stored.set(slot, leaf(root, segment.preimage.cells));
            let stored = StoredSegment {
                id: segment.id,
                preimage: segment.preimage,
                rows: segment.rows,
                projection: change.projection,
                slot,
                superseded: None,
            };
            self.state.segments.insert(root, stored);
            self.state.put_segment(&mut self.batch, root);
            self.batch.put(Cf::History, keys::segment_id(db, segment.id), codec::encode(&root));
            self.new_ids.insert(segment.id, root);
            if let Some(records) = records {
                for (cf, key, value) in records.writes() {
                    let value = value.expect("records of a segment are written, not removed");
                    self.batch.put(cf, key.to_vec(), value.to_vec());
                }
            }
            self.stored.push((root, records.is_some()));
        }
        let entry = &mut self.state.projections[change.projection.0 as usize].entry;
        entry.live = change.live.try_into().expect("the number of live segments was checked");
        entry.version = Version(entry.version.0 + 1);
        self.state.put_projection(&mut self.batch, change.projection);
    }

    /// Chains the receipts, computes the root and completes the batch.
    fn finish(
        mut self,
        block: &VerifiedBlock,
        before: Option<&DbState>,
        outcomes: Vec<OpReceipt>,
        (collected, removed): (Vec<SegmentRoot>, Vec<SegmentRoot>),
    ) -> Result<Computed, ApplyError> {
        let db = self.state.head.db;
        let mut done = BTreeSet::new();
        for receipt in &outcomes {
            let mut hasher = blake3::Hasher::new_derive_key(HISTORY_TAG);
            hasher.update(&self.state.head.history).update(&codec::encode(receipt));
            self.state.head.history = *hasher.finalize().as_bytes();
            // An operation that was done stays done, whatever becomes of a copy of it.
            let earlier =
                if receipt.outcome.is_ok() { None } else { crate::apply::receipt(self.store, db, receipt.op)? };
            let is_done = done.contains(&receipt.op) || earlier.is_some_and(|r| r.outcome.is_ok());
            if receipt.outcome.is_ok() {
                done.insert(receipt.op);
            }
            if !is_done {
                self.batch.put(Cf::History, keys::receipt(db, receipt.op), codec::encode(receipt));
            }
        }
        let header = block.header();
        let head = &mut self.state.head;
        (head.height, head.block, head.timestamp_ms) = (header.height, block.hash(), header.timestamp_ms);
        head.slots = self.state.stored.len();
        if ends_epoch(header.height) {
            head.members = head.cluster.next.clone();
            head.cluster.changed = 0;
        }
        if ends_epoch(header.height) || header.height == Height(0) {
            let epoch = epoch_of(Height(header.height.0 + 1));
            self.batch.put(Cf::History, keys::committee(db, epoch), codec::encode(&head.members));
        }
        self.state.compute_root();
        for address in &self.writers {
            self.state.put_writer(&mut self.batch, *address);
        }
        self.state.put_head(&mut self.batch);
        past::record(&mut self.batch, before, &self.state, self.pin);
        let root = self.state.head.root;
        self.batch.put(Cf::History, keys::block(db, header.height), codec::encode(&self.state.record()));
        self.batch.anchor(db, Anchor { height: header.height, root });
        let (batch, stored) = (self.batch, self.stored);
        Ok(Computed { state: Arc::new(self.state), batch, outcomes, stored, collected, removed })
    }
}

/// What an operation says of its segment must be what the header says.
pub(crate) fn facts_differ(
    facts: &Facts,
    segment: &SegmentRef,
    projection: &Projection,
) -> Option<crate::error::SegmentError> {
    use crate::error::SegmentError;
    if facts.id != segment.id {
        return Some(SegmentError::Facts("the segment id"));
    }
    if facts.rows != segment.rows {
        return Some(SegmentError::Facts("the row count"));
    }
    if facts.schema != projection.entry.schema {
        return Some(SegmentError::Schema(facts.schema));
    }
    (facts.lanes != projection.lanes).then_some(SegmentError::Lanes)
}
