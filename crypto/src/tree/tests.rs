use super::*;
use crate::poseidon2;
use crate::test_vectors::{cells, load, number, numbers, parsed, scalar, scalars};
use ark_ff::Zero;
use proptest::prelude::*;
use std::convert::Infallible;

type Lend<'a> = Box<dyn FnMut(u64) -> Result<[Fr; 8], Infallible> + 'a>;

fn lend(cells: &[[Fr; 8]]) -> Lend<'_> {
    Box::new(|i| Ok(cells[i as usize]))
}

fn opened(cells: &[[Fr; 8]], index: u64) -> (SegmentTree, Path) {
    let tree = SegmentTree::build(cells);
    let Ok(path) = open(&tree, index, &mut lend(cells));
    (tree, path)
}

#[test]
fn roots_paths_and_multi_openings_match_the_independent_implementation() {
    for v in load("tree") {
        let count = number(&v["cells"]);
        let cells = cells(count);
        let index = number(&v["index"]);
        let (tree, path) = opened(&cells, index);
        assert_eq!(tree.root(), scalar(&v["root"]));
        assert_eq!(cells[index as usize].to_vec(), scalars(&v["cell"]));
        assert_eq!(path.siblings.as_flattened(), scalars(&v["path"]));
        let indices = numbers(&v["indices"]);
        let Ok(siblings) = multi_open(&tree, &indices, &mut lend(&cells));
        assert_eq!(siblings, scalars(&v["siblings"]));
        let preimage = SegmentPreimage {
            tree_root: field::to_bytes(&tree.root()),
            cells: count,
            header_hash: parsed(&v["headerHash"]),
        };
        assert_eq!(segment_root(&preimage), parsed(&v["segmentRoot"]));
    }
}

#[test]
fn trees_from_bytes_groups_and_levels_are_the_same_tree() {
    for count in [0, 1, 2, 8, 9, 64, 65, 600] {
        let cells = cells(count);
        let tree = SegmentTree::build(&cells);
        let bytes: Vec<Cell> = cells.iter().map(field::cell_from_fr).collect();
        assert_eq!(SegmentTree::from_bytes_cells(&bytes), tree);
        assert_eq!(SegmentTree::from_levels(count, tree.nodes().to_vec()).as_ref(), Some(&tree));
        assert_eq!(SegmentTree::from_levels(count + 600, tree.nodes().to_vec()), None);
        assert_eq!(SegmentTree::from_levels(count, vec![]), None);
        if count > 1 {
            let groups = group_digests(&cells);
            assert_eq!(SegmentTree::from_groups(count, groups.clone()).as_ref(), Some(&tree));
            assert_eq!(SegmentTree::from_groups(count, groups[1..].to_vec()), None);
            assert_eq!(tree.level(1), groups);
        }
    }
}

#[test]
fn zero_cells_beyond_the_last_do_not_change_the_tree_root_but_the_count_does_the_segment_root() {
    let mut padded = cells(9);
    let short = SegmentTree::build(&padded).root();
    padded.push([Fr::zero(); 8]);
    let long = SegmentTree::build(&padded).root();
    assert_eq!(short, long);
    let root = |cells| {
        let header_hash = HeaderHash::default();
        segment_root(&SegmentPreimage { tree_root: field::to_bytes(&short), cells, header_hash })
    };
    assert_ne!(root(9), root(10));
}

#[test]
fn rejects_every_changed_part_of_a_path() {
    let cells = cells(70);
    let (tree, path) = opened(&cells, 65);
    let root = tree.root();
    let check = |cell: &[Fr; 8], path: &Path| check_path(&root, 70, 65, cell, path);
    assert_eq!(check(&cells[65], &path), Ok(()));
    for j in 0..8 {
        let mut cell = cells[65];
        cell[j] += Fr::from(1u64);
        assert_eq!(check(&cell, &path), Err(TreeError::Root));
    }
    for level in 0..path.siblings.len() {
        for i in 0..7 {
            let mut bad = path.clone();
            bad.siblings[level][i] += Fr::from(1u64);
            assert!(check(&cells[65], &bad).is_err(), "{level} {i}");
            if i > 0 && path.siblings[level][i] != path.siblings[level][i - 1] {
                let mut swapped = path.clone();
                swapped.siblings[level].swap(i, i - 1);
                assert!(check(&cells[65], &swapped).is_err(), "{level} {i}");
            }
        }
    }
    assert_eq!(check_path(&root, 70, 64, &cells[65], &path), Err(TreeError::OtherIndex { path: 65, index: 64 }));
    let elsewhere = Path { index: 64, ..path.clone() };
    assert_eq!(check_path(&root, 70, 64, &cells[65], &elsewhere), Err(TreeError::Root));
    assert!(!verify_path(&(root + Fr::from(1u64)), 70, 65, &cells[65], &path));
}

#[test]
fn rejects_an_index_outside_and_counts_that_no_segment_has() {
    let cells = cells(9);
    let (tree, path) = opened(&cells, 8);
    let check = |count, index| check_path(&tree.root(), count, index, &cells[8], &Path { index, ..path.clone() });
    assert_eq!(check(9, 8), Ok(()));
    assert_eq!(check(9, 9), Err(TreeError::Index { index: 9, cells: 9 }));
    assert_eq!(check(9, u64::MAX), Err(TreeError::Index { index: u64::MAX, cells: 9 }));
    // 2^64 - 1, and 9 wrapped around the field, are no counts.
    for count in [0, SEGMENT_CELLS_MAX + 1, u64::MAX, 9 | 1 << 40] {
        assert_eq!(check(count, 8), Err(TreeError::Cells(count)));
        assert_eq!(multi_root(count, &[(8, cells[8])], &[]), Err(TreeError::Cells(count)));
    }
}

/// The zero cell beyond the last is in the tree, but it is not the segment's.
#[test]
fn rejects_a_padding_cell_presented_as_data() {
    let cells = cells(9);
    let tree = SegmentTree::build(&[cells.clone(), vec![[Fr::zero(); 8]]].concat());
    assert_eq!(tree.root(), SegmentTree::build(&cells).root());
    let Ok(path) = open(&tree, 9, &mut |_| Ok::<_, Infallible>([Fr::zero(); 8]));
    assert_eq!(check_path(&tree.root(), 9, 9, &[Fr::zero(); 8], &path), Err(TreeError::Index { index: 9, cells: 9 }));
}

/// Data hidden beyond the bound count: the writer bound 9 cells under a root over 10.
#[test]
fn rejects_a_root_over_more_cells_than_its_count() {
    let cells = cells(10);
    let (tree, path) = opened(&cells, 8);
    assert_eq!(check_path(&tree.root(), 10, 8, &cells[8], &path), Ok(()));
    assert_eq!(check_path(&tree.root(), 9, 8, &cells[8], &path), Err(TreeError::NotEmpty(0)));
}

/// Eight digests of a level are eight scalars, so a liar may call them a cell and climb one level less; or call a cell a node.
#[test]
fn rejects_inner_nodes_presented_as_cells_at_every_depth() {
    let cells = cells(512);
    let (tree, path) = opened(&cells, 100);
    let children: [Fr; 8] = tree.level(1)[8..16].try_into().unwrap();
    let short = Path { index: 1, siblings: path.siblings[2..].to_vec() };
    let need = |cells, got, need| Err(TreeError::Depth { got, cells, need });
    assert_eq!(check_path(&tree.root(), 512, 1, &children, &short), need(512, 1, 3));
    // Even where the count is a lie too and the depth fits, a node is no cell.
    assert_eq!(check_path(&tree.root(), 8, 1, &children, &short), Err(TreeError::Root));
    let mut long = path.clone();
    long.siblings.push([empty(3); 7]);
    assert_eq!(check_path(&tree.root(), 512, 100, &cells[100], &long), need(512, 4, 3));
    assert_eq!(check_path(&tree.root(), 4096, 100, &cells[100], &path), need(4096, 3, 4));
    let one = Path { index: 0, siblings: vec![] };
    assert_eq!(check_path(&tree.root(), 512, 0, &cells[0], &one), need(512, 0, 3));
    assert_eq!(check_path(&tree.root(), 1, 0, &cells[0], &one), Err(TreeError::Root));
}

/// Every kind of node is presented as a cell, and as an inner node above a cell, and refused.
#[test]
fn rejects_every_kind_of_node_in_place_of_cells_and_nodes() {
    let cells = cells(8);
    let (tree, path) = opened(&cells, 3);
    assert!(verify_path(&tree.root(), 8, 3, &cells[3], &path));
    let others = poseidon2_kinds().into_iter();
    for kind in others.clone().filter(|k| *k != NodeKind::Node) {
        // The liar's top node reads another word.
        let digests: [Fr; 8] = std::array::from_fn(|i| cell_digest(&cells[i]));
        let root = poseidon2::compress(kind, &digests);
        assert!(!verify_path(&root, 8, 3, &cells[3], &path), "{kind:?} as a node");
    }
    for kind in others.filter(|k| *k != NodeKind::Cell) {
        // The liar's leaves read another word.
        let digests: [Fr; 8] = std::array::from_fn(|i| poseidon2::compress(kind, &cells[i]));
        let root = poseidon2::compress(NodeKind::Node, &digests);
        let mut siblings = [Fr::zero(); 7];
        siblings.iter_mut().zip(digests.iter().enumerate().filter(|(i, _)| *i != 3)).for_each(|(s, (_, d))| *s = *d);
        let forged = Path { index: 3, siblings: vec![siblings] };
        assert!(!verify_path(&root, 8, 3, &cells[3], &forged), "{kind:?} as a cell");
    }
}

fn poseidon2_kinds() -> [NodeKind; 8] {
    NodeKind::ALL
}

#[test]
fn multi_opening_rejects_reordered_missing_extra_and_changed_parts() {
    let cells = cells(100);
    let tree = SegmentTree::build(&cells);
    let indices = [0, 1, 30, 64, 99];
    let Ok(siblings) = multi_open(&tree, &indices, &mut lend(&cells));
    let opened: Vec<_> = indices.iter().map(|i| (*i, cells[*i as usize])).collect();
    let root = Ok(tree.root());
    assert_eq!(multi_root(100, &opened, &siblings), root);

    assert_eq!(multi_root(100, &opened, &siblings[1..]), Err(TreeError::Short(siblings.len() - 1)));
    assert_eq!(multi_root(100, &opened, &[&siblings[..], &[Fr::zero()]].concat()), Err(TreeError::Extra(1)));
    assert_eq!(multi_root(100, &[], &siblings), Err(TreeError::Empty));
    for i in 0..siblings.len() {
        let mut bad = siblings.clone();
        bad[i] += Fr::from(1u64);
        assert_ne!(multi_root(100, &opened, &bad), root);
        bad = siblings.clone();
        let other = (i + 1) % siblings.len();
        bad.swap(i, other);
        assert!(siblings[i] == siblings[other] || multi_root(100, &opened, &bad) != root);
    }
    for i in 0..opened.len() {
        let mut bad = opened.clone();
        bad[i].1[7] += Fr::from(1u64);
        assert_ne!(multi_root(100, &bad, &siblings), root);
        bad = opened.clone();
        bad.remove(i);
        assert_ne!(multi_root(100, &bad, &siblings), root);
        bad = opened.clone();
        bad.insert(i, opened[i]);
        assert_eq!(multi_root(100, &bad, &siblings), Err(TreeError::Order(opened[i].0)));
        if i > 0 {
            bad = opened.clone();
            bad.swap(i - 1, i);
            assert!(matches!(multi_root(100, &bad, &siblings), Err(TreeError::Order(_))));
            // The right cells under each other's indices.
            bad = opened.clone();
            (bad[i - 1].1, bad[i].1) = (bad[i].1, bad[i - 1].1);
            assert_ne!(multi_root(100, &bad, &siblings), root);
        }
    }
    let mut outside = opened.clone();
    outside[4].0 = 100;
    assert_eq!(multi_root(100, &outside, &siblings), Err(TreeError::Index { index: 100, cells: 100 }));
    // Another count is another tree, by depth or by what is empty.
    for count in [101, 104, 127, 513, 2000] {
        assert_ne!(multi_root(count, &opened, &siblings), root, "{count}");
    }
}

#[test]
fn opening_all_cells_needs_no_sibling_and_lends_no_cell() {
    for count in [1, 2, 8, 9, 65] {
        let cells = cells(count);
        let tree = SegmentTree::build(&cells);
        let indices: Vec<u64> = (0..count).collect();
        let siblings = multi_open(&tree, &indices, &mut |i| Err(i));
        assert_eq!(siblings, Ok(vec![]));
        let opened: Vec<_> = indices.iter().map(|i| (*i, cells[*i as usize])).collect();
        assert_eq!(multi_root(count, &opened, &[]), Ok(tree.root()));
    }
}

#[test]
fn an_error_while_lending_cells_is_passed_on() {
    let cells = cells(9);
    let tree = SegmentTree::build(&cells);
    assert_eq!(open(&tree, 0, &mut |i| Err(format!("page of {i} is lost"))), Err("page of 1 is lost".to_owned()));
    assert_eq!(multi_open(&tree, &[1], &mut Err), Err(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_set_of_cells_opens_to_the_built_root(
        count in 1u64..700,
        picks in proptest::collection::btree_set(any::<u64>(), 1..20),
        flip in any::<u64>(),
    ) {
        let cells = cells(count);
        let tree = SegmentTree::build(&cells);
        let indices: Vec<u64> = picks.iter().map(|p| p % count).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let mut lent = Vec::new();
        let siblings = multi_open(&tree, &indices, &mut |i| { lent.push(i); Ok::<_, Infallible>(cells[i as usize]) }).unwrap();
        prop_assert!(lent.iter().all(|i| *i < count && !indices.contains(i)));
        let mut opened: Vec<_> = indices.iter().map(|i| (*i, cells[*i as usize])).collect();
        prop_assert_eq!(multi_root(count, &opened, &siblings), Ok(tree.root()));

        // One cell alone: the same as its path, and as long.
        let index = indices[0];
        let path = open(&tree, index, &mut lend(&cells)).unwrap();
        prop_assert_eq!(check_path(&tree.root(), count, index, &cells[index as usize], &path), Ok(()));

        let at = (flip % opened.len() as u64) as usize;
        opened[at].1[(flip >> 32) as usize % 8] += Fr::from(1u64);
        prop_assert_ne!(multi_root(count, &opened, &siblings), Ok(tree.root()));
    }
}

#[test]
fn header_hash_is_blake3_of_the_scalars_in_order() {
    let cells: Vec<Cell> = cells(3).iter().map(field::cell_from_fr).collect();
    let bytes: Vec<u8> = cells.iter().flatten().flat_map(|s| s.to_bytes()).collect();
    assert_eq!(header_hash(&cells).as_bytes(), blake3::hash(&bytes).as_bytes());
    assert_ne!(header_hash(&cells[..2]), header_hash(&cells));
}
