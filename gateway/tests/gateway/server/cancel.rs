//! Cancel requests with the right key and with others.

use super::support::{start, state, trusting};
use futures::TryStreamExt;
use tokio_postgres::NoTls;

#[tokio::test]
async fn the_right_key_stops_a_running_query_and_the_connection_goes_on() {
    let server = start(trusting()).await;
    let client = server.client().await;
    let rows =
        client.query_raw("SELECT value FROM generate_series(1, 1000000000000)", Vec::<i64>::new()).await.unwrap();
    let mut rows = std::pin::pin!(rows);
    // It runs: a row has come.
    assert!(rows.try_next().await.unwrap().is_some());
    client.cancel_token().cancel_query(NoTls).await.unwrap();
    let rest = async {
        while rows.try_next().await?.is_some() {}
        Ok::<_, tokio_postgres::Error>(())
    };
    assert_eq!(state(rest.await), "57014");
    assert_eq!(state(client.simple_query("SELECT 1").await), "00000");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_key_does_nothing() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    raw.query("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await;
    raw.until_ready().await;
    raw.query("COPY t FROM STDIN").await;
    while raw.receive().await.0 != b'G' {}
    let (pid, key) = (raw.pid, raw.key.clone());
    let mut wrong = key.clone();
    wrong[3] ^= 1;
    for (pid, key) in [(pid, wrong.as_slice()), (pid ^ 1, &key), (pid, &key[..3]), (pid, b""), (0, &[0; 4])] {
        server.cancel(pid, key).await;
    }
    raw.send(b'd', b"1\t10\n2\t20\n").await;
    raw.send(b'c', b"").await;
    let all = raw.until_ready().await;
    assert!(all.contains(&(b'C', b"COPY 2\0".to_vec())), "{all:?}");
    // The right one, but nothing runs: the next statement is not hit.
    server.cancel(pid, &key).await;
    raw.query("SELECT 1").await;
    assert_eq!(raw.answer().await, ("TDCZ".to_owned(), 'I'));
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn a_cancelled_statement_fails_its_transaction() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    raw.query("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await;
    raw.until_ready().await;
    raw.query("BEGIN").await;
    assert_eq!(raw.answer().await.1, 'T');
    raw.query("COPY t FROM STDIN").await;
    while raw.receive().await.0 != b'G' {}
    raw.send(b'd', b"1\t10\n").await;
    server.cancel(raw.pid, &raw.key.clone()).await;
    assert_eq!(raw.error().await, "57014");
    assert_eq!(raw.answer().await, ("Z".to_owned(), 'E'));
    // What the client still sends of the COPY is dropped.
    raw.send(b'd', b"2\t20\n").await;
    raw.send(b'c', b"").await;
    raw.query("ROLLBACK").await;
    assert_eq!(raw.answer().await, ("CZ".to_owned(), 'I'));
    raw.query("SELECT count(*) FROM t").await;
    let all = raw.until_ready().await;
    assert!(all.contains(&(b'D', b"\0\x01\0\0\0\x010".to_vec())), "no row is left: {all:?}");
    drop(raw);
    server.stop().await;
}
