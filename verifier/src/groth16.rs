//! Groth16 over BLS12-381: the only place that says yes to a proof.
//!
//! Relation    e(A, B) = e(alpha, beta) * e(IC_0 + sum x_i IC_i, gamma) * e(C, delta)
//! Rule        every point from outside is decoded with curve and subgroup checks and has one encoding; every input is below r
//!             by its type. A key whose points are infinity is refused: such a key accepts anything.
//! Encodings   off chain 192 bytes A48 | B96 | C48, compressed as by zcash; on chain uncompressed EIP-2537, A128 | B256 | C128
//! Arithmetic  blst's, by [`blst_points`]; of many proofs at once, decoding and multiples in `lanes` where the processor has AVX-512 IFMA,
//!             chosen at run time. A twin on ark-ec and the prover's library (ark-groth16) are oracles in the tests
//! Source      Groth, EUROCRYPT 2016, section 3.2; <https://eips.ethereum.org/EIPS/eip-2537>; DESIGN section 6
//! Deviations  none

mod blst_points;
mod eip2537;
mod key;
#[cfg(target_arch = "x86_64")]
mod lanes;

pub use eip2537::{G1_BYTES as EIP2537_G1_BYTES, G2_BYTES as EIP2537_G2_BYTES, PROOF_BYTES as EIP2537_PROOF_BYTES};
pub use key::{KeyError, VerificationKey};

use ark_bls12_381::{Fr, G1Affine, G2Affine};
use ark_ff::{PrimeField, Zero};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
#[cfg(target_arch = "x86_64")]
use fluence_crypto::lanes::Ifma;
use fluence_types::FieldBytes;
use fluence_types::proof::ProofBytes;
use rand::RngCore;
use rayon::prelude::*;

/// Bits of a coefficient in a batch.
const COEFFICIENT_BITS: usize = 128;

/// Why a proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The statement has another number of public inputs than the key.
    #[error("{got} public inputs given, the key takes {want}")]
    InputCount {
        /// Given.
        got: usize,
        /// What the key takes.
        want: usize,
    },
    /// A point is not the canonical encoding of a curve point in the prime-order subgroup.
    #[error("proof point {0} is not a canonical point of the prime-order subgroup")]
    Point(&'static str),
    /// The pairing equation does not hold.
    #[error("proof does not match its statement under this key")]
    Mismatch,
}

/// Which proofs of a batch were refused, and why; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {of} proofs refused, the first is number {}: {}", .bad.len(), .bad[0].0, .bad[0].1)]
pub struct BatchError {
    /// Position in the batch and reason.
    pub bad: Vec<(usize, VerifyError)>,
    /// Proofs in the batch.
    pub of: usize,
}

/// A proof whose points have been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    a: G1Affine,
    b: G2Affine,
    c: G1Affine,
}

impl Proof {
    /// Decodes 192 bytes: canonical coordinates, on the curve, in the subgroup.
    ///
    /// # Errors
    /// [`VerifyError::Point`] naming the point.
    pub fn from_bytes(bytes: &ProofBytes) -> Result<Self, VerifyError> {
        let (a, b) = Self::ab(bytes)?;
        Ok(Self { a, b, c: Self::c(bytes)? })
    }

    fn ab(bytes: &ProofBytes) -> Result<(G1Affine, G2Affine), VerifyError> {
        let a = blst_points::g1(&bytes.0[..48]).ok_or(VerifyError::Point("A"))?;
        let b = blst_points::g2(&bytes.0[48..144]).ok_or(VerifyError::Point("B"))?;
        Ok((a, b))
    }

    fn c(bytes: &ProofBytes) -> Result<G1Affine, VerifyError> {
        blst_points::g1(&bytes.0[144..]).ok_or(VerifyError::Point("C"))
    }

    /// A proof from points that the caller made itself; wrong ones only make a proof that does not verify.
    #[must_use]
    pub const fn from_points(a: G1Affine, b: G2Affine, c: G1Affine) -> Self {
        Self { a, b, c }
    }

    /// The points A, B, C.
    pub const fn points(&self) -> (&G1Affine, &G2Affine, &G1Affine) {
        (&self.a, &self.b, &self.c)
    }

    /// The 192 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> ProofBytes {
        let mut out = Vec::with_capacity(192);
        put(&self.a, &mut out);
        put(&self.b, &mut out);
        put(&self.c, &mut out);
        ProofBytes(out.try_into().expect("48 + 96 + 48 bytes"))
    }
}

/// Checks one proof. Uses rayon's pool for a millisecond.
///
/// # Errors
/// [`VerifyError`]: wrong number of inputs, a bad point, or an equation that does not hold.
pub fn verify(vk: &VerificationKey, inputs: &[FieldBytes], proof: &ProofBytes) -> Result<(), VerifyError> {
    holds(vk, inputs, || Proof::ab(proof), || Proof::c(proof))
}

fn verify_decoded(vk: &VerificationKey, inputs: &[FieldBytes], proof: &Proof) -> Result<(), VerifyError> {
    holds(vk, inputs, || Ok((proof.a, proof.b)), || Ok(proof.c))
}

/// Whether the equation holds: what A and B are needed for on one thread, the rest, which is as much, on another.
fn holds(
    vk: &VerificationKey,
    inputs: &[FieldBytes],
    ab: impl FnOnce() -> Result<(G1Affine, G2Affine), VerifyError> + Send,
    c: impl FnOnce() -> Result<G1Affine, VerifyError> + Send,
) -> Result<(), VerifyError> {
    let first = || Ok::<_, VerifyError>(blst_points::miller_loops(&[ab()?]) * *vk.alpha_beta());
    let rest = || {
        let (c, x) = (c()?, vk.combine(&vk.coefficients(inputs)?));
        Ok::<_, VerifyError>(blst_points::miller_loops(&[(-x, vk.gamma), (-c, vk.delta)]))
    };
    let (first, rest) = rayon::join(first, rest);
    if blst_points::is_one(&(first? * rest?)) { Ok(()) } else { Err(VerifyError::Mismatch) }
}

/// Checks many proofs under one key with `n + 3` pairings, by a random combination; where it fails, each alone, to name the bad ones.
///
/// A bad proof passes with probability 2^-128 if `rng` is unpredictable to whoever made the proofs. Uses rayon's pool.
///
/// # Errors
/// [`BatchError`] with the position and reason of every refused proof.
pub fn verify_batch<R: RngCore>(
    vk: &VerificationKey,
    batch: &[(&[FieldBytes], &ProofBytes)],
    rng: &mut R,
) -> Result<(), BatchError> {
    if batch.is_empty() {
        return Ok(());
    }
    let proofs: Vec<&ProofBytes> = batch.iter().map(|(_, proof)| *proof).collect();
    let decoded: Vec<Result<(Vec<Fr>, Proof), VerifyError>> = decode(&proofs)
        .into_iter()
        .zip(batch)
        .map(|(proof, (inputs, _))| Ok((vk.coefficients(inputs)?, proof?)))
        .collect();
    // One that is no proof at all is named at once; the rest are still a batch.
    let good: Vec<&(Vec<Fr>, Proof)> = decoded.iter().flatten().collect();
    let holds = combination_holds(vk, &good, rng);
    let bad: Vec<_> = decoded
        .into_par_iter()
        .enumerate()
        .filter_map(|(i, decoded)| {
            let outcome = match decoded {
                Ok(_) if holds => Ok(()),
                Ok((_, proof)) => verify_decoded(vk, batch[i].0, &proof),
                Err(why) => Err(why),
            };
            outcome.err().map(|why| (i, why))
        })
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(BatchError { bad, of: batch.len() }) }
}

/// Every proof's points. Uses rayon's pool.
fn decode(proofs: &[&ProofBytes]) -> Vec<Result<Proof, VerifyError>> {
    #[cfg(target_arch = "x86_64")]
    if proofs.len() >= lanes::PROOFS_MIN
        && let Some(seen) = Ifma::detect()
    {
        let decoded = lanes::decode(seen, proofs).into_par_iter().zip(proofs);
        return decoded.map(|(sure, proof)| sure.map_or_else(|| Proof::from_bytes(proof), Ok)).collect();
    }
    proofs.par_iter().map(|proof| Proof::from_bytes(proof)).collect()
}

/// `by[i] points[i]`. Uses rayon's pool.
fn multiples(points: &[G1Affine], by: &[u128]) -> Vec<G1Affine> {
    #[cfg(target_arch = "x86_64")]
    if points.len() >= lanes::PROOFS_MIN
        && let Some(seen) = Ifma::detect()
    {
        return lanes::multiples(seen, points, by);
    }
    let one =
        |(point, by): (&G1Affine, &u128)| blst_points::sum_of_multiples(&[*point], &[Fr::from(*by)], COEFFICIENT_BITS);
    points.par_iter().zip(by).map(one).collect()
}

/// prod e(rho_i A_i, B_i) * e(-(sum rho_i) alpha, beta) * e(-sum rho_i x_i, gamma) * e(-sum rho_i C_i, delta) = 1
fn combination_holds<R: RngCore>(vk: &VerificationKey, proofs: &[&(Vec<Fr>, Proof)], rng: &mut R) -> bool {
    let integers: Vec<u128> = proofs
        .iter()
        .map(|_| {
            let mut bytes = [0; COEFFICIENT_BITS / 8];
            rng.fill_bytes(&mut bytes);
            // Never 0: a proof must not be able to drop out of the combination.
            u128::from_le_bytes(bytes).max(1)
        })
        .collect();
    let rho: Vec<Fr> = integers.iter().map(|k| Fr::from(*k)).collect();
    let mut x = vec![Fr::zero(); vk.inputs() + 1];
    for ((coefficients, _), rho) in proofs.iter().zip(&rho) {
        x.iter_mut().zip(coefficients).for_each(|(sum, k)| *sum += *k * rho);
    }
    let scaled = || -> Vec<(G1Affine, G2Affine)> {
        let a: Vec<G1Affine> = proofs.iter().map(|(_, proof)| proof.a).collect();
        multiples(&a, &integers).into_iter().zip(proofs).map(|(a, (_, proof))| (a, proof.b)).collect()
    };
    let sums = || {
        let c: Vec<G1Affine> = proofs.iter().map(|(_, proof)| proof.c).collect();
        let c = blst_points::sum_of_multiples(&c, &rho, COEFFICIENT_BITS);
        let alpha = blst_points::sum_of_multiples(&[vk.alpha], &[x[0]], Fr::MODULUS_BIT_SIZE as usize);
        [(-alpha, vk.beta), (-vk.combine(&x), vk.gamma), (-c, vk.delta)]
    };
    // The sums on one thread are milliseconds: beside the rest, not after it.
    let (sums, mut pairs) = rayon::join(sums, scaled);
    pairs.extend(sums);
    blst_points::product_is_one(&pairs)
}

/// The proof as the verifier contract reads it: uncompressed EIP-2537, A128 | B256 | C128.
///
/// # Errors
/// [`VerifyError::Point`] where the bytes are no proof.
pub fn proof_eip2537(proof: &ProofBytes) -> Result<[u8; EIP2537_PROOF_BYTES], VerifyError> {
    let proof = Proof::from_bytes(proof)?;
    let mut out = Vec::with_capacity(EIP2537_PROOF_BYTES);
    eip2537::g1(&proof.a, &mut out);
    eip2537::g2(&proof.b, &mut out);
    eip2537::g1(&proof.c, &mut out);
    Ok(out.try_into().expect("128 + 256 + 128 bytes"))
}

/// A canonical scalar as a field element; exact, because a [`FieldBytes`] is below r.
pub(crate) fn scalar(f: &FieldBytes) -> Fr {
    Fr::from_be_bytes_mod_order(f.as_bytes())
}

/// A compressed point with one encoding, on the curve and in the subgroup.
fn point<P: CanonicalDeserialize + CanonicalSerialize>(bytes: &[u8]) -> Option<P> {
    let point = P::deserialize_compressed(bytes).ok()?;
    // The decoder checks coordinates and flags; encoding again makes "one encoding" hold whatever the decoder lets through.
    let mut again = Vec::with_capacity(bytes.len());
    put(&point, &mut again);
    (again == bytes).then_some(point)
}

fn put<P: CanonicalSerialize>(point: &P, out: &mut Vec<u8>) {
    point.serialize_compressed(out).expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests;
