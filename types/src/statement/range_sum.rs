//! `range_sum`: over every live segment of a projection, `C` is the sum of `P[hi-1] - P[lo-1]` of one lane.

use crate::tree::DigestTag;
use crate::{DatabaseId, DbRoot, FieldBytes, LaneId, ProjectionId};
use borsh::{BorshDeserialize, BorshSerialize};

/// Rows `[lo, hi)` of one live segment; `lo == hi` contributes zero.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Hash,
    Default,
    BorshSerialize,
    BorshDeserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct RowRange {
    /// First row.
    pub lo: u64,
    /// One past the last row, at most the segment's rows.
    pub hi: u64,
}

/// The query: which lane, and which rows of each live segment in catalogue order.
#[derive(Clone, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
pub struct RangeSumQuery {
    /// The database.
    pub db: DatabaseId,
    /// The projection.
    pub projection: ProjectionId,
    /// The sum lane, a position in the lane directory.
    pub lane: LaneId,
    /// One range per live segment.
    pub ranges: Vec<RowRange>,
}

impl RangeSumQuery {
    /// The tag and scalars whose digest is the second public input: `[db, projection, lane, lo + hi * 2^40 ..]`.
    #[must_use]
    pub fn digest_input(&self) -> (DigestTag, Vec<FieldBytes>) {
        let mut list = vec![
            self.db.to_field(),
            FieldBytes::from_u64(u64::from(self.projection.0)),
            FieldBytes::from_u64(u64::from(self.lane.0)),
        ];
        list.extend(self.ranges.iter().map(|r| FieldBytes::from_u128(u128::from(r.lo) | u128::from(r.hi) << 40)));
        (DigestTag::RangeSum, list)
    }
}

/// Public inputs: `[database root, query digest, C]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub struct RangeSum {
    /// The database root at a certified height.
    pub db_root: DbRoot,
    /// `crypto::digest` of [`RangeSumQuery::digest_input`].
    pub query_digest: FieldBytes,
    /// The masked sum.
    pub sum: FieldBytes,
}

impl RangeSum {
    /// The public inputs in circuit order.
    #[must_use]
    pub fn public_inputs(&self) -> [FieldBytes; 3] {
        [self.db_root.to_field(), self.query_digest, self.sum]
    }
}
