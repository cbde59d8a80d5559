//! What a session says: command tags, rows, notices.

use crate::error::SqlError;
use crate::sql::Statement;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a connection stands with its transaction: the byte of ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// None is open.
    Idle,
    /// One is open.
    Open,
    /// One is open and has failed: all but ROLLBACK is refused.
    Failed,
}

/// What a statement did, as its command tag says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tag {
    /// `SELECT n`: the server counts the rows that it sends.
    Select,
    /// `INSERT 0 n`.
    Insert(u64),
    /// `UPDATE n`.
    Update(u64),
    /// `DELETE n`.
    Delete(u64),
    /// `COPY n`.
    Copy(u64),
    /// `FETCH n`: the server counts the rows that it sends.
    Fetch,
    /// `MOVE n`.
    Move(u64),
    /// `SELECT n` of a CREATE TABLE AS.
    SelectInto(u64),
    /// A command without a count: `CREATE TABLE`, `BEGIN`, `SET`.
    Command(&'static str),
}

/// Text, CSV or binary COPY.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyFormat {
    /// Tab-separated, backslash escapes, `\N`.
    Text,
    /// RFC 4180 as PostgreSQL writes it.
    Csv,
    /// PGCOPY.
    Binary,
}

/// What comes of a statement.
pub enum Outcome {
    /// An empty query string.
    Empty,
    /// Rows; `tag` counts what was written where it is not a SELECT (RETURNING).
    Rows {
        /// Their columns.
        schema: SchemaRef,
        /// The rows.
        stream: SendableRecordBatchStream,
        /// The command's tag.
        tag: Tag,
    },
    /// No rows.
    Done(Tag),
    /// COPY .. FROM STDIN: the session takes [`SqlSession::copy_data`], of binary rows [`SqlSession::copy_columns`], until [`SqlSession::copy_done`] or [`SqlSession::copy_fail`].
    CopyIn {
        /// Columns of a row.
        columns: usize,
        /// How they are written.
        format: CopyFormat,
        /// The table's columns that they are for, in their order.
        fields: Vec<Field>,
    },
    /// COPY .. TO STDOUT WITH (FORMAT binary): rows that the server encodes.
    CopyRows {
        /// Their columns.
        schema: SchemaRef,
        /// The rows.
        stream: SendableRecordBatchStream,
    },
    /// COPY .. TO STDOUT: the encoded chunks, whole rows each.
    CopyOut {
        /// Columns of a row.
        columns: usize,
        /// How they are written.
        format: CopyFormat,
        /// The bytes, and how many rows they hold.
        stream: futures::stream::BoxStream<'static, Result<(bytes::Bytes, u64), SqlError>>,
    },
}

/// Says so when it goes: rows that have it have ended, or nobody wants them.
pub(super) struct Ended(pub(super) Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The items of a stream, until it ends or is dropped; then the mark is.
fn marked<S: Stream + Unpin>(stream: S, mark: Ended) -> impl Stream<Item = S::Item> {
    futures::stream::unfold((stream, mark), |(mut stream, mark)| async move {
        let item = stream.next().await?;
        Some((item, (stream, mark)))
    })
}

impl Outcome {
    /// The same, with a mark that goes when its rows have ended; at once where it has none.
    pub(super) fn marked(self, mark: Ended) -> Self {
        let rows = |schema: &SchemaRef, stream: SendableRecordBatchStream, mark| -> SendableRecordBatchStream {
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), marked(stream, mark)))
        };
        match self {
            Self::Rows { schema, stream, tag } => Self::Rows { stream: rows(&schema, stream, mark), schema, tag },
            Self::CopyRows { schema, stream } => Self::CopyRows { stream: rows(&schema, stream, mark), schema },
            Self::CopyOut { columns, format, stream } => {
                Self::CopyOut { columns, format, stream: marked(stream, mark).boxed() }
            }
            other => other,
        }
    }
}

impl std::fmt::Debug for Outcome {
    /// What kind it is; rows are the owner's data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Rows { tag, .. } => write!(f, "Rows({tag:?})"),
            Self::Done(tag) => write!(f, "Done({tag:?})"),
            Self::CopyIn { format, .. } => write!(f, "CopyIn({format:?})"),
            Self::CopyRows { .. } => f.write_str("CopyRows"),
            Self::CopyOut { format, .. } => write!(f, "CopyOut({format:?})"),
        }
    }
}

/// A notice to the client, not an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// `NOTICE`, `WARNING` or `INFO`.
    pub severity: &'static str,
    /// The text.
    pub message: String,
}

/// A statement that was planned: its parameters and columns are known.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The statement.
    pub statement: Statement,
    /// Types of `$1`, `$2`, ...
    pub params: Vec<DataType>,
    /// Columns of the answer; `None` where there are none.
    pub columns: Option<SchemaRef>,
}
