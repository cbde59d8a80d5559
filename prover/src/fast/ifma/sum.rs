//! One window of a sum of multiples: points are sorted into buckets by digit, buckets are added up in affine coordinates, eight pairs at
//! a time with one inversion for many, and the buckets' multiples by running sums in eight lanes.
//!
//! Why      an affine addition is 6 products once its division is shared, a projective one 10 to 16. All pairs of a round are independent, so
//!          there is no conflict to avoid: a bucket of k points takes ceil(log2 k) rounds
//! Rule     equal, opposite and absent points are found by their x and added by ark-ec, exactly: bases may repeat, and an attacker who
//!          chooses scalars chooses the sums
//! Source   batched affine addition by Montgomery's trick as in gnark-crypto and blst; Pippenger, SIAM J. Comput. 9(2), 1980

#![allow(unsafe_code)] // the prefetch

use crate::fast::msm::Sorted;
use ark_bls12_381::Fq;
use ark_ec::CurveGroup;
use ark_ec::short_weierstrass::Projective as ArkProjective;
use ark_ff::{AdditiveGroup, Field, Zero};
use fluence_crypto::curve::Curve;
use fluence_crypto::lanes::base::{self as field, Element, P381, fq_from_limbs, fq_to_limbs};
use fluence_crypto::lanes::curve::{Point, Projective, load, one, rows};
use fluence_crypto::lanes::{self, Lanes, splat, transpose, vector, words};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Groups of eight pairs that share an inversion: what they keep between the passes fits the second-level cache.
const GROUPS: usize = 64;
/// The index that pads a group.
const PADDING: u32 = u32::MAX;

/// What the first pass leaves for the second.
#[derive(Clone, Copy)]
struct Halfway<const D: usize> {
    x1: Element<D>,
    dx: Element<D>,
    norm: Lanes<8>,
    before: Lanes<8>,
}

/// A pair to be added: two sources and where the sum goes.
type Pair = [u32; 3];

/// Where a round's points come from.
#[derive(Clone, Copy)]
enum Source<'a, const D: usize> {
    /// Bases, picked and negated: `index * 2 + sign`.
    Bases(&'a [Point<D>], &'a [u32]),
    /// Sums of the round before.
    Sums(&'a [Point<D>]),
}

impl<'a, const D: usize> Source<'a, D> {
    fn get(self, i: u32) -> (&'a Point<D>, bool) {
        match self {
            Self::Bases(bases, order) => {
                let picked = order[i as usize];
                (&bases[picked as usize / 2], picked % 2 == 1)
            }
            Self::Sums(sums) => (&sums[i as usize], false),
        }
    }

    fn prefetch(self, i: u32) {
        if let Self::Bases(..) = self {
            let (point, _) = self.get(i);
            for line in 0..2 * D {
                // SAFETY: a prefetch reads nothing that the program sees, and the address is inside a live point.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(point).cast::<i8>().add(64 * line)) };
            }
        }
    }

    /// The point itself, its sign applied.
    fn signed(self, i: u32) -> Point<D> {
        let (point, negative) = self.get(i);
        if negative && *point != Point::INFINITY { negated(point) } else { *point }
    }
}

/// Of a base: its coordinates are below p.
fn negated<const D: usize>(point: &Point<D>) -> Point<D> {
    let negate = |y: &[u64; 8]| {
        if *y == [0; 8] {
            return *y;
        }
        let mut borrow = 0;
        std::array::from_fn(|i| {
            let limb = (<P381 as lanes::Modulus<8>>::P[i] as i64) - y[i] as i64 + borrow;
            borrow = limb >> lanes::BITS;
            limb as u64 & lanes::MASK
        })
    };
    Point { x: point.x, y: point.y.each_ref().map(negate) }
}

/// `sum digits[i] bases[i]`, digits at most `2^(bits - 1)` in size.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn window<C: Curve<D>, const D: usize>(bases: &[Point<D>], digits: &[i16], bits: u32) -> ArkProjective<C> {
    assert_eq!(bases.len(), digits.len());
    let Sorted { order, mut lens } = Sorted::by_digit(digits, bits);
    let (sums, mut spare) = (&mut Vec::new(), &mut Vec::new());
    let mut work = Round::<C, D>::new();
    work.run(Source::Bases(bases, &order), sums, &mut lens);
    let mut sums = sums;
    while lens.iter().any(|n| *n > 1) {
        work.run(Source::Sums(sums), spare, &mut lens);
        std::mem::swap(&mut sums, &mut spare);
    }
    drop(order);
    running_sums(sums, &lens)
}

struct Round<C: Curve<D>, const D: usize> {
    pairs: Vec<Pair>,
    halfway: Vec<Halfway<D>>,
    curve: std::marker::PhantomData<C>,
    padding: [Point<D>; 2],
}

impl<C: Curve<D>, const D: usize> Round<C, D> {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new() -> Self {
        let g = C::GENERATOR;
        let twice = (g + g).into_affine();
        let zero = [splat(&[0; 8]); D];
        let empty = Halfway { x1: zero, dx: zero, norm: zero[0], before: zero[0] };
        Self {
            pairs: Vec::with_capacity(8 * GROUPS),
            halfway: vec![empty; GROUPS],
            curve: std::marker::PhantomData,
            padding: [Point::from_ark::<C>(&g), Point::from_ark::<C>(&twice)],
        }
    }

    /// Halves every bucket. `lens` are the buckets' sizes, before and after.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn run(&mut self, source: Source<'_, D>, out: &mut Vec<Point<D>>, lens: &mut [u32]) {
        let total: u32 = lens.iter().map(|n| n.div_ceil(2)).sum();
        out.resize(total as usize, Point::INFINITY);
        let (mut from, mut to) = (0, 0);
        for len in lens {
            for _ in 0..*len / 2 {
                source.prefetch(from);
                source.prefetch(from + 1);
                self.pairs.push([from, from + 1, to]);
                if self.pairs.len() == 8 * GROUPS {
                    self.flush(source, out);
                }
                (from, to) = (from + 2, to + 1);
            }
            if *len % 2 == 1 {
                out[to as usize] = source.signed(from);
                (from, to) = (from + 1, to + 1);
            }
            *len = len.div_ceil(2);
        }
        self.flush(source, out);
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn flush(&mut self, source: Source<'_, D>, out: &mut [Point<D>]) {
        if self.pairs.is_empty() {
            return;
        }
        let groups = self.pairs.len().div_ceil(8);
        self.pairs.resize(8 * groups, [PADDING; 3]);
        let padding = self.padding;
        let get = |i: u32, side: usize| if i == PADDING { (&padding[side], false) } else { source.get(i) };
        let mut special = Vec::new();

        // First pass: differences of x, their product so far.
        let one = one::<1>()[0];
        let mut product = one;
        for g in 0..groups {
            let pairs = &self.pairs[8 * g..8 * g + 8];
            let mut rows = [(&padding[0].x, &padding[1].x); 8];
            for i in 0..8 {
                rows[i] = (&get(pairs[i][0], 0).0.x, &get(pairs[i][1], 1).0.x);
            }
            let (x1, x2) = (load(&rows.map(|r| r.0)), load(&rows.map(|r| r.1)));
            let dx = field::sub::<2, D>(&x2, &x1);
            let mut norm = field::norm(&dx);
            // Equal or opposite points, or one that is absent: exactly, later, and out of the product here.
            let zero =
                if D == 1 { lanes::maybe_zero::<3, P381, 8>(&norm) } else { lanes::maybe_zero::<1, P381, 8>(&norm) };
            let mask = zero | lanes::maybe_zero::<0, P381, 8>(&x1[0]) | lanes::maybe_zero::<0, P381, 8>(&x2[0]);
            if mask != 0 {
                norm = lanes::blend(mask, &norm, &one);
                special.extend((0..8).filter(|i| mask >> i & 1 == 1).map(|i| 8 * g + i));
            }
            self.halfway[g] = Halfway { x1, dx, norm, before: product };
            product = field::base_mul(&product, &norm);
        }

        // Second pass, backwards: each difference's inverse, and the sum.
        let mut inverse = inverses(&product);
        for g in (0..groups).rev() {
            let Halfway { x1, dx, norm, before } = self.halfway[g];
            let norm_inverse = field::base_mul(&inverse, &before);
            inverse = field::base_mul(&inverse, &norm);
            let pairs = &self.pairs[8 * g..8 * g + 8];
            let mut rows1 = [&padding[0].y; 8];
            let mut rows2 = [&padding[1].y; 8];
            let (mut minus1, mut minus2) = (0u8, 0u8);
            for i in 0..8 {
                let ((p, p_negative), (q, q_negative)) = (get(pairs[i][0], 0), get(pairs[i][1], 1));
                (rows1[i], rows2[i]) = (&p.y, &q.y);
                minus1 |= u8::from(p_negative) << i;
                minus2 |= u8::from(q_negative) << i;
            }
            let (mut y1, mut y2) = (load(&rows1), load(&rows2));
            if let Source::Bases(..) = source {
                for d in 0..D {
                    y1[d] = lanes::negate_where::<1, P381, 8>(minus1, &y1[d]);
                    y2[d] = lanes::negate_where::<1, P381, 8>(minus2, &y2[d]);
                }
            }
            let slope = field::divide(&field::sub::<2, D>(&y2, &y1), &dx, &norm_inverse);
            // x3 = slope^2 - x1 - x2, and x2 = x1 + dx - 2 p.
            let both = field::add(&field::add(&x1, &x1), &dx);
            let x3 = field::reduce(&field::sub::<6, D>(&field::square(&slope), &both));
            let y3 = field::sub::<2, D>(&field::mul(&slope, &field::sub::<2, D>(&x1, &x3)), &y1);
            let (x3, y3) = (rows(&x3), rows(&field::reduce(&y3)));
            for i in 0..8 {
                if pairs[i][2] != PADDING {
                    out[pairs[i][2] as usize] = Point { x: x3[i], y: y3[i] };
                }
            }
        }
        for i in special {
            let [a, b, to] = self.pairs[i];
            if to != PADDING {
                let sum = source.signed(a).to_ark::<C>() + source.signed(b).to_ark::<C>();
                out[to as usize] = Point::from_ark::<C>(&sum.into_affine());
            }
        }
        self.pairs.clear();
    }
}

/// The inverse in each lane, none of which is 0.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverses(x: &Lanes<8>) -> Lanes<8> {
    let mut limbs = [[0; 8]; 8];
    for (v, row) in transpose(&x.0).into_iter().zip(&mut limbs) {
        words(v, row);
    }
    let values = limbs.each_ref().map(fq_from_limbs);
    let mut before = [Fq::ONE; 8];
    for i in 1..8 {
        before[i] = before[i - 1] * values[i - 1];
    }
    let mut inverse = (before[7] * values[7]).inverse().expect("a product of numbers that are not 0");
    for i in (0..8).rev() {
        limbs[i] = fq_to_limbs(&(inverse * before[i]));
        inverse *= values[i];
    }
    let mut out = [vector(&limbs[0]); 8];
    for i in 1..8 {
        out[i] = vector(&limbs[i]);
    }
    Lanes(transpose(&out))
}

/// `sum (b + 1) bucket[b]`; a bucket has one point or none, in order in `sums`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn running_sums<C: Curve<D>, const D: usize>(sums: &[Point<D>], lens: &[u32]) -> ArkProjective<C> {
    let infinity = Point::INFINITY;
    let mut next = 0;
    let buckets: Vec<&Point<D>> = lens
        .iter()
        .map(|len| {
            let at = next;
            next += *len as usize;
            if *len == 1 { &sums[at] } else { &infinity }
        })
        .collect();
    // Lane l takes the buckets from l m: there, sum (l m + t) P = sum t P + l m sum P.
    let m = buckets.len().div_ceil(8);
    let (mut run, mut weighted) = (Projective::<D>::infinity(), Projective::<D>::infinity());
    let (zero, one) = ([splat(&[0; 8]); D], one::<D>());
    for t in (0..m).rev() {
        let mut points = [&infinity; 8];
        let mut absent = 0u8;
        for (l, point) in points.iter_mut().enumerate() {
            *point = buckets.get(l * m + t).copied().unwrap_or(&infinity);
            absent |= u8::from(**point == infinity) << l;
        }
        let (x, y) = (load(&points.map(|p| &p.x)), load(&points.map(|p| &p.y)));
        let point = Projective { x, y: field::blend(absent, &y, &one), z: field::blend(absent, &one, &zero) };
        run = run.plus(&point);
        weighted = weighted.plus(&run);
    }
    let (run, weighted) = (run.to_ark::<C>(), weighted.to_ark::<C>());
    let (mut above, mut lanes) = (ArkProjective::<C>::ZERO, ArkProjective::<C>::ZERO);
    for l in (1..8).rev() {
        above += run[l];
        lanes += above;
    }
    let mut sum: ArkProjective<C> = weighted.into_iter().sum();
    if !lanes.is_zero() {
        sum += ark_ec::PrimeGroup::mul_bigint(&lanes, [m as u64]);
    }
    sum
}
