//! Uploads: resumed, refused, limited, expired; and the tree built page by page is the tree built at once.

use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{CheckedUpload, Engine, EngineConfig, MemStore, Rules, SegmentError, Store, UploadError};
use fluence_types::segment::SegmentHeader;
use fluence_types::{DatabaseId, FieldBytes, Height, SegmentRoot};
use std::sync::Arc;

const CONFIG: EngineConfig = EngineConfig {
    rules: Rules::retaining(3),
    upload_blocks: 2,
    upload_margin_blocks: 1,
    upload_bytes_max: 8 << 20,
    uploads_max: 3,
};

fn open(store: &Arc<MemStore>) -> Engine {
    Engine::open(store.clone(), CONFIG).unwrap()
}

fn prepared() -> (Arc<MemStore>, Engine, TestDb) {
    let store = Arc::new(MemStore::new());
    let (engine, mut db) = (open(&store), TestDb::new(1, 1));
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
    (store, engine, db)
}

fn segment(seed: u64, rows: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), rows, 10)
}

#[test]
fn a_segment_of_any_size_builds_its_root_in_chunks_of_any_size_across_restarts() {
    let (store, mut engine, db) = prepared();
    // One page; a page exactly or nearly; 8 pages and one more; beyond 64 pages.
    for (seed, rows) in [(1, 1), (2, 20), (3, 340), (4, 360), (5, 2900), (6, 3300), (7, 25_000)] {
        let s = segment(seed, rows);
        let all = s.bytes();
        for chunk in [all.len(), 16_384, 50_000] {
            let mut have = engine.begin_upload(db.db, &s.preimage).unwrap() as usize;
            assert_eq!(have, 0);
            let mut restarts = 0;
            while have < all.len() {
                let to = all.len().min(have + chunk);
                have = engine.append_upload(s.root(), have as u64, &all[have..to]).unwrap() as usize;
                assert_eq!(have, to);
                if restarts < 3 {
                    restarts += 1;
                    engine = open(&store);
                    // Whole pages are kept; the end of the last one is sent again.
                    have = engine.begin_upload(db.db, &s.preimage).unwrap() as usize;
                    assert!(have == to || have == to / 16_384 * 16_384, "{have} of {to}");
                }
                if have == to / 16_384 * 16_384 && have < to && to - have < chunk {
                    have = engine.append_upload(s.root(), have as u64, &all[have..to]).unwrap() as usize;
                }
            }
            let checked = engine.finish_upload(s.root()).unwrap();
            let (id, schema) = (s.header.id, s.header.schema);
            let want = CheckedUpload { db: db.db, preimage: s.preimage, id, rows, schema, expiry: Height(3) };
            assert_eq!(checked, want);
            assert_eq!(open(&store).finish_upload(s.root()).unwrap(), want, "asked again, it says the same");
            assert_eq!(engine.begin_upload(db.db, &s.preimage).unwrap(), all.len() as u64);
            // Start anew for the next chunk size.
            wipe_uploads(&store);
            engine = open(&store);
        }
    }
}

/// Forgets all uploads, as if nobody had begun one.
fn wipe_uploads(store: &MemStore) {
    use fluence_engine::keys::{Cf, UPLOAD};
    use fluence_engine::store::{Batch, Durability};
    let mut batch = Batch::new();
    for (key, _) in store.scan(Cf::State, &[UPLOAD], None, 100).unwrap() {
        batch.delete(Cf::State, key);
    }
    for cf in [Cf::Pages, Cf::Nodes] {
        for (key, _) in store.scan(cf, &[], None, 100_000).unwrap() {
            batch.delete(cf, key);
        }
    }
    store.commit(batch, Durability::Synced).unwrap();
}

fn records(store: &MemStore) -> usize {
    use fluence_engine::keys::Cf;
    [Cf::Pages, Cf::Nodes].map(|cf| store.scan(cf, &[], None, 100_000).unwrap().len()).iter().sum()
}

#[test]
fn refuses_chunks_out_of_place_too_long_or_not_canonical() {
    let (store, engine, db) = prepared();
    let s = segment(1, 1200);
    let all = s.bytes();
    let unknown = SegmentRoot::from_field(FieldBytes::from_u64(1));
    assert!(matches!(engine.append_upload(unknown, 0, &all), Err(UploadError::Unknown(_))));
    assert!(matches!(engine.finish_upload(unknown), Err(UploadError::Unknown(_))));
    engine.begin_upload(db.db, &s.preimage).unwrap();
    assert!(matches!(engine.append_upload(s.root(), 1, &all), Err(UploadError::Offset { got: 1, have: 0 })));
    let long = [&all[..], &[0]].concat();
    assert!(matches!(engine.append_upload(s.root(), 0, &long), Err(UploadError::Overrun { .. })));
    engine.append_upload(s.root(), 0, &all[..20_000]).unwrap();
    assert!(matches!(engine.append_upload(s.root(), 0, &all), Err(UploadError::Offset { got: 0, have: 20_000 })));
    let need = all.len() as u64;
    assert!(
        matches!(engine.finish_upload(s.root()), Err(UploadError::Incomplete { have: 20_000, need: n }) if n == need)
    );
    // Those refusals cost nothing; a scalar that is not canonical costs the upload.
    let mut bad = all[20_000..].to_vec();
    bad[0] = 0xff;
    assert!(matches!(engine.append_upload(s.root(), 20_000, &bad), Err(UploadError::Scalar(78))));
    assert!(matches!(engine.append_upload(s.root(), 20_000, &all[20_000..]), Err(UploadError::Unknown(_))));
    assert_eq!(records(&store), 0, "nothing of it is left");
    assert_eq!(engine.begin_upload(db.db, &s.preimage).unwrap(), 0);
}

#[test]
fn refuses_segments_whose_tree_header_or_lanes_are_wrong_and_keeps_nothing_of_them() {
    let (store, engine, db) = prepared();
    let good = segment(1, 360);
    let upload = |s: &TestSegment| match s.upload(&engine, db.db, 30_000) {
        Err(UploadError::Segment(e)) => e,
        other => panic!("{other:?}"),
    };
    let mut other_root = good.clone();
    other_root.preimage.tree_root = FieldBytes::from_u64(5);
    assert!(matches!(upload(&other_root), SegmentError::Root));
    let mut flipped = good.clone();
    flipped.cells[50][3] = FieldBytes::from_u64(1);
    assert!(matches!(upload(&flipped), SegmentError::Root));
    let mut other_hash = good.clone();
    other_hash.preimage.header_hash = fluence_types::HeaderHash::from_bytes([1; 32]);
    assert!(matches!(upload(&other_hash), SegmentError::HeaderHash));
    let rebuilt = |change: &dyn Fn(&mut SegmentHeader)| {
        let mut header = good.header.clone();
        change(&mut header);
        let cells = [header.to_cells(), good.cells[good.header.cells() as usize..].to_vec()].concat();
        let hash = fluence_crypto::tree::header_hash(&header.to_cells());
        TestSegment::of_cells(header, cells, hash)
    };
    assert!(matches!(upload(&rebuilt(&|h| h.lanes[1].first_cell += 1)), SegmentError::Header(_)));
    assert!(matches!(upload(&rebuilt(&|h| h.rows += 1)), SegmentError::Header(_)));
    assert!(matches!(upload(&rebuilt(&|h| h.schema = Default::default())), SegmentError::Schema(_)));
    let mut longer = good.clone();
    longer.cells.push([FieldBytes::ZERO; 8]);
    let longer = TestSegment::of_cells(longer.header, longer.cells, good.preimage.header_hash);
    assert!(matches!(upload(&longer), SegmentError::Cells { .. }));
    // The right schema hash over other lanes: made by one who knows the hash but not what it is of.
    let two = TestSegment::new(9, &schema(2, 1), 10, 10);
    let mut header = two.header.clone();
    header.schema = good.header.schema;
    let cells = [header.to_cells(), two.cells[header.cells() as usize..].to_vec()].concat();
    let hash = fluence_crypto::tree::header_hash(&header.to_cells());
    assert!(matches!(upload(&TestSegment::of_cells(header, cells, hash)), SegmentError::Lanes));
    let mut noise = good.clone();
    noise.cells[0][0] = FieldBytes::from_u64(1);
    let noise = TestSegment::of_cells(noise.header, noise.cells, good.preimage.header_hash);
    assert!(matches!(upload(&noise), SegmentError::Header(_)));
    assert_eq!((records(&store), engine.upload_bytes()), (0, 0));
    assert!(good.upload(&engine, db.db, 30_000).is_ok());
}

#[test]
fn refuses_uploads_beyond_the_limits_and_for_unknown_databases() {
    let (_, engine, db) = prepared();
    let mut huge = segment(1, 20).preimage;
    huge.cells = (8 << 20) / 256 + 1;
    assert!(matches!(engine.begin_upload(db.db, &huge), Err(UploadError::Limit { what: "bytes of uploads", .. })));
    huge.cells = 0;
    assert!(matches!(engine.begin_upload(db.db, &huge), Err(UploadError::Size { got: 0, .. })));
    huge.cells = fluence_types::limits::SEGMENT_CELLS_MAX + 1;
    assert!(matches!(engine.begin_upload(db.db, &huge), Err(UploadError::Size { .. })));
    let unknown = DatabaseId::from_bytes([1; 16]);
    assert!(matches!(engine.begin_upload(unknown, &segment(1, 20).preimage), Err(UploadError::UnknownDatabase(_))));
    for seed in 0..3 {
        engine.begin_upload(db.db, &segment(seed, 20).preimage).unwrap();
    }
    let fourth = engine.begin_upload(db.db, &segment(3, 20).preimage);
    assert!(matches!(fourth, Err(UploadError::Limit { what: "uploads", got: 4, limit: 3 })));
    let mut other = TestDb::new(2, 1);
    other.create(&engine).unwrap();
    let taken = engine.begin_upload(other.db, &segment(1, 20).preimage);
    assert!(matches!(taken, Err(UploadError::OtherDatabase { .. })));
}

#[test]
fn uploads_expire_by_height_after_their_margin_and_ordered_ones_do_not() {
    let (store, engine, mut db) = prepared();
    let (a, b) = (segment(1, 1200), segment(2, 1200));
    let checked = a.upload(&engine, db.db, 30_000).unwrap();
    assert_eq!(checked.expiry, Height(3));
    engine.begin_upload(db.db, &b.preimage).unwrap();
    engine.append_upload(b.root(), 0, &b.bytes()[..40_000]).unwrap();
    let op = commit(&[(0, 0)], vec![change(0, vec![a.delivered(db.receipts(&checked, 1))], vec![])]);
    db.act(&engine, op).unwrap().unwrap(); // height 2
    assert_eq!(engine.begin_upload(db.db, &a.preimage).unwrap(), a.bytes().len() as u64, "it is stored");
    for _ in 3..=4 {
        db.apply(&engine, vec![]).unwrap();
        assert_eq!(engine.begin_upload(db.db, &b.preimage).unwrap(), 40_000);
    }
    db.apply(&engine, vec![]).unwrap(); // height 5 is past expiry 3 and margin 1
    assert!(matches!(engine.append_upload(b.root(), 40_000, &[]), Err(UploadError::Unknown(_))));
    assert_eq!(engine.upload_bytes(), 0);
    let pages = |s: &TestSegment| s.preimage.cells.div_ceil(64) as usize;
    // Its pages, a node record for each, and one for the level above.
    assert_eq!(records(&store), 2 * pages(&a) + 1, "the ordered one is all there is");
    assert!(engine.scrub(&mut |_| true).is_empty());
    assert_eq!(open(&store).upload_bytes(), 0);
}

#[test]
fn whoever_holds_an_upload_refuses_to_propose_an_operation_that_misnames_it() {
    let (_, engine, db) = prepared();
    let s = segment(1, 20);
    let checked = s.upload(&engine, db.db, 30_000).unwrap();
    let op = |change_it: &dyn Fn(&mut fluence_types::op::SegmentRef)| {
        let mut named = s.delivered(db.receipts(&checked, 1));
        change_it(&mut named);
        db.owner.sign(db.db, commit(&[(0, 0)], vec![change(0, vec![named], vec![])])).unsigned
    };
    engine.check_uploaded(&op(&|_| {})).unwrap();
    assert!(matches!(engine.check_uploaded(&op(&|s| s.rows += 1)), Err(SegmentError::Facts("the row count"))));
    let other_id = op(&|s| s.id = fluence_types::SegmentId::default());
    assert!(matches!(engine.check_uploaded(&other_id), Err(SegmentError::Facts("the segment id"))));
}

#[test]
fn an_engine_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Engine>();
    shared::<fluence_engine::View<'static>>();
}

#[test]
fn refuses_an_upload_over_a_segment_that_was_collected_but_is_still_owed() {
    let (store, engine, mut db) = prepared();
    let (old, new) = (segment(70, 40), segment(71, 40));
    db.act(&engine, commit(&[(0, 0)], vec![change(0, vec![old.inline()], vec![])])).unwrap().unwrap();
    db.act(&engine, commit(&[(0, 1)], vec![change(0, vec![new.inline()], vec![old.root()])])).unwrap().unwrap();
    for _ in 0..3 {
        db.apply(&engine, vec![]).unwrap();
    }
    // It left the stored tree, and its cells are kept: nobody may write or, by an upload that expires, delete them.
    assert_eq!(engine.view(db.db).unwrap().summary().segments, 1);
    for engine in [&engine, &open(&store)] {
        assert!(matches!(engine.begin_upload(db.db, &old.preimage), Err(UploadError::Collected(r)) if r == old.root()));
    }
    assert_eq!(engine.begin_upload(db.db, &new.preimage).unwrap(), new.bytes().len() as u64, "stored: nothing to send");
}
