//! Storage node and arbiter: libp2p, the log, the proof hour, the chain.
//!
//! ```text
//! storage node   net -> service -> {log -> engine, engine, prover}        chain -> duty -> engine, prover -> proofs -> chain
//! arbiter        chain -> arbiter -> net, verifier -> ledger, chain
//! ```
//! Seams   [`log::Log`] (the cluster of one will become 3f + 1), [`chain::Chain`] (contracts, or a test's), [`net`] (no libp2p type
//!         above it).
//! Source  DESIGN sections 2, 6, 7, 8 and 11; `docs/runbook.md`

pub mod arbiter;
pub mod chain;
pub mod cluster;
pub mod config;
pub mod datadir;
pub mod identity;
pub mod liar;
pub mod log;
pub mod net;
pub mod storage;
pub mod telemetry;

mod run_arbiter;

pub use config::{ArbiterConfig, Config, StorageConfig};
pub use datadir::RunFile;
pub use run_arbiter::run_arbiter;
pub use storage::{NodeError, StorageNode, run_storage};
pub use tokio_util::sync::CancellationToken;

/// The software's name and version, as peers and operators see it.
pub const SOFTWARE: &str = concat!("fluence ", env!("CARGO_PKG_VERSION"));

/// A token that SIGINT or SIGTERM cancels; a second signal ends the process at once, with code 130.
#[must_use]
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        signal().await;
        tracing::info!("a signal to stop; once more to end at once");
        cancelled.cancel();
        signal().await;
        std::process::exit(130);
    });
    token
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("the system lets us listen for signals");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}
