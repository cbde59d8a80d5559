//! One column of one row group as bytes, before it is sealed: up to 256 values, compact, decoded under limits.
//!
//! ```text
//! byte 0          encoding, | 80 where some (not all) rows are NULL; then a bitmap of the NULL rows, low bit first
//! 0 all NULL      nothing more
//! 1 integers      width w in {0, 1, 2, 4, 8, 16}, base (4, 8 or 16 bytes by type), then value - base in w bytes each
//! 2 dictionary    entries - 1, per entry length (2 bytes) and bytes, then indices of 0, 1, 2, 4 or 8 bits, low bits first
//! 3 strings       width w in {0, 1, 2}, shortest length (2 bytes), then length - shortest in w bytes each, then all bytes
//! 4 bools         one bit each, low bit first        5 one bool for all    one byte
//! 6 doubles       8 bytes each                       7 one double for all  8 bytes
//! weights         2 bits a row, always: 0 = +1, 1 = -1, 2 = 0; no length tells retractions from rows
//! ```
//! All integers little-endian. Values stand only for rows that are not NULL.
//! Rule    the decoder reads at most what `rows` rows can need, uses every byte, and never trusts a length before it has the bytes.

use crate::value::{ColumnType, DECIMAL_PRECISION_MAX, VALUE_BYTES_MAX};
use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, TimestampMicrosecondArray,
};
use fluence_types::limits::GROUP_ROWS;
use std::collections::HashMap;
use std::sync::Arc;

const ALL_NULL: u8 = 0;
const INTEGERS: u8 = 1;
const DICTIONARY: u8 = 2;
const STRINGS: u8 = 3;
const BOOLS: u8 = 4;
const BOOL: u8 = 5;
const DOUBLES: u8 = 6;
const DOUBLE: u8 = 7;
const SOME_NULL: u8 = 0x80;

/// Why the bytes of a row group are no column.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Too few bytes.
    #[error("block ends after {got} bytes, {need} more are needed")]
    Short {
        /// Bytes there were.
        got: usize,
        /// Bytes missing.
        need: usize,
    },
    /// Too many bytes.
    #[error("{0} bytes after the end of the block")]
    Trailing(usize),
    /// More rows than a row group has, or none.
    #[error("{0} rows, a row group has 1 to {GROUP_ROWS}")]
    Rows(usize),
    /// An encoding that this type does not have.
    #[error("encoding {encoding:#04x} is not one of {ty}")]
    Encoding {
        /// Byte 0.
        encoding: u8,
        /// The column's type.
        ty: ColumnType,
    },
    /// A number is out of its range.
    #[error("block field {0} is out of range")]
    Range(&'static str),
}

/// Appends the encoding of a column of 1 to 256 rows.
///
/// # Panics
/// If the array's type is none that a schema makes, or it has no row or more than 256.
pub fn encode_column(ty: ColumnType, array: &dyn Array, out: &mut Vec<u8>) {
    let rows = array.len();
    assert!((1..=GROUP_ROWS).contains(&rows), "a row group has 1 to 256 rows");
    let nulls = array.null_count();
    if nulls == rows {
        out.push(ALL_NULL);
        return;
    }
    let head = out.len();
    out.push(if nulls > 0 { SOME_NULL } else { 0 });
    if nulls > 0 {
        pack_bits(1, (0..rows).map(|r| u8::from(array.is_null(r))), out);
    }
    let valid = || (0..rows).filter(move |r| nulls == 0 || array.is_valid(*r));
    let mut small = [0i128; GROUP_ROWS];
    let mut integers = |base_bytes: usize, get: &dyn Fn(usize) -> i128, out: &mut Vec<u8>| {
        let mut n = 0;
        for r in valid() {
            small[n] = get(r);
            n += 1;
        }
        encode_integers(&small[..n], base_bytes, out);
        INTEGERS
    };
    let encoding = match ty {
        ColumnType::Int64 => {
            let a = array.as_primitive::<Int64Type>();
            integers(8, &|r| i128::from(a.value(r)), out)
        }
        ColumnType::Timestamp => {
            let a = array.as_primitive::<TimestampMicrosecondType>();
            integers(8, &|r| i128::from(a.value(r)), out)
        }
        ColumnType::Date => {
            let a = array.as_primitive::<Date32Type>();
            integers(4, &|r| i128::from(a.value(r)), out)
        }
        ColumnType::Decimal { .. } => {
            let a = array.as_primitive::<Decimal128Type>();
            integers(16, &|r| a.value(r), out)
        }
        ColumnType::Float64 => {
            let a = array.as_primitive::<Float64Type>();
            let mut bits = valid().map(|r| a.value(r).to_bits());
            let first = bits.next().expect("not all rows are NULL");
            if bits.all(|b| b == first) {
                out.extend_from_slice(&first.to_le_bytes());
                DOUBLE
            } else {
                valid().for_each(|r| out.extend_from_slice(&a.value(r).to_bits().to_le_bytes()));
                DOUBLES
            }
        }
        ColumnType::Bool => {
            let a = array.as_boolean();
            let first = a.value(valid().next().expect("not all rows are NULL"));
            if valid().all(|r| a.value(r) == first) {
                out.push(u8::from(first));
                BOOL
            } else {
                pack_bits(1, valid().map(|r| u8::from(a.value(r))), out);
                BOOLS
            }
        }
        ColumnType::Text => {
            let a = array.as_string::<i32>();
            encode_strings(valid().map(|r| a.value(r).as_bytes()), out)
        }
        ColumnType::Bytes => {
            let a = array.as_binary::<i32>();
            encode_strings(valid().map(|r| a.value(r)), out)
        }
    };
    out[head] |= encoding;
}

fn encode_integers(values: &[i128], base_bytes: usize, out: &mut Vec<u8>) {
    let min = *values.iter().min().expect("at least one value");
    let max = *values.iter().max().expect("at least one value");
    let span = max.wrapping_sub(min) as u128;
    let width = match 128 - span.leading_zeros() {
        0 => 0,
        1..=8 => 1,
        9..=16 => 2,
        17..=32 => 4,
        33..=64 => 8,
        _ => 16,
    };
    out.push(width as u8);
    out.extend_from_slice(&min.to_le_bytes()[..base_bytes]);
    for v in values {
        out.extend_from_slice(&(v.wrapping_sub(min) as u128).to_le_bytes()[..width]);
    }
}

fn encode_strings<'a>(values: impl Iterator<Item = &'a [u8]> + Clone, out: &mut Vec<u8>) -> u8 {
    let (mut count, mut total, mut shortest, mut longest) = (0, 0, usize::MAX, 0);
    for v in values.clone() {
        count += 1;
        total += v.len();
        shortest = shortest.min(v.len());
        longest = longest.max(v.len());
    }
    assert!(longest <= VALUE_BYTES_MAX, "the sealer checks lengths before");
    let width = match longest - shortest {
        0 => 0,
        1..=0xff => 1,
        _ => 2,
    };
    let plain = 3 + count * width + total;
    let mut places: HashMap<&[u8], u8> = HashMap::with_capacity(64);
    let mut entries: Vec<&[u8]> = Vec::new();
    let mut indices = [0u8; GROUP_ROWS];
    let mut dictionary_bytes = 1;
    for (i, v) in values.clone().enumerate() {
        let next = entries.len();
        indices[i] = *places.entry(v).or_insert_with(|| {
            entries.push(v);
            dictionary_bytes += 2 + v.len();
            next as u8
        });
        if dictionary_bytes >= plain || entries.len() == 256 {
            break;
        }
    }
    let bits = index_bits(entries.len());
    if entries.len() < 256 && dictionary_bytes + (count * bits).div_ceil(8) < plain {
        out.push((entries.len() - 1) as u8);
        for e in entries {
            out.extend_from_slice(&(e.len() as u16).to_le_bytes());
            out.extend_from_slice(e);
        }
        pack_bits(bits, indices[..count].iter().copied(), out);
        return DICTIONARY;
    }
    out.push(width as u8);
    out.extend_from_slice(&(shortest as u16).to_le_bytes());
    for v in values.clone() {
        out.extend_from_slice(&((v.len() - shortest) as u16).to_le_bytes()[..width]);
    }
    values.for_each(|v| out.extend_from_slice(v));
    STRINGS
}

const fn index_bits(entries: usize) -> usize {
    match entries {
        0 | 1 => 0,
        2 => 1,
        3..=4 => 2,
        5..=16 => 4,
        _ => 8,
    }
}

/// Packs values of `bits` (0, 1, 2, 4 or 8) bits, low bits first.
fn pack_bits(bits: usize, values: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    if bits == 0 {
        return;
    }
    let (mut byte, mut used) = (0u8, 0);
    for v in values {
        byte |= v << used;
        used += bits;
        if used == 8 {
            out.push(byte);
            (byte, used) = (0, 0);
        }
    }
    if used > 0 {
        out.push(byte);
    }
}

/// What is left of a block.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], BlockError> {
        let left = self.bytes.len() - self.at;
        if n > left {
            return Err(BlockError::Short { got: self.bytes.len(), need: n - left });
        }
        let part = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(part)
    }
    fn byte(&mut self) -> Result<u8, BlockError> {
        Ok(self.take(1)?[0])
    }
    fn u16(&mut self) -> Result<usize, BlockError> {
        let b = self.take(2)?;
        Ok(usize::from(u16::from_le_bytes([b[0], b[1]])))
    }
    /// `count` values of `bits` bits; the unused bits of the last byte must be 0.
    fn bits(&mut self, bits: usize, count: usize) -> Result<Vec<u8>, BlockError> {
        if bits == 0 {
            return Ok(vec![0; count]);
        }
        let bytes = self.take((count * bits).div_ceil(8))?;
        let mask = ((1u16 << bits) - 1) as u8;
        let values = (0..count).map(|i| bytes[i * bits / 8] >> (i * bits % 8) & mask).collect();
        let used = count * bits % 8;
        if used > 0 && bytes[bytes.len() - 1] >> used != 0 {
            return Err(BlockError::Range("padding bits"));
        }
        Ok(values)
    }
    fn end(self) -> Result<(), BlockError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            n => Err(BlockError::Trailing(n)),
        }
    }
}

fn le_u128(bytes: &[u8]) -> u128 {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(wide)
}

/// The sign-extended little-endian integer.
fn le_i128(bytes: &[u8]) -> i128 {
    let shift = 128 - 8 * bytes.len() as u32;
    (le_u128(bytes) << shift) as i128 >> shift
}

/// Decodes a column of `rows` rows.
///
/// # Errors
/// [`BlockError`]; never panics, and allocates at most 256 values of [`VALUE_BYTES_MAX`].
pub fn decode_column(ty: ColumnType, rows: usize, bytes: &[u8]) -> Result<ArrayRef, BlockError> {
    if !(1..=GROUP_ROWS).contains(&rows) {
        return Err(BlockError::Rows(rows));
    }
    let mut rest = Rest { bytes, at: 0 };
    let head = rest.byte()?;
    let encoding = head & !SOME_NULL;
    let wrong = || BlockError::Encoding { encoding: head, ty };
    let valid: Vec<bool> = match (head & SOME_NULL != 0, encoding) {
        (false, ALL_NULL) => vec![false; rows],
        (true, ALL_NULL) => return Err(wrong()),
        (true, _) => rest.bits(1, rows)?.into_iter().map(|b| b == 0).collect(),
        (false, _) => vec![true; rows],
    };
    let count = valid.iter().filter(|v| **v).count();
    if encoding != ALL_NULL && (count == 0 || head & SOME_NULL != 0 && count == rows) {
        return Err(BlockError::Range("NULL bitmap"));
    }
    let array: ArrayRef = match ty {
        ColumnType::Int64 => {
            Arc::new(Int64Array::from_iter(spread(&valid, integers(&mut rest, encoding, count, 8, wrong)?)))
        }
        ColumnType::Timestamp => {
            let values = integers(&mut rest, encoding, count, 8, wrong)?;
            Arc::new(TimestampMicrosecondArray::from_iter(spread(&valid, values)).with_timezone(crate::value::TIMEZONE))
        }
        ColumnType::Date => {
            Arc::new(Date32Array::from_iter(spread(&valid, integers(&mut rest, encoding, count, 4, wrong)?)))
        }
        ColumnType::Decimal { precision, scale } => {
            let values: Vec<i128> = integers(&mut rest, encoding, count, 16, wrong)?;
            let limit = 10u128.pow(u32::from(precision.min(DECIMAL_PRECISION_MAX)));
            if values.iter().any(|v| v.unsigned_abs() >= limit) {
                return Err(BlockError::Range("decimal"));
            }
            let array = Decimal128Array::from_iter(spread(&valid, values));
            Arc::new(array.with_precision_and_scale(precision, scale as i8).map_err(|_| BlockError::Range("decimal"))?)
        }
        ColumnType::Float64 => {
            let double = |b: &[u8]| f64::from_le_bytes(b.try_into().expect("8 bytes were taken"));
            let values = match encoding {
                ALL_NULL => Vec::new(),
                DOUBLE => vec![double(rest.take(8)?); count],
                DOUBLES => rest.take(8 * count)?.chunks_exact(8).map(double).collect(),
                _ => return Err(wrong()),
            };
            Arc::new(Float64Array::from_iter(spread(&valid, values)))
        }
        ColumnType::Bool => {
            let values = match encoding {
                ALL_NULL => Vec::new(),
                BOOL => vec![rest.byte()?; count],
                BOOLS => rest.bits(1, count)?,
                _ => return Err(wrong()),
            };
            if values.iter().any(|v| *v > 1) {
                return Err(BlockError::Range("bool"));
            }
            Arc::new(BooleanArray::from_iter(spread(&valid, values.into_iter().map(|v| v == 1).collect())))
        }
        ColumnType::Text => {
            let values = strings(&mut rest, encoding, count, wrong)?;
            let mut builder = StringBuilder::with_capacity(rows, values.iter().map(|v| v.len()).sum());
            for v in spread(&valid, values) {
                builder.append_option(
                    v.map(std::str::from_utf8).transpose().map_err(|_| BlockError::Range("text, not UTF-8"))?,
                );
            }
            Arc::new(builder.finish())
        }
        ColumnType::Bytes => {
            let values = strings(&mut rest, encoding, count, wrong)?;
            let mut builder = BinaryBuilder::with_capacity(rows, values.iter().map(|v| v.len()).sum());
            spread(&valid, values).for_each(|v| builder.append_option(v));
            Arc::new(builder.finish())
        }
    };
    rest.end()?;
    Ok(array)
}

/// The values at their rows.
fn spread<T>(valid: &[bool], values: Vec<T>) -> impl Iterator<Item = Option<T>> {
    let mut values = values.into_iter();
    valid.iter().map(move |v| if *v { values.next() } else { None })
}

fn integers<T: TryFrom<i128>>(
    rest: &mut Rest<'_>,
    encoding: u8,
    count: usize,
    base_bytes: usize,
    wrong: impl Fn() -> BlockError,
) -> Result<Vec<T>, BlockError> {
    match encoding {
        ALL_NULL => return Ok(Vec::new()),
        INTEGERS => {}
        _ => return Err(wrong()),
    }
    let width = usize::from(rest.byte()?);
    if !matches!(width, 0 | 1 | 2 | 4 | 8 | 16) {
        return Err(BlockError::Range("integer width"));
    }
    let base = le_i128(rest.take(base_bytes)?);
    let offsets = rest.take(width * count)?;
    (0..count)
        .map(|i| {
            let offset = le_u128(&offsets[i * width..(i + 1) * width]);
            base.checked_add_unsigned(offset).and_then(|v| T::try_from(v).ok()).ok_or(BlockError::Range("integer"))
        })
        .collect()
}

fn strings<'a>(
    rest: &mut Rest<'a>,
    encoding: u8,
    count: usize,
    wrong: impl Fn() -> BlockError,
) -> Result<Vec<&'a [u8]>, BlockError> {
    match encoding {
        ALL_NULL => Ok(Vec::new()),
        DICTIONARY => {
            let entries = usize::from(rest.byte()?) + 1;
            let mut dictionary = Vec::with_capacity(entries);
            for _ in 0..entries {
                let len = rest.u16()?;
                if len > VALUE_BYTES_MAX {
                    return Err(BlockError::Range("length"));
                }
                dictionary.push(rest.take(len)?);
            }
            let indices = rest.bits(index_bits(entries), count)?;
            indices
                .into_iter()
                .map(|i| dictionary.get(usize::from(i)).copied().ok_or(BlockError::Range("dictionary index")))
                .collect()
        }
        STRINGS => {
            let width = usize::from(rest.byte()?);
            if width > 2 {
                return Err(BlockError::Range("length width"));
            }
            let shortest = rest.u16()?;
            let lengths = rest.take(width * count)?;
            (0..count)
                .map(|i| {
                    let len = shortest + le_u128(&lengths[i * width..(i + 1) * width]) as usize;
                    if len > VALUE_BYTES_MAX { Err(BlockError::Range("length")) } else { rest.take(len) }
                })
                .collect()
        }
        _ => Err(wrong()),
    }
}

/// Appends the weights of a row group.
///
/// # Panics
/// If a weight is none of -1, 0, 1.
pub fn encode_weights(weights: &[i8], out: &mut Vec<u8>) {
    let code = |w: &i8| match w {
        1 => 0,
        -1 => 1,
        0 => 2,
        _ => unreachable!("weights are -1, 0 or 1"),
    };
    pack_bits(2, weights.iter().map(code), out);
}

/// Decodes the weights of `rows` rows.
///
/// # Errors
/// [`BlockError`].
pub fn decode_weights(rows: usize, bytes: &[u8]) -> Result<Vec<i8>, BlockError> {
    if !(1..=GROUP_ROWS).contains(&rows) {
        return Err(BlockError::Rows(rows));
    }
    let mut rest = Rest { bytes, at: 0 };
    let codes = rest.bits(2, rows)?;
    rest.end()?;
    codes.into_iter().map(|c| [1, -1, 0].get(usize::from(c)).copied().ok_or(BlockError::Range("weight"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{ColumnBuilder, Value};
    use proptest::prelude::*;

    const TYPES: [ColumnType; 8] = [
        ColumnType::Int64,
        ColumnType::Decimal { precision: 28, scale: 3 },
        ColumnType::Float64,
        ColumnType::Text,
        ColumnType::Bool,
        ColumnType::Timestamp,
        ColumnType::Date,
        ColumnType::Bytes,
    ];

    fn value(ty: ColumnType, n: i64, small: bool) -> Value {
        let v = if small { n % 5 } else { n };
        match ty {
            ColumnType::Int64 => Value::Int64(v),
            ColumnType::Decimal { scale, .. } => Value::Decimal { unscaled: i128::from(v) * 1_000_003, scale },
            ColumnType::Float64 => Value::Float64(f64::from_bits(v as u64)),
            ColumnType::Text => Value::Text(format!("t{v}")),
            ColumnType::Bool => Value::Bool(v % 2 == 0),
            ColumnType::Timestamp => Value::Timestamp(v),
            ColumnType::Date => Value::Date(v as i32),
            ColumnType::Bytes => Value::Bytes(v.to_le_bytes()[..(v.unsigned_abs() % 8) as usize].to_vec()),
        }
    }

    fn encode(ty: ColumnType, values: &[Value]) -> (ArrayRef, Vec<u8>) {
        let mut builder = ColumnBuilder::new(ty, values.len());
        assert!(values.iter().all(|v| builder.push(v)));
        let array = builder.finish();
        let mut bytes = Vec::new();
        encode_column(ty, &array, &mut bytes);
        (array, bytes)
    }

    proptest! {
        #[test]
        fn every_column_round_trips(
            ty in 0..TYPES.len(), numbers in proptest::collection::vec(any::<i64>(), 1..=256), small: bool, nulls in 0..4u8
        ) {
            let ty = TYPES[ty];
            let null = |n: &i64| match nulls { 0 => false, 1 => true, k => n % i64::from(k) == 0 };
            let values: Vec<_> = numbers.iter().map(|n| if null(n) { Value::Null } else { value(ty, *n, small) }).collect();
            let (array, bytes) = encode(ty, &values);
            let decoded = decode_column(ty, values.len(), &bytes).unwrap();
            // Bit for bit: NaN differs from itself, so doubles are compared as their keys.
            prop_assert_eq!(decoded.data_type(), array.data_type());
            let (a, b) = (crate::key::Keys::of(&[decoded]), crate::key::Keys::of(&[array]));
            for r in 0..values.len() {
                prop_assert_eq!(a.get(r), b.get(r));
            }
            // Cut or lengthened, it is refused.
            prop_assert!(decode_column(ty, values.len(), &bytes[..bytes.len() - 1]).is_err());
            let longer = [&bytes[..], &[0]].concat();
            prop_assert!(decode_column(ty, values.len(), &longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            ty in 0..TYPES.len(), rows in 0usize..300, head in 0u8..9, null: bool, tail in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            let mut bytes = vec![head | if null { SOME_NULL } else { 0 }];
            bytes.extend(tail);
            if let Ok(array) = decode_column(TYPES[ty], rows, &bytes) {
                prop_assert_eq!(array.len(), rows);
                // What decodes can be encoded again.
                let mut again = Vec::new();
                encode_column(TYPES[ty], &array, &mut again);
                prop_assert!(decode_column(TYPES[ty], rows, &again).is_ok());
            }
            let _ = decode_weights(rows, &bytes);
        }

        #[test]
        fn weights_round_trip(weights in proptest::collection::vec(-1i8..=1, 1..=256)) {
            let mut bytes = Vec::new();
            encode_weights(&weights, &mut bytes);
            prop_assert_eq!(bytes.len(), weights.len().div_ceil(4));
            prop_assert_eq!(decode_weights(weights.len(), &bytes).unwrap(), weights);
        }
    }

    #[test]
    fn constant_and_low_cardinality_columns_are_small() {
        let constant = |ty| encode(ty, &vec![value(ty, 123_456, false); 256]).1.len();
        for ty in TYPES {
            assert!(constant(ty) <= 18, "{ty}: {}", constant(ty));
        }
        let carriers: Vec<_> = (0..256).map(|i| Value::Text(["AA", "UA", "DL"][i % 3].to_owned())).collect();
        assert_eq!(encode(ColumnType::Text, &carriers).1.len(), 1 + 1 + 3 * 4 + 64);
        let minutes: Vec<_> = (0..256).map(|i| Value::Int64(500 + i % 60)).collect();
        assert_eq!(encode(ColumnType::Int64, &minutes).1.len(), 1 + 1 + 8 + 256);
    }

    #[test]
    fn extreme_integers_survive_the_frame_of_reference() {
        let values = [Value::Int64(i64::MIN), Value::Int64(i64::MAX), Value::Int64(0)];
        let (array, bytes) = encode(ColumnType::Int64, &values);
        assert_eq!(&decode_column(ColumnType::Int64, 3, &bytes).unwrap(), &array);
    }

    #[test]
    fn a_dictionary_of_long_strings_cannot_ask_for_more_than_its_rows() {
        // One entry of the longest length, 256 rows: 8 MiB at most, from bytes that were really there.
        let long = Value::Bytes(vec![7; VALUE_BYTES_MAX]);
        let (_, bytes) = encode(ColumnType::Bytes, &vec![long; 256]);
        assert!(bytes.len() < VALUE_BYTES_MAX + 16);
        assert_eq!(decode_column(ColumnType::Bytes, 256, &bytes).unwrap().len(), 256);
        let mut lie = bytes;
        lie[2..4].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(decode_column(ColumnType::Bytes, 256, &lie), Err(BlockError::Range("length")));
    }
}
