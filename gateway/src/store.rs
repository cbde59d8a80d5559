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
use fluence_client::{Aggregate, AggregateValue, ClientError, Database, KeyRange, PreparedMerge, Select, Transport};
use fluence_types::shape::CircuitId;
use fluence_types::{Height, Version};
use fluence_verifier::groth16::VerificationKey;
use std::sync::Arc;

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

    /// The verified rows of a range, in key order.
    async fn read(&self, table: &str, select: &Select) -> Result<(Vec<RecordBatch>, Evidence), SqlError>;

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

    async fn read(&self, table: &str, select: &Select) -> Result<(Vec<RecordBatch>, Evidence), SqlError> {
        let answered = self.table(table).await?.rows(select).await?;
        Ok((answered.value, answered.evidence))
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

/// Whether an operation that ended so may have been ordered all the same.
fn unknown_outcome(error: &ClientError) -> bool {
    matches!(error, ClientError::Transport(_))
}
