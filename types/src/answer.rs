//! Requests a key holder sends and answers a node gives: cells of live segments, opened to a certified root.
//!
//! Rule    nodes evaluate no predicate: the key holder names cells, the node opens them. An `Answer` is bytes from a stranger until
//!         `verifier::answer::verify` turns it into a `VerifiedAnswer`, the only thing `client::open` accepts.
//! Source  DESIGN sections 3, 6 and 11

use crate::block::Certificate;
use crate::codec::Bounded;
use crate::limits::{CELL_SCALARS, LIVE_SEGMENTS_MAX, OPEN_CELLS_MAX, OPEN_RANGES_MAX, SEGMENT_CELLS_MAX};
use crate::tree::{CatalogueOpening, Cell, SegmentPreimage};
use crate::{DatabaseId, FieldBytes, ProjectionId, SegmentRoot, Version};
use borsh::{BorshDeserialize, BorshSerialize};

const _: () = assert!(CELL_SCALARS == 8);

/// Cells `first..first + count` of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct CellRange {
    /// First cell.
    pub first: u64,
    /// Number of cells, at least 1.
    pub count: u64,
}

impl CellRange {
    /// One past the last cell.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// The cells wanted of one live segment: ranges increasing, not touching (touching ranges are one range).
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SegmentRanges {
    /// The segment.
    pub segment: SegmentRoot,
    /// The ranges; may be empty where the query's key range misses the segment.
    pub ranges: Bounded<CellRange, OPEN_RANGES_MAX>,
}

impl SegmentRanges {
    /// Cells asked for, or `None` where ranges are empty, unordered, touching or beyond the largest segment.
    #[must_use]
    pub fn cells(&self) -> Option<u64> {
        let mut total = 0u64;
        let mut next_min = 0u64;
        for (i, r) in self.ranges.iter().enumerate() {
            let end = r.first.checked_add(r.count).filter(|e| *e <= SEGMENT_CELLS_MAX)?;
            if r.count == 0 || (i > 0 && r.first <= next_min) {
                return None;
            }
            next_min = end;
            total += r.count;
        }
        Some(total)
    }
}

/// A request to open cells of every live segment of a projection.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct OpenRequest {
    /// The database.
    pub db: DatabaseId,
    /// The projection.
    pub projection: ProjectionId,
    /// The version the plan was made for; the node refuses with [`OpenRefusal::Moved`] when it is not current.
    pub version: Version,
    /// One entry per live segment, in catalogue order.
    pub segments: Bounded<SegmentRanges, LIVE_SEGMENTS_MAX>,
}

impl OpenRequest {
    /// Cells asked for in all, or `None` where a range is malformed or the sum is above [`OPEN_CELLS_MAX`].
    #[must_use]
    pub fn cells(&self) -> Option<u64> {
        self.segments.iter().try_fold(0u64, |sum, s| Some(sum + s.cells()?)).filter(|n| *n <= OPEN_CELLS_MAX)
    }
}

/// A certified root opened to one projection.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Snapshot {
    /// The signed checkpoint.
    pub certificate: Certificate,
    /// Its root opened to the projection's entry.
    pub opening: CatalogueOpening,
}

/// The cells asked of one segment, with what a verifier needs to recompute its root.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SegmentOpening {
    /// Parts of the segment root.
    pub preimage: SegmentPreimage,
    /// The cells, in the order of the ranges.
    pub cells: Vec<Cell>,
    /// Digests the verifier cannot compute, in the order of `crypto::tree::MultiOpening`.
    pub siblings: Vec<FieldBytes>,
}

/// A node's answer to an [`OpenRequest`].
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Answer {
    /// The root and the live segments it was answered at.
    pub snapshot: Snapshot,
    /// One opening per live segment, in catalogue order.
    pub segments: Bounded<SegmentOpening, LIVE_SEGMENTS_MAX>,
}

/// A segment's header as a node serves it: checked by recomputing the header hash, and with it the segment root.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct HeaderAnswer {
    /// Parts of the segment root.
    pub preimage: SegmentPreimage,
    /// The header cells.
    pub cells: Vec<Cell>,
}

/// Why a node does not answer; never wrong bytes.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, thiserror::Error)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[non_exhaustive]
pub enum OpenRefusal {
    /// The node does not keep this database.
    #[error("database {0} is not kept here")]
    UnknownDatabase(DatabaseId) = 1,
    /// No such projection.
    #[error("no projection {0}")]
    UnknownProjection(ProjectionId) = 2,
    /// The projection changed since the plan was made; fetch the catalogue and plan again.
    #[error("projection is at version {0}; plan again")]
    Moved(Version) = 3,
    /// No such segment.
    #[error("no segment {0}")]
    UnknownSegment(SegmentRoot) = 4,
    /// Ranges are malformed, outside the segment, or too many.
    #[error("bad request: {0}")]
    BadRequest(String) = 5,
    /// The node lost a page: its checksum does not match.
    #[error("page {page} of segment {segment} is lost: its checksum does not match")]
    Lost {
        /// The segment.
        segment: SegmentRoot,
        /// The page, 64 cells each.
        page: u64,
    } = 6,
    /// Something failed inside the node; its log says what.
    #[error("the node failed: {0}")]
    Internal(String) = 7,
    /// The segment is stored, but its cells are still on their way to this node; another member has them.
    #[error("segment {0} is not here yet: its cells are being fetched from other members")]
    NotHere(SegmentRoot) = 8,
}
