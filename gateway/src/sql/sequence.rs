//! Numbers for SERIAL and IDENTITY columns: given out in blocks, so that rows of several gateways do not wait for each other.
//!
//! Rule    a block is taken by a commit of its own before any number of it is used, so none is given out twice; as in PostgreSQL, a
//!         transaction that is rolled back leaves a gap, and so does a gateway that ends.

use super::catalog::{SEQUENCES, sequences_schema};
use crate::error::{SqlError, SqlState};
use crate::store::{Store, Write};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Int64Type;
use fluence_client::{KeyRange, Select, Value};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Numbers of a block, where fewer are asked.
const BLOCK: i64 = 1024;
/// Tries to take one.
const ATTEMPTS: u32 = 16;

/// The blocks that this gateway has.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Mutex<HashMap<String, Range<i64>>>);

impl Sequences {
    /// The next `count` numbers of a sequence, which begins at 1.
    pub(crate) async fn take(&self, store: &dyn Store, name: &str, count: usize) -> Result<Vec<i64>, SqlError> {
        let mut blocks = self.0.lock().await;
        let block = blocks.entry(name.to_owned()).or_default();
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            if block.is_empty() {
                let wanted = i64::try_from(count - numbers.len()).unwrap_or(i64::MAX).max(BLOCK);
                *block = reserve(store, name, wanted).await?;
            }
            numbers.extend(block.by_ref().take(count - numbers.len()));
        }
        Ok(numbers)
    }

    /// Has a sequence go on with `next`, at once and whatever becomes of the transaction. Other gateways use up the blocks that they have.
    pub(crate) async fn set(&self, store: &dyn Store, name: &str, next: i64) -> Result<(), SqlError> {
        let mut blocks = self.0.lock().await;
        blocks.remove(name);
        change(store, name, |_| Ok(next)).await?;
        Ok(())
    }
}

fn row(name: &str, next: i64) -> RecordBatch {
    let columns: Vec<datafusion::arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from(vec![name])), Arc::new(Int64Array::from(vec![next]))];
    RecordBatch::try_new(sequences_schema().arrow(), columns).expect("one row of the schema")
}

async fn reserve(store: &dyn Store, name: &str, count: i64) -> Result<Range<i64>, SqlError> {
    let past = |first: i64| {
        first.checked_add(count).ok_or_else(|| {
            SqlError::new(SqlState::NumericValueOutOfRange, format!("the sequence of \"{name}\" has no more numbers"))
        })
    };
    let first = change(store, name, past).await?;
    Ok(first..past(first)?)
}

/// Changes the number that a sequence gives next; gives what it was.
async fn change(store: &dyn Store, name: &str, next: impl Fn(i64) -> Result<i64, SqlError>) -> Result<i64, SqlError> {
    let select = Select::range(KeyRange::prefix(vec![Value::Text(name.to_owned())]));
    for attempt in 1.. {
        let (batches, evidence) = store.read(SEQUENCES, &select).await?;
        let held = batches.iter().find(|b| b.num_rows() > 0).map(|b| b.column(1).as_primitive::<Int64Type>().value(0));
        let first = held.unwrap_or(1);
        let mut rows = vec![(row(name, next(first)?), vec![1])];
        rows.extend(held.map(|next| (row(name, next), vec![-1])));
        let write = Write { table: SEQUENCES.to_owned(), rows };
        match store.commit(&[(SEQUENCES.to_owned(), evidence.version)], vec![write]).await {
            Ok(_) => return Ok(first),
            Err(error) if error.state == SqlState::SerializationFailure && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop returns")
}
