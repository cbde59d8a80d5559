//! Aggregates that nodes answer with two openings a segment: COUNT, SUM, AVG; and MIN and MAX of a key column, which are one row.
//!
//! ```text
//! Aggregate(TableScan)  ->  Projection(TableScan(ProvenAggregate))
//! ```
//! Fires   only where every filter is said exactly by the key range, no row of the table was changed by the transaction, and every aggregate
//!         can be had from declared sums with the very value that DataFusion would compute; else nothing changes.
//! Source  DESIGN section 10

use super::catalog::TableDef;
use super::proofs::Proofs;
use super::table::{FluenceTable, range_text};
use super::work::Work;
use crate::error::{SqlError, SqlState};
use crate::store::Store;
use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::datasource::{TableProvider, TableType, provider_as_source, source_as_provider};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate as AggregateNode, Cast, Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::scalar::ScalarValue;
use fluence_client::schema::TableSchema;
use fluence_client::{Aggregate, AggregateValue, KeyRange, SumExpr, Value};
use std::fmt;
use std::sync::Arc;

/// The optimizer's rule.
#[derive(Debug, Default)]
pub(crate) struct AggregatePushdown;

impl OptimizerRule for AggregatePushdown {
    fn name(&self) -> &'static str {
        "fluence_aggregate_pushdown"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(node) if node.group_expr.is_empty() => match proven(node)? {
                Some(plan) => Ok(Transformed::yes(plan)),
                None => Ok(Transformed::no(plan)),
            },
            _ => Ok(Transformed::no(plan)),
        }
    }
}

fn proven(node: &AggregateNode) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::TableScan(TableScan { source, filters, fetch: None, table_name, .. }) = &*node.input else {
        return Ok(None);
    };
    let Ok(provider) = source_as_provider(source) else { return Ok(None) };
    let Some(table) = provider.as_ref().downcast_ref::<FluenceTable>() else { return Ok(None) };
    let asked = |(physical, range): (String, KeyRange)| {
        let schema = table.physical.physical.get(&physical)?;
        let one = |(expr, (_, field)): (&Expr, (_, &Arc<Field>))| {
            wanted_of(&table.def, schema, &range, expr, field.data_type())
        };
        let wanted = node.aggr_expr.iter().zip(node.schema.iter()).map(one).collect::<Option<Vec<_>>>()?;
        Some((physical, range, wanted))
    };
    let Some((physical, range, wanted)) = table.exact(filters).into_iter().find_map(asked) else { return Ok(None) };
    let field = |(i, (_, field)): (usize, (_, &Arc<Field>))| {
        Field::new(format!("a{i}"), field.data_type().clone(), field.is_nullable())
    };
    let fields: Vec<Field> = node.schema.iter().enumerate().map(field).collect();
    let provider = ProvenAggregate {
        def: Arc::clone(&table.def),
        store: Arc::clone(&table.store),
        work: Arc::clone(&table.work),
        proofs: Arc::clone(&table.proofs),
        physical,
        range,
        wanted,
        schema: Arc::new(Schema::new(fields)),
    };
    let scan = LogicalPlanBuilder::scan(table_name.clone(), provider_as_source(Arc::new(provider)), None)?;
    let named = node.schema.iter().enumerate().map(|(i, (qualifier, field))| {
        let column = Expr::Column(Column::new(Some(table_name.clone()), format!("a{i}")));
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    scan.project(named.collect::<Vec<_>>())?.build().map(Some)
}

/// One aggregate, as it is asked for and as DataFusion computes it.
#[derive(Clone, Debug)]
enum Wanted {
    Count(Aggregate),
    /// A sum, NULL over no values.
    Sum(Aggregate),
    /// A sum over a count of values.
    Mean(Aggregate, Aggregate),
    /// The least or the greatest value.
    End(Aggregate),
}

impl Wanted {
    fn aggregates(&self) -> Vec<Aggregate> {
        match self {
            Self::Count(a) | Self::Sum(a) | Self::End(a) => vec![a.clone()],
            Self::Mean(sum, count) => vec![sum.clone(), count.clone()],
        }
    }
}

fn wanted_of(def: &TableDef, schema: &TableSchema, range: &KeyRange, expr: &Expr, ty: &DataType) -> Option<Wanted> {
    let expr = match expr {
        Expr::Alias(alias) => &*alias.expr,
        other => other,
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return None };
    let AggregateFunctionParams { args, distinct: false, filter: None, order_by, null_treatment: None } = params else {
        return None;
    };
    if !order_by.is_empty() || args.len() != 1 {
        return None;
    }
    // AVG of integers is computed on doubles.
    let (arg, cast) = match &args[0] {
        Expr::Cast(Cast { expr, field }) => (&**expr, Some(field.data_type())),
        other => (other, None),
    };
    let column = |expr: &Expr| match expr {
        Expr::Column(c) => def.columns.iter().find(|d| d.name == c.name),
        _ => None,
    };
    if func.name() == "count" {
        return match (arg, cast) {
            (Expr::Literal(value, _), None) if !value.is_null() => Some(Wanted::Count(Aggregate::Count)),
            (expr, None) => {
                let column = column(expr)?;
                if !column.nullable {
                    return Some(Wanted::Count(Aggregate::Count));
                }
                schema.not_null_lane(&SumExpr::Column(column.physical.clone())).ok()?;
                Some(Wanted::Count(Aggregate::CountColumn(column.physical.clone())))
            }
            _ => None,
        };
    }
    let column = column(arg)?;
    let sum = SumExpr::Column(column.physical.clone());
    let summed = schema.expr_lane(&sum).is_ok() && schema.not_null_lane(&sum).is_ok();
    let own = column.data_type();
    let integer = own.is_integer();
    match (func.name(), &own, ty, cast) {
        ("sum", DataType::Int64, DataType::Decimal128(_, 0), Some(DataType::Decimal128(_, 0))) if summed => {
            Some(Wanted::Sum(Aggregate::Sum(sum)))
        }
        // Narrower integers are widened before they are added.
        ("sum", _, DataType::Int64, None | Some(DataType::Int64)) if summed && integer => {
            Some(Wanted::Sum(Aggregate::Sum(sum)))
        }
        ("sum", DataType::Decimal128(_, s), DataType::Decimal128(_, t), None) if summed && s == t => {
            Some(Wanted::Sum(Aggregate::Sum(sum)))
        }
        ("avg", _, DataType::Float64, Some(DataType::Float64)) if summed && integer => {
            Some(Wanted::Mean(Aggregate::Sum(sum), Aggregate::CountColumn(column.physical.clone())))
        }
        ("avg", _, DataType::Decimal128(..), Some(DataType::Decimal128(..))) if summed && integer => {
            Some(Wanted::Mean(Aggregate::Sum(sum), Aggregate::CountColumn(column.physical.clone())))
        }
        ("avg", DataType::Decimal128(_, s), DataType::Decimal128(_, t), None | Some(DataType::Decimal128(..)))
            if summed && t >= s && cast.is_none_or(|c| matches!(c, DataType::Decimal128(_, wider) if wider >= s)) =>
        {
            Some(Wanted::Mean(Aggregate::Sum(sum), Aggregate::CountColumn(column.physical.clone())))
        }
        // The least value of a key column, where those before it are held equal, stands in the first row, the greatest in the last.
        ("min" | "max", own, ty, None)
            if own == ty && schema.key().iter().take(range.held() + 1).any(|k| *k == column.physical) =>
        {
            let name = column.physical.clone();
            let end = if func.name() == "min" { Aggregate::Min(name) } else { Aggregate::Max(name) };
            (!own.is_floating()).then_some(Wanted::End(end))
        }
        _ => None,
    }
}

/// The one row of a proven aggregate.
struct ProvenAggregate {
    def: Arc<TableDef>,
    store: Arc<dyn Store>,
    work: Arc<Work>,
    proofs: Arc<Proofs>,
    physical: String,
    range: KeyRange,
    wanted: Vec<Wanted>,
    schema: SchemaRef,
}

impl fmt::Debug for ProvenAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenAggregate({:?})", self.physical)
    }
}

#[async_trait]
impl TableProvider for ProvenAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.wanted.len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Arc::new(ProvenExec {
            key: self
                .def
                .indexes
                .iter()
                .find(|i| i.physical == self.physical)
                .map_or(&self.def.key, |i| &i.columns)
                .clone(),
            store: Arc::clone(&self.store),
            work: Arc::clone(&self.work),
            proofs: Arc::clone(&self.proofs),
            physical: self.physical.clone(),
            range: self.range.clone(),
            wanted: columns.iter().map(|c| self.wanted[*c].clone()).collect(),
            schema,
            properties: Arc::new(properties),
        }))
    }
}

#[derive(Clone)]
struct ProvenExec {
    key: Vec<String>,
    store: Arc<dyn Store>,
    work: Arc<Work>,
    proofs: Arc<Proofs>,
    physical: String,
    range: KeyRange,
    wanted: Vec<Wanted>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl ProvenExec {
    async fn row(self) -> Result<RecordBatch> {
        let asked: Vec<Aggregate> = self.wanted.iter().flat_map(Wanted::aggregates).collect();
        // A COUNT without anything else is asked all the same where nothing is: the row stands for itself.
        let (values, evidence) = self.store.aggregates(&self.physical, &self.range, &asked).await?;
        self.work.saw(&self.physical, &self.range, &evidence, true)?;
        for aggregate in &asked {
            self.proofs.prove(self.store.as_ref(), &self.physical, &self.range, aggregate).await?;
        }
        let mut values = values.into_iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.wanted.len());
        for (wanted, field) in self.wanted.iter().zip(self.schema.fields()) {
            let ty = field.data_type();
            let mut next = || values.next().ok_or_else(|| internal("fewer values than aggregates"));
            let value = match wanted {
                Wanted::Mean(..) => mean(&next()?, &next()?, ty)?,
                _ => scalar(&next()?, ty)?,
            };
            columns.push(value.to_array()?);
        }
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

fn internal(why: &str) -> SqlError {
    SqlError::new(SqlState::InternalError, why)
}

fn out_of_range(ty: &DataType) -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, format!("the result is out of range for {ty}"))
}

/// A value as one of the type that the plan says.
fn scalar(value: &AggregateValue, ty: &DataType) -> Result<ScalarValue> {
    Ok(match (value, ty) {
        (AggregateValue::Null, ty) => ScalarValue::try_from(ty)?,
        (AggregateValue::Count(n), DataType::Int64) => {
            ScalarValue::Int64(Some(i64::try_from(*n).map_err(|_| out_of_range(ty))?))
        }
        (AggregateValue::Sum { unscaled, scale: 0 }, DataType::Int64) => {
            ScalarValue::Int64(Some(i64::try_from(*unscaled).map_err(|_| out_of_range(ty))?))
        }
        (AggregateValue::Sum { unscaled, scale }, DataType::Decimal128(p, s)) if *scale == *s as u32 => {
            decimal(*unscaled, *p, *s, ty)?
        }
        (AggregateValue::Value(Value::Int64(v)), DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            ScalarValue::Int64(Some(*v)).cast_to(ty)?
        }
        (AggregateValue::Value(Value::Text(t)), DataType::Utf8) => ScalarValue::Utf8(Some(t.clone())),
        (AggregateValue::Value(Value::Bool(b)), DataType::Boolean) => ScalarValue::Boolean(Some(*b)),
        (AggregateValue::Value(Value::Date(d)), DataType::Date32) => ScalarValue::Date32(Some(*d)),
        (AggregateValue::Value(Value::Bytes(b)), DataType::Binary) => ScalarValue::Binary(Some(b.clone())),
        (AggregateValue::Value(Value::Timestamp(us)), DataType::Timestamp(_, zone)) => {
            ScalarValue::TimestampMicrosecond(Some(*us), zone.clone())
        }
        (AggregateValue::Value(Value::Decimal { unscaled, .. }), DataType::Decimal128(p, s)) => {
            decimal(*unscaled, *p, *s, ty)?
        }
        _ => return Err(internal("an aggregate of another type than planned").into()),
    })
}

fn decimal(unscaled: i128, precision: u8, scale: i8, ty: &DataType) -> Result<ScalarValue> {
    if unscaled.unsigned_abs() >= 10u128.pow(u32::from(precision)) {
        return Err(out_of_range(ty).into());
    }
    Ok(ScalarValue::Decimal128(Some(unscaled), precision, scale))
}

/// A mean as DataFusion computes it: doubles divided, or decimals with more digits, cut off.
fn mean(sum: &AggregateValue, count: &AggregateValue, ty: &DataType) -> Result<ScalarValue> {
    let (AggregateValue::Sum { unscaled, scale }, AggregateValue::Count(n)) = (sum, count) else {
        return ScalarValue::try_from(ty);
    };
    match ty {
        DataType::Float64 => Ok(ScalarValue::Float64(Some(*unscaled as f64 / *n as f64))),
        DataType::Decimal128(p, s) => {
            let more = 10i128.pow(u32::try_from(*s).unwrap_or(0).saturating_sub(*scale));
            let value = unscaled.checked_mul(more).ok_or_else(|| out_of_range(ty))? / i128::from(*n);
            decimal(value, *p, *s, ty)
        }
        _ => Err(internal("a mean of another type than planned").into()),
    }
}

impl fmt::Debug for ProvenExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenAggregate({:?})", self.physical)
    }
}

impl DisplayAs for ProvenExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |w: &Wanted| match w {
            Wanted::Count(Aggregate::CountColumn(c)) => format!("count({c})"),
            Wanted::Count(_) => "count(*)".to_owned(),
            Wanted::Sum(Aggregate::Sum(e)) => format!("sum({e})"),
            Wanted::Mean(Aggregate::Sum(e), _) => format!("avg({e})"),
            Wanted::End(Aggregate::Min(c)) => format!("min({c})"),
            Wanted::End(Aggregate::Max(c)) => format!("max({c})"),
            _ => "aggregate".to_owned(),
        };
        let wanted: Vec<String> = self.wanted.iter().map(words).collect();
        let range = range_text(&self.key, &self.range);
        write!(f, "ProvenAggregate: {}, [{}], range={range}", self.physical, wanted.join(", "))
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
        let row = futures::stream::once(self.clone().row());
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), row)))
    }
}
