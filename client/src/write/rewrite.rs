//! Delete and update: rows are read and verified, retracted with weight -1, and appended anew with +1.
//!
//! Source  DESIGN section 3; `docs/protocol/segment.md`

use super::{Assignments, Committed, Row, start_over};
use crate::error::ClientError;
use crate::key;
use crate::query::Direction;
use crate::range::KeyRange;
use crate::schema::{SchemaError, TableSchema};
use crate::seal::{SealStats, Sealer};
use crate::session::{ATTEMPTS, Table};
use crate::transport::Transport;
use crate::value::{ColumnBuilder, Value};
use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use fluence_types::Version;
use fluence_types::op::OpRefusal;

impl<T: Transport> Table<T> {
    /// Deletes the rows of a range that `which` picks. No row picked: nothing is written, and `None` comes back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(
        &self,
        range: &KeyRange,
        mut which: impl FnMut(&Row<'_>) -> bool,
    ) -> Result<Option<Committed>, ClientError> {
        self.rewrite(std::slice::from_ref(range), |row| if which(row) { Rewrite::Delete } else { Rewrite::Keep }).await
    }

    /// Deletes all rows whose leading key columns equal one of `keys`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_keys(&self, keys: &[Vec<Value>]) -> Result<Option<Committed>, ClientError> {
        self.rewrite(&self.distinct_prefixes(keys), |_| Rewrite::Delete).await
    }

    /// Changes the rows of a range for which `change` gives assignments.
    ///
    /// # Errors
    /// [`ClientError`]: also where an assignment names no column, or a value does not fit it.
    pub async fn update(
        &self,
        range: &KeyRange,
        mut change: impl FnMut(&Row<'_>) -> Option<Assignments>,
    ) -> Result<Option<Committed>, ClientError> {
        self.rewrite(std::slice::from_ref(range), |row| change(row).map_or(Rewrite::Keep, Rewrite::Update)).await
    }

    /// Changes all rows whose leading key columns equal one of `keys`.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn update_keys(
        &self,
        keys: &[Vec<Value>],
        mut change: impl FnMut(&Row<'_>) -> Option<Assignments>,
    ) -> Result<Option<Committed>, ClientError> {
        let ranges = self.distinct_prefixes(keys);
        self.rewrite(&ranges, |row| change(row).map_or(Rewrite::Keep, Rewrite::Update)).await
    }

    /// Ranges of the keys, none inside another: a row must not be retracted twice.
    fn distinct_prefixes(&self, keys: &[Vec<Value>]) -> Vec<KeyRange> {
        let mut encoded: Vec<(Vec<u8>, &Vec<Value>)> = keys.iter().map(|k| (key::encode_values(k), k)).collect();
        encoded.sort_by(|a, b| a.0.cmp(&b.0));
        let mut kept: Vec<(Vec<u8>, &Vec<Value>)> = Vec::with_capacity(encoded.len());
        for (bytes, values) in encoded {
            if kept.last().is_none_or(|(last, _)| !bytes.starts_with(last)) {
                kept.push((bytes, values));
            }
        }
        kept.into_iter().map(|(_, values)| KeyRange::prefix(values.clone())).collect()
    }

    async fn rewrite(
        &self,
        ranges: &[KeyRange],
        mut decide: impl FnMut(&Row<'_>) -> Rewrite,
    ) -> Result<Option<Committed>, ClientError> {
        for attempt in 1.. {
            match self.try_rewrite(ranges, &mut decide).await {
                Err(error) if start_over(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                Err(ClientError::Op(OpRefusal::TooManyLive(_))) if attempt < ATTEMPTS => {
                    self.tidy().await?;
                }
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_rewrite(
        &self,
        ranges: &[KeyRange],
        decide: &mut impl FnMut(&Row<'_>) -> Rewrite,
    ) -> Result<Option<Committed>, ClientError> {
        let mut version: Option<Version> = None;
        let mut sealer = Sealer::new(self.handle.keys.clone());
        let mut rows = 0u64;
        for range in ranges {
            let (read, picked) = self.retract(range, decide, &mut sealer).await?;
            if let Some(before) = version.replace(read).filter(|before| *before != read) {
                // Two ranges were read at two versions.
                return Err(ClientError::Conflict { projection: self.projection(), read: before, current: read });
            }
            rows += picked;
        }
        let Some(version) = version.filter(|_| rows > 0) else { return Ok(None) };
        let (mut seal, mut sealed_rows) = (SealStats::default(), 0);
        let segment = self.seal(sealer, &mut seal, &mut sealed_rows, &mut |_| {}).await?;
        let refs = vec![self.deliver(&segment, &mut 0, &mut |_| {}).await?];
        let mut committed = self.commit(refs, Vec::new(), version).await?;
        (committed.rows, committed.seal) = (rows, seal);
        Ok(Some(committed))
    }

    /// Reads the rows of a range, and gives the sealer the retractions and new versions of those that are picked. Returns the version that
    /// was read, and how many rows were picked.
    pub(crate) async fn retract(
        &self,
        range: &KeyRange,
        decide: &mut impl FnMut(&Row<'_>) -> Rewrite,
        sealer: &mut Sealer,
    ) -> Result<(Version, u64), ClientError> {
        let schema = self.schema();
        let all: Vec<usize> = (0..schema.columns().len()).collect();
        let scanned = self.scan(&all, range, None, Direction::Forwards).await?;
        let mut rows = 0;
        for batch in &scanned.batches {
            let (mut old, mut new) = (Vec::new(), NewRows::new(schema));
            for row in 0..batch.num_rows() {
                let view = Row { schema, batch, row };
                match decide(&view) {
                    Rewrite::Keep => continue,
                    Rewrite::Delete => {}
                    Rewrite::Update(assignments) => new.push(schema, view.values(), assignments)?,
                }
                old.push(row as u32);
            }
            if old.is_empty() {
                continue;
            }
            rows += old.len() as u64;
            let retracted =
                take_record_batch(batch, &UInt32Array::from(old)).map_err(crate::open::OpenError::Gather)?;
            sealer.push_weighted(&retracted, &vec![-1; retracted.num_rows()])?;
            if new.rows > 0 {
                sealer.push(&new.finish(schema)?)?;
            }
        }
        Ok((scanned.entry.version, rows))
    }
}

/// What becomes of a row.
pub(crate) enum Rewrite {
    Keep,
    Delete,
    Update(Assignments),
}

/// New versions of rows, column by column.
pub(crate) struct NewRows {
    builders: Vec<ColumnBuilder>,
    rows: usize,
}

impl NewRows {
    pub(crate) fn new(schema: &TableSchema) -> Self {
        Self { builders: schema.columns().iter().map(|c| ColumnBuilder::new(c.ty, 0)).collect(), rows: 0 }
    }

    pub(crate) fn push(
        &mut self,
        schema: &TableSchema,
        mut values: Vec<Value>,
        assignments: Assignments,
    ) -> Result<(), ClientError> {
        for (column, value) in assignments {
            let index = schema.index(&column)?;
            let ty = schema.columns()[index].ty;
            if !ty.holds(&value) {
                let (got, want) = (format!("{value:?}"), ty.to_string());
                return Err(SchemaError::Batch { column, got, want }.into());
            }
            values[index] = value;
        }
        for (builder, value) in self.builders.iter_mut().zip(&values) {
            let pushed = builder.push(value);
            debug_assert!(pushed, "checked just above");
        }
        self.rows += 1;
        Ok(())
    }

    pub(crate) fn finish(self, schema: &TableSchema) -> Result<RecordBatch, ClientError> {
        let mut arrays = Vec::with_capacity(self.builders.len());
        for (builder, column) in self.builders.into_iter().zip(schema.columns()) {
            let array = builder.finish();
            if !column.nullable && arrow_array::Array::null_count(&array) > 0 {
                return Err(SchemaError::Null(column.name.clone()).into());
            }
            arrays.push(array);
        }
        Ok(RecordBatch::try_new(schema.arrow(), arrays).map_err(crate::open::OpenError::Gather)?)
    }
}
