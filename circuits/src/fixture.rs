//! Databases, holdings and queries with their witnesses: for tests and benches of this crate, the prover and the node.
//!
//! Rule    made with `crypto`'s trees, as an engine makes them, so that a circuit that accepts them accepts the real ones.

use crate::{RangeSumCircuit, StorageCircuit};
use ark_bls12_381::Fr;
use ark_ff::Zero;
use fluence_crypto::sum_tree::{SumPath, SumTree};
use fluence_crypto::tree::{self, SegmentTree};
use fluence_crypto::witness::{CellOpening, RangeSumSegment, RangeSumWitness, StorageSample, StorageWitness};
use fluence_crypto::{field, poseidon2, roots, seed};
use fluence_types::codec::Bounded;
use fluence_types::limits::CELL_SCALARS;
use fluence_types::segment::{LaneKind, SEGMENT_MAGIC, sum_cells};
use fluence_types::shape::{RangeSumShape, StorageShape};
use fluence_types::statement::{RangeSum, RangeSumQuery, RowRange, Storage};
use fluence_types::tree::{CatalogueEntry, CatalogueOpening, DbPreimage, DigestTag, HoldingsPreimage, SegmentPreimage};
use fluence_types::{
    AuxRoot, DatabaseId, FieldBytes, HeaderHash, HoldingsRoot, LaneId, ProjectionId, SchemaHash, SegmentRoot,
    StoredRoot, TableId, Version,
};
use std::convert::Infallible;

/// The sum lane of [`Segment::with_lane`]; lane 0 is a byte lane.
pub const SUM_LANE: LaneId = LaneId(1);
/// Cells before the sum lane: preamble, two directory entries, a blob, a byte lane.
pub const CELLS_BEFORE_LANE: u64 = 5;
/// The projection that holds the segments.
pub const PROJECTION: ProjectionId = ProjectionId(9);

/// A segment with its tree.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its cells.
    pub cells: Vec<[Fr; 8]>,
    /// The tree over them.
    pub tree: SegmentTree,
    /// The parts of its root.
    pub preimage: SegmentPreimage,
}

/// Scalar number `i` of a stream.
#[must_use]
pub fn noise(stream: u64, i: u64) -> Fr {
    poseidon2::digest(DigestTag::Aux, &[Fr::from(stream), Fr::from(i)])
}

impl Segment {
    /// A segment of given cells.
    #[must_use]
    pub fn of(cells: Vec<[Fr; 8]>) -> Self {
        let tree = SegmentTree::build(&cells);
        let tree_root = field::to_bytes(&tree.root());
        let header_hash = HeaderHash::from_bytes(field::to_bytes(&noise(0, cells.len() as u64)).to_bytes());
        let preimage = SegmentPreimage { tree_root, cells: cells.len() as u64, header_hash };
        Self { cells, tree, preimage }
    }

    /// A segment of `cells` cells of noise.
    #[must_use]
    pub fn plain(stream: u64, cells: u64) -> Self {
        Self::of((0..cells).map(|i| std::array::from_fn(|w| Fr::from(stream << 48 | i << 8 | w as u64))).collect())
    }

    /// A segment with a sum lane of `rows` masked prefix sums, `P[row] = noise(stream, row)`.
    #[must_use]
    pub fn with_lane(stream: u64, rows: u64) -> Self {
        let n = |v: u64| Fr::from(v);
        let z = n(0);
        let mut cells = vec![
            [field::from_bytes(&SEGMENT_MAGIC), n(stream), n(rows), n(2), n(100), n(1), n(2), z],
            [n(LaneKind::Bytes as u64), n(4), n(1), n(rows), n(200), z, z, z],
            [n(LaneKind::Sum as u64), n(CELLS_BEFORE_LANE), n(sum_cells(rows)), n(rows), z, z, z, z],
            std::array::from_fn(|w| n(w as u64 + 1)),
            std::array::from_fn(|w| n(stream + w as u64)),
        ];
        let sums: Vec<Fr> = (0..rows).map(|row| Self::prefix_sum(stream, row)).collect();
        cells.extend(sums.chunks(CELL_SCALARS).map(|chunk| {
            let mut cell = [z; 8];
            cell[..chunk.len()].copy_from_slice(chunk);
            cell
        }));
        Self::of(cells)
    }

    /// What [`Self::with_lane`] puts at a row: cheap, and far from small.
    #[must_use]
    pub fn prefix_sum(stream: u64, row: u64) -> Fr {
        -Fr::from(u128::from(stream + 1) << 70 | u128::from(row * row + 1))
    }

    /// Opens a cell.
    ///
    /// # Panics
    /// If there is no such cell.
    #[must_use]
    pub fn open(&self, index: u64) -> CellOpening {
        let cell_at = &mut |i: u64| Ok::<_, Infallible>(self.cells[i as usize]);
        let path = match tree::open(&self.tree, index, cell_at) {
            Ok(path) => path,
            Err(never) => match never {},
        };
        CellOpening { index, cell: self.cells[index as usize], siblings: path.siblings }
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> SegmentRoot {
        tree::segment_root(&self.preimage)
    }
}

/// A database: stored segments, and a projection in which all of them are live.
#[derive(Clone, Debug)]
pub struct Database {
    /// The parts of its root.
    pub preimage: DbPreimage,
    /// Its segments, by slot.
    pub segments: Vec<Segment>,
    /// The stored tree.
    pub stored: SumTree,
    /// The projection opened.
    pub opening: CatalogueOpening,
}

impl Database {
    /// A database of these segments, stored in slots `0..`, the live ones in the same order.
    #[must_use]
    pub fn new(id: u8, segments: Vec<Segment>) -> Self {
        let live = segments.len();
        Self::with_live(id, segments, live)
    }

    /// The same, where only the first `live` segments are live.
    ///
    /// # Panics
    /// If there are more live segments than a projection may have.
    #[must_use]
    pub fn with_live(id: u8, segments: Vec<Segment>, live: usize) -> Self {
        let leaf = |s: &Segment| (field::from_bytes(&s.root().to_field()), s.preimage.cells);
        let stored = SumTree::new(segments.iter().map(leaf).collect());
        let list = segments.iter().take(live.min(16)).map(Segment::root).collect();
        let entry = CatalogueEntry {
            projection: PROJECTION,
            table: TableId(3),
            version: Version(7),
            schema: SchemaHash::from_bytes([5; 32]),
            live: Bounded::new(list).expect("at most 16 live segments"),
        };
        let mut catalogue = roots::Catalogue::new(&[]);
        catalogue.set(2, Fr::from(11u64));
        catalogue.set(PROJECTION.0, roots::catalogue_leaf(&entry));
        let (stored_root, stored_cells) = stored.root();
        let preimage = DbPreimage {
            db: DatabaseId::from_bytes([id; 16]),
            stored_root: StoredRoot::from_field(field::to_bytes(&stored_root)),
            stored_cells,
            catalogue_root: catalogue.root(),
            aux_root: AuxRoot::from_field(FieldBytes::from_u64(13)),
        };
        let opening = CatalogueOpening { db: preimage, entry, path: catalogue.path(PROJECTION.0) };
        Self { preimage, segments, stored, opening }
    }

    /// Its root as a scalar.
    #[must_use]
    pub fn root(&self) -> Fr {
        field::from_bytes(&roots::db_root(&self.preimage).to_field())
    }
}

/// What a storage proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Everything.
    Holdings,
    /// One database.
    Single(usize),
}

/// A storage statement over these databases and its honest witness.
///
/// # Panics
/// If there is nothing to sample.
#[must_use]
pub fn storage(shape: StorageShape, databases: &[Database], owed: Owed, seed: FieldBytes) -> (Storage, StorageWitness) {
    let range = match owed {
        Owed::Holdings => 0..databases.len(),
        Owed::Single(i) => i..i + 1,
    };
    let databases = &databases[range];
    let tree = SumTree::new(databases.iter().map(|d| (d.root(), d.preimage.stored_cells)).collect());
    let (sum_root, total_cells) = tree.root();
    let holdings = (owed == Owed::Holdings).then(|| HoldingsPreimage {
        databases: databases.len() as u64,
        sum_root: field::to_bytes(&sum_root),
        total_cells,
    });
    let root = match &holdings {
        Some(h) => roots::holdings_root(h),
        None => HoldingsRoot::from_field(field::to_bytes(&sum_root)),
    };
    let samples = (0..u64::from(shape.samples)).map(|k| {
        let (a, b) = seed::challenge(&field::from_bytes(&seed), k);
        if k.is_multiple_of(2) {
            let (database, place) = tree.locate(seed::scale(a, total_cells)).expect("the total is not 0");
            sample(databases, database, place)
        } else {
            let database = seed::scale(a, databases.len() as u64);
            sample(databases, database, seed::scale(b, databases[database as usize].preimage.stored_cells))
        }
    });
    let top = tree.level(shape.own_holdings_levels() as usize).to_vec();
    (Storage { root, total_cells, seed }, StorageWitness { holdings, top, samples: samples.collect() })
}

/// The sample of the cell at `place` of a database.
///
/// # Panics
/// If the database has no such cell.
#[must_use]
pub fn sample(databases: &[Database], database: u64, place: u64) -> StorageSample {
    let db = &databases[database as usize];
    let (slot, index) = db.stored.locate(place).expect("the database has that cell");
    let segment = &db.segments[slot as usize];
    let tree = SumTree::new(databases.iter().map(|d| (d.root(), d.preimage.stored_cells)).collect());
    StorageSample {
        cell: segment.open(index),
        segment: segment.preimage,
        stored: db.stored.path(slot),
        db: db.preimage,
        holdings: if databases.len() == 1 { SumPath::single() } else { tree.path(database) },
    }
}

/// A range sum over the live segments of a database made with [`Segment::with_lane`], and its honest witness.
///
/// # Panics
/// If there are fewer ranges than live segments, or a range is not inside its segment.
#[must_use]
pub fn range_sum(db: &Database, ranges: &[RowRange]) -> (RangeSum, RangeSumWitness) {
    let live = db.opening.entry.live.len();
    let query =
        RangeSumQuery { db: db.preimage.db, projection: PROJECTION, lane: SUM_LANE, ranges: ranges[..live].to_vec() };
    let mut sum = Fr::zero();
    let mut segments = Vec::new();
    for (segment, range) in db.segments.iter().zip(&query.ranges) {
        let at = |end: u64| (range.lo < range.hi && end > 0).then(|| segment.open(CELLS_BEFORE_LANE + (end - 1) / 8));
        let value = |o: &CellOpening, end: u64| o.cell[((end - 1) % 8) as usize];
        let (lo, hi) = (at(range.lo), at(range.hi));
        sum += hi.as_ref().map_or(Fr::zero(), |o| value(o, range.hi));
        sum -= lo.as_ref().map_or(Fr::zero(), |o| value(o, range.lo));
        let directory = segment.open(1 + u64::from(SUM_LANE.0));
        segments.push(RangeSumSegment { preimage: segment.preimage, directory, lo, hi });
    }
    let statement = RangeSum {
        db_root: roots::db_root(&db.preimage),
        query_digest: roots::query_digest(&query),
        sum: field::to_bytes(&sum),
    };
    (statement, RangeSumWitness { catalogue: db.opening.clone(), query, segments })
}

/// Three databases of mixed sizes that fit [`StorageShape::TINY`].
#[must_use]
pub fn databases() -> Vec<Database> {
    vec![
        Database::new(1, vec![Segment::plain(1, 1), Segment::plain(2, 64), Segment::plain(3, 9)]),
        Database::new(2, vec![Segment::plain(4, 5)]),
        Database::new(3, vec![Segment::with_lane(5, 20), Segment::plain(6, 8)]),
    ]
}

/// A small storage circuit that is satisfied.
#[must_use]
pub fn tiny_storage() -> (Storage, StorageCircuit) {
    let (statement, witness) = storage(StorageShape::TINY, &databases(), Owed::Holdings, FieldBytes::from_u64(42));
    (statement, StorageCircuit::new(StorageShape::TINY, statement, witness))
}

/// A database of two live segments that fits [`RangeSumShape::TINY`].
#[must_use]
pub fn two_live_segments() -> Database {
    Database::new(4, vec![Segment::with_lane(1, 100), Segment::with_lane(2, 17)])
}

/// A small range sum circuit that is satisfied.
#[must_use]
pub fn tiny_range_sum() -> (RangeSum, RangeSumQuery, RangeSumCircuit) {
    let ranges = [RowRange { lo: 10, hi: 90 }, RowRange { lo: 0, hi: 17 }];
    let (statement, witness) = range_sum(&two_live_segments(), &ranges);
    let query = witness.query.clone();
    (statement, query, RangeSumCircuit::new(RangeSumShape::TINY, statement, witness))
}
