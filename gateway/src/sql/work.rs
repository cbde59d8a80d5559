//! A transaction at work: the versions that were read, and what is to be written, so that it reads its own writes.
//!
//! Rule    what a table shows inside a transaction is its certified rows, less those retracted here, and those written here: as bags of whole
//!         rows. One read of a table at another version than before is a conflict, at once.
//! Source  DESIGN sections 7 and 10

use super::catalog::Catalog;
use crate::commit::{Committer, Read, Ready};
use crate::error::{SqlError, SqlState};
use crate::pins::{Pin, Pins};
use crate::store::Write;
use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use fluence_client::KeyRange;
use fluence_client::key::Keys;
use fluence_client::query::Evidence;
use fluence_types::{Height, Version};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a transaction changes in one physical table: whole rows, in the order of the sealed schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delta {
    plus: Vec<RecordBatch>,
    minus: Vec<RecordBatch>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.plus.is_empty() && self.minus.is_empty()
    }

    /// The rows of a bag after the change.
    pub(crate) fn over(&self, certified: Vec<RecordBatch>) -> Vec<RecordBatch> {
        let mut over = self.laid_over();
        let mut rows: Vec<_> = certified.iter().filter_map(|batch| over.pass(batch)).collect();
        rows.extend(over.rest());
        rows
    }

    /// The same for rows as they come.
    pub(crate) fn laid_over(&self) -> Over {
        Over { gone: count(&self.minus), plus: self.plus.clone() }
    }

    /// The change without what cancels out.
    fn net(&self) -> Vec<(RecordBatch, Vec<i8>)> {
        let (mut minus, mut plus) = (count(&self.minus), count(&self.plus));
        let weighed = |batch: RecordBatch, weight: i8| {
            let weights = vec![weight; batch.num_rows()];
            (batch, weights)
        };
        let mut net: Vec<_> = self.plus.iter().filter_map(|b| without(b, &mut minus)).map(|b| weighed(b, 1)).collect();
        net.extend(self.minus.iter().filter_map(|b| without(b, &mut plus)).map(|b| weighed(b, -1)));
        net
    }
}

/// A change that is laid over certified rows as they come.
pub(crate) struct Over {
    /// Rows that were retracted, and not met yet.
    gone: HashMap<Vec<u8>, u64>,
    plus: Vec<RecordBatch>,
}

impl Over {
    /// What is left of certified rows.
    pub(crate) fn pass(&mut self, batch: &RecordBatch) -> Option<RecordBatch> {
        without(batch, &mut self.gone)
    }

    /// The rows that were written. A row that was written and retracted again is gone from these; else from what was certified, so this is
    /// asked last.
    pub(crate) fn rest(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.plus).iter().filter_map(|batch| without(batch, &mut self.gone)).collect()
    }
}

/// How often each whole row stands in the batches.
fn count(batches: &[RecordBatch]) -> HashMap<Vec<u8>, u64> {
    let mut counts = HashMap::new();
    for batch in batches {
        let keys = Keys::of(batch.columns());
        for row in 0..batch.num_rows() {
            *counts.entry(keys.get(row).to_vec()).or_default() += 1;
        }
    }
    counts
}

/// The rows of a batch that are not among `gone`, which loses those that were found.
fn without(batch: &RecordBatch, gone: &mut HashMap<Vec<u8>, u64>) -> Option<RecordBatch> {
    if gone.is_empty() {
        return (batch.num_rows() > 0).then(|| batch.clone());
    }
    let keys = Keys::of(batch.columns());
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| match gone.get_mut(keys.get(row)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Some(false)
            }
            _ => Some(true),
        })
        .collect();
    if keep.true_count() == keep.len() {
        return (batch.num_rows() > 0).then(|| batch.clone());
    }
    let kept = filter_record_batch(batch, &keep).expect("a mask of the batch's length");
    (kept.num_rows() > 0).then_some(kept)
}

/// What a statement's reads cost, for the line under an answer.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// The certified height that was read at: the highest, where there were several.
    pub height: Height,
    /// Rows that were verified.
    pub rows: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Cells that were opened.
    pub openings: u64,
    /// Requests to nodes.
    pub requests: u64,
    /// Milliseconds from request to verified answer, added up.
    pub ms: f64,
    /// Reads, proven sums among them.
    pub scans: u64,
    /// Reads that were proven sums.
    pub proven: u64,
}

impl Cost {
    fn add(&mut self, evidence: &Evidence) {
        self.height = self.height.max(evidence.height);
        self.rows += evidence.rows;
        self.bytes += evidence.native_bytes + evidence.plan_bytes;
        self.openings += evidence.openings;
        self.requests += evidence.requests;
        self.ms += evidence.native_ms;
    }

    /// The line under an answer.
    pub(crate) fn line(&self) -> String {
        let Self { height, rows, bytes, openings, requests, ms, scans, proven } = self;
        format!(
            "verified at height {height}: {rows} rows in {proven} proven sums and {} scans, {openings} cells opened, {bytes} bytes, {requests} requests, {ms:.1} ms",
            scans - proven
        )
    }
}

/// A state that can be gone back to.
#[derive(Clone, Default, Debug)]
struct State {
    reads: BTreeMap<String, Read>,
    deltas: BTreeMap<String, Delta>,
}

/// What is gone back to: what was written so far, and what was known and dropped by then.
#[derive(Clone, Debug)]
struct Savepoint {
    name: String,
    deltas: BTreeMap<String, Delta>,
    catalog: Arc<Catalog>,
    cleared: usize,
}

/// A transaction. Shared by the tables of its statements' plans.
#[derive(Debug, Default)]
pub(crate) struct Work {
    state: Mutex<State>,
    savepoints: Mutex<Vec<Savepoint>>,
    cost: Mutex<Cost>,
    pins: Pins,
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// A transaction of a gateway that has these scans under way.
    pub(crate) fn new(pins: &Pins) -> Arc<Self> {
        Arc::new(Self { pins: pins.clone(), ..Self::default() })
    }

    /// A scan of a table goes on, until what this gives is dropped.
    pub(crate) fn pin(&self, table: &str) -> Pin {
        self.pins.pin(table)
    }

    /// Notes what a read of a range rested on.
    pub(crate) fn saw(&self, table: &str, range: &KeyRange, evidence: &Evidence, proven: bool) -> Result<(), SqlError> {
        self.observe(table, evidence.version, Some(range))?;
        let mut cost = lock(&self.cost);
        cost.scans += 1;
        cost.proven += u64::from(proven);
        cost.add(evidence);
        Ok(())
    }

    /// Notes another portion of a read that was noted.
    pub(crate) fn saw_more(&self, table: &str, evidence: &Evidence) -> Result<(), SqlError> {
        if let Some(read) = lock(&self.state).reads.get(table).filter(|read| read.version != evidence.version) {
            return Err(conflict(table, read.version, evidence.version));
        }
        lock(&self.cost).add(evidence);
        Ok(())
    }

    /// Notes the version that a range of a table was read at, or, without a range, that all of it counts.
    pub(crate) fn observe(&self, table: &str, version: Version, range: Option<&KeyRange>) -> Result<(), SqlError> {
        let mut state = lock(&self.state);
        match state.reads.get_mut(table) {
            Some(read) if read.version != version => Err(conflict(table, read.version, version)),
            Some(read) => {
                read.and(range);
                Ok(())
            }
            None => {
                state.reads.insert(table.to_owned(), Read::of(version, range));
                Ok(())
            }
        }
    }

    /// Whether a table was read.
    pub(crate) fn has_seen(&self, table: &str) -> bool {
        lock(&self.state).reads.contains_key(table)
    }

    /// What is to be written to a table.
    pub(crate) fn delta(&self, table: &str) -> Delta {
        lock(&self.state).deltas.get(table).cloned().unwrap_or_default()
    }

    /// Adds to it.
    pub(crate) fn write(&self, table: &str, plus: Option<RecordBatch>, minus: Option<RecordBatch>) {
        let mut state = lock(&self.state);
        let delta = state.deltas.entry(table.to_owned()).or_default();
        delta.plus.extend(plus.filter(|b| b.num_rows() > 0));
        delta.minus.extend(minus.filter(|b| b.num_rows() > 0));
    }

    pub(crate) fn cost(&self) -> Cost {
        *lock(&self.cost)
    }

    /// Starts to count anew, for the next statement.
    pub(crate) fn reset_cost(&self) {
        *lock(&self.cost) = Cost::default();
    }

    /// Whether the reads must be looked at once more before it is said that they were true at one moment: one read was.
    pub(crate) fn needs_a_look(&self) -> bool {
        lock(&self.state).reads.len() > 1
    }

    /// The version of each table that was read.
    pub(crate) fn versions(&self) -> Vec<(String, Version)> {
        lock(&self.state).reads.iter().map(|(table, read)| (table.clone(), read.version)).collect()
    }

    pub(crate) fn writes(&self) -> bool {
        lock(&self.state).deltas.values().any(|d| !d.is_empty())
    }

    /// Sets a savepoint, with the catalogue as it is and the number of tables that were dropped so far.
    pub(crate) fn savepoint(&self, name: &str, catalog: Arc<Catalog>, cleared: usize) {
        let deltas = lock(&self.state).deltas.clone();
        lock(&self.savepoints).push(Savepoint { name: name.to_owned(), deltas, catalog, cleared });
    }

    /// Goes back to a savepoint, which stays. What was read stays read. Gives the catalogue and the number of that time.
    pub(crate) fn rollback_to(&self, name: &str) -> Result<(Arc<Catalog>, usize), SqlError> {
        let mut savepoints = lock(&self.savepoints);
        let at = savepoints.iter().rposition(|s| s.name == name).ok_or_else(|| no_savepoint(name))?;
        savepoints.truncate(at + 1);
        let Savepoint { deltas, catalog, cleared, .. } = savepoints[at].clone();
        lock(&self.state).deltas = deltas;
        Ok((catalog, cleared))
    }

    /// Forgets a savepoint and those after it; what was done since stays.
    pub(crate) fn release(&self, name: &str) -> Result<(), SqlError> {
        let mut savepoints = lock(&self.savepoints);
        let at = savepoints.iter().rposition(|s| s.name == name).ok_or_else(|| no_savepoint(name))?;
        savepoints.truncate(at);
        Ok(())
    }

    /// Has it happen. `None` where there was nothing to do or to look at.
    pub(crate) async fn commit(
        &self,
        committer: &Arc<Committer>,
        catalog: &Catalog,
    ) -> Result<Option<Height>, SqlError> {
        let State { reads, deltas } = lock(&self.state).clone();
        let writes: Vec<Write> = deltas
            .into_iter()
            .map(|(table, delta)| Write { table, rows: delta.net() })
            .filter(|w| !w.rows.is_empty())
            .collect();
        if writes.is_empty() && reads.len() < 2 {
            return Ok(None);
        }
        committer.commit(Ready::new(reads, writes, &catalog.physical)).await.map(Some)
    }
}

fn conflict(table: &str, read: Version, now: Version) -> SqlError {
    let why = format!("could not serialize access: \"{table}\" was read at version {read} and is at version {now} now");
    SqlError::new(SqlState::SerializationFailure, why).hint("run the transaction again")
}

fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidSavepoint, format!("savepoint \"{name}\" does not exist"))
}
