//! Statements: what a proof says, and its public inputs in their one order.
//!
//! Circuit, prover, verifier, bindings and Solidity read these; `tests/vectors` hold them together.
//! Source  DESIGN section 6

mod range_sum;
mod storage;

pub use range_sum::{RangeSum, RangeSumQuery, RowRange};
pub use storage::{Storage, StorageSeed};
