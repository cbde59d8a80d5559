//! Parameters of Bind as scalars of the planner, from text or binary.
//!
//! ```text
//! bytes ── by the type on the wire ──> own scalar ── fit ──> scalar of the planner's type
//! ```
//! Rule    a value is cast to the planner's type only where nothing of it is lost; else it keeps its own type, and the comparison widens.
//!         `price = 12.345` on a column of two decimals must not find 12.35.
//! Source  PostgreSQL 15, `*_in` and `*_recv` functions; arrow-pg 0.16 `datatypes/df.rs`

use super::errors::{Fault, code};
use super::frontend::Fields;
use crate::sql::array;
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use postgres_types::Kind;
use std::sync::Arc;

/// Days and microseconds from 1970 to 2000, where PostgreSQL begins to count.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Digits of a Decimal128.
const DIGITS_MAX: usize = 38;

/// The type behind an OID of Parse; `None` where the client leaves it to the planner.
pub(super) fn declared(oid: u32) -> Result<Option<Type>, Fault> {
    match Type::from_oid(oid) {
        _ if oid == 0 => Ok(None),
        Some(Type::UNKNOWN) => Ok(None),
        Some(known) => Ok(Some(known)),
        None => Err(Fault::error(code::UNDEFINED_OBJECT, format!("type with OID {oid} does not exist"))),
    }
}

/// The Arrow type of values of a type, and the hint for the planner; `None` for numeric, which brings its scale with each value, and
/// for what is not supported.
pub(crate) fn natural(declared: &Type) -> Option<DataType> {
    if let Kind::Array(item) = declared.kind() {
        return Some(DataType::List(Arc::new(Field::new_list_field(natural(item)?, true))));
    }
    Some(match *declared {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => DataType::Utf8,
        Type::UUID | Type::JSON | Type::JSONB => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

/// A parameter: `None` is NULL.
///
/// # Errors
/// Bytes that are not a value of the type, or a type that is not supported as a parameter.
pub(crate) fn decode(
    raw: Option<&[u8]>,
    binary: bool,
    declared: &Type,
    target: &DataType,
) -> Result<ScalarValue, Fault> {
    let Some(raw) = raw else {
        return ScalarValue::try_new_null(target).map_err(|_| {
            Fault::error(code::FEATURE_NOT_SUPPORTED, format!("a NULL of type {target} is not supported"))
        });
    };
    let own = if binary { from_binary(raw, declared)? } else { from_text(utf8(raw)?, declared)? };
    Ok(fit(own, target))
}

/// Casts where nothing is lost.
fn fit(own: ScalarValue, target: &DataType) -> ScalarValue {
    let from = own.data_type();
    if from == *target || *target == DataType::Null {
        return own;
    }
    match own.cast_to(target) {
        Ok(cast) if cast.cast_to(&from).is_ok_and(|back| back == own) => cast,
        _ => own,
    }
}

fn utf8(raw: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(raw)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| Fault::error(code::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""))
}

fn unsupported(declared: &Type) -> Fault {
    Fault::error(code::FEATURE_NOT_SUPPORTED, format!("parameters of type {} are not supported", declared.name()))
}

fn from_text(text: &str, declared: &Type) -> Result<ScalarValue, Fault> {
    let invalid = || Fault::error(code::INVALID_TEXT, format!("invalid input syntax for type {}", declared.name()));
    if let Kind::Array(item) = declared.kind() {
        let items = array::items(text).ok_or_else(invalid)?;
        let values = items.iter().map(|one| one.as_deref().map(|one| from_text(one, item)).transpose());
        return list(values.collect::<Result<_, _>>()?, item);
    }
    if *declared == Type::NUMERIC {
        return decimal(text.trim()).ok_or_else(invalid)?;
    }
    let trimmed = text.trim();
    let text = match *declared {
        Type::BYTEA => return bytea(text).map(|bytes| ScalarValue::Binary(Some(bytes))).ok_or_else(invalid),
        // A time of day after the date is dropped, as in PostgreSQL; drivers send a zone with it.
        Type::DATE => trimmed.split([' ', 'T']).next().unwrap_or_default(),
        // A zone means nothing here, as in PostgreSQL.
        Type::TIMESTAMP => match trimmed.get(10..).and_then(|time| time.find(['+', '-', 'Z'])) {
            Some(zone) => trimmed[..10 + zone].trim_end(),
            None => trimmed,
        },
        Type::BOOL | Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::FLOAT4 | Type::FLOAT8 => trimmed,
        Type::TIME | Type::TIMESTAMPTZ | Type::INTERVAL => trimmed,
        _ => text,
    };
    let natural = natural(declared).ok_or_else(|| unsupported(declared))?;
    ScalarValue::Utf8(Some(text.to_owned())).cast_to(&natural).map_err(|_| invalid())
}

fn from_binary(raw: &[u8], declared: &Type) -> Result<ScalarValue, Fault> {
    let invalid =
        || Fault::error(code::INVALID_BINARY, format!("incorrect binary data format for type {}", declared.name()));
    fn array<const N: usize>(raw: &[u8]) -> Option<[u8; N]> {
        raw.try_into().ok()
    }
    let number = |raw: &[u8]| array(raw).map(i64::from_be_bytes);
    // Both ends of the range are the infinities.
    let timestamp =
        |raw: &[u8]| number(raw).filter(|m| *m != i64::MIN).and_then(|micros| micros.checked_add(EPOCH_MICROS));
    if let Kind::Array(item) = declared.kind() {
        return list(array_binary(raw, item).map_err(|_| invalid())?, item);
    }
    let value = match *declared {
        Type::BOOL => array(raw).map(|[byte]: [u8; 1]| ScalarValue::Boolean(Some(byte != 0))),
        Type::INT2 => array(raw).map(|bytes| ScalarValue::Int16(Some(i16::from_be_bytes(bytes)))),
        Type::INT4 => array(raw).map(|bytes| ScalarValue::Int32(Some(i32::from_be_bytes(bytes)))),
        Type::INT8 => number(raw).map(|number| ScalarValue::Int64(Some(number))),
        Type::OID => array(raw).map(|bytes| ScalarValue::Int64(Some(i64::from(u32::from_be_bytes(bytes))))),
        Type::FLOAT4 => array(raw).map(|bytes| ScalarValue::Float32(Some(f32::from_be_bytes(bytes)))),
        Type::FLOAT8 => array(raw).map(|bytes| ScalarValue::Float64(Some(f64::from_be_bytes(bytes)))),
        Type::NUMERIC => return decimal(&numeric(raw).ok_or_else(invalid)?).ok_or_else(invalid)?,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            Some(ScalarValue::Utf8(Some(utf8(raw)?.to_owned())))
        }
        Type::JSONB => match raw.split_first() {
            Some((1, text)) => Some(ScalarValue::Utf8(Some(utf8(text)?.to_owned()))),
            _ => None,
        },
        Type::UUID => array(raw).map(|bytes| ScalarValue::Utf8(Some(uuid(&bytes)))),
        Type::BYTEA => Some(ScalarValue::Binary(Some(raw.to_vec()))),
        Type::DATE => array(raw)
            .and_then(|bytes| i32::from_be_bytes(bytes).checked_add(EPOCH_DAYS))
            .map(|days| ScalarValue::Date32(Some(days))),
        Type::TIME => number(raw).map(|micros| ScalarValue::Time64Microsecond(Some(micros))),
        Type::TIMESTAMP => timestamp(raw).map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), None)),
        Type::TIMESTAMPTZ => {
            timestamp(raw).map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
        }
        Type::INTERVAL => interval(raw),
        _ => return Err(unsupported(declared)),
    };
    value.ok_or_else(invalid)
}

/// Microseconds, days, months.
fn interval(raw: &[u8]) -> Option<ScalarValue> {
    let (micros, rest) = raw.split_first_chunk::<8>()?;
    let (days, months) = rest.split_first_chunk::<4>()?;
    let nanos = i64::from_be_bytes(*micros).checked_mul(1000)?;
    let months = i32::from_be_bytes(months.try_into().ok()?);
    Some(ScalarValue::new_interval_mdn(months, i32::from_be_bytes(*days), nanos))
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// `\x` and hexadecimal digits, or bytes with `\\` and `\ooo`.
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        return hex::decode(digits).ok();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            (b'\\', _) => return None,
            _ => {
                bytes.push(byte);
                after
            }
        };
    }
    Some(bytes)
}

/// A decimal number with its own precision and scale. `None`: not a number; an error: more digits than a Decimal128 has.
fn decimal(text: &str) -> Option<Result<ScalarValue, Fault>> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let too_long =
        || Some(Err(Fault::error(code::NUMERIC_OUT_OF_RANGE, format!("numbers have at most {DIGITS_MAX} digits"))));
    let Some(mut scale) = i64::try_from(fraction.len()).ok().map(|scale| scale - i64::from(exponent)) else {
        return too_long();
    };
    // Zeros at the end of a fraction go where they would not fit.
    while scale > 0
        && digits.len() > 1
        && digits.len().max(usize::try_from(scale).ok()?) > DIGITS_MAX
        && digits.ends_with('0')
    {
        digits.pop();
        scale -= 1;
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        scale = scale.clamp(0, 38);
    }
    let zeros = usize::try_from(-scale).unwrap_or(0);
    let scale = usize::try_from(scale).unwrap_or(0);
    let precision = (digits.len() + zeros).max(scale).max(1);
    if precision > DIGITS_MAX {
        return too_long();
    }
    let magnitude: i128 = [digits, &"0".repeat(zeros)].concat().parse().unwrap_or(0);
    let value = if negative { -magnitude } else { magnitude };
    Some(Ok(ScalarValue::Decimal128(Some(value), u8::try_from(precision).ok()?, i8::try_from(scale).ok()?)))
}

/// The decimal digits of a binary numeric; `None` also for NaN and the infinities.
fn numeric(raw: &[u8]) -> Option<String> {
    let (head, rest) = raw.split_first_chunk::<8>()?;
    let word = |index: usize| u16::from_be_bytes([head[index], head[index + 1]]);
    let (count, weight, sign, scale) = (usize::from(word(0)), word(2).cast_signed(), word(4), usize::from(word(6)));
    let groups: Vec<u16> = rest.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    if rest.len() != 2 * count || groups.iter().any(|group| *group > 9999) || weight > 32 || scale > 1000 {
        return None;
    }
    let mut text = String::from(match sign {
        0 => "",
        0x4000 => "-",
        _ => return None,
    });
    let group = |index: i16| usize::try_from(index).ok().and_then(|index| groups.get(index)).copied().unwrap_or(0);
    text.push('0');
    for index in 0..=weight {
        text.push_str(&format!("{:04}", group(index)));
    }
    let mut fraction = String::new();
    let mut index = weight.checked_add(1)?;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(index)));
        index = index.checked_add(1)?;
    }
    fraction.truncate(scale);
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(&fraction);
    }
    Some(text)
}

/// A list of values of one type.
fn list(values: Vec<Option<ScalarValue>>, item: &Type) -> Result<ScalarValue, Fault> {
    let scale = |value: &ScalarValue| match value.data_type() {
        DataType::Decimal128(_, scale) => scale,
        _ => 0,
    };
    let item_type = match natural(item) {
        Some(natural) => natural,
        None if *item == Type::NUMERIC => {
            DataType::Decimal128(38, values.iter().flatten().map(scale).max().unwrap_or(0))
        }
        None => return Err(unsupported(item)),
    };
    let one = |value: Option<ScalarValue>| match value {
        Some(value) => value.cast_to(&item_type),
        None => ScalarValue::try_new_null(&item_type),
    };
    let values = values.into_iter().map(one).collect::<Result<Vec<_>, _>>();
    let values =
        values.map_err(|_| Fault::error(code::NUMERIC_OUT_OF_RANGE, "an array of numbers that are too far apart"))?;
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&values, &item_type)))
}

/// Dimensions, a flag for NULLs, the type of items; then size and bytes of each.
fn array_binary(raw: &[u8], item: &Type) -> Result<Vec<Option<ScalarValue>>, Fault> {
    let invalid = || Fault::error(code::INVALID_BINARY, "incorrect binary array");
    let mut fields = Fields::new(raw);
    let (dimensions, _nulls, oid) = (fields.i32()?, fields.i32()?, fields.u32()?);
    if oid != item.oid() || !(0..=1).contains(&dimensions) {
        return Err(invalid());
    }
    let mut values = Vec::new();
    if dimensions == 1 {
        let (count, _lower_bound) = (fields.i32()?, fields.i32()?);
        for _ in 0..count {
            values.push(match fields.i32()? {
                -1 => None,
                size => {
                    let size = usize::try_from(size).map_err(|_| invalid())?;
                    Some(from_binary(fields.bytes(size)?, item)?)
                }
            });
        }
    }
    fields.end()?;
    Ok(values)
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
