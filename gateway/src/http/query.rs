//! One statement: alone, or in a session.
//!
//! Rule    a request carries one statement. Alone, it is its own transaction, tried again where somebody else commits first.

use super::Http;
use super::answer::{Ending, Form, QueryAnswer, Rows, Seat, by, copied_out, done};
use super::body;
use super::guard::Caller;
use super::params::{Given, Parameter, check_count, values};
use super::problem::Problem;
use crate::error::{SqlError, SqlState};
use crate::session::{Outcome, Tag, TransactionStatus};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// A statement.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryRequest {
    /// One SQL statement.
    #[schema(example = "SELECT id, name FROM patients WHERE id = $1")]
    sql: String,
    /// Values for `$1`, `$2`, ..
    #[serde(default)]
    #[schema(value_type = Vec<Parameter>, example = json!([1]))]
    params: Vec<Box<RawValue>>,
}

impl Caller {
    /// Refuses a session's token for what is not that session's.
    pub(super) fn may_use(&self, session: Option<&str>) -> Result<(), Problem> {
        if self.session.is_none() || self.session.as_deref() == session {
            return Ok(());
        }
        Err(Problem::new(
            axum::http::StatusCode::FORBIDDEN,
            Some("42501"),
            "a session's token is for that session only",
        ))
    }
}

/// Run a statement by itself.
#[utoipa::path(post, path = "/v1/query", tag = "statements", request_body = QueryRequest, responses(
    (status = 200, description = "What it answers. With `Accept: application/x-ndjson`: lines of JSON as the rows come: \
        `{\"columns\"}`, an array a row, and last either `Ending` or `{\"error\": Problem}`.",
        content((QueryAnswer = "application/json"), (Ending = "application/x-ndjson"))),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn query(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    caller.may_use(None)?;
    let (parts, body) = request.into_parts();
    let asked = body::json(&http, &parts.headers, body).await?;
    let seat = Seat::Alone(Box::new(http.session(&caller.user).await?));
    run(&http, seat, asked, Form::of(&parts.headers)).await
}

/// Run a statement in a session.
#[utoipa::path(post, path = "/v1/sessions/{id}/query", tag = "statements", request_body = QueryRequest,
    params(("id" = String, Path, description = "The session")),
    responses(
    (status = 200, description = "As of /v1/query", content((QueryAnswer = "application/json"), (Ending = "application/x-ndjson"))),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn query_in(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    caller.may_use(Some(&id))?;
    let (parts, body) = request.into_parts();
    let asked = body::json(&http, &parts.headers, body).await?;
    let seat = Seat::Held(http.sessions.lease(&id, &caller.user)?);
    run(&http, seat, asked, Form::of(&parts.headers)).await
}

async fn run(http: &Http, mut seat: Seat, asked: QueryRequest, form: Form) -> Result<Response, Problem> {
    let QueryRequest { sql, params } = asked;
    let given = params.iter().enumerate().map(|(i, raw)| Given::parse(i + 1, raw)).collect::<Result<Vec<_>, _>>()?;
    let session = seat.session();
    let mut statements = session.parse(&sql).map_err(|error| Problem::from(error).at(&sql))?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        let error = SqlError::new(SqlState::SyntaxError, "a request carries one statement");
        return Err(error.hint("several that belong together go into a session, between BEGIN and COMMIT").into());
    };
    check_count(&given, &statement)?;
    let prepared = session.prepare(statement, given.iter().map(Given::hint).collect()).await?;
    let values = values(&given, &prepared)?;
    let deadline = session.statement_timeout().map(|limit| Instant::now() + limit);
    let outcome = by(deadline, session.execute(&prepared, values)).await??;
    if matches!(seat, Seat::Alone(_)) && seat.session().status() != TransactionStatus::Idle {
        let error = SqlError::new(SqlState::FeatureNotSupported, "a transaction needs a session");
        return Err(error.hint("POST /v1/sessions opens one").into());
    }
    match outcome {
        Outcome::Empty => done(seat.end(&Tag::Command(""), 0), form),
        Outcome::Done(tag) => done(seat.end(&tag, 0), form),
        Outcome::Rows { schema, stream, tag } => {
            let rows = Rows::new(seat, &schema, stream, tag, deadline)?;
            match form {
                Form::Whole => rows.whole(http.options.answer_bytes_max).await,
                Form::Lines => Ok(rows.lines()),
            }
        }
        Outcome::CopyIn { .. } => {
            let error = SqlError::new(SqlState::FeatureNotSupported, "COPY FROM STDIN has no rows in a JSON request");
            Err(error.hint("POST the rows to /v1/copy/{table}").into())
        }
        Outcome::CopyRows { .. } => {
            let error = SqlError::new(SqlState::FeatureNotSupported, "COPY in binary form is for the Postgres port");
            Err(error.hint("FORMAT csv and text come as they are").into())
        }
        Outcome::CopyOut { format, stream, .. } => Ok(copied_out(seat, format, stream)),
    }
}
