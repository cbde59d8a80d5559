//! Who plays: storage nodes and an arbiter, each a process of this program with its own folder, keys and log.

use super::children::{Child, MemoryWatch, tail};
use crate::error::{Context, Failure, Result};
use crate::processes::{await_run_file, service, write_toml};
use fluence_crypto::secret::Secret;
use fluence_node::config::{
    ArbiterConfig, ChainConfig, JudgeConfig, MetricsConfig, PeerConfig, ProvingConfig, RpcUrl, StorageConfig,
};
use fluence_node::identity;
use fluence_node::net::NetConfig;
use fluence_node::telemetry::LogConfig;
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::{Address, NodeId};
use rand::rngs::OsRng;
use std::path::{Path, PathBuf};

/// Milliseconds between two looks at the chain: the demo moves time by hand.
const POLL_MS: u64 = 250;
/// Blocks between two certificates of a cluster on chain: more than the demo has, so that each cluster posts one. Every transaction is a
/// block here, and certificates at the beginning of an epoch would use up the arbiter's patience.
const CHECKPOINT_BLOCKS: u64 = 4096;
/// Blocks after an epoch's start before the arbiter challenges.
pub(crate) const GRACE_BLOCKS: u64 = 8;

/// What all of them share.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Folder of the demo.
    pub(crate) dir: PathBuf,
    /// Proving keys.
    pub(crate) keys_dir: PathBuf,
    /// The storage circuit's shape.
    pub(crate) shape: StorageShape,
    /// JSON-RPC address of the chain.
    pub(crate) rpc_url: String,
    /// Where the contracts are.
    pub(crate) deployment: PathBuf,
}

/// An account on the chain, its key in a file.
#[derive(Debug)]
pub(crate) struct Account {
    /// The key file.
    pub(crate) path: PathBuf,
    /// Its address.
    pub(crate) address: Address,
}

impl Account {
    /// A fresh one.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let secret = Secret::<32>::random(&mut OsRng);
        identity::write_secret(path, &secret).doing("cannot write an operator's key")?;
        let account = Self { path: path.to_owned(), address: Address::default() };
        // The address follows from the key; nothing is asked of a chain for it.
        let connection = account.connect("http://127.0.0.1:1")?;
        let address = connection.account().ok_or_else(|| Failure::failed("an operator's key has no account"))?;
        Ok(Self { address, ..account })
    }

    /// A connection that sends as this account.
    pub(crate) fn connect(&self, rpc_url: &str) -> Result<fluence_bindings::Connection> {
        let secret = identity::load_secret(&self.path).doing("cannot read an operator's key")?;
        secret.expose(|key| fluence_bindings::Connection::new(rpc_url, Some(key))).doing("cannot connect to the chain")
    }
}

/// A storage node.
#[derive(Debug)]
pub(crate) struct Node {
    /// `node-1` to `node-5`.
    pub(crate) name: String,
    /// Its identity on the network and the chain.
    pub(crate) id: NodeId,
    /// Its operator's account.
    pub(crate) operator: Account,
    config: StorageConfig,
    config_path: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    address: Option<String>,
}

impl Node {
    /// Writes its keys and configuration; it does not run yet.
    pub(crate) fn prepare(stage: &Stage, name: &str) -> Result<Self> {
        let dir = stage.dir.join(name);
        let operator = Account::create(&dir.join("operator.key"))?;
        let data_dir = dir.join("data");
        let id = identity::load_or_create(&data_dir.join("identity.key")).doing("cannot make a node's key")?.id();
        let config = StorageConfig {
            data_dir,
            net: NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..NetConfig::default() },
            proving: proving(stage),
            chain: Some(chain(stage, &operator)),
            metrics: MetricsConfig { listen: Some(([127, 0, 0, 1], 0).into()) },
            log: log(),
            ..StorageConfig::default()
        };
        let (config_path, log) = (dir.join("node.toml"), stage.dir.join(format!("{name}.log")));
        Ok(Self { name: name.to_owned(), id, operator, config, config_path, log, child: None, address: None })
    }

    /// Starts it, and waits until it listens.
    pub(crate) async fn start(&mut self, memory: &MemoryWatch) -> Result<()> {
        write_toml(&self.config_path, &self.config)?;
        let mut child = Child::start(&self.name, service("node", &self.config_path)?, &self.log, true)?;
        memory.add(child.pid());
        let run = await_run_file(&mut child, &self.config.data_dir).await?;
        let address =
            run.listen.first().cloned().ok_or_else(|| Failure::failed(format!("{} listens nowhere", self.name)))?;
        // The next start takes the same port, so that what others know of it stays true.
        let bare = address.split("/p2p/").next().unwrap_or(&address).to_owned();
        self.config.net.listen = vec![bare];
        self.address = Some(address);
        self.child = Some(child);
        Ok(())
    }

    /// Stops it, gracefully.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Waiting for the process is a blocking act.
            let stopped = tokio::task::spawn_blocking(move || child.stop()).await;
            stopped.expect("stopping a child does not panic");
        }
    }

    /// Kills it: no signal that it could answer.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
        }
    }

    /// Its address with its peer id.
    pub(crate) fn address(&self) -> &str {
        self.address.as_deref().expect("asked of nodes that were started")
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.child.as_mut().map_or(Ok(()), Child::check)
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// A lying copy of it: the same identity, another folder, its pages spoilt. Nothing of it touches the chain.
    pub(crate) async fn start_liar(&self, copy: &Path, dir: &Path, memory: &MemoryWatch) -> Result<(Child, String)> {
        let config = StorageConfig {
            data_dir: copy.to_owned(),
            net: NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..NetConfig::default() },
            chain: None,
            metrics: MetricsConfig::default(),
            ..self.config.clone()
        };
        let path = dir.join("liar.toml");
        write_toml(&path, &config)?;
        let mut command = service("demo-liar", &path)?;
        command.env(fluence_node::liar::ENABLE, "1");
        let mut child = Child::start("liar", command, &dir.join("liar.log"), true)?;
        memory.add(child.pid());
        let run = await_run_file(&mut child, copy).await?;
        let address = run.listen.first().cloned().ok_or_else(|| Failure::failed("the liar listens nowhere"))?;
        Ok((child, address))
    }
}

/// The arbiter.
#[derive(Debug)]
pub(crate) struct Arbiter {
    /// Its account.
    pub(crate) operator: Account,
    config: ArbiterConfig,
    config_path: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Arbiter {
    /// Writes its keys and configuration.
    pub(crate) fn prepare(stage: &Stage) -> Result<Self> {
        let dir = stage.dir.join("arbiter");
        let operator = Account::create(&dir.join("operator.key"))?;
        let config = ArbiterConfig {
            data_dir: dir.join("data"),
            net: NetConfig { listen: Vec::new(), ..NetConfig::default() },
            arbiter: JudgeConfig { grace_blocks: GRACE_BLOCKS, ask_every_ms: 500, ..JudgeConfig::default() },
            proving: proving(stage),
            chain: Some(chain(stage, &operator)),
            log: log(),
            ..ArbiterConfig::default()
        };
        let (config_path, log) = (dir.join("arbiter.toml"), stage.dir.join("arbiter.log"));
        Ok(Self { operator, config, config_path, log, child: None })
    }

    /// Starts it with the nodes' addresses.
    pub(crate) async fn start(&mut self, nodes: &[Node], memory: &MemoryWatch) -> Result<()> {
        self.config.arbiter.peers =
            nodes.iter().map(|n| PeerConfig { node: n.id, addresses: vec![n.address().to_owned()] }).collect();
        write_toml(&self.config_path, &self.config)?;
        let mut child = Child::start("arbiter", service("arbiter", &self.config_path)?, &self.log, true)?;
        memory.add(child.pid());
        await_run_file(&mut child, &self.config.data_dir).await?;
        self.child = Some(child);
        Ok(())
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.child.as_mut().map_or(Ok(()), Child::check)
    }

    /// Where it writes what each node did.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.config.data_dir.join("ledger.jsonl")
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

fn proving(stage: &Stage) -> ProvingConfig {
    ProvingConfig {
        keys_dir: stage.keys_dir.clone(),
        storage: CircuitId::Storage(stage.shape),
        // Made before anything starts, with a progress bar.
        make_dev_keys: false,
        ..ProvingConfig::default()
    }
}

/// What the store's own library tells at `info` would hide what the node says.
fn log() -> LogConfig {
    LogConfig {
        filter: "info,libp2p=warn,fjall=warn,lsm_tree=warn,commonware=warn,simplex=warn,marshal=warn".to_owned(),
        ..LogConfig::default()
    }
}

fn chain(stage: &Stage, operator: &Account) -> ChainConfig {
    ChainConfig {
        poll_ms: POLL_MS,
        checkpoint_blocks: std::num::NonZeroU64::new(CHECKPOINT_BLOCKS),
        ..ChainConfig::new(RpcUrl(stage.rpc_url.clone()), stage.deployment.clone(), Some(operator.path.clone()))
    }
}
