//! Numbers that become integers are rounded, as in PostgreSQL; the planner's own casts cut off.
//!
//! Rule    decimals half away from zero, floats half to even. Casts of SQL and assignments to columns alike.
//! How     the number is rounded by a call that has its name in a plan's schema, then cast.
//! Source  PostgreSQL 15, "Numeric Types" (`numeric` rounds away from zero, `double precision` as the machine does)

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use datafusion::arrow::compute::unary;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// A number as what a cast to `to` takes: rounded where that is an integer type and it may have digits after the point.
pub(crate) fn before_cast(value: Expr, from: &DataType, to: &DataType) -> Expr {
    let digits = match from {
        DataType::Decimal128(_, scale) => *scale > 0,
        DataType::Float32 | DataType::Float64 => true,
        _ => false,
    };
    if !digits || !to.is_integer() {
        return value;
    }
    let round = Round { shown: value.schema_name().to_string(), signature: Signature::any(1, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(round)), vec![value]))
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Round {
    /// What stands in a plan's schema for it.
    shown: String,
    signature: Signature,
}

/// The whole number nearest to `unscaled / 10^scale`, half away from zero, at the same scale.
fn away_from_zero(unscaled: i128, scale: i8) -> Option<i128> {
    let unit = 10i128.checked_pow(u32::try_from(scale).ok()?)?;
    let (whole, rest) = (unscaled / unit, unscaled % unit);
    let up = rest.unsigned_abs() >= (unit / 2).unsigned_abs();
    (whole + if up { unscaled.signum() } else { 0 }).checked_mul(unit)
}

impl ScalarUDFImpl for Round {
    fn name(&self) -> &str {
        "fluence_round"
    }
    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.shown.clone())
    }
    fn display_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.shown.clone())
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rounded: ArrayRef = match arrays[0].data_type() {
            DataType::Float64 => {
                Arc::new(unary::<Float64Type, _, Float64Type>(arrays[0].as_primitive(), f64::round_ties_even))
            }
            DataType::Float32 => {
                Arc::new(unary::<Float32Type, _, Float32Type>(arrays[0].as_primitive(), f32::round_ties_even))
            }
            DataType::Decimal128(precision, scale) => {
                let values = arrays[0].as_primitive::<Decimal128Type>();
                let scale = *scale;
                let rounded: Decimal128Array = values.try_unary(|v| {
                    away_from_zero(v, scale)
                        .ok_or_else(|| DataFusionError::Execution("a decimal is out of range".to_owned()))
                })?;
                Arc::new(rounded.with_precision_and_scale(*precision, scale)?)
            }
            other => return Err(DataFusionError::Internal(format!("{other} is not rounded"))),
        };
        Ok(match args.args[0] {
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?),
            ColumnarValue::Array(_) => ColumnarValue::Array(rounded),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::away_from_zero;

    #[test]
    fn halves_go_away_from_zero() {
        for (unscaled, scale, whole) in
            [(25, 1, 30), (-25, 1, -30), (24, 1, 20), (-24, 1, -20), (149, 2, 100), (150, 2, 200), (0, 3, 0)]
        {
            assert_eq!(away_from_zero(unscaled, scale), Some(whole), "{unscaled} of scale {scale}");
        }
        assert_eq!(away_from_zero(i128::MAX, 1), None);
    }
}
