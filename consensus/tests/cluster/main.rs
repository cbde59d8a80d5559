//! Replicas of one cluster in the deterministic runtime, over the library's simulated network.

mod filling;
mod joining;
mod pruning;
mod tamper;
mod world;

use fluence_engine::testkit::{TestSegment, change, commit, define, schema};
use fluence_types::Height;
use std::time::Duration;
use world::World;

#[test]
fn four_members_order_execute_and_certify() {
    World::run(1, 4, |mut world| async move {
        world.start_all().await;
        let created = world.replica(0).certified(Height(0)).await.unwrap();
        world.check(&created);
        let receipt = world.act(0, define(0, schema(1, 1))).await;
        assert_eq!(receipt.outcome, Ok(()));
        for i in 0..5 {
            let segment = TestSegment::new(100 + i, &schema(1, 1), 9, 9);
            let op = commit(&[(0, i)], vec![change(0, vec![segment.inline()], vec![])]);
            let receipt = world.act(i as usize % 4, op).await;
            assert_eq!(receipt.outcome, Ok(()));
        }
        world.level(Duration::from_secs(30)).await;
    });
}

#[test]
fn one_member_is_a_cluster_too() {
    World::run(2, 1, |mut world| async move {
        world.start_all().await;
        let receipt = world.act(0, define(0, schema(1, 1))).await;
        assert_eq!(receipt.outcome, Ok(()));
    });
}

#[test]
fn a_member_that_was_away_comes_level_and_nothing_stops_meanwhile() {
    World::run(3, 4, |mut world| async move {
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        world.stop(3);
        for i in 0..20 {
            let segment = TestSegment::new(100 + i, &schema(1, 1), 9, 9);
            let retire = if i < 4 { vec![] } else { vec![TestSegment::new(100 + i - 4, &schema(1, 1), 9, 9).root()] };
            let op = commit(&[(0, i)], vec![change(0, vec![segment.inline()], retire)]);
            assert_eq!(world.act(i as usize % 3, op).await.outcome, Ok(()));
        }
        world.start(3).await;
        world.level(Duration::from_secs(60)).await;
    });
}

#[test]
fn epochs_follow_each_other() {
    World::run(4, 4, |mut world| async move {
        world.start_all().await;
        let until = Height(150);
        let certificate = world.replica(1).certified(until).await.unwrap();
        assert!(certificate.header.consensus_epoch >= 2);
        world.check(&certificate);
        world.level(Duration::from_secs(60)).await;
    });
}

/// On the virtual clock.
#[test]
fn a_cluster_without_work_slows_down_and_an_operation_wakes_it_at_once() {
    World::run(6, 4, |mut world| async move {
        world.start_all().await;
        let blocks = async |world: &World, from: u64, to: u64| {
            world.replica(1).certified(Height(from)).await.unwrap();
            let begun = world.now();
            world.replica(1).certified(Height(to)).await.unwrap();
            world.now().duration_since(begun).unwrap()
        };
        let at_first = blocks(&world, 70, 80).await;
        let when_quiet = blocks(&world, 130, 140).await;
        assert!(
            at_first < Duration::from_secs(15) && when_quiet > Duration::from_secs(35),
            "{at_first:?} {when_quiet:?}"
        );
        // Whoever leads and whoever is asked: nobody waits for the leader's time to be over.
        for i in 0..8 {
            let begun = world.now();
            assert_eq!(world.act(i as usize % 4, define(i, schema(1, 1))).await.outcome, Ok(()));
            let took = world.now().duration_since(begun).unwrap();
            assert!(took < Duration::from_secs(2), "operation {i} took {took:?}");
        }
        // A member that is gone holds a quiet cluster up, and stops it no more than another.
        world.stop(3);
        assert_eq!(world.act(0, define(8, schema(1, 1))).await.outcome, Ok(()));
        // The epoch after one with work is as fast as the first.
        let after_work = blocks(&world, 200, 210).await;
        assert!(after_work < when_quiet, "{after_work:?} {when_quiet:?}");
        world.start(3).await;
        world.level(Duration::from_secs(120)).await;
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |seed| {
        World::run(seed, 4, |mut world| async move {
            world.start_all().await;
            world.act(0, define(0, schema(1, 1))).await;
            world.level(Duration::from_secs(30)).await;
        })
    };
    assert_eq!(run(5), run(5));
}
