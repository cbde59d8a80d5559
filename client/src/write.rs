//! Writing: import, append, delete, update, compact. Each is one transaction: all of it becomes live at one certified height, or nothing.
//!
//! Delete   rows are read and verified, and appended again with weight -1 in a small new segment; update also appends the new rows (+1).
//! Compact  all live rows are read, retractions cancelled, sealed again under a fresh segment id, and replace what was live.
//! Retry    an append that lost a race is ordered again with the same sealed bytes; delete, update and compact start over from reading,
//!          because what they read may have changed. Sealed bytes whose commit failed are never reused for other data.
//! Source   DESIGN section 3; `docs/protocol/segment.md`

use crate::error::ClientError;
use crate::key;
use crate::range::KeyRange;
use crate::schema::{SchemaError, TableSchema};
use crate::seal::{SEGMENT_ROWS_MAX, SealStats, SealedSegment, Sealer};
use crate::session::{ATTEMPTS, Ordered, Session, Table, offload, unexpected};
use crate::transport::Transport;
use crate::value::{ColumnBuilder, Value};
use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use fluence_crypto::sign;
use fluence_types::answer::OpenRefusal;
use fluence_types::block::quorum;
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::{LIVE_SEGMENTS_MAX, OP_BYTES_MAX};
use fluence_types::op::{Change, Delivery, Op, OpRefusal, SegmentRef, SignedReceipt};
use fluence_types::{DatabaseId, DbRoot, Height, NodeId, SegmentRoot, Version};
use fluence_wire::message::Refusal;
use fluence_wire::{CHUNK_BYTES, Request, Response};
use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of inline segments in one operation, leaving room for the rest of it.
const INLINE_BYTES_MAX: u64 = OP_BYTES_MAX as u64 - (64 << 10);

/// How far a write is.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// Rows read from the source so far.
    Read {
        /// Rows.
        rows: u64,
    },
    /// A segment was sealed.
    Sealed {
        /// Rows sealed so far.
        rows: u64,
        /// Of this segment.
        stats: SealStats,
    },
    /// Bytes of the segment at hand that a quorum of the members has.
    Uploaded {
        /// Bytes so far.
        bytes: u64,
        /// Bytes of the segment.
        total: u64,
    },
    /// It is certified.
    Committed {
        /// At this height.
        height: Height,
    },
}

/// Options of an import.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImportOptions {
    /// Rows of a segment; memory use is about a kilobyte a row.
    pub segment_rows: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { segment_rows: SEGMENT_ROWS_MAX }
    }
}

/// A transaction that is certified.
#[derive(Clone, PartialEq, Debug)]
pub struct Committed {
    /// At this height or a later one.
    pub height: Height,
    /// Database root there.
    pub root: DbRoot,
    /// Version of the projection.
    pub version: Version,
    /// Segments that became live.
    pub segments: Vec<SegmentRoot>,
    /// Rows written: inserted, deleted or updated, or left after compaction.
    pub rows: u64,
    /// Time and size of sealing, all segments together.
    pub seal: SealStats,
}

/// A row that a predicate looks at.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    schema: &'a TableSchema,
    batch: &'a RecordBatch,
    row: usize,
}

impl Row<'_> {
    /// The value of a column; `None` where there is no such column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<Value> {
        Value::at(self.batch.column(self.schema.index(column).ok()?), self.row)
    }

    fn values(&self) -> Vec<Value> {
        self.batch.columns().iter().map(|c| Value::at(c, self.row).expect("a column of the table")).collect()
    }
}

/// New values of some columns of a row.
pub type Assignments = Vec<(String, Value)>;

impl<T: Transport> Table<T> {
    /// Seals and commits batches in one transaction, reading no more than one segment ahead.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is live then, unless the error is of a connection that broke after the operation was sent.
    pub async fn import<E: std::fmt::Display>(
        &self,
        batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
        options: ImportOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<Committed, ClientError> {
        let limit = options.segment_rows.clamp(1, SEGMENT_ROWS_MAX);
        let mut refs: Vec<SegmentRef> = Vec::new();
        let mut inline = 0;
        let mut seal = SealStats::default();
        let (mut read, mut sealed_rows) = (0u64, 0u64);
        let mut sealer = Sealer::new(self.handle.keys.clone());
        let mut source = batches.into_iter();
        loop {
            let batch = source.next().transpose().map_err(|e| ClientError::Source(e.to_string()))?;
            let last = batch.is_none();
            let mut rest = batch;
            while let Some(batch) = rest.take() {
                let room = limit - sealer.rows();
                if batch.num_rows() <= room {
                    sealer.push(&batch)?;
                    read += batch.num_rows() as u64;
                } else {
                    sealer.push(&batch.slice(0, room))?;
                    read += room as u64;
                    rest = Some(batch.slice(room, batch.num_rows() - room));
                }
                progress(Progress::Read { rows: read });
                if sealer.rows() < limit {
                    continue;
                }
                let full = std::mem::replace(&mut sealer, Sealer::new(self.handle.keys.clone()));
                let segment = self.seal(full, &mut seal, &mut sealed_rows, &mut progress).await?;
                refs.push(self.deliver(&segment, &mut inline, &mut progress).await?);
            }
            if last {
                break;
            }
        }
        if sealer.rows() > 0 {
            let segment = self.seal(sealer, &mut seal, &mut sealed_rows, &mut progress).await?;
            refs.push(self.deliver(&segment, &mut inline, &mut progress).await?);
        }
        if refs.len() > LIVE_SEGMENTS_MAX {
            return Err(ClientError::TooManySegments { got: refs.len(), limit: LIVE_SEGMENTS_MAX });
        }
        let mut committed = self.append_refs(refs).await?;
        committed.rows = sealed_rows;
        committed.seal = seal;
        progress(Progress::Committed { height: committed.height });
        Ok(committed)
    }

    /// Appends rows: one small transaction.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn append(&self, batch: &RecordBatch) -> Result<Committed, ClientError> {
        self.import([Ok::<_, ClientError>(batch.clone())], ImportOptions::default(), |_| {}).await
    }

    /// Deletes the rows of a range that `which` picks. No row picked: nothing is written, and `None` comes back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(
        &self,
        range: &KeyRange,
        mut which: impl FnMut(&Row<'_>) -> bool,
    ) -> Result<Option<Committed>, ClientError> {
        self.rewrite(std::slice::from_ref(range), |row| if which(row) { Rewrite::Delete } else { Rewrite::Keep }).await
    }

    /// Deletes all rows whose leading key columns equal one of `keys`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_keys(&self, keys: &[Vec<Value>]) -> Result<Option<Committed>, ClientError> {
        self.rewrite(&self.distinct_prefixes(keys), |_| Rewrite::Delete).await
    }

    /// Changes the rows of a range for which `change` gives assignments.
    ///
    /// # Errors
    /// [`ClientError`]: also where an assignment names no column, or a value does not fit it.
    pub async fn update(
        &self,
        range: &KeyRange,
        mut change: impl FnMut(&Row<'_>) -> Option<Assignments>,
    ) -> Result<Option<Committed>, ClientError> {
        self.rewrite(std::slice::from_ref(range), |row| change(row).map_or(Rewrite::Keep, Rewrite::Update)).await
    }

    /// Changes all rows whose leading key columns equal one of `keys`.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn update_keys(
        &self,
        keys: &[Vec<Value>],
        mut change: impl FnMut(&Row<'_>) -> Option<Assignments>,
    ) -> Result<Option<Committed>, ClientError> {
        let ranges = self.distinct_prefixes(keys);
        self.rewrite(&ranges, |row| change(row).map_or(Rewrite::Keep, Rewrite::Update)).await
    }

    /// Ranges of the keys, none inside another: a row must not be retracted twice.
    fn distinct_prefixes(&self, keys: &[Vec<Value>]) -> Vec<KeyRange> {
        let mut encoded: Vec<(Vec<u8>, &Vec<Value>)> = keys.iter().map(|k| (key::encode_values(k), k)).collect();
        encoded.sort_by(|a, b| a.0.cmp(&b.0));
        let mut kept: Vec<(Vec<u8>, &Vec<Value>)> = Vec::with_capacity(encoded.len());
        for (bytes, values) in encoded {
            if kept.last().is_none_or(|(last, _)| !bytes.starts_with(last)) {
                kept.push((bytes, values));
            }
        }
        kept.into_iter().map(|(_, values)| KeyRange::prefix(values.clone())).collect()
    }

    async fn rewrite(
        &self,
        ranges: &[KeyRange],
        mut decide: impl FnMut(&Row<'_>) -> Rewrite,
    ) -> Result<Option<Committed>, ClientError> {
        for attempt in 1.. {
            match self.try_rewrite(ranges, &mut decide).await {
                Err(error) if start_over(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                Err(ClientError::Op(OpRefusal::TooManyLive(_))) if attempt < ATTEMPTS => {
                    self.compact().await?;
                }
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_rewrite(
        &self,
        ranges: &[KeyRange],
        decide: &mut impl FnMut(&Row<'_>) -> Rewrite,
    ) -> Result<Option<Committed>, ClientError> {
        let schema = self.schema();
        let all: Vec<usize> = (0..schema.columns().len()).collect();
        let mut version: Option<Version> = None;
        let mut sealer = Sealer::new(self.handle.keys.clone());
        let mut rows = 0u64;
        for range in ranges {
            let scanned = self.scan(&all, range, None).await?;
            if version.replace(scanned.entry.version).is_some_and(|v| v != scanned.entry.version) {
                // Two ranges were read at two versions.
                return Err(ClientError::Conflict {
                    projection: self.projection(),
                    read: version.unwrap_or_default(),
                    current: scanned.entry.version,
                });
            }
            for batch in &scanned.batches {
                let (mut old, mut new) = (Vec::new(), NewRows::new(schema));
                for row in 0..batch.num_rows() {
                    let view = Row { schema, batch, row };
                    match decide(&view) {
                        Rewrite::Keep => continue,
                        Rewrite::Delete => {}
                        Rewrite::Update(assignments) => new.push(schema, view.values(), assignments)?,
                    }
                    old.push(row as u32);
                }
                if old.is_empty() {
                    continue;
                }
                rows += old.len() as u64;
                let retracted =
                    take_record_batch(batch, &UInt32Array::from(old)).map_err(crate::open::OpenError::Gather)?;
                sealer.push_weighted(&retracted, &vec![-1; retracted.num_rows()])?;
                if new.rows > 0 {
                    sealer.push(&new.finish(schema)?)?;
                }
            }
        }
        let Some(version) = version.filter(|_| rows > 0) else { return Ok(None) };
        let (mut seal, mut sealed_rows) = (SealStats::default(), 0);
        let segment = self.seal(sealer, &mut seal, &mut sealed_rows, &mut |_| {}).await?;
        let refs = vec![self.deliver(&segment, &mut 0, &mut |_| {}).await?];
        let mut committed = self.commit(refs, Vec::new(), version).await?;
        (committed.rows, committed.seal) = (rows, seal);
        Ok(Some(committed))
    }

    /// Replaces all live segments by as few as possible, without retracted rows. `None` where there is nothing to gain: at most one
    /// live segment, and no retraction in it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn compact(&self) -> Result<Option<Committed>, ClientError> {
        for attempt in 1.. {
            match self.try_compact().await {
                Err(error) if start_over(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_compact(&self) -> Result<Option<Committed>, ClientError> {
        let columns: Vec<usize> = (0..self.schema().columns().len()).collect();
        let scanned = self.scan(&columns, &KeyRange::ALL, None).await?;
        let live = scanned.entry.live.to_vec();
        if live.is_empty() || live.len() == 1 && scanned.rows == scanned.evidence.rows {
            return Ok(None);
        }
        let (mut seal, mut sealed_rows, mut inline) = (SealStats::default(), 0, 0);
        let mut refs = Vec::new();
        let mut sealer = Sealer::new(self.handle.keys.clone());
        for batch in &scanned.batches {
            let mut at = 0;
            while at < batch.num_rows() {
                let take = (SEGMENT_ROWS_MAX - sealer.rows()).min(batch.num_rows() - at);
                sealer.push(&batch.slice(at, take))?;
                at += take;
                if sealer.rows() == SEGMENT_ROWS_MAX {
                    let full = std::mem::replace(&mut sealer, Sealer::new(self.handle.keys.clone()));
                    let segment = self.seal(full, &mut seal, &mut sealed_rows, &mut |_| {}).await?;
                    refs.push(self.deliver(&segment, &mut inline, &mut |_| {}).await?);
                }
            }
        }
        if sealer.rows() > 0 {
            let segment = self.seal(sealer, &mut seal, &mut sealed_rows, &mut |_| {}).await?;
            refs.push(self.deliver(&segment, &mut inline, &mut |_| {}).await?);
        }
        let mut committed = self.commit(refs, live, scanned.entry.version).await?;
        (committed.rows, committed.seal) = (scanned.rows, seal);
        Ok(Some(committed))
    }

    async fn seal(
        &self,
        sealer: Sealer,
        total: &mut SealStats,
        rows: &mut u64,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Arc<SealedSegment>, ClientError> {
        let mut rng = self.session.fork_rng();
        let segment = offload(move || sealer.seal(&mut rng)).await?;
        let stats = segment.stats();
        total.rows += stats.rows;
        total.cells += stats.cells;
        total.permutations += stats.permutations;
        total.ms += stats.ms;
        total.hash_ms += stats.hash_ms;
        *rows += segment.rows();
        progress(Progress::Sealed { rows: *rows, stats });
        Ok(Arc::new(segment))
    }

    /// Gets a segment to the members: inside the operation while there is room, else by upload.
    async fn deliver(
        &self,
        segment: &SealedSegment,
        inline: &mut u64,
        progress: &mut impl FnMut(Progress),
    ) -> Result<SegmentRef, ClientError> {
        if *inline + segment.byte_len() <= INLINE_BYTES_MAX
            && let Some(reference) = segment.inline()
        {
            *inline += segment.byte_len();
            return Ok(reference);
        }
        let receipts = self.session.upload(&self.db(), segment, progress).await?;
        Ok(segment.reference(Delivery::Receipts(Bounded::new(receipts).expect("one receipt a member"))))
    }

    /// Appends what was delivered, whatever was committed in between.
    async fn append_refs(&self, refs: Vec<SegmentRef>) -> Result<Committed, ClientError> {
        for attempt in 1.. {
            let version = self.session.catalogue(&self.db(), self.projection()).await?.entry().version;
            match self.commit(refs.clone(), Vec::new(), version).await {
                // Nothing was read that the other commit could have changed: the same sealed bytes go in after it.
                // Another member is asked first, should this one have made the other commit up.
                Err(ClientError::Conflict { .. }) if attempt < ATTEMPTS => self.session.prefer_another(),
                Err(ClientError::Op(OpRefusal::TooManyLive(_))) if attempt < ATTEMPTS => {
                    self.compact().await?;
                }
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    /// One commit to this projection; afterwards the catalogue, certified, must show it.
    async fn commit(
        &self,
        append: Vec<SegmentRef>,
        retire: Vec<SegmentRoot>,
        version: Version,
    ) -> Result<Committed, ClientError> {
        let (db, projection) = (self.db(), self.projection());
        let segments: Vec<SegmentRoot> =
            append.iter().map(|s| fluence_crypto::tree::segment_root(&s.preimage)).collect();
        let too_many = |got| ClientError::TooManySegments { got, limit: LIVE_SEGMENTS_MAX };
        let change = Change {
            projection,
            append: Bounded::new(append).map_err(|e| too_many(e.got))?,
            retire: Bounded::new(retire.clone()).map_err(|e| too_many(e.got))?,
        };
        let nothing = segments.is_empty() && retire.is_empty();
        let op = Op::Commit {
            reads: Bounded::new(vec![(projection, version)]).expect("one read"),
            changes: Bounded::new(vec![change]).expect("one change"),
        };
        let mut members = self.session.trust(&db)?.committee.members.len();
        loop {
            let ordered = match nothing {
                true => None,
                false => match self.session.submit(&db, op.clone()).await {
                    // After a broken connection the first copy may have been ordered: then the second one repeats it.
                    Err(ClientError::Op(OpRefusal::Repeated(_))) if self.is_live(&segments).await? => None,
                    other => Some(other?),
                },
            };
            self.session.forget_entry(&self.handle);
            let snapshot = self.session.catalogue(&db, projection).await?;
            let entry = snapshot.entry();
            // A later transaction may have retired the segments again; at the version after ours they must be there.
            let ours = entry.version.0 == version.0 + 1;
            let live = |s: &SegmentRoot| entry.live.contains(s);
            let shown = segments.iter().all(live) && !retire.iter().any(live);
            if nothing || entry.version > version && (shown || !ours) {
                return Ok(Committed {
                    height: snapshot.checkpoint().height,
                    root: snapshot.checkpoint().root,
                    version: entry.version,
                    segments,
                    rows: 0,
                    seal: SealStats::default(),
                });
            }
            // What became of an operation is a member's word; the catalogue is the cluster's.
            let Some(Ordered { node, request, response }) = ordered else {
                return Err(ClientError::Moving { projection, attempts: 1 });
            };
            let what = "the certified catalogue does not show the commit that it says was ordered".to_owned();
            self.session.blame(node, &what, codec::encode(&request), response);
            self.session.prefer_another();
            members = members.saturating_sub(1);
            if members == 0 {
                return Err(ClientError::Protocol { node, what });
            }
        }
    }

    async fn is_live(&self, segments: &[SegmentRoot]) -> Result<bool, ClientError> {
        let snapshot = self.session.catalogue(&self.db(), self.projection()).await?;
        Ok(segments.iter().all(|s| snapshot.entry().live.contains(s)))
    }
}

/// Whether what was read changed before the commit: nothing was written, so reading again is safe.
fn start_over(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Conflict { .. }
            | ClientError::Op(OpRefusal::NotLive(_))
            | ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Moved(_)), .. }
    )
}

enum Rewrite {
    Keep,
    Delete,
    Update(Assignments),
}

/// New versions of rows, column by column.
struct NewRows {
    builders: Vec<ColumnBuilder>,
    rows: usize,
}

impl NewRows {
    fn new(schema: &TableSchema) -> Self {
        Self { builders: schema.columns().iter().map(|c| ColumnBuilder::new(c.ty, 0)).collect(), rows: 0 }
    }

    fn push(
        &mut self,
        schema: &TableSchema,
        mut values: Vec<Value>,
        assignments: Assignments,
    ) -> Result<(), ClientError> {
        for (column, value) in assignments {
            let index = schema.index(&column)?;
            let ty = schema.columns()[index].ty;
            if !ty.holds(&value) {
                let (got, want) = (format!("{value:?}"), ty.to_string());
                return Err(SchemaError::Batch { column, got, want }.into());
            }
            values[index] = value;
        }
        for (builder, value) in self.builders.iter_mut().zip(&values) {
            let pushed = builder.push(value);
            debug_assert!(pushed, "checked just above");
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(self, schema: &TableSchema) -> Result<RecordBatch, ClientError> {
        let mut arrays = Vec::with_capacity(self.builders.len());
        for (builder, column) in self.builders.into_iter().zip(schema.columns()) {
            let array = builder.finish();
            if !column.nullable && arrow_array::Array::null_count(&array) > 0 {
                return Err(SchemaError::Null(column.name.clone()).into());
            }
            arrays.push(array);
        }
        Ok(RecordBatch::try_new(schema.arrow(), arrays).map_err(crate::open::OpenError::Gather)?)
    }
}

impl<T: Transport> Session<T> {
    /// Uploads a segment to all members at once and collects their receipts; a quorum suffices. Memory is one chunk a member.
    async fn upload(
        &self,
        db: &DatabaseId,
        segment: &SealedSegment,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Vec<SignedReceipt>, ClientError> {
        let members = self.trust(db)?.committee.members;
        // What a quorum has is what the caller is told: it grows with the member that is the last one needed.
        let (need, total) = (quorum(members.len()).max(1), segment.byte_len());
        let (sent, mut at) = futures::channel::mpsc::unbounded::<(NodeId, u64)>();
        let receipts = async {
            let sent = sent;
            self.gather(&members, |node| {
                let sent = sent.clone();
                async move { self.upload_to(&node, db, segment, &sent).await }
            })
            .await
        };
        let told = async {
            let (mut have, mut shown) = (HashMap::<NodeId, u64>::new(), 0);
            while let Some((node, bytes)) = at.next().await {
                have.insert(node, bytes);
                let mut all: Vec<u64> = have.values().copied().collect();
                all.sort_unstable_by(|a, b| b.cmp(a));
                if let Some(bytes) = all.get(need - 1).filter(|bytes| **bytes > shown) {
                    shown = *bytes;
                    progress(Progress::Uploaded { bytes: shown, total });
                }
            }
        };
        let (receipts, ()) = futures::future::join(receipts, told).await;
        receipts
    }

    /// Uploads to one member, going on where it was when the connection broke.
    async fn upload_to(
        &self,
        node: &NodeId,
        db: &DatabaseId,
        segment: &SealedSegment,
        sent: &UnboundedSender<(NodeId, u64)>,
    ) -> Result<SignedReceipt, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_upload(node, db, segment, sent).await {
                Err(ClientError::Transport(error)) if attempt < ATTEMPTS && error.may_pass() => {
                    tracing::warn!(%node, %error, "upload interrupted; going on where the node is");
                }
                other => return other,
            }
        }
    }

    async fn try_upload(
        &self,
        node: &NodeId,
        db: &DatabaseId,
        segment: &SealedSegment,
        sent_to: &UnboundedSender<(NodeId, u64)>,
    ) -> Result<SignedReceipt, ClientError> {
        let protocol = |what: String| ClientError::Protocol { node: *node, what };
        let total = segment.byte_len();
        let begin = Request::UploadBegin { db: *db, segment: segment.preimage() };
        let mut have = match self.ask_node(node, begin).await? {
            Response::Upload { have } => have,
            other => return Err(unexpected(node, "an upload state", other)),
        };
        while have < total {
            let bytes = segment.bytes(have, CHUNK_BYTES);
            let sent = bytes.len() as u64;
            let bytes = Bounded::new(bytes).expect("a chunk is at most CHUNK_BYTES");
            let chunk = Request::UploadChunk { segment: segment.root(), offset: have, bytes };
            match self.ask_node(node, chunk).await? {
                Response::Upload { have: now } if now == have + sent => have = now,
                Response::Upload { have: now } => {
                    return Err(protocol(format!("it has {now} bytes of {}", have + sent)));
                }
                other => return Err(unexpected(node, "an upload state", other)),
            }
            // Nobody listens where the caller has gone away; then nobody polls this either.
            let _ = sent_to.unbounded_send((*node, have));
        }
        if have > total {
            return Err(protocol(format!("it has {have} bytes of a segment of {total}")));
        }
        let end = Request::UploadEnd { segment: segment.root() };
        let receipt = match self.ask_node(node, end.clone()).await? {
            Response::UploadEnd(receipt) => receipt,
            other => return Err(unexpected(node, "a receipt", other)),
        };
        let r = &receipt.receipt;
        let ours = (r.segment, r.id, r.rows) == (segment.preimage(), segment.id(), segment.rows());
        let good = match r.node != *node || r.db != *db || !ours {
            true => Err(protocol("its receipt is for something else".to_owned())),
            false => sign::verify_receipt(&receipt).map_err(|why| ClientError::Signature { node: *node, why }),
        };
        if let Err(error) = &good {
            let response = codec::encode(&Response::UploadEnd(receipt.clone()));
            self.blame(*node, error, codec::encode(&end), response);
        }
        good.map(|()| receipt)
    }
}
