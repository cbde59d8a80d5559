//! Scrub: reads every page and every tree node of every stored segment that is here, and says which are lost.

use crate::engine::{Engine, lock};
use crate::page::pages;
use crate::view::{SegmentSummary, View};
use fluence_types::tree::segment_levels;
use fluence_types::{DatabaseId, SegmentRoot};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Pages read between two reports of progress: 4 MiB.
const STEP: u64 = 256;

/// A page that is lost: it, or a tree node right above it, cannot be read back as it was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LostPage {
    /// The database.
    pub db: DatabaseId,
    /// The segment.
    pub segment: SegmentRoot,
    /// The page, 64 cells each.
    pub page: u64,
}

/// How far a scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubProgress {
    /// Pages read.
    pub pages: u64,
    /// Pages in all.
    pub of: u64,
    /// Lost so far.
    pub lost: u64,
}

impl Engine {
    /// Reads everything that is stored; `progress` is called about every 4 MiB and stops the scrub by returning false. What is lost
    /// is remembered for [`crate::view::DatabaseSummary::lost_pages`]; a scrub that ran to its end also forgets what is whole again.
    pub fn scrub(&self, progress: &mut dyn FnMut(ScrubProgress) -> bool) -> Vec<LostPage> {
        let views: Vec<View<'_>> = self.databases().into_iter().filter_map(|db| self.view(db).ok()).collect();
        let here = |view: &View<'_>, s: &SegmentSummary| view.here(s.root).is_ok();
        let whole = |view: &View<'_>| view.segments().into_iter().filter(|s| here(view, s)).collect::<Vec<_>>();
        let of = views.iter().flat_map(whole).map(|s| pages(s.preimage.cells)).sum();
        let mut found: BTreeSet<LostPage> = BTreeSet::new();
        let mut read = 0;
        for view in &views {
            for segment in whole(view) {
                let count = pages(segment.preimage.cells);
                for from in (0..count).step_by(STEP as usize) {
                    let to = count.min(from + STEP);
                    found.extend(check(view, segment.root, segment.preimage.cells, from..to));
                    read += to - from;
                    if !progress(ScrubProgress { pages: read, of, lost: found.len() as u64 }) {
                        return self.remember(&views, found, false);
                    }
                }
            }
        }
        self.remember(&views, found, true)
    }

    fn remember(&self, views: &[View<'_>], found: BTreeSet<LostPage>, whole: bool) -> Vec<LostPage> {
        // A segment that was collected meanwhile is not lost.
        let stored = |l: &LostPage| self.state(l.db).is_some_and(|now| now.segments.contains_key(&l.segment));
        let found: Vec<LostPage> = found.into_iter().filter(stored).collect();
        let mut lost = lock(&self.lost);
        if whole {
            lost.retain(|(db, ..)| views.iter().all(|v| v.db() != *db));
        }
        lost.extend(found.iter().map(|l| (l.db, l.segment, l.page)));
        found
    }
}

/// Reads pages, the nodes right above them, and the higher nodes whose first page is among them.
fn check(view: &View<'_>, segment: SegmentRoot, cells: u64, range: std::ops::Range<u64>) -> Vec<LostPage> {
    let reader = view.reader(segment, cells);
    let levels = segment_levels(cells);
    let whole = |page: u64| {
        let nodes = |level: usize| {
            let below = 1u64 << (3 * (level - 1));
            !page.is_multiple_of(below) || reader.group(level, page / below).is_ok()
        };
        reader.page(page).is_ok() && (1..levels).all(nodes)
    };
    let lost: Vec<Option<u64>> = range.into_par_iter().map(|page| (!whole(page)).then_some(page)).collect();
    lost.into_iter().flatten().map(|page| LostPage { db: view.db(), segment, page }).collect()
}
