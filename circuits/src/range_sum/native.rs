//! The range sum natively: the twin of `circuit.rs`, and the place that says what is wrong with a witness.

use super::SEGMENTS_MAX;
use crate::WitnessError;
use ark_bls12_381::Fr;
use ark_ff::Zero;
use fluence_crypto::tree::Path;
use fluence_crypto::witness::{CellOpening, RangeSumSegment, RangeSumWitness};
use fluence_crypto::{field, roots, tree};
use fluence_types::FieldBytes;
use fluence_types::limits::LANES_MAX;
use fluence_types::segment::{LaneKind, sum_cells};
use fluence_types::shape::RangeSumShape;
use fluence_types::statement::{RangeSum, RowRange};
use fluence_types::tree::segment_levels;

/// Checks a witness against its statement, without a circuit.
///
/// # Errors
/// [`WitnessError`] naming the segment and what is wrong with it.
pub fn check_range_sum(
    shape: RangeSumShape,
    statement: &RangeSum,
    witness: &RangeSumWitness,
) -> Result<(), WitnessError> {
    let entry = &witness.catalogue.entry;
    let (live, query) = (entry.live.len(), &witness.query);
    if shape.segments > SEGMENTS_MAX || live > shape.segments as usize {
        return Err(WitnessError::Shape { what: "live segments", levels: live, shape: shape.segments as usize });
    }
    for (what, got) in [("openings", witness.segments.len()), ("ranges", query.ranges.len())] {
        if got != live {
            return Err(WitnessError::Count { what, got, want: live });
        }
    }
    if roots::verify_catalogue(&witness.catalogue).ok() != Some(statement.db_root) {
        return Err(WitnessError::Statement("the catalogue entry does not open to the database root"));
    }
    if query.db != witness.catalogue.db.db || query.projection != entry.projection {
        return Err(WitnessError::Statement("the query is for another database or projection"));
    }
    if usize::from(query.lane.0) >= LANES_MAX {
        return Err(WitnessError::Statement("no lane has that number"));
    }
    if roots::query_digest(query) != statement.query_digest {
        return Err(WitnessError::Statement("the query does not make the query digest"));
    }
    let mut sum = Fr::zero();
    for (j, (segment, range)) in witness.segments.iter().zip(&query.ranges).enumerate() {
        let wrong = |why: String| WitnessError::Segment { segment: j, why };
        let levels = segment_levels(segment.preimage.cells);
        if levels > shape.tree_levels as usize {
            return Err(WitnessError::Shape { what: "segment", levels, shape: shape.tree_levels as usize });
        }
        if tree::segment_root(&segment.preimage) != entry.live[j] {
            return Err(wrong("is not the live segment at its place".to_owned()));
        }
        sum += term(segment, u64::from(query.lane.0), range).map_err(wrong)?;
    }
    if field::to_bytes(&sum) == statement.sum { Ok(()) } else { Err(WitnessError::Statement("the sum is another")) }
}

fn term(segment: &RangeSumSegment, lane: u64, range: &RowRange) -> Result<Fr, String> {
    let cell = opened(segment, &segment.directory, 1 + lane).map_err(|e| format!("directory: {e}"))?;
    let small = |i: usize| field::to_bytes(&cell[i]).to_u64().ok_or("a lane number does not fit 64 bits");
    let (kind, first, cells, rows) = (small(0)?, small(1)?, small(2)?, small(3)?);
    if kind != LaneKind::Sum as u64 || cell[4..].iter().any(|s| field::to_bytes(s) != FieldBytes::ZERO) {
        return Err(format!("lane {lane} is not a sum lane"));
    }
    if cells != sum_cells(rows) {
        return Err(format!("a lane of {rows} rows in {cells} cells"));
    }
    if range.lo > range.hi || range.hi > rows {
        return Err(format!("rows {}..{} of {rows}", range.lo, range.hi));
    }
    let at = |end: u64, opening: &Option<CellOpening>| -> Result<Fr, String> {
        let row = end - 1;
        let opening = opening.as_ref().ok_or_else(|| format!("the cell of row {row} is not opened"))?;
        let cell = opened(segment, opening, first + row / 8).map_err(|e| format!("row {row}: {e}"))?;
        Ok(cell[(row % 8) as usize])
    };
    if range.lo == range.hi {
        return Ok(Fr::zero());
    }
    let lower = if range.lo == 0 { Fr::zero() } else { at(range.lo, &segment.lo)? };
    Ok(at(range.hi, &segment.hi)? - lower)
}

fn opened(segment: &RangeSumSegment, opening: &CellOpening, index: u64) -> Result<[Fr; 8], String> {
    let path = Path { index: opening.index, siblings: opening.siblings.clone() };
    let root = field::from_bytes(&segment.preimage.tree_root);
    tree::check_path(&root, segment.preimage.cells, index, &opening.cell, &path).map_err(|e| e.to_string())?;
    Ok(opening.cell)
}
