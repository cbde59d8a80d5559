//! Fourier transforms over the scalar field in lanes, and with them the quotient `(a b - c) / Z`.
//!
//! Layout   value i of n = 8 m stands in lane i / m of vector i mod m, so all but three of the levels are the same for the eight lanes. A
//!          transform to coefficients leaves coefficient `8 reversed(q) + reversed(p)` in lane p of vector q; the way back takes that
//!          order, and the key's bases are put in it once, so nothing is ever put back in order
//! Bounds   stored values are below 1.2 r; a butterfly reduces sums by a quotient from the top limb
//! Source   Cooley and Tukey 1965; Gentleman and Sande 1966; Bailey's four-step split for the lanes

use ark_bls12_381::Fr;
use ark_ff::{FftField, Field};
use fluence_crypto::lanes::{self, Lanes, R255, limbs, pack, splat, vector, words};
use rayon::prelude::*;
use std::arch::x86_64::{__m512i, _mm512_permutexvar_epi64, _mm512_set_epi64};

/// Vectors below which a transform stays on its core.
const PARALLEL_MIN: usize = 1 << 10;

/// Eight scalars.
type V = Lanes<5>;

fn reversed(i: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) }
}

/// Everything of one direction: roots by level, and the twiddles between the lanes' transforms and the lanes.
struct Direction {
    /// `[half + j]` is `root_(2 half)^j`.
    roots: Vec<[u64; 5]>,
    /// `root_n^(v k)` in lane k: by the high and by the low part of v.
    high: Vec<[[u64; 8]; 5]>,
    low: Vec<[[u64; 8]; 5]>,
    /// Twiddles of the first two lane levels.
    lanes: [[[u64; 8]; 5]; 2],
}

/// A domain of n = 8 m points and its coset on which `x^n = -1`.
pub(crate) struct Domain {
    log_n: u32,
    forward: Direction,
    inverse: Direction,
    /// `(g^8)^k` and `(g^-8)^k` for k in the order of coefficients.
    coset: Vec<[u64; 5]>,
    coset_inverse: Vec<[u64; 5]>,
    /// In lane p: `g^reversed(p) / n`; `-g^-reversed(p) / 2 n`; `1 / 2 n`.
    to_coset: [[u64; 8]; 5],
    from_coset: [[u64; 8]; 5],
    half: [[u64; 8]; 5],
}

/// Eight scalars, limb by limb.
fn columns(x: [Fr; 8]) -> [[u64; 8]; 5] {
    let rows = x.map(limbs);
    std::array::from_fn(|limb| std::array::from_fn(|lane| rows[lane][limb]))
}

fn powers(base: Fr, count: usize) -> Vec<Fr> {
    std::iter::successors(Some(Fr::ONE), |x| Some(*x * base)).take(count).collect()
}

impl Direction {
    fn new(root: Fr, log_n: u32) -> Self {
        let m = 1usize << (log_n - 3);
        let mut roots = vec![[0; 5]; m];
        let mut half = m / 2;
        let mut base = root.pow([8]);
        while half > 0 {
            for (slot, w) in roots[half..2 * half].iter_mut().zip(powers(base, half)) {
                *slot = limbs(w);
            }
            base.square_in_place();
            half /= 2;
        }
        let lane: [Fr; 8] = std::array::from_fn(|p| root.pow([reversed(p, 3) as u64]));
        let low_count = 1usize << ((log_n - 3) / 2);
        let table = |step: u64, count: usize| {
            let steps = lane.map(|w| w.pow([step]));
            let mut at = [Fr::ONE; 8];
            (0..count)
                .map(|_| {
                    let now = columns(at);
                    at = std::array::from_fn(|i| at[i] * steps[i]);
                    now
                })
                .collect()
        };
        let eighth = powers(root.pow([m as u64]), 4);
        let [e0, e1, e2, e3] = [eighth[0], eighth[1], eighth[2], eighth[3]];
        let lanes = [columns([e0, e0, e0, e0, e0, e1, e2, e3]), columns([e0, e0, e0, e2, e0, e0, e0, e2])];
        Self { roots, low: table(1, low_count), high: table(low_count as u64, m / low_count), lanes }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn between(&self, v: usize) -> V {
        let low = self.low.len();
        product(&wide(&self.high[v / low]), &wide(&self.low[v % low]))
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn wide(x: &[[u64; 8]; 5]) -> V {
    let mut out = splat(&[0; 5]);
    for i in 0..5 {
        out.0[i] = vector(&x[i]);
    }
    out
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn product(a: &V, b: &V) -> V {
    lanes::mul::<R255, 5>(a, b)
}

/// `(u + v, (u - v) w)`
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn down(u: &mut V, v: &mut V, w: &[u64; 5]) {
    let difference = lanes::sub::<2, R255, 5>(u, v);
    *u = lanes::reduce::<R255, 5>(&lanes::add(u, v));
    *v = product(&difference, &splat(w));
}

/// `(u + v w, u - v w)`
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn up(u: &mut V, v: &mut V, w: &[u64; 5]) {
    let t = product(v, &splat(w));
    *v = lanes::reduce::<R255, 5>(&lanes::sub::<2, R255, 5>(u, &t));
    *u = lanes::reduce::<R255, 5>(&lanes::add(u, &t));
}

/// Natural order in, reversed out.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn descend(x: &mut [V], roots: &[[u64; 5]]) {
    let half = x.len() / 2;
    if half == 0 {
        return;
    }
    let (low, high) = x.split_at_mut(half);
    for ((u, v), w) in low.iter_mut().zip(high.iter_mut()).zip(&roots[half..]) {
        down(u, v, w);
    }
    if half >= PARALLEL_MIN {
        rayon::join(|| descend(low, roots), || descend(high, roots));
    } else {
        descend(low, roots);
        descend(high, roots);
    }
}

/// Reversed order in, natural out.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn ascend(x: &mut [V], roots: &[[u64; 5]]) {
    let half = x.len() / 2;
    if half == 0 {
        return;
    }
    let (low, high) = x.split_at_mut(half);
    if half >= PARALLEL_MIN {
        rayon::join(|| ascend(low, roots), || ascend(high, roots));
    } else {
        ascend(low, roots);
        ascend(high, roots);
    }
    for ((u, v), w) in low.iter_mut().zip(high.iter_mut()).zip(&roots[half..]) {
        up(u, v, w);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn permuted(order: __m512i, x: &V) -> V {
    let mut out = *x;
    for i in 0..5 {
        out.0[i] = _mm512_permutexvar_epi64(order, x.0[i]);
    }
    out
}

/// For each of the three lane levels: where the partner stands, and which lanes are the upper ones.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn partners() -> [(__m512i, u8); 3] {
    [
        (_mm512_set_epi64(3, 2, 1, 0, 7, 6, 5, 4), 0xf0),
        (_mm512_set_epi64(5, 4, 7, 6, 1, 0, 3, 2), 0xcc),
        (_mm512_set_epi64(6, 7, 4, 5, 2, 3, 0, 1), 0xaa),
    ]
}

/// In each lane: itself plus its partner, or in an upper lane the partner less itself.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn lane_level((order, upper): (__m512i, u8), x: &V) -> V {
    let negated = lanes::negate_where::<2, R255, 5>(upper, x);
    lanes::reduce::<R255, 5>(&lanes::add(&negated, &permuted(order, x)))
}

impl Domain {
    /// Of `2^log_n` points, 16 at least.
    pub(crate) fn new(log_n: u32) -> Self {
        assert!((4..=28).contains(&log_n), "a domain has 2^4 to 2^28 points");
        let (n, m) = (1u64 << log_n, 1usize << (log_n - 3));
        let root = Fr::get_root_of_unity(n).expect("the field has roots of unity up to 2^32");
        let g = Fr::get_root_of_unity(2 * n).expect("the field has roots of unity up to 2^32");
        let inverse = |x: Fr| x.inverse().expect("not 0");
        let (root_inverse, g_inverse) = (inverse(root), inverse(g));
        let in_order = |base: Fr| {
            let natural = powers(base.pow([8]), m);
            (0..m).map(|q| limbs(natural[reversed(q, log_n - 3)])).collect()
        };
        let lane = |base: Fr, by: Fr| columns(std::array::from_fn(|p| base.pow([reversed(p, 3) as u64]) * by));
        let (one_n, half_n) = (inverse(Fr::from(n)), inverse(Fr::from(2 * n)));
        Self {
            log_n,
            forward: Direction::new(root, log_n),
            inverse: Direction::new(root_inverse, log_n),
            coset: in_order(g),
            coset_inverse: in_order(g_inverse),
            to_coset: lane(g, one_n),
            from_coset: lane(g_inverse, -half_n),
            half: lane(Fr::ONE, half_n),
        }
    }

    /// Which coefficient stands at each place of what [`Self::quotient`] gives.
    pub(crate) fn order(&self) -> impl Iterator<Item = usize> {
        let log_m = self.log_n - 3;
        (0..1usize << self.log_n).map(move |i| 8 * reversed(i / 8, log_m) + reversed(i % 8, 3))
    }

    /// Coefficients (times n) of values.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn to_coefficients(&self, x: &mut [V]) {
        let d = &self.inverse;
        x.par_chunks_mut(PARALLEL_MIN).enumerate().for_each(|(chunk, part)| {
            let [l0, l1, l2] = partners();
            let (w0, w1) = (wide(&d.lanes[0]), wide(&d.lanes[1]));
            for (i, x) in part.iter_mut().enumerate() {
                let y = product(&lane_level(l0, x), &w0);
                let y = product(&lane_level(l1, &y), &w1);
                *x = product(&lane_level(l2, &y), &d.between(chunk * PARALLEL_MIN + i));
            }
        });
        descend(x, &d.roots);
    }

    /// Values of coefficients.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn to_values(&self, x: &mut [V]) {
        let d = &self.forward;
        ascend(x, &d.roots);
        x.par_chunks_mut(PARALLEL_MIN).enumerate().for_each(|(chunk, part)| {
            let [l0, l1, l2] = partners();
            let (w0, w1) = (wide(&d.lanes[0]), wide(&d.lanes[1]));
            for (i, x) in part.iter_mut().enumerate() {
                let y = lane_level(l2, &product(x, &d.between(chunk * PARALLEL_MIN + i)));
                let y = lane_level(l1, &product(&y, &w1));
                *x = lane_level(l0, &product(&y, &w0));
            }
        });
    }

    /// Multiplies coefficient by coefficient: vector q by `by[q]` and lane by lane by `lane`.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn scale(x: &mut [V], by: &[[u64; 5]], lane: &[[u64; 8]; 5]) {
        x.par_chunks_mut(PARALLEL_MIN).zip(by.par_chunks(PARALLEL_MIN)).for_each(|(x, by)| {
            let lane = wide(lane);
            for (x, by) in x.iter_mut().zip(by) {
                *x = product(&product(x, &splat(by)), &lane);
            }
        });
    }

    /// Coefficients of `(a b - c) / (X^n - 1)`, where c is `a b` on the domain, as integers below r in the order of [`Self::order`].
    ///
    /// `a b` is `low + X^n high`, with c = low + high on the domain and q = low - high on the coset: the quotient is `high = (c - q) / 2`.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(crate) fn quotient(&self, a: &(dyn Fn(usize) -> Fr + Sync), b: &(dyn Fn(usize) -> Fr + Sync)) -> Vec<[u64; 4]> {
        let m = 1usize << (self.log_n - 3);
        let fill = |value: &(dyn Fn(usize) -> Fr + Sync)| {
            let mut x = vec![splat(&[0; 5]); m];
            x.par_iter_mut().enumerate().with_min_len(64).for_each(|(v, x)| {
                *x = wide(&columns(std::array::from_fn(|lane| value(lane * m + v))));
            });
            x
        };
        let (mut a, mut b) = (fill(a), fill(b));
        let multiply = |a: &[V], b: &[V]| {
            let mut out = vec![splat(&[0; 5]); m];
            out.par_iter_mut().zip(a.par_iter().zip(b)).with_min_len(PARALLEL_MIN).for_each(|(o, (a, b))| {
                *o = product(a, b);
            });
            out
        };
        let mut c = multiply(&a, &b);
        let lift = |x: &mut [V]| {
            self.to_coefficients(x);
            Self::scale(x, &self.coset, &self.to_coset);
            self.to_values(x);
        };
        rayon::join(|| lift(&mut a), || lift(&mut b));
        let mut q = multiply(&a, &b);
        drop(b);
        rayon::join(|| self.to_coefficients(&mut c), || self.to_coefficients(&mut q));
        // The unit that leaves Montgomery's form.
        let mut out = vec![[[0; 4]; 8]; m];
        out.par_iter_mut().zip(c.par_iter().zip(&q)).zip(&self.coset_inverse).with_min_len(64).for_each(
            |((out, (c, q)), by)| {
                let q = product(&product(q, &splat(by)), &wide(&self.from_coset));
                let sum = lanes::add(&product(c, &wide(&self.half)), &q);
                let plain = product(&sum, &splat(&[1, 0, 0, 0, 0]));
                let plain = lanes::less_if_not_below::<1, R255, 5>(&plain);
                let mut columns = [[0; 8]; 5];
                for i in 0..5 {
                    words(plain.0[i], &mut columns[i]);
                }
                for (lane, out) in out.iter_mut().enumerate() {
                    *out = pack(&columns.each_ref().map(|c| c[lane]));
                }
            },
        );
        out.into_flattened()
    }
}
