//! Random logs: the same roots on every store, across restarts at any point, and whichever write fails.

use fluence_engine::testkit::{TestDb, TestSegment, TestWriter, change, commit, define, schema};
use fluence_engine::{
    ApplyError, Engine, EngineConfig, EngineError, FailingStore, Failure, FjallOptions, FjallStore, MemStore, Rules,
    Store, StoreError, UploadError, VerifiedBlock,
};
use fluence_types::block::{Block, Checkpoint};
use fluence_types::op::{Op, SignedOp};
use fluence_types::{DatabaseId, SegmentRoot};
use proptest::prelude::*;
use std::sync::Arc;

const CONFIG: EngineConfig = EngineConfig {
    rules: Rules::retaining(2),
    upload_blocks: 50,
    upload_margin_blocks: 1,
    upload_bytes_max: 1 << 30,
    uploads_max: 100,
};

/// What a client does next; the number picks among what there is.
#[derive(Clone, Copy, Debug)]
enum Act {
    Empty,
    Define,
    Append(u64),
    Upload(u64),
    Retire(u64),
    Compact(u64),
    Stale,
    Stranger,
    Writers(u64),
    OtherDatabase,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        1 => Just(Act::Empty),
        1 => Just(Act::Define),
        4 => any::<u64>().prop_map(Act::Append),
        2 => any::<u64>().prop_map(Act::Upload),
        3 => any::<u64>().prop_map(Act::Retire),
        2 => any::<u64>().prop_map(Act::Compact),
        1 => Just(Act::Stale),
        1 => Just(Act::Stranger),
        1 => any::<u64>().prop_map(Act::Writers),
        1 => Just(Act::OtherDatabase),
    ];
    proptest::collection::vec(act, 4..14)
}

/// A step of a log: what is uploaded before the block, and the block with the root after it.
struct Step {
    uploads: Vec<TestSegment>,
    block: Block,
    after: Checkpoint,
}

/// Plays the acts on a fresh engine in memory and writes down the log.
fn record(acts: &[Act]) -> Vec<Step> {
    let engine = Engine::open(Arc::new(MemStore::new()), CONFIG).unwrap();
    let (mut db, mut other) = (TestDb::new(1, 1), TestDb::new(2, 1));
    let mut steps = Vec::new();
    let mut live: Vec<(SegmentRoot, u32)> = Vec::new();
    let mut versions: Vec<u64> = Vec::new();
    let mut step = |db: &mut TestDb, uploads: Vec<TestSegment>, ops: Vec<SignedOp>| {
        let block = db.block(ops);
        let applied = engine.apply(&VerifiedBlock::verify(block.clone()).unwrap()).unwrap();
        assert!(applied.missing.is_empty());
        db.last = engine.head(db.db);
        steps.push(Step { uploads, block, after: applied.checkpoint });
        applied.outcomes.first().is_some_and(|o| o.outcome.is_ok())
    };
    let creation = db.owner.sign(db.db, db.creation());
    assert!(step(&mut db, vec![], vec![creation.clone()]));
    db.owner.advance(&creation);
    for (n, act) in [Act::Define].iter().chain(acts).enumerate() {
        let seed = n as u64 + 1000;
        let fresh = |rows: u64| TestSegment::new(seed, &schema(1, 1), rows, 9);
        let pick = |r: u64, len: usize| (r % len.max(1) as u64) as usize;
        let mut uploads = Vec::new();
        // What an accepted operation appends to (projection, root) and retires.
        let mut becomes: (Option<(SegmentRoot, u32)>, Option<usize>) = (None, None);
        let op = match *act {
            Act::Empty => {
                step(&mut db, vec![], vec![]);
                continue;
            }
            Act::OtherDatabase => {
                let op = if other.last.is_none() { other.creation() } else { define(steps_of(&other), schema(1, 0)) };
                let op = other.owner.sign(other.db, op);
                if step(&mut other, vec![], vec![op.clone()]) {
                    other.owner.advance(&op);
                }
                continue;
            }
            Act::Stranger => {
                let op = TestWriter::new(seed).sign(db.db, define(9, schema(1, 0)));
                step(&mut db, vec![], vec![op]);
                continue;
            }
            Act::Define => define(versions.len() as u32, schema(1, 1)),
            Act::Stale => commit(&[(0, versions[0] + 5)], vec![change(0, vec![fresh(3).inline()], vec![])]),
            Act::Writers(r) => {
                let mut writers: Vec<_> = (0..r % 4).map(|i| TestWriter::new(r ^ i).key.address()).collect();
                writers.sort_unstable();
                Op::SetWriters { writers: writers.try_into().unwrap() }
            }
            Act::Append(r) => {
                let p = pick(r, versions.len());
                let segment = fresh(1 + r % 40);
                becomes.0 = Some((segment.root(), p as u32));
                commit(&[(p as u32, versions[p])], vec![change(p as u32, vec![segment.inline()], vec![])])
            }
            Act::Upload(r) => {
                let p = pick(r, versions.len());
                let segment = fresh(300 + r % 700);
                let checked = segment.upload(&engine, db.db, 40_000).unwrap();
                becomes.0 = Some((segment.root(), p as u32));
                let named = segment.delivered(db.receipts(&checked, 1));
                uploads.push(segment);
                commit(&[(p as u32, versions[p])], vec![change(p as u32, vec![named], vec![])])
            }
            Act::Retire(r) | Act::Compact(r) if !live.is_empty() => {
                let at = pick(r, live.len());
                let (root, p) = live[at];
                becomes.1 = Some(at);
                let mut append = Vec::new();
                if matches!(act, Act::Compact(_)) {
                    let segment = fresh(1 + r % 20);
                    becomes.0 = Some((segment.root(), p));
                    append.push(segment.inline());
                }
                commit(&[(p, versions[p as usize])], vec![change(p, append, vec![root])])
            }
            Act::Retire(_) | Act::Compact(_) => {
                commit(&[(0, versions[0])], vec![change(0, vec![], vec![SegmentRoot::default()])])
            }
        };
        let touched = match &op {
            Op::Commit { changes, .. } => changes.iter().map(|c| c.projection.0 as usize).collect(),
            _ => vec![],
        };
        let defines = matches!(op, Op::DefineProjection { .. });
        let op = db.owner.sign(db.db, op);
        if step(&mut db, uploads, vec![op.clone()]) {
            db.owner.advance(&op);
            if defines {
                versions.push(0);
            }
            touched.into_iter().for_each(|p| versions[p] += 1);
            if let Some(at) = becomes.1 {
                live.remove(at);
            }
            live.extend(becomes.0);
        }
    }
    steps
}

fn steps_of(db: &TestDb) -> u32 {
    db.last.map_or(0, |c| c.height.0 as u32)
}

/// A failed write.
#[derive(Debug)]
struct Stopped;

/// Does a step again on another engine. A segment that is stored already is not uploaded twice.
fn play(engine: &Engine, step: &Step) -> Result<Checkpoint, Stopped> {
    let db = step.block.header.db;
    let stored = |s: &TestSegment| engine.view(db).is_ok_and(|v| v.segments().iter().any(|o| o.root == s.root()));
    for segment in step.uploads.iter().filter(|s| !stored(s)) {
        match segment.upload(engine, db, 40_000) {
            Ok(_) => {}
            Err(UploadError::Store(StoreError::Injected(_) | StoreError::Poisoned)) => return Err(Stopped),
            Err(e) => panic!("{e}"),
        }
    }
    match engine.apply(&VerifiedBlock::verify(step.block.clone()).unwrap()) {
        Ok(applied) => {
            assert_eq!(applied.missing, vec![], "no segment is missing");
            Ok(applied.checkpoint)
        }
        Err(ApplyError::Store(StoreError::Injected(_) | StoreError::Poisoned)) => Err(Stopped),
        Err(e) => panic!("{e}"),
    }
}

fn whole(engine: &Engine) {
    assert_eq!(engine.scrub(&mut |_| true), vec![], "nothing is lost");
}

/// fjall; RocksDB where the feature is on and `FLUENCE_CRASH_STORE=rocksdb` asks for it.
fn disk(folder: &std::path::Path) -> Arc<dyn Store> {
    #[cfg(feature = "rocksdb")]
    #[allow(clippy::disallowed_methods, reason = "a test is told by its environment which store it tests")]
    if std::env::var_os("FLUENCE_CRASH_STORE").is_some_and(|store| store == "rocksdb") {
        return Arc::new(fluence_engine::RocksStore::open(folder).unwrap());
    }
    Arc::new(FjallStore::open(folder, FjallOptions::default()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_log_gives_the_same_roots_on_disk_across_restarts_and_flushes(acts in acts(), cuts in any::<u32>()) {
        let steps = record(&acts);
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            Engine::open(disk(folder.path()), CONFIG).unwrap()
        };
        let mut engine = open();
        for (n, step) in steps.iter().enumerate() {
            prop_assert_eq!(play(&engine, step).unwrap(), step.after);
            if cuts >> (2 * n % 32) & 1 == 1 {
                if cuts >> (2 * n % 32 + 1) & 1 == 1 {
                    engine.flush().unwrap();
                }
                drop(engine);
                engine = open();
                prop_assert_eq!(engine.checkpoint(step.block.header.db), Some(step.after));
            }
        }
        whole(&engine);
    }

    #[test]
    fn whichever_write_fails_the_next_opening_is_at_the_acknowledged_root_or_the_one_in_flight(acts in acts()) {
        let steps = record(&acts);
        let databases: Vec<DatabaseId> = vec![TestDb::new(1, 1).db, TestDb::new(2, 1).db];
        for failure in [Failure::Before, Failure::After] {
            for n in 0.. {
                let disk = Arc::new(MemStore::new());
                let failing = Arc::new(FailingStore::new(disk.clone(), n, failure));
                let engine = Engine::open(failing.clone(), CONFIG).unwrap();
                let stopped = steps.iter().position(|step| play(&engine, step).is_err());
                let Some(stopped) = stopped else {
                    prop_assert!(failing.commits() <= n);
                    break;
                };
                // Whatever is asked now, nothing is written any more.
                prop_assert!(play(&engine, &steps[stopped]).is_err());
                drop(engine);
                let engine = Engine::open(disk.clone(), CONFIG).unwrap();
                for db in &databases {
                    let last = |upto: usize| steps[..upto].iter().rev().find(|s| s.block.header.db == *db).map(|s| s.after);
                    let now = engine.checkpoint(*db);
                    prop_assert!(now == last(stopped) || now == last(stopped + 1), "write {}: {:?}", n, now);
                }
                for step in &steps[stopped..] {
                    prop_assert_eq!(play(&engine, step).unwrap(), step.after);
                }
                whole(&engine);
            }
        }
    }
}

#[test]
fn an_engine_over_a_store_that_went_back_or_forward_does_not_open() {
    use fluence_engine::keys::{Cf, head};
    use fluence_engine::store::{Anchor, Batch, Durability};
    use fluence_types::Height;
    let store = Arc::new(MemStore::new());
    let engine = Engine::open(store.clone(), CONFIG).unwrap();
    let mut db = TestDb::new(1, 1);
    db.create(&engine).unwrap();
    for _ in 0..3 {
        db.apply(&engine, vec![]).unwrap();
    }
    let last = db.last.unwrap();
    drop(engine);
    let opens = |height: u64, root| {
        let copy = Arc::new(store.snapshot());
        let mut batch = Batch::new();
        batch.anchor(db.db, Anchor { height: Height(height), root });
        copy.commit(batch, Durability::Synced).unwrap();
        Engine::open(copy, CONFIG)
    };
    assert!(opens(3, last.root).is_ok());
    assert!(opens(2, last.root).is_ok(), "one block may be in flight");
    assert!(matches!(opens(4, last.root), Err(EngineError::Behind { .. })), "an older state");
    assert!(matches!(opens(1, last.root), Err(EngineError::Behind { .. })), "two blocks cannot be in flight");
    assert!(matches!(opens(3, Default::default()), Err(EngineError::Behind { .. })), "a third root");
    // A head that does not follow from the records below it.
    let mut bytes = store.get(Cf::State, &head(db.db)).unwrap().unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    let mut batch = Batch::new();
    batch.put(Cf::State, head(db.db), bytes);
    store.commit(batch, Durability::Synced).unwrap();
    assert!(matches!(Engine::open(store.clone(), CONFIG), Err(EngineError::Store(StoreError::Damaged(_)))));
    let mut batch = Batch::new();
    batch.delete(Cf::State, head(db.db));
    store.commit(batch, Durability::Synced).unwrap();
    assert!(matches!(Engine::open(store, CONFIG), Err(EngineError::Missing(id)) if id == db.db));
}
