//! The network of clusters between real swarms on loopback: who hears whom, in what order, and what it survives.

use crate::common::{Peer, key};
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Blocker, CheckedSender, LimitedSender, Manager, Provider, Receiver, Recipients, Sender};
use commonware_utils::ordered::Set;
use fluence_node::net::cluster::{key_of, node_of};
use fluence_node::net::{
    self, Channel, ClusterNet, ClusterPeers, ClusterReceiver, ClusterSender, Inbound, NetConfig, NetError, NetHandle,
};
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::{Request, Response};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use std::time::SystemTime;
use tokio::sync::mpsc;

const DB: DatabaseId = DatabaseId::from_bytes([7; 16]);
const URGENT: &str = "/flu/cluster/1/urgent";
const BULK: &str = "/flu/cluster/1/bulk";

/// A node's network, which answers requests with nothing of interest.
async fn node(n: u8) -> NetHandle {
    let (net, mut inbound, _): (_, mpsc::Receiver<Inbound>, _) =
        net::start(&key(n), &NetConfig::default()).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = inbound.recv().await {
            request.into_parts().2.send(Response::Upload { have: 0 });
        }
    });
    net
}

fn public(n: u8) -> PublicKey {
    key_of(&key(n).id()).unwrap()
}

fn set(members: &[u8]) -> Set<PublicKey> {
    Set::from_iter_dedup(members.iter().map(|n| public(*n)))
}

/// One node in one cluster.
struct Member {
    cluster: ClusterNet,
    peers: ClusterPeers,
}

impl Member {
    /// Registers `db` and tracks `members` as set 0.
    fn new(net: &NetHandle, db: DatabaseId, members: &[u8]) -> Self {
        let cluster = net.cluster(db).unwrap();
        let mut peers = cluster.peers();
        assert_eq!(peers.track(0, set(members)), Feedback::Ok);
        Self { cluster, peers }
    }

    fn channel(&mut self, channel: Channel) -> (ClusterSender, ClusterReceiver) {
        self.cluster.channel(channel)
    }

    fn knows(&self, net: &NetHandle) {
        self.peers.set_addresses(net.node(), &net.listeners()).unwrap();
    }

    /// Until exactly these can be spoken to.
    async fn sees(&self, members: &[u8]) {
        let mut wanted: Vec<NodeId> = members.iter().map(|n| key(*n).id()).collect();
        wanted.sort_unstable();
        self.peers.present().wait_for(|present| *present == wanted).await.unwrap();
    }
}

/// Two members that see each other; the second dials.
async fn pair() -> ([NetHandle; 2], [Member; 2]) {
    let nets = [node(1).await, node(2).await];
    let members = [Member::new(&nets[0], DB, &[1, 2]), Member::new(&nets[1], DB, &[1, 2])];
    members[1].knows(&nets[0]);
    members[0].sees(&[2]).await;
    members[1].sees(&[1]).await;
    (nets, members)
}

fn one(n: u8) -> Recipients<PublicKey> {
    Recipients::One(public(n))
}

/// Sends to one, who is there.
fn say(sender: &mut ClusterSender, to: u8, message: impl Into<Vec<u8>>) {
    assert_eq!(sender.send(one(to), message.into(), false), [public(to)]);
}

async fn hear(receiver: &mut ClusterReceiver) -> (NodeId, Vec<u8>) {
    let (from, message) = receiver.recv().await.unwrap();
    (node_of(&from), message.as_ref().to_vec())
}

#[tokio::test]
async fn each_of_four_hears_all_others_whoever_dialled() {
    let mut nets = Vec::new();
    for n in 1..=4 {
        nets.push(node(n).await);
    }
    let mut members: Vec<_> = nets.iter().map(|net| Member::new(net, DB, &[1, 2, 3, 4])).collect();
    // The first two know each other, so both dial; of the rest, each knows those before it and waits for those after it.
    members[0].knows(&nets[1]);
    for (i, member) in members.iter().enumerate() {
        nets[..i].iter().for_each(|net| member.knows(net));
    }
    let mut channels = Vec::new();
    for (i, member) in members.iter_mut().enumerate() {
        let others: Vec<u8> = (1..=4).filter(|n| *n != i as u8 + 1).collect();
        member.sees(&others).await;
        for channel in Channel::ALL {
            channels.push((i as u8 + 1, others.clone(), channel.payload_bytes_max(), member.channel(channel)));
        }
    }
    // Consensus runs on a runtime of its own: nothing here may need this one.
    let threads: Vec<_> = channels
        .into_iter()
        .map(|(me, others, size, (mut sender, mut receiver))| {
            std::thread::spawn(move || {
                let told = sender.send(Recipients::All, vec![me; size], false);
                assert_eq!(Set::from_iter_dedup(told), set(&others));
                let mut heard: Vec<u8> = (0..3)
                    .map(|_| {
                        let (from, message) = futures::executor::block_on(hear(&mut receiver));
                        assert_eq!((from, message.len()), (key(message[0]).id(), size));
                        message[0]
                    })
                    .collect();
                heard.sort_unstable();
                assert_eq!(heard, others);
                // Kept until all are done: a place in the cluster ends with its last end.
                (sender, receiver)
            })
        })
        .collect();
    for thread in threads {
        drop(tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap());
    }
}

#[tokio::test]
async fn messages_of_a_channel_keep_their_order() {
    let (_nets, [mut a, mut b]) = pair().await;
    let counts = [(Channel::Vote, 500u32), (Channel::Mempool, 60), (Channel::Backfill, 30)];
    let mut hearing = Vec::new();
    for (channel, count) in counts {
        let (mut sender, _) = a.channel(channel);
        let (_, receiver) = b.channel(channel);
        for n in 0..count {
            let mut message = n.to_le_bytes().to_vec();
            message.resize(4 + (n as usize * 7919) % (4 << 10), 0);
            say(&mut sender, 2, message);
        }
        hearing.push((receiver, count, sender));
    }
    for (mut receiver, count, _sender) in hearing {
        for n in 0..count {
            let (_, message) = hear(&mut receiver).await;
            assert_eq!(message[..4], n.to_le_bytes());
        }
    }
}

#[tokio::test]
async fn many_clusters_share_one_connection_and_hear_only_their_own() {
    let nets = [node(1).await, node(2).await];
    let mut clusters = Vec::new();
    for n in 0..24 {
        let db = DatabaseId::from_bytes([n; 16]);
        let mut members = [Member::new(&nets[0], db, &[1, 2]), Member::new(&nets[1], db, &[1, 2])];
        members[1].knows(&nets[0]);
        let [to, from] = [0, 1].map(|i: usize| members[i].channel(Channel::Vote));
        clusters.push((n, members, to, from));
    }
    for (n, members, (sender, _), _) in &mut clusters {
        members[0].sees(&[2]).await;
        say(sender, 2, [*n]);
    }
    for (n, _, _, (_, receiver)) in &mut clusters {
        assert_eq!(hear(receiver).await, (key(1).id(), vec![*n]));
        assert!(receiver.recv().now_or_never().is_none());
    }
    assert_eq!(*nets[0].connections().borrow(), 1);
}

#[tokio::test]
async fn who_is_not_tracked_is_neither_heard_nor_told() {
    let (nets, [mut a, mut b]) = pair().await;
    // The third counts the first as a member; the first does not count it.
    let stranger = node(3).await;
    let mut c = Member::new(&stranger, DB, &[1, 3]);
    c.knows(&nets[0]);
    let (mut from_c, mut to_c) = c.channel(Channel::Vote);
    let (mut from_a, mut to_a) = a.channel(Channel::Vote);
    let (mut from_b, _to_b) = b.channel(Channel::Vote);
    stranger.connections().wait_for(|n| *n > 0).await.unwrap();
    assert!(from_c.send(one(1), vec![3], false).is_empty());
    assert!(from_a.send(one(3), vec![1], false).is_empty());
    say(&mut from_b, 1, [2]);
    assert_eq!(hear(&mut to_a).await, (key(2).id(), vec![2]));
    // Once it is counted, all see each other.
    assert_eq!(a.peers.track(1, set(&[1, 2, 3])), Feedback::Ok);
    a.sees(&[2, 3]).await;
    c.sees(&[1]).await;
    say(&mut from_c, 1, [3]);
    assert_eq!(hear(&mut to_a).await, (key(3).id(), vec![3]));
    // The set of two epochs ago is forgotten, and its members with it.
    a.peers.track(2, set(&[1, 2]));
    a.sees(&[2, 3]).await;
    a.peers.track(3, set(&[1, 2]));
    a.sees(&[2]).await;
    c.sees(&[]).await;
    assert!(from_c.send(one(1), vec![3], false).is_empty());
    say(&mut from_b, 1, [4]);
    assert_eq!(hear(&mut to_a).await, (key(2).id(), vec![4]));
    assert!(to_c.recv().now_or_never().is_none());
}

#[tokio::test]
async fn a_peer_blocked_in_a_cluster_is_blocked_there_only() {
    let (nets, [mut a, mut b]) = pair().await;
    let other = DatabaseId::from_bytes([8; 16]);
    let mut a2 = Member::new(&nets[0], other, &[1, 2]);
    let mut b2 = Member::new(&nets[1], other, &[1, 2]);
    a2.sees(&[2]).await;
    b2.sees(&[1]).await;
    let mut blocked = a.peers.blocked();
    assert!(blocked.next().await.unwrap().is_empty());
    let (mut from_a, mut to_a) = a.channel(Channel::Vote);
    let (mut from_b, mut to_b) = b.channel(Channel::Vote);
    let (_from_a2, mut to_a2) = a2.channel(Channel::Vote);
    let (mut from_b2, _to_b2) = b2.channel(Channel::Vote);
    assert_eq!(a.peers.block(public(2)), Feedback::Ok);
    assert_eq!(blocked.next().await.unwrap(), set(&[2]));
    a.sees(&[]).await;
    b.sees(&[]).await;
    assert!(from_a.send(one(2), vec![1], false).is_empty());
    assert!(from_b.send(Recipients::All, vec![2], false).is_empty());
    say(&mut from_b2, 1, [3]);
    assert_eq!(hear(&mut to_a2).await, (key(2).id(), vec![3]));
    assert!(to_a.recv().now_or_never().is_none() && to_b.recv().now_or_never().is_none());
}

#[tokio::test]
async fn a_member_that_comes_back_elsewhere_is_found() {
    let (nets, [mut a, b]) = pair().await;
    let (mut from_a, mut to_a) = a.channel(Channel::Vote);
    drop(b);
    nets[1].stop().await;
    a.sees(&[]).await;
    assert!(from_a.send(one(2), vec![0], false).is_empty());
    // The same node on another port: it knows nobody's address, the first one learns its new one.
    let again = node(2).await;
    assert_ne!(again.listeners(), nets[1].listeners());
    let mut b = Member::new(&again, DB, &[1, 2]);
    let (mut from_b, mut to_b) = b.channel(Channel::Vote);
    a.knows(&again);
    a.sees(&[2]).await;
    b.sees(&[1]).await;
    say(&mut from_a, 2, [1]);
    say(&mut from_b, 1, [2]);
    assert_eq!(hear(&mut to_b).await, (key(1).id(), vec![1]));
    assert_eq!(hear(&mut to_a).await, (key(2).id(), vec![2]));
}

#[tokio::test]
async fn a_slow_consumer_stalls_nothing_else() {
    let (nets, [mut a, mut b]) = pair().await;
    let other = DatabaseId::from_bytes([8; 16]);
    let mut a2 = Member::new(&nets[0], other, &[1, 2]);
    let mut b2 = Member::new(&nets[1], other, &[1, 2]);
    a2.sees(&[2]).await;
    let (mut flood, _to_a) = a.channel(Channel::Mempool);
    let (_from_b, mut unread) = b.channel(Channel::Mempool);
    let (mut votes, _to_a) = a.channel(Channel::Vote);
    let (_from_b, mut heard) = b.channel(Channel::Vote);
    let (mut second, _to_a2) = a2.channel(Channel::Mempool);
    let (_from_b2, mut heard_second) = b2.channel(Channel::Mempool);
    for n in 0..200u32 {
        let mut message = n.to_le_bytes().to_vec();
        message.resize(100 << 10, 0);
        say(&mut flood, 2, message);
    }
    say(&mut votes, 2, [1]);
    say(&mut second, 2, [2]);
    assert_eq!(hear(&mut heard).await, (key(1).id(), vec![1]));
    assert_eq!(hear(&mut heard_second).await, (key(1).id(), vec![2]));
    // What was kept is in order.
    let mut last = None;
    while let Some(message) = unread.recv().now_or_never() {
        let n = u32::from_le_bytes(message.unwrap().1.as_ref()[..4].try_into().unwrap());
        assert!(last.is_none_or(|last| last < n));
        last = Some(n);
    }
    assert!(last.is_some());
}

#[tokio::test]
async fn a_sender_knows_its_limits() {
    let (_nets, [mut a, mut b]) = pair().await;
    let (mut sender, _to_a) = a.channel(Channel::Backfill);
    let (_from_b, mut receiver) = b.channel(Channel::Backfill);
    let above = vec![0; Channel::Backfill.payload_bytes_max() + 1];
    assert_eq!(sender.check(one(2)).unwrap().send(above, false), Unreliable::Rejected);
    // Nobody to send to is no error, and ourselves are nobody.
    assert!(sender.check(Recipients::Some(vec![public(1), public(3)])).unwrap().recipients().is_empty());
    let (now, mut sent) = (SystemTime::now(), 0);
    let later = loop {
        // Clones share the rate, or this would not end.
        match sender.clone().check(Recipients::All) {
            Ok(checked) => assert_eq!(checked.recipients(), [public(2)]),
            Err(later) => break later,
        }
        sent += 1;
        assert!(sent < 100_000, "no rate");
    };
    assert!(sent >= 99 && later > now);
    assert!(receiver.recv().now_or_never().is_none());
    assert!(receiver.capacity().get() >= 31);
}

#[tokio::test]
async fn peer_sets_are_told_in_order_and_older_ones_change_nothing() {
    let net = node(1).await;
    let cluster = net.cluster(DB).unwrap();
    let mut peers = cluster.peers();
    let mut before = peers.subscribe().await;
    assert!(before.recv().now_or_never().is_none());
    peers.track(5, set(&[1, 2]));
    let mut after = peers.subscribe().await;
    for updates in [&mut before, &mut after] {
        let update = updates.recv().await.unwrap();
        assert_eq!((update.index, update.latest.primary), (5, set(&[1, 2])));
    }
    peers.track(4, set(&[1, 9]));
    peers.track(5, set(&[1, 9]));
    assert!(before.recv().now_or_never().is_none());
    assert_eq!(peers.peer_set(5).await.unwrap().primary, set(&[1, 2]));
    assert!(peers.peer_set(4).await.is_none());
    peers.track(6, set(&[1, 3]));
    let update = before.recv().await.unwrap();
    assert_eq!((update.latest.primary, update.all.primary), (set(&[1, 3]), set(&[1, 2, 3])));
    peers.track(7, set(&[1, 3]));
    assert!(peers.peer_set(5).await.is_none());
    let many = vec![net.listeners()[0].clone(); 9];
    let refused = peers.set_addresses(key(2).id(), &many);
    assert!(matches!(refused, Err(NetError::Addresses { given: 9, most: 8, .. })), "{refused:?}");
    let refused = peers.set_addresses(key(2).id(), &["nowhere".to_owned()]);
    assert_eq!(refused, Err(NetError::Address("nowhere".to_owned())));
}

#[tokio::test]
async fn a_cluster_is_registered_once_and_gone_with_its_last_end() {
    let (nets, [mut a, b]) = pair().await;
    assert!(matches!(nets[0].cluster(DB), Err(NetError::ClusterTaken(DB))));
    let (sender, receiver) = a.channel(Channel::Vote);
    let Member { cluster, mut peers } = a;
    drop((cluster, receiver));
    assert!(nets[0].cluster(DB).is_err(), "a sender is left");
    drop(sender);
    assert_eq!(peers.track(1, set(&[1])), Feedback::Closed);
    b.sees(&[]).await;
    let again = Member::new(&nets[0], DB, &[1, 2]);
    again.sees(&[2]).await;
    let Member { mut cluster, .. } = again;
    let (_, mut receiver) = cluster.channel(Channel::Vote);
    nets[0].stop().await;
    assert!(matches!(receiver.recv().await, Err(NetError::Stopped)));
    assert!(matches!(nets[0].cluster(DatabaseId::default()), Err(NetError::Stopped)));
}

/// A member that speaks the transport and writes what it likes.
struct Raw {
    control: libp2p_stream::Control,
    peer: PeerId,
}

impl Raw {
    async fn to(n: u8, net: &NetHandle) -> Self {
        let keypair = key(n).expose(|secret| libp2p::identity::Keypair::ed25519_from_bytes(*secret)).unwrap();
        let mut swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .build();
        let address: Multiaddr = net.listeners()[0].parse().unwrap();
        let Some(libp2p::multiaddr::Protocol::P2p(peer)) = address.iter().last() else { panic!("no peer id") };
        swarm.dial(address).unwrap();
        while !swarm.is_connected(&peer) {
            swarm.select_next_some().await;
        }
        let control = swarm.behaviour().new_control();
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { control, peer }
    }

    async fn open(&mut self, protocol: &'static str) -> libp2p::Stream {
        self.control.open_stream(self.peer, StreamProtocol::new(protocol)).await.unwrap()
    }

    /// Writes `bytes` on a new stream, where it still gets one, and waits until the other side ends it.
    async fn write_until_ended(&mut self, protocol: &'static str, bytes: &[u8]) {
        let opened = self.control.open_stream(self.peer, StreamProtocol::new(protocol)).await;
        let Ok(mut stream) = opened else { return };
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let _ = stream.read(&mut [0]).await;
    }
}

fn frame(db: DatabaseId, channel: u8, payload: &[u8]) -> Vec<u8> {
    let length = (17 + payload.len() as u32).to_le_bytes();
    [&length[..], db.as_bytes(), &[channel], payload].concat()
}

/// An honest pair, and a liar who is a member too and can be spoken to: the liar's first words.
async fn with_a_liar() -> ([NetHandle; 2], [Member; 2], Raw, libp2p::Stream) {
    let (nets, mut members) = pair().await;
    for member in &mut members {
        member.peers.track(1, set(&[1, 2, 66]));
    }
    let mut raw = Raw::to(66, &nets[0]).await;
    let mut stream = raw.open(URGENT).await;
    stream.write_all(&frame(DB, 0xf0, &[])).await.unwrap();
    stream.flush().await.unwrap();
    members[0].sees(&[2, 66]).await;
    (nets, members, raw, stream)
}

/// The liar is blocked as a peer, the honest one is not.
async fn only_the_liar_is_blocked(nets: &[NetHandle; 2], members: &mut [Member; 2]) {
    members[0].sees(&[2]).await;
    nets[0].connections().wait_for(|n| *n == 1).await.unwrap();
    assert!(Peer::to(66, nets[0].node(), nets[0].listeners()).await.ask(Request::Status).await.is_err());
    let (mut sender, _to_b) = members[1].channel(Channel::Certificate);
    let (_from_a, mut receiver) = members[0].channel(Channel::Certificate);
    say(&mut sender, 1, [1]);
    assert_eq!(hear(&mut receiver).await, (key(2).id(), vec![1]));
    Peer::to(3, nets[0].node(), nets[0].listeners()).await.get(Request::Status).await;
}

#[tokio::test]
async fn oversized_and_garbage_frames_get_their_sender_blocked() {
    let (nets, mut members, mut raw, mut stream) = with_a_liar().await;
    let (_from_a, mut receiver) = members[0].channel(Channel::Vote);
    // What it says properly is heard.
    stream.write_all(&frame(DB, 0, b"a vote")).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(hear(&mut receiver).await, (key(66).id(), b"a vote".to_vec()));
    let oversized = ((17 + (64 << 10) + 1) as u32).to_le_bytes();
    raw.write_until_ended(URGENT, &oversized).await;
    raw.write_until_ended(URGENT, &frame(DB, 9, b"no such channel")).await;
    raw.write_until_ended(BULK, &frame(DB, 0, b"a vote on the other stream")).await;
    raw.write_until_ended(BULK, &[0xff; 100]).await;
    // Scores fade, if only a little, in between.
    raw.write_until_ended(BULK, &frame(DB, 0xf3, &[])).await;
    raw.write_until_ended(URGENT, &[16, 0, 0, 0]).await;
    only_the_liar_is_blocked(&nets, &mut members).await;
    assert!(receiver.recv().now_or_never().is_none());
}

#[tokio::test]
async fn frames_for_a_cluster_that_does_not_count_the_sender_get_it_blocked() {
    let (nets, mut members, _raw, mut stream) = with_a_liar().await;
    // The first node is in this cluster, the liar is not; in the other nobody is.
    let theirs = DatabaseId::from_bytes([8; 16]);
    let mut a2 = Member::new(&nets[0], theirs, &[1, 2]);
    let (_from_a2, mut receiver) = a2.channel(Channel::Vote);
    for n in 0..30 {
        let db = if n % 2 == 0 { theirs } else { DatabaseId::from_bytes([9; 16]) };
        stream.write_all(&frame(db, 0, b"let me in")).await.unwrap();
    }
    let _ = stream.flush().await;
    only_the_liar_is_blocked(&nets, &mut members).await;
    assert!(receiver.recv().now_or_never().is_none());
}

#[tokio::test]
async fn a_member_far_above_its_rate_is_blocked() {
    let (nets, mut members, _raw, mut stream) = with_a_liar().await;
    let (_from_a, _receiver) = members[0].channel(Channel::Resolver);
    let flood = frame(DB, 2, &[]).repeat(1000);
    while stream.write_all(&flood).await.is_ok() && stream.flush().await.is_ok() {}
    only_the_liar_is_blocked(&nets, &mut members).await;
}

#[tokio::test]
async fn members_get_in_when_strangers_have_taken_all_places() {
    let config = NetConfig { connections_max: 2, ..NetConfig::default() };
    let (net, _inbound, _) = net::start(&key(1), &config).await.unwrap();
    let mut strangers = Vec::new();
    for n in [66, 67] {
        strangers.push(Raw::to(n, &net).await);
    }
    net.connections().wait_for(|n| *n == 2).await.unwrap();
    let a = Member::new(&net, DB, &[1, 2]);
    let other = node(2).await;
    let b = Member::new(&other, DB, &[1, 2]);
    b.knows(&net);
    a.sees(&[2]).await;
    b.sees(&[1]).await;
    assert!(Peer::to(3, net.node(), net.listeners()).await.ask(Request::Status).await.is_err());
}

#[tokio::test]
async fn a_member_has_few_connections() {
    let (nets, mut members, _raw, _stream) = with_a_liar().await;
    let mut more = Vec::new();
    for _ in 0..12 {
        more.push(Raw::to(66, &nets[0]).await);
    }
    let mut stream = more[11].open(URGENT).await;
    stream.write_all(&frame(DB, 0xf0, &[])).await.unwrap();
    stream.flush().await.unwrap();
    nets[0].connections().wait_for(|n| *n == 9).await.unwrap();
    members[0].sees(&[2, 66]).await;
    let (mut sender, _to_b) = members[1].channel(Channel::Certificate);
    let (_from_a, mut receiver) = members[0].channel(Channel::Certificate);
    say(&mut sender, 1, [1]);
    assert_eq!(hear(&mut receiver).await, (key(2).id(), vec![1]));
}

#[tokio::test]
async fn a_stranger_that_opens_streams_without_end_is_blocked() {
    let (nets, mut members) = pair().await;
    let mut raw = Raw::to(66, &nets[0]).await;
    let mut connections = nets[0].connections();
    connections.wait_for(|n| *n == 2).await.unwrap();
    while *connections.borrow() > 1 {
        let opened = raw.control.open_stream(raw.peer, StreamProtocol::new(URGENT)).await;
        if let Ok(mut stream) = opened {
            let _ = stream.read(&mut [0]).await;
        }
    }
    only_the_liar_is_blocked(&nets, &mut members).await;
}
