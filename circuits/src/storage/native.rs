//! The storage statement natively: the twin of `circuit.rs`, and the place that says what is wrong with a witness.

use crate::WitnessError;
use fluence_crypto::sum_tree::{SumPath, SumTree};
use fluence_crypto::tree::Path;
use fluence_crypto::witness::{StorageSample, StorageWitness};
use fluence_crypto::{field, roots, seed, sum_tree, tree};
use fluence_types::limits::COUNT_BITS;
use fluence_types::shape::StorageShape;
use fluence_types::statement::Storage;
use fluence_types::tree::{segment_levels, sum_levels};

/// Checks a witness against its statement, without a circuit.
///
/// # Errors
/// [`WitnessError`] naming the sample and what is wrong with it.
pub fn check_storage(shape: StorageShape, statement: &Storage, witness: &StorageWitness) -> Result<(), WitnessError> {
    if witness.samples.len() != shape.samples as usize {
        return Err(WitnessError::Count { what: "samples", got: witness.samples.len(), want: shape.samples as usize });
    }
    if statement.total_cells == 0 || statement.total_cells >> COUNT_BITS != 0 {
        return Err(WitnessError::Statement("total cells is 0 or not below 2^40"));
    }
    let root = statement.root.to_field();
    let (databases, top) = match &witness.holdings {
        None => (1, root),
        Some(h) if roots::holdings_root(h).to_field() != root => {
            return Err(WitnessError::Statement("the holdings do not make the root"));
        }
        Some(h) if h.total_cells != statement.total_cells => {
            return Err(WitnessError::Statement("total cells differs from the holdings'"));
        }
        Some(h) => (h.databases, h.sum_root),
    };
    let holdings_levels = sum_levels(databases);
    fits("holdings", holdings_levels, shape.holdings_levels)?;
    let own_levels = shape.own_holdings_levels();
    if witness.top.len() as u64 != databases.div_ceil(1 << (2 * own_levels)).max(1)
        || SumTree::new(witness.top.clone()).root() != (field::from_bytes(&top), statement.total_cells)
    {
        return Err(WitnessError::Statement("the nodes that the samples share do not make the root"));
    }
    if witness.top.iter().any(|(_, weight)| weight >> super::holdings_bits(shape, own_levels) != 0) {
        return Err(WitnessError::Statement("a database is larger than the shape holds"));
    }
    for (k, sample) in witness.samples.iter().enumerate() {
        let wrong = |why: String| WitnessError::Sample { sample: k, why };
        fits("segment", segment_levels(sample.segment.cells), shape.tree_levels)?;
        fits("stored", sample.stored.levels.len(), shape.stored_levels)?;
        if sample.holdings.levels.len() != holdings_levels {
            return Err(wrong(format!(
                "{} holdings levels for {databases} databases, expected {holdings_levels}",
                sample.holdings.levels.len()
            )));
        }
        let (in_database, total) = climb(sample, &field::from_bytes(&top), statement.total_cells).map_err(wrong)?;
        weights_fit(&sample.stored, |level| super::stored_bits(shape, level)).map_err(wrong)?;
        weights_fit(&sample.holdings, |level| super::holdings_bits(shape, level)).map_err(wrong)?;
        let (a, b) = seed::challenge(&field::from_bytes(&statement.seed), k as u64);
        let asked = |what: &str, want: u64, got: u64| {
            if want == got { Ok(()) } else { Err(wrong(format!("{what} {want} is asked for, {got} is opened"))) }
        };
        if k.is_multiple_of(2) {
            asked("cell", seed::scale(a, statement.total_cells), total)?;
        } else {
            asked("database", seed::scale(a, databases), sample.holdings.slot)?;
            asked("cell of the database", seed::scale(b, sample.db.stored_cells), in_database)?;
        }
    }
    Ok(())
}

/// From the cell to the top: the places of the cell in its database and among all cells.
fn climb(s: &StorageSample, top: &ark_bls12_381::Fr, total: u64) -> Result<(u64, u64), String> {
    let path = Path { index: s.cell.index, siblings: s.cell.siblings.clone() };
    let tree_root = field::from_bytes(&s.segment.tree_root);
    tree::check_path(&tree_root, s.segment.cells, s.cell.index, &s.cell.cell, &path)
        .map_err(|e| format!("cell: {e}"))?;
    let segment = field::from_bytes(&tree::segment_root(&s.segment).to_field());
    let stored_root = field::from_bytes(&s.db.stored_root.to_field());
    let before = sum_tree::verify(&stored_root, s.db.stored_cells, &(segment, s.segment.cells), &s.stored)
        .map_err(|e| format!("segment: {e}"))?;
    let database = field::from_bytes(&roots::db_root(&s.db).to_field());
    let databases_before = sum_tree::verify(top, total, &(database, s.db.stored_cells), &s.holdings)
        .map_err(|e| format!("database: {e}"))?;
    let in_database = before + s.cell.index;
    Ok((in_database, databases_before + in_database))
}

/// A segment beside the path may be larger than the shape holds, though the path's own is not.
fn weights_fit(path: &SumPath, bits: impl Fn(u32) -> u32) -> Result<(), String> {
    for (level, children) in (0..).zip(&path.levels) {
        if let Some((_, weight)) = children.iter().find(|(_, weight)| weight >> bits(level) != 0) {
            return Err(format!("a weight of {weight} at level {level}, which has {} bits", bits(level)));
        }
    }
    Ok(())
}

fn fits(what: &'static str, levels: usize, shape: u32) -> Result<(), WitnessError> {
    if levels <= shape as usize { Ok(()) } else { Err(WitnessError::Shape { what, levels, shape: shape as usize }) }
}
