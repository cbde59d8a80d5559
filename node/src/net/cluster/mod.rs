//! Clusters over the one swarm: Commonware's p2p traits, for any number of databases in a process.
//!
//! ```text
//! consensus ── ClusterSender ──> hub ──> outbox of a peer ──> stream ─ ─ ─> peer
//!           <─ ClusterReceiver ─ inbox <── hub: admitted? <── stream <─ ─ ─ peer
//!           ── ClusterPeers ───> hub ──> links: who is dialled, which streams are open
//! ```
//! Rule     a peer is its Ed25519 key, proven by the connection: [`PublicKey`] and [`NodeId`] are the same 32 bytes. Only members that a
//!          cluster tracks are heard in it. Nothing waits for a slow peer or a slow consumer; what does not fit is dropped and counted.
//! Runtime  senders and receivers use no runtime's handle: the swarm's task and consensus may live on two runtimes.
//! Limits   per channel ([`Channel`]): bytes of a message, messages a second to and from a member, messages that wait. In all:
//!          [`super::NetConfig::cluster_memory_bytes`], each way; 32 MiB of it for one peer.
//! Source   DESIGN section 7; `commonware-p2p` for what the traits promise

mod behaviour;
mod frame;
mod hub;
mod links;
mod queue;
mod stream;

pub use frame::Channel;

pub(super) use behaviour::Behaviour;
pub(super) use hub::Hub;
pub(super) use links::Links;

use super::{NetError, Offence, parse};
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::DecodeExt as _;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    BlockedSubscription, Blocker, CheckedSender, LimitedSender, Manager, Message, PeerSetSubscription, Provider,
    Receiver, Recipients, TrackedPeers,
};
use commonware_runtime::{IoBuf, IoBufs};
use fluence_types::limits::MEMBERS_MAX;
use fluence_types::{DatabaseId, NodeId};
use queue::Inbox;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use tokio::sync::watch;

/// Addresses of one member.
const ADDRESSES_MAX: usize = 8;

/// The node whose key this is.
#[must_use]
pub fn node_of(key: &PublicKey) -> NodeId {
    NodeId::from_bytes(key.as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
}

/// The key of a node.
///
/// # Errors
/// [`NetError::NotANode`] where the id is no Ed25519 point.
pub fn key_of(node: &NodeId) -> Result<PublicKey, NetError> {
    PublicKey::decode(commonware_codec::Copying(&node.as_bytes()[..])).map_err(|_| NetError::NotANode(*node))
}

/// A cluster's place in the network; gone when it and all its senders and receivers are dropped.
#[derive(Debug)]
struct Registration {
    hub: Arc<Hub>,
    db: DatabaseId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.unregister(self.db);
    }
}

/// The network as one cluster sees it.
#[derive(Debug)]
pub struct ClusterNet {
    registration: Arc<Registration>,
    taken: HashSet<Channel>,
}

impl ClusterNet {
    pub(super) fn register(hub: &Arc<Hub>, db: DatabaseId) -> Result<Self, NetError> {
        match hub.register(db) {
            None => Err(NetError::Stopped),
            Some(false) => Err(NetError::ClusterTaken(db)),
            Some(true) => {
                Ok(Self { registration: Arc::new(Registration { hub: hub.clone(), db }), taken: HashSet::new() })
            }
        }
    }

    /// The two ends of a channel. Frames of a channel that was not asked for are dropped.
    ///
    /// # Panics
    /// Where the channel was asked for before.
    pub fn channel(&mut self, channel: Channel) -> (ClusterSender, ClusterReceiver) {
        assert!(self.taken.insert(channel), "the channel {} is taken", channel.name());
        let Registration { hub, db } = &*self.registration;
        let inbox = hub.listen(*db, channel);
        let sender = ClusterSender { registration: self.registration.clone(), channel };
        (sender, ClusterReceiver { _registration: self.registration.clone(), channel, inbox })
    }

    /// Who is in the cluster, and where.
    #[must_use]
    pub fn peers(&self) -> ClusterPeers {
        ClusterPeers { registration: Arc::downgrade(&self.registration), db: self.registration.db }
    }
}

/// Sends to members. Clones share their rates.
#[derive(Clone, Debug)]
pub struct ClusterSender {
    registration: Arc<Registration>,
    channel: Channel,
}

impl LimitedSender for ClusterSender {
    type PublicKey = PublicKey;
    type Checked<'a> = CheckedClusterSender<'a>;

    /// Leaves out who is above its rate, and who is not there: its message would be dropped.
    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<CheckedClusterSender<'_>, SystemTime> {
        let Registration { hub, db } = &*self.registration;
        let recipients = hub.check(*db, self.channel, recipients)?;
        Ok(CheckedClusterSender { sender: self, recipients })
    }
}

/// Sends one message to those who are there and within their rate.
#[derive(Debug)]
pub struct CheckedClusterSender<'a> {
    sender: &'a ClusterSender,
    recipients: Vec<PublicKey>,
}

impl CheckedSender for CheckedClusterSender<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        self.recipients.clone()
    }

    /// A message above the channel's limit is refused and logged, not a panic. Channels have their own order of precedence, so that
    /// messages of one channel keep theirs: `priority` changes nothing.
    fn send(self, message: impl Into<IoBufs> + Send, _priority: bool) -> Unreliable<Feedback> {
        let Registration { hub, db } = &*self.sender.registration;
        hub.send(*db, self.sender.channel, &self.recipients, message.into().coalesce().as_ref())
    }
}

/// Hears members.
#[derive(Debug)]
pub struct ClusterReceiver {
    _registration: Arc<Registration>,
    channel: Channel,
    inbox: Arc<Inbox>,
}

impl Receiver for ClusterReceiver {
    type Error = NetError;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, NetError> {
        let delivery = self.inbox.pop().await.ok_or(NetError::Stopped)?;
        Ok((delivery.from, IoBuf::from(delivery.payload)))
    }

    fn capacity(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.channel.rule().queue * MEMBERS_MAX).expect("no limit is 0")
    }
}

impl Drop for ClusterReceiver {
    fn drop(&mut self) {
        self.inbox.close(true);
    }
}

/// Says who is in a cluster. Does not keep the cluster alive: once it has gone, everything is `Closed`.
#[derive(Clone, Debug)]
pub struct ClusterPeers {
    registration: Weak<Registration>,
    db: DatabaseId,
}

impl ClusterPeers {
    fn hub<T>(&self, act: impl FnOnce(&Hub, DatabaseId) -> T) -> Option<T> {
        self.registration.upgrade().map(|registration| act(&registration.hub, self.db))
    }

    /// Where a member is: multiaddresses, any of them. Replaces what was known; a member that is not connected is dialled at once.
    ///
    /// # Errors
    /// [`NetError::Address`] where one is malformed, [`NetError::Addresses`] where there are too many. Nothing has changed then.
    pub fn set_addresses(&self, node: NodeId, addresses: &[String]) -> Result<(), NetError> {
        if addresses.len() > ADDRESSES_MAX {
            return Err(NetError::Addresses { node, given: addresses.len(), most: ADDRESSES_MAX });
        }
        let addresses = addresses.iter().map(|a| parse(a)).collect::<Result<Vec<_>, _>>()?;
        self.hub(|hub, db| hub.set_addresses(db, node, addresses)).ok_or(NetError::Stopped)
    }

    /// Follows the members that can be spoken to now, in order: connected, and counting us as a member.
    #[must_use]
    pub fn present(&self) -> watch::Receiver<Vec<NodeId>> {
        self.hub(Hub::present).unwrap_or_else(|| watch::channel(Vec::new()).1)
    }
}

impl Provider for ClusterPeers {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.hub(|hub, db| hub.peer_set(db, id)).flatten()
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.hub(Hub::subscribe).unwrap_or_else(|| commonware_utils::channel::mpsc::unbounded_channel().1)
    }
}

impl Manager for ClusterPeers {
    /// The last two sets are heard; an id that is not above the last changes nothing.
    fn track<R>(&mut self, id: u64, peers: R) -> Feedback
    where
        R: Into<TrackedPeers<PublicKey>> + Send,
    {
        let peers = peers.into();
        self.hub(|hub, db| hub.track(db, id, peers)).unwrap_or(Feedback::Closed)
    }
}

impl Blocker for ClusterPeers {
    type PublicKey = PublicKey;

    /// For an hour the peer is neither sent to nor heard in this cluster. Other clusters decide for themselves.
    fn block(&mut self, peer: PublicKey) -> Feedback {
        self.hub(|hub, db| hub.block(db, peer)).unwrap_or(Feedback::Closed)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        let closed = || commonware_utils::channel::ring::channel(NonZeroUsize::MIN).1;
        self.hub(Hub::blocked).unwrap_or_else(closed)
    }
}
