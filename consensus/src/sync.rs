//! How a new node begins, and one that was away for long goes on: a snapshot of the state at one height, from members that agree on it,
//! and the log from there.
//!
//! ```text
//! newcomer: Head(h) ──> members: each takes a snapshot after the next of the heights that all members know (4, 12, .., 52 of each epoch)
//! newcomer <── heads: height, root, pieces' hashes, a certificate that carries the root, the certificate of the block itself
//! f + 1 members say the same, both certificates hold ──> pieces, each checked when it comes ──> import, what is not here becomes a fill
//! ```
//! Rule     the root is certified by a quorum; what no root binds is what f + 1 members say, so one honest one. The certificate of the
//!          snapshot's own block is where the log goes on: that block is delivered again, and changes nothing.
//! Heights  snapshots are of heights whose certificates come in the same epoch, so that one committee has signed both. A member keeps its
//!          last two and gives the one that is asked for: members that took theirs at different heights come together.
//! Cost     a member makes a snapshot only when somebody asks, at most one in eight blocks, and drops it when nobody asks any more. Its log
//!          waits while it is made.
//! Source   DESIGN section 7; `docs/protocol/cluster.md`; the asking side is `join`

use crate::fetch::Serve;
use crate::handover::handovers;
use crate::wire::{Answer, Ask, CELLS_MAX, SnapshotHead};
use fluence_engine::{Engine, SNAPSHOT_CHUNK_BYTES, Snapshot, snapshot_digest};
use fluence_types::block::Certificate;
use fluence_types::limits::{EPOCH_BLOCKS, EXECUTION_LAG_MAX, HANDOVERS_MAX};
use fluence_types::{DatabaseId, Height};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Milliseconds of the log's own time for which a snapshot is kept after it was asked for last.
const KEPT_MS: u64 = 600_000;
/// And for which a question makes snapshots be taken.
const WANTED_MS: u64 = 60_000;
/// Snapshots that a member keeps.
const READY_MAX: usize = 2;

/// Whether snapshots are taken after this block.
pub(crate) const fn is_snapshot_height(height: Height) -> bool {
    let at = height.0 % EPOCH_BLOCKS;
    at % 8 == 4 && at + EXECUTION_LAG_MAX < EPOCH_BLOCKS - 1
}

#[derive(Default)]
struct Shelf {
    /// Until when of the log's time a snapshot is wanted, and from which height on.
    wanted: (u64, Height),
    /// The last ones, oldest first.
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
        let (until, from) = shelf.wanted;
        if until < timestamp_ms || from > height || !is_snapshot_height(height) {
            return;
        }
        let snapshot = match engine.export(db) {
            Ok(snapshot) if snapshot.height == height => snapshot,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%db, %height, %error, "no snapshot could be taken"),
        };
        let Snapshot { height, root, block, bytes, chunks, .. } = snapshot;
        let Ok(chunks) = chunks.try_into() else { return };
        let len = bytes.len() as u64;
        let head = SnapshotHead { height, root, block, len, chunks, root_certificate: None, floor: None };
        if shelf.ready.len() == READY_MAX {
            shelf.ready.remove(0);
        }
        shelf.ready.push((head, bytes));
        (shelf.used_ms, shelf.wanted) = (shelf.now_ms, (0, Height(0)));
    }

    /// Told of every certificate. Not every member has those that a snapshot needs, for a block may be final by its descendant's: who
    /// asks takes each from whoever has it.
    pub(crate) fn certified(&self, certificate: &Certificate) {
        for (head, _) in &mut self.lock().ready {
            if certificate.header.height == head.height {
                head.floor = Some(certificate.clone());
            }
            if certificate.header.executed_height == head.height {
                head.root_certificate = Some(certificate.clone());
            }
        }
    }

    /// The newest snapshot, if it is of this height or above; else one is wanted.
    fn newest(&self, at_least: Height) -> Answer {
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

    /// The snapshot of just this height.
    fn at(&self, height: Height) -> Answer {
        let mut shelf = self.lock();
        shelf.used_ms = shelf.now_ms;
        let found = shelf.ready.iter().find(|(head, _)| head.height == height);
        found.map_or(Answer::Not, |(head, _)| Answer::Head(Box::new(head.clone())))
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
    pub(crate) fn digest(&self) -> [u8; 32] {
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
        Ask::Head(at_least) => snapshots.newest(at_least),
        Ask::HeadAt(height) => snapshots.at(height),
        Ask::Chunk(digest, at) => snapshots.chunk(digest, at),
        Ask::Handovers(from_epoch) => {
            let known = handovers(&engine, db, from_epoch, HANDOVERS_MAX);
            Answer::Handovers(known.try_into().expect("no more than asked of the notes"))
        }
    })
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
