//! The one row of proven aggregates over a range.

use super::wanted::{self, Wanted};
use crate::sql::catalog::TableDef;
use crate::sql::proofs::Proofs;
use crate::sql::table::range_text;
use crate::sql::work::Work;
use crate::store::Store;
use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use fluence_client::{Aggregate, AggregateValue, KeyRange};
use std::fmt;
use std::sync::Arc;

/// Aggregates over a range of a copy of a table.
#[derive(Clone)]
pub(super) struct Proven {
    pub(super) def: Arc<TableDef>,
    pub(super) store: Arc<dyn Store>,
    pub(super) work: Arc<Work>,
    pub(super) proofs: Arc<Proofs>,
    pub(super) physical: String,
    pub(super) range: KeyRange,
    pub(super) wanted: Vec<Wanted>,
    /// Columns that are grouped by, then those of `wanted`.
    pub(super) schema: SchemaRef,
}

impl Proven {
    /// Those columns alone, of which the first `groups` are grouped by.
    pub(super) fn project(&self, columns: &[usize], groups: usize) -> Result<Self> {
        let wanted = columns.iter().filter(|c| **c >= groups).map(|c| self.wanted[c - groups].clone()).collect();
        Ok(Self { wanted, schema: Arc::new(self.schema.project(columns)?), ..self.clone() })
    }

    /// What is asked of nodes.
    pub(super) fn asked(&self) -> Vec<Aggregate> {
        self.wanted.iter().flat_map(Wanted::aggregates).collect()
    }

    /// Proven values over a range; those that may have a succinct proof come with one, where that is wanted.
    pub(super) async fn ask(&self, range: &KeyRange, asked: &[Aggregate], prove: usize) -> Result<Vec<AggregateValue>> {
        let (values, evidence) = self.store.aggregates(&self.physical, range, asked).await?;
        self.work.saw(&self.physical, range, &evidence, true)?;
        for aggregate in &asked[..prove] {
            self.proofs.prove(self.store.as_ref(), &self.physical, range, aggregate).await?;
        }
        Ok(values)
    }

    pub(super) fn properties(&self) -> Arc<PlanProperties> {
        Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&self.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ))
    }

    /// A batch of `rows` rows.
    pub(super) fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// The columns that the copy is sorted by, in SQL's words as far as an index says them.
    fn key(&self) -> &[String] {
        let index = self.def.indexes.iter().find(|i| i.physical == self.physical);
        index.map_or(&self.def.key, |i| &i.columns)
    }

    /// In words, for EXPLAIN.
    pub(super) fn words(&self) -> String {
        let wanted: Vec<String> = self.wanted.iter().map(Wanted::words).collect();
        format!("{}, [{}], range={}", self.physical, wanted.join(", "), range_text(self.key(), &self.range))
    }

    async fn row(self) -> Result<RecordBatch> {
        let asked = self.asked();
        // A COUNT without anything else is asked all the same where nothing is: the row stands for itself.
        let values = self.ask(&self.range, &asked, asked.len()).await?;
        self.batch(wanted::row(&self.wanted, values, self.schema.fields())?, 1)
    }
}

/// A table of that row.
pub(super) struct ProvenTable(pub(super) Proven);

impl fmt::Debug for ProvenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenAggregate({:?})", self.0.physical)
    }
}

#[async_trait]
impl TableProvider for ProvenTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }
    fn table_type(&self) -> TableType {
        TableType::Temporary
    }
    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.0.wanted.len()).collect());
        let proven = self.0.project(&columns, 0)?;
        Ok(Arc::new(ProvenExec { properties: proven.properties(), proven }))
    }
}

struct ProvenExec {
    proven: Proven,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for ProvenExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenAggregate({:?})", self.proven.physical)
    }
}

impl DisplayAs for ProvenExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenAggregate: {}", self.proven.words())
    }
}

impl ExecutionPlan for ProvenExec {
    fn name(&self) -> &'static str {
        "ProvenAggregate"
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
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let row = futures::stream::once(self.proven.clone().row());
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.proven.schema), row)))
    }
}
