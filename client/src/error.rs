//! Why an act of the client failed: whose fault it is, and what was wrong.

use crate::csv::CsvError;
use crate::keyring::KeyError;
use crate::keystore::KeystoreError;
use crate::open::OpenError;
use crate::plan::PlanError;
use crate::schema::SchemaError;
use crate::seal::SealError;
use crate::transport::TransportError;
use fluence_crypto::sign::SignError;
use fluence_types::op::OpRefusal;
use fluence_types::{Address, DatabaseId, NodeId, ProjectionId, SegmentRoot, TableId, Version};
use fluence_verifier::answer::AnswerError;
use fluence_verifier::committee::CommitteeError;
use fluence_wire::message::Refusal;

impl ClientError {
    /// Whether nothing was written because somebody else committed first, what was read moved on, or there is no room yet: reading again
    /// and repeating the act is safe, and may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. }
                | Self::Moving { .. }
                | Self::Leased { .. }
                | Self::Op(OpRefusal::Full { .. })
                | Self::Refused { refusal: Refusal::Busy(_), .. }
        )
    }

    /// Whether an operation that ended so changed nothing, for certain. Where not, it may have been ordered, or may be yet.
    #[must_use]
    pub const fn is_undone(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. }
                | Self::Leased { .. }
                | Self::LeaseLost { .. }
                | Self::Op(_)
                | Self::Seal(_)
                | Self::Schema(_)
                | Self::TooManySegments { .. }
                | Self::TooManyTables { .. }
        )
    }

    /// A node's answer that does not verify.
    pub(crate) fn answer(node: &NodeId, why: AnswerError) -> Self {
        Self::Answer { node: *node, why: Box::new(why) }
    }
}

impl From<OpRefusal> for ClientError {
    fn from(refusal: OpRefusal) -> Self {
        match refusal {
            OpRefusal::Conflict { projection, read, current } => Self::Conflict { projection, read, current },
            OpRefusal::Leased { table, holder, until_ms, now_ms } => Self::Leased { table, holder, until_ms, now_ms },
            OpRefusal::Fence { table, .. } => Self::LeaseLost { table, why: refusal.to_string() },
            other => Self::Op(other),
        }
    }
}

/// Why an act failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A database that the keystore does not know.
    #[error("database {0} is not known here; add it, or recover it from its nodes")]
    UnknownDatabase(DatabaseId),
    /// A table that the database does not have.
    #[error("there is no table {0:?} in this database")]
    UnknownTable(String),
    /// A table of that name is there.
    #[error("table {0:?} exists already")]
    TableExists(String),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Keystore.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A schema, or what should fit one.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Rows that cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A CSV file.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// The source of rows failed.
    #[error("reading rows: {0}")]
    Source(String),
    /// A row is to be retracted from a table that the transaction has not read.
    #[error("projection {0} was not read in this transaction, so nothing can be retracted from it")]
    Unread(ProjectionId),
    /// No node was reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The node says no.
    #[error("node {node} refused: {refusal}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Its reason.
        refusal: Refusal,
    },
    /// The node's answer does not verify: it lies, is behind, or is another's.
    #[error("answer of node {node} refused: {why}")]
    Answer {
        /// The node.
        node: NodeId,
        /// What was wrong.
        why: Box<AnswerError>,
    },
    /// The page of a segment that the node has wrong, found by asking page by page.
    #[error("answer of node {node} refused: page {page} of segment {segment} is not the one stored ({why})")]
    Page {
        /// The node.
        node: NodeId,
        /// The segment.
        segment: SegmentRoot,
        /// The page, 64 cells each.
        page: u64,
        /// What was wrong.
        why: Box<AnswerError>,
    },
    /// A node answered with something else than was asked.
    #[error("node {node} broke the protocol: {what}")]
    Protocol {
        /// The node.
        node: NodeId,
        /// What it did.
        what: String,
    },
    /// A node's signature does not verify.
    #[error("node {node}: {why}")]
    Signature {
        /// The node.
        node: NodeId,
        /// What is wrong.
        why: SignError,
    },
    /// Verified cells that do not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// More than one request may ask.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Someone committed first, and nothing was written: read again and retry.
    #[error(
        "projection {projection} is at version {current}, the transaction read {read}; nothing was written: read again and retry"
    )]
    Conflict {
        /// The projection.
        projection: ProjectionId,
        /// The version that was read.
        read: Version,
        /// The version now.
        current: Version,
    },
    /// Another writes the table now, and nothing was written. It may be written when the lease is over.
    #[error("table {table} is leased to {holder} for {} ms more; nothing was written: wait, or have the owner break the lease", .until_ms.saturating_sub(*.now_ms))]
    Leased {
        /// The table.
        table: TableId,
        /// Who writes it.
        holder: Address,
        /// Until when, in milliseconds since 1970, by the cluster's time.
        until_ms: u64,
        /// The cluster's time then.
        now_ms: u64,
    },
    /// The lease that this session wrote under is over, and nothing was written. Another may have written since: read again.
    #[error("the lease of table {table} is lost, and nothing was written: {why}")]
    LeaseLost {
        /// The table.
        table: TableId,
        /// What the cluster says.
        why: String,
    },
    /// More tables than one transaction takes.
    #[error("{got} tables in one transaction, the limit is {limit}")]
    TooManyTables {
        /// Tables.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// A table of another database than the transaction's.
    #[error("a table of database {table} in a transaction of database {transaction}")]
    OtherDatabase {
        /// The table's.
        table: DatabaseId,
        /// The transaction's.
        transaction: DatabaseId,
    },
    /// Rows that were rewritten before in the same transaction: a row must not be retracted twice.
    #[error("a range of table {0:?} overlaps one that this transaction has rewritten; rewrite both at once")]
    Overlap(String),
    /// A member that has not seen yet what we have seen.
    #[error("node {node} is behind: {what}")]
    Behind {
        /// The node.
        node: NodeId,
        /// By what it shows.
        what: String,
    },
    /// A node's account of how the committee changed does not hold.
    #[error("node {node} cannot show how its committee came about: {why}")]
    Committee {
        /// The node.
        node: NodeId,
        /// What is wrong.
        why: Box<CommitteeError>,
    },
    /// Nodes that cannot be members of one cluster.
    #[error("members refused: {0}")]
    Members(SignError),
    /// So many members failed that the rest is no quorum.
    #[error("{failed} of {members} members failed, {quorum} are needed: {why}")]
    TooFew {
        /// Members that failed.
        failed: usize,
        /// Members of the cluster.
        members: usize,
        /// Members needed.
        quorum: usize,
        /// Why one of them did.
        why: Box<ClientError>,
    },
    /// The operation was ordered and changed nothing.
    #[error("operation refused: {0}")]
    Op(OpRefusal),
    /// The projection kept changing.
    #[error("projection {projection} changed {attempts} times while it was read; try again")]
    Moving {
        /// The projection.
        projection: ProjectionId,
        /// Attempts made.
        attempts: usize,
    },
    /// A retraction without the row it retracts: a writer's mistake.
    #[error("a retraction has no row in this range: a writer retracted a row twice, or one that never was")]
    Unmatched,
    /// An aggregate is outside what its type holds.
    #[error("{0} does not fit 128 bits")]
    Overflow(String),
    /// An aggregate that the column's type does not have.
    #[error("{aggregate} of column {column:?}: {why}")]
    Aggregate {
        /// The aggregate.
        aggregate: &'static str,
        /// The column.
        column: String,
        /// Why not.
        why: String,
    },
    /// The proof, or what it is about, was refused.
    #[error("proof of node {node} refused: {why}")]
    Proof {
        /// The node.
        node: NodeId,
        /// What was wrong.
        why: String,
    },
    /// Too many rows for one transaction.
    #[error(
        "{got} segments in one import, a projection holds {limit} live ones; import in parts, or compact between them"
    )]
    TooManySegments {
        /// Segments it would be.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// A database without members.
    #[error("a database needs at least one member")]
    NoMembers,
    /// A newcomer that is no newcomer.
    #[error("node {node} is a member of the cluster of database {db} already")]
    Member {
        /// The node.
        node: NodeId,
        /// The database.
        db: DatabaseId,
    },
    /// Members that the caller did not name.
    #[error("database {db} is kept by {stranger}, which is not among the nodes given")]
    Stranger {
        /// The database.
        db: DatabaseId,
        /// The member.
        stranger: NodeId,
    },
}
