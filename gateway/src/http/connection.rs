//! Connections: accepted, encrypted, bounded in number and in time.
//!
//! Rule    when there are too many, the oldest of those on which nobody has said who he is has to go; where all have, the newcomer.
//! Rule    when the server ends, all its tasks have ended.

use super::{Http, api};
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Bytes of a request's head, and fields in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 64;

/// Whether somebody has shown on a connection who he is.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    /// He has.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until `shutdown` is ready, then waits for the requests that are at work, for a while.
pub(super) async fn accept(http: Arc<Http>, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let router = api::router(&http);
    let (ends, ended) = watch::channel(false);
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut oldest: VecDeque<(AbortHandle, Known)> = VecDeque::new();
    // Expired sessions are refused at once; here they are dropped.
    let mut sweep = tokio::time::interval((http.options.session_idle_max / 2).clamp(TICK_MIN, TICK_MAX));
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tracing::debug!(%peer, "accepted");
                    oldest.retain(|(task, _)| !task.is_finished());
                    if oldest.len() >= http.options.connections_max.max(1) {
                        let Some(stranger) = oldest.iter().position(|(_, known)| !known.is()) else { continue };
                        oldest.remove(stranger).into_iter().for_each(|(task, _)| task.abort());
                    }
                    let known = Known::default();
                    let one = connection(Arc::clone(&http), router.clone(), stream, known.clone(), ended.clone());
                    oldest.push_back((tasks.spawn(one), known));
                }
                Err(error) => {
                    // Usually no descriptors are left: do not spin.
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = sweep.tick() => http.sessions.sweep(),
            Some(done) = tasks.join_next() => {
                if let Err(error) = done && error.is_panic() {
                    tracing::error!(%error, "a connection's task panicked");
                }
            }
        }
    }
    drop(listener);
    ends.send_replace(true);
    let _all_gone = timeout(http.options.shutdown_grace, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
}

const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(30);

/// A plain or a TLS stream.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection, to its end.
async fn connection(
    http: Arc<Http>,
    router: Router,
    stream: TcpStream,
    known: Known,
    mut ended: watch::Receiver<bool>,
) {
    let _small_answers_at_once = stream.set_nodelay(true);
    let io: Box<dyn Io> = match &http.tls {
        None => Box::new(stream),
        Some(tls) => match timeout(http.options.head_timeout, tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            _ => return tracing::debug!("a TLS handshake failed"),
        },
    };
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(known.clone());
        routes.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(http.options.head_timeout)
        .max_headers(FIELDS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        // A client that is gone ends its request.
        .half_close(false)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(served);
    let ends = async { drop(ended.wait_for(|ended| *ended).await) };
    let result = tokio::select! {
        result = &mut served => result,
        () = ends => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}
