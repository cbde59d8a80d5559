//! Subqueries of the catalogue that the planner cannot join: they are run for the rows around them, by nested loops.
//!
//! ```text
//! SELECT (SELECT t.typname FROM pg_type t WHERE t.oid = a.atttypid) FROM pg_attribute a
//! SELECT fluence_subquery(a.atttypid) FROM pg_attribute a          planned once with a place for what stands around, run for each value of it
//! ```
//! Which   those that read PostgreSQL's own tables and views of the standard, and nothing else: scalar ones that mention a column of a query
//!         around them, however far out; EXISTS and IN where the planner does not make a join of them. One that reads a table of the owner's
//!         is never touched: the planner takes it or refuses it.
//! Rows    a scalar subquery of two rows is an error, as in PostgreSQL; so are all others that a row's subquery meets.
//! Cost    a run for each distinct set of values. The catalogue's tables have some thousand rows, of which tools ask for few.

use crate::error::{SqlError, SqlState};
use crate::sql::arithmetic::settled;
use crate::sql::context::Shared;
use crate::sql::table::FluenceTable;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result};
use datafusion::datasource::source_as_provider;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::{Exists, InSubquery, Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{merge_schema, split_conjunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility,
};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::scalar::ScalarValue;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// The stack of a thread that runs them: the planner recurses as deep as a plan.
const STACK_BYTES: usize = 16 << 20;
/// What the places for values from around a subquery are called.
const PLACE: &str = "$fluence_";

/// The plan with calls in the places of such subqueries.
///
/// # Errors
/// What the planner says of the new plan.
pub(in crate::sql) fn looped(plan: LogicalPlan, shared: &Arc<Shared>) -> Result<LogicalPlan> {
    // Where values are missing it is planned for their types only, which the calls would hide.
    if holds(&plan, &|e| matches!(e, Expr::Placeholder(_)))? || !holds(&plan, &is_subquery)? {
        return Ok(plan);
    }
    // From the innermost on: a call of an inner one is part of the outer one, with what it mentions.
    let plan = plan.transform_up_with_subqueries(|node| {
        let schema = Arc::new(merge_schema(&node.inputs()));
        let plain = match &node {
            LogicalPlan::Filter(filter) => Some(split_conjunction(&filter.predicate).iter().all(|c| is_alone(c))),
            _ => None,
        };
        let names = NamePreserver::new(&node);
        let changed = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_down(|e| replaced(e, &schema, plain, shared))?;
            Ok(changed.update_data(|e| name.restore(e)))
        })?;
        changed.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(plan.data)
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))
}

/// Whether a conjunct is a subquery itself or holds no IN (SELECT ..): below OR and NOT the planner does not know NULL.
fn is_alone(conjunct: &Expr) -> bool {
    let inner = match conjunct {
        Expr::Not(inner) => inner,
        other => other,
    };
    is_subquery(inner) || !conjunct.exists(|e| Ok(matches!(e, Expr::InSubquery(_)))).unwrap_or(true)
}

/// Whether some expression of a plan is so, in its subqueries too.
fn holds(plan: &LogicalPlan, is: &dyn Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(is(e)))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// The call in the place of a subquery. `plain`: in a filter, whether no IN (SELECT ..) stands below OR or NOT there.
fn replaced(expr: Expr, schema: &DFSchema, plain: Option<bool>, shared: &Arc<Shared>) -> Result<Transformed<Expr>> {
    let negated = |call: Expr, negated: bool| if negated { Expr::Not(Box::new(call)) } else { call };
    Ok(Transformed::yes(match expr {
        Expr::ScalarSubquery(sub) if of_catalogue(&sub.subquery)? && !mentioned(&sub.subquery)?.is_empty() => {
            call(Asks::Value, Arc::unwrap_or_clone(sub.subquery), schema, shared)?
        }
        Expr::Exists(Exists { subquery, negated: not })
            if of_catalogue(&subquery.subquery)? && (plain.is_none() || !joins(&subquery, schema)?) =>
        {
            let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery)).limit(0, Some(1))?.build()?;
            negated(call(Asks::Any, plan, schema, shared)?, not)
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated: not })
            if of_catalogue(&subquery.subquery)?
                && (plain != Some(true) || !mentioned(&subquery.subquery)?.is_empty()) =>
        {
            // What is compared is one more value from around the subquery.
            let mut around = vec![*expr];
            let field = around[0].to_field(schema)?.1;
            let place = place(0, &field);
            let plan = Arc::unwrap_or_clone(subquery.subquery);
            let column = Expr::Column(Column::from(plan.schema().qualified_field(0)));
            let plan = LogicalPlanBuilder::from(plan).project([place.eq(column)])?.build()?;
            negated(call_with(Asks::Equal, plan, &mut around, schema, shared)?, not)
        }
        other => return Ok(Transformed::no(other)),
    }))
}

/// Whether a plan reads the catalogue, and nothing but it.
fn of_catalogue(plan: &LogicalPlan) -> Result<bool> {
    let (mut only, mut some, mut recursive) = (true, false, BTreeSet::new());
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::RecursiveQuery(query) => {
                recursive.insert(query.name.clone());
            }
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                let provider = provider.as_ref();
                let foreign = provider.downcast_ref::<FluenceTable>().is_some()
                    || provider.downcast_ref::<CteWorkTable>().is_some()
                        && !recursive.contains(scan.table_name.table());
                only &= !foreign;
                some |= matches!(scan.table_name.schema(), Some("pg_catalog" | "information_schema"));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(only && some)
}

/// Whether the planner makes a join of a subquery in a filter: all that it mentions is of the query next to it, and in filters of its own.
fn joins(subquery: &Subquery, schema: &DFSchema) -> Result<bool> {
    fn in_filters(plan: &LogicalPlan) -> Result<bool> {
        let is_outer = |e: &Expr| matches!(e, Expr::OuterReferenceColumn(..));
        let inputs = |plan: &LogicalPlan| -> Result<bool> {
            plan.inputs().into_iter().try_fold(true, |all, input| Ok(all && in_filters(input)?))
        };
        let mut own = false;
        plan.apply_expressions(|e| {
            own |= e.exists(|e| Ok(is_outer(e)))? || e.exists(|e| Ok(is_subquery(e)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        match plan {
            LogicalPlan::Filter(filter) => Ok(!filter.predicate.exists(|e| Ok(is_subquery(e)))? && inputs(plan)?),
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => Ok(!own && inputs(plan)?),
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => Ok(!own && inputs(plan)?),
            other => Ok(!holds(other, &is_outer)?),
        }
    }
    let near = mentioned(&subquery.subquery)?.iter().all(|(_, column)| schema.has_column(column));
    Ok(near && in_filters(&subquery.subquery)?)
}

/// What a plan mentions of the queries around it, each once.
fn mentioned(plan: &LogicalPlan) -> Result<Vec<(FieldRef, Column)>> {
    let mut all: Vec<(FieldRef, Column)> = Vec::new();
    mentions(plan.clone(), &[], None, &mut |field, column| {
        if !all.iter().any(|(_, known)| *known == column) {
            all.push((Arc::clone(&field), column.clone()));
        }
        Expr::OuterReferenceColumn(field, column)
    })?;
    Ok(all)
}

/// Has `f` say what stands for each mention of a column of the queries around a plan. `within`: those between the two, in which a name that
/// is known is theirs. `beside`: what a lateral subquery joins.
fn mentions(
    plan: LogicalPlan,
    within: &[Arc<DFSchema>],
    beside: Option<&Arc<DFSchema>>,
    f: &mut dyn FnMut(FieldRef, Column) -> Expr,
) -> Result<LogicalPlan> {
    let with = |schema: &Arc<DFSchema>| [within, &[Arc::clone(schema)]].concat();
    let lateral = match (&plan, beside) {
        (LogicalPlan::Subquery(_), Some(beside)) => Some(with(beside)),
        _ => None,
    };
    let schema = Arc::new(merge_schema(&plan.inputs()));
    let left = match &plan {
        LogicalPlan::Join(join) => Some(Arc::clone(join.left.schema())),
        _ => None,
    };
    let plan = plan.map_children(|child| {
        let within = lateral.as_deref().unwrap_or(within);
        Ok(Transformed::yes(mentions(child, within, left.as_ref().or(beside), f)?))
    })?;
    let inner = with(&schema);
    let names = NamePreserver::new(&plan.data);
    let plan = plan.data.map_expressions(|expr| {
        let name = names.save(&expr);
        let changed = expr.transform_down(|e| {
            Ok(Transformed::yes(match e {
                Expr::OuterReferenceColumn(field, column) if !within.iter().any(|s| s.has_column(&column)) => {
                    f(field, column)
                }
                Expr::ScalarSubquery(sub) => Expr::ScalarSubquery(below(sub, &inner, f)?),
                Expr::Exists(Exists { subquery, negated }) => {
                    Expr::Exists(Exists { subquery: below(subquery, &inner, f)?, negated })
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    Expr::InSubquery(InSubquery { expr, subquery: below(subquery, &inner, f)?, negated })
                }
                other => return Ok(Transformed::no(other)),
            }))
        })?;
        Ok(changed.update_data(|e| name.restore(e)))
    })?;
    plan.data.recompute_schema()
}

/// The same of a subquery within `within`.
fn below(sub: Subquery, within: &[Arc<DFSchema>], f: &mut dyn FnMut(FieldRef, Column) -> Expr) -> Result<Subquery> {
    let plan = mentions(Arc::unwrap_or_clone(sub.subquery), within, None, f)?;
    Ok(Subquery { outer_ref_columns: plan.all_out_ref_exprs(), subquery: Arc::new(plan), spans: sub.spans })
}

/// A place for a value from around a subquery.
fn place(number: usize, field: &Field) -> Expr {
    let field = field.clone().with_name("").with_nullable(true);
    Expr::Placeholder(Placeholder::new_with_field(format!("{PLACE}{number}"), Some(Arc::new(field))))
}

fn call(asks: Asks, plan: LogicalPlan, schema: &DFSchema, shared: &Arc<Shared>) -> Result<Expr> {
    call_with(asks, plan, &mut Vec::new(), schema, shared)
}

/// The call that runs a plan. `around`: the values for its first places.
fn call_with(
    asks: Asks,
    plan: LogicalPlan,
    around: &mut Vec<Expr>,
    schema: &DFSchema,
    shared: &Arc<Shared>,
) -> Result<Expr> {
    let mut known: Vec<Column> = Vec::new();
    let given = around.len();
    let plan = mentions(plan, &[], None, &mut |field, column| {
        let at = known.iter().position(|k| *k == column).unwrap_or_else(|| {
            around.push(match schema.has_column(&column) {
                true => Expr::Column(column.clone()),
                // Of a query farther out.
                false => Expr::OuterReferenceColumn(Arc::clone(&field), column.clone()),
            });
            known.push(column);
            known.len() - 1
        });
        place(given + at, &field)
    })?;
    let field = match asks {
        Asks::Value => plan.schema().field(0).as_ref().clone(),
        Asks::Any | Asks::Equal => Field::new("", DataType::Boolean, true),
    };
    let signature = match around.len() {
        0 => Signature::nullary(Volatility::Stable),
        count => Signature::any(count, Volatility::Stable),
    };
    let of = Looped { asks, plan, field, signature, shared: Arc::clone(shared), ready: Mutex::default() };
    let function = Arc::new(ScalarUDF::new_from_impl(of));
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, std::mem::take(around))))
}

/// What is asked of a subquery's rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asks {
    /// The one value of the one row; NULL without a row.
    Value,
    /// Whether there is one.
    Any,
    /// Whether one is true; not known where none is and one is NULL.
    Equal,
}

/// A subquery as a function of what it mentions.
struct Looped {
    asks: Asks,
    plan: LogicalPlan,
    field: Field,
    signature: Signature,
    shared: Arc<Shared>,
    ready: Mutex<Option<Ready>>,
}

/// A plan that can be run.
struct Ready {
    state: SessionState,
    plan: Arc<dyn ExecutionPlan>,
    values: Arc<Values>,
}

/// The values that stand around now.
#[derive(Debug, Default)]
struct Values(Mutex<Vec<ScalarValue>>);

impl fmt::Debug for Looped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of a subquery", self.asks)
    }
}
impl PartialEq for Looped {
    fn eq(&self, other: &Self) -> bool {
        self.asks == other.asks && self.plan == other.plan
    }
}
impl Eq for Looped {}
impl Hash for Looped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asks.hash(state);
        self.plan.hash(state);
    }
}

impl ScalarUDFImpl for Looped {
    fn name(&self) -> &str {
        "fluence_subquery"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(self.field.clone().with_name(self.name()).with_nullable(true)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let mut places: HashMap<Vec<ScalarValue>, usize> = HashMap::new();
        let (mut distinct, mut of_row) = (Vec::new(), Vec::with_capacity(rows));
        for row in 0..rows {
            let values = arrays.iter().map(|a| ScalarValue::try_from_array(a, row)).collect::<Result<Vec<_>>>()?;
            of_row.push(*places.entry(values).or_insert_with_key(|values| {
                distinct.push(values.clone());
                distinct.len() - 1
            }));
        }
        if rows == 0 {
            return Ok(ColumnarValue::Array(datafusion::arrow::array::new_empty_array(self.field.data_type())));
        }
        // A function cannot wait; a thread of its own can.
        let answers = std::thread::scope(|scope| {
            let run = || -> Result<Vec<ScalarValue>> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(self.answers(distinct))
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run)?;
            thread.join().map_err(|_| DataFusionError::Internal("a subquery's thread panicked".to_owned()))?
        })?;
        let array: ArrayRef = ScalarValue::iter_to_array(of_row.into_iter().map(|at| answers[at].clone()))?;
        Ok(ColumnarValue::Array(array))
    }
}

impl Looped {
    #[expect(clippy::await_holding_lock, reason = "the thread that waits is there for nothing else")]
    async fn answers(&self, distinct: Vec<Vec<ScalarValue>>) -> Result<Vec<ScalarValue>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_none() {
            *ready = Some(self.ready().await?);
        }
        let Some(Ready { state, plan, values }) = &*ready else { unreachable!("made just above") };
        let mut answers = Vec::with_capacity(distinct.len());
        for around in distinct {
            *values.0.lock().unwrap_or_else(PoisonError::into_inner) = around;
            let rows = collect(reset_plan_states(Arc::clone(plan))?, state.task_ctx()).await?;
            answers.push(self.answer(&rows)?);
        }
        Ok(answers)
    }

    /// Plans the subquery: once for all values.
    async fn ready(&self) -> Result<Ready> {
        let state = self.shared.state()?;
        let mut config = state.config().clone().with_target_partitions(1);
        // Filters that are learnt from one side of a join would outlive the values that they were learnt under.
        config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
        config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
        config.options_mut().optimizer.enable_topk_dynamic_filter_pushdown = false;
        let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        let plan = state.optimize(&settled(self.plan.clone())?)?;
        let values = Arc::new(Values::default());
        // A place may be moved about as a literal may be; what stands there changes only from here on.
        let plan = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let changed = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|e| match e {
                    Expr::Placeholder(Placeholder { id, field: Some(field) }) => {
                        let number = id.strip_prefix(PLACE).and_then(|n| n.parse().ok());
                        let number = number.ok_or_else(|| DataFusionError::Internal(format!("no place {id}")))?;
                        let held = Held { number, field, values: Arc::clone(&values), signature: Held::signature() };
                        let function = Arc::new(ScalarUDF::new_from_impl(held));
                        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, Vec::new()))))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
                Ok(changed.update_data(|e| name.restore(e)))
            })?;
            changed.map_data(LogicalPlan::recompute_schema)
        })?;
        let plan = state.query_planner().create_physical_plan(&plan.data, &state).await?;
        Ok(Ready { state, plan, values })
    }

    fn answer(&self, rows: &[RecordBatch]) -> Result<ScalarValue> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        match self.asks {
            Asks::Any => Ok(ScalarValue::Boolean(Some(count > 0))),
            Asks::Equal => {
                let mut all = rows.iter().flat_map(|batch| batch.column(0).as_boolean().iter());
                let unknown = all.clone().any(|v| v.is_none());
                Ok(ScalarValue::Boolean(if all.any(|v| v == Some(true)) {
                    Some(true)
                } else {
                    (!unknown).then_some(false)
                }))
            }
            Asks::Value if count > 1 => {
                let why = "more than one row returned by a subquery used as an expression";
                Err(SqlError::new(SqlState::CardinalityViolation, why).into())
            }
            Asks::Value => match rows.iter().find(|batch| batch.num_rows() == 1) {
                Some(batch) => ScalarValue::try_from_array(batch.column(0), 0)?.cast_to(self.field.data_type()),
                None => ScalarValue::try_from(self.field.data_type()),
            },
        }
    }
}

/// A value from around a subquery, as it is now.
struct Held {
    number: usize,
    field: FieldRef,
    values: Arc<Values>,
    signature: Signature,
}

impl Held {
    fn signature() -> Signature {
        Signature::nullary(Volatility::Volatile)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PLACE}{}", self.number)
    }
}
impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number && Arc::ptr_eq(&self.values, &other.values)
    }
}
impl Eq for Held {}
impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl ScalarUDFImpl for Held {
    fn name(&self) -> &str {
        "fluence_around"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = self.values.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = values.get(self.number).map(|v| v.cast_to(self.field.data_type()));
        value.unwrap_or_else(|| ScalarValue::try_from(self.field.data_type())).map(ColumnarValue::Scalar)
    }
}
