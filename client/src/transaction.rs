//! Transactions: changes of several tables that happen together or not at all, if nothing that was read has changed.
//!
//! ```text
//! database.transaction() ── read, aggregates, insert, delete, update .. ── commit ──> one operation
//! database.transact(retry, |tx| ..)                                             the same, again where somebody else was first
//! ```
//! Serializable   a table's version is noted when it is read, and the operation names them all: the first committer wins, the other gets a
//!                [`ClientError::Conflict`] and has written nothing. A transaction that only reads ends with a look at the versions:
//!                where all are as they were, there was a moment at which all of it was true.
//! Inserts        into a table that was not read follow whatever was committed in between, with the same sealed bytes.
//! Limits         reads see what is certified, not what the transaction is about to write; a range is rewritten once in a transaction,
//!                because a row must not be retracted twice.
//! Source         DESIGN section 7; `docs/protocol/cluster.md`

use crate::error::ClientError;
use crate::query::{Aggregate, AggregateValue, Answered, Evidence, Select};
use crate::range::{Bounds, KeyRange};
use crate::seal::{SealStats, Sealer};
use crate::session::{ATTEMPTS, Database, Table, lock};
use crate::transport::Transport;
use crate::write::{Assignments, Part, Rewrite, Row, start_over};
use arrow_array::RecordBatch;
use fluence_types::op::OpRefusal;
use fluence_types::{DbRoot, Height, ProjectionId, Version};
use rand::RngCore;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a transaction is tried, and how long is waited between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Tries in all; at least one.
    pub attempts: u32,
    /// Before the second try; twice as long before each that follows, and up to as long again by chance, so that two that met do not meet
    /// again.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 8, pause: Duration::from_millis(20), pause_max: Duration::from_secs(2) }
    }
}

impl Retry {
    /// The pause after `failed` tries.
    pub(crate) fn after(&self, failed: u32, rng: &mut impl RngCore) -> Duration {
        let whole = self.pause.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.pause_max);
        let ms = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        whole + Duration::from_millis(rng.next_u64() % (ms + 1))
    }
}

/// A transaction that is certified.
#[derive(Clone, PartialEq, Debug)]
pub struct TransactionCommitted {
    /// At this height or a later one. Of one that only read: a height at which it was all true, or later.
    pub height: Height,
    /// Database root there.
    pub root: DbRoot,
    /// The tables that it changed, and their versions afterwards.
    pub versions: Vec<(ProjectionId, Version)>,
    /// Rows inserted, deleted or updated.
    pub rows: u64,
    /// Bytes of the segments that it wrote.
    pub bytes: u64,
}

/// One table in a transaction.
struct Touched<T> {
    table: Table<T>,
    /// What was read.
    version: Option<Version>,
    sealer: Sealer,
    /// Ranges whose rows were rewritten.
    rewritten: Vec<Bounds>,
    rows: u64,
}

/// Changes that wait to be committed. Dropped, nothing happens.
pub struct Transaction<T> {
    database: Database<T>,
    touched: BTreeMap<ProjectionId, Touched<T>>,
}

impl<T> std::fmt::Debug for Transaction<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction({:?}, {} tables)", self.database, self.touched.len())
    }
}

impl<T: Transport> Database<T> {
    /// An empty transaction.
    #[must_use]
    pub fn transaction(&self) -> Transaction<T> {
        Transaction { database: self.clone(), touched: BTreeMap::new() }
    }

    /// Does `work` in a transaction and commits it; again from the start where somebody else committed first, or holds a lease.
    ///
    /// # Errors
    /// [`ClientError`]: the last of those that could be retried, or the first of the others. Nothing was written then, unless it is of a
    /// connection that broke after the operation was sent.
    pub async fn transact<R>(
        &self,
        retry: Retry,
        mut work: impl AsyncFnMut(&mut Transaction<T>) -> Result<R, ClientError>,
    ) -> Result<(R, TransactionCommitted), ClientError> {
        let mut rng = self.session.fork_rng();
        for attempt in 1.. {
            let mut transaction = self.transaction();
            let done = match work(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|committed| (value, committed)),
                Err(error) => Err(error),
            };
            match done {
                Err(error) if attempt < retry.attempts && (error.is_retryable() || start_over(&error)) => {
                    tracing::debug!(attempt, %error, "a transaction is tried again");
                    self.session.inner.transport.sleep(retry.after(attempt, &mut rng)).await;
                }
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }
}

fn overlap(a: &Bounds, b: &Bounds) -> bool {
    let below = |lower: &Option<Vec<u8>>, upper: &Option<Vec<u8>>| match (lower, upper) {
        (Some(lower), Some(upper)) => lower < upper,
        _ => true,
    };
    below(&a.lower, &b.upper) && below(&b.lower, &a.upper)
}

impl<T: Transport> Transaction<T> {
    fn touch(&mut self, table: &Table<T>) -> Result<&mut Touched<T>, ClientError> {
        if table.db() != self.database.id() {
            return Err(ClientError::OtherDatabase { table: table.db(), transaction: self.database.id() });
        }
        let touched = self.touched.entry(table.projection()).or_insert_with(|| Touched {
            table: table.clone(),
            version: None,
            sealer: Sealer::new(table.handle.keys.clone()),
            rewritten: Vec::new(),
            rows: 0,
        });
        Ok(touched)
    }

    /// Notes the version at which a table was read.
    fn saw(&mut self, table: &Table<T>, version: Version) -> Result<(), ClientError> {
        match self.touch(table)?.version.replace(version) {
            Some(read) if read != version => {
                // What was read first is not so any more.
                self.touch(table)?.version = Some(read);
                Err(ClientError::Conflict { projection: table.projection(), read, current: version })
            }
            _ => Ok(()),
        }
    }

    /// The rows of a range.
    ///
    /// # Errors
    /// As [`Table::select`]; [`ClientError::Conflict`] where the table was read before and has changed.
    pub async fn read(&mut self, table: &Table<T>, select: &Select) -> Result<Answered<RecordBatch>, ClientError> {
        self.touch(table)?;
        let answered = table.select(select).await?;
        self.saw(table, answered.evidence.version)?;
        Ok(answered)
    }

    /// Aggregates over a range.
    ///
    /// # Errors
    /// As [`Table::aggregates`] and [`Self::read`].
    pub async fn aggregates(
        &mut self,
        table: &Table<T>,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<Answered<Vec<AggregateValue>>, ClientError> {
        self.touch(table)?;
        let answered = table.aggregates(range, aggregates).await?;
        let Evidence { version, .. } = answered.evidence;
        self.saw(table, version)?;
        Ok(answered)
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`ClientError`] where they do not fit the table; none of them is added then.
    pub fn insert(&mut self, table: &Table<T>, batch: &RecordBatch) -> Result<(), ClientError> {
        let touched = self.touch(table)?;
        touched.sealer.push(batch)?;
        touched.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Notes that what is about to be written follows from `table` as it was at `version`, which the caller read itself.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where this transaction read it at another version.
    pub fn observe(&mut self, table: &Table<T>, version: Version) -> Result<(), ClientError> {
        self.saw(table, version)
    }

    /// Adds weighed rows: +1 a new row, -1 the retraction of a row that was read. The caller sees to it that no row is retracted oftener
    /// than it is there, and not through [`Self::delete`] and [`Self::update`] as well.
    ///
    /// # Errors
    /// [`ClientError::Unread`] for a retraction from a table whose version was not noted; else as [`Self::insert`].
    pub fn weigh(&mut self, table: &Table<T>, batch: &RecordBatch, weights: &[i8]) -> Result<(), ClientError> {
        let touched = self.touch(table)?;
        if touched.version.is_none() && weights.iter().any(|w| *w < 0) {
            return Err(ClientError::Unread(table.projection()));
        }
        touched.sealer.push_weighted(batch, weights)?;
        touched.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Deletes the rows of a range that `which` picks. Gives how many.
    ///
    /// # Errors
    /// As [`Self::read`]; [`ClientError::Overlap`] where rows of this range were rewritten before.
    pub async fn delete(
        &mut self,
        table: &Table<T>,
        range: &KeyRange,
        mut which: impl FnMut(&Row<'_>) -> bool,
    ) -> Result<u64, ClientError> {
        self.rewrite(table, range, |row| if which(row) { Rewrite::Delete } else { Rewrite::Keep }).await
    }

    /// Changes the rows of a range for which `change` gives assignments. Gives how many.
    ///
    /// # Errors
    /// As [`Self::delete`] and [`Table::update`].
    pub async fn update(
        &mut self,
        table: &Table<T>,
        range: &KeyRange,
        mut change: impl FnMut(&Row<'_>) -> Option<Assignments>,
    ) -> Result<u64, ClientError> {
        self.rewrite(table, range, |row| change(row).map_or(Rewrite::Keep, Rewrite::Update)).await
    }

    async fn rewrite(
        &mut self,
        table: &Table<T>,
        range: &KeyRange,
        mut decide: impl FnMut(&Row<'_>) -> Rewrite,
    ) -> Result<u64, ClientError> {
        let bounds = range.bounds(table.schema())?;
        let touched = self.touch(table)?;
        if touched.rewritten.iter().any(|other| overlap(other, &bounds)) {
            return Err(ClientError::Overlap(table.schema().name().to_owned()));
        }
        // Whatever comes of it: retractions that were half collected are not collected again.
        touched.rewritten.push(bounds);
        let (version, rows) = table.retract(range, &mut decide, &mut touched.sealer).await?;
        touched.rows += rows;
        self.saw(table, version)?;
        Ok(rows)
    }

    /// Has all of it happen, at one certified height.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where something that was read has changed: nothing was written. Other [`ClientError`]s; nothing was
    /// written then, unless it is of a connection that broke after the operation was sent.
    pub async fn commit(self) -> Result<TransactionCommitted, ClientError> {
        let (session, db) = (&self.database.session, self.database.id());
        let mut parts: Vec<Part> = Vec::new();
        let mut reads: Vec<(ProjectionId, Version)> = Vec::new();
        let mut blind: Vec<&Table<T>> = Vec::new();
        let mut tables: BTreeMap<ProjectionId, Table<T>> = BTreeMap::new();
        let (mut inline, mut rows, mut bytes) = (0, 0, 0);
        let mut written = Vec::new();
        for (projection, touched) in self.touched {
            let Touched { table, version, sealer, rows: of_table, .. } = touched;
            rows += of_table;
            tables.insert(projection, table.clone());
            match version {
                _ if sealer.rows() > 0 => written.push((table, version, sealer)),
                Some(version) => reads.push((projection, version)),
                None => {}
            }
        }
        for (table, version, sealer) in written {
            let (mut stats, mut sealed) = (SealStats::default(), 0);
            let segment = table.seal(sealer, &mut stats, &mut sealed, &mut |_| {}).await?;
            bytes += segment.byte_len();
            let append = vec![table.deliver(&segment, &mut inline, &mut |_| {}).await?];
            let handle = table.handle.clone();
            if version.is_none() {
                blind.push(&tables[&table.projection()]);
            }
            parts.push(Part { handle, version: version.unwrap_or_default(), append, retire: Vec::new() });
        }
        if parts.is_empty() {
            return Self::unchanged(&self.database, &reads).await;
        }
        let is_blind = |projection: &ProjectionId| blind.iter().any(|t| t.projection() == *projection);
        for attempt in 1.. {
            for part in parts.iter_mut().filter(|part| is_blind(&part.handle.projection)) {
                part.version = session.catalogue(&db, part.handle.projection).await?.entry().version;
            }
            let shown = match session.commit(&db, &parts, &reads).await {
                Err(ClientError::Conflict { projection, .. }) if is_blind(&projection) && attempt < ATTEMPTS => {
                    session.prefer_another();
                    continue;
                }
                Err(ClientError::Op(OpRefusal::TooManyLive(projection))) if attempt < ATTEMPTS => {
                    let table = tables.get(&projection).ok_or(ClientError::Op(OpRefusal::TooManyLive(projection)))?;
                    let merged = table.tidy().await?;
                    if is_blind(&projection) {
                        continue;
                    }
                    // Merging segments changes no row: what was read is so still, where nothing else came in between.
                    let part = parts.iter_mut().find(|p| p.handle.projection == projection);
                    let read = part.as_ref().map(|p| p.version).unwrap_or_default();
                    match (part, merged) {
                        (Some(part), Some(merged)) if merged.version.0 == read.0 + 1 => {
                            part.version = merged.version;
                            continue;
                        }
                        _ => return Err(ClientError::Conflict { projection, read, current: Version(read.0 + 1) }),
                    }
                }
                other => other?,
            };
            let last = shown.iter().max_by_key(|s| s.height).expect("there is a part");
            return Ok(TransactionCommitted {
                height: last.height,
                root: last.root,
                versions: shown.iter().map(|s| (s.entry.projection, s.entry.version)).collect(),
                rows,
                bytes,
            });
        }
        unreachable!("the loop returns")
    }

    /// Ends a transaction that only read. Where all tables were seen last at one root, what was read was true there. Else each is looked at
    /// once more, at a height that is not below any at which the others were read; versions only grow, so those that are as they were did
    /// not change in between.
    async fn unchanged(
        database: &Database<T>,
        reads: &[(ProjectionId, Version)],
    ) -> Result<TransactionCommitted, ClientError> {
        let (session, db) = (&database.session, database.id());
        let done = |(height, root)| TransactionCommitted { height, root, versions: Vec::new(), rows: 0, bytes: 0 };
        // Of one alone it is asked whether it still is so.
        if reads.len() > 1
            && let Some(at) = session.seen_together(&db, reads)
        {
            return Ok(done(at));
        }
        let mut at = (Height(0), DbRoot::default());
        let looks = reads.iter().map(|(projection, _)| session.catalogue(&db, *projection));
        for ((projection, read), snapshot) in reads.iter().zip(futures::future::join_all(looks).await) {
            let snapshot = snapshot?;
            let current = snapshot.entry().version;
            if current != *read {
                lock(&session.inner.entries).remove(&(db, *projection));
                return Err(ClientError::Conflict { projection: *projection, read: *read, current });
            }
            at = (snapshot.checkpoint().height, snapshot.checkpoint().root);
        }
        Ok(done(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_where_a_key_may_lie_in_both() {
        let bounds = |lower: Option<u8>, upper: Option<u8>| Bounds {
            lower: lower.map(|b| vec![b]),
            upper: upper.map(|b| vec![b]),
        };
        let (a, b, c) = (bounds(Some(1), Some(3)), bounds(Some(3), Some(5)), bounds(Some(2), None));
        assert!(!overlap(&a, &b) && !overlap(&b, &a));
        assert!(overlap(&a, &c) && overlap(&c, &b) && overlap(&a, &a));
        assert!(overlap(&bounds(None, None), &a) && overlap(&a, &bounds(None, Some(2))));
        assert!(!overlap(&bounds(None, Some(1)), &a) && !overlap(&bounds(Some(3), None), &a));
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let retry = Retry { attempts: 9, pause: Duration::from_millis(10), pause_max: Duration::from_millis(100) };
        let mut zero = rand::rngs::mock::StepRng::new(0, 0);
        let pauses: Vec<u128> = (1..6).map(|n| retry.after(n, &mut zero).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 100]);
        let mut most = rand::rngs::mock::StepRng::new(u64::MAX, 0);
        assert!(retry.after(u32::MAX, &mut most) <= Duration::from_millis(200));
    }
}
