//! Operations: what writers sign and a cluster orders.
//!
//! Rule    a writer's operations form a chain (sequence number and id of the one before), so even a captured cluster can withhold
//!         or roll back, but never invent, reorder or replay. `SignedOp -> VerifiedOp` is in `crypto::sign`.
//! Source  DESIGN section 7

use crate::block::{Member, Members};
use crate::codec::Bounded;
use crate::limits::{
    CHANGES_MAX, INLINE_SEGMENT_BYTES_MAX, LIVE_SEGMENTS_MAX, MEMBERS_MAX, PROJECTIONS_MAX, STANDBY_MAX, WRITERS_MAX,
};
use crate::segment::PublicSchema;
use crate::tree::SegmentPreimage;
use crate::{
    Address, DatabaseId, Fence, Height, NodeId, OpId, ProjectionId, SchemaHash, SegmentId, SegmentRoot, TableId,
    Version,
};
use borsh::{BorshDeserialize, BorshSerialize};

/// A signature by a node's Ed25519 key.
pub type NodeSignature = [u8; 64];
/// A recoverable secp256k1 signature: r, s (low half), recovery id 27 or 28.
pub type OwnerSignature = [u8; 65];

/// A member's word that it holds a segment, checked: bound to its database and valid until a height.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// The member.
    pub node: NodeId,
    /// The database.
    pub db: DatabaseId,
    /// The segment.
    pub segment: SegmentPreimage,
    /// The id in its header.
    pub id: SegmentId,
    /// The rows in its header.
    pub rows: u64,
    /// The schema in its header: the member knows that its lanes are those of this schema.
    pub schema: SchemaHash,
    /// Last height at which the receipt may be ordered.
    pub expiry: Height,
}

/// A receipt with its member's signature (domain `RECEIPT`).
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedReceipt {
    /// What is signed.
    pub receipt: Receipt,
    /// By `receipt.node`.
    pub signature: NodeSignature,
}

/// How members get the cells of a segment.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum Delivery {
    /// In the operation: the cells, 256 bytes each.
    Inline(Bounded<u8, INLINE_SEGMENT_BYTES_MAX>) = 1,
    /// Uploaded before; a quorum of members says it has them.
    Receipts(Bounded<SignedReceipt, MEMBERS_MAX>) = 2,
}

/// A segment named by an operation.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SegmentRef {
    /// Its id.
    pub id: SegmentId,
    /// Its root's parts.
    pub preimage: SegmentPreimage,
    /// Its rows.
    pub rows: u64,
    /// Where its cells are.
    pub delivery: Delivery,
}

/// What a commit does to one projection.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Change {
    /// The projection.
    pub projection: ProjectionId,
    /// Segments that become live.
    pub append: Bounded<SegmentRef, LIVE_SEGMENTS_MAX>,
    /// Live segments that `append` replaces (compaction), by root.
    pub retire: Bounded<SegmentRoot, LIVE_SEGMENTS_MAX>,
}

/// One act of a writer; all of it happens or none.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum Op {
    /// Genesis: the first operation of a database, signed by its owner, who becomes its first writer.
    CreateDatabase {
        /// The members of the cluster that keeps it, strictly increasing by node id.
        members: Members,
    } = 1,
    /// Adds an empty projection at the next free id.
    DefineProjection {
        /// Must be the number of projections so far.
        projection: ProjectionId,
        /// The table it belongs to.
        table: TableId,
        /// What nodes know of its schema.
        schema: PublicSchema,
    } = 2,
    /// A transaction: serializable, first committer wins.
    Commit {
        /// The leases that the writer writes under, by table, strictly increasing: each must run and be its own under this number.
        fences: Bounded<(TableId, Fence), CHANGES_MAX>,
        /// The version of every projection read or changed; a mismatch refuses the whole commit.
        reads: Bounded<(ProjectionId, Version), { PROJECTIONS_MAX as usize }>,
        /// The changes, one a projection, each of which must be in `reads`.
        changes: Bounded<Change, CHANGES_MAX>,
    } = 3,
    /// Replaces the set of writers; by the owner only.
    SetWriters {
        /// Sorted, without repeats; the owner need not be named.
        writers: Bounded<Address, WRITERS_MAX>,
    } = 4,
    /// Asks for another committee; by the owner only. Nobody's seat changes before the members agree that the newcomer is ready.
    Cluster(ClusterChange) = 5,
    /// Changes a seat from the next epoch on; by the members themselves: no writer signs it, its votes are its authority.
    Seat(SeatChange) = 6,
    /// Takes, keeps or ends the lease of a table.
    Lease {
        /// The table; it has at least one projection.
        table: TableId,
        /// What becomes of its lease.
        action: LeaseAction,
    } = 7,
}

/// What becomes of a table's lease: for a time it names the one writer that may write the table. Time is the blocks' timestamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum LeaseAction {
    /// Takes a lease that nobody holds, or whose time is over.
    Acquire {
        /// Must be one more than the table's last, so that the taker knows its number and two takers do not both believe they have it.
        fence: Fence,
        /// From the block's timestamp on; within [`LEASE_MS_MIN`](crate::limits::LEASE_MS_MIN) and [`LEASE_MS_MAX`](crate::limits::LEASE_MS_MAX).
        duration_ms: u32,
    } = 1,
    /// Has a lease that runs end later, or sooner; by its holder.
    Renew {
        /// Its number.
        fence: Fence,
        /// From the block's timestamp on.
        duration_ms: u32,
    } = 2,
    /// Ends a lease that runs; by its holder.
    Release {
        /// Its number.
        fence: Fence,
    } = 3,
    /// Ends whatever lease runs; by the owner only.
    Break = 4,
}

/// Where a table's lease stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, BorshSerialize, BorshDeserialize)]
pub struct Lease {
    /// The number of the last lease; 0 where the table never had one. It never falls.
    pub fence: Fence,
    /// Who took it; none where it was given up, or broken.
    pub holder: Option<Address>,
    /// The first timestamp at which it does not run any more.
    pub until_ms: u64,
}

impl Lease {
    /// Who may write the table at a time, where a lease says so.
    #[must_use]
    pub fn holder_at(&self, now_ms: u64) -> Option<Address> {
        self.holder.filter(|_| now_ms < self.until_ms)
    }
}

/// What an owner wants of its cluster. A later one replaces an earlier one that has not come true.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum ClusterChange {
    /// Another member.
    Join(Member) = 1,
    /// One member less.
    Leave(NodeId) = 2,
    /// One in the place of another.
    Replace {
        /// Who goes.
        out: NodeId,
        /// Who comes.
        with: Member,
    } = 3,
    /// The nodes that wait to replace a member that is missing, in order of preference.
    Standby(Bounded<Member, STANDBY_MAX>) = 4,
    /// Nothing any more: what was asked for and has not come true is dropped.
    Cancel = 5,
}

/// A change of one seat: what members vote for, each by its Ed25519 key (domain `SEAT`).
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Seat {
    /// The database.
    pub db: DatabaseId,
    /// The consensus epoch whose committee votes, and at whose end the seat changes.
    pub epoch: u64,
    /// Who goes.
    pub out: Option<NodeId>,
    /// Who comes: it was seen to have everything, by its storage proof.
    pub join: Option<Member>,
}

/// A seat change with the votes of a quorum.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SeatChange {
    /// The change.
    pub seat: Seat,
    /// Place among the members, strictly increasing, and that member's signature.
    pub votes: Bounded<(u16, NodeSignature), MEMBERS_MAX>,
}

/// An operation before it is signed.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct UnsignedOp {
    /// The database.
    pub db: DatabaseId,
    /// Who signs.
    pub writer: Address,
    /// 0 for the writer's first operation on this database, then one more each.
    pub sequence: u64,
    /// The writer's operation before this one; all 0 for the first.
    pub previous: OpId,
    /// What to do.
    pub op: Op,
}

/// An operation as it travels. Nothing may act on it before `crypto::sign::verify_op`.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedOp {
    /// What is signed.
    pub unsigned: UnsignedOp,
    /// By `unsigned.writer`, over the operation id.
    pub signature: OwnerSignature,
}

/// Why an ordered operation changed nothing; equal on every member.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, thiserror::Error)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum OpRefusal {
    /// The database exists already, or does not exist yet.
    #[error("database {0} is not in the state this operation needs")]
    Database(DatabaseId) = 1,
    /// The signer may not do this.
    #[error("{0} may not do this")]
    NotAllowed(Address) = 2,
    /// Not the writer's next operation: a replay or a gap.
    #[error("sequence {got}, expected {expected}")]
    Sequence {
        /// Given.
        got: u64,
        /// The writer's next.
        expected: u64,
    } = 3,
    /// The right number after the wrong operation.
    #[error("operation follows {got}, the writer's last is {expected}")]
    Chain {
        /// Given.
        got: OpId,
        /// The writer's last.
        expected: OpId,
    } = 4,
    /// Someone committed first. Read again and retry.
    #[error("projection {projection} is at version {current}, the operation read {read}; read again and retry")]
    Conflict {
        /// The projection.
        projection: ProjectionId,
        /// The version the operation read.
        read: Version,
        /// The version now.
        current: Version,
    } = 5,
    /// No such projection, or not the next free id.
    #[error("no projection {0} here")]
    Projection(ProjectionId) = 6,
    /// A retired segment is not live.
    #[error("segment {0} is not live")]
    NotLive(SegmentRoot) = 7,
    /// The segment, or its id, was stored before.
    #[error("segment {0} was stored before")]
    Repeated(SegmentId) = 8,
    /// Too many live segments; compact first.
    #[error("projection {0} would have more than {LIVE_SEGMENTS_MAX} live segments; compact first")]
    TooManyLive(ProjectionId) = 9,
    /// Receipts that are too few, expired, of another segment or by strangers.
    #[error("segment {segment}: {valid} valid receipts, {quorum} needed")]
    Receipts {
        /// The segment.
        segment: SegmentId,
        /// Valid receipts.
        valid: u16,
        /// Needed.
        quorum: u16,
    } = 10,
    /// The segment's cells do not make the root, or its header breaks a rule.
    #[error("segment {segment}: {why}")]
    Segment {
        /// The segment.
        segment: SegmentId,
        /// What is wrong.
        why: String,
    } = 11,
    /// The operation is malformed in a way the codec cannot see.
    #[error("malformed operation: {0}")]
    Malformed(String) = 12,
    /// The cluster cannot change so now.
    #[error("cluster change refused: {0}")]
    Cluster(String) = 13,
    /// Another writes the table now. Wait, write through it, or have the owner break the lease.
    #[error(
        "table {table} is leased to {holder} until {until_ms} ms, it is {now_ms}; wait, or write through the holder"
    )]
    Leased {
        /// The table.
        table: TableId,
        /// Who holds its lease.
        holder: Address,
        /// Until when.
        until_ms: u64,
        /// The block's time.
        now_ms: u64,
    } = 14,
    /// The number is not that of a lease that runs and is the writer's: it lapsed, was broken, or another took it since.
    #[error("fence {got} of table {table} is over: its lease is at {}, {}; take it again", .lease.fence, Until(.lease))]
    Fence {
        /// The table.
        table: TableId,
        /// Given.
        got: Fence,
        /// How the lease stands.
        lease: Lease,
    } = 15,
    /// Segments are retired by the owner, or by who holds the table's lease.
    #[error("{by} would retire segments of table {table} without its lease")]
    Unleased {
        /// The table.
        table: TableId,
        /// Who would.
        by: Address,
    } = 16,
    /// No such table.
    #[error("no table {0} here")]
    Table(TableId) = 17,
    /// As many segments as a storage proof reaches, those included that are kept until their retention ends.
    #[error("{limit} segments are stored, superseded ones included, and no more can be proven; {}", Room(.until))]
    Full {
        /// Most segments of the database.
        limit: u64,
        /// The block in which the first superseded one goes; `None` where none is superseded.
        until: Option<Height>,
    } = 18,
}

/// How long a lease runs, in words.
struct Until<'a>(&'a Lease);

impl std::fmt::Display for Until<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.holder {
            Some(holder) => write!(f, "of {holder} until {} ms", self.0.until_ms),
            None => f.write_str("free"),
        }
    }
}

/// When there is room again, in words.
struct Room<'a>(&'a Option<Height>);

impl std::fmt::Display for Room<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(height) => write!(f, "there is room from block {height} on: retry then"),
            None => f.write_str("compact a table, and retry when its old segments are gone"),
        }
    }
}

/// What became of an ordered operation.
pub type OpOutcome = Result<(), OpRefusal>;

/// What became of an operation, and where.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct OpReceipt {
    /// The operation.
    pub op: OpId,
    /// The block that holds it.
    pub height: Height,
    /// What became of it.
    pub outcome: OpOutcome,
}
