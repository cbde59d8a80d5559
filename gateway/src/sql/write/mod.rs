//! INSERT, UPDATE, DELETE, TRUNCATE: rows are selected by a query of our own, then retracted and written in the transaction.
//!
//! ```text
//! INSERT  SELECT cast(..) FROM (source)                       -> +1 rows
//! UPDATE  SELECT every column, cast(new values) FROM t WHERE  -> -1 old, +1 new rows
//! DELETE  SELECT every column FROM t WHERE                    -> -1 rows
//! ```
//! Checked  before anything is written: NOT NULL, length, CHECK, then the keys that must be unique, after what the statement retracts.
//! Rooms    `insert`, `conflict` ON CONFLICT, `rewrite` UPDATE, DELETE, TRUNCATE
//! Limits   a statement retracts and writes at most [`ROWS_MAX`] rows, as a transaction does of one table.
//! Source   DESIGN section 10; PostgreSQL 15, "SQL Commands"

mod conflict;
mod insert;
mod rewrite;

use super::catalog::{ColumnDef, TableDef};
use super::context::{Current, Shared, WHOLE};
use super::sequence::Sequences;
use super::settings::Settings;
use super::{fold, parse, quote, unique};
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, AssignmentTarget, SelectItem};
use fluence_client::schema::TableSchema;
use fluence_client::{ColumnType, KeyRange, Value};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Most rows that one statement retracts and writes, together: what one sealed segment takes.
pub(crate) const ROWS_MAX: usize = fluence_client::seal::SEGMENT_ROWS_MAX;

/// What a statement works with.
pub(crate) struct Cx<'a> {
    pub(crate) context: &'a SessionContext,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) sequences: &'a Sequences,
    /// Who is connected.
    pub(crate) user: &'a str,
    /// The session's number.
    pub(crate) number: i32,
    /// What the session has chosen.
    pub(crate) settings: &'a Settings,
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
    Err(SqlError::new(SqlState::ProgramLimitExceeded, why).hint("use several transactions"))
}

impl Cx<'_> {
    pub(super) fn current(&self) -> Current {
        self.shared.get()
    }

    pub(super) fn physical(&self, def: &TableDef) -> Result<Arc<TableSchema>, SqlError> {
        self.current().catalog.physical.get(&def.physical).cloned().ok_or_else(|| {
            SqlError::new(SqlState::DataCorrupted, format!("table \"{}\" has no rows' schema", def.name))
        })
    }

    pub(super) fn note_casts(&self, found: Vec<Option<DataType>>) {
        let mut casts = self.casts.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, ty) in found.into_iter().enumerate() {
            match casts.get_mut(i) {
                Some(known) => *known = ty.or_else(|| known.take()),
                None => casts.push(ty),
            }
        }
    }

    pub(super) async fn plan(&self, statement: ast::Statement) -> Result<LogicalPlan, SqlError> {
        self.plan_in(&self.context.state(), statement).await
    }

    async fn plan_in(&self, state: &SessionState, mut statement: ast::Statement) -> Result<LogicalPlan, SqlError> {
        let Current { catalog, .. } = self.current();
        let columns_of = |name: &ast::ObjectName| {
            let def = catalog.tables.get(&crate::sql::relation(name).ok()?)?;
            Some(def.visible().map(|c| c.name.clone()).collect())
        };
        crate::sql::aliases::tell_apart(&mut statement, &columns_of);
        crate::sql::rewrite::rewrite(&mut statement, self.user, self.number, self.settings)?;
        self.note_casts(crate::sql::params::casts(&mut statement)?);
        let plan = state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await?;
        crate::sql::arithmetic::settled(crate::sql::system::nested::looped(plan, self.shared)?)
    }

    pub(super) async fn plan_text(&self, text: &str) -> Result<LogicalPlan, SqlError> {
        let mut parsed = parse(text)?;
        let statement = parsed.pop().ok_or_else(|| SqlError::new(SqlState::InternalError, "an empty query"))?;
        self.plan(statement.0).await
    }

    /// The plan of a query.
    pub(crate) async fn plan_query(&self, query: &ast::Query) -> Result<LogicalPlan, SqlError> {
        self.plan(ast::Statement::Query(Box::new(query.clone()))).await
    }

    /// The same, ready to run. The planner's state is large: it is taken once.
    pub(crate) async fn frame_of_query(&self, query: &ast::Query) -> Result<DataFrame, SqlError> {
        let state = self.context.state();
        let plan = self.plan_in(&state, ast::Statement::Query(Box::new(query.clone()))).await?;
        Ok(DataFrame::new(state, plan))
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

    pub(super) async fn collect(&self, plan: LogicalPlan) -> Result<RecordBatch, SqlError> {
        let frame = self.context.execute_logical_plan(plan).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        rows_max(batches.iter().map(RecordBatch::num_rows).sum())?;
        let columns = |b: RecordBatch| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec());
        let batches = batches.into_iter().map(columns).collect::<Result<Vec<_>, _>>().map_err(arrow)?;
        concat_batches(&schema, &batches).map_err(arrow)
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
    pub(super) async fn see_copies(&self, def: &TableDef, minus: Option<&RecordBatch>) -> Result<(), SqlError> {
        if minus.is_none_or(|m| m.num_rows() == 0) {
            return Ok(());
        }
        let Current { work, .. } = self.current();
        let (Some(minus), column) = (minus, vec![def.key[0].clone()]) else { return Ok(()) };
        for copy in std::iter::once(&def.physical).chain(def.indexes.iter().map(|i| &i.physical)) {
            if work.has_seen(copy) {
                continue;
            }
            let select =
                fluence_client::Select { columns: column.clone(), ..fluence_client::Select::range(KeyRange::ALL) };
            let select = select.limit(1);
            let (_, evidence) = self.shared.store.read(copy, &select).await?;
            // All copies change together, so what was read of one copy stands for the others: here, the keys of what is retracted.
            for range in self.keys_in(copy, minus)? {
                work.observe(copy, evidence.version, Some(&range))?;
            }
        }
        Ok(())
    }

    /// The keys of whole rows in a copy, as ranges.
    fn keys_in(&self, copy: &str, rows: &RecordBatch) -> Result<Vec<KeyRange>, SqlError> {
        let Current { catalog, .. } = self.current();
        let schema = catalog.physical.get(copy);
        let schema = schema.ok_or_else(|| SqlError::new(SqlState::DataCorrupted, "a copy of a table has no schema"))?;
        let value = |row, column: usize| Value::at(rows.column(column), row);
        let key = |row| {
            let values = schema.key_indices().into_iter().map(|c| value(row, c)).collect::<Option<Vec<_>>>();
            values.map_or(KeyRange::ALL, KeyRange::prefix)
        };
        Ok((0..rows.num_rows()).map(key).collect())
    }

    /// NOT NULL, lengths and CHECKs.
    pub(crate) fn check_rows(&self, def: &TableDef, rows: &RecordBatch) -> Result<(), SqlError> {
        for (column, array) in def.columns.iter().zip(rows.columns()) {
            if !column.nullable && array.null_count() > 0 {
                let (name, table) = (&column.name, &def.name);
                let why =
                    format!("null value in column \"{name}\" of relation \"{table}\" violates not-null constraint");
                return Err(SqlError::new(SqlState::NotNullViolation, why).table(table).column(name));
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
        let batch = def.shown(rows)?;
        let schema = DFSchema::try_from_qualified_schema(TableReference::bare(def.name.as_str()), &batch.schema())?;
        let state = self.context.state();
        for check in &def.checks {
            let expr = state.create_logical_expr(&check.expr, &schema)?;
            let held = state.create_physical_expr(expr, &schema)?.evaluate(&batch)?.into_array(rows.num_rows())?;
            // NULL is not false.
            if held.as_boolean_opt().is_none_or(|h| h.iter().any(|v| v == Some(false))) {
                let (name, table) = (&check.name, &def.name);
                let why = format!("new row for relation \"{table}\" violates check constraint \"{name}\"");
                return Err(SqlError::new(SqlState::CheckViolation, why).table(table).constraint(name));
            }
        }
        Ok(())
    }

    /// The rows that RETURNING gives.
    pub(super) async fn returning(
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
                let rows = def.shown(rows)?;
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

pub(super) fn arrow(error: datafusion::arrow::error::ArrowError) -> SqlError {
    datafusion::common::DataFusionError::from(error).into()
}

/// A batch of a sealed schema's columns in which NULL may still stand anywhere: it is checked by column, with the column's name.
pub(super) fn relaxed(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, SqlError> {
    let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let sealed = columns.iter().zip(&fields).map(|(array, field)| super::types::recast(array, field.data_type()));
    let columns = sealed.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow)
}

pub(super) fn select(items: &[String], from: &str, selection: Option<&ast::Expr>) -> String {
    let filter = selection.map_or_else(String::new, |s| format!(" WHERE {s}"));
    format!("SELECT {} FROM {from}{filter}", items.join(", "))
}

pub(super) fn whole_columns(def: &TableDef, alias: &str) -> Vec<String> {
    def.columns.iter().map(|c| format!("{}.{}", quote(alias), quote(&c.name))).collect()
}

pub(super) fn assigned<'a>(def: &'a TableDef, target: &AssignmentTarget) -> Result<&'a ColumnDef, SqlError> {
    match target {
        AssignmentTarget::ColumnName(name) => {
            let name = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
            def.column(&name)
        }
        AssignmentTarget::Tuple(_) => Err(SqlError::unsupported("SET (a, b) = (..)")),
    }
}

pub(super) fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

/// A column's default as it stands in SQL.
pub(super) fn default_of(column: &ColumnDef) -> Result<Option<ast::Expr>, SqlError> {
    column.default.as_deref().map(super::ddl::parse_expr).transpose()
}

/// A cast in SQL to a column's type.
pub(super) fn cast_to(expr: ast::Expr, column: &ColumnDef) -> Result<ast::Expr, SqlError> {
    let name = super::types::cast_name(&column.data_type()).expect("every column's type has a name");
    super::ddl::parse_expr(&format!("CAST({expr} AS {name})"))
}

/// A value as one of what a column is declared as. Text that is assigned to bytes, or is a UUID or JSON, is read as PostgreSQL does.
pub(super) fn typed(value: Expr, from: &DataType, column: &ColumnDef) -> Expr {
    let text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if text && column.ty == ColumnType::Bytes {
        return super::bytea::read().call(vec![value]);
    }
    let to = column.data_type();
    let value = match *from == to {
        true => value,
        false => datafusion::logical_expr::cast(super::rounding::before_cast(value, from, &to), to),
    };
    match super::text::read(column.sql) {
        Some(read) => read.call(vec![value]),
        None => value,
    }
}

/// The same where the type of the value is not known yet: a literal's is.
pub(super) fn typed_any(value: Expr, column: &ColumnDef) -> Expr {
    let from = match &value {
        Expr::Literal(v, _) => v.data_type(),
        _ => DataType::Null,
    };
    typed(value, &from, column)
}
