//! Sort keys as bytes whose order is the order of the values: format 1, stable, used for sorting and fences.
//!
//! ```text
//! NULL               00                                   before every value
//! int64, timestamp   01, 8 bytes big-endian, sign bit flipped
//! date               01, 4 bytes likewise      decimal    01, 16 bytes likewise (of the unscaled integer)
//! bool               01, 00 or 01
//! float64            01, 8 bytes big-endian: the bits, sign bit flipped, or all bits flipped where negative (IEEE 754 total order)
//! text, bytes        01, the bytes with 00 written 00 ff, then 00 00
//! ```
//! Rule    every encoding ends itself, so the key of leading columns is a byte prefix of every key that begins with their values.
//!         A key is at most [`KEY_BYTES_MAX`] bytes.

use crate::value::Value;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, TimeUnit};

/// Longest encoded key of a row; a fence holds one.
pub const KEY_BYTES_MAX: usize = 1024;

/// A column whose type was looked up once.
enum Reader<'a> {
    Int64(&'a Int64Array),
    Decimal(&'a Decimal128Array),
    Float64(&'a Float64Array),
    Text(&'a StringArray),
    Bool(&'a BooleanArray),
    Timestamp(&'a TimestampMicrosecondArray),
    Date(&'a Date32Array),
    Bytes(&'a BinaryArray),
}

impl<'a> Reader<'a> {
    fn new(array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>()),
            DataType::Binary => Self::Bytes(array.as_binary()),
            other => unreachable!("a schema makes no {other} column, and batches are checked against it"),
        }
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        macro_rules! value {
            ($array:expr, $put:expr) => {{
                if $array.is_null(row) {
                    out.push(0);
                } else {
                    out.push(1);
                    #[allow(clippy::redundant_closure_call)]
                    $put(out, $array.value(row));
                }
            }};
        }
        match self {
            Self::Int64(a) => value!(a, put_i64),
            Self::Decimal(a) => value!(a, put_i128),
            Self::Float64(a) => value!(a, put_f64),
            Self::Text(a) => value!(a, |out, v: &str| put_bytes(out, v.as_bytes())),
            Self::Bool(a) => value!(a, |out: &mut Vec<u8>, v| out.push(u8::from(v))),
            Self::Timestamp(a) => value!(a, put_i64),
            Self::Date(a) => value!(a, put_i32),
            Self::Bytes(a) => value!(a, put_bytes),
        }
    }
}

fn put_i32(out: &mut Vec<u8>, v: i32) {
    out.extend_from_slice(&(v as u32 ^ 1 << 31).to_be_bytes());
}
fn put_i64(out: &mut Vec<u8>, v: i64) {
    out.extend_from_slice(&(v as u64 ^ 1 << 63).to_be_bytes());
}
fn put_i128(out: &mut Vec<u8>, v: i128) {
    out.extend_from_slice(&(v as u128 ^ 1 << 127).to_be_bytes());
}
fn put_f64(out: &mut Vec<u8>, v: f64) {
    let bits = v.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 };
    out.extend_from_slice(&ordered.to_be_bytes());
}
fn put_bytes(out: &mut Vec<u8>, v: &[u8]) {
    for part in v.split_inclusive(|b| *b == 0) {
        out.extend_from_slice(part);
        if part.last() == Some(&0) {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// Appends the encoding of one value.
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    out.push(u8::from(*value != Value::Null));
    match value {
        Value::Null => {}
        Value::Int64(v) | Value::Timestamp(v) => put_i64(out, *v),
        Value::Decimal { unscaled, .. } => put_i128(out, *unscaled),
        Value::Float64(v) => put_f64(out, *v),
        Value::Text(t) => put_bytes(out, t.as_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::Date(d) => put_i32(out, *d),
        Value::Bytes(b) => put_bytes(out, b),
    }
}

/// The encoding of leading key values.
#[must_use]
pub fn encode_values(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|v| encode_value(v, &mut out));
    out
}

/// The least byte string above every one that begins with `prefix`; `None` where there is none.
#[must_use]
pub fn successor(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

/// Encoded keys of many rows in one buffer.
#[derive(Clone, Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} rows)", self.len())
    }
}

impl Keys {
    /// The keys of all rows of `columns`, most significant column first.
    ///
    /// # Panics
    /// If a column has a type that no schema makes.
    #[must_use]
    pub fn of(columns: &[ArrayRef]) -> Self {
        let rows = columns.first().map_or(0, |c| c.len());
        let readers: Vec<_> = columns.iter().map(Reader::new).collect();
        let mut keys = Self { bytes: Vec::with_capacity(rows * 12 * columns.len()), ends: Vec::with_capacity(rows) };
        for row in 0..rows {
            readers.iter().for_each(|r| r.encode(row, &mut keys.bytes));
            keys.ends.push(keys.bytes.len());
        }
        keys
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key of `row`.
    #[must_use]
    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    /// The keys of some rows.
    #[must_use]
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let mut keys = Self { bytes: Vec::new(), ends: Vec::with_capacity(rows.len()) };
        for row in rows {
            keys.bytes.extend_from_slice(self.get(row));
            keys.ends.push(keys.bytes.len());
        }
        keys
    }

    /// Rows whose key is below `bound`; the keys must be sorted.
    #[must_use]
    pub fn below(&self, bound: &[u8]) -> usize {
        let (mut lo, mut hi) = (0, self.len());
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.get(mid) < bound { lo = mid + 1 } else { hi = mid }
        }
        lo
    }

    /// Whether no key is below the one before it.
    #[must_use]
    pub fn sorted(&self) -> bool {
        (1..self.len()).all(|i| self.get(i - 1) <= self.get(i))
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{ColumnBuilder, ColumnType};
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn order(a: &Value, b: &Value) -> Ordering {
        match (a, b) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            (Value::Int64(a), Value::Int64(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Decimal { unscaled: a, .. }, Value::Decimal { unscaled: b, .. }) => a.cmp(b),
            (Value::Float64(a), Value::Float64(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            _ => unreachable!("one type a column"),
        }
    }

    fn small_bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), Just(0xfe), any::<u8>()], 0..6)
    }

    /// A pair of values of one type, near each other often enough to meet the edges.
    fn pair() -> impl Strategy<Value = (ColumnType, Value, Value)> {
        let decimal = ColumnType::Decimal { precision: 28, scale: 2 };
        let int = || prop_oneof![any::<i64>(), -2i64..3, Just(i64::MIN), Just(i64::MAX)];
        let float = || prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(0.0), Just(-0.0), -2.0..2.0f64];
        let text = || small_bytes().prop_map(|b| b.into_iter().map(|x| char::from(x & 0x7f)).collect::<String>());
        let some = prop_oneof![
            (int(), int()).prop_map(|(a, b)| (ColumnType::Int64, Value::Int64(a), Value::Int64(b))),
            (int(), int()).prop_map(|(a, b)| (ColumnType::Timestamp, Value::Timestamp(a), Value::Timestamp(b))),
            (any::<i32>(), any::<i32>()).prop_map(|(a, b)| (ColumnType::Date, Value::Date(a), Value::Date(b))),
            (float(), float()).prop_map(|(a, b)| (ColumnType::Float64, Value::Float64(a), Value::Float64(b))),
            (text(), text()).prop_map(|(a, b)| (ColumnType::Text, Value::Text(a), Value::Text(b))),
            (small_bytes(), small_bytes()).prop_map(|(a, b)| (ColumnType::Bytes, Value::Bytes(a), Value::Bytes(b))),
            any::<(bool, bool)>().prop_map(|(a, b)| (ColumnType::Bool, Value::Bool(a), Value::Bool(b))),
            (int(), int()).prop_map(move |(a, b)| {
                let d = |v: i64| Value::Decimal { unscaled: i128::from(v) * 7, scale: 2 };
                (decimal, d(a), d(b))
            }),
        ];
        (some, 0..10).prop_map(|((ty, a, b), null)| match null {
            0 => (ty, Value::Null, b),
            1 => (ty, a, Value::Null),
            _ => (ty, a, b),
        })
    }

    proptest! {
        #[test]
        fn byte_order_is_value_order((ty, a, b) in pair(), (ty2, c, d) in pair()) {
            prop_assert_eq!(encode_values(std::slice::from_ref(&a)).cmp(&encode_values(std::slice::from_ref(&b))), order(&a, &b));
            // Two columns: the first decides, then the second.
            let left = encode_values(&[a.clone(), c.clone()]);
            let right = encode_values(&[b.clone(), d.clone()]);
            prop_assert_eq!(left.cmp(&right), order(&a, &b).then(order(&c, &d)));
            // Arrays encode as single values do.
            let column = |ty, values: [&Value; 2]| {
                let mut builder = ColumnBuilder::new(ty, 2);
                assert!(values.iter().all(|v| builder.push(v)));
                builder.finish()
            };
            let keys = Keys::of(&[column(ty, [&a, &b]), column(ty2, [&c, &d])]);
            prop_assert_eq!(keys.get(0), &left[..]);
            prop_assert_eq!(keys.get(1), &right[..]);
            // Everything that begins with the prefix lies in [prefix, successor).
            let prefix = encode_values(std::slice::from_ref(&a));
            prop_assert!(left.starts_with(&prefix) && left >= prefix);
            let end = successor(prefix).expect("a key begins with 00 or 01");
            prop_assert!(left < end);
            prop_assert_eq!(right < end, order(&b, &a) != Ordering::Greater);
        }
    }

    #[test]
    fn encodings_are_pinned() {
        let hex = |v: &Value| hex::encode(encode_values(std::slice::from_ref(v)));
        assert_eq!(hex(&Value::Null), "00");
        assert_eq!(hex(&Value::Int64(-1)), "017fffffffffffffff");
        assert_eq!(hex(&Value::Date(1)), "0180000001");
        assert_eq!(hex(&Value::Text("a\0b".into())), "016100ff620000");
        assert_eq!(hex(&Value::Float64(-1.5)), "014007ffffffffffff");
        assert_eq!(hex(&Value::Decimal { unscaled: 5, scale: 2 }), "0180000000000000000000000000000005");
    }

    #[test]
    fn successor_of_all_ones_does_not_exist() {
        assert_eq!(successor(vec![1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(successor(vec![0xff; 3]), None);
        assert_eq!(successor(vec![]), None);
    }
}
