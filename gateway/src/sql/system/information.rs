//! `information_schema`: the same in the words of the SQL standard.

use super::rows::{Cell, Kind, row, table as of_rows};
use super::{Columns, Object, Objects, What, sequence_name, type_of};
use datafusion::common::Result;
use datafusion::datasource::TableProvider;
use pgwire::api::Type;
use std::sync::Arc;

/// What is here.
pub(super) const NAMES: &[&str] = &[
    "check_constraints",
    "columns",
    "constraint_column_usage",
    "key_column_usage",
    "parameters",
    "referential_constraints",
    "routines",
    "schemata",
    "sequences",
    "table_constraints",
    "tables",
    "triggers",
    "views",
];

/// A view by name.
pub(super) fn table(
    name: &str,
    objects: &Objects,
    columns: &Columns,
    database: &str,
) -> Result<Arc<dyn TableProvider>> {
    match name {
        "check_constraints" => check_constraints(objects, database),
        "columns" => self::columns(objects, columns, database),
        "constraint_column_usage" => usage(objects, columns, database, false),
        "key_column_usage" => usage(objects, columns, database, true),
        "schemata" => schemata(database),
        "sequences" => sequences(objects, database),
        "table_constraints" => table_constraints(objects, database),
        "tables" => tables(objects, database),
        "views" => views(objects, database),
        // There are none of these; their columns are those that tools name.
        "referential_constraints" => of_rows(
            &texts(&[
                "constraint_catalog",
                "constraint_schema",
                "constraint_name",
                "unique_constraint_catalog",
                "unique_constraint_schema",
                "unique_constraint_name",
                "match_option",
                "update_rule",
                "delete_rule",
            ]),
            &[],
        ),
        "triggers" => of_rows(
            &texts(&[
                "trigger_catalog",
                "trigger_schema",
                "trigger_name",
                "event_manipulation",
                "event_object_schema",
                "event_object_table",
                "action_statement",
            ]),
            &[],
        ),
        _ => of_rows(
            &texts(&[
                "specific_catalog",
                "specific_schema",
                "specific_name",
                "routine_schema",
                "routine_name",
                "data_type",
            ]),
            &[],
        ),
    }
}

fn texts<'a>(names: &[&'a str]) -> Vec<(&'a str, Kind)> {
    names.iter().map(|n| (*n, Kind::Text)).collect()
}

fn yes(on: bool) -> &'static str {
    if on { "YES" } else { "NO" }
}

/// A type's name in the standard.
fn standard_name(ty: &Type) -> &str {
    match *ty {
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::BOOL => "boolean",
        Type::VARCHAR => "character varying",
        Type::BPCHAR => "character",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        _ if matches!(ty.kind(), postgres_types::Kind::Array(_)) => "ARRAY",
        _ => ty.name(),
    }
}

fn columns(objects: &Objects, columns: &Columns, database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("column_name", Kind::Text),
        ("ordinal_position", Kind::Int4),
        ("column_default", Kind::Text),
        ("is_nullable", Kind::Text),
        ("data_type", Kind::Text),
        ("character_maximum_length", Kind::Int4),
        ("character_octet_length", Kind::Int4),
        ("numeric_precision", Kind::Int4),
        ("numeric_precision_radix", Kind::Int4),
        ("numeric_scale", Kind::Int4),
        ("datetime_precision", Kind::Int4),
        ("udt_catalog", Kind::Text),
        ("udt_schema", Kind::Text),
        ("udt_name", Kind::Text),
        ("is_identity", Kind::Text),
        ("identity_generation", Kind::Text),
        ("is_generated", Kind::Text),
        ("generation_expression", Kind::Text),
        ("is_updatable", Kind::Text),
        ("collation_name", Kind::Text),
        ("domain_name", Kind::Text),
    ];
    let mut rows = Vec::new();
    for Object { name, what, .. } in &objects.relations {
        let (Some(schema), What::Table(_) | What::View(_)) = (columns.get(name), what) else { continue };
        for (at, field) in schema.fields().iter().enumerate() {
            let (ty, modifier) = type_of(field);
            let def = match what {
                What::Table(def) => def.visible().find(|c| c.name == *field.name()),
                _ => None,
            };
            let identity = def.is_some_and(|c| c.identity);
            let chars = (modifier >= 4 && ty != Type::NUMERIC).then(|| modifier - 4);
            let (precision, radix, scale) = numbers(&ty, modifier);
            let times = matches!(ty, Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME);
            let places = if times { Some(6) } else { (ty == Type::DATE).then_some(0) };
            rows.push(row![
                database,
                "public",
                name.as_str(),
                field.name().as_str(),
                at + 1,
                def.and_then(|c| c.default.clone()),
                yes(field.is_nullable()),
                standard_name(&ty),
                chars,
                chars.map(|c| c.saturating_mul(4)),
                precision,
                radix,
                scale,
                places,
                database,
                "pg_catalog",
                ty.name(),
                yes(identity),
                identity.then_some("BY DEFAULT"),
                "NEVER",
                Cell::Null,
                yes(def.is_some()),
                Cell::Null,
                Cell::Null,
            ]);
        }
    }
    of_rows(&shape, &rows)
}

/// Digits of a number, their base, and those after the point.
fn numbers(ty: &Type, modifier: i32) -> (Option<i32>, Option<i32>, Option<i32>) {
    match *ty {
        Type::INT2 => (Some(16), Some(2), Some(0)),
        Type::INT4 => (Some(32), Some(2), Some(0)),
        Type::INT8 => (Some(64), Some(2), Some(0)),
        Type::FLOAT4 => (Some(24), Some(2), None),
        Type::FLOAT8 => (Some(53), Some(2), None),
        Type::NUMERIC if modifier >= 4 => (Some((modifier - 4) >> 16), Some(10), Some((modifier - 4) & 0xffff)),
        Type::NUMERIC => (None, Some(10), None),
        _ => (None, None, None),
    }
}

fn tables(objects: &Objects, database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape = texts(&["table_catalog", "table_schema", "table_name", "table_type", "is_insertable_into"]);
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for Object { name, what, .. } in &objects.relations {
        match what {
            What::Table(_) => rows.push(row![database, "public", name.as_str(), "BASE TABLE", "YES"]),
            What::View(_) => rows.push(row![database, "public", name.as_str(), "VIEW", "NO"]),
            _ => {}
        }
    }
    for name in NAMES {
        rows.push(row![database, "information_schema", *name, "VIEW", "NO"]);
    }
    for name in super::pg::NAMES {
        rows.push(row![database, "pg_catalog", *name, "BASE TABLE", "NO"]);
    }
    of_rows(&shape, &rows)
}

fn views(objects: &Objects, database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape =
        texts(&["table_catalog", "table_schema", "table_name", "view_definition", "check_option", "is_updatable"]);
    let of = |o: &Object| match &o.what {
        What::View(query) => Some(row![database, "public", o.name.as_str(), query.as_str(), "NONE", "NO"]),
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}

fn schemata(database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape = texts(&["catalog_name", "schema_name", "schema_owner"]);
    let rows: Vec<Vec<Cell>> =
        ["public", "information_schema", "pg_catalog"].into_iter().map(|n| row![database, n, "fluence"]).collect();
    of_rows(&shape, &rows)
}

fn sequences(objects: &Objects, database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape =
        texts(&["sequence_catalog", "sequence_schema", "sequence_name", "data_type", "start_value", "increment"]);
    let of = |o: &Object| match &o.what {
        What::Sequence(def, column) => Some(row![database, "public", sequence_name(def, column), "bigint", "1", "1"]),
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}

fn kind_in_words(kind: &str) -> &'static str {
    match kind {
        "p" => "PRIMARY KEY",
        "u" => "UNIQUE",
        _ => "CHECK",
    }
}

fn table_constraints(objects: &Objects, database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape = texts(&[
        "constraint_catalog",
        "constraint_schema",
        "constraint_name",
        "table_catalog",
        "table_schema",
        "table_name",
        "constraint_type",
        "is_deferrable",
        "initially_deferred",
        "enforced",
    ]);
    let of = |c: &super::Constraint| {
        let (name, table) = (c.name.as_str(), c.table.name.as_str());
        row![database, "public", name, database, "public", table, kind_in_words(c.kind), "NO", "NO", "YES"]
    };
    of_rows(&shape, &objects.constraints.iter().map(of).collect::<Vec<_>>())
}

fn check_constraints(objects: &Objects, database: &str) -> Result<Arc<dyn TableProvider>> {
    let shape = texts(&["constraint_catalog", "constraint_schema", "constraint_name", "check_clause"]);
    let of =
        |c: &super::Constraint| c.check.clone().map(|e| row![database, "public", c.name.as_str(), format!("({e})")]);
    of_rows(&shape, &objects.constraints.iter().filter_map(of).collect::<Vec<_>>())
}

/// Which columns a constraint is about: with their places in it, those of keys.
fn usage(objects: &Objects, columns: &Columns, database: &str, places: bool) -> Result<Arc<dyn TableProvider>> {
    let mut shape = if places {
        texts(&[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
        ])
    } else {
        texts(&[
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
        ])
    };
    if places {
        shape.extend([("ordinal_position", Kind::Int4), ("position_in_unique_constraint", Kind::Int4)]);
    }
    let mut rows = Vec::new();
    for constraint in &objects.constraints {
        let (name, table) = (constraint.name.as_str(), constraint.table.name.as_str());
        let Some(schema) = columns.get(table) else { continue };
        for (at, number) in constraint.columns.iter().enumerate() {
            let Some(place) = usize::try_from(number - 1).ok().filter(|p| *p < schema.fields().len()) else { continue };
            let column = schema.field(place).name().as_str();
            rows.push(if places {
                row![database, "public", name, database, "public", table, column, at + 1, Cell::Null]
            } else {
                row![database, "public", table, column, database, "public", name]
            });
        }
    }
    of_rows(&shape, &rows)
}
