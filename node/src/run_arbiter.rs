//! Starts and stops an arbiter.

use crate::arbiter::Arbiter;
use crate::arbiter::ledger::Ledger;
use crate::chain::Chain;
use crate::chain::ethereum::Ethereum;
use crate::config::{ArbiterConfig, Config, ConfigError};
use crate::datadir::{DataDir, RunFile};
use crate::storage::prover::ProveError;
use crate::storage::{NodeError, serve_metrics};
use crate::telemetry::Health;
use crate::{identity, net};
use fluence_prover::Keys;
use fluence_verifier::groth16::VerificationKey;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs an arbiter until `shutdown` is cancelled.
///
/// # Errors
/// [`NodeError`].
pub async fn run_arbiter(config: ArbiterConfig, shutdown: CancellationToken) -> Result<(), NodeError> {
    config.check()?;
    let chain_config = config.chain.clone().expect("a chain was checked for");
    let dir = DataDir::open(&config.data_dir)?;
    let node_key = identity::load_or_create(&config.identity.clone().unwrap_or_else(|| dir.identity()))?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let (health, health_seen) = watch::channel(Health::NotReady("starting"));
    let metrics = serve_metrics(config.metrics.listen, health_seen, &stop).await?;
    let chain: Arc<dyn Chain> = Arc::new(Ethereum::connect(&chain_config).await?);
    let key = load_key(&config, chain.as_ref()).await?;
    let (ledger, cases) = Ledger::open(&dir.ledger())?;
    let (net, mut inbound, mut net_task) = net::start(&node_key, &config.net).await?;
    // An arbiter answers nobody: dropping a request closes its stream.
    let refuse = tokio::spawn(async move { while inbound.recv().await.is_some() {} });
    dir.write_run_file(&RunFile {
        role: "arbiter".to_owned(),
        node: node_key.id(),
        operator: chain.operator(),
        listen: net.listeners(),
        metrics: metrics.map(|a| format!("http://{a}")),
        pid: std::process::id(),
        software: crate::SOFTWARE.to_owned(),
    })?;
    tracing::info!(node = %node_key.id(), cases = cases.len(), "ready");
    health.send_replace(Health::Ready);
    let poll = Duration::from_millis(chain_config.poll_ms.max(10));
    let arbiter = Arbiter::new(net.clone(), chain, key, config.arbiter.clone(), ledger, cases);
    let outcome = tokio::select! {
        outcome = arbiter.run(poll, &health, shutdown) => outcome.map_err(NodeError::from),
        // Without its network an arbiter finds no proof at all, and would challenge everyone.
        ended = &mut net_task => {
            let why = if ended.is_err_and(|e| e.is_panic()) { "panicked" } else { "ended" };
            dir.clear_run_file();
            return Err(NodeError::TaskEnded { task: "network", why });
        }
    };
    tracing::info!("stopping");
    health.send_replace(Health::NotReady("stopping"));
    dir.clear_run_file();
    net.stop().await;
    let _ = net_task.await;
    let _ = refuse.await;
    outcome
}

/// The storage circuit's key: from the keys folder, and only if it is the one pinned on chain.
async fn load_key(config: &ArbiterConfig, chain: &dyn Chain) -> Result<VerificationKey, NodeError> {
    let (circuit, dir, make) = (config.proving.storage, config.proving.keys_dir.clone(), config.proving.make_dev_keys);
    let loaded = tokio::task::spawn_blocking(move || {
        let path = Keys::path(Path::new(&dir), circuit);
        if !make && !path.exists() {
            return Err(ProveError::NoKey { circuit, path });
        }
        Ok(Keys::load_or_setup(&dir, circuit, |_| ())?)
    });
    let keys = loaded.await.expect("loading a key does not panic")?;
    let info = chain.info();
    if keys.insecure_dev && !info.is_local() {
        return Err(ProveError::DevKey(circuit, info.chain_id).into());
    }
    let pinned = keys.vk.pinned_hash();
    if pinned != info.storage_vk_hash {
        let why = format!(
            "has a key of hash 0x{} for {circuit}, the contract's is 0x{}",
            hex::encode(pinned),
            hex::encode(info.storage_vk_hash)
        );
        return Err(ConfigError::Value { key: "proving.keys_dir", why }.into());
    }
    Ok(keys.vk)
}
