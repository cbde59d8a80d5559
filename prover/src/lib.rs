//! Groth16 proofs of our statements on all cores: keys made or loaded once, proofs made one at a time.
//!
//! Rule    plain blocking functions on rayon's global pool; randomness is a parameter; a proof is checked before it is handed out.
//! Memory  one proof at a time per process ([`prove`] takes a lock), so the peak is that of the largest shape, and is reported.
//! Source  Groth, EUROCRYPT 2016, by ark-groth16 0.6; DESIGN sections 6 and 12

pub mod ceremony;
mod export;
mod file;
mod keys;
mod memory;
mod proof;

pub use export::{export_key, proof_file};
pub use keys::{KeyError, Keys, Phase};
pub use memory::peak_memory_bytes;
pub use proof::{ProveError, Proved, prove, prove_range_sum, prove_storage, prove_with};
