//! Arithmetic as PostgreSQL does it, where the planner's own would give another value.
//!
//! ```text
//! a / b, of decimals         the planner keeps 4 digits more than a has: a gets more before, as many as are sure to fit
//! avg(d), of a decimal       likewise: 16 digits after the point at least, where they fit
//! avg(n), of an integer      a decimal of 12 digits after the point (18 for narrower integers), where the planner's is a double
//! sum(n), of a bigint        a decimal, where the planner's wraps around
//! a + b, a - b, a * b, -a    of integers: an error where the planner wraps around (see `overflow`)
//! x::integer                 rounded where the planner cuts off (see `rounding`)
//! bytes = 'text'             the text is read as bytes are written, where the planner compares its characters
//! date +- interval           the planner drops what is below a day: the date becomes a timestamp, unless the interval has no such part
//! x IN (SELECT ..)           below OR or NOT the planner knows true and false only: refused where a NULL may be in it
//! ```
//! When    on a plan as it comes from SQL, before the planner settles types, so that all that follows is settled by the new ones.
//! Source  PostgreSQL 15, "Numeric Types", "Date/Time Functions and Operators"; found by comparison with DuckDB

use super::{bytea, overflow, rounding};
use crate::error::SqlError;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{InList, WindowFunctionDefinition};
use datafusion::logical_expr::utils::{merge_schema, split_conjunction};
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::scalar::ScalarValue;

/// Digits of a decimal.
const DIGITS: u8 = 38;
/// Digits after the point of what is divided, where they fit.
const SCALE: i8 = 16;
/// Digits after the point of integers whose mean is taken: 18 million of the largest still have a sum.
const MEAN_SCALE: i8 = 8;
/// Digits that the planner adds to the scale of a quotient or a mean.
const ADDED: i8 = 4;

/// The plan with arithmetic that gives what PostgreSQL gives.
///
/// # Errors
/// What the planner says of the new plan.
pub(crate) fn settled(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let settled = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Filter(filter) = &node {
            three_valued(&filter.predicate, filter.input.schema())?;
        }
        let inputs = node.inputs();
        let schema = if inputs.is_empty() { node.schema().as_ref().clone() } else { merge_schema(&inputs) };
        let limits = matches!(node, LogicalPlan::Limit(_));
        let changed = node.map_expressions(|expr| {
            // LIMIT takes literals and what folds to one before types are settled.
            let expr = if limits { expr } else { overflow::checked(expr, &schema)?.data };
            expr.transform_up(|e| settle(e, &schema))
        })?;
        // The types of what stands above follow.
        Ok(Transformed::yes(changed.data.recompute_schema()?))
    })?;
    Ok(settled.data)
}

fn settle(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let expr = match expr {
        Expr::Cast(Cast { expr: inner, field }) => {
            let inner = match inner.get_type(schema) {
                Ok(from) => rounding::before_cast(*inner, &from, field.data_type()),
                Err(_) => *inner,
            };
            return Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(inner), field })));
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let (left, right) = (as_bytes(*left, &right, schema)?, right);
            let right = as_bytes(*right, &left, schema)?;
            Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list = list.into_iter().map(|item| as_bytes(item, &expr, schema)).collect::<Result<_>>()?;
            return Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })));
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (low, high) = (as_bytes(*low, &expr, schema)?, as_bytes(*high, &expr, schema)?);
            let between = Between { expr, negated, low: Box::new(low), high: Box::new(high) };
            return Ok(Transformed::yes(Expr::Between(between)));
        }
        other => other,
    };
    Ok(settle_numbers(expr, schema))
}

const fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

/// A text literal beside bytes as the bytes that it writes.
fn as_bytes(expr: Expr, beside: &Expr, schema: &DFSchema) -> Result<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &expr else { return Ok(expr) };
    if !matches!(beside.get_type(schema), Ok(DataType::Binary)) {
        return Ok(expr);
    }
    let bytes = bytea::parse(text).ok_or_else(bytea::bad)?;
    Ok(Expr::Literal(ScalarValue::Binary(Some(bytes)), None))
}

fn settle_numbers(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) => {
            let (l, r) = (decimal_of(&left, schema), decimal_of(&right, schema));
            let exact = is_decimal(&left, schema) || is_decimal(&right, schema);
            match (l, r) {
                (Some((p, s)), Some((_, divisor))) if exact => {
                    // Whole digits of the dividend, the divisor's scale and what the planner adds must fit beside it.
                    let room = DIGITS as i8 - ADDED - divisor - (p as i8 - s);
                    let left = widened(*left, s, room.min(SCALE));
                    Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op: Operator::Divide, right }))
                }
                _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right })),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let is_date = |e: &Expr| matches!(e.get_type(schema), Ok(DataType::Date32));
            let timestamp = |e: Box<Expr>| Box::new(cast(*e, DataType::Timestamp(TimeUnit::Microsecond, None)));
            let (left, right) = match (has_hours(&left, schema), has_hours(&right, schema)) {
                (_, true) if is_date(&left) => (timestamp(left), right),
                (true, _) if is_date(&right) => (left, timestamp(right)),
                _ => return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::AggregateFunction(mut call) => {
            let name = call.func.name().to_owned();
            call.params.args = call.params.args.into_iter().map(|a| exact_argument(&name, a, schema)).collect();
            Transformed::yes(Expr::AggregateFunction(call))
        }
        Expr::WindowFunction(mut call) if matches!(&call.fun, WindowFunctionDefinition::AggregateUDF(_)) => {
            let name = call.fun.name().to_owned();
            call.params.args = call.params.args.into_iter().map(|a| exact_argument(&name, a, schema)).collect();
            Transformed::yes(Expr::WindowFunction(call))
        }
        other => Transformed::no(other),
    }
}

/// Refuses `IN (SELECT ..)` where the planner would take "not known" for false: below OR or NOT, with a NULL possible on either side.
fn three_valued(predicate: &Expr, schema: &DFSchema) -> Result<()> {
    for conjunct in split_conjunction(predicate) {
        let inner = match conjunct {
            Expr::Not(inner) => inner,
            other => other,
        };
        if matches!(inner, Expr::InSubquery(_)) {
            continue;
        }
        let doubtful = conjunct.exists(|e| {
            Ok(match e {
                Expr::InSubquery(call) => {
                    let of_subquery = call.subquery.subquery.schema().fields();
                    call.expr.nullable(schema).unwrap_or(true) || of_subquery.iter().any(|f| f.is_nullable())
                }
                _ => false,
            })
        })?;
        if doubtful {
            let why = SqlError::unsupported("IN (SELECT ..) below OR or NOT, where a value may be NULL,");
            return Err(why
                .hint("write it with EXISTS, or leave NULLs out on both sides with NOT NULL columns")
                .into());
        }
    }
    Ok(())
}

/// What an aggregate takes, so that its result is exact.
fn exact_argument(aggregate: &str, argument: Expr, schema: &DFSchema) -> Expr {
    match (aggregate, argument.get_type(schema)) {
        ("sum", Ok(DataType::Int64)) => cast(argument, DataType::Decimal128(19, 0)),
        ("avg", Ok(DataType::Int64)) => cast(argument, DataType::Decimal128(DIGITS, MEAN_SCALE)),
        ("avg", Ok(DataType::Int32 | DataType::Int16)) => cast(argument, DataType::Decimal128(DIGITS, SCALE - 2)),
        ("avg", Ok(DataType::Decimal128(p, s))) if s >= 0 => {
            // A sum of many still fits: ten digits are left for their number.
            let room = DIGITS as i8 - ADDED - 10 - (p as i8 - s);
            widened(argument, s, room.min(SCALE))
        }
        _ => argument,
    }
}

fn widened(expr: Expr, scale: i8, wanted: i8) -> Expr {
    if wanted > scale { cast(expr, DataType::Decimal128(DIGITS, wanted)) } else { expr }
}

fn is_decimal(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Decimal128(..)))
}

/// Precision and scale of an exact number; integers have none after the point.
fn decimal_of(expr: &Expr, schema: &DFSchema) -> Option<(u8, i8)> {
    match expr.get_type(schema).ok()? {
        DataType::Decimal128(p, s) if s >= 0 => Some((p, s)),
        DataType::Int64 | DataType::UInt64 => Some((20, 0)),
        DataType::Int32 | DataType::UInt32 | DataType::Int16 | DataType::Int8 => Some((10, 0)),
        _ => None,
    }
}

/// Whether an expression is an interval that may have a part below a day.
fn has_hours(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(v)), _) => v.nanoseconds != 0,
        Expr::Literal(ScalarValue::IntervalDayTime(Some(v)), _) => v.milliseconds != 0,
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => false,
        other => matches!(other.get_type(schema), Ok(DataType::Interval(_))),
    }
}
