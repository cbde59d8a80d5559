//! More clients and strangers than the server has room for.

use super::support::{connect, read_to_close, start, state, trusting};

#[tokio::test]
async fn a_client_too_many_is_told_and_comes_in_when_another_left() {
    let mut options = trusting();
    options.connections_max = 2;
    let server = start(options).await;
    let (first, second) = (server.client().await, server.client().await);
    let third = connect(&server.config()).await;
    assert_eq!(state(third), "53300");
    assert_eq!(state(first.simple_query("SELECT 1").await), "00000");
    drop(second);
    // The server learns of it when the socket closes; until then the house is full.
    loop {
        match connect(&server.config()).await {
            Ok(client) => break assert_eq!(state(client.simple_query("SELECT 1").await), "00000"),
            Err(error) => assert_eq!(state::<()>(Err(error)), "53300"),
        }
    }
    drop(first);
    server.stop().await;
}

#[tokio::test]
async fn idle_strangers_keep_nobody_out() {
    let mut options = trusting();
    options.handshakes_max = 8;
    let server = start(options).await;
    let before = server.client().await;
    // Each takes two descriptors of this process. One after the other: a burst would wait in the system's queue, unseen by the server.
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(server.socket().await);
        tokio::task::yield_now().await;
    }
    let after = server.client().await;
    assert_eq!(state(before.simple_query("SELECT 1").await), "00000");
    assert_eq!(state(after.simple_query("SELECT 1").await), "00000");
    // The oldest had to go.
    assert_eq!(read_to_close(&mut strangers[0]).await, b"");
    drop((before, after));
    server.stop().await;
    for mut stranger in strangers {
        assert_eq!(read_to_close(&mut stranger).await, b"");
    }
}

#[tokio::test]
async fn cancel_requests_are_heard_where_the_house_is_full() {
    let mut options = trusting();
    options.connections_max = 1;
    let server = start(options).await;
    let mut raw = server.raw().await;
    raw.query("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await;
    raw.until_ready().await;
    raw.query("COPY t FROM STDIN").await;
    while raw.receive().await.0 != b'G' {}
    server.cancel(raw.pid, &raw.key.clone()).await;
    assert_eq!(raw.error().await, "57014");
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_server_is_told_to_idle_clients() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    server.stop().await;
    assert_eq!(raw.error().await, "57P01");
    assert_eq!(read_to_close(&mut raw.stream).await, b"");
}
