use super::*;
use crate::test_vectors::{load, scalars};
use ark_ff::{Field, Zero};
use proptest::prelude::*;

#[test]
fn permutation_and_every_compression_match_the_independent_implementation() {
    for v in load("poseidon2") {
        let input: [Fr; 8] = scalars(&v["input"]).try_into().unwrap();
        let mut state = input;
        permute(&mut state);
        assert_eq!(state.to_vec(), scalars(&v["output"]));
        let compressed: Vec<Fr> = NodeKind::ALL.iter().map(|k| compress(*k, &input)).collect();
        assert_eq!(compressed, scalars(&v["compress"]));
        let bytes = compress_cell(NodeKind::Cell, &field::cell_from_fr(&input));
        assert_eq!(field::from_bytes(&bytes), compressed[1]);
    }
}

/// The permutation by its definition: whole matrices and the list of rounds that circuits read.
fn by_definition(mut x: [Fr; 8]) -> [Fr; 8] {
    let multiply =
        |m: &[[Fr; 8]; 8], x: &[Fr; 8]| -> [Fr; 8] { std::array::from_fn(|i| (0..8).map(|j| m[i][j] * x[j]).sum()) };
    let (external, internal) = (params::external_matrix(), params::internal_matrix());
    x = multiply(&external, &x);
    for round in params::round_constants() {
        match round {
            params::Round::Full(constants) => {
                x = std::array::from_fn(|i| (x[i] + constants[i]).pow([params::ALPHA]));
                x = multiply(&external, &x);
            }
            params::Round::Partial(constant) => {
                x[0] = (x[0] + constant).pow([params::ALPHA]);
                x = multiply(&internal, &x);
            }
        }
    }
    x
}

fn arb_fr() -> impl Strategy<Value = Fr> {
    // Values around 0, around r, and anywhere.
    (any::<[u64; 4]>(), 0u8..4).prop_map(|(limbs, how)| {
        let wide = limbs.iter().fold(Fr::zero(), |acc, l| acc * Fr::from(1u128 << 64) + Fr::from(*l));
        match how {
            0 => Fr::from(limbs[0] % 3),
            1 => -Fr::from(limbs[0] % 3),
            _ => wide,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn fast_permutation_is_the_one_of_the_parameters(x in proptest::array::uniform8(arb_fr())) {
        let mut fast = x;
        permute(&mut fast);
        prop_assert_eq!(fast, by_definition(x));
    }
}

#[test]
fn diagonal_of_the_internal_matrix_is_one_more_than_the_table() {
    let (matrix, diagonal) = (params::internal_matrix(), params::diagonal_minus_one());
    for i in 0..8 {
        assert_eq!(matrix[i][i], diagonal[i] + Fr::from(1u64));
    }
    assert_eq!(params::round_constants().len(), params::ROUNDS_FULL + params::ROUNDS_PARTIAL);
}

/// A liar presents a value of one kind as another: the eight digests of one input are eight values.
#[test]
fn no_kind_of_node_passes_for_another() {
    for cell in crate::test_vectors::cells(4) {
        let digests: Vec<Fr> = NodeKind::ALL.iter().map(|k| compress(*k, &cell)).collect();
        for (i, a) in digests.iter().enumerate() {
            for (j, b) in digests.iter().enumerate() {
                assert_eq!(i == j, a == b, "kinds {:?} and {:?}", NodeKind::ALL[i], NodeKind::ALL[j]);
            }
        }
    }
}

#[test]
fn digest_binds_tag_length_order_and_every_element() {
    let xs: Vec<Fr> = (1..=20u64).map(Fr::from).collect();
    let mut seen = std::collections::BTreeSet::new();
    for len in 0..=20 {
        assert!(seen.insert(digest(DigestTag::Live, &xs[..len])));
        // A list padded with zeros is another list, though its last chunk holds the same scalars.
        let padded = [&xs[..len], &[Fr::zero()]].concat();
        assert!(seen.insert(digest(DigestTag::Live, &padded)));
    }
    for tag in [DigestTag::RangeSum, DigestTag::Challenge, DigestTag::Aux, DigestTag::Rows] {
        assert!(seen.insert(digest(tag, &xs)));
    }
    for i in 0..xs.len() {
        let mut changed = xs.clone();
        changed[i] += Fr::from(1u64);
        assert!(seen.insert(digest(DigestTag::Live, &changed)));
        if i > 0 {
            let mut swapped = xs.clone();
            swapped.swap(i - 1, i);
            assert!(seen.insert(digest(DigestTag::Live, &swapped)));
        }
    }
    let bytes: Vec<_> = xs.iter().map(field::to_bytes).collect();
    assert_eq!(field::from_bytes(&digest_bytes(DigestTag::Live, &bytes)), digest(DigestTag::Live, &xs));
}

#[test]
fn digest_is_the_chain_of_compressions_it_says() {
    let x = Fr::from(9u64);
    let start = |len: u64| Fr::from((1u128 << 64) + u128::from(len));
    let z = Fr::zero();
    let one = compress(NodeKind::Digest, &[start(8), x, x, x, x, x, x, x]);
    assert_eq!(digest(DigestTag::Live, &[x; 8]), compress(NodeKind::Digest, &[one, x, z, z, z, z, z, z]));
    assert_eq!(digest(DigestTag::Live, &[]), compress(NodeKind::Digest, &[start(0), z, z, z, z, z, z, z]));
}

#[test]
fn many_compressions_are_the_single_ones() {
    let edge = [Fr::zero(), -Fr::from(1u64), Fr::from(1u64), -Fr::from(2u64)];
    let mut inputs: Vec<[Fr; 8]> = edge.iter().map(|f| [*f; 8]).collect();
    let mut x = Fr::from(3u64);
    while inputs.len() < 17 {
        inputs.push(std::array::from_fn(|i| {
            x = x * x + Fr::from(1u64);
            if i % 3 == 0 { edge[inputs.len() % 4] } else { x }
        }));
    }
    for kind in NodeKind::ALL {
        for count in 0..=inputs.len() {
            let single: Vec<Fr> = inputs[..count].iter().map(|x| compress(kind, x)).collect();
            assert_eq!(compress_many(kind, &inputs[..count]), single, "{kind:?}, {count} inputs");
        }
    }
}
