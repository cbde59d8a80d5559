//! Keys nobody has to trust: a proving key made by many, secure if one of them forgot their secret.
//!
//! ```text
//! phase 1   powers of tau, alpha, beta for every circuit up to a size; of Zcash or Filecoin, or our own        phase1.rs
//! import    checks the powers a circuit needs, and brings them to Lagrange form: `phase1radix2m<k>`             radix.rs
//! phase 2   initial key with delta = 1 from phase 1 and the circuit's matrices                                  initial.rs
//!           each contribution multiplies delta, and divides H and L by the same                                 phase2.rs
//!           a beacon ends it; then the key is written, unmarked, with the transcript's hash inside              finalize.rs
//! ```
//! Rule    every point from outside is finite, on its curve, in its subgroup, in its one encoding. Nothing is believed because of the file it
//!         stands in: `verify` starts from phase 1 and the matrices that this program builds itself.
//! Rule    a secret lives in one call, is wiped, and comes from the operating system and, if given, the contributor's text.
//! Files   written under a temporary name, synced, renamed; a killed call leaves what was there.
//! Source  Bowe, Gabizon, Miers, ePrint 2017/1050; Kohlweiss, Maller, Siim, Volkhov, ePrint 2021/219; `docs/protocol/ceremony.md`

mod error;
mod finalize;
mod initial;
mod knowledge;
mod output;
mod phase1;
mod phase2;
mod points;
mod radix;
mod ratio;
mod state;
#[cfg(test)]
mod tests;
mod transcript;

pub use error::{CeremonyError, Refusal};
pub use finalize::{Finalized, check_key, export_matrices, finalize};
pub use phase1::{Contributed1, contribute as phase1_contribute, create as phase1_create, verify as phase1_verify};
pub use phase2::{Contributed, Status, Verified, beacon, contribute, create, log2_rows, status, verify};
pub use radix::{Imported, Origin, import};
pub use transcript::{BEACON_ITERATIONS_LOG2_MAX, NAME_BYTES_MAX};

use rand::{CryptoRng, RngCore};

/// Largest phase 1 we read: 2^28 powers, what the largest published ceremony on this curve has room for.
pub const POWER_MAX: u32 = 28;
/// Largest circuit: 2^22 rows.
pub const CIRCUIT_POWER_MAX: u32 = 22;

/// Points that are held at once where a file is streamed: 2^13 of at most 288 bytes.
const CHUNK: usize = 1 << 13;

/// What a long call is doing, and how far it is; 0 of 0 where it cannot tell.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// A cryptographic generator, as a trait object can be.
pub trait Random: RngCore + CryptoRng {}
impl<R: RngCore + CryptoRng> Random for R {}
