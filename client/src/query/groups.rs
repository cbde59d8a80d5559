//! Which row groups a scan reads next: those nearest to where it stands, in every live segment.
//!
//! Fences    the first key of a group is known before the group is read, and tells to where all rows have been read. So the next portion is
//!           planned, and asked for, while the last one is still decoded.
//! Frontier  forwards, rows below the least fence of a group that is still to be read; backwards, rows above every fence that such a group
//!           ends at. Rows of equal keys may stand on both sides of a fence, so its own key is never within.
//! Memory    groups are taken in the order of their fences: beyond the frontier stands at most one group of a segment, and the rows of one key.
//! Source    DESIGN section 3; `docs/protocol/query.md`

use super::Direction;
use crate::key::successor;
use crate::open::{ROWS_PER_GROUP, SegmentView};
use crate::plan::{PlanError, Wanted};
use crate::range::Bounds;
use fluence_types::LaneId;
use fluence_types::limits::OPEN_CELLS_MAX;
use std::ops::Range;
use std::sync::Arc;

/// To where all rows have been read, as bytes of whole rows: those begin with their key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Frontier {
    /// No row is certain.
    Nowhere,
    /// Forwards the rows below, backwards those that are not.
    At(Vec<u8>),
    /// All of the range has been read.
    End,
}

/// Groups that are asked for at once.
pub(super) struct Portion {
    /// Of each segment, in catalogue order.
    pub(super) groups: Vec<Range<u32>>,
    /// Their cells.
    pub(super) wanted: Vec<Wanted>,
    /// To where all rows have been read once these are.
    pub(super) frontier: Frontier,
    /// About how many rows become certain by it, retractions counted as rows.
    pub(super) sure: u64,
}

/// The groups of a range that were not asked for yet.
pub(super) struct Groups {
    views: Vec<Arc<SegmentView>>,
    lanes: Vec<LaneId>,
    direction: Direction,
    left: Vec<Range<u32>>,
    /// Groups that lie in the range with all their rows, as far as fences tell.
    whole: Vec<Range<u32>>,
    /// Groups whose rows are not known to be certain yet: from here on, or up to here.
    unsure: Vec<u32>,
    /// Rows that the portions so far made certain.
    sure: u64,
}

impl Groups {
    pub(super) fn new(views: Vec<Arc<SegmentView>>, lanes: Vec<LaneId>, bounds: &Bounds, direction: Direction) -> Self {
        let left: Vec<Range<u32>> = views.iter().map(|v| v.candidates(bounds)).collect();
        let whole = views.iter().zip(&left).map(|(view, left)| {
            let cut = |lower: &Vec<u8>| !left.is_empty() && view.fence(left.start) < lower.as_slice();
            let start = left.start + u32::from(bounds.lower.as_ref().is_some_and(cut));
            start..left.end.saturating_sub(u32::from(bounds.upper.is_some())).max(start)
        });
        let unsure = left.iter().map(|l| if direction == Direction::Forwards { l.start } else { l.end }).collect();
        Self { whole: whole.collect(), unsure, sure: 0, views, lanes, direction, left }
    }

    /// Whether all were asked for.
    pub(super) fn is_done(&self) -> bool {
        self.left.iter().all(Range::is_empty)
    }

    /// The key that the rows not asked for begin with, or end with; `None` where it is not known, because they reach to the segment's end.
    fn edge(&self, segment: usize) -> Option<&[u8]> {
        let (view, left) = (&self.views[segment], &self.left[segment]);
        match self.direction {
            Direction::Forwards => Some(view.fence(left.start)),
            Direction::Backwards => (left.end < view.groups()).then(|| view.fence(left.end)),
        }
    }

    fn unread(&self) -> impl Iterator<Item = usize> {
        (0..self.left.len()).filter(|s| !self.left[*s].is_empty())
    }

    /// The segment whose next group holds the nearest rows.
    fn nearest(&self) -> Option<usize> {
        match self.direction {
            Direction::Forwards => self.unread().min_by_key(|s| self.edge(*s)),
            // What reaches to an end that is not known comes first.
            Direction::Backwards => self.unread().min_by_key(|s| self.edge(*s).map(std::cmp::Reverse)),
        }
    }

    fn frontier(&self) -> Frontier {
        let Some(nearest) = self.nearest() else { return Frontier::End };
        let edge = self.edge(nearest).map(<[u8]>::to_vec);
        let at = match self.direction {
            Direction::Forwards => edge,
            Direction::Backwards => edge.and_then(successor),
        };
        at.map_or(Frontier::Nowhere, Frontier::At)
    }

    /// Rows of groups that were asked for and have become certain since this was asked last.
    fn settle(&mut self) -> u64 {
        let nearest = self.nearest();
        let edge = nearest.map(|s| self.edge(s).map(<[u8]>::to_vec));
        let mut rows = 0;
        for s in 0..self.left.len() {
            let (view, left) = (&self.views[s], &self.left[s]);
            loop {
                let group = match self.direction {
                    Direction::Forwards if self.unsure[s] < left.start => self.unsure[s],
                    Direction::Backwards if self.unsure[s] > left.end => self.unsure[s] - 1,
                    _ => break,
                };
                let within = match (&edge, self.direction) {
                    (None, _) => true,
                    (Some(None), _) => false,
                    (Some(Some(edge)), Direction::Forwards) => {
                        group + 1 < view.groups() && view.fence(group + 1) <= edge.as_slice()
                    }
                    (Some(Some(edge)), Direction::Backwards) => view.fence(group) >= edge.as_slice(),
                };
                if !within {
                    break;
                }
                if self.whole[s].contains(&group) {
                    rows += ROWS_PER_GROUP.min(view.header().rows - u64::from(group) * ROWS_PER_GROUP);
                }
                self.unsure[s] = if self.direction == Direction::Forwards { group + 1 } else { group };
            }
        }
        rows
    }

    /// How many rows more must be certain for `limit` of them, of which some were given out, and so many are to come of groups that were asked
    /// for. Where retractions have cancelled rows, twice as many as those.
    pub(super) fn need(&self, limit: u64, given: u64, under_way: u64) -> u64 {
        let cancelled = self.sure.saturating_sub(under_way + given);
        match limit.saturating_sub(given + under_way) {
            0 => 0,
            need => need + 2 * cancelled,
        }
    }

    /// The next groups: at least one, then as many as `cells` hold, and no more than it takes to be sure of `need` rows. None where none
    /// is left, or needed.
    pub(super) fn next(&mut self, cells: u64, need: Option<u64>) -> Result<Option<Portion>, PlanError> {
        let before = self.left.clone();
        let mut wanted = vec![Wanted::default(); self.views.len()];
        let (mut total, mut sure) = (0u64, 0);
        while let Some(s) = self.nearest().filter(|_| need.is_none_or(|n| sure < n)) {
            let left = &self.left[s];
            let group = if self.direction == Direction::Forwards { left.start } else { left.end - 1 };
            let blocks = self.lanes.iter().map(|l| self.views[s].block_cells(*l, &(group..group + 1)));
            let blocks: Vec<Range<u64>> = blocks.map(|b| b.expect("every group has every block")).collect();
            let own: u64 = blocks.iter().map(|b| b.end - b.start).sum();
            if own > OPEN_CELLS_MAX {
                return Err(PlanError::TooManyCells(own));
            }
            if total > 0 && total + own > cells.min(OPEN_CELLS_MAX) {
                break;
            }
            total += own;
            blocks.into_iter().for_each(|b| wanted[s].add(b.start, b.end));
            match self.direction {
                Direction::Forwards => self.left[s].start += 1,
                Direction::Backwards => self.left[s].end -= 1,
            }
            sure += self.settle();
        }
        if total == 0 {
            return Ok(None);
        }
        self.sure += sure;
        let groups = before.iter().zip(&self.left).map(|(before, left)| match self.direction {
            Direction::Forwards => before.start..left.start,
            Direction::Backwards => left.end..before.end,
        });
        Ok(Some(Portion { groups: groups.collect(), wanted, frontier: self.frontier(), sure }))
    }
}
