//! Where the columns of an answer come from: the OID of a table and the number of its column, as RowDescription tells them.
//!
//! Rule    a column that a table has, through subqueries, joins, groups and orders, as long as it is nothing but that column; a view's are
//!         the view's own
//! Source  PostgreSQL 15, "Message Formats", RowDescription

use super::catalog::Catalog;
use super::context::Shared;
use super::system::{column_number, oid_of};
use super::table::FluenceTable;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use std::sync::Arc;

/// The key of a field's metadata under which it stands: `oid:number`.
const ORIGIN: &str = "fluence.origin";

/// The table and the column's number in it that a field comes from.
pub(crate) fn of(field: &Field) -> Option<(i32, i16)> {
    let (table, column) = field.metadata().get(ORIGIN)?.split_once(':')?;
    Some((table.parse().ok()?, column.parse().ok()?))
}

/// The columns of a plan's answer, each with where it comes from.
pub(crate) fn marked(plan: &LogicalPlan, schema: &SchemaRef, shared: &Shared) -> SchemaRef {
    let catalog = shared.get().catalog;
    let from: Vec<_> = plan.schema().iter().map(|qualified| origin(plan, &Column::from(qualified), &catalog)).collect();
    if from.iter().all(Option::is_none) || from.len() != schema.fields().len() {
        return Arc::clone(schema);
    }
    let objects = shared.objects(&catalog);
    let field = |(field, from): (&Arc<Field>, Option<(String, i32)>)| {
        let mut field = field.as_ref().clone();
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

/// The relation that a column of a plan is of, and its number there.
fn origin(plan: &LogicalPlan, column: &Column, catalog: &Catalog) -> Option<(String, i32)> {
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
