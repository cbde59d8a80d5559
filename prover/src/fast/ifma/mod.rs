//! The path for processors with AVX-512 IFMA: eight field elements in 52-bit limbs at a time.
//!
//! Rule    nothing here runs before [`Ifma::detect`] has seen the instructions: the value is the permission, and the only way in
//! Unsafe  the calls below into functions that are compiled for these instructions; one prefetch further in; loads and stores in
//!         `fluence_crypto::lanes`

#![allow(unsafe_code)]
// Limbs and lanes are counted: several arrays go by one index.
#![allow(clippy::needless_range_loop)]

mod fft;
mod sum;

use ark_bls12_381::Fr;
use ark_ec::short_weierstrass::Projective;
pub(super) use fft::Domain;
use fluence_crypto::curve::Curve;
pub(super) use fluence_crypto::lanes::Ifma;
pub(super) use fluence_crypto::lanes::curve::Point;

/// `sum digits[i] bases[i]`, digits at most `2^(bits - 1)` in size.
pub(super) fn window<C: Curve<D>, const D: usize>(
    _seen: Ifma,
    bases: &[Point<D>],
    digits: &[i16],
    bits: u32,
) -> Projective<C> {
    // SAFETY: an `Ifma` is made only where every feature was seen that the function is compiled for.
    unsafe { sum::window(bases, digits, bits) }
}

/// See [`Domain::quotient`].
pub(super) fn quotient(
    _seen: Ifma,
    domain: &Domain,
    a: &(dyn Fn(usize) -> Fr + Sync),
    b: &(dyn Fn(usize) -> Fr + Sync),
) -> Vec<[u64; 4]> {
    // SAFETY: as above.
    unsafe { domain.quotient(a, b) }
}
