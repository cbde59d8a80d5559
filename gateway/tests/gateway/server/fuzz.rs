//! Seeded noise on the port: startup packets, messages, cut and lying frames, half handshakes, crowds and drips. A client that was there
//! goes on, one that comes after is served, and what strangers may hold stays within the options.
//!
//! Replay  a case that fails names its seed; each seed is a case of its own

use super::support::{Raw, Running, connect, error_in, read_to_close, start, state, trusting, write_packet};
use super::tls::{certificate, encrypted_options, encrypted_state};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is said of the limits where a stranger may stay for as long as it likes: only another one drives it out.
const FOR_EVER: Duration = Duration::from_secs(3600);

async fn healthy(server: &Running) {
    let client = connect(&server.config()).await.unwrap_or_else(|e| panic!("a healthy client is refused: {e}"));
    assert_eq!(state(client.simple_query("SELECT 1").await), "00000");
}

/// Sends all of it, as far as it is taken, ends its side, and reads what there is.
async fn spill(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    // It may be closed by now.
    let _written = stream.write_all(bytes).await;
    let _shut = stream.shutdown().await;
    read_to_close(&mut stream).await
}

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

/// Flips, cuts, doubles and inserts.
fn mutated(mut bytes: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    for _ in 0..rng.gen_range(1..6) {
        let at = rng.gen_range(0..bytes.len().max(1));
        match rng.gen_range(0..5) {
            _ if bytes.is_empty() => bytes.push(rng.r#gen()),
            0 => bytes[at] ^= 1 << rng.gen_range(0..8),
            1 => bytes.truncate(at),
            2 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).unwrap(),
            3 => bytes.insert(at, rng.r#gen()),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

/// A startup packet that would let its sender in.
fn startup(rng: &mut StdRng) -> Vec<u8> {
    let mut body = vec![0, 3, 0, *[0, 2, 9].choose(rng).unwrap()];
    for (name, value) in [("user", "ada"), ("database", "ada"), ("application_name", "noise"), ("_pq_.x", "1")] {
        if name == "user" || rng.gen_bool(0.5) {
            body.extend(format!("{name}\0{value}\0").bytes());
        }
    }
    body.push(0);
    [u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec(), body].concat()
}

#[tokio::test]
async fn startup_packets_that_are_almost_right_harm_nobody() {
    let server = start(trusting()).await;
    let before = server.client().await;
    let (mut let_in, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let whole = startup(&mut rng);
        let packet = match seed % 4 {
            0 => mutated(whole, &mut rng),
            // A length that is not that of what comes.
            1 => [&rng.gen_range(0..12_000_u32).to_be_bytes()[..], &whole[4..]].concat(),
            // Other first words: cancel, encryption, and what nobody knows.
            2 => {
                let code = *[80_877_102_u32, 80_877_103, 80_877_104, 80_877_105, 0, u32::MAX].choose(&mut rng).unwrap();
                let rest: Vec<u8> = (0..rng.gen_range(0..40)).map(|_| rng.r#gen()).collect();
                [&u32::try_from(rest.len() + 8).unwrap().to_be_bytes()[..], &code.to_be_bytes(), &rest].concat()
            }
            _ => whole[..rng.gen_range(0..whole.len())].to_vec(),
        };
        let answer = spill(server.socket().await, &packet).await;
        let_in += usize::from(answer.first() == Some(&b'R') || answer.first() == Some(&b'v'));
        refused += usize::from(error_in(&answer).is_some());
    }
    // Noise that is always refused at the first byte would prove nothing.
    assert!(let_in > 10 && refused > 50, "{let_in} let in, {refused} told why not");
    assert_eq!(state(before.simple_query("SELECT 1").await), "00000");
    healthy(&server).await;
    drop(before);
    server.stop().await;
}

/// The messages of a client that does everything once.
fn conversation() -> Vec<Vec<u8>> {
    vec![
        framed(b'Q', b"CREATE TABLE IF NOT EXISTS noise (id BIGINT PRIMARY KEY, t TEXT)\0"),
        framed(b'Q', b"BEGIN\0"),
        framed(b'P', b"s\0SELECT $1::bigint + 1\0\0\x01\0\0\0\x14"),
        framed(b'D', b"Ss\0"),
        framed(b'B', b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x07\0\x01\0\x01"),
        framed(b'E', b"p\0\0\0\0\x01"),
        framed(b'C', b"Pp\0"),
        framed(b'H', b""),
        framed(b'S', b""),
        framed(b'Q', b"COPY noise FROM STDIN\0"),
        framed(b'd', b"1\tone\n"),
        framed(b'f', b"enough\0"),
        framed(b'Q', b"ROLLBACK\0"),
        framed(b'p', b"md5\0"),
        framed(b'F', b"\0\0\0\0\0\0\0\0\0\0\0\0"),
    ]
}

#[tokio::test]
async fn messages_that_are_almost_right_end_at_most_their_connection() {
    let mut options = trusting();
    options.message_bytes_max = 1 << 16;
    let server = start(options).await;
    let before = server.client().await;
    let mut codes = std::collections::BTreeSet::new();
    for seed in 0..120 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = Vec::new();
        for message in conversation() {
            match rng.gen_range(0..6) {
                0 => {}
                1 => bytes.extend(mutated(message, &mut rng)),
                // A tag that is any byte.
                2 => bytes.extend(framed(rng.r#gen(), &message[5..])),
                // Counts and lengths within the body that are not those of what comes.
                3 => {
                    let mut body = message[5..].to_vec();
                    if !body.is_empty() {
                        let at = rng.gen_range(0..body.len());
                        body[at] = *[0x7f, 0x80, 0xff].choose(&mut rng).unwrap();
                    }
                    bytes.extend(framed(message[0], &body));
                }
                _ => bytes.extend(message),
            }
        }
        // Now and then a length above the limit, below the least, or of more than there is.
        if rng.gen_bool(0.3) {
            let length = *[0_u32, 3, 1 << 16, (1 << 16) + 5, 1 << 31, u32::MAX].choose(&mut rng).unwrap();
            bytes.extend([&b"Q"[..], &length.to_be_bytes(), b"SELECT 1"].concat());
        }
        let raw = server.raw().await;
        let answer = spill(raw.stream, &bytes).await;
        codes.extend(error_in(&answer).map(|(code, _)| code));
    }
    // The noise got as far as different parts of the server.
    assert!(codes.len() > 3, "{codes:?}");
    assert!(!codes.contains("XX000"), "an error of ours: {codes:?}");
    assert_eq!(state(before.simple_query("SELECT 1").await), "00000");
    healthy(&server).await;
    drop(before);
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_idle_connections_hold_as_many_places_as_strangers_have() {
    let mut options = trusting();
    (options.handshakes_max, options.startup_timeout) = (32, FOR_EVER);
    let server = start(options).await;
    let before = server.client().await;
    let mut strangers = Vec::new();
    for _ in 0..crowd() {
        strangers.push(server.socket().await);
        tokio::task::yield_now().await;
    }
    healthy(&server).await;
    assert_eq!(state(before.simple_query("SELECT 1").await), "00000");
    // No time drives them out: all but the last had to make room. The healthy client was one of the 32 itself for a while.
    let last = strangers.split_off(strangers.len() - 32);
    for mut stranger in strangers {
        assert_eq!(read_to_close(&mut stranger).await, b"");
    }
    drop(before);
    server.stop().await;
    for mut stranger in last {
        assert_eq!(read_to_close(&mut stranger).await, b"");
    }
}

/// 1,000, or as many as this process may have sockets for.
fn crowd() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let open = line.and_then(|line| line.split_whitespace().nth(3)).and_then(|n| n.parse::<usize>().ok());
    let crowd = open.map_or(400, |open| open.saturating_sub(600)).min(1000);
    if crowd < 1000 {
        println!("this process may open so few files that {crowd} connections stand for 1,000");
    }
    crowd
}

#[tokio::test]
async fn clients_that_drip_hold_no_more_places_than_strangers_have() {
    let mut options = trusting();
    (options.handshakes_max, options.startup_timeout) = (16, FOR_EVER);
    let server = start(options).await;
    let whole = startup(&mut StdRng::seed_from_u64(1));
    let mut drips = Vec::new();
    for _ in 0..100 {
        drips.push(server.socket().await);
    }
    // A byte each, in turn: none of them is ever done.
    for (at, byte) in whole[..whole.len() - 1].iter().enumerate() {
        for drip in &mut drips {
            // Most were closed by now.
            let _taken = drip.write_all(&[*byte]).await;
        }
        if at % 16 == 0 {
            healthy(&server).await;
        }
    }
    let mut late = drips.split_off(84);
    for mut drip in drips {
        assert_eq!(error_in(&read_to_close(&mut drip).await), None);
    }
    // A known client that drips is one connection like another.
    let mut raw = server.raw().await;
    for byte in framed(b'Q', b"SELECT 1\0") {
        raw.stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(raw.answer().await, ("TDCZ".to_owned(), 'I'));
    drop(raw);
    server.stop().await;
    for drip in &mut late {
        read_to_close(drip).await;
    }
}

#[tokio::test]
async fn a_message_that_is_promised_and_does_not_come_holds_nothing_up() {
    let mut options = trusting();
    (options.connections_max, options.message_bytes_max) = (40, 32 << 20);
    let server = start(options).await;
    let mut promises: Vec<Raw> = Vec::new();
    for _ in 0..39 {
        let mut raw = server.raw().await;
        // Within the limit, so it is waited for; together more than a gigabyte, of which there is a kilobyte each.
        raw.stream.write_all(&[&b"Q"[..], &(30_u32 << 20).to_be_bytes(), &[b'x'; 1024]].concat()).await.unwrap();
        promises.push(raw);
    }
    healthy(&server).await;
    // One byte above the limit is refused where it is announced.
    let mut raw = promises.pop().unwrap();
    raw.stream.shutdown().await.unwrap();
    read_to_close(&mut raw.stream).await;
    let mut above = loop {
        // The one before has left when the server has seen it.
        match come_in(&server).await {
            Some(raw) => break raw,
            None => tokio::task::yield_now().await,
        }
    };
    above.stream.write_all(&[&b"Q"[..], &((32_u32 << 20) + 5).to_be_bytes()].concat()).await.unwrap();
    assert_eq!(above.error().await, "08P01");
    drop((promises, above));
    server.stop().await;
}

/// A known client, unless the house is full.
async fn come_in(server: &Running) -> Option<Raw> {
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    raw.startup(0x0003_0000, &[("user", "ada")]).await;
    loop {
        match raw.receive().await.0 {
            b'Z' => return Some(raw),
            b'E' => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn half_handshakes_and_noise_in_them_keep_no_encrypted_client_out() {
    let certificate = certificate();
    let mut options = encrypted_options(&certificate);
    (options.handshakes_max, options.startup_timeout) = (16, FOR_EVER);
    let server = start(options).await;
    let mut open = Vec::new();
    for seed in 0..120 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stream = server.socket().await;
        if rng.gen_bool(0.7) {
            write_packet(&mut stream, &80_877_103_u32.to_be_bytes()).await;
            assert_eq!(stream.read_u8().await.unwrap(), b'S', "seed {seed}");
        }
        // The beginning of a ClientHello record, whole or not, and noise after it.
        let mut hello = vec![0x16, 3, 1, 0, rng.gen_range(1..=255), 1, 0, 0, rng.r#gen(), 3, 3];
        hello.extend((0..rng.gen_range(0..300)).map(|_| rng.r#gen::<u8>()));
        hello.truncate(rng.gen_range(0..hello.len()));
        // It may be closed by now.
        let _taken = stream.write_all(&hello).await;
        if rng.gen_bool(0.5) {
            open.push(stream);
        } else {
            spill(stream, &[]).await;
        }
    }
    assert_eq!(encrypted_state(&server, &certificate).await, "00000");
    server.stop().await;
    for mut stream in open {
        let answer = read_to_close(&mut stream).await;
        assert!(answer.first().is_none_or(|first| *first == 0x15), "nothing but an alert: {answer:?}");
    }
}
