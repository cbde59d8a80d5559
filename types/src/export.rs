//! Exports: rows in a file, and the manifest that says what they were exported from.
//!
//! Rule    the owner signs the statement, all of it; a field nobody checks must not look checked, so unknown fields are refused.
//! Source  `docs/protocol/export.md`

use crate::answer::{Answer, CellRange, OpenRequest, SegmentRanges};
use crate::block::Members;
use crate::codec::{self, Bounded, TooMany};
use crate::op::OwnerSignature;
use crate::tree::SegmentPreimage;
use crate::{
    Address, CommitteeHash, ContentHash, DatabaseId, DbRoot, Height, ProjectionId, SchemaHash, SegmentRoot, TableId,
    Version,
};
use borsh::{BorshDeserialize, BorshSerialize};

/// The `format` field of a manifest.
pub const EXPORT_FORMAT: &str = "fluence-export/1";
/// Bytes of a manifest: a digest for every 65,536 rows.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;
/// Rows of a batch that has a digest of its own.
pub const EXPORT_BATCH_ROWS: u64 = 1 << 16;

/// A manifest, as it stands in a file.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportManifest {
    /// [`EXPORT_FORMAT`].
    pub format: String,
    /// What is said.
    pub statement: ExportStatement,
    /// The owner's signature over it.
    #[serde(with = "signature")]
    pub signature: OwnerSignature,
}

/// What an owner says of an export, with what shows part of it to others.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportStatement {
    /// The database.
    pub db: DatabaseId,
    /// Who owns it, and signs this.
    pub owner: Address,
    /// The table's name: the owner's word.
    pub table: String,
    /// The table, by its number.
    pub table_id: TableId,
    /// The projection that was exported.
    pub projection: ProjectionId,
    /// Its version.
    pub version: Version,
    /// The hash of its sealed schema.
    pub schema: SchemaHash,
    /// The certified height.
    pub height: Height,
    /// The database root there.
    pub root: DbRoot,
    /// The committee that certified it.
    pub committee: CommitteeHash,
    /// All live segments of the projection, in order of arrival.
    pub segments: Vec<ExportedSegment>,
    /// The columns, in the file's order: the owner's word.
    pub columns: Vec<ExportedColumn>,
    /// The sort key: the owner's word.
    pub key: Vec<String>,
    /// Which rows: all where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ExportedRange>,
    /// Rows in the file.
    pub rows: u64,
    /// The file.
    pub file: ExportedFile,
    /// Rows of each batch below; the last may have fewer.
    pub batch_rows: u64,
    /// The digest of each batch of rows.
    pub batches: Vec<ContentHash>,
    /// The canonical [`ExportEvidence`] in hex.
    #[serde(with = "hex_bytes")]
    pub evidence: Vec<u8>,
}

/// A segment that rows came from.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedSegment {
    /// Its root.
    pub root: SegmentRoot,
    /// What the root binds.
    pub commitment: SegmentPreimage,
    /// Its rows, retractions among them: stands in its first cell.
    pub rows: u64,
    /// The encoded key of its first row: the owner's word.
    #[serde(with = "hex_bytes")]
    pub first_key: Vec<u8>,
    /// The encoded key of the first row of its last row group: the owner's word.
    #[serde(with = "hex_bytes")]
    pub last_fence: Vec<u8>,
}

/// A column of the file.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedColumn {
    /// Its name.
    pub name: String,
    /// Its type, as `decimal(12,4)`.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether NULL may stand in it.
    pub nullable: bool,
}

/// A range of keys, as it was typed.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedRange {
    /// The first key, included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The last key, not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The values with which keys begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// The file that rows were written to.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedFile {
    /// csv, parquet, arrow or jsonl.
    pub format: String,
    /// CSV's token for NULL.
    pub null: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of it.
    pub blake3: ContentHash,
}

/// What is shown to others: the committee, and a member's answer that opens the first cell of every live segment.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct ExportEvidence {
    /// The members whose votes certify the root.
    pub members: Members,
    /// Certificate, catalogue entry, and the first cell of each live segment.
    pub answer: Answer,
}

/// The question that the evidence answers: the first cell of every live segment.
///
/// # Errors
/// [`TooMany`] segments.
pub fn first_cells(
    db: DatabaseId,
    projection: ProjectionId,
    version: Version,
    live: &[SegmentRoot],
) -> Result<OpenRequest, TooMany> {
    let first = || Bounded::new(vec![CellRange { first: 0, count: 1 }]).expect("one range");
    let segments = live.iter().map(|segment| SegmentRanges { segment: *segment, ranges: first() }).collect();
    Ok(OpenRequest { db, projection, version, segments: Bounded::new(segments)? })
}

impl ExportEvidence {
    /// Its canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

mod hex_bytes {
    pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("0x{}", hex::encode(bytes)))
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map_err(serde::de::Error::custom)
    }
}

mod signature {
    use crate::op::OwnerSignature;
    pub(super) fn serialize<S: serde::Serializer>(bytes: &OwnerSignature, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("0x{}", hex::encode(bytes)))
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<OwnerSignature, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        let mut bytes = [0; 65];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut bytes)
            .map_err(|_| serde::de::Error::custom("a signature is 65 bytes of hex"))?;
        Ok(bytes)
    }
}
