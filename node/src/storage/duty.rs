//! The hour of a storage node: learn what is owed, prove it, answer challenges.
//!
//! ```text
//! beacon known -> debt from the chain -> witness at the roots owed -> proof -> disk -> served by `EpochProof`
//! challenge    -> the proof on disk, or a new one                        -> respond on chain before the deadline
//! ```
//! Rule    the debt is the chain's: a damaged disk changes nothing of it. A node that cannot prove says so loudly and says why.
//! Writes  go on after a root was registered; the engine goes back to it, and `pins.rs` keeps it from being forgotten.
//! Source  DESIGN sections 6 and 8

use super::pins::{self, Pins};
use super::proofs::{ProofKey, Proofs};
use super::prover::{ProveError, Prover};
use crate::chain::{Chain, ChainError, Challenge, ChallengeId, ChallengeStatus, Debt};
use crate::telemetry::Health;
use fluence_crypto::seed::storage_seed;
use fluence_engine::WitnessError;
use fluence_types::answer::OpenRefusal;
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
/// Blocks that are looked at again for challenges: an RPC may say a head whose logs it does not have yet.
const LAG_BLOCKS: u64 = 16;

/// What a node does every epoch.
pub struct Duty {
    node: NodeId,
    chain: Arc<dyn Chain>,
    prover: Arc<Prover>,
    proofs: Arc<Proofs>,
    health: watch::Sender<Health>,
    /// Proofs that cannot be made: not tried again.
    hopeless: BTreeSet<ProofKey>,
    /// Proofs that failed for a reason that may pass: how often, and the block from which they are tried again.
    delayed: BTreeMap<ProofKey, (u32, u64)>,
    /// Proofs that are there, and of the statement that is owed.
    done: BTreeSet<ProofKey>,
    /// Open challenges against us, and how often they were answered in vain.
    open: BTreeMap<ChallengeId, (Challenge, u32)>,
    /// Challenges that are not answered any more, and their deadlines: a look back must not open them again.
    given_up: BTreeMap<ChallengeId, u64>,
    scanned: Option<u64>,
    pins: Pins,
}

#[derive(Debug, thiserror::Error)]
enum DutyError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("{0}")]
    Proof(#[from] ProveError),
    #[error("{0}")]
    Hopeless(String),
    #[error("{0}")]
    Later(String),
    #[error(transparent)]
    Disk(#[from] crate::datadir::DataDirError),
}

impl DutyError {
    /// No retry helps: the data is gone, or does not fit the circuit. Keys, files and the store may be put right while the node runs.
    const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Hopeless(_)
                | Self::Proof(ProveError::Witness(
                    WitnessError::Open(OpenRefusal::Lost { .. })
                        | WitnessError::Gone { .. }
                        | WitnessError::Shape { .. }
                ))
        )
    }
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
        Self {
            node,
            chain,
            prover,
            proofs,
            health,
            hopeless: BTreeSet::new(),
            delayed: BTreeMap::new(),
            done: BTreeSet::new(),
            open: BTreeMap::new(),
            given_up: BTreeMap::new(),
            scanned: None,
            pins: Pins::default(),
        }
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
        if self.pins.is_new(epoch) {
            let debt = self.chain.debt(self.node, epoch).await?;
            let (before, info) = (std::mem::take(&mut self.pins), *self.chain.info());
            let (pins, taken) = pins::take(before, Arc::clone(self.prover.engine()), info, epoch, debt).await;
            self.pins = pins;
            if let Err(why) = taken {
                tracing::error!(%epoch, error = %why, "what is owed could not be pinned; trying again");
                trouble = trouble.or(Some(why));
            }
        }
        for proof_index in 0..self.chain.info().proofs_per_epoch {
            let key = ProofKey { epoch, proof_index, db: None };
            if let Err(e) = self.may_prove(&key, head) {
                trouble = trouble.or_else(|| Some(e.to_string()));
                continue;
            }
            if self.done.contains(&key) {
                continue;
            }
            let Some(debt) = self.chain.debt(self.node, epoch).await? else { break };
            let (root, total_cells) = debt.holdings();
            let seed = storage_seed(&self.chain.info().seed(self.node, epoch, beacon, proof_index));
            let statement = Storage { root, total_cells, seed };
            match self.prove(head, key, statement, &debt).await {
                Ok(_) => {
                    self.done.insert(key);
                }
                Err(DutyError::Chain(e)) => return Err(e),
                Err(e) => trouble = Some(e.to_string()),
            }
        }
        self.proofs.prune(epoch);
        self.hopeless.retain(|k| k.epoch.0 + 16 > epoch.0);
        self.delayed.retain(|k, _| k.epoch.0 + 16 > epoch.0);
        self.done.retain(|k| k.epoch.0 + 16 > epoch.0);
        Ok(trouble)
    }

    /// Whether a proof may be tried at this block; what went wrong before, where not.
    fn may_prove(&self, key: &ProofKey, head: u64) -> Result<(), DutyError> {
        if self.hopeless.contains(key) {
            return Err(DutyError::Hopeless(self.proofs.why_missing(key)));
        }
        match self.delayed.get(key) {
            Some((_, from)) if head < *from => Err(DutyError::Later(self.proofs.why_missing(key))),
            _ => Ok(()),
        }
    }

    /// Puts off the next try: one block, then twice as many each time, but never so many that a challenge could pass in between.
    fn delay(&mut self, key: ProofKey, head: u64) {
        let most = (self.chain.info().response_blocks / 4).max(1); // rounds down
        let (failed, from) = self.delayed.entry(key).or_default();
        *from = head.saturating_add(1u64.checked_shl(*failed).unwrap_or(u64::MAX).min(most));
        *failed = failed.saturating_add(1);
    }

    /// The proof of a statement: from disk, or made now.
    async fn prove(
        &mut self,
        head: u64,
        key: ProofKey,
        statement: Storage,
        debt: &Debt,
    ) -> Result<ProvedStorage, DutyError> {
        if let Some(proof) = self.proofs.get(&key).filter(|p| p.statement() == statement) {
            return Ok(proof);
        }
        self.proofs.set_missing(key, "being proven".to_owned());
        let made = self.make(key, statement, debt).await;
        match &made {
            Ok(proved) => {
                tracing::info!(epoch = %key.epoch, index = key.proof_index, ms = proved.prove_ms, "storage proven");
                metrics::counter!("fluence_proofs_made_total", "statement" => "storage").increment(1);
                self.delayed.remove(&key);
            }
            Err(e) => {
                tracing::error!(epoch = %key.epoch, index = key.proof_index, error = %e, "STORAGE CANNOT BE PROVEN");
                metrics::counter!("fluence_proofs_failed_total", "statement" => "storage").increment(1);
                self.proofs.set_missing(key, e.to_string());
                if e.is_final() {
                    self.hopeless.insert(key);
                } else {
                    self.delay(key, head);
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
        let from = self.scanned.map_or(oldest, |s| s.saturating_sub(LAG_BLOCKS).max(oldest));
        self.given_up.retain(|_, deadline| deadline.saturating_add(info.response_blocks + LAG_BLOCKS) >= head);
        for challenge in self.chain.challenges(self.node, from).await? {
            let known = self.open.contains_key(&challenge.id) || self.given_up.contains_key(&challenge.id);
            if challenge.status == ChallengeStatus::Open && !known {
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
                self.given_up.insert(challenge.id, challenge.deadline);
                continue;
            }
            match self.answer(head, &challenge).await {
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

    async fn answer(&mut self, head: u64, challenge: &Challenge) -> Result<(), DutyError> {
        let key = ProofKey { epoch: challenge.epoch, proof_index: challenge.proof_index, db: challenge.db };
        self.may_prove(&key, head)?;
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
        let proved = self.prove(head, key, statement, &debt).await?;
        let proof = proof_eip2537(&proved.proof).map_err(|e| DutyError::Hopeless(e.to_string()))?;
        Ok(self.chain.respond(challenge.id, &proof).await?)
    }
}
