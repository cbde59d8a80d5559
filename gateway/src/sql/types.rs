//! SQL's types and ours: what a column is declared as, what the planner computes with, what is sealed.
//!
//! ```text
//! declared (SqlType)   smallint  integer  real     timestamp          uuid, json, varchar(n)   the rest
//! planner (Arrow)      Int16     Int32    Float32  Timestamp, no zone Utf8, named in metadata  as sealed
//! sealed (ColumnType)  Int64     Int64    Float64  Timestamp in UTC   Text                     as declared
//! ```
//! Rule    a value becomes one of the declared type before it is sealed, so what is read back fits it again. NUMERIC without digits is
//!         `numeric(28,6)`, and says so.

use super::catalog::ColumnDef;
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, CharacterLength, ExactNumberInfo, TimezoneInfo};
use datafusion_pg_catalog::pg_catalog::oid_field::{OID_ALIAS_KEY, kind};
use fluence_client::ColumnType;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// The key of a field's metadata under which the name of its SQL type stands, where Arrow's does not say it.
pub(crate) const TYPE_NAME: &str = "fluence.type";
/// The key under which the longest text stands, in characters.
pub(crate) const CHARS_MAX: &str = "fluence.chars_max";

/// What a column is declared as, where that is narrower than what is sealed, or has another name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlType {
    /// What its sealed type is called.
    #[default]
    Sealed,
    /// 16 bits.
    Smallint,
    /// 32 bits.
    Integer,
    /// A float of 32 bits.
    Real,
    /// A number without declared digits.
    Numeric,
    /// A timestamp without time zone.
    Timestamp,
    /// A text with a longest length.
    Varchar,
    /// A text with a longest length, not padded.
    Char,
    /// A UUID in text.
    Uuid,
    /// JSON in text, as it was written.
    Json,
    /// The same.
    Jsonb,
}

impl SqlType {
    /// The Arrow type that the planner computes with.
    pub(crate) fn data_type(self, sealed: ColumnType) -> DataType {
        match self {
            Self::Smallint => DataType::Int16,
            Self::Integer => DataType::Int32,
            Self::Real => DataType::Float32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => sealed.data_type(),
        }
    }

    /// The bits of the magnitude of its integers, where they are fewer than an int64's.
    pub(crate) const fn bits(self) -> Option<u8> {
        match self {
            // 2^15 and 2^31 are the magnitudes of the least.
            Self::Smallint => Some(16),
            Self::Integer => Some(32),
            _ => None,
        }
    }

    /// The name that goes with a field whose Arrow type does not say it.
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Numeric => Some("numeric"),
            Self::Varchar => Some("varchar"),
            Self::Char => Some("bpchar"),
            Self::Uuid => Some("uuid"),
            Self::Json => Some("json"),
            Self::Jsonb => Some("jsonb"),
            _ => None,
        }
    }
}

/// The planner's field of a column.
pub(crate) fn field_of(column: &ColumnDef) -> Field {
    let field = Field::new(&column.name, column.data_type(), column.nullable);
    let mut more = HashMap::new();
    if let Some(name) = column.sql.name() {
        more.insert(TYPE_NAME.to_owned(), name.to_owned());
    }
    if let (Some(max), SqlType::Varchar | SqlType::Char) = (column.chars_max, column.sql) {
        more.insert(CHARS_MAX.to_owned(), max.to_string());
    }
    field.with_metadata(more)
}

/// What a column of a query's answer is declared as, where a table is made of it.
pub(crate) fn sql_type_of(field: &Field) -> SqlType {
    let named = field.metadata().get(TYPE_NAME).map(String::as_str);
    match (named, field.data_type()) {
        (Some("numeric"), _) => SqlType::Numeric,
        (Some("varchar"), _) => SqlType::Varchar,
        (Some("bpchar"), _) => SqlType::Char,
        (Some("uuid"), _) => SqlType::Uuid,
        (Some("json"), _) => SqlType::Json,
        (Some("jsonb"), _) => SqlType::Jsonb,
        (_, DataType::Int8 | DataType::Int16) => SqlType::Smallint,
        (_, DataType::Int32) => SqlType::Integer,
        (_, DataType::Float32) => SqlType::Real,
        (_, DataType::Timestamp(_, None)) => SqlType::Timestamp,
        _ => SqlType::Sealed,
    }
}

/// An array as one of another type, if not one value is lost.
///
/// # Errors
/// A value that does not fit.
pub(crate) fn recast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    // A time zone is what is done with the number, not another number.
    if let (DataType::Timestamp(a, _), DataType::Timestamp(b, zone)) = (array.data_type(), to)
        && a == b
        && *a == TimeUnit::Microsecond
    {
        use datafusion::arrow::array::cast::AsArray;
        let values = array.as_primitive::<datafusion::arrow::datatypes::TimestampMicrosecondType>();
        return Ok(Arc::new(values.clone().with_timezone_opt(zone.clone())));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|e| datafusion::common::DataFusionError::from(e).into())
}

/// A declared type: what holds it, and the longest text in characters.
pub(crate) struct Declared {
    pub(crate) ty: ColumnType,
    pub(crate) sql: SqlType,
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
    let as_sql = |sql, ty| Declared { ty, sql, chars_max: None, serial: false, notice: None };
    let plain = |ty| as_sql(SqlType::Sealed, ty);
    let text = |sql, length: &Option<CharacterLength>| Declared {
        chars_max: length.as_ref().and_then(|l| match l {
            CharacterLength::IntegerLength { length, .. } => Some(*length),
            CharacterLength::Max => None,
        }),
        ..as_sql(sql, ColumnType::Text)
    };
    Ok(match ty {
        T::SmallInt(_) | T::Int2(_) => as_sql(SqlType::Smallint, ColumnType::Int64),
        T::Int(_) | T::Integer(_) | T::Int4(_) => as_sql(SqlType::Integer, ColumnType::Int64),
        T::BigInt(_) | T::Int8(_) | T::Int64 => plain(ColumnType::Int64),
        T::Numeric(info) | T::Decimal(info) | T::Dec(info) => decimal(info)?,
        T::Real | T::Float4 | T::Float(ExactNumberInfo::Precision(1..=24)) => {
            as_sql(SqlType::Real, ColumnType::Float64)
        }
        T::Float8 | T::Float(_) | T::Double(_) | T::DoublePrecision | T::Float64 => plain(ColumnType::Float64),
        T::Text => plain(ColumnType::Text),
        T::Uuid => as_sql(SqlType::Uuid, ColumnType::Text),
        T::JSON => as_sql(SqlType::Json, ColumnType::Text),
        T::JSONB => as_sql(SqlType::Jsonb, ColumnType::Text),
        T::Varchar(l) | T::CharacterVarying(l) | T::CharVarying(l) => text(SqlType::Varchar, l),
        T::Char(l) | T::Character(l) => {
            let one = CharacterLength::IntegerLength { length: 1, unit: None };
            text(SqlType::Char, &Some((*l).unwrap_or(one)))
        }
        T::Boolean | T::Bool => plain(ColumnType::Bool),
        T::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            as_sql(SqlType::Timestamp, ColumnType::Timestamp)
        }
        T::Timestamp(..) => plain(ColumnType::Timestamp),
        T::Date => plain(ColumnType::Date),
        T::Bytea | T::Bytes(_) | T::Blob(_) | T::Binary(_) | T::Varbinary(_) => plain(ColumnType::Bytes),
        T::Custom(name, _) => match name.to_string().to_lowercase().as_str() {
            "bigserial" | "serial8" => Declared { serial: true, ..plain(ColumnType::Int64) },
            "serial" | "serial4" => Declared { serial: true, ..as_sql(SqlType::Integer, ColumnType::Int64) },
            "smallserial" | "serial2" => Declared { serial: true, ..as_sql(SqlType::Smallint, ColumnType::Int64) },
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
    let sql = if matches!(info, ExactNumberInfo::None) { SqlType::Numeric } else { SqlType::Sealed };
    Ok(Declared { ty, sql, chars_max: None, serial: false, notice })
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
        DataType::List(item) => format!("{}[]", cast_name(item.data_type())?),
        _ => return None,
    })
}

fn is_oid(ty: &ast::DataType) -> bool {
    let ast::DataType::Custom(name, _) = ty else { return false };
    name.0.last().and_then(|part| part.as_ident()).is_some_and(|last| last.value.eq_ignore_ascii_case("oid"))
}

/// The Arrow type that a cast in SQL names, where it is one of [`cast_name`]'s, an OID, or an array of such.
pub(crate) fn cast_type(ty: &ast::DataType) -> Option<DataType> {
    match ty {
        ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(item, _)) => {
            let field = Field::new_list_field(cast_type(item)?, true);
            let kind = is_oid(item).then(|| (OID_ALIAS_KEY.to_owned(), kind::OID.to_owned()));
            Some(DataType::List(Arc::new(field.with_metadata(kind.into_iter().collect()))))
        }
        _ if is_oid(ty) => Some(DataType::Int32),
        _ => declared(ty).ok().map(|d| d.sql.data_type(d.ty)),
    }
}
