//! Many proofs at once on processors with AVX-512 IFMA: eight points are decoded together, and eight multiplied.
//!
//! Rule    a point is given out only where every check was seen to hold in its lane: canonical coordinates, on the curve, in the subgroup, by
//!         exact comparison. Everything else is `None`, good or bad, and [`super::blst_points`] decides alone. So nothing is refused here, and
//!         what an attacker gains by points that lanes leave is that they cost what they cost without lanes
//! Unsafe  the calls into code that is compiled for these instructions: an [`Ifma`] is made only where they were seen
//! Time    not constant: proofs are public

#![allow(unsafe_code)]
// Limbs and lanes are counted: several arrays go by one index.
#![allow(clippy::needless_range_loop)]

mod decode;
mod multiples;

use super::Proof;
use ark_bls12_381::{G1Affine, G1Projective, G2Affine};
use ark_ec::CurveGroup;
use fluence_crypto::lanes::Ifma;
use fluence_types::proof::ProofBytes;
use rayon::prelude::*;

/// Proofs below which lanes would run half empty, and blst alone is as fast.
pub(super) const PROOFS_MIN: usize = 6;
/// Vectors of G1 encodings that are decoded together: one's chain of squares runs while the other's waits.
const TOGETHER: usize = 2;

/// The proofs' points; `None` where one of the three was not decided. Uses rayon's pool.
pub(super) fn decode(_seen: Ifma, proofs: &[&ProofBytes]) -> Vec<Option<Proof>> {
    let ac: Vec<&[u8]> = proofs.iter().flat_map(|p| [&p.0[..48], &p.0[144..]]).collect();
    let b: Vec<&[u8]> = proofs.iter().map(|p| &p.0[48..144]).collect();
    let g1 = |chunk: &[&[u8]]| -> Vec<Option<G1Affine>> {
        let group = |i: usize| -> [Option<&[u8]>; 8] { std::array::from_fn(|j| chunk.get(8 * i + j).copied()) };
        // SAFETY: an `Ifma` is made only where every feature was seen that the function is compiled for.
        let points = unsafe { decode::g1::<TOGETHER>(&std::array::from_fn(group)) };
        points.as_flattened()[..chunk.len()].to_vec()
    };
    let g2 = |chunk: &[&[u8]]| -> Vec<Option<G2Affine>> {
        // SAFETY: as above.
        let points = unsafe { decode::g2(&std::array::from_fn(|j| chunk.get(j).copied())) };
        points[..chunk.len()].to_vec()
    };
    let (ac, b): (Vec<_>, Vec<_>) = rayon::join(
        || ac.par_chunks(8 * TOGETHER).flat_map_iter(g1).collect(),
        || b.par_chunks(8).flat_map_iter(g2).collect(),
    );
    ac.as_chunks::<2>().0.iter().zip(b).map(|([a, c], b)| Some(Proof { a: (*a)?, b: b?, c: (*c)? })).collect()
}

/// `by[i] points[i]`; infinity among them. Uses rayon's pool.
pub(super) fn multiples(_seen: Ifma, points: &[G1Affine], by: &[u128]) -> Vec<G1Affine> {
    assert_eq!(points.len(), by.len());
    let eight = |(points, by): (&[G1Affine], &[u128])| -> Vec<G1Projective> {
        let point = |i: usize| points.get(i).copied().unwrap_or_default();
        let factor = |i: usize| by.get(i).copied().unwrap_or_default();
        // SAFETY: as above.
        let out = unsafe { multiples::multiples(&std::array::from_fn(point), &std::array::from_fn(factor)) };
        out[..points.len()].to_vec()
    };
    let out: Vec<G1Projective> = points.par_chunks(8).zip(by.par_chunks(8)).flat_map_iter(eight).collect();
    G1Projective::normalize_batch(&out)
}

#[cfg(test)]
mod tests;
