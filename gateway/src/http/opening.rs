//! Sessions: opened with the password, closed by whoever holds them.

use super::Http;
use super::answer::json;
use super::body::check_type;
use super::guard::Caller;
use super::problem::Problem;
use axum::Extension;
use axum::body::HttpBody;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A session that was opened.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionInfo<'a> {
    /// Its name, for paths.
    id: &'a str,
    /// Opens it, as `Authorization: Bearer`, and nothing else. Shown once.
    token: &'a str,
    /// Seconds without a request after which it is gone.
    idle_seconds_max: u64,
}

/// Open a session: one transaction, settings, prepared statements.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", responses(
    (status = 201, description = "It is open", body = SessionInfo),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn open(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    caller.may_use(None)?;
    // There is nothing to say yet; what is said all the same has the type of what may be said one day.
    if !request.body().is_end_stream() {
        check_type(request.headers(), "application/json")?;
    }
    http.sessions.has_room()?;
    let session = http.session(&caller.user).await?;
    let opened = http.sessions.open(&caller.user, session)?;
    let idle_seconds_max = http.sessions.idle_max().as_secs();
    Ok(json(StatusCode::CREATED, &SessionInfo { id: &opened.id, token: &opened.token, idle_seconds_max }))
}

/// Close a session; its transaction is rolled back.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session")),
    responses(
    (status = 204, description = "It is closed"),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn close(
    State(http): State<Arc<Http>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_use(Some(&id))?;
    http.sessions.close(&id, &caller.user)?;
    Ok(StatusCode::NO_CONTENT)
}
