//! Functions of the catalogue that need nothing of it: sizes, functions' signatures, texts of arrays; and those that answer the same to all,
//! because what they ask for is not here or not kept from anybody.
//!
//! Sizes   are not known: NULL
//! Rights  whoever is connected owns everything
//! Source  PostgreSQL 15, "System Information Functions", "System Administration Functions"

use super::functions::written;
use super::{oids, pg};
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, ListArray, StringArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// What a function answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Answer {
    True,
    Text(&'static str),
    NoText,
    NoNumber,
    Number(i32),
    /// Bytes, kB, MB: of a number.
    Pretty,
    /// `pg_proc.proargtypes` as types' names.
    Types,
    /// `pg_proc.proretset` and `prorettype` as one.
    Result,
    /// An array's items with something between them.
    Joined,
    /// Whether an array has an item. Some of these tables have texts where PostgreSQL has arrays: they have none.
    Has,
    /// A text with `%s`, `%I` and `%L` in it.
    Format,
    /// For each item of an array, it and its place, as `x` and `n`.
    Expanded,
    /// The places alone.
    Places,
    /// A role's name by its OID.
    Role,
    /// An encoding's name by its number.
    Encoding,
}

/// The functions, by name.
const ALL: &[(&str, Answer)] = &[
    ("fluence_array_text", Answer::Joined),
    ("fluence_expanded", Answer::Expanded),
    ("fluence_places", Answer::Places),
    ("fluence_result_of", Answer::Result),
    ("fluence_types_of", Answer::Types),
    ("fluence_has", Answer::Has),
    ("format", Answer::Format),
    ("getdatabaseencoding", Answer::Text("UTF8")),
    ("has_any_column_privilege", Answer::True),
    ("has_column_privilege", Answer::True),
    ("has_database_privilege", Answer::True),
    ("has_foreign_data_wrapper_privilege", Answer::True),
    ("has_function_privilege", Answer::True),
    ("has_language_privilege", Answer::True),
    ("has_schema_privilege", Answer::True),
    ("has_sequence_privilege", Answer::True),
    ("has_server_privilege", Answer::True),
    ("has_table_privilege", Answer::True),
    ("has_tablespace_privilege", Answer::True),
    ("has_type_privilege", Answer::True),
    ("pg_char_to_encoding", Answer::Number(6)),
    ("pg_database_size", Answer::NoNumber),
    ("pg_encoding_to_char", Answer::Encoding),
    ("pg_get_function_arg_default", Answer::NoText),
    ("pg_get_function_arguments", Answer::NoText),
    ("pg_get_function_identity_arguments", Answer::NoText),
    ("pg_get_function_result", Answer::NoText),
    ("pg_get_function_sqlbody", Answer::NoText),
    ("pg_get_functiondef", Answer::NoText),
    ("pg_get_partition_constraintdef", Answer::NoText),
    ("pg_get_ruledef", Answer::NoText),
    ("pg_get_statisticsobjdef", Answer::NoText),
    ("pg_get_triggerdef", Answer::NoText),
    ("pg_get_userbyid", Answer::Role),
    ("pg_has_role", Answer::True),
    ("pg_indexes_size", Answer::NoNumber),
    ("pg_relation_is_publishable", Answer::True),
    ("pg_relation_size", Answer::NoNumber),
    ("pg_size_pretty", Answer::Pretty),
    ("pg_table_size", Answer::NoNumber),
    ("pg_tablespace_location", Answer::Text("")),
    ("pg_tablespace_size", Answer::NoNumber),
    ("pg_total_relation_size", Answer::NoNumber),
];

#[derive(PartialEq, Eq, Hash, Debug)]
struct Constant {
    name: &'static str,
    answer: Answer,
    signature: Signature,
}

/// A size as PostgreSQL writes it: in the largest unit of which there are ten.
fn pretty(bytes: i64) -> String {
    let (mut size, mut units) = (i128::from(bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    let mut half = false;
    for next in units {
        if size.abs() < if half { 10 * 2048 - 1 } else { 10 * 1024 } {
            break;
        }
        // One bit below the point is kept for rounding.
        size >>= if half { 10 } else { 9 };
        (unit, half) = (next, true);
    }
    let rounded = if half { (size + i128::from(size >= 0)) / 2 } else { size };
    format!("{rounded} {unit}")
}

/// The items of an array, one row's, as text.
fn joined(items: &ArrayRef, between: &str, null: Option<&str>) -> Result<String> {
    let items = cast(items, &DataType::Utf8)?;
    let items = items.as_string::<i32>().iter();
    Ok(items.filter_map(|item| item.or(null)).collect::<Vec<_>>().join(between))
}

/// Whether arrays have items, by their texts; not known where one is NULL that might be it.
fn has(arrays: &[ArrayRef]) -> Result<BooleanArray> {
    let items = cast(&arrays[1], &DataType::Utf8)?;
    let (lists, items) = (arrays[0].as_list_opt::<i32>(), items.as_string::<i32>());
    let row = |(row, item): (usize, Option<&str>)| -> Result<Option<bool>> {
        let Some(lists) = lists.filter(|lists| lists.is_valid(row)) else {
            return Ok(lists.is_none().then_some(false));
        };
        let list = cast(&lists.value(row), &DataType::Utf8)?;
        let list = list.as_string::<i32>();
        Ok(match item {
            Some(item) if list.iter().any(|i| i == Some(item)) => Some(true),
            _ => (list.is_empty() || item.is_some() && list.null_count() == 0).then_some(false),
        })
    };
    items.iter().enumerate().map(row).collect()
}

/// A text with values in the places of its marks.
fn format(text: &str, values: &[Option<String>]) -> Result<String> {
    let wrong = |why: String| DataFusionError::from(SqlError::new(SqlState::InvalidParameter, why));
    let (mut out, mut chars, mut values) = (String::new(), text.chars(), values.iter());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mark = chars.next();
        if mark == Some('%') {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| wrong("too few arguments for format()".to_owned()))?;
        match (mark, value) {
            (Some('s'), value) => out.push_str(value.as_deref().unwrap_or_default()),
            (Some('I'), Some(name)) => out.push_str(&written(name)),
            (Some('I'), None) => return Err(wrong("null values cannot be formatted as an SQL identifier".to_owned())),
            (Some('L'), Some(text)) => out.push_str(&format!("'{}'", text.replace('\'', "''"))),
            (Some('L'), None) => out.push_str("NULL"),
            (other, _) => {
                let mark = other.map(String::from).unwrap_or_default();
                return Err(wrong(format!("unrecognized format() type specifier \"{mark}\"")));
            }
        }
    }
    Ok(out)
}

/// The places of the items of arrays; with the items, where they are asked for.
fn expanded(lists: &ArrayRef, with_items: bool) -> Result<ArrayRef> {
    let lists = lists.as_list_opt::<i32>();
    let lists = lists.ok_or_else(|| DataFusionError::Execution("_pg_expandarray of what is no array".to_owned()))?;
    let places = (0..lists.len()).flat_map(|row| 1..=lists.value_length(row));
    let places: ArrayRef = Arc::new(places.collect::<Int32Array>());
    // The items of the rows, and nothing that lies between.
    let (first, last) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
    let items = lists.values().slice(first as usize, (last - first) as usize);
    let values: ArrayRef = match with_items {
        false => places,
        true => Arc::new(StructArray::try_new(pair(items.data_type()), vec![items, places], None)?),
    };
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths((0..lists.len()).map(|row| lists.value_length(row) as usize));
    Ok(Arc::new(ListArray::try_new(item, offsets, values, lists.nulls().cloned())?))
}

/// An item and its place.
fn pair(item: &DataType) -> Fields {
    Fields::from(vec![Field::new("x", item.clone(), true), Field::new("n", DataType::Int32, true)])
}

impl Constant {
    fn text(&self, arrays: &[ArrayRef], rows: usize) -> Result<StringArray> {
        let first = |to: DataType| cast(&arrays[0], &to);
        Ok(match self.answer {
            Answer::Pretty => {
                first(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(|n| n.map(pretty)).collect()
            }
            Answer::Role => {
                let role = |oid: i64| match oid == i64::from(pg::OWNER) {
                    true => pg::OWNER_NAME.to_owned(),
                    false => format!("unknown (OID={oid})"),
                };
                first(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(|n| n.map(role)).collect()
            }
            Answer::Encoding => {
                let name = |n: i64| if n == 6 { "UTF8" } else { "" };
                first(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(|n| n.map(name)).collect()
            }
            Answer::Types => {
                let name = |oid: &str| oid.parse().ok().and_then(oids::type_name).unwrap_or_else(|| oid.to_owned());
                let all = |text: &str| text.split_whitespace().map(name).collect::<Vec<_>>().join(", ");
                first(DataType::Utf8)?.as_string::<i32>().iter().map(|text| text.map(all)).collect()
            }
            Answer::Result => {
                let (sets, types) = (first(DataType::Boolean)?, cast(&arrays[1], &DataType::Int64)?);
                let of = |(set, oid): (Option<bool>, Option<i64>)| {
                    let name = u32::try_from(oid?).ok().and_then(oids::type_name)?;
                    Some(if set == Some(true) { format!("SETOF {name}") } else { name })
                };
                sets.as_boolean().iter().zip(types.as_primitive::<Int64Type>()).map(of).collect()
            }
            Answer::Format => {
                let texts = arrays.iter().map(|a| cast(a, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
                let at = |array: &ArrayRef, row| {
                    let texts = array.as_string::<i32>();
                    texts.is_valid(row).then(|| texts.value(row).to_owned())
                };
                let row = |row: usize| -> Result<Option<String>> {
                    let Some(text) = at(&texts[0], row) else { return Ok(None) };
                    let values: Vec<_> = texts[1..].iter().map(|array| at(array, row)).collect();
                    format(&text, &values).map(Some)
                };
                (0..rows).map(row).collect::<Result<Vec<_>>>()?.into_iter().collect()
            }
            Answer::Joined => {
                let between = cast(&arrays[1], &DataType::Utf8)?;
                let null = arrays.get(2).map(|null| cast(null, &DataType::Utf8)).transpose()?;
                let at = |array: &ArrayRef, row: usize| {
                    let texts = array.as_string::<i32>();
                    texts.is_valid(row).then(|| texts.value(row).to_owned())
                };
                match arrays[0].as_list_opt::<i32>() {
                    // Some of these tables have texts where PostgreSQL has arrays.
                    None => first(DataType::Utf8)?.as_string::<i32>().clone(),
                    Some(lists) => {
                        let row = |row: usize| -> Result<Option<String>> {
                            let (true, Some(between)) = (lists.is_valid(row), at(&between, row)) else {
                                return Ok(None);
                            };
                            let null = null.as_ref().and_then(|null| at(null, row));
                            joined(&lists.value(row), &between, null.as_deref()).map(Some)
                        };
                        (0..rows).map(row).collect::<Result<Vec<_>>>()?.into_iter().collect()
                    }
                }
            }
            _ => StringArray::new_null(rows),
        })
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        Ok(match self.answer {
            Answer::Places => list(DataType::Int32),
            Answer::Expanded => match args {
                [DataType::List(item)] => list(DataType::Struct(pair(item.data_type()))),
                _ => return Err(DataFusionError::Plan("_pg_expandarray takes an array".to_owned())),
            },
            Answer::True | Answer::Has => DataType::Boolean,
            Answer::NoNumber => DataType::Int64,
            Answer::Number(_) => DataType::Int32,
            _ => DataType::Utf8,
        })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(match self.answer {
            Answer::True => ScalarValue::Boolean(Some(true)),
            Answer::Text(text) => ScalarValue::Utf8(Some(text.to_owned())),
            Answer::NoText => ScalarValue::Utf8(None),
            Answer::NoNumber => ScalarValue::Int64(None),
            Answer::Number(number) => ScalarValue::Int32(Some(number)),
            _ => {
                let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
                if self.answer == Answer::Has {
                    return Ok(ColumnarValue::Array(Arc::new(has(&arrays)?)));
                }
                if matches!(self.answer, Answer::Expanded | Answer::Places) {
                    return Ok(ColumnarValue::Array(expanded(&arrays[0], self.answer == Answer::Expanded)?));
                }
                return Ok(ColumnarValue::Array(Arc::new(self.text(&arrays, args.number_rows)?)));
            }
        }))
    }
}

/// Has a session know them.
pub(in crate::sql) fn register(context: &SessionContext) {
    for &(name, answer) in ALL {
        let signature = match answer {
            Answer::Pretty | Answer::Types | Answer::Role | Answer::Encoding | Answer::Expanded | Answer::Places => {
                Signature::any(1, Volatility::Stable)
            }
            Answer::Joined => Signature::one_of(vec![TypeSignature::Any(2), TypeSignature::Any(3)], Volatility::Stable),
            _ => {
                let widths = (1..=4).map(TypeSignature::Any).chain([TypeSignature::Nullary]);
                Signature::one_of(widths.collect(), Volatility::Stable)
            }
        };
        context.register_udf(ScalarUDF::new_from_impl(Constant { name, answer, signature }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_postgresql_writes_them() {
        // SELECT pg_size_pretty(..) of PostgreSQL 15.
        for (bytes, text) in [
            (0, "0 bytes"),
            (10239, "10239 bytes"),
            (10240, "10 kB"),
            (10752, "11 kB"),
            (10 * 1024 * 1024 - 1, "10 MB"),
            (-10240, "-10 kB"),
            (1 << 40, "1024 GB"),
        ] {
            assert_eq!(pretty(bytes), text, "{bytes}");
        }
    }
}
