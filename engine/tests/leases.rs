//! Leases of tables through the log: who may write, what an earlier holder still sends, and that every member and every root agrees.

use fluence_engine::testkit::{TestDb, TestSegment, TestWriter, change, commit, define, fenced, schema};
use fluence_engine::{Engine, EngineConfig, MemStore, Snapshot, VerifiedBlock};
use fluence_types::limits::{LEASE_MS_MAX, LEASE_MS_MIN};
use fluence_types::op::{Lease, LeaseAction, Op, OpOutcome, OpRefusal, SignedOp};
use fluence_types::{Fence, TableId, Version};
use std::sync::Arc;

const TABLE: TableId = TableId(0);

fn engine() -> Engine {
    Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).unwrap()
}

fn segment(seed: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), 20, 9)
}

fn lease(action: LeaseAction) -> Op {
    Op::Lease { table: TABLE, action }
}

fn acquire(fence: u64, duration_ms: u32) -> Op {
    lease(LeaseAction::Acquire { fence: Fence(fence), duration_ms })
}

fn renew(fence: u64, duration_ms: u32) -> Op {
    lease(LeaseAction::Renew { fence: Fence(fence), duration_ms })
}

fn release(fence: u64) -> Op {
    lease(LeaseAction::Release { fence: Fence(fence) })
}

/// A database of one table, its owner, and two more writers.
struct World {
    engine: Engine,
    db: TestDb,
    alice: TestWriter,
    bob: TestWriter,
}

impl World {
    fn new() -> Self {
        let (engine, mut db) = (engine(), TestDb::new(1, 1));
        db.create(&engine).unwrap();
        db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
        let (alice, bob) = (TestWriter::new(50), TestWriter::new(51));
        let mut world = Self { engine, db, alice, bob };
        world.writers(&[50, 51]);
        world
    }

    fn writers(&mut self, seeds: &[u64]) {
        let mut list: Vec<_> = seeds.iter().map(|s| TestWriter::new(*s).key.address()).collect();
        list.sort_unstable();
        self.owner(Op::SetWriters { writers: list.try_into().unwrap() }).unwrap();
    }

    fn owner(&mut self, op: Op) -> OpOutcome {
        self.db.act(&self.engine, op).unwrap()
    }

    fn by(&mut self, who: fn(&mut Self) -> &mut TestWriter, op: Op) -> OpOutcome {
        let db = self.db.db;
        let signed = who(self).sign(db, op);
        let outcome = self.send(signed.clone());
        if outcome.is_ok() {
            who(self).advance(&signed);
        }
        outcome
    }

    fn alice(&mut self, op: Op) -> OpOutcome {
        self.by(|w| &mut w.alice, op)
    }

    fn bob(&mut self, op: Op) -> OpOutcome {
        self.by(|w| &mut w.bob, op)
    }

    fn send(&mut self, op: SignedOp) -> OpOutcome {
        self.db.apply(&self.engine, vec![op]).unwrap().outcomes[0].outcome.clone()
    }

    fn version(&self) -> u64 {
        let Version(version) = self.engine.snapshot(self.db.db, fluence_types::ProjectionId(0)).unwrap().entry.version;
        version
    }

    fn now(&self) -> u64 {
        self.db.last.unwrap().timestamp_ms
    }

    fn lease(&self) -> Lease {
        self.engine.view(self.db.db).unwrap().lease(TABLE).0
    }

    fn append(&self, fences: &[(u32, u64)], seed: u64) -> Op {
        fenced(fences, &[(0, self.version())], vec![change(0, vec![segment(seed).inline()], vec![])])
    }

    fn compact(&self, fences: &[(u32, u64)], old: u64, new: u64) -> Op {
        let change = change(0, vec![segment(new).inline()], vec![segment(old).root()]);
        fenced(fences, &[(0, self.version())], vec![change])
    }
}

#[test]
fn while_a_lease_runs_its_holder_writes_and_nobody_else_and_afterwards_anybody() {
    let mut w = World::new();
    w.bob(w.append(&[], 1)).unwrap();
    w.alice(acquire(1, 10_000)).unwrap();
    let (holder, until_ms) = (w.alice.key.address(), w.now() + 10_000);
    assert_eq!(w.lease(), Lease { fence: Fence(1), holder: Some(holder), until_ms });
    // Each block is a second later.
    let leased = |w: &World| OpRefusal::Leased { table: TABLE, holder, until_ms, now_ms: w.now() };
    for (n, fences) in [(2u64, &[][..]), (3, &[(0, 1)])] {
        let refused = w.bob(w.append(fences, n)).unwrap_err();
        let fence = OpRefusal::Fence { table: TABLE, got: Fence(1), lease: w.lease() };
        assert_eq!(refused, if fences.is_empty() { leased(&w) } else { fence }, "he has no lease, nor Alice's");
        assert!(w.owner(w.append(fences, n)).is_err(), "not even the owner writes past a holder");
    }
    assert!(matches!(w.bob(acquire(2, 10_000)), Err(OpRefusal::Leased { .. })));
    assert!(
        matches!(w.alice(acquire(2, 10_000)), Err(OpRefusal::Leased { .. })),
        "nor is a lease taken twice by one key"
    );
    assert!(matches!(w.alice(w.append(&[], 4)), Err(OpRefusal::Leased { .. })), "another process with her key");
    w.alice(w.append(&[(0, 1)], 4)).unwrap();
    w.alice(w.compact(&[(0, 1)], 4, 5)).unwrap();
    // It lapses: no state changes for that.
    w.db.wait(10_000);
    assert_eq!(w.lease().until_ms, until_ms);
    assert!(matches!(w.alice(w.append(&[(0, 1)], 6)), Err(OpRefusal::Fence { got: Fence(1), .. })));
    w.bob(w.append(&[], 6)).unwrap();
    w.alice(w.append(&[], 7)).unwrap();
}

#[test]
fn an_earlier_holder_with_its_number_is_refused_and_so_is_every_copy_of_what_it_sent() {
    let mut w = World::new();
    w.alice(acquire(1, LEASE_MS_MIN * 3)).unwrap();
    let sent = w.alice.sign(w.db.db, w.append(&[(0, 1)], 1));
    w.db.wait(5000);
    w.bob(acquire(2, 60_000)).unwrap();
    let fence = |w: &World, got| Err(OpRefusal::Fence { table: TABLE, got: Fence(got), lease: w.lease() });
    // What she sent while she held it arrives late.
    assert_eq!(w.send(sent.clone()), fence(&w, 1));
    assert_eq!(w.send(sent), fence(&w, 1), "and late again");
    assert_eq!(w.alice(w.append(&[(0, 2)], 1)), fence(&w, 2), "his number is not hers");
    assert_eq!(w.alice(renew(1, 60_000)), fence(&w, 1));
    assert_eq!(w.alice(renew(2, 60_000)), fence(&w, 2));
    assert_eq!(w.alice(release(2)), fence(&w, 2));
    assert_eq!(w.alice(lease(LeaseAction::Break)), Err(OpRefusal::NotAllowed(w.alice.key.address())));
    // His own operation twice: the second copy is old.
    let op = w.bob.sign(w.db.db, w.append(&[(0, 2)], 2));
    assert_eq!(w.send(op.clone()), Ok(()));
    w.bob.advance(&op);
    assert!(matches!(w.send(op), Err(OpRefusal::Sequence { .. })));
    let take = w.bob.sign(w.db.db, release(2));
    assert_eq!(w.send(take.clone()), Ok(()));
    w.bob.advance(&take);
    assert!(matches!(w.send(take), Err(OpRefusal::Sequence { .. })));
    assert_eq!(w.bob(w.append(&[(0, 2)], 3)), fence(&w, 2), "given up is over");
    w.alice(acquire(3, 60_000)).unwrap();
    assert_eq!(w.bob(w.append(&[(0, 2)], 3)), fence(&w, 2));
}

#[test]
fn the_next_number_and_no_other_is_taken_and_times_have_limits() {
    let mut w = World::new();
    for wrong in [0, 2, u64::MAX] {
        assert!(matches!(w.alice(acquire(wrong, 5000)), Err(OpRefusal::Fence { .. })), "{wrong}");
    }
    for wrong in [0, LEASE_MS_MIN - 1, LEASE_MS_MAX + 1, u32::MAX] {
        assert!(matches!(w.alice(acquire(1, wrong)), Err(OpRefusal::Malformed(_))), "{wrong}");
    }
    w.alice(acquire(1, LEASE_MS_MIN * 5)).unwrap();
    assert!(matches!(w.alice(renew(1, LEASE_MS_MAX + 1)), Err(OpRefusal::Malformed(_))));
    w.alice(renew(1, LEASE_MS_MAX)).unwrap();
    assert_eq!((w.lease().fence, w.lease().until_ms), (Fence(1), w.now() + u64::from(LEASE_MS_MAX)));
    let nowhere = Op::Lease { table: TableId(1), action: LeaseAction::Break };
    assert_eq!(w.owner(nowhere), Err(OpRefusal::Table(TableId(1))));
    let twice = w.append(&[(0, 1), (0, 1)], 1);
    assert!(matches!(w.alice(twice), Err(OpRefusal::Malformed(_))));
    // A fence of a table that it does not change must hold as well.
    let stray = w.append(&[(0, 1), (9, 1)], 1);
    assert!(matches!(w.alice(stray), Err(OpRefusal::Fence { table: TableId(9), .. })));
}

#[test]
fn only_the_owner_or_a_holder_retires_segments() {
    let mut w = World::new();
    w.alice(w.append(&[], 1)).unwrap();
    let by = w.alice.key.address();
    assert_eq!(w.alice(w.compact(&[], 1, 2)), Err(OpRefusal::Unleased { table: TABLE, by }));
    w.owner(w.compact(&[], 1, 2)).unwrap();
    w.alice(acquire(1, 60_000)).unwrap();
    assert!(matches!(w.owner(w.compact(&[], 2, 3)), Err(OpRefusal::Leased { .. })), "the owner breaks it first");
    w.alice(w.compact(&[(0, 1)], 2, 3)).unwrap();
    w.owner(lease(LeaseAction::Break)).unwrap();
    assert_eq!(w.lease().holder, None);
    w.owner(w.compact(&[], 3, 4)).unwrap();
    assert!(matches!(w.alice(w.compact(&[(0, 1)], 4, 5)), Err(OpRefusal::Fence { .. })));
}

#[test]
fn a_writer_that_is_removed_or_was_never_one_holds_nothing() {
    let mut w = World::new();
    let stranger = TestWriter::new(99);
    let op = stranger.sign(w.db.db, acquire(1, 60_000));
    assert_eq!(w.send(op), Err(OpRefusal::NotAllowed(stranger.key.address())));
    w.alice(acquire(1, LEASE_MS_MAX)).unwrap();
    w.writers(&[51]);
    assert_eq!((w.lease().holder, w.lease().fence), (None, Fence(1)), "who may not write holds nobody up");
    w.bob(w.append(&[], 1)).unwrap();
    w.writers(&[50, 51]);
    assert!(
        matches!(w.alice(w.append(&[(0, 1)], 2)), Err(OpRefusal::Fence { .. })),
        "coming back does not bring it back"
    );
    w.alice(acquire(2, 60_000)).unwrap();
}

#[test]
fn leases_are_under_the_root_in_snapshots_and_in_what_is_loaded_again() {
    let mut w = World::new();
    let before = w.engine.checkpoint(w.db.db).unwrap();
    w.alice(acquire(1, 60_000)).unwrap();
    let taken = w.engine.checkpoint(w.db.db).unwrap();
    assert_ne!(taken.root, before.root);
    // Earlier roots stay what they were: both can still be gone back to.
    assert_eq!(w.engine.height_of(w.db.db, before.root).unwrap(), Some(before.height));
    w.db.apply(&w.engine, vec![]).unwrap();
    assert_eq!(w.engine.checkpoint(w.db.db).unwrap().root, taken.root, "time alone changes no root");

    let Snapshot { bytes, block, .. } = w.engine.export(w.db.db).unwrap();
    let expected = w.engine.checkpoint(w.db.db).unwrap();
    let store = Arc::new(MemStore::new());
    let here = Engine::open(store.clone(), EngineConfig::default()).unwrap();
    here.import(w.db.db, &bytes, &expected, block, vec![]).unwrap();
    let here = Engine::open(store, EngineConfig::default()).unwrap();
    assert_eq!(here.view(w.db.db).unwrap().lease(TABLE).0, w.lease());
    // Another holder in it, and it does not make the root.
    let holder = w.alice.key.address();
    let at = bytes.windows(20).rposition(|b| b == holder.as_bytes()).unwrap();
    let mut forged = bytes;
    forged[at] ^= 1;
    let other = engine();
    let refused = other.import(w.db.db, &forged, &expected, block, vec![]).unwrap_err();
    assert!(refused.to_string().contains("root"), "{refused}");
    // The same log gives the same outcomes there.
    let ops = vec![w.bob.sign(w.db.db, w.append(&[], 1)), w.alice.sign(w.db.db, w.append(&[(0, 1)], 1))];
    let block = VerifiedBlock::verify(w.db.block(ops)).unwrap();
    let (a, b) = (w.engine.apply(&block).unwrap(), here.apply(&block).unwrap());
    assert_eq!((a.checkpoint, &a.outcomes), (b.checkpoint, &b.outcomes));
    assert!(a.outcomes[0].outcome.is_err() && a.outcomes[1].outcome.is_ok());
}

#[test]
fn a_commit_without_a_lease_reads_a_leased_table_and_writes_another() {
    let mut w = World::new();
    let other =
        Op::DefineProjection { projection: fluence_types::ProjectionId(1), table: TableId(1), schema: schema(1, 1) };
    w.owner(other).unwrap();
    w.alice(acquire(1, 60_000)).unwrap();
    let both = commit(&[(0, 0), (1, 0)], vec![change(1, vec![segment(1).inline()], vec![])]);
    w.bob(both).unwrap();
}
