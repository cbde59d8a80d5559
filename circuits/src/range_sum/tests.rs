use crate::fixture::{self, CELLS_BEFORE_LANE, Database, SUM_LANE, Segment};
use crate::violation::{assert_caught, assert_inputs_bound, assert_no_free_witness, broken, lie};
use crate::{Circuit, RangeSumCircuit, WitnessError};
use ark_bls12_381::Fr;
use ark_ff::{One, Zero};
use fluence_crypto::witness::RangeSumWitness;
use fluence_crypto::{field, roots};
use fluence_types::segment::LaneKind;
use fluence_types::shape::RangeSumShape;
use fluence_types::statement::{RangeSum, RowRange};
use fluence_types::{FieldBytes, LaneId, ProjectionId, Version};
use proptest::prelude::*;

const TINY: RangeSumShape = RangeSumShape::TINY;
/// One live segment: what is wrong is wrong alone.
const ONE: RangeSumShape = RangeSumShape { segments: 1, tree_levels: 2 };

fn of(shape: RangeSumShape, (statement, witness): (RangeSum, RangeSumWitness)) -> RangeSumCircuit {
    RangeSumCircuit::new(shape, statement, witness)
}

fn rows(lo: u64, hi: u64) -> RowRange {
    RowRange { lo, hi }
}

fn one(range: RowRange) -> (RangeSum, RangeSumWitness) {
    fixture::range_sum(&Database::new(1, vec![Segment::with_lane(3, 100)]), &[range])
}

/// The statement that a changed query makes, with the sum that its opened cells give.
fn restated(mut statement: RangeSum, w: &RangeSumWitness) -> RangeSum {
    statement.query_digest = roots::query_digest(&w.query);
    let mut sum = Fr::zero();
    for (segment, range) in w.segments.iter().zip(&w.query.ranges) {
        let at = |o: &Option<_>, end: u64| {
            o.as_ref().map_or(Fr::zero(), |o: &fluence_crypto::witness::CellOpening| {
                o.cell[(end.wrapping_sub(1) % 8) as usize]
            })
        };
        if range.lo != range.hi {
            sum += at(&segment.hi, range.hi) - at(&segment.lo, range.lo);
        }
    }
    statement.sum = field::to_bytes(&sum);
    statement
}

/// A database whose one segment has a changed directory entry, and everything that follows from it.
fn with_directory(range: RowRange, change: impl Fn(&mut [Fr; 8])) -> (RangeSum, RangeSumWitness) {
    let mut cells = Segment::with_lane(3, 100).cells;
    change(&mut cells[1 + usize::from(SUM_LANE.0)]);
    fixture::range_sum(&Database::new(1, vec![Segment::of(cells)]), &[range])
}

#[test]
fn honest_witnesses_satisfy_every_kind_of_range_and_every_number_of_live_segments() {
    let mut ranges =
        vec![rows(0, 100), rows(0, 1), rows(99, 100), rows(7, 8), rows(8, 9), rows(5, 5), rows(0, 0), rows(100, 100)];
    ranges.push(rows(10, 90));
    for range in ranges {
        let circuit = of(ONE, one(range));
        assert_eq!(circuit.check(), Ok(()), "{range:?}");
        assert_caught(&circuit, &[], &[]);
    }
    let segments: Vec<_> = (0..3).map(|i| Segment::with_lane(i, 10 + i)).collect();
    for live in 0..=3 {
        let shape = RangeSumShape { segments: 3, tree_levels: 1 };
        let db = Database::with_live(1, segments.clone(), live);
        let circuit = of(shape, fixture::range_sum(&db, &[rows(0, 10), rows(3, 9), rows(2, 2)]));
        assert_eq!(circuit.check(), Ok(()), "{live} live");
        assert_caught(&circuit, &[], &[]);
    }
}

#[test]
fn queries_longer_than_one_chunk_are_digested_as_natively() {
    let shape = RangeSumShape { segments: 5, tree_levels: 1 };
    for live in [4, 5] {
        let segments = (0..live).map(|i| Segment::with_lane(i, 10)).collect();
        let made = fixture::range_sum(&Database::new(1, segments), &[rows(1, 9); 5]);
        let circuit = of(shape, made);
        assert_eq!(circuit.check(), Ok(()));
        assert_caught(&circuit, &[], &[]);
        assert!(broken(&circuit, &[lie("query chunk", 0, 1u64)]).contains("query chunk"));
    }
    let too_wide = RangeSumShape { segments: 8, tree_levels: 1 };
    assert!(crate::pin::Matrices::of(fluence_types::shape::CircuitId::RangeSum(too_wide)).is_err());
}

#[test]
fn each_public_input_is_bound() {
    assert_inputs_bound(&fixture::tiny_range_sum().2, RangeSumCircuit::set_input);
}

#[test]
fn no_witness_is_free() {
    // The word in a cell that is not wanted may be any: three bits, for the second segment's run from the first row.
    let changed = assert_no_free_witness(&fixture::tiny_range_sum().2, 3);
    println!("{changed} witnesses of range_sum changed one by one, each refused");
    // With an unused slot, an empty run and a run from the first row, too.
    let db = Database::new(4, vec![Segment::with_lane(1, 20)]);
    for (range, unwanted) in [(rows(0, 9), 3), (rows(3, 3), 4)] {
        assert_no_free_witness(&of(TINY, fixture::range_sum(&db, &[range])), 3 * unwanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn circuit_and_native_twin_agree(lo in 0u64..=100, len in 0u64..=100, spoil in 0usize..9, at in 0usize..7) {
        let db = fixture::two_live_segments();
        let (mut statement, mut w) = fixture::range_sum(&db, &[rows(lo.min(100 - len), lo.min(100 - len) + len), rows(1, 17)]);
        match spoil {
            1 => w.segments[1].directory.cell[at] += Fr::one(),
            2 => w.query.ranges[1].hi -= 1,
            3 => w.query.lane = LaneId(0),
            4 => w.catalogue.entry.version = Version(1),
            5 => w.segments[1].preimage.cells += 1,
            6 => w.segments[1].hi.as_mut().unwrap().siblings[0][at] += Fr::one(),
            7 => statement.sum = FieldBytes::from_u64(1),
            8 => w.catalogue.path[3][at] = FieldBytes::from_u64(1),
            _ => {}
        }
        let circuit = of(TINY, (statement, w));
        prop_assert_eq!(circuit.check().is_ok(), broken(&circuit, &[]).is_empty());
    }
}

#[test]
fn native_twin_names_what_is_wrong() {
    let (statement, mut w) = one(rows(10, 90));
    w.segments[0].hi = None;
    let e = super::check_range_sum(ONE, &statement, &w).unwrap_err();
    assert!(matches!(&e, WitnessError::Segment { segment: 0, why } if why.contains("row 89")), "{e}");
    w.segments.clear();
    let e = super::check_range_sum(ONE, &statement, &w).unwrap_err();
    assert_eq!(e, WitnessError::Count { what: "openings", got: 0, want: 1 });
}

// --- which segments

#[test]
fn rejects_an_omitted_live_segment() {
    // Two are live; the liar answers from the first alone.
    let db = fixture::two_live_segments();
    let (mut statement, mut w) = fixture::range_sum(&db, &[rows(10, 90), rows(0, 17)]);
    w.segments.pop();
    w.query.ranges.pop();
    statement = restated(statement, &w);
    assert_caught(&of(TINY, (statement, w.clone())), &[], &["database root"]);
    // The same with the entry shortened as well: the catalogue holds another.
    w.catalogue.entry.live = vec![db.segments[0].root()].try_into().unwrap();
    assert_caught(&of(TINY, (statement, w)), &[], &["database root"]);
    // A slot between two: the first n, or none.
    let circuit = of(TINY, fixture::range_sum(&db, &[rows(10, 90), rows(0, 17)]));
    assert!(broken(&circuit, &[lie("live", 0, 0u64)]).contains("live in order"));
    assert!(broken(&circuit, &[lie("live", 1, 2u64)]).contains("live"));
}

#[test]
fn rejects_a_superseded_segment_and_live_ones_out_of_order() {
    let segments = [Segment::with_lane(1, 50), Segment::with_lane(2, 50)];
    let (first, second) = (Database::new(1, vec![segments[0].clone()]), Database::new(1, vec![segments[1].clone()]));
    let (statement, honest) = fixture::range_sum(&first, &[rows(1, 9)]);
    let (_, old) = fixture::range_sum(&second, &[rows(1, 9)]);
    let mut w = honest;
    w.segments = old.segments;
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["database root"]);
    let (statement, mut w) = fixture::range_sum(&fixture::two_live_segments(), &[rows(1, 9), rows(1, 9)]);
    w.segments.swap(0, 1);
    assert_caught(&of(TINY, (restated(statement, &w), w)), &[], &["database root"]);
}

#[test]
fn rejects_a_range_for_a_slot_without_a_segment() {
    let db = Database::new(4, vec![Segment::with_lane(1, 20)]);
    let made = of(TINY, fixture::range_sum(&db, &[rows(2, 9)]));
    let caught = broken(&made, &[lie("hi", 1, 5u64)]);
    assert!(caught.contains("range of no segment"), "{caught:?}");
    let caught = broken(&made, &[lie("lo", 1, 5u64), lie("hi", 1, 5u64)]);
    assert!(caught.contains("range of no segment"), "{caught:?}");
}

#[test]
fn rejects_a_segment_claimed_live_by_its_product_alone() {
    let made = of(ONE, one(rows(1, 9)));
    assert!(broken(&made, &[lie("live segment", 0, 7u64)]).contains("live segment"));
}

// --- which projection, which lane

#[test]
fn rejects_another_projection_at_its_own_place() {
    // The entry of projection 9 stored as leaf 2 of a catalogue.
    let (mut statement, mut w) = one(rows(1, 9));
    let mut catalogue = roots::Catalogue::new(&[]);
    catalogue.set(2, roots::catalogue_leaf(&w.catalogue.entry));
    w.catalogue.db.catalogue_root = catalogue.root();
    w.catalogue.path = catalogue.path(2);
    statement.db_root = roots::db_root(&w.catalogue.db);
    assert_caught(&of(ONE, (statement, w.clone())), &[], &["database root"]);
    // An entry that says another projection than the query.
    let (statement, mut w) = one(rows(1, 9));
    w.query.projection = ProjectionId(2);
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["query digest"]);
}

#[test]
fn rejects_an_entry_of_another_version_schema_or_table() {
    for spoil in 0..3 {
        let (statement, mut w) = one(rows(1, 9));
        match spoil {
            0 => w.catalogue.entry.version = Version(8),
            1 => w.catalogue.entry.schema = fluence_types::SchemaHash::from_bytes([1; 32]),
            _ => w.catalogue.entry.table = fluence_types::TableId(4),
        }
        assert_caught(&of(ONE, (statement, w)), &[], &["database root"]);
    }
}

#[test]
fn rejects_a_lane_that_is_no_sum_lane() {
    let bytes = Fr::from(LaneKind::Bytes as u64);
    assert_caught(&of(ONE, with_directory(rows(1, 9), |d| d[0] = bytes)), &[], &["lane kind"]);
    for padding in 4..8 {
        let made = with_directory(rows(1, 9), |d| d[padding] = Fr::one());
        assert_caught(&of(ONE, made), &[], &["directory padding"]);
    }
    // The byte lane beside it, asked for as if it held sums.
    let (statement, mut w) = one(rows(1, 9));
    w.query.lane = LaneId(0);
    w.segments[0].directory = Segment::with_lane(3, 100).open(1);
    let caught = broken(&of(ONE, (restated(statement, &w), w)), &[]);
    assert!(caught.contains("lane kind") && caught.contains("directory padding"), "{caught:?}");
}

#[test]
fn rejects_the_directory_of_another_lane() {
    // Two sum lanes: the query names lane 1, the liar opens the entry of lane 2, which lies four cells further on.
    let mut cells = Segment::with_lane(3, 40).cells;
    let mut entry = cells[2];
    entry[1] += Fr::one();
    entry[2] -= Fr::from(2u64);
    entry[3] = Fr::from(24u64);
    cells[3] = entry;
    let segment = Segment::of(cells);
    let db = Database::new(1, vec![segment.clone()]);
    let (statement, mut w) = fixture::range_sum(&db, &[rows(1, 9)]);
    w.segments[0].directory = segment.open(3);
    w.segments[0].lo = Some(segment.open(CELLS_BEFORE_LANE + 1));
    w.segments[0].hi = Some(segment.open(CELLS_BEFORE_LANE + 2));
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["directory index"]);
}

#[test]
fn rejects_a_made_up_directory() {
    let (statement, mut w) = one(rows(1, 9));
    w.segments[0].directory.cell[3] += Fr::from(4u64);
    assert_caught(&of(ONE, (statement, w)), &[], &["directory path"]);
}

#[test]
fn rejects_lanes_whose_numbers_do_not_fit() {
    // More rows than its cells hold, fewer, and numbers that are no counts.
    assert_caught(&of(ONE, with_directory(rows(1, 9), |d| d[3] += Fr::from(8u64))), &[], &["lane rows"]);
    assert_caught(&of(ONE, with_directory(rows(1, 9), |d| d[2] += Fr::one())), &[], &["lane rows"]);
    let eighth = Fr::one() / Fr::from(8u64);
    // rows = 101 in 101/8 cells, as the field sees it.
    let made = with_directory(rows(1, 9), |d| (d[3], d[2]) = (Fr::from(101u64), Fr::from(101u64) * eighth));
    assert_caught(&of(ONE, made), &[], &["lane cells"]);
    // A first cell of 5 - 1/8 would move every row by one.
    let mut cells = Segment::with_lane(3, 100).cells;
    cells[2][1] -= eighth;
    let segment = Segment::of(cells);
    let (statement, mut w) = fixture::range_sum(&Database::new(1, vec![segment.clone()]), &[rows(0, 9)]);
    w.segments[0].hi = Some(segment.open(CELLS_BEFORE_LANE + 1));
    let statement = RangeSum { sum: field::to_bytes(&segment.cells[6][1]), ..restated(statement, &w) };
    let caught = broken(&of(ONE, (statement, w)), &[lie("row in cell", 0, 1u64)]);
    assert!(caught.contains("lane first cell"), "{caught:?}");
}

// --- which rows

#[test]
fn rejects_lo_above_hi() {
    let (statement, mut w) = one(rows(3, 20));
    w.query.ranges[0] = rows(20, 3);
    let segment = &mut w.segments[0];
    std::mem::swap(&mut segment.lo, &mut segment.hi);
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["lo at most hi"]);
}

#[test]
fn rejects_hi_beyond_the_rows() {
    // 100 rows fill 12 cells and a half: row 100 is padding in the lane's last cell.
    let (statement, mut w) = one(rows(3, 100));
    w.query.ranges[0].hi = 101;
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["hi at most rows"]);
}

#[test]
fn rejects_ends_beyond_2_to_the_40() {
    let (statement, mut w) = one(rows(3, 100));
    w.query.ranges[0].hi = 1 << 41;
    let circuit = of(ONE, (restated(statement, &w), w));
    assert!(circuit.check().is_err());
    assert!(!broken(&circuit, &[]).is_empty());
}

#[test]
fn rejects_other_rows_than_asked() {
    let (statement, mut w) = one(rows(3, 20));
    let segment = Segment::with_lane(3, 100);
    w.segments[0].hi = Some(segment.open(CELLS_BEFORE_LANE + 3));
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["row"]);
    let (statement, w) = one(rows(3, 20));
    let word = |w: &RangeSumWitness, i: usize| w.segments[0].hi.as_ref().unwrap().cell[i];
    let lower = w.segments[0].lo.as_ref().unwrap().cell[2];
    let statement = RangeSum { sum: field::to_bytes(&(word(&w, 5) - lower)), ..statement };
    // The first of the two openings is the upper end's.
    assert_caught(&of(ONE, (statement, w)), &[lie("row in cell", 0, 5u64)], &["row"]);
}

#[test]
fn rejects_a_made_up_prefix_sum() {
    for upper in [true, false] {
        let (statement, mut w) = one(rows(3, 20));
        let segment = &mut w.segments[0];
        let opening = if upper { &mut segment.hi } else { &mut segment.lo };
        opening.as_mut().unwrap().cell = [Fr::from(9u64); 8];
        assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["sum path"]);
    }
}

#[test]
fn rejects_a_term_left_out() {
    let (statement, w) = one(rows(3, 20));
    let upper = w.segments[0].hi.as_ref().unwrap().cell[3];
    let without_lower = RangeSum { sum: field::to_bytes(&upper), ..statement };
    let circuit = of(ONE, (without_lower, w.clone()));
    assert_caught(&circuit, &[lie("run from the first row", 0, 1u64)], &["run from the first row"]);
    assert_caught(&circuit, &[lie("lower term", 0, 0u64)], &["lower term"]);
    assert_caught(&circuit, &[lie("term", 1, 0u64)], &["term"]);
    assert_caught(&circuit, &[], &["sum"]);
    let nothing = RangeSum { sum: FieldBytes::ZERO, ..statement };
    assert_caught(&of(ONE, (nothing, w)), &[lie("empty run", 0, 1u64)], &["empty run"]);
}

#[test]
fn rejects_a_term_where_the_run_is_empty_or_starts_at_the_first_row() {
    // lo = 0: a lower term of the liar's choosing, from a cell that is in the lane.
    let segment = Segment::with_lane(3, 100);
    let (statement, mut w) = one(rows(0, 20));
    w.segments[0].lo = Some(segment.open(CELLS_BEFORE_LANE));
    let made = of(ONE, (statement, w));
    assert_caught(&made, &[], &[]);
    let caught = broken(&made, &[lie("run from the first row", 0, 0u64)]);
    assert!(caught.contains("run from the first row") && caught.contains("row"), "{caught:?}");
    // lo = hi.
    let (statement, mut w) = one(rows(5, 5));
    w.segments[0].hi = Some(segment.open(CELLS_BEFORE_LANE));
    let caught = broken(&of(ONE, (statement, w)), &[lie("empty run", 0, 0u64)]);
    assert!(caught.contains("empty run"), "{caught:?}");
}

#[test]
fn rejects_cells_beyond_the_segment() {
    // A directory whose lane starts behind the segment's last cell, in the zero cells of the padded tree.
    let mut cells = Segment::with_lane(3, 100).cells;
    let count = cells.len() as u64;
    cells[2][1] = Fr::from(count);
    let truth = Segment::of(cells.clone());
    cells.resize(64, [Fr::zero(); 8]);
    let padded = Segment::of(cells);
    assert_eq!(padded.tree.root(), truth.tree.root());
    let (statement, mut w) = fixture::range_sum(&Database::new(1, vec![truth]), &[rows(3, 20)]);
    w.segments[0].lo = Some(padded.open(count));
    w.segments[0].hi = Some(padded.open(count + 2));
    assert_caught(&of(ONE, (restated(statement, &w), w)), &[], &["cell index below cells"]);
}

#[test]
fn rejects_wrong_depth_and_wrong_counts() {
    let made = of(ONE, one(rows(3, 20)));
    for level in 0..2 {
        assert!(broken(&made, &[lie("segment levels", level, 1u64)]).contains("segment levels"));
    }
    assert!(broken(&made, &[lie("segment cells", 0, 7u64)]).contains("database root"));
    assert!(broken(&made, &[lie("tree level", 0, 7u64)]).contains("tree level"));
    // The directory is cell 2.
    assert!(broken(&made, &[lie("tree child", 2, 7u64)]).contains("tree child"));
    assert!(broken(&made, &[lie("prefix sum", 0, 7u64)]).contains("prefix sum"));
    for named in ["segment cells named", "projection named", "lane named", "lo named", "hi named"] {
        assert!(broken(&made, &[lie(named, 0, 7u64)]).contains(named), "{named}");
    }
}
