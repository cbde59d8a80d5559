//! What an operator sees: structured logs on stderr, Prometheus metrics and a health check over HTTP.
//!
//! Metrics are per process: two nodes in one process (tests) share them. Names begin with `fluence_`; `docs/runbook.md` lists them.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// A `tracing` filter, as `info,fluence_node=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info,libp2p=warn,fjall=warn,lsm_tree=warn,commonware=warn,simplex=warn,marshal=warn".to_owned(),
        }
    }
}

/// Starts logging to stderr, once per process; a second call changes nothing. Colours are off under `NO_COLOR` and where stderr is
/// no terminal.
///
/// # Errors
/// A message naming what is wrong with the filter.
pub fn init_logs(config: &LogConfig) -> Result<(), String> {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(&config.filter).map_err(|e| format!("log filter {:?}: {e}", config.filter))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A line that cannot be written is dropped: reporting that to the same stream, which may lie on a full disk, would panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .log_internal_errors(false);
    let _ = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// The process's recorder: installed at the first call.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        const SECONDS: [f64; 12] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .expect("the list of buckets is not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Fails only where another part of the process has installed one: then ours stays empty.
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("metrics go to another recorder of this process");
        }
        handle
    })
}

/// Whether the node does its work; `/healthz` says so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Ready.
    Ready,
    /// Not ready yet, or stopping.
    NotReady(&'static str),
    /// Running, but something needs a person: lost data, a chain out of reach.
    Degraded(String),
}

/// Serves `/metrics` and `/healthz` until `stop`; returns the real address.
///
/// # Errors
/// What the system says of the address.
pub async fn serve(
    address: SocketAddr,
    health: watch::Receiver<Health>,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let recorder = recorder();
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let upkeep_stop = stop.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(5));
        loop {
            tokio::select! {
                _ = tick.tick() => recorder.run_upkeep(),
                () = upkeep_stop.cancelled() => break,
            }
        }
    });
    let router = Router::new()
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], recorder.render()) }),
        )
        .route("/healthz", get(healthz))
        .with_state(health);
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics endpoint stopped");
        }
    });
    Ok(address)
}

async fn healthz(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    match &*health.borrow() {
        Health::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Health::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Health::Degraded(why) => (StatusCode::OK, format!("degraded: {why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn serves_metrics_and_health_on_a_free_port_until_stopped() {
        let (say, health) = watch::channel(Health::NotReady("starting"));
        let stop = CancellationToken::new();
        let address = serve("127.0.0.1:0".parse().unwrap(), health, stop.clone()).await.unwrap();
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 503"));
        say.send_replace(Health::Ready);
        assert!(get(address, "/healthz").await.contains("ready"));
        metrics::counter!("fluence_test_total").increment(3);
        assert!(get(address, "/metrics").await.contains("fluence_test_total 3"));
        stop.cancel();
    }

    #[test]
    fn rejects_a_filter_that_is_none() {
        let config = LogConfig { filter: "info,=".to_owned(), ..LogConfig::default() };
        assert!(init_logs(&config).is_err());
    }
}
