//! Leases over the network: one writer of a table, what others are told, and what a writer is told that has lost it.

use crate::flows::database;
use crate::local::Net;
use crate::small::{all, ask_first, batch, schema, twin};
use fluence_client::{ClientError, KeyRange, LeaseOptions, Value};
use fluence_types::Fence;
use fluence_wire::{Request, Response};
use futures::executor::block_on;
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

fn seconds(duration: u64) -> LeaseOptions {
    LeaseOptions { duration: Duration::from_secs(duration), renew: Duration::from_secs(duration) / 3 }
}

#[test]
fn while_a_session_holds_a_table_another_with_the_same_keys_is_told_who_and_until_when() {
    block_on(async {
        let (net, nodes) = Net::of(&[1, 2, 3, 4]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema("t")).await.unwrap();
        let other = twin(&net, &db, 77).table("t").await.unwrap();
        let (lease, _keeper) = table.lease(seconds(60)).await.unwrap();
        assert_eq!(lease.fence(), Fence(1));
        table.append(&batch(&[(1, 10), (2, 20)])).await.unwrap();
        for refused in [
            other.append(&batch(&[(3, 30)])).await.unwrap_err(),
            other.delete(&KeyRange::ALL, |_| true).await.unwrap_err(),
            other.lease(seconds(60)).await.unwrap_err(),
        ] {
            let ClientError::Leased { holder, until_ms, now_ms, .. } = &refused else { panic!("{refused}") };
            assert!(*holder == table.session().address() && until_ms > now_ms && refused.is_retryable());
        }
        assert_eq!(all(&other).await, [(1, 10), (2, 20)], "anybody reads");
        // Its holder retracts and compacts.
        table.delete_keys(&[vec![Value::Int64(1)]]).await.unwrap().unwrap();
        table.compact().await.unwrap().unwrap();
        lease.release().await.unwrap();
        assert_eq!(other.lease_status().await.unwrap().holder, None);
        other.append(&batch(&[(3, 30)])).await.unwrap();
        table.append(&batch(&[(4, 40)])).await.unwrap();
        assert_eq!(all(&table).await, [(2, 20), (3, 30), (4, 40)]);
        assert!(table.session().liars().is_empty() && other.session().liars().is_empty());
    });
}

#[test]
fn a_writer_that_lost_its_lease_writes_nothing_more_until_it_lets_go() {
    block_on(async {
        let (net, nodes) = Net::of(&[1, 2, 3, 4]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema("t")).await.unwrap();
        let other = twin(&net, &db, 77).table("t").await.unwrap();
        let (lease, keeper) = table.lease(seconds(2)).await.unwrap();
        table.append(&batch(&[(1, 10)])).await.unwrap();
        net.hub.pass_ms.store(5000, Relaxed);
        let (taken, _) = loop {
            // The time of the last block is what counts: the first try finds the lease running still.
            match other.lease(seconds(60)).await {
                Ok(taken) => break taken,
                Err(ClientError::Leased { .. }) => _ = db.create_table(schema("clock")).await,
                Err(error) => panic!("{error}"),
            }
        };
        other.append(&batch(&[(2, 20)])).await.unwrap();
        let lost = table.append(&batch(&[(3, 30)])).await.unwrap_err();
        assert!(matches!(lost, ClientError::LeaseLost { .. }) && !lost.is_retryable(), "{lost}");
        assert!(lease.lost().is_some());
        // The other gives it up; that brings the first one's number back for nothing.
        taken.release().await.unwrap();
        assert!(matches!(table.append(&batch(&[(3, 30)])).await, Err(ClientError::LeaseLost { .. })));
        // A keeper has nothing to keep any more.
        keeper.run().await;
        drop(lease);
        table.append(&batch(&[(4, 40)])).await.unwrap();
        assert_eq!(all(&table).await, [(1, 10), (2, 20), (4, 40)]);
    });
}

#[test]
fn a_keeper_renews_a_lease_until_its_guard_is_gone_and_finds_out_that_it_is_lost() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema("t")).await.unwrap();
        let (lease, keeper) = table.lease(seconds(3)).await.unwrap();
        let first = table.lease_status().await.unwrap().until_ms;
        let mut keeping = pin!(keeper.run());
        for _ in 0..3 {
            net.hub.pass_ms.store(2000, Relaxed);
            let before = table.lease_status().await.unwrap().until_ms;
            let renewed = async {
                while table.lease_status().await.unwrap().until_ms == before {
                    futures::pending!();
                }
            };
            match select(keeping.as_mut(), pin!(renewed)).await {
                Either::Left(_) => panic!("it lives as long as its guard"),
                Either::Right(_) => {}
            }
        }
        assert!(table.lease_status().await.unwrap().until_ms > first + 3000);
        table.append(&batch(&[(1, 10)])).await.unwrap();
        // The owner breaks it: the keeper ends, and says why.
        table.break_lease().await.unwrap();
        keeping.await;
        assert!(lease.lost().unwrap().contains("fence 1"), "{:?}", lease.lost());
        assert!(matches!(table.append(&batch(&[(2, 20)])).await, Err(ClientError::LeaseLost { .. })));
        drop(lease);
        let (lease, keeper) = table.lease(seconds(3)).await.unwrap();
        assert_eq!(lease.fence(), Fence(2));
        drop(lease);
        keeper.run().await;
        assert_eq!(all(&table).await, [(1, 10)]);
    });
}

#[test]
fn a_member_that_makes_a_lease_up_gains_nothing() {
    block_on(async {
        let (net, nodes) = Net::of(&[1, 2, 3, 4]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema("t")).await.unwrap();
        let liar = nodes[0].id();
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Lease { lease, .. } = &mut response
                && node.id() == liar
            {
                lease.fence = Fence(41);
            }
            Ok(response)
        });
        ask_first(&db, &nodes[0]);
        let (lease, _keeper) = table.lease(seconds(60)).await.unwrap();
        assert_eq!(lease.fence(), Fence(1), "the wrong number was refused, and another member asked");
        // One that says the commit happened, and did not have it ordered, is found out by the catalogue.
        net.tamper(move |node, request| {
            let is_commit = matches!(&request, Request::Submit(op) if matches!(op.unsigned.op, fluence_types::op::Op::Commit { .. }));
            if let Request::Submit(op) = &request
                && is_commit
                && node.id() == liar
            {
                let certificate = node.latest(op.unsigned.db).unwrap();
                let (op, height) = (fluence_crypto::sign::op_id(&op.unsigned), certificate.checkpoint().height);
                let receipt = fluence_types::op::OpReceipt { op, height, outcome: Ok(()) };
                return Ok(Response::Submit { receipt, certificate });
            }
            Ok(node.answer(request))
        });
        ask_first(&db, &nodes[0]);
        table.append(&batch(&[(1, 10)])).await.unwrap();
        assert_eq!(table.session().liars()[0].node, liar);
        assert_eq!(all(&table).await, [(1, 10)]);
        drop(lease);
    });
}
