//! The verification keys under which `SET fluence.proof = 'groth16'` takes proofs: those of the home's `vkeys` folder.

use crate::commands::query::{key_at, key_file_name};
use crate::home::Home;
use fluence_gateway::store::ProofKeys;
use fluence_gateway::{SqlError, SqlState};
use fluence_types::shape::CircuitId;
use fluence_verifier::groth16::VerificationKey;
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
        let refuse = |why: String| {
            SqlError::new(SqlState::ObjectNotInState, why)
                .hint("put the key file that you trust there: a ceremony's, or of nodes of `fluence up` the one that `fluence query --prove` writes to DIR/keys")
        };
        let file = key_at(&path, circuit).map_err(|e| refuse(e.one_line()))?;
        let key = file.decode().map_err(|e| refuse(format!("{}: {e}", path.display())))?;
        Ok((key, file.insecure_dev_key))
    }
}
