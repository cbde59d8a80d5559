//! UPDATE, DELETE, TRUNCATE: rows that are there, retracted, and for UPDATE written anew.

use super::{Cx, Written, arrow, assigned, cast_to, default_of, is_default, relaxed, select, typed, whole_columns};
use crate::error::{SqlError, SqlState};
use crate::sql::catalog::{ROW_ID, TableDef};
use crate::sql::context::WHOLE;
use crate::sql::{fold, quote, relation};
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, TableFactor};
use std::collections::HashSet;
use std::sync::Arc;

/// The name in DML's FROM, with its alias.
fn target(factor: &TableFactor) -> Result<(String, Option<String>), SqlError> {
    match factor {
        TableFactor::Table { name, alias, .. } => Ok((relation(name)?, alias.as_ref().map(|a| fold(&a.name)))),
        other => Err(SqlError::new(SqlState::SyntaxError, format!("\"{other}\" is not a table"))),
    }
}

impl Cx<'_> {
    /// Does an UPDATE.
    pub(crate) async fn update(&self, update: &ast::Update) -> Result<Written, SqlError> {
        let (def, alias, plan) = self.plan_update(update).await?;
        let rows = self.collect(plan).await?;
        let width = def.columns.len();
        let physical = self.physical(&def)?.arrow();
        let old = relaxed(&physical, rows.columns()[..width].to_vec())?;
        let old = if update.from.is_some() { rows_once(&def, &old)? } else { Picked::all(old) };
        let mut new = old.rows.columns().to_vec();
        for (i, assignment) in update.assignments.iter().enumerate() {
            let column = assigned(&def, &assignment.target)?;
            let place = def.place(&column.physical).expect("a column of the table");
            new[place] = old.take(rows.column(width + i))?;
        }
        let new = relaxed(&physical, new)?;
        self.apply(&def, Some(&new), Some(&old.rows)).await?;
        let returning = self.returning(&def, &alias, &new, update.returning.as_deref()).await?;
        Ok(Written { rows: new.num_rows() as u64, returning })
    }

    /// The rows of an UPDATE: all columns as they are, then the new values in the order of the assignments.
    pub(crate) async fn plan_update(
        &self,
        update: &ast::Update,
    ) -> Result<(Arc<TableDef>, String, LogicalPlan), SqlError> {
        if !update.table.joins.is_empty() || !update.order_by.is_empty() || update.limit.is_some() {
            return Err(SqlError::unsupported("UPDATE with joins, ORDER BY or LIMIT"));
        }
        let (name, alias) = target(&update.table.relation)?;
        let def = Arc::clone(self.current().catalog.table(&name)?);
        let alias = alias.unwrap_or_else(|| name.clone());
        let mut items = whole_columns(&def, &alias);
        let mut seen = HashSet::new();
        for (i, assignment) in update.assignments.iter().enumerate() {
            let column = assigned(&def, &assignment.target)?;
            if !seen.insert(&column.name) {
                let why = format!("multiple assignments to same column \"{}\"", column.name);
                return Err(SqlError::new(SqlState::SyntaxError, why));
            }
            let value = if is_default(&assignment.value) {
                default_of(column)?.unwrap_or_else(|| ast::Expr::Value(ast::Value::Null.into()))
            } else {
                assignment.value.clone()
            };
            let value = match &value {
                ast::Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_)) => cast_to(value, column)?,
                _ => value,
            };
            items.push(format!("({value}) AS {}", quote(&format!("fluence_new_{i}"))));
        }
        let mut from = format!("{WHOLE}.{} AS {}", quote(&name), quote(&alias));
        if let Some(ast::UpdateTableFromKind::AfterSet(more) | ast::UpdateTableFromKind::BeforeSet(more)) = &update.from
        {
            unambiguous(&def, "UPDATE .. FROM")?;
            for table in more {
                from.push_str(&format!(", {table}"));
            }
        }
        let plan = self.plan_text(&select(&items, &from, update.selection.as_ref())).await?;
        // The new values become the columns' types by the rules of assignment.
        let width = def.columns.len();
        let mut exprs: Vec<Expr> = Vec::new();
        for (i, (qualifier, field)) in plan.schema().iter().enumerate() {
            let value = Expr::Column(Column::from((qualifier, field)));
            exprs.push(match i.checked_sub(width) {
                None => value.alias(format!("c{i}")),
                Some(n) => {
                    let column = assigned(&def, &update.assignments[n].target)?;
                    typed(value, field.data_type(), column).alias(format!("c{i}"))
                }
            });
        }
        Ok((def, alias, LogicalPlanBuilder::from(plan).project(exprs)?.build()?))
    }

    /// Does a DELETE.
    pub(crate) async fn delete(&self, delete: &ast::Delete) -> Result<Written, SqlError> {
        let (def, alias, plan) = self.plan_delete(delete).await?;
        let rows = self.collect(plan).await?;
        let old = relaxed(&self.physical(&def)?.arrow(), rows.columns().to_vec())?;
        let old = if delete.using.is_some() { rows_once(&def, &old)?.rows } else { old };
        self.apply(&def, None, Some(&old)).await?;
        let returning = self.returning(&def, &alias, &old, delete.returning.as_deref()).await?;
        Ok(Written { rows: old.num_rows() as u64, returning })
    }

    /// The rows of a DELETE: all columns as they are.
    pub(crate) async fn plan_delete(
        &self,
        delete: &ast::Delete,
    ) -> Result<(Arc<TableDef>, String, LogicalPlan), SqlError> {
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
        let [table] = from.as_slice() else {
            return Err(SqlError::unsupported("DELETE from several tables"));
        };
        if !table.joins.is_empty() || !delete.order_by.is_empty() || delete.limit.is_some() {
            return Err(SqlError::unsupported("DELETE with joins, ORDER BY or LIMIT"));
        }
        let (name, alias) = target(&table.relation)?;
        let def = Arc::clone(self.current().catalog.table(&name)?);
        let alias = alias.unwrap_or_else(|| name.clone());
        let mut from = format!("{WHOLE}.{} AS {}", quote(&name), quote(&alias));
        if let Some(using) = &delete.using {
            unambiguous(&def, "DELETE .. USING")?;
            for table in using {
                from.push_str(&format!(", {table}"));
            }
        }
        let plan = self.plan_text(&select(&whole_columns(&def, &alias), &from, delete.selection.as_ref())).await?;
        Ok((def, alias, plan))
    }

    /// Does a TRUNCATE of one table. Gives how many rows it had.
    pub(crate) async fn truncate(&self, name: &str) -> Result<u64, SqlError> {
        let def = Arc::clone(self.current().catalog.table(name)?);
        let old = self.all_rows(&def).await?;
        self.apply(&def, None, Some(&old)).await?;
        Ok(old.num_rows() as u64)
    }
}

/// Rows can be told apart only where a key is unique.
fn unambiguous(def: &TableDef, what: &str) -> Result<(), SqlError> {
    if def.primary || def.columns.iter().any(|c| c.physical == ROW_ID) {
        return Ok(());
    }
    let why = format!("{what} on table \"{}\", which has no primary key,", def.name);
    Err(SqlError::unsupported(why).hint("write it with WHERE .. IN (SELECT ..)"))
}

/// Rows that a join picked, each once.
struct Picked {
    rows: RecordBatch,
    /// Their places among all; `None` for all.
    places: Option<UInt32Array>,
}

impl Picked {
    const fn all(rows: RecordBatch) -> Self {
        Self { rows, places: None }
    }
    fn take(&self, column: &ArrayRef) -> Result<ArrayRef, SqlError> {
        match &self.places {
            None => Ok(Arc::clone(column)),
            Some(places) => datafusion::arrow::compute::take(column, places, None).map_err(arrow),
        }
    }
}

/// Each row once, whatever it was joined with: the first of its pairs counts.
fn rows_once(def: &TableDef, rows: &RecordBatch) -> Result<Picked, SqlError> {
    debug_assert_eq!(def.columns.len(), rows.num_columns());
    let keys = fluence_client::key::Keys::of(rows.columns());
    let mut seen = HashSet::new();
    let places: Vec<u32> =
        (0..rows.num_rows()).filter(|r| seen.insert(keys.get(*r).to_vec())).map(|r| r as u32).collect();
    let places = UInt32Array::from(places);
    Ok(Picked { rows: take_record_batch(rows, &places).map_err(arrow)?, places: Some(places) })
}
