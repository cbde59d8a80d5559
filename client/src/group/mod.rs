//! Group commit: many sessions insert single rows, one writer seals and commits them together.
//!
//! ```text
//! Group::insert (64 tasks, say) ──> queue ──> GroupDriver: seal ── commit ── certified ──> every session its answer
//!                                                 └── merges of live segments, beside it
//! ```
//! Tick      while no commit is under way, a row is written at once; while one is, rows gather. So the cost of a commit is shared by as many
//!           rows as came meanwhile, and nobody waits for a clock.
//! Answer    a row is answered when a certified root shows it: then a quorum has executed it. One that cannot be sealed is refused before
//!           it is queued, so that it takes nobody with it; a failed commit answers exactly the rows in it.
//! Once      a commit names the version it read, so of all attempts at one version at most one is done. Where an outcome is not known, the
//!           same sealed bytes go again until the certified catalogue shows them, or has moved past them; only then are the rows sealed
//!           anew, under a fresh segment id: a mask label is used once, ever.
//! Bounded   the queue; the rows of a tick, so that its segment travels inside the operation; the live segments, by merging (`../tiers.rs`);
//!           two merges at once; the plaintext kept, which is that of segments which travelled inside.
//! Source    DESIGN section 3 ("Small writes") and 7; group commit: DeWitt et al., "Implementation techniques for main memory database
//!           systems", 1984

mod driver;
mod queue;

pub use driver::GroupDriver;
pub use queue::Inserted;

use crate::error::ClientError;
use crate::key::{self, KEY_BYTES_MAX};
use crate::lease::LeaseOptions;
use crate::schema::{SchemaError, TableSchema};
use crate::seal::SealError;
use crate::session::{Table, lock};
use crate::transaction::Retry;
use crate::transport::Transport;
use crate::value::Value;
use futures::channel::oneshot;
use queue::{Pending, Queue};
use std::sync::{Arc, Mutex};

/// Live segments from which on a group writer merges.
pub const MERGED_FROM: usize = crate::tiers::SOFT;

/// How a group writer works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupOptions {
    /// Rows that may wait; above it, those who insert wait for a place.
    pub queue_rows: usize,
    /// Most rows of one tick. Fewer where they would not fit into the operation.
    pub tick_rows: usize,
    /// Takes the table's lease for as long as the driver runs: without one, two writers may insert one key twice.
    pub lease: Option<LeaseOptions>,
    /// How often a commit is tried whose outcome is not known, or which somebody was faster than.
    pub retry: Retry,
}

impl Default for GroupOptions {
    fn default() -> Self {
        let lease = Some(LeaseOptions::default());
        Self { queue_rows: 4096, tick_rows: 1024, lease, retry: Retry::default() }
    }
}

/// Why a row was not inserted, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The row does not fit the table; it was not queued.
    #[error("the row does not fit the table: {0}")]
    Row(Arc<ClientError>),
    /// Its commit failed; it is not in the table.
    #[error("the row was not inserted: {0}")]
    Failed(Arc<ClientError>),
    /// What became of its commit was not learnt; it may be in the table, or come to be.
    #[error("it is not known whether the row was inserted: {0}")]
    Unknown(Arc<ClientError>),
    /// The group writer has ended, and the row was not sent.
    #[error("the group writer has ended; the row was not inserted")]
    Closed,
    /// The group writer was stopped in the middle; the row may be in the table.
    #[error("the group writer was stopped; it is not known whether the row was inserted")]
    Stopped,
}

/// What a group writer has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupStats {
    /// Rows inserted and certified.
    pub rows: u64,
    /// Rows answered with a failure.
    pub failed: u64,
    /// Rows whose outcome was not learnt.
    pub unknown: u64,
    /// Commits that were certified.
    pub commits: u64,
    /// Commits that somebody was faster than, sealed anew.
    pub conflicts: u64,
    /// Merges that were certified, those inside a tick's own segment included.
    pub merges: u64,
    /// Merges given up, because what they read was no longer live, or could not be read.
    pub merges_dropped: u64,
    /// Rows in all segments that were certified: each row once, and again for each merge it was in.
    pub rows_written: u64,
    /// Bytes of those segments.
    pub bytes_written: u64,
    /// Live segments after the last commit.
    pub live: u64,
    /// The most after any.
    pub live_max: u64,
    /// Rows that wait now.
    pub waiting: u64,
}

impl GroupStats {
    /// How often a row was written, on average: 1 without merges.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.rows_written as f64 / self.rows as f64 }
    }
}

/// What handles and driver share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) stats: Mutex<GroupStats>,
}

/// The handles together: when the last one goes, the driver writes what waits, and ends.
struct Handles(Arc<Shared>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// A handle to a group writer. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    handles: Arc<Handles>,
    schema: Arc<TableSchema>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({:?})", self.schema.name())
    }
}

impl<T: Transport> Table<T> {
    /// A group writer for this table: a handle to insert by, and the driver that does the work, which the caller has polled. The
    /// transport needs a clock.
    #[must_use]
    pub fn group(&self, options: GroupOptions) -> (Group, GroupDriver<T>) {
        let shared = Arc::new(Shared { queue: Queue::new(options.queue_rows), stats: Mutex::default() });
        let handles = Arc::new(Handles(Arc::clone(&shared)));
        let group = Group { handles, schema: Arc::new(self.schema().clone()) };
        (group, GroupDriver::new(self.clone(), shared, options))
    }
}

impl Group {
    /// Inserts a row, its values in the order of the table's columns. Waits for a place where the queue is full, and then until the row
    /// is certified.
    ///
    /// # Errors
    /// [`GroupError`]. A caller that goes away before the answer does not know; the row is inserted all the same once it was queued.
    pub async fn insert(&self, row: Vec<Value>) -> Result<Inserted, GroupError> {
        check(&self.schema, &row).map_err(|why| GroupError::Row(Arc::new(why)))?;
        let (answer, answered) = oneshot::channel();
        self.handles.0.queue.push(Pending { row, answer }).await?;
        answered.await.unwrap_or(Err(GroupError::Stopped))
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        let stats = *lock(&self.handles.0.stats);
        GroupStats { waiting: self.handles.0.queue.len() as u64, ..stats }
    }

    /// Lets nobody in any more, for all handles; what waits is still written.
    pub fn close(&self) {
        self.handles.0.queue.close();
    }
}

/// Whether a row can be sealed, whatever it is sealed with.
fn check(schema: &TableSchema, row: &[Value]) -> Result<(), ClientError> {
    let columns = schema.columns();
    if row.len() != columns.len() {
        let (got, want) = (format!("{} values", row.len()), format!("{} columns", columns.len()));
        return Err(SchemaError::Batch { column: "*".to_owned(), got, want }.into());
    }
    for (column, value) in columns.iter().zip(row) {
        if !column.ty.holds(value) {
            // The value is the owner's data: its kind is named, not itself.
            let (got, want) = ("a value that it does not hold".to_owned(), column.ty.to_string());
            return Err(SchemaError::Batch { column: column.name.clone(), got, want }.into());
        }
        if !column.nullable && matches!(value, Value::Null) {
            return Err(SchemaError::Null(column.name.clone()).into());
        }
    }
    let key: Vec<Value> = schema.key_indices().into_iter().map(|i| row[i].clone()).collect();
    let bytes = key::encode_values(&key).len();
    if bytes > KEY_BYTES_MAX {
        return Err(SealError::LongKey { bytes }.into());
    }
    Ok(())
}
