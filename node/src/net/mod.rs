//! The network as the rest of a node sees it: ask a peer, answer a peer. One task owns the libp2p swarm.
//!
//! Carries  `fluence_wire` requests and the messages of clusters ([`cluster`]) over TCP, Noise and Yamux; identify and ping beside them.
//!          The identity is the node's Ed25519 key.
//! Rule     no libp2p type leaves this module. Every channel, table and buffer is bounded; what comes above a limit is refused as `Busy`.
//! Limits   [`NetConfig`]: connections in all and per peer, requests in flight in all and per peer, requests a second, bytes of requests
//!          in memory, time per request, idle time. Peers that break the protocol are scored and blocked ([`peers`]).
//! Source   DESIGN section 7; `docs/protocol/wire.md`

pub mod cluster;
mod codec;
pub mod peers;
mod swarm;

pub use cluster::{Channel, ClusterNet, ClusterPeers, ClusterReceiver, ClusterSender};
pub use peers::Offence;
pub(crate) use swarm::kind;

use fluence_crypto::sign::NodeKey;
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::{Request, Response};
use libp2p::Multiaddr;
use peers::PeerLimits;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Where to listen and what to allow.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetConfig {
    /// Multiaddresses to listen on; port 0 takes a free one. Empty: dials only.
    pub listen: Vec<String>,
    /// Connections in all.
    pub connections_max: u32,
    /// Connections of one peer.
    pub connections_per_peer_max: u32,
    /// Handshakes at once.
    pub handshakes_max: u32,
    /// Requests being answered at once.
    pub requests_max: u32,
    /// Requests of one peer being answered at once.
    pub requests_per_peer_max: u32,
    /// Requests a second of one peer, sustained.
    pub requests_per_second: f64,
    /// Requests of one peer at once after a pause.
    pub requests_burst: f64,
    /// Bytes of all requests in memory.
    pub request_memory_bytes: usize,
    /// Milliseconds from the first byte of a request to the last of its answer.
    pub request_timeout_ms: u64,
    /// Milliseconds after which a connection without requests is closed.
    pub idle_timeout_ms: u64,
    /// Bytes of cluster messages in memory, each way.
    pub cluster_memory_bytes: usize,
    /// Score at which a peer is blocked; a malformed frame is 25.
    pub ban_score: f64,
    /// Seconds a peer stays blocked.
    pub ban_seconds: u64,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            connections_max: 256,
            connections_per_peer_max: 4,
            handshakes_max: 64,
            requests_max: 64,
            requests_per_peer_max: 16,
            requests_per_second: 2000.0,
            requests_burst: 1000.0,
            request_memory_bytes: 256 << 20,
            request_timeout_ms: 120_000,
            idle_timeout_ms: 60_000,
            cluster_memory_bytes: 256 << 20,
            ban_score: 100.0,
            ban_seconds: 600,
        }
    }
}

impl NetConfig {
    fn peer_limits(&self) -> PeerLimits {
        PeerLimits {
            requests_per_second: self.requests_per_second,
            burst: self.requests_burst.max(1.0),
            in_flight: self.requests_per_peer_max,
            ban_score: self.ban_score,
            ban: Duration::from_secs(self.ban_seconds),
            halve: Duration::from_secs(60),
        }
    }
}

/// Why the network did not start, or a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The text is no multiaddress.
    #[error("{0:?} is not a multiaddress")]
    Address(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The transport cannot be built.
    #[error("cannot start the network: {0}")]
    Start(String),
    /// The node id is no Ed25519 point.
    #[error("{0} is not the id of a node")]
    NotANode(NodeId),
    /// No connection to the peer.
    #[error("cannot reach {0}")]
    Unreachable(NodeId),
    /// No answer in time.
    #[error("{node} did not answer in {ms} ms")]
    Timeout {
        /// The peer.
        node: NodeId,
        /// The limit.
        ms: u64,
    },
    /// The connection closed, or the peer does not speak our protocol.
    #[error("{node}: {why}")]
    Closed {
        /// The peer.
        node: NodeId,
        /// What happened.
        why: String,
    },
    /// The peer's answer is no message.
    #[error("{node} sent garbage: {why}")]
    Malformed {
        /// The peer.
        node: NodeId,
        /// What is wrong.
        why: String,
    },
    /// More addresses than a node may have.
    #[error("{given} addresses of {node}, at most {most}")]
    Addresses {
        /// Whose.
        node: NodeId,
        /// How many.
        given: usize,
        /// The limit.
        most: usize,
    },
    /// The cluster is registered already.
    #[error("the cluster of {0} is registered already")]
    ClusterTaken(DatabaseId),
    /// Too many of our own requests are waiting.
    #[error("{0} requests are waiting already")]
    Busy(usize),
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}

/// A request of a peer. Dropping it unanswered closes the stream.
#[derive(Debug)]
pub struct Inbound {
    /// Who asks: proven by the handshake.
    pub from: NodeId,
    /// What it asks.
    pub request: Request,
    reply: oneshot::Sender<Response>,
    charge: codec::Charge,
}

impl Inbound {
    /// The parts: who, what, and where the answer goes.
    #[must_use]
    pub fn into_parts(self) -> (NodeId, Request, Reply) {
        (self.from, self.request, Reply { reply: self.reply, _charge: self.charge })
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Reply {
    reply: oneshot::Sender<Response>,
    _charge: codec::Charge,
}

impl Reply {
    /// Answers. Nothing happens if the peer has gone.
    pub fn send(self, response: Response) {
        let _ = self.reply.send(response);
    }
}

#[derive(Debug)]
enum Command {
    Request {
        to: NodeId,
        addresses: Vec<Multiaddr>,
        request: Box<Request>,
        reply: oneshot::Sender<Result<Response, NetError>>,
    },
    Offend(NodeId, Offence),
    Stop,
}

/// Speaks to the task that owns the swarm. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NetHandle {
    node: NodeId,
    commands: mpsc::Sender<Command>,
    listeners: watch::Receiver<Vec<String>>,
    connections: watch::Receiver<usize>,
    hub: Arc<cluster::Hub>,
}

impl NetHandle {
    /// Our id.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The real addresses we listen on, each with `/p2p/` and our peer id.
    #[must_use]
    pub fn listeners(&self) -> Vec<String> {
        self.listeners.borrow().clone()
    }

    /// Follows the number of established connections.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<usize> {
        self.connections.clone()
    }

    /// Asks `to`, dialling one of `addresses` where no connection is up.
    ///
    /// # Errors
    /// [`NetError`]; a [`Response::Refused`] is an answer.
    pub async fn request(&self, to: &NodeId, addresses: &[String], request: Request) -> Result<Response, NetError> {
        let addresses = addresses.iter().map(|a| parse(a)).collect::<Result<_, _>>()?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Request { to: *to, addresses, request: Box::new(request), reply };
        self.commands.send(command).await.map_err(|_| NetError::Stopped)?;
        answer.await.map_err(|_| NetError::Stopped)?
    }

    /// Registers a cluster; dropping the result, and the senders and receivers made of it, ends that.
    ///
    /// # Errors
    /// [`NetError::ClusterTaken`] where it is registered already, [`NetError::Stopped`].
    pub fn cluster(&self, db: DatabaseId) -> Result<ClusterNet, NetError> {
        ClusterNet::register(&self.hub, db)
    }

    /// Holds an offence against a peer; enough of them block it.
    pub async fn offend(&self, peer: NodeId, offence: Offence) {
        let _ = self.commands.send(Command::Offend(peer, offence)).await;
    }

    /// Refuses new requests, answers those in flight, and stops.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
        self.commands.closed().await;
    }
}

fn parse(address: &str) -> Result<Multiaddr, NetError> {
    address.parse().map_err(|_| NetError::Address(address.chars().take(120).collect()))
}

/// Starts the network: listens, then hands over the handle, the requests of peers, and the task.
///
/// # Errors
/// [`NetError`] where an address is malformed or taken.
pub async fn start(
    key: &NodeKey,
    config: &NetConfig,
) -> Result<(NetHandle, mpsc::Receiver<Inbound>, JoinHandle<()>), NetError> {
    swarm::start(key, config).await
}
