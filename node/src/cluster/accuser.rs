//! Shows evidence to the chain: what the replicas wrote to `evidence/` becomes accusations, each once.
//!
//! ```text
//! file -> checked here -> not ours, key registered, not proven yet, something to slash -> salt kept -> commit -> accuse
//! ```
//! Rule    gas is spent only on what the contract will take. Another accuser who was first is no failure. What is done is read from the
//!         chain, so a restart neither repeats nor forgets.
//! Source  `docs/protocol/checkpoints.md`, Evidence

use super::evidence;
use crate::chain::clusters::{ClusterChain, Conflict};
use crate::chain::{Chain, ChainError};
use crate::identity::{self, IdentityError};
use fluence_crypto::secret::Secret;
use fluence_types::NodeId;
use rand::rngs::OsRng;
use sha3::{Digest, Keccak256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files looked at: somebody who votes twice in every view of a day makes more, and loses nothing by those that follow the first.
const FILES_MAX: usize = 1024;
/// Accusations sent for one file before the node gives up.
const TRIES_MAX: u32 = 3;
/// Blocks after which evidence is looked at again that the chain cannot judge yet: a key that is not registered, a node without collateral.
const AGAIN_BLOCKS: u64 = 50;

/// What becomes of a file.
enum Fate {
    /// Nothing more: shown, ours, or no evidence.
    Done,
    /// Looked at again from this block on, after so many tries.
    Later { block: u64, tries: u32 },
}

/// Turns evidence into accusations.
pub struct Accuser {
    dir: PathBuf,
    own: NodeId,
    chain: Arc<dyn Chain>,
    fates: BTreeMap<PathBuf, Fate>,
}

#[derive(Debug, thiserror::Error)]
enum AccuseError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Salt(#[from] IdentityError),
}

impl Accuser {
    /// Watches `dir` for node `own`.
    #[must_use]
    pub fn new(dir: PathBuf, own: NodeId, chain: Arc<dyn Chain>) -> Self {
        Self { dir, own, chain, fates: BTreeMap::new() }
    }

    /// One look at the folder, at block `head`, and what follows from it.
    ///
    /// # Errors
    /// [`ChainError`] where the chain does not answer; the next round goes on from here.
    pub async fn round(&mut self, head: u64) -> Result<(), ChainError> {
        let chain = Arc::clone(&self.chain);
        let Some(clusters) = chain.clusters() else { return Ok(()) };
        for path in self.files() {
            let tries = match self.fates.get(&path) {
                Some(Fate::Done) => continue,
                Some(Fate::Later { block, .. }) if *block > head => continue,
                Some(Fate::Later { tries, .. }) => *tries,
                None => 0,
            };
            let fate = self.look(clusters, &path, head, tries).await?;
            self.fates.insert(path, fate);
        }
        Ok(())
    }

    /// Evidence that is there, in order of names.
    fn files(&self) -> Vec<PathBuf> {
        // No folder, no evidence.
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let paths = entries.filter_map(|e| Some(e.ok()?.path()));
        let mut files: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
        files.sort_unstable();
        if files.len() > FILES_MAX {
            tracing::warn!(
                files = files.len(),
                limit = FILES_MAX,
                "more evidence than is looked at: move old files away"
            );
            files.truncate(FILES_MAX);
        }
        files
    }

    async fn look(&self, clusters: &dyn ClusterChain, path: &Path, head: u64, tries: u32) -> Result<Fate, ChainError> {
        let later = Fate::Later { block: head + AGAIN_BLOCKS, tries };
        let shown = path.display();
        let conflict = match evidence::read(path) {
            Ok(conflict) => conflict,
            Err(error) => {
                tracing::warn!(path = %shown, %error, "no evidence, and not shown to the chain");
                count("invalid");
                return Ok(Fate::Done);
            }
        };
        let node = conflict.node;
        if node == self.own {
            tracing::error!(path = %shown, "evidence against THIS NODE: does another process vote with its key?");
            count("own");
            return Ok(Fate::Done);
        }
        if clusters.proven(&conflict).await? {
            tracing::info!(%node, path = %shown, "the chain knows this evidence");
            count("known");
            return Ok(Fate::Done);
        }
        if clusters.vote_key(node).await? != Some(Keccak256::digest(conflict.key.as_slice()).into()) {
            tracing::debug!(%node, "its vote key is not registered: nothing to take");
            return Ok(later);
        }
        if clusters.stake(node).await? == 0 {
            return Ok(later);
        }
        match self.accuse(clusters, path, &conflict).await {
            Ok(()) => {
                tracing::warn!(%node, db = %conflict.db, epoch = conflict.epoch, view = conflict.view, "SLASHED: evidence was proven on chain");
                count("proven");
                Ok(Fate::Done)
            }
            Err(error) => {
                // Someone else may have been first: then the chain says so now.
                if clusters.proven(&conflict).await? {
                    tracing::info!(%node, "another accuser was first");
                    count("known");
                    return Ok(Fate::Done);
                }
                let tries = tries + 1;
                count("failed");
                if tries >= TRIES_MAX {
                    tracing::error!(%node, %error, tries, path = %shown, "evidence was not taken; given up until the next start");
                    return Ok(Fate::Done);
                }
                tracing::warn!(%node, %error, tries, "evidence was not taken; trying again");
                Ok(Fate::Later { block: head + 1, tries })
            }
        }
    }

    async fn accuse(&self, clusters: &dyn ClusterChain, path: &Path, conflict: &Conflict) -> Result<(), AccuseError> {
        // Kept, so that what was committed to before a crash can still be shown.
        let salt_path = path.with_extension("salt");
        let salt = match identity::load_secret(&salt_path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let salt = Secret::<32>::random(&mut OsRng);
                identity::write_secret(&salt_path, &salt)?;
                salt
            }
            other => other?,
        };
        let salt = salt.expose(|bytes| *bytes);
        Ok(clusters.accuse(conflict, salt).await?)
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("fluence_chain_evidence_total", "outcome" => outcome).increment(1);
}
