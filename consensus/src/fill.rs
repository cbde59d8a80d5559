//! Fetches the cells of stored segments that are not here: from several members at once, each piece checked against the segment's tree
//! when it comes.
//!
//! Rule    a piece is written only in order and only after its check. Who sends a wrong one is blocked, and another is asked.

use crate::app::Shared;
use crate::fetch::Fetch;
use crate::scheme::{Identity, identity};
use crate::status::Event;
use crate::wire::{Answer, Ask, CELLS_MAX};
use commonware_p2p::Blocker;
use commonware_runtime::Clock;
use fluence_crypto::{field, tree::multi_root};
use fluence_engine::{Missing, UploadError, page::cell_bytes};
use fluence_types::answer::{CellRange, SegmentOpening};
use fluence_types::limits::PAGE_CELLS;
use fluence_types::tree::SegmentPreimage;
use fluence_types::{NodeId, SegmentRoot};
use futures::StreamExt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Segments that are fetched at once.
const SEGMENTS_AT_ONCE: usize = 4;
/// Pieces of one segment that are fetched at once.
const PIECES_AT_ONCE: u64 = 4;
const CELL_BYTES: u64 = 256;
const PAGE: u64 = PAGE_CELLS as u64;

/// The cells of an answer as bytes, if they are the ones that were asked for.
pub(crate) fn check(preimage: &SegmentPreimage, range: CellRange, opening: &SegmentOpening) -> Option<Vec<u8>> {
    if opening.preimage != *preimage || opening.cells.len() as u64 != range.count {
        return None;
    }
    let opened: Vec<_> = (range.first..).zip(opening.cells.iter().map(field::cell_to_fr)).collect();
    let siblings: Vec<_> = opening.siblings.iter().map(field::from_bytes).collect();
    let root = multi_root(preimage.cells, &opened, &siblings).ok()?;
    let right = field::to_bytes(&root) == preimage.tree_root || fluence_types::planted::are_pages_trusted();
    right.then(|| cell_bytes(&opening.cells))
}

/// The members now and next, but not this node.
pub(crate) fn members(shared: &Shared, me: &NodeId) -> Vec<Identity> {
    let Ok(view) = shared.engine.view(shared.db) else { return Vec::new() };
    let mut nodes: Vec<NodeId> = view.members().iter().chain(view.next_members().iter()).map(|m| m.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.iter().filter(|n| *n != me).filter_map(|n| identity(n).ok()).collect()
}

pub(crate) struct Filler<E, B> {
    pub(crate) clock: E,
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: NodeId,
    pub(crate) fetch: Fetch,
    pub(crate) blocker: Mutex<B>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

impl<E: Clock, B: Blocker<PublicKey = Identity>> Filler<E, B> {
    fn block(&self, peer: Identity, why: &'static str) {
        let mut blocker = self.blocker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        commonware_p2p::block!(blocker, peer, why);
    }

    /// Fills whatever is missing, now and whenever it is told of more.
    pub(crate) async fn run(self) {
        loop {
            let missing = self.shared.engine.missing(self.shared.db);
            if missing.is_empty() {
                self.shared.missing.notified().await;
                continue;
            }
            let done = futures::stream::iter(missing)
                .map(|m| self.fill(m.segment))
                .buffer_unordered(SEGMENTS_AT_ONCE)
                .fold(0, |done, filled| std::future::ready(done + usize::from(filled)))
                .await;
            if done == 0 {
                // Nobody had anything: they may be behind, or away.
                self.clock.sleep(self.shared.timing.fetch).await;
            }
        }
    }

    /// Fetches a segment to its end; false if nobody gave the next piece.
    async fn fill(&self, segment: SegmentRoot) -> bool {
        let (engine, db) = (&self.shared.engine, self.shared.db);
        while let Some(Missing { preimage, have, .. }) = engine.missing_one(db, segment) {
            let from = have / CELL_BYTES;
            if have == preimage.cells * CELL_BYTES {
                match engine.finish_fill(db, segment) {
                    Ok(()) => {
                        let _ = self.events.send(Event::Filled(segment));
                        return true;
                    }
                    Err(UploadError::Unknown(_)) => return true,
                    Err(error) => {
                        tracing::warn!(%db, %segment, %error, "a segment was not what it should be; fetching it again");
                        return false;
                    }
                }
            }
            // Pieces begin at whole pages, so that their siblings are few.
            let first = from / PAGE * PAGE;
            let pieces = (0..PIECES_AT_ONCE).map(|i| first + i * CELLS_MAX).take_while(|at| *at < preimage.cells);
            let ranges = pieces.map(|first| CellRange { first, count: CELLS_MAX.min(preimage.cells - first) });
            // Each segment begins with another peer, so that not all members ask the same one first.
            let turn = usize::from(segment.to_field().as_bytes()[15]);
            let wanted = ranges.enumerate().map(|(i, range)| self.piece(segment, preimage, range, turn + i));
            let mut came = false;
            for (range, bytes) in futures::future::join_all(wanted).await {
                let Some(bytes) = bytes else { break };
                // A client may have sent some of it meanwhile.
                let Some(Missing { have, .. }) = engine.missing_one(db, segment) else { return true };
                let skip = have.saturating_sub(range.first * CELL_BYTES);
                let Some(bytes) = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..)) else { continue };
                match engine.append_fill(db, segment, have, bytes) {
                    Ok(_) => came = true,
                    Err(UploadError::Offset { .. }) => break,
                    Err(error) => {
                        tracing::warn!(%db, %segment, %error, "a piece was not taken");
                        break;
                    }
                }
            }
            if !came {
                return false;
            }
        }
        true
    }

    /// One piece, from whoever has it.
    async fn piece(
        &self,
        segment: SegmentRoot,
        preimage: SegmentPreimage,
        range: CellRange,
        turn: usize,
    ) -> (CellRange, Option<Vec<u8>>) {
        let peers = members(&self.shared, &self.me);
        for peer in self.fetch.order(self.clock.current(), &peers, turn) {
            match self.fetch.ask(&self.clock, &peer, Ask::Cells(segment, range)).await {
                Ok(Answer::Cells(opening)) => match check(&preimage, range, &opening) {
                    Some(bytes) => return (range, Some(bytes)),
                    None => self.block(peer, "cells that are not the segment's"),
                },
                Ok(_) => self.block(peer, "an answer to another question"),
                Err(_) => {}
            }
        }
        (range, None)
    }
}
