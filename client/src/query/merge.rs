//! Rows of live segments, merged in key order, their weights added.
//!
//! Rule    a row and what retracts it have one key, so both lie on the same side of a frontier: weights are added only where all rows of a
//!         key have been read, whatever portions they came in.
//! Source  DESIGN section 3; `docs/protocol/query.md`

use super::Direction;
use super::groups::{Frontier, Portion};
use crate::error::ClientError;
use crate::key::Keys;
use crate::open::{self, SegmentView};
use crate::range::Bounds;
use crate::schema::SchemaError;
use crate::seal::TableKeys;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_select::interleave::interleave_record_batch;
use arrow_select::take::take_record_batch;
use fluence_verifier::answer::VerifiedAnswer;
use std::ops::Range;
use std::sync::Arc;

/// What a scan reads, the same for all of its portions.
pub(super) struct Reading {
    pub(super) keys: TableKeys,
    pub(super) views: Vec<Arc<SegmentView>>,
    /// Columns read: those of the key first. So the bytes of a whole row begin with its key.
    pub(super) read: Vec<usize>,
    pub(super) key_columns: usize,
    /// Where among them those are that were asked for.
    pub(super) places: Vec<usize>,
    pub(super) bounds: Bounds,
    pub(super) direction: Direction,
    /// Whether the segments are all that were live at one version: then a retraction must have its row.
    pub(super) whole: bool,
}

/// Rows that were read and not merged yet.
#[derive(Default)]
pub(super) struct Pending(Vec<Run>);

/// Rows of consecutive groups of one segment, in key order. Those of equal keys need not be in order of their other columns.
struct Run {
    batch: RecordBatch,
    /// The columns read, so key first.
    full: Keys,
    weights: Vec<i8>,
    /// Rows still to merge.
    rows: Range<usize>,
}

/// What became certain.
#[derive(Default)]
pub(super) struct Merged {
    /// Rows with what is left of their weights, in the scan's order.
    pub(super) batch: Option<(RecordBatch, Vec<i8>)>,
    /// Rows that were looked at for it, retractions and what they cancel among them.
    pub(super) rows_seen: u64,
}

impl Reading {
    /// Opens a portion's groups and merges what is certain by then, at most `limit` rows.
    pub(super) fn take(
        &self,
        answer: &VerifiedAnswer,
        portion: &Portion,
        pending: &mut Pending,
        limit: Option<u64>,
    ) -> Result<Merged, ClientError> {
        for (view, groups) in self.views.iter().zip(&portion.groups) {
            if !groups.is_empty() {
                pending.0.push(self.open(answer, view, groups)?);
            }
        }
        self.merge(pending, &portion.frontier, limit)
    }

    fn open(&self, answer: &VerifiedAnswer, view: &SegmentView, groups: &Range<u32>) -> Result<Run, ClientError> {
        let rows = open::blocks(&self.keys, answer, view, &self.read, groups)?;
        let columns: Vec<ArrayRef> = rows.batch.columns().to_vec();
        let full = Keys::of(&columns);
        let own_keys = Keys::of(&columns[..self.key_columns]);
        if !own_keys.sorted() {
            return Err(open::OpenError::Order { segment: view.root(), group: groups.start }.into());
        }
        open::check_order(view, groups, &own_keys)?;
        let at = |bound: &Option<Vec<u8>>| bound.as_ref().map_or(own_keys.len(), |b| own_keys.below(b));
        let lo = at(&self.bounds.lower);
        let hi = at(&self.bounds.upper).max(lo);
        Ok(Run { batch: rows.batch, full, weights: rows.weights, rows: lo..hi })
    }

    /// Takes the rows within the frontier, adds the weights of equal ones, and gives what is left.
    fn merge(&self, pending: &mut Pending, frontier: &Frontier, limit: Option<u64>) -> Result<Merged, ClientError> {
        let runs = &mut pending.0;
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for (source, run) in runs.iter().enumerate() {
            taken.extend(run.within(frontier, self.direction).map(|row| (source, row)));
        }
        let key = |(s, row): &(usize, usize)| runs[*s].full.get(*row);
        match self.direction {
            Direction::Forwards => taken.sort_by(|a, b| key(a).cmp(key(b))),
            Direction::Backwards => taken.sort_by(|a, b| key(b).cmp(key(a))),
        }
        let (mut out, mut weights) = (Vec::with_capacity(taken.len()), Vec::with_capacity(taken.len()));
        let room = limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
        for equal in taken.chunk_by(|a, b| key(a) == key(b)) {
            if out.len() == room {
                break;
            }
            let net: i64 = equal.iter().map(|(s, row)| i64::from(runs[*s].weights[*row])).sum();
            if net < 0 && self.whole {
                return Err(ClientError::Unmatched);
            }
            let copies = usize::try_from(net.unsigned_abs()).unwrap_or(usize::MAX).min(room - out.len());
            out.extend(std::iter::repeat_n(equal[0], copies));
            weights.extend(std::iter::repeat_n(net.signum() as i8, copies));
        }
        let batch = match out.as_slice() {
            [] => None,
            out => Some((self.gather(runs, out)?, weights)),
        };
        let rows_seen = taken.len() as u64;
        for run in &mut *runs {
            let within = run.within(frontier, self.direction);
            match self.direction {
                Direction::Forwards => run.rows.start = within.end,
                Direction::Backwards => run.rows.end = within.start,
            }
        }
        runs.retain(|run| !run.rows.is_empty());
        runs.iter_mut().try_for_each(Run::shrink)?;
        Ok(Merged { batch, rows_seen })
    }

    fn gather(&self, runs: &[Run], rows: &[(usize, usize)]) -> Result<RecordBatch, ClientError> {
        if self.places.is_empty() {
            return Err(ClientError::Schema(SchemaError::NoColumn(String::new())));
        }
        let projected = runs.iter().map(|run| run.batch.project(&self.places)).collect::<Result<Vec<_>, _>>();
        let projected = projected.map_err(open::OpenError::Gather)?;
        let all: Vec<&RecordBatch> = projected.iter().collect();
        Ok(interleave_record_batch(&all, rows).map_err(open::OpenError::Gather)?)
    }
}

impl Run {
    /// Lets go of rows that were merged, where few are left of many.
    fn shrink(&mut self) -> Result<(), ClientError> {
        if self.rows.len() * 4 > self.weights.len() {
            return Ok(());
        }
        let rows = self.rows.start as u32..self.rows.end as u32;
        let left = UInt32Array::from_iter_values(rows);
        self.batch = take_record_batch(&self.batch, &left).map_err(open::OpenError::Gather)?;
        self.full = self.full.slice(self.rows.clone());
        self.weights = self.weights[self.rows.clone()].to_vec();
        self.rows = 0..self.rows.len();
        Ok(())
    }

    /// The rows to merge that are within a frontier.
    fn within(&self, frontier: &Frontier, direction: Direction) -> Range<usize> {
        match (frontier, direction) {
            (Frontier::End, _) => self.rows.clone(),
            (Frontier::Nowhere, Direction::Forwards) => self.rows.start..self.rows.start,
            (Frontier::Nowhere, Direction::Backwards) => self.rows.end..self.rows.end,
            (Frontier::At(key), Direction::Forwards) => self.rows.start..self.below(key),
            (Frontier::At(key), Direction::Backwards) => self.below(key)..self.rows.end,
        }
    }

    /// The first row to merge whose bytes are not below those of a key. A whole row's begin with its own key, so they tell on which side it
    /// lies.
    fn below(&self, key: &[u8]) -> usize {
        let (mut lo, mut hi) = (self.rows.start, self.rows.end);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.full.get(mid) < key { lo = mid + 1 } else { hi = mid }
        }
        lo
    }
}
