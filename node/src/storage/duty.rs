//! The hour of a storage node: learn what is owed, prove it, answer challenges.
//!
//! ```text
//! beacon known -> debt from the chain -> witness at the roots owed -> proof -> disk -> served by `EpochProof`
//! challenge    -> the proof on disk, or a new one                        -> respond on chain before the deadline
//! ```
//! Rule    the debt is the chain's: a damaged disk changes nothing of it. A node that cannot prove says so loudly and says why.
//! Writes  go on after a root was registered; the engine goes back to it, for as many blocks as the database's retention.
//! Source  DESIGN sections 6 and 8

use super::proofs::{ProofKey, Proofs};
use super::prover::{ProveError, Prover};
use crate::chain::{Chain, ChainError, Challenge, ChallengeId, ChallengeStatus, Debt};
use crate::telemetry::Health;
use fluence_crypto::seed::storage_seed;
use fluence_types::statement::Storage;
use fluence_types::{DatabaseId, DbRoot, HoldingsRoot, NodeId};
use fluence_verifier::groth16::proof_eip2537;
use fluence_wire::message::ProvedStorage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Times an answer is sent before the node gives up; the contract refuses a wrong one for good.
const RESPONSES_MAX: u32 = 5;

/// What a node does every epoch.
pub struct Duty {
    node: NodeId,
    chain: Arc<dyn Chain>,
    prover: Arc<Prover>,
    proofs: Arc<Proofs>,
    health: watch::Sender<Health>,
    /// Proofs that cannot be made: not tried again.
    hopeless: BTreeSet<ProofKey>,
    /// Proofs that are there, and of the statement that is owed.
    done: BTreeSet<ProofKey>,
    /// Open challenges against us, and how often they were answered in vain.
    open: BTreeMap<ChallengeId, (Challenge, u32)>,
    scanned: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum DutyError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("{0}")]
    Proof(#[from] ProveError),
    #[error("{0}")]
    Hopeless(String),
    #[error(transparent)]
    Disk(#[from] crate::datadir::DataDirError),
}

impl Duty {
    /// The duty of `node`.
    #[must_use]
    pub fn new(
        node: NodeId,
        chain: Arc<dyn Chain>,
        prover: Arc<Prover>,
        proofs: Arc<Proofs>,
        health: watch::Sender<Health>,
    ) -> Self {
        let (hopeless, done, open) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { node, chain, prover, proofs, health, hopeless, done, open, scanned: None }
    }

    /// Works until `stop`, looking every `poll`. A chain out of reach is waited for.
    pub async fn run(mut self, poll: Duration, stop: CancellationToken) {
        loop {
            let round = tokio::select! {
                round = self.round() => round,
                () = stop.cancelled() => return,
            };
            match round {
                Ok(None) => drop(self.health.send_replace(Health::Ready)),
                Ok(Some(why)) => drop(self.health.send_replace(Health::Degraded(why))),
                Err(error) => {
                    tracing::warn!(%error, "the chain was not read; trying again");
                    self.health.send_replace(Health::Degraded(error.to_string()));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One look at the chain and everything that follows from it. Returns what a person should know.
    ///
    /// # Errors
    /// [`ChainError`] where the chain was not read; the next round goes on from here.
    pub async fn round(&mut self) -> Result<Option<String>, ChainError> {
        let head = self.chain.head().await?;
        metrics::gauge!("fluence_chain_head").set(head as f64);
        let mut trouble = self.challenges(head).await?;
        let Some(epoch) = self.chain.info().epoch_at(head) else { return Ok(trouble) };
        let Some(beacon) = self.chain.beacon(epoch).await? else { return Ok(trouble) };
        for proof_index in 0..self.chain.info().proofs_per_epoch {
            let key = ProofKey { epoch, proof_index, db: None };
            if self.hopeless.contains(&key) {
                trouble = trouble.or_else(|| Some(self.proofs.why_missing(&key)));
                continue;
            }
            if self.done.contains(&key) {
                continue;
            }
            let Some(debt) = self.chain.debt(self.node, epoch).await? else { break };
            let (root, total_cells) = debt.holdings();
            let seed = storage_seed(&self.chain.info().seed(self.node, epoch, beacon, proof_index));
            let statement = Storage { root, total_cells, seed };
            match self.prove(key, statement, &debt).await {
                Ok(_) => {
                    self.done.insert(key);
                }
                Err(DutyError::Chain(e)) => return Err(e),
                Err(e) => trouble = Some(e.to_string()),
            }
        }
        self.proofs.prune(epoch);
        self.hopeless.retain(|k| k.epoch.0 + 16 > epoch.0);
        self.done.retain(|k| k.epoch.0 + 16 > epoch.0);
        Ok(trouble)
    }

    /// The proof of a statement: from disk, or made now.
    async fn prove(&mut self, key: ProofKey, statement: Storage, debt: &Debt) -> Result<ProvedStorage, DutyError> {
        if let Some(proof) = self.proofs.get(&key).filter(|p| p.statement() == statement) {
            return Ok(proof);
        }
        self.proofs.set_missing(key, "being proven".to_owned());
        let made = self.make(key, statement, debt).await;
        match &made {
            Ok(proved) => {
                tracing::info!(epoch = %key.epoch, index = key.proof_index, ms = proved.prove_ms, "storage proven");
                metrics::counter!("fluence_proofs_made_total", "statement" => "storage").increment(1);
            }
            Err(e) => {
                tracing::error!(epoch = %key.epoch, index = key.proof_index, error = %e, "STORAGE CANNOT BE PROVEN");
                metrics::counter!("fluence_proofs_failed_total", "statement" => "storage").increment(1);
                self.proofs.set_missing(key, e.to_string());
                if !matches!(e, DutyError::Chain(_) | DutyError::Disk(_)) {
                    self.hopeless.insert(key);
                }
            }
        }
        made
    }

    async fn make(&self, key: ProofKey, statement: Storage, debt: &Debt) -> Result<ProvedStorage, DutyError> {
        let owed = debt.owed.iter().filter(|o| key.db.is_none_or(|db| db == o.db));
        let roots: Vec<(DatabaseId, DbRoot)> = owed.map(|o| (o.db, o.root)).collect();
        let proved = self.prover.storage(roots, key.epoch, statement).await?;
        self.proofs.put(&key, &proved)?;
        Ok(proved)
    }

    /// Finds open challenges against us and answers them.
    async fn challenges(&mut self, head: u64) -> Result<Option<String>, ChainError> {
        let info = *self.chain.info();
        // A challenge opened before this is past its deadline. Blocks are looked at twice rather than never: `head` may lag.
        let oldest = head.saturating_sub(info.response_blocks).max(info.start_block);
        let from = self.scanned.map_or(oldest, |s| s.max(oldest));
        for challenge in self.chain.challenges(self.node, from).await? {
            if challenge.status == ChallengeStatus::Open && !self.open.contains_key(&challenge.id) {
                tracing::warn!(id = %challenge.id, epoch = %challenge.epoch, db = ?challenge.db, deadline = challenge.deadline, "challenged");
                self.open.insert(challenge.id, (challenge, 0));
            }
        }
        self.scanned = Some(head);
        let mut trouble = None;
        for (challenge, tries) in self.open.values().copied().collect::<Vec<_>>() {
            if head > challenge.deadline || tries >= RESPONSES_MAX {
                tracing::error!(id = %challenge.id, "a challenge was not answered");
                self.open.remove(&challenge.id);
                continue;
            }
            match self.answer(&challenge).await {
                Ok(()) => {
                    tracing::info!(id = %challenge.id, "challenge answered on chain");
                    metrics::counter!("fluence_challenges_answered_total").increment(1);
                    self.open.remove(&challenge.id);
                }
                Err(DutyError::Chain(ChainError::Refused { why, .. })) => {
                    // Another may have answered for us; else count.
                    tracing::warn!(id = %challenge.id, %why, "the answer was refused");
                    self.open.entry(challenge.id).and_modify(|(_, tries)| *tries += 1);
                    let opened = challenge.deadline.saturating_sub(info.response_blocks);
                    let seen = self.chain.challenges(self.node, opened).await?;
                    if seen.iter().any(|c| c.id == challenge.id && c.status != ChallengeStatus::Open) {
                        self.open.remove(&challenge.id);
                    }
                }
                Err(DutyError::Chain(e)) => return Err(e),
                Err(e) => trouble = Some(e.to_string()),
            }
        }
        Ok(trouble)
    }

    async fn answer(&mut self, challenge: &Challenge) -> Result<(), DutyError> {
        let key = ProofKey { epoch: challenge.epoch, proof_index: challenge.proof_index, db: challenge.db };
        if self.hopeless.contains(&key) {
            return Err(DutyError::Hopeless(self.proofs.why_missing(&key)));
        }
        let statement = Storage { root: challenge.root, total_cells: challenge.cells, seed: challenge.seed };
        let debt = self.chain.debt(self.node, challenge.epoch).await?;
        let debt = debt.ok_or_else(|| DutyError::Hopeless(format!("nothing is owed in epoch {}", challenge.epoch)))?;
        let expected: Option<(HoldingsRoot, u64)> = match challenge.db {
            Some(db) => debt.database(db),
            None => Some(debt.holdings()),
        };
        if expected != Some((statement.root, statement.total_cells)) {
            return Err(DutyError::Hopeless(format!("the challenge names {statement:?}, but owed is {expected:?}")));
        }
        let proved = self.prove(key, statement, &debt).await?;
        let proof = proof_eip2537(&proved.proof).map_err(|e| DutyError::Hopeless(e.to_string()))?;
        Ok(self.chain.respond(challenge.id, &proof).await?)
    }
}
