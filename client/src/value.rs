//! Column types and single values, and their one mapping to Arrow.
//!
//! Rule    data moves as Arrow record batches; a [`Value`] is for key bounds, single results and messages.
//!         Each [`ColumnType`] has exactly one Arrow type, so a batch either fits a schema or is refused by column name.

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::sync::Arc;

/// Most digits of a decimal.
pub const DECIMAL_PRECISION_MAX: u8 = 28;
/// Longest text or byte string: a row group of 256 of them stays inside one answer.
pub const VALUE_BYTES_MAX: usize = 32 << 10;
/// Time zone of timestamps.
pub const TIMEZONE: &str = "UTC";

/// What a column holds.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize,
)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum ColumnType {
    /// Signed 64-bit integer.
    Int64 = 1,
    /// Exact number of `precision` digits, `scale` of them after the point.
    Decimal {
        /// Digits in all, 1 to 28.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    } = 2,
    /// IEEE 754 double; kept bit for bit, never summed by a node (its sums depend on order).
    Float64 = 3,
    /// UTF-8.
    Text = 4,
    /// True or false; sums count the true ones.
    Bool = 5,
    /// Microseconds since 1970 in UTC.
    Timestamp = 6,
    /// Days since 1970.
    Date = 7,
    /// Byte string.
    Bytes = 8,
}

impl ColumnType {
    /// The Arrow type of such a column.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Int64 => DataType::Int64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Float64 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(TIMEZONE.into())),
            Self::Date => DataType::Date32,
            Self::Bytes => DataType::Binary,
        }
    }

    /// Whether exact sums of the column exist.
    #[must_use]
    pub const fn summable(self) -> bool {
        matches!(self, Self::Int64 | Self::Decimal { .. } | Self::Bool)
    }

    /// Digits after the point of a summable column's values.
    #[must_use]
    pub const fn scale(self) -> u32 {
        match self {
            Self::Decimal { scale, .. } => scale as u32,
            _ => 0,
        }
    }

    /// Bits that hold the magnitude of every value of a summable column, as an integer of its scale.
    #[must_use]
    pub const fn magnitude_bits(self) -> u32 {
        match self {
            // 2^63 is the magnitude of the least int64.
            Self::Int64 => 64,
            Self::Decimal { precision, .. } => u128::BITS - (10u128.pow(precision as u32) - 1).leading_zeros(),
            _ => 1,
        }
    }

    /// Whether `value` may stand in a column of this type (NULL may, where the column is nullable).
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null)
            | (Self::Int64, Value::Int64(_))
            | (Self::Float64, Value::Float64(_))
            | (Self::Bool, Value::Bool(_))
            | (Self::Timestamp, Value::Timestamp(_))
            | (Self::Date, Value::Date(_)) => true,
            (Self::Decimal { precision, scale }, Value::Decimal { unscaled, scale: s }) => {
                *s == scale && unscaled.unsigned_abs() < 10u128.pow(u32::from(precision))
            }
            (Self::Text, Value::Text(t)) => t.len() <= VALUE_BYTES_MAX,
            (Self::Bytes, Value::Bytes(b)) => b.len() <= VALUE_BYTES_MAX,
            _ => false,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int64 => f.write_str("int64"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Float64 => f.write_str("float64"),
            Self::Text => f.write_str("text"),
            Self::Bool => f.write_str("bool"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::Bytes => f.write_str("bytes"),
        }
    }
}

/// A text that names no column type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no column type; known: int64, decimal(p,s) with p up to {DECIMAL_PRECISION_MAX}, float64, text, bool, timestamp, date, bytes"
)]
pub struct UnknownType(String);

impl std::str::FromStr for ColumnType {
    type Err = UnknownType;
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let unknown = || UnknownType(text.chars().take(80).collect());
        Ok(match text {
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "text" => Self::Text,
            "bool" => Self::Bool,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "bytes" => Self::Bytes,
            _ => {
                let inner = text.strip_prefix("decimal(").and_then(|t| t.strip_suffix(')')).ok_or_else(unknown)?;
                let (p, s) = inner.split_once(',').unwrap_or((inner, "0"));
                let (precision, scale) =
                    (p.trim().parse().map_err(|_| unknown())?, s.trim().parse().map_err(|_| unknown())?);
                if precision == 0 || precision > DECIMAL_PRECISION_MAX || scale > precision {
                    return Err(unknown());
                }
                Self::Decimal { precision, scale }
            }
        })
    }
}

/// One value.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Value {
    /// SQL's NULL.
    Null,
    /// An integer.
    Int64(i64),
    /// `unscaled / 10^scale`.
    Decimal {
        /// The digits as an integer.
        unscaled: i128,
        /// Digits after the point.
        scale: u8,
    },
    /// A double.
    Float64(f64),
    /// A text.
    Text(String),
    /// True or false.
    Bool(bool),
    /// Microseconds since 1970, UTC.
    Timestamp(i64),
    /// Days since 1970.
    Date(i32),
    /// A byte string.
    Bytes(Vec<u8>),
}

impl Value {
    /// The value at `row` of an array of one of our types; `None` for a foreign type.
    #[must_use]
    pub fn at(array: &dyn Array, row: usize) -> Option<Self> {
        if array.is_null(row) {
            return Some(Self::Null);
        }
        Some(match array.data_type() {
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>().value(row)),
            DataType::Decimal128(_, scale) => Self::Decimal {
                unscaled: array.as_primitive::<Decimal128Type>().value(row),
                scale: u8::try_from(*scale).ok()?,
            },
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().value(row).to_owned()),
            DataType::Boolean => Self::Bool(array.as_boolean().value(row)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().value(row)),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>().value(row).to_owned()),
            _ => return None,
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Int64(v) => write!(f, "{v}"),
            Self::Decimal { unscaled, scale } => f.write_str(&decimal_text(*unscaled, u32::from(*scale))),
            Self::Float64(v) => write!(f, "{v}"),
            Self::Text(t) => f.write_str(t),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Timestamp(us) => f.write_str(&crate::time::timestamp_text(*us)),
            Self::Date(days) => f.write_str(&crate::time::date_text(*days)),
            Self::Bytes(b) => write!(f, "\\x{}", hex::encode(b)),
        }
    }
}

/// `unscaled / 10^scale` in digits.
#[must_use]
pub fn decimal_text(unscaled: i128, scale: u32) -> String {
    place_point(unscaled.unsigned_abs().to_string(), unscaled < 0, scale)
}

/// Sets the point into a string of digits.
pub(crate) fn place_point(digits: String, negative: bool, scale: u32) -> String {
    let scale = scale as usize;
    let sign = if negative { "-" } else { "" };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{part}")
}

/// Builds one Arrow column from values; a value of another type is refused.
#[derive(Debug)]
#[allow(missing_docs)]
enum Builder {
    Int64(Int64Builder),
    Decimal(Decimal128Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Bytes(BinaryBuilder),
}

/// Builds one Arrow column from single values.
#[derive(Debug)]
pub struct ColumnBuilder {
    ty: ColumnType,
    inner: Builder,
}

impl ColumnBuilder {
    /// An empty column of type `ty` with room for `rows`.
    #[must_use]
    pub fn new(ty: ColumnType, rows: usize) -> Self {
        let inner = match ty {
            ColumnType::Int64 => Builder::Int64(Int64Builder::with_capacity(rows)),
            ColumnType::Decimal { .. } => {
                Builder::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(ty.data_type()))
            }
            ColumnType::Float64 => Builder::Float64(Float64Builder::with_capacity(rows)),
            ColumnType::Text => Builder::Text(StringBuilder::with_capacity(rows, rows * 8)),
            ColumnType::Bool => Builder::Bool(BooleanBuilder::with_capacity(rows)),
            ColumnType::Timestamp => Builder::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(ColumnType::Timestamp.data_type()),
            ),
            ColumnType::Date => Builder::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Bytes => Builder::Bytes(BinaryBuilder::with_capacity(rows, rows * 8)),
        };
        Self { ty, inner }
    }

    /// Adds NULL.
    pub fn push_null(&mut self) {
        match &mut self.inner {
            Builder::Int64(b) => b.append_null(),
            Builder::Decimal(b) => b.append_null(),
            Builder::Float64(b) => b.append_null(),
            Builder::Text(b) => b.append_null(),
            Builder::Bool(b) => b.append_null(),
            Builder::Timestamp(b) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Bytes(b) => b.append_null(),
        }
    }

    /// Adds a value; `false`, and nothing added, where its type is another.
    pub fn push(&mut self, value: &Value) -> bool {
        if !self.ty.holds(value) {
            return false;
        }
        match (&mut self.inner, value) {
            (_, Value::Null) => self.push_null(),
            (Builder::Int64(b), Value::Int64(v)) => b.append_value(*v),
            (Builder::Decimal(b), Value::Decimal { unscaled, .. }) => b.append_value(*unscaled),
            (Builder::Float64(b), Value::Float64(v)) => b.append_value(*v),
            (Builder::Text(b), Value::Text(t)) => b.append_value(t),
            (Builder::Bool(b), Value::Bool(v)) => b.append_value(*v),
            (Builder::Timestamp(b), Value::Timestamp(v)) => b.append_value(*v),
            (Builder::Date(b), Value::Date(v)) => b.append_value(*v),
            (Builder::Bytes(b), Value::Bytes(v)) => b.append_value(v),
            _ => return false,
        }
        true
    }

    /// Adds a text without copying it first; `false` where the column is not text.
    pub(crate) fn push_str(&mut self, text: &str) -> bool {
        match &mut self.inner {
            Builder::Text(b) if text.len() <= VALUE_BYTES_MAX => {
                b.append_value(text);
                true
            }
            _ => false,
        }
    }

    /// The finished column.
    #[must_use]
    pub fn finish(self) -> ArrayRef {
        match self.inner {
            Builder::Int64(mut b) => Arc::new(b.finish()),
            Builder::Decimal(mut b) => Arc::new(b.finish()),
            Builder::Float64(mut b) => Arc::new(b.finish()),
            Builder::Text(mut b) => Arc::new(b.finish()),
            Builder::Bool(mut b) => Arc::new(b.finish()),
            Builder::Timestamp(mut b) => Arc::new(b.finish()),
            Builder::Date(mut b) => Arc::new(b.finish()),
            Builder::Bytes(mut b) => Arc::new(b.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_types_have_one_spelling_each() {
        for text in ["int64", "decimal(28,4)", "float64", "text", "bool", "timestamp", "date", "bytes"] {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), text);
        }
        for bad in ["", "int", "decimal", "decimal(29,0)", "decimal(3,4)", "decimal(0,0)", "decimal(4,-1)"] {
            assert!(bad.parse::<ColumnType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn decimals_print_with_their_scale() {
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(12345, 2), "123.45");
        assert_eq!(decimal_text(12345, 0), "12345");
    }

    #[test]
    fn builder_refuses_a_value_of_another_type() {
        let mut b = ColumnBuilder::new(ColumnType::Decimal { precision: 3, scale: 1 }, 4);
        assert!(b.push(&Value::Decimal { unscaled: 999, scale: 1 }));
        assert!(!b.push(&Value::Decimal { unscaled: 1000, scale: 1 }), "four digits");
        assert!(!b.push(&Value::Decimal { unscaled: 1, scale: 2 }), "another scale");
        assert!(!b.push(&Value::Int64(1)));
        assert!(b.push(&Value::Null));
        let column = b.finish();
        assert_eq!(Value::at(&column, 0), Some(Value::Decimal { unscaled: 999, scale: 1 }));
        assert_eq!(Value::at(&column, 1), Some(Value::Null));
    }
}
