//! What clients did and were told: every write with its outcome, every read with its height, and what each member says in the end.

use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A row that was written: of which writer, and its number.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// Writers are numbered over all databases.
    pub writer: i64,
    /// From 0 on, one after the other.
    pub n: i64,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row {} of writer {}", self.n, self.writer)
    }
}

/// What became of a write, as its writer knows.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the state of this certified height.
    Acknowledged {
        /// The height.
        height: u64,
    },
    /// It was ordered and changed nothing: the row must never be there.
    Refused(String),
    /// An error that does not say: the row may be there, once.
    Unknown(String),
}

/// A write.
#[derive(Serialize, Clone, Debug)]
pub struct Write {
    /// Which database.
    pub database: usize,
    /// What was written.
    pub row: Row,
    /// When it was asked for, from the round's begin.
    pub asked: Duration,
    /// When it ended.
    pub ended: Duration,
    /// How.
    pub outcome: Outcome,
}

/// A read of all rows that succeeded.
#[derive(Serialize, Clone, Debug)]
pub struct Read {
    /// Which database.
    pub database: usize,
    /// Which reader, numbered over all databases.
    pub reader: usize,
    /// When it was asked for, from the round's begin.
    pub asked: Duration,
    /// When it ended.
    pub ended: Duration,
    /// The certified height that it is of.
    pub height: u64,
    /// All rows, as they came.
    pub rows: Vec<Row>,
}

/// What one member says when all is healed.
#[derive(Serialize, Clone, Debug)]
pub struct Final {
    /// Which database.
    pub database: usize,
    /// The member, by its number.
    pub member: usize,
    /// Its height.
    pub height: u64,
    /// Its root there.
    pub root: String,
    /// All rows, read from it alone.
    pub rows: Vec<Row>,
}

/// Everything recorded.
#[derive(Serialize, Clone, Default, Debug)]
pub struct History {
    /// Writes, in the order they ended.
    pub writes: Vec<Write>,
    /// Reads, in the order they ended.
    pub reads: Vec<Read>,
    /// What members say in the end.
    pub finals: Vec<Final>,
    /// Files of evidence that nodes wrote, by member.
    pub evidence: Vec<(usize, String)>,
    /// Nodes that called themselves diverged, by member.
    pub diverged: Vec<usize>,
}

/// Takes down what happens, from many tasks.
#[derive(Debug)]
pub(crate) struct Recorder {
    history: Mutex<History>,
    begun: Instant,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { history: Mutex::default(), begun: Instant::now() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.lock().writes.iter().filter(|w| matches!(w.outcome, Outcome::Acknowledged { .. })).count()
    }
}
