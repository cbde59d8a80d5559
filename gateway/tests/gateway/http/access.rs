//! Who may come in: passwords, hosts, origins, sizes, and strangers in numbers.

use super::support::{Answer, PASSWORD, basic, options, refused, start};
use fluence_gateway::http::HttpOptions;
use fluence_gateway::server::{ServerError, TlsFiles, Users};
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[tokio::test]
async fn the_right_password_opens_and_nothing_else_does() {
    let server = start(options()).await;
    assert_eq!(server.rows("SELECT 1").await, json!([[1]]));
    let body = b"{\"sql\": \"SELECT 1\"}";
    let kind = "Content-Type: application/json";
    for who in [
        String::new(),
        basic("ada", ""),
        basic("ada", "Analytical engine"),
        basic("eve", PASSWORD),
        "Authorization: Basic".to_owned(),
        "Authorization: Basic !!!".to_owned(),
        "Authorization: Basic YWRh".to_owned(),
        "Authorization: Basic /////w==".to_owned(),
        "Authorization: Bearer x.y".to_owned(),
        format!("Authorization: Digest {PASSWORD}"),
    ] {
        for (method, path) in [
            ("POST", "/v1/query"),
            ("POST", "/v1/sessions"),
            ("POST", "/v1/copy/t"),
            ("GET", "/v1/tables"),
            ("GET", "/v1/nosuch"),
        ] {
            let answer = server.send(method, path, &[&who, kind], body).await;
            assert_eq!((answer.status, answer.state().as_str()), (401, "28P01"), "{who} {path}");
            assert!(answer.field("www-authenticate").starts_with("Basic"));
            assert!(!answer.text().contains(PASSWORD));
        }
    }
    // A password in the address is none.
    assert_eq!(server.send("POST", &format!("/v1/query?user=ada&password={}", "x"), &[kind], body).await.status, 401);
    server.stop().await;
}

#[tokio::test]
async fn other_names_and_other_pages_are_refused() {
    let server = start(options()).await;
    let port = server.address.port();
    let ask = async |fields: &[&str]| server.ada("GET", "/v1/tables", fields, b"").await.status;
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]".to_owned(), "LOCALHOST".to_owned()] {
        assert_eq!(ask(&[&format!("Host: {host}")]).await, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.1", "0.0.0.0"] {
        assert_eq!(ask(&[&format!("Host: {host}")]).await, 421, "{host}");
        assert_eq!(server.send("GET", "/docs/", &[&format!("Host: {host}")], b"").await.status, 421, "{host}");
    }
    for host in ["", "a b", "ada:x@localhost"] {
        assert_eq!(ask(&[&format!("Host: {host}")]).await, 400, "{host:?}");
    }
    assert_eq!(ask(&["Host: localhost", "Host: localhost"]).await, 400);
    let absolute = server.ada("GET", "http://evil.example/v1/tables", &["Host: localhost"], b"").await;
    assert_eq!(absolute.status, 400);
    assert_eq!(ask(&[&format!("Origin: http://{}", server.address)]).await, 200);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", ""] {
        assert_eq!(ask(&[&format!("Origin: {origin}")]).await, 403, "{origin:?}");
    }
    // No page of another origin is told that it may.
    let preflight = ["Origin: http://evil.example", "Access-Control-Request-Method: POST"];
    let answer = server.send("OPTIONS", "/v1/query", &preflight, b"").await;
    assert_eq!(answer.status, 403);
    assert!(!answer.fields.iter().any(|(name, _)| name.starts_with("access-control")), "{answer:?}");
    server.stop().await;
    let named = start(HttpOptions { hosts: vec!["db.example".to_owned()], ..options() }).await;
    assert_eq!(named.ada("GET", "/v1/tables", &["Host: db.example:8433"], b"").await.status, 200);
    assert_eq!(named.ada("GET", "/v1/tables", &["Host: www.db.example"], b"").await.status, 421);
    named.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let mut options = options();
    options.body_bytes_max = 1000;
    options.upload_bytes_max = 2000;
    let server = start(options).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY)", json!([])).await;
    let long = format!("{{\"sql\": \"SELECT 1 -- {}\"}}", "x".repeat(1000));
    let kind = "Content-Type: application/json";
    assert_eq!(server.ada("POST", "/v1/query", &[kind], long.as_bytes()).await.status, 413);
    let who = basic("ada", PASSWORD);
    let chunked = |kind: &str, path: &str, body: &str| {
        let head = server.request("POST", path, &[&who, kind, "Transfer-Encoding: chunked"], b"");
        [head.as_slice(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()].concat()
    };
    assert_eq!(Answer::read(&server.raw(&chunked(kind, "/v1/query", &long)).await).status, 413);
    let rows: String = (1..1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(server.ada("POST", "/v1/copy/t", &["Content-Type: text/csv"], rows.as_bytes()).await.status, 413);
    assert_eq!(Answer::read(&server.raw(&chunked("Content-Type: text/csv", "/v1/copy/t", &rows)).await).status, 413);
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[0]]));
    let head = format!("X: {}", "x".repeat(20_000));
    assert_eq!(server.ada("GET", "/v1/tables", &[&head], b"").await.status, 431);
    let many: Vec<String> = (0..100).map(|n| format!("X{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(server.ada("GET", "/v1/tables", &many, b"").await.status, 431);
    assert_eq!(server.rows("SELECT 1").await, json!([[1]]));
    server.stop().await;
}

#[tokio::test]
async fn a_head_or_a_body_that_does_not_come_ends_its_connection() {
    let mut options = options();
    options.head_timeout = std::time::Duration::from_millis(20);
    options.body_timeout = std::time::Duration::from_millis(20);
    let server = start(options).await;
    // Nothing, and half a head: closed without a word, or with one.
    for bytes in [b"".as_slice(), b"GET /v1/health HTTP/1.1\r\nHost: loc"] {
        let said = server.raw(bytes).await;
        assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    }
    let who = basic("ada", PASSWORD);
    for (path, kind) in [("/v1/query", "Content-Type: application/json"), ("/v1/copy/t", "Content-Type: text/csv")] {
        server.query("CREATE TABLE t (id bigint PRIMARY KEY)", json!([])).await;
        let half = server.request("POST", path, &[&who, kind, "Content-Length: 100"], b"");
        assert_eq!(Answer::read(&server.raw(&half).await).status, 408, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn garbage_and_strangers_in_numbers_do_no_harm() {
    let mut options = options();
    options.connections_max = 8;
    let server = start(options).await;
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"\0\0\0\x08\x04\xd2\x16\x2f\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\xff\xff\xff\xff\xff\xff\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let said = server.raw(garbage).await;
        assert!(!said.starts_with(b"HTTP/1.1 200"), "{garbage:?}: {said:?}");
    }
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(server.socket().await);
        tokio::task::yield_now().await;
    }
    assert_eq!(server.rows("SELECT 1").await, json!([[1]]));
    let mut rest = Vec::new();
    let _closed_or_reset = strangers[0].read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "the oldest had to go");
    drop(strangers);
    server.stop().await;
}

#[tokio::test]
async fn more_requests_than_there_is_room_for_are_told_so() {
    let server = start(HttpOptions { requests_max: 1, ..options() }).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY)", json!([])).await;
    let who = basic("ada", PASSWORD);
    let mut first = server.socket().await;
    let upload = server.request("POST", "/v1/copy/t", &[&who, "Content-Type: text/csv", "Content-Length: 4"], b"");
    first.write_all(&upload).await.unwrap();
    first.write_all(b"1\n").await.unwrap();
    // The server has it when it has no room for another.
    let busy = loop {
        let answer = server.query("SELECT 1", json!([])).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((busy.status, busy.state().as_str(), busy.field("retry-after")), (503, "53300", "1"));
    assert_eq!(server.send("GET", "/v1/health", &[], b"").await.status, 200);
    first.write_all(b"2\n").await.unwrap();
    let mut said = Vec::new();
    first.read_to_end(&mut said).await.unwrap();
    assert_eq!(Answer::read(&said).json()["command"], "COPY 2");
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[2]]));
    server.stop().await;
}

#[tokio::test]
async fn does_not_start_where_it_would_be_open() {
    let trusting = HttpOptions::new(Users::trust_on_loopback());
    assert!(matches!(refused("127.0.0.1:0", trusting).await, ServerError::TrustOverHttp));
    assert!(matches!(refused("0.0.0.0:0", options()).await, ServerError::NoCertificate));
    let missing = TlsFiles { certificate: "/nowhere/c.pem".into(), key: "/nowhere/k.pem".into() };
    let options = HttpOptions { tls: Some(missing), ..options() };
    assert!(matches!(refused("127.0.0.1:0", options).await, ServerError::Tls { .. }));
}

#[tokio::test]
async fn with_a_certificate_nothing_goes_unencrypted() {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
    std::fs::write(&files.certificate, pair.cert.pem()).unwrap();
    std::fs::write(&files.key, pair.key_pair.serialize_pem()).unwrap();
    let server = start(HttpOptions { tls: Some(files), allow_plaintext: true, ..options() }).await;
    let plain = server.raw(&server.request("GET", "/v1/health", &[], b"")).await;
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, server.socket().await).await.unwrap();
    let request = server.request("GET", "/v1/tables", &[&basic("ada", PASSWORD)], b"");
    stream.write_all(&request).await.unwrap();
    let mut said = Vec::new();
    let _closed_without_goodbye = stream.read_to_end(&mut said).await;
    assert_eq!(Answer::read(&said).json(), json!({"tables": []}));
    server.stop().await;
}
