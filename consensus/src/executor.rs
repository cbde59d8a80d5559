//! Executes finalized blocks in order, answers those who wait for their operations, and keeps the latest certificates.
//!
//! Rule     a block is acknowledged to the library after the engine's batch is on disk; it may come again after a crash, and then changes
//!          nothing. An operation is answered when its block is executed and a root at or after it is certified.

use crate::app::Shared;
use crate::block::ClusterBlock;
use crate::handover;
use crate::scheme::{Scheme, certificate};
use crate::status::Event;
use commonware_actor::Feedback;
use commonware_consensus::Reporter;
use commonware_consensus::marshal::Update;
use commonware_consensus::marshal::core::Mailbox;
use commonware_consensus::marshal::standard::Standard;
use commonware_consensus::types::Height as ConsensusHeight;
use commonware_utils::Acknowledgement;
use fluence_engine::ApplyError;
use fluence_types::block::{Certificate, ends_epoch, epoch_of};
use fluence_types::limits::EXECUTION_LAG_MAX;
use fluence_types::op::OpReceipt;
use fluence_types::{Height, OpId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Certificates remembered in memory.
const CERTIFICATES_MAX: usize = 64;
/// Those who wait for one operation.
const WAITERS_MAX: usize = 8;

pub(crate) type Marshal = Mailbox<Scheme, Standard<ClusterBlock>>;
pub(crate) type Answer = (OpReceipt, Certificate);

/// Hands what the library reports to the executor. The library holds back by itself: few blocks are unacknowledged at once.
#[derive(Clone)]
pub(crate) struct Inbox(pub(crate) mpsc::UnboundedSender<Update<ClusterBlock>>);

impl Reporter for Inbox {
    type Activity = Update<ClusterBlock>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match self.0.send(activity) {
            Ok(()) => Feedback::Ok,
            Err(_) => Feedback::Closed,
        }
    }
}

#[derive(Default)]
struct Waiters {
    waiting: BTreeMap<OpId, Vec<oneshot::Sender<Answer>>>,
    /// Executed, not yet certified.
    executed: VecDeque<OpReceipt>,
}

/// Operations that somebody waits for, and the latest certificates.
#[derive(Default)]
pub(crate) struct Desk {
    waiters: Mutex<Waiters>,
    certificates: Mutex<VecDeque<Certificate>>,
    latest: watch::Sender<Option<Certificate>>,
    finalized: Mutex<Height>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Waits for an operation. `None` where too many do.
    pub(crate) fn wait(&self, op: OpId) -> Option<oneshot::Receiver<Answer>> {
        let (reply, answer) = oneshot::channel();
        let mut waiters = lock(&self.waiters);
        let of_op = waiters.waiting.entry(op).or_default();
        of_op.retain(|w| !w.is_closed());
        if of_op.len() >= WAITERS_MAX {
            return None;
        }
        of_op.push(reply);
        Some(answer)
    }

    /// Forgets who waits for an operation that will not come.
    pub(crate) fn give_up(&self, ops: &[OpId]) {
        let mut waiters = lock(&self.waiters);
        for op in ops {
            waiters.waiting.remove(op);
        }
    }

    /// The latest certificate.
    pub(crate) fn latest(&self) -> watch::Receiver<Option<Certificate>> {
        self.latest.subscribe()
    }

    /// The newest known certificate of a root at this height or above.
    pub(crate) fn certificate_at(&self, height: Height) -> Option<Certificate> {
        let known = lock(&self.certificates);
        known.iter().rev().find(|c| c.header.executed_height == height).cloned()
    }

    pub(crate) fn recent(&self) -> Vec<Certificate> {
        lock(&self.certificates).iter().cloned().collect()
    }

    pub(crate) fn finalized(&self) -> Height {
        *lock(&self.finalized)
    }

    fn executed(&self, outcomes: &[OpReceipt]) {
        let mut waiters = lock(&self.waiters);
        for outcome in outcomes {
            if waiters.waiting.contains_key(&outcome.op) {
                waiters.executed.push_back(outcome.clone());
            }
        }
    }

    pub(crate) fn certified(&self, certificate: Certificate) {
        let covered = certificate.header.executed_height;
        if self.latest.borrow().as_ref().is_some_and(|l| l.header.height >= certificate.header.height) {
            return;
        }
        {
            let mut known = lock(&self.certificates);
            if known.len() == CERTIFICATES_MAX {
                known.pop_front();
            }
            known.push_back(certificate.clone());
        }
        let mut replies = Vec::new();
        {
            let mut waiters = lock(&self.waiters);
            while waiters.executed.front().is_some_and(|r| r.height <= covered) {
                let receipt = waiters.executed.pop_front().expect("there is a front");
                for reply in waiters.waiting.remove(&receipt.op).into_iter().flatten() {
                    replies.push((reply, receipt.clone()));
                }
            }
        }
        self.latest.send_replace(Some(certificate.clone()));
        for (reply, receipt) in replies {
            let _ = reply.send((receipt, certificate.clone()));
        }
    }
}

/// Why a finalized block cannot be executed.
#[derive(Debug)]
enum Stuck {
    /// We and the quorum differ.
    Differs(String),
    /// Our own disk.
    Store(String),
}

/// The executing half of a replica.
pub(crate) struct Executor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) marshal: Marshal,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Told of every epoch that begins.
    pub(crate) epochs: mpsc::UnboundedSender<u64>,
    /// Told when the set of peers may have changed.
    pub(crate) peers: mpsc::UnboundedSender<Height>,
    /// Blocks that are kept for members that were away.
    pub(crate) keep_blocks: u64,
}

impl Executor {
    pub(crate) async fn run(self, mut inbox: mpsc::UnboundedReceiver<Update<ClusterBlock>>) {
        let head = self.shared.head().height;
        // The newest certificate may be that of a block a little below the head.
        for below in 0..=EXECUTION_LAG_MAX.min(head.0) {
            self.certify(Height(head.0 - below)).await;
        }
        while let Some(update) = inbox.recv().await {
            match update {
                Update::Tip(_, height, _) => {
                    let mut finalized = lock(&self.desk.finalized);
                    *finalized = (*finalized).max(Height(height.get()));
                }
                Update::Block(block, acknowledgement) => {
                    if let Err(stuck) = self.execute(block.inner()) {
                        let height = block.inner().header().height;
                        tracing::error!(db = %self.shared.db, %height, ?stuck, "the replica stops: a finalized block cannot be executed");
                        let _ = self.events.send(match stuck {
                            Stuck::Differs(why) => Event::Diverged { height, why },
                            Stuck::Store(why) => Event::Failed { height, why },
                        });
                        return;
                    }
                    acknowledgement.acknowledge();
                    let height = block.inner().header().height;
                    self.certify(height).await;
                    if ends_epoch(height)
                        && let Some(over) = height.0.checked_sub(self.keep_blocks)
                    {
                        self.marshal.prune(ConsensusHeight::new(over));
                    }
                }
            }
        }
    }

    fn execute(&self, block: &ClusterBlock) -> Result<(), Stuck> {
        let shared = &self.shared;
        let checked = shared.check(block).map_err(Stuck::Differs)?;
        let applied = shared.engine.apply(&checked).map_err(|e| match e {
            ApplyError::Store(e) => Stuck::Store(e.to_string()),
            other => Stuck::Differs(other.to_string()),
        })?;
        let height = block.header().height;
        let view = shared.engine.view(shared.db).map_err(|e| Stuck::Store(e.to_string()))?;
        let done = block.block().ops.iter().map(|op| fluence_crypto::sign::op_id(&op.unsigned));
        let passed = shared.mempool.executed(done, |writer| view.writer(writer).next_sequence);
        self.desk.give_up(&passed);
        self.desk.executed(&applied.outcomes);
        if !applied.replayed {
            shared.planted.executed(block.block(), &applied.outcomes);
        }
        shared.head.send_if_modified(|h| std::mem::replace(h, (*h).max(height)) < height);
        shared.snapshots.executed(&shared.engine, shared.db, height, block.header().timestamp_ms);
        if !applied.missing.is_empty() {
            shared.missing.notify_one();
            let _ = self.events.send(Event::Missing(applied.missing));
        }
        let _ = self.events.send(Event::Executed(height));
        if !applied.outcomes.is_empty() || ends_epoch(height) {
            let _ = self.peers.send(height);
        }
        if ends_epoch(height) && !applied.replayed {
            let _ = self.epochs.send(epoch_of(height) + 1);
        }
        Ok(())
    }

    /// Takes the certificate of a block, where the library has one: a block may be final by its descendant's.
    async fn certify(&self, height: Height) {
        let Some(finalization) = self.marshal.get_finalization(ConsensusHeight::new(height.0)).await else { return };
        let Some(block) = self.marshal.get_block(ConsensusHeight::new(height.0)).await else { return };
        if let Some(certificate) = certificate(block.inner().header().clone(), &finalization) {
            self.shared.snapshots.certified(&certificate);
            if let Err(error) = handover::note(&self.shared.engine, &certificate) {
                tracing::error!(db = %self.shared.db, %height, %error, "a handover cannot be noted");
            }
            let event = Event::Certified(Box::new(certificate.clone()));
            self.desk.certified(certificate);
            let _ = self.events.send(event);
        }
    }
}
