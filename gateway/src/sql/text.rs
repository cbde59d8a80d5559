//! Texts that are more than text: UUIDs, JSON. A value is read as PostgreSQL reads it before it is sealed or compared.
//!
//! UUID   any form that PostgreSQL takes becomes the one that it writes: lower case, with hyphens
//! JSON   checked, and kept as it was written; `jsonb` too: spaces, order and doubles stay
//! Source PostgreSQL 15, "UUID Type", "JSON Types"; RFC 8259

use super::types::{SqlType, TYPE_NAME};
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The function that reads texts of a declared type; `None` where any text is one.
pub(crate) fn read(sql: SqlType) -> Option<Arc<ScalarUDF>> {
    static UUID: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    static JSON: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    static JSONB: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    let (cell, name) = match sql {
        SqlType::Uuid => (&UUID, "uuid"),
        SqlType::Json => (&JSON, "json"),
        SqlType::Jsonb => (&JSONB, "jsonb"),
        _ => return None,
    };
    Some(Arc::clone(cell.get_or_init(|| Arc::new(ScalarUDF::new_from_impl(Reader::new(name))))))
}

/// All of them, by the names under which SQL may call them.
pub(crate) fn readers() -> impl Iterator<Item = Arc<ScalarUDF>> {
    [SqlType::Uuid, SqlType::Json, SqlType::Jsonb].into_iter().filter_map(read)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Reader {
    of: &'static str,
    name: String,
    signature: Signature,
}

impl Reader {
    fn new(of: &'static str) -> Self {
        Self {
            of,
            name: format!("fluence_{of}"),
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Reader {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        let metadata = HashMap::from([(TYPE_NAME.to_owned(), self.of.to_owned())]);
        Ok(Arc::new(Field::new(&self.name, DataType::Utf8, nullable).with_metadata(metadata)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        if self.of != "uuid" {
            texts.iter().flatten().try_for_each(|t| if is_json(t) { Ok(()) } else { Err(bad(self.of)) })?;
            return Ok(ColumnarValue::Array(Arc::new(texts.clone())));
        }
        let read = texts.iter().map(|t| t.map(|t| uuid(t).ok_or_else(|| bad("uuid"))).transpose());
        let read: StringArray = read.collect::<std::result::Result<_, _>>()?;
        debug_assert_eq!(read.len(), texts.len());
        Ok(ColumnarValue::Array(Arc::new(read) as ArrayRef))
    }
}

fn bad(of: &str) -> SqlError {
    SqlError::new(SqlState::InvalidText, format!("invalid input syntax for type {of}"))
}

/// A UUID in the form that PostgreSQL writes: 32 digits in any case, with braces around them and hyphens after groups of four where the
/// writer likes.
pub(crate) fn uuid(text: &str) -> Option<String> {
    let inner = text.trim();
    let inner = match inner.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => inner,
    };
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    for byte in inner.bytes() {
        match byte {
            b'-' if count > 0 && count % 4 == 0 && count < 32 => {}
            digit if digit.is_ascii_hexdigit() && count < 32 => {
                if matches!(count, 8 | 12 | 16 | 20) {
                    digits.push('-');
                }
                digits.push(char::from(digit.to_ascii_lowercase()));
                count += 1;
            }
            _ => return None,
        }
    }
    (count == 32 && !inner.contains("--")).then_some(digits)
}

/// Whether a text is JSON that is not nested too deep.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{is_json, uuid};

    #[test]
    fn uuids_in_every_form_become_one() {
        let one = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for form in [
            one,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            assert_eq!(uuid(form).as_deref(), Some(one), "{form}");
        }
        for bad in [
            "",
            "a0eebc99",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "g0eebc999c0b4ef8bb6d6bb9bd380a11",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(uuid(bad), None, "{bad}");
        }
        assert_eq!(uuid(&format!("{one}0")), None);
    }

    #[test]
    fn json_is_checked() {
        for good in ["null", "{\"a\": [1, 2.5e3, \"x\"]}", " true "] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "{a: 1}", "[1,]", "'x'", "1 2"] {
            assert!(!is_json(bad), "{bad}");
        }
        assert!(!is_json(&"[".repeat(100_000)));
    }
}
