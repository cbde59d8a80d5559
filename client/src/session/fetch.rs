//! Catalogue entries, headers and cells, each verified before it is used.
//!
//! Source  DESIGN sections 3 and 7; `docs/protocol/query.md`

use super::{Meter, Session, TableHandle, lock, unexpected};
use crate::ask::Asked;
use crate::error::ClientError;
use crate::open::SegmentView;
use crate::transport::Transport;
use fluence_types::answer::{CellRange, OpenRequest, SegmentRanges};
use fluence_types::codec::Bounded;
use fluence_types::limits::PAGE_CELLS;
use fluence_types::tree::CatalogueEntry;
use fluence_types::{DatabaseId, NodeId, ProjectionId, SegmentRoot, Version};
use fluence_verifier::answer::{self, AnswerError, CertifiedSnapshot, Trust, VerifiedAnswer};
use fluence_wire::{Request, Response};
use std::sync::Arc;

impl<T: Transport> Session<T> {
    /// A projection's entry at the latest certified root.
    pub(crate) async fn catalogue(
        &self,
        db: &DatabaseId,
        projection: ProjectionId,
    ) -> Result<CertifiedSnapshot, ClientError> {
        let check = |asked: &Asked<'_>, response| match response {
            Response::Catalogue(snapshot) => {
                let snapshot = answer::verify_snapshot(asked.trust, *snapshot).map_err(|why| asked.refuse(why))?;
                let got = snapshot.entry().projection;
                if got != projection {
                    return Err(asked.refuse(AnswerError::Projection { got, expected: projection }));
                }
                Ok(snapshot)
            }
            other => Err(unexpected(asked.node, "a catalogue entry", other)),
        };
        let (_, snapshot) = self.ask(db, &Request::Catalogue { db: *db, projection }, check).await?;
        self.note_snapshot(db, &snapshot)?;
        lock(&self.inner.entries).insert((*db, projection), snapshot.entry().clone());
        Ok(snapshot)
    }

    /// The entry last seen, or the latest where none was. A stale one costs a refusal (`Moved`), never a wrong answer.
    pub(crate) async fn entry(&self, table: &TableHandle) -> Result<CatalogueEntry, ClientError> {
        let key = (table.keys.db(), table.projection);
        let cached = lock(&self.inner.entries).get(&key).cloned();
        match cached {
            Some(entry) => Ok(entry),
            None => Ok(self.catalogue(&key.0, key.1).await?.entry().clone()),
        }
    }

    /// Remembers an entry that was verified, if it is newer than the one last seen.
    pub(crate) fn learn(&self, table: &TableHandle, entry: &CatalogueEntry) {
        let mut entries = lock(&self.inner.entries);
        let last = entries.entry((table.keys.db(), table.projection)).or_insert_with(|| entry.clone());
        if last.version < entry.version {
            *last = entry.clone();
        }
    }

    /// The version of the entry last seen.
    pub(crate) fn known_version(&self, table: &TableHandle) -> Version {
        lock(&self.inner.entries).get(&(table.keys.db(), table.projection)).map_or(Version(0), |entry| entry.version)
    }

    /// Forgets the entry last seen.
    pub(crate) fn forget_entry(&self, table: &TableHandle) {
        lock(&self.inner.entries).remove(&(table.keys.db(), table.projection));
    }

    /// The verified headers and fences of live segments.
    pub(crate) async fn views(
        &self,
        table: &TableHandle,
        live: &[SegmentRoot],
        meter: &mut Meter,
    ) -> Result<Vec<Arc<SegmentView>>, ClientError> {
        let db = table.keys.db();
        let mut views = Vec::with_capacity(live.len());
        for root in live {
            let cached = lock(&self.inner.cache).view(root);
            if let Some(view) = cached {
                views.push(view);
                continue;
            }
            let check = |asked: &Asked<'_>, response| match response {
                Response::Header(header) => {
                    let header = answer::verify_header(root, &header).map_err(|why| asked.refuse(why))?;
                    Ok((asked.bytes(), SegmentView::new(&table.keys, *root, header)?))
                }
                other => Err(unexpected(asked.node, "a header", other)),
            };
            let (_, (bytes, view)) = self.ask(&db, &Request::Header { db, segment: *root }, check).await?;
            meter.requests += 1;
            meter.plan_bytes += bytes;
            let view = Arc::new(view);
            lock(&self.inner.cache).put_view(Arc::clone(&view));
            views.push(view);
        }
        Ok(views)
    }

    /// Opens cells. A node whose cells are wrong is named with the page.
    pub(crate) async fn open(&self, request: &OpenRequest) -> Result<(VerifiedAnswer, u64), ClientError> {
        let check = |asked: &Asked<'_>, response| match response {
            Response::Open(answer) => {
                let verified = answer::verify(asked.trust, request, *answer).map_err(|why| asked.refuse(why))?;
                Ok((verified, asked.bytes()))
            }
            other => Err(unexpected(asked.node, "an answer", other)),
        };
        let asked = self.ask(&request.db, &Request::Open(Box::new(request.clone())), check).await;
        match asked {
            Ok((_, (verified, bytes))) => {
                self.note_snapshot(&request.db, verified.snapshot())?;
                Ok((verified, bytes))
            }
            Err(ClientError::Answer { node, why }) if matches!(*why, AnswerError::Cells { .. }) => {
                Err(self.locate(&self.trust(&request.db)?, node, request, *why).await)
            }
            Err(error) => Err(error),
        }
    }

    /// Which page of a segment a node has wrong: asks for halves of the pages until one is left.
    async fn locate(&self, trust: &Trust, node: NodeId, request: &OpenRequest, why: AnswerError) -> ClientError {
        let AnswerError::Cells { segment, .. } = why else { return ClientError::answer(&node, why) };
        let per_page = PAGE_CELLS as u64;
        let mut cells: Vec<CellRange> = Vec::new();
        for wanted in request.segments.iter().filter(|s| s.segment == segment) {
            for range in wanted.ranges.iter() {
                let mut first = range.first;
                while first < range.end() {
                    let end = range.end().min((first / per_page + 1) * per_page);
                    cells.push(CellRange { first, count: end - first });
                    first = end;
                }
            }
        }
        let (mut lo, mut hi) = (0, cells.len());
        while lo < hi && cells[lo].first / per_page != cells[hi - 1].first / per_page {
            // Split at a page boundary, so that both halves have whole pages of what was asked.
            let page = cells[lo + (hi - lo) / 2].first / per_page;
            let mut mid = lo + cells[lo..hi].partition_point(|c| c.first / per_page < page);
            if mid == lo {
                mid = lo + cells[lo..hi].partition_point(|c| c.first / per_page <= page);
            }
            match self.wrong_in(trust, &node, request, segment, &cells[lo..mid]).await {
                Some(true) => hi = mid,
                Some(false) => lo = mid,
                None => return ClientError::answer(&node, why),
            }
        }
        match cells.get(lo) {
            Some(c) => ClientError::Page { node, segment, page: c.first / per_page, why: Box::new(why) },
            None => ClientError::answer(&node, why),
        }
    }

    /// Whether a node's answer for some of the cells is wrong; `None` where it does not answer.
    async fn wrong_in(
        &self,
        trust: &Trust,
        node: &NodeId,
        request: &OpenRequest,
        segment: SegmentRoot,
        cells: &[CellRange],
    ) -> Option<bool> {
        let mut ranges: Vec<CellRange> = Vec::new();
        for c in cells {
            match ranges.last_mut() {
                Some(last) if last.end() == c.first => last.count += c.count,
                _ => ranges.push(*c),
            }
        }
        let segments = request.segments.iter().map(|s| SegmentRanges {
            segment: s.segment,
            ranges: Bounded::new(if s.segment == segment { ranges.clone() } else { Vec::new() }).unwrap_or_default(),
        });
        let part = OpenRequest { segments: Bounded::new(segments.collect()).ok()?, ..request.clone() };
        match self.ask_node(node, Request::Open(Box::new(part.clone()))).await {
            Ok(Response::Open(answer)) => Some(answer::verify(trust, &part, *answer).is_err()),
            _ => None,
        }
    }
}
