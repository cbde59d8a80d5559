//! The HTTP server: SQL as JSON, on the sessions and users of the Postgres port.
//!
//! ```text
//! accept ── TLS ── HTTP/1.1 ── guard (host, origin, user, room) ── query | sessions | copy | tables ── session
//!                                └── health, openapi.json, docs: for everybody
//! ```
//! Limits  connections, of which strangers' go first when they are too many; requests at work; sessions and their idle time; bytes of a
//!         head, a body, an upload, an answer that is not streamed; time for a head, and for each piece of a body
//! Rule    a request that is cut off drops its statement; what was not committed did not happen.
//! Rule    nothing works from another web page: a foreign Origin is refused, a body must say a type that pages cannot send unasked, there
//!         are no CORS headers, and on loopback the Host must be a name of loopback, so that no foreign name is pointed here.
//! Rule    no credential is taken from a URL, and none is logged.
//! Source  RFC 9110, 9112, 7617 (Basic), 6750 (Bearer), 9457 (problems)

// A problem is made at most once a request: boxing it would cost more words than it saves bytes.
#![allow(clippy::result_large_err)]

mod answer;
mod api;
mod body;
mod connection;
mod copy;
mod docs;
mod encode;
mod guard;
mod opening;
mod params;
mod problem;
mod query;
mod sessions;
mod tables;

pub use api::openapi;

use crate::server::tls::{Tls, load};
use crate::server::{ServerError, TlsFiles, Users};
use crate::session::{Gateway, SqlSession};
use problem::Problem;
use sessions::Sessions;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How an HTTP server behaves.
#[derive(Debug)]
pub struct HttpOptions {
    /// Who may come in; with passwords, or the server does not start.
    pub users: Users,
    /// Certificate and key. With them, no connection goes without encryption.
    pub tls: Option<TlsFiles>,
    /// Serve without encryption off loopback.
    pub allow_plaintext: bool,
    /// Names by which clients may call the server, beside those of loopback. Off loopback, an empty list takes any name.
    pub hosts: Vec<String>,
    /// Connections at once.
    pub connections_max: usize,
    /// Requests of known users at once.
    pub requests_max: usize,
    /// Sessions at once.
    pub sessions_max: usize,
    /// How long a session lives without a request.
    pub session_idle_max: Duration,
    /// From accept, or the last answer, to a whole head.
    pub head_timeout: Duration,
    /// For a JSON body, and for each piece of an upload.
    pub body_timeout: Duration,
    /// Bytes of a JSON body.
    pub body_bytes_max: usize,
    /// Bytes of an upload.
    pub upload_bytes_max: u64,
    /// Bytes of an answer that is not streamed.
    pub answer_bytes_max: usize,
    /// How long requests have to end when the server does.
    pub shutdown_grace: Duration,
}

impl HttpOptions {
    /// The usual limits: 256 connections, 64 requests, 32 sessions that end after 5 idle minutes, heads within 15 s, bodies within 30 s and
    /// 16 MiB, uploads of 4 GiB, answers of 64 MiB, 5 seconds of grace; no TLS.
    #[must_use]
    pub fn new(users: Users) -> Self {
        Self {
            users,
            tls: None,
            allow_plaintext: false,
            hosts: Vec::new(),
            connections_max: 256,
            requests_max: 64,
            sessions_max: 32,
            session_idle_max: Duration::from_secs(300),
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            body_bytes_max: 16 << 20,
            upload_bytes_max: 4 << 30,
            answer_bytes_max: 64 << 20,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// What all requests share.
struct Http {
    gateway: Arc<Gateway>,
    options: HttpOptions,
    tls: Option<Tls>,
    /// Whether only this machine reaches the listener.
    loopback: bool,
    sessions: Arc<Sessions<SqlSession>>,
    requests: Arc<Semaphore>,
}

impl Http {
    /// A session of a user.
    async fn session(&self, user: &str) -> Result<SqlSession, Problem> {
        let database = self.gateway.options.database.as_deref().unwrap_or("fluence");
        Ok(self.gateway.session(user, database).await?)
    }
}

/// Serves clients of `listener` until `shutdown` is ready. Dropping the future ends all connections at once.
///
/// # Errors
/// Before the first client: TLS files that cannot be used, a listener off loopback without them, users without passwords.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    options: HttpOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    let address = listener.local_addr()?;
    let loopback = address.ip().is_loopback();
    if options.users.is_trust() {
        return Err(ServerError::TrustOverHttp);
    }
    if options.tls.is_none() && !loopback && !options.allow_plaintext {
        return Err(ServerError::NoCertificate);
    }
    let tls = options.tls.as_ref().map(|files| load(files, b"http/1.1")).transpose()?;
    let sessions = Arc::new(Sessions::new(options.sessions_max, options.session_idle_max));
    let requests = Arc::new(Semaphore::new(options.requests_max.max(1)));
    let http = Arc::new(Http { gateway, options, tls, loopback, sessions, requests });
    tracing::info!(%address, tls = http.tls.is_some(), "HTTP server listens");
    connection::accept(http, listener, shutdown).await;
    Ok(())
}
