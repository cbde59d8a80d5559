//! Integer arithmetic that says so where a result does not fit: the planner's own wraps around.
//!
//! How     `a + b` of integers becomes a call that has the same name in a plan's schema, so that all that refers to it still does. A literal
//!         beside a narrower column is one of the column's type, as in PostgreSQL.
//! Source  PostgreSQL 15, "Mathematical Functions and Operators"; error 22003

use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::{Array, ArrayRef, Datum};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::numeric::{add, mul, neg, sub};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// An expression in which integers do not wrap around.
///
/// # Errors
/// What walking it says.
pub(crate) fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_down(|expr| {
        let name = expr.schema_name().to_string();
        let (op, args) = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let checked = match op {
                    Operator::Plus => Op::Add,
                    Operator::Minus => Op::Subtract,
                    Operator::Multiply => Op::Multiply,
                    _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                };
                let integer = |e: &Expr| e.get_type(schema).is_ok_and(|t| t.is_signed_integer());
                if !integer(&left) || !integer(&right) {
                    return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
                }
                let (of_left, of_right) = (left.get_type(schema)?, right.get_type(schema)?);
                (checked, vec![narrowed(*left, &of_right), narrowed(*right, &of_left)])
            }
            Expr::Negative(inner) if inner.get_type(schema).is_ok_and(|t| t.is_signed_integer()) => {
                // A literal is folded where it stands; of it only the least could overflow.
                if matches!(*inner, Expr::Literal(..)) {
                    return Ok(Transformed::no(Expr::Negative(inner)));
                }
                (Op::Negate, vec![*inner])
            }
            other => return Ok(Transformed::no(other)),
        };
        let call = Arc::new(ScalarUDF::new_from_impl(Checked::new(op, name)));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(call, args))))
    })
}

/// A literal as one of a narrower type, where it fits.
fn narrowed(expr: Expr, beside: &DataType) -> Expr {
    match (&expr, beside) {
        (Expr::Literal(ScalarValue::Int64(Some(n)), _), DataType::Int32 | DataType::Int16) => {
            i32::try_from(*n).map_or(expr, |n| Expr::Literal(ScalarValue::Int32(Some(n)), None))
        }
        _ => expr,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Op {
    Add,
    Subtract,
    Multiply,
    Negate,
}

/// One operation.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Checked {
    op: Op,
    /// What stands in a plan's schema for it.
    shown: String,
    signature: Signature,
}

impl Checked {
    fn new(op: Op, shown: String) -> Self {
        Self { op, shown, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// The wider of integers' types.
fn widest(types: &[DataType]) -> DataType {
    types.iter().max_by_key(|t| t.primitive_width()).cloned().unwrap_or(DataType::Int64)
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Op::Add => "fluence_add",
            Op::Subtract => "fluence_subtract",
            Op::Multiply => "fluence_multiply",
            Op::Negate => "fluence_negate",
        }
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
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![widest(types); types.len()])
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(widest(types))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ty = args.return_field.data_type().clone();
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let operands = args
            .args
            .iter()
            .map(|arg| match arg {
                ColumnarValue::Array(array) => Ok(Box::new(cast(array, &ty)?) as Box<dyn Datum>),
                ColumnarValue::Scalar(value) => Ok(Box::new(value.cast_to(&ty)?.to_scalar()?) as Box<dyn Datum>),
            })
            .collect::<Result<Vec<_>>>()?;
        let result: std::result::Result<ArrayRef, _> = match (self.op, operands.as_slice()) {
            (Op::Add, [a, b]) => add(a.as_ref(), b.as_ref()),
            (Op::Subtract, [a, b]) => sub(a.as_ref(), b.as_ref()),
            (Op::Multiply, [a, b]) => mul(a.as_ref(), b.as_ref()),
            (Op::Negate, [a]) => neg(a.get().0),
            _ => return Err(DataFusionError::Internal("an operation with other operands".to_owned())),
        };
        let array = result.map_err(|_| {
            let name = match ty {
                DataType::Int16 => "smallint",
                DataType::Int32 => "integer",
                _ => "bigint",
            };
            SqlError::new(SqlState::NumericValueOutOfRange, format!("{name} out of range"))
        })?;
        debug_assert!(array.data_type() == &ty);
        Ok(if scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }
}
