//! Points: one by one in memory, eight at a time in registers.
//!
//! Point     affine, 64 bytes a base field element, so that a coordinate is one load; all zero stands for infinity
//! Projective  homogeneous, with the complete addition: infinity, doubling and opposites need no branch
//! Source    Renes, Costello, Batina, "Complete addition formulas for prime order elliptic curves", EUROCRYPT 2016, algorithms 7 and 9. They are
//!           complete where no point has order 2: both curves have odd order, all of them and not only their subgroups

use super::base::{self as field, Element, fq_from_limbs, fq_to_limbs};
use super::{Lanes, splat, transpose, vector, words};
use crate::curve::Curve;
use ark_bls12_381::Fq;
use ark_ec::AffineRepr;
use ark_ec::short_weierstrass::{Affine, Projective as ArkProjective};
use ark_ff::{AdditiveGroup, Field, Zero};

/// An affine point; coordinates below 1.01 p, those of a base below p.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Point<const D: usize> {
    /// x
    pub x: [[u64; 8]; D],
    /// y
    pub y: [[u64; 8]; D],
}

impl<const D: usize> Point<D> {
    /// All zero.
    pub const INFINITY: Self = Self { x: [[0; 8]; D], y: [[0; 8]; D] };

    /// The point as lanes hold it.
    #[must_use]
    pub fn from_ark<C: Curve<D>>(p: &Affine<C>) -> Self {
        if p.is_zero() {
            return Self::INFINITY;
        }
        Self { x: C::parts(&p.x).each_ref().map(fq_to_limbs), y: C::parts(&p.y).each_ref().map(fq_to_limbs) }
    }

    /// The other way.
    pub fn to_ark<C: Curve<D>>(self) -> Affine<C> {
        if self == Self::INFINITY {
            return Affine::identity();
        }
        let [x, y] = [self.x, self.y].map(|c| C::whole(c.each_ref().map(fq_from_limbs)));
        Affine::new_unchecked(x, y)
    }
}

/// Eight coordinates from memory.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn load<const D: usize>(rows: &[&[[u64; 8]; D]; 8]) -> Element<D> {
    let mut out = [splat(&[0; 8]); D];
    for d in 0..D {
        let mut v = [vector(&rows[0][d]); 8];
        for i in 1..8 {
            v[i] = vector(&rows[i][d]);
        }
        out[d] = Lanes(transpose(&v));
    }
    out
}

/// The other way.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn rows<const D: usize>(x: &Element<D>) -> [[[u64; 8]; D]; 8] {
    let mut out = [[[0; 8]; D]; 8];
    for d in 0..D {
        let v = transpose(&x[d].0);
        for i in 0..8 {
            words(v[i], &mut out[i][d]);
        }
    }
    out
}

/// Eight points `(X : Y : Z)`, `x = X / Z`, coordinates below 1.01 p.
#[derive(Clone, Copy)]
pub struct Projective<const D: usize> {
    /// X
    pub x: Element<D>,
    /// Y
    pub y: Element<D>,
    /// Z
    pub z: Element<D>,
}

/// One in every lane.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub fn one<const D: usize>() -> Element<D> {
    let mut out = [splat(&[0; 8]); D];
    out[0] = splat(&fq_to_limbs(&Fq::ONE));
    out
}

impl<const D: usize> Projective<D> {
    /// In every lane.
    #[must_use]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn infinity() -> Self {
        let zero = [splat(&[0; 8]); D];
        Self { x: zero, y: one(), z: zero }
    }

    /// The sum in each lane.
    #[must_use]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn plus(&self, q: &Self) -> Self {
        let t0 = field::mul(&self.x, &q.x);
        let t1 = field::mul(&self.y, &q.y);
        let t2 = field::mul(&self.z, &q.z);
        // Each: (a + b)(c + d) - ac - bd, below 7.1 p.
        let cross = |a: &Element<D>, b: &Element<D>, c: &Element<D>, d: &Element<D>, u: &Element<D>, v: &Element<D>| {
            field::sub::<5, D>(&field::mul(&field::add(a, b), &field::add(c, d)), &field::add(u, v))
        };
        let t3 = cross(&self.x, &self.y, &q.x, &q.y, &t0, &t1);
        let t4 = cross(&self.y, &self.z, &q.y, &q.z, &t1, &t2);
        let t5 = cross(&self.x, &self.z, &q.x, &q.z, &t0, &t2);
        let three = field::add(&field::add(&t0, &t0), &t0);
        let t2 = field::times_3b(&t2);
        let z = field::add(&t1, &t2);
        let t1 = field::sub::<4, D>(&t1, &t2);
        let y = field::times_3b(&t5);
        Self {
            x: field::reduce(&field::sub::<3, D>(&field::mul(&t3, &t1), &field::mul(&t4, &y))),
            y: field::reduce(&field::add(&field::mul(&t1, &z), &field::mul(&y, &three))),
            z: field::reduce(&field::add(&field::mul(&z, &t4), &field::mul(&three, &t3))),
        }
    }

    /// Each point twice.
    #[must_use]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn double(&self) -> Self {
        let t0 = field::square(&self.y);
        let two = field::add(&t0, &t0);
        let four = field::add(&two, &two);
        let eight = field::add(&four, &four);
        let t1 = field::mul(&self.y, &self.z);
        let t2 = field::reduce(&field::times_3b(&field::square(&self.z)));
        let three = field::add(&field::add(&t2, &t2), &t2);
        // y^2 - 9 b z^2 and y^2 + 3 b z^2, below 5.1 p and 2.1 p.
        let (less, more) = (field::sub::<4, D>(&t0, &three), field::add(&t0, &t2));
        let x = field::mul(&less, &field::mul(&self.x, &self.y));
        Self {
            x: field::reduce(&field::add(&x, &x)),
            y: field::reduce(&field::add(&field::mul(&less, &more), &field::mul(&t2, &eight))),
            z: field::reduce(&field::mul(&t1, &eight)),
        }
    }

    /// Lanes of `other` where `mask` has a bit, of `one` elsewhere.
    #[must_use]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub fn blend(mask: u8, one: &Self, other: &Self) -> Self {
        Self {
            x: field::blend(mask, &one.x, &other.x),
            y: field::blend(mask, &one.y, &other.y),
            z: field::blend(mask, &one.z, &other.z),
        }
    }

    /// The eight points in ark's Jacobian form: `(X Z : Y Z^2 : Z)`.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn to_ark<C: Curve<D>>(self) -> [ArkProjective<C>; 8] {
        let (x, y, z) = (rows(&self.x), rows(&self.y), rows(&self.z));
        let whole = |parts: &[[u64; 8]; D]| C::whole(parts.each_ref().map(fq_from_limbs));
        std::array::from_fn(|i| {
            let (x, y, z) = (whole(&x[i]), whole(&y[i]), whole(&z[i]));
            if z.is_zero() {
                return ArkProjective::ZERO;
            }
            ArkProjective::new_unchecked(x * z, y * z.square(), z)
        })
    }
}
