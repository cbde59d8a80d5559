//! Clients under load: owners with their databases, tasks that write rows one after the other, tasks that read all of them.
//!
//! Rule    what is recorded is what a real client would have been told; an error counts as a refusal only where the log itself said no.

use crate::history::{Outcome, Read, Recorder, Row, Write};
use anyhow::Context;
use arrow_array::RecordBatch;
use fluence_client::dial::{DialOptions, Dialer};
use fluence_client::value::ColumnBuilder;
use fluence_client::{
    ClientError, Column, ColumnType, Database, KeyRange, Keyring, Keystore, Select, Session, SessionOptions, Table,
    TableSchema, Transport, Value,
};
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::message::ClusterStatus;
use fluence_wire::{Request, Response};
use rand::rngs::OsRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TABLE: &str = "rows";
/// Patience with a member before the next is asked: short, for there is always one that does not answer.
const OPTIONS: SessionOptions = SessionOptions {
    patience: Duration::from_secs(2),
    write_patience: Duration::from_secs(6),
    grace: Duration::from_secs(2),
    fresh: false,
    portion_cells: fluence_client::PORTION_CELLS,
};
const DIAL: DialOptions = DialOptions {
    request_timeout: Duration::from_secs(15),
    idle_timeout: Duration::from_secs(60),
    queue: 64,
    streams: 32,
};
/// After an error, so that a cluster without a quorum is not asked in circles.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two reads of a reader.
const READ_EVERY: Duration = Duration::from_millis(400);

/// An owner and its database.
pub(crate) struct Owner {
    pub(crate) number: usize,
    keyring: Keyring,
    nodes: Vec<(NodeId, String)>,
    table: Table<Dialer>,
}

fn dialer(nodes: &[(NodeId, String)]) -> anyhow::Result<Dialer> {
    let dialer = Dialer::start(DIAL)?;
    for (node, address) in nodes {
        dialer.add_address(node, address)?;
    }
    Ok(dialer)
}

fn keyring(of: &Keyring) -> anyhow::Result<Keyring> {
    Keyring::from_phrase(&of.phrase()).context("a keyring opens with its own phrase")
}

impl Owner {
    /// Makes a database that all nodes keep, with its table.
    pub(crate) async fn create(number: usize, nodes: &[(NodeId, String)]) -> anyhow::Result<Self> {
        let own = Keyring::generate(&mut OsRng);
        let session = Session::with(dialer(nodes)?, Keystore::in_memory(keyring(&own)?), OsRng, OPTIONS);
        let members = nodes.iter().map(|(n, _)| *n).collect();
        let database = session.create_database("chaos", members, nodes.to_vec()).await?;
        let columns = vec![
            Column::new("writer", ColumnType::Int64),
            Column::new("n", ColumnType::Int64),
            Column::new("note", ColumnType::Text),
        ];
        let table = database.create_table(TableSchema::new(TABLE, columns, &["writer", "n"], Vec::new())?).await?;
        Ok(Self { number, keyring: own, nodes: nodes.to_vec(), table })
    }

    pub(crate) fn db(&self) -> DatabaseId {
        self.table.db()
    }

    /// A table to write to: all writers of an owner share its session.
    pub(crate) fn table(&self) -> Table<Dialer> {
        self.table.clone()
    }

    /// The same database through a session of its own, which reaches only these nodes.
    pub(crate) async fn beside(&self, only: &[(NodeId, String)]) -> anyhow::Result<Table<Dialer>> {
        let session = Session::with(dialer(only)?, Keystore::in_memory(keyring(&self.keyring)?), OsRng, OPTIONS);
        for (id, known) in self.table.session().known() {
            session.remember(id, known)?;
        }
        Ok(session.database(self.db())?.table(TABLE).await?)
    }

    pub(crate) fn nodes(&self) -> &[(NodeId, String)] {
        &self.nodes
    }

    /// How the database stands on a member, as it says.
    pub(crate) async fn stand(&self, node: &NodeId) -> anyhow::Result<ClusterStatus> {
        match self.table.session().transport().request(node, Request::Cluster { db: self.db() }).await? {
            Response::Cluster(status) => Ok(*status),
            other => anyhow::bail!("asked for its cluster's status, node {node} answered {other:?}"),
        }
    }

    /// The database, to ask its members.
    pub(crate) fn database(&self) -> anyhow::Result<Database<Dialer>> {
        Ok(self.table.session().database(self.db())?)
    }
}

fn batch(schema: &TableSchema, row: Row) -> RecordBatch {
    let note = format!("what writer {} had to say for the {}th time", row.writer, row.n);
    let values = [Value::Int64(row.writer), Value::Int64(row.n), Value::Text(note)];
    let columns = schema.columns().iter().zip(&values).map(|(column, value)| {
        let mut builder = ColumnBuilder::new(column.ty, 1);
        assert!(builder.push(value), "the value is of the column's type");
        builder.finish()
    });
    RecordBatch::try_new(schema.arrow(), columns.collect()).expect("the columns are the schema's")
}

/// Writes rows from `from` on until told to stop; gives the number of the next. Every row is tried once: what became of it is recorded.
pub(crate) async fn write(
    database: usize,
    table: Table<Dialer>,
    writer: i64,
    from: i64,
    record: Arc<Recorder>,
    stop: Arc<AtomicBool>,
) -> i64 {
    let mut n = from;
    while !stop.load(Ordering::Relaxed) {
        let row = Row { writer, n };
        let asked = record.now();
        let outcome = match table.append(&batch(table.schema(), row)).await {
            Ok(committed) => Outcome::Acknowledged { height: committed.height.0 },
            // The log said that it changed nothing.
            Err(error @ (ClientError::Op(_) | ClientError::Conflict { .. })) => Outcome::Refused(error.to_string()),
            Err(error) => Outcome::Unknown(error.to_string()),
        };
        let failed = !matches!(outcome, Outcome::Acknowledged { .. });
        record.lock().writes.push(Write { database, row, asked, ended: record.now(), outcome });
        n += 1;
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
    n
}

/// Reads all rows. Gives the certified height, and the rows.
pub(crate) async fn all_rows(table: &Table<Dialer>) -> Result<(u64, Vec<Row>), ClientError> {
    let answered = table.select(&Select::range(KeyRange::ALL).columns(&["writer", "n"])).await?;
    let batch = &answered.value;
    let number = |column: usize, row: usize| match Value::at(batch.column(column), row) {
        Some(Value::Int64(n)) => n,
        // No row that was written: the check finds it.
        _ => i64::MIN,
    };
    let rows = (0..batch.num_rows()).map(|i| Row { writer: number(0, i), n: number(1, i) }).collect();
    Ok((answered.evidence.height.0, rows))
}

/// Reads all rows now and then until told to stop.
pub(crate) async fn read(
    database: usize,
    table: Table<Dialer>,
    reader: usize,
    record: Arc<Recorder>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let asked = record.now();
        // A read that fails says nothing.
        if let Ok((height, rows)) = all_rows(&table).await {
            record.lock().reads.push(Read { database, reader, asked, ended: record.now(), height, rows });
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}
