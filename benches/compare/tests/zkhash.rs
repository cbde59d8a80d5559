//! Our permutation against the authors' own crate, which shares no code with it: other constants file, other arkworks, whole matrices.

use fluence_compare::{Zkhash, from_zkhash, to_zkhash};
use fluence_crypto::{Fr, poseidon2};

#[test]
fn permutation_is_zkhashs_on_edges_and_on_a_chain_of_a_thousand() {
    let zkhash = Zkhash::default();
    let minus_one = -Fr::from(1u64);
    let mut states = vec![[Fr::from(0u64); 8], [minus_one; 8], std::array::from_fn(|i| Fr::from(i as u64))];
    for i in 0..8 {
        let mut unit = [Fr::from(0u64); 8];
        unit[i] = minus_one;
        states.push(unit);
    }
    for _ in 0..1000 {
        let mut next = *states.last().expect("not empty");
        poseidon2::permute(&mut next);
        states.push(next);
    }
    for state in &states {
        let mut ours = *state;
        poseidon2::permute(&mut ours);
        let theirs: [_; 8] = std::array::from_fn(|i| to_zkhash(&state[i]));
        let theirs: Vec<Fr> = zkhash.permute(&theirs).iter().map(from_zkhash).collect();
        assert_eq!(ours.to_vec(), theirs);
    }
}
