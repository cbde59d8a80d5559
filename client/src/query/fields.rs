//! Which sums an aggregate reads, and what comes of them.
//!
//! Source  DESIGN section 3; `docs/protocol/query.md`

use super::pairs::PairFields;
use super::{Aggregate, AggregateValue};
use crate::error::ClientError;
use crate::key::Keys;
use crate::packing::SumField;
use crate::schema::{SumExpr, TableSchema};
use crate::sums::Fraction;
use crate::value::Value;
use arrow_array::{Array, RecordBatch};
use num_bigint::{BigInt, Sign};

/// The sums an aggregate reads.
pub(super) struct Fields {
    count: Option<SumField>,
    sum: Option<SumField>,
    squares: Option<SumField>,
    pair: Option<PairFields>,
    scale: u32,
}

impl Fields {
    pub(super) fn of(schema: &TableSchema, aggregate: &Aggregate) -> Result<Self, ClientError> {
        let none = Self { count: None, sum: None, squares: None, pair: None, scale: 0 };
        Ok(match aggregate {
            Aggregate::Count => Self { count: Some(schema.count_field()), ..none },
            Aggregate::CountColumn(c) => {
                Self { count: Some(schema.not_null_field(&SumExpr::Column(c.clone()))?), ..none }
            }
            Aggregate::Sum(expr) | Aggregate::Avg(expr) => {
                let (sum, scale) = schema.expr_field(expr)?;
                Self { count: Some(schema.not_null_field(expr)?), sum: Some(sum), scale, ..none }
            }
            Aggregate::VarPop(c) | Aggregate::VarSamp(c) => {
                let [column, square] = SumExpr::variance(c);
                let (sum, scale) = schema.expr_field(&column)?;
                let squares = Some(schema.expr_field(&square)?.0);
                Self { count: Some(schema.not_null_field(&column)?), sum: Some(sum), squares, scale, ..none }
            }
            Aggregate::Pair { statistic, y, x } => Self {
                count: Some(schema.count_field()),
                pair: Some(PairFields::of(schema, *statistic, y, x)?),
                ..none
            },
            Aggregate::Min(c) | Aggregate::Max(c) => {
                schema.index(c)?;
                none
            }
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = SumField> {
        [self.count, self.sum, self.squares].into_iter().flatten().chain(self.pair.iter().flat_map(PairFields::all))
    }

    pub(super) fn value<'a>(
        &self,
        aggregate: &Aggregate,
        sum: &impl Fn(SumField) -> &'a BigInt,
    ) -> Result<AggregateValue, ClientError> {
        let field = |l: Option<SumField>| sum(l.expect("the aggregate reads this sum"));
        let count = field(self.count);
        if count.sign() == Sign::Minus {
            return Err(ClientError::Unmatched);
        }
        let count = u64::try_from(count).map_err(|_| ClientError::Overflow("a count".to_owned()))?;
        Ok(match aggregate {
            Aggregate::Count | Aggregate::CountColumn(_) => AggregateValue::Count(count),
            _ if count == 0 => AggregateValue::Null,
            Aggregate::Sum(expr) => {
                let unscaled =
                    i128::try_from(field(self.sum)).map_err(|_| ClientError::Overflow(format!("SUM({expr})")))?;
                AggregateValue::Sum { unscaled, scale: self.scale }
            }
            Aggregate::Avg(_) => AggregateValue::Fraction(Fraction::mean(field(self.sum), self.scale, count)),
            Aggregate::VarSamp(_) if count == 1 => AggregateValue::Null,
            Aggregate::VarPop(_) | Aggregate::VarSamp(_) => {
                let sample = matches!(aggregate, Aggregate::VarSamp(_));
                let (sum, squares) = (field(self.sum), field(self.squares));
                AggregateValue::Fraction(Fraction::variance(sum, squares, self.scale, count, sample))
            }
            Aggregate::Pair { statistic, .. } => {
                let pair = self.pair.expect("a statistic of two columns has their sums");
                pair.value(*statistic, count, sum)
            }
            Aggregate::Min(_) | Aggregate::Max(_) => unreachable!("read from the column"),
        })
    }
}

/// The least or greatest value that is not NULL, in the order of sort keys.
pub(super) fn extreme_of(batches: &[RecordBatch], least: bool) -> Value {
    let mut best: Option<(Vec<u8>, Value)> = None;
    for batch in batches {
        let column = batch.column(0);
        let keys = Keys::of(std::slice::from_ref(column));
        for row in (0..column.len()).filter(|r| column.is_valid(*r)) {
            let key = keys.get(row);
            let better = best.as_ref().is_none_or(|(b, _)| if least { key < b.as_slice() } else { key > b.as_slice() });
            if better {
                let value = Value::at(column, row).expect("a column of the table");
                best = Some((key.to_vec(), value));
            }
        }
    }
    best.map_or(Value::Null, |(_, value)| value)
}
