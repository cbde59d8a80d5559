//! The small, synchronous place that says yes: to proofs, and to nodes' answers.
//!
//! Rule    nothing here trusts a key that came with a proof, a point that was not checked, or a node. No circuits, no tokio, no store.
//! Source  DESIGN sections 6, 7 and 11; `docs/protocol/proof-file.md`

pub mod answer;
pub mod committee;
pub mod export;
pub mod groth16;
pub mod known_keys;
pub mod proof_file;
pub mod snarkjs;
