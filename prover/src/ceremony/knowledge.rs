//! Proof of knowledge of a factor x, bound to everything before it: s, s x in G1, and r x in G2 where r is a hash of s, s x and the transcript.
//!
//! Check     e(s, r x) = e(s x, r), and whoever uses it checks its own points against (r, r x).
//! Hash      to G2 by RFC 9380, suite BLS12381G2_XMD:SHA-256_SSWU_RO_ with a domain of our own
//! Source    ePrint 2017/1050, section 3; ePrint 2021/219, section 5, which shows it simulation-extractable where r is a random oracle of the
//!           statement; layout of github.com/filecoin-project/filecoin-phase2 `PublicKey`
//! Deviation the published ceremonies sample r with ChaCha20 from a hash, by their library's way of making points; RFC 9380 has test vectors
//!           and independent implementations. So our contributions are not theirs, though the phase-1 layout is.

use super::Random;
use super::ratio::same;
use ark_bls12_381::g2::Config as G2Config;
use ark_bls12_381::{Fr, G1Affine, G2Affine, G2Projective};
use ark_ec::hashing::HashToCurve;
use ark_ec::hashing::curve_maps::wb::WBMap;
use ark_ec::hashing::map_to_curve_hasher::MapToCurveBasedHasher;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::field_hashers::DefaultFieldHasher;
use ark_ff::{One, PrimeField, Zero};
use fluence_crypto::domain;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Domain of the hash to G2.
pub(super) const SUITE: &[u8] = b"FLU-CEREMONY-V1-BLS12381G2_XMD:SHA-256_SSWU_RO_";

/// A contributor's text: at most this many bytes are mixed in.
pub(super) const ENTROPY_BYTES_MAX: usize = 1 << 16;

type ToG2 = MapToCurveBasedHasher<G2Projective, DefaultFieldHasher<Sha256, 128>, WBMap<G2Config>>;

/// A point nobody knows the logarithm of.
pub(super) fn hash_to_g2(message: &[u8]) -> G2Affine {
    ToG2::new(SUITE)
        .and_then(|h| h.hash(message))
        .expect("the suite's parameters are constants that a test vector checks")
}

/// The proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Knowledge {
    pub(super) s: G1Affine,
    pub(super) s_x: G1Affine,
    pub(super) r_x: G2Affine,
}

impl Knowledge {
    /// Shows `x`; `message` makes the bytes to hash from s and s x.
    pub(super) fn of(x: &Fr, s: G1Affine, message: impl Fn(&G1Affine, &G1Affine) -> Vec<u8>) -> Self {
        let s_x = (s * x).into_affine();
        let r_x = (hash_to_g2(&message(&s, &s_x)) * x).into_affine();
        Self { s, s_x, r_x }
    }

    /// The pair (r, r x) that other points are compared with, if the proof holds.
    pub(super) fn check(&self, message: impl Fn(&G1Affine, &G1Affine) -> Vec<u8>) -> Option<(G2Affine, G2Affine)> {
        let r = hash_to_g2(&message(&self.s, &self.s_x));
        (!self.s.is_zero() && same((self.s, self.s_x), (r, self.r_x))).then_some((r, self.r_x))
    }
}

/// Secret scalars, all from one call: `count` of them, none 0 or 1.
pub(super) fn secrets(count: usize, text: &[u8], rng: &mut dyn Random) -> Vec<Zeroizing<Fr>> {
    let mut seed = Zeroizing::new([0; 64]);
    rng.fill_bytes(&mut *seed);
    let mut hasher = blake3::Hasher::new_derive_key(domain::CEREMONY_SECRET);
    hasher.update(&*seed);
    hasher.update(text);
    let mut stream = hasher.finalize_xof();
    zeroize::Zeroize::zeroize(&mut hasher);
    let out = expand(count, &mut stream);
    zeroize::Zeroize::zeroize(&mut stream);
    out
}

/// Scalars from a stream of bytes: 64 bytes each, little-endian, mod r; 0 and 1 are passed over.
pub(super) fn expand(count: usize, stream: &mut blake3::OutputReader) -> Vec<Zeroizing<Fr>> {
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let mut bytes = Zeroizing::new([0; 64]);
        stream.fill(&mut *bytes);
        let x = Zeroizing::new(Fr::from_le_bytes_mod_order(&*bytes));
        if !x.is_zero() && !x.is_one() {
            out.push(x);
        }
    }
    out
}
