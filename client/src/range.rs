//! Key ranges: bounds on leading key columns, as SQL means them, and as byte bounds on encoded keys.

use crate::key;
use crate::schema::{SchemaError, TableSchema};
use crate::value::Value;
use std::ops::Bound;

/// Rows whose leading key columns lie between two bounds. A bound may name fewer columns than the key has: `Included` then takes
/// every row that begins with the values, `Excluded` none of them.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyRange {
    /// From here.
    pub lower: Bound<Vec<Value>>,
    /// To here.
    pub upper: Bound<Vec<Value>>,
}

impl KeyRange {
    /// All rows.
    pub const ALL: Self = Self { lower: Bound::Unbounded, upper: Bound::Unbounded };

    /// Rows whose leading key columns equal `values`.
    #[must_use]
    pub fn prefix(values: Vec<Value>) -> Self {
        Self { lower: Bound::Included(values.clone()), upper: Bound::Included(values) }
    }

    /// SQL's BETWEEN: both ends included.
    #[must_use]
    pub fn between(lower: Vec<Value>, upper: Vec<Value>) -> Self {
        Self { lower: Bound::Included(lower), upper: Bound::Included(upper) }
    }

    /// How many leading key columns have one value in all rows of the range.
    #[must_use]
    pub fn held(&self) -> usize {
        match (&self.lower, &self.upper) {
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                // As bytes: the order of a key tells -0 from 0.
                let same = |a: &Value, b: &Value| {
                    key::encode_values(std::slice::from_ref(a)) == key::encode_values(std::slice::from_ref(b))
                };
                a.iter().zip(b).take_while(|(a, b)| same(a, b)).count()
            }
            _ => 0,
        }
    }

    /// The byte bounds of the range.
    ///
    /// # Errors
    /// [`SchemaError`] where a bound has more values than the key, or a value of another type.
    pub fn bounds(&self, schema: &TableSchema) -> Result<Bounds, SchemaError> {
        let encode = |values: &[Value]| {
            let key = schema.key_indices();
            if values.len() > key.len() {
                return Err(SchemaError::Key);
            }
            for (value, index) in values.iter().zip(&key) {
                let column = &schema.columns()[*index];
                if !column.ty.holds(value) {
                    return Err(SchemaError::Batch {
                        column: column.name.clone(),
                        got: format!("{value:?}"),
                        want: column.ty.to_string(),
                    });
                }
            }
            Ok(key::encode_values(values))
        };
        // Every key is below the empty bound's successor, which does not exist: `None` means the end.
        let lower = match &self.lower {
            Bound::Unbounded => Some(Vec::new()),
            Bound::Included(v) => Some(encode(v)?),
            Bound::Excluded(v) => key::successor(encode(v)?),
        };
        let upper = match &self.upper {
            Bound::Unbounded => None,
            Bound::Included(v) => key::successor(encode(v)?),
            Bound::Excluded(v) => Some(encode(v)?),
        };
        Ok(Bounds { lower, upper })
    }
}

/// Keys `k` with `lower <= k < upper`, as bytes. `lower: None` is above every key (no rows), `upper: None` likewise (no end).
#[derive(Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Least key.
    pub lower: Option<Vec<u8>>,
    /// One past the greatest.
    pub upper: Option<Vec<u8>>,
}

/// Bounds hold values of the owner's data, so they are not printed.
impl std::fmt::Debug for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bounds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keys;
    use crate::schema::Column;
    use crate::value::{ColumnBuilder, ColumnType};

    #[test]
    fn bounds_on_a_prefix_take_what_sql_takes() {
        let columns = vec![Column::new("a", ColumnType::Int64), Column::nullable("b", ColumnType::Text)];
        let schema = TableSchema::new("t", columns, &["a", "b"], vec![]).unwrap();
        let rows = [(1, None), (1, Some("x")), (2, Some("")), (2, Some("x")), (2, Some("y")), (3, None)];
        let (mut a, mut b) = (ColumnBuilder::new(ColumnType::Int64, 6), ColumnBuilder::new(ColumnType::Text, 6));
        for (x, y) in rows {
            assert!(a.push(&Value::Int64(x)) && b.push(&y.map_or(Value::Null, |y: &str| Value::Text(y.into()))));
        }
        let keys = Keys::of(&[a.finish(), b.finish()]);
        assert!(keys.sorted());
        let count = |lower, upper| {
            let bounds = KeyRange { lower, upper }.bounds(&schema).unwrap();
            let lo = bounds.lower.map_or(keys.len(), |b| keys.below(&b));
            let hi = bounds.upper.map_or(keys.len(), |b| keys.below(&b));
            lo..hi.max(lo)
        };
        let v = |n| vec![Value::Int64(n)];
        let w = |n, t: &str| vec![Value::Int64(n), Value::Text(t.into())];
        use Bound::{Excluded, Included, Unbounded};
        assert_eq!(count(Unbounded, Unbounded), 0..6);
        assert_eq!(count(Included(v(2)), Included(v(2))), 2..5);
        assert_eq!(count(Excluded(v(1)), Excluded(v(3))), 2..5);
        assert_eq!(count(Included(w(2, "x")), Unbounded), 3..6);
        assert_eq!(count(Excluded(w(2, "x")), Included(w(2, "y"))), 4..5);
        assert_eq!(count(Included(v(4)), Unbounded), 6..6);
        assert_eq!(count(Included(v(3)), Excluded(v(1))), 5..5);
        assert_eq!(count(Included(vec![Value::Int64(1), Value::Null]), Included(w(1, ""))), 0..1);
        assert!(KeyRange::prefix(vec![Value::Text("x".into())]).bounds(&schema).is_err());
        assert!(KeyRange::prefix(vec![Value::Int64(1), Value::Null, Value::Null]).bounds(&schema).is_err());
    }

    #[test]
    fn columns_that_both_ends_begin_with_are_held() {
        use Bound::{Excluded, Included, Unbounded};
        let v = |values: &[i64]| values.iter().map(|v| Value::Int64(*v)).collect::<Vec<_>>();
        let f = |x: f64| vec![Value::Float64(x), Value::Int64(1)];
        for (lower, upper, held) in [
            (Unbounded, Unbounded, 0),
            (Included(v(&[1])), Unbounded, 0),
            (Included(v(&[1, 2])), Included(v(&[1, 2])), 2),
            (Excluded(v(&[1, 2])), Included(v(&[1])), 1),
            (Excluded(v(&[1, 2])), Excluded(v(&[1, 9])), 1),
            (Included(v(&[1, 2])), Included(v(&[2, 2])), 0),
            (Included(vec![Value::Null]), Included(vec![Value::Null]), 1),
            // Two keys, although equal as numbers.
            (Included(f(-0.0)), Included(f(0.0)), 0),
            (Included(f(0.0)), Included(f(0.0)), 2),
        ] {
            assert_eq!(KeyRange { lower, upper }.held(), held);
        }
    }
}
