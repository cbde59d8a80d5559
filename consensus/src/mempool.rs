//! Operations that wait for a block: bounded, fair between writers, without repeats.
//!
//! Rule    an operation stays until a block with it is executed, or its writer's chain has passed it. What is proposed is a run of each
//!         writer's chain from where it stands, one operation of each writer in turn.

use fluence_crypto::sign::VerifiedOp;
use fluence_types::op::{Op, Seat, SignedOp};
use fluence_types::{Address, OpId, codec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations in all.
    pub ops: usize,
    /// Operations of one writer.
    pub ops_per_writer: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// Bytes of one writer.
    pub bytes_per_writer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ops: 16_384, ops_per_writer: 4096, bytes: 128 << 20, bytes_per_writer: 64 << 20 }
    }
}

/// Why an operation may not wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MempoolError {
    /// The pool is full.
    #[error("{ops} operations with {bytes} bytes are waiting")]
    Full {
        /// Operations that wait.
        ops: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The writer has its share.
    #[error("{ops} operations of {writer} with {bytes} bytes are waiting")]
    WriterFull {
        /// The writer.
        writer: Address,
        /// Its operations that wait.
        ops: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// Another operation of the writer has that number.
    #[error("operation {waiting} of {writer} waits with number {sequence} already")]
    Taken {
        /// The writer.
        writer: Address,
        /// The number.
        sequence: u64,
        /// The operation that has it.
        waiting: OpId,
    },
    /// The writer's chain has passed that number.
    #[error("number {sequence} of {writer} is over; its next is {next}")]
    Over {
        /// The writer.
        writer: Address,
        /// The number.
        sequence: u64,
        /// The next.
        next: u64,
    },
}

struct Entry {
    op: Arc<VerifiedOp>,
    bytes: usize,
    since: SystemTime,
}

#[derive(Default)]
struct Pool {
    /// By writer, by number. Seat changes have no writer; they are in `seats`.
    writers: BTreeMap<Address, BTreeMap<u64, Entry>>,
    seats: BTreeMap<OpId, Entry>,
    ids: BTreeSet<OpId>,
    bytes: usize,
    /// Whose turn was last.
    turn: Address,
}

/// The pool of one replica.
pub(crate) struct Mempool {
    pool: Mutex<Pool>,
    limits: Limits,
    changed: watch::Sender<u64>,
}

impl Mempool {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { pool: Mutex::default(), limits, changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an operation for this seat change waits.
    pub(crate) fn has_seat(&self, seat: &Seat) -> bool {
        let is = |op: &VerifiedOp| matches!(&op.unsigned().op, Op::Seat(change) if change.seat == *seat);
        self.lock().seats.values().any(|entry| is(&entry.op))
    }

    /// Says when something was added.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().ids.len()
    }

    /// Adds an operation whose writer stands at `next`. False if it waits already.
    pub(crate) fn insert(&self, op: Arc<VerifiedOp>, next: u64, now: SystemTime) -> Result<bool, MempoolError> {
        let bytes = codec::encode(op.signed()).len();
        let (writer, sequence, id) = (op.unsigned().writer, op.unsigned().sequence, op.id());
        let mut pool = self.lock();
        if pool.ids.contains(&id) {
            return Ok(false);
        }
        if pool.ids.len() >= self.limits.ops || pool.bytes + bytes > self.limits.bytes {
            return Err(MempoolError::Full { ops: pool.ids.len(), bytes: pool.bytes });
        }
        let entry = Entry { op, bytes, since: now };
        if matches!(entry.op.unsigned().op, Op::Seat(_)) {
            if pool.seats.len() >= 64 {
                return Err(MempoolError::Full { ops: pool.seats.len(), bytes: pool.bytes });
            }
            pool.seats.insert(id, entry);
        } else {
            if sequence < next {
                return Err(MempoolError::Over { writer, sequence, next });
            }
            let of_writer = pool.writers.entry(writer).or_default();
            let (ops, used) = (of_writer.len(), of_writer.values().map(|e| e.bytes).sum::<usize>());
            if let Some(waiting) = of_writer.get(&sequence) {
                return Err(MempoolError::Taken { writer, sequence, waiting: waiting.op.id() });
            }
            if ops >= self.limits.ops_per_writer || used + bytes > self.limits.bytes_per_writer {
                return Err(MempoolError::WriterFull { writer, ops, bytes: used });
            }
            of_writer.insert(sequence, entry);
        }
        pool.ids.insert(id);
        pool.bytes += bytes;
        drop(pool);
        self.changed.send_modify(|n| *n += 1);
        Ok(true)
    }

    /// The operation of a writer that waits with this number.
    pub(crate) fn id_of(&self, writer: Address, sequence: u64) -> Option<OpId> {
        self.lock().writers.get(&writer)?.get(&sequence).map(|entry| entry.op.id())
    }

    /// What to propose: of each writer in turn, its chain from `next(writer)` on, without those in `flying`, up to the limits.
    pub(crate) fn select(
        &self,
        flying: &BTreeSet<OpId>,
        next: impl Fn(Address) -> u64,
        ops_max: usize,
        bytes_max: usize,
    ) -> Vec<SignedOp> {
        let mut pool = self.lock();
        let mut chosen = Vec::new();
        let mut room = bytes_max;
        for entry in pool.seats.values().filter(|e| !flying.contains(&e.op.id())) {
            if entry.bytes <= room && chosen.len() < ops_max {
                room -= entry.bytes;
                chosen.push(entry.op.signed().clone());
            }
        }
        // The runs of the writers, beginning after the one whose turn was last.
        let turn = pool.turn;
        let order = pool.writers.range(turn..).skip_while(|(a, _)| **a == turn).chain(pool.writers.range(..=turn));
        let mut runs: Vec<(Address, std::collections::VecDeque<&Entry>)> = Vec::new();
        for (writer, entries) in order {
            let mut at = next(*writer);
            let mut run = std::collections::VecDeque::new();
            while let Some(entry) = entries.get(&at) {
                if !flying.contains(&entry.op.id()) {
                    run.push_back(entry);
                }
                at += 1;
            }
            if !run.is_empty() {
                runs.push((*writer, run));
            }
        }
        let mut last = turn;
        while !runs.is_empty() && chosen.len() < ops_max {
            runs.retain_mut(|(writer, run)| match run.front() {
                Some(entry) if entry.bytes <= room && chosen.len() < ops_max => {
                    room -= entry.bytes;
                    chosen.push(entry.op.signed().clone());
                    last = *writer;
                    run.pop_front();
                    true
                }
                // A chain has no gaps: where one does not fit, its writer waits for the next block.
                _ => false,
            });
        }
        pool.turn = last;
        chosen
    }

    /// Forgets what a block has executed, and what its writers' chains have passed; gives the latter, which nobody will answer.
    pub(crate) fn executed(&self, done: impl Iterator<Item = OpId>, next: impl Fn(Address) -> u64) -> Vec<OpId> {
        let mut passed = Vec::new();
        let done: BTreeSet<OpId> = done.collect();
        let mut pool = self.lock();
        let Pool { writers, seats, ids, bytes, .. } = &mut *pool;
        let mut keep = |entry: &Entry, over: bool| {
            let id = entry.op.id();
            let gone = over || done.contains(&id);
            if gone {
                if !done.contains(&id) {
                    passed.push(id);
                }
                ids.remove(&id);
                *bytes -= entry.bytes;
            }
            !gone
        };
        for (writer, entries) in writers.iter_mut() {
            let next = next(*writer);
            entries.retain(|sequence, entry| keep(entry, *sequence < next));
        }
        writers.retain(|_, entries| !entries.is_empty());
        seats.retain(|_, entry| keep(entry, false));
        passed
    }

    /// Forgets what has waited since before `limit`; gives what it was.
    pub(crate) fn expire(&self, limit: SystemTime) -> Vec<OpId> {
        let mut gone = Vec::new();
        let mut pool = self.lock();
        let Pool { writers, seats, ids, bytes, .. } = &mut *pool;
        let mut keep = |entry: &Entry| {
            let old = entry.since < limit;
            if old {
                ids.remove(&entry.op.id());
                *bytes -= entry.bytes;
                gone.push(entry.op.id());
            }
            !old
        };
        for entries in writers.values_mut() {
            entries.retain(|_, entry| keep(entry));
        }
        writers.retain(|_, entries| !entries.is_empty());
        seats.retain(|_, entry| keep(entry));
        gone
    }

    /// Operations that wait, for those who may have missed them.
    pub(crate) fn waiting(&self, max: usize) -> Vec<Arc<VerifiedOp>> {
        let pool = self.lock();
        let all = pool.seats.values().chain(pool.writers.values().flat_map(BTreeMap::values));
        all.take(max).map(|e| Arc::clone(&e.op)).collect()
    }
}
