//! `storage`: the prover had the cells that the seed picks from everything under the root.

mod circuit;
mod native;
#[cfg(test)]
mod tests;

pub use circuit::StorageCircuit;
pub use native::check_storage;
