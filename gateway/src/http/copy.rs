//! COPY: rows of a CSV body into a table, piece by piece.
//!
//! Memory  a piece, and the batch that the session gathers.
//! Rule    all rows are there, or none: what is cut off, too slow or malformed leaves nothing.

use super::Http;
use super::answer::{Ending, Form, Seat, done};
use super::body::{broken_off, check_size, check_type, too_large, too_slow};
use super::guard::Caller;
use super::problem::Problem;
use crate::error::{SqlError, SqlState};
use crate::server::errors::{Fault, code};
use crate::session::{Outcome, Statement};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use datafusion::sql::sqlparser::ast::{self, CopyOption, CopySource, CopyTarget, Ident, ObjectName};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::time::timeout;

/// Add the rows of a CSV to a table, as one transaction.
#[utoipa::path(post, path = "/v1/copy/{table}", tag = "rows",
    request_body(content = String, content_type = "text/csv", description = "Rows as PostgreSQL's COPY reads CSV"),
    params(
        ("table" = String, Path, description = "The table, as its name is written in quotes"),
        ("columns" = Option<String>, Query, description = "Columns of the rows, with commas between; all, where it is not there"),
        ("header" = Option<bool>, Query, description = "Whether the first line names the columns, and is left out"),
        ("delimiter" = Option<String>, Query, description = "One byte; a comma, where it is not there"),
        ("null" = Option<String>, Query, description = "What stands for NULL; nothing, where it is not there"),
    ),
    responses(
    (status = 200, description = "They are there", body = Ending),
    (status = "default", description = "A problem, and no row", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn copy(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    Path(table): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    caller.may_use(None)?;
    let statement = statement(&table, request.uri().query().unwrap_or_default())?;
    let seat = Seat::Alone(Box::new(http.session(&caller.user).await?));
    run(&http, seat, statement, request).await
}

/// Add the rows of a CSV to a table, in a session.
#[utoipa::path(post, path = "/v1/sessions/{id}/copy/{table}", tag = "rows",
    request_body(content = String, content_type = "text/csv", description = "As of /v1/copy/{table}, with its parameters"),
    params(("id" = String, Path, description = "The session"), ("table" = String, Path, description = "The table")),
    responses(
    (status = 200, description = "They are there, as far as the session's transaction goes", body = Ending),
    (status = "default", description = "A problem, and no row", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn copy_in(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    caller.may_use(Some(&id))?;
    let statement = statement(&table, request.uri().query().unwrap_or_default())?;
    let seat = Seat::Held(http.sessions.lease(&id, &caller.user)?);
    run(&http, seat, statement, request).await
}

/// COPY .. FROM STDIN as it would have been parsed: names go in as names, never as text.
fn statement(table: &str, query: &str) -> Result<Statement, Problem> {
    let invalid = |name: &str, why: &str| {
        let name: String = name.chars().take(64).collect();
        Problem::from(Fault::error(code::INVALID_PARAMETER_VALUE, format!("parameter \"{name}\" of the address {why}")))
    };
    let quoted = |name: &str| Ident::with_quote('"', name);
    let mut columns = Vec::new();
    let mut options = vec![CopyOption::Format(Ident::new("csv"))];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("columns", value) => columns.extend(value.split(',').map(|column| quoted(column.trim()))),
            ("header", "true" | "false") => options.push(CopyOption::Header(value == "true")),
            ("header", _) => return Err(invalid(&name, "is true or false")),
            ("delimiter", value) => match value.chars().next() {
                Some(one) if value.len() == 1 => options.push(CopyOption::Delimiter(one)),
                _ => return Err(invalid(&name, "is one byte")),
            },
            ("null", value) => options.push(CopyOption::Null(value.to_owned())),
            _ => return Err(invalid(&name, "is not known: there are columns, header, delimiter and null")),
        }
    }
    Ok(Statement(ast::Statement::Copy {
        source: CopySource::Table { table_name: ObjectName::from(vec![quoted(table)]), columns },
        to: false,
        target: CopyTarget::Stdin,
        options,
        legacy_options: Vec::new(),
        values: Vec::new(),
    }))
}

async fn run(http: &Http, mut seat: Seat, statement: Statement, request: Request) -> Result<Response, Problem> {
    let limit = http.options.upload_bytes_max;
    check_type(request.headers(), "text/csv")?;
    check_size(request.headers(), limit)?;
    let session = seat.session();
    let prepared = session.prepare(statement, Vec::new()).await?;
    let Outcome::CopyIn { .. } = session.execute(&prepared, Vec::new()).await? else {
        return Err(SqlError::new(SqlState::InternalError, "a COPY that takes no rows").into());
    };
    if let Err(problem) = upload(http, session, request.into_body()).await {
        session.copy_fail("the body").await;
        return Err(problem);
    }
    match session.copy_done().await? {
        Outcome::Done(tag) => done(seat.end(&tag, 0), Form::Whole),
        _ => Err(SqlError::new(SqlState::InternalError, "a COPY that ended without a count").into()),
    }
}

/// Hands the body to the session.
async fn upload(http: &Http, session: &mut crate::SqlSession, mut body: Body) -> Result<(), Problem> {
    let limit = http.options.upload_bytes_max;
    let mut taken = 0u64;
    while let Some(frame) = timeout(http.options.body_timeout, body.frame()).await.map_err(|_| too_slow())? {
        let Ok(piece) = frame.map_err(|_| broken_off())?.into_data() else { continue };
        taken += piece.len() as u64;
        if taken > limit {
            return Err(too_large(limit));
        }
        session.copy_data(&piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        let Statement(statement) =
            statement("t\"; DROP TABLE u; --", "columns=a,%20b%22&header=true&delimiter=;&null=-").unwrap();
        let text = statement.to_string();
        assert!(text.starts_with(r#"COPY "t""; DROP TABLE u; --" ("a", "b""") FROM STDIN"#), "{text}");
    }

    #[test]
    fn refuses_parameters_that_it_does_not_know() {
        for query in ["header=1", "delimiter=", "delimiter=ab", "delimiter=%C3%A9", "nul=x", "format=binary"] {
            assert!(statement("t", query).is_err(), "{query}");
        }
    }
}
