//! Proof files in the layout of npm's snarkjs for the curve bls12381, so that anyone can check us with a tool we did not write.
//!
//! Layout  `proof.json` {pi_a, pi_b, pi_c, protocol, curve}, `public.json` [inputs], `vkey.json` {protocol, curve, nPublic, vk_alpha_1,
//!         vk_beta_2, vk_gamma_2, vk_delta_2, IC}. Numbers are decimal strings; points are projective with third coordinate 1;
//!         coordinates in Fq2 are [c0, c1].
//! Left out `vk_alphabeta_12`: no snarkjs verifier reads it, so a value here would be one that nobody checks.
//! Warning snarkjs 0.7.6 accepts points outside the subgroup and coordinates of q and more: it is no oracle for those.
//! Source  snarkjs `src/groth16_verify.js`, `src/zkey_export_verificationkey.js` (0.7.6)

use crate::groth16::{Proof, VerificationKey};
use crate::proof_file::{CURVE, PROTOCOL, ProofFileError};
use ark_bls12_381::{Fq, Fq2, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::PrimeField;
use fluence_types::proof::ProofFile;
use serde_json::{Value, json};

/// The three files.
#[derive(Clone, Debug, PartialEq)]
pub struct SnarkjsFiles {
    /// `proof.json`
    pub proof: Value,
    /// `public.json`
    pub public: Value,
    /// `vkey.json`
    pub vkey: Value,
}

impl SnarkjsFiles {
    /// Each file's name and JSON.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Value); 3] {
        [("proof.json", &self.proof), ("public.json", &self.public), ("vkey.json", &self.vkey)]
    }
}

/// A proof file for snarkjs. It checks the points, and nothing else: check the proof file first.
///
/// # Errors
/// [`ProofFileError`] where the proof or the key in the file is malformed.
pub fn export(file: &ProofFile) -> Result<SnarkjsFiles, ProofFileError> {
    let proof = Proof::from_bytes(&file.proof)?;
    let key = VerificationKey::from_hex(&file.verification_key).map_err(|e| ProofFileError::FileKey(e.to_string()))?;
    let (a, b, c) = proof.points();
    let (alpha, [beta, gamma, delta]) = key.head();
    let public: Vec<Value> = file.public_inputs.iter().map(|f| decimal(crate::groth16::scalar(f))).collect();
    Ok(SnarkjsFiles {
        proof: json!({ "pi_a": g1(a), "pi_b": g2(b), "pi_c": g1(c), "protocol": PROTOCOL, "curve": CURVE }),
        public: Value::Array(public),
        vkey: json!({
            "protocol": PROTOCOL,
            "curve": CURVE,
            "nPublic": key.inputs(),
            "vk_alpha_1": g1(alpha),
            "vk_beta_2": g2(beta),
            "vk_gamma_2": g2(gamma),
            "vk_delta_2": g2(delta),
            "IC": key.ic().iter().map(g1).collect::<Vec<_>>(),
        }),
    })
}

fn decimal<F: PrimeField>(f: F) -> Value {
    Value::String(f.into_bigint().to_string())
}

fn pair(f: Fq2) -> Value {
    json!([decimal(f.c0), decimal(f.c1)])
}

fn g1(p: &G1Affine) -> Value {
    match p.xy() {
        Some((x, y)) => json!([decimal::<Fq>(x), decimal::<Fq>(y), "1"]),
        None => json!(["0", "1", "0"]),
    }
}

fn g2(p: &G2Affine) -> Value {
    match p.xy() {
        Some((x, y)) => json!([pair(x), pair(y), ["1", "0"]]),
        None => json!([["0", "0"], ["1", "0"], ["0", "0"]]),
    }
}
