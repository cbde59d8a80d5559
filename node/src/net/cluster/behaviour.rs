//! Opens and accepts the streams of clusters on the connections of the swarm, and hands them over. It keeps no stream itself.
//!
//! Why not `libp2p-stream` (0.5.0-alpha): it keeps an entry for every connection that ever was, refused ones included, so a stranger who
//! knocks often fills our memory; it dials without addresses, picks a connection at random, and loses streams that come two at a time.
//! Alive   a connection with streams is kept by libp2p; one without is closed after the idle time, as any other.

use super::frame::Lane;
use futures::future::{Ready, ready};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll};

/// Streams that a handler has ready and nobody took yet; libp2p takes them at once, so more is a peer that floods.
const READY_MAX: usize = 16;

/// What the swarm's task hears.
#[derive(Debug)]
pub(in crate::net) enum Event {
    /// A peer opened a stream.
    Inbound { peer: PeerId, connection: ConnectionId, lane: Lane, stream: Stream },
    /// A stream that we asked for, or why there is none.
    Outbound { peer: PeerId, lane: Lane, id: u64, stream: Result<Stream, String> },
}

#[derive(Debug, Default)]
pub(in crate::net) struct Behaviour {
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    pending: VecDeque<ToSwarm<Event, Open>>,
}

impl Behaviour {
    /// The newest connection to a peer: an older one may be dead without our knowing.
    pub(super) fn connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.connections.get(peer)?.last().copied()
    }

    /// The oldest connection to a peer that has more than `most`.
    pub(super) fn surplus(&self, peer: &PeerId, most: usize) -> Option<ConnectionId> {
        self.connections.get(peer).filter(|all| all.len() > most)?.first().copied()
    }

    /// Asks for a stream; an [`Event::Outbound`] with `id` follows unless the connection closes first.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, lane: Lane, id: u64) {
        let handler = NotifyHandler::One(connection);
        self.pending.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: Open { lane, id } });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.connections.entry(peer_id).or_default().push(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|c| *c != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.pending.push_back(ToSwarm::GenerateEvent(match event {
            Made::Inbound { lane, stream } => Event::Inbound { peer, connection, lane, stream },
            Made::Outbound { lane, id, stream } => Event::Outbound { peer, lane, id, stream },
        }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.pending.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Asks a handler for a stream.
#[derive(Debug)]
pub(in crate::net) struct Open {
    lane: Lane,
    id: u64,
}

/// A stream, or why there is none.
#[derive(Debug)]
pub(in crate::net) enum Made {
    Inbound { lane: Lane, stream: Stream },
    Outbound { lane: Lane, id: u64, stream: Result<Stream, String> },
}

#[derive(Debug, Default)]
pub(in crate::net) struct Handler {
    wanted: VecDeque<Open>,
    made: VecDeque<Made>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Made;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade(Lane::ALL.to_vec()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, Open, Made>> {
        if let Some(made) = self.made.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(made));
        }
        if let Some(open) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(Upgrade(vec![open.lane]), open);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Open) {
        self.wanted.push_back(event);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade, (), Open>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, lane), .. })
                if self.made.len() < READY_MAX =>
            {
                self.made.push_back(Made::Inbound { lane, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, lane), info }) => {
                self.made.push_back(Made::Outbound { lane, id: info.id, stream: Ok(stream) });
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: Open { lane, id }, error }) => {
                self.made.push_back(Made::Outbound { lane, id, stream: Err(error.to_string()) });
            }
            _ => {}
        }
    }
}

/// Negotiates one of the streams, and nothing after it.
#[derive(Debug)]
pub(in crate::net) struct Upgrade(Vec<Lane>);

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|lane| lane.protocol()).collect::<Vec<_>>().into_iter()
    }
}

fn lane_of(protocol: &StreamProtocol) -> Lane {
    if *protocol == Lane::Bulk.protocol() { Lane::Bulk } else { Lane::Urgent }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, Lane);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, lane_of(&protocol))))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, Lane);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, lane_of(&protocol))))
    }
}
