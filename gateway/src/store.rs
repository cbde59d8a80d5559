//! What the SQL layer asks of a database: schemas, verified reads, proven aggregates, and commits that are all or nothing.
//!
//! Contract  every read names the version it was true at; a commit names the versions it follows from and is refused with
//!           [`SqlState::SerializationFailure`] where one of them is no longer the last.
//! Why       the layer above is free of the transport's type, and of how rows are sealed and fetched.

use crate::error::{SqlError, SqlState};
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use fluence_client::prove::{Proved, ProvenSum};
use fluence_client::query::Evidence;
use fluence_client::schema::TableSchema;
use fluence_client::{
    Aggregate, AggregateValue, ClientError, Database, Direction, KeyRange, PreparedMerge, RowStream, Select, Transport,
};
use fluence_types::op::OpRefusal;
use fluence_types::shape::CircuitId;
use fluence_types::{Height, Version};
use fluence_verifier::groth16::VerificationKey;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// Ranges of one scan that are asked for at once.
const AT_ONCE: usize = 4;

/// What is read of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Scan {
    /// Which rows: ranges in key order, apart from each other.
    pub ranges: Vec<KeyRange>,
    /// Which columns, in this order.
    pub columns: Vec<String>,
    /// At most so many rows, the first in the direction.
    pub limit: Option<u64>,
    /// In key order, or against it; the ranges too.
    pub direction: Direction,
}

impl From<&Select> for Scan {
    fn from(select: &Select) -> Self {
        let Select { range, columns, limit, direction } = select.clone();
        Self { ranges: vec![range], columns, limit, direction }
    }
}

/// A part of what a scan gives.
#[derive(Clone, Debug)]
pub struct Portion {
    /// The place of its range among the scan's.
    pub range: usize,
    /// Verified rows, in the scan's order.
    pub rows: Option<RecordBatch>,
    /// What stands behind it. Counts and times are this portion's own, so those of all portions add up to the scan's.
    pub evidence: Evidence,
}

/// What a scan gives, as it comes.
pub type Portions = BoxStream<'static, Result<Portion, SqlError>>;

/// What a transaction does to one table.
#[derive(Clone, Debug)]
pub struct Write {
    /// The table.
    pub table: String,
    /// Rows with the weight of each: +1 new, -1 retracted. A retracted row was read at the version that the commit names.
    pub rows: Vec<(RecordBatch, Vec<i8>)>,
}

/// Verification keys that are trusted.
pub trait ProofKeys: std::fmt::Debug + Send + Sync {
    /// The key of a circuit, and whether it was made on one machine.
    ///
    /// # Errors
    /// [`SqlError`] that says where a key was looked for.
    fn key(&self, circuit: CircuitId) -> Result<(VerificationKey, bool), SqlError>;
}

/// What came of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The height at which it is there.
    pub height: Height,
    /// The tables that it changed, and their versions afterwards.
    pub versions: Vec<(String, Version)>,
}

/// A database, as the SQL layer sees it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Schemas of all tables, in order of creation.
    async fn tables(&self) -> Result<Vec<Arc<TableSchema>>, SqlError>;

    /// Creates an empty table.
    async fn create_table(&self, schema: TableSchema) -> Result<(), SqlError>;

    /// The verified rows of a scan, in portions: all at the version that the first one names. There is at least one for each range that is
    /// read, before its rows. Where rows of that version cannot be read any more, the last one is a
    /// [`SqlState::SerializationFailure`]. What is not asked for is not read.
    async fn scan(&self, table: &str, scan: &Scan) -> Result<Portions, SqlError>;

    /// The verified rows of a range, gathered.
    async fn read(&self, table: &str, select: &Select) -> Result<(Vec<RecordBatch>, Evidence), SqlError> {
        let mut portions = self.scan(table, &select.into()).await?;
        let (mut batches, mut whole) = (Vec::new(), None);
        while let Some(Portion { rows, evidence, .. }) = portions.try_next().await? {
            batches.extend(rows);
            whole = Some(match whole {
                None => evidence,
                Some(before) => evidence.after(&before),
            });
        }
        let none = || SqlError::new(SqlState::InternalError, "a read without evidence");
        Ok((batches, whole.ok_or_else(none)?))
    }

    /// Proven aggregates over a range.
    async fn aggregates(
        &self,
        table: &str,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<(Vec<AggregateValue>, Evidence), SqlError>;

    /// Has all of `writes` happen at one height, if every table of `reads` is still at the version named. Without writes, says whether
    /// there was a moment at which all of the reads were true.
    async fn commit(&self, reads: &[(String, Version)], writes: Vec<Write>) -> Result<Committed, SqlError>;

    /// Has a table hold nothing, without reading it.
    async fn clear(&self, table: &str) -> Result<(), SqlError>;

    /// Makes one of several live segments of a table that are near in size, where there are enough of them; not live yet.
    async fn prepare_merge(&self, table: &str) -> Result<Option<PreparedMerge>, SqlError>;

    /// Has a merge take effect. No row changes.
    async fn commit_merge(&self, table: &str, merge: PreparedMerge) -> Result<Committed, SqlError>;

    /// A sum with a succinct proof, checked under a key that is trusted and against the native sum.
    async fn prove(
        &self,
        table: &str,
        range: &KeyRange,
        sum: &ProvenSum,
        keys: &dyn ProofKeys,
    ) -> Result<Proved, SqlError>;
}

#[async_trait]
impl<T: Transport + 'static> Store for Database<T> {
    async fn tables(&self) -> Result<Vec<Arc<TableSchema>>, SqlError> {
        Ok(Self::tables(self).await?.into_iter().map(Arc::new).collect())
    }

    async fn create_table(&self, schema: TableSchema) -> Result<(), SqlError> {
        Self::create_table(self, schema).await?;
        Ok(())
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Portions, SqlError> {
        let table = self.table(table).await?;
        let Scan { ranges, columns, limit, direction } = scan.clone();
        let mut reads: Vec<(usize, Select)> = ranges
            .into_iter()
            .map(|range| Select { range, columns: columns.clone(), limit, direction })
            .enumerate()
            .collect();
        if direction == Direction::Backwards {
            reads.reverse();
        }
        let later = reads.split_off(reads.len().min(AT_ONCE));
        let first = reads.iter().map(|(_, select)| table.read(select));
        let first = futures::future::try_join_all(first).await.map_err(read_error)?;
        let Some(pinned) = first.first().and_then(RowStream::pinned) else {
            return Ok(futures::stream::empty().boxed());
        };
        let mut begun = Vec::with_capacity(first.len());
        for ((at, select), mut rows) in reads.iter().zip(first) {
            // Where somebody committed in between, what came second is read at the version of what came first.
            if rows.pinned().is_none_or(|own| own.version != pinned.version) {
                rows = table.read_at(&pinned, select).await.map_err(read_error)?;
            }
            begun.push(portions(*at, rows, None));
        }
        let later = futures::stream::iter(later).map(move |(at, select)| {
            let (table, pinned) = (table.clone(), pinned.clone());
            async move {
                let mut rows = table.read_at(&pinned, &select).await.map_err(read_error)?;
                let first = rows.next().await.map_err(read_error)?;
                Ok::<_, SqlError>(portions(at, rows, Some(first)))
            }
        });
        let all = futures::stream::iter(begun).flatten().chain(later.buffered(AT_ONCE).try_flatten()).boxed();
        Ok(match limit {
            Some(limit) => cut(all, limit),
            None => all,
        })
    }

    async fn aggregates(
        &self,
        table: &str,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<(Vec<AggregateValue>, Evidence), SqlError> {
        let answered = self.table(table).await?.aggregates(range, aggregates).await?;
        Ok((answered.value, answered.evidence))
    }

    async fn commit(&self, reads: &[(String, Version)], writes: Vec<Write>) -> Result<Committed, SqlError> {
        let mut transaction = self.transaction();
        for (table, version) in reads {
            transaction.observe(&self.table(table).await?, *version)?;
        }
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            let table = self.table(&write.table).await?;
            written.push((table.projection(), write.table));
            for (batch, weights) in &write.rows {
                transaction.weigh(&table, batch, weights)?;
            }
        }
        match transaction.commit().await {
            Ok(committed) => {
                let version = |(p, table): (_, String)| {
                    let version = committed.versions.iter().find(|(projection, _)| *projection == p)?.1;
                    Some((table, version))
                };
                Ok(Committed { height: committed.height, versions: written.into_iter().filter_map(version).collect() })
            }
            Err(error) if unknown_outcome(&error) => Err(SqlError::new(
                SqlState::ConnectionFailure,
                format!("it is not known whether the transaction was committed: {error}"),
            )),
            Err(error) => Err(error.into()),
        }
    }

    async fn clear(&self, table: &str) -> Result<(), SqlError> {
        self.table(table).await?.clear().await?;
        Ok(())
    }

    async fn prepare_merge(&self, table: &str) -> Result<Option<PreparedMerge>, SqlError> {
        Ok(self.table(table).await?.prepare_merge().await?)
    }

    async fn commit_merge(&self, table: &str, merge: PreparedMerge) -> Result<Committed, SqlError> {
        let committed = self.table(table).await?.commit_merge(merge).await?;
        Ok(Committed { height: committed.height, versions: vec![(table.to_owned(), committed.version)] })
    }

    async fn prove(
        &self,
        table: &str,
        range: &KeyRange,
        sum: &ProvenSum,
        keys: &dyn ProofKeys,
    ) -> Result<Proved, SqlError> {
        let table = self.table(table).await?;
        let circuit = table.proof_circuit().await?.ok_or_else(|| {
            let why = "the table has more live segments than a proof has room for";
            SqlError::new(SqlState::ProgramLimitExceeded, why).hint("compact it first")
        })?;
        let (key, insecure_dev_key) = keys.key(circuit)?;
        Ok(table.prove_sum(range, sum, &key, insecure_dev_key).await?)
    }
}

/// The portions of a range. `begun`: what was read of it already.
fn portions<T: Transport + 'static>(range: usize, rows: RowStream<T>, begun: Option<Option<RecordBatch>>) -> Portions {
    struct State<T> {
        rows: RowStream<T>,
        begun: Option<Option<RecordBatch>>,
        told: Evidence,
        first: bool,
    }
    let state = State { rows, begun, told: Evidence::default(), first: true };
    let next = move |mut state: State<T>| async move {
        let rows = match state.begun.take() {
            Some(rows) => rows,
            None => state.rows.next().await.map_err(read_error)?,
        };
        // The end has evidence of its own where nothing was said before, or something was read since.
        let whole = state.rows.evidence().cloned().unwrap_or_default();
        let evidence = whole.since(&state.told);
        if rows.is_none() && !std::mem::take(&mut state.first) && evidence.requests == 0 && evidence.rows == 0 {
            return Ok(None);
        }
        state.first = false;
        state.told = whole;
        Ok(Some((Portion { range, rows, evidence }, state)))
    };
    futures::stream::try_unfold(state, next).boxed()
}

/// The first rows of all ranges: each gave so many of its own.
fn cut(portions: Portions, limit: u64) -> Portions {
    let next = |(mut portions, left): (Portions, u64)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(mut portion) = portions.try_next().await? else { return Ok(None) };
        let rows = portion.rows.as_ref().map_or(0, RecordBatch::num_rows);
        let kept = usize::try_from(left).map_or(rows, |left| left.min(rows));
        portion.rows = portion.rows.map(|batch| batch.slice(0, kept));
        Ok(Some((portion, (portions, left - kept as u64))))
    };
    // One that asks for no row learns the version all the same.
    match limit {
        0 => portions.take(1).boxed(),
        _ => futures::stream::try_unfold((portions, limit), next).boxed(),
    }
}

/// Why rows are not there.
fn read_error(error: ClientError) -> SqlError {
    match error {
        ClientError::Op(OpRefusal::NotLive(_)) => {
            let why = "could not serialize access: rows of the table were merged with others while they were read";
            SqlError::new(SqlState::SerializationFailure, why).hint("run the statement again")
        }
        other => other.into(),
    }
}

/// Whether an operation that ended so may have been ordered all the same.
fn unknown_outcome(error: &ClientError) -> bool {
    matches!(error, ClientError::Transport(_))
}
