//! For tests: small valid segments, a database's owner and members, and the blocks they make. Everything follows from a seed.
//!
//! Rule    nothing here is in a release: the module is behind the feature `testkit`.

use crate::apply::Applied;
use crate::block::VerifiedBlock;
use crate::engine::{Engine, Head};
use crate::error::{ApplyError, UploadError};
use crate::page::cell_bytes;
use crate::upload::CheckedUpload;
use fluence_crypto::field;
use fluence_crypto::roots::schema_hash;
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{NodeKey, OwnerKey, block_hash, op_id, ops_hash, seat_op, sign_op, sign_receipt, sign_seat};
use fluence_crypto::tree::{SegmentTree, header_hash, segment_root};
use fluence_types::block::{Block, BlockHeader, Member, Members, epoch_of};
use fluence_types::limits::GROUP_ROWS;
use fluence_types::op::{Change, Delivery, Op, OpOutcome, Seat, SeatChange, SegmentRef, SignedOp, UnsignedOp};
use fluence_types::segment::{
    HeaderBlob, Lane, LaneKind, PublicSchema, SegmentHeader, byte_cells, pack_bytes, sum_cells,
};
use fluence_types::tree::{Cell, SegmentPreimage};
use fluence_types::{
    BlockHash, DatabaseId, DbRoot, Fence, FieldBytes, Height, NodeId, OpId, ProjectionId, SegmentId, SegmentRoot,
    TableId, Version,
};

/// A stream of bytes that follows from a seed and a label.
pub fn bytes(seed: u64, label: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(label.as_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

fn array<const N: usize>(seed: u64, label: &str) -> [u8; N] {
    bytes(seed, label, N).try_into().expect("as many as asked for")
}

/// A schema of `byte_lanes` byte lanes and `sum_lanes` sum lanes.
pub fn schema(byte_lanes: usize, sum_lanes: usize) -> PublicSchema {
    let lanes = [vec![LaneKind::Bytes; byte_lanes], vec![LaneKind::Sum; sum_lanes]].concat();
    let sealed = bytes(byte_lanes as u64 * 256 + sum_lanes as u64, "sealed schema", 40);
    PublicSchema { lanes: lanes.try_into().expect("few lanes"), description: sealed.try_into().expect("few bytes") }
}

/// A segment as a client would seal it, with random bytes for ciphertext and random scalars for prefix sums.
#[derive(Clone, Debug)]
pub struct TestSegment {
    /// Its header.
    pub header: SegmentHeader,
    /// All its cells.
    pub cells: Vec<Cell>,
    /// Parts of its root.
    pub preimage: SegmentPreimage,
}

impl TestSegment {
    /// A segment of `rows` rows under `schema`, each byte lane with `row_bytes` bytes a row.
    pub fn new(seed: u64, schema: &PublicSchema, rows: u64, row_bytes: u64) -> Self {
        let byte_lanes = schema.lanes.iter().filter(|k| **k == LaneKind::Bytes).count();
        let starts: Vec<u64> = (0..rows).step_by(GROUP_ROWS).collect();
        let ends: Vec<u64> = starts.iter().map(|s| (s + GROUP_ROWS as u64).min(rows) * row_bytes).collect();
        let blob = HeaderBlob {
            block_ends: vec![ends; byte_lanes],
            fences: starts.iter().map(|s| bytes(seed, &format!("fence {s}"), 40)).collect(),
            key_commitments: (0..=byte_lanes).map(|i| array(seed, &format!("commitment {i}"))).collect(),
        };
        let mut header = SegmentHeader {
            id: SegmentId::from_bytes(array(seed, "segment id")),
            rows,
            schema: schema_hash(schema),
            key_epoch: 0,
            lanes: Vec::new(),
            blob,
        };
        let mut first_cell =
            1 + schema.lanes.len() as u64 + byte_cells(fluence_types::codec::encode(&header.blob).len() as u64);
        let mut data = Vec::new();
        for (i, kind) in schema.lanes.iter().enumerate() {
            let label = format!("lane {i}");
            let (cells, length) = match kind {
                LaneKind::Bytes => (pack_bytes(&bytes(seed, &label, (rows * row_bytes) as usize)), rows * row_bytes),
                LaneKind::Sum => (scalars(seed, &label, rows), 0),
            };
            let lane = Lane { kind: *kind, first_cell, cells: cells.len() as u64, rows, bytes: length };
            debug_assert!(*kind == LaneKind::Bytes || lane.cells == sum_cells(rows));
            first_cell += lane.cells;
            header.lanes.push(lane);
            data.extend(cells);
        }
        let header_cells = header.to_cells();
        let hash = header_hash(&header_cells);
        let cells = [header_cells, data].concat();
        Self::of_cells(header, cells, hash)
    }

    /// A segment of these cells, right or wrong.
    pub fn of_cells(header: SegmentHeader, cells: Vec<Cell>, header_hash: fluence_types::HeaderHash) -> Self {
        let tree_root = field::to_bytes(&SegmentTree::from_bytes_cells(&cells).root());
        let preimage = SegmentPreimage { tree_root, cells: cells.len() as u64, header_hash };
        Self { header, cells, preimage }
    }

    /// Its root.
    pub fn root(&self) -> SegmentRoot {
        segment_root(&self.preimage)
    }

    /// Its cells as they travel.
    pub fn bytes(&self) -> Vec<u8> {
        cell_bytes(&self.cells)
    }

    /// The prefix sum of a row, masked, as it stands in a sum lane.
    pub fn prefix(&self, lane: usize, row: u64) -> FieldBytes {
        self.cells[(self.header.lanes[lane].first_cell + row / 8) as usize][(row % 8) as usize]
    }

    /// How an operation names it, with its cells inside.
    ///
    /// # Panics
    /// If it is larger than what may travel inline.
    pub fn inline(&self) -> SegmentRef {
        self.delivered(Delivery::Inline(self.bytes().try_into().expect("a small segment")))
    }

    /// How an operation names it.
    pub fn delivered(&self, delivery: Delivery) -> SegmentRef {
        SegmentRef { id: self.header.id, preimage: self.preimage, rows: self.header.rows, delivery }
    }

    /// Uploads it whole, `chunk` bytes at a time.
    ///
    /// # Errors
    /// What the engine says.
    pub fn upload(&self, engine: &Engine, db: DatabaseId, chunk: usize) -> Result<CheckedUpload, UploadError> {
        let (all, root) = (self.bytes(), self.root());
        let mut have = engine.begin_upload(db, &self.preimage)?;
        while (have as usize) < all.len() {
            let from = have as usize;
            have = engine.append_upload(root, have, &all[from..all.len().min(from + chunk)])?;
        }
        engine.finish_upload(root)
    }
}

fn scalars(seed: u64, label: &str, rows: u64) -> Vec<Cell> {
    let raw = bytes(seed, label, rows as usize * 32);
    let scalar = |raw: &[u8]| {
        let mut raw: [u8; 32] = raw.try_into().expect("chunks of 32");
        // Below 2^254 and mostly below r; where not, a second bit less.
        raw[0] &= 0x3f;
        FieldBytes::from_canonical(raw).expect("2^254 is below r")
    };
    let all: Vec<FieldBytes> = raw.chunks(32).map(scalar).collect();
    all.chunks(8)
        .map(|chunk| {
            let mut cell = [FieldBytes::ZERO; 8];
            cell[..chunk.len()].copy_from_slice(chunk);
            cell
        })
        .collect()
}

/// A change of one projection.
pub fn change(projection: u32, append: Vec<SegmentRef>, retire: Vec<SegmentRoot>) -> Change {
    Change {
        projection: ProjectionId(projection),
        append: append.try_into().expect("few segments"),
        retire: retire.try_into().expect("few segments"),
    }
}

/// A commit under leases, that read each projection at a version.
pub fn fenced(fences: &[(u32, u64)], reads: &[(u32, u64)], changes: Vec<Change>) -> Op {
    let fences: Vec<_> = fences.iter().map(|(t, f)| (TableId(*t), Fence(*f))).collect();
    let reads: Vec<_> = reads.iter().map(|(p, v)| (ProjectionId(*p), Version(*v))).collect();
    let (fences, reads) = (fences.try_into().expect("few"), reads.try_into().expect("few"));
    Op::Commit { fences, reads, changes: changes.try_into().expect("few") }
}

/// A commit that read each projection at a version.
pub fn commit(reads: &[(u32, u64)], changes: Vec<Change>) -> Op {
    fenced(&[], reads, changes)
}

/// The definition of a projection.
pub fn define(projection: u32, schema: PublicSchema) -> Op {
    Op::DefineProjection { projection: ProjectionId(projection), table: TableId(0), schema }
}

/// A key that signs operations, with its place in its chain.
pub struct TestWriter {
    /// The key.
    pub key: OwnerKey,
    /// Its next sequence number.
    pub sequence: u64,
    /// Its last operation.
    pub previous: OpId,
}

impl TestWriter {
    /// The writer of a seed.
    pub fn new(seed: u64) -> Self {
        let key = OwnerKey::new(&Secret::new(array(seed, "owner key"))).expect("a random key is in range");
        Self { key, sequence: 0, previous: OpId::default() }
    }

    /// Signs an operation at the writer's place, without moving on.
    pub fn sign(&self, db: DatabaseId, op: Op) -> SignedOp {
        let (writer, sequence, previous) = (self.key.address(), self.sequence, self.previous);
        sign_op(UnsignedOp { db, writer, sequence, previous, op }, &self.key)
    }

    /// Moves on after an operation that was done.
    pub fn advance(&mut self, op: &SignedOp) {
        self.sequence += 1;
        self.previous = op_id(&op.unsigned);
    }
}

/// A database: its owner, its members' keys, and the head of its log.
pub struct TestDb {
    /// Its id.
    pub db: DatabaseId,
    /// Its owner.
    pub owner: TestWriter,
    /// Its members.
    pub members: Vec<NodeKey>,
    /// The last block, or none before genesis.
    pub last: Option<Head>,
    time_ms: u64,
}

impl TestDb {
    /// A database with `members` members.
    pub fn new(seed: u64, members: usize) -> Self {
        let key = |i| NodeKey::new(Secret::new(array(seed, &format!("member {i}"))));
        Self {
            db: DatabaseId::from_bytes(array(seed, "database id")),
            owner: TestWriter::new(seed),
            members: {
                let mut members: Vec<_> = (0..members).map(key).collect();
                members.sort_by_key(NodeKey::id);
                members
            },
            last: None,
            time_ms: 1_700_000_000_000,
        }
    }

    /// Its members' ids.
    pub fn member_ids(&self) -> Vec<NodeId> {
        self.members.iter().map(NodeKey::id).collect()
    }

    /// Its members, as operations name them.
    pub fn member_list(&self) -> Members {
        self.members.iter().map(NodeKey::member).collect::<Vec<_>>().try_into().expect("few members")
    }

    /// A seat change, voted for by the first `votes` members.
    pub fn seat(&self, epoch: u64, out: Option<NodeId>, join: Option<Member>, votes: usize) -> SignedOp {
        let seat = Seat { db: self.db, epoch, out, join };
        let vote = |(i, key): (usize, &NodeKey)| (i as u16, sign_seat(&seat, key));
        let votes: Vec<_> = self.members.iter().enumerate().take(votes).map(vote).collect();
        seat_op(SeatChange { seat, votes: votes.try_into().expect("few members") })
    }

    /// Lets time pass before the next block, which is a second after that.
    pub fn wait(&mut self, ms: u64) {
        self.time_ms += ms;
    }

    /// The next block with these operations, signed or not as they may be.
    pub fn block(&mut self, ops: Vec<SignedOp>) -> Block {
        self.time_ms += 1000;
        let (height, parent, executed_height, executed_root, next_members_hash) = match &self.last {
            None => (Height(0), BlockHash::default(), Height(0), DbRoot::default(), [0; 32]),
            Some(last) => (Height(last.height.0 + 1), last.block, last.height, last.root, last.next_members_hash),
        };
        let header = BlockHeader {
            db: self.db,
            consensus_epoch: epoch_of(height),
            height,
            parent,
            timestamp_ms: self.time_ms,
            ops_hash: ops_hash(&ops),
            executed_height,
            executed_root,
            next_members_hash,
        };
        Block { header, ops: ops.try_into().expect("few operations") }
    }

    /// Applies the next block.
    ///
    /// # Errors
    /// What the engine says; the log does not move on then.
    pub fn apply(&mut self, engine: &Engine, ops: Vec<SignedOp>) -> Result<Applied, ApplyError> {
        let block = self.block(ops);
        let applied = engine.apply(&VerifiedBlock::verify(block)?)?;
        self.last = engine.head(self.db);
        Ok(applied)
    }

    /// Creates the database.
    ///
    /// # Errors
    /// What the engine says.
    pub fn create(&mut self, engine: &Engine) -> Result<Applied, ApplyError> {
        let op = self.owner.sign(self.db, self.creation());
        let applied = self.apply(engine, vec![op.clone()])?;
        self.owner.advance(&op);
        Ok(applied)
    }

    /// The operation that creates the database.
    pub fn creation(&self) -> Op {
        Op::CreateDatabase { members: self.member_list() }
    }

    /// Has the owner do one operation in a block of its own.
    ///
    /// # Errors
    /// What the engine says of the block; the outcome of the operation is inside.
    pub fn act(&mut self, engine: &Engine, op: Op) -> Result<OpOutcome, ApplyError> {
        let op = self.owner.sign(self.db, op);
        let applied = self.apply(engine, vec![op.clone()])?;
        let outcome = applied.outcomes[0].outcome.clone();
        if outcome.is_ok() {
            self.owner.advance(&op);
        }
        Ok(outcome)
    }

    /// Receipts of the first `count` members for an upload.
    pub fn receipts(&self, upload: &CheckedUpload, count: usize) -> Delivery {
        let sign = |key: &NodeKey| sign_receipt(upload.receipt(key.id()), key);
        let receipts: Vec<_> = self.members.iter().take(count).map(sign).collect();
        Delivery::Receipts(receipts.try_into().expect("few members"))
    }

    /// Hash of the last block.
    pub fn last_hash(&self) -> BlockHash {
        self.last.map_or_else(BlockHash::default, |c| c.block)
    }
}

/// Hash of a block.
pub fn hash_of(block: &Block) -> BlockHash {
    block_hash(&block.header)
}
