//! The instance as data, for circuits and other implementations. [`super::permute`] uses the same tables.
//!
//! Order   external matrix; 4 full rounds; 57 partial rounds; 4 full rounds. A full round adds its eight constants, raises every
//!         word to the fifth power and applies the external matrix; a partial one does so with word 0 alone, then the internal matrix.

use super::constants;
pub use super::constants::{ALPHA, ROUNDS_FULL, ROUNDS_PARTIAL};
use crate::Fr;
use ark_ff::BigInt;

const fn word(limbs: [u64; 4]) -> Fr {
    Fr::new(BigInt(limbs))
}

const fn words<const N: usize>(limbs: &[[u64; 4]; N]) -> [Fr; N] {
    let mut out = [word([0; 4]); N];
    let mut i = 0;
    while i < N {
        out[i] = word(limbs[i]);
        i += 1;
    }
    out
}

pub(super) static FULL: [[Fr; 8]; ROUNDS_FULL] = {
    let mut out = [[word([0; 4]); 8]; ROUNDS_FULL];
    let mut i = 0;
    while i < ROUNDS_FULL {
        out[i] = words(&constants::FULL[i]);
        i += 1;
    }
    out
};
pub(super) static PARTIAL: [Fr; ROUNDS_PARTIAL] = words(&constants::PARTIAL);
pub(super) static DIAGONAL_MINUS_ONE: [Fr; 8] = words(&constants::DIAGONAL_MINUS_ONE);

/// The constants of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Added to all eight words.
    Full([Fr; 8]),
    /// Added to word 0.
    Partial(Fr),
}

/// The constants of all rounds, in order.
#[must_use]
pub fn round_constants() -> Vec<Round> {
    let (begin, end) = FULL.split_at(ROUNDS_FULL / 2);
    let full = |rounds: &[[Fr; 8]]| rounds.iter().copied().map(Round::Full).collect::<Vec<_>>();
    [full(begin), PARTIAL.iter().copied().map(Round::Partial).collect(), full(end)].concat()
}

/// The diagonal of the internal matrix, less one: the internal layer is `y_i = sum(x) + d_i * x_i`.
#[must_use]
pub fn diagonal_minus_one() -> [Fr; 8] {
    DIAGONAL_MINUS_ONE
}

/// The 4 x 4 block that the external matrix is made of.
pub const M4: [[u64; 4]; 4] = [[5, 7, 1, 3], [4, 6, 1, 1], [1, 3, 5, 7], [1, 1, 4, 6]];

/// The external matrix, circ(2 M4, M4).
#[must_use]
pub fn external_matrix() -> [[Fr; 8]; 8] {
    std::array::from_fn(|i| std::array::from_fn(|j| Fr::from(M4[i % 4][j % 4] * if i / 4 == j / 4 { 2 } else { 1 })))
}

/// The internal matrix: ones, and `1 + d_i` on the diagonal.
#[must_use]
pub fn internal_matrix() -> [[Fr; 8]; 8] {
    let one = Fr::from(1u64);
    std::array::from_fn(|i| std::array::from_fn(|j| if i == j { one + DIAGONAL_MINUS_ONE[i] } else { one }))
}
