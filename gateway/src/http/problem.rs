//! What went wrong, as a client reads it: a problem of RFC 9457 with the SQLSTATE.
//!
//! Rule    the status says whose turn it is: 400 another statement, 409 the transaction again, 422 other values, 503 later, 502 and 500
//!         look at the nodes and at us. Programs look at `sqlstate`.

use crate::error::SqlError;
use crate::server::errors::Fault;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A problem (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status and `sqlstate` say what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened, for people.
    detail: String,
    /// The SQLSTATE, for programs; not there where SQL has none for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<String>,
    /// Where in the statement, in characters from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// More of it: PostgreSQL's DETAIL.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    /// A problem with a status of its own.
    pub(super) fn new(status: StatusCode, sqlstate: Option<&str>, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            sqlstate: sqlstate.map(str::to_owned),
            position: None,
            more: None,
            hint: None,
        }
    }

    /// With what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the place in `sql` that the parser names: `.. at Line: 1, Column: 8`, or the end.
    pub(super) fn at(mut self, sql: &str) -> Self {
        if self.detail.ends_with("found: EOF") {
            self.position = u64::try_from(sql.chars().count() + 1).ok();
            return self;
        }
        let place = self.detail.rsplit_once("at Line: ").and_then(|(_, place)| place.split_once(", Column: "));
        let number = |text: &str| {
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..digits].parse::<usize>().ok()
        };
        if let Some((line, column)) = place.and_then(|(line, column)| Some((number(line)?, number(column)?)))
            && line > 0
        {
            let before: usize = sql.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum();
            self.position = u64::try_from(before + column).ok();
        }
        self
    }

    /// A failure of SQL.
    fn sql(code: &str, detail: String, more: Option<String>, hint: Option<String>) -> Self {
        Self { more, hint, ..Self::new(status(code), Some(code), detail) }
    }
}

/// The status of an SQLSTATE.
fn status(code: &str) -> StatusCode {
    match code {
        // A conflict, a key that is there, a session at work, a transaction that must be rolled back.
        "40001" | "23505" | "55006" | "25P02" => StatusCode::CONFLICT,
        "42501" => StatusCode::FORBIDDEN,
        "57014" => StatusCode::GATEWAY_TIMEOUT,
        // A node's answer that does not verify.
        "XX001" => StatusCode::BAD_GATEWAY,
        _ => match code.get(..2) {
            Some("08" | "53" | "57") if code != "08P01" => StatusCode::SERVICE_UNAVAILABLE,
            Some("22" | "23") => StatusCode::UNPROCESSABLE_ENTITY,
            Some("28") => StatusCode::UNAUTHORIZED,
            Some("XX") => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        },
    }
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Self {
        Self::sql(error.state.code(), error.message, error.detail, error.hint)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::sql(&fault.code, fault.message, fault.detail, fault.hint)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"fluence\", charset=\"UTF-8\""),
            );
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SqlState;

    #[test]
    fn a_syntax_error_has_its_place_in_characters() {
        let at = |sql: &str, message: &str| Problem::new(StatusCode::BAD_REQUEST, None, message).at(sql).position;
        assert_eq!(at("SELECT (", "Expected: x, found: EOF at Line: 1, Column: 9"), Some(9));
        assert_eq!(at("SELECT 'é',\n  )", "Expected: x, found: ) at Line: 2, Column: 3"), Some(15));
        assert_eq!(at("SELECT 'é', (", "Expected: an expression, found: EOF"), Some(14));
        assert_eq!(at("SELECT", "no place"), None);
        assert_eq!(at("SELECT", "at Line: 0, Column: x"), None);
        assert_eq!(at("SELECT", "at Line: 99999999999999999999, Column: 1"), None);
    }

    #[test]
    fn the_status_follows_the_sqlstate() {
        let status = |state| Problem::from(SqlError::new(state, "x")).status;
        assert_eq!(status(SqlState::SerializationFailure), 409);
        assert_eq!(status(SqlState::UniqueViolation), 409);
        assert_eq!(status(SqlState::NotNullViolation), 422);
        assert_eq!(status(SqlState::SyntaxError), 400);
        assert_eq!(status(SqlState::UndefinedTable), 400);
        assert_eq!(status(SqlState::ConnectionFailure), 503);
        assert_eq!(status(SqlState::DataCorrupted), 502);
        assert_eq!(status(SqlState::InsufficientPrivilege), 403);
        assert_eq!(status(SqlState::InternalError), 500);
        assert_eq!(Problem::from(Fault::error("08P01", "x")).status, 400);
    }
}
