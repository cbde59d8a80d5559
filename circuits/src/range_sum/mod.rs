//! `range_sum`: over every live segment of a projection, the sum of one lane's prefix sums at both ends of a range.

mod circuit;
mod native;
#[cfg(test)]
mod tests;

pub use circuit::RangeSumCircuit;
pub use native::check_range_sum;

/// Most segments a shape may have: their roots are one chunk of the live digest.
pub const SEGMENTS_MAX: u32 = 7;
