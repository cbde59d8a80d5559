//! Simple and extended queries, transactions' status bytes, portals, COPY.

use super::support::{start, state, trusting};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};

#[tokio::test]
async fn statements_of_one_string_run_in_order_up_to_the_first_error() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    raw.query("SELECT 1; SELECT 2").await;
    assert_eq!(raw.answer().await, ("TDCTDCZ".to_owned(), 'I'));
    raw.query("SELECT 1; SELECT nothing_there; SELECT 3").await;
    assert_eq!(raw.answer().await, ("TDCEZ".to_owned(), 'I'));
    raw.query("").await;
    assert_eq!(raw.answer().await, ("IZ".to_owned(), 'I'));
    raw.query("SELECT $1").await;
    assert_eq!(raw.error().await, "42P02");
    raw.until_ready().await;
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn the_status_byte_follows_the_transaction() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    for (sql, status) in
        [("BEGIN", 'T'), ("SELECT 1", 'T'), ("SELECT nothing_there", 'E'), ("SELECT 1", 'E'), ("ROLLBACK", 'I')]
    {
        raw.query(sql).await;
        assert_eq!(raw.answer().await.1, status, "{sql}");
    }
    // An error that the session does not see fails it too: a portal that does not exist.
    raw.query("BEGIN").await;
    assert_eq!(raw.answer().await.1, 'T');
    raw.send(b'E', b"nowhere\0\0\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.error().await, "34000");
    assert_eq!(raw.answer().await.1, 'E');
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn parameters_and_results_go_in_binary() {
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, v DOUBLE PRECISION)").await.unwrap();
    let insert = client.prepare("INSERT INTO t (id, name, v) VALUES ($1, $2, $3)").await.unwrap();
    assert_eq!(client.execute(&insert, &[&1_i64, &"one", &1.5_f64]).await.unwrap(), 1);
    assert_eq!(client.execute(&insert, &[&2_i64, &None::<&str>, &None::<f64>]).await.unwrap(), 1);
    let rows = client.query("SELECT id, name, v FROM t WHERE id >= $1 ORDER BY id", &[&1_i64]).await.unwrap();
    let rows: Vec<(i64, Option<String>, Option<f64>)> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    assert_eq!(rows, [(1, Some("one".to_owned()), Some(1.5)), (2, None, None)]);
    // As many parameters as the statement has.
    let mut raw = server.raw().await;
    raw.send(b'P', b"\0SELECT 1\0\0\0").await;
    raw.send(b'B', b"\0\0\0\0\0\x01\0\0\0\x011\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.error().await, "08P01");
    drop((raw, client));
    server.stop().await;
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_portions() {
    let server = start(trusting()).await;
    let mut client = server.client().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT value FROM generate_series(1, 5) ORDER BY value", &[]).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(transaction.query_portal(&portal, 2).await.unwrap().len());
    }
    assert_eq!(sizes, [2, 2, 1, 0]);
    transaction.commit().await.unwrap();
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn names_are_given_once_and_end_with_close() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    raw.send(b'P', b"s\0SELECT 1\0\0\0").await;
    raw.send(b'P', b"s\0SELECT 2\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.error().await, "42P05");
    raw.until_ready().await;
    raw.send(b'C', b"Ss\0").await;
    raw.send(b'P', b"s\0SELECT 2\0\0\0").await;
    raw.send(b'D', b"Ss\0").await;
    raw.send(b'B', b"\0s\0\0\0\0\0\0\0").await;
    raw.send(b'E', b"\0\0\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.answer().await, ("31tT2DCZ".to_owned(), 'I'));
    raw.send(b'D', b"Pnowhere\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.error().await, "34000");
    raw.until_ready().await;
    raw.send(b'P', b"\0SELECT 1; SELECT 2\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.error().await, "42601");
    raw.until_ready().await;
    raw.send(b'P', b"\0\0\0\0").await;
    raw.send(b'B', b"\0\0\0\0\0\0\0\0").await;
    raw.send(b'E', b"\0\0\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.answer().await, ("12IZ".to_owned(), 'I'));
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn copy_goes_in_and_out() {
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    // Chunks need not end where rows do.
    for chunk in ["1\t1", "0\n2\t\\N", "\n"] {
        sink.send(Bytes::from_static(chunk.as_bytes())).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 2);
    let out: Vec<Bytes> = client.copy_out("COPY t TO STDOUT").await.unwrap().try_collect().await.unwrap();
    assert_eq!(out.concat(), b"1\t10\n2\t\\N\n");
    // A row that is none ends the COPY, not the connection.
    let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let _taken = sink.send(Bytes::from_static(b"x\ty\tz\n")).await;
    assert_ne!(state(sink.finish().await), "00000");
    assert_eq!(state(client.simple_query("SELECT 1").await), "00000");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn drivers_find_the_parameters_that_they_look_at() {
    let server = start(trusting()).await;
    let (client, connection) = server.config().connect(tokio_postgres::NoTls).await.unwrap();
    assert!(connection.parameter("server_version").is_some_and(|version| version.starts_with("15.0 (Fluence ")));
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        assert_eq!(connection.parameter(name), Some(value), "{name}");
    }
    drop((client, connection));
    server.stop().await;
}

#[tokio::test]
async fn a_pipeline_up_to_its_sync_is_one_transaction() {
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let mut raw = server.raw().await;
    let one = |sql: &str| {
        let mut messages = vec![(b'P', format!("\0{sql}\0\0\0").into_bytes())];
        messages.push((b'B', b"\0\0\0\0\0\0\0\0".to_vec()));
        messages.push((b'E', b"\0\0\0\0\0".to_vec()));
        messages
    };
    let mut all = one("INSERT INTO t VALUES (1)");
    all.extend(one("INSERT INTO t VALUES (2)"));
    all.extend(one("INSERT INTO t VALUES (1)"));
    all.push((b'S', Vec::new()));
    for (tag, body) in &all {
        raw.send(*tag, body).await;
    }
    assert_eq!(raw.answer().await, ("12C12C12EZ".to_owned(), 'I'));
    let count = |rows: Vec<tokio_postgres::Row>| rows[0].get::<_, i64>(0);
    assert_eq!(count(client.query("SELECT count(*) FROM t", &[]).await.unwrap()), 0);
    let mut all = one("INSERT INTO t VALUES (1)");
    all.extend(one("INSERT INTO t VALUES (2)"));
    all.push((b'S', Vec::new()));
    for (tag, body) in &all {
        raw.send(*tag, body).await;
    }
    assert_eq!(raw.answer().await, ("12C12CZ".to_owned(), 'I'));
    assert_eq!(count(client.query("SELECT count(*) FROM t", &[]).await.unwrap()), 2);
    drop((raw, client));
    server.stop().await;
}

#[tokio::test]
async fn copy_in_binary_goes_both_ways() {
    use futures::pin_mut;
    use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
    use tokio_postgres::types::Type;
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, d DATE, n BIGINT)").await.unwrap();
    let types = [Type::INT4, Type::TEXT, Type::INT8];
    let sink = client.copy_in("COPY t (id, name, n) FROM STDIN (FORMAT binary)").await.unwrap();
    let writer = BinaryCopyInWriter::new(sink, &types);
    pin_mut!(writer);
    for id in 0..1000_i32 {
        let name = (id % 3 != 0).then(|| format!("name {id}"));
        writer.as_mut().write(&[&id, &name, &i64::from(id)]).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 1000);
    let stream = client
        .copy_out("COPY (SELECT id, name, n FROM t WHERE id >= 998 ORDER BY id) TO STDOUT (FORMAT binary)")
        .await
        .unwrap();
    let rows: Vec<_> = BinaryCopyOutStream::new(stream, &types).try_collect().await.unwrap();
    let rows: Vec<(i32, Option<String>, i64)> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    assert_eq!(rows, [(998, Some("name 998".to_owned()), 998), (999, None, 999)]);
    // A tuple of another width is refused, and nothing of the COPY is there.
    let sink = client.copy_in("COPY t (id, name) FROM STDIN (FORMAT binary)").await.unwrap();
    let writer = BinaryCopyInWriter::new(sink, &types);
    pin_mut!(writer);
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&5000_i32, &"x", &1_i64];
    let _ = writer.as_mut().write(&row).await;
    let error = writer.finish().await.unwrap_err();
    assert_eq!(error.code().map(|c| c.code().to_owned()).as_deref(), Some("22P04"), "{error}");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_stopped_and_settings_are_told() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    raw.query("SET application_name = 'x'").await;
    assert_eq!(raw.answer().await, ("CSZ".to_owned(), 'I'));
    raw.query("SET statement_timeout = 1").await;
    assert_eq!(raw.answer().await, ("CZ".to_owned(), 'I'));
    raw.query("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b").await;
    assert_eq!(raw.error().await, "57014");
    raw.until_ready().await;
    drop(raw);
    server.stop().await;
}
