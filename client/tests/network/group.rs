//! Group commit: rows of many sessions in few commits, each answered for itself, each in the table exactly once.

use crate::flows::database;
use crate::local::{Net, Node};
use crate::small::{Small, all, ask_first, batch, live, row, schema, twin};
use fluence_client::{
    Aggregate, AggregateValue, ClientError, Database, Group, GroupError, GroupOptions, Inserted, KeyRange,
    LeaseOptions, Retry, SumExpr, Transport, TransportError, Value,
};
use fluence_engine::{EngineConfig, Rules};
use fluence_types::op::{Op, OpRefusal};
use fluence_types::{Height, SegmentId, Version};
use fluence_wire::{Request, Response};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{join, join_all};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct World {
    net: Arc<Net>,
    nodes: Vec<Arc<Node>>,
    db: Database<Arc<Net>>,
    table: Small,
}

async fn world(members: &[u8]) -> World {
    world_with(members, EngineConfig::default()).await
}

/// A database of 16 segments, those included that were superseded in the last `retention_blocks` blocks.
async fn small_world(retention_blocks: u64) -> World {
    let rules = Rules { stored_levels: 2, ..Rules::retaining(retention_blocks) };
    world_with(&[1, 2, 3, 4], EngineConfig { rules, ..EngineConfig::default() }).await
}

async fn world_with(members: &[u8], config: EngineConfig) -> World {
    let (net, nodes) = Net::with(members, config);
    let db = database(&net, &nodes).await;
    let table = db.create_table(schema("t")).await.unwrap();
    World { net, nodes, db, table }
}

/// Without a lease: these tests say themselves who else writes.
fn options() -> GroupOptions {
    GroupOptions { lease: None, ..GroupOptions::default() }
}

/// So many sessions, each of which inserts so many rows, one after the other. Ids are `session * 1000 + n`.
async fn sessions(group: Group, sessions: i64, rows: i64) -> Vec<Result<Inserted, GroupError>> {
    let one = |s: i64| {
        let group = group.clone();
        async move {
            let mut answers = Vec::new();
            for n in 0..rows {
                answers.push(group.insert(row(s * 1000 + n, n)).await);
            }
            answers
        }
    };
    let all = join_all((0..sessions).map(one)).await;
    drop(group);
    all.into_iter().flatten().collect()
}

async fn check(table: &Small, want: &[(i64, i64)]) {
    assert_eq!(all(table).await, want);
    let cents = Aggregate::Sum(SumExpr::Column("cents".into()));
    let got = table.aggregates(&KeyRange::ALL, &[Aggregate::Count, cents]).await.unwrap().value;
    assert_eq!(got[0], AggregateValue::Count(want.len() as u64));
    let unscaled = want.iter().map(|(_, cents)| i128::from(*cents)).sum();
    assert_eq!(got[1], AggregateValue::Sum { unscaled, scale: 0 });
}

fn expected(sessions: i64, rows: i64) -> Vec<(i64, i64)> {
    (0..sessions).flat_map(|s| (0..rows).map(move |n| (s * 1000 + n, n))).collect()
}

#[test]
fn rows_of_64_sessions_share_commits_and_each_is_there_once_when_its_answer_comes() {
    block_on(async {
        let World { nodes, table, .. } = world(&[1, 2, 3, 4]).await;
        let (group, driver) = table.group(GroupOptions::default());
        let watch = group.clone();
        let answered = async {
            let first = watch.insert(row(-1, 5)).await.unwrap();
            // It is certified: every member that is up has it.
            let snapshot = nodes[3].snapshot(table.db(), table.projection()).unwrap();
            assert!(snapshot.opening.entry.version >= first.version);
            drop(watch);
        };
        let (answers, (stats, ())) = join(sessions(group, 64, 4), join(driver.run(), answered)).await;
        let stats = stats.unwrap();
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!((stats.rows, stats.failed, stats.unknown), (257, 0, 0));
        assert!(stats.commits < 20, "{stats:?}");
        let mut want = expected(64, 4);
        want.insert(0, (-1, 5));
        check(&table, &want).await;
        assert_eq!(table.lease_status().await.unwrap().holder, None, "the lease was given up");
    });
}

/// One row a commit, long enough for merges of merges.
#[test]
fn rows_without_end_keep_few_segments_live_and_are_seldom_written_again() {
    block_on(async {
        let World { nodes, table, .. } = world(&[1]).await;
        let (group, driver) = table.group(options());
        let (answers, stats) = join(sessions(group, 1, 120), driver.run()).await;
        let stats = stats.unwrap();
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!((stats.rows, stats.commits), (120, 120));
        assert!(stats.live_max <= 8 && stats.merges >= 10, "{stats:?}");
        assert!(stats.write_amplification() > 1.0 && stats.write_amplification() < 8.0, "{stats:?}");
        assert_eq!(stats.live as usize, live(&nodes[0], &table));
        check(&table, &expected(1, 120)).await;
    });
}

/// What another process left is read from the members to be merged; retractions whose rows lie elsewhere keep their weight.
#[test]
fn segments_of_others_are_merged_from_the_members_copies_with_their_retractions() {
    block_on(async {
        let World { nodes, table, .. } = world(&[1, 2, 3, 4]).await;
        let big: Vec<(i64, i64)> = (0..600).map(|n| (10_000 + n, 1)).collect();
        table.append(&batch(&big)).await.unwrap();
        for n in 0..9 {
            match n % 3 {
                // The row is in the large segment, which these are too small to be merged with.
                2 => _ = table.delete_keys(&[vec![Value::Int64(10_000 + n)]]).await.unwrap().unwrap(),
                _ => _ = table.append(&batch(&[(n, n), (n + 100, n)])).await.unwrap(),
            }
        }
        assert_eq!(live(&nodes[0], &table), 10);
        let (group, driver) = table.group(options());
        let (answers, stats) = join(sessions(group, 2, 12), driver.run()).await;
        let stats = stats.unwrap();
        assert!(answers.iter().all(Result::is_ok) && stats.merges > 0 && stats.merges_dropped == 0, "{stats:?}");
        assert!(live(&nodes[0], &table) <= 8);
        let small = (0..9i64).filter(|n| n % 3 != 2).flat_map(|n| [(n, n), (n + 100, n)]);
        let big = big.into_iter().filter(|(id, _)| !matches!(id, 10_002 | 10_005 | 10_008));
        // Both have a row 0, 1, 3, 4, 7: keys repeat, rows do not.
        let mut want: Vec<_> = expected(2, 12).into_iter().chain(small).chain(big).collect();
        want.sort_unstable();
        let mut got = all(&table).await;
        got.sort_unstable();
        assert_eq!(got, want);
    });
}

#[test]
fn a_row_that_does_not_fit_is_refused_alone() {
    block_on(async {
        let World { table, .. } = world(&[1]).await;
        let (group, driver) = table.group(options());
        let work = async move {
            let bad = [
                vec![Value::Int64(1)],
                vec![Value::Text("1".into()), Value::Text("a".into()), Value::Int64(1), Value::Null],
                vec![Value::Int64(1), Value::Null, Value::Int64(1), Value::Null],
            ];
            let refused = join_all(bad.map(|row| group.insert(row)));
            let (refused, good) = join(refused, group.insert(row(1, 1))).await;
            assert!(refused.iter().all(|r| matches!(r, Err(GroupError::Row(_)))), "{refused:?}");
            good.unwrap();
        };
        let ((), stats) = join(work, driver.run()).await;
        assert_eq!((stats.unwrap().rows, all(&table).await), (1, vec![(1, 1)]));
    });
}

/// Ids of all segments that were ever sent to be ordered, each with the versions it was sent for.
type Sent = Arc<Mutex<BTreeMap<SegmentId, BTreeSet<Version>>>>;

fn record_segments(net: &Net, sent: &Sent) {
    let sent = Arc::clone(sent);
    net.tamper(move |node, request| {
        if let Request::Submit(op) = &request
            && let Op::Commit { reads, changes, .. } = &op.unsigned.op
        {
            for segment in changes.iter().flat_map(|c| c.append.iter()) {
                sent.lock().unwrap().entry(segment.id).or_default().insert(reads[0].1);
            }
        }
        Ok(node.answer(request))
    });
}

#[test]
fn who_is_overtaken_seals_its_rows_anew_and_never_under_an_id_that_was_used() {
    block_on(async {
        let World { net, db, table, .. } = world(&[1, 2, 3, 4]).await;
        let other = twin(&net, &db, 77).table("t").await.unwrap();
        let sent = Sent::default();
        record_segments(&net, &sent);
        let (group, driver) = table.group(options());
        let work = async move {
            for n in 0..6 {
                group.insert(row(n, n)).await.unwrap();
                other.append(&batch(&[(100 + n, n)])).await.unwrap();
            }
        };
        let ((), stats) = join(work, driver.run()).await;
        let stats = stats.unwrap();
        assert!(stats.conflicts >= 5 && stats.rows == 6, "{stats:?}");
        let want: Vec<_> = (0..6).map(|n| (n, n)).chain((0..6).map(|n| (100 + n, n))).collect();
        check(&table, &want).await;
        let sent = sent.lock().unwrap();
        assert!(sent.len() as u64 >= 12 + stats.conflicts);
        assert!(
            sent.values().all(|versions| versions.len() == 1),
            "what was overtaken is not sent for another version"
        );
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_sent_again_as_it_is_until_the_catalogue_shows_it() {
    block_on(async {
        let World { net, nodes, table, .. } = world(&[1, 2, 3, 4]).await;
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (mut lost, ids) = (0, Arc::clone(&seen));
        net.tamper(move |node, request| {
            let cut = || TransportError::Unreachable { node: node.id(), why: "the cable".to_owned() };
            let commit = match &request {
                Request::Submit(op) => match &op.unsigned.op {
                    Op::Commit { changes, .. } => Some(changes[0].append[0].id),
                    _ => None,
                },
                _ => None,
            };
            let Some(id) = commit else { return Ok(node.answer(request)) };
            ids.lock().unwrap().insert(id);
            lost += 1;
            match lost {
                // It does not arrive; then it does, and nobody hears.
                1..=30 => Err(cut()),
                31..=50 => {
                    node.answer(request);
                    Err(cut())
                }
                _ => Ok(node.answer(request)),
            }
        });
        let (group, driver) = table.group(options());
        let (answers, stats) = join(sessions(group, 3, 1), driver.run()).await;
        let stats = stats.unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((stats.rows, stats.conflicts), (3, 0));
        assert_eq!(seen.lock().unwrap().len(), live(&nodes[0], &table), "the same bytes each time");
        check(&table, &[(0, 0), (1000, 0), (2000, 0)]).await;
    });
}

#[test]
fn a_failed_commit_answers_exactly_the_rows_in_it_and_an_unknown_one_says_so() {
    block_on(async {
        let World { net, db, table, .. } = world(&[1, 2, 3, 4]).await;
        let other = twin(&net, &db, 77).table("t").await.unwrap();
        let retry = Retry { attempts: 2, ..Retry::default() };
        let (group, driver) = table.group(GroupOptions { retry, ..options() });
        let (net, reader) = (&net, &table);
        let work = async move {
            group.insert(row(1, 1)).await.unwrap();
            let (lease, _keeper) = other.lease(LeaseOptions::default()).await.unwrap();
            let failed = join_all((2..5).map(|n| group.insert(row(n, n)))).await;
            let leased =
                |e: &GroupError| matches!(e, GroupError::Failed(e) if matches!(**e, ClientError::Leased { .. }));
            assert!(failed.iter().all(|r| r.as_ref().is_err_and(leased)), "{failed:?}");
            assert_eq!(all(reader).await, [(1, 1)]);
            lease.release().await.unwrap();
            group.insert(row(5, 5)).await.unwrap();
            // Nobody is reached any more: what became of it cannot be known.
            net.tamper(|node, request| match request {
                Request::Submit(_) | Request::Catalogue { .. } => {
                    Err(TransportError::Unreachable { node: node.id(), why: "the cable".to_owned() })
                }
                request => Ok(node.answer(request)),
            });
            assert!(matches!(group.insert(row(6, 6)).await, Err(GroupError::Unknown(_))));
            net.honest();
            group.insert(row(7, 7)).await.unwrap();
        };
        let ((), stats) = join(work, driver.run()).await;
        let stats = stats.unwrap();
        assert_eq!((stats.rows, stats.failed, stats.unknown), (3, 3, 1));
        check(&table, &[(1, 1), (5, 5), (7, 7)]).await;
    });
}

#[test]
fn a_driver_that_lost_its_lease_ends_and_one_that_cannot_have_it_does_not_begin() {
    block_on(async {
        let World { net, db, table, .. } = world(&[1, 2, 3, 4]).await;
        let other = twin(&net, &db, 77).table("t").await.unwrap();
        let lease = LeaseOptions { duration: Duration::from_secs(3600), renew: Duration::from_secs(1800) };
        let options = GroupOptions { lease: Some(lease), ..GroupOptions::default() };
        let (group, driver) = table.group(options);
        let work = async {
            group.insert(row(1, 1)).await.unwrap();
            let (second, driver) = other.group(options);
            let refused = driver.run().await;
            assert!(matches!(refused, Err(ClientError::Leased { .. })), "{refused:?}");
            assert!(matches!(second.insert(row(2, 2)).await, Err(GroupError::Closed)));
            other.break_lease().await.unwrap();
            let failed = group.insert(row(3, 3)).await;
            assert!(matches!(failed, Err(GroupError::Failed(_) | GroupError::Closed)), "{failed:?}");
        };
        let ((), ended) = join(work, driver.run()).await;
        assert!(matches!(ended, Err(ClientError::LeaseLost { .. })), "{ended:?}");
        assert!(matches!(group.insert(row(4, 4)).await, Err(GroupError::Closed)));
        assert_eq!(all(&table).await, [(1, 1)]);
    });
}

#[test]
fn a_driver_that_is_dropped_answers_everybody() {
    block_on(async {
        let World { net, table, .. } = world(&[1]).await;
        let (group, driver) = table.group(options());
        let mut early = Box::pin(group.insert(row(1, 1)));
        assert!((&mut early).now_or_never().is_none());
        drop(driver);
        assert!(matches!(early.await, Err(GroupError::Closed)), "it was never sent");
        assert!(matches!(group.insert(row(2, 2)).await, Err(GroupError::Closed)));
        // In the middle of a commit.
        net.tamper(|node, request| match request {
            Request::Submit(_) => Err(TransportError::Timeout { node: node.id(), seconds: 1 }),
            request => Ok(node.answer(request)),
        });
        let retry = Retry { attempts: u32::MAX, ..Retry::default() };
        let (group, driver) = table.group(GroupOptions { retry, ..options() });
        let mut driving = Box::pin(driver.run());
        let mut sent = Box::pin(group.insert(row(3, 3)));
        for _ in 0..200 {
            assert!((&mut driving).now_or_never().is_none() && (&mut sent).now_or_never().is_none());
        }
        drop(driving);
        assert!(matches!(sent.await, Err(GroupError::Stopped)));
    });
}

/// A member that says a row was inserted is not believed before the catalogue shows it.
#[test]
fn a_member_that_makes_an_outcome_up_is_blamed_and_the_row_is_there_all_the_same() {
    block_on(async {
        let World { net, nodes, db, table } = world(&[1, 2, 3, 4]).await;
        let liar = nodes[1].id();
        net.tamper(move |node, request| {
            if let Request::Submit(op) = &request
                && node.id() == liar
            {
                let certificate = node.latest(op.unsigned.db).unwrap();
                let (op, height) = (fluence_crypto::sign::op_id(&op.unsigned), certificate.checkpoint().height);
                let receipt = fluence_types::op::OpReceipt { op, height, outcome: Ok(()) };
                return Ok(Response::Submit { receipt, certificate });
            }
            Ok(node.answer(request))
        });
        ask_first(&db, &nodes[1]);
        let (group, driver) = table.group(options());
        let (answers, stats) = join(sessions(group, 1, 12), driver.run()).await;
        assert!(answers.iter().all(Result::is_ok) && stats.unwrap().rows == 12);
        check(&table, &expected(1, 12)).await;
        let liars: BTreeSet<_> = table.session().liars().into_iter().map(|l| l.node).collect();
        assert_eq!(liars, BTreeSet::from([liar]));
    });
}

/// The commits that were sent, each by its first segment, and whether it was refused for want of a place.
type Commits = Arc<Mutex<Vec<(SegmentId, bool)>>>;

fn record_commits(net: &Net) -> Commits {
    let commits = Commits::default();
    let sent = Arc::clone(&commits);
    net.tamper(move |node, request| {
        let first = match &request {
            Request::Submit(op) => match &op.unsigned.op {
                Op::Commit { changes, .. } => changes[0].append.first().map(|s| s.id),
                _ => None,
            },
            _ => None,
        };
        let response = node.answer(request);
        if let (Response::Submit { receipt, .. }, Some(id)) = (&response, first) {
            sent.lock().unwrap().push((id, matches!(receipt.outcome, Err(OpRefusal::Full { .. }))));
        }
        Ok(response)
    });
    commits
}

/// The block from which on there is a place for a row that was refused for want of one.
fn full_until(answer: &Result<Inserted, GroupError>) -> Option<Height> {
    match answer {
        Err(GroupError::Failed(why)) => match **why {
            ClientError::Op(OpRefusal::Full { limit: 16, until }) => until,
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn rows_wait_for_a_place_that_comes_soon_and_go_in_as_they_were_sealed() {
    block_on(async {
        // Two blocks a commit: the first eight are superseded by the ninth, and gone 12 blocks after the seventeenth finds no place.
        let World { net, table, .. } = small_world(28).await;
        let commits = record_commits(&net);
        let (group, driver) = table.group(options());
        let (answers, stats) = join(sessions(group, 1, 40), driver.run()).await;
        let stats = stats.unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((stats.rows, stats.failed, stats.unknown, stats.conflicts), (40, 0, 0, 0));
        check(&table, &expected(1, 40)).await;
        let commits = commits.lock().unwrap();
        let of = |full: bool| commits.iter().filter(move |c| c.1 == full).map(|c| c.0).collect::<Vec<_>>();
        let (refused, taken): (Vec<_>, BTreeSet<_>) = (of(true), of(false).into_iter().collect());
        assert!(refused.len() >= 6, "{} commits met a full database", refused.len());
        assert!(refused.iter().all(|id| taken.contains(id)), "the same bytes each time");
    });
}

#[test]
fn rows_that_find_no_place_are_told_from_when_on_there_is_one_and_go_in_then() {
    block_on(async {
        let World { net, nodes, table, .. } = small_world(300).await;
        let retry = Retry { attempts: 2, ..Retry::default() };
        let (group, driver) = table.group(GroupOptions { retry, ..options() });
        let (net, reader) = (&net, &table);
        let work = async move {
            let mut want = Vec::new();
            let until = loop {
                let n = want.len() as i64;
                match group.insert(row(n, n)).await {
                    Ok(_) => want.push((n, n)),
                    refused => break full_until(&refused).unwrap_or_else(|| panic!("{refused:?}")),
                }
            };
            assert!(want.len() >= 9, "{want:?}");
            // Each of several rows is told, and none is there.
            let several = join_all((100..104).map(|n| group.insert(row(n, n)))).await;
            assert!(several.iter().all(|answer| full_until(answer) == Some(until)), "{several:?}");
            check(reader, &want).await;
            net.hub.pass(reader.db(), until);
            let again = join_all((100..104).map(|n| group.insert(row(n, n)))).await;
            assert!(again.iter().all(Result::is_ok), "{again:?}");
            want.extend((100..104).map(|n| (n, n)));
            want
        };
        let (want, stats) = join(work, driver.run()).await;
        let stats = stats.unwrap();
        assert_eq!((stats.rows, stats.failed, stats.unknown), (want.len() as u64, 5, 0));
        check(&table, &want).await;
        assert_eq!(stats.live as usize, live(&nodes[0], &table));
    });
}

#[test]
fn a_merge_that_finds_no_place_keeps_no_group_from_ending() {
    block_on(async {
        let World { net, nodes, table, .. } = small_world(300).await;
        // Eight become one, and are kept; with seven more the database is full, and eight live.
        for id in 0..15 {
            table.append(&batch(&[(id, 1)])).await.unwrap();
            if id == 7 {
                table.compact().await.unwrap().unwrap();
            }
        }
        assert_eq!(live(&nodes[0], &table), 8);
        let commits = record_commits(&net);
        let retry = Retry { attempts: 2, ..Retry::default() };
        let (group, driver) = table.group(GroupOptions { retry, ..options() });
        let work = async {
            let answer = group.insert(row(100, 1)).await;
            assert!(full_until(&answer).is_some(), "{answer:?}");
            // The row was refused twice; then the merge is.
            while commits.lock().unwrap().len() < 4 {
                net.sleep(Duration::ZERO).await;
            }
            drop(group);
        };
        let ((), stats) = join(work, driver.run()).await;
        let stats = stats.unwrap();
        assert_eq!((stats.rows, stats.failed, stats.merges), (0, 1, 0));
        check(&table, &(0..15).map(|id| (id, 1)).collect::<Vec<_>>()).await;
        let commits = commits.lock().unwrap();
        assert!(commits.iter().all(|(_, full)| *full));
        assert!(commits.len() < 20, "{} commits for one merge", commits.len());
    });
}
