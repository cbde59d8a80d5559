//! Why the engine stopped or refused: bad blocks, bad uploads, a failed store.
//!
//! Rule    an operation that fails inside an ordered block is not an error here: it is an outcome, equal on every member.

use crate::store::StoreError;
use fluence_crypto::sign::SignError;
use fluence_types::limits::EXECUTION_LAG_MAX;
use fluence_types::op::OpRefusal;
use fluence_types::segment::HeaderError;
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, OpId, SchemaHash, SegmentRoot};

/// Why the engine did not open, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store failed. A node stops at this: memory and disk may differ.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store opened at another state than the one recorded beside it.
    #[error("database {db} is at height {have} with root {root}, but height {anchor} was acknowledged")]
    Behind {
        /// The database.
        db: DatabaseId,
        /// Height in the store.
        have: Height,
        /// Root in the store.
        root: DbRoot,
        /// Height in the record.
        anchor: Height,
    },
    /// The record names a database that the store does not have.
    #[error("database {0} was acknowledged, but is not in the store")]
    Missing(DatabaseId),
}

/// Why a block was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not the next block.
    #[error("block has height {got}, next is {expected}")]
    Height {
        /// The block's.
        got: Height,
        /// The next.
        expected: Height,
    },
    /// The block follows another one.
    #[error("block follows {got}, the last one here is {expected}")]
    Parent {
        /// The block's parent.
        got: BlockHash,
        /// The last block.
        expected: BlockHash,
    },
    /// Another block is already applied at that height.
    #[error("another block is applied at height {height}: {ours}, not {theirs}")]
    Fork {
        /// The height.
        height: Height,
        /// Applied.
        ours: BlockHash,
        /// Offered.
        theirs: BlockHash,
    },
    /// Time went back.
    #[error("block is of {got} ms, its parent of {parent} ms")]
    Timestamp {
        /// The block's.
        got: u64,
        /// The parent's.
        parent: u64,
    },
    /// The header names an executed root that is not ours.
    #[error("block says root {theirs} at height {height}, ours is {ours:?}")]
    Executed {
        /// The height it names.
        height: Height,
        /// The root it names.
        theirs: DbRoot,
        /// Ours, if we have that height.
        ours: Option<DbRoot>,
    },
    /// The header names another consensus epoch than that of its height.
    #[error("block {height} says consensus epoch {got}")]
    Epoch {
        /// The epoch it names.
        got: u64,
        /// Its height.
        height: Height,
    },
    /// The root that the header carries is too old.
    #[error("block {height} carries the root of block {executed}, more than {EXECUTION_LAG_MAX} blocks below")]
    Lag {
        /// Its height.
        height: Height,
        /// The block whose root it carries.
        executed: Height,
    },
    /// The header names another next committee than ours.
    #[error("block {0} names another next committee than ours")]
    NextMembers(Height),
    /// The header's hash over operations is of other operations.
    #[error("the header's hash is not that of the block's operations")]
    OpsHash,
    /// An operation is not signed by its writer.
    #[error("operation {index}: {why}")]
    Signature {
        /// Position in the block.
        index: usize,
        /// What is wrong.
        why: SignError,
    },
    /// An operation names another database than the block's.
    #[error("operation {0} is of another database")]
    OtherDatabase(OpId),
    /// The first block of a database does not create it.
    #[error("database {db} does not start with a valid creation: {why}")]
    Genesis {
        /// The database.
        db: DatabaseId,
        /// Why not.
        why: OpRefusal,
    },
}

/// Why an upload was refused. Whatever was received is dropped, except for [`UploadError::Offset`] and [`UploadError::Incomplete`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is not kept here.
    #[error("database {0} is not kept here")]
    UnknownDatabase(DatabaseId),
    /// Nobody began this upload, or it expired.
    #[error("no upload of segment {0}")]
    Unknown(SegmentRoot),
    /// The segment is being uploaded for another database.
    #[error("segment {segment} is being uploaded for database {db}")]
    OtherDatabase {
        /// The segment.
        segment: SegmentRoot,
        /// The database.
        db: DatabaseId,
    },
    /// The segment was stored before; its cells are kept for proofs of earlier roots, and nobody may write them again.
    #[error("segment {0} was stored before and is superseded")]
    Collected(SegmentRoot),
    /// The segment has no cells, or too many.
    #[error("a segment of {got} cells; allowed are 1 to {limit}")]
    Size {
        /// Cells announced.
        got: u64,
        /// Cells allowed.
        limit: u64,
    },
    /// Too much is uploaded and not yet ordered.
    #[error("{what}: {got} with this upload, the limit is {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// With this upload.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// The chunk does not start where the node's copy ends.
    #[error("chunk starts at byte {got}, the copy here ends at {have}")]
    Offset {
        /// Where the chunk starts.
        got: u64,
        /// Where it must start.
        have: u64,
    },
    /// The chunk goes beyond the announced cells.
    #[error("chunk ends at byte {got} of {limit}")]
    Overrun {
        /// Where it ends.
        got: u64,
        /// Where the segment ends.
        limit: u64,
    },
    /// A scalar is not below the field modulus.
    #[error("cell {0} holds a scalar that is not canonical")]
    Scalar(u64),
    /// Not everything is here yet.
    #[error("{have} of {need} bytes are here")]
    Incomplete {
        /// Received.
        have: u64,
        /// Announced.
        need: u64,
    },
    /// What was received cannot be read back.
    #[error("page {0} of the upload cannot be read back")]
    Lost(u64),
    /// The segment itself is wrong.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// Why cells are not the segment that was announced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The number of bytes does not follow from the number of cells.
    #[error("{got} bytes for {cells} cells of 256")]
    Length {
        /// Bytes given.
        got: usize,
        /// Cells announced.
        cells: u64,
    },
    /// A scalar is not below the field modulus.
    #[error("cell {0} holds a scalar that is not canonical")]
    Scalar(u64),
    /// The cells make another root.
    #[error("the cells do not make the tree root")]
    Root,
    /// The header cells break a rule.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The header cells have another hash.
    #[error("the header cells do not have the header hash")]
    HeaderHash,
    /// The lanes end elsewhere than the segment.
    #[error("the lanes end at cell {lanes}, the segment has {cells}")]
    Cells {
        /// End of the last lane.
        lanes: u64,
        /// Cells announced.
        cells: u64,
    },
    /// Sealed under a schema that no projection has.
    #[error("no projection of the database has schema {0}")]
    Schema(SchemaHash),
    /// The lanes are not those of the schema.
    #[error("the lanes are not those of the projection's schema")]
    Lanes,
    /// The operation names another id or row count than the header.
    #[error("{0} differs between operation and header")]
    Facts(&'static str),
}
