//! Requests that are cut off: their statements stop, and nothing of them is there.

use super::support::{Opened, PASSWORD, Running, basic, options, start};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A table, and a session in a transaction.
async fn begun(server: &Running) -> Opened {
    server.query("CREATE TABLE t (id bigint PRIMARY KEY)", json!([])).await;
    let session = server.open().await;
    server.query_in(&session, "BEGIN").await;
    server.query_in(&session, "INSERT INTO t VALUES (1)").await;
    session
}

/// A request that was sent and is not answered to its end.
async fn half(server: &Running, session: &Opened, sql: &str, accept: &str) -> TcpStream {
    let path = format!("/v1/sessions/{}/query", session.id);
    let body = json!({ "sql": sql }).to_string();
    let request =
        server.request("POST", &path, &[&session.bearer, "Content-Type: application/json", accept], body.as_bytes());
    let mut socket = server.socket().await;
    socket.write_all(&request).await.unwrap();
    socket
}

/// Waits until a request is at work in the session.
async fn busy(server: &Running, session: &Opened) {
    while server.query_in(session, "SELECT 1").await.state() != "55006" {}
}

#[tokio::test]
async fn a_statement_stops_when_nobody_waits_for_it() {
    let server = start(options()).await;
    let session = begun(&server).await;
    // It would run for hours.
    let socket = half(&server, &session, "SELECT count(*) FROM generate_series(1, 1000000000000)", "").await;
    busy(&server, &session).await;
    let close = server.send("DELETE", &format!("/v1/sessions/{}", session.id), &[&session.bearer], b"").await;
    assert_eq!((close.status, close.state().as_str()), (409, "55006"));
    drop(socket);
    // The session is free, and its transaction is broken.
    assert_eq!(server.state_when_free(&session, "SELECT 1").await, "25P02");
    server.query_in(&session, "ROLLBACK").await;
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[0]]));
    server.stop().await;
}

#[tokio::test]
async fn rows_that_nobody_reads_are_not_made() {
    let server = start(options()).await;
    let session = begun(&server).await;
    let mut socket =
        half(&server, &session, "SELECT value FROM generate_series(1, 1000000000000)", "Accept: application/x-ndjson")
            .await;
    let mut some = vec![0; 100_000];
    socket.read_exact(&mut some).await.unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"));
    drop(socket);
    assert_eq!(server.state_when_free(&session, "SELECT 1").await, "25P02");
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_no_row() {
    let server = start(options()).await;
    let session = begun(&server).await;
    let fields = [&session.bearer, "Content-Type: text/csv", "Content-Length: 1000"];
    let request = server.request("POST", &format!("/v1/sessions/{}/copy/t", session.id), &fields, b"");
    let mut socket = server.socket().await;
    socket.write_all(&[request.as_slice(), b"2\n3\n"].concat()).await.unwrap();
    busy(&server, &session).await;
    drop(socket);
    assert_eq!(server.state_when_free(&session, "SELECT 1").await, "25P02");
    // By itself, too: neither a body that ends early nor a chunk without an end commits.
    for (field, body) in [("Content-Length: 1000", "2\n3\n"), ("Transfer-Encoding: chunked", "4\r\n2\n3\n\r\n")] {
        let request =
            server.request("POST", "/v1/copy/t", &[&basic("ada", PASSWORD), "Content-Type: text/csv", field], b"");
        let mut socket = server.socket().await;
        socket.write_all(&[request.as_slice(), body.as_bytes()].concat()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut said = Vec::new();
        let _closed_or_reset = socket.read_to_end(&mut said).await;
        assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    }
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[0]]));
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_server_ends_what_runs() {
    let mut options = options();
    options.shutdown_grace = std::time::Duration::from_millis(50);
    let server = start(options).await;
    let session = begun(&server).await;
    let mut socket = half(&server, &session, "SELECT count(*) FROM generate_series(1, 1000000000000)", "").await;
    busy(&server, &session).await;
    server.stop().await;
    let mut said = Vec::new();
    let _closed_or_reset = socket.read_to_end(&mut said).await;
    assert_eq!(said, b"");
}
