//! The vocabulary of Fluence: identifiers, field bytes, limits, operations, answers, statements.
//!
//! Rule    everything two parts must agree on is written here, once; no curve library, no I/O, no keys.
//! Codec   what travels or is hashed is `borsh` (canonical: one encoding per value), decoded by [`codec::decode`] under limits.
//! Source  DESIGN sections 3, 4, 6 and 7; `docs/protocol/`.

pub mod answer;
pub mod block;
pub mod codec;
pub mod export;
pub mod field;
pub mod ids;
pub mod limits;
pub mod op;
#[doc(hidden)]
pub mod planted;
pub mod proof;
pub mod segment;
pub mod shape;
pub mod statement;
pub mod tree;

pub use field::{FieldBytes, FieldError};
pub use ids::*;
