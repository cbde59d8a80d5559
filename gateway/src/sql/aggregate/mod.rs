//! Aggregates that nodes answer with two openings a segment: COUNT, SUM, AVG, VAR, STDDEV, COVAR, CORR and REGR of declared sums, and MIN and
//! MAX of a key column, which are one row; with GROUP BY on leading columns of a sort key too, a proven request for each group.
//!
//! ```text
//! Aggregate(TableScan)  ->  Projection(TableScan(Proven))
//! ```
//! Fires   only where every filter is said exactly by the key range of a copy, no row of the table was changed by the transaction, and every
//!         aggregate can be had from sums declared on that copy, as the value that DataFusion would compute; else nothing changes.
//! Source  DESIGN section 10

mod exec;
mod groups;
mod wanted;

use super::catalog::TableDef;
use super::table::{Candidate, FluenceTable};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Aggregate as AggregateNode, Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use exec::{Proven, ProvenTable};
use std::collections::HashMap;
use std::sync::Arc;
use wanted::{Wanted, wanted_of};

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
            LogicalPlan::Aggregate(node) => match proven(node)? {
                Some(plan) => Ok(Transformed::yes(plan)),
                None => Ok(Transformed::no(plan)),
            },
            _ => Ok(Transformed::no(plan)),
        }
    }
}

/// What the columns of a plan are, by name, in words of the one table below it; `None` where they are the table's own.
type Names = Option<HashMap<String, Expr>>;

/// The scan under aliases and projections, and what their columns are.
fn scan_below(plan: &LogicalPlan) -> Option<(&TableScan, Names)> {
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none().then_some((scan, None)),
        LogicalPlan::SubqueryAlias(alias) => scan_below(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (scan, below) = scan_below(&projection.input)?;
            let mut names = HashMap::new();
            for (expr, (_, field)) in projection.expr.iter().zip(projection.schema.iter()) {
                // Two columns of one name: it is not said which is meant.
                if names.insert(field.name().clone(), in_words_of(&below, expr)?).is_some() {
                    return None;
                }
            }
            Some((scan, Some(names)))
        }
        _ => None,
    }
}

/// An expression in words of the table below.
fn in_words_of(names: &Names, expr: &Expr) -> Option<Expr> {
    // What stands for a part that several share is an alias wherever it stands.
    let expr = expr.clone().unalias_nested().data;
    let Some(names) = names else { return Some(expr) };
    let mut all = true;
    let replaced = expr.transform(|e| {
        Ok(match &e {
            Expr::Column(c) => match names.get(&c.name) {
                Some(meant) => {
                    Transformed::new(meant.clone(), true, datafusion::common::tree_node::TreeNodeRecursion::Jump)
                }
                None => {
                    all = false;
                    Transformed::no(e)
                }
            },
            _ => Transformed::no(e),
        })
    });
    replaced.ok().map(|t| t.data).filter(|_| all)
}

fn proven(node: &AggregateNode) -> Result<Option<LogicalPlan>> {
    let Some((scan, names)) = scan_below(&node.input) else { return Ok(None) };
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let Some(table) = provider.as_ref().downcast_ref::<FluenceTable>() else { return Ok(None) };
    let Some(groups) = node.group_expr.iter().map(|e| group_of(&table.def, &names, e)).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    let exprs: Option<Vec<Expr>> = node.aggr_expr.iter().map(|e| in_words_of(&names, e)).collect();
    let Some(exprs) = exprs else { return Ok(None) };
    let types = node.schema.fields().iter().skip(groups.len());
    for Candidate { physical, range, prefix } in table.candidates(&scan.filters, &groups) {
        let Some(schema) = table.physical.physical.get(&physical) else { continue };
        let wanted =
            exprs.iter().zip(types.clone()).map(|(e, f)| wanted_of(&table.def, schema, &range, e, f.data_type()));
        let Some(wanted) = wanted.collect::<Option<Vec<Wanted>>>() else { continue };
        // The ends of a group would be read from its rows.
        if !groups.is_empty() && wanted.iter().any(Wanted::reads_rows) {
            continue;
        }
        // The planner takes two scans of one name for one: the name says what is asked.
        let name = format!("{physical} {groups:?} {prefix:?} {range:?} {wanted:?}");
        let fields = node.schema.fields().iter().enumerate();
        let fields = fields.map(|(i, f)| Field::new(format!("a{i}"), f.data_type().clone(), f.is_nullable()));
        let proven = Proven {
            def: Arc::clone(&table.def),
            store: Arc::clone(&table.store),
            work: Arc::clone(&table.work),
            proofs: Arc::clone(&table.proofs),
            physical,
            range,
            wanted,
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        };
        let provider: Arc<dyn datafusion::datasource::TableProvider> = if groups.is_empty() {
            Arc::new(ProvenTable(proven))
        } else {
            let rows = with_source(node, table)?;
            Arc::new(groups::GroupsTable { proven, groups: groups.clone(), prefix, rows })
        };
        let table_name = TableReference::bare(name);
        let scan = LogicalPlanBuilder::scan(table_name.clone(), provider_as_source(provider), None)?;
        let named = node.schema.iter().enumerate().map(|(i, (qualifier, field))| {
            let column = Expr::Column(Column::new(Some(table_name.clone()), format!("a{i}")));
            column.alias_qualified(qualifier.cloned(), field.name())
        });
        return scan.project(named.collect::<Vec<_>>())?.build().map(Some);
    }
    Ok(None)
}

/// The place of the column that is grouped by.
fn group_of(def: &TableDef, names: &Names, expr: &Expr) -> Option<usize> {
    match in_words_of(names, expr)? {
        Expr::Column(c) => def.columns.iter().position(|d| d.name == c.name),
        _ => None,
    }
}

/// The aggregate over rows, as it is computed where there turn out to be too many groups.
fn with_source(node: &AggregateNode, table: &FluenceTable) -> Result<LogicalPlan> {
    let source = provider_as_source(Arc::new(table.ungrouped()));
    let replaced = LogicalPlan::Aggregate(node.clone()).transform_down(|plan| {
        Ok(match plan {
            LogicalPlan::TableScan(mut scan) => {
                scan.source = Arc::clone(&source);
                Transformed::yes(LogicalPlan::TableScan(scan))
            }
            other => Transformed::no(other),
        })
    });
    Ok(replaced?.data)
}
