//! What all clusters of the process share: who is a member of what, who is there, and the queues between them and the streams.
//!
//! Rule    one lock, held for map lookups only, never across an await and never while bytes are copied or written. The swarm's task, the
//!         readers and writers, and the consumers (on whatever runtime they run) meet here and nowhere else.
//! Hears   a frame is delivered if its sender, proven by the connection, is tracked by the cluster and not blocked in it, within its rate,
//!         its share of the inbox and its share of memory. Everything else is dropped, and what no correct member sends is an offence.
//! Order   of frames per (peer, channel): one reader per stream, and a reader that was replaced delivers nothing.

use super::frame::{Channel, Control, Head, Kind, LENGTH_BYTES, Lane, head};
use super::queue::{Bucket, Budget, Charge, Delivery, Frame, Inbox, Outbox, Push, lock};
use super::{Offence, node_of};
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{BlockedSubscription, PeerSetSubscription, PeerSetUpdate, Recipients, TrackedPeers};
use commonware_utils::channel::{mpsc, ring};
use commonware_utils::ordered::Set;
use fluence_types::{DatabaseId, NodeId};
use libp2p::Multiaddr;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};

/// Sets of peers that a cluster tracks: those of this consensus epoch and of the one before, whose last certificates are still on their way.
const SETS_KEPT: usize = 2;
/// How long a peer stays blocked in a cluster.
const BLOCK: Duration = Duration::from_secs(3600);
/// How long frames of a peer that is no member any more may still be on their way.
const GONE: Duration = Duration::from_secs(60);
/// Bytes of one peer's frames that wait for us.
const PEER_MEMORY_BYTES: usize = 32 << 20;
/// Control frames a second of one peer, and at once: each cluster says a few when a stream comes up or a committee changes.
const CONTROLS: (f64, f64) = (50.0, 2000.0);

/// Why a frame was dropped; its name in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    Offline,
    OutboundFull,
    OutboundMemory,
    TooLong,
    NotMember,
    Rate,
    InboundFull,
    InboundMemory,
}

impl Dropped {
    pub(super) fn count(self, frames: usize) {
        let reason = match self {
            Self::Offline => "offline",
            Self::OutboundFull => "outbound_full",
            Self::OutboundMemory => "outbound_memory",
            Self::TooLong => "too_long",
            Self::NotMember => "not_member",
            Self::Rate => "rate",
            Self::InboundFull => "inbound_full",
            Self::InboundMemory => "inbound_memory",
        };
        metrics::counter!("fluence_cluster_frames_dropped_total", "reason" => reason).increment(frames as u64);
    }
}

/// What to do with a frame whose head was read.
#[derive(Debug)]
pub(super) enum Admission {
    /// Read the payload and deliver it.
    Take([Charge; 2]),
    /// Skip the payload.
    Skip(Dropped),
    /// Skip the payload; the peer should not have sent it.
    Offence(Offence),
    /// A control frame: done.
    Done,
}

#[derive(Debug, Default)]
struct Cluster {
    sets: BTreeMap<u64, TrackedPeers<PublicKey>>,
    /// The union of the sets, without ourselves.
    members: HashMap<NodeId, PublicKey>,
    blocked: HashMap<NodeId, (PublicKey, Instant)>,
    addresses: HashMap<NodeId, Vec<Multiaddr>>,
    inboxes: [Option<Arc<Inbox>>; Channel::ALL.len()],
    outbound: HashMap<(NodeId, Channel), Bucket>,
    inbound: HashMap<(NodeId, Channel), Bucket>,
    subscribers: Vec<mpsc::UnboundedSender<PeerSetUpdate<PublicKey>>>,
    blocked_subscribers: Vec<ring::Sender<Set<PublicKey>>>,
    present: watch::Sender<Vec<NodeId>>,
}

impl Cluster {
    /// Whether the cluster speaks with a peer.
    fn speaks(&self, node: &NodeId) -> bool {
        self.members.contains_key(node) && !self.blocked.contains_key(node)
    }

    fn blocked_set(&self) -> Set<PublicKey> {
        Set::from_iter_dedup(self.blocked.values().map(|(key, _)| key.clone()))
    }

    fn publish_blocked(&mut self) {
        let set = self.blocked_set();
        self.blocked_subscribers.retain(|subscriber| subscriber.send_lossy(set.clone()));
    }

    fn all(&self) -> TrackedPeers<PublicKey> {
        let primary = Set::from_iter_dedup(self.sets.values().flat_map(|s| s.primary.iter().cloned()));
        let secondary = self.sets.values().flat_map(|s| s.secondary.iter().cloned());
        let secondary = Set::from_iter_dedup(secondary.filter(|key| primary.position(key).is_none()));
        TrackedPeers::new(primary, secondary)
    }

    fn update(&self) -> Option<PeerSetUpdate<PublicKey>> {
        let (index, latest) = self.sets.last_key_value()?;
        Some(PeerSetUpdate { index: *index, latest: latest.clone(), all: self.all() })
    }
}

#[derive(Debug)]
struct Peer {
    outbox: Arc<Outbox>,
    memory: Arc<Budget>,
    readers: [Option<u64>; 2],
    /// Clusters in which it counts us as a member.
    present: HashSet<DatabaseId>,
    /// Clusters in which it was a member until just now.
    gone: HashMap<DatabaseId, Instant>,
    controls: Bucket,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    clusters: HashMap<DatabaseId, Cluster>,
    /// Every peer of a cluster.
    peers: HashMap<NodeId, Peer>,
}

#[derive(Debug)]
pub(in crate::net) struct Hub {
    me: NodeId,
    state: Mutex<State>,
    /// Who is wanted, or where they are, has changed.
    pub(super) changed: Notify,
    inbound: Arc<Budget>,
    outbound: Arc<Budget>,
}

fn control(db: DatabaseId, control: Control) -> Frame {
    Frame { bytes: head(db, Kind::Control(control), 0).to_vec().into(), _charge: None }
}

impl Peer {
    fn say(&self, db: DatabaseId, word: Control) {
        self.outbox.push(db, Kind::Control(word), Lane::Urgent, control(db, word));
    }
}

impl State {
    /// Brings `peers` in line with the clusters, and tells peers what changed for them in `db`, given whom it spoke with before.
    fn realign(&mut self, me: NodeId, db: DatabaseId, before: &[NodeId], now: Instant) {
        let State { clusters, peers, .. } = self;
        let speaks = |node: &NodeId| clusters.get(&db).is_some_and(|c| c.speaks(node));
        let after: Vec<NodeId> = clusters.get(&db).map(|c| c.members.keys().copied().collect()).unwrap_or_default();
        debug_assert!(!after.contains(&me), "we are no peer of ourselves");
        for node in before.iter().filter(|node| !speaks(node)) {
            if let Some(peer) = peers.get_mut(node) {
                peer.present.remove(&db);
                peer.gone.insert(db, now);
                peer.outbox.forget(db);
                peer.say(db, Control::Gone);
            }
        }
        for node in after.iter().filter(|node| speaks(node) && !before.contains(node)) {
            let peer = peers.entry(*node).or_insert_with(|| Peer {
                outbox: Arc::default(),
                memory: Budget::new(PEER_MEMORY_BYTES),
                readers: [None; 2],
                present: HashSet::new(),
                gone: HashMap::new(),
                controls: Bucket::full(CONTROLS.1, now),
            });
            peer.gone.remove(&db);
            peer.say(db, Control::Here);
        }
        peers.retain(|node, _| clusters.values().any(|c| c.speaks(node)));
        self.publish_present(db);
    }

    fn spoken(&self, db: DatabaseId) -> Vec<NodeId> {
        let Some(cluster) = self.clusters.get(&db) else { return Vec::new() };
        cluster.members.keys().filter(|node| cluster.speaks(node)).copied().collect()
    }

    fn publish_present(&self, db: DatabaseId) {
        let Some(cluster) = self.clusters.get(&db) else { return };
        let is_present = |node: &&NodeId| {
            cluster.speaks(node) && self.peers.get(node).is_some_and(|peer| peer.present.contains(&db))
        };
        let mut present: Vec<NodeId> = cluster.members.keys().filter(is_present).copied().collect();
        present.sort_unstable();
        cluster.present.send_if_modified(|old| {
            let changed = *old != present;
            *old = present;
            changed
        });
    }

    /// A peer said nothing yet, or has gone: whoever it was, it has to say `HERE` again.
    fn absent(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        for db in std::mem::take(&mut peer.present) {
            self.publish_present(db);
        }
    }
}

impl Hub {
    pub(in crate::net) fn new(me: NodeId, memory_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            me,
            state: Mutex::default(),
            changed: Notify::new(),
            inbound: Budget::new(memory_bytes),
            outbound: Budget::new(memory_bytes),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    // Clusters.

    /// Adds a cluster; false where it is there already, `None` once the network has stopped.
    pub(super) fn register(&self, db: DatabaseId) -> Option<bool> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        if state.clusters.contains_key(&db) {
            return Some(false);
        }
        state.clusters.insert(db, Cluster::default());
        Some(true)
    }

    pub(super) fn unregister(&self, db: DatabaseId) {
        let mut state = self.lock();
        let before = state.spoken(db);
        if let Some(cluster) = state.clusters.remove(&db) {
            cluster.inboxes.into_iter().flatten().for_each(|inbox| inbox.close(false));
        }
        state.realign(self.me, db, &before, Instant::now());
        drop(state);
        self.changed.notify_one();
    }

    /// Nothing is sent or heard any more.
    pub(in crate::net) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.peers.clear();
        for cluster in state.clusters.values_mut() {
            cluster.inboxes.iter().flatten().for_each(|inbox| inbox.close(false));
            cluster.subscribers.clear();
            cluster.blocked_subscribers.clear();
            cluster.present.send_replace(Vec::new());
        }
    }

    pub(super) fn listen(&self, db: DatabaseId, channel: Channel) -> Arc<Inbox> {
        let inbox = Inbox::new(channel.rule().queue);
        let mut state = self.lock();
        let stopped = state.stopped;
        match state.clusters.get_mut(&db) {
            Some(cluster) if !stopped => cluster.inboxes[channel as usize] = Some(inbox.clone()),
            _ => inbox.close(true),
        }
        inbox
    }

    // Membership.

    pub(super) fn track(&self, db: DatabaseId, id: u64, peers: TrackedPeers<PublicKey>) -> Feedback {
        let mut guard = self.lock();
        let state = &mut *guard;
        let before = state.spoken(db);
        if state.stopped {
            return Feedback::Closed;
        }
        let Some(cluster) = state.clusters.get_mut(&db) else { return Feedback::Closed };
        if cluster.sets.last_key_value().is_some_and(|(last, _)| id <= *last) {
            if cluster.sets.get(&id).is_none_or(|kept| *kept != distinct(peers)) {
                tracing::warn!(%db, id, "a set of peers that is older than the last, or another under its number: ignored");
            }
            return Feedback::Ok;
        }
        cluster.sets.insert(id, distinct(peers));
        while cluster.sets.len() > SETS_KEPT {
            cluster.sets.pop_first();
        }
        let members = cluster.all().union().into_iter().map(|key| (node_of(&key), key));
        cluster.members = members.filter(|(node, _)| *node != self.me).collect();
        let members = &cluster.members;
        cluster.outbound.retain(|(node, _), _| members.contains_key(node));
        cluster.inbound.retain(|(node, _), _| members.contains_key(node));
        let update = cluster.update().expect("a set was inserted");
        cluster.subscribers.retain(|subscriber| subscriber.send(update.clone()).is_ok());
        state.realign(self.me, db, &before, Instant::now());
        drop(guard);
        self.changed.notify_one();
        Feedback::Ok
    }

    pub(super) fn peer_set(&self, db: DatabaseId, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.lock().clusters.get(&db)?.sets.get(&id).cloned()
    }

    pub(super) fn subscribe(&self, db: DatabaseId) -> PeerSetSubscription<PublicKey> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.lock();
        if let Some(cluster) = state.clusters.get_mut(&db) {
            cluster.subscribers.retain(|subscriber| !subscriber.is_closed());
            if let Some(update) = cluster.update() {
                let _ = sender.send(update);
            }
            cluster.subscribers.push(sender);
        }
        receiver
    }

    pub(super) fn block(&self, db: DatabaseId, key: PublicKey) -> Feedback {
        let (node, now) = (node_of(&key), Instant::now());
        let mut guard = self.lock();
        let state = &mut *guard;
        let before = state.spoken(db);
        let Some(cluster) = state.clusters.get_mut(&db) else { return Feedback::Closed };
        if node == self.me {
            return Feedback::Ok;
        }
        cluster.blocked.insert(node, (key, now + BLOCK));
        cluster.publish_blocked();
        metrics::counter!("fluence_cluster_peers_blocked_total").increment(1);
        state.realign(self.me, db, &before, now);
        drop(guard);
        self.changed.notify_one();
        Feedback::Ok
    }

    pub(super) fn blocked(&self, db: DatabaseId) -> BlockedSubscription<PublicKey> {
        let (sender, receiver) = ring::channel(NonZeroUsize::MIN);
        if let Some(cluster) = self.lock().clusters.get_mut(&db) {
            sender.send_lossy(cluster.blocked_set());
            cluster.blocked_subscribers.retain(|subscriber| !subscriber.is_closed());
            cluster.blocked_subscribers.push(sender);
        }
        receiver
    }

    pub(super) fn set_addresses(&self, db: DatabaseId, node: NodeId, addresses: Vec<Multiaddr>) {
        if let Some(cluster) = self.lock().clusters.get_mut(&db) {
            if addresses.is_empty() {
                cluster.addresses.remove(&node);
            } else {
                cluster.addresses.insert(node, addresses);
            }
        }
        self.changed.notify_one();
    }

    pub(super) fn present(&self, db: DatabaseId) -> watch::Receiver<Vec<NodeId>> {
        let state = self.lock();
        state.clusters.get(&db).map_or_else(|| watch::channel(Vec::new()).1, |cluster| cluster.present.subscribe())
    }

    // Sending.

    /// Those of `recipients` that are there and within their rate, or when all of them will be within it.
    pub(super) fn check(
        &self,
        db: DatabaseId,
        channel: Channel,
        recipients: Recipients<PublicKey>,
    ) -> Result<Vec<PublicKey>, SystemTime> {
        let (now, rule) = (Instant::now(), channel.rule());
        let mut guard = self.lock();
        let State { clusters, peers, .. } = &mut *guard;
        let Some(cluster) = clusters.get_mut(&db) else { return Ok(Vec::new()) };
        let wanted: Vec<PublicKey> = match recipients {
            Recipients::All => cluster.members.values().cloned().collect(),
            Recipients::Some(keys) => keys,
            Recipients::One(key) => vec![key],
        };
        let (mut allowed, mut offline, mut wait) = (Vec::with_capacity(wanted.len()), 0, None::<Duration>);
        for key in wanted {
            let node = node_of(&key);
            if node == self.me || !cluster.speaks(&node) {
                continue;
            }
            if peers.get(&node).is_none_or(|peer| !peer.present.contains(&db)) {
                offline += 1;
                continue;
            }
            let bucket = cluster.outbound.entry((node, channel)).or_insert_with(|| Bucket::full(rule.burst, now));
            match bucket.take(rule.per_second, rule.burst, now) {
                Ok(()) => allowed.push(key),
                Err(more) => wait = wait.max(Some(more)),
            }
        }
        drop(guard);
        if offline > 0 {
            Dropped::Offline.count(offline);
        }
        match wait {
            Some(wait) if allowed.is_empty() => Err(SystemTime::now() + wait),
            _ => Ok(allowed),
        }
    }

    /// Puts a message into the queues of its recipients.
    pub(super) fn send(
        &self,
        db: DatabaseId,
        channel: Channel,
        recipients: &[PublicKey],
        payload: &[u8],
    ) -> Unreliable<Feedback> {
        if payload.len() > channel.rule().payload_max {
            Dropped::TooLong.count(recipients.len());
            let (most, bytes) = (channel.rule().payload_max, payload.len());
            tracing::error!(%db, channel = channel.name(), bytes, most, "a message above the limit of its channel is not sent");
            return Unreliable::Rejected;
        }
        if recipients.is_empty() {
            return Unreliable::new(if self.lock().stopped { Feedback::Closed } else { Feedback::Ok });
        }
        let Some(charge) = self.outbound.take(payload.len() + LENGTH_BYTES) else {
            Dropped::OutboundMemory.count(recipients.len());
            return Unreliable::Rejected;
        };
        let kind = Kind::Data(channel);
        let head = head(db, kind, payload.len());
        let mut bytes = Vec::with_capacity(head.len() + payload.len());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(payload);
        let frame = Frame { bytes: bytes.into(), _charge: Some(Arc::new(charge)) };
        let outboxes: Vec<Option<Arc<Outbox>>> = {
            let state = self.lock();
            if state.stopped || !state.clusters.contains_key(&db) {
                return Unreliable::new(Feedback::Closed);
            }
            let is_present = |peer: &&Peer| peer.present.contains(&db);
            let outbox = |key| state.peers.get(&node_of(key)).filter(is_present).map(|peer| peer.outbox.clone());
            recipients.iter().map(outbox).collect()
        };
        let (mut taken, mut evicted, mut full, mut offline) = (0, 0, 0, 0);
        for outbox in outboxes {
            match outbox.map_or(Push::Offline, |o| o.push(db, kind, channel.rule().lane, frame.clone())) {
                Push::Taken => taken += 1,
                Push::Evicted(n) => (taken, evicted) = (taken + 1, evicted + n),
                Push::Full => full += 1,
                Push::Offline => offline += 1,
            }
        }
        if evicted + full > 0 {
            Dropped::OutboundFull.count(evicted + full);
        }
        if offline > 0 {
            Dropped::Offline.count(offline);
        }
        match taken {
            0 => Unreliable::Rejected,
            _ if evicted + full > 0 => Unreliable::new(Feedback::Backoff),
            _ => Unreliable::new(Feedback::Ok),
        }
    }

    // Streams.

    /// Everyone a cluster speaks with, and where they are.
    pub(super) fn wanted(&self) -> HashMap<NodeId, BTreeSet<Multiaddr>> {
        let state = self.lock();
        let mut wanted: HashMap<NodeId, BTreeSet<Multiaddr>> = HashMap::new();
        if state.stopped {
            return wanted;
        }
        for cluster in state.clusters.values() {
            for node in cluster.members.keys().filter(|node| cluster.speaks(node)) {
                let addresses = cluster.addresses.get(node).into_iter().flatten().cloned();
                wanted.entry(*node).or_default().extend(addresses);
            }
        }
        wanted
    }

    /// A stream to `node` came up: `writer` takes frames from now. `None` where no cluster speaks with it.
    pub(super) fn attach(&self, node: NodeId, lane: Lane, writer: u64) -> Option<(Arc<Outbox>, Arc<Notify>)> {
        let mut state = self.lock();
        let outbox = state.peers.get(&node)?.outbox.clone();
        let notify = outbox.attach(lane, writer);
        if lane == Lane::Urgent {
            state.absent(&node);
            let peer = &state.peers[&node];
            let clusters = state.clusters.iter().filter(|(_, cluster)| cluster.speaks(&node));
            clusters.for_each(|(db, _)| peer.say(*db, Control::Here));
        }
        Some((outbox, notify))
    }

    /// The stream of `writer` went down.
    pub(super) fn write_over(&self, node: NodeId, lane: Lane, writer: u64) {
        let mut state = self.lock();
        let Some(peer) = state.peers.get(&node) else { return };
        if peer.outbox.detach(lane, writer) && lane == Lane::Urgent {
            state.absent(&node);
        }
    }

    /// A stream of `node` came up: `reader` delivers from now, and no other. False where no cluster speaks with it.
    pub(super) fn read_by(&self, node: NodeId, lane: Lane, reader: u64) -> bool {
        let mut state = self.lock();
        if lane == Lane::Urgent {
            state.absent(&node);
        }
        let Some(peer) = state.peers.get_mut(&node) else { return false };
        peer.readers[lane as usize] = Some(reader);
        true
    }

    /// A stream of `node` went down.
    pub(super) fn read_over(&self, node: NodeId, lane: Lane, reader: u64) {
        let mut state = self.lock();
        if let Some(peer) = state.peers.get_mut(&node)
            && peer.readers[lane as usize] == Some(reader)
        {
            peer.readers[lane as usize] = None;
            if lane == Lane::Urgent {
                state.absent(&node);
            }
        }
    }

    /// Decides about a frame whose head `reader` has read.
    pub(super) fn admit(&self, node: NodeId, reader: u64, lane: Lane, head: &Head, now: Instant) -> Admission {
        let mut guard = self.lock();
        let State { clusters, peers, .. } = &mut *guard;
        let peer = match peers.get_mut(&node) {
            Some(peer) if peer.readers[lane as usize] == Some(reader) => peer,
            _ => return Admission::Skip(Dropped::NotMember),
        };
        let cluster = clusters.get_mut(&head.db);
        let speaks = cluster.as_ref().is_some_and(|cluster| cluster.speaks(&node));
        let channel = match head.kind {
            Kind::Data(channel) => channel,
            Kind::Control(word) => {
                if peer.controls.take(CONTROLS.0, CONTROLS.1, now).is_err() {
                    return Admission::Offence(Offence::Flood);
                }
                match word {
                    // Where we do not count it yet, we shall ask once we do.
                    Control::Here | Control::Ack if !speaks => {}
                    Control::Here | Control::Ack => {
                        peer.present.insert(head.db);
                        if word == Control::Here {
                            peer.say(head.db, Control::Ack);
                        }
                    }
                    Control::Gone => {
                        peer.present.remove(&head.db);
                        peer.outbox.forget(head.db);
                    }
                }
                guard.publish_present(head.db);
                return Admission::Done;
            }
        };
        let Some(cluster) = cluster.filter(|_| speaks) else {
            // A member that we dropped or blocked may not know it yet.
            return match peer.gone.contains_key(&head.db) {
                true => Admission::Skip(Dropped::NotMember),
                false => Admission::Offence(Offence::Stranger),
            };
        };
        let rule = channel.rule();
        // What waited on both sides may come at once after a stall.
        let (per_second, burst) = (2.0 * rule.per_second, 2.0 * rule.burst + rule.queue as f64);
        let bucket = cluster.inbound.entry((node, channel)).or_insert_with(|| Bucket::full(burst, now));
        if bucket.take(per_second, burst, now).is_err() {
            Dropped::Rate.count(1);
            return Admission::Offence(Offence::Flood);
        }
        match &cluster.inboxes[channel as usize] {
            Some(inbox) if inbox.has_room(&node) => {}
            _ => return Admission::Skip(Dropped::InboundFull),
        }
        match (self.inbound.take(head.payload), peer.memory.take(head.payload)) {
            (Some(all), Some(own)) => Admission::Take([all, own]),
            _ => Admission::Skip(Dropped::InboundMemory),
        }
    }

    /// Delivers a frame that [`Self::admit`] admitted. What changed in between counts.
    pub(super) fn deliver(
        &self,
        node: NodeId,
        reader: u64,
        head: &Head,
        payload: Vec<u8>,
        charges: [Charge; 2],
    ) -> Result<(), Dropped> {
        let Kind::Data(channel) = head.kind else { return Ok(()) };
        let state = self.lock();
        let lane = channel.rule().lane;
        let is_reader = state.peers.get(&node).is_some_and(|peer| peer.readers[lane as usize] == Some(reader));
        let cluster = state.clusters.get(&head.db).filter(|cluster| is_reader && cluster.speaks(&node));
        let cluster = cluster.ok_or(Dropped::NotMember)?;
        let from = cluster.members[&node].clone();
        let delivery = Delivery { from, node, payload, _charges: charges };
        let inbox = cluster.inboxes[channel as usize].as_ref().ok_or(Dropped::InboundFull)?;
        if inbox.push(delivery) { Ok(()) } else { Err(Dropped::InboundFull) }
    }

    /// Once a second: blocks and farewells that are over, and the gauges.
    pub(in crate::net) fn tick(&self, now: Instant) {
        let mut guard = self.lock();
        let state = &mut *guard;
        for (node, peer) in &mut state.peers {
            peer.gone.retain(|db, since| {
                let is_blocked = state.clusters.get(db).is_some_and(|cluster| cluster.blocked.contains_key(node));
                is_blocked || now.saturating_duration_since(*since) < GONE
            });
        }
        let dbs: Vec<DatabaseId> = state.clusters.keys().copied().collect();
        let mut freed = false;
        for db in dbs {
            let before = state.spoken(db);
            let cluster = state.clusters.get_mut(&db).expect("a key of the map");
            let blocked = cluster.blocked.len();
            cluster.blocked.retain(|_, (_, until)| *until > now);
            if cluster.blocked.len() < blocked {
                cluster.publish_blocked();
                state.realign(self.me, db, &before, now);
                freed = true;
            }
        }
        metrics::gauge!("fluence_cluster_clusters").set(state.clusters.len() as f64);
        let present = state.peers.values().filter(|peer| !peer.present.is_empty()).count();
        metrics::gauge!("fluence_cluster_peers").set(present as f64);
        metrics::gauge!("fluence_cluster_peers_wanted").set(state.peers.len() as f64);
        drop(guard);
        if freed {
            self.changed.notify_one();
        }
    }
}

/// A key in both roles has the first.
fn distinct(peers: TrackedPeers<PublicKey>) -> TrackedPeers<PublicKey> {
    let TrackedPeers { primary, secondary } = peers;
    let secondary = Set::from_iter_dedup(secondary.into_iter().filter(|key| primary.position(key).is_none()));
    TrackedPeers::new(primary, secondary)
}
