//! What a log leaves behind stays bounded, and who was away for longer than it is kept goes on from a snapshot.

use crate::world::World;
use commonware_runtime::{Clock, Storage, Supervisor};
use fluence_consensus::{Event, History, StartError, Timing};
use fluence_engine::testkit::{TestSegment, define, schema};
use fluence_types::Height;
use fluence_types::limits::EPOCH_BLOCKS;
use std::num::NonZeroU64;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
const SECTION: u64 = 16;

/// Keeps as little as may be, in small files, and makes blocks fast.
fn short(world: &mut World) {
    world.history = History { blocks: History::BLOCKS_MIN, section: NonZeroU64::new(SECTION).unwrap() };
    let ms = Duration::from_millis;
    world.timing = Timing { idle: ms(20), leader: ms(1000), certification: ms(1500), ..Timing::default() };
}

impl World {
    /// Files of a node's partition.
    async fn files(&self, i: usize, what: &str) -> usize {
        self.context.scan(&format!("node-{i}-{what}")).await.map_or(0, |files| files.len())
    }

    /// Nothing of a node is more than it may be.
    async fn assert_bounded(&self, i: usize) {
        let epoch = self.replica(i).status().epoch;
        for over in 0..epoch.saturating_sub(1) {
            assert_eq!(self.files(i, &format!("votes-{over}")).await, 0, "votes of epoch {over} in {epoch}");
        }
        assert!(self.files(i, &format!("votes-{epoch}")).await > 0);
        // Pruned at the end of each epoch, by whole sections; one more is being written.
        let most = (History::BLOCKS_MIN + EPOCH_BLOCKS).div_ceil(SECTION) + 2;
        for what in ["blocks-keys", "blocks-values", "finalizations-keys", "finalizations-values"] {
            let files = self.files(i, what).await as u64;
            assert!((1..=most).contains(&files), "{files} of {what} in epoch {epoch}, at most {most}");
        }
    }
}

#[test]
fn what_past_epochs_left_is_pruned_wherever_the_node_is_killed() {
    World::run(41, 1, |mut world| async move {
        short(&mut world);
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        for epoch in 1..7u64 {
            let end = epoch * EPOCH_BLOCKS - 1;
            let passed = move |w: &World| w.nodes[0].engine.head(w.db.db).unwrap().height >= Height(end);
            world.until("the epoch ends", LIMIT, passed).await;
            // A little later each time, so among the steps of pruning and entering.
            world.context.sleep(Duration::from_millis(epoch - 1)).await;
            world.stop(0);
            world.nodes[0].reopen();
            // Removed and not noted is removed again.
            if epoch == 5 {
                world.nodes[0].engine.set_note(world.db.db, b"journals", 1u64.to_be_bytes().to_vec()).unwrap();
            }
            world.start(0).await;
            world.write(0).await;
        }
        world.until("the last epoch began", LIMIT, |w| w.replica(0).status().epoch >= 6).await;
        world.assert_bounded(0).await;
        assert!(world.replica(0).status().voting);
    });
}

#[test]
fn a_member_away_for_longer_than_blocks_are_kept_goes_on_from_a_snapshot() {
    World::run(42, 4, |mut world| async move {
        short(&mut world);
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        let segment = |seed| TestSegment::new(seed, &schema(1, 1), 300, 10);
        world.deliver(&segment(1), &[0, 1, 2]).await;
        world.until("it is filled", LIMIT, |w| w.replica(3).missing().is_empty()).await;
        world.stop(3);
        let head = world.nodes[3].engine.head(world.db.db).unwrap().height;
        world.deliver(&segment(2), &[0, 1, 2]).await;
        let far = Height(head.0 + History::BLOCKS_MIN + EPOCH_BLOCKS + SECTION);
        world.until("the others are far ahead", LIMIT, |w| w.replica(0).status().height > far).await;
        world.assert_bounded(0).await;
        world.nodes[3].reopen();
        world.start(3).await;
        let mut events = world.nodes[3].events.take().unwrap();
        let behind = async {
            while let Some(event) = events.recv().await {
                if matches!(event, Event::Behind(_)) {
                    return;
                }
                assert!(!matches!(event, Event::Executed(h) if h > head), "nobody gives it the next block");
            }
            panic!("it ended");
        };
        let timer = world.context.child("timer");
        let late = std::pin::pin!(timer.sleep(LIMIT));
        let behind = std::pin::pin!(behind);
        let first = futures::future::select(behind, late).await;
        assert!(matches!(first, futures::future::Either::Left(_)), "it does not see that it is behind");
        world.stop(3);
        // It knows the committee of its own time alone; cut off once, it begins again.
        let cut = world.fetch_at(3, Duration::ZERO, 0).await.map(|_| ());
        assert!(cut.is_err());
        assert_eq!(world.nodes[3].engine.head(world.db.db).unwrap().height, head);
        let certificate = world.join_at(3, 0).await;
        assert!(certificate.header.height > head);
        world.until("it has everything", LIMIT, |w| w.replica(3).missing().is_empty()).await;
        for i in 0..4 {
            world.write(i).await;
        }
        world.until("it votes", LIMIT, |w| w.signs(3, 0) && w.replica(3).status().voting).await;
        world.level(LIMIT).await;
        // And from there after a restart.
        world.stop(3);
        world.nodes[3].reopen();
        world.start(3).await;
        world.write(0).await;
        world.until("it votes again", LIMIT, |w| w.signs(3, 0)).await;
        world.assert_bounded(3).await;
    });
}

#[test]
fn times_by_which_no_cluster_runs_and_files_of_another_shape_are_refused() {
    World::run(43, 1, |mut world| async move {
        let good = Timing::default();
        let refused = |timing: Timing| timing.check().unwrap_err().to_string();
        good.check().unwrap();
        Timing { certification: good.leader, ..good }.check().unwrap();
        assert!(refused(Timing { idle: good.leader, ..good }).contains("idle (2s) must be below leader (2s)"));
        assert!(refused(Timing { certification: good.idle, ..good }).contains("leader (2s)"));
        assert!(refused(Timing { fetch: Duration::ZERO, ..good }).contains("fetch (0ns)"));
        let idle = Timing { idle: good.leader, ..good };
        world.timing = idle;
        assert!(matches!(world.try_start(0).await, Err(StartError::Timing { what: "idle", .. })));
        world.timing = good;
        world.history.blocks = History::BLOCKS_MIN - 1;
        assert!(matches!(world.try_start(0).await, Err(StartError::History { blocks: 127 })));
        world.history = History::default();
        world.start(0).await;
        world.act(0, define(0, schema(1, 1))).await;
        world.stop(0);
        world.history.section = NonZeroU64::new(16).unwrap();
        assert!(matches!(world.try_start(0).await, Err(StartError::Section { noted: 1024, asked: 16 })));
    });
}
