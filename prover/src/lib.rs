//! Groth16 proofs of our statements: keys made or loaded once, proofs made by our own prover ([`fast`]) within an operator's limits.
//!
//! Rule    plain blocking functions on the threads of a [`Scheduler`]; randomness is a parameter; a proof is checked before it is handed out.
//! Memory  [`prove`] makes one proof at a time per process, so the peak is that of the largest shape, and is reported.
//! Oracle  ark-groth16 0.6: it makes the keys, its proofs are what ours are compared with, and it can be chosen ([`ProverPath::Ark`])
//! Source  Groth, EUROCRYPT 2016; `docs/prover.md`; DESIGN sections 6 and 12

pub mod ceremony;
mod export;
mod fast;
mod file;
mod keys;
mod memory;
mod points;
mod proof;
mod rows;
mod schedule;

pub use export::{export_key, proof_file};
pub use fast::Path as ProverPath;
pub use keys::{KeyError, Keys, Phase};
pub use memory::peak_memory_bytes;
pub use proof::{ProveError, Proved, assignment, prove, prove_range_sum, prove_storage, prove_with};
pub use schedule::{Limits, Scheduler};
