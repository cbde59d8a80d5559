//! Cryptography of Fluence: hash, trees, AEAD, masks, keys, signatures.
//!
//! Rule    the vocabulary is `fluence-types`; here it gets its arithmetic. Bytes outside, [`Fr`] inside; every hash and signature
//!         has a tag from [`domain`]; secrets live in [`secret::Secret`] and randomness is a parameter.
//! Source  DESIGN sections 3 to 5; `docs/protocol/tree.md`, `docs/protocol/keys.md`, `docs/poseidon2.md`.

pub mod aead;
pub mod curve;
pub mod domain;
pub mod field;
pub mod ggm;
pub mod keys;
#[cfg(target_arch = "x86_64")]
pub mod lanes;
pub mod mask;
pub mod placement;
pub mod poseidon2;
pub mod roots;
pub mod secret;
pub mod seed;
pub mod sign;
pub mod sum_tree;
pub mod tree;
pub mod vote;
pub mod witness;

pub use ark_bls12_381::Fr;

#[cfg(test)]
mod test_vectors;
