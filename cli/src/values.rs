//! Values between the command line, JSON and the client: keys as typed, answers as printed.
//!
//! Rule    integers and sums that JSON readers would round (beyond 2^53) and decimals are text; fractions are the nearest double.

use crate::error::{Context, Failure, Help, Result};
use arrow_array::RecordBatch;
use fluence_client::csv::parse_value;
use fluence_client::{Aggregate, AggregateValue, Evidence, KeyRange, PairStatistic, SumExpr, TableSchema, Value};
use serde_json::{Value as Json, json};
use std::ops::Bound;

/// Largest integer that every JSON reader keeps exactly.
const JSON_INTEGER_MAX: u64 = 1 << 53;

/// A value for JSON.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int64(v) if v.unsigned_abs() <= JSON_INTEGER_MAX => json!(v),
        Value::Float64(v) if v.is_finite() => json!(v),
        Value::Bool(b) => json!(b),
        other => json!(other.to_string()),
    }
}

/// An aggregate's value for JSON.
pub(crate) fn aggregate_json(value: &AggregateValue) -> Json {
    match value {
        AggregateValue::Null => Json::Null,
        AggregateValue::Count(n) if *n <= JSON_INTEGER_MAX => json!(n),
        AggregateValue::Sum { unscaled, scale: 0 } if unscaled.unsigned_abs() <= u128::from(JSON_INTEGER_MAX) => {
            json!(i64::try_from(*unscaled).expect("at most 2^53"))
        }
        AggregateValue::Fraction(f) => json!(f.to_f64()),
        AggregateValue::Value(v) => to_json(v),
        other => json!(other.to_string()),
    }
}

/// The rows of a batch.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Vec<Value>> {
    (0..batch.num_rows())
        .map(|row| {
            batch
                .columns()
                .iter()
                .map(|c| Value::at(c, row).expect("the client makes columns of its own types"))
                .collect()
        })
        .collect()
}

/// What stands behind an answer, for JSON.
pub(crate) fn evidence_json(e: &Evidence) -> Json {
    json!({
        "height": e.height, "root": e.root, "version": e.version, "segments": e.segments, "rows": e.rows,
        "native_bytes": e.native_bytes, "plan_bytes": e.plan_bytes, "native_ms": (e.native_ms * 1000.0).round() / 1000.0,
        "openings": e.openings, "requests": e.requests,
    })
}

/// What stands behind an answer, in one line.
pub(crate) fn evidence_line(e: &Evidence) -> String {
    let segments = if e.segments == 1 { "1 segment".to_owned() } else { format!("{} segments", e.segments) };
    let plan =
        if e.plan_bytes == 0 { String::new() } else { format!(" + {} to plan", crate::output::bytes(e.plan_bytes)) };
    format!(
        "{} rows verified at height {} in {segments}: {}{plan}, {:.1} ms",
        crate::output::count(e.rows),
        e.height,
        crate::output::bytes(e.native_bytes),
        e.native_ms
    )
}

/// The key range that flags name: from `from` on, before `to`; or everything that begins with `prefix`.
pub(crate) fn key_range(
    schema: &TableSchema,
    from: Option<&str>,
    to: Option<&str>,
    prefix: Option<&str>,
) -> Result<KeyRange> {
    if let Some(prefix) = prefix {
        return Ok(KeyRange::prefix(key(schema, prefix)?));
    }
    Ok(KeyRange {
        lower: from.map(|k| key(schema, k)).transpose()?.map_or(Bound::Unbounded, Bound::Included),
        upper: to.map(|k| key(schema, k)).transpose()?.map_or(Bound::Unbounded, Bound::Excluded),
    })
}

fn key(schema: &TableSchema, text: &str) -> Result<Vec<Value>> {
    let indices = schema.key_indices();
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > indices.len() {
        return Err(Failure::usage(format!("a key of {} values, the table's has {}", parts.len(), indices.len()))
            .help(format!("the key is ({})", schema.key().join(", "))));
    }
    parts
        .iter()
        .zip(indices)
        .map(|(part, index)| {
            let column = &schema.columns()[index];
            parse_value(part, column.ty).ok_or_else(|| {
                Failure::usage(format!("{part:?} is no {} (column {})", column.ty, column.name))
                    .help("timestamps are written as 2013-02-08T22:00:00Z, dates as 2013-02-08")
            })
        })
        .collect()
}

/// An aggregate as typed: `count`, `sum:distance`, `avg:arr_delay`, `var:x`, `min:x`, `max:x`.
pub(crate) fn aggregate(text: &str) -> Result<Aggregate> {
    let (function, column) = text.split_once(':').map_or((text, ""), |(f, c)| (f, c.trim()));
    let expr = || column.parse::<SumExpr>().usage(format!("{text:?} names no column")).or_help("as sum:distance");
    let name = || {
        if column.is_empty() {
            Err(Failure::usage(format!("{text:?} names no column")).help(format!("as {function}:distance")))
        } else {
            Ok(column.to_owned())
        }
    };
    Ok(match function.to_ascii_lowercase().as_str() {
        "count" if column.is_empty() || column == "*" => Aggregate::Count,
        "count" => Aggregate::CountColumn(name()?),
        "sum" => Aggregate::Sum(expr()?),
        "avg" => Aggregate::Avg(expr()?),
        "var" | "var_samp" => Aggregate::VarSamp(name()?),
        "var_pop" => Aggregate::VarPop(name()?),
        "min" => Aggregate::Min(name()?),
        "max" => Aggregate::Max(name()?),
        other if PairStatistic::named(other).is_some() => {
            let statistic = PairStatistic::named(other).expect("it was found");
            let Some((y, x)) = column.split_once(',') else {
                return Err(Failure::usage(format!("{text:?} does not name two columns"))
                    .help(format!("as {other}:arr_delay,distance, the dependent one first")));
            };
            Aggregate::Pair { statistic, y: y.trim().to_owned(), x: x.trim().to_owned() }
        }
        _ => {
            let pairs: Vec<&str> = PairStatistic::NAMES.iter().map(|(name, _)| *name).collect();
            return Err(Failure::usage(format!("there is no aggregate {text:?}")).help(format!(
                "count, count:COL, sum:EXPR, avg:COL, var:COL (sample), var_pop:COL, min:COL, max:COL; of two columns as corr:Y,X: {}",
                pairs.join(", ")
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_client::{Column, ColumnType};

    fn schema() -> TableSchema {
        let columns = vec![Column::new("at", ColumnType::Timestamp), Column::new("n", ColumnType::Int64)];
        TableSchema::new("t", columns, &["at", "n"], vec![]).unwrap()
    }

    #[test]
    fn keys_are_read_by_the_types_of_the_key_columns() {
        let range = key_range(&schema(), Some("2013-01-01T00:00:00Z"), Some("2013-01-02,7"), None).unwrap();
        assert!(matches!(&range.lower, Bound::Included(k) if k.len() == 1));
        assert!(matches!(&range.upper, Bound::Excluded(k) if k[1] == Value::Int64(7)));
        assert_eq!(key_range(&schema(), None, None, None).unwrap(), KeyRange::ALL);
        for bad in ["yesterday", "2013-01-01,x", "2013-01-01,1,2", ""] {
            assert!(key_range(&schema(), Some(bad), None, None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn aggregates_are_read_and_others_refused() {
        assert_eq!(aggregate("count").unwrap(), Aggregate::Count);
        assert_eq!(aggregate("COUNT:a").unwrap(), Aggregate::CountColumn("a".into()));
        assert_eq!(aggregate("sum:a*a").unwrap(), Aggregate::Sum(SumExpr::Square("a".into())));
        assert_eq!(aggregate("var:a").unwrap(), Aggregate::VarSamp("a".into()));
        let slope = Aggregate::Pair { statistic: PairStatistic::Slope, y: "b".into(), x: "a".into() };
        assert_eq!(aggregate("regr_slope:b, a").unwrap(), slope);
        assert!(aggregate("corr:a").is_err());
        for bad in ["", "median:a", "sum", "avg:", "min", "max:"] {
            assert!(aggregate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn integers_that_readers_would_round_are_text() {
        assert_eq!(to_json(&Value::Int64(-5)), json!(-5));
        assert_eq!(to_json(&Value::Int64(i64::MAX)), json!("9223372036854775807"));
        assert_eq!(
            aggregate_json(&AggregateValue::Sum { unscaled: 1 << 70, scale: 0 }),
            json!((1u128 << 70).to_string())
        );
        assert_eq!(aggregate_json(&AggregateValue::Sum { unscaled: -12345, scale: 2 }), json!("-123.45"));
        assert_eq!(to_json(&Value::Float64(f64::NAN)), json!("NaN"));
    }
}
