//! Reading: a database at one height, opened to what a key holder or a prover asks for.
//!
//! Rule    an answer is whole and checked against its checksums, or it is a refusal that names what is wrong; never wrong bytes.
//!         A node evaluates no predicate: it opens the cells it is asked for.

use crate::engine::{Engine, lock};
use crate::nodes::{Lost, SegmentReader, sibling_plan};
use crate::page::{CELL_BYTES, cell, pages};
use crate::state::{DbState, StoredSegment, schema};
use fluence_types::answer::{CellRange, HeaderAnswer, OpenRefusal, OpenRequest, SegmentOpening};
use fluence_types::block::{Checkpoint, Member, Members, ends_epoch};
use fluence_types::limits::{ANSWER_BYTES_MAX, OPEN_CELLS_MAX};
use fluence_types::op::{ClusterChange, Lease};
use fluence_types::segment::{PublicSchema, SegmentHeader};
use fluence_types::tree::{CatalogueOpening, Cell, DbPreimage, SegmentPreimage};
use fluence_types::{Address, DatabaseId, OpId, ProjectionId, SegmentId, SegmentRoot, TableId};
use std::sync::Arc;

/// A database as it was when the view was taken.
pub struct View<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) state: Arc<DbState>,
}

/// Where a writer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterState {
    /// May write now.
    pub allowed: bool,
    /// Sequence number of its next operation.
    pub next_sequence: u64,
    /// Its last operation that was done; all 0 if none.
    pub previous: OpId,
}

/// A database in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseSummary {
    /// Last block and root.
    pub checkpoint: Checkpoint,
    /// Its owner.
    pub owner: Address,
    /// Its cluster.
    pub members: Members,
    /// Projections.
    pub projections: u32,
    /// Segments stored: live, and superseded but not yet collected.
    pub segments: u64,
    /// Cells of all of them.
    pub stored_cells: u64,
    /// Pages found lost by reads and the last scrub.
    pub lost_pages: u64,
}

/// A stored segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    /// Its root.
    pub root: SegmentRoot,
    /// Parts of its root.
    pub preimage: SegmentPreimage,
    /// Its id.
    pub id: SegmentId,
    /// Its rows.
    pub rows: u64,
    /// Its projection.
    pub projection: ProjectionId,
    /// Whether it is in the catalogue; else it waits to be collected.
    pub live: bool,
}

impl View<'_> {
    /// The block and root this view is at.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.state.checkpoint()
    }

    /// Parts of the root.
    #[must_use]
    pub fn preimage(&self) -> DbPreimage {
        self.state.preimage
    }

    /// The cluster.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.state.head.members
    }

    /// The committee of the next epoch, as it stands.
    #[must_use]
    pub fn next_members(&self) -> &Members {
        &self.state.head.cluster.next
    }

    /// What the owner asked of the cluster and has not come true.
    #[must_use]
    pub fn wish(&self) -> Option<&ClusterChange> {
        self.state.head.cluster.wish.as_ref()
    }

    /// The nodes that wait for a seat, in order of preference.
    #[must_use]
    pub fn standby(&self) -> &[Member] {
        &self.state.head.cluster.standby
    }

    /// Whether a seat change may be ordered in the next block.
    #[must_use]
    pub fn seats_open(&self) -> bool {
        let head = &self.state.head;
        let next = fluence_types::Height(head.height.0 + 1);
        crate::cluster::seats_open(next)
            && (ends_epoch(head.height) || head.cluster.changed < crate::cluster::changes_max(head.members.len()))
    }

    /// The owner.
    #[must_use]
    pub fn owner(&self) -> Address {
        self.state.head.owner
    }

    /// The database in numbers.
    #[must_use]
    pub fn summary(&self) -> DatabaseSummary {
        let db = self.db();
        DatabaseSummary {
            checkpoint: self.checkpoint(),
            owner: self.owner(),
            members: self.state.head.members.clone(),
            projections: self.state.projections.len() as u32,
            segments: self.state.segments.len() as u64,
            stored_cells: self.state.stored_cells(),
            lost_pages: lock(&self.engine.lost).iter().filter(|(d, ..)| *d == db).count() as u64,
        }
    }

    /// The stored segments, in order of root.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let summary = |(root, s): (&SegmentRoot, &StoredSegment)| SegmentSummary {
            root: *root,
            preimage: s.preimage,
            id: s.id,
            rows: s.rows,
            projection: s.projection,
            live: s.superseded.is_none(),
        };
        self.state.segments.iter().map(summary).collect()
    }

    /// Where a writer stands; one that never wrote is at 0.
    #[must_use]
    pub fn writer(&self, address: Address) -> WriterState {
        self.state.writers.get(&address).map_or(
            WriterState { allowed: false, next_sequence: 0, previous: OpId::default() },
            |w| WriterState { allowed: w.allowed, next_sequence: w.next_sequence, previous: w.previous },
        )
    }

    /// Where a table's lease stands, and the block's time at which it does.
    #[must_use]
    pub fn lease(&self, table: TableId) -> (Lease, u64) {
        (self.state.leases.get(&table).copied().unwrap_or_default(), self.state.head.timestamp_ms)
    }

    /// The public schemas, by projection id.
    ///
    /// # Errors
    /// [`OpenRefusal::Internal`] where one cannot be read.
    pub fn schemas(&self) -> Result<Vec<PublicSchema>, OpenRefusal> {
        let read = |p: &crate::state::Projection| {
            let id = p.entry.projection;
            let found = schema(self.engine.store.as_ref(), self.db(), id).map_err(|e| internal(&e))?;
            found.ok_or_else(|| OpenRefusal::Internal(format!("projection {id} has no schema record")))
        };
        self.state.projections.iter().map(read).collect()
    }

    /// The root opened to a projection.
    ///
    /// # Errors
    /// [`OpenRefusal::UnknownProjection`].
    pub fn snapshot(&self, projection: ProjectionId) -> Result<CatalogueOpening, OpenRefusal> {
        self.state.opening(projection).ok_or(OpenRefusal::UnknownProjection(projection))
    }

    /// The header of a stored segment.
    ///
    /// # Errors
    /// [`OpenRefusal::UnknownSegment`] and [`OpenRefusal::Lost`].
    pub fn header(&self, root: SegmentRoot) -> Result<HeaderAnswer, OpenRefusal> {
        let segment = self.segment(root)?;
        let reader = self.reader(root, segment.preimage.cells);
        let read = |count| -> Result<Vec<Cell>, OpenRefusal> {
            let bytes = reader.cells(0, count).map_err(|lost| self.lost(root, lost))?;
            // The checksum held, so these are the scalars that were checked when the segment came.
            bytes.chunks(CELL_BYTES).map(|raw| cell(raw).ok_or_else(|| self.lost(root, Lost { page: 0 }))).collect()
        };
        let need = SegmentHeader::cells_from_preamble(&read(1)?[0]).map_err(|e| internal(&e))?;
        Ok(HeaderAnswer { preimage: segment.preimage, cells: read(need.min(segment.preimage.cells))? })
    }

    /// Cells of every live segment of a projection, with what a verifier needs to recompute the roots.
    ///
    /// # Errors
    /// [`OpenRefusal`]: a plan for another version, a malformed request, an answer above the limit, a lost page.
    pub fn open_cells(&self, request: &OpenRequest) -> Result<(CatalogueOpening, Vec<SegmentOpening>), OpenRefusal> {
        if request.db != self.db() {
            return Err(OpenRefusal::UnknownDatabase(request.db));
        }
        let opening = self.snapshot(request.projection)?;
        if request.version != opening.entry.version {
            return Err(OpenRefusal::Moved(opening.entry.version));
        }
        let bad = |why: String| Err(OpenRefusal::BadRequest(why));
        if !request.segments.iter().map(|s| &s.segment).eq(opening.entry.live.iter()) {
            return bad(format!("name the {} live segments, in catalogue order", opening.entry.live.len()));
        }
        if request.cells().is_none() {
            return bad("ranges must be increasing, apart, not empty, and not too many cells".to_owned());
        }
        // First what it costs, without touching the disk.
        let mut wanted = Vec::with_capacity(request.segments.len());
        let mut bytes = 0;
        for segment in request.segments.iter() {
            let preimage = self.segment(segment.segment)?.preimage;
            if segment.ranges.last().is_some_and(|r| r.end() > preimage.cells) {
                return bad(format!("segment {} has {} cells", segment.segment, preimage.cells));
            }
            let indices: Vec<u64> = segment.ranges.iter().flat_map(|r| r.first..r.end()).collect();
            let siblings: usize = sibling_plan(preimage.cells, &indices).iter().map(Vec::len).sum();
            bytes += indices.len() * CELL_BYTES + siblings * 32;
            wanted.push((segment.segment, preimage, indices));
        }
        if bytes > ANSWER_BYTES_MAX {
            return bad(format!(
                "the answer would be {bytes} bytes, the limit is {ANSWER_BYTES_MAX}; ask for less at once"
            ));
        }
        let mut openings = Vec::with_capacity(wanted.len());
        for (root, preimage, indices) in wanted {
            let opened = self.reader(root, preimage.cells).multi_open(&indices);
            let opened = opened.map_err(|lost| self.lost(root, lost))?;
            openings.push(SegmentOpening { preimage, cells: opened.cells, siblings: opened.siblings });
        }
        Ok((opening, openings))
    }

    /// Cells of a segment for another member, opened to its tree root: also of one that left the stored tree and is still kept.
    ///
    /// # Errors
    /// [`OpenRefusal`]: not here, a range outside the segment or above [`OPEN_CELLS_MAX`], a lost page.
    pub fn cells(&self, root: SegmentRoot, range: CellRange) -> Result<SegmentOpening, OpenRefusal> {
        let preimage = match self.state.collected.get(&root) {
            Some(collected) => collected.preimage,
            None => self.segment(root)?.preimage,
        };
        self.here(root)?;
        let end = range.first.checked_add(range.count).filter(|end| *end <= preimage.cells);
        let Some(end) = end.filter(|_| (1..=OPEN_CELLS_MAX).contains(&range.count)) else {
            let why =
                format!("{} cells from {} of segment {root}, which has {}", range.count, range.first, preimage.cells);
            return Err(OpenRefusal::BadRequest(why));
        };
        let indices: Vec<u64> = (range.first..end).collect();
        let opened = self.reader(root, preimage.cells).multi_open(&indices).map_err(|lost| self.lost(root, lost))?;
        Ok(SegmentOpening { preimage, cells: opened.cells, siblings: opened.siblings })
    }

    /// Bytes of a page's cells, as they lie in its record.
    ///
    /// # Errors
    /// [`OpenRefusal::UnknownSegment`], [`OpenRefusal::Lost`], and [`OpenRefusal::BadRequest`] beyond the last page.
    pub fn page(&self, root: SegmentRoot, page: u64) -> Result<Vec<u8>, OpenRefusal> {
        let cells = self.segment(root)?.preimage.cells;
        if page >= pages(cells) {
            return Err(OpenRefusal::BadRequest(format!("segment {root} has {} pages", pages(cells))));
        }
        self.reader(root, cells).page(page).map_err(|lost| self.lost(root, lost))
    }

    pub(crate) fn db(&self) -> DatabaseId {
        self.state.head.db
    }

    /// A stored segment whose cells may be read.
    pub(crate) fn segment(&self, root: SegmentRoot) -> Result<&StoredSegment, OpenRefusal> {
        let segment = self.state.segments.get(&root).ok_or(OpenRefusal::UnknownSegment(root))?;
        self.here(root)?;
        Ok(segment)
    }

    /// Refuses where the cells of a segment are not all here: what lies under its keys was not checked yet.
    pub(crate) fn here(&self, root: SegmentRoot) -> Result<(), OpenRefusal> {
        match self.engine.is_missing(self.db(), root) {
            true => Err(OpenRefusal::NotHere(root)),
            false => Ok(()),
        }
    }

    pub(crate) fn reader(&self, root: SegmentRoot, cells: u64) -> SegmentReader<'_> {
        SegmentReader { store: self.engine.store.as_ref(), db: self.db(), root, cells }
    }

    /// The refusal for a page that could not be read. A segment that was collected since the view was taken is unknown, not lost.
    pub(crate) fn lost(&self, root: SegmentRoot, lost: Lost) -> OpenRefusal {
        let still = self
            .engine
            .state(self.db())
            .is_some_and(|now| now.segments.contains_key(&root) || now.collected.contains_key(&root));
        if !still {
            return OpenRefusal::UnknownSegment(root);
        }
        if let Err(refusal) = self.here(root) {
            return refusal;
        }
        lock(&self.engine.lost).insert((self.db(), root, lost.page));
        OpenRefusal::Lost { segment: root, page: lost.page }
    }
}

pub(crate) fn internal(e: &dyn std::fmt::Display) -> OpenRefusal {
    OpenRefusal::Internal(e.to_string())
}
