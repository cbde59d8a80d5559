//! Sessions: transactions over several requests, who may use them, and how they end.

use super::support::{PASSWORD, basic, options, start};
use fluence_gateway::http::HttpOptions;
use fluence_gateway::server::Users;
use serde_json::json;
use std::time::Duration;
use zeroize::Zeroizing;

#[tokio::test]
async fn a_transaction_is_seen_by_others_once_it_is_committed() {
    let server = start(options()).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY)", json!([])).await;
    let session = server.open().await;
    assert_eq!(server.query_in(&session, "BEGIN").await.json()["transaction"], "open");
    server.query_in(&session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(server.query_in(&session, "SELECT count(*) FROM t").await.json()["rows"], json!([[1]]));
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[0]]));
    assert_eq!(server.query_in(&session, "COMMIT").await.json()["transaction"], "idle");
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[1]]));
    // A statement that fails breaks it, until it is rolled back.
    server.query_in(&session, "BEGIN").await;
    server.query_in(&session, "INSERT INTO t VALUES (2)").await;
    assert_eq!(server.query_in(&session, "INSERT INTO t VALUES (1)").await.state(), "23505");
    let broken = server.query_in(&session, "SELECT 1").await;
    assert_eq!((broken.status, broken.state().as_str()), (409, "25P02"));
    let said = server.query_in(&session, "COMMIT").await.json();
    assert_eq!((&said["command"], &said["transaction"]), (&json!("ROLLBACK"), &json!("idle")));
    // Closing one rolls back.
    server.query_in(&session, "BEGIN").await;
    server.query_in(&session, "INSERT INTO t VALUES (3)").await;
    let path = format!("/v1/sessions/{}", session.id);
    assert_eq!(server.send("DELETE", &path, &[&session.bearer], b"").await.status, 204);
    assert_eq!(server.query_in(&session, "COMMIT").await.status, 401);
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[1]]));
    server.stop().await;
}

#[tokio::test]
async fn of_two_that_change_one_row_the_second_is_told_40001() {
    let server = start(options()).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY, n bigint)", json!([])).await;
    server.query("INSERT INTO t VALUES (1, 0)", json!([])).await;
    let (a, b) = (server.open().await, server.open().await);
    for session in [&a, &b] {
        server.query_in(session, "BEGIN").await;
        assert_eq!(server.query_in(session, "UPDATE t SET n = n + 1 WHERE id = 1").await.status, 200);
    }
    assert_eq!(server.query_in(&a, "COMMIT").await.status, 200);
    let refused = server.query_in(&b, "COMMIT").await;
    assert_eq!((refused.status, refused.state().as_str()), (409, "40001"), "{}", refused.text());
    assert_eq!(server.query_in(&b, "SELECT n FROM t").await.json()["rows"], json!([[1]]));
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_for_its_session_and_a_session_for_its_user() {
    let users = || {
        let users = Users::scram().with_password("ada", &Zeroizing::new(PASSWORD.to_owned()));
        users.with_password("bob", &Zeroizing::new("b".to_owned()))
    };
    let server = start(HttpOptions::new(users())).await;
    let (session, other) = (server.open().await, server.open().await);
    let body = b"{\"sql\": \"SELECT 1\"}";
    let kind = "Content-Type: application/json";
    let at = |id: &str| format!("/v1/sessions/{id}/query");
    assert_eq!(server.send("POST", &at(&session.id), &[&basic("ada", PASSWORD), kind], body).await.status, 200);
    assert_eq!(server.send("POST", &at(&session.id), &[&session.bearer, kind], body).await.status, 200);
    for (path, who, status) in [
        (at(&other.id), session.bearer.clone(), 403),
        ("/v1/query".to_owned(), session.bearer.clone(), 403),
        ("/v1/sessions".to_owned(), session.bearer.clone(), 403),
        (at(&session.id), basic("bob", "b"), 404),
        (at("nosuch"), basic("ada", PASSWORD), 404),
        (at(&session.id), session.bearer.replace(&session.id, &other.id), 401),
    ] {
        let answer = server.send("POST", &path, &[&who, kind], body).await;
        assert_eq!(answer.status, status, "{path}");
    }
    assert_eq!(server.send("GET", "/v1/tables", &[&session.bearer], b"").await.status, 403);
    server.stop().await;
}

#[tokio::test]
async fn sessions_are_counted_and_idle_ones_end() {
    let server = start(HttpOptions { sessions_max: 2, ..options() }).await;
    let first = server.open().await;
    let _second = server.open().await;
    let full = server.ada("POST", "/v1/sessions", &[], b"").await;
    assert_eq!((full.status, full.state().as_str()), (503, "53300"));
    server.send("DELETE", &format!("/v1/sessions/{}", first.id), &[&first.bearer], b"").await;
    server.open().await;
    server.stop().await;
    // An idle one makes room by itself.
    let server = start(HttpOptions { sessions_max: 1, session_idle_max: Duration::from_millis(1), ..options() }).await;
    let session = server.open().await;
    server.query_in(&session, "BEGIN").await;
    while server.ada("POST", "/v1/sessions", &[], b"").await.status != 201 {}
    assert_eq!(server.query_in(&session, "SELECT 1").await.status, 401);
    server.stop().await;
}

#[tokio::test]
async fn settings_and_prepared_statements_stay_in_a_session() {
    let server = start(options()).await;
    let session = server.open().await;
    server.query_in(&session, "PREPARE p AS SELECT $1::bigint + 1").await;
    assert_eq!(server.query_in(&session, "EXECUTE p(1)").await.json()["rows"], json!([[2]]));
    assert_ne!(server.query("EXECUTE p(1)", json!([])).await.status, 200);
    server.query_in(&session, "SET statement_timeout = 1").await;
    let late = server.query_in(&session, "SELECT count(*) FROM generate_series(1, 1000000000000)").await;
    assert_eq!((late.status, late.state().as_str()), (504, "57014"));
    server.query_in(&session, "RESET statement_timeout").await;
    server.query_in(&session, "SET fluence.notices = on").await;
    server.query_in(&session, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    let said = server.query_in(&session, "SELECT * FROM t").await.json();
    assert!(said["notices"][0]["message"].as_str().unwrap().starts_with("verified at height"), "{said}");
    server.stop().await;
}
