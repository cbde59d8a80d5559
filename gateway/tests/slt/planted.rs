//! A store that is off by one in what is pushed down: what a wrong pushdown would do. The comparison must notice it.

use async_trait::async_trait;
use fluence_client::prove::{Proved, ProvenSum};
use fluence_client::query::Evidence;
use fluence_client::schema::TableSchema;
use fluence_client::{Aggregate, AggregateValue, Direction, KeyRange, PreparedMerge, Value};
use fluence_gateway::SqlError;
use fluence_gateway::store::{Committed, Portions, ProofKeys, Scan, Store, Write};
use fluence_types::Version;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a pushdown is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The lower end of a range of rows.
    Lower,
    /// The upper end of a range of rows.
    Upper,
    /// The most rows.
    Limit,
    /// The end from which rows are read.
    Direction,
    /// The lower end of a range that is summed.
    Sum,
}

pub(crate) const FAULTS: [Fault; 5] = [Fault::Lower, Fault::Upper, Fault::Limit, Fault::Direction, Fault::Sum];

/// See the module.
pub(crate) struct Planted {
    store: Arc<dyn Store>,
    fault: Fault,
    on: AtomicBool,
}

/// The fault shows while this lives.
pub(crate) struct On<'a>(&'a Planted);

impl Drop for On<'_> {
    fn drop(&mut self) {
        self.0.on.store(false, Ordering::Relaxed);
    }
}

impl Planted {
    pub(crate) fn new(store: Arc<dyn Store>, fault: Fault) -> Arc<Self> {
        Arc::new(Self { store, fault, on: AtomicBool::new(false) })
    }

    /// Has the fault show: writes and what they look up are to be right.
    pub(crate) fn on(&self) -> On<'_> {
        self.on.store(true, Ordering::Relaxed);
        On(self)
    }

    /// Whether the fault shows, in a table of the owner's: the catalogue's tables are read by other rules.
    fn shows(&self, fault: Fault, table: &str) -> bool {
        self.fault == fault && self.on.load(Ordering::Relaxed) && !table.starts_with("fluence_")
    }
}

/// The end of a range, one further on.
fn shifted(bound: &Bound<Vec<Value>>) -> Bound<Vec<Value>> {
    let next = |values: &Vec<Value>| {
        let mut values = values.clone();
        if let Some(Value::Int64(last)) = values.last_mut() {
            *last += 1;
        }
        values
    };
    match bound {
        Bound::Included(values) => Bound::Included(next(values)),
        Bound::Excluded(values) => Bound::Excluded(next(values)),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[async_trait]
impl Store for Planted {
    async fn tables(&self) -> Result<Vec<Arc<TableSchema>>, SqlError> {
        self.store.tables().await
    }

    async fn create_table(&self, schema: TableSchema) -> Result<(), SqlError> {
        self.store.create_table(schema).await
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Portions, SqlError> {
        let mut scan = scan.clone();
        for range in &mut scan.ranges {
            if self.shows(Fault::Lower, table) {
                range.lower = shifted(&range.lower);
            }
            if self.shows(Fault::Upper, table) {
                range.upper = shifted(&range.upper);
            }
        }
        if self.shows(Fault::Limit, table) {
            scan.limit = scan.limit.map(|limit| limit.saturating_sub(1));
        }
        if self.shows(Fault::Direction, table) {
            scan.direction = Direction::Forwards;
        }
        self.store.scan(table, &scan).await
    }

    async fn aggregates(
        &self,
        table: &str,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<(Vec<AggregateValue>, Evidence), SqlError> {
        let mut range = range.clone();
        if self.shows(Fault::Sum, table) {
            range.lower = shifted(&range.lower);
        }
        self.store.aggregates(table, &range, aggregates).await
    }

    async fn commit(&self, reads: &[(String, Version)], writes: Vec<Write>) -> Result<Committed, SqlError> {
        self.store.commit(reads, writes).await
    }

    async fn clear(&self, table: &str) -> Result<(), SqlError> {
        self.store.clear(table).await
    }

    async fn prepare_merge(&self, table: &str) -> Result<Option<PreparedMerge>, SqlError> {
        self.store.prepare_merge(table).await
    }

    async fn commit_merge(&self, table: &str, merge: PreparedMerge) -> Result<Committed, SqlError> {
        self.store.commit_merge(table, merge).await
    }

    async fn prove(
        &self,
        table: &str,
        range: &KeyRange,
        sum: &ProvenSum,
        keys: &dyn ProofKeys,
    ) -> Result<Proved, SqlError> {
        self.store.prove(table, range, sum, keys).await
    }
}
