//! What a prover must know, as plain data: made by `engine`, checked natively and in R1CS by `circuits`.

use crate::Fr;
use crate::sum_tree::{SumPath, Weighted};
use fluence_types::statement::RangeSumQuery;
use fluence_types::tree::{CatalogueOpening, DbPreimage, HoldingsPreimage, SegmentPreimage};

/// A cell of a segment and its path, siblings bottom up in child order with the path's own child left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellOpening {
    /// Position in the segment.
    pub index: u64,
    /// The cell.
    pub cell: [Fr; 8],
    /// Seven siblings a level.
    pub siblings: Vec<[Fr; 7]>,
}

/// One sample of a storage proof, from a cell up to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSample {
    /// The cell and its path to the segment's tree root.
    pub cell: CellOpening,
    /// The segment.
    pub segment: SegmentPreimage,
    /// From the segment to the stored root.
    pub stored: SumPath,
    /// The database.
    pub db: DbPreimage,
    /// From the database to the sum root; no levels for a single database.
    pub holdings: SumPath,
}

/// Witness of `storage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageWitness {
    /// Parts of the holdings root; `None` where the root is a database root.
    pub holdings: Option<HoldingsPreimage>,
    /// The nodes of the tree over databases that all samples share, those at the shape's `own_holdings_levels` (the root alone where the tree
    /// does not reach so high).
    pub top: Vec<Weighted>,
    /// One per sample.
    pub samples: Vec<StorageSample>,
}

/// One live segment of a range sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSumSegment {
    /// The segment.
    pub preimage: SegmentPreimage,
    /// Cell `1 + lane`: the lane's directory entry.
    pub directory: CellOpening,
    /// The cell with `P[lo - 1]`; `None` where `lo` is 0 or the run is empty.
    pub lo: Option<CellOpening>,
    /// The cell with `P[hi - 1]`; `None` where the run is empty.
    pub hi: Option<CellOpening>,
}

/// Witness of `range_sum`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSumWitness {
    /// The projection's live segments under the database root.
    pub catalogue: CatalogueOpening,
    /// The query.
    pub query: RangeSumQuery,
    /// One per live segment, in catalogue order.
    pub segments: Vec<RangeSumSegment>,
}
