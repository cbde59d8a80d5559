//! From filters to a key range: what of a WHERE the sort key decides.
//!
//! Several    `a IN (1, 2)` on a key column makes a range for each value, as long as they are few.
//! Exact      a filter is exact where the range holds the rows for which it is true, and no other: equalities on leading key columns, then
//!            bounds on the one that follows. NULL sorts before every value and satisfies no comparison, so a range without a lower bound
//!            begins after it.
//! Left out   floats, because their key order tells -0 from 0; a literal that is not of the column's type, or does not fit it. What is left
//!            out is evaluated on verified rows.
//! Source     DESIGN sections 3 and 10

use super::catalog::TableDef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;
use fluence_client::{ColumnType, KeyRange, Value};
use std::ops::Bound;

/// Whether a filter is decided by a row alone, the same each time.
pub(crate) fn is_of_rows(filter: &Expr) -> bool {
    let more = |e: &Expr| {
        Ok(matches!(
            e,
            Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::Placeholder(_)
        ))
    };
    !filter.is_volatile() && !filter.exists(more).unwrap_or(true)
}

/// A comparison of a column with a value.
struct Comparison {
    column: usize,
    op: Operator,
    value: Value,
}

/// Most ranges that a scan reads.
const RANGES_MAX: usize = 256;

/// Key ranges, in key order and apart from each other, and which of the filters they say exactly.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Pushed {
    pub(crate) ranges: Vec<KeyRange>,
    pub(crate) exact: Vec<bool>,
    /// Leading key columns that are held equal, and whether the next one is bounded: how much the range narrows.
    pub(crate) depth: (usize, bool),
}

/// What the sort key decides of `filters`.
pub(crate) fn push(table: &TableDef, key: &[String], filters: &[&Expr]) -> Pushed {
    let parsed: Vec<Vec<Comparison>> = filters.iter().map(|f| comparisons(table, f).unwrap_or_default()).collect();
    let mut exact = vec![false; filters.len()];
    let mut prefixes: Vec<Vec<Value>> = vec![Vec::new()];
    let (mut lower, mut upper) = (None, None);
    let mut bounded = false;
    let mut held = 0;
    for name in key {
        let Some(place) = table.place(name) else { break };
        if matches!(table.columns[place].ty, ColumnType::Float64) {
            break;
        }
        let of_column = |i: usize| -> Option<&[Comparison]> {
            let all = &parsed[i];
            (!all.is_empty() && all.iter().all(|c| c.column == place)).then_some(all.as_slice())
        };
        let equal = (0..filters.len()).filter_map(|i| Some((i, of_column(i)?))).find(|(_, c)| c[0].op == Operator::Eq);
        if let Some((i, comparison)) = equal {
            exact[i] = true;
            held += 1;
            prefixes.iter_mut().for_each(|prefix| prefix.push(comparison[0].value.clone()));
            continue;
        }
        let several = (0..filters.len())
            .find_map(|i| one_of(table, filters[i]).filter(|(c, _)| *c == place).map(|(_, v)| (i, v)));
        if let Some((i, values)) = several
            && prefixes.len().saturating_mul(values.len()) <= RANGES_MAX
        {
            exact[i] = true;
            held += 1;
            prefixes = prefixes.iter().flat_map(|prefix| values.iter().map(|value| with(prefix, value))).collect();
            continue;
        }
        for (i, exact) in exact.iter_mut().enumerate() {
            let Some(all) = of_column(i) else { continue };
            let is_lower = |c: &Comparison| matches!(c.op, Operator::Gt | Operator::GtEq);
            let (needs_lower, needs_upper) = (all.iter().any(is_lower), all.iter().any(|c| !is_lower(c)));
            // A second bound on the same side stays a filter.
            if needs_lower && lower.is_some() || needs_upper && upper.is_some() {
                continue;
            }
            for comparison in all {
                let bound = comparison.value.clone();
                match comparison.op {
                    Operator::Gt => lower = Some(Bound::Excluded(bound)),
                    Operator::GtEq => lower = Some(Bound::Included(bound)),
                    Operator::Lt => upper = Some(Bound::Excluded(bound)),
                    _ => upper = Some(Bound::Included(bound)),
                }
            }
            *exact = true;
            bounded = true;
        }
        if bounded && lower.is_none() && table.columns[place].nullable {
            lower = Some(Bound::Excluded(Value::Null));
        }
        break;
    }
    let side = |prefix: &[Value], bound: &Option<Bound<Value>>| match bound {
        Some(bound) => bound.as_ref().map(|value| with(prefix, value)),
        None if prefix.is_empty() => Bound::Unbounded,
        None => Bound::Included(prefix.to_vec()),
    };
    let range = |prefix: &Vec<Value>| KeyRange { lower: side(prefix, &lower), upper: side(prefix, &upper) };
    Pushed { ranges: prefixes.iter().map(range).collect(), exact, depth: (held, bounded) }
}

/// A filter that is true for some values of one column: `IN (..)`, or equalities with OR between them. The values in key order, each once.
fn one_of(table: &TableDef, filter: &Expr) -> Option<(usize, Vec<Value>)> {
    fn gather(table: &TableDef, filter: &Expr, found: &mut Vec<(usize, ScalarValue, Value)>) -> Option<()> {
        let mut add = |name: &str, literal: &ScalarValue| {
            let one = comparison(table, name, Operator::Eq, literal)?;
            found.push((one.column, literal.clone(), one.value));
            Some(())
        };
        match filter {
            Expr::InList(InList { expr, list, negated: false }) => {
                let Expr::Column(column) = &**expr else { return None };
                list.iter().try_for_each(|item| match item {
                    // NULL is equal to nothing.
                    Expr::Literal(literal, _) if literal.is_null() => Some(()),
                    Expr::Literal(literal, _) => add(&column.name, literal),
                    _ => None,
                })
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                gather(table, left, found)?;
                gather(table, right, found)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
                (Expr::Column(c), Expr::Literal(l, _)) | (Expr::Literal(l, _), Expr::Column(c)) => add(&c.name, l),
                _ => None,
            },
            _ => None,
        }
    }
    if !matches!(filter, Expr::InList(_) | Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. })) {
        return None;
    }
    let mut found = Vec::new();
    gather(table, filter, &mut found)?;
    let column = found.first()?.0;
    if found.iter().any(|(c, ..)| *c != column) {
        return None;
    }
    found.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal));
    found.dedup_by(|a, b| a.2 == b.2);
    Some((column, found.into_iter().map(|(_, _, value)| value).collect()))
}

fn with(prefix: &[Value], value: &Value) -> Vec<Value> {
    let mut values = prefix.to_vec();
    values.push(value.clone());
    values
}

/// A filter as comparisons of one column that must all hold: one, or the two of a BETWEEN.
fn comparisons(table: &TableDef, filter: &Expr) -> Option<Vec<Comparison>> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (name, op, literal) = match (&**left, &**right) {
                (Expr::Column(c), Expr::Literal(l, _)) => (&c.name, *op, l),
                (Expr::Literal(l, _), Expr::Column(c)) => (&c.name, op.swap()?, l),
                _ => return None,
            };
            let known = matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
            known.then_some(())?;
            comparison(table, name, op, literal).map(|c| vec![c])
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let (Expr::Column(c), Expr::Literal(low, _), Expr::Literal(high, _)) = (&**expr, &**low, &**high) else {
                return None;
            };
            Some(vec![
                comparison(table, &c.name, Operator::GtEq, low)?,
                comparison(table, &c.name, Operator::LtEq, high)?,
            ])
        }
        _ => None,
    }
}

fn comparison(table: &TableDef, name: &str, op: Operator, literal: &ScalarValue) -> Option<Comparison> {
    let column = table.columns.iter().position(|c| c.name == name)?;
    let ty = table.columns[column].ty;
    // A comparison of two types that stands here all the same is left to the planner, which knows what it means.
    let own = match (table.columns[column].data_type(), literal.data_type()) {
        (DataType::Timestamp(_, a), DataType::Timestamp(_, b)) => a.is_some() == b.is_some(),
        (a, b) => a == b || !a.is_integer(),
    };
    let value = own.then(|| value_of(ty, literal)).flatten()?;
    Some(Comparison { column, op, value })
}

/// A literal as a value of a sealed type, where it is one, and not NULL.
fn value_of(ty: ColumnType, literal: &ScalarValue) -> Option<Value> {
    let value = match (ty, literal) {
        (ColumnType::Int64, ScalarValue::Int64(Some(v))) => Value::Int64(*v),
        (ColumnType::Int64, ScalarValue::Int32(Some(v))) => Value::Int64(i64::from(*v)),
        (ColumnType::Int64, ScalarValue::Int16(Some(v))) => Value::Int64(i64::from(*v)),
        (ColumnType::Decimal { scale, .. }, ScalarValue::Decimal128(Some(v), _, s)) if *s == scale as i8 => {
            Value::Decimal { unscaled: *v, scale }
        }
        (
            ColumnType::Text,
            ScalarValue::Utf8(Some(t)) | ScalarValue::Utf8View(Some(t)) | ScalarValue::LargeUtf8(Some(t)),
        ) => Value::Text(t.clone()),
        (ColumnType::Bool, ScalarValue::Boolean(Some(b))) => Value::Bool(*b),
        (ColumnType::Timestamp, ScalarValue::TimestampMicrosecond(Some(us), _)) => Value::Timestamp(*us),
        (ColumnType::Date, ScalarValue::Date32(Some(d))) => Value::Date(*d),
        (ColumnType::Bytes, ScalarValue::Binary(Some(b)) | ScalarValue::LargeBinary(Some(b))) => {
            Value::Bytes(b.clone())
        }
        _ => return None,
    };
    ty.holds(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};
    use fluence_client::schema::{Column, TableSchema};

    fn table() -> TableDef {
        let columns = vec![
            Column::new("a", ColumnType::Int64),
            Column::nullable("b", ColumnType::Text),
            Column::new("f", ColumnType::Float64),
        ];
        let schema = TableSchema::new("t", columns, &["a", "b", "f"], Vec::new()).unwrap();
        TableDef::of_schema(&schema)
    }

    fn pushed(filters: &[Expr]) -> Pushed {
        let table = table();
        let key = table.key.clone();
        push(&table, &key, &filters.iter().collect::<Vec<_>>())
    }

    fn int(v: i64) -> Value {
        Value::Int64(v)
    }

    #[test]
    fn equalities_then_bounds_become_a_range() {
        let p = pushed(&[col("b").gt(lit("x")), col("a").eq(lit(3i64))]);
        assert_eq!(p.exact, [true, true]);
        assert_eq!(p.ranges[0].lower, Bound::Excluded(vec![int(3), Value::Text("x".into())]));
        assert_eq!(p.ranges[0].upper, Bound::Included(vec![int(3)]));
        assert_eq!(p.depth, (1, true));
        let p = pushed(&[lit(5i64).gt(col("a")), col("a").gt_eq(lit(1i64))]);
        assert_eq!(p.ranges, [KeyRange { lower: Bound::Included(vec![int(1)]), upper: Bound::Excluded(vec![int(5)]) }]);
        let p = pushed(&[col("a").between(lit(1i64), lit(2i64))]);
        assert_eq!((p.ranges, p.exact), (vec![KeyRange::between(vec![int(1)], vec![int(2)])], vec![true]));
    }

    #[test]
    fn an_upper_bound_alone_leaves_null_out() {
        let p = pushed(&[col("a").eq(lit(3i64)), col("b").lt(lit("x"))]);
        assert_eq!(p.ranges[0].lower, Bound::Excluded(vec![int(3), Value::Null]));
        // A column that is never NULL needs no such bound.
        assert_eq!(pushed(&[col("a").lt(lit(3i64))]).ranges[0].lower, Bound::Unbounded);
    }

    #[test]
    fn few_values_become_a_range_each() {
        let null = lit(ScalarValue::Int64(None));
        let p = pushed(&[col("a").in_list(vec![lit(5i64), lit(2i64), null, lit(5i64)], false), col("b").gt(lit("x"))]);
        let range = |a: i64| KeyRange {
            lower: Bound::Excluded(vec![int(a), Value::Text("x".into())]),
            upper: Bound::Included(vec![int(a)]),
        };
        assert_eq!((p.ranges, p.exact, p.depth), (vec![range(2), range(5)], vec![true, true], (1, true)));
        let p = pushed(&[col("a").eq(lit(7i64)).or(lit(3i64).eq(col("a")))]);
        assert_eq!(p.ranges, [KeyRange::prefix(vec![int(3)]), KeyRange::prefix(vec![int(7)])]);
        // Too many are a filter.
        let many = (0..=RANGES_MAX as i64).map(lit).collect();
        assert_eq!(pushed(&[col("a").in_list(many, false)]).ranges, [KeyRange::ALL]);
    }

    #[test]
    fn what_the_key_does_not_say_stays_a_filter() {
        for filter in [
            col("b").eq(lit("x")),
            col("a").not_eq(lit(3i64)),
            col("a").eq(lit(3i32)),
            col("a").eq(lit("3")),
            col("a").eq(lit(ScalarValue::Int64(None))),
            col("a").eq(lit(1i64)).or(col("b").eq(lit("x"))),
            col("a").in_list(vec![lit(1i64)], true),
            col("a").in_list(vec![lit(1i64), col("a")], false),
            col("a").not_between(lit(1i64), lit(2i64)),
            col("a").eq(col("a")),
            col("f").eq(lit(0.0)),
        ] {
            let p = pushed(std::slice::from_ref(&filter));
            assert_eq!((p.ranges, p.exact), (vec![KeyRange::ALL], vec![false]), "{filter}");
        }
        // Of two equalities, two lower bounds, one is the range's.
        assert_eq!(pushed(&[col("a").eq(lit(1i64)), col("a").eq(lit(2i64))]).exact, [true, false]);
        assert_eq!(pushed(&[col("a").gt(lit(1i64)), col("a").gt(lit(2i64))]).exact, [true, false]);
        assert_eq!(pushed(&[col("a").gt(lit(1i64)), col("a").between(lit(0i64), lit(9i64))]).exact, [true, false]);
        // A float key column ends the range.
        let p = pushed(&[col("a").eq(lit(1i64)), col("b").eq(lit("x")), col("f").gt(lit(1.0))]);
        assert_eq!((p.exact, p.depth), (vec![true, true, false], (2, false)));
    }
}
