//! Our Groth16 prover: the proofs of ark-groth16 under the same keys, several times as fast.
//!
//! Proof    A, B, C with r = s = 0 by four sums of multiples (no B in G1), then made fresh: `A / x, x B + x y delta, C + y A`
//! Quotient six transforms, and no row of C: see [`quotient`]
//! Paths    [`Path::Ifma`] where the processor has AVX-512 IFMA, [`Path::Blst`] everywhere else; chosen at run time, compared in the tests
//! Time     not constant: a witness is ciphertext that its holder serves to anyone, and digests of it. No key passes through here
//! Source   Groth, EUROCRYPT 2016; Baghery, Kohlweiss, Siim, Volkhov, FC 2021 (eprint 2020/811), theorem 3, for the last step; `docs/prover.md`

mod blst;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod msm;
mod quotient;
#[cfg(test)]
mod tests;

use crate::keys::KeyError;
use crate::points::{KeyPoints, Query as Vector};
use crate::rows::Rows;
use crate::schedule::Gate;
use ark_bls12_381::{Fr, G1Affine, G2Affine, g1, g2};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{Field, UniformRand, Zero};
use msm::{Query, scalars};
use quotient::Domain;
use rand::RngCore;

/// Which arithmetic makes proofs. All make the same ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Path {
    /// AVX-512 IFMA, eight field elements at a time.
    Ifma,
    /// blst's field arithmetic, which looks at run time for ADX and BMI2 and has an aarch64 form.
    Blst,
    /// ark-groth16, as it is.
    Ark,
}

impl Path {
    /// The fastest that this processor can run.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if ifma::Ifma::detect().is_some() {
            return Self::Ifma;
        }
        Self::Blst
    }

    /// Every path that this processor can run.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Blst, Self::Ark];
        all.extend((Self::detect() != Self::Blst).then(Self::detect));
        all
    }
}

/// A proving key in the form that a path reads.
pub(crate) struct FastKey {
    alpha: G1Affine,
    beta: G2Affine,
    delta: G2Affine,
    a: Query<g1::Config, 1>,
    b: Query<g2::Config, 2>,
    /// Over the witnesses alone.
    l: Query<g1::Config, 1>,
    /// In the order in which the domain gives coefficients.
    h: Query<g1::Config, 1>,
    domain: Domain,
    inputs: usize,
}

/// The points of a proof.
pub(crate) type Points = (G1Affine, G2Affine, G1Affine);

impl FastKey {
    /// `None` for [`Path::Ark`], which reads keys as they are, and for a key that is not of this circuit. One vector after the other, so that
    /// of a key in a file one at a time is in memory twice.
    ///
    /// # Errors
    /// [`KeyError`] where the key's file can no longer be read.
    pub(crate) fn new(path: Path, points: &KeyPoints, rows: &Rows) -> Result<Option<Self>, KeyError> {
        let Some(domain) = Domain::new(path, rows).filter(|domain| points.h_count() + 1 == domain.size()) else {
            return Ok(None);
        };
        let ordered = |h: &[G1Affine]| -> Vec<G1Affine> {
            domain.order().into_iter().map(|k| h.get(k).copied().unwrap_or_default()).collect()
        };
        let vk = points.vk();
        Ok(Some(Self {
            alpha: vk.alpha_g1,
            beta: vk.beta_g2,
            delta: vk.delta_g2,
            a: Query::new(path, &points.g1(Vector::A)?),
            b: Query::new(path, &points.b_g2()?),
            l: Query::new(path, &points.g1(Vector::L)?),
            h: Query::new(path, &ordered(&points.g1(Vector::H)?)),
            domain,
            inputs: rows.inputs,
        }))
    }

    /// The proof with r = s = 0: what ark-groth16 makes with these.
    pub(crate) fn plain(&self, rows: &Rows, assignment: &[Fr], gate: &Gate) -> Points {
        gate.pass();
        let (all, h) = rayon::join(|| scalars(assignment), || self.domain.quotient(rows, assignment));
        let witnesses = &all[self.inputs..];
        let (b, (a, c)) = rayon::join(
            || self.b.sum(&all, gate) + self.beta,
            || {
                let (a, (l, h)) = rayon::join(
                    || self.a.sum(&all, gate),
                    || rayon::join(|| self.l.sum(witnesses, gate), || self.h.sum(&h, gate)),
                );
                (a + self.alpha, l + h)
            },
        );
        (a.into_affine(), b.into_affine(), c.into_affine())
    }

    /// A proof that nothing tells from a fresh one. `None` where A is infinity, which a key whose secrets are unknown does not let happen.
    pub(crate) fn prove(&self, rows: &Rows, assignment: &[Fr], gate: &Gate, rng: &mut dyn RngCore) -> Option<Points> {
        let (a, b, c) = self.plain(rows, assignment, gate);
        if a.is_zero() {
            return None;
        }
        let x = std::iter::repeat_with(|| Fr::rand(rng)).find(|x| !x.is_zero()).expect("a generator that is not stuck");
        let y = Fr::rand(rng);
        let fresh = (a * x.inverse().expect("not 0"), (b + self.delta * y) * x, c + a * y);
        Some((fresh.0.into_affine(), fresh.1.into_affine(), fresh.2.into_affine()))
    }
}
