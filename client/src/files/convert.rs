//! Arrow's types to ours: which column a field makes, and its arrays as arrays of that column.
//!
//! ```text
//! integers to 64 bits -> int64      uint64 -> decimal(20,0)      decimals to 28 digits -> decimal      floats -> float64
//! strings -> text      binary -> bytes      bool      date32, date64 -> date      timestamps of any unit and zone -> timestamp (us, UTC)
//! dictionaries -> what they hold      times, durations, intervals, lists, structs, maps, unions, null -> refused
//! ```
//! Rule    a timestamp without a zone is taken as UTC; one that is no whole microsecond is refused, value by value.

use super::{FileError, cast, cut, no_fit};
use crate::schema::Column;
use crate::value::{ColumnBuilder, ColumnType, DECIMAL_PRECISION_MAX, VALUE_BYTES_MAX, Value};
use arrow_array::cast::AsArray;
use arrow_array::types as t;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field, TimeUnit};
use std::sync::Arc;

/// The column that a field makes, or why it makes none.
pub(super) fn natural(data: &DataType) -> Result<ColumnType, &'static str> {
    Ok(match data {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => ColumnType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => ColumnType::Int64,
        DataType::UInt64 => ColumnType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 | DataType::Float64 => ColumnType::Float64,
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => match u8::try_from(*s) {
            Ok(scale) if *p > 0 && *p <= DECIMAL_PRECISION_MAX && scale <= *p => {
                ColumnType::Decimal { precision: *p, scale }
            }
            _ => {
                return Err(
                    "a decimal here has 1 to 28 digits; --types COL=decimal(28,S) takes it where its values fit",
                );
            }
        },
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnType::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ColumnType::Bytes,
        DataType::FixedSizeBinary(n) if *n > 0 => ColumnType::Bytes,
        DataType::Boolean => ColumnType::Bool,
        DataType::Date32 | DataType::Date64 => ColumnType::Date,
        DataType::Timestamp(..) => ColumnType::Timestamp,
        DataType::Dictionary(_, values) => natural(values)?,
        DataType::Time32(_) | DataType::Time64(_) => {
            return Err("there is no column of times of day; leave it out, or write it as text");
        }
        DataType::Duration(_) | DataType::Interval(_) => {
            return Err("there is no column of durations; write it as an integer or text");
        }
        DataType::Null => return Err("it holds nothing but NULL and has no type; leave it out"),
        _ => return Err("nested columns are not kept; write what is inside as columns of their own, or as text"),
    })
}

/// The columns that fields make; `types` says otherwise for some.
pub(super) fn columns<'a>(
    fields: impl Iterator<Item = &'a Field>,
    types: &[(String, ColumnType)],
) -> Result<Vec<Column>, FileError> {
    let column = |field: &Field| {
        let wanted = types.iter().find(|(name, _)| name == field.name()).map(|(_, ty)| *ty);
        let refused =
            |why| FileError::Column { column: cut(field.name()), ty: cut(&field.data_type().to_string()), why };
        let ty = match (natural(field.data_type()), wanted) {
            (Ok(natural), Some(wanted)) if !castable(natural, wanted) => {
                return Err(refused("it cannot be read as the type that --types names"));
            }
            (Ok(natural), wanted) => wanted.unwrap_or(natural),
            (Err(_), Some(wanted))
                if is_decimal(field.data_type()) && matches!(wanted, ColumnType::Decimal { .. } | ColumnType::Text) =>
            {
                wanted
            }
            (Err(why), _) => return Err(refused(why)),
        };
        Ok(Column { name: field.name().clone(), ty, nullable: field.is_nullable(), public: false, bits: None })
    };
    fields.map(column).collect()
}

const fn is_decimal(data: &DataType) -> bool {
    matches!(
        data,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// Whether some value of one type is one of the other.
const fn castable(from: ColumnType, to: ColumnType) -> bool {
    use ColumnType as C;
    match (from, to) {
        (C::Text, _) | (C::Int64 | C::Decimal { .. }, C::Int64 | C::Decimal { .. }) => true,
        (C::Bytes, to) => matches!(to, C::Bytes),
        (_, C::Text) => true,
        (C::Int64, C::Float64) | (C::Date, C::Timestamp) | (C::Timestamp, C::Date) => true,
        (C::Float64, C::Float64) | (C::Bool, C::Bool) | (C::Date, C::Date) | (C::Timestamp, C::Timestamp) => true,
        _ => false,
    }
}

/// Checks that fields can be read as columns of a table, before a row is.
pub(super) fn check<'a>(fields: impl Iterator<Item = &'a Field>, columns: &[Column]) -> Result<(), FileError> {
    let types: Vec<(String, ColumnType)> = columns.iter().map(|c| (c.name.clone(), c.ty)).collect();
    self::columns(fields, &types).map(|_| ())
}

/// An array as an array of a column; `before` is the number of rows read before it.
pub(super) fn array(array: &ArrayRef, column: &Column, before: u64) -> Result<ArrayRef, FileError> {
    if !column.nullable
        && let Some(row) = (0..array.len()).find(|row| is_null(array, *row))
    {
        return Err(FileError::Null { row: before + row as u64 + 1, column: column.name.clone() });
    }
    let same = *array.data_type() == column.ty.data_type();
    if same && !matches!(column.ty, ColumnType::Text | ColumnType::Bytes | ColumnType::Decimal { .. }) {
        return Ok(Arc::clone(array));
    }
    let mut builder = ColumnBuilder::new(column.ty, array.len());
    for row in 0..array.len() {
        let refused = |text: &str| no_fit(before + row as u64 + 1, column, text);
        let found = value(array, row).map_err(|text| refused(&text))?;
        match cast(found, column.ty) {
            Some(fits) if builder.push(&fits) => {}
            _ => return Err(refused(&value(array, row).map_or_else(|text| text, |found| found.to_string()))),
        }
    }
    Ok(builder.finish())
}

fn is_null(array: &ArrayRef, row: usize) -> bool {
    match array.as_any_dictionary_opt() {
        Some(dictionary) => key(dictionary.keys(), row).is_none_or(|at| dictionary.values().is_null(at)),
        None => array.is_null(row),
    }
}

/// The place in a dictionary's values; `None` for NULL.
fn key(keys: &dyn Array, row: usize) -> Option<usize> {
    macro_rules! at {
        ($($data:ident $ty:ident),*) => {
            match keys.data_type() {
                $(DataType::$data => usize::try_from(keys.as_primitive::<t::$ty>().value(row)).ok(),)*
                _ => None,
            }
        };
    }
    if keys.is_null(row) {
        return None;
    }
    at!(Int8 Int8Type, Int16 Int16Type, Int32 Int32Type, Int64 Int64Type, UInt8 UInt8Type, UInt16 UInt16Type, UInt32 UInt32Type, UInt64 UInt64Type)
}

/// The value at a row; as text where no value of ours is that.
fn value(array: &ArrayRef, row: usize) -> Result<Value, String> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        return match key(dictionary.keys(), row) {
            Some(at) if at < dictionary.values().len() => value(dictionary.values(), at),
            Some(at) => Err(format!("entry {at} of a dictionary of {}", dictionary.values().len())),
            None => Ok(Value::Null),
        };
    }
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! integer {
        ($ty:ident) => {
            Value::Int64(i64::from(array.as_primitive::<t::$ty>().value(row)))
        };
    }
    let decimal = |unscaled: Option<i128>, scale: i8, text: String| match (unscaled, u8::try_from(scale)) {
        (Some(unscaled), Ok(scale)) => Ok(Value::Decimal { unscaled, scale }),
        _ => Err(text),
    };
    let bytes = |b: &[u8]| Value::Bytes(b.to_vec());
    Ok(match array.data_type() {
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => {
            Value::Decimal { unscaled: i128::from(array.as_primitive::<t::UInt64Type>().value(row)), scale: 0 }
        }
        DataType::Float16 => Value::Float64(array.as_primitive::<t::Float16Type>().value(row).to_f64()),
        DataType::Float32 => Value::Float64(f64::from(array.as_primitive::<t::Float32Type>().value(row))),
        DataType::Float64 => Value::Float64(array.as_primitive::<t::Float64Type>().value(row)),
        DataType::Decimal32(_, s) => {
            let v = array.as_primitive::<t::Decimal32Type>().value(row);
            decimal(Some(i128::from(v)), *s, v.to_string())?
        }
        DataType::Decimal64(_, s) => {
            let v = array.as_primitive::<t::Decimal64Type>().value(row);
            decimal(Some(i128::from(v)), *s, v.to_string())?
        }
        DataType::Decimal128(_, s) => {
            let v = array.as_primitive::<t::Decimal128Type>().value(row);
            decimal(Some(v), *s, v.to_string())?
        }
        DataType::Decimal256(_, s) => {
            let v = array.as_primitive::<t::Decimal256Type>().value(row);
            decimal(v.to_i128(), *s, v.to_string())?
        }
        DataType::Utf8 => text(array.as_string::<i32>().value(row))?,
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row))?,
        DataType::Utf8View => text(array.as_string_view().value(row))?,
        DataType::Binary => bytes(short(array.as_binary::<i32>().value(row))?),
        DataType::LargeBinary => bytes(short(array.as_binary::<i64>().value(row))?),
        DataType::BinaryView => bytes(short(array.as_binary_view().value(row))?),
        DataType::FixedSizeBinary(_) => bytes(short(array.as_fixed_size_binary().value(row))?),
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Date32 => Value::Date(array.as_primitive::<t::Date32Type>().value(row)),
        DataType::Date64 => {
            const DAY_MS: i64 = 86_400_000;
            let ms = array.as_primitive::<t::Date64Type>().value(row);
            match (ms % DAY_MS, i32::try_from(ms / DAY_MS)) {
                (0, Ok(days)) => Value::Date(days),
                _ => return Err(format!("{ms} ms since 1970")),
            }
        }
        DataType::Timestamp(unit, _) => {
            let (v, scaled) = match unit {
                TimeUnit::Second => {
                    let v = array.as_primitive::<t::TimestampSecondType>().value(row);
                    (v, v.checked_mul(1_000_000))
                }
                TimeUnit::Millisecond => {
                    let v = array.as_primitive::<t::TimestampMillisecondType>().value(row);
                    (v, v.checked_mul(1_000))
                }
                TimeUnit::Microsecond => {
                    let v = array.as_primitive::<t::TimestampMicrosecondType>().value(row);
                    (v, Some(v))
                }
                TimeUnit::Nanosecond => {
                    let v = array.as_primitive::<t::TimestampNanosecondType>().value(row);
                    (v, (v % 1_000 == 0).then_some(v / 1_000))
                }
            };
            Value::Timestamp(scaled.ok_or_else(|| format!("{v} {unit:?}s since 1970, no whole microsecond in range,"))?)
        }
        other => return Err(format!("a value of type {other}")),
    })
}

/// Long values are refused before they are copied: one page of a file may hold a dictionary entry that every row names.
fn short(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.len() > VALUE_BYTES_MAX { Err(format!("a value of {} bytes", bytes.len())) } else { Ok(bytes) }
}

fn text(text: &str) -> Result<Value, String> {
    short(text.as_bytes())?;
    Ok(Value::Text(text.to_owned()))
}
