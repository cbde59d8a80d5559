//! Witnesses: what a prover must know, read from the store at one height.
//!
//! storage     the cells that a seed picks from everything under a root; half the samples weigh by size, half pick a database first
//! range_sum   for every live segment, the two prefix sums at the ends of a row range, and the masked sum `C`
//! Source      [`fluence_types::statement`], DESIGN section 6

use crate::engine::Engine;
use crate::nodes::SegmentReader;
use crate::past::Past;
use crate::view::View;
use fluence_crypto::roots::{holdings_root, query_digest};
use fluence_crypto::seed::{challenge, scale};
use fluence_crypto::sum_tree::{SumPath, SumTree};
use fluence_crypto::witness::{CellOpening, RangeSumSegment, RangeSumWitness, StorageSample, StorageWitness};
use fluence_crypto::{Fr, field};
use fluence_types::answer::OpenRefusal;
use fluence_types::limits::CELL_SCALARS;
use fluence_types::segment::LaneKind;
use fluence_types::shape::StorageShape;
use fluence_types::statement::{RangeSum, RangeSumQuery, RowRange, Storage};
use fluence_types::tree::{HoldingsPreimage, segment_levels, sum_levels};
use fluence_types::{DatabaseId, DbRoot, Height, HoldingsRoot, SegmentRoot};
use rayon::prelude::*;

/// Why there is no witness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// Data that is needed cannot be read, or the request is malformed.
    #[error(transparent)]
    Open(#[from] OpenRefusal),
    /// The statement is about another state than the one here now.
    #[error(
        "the statement is about root {asked} with {asked_cells} cells, here are root {have} with {have_cells} cells"
    )]
    Root {
        /// Asked for.
        asked: HoldingsRoot,
        /// Cells of the statement.
        asked_cells: u64,
        /// What the databases make now.
        have: HoldingsRoot,
        /// Cells here.
        have_cells: u64,
    },
    /// A database had this root never, or so long ago that segments of it have been collected.
    #[error("database {db} can no longer be proven at root {asked}; it is at height {height}")]
    Gone {
        /// The database.
        db: DatabaseId,
        /// The root asked for.
        asked: DbRoot,
        /// The height here now.
        height: Height,
    },
    /// No database was named, or one twice or out of order.
    #[error("databases must be at least one, in id order")]
    Databases,
    /// A database without a stored cell: there is nothing to prove about it, so it is in no holdings.
    #[error("database {0} stores nothing")]
    Empty(DatabaseId),
    /// A tree is higher than the circuit.
    #[error("{what} has {got} levels, the circuit has {limit}")]
    Shape {
        /// Which tree.
        what: &'static str,
        /// Its levels.
        got: usize,
        /// The circuit's.
        limit: u32,
    },
}

/// What a set of databases holds now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// The root that a storage statement names: of the holdings, or of the one database.
    pub root: HoldingsRoot,
    /// Cells under it.
    pub total_cells: u64,
    /// Parts of the root; `None` where it is a database root.
    pub preimage: Option<HoldingsPreimage>,
}

fn fits(what: &'static str, got: usize, limit: u32) -> Result<(), WitnessError> {
    if got as u64 > u64::from(limit) { Err(WitnessError::Shape { what, got, limit }) } else { Ok(()) }
}

fn sum_tree(views: &[View<'_>]) -> SumTree {
    let leaf = |v: &View<'_>| (field::from_bytes(&v.state.head.root.to_field()), v.state.stored_cells());
    SumTree::new(views.iter().map(leaf).collect())
}

fn holdings_of(tree: &SumTree) -> (HoldingsPreimage, HoldingsRoot) {
    let (sum_root, total_cells) = tree.root();
    let preimage = HoldingsPreimage { databases: tree.len(), sum_root: field::to_bytes(&sum_root), total_cells };
    (preimage, holdings_root(&preimage))
}

impl Engine {
    fn views(&self, databases: &[DatabaseId]) -> Result<Vec<View<'_>>, WitnessError> {
        if databases.is_empty() || !databases.is_sorted_by(|a, b| a < b) {
            return Err(WitnessError::Databases);
        }
        let views = databases.iter().map(|db| self.view(*db)).collect::<Result<Vec<_>, _>>()?;
        match views.iter().find(|v| v.state.stored_cells() == 0) {
            Some(view) => Err(WitnessError::Empty(view.db())),
            None => Ok(views),
        }
    }

    /// The holdings root over databases, in id order, at their latest roots.
    ///
    /// # Errors
    /// [`WitnessError`] for an unknown or empty database, or a list out of order.
    pub fn holdings(&self, databases: &[DatabaseId]) -> Result<Holdings, WitnessError> {
        let (preimage, root) = holdings_of(&sum_tree(&self.views(databases)?));
        Ok(Holdings { root, total_cells: preimage.total_cells, preimage: Some(preimage) })
    }

    /// One database's root as the root of a storage statement.
    ///
    /// # Errors
    /// [`WitnessError`] for an unknown or empty database.
    pub fn holdings_of_one(&self, db: DatabaseId) -> Result<Holdings, WitnessError> {
        let view = &self.views(&[db])?[0];
        let root = HoldingsRoot::from_field(view.state.head.root.to_field());
        Ok(Holdings { root, total_cells: view.state.stored_cells(), preimage: None })
    }

    /// The witness of a storage proof over `databases`, in id order, at their latest roots.
    ///
    /// # Errors
    /// As [`Self::storage_witness_at`].
    pub fn storage_witness(
        &self,
        databases: &[DatabaseId],
        statement: &Storage,
        shape: StorageShape,
    ) -> Result<StorageWitness, WitnessError> {
        let now = self.views(databases)?.iter().map(|v| (v.db(), v.state.head.root)).collect::<Vec<_>>();
        self.storage_witness_at(&now, statement, shape)
    }

    /// The witness of a storage proof over databases, in id order, each at a root it has or had: what is owed was fixed before the
    /// epoch, and writes go on. The statement's root is either their holdings root or, for a single one, its database root.
    ///
    /// # Errors
    /// [`WitnessError`]; a lost page that a sample hits is [`OpenRefusal::Lost`].
    pub fn storage_witness_at(
        &self,
        databases: &[(DatabaseId, DbRoot)],
        statement: &Storage,
        shape: StorageShape,
    ) -> Result<StorageWitness, WitnessError> {
        let ids: Vec<DatabaseId> = databases.iter().map(|(db, _)| *db).collect();
        let views = self.views(&ids)?;
        let held = views.into_iter().zip(databases).map(|(view, (_, root))| {
            let past = Past::at(self.store.as_ref(), &view.state, *root)?;
            if past.stored.root().1 == 0 {
                Err(WitnessError::Empty(view.db()))
            } else {
                Ok(Held { view, past, root: *root })
            }
        });
        let held = held.collect::<Result<Vec<_>, _>>()?;
        let leaf = |h: &Held<'_>| (field::from_bytes(&h.root.to_field()), h.past.stored.root().1);
        let tree = SumTree::new(held.iter().map(leaf).collect());
        let (preimage, root) = holdings_of(&tree);
        let single = HoldingsRoot::from_field(held[0].root.to_field());
        let holdings = if databases.len() == 1 && statement.root == single { None } else { Some(preimage) };
        let have = if holdings.is_some() { root } else { single };
        if (statement.root, statement.total_cells) != (have, preimage.total_cells) {
            return Err(WitnessError::Root {
                asked: statement.root,
                asked_cells: statement.total_cells,
                have,
                have_cells: preimage.total_cells,
            });
        }
        fits("the tree over databases", sum_levels(tree.len()), shape.holdings_levels)?;
        for h in &held {
            fits("the tree over segments", sum_levels(h.past.stored.len()), shape.stored_levels)?;
        }
        let seed = field::from_bytes(&statement.seed);
        let samples = (0..u64::from(shape.samples))
            .into_par_iter()
            .map(|k| sample(&held, &tree, &seed, k, shape))
            .collect::<Vec<_>>();
        let samples = samples.into_iter().collect::<Result<_, _>>()?;
        let top = tree.level(shape.own_holdings_levels() as usize).to_vec();
        Ok(StorageWitness { holdings, top, samples })
    }

    /// The witness of a range sum at the latest root, and the statement it makes: its sum is `C`.
    ///
    /// # Errors
    /// [`WitnessError`]; ranges that do not fit the live segments are [`OpenRefusal::BadRequest`].
    pub fn range_sum_witness(&self, query: &RangeSumQuery) -> Result<(RangeSumWitness, RangeSum), WitnessError> {
        let view = self.view(query.db)?;
        view.range_sum_witness(query)
    }
}

/// A database at the root that is to be proven.
struct Held<'a> {
    view: View<'a>,
    past: Past,
    root: DbRoot,
}

/// Sample `k`, even ones by size, odd ones by database.
fn sample(
    held: &[Held<'_>],
    tree: &SumTree,
    seed: &Fr,
    k: u64,
    shape: StorageShape,
) -> Result<StorageSample, WitnessError> {
    let (a, b) = challenge(seed, k);
    let (slot, position) = if k.is_multiple_of(2) {
        tree.locate(scale(a, tree.root().1)).expect("a scaled number is below the total")
    } else {
        let slot = scale(a, tree.len());
        (slot, scale(b, tree.leaves()[slot as usize].1))
    };
    let Held { view, past, .. } = &held[slot as usize];
    let (segment_slot, index) = past.stored.locate(position).expect("a position below the database's cells");
    let (digest, _) = past.stored.leaves()[segment_slot as usize];
    let root = SegmentRoot::from_field(field::to_bytes(&digest));
    // A segment that has left the stored tree since is kept for the roots that name it.
    let segment = match view.state.collected.get(&root) {
        Some(collected) => collected.preimage,
        None => view.segment(root)?.preimage,
    };
    view.here(root)?;
    fits("a segment", segment_levels(segment.cells), shape.tree_levels)?;
    let cell = view.reader(root, segment.cells).open(index).map_err(|lost| view.lost(root, lost))?;
    let holdings = if held.len() == 1 { SumPath::single() } else { tree.path(slot) };
    Ok(StorageSample { cell, segment, stored: past.stored.path(segment_slot), db: past.preimage, holdings })
}

impl View<'_> {
    /// [`Engine::range_sum_witness`] at this view's root.
    ///
    /// # Errors
    /// As there.
    pub fn range_sum_witness(&self, query: &RangeSumQuery) -> Result<(RangeSumWitness, RangeSum), WitnessError> {
        let bad = |why: String| WitnessError::Open(OpenRefusal::BadRequest(why));
        if query.db != self.db() {
            return Err(OpenRefusal::UnknownDatabase(query.db).into());
        }
        let catalogue = self.snapshot(query.projection)?;
        let live = &catalogue.entry.live;
        if query.ranges.len() != live.len() {
            return Err(bad(format!("{} ranges for {} live segments", query.ranges.len(), live.len())));
        }
        let lanes = &self.state.projection(query.projection).expect("it was just opened").lanes;
        if lanes.get(usize::from(query.lane.0)) != Some(&LaneKind::Sum) {
            return Err(bad(format!("lane {} of projection {} is no sum lane", query.lane, query.projection)));
        }
        let mut sum = Fr::from(0u64);
        let mut segments = Vec::with_capacity(live.len());
        for (root, range) in live.iter().zip(&query.ranges) {
            let (segment, part) = self.range_sum_segment(*root, query, *range)?;
            sum += part;
            segments.push(segment);
        }
        let statement =
            RangeSum { db_root: self.state.head.root, query_digest: query_digest(query), sum: field::to_bytes(&sum) };
        Ok((RangeSumWitness { catalogue, query: query.clone(), segments }, statement))
    }

    /// One live segment's openings, and its part of the sum.
    fn range_sum_segment(
        &self,
        root: SegmentRoot,
        query: &RangeSumQuery,
        range: RowRange,
    ) -> Result<(RangeSumSegment, Fr), WitnessError> {
        let preimage = self.segment(root)?.preimage;
        let reader = self.reader(root, preimage.cells);
        let open = |reader: &SegmentReader<'_>, index| reader.open(index).map_err(|lost| self.lost(root, lost));
        let directory = open(&reader, 1 + u64::from(query.lane.0))?;
        let number = |i: usize| field::to_bytes(&directory.cell[i]).to_u64();
        let (Some(first), Some(cells), Some(rows)) = (number(1), number(2), number(3)) else {
            return Err(OpenRefusal::Internal(format!("the lane directory of segment {root} is malformed")).into());
        };
        if range.lo > range.hi || range.hi > rows {
            let why = format!("rows {}..{} of segment {root}, which has {rows}", range.lo, range.hi);
            return Err(OpenRefusal::BadRequest(why).into());
        }
        // The prefix sum at `boundary`: row `boundary - 1`.
        let prefix = |boundary: u64| -> Result<(CellOpening, Fr), WitnessError> {
            let row = boundary - 1;
            let (cell, word) = (row / CELL_SCALARS as u64, (row % CELL_SCALARS as u64) as usize);
            debug_assert!(cell < cells);
            let opening = open(&reader, first + cell)?;
            let value = opening.cell[word];
            Ok((opening, value))
        };
        let empty = range.lo == range.hi;
        let hi = if empty { None } else { Some(prefix(range.hi)?) };
        let lo = if empty || range.lo == 0 { None } else { Some(prefix(range.lo)?) };
        let value = |end: &Option<(CellOpening, Fr)>| end.as_ref().map_or(Fr::from(0u64), |(_, value)| *value);
        let part = value(&hi) - value(&lo);
        let segment = RangeSumSegment { preimage, directory, lo: lo.map(|(o, _)| o), hi: hi.map(|(o, _)| o) };
        Ok((segment, part))
    }
}
