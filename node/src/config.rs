//! Configuration: a TOML file, then `FLUENCE_*` from the environment, then what the command line says; later ones win.
//!
//! Env     `FLUENCE_NET__LISTEN='["/ip4/0.0.0.0/tcp/4001"]'`: two underscores go one table deeper. Names that begin with no top-level
//!         key of the file are ignored.
//! Rule    unknown keys are refused: a misspelt limit must not look set. Secrets are named by file path, never given.
//! Sample  `node/fluence.sample.toml`, read by a test

use crate::net::NetConfig;
use crate::telemetry::LogConfig;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use fluence_consensus::Timing;
use fluence_prover::{Limits, ProverPath};
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::{DatabaseId, NodeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key is unknown, missing or of the wrong type.
    #[error("configuration: {0}")]
    Invalid(String),
    /// The file is not there.
    #[error("no configuration file at {0}")]
    NoFile(PathBuf),
    /// A value is not usable.
    #[error("configuration: {key} {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// A storage node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The node's key file; `identity.key` in the data directory unless named.
    pub identity: Option<PathBuf>,
    /// Network.
    pub net: NetConfig,
    /// The store and what is let in.
    pub store: StoreConfig,
    /// The clusters it is a member of.
    pub cluster: ClusterSettings,
    /// Proofs.
    pub proving: ProvingConfig,
    /// The chain; none: stores and answers, but has no duty.
    pub chain: Option<ChainConfig>,
    /// Logs.
    pub log: LogConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
}

/// An arbiter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArbiterConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The arbiter's key file; `identity.key` in the data directory unless named.
    pub identity: Option<PathBuf>,
    /// Network.
    pub net: NetConfig,
    /// How it judges.
    pub arbiter: JudgeConfig,
    /// Whose keys proofs must be under.
    pub proving: ProvingConfig,
    /// The chain; must be given.
    pub chain: Option<ChainConfig>,
    /// Logs.
    pub log: LogConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
}

/// Which store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// fjall, embedded.
    #[default]
    Fjall,
    /// RocksDB, where the binary was built with it.
    Rocksdb,
    /// In memory, for tests: gone with the process.
    Memory,
}

/// The store and what is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Which.
    pub engine: StoreKind,
    /// Databases admitted; empty: any that names this node as its only member, within the quota.
    pub databases: Vec<DatabaseId>,
    /// Bytes of segments kept, uploads included.
    pub quota_bytes: u64,
    /// Databases kept.
    pub databases_max: u32,
    /// Checks every page at the start; off, a page is checked when it is read.
    pub scrub_at_start: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            engine: StoreKind::Fjall,
            databases: Vec::new(),
            quota_bytes: 64 << 30,
            databases_max: 256,
            scrub_at_start: true,
        }
    }
}

/// A member is not called missing before so many times what a leader may take in a quiet cluster.
const MISSING_LEADERS_MIN: u32 = 4;

/// Longest time between two blocks of a quiet cluster: clients and members take one that is silent for longer to be gone.
const QUIET_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// How replicas agree. All members of a cluster should have the same times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// Milliseconds that a leader with nothing to propose waits.
    pub idle_ms: u64,
    /// The same once nothing has happened for a whole consensus epoch (64 blocks). A leader that is gone is noticed later then, by the
    /// difference; operations are proposed at once all the same.
    pub quiet_ms: u64,
    /// Milliseconds that a leader may take.
    pub leader_ms: u64,
    /// Milliseconds that a member is not heard before a standby takes its seat.
    pub missing_ms: u64,
    /// Blocks that are kept for members that were away, at least 128; who was away for longer begins again with a snapshot.
    pub keep_blocks: u64,
    /// Threads on which all replicas of the node run.
    pub threads: u32,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { idle_ms: 1000, quiet_ms: 4000, leader_ms: 2000, missing_ms: 600_000, keep_blocks: 8192, threads: 2 }
    }
}

impl ClusterSettings {
    /// The times of a replica.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let ms = std::time::Duration::from_millis;
        let leader = ms(self.leader_ms.max(100));
        let idle = ms(self.idle_ms.max(10)).min(leader / 2);
        let quiet = ms(self.quiet_ms).clamp(idle, QUIET_MAX);
        Timing {
            idle,
            quiet,
            leader,
            certification: leader * 3 / 2,
            retry: leader * 3 / 2,
            skip: leader * 2,
            // A leader that is slow is not gone.
            missing: ms(self.missing_ms).max((leader + quiet - idle) * MISSING_LEADERS_MIN),
            ..Timing::default()
        }
    }
}

/// Proofs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProvingConfig {
    /// Folder of proving and verification keys. Relative to the working directory.
    pub keys_dir: PathBuf,
    /// Circuit of the storage proof, as `storage/v2/k16-h4-d6-t7`.
    pub storage: CircuitId,
    /// Range sums proven at once; each takes every core.
    pub range_sums_at_once: u32,
    /// Makes dev keys where the folder has none. Such keys are refused on any chain but a local one.
    pub make_dev_keys: bool,
    /// Threads that prove; none given: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Proofs at once, each on its share of the threads. One has the first proof done soonest; as many as there are threads the most in
    /// an hour, for as many times the memory.
    pub proofs_at_once: NonZeroUsize,
    /// Memory that running proofs may take beyond their keys, in MiB; none given: no limit.
    pub memory_mib: Option<u64>,
    /// Which arithmetic proves.
    pub prover: ProverKind,
    /// Proofs hold still while the load average of the last minute, less their own threads, is above this; none given: never.
    pub pause_above_load: Option<f64>,
    /// Minutes that a high load may hold proofs at a time; then they go on for as long at least.
    pub pause_minutes_max: u32,
}

/// Which arithmetic makes proofs; all make the same ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProverKind {
    /// The fastest that the processor can run.
    #[default]
    Auto,
    /// blst's, which runs everywhere.
    Blst,
    /// ark-groth16, for comparison.
    Ark,
}

impl ProverKind {
    /// The prover's name for it.
    #[must_use]
    pub fn path(self) -> ProverPath {
        match self {
            Self::Auto => ProverPath::detect(),
            Self::Blst => ProverPath::Blst,
            Self::Ark => ProverPath::Ark,
        }
    }
}

impl Default for ProvingConfig {
    fn default() -> Self {
        Self {
            keys_dir: PathBuf::from("keys"),
            storage: CircuitId::Storage(StorageShape::PRODUCTION),
            range_sums_at_once: 1,
            make_dev_keys: false,
            threads: None,
            proofs_at_once: NonZeroUsize::MIN,
            memory_mib: None,
            prover: ProverKind::Auto,
            pause_above_load: None,
            pause_minutes_max: 10,
        }
    }
}

impl ProvingConfig {
    /// What proofs may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let memory_bytes = self.memory_mib.map(|mib| mib.saturating_mul(1 << 20));
        Limits { threads: self.threads, at_once: self.proofs_at_once, memory_bytes }
    }

    /// The shape of the storage circuit.
    ///
    /// # Errors
    /// [`ConfigError::Value`] where `storage` names another statement.
    pub fn storage_shape(&self) -> Result<StorageShape, ConfigError> {
        match self.storage {
            CircuitId::Storage(shape) => Ok(shape),
            other => Err(ConfigError::Value { key: "proving.storage", why: format!("{other} is no storage circuit") }),
        }
    }
}

/// A JSON-RPC address: it may hold an access key, so it is printed without its path and user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RpcUrl(pub String);

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        write!(f, "{scheme}://{host}")
    }
}

/// The chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainConfig {
    /// JSON-RPC over HTTP.
    pub rpc_url: RpcUrl,
    /// The file that says where the contracts are, as written by `fluence_bindings::Deployment::write`.
    pub deployment: PathBuf,
    /// The operator's key file: 64 hex digits, mode 600. None: watches only.
    #[serde(default)]
    pub operator_key: Option<PathBuf>,
    /// Milliseconds between looks at the chain.
    #[serde(default = "poll_ms")]
    pub poll_ms: u64,
    /// Blocks from one certificate of a cluster on chain to the next, posted by its members in turn. None: this node posts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_blocks: Option<NonZeroU64>,
    /// Blocks that a member whose turn it is may take before the next one posts. The same in all members of a cluster.
    #[serde(default = "turn_blocks")]
    pub turn_blocks: u64,
    /// Shows evidence against members to the chain, and gets the accuser's share of what is slashed.
    #[serde(default = "accuse")]
    pub accuse: bool,
}

impl ChainConfig {
    /// A chain that is watched by an operator, everything else by default.
    #[must_use]
    pub fn new(rpc_url: RpcUrl, deployment: PathBuf, operator_key: Option<PathBuf>) -> Self {
        Self {
            rpc_url,
            deployment,
            operator_key,
            poll_ms: poll_ms(),
            checkpoint_blocks: None,
            turn_blocks: turn_blocks(),
            accuse: accuse(),
        }
    }
}

const fn turn_blocks() -> u64 {
    5
}

const fn accuse() -> bool {
    true
}

const fn poll_ms() -> u64 {
    2000
}

/// How an arbiter judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// Blocks after an epoch's start before what is missing or false is challenged.
    pub grace_blocks: u64,
    /// Milliseconds between two questions to a node that has not proven yet.
    pub ask_every_ms: u64,
    /// Where to find nodes.
    pub peers: Vec<PeerConfig>,
    /// Sends challenges. Off: watches and writes the ledger.
    pub challenge: bool,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self { grace_blocks: 50, ask_every_ms: 1000, peers: Vec::new(), challenge: true }
    }
}

/// A node and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// The node.
    pub node: NodeId,
    /// Its multiaddresses.
    pub addresses: Vec<String>,
}

/// Metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address of `/metrics` and `/healthz`, as `127.0.0.1:9090`; port 0 takes a free one; none: off.
    pub listen: Option<SocketAddr>,
}

/// A configuration that can be loaded.
pub trait Config: Default + Serialize + DeserializeOwned {
    /// Top-level keys: environment variables that begin with none of them are not ours.
    const KEYS: &'static [&'static str];

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    fn check(&self) -> Result<(), ConfigError>;

    /// Reads `file` (if any), the environment, and `overrides`: dotted keys with TOML values, as `("net.listen", ["/ip4/.."])`.
    ///
    /// # Errors
    /// [`ConfigError`].
    fn load(file: Option<&Path>, overrides: &[(&str, serde_json::Value)]) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            if !path.is_file() {
                return Err(ConfigError::NoFile(path.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let ours = |key: &figment::value::UncasedStr| {
            Self::KEYS.iter().any(|k| key == *k || key.as_str().to_ascii_lowercase().starts_with(&format!("{k}__")))
        };
        figment = figment.merge(Env::prefixed("FLUENCE_").filter(ours).split("__"));
        for (key, value) in overrides {
            figment = figment.merge(Serialized::default(key, value));
        }
        let config: Self = figment.extract().map_err(|e| ConfigError::Invalid(e.to_string()))?;
        config.check()?;
        Ok(config)
    }
}

fn check_common(data_dir: &Path, net: &NetConfig, proving: &ProvingConfig) -> Result<(), ConfigError> {
    let value = |key, why: &str| Err(ConfigError::Value { key, why: why.to_owned() });
    if data_dir.as_os_str().is_empty() {
        return value("data_dir", "must be given");
    }
    if net.requests_max == 0 || net.requests_per_peer_max == 0 || net.connections_max == 0 {
        return value("net", "limits must be at least 1");
    }
    if !(net.requests_per_second > 0.0 && net.requests_burst >= 1.0 && net.ban_score > 0.0) {
        return value("net", "rates and the ban score must be above 0");
    }
    if net.request_memory_bytes < fluence_wire::REQUEST_BYTES_MAX {
        return value("net.request_memory_bytes", "must hold the longest request, 4 MiB");
    }
    if proving.pause_above_load.is_some_and(|load| !(load.is_finite() && load > 0.0)) {
        return value("proving.pause_above_load", "must be above 0");
    }
    proving.storage_shape().map(|_| ())
}

impl Config for StorageConfig {
    const KEYS: &'static [&'static str] =
        &["data_dir", "identity", "net", "store", "cluster", "proving", "chain", "log", "metrics"];

    fn check(&self) -> Result<(), ConfigError> {
        check_common(&self.data_dir, &self.net, &self.proving)
    }
}

impl Config for ArbiterConfig {
    const KEYS: &'static [&'static str] =
        &["data_dir", "identity", "net", "arbiter", "proving", "chain", "log", "metrics"];

    fn check(&self) -> Result<(), ConfigError> {
        if self.chain.is_none() {
            return Err(ConfigError::Value {
                key: "chain",
                why: "must be given: an arbiter acts on a chain".to_owned(),
            });
        }
        check_common(&self.data_dir, &self.net, &self.proving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_sample_file_is_valid_and_says_the_defaults() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("fluence.sample.toml");
        let config = StorageConfig::load(Some(&sample), &[]).unwrap();
        assert_eq!(config.store, StoreConfig::default());
        assert_eq!(config.proving, ProvingConfig::default());
        assert_eq!(config.log, LogConfig::default());
        assert_eq!(NetConfig { listen: NetConfig::default().listen, ..config.net }, NetConfig::default());
    }

    #[test]
    fn overrides_win_over_the_file() {
        let file = file("data_dir = \"a\"\n[net]\nrequests_max = 7\nlisten = []\n");
        let overrides = [("data_dir", json!("b")), ("net.listen", json!(["/ip4/127.0.0.1/tcp/0"]))];
        let config = StorageConfig::load(Some(file.path()), &overrides).unwrap();
        assert_eq!(config.data_dir, Path::new("b"));
        assert_eq!(config.net.requests_max, 7);
        assert_eq!(config.net.listen.len(), 1);
    }

    #[test]
    fn rejects_unknown_keys_missing_files_and_values_out_of_range() {
        for text in [
            "data_dir = \"a\"\nport = 1\n",
            "data_dir = \"a\"\n[net]\nrequest_max = 1\n",
            "",
            "data_dir = \"a\"\n[net]\nrequests_max = 0\n",
            "data_dir = \"a\"\n[net]\nrequest_memory_bytes = 1\n",
            "data_dir = \"a\"\n[proving]\nstorage = \"range_sum/v1/s1-t7\"\n",
            "data_dir = \"a\"\n[proving]\npause_above_load = 0.0\n",
            "data_dir = \"a\"\n[proving]\npause_above_load = nan\n",
            "data_dir = \"a\"\n[proving]\nthreads = 0\n",
            "data_dir = \"a\"\n[chain]\nrpc_url = \"http://x\"\n",
        ] {
            assert!(StorageConfig::load(Some(file(text).path()), &[]).is_err(), "{text:?}");
        }
        assert!(matches!(StorageConfig::load(Some(Path::new("/nowhere.toml")), &[]), Err(ConfigError::NoFile(_))));
        assert!(ArbiterConfig::load(Some(file("data_dir = \"a\"\n").path()), &[]).is_err(), "an arbiter needs a chain");
    }

    #[test]
    fn times_of_a_cluster_stay_in_an_order_that_works() {
        for (idle_ms, quiet_ms, leader_ms, missing_ms) in
            [(0, 0, 0, 0), (1000, 4000, 2000, 600_000), (9000, 99_000, 50, 1)]
        {
            let timing =
                ClusterSettings { idle_ms, quiet_ms, leader_ms, missing_ms, ..ClusterSettings::default() }.timing();
            for quiet in [false, true] {
                let t = timing.of_epoch(quiet);
                let holds = if quiet { timing.quiet } else { timing.idle };
                assert!(holds < t.leader && t.leader < t.certification && t.certification < t.skip, "{t:?}");
                assert!(t.retry < t.skip && t.leader * 4 <= t.missing, "{t:?}");
            }
        }
        let given = ClusterSettings { missing_ms: 60_000, ..ClusterSettings::default() };
        assert_eq!(given.timing().missing.as_millis(), 60_000);
    }

    #[test]
    fn an_rpc_address_is_printed_without_its_key() {
        let url = RpcUrl("https://user:pw@mainnet.example.org:8545/v3/secret?x=y".to_owned());
        assert_eq!(format!("{url:?}"), "https://mainnet.example.org:8545");
    }
}
