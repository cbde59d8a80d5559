//! Storage proofs of a node on disk, so that a restart resumes and a challenge is answered at once.
//!
//! File    `proofs/<epoch>/<proof index>-<holdings or database id>.proof`: canonical borsh of `wire::ProvedStorage`, written whole or not.
//! Rule    a file that does not decode, or names another epoch, is no proof: it is removed and made again.

use crate::datadir::{DataDirError, write_atomic};
use fluence_types::{DatabaseId, Epoch, codec};
use fluence_wire::message::ProvedStorage;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

/// Longest proof file: 192 bytes of proof and a few numbers.
const FILE_BYTES_MAX: usize = 1024;
/// Epochs whose proofs are kept.
pub const EPOCHS_KEPT: u64 = 1000;
/// Reasons remembered.
const REASONS_MAX: usize = 4096;

/// Which proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ProofKey {
    /// The epoch.
    pub epoch: Epoch,
    /// Which proof of the epoch.
    pub proof_index: u32,
    /// A single database, or the holdings.
    pub db: Option<DatabaseId>,
}

/// The proofs of a node, and why others are missing.
#[derive(Debug)]
pub struct Proofs {
    dir: PathBuf,
    missing: Mutex<BTreeMap<ProofKey, String>>,
}

impl Proofs {
    /// The proofs under `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, missing: Mutex::default() }
    }

    fn path(&self, key: &ProofKey) -> PathBuf {
        let what = key.db.map_or_else(|| "holdings".to_owned(), |db| hex::encode(db.as_bytes()));
        self.dir.join(key.epoch.to_string()).join(format!("{}-{what}.proof", key.proof_index))
    }

    /// Keeps a proof.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn put(&self, key: &ProofKey, proof: &ProvedStorage) -> Result<(), DataDirError> {
        write_atomic(&self.path(key), &codec::encode(proof))?;
        self.missing.lock().expect("no panic while held").remove(key);
        Ok(())
    }

    /// A proof, if it is there and whole.
    #[must_use]
    pub fn get(&self, key: &ProofKey) -> Option<ProvedStorage> {
        let path = self.path(key);
        let bytes = std::fs::read(&path).ok()?;
        match codec::decode::<ProvedStorage>("proof file", &bytes, FILE_BYTES_MAX) {
            Ok(proof) if proof.epoch == key.epoch => Some(proof),
            Ok(_) | Err(_) => {
                tracing::warn!(path = %path.display(), "not a proof of this epoch; removed, it will be made again");
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    /// Says why a proof is missing.
    pub fn set_missing(&self, key: ProofKey, why: String) {
        let mut missing = self.missing.lock().expect("no panic while held");
        missing.insert(key, why);
        while missing.len() > REASONS_MAX {
            missing.pop_first();
        }
    }

    /// Why a proof is missing.
    #[must_use]
    pub fn why_missing(&self, key: &ProofKey) -> String {
        let missing = self.missing.lock().expect("no panic while held");
        missing.get(key).cloned().unwrap_or_else(|| "not started".to_owned())
    }

    /// Removes proofs of epochs that nobody can challenge any more.
    pub fn prune(&self, current: Epoch) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let epoch = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if epoch.is_some_and(|epoch| epoch + EPOCHS_KEPT < current.0) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::proof::ProofBytes;
    use fluence_types::{FieldBytes, Fingerprint, HoldingsRoot};

    fn proved(epoch: u64) -> ProvedStorage {
        ProvedStorage {
            epoch: Epoch(epoch),
            root: HoldingsRoot::default(),
            total_cells: 9,
            seed: FieldBytes::from_u64(3),
            fingerprint: Fingerprint::default(),
            proof: ProofBytes([7; 192]),
            constraints: 1,
            prove_ms: 2,
        }
    }

    #[test]
    fn proofs_survive_a_restart_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let key = |epoch, db| ProofKey { epoch: Epoch(epoch), proof_index: 0, db };
        let one = Some(DatabaseId::from_bytes([5; 16]));
        let proofs = Proofs::new(dir.path().to_owned());
        proofs.put(&key(3, None), &proved(3)).unwrap();
        proofs.put(&key(3, one), &proved(3)).unwrap();
        let proofs = Proofs::new(dir.path().to_owned());
        assert_eq!(proofs.get(&key(3, None)), Some(proved(3)));
        assert_eq!(proofs.get(&key(3, one)), Some(proved(3)));
        assert_eq!(proofs.get(&key(4, None)), None);
        proofs.prune(Epoch(3 + EPOCHS_KEPT));
        assert!(proofs.get(&key(3, None)).is_some());
        proofs.prune(Epoch(4 + EPOCHS_KEPT));
        assert!(proofs.get(&key(3, None)).is_none());
    }

    #[test]
    fn rejects_a_torn_file_and_one_of_another_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let proofs = Proofs::new(dir.path().to_owned());
        let key = ProofKey { epoch: Epoch(1), proof_index: 0, db: None };
        proofs.put(&key, &proved(2)).unwrap();
        assert_eq!(proofs.get(&key), None);
        proofs.put(&key, &proved(1)).unwrap();
        let path = proofs.path(&key);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(proofs.get(&key), None);
        assert!(!path.exists());
    }

    #[test]
    fn says_why_a_proof_is_missing() {
        let proofs = Proofs::new(PathBuf::from("nowhere"));
        let key = ProofKey { epoch: Epoch(1), proof_index: 0, db: None };
        assert_eq!(proofs.why_missing(&key), "not started");
        proofs.set_missing(key, "page 3 is lost".to_owned());
        assert_eq!(proofs.why_missing(&key), "page 3 is lost");
    }
}
