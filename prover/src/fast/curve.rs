//! The two curves, as both paths see them: coordinates as D elements of Fp, and points in blst's form with its sum of multiples.
//!
//! Form    blst and ark-ff hold an element of Fp alike: six words of `x 2^384 mod p`, lowest first. A test has the two agree on points
//! Source  blst's Pippenger; it takes affine points that are not infinity

use ark_bls12_381::{Fq, Fq2, Fr, G1Projective, G2Projective, g1, g2};
use ark_ec::short_weierstrass::{Affine, Projective, SWCurveConfig};
use ark_ff::BigInt;
use blst::{MultiPoint, blst_fp, blst_fp2, blst_p1_affine, blst_p2_affine};

/// Bits of a scalar.
const SCALAR_BITS: usize = 255;

/// A group of the pairing, with coordinates of D elements.
pub(super) trait Curve<const D: usize>: SWCurveConfig<ScalarField = Fr> {
    /// blst's affine point.
    type Blst: Copy + Send + Sync;

    /// A coordinate's elements.
    fn parts(x: &Self::BaseField) -> [Fq; D];
    /// The coordinate of these.
    fn whole(parts: [Fq; D]) -> Self::BaseField;
    /// For blst.
    fn to_blst(p: &Affine<Self>) -> Self::Blst;
    /// `sum scalars[i] points[i]`, 32 bytes a scalar, lowest first; not for an empty list.
    fn blst_sum(points: &[Self::Blst], scalars: &[u8]) -> Projective<Self>;
}

fn fp(x: &Fq) -> blst_fp {
    blst_fp { l: x.0.0 }
}

fn fq(x: &blst_fp) -> Fq {
    Fq::new_unchecked(BigInt(x.l))
}

fn fp2(x: &Fq2) -> blst_fp2 {
    blst_fp2 { fp: [fp(&x.c0), fp(&x.c1)] }
}

fn fq2(x: &blst_fp2) -> Fq2 {
    Fq2::new(fq(&x.fp[0]), fq(&x.fp[1]))
}

impl Curve<1> for g1::Config {
    type Blst = blst_p1_affine;

    fn parts(x: &Fq) -> [Fq; 1] {
        [*x]
    }
    fn whole([x]: [Fq; 1]) -> Fq {
        x
    }
    fn to_blst(p: &Affine<Self>) -> blst_p1_affine {
        blst_p1_affine { x: fp(&p.x), y: fp(&p.y) }
    }
    fn blst_sum(points: &[blst_p1_affine], scalars: &[u8]) -> G1Projective {
        let sum = points.mult(scalars, SCALAR_BITS);
        G1Projective::new_unchecked(fq(&sum.x), fq(&sum.y), fq(&sum.z))
    }
}

impl Curve<2> for g2::Config {
    type Blst = blst_p2_affine;

    fn parts(x: &Fq2) -> [Fq; 2] {
        [x.c0, x.c1]
    }
    fn whole([c0, c1]: [Fq; 2]) -> Fq2 {
        Fq2::new(c0, c1)
    }
    fn to_blst(p: &Affine<Self>) -> blst_p2_affine {
        blst_p2_affine { x: fp2(&p.x), y: fp2(&p.y) }
    }
    fn blst_sum(points: &[blst_p2_affine], scalars: &[u8]) -> G2Projective {
        let sum = points.mult(scalars, SCALAR_BITS);
        G2Projective::new_unchecked(fq2(&sum.x), fq2(&sum.y), fq2(&sum.z))
    }
}
