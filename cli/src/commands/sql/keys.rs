//! The verification keys under which `SET fluence.proof = 'groth16'` takes proofs: those of the home's `vkeys` folder.

use crate::commands::query::key_file_name;
use crate::home::Home;
use fluence_gateway::store::ProofKeys;
use fluence_gateway::{SqlError, SqlState};
use fluence_types::shape::CircuitId;
use fluence_verifier::groth16::VerificationKey;
use fluence_verifier::proof_file::KeyFile;
use std::path::PathBuf;

/// Key files of a folder.
#[derive(Debug)]
pub(crate) struct HomeKeys(PathBuf);

impl HomeKeys {
    pub(crate) fn new(home: &Home) -> Self {
        Self(home.dir().join("vkeys"))
    }
}

impl ProofKeys for HomeKeys {
    fn key(&self, circuit: CircuitId) -> Result<(VerificationKey, bool), SqlError> {
        let path = self.0.join(key_file_name(circuit));
        let refuse = |why: String| SqlError::new(SqlState::ObjectNotInState, why);
        let bytes = std::fs::read(&path)
            .map_err(|e| refuse(format!("there is no key to check the proof with: {}: {e}", path.display())))?;
        let file = KeyFile::read(&bytes).map_err(|e| refuse(format!("{}: {e}", path.display())))?;
        if file.circuit != circuit {
            return Err(refuse(format!("{} is a key for {}, not {circuit}", path.display(), file.circuit)));
        }
        let key = file.decode().map_err(|e| refuse(format!("{}: {e}", path.display())))?;
        Ok((key, file.insecure_dev_key))
    }
}
