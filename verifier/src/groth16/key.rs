//! Verification keys: their bytes, their fingerprint off chain, and the hash pinned on chain.
//!
//! Bytes        alpha G1 48 | beta G2 96 | gamma G2 96 | delta G2 96 | IC_0 .. IC_n G1 48 each; compressed, without a length
//! Fingerprint  BLAKE3 of these bytes
//! Pinned       keccak256(alpha 128 | beta 256 | gamma 256 | delta 256 | IC 128 each), points as in EIP-2537
//! Source       `docs/protocol/proof-file.md`

use super::{VerifyError, blst_points, eip2537, point, put, scalar};
use ark_bls12_381::{Fr, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::{Field, PrimeField};
use blst::blst_fp12;
use fluence_types::limits::PUBLIC_INPUTS_MAX;
use fluence_types::{FieldBytes, Fingerprint};
use sha3::{Digest, Keccak256};
use std::fmt;
use std::sync::OnceLock;

/// Bytes before the IC points.
const HEAD_BYTES: usize = 48 + 3 * 96;
/// Bytes of one IC point.
const IC_BYTES: usize = 48;
/// Bytes of the longest key.
pub(crate) const KEY_BYTES_MAX: usize = HEAD_BYTES + IC_BYTES * (PUBLIC_INPUTS_MAX + 1);

/// Why bytes are no verification key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The length is not that of a key with 1 to [`PUBLIC_INPUTS_MAX`] inputs.
    #[error("a verification key of {got} bytes: expected {HEAD_BYTES} and 2 to {} points of {IC_BYTES}", PUBLIC_INPUTS_MAX + 1)]
    Length {
        /// Bytes given.
        got: usize,
    },
    /// The text is not hex.
    #[error("a verification key in hex is at most {} digits of hex", 2 * KEY_BYTES_MAX)]
    Hex,
    /// A point is not canonical, not on its curve, outside the subgroup, or infinity.
    #[error("key point {0} is not a canonical, finite point of the prime-order subgroup")]
    Point(String),
}

/// A checked verification key.
#[derive(Clone)]
pub struct VerificationKey {
    pub(super) alpha: G1Affine,
    pub(super) beta: G2Affine,
    pub(super) gamma: G2Affine,
    pub(super) delta: G2Affine,
    ic: Vec<G1Affine>,
    bytes: Vec<u8>,
    /// The Miller loop of -alpha and beta, which every single check has in its product: made at the first, for the price of one loop.
    alpha_beta: OnceLock<blst_fp12>,
}

impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        // One encoding each; whether it has been used yet is no difference.
        self.bytes == other.bytes
    }
}

impl Eq for VerificationKey {}

impl VerificationKey {
    /// Decodes the canonical bytes, with curve and subgroup checks.
    ///
    /// # Errors
    /// [`KeyError`] naming the length or the point.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let ic_bytes = bytes.len().checked_sub(HEAD_BYTES).filter(|n| n % IC_BYTES == 0);
        let inputs =
            ic_bytes.and_then(|n| (n / IC_BYTES).checked_sub(1)).filter(|n| (1..=PUBLIC_INPUTS_MAX).contains(n));
        if inputs.is_none() {
            return Err(KeyError::Length { got: bytes.len() });
        }
        let ic = bytes[HEAD_BYTES..]
            .chunks(IC_BYTES)
            .enumerate()
            .map(|(i, b)| finite(&format!("IC[{i}]"), b))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            alpha: finite("alpha", &bytes[..48])?,
            beta: finite("beta", &bytes[48..144])?,
            gamma: finite("gamma", &bytes[144..240])?,
            delta: finite("delta", &bytes[240..336])?,
            ic,
            bytes: bytes.to_vec(),
            alpha_beta: OnceLock::new(),
        })
    }

    /// A key from points the caller made itself, checked as if they came from outside.
    ///
    /// # Errors
    /// [`KeyError`] as for [`Self::from_bytes`].
    pub fn from_points(
        alpha: &G1Affine,
        beta: &G2Affine,
        gamma: &G2Affine,
        delta: &G2Affine,
        ic: &[G1Affine],
    ) -> Result<Self, KeyError> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + IC_BYTES * ic.len());
        put(alpha, &mut bytes);
        [beta, gamma, delta].iter().for_each(|p| put(*p, &mut bytes));
        ic.iter().for_each(|p| put(p, &mut bytes));
        Self::from_bytes(&bytes)
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// The canonical bytes in lower-case hex with `0x`, as proof and key files carry them.
    #[must_use]
    pub fn to_hex(&self) -> String {
        format!("0x{}", hex::encode(&self.bytes))
    }

    /// Decodes [`Self::to_hex`].
    ///
    /// # Errors
    /// [`KeyError`] for text that is too long, not hex, or no key.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.len() > 2 * KEY_BYTES_MAX {
            return Err(KeyError::Hex);
        }
        Self::from_bytes(&hex::decode(digits).map_err(|_| KeyError::Hex)?)
    }

    /// Number of public inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.ic.len() - 1
    }

    /// The IC points, one more than there are inputs.
    pub fn ic(&self) -> &[G1Affine] {
        &self.ic
    }

    /// alpha, and beta, gamma, delta.
    pub const fn head(&self) -> (&G1Affine, [&G2Affine; 3]) {
        (&self.alpha, [&self.beta, &self.gamma, &self.delta])
    }

    /// BLAKE3 of the canonical bytes: the name of the key off chain.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_bytes(*blake3::hash(&self.bytes).as_bytes())
    }

    /// The key as EIP-2537 points, in the order of the canonical bytes: what the contract's constructor takes.
    #[must_use]
    pub fn to_eip2537(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(896 + 128 * self.ic.len());
        eip2537::g1(&self.alpha, &mut out);
        [&self.beta, &self.gamma, &self.delta].iter().for_each(|p| eip2537::g2(p, &mut out));
        self.ic.iter().for_each(|p| eip2537::g1(p, &mut out));
        out
    }

    /// keccak256 of [`Self::to_eip2537`]: the name of the key on chain.
    #[must_use]
    pub fn pinned_hash(&self) -> [u8; 32] {
        Keccak256::digest(self.to_eip2537()).into()
    }

    /// What multiplies the IC points for these inputs: 1, x_1, x_2 ..
    pub(super) fn coefficients(&self, inputs: &[FieldBytes]) -> Result<Vec<Fr>, VerifyError> {
        if inputs.len() != self.inputs() {
            return Err(VerifyError::InputCount { got: inputs.len(), want: self.inputs() });
        }
        Ok(std::iter::once(Fr::ONE).chain(inputs.iter().map(scalar)).collect())
    }

    /// `e(-alpha, beta)` before the final exponentiation.
    pub(super) fn alpha_beta(&self) -> &blst_fp12 {
        self.alpha_beta.get_or_init(|| blst_points::miller_loops(&[(-self.alpha, self.beta)]))
    }

    /// sum k_i IC_i
    pub(super) fn combine(&self, coefficients: &[Fr]) -> G1Affine {
        blst_points::sum_of_multiples(&self.ic, coefficients, Fr::MODULUS_BIT_SIZE as usize)
    }
}

/// Infinity is refused: with it as delta, gamma or an IC point, C or an input would not matter.
fn finite<P: AffineRepr>(name: &str, bytes: &[u8]) -> Result<P, KeyError> {
    point::<P>(bytes).filter(|p| !p.is_zero()).ok_or_else(|| KeyError::Point(name.to_owned()))
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationKey({})", self.fingerprint())
    }
}
