//! The arbiter: asks every node for its proof each epoch, verifies in batches, challenges on chain what is missing or false.
//!
//! ```text
//! chain (who owes what, beacon) -> statement, computed here -> ask the node -> verify_batch -> judge -> ledger -> chain
//! ```
//! Rule    of a node's answer only the 192 proof bytes count: root, cells and seed are computed here from the chain. An arbiter holds no
//!         data and is trusted for nothing: what it challenges is decided by a proof on chain, or by a deadline.
//! Source  DESIGN section 8

pub mod judge;
pub mod ledger;

use crate::chain::{Chain, ChainError, Debt, Subject};
use crate::config::{JudgeConfig, PeerConfig};
use crate::datadir::DataDirError;
use crate::net::{NetHandle, Offence};
use crate::telemetry::Health;
use fluence_crypto::seed::storage_seed;
use fluence_types::proof::ProofBytes;
use fluence_types::statement::Storage;
use fluence_types::{Epoch, NodeId};
use fluence_verifier::groth16::{VerificationKey, proof_eip2537, verify_batch};
use fluence_wire::message::ProvedStorage;
use fluence_wire::{Request, Response};
use futures::StreamExt;
use judge::{Action, Case, EPOCHS_KEPT, Judge};
use ledger::{Entry, Ledger};
use rand::RngCore;
use rand::rngs::OsRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Nodes asked at once.
const ASK_AT_ONCE: usize = 16;
/// Epochs for which debts are remembered.
const DEBTS_KEPT: usize = 4096;
/// Blocks that an RPC may lag: a beacon that is not there so long after its block never will be.
const LAG_BLOCKS: u64 = 16;
/// Blocks until a challenge is sent again that found the node's queue full: each try costs a commitment.
const QUEUE_BLOCKS: u64 = 5;

/// Why a round of an arbiter failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArbiterError {
    /// The ledger cannot be written: without it a restart would forget what was said on chain.
    #[error(transparent)]
    Ledger(DataDirError),
    /// The chain was not read.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A running arbiter.
pub struct Arbiter {
    net: NetHandle,
    chain: Arc<dyn Chain>,
    key: Arc<VerificationKey>,
    config: JudgeConfig,
    judge: Judge,
    ledger: Ledger,
    addresses: BTreeMap<NodeId, Vec<String>>,
    debts: BTreeMap<(Epoch, NodeId), Debt>,
    beacons: BTreeMap<Epoch, [u8; 32]>,
    /// The first epoch that is judged: the ledger's, or the one in which a new arbiter starts.
    first: Option<Epoch>,
    /// Epochs whose cases this process has opened. A ledger does not say it: who has not proven yet is not in it.
    enumerated: BTreeSet<Epoch>,
    asked: BTreeMap<Subject, Instant>,
    /// Challenges that wait for room in the node's queue, until this block.
    queued: BTreeMap<Subject, u64>,
}

/// What a node was found to have.
struct Found {
    subject: Subject,
    outcome: Result<(ProvedStorage, Storage), (String, bool)>,
}

impl Arbiter {
    /// An arbiter that goes on from its ledger.
    #[must_use]
    pub fn new(
        net: NetHandle,
        chain: Arc<dyn Chain>,
        key: VerificationKey,
        config: JudgeConfig,
        ledger: Ledger,
        cases: BTreeMap<Subject, Case>,
    ) -> Self {
        let judge =
            Judge::new(*chain.info(), config.grace_blocks, config.challenge && chain.operator().is_some(), cases);
        let first = judge.cases().keys().next().map(|s| s.epoch);
        Self {
            net,
            chain,
            key: Arc::new(key),
            config,
            judge,
            ledger,
            addresses: BTreeMap::new(),
            debts: BTreeMap::new(),
            beacons: BTreeMap::new(),
            first,
            enumerated: BTreeSet::new(),
            asked: BTreeMap::new(),
            queued: BTreeMap::new(),
        }
    }

    /// Works until `stop`, looking every `poll`. A chain out of reach is waited for.
    ///
    /// # Errors
    /// [`ArbiterError::Ledger`].
    pub async fn run(
        mut self,
        poll: Duration,
        health: &watch::Sender<Health>,
        stop: CancellationToken,
    ) -> Result<(), ArbiterError> {
        loop {
            let round = tokio::select! {
                round = self.round() => round,
                // What is half done on chain is found there after the restart.
                () = stop.cancelled() => return Ok(()),
            };
            match round {
                Ok(()) => {
                    health.send_replace(Health::Ready);
                }
                Err(ArbiterError::Chain(error)) => {
                    tracing::warn!(%error, "the chain was not read; trying again");
                    health.send_replace(Health::Degraded(error.to_string()));
                }
                Err(e) => return Err(e),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    /// Where the cases stand.
    #[must_use]
    pub const fn cases(&self) -> &BTreeMap<Subject, Case> {
        self.judge.cases()
    }

    /// One look at the chain and everything that follows from it.
    ///
    /// # Errors
    /// [`ArbiterError::Chain`] where the chain was not read; the next round goes on from here.
    pub async fn round(&mut self) -> Result<(), ArbiterError> {
        let head = self.chain.head().await?;
        metrics::gauge!("fluence_chain_head").set(head as f64);
        if let Some(epoch) = self.chain.info().epoch_at(head) {
            self.enumerate_all(head, epoch).await?;
        }
        self.queued.retain(|_, until| head < *until);
        for subject in self.judge.tidy(head) {
            self.record(subject, head, None)?;
        }
        let (asks, acts): (Vec<_>, Vec<_>) =
            self.judge.plan(head).into_iter().partition(|a| matches!(a, Action::Ask(_)));
        self.ask(head, asks).await?;
        for action in acts {
            self.act(head, action).await?;
        }
        let open = self.judge.cases().values().filter(|c| !c.is_final()).count();
        metrics::gauge!("fluence_arbiter_cases_open").set(open as f64);
        Ok(())
    }

    /// Opens the cases of every epoch that may still be challenged: what was missed while the RPC, or the arbiter, was down too.
    async fn enumerate_all(&mut self, head: u64, current: Epoch) -> Result<(), ArbiterError> {
        let info = *self.chain.info();
        let first = *self.first.get_or_insert(current);
        // Older than this, finished cases are forgotten and would be opened again.
        let known = Epoch(current.0.saturating_sub(EPOCHS_KEPT));
        let open = info.epoch_at(head.saturating_sub(info.window_blocks)).unwrap_or(Epoch(0));
        let oldest = first.max(known).max(open);
        self.enumerated.retain(|epoch| *epoch >= oldest);
        for epoch in (oldest.0..=current.0).map(Epoch) {
            if head <= info.epoch_start(epoch).saturating_add(info.window_blocks) {
                self.enumerate(head, epoch).await?;
            }
        }
        Ok(())
    }

    /// Opens the cases of an epoch once its beacon is known.
    async fn enumerate(&mut self, head: u64, epoch: Epoch) -> Result<(), ArbiterError> {
        if self.enumerated.contains(&epoch) {
            return Ok(());
        }
        if self.beacon(epoch).await?.is_none() {
            if head > self.chain.info().epoch_start(epoch).saturating_add(LAG_BLOCKS) {
                tracing::warn!(%epoch, "the epoch's beacon is lost: nobody can be challenged in it");
                self.enumerated.insert(epoch);
            }
            return Ok(());
        }
        let nodes = self.chain.nodes().await?;
        for registered in nodes.iter().filter(|n| !n.left) {
            if let Some(address) = &registered.multiaddr {
                self.addresses.insert(registered.node, vec![address.clone()]);
            }
            if self.debt(epoch, registered.node).await?.is_some() {
                self.judge.owes(registered.node, epoch);
            }
        }
        tracing::info!(%epoch, nodes = nodes.len(), "an epoch began");
        self.enumerated.insert(epoch);
        Ok(())
    }

    async fn beacon(&mut self, epoch: Epoch) -> Result<Option<[u8; 32]>, ChainError> {
        if let Some(beacon) = self.beacons.get(&epoch) {
            return Ok(Some(*beacon));
        }
        let beacon = self.chain.beacon(epoch).await?;
        if let Some(beacon) = beacon {
            self.beacons.insert(epoch, beacon);
            while self.beacons.len() > DEBTS_KEPT {
                self.beacons.pop_first();
            }
        }
        Ok(beacon)
    }

    async fn debt(&mut self, epoch: Epoch, node: NodeId) -> Result<Option<Debt>, ChainError> {
        if let Some(debt) = self.debts.get(&(epoch, node)) {
            return Ok(Some(debt.clone()));
        }
        let debt = self.chain.debt(node, epoch).await?;
        if let Some(debt) = &debt {
            self.debts.insert((epoch, node), debt.clone());
            while self.debts.len() > DEBTS_KEPT {
                self.debts.pop_first();
            }
        }
        Ok(debt)
    }

    /// The statement that a node's proof must be of: nothing of it is the node's word.
    async fn statement(&mut self, subject: Subject) -> Result<Option<Storage>, ChainError> {
        let Subject { epoch, node, proof_index } = subject;
        let (Some(beacon), Some(debt)) = (self.beacon(epoch).await?, self.debt(epoch, node).await?) else {
            return Ok(None);
        };
        let (root, total_cells) = debt.holdings();
        let seed = storage_seed(&self.chain.info().seed(node, epoch, beacon, proof_index));
        Ok(Some(Storage { root, total_cells, seed }))
    }

    fn addresses_of(&self, node: NodeId) -> Vec<String> {
        let configured =
            self.config.peers.iter().filter(|p: &&PeerConfig| p.node == node).flat_map(|p| p.addresses.clone());
        configured.chain(self.addresses.get(&node).cloned().unwrap_or_default()).collect()
    }

    /// Asks nodes for their proofs, verifies what comes in one batch, and notes what is missing or false.
    async fn ask(&mut self, head: u64, asks: Vec<Action>) -> Result<(), ArbiterError> {
        let every = Duration::from_millis(self.config.ask_every_ms);
        let now = Instant::now();
        let mut due = Vec::new();
        for action in asks {
            let Action::Ask(subject) = action else { continue };
            if self.asked.get(&subject).is_some_and(|last| now.duration_since(*last) < every) {
                continue;
            }
            let Some(statement) = self.statement(subject).await? else { continue };
            self.asked.insert(subject, now);
            due.push((subject, statement, self.addresses_of(subject.node)));
        }
        self.asked.retain(|_, at| now.duration_since(*at) < every.max(Duration::from_secs(60)));
        let net = self.net.clone();
        let found: Vec<Found> = futures::stream::iter(due)
            .map(|(subject, statement, addresses)| ask_one(net.clone(), subject, statement, addresses))
            .buffer_unordered(ASK_AT_ONCE)
            .collect()
            .await;
        let (proven, missing): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| f.outcome.is_ok());
        for Found { subject, outcome } in missing {
            let (why, lie) = outcome.expect_err("partitioned");
            if lie {
                self.net.offend(subject.node, Offence::Lie).await;
            }
            metrics::counter!("fluence_arbiter_proofs_total", "outcome" => "missing").increment(1);
            tracing::info!(epoch = %subject.epoch, node = %subject.node, %why, "no proof yet");
            self.judge.refused(subject, why);
        }
        let proven: Vec<_> = proven.into_iter().map(|f| (f.subject, f.outcome.expect("partitioned"))).collect();
        if proven.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let bad = verify(Arc::clone(&self.key), proven.iter().map(|(_, (p, s))| (*s, p.proof)).collect()).await;
        let each_ms = started.elapsed().as_secs_f64() * 1e3 / proven.len() as f64;
        metrics::histogram!("fluence_arbiter_verify_seconds").record(started.elapsed().as_secs_f64());
        for (i, (subject, (proved, _))) in proven.into_iter().enumerate() {
            if let Some(why) = bad.get(&i) {
                metrics::counter!("fluence_arbiter_proofs_total", "outcome" => "false").increment(1);
                tracing::warn!(epoch = %subject.epoch, node = %subject.node, %why, "a proof is false");
                self.net.offend(subject.node, Offence::Lie).await;
                self.judge.refused(subject, why.clone());
            } else if self.judge.accepted(subject) {
                metrics::counter!("fluence_arbiter_proofs_total", "outcome" => "accepted").increment(1);
                tracing::info!(epoch = %subject.epoch, node = %subject.node, "proof accepted");
                self.record(subject, head, Some((each_ms, &proved)))?;
            }
        }
        Ok(())
    }

    /// Acts on chain. A refusal of the contract is looked into, not repeated blindly: someone else may have been first.
    async fn act(&mut self, head: u64, action: Action) -> Result<(), ArbiterError> {
        let (subject, changed) = match action {
            Action::Ask(_) => return Ok(()),
            Action::Challenge(subject) => {
                // A proof may have come since the plan was made.
                let waits = self.queued.get(&subject).is_some_and(|until| head < *until);
                if waits || !matches!(self.judge.cases().get(&subject), Some(Case::Waiting { .. })) {
                    return Ok(());
                }
                // Someone may have challenged already, or we did before a restart.
                if self.look(subject).await? {
                    return self.record(subject, head, None);
                }
                self.record(subject, head, None)?;
                let mut salt = [0; 32];
                OsRng.fill_bytes(&mut salt);
                let refused = match self.chain.challenge(subject, salt).await {
                    Ok(()) => None,
                    Err(ChainError::Refused { why, .. }) => Some(why),
                    Err(e) => return Err(e.into()),
                };
                match (self.look(subject).await?, refused) {
                    (true, _) => {
                        tracing::warn!(epoch = %subject.epoch, node = %subject.node, "challenged");
                        metrics::counter!("fluence_arbiter_challenges_total").increment(1);
                        (subject, true)
                    }
                    // Others challenged the node at once. There will be room: it must not get away by filling its own queue.
                    (false, Some(why)) if why.starts_with("QueueFull") => {
                        tracing::info!(epoch = %subject.epoch, node = %subject.node, %why, "challenging again later");
                        self.queued.insert(subject, head.saturating_add(QUEUE_BLOCKS));
                        (subject, false)
                    }
                    (false, Some(why)) => {
                        tracing::warn!(epoch = %subject.epoch, node = %subject.node, %why, "the challenge was refused");
                        (subject, self.judge.dropped(subject, why))
                    }
                    (false, None) => (subject, false),
                }
            }
            Action::Look(subject) => (subject, self.look(subject).await?),
            Action::Expire(subject, id) => match self.chain.expire(id).await {
                Ok(slashed) => {
                    tracing::warn!(epoch = %subject.epoch, node = %subject.node, slashed, "challenge unanswered: slashed");
                    (subject, self.judge.expired(subject, id, slashed))
                }
                Err(ChainError::Refused { .. }) => (subject, self.look(subject).await?),
                Err(e) => return Err(e.into()),
            },
            Action::Claim(subject, id) => match self.chain.claim_bond(id).await {
                Ok(()) => (subject, self.judge.claimed(subject)),
                Err(ChainError::Refused { why, .. }) => (subject, self.judge.dropped(subject, why)),
                Err(e) => return Err(e.into()),
            },
        };
        if changed {
            self.record(subject, head, None)?;
        }
        Ok(())
    }

    /// Reads where the challenge stands; true if that is news.
    async fn look(&mut self, subject: Subject) -> Result<bool, ChainError> {
        let Some(challenge) = self.chain.challenge_of(subject).await? else { return Ok(false) };
        let ours = Some(challenge.challenger) == self.chain.operator();
        Ok(self.judge.seen(subject, &challenge, ours))
    }

    fn record(
        &mut self,
        subject: Subject,
        block: u64,
        proved: Option<(f64, &ProvedStorage)>,
    ) -> Result<(), ArbiterError> {
        let Some(case) = self.judge.cases().get(&subject).cloned() else { return Ok(()) };
        let entry = Entry {
            subject,
            block,
            case,
            verify_ms: proved.map(|(ms, _)| ms),
            prove_ms: proved.map(|(_, p)| p.prove_ms),
            constraints: proved.map(|(_, p)| p.constraints),
        };
        self.ledger.append(&entry).map_err(ArbiterError::Ledger)
    }
}

async fn ask_one(net: NetHandle, subject: Subject, statement: Storage, addresses: Vec<String>) -> Found {
    let request = Request::EpochProof { epoch: subject.epoch, proof_index: subject.proof_index, db: None };
    let outcome = match net.request(&subject.node, &addresses, request).await {
        Ok(Response::EpochProof(proved)) if proved.statement() == statement => Ok((*proved, statement)),
        Ok(Response::EpochProof(proved)) => {
            let theirs = proved.statement();
            Err((format!("a proof of {theirs:?}, owed is {statement:?}"), false))
        }
        Ok(Response::Refused(why)) => Err((why.to_string(), false)),
        Ok(_) => Err(("an answer of the wrong kind".to_owned(), true)),
        Err(e) => Err((e.to_string(), false)),
    };
    Found { subject, outcome }
}

/// Positions of the proofs that do not verify, and why.
async fn verify(key: Arc<VerificationKey>, proofs: Vec<(Storage, ProofBytes)>) -> BTreeMap<usize, String> {
    let checked = tokio::task::spawn_blocking(move || {
        let inputs: Vec<_> = proofs.iter().map(|(statement, _)| statement.public_inputs()).collect();
        let batch: Vec<_> = inputs.iter().zip(&proofs).map(|(inputs, (_, proof))| (&inputs[..], proof)).collect();
        let mut bad: BTreeMap<usize, String> = match verify_batch(&key, &batch, &mut OsRng) {
            Ok(()) => BTreeMap::new(),
            Err(e) => e.bad.into_iter().map(|(i, why)| (i, why.to_string())).collect(),
        };
        // What the chain could not check is no proof: it would be worth nothing in a challenge.
        for (i, (_, proof)) in proofs.iter().enumerate() {
            if let Err(e) = proof_eip2537(proof) {
                bad.entry(i).or_insert_with(|| e.to_string());
            }
        }
        bad
    });
    checked.await.expect("verification does not panic")
}
