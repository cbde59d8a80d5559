//! The log of a database's cluster: what orders operations, executes them, and certifies roots.
//!
//! Seam    [`Log`] is what a cluster of 3f + 1 will implement; [`SoloLog`] is the cluster of one.
//! Rule    an answer to `submit` means: the block is executed and on disk, and its root is certified.
//! Solo    one thread owns all writing. It takes what has gathered while the block before was written (group commit): one block, one
//!         batch, one fsync for many operations. It signs a checkpoint alone, after the block is on disk, so it never signs two roots at
//!         a height.
//! Source  DESIGN section 7

use fluence_crypto::sign::{NodeKey, VerifiedOp, members_hash, ops_hash, sign_checkpoint};
use fluence_engine::{ApplyError, Engine, VerifiedBlock};
use fluence_types::block::{Block, BlockHeader, Certificate, Checkpoint, Members};
use fluence_types::codec;
use fluence_types::limits::{BLOCK_BYTES_MAX, BLOCK_OPS_MAX};
use fluence_types::op::{Op, OpReceipt, OpRefusal};
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, NodeId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Operations waiting for a block.
const QUEUE_MAX: usize = 4096;
/// Bytes left in a block for its header and lengths.
const BLOCK_ROOM: usize = 4 << 10;

/// Why an operation was not ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The database is not kept here, and the operation does not create it.
    #[error("database {0} is not kept here")]
    UnknownDatabase(DatabaseId),
    /// The operation can never be ordered here.
    #[error("{0}")]
    Refused(String),
    /// Too many are waiting.
    #[error("{0} operations are waiting")]
    Busy(usize),
    /// The log has stopped, or its disk failed.
    #[error("the log has stopped: {0}")]
    Stopped(String),
}

/// Orders operations and certifies roots.
pub trait Log: Send + Sync + 'static {
    /// Orders an operation; returns when it is in an executed block, with a certified root at or after it. Given twice, an operation is
    /// done once and answered alike.
    fn submit(&self, op: VerifiedOp) -> impl Future<Output = Result<(OpReceipt, Certificate), SubmitError>> + Send;

    /// The certificate of a checkpoint of ours; `None` where the cluster did not certify it.
    fn certificate(&self, checkpoint: &Checkpoint) -> Option<Certificate>;
}

struct Waiting {
    op: VerifiedOp,
    bytes: usize,
    reply: oneshot::Sender<Result<(OpReceipt, Certificate), SubmitError>>,
}

/// The cluster of one.
pub struct SoloLog {
    engine: Arc<Engine>,
    key: Arc<NodeKey>,
    queue: mpsc::Sender<Waiting>,
}

impl SoloLog {
    /// Starts the writing thread. It ends when the log is dropped, after the block it is at; `failed` is cancelled if a write fails or
    /// the thread panics, and then the node must stop: memory and disk may differ.
    #[must_use]
    pub fn start(
        engine: Arc<Engine>,
        key: Arc<NodeKey>,
        failed: CancellationToken,
    ) -> (Self, std::thread::JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { engine: Arc::clone(&engine), key: Arc::clone(&key), failed };
        let thread = std::thread::Builder::new()
            .name("fluence-log".to_owned())
            .spawn(move || writer.run(waiting))
            .expect("the system can start a thread");
        (Self { engine, key, queue }, thread)
    }

    /// What can be refused before it costs a block.
    fn precheck(&self, op: &VerifiedOp) -> Result<(), SubmitError> {
        let unsigned = op.unsigned();
        match (&unsigned.op, self.engine.checkpoint(unsigned.db)) {
            (Op::CreateDatabase { members }, _) if members[..] != [self.key.id()] => {
                Err(SubmitError::Refused("this node keeps only databases that name it as their only member".to_owned()))
            }
            (Op::CreateDatabase { .. }, _) => Ok(()),
            (_, None) => Err(SubmitError::UnknownDatabase(unsigned.db)),
            (_, Some(_)) => {
                let view = self.engine.view(unsigned.db).map_err(|e| SubmitError::Refused(e.to_string()))?;
                if !view.writer(unsigned.writer).allowed {
                    return Err(SubmitError::Refused(OpRefusal::NotAllowed(unsigned.writer).to_string()));
                }
                self.engine.check_uploaded(unsigned).map_err(|e| SubmitError::Refused(e.to_string()))
            }
        }
    }
}

impl Log for SoloLog {
    async fn submit(&self, op: VerifiedOp) -> Result<(OpReceipt, Certificate), SubmitError> {
        let stopped = |why: &dyn std::fmt::Display| SubmitError::Stopped(why.to_string());
        let (db, id) = (op.unsigned().db, op.id());
        // A retry after a lost answer: done is done.
        let before = self.engine.receipt(db, id).map_err(|e| stopped(&e))?;
        if let (Some(receipt @ OpReceipt { outcome: Ok(()), .. }), Some(checkpoint)) =
            (before, self.engine.checkpoint(db))
        {
            return Ok((receipt, certify(&checkpoint, &self.key)));
        }
        self.precheck(&op)?;
        let bytes = codec::encode(op.signed()).len();
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Waiting { op, bytes, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy(QUEUE_MAX),
            mpsc::error::TrySendError::Closed(_) => stopped(&"no writer"),
        })?;
        answer.await.map_err(|_| stopped(&"no writer"))?
    }

    fn certificate(&self, checkpoint: &Checkpoint) -> Option<Certificate> {
        // Only what was executed and written is ever a checkpoint here.
        Some(certify(checkpoint, &self.key))
    }
}

fn certify(checkpoint: &Checkpoint, key: &NodeKey) -> Certificate {
    let signatures = vec![(0, sign_checkpoint(checkpoint, key))];
    Certificate { checkpoint: *checkpoint, signatures: signatures.try_into().expect("one signature") }
}

struct Writer {
    engine: Arc<Engine>,
    key: Arc<NodeKey>,
    failed: CancellationToken,
}

impl Writer {
    fn run(&self, mut queue: mpsc::Receiver<Waiting>) {
        // Cancels where a panic ends this thread.
        let unless_done = self.failed.clone().drop_guard();
        let mut gathered: VecDeque<Waiting> = VecDeque::new();
        loop {
            if gathered.is_empty() {
                match queue.blocking_recv() {
                    Some(first) => gathered.push_back(first),
                    None => {
                        unless_done.disarm();
                        return;
                    }
                }
            }
            while gathered.len() < BLOCK_OPS_MAX {
                match queue.try_recv() {
                    Ok(next) => gathered.push_back(next),
                    Err(_) => break,
                }
            }
            let block = next_block(&mut gathered);
            metrics::histogram!("fluence_log_block_ops").record(block.len() as f64);
            let started = Instant::now();
            self.order(block);
            metrics::histogram!("fluence_log_block_seconds").record(started.elapsed().as_secs_f64());
            if self.failed.is_cancelled() {
                return;
            }
        }
    }

    /// Executes one block and answers for it.
    fn order(&self, block: Vec<Waiting>) {
        let (ops, replies): (Vec<_>, Vec<_>) = block.into_iter().map(|w| (w.op, w.reply)).unzip();
        let db = ops[0].unsigned().db;
        match self.execute(db, ops) {
            Ok((receipts, certificate)) => {
                for (receipt, reply) in receipts.into_iter().zip(replies) {
                    let kind = if receipt.outcome.is_ok() { "done" } else { "refused" };
                    metrics::counter!("fluence_log_ops_total", "outcome" => kind).increment(1);
                    let _ = reply.send(Ok((receipt, certificate.clone())));
                }
            }
            Err(e) => {
                if matches!(e, SubmitError::Stopped(_)) {
                    tracing::error!(%db, error = %e, "the log stops");
                    self.failed.cancel();
                }
                for reply in replies {
                    let _ = reply.send(Err(e.clone()));
                }
            }
        }
    }

    fn execute(&self, db: DatabaseId, ops: Vec<VerifiedOp>) -> Result<(Vec<OpReceipt>, Certificate), SubmitError> {
        let last = self.engine.checkpoint(db);
        let members = match (&last, &ops[0].unsigned().op) {
            (None, Op::CreateDatabase { members }) => members.clone(),
            (None, _) => return Err(SubmitError::UnknownDatabase(db)),
            (Some(_), _) => solo(self.key.id()),
        };
        let ids: Vec<_> = ops.iter().map(VerifiedOp::id).collect();
        let signed: Vec<_> = ops.into_iter().map(VerifiedOp::into_signed).collect();
        let mut header = BlockHeader {
            db,
            consensus_epoch: 0,
            height: last.map_or(Height(0), |c| Height(c.height.0 + 1)),
            parent: last.map_or_else(BlockHash::default, |c| c.block),
            timestamp_ms: now_ms(),
            ops_hash: ops_hash(&ids),
            executed_height: last.map_or(Height(0), |c| c.height),
            executed_root: last.map_or_else(DbRoot::default, |c| c.root),
            next_members_hash: members_hash(&members),
        };
        let ops: codec::Bounded<_, BLOCK_OPS_MAX> = signed.try_into().expect("a block was cut to its limit");
        let mut applied = self.apply(Block { header: header.clone(), ops: ops.clone() });
        if let Err(ApplyError::Timestamp { parent, .. }) = applied {
            // The system clock went back: the log's does not.
            header.timestamp_ms = parent;
            applied = self.apply(Block { header, ops });
        }
        match applied {
            Ok(applied) => Ok((applied.outcomes, certify(&applied.checkpoint, &self.key))),
            Err(ApplyError::Genesis { why, .. }) => Err(SubmitError::Refused(why.to_string())),
            Err(e) => Err(SubmitError::Stopped(e.to_string())),
        }
    }

    fn apply(&self, block: Block) -> Result<fluence_engine::Applied, ApplyError> {
        self.engine.apply(&VerifiedBlock::verify(block)?)
    }
}

/// The cluster of one.
fn solo(node: NodeId) -> Members {
    vec![node].try_into().expect("one member")
}

/// Takes the operations of the first one's database, in order of arrival, as many as a block may hold.
fn next_block(gathered: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let db = gathered.front().expect("called with at least one").op.unsigned().db;
    let mut bytes = BLOCK_ROOM;
    let mut block: Vec<Waiting> = Vec::new();
    let mut rest = VecDeque::with_capacity(gathered.len());
    let mut full = false;
    for waiting in gathered.drain(..) {
        let same = waiting.op.unsigned().db == db;
        full |= same && (bytes + waiting.bytes > BLOCK_BYTES_MAX || block.len() >= BLOCK_OPS_MAX) && !block.is_empty();
        if same && !full {
            bytes += waiting.bytes;
            block.push(waiting);
        } else {
            rest.push_back(waiting);
        }
    }
    *gathered = rest;
    block
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_engine::keys::Cf;
    use fluence_engine::store::{Anchor, Batch, Durability, Entry};
    use fluence_engine::testkit::TestDb;
    use fluence_engine::{EngineConfig, MemStore, Store, StoreError};
    use std::collections::BTreeMap;

    /// A store whose writes panic.
    struct Broken(MemStore);

    impl Store for Broken {
        fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(cf, key)
        }
        fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
            self.0.scan(cf, prefix, after, limit)
        }
        fn commit(&self, _: Batch, _: Durability) -> Result<(), StoreError> {
            panic!("this test's store panics")
        }
        fn flush(&self) -> Result<(), StoreError> {
            self.0.flush()
        }
        fn anchors(&self) -> BTreeMap<DatabaseId, Anchor> {
            self.0.anchors()
        }
    }

    fn start(store: impl Store + 'static) -> (SoloLog, std::thread::JoinHandle<()>, CancellationToken) {
        let engine = Arc::new(Engine::open(Arc::new(store), EngineConfig::default()).unwrap());
        let failed = CancellationToken::new();
        let key = Arc::new(NodeKey::new(fluence_crypto::secret::Secret::new([1; 32])));
        let (log, thread) = SoloLog::start(engine, key, failed.clone());
        (log, thread, failed)
    }

    #[tokio::test]
    async fn a_writer_that_panics_says_that_it_failed_and_one_that_ends_does_not() {
        let (log, thread, failed) = start(Broken(MemStore::new()));
        let db = TestDb::new(1, 1);
        let op = Op::CreateDatabase { members: solo(log.key.id()) };
        let op = fluence_crypto::sign::verify_op(db.owner.sign(db.db, op)).unwrap();
        assert!(matches!(log.submit(op).await, Err(SubmitError::Stopped(_))));
        failed.cancelled().await;
        assert!(thread.join().is_err());

        let (log, thread, failed) = start(MemStore::new());
        drop(log);
        thread.join().unwrap();
        assert!(!failed.is_cancelled());
    }
}
