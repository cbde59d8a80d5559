//! Several gateways on one database: no update is lost, and no rule of a table is broken between them.

use crate::real::{fresh, real, rows, run, tag};
use fluence_gateway::session::GatewayOptions;
use std::collections::BTreeSet;

#[tokio::test]
async fn counters_of_two_gateways_lose_no_update() {
    let real = real().await;
    let setup = &mut real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    tag(setup, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); INSERT INTO t VALUES (1, 0)").await;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let gateway = real.gateway(fresh());
        for _ in 0..2 {
            let gateway = gateway.clone();
            tasks.push(tokio::spawn(async move {
                let mut s = gateway.session("x", "db").await.unwrap();
                let mut done = 0i64;
                for _ in 0..5 {
                    match run(&mut s, "UPDATE t SET n = n + 1 WHERE id = 1").await {
                        Ok(_) => done += 1,
                        Err(error) => assert_eq!(error.state.code(), "40001", "{error:?}"),
                    }
                }
                done
            }));
        }
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    assert!(done > 0);
    assert_eq!(rows(setup, "SELECT n FROM t").await, [done.to_string()]);
}

#[tokio::test]
async fn serial_numbers_of_two_gateways_are_never_the_same() {
    let real = real().await;
    let (a, b) = (real.gateway(fresh()), real.gateway(fresh()));
    let (a, b) = (&mut a.session("a", "db").await.unwrap(), &mut b.session("b", "db").await.unwrap());
    tag(a, "CREATE TABLE t (id bigserial PRIMARY KEY, v bigint)").await;
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        for s in [&mut *a, &mut *b] {
            for id in rows(s, "INSERT INTO t (v) VALUES (1), (2) RETURNING id").await {
                assert!(ids.insert(id));
            }
        }
    }
    assert_eq!(rows(a, "SELECT count(*) FROM t").await, ["12"]);
}

#[tokio::test]
async fn one_key_of_two_gateways_is_inserted_once() {
    let real = real().await;
    let (a, b) = (real.gateway(fresh()), real.gateway(fresh()));
    let (a, b) = (&mut a.session("a", "db").await.unwrap(), &mut b.session("b", "db").await.unwrap());
    tag(a, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint)").await;
    tag(a, "BEGIN; INSERT INTO t VALUES (1, 1)").await;
    tag(b, "INSERT INTO t VALUES (1, 2)").await;
    let error = run(a, "COMMIT").await.unwrap_err();
    assert_eq!(error.state.code(), "40001");
    assert_eq!(rows(a, "SELECT v FROM t").await, ["2"]);
}

#[tokio::test]
async fn sessions_that_write_different_rows_share_commits_and_do_not_conflict() {
    let real = real().await;
    let gateway = real.gateway(GatewayOptions::default());
    let setup = &mut gateway.session("a", "db").await.unwrap();
    tag(setup, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); CREATE INDEX t_n ON t (n)").await;
    let before = gateway.counts();
    let mut tasks = Vec::new();
    for client in 1..=16 {
        let gateway = gateway.clone();
        tasks.push(tokio::spawn(async move {
            let mut s = gateway.session("x", "db").await.unwrap();
            for text in [
                format!("INSERT INTO t VALUES ({client}, 0)"),
                format!("UPDATE t SET n = n + {client} WHERE id = {client}"),
                format!("INSERT INTO t VALUES ({}, 7)", client + 100),
                format!("DELETE FROM t WHERE id = {}", client + 100),
            ] {
                // Tried again where a commit came between two reads of one statement, not where one came before it.
                tag(&mut s, &text).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let after = gateway.counts();
    let (commits, transactions) = (after.commits - before.commits, after.transactions - before.transactions);
    println!("{transactions} transactions in {commits} commits");
    assert_eq!(transactions, 64);
    assert!(commits * 2 < transactions, "{transactions} transactions in {commits} commits");
    assert_eq!(rows(setup, "SELECT count(*), sum(n), count(DISTINCT n) FROM t").await, ["16|136|16"]);
    assert_eq!(rows(setup, "SELECT id FROM t WHERE n = 9").await, ["9"]);
    // One key, by many at once: one of them has it.
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let gateway = gateway.clone();
        tasks.push(tokio::spawn(async move {
            let mut s = gateway.session("x", "db").await.unwrap();
            run(&mut s, "INSERT INTO t VALUES (1000, 1)").await.map_err(|e| e.state.code())
        }));
    }
    let mut done = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => done += 1,
            Err(code) => assert!(matches!(code, "40001" | "23505"), "{code}"),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(rows(setup, "SELECT count(*) FROM t WHERE id = 1000").await, ["1"]);
}

/// Segments of a table that is written row by row are merged beside the commits, once no transaction is open that could notice.
#[tokio::test]
async fn segments_are_merged_beside_commits_and_nobody_conflicts_with_that() {
    let real = real().await;
    let gateway = real.gateway(GatewayOptions::default());
    let [a, b] = &mut [gateway.session("a", "db").await.unwrap(), gateway.session("b", "db").await.unwrap()];
    tag(a, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint)").await;
    tag(a, "INSERT INTO t SELECT value, 0 FROM generate_series(1, 3000)").await;
    tag(b, "BEGIN; UPDATE t SET v = v + 5 WHERE id = 2000").await;
    for id in 1..=40 {
        tag(a, &format!("UPDATE t SET v = v + {id} WHERE id = {id}")).await;
    }
    // What merged was only what a full table must: the transaction is open.
    assert_eq!(gateway.counts().merges, 0);
    tag(b, "COMMIT").await;
    assert_eq!(rows(a, "SELECT count(*), sum(v) FROM t").await, ["3000|825"]);
    // The next ones come with the next commits.
    let mut more = 0;
    while gateway.counts().merges < 4 {
        more += 1;
        assert!(more < 60, "{:?}", gateway.counts());
        tag(a, "UPDATE t SET v = v + 1 WHERE id = 1").await;
    }
    assert_eq!(rows(a, "SELECT count(*), sum(v) FROM t").await, [format!("3000|{}", 825 + more)]);
    // The rows that nobody changed were not written again: what merges is small.
    let stats = real.database.table("t~1").await.unwrap().stats().await.unwrap();
    assert!(stats.segments.len() <= 12, "{} live", stats.segments.len());
    assert!(stats.segments.iter().any(|s| s.rows == 3000), "the first segment stands");
}

/// With nobody else there, no transaction of several statements meets two versions: merges of what it wrote before wait, or it waits for them.
#[tokio::test]
async fn a_transaction_that_reads_twice_meets_no_merge_between() {
    let real = real().await;
    let gateway = real.gateway(GatewayOptions::default());
    let s = &mut gateway.session("a", "db").await.unwrap();
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint)").await;
    tag(s, "INSERT INTO t SELECT value, 0 FROM generate_series(1, 600)").await;
    for id in 1..=40 {
        tag(s, &format!("UPDATE t SET v = 1 WHERE id = {id}")).await;
        tag(s, "BEGIN").await;
        for _ in 0..3 {
            assert_eq!(rows(s, "SELECT sum(v), count(*) FROM t").await, [format!("{id}|600")]);
            assert_eq!(rows(s, "SELECT count(*) FROM t WHERE v = 1 AND id > 0").await, [id.to_string()]);
        }
        tag(s, "COMMIT").await;
    }
    println!("{:?}", gateway.counts());
    assert!(gateway.counts().merges > 0, "{:?}", gateway.counts());
}
