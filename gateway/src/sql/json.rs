//! `json_build_object(key, value, ..)`: what tools that read the catalogue put their rows together with.
//!
//! Source  PostgreSQL 15, "JSON Functions and Operators"

use super::types::TYPE_NAME;
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::{Array, ArrayRef, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::collections::HashMap;
use std::sync::Arc;

/// The function.
pub(crate) fn build_object() -> ScalarUDF {
    ScalarUDF::new_from_impl(BuildObject { signature: Signature::variadic_any(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BuildObject {
    signature: Signature,
}

/// A value as JSON: numbers and truth as they are, all else as a string.
fn value(array: &ArrayRef, formatter: &ArrayFormatter<'_>, row: usize) -> String {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return "null".to_owned();
    }
    let text = formatter.value(row).to_string();
    match array.data_type() {
        DataType::Boolean => text,
        ty if ty.is_integer() || matches!(ty, DataType::Decimal128(..)) => text,
        ty if ty.is_floating() && text.parse::<f64>().is_ok_and(f64::is_finite) => text,
        _ => serde_json::Value::String(text).to_string(),
    }
}

impl ScalarUDFImpl for BuildObject {
    fn name(&self) -> &str {
        "json_build_object"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let metadata = HashMap::from([(TYPE_NAME.to_owned(), "json".to_owned())]);
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, false).with_metadata(metadata)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<ArrayRef>>>()?;
        if arrays.len() % 2 != 0 {
            let why = "argument list must have even number of elements";
            return Err(SqlError::new(SqlState::InvalidParameter, why).into());
        }
        let options = FormatOptions::default();
        let formatters = arrays
            .iter()
            .map(|a| ArrayFormatter::try_new(a.as_ref(), &options))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let object = |row: usize| -> Result<String> {
            let mut parts = Vec::with_capacity(arrays.len() / 2);
            for pair in (0..arrays.len()).step_by(2) {
                if arrays[pair].is_null(row) {
                    let why = format!("argument {}: key must not be null", pair + 1);
                    return Err(SqlError::new(SqlState::InvalidParameter, why).into());
                }
                let key = serde_json::Value::String(formatters[pair].value(row).to_string());
                parts.push(format!("{key} : {}", value(&arrays[pair + 1], &formatters[pair + 1], row)));
            }
            Ok(format!("{{{}}}", parts.join(", ")))
        };
        let objects = (0..args.number_rows).map(object).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(objects))))
    }
}
