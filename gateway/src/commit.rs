//! Group commit: transactions of several sessions that do not touch what the others read become one commit of the cluster.
//!
//! ```text
//! session ── Ready (ranges read, rows written) ──> queue ──> driver: rebase ── join ── Store::commit ──> every session its answer
//! ```
//! Tick      while no commit is under way, one begins at once; while one is, transactions gather. So nobody waits for a clock, and the cost of
//!           a commit is shared by as many as came meanwhile.
//! Join      in the order in which they came. A transaction joins those before it where none of them writes a key in a range that it read:
//!           it would have read the same after them. Else it waits for the next commit, and fails there if what it read has changed.
//! Rebase    a read at an older version stands at a newer one where all commits in between went through this gateway and wrote no key in the
//!           range. So writers of different rows of one table do not conflict.
//! Merge     where a commit left many segments live, those near in size are made one beside the commits that follow, and that takes effect
//!           between two of them, while no transaction of several statements is open. It changes no row, so reads are carried over it.
//! Once      a session is answered when a certified root shows its transaction. Where the outcome is not known, all of the commit hear so.
//! Source    DESIGN sections 3 ("Small writes") and 7; optimistic validation: Kung, Robinson, "On optimistic methods for concurrency
//!           control", TODS 1981

use crate::error::{SqlError, SqlState};
use crate::pins::Pins;
use crate::sql::write::ROWS_MAX;
use crate::store::{Committed, Store, Write};
use datafusion::arrow::array::RecordBatch;
use fluence_client::KeyRange;
use fluence_client::PreparedMerge;
use fluence_client::key::Keys;
use fluence_client::range::Bounds;
use fluence_client::schema::TableSchema;
use fluence_types::{Height, Version};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Most transactions that are joined.
const JOINED_MAX: usize = 256;
/// Commits that are remembered.
const PAST_MAX: usize = 512;
/// Most ranges of a table that are told apart; more count as the whole table.
const RANGES_MAX: usize = 512;
/// Most keys of a commit that are remembered; a larger one counts as having written all.
const KEYS_MAX: usize = 8192;

/// What a transaction read of a table.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) version: Version,
    /// The ranges; `None` for the whole table.
    pub(crate) ranges: Option<Vec<KeyRange>>,
}

impl Read {
    /// A read of a range.
    pub(crate) fn of(version: Version, range: Option<&KeyRange>) -> Self {
        Self { version, ranges: range.map(|r| vec![r.clone()]) }
    }

    /// Adds another range.
    pub(crate) fn and(&mut self, range: Option<&KeyRange>) {
        match (&mut self.ranges, range) {
            (Some(ranges), Some(range)) if ranges.len() < RANGES_MAX => ranges.push(range.clone()),
            (ranges, _) => *ranges = None,
        }
    }
}

/// A transaction that is ready to happen.
pub(crate) struct Ready {
    /// By table: the version, and the byte bounds of what was read; `None` for all.
    reads: BTreeMap<String, (Version, Option<Vec<Bounds>>)>,
    writes: Vec<Write>,
    /// Keys written, by table; `None` where they are too many.
    keys: HashMap<String, Option<BTreeSet<Vec<u8>>>>,
    rows: usize,
}

impl Ready {
    /// From what was read and is to be written. Tables whose schema is not known count as read and written whole.
    pub(crate) fn new(
        reads: BTreeMap<String, Read>,
        writes: Vec<Write>,
        schemas: &HashMap<String, Arc<TableSchema>>,
    ) -> Self {
        let bounds = |table: &str, ranges: Option<Vec<KeyRange>>| {
            let schema = schemas.get(table)?;
            ranges?.iter().map(|r| r.bounds(schema).ok()).collect::<Option<Vec<_>>>()
        };
        let reads = reads
            .into_iter()
            .map(|(table, read)| {
                let bounds = bounds(&table, read.ranges);
                (table, (read.version, bounds))
            })
            .collect();
        let keys = |write: &Write| {
            let schema = schemas.get(&write.table)?;
            let rows: usize = write.rows.iter().map(|(batch, _)| batch.num_rows()).sum();
            if rows > KEYS_MAX {
                return None;
            }
            let mut keys = BTreeSet::new();
            for (batch, _) in &write.rows {
                keys.extend(keys_of(schema, batch));
            }
            Some(keys)
        };
        let written = writes.iter().map(|w| (w.table.clone(), keys(w))).collect();
        let rows = writes.iter().flat_map(|w| &w.rows).map(|(batch, _)| batch.num_rows()).sum();
        Self { reads, writes, keys: written, rows }
    }

    /// Whether what it read of a table may be otherwise after these keys were written.
    fn rests_on(&self, table: &str, written: &Option<BTreeSet<Vec<u8>>>) -> bool {
        let Some((_, bounds)) = self.reads.get(table) else { return false };
        let (Some(bounds), Some(written)) = (bounds, written) else { return true };
        bounds.iter().any(|b| hits(b, written))
    }
}

fn keys_of(schema: &TableSchema, batch: &RecordBatch) -> Vec<Vec<u8>> {
    let columns: Vec<_> = schema.key_indices().into_iter().map(|i| Arc::clone(batch.column(i))).collect();
    let keys = Keys::of(&columns);
    (0..batch.num_rows()).map(|row| keys.get(row).to_vec()).collect()
}

/// Whether a key lies within bounds.
fn hits(bounds: &Bounds, keys: &BTreeSet<Vec<u8>>) -> bool {
    let Some(lower) = &bounds.lower else { return false };
    let next = keys.range::<Vec<u8>, _>(lower..).next();
    next.is_some_and(|key| bounds.upper.as_ref().is_none_or(|upper| key < upper))
}

/// A commit that is remembered: what it made of a table.
struct Past {
    table: String,
    from: Version,
    to: Version,
    keys: Arc<Option<BTreeSet<Vec<u8>>>>,
}

type Answer = oneshot::Sender<Result<Height, SqlError>>;

#[derive(Default)]
struct State {
    queue: VecDeque<(Ready, Answer)>,
    past: VecDeque<Past>,
    /// Merges that wait for their turn.
    merges: Vec<(String, PreparedMerge)>,
    /// Tables that have one, or get one.
    merging: BTreeSet<String>,
    driven: bool,
    commits: u64,
    transactions: u64,
    merges_done: u64,
}

impl State {
    /// Brings a transaction's reads to the newest versions at which they still stand.
    fn rebase(&self, ready: &mut Ready) {
        for (table, (version, bounds)) in &mut ready.reads {
            while let Some(past) = self.past.iter().find(|p| p.table == *table && p.from == *version) {
                let stands = match (&*bounds, &*past.keys) {
                    // A merge: all stands as it was.
                    (_, Some(keys)) if keys.is_empty() => true,
                    (Some(bounds), Some(keys)) => !bounds.iter().any(|b| hits(b, keys)),
                    _ => false,
                };
                if !stands {
                    break;
                }
                *version = past.to;
            }
        }
    }

    /// Takes from the queue what can happen together.
    fn join(&mut self) -> Vec<(Ready, Answer)> {
        let mut joined: Vec<(Ready, Answer)> = Vec::new();
        let mut left = VecDeque::new();
        let mut versions: HashMap<String, Version> = HashMap::new();
        let mut rows = 0;
        for (mut ready, answer) in std::mem::take(&mut self.queue) {
            self.rebase(&mut ready);
            let fits = joined.is_empty()
                || joined.len() < JOINED_MAX
                    && rows + ready.rows <= ROWS_MAX
                    && ready.reads.iter().all(|(t, (v, _))| versions.get(t).is_none_or(|known| known == v))
                    && !joined.iter().any(|(before, _)| before.keys.iter().any(|(t, k)| ready.rests_on(t, k)));
            if !fits {
                left.push_back((ready, answer));
                continue;
            }
            rows += ready.rows;
            versions.extend(ready.reads.iter().map(|(t, (v, _))| (t.clone(), *v)));
            joined.push((ready, answer));
        }
        self.queue = left;
        joined
    }

    /// A merge took effect: the next version of the table has the rows of the one before.
    fn remember_merge(&mut self, merged: &Committed) {
        self.merges_done += 1;
        for (table, to) in &merged.versions {
            let from = Version(to.0.saturating_sub(1));
            self.push_past(Past { table: table.clone(), from, to: *to, keys: Arc::new(Some(BTreeSet::new())) });
        }
    }

    fn push_past(&mut self, past: Past) {
        self.past.push_back(past);
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
    }

    fn remember(&mut self, joined: &[(Ready, Answer)], committed: &Committed) {
        self.commits += 1;
        self.transactions += joined.len() as u64;
        for (table, to) in &committed.versions {
            let from = joined.iter().find_map(|(ready, _)| ready.reads.get(table)).map(|(version, _)| *version);
            // A table that was written without being read was at the version before this one when it was written.
            let from = from.filter(|from| from.0 < to.0).unwrap_or(Version(to.0.saturating_sub(1)));
            let mut all = Some(BTreeSet::new());
            for (ready, _) in joined {
                match (&mut all, ready.keys.get(table)) {
                    (_, None) => {}
                    (Some(all), Some(Some(keys))) => all.extend(keys.iter().cloned()),
                    (all, Some(_)) => *all = None,
                }
            }
            let keys = Arc::new(all.filter(|keys| keys.len() <= KEYS_MAX));
            self.push_past(Past { table: table.clone(), from, to: *to, keys });
        }
    }
}

/// What a gateway has written so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Commits of the cluster with rows in them.
    pub commits: u64,
    /// Transactions in these.
    pub transactions: u64,
    /// Commits that merged segments.
    pub merges: u64,
}

/// Commits the transactions of a gateway's sessions.
pub(crate) struct Committer {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// What merges wait for.
    pub(crate) pins: Pins,
}

fn unknown() -> SqlError {
    SqlError::new(
        SqlState::ConnectionFailure,
        "it is not known whether the transaction was committed: the gateway ends",
    )
}

impl Committer {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, state: Mutex::default(), pins: Pins::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits of the cluster, the transactions in them, and merges beside them, so far.
    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        Counts { commits: state.commits, transactions: state.transactions, merges: state.merges_done }
    }

    /// Has a transaction happen. A caller that goes away does not stop it.
    pub(crate) async fn commit(self: &Arc<Self>, mut ready: Ready) -> Result<Height, SqlError> {
        if ready.writes.is_empty() {
            self.state().rebase(&mut ready);
            let reads: Vec<_> = ready.reads.into_iter().map(|(table, (version, _))| (table, version)).collect();
            return Ok(self.store.commit(&reads, Vec::new()).await?.height);
        }
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut state = self.state();
            state.queue.push_back((ready, answer));
            !std::mem::replace(&mut state.driven, true)
        };
        if begins {
            tokio::spawn(Arc::clone(self).drive());
        }
        answered.await.map_err(|_| unknown())?
    }

    async fn drive(self: Arc<Self>) {
        // Where this ends otherwise than by its own words, those who wait hear it by their channels.
        loop {
            let merges = std::mem::take(&mut self.state().merges);
            let mut waiting = Vec::new();
            for (table, merge) in merges {
                let Some(_alone) = self.pins.alone(&table) else {
                    waiting.push((table, merge));
                    continue;
                };
                // Where another merge was faster, this one is nothing; the next commit asks again.
                let merged = self.store.commit_merge(&table, merge).await.ok();
                let mut state = self.state();
                state.merging.remove(&table);
                if let Some(merged) = merged {
                    state.remember_merge(&merged);
                }
            }
            let joined = {
                let mut state = self.state();
                let more = !state.merges.is_empty();
                // Those that wait have their turn with the next commit.
                state.merges.append(&mut waiting);
                let joined = state.join();
                if joined.is_empty() && !more {
                    state.driven = false;
                    return;
                }
                joined
            };
            if !joined.is_empty() {
                self.together(joined).await;
            }
        }
    }

    /// Has the segments of tables merged, beside everything else, where many are live.
    fn merge_later(self: &Arc<Self>, committed: &Committed) {
        for (table, _) in &committed.versions {
            if self.state().merging.insert(table.clone()) {
                tokio::spawn(Arc::clone(self).prepare(table.clone()));
            }
        }
    }

    async fn prepare(self: Arc<Self>, table: String) {
        let merge = self.store.prepare_merge(&table).await.ok().flatten();
        let mut state = self.state();
        let Some(merge) = merge else {
            state.merging.remove(&table);
            return;
        };
        state.merges.push((table, merge));
        if !std::mem::replace(&mut state.driven, true) {
            drop(state);
            tokio::spawn(Arc::clone(&self).drive());
        }
    }

    /// Commits transactions together; one by one where something of them cannot be written.
    async fn together(self: &Arc<Self>, joined: Vec<(Ready, Answer)>) {
        match self.once(&joined).await {
            Ok(committed) => {
                self.state().remember(&joined, &committed);
                for (_, answer) in joined {
                    let _gone = answer.send(Ok(committed.height));
                }
                self.merge_later(&committed);
            }
            Err(error) => {
                let alone = joined.len() == 1;
                let all = matches!(error.state, SqlState::SerializationFailure | SqlState::ConnectionFailure);
                if alone || all {
                    for (_, answer) in joined {
                        let _gone = answer.send(Err(error.clone()));
                    }
                    return;
                }
                for one in joined {
                    Box::pin(self.together(vec![one])).await;
                }
            }
        }
    }

    async fn once(&self, joined: &[(Ready, Answer)]) -> Result<Committed, SqlError> {
        let mut reads: BTreeMap<String, Version> = BTreeMap::new();
        let mut writes: BTreeMap<&str, Vec<(RecordBatch, Vec<i8>)>> = BTreeMap::new();
        for (ready, _) in joined {
            reads.extend(ready.reads.iter().map(|(table, (version, _))| (table.clone(), *version)));
            for write in &ready.writes {
                writes.entry(&write.table).or_default().extend(write.rows.iter().cloned());
            }
        }
        let reads: Vec<_> = reads.into_iter().collect();
        let writes = writes.into_iter().map(|(table, rows)| Write { table: table.to_owned(), rows }).collect();
        self.store.commit(&reads, writes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, Int64Array};
    use fluence_client::{Column, ColumnType, Value};

    fn schemas() -> HashMap<String, Arc<TableSchema>> {
        let columns = vec![Column::new("k", ColumnType::Int64), Column::new("v", ColumnType::Int64)];
        let schema = TableSchema::new("t", columns, &["k"], Vec::new()).unwrap();
        HashMap::from([("t".to_owned(), Arc::new(schema))])
    }

    /// Reads key `reads` of `t` at a version, and writes key `writes`.
    fn ready(version: u64, reads: i64, writes: i64) -> Ready {
        let one = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
        let batch = RecordBatch::try_from_iter(vec![("k", one(writes)), ("v", one(0))]).unwrap();
        let range = KeyRange::prefix(vec![Value::Int64(reads)]);
        let reads = BTreeMap::from([("t".to_owned(), Read::of(Version(version), Some(&range)))]);
        Ready::new(reads, vec![Write { table: "t".to_owned(), rows: vec![(batch, vec![1])] }], &schemas())
    }

    fn queue(state: &mut State, all: Vec<Ready>) {
        for ready in all {
            state.queue.push_back((ready, oneshot::channel().0));
        }
    }

    fn committed(to: u64) -> Committed {
        Committed { height: Height(1), versions: vec![("t".to_owned(), Version(to))] }
    }

    #[test]
    fn transactions_of_different_keys_are_joined_and_others_wait() {
        let mut state = State::default();
        queue(&mut state, vec![ready(5, 1, 1), ready(5, 2, 2), ready(5, 1, 3), ready(4, 9, 9), ready(5, 4, 1)]);
        // The third read what the first writes; the fourth read another version; the fifth writes what the first wrote, without having
        // read it: the later write counts.
        assert_eq!(state.join().len(), 3);
        assert_eq!(state.queue.len(), 2);
    }

    #[test]
    fn a_read_is_carried_over_commits_that_did_not_touch_it() {
        let mut state = State::default();
        queue(&mut state, vec![ready(5, 1, 1)]);
        let joined = state.join();
        state.remember(&joined, &committed(6));
        queue(&mut state, vec![ready(5, 2, 2)]);
        let joined = state.join();
        assert_eq!(joined[0].0.reads["t"].0, Version(6));
        state.remember(&joined, &committed(7));
        // From 5 over 6 to 7; what read a key that was written stays where it was.
        queue(&mut state, vec![ready(5, 3, 3), ready(5, 2, 8), ready(5, 1, 9)]);
        let joined = state.join();
        assert_eq!(joined.iter().map(|(r, _)| r.reads["t"].0.0).collect::<Vec<_>>(), [7]);
        let left: Vec<u64> = state.queue.iter().map(|(r, _)| r.reads["t"].0.0).collect();
        assert_eq!(left, [6, 5]);
    }

    #[test]
    fn a_read_of_everything_rests_on_everything() {
        let mut state = State::default();
        let mut all = ready(5, 2, 2);
        all.reads.get_mut("t").unwrap().1 = None;
        queue(&mut state, vec![ready(5, 1, 1), all]);
        assert_eq!((state.join().len(), state.queue.len()), (1, 1));
    }

    #[test]
    fn a_read_of_everything_is_carried_over_a_merge() {
        let mut state = State::default();
        state.remember_merge(&committed(6));
        let mut all = ready(5, 2, 2);
        all.reads.get_mut("t").unwrap().1 = None;
        queue(&mut state, vec![all]);
        let joined = state.join();
        assert_eq!(joined[0].0.reads["t"].0, Version(6));
        // Not over what writes a row.
        state.remember(&joined, &committed(7));
        let mut all = ready(6, 2, 2);
        all.reads.get_mut("t").unwrap().1 = None;
        state.rebase(&mut all);
        assert_eq!(all.reads["t"].0, Version(6));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut state = State::default();
        for version in 0..2 * PAST_MAX as u64 {
            queue(&mut state, vec![ready(version, 1, 1)]);
            let joined = state.join();
            state.remember(&joined, &committed(version + 1));
        }
        assert_eq!(state.past.len(), PAST_MAX);
    }
}
