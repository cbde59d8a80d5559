//! The messages. A node answers every request with the response of the same name, or with [`Response::Refused`].

use borsh::{BorshDeserialize, BorshSerialize};
use fluence_types::answer::{Answer, HeaderAnswer, OpenRefusal, OpenRequest, Snapshot};
use fluence_types::block::{Certificate, Handover, Member, Members};
use fluence_types::codec::Bounded;
use fluence_types::limits::HANDOVERS_MAX;
use fluence_types::op::{Lease, OpReceipt, SignedOp, SignedReceipt};
use fluence_types::proof::ProofBytes;
use fluence_types::segment::PublicSchema;
use fluence_types::shape::{RangeSumShape, StorageShape};
use fluence_types::statement::{RangeSum, RangeSumQuery, Storage};
use fluence_types::tree::SegmentPreimage;
use fluence_types::{
    Address, DatabaseId, DbRoot, Epoch, Fingerprint, Height, NodeId, OpId, ProjectionId, SegmentRoot, TableId,
};

/// Most databases listed in one [`Status`].
pub const STATUS_DATABASES_MAX: usize = 4096;
/// Most nodes in one introduction: members and those that wait.
pub const INTRODUCE_MAX: usize = 64;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum Request {
    /// Who are you, what do you keep?
    Status = 1,
    /// Starts or resumes an upload; the response says from which byte to go on.
    UploadBegin {
        /// The database it will belong to; it must exist, and the uploader's operation will be by one of its writers.
        db: DatabaseId,
        /// The segment root's parts.
        segment: SegmentPreimage,
    } = 2,
    /// Bytes of the segment's cells, 32 a scalar, at an offset.
    UploadChunk {
        /// The segment.
        segment: SegmentRoot,
        /// Offset in bytes; must be where the node's copy ends.
        offset: u64,
        /// At most [`crate::CHUNK_BYTES`].
        bytes: Bounded<u8, { crate::CHUNK_BYTES }>,
    } = 3,
    /// Checks the tree of a complete upload and signs for it.
    UploadEnd {
        /// The segment.
        segment: SegmentRoot,
    } = 4,
    /// Orders an operation; answered when it is in an executed, certified block.
    Submit(Box<SignedOp>) = 5,
    /// The catalogue entry of a projection at the latest certified root.
    Catalogue {
        /// The database.
        db: DatabaseId,
        /// The projection.
        projection: ProjectionId,
    } = 6,
    /// The header of a stored segment.
    Header {
        /// The database.
        db: DatabaseId,
        /// The segment.
        segment: SegmentRoot,
    } = 7,
    /// Opens cells of live segments.
    Open(Box<OpenRequest>) = 8,
    /// Makes a Groth16 proof of a range sum at the latest certified root.
    ProveRangeSum(RangeSumQuery) = 9,
    /// The storage proof of an epoch: of the holdings, or of one database.
    EpochProof {
        /// The epoch.
        epoch: Epoch,
        /// Which proof of the epoch.
        proof_index: u32,
        /// A single database, or none for the holdings.
        db: Option<DatabaseId>,
    } = 10,
    /// Where a writer stands: its next sequence number and last operation.
    Writer {
        /// The database.
        db: DatabaseId,
        /// The writer.
        address: Address,
    } = 11,
    /// Public schemas of all projections, by projection id: all an owner needs, with the recovery phrase, to come back.
    Schemas {
        /// The database.
        db: DatabaseId,
    } = 12,
    /// How the committee changed from an epoch on: the certificates by which each handed over to the next.
    Handovers {
        /// The database.
        db: DatabaseId,
        /// The first epoch of the committee that the asker trusts.
        from_epoch: u64,
    } = 13,
    /// Says where nodes of a database's cluster are reached. A hint: a node proves who it is when it is dialled.
    Introduce {
        /// The database.
        db: DatabaseId,
        /// Nodes and their addresses.
        peers: Bounded<(NodeId, Addresses), INTRODUCE_MAX>,
    } = 15,
    /// How does the database's cluster stand?
    Cluster {
        /// The database.
        db: DatabaseId,
    } = 16,
    /// Follow a database, to take a seat in its cluster: fetch its state from the members, and keep level.
    Follow {
        /// The database.
        db: DatabaseId,
        /// The first consensus epoch of the committee.
        epoch: u64,
        /// The committee, which the asker vouches for.
        members: Members,
        /// Where its members are reached.
        peers: Bounded<(NodeId, Addresses), INTRODUCE_MAX>,
    } = 17,
    /// Where a table's lease stands at the latest certified root.
    Lease {
        /// The database.
        db: DatabaseId,
        /// The table.
        table: TableId,
    } = 18,
}

/// Where a node is reached: multiaddresses.
pub type Addresses = Bounded<Bounded<u8, 256>, 8>;

/// How a database's cluster stands, as one node sees it. Nothing in it is signed but the certificate.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClusterStatus {
    /// The database.
    pub db: DatabaseId,
    /// The consensus epoch of the next block.
    pub epoch: u64,
    /// The last view finalized in it.
    pub view: u64,
    /// The last block executed here.
    pub height: Height,
    /// The last block known to be finalized; above `height` while the node catches up.
    pub finalized: Height,
    /// The root after `height`.
    pub root: DbRoot,
    /// Whether this node votes.
    pub voting: bool,
    /// Operations that wait here.
    pub waiting: u64,
    /// Segments whose cells are not all here yet, and the bytes still to come.
    pub missing_segments: u64,
    /// See `missing_segments`.
    pub missing_bytes: u64,
    /// The committee.
    pub members: Bounded<MemberStatus, { fluence_types::limits::MEMBERS_MAX }>,
    /// The next epoch's committee, as it stands.
    pub next: Bounded<NodeId, { fluence_types::limits::MEMBERS_MAX }>,
    /// What the owner asked for and has not come true.
    pub wish: Option<fluence_types::op::ClusterChange>,
    /// Nodes that wait for a seat.
    pub standby: Bounded<NodeId, { fluence_types::limits::STANDBY_MAX }>,
    /// The latest certificate.
    pub certificate: Option<Certificate>,
}

/// A member, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MemberStatus {
    /// The member.
    pub node: NodeId,
    /// Milliseconds since it was heard voting; none where it was not since the start.
    pub heard_ms_ago: Option<u64>,
    /// The last block whose certificate it signed, among the last ones.
    pub signed: Option<Height>,
    /// Whether a connection to it is open.
    pub connected: bool,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum Response {
    /// Not done, and why.
    Refused(Refusal) = 0,
    /// To `Status`.
    Status(Status) = 1,
    /// To `UploadBegin` and `UploadChunk`: bytes the node has, in order from the start.
    Upload {
        /// Bytes so far.
        have: u64,
    } = 2,
    /// To `UploadEnd`.
    UploadEnd(SignedReceipt) = 4,
    /// To `Submit`.
    Submit {
        /// What became of it.
        receipt: OpReceipt,
        /// A certified root at or after its block.
        certificate: Certificate,
    } = 5,
    /// To `Catalogue`.
    Catalogue(Box<Snapshot>) = 6,
    /// To `Header`.
    Header(HeaderAnswer) = 7,
    /// To `Open`.
    Open(Box<Answer>) = 8,
    /// To `ProveRangeSum`: the root it is about, certified, the statement and the proof.
    ProveRangeSum(Box<ProvedRangeSum>) = 9,
    /// To `EpochProof`.
    EpochProof(Box<ProvedStorage>) = 10,
    /// To `Writer`.
    Writer {
        /// Sequence number of the writer's next operation.
        next_sequence: u64,
        /// Its last operation; all 0 if none.
        previous: OpId,
    } = 11,
    /// To `Schemas`.
    Schemas(Bounded<PublicSchema, { fluence_types::limits::PROJECTIONS_MAX as usize }>) = 12,
    /// To `Handovers`: the changes since, oldest first; epochs in which nothing changed are left out. Full lists go on: ask again.
    Handovers(Bounded<Handover, HANDOVERS_MAX>) = 13,
    /// To `Introduce` and `Follow`: noted.
    Noted = 15,
    /// To `Cluster`.
    Cluster(Box<ClusterStatus>) = 16,
    /// To `Lease`. A member's word: an operation that builds on a wrong one is refused.
    Lease {
        /// The lease.
        lease: Lease,
        /// The time of the block at which it stands so.
        now_ms: u64,
    } = 18,
}

/// Who a node is and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// Itself as it would join a cluster: its id, the key it votes with, and the proof that it has that key.
    pub member: Member,
    /// Its software, as "fluence 0.1.0".
    pub software: Bounded<u8, 128>,
    /// Its databases by id, with the latest certificate of each.
    pub databases: Bounded<DatabaseStatus, STATUS_DATABASES_MAX>,
    /// Storage shape it proves in.
    pub storage_shape: [u32; 4],
}

impl Status {
    /// Its id.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.member.node
    }
    /// The storage shape.
    #[must_use]
    pub const fn shape(&self) -> StorageShape {
        let [samples, holdings_levels, stored_levels, tree_levels] = self.storage_shape;
        StorageShape { samples, holdings_levels, stored_levels, tree_levels }
    }
}

/// One database on a node.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DatabaseStatus {
    /// The database.
    pub db: DatabaseId,
    /// Its owner.
    pub owner: Address,
    /// The committee of `epoch`.
    pub members: Members,
    /// The consensus epoch that the node is in.
    pub epoch: u64,
    /// The last block it has applied; its certificate is of an earlier one, or of this.
    pub height: Height,
    /// Other members that it hears now.
    pub peers: u32,
    /// Latest certified root.
    pub certificate: Certificate,
    /// Its number of projections.
    pub projections: u32,
    /// Cells of its stored segments together.
    pub stored_cells: u64,
    /// Segments stored.
    pub segments: u64,
    /// Pages found lost by the last scrub or read.
    pub lost_pages: u64,
}

/// A range sum with its proof.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProvedRangeSum {
    /// The root, certified, opened to the projection.
    pub snapshot: Snapshot,
    /// The masked sum.
    pub sum: fluence_types::FieldBytes,
    /// The query's digest.
    pub query_digest: fluence_types::FieldBytes,
    /// The circuit's shape: segments, tree levels.
    pub shape: [u32; 2],
    /// The key it was made under.
    pub fingerprint: Fingerprint,
    /// The proof.
    pub proof: ProofBytes,
    /// Constraints of the circuit.
    pub constraints: u64,
    /// Milliseconds the prover took.
    pub prove_ms: u64,
}

impl ProvedRangeSum {
    /// The circuit's shape.
    #[must_use]
    pub const fn shape(&self) -> RangeSumShape {
        RangeSumShape { segments: self.shape[0], tree_levels: self.shape[1] }
    }
    /// The statement that the proof is of.
    #[must_use]
    pub const fn statement(&self) -> RangeSum {
        RangeSum {
            db_root: self.snapshot.certificate.header.executed_root,
            query_digest: self.query_digest,
            sum: self.sum,
        }
    }
}

/// A storage proof.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProvedStorage {
    /// The epoch.
    pub epoch: Epoch,
    /// Root that was proven.
    pub root: fluence_types::HoldingsRoot,
    /// Cells under it.
    pub total_cells: u64,
    /// The seed, as the node computed it.
    pub seed: fluence_types::FieldBytes,
    /// The key it was made under.
    pub fingerprint: Fingerprint,
    /// The proof.
    pub proof: ProofBytes,
    /// Constraints of the circuit.
    pub constraints: u64,
    /// Milliseconds the prover took.
    pub prove_ms: u64,
}

impl ProvedStorage {
    /// The statement; its root, total and seed must be what the verifier expects, not what the node says.
    #[must_use]
    pub const fn statement(&self) -> Storage {
        Storage { root: self.root, total_cells: self.total_cells, seed: self.seed }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, thiserror::Error)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum Refusal {
    /// From the store.
    #[error(transparent)]
    Open(#[from] OpenRefusal) = 1,
    /// The upload does not fit the segment announced, or the segment breaks a rule.
    #[error("upload refused: {0}")]
    Upload(String) = 2,
    /// The operation's signature does not verify, or it can never be ordered.
    #[error("operation refused: {0}")]
    Operation(String) = 3,
    /// The node is at a limit; try again later.
    #[error("busy: {0}")]
    Busy(String) = 4,
    /// No proof of that epoch.
    #[error("no proof for epoch {epoch}: {why}")]
    NoProof {
        /// The epoch.
        epoch: Epoch,
        /// Not started, still proving, or lost data.
        why: String,
    } = 5,
    /// The node has no key for a shape that fits.
    #[error("cannot prove this: {0}")]
    Unprovable(String) = 6,
    /// A database at a height the node does not have.
    #[error("height {0} is not reached here")]
    Height(Height) = 7,
    /// The frame is no request. Enough of these and the node blocks the peer.
    #[error("not a request: {0}")]
    Malformed(String) = 8,
}
