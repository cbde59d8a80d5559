//! Every limit a decoder, a member or a circuit enforces, with its reason.

/// Scalars in a cell: the width of the permutation.
pub const CELL_SCALARS: usize = 8;
/// Payload bytes of a scalar: 248 bits stay below r whatever they hold.
pub const SCALAR_PAYLOAD_BYTES: usize = 31;
/// Payload bytes of a cell in a byte lane.
pub const CELL_PAYLOAD_BYTES: usize = CELL_SCALARS * SCALAR_PAYLOAD_BYTES;
/// Cells of a page: two tree levels.
pub const PAGE_CELLS: usize = 64;
/// Bytes of a page record: 64 cells of 8 scalars of 32 bytes.
pub const PAGE_BYTES: usize = PAGE_CELLS * CELL_SCALARS * 32;
/// Rows of a row group, the unit of encryption and of grants.
pub const GROUP_ROWS: usize = 256;
/// Counts of cells and rows are below this in every statement, so sums of a few of them cannot wrap in the field.
pub const COUNT_BITS: u32 = 40;
/// Tree levels above a cell in the largest segment: 8^7 cells = 512 MiB of records. The largest circuit shape has as many.
pub const SEGMENT_LEVELS_MAX: usize = 7;
/// Cells of the largest segment.
pub const SEGMENT_CELLS_MAX: u64 = 1 << (3 * SEGMENT_LEVELS_MAX);
/// Levels of the 4-ary sum tree over stored segments: 4^8 = 65,536 of them.
pub const STORED_LEVELS_MAX: usize = 8;
/// Levels of the 4-ary sum tree over a node's databases: 4^6 = 4,096 of them.
pub const HOLDINGS_LEVELS_MAX: usize = 6;
/// Levels of the 8-ary catalogue, fixed: 4,096 projections a database.
pub const CATALOGUE_LEVELS: usize = 4;
/// Projections of a database.
pub const PROJECTIONS_MAX: u32 = 1 << (3 * CATALOGUE_LEVELS as u32);
/// Live segments of a projection; above it a commit is refused until the owner compacts.
pub const LIVE_SEGMENTS_MAX: usize = 16;
/// Lanes of a segment.
pub const LANES_MAX: usize = 256;
/// Bytes of a header blob (fences, block offsets, commitments).
pub const HEADER_BLOB_BYTES_MAX: usize = 32 << 20;
/// Segments up to this size travel inline in the operation.
pub const INLINE_SEGMENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of an encoded operation: inline segments of one transaction, with room for the rest.
pub const OP_BYTES_MAX: usize = 2 << 20;
/// Changes (projections touched) in one transaction.
pub const CHANGES_MAX: usize = 64;
/// Bytes of what an owner says of a table: its schema, sealed, and what of it is public.
pub const DESCRIPTION_BYTES_MAX: usize = 256 << 10;
/// Bytes of all public schemas of a database together: one response carries them.
pub const SCHEMAS_BYTES_MAX: u64 = 16 << 20;
/// Writers of a database.
pub const WRITERS_MAX: usize = 1024;
/// Writers that a database may have had in its life: their chains are replicated state.
pub const WRITERS_EVER_MAX: usize = 8 * WRITERS_MAX;
/// Shortest lease of a table: below it, renewing would be all that a writer does.
pub const LEASE_MS_MIN: u32 = 1000;
/// Longest lease of a table: so long a writer that vanished may keep others away, where the owner does not break it.
pub const LEASE_MS_MAX: u32 = 3_600_000;
/// Members of a cluster: 3f + 1 with f up to 10.
pub const MEMBERS_MAX: usize = 31;
/// Nodes that wait to take a member's place.
pub const STANDBY_MAX: usize = 16;
/// Blocks of a consensus epoch. Committees change at its end only.
pub const EPOCH_BLOCKS: u64 = 64;
/// Handovers in one answer; who is further behind asks again.
pub const HANDOVERS_MAX: usize = 64;
/// A block carries the root of one of the blocks that are at most this far below it.
pub const EXECUTION_LAG_MAX: u64 = 8;
/// Operations in a block.
pub const BLOCK_OPS_MAX: usize = 4096;
/// Bytes of an encoded block.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Cell ranges asked of one segment in one request.
pub const OPEN_RANGES_MAX: usize = 4096;
/// Cells opened in one answer: 16 MiB of records.
pub const OPEN_CELLS_MAX: u64 = 1 << 16;
/// Bytes of an encoded answer.
pub const ANSWER_BYTES_MAX: usize = 48 << 20;
/// Public inputs of a statement: each costs about 9k gas on chain.
pub const PUBLIC_INPUTS_MAX: usize = 6;
/// Bytes of a proof file.
pub const PROOF_FILE_BYTES_MAX: usize = 1 << 20;
