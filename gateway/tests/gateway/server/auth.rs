//! Passwords: the right one, wrong ones, and users that do not exist.

use super::support::{Raw, ada, connect, error_in, field, read_to_close, refused, start, state, trusting};
use fluence_gateway::server::{ServerError, ServerOptions};

#[tokio::test]
async fn the_right_password_opens_and_a_wrong_one_does_not() {
    let server = start(ServerOptions::new(ada())).await;
    let client = server.client().await;
    assert_eq!(state(client.simple_query("SELECT 1").await), "00000");
    for password in ["", "Analytical Engine", "analytical engine "] {
        let mut config = server.config();
        config.password(password);
        assert_eq!(state(connect(&config).await), "28P01", "{password:?}");
    }
    drop(client);
    server.stop().await;
}

/// Goes through the exchange with a proof that is none. Gives the types of the answers, the salt's length, and the error.
async fn knock(server: &super::support::Running, user: &str) -> (Vec<u8>, usize, String, String) {
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    raw.startup(0x0003_0000, &[("user", user)]).await;
    let mut tags = vec![raw.receive().await.0];
    let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let size = u32::try_from(first.len()).unwrap().to_be_bytes();
    raw.send(b'p', &[b"SCRAM-SHA-256\0".as_slice(), &size, first].concat()).await;
    let (tag, body) = raw.receive().await;
    tags.push(tag);
    let server_first = String::from_utf8(body[4..].to_vec()).unwrap();
    let part = |key: &str| server_first.split(',').find_map(|part| part.strip_prefix(key)).unwrap().to_owned();
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    raw.send(b'p', format!("c=biws,r={},p={proof}", part("r=")).as_bytes()).await;
    let (tag, body) = raw.receive().await;
    tags.push(tag);
    (tags, part("s=").len(), field(&body, b'C'), field(&body, b'M').replace(user, "?"))
}

#[tokio::test]
async fn a_user_that_does_not_exist_cannot_be_told_from_a_wrong_password() {
    let server = start(ServerOptions::new(ada())).await;
    let mut config = server.config();
    config.user("eve");
    assert_eq!(state(connect(&config).await), "28P01");
    let known = knock(&server, "ada").await;
    assert_eq!(known.2, "28P01");
    assert_eq!(known, knock(&server, "eve").await);
    server.stop().await;
}

#[tokio::test]
async fn a_query_before_the_password_is_refused() {
    let server = start(ServerOptions::new(ada())).await;
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    raw.startup(0x0003_0000, &[("user", "ada")]).await;
    raw.query("SELECT 1").await;
    assert_eq!(error_in(&read_to_close(&mut raw.stream).await), Some(("08P01".to_owned(), "FATAL".to_owned())));
    // Nor a mechanism that was not offered.
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    raw.startup(0x0003_0000, &[("user", "ada")]).await;
    raw.send(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\0").await;
    assert_eq!(error_in(&read_to_close(&mut raw.stream).await).unwrap().0, "08P01");
    server.stop().await;
}

#[tokio::test]
async fn trust_stays_on_loopback() {
    assert!(matches!(refused("0.0.0.0:0", trusting()).await, ServerError::TrustBeyondLoopback(_)));
}
