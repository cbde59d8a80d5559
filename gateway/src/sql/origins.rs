//! Where the columns of an answer come from: the OID of a table and the number of its column, as RowDescription tells them.
//!
//! Rule    a column that a table has, through subqueries, joins, groups and orders, as long as it is nothing but that column; a view's are
//!         the view's own
//! Kinds   a CASE whose values are all JSON, or all of another type that Arrow has no word for, is of that type
//! Source  PostgreSQL 15, "Message Formats", RowDescription

use super::catalog::Catalog;
use super::context::Shared;
use super::system::{column_number, oid_of};
use super::table::FluenceTable;
use super::types::TYPE_NAME;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan};
use std::sync::Arc;

/// The key of a field's metadata under which it stands: `oid:number`.
const ORIGIN: &str = "fluence.origin";

/// The table and the column's number in it that a field comes from.
pub(crate) fn of(field: &Field) -> Option<(i32, i16)> {
    let (table, column) = field.metadata().get(ORIGIN)?.split_once(':')?;
    Some((table.parse().ok()?, column.parse().ok()?))
}

/// A table, and the number of a column of it.
type Origin = (String, i32);

/// The columns of a plan's answer, each with where it comes from.
pub(crate) fn marked(plan: &LogicalPlan, schema: &SchemaRef, shared: &Shared) -> SchemaRef {
    let catalog = shared.get().catalog;
    let column = |qualified| {
        let column = Column::from(qualified);
        (origin(plan, &column, &catalog), kind(plan, &column))
    };
    let from: Vec<_> = plan.schema().iter().map(column).collect();
    if from.iter().all(|(from, kind)| from.is_none() && kind.is_none()) || from.len() != schema.fields().len() {
        return Arc::clone(schema);
    }
    let objects = shared.objects(&catalog);
    let field = |(field, (from, kind)): (&Arc<Field>, (Option<Origin>, Option<String>))| {
        let mut field = field.as_ref().clone();
        if let Some(kind) = kind.filter(|_| !field.metadata().contains_key(TYPE_NAME)) {
            let mut metadata = field.metadata().clone();
            metadata.insert(TYPE_NAME.to_owned(), kind);
            field.set_metadata(metadata);
        }
        if let Some((table, number)) = from {
            let (oid, mut metadata) = (oid_of(&objects, &table), field.metadata().clone());
            metadata.insert(ORIGIN.to_owned(), format!("{oid}:{number}"));
            field.set_metadata(metadata);
        }
        field
    };
    let fields: Vec<Field> = schema.fields().iter().zip(from).map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The name of the type of a CASE, where all its values have it.
fn kind(plan: &LogicalPlan, column: &Column) -> Option<String> {
    match plan {
        LogicalPlan::Sort(sort) => kind(&sort.input, column),
        LogicalPlan::Limit(limit) => kind(&limit.input, column),
        LogicalPlan::SubqueryAlias(alias) => {
            let place = plan.schema().maybe_index_of_column(column)?;
            kind(&alias.input, &Column::from(alias.input.schema().qualified_field(place)))
        }
        LogicalPlan::Projection(projection) => {
            let expr = projection.expr.get(plan.schema().maybe_index_of_column(column)?)?;
            match expr.clone().unalias() {
                Expr::Column(inner) => kind(&projection.input, &inner),
                Expr::Case(case) => {
                    let values = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
                    let values = values.filter(|value| !matches!(&***value, Expr::Literal(v, _) if v.is_null()));
                    let name = |value: &Expr| {
                        let (_, field) = value.to_field(projection.input.schema().as_ref()).ok()?;
                        field.metadata().get(TYPE_NAME).cloned()
                    };
                    let mut names = values.map(|value| name(value));
                    let first = names.next()??;
                    names.all(|name| name.as_ref() == Some(&first)).then_some(first)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The relation that a column of a plan is of, and its number there.
fn origin(plan: &LogicalPlan, column: &Column, catalog: &Catalog) -> Option<Origin> {
    let place = || plan.schema().maybe_index_of_column(column);
    let through = |input: &LogicalPlan, expr: &Expr| match expr {
        Expr::Column(column) => origin(input, column, catalog),
        Expr::Alias(alias) => match &*alias.expr {
            Expr::Column(column) => origin(input, column, catalog),
            _ => None,
        },
        _ => None,
    };
    match plan {
        LogicalPlan::Projection(projection) => through(&projection.input, projection.expr.get(place()?)?),
        LogicalPlan::Aggregate(aggregate) => through(&aggregate.input, aggregate.group_expr.get(place()?)?),
        LogicalPlan::SubqueryAlias(alias) => {
            let place = place()?;
            let view = alias.alias.table();
            if catalog.views.contains_key(view) && !matches!(&*alias.input, LogicalPlan::TableScan(_)) {
                return Some((view.to_owned(), i32::try_from(place + 1).ok()?));
            }
            let inner = Column::from(alias.input.schema().qualified_field(place));
            origin(&alias.input, &inner, catalog)
        }
        LogicalPlan::Filter(filter) => origin(&filter.input, column, catalog),
        LogicalPlan::Sort(sort) => origin(&sort.input, column, catalog),
        LogicalPlan::Limit(limit) => origin(&limit.input, column, catalog),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, column, catalog),
        LogicalPlan::Window(window) => origin(&window.input, column, catalog),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().has_column(column);
            origin(if left { &join.left } else { &join.right }, column, catalog)
        }
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let table = provider.as_ref().downcast_ref::<FluenceTable>()?;
            Some((table.def.name.clone(), column_number(&table.def, &column.name)?))
        }
        _ => None,
    }
}
