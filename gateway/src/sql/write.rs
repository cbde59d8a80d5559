//! INSERT, UPDATE, DELETE, TRUNCATE: rows are selected by a query of our own, then retracted and written in the transaction.
//!
//! ```text
//! INSERT  SELECT cast(..) FROM (source)                       -> +1 rows
//! UPDATE  SELECT every column, cast(new values) FROM t WHERE  -> -1 old, +1 new rows
//! DELETE  SELECT every column FROM t WHERE                    -> -1 rows
//! ```
//! Checked  before anything is written: NOT NULL, length, CHECK, then the keys that must be unique, after what the statement retracts.
//! Limits   a statement writes at most [`ROWS_MAX`] rows; COPY is for more.
//! Source   DESIGN section 10; PostgreSQL 15, "SQL Commands"

use super::catalog::{ColumnDef, ROW_ID, TableDef};
use super::context::{Current, Shared, WHOLE};
use super::sequence::Sequences;
use super::unique::{self, Rule};
use super::{fold, parse, quote, relation};
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, OnConflictAction, OnInsert, SelectItem, SetExpr, TableFactor,
};
use fluence_client::ColumnType;
use fluence_client::schema::TableSchema;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most rows that one statement retracts and writes, together: what one sealed segment takes.
pub(crate) const ROWS_MAX: usize = fluence_client::seal::SEGMENT_ROWS_MAX;

/// What a statement works with.
pub(crate) struct Cx<'a> {
    pub(crate) context: &'a SessionContext,
    pub(crate) shared: &'a Shared,
    pub(crate) sequences: &'a Sequences,
    /// Who is connected.
    pub(crate) user: &'a str,
    /// Types that casts give the parameters of what was planned.
    pub(crate) casts: Mutex<Vec<Option<DataType>>>,
}

/// What a statement wrote.
pub(crate) struct Written {
    pub(crate) rows: u64,
    pub(crate) returning: Option<(SchemaRef, Vec<RecordBatch>)>,
}

fn rows_max(rows: usize) -> Result<(), SqlError> {
    if rows <= ROWS_MAX {
        return Ok(());
    }
    let why = format!("a statement writes {rows} rows, at most {ROWS_MAX} are taken");
    Err(SqlError::new(SqlState::ProgramLimitExceeded, why).hint("use COPY, or several statements"))
}

/// The name in DML's FROM, with its alias.
fn target(factor: &TableFactor) -> Result<(String, Option<String>), SqlError> {
    match factor {
        TableFactor::Table { name, alias, .. } => Ok((relation(name)?, alias.as_ref().map(|a| fold(&a.name)))),
        other => Err(SqlError::new(SqlState::SyntaxError, format!("\"{other}\" is not a table"))),
    }
}

impl Cx<'_> {
    fn current(&self) -> Current {
        self.shared.get()
    }

    fn physical(&self, def: &TableDef) -> Result<Arc<TableSchema>, SqlError> {
        self.current().catalog.physical.get(&def.physical).cloned().ok_or_else(|| {
            SqlError::new(SqlState::DataCorrupted, format!("table \"{}\" has no rows' schema", def.name))
        })
    }

    fn note_casts(&self, found: Vec<Option<DataType>>) {
        let mut casts = self.casts.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, ty) in found.into_iter().enumerate() {
            match casts.get_mut(i) {
                Some(known) => *known = ty.or_else(|| known.take()),
                None => casts.push(ty),
            }
        }
    }

    async fn plan(&self, mut statement: ast::Statement) -> Result<LogicalPlan, SqlError> {
        super::rewrite::rewrite(&mut statement, self.user)?;
        self.note_casts(super::params::casts(&mut statement)?);
        let state = self.context.state();
        super::arithmetic::settled(state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await?)
    }

    async fn plan_text(&self, text: &str) -> Result<LogicalPlan, SqlError> {
        let mut parsed = parse(text)?;
        let statement = parsed.pop().ok_or_else(|| SqlError::new(SqlState::InternalError, "an empty query"))?;
        self.plan(statement.0).await
    }

    /// The plan of a query.
    pub(crate) async fn plan_query(&self, query: &ast::Query) -> Result<LogicalPlan, SqlError> {
        self.plan(ast::Statement::Query(Box::new(query.clone()))).await
    }

    /// The rows of a statement that is a query.
    pub(crate) async fn plan_collect(&self, statement: ast::Statement) -> Result<RecordBatch, SqlError> {
        self.collect(self.plan(statement).await?).await
    }

    /// The rows of a query in words of ours.
    pub(crate) async fn collect_text(&self, text: &str) -> Result<RecordBatch, SqlError> {
        self.collect(self.plan_text(text).await?).await
    }

    /// All rows of a table, whole.
    pub(crate) async fn all_rows(&self, def: &TableDef) -> Result<RecordBatch, SqlError> {
        let items: Vec<String> = def.columns.iter().map(|c| quote(&c.name)).collect();
        let rows = self.collect_text(&select(&items, &format!("{WHOLE}.{}", quote(&def.name)), None)).await?;
        relaxed(&self.physical(def)?.arrow(), rows.columns().to_vec())
    }

    async fn collect(&self, plan: LogicalPlan) -> Result<RecordBatch, SqlError> {
        let frame = self.context.execute_logical_plan(plan).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        rows_max(batches.iter().map(RecordBatch::num_rows).sum())?;
        let columns = |b: RecordBatch| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec());
        let batches = batches.into_iter().map(columns).collect::<Result<Vec<_>, _>>().map_err(arrow)?;
        concat_batches(&schema, &batches).map_err(arrow)
    }

    /// The plan that gives the rows of an INSERT's source: a column a column of the table that is shown; NULL where a default comes later.
    /// And the type of each parameter that stands alone for a value.
    fn insert_source(&self, def: &TableDef, insert: &ast::Insert) -> Result<(Vec<usize>, ast::Query), SqlError> {
        let shown: Vec<&ColumnDef> = def.visible().collect();
        let named: Vec<usize> = if insert.columns.is_empty() {
            (0..shown.len()).collect()
        } else {
            let mut named = Vec::with_capacity(insert.columns.len());
            for name in &insert.columns {
                let name = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
                def.column(&name)?;
                let at = shown.iter().position(|c| c.name == name).unwrap_or_default();
                if named.contains(&at) {
                    let why = format!("column \"{name}\" specified more than once");
                    return Err(SqlError::new(SqlState::DuplicateColumn, why));
                }
                named.push(at);
            }
            named
        };
        let Some(source) = &insert.source else {
            return Err(SqlError::unsupported(
                "INSERT without a source (write DEFAULT VALUES as VALUES (DEFAULT, ..))",
            ));
        };
        let mut query = (**source).clone();
        if let SetExpr::Values(values) = &mut *query.body {
            for row in &mut values.rows {
                let expected = if insert.columns.is_empty() { row.len().min(named.len()) } else { named.len() };
                if row.len() != expected || row.is_empty() {
                    let what = if row.len() > expected {
                        "more expressions than target columns"
                    } else {
                        "more target columns than expressions"
                    };
                    return Err(SqlError::new(SqlState::SyntaxError, format!("INSERT has {what}")));
                }
                for (value, at) in row.iter_mut().zip(&named) {
                    let column = shown[*at];
                    if is_default(value) {
                        *value = default_of(column)?.unwrap_or_else(|| ast::Expr::Value(ast::Value::Null.into()));
                    }
                    if matches!(value, ast::Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_))) {
                        *value = cast_to(value.clone(), column.ty)?;
                    }
                }
            }
        }
        Ok((named, query))
    }

    /// The planned source of an INSERT, for its parameters.
    pub(crate) async fn plan_insert(&self, insert: &ast::Insert) -> Result<(Arc<TableDef>, LogicalPlan), SqlError> {
        let def = self.insert_target(insert)?;
        let (named, query) = self.insert_source(&def, insert)?;
        let source = self.plan(ast::Statement::Query(Box::new(query))).await?;
        let shown: Vec<&ColumnDef> = def.visible().collect();
        let given = source.schema().fields().len();
        if given > named.len() {
            return Err(SqlError::new(SqlState::SyntaxError, "INSERT has more expressions than target columns"));
        }
        if given < named.len() && !insert.columns.is_empty() {
            return Err(SqlError::new(SqlState::SyntaxError, "INSERT has more target columns than expressions"));
        }
        let mut exprs = Vec::with_capacity(shown.len());
        for (at, column) in shown.iter().enumerate() {
            let expr = match named.iter().take(given).position(|n| *n == at) {
                Some(i) => {
                    let (qualifier, field) = source.schema().qualified_field(i);
                    let value = Expr::Column(Column::from((qualifier, field)));
                    typed(value, field.data_type(), column.ty)
                }
                None => self.default_expr(column)?,
            };
            exprs.push(expr.alias(&column.name));
        }
        Ok((def, LogicalPlanBuilder::from(source).project(exprs)?.build()?))
    }

    fn insert_target(&self, insert: &ast::Insert) -> Result<Arc<TableDef>, SqlError> {
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::unsupported("INSERT into anything but a table"));
        };
        let def = self.current().catalog.table(&relation(name)?)?.clone();
        Ok(def)
    }

    /// Rows that came as text, as the columns that are shown: those given become the columns' types, the others their defaults.
    pub(crate) async fn typed_rows(
        &self,
        def: &TableDef,
        given: &[usize],
        texts: Vec<ArrayRef>,
    ) -> Result<RecordBatch, SqlError> {
        let fields: Vec<Field> = (0..texts.len()).map(|i| Field::new(format!("c{i}"), DataType::Utf8, true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), texts).map_err(arrow)?;
        let frame = self.context.read_batch(batch)?;
        let mut exprs = Vec::new();
        for (at, column) in def.visible().enumerate() {
            let expr = match given.iter().position(|g| *g == at) {
                Some(i) => typed(datafusion::prelude::col(format!("c{i}")), &DataType::Utf8, column.ty),
                None => self.default_expr(column)?,
            };
            exprs.push(expr.alias(&column.name));
        }
        self.collect(frame.select(exprs)?.into_unoptimized_plan()).await
    }

    /// What stands in a column that nothing was given for; NULL where it has no default.
    fn default_expr(&self, column: &ColumnDef) -> Result<Expr, SqlError> {
        Ok(match &column.default {
            Some(text) => typed_any(self.context.state().create_logical_expr(text, &DFSchema::empty())?, column.ty),
            None => lit(ScalarValue::try_from(&column.ty.data_type())?),
        })
    }

    /// Does an INSERT.
    pub(crate) async fn insert(&self, insert: &ast::Insert) -> Result<Written, SqlError> {
        let (def, plan) = self.plan_insert(insert).await?;
        let rows = self.collect(plan).await?;
        let rows = self.whole_rows(&def, &rows).await?;
        let alias = insert.table_alias.as_ref().map(|a| fold(&a.alias)).unwrap_or_else(|| def.name.clone());
        let (plus, minus) = match &insert.on {
            None => (rows, None),
            Some(OnInsert::OnConflict(conflict)) => self.settle(&def, &alias, rows, conflict).await?,
            Some(_) => return Err(SqlError::unsupported("ON DUPLICATE KEY")),
        };
        self.apply(&def, Some(&plus), minus.as_ref()).await?;
        let returning = self.returning(&def, &alias, &plus, insert.returning.as_deref()).await?;
        Ok(Written { rows: plus.num_rows() as u64, returning })
    }

    /// Whole rows from the columns that are shown: with numbers from sequences, and the number that keeps rows apart.
    pub(crate) async fn whole_rows(&self, def: &TableDef, shown: &RecordBatch) -> Result<RecordBatch, SqlError> {
        let schema = self.physical(def)?.arrow();
        let rows = shown.num_rows();
        let mut given = shown.columns().iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(def.columns.len());
        for column in &def.columns {
            let array = if column.hidden {
                match column.physical.as_str() {
                    ROW_ID => Arc::new(Int64Array::from(row_ids(rows))) as ArrayRef,
                    // A dropped column: NULL, or what stands for it where it may not be.
                    _ => self.nothing(column, rows)?,
                }
            } else {
                Arc::clone(given.next().ok_or_else(|| SqlError::new(SqlState::InternalError, "a column is missing"))?)
            };
            columns.push(array);
        }
        self.numbered(def, relaxed(&schema, columns)?).await
    }

    /// Whole rows with numbers from sequences where an identity column has none.
    pub(crate) async fn numbered(&self, def: &TableDef, rows: RecordBatch) -> Result<RecordBatch, SqlError> {
        let mut columns = rows.columns().to_vec();
        for (column, array) in def.columns.iter().zip(&mut columns) {
            let missing = array.null_count();
            if column.identity && missing > 0 {
                let store = &*self.shared.store;
                let mut numbers = self.sequences.take(store, &def.sequence(column), missing).await?.into_iter();
                let filled: Int64Array =
                    array.as_primitive::<Int64Type>().iter().map(|v| v.or_else(|| numbers.next())).collect();
                *array = Arc::new(filled);
            }
        }
        relaxed(&self.physical(def)?.arrow(), columns)
    }

    fn nothing(&self, column: &ColumnDef, rows: usize) -> Result<ArrayRef, SqlError> {
        let value = match column.ty {
            ty if column.nullable => ScalarValue::try_from(&ty.data_type())?,
            ColumnType::Text => ScalarValue::Utf8(Some(String::new())),
            ColumnType::Bytes => ScalarValue::Binary(Some(Vec::new())),
            ty => ScalarValue::new_zero(&ty.data_type())?,
        };
        Ok(value.to_array_of_size(rows)?)
    }

    /// What an ON CONFLICT makes of the rows: those to write, and those that they replace.
    async fn settle(
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
    fn arbiters(
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
    async fn updated(
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
        let columns: Vec<ArrayRef> = old.columns().iter().chain(excluded.columns()).cloned().collect();
        // Two columns of one name are told apart by their qualifiers only, which Arrow has not.
        let fields: Vec<Field> =
            columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
        let both = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow)?;
        let evaluate = |expr: &ast::Expr, ty: Option<ColumnType>| self.evaluate(expr, &schema, &both, ty);
        let mut new = old.columns().to_vec();
        for assignment in &update.assignments {
            let column = assigned(def, &assignment.target)?;
            let value = if is_default(&assignment.value) {
                default_of(column)?.unwrap_or_else(|| ast::Expr::Value(ast::Value::Null.into()))
            } else {
                assignment.value.clone()
            };
            let place = def.place(&column.physical).expect("a column of the table");
            new[place] = evaluate(&value, Some(column.ty))?;
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
    fn evaluate(
        &self,
        expr: &ast::Expr,
        schema: &DFSchema,
        batch: &RecordBatch,
        ty: Option<ColumnType>,
    ) -> Result<ArrayRef, SqlError> {
        let state = self.context.state();
        let mut logical = state.create_logical_expr(&expr.to_string(), schema)?;
        if let Some(ty) = ty {
            logical = typed_any(logical, ty);
        }
        let physical = state.create_physical_expr(logical, schema)?;
        Ok(physical.evaluate(batch)?.into_array(batch.num_rows())?)
    }

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
                ast::Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_)) => cast_to(value, column.ty)?,
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
                    typed(value, field.data_type(), column.ty).alias(format!("c{i}"))
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

    /// Retracts and writes whole rows of a table and of its indexes, after every rule of the table was checked.
    pub(crate) async fn apply(
        &self,
        def: &TableDef,
        plus: Option<&RecordBatch>,
        minus: Option<&RecordBatch>,
    ) -> Result<(), SqlError> {
        let Current { work, .. } = self.current();
        if let Some(plus) = plus {
            rows_max(plus.num_rows() + minus.map_or(0, RecordBatch::num_rows))?;
            self.check_rows(def, plus)?;
        }
        let copies = || std::iter::once(&def.physical).chain(def.indexes.iter().map(|i| &i.physical));
        if let Some(minus) = minus.filter(|m| m.num_rows() > 0) {
            for copy in copies() {
                work.write(copy, None, Some(minus.clone()));
            }
        }
        let Some(plus) = plus.filter(|p| p.num_rows() > 0) else { return self.see_copies(def, minus).await };
        for rule in unique::rules(def) {
            let there = unique::find(def, &rule, &*self.shared.store, &work, plus).await?;
            let mut seen = HashSet::new();
            for (row, key) in unique::keys_of(def, &rule, plus).into_iter().enumerate() {
                if key.is_some_and(|key| there.contains_key(&key) || !seen.insert(key)) {
                    return Err(unique::violation(def, &rule, plus, row));
                }
            }
        }
        for copy in copies() {
            work.write(copy, Some(plus.clone()), None);
        }
        self.see_copies(def, minus).await
    }

    /// Notes the version of every copy from which rows are retracted: a retraction follows from what it retracts.
    async fn see_copies(&self, def: &TableDef, minus: Option<&RecordBatch>) -> Result<(), SqlError> {
        if minus.is_none_or(|m| m.num_rows() == 0) {
            return Ok(());
        }
        let Current { work, .. } = self.current();
        let key = vec![def.key[0].clone()];
        for copy in std::iter::once(&def.physical).chain(def.indexes.iter().map(|i| &i.physical)) {
            if work.has_seen(copy) {
                continue;
            }
            let select =
                fluence_client::Select { range: fluence_client::KeyRange::ALL, columns: key.clone(), limit: Some(1) };
            let (_, evidence) = self.shared.store.read(copy, &select).await?;
            work.observe(copy, evidence.version)?;
        }
        Ok(())
    }

    /// NOT NULL, lengths and CHECKs.
    pub(crate) fn check_rows(&self, def: &TableDef, rows: &RecordBatch) -> Result<(), SqlError> {
        for (column, array) in def.columns.iter().zip(rows.columns()) {
            if !column.nullable && array.null_count() > 0 {
                let (name, table) = (&column.name, &def.name);
                let why =
                    format!("null value in column \"{name}\" of relation \"{table}\" violates not-null constraint");
                return Err(SqlError::new(SqlState::NotNullViolation, why));
            }
            if let (Some(max), Some(texts)) = (column.chars_max, array.as_string_opt::<i32>())
                && texts.iter().flatten().any(|t| t.chars().count() as u64 > max)
            {
                return Err(SqlError::new(
                    SqlState::StringTruncation,
                    format!("value too long for type character varying({max})"),
                ));
            }
        }
        if def.checks.is_empty() || rows.num_rows() == 0 {
            return Ok(());
        }
        let named = Arc::new(Schema::new(
            def.arrow(true).fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        ));
        let batch = RecordBatch::try_new(Arc::clone(&named), rows.columns().to_vec()).map_err(arrow)?;
        let schema = DFSchema::try_from_qualified_schema(TableReference::bare(def.name.as_str()), &named)?;
        let state = self.context.state();
        for check in &def.checks {
            let expr = state.create_logical_expr(&check.expr, &schema)?;
            let held = state.create_physical_expr(expr, &schema)?.evaluate(&batch)?.into_array(rows.num_rows())?;
            // NULL is not false.
            if held.as_boolean_opt().is_none_or(|h| h.iter().any(|v| v == Some(false))) {
                let (name, table) = (&check.name, &def.name);
                let why = format!("new row for relation \"{table}\" violates check constraint \"{name}\"");
                return Err(SqlError::new(SqlState::CheckViolation, why));
            }
        }
        Ok(())
    }

    /// The rows that RETURNING gives.
    async fn returning(
        &self,
        def: &TableDef,
        alias: &str,
        rows: &RecordBatch,
        items: Option<&[SelectItem]>,
    ) -> Result<Option<(SchemaRef, Vec<RecordBatch>)>, SqlError> {
        let Some(items) = items else { return Ok(None) };
        let plan = self.plan_returning(def, alias, Some(rows), items)?;
        let frame = self.context.execute_logical_plan(plan).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        Ok(Some((schema, frame.collect().await?)))
    }

    /// The plan of a RETURNING over rows; over none, for its columns.
    pub(crate) fn plan_returning(
        &self,
        def: &TableDef,
        alias: &str,
        rows: Option<&RecordBatch>,
        items: &[SelectItem],
    ) -> Result<LogicalPlan, SqlError> {
        let shown = def.arrow(false);
        let places: Vec<usize> = (0..def.columns.len()).filter(|i| !def.columns[*i].hidden).collect();
        let batch = match rows {
            Some(rows) => {
                let columns = places.iter().map(|p| Arc::clone(rows.column(*p))).collect();
                RecordBatch::try_new(Arc::clone(&shown), columns).map_err(arrow)?
            }
            None => RecordBatch::new_empty(Arc::clone(&shown)),
        };
        let frame = self.context.read_batch(batch)?.alias(alias)?;
        let schema = frame.schema().clone();
        let state = self.context.state();
        let mut exprs = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                    exprs.extend(schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))));
                }
                SelectItem::UnnamedExpr(expr) => exprs.push(state.create_logical_expr(&expr.to_string(), &schema)?),
                SelectItem::ExprWithAlias { expr, alias } => {
                    exprs.push(state.create_logical_expr(&expr.to_string(), &schema)?.alias(fold(alias)));
                }
                other => return Err(SqlError::unsupported(format!("RETURNING {other}"))),
            }
        }
        Ok(frame.select(exprs)?.into_unoptimized_plan())
    }
}

fn arrow(error: datafusion::arrow::error::ArrowError) -> SqlError {
    datafusion::common::DataFusionError::from(error).into()
}

/// A batch of a schema's columns in which NULL may still stand anywhere: it is checked by column, with the column's name.
fn relaxed(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, SqlError> {
    let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow)
}

fn select(items: &[String], from: &str, selection: Option<&ast::Expr>) -> String {
    let filter = selection.map_or_else(String::new, |s| format!(" WHERE {s}"));
    format!("SELECT {} FROM {from}{filter}", items.join(", "))
}

fn whole_columns(def: &TableDef, alias: &str) -> Vec<String> {
    def.columns.iter().map(|c| format!("{}.{}", quote(alias), quote(&c.name))).collect()
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

fn assigned<'a>(def: &'a TableDef, target: &AssignmentTarget) -> Result<&'a ColumnDef, SqlError> {
    match target {
        AssignmentTarget::ColumnName(name) => {
            let name = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
            def.column(&name)
        }
        AssignmentTarget::Tuple(_) => Err(SqlError::unsupported("SET (a, b) = (..)")),
    }
}

fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

/// A column's default as it stands in SQL.
fn default_of(column: &ColumnDef) -> Result<Option<ast::Expr>, SqlError> {
    column.default.as_deref().map(super::ddl::parse_expr).transpose()
}

/// A cast in SQL to a column's type.
fn cast_to(expr: ast::Expr, ty: ColumnType) -> Result<ast::Expr, SqlError> {
    let name = super::types::cast_name(&ty.data_type()).expect("every column's type has a name");
    super::ddl::parse_expr(&format!("CAST({expr} AS {name})"))
}

/// A value as one of a column's type. Text that is assigned to bytes is read as PostgreSQL writes them.
fn typed(value: Expr, from: &DataType, ty: ColumnType) -> Expr {
    let text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if text && ty == ColumnType::Bytes {
        return super::bytea::read().call(vec![value]);
    }
    if *from == ty.data_type() { value } else { datafusion::logical_expr::cast(value, ty.data_type()) }
}

/// The same where the type of the value is not known yet: a literal's is.
fn typed_any(value: Expr, ty: ColumnType) -> Expr {
    let from = match &value {
        Expr::Literal(v, _) => v.data_type(),
        _ => DataType::Null,
    };
    typed(value, &from, ty)
}

/// Numbers that keep rows apart: microseconds and a count, so that later rows stand later, and none stands twice in this process.
fn row_ids(rows: usize) -> Vec<i64> {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
    // 2^12 numbers a microsecond, from 2020 on: until the year 2091.
    let start = (now - 1_577_836_800_000_000) << 12;
    let rows = rows as i64;
    let mut last = LAST.load(Ordering::Relaxed);
    loop {
        let first = start.max(last + 1);
        match LAST.compare_exchange(last, first + rows, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return (first..first + rows).collect(),
            Err(other) => last = other,
        }
    }
}
