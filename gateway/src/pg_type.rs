//! The types that columns and parameters have for PostgreSQL's clients, on the wire and in the system catalogue.
//!
//! Source  arrow-pg 0.16; PostgreSQL 15, `pg_type`, `pg_attribute`

use crate::error::SqlError;
use crate::sql::types::{CHARS_MAX, TYPE_NAME};
use arrow_pg::datatypes::field_into_pg_type;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion_pg_catalog::pg_catalog::oid_field::{OID_ALIAS_KEY, kind};
use pgwire::api::Type;
use std::sync::Arc;

/// The type that a column has on the wire. A column of NULLs alone is text, as in PostgreSQL.
///
/// # Errors
/// [`SqlError`] for a type that clients do not know.
pub(crate) fn type_of(field: &Field) -> Result<Type, SqlError> {
    let datatype = match (named(field), decimal(field.data_type())) {
        (Some(named), _) => named,
        (None, Some(_)) => Type::NUMERIC,
        (None, None) => field_into_pg_type(&Arc::new(field.clone()))
            .map_err(|_| SqlError::unsupported(format!("a column of type {}", field.data_type())))?,
    };
    Ok(if datatype == Type::UNKNOWN { Type::TEXT } else { datatype })
}

/// The type that a parameter has on the wire.
///
/// # Errors
/// [`SqlError`] for a type that clients do not know.
pub(crate) fn pg_type(data_type: &DataType) -> Result<Type, SqlError> {
    type_of(&Field::new("", data_type.clone(), true))
}

/// Precision and scale.
pub(crate) fn decimal(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// The type that a field's metadata names.
fn named(field: &Field) -> Option<Type> {
    if let DataType::List(item) = field.data_type()
        && item.metadata().get(OID_ALIAS_KEY).is_some_and(|kind| kind == kind::OID)
    {
        return Some(Type::OID_ARRAY);
    }
    let texts = matches!(field.data_type(), DataType::Utf8);
    Some(match field.metadata().get(TYPE_NAME)?.as_str() {
        "numeric" => Type::NUMERIC,
        "int2vector" => Type::INT2_VECTOR,
        "oidvector" => Type::OID_VECTOR,
        _ if !texts => return None,
        "varchar" => Type::VARCHAR,
        "bpchar" => Type::BPCHAR,
        "uuid" => Type::UUID,
        "json" => Type::JSON,
        "jsonb" => Type::JSONB,
        _ => return None,
    })
}

/// `pg_attribute.atttypmod`; of numeric: precision and scale, where they were declared; of text: its longest length.
pub(crate) fn type_modifier(field: &Field) -> i32 {
    if let Some(max) = field.metadata().get(CHARS_MAX).and_then(|max| max.parse::<i32>().ok()) {
        return max.saturating_add(4);
    }
    match decimal(field.data_type()).filter(|_| named(field).is_none()) {
        Some((precision, scale @ 0..)) => ((i32::from(precision) << 16) | i32::from(scale)) + 4,
        _ => -1,
    }
}

/// `pg_type.typlen`: bytes of a fixed type, -1 of a variable one.
pub(crate) fn type_size(datatype: &Type) -> i16 {
    match *datatype {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL | Type::UUID => 16,
        Type::NAME => 64,
        Type::REGPROC | Type::REGPROCEDURE | Type::REGOPER | Type::REGOPERATOR | Type::REGCLASS | Type::REGTYPE => 4,
        Type::REGNAMESPACE | Type::REGROLE | Type::REGCONFIG | Type::REGDICTIONARY | Type::REGCOLLATION => 4,
        _ => -1,
    }
}
