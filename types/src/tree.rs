//! What the trees agree on: the output word of each kind of node, versions, digest tags, and how levels follow from counts.
//!
//! Rule    every kind of node is one permutation of eight scalars with feed-forward, and reads its own output word, so no value
//!         of one kind passes for another. Depth is never taken from a prover: it follows from the bound count.
//! Source  DESIGN section 4; `docs/protocol/tree.md`.

use crate::{
    AuxRoot, CatalogueRoot, DatabaseId, FieldBytes, HeaderHash, ProjectionId, SchemaHash, SegmentRoot, StoredRoot,
    TableId, Version, hash_halves, limits,
};
use borsh::{BorshDeserialize, BorshSerialize};

/// Eight scalars: the input of one permutation, the unit of storage proofs and openings.
pub type Cell = [FieldBytes; limits::CELL_SCALARS];

/// Version of every tree format; part of segment, database and holdings roots.
pub const TREE_VERSION: u64 = 1;

/// The kind of a node: its value is the output word that its digest is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum NodeKind {
    /// Inner node of a segment tree: eight child digests.
    Node = 0,
    /// A cell: eight scalars of data.
    Cell = 1,
    /// Sum node: four pairs (digest, cells).
    Sum = 2,
    /// Segment root.
    Segment = 3,
    /// Database root.
    Database = 4,
    /// Digest of a list, see [`DigestTag`].
    Digest = 5,
    /// Leaf and inner node of the catalogue (its depth is fixed, so the two cannot be confused).
    Catalogue = 6,
    /// Holdings root.
    Holdings = 7,
}

impl NodeKind {
    /// All kinds, in the order of their words.
    pub const ALL: [Self; 8] = [
        Self::Node,
        Self::Cell,
        Self::Sum,
        Self::Segment,
        Self::Database,
        Self::Digest,
        Self::Catalogue,
        Self::Holdings,
    ];
    /// The output word.
    #[must_use]
    pub const fn word(self) -> usize {
        self as usize
    }
}

/// First scalar of a digest chain: `tag * 2^64 + length`. Chain: `acc = compress_5([acc, x1..x7])`, the last chunk padded with 0;
/// an empty list still costs one compression.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u64)]
pub enum DigestTag {
    /// The live segments of a projection.
    Live = 1,
    /// A range query.
    RangeSum = 2,
    /// A storage challenge: [seed, sample index].
    Challenge = 3,
    /// Replicated state that is neither stored nor in the catalogue.
    Aux = 4,
    /// Bytes handed over for a `rows` statement.
    Rows = 5,
}

impl DigestTag {
    /// The first accumulator for a list of `len` scalars.
    #[must_use]
    pub const fn start(self, len: u64) -> FieldBytes {
        FieldBytes::from_u128(((self as u128) << 64) | len as u128)
    }
}

/// Levels of the smallest 8-ary tree over `cells` cells: 0 for one cell (or none).
#[must_use]
pub const fn segment_levels(cells: u64) -> usize {
    levels(cells, 3)
}

/// Levels of the smallest 4-ary tree over `leaves` leaves: 0 for one leaf (or none).
#[must_use]
pub const fn sum_levels(leaves: u64) -> usize {
    levels(leaves, 2)
}

const fn levels(count: u64, bits: u32) -> usize {
    let mut rest = count.saturating_sub(1);
    let mut levels = 0;
    while rest != 0 {
        rest >>= bits;
        levels += 1;
    }
    levels
}

/// What a segment root binds.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize,
)]
pub struct SegmentPreimage {
    /// Root of the 8-ary tree over the cells.
    pub tree_root: FieldBytes,
    /// Number of cells.
    pub cells: u64,
    /// BLAKE3 of the header cells.
    pub header_hash: HeaderHash,
}

impl SegmentPreimage {
    /// Input of the compression to [`NodeKind::Segment`].
    #[must_use]
    pub fn scalars(&self) -> Cell {
        let (hi, lo) = hash_halves(self.header_hash.as_bytes());
        let z = FieldBytes::ZERO;
        [self.tree_root, FieldBytes::from_u64(self.cells), hi, lo, FieldBytes::from_u64(TREE_VERSION), z, z, z]
    }
}

/// What a database root binds.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize,
)]
pub struct DbPreimage {
    /// The database.
    pub db: DatabaseId,
    /// Root of the stored segments.
    pub stored_root: StoredRoot,
    /// Cells of all stored segments together.
    pub stored_cells: u64,
    /// Root of the catalogue.
    pub catalogue_root: CatalogueRoot,
    /// Root of everything else.
    pub aux_root: AuxRoot,
}

impl DbPreimage {
    /// Input of the compression to [`NodeKind::Database`].
    #[must_use]
    pub fn scalars(&self) -> Cell {
        let z = FieldBytes::ZERO;
        [
            FieldBytes::from_u64(TREE_VERSION),
            self.db.to_field(),
            self.stored_root.to_field(),
            FieldBytes::from_u64(self.stored_cells),
            self.catalogue_root.to_field(),
            self.aux_root.to_field(),
            z,
            z,
        ]
    }
}

/// What a holdings root binds: the sum tree over `databases` pairs (database root, stored cells) in id order.
/// With one database the sum root is its database root.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize,
)]
pub struct HoldingsPreimage {
    /// Number of databases, at least 1.
    pub databases: u64,
    /// Root of the sum tree.
    pub sum_root: FieldBytes,
    /// Cells of all of them together.
    pub total_cells: u64,
}

impl HoldingsPreimage {
    /// Input of the compression to [`NodeKind::Holdings`].
    #[must_use]
    pub fn scalars(&self) -> Cell {
        let z = FieldBytes::ZERO;
        [
            FieldBytes::from_u64(TREE_VERSION),
            FieldBytes::from_u64(self.databases),
            self.sum_root,
            FieldBytes::from_u64(self.total_cells),
            z,
            z,
            z,
            z,
        ]
    }
}

/// A projection's entry in the catalogue. Its leaf index is the projection id, so one projection has one entry.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CatalogueEntry {
    /// The projection, and the index of the leaf.
    pub projection: ProjectionId,
    /// The table it is a sorted copy of.
    pub table: TableId,
    /// Incremented by each commit that touches the projection.
    pub version: Version,
    /// BLAKE3 of the canonical [`crate::segment::PublicSchema`].
    pub schema: SchemaHash,
    /// The live segments, in order of arrival; none is left out and none is superseded.
    pub live: crate::codec::Bounded<SegmentRoot, { limits::LIVE_SEGMENTS_MAX }>,
}

impl CatalogueEntry {
    /// Input of the compression to [`NodeKind::Catalogue`], given the digest ([`DigestTag::Live`]) of `live`.
    #[must_use]
    pub fn scalars(&self, live_digest: FieldBytes) -> Cell {
        let (hi, lo) = hash_halves(self.schema.as_bytes());
        [
            FieldBytes::from_u64(u64::from(self.projection.0)),
            FieldBytes::from_u64(self.version.0),
            hi,
            lo,
            FieldBytes::from_u64(self.live.len() as u64),
            live_digest,
            FieldBytes::from_u64(u64::from(self.table.0)),
            FieldBytes::ZERO,
        ]
    }
}

/// Siblings of a catalogue leaf, bottom up, seven a level in child order with the path's own child left out.
pub type CataloguePath = [[FieldBytes; 7]; limits::CATALOGUE_LEVELS];

/// A database root opened to one projection: everything a verifier needs to know which segments are live.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CatalogueOpening {
    /// The database root's parts.
    pub db: DbPreimage,
    /// The entry.
    pub entry: CatalogueEntry,
    /// Its path to `db.catalogue_root`.
    pub path: CataloguePath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_the_smallest_that_hold_the_count() {
        for (cells, want) in [(0, 0), (1, 0), (2, 1), (8, 1), (9, 2), (64, 2), (65, 3), (limits::SEGMENT_CELLS_MAX, 7)]
        {
            assert_eq!(segment_levels(cells), want, "{cells}");
        }
        for (leaves, want) in [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (16, 2), (17, 3)] {
            assert_eq!(sum_levels(leaves), want, "{leaves}");
        }
    }
}
