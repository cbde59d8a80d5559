//! Roots above the segments: catalogue, database, holdings, and the digests that statements name.
//!
//! Catalogue  8-ary, four levels, leaf index = projection id, so a projection has one entry and its absence is a zero leaf.
//! Rule       the depth is fixed, so leaf and inner node may share output word 6: no path is one level shorter or longer.
//! Source     DESIGN section 4; `docs/protocol/tree.md`

use crate::poseidon2::{compress, compress_cell, digest_bytes};
use crate::tree::insert;
use crate::{Fr, field};
use fluence_types::limits::{CATALOGUE_LEVELS, PROJECTIONS_MAX};
use fluence_types::segment::PublicSchema;
use fluence_types::statement::RangeSumQuery;
use fluence_types::tree::{
    CatalogueEntry, CatalogueOpening, CataloguePath, DbPreimage, DigestTag, HoldingsPreimage, NodeKind,
};
use fluence_types::{
    AuxRoot, CatalogueRoot, DbRoot, FieldBytes, HoldingsRoot, ProjectionId, SchemaHash, SegmentRoot, codec, hash_halves,
};
use std::sync::LazyLock;

/// Why a catalogue opening was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// No catalogue has such a leaf.
    #[error("projection {0} is not below {PROJECTIONS_MAX}")]
    Projection(ProjectionId),
    /// The entry is not the leaf at its place.
    #[error("the entry of projection {0} does not open to the catalogue root")]
    Root(ProjectionId),
}

/// Root of a database.
#[must_use]
pub fn db_root(p: &DbPreimage) -> DbRoot {
    DbRoot::from_field(compress_cell(NodeKind::Database, &p.scalars()))
}

/// Root of what a node holds.
#[must_use]
pub fn holdings_root(p: &HoldingsPreimage) -> HoldingsRoot {
    HoldingsRoot::from_field(compress_cell(NodeKind::Holdings, &p.scalars()))
}

/// Digest of the live segments of a projection, in order.
#[must_use]
pub fn live_digest(live: &[SegmentRoot]) -> FieldBytes {
    digest_bytes(DigestTag::Live, &live.iter().map(|r| r.to_field()).collect::<Vec<_>>())
}

/// Root of the replicated state outside the stored tree and the catalogue, from its canonical bytes.
#[must_use]
pub fn aux_root(state: &[u8]) -> AuxRoot {
    let (hi, lo) = hash_halves(blake3::hash(state).as_bytes());
    AuxRoot::from_field(digest_bytes(DigestTag::Aux, &[hi, lo]))
}

/// Digest of a query: the second public input of `range_sum`.
#[must_use]
pub fn query_digest(query: &RangeSumQuery) -> FieldBytes {
    let (tag, list) = query.digest_input();
    digest_bytes(tag, &list)
}

/// BLAKE3 of the canonical public schema.
#[must_use]
pub fn schema_hash(schema: &PublicSchema) -> SchemaHash {
    SchemaHash::from_bytes(*blake3::hash(&codec::encode(schema)).as_bytes())
}

/// Leaf of a projection.
#[must_use]
pub fn catalogue_leaf(entry: &CatalogueEntry) -> Fr {
    field::from_bytes(&compress_cell(NodeKind::Catalogue, &entry.scalars(live_digest(&entry.live))))
}

fn empty(level: usize) -> Fr {
    static EMPTY: LazyLock<[Fr; CATALOGUE_LEVELS + 1]> = LazyLock::new(|| {
        let mut nodes = [Fr::from(0u64); CATALOGUE_LEVELS + 1];
        for k in 1..nodes.len() {
            nodes[k] = compress(NodeKind::Catalogue, &[nodes[k - 1]; 8]);
        }
        nodes
    });
    EMPTY[level]
}

/// The catalogue's tree, updated in place: four hashes an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// `levels[0]` are the leaves so far, `levels[4]` the root.
    levels: [Vec<Fr>; CATALOGUE_LEVELS + 1],
}

impl Default for Catalogue {
    fn default() -> Self {
        let mut levels: [Vec<Fr>; CATALOGUE_LEVELS + 1] = Default::default();
        levels[CATALOGUE_LEVELS].push(empty(CATALOGUE_LEVELS));
        Self { levels }
    }
}

impl Catalogue {
    /// The catalogue with these leaves, by projection id.
    ///
    /// # Panics
    /// With more than [`PROJECTIONS_MAX`] leaves.
    #[must_use]
    pub fn new(leaves: &[Fr]) -> Self {
        let mut catalogue = Self::default();
        for (i, leaf) in leaves.iter().enumerate() {
            catalogue.set(i as u32, *leaf);
        }
        catalogue
    }

    /// Sets a leaf; leaves that were skipped are 0.
    ///
    /// # Panics
    /// If `index` is not below [`PROJECTIONS_MAX`].
    pub fn set(&mut self, index: u32, leaf: Fr) {
        assert!(index < PROJECTIONS_MAX, "projection {index} of {PROJECTIONS_MAX}");
        let (mut at, mut value) = (index as usize, leaf);
        for level in 0..=CATALOGUE_LEVELS {
            let nodes = &mut self.levels[level];
            if nodes.len() <= at {
                nodes.resize(at + 1, empty(level));
            }
            nodes[at] = value;
            at /= 8;
            value = compress(NodeKind::Catalogue, &self.children(level, at));
        }
    }

    fn children(&self, level: usize, parent: usize) -> [Fr; 8] {
        std::array::from_fn(|i| self.levels[level].get(parent * 8 + i).copied().unwrap_or_else(|| empty(level)))
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> CatalogueRoot {
        CatalogueRoot::from_field(field::to_bytes(&self.levels[CATALOGUE_LEVELS][0]))
    }

    /// The path of a leaf, present or not.
    ///
    /// # Panics
    /// If `index` is not below [`PROJECTIONS_MAX`].
    #[must_use]
    pub fn path(&self, index: u32) -> CataloguePath {
        assert!(index < PROJECTIONS_MAX, "projection {index} of {PROJECTIONS_MAX}");
        std::array::from_fn(|level| {
            let at = index as usize >> (3 * level);
            let children = self.children(level, at / 8);
            let mut siblings =
                children.iter().enumerate().filter(|(i, _)| *i != at % 8).map(|(_, c)| field::to_bytes(c));
            std::array::from_fn(|_| siblings.next().expect("seven of eight"))
        })
    }
}

/// The root that `leaf` makes at `index` with `path`.
#[must_use]
pub fn catalogue_root(index: u32, leaf: &Fr, path: &CataloguePath) -> CatalogueRoot {
    let mut node = *leaf;
    for (level, siblings) in path.iter().enumerate() {
        let own = (index >> (3 * level) & 7) as usize;
        let siblings: [Fr; 7] = std::array::from_fn(|i| field::from_bytes(&siblings[i]));
        node = compress(NodeKind::Catalogue, &insert(&siblings, own, node));
    }
    CatalogueRoot::from_field(field::to_bytes(&node))
}

/// Checks that the entry is the projection's leaf, and returns the database root it stands under: compare that with a certified one.
///
/// # Errors
/// [`CatalogueError`] saying what is wrong.
pub fn verify_catalogue(o: &CatalogueOpening) -> Result<DbRoot, CatalogueError> {
    let projection = o.entry.projection;
    if projection.0 >= PROJECTIONS_MAX {
        return Err(CatalogueError::Projection(projection));
    }
    if catalogue_root(projection.0, &catalogue_leaf(&o.entry), &o.path) != o.db.catalogue_root {
        return Err(CatalogueError::Root(projection));
    }
    Ok(db_root(&o.db))
}

#[cfg(test)]
mod tests;
