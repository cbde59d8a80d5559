//! What a statement answers: one JSON text, or lines of JSON that go out as the rows come.
//!
//! ```text
//! application/json       {"columns", "rows", "command", "row_count", "verified", "notices", "transaction"}
//! application/x-ndjson   {"columns"}            one line, first
//!                        [1,"a"]                one a row
//!                        {"command", "row_count", "verified", "notices", "transaction"}   or   {"error": problem}, last
//! ```
//! Memory  of lines: one batch and one piece. An answer in one text is bounded, and refused above the limit before a byte of it went.
//! Rule    lines without a last line were cut off; nothing of them counts.

use super::encode::{self, ColumnInfo};
use super::problem::Problem;
use super::sessions::Lease;
use crate::SqlSession;
use crate::error::{SqlError, SqlState};
use crate::server::simple::command_tag;
use crate::session::{CopyFormat, Cost, Tag, TransactionStatus};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::future::Future;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

/// Bytes of a piece of lines.
const PIECE_BYTES: usize = 64 << 10;

/// How the client wants rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// One JSON text.
    Whole,
    /// Lines of JSON.
    Lines,
}

impl Form {
    /// What the Accept field asks for.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|a| a.to_str().ok());
        let mut ranges = accept.flat_map(|a| a.split(',')).filter_map(|range| range.split(';').next());
        if ranges.any(|range| range.trim().eq_ignore_ascii_case("application/x-ndjson")) {
            Self::Lines
        } else {
            Self::Whole
        }
    }
}

/// What the rows of an answer rest on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Verified {
    /// The certified height that was read at.
    height: u64,
    /// Rows that were verified.
    rows: u64,
    /// Sums that were proven instead of read.
    proven_sums: u64,
    /// Cells that were opened.
    openings: u64,
    /// Bytes that came from nodes.
    bytes: u64,
    /// Requests to nodes.
    requests: u64,
    /// Milliseconds from request to verified answer, added up.
    ms: f64,
}

impl From<Cost> for Verified {
    fn from(cost: Cost) -> Self {
        Self {
            height: cost.height.0,
            rows: cost.rows,
            proven_sums: cost.proven,
            openings: cost.openings,
            bytes: cost.bytes,
            requests: cost.requests,
            ms: (cost.ms * 1000.0).round() / 1000.0,
        }
    }
}

/// Something to know beside the answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct NoticeInfo {
    /// `NOTICE`, `WARNING` or `INFO`.
    severity: &'static str,
    /// The text.
    message: String,
}

/// How a statement ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Ending {
    /// The command tag: `SELECT 2`, `INSERT 0 1`, `CREATE TABLE`.
    command: String,
    /// Rows that came, or were written.
    row_count: u64,
    /// What the rows rest on; null where nothing was read.
    verified: Option<Verified>,
    /// What there is to say beside it.
    notices: Vec<NoticeInfo>,
    /// `idle`, `open` or `failed`: where the session stands.
    transaction: &'static str,
}

/// An answer in one text.
#[derive(Serialize, ToSchema)]
pub(super) struct QueryAnswer {
    /// The columns; none where the statement gives no rows.
    columns: Vec<ColumnInfo>,
    /// The rows, each an array of its values in the order of `columns`.
    #[schema(value_type = Vec<Vec<serde_json::Value>>)]
    rows: Box<RawValue>,
    /// How the statement ended.
    #[serde(flatten)]
    ending: Ending,
}

/// A session for a statement: one of its own, or one that stays.
pub(super) enum Seat {
    /// Ends with the request.
    Alone(Box<SqlSession>),
    /// Stays.
    Held(Lease<SqlSession>),
}

impl Seat {
    /// The session.
    pub(super) fn session(&mut self) -> &mut SqlSession {
        match self {
            Self::Alone(session) => session,
            Self::Held(lease) => lease.session(),
        }
    }

    /// How the statement ended; it has, so the session is free for the next one.
    pub(super) fn end(&mut self, tag: &Tag, rows: u64) -> Ending {
        let row_count = match tag {
            Tag::Select | Tag::Fetch => rows,
            Tag::Move(n) | Tag::Insert(n) | Tag::Update(n) | Tag::Delete(n) | Tag::Copy(n) | Tag::SelectInto(n) => *n,
            Tag::Command(_) => 0,
        };
        let session = self.session();
        let notices = session.take_notices();
        let ending = Ending {
            command: command_tag(tag, rows),
            row_count,
            verified: session.cost().map(Verified::from),
            notices: notices.into_iter().map(|n| NoticeInfo { severity: n.severity, message: n.message }).collect(),
            transaction: match session.status() {
                TransactionStatus::Idle => "idle",
                TransactionStatus::Open => "open",
                TransactionStatus::Failed => "failed",
            },
        };
        if let Self::Held(lease) = self {
            lease.done();
        }
        ending
    }
}

/// A JSON text as a response.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Some("XX000"), error.to_string()).into_response(),
    }
}

/// An answer without rows.
pub(super) fn done(ending: Ending, form: Form) -> Result<Response, Problem> {
    if form == Form::Lines {
        let mut out = b"{\"columns\":[]}\n".to_vec();
        line(&ending, &mut out);
        return Ok(lines(Body::from(out)));
    }
    let rows = raw("[]".to_owned())?;
    Ok(json(StatusCode::OK, &QueryAnswer { columns: Vec::new(), rows, ending }))
}

fn raw(rows: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(rows).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Some("XX000"), format!("an answer that is no JSON: {error}"))
    })
}

fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, value).expect("documented types into memory");
    out.push(b'\n');
}

fn lines(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Rows that are going out.
pub(super) struct Rows {
    seat: Seat,
    stream: SendableRecordBatchStream,
    tag: Tag,
    columns: Vec<ColumnInfo>,
    /// The batch at hand, and its next row.
    batch: Option<(RecordBatch, usize)>,
    count: u64,
    /// When the statement has run for too long.
    deadline: Option<Instant>,
}

/// Does what must be done by a deadline; a statement that is late is cancelled.
///
/// # Errors
/// [`SqlState::QueryCanceled`].
pub(super) async fn by<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, SqlError> {
    let Some(deadline) = deadline else { return Ok(work.await) };
    let late = |_| SqlError::new(SqlState::QueryCanceled, "canceling statement due to statement timeout");
    timeout_at(deadline, work).await.map_err(late)
}

impl Rows {
    /// Rows of a statement.
    pub(super) fn new(
        seat: Seat,
        schema: &SchemaRef,
        stream: SendableRecordBatchStream,
        tag: Tag,
        deadline: Option<Instant>,
    ) -> Result<Self, Problem> {
        Ok(Self { seat, stream, tag, columns: encode::columns(schema)?, batch: None, count: 0, deadline })
    }

    /// Appends rows until there are more than `bytes`, or no more; whether there are no more.
    async fn fill(&mut self, form: Form, bytes: usize, out: &mut Vec<u8>) -> Result<bool, SqlError> {
        while out.len() <= bytes {
            match &mut self.batch {
                Some((batch, next)) if *next < batch.num_rows() => {
                    if form == Form::Whole && self.count > 0 {
                        out.push(b',');
                    }
                    encode::row(batch, *next, out)?;
                    if form == Form::Lines {
                        out.push(b'\n');
                    }
                    *next += 1;
                    self.count += 1;
                }
                _ => match by(self.deadline, self.stream.next()).await? {
                    Some(batch) => self.batch = Some((batch?, 0)),
                    None => return Ok(true),
                },
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> Ending {
        self.seat.end(&self.tag, self.count)
    }

    /// The answer in one text, of `bytes_max` at most.
    pub(super) async fn whole(mut self, bytes_max: usize) -> Result<Response, Problem> {
        let mut out = vec![b'['];
        if !self.fill(Form::Whole, bytes_max, &mut out).await? {
            let why = format!("the answer has more than {bytes_max} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Some("54000"), why)
                .hint("ask for lines, with Accept: application/x-ndjson; or for fewer rows"));
        }
        out.push(b']');
        let rows = String::from_utf8(out).map_err(|error| {
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Some("XX000"),
                format!("an answer that is no text: {error}"),
            )
        })?;
        let ending = self.end();
        Ok(json(StatusCode::OK, &QueryAnswer { columns: self.columns, rows: raw(rows)?, ending }))
    }

    /// The answer as lines.
    pub(super) fn lines(self) -> Response {
        #[derive(Serialize)]
        struct Head<'a> {
            columns: &'a [ColumnInfo],
        }
        let mut head = Vec::new();
        line(&Head { columns: &self.columns }, &mut head);
        let pieces = stream::unfold(Some((self, head)), |state| async {
            let (mut rows, mut out) = state?;
            let next = match rows.fill(Form::Lines, PIECE_BYTES, &mut out).await {
                Ok(false) => Some((rows, Vec::new())),
                Ok(true) => {
                    line(&rows.end(), &mut out);
                    None
                }
                Err(error) => {
                    #[derive(Serialize)]
                    struct Last {
                        error: Problem,
                    }
                    line(&Last { error: error.into() }, &mut out);
                    None
                }
            };
            Some((Ok::<_, Infallible>(Bytes::from(out)), next))
        });
        lines(Body::from_stream(pieces))
    }
}

/// The rows of COPY .. TO STDOUT as they come. A failure cuts the body off, so that a client sees it.
pub(super) fn copied_out(
    mut seat: Seat,
    format: CopyFormat,
    rows: BoxStream<'static, Result<(Bytes, u64), SqlError>>,
) -> Response {
    let kind = match format {
        CopyFormat::Csv => "text/csv; charset=utf-8",
        CopyFormat::Text => "text/tab-separated-values; charset=utf-8",
        CopyFormat::Binary => "application/octet-stream",
    };
    let pieces = rows.map(|piece| piece.map(|(bytes, _)| bytes));
    // The seat is free once the last piece is out.
    let end = stream::once(async move {
        seat.end(&Tag::Command("COPY"), 0);
        Ok(Bytes::new())
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(pieces.chain(end))).into_response()
}
