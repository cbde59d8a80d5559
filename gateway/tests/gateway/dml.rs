//! INSERT, UPDATE, DELETE, COPY: what is written, what is given back, what is refused.

use crate::real::{rows, run, say, session, state, tag};
use fluence_gateway::SqlSession;

async fn with_rows() -> SqlSession {
    let mut s = session().await;
    tag(&mut s, "CREATE TABLE t (id bigint PRIMARY KEY, name text, n bigint CHECK (n <> 13))").await;
    assert_eq!(tag(&mut s, "INSERT INTO t VALUES (1, 'a', 10), (2, 'b', NULL), (3, NULL, 30)").await, "INSERT 0 3");
    s
}

#[tokio::test]
async fn rows_are_inserted_from_values_and_queries() {
    let s = &mut with_rows().await;
    assert_eq!(tag(s, "INSERT INTO t (n, id) SELECT n + 1, id + 10 FROM t WHERE n IS NOT NULL").await, "INSERT 0 2");
    assert_eq!(rows(s, "SELECT * FROM t WHERE id > 10 ORDER BY id").await, ["11|NULL|11", "13|NULL|31"]);
    assert_eq!(rows(s, "INSERT INTO t VALUES (20, 'x', 1) RETURNING id, n * 2 AS m, name").await, ["20|2|x"]);
    assert_eq!(rows(s, "INSERT INTO t VALUES (21, '', 1) RETURNING *").await, ["21||1"]);
    assert_eq!(tag(s, "INSERT INTO t SELECT * FROM t WHERE false").await, "INSERT 0 0");
    for (text, code) in [
        ("INSERT INTO t VALUES (1, 'again', 1)", "23505"),
        ("INSERT INTO t VALUES (30, 'a', 1), (30, 'b', 1)", "23505"),
        ("INSERT INTO t VALUES (NULL, 'a', 1)", "23502"),
        ("INSERT INTO t (name) VALUES ('no key')", "23502"),
        ("INSERT INTO t VALUES (31, 'a', 13)", "23514"),
        ("INSERT INTO t VALUES (31, 'a', 1, 2)", "42601"),
        ("INSERT INTO t (id, id) VALUES (1, 2)", "42701"),
        ("INSERT INTO t (id, nosuch) VALUES (31, 2)", "42703"),
        ("INSERT INTO t VALUES ('x', 'a', 1)", "22P02"),
        ("INSERT INTO nosuch VALUES (1)", "42P01"),
    ] {
        assert_eq!(state(s, text).await, code, "{text}");
    }
    assert_eq!(rows(s, "SELECT count(*) FROM t").await, ["7"]);
}

#[tokio::test]
async fn update_and_delete_pick_what_where_says() {
    let s = &mut with_rows().await;
    assert_eq!(
        rows(s, "UPDATE t SET n = coalesce(n, 0) + 1, name = upper(name) WHERE id <= 2 RETURNING id, name, n").await,
        ["1|A|11", "2|B|1"]
    );
    assert_eq!(tag(s, "UPDATE t SET n = 5 WHERE false").await, "UPDATE 0");
    assert_eq!(tag(s, "UPDATE t SET id = id + 1").await, "UPDATE 3", "keys move past each other");
    assert_eq!(rows(s, "SELECT id FROM t ORDER BY id").await, ["2", "3", "4"]);
    assert_eq!(state(s, "UPDATE t SET id = 2 WHERE id = 3").await, "23505");
    assert_eq!(state(s, "UPDATE t SET id = NULL WHERE id = 3").await, "23502");
    assert_eq!(state(s, "UPDATE t SET n = 13").await, "23514");
    assert_eq!(state(s, "UPDATE t SET n = 1, n = 2").await, "42601");
    tag(s, "CREATE TABLE gone (id bigint PRIMARY KEY); INSERT INTO gone VALUES (2), (9)").await;
    // What DataFusion's own hook would make of it: everything deleted.
    assert_eq!(tag(s, "DELETE FROM t WHERE id IN (SELECT id FROM gone)").await, "DELETE 1");
    assert_eq!(rows(s, "SELECT id FROM t ORDER BY id").await, ["3", "4"]);
    assert_eq!(tag(s, "DELETE FROM t WHERE id IN (SELECT id FROM gone WHERE false)").await, "DELETE 0");
    assert_eq!(tag(s, "DELETE FROM t WHERE NULL").await, "DELETE 0");
    assert_eq!(tag(s, "UPDATE t SET n = g.id * 100 FROM gone AS g WHERE g.id = t.id + 5").await, "UPDATE 1");
    assert_eq!(rows(s, "SELECT n FROM t WHERE id = 4").await, ["900"]);
    assert_eq!(rows(s, "DELETE FROM t USING gone WHERE gone.id > t.id RETURNING t.id").await.len(), 2);
    assert_eq!(tag(s, "TRUNCATE gone").await, "TRUNCATE TABLE");
    assert_eq!(rows(s, "SELECT count(*) FROM gone").await, ["0"]);
}

#[tokio::test]
async fn a_conflict_is_let_be_or_settled() {
    let s = &mut with_rows().await;
    assert_eq!(
        tag(s, "INSERT INTO t VALUES (1, 'x', 1), (4, 'd', 4), (4, 'e', 5) ON CONFLICT DO NOTHING").await,
        "INSERT 0 1"
    );
    assert_eq!(rows(s, "SELECT name FROM t WHERE id IN (1, 4) ORDER BY id").await, ["a", "d"]);
    let text = "INSERT INTO t VALUES (1, 'x', 1), (5, 'f', 6) ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n, name = excluded.name";
    assert_eq!(tag(s, text).await, "INSERT 0 2");
    assert_eq!(rows(s, "SELECT * FROM t WHERE id IN (1, 5) ORDER BY id").await, ["1|x|11", "5|f|6"]);
    let text = "INSERT INTO t VALUES (1, 'y', 2) ON CONFLICT (id) DO UPDATE SET n = excluded.n WHERE t.n > 100";
    assert_eq!(tag(s, text).await, "INSERT 0 0");
    assert_eq!(
        state(s, "INSERT INTO t VALUES (1, 'y', 2), (1, 'z', 2) ON CONFLICT (id) DO UPDATE SET n = 0").await,
        "21000"
    );
    assert_eq!(state(s, "INSERT INTO t VALUES (1, 'y', 2) ON CONFLICT (n) DO NOTHING").await, "42P16");
}

#[tokio::test]
async fn tables_without_a_key_keep_equal_rows_apart() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE b (v text); INSERT INTO b VALUES ('x'), ('x'), ('y'); INSERT INTO b VALUES ('x')").await;
    assert_eq!(rows(s, "SELECT * FROM b ORDER BY v").await, ["x", "x", "x", "y"]);
    assert_eq!(tag(s, "UPDATE b SET v = 'z' WHERE v = 'x'").await, "UPDATE 3");
    assert_eq!(tag(s, "DELETE FROM b WHERE v = 'z'").await, "DELETE 3");
    assert_eq!(rows(s, "SELECT count(*), min(v) FROM b").await, ["1|y"]);
}

#[tokio::test]
async fn numbers_are_given_out_once() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE t (id serial PRIMARY KEY, v text DEFAULT 'none', at timestamptz DEFAULT now())").await;
    assert_eq!(rows(s, "INSERT INTO t (v) VALUES ('a'), (DEFAULT) RETURNING id, v").await, ["1|a", "2|none"]);
    assert_eq!(rows(s, "INSERT INTO t (id, v) VALUES (DEFAULT, 'c') RETURNING id").await, ["3"]);
    assert_eq!(rows(s, "SELECT count(*) FROM t WHERE at IS NULL").await, ["0"]);
}

#[tokio::test]
async fn copy_takes_and_gives_rows() {
    let s = &mut with_rows().await;
    assert_eq!(run(s, "COPY t FROM STDIN").await.unwrap().tag, "COPY IN");
    for piece in ["4\td\t4", "0\n5\t\\N\t\\N", "\n6\ta\\tb\t1\n"] {
        s.copy_data(piece.as_bytes()).await.unwrap();
    }
    assert_eq!(say(s.copy_done().await.unwrap()).await.unwrap().tag, "COPY 3");
    assert_eq!(
        rows(s, "COPY (SELECT * FROM t WHERE id > 3 ORDER BY id) TO STDOUT").await,
        ["4\td\t40", "5\t\\N\t\\N", "6\ta\\tb\t1"]
    );
    run(s, "COPY t (n, id) FROM STDIN WITH (FORMAT csv, HEADER true)").await.unwrap();
    s.copy_data(b"n,id\n7,70\n").await.unwrap();
    s.copy_done().await.unwrap();
    assert_eq!(rows(s, "COPY t TO STDOUT WITH (FORMAT csv, HEADER)").await[0], "id,name,n");
    // Nothing of a COPY that fails is there.
    run(s, "COPY t FROM STDIN").await.unwrap();
    s.copy_data(b"80\tx\t1\n81\tx\tnone\n").await.unwrap();
    assert_eq!(s.copy_done().await.unwrap_err().state.code(), "22P02");
    run(s, "COPY t FROM STDIN").await.unwrap();
    s.copy_data(b"80\tx\t1\n").await.unwrap();
    s.copy_fail("enough").await;
    assert_eq!(rows(s, "SELECT count(*) FROM t WHERE id >= 80").await, ["0"]);
    assert_eq!(state(s, "COPY t FROM '/etc/passwd'").await, "0A000");
}

#[tokio::test]
async fn bytes_and_times_keep_their_values() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY, b bytea, d date, at timestamptz, ok boolean, f double precision, x numeric(10,3))").await;
    tag(s, r"INSERT INTO t VALUES (1, '\x00ff', '2013-01-31', '2013-01-31 12:00:00.5+00', true, 0.1, 12.345)").await;
    let text = "SELECT encode(b, 'hex'), d, at, ok, f, x FROM t";
    assert_eq!(rows(s, text).await, ["00ff|2013-01-31|2013-01-31T12:00:00.500Z|true|0.1|12.345"]);
    assert_eq!(rows(s, "SELECT id FROM t WHERE at >= '2013-01-31' AND d = '2013-01-31'").await, ["1"]);
    assert_eq!(state(s, r"INSERT INTO t (id, b) VALUES (2, '\xzz')").await, "22P02");
}
