//! Planning: which cells of which live segments a query needs; positions are found by the key holder alone.
//!
//! Cache   headers with decrypted fences by segment root, and the keys of groups in which a range once ended; bounded in bytes, the least
//!         recently used go first. Roots name immutable segments, so nothing in it can be stale.
//! Source  DESIGN section 3

use crate::key::Keys;
use crate::open::SegmentView;
use fluence_types::answer::{CellRange, OpenRequest, SegmentRanges};
use fluence_types::codec::Bounded;
use fluence_types::limits::{OPEN_CELLS_MAX, OPEN_RANGES_MAX};
use fluence_types::tree::CatalogueEntry;
use fluence_types::{DatabaseId, SegmentRoot};
use std::collections::HashMap;
use std::sync::Arc;

/// Default size of the cache.
pub const CACHE_BYTES: usize = 256 << 20;

/// Why a plan cannot be asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// More cells than one answer holds.
    #[error("{0} cells in one request, an answer holds {OPEN_CELLS_MAX}")]
    TooManyCells(u64),
    /// More separate ranges than a request holds.
    #[error("{0} ranges in one segment, a request holds {OPEN_RANGES_MAX}")]
    TooManyRanges(usize),
}

/// Cells wanted of one segment, in any order.
#[derive(Clone, Debug, Default)]
pub struct Wanted(Vec<(u64, u64)>);

impl Wanted {
    /// Adds cells `first..end`.
    pub fn add(&mut self, first: u64, end: u64) {
        if first < end {
            self.0.push((first, end));
        }
    }

    /// Increasing ranges that do not touch.
    #[must_use]
    pub fn ranges(mut self) -> Vec<CellRange> {
        self.0.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(self.0.len());
        for (first, end) in self.0 {
            match out.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(end),
                _ => out.push((first, end)),
            }
        }
        out.into_iter().map(|(first, end)| CellRange { first, count: end - first }).collect()
    }
}

/// The request for what is wanted of each live segment, in catalogue order.
///
/// # Errors
/// [`PlanError`] where it is more than one answer holds.
pub fn request(db: DatabaseId, entry: &CatalogueEntry, wanted: Vec<Wanted>) -> Result<OpenRequest, PlanError> {
    assert_eq!(entry.live.len(), wanted.len(), "one per live segment");
    let mut segments = Vec::with_capacity(wanted.len());
    for (segment, wanted) in entry.live.iter().zip(wanted) {
        let ranges = wanted.ranges();
        let ranges = Bounded::new(ranges).map_err(|e| PlanError::TooManyRanges(e.got))?;
        segments.push(SegmentRanges { segment: *segment, ranges });
    }
    let total: u64 = segments.iter().flat_map(|s| s.ranges.iter()).map(|r| r.count).sum();
    if total > OPEN_CELLS_MAX {
        return Err(PlanError::TooManyCells(total));
    }
    let segments = Bounded::new(segments).expect("as many as are live");
    Ok(OpenRequest { db, projection: entry.projection, version: entry.version, segments })
}

/// What is kept between queries.
#[derive(Debug)]
pub struct PlanCache {
    limit: usize,
    bytes: usize,
    clock: u64,
    views: HashMap<SegmentRoot, Entry<SegmentView>>,
    edges: HashMap<(SegmentRoot, u32), Entry<Keys>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
    used: u64,
}

impl PlanCache {
    /// An empty cache of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, clock: 0, views: HashMap::new(), edges: HashMap::new() }
    }

    /// A segment's view.
    pub fn view(&mut self, root: &SegmentRoot) -> Option<Arc<SegmentView>> {
        self.clock += 1;
        let entry = self.views.get_mut(root)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.value))
    }

    /// The keys of a group.
    pub fn edge(&mut self, root: &SegmentRoot, group: u32) -> Option<Arc<Keys>> {
        self.clock += 1;
        let entry = self.edges.get_mut(&(*root, group))?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.value))
    }

    /// Keeps a view.
    pub fn put_view(&mut self, view: Arc<SegmentView>) {
        let (bytes, key) = (view.memory(), view.root());
        let old = self.views.insert(key, Entry { value: view, bytes, used: self.clock });
        self.bytes = self.bytes + bytes - old.map_or(0, |o| o.bytes);
        self.shrink();
    }

    /// Keeps the keys of a group.
    pub fn put_edge(&mut self, root: SegmentRoot, group: u32, keys: Arc<Keys>) {
        let bytes = keys.memory() + 64;
        let old = self.edges.insert((root, group), Entry { value: keys, bytes, used: self.clock });
        self.bytes = self.bytes + bytes - old.map_or(0, |o| o.bytes);
        self.shrink();
    }

    /// Bytes in use.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    fn shrink(&mut self) {
        while self.bytes > self.limit {
            let view = self.views.iter().min_by_key(|(_, e)| e.used).map(|(k, e)| (e.used, *k));
            let edge = self.edges.iter().min_by_key(|(_, e)| e.used).map(|(k, e)| (e.used, *k));
            let freed = match (view, edge) {
                (Some((v, _)), Some((e, key))) if e <= v => self.edges.remove(&key).map(|e| e.bytes),
                (None, Some((_, key))) => self.edges.remove(&key).map(|e| e.bytes),
                (Some((_, key)), _) => self.views.remove(&key).map(|e| e.bytes),
                (None, None) => return,
            };
            self.bytes -= freed.unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::FieldBytes;

    #[test]
    fn wanted_cells_become_increasing_ranges_that_do_not_touch() {
        let mut wanted = Wanted::default();
        for (a, b) in [(10, 12), (3, 4), (12, 13), (4, 6), (20, 25), (21, 22), (7, 7)] {
            wanted.add(a, b);
        }
        let got: Vec<_> = wanted.ranges().iter().map(|r| (r.first, r.end())).collect();
        assert_eq!(got, [(3, 6), (10, 13), (20, 25)]);
    }

    #[test]
    fn cache_stays_below_its_limit_and_forgets_the_oldest() {
        let root = |n| SegmentRoot::from_field(FieldBytes::from_u64(n));
        let mut cache = PlanCache::new(1000);
        for n in 0..100 {
            cache.put_edge(root(n), 0, Arc::new(Keys::default()));
            assert!(cache.bytes() <= 1000);
            assert!(cache.edge(&root(0), 0).is_some() || n == 0 || cache.bytes() < 64, "the one in use stays");
        }
        assert!(cache.edge(&root(1), 0).is_none());
        assert!(cache.edge(&root(99), 0).is_some());
    }
}
