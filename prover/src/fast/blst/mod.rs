//! The path for every processor: blst's field arithmetic, one element at a time, and sums in affine coordinates over it.
//!
//! Why     blst's own sum of multiples adds with ten products, an affine addition whose inversion is shared takes six
//! Source  as `ifma`; blst chooses its assembly at run time (its feature `portable`)

mod field;
mod sum;

pub(super) use field::Point;
pub(super) use sum::window;
