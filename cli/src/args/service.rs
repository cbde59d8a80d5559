//! `node`, `arbiter` and `operator`: who runs nodes.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `node` and `arbiter`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence node --config node.toml
  fluence node --data-dir ./node1 --listen /ip4/127.0.0.1/tcp/4401
  fluence arbiter --config arbiter.toml

node/fluence.sample.toml shows every key. The environment sets them too, as FLUENCE_NET__LISTEN='[\"/ip4/0.0.0.0/tcp/4401\"]'. Stops gracefully on ctrl-C and SIGTERM;
a restart resumes where it was.")]
pub(crate) struct Service {
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address to listen on, as /ip4/0.0.0.0/tcp/4401; may be given more than once
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<String>,
    /// Address of /metrics and /healthz, as 127.0.0.1:9090
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,
    /// Folder of proving keys
    #[arg(long, value_name = "DIR")]
    pub(crate) keys_dir: Option<PathBuf>,
    /// Stop when standard input closes, so that a parent's death stops the child
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

/// `operator`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Operator {
    /// Register a node with its address and vote key, deposit collateral, and offer it to owners; what is done already is left alone
    #[command(after_help = "\
Examples:
  fluence operator join --config node.toml --address /ip4/203.0.113.7/tcp/4401 --deposit 1000
  fluence operator join --config node.toml --address /ip4/203.0.113.7/tcp/4402      it has moved

The node's configuration names its identity, the chain, and the operator's key file; the operator's account pays, and holds the FLU.")]
    Join(OperatorJoin),
    /// Take a node off the list of those that are drawn; it keeps the databases it has
    #[command(after_help = "Examples:\n  fluence operator leave --config node.toml")]
    Leave(OperatorPlace),
    /// Show what the chain knows of a node
    #[command(after_help = "Examples:\n  fluence operator status --config node.toml")]
    Status(OperatorPlace),
}

/// Which node.
#[derive(Args, Debug, Clone)]
pub(crate) struct OperatorPlace {
    /// The node's configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// `operator join`.
#[derive(Args, Debug, Clone)]
pub(crate) struct OperatorJoin {
    #[command(flatten)]
    pub(crate) place: OperatorPlace,
    /// Where the node is reached from outside, as /ip4/203.0.113.7/tcp/4401 [default: as it is registered]
    #[arg(long, value_name = "ADDR")]
    pub(crate) address: Option<String>,
    /// FLU to add to the node's free collateral
    #[arg(long, value_name = "FLU", default_value_t = 0)]
    pub(crate) deposit: u64,
    /// Do not offer it to owners
    #[arg(long)]
    pub(crate) no_announce: bool,
}
