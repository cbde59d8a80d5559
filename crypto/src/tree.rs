//! The segment tree: 8-ary over cells, its openings and multi-openings, and the segment root above it.
//!
//! Shape    `segment_levels(cells)` levels; a one-cell segment's tree root is its cell digest. Cells beyond the last are zero cells,
//!          whose subtrees are the constants [`empty`]: neither stored nor hashed.
//! Kept     nodes over 8 cells and up (2 % of the segment); cell digests are recomputed from the cells of a group.
//! Rule     a verifier takes the cell count from the segment root and derives the depth from it, never from a path: otherwise an inner
//!          node's children would open as a "cell" one level up. Cells and nodes read different output words besides.
//! Source   DESIGN section 4; `docs/protocol/tree.md`

use crate::poseidon2::{compress, compress_cell, compress_many};
use crate::{Fr, field};
use fluence_types::limits::SEGMENT_CELLS_MAX;
use fluence_types::tree::{Cell, NodeKind, SegmentPreimage, segment_levels};
use fluence_types::{HeaderHash, SegmentRoot};
use rayon::prelude::*;
use std::sync::LazyLock;

/// Why an opening was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The cell count is not a segment's.
    #[error("a segment has 1..={SEGMENT_CELLS_MAX} cells, not {0}")]
    Cells(u64),
    /// The index is outside the segment.
    #[error("cell {index} is outside a segment of {cells} cells")]
    Index {
        /// Index opened.
        index: u64,
        /// Cells of the segment.
        cells: u64,
    },
    /// The path speaks of another cell.
    #[error("the path is for cell {path}, not {index}")]
    OtherIndex {
        /// The path's.
        path: u64,
        /// Expected.
        index: u64,
    },
    /// Indices are not strictly increasing.
    #[error("cell {0} is out of order or repeated")]
    Order(u64),
    /// Nothing was opened.
    #[error("no cell was opened")]
    Empty,
    /// The path's length is not what the cell count demands.
    #[error("the path has {got} levels, {cells} cells need {need}")]
    Depth {
        /// Levels given.
        got: usize,
        /// Cells of the segment.
        cells: u64,
        /// Levels needed.
        need: usize,
    },
    /// Too few siblings.
    #[error("the opening ends after {0} siblings, more are needed")]
    Short(usize),
    /// Siblings are left over.
    #[error("{0} siblings are left over")]
    Extra(usize),
    /// A subtree beyond the last cell is not the empty one.
    #[error("a subtree beyond the last cell is not empty, at level {0}")]
    NotEmpty(usize),
    /// The recomputed root differs.
    #[error("the cells do not make the root")]
    Root,
}

/// Root of a subtree of height `level` over zero cells.
#[must_use]
pub fn empty(level: usize) -> Fr {
    static EMPTY: LazyLock<[Fr; 24]> = LazyLock::new(|| {
        let mut nodes = [cell_digest(&[Fr::from(0u64); 8]); 24];
        for k in 1..nodes.len() {
            nodes[k] = compress(NodeKind::Node, &[nodes[k - 1]; 8]);
        }
        nodes
    });
    EMPTY[level]
}

/// Digest of a cell.
#[must_use]
pub fn cell_digest(cell: &[Fr; 8]) -> Fr {
    compress(NodeKind::Cell, cell)
}

/// Digests of groups: the nodes over each 8 cells, the missing ones at the end zero. On this thread, best with 64 cells or more.
#[must_use]
pub fn group_digests(cells: &[[Fr; 8]]) -> Vec<Fr> {
    parents(0, &compress_many(NodeKind::Cell, cells))
}

/// The nodes over each 8 of the digests `below` at `level`, those missing at the end being empty. On this thread.
#[must_use]
pub fn parents(level: usize, below: &[Fr]) -> Vec<Fr> {
    let mut groups: Vec<[Fr; 8]> = vec![[empty(level); 8]; below.len().div_ceil(8)];
    groups.as_flattened_mut()[..below.len()].copy_from_slice(below);
    compress_many(NodeKind::Node, &groups)
}

/// Inputs that one thread takes at a time: eight times eight lanes.
const TASK: usize = 64;

/// [`compress_many`] on all threads.
fn compress_all(kind: NodeKind, inputs: &[[Fr; 8]]) -> Vec<Fr> {
    if inputs.len() <= TASK {
        return compress_many(kind, inputs);
    }
    inputs.par_chunks(TASK).map(|part| compress_many(kind, part)).collect::<Vec<_>>().concat()
}

/// Nodes at `level` that are not wholly beyond the last cell.
const fn nodes_at(cells: u64, level: usize) -> u64 {
    let mut n = cells;
    let mut k = 0;
    while k < level {
        n = n.div_ceil(8);
        k += 1;
    }
    n
}

/// The inner nodes of a segment's tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentTree {
    cells: u64,
    /// `nodes[k - 1]` holds the nodes over `8^k` cells; of a tree of no levels, the cell digest.
    nodes: Vec<Vec<Fr>>,
}

impl SegmentTree {
    /// Hashes all cells, in parallel. No cells make the tree of one zero cell, which no segment root accepts.
    #[must_use]
    pub fn build(cells: &[[Fr; 8]]) -> Self {
        if let [] | [_] = cells {
            let root = cells.first().map_or_else(|| empty(0), cell_digest);
            return Self { cells: cells.len() as u64, nodes: vec![vec![root]] };
        }
        let groups: Vec<_> = cells.par_chunks(TASK).map(group_digests).collect();
        Self::from_groups(cells.len() as u64, groups.concat()).expect("one digest per group")
    }

    /// [`Self::build`] from canonical bytes.
    #[must_use]
    pub fn from_bytes_cells(cells: &[Cell]) -> Self {
        if cells.len() < 2 {
            return Self::build(&cells.iter().map(field::cell_to_fr).collect::<Vec<_>>());
        }
        let task = |part: &[Cell]| group_digests(&part.iter().map(field::cell_to_fr).collect::<Vec<_>>());
        let groups: Vec<_> = cells.par_chunks(TASK).map(task).collect();
        Self::from_groups(cells.len() as u64, groups.concat()).expect("one digest per group")
    }

    /// The tree above the groups' digests ([`group_digests`]), for callers that hash cells as they arrive; for a one-cell segment the
    /// one digest is the cell's. `None` if their number does not fit the count.
    #[must_use]
    pub fn from_groups(cells: u64, groups: Vec<Fr>) -> Option<Self> {
        if groups.len() as u64 != nodes_at(cells, 1).max(1) {
            return None;
        }
        let mut nodes = vec![groups];
        for level in 1..segment_levels(cells) {
            let above: Vec<_> = nodes[level - 1].par_chunks(8 * TASK).map(|part| parents(level, part)).collect();
            nodes.push(above.concat());
        }
        Some(Self { cells, nodes })
    }

    /// Takes back what [`Self::nodes`] gave, from one's own disk. Only the lengths are checked; `None` if they do not fit.
    #[must_use]
    pub fn from_levels(cells: u64, levels: Vec<Vec<Fr>>) -> Option<Self> {
        let fits = levels.len() == segment_levels(cells).max(1)
            && levels.iter().enumerate().all(|(k, nodes)| nodes.len() as u64 == nodes_at(cells, k + 1).max(1));
        fits.then_some(Self { cells, nodes: levels })
    }

    /// All that is stored: the levels from 1 up, the root last; of a one-cell segment the list of its cell digest.
    #[must_use]
    pub fn nodes(&self) -> &[Vec<Fr>] {
        &self.nodes
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Fr {
        self.nodes[self.nodes.len() - 1][0]
    }

    /// Cells below it.
    #[must_use]
    pub const fn cells(&self) -> u64 {
        self.cells
    }

    /// Levels above the cells.
    #[must_use]
    pub const fn levels(&self) -> usize {
        segment_levels(self.cells)
    }

    /// The nodes over `8^k` cells, `k` in `1..=levels`.
    ///
    /// # Panics
    /// Where there is no such level.
    #[must_use]
    pub fn level(&self, k: usize) -> &[Fr] {
        assert!((1..=self.levels()).contains(&k), "level {k} of {}", self.levels());
        &self.nodes[k - 1]
    }

    /// The node `index` at `level >= 1`, the empty one beyond the last.
    fn node(&self, level: usize, index: u64) -> Fr {
        usize::try_from(index).ok().and_then(|i| self.nodes[level - 1].get(i)).copied().unwrap_or_else(|| empty(level))
    }
}

/// A cell's way up: siblings bottom up, seven a level in child order with the path's own child left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The cell.
    pub index: u64,
    /// Its siblings.
    pub siblings: Vec<[Fr; 7]>,
}

/// Splits off a child's position: (position in its group, index of the group).
const fn step(index: u64) -> (usize, u64) {
    ((index & 7) as usize, index >> 3)
}

/// Opens one cell. `cell_at` lends the other cells of its group, those below the count only.
///
/// # Errors
/// What `cell_at` returns.
///
/// # Panics
/// If `index` is not below the tree's count: check requests from outside first.
pub fn open<E>(tree: &SegmentTree, index: u64, cell_at: &mut dyn FnMut(u64) -> Result<[Fr; 8], E>) -> Result<Path, E> {
    assert!(index < tree.cells, "cell {index} of {}", tree.cells);
    let first = index - index % 8;
    let beside = (first..tree.cells.min(first + 8)).filter(|i| *i != index);
    let beside = compress_many(NodeKind::Cell, &beside.map(cell_at).collect::<Result<Vec<_>, E>>()?);
    let mut siblings = Vec::with_capacity(tree.levels());
    let mut at = index;
    for level in 0..tree.levels() {
        let (own, parent) = step(at);
        let mut out = [empty(level); 7];
        if level == 0 {
            out[..beside.len()].copy_from_slice(&beside);
        } else {
            for (slot, child) in out.iter_mut().zip((0..8).filter(|c| *c != own)) {
                *slot = tree.node(level, parent * 8 + child as u64);
            }
        }
        siblings.push(out);
        at = parent;
    }
    Ok(Path { index, siblings })
}

/// Checks that `cell` is cell `index` of a segment of `cells` cells under `root`.
///
/// # Errors
/// [`TreeError`] saying what is wrong.
pub fn check_path(root: &Fr, cells: u64, index: u64, cell: &[Fr; 8], path: &Path) -> Result<(), TreeError> {
    check_count(cells)?;
    if index >= cells {
        return Err(TreeError::Index { index, cells });
    }
    if path.index != index {
        return Err(TreeError::OtherIndex { path: path.index, index });
    }
    let need = segment_levels(cells);
    if path.siblings.len() != need {
        return Err(TreeError::Depth { got: path.siblings.len(), cells, need });
    }
    let mut node = cell_digest(cell);
    let mut at = index;
    for (level, siblings) in path.siblings.iter().enumerate() {
        let (own, parent) = step(at);
        let children = insert(siblings, own, node);
        let present = nodes_at(cells, level).saturating_sub(parent * 8).min(8) as usize;
        if children[present..].iter().any(|c| *c != empty(level)) {
            return Err(TreeError::NotEmpty(level));
        }
        node = compress(NodeKind::Node, &children);
        at = parent;
    }
    if node == *root { Ok(()) } else { Err(TreeError::Root) }
}

/// [`check_path`] as a yes or no.
#[must_use]
pub fn verify_path(root: &Fr, cells: u64, index: u64, cell: &[Fr; 8], path: &Path) -> bool {
    check_path(root, cells, index, cell, path).is_ok()
}

/// Eight children from seven siblings and the own child.
#[must_use]
pub fn insert<T: Copy>(siblings: &[T; 7], own: usize, child: T) -> [T; 8] {
    std::array::from_fn(|i| match i.cmp(&own) {
        std::cmp::Ordering::Less => siblings[i],
        std::cmp::Ordering::Equal => child,
        std::cmp::Ordering::Greater => siblings[i - 1],
    })
}

const fn check_count(cells: u64) -> Result<(), TreeError> {
    if cells == 0 || cells > SEGMENT_CELLS_MAX { Err(TreeError::Cells(cells)) } else { Ok(()) }
}

/// Opens several cells at once: the digests a verifier cannot compute, level by level from the bottom, left to right.
///
/// # Errors
/// What `cell_at` returns; it is asked only for cells below the count that are not opened but stand in a group with one that is.
///
/// # Panics
/// If `indices` is empty, not strictly increasing, or reaches the tree's count: check requests from outside first.
pub fn multi_open<E>(
    tree: &SegmentTree,
    indices: &[u64],
    cell_at: &mut dyn FnMut(u64) -> Result<[Fr; 8], E>,
) -> Result<Vec<Fr>, E> {
    assert!(indices.windows(2).all(|w| w[0] < w[1]), "indices increase");
    assert!(indices.last().is_some_and(|i| *i < tree.cells), "indices are below {}", tree.cells);
    let (mut cells, mut siblings) = (Vec::new(), Vec::new());
    let mut known = indices.to_vec();
    for level in 0..tree.levels() {
        let mut parents: Vec<u64> = known.iter().map(|i| i >> 3).collect();
        parents.dedup();
        let present = nodes_at(tree.cells, level);
        let mut rest = known.iter().copied().peekable();
        for parent in &parents {
            for i in parent * 8..(parent * 8 + 8).min(present) {
                match (rest.next_if_eq(&i), level) {
                    (Some(_), _) => {}
                    (None, 0) => cells.push(cell_at(i)?),
                    (None, _) => siblings.push(tree.node(level, i)),
                }
            }
        }
        if level == 0 {
            siblings = compress_all(NodeKind::Cell, &cells);
        }
        known = parents;
    }
    Ok(siblings)
}

/// The root that opened cells and siblings make in a segment of `cells` cells; compare it with the one you trust.
///
/// # Errors
/// [`TreeError`] for indices that are unordered or outside, and for siblings missing or left over.
pub fn multi_root(cells: u64, opened: &[(u64, [Fr; 8])], siblings: &[Fr]) -> Result<Fr, TreeError> {
    check_count(cells)?;
    let last = opened.last().ok_or(TreeError::Empty)?.0;
    if let Some(w) = opened.windows(2).find(|w| w[0].0 >= w[1].0) {
        return Err(TreeError::Order(w[1].0));
    }
    if last >= cells {
        return Err(TreeError::Index { index: last, cells });
    }
    let digests = compress_all(NodeKind::Cell, &opened.iter().map(|(_, cell)| *cell).collect::<Vec<_>>());
    let mut known: Vec<(u64, Fr)> = opened.iter().map(|(i, _)| *i).zip(digests).collect();
    let mut rest = siblings.iter();
    for level in 0..segment_levels(cells) {
        let present = nodes_at(cells, level);
        let (mut parents, mut groups) = (Vec::new(), Vec::new());
        let mut below = known.iter().peekable();
        while let Some(parent) = below.peek().map(|(i, _)| i >> 3) {
            let mut children = [empty(level); 8];
            for (child, i) in children.iter_mut().zip(parent * 8..present) {
                *child = match below.next_if(|(k, _)| *k == i) {
                    Some((_, digest)) => *digest,
                    None => *rest.next().ok_or(TreeError::Short(siblings.len()))?,
                };
            }
            parents.push(parent);
            groups.push(children);
        }
        known = parents.into_iter().zip(compress_all(NodeKind::Node, &groups)).collect();
    }
    match rest.len() {
        0 => Ok(known[0].1),
        left => Err(TreeError::Extra(left)),
    }
}

/// The root of a segment.
#[must_use]
pub fn segment_root(p: &SegmentPreimage) -> SegmentRoot {
    SegmentRoot::from_field(compress_cell(NodeKind::Segment, &p.scalars()))
}

/// BLAKE3 of the header cells, each scalar as 32 big-endian bytes, in order.
#[must_use]
pub fn header_hash(header_cells: &[Cell]) -> HeaderHash {
    let mut hasher = blake3::Hasher::new();
    for scalar in header_cells.iter().flatten() {
        hasher.update(scalar.as_bytes());
    }
    HeaderHash::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests;
