//! What a row adds to each sum lane, and exact results from sums.
//!
//! Range   the sums that share a scalar are below r/2 together ([`crate::packing`]), so its centred representative is what they make: nothing wraps.
//! Result  sums are exact integers over a power of ten; AVG and VAR are exact fractions, rendered to 12 digits and as a double.

use crate::packing::SumField;
use crate::schema::{Summand, TableSchema};
use crate::value::place_point;
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type};
use arrow_array::{Array, BooleanArray, Decimal128Array, Int64Array, RecordBatch};
use arrow_schema::DataType;
use fluence_crypto::{Fr, field};
use fluence_types::LaneId;
use num_bigint::{BigInt, Sign};
use std::collections::BTreeMap;
use std::fmt;

/// A summable column whose type was looked up once.
enum Column<'a> {
    Int64(&'a Int64Array),
    Decimal(&'a Decimal128Array),
    Bool(&'a BooleanArray),
}

impl<'a> Column<'a> {
    fn of(batch: &'a RecordBatch, column: usize) -> Self {
        let array = batch.column(column);
        match array.data_type() {
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            DataType::Boolean => Self::Bool(array.as_boolean()),
            other => unreachable!("the schema declares no sum of a {other} column"),
        }
    }
    fn get(&self, row: usize) -> Option<i128> {
        match self {
            Self::Int64(a) => a.is_valid(row).then(|| i128::from(a.value(row))),
            Self::Decimal(a) => a.is_valid(row).then(|| a.value(row)),
            Self::Bool(a) => a.is_valid(row).then(|| i128::from(a.value(row))),
        }
    }
}

/// Inclusive prefix sums of what shares a lane, over the rows of a batch with their weights.
pub(crate) fn prefix_sums(fields: &[(Summand, SumField)], batch: &RecordBatch, weights: &[i8]) -> Vec<Fr> {
    let mut packed = vec![Fr::from(0u64); weights.len()];
    for (summand, field) in fields {
        let factor = field.factor();
        let mut sum = Fr::from(0u64);
        let mut accumulate = |value: &dyn Fn(usize) -> Option<Fr>| {
            for (row, (weight, packed)) in weights.iter().zip(&mut packed).enumerate() {
                match (weight, value(row)) {
                    (0, _) | (_, None) => {}
                    (1, Some(value)) => sum += value * factor,
                    (_, Some(value)) => sum -= value * factor,
                }
                *packed += sum;
            }
        };
        match summand {
            Summand::Weight => accumulate(&|_| Some(Fr::from(1u64))),
            Summand::NotNull(columns) => {
                let arrays: Vec<_> = columns.iter().map(|c| batch.column(*c)).collect();
                accumulate(&|row| arrays.iter().all(|a| a.is_valid(row)).then(|| Fr::from(1u64)));
            }
            Summand::Column(c) => {
                let column = Column::of(batch, *c);
                accumulate(&|row| column.get(row).map(field::i128_to_fr));
            }
            Summand::Square(c) => {
                let column = Column::of(batch, *c);
                accumulate(&|row| {
                    let v = field::i128_to_fr(column.get(row)?);
                    Some(v * v)
                });
            }
            Summand::Product(a, b) => {
                let (a, b) = (Column::of(batch, *a), Column::of(batch, *b));
                accumulate(&|row| Some(field::i128_to_fr(a.get(row)?) * field::i128_to_fr(b.get(row)?)));
            }
        }
    }
    packed
}

/// The signed integer of a sum: the representative nearest 0.
#[must_use]
pub fn centred(f: &Fr) -> BigInt {
    let magnitude = |f: &Fr| BigInt::from_bytes_be(Sign::Plus, field::to_bytes(f).as_bytes());
    let (plus, minus) = (magnitude(f), magnitude(&-*f));
    if plus <= minus { plus } else { -minus }
}

/// The sums of a schema by the lane they share, in the order of the lanes.
pub(crate) fn lanes(schema: &TableSchema) -> Vec<(LaneId, Vec<(Summand, SumField)>)> {
    let mut lanes: BTreeMap<LaneId, Vec<_>> = BTreeMap::new();
    for (summand, field) in schema.sum_fields() {
        lanes.entry(field.lane).or_default().push((summand, field));
    }
    lanes.into_iter().collect()
}

/// An exact fraction `numerator / denominator`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fraction {
    /// The numerator.
    pub numerator: BigInt,
    /// The denominator, above 0.
    pub denominator: BigInt,
}

/// Digits after the point of a rendered fraction.
const FRACTION_DIGITS: u32 = 12;

impl Fraction {
    /// The mean of `count` values that sum to `sum / 10^scale`.
    #[must_use]
    pub fn mean(sum: &BigInt, scale: u32, count: u64) -> Self {
        Self { numerator: sum.clone(), denominator: BigInt::from(count) * ten_to(scale) }
    }

    /// The variance of `count` values with this sum and sum of squares, in units of `10^-scale` and `10^-2*scale`;
    /// divided by `count`, or by `count - 1` for a sample.
    #[must_use]
    pub fn variance(sum: &BigInt, squares: &BigInt, scale: u32, count: u64, sample: bool) -> Self {
        let n = BigInt::from(count);
        let numerator = &n * squares - sum * sum;
        let divisor = BigInt::from(if sample { count - 1 } else { count });
        Self { numerator, denominator: n * divisor * ten_to(2 * scale) }
    }

    /// The nearest double, up to the last digits.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        // Scale so that the quotient has about 64 significant bits, then divide once.
        let shift = 64 + self.denominator.bits() as i64 - self.numerator.bits() as i64;
        let quotient = if shift >= 0 {
            (&self.numerator << shift as u64) / &self.denominator
        } else {
            &self.numerator / (&self.denominator << (-shift) as u64)
        };
        let text = quotient.to_string();
        text.parse::<f64>().unwrap_or(f64::NAN) * 2f64.powi(-(shift as i32))
    }
}

pub(crate) fn ten_to(scale: u32) -> BigInt {
    BigInt::from(10u32).pow(scale)
}

impl fmt::Display for Fraction {
    /// Twelve digits after the point, rounded half away from zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negative = self.numerator.sign() == Sign::Minus;
        let scaled = self.numerator.magnitude() * ten_to(FRACTION_DIGITS).magnitude();
        let denominator = self.denominator.magnitude();
        let rounded = (scaled + denominator / 2u32) / denominator;
        let negative = negative && rounded != num_bigint::BigUint::from(0u32);
        f.write_str(&place_point(rounded.to_string(), negative, FRACTION_DIGITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column as C, SumExpr};
    use crate::value::{ColumnBuilder, ColumnType, Value};

    #[test]
    fn sums_of_extreme_values_do_not_wrap() {
        let ty = ColumnType::Decimal { precision: 28, scale: 0 };
        let columns = vec![C::nullable("d", ty)];
        let schema = TableSchema::new("t", columns, &["d"], SumExpr::variance("d").to_vec()).unwrap();
        let big = 10i128.pow(28) - 1;
        let mut builder = ColumnBuilder::new(ty, 4);
        for v in [big, -big, big] {
            assert!(builder.push(&Value::Decimal { unscaled: v, scale: 0 }));
        }
        builder.push_null();
        let batch = RecordBatch::try_new(schema.arrow(), vec![builder.finish()]).unwrap();
        let fields = schema.sum_fields();
        let sum = |at: usize, weights: &[i8]| {
            let (_, field) = &fields[at];
            let lanes = lanes(&schema);
            let (_, shared) = lanes.iter().find(|(lane, _)| *lane == field.lane).unwrap();
            field.of(&centred(prefix_sums(shared, &batch, weights).last().unwrap()))
        };
        let big = BigInt::from(big);
        assert_eq!(fields.len(), 4);
        // Retractions alone make the most negative sums; what shares their scalar is as it would be alone.
        for (weights, expected) in [
            ([1, 1, 1, 1], [4.into(), 3.into(), big.clone(), &big * &big * 3]),
            ([1, -1, -1, -1], [(-2).into(), (-1).into(), &big * 1, -(&big * &big)]),
            ([1, 0, 0, -1], [0.into(), 1.into(), big.clone(), &big * &big]),
            ([-1, 0, -1, 0], [(-2).into(), (-2).into(), &big * -2, &big * &big * -2]),
        ] as [([i8; 4], [BigInt; 4]); 4]
        {
            for (at, expected) in expected.iter().enumerate() {
                assert_eq!(sum(at, &weights), *expected, "sum {at} under {weights:?}");
            }
        }
    }

    #[test]
    fn fractions_render_and_round() {
        let f = |n: i64, d: i64| Fraction { numerator: n.into(), denominator: d.into() };
        assert_eq!(f(1, 3).to_string(), "0.333333333333");
        assert_eq!(f(-2, 3).to_string(), "-0.666666666667");
        assert_eq!(f(0, 3).to_string(), "0.000000000000");
        assert_eq!(f(7, 2).to_f64(), 3.5);
        assert_eq!(f(-1, 3).to_f64(), -1.0 / 3.0);
        assert_eq!(f(0, 5).to_f64(), 0.0);
        // 1, 2, 3, 4 at scale 1: variance of 0.1 .. 0.4.
        let v = Fraction::variance(&10.into(), &30.into(), 1, 4, true);
        assert_eq!(v.to_string(), "0.016666666667");
        assert_eq!(Fraction::variance(&10.into(), &30.into(), 1, 4, false).to_string(), "0.012500000000");
        assert_eq!(Fraction::mean(&10.into(), 1, 4).to_string(), "0.250000000000");
    }
}
