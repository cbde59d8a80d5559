//! Points in files: the encodings of Zcash for BLS12-381, compressed or not, many at a time.
//!
//! Rule    a point is finite, on its curve and in its subgroup, and encodes to the bytes it came from. `ark-bls12-381` 0.6 does not check an
//!         uncompressed point against the curve equation, and its subgroup test holds for points on the curve only; so both are tested here.
//! Source  github.com/zkcrypto/pairing, bls12_381 README "Serialization"

use super::error::Refusal;
use ark_bls12_381::{Fr, g1, g2};
use ark_ec::AffineRepr;
use ark_ec::short_weierstrass::Affine;
use ark_serialize::{Compress, Validate};
use rayon::prelude::*;

/// A point of either group.
pub(super) trait Point: AffineRepr<ScalarField = Fr> {
    /// Bytes compressed; uncompressed twice as many.
    const BYTES: usize;
    fn valid(&self) -> bool;
}

// By their curves: the aliases are projections, which could be one type for all the compiler knows.
impl Point for Affine<g1::Config> {
    const BYTES: usize = 48;
    fn valid(&self) -> bool {
        self.is_on_curve() && self.is_in_correct_subgroup_assuming_on_curve()
    }
}

impl Point for Affine<g2::Config> {
    const BYTES: usize = 96;
    fn valid(&self) -> bool {
        self.is_on_curve() && self.is_in_correct_subgroup_assuming_on_curve()
    }
}

/// Whether points are compressed.
pub(super) fn size<P: Point>(compress: Compress) -> usize {
    if compress == Compress::Yes { P::BYTES } else { 2 * P::BYTES }
}

fn decode_one<P: Point>(bytes: &[u8], compress: Compress) -> Result<P, &'static str> {
    let p = P::deserialize_with_mode(bytes, compress, Validate::No).map_err(|_| "no point encoding")?;
    if p.is_zero() {
        return Err("the point at infinity");
    }
    if !p.valid() {
        return Err("not on the curve, or outside the prime-order subgroup");
    }
    let mut again = Vec::with_capacity(bytes.len());
    p.serialize_with_mode(&mut again, compress).expect("writing to a Vec does not fail");
    if again == bytes { Ok(p) } else { Err("not in its canonical encoding") }
}

/// Decodes points that lie one after the other. `first` is the place of the first in its vector, for messages.
pub(super) fn decode<P: Point>(
    bytes: &[u8],
    compress: Compress,
    what: &'static str,
    first: u64,
) -> Result<Vec<P>, Refusal> {
    bytes
        .par_chunks(size::<P>(compress))
        .enumerate()
        .map(|(i, b)| decode_one(b, compress).map_err(|why| Refusal::Point { what, index: first + i as u64, why }))
        .collect()
}

/// Decodes one point.
pub(super) fn decode_single<P: Point>(bytes: &[u8], compress: Compress, what: &'static str) -> Result<P, Refusal> {
    decode_one(bytes, compress).map_err(|why| Refusal::Point { what, index: 0, why })
}

/// Encodes points one after the other.
pub(super) fn encode<P: Point>(points: &[P], compress: Compress) -> Vec<u8> {
    let size = size::<P>(compress);
    let mut out = vec![0; size * points.len()];
    out.par_chunks_mut(size).zip(points).for_each(|(bytes, p)| {
        p.serialize_with_mode(bytes, compress).expect("the slice is as long as the encoding");
    });
    out
}
