//! Scans: the rows of live segments, merged in key order, their weights added.
//!
//! Source  DESIGN section 3; `docs/protocol/query.md`

use super::{Evidence, evidence, still_moving};
use crate::ask::moved;
use crate::error::ClientError;
use crate::key::Keys;
use crate::open::{self, ROWS_PER_GROUP, SegmentView};
use crate::plan::{self, Wanted};
use crate::range::{Bounds, KeyRange};
use crate::schema::SchemaError;
use crate::session::{ATTEMPTS, Meter, Table, offload};
use crate::transport::Transport;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_select::interleave::interleave_record_batch;
use fluence_types::limits::OPEN_CELLS_MAX;
use fluence_types::op::OpRefusal;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{LaneId, SegmentRoot};
use fluence_verifier::answer::VerifiedAnswer;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Cells asked in one request of a scan: 4 MiB.
const SCAN_CELLS: u64 = 1 << 14;

/// Times that cells are asked anew because the projection moved: a busy one does, between asking its entry and its cells.
const MOVES: usize = 4 * ATTEMPTS;

/// Rows of a scan, in key order, retractions cancelled.
pub(crate) struct Scanned {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: u64,
    pub(crate) entry: CatalogueEntry,
    pub(crate) evidence: Evidence,
}

impl<T: Transport> Table<T> {
    /// [`Self::try_scan`], again where the projection changed in between.
    pub(crate) async fn scan(
        &self,
        columns: &[usize],
        range: &KeyRange,
        limit: Option<u64>,
    ) -> Result<Scanned, ClientError> {
        self.session.freshen(&self.handle).await?;
        for attempt in 1.. {
            match self.try_scan(columns, range, limit).await {
                Err(error) if moved(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other.map_err(|e| still_moving(e, &self.handle)),
            }
        }
        unreachable!("the loop returns")
    }

    /// The rows of a range in key order, all from one version.
    pub(crate) async fn try_scan(
        &self,
        columns: &[usize],
        range: &KeyRange,
        limit: Option<u64>,
    ) -> Result<Scanned, ClientError> {
        let start = Instant::now();
        let schema = self.schema();
        let bounds = range.bounds(schema)?;
        let (read, key_columns, places) = self.read_columns(columns);
        let mut meter = Meter::default();
        let entry = self.session.entry(&self.handle).await?;
        let views = self.session.views(&self.handle, &entry.live, &mut meter).await?;
        let mut cursors: Vec<Cursor> = views.iter().map(|v| Cursor::new(v.candidates(&bounds))).collect();
        let mut batches = Vec::new();
        let (mut emitted, mut rows) = (0u64, 0u64);
        let answer = loop {
            let wanted = self.next_cells(&views, &mut cursors, &read, limit.map(|l| l - emitted))?;
            let request = plan::request(self.db(), &entry, wanted)?;
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
            let merged = merge(&mut cursors, &places, limit.map(|l| l - emitted), true)?;
            rows += merged.rows_seen;
            if let Some((batch, _)) = merged.batch {
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

    /// The columns to read, how many of them are the key's, and where among them those asked for are. Key columns come first: then the
    /// bytes of a whole row begin with its key.
    pub(super) fn read_columns(&self, columns: &[usize]) -> (Vec<usize>, usize, Vec<usize>) {
        let keys = self.schema().key_indices();
        let mut read: Vec<usize> = Vec::with_capacity(keys.len() + columns.len());
        for column in keys.iter().chain(columns) {
            if !read.contains(column) {
                read.push(*column);
            }
        }
        let place = |c: &usize| read.iter().position(|r| r == c).expect("every column is read");
        let places = columns.iter().map(place).collect();
        (read, keys.len(), places)
    }

    /// All rows of some live segments with what is left of their weights: what one retracts may lie in another that is not read. The
    /// projection may change meanwhile, as long as these segments stay live.
    pub(crate) async fn scan_segments(
        &self,
        segments: &[SegmentRoot],
    ) -> Result<Vec<(RecordBatch, Vec<i8>)>, ClientError> {
        let columns: Vec<usize> = (0..self.schema().columns().len()).collect();
        let (read, key_columns, places) = self.read_columns(&columns);
        let bounds = KeyRange::ALL.bounds(self.schema())?;
        let views = self.session.views(&self.handle, segments, &mut Meter::default()).await?;
        let mut cursors: Vec<Cursor> = views.iter().map(|v| Cursor::new(v.candidates(&bounds))).collect();
        let mut rows = Vec::new();
        while !cursors.iter().all(Cursor::done) {
            let wanted = self.next_cells(&views, &mut cursors, &read, None)?;
            let answer = self.open_of(segments, &wanted).await?;
            let job = Round {
                keys: self.handle.keys.clone(),
                views: views.clone(),
                read: read.clone(),
                key_columns,
                bounds: bounds.clone(),
            };
            cursors = offload(move || job.open(&answer, cursors)).await?;
            rows.extend(merge(&mut cursors, &places, None, false)?.batch);
        }
        Ok(rows)
    }

    /// Opens cells of some live segments, at whatever version the projection is.
    pub(super) async fn open_of(
        &self,
        segments: &[SegmentRoot],
        wanted: &[Wanted],
    ) -> Result<VerifiedAnswer, ClientError> {
        for attempt in 1.. {
            let entry = self.session.entry(&self.handle).await?;
            if let Some(gone) = segments.iter().find(|s| !entry.live.contains(s)) {
                return Err(ClientError::Op(OpRefusal::NotLive(*gone)));
            }
            let of = |root: &SegmentRoot| segments.iter().position(|s| s == root).map(|at| wanted[at].clone());
            let all = entry.live.iter().map(|root| of(root).unwrap_or_default()).collect();
            match self.session.open(&plan::request(self.db(), &entry, all)?).await {
                Err(error) if moved(&error) && attempt < MOVES => self.session.forget_entry(&self.handle),
                other => return other.map(|(answer, _)| answer).map_err(|e| still_moving(e, &self.handle)),
            }
        }
        unreachable!("the loop returns")
    }

    /// The next cells to read of each segment: of those that hold the merge up, as many groups as one request should carry.
    pub(super) fn next_cells(
        &self,
        views: &[Arc<SegmentView>],
        cursors: &mut [Cursor],
        read: &[usize],
        limit: Option<u64>,
    ) -> Result<Vec<Wanted>, ClientError> {
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
        Ok(wanted)
    }
}

/// Where a scan stands in one segment.
pub(super) struct Cursor {
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
    pub(super) const fn new(groups: Range<u32>) -> Self {
        Self { asked: 0..0, last_key: None, pending: Vec::new(), groups }
    }
    pub(super) fn done(&self) -> bool {
        self.groups.is_empty() && self.pending.iter().all(|p| p.rows.is_empty())
    }
}

/// The least last key among the segments that have groups left: below it, every row has been read.
fn frontier(cursors: &[Cursor]) -> Option<Vec<u8>> {
    cursors.iter().filter(|c| !c.groups.is_empty()).filter_map(|c| c.last_key.as_ref()).min().cloned()
}

/// Opens the groups of a round.
pub(super) struct Round {
    pub(super) keys: crate::seal::TableKeys,
    pub(super) views: Vec<Arc<SegmentView>>,
    pub(super) read: Vec<usize>,
    pub(super) key_columns: usize,
    pub(super) bounds: Bounds,
}

impl Round {
    pub(super) fn open(&self, answer: &VerifiedAnswer, mut cursors: Vec<Cursor>) -> Result<Vec<Cursor>, ClientError> {
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

pub(super) struct Merged {
    pub(super) batch: Option<(RecordBatch, Vec<i8>)>,
    rows_seen: u64,
}

/// Takes all rows below the frontier, adds the weights of equal rows, and gives what is left in key order. Where the segments are `whole`,
/// a retraction must have its row.
pub(super) fn merge(
    cursors: &mut [Cursor],
    places: &[usize],
    limit: Option<u64>,
    whole: bool,
) -> Result<Merged, ClientError> {
    if cursors.iter().any(|c| !c.groups.is_empty() && c.last_key.is_none()) {
        // A segment of which nothing was read yet may begin with any key.
        return Ok(Merged { batch: None, rows_seen: 0 });
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
    let mut weights: Vec<i8> = Vec::with_capacity(taken.len());
    let room = limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
    for equal in taken.chunk_by(|a, b| key(a) == key(b)) {
        let net: i64 = equal.iter().map(|(s, row)| i64::from(sources[*s].weights[*row])).sum();
        if net < 0 && whole {
            return Err(ClientError::Unmatched);
        }
        let copies = usize::try_from(net.unsigned_abs()).unwrap_or(usize::MAX).min(room - out.len());
        out.extend(std::iter::repeat_n(equal[0], copies));
        weights.extend(std::iter::repeat_n(net.signum() as i8, copies));
        if out.len() == room {
            break;
        }
    }
    let rows_seen = taken.len() as u64;
    let mut batch = None;
    if !out.is_empty() {
        let projected = sources.iter().map(|p| p.batch.project(places)).collect::<Result<Vec<_>, _>>();
        let projected = projected.map_err(open::OpenError::Gather)?;
        let all: Vec<&RecordBatch> = projected.iter().collect();
        if places.is_empty() {
            return Err(ClientError::Schema(SchemaError::NoColumn(String::new())));
        }
        batch = Some((interleave_record_batch(&all, &out).map_err(open::OpenError::Gather)?, weights));
    }
    for (cursor, starts) in cursors.iter_mut().zip(left) {
        for (pending, start) in cursor.pending.iter_mut().zip(starts) {
            pending.rows.start = start;
        }
        cursor.pending.retain(|p| !p.rows.is_empty());
    }
    Ok(Merged { batch, rows_seen })
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
