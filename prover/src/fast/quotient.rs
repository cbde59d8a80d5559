//! The quotient polynomial's coefficients from six transforms, and no row of C.
//!
//! Why      a witness that satisfies the circuit has c = a b on the domain, so `a b = low + X^n high` gives c = low + high there, and on the
//!          coset with g^n = -1 it gives q = low - high. The quotient `(a b - c) / (X^n - 1)` is `high = (c - q) / 2`: c and q each take one
//!          transform back to coefficients, a and b one there and one back. A witness that does not satisfy makes a proof that does not
//!          verify, and none is handed out unverified
//! Source   the identity is ours; compare ark-groth16's seven transforms in `r1cs_to_qap.rs`

use super::Path;
#[cfg(target_arch = "x86_64")]
use super::ifma::{self, Ifma};
use super::msm::{Scalar, scalars};
use crate::rows::Rows;
use ark_bls12_381::Fr;
use ark_ff::{FftField, Field};
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use rayon::prelude::*;

/// Fewest points for which lanes are used.
#[cfg(target_arch = "x86_64")]
const LANES_LOG_MIN: u32 = 4;

/// The domain of a circuit on one of the paths.
pub(super) enum Domain {
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma, ifma::Domain, usize),
    /// The domain and its coset.
    Ark([Radix2EvaluationDomain<Fr>; 2]),
}

impl Domain {
    /// `None` for a circuit that no domain is large enough for.
    pub(super) fn new(path: Path, rows: &Rows) -> Option<Self> {
        let domain = Radix2EvaluationDomain::<Fr>::new(rows.constraints() + rows.inputs)?;
        let size = domain.size();
        match path {
            #[cfg(target_arch = "x86_64")]
            Path::Ifma
                if size >= 1 << LANES_LOG_MIN
                    && let Some(seen) = Ifma::detect() =>
            {
                Some(Self::Ifma(seen, ifma::Domain::new(size.ilog2()), size))
            }
            Path::Ark => None,
            _ => {
                let coset = domain.get_coset(Fr::get_root_of_unity(2 * size as u64)?)?;
                Some(Self::Ark([domain, coset]))
            }
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(_, _, size) => *size,
            Self::Ark([domain, _]) => domain.size(),
        }
    }

    /// Which coefficient stands where in [`Self::quotient`].
    pub(super) fn order(&self) -> Vec<usize> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(_, domain, _) => domain.order().collect(),
            Self::Ark([domain, _]) => (0..domain.size()).collect(),
        }
    }

    /// The quotient's coefficients for an assignment (one, inputs, witnesses).
    pub(super) fn quotient(&self, rows: &Rows, assignment: &[Fr]) -> Vec<Scalar> {
        let a = |i: usize| rows.a(i, assignment);
        let b = |i: usize| rows.b(i, assignment);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(seen, domain, _) => ifma::quotient(*seen, domain, &a, &b),
            Self::Ark(domains) => quotient(domains, &a, &b),
        }
    }
}

fn quotient(
    [domain, coset]: &[Radix2EvaluationDomain<Fr>; 2],
    a: &(dyn Fn(usize) -> Fr + Sync),
    b: &(dyn Fn(usize) -> Fr + Sync),
) -> Vec<Scalar> {
    let fill = |value: &(dyn Fn(usize) -> Fr + Sync)| -> Vec<Fr> {
        (0..domain.size()).into_par_iter().with_min_len(64).map(value).collect()
    };
    let multiply =
        |a: &[Fr], b: &[Fr]| -> Vec<Fr> { a.par_iter().zip(b).with_min_len(1 << 10).map(|(a, b)| *a * b).collect() };
    let (mut a, mut b) = (fill(a), fill(b));
    let mut c = multiply(&a, &b);
    for x in [&mut a, &mut b] {
        domain.ifft_in_place(x);
        coset.fft_in_place(x);
    }
    let mut q = multiply(&a, &b);
    domain.ifft_in_place(&mut c);
    coset.ifft_in_place(&mut q);
    let half = Fr::from(2u64).inverse().expect("2 is not 0");
    c.par_iter_mut().zip(&q).with_min_len(1 << 10).for_each(|(c, q)| *c = (*c - q) * half);
    scalars(&c)
}
