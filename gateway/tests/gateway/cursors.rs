//! DECLARE, FETCH, CLOSE; and settings that belong to a transaction.

use crate::real::{real, rows, state, tag};
use fluence_gateway::session::GatewayOptions;

#[tokio::test]
async fn a_cursor_goes_as_far_as_it_is_asked_to() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    tag(s, "CREATE TABLE t (id integer PRIMARY KEY)").await;
    tag(s, "INSERT INTO t SELECT * FROM generate_series(1, 5)").await;
    assert_eq!(state(s, "DECLARE c CURSOR FOR SELECT id FROM t").await, "25P01");
    tag(s, "BEGIN; DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id").await;
    // What is written after DECLARE is not seen by it.
    tag(s, "DELETE FROM t WHERE id = 5").await;
    assert_eq!(rows(s, "FETCH 2 FROM c").await, ["1", "2"]);
    assert_eq!(tag(s, "FETCH NEXT FROM c").await, "FETCH 1");
    assert_eq!(rows(s, "FETCH ALL FROM c").await, ["4", "5"]);
    assert_eq!(tag(s, "FETCH 1 FROM c").await, "FETCH 0");
    tag(s, "SAVEPOINT a").await;
    assert_eq!(state(s, "FETCH BACKWARD 1 FROM c").await, "55000");
    tag(s, "ROLLBACK TO a; CLOSE c; SAVEPOINT b").await;
    assert_eq!(state(s, "FETCH 1 FROM c").await, "34000");
    tag(s, "ROLLBACK").await;

    tag(s, "BEGIN; DECLARE s SCROLL CURSOR FOR SELECT id FROM t ORDER BY id").await;
    for (fetch, wanted) in [
        ("FETCH LAST FROM s", "5"),
        ("FETCH PRIOR FROM s", "4"),
        ("FETCH BACKWARD 2 FROM s", "3 2"),
        ("FETCH ABSOLUTE 4 FROM s", "4"),
        ("FETCH ABSOLUTE 1 FROM s", "1"),
        ("FETCH 0 FROM s", "1"),
        ("FETCH BACKWARD ALL FROM s", ""),
        ("FETCH FORWARD 2 FROM s", "1 2"),
        ("FETCH ALL FROM s", "3 4 5"),
        ("FETCH BACKWARD ALL FROM s", "5 4 3 2 1"),
        ("FETCH FIRST FROM s", "1"),
        ("MOVE 2 FROM s", ""),
        ("FETCH NEXT FROM s", "4"),
    ] {
        assert_eq!(rows(s, fetch).await.join(" "), wanted, "{fetch}");
    }
    tag(s, "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id DESC; COMMIT").await;
    assert_eq!(state(s, "FETCH 1 FROM s").await, "34000");
    assert_eq!(rows(s, "FETCH 2 FROM h").await, ["5", "4"]);
    tag(s, "CLOSE ALL").await;
}

#[tokio::test]
async fn a_setting_goes_with_its_transaction() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    let shown = "SELECT current_setting('application_name')";
    tag(s, "SET application_name = 'one'; BEGIN; SET application_name = 'two'").await;
    assert_eq!(rows(s, shown).await, ["two"]);
    tag(s, "ROLLBACK").await;
    assert_eq!(rows(s, shown).await, ["one"]);
    tag(s, "BEGIN; SET LOCAL application_name = 'three'").await;
    assert_eq!(rows(s, shown).await, ["three"]);
    tag(s, "COMMIT").await;
    assert_eq!(rows(s, "SHOW application_name").await, ["one"]);
    tag(s, "RESET application_name").await;
    assert_eq!(rows(s, shown).await, [""]);
    assert_eq!(state(s, "SET statement_timeout = 'soon'").await, "22023");
    assert!(s.statement_timeout().is_none());
    tag(s, "SET statement_timeout = '2s'").await;
    assert_eq!(s.statement_timeout().unwrap().as_millis(), 2000);
}
