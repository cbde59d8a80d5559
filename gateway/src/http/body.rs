//! Bodies of requests: their type said, their size and their time bounded.

use super::Http;
use super::problem::Problem;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// Whether a body says that it is of a type.
pub(super) fn check_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    if said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let why = format!("the body must have the Content-Type {expected}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, why))
}

/// Whether the size that a request says is within the limit.
pub(super) fn check_size(headers: &HeaderMap, limit: u64) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
    if said.is_some_and(|said| said > limit) { Err(too_large(limit)) } else { Ok(()) }
}

/// A body above the limit.
pub(super) fn too_large(limit: u64) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Some("54000"), format!("a body has at most {limit} bytes here"))
}

/// A body that does not come.
pub(super) fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, None, "the body did not come in time")
}

/// A body that was cut off.
pub(super) fn broken_off() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, None, "the body was cut off")
}

/// A JSON body.
pub(super) async fn json<T: DeserializeOwned>(http: &Http, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    check_type(headers, "application/json")?;
    let limit = http.options.body_bytes_max;
    check_size(headers, limit as u64)?;
    let whole = timeout(http.options.body_timeout, Limited::new(body, limit).collect()).await;
    let bytes = match whole.map_err(|_| too_slow())? {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large(limit as u64)),
        Err(_) => return Err(broken_off()),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, None, format!("the body is not as documented: {error}")))
}
