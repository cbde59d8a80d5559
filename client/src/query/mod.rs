//! Verified queries over a key range: rows in key order, COUNT, SUM, AVG, VAR, MIN, MAX.
//!
//! Sums     two openings and two masks a live segment and lane, for any number of rows; every live segment counts, retractions with -1.
//! Rows     all live segments are merged in key order, or against it; a row's weights over all segments are added, so retractions cancel what they
//!          retract.
//!          Cancelling needs only the columns read and the key: equal projections of a weighted list stay equal under projection.
//! Version  all requests of one query are answered at one version of the projection; a change in between starts it over.
//! Source   DESIGN section 3; `docs/protocol/query.md`

mod fields;
mod groups;
mod merge;
mod pairs;
mod positions;
mod scan;
mod stats;
mod stream;

pub use pairs::PairStatistic;
pub(crate) use positions::Positions;
pub(crate) use scan::Scanned;
pub use stats::{SegmentStats, TableStats};
pub use stream::{Pinned, RowStream};

use crate::error::ClientError;
use crate::open;
use crate::packing::SumField;
use crate::plan::{self, Wanted};
use crate::range::KeyRange;
use crate::schema::{SumExpr, TableSchema};
use crate::session::{ATTEMPTS, Meter, Session, Table, TableHandle, lock};
use crate::sums::{Fraction, centred};
use crate::transport::Transport;
use crate::value::{Value, place_point};
use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use fields::{Fields, extreme_of};
use fluence_crypto::Fr;
use fluence_types::{DbRoot, Height, LaneId, Version};
use fluence_verifier::answer::VerifiedAnswer;
use num_bigint::BigInt;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::time::Instant;

/// What stands behind an answer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Evidence {
    /// Certified height of the last answer.
    pub height: Height,
    /// Database root at that height.
    pub root: DbRoot,
    /// Version of the projection, one for the whole query.
    pub version: Version,
    /// Live segments.
    pub segments: usize,
    /// Rows of all live segments in the range, retractions counted as rows.
    pub rows: u64,
    /// Bytes of the answers that the result was read from.
    pub native_bytes: u64,
    /// Bytes fetched to plan: headers and edge groups that were not cached.
    pub plan_bytes: u64,
    /// Milliseconds from call to result, everything included.
    pub native_ms: f64,
    /// Cells opened for the result.
    pub openings: u64,
    /// Requests made, planning included.
    pub requests: u64,
}

impl Evidence {
    /// What was added to evidence of before: counts and times are the difference, so those of all parts add up to the whole.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            rows: self.rows - before.rows,
            native_bytes: self.native_bytes - before.native_bytes,
            plan_bytes: self.plan_bytes - before.plan_bytes,
            native_ms: self.native_ms - before.native_ms,
            openings: self.openings - before.openings,
            requests: self.requests - before.requests,
            ..self.clone()
        }
    }

    /// This and what came before it as one: the opposite of [`Self::since`].
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        Self {
            rows: self.rows + before.rows,
            native_bytes: self.native_bytes + before.native_bytes,
            plan_bytes: self.plan_bytes + before.plan_bytes,
            native_ms: self.native_ms + before.native_ms,
            openings: self.openings + before.openings,
            requests: self.requests + before.requests,
            ..self.clone()
        }
    }
}

/// A result with its evidence.
#[derive(Clone, PartialEq, Debug)]
pub struct Answered<V> {
    /// The result.
    pub value: V,
    /// What stands behind it.
    pub evidence: Evidence,
}

/// The order in which rows are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// In key order.
    #[default]
    Forwards,
    /// Against it, from the last row to the first.
    Backwards,
}

/// A range SELECT.
#[derive(Clone, PartialEq, Debug)]
pub struct Select {
    /// Which rows.
    pub range: KeyRange,
    /// Which columns, in this order; empty for all.
    pub columns: Vec<String>,
    /// At most so many rows, the first in the direction.
    pub limit: Option<u64>,
    /// From which end.
    pub direction: Direction,
}

impl Select {
    /// All columns of a range.
    #[must_use]
    pub const fn range(range: KeyRange) -> Self {
        Self { range, columns: Vec::new(), limit: None, direction: Direction::Forwards }
    }
    /// These columns only.
    #[must_use]
    pub fn columns(mut self, columns: &[&str]) -> Self {
        self.columns = columns.iter().map(|c| (*c).to_owned()).collect();
        self
    }
    /// At most so many rows.
    #[must_use]
    pub const fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }
    /// From the end.
    #[must_use]
    pub const fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }
}

/// An aggregate over the rows of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Aggregate {
    /// COUNT(*).
    Count,
    /// COUNT(column): rows in which it is not NULL.
    CountColumn(String),
    /// SUM of a declared expression.
    Sum(SumExpr),
    /// AVG of a declared column.
    Avg(SumExpr),
    /// Population variance of a column declared with its square.
    VarPop(String),
    /// Sample variance of a column declared with its square.
    VarSamp(String),
    /// A statistic of two columns that are never NULL, declared with what [`PairStatistic::sums`] names.
    Pair {
        /// Which.
        statistic: PairStatistic,
        /// The dependent column.
        y: String,
        /// The independent column.
        x: String,
    },
    /// Least value that is not NULL.
    Min(String),
    /// Greatest value that is not NULL.
    Max(String),
}

/// The value of an aggregate.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum AggregateValue {
    /// SQL's NULL: no row to aggregate.
    Null,
    /// A count.
    Count(u64),
    /// A sum: `unscaled / 10^scale`, exact.
    Sum {
        /// The digits.
        unscaled: i128,
        /// Digits after the point.
        scale: u32,
    },
    /// A mean, a variance, or what else is a fraction of sums; exact.
    Fraction(Fraction),
    /// A least or greatest value.
    Value(Value),
}

impl AggregateValue {
    /// As a double, where it is a number.
    #[must_use]
    pub fn to_f64(&self) -> Option<f64> {
        match self {
            Self::Count(n) => Some(*n as f64),
            Self::Sum { unscaled, scale } => {
                let denominator = BigInt::from(10u32).pow(*scale);
                Some(Fraction { numerator: BigInt::from(*unscaled), denominator }.to_f64())
            }
            Self::Fraction(f) => Some(f.to_f64()),
            Self::Value(Value::Int64(v)) => Some(*v as f64),
            Self::Value(Value::Float64(v)) => Some(*v),
            _ => None,
        }
    }
}

impl fmt::Display for AggregateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Count(n) => write!(f, "{n}"),
            Self::Sum { unscaled, scale } => {
                f.write_str(&place_point(unscaled.unsigned_abs().to_string(), *unscaled < 0, *scale))
            }
            Self::Fraction(x) => write!(f, "{x}"),
            Self::Value(v) => write!(f, "{v}"),
        }
    }
}

fn evidence(answer: &VerifiedAnswer, rows: u64, meter: Meter, start: Instant) -> Evidence {
    Evidence {
        height: answer.checkpoint().height,
        root: answer.checkpoint().root,
        version: answer.entry().version,
        segments: answer.entry().live.len(),
        rows,
        native_bytes: meter.bytes,
        plan_bytes: meter.plan_bytes,
        native_ms: start.elapsed().as_secs_f64() * 1e3,
        openings: meter.cells,
        requests: meter.requests,
    }
}

impl<T: Transport> Table<T> {
    /// The rows of a selection as one batch.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub async fn select(&self, select: &Select) -> Result<Answered<RecordBatch>, ClientError> {
        let columns = self.columns_of(select)?;
        let Answered { value, evidence } = self.rows(select).await?;
        let batch = concat_batches(&self.schema().arrow_of(&columns), &value).map_err(open::OpenError::Gather)?;
        Ok(Answered { value: batch, evidence })
    }

    /// The rows of a selection in the batches in which they were opened. [`Self::read`] does not keep them all.
    ///
    /// # Errors
    /// [`ClientError`]; nothing that does not verify is returned.
    pub async fn rows(&self, select: &Select) -> Result<Answered<Vec<RecordBatch>>, ClientError> {
        let scanned = self.scan(&self.columns_of(select)?, &select.range, select.limit, select.direction).await?;
        Ok(Answered { value: scanned.batches, evidence: scanned.evidence })
    }

    pub(crate) fn columns_of(&self, select: &Select) -> Result<Vec<usize>, ClientError> {
        let schema = self.schema();
        Ok(if select.columns.is_empty() {
            (0..schema.columns().len()).collect()
        } else {
            select.columns.iter().map(|c| schema.index(c)).collect::<Result<Vec<_>, _>>()?
        })
    }

    /// One aggregate over a range.
    ///
    /// # Errors
    /// As [`Self::aggregates`].
    pub async fn aggregate(
        &self,
        range: &KeyRange,
        aggregate: &Aggregate,
    ) -> Result<Answered<AggregateValue>, ClientError> {
        let mut answered = self.aggregates(range, std::slice::from_ref(aggregate)).await?;
        let value = answered.value.pop().expect("as many values as aggregates");
        Ok(Answered { value, evidence: answered.evidence })
    }

    /// Several aggregates over one range, at one version of the table.
    ///
    /// # Errors
    /// [`ClientError`]: an undeclared sum, or an answer that does not verify.
    pub async fn aggregates(
        &self,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<Answered<Vec<AggregateValue>>, ClientError> {
        let version = |answered: &Answered<_>| answered.evidence.version;
        self.session.freshly(&self.handle, version, || self.try_aggregates(range, aggregates)).await
    }

    async fn try_aggregates(
        &self,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<Answered<Vec<AggregateValue>>, ClientError> {
        let start = Instant::now();
        let schema = self.schema();
        let fields = aggregates.iter().map(|a| Fields::of(schema, a)).collect::<Result<Vec<_>, _>>()?;
        let mut wanted: Vec<SumField> = fields.iter().flat_map(Fields::all).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut meter = Meter::default();
        let positions = self.positions(range, &mut meter).await?;
        let (sums, answer) = self.field_sums(&positions, &wanted, &mut meter).await?;
        let sum = |field: SumField| &sums[wanted.binary_search(&field).expect("every sum was asked for")];

        // MIN and MAX read the column itself; their scan must be at the same version.
        let mut extremes: Vec<Option<Value>> = vec![None; aggregates.len()];
        for (aggregate, extreme) in aggregates.iter().zip(&mut extremes) {
            if let Aggregate::Min(column) | Aggregate::Max(column) = aggregate {
                let index = schema.index(column)?;
                let least = matches!(aggregate, Aggregate::Min(_));
                let (range, limit, direction) = end_of(schema, index, least, range);
                let scanned = self.try_scan(&[index], &range, limit, direction).await?;
                if scanned.entry.version != positions.entry.version {
                    return Err(version_moved(&positions, &scanned));
                }
                meter.bytes += scanned.evidence.native_bytes;
                meter.plan_bytes += scanned.evidence.plan_bytes;
                meter.requests += scanned.evidence.requests;
                meter.cells += scanned.evidence.openings;
                *extreme = Some(extreme_of(&scanned.batches, least));
            }
        }
        let values = fields
            .iter()
            .zip(aggregates)
            .zip(extremes)
            .map(|((fields, aggregate), extreme)| match extreme {
                Some(Value::Null) => Ok(AggregateValue::Null),
                Some(value) => Ok(AggregateValue::Value(value)),
                None => fields.value(aggregate, &sum),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Answered { value: values, evidence: evidence(&answer, positions.total(), meter, start) })
    }

    /// The exact sums over the positions, and the answer they were read from.
    pub(crate) async fn field_sums(
        &self,
        positions: &Positions,
        fields: &[SumField],
        meter: &mut Meter,
    ) -> Result<(Vec<BigInt>, VerifiedAnswer), ClientError> {
        let (totals, answer) = self.lane_totals(positions, fields.iter().map(|f| f.lane), meter).await?;
        let packed: BTreeMap<LaneId, BigInt> =
            totals.into_iter().map(|(lane, total)| (lane, centred(&total))).collect();
        Ok((fields.iter().map(|f| f.of(&packed[&f.lane])).collect(), answer))
    }

    /// What the scalars of lanes add up to over the positions, unmasked: the sums that share each of them.
    pub(crate) async fn lane_totals(
        &self,
        positions: &Positions,
        lanes: impl IntoIterator<Item = LaneId>,
        meter: &mut Meter,
    ) -> Result<(BTreeMap<LaneId, Fr>, VerifiedAnswer), ClientError> {
        let mut totals: BTreeMap<LaneId, Fr> = lanes.into_iter().map(|lane| (lane, Fr::from(0u64))).collect();
        let mut wanted = vec![Wanted::default(); positions.views.len()];
        for ((view, rows), wanted) in positions.views.iter().zip(&positions.rows).zip(&mut wanted) {
            for lane in totals.keys() {
                for cell in open::sum_cells_of(view, *lane, rows) {
                    wanted.add(cell, cell + 1);
                }
            }
        }
        let request = plan::request(self.db(), &positions.entry, wanted)?;
        let (answer, bytes) = self.session.open(&request).await?;
        meter.opened(&answer, bytes);
        for (lane, total) in &mut totals {
            for (view, rows) in positions.views.iter().zip(&positions.rows) {
                *total += open::range_sum(&self.handle.keys, &answer, view, *lane, rows)?;
            }
        }
        Ok((totals, answer))
    }
}

/// What to read for the least or the greatest value of a column: one row, where the key is in the column's order over the range, else all.
fn end_of(schema: &TableSchema, column: usize, least: bool, range: &KeyRange) -> (KeyRange, Option<u64>, Direction) {
    let at = schema.key_indices().iter().position(|k| *k == column);
    // Columns before it that are the same in all rows leave the order to it.
    let Some(at) = at.filter(|at| *at <= range.held()) else { return (range.clone(), None, Direction::Forwards) };
    let (forwards, backwards) = (Direction::Forwards, Direction::Backwards);
    // NULL sorts before all else: the last row has it only where all have, the first one where any has.
    let narrowed = match (least, schema.columns()[column].nullable, &range.lower) {
        (false, ..) => return (range.clone(), Some(1), backwards),
        (true, false, _) => Some(range.lower.clone()),
        (true, true, Bound::Unbounded) => Some(Bound::Excluded(vec![Value::Null])),
        (true, true, Bound::Included(v)) if v.len() == at => {
            Some(Bound::Excluded(v.iter().cloned().chain([Value::Null]).collect()))
        }
        (true, true, Bound::Included(v) | Bound::Excluded(v)) if v.get(at).is_some_and(|v| *v != Value::Null) => {
            Some(range.lower.clone())
        }
        (true, true, Bound::Excluded(v)) if v.len() == at + 1 => Some(range.lower.clone()),
        _ => None,
    };
    match narrowed {
        Some(lower) => (KeyRange { lower, upper: range.upper.clone() }, Some(1), forwards),
        None => (range.clone(), None, forwards),
    }
}

pub(crate) fn still_moving(error: ClientError, table: &TableHandle) -> ClientError {
    use fluence_types::answer::OpenRefusal;
    use fluence_wire::message::Refusal;
    match error {
        ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Moved(_)), .. } => {
            ClientError::Moving { projection: table.projection, attempts: ATTEMPTS }
        }
        other => other,
    }
}

fn version_moved(positions: &Positions, scanned: &Scanned) -> ClientError {
    use fluence_verifier::answer::AnswerError;
    let why = AnswerError::Version { got: scanned.entry.version, expected: positions.entry.version };
    ClientError::answer(&fluence_types::NodeId::default(), why)
}

impl<T: Transport> Session<T> {
    /// Bytes of headers, fences and edge groups kept for planning.
    #[must_use]
    pub fn plan_cache_bytes(&self) -> usize {
        lock(&self.inner.cache).bytes()
    }
}
