//! The layout of a segment: header cells, lane directory, byte lanes, sum lanes.
//!
//! ```text
//! cell 0            preamble: [magic, segment id, rows, lanes, blob bytes, schema hash hi, lo, key epoch]
//! cell 1 + lane     directory: [kind, first cell, cells, rows, bytes, 0, 0, 0]
//! then              header blob, 31 bytes a scalar, padded with 0 to whole cells: canonical [`HeaderBlob`]
//! then              the lanes in directory order, each padded with 0 to whole cells, no gap between them
//! ```
//! A byte lane packs 31 bytes a scalar; a sum lane holds one scalar a row: the masked inclusive prefix sum.
//! Because lane `l` is described by cell `1 + l`, a circuit opens one header cell to learn where a lane is.
//! Source  DESIGN section 3; `docs/protocol/segment.md`.

use crate::codec::{self, Bounded, CodecError};
use crate::limits::{
    CELL_PAYLOAD_BYTES, CELL_SCALARS, DESCRIPTION_BYTES_MAX, GROUP_ROWS, HEADER_BLOB_BYTES_MAX, LANES_MAX,
    SCALAR_PAYLOAD_BYTES, SEGMENT_CELLS_MAX,
};
use crate::tree::Cell;
use crate::{FieldBytes, LaneId, SchemaHash, SegmentId, hash_halves};
use borsh::{BorshDeserialize, BorshSerialize};

/// First scalar of a segment: "FLUSEG" and the format version 1.
pub const SEGMENT_MAGIC: FieldBytes = FieldBytes::from_u64(0x464c_5553_4547_0001);

/// What a lane holds; the number stands in the directory cell.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize,
)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum LaneKind {
    /// AEAD ciphertext, one block a row group.
    Bytes = 1,
    /// Masked prefix sums, one scalar a row.
    Sum = 2,
}

/// One entry of the lane directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane {
    /// What it holds.
    pub kind: LaneKind,
    /// Its first cell, counted from the start of the segment.
    pub first_cell: u64,
    /// Its cells.
    pub cells: u64,
    /// Rows of the segment (the same in every lane).
    pub rows: u64,
    /// Ciphertext bytes of a byte lane; 0 in a sum lane.
    pub bytes: u64,
}

/// What the nodes know of a projection's schema: the kinds of its lanes, and what the owner says of them.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct PublicSchema {
    /// Kinds of the lanes, in directory order: byte lanes first, then sum lanes.
    pub lanes: Bounded<LaneKind, LANES_MAX>,
    /// Names, types, sort key and sum expressions: those of public columns in clear, all of them encrypted under the table key. No node
    /// reads it.
    pub description: Bounded<u8, DESCRIPTION_BYTES_MAX>,
}

/// The variable part of the header.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct HeaderBlob {
    /// For each byte lane, the end of each row group's block, in bytes from the start of the lane; strictly increasing.
    pub block_ends: Vec<Vec<u64>>,
    /// For each row group, its first sort key, encrypted under the group's fence key.
    pub fences: Vec<Vec<u8>>,
    /// For each byte lane, then for the fences: a commitment to the key its groups derive from (AES-GCM alone does not commit).
    pub key_commitments: Vec<[u8; 32]>,
}

/// A decoded, consistent segment header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The segment.
    pub id: SegmentId,
    /// Rows, at least 1.
    pub rows: u64,
    /// The schema it was sealed under.
    pub schema: SchemaHash,
    /// The key epoch it was sealed under.
    pub key_epoch: u64,
    /// The lane directory.
    pub lanes: Vec<Lane>,
    /// Block offsets, fences, commitments.
    pub blob: HeaderBlob,
}

/// Why header cells were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first scalar is not a segment's.
    #[error("not a segment header: magic {0}")]
    Magic(FieldBytes),
    /// A number is outside its range.
    #[error("header field {field} is {got}, allowed {min}..={max}")]
    Range {
        /// Which.
        field: &'static str,
        /// Its value.
        got: FieldBytes,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// A scalar that must be 0 is not.
    #[error("header padding is not zero in cell {0}")]
    Padding(u64),
    /// Fewer cells than the preamble promises.
    #[error("header needs {need} cells, got {got}")]
    Short {
        /// Cells promised.
        need: u64,
        /// Cells given.
        got: u64,
    },
    /// The directory has a gap, an overlap, a wrong order or a wrong length.
    #[error("lane {lane}: {why}")]
    Lane {
        /// Position in the directory.
        lane: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The blob does not decode or does not fit the directory.
    #[error("header blob: {0}")]
    Blob(String),
}

impl From<CodecError> for HeaderError {
    fn from(e: CodecError) -> Self {
        Self::Blob(e.to_string())
    }
}

/// Cells that `bytes` payload bytes fill.
#[must_use]
pub const fn byte_cells(bytes: u64) -> u64 {
    bytes.div_ceil(CELL_PAYLOAD_BYTES as u64)
}

/// Cells that `rows` prefix sums fill.
#[must_use]
pub const fn sum_cells(rows: u64) -> u64 {
    rows.div_ceil(CELL_SCALARS as u64)
}

/// Row groups of `rows` rows.
#[must_use]
pub const fn groups(rows: u64) -> u64 {
    rows.div_ceil(GROUP_ROWS as u64)
}

/// Packs bytes into cells, 31 a scalar, padded with 0.
#[must_use]
pub fn pack_bytes(bytes: &[u8]) -> Vec<Cell> {
    bytes
        .chunks(CELL_PAYLOAD_BYTES)
        .map(|chunk| {
            let mut cell = [FieldBytes::ZERO; CELL_SCALARS];
            for (scalar, part) in cell.iter_mut().zip(chunk.chunks(SCALAR_PAYLOAD_BYTES)) {
                let mut payload = [0; SCALAR_PAYLOAD_BYTES];
                payload[..part.len()].copy_from_slice(part);
                *scalar = FieldBytes::from_payload(&payload);
            }
            cell
        })
        .collect()
}

/// The payload bytes of cells; `None` if a scalar is not a payload (its first byte is not 0).
#[must_use]
pub fn unpack_bytes(cells: &[Cell]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(cells.len() * CELL_PAYLOAD_BYTES);
    for scalar in cells.iter().flatten() {
        let raw = scalar.as_bytes();
        if raw[0] != 0 {
            return None;
        }
        bytes.extend_from_slice(&raw[1..]);
    }
    Some(bytes)
}

impl SegmentHeader {
    /// Cells the header itself takes.
    #[must_use]
    pub fn cells(&self) -> u64 {
        header_cells(self.lanes.len() as u64, codec::encode(&self.blob).len() as u64)
    }

    /// Cells of the whole segment.
    #[must_use]
    pub fn segment_cells(&self) -> u64 {
        self.lanes.last().map_or_else(|| self.cells(), |lane| lane.first_cell + lane.cells)
    }

    /// The directory entry of `lane`.
    #[must_use]
    pub fn lane(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(usize::from(lane.0))
    }

    /// The header as cells.
    #[must_use]
    pub fn to_cells(&self) -> Vec<Cell> {
        let blob = codec::encode(&self.blob);
        let (hi, lo) = hash_halves(self.schema.as_bytes());
        let n = FieldBytes::from_u64;
        let mut cells = vec![[
            SEGMENT_MAGIC,
            self.id.to_field(),
            n(self.rows),
            n(self.lanes.len() as u64),
            n(blob.len() as u64),
            hi,
            lo,
            n(self.key_epoch),
        ]];
        cells.extend(self.lanes.iter().map(|l| {
            let z = FieldBytes::ZERO;
            [n(l.kind as u64), n(l.first_cell), n(l.cells), n(l.rows), n(l.bytes), z, z, z]
        }));
        cells.extend(pack_bytes(&blob));
        cells
    }

    /// Cells the header takes, read from its first cell alone.
    ///
    /// # Errors
    /// [`HeaderError`] where the preamble is out of range.
    pub fn cells_from_preamble(preamble: &Cell) -> Result<u64, HeaderError> {
        if preamble[0] != SEGMENT_MAGIC {
            return Err(HeaderError::Magic(preamble[0]));
        }
        let lanes = ranged("lanes", preamble[3], 1, LANES_MAX as u64)?;
        let blob_bytes = ranged("blob bytes", preamble[4], 1, HEADER_BLOB_BYTES_MAX as u64)?;
        Ok(header_cells(lanes, blob_bytes))
    }

    /// Decodes and checks a header from the first cells of a segment; `cells` may hold more.
    ///
    /// # Errors
    /// [`HeaderError`] naming the field or lane that is wrong.
    pub fn from_cells(cells: &[Cell]) -> Result<Self, HeaderError> {
        let preamble = cells.first().ok_or(HeaderError::Short { need: 1, got: 0 })?;
        let need = Self::cells_from_preamble(preamble)?;
        if (cells.len() as u64) < need {
            return Err(HeaderError::Short { need, got: cells.len() as u64 });
        }
        let small = |field, f: FieldBytes| {
            f.to_u128().ok_or(HeaderError::Range { field, got: f, min: 0, max: u64::MAX }).map(u128::to_be_bytes)
        };
        let id = SegmentId::from_bytes(small("segment id", preamble[1])?);
        let rows = ranged("rows", preamble[2], 1, SEGMENT_CELLS_MAX * CELL_SCALARS as u64)?;
        let lane_count = ranged("lanes", preamble[3], 1, LANES_MAX as u64)?;
        let blob_bytes = ranged("blob bytes", preamble[4], 1, HEADER_BLOB_BYTES_MAX as u64)?;
        let mut schema = [0; 32];
        schema[..16].copy_from_slice(&small("schema hash", preamble[5])?);
        schema[16..].copy_from_slice(&small("schema hash", preamble[6])?);
        let key_epoch = ranged("key epoch", preamble[7], 0, u64::MAX)?;

        let mut lanes = Vec::with_capacity(lane_count as usize);
        for (i, cell) in cells[1..=lane_count as usize].iter().enumerate() {
            lanes.push(lane_from_cell(i, cell)?);
        }
        let blob_cells = &cells[1 + lane_count as usize..need as usize];
        let packed = unpack_bytes(blob_cells).ok_or(HeaderError::Padding(1 + lane_count))?;
        let (blob, padding) = packed.split_at(blob_bytes as usize);
        if padding.iter().any(|b| *b != 0) {
            return Err(HeaderError::Padding(need - 1));
        }
        let blob = codec::decode("header blob", blob, HEADER_BLOB_BYTES_MAX)?;
        let header = Self { id, rows, schema: SchemaHash::from_bytes(schema), key_epoch, lanes, blob };
        header.check(need)?;
        Ok(header)
    }

    /// The rules between the parts: lanes in order without gap or overlap, lengths that follow from rows and bytes, blob of the right shape.
    fn check(&self, header_cells: u64) -> Result<(), HeaderError> {
        let mut next = header_cells;
        let groups = groups(self.rows);
        let byte_lanes = self.lanes.iter().filter(|l| l.kind == LaneKind::Bytes).count();
        for (i, lane) in self.lanes.iter().enumerate() {
            let wrong = |why| Err(HeaderError::Lane { lane: i, why });
            if (lane.kind == LaneKind::Bytes) != (i < byte_lanes) {
                return wrong("a byte lane after a sum lane");
            }
            if lane.first_cell != next {
                return wrong("does not start where the one before ends");
            }
            if lane.rows != self.rows {
                return wrong("row count differs from the segment's");
            }
            let want = match lane.kind {
                LaneKind::Bytes => byte_cells(lane.bytes),
                LaneKind::Sum if lane.bytes == 0 => sum_cells(lane.rows),
                LaneKind::Sum => return wrong("a sum lane with a byte length"),
            };
            if lane.cells != want {
                return wrong("cell count does not follow from its length");
            }
            next = next
                .checked_add(lane.cells)
                .filter(|n| *n <= SEGMENT_CELLS_MAX)
                .ok_or(HeaderError::Lane { lane: i, why: "ends beyond the largest segment" })?;
        }
        let blob_wrong = |why: &str| Err(HeaderError::Blob(why.to_owned()));
        if self.blob.block_ends.len() != byte_lanes {
            return blob_wrong("one list of block ends per byte lane");
        }
        for (lane, ends) in self.lanes.iter().zip(&self.blob.block_ends) {
            let increasing = ends.first().is_some_and(|e| *e > 0) && ends.windows(2).all(|w| w[0] < w[1]);
            if ends.len() as u64 != groups || !increasing || ends.last() != Some(&lane.bytes) {
                return blob_wrong("block ends must increase, one a row group, up to the lane's length");
            }
        }
        if self.blob.fences.len() as u64 != groups {
            return blob_wrong("one fence per row group");
        }
        if self.blob.key_commitments.len() != byte_lanes + 1 {
            return blob_wrong("one key commitment per byte lane and one for the fences");
        }
        Ok(())
    }
}

const fn header_cells(lanes: u64, blob_bytes: u64) -> u64 {
    1 + lanes + byte_cells(blob_bytes)
}

fn ranged(field: &'static str, got: FieldBytes, min: u64, max: u64) -> Result<u64, HeaderError> {
    got.to_u64().filter(|v| (min..=max).contains(v)).ok_or(HeaderError::Range { field, got, min, max })
}

fn lane_from_cell(i: usize, cell: &Cell) -> Result<Lane, HeaderError> {
    let kind = match cell[0].to_u64() {
        Some(1) => LaneKind::Bytes,
        Some(2) => LaneKind::Sum,
        _ => return Err(HeaderError::Lane { lane: i, why: "unknown kind" }),
    };
    if cell[5..].iter().any(|s| *s != FieldBytes::ZERO) {
        return Err(HeaderError::Padding(1 + i as u64));
    }
    Ok(Lane {
        kind,
        first_cell: ranged("first cell", cell[1], 1, SEGMENT_CELLS_MAX)?,
        cells: ranged("cells", cell[2], 1, SEGMENT_CELLS_MAX)?,
        rows: ranged("rows", cell[3], 1, SEGMENT_CELLS_MAX * CELL_SCALARS as u64)?,
        bytes: ranged("bytes", cell[4], 0, SEGMENT_CELLS_MAX * CELL_PAYLOAD_BYTES as u64)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let blob = HeaderBlob {
            block_ends: vec![vec![300, 500]],
            fences: vec![vec![1; 40], vec![2; 40]],
            key_commitments: vec![[3; 32]; 2],
        };
        let first = header_cells(2, codec::encode(&blob).len() as u64);
        let lanes = vec![
            Lane { kind: LaneKind::Bytes, first_cell: first, cells: 3, rows: 300, bytes: 500 },
            Lane { kind: LaneKind::Sum, first_cell: first + 3, cells: 38, rows: 300, bytes: 0 },
        ];
        let (id, schema) = (SegmentId::from_bytes([7; 16]), SchemaHash::from_bytes([9; 32]));
        SegmentHeader { id, rows: 300, schema, key_epoch: 0, lanes, blob }
    }

    #[test]
    fn header_round_trips_through_its_cells() {
        let h = header();
        let cells = h.to_cells();
        assert_eq!(cells.len() as u64, h.cells());
        assert_eq!(SegmentHeader::from_cells(&cells).unwrap(), h);
        assert_eq!(h.segment_cells(), h.cells() + 3 + 38);
    }

    #[test]
    fn rejects_each_inconsistent_header() {
        type Spoil = fn(&mut SegmentHeader);
        let spoils: [(&str, Spoil); 10] = [
            ("gap", |h| h.lanes[1].first_cell += 1),
            ("overlap", |h| h.lanes[1].first_cell -= 1),
            ("short lane", |h| h.lanes[1].cells -= 1),
            ("rows", |h| h.lanes[0].rows = 299),
            ("order", |h| h.lanes.swap(0, 1)),
            ("bytes in a sum lane", |h| h.lanes[1].bytes = 1),
            ("missing fence", |h| h.blob.fences.truncate(1)),
            ("block ends", |h| h.blob.block_ends[0][0] = 500),
            ("commitments", |h| h.blob.key_commitments.truncate(1)),
            ("no rows", |h| h.rows = 0),
        ];
        for (name, spoil) in spoils {
            let mut h = header();
            spoil(&mut h);
            assert!(SegmentHeader::from_cells(&h.to_cells()).is_err(), "{name}");
        }
    }

    #[test]
    fn rejects_cut_cells_nonzero_padding_and_foreign_magic() {
        let cells = header().to_cells();
        assert!(matches!(SegmentHeader::from_cells(&cells[..cells.len() - 1]), Err(HeaderError::Short { .. })));
        assert!(SegmentHeader::from_cells(&[]).is_err());
        let mut padded = cells.clone();
        padded[1][7] = FieldBytes::from_u64(1);
        assert!(matches!(SegmentHeader::from_cells(&padded), Err(HeaderError::Padding(1))));
        let mut foreign = cells;
        foreign[0][0] = FieldBytes::ZERO;
        assert!(matches!(SegmentHeader::from_cells(&foreign), Err(HeaderError::Magic(_))));
    }

    #[test]
    fn bytes_round_trip_through_cells() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        let cells = pack_bytes(&bytes);
        assert_eq!(cells.len() as u64, byte_cells(1000));
        assert_eq!(&unpack_bytes(&cells).unwrap()[..1000], &bytes[..]);
        let mut bad = cells;
        bad[0][0] = FieldBytes::from_canonical([1; 32]).unwrap();
        assert!(unpack_bytes(&bad).is_none());
    }
}
