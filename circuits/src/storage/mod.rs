//! `storage`: the prover had the cells that the seed picks from everything under the root.

mod circuit;
mod native;
#[cfg(test)]
mod tests;

pub use circuit::StorageCircuit;
use fluence_types::limits::COUNT_BITS;
use fluence_types::shape::StorageShape;
pub use native::check_storage;

/// Bits of the weight of a node at `level` of the tree over segments: at most `8^t 4^level` cells, and a full one has just as many.
fn stored_bits(shape: StorageShape, level: u32) -> u32 {
    (3 * shape.tree_levels + 2 * level + 1).min(COUNT_BITS)
}

/// Bits of the weight of a node at `level` of the tree over databases.
fn holdings_bits(shape: StorageShape, level: u32) -> u32 {
    stored_bits(shape, shape.stored_levels + level)
}
