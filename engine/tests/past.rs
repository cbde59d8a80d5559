//! Earlier roots are provable until their segments are collected: a node owes what was registered, while its owner goes on writing.

use fluence_crypto::roots::db_root;
use fluence_crypto::tree::{Path, check_path};
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{Engine, EngineConfig, MemStore, Rules, WitnessError};
use fluence_types::shape::StorageShape;
use fluence_types::statement::Storage;
use fluence_types::{DbRoot, FieldBytes};
use std::sync::Arc;

const SHAPE: StorageShape = StorageShape { samples: 16, holdings_levels: 1, stored_levels: 2, tree_levels: 3 };

struct Kept {
    root: DbRoot,
    statement: Storage,
}

fn keep(engine: &Engine, db: &TestDb) -> Kept {
    let holdings = engine.holdings(&[db.db]).unwrap();
    let seed = FieldBytes::from_u64(7);
    let statement = Storage { root: holdings.root, total_cells: holdings.total_cells, seed };
    Kept { root: engine.checkpoint(db.db).unwrap().root, statement }
}

fn prove(engine: &Engine, db: &TestDb, kept: &Kept) -> Result<(), WitnessError> {
    let witness = engine.storage_witness_at(&[(db.db, kept.root)], &kept.statement, SHAPE)?;
    for sample in &witness.samples {
        assert_eq!(db_root(&sample.db), kept.root);
        let path = Path { index: sample.cell.index, siblings: sample.cell.siblings.clone() };
        let root = fluence_crypto::field::from_bytes(&sample.segment.tree_root);
        check_path(&root, sample.segment.cells, sample.cell.index, &sample.cell.cell, &path).unwrap();
        let leaf = fluence_crypto::tree::segment_root(&sample.segment).to_field();
        let leaf = (fluence_crypto::field::from_bytes(&leaf), sample.segment.cells);
        let stored = fluence_crypto::field::from_bytes(&sample.db.stored_root.to_field());
        fluence_crypto::sum_tree::verify(&stored, sample.db.stored_cells, &leaf, &sample.stored).unwrap();
    }
    Ok(())
}

#[test]
fn every_root_since_the_retention_is_provable_and_older_ones_say_so() {
    let store = Arc::new(MemStore::new());
    let config = EngineConfig { rules: Rules::retaining(3), ..EngineConfig::default() };
    let engine = Engine::open(store.clone(), config).unwrap();
    let mut db = TestDb::new(1, 1);
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();

    // Appends, then compactions that supersede what was there, so that slots are freed and used again.
    let mut kept: Vec<Kept> = Vec::new();
    let mut live: Vec<TestSegment> = Vec::new();
    for version in 0..12u64 {
        let segment = TestSegment::new(100 + version, &schema(1, 1), 20 + version, 7);
        let retire = if version % 3 == 2 { live.drain(..).map(|s| s.root()).collect() } else { Vec::new() };
        let op = commit(&[(0, version)], vec![change(0, vec![segment.inline()], retire)]);
        db.act(&engine, op).unwrap().unwrap();
        live.push(segment);
        kept.push(keep(&engine, &db));
        let newest = kept.len() - 1;
        for (i, one) in kept.iter().enumerate() {
            let outcome = prove(&engine, &db, one);
            if newest - i < 3 {
                outcome.unwrap();
            } else {
                assert!(matches!(outcome, Err(WitnessError::Gone { asked, .. }) if asked == one.root), "{outcome:?}");
            }
        }
    }

    // The same after a restart, and never for a root that was not there.
    let reopened = Engine::open(store, config).unwrap();
    prove(&reopened, &db, &kept[kept.len() - 3]).unwrap();
    let foreign = Kept { root: DbRoot::from_field(FieldBytes::from_u64(1)), statement: kept[11].statement };
    assert!(matches!(prove(&reopened, &db, &foreign), Err(WitnessError::Gone { .. })));
    // An old root does not pass under the statement of a newer one.
    let mixed = Kept { root: kept[10].root, statement: kept[11].statement };
    assert!(matches!(prove(&reopened, &db, &mixed), Err(WitnessError::Root { .. })));
}

#[test]
fn a_pinned_root_is_provable_however_many_blocks_follow_and_is_let_go_with_the_pin() {
    let store = Arc::new(MemStore::new());
    let config = EngineConfig { rules: Rules::retaining(2), ..EngineConfig::default() };
    let mut engine = Engine::open(store.clone(), config).unwrap();
    let mut db = TestDb::new(1, 1);
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
    let first = TestSegment::new(1, &schema(1, 1), 30, 7);
    db.act(&engine, commit(&[(0, 0)], vec![change(0, vec![first.inline()], vec![])])).unwrap().unwrap();
    let owed = keep(&engine, &db);
    let height = engine.height_of(db.db, owed.root).unwrap().unwrap();
    assert_eq!(Some(height), engine.checkpoint(db.db).map(|c| c.height));
    engine.pin(db.db, height).unwrap();

    let mut live = first.root();
    for version in 1..12u64 {
        let next = TestSegment::new(10 + version, &schema(1, 1), 30, 7);
        let op = commit(&[(0, version)], vec![change(0, vec![next.inline()], vec![live])]);
        db.act(&engine, op).unwrap().unwrap();
        live = next.root();
        prove(&engine, &db, &owed).unwrap();
        // The pin outlives the process.
        engine = Engine::open(store.clone(), config).unwrap();
        assert_eq!(engine.pinned(db.db), Some(height));
    }
    assert_eq!(engine.height_of(db.db, owed.root).unwrap(), Some(height));

    let newest = keep(&engine, &db);
    engine.pin(db.db, engine.height_of(db.db, newest.root).unwrap().unwrap()).unwrap();
    db.apply(&engine, vec![]).unwrap();
    assert!(matches!(prove(&engine, &db, &owed), Err(WitnessError::Gone { .. })));
    prove(&engine, &db, &newest).unwrap();
    // Nothing of the first segment is left.
    let page = fluence_engine::keys::page(db.db, first.root(), 0);
    assert_eq!(fluence_engine::Store::get(store.as_ref(), fluence_engine::keys::Cf::Pages, &page).unwrap(), None);
}
