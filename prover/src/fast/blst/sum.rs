//! One window of a sum of multiples: points sorted by digit, all pairs of a bucket added at once in affine coordinates, one inversion for many.
//!
//! Weights  `sum w S_w` over the buckets' sums S_w, with `w = high 2^k + low`: the sums with one `high` are added up in the same way, and those
//!          with one `low`; what is left are two running sums of `2^k` points. Two affine additions a bucket instead of two projective ones
//! Rule     equal, opposite and absent points are found by their x and added by ark-ec, exactly: bases may repeat, and an attacker who
//!          chooses scalars chooses the sums
//! Source   as `ifma::sum`, which has lanes

use super::field::{Base, Element, Point, divide, inverse, mul, mul_assign, norm, square, sub, sub_assign};
use crate::fast::msm::Sorted;
use ark_ec::CurveGroup;
use ark_ec::short_weierstrass::Projective;
use ark_ff::AdditiveGroup;
use blst::blst_fp;
use fluence_crypto::curve::Curve;
use std::array::from_ref;

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
    let mut adder = Adder { pairs: Vec::with_capacity(PAIRS), halfway: vec![Halfway::default(); PAIRS] };
    let picked = |i: usize| (&points[order[i] as usize / 2], order[i] % 2 == 1);
    let mut sums = adder.halve::<C>(picked, lens);
    while lens.iter().any(|n| *n > 1) {
        sums = adder.halve::<C>(|i| (&sums[i], false), lens);
    }
    sums
}

/// What the first pass leaves for the second: the difference of x, room for its norm, the product of all norms so far.
#[derive(Clone, Copy)]
struct Halfway<const D: usize> {
    dx: Element<D>,
    norm: Base,
    product: Base,
}

impl<const D: usize> Default for Halfway<D> {
    fn default() -> Self {
        Self { dx: [blst_fp::default(); D], norm: Base::default(), product: Base::default() }
    }
}

/// A point, and whether its negative is meant.
type Signed<'a, const D: usize> = (&'a Point<D>, bool);

fn signed<const D: usize>((point, negative): Signed<'_, D>) -> Point<D> {
    let mut point = *point;
    if negative {
        point.negate();
    }
    point
}

struct Adder<const D: usize> {
    pairs: Vec<Pair<D>>,
    halfway: Vec<Halfway<D>>,
}

impl<const D: usize> Adder<D> {
    /// Halves every bucket.
    fn halve<'a, C: Curve<D>>(&mut self, get: impl Fn(usize) -> Signed<'a, D>, lens: &mut [u32]) -> Vec<Point<D>> {
        let total: u32 = lens.iter().map(|n| n.div_ceil(2)).sum();
        let mut out = vec![Point::infinity(); total as usize];
        let (mut from, mut to) = (0, 0);
        for len in lens {
            for _ in 0..*len / 2 {
                self.push::<C>(get(from), get(from + 1), to, &mut out);
                (from, to) = (from + 2, to + 1);
            }
            if *len % 2 == 1 {
                out[to] = signed(get(from));
                (from, to) = (from + 1, to + 1);
            }
            *len = len.div_ceil(2);
        }
        self.flush(&mut out);
        out
    }

    fn push<C: Curve<D>>(&mut self, p: Signed<'_, D>, q: Signed<'_, D>, to: usize, out: &mut [Point<D>]) {
        if p.0.x == q.0.x || p.0.is_infinity() || q.0.is_infinity() {
            let sum = signed(p).to_ark::<C>() + signed(q).to_ark::<C>();
            out[to] = Point::from_ark::<C>(&sum.into_affine());
            return;
        }
        self.pairs.push(Pair { p: *p.0, q: *q.0, to });
        let pair = self.pairs.last_mut().expect("pushed just now");
        for (point, (_, negative)) in [(&mut pair.p, p), (&mut pair.q, q)] {
            if negative {
                point.negate();
            }
        }
        if self.pairs.len() == PAIRS {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut [Point<D>]) {
        let Some(last) = self.pairs.len().checked_sub(1) else { return };
        for (i, Pair { p, q, .. }) in self.pairs.iter().enumerate() {
            let (before, rest) = self.halfway.split_at_mut(i);
            let Halfway { dx, norm: room, product } = &mut rest[0];
            sub(dx, &q.x, &p.x);
            let norm = norm(dx, room);
            match before.last() {
                None => *product = *norm,
                Some(before) => mul(product, &before.product, norm),
            }
        }
        // Backwards: each difference's inverse, and the sum.
        let (mut rest, mut norm_inverse) = (inverse(&self.halfway[last].product), Base::default());
        let mut slope = [blst_fp::default(); D];
        for (i, Pair { p, q, to }) in self.pairs.iter().enumerate().rev() {
            match i.checked_sub(1) {
                None => norm_inverse = rest,
                Some(before) => mul(&mut norm_inverse, &rest, &self.halfway[before].product),
            }
            let Halfway { dx, norm: room, .. } = &mut self.halfway[i];
            mul_assign(&mut rest, if D == 1 { from_ref(&dx[0]) } else { room });
            sub(&mut slope, &q.y, &p.y);
            divide(&mut slope, dx, &norm_inverse);
            let Point { x, y } = &mut out[*to];
            square(x, &slope);
            sub_assign(x, &p.x);
            sub_assign(x, &q.x);
            sub(y, &p.x, x);
            mul_assign(y, &slope);
            sub_assign(y, &p.y);
        }
        self.pairs.clear();
    }
}
