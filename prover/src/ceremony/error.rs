//! Why a ceremony's file or contribution was refused.

use fluence_types::shape::CircuitId;
use std::path::{Path, PathBuf};

/// Why a call of the ceremony did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CeremonyError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {why}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: Refusal,
    },
    /// A number is outside what the formats hold.
    #[error("{what} is {got}, the limits are {min} and {max}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// Given.
        got: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// No circuit has this shape.
    #[error("circuit {0} cannot be built")]
    Circuit(CircuitId),
    /// The ceremony ended with a beacon.
    #[error("the ceremony has ended with a beacon: nothing can be added")]
    Ended,
    /// A key is made only of a ceremony that a beacon ended.
    #[error("the ceremony has not ended: {contributions} contributions and no beacon")]
    NotEnded {
        /// How many there are.
        contributions: usize,
    },
    /// A key of nobody's contributions is anybody's key.
    #[error("nobody has contributed: with the beacon alone everyone knows delta")]
    NoContribution,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The length is of none of the formats.
    #[error("{0} bytes is the length of no phase-1 file: neither phase1radix2m<k>, challenge nor response")]
    Length(u64),
    /// It ends too early, or goes on.
    #[error("it is {got} bytes, {want} expected")]
    Size {
        /// Its length.
        got: u64,
        /// What its head says.
        want: u64,
    },
    /// The first bytes are of no format we know.
    #[error("it is not a {0} of this version")]
    Magic(&'static str),
    /// The checksum at its end is of other bytes.
    #[error("its checksum does not match: it was cut or changed")]
    Checksum,
    /// A number inside is beyond its limit.
    #[error("{what} is {got}, the limit is {max}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// Its value.
        got: u64,
        /// The most.
        max: u64,
    },
    /// A field has a value that none may have.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A point is infinity, off the curve, outside the subgroup, or not in its one encoding.
    #[error("{what} [{index}] is {why}")]
    Point {
        /// Which vector or field.
        what: &'static str,
        /// Its place there.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The bytes hash to another value than was published.
    #[error("its BLAKE2b-512 is {got}, not {want}")]
    Hash {
        /// Of the file.
        got: String,
        /// Asked for.
        want: String,
    },
    /// A response to another challenge.
    #[error("it answers another challenge")]
    Challenge,
    /// It holds fewer powers than are needed.
    #[error("it holds 2^{has} powers, 2^{need} are needed")]
    TooSmall {
        /// What it has.
        has: u32,
        /// What is needed.
        need: u32,
    },
    /// An equation between its points does not hold.
    #[error("{0}")]
    Relation(&'static str),
    /// It belongs to another circuit, or to another version of it.
    #[error("it is of {got}, not of {want}")]
    OtherCircuit {
        /// Its circuit.
        got: String,
        /// The one asked for.
        want: String,
    },
    /// It was started from another phase 1.
    #[error("it was started from another phase 1: BLAKE2b-512 {got}.., this one is {want}..")]
    OtherPhase1 {
        /// The first bytes of the hash in its head.
        got: String,
        /// Those of the file given.
        want: String,
    },
    /// A contribution is not what it claims.
    #[error("contribution {number}: {why}")]
    Contribution {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A matrix row names what is not there.
    #[error("its vectors are not the circuit's: {what} has {got}, the circuit {want}")]
    Vectors {
        /// Which.
        what: &'static str,
        /// In the file.
        got: u64,
        /// By the matrices.
        want: u64,
    },
}

/// Errors from here on name this file.
pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> CeremonyError + '_ {
    |source| CeremonyError::Io { path: path.to_owned(), source }
}

/// Refusals from here on name this file.
pub(super) fn refused(path: &Path) -> impl Fn(Refusal) -> CeremonyError + '_ {
    |why| CeremonyError::Refused { path: path.to_owned(), why }
}
