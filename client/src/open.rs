//! Opening: verified cells in, rows and sums out.
//!
//! Rule    [`blocks`], [`prefix`] and what is built on them take only a `VerifiedAnswer`: unverified cells cannot be decrypted.
//!         Before any block of a segment is opened its key commitments were compared ([`SegmentView::new`]), so AES-GCM's missing
//!         commitment gives a writer no block that opens two ways.
//! Source  DESIGN sections 3, 5 and 11

use crate::block::{BlockError, decode_column, decode_weights};
use crate::range::Bounds;
use crate::seal::{IN_CLEAR, SEGMENT_ROWS_MAX, TableKeys, block_aad, group_rows};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::concat::concat;
use fluence_crypto::aead::{self, AeadError};
use fluence_crypto::keys::{self, Purpose};
use fluence_crypto::{Fr, field};
use fluence_types::limits::{CELL_PAYLOAD_BYTES, CELL_SCALARS, GROUP_ROWS, SCALAR_PAYLOAD_BYTES};
use fluence_types::segment::{LaneKind, SegmentHeader};
use fluence_types::tree::Cell;
use fluence_types::{LaneId, SegmentRoot};
use fluence_verifier::answer::{VerifiedAnswer, VerifiedSegment};
use rayon::prelude::*;
use std::ops::Range;

/// Why verified cells were not opened: the writer sealed them otherwise, or under other keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The segment was sealed under another schema or key epoch.
    #[error("segment {segment} was sealed under another {what}")]
    Foreign {
        /// The segment.
        segment: SegmentRoot,
        /// Schema, key epoch, lanes.
        what: &'static str,
    },
    /// More rows than one segment takes.
    #[error("segment {segment} has {rows} rows, a segment takes {SEGMENT_ROWS_MAX}")]
    TooManyRows {
        /// The segment.
        segment: SegmentRoot,
        /// Its rows.
        rows: u64,
    },
    /// The header commits to other keys than ours.
    #[error("segment {segment}, lane {lane}: its header commits to another key")]
    Commitment {
        /// The segment.
        segment: SegmentRoot,
        /// The lane; 65535 stands for the fences.
        lane: LaneId,
    },
    /// A block does not open.
    #[error("segment {segment}, lane {lane}, row group {group}: {why}")]
    Sealed {
        /// The segment.
        segment: SegmentRoot,
        /// The lane.
        lane: LaneId,
        /// The row group.
        group: u32,
        /// What the cipher says.
        why: AeadError,
    },
    /// It opens, and holds no column.
    #[error("segment {segment}, lane {lane}, row group {group}: {why}")]
    Block {
        /// The segment.
        segment: SegmentRoot,
        /// The lane.
        lane: LaneId,
        /// The row group.
        group: u32,
        /// What is wrong.
        why: BlockError,
    },
    /// Fences that do not increase: positions found by them would be wrong.
    #[error("segment {segment}: the fence of row group {group} is below the one before")]
    Fences {
        /// The segment.
        segment: SegmentRoot,
        /// The row group.
        group: u32,
    },
    /// Rows out of key order inside a group.
    #[error("segment {segment}, row group {group}: rows are not in key order, or not what its fence says")]
    Order {
        /// The segment.
        segment: SegmentRoot,
        /// The row group.
        group: u32,
    },
    /// The answer lacks cells that the caller needs; it asked for others.
    #[error("cell {cell} of segment {segment} was not asked for")]
    NotAsked {
        /// The segment.
        segment: SegmentRoot,
        /// The cell.
        cell: u64,
    },
    /// A byte lane's scalar has its first byte set, so it is no payload.
    #[error("segment {segment}, lane {lane}: a scalar is no payload")]
    Payload {
        /// The segment.
        segment: SegmentRoot,
        /// The lane.
        lane: LaneId,
    },
    /// Arrow could not gather the rows.
    #[error("gathering rows: {0}")]
    Gather(#[from] ArrowError),
}

/// A segment's verified header with its fences in clear: what planning needs.
#[derive(Clone)]
pub struct SegmentView {
    root: SegmentRoot,
    header: SegmentHeader,
    fences: Vec<Vec<u8>>,
}

impl std::fmt::Debug for SegmentView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentView({}, {} rows)", self.root, self.header.rows)
    }
}

impl SegmentView {
    /// Checks that `header` (verified against `root`) is of this table and key, and decrypts the fences.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn new(keys: &TableKeys, root: SegmentRoot, header: SegmentHeader) -> Result<Self, OpenError> {
        let table = keys.table();
        let foreign = |what| Err(OpenError::Foreign { segment: root, what });
        if header.schema != table.hash {
            return foreign("schema");
        }
        if header.key_epoch != table.key_epoch {
            return foreign("key epoch");
        }
        if !header.lanes.iter().map(|l| l.kind).eq(table.schema.lane_kinds().iter().copied()) {
            return foreign("list of lanes");
        }
        // Of more rows, sums that share a scalar need not keep to their bits.
        if header.rows > SEGMENT_ROWS_MAX as u64 {
            return Err(OpenError::TooManyRows { segment: root, rows: header.rows });
        }
        let byte_lanes = table.schema.byte_lanes();
        for (i, commitment) in header.blob.key_commitments[..byte_lanes].iter().enumerate() {
            let lane = LaneId(i as u16);
            let expected = match table.schema.is_public_lane(lane) {
                _ if table.schema.is_hidden_lane(lane) => continue,
                true => IN_CLEAR,
                false => keys::commitment(&keys.lane(&header.id, lane, Purpose::Cells)),
            };
            if expected != *commitment {
                return Err(OpenError::Commitment { segment: root, lane });
            }
        }
        let commitment = header.blob.key_commitments[byte_lanes];
        let other_key = || OpenError::Commitment { segment: root, lane: keys::FENCES };
        if table.schema.is_open() {
            if commitment != IN_CLEAR {
                return Err(other_key());
            }
            if let Some(at) = header.blob.fences.windows(2).position(|w| w[0] > w[1]) {
                return Err(OpenError::Fences { segment: root, group: at as u32 + 1 });
            }
            let fences = header.blob.fences.clone();
            return Ok(Self { root, header, fences });
        }
        let fence_key = keys.fences(&header.id);
        if keys::commitment(&fence_key) != commitment {
            return Err(other_key());
        }
        let mut fences: Vec<Vec<u8>> = Vec::with_capacity(header.blob.fences.len());
        let mut failed = None;
        fence_key.group_keys().for_each(0..header.blob.fences.len() as u32, &mut |group, secret| {
            let rows = group_rows(header.rows, u64::from(group)) as u32;
            let aad = block_aad(&header.id, keys::FENCES, group, rows, &header.schema);
            match aead::open_block(&secret, &aad, &header.blob.fences[group as usize]) {
                Ok(fence) if fences.last().is_none_or(|last| *last <= fence) => fences.push(fence),
                Ok(_) => failed = failed.take().or(Some(OpenError::Fences { segment: root, group })),
                Err(why) => {
                    let lane = keys::FENCES;
                    failed = failed.take().or(Some(OpenError::Sealed { segment: root, lane, group, why }));
                }
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Self { root, header, fences }),
        }
    }

    /// The segment.
    #[must_use]
    pub const fn root(&self) -> SegmentRoot {
        self.root
    }
    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }
    /// The first key of a row group.
    #[must_use]
    pub fn fence(&self, group: u32) -> &[u8] {
        &self.fences[group as usize]
    }
    /// Row groups.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.fences.len() as u32
    }
    /// Groups whose first key is below `bound`; the position of `bound` is inside the last of them, or at its end.
    #[must_use]
    pub fn groups_below(&self, bound: &[u8]) -> u32 {
        self.fences.partition_point(|f| f.as_slice() < bound) as u32
    }
    /// Groups that may hold rows of a range.
    #[must_use]
    pub fn candidates(&self, bounds: &Bounds) -> Range<u32> {
        let Some(lower) = &bounds.lower else { return 0..0 };
        let start = self.groups_below(lower).saturating_sub(1);
        let end = bounds.upper.as_ref().map_or(self.groups(), |upper| self.groups_below(upper));
        start..end.max(start)
    }
    /// Bytes it takes in memory, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let fences: usize = self.fences.iter().chain(&self.header.blob.fences).map(|f| f.len() + 24).sum();
        let ends: usize = self.header.blob.block_ends.iter().map(|e| e.len() * 8 + 24).sum();
        fences + ends + self.header.lanes.len() * 48 + 256
    }

    /// The cells that hold the blocks of `groups` in a byte lane.
    #[must_use]
    pub fn block_cells(&self, lane: LaneId, groups: &Range<u32>) -> Option<Range<u64>> {
        let (start, end) = self.block_bytes(lane, groups)?;
        let first = self.header.lane(lane)?.first_cell;
        let payload = CELL_PAYLOAD_BYTES as u64;
        Some(first + start / payload..first + end.div_ceil(payload))
    }

    fn block_bytes(&self, lane: LaneId, groups: &Range<u32>) -> Option<(u64, u64)> {
        if groups.is_empty() {
            return None;
        }
        let ends = self.header.blob.block_ends.get(usize::from(lane.0))?;
        let start = if groups.start == 0 { 0 } else { *ends.get(groups.start as usize - 1)? };
        Some((start, *ends.get(groups.end as usize - 1)?))
    }

    /// Cell and word of the prefix sum of row `row` in a sum lane.
    #[must_use]
    pub fn prefix_cell(&self, lane: LaneId, row: u64) -> Option<(u64, usize)> {
        let lane = self.header.lane(lane).filter(|l| l.kind == LaneKind::Sum && row < l.rows)?;
        Some((lane.first_cell + row / CELL_SCALARS as u64, (row % CELL_SCALARS as u64) as usize))
    }
}

/// The verified segment of a view in an answer.
fn verified<'a>(answer: &'a VerifiedAnswer, view: &SegmentView) -> Result<&'a VerifiedSegment, OpenError> {
    let found = answer.segments().iter().find(|s| s.root() == view.root);
    found.ok_or(OpenError::NotAsked { segment: view.root, cell: 0 })
}

/// The sealed bytes of consecutive groups of a byte lane.
fn sealed_bytes(
    segment: &VerifiedSegment,
    view: &SegmentView,
    lane: LaneId,
    groups: &Range<u32>,
) -> Result<Vec<u8>, OpenError> {
    let root = view.root;
    let not_asked = |cell| OpenError::NotAsked { segment: root, cell };
    let (start, end) = view.block_bytes(lane, groups).ok_or_else(|| not_asked(0))?;
    let cells = view.block_cells(lane, groups).ok_or_else(|| not_asked(0))?;
    let span = segment.span(cells.start, cells.end - cells.start).ok_or_else(|| not_asked(cells.start))?;
    let mut bytes = Vec::with_capacity(span.len() * CELL_PAYLOAD_BYTES);
    for (_, cell) in span {
        unpack(cell, &mut bytes).ok_or(OpenError::Payload { segment: root, lane })?;
    }
    let skip = (start % CELL_PAYLOAD_BYTES as u64) as usize;
    bytes.truncate(skip + (end - start) as usize);
    bytes.drain(..skip);
    Ok(bytes)
}

fn unpack(cell: &Cell, out: &mut Vec<u8>) -> Option<()> {
    for scalar in cell {
        let (first, payload) = scalar.as_bytes().split_first()?;
        debug_assert_eq!(payload.len(), SCALAR_PAYLOAD_BYTES);
        if *first != 0 {
            return None;
        }
        out.extend_from_slice(payload);
    }
    Some(())
}

/// The opened blocks of one lane, one a group. Those of a public lane stand in clear.
fn open_lane<T: Send>(
    keys: &TableKeys,
    segment: &VerifiedSegment,
    view: &SegmentView,
    lane: LaneId,
    groups: &Range<u32>,
    decode: impl Fn(usize, &[u8]) -> Result<T, BlockError>,
) -> Result<Vec<T>, OpenError> {
    let header = &view.header;
    let sealed = sealed_bytes(segment, view, lane, groups)?;
    let ends = &header.blob.block_ends[usize::from(lane.0)];
    let base = if groups.start == 0 { 0 } else { ends[groups.start as usize - 1] };
    let mut out = Vec::with_capacity(groups.len());
    if keys.table().schema.is_public_lane(lane) {
        let mut start = 0;
        for group in groups.clone() {
            let end = (ends[group as usize] - base) as usize;
            let rows = group_rows(header.rows, u64::from(group));
            let block = |why| OpenError::Block { segment: view.root, lane, group, why };
            out.push(decode(rows, &sealed[start..end]).map_err(block)?);
            start = end;
        }
        return Ok(out);
    }
    let mut failed = None;
    keys.lane(&header.id, lane, Purpose::Cells).group_keys().for_each(groups.clone(), &mut |group, secret| {
        if failed.is_some() {
            return;
        }
        let start = if group == 0 { 0 } else { ends[group as usize - 1] } - base;
        let block = &sealed[start as usize..(ends[group as usize] - base) as usize];
        let rows = group_rows(header.rows, u64::from(group));
        let aad = block_aad(&header.id, lane, group, rows as u32, &header.schema);
        let segment = view.root;
        let opened = aead::open_block(&secret, &aad, block)
            .map_err(|why| OpenError::Sealed { segment, lane, group, why })
            .and_then(|plain| decode(rows, &plain).map_err(|why| OpenError::Block { segment, lane, group, why }));
        match opened {
            Ok(value) => out.push(value),
            Err(error) => failed = Some(error),
        }
    });
    failed.map_or(Ok(out), Err)
}

/// Rows of consecutive groups: some columns, and the weights.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The columns asked for, in that order.
    pub batch: RecordBatch,
    /// +1, -1 or 0 for each row.
    pub weights: Vec<i8>,
}

/// Opens columns (by index) and weights of consecutive row groups of a live segment.
///
/// # Errors
/// [`OpenError`].
pub fn blocks(
    keys: &TableKeys,
    answer: &VerifiedAnswer,
    view: &SegmentView,
    columns: &[usize],
    groups: &Range<u32>,
) -> Result<Rows, OpenError> {
    let segment = verified(answer, view)?;
    let schema = &keys.table().schema;
    let column = |index: &usize| -> Result<ArrayRef, OpenError> {
        let ty = schema.columns()[*index].ty;
        let parts =
            open_lane(keys, segment, view, schema.column_lane(*index), groups, |rows, b| decode_column(ty, rows, b))?;
        Ok(concat(&parts.iter().map(|p| &**p).collect::<Vec<_>>())?)
    };
    // Few rows are opened sooner than others are woken for them.
    let arrays = match groups.len() {
        0..=2 => columns.iter().map(column).collect::<Result<Vec<_>, _>>()?,
        _ => columns.par_iter().map(column).collect::<Result<Vec<_>, _>>()?,
    };
    let weights = open_lane(keys, segment, view, schema.weight_lane(), groups, decode_weights)?.concat();
    Ok(Rows { batch: RecordBatch::try_new(schema.arrow_of(columns), arrays)?, weights })
}

/// The key columns of consecutive row groups of a live segment, without the weights: for positions.
///
/// # Errors
/// [`OpenError`].
pub fn key_columns(
    keys: &TableKeys,
    answer: &VerifiedAnswer,
    view: &SegmentView,
    groups: &Range<u32>,
) -> Result<Vec<ArrayRef>, OpenError> {
    let segment = verified(answer, view)?;
    let schema = &keys.table().schema;
    schema
        .key_indices()
        .into_par_iter()
        .map(|index| {
            let ty = schema.columns()[index].ty;
            let parts = open_lane(keys, segment, view, schema.column_lane(index), groups, |rows, b| {
                decode_column(ty, rows, b)
            })?;
            Ok(concat(&parts.iter().map(|p| &**p).collect::<Vec<_>>())?)
        })
        .collect()
}

/// Checks that the rows of groups are in key order and begin with what the fences say; `full` holds their keys (any columns may follow).
///
/// # Errors
/// [`OpenError::Order`].
pub fn check_order(view: &SegmentView, groups: &Range<u32>, full: &crate::key::Keys) -> Result<(), OpenError> {
    let order = |group| Err(OpenError::Order { segment: view.root, group });
    let mut row = 0;
    for group in groups.clone() {
        let rows = group_rows(view.header.rows, u64::from(group));
        if !full.get(row).starts_with(view.fence(group)) {
            return order(group);
        }
        // The last row is not above the next group's first key.
        if group + 1 < view.groups() {
            let (last, next) = (full.get(row + rows - 1), view.fence(group + 1));
            if last > next && !last.starts_with(next) {
                return order(group);
            }
        }
        row += rows;
    }
    Ok(())
}

/// The unmasked sum of rows `[rows.start, rows.end)` of a sum lane.
///
/// # Errors
/// [`OpenError::NotAsked`] where the answer lacks one of the two cells.
pub fn range_sum(
    keys: &TableKeys,
    answer: &VerifiedAnswer,
    view: &SegmentView,
    lane: LaneId,
    rows: &Range<u64>,
) -> Result<Fr, OpenError> {
    if rows.is_empty() {
        return Ok(Fr::from(0u64));
    }
    let segment = verified(answer, view)?;
    let prefix = |boundary: u64| -> Result<Fr, OpenError> {
        if boundary == 0 {
            return Ok(Fr::from(0u64));
        }
        let missing = |cell| OpenError::NotAsked { segment: view.root, cell };
        let (cell, word) = view.prefix_cell(lane, boundary - 1).ok_or_else(|| missing(0))?;
        Ok(field::from_bytes(&segment.cell(cell).ok_or_else(|| missing(cell))?[word]))
    };
    let masked = prefix(rows.end)? - prefix(rows.start)?;
    Ok(masked - mask_difference(keys, view, lane, rows))
}

/// What the masks add to the difference of the two prefix sums: `mask(hi) - mask(lo)`.
#[must_use]
pub fn mask_difference(keys: &TableKeys, view: &SegmentView, lane: LaneId, rows: &Range<u64>) -> Fr {
    if rows.is_empty() || keys.table().schema.is_public_lane(lane) {
        return Fr::from(0u64);
    }
    let mask = keys.lane(&view.header.id, lane, Purpose::Sums).mask();
    mask.mask(rows.end) - mask.mask(rows.start)
}

/// Cells that hold the two prefix sums of a range.
#[must_use]
pub fn sum_cells_of(view: &SegmentView, lane: LaneId, rows: &Range<u64>) -> Vec<u64> {
    if rows.is_empty() {
        return Vec::new();
    }
    let boundaries = [rows.start, rows.end].into_iter().filter(|b| *b > 0);
    boundaries.filter_map(|b| view.prefix_cell(lane, b - 1).map(|(cell, _)| cell)).collect()
}

/// Rows per group, for callers that turn groups into positions.
pub const ROWS_PER_GROUP: u64 = GROUP_ROWS as u64;
