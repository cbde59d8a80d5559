//! Names of columns that a query does not name, as PostgreSQL gives them: a function's name, a column's, else `?column?`.
//!
//! Source  PostgreSQL 15, `FigureColname`

use super::fold;
use super::system::words::TWIN;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Query, SelectItem, SetExpr,
};
use std::sync::Arc;

/// The columns of a query's answer under the names that a client expects.
pub(crate) fn named(query: &Query, schema: &SchemaRef) -> SchemaRef {
    let width = schema.fields().len();
    let names = match names(&query.body, width) {
        Some(names) => names,
        None if has_twins(&query.body) => {
            let own = |f: &Arc<Field>| f.name().strip_prefix(TWIN).map(str::to_owned);
            schema.fields().iter().map(own).collect()
        }
        None => return Arc::clone(schema),
    };
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| match name {
            Some(name) => field.as_ref().clone().with_name(name),
            None => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Whether a column stands beside all columns of its table, under a name that nobody gave it.
fn has_twins(body: &SetExpr) -> bool {
    let SetExpr::Select(select) = body else { return false };
    let twin =
        |item: &SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value.starts_with(TWIN));
    select.projection.iter().any(twin)
}

/// A name for each item that has none of its own; `None` where the items are not the columns one by one.
fn names(body: &SetExpr, width: usize) -> Option<Vec<Option<String>>> {
    match body {
        SetExpr::Select(select) => {
            let plain = |item: &SelectItem| match item {
                SelectItem::UnnamedExpr(expr) => Some(Some(name(expr).unwrap_or_else(|| "?column?".to_owned()))),
                SelectItem::ExprWithAlias { .. } => Some(None),
                _ => None,
            };
            let names = select.projection.iter().map(plain).collect::<Option<Vec<_>>>()?;
            (names.len() == width).then_some(names)
        }
        SetExpr::Query(query) => names(&query.body, width),
        // The first of several sets names the columns.
        SetExpr::SetOperation { left, .. } => names(left, width),
        _ => None,
    }
}

fn arg(list: &FunctionArgumentList, at: usize) -> Option<&Expr> {
    match list.args.get(at)? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn name(expr: &Expr) -> Option<String> {
    Some(match expr {
        Expr::Identifier(ident) => fold(ident),
        Expr::CompoundIdentifier(parts) => fold(parts.last()?),
        Expr::Function(function) => {
            let name = function.name.0.last()?.as_ident().map(fold)?;
            // What stands for a call or a cast of the catalogue has its name.
            let (kind, of) = match &function.args {
                FunctionArguments::List(list) if name.starts_with("fluence_") => (arg(list, 0), arg(list, 1)),
                _ => (None, None),
            };
            match (name.as_str(), kind, of) {
                ("fluence_oid_of" | "fluence_name_of", Some(Expr::Value(kind)), Some(Expr::Cast { expr: of, .. })) => {
                    self::name(of).or_else(|| kind.value.clone().into_string())?
                }
                ("fluence_oid_if", Some(Expr::Value(kind)), _) => format!("to_{}", kind.value.clone().into_string()?),
                ("fluence_array_text", ..) => "array_to_string".to_owned(),
                ("fluence_types_of", ..) => "pg_get_function_arguments".to_owned(),
                ("fluence_result_of", ..) => "pg_get_function_result".to_owned(),
                _ => name,
            }
        }
        Expr::Nested(inner) => name(inner)?,
        Expr::Cast { expr, data_type, .. } => name(expr).unwrap_or_else(|| {
            let ty = data_type.to_string().to_lowercase();
            match ty.split(['(', ' ']).next().unwrap_or_default() {
                "bigint" | "int8" => "int8".to_owned(),
                "int" | "integer" | "int4" => "int4".to_owned(),
                "smallint" | "int2" => "int2".to_owned(),
                "boolean" | "bool" => "bool".to_owned(),
                "double" | "float8" => "float8".to_owned(),
                "real" | "float4" => "float4".to_owned(),
                "decimal" | "numeric" => "numeric".to_owned(),
                other => other.to_owned(),
            }
        }),
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::Substring { .. } => "substring".to_owned(),
        Expr::Position { .. } => "position".to_owned(),
        Expr::Trim { .. } => "btrim".to_owned(),
        Expr::Subquery(query) => names(&query.body, 1)?.pop()?.unwrap_or_else(|| "?column?".to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::ast::Statement;

    #[test]
    fn columns_are_named_as_postgres_names_them() {
        for (sql, expected) in [
            (
                "SELECT count(*), SUM(x) AS total, a.b, 1 + 1, x::bigint, '1'::bigint, CASE WHEN true THEN 1 END FROM a",
                vec!["count", "-", "b", "?column?", "x", "int8", "case"],
            ),
            ("(SELECT max(x) FROM a) UNION SELECT 1", vec!["max"]),
            (
                "SELECT array_to_string(relacl, ','), oid::regclass, 'x'::regclass, to_regclass('x') FROM pg_class",
                vec!["array_to_string", "oid", "regclass", "to_regclass"],
            ),
        ] {
            let parsed = super::super::parse(sql).unwrap().pop().unwrap().0;
            let Statement::Query(query) = parsed else { panic!("{sql}") };
            let names = names(&query.body, expected.len()).unwrap();
            let names: Vec<String> = names.into_iter().map(|n| n.unwrap_or_else(|| "-".to_owned())).collect();
            assert_eq!(names, expected, "{sql}");
        }
        let parsed = super::super::parse("SELECT *, 1 FROM a").unwrap().pop().unwrap().0;
        let Statement::Query(query) = parsed else { panic!() };
        assert_eq!(names(&query.body, 2), None);
    }
}
