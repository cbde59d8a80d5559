//! Replicas of one cluster in the deterministic runtime, over the library's simulated network.

mod filling;
mod joining;
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
