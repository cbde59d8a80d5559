//! A transport over libp2p: TCP, noise, yamux, request-response. It only dials; it never listens.
//!
//! Shape   one task owns the swarm; [`Dialer`] is a cloneable handle with a bounded queue; the last handle dropped ends the task.
//! Rule    a node is dialled by its id: noise proves that the other end has the id's key, or the connection is refused ([`TransportError::WrongPeer`]).
//! Limits  messages as in `fluence_wire`; requests in flight, time per request and idle connections as in [`DialOptions`].
//! Source  DESIGN section 7; wire format in `docs/protocol/wire.md`

use crate::transport::{Transport, TransportError};
use fluence_types::NodeId;
use fluence_wire::codec::Codec;
use fluence_wire::{PROTOCOL, Request, Response};
use futures::StreamExt;
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identity, noise, tcp, yamux};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Limits of a dialer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DialOptions {
    /// Longest time from request to response; proofs take the longest.
    pub request_timeout: Duration,
    /// Connections without requests are closed after this.
    pub idle_timeout: Duration,
    /// Requests waiting in the handle's queue.
    pub queue: usize,
    /// Requests under way on one connection.
    pub streams: usize,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(180),
            idle_timeout: Duration::from_secs(60),
            queue: 64,
            streams: 32,
        }
    }
}

/// Why a dialer could not be made, or an address not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialerError {
    /// The node id is no Ed25519 public key.
    #[error("node id {0} is no Ed25519 public key")]
    NodeId(NodeId),
    /// Not a multiaddress.
    #[error("{text:?} is no multiaddress such as /ip4/127.0.0.1/tcp/4001: {why}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The address names another peer.
    #[error("address {address} names peer {found}, node {node} is {expected}")]
    OtherPeer {
        /// The address.
        address: String,
        /// Peer in the address.
        found: String,
        /// The node.
        node: NodeId,
        /// Its peer id.
        expected: String,
    },
    /// The swarm could not be built.
    #[error("libp2p: {0}")]
    Swarm(String),
}

/// The libp2p name of a node.
///
/// # Errors
/// [`DialerError::NodeId`].
pub fn peer_id(node: &NodeId) -> Result<PeerId, DialerError> {
    let key = identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).map_err(|_| DialerError::NodeId(*node))?;
    Ok(PeerId::from_public_key(&identity::PublicKey::from(key)))
}

/// Peer id and addresses of each node.
type Book = HashMap<NodeId, (PeerId, Vec<Multiaddr>)>;

struct Job {
    node: NodeId,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    request: Request,
    answer: oneshot::Sender<Result<Response, TransportError>>,
}

/// A handle to the task that owns the swarm.
#[derive(Clone)]
pub struct Dialer {
    jobs: mpsc::Sender<Job>,
    book: Arc<Mutex<Book>>,
    timeout: Duration,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// Starts the task on the current tokio runtime, under a fresh identity: nodes know writers by their signatures, not by their peers.
    ///
    /// # Errors
    /// [`DialerError::Swarm`].
    pub fn start(options: DialOptions) -> Result<Self, DialerError> {
        let failed = |e: &dyn std::fmt::Display| DialerError::Swarm(e.to_string());
        let swarm = SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .map_err(|e| failed(&e))?
            .with_behaviour(|_| {
                let config = request_response::Config::default()
                    .with_request_timeout(options.request_timeout)
                    .with_max_concurrent_streams(options.streams);
                let protocol = (StreamProtocol::new(PROTOCOL), ProtocolSupport::Outbound);
                request_response::Behaviour::with_codec(Codec, [protocol], config)
            })
            .map_err(|e| failed(&e))?
            .with_swarm_config(|c| c.with_idle_connection_timeout(options.idle_timeout))
            .build();
        let (jobs, queue) = mpsc::channel(options.queue);
        tokio::spawn(drive(swarm, queue, options));
        Ok(Self { jobs, book: Arc::default(), timeout: options.request_timeout })
    }

    /// Adds an address of a node. A trailing `/p2p/..` must name the node.
    ///
    /// # Errors
    /// [`DialerError`] where it is no address, or another peer's.
    pub fn add_address(&self, node: &NodeId, address: &str) -> Result<(), DialerError> {
        let bad = |why: String| DialerError::Address { text: address.chars().take(200).collect(), why };
        let mut parsed: Multiaddr = address.parse().map_err(|e: libp2p::multiaddr::Error| bad(e.to_string()))?;
        let expected = peer_id(node)?;
        if let Some(libp2p::multiaddr::Protocol::P2p(found)) = parsed.iter().last() {
            if found != expected {
                return Err(DialerError::OtherPeer {
                    address: parsed.to_string(),
                    found: found.to_string(),
                    node: *node,
                    expected: expected.to_string(),
                });
            }
            parsed.pop();
        }
        if parsed.is_empty() {
            return Err(bad("it has no host".to_owned()));
        }
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, addresses) = book.entry(*node).or_insert_with(|| (expected, Vec::new()));
        if !addresses.contains(&parsed) {
            addresses.push(parsed);
        }
        Ok(())
    }

    /// Forgets the addresses of a node.
    pub fn forget(&self, node: &NodeId) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

impl Transport for Dialer {
    fn request(
        &self,
        node: &NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        let found = self.book.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        let node = *node;
        async move {
            let (peer, addresses) = found.ok_or(TransportError::NoAddress(node))?;
            let (answer, response) = oneshot::channel();
            let job = Job { node, peer, addresses, request, answer };
            self.jobs.send(job).await.map_err(|_| TransportError::Closed)?;
            // The swarm's own limit starts when the stream is open; this one holds for the whole way.
            let limit = self.timeout + Duration::from_secs(15);
            match tokio::time::timeout(limit, response).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(TransportError::Closed),
                Err(_) => Err(TransportError::Timeout { node, seconds: limit.as_secs() }),
            }
        }
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
}

type DialSwarm = Swarm<request_response::Behaviour<Codec>>;
type Waiting = HashMap<OutboundRequestId, (NodeId, PeerId, oneshot::Sender<Result<Response, TransportError>>)>;

async fn drive(mut swarm: DialSwarm, mut queue: mpsc::Receiver<Job>, options: DialOptions) {
    let mut waiting = Waiting::new();
    // Why the last dial of a peer failed: the request's own error does not say.
    let mut dial_errors: HashMap<PeerId, DialError> = HashMap::new();
    loop {
        tokio::select! {
            job = queue.recv() => match job {
                Some(job) => {
                    dial_errors.remove(&job.peer);
                    let id = swarm.behaviour_mut().send_request_with_addresses(&job.peer, job.request, job.addresses);
                    waiting.insert(id, (job.node, job.peer, job.answer));
                }
                // The last handle is gone, and with it everybody who could wait for an answer.
                None => return,
            },
            event = swarm.select_next_some() => on_event(event, &mut waiting, &mut dial_errors, options),
        }
    }
}

fn on_event(
    event: SwarmEvent<request_response::Event<Request, Response>>,
    waiting: &mut Waiting,
    dial_errors: &mut HashMap<PeerId, DialError>,
    options: DialOptions,
) {
    match event {
        SwarmEvent::Behaviour(request_response::Event::Message {
            message: request_response::Message::Response { request_id, response },
            ..
        }) => {
            if let Some((_, _, answer)) = waiting.remove(&request_id) {
                let _ = answer.send(Ok(response));
            }
        }
        SwarmEvent::Behaviour(request_response::Event::OutboundFailure { request_id, error, .. }) => {
            if let Some((node, peer, answer)) = waiting.remove(&request_id) {
                let _ = answer.send(Err(failure(node, &error, dial_errors.get(&peer), options)));
            }
        }
        SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
            tracing::debug!(%peer, %error, "dial failed");
            dial_errors.insert(peer, error);
        }
        _ => {}
    }
}

fn failure(node: NodeId, error: &OutboundFailure, dial: Option<&DialError>, options: DialOptions) -> TransportError {
    match (error, dial) {
        (OutboundFailure::Timeout, _) => TransportError::Timeout { node, seconds: options.request_timeout.as_secs() },
        (OutboundFailure::DialFailure, Some(DialError::WrongPeerId { obtained, .. })) => {
            TransportError::WrongPeer { expected: node, found: obtained.to_string() }
        }
        (OutboundFailure::DialFailure, Some(why)) => TransportError::Unreachable { node, why: why.to_string() },
        (error, _) => TransportError::Unreachable { node, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::DatabaseId;
    use fluence_types::answer::OpenRefusal;
    use fluence_wire::message::Refusal;

    type Server = Swarm<request_response::Behaviour<Codec>>;

    /// A server on loopback that refuses everything, and its node id and address.
    async fn server() -> (NodeId, String) {
        let keys = identity::Keypair::generate_ed25519();
        let public = keys.public().try_into_ed25519().unwrap();
        let mut swarm: Server = SwarmBuilder::with_existing_identity(keys)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| {
                let protocol = (StreamProtocol::new(PROTOCOL), ProtocolSupport::Inbound);
                request_response::Behaviour::with_codec(Codec, [protocol], request_response::Config::default())
            })
            .unwrap()
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        tokio::spawn(async move {
            loop {
                let event = swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(request_response::Event::Message {
                    // Other requests are never answered: the channel is dropped.
                    message: request_response::Message::Request { request: Request::Writer { db, .. }, channel, .. },
                    ..
                }) = event
                {
                    let response = Response::Refused(Refusal::Open(OpenRefusal::UnknownDatabase(db)));
                    let _ = swarm.behaviour_mut().send_response(channel, response);
                }
            }
        });
        (NodeId::from_bytes(public.to_bytes()), address.to_string())
    }

    fn request() -> Request {
        Request::Writer { db: DatabaseId::from_bytes([1; 16]), address: fluence_types::Address::default() }
    }

    #[tokio::test]
    async fn asks_the_node_it_names_and_no_other() {
        let (node, address) = server().await;
        let dialer = Dialer::start(DialOptions::default()).unwrap();
        assert_eq!(dialer.request(&node, request()).await, Err(TransportError::NoAddress(node)));
        dialer.add_address(&node, &address).unwrap();
        let want = Response::Refused(Refusal::Open(OpenRefusal::UnknownDatabase(DatabaseId::from_bytes([1; 16]))));
        // Several at once over one connection.
        let second = dialer.clone();
        let (a, b) = tokio::join!(dialer.request(&node, request()), second.request(&node, request()));
        assert_eq!((a.unwrap(), b.unwrap()), (want.clone(), want));

        // The same address under another node's id: the key does not fit.
        let (other, _) = server().await;
        dialer.add_address(&other, &address).unwrap();
        let refused = dialer.request(&other, request()).await.unwrap_err();
        assert!(matches!(refused, TransportError::WrongPeer { expected, .. } if expected == other), "{refused}");
    }

    #[tokio::test]
    async fn silence_and_dead_addresses_are_errors() {
        let (node, address) = server().await;
        let options = DialOptions { request_timeout: Duration::from_millis(300), ..DialOptions::default() };
        let dialer = Dialer::start(options).unwrap();
        dialer.add_address(&node, &address).unwrap();
        let silent = dialer.request(&node, Request::Schemas { db: DatabaseId::default() }).await.unwrap_err();
        assert!(matches!(silent, TransportError::Timeout { .. } | TransportError::Unreachable { .. }), "{silent}");
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (dead, _) = server().await;
        dialer.add_address(&dead, &format!("/ip4/127.0.0.1/tcp/{port}")).unwrap();
        let refused = dialer.request(&dead, request()).await.unwrap_err();
        assert!(matches!(refused, TransportError::Unreachable { .. }), "{refused}");
    }

    #[tokio::test]
    async fn addresses_are_checked() {
        let (node, address) = server().await;
        let dialer = Dialer::start(DialOptions::default()).unwrap();
        let own = peer_id(&node).unwrap();
        dialer.add_address(&node, &format!("{address}/p2p/{own}")).unwrap();
        let (other, _) = server().await;
        let stranger = dialer.add_address(&other, &format!("{address}/p2p/{own}"));
        assert!(matches!(stranger, Err(DialerError::OtherPeer { .. })));
        for bad in ["", "127.0.0.1:80", "/ip4/300.0.0.1/tcp/1", &format!("/p2p/{own}")] {
            assert!(dialer.add_address(&node, bad).is_err(), "{bad}");
        }
        assert!(matches!(peer_id(&NodeId::from_bytes([2; 32])), Ok(_) | Err(DialerError::NodeId(_))));
    }
}
