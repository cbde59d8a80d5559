//! blst's arithmetic for what a verifier does: decode a point, add multiples, multiply pairings.
//!
//! Rule    a point that [`g1`] or [`g2`] gives is on its curve, in the prime-order subgroup, and was its one encoding. Infinity pairs to one
//!         and is left out of every product and sum: blst's loops do not take it
//! Form    blst and ark-ff hold a base field element alike, six words of `x 2^384 mod p`, so a point changes hands by its words
//! Source  blst 0.3 by its safe functions; the twin on ark-ec in `tests.rs`

use ark_bls12_381::{Fq, Fq2, Fr, G1Affine, G2Affine};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{BigInt, BigInteger, PrimeField};
use blst::{
    MultiPoint, blst_fp, blst_fp2, blst_fp12, blst_p1, blst_p1_affine, blst_p2_affine, min_pk, min_sig, p1_affines,
};
use rayon::prelude::*;

/// Pairs whose squarings are shared: blst keeps a point for each on its stack.
const PAIRS_TOGETHER: usize = 16;
/// Points up to which one multiplication after the other is faster than blst's sum.
const ONE_BY_ONE: usize = 8;
/// Pairs below which a thread of their own is not worth it.
const PAIRS_APART: usize = 2;

fn fq(x: &blst_fp) -> Fq {
    Fq::new_unchecked(BigInt(x.l))
}

const fn fp(x: &Fq) -> blst_fp {
    blst_fp { l: x.0.0 }
}

fn to_g1(p: &G1Affine) -> blst_p1_affine {
    p.xy().map_or_else(blst_p1_affine::default, |(x, y)| blst_p1_affine { x: fp(&x), y: fp(&y) })
}

fn to_g2(p: &G2Affine) -> blst_p2_affine {
    let fp2 = |x: &Fq2| blst_fp2 { fp: [fp(&x.c0), fp(&x.c1)] };
    p.xy().map_or_else(blst_p2_affine::default, |(x, y)| blst_p2_affine { x: fp2(&x), y: fp2(&y) })
}

fn from_g1(p: &blst_p1_affine) -> G1Affine {
    if *p == blst_p1_affine::default() { G1Affine::zero() } else { G1Affine::new_unchecked(fq(&p.x), fq(&p.y)) }
}

/// A point of G1 from its compressed encoding.
pub(super) fn g1(bytes: &[u8]) -> Option<G1Affine> {
    let point = min_sig::Signature::uncompress(bytes).ok()?;
    point.validate(false).ok()?;
    // The decoder checks coordinates and flags; encoding again makes "one encoding" hold whatever it lets through.
    (point.compress() == bytes).then(|| from_g1(&point.into()))
}

/// A point of G2 from its compressed encoding.
pub(super) fn g2(bytes: &[u8]) -> Option<G2Affine> {
    let point = min_pk::Signature::uncompress(bytes).ok()?;
    point.validate(false).ok()?;
    if point.compress() != bytes {
        return None;
    }
    let p: blst_p2_affine = point.into();
    let fq2 = |x: &blst_fp2| Fq2::new(fq(&x.fp[0]), fq(&x.fp[1]));
    Some(if p == blst_p2_affine::default() { G2Affine::zero() } else { G2Affine::new_unchecked(fq2(&p.x), fq2(&p.y)) })
}

/// One point in affine form, infinity included.
fn affine(p: blst_p1) -> G1Affine {
    // Z = 0 is infinity; the batch conversion does not take it.
    if p.z == blst_fp::default() { G1Affine::zero() } else { from_g1(&p1_affines::from(&[p])[0]) }
}

/// `sum scalars[i] points[i]` for scalars below `2^bits`.
pub(super) fn sum_of_multiples(points: &[G1Affine], scalars: &[Fr], bits: usize) -> G1Affine {
    debug_assert_eq!(points.len(), scalars.len());
    if points.len() <= ONE_BY_ONE {
        return one_by_one(points, scalars);
    }
    let (mut used, mut bytes) = (Vec::with_capacity(points.len()), Vec::with_capacity(bits.div_ceil(8) * points.len()));
    for (point, scalar) in points.iter().zip(scalars).filter(|(p, s)| !p.is_zero() && **s != Fr::from(0u64)) {
        used.push(to_g1(point));
        let words = scalar.into_bigint().0;
        bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()).take(bits.div_ceil(8)));
    }
    if used.is_empty() { G1Affine::zero() } else { affine(used.mult(&bytes, bits)) }
}

/// The same, each multiple only as long as its scalar: an IC point's is 1, or a count.
fn one_by_one(points: &[G1Affine], scalars: &[Fr]) -> G1Affine {
    let multiple = |(point, scalar): (&G1Affine, &Fr)| {
        let integer = scalar.into_bigint();
        let bits = integer.num_bits() as usize;
        let bytes: Vec<u8> = integer.0.iter().flat_map(|w| w.to_le_bytes()).collect();
        match bits {
            0 => G1Affine::zero(),
            1 => *point,
            _ if point.is_zero() => *point,
            _ => affine([to_g1(point)].mult(&bytes[..bits.div_ceil(8)], bits)),
        }
    };
    let mut multiples = points.iter().zip(scalars).map(multiple);
    let Some(first) = multiples.next() else { return G1Affine::zero() };
    if points.len() == 1 { first } else { multiples.fold(first.into_group(), |sum, p| sum + p).into_affine() }
}

/// `prod e(p, q)` before the final exponentiation, by one thread; all points are in their subgroups.
pub(super) fn miller_loops(pairs: &[(G1Affine, G2Affine)]) -> blst_fp12 {
    let finite = pairs.iter().filter(|(p, q)| !p.is_zero() && !q.is_zero());
    let (p, q): (Vec<_>, Vec<_>) = finite.map(|(p, q)| (to_g1(p), to_g2(q))).unzip();
    if p.is_empty() { blst_fp12::default() } else { blst_fp12::miller_loop_n(&q, &p) }
}

/// Whether a product of Miller loops is one, once it is exponentiated.
pub(super) fn is_one(product: &blst_fp12) -> bool {
    product.final_exp() == blst_fp12::default()
}

/// Whether `prod e(p, q)` is one; all points are in their subgroups. Uses rayon's pool where there are many.
pub(super) fn product_is_one(pairs: &[(G1Affine, G2Affine)]) -> bool {
    // As many parts for each thread, so that none waits for another's last.
    let threads = rayon::current_num_threads();
    let parts = pairs.len().div_ceil(PAIRS_TOGETHER).max(1).next_multiple_of(threads);
    let together = pairs.len().div_ceil(parts).max(PAIRS_APART);
    is_one(&pairs.par_chunks(together).map(miller_loops).reduce(blst_fp12::default, |a, b| a * b))
}
