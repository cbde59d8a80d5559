//! ON CONFLICT: which rows are there already, and what becomes of both.

use super::{Cx, arrow, assigned, default_of, is_default, relaxed, typed_any};
use crate::error::{SqlError, SqlState};
use crate::sql::catalog::{ColumnDef, TableDef};
use crate::sql::context::Current;
use crate::sql::unique::{self, Rule};
use crate::sql::{fold, relation};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, TableReference};
use datafusion::sql::sqlparser::ast::{self, ConflictTarget, OnConflictAction};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Cx<'_> {
    /// What an ON CONFLICT makes of the rows: those to write, and those that they replace.
    pub(super) async fn settle(
        &self,
        def: &TableDef,
        alias: &str,
        rows: RecordBatch,
        conflict: &ast::OnConflict,
    ) -> Result<(RecordBatch, Option<RecordBatch>), SqlError> {
        let rules = self.arbiters(def, conflict.conflict_target.as_ref(), &conflict.action)?;
        let Current { work, .. } = self.current();
        let mut taken: Vec<Option<RecordBatch>> = vec![None; rows.num_rows()];
        let mut keep = vec![true; rows.num_rows()];
        for rule in &rules {
            let there = unique::find(def, rule, &*self.shared.store, &work, &rows).await?;
            let mut seen = HashSet::new();
            for (row, key) in unique::keys_of(def, rule, &rows).into_iter().enumerate() {
                let Some(key) = key else { continue };
                if let Some(old) = there.get(&key) {
                    taken[row].get_or_insert_with(|| old.clone());
                } else if keep[row] && !seen.insert(key.clone()) {
                    keep[row] = false;
                }
                if matches!(conflict.action, OnConflictAction::DoUpdate(_))
                    && there.contains_key(&key)
                    && !seen.insert(key)
                {
                    keep[row] = false;
                }
            }
        }
        if matches!(conflict.action, OnConflictAction::DoUpdate(_)) && keep.contains(&false) {
            let why = "ON CONFLICT DO UPDATE command cannot affect row a second time";
            return Err(SqlError::new(SqlState::CardinalityViolation, why));
        }
        let fresh: BooleanArray = (0..keep.len()).map(|i| Some(keep[i] && taken[i].is_none())).collect();
        let fresh_rows = filter_record_batch(&rows, &fresh).map_err(arrow)?;
        let OnConflictAction::DoUpdate(update) = &conflict.action else { return Ok((fresh_rows, None)) };
        let hit: Vec<u32> = (0..keep.len()).filter(|i| taken[*i].is_some()).map(|i| i as u32).collect();
        if hit.is_empty() {
            return Ok((fresh_rows, None));
        }
        let old: Vec<RecordBatch> = taken.into_iter().flatten().collect();
        let old = concat_batches(&old[0].schema(), &old).map_err(arrow)?;
        let excluded = take_record_batch(&rows, &UInt32Array::from(hit)).map_err(arrow)?;
        let (old, new) = self.updated(def, alias, old, &excluded, update).await?;
        let plus = concat_batches(&fresh_rows.schema(), [&fresh_rows, &new]).map_err(arrow)?;
        Ok((plus, Some(old)))
    }

    /// The rules that an ON CONFLICT names.
    pub(super) fn arbiters(
        &self,
        def: &TableDef,
        target: Option<&ConflictTarget>,
        action: &OnConflictAction,
    ) -> Result<Vec<Rule>, SqlError> {
        let all = unique::rules(def);
        let none = || {
            SqlError::new(
                SqlState::InvalidTableDefinition,
                "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            )
        };
        match target {
            None if matches!(action, OnConflictAction::DoNothing) => Ok(all),
            None => Err(SqlError::new(
                SqlState::SyntaxError,
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )),
            Some(ConflictTarget::Columns(names)) => {
                let mut columns = Vec::new();
                for name in names {
                    columns.push(def.column(&fold(name))?.physical.clone());
                }
                columns.sort();
                let same = |r: &Rule| {
                    let mut own = r.columns.clone();
                    own.sort();
                    own == columns
                };
                all.into_iter().find(same).map(|r| vec![r]).ok_or_else(none)
            }
            Some(ConflictTarget::OnConstraint(name)) => {
                let name = relation(name)?;
                all.into_iter().find(|r| r.name == name).map(|r| vec![r]).ok_or_else(none)
            }
        }
    }

    /// Rows after DO UPDATE, with what they were: `old` and `excluded` side by side, row by row.
    pub(super) async fn updated(
        &self,
        def: &TableDef,
        alias: &str,
        old: RecordBatch,
        excluded: &RecordBatch,
        update: &ast::DoUpdate,
    ) -> Result<(RecordBatch, RecordBatch), SqlError> {
        let named = def.arrow(true);
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = Vec::new();
        for qualifier in [alias, "excluded"] {
            fields.extend(named.fields().iter().map(|f| {
                let field = Arc::new(f.as_ref().clone().with_nullable(true));
                (Some(TableReference::bare(qualifier)), field)
            }));
        }
        let schema = DFSchema::new_with_metadata(fields, HashMap::new())?;
        let (was, excluded) = (def.shown(&old)?, def.shown(excluded)?);
        let columns: Vec<ArrayRef> = was.columns().iter().chain(excluded.columns()).cloned().collect();
        // Two columns of one name are told apart by their qualifiers only, which Arrow has not.
        let fields: Vec<Field> =
            columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
        let both = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow)?;
        let evaluate = |expr: &ast::Expr, of: Option<&ColumnDef>| self.evaluate(expr, &schema, &both, of);
        let mut new = old.columns().to_vec();
        for assignment in &update.assignments {
            let column = assigned(def, &assignment.target)?;
            let value = if is_default(&assignment.value) {
                default_of(column)?.unwrap_or_else(|| ast::Expr::Value(ast::Value::Null.into()))
            } else {
                assignment.value.clone()
            };
            let place = def.place(&column.physical).expect("a column of the table");
            new[place] = evaluate(&value, Some(column))?;
        }
        let new = relaxed(&old.schema(), new)?;
        let Some(selection) = &update.selection else { return Ok((old, new)) };
        let picked = evaluate(selection, None)?;
        let picked = picked
            .as_boolean_opt()
            .cloned()
            .ok_or_else(|| SqlError::new(SqlState::DatatypeMismatch, "argument of WHERE must be type boolean"))?;
        let keep = |b: &RecordBatch| filter_record_batch(b, &picked).map_err(arrow);
        Ok((keep(&old)?, keep(&new)?))
    }

    /// An expression over a batch whose columns `schema` names.
    pub(super) fn evaluate(
        &self,
        expr: &ast::Expr,
        schema: &DFSchema,
        batch: &RecordBatch,
        column: Option<&ColumnDef>,
    ) -> Result<ArrayRef, SqlError> {
        let state = self.context.state();
        let mut logical = state.create_logical_expr(&expr.to_string(), schema)?;
        if let Some(column) = column {
            logical = typed_any(logical, column);
        }
        let physical = state.create_physical_expr(logical, schema)?;
        Ok(physical.evaluate(batch)?.into_array(batch.num_rows())?)
    }
}
