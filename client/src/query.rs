//! Verified queries over a key range: rows in key order, COUNT, SUM, AVG, VAR, MIN, MAX.
//!
//! Sums     two openings and two masks a live segment and lane, for any number of rows; every live segment counts, retractions with -1.
//! Rows     all live segments are merged in key order; a row's weights over all segments are added, so retractions cancel what they retract.
//!          Cancelling needs only the columns read and the key: equal projections of a weighted list stay equal under projection.
//! Version  all requests of one query are answered at one version of the projection; a change in between starts it over.
//! Source   DESIGN section 3; `docs/protocol/query.md`

use crate::ask::moved;
use crate::error::ClientError;
use crate::key::Keys;
use crate::open::{self, ROWS_PER_GROUP, SegmentView};
use crate::plan::{self, Wanted};
use crate::range::{Bounds, KeyRange};
use crate::schema::{SchemaError, SumExpr, TableSchema};
use crate::session::{ATTEMPTS, Meter, Session, Table, TableHandle, lock, offload};
use crate::sums::{Fraction, centred};
use crate::transport::Transport;
use crate::value::{Value, place_point};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave_record_batch;
use fluence_crypto::Fr;
use fluence_types::limits::OPEN_CELLS_MAX;
use fluence_types::statement::RowRange;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{DbRoot, Height, LaneId, Version};
use fluence_verifier::answer::VerifiedAnswer;
use num_bigint::{BigInt, Sign};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Cells asked in one request of a scan: 4 MiB.
const SCAN_CELLS: u64 = 1 << 14;

/// What stands behind an answer.
#[derive(Clone, PartialEq, Debug)]
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

/// A result with its evidence.
#[derive(Clone, PartialEq, Debug)]
pub struct Answered<V> {
    /// The result.
    pub value: V,
    /// What stands behind it.
    pub evidence: Evidence,
}

/// A range SELECT.
#[derive(Clone, PartialEq, Debug)]
pub struct Select {
    /// Which rows.
    pub range: KeyRange,
    /// Which columns, in this order; empty for all.
    pub columns: Vec<String>,
    /// At most so many rows, the first in key order.
    pub limit: Option<u64>,
}

impl Select {
    /// All columns of a range.
    #[must_use]
    pub const fn range(range: KeyRange) -> Self {
        Self { range, columns: Vec::new(), limit: None }
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
    /// A mean or variance, exact.
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

/// Positions of a range in every live segment, at one version.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    pub(crate) entry: CatalogueEntry,
    pub(crate) views: Vec<Arc<SegmentView>>,
    pub(crate) rows: Vec<Range<u64>>,
}

impl Positions {
    pub(crate) fn row_ranges(&self) -> Vec<RowRange> {
        self.rows.iter().map(|r| RowRange { lo: r.start, hi: r.end }).collect()
    }
    pub(crate) fn total(&self) -> u64 {
        self.rows.iter().map(|r| r.end - r.start).sum()
    }
}

/// Rows of a scan, in key order, retractions cancelled.
pub(crate) struct Scanned {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: u64,
    pub(crate) entry: CatalogueEntry,
    pub(crate) evidence: Evidence,
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
    /// The rows of a range, in key order.
    ///
    /// # Errors
    /// [`ClientError`]; nothing that does not verify is returned.
    pub async fn select(&self, select: &Select) -> Result<Answered<RecordBatch>, ClientError> {
        let schema = self.schema();
        let columns = if select.columns.is_empty() {
            (0..schema.columns().len()).collect()
        } else {
            select.columns.iter().map(|c| schema.index(c)).collect::<Result<Vec<_>, _>>()?
        };
        let scanned = self.scan(&columns, &select.range, select.limit).await?;
        let batch = concat_batches(&schema.arrow_of(&columns), &scanned.batches).map_err(open::OpenError::Gather)?;
        Ok(Answered { value: batch, evidence: scanned.evidence })
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
        for attempt in 1.. {
            match self.try_aggregates(range, aggregates).await {
                Err(error) if moved(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other.map_err(|e| still_moving(e, &self.handle)),
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_aggregates(
        &self,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<Answered<Vec<AggregateValue>>, ClientError> {
        let start = Instant::now();
        let schema = self.schema();
        let lanes = aggregates.iter().map(|a| Lanes::of(schema, a)).collect::<Result<Vec<_>, _>>()?;
        let mut wanted: Vec<LaneId> = lanes.iter().flat_map(Lanes::all).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut meter = Meter::default();
        let positions = self.positions(range, &mut meter).await?;
        let (sums, answer) = self.lane_sums(&positions, &wanted, &mut meter).await?;
        let sum = |lane: LaneId| &sums[wanted.binary_search(&lane).expect("every lane was asked for")];

        // MIN and MAX read the column itself; their scan must be at the same version.
        let mut extremes: Vec<Option<Value>> = vec![None; aggregates.len()];
        for (aggregate, extreme) in aggregates.iter().zip(&mut extremes) {
            if let Aggregate::Min(column) | Aggregate::Max(column) = aggregate {
                let index = schema.index(column)?;
                let least = matches!(aggregate, Aggregate::Min(_));
                // The least value of a leading key column that is never NULL stands in the first row.
                let first = least && schema.key_indices()[0] == index && !schema.columns()[index].nullable;
                let scanned = self.try_scan(&[index], range, first.then_some(1)).await?;
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
        let values = lanes
            .iter()
            .zip(aggregates)
            .zip(extremes)
            .map(|((lanes, aggregate), extreme)| match extreme {
                Some(Value::Null) => Ok(AggregateValue::Null),
                Some(value) => Ok(AggregateValue::Value(value)),
                None => lanes.value(aggregate, &sum),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Answered { value: values, evidence: evidence(&answer, positions.total(), meter, start) })
    }

    /// The exact sums of lanes over the positions, and the answer they were read from.
    pub(crate) async fn lane_sums(
        &self,
        positions: &Positions,
        lanes: &[LaneId],
        meter: &mut Meter,
    ) -> Result<(Vec<BigInt>, VerifiedAnswer), ClientError> {
        let mut wanted = vec![Wanted::default(); positions.views.len()];
        for ((view, rows), wanted) in positions.views.iter().zip(&positions.rows).zip(&mut wanted) {
            for lane in lanes {
                for cell in open::sum_cells_of(view, *lane, rows) {
                    wanted.add(cell, cell + 1);
                }
            }
        }
        let request = plan::request(self.db(), &positions.entry, wanted)?;
        let (answer, bytes) = self.session.open(&request).await?;
        meter.requests += 1;
        meter.bytes += bytes;
        meter.cells += answer.segments().iter().map(|s| s.cells().len() as u64).sum::<u64>();
        let mut sums = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let mut total = Fr::from(0u64);
            for (view, rows) in positions.views.iter().zip(&positions.rows) {
                total += open::range_sum(&self.handle.keys, &answer, view, *lane, rows)?;
            }
            sums.push(centred(&total));
        }
        Ok((sums, answer))
    }

    /// The rows `[lo, hi)` of a range in every live segment: by the fences, and by the keys of the groups in which the range ends.
    pub(crate) async fn positions(&self, range: &KeyRange, meter: &mut Meter) -> Result<Positions, ClientError> {
        let bounds = range.bounds(self.schema())?;
        let entry = self.session.entry(&self.handle).await?;
        let views = self.session.views(&self.handle, &entry.live, meter).await?;
        self.fetch_edges(&entry, &views, &bounds, meter).await?;
        let rows = views
            .iter()
            .map(|view| {
                let at = |bound: &Option<Vec<u8>>| match bound {
                    None => Some(view.header().rows),
                    Some(bound) => self.position(view, bound),
                };
                let lo = at(&bounds.lower)?;
                Some(lo..at(&bounds.upper)?.max(lo))
            })
            .collect::<Option<Vec<_>>>()
            // The cache was too small to hold this query's edges: they were evicted as they arrived.
            .ok_or(ClientError::Moving { projection: self.projection(), attempts: 1 })?;
        Ok(Positions { entry, views, rows })
    }

    /// The position of a bound; `None` where the keys of its group are not cached.
    fn position(&self, view: &SegmentView, bound: &[u8]) -> Option<u64> {
        let Some(group) = view.groups_below(bound).checked_sub(1) else { return Some(0) };
        let keys = lock(&self.session.inner.cache).edge(&view.root(), group)?;
        Some(u64::from(group) * ROWS_PER_GROUP + keys.below(bound) as u64)
    }

    /// Fetches the key columns of the groups in which a bound falls, where they are not cached.
    async fn fetch_edges(
        &self,
        entry: &CatalogueEntry,
        views: &[Arc<SegmentView>],
        bounds: &Bounds,
        meter: &mut Meter,
    ) -> Result<(), ClientError> {
        let mut edges: Vec<Vec<u32>> = Vec::with_capacity(views.len());
        for view in views {
            let mut groups: Vec<u32> = [&bounds.lower, &bounds.upper]
                .into_iter()
                .flatten()
                .filter_map(|bound| view.groups_below(bound).checked_sub(1))
                .filter(|group| lock(&self.session.inner.cache).edge(&view.root(), *group).is_none())
                .collect();
            groups.dedup();
            edges.push(groups);
        }
        if edges.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let schema = self.schema();
        let mut wanted = vec![Wanted::default(); views.len()];
        for ((view, groups), wanted) in views.iter().zip(&edges).zip(&mut wanted) {
            for group in groups {
                for column in schema.key_indices() {
                    let cells = view.block_cells(schema.column_lane(column), &(*group..group + 1));
                    let cells = cells.expect("every group has a block in every byte lane");
                    wanted.add(cells.start, cells.end);
                }
            }
        }
        let request = plan::request(self.db(), entry, wanted)?;
        let (answer, bytes) = self.session.open(&request).await?;
        meter.requests += 1;
        meter.plan_bytes += bytes;
        for (view, groups) in views.iter().zip(&edges) {
            for group in groups {
                let groups = *group..group + 1;
                let columns = open::key_columns(&self.handle.keys, &answer, view, &groups)?;
                let keys = Keys::of(&columns);
                check_group(view, *group, &keys)?;
                lock(&self.session.inner.cache).put_edge(view.root(), *group, Arc::new(keys));
            }
        }
        Ok(())
    }

    /// [`Self::try_scan`], again where the projection changed in between.
    pub(crate) async fn scan(
        &self,
        columns: &[usize],
        range: &KeyRange,
        limit: Option<u64>,
    ) -> Result<Scanned, ClientError> {
        for attempt in 1.. {
            match self.try_scan(columns, range, limit).await {
                Err(error) if moved(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other.map_err(|e| still_moving(e, &self.handle)),
            }
        }
        unreachable!("the loop returns")
    }

    /// The rows of a range in key order, all from one version.
    async fn try_scan(&self, columns: &[usize], range: &KeyRange, limit: Option<u64>) -> Result<Scanned, ClientError> {
        let start = Instant::now();
        let schema = self.schema();
        let bounds = range.bounds(schema)?;
        // Key columns first: then the bytes of a whole row begin with its key.
        let mut read = schema.key_indices();
        let key_columns = read.len();
        read.extend(columns.iter().copied().filter(|c| !schema.key_indices().contains(c)));
        read.dedup();
        let mut distinct = Vec::with_capacity(read.len());
        read.into_iter().for_each(|c| {
            if !distinct.contains(&c) {
                distinct.push(c);
            }
        });
        let read = distinct;
        let places: Vec<usize> =
            columns.iter().map(|c| read.iter().position(|r| r == c).expect("every column is read")).collect();

        let mut meter = Meter::default();
        let entry = self.session.entry(&self.handle).await?;
        let views = self.session.views(&self.handle, &entry.live, &mut meter).await?;
        let mut cursors: Vec<Cursor> = views.iter().map(|v| Cursor::new(v.candidates(&bounds))).collect();
        let mut batches = Vec::new();
        let (mut emitted, mut rows) = (0u64, 0u64);
        let answer = loop {
            let request = self.next_request(&entry, &views, &mut cursors, &read, limit.map(|l| l - emitted))?;
            let (answer, bytes) = self.session.open(&request).await?;
            meter.requests += 1;
            meter.bytes += bytes;
            meter.cells += answer.segments().iter().map(|s| s.cells().len() as u64).sum::<u64>();
            let job = Round {
                keys: self.handle.keys.clone(),
                views: views.clone(),
                read: read.clone(),
                key_columns,
                bounds: bounds.clone(),
            };
            let (answer, opened) = offload(move || {
                let result = job.open(&answer, cursors);
                (answer, result)
            })
            .await;
            cursors = opened?;
            let merged = merge(&mut cursors, &places, limit.map(|l| l - emitted))?;
            rows += merged.rows_seen;
            for batch in merged.batches {
                emitted += batch.num_rows() as u64;
                batches.push(batch);
            }
            if cursors.iter().all(Cursor::done) || limit.is_some_and(|l| emitted >= l) {
                break answer;
            }
        };
        let evidence = evidence(&answer, rows, meter, start);
        Ok(Scanned { batches, rows: emitted, entry, evidence })
    }

    /// The next cells to read: of the segments that hold the merge up, as many groups as one request should carry.
    fn next_request(
        &self,
        entry: &CatalogueEntry,
        views: &[Arc<SegmentView>],
        cursors: &mut [Cursor],
        read: &[usize],
        limit: Option<u64>,
    ) -> Result<fluence_types::answer::OpenRequest, ClientError> {
        let schema = self.schema();
        let lanes: Vec<LaneId> = read.iter().map(|c| schema.column_lane(*c)).chain([schema.weight_lane()]).collect();
        let frontier = frontier(cursors);
        let needy: Vec<usize> = (0..cursors.len())
            .filter(|i| {
                let c = &cursors[*i];
                !c.groups.is_empty() && (c.last_key.is_none() || c.last_key == frontier)
            })
            .collect();
        let mut wanted = vec![Wanted::default(); views.len()];
        let (mut total, share) = (0u64, SCAN_CELLS / needy.len().max(1) as u64);
        for i in needy {
            let (view, cursor) = (&views[i], &mut cursors[i]);
            // A little more than asked, because retractions may cancel some.
            let enough = limit.map_or(u32::MAX, |l| (l / ROWS_PER_GROUP).min(1 << 20) as u32 + 2);
            let (mut own, first) = (0, cursor.groups.start);
            let mut end = first;
            while end < cursor.groups.end && end - first < enough {
                let group = end..end + 1;
                let ranges = lanes.iter().map(|l| view.block_cells(*l, &group).expect("every group has every block"));
                let ranges: Vec<Range<u64>> = ranges.collect();
                let cells: u64 = ranges.iter().map(|r| r.end - r.start).sum();
                if end > first && own + cells > share || total + own + cells > OPEN_CELLS_MAX {
                    break;
                }
                own += cells;
                end += 1;
                ranges.into_iter().for_each(|r| wanted[i].add(r.start, r.end));
            }
            total += own;
            cursor.asked = first..end;
        }
        if total == 0 && cursors.iter().any(|c| !c.groups.is_empty()) {
            return Err(plan::PlanError::TooManyCells(OPEN_CELLS_MAX + 1).into());
        }
        Ok(plan::request(self.db(), entry, wanted)?)
    }
}

fn check_group(view: &SegmentView, group: u32, keys: &Keys) -> Result<(), open::OpenError> {
    if !keys.sorted() {
        return Err(open::OpenError::Order { segment: view.root(), group });
    }
    open::check_order(view, &(group..group + 1), keys)
}

fn still_moving(error: ClientError, table: &TableHandle) -> ClientError {
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

/// Where a scan stands in one segment.
struct Cursor {
    /// Groups not read yet.
    groups: Range<u32>,
    /// Groups of the round under way.
    asked: Range<u32>,
    /// Key of the last row read, while groups are left.
    last_key: Option<Vec<u8>>,
    /// Rows read and not merged yet.
    pending: Vec<Pending>,
}

struct Pending {
    batch: RecordBatch,
    /// Key columns first, then the others read.
    full: Keys,
    weights: Vec<i8>,
    /// Rows still to merge.
    rows: Range<usize>,
}

impl Cursor {
    const fn new(groups: Range<u32>) -> Self {
        Self { asked: 0..0, last_key: None, pending: Vec::new(), groups }
    }
    fn done(&self) -> bool {
        self.groups.is_empty() && self.pending.iter().all(|p| p.rows.is_empty())
    }
}

/// The least last key among the segments that have groups left: below it, every row has been read.
fn frontier(cursors: &[Cursor]) -> Option<Vec<u8>> {
    cursors.iter().filter(|c| !c.groups.is_empty()).filter_map(|c| c.last_key.as_ref()).min().cloned()
}

/// Opens the groups of a round.
struct Round {
    keys: crate::seal::TableKeys,
    views: Vec<Arc<SegmentView>>,
    read: Vec<usize>,
    key_columns: usize,
    bounds: Bounds,
}

impl Round {
    fn open(&self, answer: &VerifiedAnswer, mut cursors: Vec<Cursor>) -> Result<Vec<Cursor>, ClientError> {
        for (view, cursor) in self.views.iter().zip(&mut cursors) {
            let asked = std::mem::replace(&mut cursor.asked, 0..0);
            if asked.is_empty() {
                continue;
            }
            let rows = open::blocks(&self.keys, answer, view, &self.read, &asked)?;
            let columns: Vec<ArrayRef> = rows.batch.columns().to_vec();
            let full = Keys::of(&columns);
            let own_keys = Keys::of(&columns[..self.key_columns]);
            if !own_keys.sorted() {
                return Err(open::OpenError::Order { segment: view.root(), group: asked.start }.into());
            }
            open::check_order(view, &asked, &own_keys)?;
            cursor.groups.start = asked.end;
            cursor.last_key = (!cursor.groups.is_empty()).then(|| own_keys.get(own_keys.len() - 1).to_vec());
            let lo = self.bounds.lower.as_ref().map_or(own_keys.len(), |b| own_keys.below(b));
            let hi = self.bounds.upper.as_ref().map_or(own_keys.len(), |b| own_keys.below(b)).max(lo);
            cursor.pending.push(Pending { batch: rows.batch, full, weights: rows.weights, rows: lo..hi });
        }
        Ok(cursors)
    }
}

struct Merged {
    batches: Vec<RecordBatch>,
    rows_seen: u64,
}

/// Takes all rows below the frontier, adds the weights of equal rows, and gives what is left in key order.
fn merge(cursors: &mut [Cursor], places: &[usize], limit: Option<u64>) -> Result<Merged, ClientError> {
    if cursors.iter().any(|c| !c.groups.is_empty() && c.last_key.is_none()) {
        // A segment of which nothing was read yet may begin with any key.
        return Ok(Merged { batches: Vec::new(), rows_seen: 0 });
    }
    let frontier = frontier(cursors);
    let mut taken: Vec<(usize, usize)> = Vec::new();
    let mut sources: Vec<&Pending> = Vec::new();
    let mut left: Vec<Vec<usize>> = Vec::with_capacity(cursors.len());
    for cursor in cursors.iter() {
        let mut starts = Vec::with_capacity(cursor.pending.len());
        for pending in &cursor.pending {
            let end = match &frontier {
                // A whole row's bytes begin with its key, so comparing them to the key tells on which side it lies.
                Some(key) => pending.rows.end.min(pending.full_below(key)).max(pending.rows.start),
                None => pending.rows.end,
            };
            taken.extend((pending.rows.start..end).map(|row| (sources.len(), row)));
            sources.push(pending);
            starts.push(end);
        }
        left.push(starts);
    }
    let key = |(s, row): &(usize, usize)| sources[*s].full.get(*row);
    taken.sort_by(|a, b| key(a).cmp(key(b)));
    let mut out: Vec<(usize, usize)> = Vec::with_capacity(taken.len());
    let room = limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
    for equal in taken.chunk_by(|a, b| key(a) == key(b)) {
        let net: i64 = equal.iter().map(|(s, row)| i64::from(sources[*s].weights[*row])).sum();
        if net < 0 {
            return Err(ClientError::Unmatched);
        }
        let copies = (net as usize).min(room - out.len());
        out.extend(std::iter::repeat_n(equal[0], copies));
        if out.len() == room {
            break;
        }
    }
    let rows_seen = taken.len() as u64;
    let mut batches = Vec::new();
    if !out.is_empty() {
        let projected = sources.iter().map(|p| p.batch.project(places)).collect::<Result<Vec<_>, _>>();
        let projected = projected.map_err(open::OpenError::Gather)?;
        let all: Vec<&RecordBatch> = projected.iter().collect();
        if places.is_empty() {
            return Err(ClientError::Schema(SchemaError::NoColumn(String::new())));
        }
        batches.push(interleave_record_batch(&all, &out).map_err(open::OpenError::Gather)?);
    }
    for (cursor, starts) in cursors.iter_mut().zip(left) {
        for (pending, start) in cursor.pending.iter_mut().zip(starts) {
            pending.rows.start = start;
        }
        cursor.pending.retain(|p| !p.rows.is_empty());
    }
    Ok(Merged { batches, rows_seen })
}

impl Pending {
    /// Rows whose key is below `key`. The rows are in key order, but rows of equal keys need not be in order of their other columns.
    fn full_below(&self, key: &[u8]) -> usize {
        let (mut lo, mut hi) = (self.rows.start, self.rows.end);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.full.get(mid) < key { lo = mid + 1 } else { hi = mid }
        }
        lo
    }
}

/// The least or greatest value that is not NULL, in the order of sort keys.
fn extreme_of(batches: &[RecordBatch], least: bool) -> Value {
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

/// The sum lanes an aggregate reads.
struct Lanes {
    count: Option<LaneId>,
    sum: Option<LaneId>,
    squares: Option<LaneId>,
    scale: u32,
}

impl Lanes {
    fn of(schema: &TableSchema, aggregate: &Aggregate) -> Result<Self, ClientError> {
        let none = Self { count: None, sum: None, squares: None, scale: 0 };
        Ok(match aggregate {
            Aggregate::Count => Self { count: Some(schema.count_lane()), ..none },
            Aggregate::CountColumn(c) => {
                Self { count: Some(schema.not_null_lane(&SumExpr::Column(c.clone()))?), ..none }
            }
            Aggregate::Sum(expr) | Aggregate::Avg(expr) => {
                let (sum, scale) = schema.expr_lane(expr)?;
                Self { count: Some(schema.not_null_lane(expr)?), sum: Some(sum), scale, ..none }
            }
            Aggregate::VarPop(c) | Aggregate::VarSamp(c) => {
                let [column, square] = SumExpr::variance(c);
                let (sum, scale) = schema.expr_lane(&column)?;
                let squares = Some(schema.expr_lane(&square)?.0);
                Self { count: Some(schema.not_null_lane(&column)?), sum: Some(sum), squares, scale }
            }
            Aggregate::Min(c) | Aggregate::Max(c) => {
                schema.index(c)?;
                none
            }
        })
    }

    fn all(&self) -> impl Iterator<Item = LaneId> {
        [self.count, self.sum, self.squares].into_iter().flatten()
    }

    fn value<'a>(
        &self,
        aggregate: &Aggregate,
        sum: &impl Fn(LaneId) -> &'a BigInt,
    ) -> Result<AggregateValue, ClientError> {
        let lane = |l: Option<LaneId>| sum(l.expect("the aggregate reads this lane"));
        let count = lane(self.count);
        if count.sign() == Sign::Minus {
            return Err(ClientError::Unmatched);
        }
        let count = u64::try_from(count).map_err(|_| ClientError::Overflow("a count".to_owned()))?;
        Ok(match aggregate {
            Aggregate::Count | Aggregate::CountColumn(_) => AggregateValue::Count(count),
            _ if count == 0 => AggregateValue::Null,
            Aggregate::Sum(expr) => {
                let unscaled =
                    i128::try_from(lane(self.sum)).map_err(|_| ClientError::Overflow(format!("SUM({expr})")))?;
                AggregateValue::Sum { unscaled, scale: self.scale }
            }
            Aggregate::Avg(_) => AggregateValue::Fraction(Fraction::mean(lane(self.sum), self.scale, count)),
            Aggregate::VarSamp(_) if count == 1 => AggregateValue::Null,
            Aggregate::VarPop(_) | Aggregate::VarSamp(_) => {
                let sample = matches!(aggregate, Aggregate::VarSamp(_));
                let (sum, squares) = (lane(self.sum), lane(self.squares));
                AggregateValue::Fraction(Fraction::variance(sum, squares, self.scale, count, sample))
            }
            Aggregate::Min(_) | Aggregate::Max(_) => unreachable!("read from the column"),
        })
    }
}

impl<T: Transport> Session<T> {
    /// Bytes of headers, fences and edge groups kept for planning.
    #[must_use]
    pub fn plan_cache_bytes(&self) -> usize {
        lock(&self.inner.cache).bytes()
    }
}
