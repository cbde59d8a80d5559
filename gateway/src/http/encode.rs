//! Rows of Arrow batches as JSON.
//!
//! | SQL | JSON |
//! |---|---|
//! | boolean | true, false |
//! | integers | a number up to 2^53 - 1 either way, beyond a string of digits |
//! | real, double precision | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | numeric | a string of digits |
//! | bytea | `"\\x0aff"` |
//! | date; timestamps | `"2013-05-01"`; `"2013-05-01T12:00:00.123456"`, with a `Z` where it has a time zone, which is UTC |
//! | arrays | an array |
//! | text and all else | a string, in PostgreSQL's words |
//! | NULL | null |

use crate::error::SqlError;
use crate::pg_type::{decimal, type_modifier, type_of};
use crate::sql::copy::text_of;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use serde::Serialize;
use utoipa::ToSchema;

/// The largest integer that every JSON reader keeps.
const EXACT_MAX: u64 = (1 << 53) - 1;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ColumnInfo {
    /// Its name.
    name: String,
    /// Its SQL type: `bigint`, `text`, `numeric`, `timestamp with time zone`, `bigint[]`, ..
    #[serde(rename = "type")]
    type_name: String,
    /// Digits of a numeric.
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<u8>,
    /// Digits of a numeric after the point.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<i8>,
}

impl ColumnInfo {
    /// A column.
    pub(super) fn new(field: &Field) -> Result<Self, SqlError> {
        // Without a modifier a numeric was declared without digits.
        let digits = decimal(field.data_type()).filter(|_| type_modifier(field) >= 0);
        let (precision, scale) = digits.unzip();
        Ok(Self { name: field.name().clone(), type_name: type_name(field)?, precision, scale })
    }
}

/// The columns of an answer.
pub(super) fn columns(schema: &Schema) -> Result<Vec<ColumnInfo>, SqlError> {
    schema.fields().iter().map(|field| ColumnInfo::new(field)).collect()
}

/// The SQL name of a column's type.
fn type_name(field: &Field) -> Result<String, SqlError> {
    let pg = type_of(field)?;
    let (item, array) = pg.name().strip_prefix('_').map_or((pg.name(), ""), |item| (item, "[]"));
    let name = match item {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float4" => "real",
        "float8" => "double precision",
        "timestamptz" => "timestamp with time zone",
        "varchar" => "character varying",
        "bpchar" => "character",
        other => other,
    };
    Ok(format!("{name}{array}"))
}

/// Appends a row as a JSON array.
///
/// # Errors
/// A value that has no form.
pub(super) fn row(batch: &RecordBatch, row: usize, out: &mut Vec<u8>) -> Result<(), SqlError> {
    list(batch.columns().iter().map(|column| (column, row)), out)
}

fn list<'a>(values: impl Iterator<Item = (&'a ArrayRef, usize)>, out: &mut Vec<u8>) -> Result<(), SqlError> {
    out.push(b'[');
    for (index, (array, row)) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        value(array, row, out)?;
    }
    out.push(b']');
    Ok(())
}

fn integer<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    let value: i128 = array.as_primitive::<T>().value(row).into();
    let quoted = value.unsigned_abs() > u128::from(EXACT_MAX);
    let text = value.to_string();
    out.extend(quoted.then_some(b'"'));
    out.extend_from_slice(text.as_bytes());
    out.extend(quoted.then_some(b'"'));
}

fn double(value: f64, shortest: &impl Serialize, out: &mut Vec<u8>) {
    match value {
        v if v.is_nan() => out.extend_from_slice(b"\"NaN\""),
        f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
        f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
        _ => serde_json::to_writer(out, shortest).expect("a number into memory"),
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string into memory");
}

/// Microseconds since 1970; the ends of the range for what is beyond.
fn micros(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000),
    }
}

/// Appends a value.
fn value(array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), SqlError> {
    if array.is_null(row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match array.data_type() {
        DataType::Boolean => out.extend_from_slice(if array.as_boolean().value(row) { b"true" } else { b"false" }),
        DataType::Int8 => integer::<Int8Type>(array, row, out),
        DataType::Int16 => integer::<Int16Type>(array, row, out),
        DataType::Int32 => integer::<Int32Type>(array, row, out),
        DataType::Int64 => integer::<Int64Type>(array, row, out),
        DataType::UInt8 => integer::<UInt8Type>(array, row, out),
        DataType::UInt16 => integer::<UInt16Type>(array, row, out),
        DataType::UInt32 => integer::<UInt32Type>(array, row, out),
        DataType::UInt64 => integer::<UInt64Type>(array, row, out),
        DataType::Float16 => {
            let v = array.as_primitive::<Float16Type>().value(row).to_f32();
            double(f64::from(v), &v, out);
        }
        DataType::Float32 => {
            let v = array.as_primitive::<Float32Type>().value(row);
            double(f64::from(v), &v, out);
        }
        DataType::Float64 => {
            let v = array.as_primitive::<Float64Type>().value(row);
            double(v, &v, out);
        }
        DataType::Decimal32(..) => string(&array.as_primitive::<Decimal32Type>().value_as_string(row), out),
        DataType::Decimal64(..) => string(&array.as_primitive::<Decimal64Type>().value_as_string(row), out),
        DataType::Decimal128(..) => string(&array.as_primitive::<Decimal128Type>().value_as_string(row), out),
        DataType::Decimal256(..) => string(&array.as_primitive::<Decimal256Type>().value_as_string(row), out),
        DataType::Utf8 => string(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => string(array.as_string::<i64>().value(row), out),
        DataType::Utf8View => string(array.as_string_view().value(row), out),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => bytes(array.as_binary_view().value(row), out),
        DataType::Timestamp(unit, zone) => {
            let text = fluence_client::time::timestamp_text(micros(array, *unit, row));
            string(if zone.is_some() { &text } else { text.trim_end_matches('Z') }, out);
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            list((0..items.len()).map(|index| (&items, index)), out)?;
        }
        DataType::LargeList(_) => {
            let items = array.as_list::<i64>().value(row);
            list((0..items.len()).map(|index| (&items, index)), out)?;
        }
        DataType::FixedSizeList(..) => {
            let items = array.as_fixed_size_list().value(row);
            list((0..items.len()).map(|index| (&items, index)), out)?;
        }
        _ => match text_of(array, row)? {
            Some(text) => string(&text, out),
            None => out.extend_from_slice(b"null"),
        },
    }
    Ok(())
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"\\\\x");
    out.extend_from_slice(hex::encode(value).as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, ListArray,
        NullArray, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
    };
    use std::sync::Arc;

    fn json(array: impl Array + 'static) -> String {
        let array: ArrayRef = Arc::new(array);
        let mut out = Vec::new();
        list((0..array.len()).map(|row| (&array, row)), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    #[test]
    fn no_digit_is_lost() {
        let edge = EXACT_MAX as i64;
        assert_eq!(
            json(Int64Array::from(vec![Some(0), Some(edge), Some(-edge), Some(edge + 1), Some(i64::MIN), None])),
            r#"[0,9007199254740991,-9007199254740991,"9007199254740992","-9223372036854775808",null]"#
        );
        assert_eq!(json(UInt64Array::from(vec![u64::MAX])), r#"["18446744073709551615"]"#);
        let wide = Decimal128Array::from(vec![i128::MAX / 10, -5]).with_precision_and_scale(38, 2).unwrap();
        assert_eq!(json(wide), r#"["170141183460469231731687303715884105.72","-0.05"]"#);
        assert_eq!(
            json(Float64Array::from(vec![0.1, -0.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY])),
            r#"[0.1,-0.0,1e+300,"NaN","Infinity","-Infinity"]"#
        );
        assert_eq!(json(Float32Array::from(vec![0.1])), "[0.1]");
    }

    #[test]
    fn every_other_kind_has_its_form() {
        assert_eq!(json(BooleanArray::from(vec![Some(true), Some(false), None])), "[true,false,null]");
        assert_eq!(json(StringArray::from(vec!["a\"\\\n\u{0}\u{e9}"])), "[\"a\\\"\\\\\\n\\u0000\u{e9}\"]");
        assert_eq!(json(BinaryArray::from(vec![&[0x0a, 0xff][..], &[]])), r#"["\\x0aff","\\x"]"#);
        assert_eq!(json(Date32Array::from(vec![15_826])), r#"["2013-05-01"]"#);
        let zoned = TimestampMicrosecondArray::from(vec![1_367_409_600_123_456, -1]).with_timezone("UTC");
        assert_eq!(json(zoned), r#"["2013-05-01T12:00:00.123456Z","1969-12-31T23:59:59.999999Z"]"#);
        assert_eq!(json(TimestampNanosecondArray::from(vec![1_999])), r#"["1970-01-01T00:00:00.000001"]"#);
        assert_eq!(json(NullArray::new(2)), "[null,null]");
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
        assert_eq!(json(lists), "[[1,null],null]");
    }

    #[test]
    fn columns_have_sql_names_of_their_types() {
        let name = |ty| serde_json::to_value(ColumnInfo::new(&Field::new("c", ty, true)).unwrap()).unwrap();
        assert_eq!(name(DataType::Int64), serde_json::json!({"name": "c", "type": "bigint"}));
        assert_eq!(name(DataType::Decimal128(5, 1))["scale"], 1);
        assert_eq!(
            name(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))["type"],
            "timestamp with time zone"
        );
        assert_eq!(name(DataType::new_list(DataType::Int64, true))["type"], "bigint[]");
        assert_eq!(name(DataType::Null)["type"], "text");
    }
}
