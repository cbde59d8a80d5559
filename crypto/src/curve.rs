//! The two groups of the pairing, one code for both: coordinates as D elements of Fp.

use ark_bls12_381::{Fq, Fq2, Fr, g1, g2};
use ark_ec::short_weierstrass::SWCurveConfig;

/// A group of the pairing, with coordinates of D elements.
pub trait Curve<const D: usize>: SWCurveConfig<ScalarField = Fr> {
    /// A coordinate's elements.
    fn parts(x: &Self::BaseField) -> [Fq; D];
    /// The coordinate of these.
    fn whole(parts: [Fq; D]) -> Self::BaseField;
}

impl Curve<1> for g1::Config {
    fn parts(x: &Fq) -> [Fq; 1] {
        [*x]
    }
    fn whole([x]: [Fq; 1]) -> Fq {
        x
    }
}

impl Curve<2> for g2::Config {
    fn parts(x: &Fq2) -> [Fq; 2] {
        [x.c0, x.c1]
    }
    fn whole([c0, c1]: [Fq; 2]) -> Fq2 {
        Fq2::new(c0, c1)
    }
}
