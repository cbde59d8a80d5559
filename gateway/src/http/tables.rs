//! What there is: tables and views, their columns, keys and rows.

use super::Http;
use super::answer::{Verified, json};
use super::encode::{ColumnInfo, columns};
use super::guard::Caller;
use super::problem::Problem;
use crate::error::{SqlError, SqlState};
use crate::session::Outcome;
use crate::sql::catalog::{Catalog, TableDef, is_internal};
use crate::sql::quote;
use crate::sql::types::field_of;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A table or a view.
#[derive(Serialize, ToSchema)]
pub(super) struct RelationInfo {
    /// Its name.
    name: String,
    /// `table` or `view`.
    kind: &'static str,
}

/// What there is.
#[derive(Serialize, ToSchema)]
pub(super) struct TableList {
    /// Tables and views by name.
    tables: Vec<RelationInfo>,
}

/// A column of a table.
#[derive(Serialize, ToSchema)]
pub(super) struct TableColumn {
    /// Name and type.
    #[serde(flatten)]
    column: ColumnInfo,
    /// Whether NULL may stand in it.
    nullable: bool,
    /// Its default, an SQL expression.
    default: Option<String>,
    /// Whether numbers are given out for it.
    identity: bool,
    /// Characters of a text at most.
    characters_max: Option<u64>,
}

/// An index: a sorted copy of the table.
#[derive(Serialize, ToSchema)]
pub(super) struct IndexInfo {
    /// Its name.
    name: String,
    /// Columns by which it is sorted.
    columns: Vec<String>,
    /// Whether no two rows agree in them.
    unique: bool,
}

/// A table or a view in full.
#[derive(Serialize, ToSchema)]
pub(super) struct TableInfo {
    /// Its name.
    name: String,
    /// `table` or `view`.
    kind: &'static str,
    /// Its columns.
    columns: Vec<TableColumn>,
    /// Columns of the primary key; null where there is none.
    primary_key: Option<Vec<String>>,
    /// Columns by which its rows are sorted, so by which ranges are found.
    sort_key: Vec<String>,
    /// Its indexes.
    indexes: Vec<IndexInfo>,
    /// Its checks, SQL expressions.
    checks: Vec<String>,
    /// Its rows, counted by a proven sum; null of a view.
    rows: Option<i64>,
    /// What that number rests on.
    verified: Option<Verified>,
}

/// List tables and views.
#[utoipa::path(get, path = "/v1/tables", tag = "tables", responses(
    (status = 200, description = "What there is", body = TableList),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    caller.may_use(None)?;
    let catalog = http.gateway.catalog(false).await?;
    let table = |name: &String| RelationInfo { name: name.clone(), kind: "table" };
    let view = |name: &String| RelationInfo { name: name.clone(), kind: "view" };
    let mut tables: Vec<_> = catalog.tables.keys().filter(|name| !is_internal(name)).map(table).collect();
    tables.extend(catalog.views.keys().map(view));
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(json(StatusCode::OK, &TableList { tables }))
}

/// Describe a table or a view.
#[utoipa::path(get, path = "/v1/tables/{name}", tag = "tables",
    params(("name" = String, Path, description = "The table or view, as its name is written in quotes")),
    responses(
    (status = 200, description = "Its columns, keys and rows", body = TableInfo),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn describe(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    caller.may_use(None)?;
    let catalog: Arc<Catalog> = http.gateway.catalog(false).await?;
    let mut session = http.session(&caller.user).await?;
    if let Some(def) = catalog.tables.get(&name).filter(|_| !is_internal(&name)) {
        let sql = format!("SELECT count(*) FROM {}", quote(&name));
        let statement = session.parse(&sql)?.pop().ok_or_else(no_answer)?;
        let prepared = session.prepare(statement, Vec::new()).await?;
        let Outcome::Rows { stream, .. } = session.execute(&prepared, Vec::new()).await? else {
            return Err(no_answer().into());
        };
        let batches: Vec<_> = stream.try_collect().await.map_err(SqlError::from)?;
        let count = batches
            .iter()
            .find(|b| b.num_rows() == 1)
            .and_then(|b| b.column(0).as_primitive_opt::<Int64Type>().map(|counts| counts.value(0)));
        let mut info = table(def)?;
        info.rows = Some(count.ok_or_else(no_answer)?);
        info.verified = session.cost().map(Verified::from);
        return Ok(json(StatusCode::OK, &info));
    }
    if !catalog.views.contains_key(&name) {
        let shown: String = name.chars().take(128).collect();
        let why = format!("relation \"{shown}\" does not exist");
        return Err(Problem::new(StatusCode::NOT_FOUND, Some(SqlState::UndefinedTable.code()), why));
    }
    let statement = session.parse(&format!("SELECT * FROM {}", quote(&name)))?.pop().ok_or_else(no_answer)?;
    let prepared = session.prepare(statement, Vec::new()).await?;
    let schema = prepared.columns.ok_or_else(no_answer)?;
    let plain = |(column, field): (ColumnInfo, &Arc<datafusion::arrow::datatypes::Field>)| TableColumn {
        column,
        nullable: field.is_nullable(),
        default: None,
        identity: false,
        characters_max: None,
    };
    let info = TableInfo {
        name,
        kind: "view",
        columns: columns(&schema)?.into_iter().zip(schema.fields()).map(plain).collect(),
        primary_key: None,
        sort_key: Vec::new(),
        indexes: Vec::new(),
        checks: Vec::new(),
        rows: None,
        verified: None,
    };
    Ok(json(StatusCode::OK, &info))
}

fn no_answer() -> SqlError {
    SqlError::new(SqlState::InternalError, "a count without an answer")
}

fn table(def: &TableDef) -> Result<TableInfo, Problem> {
    // Names in the sealed schema, as SQL calls them; the row's number is not shown.
    let named = |keys: &[String]| -> Vec<String> {
        keys.iter().filter_map(|key| def.visible().find(|c| c.physical == *key)).map(|c| c.name.clone()).collect()
    };
    let column = |c: &crate::sql::catalog::ColumnDef| -> Result<TableColumn, Problem> {
        Ok(TableColumn {
            column: ColumnInfo::new(&field_of(c))?,
            nullable: c.nullable,
            default: c.default.clone(),
            identity: c.identity,
            characters_max: c.chars_max,
        })
    };
    Ok(TableInfo {
        name: def.name.clone(),
        kind: "table",
        columns: def.visible().map(column).collect::<Result<_, _>>()?,
        primary_key: def.primary.then(|| named(&def.key)),
        sort_key: named(&def.key),
        indexes: def
            .indexes
            .iter()
            .map(|i| IndexInfo { name: i.name.clone(), columns: named(&i.columns), unique: i.unique })
            .collect(),
        checks: def.checks.iter().map(|check| check.expr.clone()).collect(),
        rows: None,
        verified: None,
    })
}
