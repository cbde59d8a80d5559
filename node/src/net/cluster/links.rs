//! Keeps a connection and two streams to every peer that a cluster speaks with.
//!
//! Dials    peers whose addresses are known, again after 0.2 s, doubling to 10 s, with jitter; a connection that lasted starts anew. Where
//!          no address is known, the peer's own connection serves.
//! Places   members are not counted among the node's connections, or strangers could take all places; each has a few of its own.
//! Chooses  both may have dialled: each side writes on the newest connection it knows, and reads what the other opened last. A stream
//!          that comes anew on a newer connection says that the older one is dead for the peer, so we follow it there.
//! Source   DESIGN section 7

use super::Offence;
use super::behaviour::Event;
use super::frame::Lane;
use super::hub::Hub;
use super::stream::{self, StreamEvent};
use crate::net::swarm::{Behaviour, node_id, peer_id};
use fluence_types::NodeId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm};
use rand::Rng;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Events of streams that wait for the swarm's task; above it their tasks wait.
const EVENTS_MAX: usize = 256;
/// Connections of one member. Those on both sides that dialled at once, and those that are dead without our knowing.
const CONNECTIONS_MAX: usize = 8;
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// What lasted so long was no failure.
const LASTED: Duration = Duration::from_secs(5);

/// When to try again.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    up_since: Option<Instant>,
    at: Option<Instant>,
}

impl Backoff {
    /// Tries at once, as if it were the first time.
    fn now(&mut self, now: Instant) {
        *self = Self { at: Some(now), ..Self::default() };
    }

    fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
        self.at = None;
    }

    /// `jitter` is from 0 to 1.
    fn failed(&mut self, now: Instant, jitter: f64) {
        if self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= LASTED) {
            self.failures = 0;
        }
        let delay = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.at = Some(now + delay.mul_f64(0.75 + jitter / 4.0));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

#[derive(Debug)]
enum Out {
    Down,
    Opening { connection: ConnectionId, id: u64 },
    Up { connection: ConnectionId, id: u64, task: AbortHandle },
}

impl Out {
    const fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Down => None,
            Self::Opening { connection, .. } | Self::Up { connection, .. } => Some(*connection),
        }
    }

    fn close(&mut self) {
        if let Self::Up { task, .. } = std::mem::replace(self, Self::Down) {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct In {
    connection: ConnectionId,
    id: u64,
    task: AbortHandle,
}

#[derive(Debug)]
struct Link {
    peer: PeerId,
    addresses: BTreeSet<Multiaddr>,
    dial: Backoff,
    out: [Out; 2],
    retry: [Backoff; 2],
    read: [Option<In>; 2],
}

impl Link {
    fn new(peer: PeerId) -> Self {
        let (out, retry) = ([Out::Down, Out::Down], Default::default());
        Self { peer, addresses: BTreeSet::new(), dial: Backoff::default(), out, retry, read: [None, None] }
    }

    fn close(&mut self) {
        self.out.iter_mut().for_each(Out::close);
        self.read.iter_mut().filter_map(Option::take).for_each(|read| read.task.abort());
    }

    /// When something is to be done.
    fn due(&self) -> Option<Instant> {
        [self.dial.at, self.retry[0].at, self.retry[1].at].into_iter().flatten().min()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

fn jitter() -> f64 {
    rand::thread_rng().gen_range(0.0..1.0)
}

/// All of them. Part of the swarm's task.
#[derive(Debug)]
pub(in crate::net) struct Links {
    pub(in crate::net) hub: Arc<Hub>,
    /// What the streams' tasks say; hand it to [`Self::stream_event`].
    pub(in crate::net) events: mpsc::Receiver<StreamEvent>,
    sender: mpsc::Sender<StreamEvent>,
    links: HashMap<NodeId, Link>,
    next_id: u64,
    due: Option<Instant>,
}

impl Links {
    pub(in crate::net) fn new(hub: Arc<Hub>) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        Self { hub, events, sender, links: HashMap::new(), next_id: 0, due: None }
    }

    /// When [`Self::work`] has something to do.
    pub(in crate::net) const fn due(&self) -> Option<Instant> {
        self.due
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Waits until the clusters want someone else, or know more addresses; [`Self::realign`] then.
    pub(in crate::net) async fn changed(hub: &Hub) {
        hub.changed.notified().await;
    }

    /// Brings the links in line with what the clusters want.
    pub(in crate::net) fn realign(&mut self, swarm: &mut Swarm<Behaviour>) {
        let (mut wanted, now) = (self.hub.wanted(), Instant::now());
        self.links.retain(|node, link| {
            let is_wanted = wanted.contains_key(node);
            if !is_wanted {
                swarm.behaviour_mut().limits.remove_peer_id(&link.peer);
            }
            is_wanted
        });
        for (node, addresses) in wanted.drain() {
            let Some(peer) = peer_id(&node) else { continue };
            let is_new = !self.links.contains_key(&node);
            let link = self.links.entry(node).or_insert_with(|| Link::new(peer));
            if is_new {
                swarm.behaviour_mut().limits.bypass_peer_id(&peer);
                if swarm.is_connected(&peer) {
                    link.dial.up(now);
                    link.retry.iter_mut().for_each(|retry| retry.now(now));
                }
            }
            if link.addresses != addresses {
                link.addresses = addresses;
                if !swarm.is_connected(&peer) {
                    link.dial.now(now);
                }
            }
        }
        self.work(swarm);
    }

    /// Dials and opens what is due.
    pub(in crate::net) fn work(&mut self, swarm: &mut Swarm<Behaviour>) {
        let now = Instant::now();
        for link in self.links.values_mut() {
            let connection = swarm.behaviour().cluster.connection(&link.peer);
            if link.dial.is_due(now) {
                link.dial.at = None;
                if connection.is_none() && !link.addresses.is_empty() {
                    let dial = DialOpts::peer_id(link.peer)
                        .condition(PeerCondition::DisconnectedAndNotDialing)
                        .addresses(link.addresses.iter().cloned().collect())
                        .build();
                    if let Err(error) = swarm.dial(dial) {
                        tracing::debug!(peer = %link.peer, %error, "cannot dial a member");
                        link.dial.failed(now, jitter());
                    }
                }
            }
            for lane in Lane::ALL {
                let (out, retry) = (&mut link.out[lane as usize], &mut link.retry[lane as usize]);
                if !retry.is_due(now) {
                    continue;
                }
                retry.at = None;
                if let (Out::Down, Some(connection)) = (&out, connection) {
                    self.next_id += 1;
                    *out = Out::Opening { connection, id: self.next_id };
                    swarm.behaviour_mut().cluster.open(link.peer, connection, lane, self.next_id);
                }
            }
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        self.due = self.links.values().filter_map(Link::due).min();
    }

    /// A connection came up.
    pub(in crate::net) fn connected(&mut self, peer: &PeerId, swarm: &mut Swarm<Behaviour>) {
        let now = Instant::now();
        let Some(link) = node_id(peer).and_then(|node| self.links.get_mut(&node)) else { return };
        if let Some(oldest) = swarm.behaviour().cluster.surplus(peer, CONNECTIONS_MAX) {
            swarm.close_connection(oldest);
        }
        link.dial.up(now);
        for (out, retry) in link.out.iter().zip(&mut link.retry) {
            if matches!(out, Out::Down) {
                retry.now(now);
            }
        }
        self.work(swarm);
    }

    /// A connection went down, and its streams with it.
    pub(in crate::net) fn closed(&mut self, peer: &PeerId, connection: ConnectionId, swarm: &mut Swarm<Behaviour>) {
        let now = Instant::now();
        let Some(node) = node_id(peer) else { return };
        let Some(link) = self.links.get_mut(&node) else { return };
        let is_connected = swarm.is_connected(peer);
        for lane in Lane::ALL {
            let (out, retry) = (&mut link.out[lane as usize], &mut link.retry[lane as usize]);
            if out.connection() == Some(connection) {
                if let Out::Up { id, .. } = out {
                    // Its task says so too; who asks in between must not think that the peer is there.
                    self.hub.write_over(node, lane, *id);
                }
                out.close();
                if is_connected {
                    retry.now(now);
                }
            }
            // Yamux does not wake a reader when its connection closes from our side.
            if let Some(read) = link.read[lane as usize].take_if(|read| read.connection == connection) {
                read.task.abort();
                self.hub.read_over(node, lane, read.id);
            }
        }
        if !is_connected {
            link.dial.failed(now, jitter());
        }
        self.work(swarm);
    }

    /// A dial failed: ours, or one for a request.
    pub(in crate::net) fn dial_failed(&mut self, peer: &PeerId, swarm: &Swarm<Behaviour>) {
        let Some(link) = node_id(peer).and_then(|node| self.links.get_mut(&node)) else { return };
        if !swarm.is_connected(peer) && link.dial.at.is_none() {
            link.dial.failed(Instant::now(), jitter());
            self.refresh();
        }
    }

    /// A stream is ours; returns what its peer did wrong.
    pub(in crate::net) fn stream(&mut self, event: Event, swarm: &mut Swarm<Behaviour>) -> Option<(NodeId, Offence)> {
        match event {
            Event::Inbound { peer, connection, lane, stream } => {
                let (node, id) = (node_id(&peer)?, self.id());
                if !self.hub.read_by(node, lane, id) {
                    // A member of a cluster that we are about to join may be early, and comes back later and later.
                    tracing::debug!(%node, "a stream of a peer that no cluster counts");
                    return Some((node, Offence::Flood));
                }
                if !self.links.contains_key(&node) {
                    self.realign(swarm);
                }
                let link = self.links.get_mut(&node)?;
                let read = stream::read(self.hub.clone(), node, lane, id, stream, self.sender.clone());
                let task = tokio::spawn(read).abort_handle();
                let old = link.read[lane as usize].replace(In { connection, id, task });
                let (now, moved) = (Instant::now(), old.as_ref().is_some_and(|old| old.connection != connection));
                if let Some(old) = old {
                    old.task.abort();
                }
                for (out, retry) in link.out.iter_mut().zip(&mut link.retry) {
                    if moved && out.connection().is_some_and(|ours| ours < connection) {
                        out.close();
                    }
                    // It wants us now, if it did not before.
                    if matches!(out, Out::Down) {
                        retry.now(now);
                    }
                }
                self.work(swarm);
                None
            }
            Event::Outbound { peer, lane, id, stream } => {
                let (node, now) = (node_id(&peer)?, Instant::now());
                let link = self.links.get_mut(&node)?;
                let (out, retry) = (&mut link.out[lane as usize], &mut link.retry[lane as usize]);
                let Out::Opening { connection, id: asked } = *out else { return None };
                if asked != id {
                    return None;
                }
                *out = Out::Down;
                match stream {
                    Ok(stream) => {
                        let (outbox, notify) = self.hub.attach(node, lane, id)?;
                        let write = stream::write(outbox, notify, node, lane, id, stream, self.sender.clone());
                        *out = Out::Up { connection, id, task: tokio::spawn(write).abort_handle() };
                        retry.up(now);
                    }
                    Err(why) => {
                        tracing::debug!(%node, %why, "a peer opens no stream");
                        retry.failed(now, jitter());
                        self.refresh();
                    }
                }
                None
            }
        }
    }

    /// What a stream's task said; returns what its peer did wrong.
    pub(in crate::net) fn stream_event(&mut self, event: StreamEvent) -> Option<(NodeId, Offence)> {
        match event {
            StreamEvent::Offence(node, offence) => return Some((node, offence)),
            StreamEvent::ReadOver(node, lane, id) => {
                self.hub.read_over(node, lane, id);
                if let Some(link) = self.links.get_mut(&node) {
                    link.read[lane as usize].take_if(|read| read.id == id);
                }
            }
            StreamEvent::WriteOver(node, lane, id) => {
                self.hub.write_over(node, lane, id);
                if let Some(link) = self.links.get_mut(&node) {
                    let (out, retry) = (&mut link.out[lane as usize], &mut link.retry[lane as usize]);
                    if matches!(out, Out::Up { id: up, .. } if *up == id) {
                        *out = Out::Down;
                        retry.failed(Instant::now(), jitter());
                        self.refresh();
                    }
                }
            }
        }
        None
    }

    /// Ends all streams.
    pub(in crate::net) fn stop(&mut self) {
        self.hub.stop();
        self.links.clear();
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_again_later_and_later_and_anew_after_what_lasted() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..8 {
            backoff.failed(start, 1.0);
            delays.push((backoff.at.unwrap() - start).as_millis());
        }
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.up(start);
        backoff.failed(start + Duration::from_secs(1), 1.0);
        assert_eq!(backoff.at.unwrap() - start, Duration::from_secs(11), "a second was not long");
        backoff.up(start);
        backoff.failed(start + LASTED, 0.0);
        assert_eq!(backoff.at.unwrap() - start - LASTED, Duration::from_millis(150));
        assert!(!backoff.is_due(start + LASTED));
        backoff.now(start);
        assert!(backoff.is_due(start));
    }
}
