//! The GGM tree of a lane: one key per row group, any range of them handed over as O(log n) inner keys.
//!
//! Step     `left || right = BLAKE3(keyed by the node, tag)` cut to 64 bytes; depth 20, the leaf `group` read from its top bit down
//! Rule     a node gives the keys below it and none beside or above it. A leaf key seals one block, once (see [`crate::aead`]).
//! Source   Goldreich, Goldwasser, Micali, "How to construct random functions", 1986; as constrained PRF: Kiayias et al. 2013

use crate::domain;
use crate::secret::Secret;
use std::ops::Range;
use zeroize::Zeroize;

/// Levels below the root.
pub const DEPTH: u32 = 20;
/// Groups a tree has room for; the largest segment has 2^16.
pub const GROUPS_MAX: u32 = 1 << DEPTH;

/// A node of the tree with its key: all group keys of `groups()` follow from it.
pub struct GroupKeys {
    /// Levels above the leaves.
    height: u32,
    /// Position among the nodes of its height.
    index: u32,
    key: Secret<32>,
}

fn children(key: &Secret<32>) -> (Secret<32>, Secret<32>) {
    let mut out = [0; 64];
    key.expose(|k| {
        let mut hasher = blake3::Hasher::new_keyed(k);
        hasher.update(domain::GGM.as_bytes());
        hasher.finalize_xof().fill(&mut out);
        hasher.zeroize();
    });
    let half = |from: &[u8]| Secret::fill(|to| to.copy_from_slice(from));
    let pair = (half(&out[..32]), half(&out[32..]));
    out.zeroize();
    pair
}

impl GroupKeys {
    /// The tree below a root key.
    #[must_use]
    pub const fn from_root(key: Secret<32>) -> Self {
        Self { height: DEPTH, index: 0, key }
    }

    /// A node as it was granted; `None` where there is no such node.
    #[must_use]
    pub fn from_parts(height: u32, index: u32, key: Secret<32>) -> Option<Self> {
        (height <= DEPTH && index < 1 << (DEPTH - height)).then_some(Self { height, index, key })
    }

    /// Levels above the leaves, and position among the nodes there.
    #[must_use]
    pub const fn place(&self) -> (u32, u32) {
        (self.height, self.index)
    }

    /// The groups whose keys follow from this node.
    #[must_use]
    pub const fn groups(&self) -> Range<u32> {
        self.index << self.height..(self.index + 1) << self.height
    }

    /// Lends the node's key, to put it in a grant.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.key.expose(f)
    }

    /// The key of a group; `None` if it is not below this node.
    #[must_use]
    pub fn leaf(&self, group: u32) -> Option<Secret<32>> {
        let mut key = None;
        self.for_each(group..group.checked_add(1)?, &mut |_, k| key = Some(k)).then_some(())?;
        key
    }

    /// Derives the keys of a range in order, about two hashes each; `false`, and nothing done, if it is not below this node.
    pub fn for_each(&self, range: Range<u32>, f: &mut dyn FnMut(u32, Secret<32>)) -> bool {
        let own = self.groups();
        if range.start < own.start || range.end > own.end {
            return false;
        }
        walk(self.height, self.index, &self.key, &range, &mut |node| {
            // A whole subtree arrives as one node; its leaves are still to be made.
            leaves(node.height, node.index, node.key, f);
        });
        true
    }

    /// The fewest nodes that give exactly the keys of a range; `None` if it is not below this node.
    #[must_use]
    pub fn grant(&self, range: Range<u32>) -> Option<Vec<Self>> {
        let own = self.groups();
        if range.start < own.start || range.end > own.end {
            return None;
        }
        let mut nodes = Vec::new();
        walk(self.height, self.index, &self.key, &range, &mut |node| nodes.push(node));
        Some(nodes)
    }
}

/// Visits, left to right, the largest nodes that lie wholly in `range`.
fn walk(height: u32, index: u32, key: &Secret<32>, range: &Range<u32>, visit: &mut dyn FnMut(GroupKeys)) {
    let (first, end) = (index << height, (index + 1) << height);
    if end <= range.start || first >= range.end {
        return;
    }
    if range.start <= first && end <= range.end {
        visit(GroupKeys { height, index, key: key.expose(|k| Secret::new(*k)) });
        return;
    }
    let (left, right) = children(key);
    walk(height - 1, index * 2, &left, range, visit);
    walk(height - 1, index * 2 + 1, &right, range, visit);
}

fn leaves(height: u32, index: u32, key: Secret<32>, f: &mut dyn FnMut(u32, Secret<32>)) {
    if height == 0 {
        return f(index, key);
    }
    let (left, right) = children(&key);
    leaves(height - 1, index * 2, left, f);
    leaves(height - 1, index * 2 + 1, right, f);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree() -> GroupKeys {
        GroupKeys::from_root(Secret::new([7; 32]))
    }

    fn bytes(key: &Secret<32>) -> [u8; 32] {
        key.expose(|k| *k)
    }

    #[test]
    fn leaves_in_bulk_are_the_leaves_one_by_one_and_all_differ() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(tree().for_each(1000..1300, &mut |group, key| {
            assert_eq!(bytes(&key), bytes(&tree().leaf(group).unwrap()));
            assert!(seen.insert(bytes(&key)));
        }));
        assert_eq!(seen.len(), 300);
        assert!(tree().leaf(GROUPS_MAX).is_none());
        assert!(tree().leaf(u32::MAX).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn grant_opens_its_range_and_nothing_else(start in 0..GROUPS_MAX, len in 1u32..5000) {
            let end = (start + len).min(GROUPS_MAX);
            let nodes = tree().grant(start..end).unwrap();
            prop_assert!(nodes.len() <= 2 * DEPTH as usize);
            let mut next = start;
            for node in &nodes {
                prop_assert_eq!(node.groups().start, next);
                next = node.groups().end;
            }
            prop_assert_eq!(next, end);
            for group in [start, (start + end) / 2, end - 1] {
                let holder = nodes.iter().find(|n| n.groups().contains(&group)).unwrap();
                prop_assert_eq!(bytes(&holder.leaf(group).unwrap()), bytes(&tree().leaf(group).unwrap()));
            }
            for outside in [start.checked_sub(1), Some(end)].into_iter().flatten() {
                prop_assert!(nodes.iter().all(|n| n.leaf(outside).is_none()));
            }
        }
    }

    #[test]
    fn granted_node_is_rebuilt_from_its_parts_and_bad_places_are_refused() {
        let node = tree().grant(8..16).unwrap().pop().unwrap();
        assert_eq!(node.place(), (3, 1));
        let again = GroupKeys::from_parts(3, 1, Secret::new(node.expose(|k| *k))).unwrap();
        assert_eq!(bytes(&again.leaf(12).unwrap()), bytes(&tree().leaf(12).unwrap()));
        assert!(GroupKeys::from_parts(21, 0, Secret::new([0; 32])).is_none());
        assert!(GroupKeys::from_parts(20, 1, Secret::new([0; 32])).is_none());
        assert!(tree().grant(0..GROUPS_MAX + 1).is_none());
        assert!(again.grant(7..9).is_none());
        assert_eq!(tree().grant(5..5).unwrap().len(), 0);
    }
}
