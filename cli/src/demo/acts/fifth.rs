//! A fifth node takes the seat of the one that was killed, in the first quarter's cluster, while writes go on.
//!
//! ```text
//! node-5 starts -> follows -> the owner's wish is ordered -> it fetches, proves by Groth16 what it has, is voted in -> votes itself
//!    the owner meanwhile   appends row after row to another table of the same database; none may be lost or refused
//! ```
//! Path    the seat changes hands by the code of `fluence cluster replace`.

use super::flights::KILLED;
use super::{DEPOSIT, FLU, PATIENCE, Play, World};
use crate::commands::cluster::seat::{self, Places};
use crate::demo::cast::Node;
use crate::demo::story::{Story, round};
use crate::error::{Context, Failure, Result};
use crate::remote;
use arrow_array::RecordBatch;
use fluence_client::dial::Dialer;
use fluence_client::value::ColumnBuilder;
use fluence_client::{Aggregate, AggregateValue, Column, ColumnType, Database, KeyRange, Table, TableSchema, Value};
use fluence_types::block::position;
use fluence_types::op::ClusterChange;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The quarter in whose cluster it takes the seat.
pub(super) const REPLACED_IN: usize = 0;
/// Its place among the nodes.
pub(super) const FIFTH: usize = 4;
/// Between two rows that are written meanwhile. Each is a segment that stays stored, and the demo's circuit opens a tree of 64: at the
/// longest wait, 300 s, 43 come to the quarter's own, merged ones included.
const ROW_EVERY: Duration = Duration::from_secs(8);
/// The table that is written to meanwhile.
const REMARKS: &str = "remarks";

/// What was written while the seat changed.
#[derive(Default)]
struct Writes {
    rows: i64,
    slowest: Duration,
}

impl Play {
    pub(super) async fn replace_by_a_fifth(
        &mut self,
        story: &mut Story,
        world: &World,
        tables: &[Table<Dialer>],
    ) -> Result<()> {
        story.begin("replace by a fifth");
        let begun = Instant::now();
        let killed = (self.nodes[KILLED].name.clone(), self.nodes[KILLED].id);
        self.nodes.push(Node::prepare(&self.stage(), &format!("node-{}", FIFTH + 1))?);
        self.nodes[FIFTH].start(&self.memory).await?;
        let rpc_url = self.anvil().rpc_url().to_owned();
        self.join(&world.chain, FIFTH, &rpc_url).await?;
        let (name, id) = (self.nodes[FIFTH].name.clone(), self.nodes[FIFTH].id);
        story.tell(format!("{name}  {id}  {} FLU of collateral; {} stays down", DEPOSIT / FLU, killed.0));

        let failed = |e| remote::failure(e, "the database is unknown");
        let database = world.session.database(tables[REPLACED_IN].db()).map_err(failed)?;
        let remarks =
            database.create_table(remarks()?).await.map_err(|e| remote::failure(e, "a table cannot be made"))?;
        let done = Cell::new(false);
        let replacing = async {
            let replaced = self.replace(story, &database, &name).await;
            done.set(true);
            replaced
        };
        let (epoch, writes) = tokio::try_join!(replacing, write_until(&remarks, &done))?;

        // Nothing is lost, and nothing is there twice.
        let counted = remarks.aggregate(&KeyRange::ALL, &Aggregate::Count).await;
        let counted = counted.map_err(|e| remote::failure(e, "the rows written meanwhile cannot be counted"))?.value;
        if counted != AggregateValue::Count(writes.rows as u64) {
            let why = format!("{} rows were acknowledged, {counted} are there", writes.rows);
            return Err(
                Failure::refused("rows written while the seat changed hands are not those that are there").because(why)
            );
        }
        let voted_at = self.votes(&database).await?;
        let seconds = begun.elapsed().as_secs_f64();
        story.fact("replaced", killed.0.clone());
        story.fact("by", name.clone());
        story.fact("since_consensus_epoch", epoch);
        story.fact("votes_at_height", voted_at);
        story.fact("rows_written_meanwhile", writes.rows);
        story.fact("slowest_write_seconds", round(writes.slowest.as_secs_f64()));
        story.end(format!(
            "{name} fetched quarter-{} from the others, proved that it has every cell, and votes since consensus epoch {epoch}; {} rows were \
             written meanwhile, none lost, the slowest in {:.1} s; {seconds:.0} s in all",
            REPLACED_IN + 1,
            writes.rows,
            writes.slowest.as_secs_f64(),
        ));
        Ok(())
    }

    /// Has the killed node replaced, as `fluence cluster replace` does. Returns the consensus epoch since which the new committee votes.
    async fn replace(&self, story: &Story, database: &Database<Dialer>, name: &str) -> Result<u64> {
        let (begun, out) = (Instant::now(), *story.out());
        let with = seat::newcomer(database, self.nodes[FIFTH].address(), &out).await?;
        let (comes, goes) = (with.node, self.nodes[KILLED].id);
        seat::invite(database, &[comes], Some(goes), &out).await?;
        let change = ClusterChange::Replace { out: goes, with };
        let receipt = seat::order(database, change, "the replacement was not ordered").await?;
        let places = Places { comes: Some(comes), goes: Some(goes) };
        let mut said = String::new();
        let committee = seat::come_true(database, receipt.height, places, PATIENCE, |how| {
            // What is counted in it changes at every look.
            let plain: String = how.chars().filter(|c| !c.is_ascii_digit()).collect();
            if plain != said {
                story.tell(format!("{:>5.1} s  {how}", begun.elapsed().as_secs_f64()));
                said = plain;
            }
        });
        let committee = committee.await?;
        story.tell(format!(
            "{:>5.1} s  the committee before has handed over: {name} has the seat",
            begun.elapsed().as_secs_f64()
        ));
        Ok(committee.since)
    }

    /// Waits for a certificate that the fifth has signed too, and that it is level. Returns the certificate's height.
    async fn votes(&mut self, database: &Database<Dialer>) -> Result<u64> {
        let (begun, id) = (Instant::now(), self.nodes[FIFTH].id);
        loop {
            self.check()?;
            let committee = database.committee().map_err(|e| remote::failure(e, "the database is unknown"))?;
            let at = position(&committee.members, &id).ok_or_else(|| Failure::failed("the fifth has no seat"))?;
            let statuses =
                database.cluster_status().await.map_err(|e| remote::failure(e, "the members do not answer"))?;
            // Only certificates that verify under the committee are here.
            let good = || statuses.iter().filter_map(|(node, s)| Some((*node, s.as_ref().ok()?)));
            let signed = good().filter_map(|(_, s)| s.certificate.as_ref()).find(|c| c.signers & (1 << at) != 0);
            let of_it = good().find(|(node, _)| *node == id).map(|(_, s)| s);
            let level = of_it.is_some_and(|s| s.voting && s.missing_segments == 0);
            if let (Some(certificate), true) = (signed, level) {
                return Ok(certificate.header.height.0);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::failed("the fifth has its seat, and does not vote").because(format!("{of_it:?}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn remarks() -> Result<TableSchema> {
    let columns = vec![Column::new("n", ColumnType::Int64), Column::new("remark", ColumnType::Text)];
    TableSchema::new(REMARKS, columns, &["n"], Vec::new()).doing("the table of remarks cannot be made")
}

/// Appends one row after the other until told to stop. Every one must be acknowledged.
async fn write_until(table: &Table<Dialer>, done: &Cell<bool>) -> Result<Writes> {
    let mut writes = Writes::default();
    while !done.get() {
        let begun = Instant::now();
        let committed = table.append(&remark(table.schema(), writes.rows)?).await;
        committed.map_err(|e| remote::failure(e, "a row was not taken while the seat changed hands"))?;
        writes.rows += 1;
        writes.slowest = writes.slowest.max(begun.elapsed());
        while !done.get() && begun.elapsed() < ROW_EVERY {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(writes)
}

fn remark(schema: &TableSchema, n: i64) -> Result<RecordBatch> {
    let values = [Value::Int64(n), Value::Text(format!("remark {n}"))];
    let columns = schema.columns().iter().zip(&values).map(|(column, value)| {
        let mut builder = ColumnBuilder::new(column.ty, 1);
        assert!(builder.push(value), "the value is of the column's type");
        builder.finish()
    });
    RecordBatch::try_new(schema.arrow(), columns.collect()).doing("a row cannot be made")
}
