//! The queries of the demo: how each is asked, over one quarter or all four; the answers are compared with the plain computation.

use super::data::Expected;
use super::report::{Query, same};
use crate::error::{Failure, Result};
use crate::remote;
use crate::values;
use fluence_client::dial::Dialer;
use fluence_client::{Aggregate, AggregateValue, Evidence, KeyRange, Select, SumExpr, Table};
use serde_json::{Value, json};

/// How a query is asked.
enum Ask {
    /// Columns of the rows of one quarter's table.
    Rows(usize, Range, &'static [&'static str]),
    /// An aggregate of one quarter's table.
    One(usize, Range, Aggregate),
    /// An aggregate of the year, put together from the quarters' exact sums.
    Year(Year),
}

enum Range {
    Span(&'static str, &'static str),
    Prefix(&'static str),
}

enum Year {
    Count,
    Sum(SumExpr),
    Avg(&'static str),
    Var(&'static str),
}

fn column(name: &str) -> SumExpr {
    SumExpr::Column(name.to_owned())
}

/// The query that the plain computation calls `name`.
fn known(name: &str) -> Option<Ask> {
    const STORM: Range = Range::Span("2013-02-08T18:00:00Z", "2013-02-08T20:00:00Z");
    const HOLIDAYS: Range = Range::Span("2013-12-20T11:00:00Z", "2013-12-27T05:00:00Z");
    let delay = || "arr_delay".to_owned();
    Some(match name {
        "storm_rows" => Ask::Rows(0, STORM, &["time_hour", "carrier", "flight", "origin", "dest", "arr_delay"]),
        "prefix_rows" => Ask::Rows(2, Range::Prefix("2013-07-04T13:00:00Z,UA"), &["flight", "dest", "dep_delay"]),
        "storm_count" => Ask::One(0, STORM, Aggregate::Count),
        "storm_arrived" => Ask::One(0, STORM, Aggregate::CountColumn(delay())),
        "may_distance" => Ask::One(1, MAY, Aggregate::Sum(column("distance"))),
        "july_average" => Ask::One(
            2,
            Range::Span("2013-07-01T00:00:00Z", "2013-08-01T00:00:00Z"),
            Aggregate::Avg(column("arr_delay")),
        ),
        "holidays_variance" => Ask::One(3, HOLIDAYS, Aggregate::VarSamp(delay())),
        "holidays_best" => Ask::One(3, HOLIDAYS, Aggregate::Min(delay())),
        "holidays_worst" => Ask::One(3, HOLIDAYS, Aggregate::Max(delay())),
        "year_count" => Ask::Year(Year::Count),
        "year_distance" => Ask::Year(Year::Sum(column("distance"))),
        "year_average" => Ask::Year(Year::Avg("arr_delay")),
        "year_variance" => Ask::Year(Year::Var("arr_delay")),
        _ => return None,
    })
}

/// The range that is also proven for strangers.
const MAY: Range = Range::Span("2013-05-01T00:00:00Z", "2013-06-01T00:00:00Z");

/// Quarter and key range of May.
pub(crate) fn may(tables: &[Table<Dialer>]) -> Result<(usize, KeyRange)> {
    Ok((1, range(&tables[1], &MAY)?))
}

fn range(table: &Table<Dialer>, range: &Range) -> Result<KeyRange> {
    match range {
        Range::Span(from, to) => values::key_range(table.schema(), Some(from), Some(to), None),
        Range::Prefix(prefix) => values::key_range(table.schema(), None, None, Some(prefix)),
    }
}

/// Asks everything the plain computation knows; each answer must be its answer.
pub(crate) async fn all(tables: &[Table<Dialer>], expected: &Expected) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for want in &expected.queries {
        let ask = known(&want.name).ok_or_else(|| {
            Failure::failed(format!("the plain computation asks {:?}, which the demo does not know", want.name))
        })?;
        let (answer, evidence) = one(tables, &ask).await?;
        let rows = evidence.iter().map(|e| e.rows).sum();
        if !same(&answer, &want.expected) || rows != want.rows {
            return Err(Failure::refused(format!("{}: the answer differs from the plain computation", want.sql_like))
                .because(format!("answer {answer} over {rows} rows"))
                .because(format!("plain computation {} over {} rows", want.expected, want.rows)));
        }
        queries.push(Query {
            sql_like: want.sql_like.clone(),
            answer,
            expected: want.expected.clone(),
            rows,
            native_bytes: evidence.iter().map(|e| e.native_bytes).sum(),
            native_ms: super::story::round(evidence.iter().map(|e| e.native_ms).sum()),
        });
    }
    Ok(queries)
}

async fn one(tables: &[Table<Dialer>], ask: &Ask) -> Result<(Value, Vec<Evidence>)> {
    let failed = |e| remote::failure(e, "a query was not answered");
    Ok(match ask {
        Ask::Rows(quarter, span, columns) => {
            let table = &tables[*quarter];
            let select = Select::range(range(table, span)?).columns(columns);
            let answered = table.select(&select).await.map_err(failed)?;
            let rows: Vec<Vec<Value>> =
                values::rows(&answered.value).iter().map(|r| r.iter().map(values::to_json).collect()).collect();
            (json!(rows), vec![answered.evidence])
        }
        Ask::One(quarter, span, aggregate) => {
            let table = &tables[*quarter];
            let answered = table.aggregate(&range(table, span)?, aggregate).await.map_err(failed)?;
            (values::aggregate_json(&answered.value), vec![answered.evidence])
        }
        Ask::Year(year) => {
            let aggregates = match year {
                Year::Count => vec![Aggregate::Count],
                Year::Sum(expr) => vec![Aggregate::Sum(expr.clone())],
                Year::Avg(c) => vec![Aggregate::CountColumn((*c).to_owned()), Aggregate::Sum(column(c))],
                Year::Var(c) => vec![
                    Aggregate::CountColumn((*c).to_owned()),
                    Aggregate::Sum(column(c)),
                    Aggregate::Sum(SumExpr::Square((*c).to_owned())),
                ],
            };
            let (mut totals, mut evidence) = (vec![0i128; aggregates.len()], Vec::new());
            for table in tables {
                let answered = table.aggregates(&KeyRange::ALL, &aggregates).await.map_err(failed)?;
                for (total, value) in totals.iter_mut().zip(&answered.value) {
                    *total += match value {
                        AggregateValue::Count(n) => i128::from(*n),
                        AggregateValue::Sum { unscaled, scale: 0 } => *unscaled,
                        other => return Err(Failure::failed(format!("{other} is not a whole number"))),
                    };
                }
                evidence.push(answered.evidence);
            }
            (put_together(year, &totals), evidence)
        }
    })
}

/// Exact sums of the quarters to the year's answer.
fn put_together(year: &Year, totals: &[i128]) -> Value {
    match year {
        Year::Count | Year::Sum(_) => json!(i64::try_from(totals[0]).expect("distances of a year fit 64 bits")),
        Year::Avg(_) => json!(totals[1] as f64 / totals[0] as f64),
        // (sum of squares - sum^2 / n) / (n - 1), over one denominator so that nothing is rounded before the division.
        Year::Var(_) => {
            let (n, sum, squares) = (totals[0], totals[1], totals[2]);
            json!((n * squares - sum * sum) as f64 / (n * (n - 1)) as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_are_put_together_exactly() {
        assert_eq!(put_together(&Year::Avg("x"), &[4, 10]), json!(2.5));
        // 1, 2, 3, 4: the sample variance is 5/3.
        assert_eq!(put_together(&Year::Var("x"), &[4, 10, 30]), json!(5.0 / 3.0));
        assert!(known("year_variance").is_some() && known("nonsense").is_none());
    }
}
