//! `fluence node`, `fluence arbiter`, and the demo's lying node: configuration in, a process that runs until it is told to stop.

use crate::args::Service;
use crate::error::{Context, Failure, Help, Result};
use crate::output::Out;
use fluence_node::config::ConfigError;
use fluence_node::liar::Lie;
use fluence_node::{ArbiterConfig, CancellationToken, Config, NodeError, StorageConfig, telemetry};
use serde_json::{Value, json};
use std::io::Read;

pub(crate) async fn node(args: &Service, out: &Out) -> Result<()> {
    let config: StorageConfig = load(args)?;
    logs(&config.log)?;
    out.note(format!("storage node in {}", config.data_dir.display()));
    fluence_node::run_storage(config, shutdown(args.stop_with_stdin)).await.map_err(failure)
}

pub(crate) async fn arbiter(args: &Service, out: &Out) -> Result<()> {
    let config: ArbiterConfig = load(args)?;
    logs(&config.log)?;
    out.note(format!("arbiter in {}", config.data_dir.display()));
    fluence_node::run_arbiter(config, shutdown(args.stop_with_stdin)).await.map_err(failure)
}

pub(crate) async fn liar(args: &Service, out: &Out) -> Result<()> {
    let config: StorageConfig = load(args)?;
    logs(&config.log)?;
    out.warn("a lying node: it spoils the data it is given");
    let lie = Lie { spare_headers: true };
    fluence_node::liar::run(config, lie, shutdown(args.stop_with_stdin)).await.map_err(failure)
}

fn load<C: Config>(args: &Service) -> Result<C> {
    let mut flags: Vec<(&str, Value)> = Vec::new();
    if let Some(dir) = &args.data_dir {
        flags.push(("data_dir", json!(dir)));
    }
    if !args.listen.is_empty() {
        flags.push(("net.listen", json!(args.listen)));
    }
    if let Some(address) = &args.metrics {
        flags.push(("metrics.listen", json!(address)));
    }
    if let Some(dir) = &args.keys_dir {
        flags.push(("proving.keys_dir", json!(dir)));
    }
    C::load(args.config.as_deref(), &flags)
        .usage("the configuration cannot be used")
        .or_help("node/fluence.sample.toml shows every key with its default; flags win over the environment, the environment over the file")
}

fn logs(config: &telemetry::LogConfig) -> Result<()> {
    telemetry::init_logs(config)
        .map_err(|why| Failure::usage("the log filter cannot be used").because(why).help("as info,fluence_node=debug"))
}

/// Cancelled by SIGINT, SIGTERM and, where a parent asked for it, the end of standard input.
pub(crate) fn shutdown(stop_with_stdin: bool) -> CancellationToken {
    let token = fluence_node::shutdown_on_signal();
    if stop_with_stdin {
        let token = token.clone();
        // A thread, not a task: a blocking read must not hold the runtime up when the node stops by itself.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock().by_ref(), &mut std::io::sink());
            token.cancel();
        });
    }
    token
}

fn failure(error: NodeError) -> Failure {
    let help = match &error {
        NodeError::Config(ConfigError::NoFile(_)) => "check --config",
        NodeError::Config(_) => "node/fluence.sample.toml shows every key with its default",
        NodeError::DataDir(_) => "is another process running in this folder? else check that you may write to it",
        NodeError::Identity(_) => "key files hold 64 hex digits and are readable by their owner only (chmod 600)",
        NodeError::Net(_) => "choose another address with --listen; port 0 takes a free one",
        NodeError::Chain(_) => "check chain.rpc_url and chain.deployment; `fluence doctor` asks a chain",
        NodeError::Key(_) => {
            "proving.keys_dir needs the keys that the contract pins; on a local chain make_dev_keys = true makes them"
        }
        NodeError::StoreFailed | NodeError::Store(_) | NodeError::Engine(_) => {
            "the disk may be full or failing: what was acknowledged is on disk; docs/runbook.md says what to do"
        }
        _ => "the log above says more",
    };
    Failure::failed("the process stopped").because(error).help(help)
}
