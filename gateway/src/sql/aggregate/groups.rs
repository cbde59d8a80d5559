//! GROUP BY on leading columns of a sort key: the first row of each group says where the group is, a proven request what it adds up to.
//!
//! ```text
//! first key of the range ── group ── sums over the group ─┐
//!        └─ first key after the group ── group ── ..      └─ a row for each group, in key order
//! ```
//! Costs   some cells a group, for any number of rows in it. Where groups turn out to be small, the rows are read instead
//! Nodes   learn where each group begins and ends, to the row

use super::exec::Proven;
use super::wanted;
use crate::error::SqlError;
use crate::sql::types;
use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use fluence_client::{Aggregate, AggregateValue, KeyRange, Select, Value};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A range of fewer rows is read.
const ROWS_MIN: u64 = 4_096;
/// So many groups are looked at before it is said that they are too small.
const GROUPS_TRIED: usize = 16;
/// Fewest rows of a group, on the mean, for which a request is worth it: two row groups.
const ROWS_A_GROUP: u64 = 512;
/// Groups that are asked about at once.
const AT_ONCE: usize = 4;

/// A table of a row for each group.
pub(super) struct GroupsTable {
    pub(super) proven: Proven,
    /// Places of the columns that are grouped by.
    pub(super) groups: Vec<usize>,
    /// The leading key columns that tell groups apart, by their names in the sealed schema.
    pub(super) prefix: Vec<String>,
    /// The same answer from rows.
    pub(super) rows: LogicalPlan,
}

impl fmt::Debug for GroupsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenGroups({:?})", self.proven.physical)
    }
}

#[async_trait]
impl TableProvider for GroupsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.proven.schema)
    }
    fn table_type(&self) -> TableType {
        TableType::Temporary
    }
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.proven.schema.fields().len()).collect());
        // Places of the columns in the prefix, by which each row of a group names them.
        let place = |group: usize| {
            let name = &self.proven.def.columns[self.groups[group]].physical;
            self.prefix.iter().position(|p| p == name)
        };
        let mut shown = Vec::with_capacity(columns.len());
        for column in &columns {
            shown.push(match self.groups.get(*column) {
                Some(_) => Shown::Key(place(*column).ok_or_else(|| wanted::internal("a group that is no key"))?),
                None => Shown::Value,
            });
        }
        let proven = self.proven.project(&columns, self.groups.len())?;
        let rows = state.create_physical_plan(&self.rows).await?;
        let rows: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(rows));
        let (properties, prefix) = (proven.properties(), self.prefix.clone());
        Ok(Arc::new(GroupsExec { proven, prefix, shown, columns, rows, properties }))
    }
}

/// What a column of the answer is.
#[derive(Clone, Copy)]
enum Shown {
    /// The key column at this place of the prefix.
    Key(usize),
    /// The next aggregate.
    Value,
}

#[derive(Clone)]
struct GroupsExec {
    proven: Proven,
    prefix: Vec<String>,
    shown: Vec<Shown>,
    /// The columns of `rows` that are shown.
    columns: Vec<usize>,
    rows: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

/// Where the search for groups stands: what is left of the range.
type Step = (Arc<GroupsExec>, KeyRange);

/// Where a group is.
struct Found {
    this: Arc<GroupsExec>,
    keys: Vec<ArrayRef>,
    range: KeyRange,
}

/// A group: its key columns as one row each, and what was asked of it; the last is how many rows it has.
struct Group {
    keys: Vec<ArrayRef>,
    values: Vec<AggregateValue>,
}

impl GroupsExec {
    /// The first group of a range, and what comes after it.
    async fn first(&self, range: KeyRange) -> Result<Option<(Vec<ArrayRef>, KeyRange, KeyRange)>> {
        let mut select = Select::range(range.clone());
        (select.columns, select.limit) = (self.prefix.clone(), Some(1));
        let (batches, evidence) = self.proven.store.read(&self.proven.physical, &select).await?;
        self.proven.work.saw(&self.proven.physical, &range, &evidence, false)?;
        let Some(batch) = batches.iter().find(|b| b.num_rows() > 0) else { return Ok(None) };
        let value =
            |column: &ArrayRef| Value::at(column, 0).ok_or_else(|| wanted::internal("a key column of an unknown type"));
        let values = batch.columns().iter().map(value).collect::<Result<Vec<Value>, SqlError>>()?;
        let keys = batch.columns().iter().map(|c| c.slice(0, 1)).collect();
        let rest = KeyRange { lower: Bound::Excluded(values.clone()), upper: range.upper };
        Ok(Some((keys, KeyRange::prefix(values), rest)))
    }

    /// The same as a step of a stream, which has its own handle.
    fn next((this, rest): Step) -> BoxFuture<'static, Result<Option<(Found, Step)>>> {
        let step = async move {
            let found = this.first(rest).await?;
            Ok(found.map(|(keys, range, rest)| (Found { this: Arc::clone(&this), keys, range }, (this, rest))))
        };
        step.boxed()
    }

    fn ask(found: Found, asked: Arc<[Aggregate]>, shown: usize) -> BoxFuture<'static, Result<Group>> {
        let Found { this, keys, range } = found;
        let step = async move { Ok(Group { keys, values: this.proven.ask(&range, &asked, shown).await? }) };
        step.boxed()
    }

    /// The groups, or `None` where rows are the better way.
    async fn groups(&self) -> Result<Option<Vec<Group>>> {
        let mut asked = self.proven.asked();
        let shown = asked.len();
        asked.push(Aggregate::Count);
        let range = self.proven.range.clone();
        let count = |values: &[AggregateValue]| match values.last() {
            Some(AggregateValue::Count(n)) => Ok(*n),
            _ => Err(wanted::internal("a count that is none")),
        };
        if count(&self.proven.ask(&range, &[Aggregate::Count], 0).await?)? < ROWS_MIN {
            return Ok(None);
        }
        let (this, asked): (Arc<Self>, Arc<[Aggregate]>) = (Arc::new(self.clone()), asked.into());
        let found: BoxStream<'static, Result<Found>> = stream::try_unfold((this, range), Self::next).boxed();
        let ask = move |found| Self::ask(found, Arc::clone(&asked), shown);
        let mut answers: BoxStream<'static, Result<Group>> = found.map_ok(ask).try_buffered(AT_ONCE).boxed();
        let (mut groups, mut rows) = (Vec::new(), 0);
        while let Some(group) = answers.try_next().await? {
            rows += count(&group.values)?;
            groups.push(group);
            if groups.len() >= GROUPS_TRIED && rows < ROWS_A_GROUP * groups.len() as u64 {
                return Ok(None);
            }
        }
        Ok(Some(groups))
    }

    fn batch(&self, groups: Vec<Group>) -> Result<RecordBatch> {
        let rows = groups.len();
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(rows); self.shown.len()];
        let fields = self.proven.schema.fields();
        let value_fields = fields
            .iter()
            .zip(&self.shown)
            .filter(|(_, s)| matches!(s, Shown::Value))
            .map(|(f, _)| Arc::clone(f))
            .collect();
        for group in groups {
            let mut values = wanted::row(&self.proven.wanted, group.values, &value_fields)?.into_iter();
            for ((shown, field), column) in self.shown.iter().zip(fields).zip(&mut columns) {
                column.push(match shown {
                    Shown::Key(at) => types::recast(&group.keys[*at], field.data_type())?,
                    Shown::Value => values.next().ok_or_else(|| wanted::internal("fewer values than columns"))?,
                });
            }
        }
        let whole = |parts: Vec<ArrayRef>| Ok(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?);
        if rows == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.proven.schema)));
        }
        self.proven.batch(columns.into_iter().map(whole).collect::<Result<_>>()?, rows)
    }

    async fn answer(self, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = Arc::clone(&self.proven.schema);
        if let Some(groups) = self.groups().await? {
            let batch = self.batch(groups)?;
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(async move { Ok(batch) }))));
        }
        let rows = self.rows.execute(0, context)?.map(move |batch| {
            let batch = batch?;
            let columns = self.columns.iter().map(|c| Arc::clone(batch.column(*c))).collect();
            self.proven.batch(columns, batch.num_rows())
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

impl fmt::Debug for GroupsExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenGroups({:?})", self.proven.physical)
    }
}

impl DisplayAs for GroupsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenGroups: {}, groups=({})", self.proven.words(), self.prefix.join(", "))
    }
}

impl ExecutionPlan for GroupsExec {
    fn name(&self) -> &'static str {
        "ProvenGroups"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let answer = stream::once(self.clone().answer(context)).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.proven.schema), answer)))
    }
}
