//! The asking side of sync: hears what snapshots members have, goes by one on which enough agree, fetches it, and begins with it.
//!
//! ```text
//! hear heads ── another committee? ──> handovers, one after the other
//!     │
//!     ├── f + 1 say one head, its root and its block are certified ──> pieces ──> import
//!     └── different heights, or no certificate yet ──> those that others named are asked for, and all are asked for a newer one
//! ```
//! Rule     a committee is believed because the one before it signed its hash. Nothing is written before all of it is checked, and then
//!          in one batch. A member that was away keeps what it noted of its votes: only its state is replaced.
//! Source   DESIGN section 7; `docs/protocol/cluster.md`, "Sync"

use crate::fetch::{Fetch, Serve, run};
use crate::handover;
use crate::replica::{Link, Runtime, Timing};
use crate::scheme::{Identity, identity, node_id};
use crate::sync::is_snapshot_height;
use crate::wire::{Answer, Ask, SnapshotHead};
use commonware_p2p::{Blocker, Manager, Receiver, Sender, TrackedPeers};
use commonware_utils::ordered::Set;
use fluence_crypto::sign::{NodeKey, block_hash};
use fluence_crypto::vote::verify_certificate;
use fluence_engine::{Engine, SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, SnapshotError, StoreError, chunk_digest};
use fluence_types::block::{Certificate, Checkpoint, Handover, Members, epoch_of, quorum};
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::{DatabaseId, Height, NodeId, codec};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The engine's note of the certificate from which a database's log begins here.
const NOTE_ORIGIN: &[u8] = b"origin";
/// Longest certificate.
const CERTIFICATE_BYTES_MAX: usize = 1 << 10;
/// Pieces that are fetched at once.
const PIECES_AT_ONCE: usize = 4;
/// Heads that are kept of one member, and heights that all are asked for by name.
const HEADS_MAX: usize = 3;

/// What a newcomer needs to begin.
pub struct JoinConfig {
    /// The database. Where the engine has it, and is behind what its members keep, it is brought forward.
    pub db: DatabaseId,
    /// The node's key.
    pub key: Arc<NodeKey>,
    /// The committees it trusts, each from its consensus epoch on until the next: from the chain, or as they handed over. From the last
    /// of them on, their own handovers are followed.
    pub committees: BTreeMap<u64, Members>,
    /// Times, as of a replica.
    pub timing: Timing,
    /// After how long to give up.
    pub patience: Duration,
}

/// Why a newcomer did not get a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No committee was given, or one that is none.
    #[error("no committee to ask")]
    Committee,
    /// The engine.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot is of an epoch whose committee is not known: nobody gives the handovers up to it.
    #[error("the cluster is in epoch {needed}, whose committee is not known here")]
    Epoch {
        /// The epoch.
        needed: u64,
    },
    /// Too few members answered, or they did not agree.
    #[error("no snapshot on which {needed} members agree; {heard} gave one")]
    Agreement {
        /// Members that gave one.
        heard: usize,
        /// Members that must agree.
        needed: usize,
    },
    /// Its pieces could not be fetched.
    #[error("the snapshot of block {0} could not be fetched whole")]
    Pieces(Height),
    /// It was refused.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The network ended.
    #[error("the network ended")]
    Network,
}

/// The certificate at which a database's log begins here, if it began with a snapshot: what a restarted node starts its replica with.
///
/// # Errors
/// [`StoreError`] where it cannot be read.
pub fn origin(engine: &Engine, db: DatabaseId) -> Result<Option<Certificate>, StoreError> {
    let decode = |bytes: Vec<u8>| codec::decode("origin", &bytes, CERTIFICATE_BYTES_MAX);
    let note = engine.note(db, NOTE_ORIGIN)?;
    note.map(decode).transpose().map_err(|e| StoreError::Damaged(e.to_string()))
}

/// Fetches a snapshot from the members and begins the database with it, or goes on with it where the database is here and behind. A
/// replica started at the certificate that this gives goes on from there. No replica of the database may run meanwhile. The owner must
/// have named this node before, else the members do not know it.
///
/// # Errors
/// [`JoinError`]. Nothing is written then, and it may be tried again.
#[allow(clippy::manual_async_fn, reason = "said so, the future is known to be Send wherever it is spawned")]
pub fn join<E, S, R, M, B>(
    context: E,
    engine: Arc<Engine>,
    config: JoinConfig,
    fetch: &mut Link<S, R>,
    manager: &mut M,
    blocker: B,
) -> impl Future<Output = Result<Certificate, JoinError>> + Send
where
    E: Runtime,
    S: Sender<PublicKey = Identity>,
    R: Receiver<PublicKey = Identity>,
    M: Manager<PublicKey = Identity>,
    B: Blocker<PublicKey = Identity>,
{
    async move {
        let (_, members) = config.committees.last_key_value().ok_or(JoinError::Committee)?;
        let (asks, orders) = Fetch::new();
        let nothing: Serve = Arc::new(|_, _| Answer::Not);
        let (timeout, link) = (config.timing.fetch, (&mut fetch.0, &mut fetch.1));
        let carrier = run(&context, link, orders, nothing, None, blocker.clone(), timeout);
        // Sets are numbered by height; a replica that ran before has tracked some.
        let set = engine.head(config.db).map_or(0, |head| head.height.0 + 2);
        let (clock, blocker) = (&context, Mutex::new(blocker));
        let mut newcomer = Newcomer { clock, config: &config, peers: Vec::new(), set, fetch: asks, blocker };
        newcomer.track(manager, members)?;
        let (carrier, joining) = (std::pin::pin!(carrier), std::pin::pin!(newcomer.join(&engine, manager)));
        match futures::future::select(joining, carrier).await {
            futures::future::Either::Left((done, _)) => done,
            futures::future::Either::Right(_) => Err(JoinError::Network),
        }
    }
}

struct Newcomer<'a, E, B> {
    clock: &'a E,
    config: &'a JoinConfig,
    /// Whom it asks, and the number of that set of peers.
    peers: Vec<Identity>,
    set: u64,
    fetch: Fetch,
    blocker: Mutex<B>,
}

/// What is known so far.
struct Known {
    /// Committees, each from its epoch on.
    committees: BTreeMap<u64, Members>,
    /// How the later ones of them came about.
    handovers: Vec<Handover>,
    /// Of each member, its last heads by height.
    said: BTreeMap<NodeId, BTreeMap<Height, SnapshotHead>>,
}

impl Known {
    fn committee(&self, epoch: u64) -> Option<&Members> {
        self.committees.range(..=epoch).next_back().map(|(_, members)| members)
    }

    /// The epoch from which on handovers are followed, and the committee that hands over next.
    fn last(&self) -> Option<(u64, &Members)> {
        self.committees.last_key_value().map(|(epoch, members)| (*epoch, members))
    }

    fn heads(&self) -> impl Iterator<Item = (&NodeId, &SnapshotHead)> {
        self.said.iter().flat_map(|(node, heads)| heads.values().map(move |head| (node, head)))
    }

    /// Heights of which a root or a block is certified, highest first: those are the chain's, whoever said them.
    fn heights(&self) -> Vec<Height> {
        let certified = |head: &SnapshotHead| head.root_certificate.is_some() || head.floor.is_some();
        let certified = self.heads().filter(|(_, head)| certified(head)).map(|(_, head)| head.height);
        certified.collect::<BTreeSet<_>>().into_iter().rev().take(HEADS_MAX).collect()
    }

    /// Whether the certificates of a height's root and block are here: until then, who has the snapshot is asked for them again.
    fn is_certified(&self, height: Height) -> bool {
        let of_height = || self.heads().map(|(_, head)| head).filter(|head| head.height == height);
        of_height().any(|head| head.root_certificate.is_some()) && of_height().any(|head| head.floor.is_some())
    }

    fn keep(&mut self, node: NodeId, head: SnapshotHead) {
        let heads = self.said.entry(node).or_default();
        heads.insert(head.height, head);
        if heads.len() > HEADS_MAX {
            heads.pop_first();
        }
    }

    /// The highest snapshot on which enough members agree, where its log goes on, and who has it.
    fn agreed(&self) -> Option<(SnapshotHead, Certificate, Vec<Identity>)> {
        let mut groups: BTreeMap<(Height, [u8; 32]), BTreeSet<NodeId>> = BTreeMap::new();
        for (node, head) in self.heads() {
            groups.entry((head.height, head.digest())).or_default().insert(*node);
        }
        for ((height, _), nodes) in groups.iter().rev() {
            let head = &self.said[nodes.first()?][height];
            let Some(members) = self.committee(epoch_of(*height)) else { continue };
            let same = |n: &&NodeId| {
                let said = &self.said[*n][height];
                (said.root, said.block) == (head.root, head.block)
            };
            let agreeing = nodes.iter().filter(same).filter(|n| members.iter().any(|m| m.node == **n));
            if agreeing.count() < agreement(members) {
                continue;
            }
            // Anyone's certificates will do: they were checked, and name root and block.
            let of_height = || self.heads().map(|(_, h)| h).filter(|h| h.height == *height);
            let certified = of_height().any(|h| h.root == head.root && h.root_certificate.is_some());
            let floor = of_height().filter(|h| h.block == head.block).find_map(|h| h.floor.clone());
            let Some(floor) = floor.filter(|_| certified) else { continue };
            let from = nodes.iter().filter_map(|n| identity(n).ok()).collect();
            return Some((head.clone(), floor, from));
        }
        None
    }
}

impl<E: Runtime, B: Blocker<PublicKey = Identity>> Newcomer<'_, E, B> {
    /// From now on asks these members.
    fn track(&mut self, manager: &mut impl Manager<PublicKey = Identity>, members: &Members) -> Result<(), JoinError> {
        let me = self.config.key.id();
        let others = members.iter().map(|m| m.node).filter(|n| *n != me);
        self.peers = others.filter_map(|n| identity(&n).ok()).collect();
        if self.peers.is_empty() {
            return Err(JoinError::Committee);
        }
        let of_me = identity(&me).map_err(|_| JoinError::Committee)?;
        let tracked = TrackedPeers::new(Set::from_iter_dedup(self.peers.clone()), Set::from_iter_dedup([of_me]));
        let _ = manager.track(self.set, tracked);
        self.set += 1;
        Ok(())
    }

    fn block(&self, peer: Identity, why: &'static str) {
        let mut blocker = self.blocker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        commonware_p2p::block!(blocker, peer, why);
    }

    async fn join(
        mut self,
        engine: &Engine,
        manager: &mut impl Manager<PublicKey = Identity>,
    ) -> Result<Certificate, JoinError> {
        let (db, until) = (self.config.db, self.clock.current() + self.config.patience);
        let committees = self.config.committees.clone();
        let mut known = Known { committees, handovers: Vec::new(), said: BTreeMap::new() };
        // What is older than the committees we know cannot be checked, and what is not above our head is of no use.
        let first = known.committees.first_key_value().map_or(0, |(epoch, _)| *epoch);
        let head = engine.head(db).map_or(0, |head| head.height.0 + 1);
        let mut at_least = Height(first.saturating_mul(EPOCH_BLOCKS).max(head));
        let (floor, mut failed, mut tried) = (at_least, None, None);
        loop {
            if self.hear(at_least, floor, &mut known).await? {
                let (_, members) = known.last().ok_or(JoinError::Committee)?;
                self.track(manager, members)?;
            }
            if let Some((head, floor, from)) = known.agreed() {
                let (height, bytes) = (head.height, head.len);
                tracing::info!(%db, %height, bytes, members = from.len(), "fetching the state of a database");
                if let Some(bytes) = self.pieces(&head, &from).await {
                    let expected = Checkpoint { db, height: head.height, root: head.root };
                    let mut notes = vec![(NOTE_ORIGIN.to_vec(), codec::encode(&floor))];
                    notes.extend(known.handovers.iter().map(handover::noted));
                    engine.import(db, &bytes, &expected, head.block, notes)?;
                    return Ok(floor);
                }
                // Others may have it, or a newer one.
                known.said.clear();
                failed = Some(head.height);
            }
            if self.clock.current() >= until {
                if let Some(height) = failed {
                    return Err(JoinError::Pieces(height));
                }
                let needed = known.committees.values().map(agreement).max().unwrap_or(1);
                return Err(JoinError::Agreement { heard: known.said.len(), needed });
            }
            for (node, head) in known.heads() {
                let (root, floor) = (head.root_certificate.is_some(), head.floor.is_some());
                tracing::debug!(%db, %node, height = %head.height, root, floor, "a member has a snapshot");
            }
            // Members that took theirs at different heights take the next together. And a root may never be certified, where the header
            // that would carry it carries the next one's, or its block is final by its descendant's certificate: so what did not do in
            // the round before is not waited for.
            let heights = known.heights();
            let newest = heights.first().copied().filter(|height| *height >= at_least);
            let several = heights.iter().filter(|height| **height >= at_least).count() > 1;
            if let Some(newest) = newest.filter(|newest| several || tried == Some(*newest)) {
                at_least = Height(newest.0 + 1);
            }
            tried = newest;
            self.clock.sleep(self.config.timing.fetch).await;
        }
    }

    /// Asks all members for their snapshots; keeps those of which nothing is wrong. Handovers are followed where a committee is not known;
    /// whether there was one.
    async fn hear(&self, at_least: Height, floor: Height, known: &mut Known) -> Result<bool, JoinError> {
        let named = known.heights();
        let mut asks = Vec::new();
        for peer in &self.peers {
            asks.push((peer.clone(), Ask::Head(at_least)));
            let said = known.said.get(&node_id(peer));
            let has = |height: &Height| known.is_certified(*height) && said.is_some_and(|h| h.contains_key(height));
            asks.extend(named.iter().filter(|height| !has(height)).map(|h| (peer.clone(), Ask::HeadAt(*h))));
        }
        let (fetch, clock) = (&self.fetch, self.clock);
        let asked = asks.into_iter().map(|(peer, ask)| async move { (fetch.ask(clock, &peer, ask).await, peer) });
        let answers: Vec<_> = futures::future::join_all(asked).await;
        let mut unknown: BTreeMap<Identity, u64> = BTreeMap::new();
        for (answer, peer) in answers {
            let head = match answer {
                Ok(Answer::Head(head)) => head,
                Ok(_) => {
                    self.block(peer, "an answer to another question");
                    continue;
                }
                Err(_) => continue,
            };
            let epoch = epoch_of(head.height);
            let (last, _) = known.last().ok_or(JoinError::Committee)?;
            let Some(members) = known.committee(epoch).filter(|_| head.height >= floor) else { continue };
            match self.check(&head, members) {
                Ok(()) => known.keep(node_id(&peer), *head),
                // Certified by others than the last that we know: perhaps by those who came after them.
                Err(Wrong::Uncertified(_)) if epoch > last => _ = unknown.insert(peer, epoch),
                Err(Wrong::Uncertified(why) | Wrong::Malformed(why)) => {
                    known.said.remove(&node_id(&peer));
                    self.block(peer, why);
                }
            }
        }
        if unknown.is_empty() {
            return Ok(false);
        }
        let before = known.last().map(|(epoch, _)| epoch);
        for peer in unknown.keys() {
            self.follow(peer, known).await;
        }
        let (last, members) = known.last().ok_or(JoinError::Committee)?;
        if Some(last) != before {
            return Ok(true);
        }
        // One who speaks of another committee may lie, f + 1 do not.
        let mut epochs: Vec<u64> = unknown.into_values().collect();
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        epochs.get(agreement(members) - 1).map_or(Ok(false), |needed| Err(JoinError::Epoch { needed: *needed }))
    }

    /// Asks a member how the last committee that is known handed over, and those after it.
    async fn follow(&self, peer: &Identity, known: &mut Known) {
        let Some((from, _)) = known.last() else { return };
        let answer = self.fetch.ask(self.clock, peer, Ask::Handovers(from)).await;
        let handovers = match answer {
            Ok(Answer::Handovers(handovers)) => handovers,
            Ok(_) => return self.block(peer.clone(), "an answer to another question"),
            Err(_) => return,
        };
        for step in handovers.into_vec() {
            let Some((since, members)) = known.last() else { return };
            if let Err(why) = handover::check(self.config.db, since, members, &step) {
                return self.block(peer.clone(), why);
            }
            let epoch = step.certificate.header.consensus_epoch;
            known.committees.insert(epoch + 1, step.members.clone());
            known.handovers.push(step);
        }
    }

    fn check(&self, head: &SnapshotHead, members: &Members) -> Result<(), Wrong> {
        let expected = Checkpoint { db: self.config.db, height: head.height, root: head.root };
        let len = usize::try_from(head.len).unwrap_or(usize::MAX);
        if len > SNAPSHOT_BYTES_MAX || len.div_ceil(SNAPSHOT_CHUNK_BYTES) != head.chunks.len() {
            return Err(Wrong::Malformed("its length is not that of its pieces"));
        }
        if !is_snapshot_height(head.height) {
            return Err(Wrong::Malformed("a snapshot of a height at which nobody takes one"));
        }
        let of_epoch = |c: &Certificate| c.header.consensus_epoch == epoch_of(head.height);
        if let Some(root) = &head.root_certificate {
            if root.checkpoint() != expected || !of_epoch(root) {
                return Err(Wrong::Malformed("the certificate is not of its root"));
            }
            if verify_certificate(root, members).is_err() {
                return Err(Wrong::Uncertified("its root is not certified"));
            }
        }
        if let Some(floor) = &head.floor {
            let header = &floor.header;
            let same = header.db == self.config.db
                && header.height == head.height
                && of_epoch(floor)
                && block_hash(header) == head.block;
            if !same {
                return Err(Wrong::Malformed("the certificate is not of its block"));
            }
            if verify_certificate(floor, members).is_err() {
                return Err(Wrong::Uncertified("its block is not certified"));
            }
        }
        Ok(())
    }

    async fn pieces(&self, head: &SnapshotHead, from: &[Identity]) -> Option<Vec<u8>> {
        let digest = head.digest();
        let piece = |(at, want): (usize, [u8; 32])| async move {
            // Twice round: a member may be busy for a moment.
            for turn in 0..2 {
                for peer in self.fetch.order(self.clock.current(), from, at + turn) {
                    match self.fetch.ask(self.clock, &peer, Ask::Chunk(digest, at as u32)).await {
                        Ok(Answer::Chunk(bytes)) if chunk_digest(&bytes) == want => return Some(bytes.into_vec()),
                        Ok(_) => self.block(peer, "a piece that is not the snapshot's"),
                        Err(_) => {}
                    }
                }
                self.clock.sleep(self.config.timing.fetch).await;
            }
            None
        };
        let pieces = futures::stream::iter(head.chunks.iter().copied().enumerate()).map(piece);
        let mut pieces = std::pin::pin!(pieces.buffered(PIECES_AT_ONCE));
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend(piece?);
        }
        (bytes.len() as u64 == head.len).then_some(bytes)
    }
}

/// What is wrong with a head.
enum Wrong {
    /// Nobody honest says this.
    Malformed(&'static str),
    /// The committee that is known did not sign it.
    Uncertified(&'static str),
}

/// Members that must say the same so that one of them is honest.
pub(crate) fn agreement(members: &Members) -> usize {
    members.len() - quorum(members.len()) + 1
}
