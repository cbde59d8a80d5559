//! Sealing: rows in, a segment out that nobody without the keys can read, and that cannot be made twice.
//!
//! ```text
//! batches -> sorted by key -> row groups of 256 -> one encoded block per column and group -> AEAD under a single-use key -> byte lanes
//!                          -> prefix sums of weights, not-null counts and declared expressions -> + mask(boundary) -> sum lanes
//!                          -> first key of each group, AEAD -> fences;   header | lanes -> cells -> tree -> root
//! ```
//! Rule    a [`Sealer`] consumes itself on [`Sealer::seal`], and the segment id that selects every key and mask is a keyed hash of fresh
//!         randomness and of the plaintext: a crash, a restored key or a second client repeats neither a (key, nonce) nor a mask label.
//!         A retry resends the sealed bytes; nothing is ever patched.
//! Public  lanes of public columns, with the weights, their sums and the fences, stand as they are: no AEAD, no mask, a commitment of zeros.
//! AAD     canonical (segment id, lane, group, rows of the group, schema hash); fences use lane `keys::FENCES`
//! Source  DESIGN sections 3 and 5; `docs/protocol/segment.md`

use crate::block::{encode_column, encode_weights};
use crate::key::{KEY_BYTES_MAX, Keys};
use crate::keyring::{Keyring, Table};
use crate::packing::SumField;
use crate::schema::{Column, SchemaError, Summand};
use crate::sums;
use crate::value::{ColumnType, VALUE_BYTES_MAX};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use fluence_crypto::keys::{self, FENCES, LaneKey, Purpose, TableKey};
use fluence_crypto::tree::{self, SegmentTree};
use fluence_crypto::{aead, field};
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::{
    CELL_SCALARS, GROUP_ROWS, HEADER_BLOB_BYTES_MAX, INLINE_SEGMENT_BYTES_MAX, SEGMENT_CELLS_MAX,
};
use fluence_types::op::{Delivery, SegmentRef};
use fluence_types::segment::{HeaderBlob, Lane, LaneKind, SegmentHeader, byte_cells, pack_bytes, sum_cells};
use fluence_types::tree::{Cell, SegmentPreimage, segment_levels};
use fluence_types::{DatabaseId, FieldBytes, LaneId, SchemaHash, SegmentId, SegmentRoot, TableId};
use rand::{CryptoRng, RngCore};
use rayon::prelude::*;
use std::sync::Arc;
use std::time::Instant;

/// Most rows of a segment that this client seals: what one segment takes in memory stays near a gigabyte.
pub const SEGMENT_ROWS_MAX: usize = 1 << 20;
/// What stands for the commitment to a key where there is none: blocks and fences in clear.
pub(crate) const IN_CLEAR: [u8; 32] = [0; 32];
/// Bytes of a cell on the wire.
pub const CELL_BYTES: usize = CELL_SCALARS * 32;

/// Why rows were not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No rows: there is no empty segment.
    #[error("a segment needs at least one row")]
    Empty,
    /// More rows than one segment takes.
    #[error("{0} rows, a segment takes {SEGMENT_ROWS_MAX}")]
    TooManyRows(usize),
    /// A batch does not fit the table.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A value is too long.
    #[error("column {column:?} has a value of {bytes} bytes, the limit is {VALUE_BYTES_MAX}")]
    LongValue {
        /// The column.
        column: String,
        /// Its length.
        bytes: usize,
    },
    /// A decimal has more digits than its column.
    #[error("column {column:?} is {ty} and has a value of more digits")]
    Digits {
        /// The column.
        column: String,
        /// Its type.
        ty: ColumnType,
    },
    /// An integer has more bits than its column.
    #[error("column {column:?} has integers of {bits} bits, and a value of more")]
    Bits {
        /// The column.
        column: String,
        /// Its bits.
        bits: u8,
    },
    /// A row's sort key is too long.
    #[error("a sort key of {bytes} bytes, the limit is {KEY_BYTES_MAX}; shorten the key columns")]
    LongKey {
        /// Its length.
        bytes: usize,
    },
    /// As many weights as rows are needed, each -1, 0 or 1.
    #[error("{weights} weights for {rows} rows, each of which must be -1, 0 or 1")]
    Weights {
        /// Weights given.
        weights: usize,
        /// Rows given.
        rows: usize,
    },
    /// The rows are too wide for one segment; seal fewer at a time.
    #[error("{got} {what}, a segment takes {limit}; seal fewer rows at a time")]
    TooLarge {
        /// Cells, or header bytes.
        what: &'static str,
        /// How many.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// Arrow could not gather the rows.
    #[error("gathering rows: {0}")]
    Gather(String),
}

/// What sealing and opening a table's segments need.
#[derive(Clone)]
pub struct TableKeys {
    keyring: Arc<Keyring>,
    key: Arc<TableKey>,
    table: Arc<Table>,
    db: DatabaseId,
    id: TableId,
}

impl std::fmt::Debug for TableKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TableKeys({}, {}, {:?})", self.db, self.id, self.table.schema.name())
    }
}

impl TableKeys {
    /// The keys of a table whose schema is known.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, db: DatabaseId, id: TableId, table: Arc<Table>) -> Self {
        let key = Arc::new(keyring.table_key(&db, &id, table.key_epoch));
        Self { keyring, key, table, db, id }
    }
    /// The schema.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }
    /// The database.
    #[must_use]
    pub const fn db(&self) -> DatabaseId {
        self.db
    }
    /// The table.
    #[must_use]
    pub const fn table_id(&self) -> TableId {
        self.id
    }
    /// The key of a lane of a segment.
    pub(crate) fn lane(&self, segment: &SegmentId, lane: LaneId, purpose: Purpose) -> LaneKey {
        self.key.lane(segment, lane, purpose)
    }
    /// The key of a segment's fences.
    pub(crate) fn fences(&self, segment: &SegmentId) -> LaneKey {
        self.key.fences(segment)
    }
}

/// Associated data of a block: where it belongs, so that it opens nowhere else.
pub(crate) fn block_aad(id: &SegmentId, lane: LaneId, group: u32, rows: u32, schema: &SchemaHash) -> Vec<u8> {
    codec::encode(&(*id, lane, group, rows, *schema))
}

/// Rows of group `group` in a segment of `rows` rows.
pub(crate) const fn group_rows(rows: u64, group: u64) -> usize {
    let left = rows - group * GROUP_ROWS as u64;
    if left < GROUP_ROWS as u64 { left as usize } else { GROUP_ROWS }
}

/// Where the time of a seal went, and how large it came out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SealStats {
    /// Rows.
    pub rows: u64,
    /// Cells.
    pub cells: u64,
    /// Permutations of the tree.
    pub permutations: u64,
    /// Milliseconds in all.
    pub ms: f64,
    /// Of which for the tree.
    pub hash_ms: f64,
    /// Rows whose key is also that of the row before them: a key that was to be unique is not.
    pub repeated_keys: u64,
}

/// A sealed segment: ready to send, any number of times.
#[derive(Clone)]
pub struct SealedSegment {
    header: SegmentHeader,
    preimage: SegmentPreimage,
    root: SegmentRoot,
    cells: Vec<Cell>,
    stats: SealStats,
}

impl std::fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedSegment({}, {} rows, {} cells)", self.root, self.header.rows, self.cells.len())
    }
}

impl SealedSegment {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        self.header.id
    }
    /// Its rows.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.header.rows
    }
    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }
    /// The parts of its root.
    #[must_use]
    pub const fn preimage(&self) -> SegmentPreimage {
        self.preimage
    }
    /// Its root.
    #[must_use]
    pub const fn root(&self) -> SegmentRoot {
        self.root
    }
    /// Its cells.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }
    /// Time and size.
    #[must_use]
    pub const fn stats(&self) -> SealStats {
        self.stats
    }
    /// Bytes on the wire.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        (self.cells.len() * CELL_BYTES) as u64
    }
    /// At most `len` bytes of the cells from `offset`, 32 a scalar.
    #[must_use]
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.byte_len().min(offset.saturating_add(len as u64)) as usize;
        let start = (offset as usize).min(end);
        let mut out = Vec::with_capacity(end - start + 2 * CELL_BYTES);
        let first = start / CELL_BYTES;
        for cell in &self.cells[first..end.div_ceil(CELL_BYTES)] {
            cell.iter().for_each(|s| out.extend_from_slice(s.as_bytes()));
        }
        out.truncate(end - first * CELL_BYTES);
        out.drain(..start - first * CELL_BYTES);
        out
    }
    /// Whether it travels inside the operation.
    #[must_use]
    pub fn fits_inline(&self) -> bool {
        self.byte_len() <= INLINE_SEGMENT_BYTES_MAX as u64
    }
    /// Itself as operations name it, with its cells inside; `None` where it is too long for that.
    #[must_use]
    pub fn inline(&self) -> Option<SegmentRef> {
        let bytes = self.fits_inline().then(|| self.bytes(0, INLINE_SEGMENT_BYTES_MAX))?;
        Some(self.reference(Delivery::Inline(Bounded::new(bytes).ok()?)))
    }
    /// Itself as operations name it.
    #[must_use]
    pub const fn reference(&self, delivery: Delivery) -> SegmentRef {
        SegmentRef { id: self.header.id, preimage: self.preimage, rows: self.header.rows, delivery }
    }
}

/// One use of a key or mask, for the test that none repeats.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Use {
    /// Hash of an AEAD key; the nonce is always 0, so the key alone must not repeat.
    Key([u8; 32]),
    /// A mask label.
    Label(SegmentId, LaneId, u64),
    /// A mask.
    Mask(FieldBytes),
}

/// Collects rows and seals them, once.
pub struct Sealer {
    keys: TableKeys,
    batches: Vec<RecordBatch>,
    weights: Vec<i8>,
    #[cfg(test)]
    pub(crate) recorder: Option<Arc<std::sync::Mutex<Vec<Use>>>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:?}, {} rows)", self.keys, self.rows())
    }
}

/// Encoded blocks of one lane, not yet encrypted.
struct Plain {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Plain {
    fn block(&self, group: usize) -> &[u8] {
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        &self.bytes[start..self.ends[group]]
    }
}

/// One byte lane, encrypted and packed.
struct ByteLane {
    cells: Vec<Cell>,
    bytes: u64,
    ends: Vec<u64>,
    commitment: [u8; 32],
}

impl Sealer {
    /// A sealer without rows.
    #[must_use]
    pub fn new(keys: TableKeys) -> Self {
        Self {
            keys,
            batches: Vec::new(),
            weights: Vec::new(),
            #[cfg(test)]
            recorder: None,
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.weights.len()
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`SealError`] where the batch does not fit; nothing was added then.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), SealError> {
        self.push_weighted(batch, &vec![1; batch.num_rows()])
    }

    /// Adds rows with their weights: +1 a row, -1 a retraction of an equal row, 0 padding.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_weighted(&mut self, batch: &RecordBatch, weights: &[i8]) -> Result<(), SealError> {
        let batch = self.keys.table.schema.conform(batch)?;
        if weights.len() != batch.num_rows() || weights.iter().any(|w| !(-1..=1).contains(w)) {
            return Err(SealError::Weights { weights: weights.len(), rows: batch.num_rows() });
        }
        let rows = self.rows() + weights.len();
        if rows > SEGMENT_ROWS_MAX {
            return Err(SealError::TooManyRows(rows));
        }
        for (column, array) in self.keys.table.schema.columns().iter().zip(batch.columns()) {
            let longest = longest_value(column.ty, array);
            if longest > VALUE_BYTES_MAX {
                return Err(SealError::LongValue { column: column.name.clone(), bytes: longest });
            }
            // A greater one would reach into the bits of another sum.
            if !fits(column, array) {
                let (name, ty) = (column.name.clone(), column.ty);
                return Err(match column.bits {
                    Some(bits) => SealError::Bits { column: name, bits },
                    None => SealError::Digits { column: name, ty },
                });
            }
        }
        self.weights.extend_from_slice(weights);
        self.batches.push(batch);
        Ok(())
    }

    /// Sorts, encrypts and hashes. Uses the sealer up: the same rows sealed again are another segment under other keys.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(mut self, rng: &mut (impl CryptoRng + RngCore)) -> Result<SealedSegment, SealError> {
        let start = Instant::now();
        let (batch, keys) = self.sorted()?;
        let rows = batch.num_rows() as u64;
        let repeats = |row: &usize| keys.get(*row) == keys.get(row - 1) && self.weights[row - 1..=*row] == [1, 1];
        let repeated_keys = (1..keys.len()).filter(repeats).count() as u64;
        let groups = rows.div_ceil(GROUP_ROWS as u64) as usize;
        let table = Arc::clone(&self.keys.table);
        let plain = self.encode(&batch, groups);

        // The digest covers every byte that will be encrypted or summed, so equal ids mean equal data.
        let mut digest = blake3::Hasher::new();
        digest.update(table.hash.as_bytes());
        digest.update(&rows.to_le_bytes());
        for lane in &plain {
            digest.update(&(lane.bytes.len() as u64).to_le_bytes());
            digest.update(&lane.bytes);
        }
        let mut random = [0; 32];
        rng.fill_bytes(&mut random);
        let id = self.keys.keyring.segment_id(&random, digest.finalize().as_bytes());

        let byte_lanes: Vec<ByteLane> =
            plain.par_iter().enumerate().map(|(lane, plain)| self.seal_lane(&id, lane, plain, rows)).collect();
        drop(plain);
        let fences = self.seal_fences(&id, &keys, rows);
        drop(keys);
        let sum_lanes: Vec<Vec<Cell>> = sums::lanes(&table.schema)
            .par_iter()
            .map(|(lane, fields)| self.sum_lane(&id, *lane, fields, &batch))
            .collect();
        drop(batch);

        let (header, header_cells) = self.header(id, rows, &byte_lanes, fences, sum_lanes.len())?;
        let mut cells = Vec::with_capacity(header.segment_cells() as usize);
        cells.extend(header_cells);
        let header_hash = tree::header_hash(&cells);
        byte_lanes.into_iter().for_each(|lane| cells.extend(lane.cells));
        sum_lanes.into_iter().for_each(|lane| cells.extend(lane));
        debug_assert_eq!(cells.len() as u64, header.segment_cells());

        let hash_start = Instant::now();
        let segment_tree = SegmentTree::from_bytes_cells(&cells);
        let hash_ms = ms(hash_start);
        let preimage = SegmentPreimage {
            tree_root: field::to_bytes(&segment_tree.root()),
            cells: cells.len() as u64,
            header_hash,
        };
        let stats = SealStats {
            rows,
            cells: preimage.cells,
            permutations: permutations(preimage.cells),
            ms: ms(start),
            hash_ms,
            repeated_keys,
        };
        Ok(SealedSegment { root: tree::segment_root(&preimage), header, preimage, cells, stats })
    }

    /// All rows in key order (rows of equal keys in order of arrival), and their keys; the weights follow.
    fn sorted(&mut self) -> Result<(RecordBatch, Keys), SealError> {
        let schema = &self.keys.table.schema;
        if self.weights.is_empty() {
            return Err(SealError::Empty);
        }
        let gather = |e: arrow_schema::ArrowError| SealError::Gather(e.to_string());
        let batches = std::mem::take(&mut self.batches);
        let batch = concat_batches(&schema.arrow(), &batches).map_err(gather)?;
        drop(batches);
        let key_columns = |b: &RecordBatch| -> Vec<ArrayRef> {
            schema.key_indices().into_iter().map(|i| Arc::clone(b.column(i))).collect()
        };
        let keys = Keys::of(&key_columns(&batch));
        if let Some(bytes) = (0..keys.len()).map(|r| keys.get(r).len()).find(|n| *n > KEY_BYTES_MAX) {
            return Err(SealError::LongKey { bytes });
        }
        if keys.sorted() {
            return Ok((batch, keys));
        }
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        order.par_sort_unstable_by(|a, b| keys.get(*a as usize).cmp(keys.get(*b as usize)).then(a.cmp(b)));
        self.weights = order.iter().map(|i| self.weights[*i as usize]).collect();
        let batch = take_record_batch(&batch, &UInt32Array::from(order)).map_err(gather)?;
        let keys = Keys::of(&key_columns(&batch));
        Ok((batch, keys))
    }

    /// The blocks of every byte lane, in the order of the lanes: the weights come last.
    fn encode(&self, batch: &RecordBatch, groups: usize) -> Vec<Plain> {
        let schema = &self.keys.table.schema;
        let mut order: Vec<usize> = (0..batch.num_columns()).collect();
        order.sort_unstable_by_key(|column| schema.column_lane(*column));
        let mut lanes: Vec<Plain> = order
            .par_iter()
            .map(|at| {
                let (column, array) = (&schema.columns()[*at], batch.column(*at));
                let mut plain = Plain { bytes: Vec::new(), ends: Vec::with_capacity(groups) };
                for start in (0..array.len()).step_by(GROUP_ROWS) {
                    let group = array.slice(start, GROUP_ROWS.min(array.len() - start));
                    encode_column(column.ty, &group, &mut plain.bytes);
                    plain.ends.push(plain.bytes.len());
                }
                plain
            })
            .collect();
        let mut weights = Plain { bytes: Vec::new(), ends: Vec::with_capacity(groups) };
        for group in self.weights.chunks(GROUP_ROWS) {
            encode_weights(group, &mut weights.bytes);
            weights.ends.push(weights.bytes.len());
        }
        lanes.push(weights);
        lanes
    }

    fn seal_lane(&self, id: &SegmentId, lane: usize, plain: &Plain, rows: u64) -> ByteLane {
        let lane = LaneId(lane as u16);
        if self.keys.table.schema.is_public_lane(lane) {
            let ends = plain.ends.iter().map(|end| *end as u64).collect();
            return ByteLane {
                cells: pack_bytes(&plain.bytes),
                bytes: plain.bytes.len() as u64,
                ends,
                commitment: IN_CLEAR,
            };
        }
        let key = self.keys.lane(id, lane, Purpose::Cells);
        let groups = plain.ends.len() as u32;
        let mut bytes = Vec::with_capacity(plain.bytes.len() + plain.ends.len() * 48);
        let mut ends = Vec::with_capacity(plain.ends.len());
        let in_range = key.group_keys().for_each(0..groups, &mut |group, secret| {
            self.record_key(&secret);
            let aad = block_aad(id, lane, group, group_rows(rows, u64::from(group)) as u32, &self.keys.table.hash);
            bytes.extend_from_slice(&aead::seal_block(&secret, &aad, plain.block(group as usize)));
            ends.push(bytes.len() as u64);
        });
        assert!(in_range, "a segment has fewer groups than the tree has leaves");
        ByteLane { cells: pack_bytes(&bytes), bytes: bytes.len() as u64, ends, commitment: keys::commitment(&key) }
    }

    fn seal_fences(&self, id: &SegmentId, keys: &Keys, rows: u64) -> (Vec<Vec<u8>>, [u8; 32]) {
        let groups = keys.len().div_ceil(GROUP_ROWS) as u32;
        if self.keys.table.schema.is_open() {
            return ((0..groups as usize).map(|g| keys.get(g * GROUP_ROWS).to_vec()).collect(), IN_CLEAR);
        }
        let key = self.keys.fences(id);
        let mut fences = Vec::with_capacity(groups as usize);
        let in_range = key.group_keys().for_each(0..groups, &mut |group, secret| {
            self.record_key(&secret);
            let aad = block_aad(id, FENCES, group, group_rows(rows, u64::from(group)) as u32, &self.keys.table.hash);
            fences.push(aead::seal_block(&secret, &aad, keys.get(group as usize * GROUP_ROWS)));
        });
        assert!(in_range, "a segment has fewer groups than the tree has leaves");
        (fences, keys::commitment(&key))
    }

    fn sum_lane(&self, id: &SegmentId, lane: LaneId, fields: &[(Summand, SumField)], batch: &RecordBatch) -> Vec<Cell> {
        let mut values = sums::prefix_sums(fields, batch, &self.weights);
        if !self.keys.table.schema.is_public_lane(lane) {
            let masks = self.keys.lane(id, lane, Purpose::Sums).mask().fill(1..values.len() as u64 + 1);
            self.record_masks(id, lane, &masks);
            values.iter_mut().zip(&masks).for_each(|(v, m)| *v += m);
        }
        values
            .par_chunks(CELL_SCALARS)
            .with_min_len(512)
            .map(|chunk| {
                let mut cell = [FieldBytes::ZERO; CELL_SCALARS];
                cell.iter_mut().zip(chunk).for_each(|(to, from)| *to = field::to_bytes(from));
                cell
            })
            .collect()
    }

    fn header(
        &self,
        id: SegmentId,
        rows: u64,
        byte_lanes: &[ByteLane],
        (fences, fence_commitment): (Vec<Vec<u8>>, [u8; 32]),
        sum_lanes: usize,
    ) -> Result<(SegmentHeader, Vec<Cell>), SealError> {
        let blob = HeaderBlob {
            block_ends: byte_lanes.iter().map(|l| l.ends.clone()).collect(),
            fences,
            key_commitments: byte_lanes.iter().map(|l| l.commitment).chain([fence_commitment]).collect(),
        };
        let blob_bytes = codec::encode(&blob).len() as u64;
        if blob_bytes > HEADER_BLOB_BYTES_MAX as u64 {
            return Err(SealError::TooLarge {
                what: "header bytes",
                got: blob_bytes,
                limit: HEADER_BLOB_BYTES_MAX as u64,
            });
        }
        let byte = |l: &ByteLane| Lane {
            kind: LaneKind::Bytes,
            first_cell: 0,
            cells: byte_cells(l.bytes),
            rows,
            bytes: l.bytes,
        };
        let sum = Lane { kind: LaneKind::Sum, first_cell: 0, cells: sum_cells(rows), rows, bytes: 0 };
        let mut lanes: Vec<Lane> = byte_lanes.iter().map(byte).chain(std::iter::repeat_n(sum, sum_lanes)).collect();
        let mut header = SegmentHeader {
            id,
            rows,
            schema: self.keys.table.hash,
            key_epoch: self.keys.table.key_epoch,
            lanes: lanes.clone(),
            blob,
        };
        let mut next = header.cells();
        for lane in &mut lanes {
            lane.first_cell = next;
            next += lane.cells;
        }
        if next > SEGMENT_CELLS_MAX {
            return Err(SealError::TooLarge { what: "cells", got: next, limit: SEGMENT_CELLS_MAX });
        }
        header.lanes = lanes;
        let cells = header.to_cells();
        Ok((header, cells))
    }

    #[cfg(test)]
    fn record_key(&self, secret: &fluence_crypto::secret::Secret<32>) {
        if let Some(r) = &self.recorder {
            r.lock().unwrap().push(Use::Key(secret.expose(|k| *blake3::hash(k).as_bytes())));
        }
    }
    #[cfg(test)]
    fn record_masks(&self, id: &SegmentId, lane: LaneId, masks: &[fluence_crypto::Fr]) {
        if let Some(r) = &self.recorder {
            let mut list = r.lock().unwrap();
            for (i, m) in masks.iter().enumerate() {
                list.push(Use::Label(*id, lane, i as u64 + 1));
                list.push(Use::Mask(field::to_bytes(m)));
            }
        }
    }
    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn record_key(&self, _: &fluence_crypto::secret::Secret<32>) {}
    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn record_masks(&self, _: &SegmentId, _: LaneId, _: &[fluence_crypto::Fr]) {}
}

fn longest_value(ty: ColumnType, array: &ArrayRef) -> usize {
    let longest = |offsets: &[i32]| offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    match ty {
        ColumnType::Text => longest(array.as_string::<i32>().value_offsets()),
        ColumnType::Bytes => longest(array.as_binary::<i32>().value_offsets()),
        _ => 0,
    }
}

/// Whether all values keep to the digits or bits of their column.
fn fits(column: &Column, array: &ArrayRef) -> bool {
    match (column.ty, column.bits) {
        (ColumnType::Decimal { precision, .. }, _) => {
            let limit = 10u128.pow(u32::from(precision));
            array.as_primitive::<Decimal128Type>().iter().flatten().all(|v| v.unsigned_abs() < limit)
        }
        (ColumnType::Int64, Some(bits)) => {
            let limit = 1u64 << bits;
            array.as_primitive::<Int64Type>().iter().flatten().all(|v| v.unsigned_abs() < limit)
        }
        _ => true,
    }
}

/// Permutations that a tree over `cells` cells costs.
#[must_use]
pub fn permutations(cells: u64) -> u64 {
    let mut total = cells;
    let mut nodes = cells;
    for _ in 0..segment_levels(cells) {
        nodes = nodes.div_ceil(8);
        total += nodes;
    }
    total
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
