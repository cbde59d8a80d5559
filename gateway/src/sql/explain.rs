//! EXPLAIN: what is pushed down and proven; ANALYZE: what it cost; PRIVACY: what each node learns.
//!
//! Source  DESIGN section 3, "Leakage"

use super::write::Cx;
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// The one column of an EXPLAIN.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}

/// The lines of an EXPLAIN.
///
/// # Errors
/// [`SqlError`] for a statement that is not a query, and what planning or running it says.
pub(crate) async fn explain(cx: &Cx<'_>, statement: &ast::Statement) -> Result<RecordBatch, SqlError> {
    let ast::Statement::Explain { analyze, statement, options, .. } = statement else {
        return Err(SqlError::new(SqlState::InternalError, "not an EXPLAIN"));
    };
    let has = |name: &str| options.iter().flatten().any(|o| o.name.value.eq_ignore_ascii_case(name));
    let plan = match &**statement {
        ast::Statement::Query(query) => cx.plan_query(query).await?,
        ast::Statement::Insert(insert) => cx.plan_insert(insert).await?.1,
        ast::Statement::Update(update) => cx.plan_update(update).await?.2,
        ast::Statement::Delete(delete) => cx.plan_delete(delete).await?.2,
        other => return Err(SqlError::unsupported(format!("EXPLAIN {other}"))),
    };
    let public = public_columns(cx, &plan)?;
    let plan = cx.context.state().create_physical_plan(&plan).await?;
    let mut lines: Vec<String> =
        displayable(plan.as_ref()).indent(false).to_string().lines().map(str::to_owned).collect();
    if *analyze || has("analyze") {
        if !matches!(**statement, ast::Statement::Query(_)) {
            return Err(SqlError::unsupported("EXPLAIN ANALYZE of a statement that writes"));
        }
        let start = Instant::now();
        let task = cx.context.task_ctx();
        let mut stream = execute_stream(Arc::clone(&plan), task)?;
        let mut rows = 0;
        while let Some(batch) = stream.try_next().await? {
            rows += batch.num_rows();
        }
        lines.push(format!("{rows} rows in {:.1} ms", start.elapsed().as_secs_f64() * 1e3));
        lines.push(cx.shared.get().work.cost().line());
    }
    if has("privacy") {
        lines.push("What each node that is asked learns:".to_owned());
        let mut scans = Vec::new();
        walk(&plan, &mut scans);
        lines.extend(scans);
        let of_the_rest = if public.is_empty() { "It" } else { "Of all else it" };
        lines.extend(public);
        lines.push(format!(
            "{of_the_rest} does not learn names, types, values, the predicate, or what is computed from the rows."
        ));
    }
    RecordBatch::try_new(schema(), vec![Arc::new(StringArray::from(lines))])
        .map_err(|e| SqlError::new(SqlState::InternalError, e.to_string()))
}

/// What is PUBLIC in the tables of a plan.
fn public_columns(cx: &Cx<'_>, plan: &LogicalPlan) -> Result<BTreeSet<String>, SqlError> {
    let catalog = cx.shared.get().catalog;
    let mut said = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(def) = catalog.tables.get(scan.table_name.table())
        {
            let names: Vec<&str> = def.visible().filter(|c| c.public).map(|c| c.name.as_str()).collect();
            if !names.is_empty() {
                said.insert(format!(
                    "- {}: {} PUBLIC: everyone who reaches a node reads {}, asked for or not",
                    def.name,
                    names.join(", "),
                    if names.len() == 1 { "it" } else { "them" }
                ));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(said)
}

/// What the scans of a plan show.
fn walk(plan: &Arc<dyn ExecutionPlan>, out: &mut Vec<String>) {
    match plan.name() {
        "VerifiedScan" => out.push(format!(
            "- {}: which row groups of which segments are opened, in which columns by number; so, how many rows lie there, and their ranks",
            displayable(plan.as_ref()).one_line().to_string().trim()
        )),
        "ProvenAggregate" => out.push(format!(
            "- {}: the two ends of the range in every segment, to the row, and which sums are opened; no row is",
            displayable(plan.as_ref()).one_line().to_string().trim()
        )),
        _ => {}
    }
    for child in plan.children() {
        walk(child, out);
    }
}
