//! The rules of operations, each with what is refused, and the rules of blocks.

use fluence_engine::testkit::{TestDb, TestSegment, TestWriter, change, commit, define, schema};
use fluence_engine::{ApplyError, Engine, EngineConfig, MemStore, Rules, VerifiedBlock};
use fluence_types::op::{Delivery, Op, OpRefusal, SignedOp};
use fluence_types::{DatabaseId, Height, OpId, ProjectionId, SegmentId, Version};
use std::sync::Arc;

fn engine() -> Engine {
    let config = EngineConfig {
        rules: Rules::retaining(3),
        upload_blocks: 50,
        upload_margin_blocks: 2,
        ..EngineConfig::default()
    };
    Engine::open(Arc::new(MemStore::new()), config).unwrap()
}

/// A database with one projection of one byte lane and one sum lane.
fn prepared(members: usize) -> (Engine, TestDb) {
    let (engine, mut db) = (engine(), TestDb::new(1, members));
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
    (engine, db)
}

fn segment(seed: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), 20, 9)
}

fn append(version: u64, segment: &TestSegment) -> Op {
    commit(&[(0, version)], vec![change(0, vec![segment.inline()], vec![])])
}

/// Does an operation that must be refused, and checks that nothing changed but the record of it.
fn refused(engine: &Engine, db: &mut TestDb, op: Op) -> OpRefusal {
    let op = db.owner.sign(db.db, op);
    refused_signed(engine, db, op)
}

fn refused_signed(engine: &Engine, db: &mut TestDb, op: SignedOp) -> OpRefusal {
    let state = |engine: &Engine| {
        let view = engine.view(db.db).unwrap();
        let writer = view.writer(op.unsigned.writer);
        (view.preimage().stored_root, view.preimage().catalogue_root, writer, view.summary().projections)
    };
    let before = state(engine);
    let applied = db.apply(engine, vec![op.clone()]).unwrap();
    let view = engine.view(db.db).unwrap();
    let after = (
        view.preimage().stored_root,
        view.preimage().catalogue_root,
        view.writer(op.unsigned.writer),
        view.summary().projections,
    );
    assert_eq!(after, before, "a refused operation changes nothing");
    let receipt = engine.receipt(db.db, applied.outcomes[0].op).unwrap().unwrap();
    // A copy of an operation that was done does not overwrite its receipt.
    assert!(receipt == applied.outcomes[0] || receipt.outcome.is_ok());
    applied.outcomes[0].outcome.clone().expect_err("the operation must be refused")
}

#[test]
fn a_database_is_created_defined_and_written_and_every_step_has_its_receipt() {
    let (engine, mut db) = prepared(1);
    let first = segment(1);
    db.act(&engine, append(0, &first)).unwrap().unwrap();
    let opening = engine.snapshot(db.db, ProjectionId(0)).unwrap();
    assert_eq!(opening.entry.live.to_vec(), vec![first.root()]);
    assert_eq!(opening.entry.version, Version(1));
    assert_eq!(fluence_crypto::roots::verify_catalogue(&opening).unwrap(), engine.checkpoint(db.db).unwrap().root);
    let summary = engine.view(db.db).unwrap().summary();
    assert_eq!((summary.segments, summary.stored_cells, summary.projections), (1, first.preimage.cells, 1));
    assert_eq!(summary.owner, db.owner.key.address());
    assert_eq!(engine.receipt(db.db, db.owner.previous).unwrap().unwrap().height, Height(2));
    assert_eq!(engine.receipt(db.db, OpId::default()).unwrap(), None);
    assert_eq!(engine.view(db.db).unwrap().schemas().unwrap(), vec![schema(1, 1)]);
}

#[test]
fn refuses_a_database_that_exists_and_a_first_block_that_creates_none() {
    let (engine, mut db) = prepared(1);
    let again = db.creation();
    assert_eq!(refused(&engine, &mut db, again), OpRefusal::Database(db.db));
    let mut other = TestDb::new(2, 1);
    let define = other.owner.sign(other.db, define(0, schema(1, 1)));
    assert!(matches!(other.apply(&engine, vec![define]), Err(ApplyError::Genesis { why: OpRefusal::Database(_), .. })));
    assert!(matches!(other.apply(&engine, vec![]), Err(ApplyError::Genesis { .. })));
    let mut nobody = TestDb::new(3, 0);
    assert!(matches!(nobody.create(&engine), Err(ApplyError::Genesis { why: OpRefusal::Cluster(_), .. })));
    nobody = TestDb::new(3, 1);
    nobody.owner.sequence = 1;
    assert!(matches!(nobody.create(&engine), Err(ApplyError::Genesis { why: OpRefusal::Sequence { .. }, .. })));
    nobody.owner.sequence = 0;
    nobody.owner.previous = OpId::from_bytes([1; 32]);
    assert!(matches!(nobody.create(&engine), Err(ApplyError::Genesis { why: OpRefusal::Chain { .. }, .. })));
    assert!(engine.view(other.db).is_err() && engine.view(nobody.db).is_err());
}

#[test]
fn refuses_strangers_and_writers_that_were_removed_but_keeps_their_chains() {
    let (engine, mut db) = prepared(1);
    let mut writer = TestWriter::new(50);
    let op = writer.sign(db.db, define(1, schema(1, 0)));
    assert_eq!(refused_signed(&engine, &mut db, op.clone()), OpRefusal::NotAllowed(writer.key.address()));
    let set = |who: &[&TestWriter]| {
        let mut list: Vec<_> = who.iter().map(|w| w.key.address()).collect();
        list.sort_unstable();
        Op::SetWriters { writers: list.try_into().unwrap() }
    };
    db.act(&engine, set(&[&writer])).unwrap().unwrap();
    assert_eq!(db.apply(&engine, vec![op.clone()]).unwrap().outcomes[0].outcome, Ok(()));
    writer.advance(&op);
    // Only the owner says who writes.
    let own = writer.sign(db.db, set(&[]));
    assert_eq!(refused_signed(&engine, &mut db, own), OpRefusal::NotAllowed(writer.key.address()));
    db.act(&engine, set(&[])).unwrap().unwrap();
    let next = writer.sign(db.db, define(2, schema(1, 0)));
    assert_eq!(refused_signed(&engine, &mut db, next.clone()), OpRefusal::NotAllowed(writer.key.address()));
    db.act(&engine, set(&[&writer])).unwrap().unwrap();
    // Back again: the old operation is old, the next one is next.
    assert_eq!(refused_signed(&engine, &mut db, op), OpRefusal::Sequence { got: 0, expected: 1 });
    assert_eq!(db.apply(&engine, vec![next]).unwrap().outcomes[0].outcome, Ok(()));
    let twice = Op::SetWriters { writers: vec![writer.key.address(); 2].try_into().unwrap() };
    assert!(matches!(refused(&engine, &mut db, twice), OpRefusal::Malformed(_)));
}

#[test]
fn writers_that_never_wrote_leave_nothing_and_the_number_in_a_life_is_bounded() {
    let (engine, mut db) = prepared(1);
    let list = |from: u32, count: u32| {
        let addresses: Vec<_> = (from..from + count)
            .map(|n| {
                let mut bytes = [0; 20];
                bytes[16..].copy_from_slice(&n.to_be_bytes());
                fluence_types::Address::from_bytes(bytes)
            })
            .collect();
        Op::SetWriters { writers: addresses.try_into().unwrap() }
    };
    let root = engine.checkpoint(db.db).unwrap().root;
    for from in 0..12 {
        db.act(&engine, list(from * 1000, 1000)).unwrap().unwrap();
    }
    db.act(&engine, list(0, 0)).unwrap().unwrap();
    assert_ne!(engine.checkpoint(db.db).unwrap().root, root, "the history goes on");
    let state = engine.view(db.db).unwrap().writer(fluence_types::Address::from_bytes([0; 20]));
    assert!(!state.allowed && state.next_sequence == 0, "{state:?}");
}

#[test]
fn refuses_schemas_that_no_response_could_carry() {
    let (engine, mut db) = prepared(1);
    let big = || {
        let mut schema = schema(1, 0);
        schema.description = vec![7; fluence_types::limits::DESCRIPTION_BYTES_MAX].try_into().unwrap();
        schema
    };
    let fit = fluence_types::limits::SCHEMAS_BYTES_MAX / (fluence_types::limits::DESCRIPTION_BYTES_MAX as u64);
    for id in 1..fit {
        db.act(&engine, define(id as u32, big())).unwrap().unwrap();
    }
    assert!(matches!(refused(&engine, &mut db, define(fit as u32, big())), OpRefusal::Malformed(_)));
    db.act(&engine, define(fit as u32, schema(1, 0))).unwrap().unwrap();
}

#[test]
fn refuses_replays_gaps_and_broken_chains() {
    let (engine, mut db) = prepared(1);
    let op = db.owner.sign(db.db, define(1, schema(1, 0)));
    let applied = db.apply(&engine, vec![op.clone(), op.clone()]).unwrap();
    assert_eq!(applied.outcomes[0].outcome, Ok(()));
    assert_eq!(applied.outcomes[1].outcome, Err(OpRefusal::Sequence { got: 2, expected: 3 }));
    // The copy does not overwrite the receipt of the original, in this block or a later one.
    db.apply(&engine, vec![op.clone()]).unwrap();
    assert_eq!(engine.receipt(db.db, applied.outcomes[0].op).unwrap().unwrap().outcome, Ok(()));
    db.owner.advance(&op);
    db.owner.sequence += 1;
    assert_eq!(refused(&engine, &mut db, define(2, schema(1, 0))), OpRefusal::Sequence { got: 4, expected: 3 });
    db.owner.sequence -= 1;
    let real = std::mem::replace(&mut db.owner.previous, OpId::from_bytes([5; 32]));
    assert_eq!(
        refused(&engine, &mut db, define(2, schema(1, 0))),
        OpRefusal::Chain { got: OpId::from_bytes([5; 32]), expected: real }
    );
}

#[test]
fn refuses_a_projection_at_another_id_or_without_proper_lanes() {
    use fluence_types::segment::{LaneKind, PublicSchema};
    let (engine, mut db) = prepared(1);
    assert_eq!(refused(&engine, &mut db, define(0, schema(1, 1))), OpRefusal::Projection(ProjectionId(0)));
    assert_eq!(refused(&engine, &mut db, define(2, schema(1, 1))), OpRefusal::Projection(ProjectionId(2)));
    assert!(matches!(refused(&engine, &mut db, define(1, schema(0, 0))), OpRefusal::Malformed(_)));
    let lanes = vec![LaneKind::Sum, LaneKind::Bytes].try_into().unwrap();
    let mixed = PublicSchema { lanes, description: vec![].try_into().unwrap() };
    assert!(matches!(refused(&engine, &mut db, define(1, mixed)), OpRefusal::Malformed(_)));
}

#[test]
fn refuses_a_commit_that_read_an_old_version_or_is_malformed() {
    let (engine, mut db) = prepared(1);
    db.act(&engine, append(0, &segment(1))).unwrap().unwrap();
    let conflict = OpRefusal::Conflict { projection: ProjectionId(0), read: Version(0), current: Version(1) };
    assert_eq!(refused(&engine, &mut db, append(0, &segment(2))), conflict);
    let change_of = |p: u32, seed: u64| change(p, vec![segment(seed).inline()], vec![]);
    let unknown = commit(&[(0, 1), (7, 0)], vec![change_of(0, 2)]);
    assert_eq!(refused(&engine, &mut db, unknown), OpRefusal::Projection(ProjectionId(7)));
    for malformed in [
        commit(&[(0, 1)], vec![]),
        commit(&[(0, 1), (0, 1)], vec![change_of(0, 2)]),
        commit(&[], vec![change_of(0, 2)]),
        commit(&[(0, 1)], vec![change_of(0, 2), change_of(0, 3)]),
        commit(&[(0, 1)], vec![change(0, vec![], vec![])]),
    ] {
        assert!(matches!(refused(&engine, &mut db, malformed), OpRefusal::Malformed(_)));
    }
}

#[test]
fn refuses_to_retire_what_is_not_live_and_replaces_what_is() {
    let (engine, mut db) = prepared(1);
    let (a, b, c) = (segment(1), segment(2), segment(3));
    db.act(&engine, commit(&[(0, 0)], vec![change(0, vec![a.inline(), b.inline()], vec![])])).unwrap().unwrap();
    let absent = commit(&[(0, 1)], vec![change(0, vec![], vec![c.root()])]);
    assert_eq!(refused(&engine, &mut db, absent), OpRefusal::NotLive(c.root()));
    let twice = commit(&[(0, 1)], vec![change(0, vec![], vec![a.root(), a.root()])]);
    assert_eq!(refused(&engine, &mut db, twice), OpRefusal::NotLive(a.root()));
    let compact = commit(&[(0, 1)], vec![change(0, vec![c.inline()], vec![a.root(), b.root()])]);
    db.act(&engine, compact).unwrap().unwrap();
    assert_eq!(engine.snapshot(db.db, ProjectionId(0)).unwrap().entry.live.to_vec(), vec![c.root()]);
    let again = commit(&[(0, 2)], vec![change(0, vec![], vec![a.root()])]);
    assert_eq!(refused(&engine, &mut db, again), OpRefusal::NotLive(a.root()));
}

#[test]
fn refuses_a_segment_or_an_id_that_was_stored_before_even_after_it_was_collected() {
    let (engine, mut db) = prepared(1);
    let a = segment(1);
    let double = commit(&[(0, 0)], vec![change(0, vec![a.inline(), a.inline()], vec![])]);
    assert_eq!(refused(&engine, &mut db, double), OpRefusal::Repeated(a.header.id));
    db.act(&engine, append(0, &a)).unwrap().unwrap();
    assert_eq!(refused(&engine, &mut db, append(1, &a)), OpRefusal::Repeated(a.header.id));
    // The same id with other data would use mask labels twice.
    let mut header = segment(2).header;
    header.id = a.header.id;
    let cells = [header.to_cells(), segment(2).cells[header.cells() as usize..].to_vec()].concat();
    let hash = fluence_crypto::tree::header_hash(&header.to_cells());
    let same_id = TestSegment::of_cells(header, cells, hash);
    assert_ne!(same_id.root(), a.root());
    assert_eq!(refused(&engine, &mut db, append(1, &same_id)), OpRefusal::Repeated(a.header.id));
    // The same cells under another id.
    let mut renamed = a.inline();
    renamed.id = SegmentId::from_bytes([9; 16]);
    let renamed = commit(&[(0, 1)], vec![change(0, vec![renamed], vec![])]);
    assert_eq!(refused(&engine, &mut db, renamed), OpRefusal::Repeated(SegmentId::from_bytes([9; 16])));
    db.act(&engine, commit(&[(0, 1)], vec![change(0, vec![], vec![a.root()])])).unwrap().unwrap();
    for _ in 0..4 {
        db.apply(&engine, vec![]).unwrap();
    }
    assert_eq!(engine.view(db.db).unwrap().summary().segments, 0, "it was collected");
    assert_eq!(refused(&engine, &mut db, append(2, &a)), OpRefusal::Repeated(a.header.id));
}

#[test]
fn refuses_more_live_segments_than_the_limit() {
    let (engine, mut db) = prepared(1);
    let many: Vec<_> = (0..16).map(|i| segment(i).inline()).collect();
    db.act(&engine, commit(&[(0, 0)], vec![change(0, many, vec![])])).unwrap().unwrap();
    assert_eq!(refused(&engine, &mut db, append(1, &segment(99))), OpRefusal::TooManyLive(ProjectionId(0)));
    let swap = commit(&[(0, 1)], vec![change(0, vec![segment(99).inline()], vec![segment(0).root()])]);
    db.act(&engine, swap).unwrap().unwrap();
}

#[test]
fn refuses_inline_segments_that_are_not_what_they_say() {
    let (engine, mut db) = prepared(1);
    db.act(&engine, define(1, schema(2, 1))).unwrap().unwrap();
    let good = segment(1);
    type Spoil = fn(&mut fluence_types::op::SegmentRef);
    let spoils: [(&str, Spoil); 8] = [
        ("id", |s| s.id = SegmentId::from_bytes([3; 16])),
        ("rows", |s| s.rows += 1),
        ("no rows", |s| s.rows = 0),
        ("cells", |s| s.preimage.cells += 1),
        ("no cells", |s| s.preimage.cells = 0),
        ("header hash", |s| s.preimage.header_hash = fluence_types::HeaderHash::from_bytes([1; 32])),
        ("a byte", |s| flip(s, 1000)),
        ("not canonical", |s| {
            let Delivery::Inline(bytes) = &s.delivery else { unreachable!() };
            let mut bytes = bytes.to_vec();
            let last = bytes.len() - 32;
            bytes[last] = 0xff;
            s.delivery = Delivery::Inline(bytes.try_into().unwrap());
        }),
    ];
    for (name, spoil) in spoils {
        let mut bad = good.inline();
        spoil(&mut bad);
        let refusal = refused(&engine, &mut db, commit(&[(0, 0)], vec![change(0, vec![bad], vec![])]));
        assert!(matches!(refusal, OpRefusal::Segment { .. }), "{name}: {refusal}");
    }
    // Of another projection: another schema, and so other lanes.
    let elsewhere = commit(&[(1, 0)], vec![change(1, vec![good.inline()], vec![])]);
    assert!(matches!(refused(&engine, &mut db, elsewhere), OpRefusal::Segment { .. }));
    // One bad segment refuses the whole commit.
    let mut bad = segment(2).inline();
    flip(&mut bad, 1500);
    let both = commit(&[(0, 0)], vec![change(0, vec![good.inline(), bad], vec![])]);
    assert!(matches!(refused(&engine, &mut db, both), OpRefusal::Segment { .. }));
    db.act(&engine, append(0, &good)).unwrap().unwrap();
}

fn flip(segment: &mut fluence_types::op::SegmentRef, at: usize) {
    let Delivery::Inline(bytes) = &segment.delivery else { unreachable!() };
    let mut bytes = bytes.to_vec();
    bytes[at + 31 - at % 32] ^= 1;
    segment.delivery = Delivery::Inline(bytes.try_into().unwrap());
}

#[test]
fn refuses_receipts_that_are_too_few_foreign_repeated_expired_or_forged() {
    let (engine, mut db) = prepared(4);
    let (a, b) = (segment(1), segment(2));
    let checked = a.upload(&engine, db.db, 1000).unwrap();
    let other = b.upload(&engine, db.db, 1000).unwrap();
    let by = |delivery: Delivery| commit(&[(0, 0)], vec![change(0, vec![a.delivered(delivery)], vec![])]);
    let of = |delivery: &Delivery| match delivery {
        Delivery::Receipts(list) => list.to_vec(),
        _ => unreachable!(),
    };
    let few = |valid| OpRefusal::Receipts { segment: a.header.id, valid, quorum: 3 };
    let op = by(db.receipts(&checked, 2));
    assert_eq!(refused(&engine, &mut db, op), few(2));
    let good = of(&db.receipts(&checked, 4));
    let list = |receipts: Vec<_>| Delivery::Receipts(receipts.try_into().unwrap());
    let repeated = list(vec![good[0].clone(), good[1].clone(), good[0].clone()]);
    assert_eq!(refused(&engine, &mut db, by(repeated)), few(2));
    let mut forged = good.clone();
    forged[0].signature[5] ^= 1;
    forged[1].receipt.expiry = Height(1000);
    assert_eq!(refused(&engine, &mut db, by(list(forged))), few(2));
    let op = by(db.receipts(&other, 4));
    assert_eq!(refused(&engine, &mut db, op), few(0));
    let stranger = TestDb::new(77, 4);
    let op = by(stranger.receipts(&checked, 4));
    assert_eq!(refused(&engine, &mut db, op), few(0));
    let mut elsewhere = checked;
    elsewhere.db = DatabaseId::from_bytes([1; 16]);
    let op = by(db.receipts(&elsewhere, 4));
    assert_eq!(refused(&engine, &mut db, op), few(0));
    let mut soon = checked;
    soon.expiry = db.last.unwrap().height;
    let op = by(db.receipts(&soon, 4));
    assert_eq!(refused(&engine, &mut db, op), few(0));
    let op = by(list(good[1..].to_vec()));
    let op = db.owner.sign(db.db, op);
    let applied = db.apply(&engine, vec![op]).unwrap();
    assert_eq!((applied.outcomes[0].outcome.clone(), applied.missing.clone()), (Ok(()), vec![]));
}

#[test]
fn a_segment_ordered_by_receipts_of_others_becomes_live_and_is_reported_missing() {
    let (here, mut db) = prepared(1);
    let there = engine();
    let a = segment(1);
    // The same blocks on a member that has the segment and on one that has not.
    let mut twin = TestDb::new(1, 1);
    twin.create(&there).unwrap();
    twin.act(&there, define(0, schema(1, 1))).unwrap().unwrap();
    let checked = a.upload(&there, db.db, 4096).unwrap();
    let op = commit(&[(0, 0)], vec![change(0, vec![a.delivered(db.receipts(&checked, 1))], vec![])]);
    let op = db.owner.sign(db.db, op);
    let lacking = db.apply(&here, vec![op.clone()]).unwrap();
    let having = twin.apply(&there, vec![op]).unwrap();
    assert_eq!(lacking.checkpoint, having.checkpoint, "the outcome does not depend on what a member holds");
    assert_eq!((lacking.missing, having.missing), (vec![a.root()], vec![]));
    assert!(there.view(db.db).unwrap().page(a.root(), 0).is_ok());
    assert!(matches!(here.view(db.db).unwrap().page(a.root(), 0), Err(fluence_types::answer::OpenRefusal::NotHere(_))));
}

#[test]
fn refuses_blocks_that_do_not_follow() {
    let (engine, mut db) = prepared(1);
    let apply = |block| engine.apply(&VerifiedBlock::verify(block)?);
    let block = db.block(vec![]);
    let mut bad = block.clone();
    bad.header.height = Height(7);
    assert!(matches!(apply(bad), Err(ApplyError::Height { got: Height(7), expected: Height(2) })));
    let mut bad = block.clone();
    bad.header.parent = Default::default();
    assert!(matches!(apply(bad), Err(ApplyError::Parent { .. })));
    let mut bad = block.clone();
    bad.header.timestamp_ms = 5;
    assert!(matches!(apply(bad), Err(ApplyError::Timestamp { got: 5, .. })));
    let mut bad = block.clone();
    bad.header.executed_root = Default::default();
    assert!(matches!(apply(bad), Err(ApplyError::Executed { .. })));
    let mut bad = block.clone();
    bad.header.executed_height = Height(2);
    assert!(matches!(apply(bad), Err(ApplyError::Executed { ours: None, .. })));
    let mut bad = block.clone();
    bad.header.ops_hash = [0; 32];
    assert!(matches!(apply(bad), Err(ApplyError::OpsHash)));
    // An older executed root is fine if it is ours.
    let mut older = block;
    older.header.executed_height = Height(0);
    older.header.executed_root = engine.checkpoint_at(db.db, Height(0)).unwrap().unwrap().root;
    assert!(apply(older).is_ok());
}

#[test]
fn refuses_blocks_with_a_bad_signature_or_a_foreign_operation() {
    let (_, mut db) = prepared(1);
    let mut op = db.owner.sign(db.db, define(1, schema(1, 0)));
    let foreign = db.owner.sign(DatabaseId::from_bytes([2; 16]), define(1, schema(1, 0)));
    let block = db.block(vec![op.clone(), foreign]);
    assert!(matches!(VerifiedBlock::verify(block), Err(ApplyError::OtherDatabase(_))));
    op.signature[3] ^= 1;
    let block = db.block(vec![op]);
    assert!(matches!(VerifiedBlock::verify(block), Err(ApplyError::Signature { index: 0, .. })));
}

#[test]
fn a_block_delivered_twice_is_applied_once_and_another_at_its_height_is_a_fork() {
    let (engine, mut db) = prepared(1);
    let op = db.owner.sign(db.db, append(0, &segment(1)));
    let block = db.block(vec![op]);
    let first = engine.apply(&VerifiedBlock::verify(block.clone()).unwrap()).unwrap();
    let again = engine.apply(&VerifiedBlock::verify(block.clone()).unwrap()).unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!((again.checkpoint, again.outcomes), (first.checkpoint, first.outcomes));
    let mut fork = block;
    fork.header.timestamp_ms += 1;
    assert!(matches!(engine.apply(&VerifiedBlock::verify(fork).unwrap()), Err(ApplyError::Fork { .. })));
}

#[test]
fn an_empty_block_keeps_the_root_and_a_refused_operation_does_not() {
    let (engine, mut db) = prepared(1);
    let before = engine.checkpoint(db.db).unwrap().root;
    assert_eq!(db.apply(&engine, vec![]).unwrap().root(), before);
    refused(&engine, &mut db, define(5, schema(1, 0)));
    assert_ne!(engine.checkpoint(db.db).unwrap().root, before, "receipts are under the root");
}

#[test]
fn no_more_segments_than_a_storage_proof_reaches_until_the_superseded_ones_go() {
    let rules = Rules { retention_blocks: 6, stored_levels: 1, segment_levels: 2 };
    let config = EngineConfig { rules, ..EngineConfig::default() };
    let engine = Engine::open(Arc::new(MemStore::new()), config).unwrap();
    let mut db = TestDb::new(11, 1);
    db.create(&engine).unwrap();
    db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
    let small = |seed| TestSegment::new(seed, &schema(1, 1), 3, 10);
    let replace = |version, new: &TestSegment, old: Option<&TestSegment>| {
        commit(&[(0, version)], vec![change(0, vec![new.inline()], old.iter().map(|s| s.root()).collect())])
    };
    // No segment higher than it reaches: 64 cells.
    let high = TestSegment::new(9, &schema(1, 1), 500, 20);
    assert!(high.preimage.cells > 64);
    let refusal = refused(&engine, &mut db, replace(0, &high, None));
    assert!(matches!(&refusal, OpRefusal::Segment { why, .. } if why.contains("at most 64 cells")), "{refusal}");

    let segments: Vec<TestSegment> = (1..=5).map(small).collect();
    let mut old = None;
    for (version, new) in segments[..4].iter().enumerate() {
        db.act(&engine, replace(version as u64, new, old)).unwrap().unwrap();
        old = Some(new);
    }
    // The first was superseded in block 4.
    let full = refused(&engine, &mut db, replace(4, &segments[4], old));
    assert_eq!(full, OpRefusal::Full { limit: 4, until: Some(Height(4 + 6)) });
    assert!(full.to_string().contains("block 10"), "{full}");
    while engine.head(db.db).unwrap().height < Height(9) {
        db.apply(&engine, Vec::new()).unwrap();
    }
    db.act(&engine, replace(4, &segments[4], old)).unwrap().unwrap();
}

#[test]
fn superseded_segments_stay_for_the_retention_and_their_slots_are_used_again_lowest_first() {
    let (engine, mut db) = prepared(1);
    let s: Vec<TestSegment> = (0..6).map(segment).collect();
    let three = vec![s[0].inline(), s[1].inline(), s[2].inline()];
    db.act(&engine, commit(&[(0, 0)], vec![change(0, three, vec![])])).unwrap().unwrap();
    let drop_two = commit(&[(0, 1)], vec![change(0, vec![], vec![s[0].root(), s[1].root()])]);
    db.act(&engine, drop_two).unwrap().unwrap(); // height 3: collected at height 6
    let cells = |n: usize| -> u64 { s[..n].iter().map(|s| s.preimage.cells).sum() };
    for _ in 0..2 {
        db.apply(&engine, vec![]).unwrap();
        assert_eq!(engine.view(db.db).unwrap().summary().stored_cells, cells(3));
        assert!(engine.view(db.db).unwrap().header(s[0].root()).is_ok(), "superseded, but still served");
    }
    let before = engine.view(db.db).unwrap();
    // The slots that are freed at this height are used in the same block, lowest first.
    db.act(&engine, append(2, &s[3])).unwrap().unwrap();
    let view = engine.view(db.db).unwrap();
    assert_eq!(view.summary().segments, 2);
    assert!(view.header(s[0].root()).is_err() && view.page(s[1].root(), 0).is_err());
    let holdings = engine.holdings_of_one(db.db).unwrap();
    assert_eq!(holdings.total_cells, s[2].preimage.cells + s[3].preimage.cells);
    // Earlier roots name it, so its cells stay for the retention again.
    assert!(before.page(s[0].root(), 0).is_ok());
    for _ in 0..3 {
        db.apply(&engine, vec![]).unwrap();
    }
    // A view taken before says unknown, not lost: nothing was lost.
    let gone = before.page(s[0].root(), 0).unwrap_err();
    assert_eq!(gone, fluence_types::answer::OpenRefusal::UnknownSegment(s[0].root()));
    assert_eq!(view.summary().lost_pages, 0);
    assert!(engine.scrub(&mut |_| true).is_empty());
}
