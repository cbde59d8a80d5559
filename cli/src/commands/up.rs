//! `fluence up`: nodes of a cluster as processes on this machine, until the command ends.
//!
//! ```text
//! DIR/node-1/         node.toml (ports stay what they were), data/, node.log
//! DIR/keys/           proving keys, made when a node first needs them (or in $FLUENCE_KEYS)
//! DIR/home/           the owner's home, with its passphrase in DIR/passphrase, where no other home is named
//! ```
//! Rule    no process outlives the command. One that ends by itself stays down, so that a cluster with a missing member can be looked at.

use crate::args::{Unlock, Up};
use crate::commands::{keys, service};
use crate::error::{Context, Failure, Help, Result};
use crate::home::{Home, private_dir, private_file};
use crate::output::Out;
use crate::processes::{self, Child};
use fluence_client::Transport;
use fluence_client::dial::{DialOptions, Dialer};
use fluence_node::config::{MetricsConfig, ProvingConfig, StorageConfig};
use fluence_node::identity;
use fluence_node::net::NetConfig;
use fluence_node::telemetry::LogConfig;
use fluence_types::NodeId;
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_wire::message::Status;
use fluence_wire::{Request, Response};
use rand::RngCore;
use rand::rngs::OsRng;
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nodes of a new cluster.
const NODES: usize = 4;
/// The most, as `-n` takes them.
const NODES_MAX: usize = 31;
/// Between two looks at the nodes.
const EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to say how it stands.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// Marks a folder that this command made.
pub(crate) const MARK: &str = ".fluence-up";

pub(crate) async fn run(args: &Up, home_is_named: bool, home: &Home, out: &Out) -> Result<()> {
    let stop = service::shutdown(args.stop_with_stdin);
    let (dir, _lock) = open_dir(&args.dir)?;
    let home = match home_is_named {
        true => home.clone(),
        false => Home::locate(Some(&dir.join("home")))?,
    };
    let passphrase = owner(&home, home_is_named.then_some(&args.unlock), &dir, out)?;
    let there = (1..=NODES_MAX).take_while(|i| node_dir(&dir, *i).join("node.toml").is_file()).count();
    let count = args.nodes.map_or(if there > 0 { there } else { NODES }, usize::from);
    if count < there {
        out.note(format!("{} nodes of {there} start; the others stay down", count));
    }
    let keys_dir = std::env::var_os("FLUENCE_KEYS").filter(|v| !v.is_empty()).map_or(dir.join("keys"), PathBuf::from);
    let mut nodes = (1..=count).map(|i| Node::prepare(&dir, i, &keys_dir)).collect::<Result<Vec<_>>>()?;

    let bar = out.progress("starting the nodes", "", 0);
    let started = tokio::select! {
        started = start(&mut nodes) => started,
        () = stop.cancelled() => Err(Failure::failed("interrupted")),
    };
    bar.done();
    started?;
    let usage = Usage { home: &home, passphrase: passphrase.as_deref(), nodes: &nodes };
    out.json_line(&usage.json(&dir));
    let lines = usage.lines(out)?;
    let outcome = watch(&mut nodes, &lines, &stop, out).await;
    out.note("stopping the nodes");
    // Waiting for processes is a blocking act; they stop beside each other.
    let stopping =
        nodes.into_iter().filter_map(|n| n.child).map(|mut child| tokio::task::spawn_blocking(move || child.stop()));
    for stopped in stopping.collect::<Vec<_>>() {
        stopped.await.expect("stopping a child does not panic");
    }
    outcome
}

fn node_dir(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("node-{i}"))
}

/// The folder, whole, held by this process alone.
fn open_dir(dir: &Path) -> Result<(PathBuf, File)> {
    let mark = dir.join(MARK);
    let occupied = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !mark.exists() {
        return Err(Failure::usage(format!("{} holds something else", dir.display()))
            .help("name another folder with --dir DIR: a new one, or one that `fluence up` made"));
    }
    private_dir(dir)?;
    let lock = File::options().create(true).truncate(false).write(true).open(&mark);
    let lock = lock.doing(format!("cannot write {}", mark.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Failure::failed(format!("another `fluence up` runs in {}", dir.display()))
                .help("stop it, or name another folder with --dir DIR"));
        }
        Err(TryLockError::Error(e)) => return Err(e).doing(format!("cannot lock {}", mark.display())),
    }
    // Children have other working directories in mind than ours: paths in their configuration are whole.
    let dir = dir.canonicalize().doing(format!("cannot find {}", dir.display()))?;
    Ok((dir, lock))
}

/// Makes the owner's keystore where there is none. In a home of its own its passphrase goes into a file, which is returned.
fn owner(home: &Home, unlock: Option<&Unlock>, dir: &Path, out: &Out) -> Result<Option<PathBuf>> {
    if let Some(unlock) = unlock {
        let can_ask = unlock.passphrase_file.is_some() || std::io::IsTerminal::is_terminal(&std::io::stdin());
        if !home.keystore().exists() {
            if !can_ask {
                out.note(format!("{} has no keystore yet: `fluence keys new` makes it", home.dir().display()));
                return Ok(None);
            }
            home.create()?;
            keys::create(home, unlock)?;
        }
        return Ok(None);
    }
    let path = dir.join("passphrase");
    if !home.keystore().exists() {
        home.create()?;
        if !path.exists() {
            let mut secret = [0; 16];
            OsRng.fill_bytes(&mut secret);
            private_file(&path, format!("{}\n", hex::encode(secret)).as_bytes())?;
        }
        keys::create(home, &Unlock { passphrase_file: Some(path.clone()) })?;
    }
    Ok(Some(path))
}

/// A node that this command runs.
struct Node {
    name: String,
    id: NodeId,
    config: StorageConfig,
    config_path: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    address: String,
    /// Why it is down.
    ended: Option<String>,
}

impl Node {
    /// Writes its configuration, or takes the port that an earlier run wrote into it.
    fn prepare(dir: &Path, i: usize, keys_dir: &Path) -> Result<Self> {
        let own = node_dir(dir, i);
        private_dir(&own)?;
        let (config_path, data_dir) = (own.join("node.toml"), own.join("data"));
        let id = identity::load_or_create(&data_dir.join("identity.key")).doing("cannot make a node's key")?.id();
        let before = match std::fs::read_to_string(&config_path) {
            Ok(text) => toml::from_str(&text)
                .usage(format!("{} is not valid", config_path.display()))
                .or_help("correct it, or remove it: then the node takes another port")?,
            Err(_) => StorageConfig {
                net: NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..NetConfig::default() },
                proving: ProvingConfig {
                    storage: CircuitId::Storage(StorageShape::LOCAL),
                    make_dev_keys: true,
                    ..ProvingConfig::default()
                },
                metrics: MetricsConfig { listen: Some(([127, 0, 0, 1], 0).into()) },
                log: LogConfig {
                    filter: "info,libp2p=warn,fjall=warn,lsm_tree=warn,commonware=warn,simplex=warn,marshal=warn"
                        .to_owned(),
                    ..LogConfig::default()
                },
                ..StorageConfig::default()
            },
        };
        // The folder may have been moved since.
        let proving = ProvingConfig { keys_dir: keys_dir.to_owned(), ..before.proving.clone() };
        let config = StorageConfig { data_dir, proving, ..before };
        let (name, log) = (format!("node-{i}"), own.join("node.log"));
        Ok(Self { name, id, config, config_path, log, child: None, address: String::new(), ended: None })
    }

    fn spawn(&mut self) -> Result<()> {
        processes::write_toml(&self.config_path, &self.config)?;
        let command = processes::service("node", &self.config_path)?;
        self.child = Some(Child::start(&self.name, command, &self.log, true)?);
        Ok(())
    }

    /// Waits until it listens; the port is its own from now on.
    async fn ready(&mut self) -> Result<()> {
        let child = self.child.as_mut().expect("spawned before");
        let run = processes::await_run_file(child, &self.config.data_dir).await;
        let run = run.or_help("is its port taken by another program? The port stands in node.toml, in its folder")?;
        let address = run.listen.first().ok_or_else(|| Failure::failed(format!("{} listens nowhere", self.name)))?;
        self.config.net.listen = vec![address.split("/p2p/").next().unwrap_or(address).to_owned()];
        self.address = address.clone();
        processes::write_toml(&self.config_path, &self.config)
    }

    /// Whether it has ended since the last look.
    fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        match child.check() {
            Ok(()) => false,
            Err(failure) => {
                self.ended = Some(failure.what().trim_start_matches(&self.name).trim().to_owned());
                self.child = None;
                true
            }
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "node": self.id, "address": self.address, "pid": self.child.as_ref().map(Child::pid),
            "log": self.log, "config": self.config_path, "ended": self.ended,
        })
    }
}

async fn start(nodes: &mut [Node]) -> Result<()> {
    nodes.iter_mut().try_for_each(Node::spawn)?;
    for node in nodes {
        node.ready().await?;
    }
    Ok(())
}

/// What to do with a cluster that runs.
struct Usage<'a> {
    home: &'a Home,
    passphrase: Option<&'a Path>,
    nodes: &'a [Node],
}

impl Usage<'_> {
    fn json(&self, dir: &Path) -> Value {
        json!({
            "dir": dir, "home": self.home.dir(), "passphrase_file": self.passphrase,
            "nodes": self.nodes.iter().map(Node::json).collect::<Vec<_>>(),
        })
    }

    fn lines(&self, out: &Out) -> Result<Vec<String>> {
        let mut lines = vec![out.bold(&format!("{} nodes run on this machine", self.nodes.len())), String::new()];
        if let Some(passphrase) = self.passphrase {
            lines.push(format!("  export FLUENCE_HOME={}", quoted(self.home.dir())));
            lines.push(format!("  export FLUENCE_PASSPHRASE_FILE={}", quoted(passphrase)));
        }
        let config = self.home.config()?;
        let made = config.databases.iter().find(|(_, d)| d.id.is_some()).map(|(name, _)| name.clone());
        let name = made.clone().unwrap_or_else(|| "main".to_owned());
        if made.is_none() {
            lines.push(format!("  fluence cluster create {name} \\"));
            let last = self.nodes.len() - 1;
            lines.extend(
                self.nodes
                    .iter()
                    .enumerate()
                    .map(|(i, n)| format!("      --node {}{}", n.address, if i < last { " \\" } else { "" })),
            );
        }
        lines.push(format!("  fluence import FILE.csv --table NAME --key COLS --db {name}"));
        lines.push(format!("  fluence cluster status --db {name} --watch"));
        lines.push(String::new());
        Ok(lines)
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Shows how the nodes stand until it is told to stop, or none runs any more.
async fn watch(nodes: &mut [Node], usage: &[String], stop: &fluence_node::CancellationToken, out: &Out) -> Result<()> {
    let dialer = Dialer::start(DialOptions { request_timeout: ASK_LIMIT, ..DialOptions::default() });
    let dialer = dialer.doing("cannot start the network")?;
    for node in nodes.iter() {
        dialer.add_address(&node.id, &node.address).doing(format!("{} has a strange address", node.name))?;
    }
    if !out.is_live() {
        usage.iter().for_each(|line| out.line(line));
        out.line("They stop with this command: ctrl-C.");
    }
    loop {
        for node in nodes.iter_mut() {
            if node.has_ended() {
                out.json_line(&json!({ "event": "ended", "node": node.json() }));
                if !out.is_live() {
                    out.warn(format!("{}: {}", node.name, node.ended.as_deref().unwrap_or("it ended")));
                    out.note(format!("start it again by itself: fluence node --config {}", quoted(&node.config_path)));
                }
            }
        }
        if nodes.iter().all(|n| n.child.is_none()) {
            return Err(Failure::failed("all nodes have ended").help("their logs say why: node-*/node.log"));
        }
        if out.is_live() {
            let mut rows = Vec::with_capacity(nodes.len());
            for node in nodes.iter() {
                rows.push(row(node, asked(&dialer, node).await.as_ref(), out));
            }
            out.clear();
            usage.iter().for_each(|line| out.line(line));
            out.table(&["node", "process", "databases", "height", "hears", "segments", "lost pages"], rows);
            out.line("");
            out.line(out.dim("They stop with this command: ctrl-C."));
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn asked(dialer: &Dialer, node: &Node) -> Option<Status> {
    node.child.as_ref()?;
    match tokio::time::timeout(ASK_LIMIT, dialer.request(&node.id, Request::Status)).await {
        Ok(Ok(Response::Status(status))) => Some(status),
        _ => None,
    }
}

fn row(node: &Node, status: Option<&Status>, out: &Out) -> Vec<String> {
    let process = match (&node.child, &node.ended) {
        (Some(child), _) => out.green(&format!("runs, {}", child.pid())),
        (None, why) => out.red(why.as_deref().unwrap_or("down")),
    };
    let Some(status) = status else {
        let mut cells = vec![node.name.clone(), process];
        cells.resize(7, "-".to_owned());
        return cells;
    };
    let heights: Vec<String> = status.databases.iter().map(|d| d.height.to_string()).collect();
    let hears: Vec<String> =
        status.databases.iter().map(|d| format!("{}/{}", d.peers, d.members.len().saturating_sub(1))).collect();
    let or_dash = |list: Vec<String>| if list.is_empty() { "-".to_owned() } else { list.join(" ") };
    vec![
        node.name.clone(),
        process,
        status.databases.len().to_string(),
        or_dash(heights),
        or_dash(hears),
        status.databases.iter().map(|d| d.segments).sum::<u64>().to_string(),
        status.databases.iter().map(|d| d.lost_pages).sum::<u64>().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_and_one_in_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("up");
        let first = open_dir(&own).unwrap();
        assert!(open_dir(&own).unwrap_err().one_line().contains("another `fluence up`"));
        drop(first);
        assert!(open_dir(&own).is_ok());
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("thesis.txt"), "").unwrap();
        assert!(open_dir(&other).unwrap_err().one_line().contains("something else"));
    }

    #[test]
    fn paths_are_printed_as_a_shell_takes_them() {
        assert_eq!(quoted(Path::new("/a/b-1.c")), "/a/b-1.c");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
