//! Transaction blocks: one's own writes are read, all of it happens or nothing, and a transaction that failed says so until it ends.

use crate::real::{real, rows, session, state, tag};
use fluence_gateway::session::{GatewayOptions, TransactionStatus};

#[tokio::test]
async fn a_transaction_reads_its_own_writes_and_others_do_not() {
    let real = real().await;
    let gateway = real.gateway(GatewayOptions::default());
    let (a, b) = (&mut gateway.session("a", "db").await.unwrap(), &mut gateway.session("b", "db").await.unwrap());
    tag(a, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); INSERT INTO t VALUES (1, 10), (2, 20)").await;
    tag(a, "BEGIN").await;
    tag(a, "INSERT INTO t VALUES (3, 30)").await;
    tag(a, "UPDATE t SET n = n + 1 WHERE id = 1").await;
    tag(a, "UPDATE t SET n = n + 1 WHERE id = 1").await;
    tag(a, "DELETE FROM t WHERE id = 2").await;
    assert_eq!(rows(a, "SELECT * FROM t ORDER BY id").await, ["1|12", "3|30"]);
    assert_eq!(rows(a, "SELECT count(*), sum(n) FROM t").await, ["2|42"]);
    assert_eq!(rows(a, "SELECT n FROM t WHERE id = 1").await, ["12"]);
    assert_eq!(state(a, "INSERT INTO t VALUES (3, 1)").await, "23505", "its own row counts");
    assert_eq!(a.status(), TransactionStatus::Failed);
    assert_eq!(rows(b, "SELECT * FROM t ORDER BY id").await, ["1|10", "2|20"]);
    assert_eq!(state(a, "SELECT 1").await, "25P02");
    assert_eq!(tag(a, "COMMIT").await, "ROLLBACK");
    assert_eq!(rows(a, "SELECT * FROM t ORDER BY id").await, ["1|10", "2|20"]);
    tag(a, "BEGIN; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (2, 21); UPDATE t SET n = 22 WHERE id = 2").await;
    assert_eq!(tag(a, "COMMIT").await, "COMMIT");
    assert_eq!(rows(b, "SELECT * FROM t ORDER BY id").await, ["1|10", "2|22"]);
}

#[tokio::test]
async fn the_first_to_commit_wins() {
    let real = real().await;
    let gateway = real.gateway(GatewayOptions::default());
    let (a, b) = (&mut gateway.session("a", "db").await.unwrap(), &mut gateway.session("b", "db").await.unwrap());
    tag(a, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); INSERT INTO t VALUES (1, 10)").await;
    tag(a, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 1").await;
    tag(b, "BEGIN; UPDATE t SET n = n + 5 WHERE id = 1").await;
    assert_eq!(tag(a, "COMMIT").await, "COMMIT");
    assert_eq!(state(b, "COMMIT").await, "40001");
    assert_eq!(b.status(), TransactionStatus::Idle);
    assert_eq!(rows(b, "SELECT n FROM t").await, ["11"]);
    // A transaction that read what another then changed, and writes elsewhere, would not be serial.
    tag(a, "CREATE TABLE u (id bigint PRIMARY KEY)").await;
    tag(b, "BEGIN").await;
    assert_eq!(rows(b, "SELECT n FROM t").await, ["11"]);
    tag(a, "UPDATE t SET n = 12").await;
    tag(b, "INSERT INTO u VALUES (1)").await;
    assert_eq!(state(b, "COMMIT").await, "40001");
    assert_eq!(rows(a, "SELECT count(*) FROM u").await, ["0"]);
    // One that reads twice sees that it moved.
    tag(b, "BEGIN").await;
    rows(b, "SELECT n FROM t").await;
    tag(a, "UPDATE t SET n = 13").await;
    assert_eq!(state(b, "SELECT n FROM t").await, "40001");
    tag(b, "ROLLBACK").await;
}

#[tokio::test]
async fn savepoints_go_back_part_of_the_way() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    tag(
        s,
        "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2); SAVEPOINT b; INSERT INTO t VALUES (3)",
    )
    .await;
    assert_eq!(state(s, "INSERT INTO t VALUES (1)").await, "23505");
    assert_eq!(tag(s, "ROLLBACK TO SAVEPOINT b").await, "ROLLBACK");
    assert_eq!(rows(s, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
    tag(s, "INSERT INTO t VALUES (4); RELEASE SAVEPOINT b; ROLLBACK TO a; INSERT INTO t VALUES (5); COMMIT").await;
    assert_eq!(rows(s, "SELECT id FROM t ORDER BY id").await, ["1", "5"]);
    assert_eq!(state(s, "SAVEPOINT x").await, "25P01");
    tag(s, "BEGIN").await;
    assert_eq!(state(s, "ROLLBACK TO nosuch").await, "3B001");
    tag(s, "ROLLBACK").await;
}

#[tokio::test]
async fn ddl_is_rolled_back_with_the_rest() {
    let s = &mut session().await;
    tag(s, "BEGIN; CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    assert_eq!(rows(s, "SELECT * FROM t").await, ["1"]);
    tag(s, "ROLLBACK").await;
    assert_eq!(state(s, "SELECT * FROM t").await, "42P01");
    tag(s, "BEGIN; CREATE TABLE t (id bigint PRIMARY KEY, v bigint); INSERT INTO t VALUES (7, 7); CREATE INDEX t_v ON t (v); COMMIT").await;
    assert_eq!(rows(s, "SELECT id FROM t WHERE v = 7").await, ["7"]);
    tag(s, "BEGIN; DROP TABLE t").await;
    assert_eq!(state(s, "SELECT * FROM t").await, "42P01");
    tag(s, "ROLLBACK").await;
    assert_eq!(rows(s, "SELECT * FROM t").await, ["7|7"]);
}

#[tokio::test]
async fn a_savepoint_goes_back_over_ddl_too() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await;
    tag(s, "BEGIN; SAVEPOINT a; DROP TABLE t; CREATE TABLE u (id bigint PRIMARY KEY); ROLLBACK TO a").await;
    assert_eq!(rows(s, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
    tag(s, "INSERT INTO t VALUES (3); COMMIT").await;
    // A drop that was taken back clears nothing.
    assert_eq!(rows(s, "SELECT id FROM t ORDER BY id").await, ["1", "2", "3"]);
    assert_eq!(state(s, "SELECT * FROM u").await, "42P01");
    tag(s, "BEGIN; SAVEPOINT a; CREATE TABLE u (id bigint PRIMARY KEY); ROLLBACK TO a").await;
    assert_eq!(state(s, "INSERT INTO u VALUES (1)").await, "42P01", "what was taken back is not written to");
    tag(s, "ROLLBACK").await;
}

#[tokio::test]
async fn many_small_commits_conflict_with_nobody() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); INSERT INTO t VALUES (1, 0)").await;
    // More than a table may have live segments: they are merged on the way.
    for _ in 0..40 {
        tag(s, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 1; COMMIT").await;
    }
    assert_eq!(rows(s, "SELECT n FROM t").await, ["40"]);
    for _ in 0..20 {
        tag(s, "BEGIN; CREATE TABLE u (id bigint PRIMARY KEY); ROLLBACK; CREATE TABLE u (id bigint PRIMARY KEY); DROP TABLE u").await;
    }
}

#[tokio::test]
async fn a_cancelled_statement_fails_its_transaction_only() {
    let s = &mut session().await;
    s.cancelled();
    assert_eq!(s.status(), TransactionStatus::Idle);
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)").await;
    s.cancelled();
    assert_eq!(s.status(), TransactionStatus::Failed);
    tag(s, "ROLLBACK").await;
    assert_eq!(rows(s, "SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn a_transaction_that_only_reads_writes_nothing() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    for begin in
        ["BEGIN READ ONLY", "BEGIN; SET TRANSACTION READ ONLY", "SET default_transaction_read_only = on; BEGIN"]
    {
        tag(s, begin).await;
        assert_eq!(rows(s, "SELECT id FROM t").await, ["1"]);
        for text in ["INSERT INTO t VALUES (2)", "DROP TABLE t", "UPDATE t SET id = 3", "TRUNCATE t"] {
            tag(s, "SAVEPOINT a").await;
            assert_eq!(state(s, text).await, "25006", "{begin}: {text}");
            tag(s, "ROLLBACK TO a").await;
        }
        tag(s, "ROLLBACK").await;
    }
    // Alone, too; and a transaction may say otherwise.
    assert_eq!(state(s, "DELETE FROM t").await, "25006");
    tag(s, "BEGIN READ WRITE; INSERT INTO t VALUES (2); COMMIT; SET default_transaction_read_only = off").await;
    assert_eq!(rows(s, "SELECT count(*) FROM t").await, ["2"]);
    tag(s, "BEGIN; INSERT INTO t VALUES (3); COMMIT").await;
}
