//! Snapshots: what one member exports, another goes on from; what is wrong in one is refused.

use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{
    Engine, EngineConfig, FailingStore, Failure, FjallOptions, FjallStore, MemStore, Rules, SNAPSHOT_CHUNK_BYTES,
    Snapshot, SnapshotError, VerifiedBlock, WitnessError, chunk_digest, snapshot_digest,
};
use fluence_types::block::{Checkpoint, epoch_of};
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::op::{Op, OpRefusal};
use fluence_types::shape::StorageShape;
use fluence_types::statement::Storage;
use fluence_types::{BlockHash, DatabaseId, FieldBytes, Height, HoldingsRoot, ProjectionId};
use std::sync::Arc;

const CONFIG: EngineConfig = EngineConfig { rules: Rules::retaining(3), ..DEFAULT };
const DEFAULT: EngineConfig = EngineConfig {
    rules: Rules::retaining(4096),
    upload_blocks: 1024,
    upload_margin_blocks: 64,
    upload_bytes_max: 4 << 30,
    uploads_max: 256,
};

fn open(store: &Arc<MemStore>) -> Engine {
    Engine::open(store.clone(), CONFIG).unwrap()
}

fn segment(seed: u64, rows: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), rows, 10)
}

/// A database with something of every kind: live, superseded and collected segments, writers, refused operations, an epoch or two.
fn rich() -> (Engine, TestDb) {
    let (engine, mut db) = (open(&Arc::default()), TestDb::new(1, 4));
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
    db.act(&engine, define(1, schema(2, 1))).unwrap().unwrap();
    let writers = vec![fluence_types::Address::from_bytes([7; 20])];
    db.act(&engine, Op::SetWriters { writers: writers.try_into().unwrap() }).unwrap().unwrap();
    for i in 0..4u64 {
        let retire = if i == 0 { vec![] } else { vec![segment(i - 1, 300).root()] };
        let op = commit(&[(0, i)], vec![change(0, vec![segment(i, 300).inline()], retire)]);
        db.act(&engine, op).unwrap().unwrap();
    }
    while db.last.unwrap().height.0 < EPOCH_BLOCKS + 2 {
        db.apply(&engine, vec![]).unwrap();
    }
    for i in 4..8u64 {
        let op = commit(&[(0, i)], vec![change(0, vec![segment(i, 300).inline()], vec![segment(i - 1, 300).root()])]);
        db.act(&engine, op).unwrap().unwrap();
    }
    db.act(&engine, define(5, schema(1, 1))).unwrap().unwrap_err();
    (engine, db)
}

fn import(engine: &Engine, db: DatabaseId, s: &Snapshot, bytes: &[u8]) -> Result<(), SnapshotError> {
    engine.import(db, bytes, &Checkpoint { db, height: s.height, root: s.root }, s.block, vec![])
}

/// The records of a snapshot: prefix, rest of the key, value.
fn records(bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let (mut rest, mut found) = (&bytes[24..], Vec::new());
    while !rest.is_empty() {
        let (prefix, key_len) = (rest[0], usize::from(rest[1]));
        let key = rest[2..2 + key_len].to_vec();
        rest = &rest[2 + key_len..];
        let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        found.push((prefix, key, rest[4..4 + len].to_vec()));
        rest = &rest[4 + len..];
    }
    found
}

fn bytes_of(db: DatabaseId, records: &[(u8, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = [b"FLUSNAP1", &db.as_bytes()[..]].concat();
    for (prefix, key, value) in records {
        out.extend([*prefix, key.len() as u8]);
        out.extend(key);
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(value);
    }
    out
}

#[test]
fn an_imported_database_goes_on_to_the_same_roots_and_exports_the_same_bytes() {
    let (there, mut twin) = rich();
    let snapshot = there.export(twin.db).unwrap();
    let digests: Vec<_> = snapshot.bytes.chunks(SNAPSHOT_CHUNK_BYTES).map(chunk_digest).collect();
    assert_eq!(snapshot.chunks, digests);
    assert_eq!(snapshot.digest, snapshot_digest(snapshot.bytes.len() as u64, &digests));
    assert_eq!(bytes_of(twin.db, &records(&snapshot.bytes)), snapshot.bytes);
    let store = Arc::new(MemStore::new());
    let mut here = open(&store);
    let (id, expected) = (twin.db, there.checkpoint(twin.db).unwrap());
    here.import(id, &snapshot.bytes, &expected, snapshot.block, vec![(b"mine".to_vec(), vec![1, 2])]).unwrap();
    assert!(matches!(import(&here, id, &snapshot, &snapshot.bytes), Err(SnapshotError::Here(_))));
    for restart in [false, true] {
        if restart {
            here = open(&store);
        }
        assert_eq!(here.head(id), there.head(id));
        assert_eq!(here.origin(id).unwrap(), Some(expected));
        assert_eq!(there.origin(id).unwrap(), None);
        assert_eq!(here.note(id, b"mine").unwrap(), Some(vec![1, 2]));
        assert_eq!(here.export(id).unwrap(), snapshot);
        let missing: Vec<_> = here.missing(id).iter().map(|m| m.segment).collect();
        let stored: Vec<_> = there.view(id).unwrap().segments().iter().map(|s| s.root).collect();
        assert_eq!(missing, stored, "every segment is a fill");
        let epoch = epoch_of(Height(expected.height.0 + 1));
        assert_eq!(here.committee(id, epoch).unwrap(), there.committee(id, epoch).unwrap());
        assert_eq!(here.block_record(id, expected.height).unwrap(), there.block_record(id, expected.height).unwrap());
    }
    // The same log, the same outcomes: a used id, a replay, a commit, and then an epoch's end.
    let mut ops = vec![
        commit(&[(0, 8)], vec![change(0, vec![segment(0, 300).inline()], vec![])]),
        commit(&[(0, 8)], vec![change(0, vec![segment(8, 40).inline()], vec![segment(7, 300).root()])]),
    ];
    ops.extend((0..2 * EPOCH_BLOCKS).map(|i| commit(&[(1, i)], vec![])));
    for op in ops {
        let block = VerifiedBlock::verify({
            let op = twin.owner.sign(id, op);
            twin.block(vec![op])
        });
        let block = block.unwrap();
        let (a, b) = (there.apply(&block).unwrap(), here.apply(&block).unwrap());
        assert_eq!((a.checkpoint, &a.outcomes), (b.checkpoint, &b.outcomes));
        if a.outcomes[0].outcome.is_ok() {
            twin.owner.sequence += 1;
            twin.owner.previous = a.outcomes[0].op;
        }
        assert!(!matches!(a.outcomes[0].outcome, Err(OpRefusal::Sequence { .. } | OpRefusal::Chain { .. })));
        twin.last = there.head(id);
    }
    assert_eq!(here.export(id).unwrap(), there.export(id).unwrap(), "members that began at different heights agree");
}

#[test]
fn an_imported_root_can_be_proven_once_it_is_filled_and_earlier_ones_are_gone() {
    let (there, mut twin) = rich();
    let id = twin.db;
    let earlier = there.checkpoint_at(id, Height(twin.last.unwrap().height.0 - 3)).unwrap().unwrap();
    let snapshot = there.export(id).unwrap();
    let here = open(&Arc::default());
    import(&here, id, &snapshot, &snapshot.bytes).unwrap();
    let cells = there.view(id).unwrap().preimage().stored_cells;
    let shape = StorageShape { samples: 8, holdings_levels: 1, stored_levels: 3, tree_levels: 4 };
    let (seed, root) = (FieldBytes::from_u64(9), HoldingsRoot::from_field(snapshot.root.to_field()));
    let statement = Storage { root, total_cells: cells, seed };
    let refused = here.storage_witness_at(&[(id, snapshot.root)], &statement, shape).unwrap_err();
    assert!(matches!(refused, WitnessError::Open(fluence_types::answer::OpenRefusal::NotHere(_))), "{refused}");
    for seed in 0..8 {
        let s = segment(seed, 300);
        if here.is_missing(id, s.root()) {
            here.append_fill(id, s.root(), 0, &s.bytes()).unwrap();
            here.finish_fill(id, s.root()).unwrap();
        }
    }
    assert!(here.missing(id).is_empty());
    let block = twin.block(vec![]);
    let block = VerifiedBlock::verify(block).unwrap();
    there.apply(&block).unwrap();
    here.apply(&block).unwrap();
    let witness = here.storage_witness_at(&[(id, snapshot.root)], &statement, shape).unwrap();
    assert_eq!(witness, there.storage_witness_at(&[(id, snapshot.root)], &statement, shape).unwrap());
    let gone = here.storage_witness_at(&[(id, earlier.root)], &statement, shape).unwrap_err();
    assert!(matches!(gone, WitnessError::Gone { .. }), "{gone}");
    assert_eq!(here.view(id).unwrap().snapshot(ProjectionId(0)), there.view(id).unwrap().snapshot(ProjectionId(0)));
}

#[test]
fn every_record_that_is_changed_dropped_or_added_is_refused_or_makes_another_digest() {
    let (there, twin) = rich();
    let (id, snapshot) = (twin.db, there.export(twin.db).unwrap());
    let good = records(&snapshot.bytes);
    let kinds: std::collections::BTreeSet<u8> = good.iter().map(|(p, ..)| *p).collect();
    assert_eq!(kinds, b"HWPCSDBIRM".iter().copied().collect(), "the database has records of every section");
    let here = open(&Arc::default());
    let digest = |bytes: &[u8]| {
        let chunks: Vec<_> = bytes.chunks(SNAPSHOT_CHUNK_BYTES).map(chunk_digest).collect();
        snapshot_digest(bytes.len() as u64, &chunks)
    };
    let mut passed = Vec::new();
    let mut try_one = |what: String, records: &[(u8, Vec<u8>, Vec<u8>)]| {
        let bytes = bytes_of(id, records);
        assert_ne!(digest(&bytes), snapshot.digest, "{what}");
        let fresh = open(&Arc::default());
        if import(&fresh, id, &snapshot, &bytes).is_ok() {
            passed.push(what);
        }
    };
    for (at, (prefix, ..)) in good.iter().enumerate() {
        let name = char::from(*prefix);
        let mut dropped = good.clone();
        dropped.remove(at);
        try_one(format!("{name} dropped"), &dropped);
        let mut twice = good.clone();
        twice.insert(at, good[at].clone());
        try_one(format!("{name} twice"), &twice);
        for flip in [0, good[at].2.len() / 2, good[at].2.len() - 1] {
            let mut changed = good.clone();
            changed[at].2[flip] ^= 1;
            try_one(format!("{name} changed"), &changed);
        }
        let mut renamed = good.clone();
        if let Some(byte) = renamed[at].1.last_mut() {
            *byte ^= 1;
            renamed.sort_by_key(|(p, k, _)| (b"HWPCSDBIRM".iter().position(|q| q == p), k.clone()));
            try_one(format!("{name} renamed"), &renamed);
        }
        let mut other = good.clone();
        other[at].0 = b'N';
        try_one(format!("{name} of no section"), &other);
    }
    // What no root binds: receipts, used ids that no stored segment has, collected segments, blocks and committees before the last. The
    // digest binds them.
    let unbound = |what: &String| b"RIDBMSH".contains(&what.as_bytes()[0]) && !what.ends_with("twice");
    let wrong: Vec<_> = passed.iter().filter(|what| !unbound(what)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for bound in
        ["H dropped", "W changed", "W dropped", "P changed", "P dropped", "C changed", "C dropped", "S dropped"]
    {
        assert!(!passed.iter().any(|p| p == bound), "{bound}");
    }
    import(&here, id, &snapshot, &snapshot.bytes).unwrap();
}

#[test]
fn refuses_bytes_that_are_no_snapshot_of_this_database_or_of_another_root() {
    let (there, twin) = rich();
    let (id, s) = (twin.db, there.export(twin.db).unwrap());
    let store = Arc::new(MemStore::new());
    let here = open(&store);
    let other = DatabaseId::from_bytes([9; 16]);
    assert!(matches!(there.export(other), Err(SnapshotError::UnknownDatabase(_))));
    let malformed = |r: Result<(), SnapshotError>| assert!(matches!(r, Err(SnapshotError::Malformed { .. })), "{r:?}");
    malformed(import(&here, other, &s, &s.bytes));
    let relabelled = bytes_of(other, &records(&s.bytes));
    malformed(import(&here, other, &s, &relabelled));
    malformed(import(&here, id, &s, &relabelled));
    malformed(import(&here, id, &s, &[]));
    for cut in [1, 8, 23, 24, 25, 100, s.bytes.len() - 1] {
        malformed(import(&here, id, &s, &s.bytes[..cut]));
    }
    malformed(import(&here, id, &s, &[&s.bytes[..], &[0]].concat()));
    let wrong = Checkpoint { db: id, height: Height(s.height.0 + 1), root: s.root };
    assert!(matches!(here.import(id, &s.bytes, &wrong, s.block, vec![]), Err(SnapshotError::Root { .. })));
    let wrong = Checkpoint { db: id, height: s.height, root: Default::default() };
    assert!(matches!(here.import(id, &s.bytes, &wrong, s.block, vec![]), Err(SnapshotError::Root { .. })));
    let right = Checkpoint { db: id, height: s.height, root: s.root };
    malformed(here.import(id, &s.bytes, &right, BlockHash::default(), vec![]));
    // A head with more slots than there can be costs an error, not memory.
    let mut records = records(&s.bytes);
    let at = records[0].2.len() - 40;
    records[0].2[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    malformed(import(&here, id, &s, &bytes_of(id, &records)));
    assert!(here.databases().is_empty() && here.missing(id).is_empty());
    assert!(open(&store).databases().is_empty());
}

#[test]
fn a_store_that_fails_while_importing_has_all_of_it_or_nothing() {
    let (there, twin) = rich();
    let (id, s) = (twin.db, there.export(twin.db).unwrap());
    for failure in [Failure::Before, Failure::After] {
        let store = Arc::new(MemStore::new());
        let here = Engine::open(Arc::new(FailingStore::new(store.clone(), 0, failure)), CONFIG).unwrap();
        assert!(matches!(import(&here, id, &s, &s.bytes), Err(SnapshotError::Store(_))));
        assert!(here.databases().is_empty() && here.missing(id).is_empty());
        let again = open(&store);
        match failure {
            Failure::Before => import(&again, id, &s, &s.bytes).unwrap(),
            Failure::After => assert!(matches!(import(&again, id, &s, &s.bytes), Err(SnapshotError::Here(_)))),
        }
        assert_eq!(again.head(id), there.head(id));
    }
}

#[test]
fn an_import_survives_on_disk() {
    let (there, twin) = rich();
    let (id, s) = (twin.db, there.export(twin.db).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let disk = || {
        let store = FjallStore::open(folder.path(), FjallOptions::default()).unwrap();
        Engine::open(Arc::new(store), CONFIG).unwrap()
    };
    import(&disk(), id, &s, &s.bytes).unwrap();
    let here = disk();
    assert_eq!(here.export(id).unwrap(), s);
    assert_eq!(here.missing(id).len(), there.view(id).unwrap().segments().len());
}
