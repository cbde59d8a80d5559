//! A node's data directory: what is where, one process at a time, and the note that tells others how to reach it.
//!
//! ```text
//! identity.key    the node's Ed25519 key, 64 hex digits, mode 600
//! lock            held while the process runs
//! run.json        id, listen addresses, metrics address, process id; written after the start, removed at a graceful stop
//! store/          the engine's store (storage node)
//! proofs/         one file per storage proof: <epoch>/<proof index>-<holdings or database id>.proof
//! pause-proving   put there by the operator: proofs hold still until it goes (storage node)
//! ledger.jsonl    what each node did in each epoch, one JSON object a line (arbiter)
//! ```

use fluence_types::{Address, NodeId};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
}

/// What `run.json` says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunFile {
    /// `storage` or `arbiter`.
    pub role: String,
    /// The node.
    pub node: NodeId,
    /// Its operator's address, where it has a chain.
    pub operator: Option<Address>,
    /// Multiaddresses with real ports and the peer id.
    pub listen: Vec<String>,
    /// `http://host:port` of the metrics endpoint.
    pub metrics: Option<String>,
    /// The process.
    pub pid: u32,
    /// The software, as `fluence 0.1.0`.
    pub software: String,
}

impl RunFile {
    /// Reads the run file of the node at `data_dir`.
    ///
    /// # Errors
    /// [`DataDirError::Io`] where the node does not run.
    pub fn read(data_dir: &Path) -> Result<Self, DataDirError> {
        let path = data_dir.join("run.json");
        let io = |source| DataDirError::Io { path: path.clone(), source };
        let text = std::fs::read(&path).map_err(io)?;
        serde_json::from_slice(&text).map_err(|e| io(io::Error::new(io::ErrorKind::InvalidData, e)))
    }
}

/// An open data directory, locked.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        std::fs::create_dir_all(root).map_err(fail(root))?;
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(root.to_owned())),
            Err(TryLockError::Error(e)) => return Err(fail(&path)(e)),
        }
        let dir = Self { root: root.to_owned(), _lock: lock };
        // A note left by a process that was killed says nothing any more.
        dir.clear_run_file();
        Ok(dir)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The node's key file, unless the configuration names another.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.key")
    }
    /// The engine's store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }
    /// The journals of the replicas: votes, certificates, blocks.
    #[must_use]
    pub fn journals(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// Evidence against members that contradicted themselves.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    /// Storage proofs.
    #[must_use]
    pub fn proofs(&self) -> PathBuf {
        self.root.join("proofs")
    }
    /// While it is there, proofs hold still.
    #[must_use]
    pub fn pause_file(&self) -> PathBuf {
        self.root.join("pause-proving")
    }

    /// The arbiter's ledger.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.jsonl")
    }

    /// Says that the node is ready.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write_run_file(&self, run: &RunFile) -> Result<(), DataDirError> {
        let text = serde_json::to_vec_pretty(run).expect("a run file is plain data");
        write_atomic(&self.root.join("run.json"), &text)
    }

    /// Says that it is not.
    pub fn clear_run_file(&self) {
        let _ = std::fs::remove_file(self.root.join("run.json"));
    }
}

/// Writes a file so that a reader or a crash sees the old one or the new one, whole.
///
/// # Errors
/// [`DataDirError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let io = |source| DataDirError::Io { path: path.to_owned(), source };
    let parent = path.parent().expect("files are written inside the data directory");
    std::fs::create_dir_all(parent).map_err(io)?;
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    std::fs::rename(&partial, path).map_err(io)?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse(_))));
        drop(first);
        assert!(DataDir::open(dir.path()).is_ok());
    }

    #[test]
    fn run_file_round_trips_and_is_gone_after_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFile {
            role: "storage".to_owned(),
            node: NodeId::from_bytes([1; 32]),
            operator: None,
            listen: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
            metrics: None,
            pid: 7,
            software: "fluence".to_owned(),
        };
        let open = DataDir::open(dir.path()).unwrap();
        open.write_run_file(&run).unwrap();
        assert_eq!(RunFile::read(dir.path()).unwrap(), run);
        drop(open);
        let _again = DataDir::open(dir.path()).unwrap();
        assert!(RunFile::read(dir.path()).is_err());
    }
}
