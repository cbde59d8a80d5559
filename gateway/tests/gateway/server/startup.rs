//! Garbage, oversized and odd messages, before and after a client is known.

use super::support::{Raw, error_in, read_to_close, start, state, trusting, write_packet};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn garbage_ends_its_connection_and_no_other() {
    let server = start(trusting()).await;
    let client = server.client().await;
    let mut rng = StdRng::seed_from_u64(5);
    let mut cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(),
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f".to_vec(),
        b"\0\0\0\x09\0\x03\0\0\xff".to_vec(),
    ];
    cases.extend((0..200).map(|_| {
        let mut bytes = vec![0; rng.gen_range(1..100)];
        rng.fill(bytes.as_mut_slice());
        // Half of them with a length that lets them in further.
        if bytes.len() > 8 && rng.gen_bool(0.5) {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes[..4].copy_from_slice(&length);
            bytes[4..8].copy_from_slice(&[0, 3, 0, 0]);
        }
        bytes
    }));
    for case in cases {
        let mut stream = server.socket().await;
        // The server may have closed already.
        let _written = stream.write_all(&case).await;
        let _shut = stream.shutdown().await;
        read_to_close(&mut stream).await;
    }
    assert_eq!(state(client.simple_query("SELECT 1").await), "00000");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn random_messages_of_a_known_client_end_at_most_its_connection() {
    let server = start(trusting()).await;
    let client = server.client().await;
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut raw = server.raw().await;
        for _ in 0..8 {
            let tag = *b"QPBDCEHSdcfFp".get(rng.gen_range(0..13)).unwrap();
            let mut body = vec![0; rng.gen_range(0..30)];
            rng.fill(body.as_mut_slice());
            body.iter_mut().for_each(|byte| *byte = if *byte < 100 { 0 } else { *byte % 4 });
            let mut message = vec![tag];
            message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            message.extend(body);
            // It may be closed by now.
            let _written = raw.stream.write_all(&message).await;
        }
        let _shut = raw.stream.shutdown().await;
        read_to_close(&mut raw.stream).await;
    }
    assert_eq!(state(client.simple_query("SELECT 1").await), "00000");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_startup_packet_has_a_known_version_and_a_length() {
    let server = start(trusting()).await;
    let mut old = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    old.startup(0x0002_0000, &[("user", "ada")]).await;
    assert_eq!(error_in(&read_to_close(&mut old.stream).await), Some(("0A000".to_owned(), "FATAL".to_owned())));

    let mut nameless = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    nameless.startup(0x0003_0000, &[("database", "ada")]).await;
    assert_eq!(error_in(&read_to_close(&mut nameless.stream).await).unwrap().0, "28000");

    let mut long = server.socket().await;
    long.write_all(&20_000_u32.to_be_bytes()).await.unwrap();
    assert_eq!(error_in(&read_to_close(&mut long).await).unwrap().0, "08P01");
    server.stop().await;
}

#[tokio::test]
async fn a_newer_protocol_is_negotiated_down() {
    let server = start(trusting()).await;
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    raw.startup(0x0003_270f, &[("user", "ada"), ("_pq_.wish", "1")]).await;
    let all = raw.until_ready().await;
    assert_eq!(all[0], (b'v', b"\0\x03\0\x02\0\0\0\x01_pq_.wish\0".to_vec()));
    let key = all.iter().find(|(tag, _)| *tag == b'K').unwrap();
    assert_eq!(key.1.len(), 4 + 32, "a key of protocol 3.2");
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_before_it_is_read() {
    let mut options = trusting();
    options.message_bytes_max = 1 << 20;
    let server = start(options).await;
    let mut raw = server.raw().await;
    raw.stream.write_all(b"Q\x7f\xff\xff\xff").await.unwrap();
    assert_eq!(raw.error().await, "08P01");
    assert_eq!(read_to_close(&mut raw.stream).await, b"");
    // At the limit it is a query like another.
    let mut raw = server.raw().await;
    let comment = format!("SELECT 1 --{}", "x".repeat((1 << 20) - 12));
    raw.query(&comment).await;
    assert_eq!(raw.answer().await, ("TDCZ".to_owned(), 'I'));
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_type_is_fatal_and_a_wrong_body_is_not() {
    let server = start(trusting()).await;
    let mut raw = server.raw().await;
    raw.send(b'P', b"no zero byte").await;
    raw.send(b'Q', b"ignored until sync\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.answer().await, ("EZ".to_owned(), 'I'));
    raw.send(b'!', b"").await;
    assert_eq!(error_in(&read_to_close(&mut raw.stream).await), Some(("08P01".to_owned(), "FATAL".to_owned())));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let mut options = trusting();
    options.startup_timeout = Duration::from_millis(100);
    let server = start(options).await;
    let mut silent = server.socket().await;
    assert_eq!(read_to_close(&mut silent).await, b"");
    let mut half = server.socket().await;
    half.write_all(b"\0\0\0\x20\0\x03").await.unwrap();
    assert_eq!(read_to_close(&mut half).await, b"");
    // A known client may be silent for as long as it likes: the limit has passed for others meanwhile.
    let mut raw = server.raw().await;
    let mut silent = server.socket().await;
    read_to_close(&mut silent).await;
    raw.query("SELECT 1").await;
    assert_eq!(raw.answer().await.1, 'I');
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn without_certificates_encryption_is_declined_and_plaintext_goes_on() {
    let server = start(trusting()).await;
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    for request in [80_877_104_u32, 80_877_103] {
        write_packet(&mut raw.stream, &request.to_be_bytes()).await;
        assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut raw.stream).await.unwrap(), b'N');
    }
    raw.startup(0x0003_0000, &[("user", "ada")]).await;
    raw.until_ready().await;
    drop(raw);
    server.stop().await;
}
