//! Openings, headers and witnesses, checked with the functions that verifiers and circuits use.

use fluence_crypto::roots::{db_root, holdings_root, verify_catalogue};
use fluence_crypto::seed::{challenge, scale};
use fluence_crypto::tree::{Path, check_path, header_hash, multi_root, segment_root};
use fluence_crypto::witness::CellOpening;
use fluence_crypto::{Fr, field, sum_tree};
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{Engine, EngineConfig, MemStore, WitnessError};
use fluence_types::answer::{CellRange, OpenRefusal, OpenRequest, SegmentRanges};
use fluence_types::limits::OPEN_CELLS_MAX;
use fluence_types::segment::SegmentHeader;
use fluence_types::shape::StorageShape;
use fluence_types::statement::{RangeSumQuery, RowRange, Storage};
use fluence_types::tree::SegmentPreimage;
use fluence_types::{DatabaseId, FieldBytes, HoldingsRoot, LaneId, ProjectionId, SegmentRoot, Version};
use std::sync::Arc;

fn engine() -> Engine {
    Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).unwrap()
}

/// A database whose segments have 1 page, several pages, and more than 8 pages.
fn stored(engine: &Engine, seed: u64, rows: &[u64]) -> (TestDb, Vec<TestSegment>) {
    let mut db = TestDb::new(seed, 1);
    db.create(engine).unwrap();
    db.act(engine, define(0, schema(1, 2))).unwrap().unwrap();
    let mut segments = Vec::new();
    for (i, rows) in rows.iter().enumerate() {
        let segment = TestSegment::new(seed * 100 + i as u64, &schema(1, 2), *rows, 11);
        let checked = segment.upload(engine, db.db, 100_000).unwrap();
        let delivery = db.receipts(&checked, 1);
        let op = commit(&[(0, i as u64)], vec![change(0, vec![segment.delivered(delivery)], vec![])]);
        db.act(engine, op).unwrap().unwrap();
        segments.push(segment);
    }
    (db, segments)
}

fn request(db: &TestDb, segments: &[TestSegment], ranges: &[&[(u64, u64)]]) -> OpenRequest {
    let segments: Vec<SegmentRanges> = segments
        .iter()
        .zip(ranges)
        .map(|(s, ranges)| SegmentRanges {
            segment: s.root(),
            ranges: ranges
                .iter()
                .map(|(first, count)| CellRange { first: *first, count: *count })
                .collect::<Vec<_>>()
                .try_into()
                .unwrap(),
        })
        .collect();
    let version = Version(segments.len() as u64);
    OpenRequest { db: db.db, projection: ProjectionId(0), version, segments: segments.try_into().unwrap() }
}

#[test]
fn opened_cells_are_the_segments_own_and_make_its_root() {
    let engine = engine();
    let (db, segments) = stored(&engine, 1, &[1, 700, 5000]);
    let last = segments[2].preimage.cells;
    assert!(segments[0].preimage.cells <= 8 && last > 64 * 8 * 2);
    type Ranges<'a> = [&'a [(u64, u64)]; 3];
    let whole: Ranges = [&[(0, segments[0].preimage.cells)], &[(0, segments[1].preimage.cells)], &[(0, last)]];
    let mixed: Ranges = [&[(2, 1)], &[(0, 3), (9, 60), (100, 1)], &[(5, 1), (63, 2), (500, 30), (last - 1, 1)]];
    let none: Ranges = [&[], &[], &[(last - 1, 1)]];
    for ranges in [whole, mixed, none] {
        let request = request(&db, &segments, &ranges);
        let (opening, opened) = engine.open_cells(&request).unwrap();
        assert_eq!(verify_catalogue(&opening).unwrap(), engine.checkpoint(db.db).unwrap().root);
        for (i, opened) in opened.iter().enumerate() {
            let indices: Vec<u64> = ranges[i].iter().flat_map(|(first, count)| *first..first + count).collect();
            let wanted: Vec<_> = indices.iter().map(|c| segments[i].cells[*c as usize]).collect();
            assert_eq!(opened.cells, wanted);
            assert_eq!(opened.preimage, segments[i].preimage);
            if indices.is_empty() {
                assert!(opened.siblings.is_empty());
                continue;
            }
            let cells: Vec<(u64, [Fr; 8])> =
                indices.iter().zip(&opened.cells).map(|(i, c)| (*i, field::cell_to_fr(c))).collect();
            let siblings: Vec<Fr> = opened.siblings.iter().map(field::from_bytes).collect();
            let root = multi_root(opened.preimage.cells, &cells, &siblings).unwrap();
            assert_eq!(field::to_bytes(&root), opened.preimage.tree_root);
        }
    }
}

#[test]
fn refuses_requests_that_are_stale_malformed_or_too_large() {
    let engine = engine();
    let (db, segments) = stored(&engine, 1, &[1, 700]);
    let good = request(&db, &segments, &[&[], &[(0, 3)]]);
    assert!(engine.open_cells(&good).is_ok());
    let refusal = |r: &OpenRequest| engine.open_cells(r).unwrap_err();
    let mut bad = good.clone();
    bad.version = Version(1);
    assert_eq!(refusal(&bad), OpenRefusal::Moved(Version(2)));
    let mut bad = good.clone();
    bad.projection = ProjectionId(1);
    assert_eq!(refusal(&bad), OpenRefusal::UnknownProjection(ProjectionId(1)));
    let mut bad = good.clone();
    bad.db = DatabaseId::from_bytes([7; 16]);
    assert_eq!(refusal(&bad), OpenRefusal::UnknownDatabase(bad.db));
    let cells = segments[1].preimage.cells;
    for ranges in [
        vec![(0, 0)],
        vec![(cells, 1)],
        vec![(cells - 1, 2)],
        vec![(3, 1), (1, 1)],
        vec![(3, 1), (4, 1)],
        vec![(u64::MAX, 1)],
        vec![(0, OPEN_CELLS_MAX + 1)],
    ] {
        assert!(matches!(refusal(&request(&db, &segments, &[&[], &ranges])), OpenRefusal::BadRequest(_)), "{ranges:?}");
    }
    let swapped = [segments[1].clone(), segments[0].clone()];
    assert!(matches!(refusal(&request(&db, &swapped, &[&[], &[]])), OpenRefusal::BadRequest(_)));
    let mut short = request(&db, &segments[..1], &[&[]]);
    short.version = Version(2);
    assert!(matches!(refusal(&short), OpenRefusal::BadRequest(_)), "a live segment left out");
}

#[test]
fn headers_are_served_and_have_the_hash_in_the_root() {
    let engine = engine();
    let (db, segments) = stored(&engine, 1, &[1, 5000]);
    let view = engine.view(db.db).unwrap();
    for segment in &segments {
        let answer = view.header(segment.root()).unwrap();
        assert_eq!(header_hash(&answer.cells), answer.preimage.header_hash);
        assert_eq!(segment_root(&answer.preimage), segment.root());
        assert_eq!(SegmentHeader::from_cells(&answer.cells).unwrap(), segment.header);
    }
    let unknown = SegmentRoot::from_field(FieldBytes::from_u64(3));
    assert_eq!(view.header(unknown).unwrap_err(), OpenRefusal::UnknownSegment(unknown));
    assert!(matches!(view.page(segments[0].root(), 1).unwrap_err(), OpenRefusal::BadRequest(_)));
}

fn opens(segment: &SegmentPreimage, opening: &CellOpening) {
    let path = Path { index: opening.index, siblings: opening.siblings.clone() };
    check_path(&field::from_bytes(&segment.tree_root), segment.cells, opening.index, &opening.cell, &path).unwrap();
}

fn seed(n: u64) -> FieldBytes {
    FieldBytes::from_u128(u128::from(n) << 70 | 12345)
}

const SHAPE: StorageShape = StorageShape { samples: 40, holdings_levels: 1, stored_levels: 1, tree_levels: 4 };

#[test]
fn storage_samples_follow_from_the_seed_and_open_from_the_cell_to_the_holdings_root() {
    let engine = engine();
    let (a, _) = stored(&engine, 1, &[1, 700]);
    let (b, _) = stored(&engine, 2, &[5000]);
    let mut ids = vec![a.db, b.db];
    ids.sort_unstable();
    let holdings = engine.holdings(&ids).unwrap();
    let preimage = holdings.preimage.unwrap();
    assert_eq!(holdings_root(&preimage), holdings.root);
    let statement = Storage { root: holdings.root, total_cells: holdings.total_cells, seed: seed(9) };
    let witness = engine.storage_witness(&ids, &statement, SHAPE).unwrap();
    assert_eq!(witness.holdings, Some(preimage));
    let mut hit = [0; 2];
    for (k, sample) in witness.samples.iter().enumerate() {
        opens(&sample.segment, &sample.cell);
        let leaf = (field::from_bytes(&segment_root(&sample.segment).to_field()), sample.segment.cells);
        let stored_root = field::from_bytes(&sample.db.stored_root.to_field());
        let in_db = sum_tree::verify(&stored_root, sample.db.stored_cells, &leaf, &sample.stored).unwrap();
        let db_leaf = (field::from_bytes(&db_root(&sample.db).to_field()), sample.db.stored_cells);
        let sum_root = field::from_bytes(&preimage.sum_root);
        let before = sum_tree::verify(&sum_root, preimage.total_cells, &db_leaf, &sample.holdings).unwrap();
        let position = in_db + sample.cell.index;
        let (r, s) = challenge(&field::from_bytes(&statement.seed), k as u64);
        if k % 2 == 0 {
            assert_eq!(before + position, scale(r, preimage.total_cells));
        } else {
            assert_eq!(sample.holdings.slot, scale(r, 2));
            assert_eq!(position, scale(s, sample.db.stored_cells));
        }
        hit[sample.holdings.slot as usize] += 1;
    }
    assert!(hit[0] > 0 && hit[1] > 0, "both databases are asked: {hit:?}");
}

#[test]
fn storage_of_a_single_database_stands_under_its_own_root_or_under_a_holdings_root() {
    let engine = engine();
    let (db, segments) = stored(&engine, 1, &[700, 30, 5000, 1, 90]);
    let shape = StorageShape { stored_levels: 2, ..SHAPE };
    for holdings in [engine.holdings_of_one(db.db).unwrap(), engine.holdings(&[db.db]).unwrap()] {
        let statement = Storage { root: holdings.root, total_cells: holdings.total_cells, seed: seed(1) };
        let witness = engine.storage_witness(&[db.db], &statement, shape).unwrap();
        assert_eq!(witness.holdings, holdings.preimage);
        for sample in &witness.samples {
            opens(&sample.segment, &sample.cell);
            assert!(sample.holdings.levels.is_empty());
            assert_eq!(db_root(&sample.db), engine.checkpoint(db.db).unwrap().root);
            let own = segments.iter().find(|s| s.preimage == sample.segment).unwrap();
            assert_eq!(field::cell_from_fr(&sample.cell.cell), own.cells[sample.cell.index as usize]);
        }
    }
}

#[test]
fn refuses_storage_statements_about_another_root_or_total_or_a_tree_too_high() {
    let engine = engine();
    let (db, _) = stored(&engine, 1, &[700, 30]);
    let holdings = engine.holdings_of_one(db.db).unwrap();
    let good = Storage { root: holdings.root, total_cells: holdings.total_cells, seed: seed(1) };
    let ask = |dbs: &[DatabaseId], s: &Storage, shape| engine.storage_witness(dbs, s, shape).map(|_| ()).unwrap_err();
    let other_root = Storage { root: HoldingsRoot::default(), ..good };
    assert!(matches!(ask(&[db.db], &other_root, SHAPE), WitnessError::Root { .. }));
    let other_total = Storage { total_cells: good.total_cells + 1, ..good };
    assert!(matches!(ask(&[db.db], &other_total, SHAPE), WitnessError::Root { .. }));
    assert_eq!(ask(&[], &good, SHAPE), WitnessError::Databases);
    assert_eq!(ask(&[db.db, db.db], &good, SHAPE), WitnessError::Databases);
    let low = StorageShape { stored_levels: 0, ..SHAPE };
    assert!(matches!(
        ask(&[db.db], &good, low),
        WitnessError::Shape { what: "the tree over segments", got: 1, limit: 0 }
    ));
    let low = StorageShape { tree_levels: 1, ..SHAPE };
    assert!(matches!(ask(&[db.db], &good, low), WitnessError::Shape { what: "a segment", .. }));
    let mut empty = TestDb::new(5, 1);
    empty.create(&engine).unwrap();
    assert_eq!(ask(&[empty.db], &good, SHAPE), WitnessError::Empty(empty.db));
    let unknown = DatabaseId::from_bytes([1; 16]);
    assert_eq!(ask(&[unknown], &good, SHAPE), OpenRefusal::UnknownDatabase(unknown).into());
}

#[test]
fn a_range_sum_is_the_difference_of_two_prefix_sums_of_every_live_segment() {
    let engine = engine();
    let (db, segments) = stored(&engine, 1, &[1, 700, 300]);
    let lane = 2usize;
    let p = |s: usize, boundary: u64| match boundary {
        0 => Fr::from(0u64),
        b => field::from_bytes(&segments[s].prefix(lane, b - 1)),
    };
    for ranges in [[(0, 1), (0, 700), (17, 300)], [(0, 0), (8, 9), (300, 300)], [(1, 1), (699, 700), (0, 1)]] {
        let query = RangeSumQuery {
            db: db.db,
            projection: ProjectionId(0),
            lane: LaneId(lane as u16),
            ranges: ranges.iter().map(|(lo, hi)| RowRange { lo: *lo, hi: *hi }).collect(),
        };
        let (witness, statement) = engine.range_sum_witness(&query).unwrap();
        let mut want = Fr::from(0u64);
        for (s, (lo, hi)) in ranges.iter().enumerate() {
            let part = &witness.segments[s];
            opens(&part.preimage, &part.directory);
            assert_eq!(part.directory.index, 1 + lane as u64);
            part.lo.iter().chain(&part.hi).for_each(|opening| opens(&part.preimage, opening));
            assert_eq!(part.hi.is_some(), lo < hi);
            assert_eq!(part.lo.is_some(), lo < hi && *lo > 0);
            if lo < hi {
                want += p(s, *hi) - p(s, *lo);
            }
        }
        assert_eq!(statement.sum, field::to_bytes(&want));
        assert_eq!(statement.db_root, engine.checkpoint(db.db).unwrap().root);
        assert_eq!(verify_catalogue(&witness.catalogue).unwrap(), statement.db_root);
        assert_eq!(statement.query_digest, fluence_crypto::roots::query_digest(&query));
    }
}

#[test]
fn refuses_range_sums_outside_the_rows_or_over_a_byte_lane() {
    let engine = engine();
    let (db, _) = stored(&engine, 1, &[1, 700]);
    let query = |lane, ranges: &[(u64, u64)]| RangeSumQuery {
        db: db.db,
        projection: ProjectionId(0),
        lane: LaneId(lane),
        ranges: ranges.iter().map(|(lo, hi)| RowRange { lo: *lo, hi: *hi }).collect(),
    };
    assert!(engine.range_sum_witness(&query(1, &[(0, 1), (0, 700)])).is_ok());
    for bad in [
        query(0, &[(0, 1), (0, 700)]),
        query(3, &[(0, 1), (0, 700)]),
        query(1, &[(0, 1)]),
        query(1, &[(0, 1), (0, 701)]),
        query(1, &[(0, 1), (5, 4)]),
    ] {
        let refusal = engine.range_sum_witness(&bad).unwrap_err();
        assert!(matches!(refusal, WitnessError::Open(OpenRefusal::BadRequest(_))), "{bad:?}");
    }
}
