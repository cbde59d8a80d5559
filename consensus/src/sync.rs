//! How a new node begins: a snapshot of the state at one height, from members that agree on it, and the log from there.
//!
//! ```text
//! newcomer: Head(h) ──> members: each takes a snapshot after the next of the heights that all members know (4, 12, .., 52 of each epoch)
//! newcomer <── heads: height, root, pieces' hashes, a certificate that carries the root, the certificate of the block itself
//! f + 1 members say the same, both certificates hold ──> pieces, each checked when it comes ──> import, all segments become fills
//! ```
//! Rule     the root is certified by a quorum; what no root binds is what f + 1 members say, so one honest one. The certificate of the
//!          snapshot's own block is where the log goes on: that block is delivered again, and changes nothing.
//! Heights  snapshots are of heights whose certificates come in the same epoch, so that one committee has signed both.
//! Cost     a member makes a snapshot only when somebody asks, at most one in eight blocks, and drops it when nobody asks any more. Its log
//!          waits while it is made.
//! Source   DESIGN section 7; `docs/protocol/cluster.md`

use crate::fetch::{Fetch, Serve, run};
use crate::replica::{Link, Runtime, Timing};
use crate::scheme::{Identity, identity, node_id};
use crate::wire::{Answer, Ask, CELLS_MAX, SnapshotHead};
use commonware_p2p::{Blocker, Manager, Receiver, Sender, TrackedPeers};
use commonware_utils::ordered::Set;
use fluence_crypto::sign::{NodeKey, block_hash};
use fluence_crypto::vote::verify_certificate;
use fluence_engine::{
    Engine, SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, Snapshot, SnapshotError, StoreError, chunk_digest,
    snapshot_digest,
};
use fluence_types::block::{Certificate, Checkpoint, Members, quorum};
use fluence_types::limits::{EPOCH_BLOCKS, EXECUTION_LAG_MAX};
use fluence_types::{DatabaseId, Height, NodeId, codec};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The engine's note of the certificate from which a database's log begins here.
const NOTE_ORIGIN: &[u8] = b"origin";
/// Longest certificate.
const CERTIFICATE_BYTES_MAX: usize = 1 << 10;
/// Milliseconds of the log's own time for which a snapshot is kept after it was asked for last.
const KEPT_MS: u64 = 600_000;
/// And for which a question makes snapshots be taken.
const WANTED_MS: u64 = 60_000;
/// Pieces that are fetched at once.
const PIECES_AT_ONCE: usize = 4;

/// Whether snapshots are taken after this block.
const fn is_snapshot_height(height: Height) -> bool {
    let at = height.0 % EPOCH_BLOCKS;
    at % 8 == 4 && at + EXECUTION_LAG_MAX < EPOCH_BLOCKS - 1
}

// --- Members -----------------------------------------------------------------------------------------------------------

struct Taken {
    snapshot: Snapshot,
    floor: Option<Certificate>,
}

#[derive(Default)]
struct Shelf {
    /// Until when of the log's time snapshots are wanted, and from which height on.
    wanted: (u64, Height),
    /// Taken, and waiting for the certificate of its root.
    taken: Option<Taken>,
    /// The last two that are whole.
    ready: Vec<(SnapshotHead, Vec<u8>)>,
    /// When of the log's time one of them was asked for last.
    used_ms: u64,
    now_ms: u64,
}

/// A member's snapshots.
#[derive(Default)]
pub(crate) struct Snapshots(Mutex<Shelf>);

impl Snapshots {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told of every block that was executed, before the next one is.
    pub(crate) fn executed(&self, engine: &Engine, db: DatabaseId, height: Height, timestamp_ms: u64) {
        let mut shelf = self.lock();
        shelf.now_ms = timestamp_ms;
        if shelf.used_ms.saturating_add(KEPT_MS) < timestamp_ms {
            shelf.ready.clear();
        }
        if shelf.taken.as_ref().is_some_and(|t| t.snapshot.height.0 + EXECUTION_LAG_MAX < height.0) {
            shelf.taken = None;
        }
        let (until, from) = shelf.wanted;
        let wanted = until >= timestamp_ms && from <= height && shelf.taken.is_none();
        if !wanted || !is_snapshot_height(height) {
            return;
        }
        match engine.export(db) {
            Ok(snapshot) if snapshot.height == height => shelf.taken = Some(Taken { snapshot, floor: None }),
            Ok(_) => {}
            Err(error) => tracing::warn!(%db, %height, %error, "no snapshot could be taken"),
        }
    }

    /// Told of every certificate, in order.
    pub(crate) fn certified(&self, certificate: &Certificate) {
        let mut shelf = self.lock();
        let Some(taken) = &mut shelf.taken else { return };
        let height = taken.snapshot.height;
        if certificate.header.height == height {
            taken.floor = Some(certificate.clone());
        }
        if certificate.header.executed_height < height {
            return;
        }
        let Some(Taken { snapshot, floor }) = shelf.taken.take() else { return };
        // Where no block carries just this root, the next snapshot has more luck.
        if certificate.header.executed_height > height {
            return;
        }
        let Snapshot { height, root, block, bytes, chunks, .. } = snapshot;
        let Ok(chunks) = chunks.try_into() else { return };
        let (len, root_certificate) = (bytes.len() as u64, certificate.clone());
        let head = SnapshotHead { height, root, block, len, chunks, root_certificate, floor };
        if shelf.ready.len() == 2 {
            shelf.ready.remove(0);
        }
        shelf.ready.push((head, bytes));
        (shelf.used_ms, shelf.wanted) = (shelf.now_ms, (0, Height(0)));
    }

    fn head(&self, at_least: Height) -> Answer {
        let mut shelf = self.lock();
        let now = shelf.now_ms;
        match shelf.ready.last().filter(|(head, _)| head.height >= at_least) {
            Some((head, _)) => {
                let head = Box::new(head.clone());
                shelf.used_ms = now;
                Answer::Head(head)
            }
            None => {
                shelf.wanted = (now.saturating_add(WANTED_MS), at_least);
                Answer::Not
            }
        }
    }

    fn chunk(&self, digest: [u8; 32], at: u32) -> Answer {
        let mut shelf = self.lock();
        shelf.used_ms = shelf.now_ms;
        let of = |(head, _): &&(SnapshotHead, Vec<u8>)| head.digest() == digest;
        let chunk =
            shelf.ready.iter().find(of).and_then(|(_, bytes)| bytes.chunks(SNAPSHOT_CHUNK_BYTES).nth(at as usize));
        chunk.and_then(|c| c.to_vec().try_into().ok()).map_or(Answer::Not, Answer::Chunk)
    }
}

impl SnapshotHead {
    fn digest(&self) -> [u8; 32] {
        snapshot_digest(self.len, &self.chunks)
    }
}

/// What a member answers.
pub(crate) fn serve(engine: Arc<Engine>, db: DatabaseId, snapshots: Arc<Snapshots>) -> Serve {
    Arc::new(move |_, ask| match ask {
        Ask::Cells(segment, range) if range.count <= CELLS_MAX => {
            let opening = engine.view(db).and_then(|view| view.cells(segment, range));
            opening.map_or(Answer::Not, |opening| Answer::Cells(Box::new(opening)))
        }
        Ask::Cells(..) => Answer::Not,
        Ask::Head(at_least) => snapshots.head(at_least),
        Ask::Chunk(digest, at) => snapshots.chunk(digest, at),
    })
}

// --- Newcomers ---------------------------------------------------------------------------------------------------------

/// What a newcomer needs to begin.
pub struct JoinConfig {
    /// The database.
    pub db: DatabaseId,
    /// The node's key.
    pub key: Arc<NodeKey>,
    /// The committees it trusts, by consensus epoch: from the chain, then handed over. That of the present epoch must be among them.
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
    /// The snapshot is of an epoch whose committee is not known: follow the handovers up to it.
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

/// Fetches a snapshot from the members and begins the database with it. A replica started at the certificate that this gives goes on from
/// there. The owner must have named this node before, else the members do not know it.
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
        let me = config.key.id();
        let (_, members) = config.committees.last_key_value().ok_or(JoinError::Committee)?;
        let peers: Vec<Identity> =
            members.iter().map(|m| m.node).filter(|n| *n != me).filter_map(|n| identity(&n).ok()).collect();
        if peers.is_empty() {
            return Err(JoinError::Committee);
        }
        let of_me = identity(&me).map_err(|_| JoinError::Committee)?;
        let _ = manager.track(0, TrackedPeers::new(Set::from_iter_dedup(peers.clone()), Set::from_iter_dedup([of_me])));
        let (asks, orders) = Fetch::new();
        let nothing: Serve = Arc::new(|_, _| Answer::Not);
        let (timeout, link) = (config.timing.fetch, (&mut fetch.0, &mut fetch.1));
        let carrier = run(&context, link, orders, nothing, None, blocker.clone(), timeout);
        let newcomer = Newcomer { clock: &context, config: &config, peers, fetch: asks, blocker: Mutex::new(blocker) };
        let (carrier, joining) = (std::pin::pin!(carrier), std::pin::pin!(newcomer.join(&engine)));
        match futures::future::select(joining, carrier).await {
            futures::future::Either::Left((done, _)) => done,
            futures::future::Either::Right(_) => Err(JoinError::Network),
        }
    }
}

struct Newcomer<'a, E, B> {
    clock: &'a E,
    config: &'a JoinConfig,
    peers: Vec<Identity>,
    fetch: Fetch,
    blocker: Mutex<B>,
}

impl<E: Runtime, B: Blocker<PublicKey = Identity>> Newcomer<'_, E, B> {
    fn block(&self, peer: Identity, why: &'static str) {
        let mut blocker = self.blocker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        commonware_p2p::block!(blocker, peer, why);
    }

    async fn join(self, engine: &Engine) -> Result<Certificate, JoinError> {
        let until = self.clock.current() + self.config.patience;
        let mut said: BTreeMap<NodeId, SnapshotHead> = BTreeMap::new();
        // What is older than the committees we know cannot be checked.
        let first = self.config.committees.first_key_value().map_or(0, |(epoch, _)| *epoch);
        let (mut at_least, mut failed) = (Height(first * EPOCH_BLOCKS), None);
        loop {
            let mut needed = self.config.committees.values().map(agreement).max().unwrap_or(1);
            self.hear(at_least, &mut said).await?;
            if let Some((head, floor, from)) = self.agreed(&said, &mut needed) {
                let (db, height, bytes) = (self.config.db, head.height, head.len);
                tracing::info!(%db, %height, bytes, members = from.len(), "fetching the state of a database");
                if let Some(bytes) = self.pieces(&head, &from).await {
                    let expected = Checkpoint { db: self.config.db, height: head.height, root: head.root };
                    let note = (NOTE_ORIGIN, codec::encode(&floor));
                    engine.import(self.config.db, &bytes, &expected, head.block, Some(note))?;
                    return Ok(floor);
                }
                // Others may have it, or a newer one.
                said.clear();
                failed = Some(head.height);
            }
            if self.clock.current() >= until {
                if let Some(height) = failed {
                    return Err(JoinError::Pieces(height));
                }
                return Err(JoinError::Agreement { heard: said.len(), needed });
            }
            at_least = said.values().map(|h| h.height).max().unwrap_or(at_least);
            self.clock.sleep(self.config.timing.fetch).await;
        }
    }

    /// Asks all members for their snapshots; keeps those whose certificates hold.
    async fn hear(&self, at_least: Height, said: &mut BTreeMap<NodeId, SnapshotHead>) -> Result<(), JoinError> {
        let ask = |peer: Identity| {
            let (fetch, clock) = (self.fetch.clone(), self.clock);
            async move { (fetch.ask(clock, &peer, Ask::Head(at_least)).await, peer) }
        };
        let answers: Vec<_> = futures::future::join_all(self.peers.iter().cloned().map(ask)).await;
        let mut unknown = Vec::new();
        for (answer, peer) in answers {
            let head = match answer {
                Ok(Answer::Head(head)) => head,
                Ok(_) => {
                    self.block(peer, "an answer to another question");
                    continue;
                }
                Err(_) => continue,
            };
            let epoch = head.root_certificate.header.consensus_epoch;
            let Some(members) = self.config.committees.get(&epoch) else {
                let (last, _) = self.config.committees.last_key_value().ok_or(JoinError::Committee)?;
                unknown.extend((epoch > *last).then_some(epoch));
                continue;
            };
            match self.check(&head, members) {
                Ok(()) => _ = said.insert(node_id(&peer), *head),
                Err(why) => {
                    said.remove(&node_id(&peer));
                    self.block(peer, why);
                }
            }
        }
        // One who speaks of another epoch may lie, f + 1 do not.
        unknown.sort_unstable_by(|a, b| b.cmp(a));
        let (_, members) = self.config.committees.last_key_value().ok_or(JoinError::Committee)?;
        unknown.get(agreement(members) - 1).map_or(Ok(()), |needed| Err(JoinError::Epoch { needed: *needed }))
    }

    fn check(&self, head: &SnapshotHead, members: &Members) -> Result<(), &'static str> {
        let root = &head.root_certificate;
        let expected = Checkpoint { db: self.config.db, height: head.height, root: head.root };
        let len = usize::try_from(head.len).unwrap_or(usize::MAX);
        if len > SNAPSHOT_BYTES_MAX || len.div_ceil(SNAPSHOT_CHUNK_BYTES) != head.chunks.len() {
            return Err("its length is not that of its pieces");
        }
        if root.checkpoint() != expected || verify_certificate(root, members).is_err() {
            return Err("its root is not certified");
        }
        if let Some(floor) = &head.floor {
            let header = &floor.header;
            let same = header.db == self.config.db
                && header.height == head.height
                && header.consensus_epoch == root.header.consensus_epoch
                && block_hash(header) == head.block;
            if !same || verify_certificate(floor, members).is_err() {
                return Err("its block is not certified");
            }
        }
        Ok(())
    }

    /// The highest snapshot on which enough members agree, where its log goes on, and who has it.
    fn agreed(
        &self,
        said: &BTreeMap<NodeId, SnapshotHead>,
        needed: &mut usize,
    ) -> Option<(SnapshotHead, Certificate, Vec<Identity>)> {
        let mut groups: BTreeMap<(Height, [u8; 32]), BTreeSet<NodeId>> = BTreeMap::new();
        for (node, head) in said {
            groups.entry((head.height, head.digest())).or_default().insert(*node);
        }
        for ((height, _), nodes) in groups.iter().rev() {
            let head = &said[nodes.first()?];
            let members = &self.config.committees[&head.root_certificate.header.consensus_epoch];
            *needed = agreement(members);
            let same = |n: &&NodeId| (said[*n].root, said[*n].block) == (head.root, head.block);
            let agreeing = nodes.iter().filter(same).filter(|n| members.iter().any(|m| m.node == **n));
            if agreeing.count() < *needed {
                continue;
            }
            // Anyone's will do: it was checked, and names the block.
            let floors = said.values().filter(|h| h.height == *height && h.block == head.block);
            let Some(floor) = floors.filter_map(|h| h.floor.clone()).next() else { continue };
            let from = nodes.iter().filter_map(|n| identity(n).ok()).collect();
            return Some((head.clone(), floor, from));
        }
        None
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

/// Members that must say the same so that one of them is honest.
fn agreement(members: &Members) -> usize {
    members.len() - quorum(members.len()) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_heights_leave_room_for_their_certificates_in_the_epoch() {
        let heights: Vec<u64> = (0..EPOCH_BLOCKS).filter(|h| is_snapshot_height(Height(*h))).collect();
        assert_eq!(heights, [4, 12, 20, 28, 36, 44, 52]);
        assert!(!is_snapshot_height(Height(EPOCH_BLOCKS + 60)));
    }
}
