//! The network between two real swarms on loopback: what it carries, and what it survives.

use crate::common::{Peer, key};
use fluence_node::net::{self, Inbound, NetConfig, NetError, NetHandle};
use fluence_types::SegmentRoot;
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use std::io;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

async fn listen(n: u8, config: NetConfig) -> (NetHandle, mpsc::Receiver<Inbound>) {
    let (net, inbound, _) = net::start(&key(n), &config).await.unwrap();
    (net, inbound)
}

/// Answers every request with the number of bytes it got.
fn serve(mut inbound: mpsc::Receiver<Inbound>) {
    tokio::spawn(async move {
        while let Some(request) = inbound.recv().await {
            let (_, request, reply) = request.into_parts();
            let have = match request {
                Request::UploadChunk { bytes, .. } => bytes.len() as u64,
                _ => 0,
            };
            reply.send(Response::Upload { have });
        }
    });
}

fn chunk(bytes: usize) -> Request {
    Request::UploadChunk { segment: SegmentRoot::default(), offset: 0, bytes: vec![1; bytes].try_into().unwrap() }
}

/// Writes raw bytes as a request, and reads whatever comes back.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;
    async fn read_request<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn read_response<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
    async fn write_request<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&request).await
    }
    async fn write_response<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Sends each of `frames` in turn from the peer of key `n`; says what came back, `None` where the line broke.
async fn send_raw(n: u8, to: &NetHandle, frames: Vec<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let protocol = StreamProtocol::new(fluence_wire::PROTOCOL);
    let keypair = key(n).expose(|secret| libp2p::identity::Keypair::ed25519_from_bytes(*secret)).unwrap();
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| {
            request_response::Behaviour::<Raw>::new([(protocol, ProtocolSupport::Outbound)], Default::default())
        })
        .unwrap()
        .build();
    let address: Multiaddr = to.listeners()[0].parse().unwrap();
    let Some(libp2p::multiaddr::Protocol::P2p(peer)) = address.iter().last() else { panic!("no peer id") };
    let mut answers = Vec::new();
    for frame in frames {
        swarm.behaviour_mut().send_request_with_addresses(&peer, frame, vec![address.clone()]);
        answers.push(loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(request_response::Event::Message {
                    message: request_response::Message::Response { response, .. },
                    ..
                }) => break Some(response),
                SwarmEvent::Behaviour(request_response::Event::OutboundFailure { .. }) => break None,
                _ => {}
            }
        });
    }
    answers
}

fn refusal(answer: &Option<Vec<u8>>) -> Option<Refusal> {
    let bytes = answer.as_ref()?.get(4..)?;
    match fluence_types::codec::decode("response", bytes, 1 << 20).ok()? {
        Response::Refused(why) => Some(why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_nodes_ask_each_other_and_know_who_asks() {
    let (a, mut a_in) = listen(1, NetConfig::default()).await;
    let (b, b_in) = listen(2, NetConfig::default()).await;
    serve(b_in);
    let response = a.request(&b.node(), &b.listeners(), chunk(1 << 20)).await.unwrap();
    assert_eq!(response, Response::Upload { have: 1 << 20 });
    let asked = tokio::spawn({
        let (a, b) = (a.clone(), b.clone());
        async move { b.request(&a.node(), &a.listeners(), Request::Status).await }
    });
    let (from, request, reply) = a_in.recv().await.unwrap().into_parts();
    assert_eq!((from, request), (key(2).id(), Request::Status));
    reply.send(Response::Upload { have: 7 });
    assert_eq!(asked.await.unwrap(), Ok(Response::Upload { have: 7 }));
    assert!(!a.listeners()[0].contains("/tcp/0/"), "the real port is said");
    a.stop().await;
    assert_eq!(a.request(&b.node(), &b.listeners(), Request::Status).await, Err(NetError::Stopped));
}

#[tokio::test]
async fn says_why_a_request_got_no_answer() {
    let (a, _a_in) = listen(1, NetConfig::default()).await;
    let nobody = key(3).id();
    let closed = {
        let (gone, _) = listen(3, NetConfig::default()).await;
        let addresses = gone.listeners();
        gone.stop().await;
        addresses
    };
    assert_eq!(a.request(&nobody, &closed, Request::Status).await, Err(NetError::Unreachable(nobody)));
    let bad = a.request(&nobody, &["no address".to_owned()], Request::Status).await;
    assert!(matches!(bad, Err(NetError::Address(_))));
    // Another node at that address: the handshake shows it.
    let (b, _b_in) = listen(2, NetConfig::default()).await;
    let plain = b.listeners()[0].split("/p2p/").next().unwrap().to_owned();
    assert_eq!(a.request(&nobody, &[plain], Request::Status).await, Err(NetError::Unreachable(nobody)));
    // A request dropped unanswered.
    let (c, c_in) = listen(4, NetConfig::default()).await;
    tokio::spawn(async move {
        let mut c_in = c_in;
        while c_in.recv().await.is_some() {}
    });
    let dropped = a.request(&c.node(), &c.listeners(), Request::Status).await;
    assert!(matches!(dropped, Err(NetError::Closed { .. } | NetError::Malformed { .. })), "{dropped:?}");
    let taken = net::start(
        &key(5),
        &NetConfig { listen: vec![c.listeners()[0].split("/p2p/").next().unwrap().to_owned()], ..NetConfig::default() },
    )
    .await;
    assert!(matches!(taken.map(|_| ()), Err(NetError::Listen { .. })));
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let (net, inbound) = listen(1, NetConfig::default()).await;
    serve(inbound);
    let honest = Peer::to(2, net.node(), net.listeners()).await;
    let address = net.listeners()[0].clone();
    let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100_000], &[], b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff"]
    {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = stream.write_all(garbage).await;
        assert_eq!(honest.get(chunk(3)).await, Response::Upload { have: 3 });
    }
}

#[tokio::test]
async fn broken_frames_are_named_and_their_sender_is_blocked() {
    let (net, inbound) = listen(1, NetConfig::default()).await;
    serve(inbound);
    let honest = Peer::to(2, net.node(), net.listeners()).await;
    let frame = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
    let oversized = (fluence_wire::REQUEST_BYTES_MAX as u32 + 1).to_le_bytes().to_vec();
    let truncated = [&100u32.to_le_bytes()[..], &[1, 2, 3]].concat();
    let trailing = frame(&[1, 0]);
    let answers = send_raw(66, &net, vec![oversized, truncated, trailing]).await;
    assert!(matches!(refusal(&answers[0]), Some(Refusal::Malformed(why)) if why.contains("4194305")));
    assert!(matches!(refusal(&answers[1]), Some(Refusal::Malformed(why)) if why.contains("ends early")));
    assert!(matches!(refusal(&answers[2]), Some(Refusal::Malformed(_))));
    // 25 + 5 + 25 so far: two more and the peer is blocked, under any address; others are not.
    let answers = send_raw(66, &net, vec![frame(&[99]); 4]).await;
    assert_eq!(answers[3], None, "{answers:?}");
    let again = Peer::to(66, net.node(), net.listeners()).await;
    assert!(again.ask(Request::Status).await.is_err());
    assert_eq!(honest.get(chunk(3)).await, Response::Upload { have: 3 });
}

#[tokio::test]
async fn requests_above_the_limits_are_refused_as_busy_and_the_rest_answered() {
    let config = NetConfig { requests_per_peer_max: 3, requests_max: 4, ..NetConfig::default() };
    let (net, mut inbound) = listen(1, config).await;
    let (one, two) = (Peer::to(2, net.node(), net.listeners()).await, Peer::to(3, net.node(), net.listeners()).await);
    // Six at once of one peer, none answered yet: three are held, three refused.
    let asked: Vec<_> = (0..6)
        .map(|_| {
            tokio::spawn({
                let one = one.clone();
                async move { one.ask(Request::Status).await }
            })
        })
        .collect();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(inbound.recv().await.unwrap());
    }
    let mut asked: futures::stream::FuturesUnordered<_> = asked.into_iter().collect();
    for _ in 0..3 {
        let answer = asked.next().await.unwrap().unwrap().unwrap();
        assert!(matches!(answer, Response::Refused(Refusal::Busy(why)) if why.contains("3 requests")));
    }
    // The fourth place is another peer's; a fifth is nobody's.
    let other = tokio::spawn({
        let two = two.clone();
        async move { two.ask(Request::Status).await }
    });
    held.push(inbound.recv().await.unwrap());
    assert!(matches!(two.refused(Request::Status).await, Refusal::Busy(why) if why.contains("4 requests")));
    for request in held {
        request.into_parts().2.send(Response::Upload { have: 1 });
    }
    assert_eq!(other.await.unwrap(), Ok(Response::Upload { have: 1 }));
    while let Some(answer) = asked.next().await {
        assert_eq!(answer.unwrap(), Ok(Response::Upload { have: 1 }));
    }
}

#[tokio::test]
async fn hanging_up_frees_no_place_while_the_work_goes_on() {
    let config = NetConfig { requests_per_peer_max: 1, requests_max: 2, ..NetConfig::default() };
    let (net, mut inbound) = listen(1, config).await;
    let mut connections = net.connections();
    let mut held = Vec::new();
    for n in [2, 3] {
        let peer = Peer::to(n, net.node(), net.listeners()).await;
        let asked = tokio::spawn({
            let peer = peer.clone();
            async move { peer.ask(Request::Status).await }
        });
        held.push(inbound.recv().await.unwrap());
        peer.net.stop().await;
        assert_eq!(asked.await.unwrap(), Err(NetError::Stopped));
        connections.wait_for(|n| *n == 0).await.unwrap();
        if n == 2 {
            // The same peer again: its one place is still taken.
            let again = Peer::to(n, net.node(), net.listeners()).await;
            assert!(matches!(again.refused(chunk(1)).await, Refusal::Busy(why) if why.contains("1 requests of yours")));
            again.net.stop().await;
            connections.wait_for(|n| *n == 0).await.unwrap();
        }
    }
    let other = Peer::to(4, net.node(), net.listeners()).await;
    assert!(matches!(other.refused(chunk(1)).await, Refusal::Busy(why) if why.contains("2 requests are being")));
    // One is answered, one dropped: both places are free once the network's task has seen it.
    held.pop().unwrap().into_parts().2.send(Response::Upload { have: 1 });
    drop(held);
    serve(inbound);
    for n in [4, 2] {
        let peer = if n == 4 { other.clone() } else { Peer::to(n, net.node(), net.listeners()).await };
        while peer.ask(chunk(1)).await.unwrap() != (Response::Upload { have: 1 }) {}
    }
}

#[tokio::test]
async fn a_peer_that_asks_too_fast_is_refused() {
    let config = NetConfig { requests_per_second: 0.001, requests_burst: 5.0, ..NetConfig::default() };
    let (net, inbound) = listen(1, config).await;
    serve(inbound);
    let peer = Peer::to(2, net.node(), net.listeners()).await;
    for _ in 0..5 {
        peer.get(chunk(1)).await;
    }
    assert!(matches!(peer.refused(chunk(1)).await, Refusal::Busy(why) if why.contains("too fast")));
    // Coming back does not help.
    peer.net.stop().await;
    net.connections().wait_for(|n| *n == 0).await.unwrap();
    let again = Peer::to(2, net.node(), net.listeners()).await;
    assert!(matches!(again.refused(chunk(1)).await, Refusal::Busy(why) if why.contains("too fast")));
    let other = Peer::to(3, net.node(), net.listeners()).await;
    other.get(chunk(1)).await;
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_and_those_below_live_on() {
    let config = NetConfig { connections_max: 3, ..NetConfig::default() };
    let (net, inbound) = listen(1, config).await;
    serve(inbound);
    let mut peers = Vec::new();
    for n in 10..13 {
        let peer = Peer::to(n, net.node(), net.listeners()).await;
        peer.get(chunk(1)).await;
        peers.push(peer);
    }
    assert_eq!(*net.connections().borrow(), 3);
    for n in 20..24 {
        assert!(Peer::to(n, net.node(), net.listeners()).await.ask(chunk(1)).await.is_err());
    }
    for peer in &peers {
        peer.get(chunk(1)).await;
    }
    // A place that was given up is taken again.
    peers.pop().unwrap().net.stop().await;
    let mut connections = net.connections();
    connections.wait_for(|n| *n < 3).await.unwrap();
    Peer::to(30, net.node(), net.listeners()).await.get(chunk(1)).await;
}

#[tokio::test]
async fn a_stopping_node_answers_what_is_in_flight() {
    let (net, mut inbound) = listen(1, NetConfig::default()).await;
    let peer = Peer::to(2, net.node(), net.listeners()).await;
    let asked = tokio::spawn(async move { peer.ask(Request::Status).await });
    let request = inbound.recv().await.unwrap();
    let stopping = tokio::spawn(async move { net.stop().await });
    request.into_parts().2.send(Response::Upload { have: 5 });
    assert_eq!(asked.await.unwrap(), Ok(Response::Upload { have: 5 }));
    stopping.await.unwrap();
}
