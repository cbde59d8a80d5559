//! From a key range to row positions: by the fences, and by the keys of the groups in which the range ends.
//!
//! Source  DESIGN section 3; `docs/protocol/query.md`

use crate::error::ClientError;
use crate::key::Keys;
use crate::open::{self, ROWS_PER_GROUP, SegmentView};
use crate::plan::{self, Wanted};
use crate::range::{Bounds, KeyRange};
use crate::session::{Meter, Table, lock};
use crate::transport::Transport;
use fluence_types::statement::RowRange;
use fluence_types::tree::CatalogueEntry;
use std::ops::Range;
use std::sync::Arc;

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

impl<T: Transport> Table<T> {
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
}

fn check_group(view: &SegmentView, group: u32, keys: &Keys) -> Result<(), open::OpenError> {
    if !keys.sorted() {
        return Err(open::OpenError::Order { segment: view.root(), group });
    }
    open::check_order(view, &(group..group + 1), keys)
}
