//! One window of a sum of multiples: points sorted by digit, all pairs of a bucket added at once in affine coordinates, one inversion for many.
//!
//! Weights  `sum w S_w` over the buckets' sums S_w, with `w = high 2^k + low`: the sums with one `high` are added up in the same way, and those
//!          with one `low`; what is left are two running sums of `2^k` points. Two affine additions a bucket instead of two projective ones
//! Rule     equal, opposite and absent points are found by their x and added by ark-ec, exactly: bases may repeat, and an attacker who
//!          chooses scalars chooses the sums
//! Source   as `ifma::sum`, which has lanes

use super::field::{Point, base_mul, divide, inverse, mul, norm, square, sub};
use crate::fast::curve::Curve;
use crate::fast::msm::Sorted;
use ark_ec::CurveGroup;
use ark_ec::short_weierstrass::Projective;
use ark_ff::AdditiveGroup;
use blst::blst_fp;

/// Pairs that share an inversion: what they keep fits the second-level cache.
const PAIRS: usize = 256;

/// Two points with different x, and where their sum goes.
#[derive(Clone, Copy)]
struct Pair<const D: usize> {
    p: Point<D>,
    q: Point<D>,
    to: usize,
}

/// `sum digits[i] points[i]`, digits at most `2^(bits - 1)` in size.
pub(in crate::fast) fn window<C: Curve<D>, const D: usize>(
    points: &[Point<D>],
    digits: &[i16],
    bits: u32,
) -> Projective<C> {
    let Sorted { order, mut lens } = Sorted::by_digit(digits, bits);
    let sums = add_up::<C, D>(points, &order, &mut lens);
    let low_bits = bits / 2;
    // The weights of the sums that are there, in order.
    let weights: Vec<u32> = (1..).zip(&lens).filter(|(_, len)| **len == 1).map(|(weight, _)| weight).collect();
    let by = |part: &dyn Fn(u32) -> u32, parts: usize| weighted::<C, D>(&sums, weights.iter().map(|w| part(*w)), parts);
    let low = by(&|weight| weight & ((1 << low_bits) - 1), 1 << low_bits);
    let high = by(&|weight| weight >> low_bits, (1 << (bits - 1 - low_bits)) + 1);
    (0..low_bits).fold(high, |sum, _| sum.double()) + low
}

/// `sum weight[i] points[i]` for weights below `parts`.
fn weighted<C: Curve<D>, const D: usize>(
    points: &[Point<D>],
    weights: impl Iterator<Item = u32> + Clone,
    parts: usize,
) -> Projective<C> {
    let Sorted { order, mut lens } = Sorted::by_weight(weights, parts);
    let sums = add_up::<C, D>(points, &order, &mut lens);
    let mut next = sums.iter().rev();
    let (mut run, mut total) = (Projective::<C>::ZERO, Projective::<C>::ZERO);
    for len in lens.iter().rev() {
        if *len == 1 {
            run += next.next().expect("a sum for each that is there").to_ark::<C>();
        }
        total += run;
    }
    total
}

/// The sum of each bucket that has one. `lens` are the buckets' sizes, after it 1 or 0.
fn add_up<C: Curve<D>, const D: usize>(points: &[Point<D>], order: &[u32], lens: &mut [u32]) -> Vec<Point<D>> {
    let base = |i: usize| {
        let picked = order[i];
        let point = &points[picked as usize / 2];
        if picked % 2 == 1 { point.negated() } else { *point }
    };
    let mut adder = Adder { pairs: Vec::with_capacity(PAIRS), before: Vec::with_capacity(PAIRS) };
    let mut sums = adder.halve::<C>(base, lens);
    while lens.iter().any(|n| *n > 1) {
        sums = adder.halve::<C>(|i| sums[i], lens);
    }
    sums
}

struct Adder<const D: usize> {
    pairs: Vec<Pair<D>>,
    /// For each pair its difference's norm, and the product of all norms before.
    before: Vec<[blst_fp; 2]>,
}

impl<const D: usize> Adder<D> {
    /// Halves every bucket.
    fn halve<C: Curve<D>>(&mut self, get: impl Fn(usize) -> Point<D>, lens: &mut [u32]) -> Vec<Point<D>> {
        let total: u32 = lens.iter().map(|n| n.div_ceil(2)).sum();
        let mut out = vec![Point::infinity(); total as usize];
        let (mut from, mut to) = (0, 0);
        for len in lens {
            for _ in 0..*len / 2 {
                self.push::<C>(Pair { p: get(from), q: get(from + 1), to }, &mut out);
                (from, to) = (from + 2, to + 1);
            }
            if *len % 2 == 1 {
                out[to] = get(from);
                (from, to) = (from + 1, to + 1);
            }
            *len = len.div_ceil(2);
        }
        self.flush(&mut out);
        out
    }

    fn push<C: Curve<D>>(&mut self, pair: Pair<D>, out: &mut [Point<D>]) {
        let Pair { p, q, to } = pair;
        if p.x == q.x || p == Point::infinity() || q == Point::infinity() {
            out[to] = Point::from_ark::<C>(&(p.to_ark::<C>() + q.to_ark::<C>()).into_affine());
            return;
        }
        self.pairs.push(pair);
        if self.pairs.len() == PAIRS {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut [Point<D>]) {
        let mut product: Option<blst_fp> = None;
        for Pair { p, q, .. } in &self.pairs {
            let norm = norm(&sub(&q.x, &p.x));
            let before = product.unwrap_or_default();
            product = Some(product.map_or(norm, |product| base_mul(&product, &norm)));
            self.before.push([norm, before]);
        }
        let mut rest = inverse(&product.unwrap_or_default());
        for (i, (Pair { p, q, to }, [norm, before])) in self.pairs.iter().zip(&self.before).enumerate().rev() {
            let norm_inverse = if i == 0 { rest } else { base_mul(&rest, before) };
            rest = base_mul(&rest, norm);
            let slope = divide(&sub(&q.y, &p.y), &sub(&q.x, &p.x), &norm_inverse);
            let x = sub(&sub(&square(&slope), &p.x), &q.x);
            let y = sub(&mul(&slope, &sub(&p.x, &x)), &p.y);
            out[*to] = Point { x, y };
        }
        self.pairs.clear();
        self.before.clear();
    }
}
