//! Sums of multiples of a key's points.
//!
//! Digits   a scalar above r/2 stands for the negative of its rest, so that -1 is as short as 1; signed windows halve the buckets. Zeros
//!          cost nothing, a small scalar only its lowest windows
//! Points   those at infinity are dropped when the key is prepared, with the places of their scalars
//! Width    the one that makes the fewest additions for the number of points. No tables: they would save a tenth for many times the memory
//! Source   Pippenger 1980; `docs/prover.md` counts the additions

use super::Path;
use super::curve::Curve;
#[cfg(target_arch = "x86_64")]
use super::ifma::{self, Ifma, Point};
use crate::schedule::Gate;
use ark_bls12_381::Fr;
use ark_ec::AffineRepr;
use ark_ec::short_weierstrass::{Affine, Projective};
use ark_ff::{AdditiveGroup, BigInt, BigInteger, PrimeField};
use rayon::prelude::*;

/// Widest window: a digit fits 16 bits.
const BITS_MAX: u32 = 15;
/// Bits of half of r, and one for the carry.
const DIGIT_BITS: u32 = 255;

/// A canonical scalar, lowest word first.
pub(super) type Scalar = [u64; 4];

/// Canonical integers of field elements.
pub(super) fn scalars(values: &[Fr]) -> Vec<Scalar> {
    values.par_iter().with_min_len(1 << 10).map(|x| x.into_bigint().0).collect()
}

enum Points<C: Curve<D>, const D: usize> {
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma, Vec<Point<D>>),
    Blst(Vec<C::Blst>),
}

/// The points of one query of a key.
pub(super) struct Query<C: Curve<D>, const D: usize> {
    /// Places of the points that are not infinity; `None` where all are kept.
    kept: Option<Vec<u32>>,
    points: Points<C, D>,
}

impl<C: Curve<D>, const D: usize> Query<C, D> {
    pub(super) fn new(path: Path, all: &[Affine<C>]) -> Self {
        let places = || all.iter().enumerate().filter(|(_, p)| !p.is_zero()).map(|(i, _)| i as u32);
        let kept = all.iter().any(|p| p.is_zero()).then(|| places().collect::<Vec<_>>());
        let finite = all.par_iter().with_min_len(1 << 10).filter(|p| !p.is_zero());
        let points = match path {
            #[cfg(target_arch = "x86_64")]
            Path::Ifma if let Some(seen) = Ifma::detect() => Points::Ifma(seen, finite.map(Point::from_ark).collect()),
            _ => Points::Blst(finite.map(C::to_blst).collect()),
        };
        Self { kept, points }
    }

    /// `sum scalars[i] points[i]`; there are as many scalars as points were given.
    pub(super) fn sum(&self, scalars: &[Scalar], gate: &Gate) -> Projective<C> {
        let picked: Vec<Scalar>;
        let scalars = match &self.kept {
            None => scalars,
            Some(kept) => {
                picked = kept.iter().map(|i| scalars[*i as usize]).collect();
                &picked
            }
        };
        match &self.points {
            #[cfg(target_arch = "x86_64")]
            Points::Ifma(seen, points) => by_windows::<C, D>(*seen, points, scalars, gate),
            Points::Blst(points) => by_blst::<C, D>(points, scalars, gate),
        }
    }
}

/// blst's sum, the points shared among the threads; what a zero multiplies is left out.
fn by_blst<C: Curve<D>, const D: usize>(points: &[C::Blst], scalars: &[Scalar], gate: &Gate) -> Projective<C> {
    assert_eq!(points.len(), scalars.len());
    let share = points.len().div_ceil(rayon::current_num_threads()).max(256);
    points
        .par_chunks(share)
        .zip(scalars.par_chunks(share))
        .map(|(points, scalars)| {
            gate.pass();
            let used = || points.iter().zip(scalars).filter(|(_, s)| **s != [0; 4]);
            let points: Vec<C::Blst> = used().map(|(p, _)| *p).collect();
            let bytes: Vec<u8> = used().flat_map(|(_, s)| s.iter().flat_map(|word| word.to_le_bytes())).collect();
            if points.is_empty() { Projective::ZERO } else { C::blst_sum(&points, &bytes) }
        })
        .reduce(|| Projective::ZERO, |a, b| a + b)
}

/// The width with the fewest additions: each window adds every point once, and each bucket twice at twice the price.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn width(points: usize) -> u32 {
    (2..=BITS_MAX)
        .min_by_key(|bits| DIGIT_BITS.div_ceil(*bits) as usize * (points + (4usize << (bits - 1))))
        .expect("the range is not empty")
}

/// Signed digits of `bits` bits, window by window; each is at most `2^(bits - 1)` in size.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn digits(scalars: &[Scalar], bits: u32) -> Vec<Vec<i16>> {
    let half = Fr::MODULUS_MINUS_ONE_DIV_TWO;
    let windows = DIGIT_BITS.div_ceil(bits) as usize;
    let mut out = vec![vec![0i16; scalars.len()]; windows];
    for (i, scalar) in scalars.iter().enumerate() {
        if *scalar == [0; 4] {
            continue;
        }
        let mut k = BigInt(*scalar);
        let negative = k > half;
        if negative {
            let mut rest = Fr::MODULUS;
            rest.sub_with_borrow(&k);
            k = rest;
        }
        let mut carry = 0;
        for (w, out) in out.iter_mut().enumerate() {
            let at = w * bits as usize;
            let (word, bit) = (at / 64, at % 64);
            let mut digit = k.0[word] >> bit;
            if bit + bits as usize > 64 && word + 1 < 4 {
                digit |= k.0[word + 1] << (64 - bit);
            }
            let mut digit = (digit & ((1 << bits) - 1)) as i32 + carry;
            carry = i32::from(digit > 1 << (bits - 1));
            digit -= carry << bits;
            out[i] = if negative { -digit } else { digit } as i16;
        }
        debug_assert_eq!(carry, 0, "half of r leaves room for the carry");
    }
    out
}

#[cfg(target_arch = "x86_64")]
fn by_windows<C: Curve<D>, const D: usize>(
    seen: Ifma,
    points: &[Point<D>],
    scalars: &[Scalar],
    gate: &Gate,
) -> Projective<C> {
    assert_eq!(points.len(), scalars.len());
    let bits = width(points.len());
    let digits = digits(scalars, bits);
    let windows: Vec<Projective<C>> = digits
        .par_iter()
        .with_max_len(1)
        .map(|digits| {
            gate.pass();
            ifma::window::<C, D>(seen, points, digits, bits)
        })
        .collect();
    windows
        .into_iter()
        .rev()
        .reduce(|sum, window| (0..bits).fold(sum, |sum, _| sum.double()) + window)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
