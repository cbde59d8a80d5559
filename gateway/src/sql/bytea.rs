//! Bytes as PostgreSQL writes them in text: `\x` and hex, or the characters themselves with backslash escapes.

use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{ArrayRef, BinaryBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use std::sync::{Arc, OnceLock};

/// Reads `\xDEADBEEF`, or text with `\\` and `\ooo`; `None` where it is neither.
pub(crate) fn parse(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        return hex::decode(digits).ok();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
        } else if let Some(tail) = rest.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = tail;
        } else {
            let octal = std::str::from_utf8(rest.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(octal, 8).ok()?);
            rest = &rest[3..];
        }
    }
    Some(bytes)
}

/// The function that reads them.
pub(crate) fn read() -> Arc<ScalarUDF> {
    static READ: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    let run = |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let mut out = BinaryBuilder::new();
        for text in texts {
            match text.map(|t| parse(t).ok_or(())) {
                None => out.append_null(),
                Some(Ok(bytes)) => out.append_value(bytes),
                Some(Err(())) => return Err(bad().into()),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish()) as ArrayRef))
    };
    Arc::clone(READ.get_or_init(|| {
        Arc::new(create_udf(
            "fluence_bytea",
            vec![DataType::Utf8],
            DataType::Binary,
            Volatility::Immutable,
            Arc::new(run),
        ))
    }))
}

/// The error of a text that is neither.
pub(crate) fn bad() -> crate::error::SqlError {
    crate::error::SqlError::new(crate::error::SqlState::InvalidText, "invalid input syntax for type bytea")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_both_forms_and_refuses_others() {
        assert_eq!(parse("\\x00ff").unwrap(), [0, 255]);
        assert_eq!(parse("a\\\\b\\001").unwrap(), b"a\\b\x01");
        for bad in ["\\x0", "\\xzz", "\\", "\\9", "\\400", "\\12"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
