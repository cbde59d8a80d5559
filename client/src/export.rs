//! Exports: what stands behind rows in a file, put together by the owner, and the file checked against it.
//!
//! Digest  a batch of rows is hashed as the encoded keys of all its columns (`docs/protocol/segment.md`, "Order and fences"), row after row:
//!         every encoding ends itself, so the digest is one of the values, whatever format the file has. A NaN is hashed as one NaN, because
//!         text has only one.
//! Rule    [`Evidenced`] is read before the rows are, and names the segments that they are read from.
//! Source  `docs/protocol/export.md`

use crate::ask::{Asked, moved};
use crate::csv::CsvOptions;
use crate::error::ClientError;
use crate::files::{self, FileError, Format, Input, ReadOptions};
use crate::key::Keys;
use crate::keyring::Keyring;
use crate::schema::{Column, SchemaError, TableSchema};
use crate::session::{ATTEMPTS, Meter, Table, unexpected};
use crate::transport::Transport;
use crate::value::ColumnType;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use fluence_crypto::{domain, sign, vote};
use fluence_types::export::{
    EXPORT_BATCH_ROWS, EXPORT_FORMAT, ExportEvidence, ExportManifest, ExportStatement, ExportedColumn, ExportedFile,
    ExportedRange, ExportedSegment, first_cells,
};
use fluence_types::{CommitteeHash, ContentHash, SegmentRoot};
use fluence_verifier::answer::{self, AnswerError, VerifiedAnswer};
use fluence_wire::{Request, Response};
use std::path::Path;
use std::sync::Arc;

/// A file that is not what a manifest says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportFileError {
    /// It cannot be read as the format that the manifest names.
    #[error(transparent)]
    File(#[from] FileError),
    /// The manifest names a format or columns that this program does not know.
    #[error("the manifest: {0}")]
    Manifest(String),
    /// Another length or other bytes.
    #[error("the file is not the one that was exported: its {what} is {got}, the manifest says {want}")]
    Bytes {
        /// Length or digest.
        what: &'static str,
        /// The file's.
        got: String,
        /// The manifest's.
        want: String,
    },
    /// Rows are other than the manifest says, or more or fewer.
    #[error("the rows of the file are not those of the manifest: {0}")]
    Rows(RowsDiffer),
}

/// Where rows differ from digests.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowsDiffer {
    /// One of these rows is other.
    #[error("one of rows {first} to {last} is another, or out of its place")]
    Batch {
        /// The first of the batch.
        first: u64,
        /// The last.
        last: u64,
    },
    /// More or fewer.
    #[error("there are {got} rows, the manifest says {want}")]
    Count {
        /// How many there are.
        got: u64,
        /// How many there should be.
        want: u64,
    },
}

/// Digests of rows, batch after batch, as they pass.
#[derive(Debug)]
pub struct RowDigests {
    hasher: blake3::Hasher,
    rows: u64,
    done: Vec<ContentHash>,
}

impl Default for RowDigests {
    fn default() -> Self {
        Self { hasher: fresh(), rows: 0, done: Vec::new() }
    }
}

fn fresh() -> blake3::Hasher {
    blake3::Hasher::new_derive_key(domain::EXPORT_ROWS)
}

impl RowDigests {
    /// Takes rows whose columns are of this crate's types.
    pub fn add(&mut self, batch: &RecordBatch) {
        let columns: Vec<ArrayRef> = batch.columns().iter().map(one_nan).collect();
        let keys = Keys::of(&columns);
        for row in 0..batch.num_rows() {
            self.hasher.update(keys.get(row));
            self.rows += 1;
            if self.rows.is_multiple_of(EXPORT_BATCH_ROWS) {
                self.end_batch();
            }
        }
    }

    fn end_batch(&mut self) {
        let hasher = std::mem::replace(&mut self.hasher, fresh());
        self.done.push(ContentHash::from_bytes(*hasher.finalize().as_bytes()));
    }

    /// Rows so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The digests of all batches.
    #[must_use]
    pub fn finish(mut self) -> Vec<ContentHash> {
        if !self.rows.is_multiple_of(EXPORT_BATCH_ROWS) {
            self.end_batch();
        }
        self.done
    }

    /// Compares them with those of a manifest.
    ///
    /// # Errors
    /// [`RowsDiffer`] with the first batch that is another.
    pub fn compare(self, statement: &ExportStatement) -> Result<(), RowsDiffer> {
        let rows = self.rows;
        let got = self.finish();
        // The last batch of the shorter list differs because rows are missing; that is said below.
        let whole = rows.min(statement.rows) / EXPORT_BATCH_ROWS;
        let compared = if rows == statement.rows { got.len() as u64 } else { whole };
        let pairs = got.iter().zip(&statement.batches).take(usize::try_from(compared).unwrap_or(usize::MAX));
        if let Some(at) = pairs.into_iter().position(|(got, want)| got != want) {
            let first = at as u64 * EXPORT_BATCH_ROWS + 1;
            return Err(RowsDiffer::Batch { first, last: (first + EXPORT_BATCH_ROWS - 1).min(rows) });
        }
        match rows == statement.rows {
            true => Ok(()),
            false => Err(RowsDiffer::Count { got: rows, want: statement.rows }),
        }
    }
}

/// A column of doubles whose NaNs are all the same.
fn one_nan(array: &ArrayRef) -> ArrayRef {
    match array.as_primitive_opt::<Float64Type>() {
        Some(doubles) if doubles.iter().flatten().any(f64::is_nan) => {
            let one = doubles.iter().map(|x| x.map(|x| if x.is_nan() { f64::NAN } else { x }));
            Arc::new(one.collect::<Float64Array>())
        }
        _ => Arc::clone(array),
    }
}

/// A version of a table with what shows it to others: read before its rows are.
#[derive(Debug)]
pub struct Evidenced {
    answer: VerifiedAnswer,
    evidence: ExportEvidence,
    segments: Vec<ExportedSegment>,
}

impl Evidenced {
    /// The live segments, in order of arrival.
    #[must_use]
    pub fn live(&self) -> &[SegmentRoot] {
        &self.answer.entry().live
    }
}

/// What an export wrote.
#[derive(Debug)]
pub struct Written {
    /// The columns, in the file's order.
    pub columns: Vec<Column>,
    /// Which rows; all where there is none.
    pub range: Option<ExportedRange>,
    /// The digests of the rows.
    pub digests: RowDigests,
    /// The file.
    pub file: ExportedFile,
}

impl<T: Transport> Table<T> {
    /// The table as it stands now, opened to the first cell of each live segment.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn evidence(&self) -> Result<Evidenced, ClientError> {
        for attempt in 1.. {
            match self.try_evidence().await {
                Err(error) if moved(&error) && attempt < ATTEMPTS => self.session.forget_entry(&self.handle),
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    async fn try_evidence(&self) -> Result<Evidenced, ClientError> {
        let entry = self.session.catalogue(&self.db(), self.projection()).await?.entry().clone();
        let request = first_cells(self.db(), self.projection(), entry.version, &entry.live)
            .expect("no more segments than are live");
        let check = |asked: &Asked<'_>, response| match response {
            Response::Open(answer) => {
                let verified =
                    answer::verify(asked.trust, &request, (*answer).clone()).map_err(|why| asked.refuse(why))?;
                let members = asked.trust.committee.members.clone();
                Ok((verified, ExportEvidence { members, answer: *answer }))
            }
            other => Err(unexpected(asked.node, "an answer", other)),
        };
        let asked = self.session.ask(&self.db(), &Request::Open(Box::new(request.clone())), check).await;
        let (_, (answer, evidence)) = asked?;
        self.session.note(&self.db(), answer.snapshot().certified())?;
        let views = self.session.views(&self.handle, &entry.live, &mut Meter::default()).await?;
        let segments = answer.segments().iter().zip(&views).map(|(segment, view)| ExportedSegment {
            root: segment.root(),
            commitment: *segment.preimage(),
            rows: view.header().rows,
            first_key: view.fence(0).to_vec(),
            last_fence: view.fence(view.groups() - 1).to_vec(),
        });
        let segments = segments.collect();
        Ok(Evidenced { answer, evidence, segments })
    }

    /// The manifest of a file that was written from a version of this table, signed by its owner.
    ///
    /// # Errors
    /// [`ClientError`] where the committee cannot be named.
    pub fn manifest(&self, evidenced: Evidenced, written: Written) -> Result<ExportManifest, ClientError> {
        let Evidenced { answer, evidence, segments } = evidenced;
        let committee = vote::members_hash(&evidence.members).map_err(ClientError::Members)?;
        let (entry, checkpoint) = (answer.entry(), answer.checkpoint());
        let keyring: &Arc<Keyring> = self.session.keyring();
        let column = |c: &Column| ExportedColumn { name: c.name.clone(), ty: c.ty.to_string(), nullable: c.nullable };
        let rows = written.digests.rows();
        let statement = ExportStatement {
            db: self.db(),
            owner: keyring.address(),
            table: self.schema().name().to_owned(),
            table_id: entry.table,
            projection: entry.projection,
            version: entry.version,
            schema: entry.schema,
            height: checkpoint.height,
            root: checkpoint.root,
            committee: CommitteeHash::from_bytes(committee),
            segments,
            columns: written.columns.iter().map(column).collect(),
            key: self.schema().key().to_vec(),
            range: written.range,
            rows,
            file: written.file,
            batch_rows: EXPORT_BATCH_ROWS,
            batches: written.digests.finish(),
            evidence: evidence.encode(),
        };
        let signature = keyring.sign_prehash(sign::export_digest(&statement));
        Ok(ExportManifest { format: EXPORT_FORMAT.to_owned(), statement, signature })
    }

    /// Whether the segments of a statement are all live yet: then their rows can be read again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn has_segments_of(&self, statement: &ExportStatement) -> Result<bool, ClientError> {
        let snapshot = self.session.catalogue(&self.db(), self.projection()).await?;
        let entry = snapshot.entry();
        if entry.projection != statement.projection {
            let why = AnswerError::Projection { got: statement.projection, expected: entry.projection };
            return Err(ClientError::answer(&fluence_types::NodeId::default(), why));
        }
        Ok(statement.segments.iter().all(|s| entry.live.contains(&s.root)))
    }
}

/// The columns of a statement.
///
/// # Errors
/// [`ExportFileError::Manifest`] for types this program does not know.
pub fn columns(statement: &ExportStatement) -> Result<Vec<Column>, ExportFileError> {
    let column = |c: &ExportedColumn| {
        let ty: ColumnType =
            c.ty.parse().map_err(|e| ExportFileError::Manifest(format!("column {:?}: {e}", c.name)))?;
        Ok(Column { name: c.name.clone(), ty, nullable: c.nullable, public: false, bits: None })
    };
    statement.columns.iter().map(column).collect()
}

/// The format of the file.
///
/// # Errors
/// [`ExportFileError::Manifest`].
pub fn format(statement: &ExportStatement) -> Result<Format, ExportFileError> {
    let all = [Format::Csv, Format::Parquet, Format::Arrow, Format::JsonLines];
    let found = all.into_iter().find(|f| f.name() == statement.file.format);
    found.ok_or_else(|| ExportFileError::Manifest(format!("there is no format {:?}", statement.file.format)))
}

/// Checks that a file is the one of a statement: its bytes, and its rows by the digest of each batch. `progress` hears of rows read.
///
/// # Errors
/// [`ExportFileError`] naming what differs.
pub fn check_file(
    path: &Path,
    statement: &ExportStatement,
    mut progress: impl FnMut(u64),
) -> Result<(), ExportFileError> {
    let file = &statement.file;
    let io = |why| FileError::Io { path: path.display().to_string(), why };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length != file.bytes {
        let (got, want) = (length.to_string(), file.bytes.to_string());
        return Err(ExportFileError::Bytes { what: "length", got, want });
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path).map_err(io)?).map_err(io)?;
    let digest = ContentHash::from_bytes(*hasher.finalize().as_bytes());
    if digest != file.blake3 {
        let (got, want) = (digest.to_string(), file.blake3.to_string());
        return Err(ExportFileError::Bytes { what: "digest", got, want });
    }
    let columns = columns(statement)?;
    // A table of these columns, for reading only: any column is its key.
    let first = columns.first().map(|c| c.name.clone()).unwrap_or_default();
    let schema = TableSchema::new("export", columns, &[&first], Vec::new());
    let schema = schema.map_err(|e: SchemaError| ExportFileError::Manifest(e.to_string()))?;
    let csv = CsvOptions { null: file.null.clone(), ..CsvOptions::default() };
    let batches = files::read(
        Input::File(path.to_owned()),
        format(statement)?,
        &schema,
        &ReadOptions { csv, sample_rows: None },
    )?;
    let mut digests = RowDigests::default();
    for batch in batches {
        digests.add(&batch?);
        progress(digests.rows());
    }
    digests.compare(statement).map_err(ExportFileError::Rows)
}
