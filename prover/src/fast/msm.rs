//! Sums of multiples of a key's points.
//!
//! Digits   a scalar above r/2 stands for the negative of its rest, so that -1 is as short as 1; signed windows halve the buckets. Zeros
//!          cost nothing, a small scalar only its lowest windows
//! Points   those at infinity are dropped when the key is prepared, with the places of their scalars
//! Width    the one that makes the fewest additions for the number of points. No tables: they would save a tenth for many times the memory
//! Source   Pippenger 1980; `docs/prover.md` counts the additions

use super::Path;
use super::blst;
#[cfg(target_arch = "x86_64")]
use super::ifma::{self, Ifma, Point};
use crate::points::PIECE;
use crate::schedule::Gate;
use ark_bls12_381::Fr;
use ark_ec::AffineRepr;
use ark_ec::short_weierstrass::{Affine, Projective, SWCurveConfig};
use ark_ff::{AdditiveGroup, BigInt, BigInteger, PrimeField};
use fluence_crypto::curve::Curve;
use rayon::prelude::*;
use std::marker::PhantomData;

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

enum Points<const D: usize> {
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma, Vec<Point<D>>),
    Blst(Vec<blst::Point<D>>),
}

/// The points of one query of a key.
pub(super) struct Query<C: Curve<D>, const D: usize> {
    /// Places of the points that are not infinity; `None` where all are kept.
    kept: Option<Vec<u32>>,
    points: Points<D>,
    curve: PhantomData<C>,
}

impl<C: Curve<D>, const D: usize> Query<C, D> {
    pub(super) fn new(path: Path, all: &[Affine<C>]) -> Self {
        let places = || all.iter().enumerate().filter(|(_, p)| !p.is_zero()).map(|(i, _)| i as u32);
        let kept = all.iter().any(|p| p.is_zero()).then(|| places().collect::<Vec<_>>());
        let count = kept.as_ref().map_or(all.len(), Vec::len);
        let points = match path {
            #[cfg(target_arch = "x86_64")]
            Path::Ifma if let Some(seen) = Ifma::detect() => Points::Ifma(seen, finite(all, count, Point::from_ark)),
            _ => Points::Blst(finite(all, count, blst::Point::from_ark)),
        };
        Self { kept, points, curve: PhantomData }
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
            Points::Ifma(seen, points) => {
                by_windows(points, scalars, 4, gate, |digits, bits| ifma::window::<C, D>(*seen, points, digits, bits))
            }
            Points::Blst(points) => {
                by_windows(points, scalars, 2, gate, |digits, bits| blst::window::<C, D>(points, digits, bits))
            }
        }
    }
}

/// The `count` points that are not infinity, in another form; piece by piece, because what threads collect is in memory twice.
fn finite<C: SWCurveConfig, P: Send>(all: &[Affine<C>], count: usize, form: impl Fn(&Affine<C>) -> P + Sync) -> Vec<P> {
    let mut out = Vec::with_capacity(count);
    for piece in all.chunks(PIECE) {
        let points: Vec<P> = piece.par_iter().with_min_len(1 << 8).filter(|p| !p.is_zero()).map(&form).collect();
        out.extend(points);
    }
    out
}

/// The width with the fewest additions: each window adds every point once, and each bucket at the price of `bucket` points.
fn width(points: usize, bucket: usize) -> u32 {
    (2..=BITS_MAX)
        .min_by_key(|bits| DIGIT_BITS.div_ceil(*bits) as usize * (points + (bucket << (bits - 1))))
        .expect("the range is not empty")
}

/// Signed digits of `bits` bits, window by window; each is at most `2^(bits - 1)` in size.
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

fn by_windows<C: SWCurveConfig, P>(
    points: &[P],
    scalars: &[Scalar],
    bucket: usize,
    gate: &Gate,
    window: impl Fn(&[i16], u32) -> Projective<C> + Sync,
) -> Projective<C> {
    assert_eq!(points.len(), scalars.len());
    let bits = width(points.len(), bucket);
    let digits = digits(scalars, bits);
    let windows: Vec<Projective<C>> = digits
        .par_iter()
        .with_max_len(1)
        .map(|digits| {
            gate.pass();
            window(digits, bits)
        })
        .collect();
    windows
        .into_iter()
        .rev()
        .reduce(|sum, window| (0..bits).fold(sum, |sum, _| sum.double()) + window)
        .unwrap_or_default()
}

/// Which points are in which bucket, bucket after bucket.
pub(super) struct Sorted {
    /// `index * 2 + sign`.
    pub(super) order: Vec<u32>,
    /// Of the buckets 1, 2 ..: bucket 0 counts for nothing.
    pub(super) lens: Vec<u32>,
}

impl Sorted {
    /// By size of the digit, up to `2^(bits - 1)`.
    pub(super) fn by_digit(digits: &[i16], bits: u32) -> Self {
        Self::new(digits.iter().map(|d| (u32::from(d.unsigned_abs()), *d < 0)), 1 << (bits - 1))
    }

    /// By weights below `parts`.
    pub(super) fn by_weight(weights: impl Iterator<Item = u32> + Clone, parts: usize) -> Self {
        Self::new(weights.map(|w| (w, false)), parts - 1)
    }

    fn new(places: impl Iterator<Item = (u32, bool)> + Clone, buckets: usize) -> Self {
        // Counting sort.
        let mut ends = vec![0u32; buckets + 1];
        for (bucket, _) in places.clone() {
            ends[bucket as usize] += 1;
        }
        ends[0] = 0;
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let lens = ends.windows(2).map(|w| w[1] - w[0]).collect();
        let mut order = vec![0u32; sum as usize];
        for (i, (bucket, negative)) in places.enumerate().filter(|(_, (bucket, _))| *bucket != 0) {
            let at = &mut ends[bucket as usize - 1];
            order[*at as usize] = 2 * i as u32 + u32::from(negative);
            *at += 1;
        }
        Self { order, lens }
    }
}

#[cfg(test)]
mod tests;
