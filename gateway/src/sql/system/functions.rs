//! Functions that say how an object is defined, by its OID: `pg_get_indexdef`, `pg_get_constraintdef`, `pg_get_viewdef` and their like.
//!
//! Source  PostgreSQL 15, "System Catalog Information Functions"

use super::{Objects, What, column_name, sequence_name};
use crate::error::{SqlError, SqlState};
use crate::sql::catalog::{IndexDef, TableDef};
use crate::sql::context::Shared;
use crate::sql::quote;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A name as SQL would have it written: in quotes only where it must be.
pub(super) fn written(name: &str) -> String {
    let plain =
        name.chars().enumerate().all(|(i, c)| c.is_ascii_lowercase() || c == '_' || i > 0 && c.is_ascii_digit());
    if plain && !name.is_empty() { name.to_owned() } else { quote(name) }
}

fn list(def: &TableDef, columns: &[String]) -> String {
    columns.iter().map(|c| written(&column_name(def, c))).collect::<Vec<_>>().join(", ")
}

/// The statement that would make an index; of a primary key where `index` is none.
pub(super) fn index_text(name: &str, def: &TableDef, index: Option<&IndexDef>) -> String {
    let (columns, unique) = index.map_or((&def.key, true), |i| (&i.columns, i.unique));
    let unique = if unique { "UNIQUE " } else { "" };
    let (name, table, columns) = (written(name), written(&def.name), list(def, columns));
    format!("CREATE {unique}INDEX {name} ON public.{table} USING btree ({columns})")
}

fn index_of(objects: &Objects, oid: i64, column: Option<i64>) -> Option<String> {
    let object = objects.relations.iter().find(|o| i64::from(o.oid) == oid)?;
    let What::Index(def, index) = &object.what else { return None };
    match column.filter(|c| *c > 0) {
        None => Some(index_text(&object.name, def, index.as_ref())),
        Some(column) => {
            let columns = index.as_ref().map_or(&def.key, |i| &i.columns);
            let physical = columns.get(usize::try_from(column - 1).ok()?)?;
            Some(written(&column_name(def, physical)))
        }
    }
}

/// `pretty`: without the second parentheses around a check.
fn constraint_of(objects: &Objects, oid: i64, pretty: bool) -> Option<String> {
    let constraint = objects.constraints.iter().find(|c| i64::from(c.oid) == oid)?;
    let names = || {
        let shown: Vec<_> = constraint.table.visible().collect();
        let name = |n: &i32| usize::try_from(n - 1).ok().and_then(|at| shown.get(at)).map(|c| written(&c.name));
        constraint.columns.iter().filter_map(name).collect::<Vec<_>>().join(", ")
    };
    Some(match (&constraint.check, constraint.kind) {
        (Some(check), _) if pretty => format!("CHECK ({check})"),
        (Some(check), _) => format!("CHECK (({check}))"),
        (None, "p") => format!("PRIMARY KEY ({})", names()),
        _ => format!("UNIQUE ({})", names()),
    })
}

fn view_of(objects: &Objects, oid: i64) -> Option<String> {
    let object = objects.relations.iter().find(|o| i64::from(o.oid) == oid)?;
    match &object.what {
        What::View(query) => Some(format!(" {query};")),
        _ => None,
    }
}

/// A name as it is kept: without its schema and quotes.
fn bare(name: &str) -> &str {
    name.trim_start_matches("public.").trim_matches('"')
}

/// The sequence of a column: by name, or, of a table given by its OID, as tools cast it, by the sequence's OID.
fn serial_of(objects: &Objects, table: &str, column: &str) -> Option<String> {
    if let Ok(oid) = table.parse::<u32>() {
        let name = &objects.relations.iter().find(|o| o.oid == oid)?.name;
        let sequence =
            |o: &super::Object| matches!(&o.what, What::Sequence(def, c) if def.name == *name && c.name == column);
        return objects.relations.iter().find(|o| sequence(o)).map(|o| o.oid.to_string());
    }
    let table = bare(table);
    objects.relations.iter().find_map(|o| match &o.what {
        What::Sequence(def, c) if def.name == table && c.name == column => {
            Some(format!("public.{}", written(&sequence_name(def, c))))
        }
        _ => None,
    })
}

/// What keeps the numbers of a sequence, by the name that `pg_get_serial_sequence` gives.
fn sequence_of(objects: &Objects, name: &str) -> Result<String, SqlError> {
    let bare = bare(name);
    let found = objects.relations.iter().find_map(|o| match &o.what {
        What::Sequence(def, c) if sequence_name(def, c) == bare => Some(def.sequence(c)),
        _ => None,
    });
    let shown: String = name.chars().take(80).collect();
    found.ok_or_else(|| SqlError::new(SqlState::UndefinedTable, format!("relation \"{shown}\" does not exist")))
}

/// The number that comes next where `value` was given out last, or, not called, is to be given out.
fn next_after(name: &str, value: i64, called: bool) -> Result<i64, SqlError> {
    let next = value.checked_add(i64::from(called)).filter(|_| value >= 1);
    let shown: String = name.chars().take(80).collect();
    next.ok_or_else(|| {
        let why = format!("setval: value {value} is out of bounds for sequence \"{shown}\"");
        SqlError::new(SqlState::NumericValueOutOfRange, why)
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Of {
    Index,
    Constraint,
    View,
    Serial,
    /// The text that is given, which is how expressions are kept.
    Expr,
    /// What the session has chosen, by a name that is no literal.
    Setting,
    /// SET in the words of a function.
    SetConfig,
    /// What a sequence gives next.
    SetVal,
    /// There are no comments.
    Comment(&'static str),
    /// Whether a relation's name needs no schema before it.
    Visible,
    /// The same of what is in `pg_catalog` alone: it never does.
    Known(&'static str),
}

impl Of {
    const ALL: [Self; 24] = [
        Self::SetVal,
        Self::Setting,
        Self::SetConfig,
        Self::Visible,
        Self::Known("pg_collation_is_visible"),
        Self::Known("pg_conversion_is_visible"),
        Self::Known("pg_function_is_visible"),
        Self::Known("pg_opclass_is_visible"),
        Self::Known("pg_operator_is_visible"),
        Self::Known("pg_opfamily_is_visible"),
        Self::Known("pg_statistics_obj_is_visible"),
        Self::Known("pg_ts_config_is_visible"),
        Self::Known("pg_ts_dict_is_visible"),
        Self::Known("pg_ts_parser_is_visible"),
        Self::Known("pg_ts_template_is_visible"),
        Self::Known("pg_type_is_visible"),
        Self::Index,
        Self::Constraint,
        Self::View,
        Self::Serial,
        Self::Expr,
        Self::Comment("obj_description"),
        Self::Comment("col_description"),
        Self::Comment("shobj_description"),
    ];
}

struct Definition {
    of: Of,
    shared: Arc<Shared>,
    signature: Signature,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of.fmt(f)
    }
}
impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.of == other.of && Arc::ptr_eq(&self.shared, &other.shared)
    }
}
impl Eq for Definition {}
impl Hash for Definition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.of.hash(state);
    }
}

impl ScalarUDFImpl for Definition {
    fn name(&self) -> &str {
        match self.of {
            Of::Index => "pg_get_indexdef",
            Of::Constraint => "pg_get_constraintdef",
            Of::View => "pg_get_viewdef",
            Of::Serial => "pg_get_serial_sequence",
            Of::Expr => "pg_get_expr",
            Of::Setting => "current_setting",
            Of::SetConfig => "set_config",
            Of::SetVal => "setval",
            Of::Comment(name) | Of::Known(name) => name,
            Of::Visible => "pg_table_is_visible",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.of {
            Of::Visible | Of::Known(_) => DataType::Boolean,
            Of::SetVal => DataType::Int64,
            _ => DataType::Utf8,
        })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rows = args.number_rows;
        let objects = self.shared.objects(&self.shared.get().catalog);
        if matches!(self.of, Of::Known(_)) {
            return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))));
        }
        if self.of == Of::Visible {
            // What is in `public` or `pg_catalog`; the standard's views are not in the search path.
            let oids = cast(&arrays[0], &DataType::Int64)?;
            let oids = oids.as_primitive::<Int64Type>();
            let visible = |oid: i64| oid >= i64::from(super::FIRST) || !super::pg::is_information(oid);
            let visible: datafusion::arrow::array::BooleanArray = oids.iter().map(|oid| oid.map(visible)).collect();
            return Ok(ColumnarValue::Array(Arc::new(visible)));
        }
        let texts = |i: usize| -> Result<ArrayRef> { Ok(cast(&arrays[i], &DataType::Utf8)?) };
        if self.of == Of::SetVal {
            let [_, _, ..] = arrays.as_slice() else { return exec_err!("setval takes a sequence and a number") };
            let (names, values) = (texts(0)?, cast(&arrays[1], &DataType::Int64)?);
            let values = values.as_primitive::<Int64Type>();
            let called = arrays.get(2).and_then(|a| a.as_boolean_opt());
            let set = |(row, (name, value)): (usize, (Option<&str>, Option<i64>))| -> Result<Option<i64>> {
                let is_called = called.map_or(Some(true), |c| c.is_valid(row).then(|| c.value(row)));
                let (Some(name), Some(value), Some(is_called)) = (name, value, is_called) else { return Ok(None) };
                self.shared.wish_number(sequence_of(&objects, name)?, next_after(name, value, is_called)?);
                Ok(Some(value))
            };
            let rows = names.as_string::<i32>().iter().zip(values).enumerate();
            return Ok(ColumnarValue::Array(Arc::new(rows.map(set).collect::<Result<Int64Array>>()?)));
        }
        let out: StringArray = match self.of {
            Of::Comment(_) => (0..rows).map(|_| None::<String>).collect(),
            Of::Expr => texts(0)?.as_string::<i32>().clone(),
            Of::Setting => {
                let settings = self.shared.settings();
                texts(0)?.as_string::<i32>().iter().map(|name| settings.get(&name?.to_lowercase())).collect()
            }
            Of::SetConfig => {
                let (names, values) = (texts(0)?, texts(1)?);
                let local = arrays.get(2).and_then(|a| a.as_boolean_opt());
                let rows = names.as_string::<i32>().iter().zip(values.as_string::<i32>()).enumerate();
                let set = |(row, (name, value)): (usize, (Option<&str>, Option<&str>))| -> Result<Option<String>> {
                    let Some(name) = name else { return Ok(None) };
                    let local = local.is_some_and(|l| l.is_valid(row) && l.value(row));
                    self.shared.wish(name, value.unwrap_or("default"), local)?;
                    Ok(self.shared.settings().get(&name.to_lowercase()).map(str::to_owned))
                };
                rows.map(set).collect::<Result<Vec<_>>>()?.into_iter().collect()
            }
            Of::Serial => {
                let (tables, columns) = (texts(0)?, texts(1)?);
                let (tables, columns) = (tables.as_string::<i32>(), columns.as_string::<i32>());
                tables.iter().zip(columns).map(|(t, c)| serial_of(&objects, t?, c?)).collect()
            }
            _ => {
                let numbers = |i: usize| -> Result<Vec<Option<i64>>> {
                    Ok(cast(&arrays[i], &DataType::Int64)?.as_primitive::<Int64Type>().iter().collect())
                };
                let oids = numbers(0)?;
                let with_column = arrays.len() > 1 && arrays[1].data_type().is_integer();
                let columns = if with_column { numbers(1)? } else { vec![None; oids.len()] };
                let flags = arrays.get(1).and_then(|a| a.as_boolean_opt());
                let pretty = |row: usize| flags.is_some_and(|f| f.is_valid(row) && f.value(row));
                let one = |(row, (oid, column)): (usize, (Option<i64>, Option<i64>))| match self.of {
                    Of::Index => index_of(&objects, oid?, column),
                    Of::Constraint => constraint_of(&objects, oid?, pretty(row)),
                    _ => view_of(&objects, oid?),
                };
                oids.into_iter().zip(columns).enumerate().map(one).collect()
            }
        };
        debug_assert!(arrays.is_empty() || out.len() == arrays[0].len());
        Ok(ColumnarValue::Array(Arc::new(out)))
    }
}

/// Has a session know them.
pub(in crate::sql) fn register(context: &SessionContext, shared: &Arc<Shared>) {
    for of in Of::ALL {
        let widths = 1..=3;
        let acts = matches!(of, Of::SetConfig | Of::SetVal);
        let volatility = if acts { Volatility::Volatile } else { Volatility::Stable };
        let signature = Signature::one_of(widths.map(TypeSignature::Any).collect(), volatility);
        context.register_udf(ScalarUDF::new_from_impl(Definition { of, shared: Arc::clone(shared), signature }));
    }
}
