//! Elements of Fp and Fp2 by blst's single operations, and affine points of them.
//!
//! Unsafe  blst has no safe form of these. Each reads one or two whole elements and writes one, all through references of ours, and keeps
//!         none of them; any six words below p are an element, and every result is one
//! Form    as ark-ff's: six words of `x 2^384 mod p`. Each value has one form, so equal means equal words
//! Time    not constant: [`inverse`] is the fast one

#![allow(unsafe_code)]

use crate::fast::curve::Curve;
use ark_bls12_381::Fq;
use ark_ec::AffineRepr;
use ark_ec::short_weierstrass::Affine;
use ark_ff::BigInt;
use blst::{blst_fp, blst_fp2};

/// An element of Fp (D = 1) or Fp2 (D = 2).
pub(super) type Element<const D: usize> = [blst_fp; D];

/// `f1` or `f2` on D elements, as blst's Fp or Fp2 takes them.
macro_rules! by_degree {
    ($d:expr, $f1:path, $f2:path, $out:ident, $($arg:ident),+) => {
        // SAFETY: pointers from references to D whole elements, for the length of the call; `blst_fp2` is two `blst_fp` in C's layout.
        unsafe {
            match $d {
                1 => $f1($out.as_mut_ptr(), $($arg.as_ptr()),+),
                2 => $f2($out.as_mut_ptr().cast::<blst_fp2>(), $($arg.as_ptr().cast::<blst_fp2>()),+),
                _ => unreachable!("coordinates have one element or two"),
            }
        }
    };
}

pub(super) fn mul<const D: usize>(a: &Element<D>, b: &Element<D>) -> Element<D> {
    let mut out = [blst_fp::default(); D];
    by_degree!(D, blst::blst_fp_mul, blst::blst_fp2_mul, out, a, b);
    out
}

pub(super) fn square<const D: usize>(a: &Element<D>) -> Element<D> {
    let mut out = [blst_fp::default(); D];
    by_degree!(D, blst::blst_fp_sqr, blst::blst_fp2_sqr, out, a);
    out
}

pub(super) fn sub<const D: usize>(a: &Element<D>, b: &Element<D>) -> Element<D> {
    let mut out = [blst_fp::default(); D];
    by_degree!(D, blst::blst_fp_sub, blst::blst_fp2_sub, out, a, b);
    out
}

fn add(a: &blst_fp, b: &blst_fp) -> blst_fp {
    let mut out = blst_fp::default();
    // SAFETY: as above.
    unsafe { blst::blst_fp_add(&mut out, a, b) };
    out
}

/// The product of all conjugates: in Fp, and 0 only for 0.
pub(super) fn norm<const D: usize>(a: &Element<D>) -> blst_fp {
    if D == 1 {
        return a[0];
    }
    let [x, y] = [square(&[a[0]]), square(&[a[1]])];
    add(&x[0], &y[0])
}

/// `a / b`, given the inverse of b's norm.
pub(super) fn divide<const D: usize>(a: &Element<D>, b: &Element<D>, norm_inverse: &blst_fp) -> Element<D> {
    let mut numerator = *a;
    if D == 2 {
        let mut conjugate = *b;
        [conjugate[1]] = sub(&[blst_fp::default()], &[b[1]]);
        numerator = mul(a, &conjugate);
    }
    numerator.map(|part| base_mul(&part, norm_inverse))
}

pub(super) fn base_mul(a: &blst_fp, b: &blst_fp) -> blst_fp {
    let [out] = mul(&[*a], &[*b]);
    out
}

/// 0 for 0.
pub(super) fn inverse(a: &blst_fp) -> blst_fp {
    let mut out = blst_fp::default();
    // SAFETY: as above.
    unsafe { blst::blst_fp_eucl_inverse(&mut out, a) };
    out
}

/// An affine point; all zero stands for infinity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point<const D: usize> {
    pub(super) x: Element<D>,
    pub(super) y: Element<D>,
}

impl<const D: usize> Point<D> {
    pub(super) fn infinity() -> Self {
        let zero = [blst_fp::default(); D];
        Self { x: zero, y: zero }
    }

    pub(in crate::fast) fn from_ark<C: Curve<D>>(p: &Affine<C>) -> Self {
        let element = |x: &C::BaseField| C::parts(x).map(|part| blst_fp { l: part.0.0 });
        p.xy().map_or_else(Self::infinity, |(x, y)| Self { x: element(&x), y: element(&y) })
    }

    pub(super) fn to_ark<C: Curve<D>>(self) -> Affine<C> {
        if self == Self::infinity() {
            return Affine::identity();
        }
        let whole = |x: Element<D>| C::whole(x.map(|part| Fq::new_unchecked(BigInt(part.l))));
        Affine::new_unchecked(whole(self.x), whole(self.y))
    }

    pub(super) fn negated(&self) -> Self {
        Self { x: self.x, y: sub(&[blst_fp::default(); D], &self.y) }
    }
}
