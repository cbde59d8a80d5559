//! What two columns have to do with each other: covariance, correlation and the line of least squares, exact from declared sums.
//!
//! ```text
//! n, S(x), S(y), S(x*x), S(y*y), S(x*y)    Cxy = n S(x*y) - S(x) S(y), Cxx = n S(x*x) - S(x)^2, Cyy likewise
//! ```
//! Names   those of SQL:2023 (`COVAR_POP(y, x)`, `REGR_SLOPE(y, x)`): the dependent column first
//! NULL    where SQL gives NULL: of no row; a sample of one; a line through points above each other; R2 and a correlation of a constant
//! Limit   both columns are NOT NULL: a pair with a NULL counts for nothing, and sums of one column over whole pairs are not declared

use super::AggregateValue;
use crate::error::ClientError;
use crate::packing::SumField;
use crate::schema::{SchemaError, SumExpr, TableSchema};
use crate::sums::{Fraction, ten_to};
use crate::value::Value;
use num_bigint::{BigInt, Sign};

/// A statistic of two columns, `y` and `x`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PairStatistic {
    /// `Cxy / n^2`.
    CovarPop,
    /// `Cxy / n (n - 1)`.
    CovarSamp,
    /// Pearson's correlation, a double: the only one that is no fraction.
    Corr,
    /// How much the line rises: `Cxy / Cxx`.
    Slope,
    /// Where the line is at `x = 0`.
    Intercept,
    /// The square of the correlation.
    R2,
    /// The mean of `x`.
    AvgX,
    /// The mean of `y`.
    AvgY,
    /// `Cxx / n`.
    Sxx,
    /// `Cyy / n`.
    Syy,
    /// `Cxy / n`.
    Sxy,
}

impl PairStatistic {
    /// All, by their names in SQL.
    pub const NAMES: [(&'static str, Self); 11] = [
        ("covar_pop", Self::CovarPop),
        ("covar_samp", Self::CovarSamp),
        ("corr", Self::Corr),
        ("regr_slope", Self::Slope),
        ("regr_intercept", Self::Intercept),
        ("regr_r2", Self::R2),
        ("regr_avgx", Self::AvgX),
        ("regr_avgy", Self::AvgY),
        ("regr_sxx", Self::Sxx),
        ("regr_syy", Self::Syy),
        ("regr_sxy", Self::Sxy),
    ];

    /// By its name in SQL.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, statistic)| *statistic)
    }

    /// Its name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, s)| *s == self).expect("every statistic has a name").0
    }

    /// The sums of columns `y` and `x` that it is made of.
    #[must_use]
    pub fn sums(self, y: &str, x: &str) -> Vec<SumExpr> {
        let one = |c: &str| SumExpr::Column(c.to_owned());
        let square = |c: &str| SumExpr::Square(c.to_owned());
        let product = if x == y { square(x) } else { SumExpr::Product(y.to_owned(), x.to_owned()) };
        match self {
            Self::AvgX => vec![one(x)],
            Self::AvgY => vec![one(y)],
            Self::Sxx => vec![one(x), square(x)],
            Self::Syy => vec![one(y), square(y)],
            Self::Sxy | Self::CovarPop | Self::CovarSamp => vec![one(y), one(x), product],
            Self::Slope | Self::Intercept => vec![one(y), one(x), product, square(x)],
            Self::Corr | Self::R2 => vec![one(y), one(x), product, square(x), square(y)],
        }
    }
}

/// The sums of a statistic, and the scales of its columns.
#[derive(Clone, Copy, Default)]
pub(super) struct PairFields {
    y: Option<SumField>,
    x: Option<SumField>,
    yy: Option<SumField>,
    xx: Option<SumField>,
    xy: Option<SumField>,
    scale_y: u32,
    scale_x: u32,
}

impl PairFields {
    pub(super) fn of(schema: &TableSchema, statistic: PairStatistic, y: &str, x: &str) -> Result<Self, ClientError> {
        for column in [y, x] {
            if schema.columns()[schema.index(column)?].nullable {
                let expr = format!("{}({y}, {x}) where {column} may be NULL", statistic.name());
                return Err(SchemaError::NotDeclared { table: schema.name().to_owned(), expr }.into());
            }
        }
        let mut fields = Self { scale_y: scale_of(schema, y)?, scale_x: scale_of(schema, x)?, ..Self::default() };
        for sum in statistic.sums(y, x) {
            let field = Some(schema.expr_field(&sum)?.0);
            match &sum {
                SumExpr::Column(c) if c == y => fields.y = field,
                SumExpr::Column(_) => fields.x = field,
                SumExpr::Square(c) if c == y => fields.yy = field,
                SumExpr::Square(_) => fields.xx = field,
                SumExpr::Product(..) => fields.xy = field,
            }
        }
        if x == y {
            (fields.x, fields.xx, fields.xy) = (fields.y, fields.yy, fields.yy);
        }
        Ok(fields)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = SumField> + use<> {
        [self.y, self.x, self.yy, self.xx, self.xy].into_iter().flatten()
    }

    pub(super) fn value<'a>(
        &self,
        statistic: PairStatistic,
        count: u64,
        sum: &impl Fn(SumField) -> &'a BigInt,
    ) -> AggregateValue {
        let field = |l: Option<SumField>| sum(l.expect("the statistic reads this sum"));
        let n = BigInt::from(count);
        let centred = |products: &BigInt, a: &BigInt, b: &BigInt| &n * products - a * b;
        let cxy = || centred(field(self.xy), field(self.x), field(self.y));
        let cxx = || centred(field(self.xx), field(self.x), field(self.x));
        let cyy = || centred(field(self.yy), field(self.y), field(self.y));
        let (to_x, to_y) = (ten_to(self.scale_x), ten_to(self.scale_y));
        let over = |numerator: BigInt, denominator: BigInt| match denominator.sign() {
            // Cauchy and Schwarz: what stands below is a sum of squares.
            Sign::Plus => AggregateValue::Fraction(Fraction { numerator, denominator }),
            _ => AggregateValue::Null,
        };
        match statistic {
            PairStatistic::CovarPop => over(cxy(), &n * &n * to_x * to_y),
            PairStatistic::CovarSamp => over(cxy(), &n * (&n - 1u32) * to_x * to_y),
            PairStatistic::Slope => over(cxy() * to_x, cxx() * to_y),
            PairStatistic::Intercept => {
                let (cxx, cxy) = (cxx(), cxy());
                over(field(self.y) * &cxx - cxy * field(self.x), &n * cxx * to_y)
            }
            PairStatistic::R2 => over(cxy().pow(2), cxx() * cyy()),
            PairStatistic::Corr => {
                let cxy = cxy();
                let sign = if cxy.sign() == Sign::Minus { -1.0 } else { 1.0 };
                match over(cxy.pow(2), cxx() * cyy()) {
                    AggregateValue::Fraction(r2) => {
                        AggregateValue::Value(Value::Float64(sign * r2.to_f64().sqrt().min(1.0)))
                    }
                    other => other,
                }
            }
            PairStatistic::AvgX => over(field(self.x).clone(), &n * to_x),
            PairStatistic::AvgY => over(field(self.y).clone(), &n * to_y),
            PairStatistic::Sxx => over(cxx(), &n * to_x.pow(2)),
            PairStatistic::Syy => over(cyy(), &n * to_y.pow(2)),
            PairStatistic::Sxy => over(cxy(), &n * to_x * to_y),
        }
    }
}

fn scale_of(schema: &TableSchema, column: &str) -> Result<u32, ClientError> {
    Ok(schema.columns()[schema.index(column)?].ty.scale())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;
    use crate::value::ColumnType;

    fn schema(nullable: bool) -> TableSchema {
        let y = if nullable { Column::nullable("y", ColumnType::Int64) } else { Column::new("y", ColumnType::Int64) };
        let x = Column::new("x", ColumnType::Decimal { precision: 9, scale: 1 });
        let sums = ["x", "y", "x*x", "y*y", "x*y"].map(|s| s.parse().unwrap()).to_vec();
        TableSchema::new("t", vec![Column::new("id", ColumnType::Int64), y, x], &["id"], sums).unwrap()
    }

    /// What the statistics of some points are, each by its textbook formula on doubles.
    fn textbook(points: &[(i64, i64)], statistic: PairStatistic) -> Option<f64> {
        let n = points.len() as f64;
        let points: Vec<(f64, f64)> = points.iter().map(|(y, x)| (*y as f64, *x as f64 / 10.0)).collect();
        let (my, mx) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
        let (sxx, syy, sxy) = points.iter().fold((0.0, 0.0, 0.0), |(xx, yy, xy), (y, x)| {
            (xx + (x - mx).powi(2), yy + (y - my).powi(2), xy + (x - mx) * (y - my))
        });
        let value = match statistic {
            PairStatistic::CovarPop => sxy / n,
            PairStatistic::CovarSamp => sxy / (n - 1.0),
            PairStatistic::Corr => sxy / (sxx * syy).sqrt(),
            PairStatistic::Slope => sxy / sxx,
            PairStatistic::Intercept => my - sxy / sxx * mx,
            PairStatistic::R2 => sxy * sxy / (sxx * syy),
            PairStatistic::AvgX => mx,
            PairStatistic::AvgY => my,
            PairStatistic::Sxx => sxx,
            PairStatistic::Syy => syy,
            PairStatistic::Sxy => sxy,
        };
        value.is_finite().then_some(value)
    }

    fn ours(schema: &TableSchema, points: &[(i64, i64)], statistic: PairStatistic) -> Option<f64> {
        let fields = PairFields::of(schema, statistic, "y", "x").unwrap();
        let total = |f: &dyn Fn(i64, i64) -> i64| BigInt::from(points.iter().map(|(y, x)| f(*y, *x)).sum::<i64>());
        let sums = [
            (fields.y, total(&|y, _| y)),
            (fields.x, total(&|_, x| x)),
            (fields.yy, total(&|y, _| y * y)),
            (fields.xx, total(&|_, x| x * x)),
            (fields.xy, total(&|y, x| x * y)),
        ];
        let sum = |field: SumField| &sums.iter().find(|(l, _)| *l == Some(field)).unwrap().1;
        fields.value(statistic, points.len() as u64, &sum).to_f64()
    }

    #[test]
    fn statistics_are_those_of_the_textbook() {
        let schema = schema(false);
        let clouds: [&[(i64, i64)]; 5] = [
            &[(1, 10), (2, 25), (-4, 31), (7, -12), (7, 0)],
            &[(3, 5)],
            &[(3, 5), (3, 9), (3, -7)],
            &[(1, 5), (2, 5)],
            &[(2, 20), (4, 40), (6, 60)],
        ];
        for points in clouds {
            for (name, statistic) in PairStatistic::NAMES {
                assert_eq!(PairStatistic::named(name), Some(statistic));
                let (got, want) = (ours(&schema, points, statistic), textbook(points, statistic));
                match (got, want) {
                    (Some(a), Some(b)) => {
                        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{name} {points:?}: {a} {b}")
                    }
                    _ => assert_eq!(got, want, "{name} {points:?}"),
                }
            }
        }
    }

    #[test]
    fn a_column_that_may_be_null_is_refused_by_name() {
        for (_, statistic) in PairStatistic::NAMES {
            let error = PairFields::of(&schema(true), statistic, "y", "x").err().unwrap().to_string();
            assert!(error.contains("y may be NULL"), "{error}");
            assert!(PairFields::of(&schema(false), statistic, "y", "z").is_err());
        }
        // A column with itself needs its square alone.
        let fields = PairFields::of(&schema(false), PairStatistic::Slope, "x", "x").unwrap();
        assert_eq!((fields.x, fields.xx), (fields.y, fields.xy));
    }
}
