//! The base field in lanes, the quadratic extension, and the way to and from ark-ff's form.
//!
//! Form     ark holds `x 2^384`, lanes hold `x 2^416`: a factor of 2^32 apart
//! Element  `[Lanes; D]`: D = 1 is Fp, D = 2 is Fp2 = Fp[u] / (u^2 + 1), one code for both curves

use super::{Lanes, Modulus, Wide, pack, split};
use crate::lanes;
use ark_bls12_381::Fq;
use ark_ff::{BigInt, Field, PrimeField};
use std::arch::x86_64::{_mm512_add_epi64, _mm512_set1_epi64, _mm512_sub_epi64};
use std::sync::LazyLock;

/// The base field.
pub struct P381;

impl Modulus<8> for P381 {
    const P: [u64; 8] = split(&Fq::MODULUS.0);
}

static SHIFT: LazyLock<(Fq, Fq)> = LazyLock::new(|| {
    let shift = Fq::from(1u64 << 32);
    (shift, shift.inverse().expect("not 0"))
});

/// An element of Fp in limbs, below p.
pub fn fq_to_limbs(x: &Fq) -> [u64; 8] {
    split(&(*x * SHIFT.0).0.0)
}

/// From limbs below 2 p.
pub fn fq_from_limbs(limbs: &[u64; 8]) -> Fq {
    let mut words = BigInt::<6>(pack(limbs));
    if words >= Fq::MODULUS {
        ark_ff::BigInteger::sub_with_borrow(&mut words, &Fq::MODULUS);
    }
    Fq::new_unchecked(words) * SHIFT.1
}

/// A coordinate of eight points.
pub type Element<const D: usize> = [Lanes<8>; D];

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn pair<const D: usize>(c0: Lanes<8>, c1: Lanes<8>) -> Element<D> {
    let mut out = [c0; D];
    out[D - 1] = c1;
    out
}

/// `x + p R`: makes a difference of products positive.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn lifted(mut x: Wide) -> Wide {
    for i in 0..8 {
        x.0[8 + i] = _mm512_add_epi64(x.0[8 + i], _mm512_set1_epi64(P381::P[i] as i64));
    }
    x
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn minus(mut a: Wide, b: &Wide) -> Wide {
    for i in 0..16 {
        a.0[i] = _mm512_sub_epi64(a.0[i], b.0[i]);
    }
    a
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn plus(mut a: Wide, b: &Wide) -> Wide {
    for i in 0..16 {
        a.0[i] = _mm512_add_epi64(a.0[i], b.0[i]);
    }
    a
}

/// In Fp. Not inlined, like the products below: each is hundreds of instructions, and is called from many places.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline(never)]
pub fn base_mul(a: &Lanes<8>, b: &Lanes<8>) -> Lanes<8> {
    lanes::mul::<P381, 8>(a, b)
}

/// `a^2` in Fp, for chains of squares: a third fewer products of limbs.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline(never)]
pub fn base_square(a: &Lanes<8>) -> Lanes<8> {
    lanes::square::<P381, 8>(a)
}

/// Factors below 2^8 p; gives below 2.01 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline(never)]
pub fn mul<const D: usize>(a: &Element<D>, b: &Element<D>) -> Element<D> {
    if D == 1 {
        return [base_mul(&a[0], &b[0]); D];
    }
    let (v0, v1) = (lanes::product(&a[0], &b[0]), lanes::product(&a[1], &b[1]));
    let sum = lanes::product(&lanes::add(&a[0], &a[1]), &lanes::add(&b[0], &b[1]));
    let c1 = lanes::reduced::<P381, 8>(&minus(minus(sum, &v0), &v1));
    let c0 = lanes::reduced::<P381, 8>(&lifted(minus(v0, &v1)));
    pair(c0, c1)
}

/// Of an element below 2^6 p; gives below 1.01 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline(never)]
pub fn square<const D: usize>(a: &Element<D>) -> Element<D> {
    if D == 1 {
        return [base_mul(&a[0], &a[0]); D];
    }
    // (a0 + a1)(a0 - a1), 2 a0 a1
    let a1 = lanes::reduce::<P381, 8>(&a[1]);
    let difference = lanes::sub::<2, P381, 8>(&a[0], &a1);
    let c0 = base_mul(&lanes::add(&a[0], &a1), &difference);
    let c1 = base_mul(&lanes::add(&a[0], &a[0]), &a1);
    pair(c0, c1)
}

/// `a + b`
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn add<const D: usize>(a: &Element<D>, b: &Element<D>) -> Element<D> {
    pair(lanes::add(&a[0], &b[0]), lanes::add(&a[D - 1], &b[D - 1]))
}

/// `a - b + K p` for a `b` below `K p`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn sub<const K: usize, const D: usize>(a: &Element<D>, b: &Element<D>) -> Element<D> {
    pair(lanes::sub::<K, P381, 8>(&a[0], &b[0]), lanes::sub::<K, P381, 8>(&a[D - 1], &b[D - 1]))
}

/// The same element below 1.01 p, of one below 7 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn reduce<const D: usize>(a: &Element<D>) -> Element<D> {
    pair(lanes::reduce::<P381, 8>(&a[0]), lanes::reduce::<P381, 8>(&a[D - 1]))
}

/// Lanes of `b` where `mask` has a bit.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn blend<const D: usize>(mask: u8, a: &Element<D>, b: &Element<D>) -> Element<D> {
    pair(lanes::blend(mask, &a[0], &b[0]), lanes::blend(mask, &a[D - 1], &b[D - 1]))
}

/// Lanes in which `a` and `b` are the same element, exactly; `b` below 3 p, both together below 7 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn equal<const D: usize>(a: &Element<D>, b: &Element<D>) -> u8 {
    let difference = reduce(&sub::<3, D>(a, b));
    lanes::zero::<P381, 8>(&difference[0]) & lanes::zero::<P381, 8>(&difference[D - 1])
}

/// `a0^2 + a1^2` of an element of Fp2 below 2^8 p, below 1.01 p; the element itself in Fp. It is 0 only where the element is.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn norm<const D: usize>(a: &Element<D>) -> Lanes<8> {
    if D == 1 {
        return a[0];
    }
    let squares = plus(lanes::product(&a[0], &a[0]), &lanes::product(&a[1], &a[1]));
    lanes::reduced::<P381, 8>(&squares)
}

/// `x / a`, given the inverse of `a`'s norm; `a` below 4 p. Gives below 1.01 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn divide<const D: usize>(x: &Element<D>, a: &Element<D>, norm_inverse: &Lanes<8>) -> Element<D> {
    if D == 1 {
        return [base_mul(&x[0], norm_inverse); D];
    }
    let conjugate = pair(a[0], lanes::negate_where::<4, P381, 8>(0xff, &a[1]));
    let quotient = mul::<D>(x, &conjugate);
    pair(base_mul(&quotient[0], norm_inverse), base_mul(&quotient[1], norm_inverse))
}

/// `3 b x`, b = 4 in Fp and 4 (1 + u) in Fp2: of an element below 7 p, below 3.1 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn times_3b<const D: usize>(x: &Element<D>) -> Element<D> {
    let mut x = reduce(x);
    if D == 2 {
        x = reduce(&pair(lanes::sub::<2, P381, 8>(&x[0], &x[1]), lanes::add(&x[0], &x[1])));
    }
    let two = add(&x, &x);
    let four = reduce(&add(&two, &two));
    add(&add(&four, &four), &four)
}
