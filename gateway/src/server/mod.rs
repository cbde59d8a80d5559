//! The server: Postgres protocol 3 on a TCP listener, one session per connection.
//!
//! ```text
//! accept ── startup (auth, tls) ── connection ── simple | extended ── rows | copy
//!                └── cancel                         └── params, encode
//! ```
//! Limits  two rooms. The porch holds connections that have not proven who they are: when it is full, the oldest has to go, so idle
//!         strangers never keep a client out. The house holds sessions: when it is full, a proven client is told so (53300).
//! Rule    no input ends the process; a connection's failure ends that connection. When the server ends, all its tasks have ended.
//! Why own handlers of pgwire run a whole query string before the first answer, collect a portal's rows in memory, and do not bound a
//!         message; its messages, SCRAM and the row encoders of arrow-pg are used.
//! Source  PostgreSQL 15, chapter "Frontend/Backend Protocol"

mod auth;
mod cancel;
mod connection;
mod copy;
pub(crate) mod encode;
pub(crate) mod errors;
mod extended;
mod frontend;
pub(crate) mod params;
pub(crate) mod simple;
mod startup;
pub(crate) mod tls;
mod tuples;
mod wire;

pub use auth::{ITERATIONS, Users};
pub use tls::TlsFiles;

use crate::session::Gateway;
use errors::{Fault, code};
use startup::Client;
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;

/// Why a server does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A certificate or key cannot be used.
    #[error("TLS file {}: {why}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Encryption is required, but there is no certificate.
    #[error("encryption is required, but there is no certificate")]
    NoCertificate,
    /// Users without passwords, and a listener that others reach.
    #[error("users without passwords on {0}, which is not a loopback address")]
    TrustBeyondLoopback(SocketAddr),
    /// A web page could use what asks for no password.
    #[error("users without passwords over HTTP: any web page could use them")]
    TrustOverHttp,
    /// The listener is not usable.
    #[error("listener: {0}")]
    Listener(#[from] std::io::Error),
}

/// How a server behaves.
#[derive(Debug)]
pub struct ServerOptions {
    /// Who may come in.
    pub users: Users,
    /// Certificate and key; without them, clients that ask for encryption are told there is none.
    pub tls: Option<TlsFiles>,
    /// Refuse clients that do not encrypt.
    pub require_tls: bool,
    /// Sessions at once.
    pub connections_max: usize,
    /// Connections at once that have not proven who they are.
    pub handshakes_max: usize,
    /// From accept to a proven password.
    pub startup_timeout: Duration,
    /// Body of one message of a known client.
    pub message_bytes_max: usize,
    /// How long sessions have to say goodbye when the server ends.
    pub shutdown_grace: Duration,
}

impl ServerOptions {
    /// The usual limits: 100 sessions, 64 strangers for 30 seconds each, 64 MiB messages, 5 seconds of grace; no TLS.
    #[must_use]
    pub fn new(users: Users) -> Self {
        Self {
            users,
            tls: None,
            require_tls: false,
            connections_max: 100,
            handshakes_max: 64,
            startup_timeout: Duration::from_secs(30),
            message_bytes_max: 64 << 20,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// What all connections share.
struct Server {
    gateway: Arc<Gateway>,
    options: ServerOptions,
    tls: Option<tls::Tls>,
    registry: Arc<cancel::Registry>,
}

/// Serves clients of `listener` until `shutdown` is ready. Dropping the future ends all connections at once.
///
/// # Errors
/// Before the first client: TLS files that cannot be used, encryption required without them, trust beyond loopback.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    let address = listener.local_addr()?;
    if options.users.is_trust() && !address.ip().is_loopback() {
        return Err(ServerError::TrustBeyondLoopback(address));
    }
    if options.require_tls && options.tls.is_none() {
        return Err(ServerError::NoCertificate);
    }
    let tls = options.tls.as_ref().map(|files| tls::load(files, tls::ALPN)).transpose()?;
    let server = Arc::new(Server { gateway, options, tls, registry: Arc::default() });
    tracing::info!(%address, tls = server.tls.is_some(), required = server.options.require_tls, "SQL server listens");

    let (ends, ended) = watch::channel(false);
    let mut house = House { server, ended, porch: JoinSet::new(), oldest: VecDeque::new(), sessions: JoinSet::new() };
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => house.greet(stream, peer),
                Err(error) => {
                    // Usually no descriptors are left: make room, and do not spin.
                    tracing::warn!(%error, "accept");
                    house.evict();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(done) = house.porch.join_next() => house.admit(done),
            Some(done) = house.sessions.join_next() => report(done.err()),
        }
    }
    drop(listener);
    ends.send_replace(true);
    house.close().await;
    Ok(())
}

/// The tasks of a server.
struct House {
    server: Arc<Server>,
    ended: watch::Receiver<bool>,
    porch: JoinSet<Option<Client>>,
    /// Tasks of the porch, in order of arrival.
    oldest: VecDeque<AbortHandle>,
    sessions: JoinSet<()>,
}

impl House {
    /// A connection came.
    fn greet(&mut self, stream: TcpStream, peer: SocketAddr) {
        tracing::debug!(%peer, "accepted");
        let server = Arc::clone(&self.server);
        self.put_on_porch(async move {
            timeout(server.options.startup_timeout, startup::admit(&server, stream)).await.ok()?
        });
    }

    /// Work of bounded time for somebody outside.
    fn put_on_porch(&mut self, task: impl Future<Output = Option<Client>> + Send + 'static) {
        self.oldest.retain(|task| !task.is_finished());
        while self.oldest.len() >= self.server.options.handshakes_max.max(1) {
            self.evict();
        }
        let handle = self.porch.spawn(task);
        self.oldest.push_back(handle);
    }

    /// The oldest stranger has to go.
    fn evict(&mut self) {
        if let Some(oldest) = self.oldest.pop_front() {
            oldest.abort();
        }
    }

    /// Somebody on the porch is done: comes in, is told that the house is full, or is gone.
    fn admit(&mut self, done: Result<Option<Client>, JoinError>) {
        let client = match done {
            Ok(Some(client)) => client,
            Ok(None) => return,
            Err(error) => return report(Some(error)),
        };
        while let Some(done) = self.sessions.try_join_next() {
            report(done.err());
        }
        if self.sessions.len() < self.server.options.connections_max {
            self.sessions.spawn(connection::run(Arc::clone(&self.server), client, self.ended.clone()));
            return;
        }
        let server = Arc::clone(&self.server);
        self.put_on_porch(async move {
            let full =
                client.wire.close_with(Fault::fatal(code::TOO_MANY_CONNECTIONS, "sorry, too many clients already"));
            let _told_or_not = timeout(server.options.startup_timeout, full).await;
            None
        });
    }

    /// Lets sessions say goodbye for a while, then ends all.
    async fn close(mut self) {
        self.porch.abort_all();
        let _all_gone = timeout(self.server.options.shutdown_grace, async {
            while let Some(done) = self.sessions.join_next().await {
                report(done.err());
            }
        })
        .await;
        self.sessions.shutdown().await;
        self.porch.shutdown().await;
    }
}

/// A panic is a defect of ours: it is said, and the others go on.
fn report(error: Option<JoinError>) {
    if let Some(error) = error.filter(JoinError::is_panic) {
        tracing::error!(%error, "a connection's task panicked");
    }
}
