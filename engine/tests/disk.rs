//! What happens to bytes on the disk: flushed pages that the operating system overwrites are lost, never served; restarts keep all.

use fluence_engine::damage::{forge_page, locate_page_on_disk, locate_pages_on_disk};
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{Engine, EngineConfig, FjallOptions, FjallStore, LostPage, Store};
use fluence_types::answer::{CellRange, OpenRefusal, OpenRequest, SegmentRanges};
use fluence_types::shape::StorageShape;
use fluence_types::statement::Storage;
use fluence_types::{FieldBytes, ProjectionId, Version};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

fn open(folder: &Path) -> Engine {
    let store = FjallStore::open(folder, FjallOptions::default()).unwrap();
    Engine::open(Arc::new(store), EngineConfig::default()).unwrap()
}

/// A database with one segment of many pages, flushed, and the process gone.
fn stored(folder: &Path) -> (TestDb, TestSegment) {
    let engine = open(folder);
    let (mut db, schema) = (TestDb::new(1, 1), schema(1, 1));
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema.clone())).unwrap().unwrap();
    let segment = TestSegment::new(1, &schema, 8000, 20);
    let checked = segment.upload(&engine, db.db, 100_000).unwrap();
    let op = commit(&[(0, 0)], vec![change(0, vec![segment.delivered(db.receipts(&checked, 1))], vec![])]);
    db.act(&engine, op).unwrap().unwrap();
    engine.flush().unwrap();
    (db, segment)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn one_cell(db: &TestDb, segment: &TestSegment, cell: u64) -> OpenRequest {
    let ranges = SegmentRanges {
        segment: segment.root(),
        ranges: vec![CellRange { first: cell, count: 1 }].try_into().unwrap(),
    };
    OpenRequest {
        db: db.db,
        projection: ProjectionId(0),
        version: Version(1),
        segments: vec![ranges].try_into().unwrap(),
    }
}

#[test]
fn a_restarted_engine_has_the_same_root_and_pages() {
    let folder = tempfile::tempdir().unwrap();
    let (db, segment) = stored(folder.path());
    let engine = open(folder.path());
    assert_eq!(engine.head(db.db), db.last);
    let view = engine.view(db.db).unwrap();
    let pages: Vec<u8> =
        (0..segment.preimage.cells.div_ceil(64)).flat_map(|p| view.page(segment.root(), p).unwrap()).collect();
    assert_eq!(pages, segment.bytes());
    let mut reports = 0;
    let lost = engine.scrub(&mut |p| {
        reports += 1;
        assert!(p.pages <= p.of && p.lost == 0);
        true
    });
    assert!(lost.is_empty() && reports > 0);
}

#[test]
fn pages_overwritten_from_outside_are_lost_by_name_and_all_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (db, segment) = stored(folder.path());
    let pages: Vec<Vec<u8>> = segment.bytes().chunks(16_384).map(<[u8]>::to_vec).collect();
    let found = locate_pages_on_disk(folder.path(), &pages).unwrap();
    assert!(pages.len() > 10 && found.iter().all(|places| places.len() == 1), "every page lies in one place on disk");
    assert_eq!(locate_page_on_disk(folder.path(), &pages[3]).unwrap(), found[3]);
    assert!(locate_page_on_disk(folder.path(), &[9; 100]).unwrap().is_empty());
    // A byte at the start, in the middle, at the end, and a whole page.
    let damaged = [2u64, 5, 6, 9];
    for (page, (at, bytes)) in
        damaged.iter().zip([(0, vec![1]), (8000, vec![1]), (16_383, vec![1]), (0, vec![0; 16_384])])
    {
        let (path, offset) = &found[*page as usize][0];
        let mut bytes = bytes;
        if bytes.len() == 1 {
            bytes[0] ^= pages[*page as usize][at];
        }
        overwrite(path, offset + at as u64, &bytes);
    }
    let engine = open(folder.path());
    let view = engine.view(db.db).unwrap();
    let root = segment.root();
    for (n, page) in pages.iter().enumerate() {
        let n = n as u64;
        let opened = engine.open_cells(&one_cell(&db, &segment, n * 64 + 1));
        if damaged.contains(&n) {
            let lost = OpenRefusal::Lost { segment: root, page: n };
            assert_eq!(view.page(root, n), Err(lost.clone()));
            assert_eq!(opened.unwrap_err(), lost);
        } else {
            assert_eq!(view.page(root, n).as_ref(), Ok(page));
            assert_eq!(opened.unwrap().1[0].cells, [segment.cells[(n * 64 + 1) as usize]]);
        }
    }
    let want: Vec<LostPage> = damaged.iter().map(|page| LostPage { db: db.db, segment: root, page: *page }).collect();
    assert_eq!(engine.scrub(&mut |_| true), want);
    assert_eq!(view.summary().lost_pages, 4);
    // A storage proof whose samples hit a lost page cannot be made.
    let holdings = engine.holdings_of_one(db.db).unwrap();
    let seed = FieldBytes::from_u64(4);
    let statement = Storage { root: holdings.root, total_cells: holdings.total_cells, seed };
    let shape = StorageShape { samples: 64, holdings_levels: 0, stored_levels: 0, tree_levels: 4 };
    let refusal = engine.storage_witness(&[db.db], &statement, shape).unwrap_err();
    assert!(matches!(refusal, fluence_engine::WitnessError::Open(OpenRefusal::Lost { .. })), "{refusal}");
}

#[test]
fn a_damaged_tree_node_is_lost_by_its_first_page() {
    use fluence_engine::keys::{Cf, node};
    let folder = tempfile::tempdir().unwrap();
    let (db, segment) = stored(folder.path());
    let root = segment.root();
    let store = FjallStore::open(folder.path(), FjallOptions::default()).unwrap();
    let digests = store.get(Cf::Nodes, &node(db.db, root, 1, 4)).unwrap().unwrap();
    drop(store);
    let found = locate_page_on_disk(folder.path(), &digests).unwrap();
    assert_eq!(found.len(), 1);
    overwrite(&found[0].0, found[0].1 + 40, &[0; 4]);
    let engine = open(folder.path());
    assert!(engine.view(db.db).unwrap().page(root, 4).is_ok());
    let refusal = engine.open_cells(&one_cell(&db, &segment, 4 * 64)).unwrap_err();
    assert_eq!(refusal, OpenRefusal::Lost { segment: root, page: 4 });
    // The store reads nodes in blocks of several records, so neighbours may be lost with it; nothing else is.
    let lost = engine.scrub(&mut |_| true);
    assert!(lost.iter().any(|l| l.page == 4) && lost.len() < segment.preimage.cells.div_ceil(64) as usize);
}

#[test]
fn a_forged_page_passes_its_checksum_and_fails_the_root() {
    use fluence_crypto::{field, tree::multi_root};
    let folder = tempfile::tempdir().unwrap();
    let (db, segment) = stored(folder.path());
    let store = Arc::new(FjallStore::open(folder.path(), FjallOptions::default()).unwrap());
    let engine = Engine::open(store.clone(), EngineConfig::default()).unwrap();
    let cell = 3 * 64 + 9;
    let forge = &mut |bytes: &mut [u8]| bytes[9 * 256 + 31] ^= 1;
    forge_page(&store, db.db, segment.root(), segment.preimage.cells, 3, forge).unwrap();
    let (_, opened) = engine.open_cells(&one_cell(&db, &segment, cell)).unwrap();
    assert_ne!(opened[0].cells, [segment.cells[cell as usize]]);
    let siblings: Vec<_> = opened[0].siblings.iter().map(field::from_bytes).collect();
    let root =
        multi_root(segment.preimage.cells, &[(cell, field::cell_to_fr(&opened[0].cells[0]))], &siblings).unwrap();
    assert_ne!(field::to_bytes(&root), segment.preimage.tree_root, "a verifier finds out");
    assert!(forge_page(&store, db.db, segment.root(), segment.preimage.cells, 999, forge).is_err());
}
