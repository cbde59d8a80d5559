//! A database that is behind what others keep: a later snapshot takes its place, whole or not at all.

use fluence_engine::keys::{self, Cf};
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{
    Engine, EngineConfig, FailingStore, Failure, MemStore, Rules, Snapshot, SnapshotError, Store, VerifiedBlock,
};
use fluence_types::answer::CellRange;
use fluence_types::block::Checkpoint;
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::op::Op;
use std::sync::Arc;

const RETENTION: u64 = 3;

fn open(store: &Arc<MemStore>) -> Engine {
    let config = EngineConfig { rules: Rules::retaining(RETENTION), ..EngineConfig::default() };
    Engine::open(store.clone(), config).unwrap()
}

fn segment(seed: u64) -> TestSegment {
    // The last one has more than a page.
    TestSegment::new(seed, &schema(1, 1), if seed == 5 { 900 } else { 300 }, 10)
}

/// Two members that are level, with segments 0 to 3, of which 0 and 1 are retired.
fn pair() -> (Engine, (Arc<MemStore>, Engine), TestDb) {
    let store = Arc::default();
    let (there, here, mut db) = (open(&Arc::default()), open(&store), TestDb::new(3, 4));
    let creation = db.creation();
    for op in [creation, define(0, schema(1, 1)), step(0, None), step(1, None), step(2, Some(0)), step(3, Some(1))] {
        both(&mut db, &there, &here, op);
    }
    (there, (store, here), db)
}

/// Has both apply a block with one operation of the owner.
fn both(db: &mut TestDb, there: &Engine, here: &Engine, op: Op) {
    let op = db.owner.sign(db.db, op);
    let block = VerifiedBlock::verify(db.block(vec![op.clone()])).unwrap();
    let (a, b) = (there.apply(&block).unwrap(), here.apply(&block).unwrap());
    assert_eq!((a.checkpoint, &a.outcomes), (b.checkpoint, &b.outcomes));
    assert_eq!(a.outcomes[0].outcome, Ok(()));
    db.owner.advance(&op);
    db.last = there.head(db.db);
}

/// Appends a segment, and retires another.
fn step(n: u64, retire: Option<u64>) -> Op {
    let retire = retire.map(|old| segment(old).root());
    commit(&[(0, n)], vec![change(0, vec![segment(n).inline()], retire.into_iter().collect())])
}

/// The other goes on: 2 is retired and removed, 4 and 5 come, an epoch ends.
fn ahead(there: &Engine, db: &mut TestDb) -> Snapshot {
    db.act(there, step(4, Some(2))).unwrap().unwrap();
    db.act(there, step(5, None)).unwrap().unwrap();
    while db.last.unwrap().height.0 < EPOCH_BLOCKS + 2 * RETENTION {
        db.apply(there, vec![]).unwrap();
    }
    there.export(db.db).unwrap()
}

fn import(engine: &Engine, db: &TestDb, s: &Snapshot) -> Result<(), SnapshotError> {
    let expected = Checkpoint { db: db.db, height: s.height, root: s.root };
    engine.import(db.db, &s.bytes, &expected, s.block, vec![(b"origin".to_vec(), vec![7])])
}

#[test]
fn a_later_snapshot_takes_the_place_of_a_state_and_keeps_the_cells_that_both_name() {
    let (there, (store, mut here), mut db) = pair();
    let id = db.db;
    here.set_note(id, b"mine", vec![1]).unwrap();
    let old = here.export(id).unwrap();
    let snapshot = ahead(&there, &mut db);
    // An upload of what the others stored meanwhile was half-way here.
    let five = segment(5);
    here.begin_upload(id, &five.preimage).unwrap();
    here.append_upload(five.root(), 0, &five.bytes()[..16 << 10]).unwrap();
    import(&here, &db, &snapshot).unwrap();
    let refused = import(&here, &db, &old);
    assert!(matches!(refused, Err(SnapshotError::Here(_))), "{refused:?}");
    for restart in [false, true] {
        if restart {
            here = open(&store);
        }
        assert_eq!(here.head(id), there.head(id));
        assert_eq!(here.export(id).unwrap(), snapshot);
        assert_eq!(
            (here.note(id, b"mine").unwrap(), here.note(id, b"origin").unwrap()),
            (Some(vec![1]), Some(vec![7]))
        );
        let mut missing: Vec<_> = here.missing(id).iter().map(|m| m.segment).collect();
        missing.sort();
        let mut wanted = vec![segment(4).root(), five.root()];
        wanted.sort();
        assert_eq!(missing, wanted);
        let range = CellRange { first: 0, count: segment(3).preimage.cells };
        assert_eq!(here.view(id).unwrap().cells(segment(3).root(), range).unwrap().cells, segment(3).cells);
    }
    // Nothing is left of what only the old state named.
    for gone in 0..3 {
        let first = keys::page(id, segment(gone).root(), 0);
        assert!(store.scan(Cf::Pages, &first[..first.len() - 8], None, 9).unwrap().is_empty(), "segment {gone}");
    }
    assert!(store.scan(Cf::State, &[keys::UPLOAD], None, 9).unwrap().is_empty());
    let past = store.scan(Cf::History, &keys::of_database(keys::PAST, id), None, 99).unwrap();
    assert_eq!(past.len(), 1);
    // It goes on like the other.
    for seed in [4, 5] {
        let (s, have) = (segment(seed), here.missing_one(id, segment(seed).root()).unwrap().have);
        here.append_fill(id, s.root(), have, &s.bytes()[have as usize..]).unwrap();
        here.finish_fill(id, s.root()).unwrap();
    }
    both(&mut db, &there, &here, step(6, Some(3)));
    assert!(here.scrub(&mut |_| true).is_empty());
}

#[test]
fn a_snapshot_that_is_cut_off_leaves_the_old_state_or_the_new_one() {
    for failure in [Failure::Before, Failure::After] {
        let (there, (store, here), mut db) = pair();
        let (id, before) = (db.db, here.head(db.db));
        drop(here);
        let snapshot = ahead(&there, &mut db);
        let config = EngineConfig { rules: Rules::retaining(RETENTION), ..EngineConfig::default() };
        let failing = Engine::open(Arc::new(FailingStore::new(Arc::clone(&store), 0, failure)), config).unwrap();
        let refused = import(&failing, &db, &snapshot);
        assert!(matches!(refused, Err(SnapshotError::Store(_))), "{refused:?}");
        assert!(failing.missing(id).is_empty() && failing.head(id) == before);
        let again = open(&store);
        let head = if failure == Failure::Before { before } else { there.head(id) };
        assert_eq!(again.head(id), head);
    }
}

#[test]
fn a_snapshot_of_another_root_changes_nothing() {
    let (there, (_, here), mut db) = pair();
    let mut snapshot = ahead(&there, &mut db);
    let before = here.export(db.db).unwrap();
    snapshot.root = before.root;
    let refused = import(&here, &db, &snapshot);
    assert!(matches!(refused, Err(SnapshotError::Root { .. })), "{refused:?}");
    assert_eq!(here.export(db.db).unwrap(), before);
    assert!(here.missing(db.db).is_empty());
}
