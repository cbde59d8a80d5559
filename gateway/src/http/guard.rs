//! Who may ask: the checks before any handler.
//!
//! ```text
//! Host ── Origin ── (public page?) ── Basic | Bearer ── room for one more ── handler
//! ```
//! Host    against names of other pages that are pointed at this machine (DNS rebinding)
//! Origin  against other pages that let a browser send what it knows of us
//! User    Basic with the password of the Postgres port, or the token of a session, for that session only
//! Room    a permit that is held until the last byte of the answer is gone

use super::Http;
use super::connection::Known;
use super::problem::Problem;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The user.
    pub(super) user: String,
    /// The one session that he may use, where he came with its token.
    pub(super) session: Option<String>,
}

/// Pages that say nothing of the owner's.
fn is_public(path: &str) -> bool {
    matches!(path, "/" | "/v1/health" | "/v1/openapi.json" | "/docs") || path.starts_with("/docs/")
}

/// See the module.
pub(super) async fn guard(State(http): State<Arc<Http>>, request: Request, next: Next) -> Response {
    let mut response = match admit(&http, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn admit(http: &Http, mut request: Request, next: Next) -> Result<Response, Problem> {
    let host = host(http, request.uri(), request.headers())?;
    origin(request.headers(), &host)?;
    if is_public(request.uri().path()) {
        return Ok(next.run(request).await);
    }
    let caller = caller(http, request.headers()).ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            Some("28P01"),
            "this needs a user and the password, or a session's token",
        )
    })?;
    if let Some(known) = request.extensions().get::<Known>() {
        known.set();
    }
    let permit = Arc::clone(&http.requests).try_acquire_owned().map_err(|_| {
        let why = format!("{} requests are at work, no more are taken at once", http.options.requests_max);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, Some("53300"), why)
    })?;
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    Ok(response.map(|body| Body::new(Held { body, _permit: permit })))
}

/// The name by which the client calls us, where it is one of ours.
fn host(http: &Http, uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    let bad = |why| Problem::new(StatusCode::BAD_REQUEST, None, why);
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(bad("a request has one Host field"));
    };
    let host = host.to_str().ok().and_then(|h| h.parse::<Authority>().ok()).filter(|h| !h.as_str().contains('@'));
    let host = host.ok_or_else(|| bad("the Host field is no name"))?;
    if uri.authority().is_some_and(|named| named != &host) {
        return Err(bad("the Host field and the request's target name two hosts"));
    }
    let name = host.host().to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let ours = http.options.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(&name))
        || if http.loopback {
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        } else {
            http.options.hosts.is_empty()
        };
    if !ours {
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, None, "the Host field names another server"));
    }
    Ok(host)
}

/// A web page says where it is from: only pages of our own may ask.
fn origin(headers: &HeaderMap, host: &Authority) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
    match origin {
        Some(origin) if origin.eq_ignore_ascii_case(host.as_str()) => Ok(()),
        _ => Err(Problem::new(StatusCode::FORBIDDEN, None, "pages of another origin may not use this server")),
    }
}

/// Who the Authorization field says it is, where that is so.
fn caller(http: &Http, headers: &HeaderMap) -> Option<Caller> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        let bytes = Zeroizing::new(STANDARD.decode(rest).ok()?);
        let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        return http.options.users.accepts(user, password).then(|| Caller { user: user.to_owned(), session: None });
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        let (id, user) = http.sessions.by_token(rest)?;
        return Some(Caller { user, session: Some(id) });
    }
    None
}

/// A body, and the permit under which it was made.
struct Held {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
