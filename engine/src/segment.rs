//! What a member checks of a segment before it signs or stores: canonical scalars, the whole tree, the header and its lanes.

use crate::error::SegmentError;
use crate::keys::{self, Cf};
use crate::nodes::{NodeSink, PageDigests, TreeBuilder};
use crate::page::{CELL_BYTES, cell, cells_fr, pages, seal};
use crate::state::DbState;
use crate::store::Batch;
use fluence_crypto::field;
use fluence_crypto::tree::{header_hash, segment_root};
use fluence_types::limits::{PAGE_BYTES, PAGE_CELLS, SEGMENT_CELLS_MAX};
use fluence_types::segment::{LaneKind, SegmentHeader};
use fluence_types::tree::{Cell, SegmentPreimage, segment_levels};
use fluence_types::{DatabaseId, SchemaHash, SegmentId, SegmentRoot};

/// What a checked header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) id: SegmentId,
    pub(crate) rows: u64,
    pub(crate) schema: SchemaHash,
    pub(crate) lanes: Vec<LaneKind>,
}

impl Facts {
    /// Checks header cells, exactly those that the preamble promises, against the parts of the root.
    pub(crate) fn of_header(preimage: &SegmentPreimage, header_cells: &[Cell]) -> Result<Self, SegmentError> {
        let header = SegmentHeader::from_cells(header_cells)?;
        if header_hash(header_cells) != preimage.header_hash {
            return Err(SegmentError::HeaderHash);
        }
        if header.segment_cells() != preimage.cells {
            return Err(SegmentError::Cells { lanes: header.segment_cells(), cells: preimage.cells });
        }
        let lanes = header.lanes.iter().map(|l| l.kind).collect();
        Ok(Self { id: header.id, rows: header.rows, schema: header.schema, lanes })
    }

    /// Checks that some projection of the database has this schema with these lanes.
    pub(crate) fn fits(&self, state: &DbState) -> Result<(), SegmentError> {
        let same = state.projections.iter().find(|p| p.entry.schema == self.schema);
        let projection = same.ok_or(SegmentError::Schema(self.schema))?;
        if projection.lanes == self.lanes { Ok(()) } else { Err(SegmentError::Lanes) }
    }
}

/// An inline segment that passed every check that needs no state, with the records to store.
#[derive(Clone, Debug)]
pub(crate) struct Inspected {
    pub(crate) facts: Facts,
    pub(crate) records: Batch,
}

/// Checks the bytes of a whole, small segment.
pub(crate) fn inspect(db: DatabaseId, preimage: &SegmentPreimage, bytes: &[u8]) -> Result<Inspected, SegmentError> {
    let in_range = (1..=SEGMENT_CELLS_MAX).contains(&preimage.cells);
    if !in_range || bytes.len() as u64 != preimage.cells * CELL_BYTES as u64 {
        return Err(SegmentError::Length { got: bytes.len(), cells: preimage.cells });
    }
    let root = segment_root(preimage);
    let mut records = Batch::new();
    let mut builder = TreeBuilder::new(preimage.cells);
    let mut sink = NodeSink { db, root, batch: &mut records };
    for (chunk, bytes) in bytes.chunks(PAGE_BYTES * PageDigests::AT_ONCE).enumerate() {
        let first = chunk * PageDigests::AT_ONCE * PAGE_CELLS;
        let cells = cells_fr(bytes).map_err(|at| SegmentError::Scalar((first + at) as u64))?;
        PageDigests::of(&cells).iter().for_each(|page| builder.push(page, &mut sink));
    }
    if field::to_bytes(&builder.finish(&mut sink)) != preimage.tree_root {
        return Err(SegmentError::Root);
    }
    let cells: Vec<Cell> = bytes.chunks(CELL_BYTES).filter_map(cell).collect();
    let need = SegmentHeader::cells_from_preamble(&cells[0])?;
    // Where the preamble promises more cells than there are, decoding says so.
    let header_cells = &cells[..cells.len().min(usize::try_from(need).unwrap_or(usize::MAX))];
    let facts = Facts::of_header(preimage, header_cells)?;
    put_pages(&mut records, db, root, 0, bytes);
    Ok(Inspected { facts, records })
}

/// Writes whole pages, the first being page `first`.
pub(crate) fn put_pages(batch: &mut Batch, db: DatabaseId, root: SegmentRoot, first: u64, bytes: &[u8]) {
    for (i, chunk) in bytes.chunks(PAGE_BYTES).enumerate() {
        let key = keys::page(db, root, first + i as u64);
        let record = seal(&key, chunk);
        batch.put(Cf::Pages, key, record);
    }
}

/// Removes every record of a segment's cells.
pub(crate) fn delete_cells(batch: &mut Batch, db: DatabaseId, root: SegmentRoot, cells: u64) {
    for page in 0..pages(cells) {
        batch.delete(Cf::Pages, keys::page(db, root, page));
    }
    for level in 1..segment_levels(cells) {
        let groups = cells.div_ceil(1 << (3 * (level + 1)));
        for group in 0..groups {
            batch.delete(Cf::Nodes, keys::node(db, root, level as u8, group));
        }
    }
}
