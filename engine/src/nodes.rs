//! The stored part of a segment tree: digests from the 8-cell nodes up, written as pages arrive, read as openings need them.
//!
//! ```text
//! level 0   cell digests          never stored: an opening hashes the 8 cells of a group again
//! level 1   nodes over 8 cells    8 digests a page, one record
//! level k   nodes over 8^k cells  one record for each 8 siblings, below the root
//! ```
//! Memory  building holds at most 7 digests a level, reading one page or record a thread.
//! Source  DESIGN section 4; the order of siblings is that of `crypto::tree::multi_root`, and a test compares them.

use crate::keys::{self, Cf};
use crate::page::{self, CELL_BYTES, cells_fr};
use crate::store::{Batch, Store};
use fluence_crypto::poseidon2::{compress, compress_many};
use fluence_crypto::tree::{cell_digest, empty, group_digests, parents};
use fluence_crypto::witness::CellOpening;
use fluence_crypto::{Fr, field};
use fluence_types::limits::PAGE_CELLS;
use fluence_types::tree::{Cell, NodeKind, segment_levels};
use fluence_types::{DatabaseId, FieldBytes, SegmentRoot};
use rayon::prelude::*;

/// Parent of up to eight siblings at `level`, those missing at the end being empty.
fn parent(level: usize, children: &[Fr]) -> Fr {
    let mut padded = [empty(level); 8];
    padded[..children.len()].copy_from_slice(children);
    compress(NodeKind::Node, &padded)
}

/// What the tree needs to know of one page.
pub(crate) struct PageDigests {
    /// Digest of the only cell: the root of a tree of one cell. Unused elsewhere.
    first: Fr,
    /// Nodes over 8 cells each.
    level1: Vec<Fr>,
    /// The node over the page.
    level2: Fr,
}

impl PageDigests {
    /// Of pages, whole but for the last. On this thread, best with [`Self::AT_ONCE`] pages.
    pub(crate) fn of(cells: &[[Fr; 8]]) -> Vec<Self> {
        let level1 = group_digests(cells);
        let level2 = parents(1, &level1);
        // Only a tree of one cell ends at a cell digest, so only there is it worth its hash.
        let first = if let [only] = cells { cell_digest(only) } else { level1[0] };
        let pages = level1.chunks(PAGE_CELLS / 8).zip(level2);
        pages.map(|(level1, level2)| Self { first, level1: level1.to_vec(), level2 }).collect()
    }

    /// As many as make eight nodes over a page each, for a hash that takes eight inputs at a time.
    pub(crate) const AT_ONCE: usize = 8;
}

/// Takes the pages of a segment in order, gives out the records to store, and at the end the root.
#[derive(Clone)]
pub(crate) struct TreeBuilder {
    levels: usize,
    pages: u64,
    tiny: Option<Fr>,
    /// For each level from 2: the siblings so far of the group that is being filled, and how many groups are full.
    open: Vec<(Vec<Fr>, u64)>,
}

/// Writes a node record.
pub(crate) struct NodeSink<'a> {
    pub(crate) db: DatabaseId,
    pub(crate) root: SegmentRoot,
    pub(crate) batch: &'a mut Batch,
}

impl NodeSink<'_> {
    fn put(&mut self, level: usize, group: u64, digests: &[Fr]) {
        let key = keys::node(self.db, self.root, level as u8, group);
        let bytes: Vec<u8> = digests.iter().flat_map(|d| field::to_bytes(d).to_bytes()).collect();
        let record = page::seal(&key, &bytes);
        self.batch.put(Cf::Nodes, key, record);
    }
}

impl TreeBuilder {
    pub(crate) fn new(cells: u64) -> Self {
        let levels = segment_levels(cells);
        Self { levels, pages: 0, tiny: None, open: vec![(Vec::new(), 0); (levels + 1).max(3) - 2] }
    }

    /// The builder as it was after `pages` pages, from the records it gave out.
    pub(crate) fn resume(reader: &SegmentReader<'_>, pages: u64) -> Result<Self, Lost> {
        let mut builder = Self::new(reader.cells);
        builder.pages = pages;
        let mut count = pages;
        for level in 2..=builder.levels {
            let full = count / 8;
            let mut siblings = Vec::new();
            for index in 8 * full..count {
                siblings.push(parent(level - 1, &reader.group(level - 1, index)?));
            }
            builder.open[level - 2] = (siblings, full);
            count = full;
        }
        Ok(builder)
    }

    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn push(&mut self, page: &PageDigests, sink: &mut NodeSink<'_>) {
        match self.levels {
            0 => self.tiny = Some(page.first),
            1 => self.tiny = Some(page.level1[0]),
            _ => {
                sink.put(1, self.pages, &page.level1);
                self.add(2, page.level2, sink);
            }
        }
        self.pages += 1;
    }

    fn add(&mut self, level: usize, digest: Fr, sink: &mut NodeSink<'_>) {
        let (siblings, _) = &mut self.open[level - 2];
        siblings.push(digest);
        if level < self.levels && siblings.len() == 8 {
            self.close(level, sink);
        }
    }

    fn close(&mut self, level: usize, sink: &mut NodeSink<'_>) {
        let (siblings, group) = &mut self.open[level - 2];
        let full = std::mem::take(siblings);
        sink.put(level, *group, &full);
        *group += 1;
        self.add(level + 1, parent(level, &full), sink);
    }

    /// The tree's root, once every page was pushed.
    pub(crate) fn finish(mut self, sink: &mut NodeSink<'_>) -> Fr {
        if let Some(root) = self.tiny {
            return root;
        }
        for level in 2..self.levels {
            if !self.open[level - 2].0.is_empty() {
                self.close(level, sink);
            }
        }
        self.open[self.levels - 2].0[0]
    }
}

/// A page, or the nodes above it, cannot be read back as they were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The page; for a node, the first page below it.
    pub page: u64,
}

/// Reads one stored segment. Every byte it returns passed its checksum.
#[derive(Clone, Copy)]
pub(crate) struct SegmentReader<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) db: DatabaseId,
    pub(crate) root: SegmentRoot,
    pub(crate) cells: u64,
}

/// Cells of a multi-opening with the siblings a verifier cannot compute.
pub(crate) struct MultiOpening {
    pub(crate) cells: Vec<Cell>,
    pub(crate) siblings: Vec<FieldBytes>,
}

impl SegmentReader<'_> {
    /// Bytes of a page's cells.
    pub(crate) fn page(&self, page: u64) -> Result<Vec<u8>, Lost> {
        let key = keys::page(self.db, self.root, page);
        let len = page::cells_in_page(self.cells, page) * CELL_BYTES;
        // A read error is the store's own checksum failing: as lost as ours.
        let record = self.store.get(Cf::Pages, &key).ok().flatten();
        record.and_then(|record| page::unseal(&key, record, len)).ok_or(Lost { page })
    }

    /// Bytes of the cells `first..first + count`, read page by page.
    pub(crate) fn cells(&self, first: u64, count: u64) -> Result<Vec<u8>, Lost> {
        let mut bytes = Vec::with_capacity(count as usize * CELL_BYTES);
        let (mut next, end) = (first, first + count);
        while next < end {
            let (page, offset) = (next / PAGE_CELLS as u64, next % PAGE_CELLS as u64);
            let take = (PAGE_CELLS as u64 - offset).min(end - next);
            let from = offset as usize * CELL_BYTES;
            let part = self.page(page)?;
            bytes.extend_from_slice(part.get(from..from + take as usize * CELL_BYTES).ok_or(Lost { page })?);
            next += take;
        }
        Ok(bytes)
    }

    /// Nodes at `level`: as many as there are with a cell below them.
    fn count(&self, level: usize) -> u64 {
        self.cells.div_ceil(1 << (3 * level))
    }

    /// The stored siblings `8 * group ..` at `level`, at most eight.
    pub(crate) fn group(&self, level: usize, group: u64) -> Result<Vec<Fr>, Lost> {
        let lost = Lost { page: group << (3 * (level - 1)) };
        let key = keys::node(self.db, self.root, level as u8, group);
        let len = 8.min(self.count(level).saturating_sub(8 * group)) as usize * 32;
        let record = self.store.get(Cf::Nodes, &key).ok().flatten();
        let bytes = record.and_then(|record| page::unseal(&key, record, len)).ok_or(lost)?;
        let digest = |raw: &[u8; 32]| FieldBytes::from_canonical(*raw).map(|f| field::from_bytes(&f)).map_err(|_| lost);
        bytes.as_chunks::<32>().0.iter().map(digest).collect()
    }

    /// One cell with its path.
    pub(crate) fn open(&self, index: u64) -> Result<CellOpening, Lost> {
        let page = index / PAGE_CELLS as u64;
        let lost = Lost { page };
        let cells = cells_fr(&self.page(page)?).map_err(|_| lost)?;
        let at = (index % PAGE_CELLS as u64) as usize;
        let mut siblings = Vec::new();
        for level in 0..segment_levels(self.cells) {
            let place = index >> (3 * level);
            let mut group = [empty(level); 8];
            if level == 0 {
                let from = at - at % 8;
                let digests = compress_many(NodeKind::Cell, &cells[from..cells.len().min(from + 8)]);
                group[..digests.len()].copy_from_slice(&digests);
            } else {
                let stored = self.group(level, place / 8)?;
                group[..stored.len()].copy_from_slice(&stored);
            }
            let own = (place % 8) as usize;
            siblings.push(std::array::from_fn(|i| group[if i < own { i } else { i + 1 }]));
        }
        Ok(CellOpening { index, cell: *cells.get(at).ok_or(lost)?, siblings })
    }

    /// Cells at `indices` (increasing) with the siblings that a verifier needs, in its order.
    pub(crate) fn multi_open(&self, indices: &[u64]) -> Result<MultiOpening, Lost> {
        let plan = sibling_plan(self.cells, indices);
        let by_page: Vec<&[u64]> = indices.chunk_by(|a, b| a / PAGE_CELLS as u64 == b / PAGE_CELLS as u64).collect();
        let parts: Vec<&[&[u64]]> = by_page.chunks(FEW).collect();
        let pages = each(&parts, 1, |pages| self.open_in_pages(pages))?;
        let mut cells = Vec::with_capacity(indices.len());
        let mut siblings = Vec::with_capacity(plan.iter().map(Vec::len).sum());
        for (opened, digests) in pages {
            cells.extend(opened);
            siblings.extend(digests.iter().map(field::to_bytes));
        }
        for (level, wanted) in plan.iter().enumerate().skip(1) {
            let groups: Vec<&[u64]> = wanted.chunk_by(|a, b| a / 8 == b / 8).collect();
            let digests = each(&groups, FEW, |group| {
                let stored = self.group(level, group[0] / 8)?;
                Ok(group.iter().map(|i| field::to_bytes(&stored[(i % 8) as usize])).collect::<Vec<_>>())
            })?;
            siblings.extend(digests.into_iter().flatten());
        }
        Ok(MultiOpening { cells, siblings })
    }

    /// The wanted cells of some pages, and the digests of those beside them in their groups, hashed together.
    fn open_in_pages(&self, pages: &[&[u64]]) -> Result<(Vec<Cell>, Vec<Fr>), Lost> {
        let (mut cells, mut beside) = (Vec::new(), Vec::new());
        for wanted in pages {
            self.read_in_page(wanted, &mut cells, &mut beside)?;
        }
        Ok((cells, compress_many(NodeKind::Cell, &beside)))
    }

    /// Adds the wanted cells of one page, and those beside them in their groups.
    fn read_in_page(&self, wanted: &[u64], cells: &mut Vec<Cell>, beside: &mut Vec<[Fr; 8]>) -> Result<(), Lost> {
        let page = wanted[0] / PAGE_CELLS as u64;
        let lost = Lost { page };
        let bytes = self.page(page)?;
        let at = |index: u64| (index % PAGE_CELLS as u64) as usize;
        let read = |i: usize| bytes.get(i * CELL_BYTES..(i + 1) * CELL_BYTES).and_then(page::cell).ok_or(lost);
        for index in wanted {
            cells.push(read(at(*index))?);
        }
        for group in wanted.chunk_by(|a, b| a / 8 == b / 8) {
            let first = group[0] - group[0] % 8;
            for index in (first..(first + 8).min(self.cells)).filter(|i| !group.contains(i)) {
                beside.push(field::cell_to_fr(&read(at(index))?));
            }
        }
        Ok(())
    }
}

/// Pages or records that one thread reads: to hand fewer to others costs more than it saves.
const FEW: usize = 8;

/// Does something with each item: on this thread up to `alone` items, on all threads above.
fn each<T: Sync, R: Send>(
    items: &[T],
    alone: usize,
    one: impl Fn(&T) -> Result<R, Lost> + Sync + Send,
) -> Result<Vec<R>, Lost> {
    if items.len() <= alone { items.iter().map(one).collect() } else { items.par_iter().map(one).collect() }
}

/// Which nodes of each level a verifier of `indices` (increasing) cannot compute, from level 0 up, left to right.
pub(crate) fn sibling_plan(cells: u64, indices: &[u64]) -> Vec<Vec<u64>> {
    let mut known = indices.to_vec();
    let mut count = cells;
    let mut plan = Vec::new();
    for _ in 0..segment_levels(cells) {
        let mut wanted = Vec::new();
        for group in known.chunk_by(|a, b| a / 8 == b / 8) {
            let first = group[0] - group[0] % 8;
            wanted.extend((first..(first + 8).min(count)).filter(|i| !group.contains(i)));
        }
        plan.push(wanted);
        known.iter_mut().for_each(|i| *i /= 8);
        known.dedup();
        count = count.div_ceil(8);
    }
    plan
}
