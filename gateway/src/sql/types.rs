//! SQL's types and ours.
//!
//! Integers of every width are 64 bits; what a narrower one would refuse is refused when it is written. NUMERIC without digits is
//! `numeric(28,6)`, and says so.

use crate::error::{SqlError, SqlState};
use datafusion::arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{self, CharacterLength, ExactNumberInfo, TimezoneInfo};
use fluence_client::ColumnType;

/// A declared type: what holds it, and the longest text in characters.
pub(crate) struct Declared {
    pub(crate) ty: ColumnType,
    pub(crate) chars_max: Option<u64>,
    /// Whether numbers are given out for it (SERIAL).
    pub(crate) serial: bool,
    /// What the creator should know.
    pub(crate) notice: Option<String>,
}

/// What a declared type is kept as.
///
/// # Errors
/// [`SqlState::FeatureNotSupported`] for a type that nothing here can hold.
pub(crate) fn declared(ty: &ast::DataType) -> Result<Declared, SqlError> {
    use ast::DataType as T;
    let plain = |ty| Declared { ty, chars_max: None, serial: false, notice: None };
    let text = |length: &Option<CharacterLength>| Declared {
        chars_max: length.as_ref().and_then(|l| match l {
            CharacterLength::IntegerLength { length, .. } => Some(*length),
            CharacterLength::Max => None,
        }),
        ..plain(ColumnType::Text)
    };
    Ok(match ty {
        T::SmallInt(_) | T::Int2(_) | T::Int(_) | T::Integer(_) | T::Int4(_) | T::BigInt(_) | T::Int8(_) | T::Int64 => {
            plain(ColumnType::Int64)
        }
        T::Numeric(info) | T::Decimal(info) | T::Dec(info) => decimal(info)?,
        T::Real | T::Float4 | T::Float8 | T::Float(_) | T::Double(_) | T::DoublePrecision | T::Float64 => {
            plain(ColumnType::Float64)
        }
        T::Text | T::Uuid | T::JSON | T::JSONB => plain(ColumnType::Text),
        T::Varchar(l) | T::CharacterVarying(l) | T::CharVarying(l) | T::Char(l) | T::Character(l) => text(l),
        T::Boolean | T::Bool => plain(ColumnType::Bool),
        T::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Declared {
            notice: Some("timestamps are kept in UTC, with their time zone".to_owned()),
            ..plain(ColumnType::Timestamp)
        },
        T::Timestamp(..) => plain(ColumnType::Timestamp),
        T::Date => plain(ColumnType::Date),
        T::Bytea | T::Bytes(_) | T::Blob(_) | T::Binary(_) | T::Varbinary(_) => plain(ColumnType::Bytes),
        T::Custom(name, _) => match name.to_string().to_lowercase().as_str() {
            "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" => {
                Declared { serial: true, ..plain(ColumnType::Int64) }
            }
            _ => return Err(SqlError::new(SqlState::UndefinedObject, format!("type \"{name}\" does not exist"))),
        },
        other => return Err(SqlError::unsupported(format!("type {other}"))),
    })
}

fn decimal(info: &ExactNumberInfo) -> Result<Declared, SqlError> {
    let (digits, scale, notice) = match info {
        ExactNumberInfo::None => (28, 6, Some("numeric without digits is kept as numeric(28,6)".to_owned())),
        ExactNumberInfo::Precision(p) => (*p, 0, None),
        ExactNumberInfo::PrecisionAndScale(p, s) => (*p, *s, None),
    };
    let max = u64::from(fluence_client::value::DECIMAL_PRECISION_MAX);
    if digits == 0 || digits > max || scale < 0 || scale as u64 > digits {
        let why = format!(
            "numeric({digits},{scale}): a number has 1 to {max} digits, and no more after the point than in all"
        );
        return Err(SqlError::new(SqlState::InvalidParameter, why));
    }
    let ty = ColumnType::Decimal { precision: digits as u8, scale: scale as u8 };
    Ok(Declared { ty, chars_max: None, serial: false, notice })
}

/// The SQL name by which a value is cast to an Arrow type; `None` for types that SQL has no plain name for.
pub(crate) fn cast_name(ty: &DataType) -> Option<String> {
    Some(match ty {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 | DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            "BIGINT".to_owned()
        }
        DataType::Float16 | DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE PRECISION".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".to_owned(),
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP(6)".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP(6) WITH TIME ZONE".to_owned(),
        DataType::Decimal128(p, s) => format!("DECIMAL({p},{s})"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA".to_owned(),
        _ => return None,
    })
}

/// The Arrow type that a cast in SQL names, where it is one of [`cast_name`]'s.
pub(crate) fn cast_type(ty: &ast::DataType) -> Option<DataType> {
    declared(ty).ok().map(|d| d.ty.data_type())
}
