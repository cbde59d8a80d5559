//! The storage node: its parts, started in order and stopped in order.
//!
//! ```text
//! start   data directory, logs and metrics, store and engine, scrub, log, network, service, run.json, duty
//! stop    network refuses, requests in flight are answered, the block in progress is written, the store is flushed, run.json goes
//! ```

pub mod duty;
mod pause;
mod pins;
pub mod proofs;
pub mod prover;
pub mod service;

use crate::chain::ethereum::Ethereum;
use crate::chain::{Chain, ChainError};
use crate::cluster::accuser::Accuser;
use crate::cluster::anchoring::Anchoring;
use crate::cluster::poster::{Poster, PosterConfig, Shows};
use crate::cluster::prover::Groth16Seats;
use crate::cluster::{ClusterConfig, ClusterLog};
use crate::config::{ChainConfig, Config, ConfigError, StorageConfig, StoreConfig, StoreKind};
use crate::datadir::{DataDir, DataDirError, RunFile};
use crate::identity::{self, IdentityError};
use crate::net::{self, NetError, NetHandle};
use crate::telemetry::{self, Health};
use duty::Duty;
use fluence_engine::{Engine, EngineConfig, EngineError, FjallOptions, FjallStore, MemStore, Rules, Store, StoreError};
use fluence_types::shape::{CircuitId, StorageShape};
use pause::Pauser;
use proofs::Proofs;
use prover::{ProveError, Prover};
use service::Service;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The metrics endpoint.
    #[error("metrics on {address}: {source}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The engine.
    #[error("store: {0}")]
    Engine(#[from] EngineError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A proving key.
    #[error(transparent)]
    Key(#[from] ProveError),
    /// The replicas' thread does not start.
    #[error("the system starts no thread: {0}")]
    Thread(std::io::Error),
    /// The replica of a database that is here.
    #[error("a replica does not start: {0}")]
    Replica(String),
    /// The store failed while the node ran.
    #[error("the node stopped: the log's writer failed; what it logged says why")]
    StoreFailed,
    /// A part of the node ended while the node ran.
    #[error("the node stopped: its task {task:?} {why}")]
    TaskEnded {
        /// Which.
        task: &'static str,
        /// How it ended.
        why: &'static str,
    },
    /// The arbiter's ledger failed.
    #[error(transparent)]
    Arbiter(#[from] crate::arbiter::ArbiterError),
    /// Something that is not there in this build.
    #[error("{0}")]
    Unsupported(String),
}

/// Runs a storage node until `shutdown` is cancelled, then stops it gracefully.
///
/// # Errors
/// [`NodeError`]; what was acknowledged before is on disk.
pub async fn run_storage(config: StorageConfig, shutdown: CancellationToken) -> Result<(), NodeError> {
    let chain = connect(config.chain.as_ref()).await?;
    StorageNode::start(config, chain).await?.run(shutdown).await
}

/// The chain of a configuration.
///
/// # Errors
/// [`ChainError`].
pub async fn connect(config: Option<&ChainConfig>) -> Result<Option<Arc<dyn Chain>>, ChainError> {
    match config {
        Some(chain) => Ok(Some(Arc::new(Ethereum::connect(chain).await?))),
        None => Ok(None),
    }
}

/// What a caller may look at before the node serves (the liar changes the store here).
pub(crate) struct Prepared<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) engine: &'a Engine,
    pub(crate) chain: Option<&'a dyn Chain>,
}

/// A running storage node.
pub struct StorageNode {
    dir: DataDir,
    run_file: RunFile,
    engine: Arc<Engine>,
    net: NetHandle,
    health: watch::Sender<Health>,
    stop: CancellationToken,
    failed: CancellationToken,
    tasks: Tasks,
    log_thread: std::thread::JoinHandle<()>,
}

impl StorageNode {
    /// Starts a node; when this returns it serves, and `run.json` says where.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(config: StorageConfig, chain: Option<Arc<dyn Chain>>) -> Result<Self, NodeError> {
        Self::start_with(config, chain, &mut |_| Ok(())).await
    }

    pub(crate) async fn start_with(
        mut config: StorageConfig,
        chain: Option<Arc<dyn Chain>>,
        prepare: &mut (dyn FnMut(&Prepared<'_>) -> Result<(), NodeError> + Send),
    ) -> Result<Self, NodeError> {
        config.check()?;
        let shape = config.proving.storage_shape()?;
        // More than one storage proof covers could not be proven.
        let provable = u32::try_from(shape.databases_max()).unwrap_or(u32::MAX);
        config.store.databases_max = config.store.databases_max.min(provable);
        if let Some(info) = chain.as_ref().map(|c| c.info()).filter(|info| info.shape != shape) {
            let why = format!("is {}, the chain's is {}", config.proving.storage, CircuitId::Storage(info.shape));
            return Err(ConfigError::Value { key: "proving.storage", why }.into());
        }
        let dir = DataDir::open(&config.data_dir)?;
        let key = Arc::new(identity::load_or_create(&config.identity.clone().unwrap_or_else(|| dir.identity()))?);
        let stop = CancellationToken::new();
        // Whatever was started is stopped where the rest of the start fails.
        let undo = stop.clone().drop_guard();
        let (health, health_seen) = watch::channel(Health::NotReady("starting"));
        let metrics = serve_metrics(config.metrics.listen, health_seen, &stop).await?;
        tracing::info!(node = %key.id(), data_dir = %dir.root().display(), "opening the store");
        let store = open_store(&config.store, &dir)?;
        let engine = {
            let (store, quota) = (Arc::clone(&store), config.store.quota_bytes);
            let opened = tokio::task::spawn_blocking(move || open_engine(store, quota, shape)).await;
            Arc::new(opened.expect("opening the engine does not panic")?)
        };
        prepare(&Prepared { store: store.as_ref(), engine: &engine, chain: chain.as_deref() })?;
        if config.store.scrub_at_start {
            let engine = Arc::clone(&engine);
            tokio::task::spawn_blocking(move || scrub(&engine)).await.expect("a scrub does not panic");
        }
        let chain_id = chain.as_ref().map(|c| c.info().chain_id);
        let prover = Arc::new(Prover::new(Arc::clone(&engine), config.proving.clone(), shape, chain_id));
        let proofs = Arc::new(Proofs::new(dir.proofs()));
        let pausing = {
            let (prover, pauser) = (Arc::clone(&prover), Pauser::new(dir.pause_file(), &config.proving));
            tokio::spawn(pause_proofs(prover, pauser, stop.clone()))
        };
        let failed = CancellationToken::new();
        let (net, inbound, net_task) = net::start(&key, &config.net).await?;
        let cluster = ClusterConfig {
            journals: dir.journals(),
            evidence: dir.evidence(),
            timing: config.cluster.timing(),
            keep_blocks: config.cluster.keep_blocks,
            databases_max: config.store.databases_max as usize,
            threads: config.cluster.threads.max(1) as usize,
        };
        let seats = Arc::new(Groth16Seats { prover: Arc::clone(&prover), runtime: tokio::runtime::Handle::current() });
        let (log, log_thread) =
            ClusterLog::start(Arc::clone(&engine), Arc::clone(&key), net.clone(), cluster, seats, failed.clone())
                .map_err(NodeError::Thread)?;
        log.resume().await.map_err(NodeError::Replica)?;
        let log = Arc::new(log);
        let anchoring = anchoring(config.chain.as_ref(), chain.as_ref(), key.id(), &log, dir.evidence());
        let service = Service::new(
            Arc::clone(&key),
            Arc::clone(&engine),
            log,
            Arc::clone(&prover),
            Arc::clone(&proofs),
            config.store.clone(),
        );
        let service_task = tokio::spawn(service.run(net.clone(), inbound));
        let run_file = RunFile {
            role: "storage".to_owned(),
            node: key.id(),
            operator: chain.as_ref().and_then(|c| c.operator()),
            listen: net.listeners(),
            metrics: metrics.map(|a| format!("http://{a}")),
            pid: std::process::id(),
            software: crate::SOFTWARE.to_owned(),
        };
        dir.write_run_file(&run_file)?;
        tracing::info!(node = %key.id(), listen = ?run_file.listen, databases = engine.databases().len(), "ready");
        health.send_replace(Health::Ready);
        let mut tasks = Tasks(vec![("network", net_task), ("service", service_task), ("pausing", pausing)]);
        if let Some(chain) = chain {
            let poll = Duration::from_millis(config.chain.as_ref().map_or(1000, |c| c.poll_ms).max(10));
            let duty = Duty::new(key.id(), chain, prover, proofs, health.clone());
            tasks.0.push((DUTY, tokio::spawn(duty.run(poll, stop.clone()))));
            if let Some(anchoring) = anchoring {
                tasks.0.push((ANCHORING, tokio::spawn(anchoring.run(poll, stop.clone()))));
            }
        }
        undo.disarm();
        Ok(Self { dir, run_file, engine, net, health, stop, failed, tasks, log_thread })
    }

    /// What `run.json` says.
    #[must_use]
    pub const fn run_file(&self) -> &RunFile {
        &self.run_file
    }

    /// Waits for `shutdown`, for a failed store, or for a part that ended before its time, and stops.
    ///
    /// # Errors
    /// [`NodeError::StoreFailed`], [`NodeError::TaskEnded`], or that the store cannot be flushed.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let failed = self.failed.clone();
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            () = failed.cancelled() => None,
            ended = self.tasks.first_ended() => Some(ended),
        };
        if let Some(error) = &ended {
            tracing::error!(%error, "a part of the node ended before its time");
        }
        let stopped = self.stop().await;
        match ended {
            Some(error) => Err(error),
            None => stopped,
        }
    }

    /// Stops: requests in flight are answered, the block in progress is written, the store is flushed.
    ///
    /// # Errors
    /// [`NodeError::StoreFailed`], or that the store cannot be flushed.
    pub async fn stop(mut self) -> Result<(), NodeError> {
        tracing::info!("stopping");
        self.health.send_replace(Health::NotReady("stopping"));
        self.dir.clear_run_file();
        // The duty first: a proof in progress is given up, it is made again after the restart.
        self.stop.cancel();
        // What was to be posted is due again after the restart.
        for name in [DUTY, ANCHORING] {
            if let Some(task) = self.tasks.take(name) {
                let _ = task.await;
            }
        }
        // The network answers what is in flight, then ends; with it the service, and with that the log's last handle.
        self.net.stop().await;
        for (_, task) in self.tasks.0 {
            let _ = task.await;
        }
        let (log_thread, engine) = (self.log_thread, self.engine);
        let flushed = tokio::task::spawn_blocking(move || {
            let _ = log_thread.join();
            engine.flush()
        });
        let flushed = flushed.await.expect("a flush does not panic");
        if self.failed.is_cancelled() {
            return Err(NodeError::StoreFailed);
        }
        flushed?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The duty's name among the tasks.
const DUTY: &str = "duty";
/// The name of what writes to the chain for the clusters.
const ANCHORING: &str = "anchoring";

/// Looks again and again whether proofs are to hold still, until `stop`.
async fn pause_proofs(prover: Arc<Prover>, mut pauser: Pauser, stop: CancellationToken) {
    let mut tick = tokio::time::interval(pause::EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => pauser.look(prover.scheduler()),
            () = stop.cancelled() => break,
        }
    }
    // A proof that holds still holds the engine too.
    prover.scheduler().resume();
}

/// What the configuration has written to the chain for the clusters; `None` where it is nothing, or no account could pay for it.
fn anchoring(
    config: Option<&ChainConfig>,
    chain: Option<&Arc<dyn Chain>>,
    own: fluence_types::NodeId,
    log: &Arc<ClusterLog>,
    evidence: std::path::PathBuf,
) -> Option<Anchoring> {
    let (config, chain) = (config?, chain?);
    chain.operator()?;
    let poster = config.checkpoint_blocks.map(|every| {
        let turns = PosterConfig { every_blocks: every.get(), turn_blocks: config.turn_blocks };
        Poster::new(own, Arc::clone(chain), Arc::clone(log) as Arc<dyn Shows>, turns)
    });
    let accuser = config.accuse.then(|| Accuser::new(evidence, own, Arc::clone(chain)));
    (poster.is_some() || accuser.is_some()).then(|| Anchoring::new(Arc::clone(chain), poster, accuser))
}

/// Tasks that run, with their names.
struct Tasks(Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    /// Waits until one ends, and takes it out.
    async fn first_ended(&mut self) -> NodeError {
        std::future::poll_fn(|cx| {
            for i in 0..self.0.len() {
                if let Poll::Ready(ended) = Pin::new(&mut self.0[i].1).poll(cx) {
                    let (task, _) = self.0.swap_remove(i);
                    let why = if ended.is_err_and(|e| e.is_panic()) { "panicked" } else { "ended" };
                    return Poll::Ready(NodeError::TaskEnded { task, why });
                }
            }
            Poll::Pending
        })
        .await
    }

    fn take(&mut self, name: &str) -> Option<JoinHandle<()>> {
        let at = self.0.iter().position(|(task, _)| *task == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// Serves metrics where an address is configured.
pub(crate) async fn serve_metrics(
    address: Option<SocketAddr>,
    health: watch::Receiver<Health>,
    stop: &CancellationToken,
) -> Result<Option<SocketAddr>, NodeError> {
    let Some(address) = address else { return Ok(None) };
    let served = telemetry::serve(address, health, stop.clone()).await;
    Ok(Some(served.map_err(|source| NodeError::Metrics { address, source })?))
}

fn open_store(config: &StoreConfig, dir: &DataDir) -> Result<Arc<dyn Store>, NodeError> {
    match config.engine {
        StoreKind::Fjall => Ok(Arc::new(FjallStore::open(&dir.store(), FjallOptions::default())?)),
        StoreKind::Memory => Ok(Arc::new(MemStore::new())),
        StoreKind::Rocksdb => open_rocksdb(dir),
    }
}

#[cfg(feature = "rocksdb")]
fn open_rocksdb(dir: &DataDir) -> Result<Arc<dyn Store>, NodeError> {
    Ok(Arc::new(fluence_engine::RocksStore::open(&dir.store())?))
}

#[cfg(not(feature = "rocksdb"))]
fn open_rocksdb(_: &DataDir) -> Result<Arc<dyn Store>, NodeError> {
    Err(NodeError::Unsupported(
        "this binary was built without the feature `rocksdb`; use store.engine = \"fjall\"".to_owned(),
    ))
}

/// The engine, whose databases keep to what a storage proof of this shape reaches.
fn open_engine(store: Arc<dyn Store>, quota_bytes: u64, shape: StorageShape) -> Result<Engine, EngineError> {
    let config = EngineConfig { rules: Rules::of(shape), ..EngineConfig::default() };
    Engine::open(store, EngineConfig { upload_bytes_max: config.upload_bytes_max.min(quota_bytes), ..config })
}

/// Reads everything that is stored, and says what is lost.
fn scrub(engine: &Engine) {
    let started = Instant::now();
    let mut pages = 0;
    let lost = engine.scrub(&mut |progress| {
        pages = progress.pages;
        true
    });
    metrics::gauge!("fluence_store_lost_pages").set(lost.len() as f64);
    for page in &lost {
        tracing::error!(db = %page.db, segment = %page.segment, page = page.page, "LOST: a stored page cannot be read back");
    }
    tracing::info!(pages, lost = lost.len(), seconds = started.elapsed().as_secs_f64(), "scrub done");
}
