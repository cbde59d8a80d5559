//! What leaves the prover: proof files and key files, for `fluence verify` and for tools that we did not write.

use crate::keys::Keys;
use crate::proof::Proved;
use fluence_types::proof::{PROOF_FILE_FORMAT, ProofContext, ProofFile};
use fluence_verifier::proof_file::{CURVE, KeyFile, PROTOCOL};

/// The proof as a file, with what its public inputs were made from.
#[must_use]
pub fn proof_file(keys: &Keys, proved: &Proved, context: ProofContext) -> ProofFile {
    ProofFile {
        format: PROOF_FILE_FORMAT.to_owned(),
        curve: CURVE.to_owned(),
        protocol: PROTOCOL.to_owned(),
        circuit: keys.id,
        fingerprint: keys.fingerprint,
        insecure_dev_key: keys.insecure_dev,
        public_inputs: proved.public_inputs.to_vec(),
        context,
        proof: proved.proof,
        verification_key: keys.vk.to_hex(),
    }
}

/// The verification key as a file for `fluence verify --vkey`.
#[must_use]
pub fn export_key(keys: &Keys) -> KeyFile {
    KeyFile::new(keys.id, &keys.vk, keys.transcript)
}
