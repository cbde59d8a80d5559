//! Poseidon2 compression in R1CS: 363 constraints, three for each of the 121 S-boxes; every linear layer is free.
//!
//! Why      in the partial rounds seven words are never squared, so they are combinations that grow by one term a round. Their
//!          coefficients are the same in every permutation and are computed once ([`Coefficients`]).
//! Native   `crypto::poseidon2::compress`; a test compares the two
//! Source   DESIGN section 4; the instance is `crypto::poseidon2::params`

use crate::r1cs::{Cs, Num};
use ark_bls12_381::Fr;
use ark_ff::{One, Zero};
use ark_relations::gr1cs::SynthesisError;
use fluence_crypto::poseidon2::params::{self, ROUNDS_FULL, ROUNDS_PARTIAL, Round};
use fluence_types::tree::NodeKind;
use std::sync::OnceLock;

/// Constraints of one compression.
pub const CONSTRAINTS: usize = 3 * (8 * ROUNDS_FULL + ROUNDS_PARTIAL);

struct Coefficients {
    external: [[Fr; 8]; 8],
    diagonal: [Fr; 8],
    begin: Vec<[Fr; 8]>,
    partial: Vec<Fr>,
    end: Vec<[Fr; 8]>,
    /// Word 0 before partial round k, over the 8 S-boxes of the last full round and the k of the partial rounds before.
    word0: Vec<Vec<Fr>>,
    /// The eight words after the partial rounds, over all of these.
    after: [Vec<Fr>; 8],
}

fn coefficients() -> &'static Coefficients {
    static CELL: OnceLock<Coefficients> = OnceLock::new();
    CELL.get_or_init(|| {
        let (external, diagonal) = (params::external_matrix(), params::diagonal_minus_one());
        let (mut full, mut partial) = (Vec::new(), Vec::new());
        for round in params::round_constants() {
            match round {
                Round::Full(constants) => full.push(constants),
                Round::Partial(constant) => partial.push(constant),
            }
        }
        let end = full.split_off(ROUNDS_FULL / 2);
        let mut words: [Vec<Fr>; 8] = external.map(|row| row.to_vec());
        let mut word0 = Vec::with_capacity(ROUNDS_PARTIAL);
        for _ in 0..ROUNDS_PARTIAL {
            word0.push(words[0].clone());
            let width = words[0].len() + 1;
            words[0] = vec![Fr::zero(); width - 1];
            words[0].push(Fr::one());
            words[1..].iter_mut().for_each(|w| w.push(Fr::zero()));
            let sums: Vec<Fr> = (0..width).map(|i| words.iter().map(|w| w[i]).sum()).collect();
            for (word, d) in words.iter_mut().zip(&diagonal) {
                word.iter_mut().zip(&sums).for_each(|(c, sum)| *c = *c * d + sum);
            }
        }
        Coefficients { external, diagonal, begin: full, partial, end, word0, after: words }
    })
}

fn apply(matrix: &[[Fr; 8]; 8], x: &[Fr; 8]) -> [Fr; 8] {
    std::array::from_fn(|i| matrix[i].iter().zip(x).map(|(m, x)| *m * x).sum())
}

fn sbox(cs: &mut Cs, x: &Num) -> Result<Num, SynthesisError> {
    const NAME: &str = "poseidon2";
    let x2 = cs.product(NAME, x, x)?;
    let x4 = cs.product(NAME, &x2, &x2)?;
    cs.product(NAME, x, &x4)
}

/// One full round from S-box inputs without their constants; gives the eight S-box outputs.
fn sboxes(cs: &mut Cs, inputs: [Num; 8], constants: &[Fr; 8]) -> Result<[Num; 8], SynthesisError> {
    let mut out = inputs;
    for (x, c) in out.iter_mut().zip(constants) {
        x.add_scaled(&Num::constant(*c), Fr::one());
        *x = sbox(cs, x)?;
    }
    Ok(out)
}

/// The external layer over eight single variables.
fn external(k: &Coefficients, x: &[Num; 8]) -> [Num; 8] {
    let values = apply(&k.external, &x.each_ref().map(Num::value));
    std::array::from_fn(|i| Num::dense(values[i], &k.external[i], x, Fr::zero()))
}

/// `permute(x)[w] + x[w]` with `w` the word of `kind`. Inputs should have few terms: each is copied into 24 rows.
pub(crate) fn compress(cs: &mut Cs, kind: NodeKind, x: &[Num; 8]) -> Result<Num, SynthesisError> {
    let k = coefficients();
    let mut state: [Num; 8] = std::array::from_fn(|i| {
        let mut word = Num::zero();
        x.iter().zip(&k.external[i]).for_each(|(x, m)| word.add_scaled(x, *m));
        word
    });
    let mut outputs = None;
    for constants in &k.begin {
        let out = sboxes(cs, state, constants)?;
        state = external(k, &out);
        outputs = Some(out);
    }
    let mut basis = outputs.expect("there are full rounds").to_vec();
    let mut values = state.each_ref().map(Num::value);
    for (row, constant) in k.word0.iter().zip(&k.partial) {
        let y = sbox(cs, &Num::dense(values[0] + constant, row, &basis, *constant))?;
        values[0] = y.value();
        let sum: Fr = values.iter().sum();
        values.iter_mut().zip(&k.diagonal).for_each(|(v, d)| *v = *v * d + sum);
        basis.push(y);
    }
    state = std::array::from_fn(|i| Num::dense(values[i], &k.after[i], &basis, Fr::zero()));
    for constants in &k.end {
        let out = sboxes(cs, state, constants)?;
        state = external(k, &out);
    }
    Ok(&state[kind.word()] + &x[kind.word()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_relations::gr1cs::ConstraintSystem;
    use fluence_crypto::poseidon2;

    #[test]
    fn circuit_equals_the_native_compression_for_every_kind_at_363_constraints() {
        let x: [Fr; 8] = std::array::from_fn(|i| Fr::from(7u64 + i as u64).pow5());
        for kind in NodeKind::ALL {
            let inner = ConstraintSystem::new_ref();
            let mut cs = Cs::new(inner.clone());
            let inputs = x.map(|v| cs.witness("x", v).unwrap());
            let out = compress(&mut cs, kind, &inputs).unwrap();
            assert_eq!(out.value(), poseidon2::compress(kind, &x));
            let digest = cs.input(poseidon2::compress(kind, &x)).unwrap();
            assert_eq!(cs.names.len(), CONSTRAINTS);
            cs.enforce_equal("digest", &out, &digest).unwrap();
            assert!(inner.is_satisfied().unwrap());
            assert_eq!(CONSTRAINTS, 363);
        }
    }

    #[test]
    fn a_digest_of_another_kind_is_refused() {
        let x: [Fr; 8] = std::array::from_fn(|i| Fr::from(i as u64));
        for kind in NodeKind::ALL {
            for other in NodeKind::ALL.into_iter().filter(|o| *o != kind) {
                let inner = ConstraintSystem::new_ref();
                let mut cs = Cs::new(inner.clone());
                let inputs = x.map(|v| cs.witness("x", v).unwrap());
                let out = compress(&mut cs, kind, &inputs).unwrap();
                let digest = cs.input(poseidon2::compress(other, &x)).unwrap();
                cs.enforce_equal("digest", &out, &digest).unwrap();
                assert!(!inner.is_satisfied().unwrap(), "{kind:?} passed as {other:?}");
            }
        }
    }

    trait Pow5 {
        fn pow5(self) -> Self;
    }
    impl Pow5 for Fr {
        fn pow5(self) -> Self {
            let x2 = self * self;
            x2 * x2 * self
        }
    }
}
