//! Aggregates that declared sums answer: what is asked of nodes for each, and the value that DataFusion would have computed.
//!
//! Doubles  variances and what else is a fraction of sums come of exact integers and are rounded once; DataFusion adds doubles up, so the last
//!          digits may differ.

use crate::error::{SqlError, SqlState};
use crate::sql::catalog::{ColumnDef, TableDef};
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Cast, Expr};
use datafusion::scalar::ScalarValue;
use fluence_client::schema::TableSchema;
use fluence_client::{Aggregate, AggregateValue, KeyRange, PairStatistic, SumExpr, Value};

/// One aggregate, as it is asked for and as DataFusion computes it.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Count(Aggregate),
    /// A sum, NULL over no values.
    Sum(Aggregate),
    /// A sum over a count of values.
    Mean(Aggregate, Aggregate),
    /// The least or the greatest value.
    End(Aggregate),
    /// A fraction of sums, as a double.
    Double(Aggregate),
    /// The square root of one.
    Root(Aggregate),
}

impl Wanted {
    /// What is asked of nodes.
    pub(super) fn aggregates(&self) -> Vec<Aggregate> {
        match self {
            Self::Count(a) | Self::Sum(a) | Self::End(a) | Self::Double(a) | Self::Root(a) => vec![a.clone()],
            Self::Mean(sum, count) => vec![sum.clone(), count.clone()],
        }
    }

    /// Whether it reads rows, not sums.
    pub(super) fn reads_rows(&self) -> bool {
        matches!(self, Self::End(_))
    }

    /// In words, for EXPLAIN.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Count(Aggregate::CountColumn(c)) => format!("count({c})"),
            Self::Count(_) => "count(*)".to_owned(),
            Self::Sum(Aggregate::Sum(e)) => format!("sum({e})"),
            Self::Mean(Aggregate::Sum(e), _) => format!("avg({e})"),
            Self::End(Aggregate::Min(c)) => format!("min({c})"),
            Self::End(Aggregate::Max(c)) => format!("max({c})"),
            Self::Double(Aggregate::VarPop(c)) => format!("var_pop({c})"),
            Self::Double(Aggregate::VarSamp(c)) => format!("var_samp({c})"),
            Self::Root(Aggregate::VarPop(c)) => format!("stddev_pop({c})"),
            Self::Root(Aggregate::VarSamp(c)) => format!("stddev_samp({c})"),
            Self::Double(Aggregate::Pair { statistic, y, x }) => format!("{}({y}, {x})", statistic.name()),
            _ => "aggregate".to_owned(),
        }
    }

    /// Its value, of the type that the plan says, from the answers to [`Self::aggregates`].
    pub(super) fn value(
        &self,
        values: &mut impl Iterator<Item = AggregateValue>,
        ty: &DataType,
    ) -> Result<ScalarValue> {
        let mut next = || values.next().ok_or_else(|| internal("fewer values than aggregates"));
        match self {
            Self::Mean(..) => mean(&next()?, &next()?, ty),
            Self::Double(_) | Self::Root(_) => {
                let value = match next()? {
                    AggregateValue::Null => None,
                    value => Some(value.to_f64().ok_or_else(|| internal("a statistic that is no number"))?),
                };
                Ok(ScalarValue::Float64(if matches!(self, Self::Root(_)) { value.map(f64::sqrt) } else { value }))
            }
            _ => scalar(&next()?, ty),
        }
    }
}

/// The columns of a row of values, one array each.
pub(super) fn row(wanted: &[Wanted], values: Vec<AggregateValue>, fields: &Fields) -> Result<Vec<ArrayRef>> {
    let mut values = values.into_iter();
    wanted.iter().zip(fields).map(|(wanted, field)| wanted.value(&mut values, field.data_type())?.to_array()).collect()
}

/// What `expr` wants of the sums over a range of a copy of a table, where they are declared there; `ty` is the type that the plan gives it.
pub(super) fn wanted_of(
    def: &TableDef,
    schema: &TableSchema,
    range: &KeyRange,
    expr: &Expr,
    ty: &DataType,
) -> Option<Wanted> {
    let expr = match expr {
        Expr::Alias(alias) => &*alias.expr,
        other => other,
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return None };
    let AggregateFunctionParams { args, distinct: false, filter: None, order_by, null_treatment: None } = params else {
        return None;
    };
    if !order_by.is_empty() {
        return None;
    }
    let column = |expr: &Expr| match expr {
        Expr::Column(c) => def.columns.iter().find(|d| d.name == c.name),
        _ => None,
    };
    if let [y, x] = args.as_slice() {
        return pair_of(schema, func.name(), column(doubled(y)?)?, column(doubled(x)?)?);
    }
    let [arg] = args.as_slice() else { return None };
    // AVG of integers is computed on doubles.
    let (arg, cast) = match arg {
        Expr::Cast(Cast { expr, field }) => (&**expr, Some(field.data_type())),
        other => (other, None),
    };
    if func.name() == "count" {
        return match (arg, cast) {
            (Expr::Literal(value, _), None) if !value.is_null() => Some(Wanted::Count(Aggregate::Count)),
            (expr, None) => {
                let column = column(expr)?;
                if !column.nullable {
                    return Some(Wanted::Count(Aggregate::Count));
                }
                schema.not_null_field(&SumExpr::Column(column.physical.clone())).ok()?;
                Some(Wanted::Count(Aggregate::CountColumn(column.physical.clone())))
            }
            _ => None,
        };
    }
    let column = column(arg)?;
    let sum = SumExpr::Column(column.physical.clone());
    let summed = schema.expr_field(&sum).is_ok() && schema.not_null_field(&sum).is_ok();
    let own = column.data_type();
    let integer = own.is_integer();
    match (func.name(), &own, ty, cast) {
        ("sum", DataType::Int64, DataType::Decimal128(_, 0), Some(DataType::Decimal128(_, 0))) if summed => {
            Some(Wanted::Sum(Aggregate::Sum(sum)))
        }
        // Narrower integers are widened before they are added.
        ("sum", _, DataType::Int64, None | Some(DataType::Int64)) if summed && integer => {
            Some(Wanted::Sum(Aggregate::Sum(sum)))
        }
        ("sum", DataType::Decimal128(_, s), DataType::Decimal128(_, t), None) if summed && s == t => {
            Some(Wanted::Sum(Aggregate::Sum(sum)))
        }
        ("avg", _, DataType::Float64, Some(DataType::Float64)) if summed && integer => {
            Some(Wanted::Mean(Aggregate::Sum(sum), Aggregate::CountColumn(column.physical.clone())))
        }
        ("avg", _, DataType::Decimal128(..), Some(DataType::Decimal128(..))) if summed && integer => {
            Some(Wanted::Mean(Aggregate::Sum(sum), Aggregate::CountColumn(column.physical.clone())))
        }
        ("avg", DataType::Decimal128(_, s), DataType::Decimal128(_, t), None | Some(DataType::Decimal128(..)))
            if summed && t >= s && cast.is_none_or(|c| matches!(c, DataType::Decimal128(_, wider) if wider >= s)) =>
        {
            Some(Wanted::Mean(Aggregate::Sum(sum), Aggregate::CountColumn(column.physical.clone())))
        }
        ("var" | "var_pop" | "stddev" | "stddev_pop", _, DataType::Float64, Some(DataType::Float64)) if summed => {
            schema.expr_field(&SumExpr::Square(column.physical.clone())).ok()?;
            let name = column.physical.clone();
            let population = func.name().ends_with("_pop");
            let variance = if population { Aggregate::VarPop(name) } else { Aggregate::VarSamp(name) };
            Some(if func.name().starts_with("var") { Wanted::Double(variance) } else { Wanted::Root(variance) })
        }
        // The least value of a key column, where those before it are held equal, stands in the first row, the greatest in the last.
        ("min" | "max", own, ty, None)
            if own == ty && schema.key().iter().take(range.held() + 1).any(|k| *k == column.physical) =>
        {
            let name = column.physical.clone();
            let end = if func.name() == "min" { Aggregate::Min(name) } else { Aggregate::Max(name) };
            (!own.is_floating()).then_some(Wanted::End(end))
        }
        _ => None,
    }
}

/// The argument of a function that computes on doubles, where it was a number of another type.
fn doubled(arg: &Expr) -> Option<&Expr> {
    match arg {
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Float64 => Some(expr),
        _ => None,
    }
}

/// A statistic of two columns that are never NULL.
fn pair_of(schema: &TableSchema, name: &str, y: &ColumnDef, x: &ColumnDef) -> Option<Wanted> {
    if y.nullable || x.nullable {
        return None;
    }
    if name == "regr_count" {
        return Some(Wanted::Count(Aggregate::Count));
    }
    let statistic = PairStatistic::named(name)?;
    let (y, x) = (y.physical.clone(), x.physical.clone());
    let declared = statistic.sums(&y, &x).iter().all(|sum| schema.expr_field(sum).is_ok());
    declared.then_some(Wanted::Double(Aggregate::Pair { statistic, y, x }))
}

pub(super) fn internal(why: &str) -> SqlError {
    SqlError::new(SqlState::InternalError, why)
}

fn out_of_range(ty: &DataType) -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, format!("the result is out of range for {ty}"))
}

/// A value as one of the type that the plan says.
fn scalar(value: &AggregateValue, ty: &DataType) -> Result<ScalarValue> {
    Ok(match (value, ty) {
        (AggregateValue::Null, ty) => ScalarValue::try_from(ty)?,
        (AggregateValue::Count(n), DataType::Int64) => {
            ScalarValue::Int64(Some(i64::try_from(*n).map_err(|_| out_of_range(ty))?))
        }
        (AggregateValue::Count(n), DataType::UInt64) => ScalarValue::UInt64(Some(*n)),
        (AggregateValue::Sum { unscaled, scale: 0 }, DataType::Int64) => {
            ScalarValue::Int64(Some(i64::try_from(*unscaled).map_err(|_| out_of_range(ty))?))
        }
        (AggregateValue::Sum { unscaled, scale }, DataType::Decimal128(p, s)) if *scale == *s as u32 => {
            decimal(*unscaled, *p, *s, ty)?
        }
        (AggregateValue::Value(Value::Int64(v)), DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            ScalarValue::Int64(Some(*v)).cast_to(ty)?
        }
        (AggregateValue::Value(Value::Text(t)), DataType::Utf8) => ScalarValue::Utf8(Some(t.clone())),
        (AggregateValue::Value(Value::Bool(b)), DataType::Boolean) => ScalarValue::Boolean(Some(*b)),
        (AggregateValue::Value(Value::Date(d)), DataType::Date32) => ScalarValue::Date32(Some(*d)),
        (AggregateValue::Value(Value::Bytes(b)), DataType::Binary) => ScalarValue::Binary(Some(b.clone())),
        (AggregateValue::Value(Value::Timestamp(us)), DataType::Timestamp(_, zone)) => {
            ScalarValue::TimestampMicrosecond(Some(*us), zone.clone())
        }
        (AggregateValue::Value(Value::Decimal { unscaled, .. }), DataType::Decimal128(p, s)) => {
            decimal(*unscaled, *p, *s, ty)?
        }
        _ => return Err(internal("an aggregate of another type than planned").into()),
    })
}

fn decimal(unscaled: i128, precision: u8, scale: i8, ty: &DataType) -> Result<ScalarValue> {
    if unscaled.unsigned_abs() >= 10u128.pow(u32::from(precision)) {
        return Err(out_of_range(ty).into());
    }
    Ok(ScalarValue::Decimal128(Some(unscaled), precision, scale))
}

/// A mean as DataFusion computes it: doubles divided, or decimals with more digits, cut off.
fn mean(sum: &AggregateValue, count: &AggregateValue, ty: &DataType) -> Result<ScalarValue> {
    let (AggregateValue::Sum { unscaled, scale }, AggregateValue::Count(n)) = (sum, count) else {
        return ScalarValue::try_from(ty);
    };
    match ty {
        DataType::Float64 => Ok(ScalarValue::Float64(Some(*unscaled as f64 / *n as f64))),
        DataType::Decimal128(p, s) => {
            let more = 10i128.pow(u32::try_from(*s).unwrap_or(0).saturating_sub(*scale));
            let value = unscaled.checked_mul(more).ok_or_else(|| out_of_range(ty))? / i128::from(*n);
            decimal(value, *p, *s, ty)
        }
        _ => Err(internal("a mean of another type than planned").into()),
    }
}
