//! The 4-ary sum tree: leaves (digest, weight) where each node knows the weight below it, so that a position finds its leaf.
//!
//! Node     `compress(Sum, [d0, w0, d1, w1, d2, w2, d3, w3])`, weight `w0 + .. + w3`; a node whose children are all (0, 0) is (0, 0)
//!          itself and costs no hash. `sum_levels(leaves)` levels; one leaf is its own root; no leaves make (0, 0).
//! Stored   leaf slots by arrival; a slot whose segment was collected becomes (0, 0) and is used again, the lowest first.
//! Holdings the same tree over a node's databases, in id order.
//! Rule     every weight and every sum is below 2^40, so nothing wraps in 64 bits or in the field: a wrapped weight would let a node
//!          shift every sample onto cells it kept. A leaf's weight is at least 1, so no sample lands on an empty slot.
//! Source   DESIGN section 4; `docs/protocol/tree.md`

use crate::Fr;
use crate::poseidon2::{compress, compress_many};
use ark_ff::{AdditiveGroup, Zero};
use fluence_types::limits::{COUNT_BITS, STORED_LEVELS_MAX};
use fluence_types::tree::{NodeKind, sum_levels};

/// A digest and the weight below it; (0, 0) is an empty slot.
pub type Weighted = (Fr, u64);

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SumError {
    /// More levels than any tree of ours has, or a slot that does not fit them.
    #[error("slot {slot} in {levels} levels; at most {STORED_LEVELS_MAX} levels of four")]
    Depth {
        /// The path's slot.
        slot: u64,
        /// Its levels.
        levels: usize,
    },
    /// A weight, or a sum of four, is 2^40 or more.
    #[error("weight at level {0} is not below 2^{COUNT_BITS}")]
    Weight(usize),
    /// An empty slot is presented as a leaf.
    #[error("the leaf's weight is zero")]
    NoWeight,
    /// A child has a digest without weight.
    #[error("an empty slot at level {0} is not zero")]
    NotEmpty(usize),
    /// A level does not contain the node below it.
    #[error("level {0} does not contain the node below it")]
    Child(usize),
    /// The recomputed root or total differs.
    #[error("the path does not lead to the root and total")]
    Root,
}

/// A sum tree that is updated in place; an update costs one hash a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumTree {
    /// `levels[0]` are the leaves, the last is the root alone (or nothing, of no leaves).
    levels: Vec<Vec<Weighted>>,
}

impl Default for SumTree {
    fn default() -> Self {
        Self { levels: vec![Vec::new()] }
    }
}

/// A leaf's way up: at each level, bottom up, all four children of the parent, the own one among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumPath {
    /// The leaf's slot; its base-4 digits are the positions of the own child.
    pub slot: u64,
    /// The children.
    pub levels: Vec<[Weighted; 4]>,
}

const EMPTY: Weighted = (<Fr as AdditiveGroup>::ZERO, 0);

fn node(children: &[Weighted; 4]) -> Weighted {
    if children.iter().all(|c| *c == EMPTY) {
        return EMPTY;
    }
    (digest(children), weight(children))
}

fn weight(children: &[Weighted; 4]) -> u64 {
    let weight = children.iter().try_fold(0u64, |sum, c| sum.checked_add(c.1));
    weight.expect("weights count cells that are stored here")
}

fn digest(children: &[Weighted; 4]) -> Fr {
    compress(NodeKind::Sum, &input(children))
}

fn input(children: &[Weighted; 4]) -> [Fr; 8] {
    let mut input = [Fr::zero(); 8];
    for (pair, (digest, weight)) in input.chunks_exact_mut(2).zip(children) {
        pair[0] = *digest;
        pair[1] = Fr::from(*weight);
    }
    input
}

/// The nodes over each four of `below`.
fn above(below: &[Weighted]) -> Vec<Weighted> {
    let groups: Vec<_> = (0..below.len().div_ceil(4)).map(|p| four(below, p)).collect();
    let full = groups.iter().filter(|group| **group != [EMPTY; 4]);
    let mut digests = compress_many(NodeKind::Sum, &full.map(input).collect::<Vec<_>>()).into_iter();
    let mut node = |group: &[Weighted; 4]| (digests.next().expect("one a full group"), weight(group));
    groups.iter().map(|group| if *group == [EMPTY; 4] { EMPTY } else { node(group) }).collect()
}

fn four(below: &[Weighted], parent: usize) -> [Weighted; 4] {
    std::array::from_fn(|i| below.get(parent * 4 + i).copied().unwrap_or(EMPTY))
}

impl SumTree {
    /// The tree over `leaves`; empty slots are (0, 0).
    #[must_use]
    pub fn new(leaves: Vec<Weighted>) -> Self {
        let mut levels = vec![leaves];
        for k in 0..sum_levels(levels[0].len() as u64) {
            levels.push(above(&levels[k]));
        }
        Self { levels }
    }

    /// Replaces the leaf at `slot`, or appends one where `slot` is the number of leaves.
    ///
    /// # Panics
    /// If `slot` is beyond that.
    pub fn set(&mut self, slot: u64, leaf: Weighted) {
        let mut at = usize::try_from(slot).expect("slots are few");
        let leaves = &mut self.levels[0];
        assert!(at <= leaves.len(), "slot {slot} of {}", leaves.len());
        if at == leaves.len() {
            leaves.push(leaf);
        } else {
            leaves[at] = leaf;
        }
        for k in 0..sum_levels(self.levels[0].len() as u64) {
            if self.levels.len() == k + 1 {
                self.levels.push(Vec::new());
            }
            at /= 4;
            let value = node(&four(&self.levels[k], at));
            match self.levels[k + 1].get_mut(at) {
                Some(slot) => *slot = value,
                None => self.levels[k + 1].push(value),
            }
        }
    }

    /// Appends a leaf and returns its slot.
    pub fn push(&mut self, leaf: Weighted) -> u64 {
        let slot = self.len();
        self.set(slot, leaf);
        slot
    }

    /// Number of slots, empty ones included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.levels[0].len() as u64
    }

    /// Whether there is no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels[0].is_empty()
    }

    /// Root digest and total weight.
    #[must_use]
    pub fn root(&self) -> Weighted {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or(EMPTY)
    }

    /// The leaves by slot.
    #[must_use]
    pub fn leaves(&self) -> &[Weighted] {
        &self.levels[0]
    }

    /// The nodes at `level`, 0 being the leaves; the root alone at levels above its own.
    #[must_use]
    pub fn level(&self, level: usize) -> &[Weighted] {
        &self.levels[level.min(self.levels.len() - 1)]
    }

    /// The path of a slot.
    ///
    /// # Panics
    /// If there is no such slot.
    #[must_use]
    pub fn path(&self, slot: u64) -> SumPath {
        assert!(slot < self.len(), "slot {slot} of {}", self.len());
        let mut at = slot as usize;
        let top = self.levels.len() - 1;
        let levels = self.levels[..top].iter().map(|below| {
            at /= 4;
            four(below, at)
        });
        SumPath { slot, levels: levels.collect() }
    }

    /// The leaf that holds `position`, counting weight from the left: its slot and the offset inside it. `None` at or beyond the total.
    #[must_use]
    pub fn locate(&self, position: u64) -> Option<(u64, u64)> {
        if position >= self.root().1 {
            return None;
        }
        let (mut at, mut rest) = (0usize, position);
        for below in self.levels[..self.levels.len() - 1].iter().rev() {
            at *= 4;
            while rest >= below[at].1 {
                rest -= below[at].1;
                at += 1;
            }
        }
        Some((at as u64, rest))
    }
}

impl SumPath {
    /// The path of the only leaf.
    #[must_use]
    pub const fn single() -> Self {
        Self { slot: 0, levels: Vec::new() }
    }
}

/// Checks that `leaf` is under `root` with `total`, and returns the weight to its left: the position of its first unit.
///
/// What the leaf's digest stands for is the caller's to check: recompute it as a segment or database root, which reads another
/// output word than a sum node does, so that no inner node passes for a leaf whatever the path's length.
///
/// # Errors
/// [`SumError`] saying what is wrong.
pub fn verify(root: &Fr, total: u64, leaf: &Weighted, path: &SumPath) -> Result<u64, SumError> {
    let levels = path.levels.len();
    if levels > STORED_LEVELS_MAX || path.slot >> (2 * levels) != 0 {
        return Err(SumError::Depth { slot: path.slot, levels });
    }
    let limit = 1u64 << COUNT_BITS;
    if leaf.1 == 0 {
        return Err(SumError::NoWeight);
    }
    if leaf.1 >= limit {
        return Err(SumError::Weight(0));
    }
    let (mut own, mut offset) = (*leaf, 0);
    for (k, children) in path.levels.iter().enumerate() {
        let position = (path.slot >> (2 * k) & 3) as usize;
        if children.iter().any(|c| c.1 >= limit) {
            return Err(SumError::Weight(k));
        }
        if children.iter().any(|c| c.1 == 0 && !c.0.is_zero()) {
            return Err(SumError::NotEmpty(k));
        }
        if children[position] != own {
            return Err(SumError::Child(k));
        }
        let weight = children.iter().map(|c| c.1).sum();
        if weight >= limit {
            return Err(SumError::Weight(k + 1));
        }
        offset += children[..position].iter().map(|c| c.1).sum::<u64>();
        own = (digest(children), weight);
    }
    if own == (*root, total) { Ok(offset) } else { Err(SumError::Root) }
}

#[cfg(test)]
mod tests;
