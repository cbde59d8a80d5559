//! INSERT: rows from values and queries, as whole rows of the sealed schema.

use super::{Cx, Written, arrow, cast_to, default_of, is_default, relaxed, typed, typed_any};
use crate::error::{SqlError, SqlState};
use crate::sql::catalog::{ColumnDef, ROW_ID, TableDef};
use crate::sql::{fold, relation};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, OnInsert, SetExpr};
use fluence_client::ColumnType;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

impl Cx<'_> {
    /// The plan that gives the rows of an INSERT's source: a column a column of the table that is shown; NULL where a default comes later.
    /// And the type of each parameter that stands alone for a value.
    pub(super) fn insert_source(
        &self,
        def: &TableDef,
        insert: &ast::Insert,
    ) -> Result<(Vec<usize>, ast::Query), SqlError> {
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
                        *value = cast_to(value.clone(), column)?;
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
                    typed(value, field.data_type(), column)
                }
                None => self.default_expr(column)?,
            };
            exprs.push(expr.alias(&column.name));
        }
        Ok((def, LogicalPlanBuilder::from(source).project(exprs)?.build()?))
    }

    pub(super) fn insert_target(&self, insert: &ast::Insert) -> Result<Arc<TableDef>, SqlError> {
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::unsupported("INSERT into anything but a table"));
        };
        let def = self.current().catalog.table(&relation(name)?)?.clone();
        Ok(def)
    }

    /// Rows that came as text or typed, as the columns that are shown: those given become the columns' types, the others their defaults.
    pub(crate) async fn typed_rows(
        &self,
        def: &TableDef,
        given: &[usize],
        arrays: Vec<ArrayRef>,
    ) -> Result<RecordBatch, SqlError> {
        let types: Vec<DataType> = arrays.iter().map(|a| a.data_type().clone()).collect();
        let fields = types.iter().enumerate().map(|(i, ty)| Field::new(format!("c{i}"), ty.clone(), true));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays).map_err(arrow)?;
        let frame = self.context.read_batch(batch)?;
        let mut exprs = Vec::new();
        for (at, column) in def.visible().enumerate() {
            let expr = match given.iter().position(|g| *g == at) {
                Some(i) => typed(datafusion::prelude::col(format!("c{i}")), &types[i], column),
                None => self.default_expr(column)?,
            };
            exprs.push(expr.alias(&column.name));
        }
        self.collect(frame.select(exprs)?.into_unoptimized_plan()).await
    }

    /// What stands in a column that nothing was given for; NULL where it has no default.
    pub(super) fn default_expr(&self, column: &ColumnDef) -> Result<Expr, SqlError> {
        Ok(match &column.default {
            Some(text) => typed_any(self.context.state().create_logical_expr(text, &DFSchema::empty())?, column),
            None => lit(ScalarValue::try_from(&column.data_type())?),
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

    pub(super) fn nothing(&self, column: &ColumnDef, rows: usize) -> Result<ArrayRef, SqlError> {
        let value = match column.ty {
            ty if column.nullable => ScalarValue::try_from(&ty.data_type())?,
            ColumnType::Text => ScalarValue::Utf8(Some(String::new())),
            ColumnType::Bytes => ScalarValue::Binary(Some(Vec::new())),
            ty => ScalarValue::new_zero(&ty.data_type())?,
        };
        Ok(value.to_array_of_size(rows)?)
    }
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
