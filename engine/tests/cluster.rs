//! Who keeps a database: the owner's wishes and the members' votes, refused and done.

use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{NodeKey, seat_op, sign_seat};
use fluence_crypto::vote::members_hash;
use fluence_engine::testkit::{TestDb, TestWriter};
use fluence_engine::{Engine, EngineConfig, MemStore};
use fluence_types::block::{Member, Members, ends_epoch};
use fluence_types::limits::{EPOCH_BLOCKS, EXECUTION_LAG_MAX};
use fluence_types::op::{ClusterChange, Op, OpOutcome, OpRefusal, Seat, SeatChange, SignedOp};
use fluence_types::{Height, NodeId};
use std::sync::Arc;

fn key(i: u8) -> NodeKey {
    NodeKey::new(Secret::new([i + 50; 32]))
}

fn member(i: u8) -> Member {
    key(i).member()
}

struct World {
    engine: Engine,
    db: TestDb,
}

impl World {
    fn new(members: usize) -> Self {
        let engine = Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).unwrap();
        let mut db = TestDb::new(3, members);
        db.create(&engine).unwrap();
        Self { engine, db }
    }

    fn wish(&mut self, change: ClusterChange) -> OpOutcome {
        self.db.act(&self.engine, Op::Cluster(change)).unwrap()
    }

    fn order(&mut self, op: SignedOp) -> OpOutcome {
        self.db.apply(&self.engine, vec![op]).unwrap().outcomes[0].outcome.clone()
    }

    fn seat(&mut self, epoch: u64, out: Option<NodeId>, join: Option<Member>, votes: usize) -> OpOutcome {
        let op = self.db.seat(epoch, out, join, votes);
        self.order(op)
    }

    fn to(&mut self, height: u64) {
        while self.db.last.unwrap().height.0 < height {
            self.db.apply(&self.engine, vec![]).unwrap();
        }
    }

    fn members(&self) -> Members {
        self.engine.view(self.db.db).unwrap().members().clone()
    }

    fn next(&self) -> Members {
        self.engine.view(self.db.db).unwrap().next_members().clone()
    }

    fn wished(&self) -> Option<ClusterChange> {
        self.engine.view(self.db.db).unwrap().wish().cloned()
    }
}

fn refused(outcome: OpOutcome, why: &str) {
    match outcome {
        Err(OpRefusal::Cluster(said)) if said.contains(why) => {}
        other => panic!("{other:?}, expected a refusal with {why:?}"),
    }
}

#[test]
fn a_seat_changes_by_a_quorum_of_votes_from_the_next_epoch_on() {
    let mut world = World::new(4);
    let before = world.members();
    assert_eq!(world.seat(0, None, Some(member(1)), 3), Ok(()));
    assert_eq!(world.members(), before, "not before the epoch ends");
    assert_eq!(world.next().len(), 5);
    assert!(world.next().is_sorted_by(|a, b| a.node < b.node));
    let hash = members_hash(&world.next()).unwrap();
    assert_eq!(world.engine.head(world.db.db).unwrap().next_members_hash, hash);
    world.to(EPOCH_BLOCKS - 2);
    assert_eq!(world.members(), before);
    world.to(EPOCH_BLOCKS - 1);
    assert!(ends_epoch(world.db.last.unwrap().height));
    assert_eq!(world.members().len(), 5);
    assert_eq!(world.engine.committee(world.db.db, 0).unwrap(), Some(before));
    assert_eq!(world.engine.committee(world.db.db, 1).unwrap(), Some(world.members()));
    // A quorum of five is four, and the new member's vote counts.
    let out = world.db.members[0].id();
    refused(world.seat(1, Some(out), None, 3), "3 of 5 members signed, 4 needed");
    world.db.members.push(key(1));
    world.db.members.sort_by_key(NodeKey::id);
    assert_eq!(world.seat(1, Some(out), None, 4), Ok(()));
    world.to(2 * EPOCH_BLOCKS - 1);
    assert_eq!(world.members().len(), 4);
}

#[test]
fn votes_that_are_too_few_of_strangers_repeated_or_of_another_seat_are_refused() {
    let mut world = World::new(4);
    let root = world.db.last.unwrap().root;
    refused(world.seat(0, None, Some(member(1)), 2), "2 of 4 members signed, 3 needed");
    refused(world.seat(1, None, Some(member(1)), 4), "voted in epoch 1, this is 0");
    let seat = Seat { db: world.db.db, epoch: 0, out: None, join: Some(member(1)) };
    let change =
        |votes: Vec<(u16, [u8; 64])>| seat_op(SeatChange { seat: seat.clone(), votes: votes.try_into().unwrap() });
    let by = |world: &World, i: usize| sign_seat(&seat, &world.db.members[i]);
    let votes = vec![(0, by(&world, 0)), (1, by(&world, 1)), (1, by(&world, 1))];
    refused(world.order(change(votes)), "member 1 is out of order or repeated");
    let votes = vec![(0, by(&world, 0)), (2, by(&world, 2)), (1, by(&world, 1))];
    refused(world.order(change(votes)), "out of order");
    let votes = vec![(0, by(&world, 0)), (1, by(&world, 1)), (2, sign_seat(&seat, &key(9)))];
    refused(world.order(change(votes)), "not a signature by node");
    let votes = vec![(0, by(&world, 0)), (1, by(&world, 1)), (4, sign_seat(&seat, &key(9)))];
    refused(world.order(change(votes)), "member 4 of 4");
    let other = Seat { join: Some(member(2)), ..seat.clone() };
    let votes = vec![(0, by(&world, 0)), (1, by(&world, 1)), (2, sign_seat(&other, &world.db.members[2]))];
    refused(world.order(change(votes)), "not a signature by node");
    assert_eq!(world.next(), world.members());
    assert_ne!(world.db.last.unwrap().root, root, "refusals are in the chain of receipts");
}

#[test]
fn no_seat_changes_in_the_last_blocks_of_an_epoch_nor_more_than_f() {
    let mut world = World::new(7);
    // f of seven is two.
    assert_eq!(world.seat(0, None, Some(member(1)), 5), Ok(()));
    assert!(world.engine.view(world.db.db).unwrap().seats_open());
    assert_eq!(world.seat(0, None, Some(member(2)), 5), Ok(()));
    assert!(!world.engine.view(world.db.db).unwrap().seats_open());
    refused(world.seat(0, None, Some(member(3)), 5), "2 seats changed in epoch 0 already");
    world.to(EPOCH_BLOCKS - 1);
    assert_eq!(world.members().len(), 9);
    world.db.members.extend([key(1), key(2)]);
    world.db.members.sort_by_key(NodeKey::id);
    // The last block in which a seat may change, and the first in which none may.
    let last = 2 * EPOCH_BLOCKS - 1 - EXECUTION_LAG_MAX;
    world.to(last - 1);
    assert!(world.engine.view(world.db.db).unwrap().seats_open());
    assert_eq!(world.seat(1, None, Some(member(3)), 9), Ok(()));
    assert_eq!(world.db.last.unwrap().height, Height(last));
    assert!(!world.engine.view(world.db.db).unwrap().seats_open());
    refused(world.seat(1, None, Some(member(4)), 9), "epoch 1 ends; vote again in the next");
    world.to(2 * EPOCH_BLOCKS - 1);
    assert!(world.engine.view(world.db.db).unwrap().seats_open(), "a new epoch, new changes");
}

#[test]
fn seats_that_change_nothing_or_make_no_sense_are_refused() {
    let mut world = World::new(4);
    let here = world.members()[0].clone();
    refused(world.seat(0, None, None, 3), "changes nothing");
    refused(world.seat(0, None, Some(here.clone()), 3), "is a member already");
    refused(world.seat(0, Some(member(1).node), None, 3), "is no member");
    refused(world.seat(0, Some(member(1).node), Some(member(2)), 3), "is no member");
    let mut stolen = member(1);
    stolen.vote_key = here.vote_key;
    refused(world.seat(0, None, Some(stolen), 3), "does not prove that it has the vote key");
    let mut borrowed = member(1);
    borrowed.possession = member(2).possession;
    refused(world.seat(0, None, Some(borrowed), 3), "does not prove that it has the vote key");
    let mut alone = World::new(1);
    let only = alone.members()[0].node;
    refused(alone.seat(0, Some(only), None, 1), "leaves nobody");
    assert_eq!(alone.seat(0, Some(only), Some(member(1)), 1), Ok(()), "one may take its place");
    assert_eq!(alone.next()[..], [member(1)]);
}

#[test]
fn only_the_owner_wishes_and_wishes_make_sense() {
    let mut world = World::new(4);
    let stranger = TestWriter::new(99);
    let op = stranger.sign(world.db.db, Op::Cluster(ClusterChange::Join(member(1))));
    assert_eq!(world.order(op), Err(OpRefusal::NotAllowed(stranger.key.address())));
    // A writer is no owner either.
    let writer = TestWriter::new(98);
    let writers = vec![writer.key.address()].try_into().unwrap();
    world.db.act(&world.engine, Op::SetWriters { writers }).unwrap().unwrap();
    for change in [
        ClusterChange::Join(member(1)),
        ClusterChange::Leave(world.members()[0].node),
        ClusterChange::Standby(vec![member(1)].try_into().unwrap()),
        ClusterChange::Cancel,
    ] {
        let op = writer.sign(world.db.db, Op::Cluster(change));
        assert_eq!(world.order(op), Err(OpRefusal::NotAllowed(writer.key.address())));
    }
    let here = world.members()[0].clone();
    refused(world.wish(ClusterChange::Join(here.clone())), "is a member already");
    refused(world.wish(ClusterChange::Leave(member(1).node)), "is no member");
    refused(world.wish(ClusterChange::Replace { out: member(1).node, with: member(2) }), "is no member");
    refused(world.wish(ClusterChange::Replace { out: here.node, with: world.members()[1].clone() }), "already");
    let mut forged = member(1);
    forged.possession[5] ^= 1;
    refused(world.wish(ClusterChange::Join(forged.clone())), "does not prove");
    refused(world.wish(ClusterChange::Standby(vec![forged].try_into().unwrap())), "does not prove");
    let twice = vec![member(1), member(2), member(1)].try_into().unwrap();
    refused(world.wish(ClusterChange::Standby(twice)), "waits twice");
    refused(world.wish(ClusterChange::Standby(vec![here].try_into().unwrap())), "is a member already");
    let mut alone = World::new(1);
    let only = alone.members()[0].node;
    refused(alone.wish(ClusterChange::Leave(only)), "the last member cannot leave");
    assert_eq!(world.wished(), None);
}

#[test]
fn a_wish_stands_until_it_comes_true_is_replaced_or_dropped() {
    let mut world = World::new(4);
    let out = world.members()[0].node;
    let join = ClusterChange::Join(member(1));
    assert_eq!(world.wish(join.clone()), Ok(()));
    assert_eq!(world.wished(), Some(join));
    let replace = ClusterChange::Replace { out, with: member(2) };
    assert_eq!(world.wish(replace.clone()), Ok(()));
    assert_eq!(world.wished(), Some(replace.clone()), "a later wish replaces an earlier one");
    assert_eq!(world.wish(ClusterChange::Standby(vec![member(2), member(3)].try_into().unwrap())), Ok(()));
    assert_eq!(world.wished(), Some(replace), "who waits is another matter");
    let before = world.db.last.unwrap().root;
    assert_eq!(world.seat(0, Some(out), Some(member(2)), 3), Ok(()));
    assert_ne!(world.db.last.unwrap().root, before, "the next committee is under the root");
    assert_eq!(world.wished(), None);
    let view = world.engine.view(world.db.db).unwrap();
    assert_eq!(view.standby(), [member(3)], "who has a seat waits no more");
    drop(view);
    world.to(EPOCH_BLOCKS - 1);
    let leave = ClusterChange::Leave(world.members()[1].node);
    assert_eq!(world.wish(leave), Ok(()));
    assert_eq!(world.wish(ClusterChange::Cancel), Ok(()));
    assert_eq!(world.wished(), None);
}

#[test]
fn a_seat_changes_once_however_often_its_votes_are_ordered() {
    let mut world = World::new(4);
    let op = world.db.seat(0, None, Some(member(1)), 3);
    assert_eq!(world.order(op.clone()), Ok(()));
    refused(world.order(op.clone()), "1 seats changed in epoch 0 already");
    world.to(EPOCH_BLOCKS - 1);
    refused(world.order(op), "voted in epoch 0, this is 1");
    assert_eq!(world.members().len(), 5);
}
