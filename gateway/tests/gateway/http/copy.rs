//! COPY by upload and by download: all rows, or none.

use super::support::{Answer, PASSWORD, basic, options, start};
use serde_json::json;

const CSV: &str = "Content-Type: text/csv";

#[tokio::test]
async fn rows_of_a_csv_are_there_all_at_once() {
    let server = start(options()).await;
    server.query("CREATE TABLE \"T a\" (id bigint PRIMARY KEY, \"Name\" text, d date)", json!([])).await;
    let csv = "id;Name\n1;\"a;\"\"b\"\"\n\"\n2;-\n";
    let path = "/v1/copy/T%20a?columns=id,Name&header=true&delimiter=%3B&null=-";
    let said = server.ada("POST", path, &[CSV], csv.as_bytes()).await;
    assert_eq!(said.status, 200, "{}", said.text());
    assert_eq!((&said.json()["command"], &said.json()["row_count"]), (&json!("COPY 2"), &json!(2)));
    let expected = json!([[1, "a;\"b\"\n", null], [2, null, null]]);
    assert_eq!(server.rows("SELECT * FROM \"T a\" ORDER BY id").await, expected);
    // In pieces, cut where it may be.
    let rows: String = (10..5000).map(|n| format!("{n},\"x\ny\",2013-05-01\n")).collect();
    let head =
        server.request("POST", "/v1/copy/T%20a", &[&basic("ada", PASSWORD), CSV, "Transfer-Encoding: chunked"], b"");
    let mut bytes = head;
    for piece in rows.as_bytes().chunks(777) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(Answer::read(&server.raw(&bytes).await).json()["command"], "COPY 4990");
    let body = json!({"sql": "COPY (SELECT id, \"Name\" FROM \"T a\" WHERE id < 3 ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)"});
    let out = server.ada("POST", "/v1/query", &["Content-Type: application/json"], body.to_string().as_bytes()).await;
    assert!(out.field("content-type").starts_with("text/csv"), "{out:?}");
    assert_eq!(out.text(), "id,Name\n1,\"a;\"\"b\"\"\n\"\n2,\n");
    server.stop().await;
}

#[tokio::test]
async fn a_row_that_is_none_leaves_no_row() {
    let server = start(options()).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY, v text NOT NULL)", json!([])).await;
    server.query("INSERT INTO t VALUES (1, 'a')", json!([])).await;
    for (path, body, status, state) in [
        ("/v1/copy/t", "2,b\nx,c\n", 422, "22P02"),
        ("/v1/copy/t", "2,b\n3\n", 422, "22P04"),
        ("/v1/copy/t", "2,b\n1,c\n", 409, "23505"),
        ("/v1/copy/t", "2,\n", 422, "23502"),
        ("/v1/copy/t?columns=id,nosuch", "2,b\n", 400, "42703"),
        ("/v1/copy/t?header=maybe", "2,b\n", 422, "22023"),
        ("/v1/copy/nosuch", "2,b\n", 400, "42P01"),
    ] {
        let answer = server.ada("POST", path, &[CSV], body.as_bytes()).await;
        assert_eq!((answer.status, answer.state().as_str()), (status, state), "{path} {body:?}: {}", answer.text());
    }
    assert_eq!(server.ada("POST", "/v1/copy/t", &["Content-Type: text/plain"], b"2,b\n").await.status, 415);
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[1]]));
    server.stop().await;
}

#[tokio::test]
async fn an_upload_is_part_of_its_sessions_transaction() {
    let server = start(options()).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY)", json!([])).await;
    let session = server.open().await;
    server.query_in(&session, "BEGIN").await;
    let path = format!("/v1/sessions/{}/copy/t", session.id);
    assert_eq!(server.send("POST", &path, &[&session.bearer, CSV], b"1\n2\n").await.json()["transaction"], "open");
    assert_eq!(server.query_in(&session, "SELECT count(*) FROM t").await.json()["rows"], json!([[2]]));
    assert_eq!(server.send("POST", &path, &[&session.bearer, CSV], b"x\n").await.state(), "22P02");
    assert_eq!(server.query_in(&session, "SELECT 1").await.state(), "25P02");
    server.query_in(&session, "ROLLBACK").await;
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[0]]));
    server.stop().await;
}
