//! Members that miss what others hold fetch it, whoever lies.

use crate::world::World;
use commonware_runtime::Clock;
use fluence_consensus::Event;
use fluence_engine::damage::forge_page;
use fluence_engine::testkit::{TestSegment, define, schema};
use fluence_types::answer::{CellRange, OpenRefusal};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn segment(seed: u64, rows: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), rows, 10)
}

fn holds(world: &World, i: usize, s: &TestSegment) -> bool {
    let range = CellRange { first: 0, count: s.preimage.cells };
    let opened = world.nodes[i].engine.view(world.db.db).unwrap().cells(s.root(), range);
    opened.is_ok_and(|opened| opened.cells == s.cells)
}

#[test]
fn a_member_that_missed_segments_fetches_them_from_the_others() {
    World::run(11, 4, |mut world| async move {
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        // Some of one page, some of many pieces.
        let segments: Vec<_> = [9, 300, 3000, 40_000].iter().map(|rows| segment(*rows, *rows)).collect();
        for s in &segments {
            world.deliver(s, &[0, 1, 2]).await;
        }
        world.until("everything is filled", LIMIT, |w| segments.iter().all(|s| holds(w, 3, s))).await;
        assert!(world.replica(3).missing().is_empty());
        let mut filled = 0;
        while let Ok(event) = world.nodes[3].events.as_mut().unwrap().try_recv() {
            filled += usize::from(matches!(event, Event::Filled(_)));
        }
        assert_eq!(filled, segments.len());
        assert!(world.nodes[3].engine.scrub(&mut |_| true).is_empty());
        world.level(LIMIT).await;
    });
}

#[test]
fn a_restart_goes_on_where_a_fill_was() {
    World::run(12, 4, |mut world| async move {
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        let s = segment(1, 3000);
        // Nobody answers node 3, so the fill stays.
        for i in 0..3 {
            world.nodes[i].lie = Some(std::sync::Arc::new(|bytes: &mut Vec<u8>| {
                // An answer becomes one that nobody asked for.
                if bytes[0] == 1 {
                    bytes[1..9].fill(0);
                }
            }));
        }
        for i in 0..4 {
            world.stop(i);
            world.start(i).await;
        }
        world.deliver(&s, &[0, 1, 2]).await;
        world.until("the block is there", LIMIT, |w| !w.replica(3).missing().is_empty()).await;
        world.context.sleep(Duration::from_secs(10)).await;
        assert_eq!(
            world.nodes[3].engine.view(world.db.db).unwrap().page(s.root(), 0),
            Err(OpenRefusal::NotHere(s.root()))
        );
        for i in 0..4 {
            world.stop(i);
            world.nodes[i].lie = None;
        }
        world.nodes[3].reopen();
        assert_eq!(world.nodes[3].engine.missing(world.db.db).len(), 1);
        for i in 0..4 {
            world.start(i).await;
        }
        world.until("it is filled", LIMIT, |w| holds(w, 3, &s)).await;
    });
}

#[test]
fn a_peer_that_serves_wrong_cells_is_blocked_and_others_serve() {
    World::run(13, 4, |mut world| async move {
        world.start_all().await;
        world.act(0, define(0, schema(1, 1))).await;
        let s = segment(1, 40_000);
        // Two of three lie: their pages have good checksums over wrong cells.
        world.stop(3);
        world.deliver(&s, &[0, 1, 2]).await;
        for i in [0, 1] {
            let store = world.nodes[i].store.as_ref();
            for page in 0..s.preimage.cells.div_ceil(64) {
                forge_page(store, world.db.db, s.root(), s.preimage.cells, page, &mut |bytes| bytes[40] ^= 1).unwrap();
            }
        }
        world.start(3).await;
        world.until("it is filled", LIMIT, |w| holds(w, 3, &s)).await;
        let id = |i: usize| fluence_consensus::identity(&world.nodes[i].id()).unwrap();
        let blocked = world.oracle.blocked().await.unwrap();
        assert!(blocked.contains(&(id(3), id(0))) || blocked.contains(&(id(3), id(1))), "{blocked:?}");
        assert!(!blocked.contains(&(id(3), id(2))));
    });
}
