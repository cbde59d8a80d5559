//! The task that owns the swarm: commands in, requests of peers out, nothing shared.

use super::cluster::{self, Hub, Links};
use super::codec::{Codec, Received};
use super::peers::{Admission, Offence, PeerBook};
use super::{Command, Inbound, NetConfig, NetError, NetHandle, parse};
use fluence_crypto::sign::NodeKey;
use fluence_types::NodeId;
use fluence_wire::message::Refusal;
use fluence_wire::{PROTOCOL, Request, Response};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, InboundFailure, InboundRequestId, Message, OutboundFailure, OutboundRequestId};
use libp2p::request_response::{ProtocolSupport, ResponseChannel};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, identity, noise, ping, tcp, yamux};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Commands waiting for the task.
const COMMANDS_MAX: usize = 256;
/// Our own requests waiting for an answer.
const OUTBOUND_MAX: usize = 256;
/// Streams that a peer may open on one connection before any is negotiated.
const NEGOTIATING_MAX: usize = 32;
/// Yamux streams of a connection.
const STREAMS_MAX: usize = 128;
/// How long a stop waits for answers in flight.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a connection stays after its last answer when the node stops.
const LINGER: Duration = Duration::from_millis(500);
/// How long a stop waits for connections to close.
const CLOSE: Duration = Duration::from_secs(1);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    blocked: allow_block_list::Behaviour<BlockedPeers>,
    requests: request_response::Behaviour<Codec>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) cluster: cluster::Behaviour,
}

type Answered = (InboundRequestId, ResponseChannel<Response>, Option<Response>);

/// A place in flight. It is held until the line is done with the request and so is the service: a peer that hangs up does not stop
/// the work it asked for, and must not get the place back before.
struct Place {
    node: NodeId,
    /// The answer is not written yet, and the line is up.
    line: bool,
    /// The service works on it.
    work: bool,
}

struct Task {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    inbound: mpsc::Sender<Inbound>,
    waiting: HashMap<OutboundRequestId, (NodeId, oneshot::Sender<Result<Response, NetError>>)>,
    /// Answers being made.
    replies: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Requests admitted.
    in_flight: HashMap<InboundRequestId, Place>,
    in_flight_max: usize,
    peers: PeerBook,
    links: Links,
    listeners: watch::Sender<Vec<String>>,
    connections: watch::Sender<usize>,
    timeout_ms: u64,
    stop_by: Option<tokio::time::Instant>,
    /// When the last answer was written.
    answered: Option<Instant>,
}

pub(super) async fn start(
    key: &NodeKey,
    config: &NetConfig,
) -> Result<(NetHandle, mpsc::Receiver<Inbound>, JoinHandle<()>), NetError> {
    let mut swarm = build(key, config)?;
    let mut opening = HashMap::new();
    for text in &config.listen {
        check_free(&parse(text)?).map_err(|e| listen_error(text, &e))?;
        let id = swarm.listen_on(parse(text)?).map_err(|e| listen_error(text, &e))?;
        opening.insert(id, text.clone());
    }
    while !opening.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, .. } => {
                opening.remove(&listener_id);
            }
            SwarmEvent::ListenerError { listener_id, error } if opening.contains_key(&listener_id) => {
                return Err(listen_error(&opening[&listener_id], &error));
            }
            SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }
                if opening.contains_key(&listener_id) =>
            {
                return Err(listen_error(&opening[&listener_id], &error));
            }
            _ => {}
        }
    }
    let hub = Hub::new(key.id(), config.cluster_memory_bytes);
    let (commands, commands_rx) = mpsc::channel(COMMANDS_MAX);
    let (inbound, inbound_rx) = mpsc::channel(config.requests_max.max(1) as usize);
    let (listeners, listeners_rx) = watch::channel(Vec::new());
    let (connections, connections_rx) = watch::channel(0);
    let task = Task {
        swarm,
        commands: commands_rx,
        inbound,
        waiting: HashMap::new(),
        replies: FuturesUnordered::new(),
        in_flight: HashMap::new(),
        in_flight_max: config.requests_max as usize,
        peers: PeerBook::new(config.peer_limits()),
        links: Links::new(hub.clone()),
        listeners,
        connections,
        timeout_ms: config.request_timeout_ms,
        stop_by: None,
        answered: None,
    };
    task.publish_listeners();
    let handle = NetHandle { node: key.id(), commands, listeners: listeners_rx, connections: connections_rx, hub };
    Ok((handle, inbound_rx, tokio::spawn(task.run())))
}

/// libp2p shares a port with whoever listens there already (`SO_REUSEPORT`), and then gets half of the connections.
fn check_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => std::net::TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

fn listen_error(address: &str, e: &dyn std::fmt::Display) -> NetError {
    NetError::Listen { address: address.to_owned(), why: e.to_string() }
}

fn build(key: &NodeKey, config: &NetConfig) -> Result<Swarm<Behaviour>, NetError> {
    let start = |e: &dyn std::fmt::Display| NetError::Start(e.to_string());
    let keypair = key.expose(|secret| identity::Keypair::ed25519_from_bytes(*secret)).map_err(|e| start(&e))?;
    let timeout = Duration::from_millis(config.request_timeout_ms);
    let requests = request_response::Behaviour::with_codec(
        Codec::new(config.request_memory_bytes),
        [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(timeout)
            .with_max_concurrent_streams(2 * config.requests_per_peer_max.max(1) as usize),
    );
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(config.handshakes_max))
        .with_max_established(Some(config.connections_max))
        .with_max_established_per_peer(Some(config.connections_per_peer_max));
    let identify = identify::Config::new("/flu/id/1".to_owned(), keypair.public())
        .with_agent_version(crate::SOFTWARE.to_owned())
        .with_cache_size(0);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        blocked: allow_block_list::Behaviour::default(),
        requests,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        cluster: cluster::Behaviour::default(),
    };
    let muxer = || {
        let mut muxer = yamux::Config::default();
        muxer.set_max_num_streams(STREAMS_MAX);
        muxer
    };
    Ok(SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, muxer)
        .map_err(|e| start(&e))?
        .with_behaviour(|_| behaviour)
        .map_err(|e| start(&e))?
        .with_swarm_config(|c| {
            c.with_idle_connection_timeout(Duration::from_millis(config.idle_timeout_ms))
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        })
        .build())
}

impl Task {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let far = Duration::from_secs(3600);
        loop {
            let deadline = self.stop_by.unwrap_or_else(|| tokio::time::Instant::now() + far);
            let due = self.links.due();
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                Some((id, channel, response)) = self.replies.next(), if !self.replies.is_empty() => {
                    self.finished(id, |place| place.work = false);
                    if let Some(response) = response {
                        // An error means that the peer has gone; the event that says so frees its place.
                        let _ = self.swarm.behaviour_mut().requests.send_response(channel, response);
                    }
                }
                command = self.commands.recv(), if self.stop_by.is_none() => match command {
                    Some(Command::Stop) | None => {
                        self.links.stop();
                        self.stop_by = Some(tokio::time::Instant::now() + DRAIN);
                    }
                    Some(command) => self.command(command),
                },
                () = Links::changed(&self.links.hub), if self.stop_by.is_none() => self.links.realign(&mut self.swarm),
                Some(event) = self.links.events.recv() => {
                    if let Some((node, offence)) = self.links.stream_event(event) {
                        self.offend(node, offence);
                    }
                }
                () = tokio::time::sleep_until(due.map_or_else(|| tokio::time::Instant::now() + far, Into::into)),
                    if due.is_some() => self.links.work(&mut self.swarm),
                _ = tick.tick() => {
                    self.release();
                    self.links.hub.tick(Instant::now());
                }
                () = tokio::time::sleep_until(deadline), if self.stop_by.is_some() => break,
            }
            if self.stop_by.is_some() && self.in_flight.values().all(|place| !place.line) {
                break;
            }
        }
        for (_, reply) in std::mem::take(&mut self.waiting).into_values() {
            let _ = reply.send(Err(NetError::Stopped));
        }
        // An answer that was written may not have been read: a peer that sees the end of the connection first has none.
        let linger = self.answered.map_or(Duration::ZERO, |at| LINGER.saturating_sub(at.elapsed()));
        let poll = async {
            loop {
                self.swarm.select_next_some().await;
            }
        };
        let _: Result<(), _> = tokio::time::timeout(linger, poll).await;
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE, closed).await;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Request { to, addresses, request, reply } => {
                if self.waiting.len() >= OUTBOUND_MAX {
                    let _ = reply.send(Err(NetError::Busy(OUTBOUND_MAX)));
                    return;
                }
                let Some(peer) = peer_id(&to) else {
                    let _ = reply.send(Err(NetError::NotANode(to)));
                    return;
                };
                metrics::counter!("fluence_net_requests_sent_total").increment(1);
                let requests = &mut self.swarm.behaviour_mut().requests;
                let id = requests.send_request_with_addresses(&peer, Received::Outgoing(*request), addresses);
                self.waiting.insert(id, (to, reply));
            }
            Command::Offend(node, offence) => self.offend(node, offence),
            Command::Stop => {}
        }
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => self.request_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Cluster(event)) => {
                if let Some((node, offence)) = self.links.stream(event, &mut self.swarm) {
                    self.offend(node, offence);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(error) }))
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                // A peer that vanished without a word keeps its connection for minutes otherwise, and its streams with it.
                tracing::debug!(%peer, %error, "no answer to a ping: the connection is closed");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => self.publish_listeners(),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed");
                self.publish_listeners();
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                if let Some(node) = node_id(&peer_id) {
                    self.peers.connected(node, Instant::now());
                }
                self.links.connected(&peer_id, &mut self.swarm);
                self.publish_connections();
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                if let Some(node) = node_id(&peer_id)
                    && num_established == 0
                {
                    self.peers.disconnected(&node, Instant::now());
                }
                self.links.closed(&peer_id, connection_id, &mut self.swarm);
                self.publish_connections();
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "a dial failed");
                self.links.dial_failed(&peer, &self.swarm);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                metrics::counter!("fluence_net_handshakes_failed_total").increment(1);
                tracing::debug!(%send_back_addr, %error, "an incoming connection failed");
            }
            _ => {}
        }
    }

    fn request_event(&mut self, event: request_response::Event<Received, Response>) {
        use request_response::Event;
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                match node_id(&peer) {
                    Some(node) => self.received(node, request_id, request, channel),
                    None => drop(channel),
                }
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some((_, reply)) = self.waiting.remove(&request_id) {
                    let _ = reply.send(Ok(response));
                }
            }
            Event::OutboundFailure { request_id, error, .. } => self.failed(request_id, error),
            Event::InboundFailure { request_id, error, .. } => {
                if !matches!(error, InboundFailure::ResponseOmission) {
                    tracing::debug!(%error, "an answer was not delivered");
                }
                self.finished(request_id, |place| place.line = false);
            }
            Event::ResponseSent { request_id, .. } => {
                self.answered = Some(Instant::now());
                self.finished(request_id, |place| place.line = false);
            }
        }
    }

    /// Admits a request and hands it to the service, or refuses it.
    fn received(&mut self, node: NodeId, id: InboundRequestId, received: Received, channel: ResponseChannel<Response>) {
        let now = Instant::now();
        let refusal = match received {
            Received::Malformed(why) => {
                tracing::warn!(%node, %why, "a peer sent bytes that are no request");
                self.offend(node, Offence::Malformed);
                Refusal::Malformed(why)
            }
            Received::Truncated => {
                self.offend(node, Offence::Truncated);
                Refusal::Malformed("the frame ends early".to_owned())
            }
            Received::Overload => Refusal::Busy("too many bytes of requests in memory".to_owned()),
            Received::Outgoing(_) => unreachable!("the codec reads no `Outgoing`"),
            Received::Request(..) if self.stop_by.is_some() => Refusal::Busy("the node is stopping".to_owned()),
            Received::Request(..) if self.in_flight.len() >= self.in_flight_max => {
                Refusal::Busy(format!("{} requests are being answered", self.in_flight_max))
            }
            Received::Request(request, charge) => match self.peers.admit(node, now) {
                Admission::Admitted => {
                    let (reply, answer) = oneshot::channel();
                    metrics::counter!("fluence_net_requests_total", "kind" => kind(&request)).increment(1);
                    match self.inbound.try_send(Inbound { from: node, request, reply, charge }) {
                        Ok(()) => {
                            self.in_flight.insert(id, Place { node, line: true, work: true });
                            metrics::gauge!("fluence_net_requests_in_flight").set(self.in_flight.len() as f64);
                            self.replies.push(Box::pin(async move { (id, channel, answer.await.ok()) }));
                            return;
                        }
                        Err(_) => {
                            self.peers.done(&node);
                            Refusal::Busy("the service does not keep up".to_owned())
                        }
                    }
                }
                Admission::TooMany(limit) => Refusal::Busy(format!("{limit} requests of yours are being answered")),
                Admission::TooFast => {
                    self.offend(node, Offence::Flood);
                    Refusal::Busy("you ask too fast".to_owned())
                }
            },
        };
        metrics::counter!("fluence_net_requests_refused_total").increment(1);
        let _ = self.swarm.behaviour_mut().requests.send_response(channel, Response::Refused(refusal));
    }

    /// Notes that the line or the service is done with a request; the place is free once both are.
    fn finished(&mut self, id: InboundRequestId, note: impl FnOnce(&mut Place)) {
        let Some(place) = self.in_flight.get_mut(&id) else { return };
        note(place);
        let node = place.node;
        if !place.line && !place.work {
            self.in_flight.remove(&id);
            self.peers.done(&node);
            metrics::gauge!("fluence_net_requests_in_flight").set(self.in_flight.len() as f64);
        }
    }

    fn failed(&mut self, id: OutboundRequestId, error: OutboundFailure) {
        let Some((node, reply)) = self.waiting.remove(&id) else { return };
        let error = match error {
            OutboundFailure::DialFailure => NetError::Unreachable(node),
            OutboundFailure::Timeout => NetError::Timeout { node, ms: self.timeout_ms },
            OutboundFailure::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
                self.offend(node, Offence::Malformed);
                NetError::Malformed { node, why: e.to_string() }
            }
            other => NetError::Closed { node, why: other.to_string() },
        };
        let _ = reply.send(Err(error));
    }

    fn offend(&mut self, node: NodeId, offence: Offence) {
        metrics::counter!("fluence_net_offences_total", "kind" => offence.name()).increment(1);
        if self.peers.offend(node, offence, Instant::now()) {
            tracing::warn!(%node, "blocked: too many offences");
            metrics::counter!("fluence_net_peers_blocked_total").increment(1);
            if let Some(peer) = peer_id(&node) {
                self.swarm.behaviour_mut().blocked.block_peer(peer);
            }
        }
    }

    fn release(&mut self) {
        for node in self.peers.released(Instant::now()) {
            tracing::info!(%node, "no longer blocked");
            if let Some(peer) = peer_id(&node) {
                self.swarm.behaviour_mut().blocked.unblock_peer(peer);
            }
        }
    }

    fn publish_connections(&self) {
        let now = self.swarm.network_info().connection_counters().num_established();
        metrics::gauge!("fluence_net_connections").set(f64::from(now));
        self.connections.send_replace(now as usize);
    }

    fn publish_listeners(&self) {
        let id = *self.swarm.local_peer_id();
        let unique: HashSet<&Multiaddr> = self.swarm.listeners().collect();
        let mut all: Vec<_> = unique.into_iter().map(|a| a.clone().with(Protocol::P2p(id)).to_string()).collect();
        all.sort();
        self.listeners.send_replace(all);
    }
}

/// A request's name in metrics.
pub(crate) const fn kind(request: &Request) -> &'static str {
    match request {
        Request::Status => "status",
        Request::UploadBegin { .. } => "upload_begin",
        Request::UploadChunk { .. } => "upload_chunk",
        Request::UploadEnd { .. } => "upload_end",
        Request::Submit(_) => "submit",
        Request::Catalogue { .. } => "catalogue",
        Request::Header { .. } => "header",
        Request::Open(_) => "open",
        Request::ProveRangeSum(_) => "prove_range_sum",
        Request::EpochProof { .. } => "epoch_proof",
        Request::Writer { .. } => "writer",
        Request::Schemas { .. } => "schemas",
        _ => "other",
    }
}

/// The libp2p name of a node; `None` where the id is no Ed25519 point.
pub(super) fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The node behind a libp2p name: an Ed25519 key is short enough to stand in it as it is (identity multihash).
pub(super) fn node_id(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    let key = identity::PublicKey::try_decode_protobuf(bytes.get(2..)?).ok()?;
    Some(NodeId::from_bytes(key.try_into_ed25519().ok()?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_and_peer_ids_name_the_same_key() {
        let key = identity::Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let peer = key.public().to_peer_id();
        let node = node_id(&peer).unwrap();
        assert_eq!(peer_id(&node), Some(peer));
        assert_eq!(node.to_bytes(), key.public().try_into_ed25519().unwrap().to_bytes());
    }
}
