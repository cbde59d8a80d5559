//! Statements as R1CS over BLS12-381, each beside its native twin.
//!
//! Rule    R1CS only: no proof system, no keys. What a statement says and the order of its public inputs is `types::statement`.
//! Form    a circuit folder has `circuit.rs`, `native.rs` and `tests.rs`: satisfied cases, one violated case per constraint family, and
//!         each public input alone. Sizes and matrices are pinned in `shapes.toml`.
//! Source  DESIGN section 6; `docs/protocol/statements.md`

mod gadget;
mod r1cs;

pub mod poseidon2;
pub mod range_sum;
pub mod storage;

#[cfg(any(test, feature = "fixtures"))]
pub mod fixture;
pub mod pin;
#[cfg(test)]
mod violation;

use ark_bls12_381::Fr;
use ark_relations::gr1cs::ConstraintSynthesizer;
use fluence_types::FieldBytes;
use fluence_types::shape::CircuitId;
pub use range_sum::{RangeSumCircuit, check_range_sum};
pub use storage::{StorageCircuit, check_storage};

/// A statement with its witness, ready to be proven.
pub trait Circuit: ConstraintSynthesizer<Fr> {
    /// The circuit and its shape: which key it needs.
    fn id(&self) -> CircuitId;
    /// The public inputs in circuit order; `None` of a blank.
    fn public_inputs(&self) -> Option<[FieldBytes; 3]>;
    /// The native twin.
    ///
    /// # Errors
    /// [`WitnessError`] saying why the witness does not show the statement.
    fn check(&self) -> Result<(), WitnessError>;
}

/// The native twins by their statement's name.
pub mod native {
    pub use crate::range_sum::check_range_sum;
    pub use crate::storage::check_storage;
}

/// Why a witness does not show its statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// There is neither statement nor witness: a blank makes keys, not proofs.
    #[error("the circuit is blank")]
    Blank,
    /// The shape is too small for it.
    #[error("{what}: {levels}, the shape has room for {shape}")]
    Shape {
        /// Of what.
        what: &'static str,
        /// How many it has.
        levels: usize,
        /// How many fit.
        shape: usize,
    },
    /// A list has the wrong length.
    #[error("{got} {what}, expected {want}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there must be.
        want: usize,
    },
    /// A public input is not what the witness makes.
    #[error("statement: {0}")]
    Statement(&'static str),
    /// One sample is wrong.
    #[error("sample {sample}: {why}")]
    Sample {
        /// Its number.
        sample: usize,
        /// What is wrong.
        why: String,
    },
    /// One live segment is wrong.
    #[error("live segment {segment}: {why}")]
    Segment {
        /// Its place in the catalogue entry.
        segment: usize,
        /// What is wrong.
        why: String,
    },
}
