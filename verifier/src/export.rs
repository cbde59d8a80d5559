//! Manifests of exports, checked: `ExportManifest -> CheckedExport`. What a manifest shows to whom is in `docs/protocol/export.md`.
//!
//! Shown   by the committee that the caller trusts: the root at the height, and that exactly these segments were live in the projection, each
//!         with so many rows. By the owner's signature: that the owner says that the file holds what these segments hold.
//! Not     that the rows of the file are those of the segments: without the owner's keys nobody can open them.
//! Rule    the committee in a manifest is never trusted: the caller names one, or its hash.

use crate::answer::{self, AnswerError, Trust};
use crate::committee::Committee;
use fluence_crypto::sign::{self, SignError};
use fluence_crypto::vote;
use fluence_types::block::epoch_of;
use fluence_types::codec;
use fluence_types::export::{
    EXPORT_BATCH_ROWS, EXPORT_FORMAT, ExportEvidence, ExportManifest, ExportStatement, MANIFEST_BYTES_MAX, first_cells,
};
use fluence_types::limits::ANSWER_BYTES_MAX;
use fluence_types::segment::SegmentHeader;
use fluence_types::{Address, CommitteeHash, Height};

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Longer than any manifest.
    #[error("the manifest is {got} bytes, the limit is {limit}")]
    TooLong {
        /// Its length.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON of the documented form.
    #[error("the manifest is malformed: {0}")]
    Malformed(String),
    /// The owner's signature is malformed.
    #[error("the owner's signature: {0}")]
    Signature(#[from] SignError),
    /// Another committee than the caller trusts.
    #[error("it is certified by committee {got}, trusted is {trusted}")]
    Committee {
        /// The manifest's.
        got: CommitteeHash,
        /// The caller's.
        trusted: CommitteeHash,
    },
    /// Below the height that the caller asks for.
    #[error("it is of height {got}, and no older one than {least} is accepted")]
    OldHeight {
        /// The manifest's.
        got: Height,
        /// The least.
        least: Height,
    },
    /// Certificate, catalogue entry or segments do not hold.
    #[error(transparent)]
    Evidence(#[from] AnswerError),
    /// The statement says something else than its evidence.
    #[error("its {what} is not what its evidence shows")]
    Differs {
        /// Which field.
        what: &'static str,
    },
}

/// Whom the caller trusts to have certified the root.
#[derive(Clone, Debug)]
pub enum TrustedCommittee {
    /// The committee whose members have this hash.
    Hash(CommitteeHash),
    /// This committee, in the epochs in which it is known to sit.
    Known(Committee),
}

/// What the caller demands.
#[derive(Clone, Debug)]
pub struct ExportTrust {
    /// The committee.
    pub committee: TrustedCommittee,
    /// Who must have signed, where the caller knows.
    pub owner: Option<Address>,
    /// Nothing older.
    pub min_height: Height,
}

/// A statement whose evidence holds against a committee that the caller trusts, signed by the owner it names. Made by [`check`] only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedExport {
    statement: ExportStatement,
    stored_rows: u64,
}

impl CheckedExport {
    /// The statement.
    #[must_use]
    pub const fn statement(&self) -> &ExportStatement {
        &self.statement
    }
    /// Rows in the segments, retractions among them: the file has no more.
    #[must_use]
    pub const fn stored_rows(&self) -> u64 {
        self.stored_rows
    }
}

/// Reads a manifest.
///
/// # Errors
/// [`ExportError`].
pub fn read(bytes: &[u8]) -> Result<ExportManifest, ExportError> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(ExportError::TooLong { got: bytes.len(), limit: MANIFEST_BYTES_MAX });
    }
    serde_json::from_slice(bytes).map_err(|e| ExportError::Malformed(e.to_string()))
}

/// Checks a manifest against a committee that did not come with it.
///
/// # Errors
/// [`ExportError`] naming what is wrong.
pub fn check(manifest: ExportManifest, trust: &ExportTrust) -> Result<CheckedExport, ExportError> {
    let ExportManifest { format, statement, signature } = manifest;
    if format != EXPORT_FORMAT {
        return Err(ExportError::Malformed(format!("its format is not {EXPORT_FORMAT}")));
    }
    let signer = sign::recover(sign::export_digest(&statement), &signature)?;
    let expected = trust.owner.unwrap_or(statement.owner);
    if signer != expected || statement.owner != expected {
        return Err(SignError::Signer { signer, expected }.into());
    }
    let evidence: ExportEvidence = codec::decode("evidence", &statement.evidence, ANSWER_BYTES_MAX)
        .map_err(|e| ExportError::Malformed(e.to_string()))?;
    let certified = evidence.answer.snapshot.certificate.header.height;
    let hash = |members| vote::members_hash(members).map(CommitteeHash::from_bytes);
    let got = hash(&evidence.members)?;
    let committee = match &trust.committee {
        TrustedCommittee::Known(committee) => {
            let trusted = hash(&committee.members)?;
            if got != trusted {
                return Err(ExportError::Committee { got, trusted });
            }
            committee.clone()
        }
        TrustedCommittee::Hash(trusted) if got != *trusted => {
            return Err(ExportError::Committee { got, trusted: *trusted });
        }
        // The hash binds the members' keys; that each has the key it names is checked too.
        TrustedCommittee::Hash(_) => {
            vote::verify_members(&evidence.members)?;
            Committee::new(epoch_of(certified), evidence.members)
        }
    };
    if statement.committee != got {
        return Err(ExportError::Differs { what: "committee" });
    }
    let live: Vec<_> = statement.segments.iter().map(|s| s.root).collect();
    let request = first_cells(statement.db, statement.projection, statement.version, &live)
        .map_err(|e| ExportError::Malformed(format!("segments: {e}")))?;
    let trusted = Trust { db: statement.db, committee, min_height: Height(0) };
    let answer = answer::verify(&trusted, &request, evidence.answer)?;
    let (checkpoint, entry) = (answer.checkpoint(), answer.entry());
    let differs = |what, same: bool| if same { Ok(()) } else { Err(ExportError::Differs { what }) };
    differs("height", checkpoint.height == statement.height)?;
    differs("root", checkpoint.root == statement.root)?;
    differs("table", entry.table == statement.table_id)?;
    differs("schema", entry.schema == statement.schema)?;
    if checkpoint.height < trust.min_height {
        return Err(ExportError::OldHeight { got: checkpoint.height, least: trust.min_height });
    }
    let mut stored_rows = 0u64;
    for (segment, said) in answer.segments().iter().zip(&statement.segments) {
        let cell = segment.cell(0).ok_or(ExportError::Differs { what: "list of segments" })?;
        differs("commitment of a segment", *segment.preimage() == said.commitment)?;
        differs("first cell of a segment", SegmentHeader::cells_from_preamble(cell).is_ok())?;
        differs("number of rows of a segment", cell[2].to_u64() == Some(said.rows))?;
        stored_rows = stored_rows.saturating_add(said.rows);
    }
    differs("number of rows", statement.rows <= stored_rows)?;
    differs("number of rows of a batch", statement.batch_rows == EXPORT_BATCH_ROWS)?;
    differs("number of batches", statement.rows.div_ceil(EXPORT_BATCH_ROWS) == statement.batches.len() as u64)?;
    Ok(CheckedExport { statement, stored_rows })
}
