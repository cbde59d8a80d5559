//! New nodes: from a snapshot into the log, into a seat; and seats that change hands.

use crate::world::{Context, World};
use borsh::BorshSerialize;
use commonware_p2p::{Receiver as _, Recipients, Sender as _};
use commonware_runtime::{Clock, Spawner, Supervisor};
use fluence_consensus::{JoinError, identity};
use fluence_crypto::sign::{sign_seat, verify_seat_vote};
use fluence_engine::testkit::{TestSegment, define, schema};
use fluence_types::block::{Member, position};
use fluence_types::codec;
use fluence_types::op::{ClusterChange, NodeSignature, Op, Seat};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);

fn segment(seed: u64, rows: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), rows, 10)
}

impl World {
    fn member(&self, i: usize) -> Member {
        self.nodes[i].key.member()
    }

    /// A running cluster with some data.
    async fn begin(&mut self) {
        self.start_all().await;
        self.act(0, define(0, schema(1, 1))).await;
        let holders: Vec<usize> = (0..fluence_types::block::quorum(self.db.members.len())).collect();
        self.deliver(&segment(1, 3000), &holders).await;
        for i in 0..3 {
            self.write(i).await;
        }
    }

    async fn wish(&mut self, change: ClusterChange) {
        assert_eq!(self.act(0, Op::Cluster(change)).await.outcome, Ok(()));
    }

    async fn standby(&mut self, nodes: &[usize]) {
        let members: Vec<Member> = nodes.iter().map(|i| self.member(*i)).collect();
        self.wish(ClusterChange::Standby(members.try_into().unwrap())).await;
    }
}

#[test]
fn a_new_node_joins_while_writes_go_on_and_then_votes() {
    World::run_with(21, 4, 1, |mut world| async move {
        world.begin().await;
        let member = world.member(4);
        world.wish(ClusterChange::Join(member)).await;
        let certificate = world.join(4).await;
        assert!(certificate.header.height.0 > 0);
        for i in 0..8 {
            world.write(i % 4).await;
        }
        world.until("it has everything", LIMIT, |w| w.replica(4).missing().is_empty()).await;
        world.until("it is a member", LIMIT, |w| w.is_member(4, 0) && w.is_member(4, 4)).await;
        for i in 0..4 {
            world.write(i).await;
        }
        world.until("it votes", LIMIT, |w| w.signs(4, 0)).await;
        assert!(world.replica(4).status().voting);
        let view = world.nodes[0].engine.view(world.db.db).unwrap();
        assert_eq!((view.members().len(), view.wish()), (5, None));
        drop(view);
        world.level(LIMIT).await;
        // A restart goes on from the same place.
        world.stop(4);
        world.nodes[4].reopen();
        world.start(4).await;
        world.write(0).await;
        world.until("it votes again", LIMIT, |w| w.signs(4, 0)).await;
    });
}

#[test]
fn a_node_takes_the_place_of_another_which_stops_voting() {
    World::run_with(22, 4, 1, |mut world| async move {
        world.begin().await;
        let (out, with) = (world.nodes[1].id(), world.member(4));
        world.wish(ClusterChange::Replace { out, with }).await;
        world.join(4).await;
        world.until("it is a member", LIMIT, |w| w.is_member(4, 0) && w.is_member(4, 1)).await;
        for i in [0, 2, 3, 4] {
            world.write(i).await;
        }
        assert!(!world.is_member(1, 0) && !world.is_member(1, 1), "the other is none, and knows it");
        world.until("the newcomer votes", LIMIT, |w| w.signs(4, 0)).await;
        assert!(!world.replica(1).status().voting);
        world.stop(1);
        world.level(LIMIT).await;
    });
}

#[test]
fn a_member_leaves_when_the_owner_asks() {
    World::run(23, 5, |mut world| async move {
        world.begin().await;
        let out = world.nodes[2].id();
        world.wish(ClusterChange::Leave(out)).await;
        world.until("it left", LIMIT, |w| !w.is_member(2, 0)).await;
        world.until("it knows", LIMIT, |w| !w.is_member(2, 2) && !w.replica(2).status().voting).await;
        world.stop(2);
        for i in [0, 1, 3, 4] {
            world.write(i).await;
        }
        assert_eq!(world.nodes[0].engine.view(world.db.db).unwrap().members().len(), 4);
        world.level(LIMIT).await;
    });
}

#[test]
fn a_standby_takes_the_seat_of_a_member_that_is_gone() {
    World::run_with(24, 4, 2, |mut world| async move {
        world.timing.missing = Duration::from_secs(15);
        world.begin().await;
        world.standby(&[4, 5]).await;
        world.join(4).await;
        world.join(5).await;
        world.until("both have everything", LIMIT, |w| [4, 5].iter().all(|i| w.replica(*i).missing().is_empty())).await;
        world.context.sleep(Duration::from_secs(20)).await;
        assert!((0..4).all(|i| world.is_member(i, 0)), "nobody is replaced while all are here");
        world.stop(3);
        world.until("one of them is a member", LIMIT, |w| !w.is_member(3, 0)).await;
        let came: Vec<bool> = [4, 5].iter().map(|i| world.is_member(*i, 0)).collect();
        assert_eq!(came.iter().filter(|c| **c).count(), 1);
        let new = if came[0] { 4 } else { 5 };
        world.write(0).await;
        world.until("it votes", LIMIT, |w| w.signs(new, 0)).await;
        assert_eq!(world.nodes[0].engine.view(world.db.db).unwrap().standby().len(), 1);
        world.level(LIMIT).await;
    });
}

#[test]
fn a_cluster_of_one_grows() {
    World::run_with(25, 1, 1, |mut world| async move {
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        world.write(0).await;
        let member = world.member(1);
        world.wish(ClusterChange::Join(member)).await;
        world.join(1).await;
        world.until("it is a member", LIMIT, |w| w.is_member(1, 0)).await;
        world.write(0).await;
        world.until("it votes", LIMIT, |w| w.signs(1, 0)).await;
    });
}

/// Where the parts of an answer with a snapshot's head lie: tag, number, tag, height, root, block, length, count, first piece.
const FIRST_PIECE: usize = 1 + 8 + 1 + 8 + 32 + 32 + 8 + 4;

#[test]
fn a_newcomer_gets_its_snapshot_past_liars() {
    // One of four names other pieces; or two name the right ones and send others.
    let heads = |bytes: &mut Vec<u8>| {
        if bytes[0] == 1 && bytes[9] == 1 {
            bytes[FIRST_PIECE] ^= 1;
        }
    };
    let pieces = |bytes: &mut Vec<u8>| {
        if bytes[0] == 1 && bytes[9] == 2 {
            *bytes.last_mut().unwrap() ^= 1;
        }
    };
    for (seed, lie, liars) in [(26, heads as fn(&mut Vec<u8>), 1), (27, pieces, 2)] {
        World::run_with(seed, 4, 1, move |mut world| async move {
            for node in &mut world.nodes[..liars] {
                node.lie = Some(Arc::new(lie));
            }
            world.begin().await;
            world.standby(&[4]).await;
            world.join(4).await;
            let id = |i: usize| identity(&world.nodes[i].id()).unwrap();
            let blocked = world.oracle.blocked().await.unwrap();
            // Who sends wrong pieces is found out; who names others only stands alone.
            assert_eq!((0..liars).any(|i| blocked.contains(&(id(4), id(i)))), liars == 2, "{blocked:?}");
            assert!(!(liars..4).any(|i| blocked.contains(&(id(4), id(i)))));
            world.stop(0);
            world.until("it is filled by the others", LIMIT, |w| w.replica(4).missing().is_empty()).await;
        });
    }
}

#[test]
fn two_liars_of_four_leave_a_newcomer_without_a_snapshot_but_never_with_a_wrong_one() {
    World::run_with(28, 4, 1, |mut world| async move {
        for i in [0, 1] {
            world.nodes[i].lie = Some(Arc::new(move |bytes: &mut Vec<u8>| {
                if bytes[0] == 1 && bytes[9] == 1 {
                    bytes[FIRST_PIECE] ^= 1 + i as u8;
                }
            }));
        }
        world.begin().await;
        world.standby(&[4]).await;
        // The honest ones are two, and enough; with one of them away, nobody agrees.
        world.stop(3);
        let refused = world.fetch(4, Duration::from_secs(25)).await.map(|_| ());
        assert!(matches!(refused, Err(JoinError::Agreement { needed: 2, .. })), "{refused:?}");
        assert!(world.nodes[4].engine.databases().is_empty());
        world.start(3).await;
        world.join(4).await;
    });
}

#[test]
fn a_root_that_is_not_certified_is_refused() {
    World::run_with(29, 4, 1, |mut world| async move {
        for i in 0..4 {
            world.nodes[i].lie = Some(Arc::new(|bytes: &mut Vec<u8>| {
                if bytes[0] == 1 && bytes[9] == 1 {
                    bytes[1 + 8 + 1 + 8] ^= 1;
                }
            }));
        }
        world.begin().await;
        world.standby(&[4]).await;
        let refused = world.fetch(4, Duration::from_secs(30)).await.map(|_| ());
        assert!(matches!(refused, Err(JoinError::Agreement { .. })), "{refused:?}");
        let id = |i: usize| identity(&world.nodes[i].id()).unwrap();
        let blocked = world.oracle.blocked().await.unwrap();
        assert!((0..4).filter(|i| blocked.contains(&(id(4), id(*i)))).count() >= 2, "{blocked:?}");
        assert!(world.nodes[4].engine.databases().is_empty());
    });
}

#[test]
fn committees_are_followed_by_their_handovers_and_by_nothing_else() {
    World::run_with(30, 4, 2, |mut world| async move {
        // One of the old members forges how it handed over.
        world.nodes[0].lie = Some(Arc::new(|bytes: &mut Vec<u8>| {
            if bytes[0] == 1 && bytes[9] == 4 && bytes.len() > 200 {
                *bytes.last_mut().unwrap() ^= 1;
            }
        }));
        world.begin().await;
        let (out, with) = (world.nodes[1].id(), world.member(4));
        world.wish(ClusterChange::Replace { out, with }).await;
        world.join(4).await;
        world.until("the committee is another", LIMIT, |w| w.is_member(4, 0) && w.signs(4, 0)).await;
        world.standby(&[5]).await;
        // Snapshots of the old committee's time are gone.
        for i in [0, 2, 3, 4] {
            world.stop(i);
            world.nodes[i].reopen();
            world.start(i).await;
        }
        // A newcomer that knows the first committee alone, and hears only one of it that knows better.
        let honest = world.fetch_at(5, Duration::from_secs(120), 0).await.map(|_| ());
        assert!(honest.is_ok(), "{honest:?}");
        let id = |i: usize| identity(&world.nodes[i].id()).unwrap();
        let blocked = world.oracle.blocked().await.unwrap();
        assert!(!(2..5).any(|i| blocked.contains(&(id(5), id(i)))), "{blocked:?}");
        // What it followed it can give to others.
        assert_eq!(fluence_consensus::handovers(&world.nodes[5].engine, world.db.db, 0, 9).len(), 1);
    });
    World::run_with(33, 4, 2, |mut world| async move {
        for i in 0..4 {
            world.nodes[i].lie = Some(Arc::new(|bytes: &mut Vec<u8>| {
                if bytes[0] == 1 && bytes[9] == 4 && bytes.len() > 200 {
                    *bytes.last_mut().unwrap() ^= 1;
                }
            }));
        }
        world.begin().await;
        let (out, with) = (world.nodes[1].id(), world.member(4));
        world.wish(ClusterChange::Replace { out, with }).await;
        world.join(4).await;
        world.until("the committee is another", LIMIT, |w| w.is_member(4, 0) && w.signs(4, 0)).await;
        world.standby(&[5]).await;
        // Snapshots of the old committee's time are gone.
        for i in [0, 2, 3, 4] {
            world.stop(i);
            world.nodes[i].reopen();
            world.start(i).await;
        }
        let refused = world.fetch_at(5, Duration::from_secs(60), 0).await.map(|_| ());
        assert!(matches!(refused, Err(JoinError::Epoch { .. } | JoinError::Agreement { .. })), "{refused:?}");
        assert!(world.nodes[5].engine.databases().is_empty());
    });
}

/// A notice as it travels.
fn notice(tag: u8, parts: impl BorshSerialize) -> Vec<u8> {
    codec::encode(&(2u8, tag, parts))
}

/// Sends as node `i`, and collects the votes that come back.
async fn speak(world: &mut World, i: usize, messages: Vec<Vec<u8>>) -> Arc<Mutex<Vec<Seat>>> {
    let (mut sender, mut receiver) = world.link(i, 6).await;
    let votes: Arc<Mutex<Vec<Seat>>> = Arc::default();
    let (kept, members) = (Arc::clone(&votes), world.db.member_list());
    let context: Context = world.context.child("stranger").with_attribute("index", i);
    context.spawn(move |_| async move {
        while let Ok((peer, bytes)) = receiver.recv().await {
            let node = fluence_consensus::node_id(&peer);
            let bytes: &[u8] = bytes.as_ref();
            let vote = codec::decode::<(u8, u8, Seat, NodeSignature)>("vote", bytes, 1 << 20);
            if let Ok((2, 2, seat, by)) = vote
                && position(&members, &node).is_some()
            {
                verify_seat_vote(&seat, &node, &by).unwrap();
                kept.lock().unwrap().push(seat);
            }
        }
    });
    for _ in 0..8 {
        for message in &messages {
            let _ = sender.send(Recipients::All, message.clone(), false);
        }
        world.context.sleep(Duration::from_secs(1)).await;
    }
    votes
}

#[test]
fn who_claims_to_be_ready_without_the_bytes_gets_no_votes() {
    World::run_with(31, 4, 1, |mut world| async move {
        world.begin().await;
        let member = world.member(4);
        world.wish(ClusterChange::Join(member)).await;
        let view = world.nodes[0].engine.view(world.db.db).unwrap();
        let (height, preimage) = (view.checkpoint().height, view.preimage());
        drop(view);
        // No proof; and a database that is empty, and so would need none.
        let mut empty = preimage;
        empty.stored_cells = 0;
        for claim in [(height, preimage, vec![0u8; 100]), (height, empty, vec![])] {
            let votes = speak(&mut world, 4, vec![notice(1, claim)]).await;
            assert!(votes.lock().unwrap().is_empty());
        }
        let id = |i: usize| identity(&world.nodes[i].id()).unwrap();
        let blocked = world.oracle.blocked().await.unwrap();
        assert!((0..4).all(|i| blocked.contains(&(id(i), id(4)))), "{blocked:?}");
        assert!(!world.is_member(4, 0));
    });
}

#[test]
fn votes_of_strangers_and_of_other_epochs_count_for_nothing() {
    World::run_with(32, 4, 2, |mut world| async move {
        world.begin().await;
        let (stranger, newcomer) = (Arc::clone(&world.nodes[4].key), world.member(5));
        world.standby(&[4]).await;
        // A stranger votes for its friend, and a member for another epoch, and the only vote that would do.
        let epoch = world.replica(0).status().epoch;
        let seat = |epoch| Seat { db: world.db.db, epoch, out: None, join: Some(newcomer.clone()) };
        let message = |seat: Seat, key: &fluence_crypto::sign::NodeKey| {
            let by = sign_seat(&seat, key);
            notice(2, (seat, by))
        };
        let messages = vec![message(seat(epoch), &stranger), message(seat(epoch + 1), &stranger)];
        speak(&mut world, 4, messages).await;
        // Members that really lie are one of four: its single vote is no quorum.
        world.stop(3);
        let liar = Arc::clone(&world.nodes[3].key);
        let epoch = world.replica(0).status().epoch;
        let seat = |epoch| Seat { db: world.db.db, epoch, out: None, join: Some(newcomer.clone()) };
        let messages: Vec<_> = (epoch..epoch + 3).map(|epoch| message(seat(epoch), &liar)).collect();
        speak(&mut world, 3, messages).await;
        world.until("an epoch passed", LIMIT, |w| w.replica(0).status().epoch > epoch).await;
        let view = world.nodes[0].engine.view(world.db.db).unwrap();
        assert_eq!(view.next_members(), &world.db.member_list());
    });
}
