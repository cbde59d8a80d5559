//! Pairing checks: two pairs of points with one ratio, and vectors of powers, by random combinations.
//!
//! Rule    coefficients are 128 random bits drawn after the points are known; a false vector passes with probability 2^-128.
//! Source  ePrint 2017/1050, section 2 ("same ratio"); github.com/ebfull/powersoftau

use super::Random;
use ark_bls12_381::{Bls12_381, Fr, G1Affine, G2Affine};
use ark_ec::pairing::Pairing;
use ark_ec::{CurveGroup, VariableBaseMSM};
use ark_ff::Zero;

/// Whether `a.1 / a.0 = b.1 / b.0`.
pub(super) fn same(a: (G1Affine, G1Affine), b: (G2Affine, G2Affine)) -> bool {
    Bls12_381::multi_pairing([a.0, -a.1], [b.1, b.0]).is_zero()
}

/// Fresh coefficients.
pub(super) fn coefficients(count: usize, rng: &mut dyn Random) -> Vec<Fr> {
    (0..count)
        .map(|_| {
            let mut bytes = [0; 16];
            rng.fill_bytes(&mut bytes);
            // Never 0: no point may drop out.
            Fr::from(u128::from_le_bytes(bytes).max(1))
        })
        .collect()
}

/// `sum scalars[i] points[i]`.
pub(super) fn combine<G: CurveGroup<ScalarField = Fr> + VariableBaseMSM<MulBase = G::Affine>>(
    points: &[G::Affine],
    scalars: &[Fr],
) -> G {
    assert_eq!(points.len(), scalars.len(), "a coefficient for each point");
    G::msm_unchecked(points, scalars)
}

/// `sum rho_i v_i` and `sum rho_i v_{i+1}` over a vector that comes in pieces.
pub(super) struct Shifted<G: CurveGroup> {
    low: G,
    high: G,
    last: Option<G::Affine>,
}

impl<G: CurveGroup<ScalarField = Fr> + VariableBaseMSM<MulBase = G::Affine>> Shifted<G> {
    pub(super) fn new() -> Self {
        Self { low: G::zero(), high: G::zero(), last: None }
    }

    pub(super) fn add(&mut self, piece: &[G::Affine], rng: &mut dyn Random) {
        let v: Vec<G::Affine> = self.last.into_iter().chain(piece.iter().copied()).collect();
        self.last = v.last().copied();
        if v.len() > 1 {
            let rho = coefficients(v.len() - 1, rng);
            self.low += combine::<G>(&v[..v.len() - 1], &rho);
            self.high += combine::<G>(&v[1..], &rho);
        }
    }

    /// The pair; equal points at infinity where there was one element only, whose ratio is any.
    pub(super) fn pair(&self) -> (G::Affine, G::Affine) {
        (self.low.into_affine(), self.high.into_affine())
    }
}
