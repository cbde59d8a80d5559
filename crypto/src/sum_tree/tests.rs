use super::*;
use crate::poseidon2;
use crate::test_vectors::{load, number, numbers, scalar, scalars};
use proptest::prelude::*;

fn leaves(weights: &[u64]) -> Vec<Weighted> {
    let leaf = |(i, w): (usize, &u64)| if *w == 0 { EMPTY } else { (Fr::from(1000 + i as u64), *w) };
    weights.iter().enumerate().map(leaf).collect()
}

#[test]
fn roots_positions_and_paths_match_the_independent_implementation() {
    for v in load("sum_tree") {
        let leaves: Vec<Weighted> = scalars(&v["digests"]).into_iter().zip(numbers(&v["weights"])).collect();
        let tree = SumTree::new(leaves.clone());
        assert_eq!(tree.root(), (scalar(&v["root"]), number(&v["total"])));
        let position = number(&v["position"]);
        if leaves.is_empty() {
            assert_eq!(tree.locate(0), None);
            continue;
        }
        let (slot, offset) = tree.locate(position).unwrap();
        assert_eq!((slot, offset), (number(&v["slot"]), number(&v["offset"])));
        let path = tree.path(slot);
        let children: Vec<Weighted> = scalars(&v["pathDigests"]).into_iter().zip(numbers(&v["pathWeights"])).collect();
        assert_eq!(path.levels.as_flattened(), children);
        let (root, total) = tree.root();
        assert_eq!(verify(&root, total, &leaves[slot as usize], &path), Ok(position - offset));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn updated_tree_is_the_tree_built_anew(
        start in proptest::collection::vec(0u64..50, 0..40),
        sets in proptest::collection::vec((any::<u64>(), 0u64..50), 0..40),
    ) {
        let mut list = leaves(&start);
        let mut tree = SumTree::new(list.clone());
        for (n, (slot, weight)) in sets.into_iter().enumerate() {
            let slot = slot % (list.len() as u64 + 1);
            let leaf = if weight == 0 { EMPTY } else { (Fr::from(n as u64 + 1), weight) };
            tree.set(slot, leaf);
            if slot == list.len() as u64 { list.push(leaf) } else { list[slot as usize] = leaf }
            prop_assert_eq!(&tree, &SumTree::new(list.clone()));
        }
        prop_assert_eq!(tree.root().1, list.iter().map(|l| l.1).sum::<u64>());
    }

    #[test]
    fn every_position_is_in_exactly_its_leaf(weights in proptest::collection::vec(0u64..6, 1..50)) {
        let list = leaves(&weights);
        let tree = SumTree::new(list.clone());
        let (root, total) = tree.root();
        let mut position = 0;
        for (slot, leaf) in list.iter().enumerate().filter(|(_, l)| l.1 > 0) {
            for offset in 0..leaf.1 {
                prop_assert_eq!(tree.locate(position), Some((slot as u64, offset)));
                position += 1;
            }
            prop_assert_eq!(verify(&root, total, leaf, &tree.path(slot as u64)), Ok(position - leaf.1));
        }
        prop_assert_eq!(position, total);
        prop_assert_eq!(tree.locate(total), None);
        prop_assert_eq!(tree.locate(u64::MAX), None);
    }
}

#[test]
fn collected_subtrees_cost_nothing_and_are_zero() {
    let mut weights = [5; 32];
    weights[16..].fill(0);
    let tree = SumTree::new(leaves(&weights));
    assert_eq!(tree.path(3).levels[2][1], EMPTY);
    assert_eq!(SumTree::new(leaves(&[0, 0])).root(), EMPTY);
    assert_eq!(SumTree::default().root(), EMPTY);
    assert!(SumTree::default().is_empty());
    let one = leaves(&[9]);
    assert_eq!(SumTree::new(one.clone()).root(), one[0]);
    assert_eq!(SumTree::new(one).path(0), SumPath::single());
}

#[test]
fn rejects_every_changed_part_of_a_path() {
    let list = leaves(&[3, 0, 7, 1, 4, 4, 9, 2, 6]);
    let tree = SumTree::new(list.clone());
    let (root, total) = tree.root();
    let path = tree.path(6);
    assert_eq!(verify(&root, total, &list[6], &path), Ok(19));
    for level in 0..path.levels.len() {
        for i in 0..4 {
            let mut bad = path.clone();
            bad.levels[level][i].0 += Fr::from(1u64);
            assert!(verify(&root, total, &list[6], &bad).is_err());
            bad = path.clone();
            bad.levels[level][i].1 += 1;
            assert!(verify(&root, total, &list[6], &bad).is_err());
            // Weight moved between neighbours: the sum stays, the positions shift.
            bad = path.clone();
            let next = (i + 1) % 4;
            if bad.levels[level][next].1 > 0 {
                bad.levels[level][i].1 += 1;
                bad.levels[level][next].1 -= 1;
                assert!(verify(&root, total, &list[6], &bad).is_err());
            }
            bad = path.clone();
            bad.levels[level].swap(i, next);
            assert!(path.levels[level][i] == path.levels[level][next] || verify(&root, total, &list[6], &bad).is_err());
        }
    }
    for slot in (0..64).filter(|s| *s != 6) {
        assert!(verify(&root, total, &list[6], &SumPath { slot, ..path.clone() }).is_err(), "{slot}");
    }
    assert_eq!(verify(&root, total + 1, &list[6], &path), Err(SumError::Root));
    assert_eq!(verify(&(root + Fr::from(1u64)), total, &list[6], &path), Err(SumError::Root));
    assert_eq!(verify(&root, total, &(list[6].0, 8), &path), Err(SumError::Child(0)));
}

/// Weights that wrap in 64 bits would make the total small again and put every sample on the liar's leaf.
#[test]
fn rejects_weights_that_wrap_or_reach_two_to_the_forty() {
    let forge = |weights: [u64; 4]| {
        let children: [Weighted; 4] = std::array::from_fn(|i| (Fr::from(i as u64 + 1), weights[i]));
        let total = weights.iter().fold(0u64, |sum, w| sum.wrapping_add(*w));
        let path = SumPath { slot: 1, levels: vec![children] };
        verify(&digest(&children), total, &children[1], &path)
    };
    assert_eq!(forge([1, 2, 3, 4]), Ok(1));
    assert_eq!(forge([u64::MAX, 2, 3, 4]), Err(SumError::Weight(0)));
    assert_eq!(forge([1 << 40, 2, 3, 4]), Err(SumError::Weight(0)));
    assert_eq!(forge([1, 1 << 40, 3, 4]), Err(SumError::Weight(0)));
    assert_eq!(forge([(1 << 40) - 1, 1, 0, 0]), Err(SumError::NotEmpty(0)));
    assert_eq!(forge([(1 << 40) - 1, 1, 1, 1]), Err(SumError::Weight(1)));
    assert_eq!(forge([(1 << 40) - 4, 1, 1, 1]), Ok((1 << 40) - 4));
}

#[test]
fn rejects_empty_leaves_and_paths_that_are_too_long() {
    let list = leaves(&[3, 0, 7]);
    let tree = SumTree::new(list);
    let (root, total) = tree.root();
    assert_eq!(verify(&root, total, &EMPTY, &tree.path(1)), Err(SumError::NoWeight));
    let deep = SumPath { slot: 0, levels: vec![[EMPTY; 4]; STORED_LEVELS_MAX + 1] };
    assert!(matches!(verify(&root, total, &(root, total), &deep), Err(SumError::Depth { .. })));
    let beyond = SumPath { slot: 4, levels: tree.path(0).levels };
    assert_eq!(verify(&root, total, &tree.leaves()[0], &beyond), Err(SumError::Depth { slot: 4, levels: 1 }));
    assert!(verify(&root, total, &tree.leaves()[0], &SumPath { slot: u64::MAX, levels: vec![] }).is_err());
}

/// An inner node opens as a "leaf" one level up; what it is then is a sum node, and no segment root equals one.
#[test]
fn an_inner_node_presented_as_a_leaf_is_no_segment_root() {
    let tree = SumTree::new(leaves(&[3, 1, 7, 2, 5]));
    let (root, total) = tree.root();
    let path = tree.path(0);
    let inner = path.levels[1][0];
    let short = SumPath { slot: 0, levels: path.levels[1..].to_vec() };
    assert_eq!(verify(&root, total, &inner, &short), Ok(0));
    let children: [Fr; 8] = std::array::from_fn(|i| {
        let (digest, weight) = path.levels[0][i / 2];
        if i % 2 == 0 { digest } else { Fr::from(weight) }
    });
    for kind in NodeKind::ALL {
        assert_eq!(poseidon2::compress(kind, &children) == inner.0, kind == NodeKind::Sum, "{kind:?}");
    }
}
