//! Elements of Fp and Fp2 by blst's single operations, and affine points of them.
//!
//! Unsafe  blst has no safe form of these. Each reads one or two whole elements and writes one, all through references of ours, and keeps
//!         none of them; any six words below p are an element, and every result is one. A result may lie where an operand was
//! Place   results are written where they are read next: a copy by wide loads right after blst's narrow stores stalls the processor, and
//!         such copies were a fifth of a sum
//! Form    as ark-ff's: six words of `x 2^384 mod p`. Each value has one form, so equal means equal words
//! Time    not constant: [`inverse`] is the fast one

#![allow(unsafe_code)]

use ark_bls12_381::Fq;
use ark_ec::AffineRepr;
use ark_ec::short_weierstrass::Affine;
use ark_ff::BigInt;
use blst::{blst_fp, blst_fp2};
use fluence_crypto::curve::Curve;
use std::array::{from_mut, from_ref};

/// An element of Fp (D = 1) or Fp2 (D = 2).
pub(super) type Element<const D: usize> = [blst_fp; D];
/// An element of Fp.
pub(super) type Base = Element<1>;

/// `f1` or `f2` on D elements, as blst's Fp or Fp2 takes them: the result, then the operands.
macro_rules! by_degree {
    ($d:expr, $f1:path, $f2:path, $out:expr, $($arg:expr),+) => {
        // SAFETY: pointers from references to D whole elements, for the length of the call; `blst_fp2` is two `blst_fp` in C's layout.
        unsafe {
            match $d {
                1 => $f1($out, $($arg),+),
                2 => $f2($out.cast::<blst_fp2>(), $($arg.cast::<blst_fp2>()),+),
                _ => unreachable!("coordinates have one element or two"),
            }
        }
    };
}

/// `out = a b`
pub(super) fn mul<const D: usize>(out: &mut Element<D>, a: &Element<D>, b: &Element<D>) {
    by_degree!(D, blst::blst_fp_mul, blst::blst_fp2_mul, out.as_mut_ptr(), a.as_ptr(), b.as_ptr());
}

/// `a = a b`
pub(super) fn mul_assign<const D: usize>(a: &mut Element<D>, b: &Element<D>) {
    let a = a.as_mut_ptr();
    by_degree!(D, blst::blst_fp_mul, blst::blst_fp2_mul, a, a, b.as_ptr());
}

/// `out = a^2`
pub(super) fn square<const D: usize>(out: &mut Element<D>, a: &Element<D>) {
    by_degree!(D, blst::blst_fp_sqr, blst::blst_fp2_sqr, out.as_mut_ptr(), a.as_ptr());
}

/// `out = a - b`
pub(super) fn sub<const D: usize>(out: &mut Element<D>, a: &Element<D>, b: &Element<D>) {
    by_degree!(D, blst::blst_fp_sub, blst::blst_fp2_sub, out.as_mut_ptr(), a.as_ptr(), b.as_ptr());
}

/// `a = a - b`
pub(super) fn sub_assign<const D: usize>(a: &mut Element<D>, b: &Element<D>) {
    let a = a.as_mut_ptr();
    by_degree!(D, blst::blst_fp_sub, blst::blst_fp2_sub, a, a, b.as_ptr());
}

/// The product of all conjugates: in Fp, and 0 only for 0. It lies in `room` where it is not the element itself.
pub(super) fn norm<'a, const D: usize>(a: &'a Element<D>, room: &'a mut Base) -> &'a Base {
    if D == 1 {
        return from_ref(&a[0]);
    }
    let mut other = Base::default();
    square(room, from_ref(&a[0]));
    square(&mut other, from_ref(&a[1]));
    let out = room.as_mut_ptr();
    // SAFETY: as above.
    unsafe { blst::blst_fp_add(out, out, other.as_ptr()) };
    room
}

/// `a = a / b`, given the inverse of b's norm.
pub(super) fn divide<const D: usize>(a: &mut Element<D>, b: &Element<D>, norm_inverse: &Base) {
    if D == 2 {
        let mut conjugate = *b;
        sub(from_mut(&mut conjugate[1]), &Base::default(), from_ref(&b[1]));
        mul_assign(a, &conjugate);
    }
    a.iter_mut().for_each(|part| mul_assign(from_mut(part), norm_inverse));
}

/// 0 for 0.
pub(super) fn inverse(a: &Base) -> Base {
    let mut out = Base::default();
    // SAFETY: as above.
    unsafe { blst::blst_fp_eucl_inverse(out.as_mut_ptr(), a.as_ptr()) };
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

    pub(super) fn is_infinity(&self) -> bool {
        *self == Self::infinity()
    }

    pub(in crate::fast) fn from_ark<C: Curve<D>>(p: &Affine<C>) -> Self {
        let element = |x: &C::BaseField| C::parts(x).map(|part| blst_fp { l: part.0.0 });
        p.xy().map_or_else(Self::infinity, |(x, y)| Self { x: element(&x), y: element(&y) })
    }

    pub(super) fn to_ark<C: Curve<D>>(self) -> Affine<C> {
        if self.is_infinity() {
            return Affine::identity();
        }
        let whole = |x: Element<D>| C::whole(x.map(|part| Fq::new_unchecked(BigInt(part.l))));
        Affine::new_unchecked(whole(self.x), whole(self.y))
    }

    pub(super) fn negate(&mut self) {
        let y = self.y;
        sub(&mut self.y, &[blst_fp::default(); D], &y);
    }
}
