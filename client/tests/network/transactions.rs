//! Transactions over several tables: all or nothing, first committer wins, and nobody's update is lost.

use crate::flows::database;
use crate::local::Net;
use crate::small::{Small, all, batch, live, pairs, schema, twin};
use fluence_client::{
    Aggregate, AggregateValue, ClientError, Database, KeyRange, Retry, Row, Select, TransportError, Value,
};
use fluence_types::{Height, Version};
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};
use futures::executor::block_on;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Two {
    net: Arc<Net>,
    nodes: Vec<Arc<crate::local::Node>>,
    db: Database<Arc<Net>>,
    a: Small,
    b: Small,
}

async fn two() -> Two {
    let (net, nodes) = Net::of(&[1, 2, 3, 4]);
    let db = database(&net, &nodes).await;
    let (a, b) = (db.create_table(schema("a")).await.unwrap(), db.create_table(schema("b")).await.unwrap());
    a.append(&batch(&[(1, 100), (2, 200)])).await.unwrap();
    b.append(&batch(&[(1, 5)])).await.unwrap();
    Two { net, nodes, db, a, b }
}

fn key(id: i64) -> KeyRange {
    KeyRange::prefix(vec![Value::Int64(id)])
}

fn cents(row: &Row<'_>) -> i64 {
    match row.get("cents") {
        Some(Value::Int64(cents)) => cents,
        other => panic!("{other:?}"),
    }
}

fn set(cents: i64) -> Option<fluence_client::write::Assignments> {
    Some(vec![("cents".to_owned(), Value::Int64(cents))])
}

#[test]
fn changes_of_several_tables_happen_at_one_height_or_not_at_all() {
    block_on(async {
        let Two { db, a, b, nodes, .. } = two().await;
        let mut tx = db.transaction();
        assert_eq!(tx.delete(&a, &key(1), |_| true).await.unwrap(), 1);
        tx.insert(&b, &batch(&[(9, 100)])).unwrap();
        let done = tx.commit().await.unwrap();
        assert_eq!(done.versions, [(a.projection(), Version(2)), (b.projection(), Version(2))]);
        assert_eq!(done.rows, 2);
        assert_eq!((all(&a).await, all(&b).await), (vec![(2, 200)], vec![(1, 5), (9, 100)]));
        let height = |t: &Small| nodes[0].snapshot(db.id(), t.projection()).unwrap().opening.entry.version;
        assert_eq!((height(&a), height(&b)), (Version(2), Version(2)));
        // What it read has changed: neither table does.
        let mut tx = db.transaction();
        tx.update(&a, &key(2), |row| set(cents(row) + 1)).await.unwrap();
        tx.insert(&b, &batch(&[(10, 1)])).unwrap();
        a.append(&batch(&[(3, 300)])).await.unwrap();
        let conflict = tx.commit().await.unwrap_err();
        assert!(matches!(conflict, ClientError::Conflict { read: Version(2), current: Version(3), .. }), "{conflict}");
        assert!(conflict.is_retryable());
        assert_eq!((all(&a).await, all(&b).await), (vec![(2, 200), (3, 300)], vec![(1, 5), (9, 100)]));
        // And one that is dropped leaves nothing.
        let mut tx = db.transaction();
        tx.insert(&b, &batch(&[(11, 1)])).unwrap();
        drop(tx);
        assert_eq!(all(&b).await.len(), 2);
    });
}

/// Each reads both and writes one: together they would break what each saw.
#[test]
fn two_that_read_what_the_other_writes_are_not_both_done() {
    block_on(async {
        let Two { net, db, a, b, .. } = two().await;
        let other = twin(&net, &db, 77);
        let (a2, b2) = (other.table("a").await.unwrap(), other.table("b").await.unwrap());
        let count = [Aggregate::Count];
        let (mut x, mut y) = (db.transaction(), other.transaction());
        x.aggregates(&a, &KeyRange::ALL, &count).await.unwrap();
        y.aggregates(&b2, &KeyRange::ALL, &count).await.unwrap();
        x.insert(&b, &batch(&[(7, 7)])).unwrap();
        y.insert(&a2, &batch(&[(8, 8)])).unwrap();
        x.commit().await.unwrap();
        assert!(matches!(y.commit().await, Err(ClientError::Conflict { .. })));
        assert_eq!((all(&a).await.len(), all(&b).await.len()), (2, 2));
    });
}

#[test]
fn inserts_that_read_nothing_follow_what_was_committed_in_between() {
    block_on(async {
        let Two { db, a, b, .. } = two().await;
        let mut tx = db.transaction();
        tx.insert(&a, &batch(&[(5, 5)])).unwrap();
        tx.insert(&b, &batch(&[(6, 6)])).unwrap();
        a.append(&batch(&[(7, 7)])).await.unwrap();
        b.compact().await.unwrap();
        let done = tx.commit().await.unwrap();
        assert_eq!(done.versions[0].1, Version(3));
        assert_eq!(all(&a).await, [(1, 100), (2, 200), (5, 5), (7, 7)]);
        assert_eq!(all(&b).await, [(1, 5), (6, 6)]);
    });
}

#[test]
fn what_only_reads_ends_well_if_there_was_a_moment_at_which_all_of_it_was_true() {
    block_on(async {
        let Two { db, a, b, .. } = two().await;
        let mut tx = db.transaction();
        let rows = tx.read(&a, &Select::range(KeyRange::ALL)).await.unwrap();
        assert_eq!(pairs(&rows.value), [(1, 100), (2, 200)]);
        tx.read(&b, &Select::range(key(1))).await.unwrap();
        let done = tx.commit().await.unwrap();
        assert!(done.height > Height(0) && done.versions.is_empty());
        let mut tx = db.transaction();
        tx.read(&a, &Select::range(KeyRange::ALL)).await.unwrap();
        a.append(&batch(&[(3, 3)])).await.unwrap();
        tx.read(&b, &Select::range(key(1))).await.unwrap();
        assert!(matches!(tx.commit().await, Err(ClientError::Conflict { .. })));
        // One table at two versions is found at once.
        let mut tx = db.transaction();
        tx.read(&a, &Select::range(KeyRange::ALL)).await.unwrap();
        a.append(&batch(&[(4, 4)])).await.unwrap();
        assert!(matches!(tx.read(&a, &Select::range(key(1))).await, Err(ClientError::Conflict { .. })));
        let nothing = db.transaction().commit().await.unwrap();
        assert_eq!((nothing.rows, nothing.height), (0, Height(0)));
    });
}

#[test]
fn what_was_seen_at_one_root_is_not_asked_about_again_and_what_was_not_is() {
    block_on(async {
        let Two { net, db, a, b, .. } = two().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        net.tamper(move |node, request| {
            counter.fetch_add(1, Relaxed);
            Ok(node.answer(request))
        });
        let both = async |db: &Database<Arc<Net>>, between: Option<&Small>| {
            let mut tx = db.transaction();
            tx.read(&a, &Select::range(KeyRange::ALL)).await.unwrap();
            if let Some(table) = between {
                table.append(&batch(&[(50, 1)])).await.unwrap();
            }
            tx.read(&b, &Select::range(key(1))).await.unwrap();
            let before = asked.load(Relaxed);
            let done = tx.commit().await;
            (done, asked.load(Relaxed) - before)
        };
        let (done, requests) = both(&db, None).await;
        assert!(done.unwrap().height > Height(0));
        assert_eq!(requests, 0);
        // Somebody else moves the root between the reads: both are looked at, and where one has changed it is a conflict.
        let other = twin(&net, &db, 77);
        let (a2, c) = (other.table("a").await.unwrap(), other.create_table(schema("c")).await.unwrap());
        let (done, requests) = both(&db, Some(&c)).await;
        assert!(done.is_ok());
        assert_eq!(requests, 2);
        let (done, _) = both(&db, Some(&a2)).await;
        assert!(matches!(done, Err(ClientError::Conflict { .. })), "{done:?}");
        // One alone is asked about: whether it still is so.
        let mut tx = db.transaction();
        tx.read(&b, &Select::range(key(1))).await.unwrap();
        let before = asked.load(Relaxed);
        tx.commit().await.unwrap();
        assert_eq!(asked.load(Relaxed) - before, 1);
    });
}

#[test]
fn a_range_is_rewritten_once_and_tables_are_those_of_the_database() {
    block_on(async {
        let Two { net, nodes, db, a, .. } = two().await;
        let mut tx = db.transaction();
        tx.update(&a, &key(1), |row| set(cents(row) + 1)).await.unwrap();
        let twice = tx.delete(&a, &KeyRange::ALL, |_| true).await.unwrap_err();
        assert!(matches!(twice, ClientError::Overlap(_)), "{twice}");
        tx.delete(&a, &key(2), |_| true).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(all(&a).await, [(1, 101)]);
        let elsewhere = crate::flows::session(&net, 5);
        let elsewhere =
            elsewhere.create_database("else", nodes.iter().map(|n| n.id()).collect(), vec![]).await.unwrap();
        let stranger = elsewhere.create_table(schema("a")).await.unwrap();
        let mut tx = db.transaction();
        assert!(matches!(tx.insert(&stranger, &batch(&[(1, 1)])), Err(ClientError::OtherDatabase { .. })));
    });
}

/// Three sessions, each adds to one counter in one table and notes it in another: every addition counts, and every note is there.
#[test]
fn additions_by_several_sessions_are_all_there_and_each_has_its_note() {
    block_on(async {
        let Two { net, db, a, b, .. } = two().await;
        let tries = AtomicUsize::new(0);
        let work = (0..3i64).map(|session| {
            let (other, tries) = (twin(&net, &db, 100 + session as u64), &tries);
            async move {
                let (a, b) = (other.table("a").await.unwrap(), other.table("b").await.unwrap());
                for n in 0..3 {
                    let retry = Retry { attempts: 100, ..Retry::default() };
                    let note = batch(&[(1000 + 10 * session + n, 1)]);
                    let added = other.transact(retry, async |tx| {
                        tries.fetch_add(1, Relaxed);
                        tx.update(&a, &key(1), |row| set(cents(row) + 1)).await?;
                        tx.insert(&b, &note)
                    });
                    added.await.unwrap();
                }
            }
        });
        join_all(work).await;
        assert_eq!(all(&a).await[0], (1, 109));
        assert_eq!(all(&b).await.len(), 1 + 9);
        assert!(tries.load(Relaxed) > 9, "they met");
    });
}

#[test]
fn tries_are_bounded_and_what_is_no_conflict_is_not_tried_again() {
    block_on(async {
        let Two { net, db, a, .. } = two().await;
        let other = twin(&net, &db, 77).table("a").await.unwrap();
        let mut tries = 0;
        let retry = Retry { attempts: 3, ..Retry::default() };
        let moving = db.transact(retry, async |tx| {
            tries += 1;
            tx.update(&a, &key(1), |row| set(cents(row) + 1)).await?;
            other.append(&batch(&[(50 + tries, 1)])).await.map(|_| ())
        });
        assert!(matches!(moving.await, Err(ClientError::Conflict { .. })));
        assert_eq!(tries, 3);
        let mut tries = 0;
        let wrong = db.transact(retry, async |tx| {
            tries += 1;
            tx.update(&a, &key(1), |_| Some(vec![("cents".to_owned(), Value::Text("x".into()))])).await
        });
        assert!(matches!(wrong.await, Err(ClientError::Schema(_))));
        assert_eq!(tries, 1);
        assert_eq!(all(&a).await[0], (1, 100));
    });
}

#[test]
fn an_answer_that_gets_lost_does_not_make_it_happen_twice() {
    block_on(async {
        let Two { net, db, a, b, nodes } = two().await;
        let mut lost = 0;
        net.tamper(move |node, request| {
            let submits = matches!(request, Request::Submit(_));
            let response = node.answer(request);
            if submits && lost < 3 {
                lost += 1;
                return Err(TransportError::Unreachable { node: node.id(), why: "the cable".to_owned() });
            }
            Ok(response)
        });
        let mut tx = db.transaction();
        tx.update(&a, &key(1), |row| set(cents(row) + 1)).await.unwrap();
        tx.insert(&b, &batch(&[(2, 1)])).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(all(&a).await, [(1, 101), (2, 200)]);
        assert_eq!(all(&b).await, [(1, 5), (2, 1)]);
        assert_eq!((live(&nodes[0], &a), live(&nodes[0], &b)), (2, 2));
        let count = a.aggregate(&KeyRange::ALL, &Aggregate::Count).await.unwrap().value;
        assert_eq!(count, AggregateValue::Count(2));
    });
}

#[test]
fn a_member_that_has_yet_to_drop_a_refused_operation_is_waited_for() {
    block_on(async {
        let Two { net, a, .. } = two().await;
        let refuse = |times: usize| {
            let mut left = times;
            net.tamper(move |node, request| match request {
                Request::Submit(_) if left > 0 => {
                    left -= 1;
                    let why = "operation 0x01 of 0x02 waits with number 3 already".to_owned();
                    Ok(Response::Refused(Refusal::Operation(why)))
                }
                request => Ok(node.answer(request)),
            });
        };
        refuse(7);
        a.append(&batch(&[(3, 300)])).await.unwrap();
        refuse(usize::MAX);
        assert!(matches!(a.append(&batch(&[(4, 400)])).await, Err(ClientError::Refused { .. })));
        net.honest();
        a.append(&batch(&[(5, 500)])).await.unwrap();
        assert_eq!(all(&a).await, [(1, 100), (2, 200), (3, 300), (5, 500)]);
    });
}
