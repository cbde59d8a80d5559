//! Values for `$1`, `$2`, .. as JSON.
//!
//! ```text
//! null | true | 12 | "text"              a value of the type that the statement gives the parameter; text where it gives none
//! {"type": "numeric", "value": "1.50"}   a value of that type
//! ```
//! Rule    a number is read from its own digits, never through a double.
//! Rule    what a text means is what it means on the Postgres port: one decoder for both.

use super::problem::Problem;
use crate::pg_type::pg_type;
use crate::server::errors::{Fault, code};
use crate::server::params::{decode, natural};
use crate::session::{Prepared, Statement};
use crate::sql::params::casts;
use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use pgwire::api::Type;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A value for a parameter.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the documentation's form of what `Given::parse` reads")]
pub(super) enum Parameter {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number, taken digit for digit; as text where the statement gives the parameter no type.
    Number(f64),
    /// The value in PostgreSQL's words: `2013-05-01`, `\x0aff`, `12.50`, `2013-05-01T12:00:00Z`.
    Text(String),
    /// A value with its type.
    Typed(TypedParameter),
}

/// A value with its type.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedParameter {
    /// Its SQL type: bigint, numeric, text, boolean, date, timestamptz, bytea, ..
    #[serde(rename = "type")]
    type_name: String,
    /// The value: null, a boolean, a number or a string.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
}

/// A value that was read, before its type is known.
pub(super) struct Given {
    /// The type that came with it.
    declared: Option<Type>,
    /// The value in PostgreSQL's words; `None` for NULL.
    text: Option<String>,
}

impl Given {
    /// Reads the parameter number `index` (from 1).
    ///
    /// # Errors
    /// A type that is not known, an array, an object of another form.
    pub(super) fn parse(index: usize, raw: &RawValue) -> Result<Self, Problem> {
        let place = |mut fault: Fault| {
            fault.message = format!("parameter ${index}: {}", fault.message);
            Problem::from(fault)
        };
        if raw.get().starts_with('{') {
            let typed: TypedParameter = serde_json::from_str(raw.get()).map_err(|error| {
                place(Fault::error(code::INVALID_PARAMETER_VALUE, format!("an object has a type and a value: {error}")))
            })?;
            let declared = type_of(&typed.type_name).map_err(place)?;
            return Ok(Self { declared: Some(declared), text: text(&typed.value).map_err(place)? });
        }
        Ok(Self { declared: None, text: text(raw).map_err(place)? })
    }

    /// What the planner is told of it. A numeric brings its digits; where it is none, that is said with its value.
    pub(super) fn hint(&self) -> Option<DataType> {
        let declared = self.declared.as_ref()?;
        natural(declared).or_else(|| {
            let own = decode(Some(self.text.as_deref()?.as_bytes()), false, declared, &DataType::Null);
            own.ok().map(|own| own.data_type())
        })
    }
}

/// A scalar in PostgreSQL's words.
fn text(raw: &RawValue) -> Result<Option<String>, Fault> {
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|error| Fault::error(code::INVALID_PARAMETER_VALUE, error.to_string())),
        Some(b'[' | b'{') => {
            Err(Fault::error(code::INVALID_PARAMETER_VALUE, "a value is null, a boolean, a number or a string")
                .hint("json goes as a string, an array as a string like {1,2} with its type"))
        }
        _ => Ok(Some(raw.get().to_owned())),
    }
}

/// The type of a name, in SQL's words or PostgreSQL's.
fn type_of(name: &str) -> Result<Type, Fault> {
    let lower = name.trim().to_ascii_lowercase();
    let (item, array) = lower.strip_suffix("[]").map_or((lower.as_str(), false), |item| (item.trim_end(), true));
    let (one, many) = match item {
        "boolean" | "bool" => (Type::BOOL, Type::BOOL_ARRAY),
        "smallint" | "int2" => (Type::INT2, Type::INT2_ARRAY),
        "integer" | "int" | "int4" => (Type::INT4, Type::INT4_ARRAY),
        "bigint" | "int8" => (Type::INT8, Type::INT8_ARRAY),
        "real" | "float4" => (Type::FLOAT4, Type::FLOAT4_ARRAY),
        "double precision" | "double" | "float8" => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        "numeric" | "decimal" => (Type::NUMERIC, Type::NUMERIC_ARRAY),
        "text" | "varchar" | "character varying" => (Type::TEXT, Type::TEXT_ARRAY),
        "uuid" => (Type::UUID, Type::UUID_ARRAY),
        "json" | "jsonb" => (Type::JSON, Type::JSON_ARRAY),
        "bytea" => (Type::BYTEA, Type::BYTEA_ARRAY),
        "date" => (Type::DATE, Type::DATE_ARRAY),
        "time" => (Type::TIME, Type::TIME_ARRAY),
        "timestamp" | "timestamp without time zone" => (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
        "timestamptz" | "timestamp with time zone" => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        "interval" => (Type::INTERVAL, Type::INTERVAL_ARRAY),
        _ => {
            let shown: String = name.chars().take(64).collect();
            return Err(Fault::error(code::UNDEFINED_OBJECT, format!("type \"{shown}\" does not exist")));
        }
    };
    Ok(if array { many } else { one })
}

/// Refuses more or fewer values than a statement has parameters. Those of PREPARE are for EXECUTE.
///
/// # Errors
/// As it says.
pub(super) fn check_count(given: &[Given], statement: &Statement) -> Result<(), Problem> {
    let needed = match &statement.0 {
        ast::Statement::Prepare { .. } => 0,
        other => casts(&mut other.clone())?.len(),
    };
    let count = given.len();
    if count == needed {
        return Ok(());
    }
    let why = format!("{count} parameters were given, and the statement has {needed}");
    Err(Fault::error(code::PROTOCOL_VIOLATION, why).into())
}

/// The values of a planned statement's parameters, of which there are as many.
///
/// # Errors
/// A value that is none of its type.
pub(super) fn values(given: &[Given], prepared: &Prepared) -> Result<Vec<ScalarValue>, Problem> {
    let one = |(index, (given, target)): (usize, (&Given, &DataType))| {
        let declared = match &given.declared {
            Some(declared) => declared.clone(),
            None => pg_type(target)?,
        };
        decode(given.text.as_deref().map(str::as_bytes), false, &declared, target).map_err(|mut fault| {
            fault.message = format!("parameter ${}: {}", index + 1, fault.message);
            fault
        })
    };
    Ok(given.iter().zip(&prepared.params).enumerate().map(one).collect::<Result<_, Fault>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(json: &str) -> Result<Given, Problem> {
        Given::parse(1, &RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn values_keep_their_digits() {
        for (json, expected) in [
            ("null", None),
            ("true", Some("true")),
            ("9223372036854775807", Some("9223372036854775807")),
            ("0.10000000000000000000001", Some("0.10000000000000000000001")),
            ("\"a\\u00e9\\n\"", Some("a\u{e9}\n")),
        ] {
            assert_eq!(given(json).unwrap().text.as_deref(), expected, "{json}");
            let typed = format!("{{\"type\": \"Numeric\", \"value\": {json}}}");
            let typed = given(&typed).unwrap();
            assert_eq!((typed.text.as_deref(), typed.declared), (expected, Some(Type::NUMERIC)), "{json}");
        }
        assert_eq!(given("{\"type\": \"bigint[]\", \"value\": \"{1,2}\"}").unwrap().declared, Some(Type::INT8_ARRAY));
    }

    #[test]
    fn refuses_what_is_no_value() {
        for json in [
            "[1]",
            "{}",
            "{\"value\": 1}",
            "{\"type\": \"text\"}",
            "{\"type\": \"nosuch\", \"value\": 1}",
            "{\"type\": 1, \"value\": 1}",
            "{\"type\": \"text\", \"value\": {}}",
            "{\"type\": \"text\", \"value\": 1, \"more\": 2}",
        ] {
            assert!(given(json).is_err(), "{json}");
        }
    }
}
