//! `cluster` and `up`: the nodes that keep a database.

use super::{ChainPlace, Place, Unlock};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `cluster`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Cluster {
    /// Make a database kept by these nodes: a cluster of 3f + 1 goes on while f of them are missing or lie
    #[command(after_help = "\
Examples:
  fluence cluster create main --node /ip4/10.0.0.1/tcp/4401/p2p/12D3.. --node /ip4/10.0.0.2/tcp/4401/p2p/12D3.. \\
      --node /ip4/10.0.0.3/tcp/4401/p2p/12D3.. --node /ip4/10.0.0.4/tcp/4401/p2p/12D3..
  fluence import flights.csv --table flights --key time_hour,carrier,flight --db main
  fluence cluster create main --seats 4 --standbys 2 --rpc http://127.0.0.1:8545 --deployment deployment.json

With --seats the members are drawn on chain from the nodes that offer themselves there, of distinct operators, by the hash of a block that
is not there yet; the owner's account pays for two transactions. Interrupted, the same command goes on with the same draw.
Take 4 nodes of different operators, or 7. Clusters of 1, 2 and 3 work, and stop with the first node that is missing.")]
    Create(ClusterCreate),
    /// Show how the members stand: who is there, how far, who votes, what is still being fetched
    #[command(after_help = "\
Examples:
  fluence cluster status
  fluence cluster status --db main --watch           once a second, until ctrl-C
  fluence cluster status --watch --json | jq .height    one object a line

Exit code 1 where fewer members answer than a quorum.")]
    Status(ClusterStatus),
    /// List the members as the cluster's certificates name them, and tell each where the others are
    #[command(after_help = "\
Examples:
  fluence cluster members
  fluence cluster members --node /ip4/10.0.0.9/tcp/4401/p2p/12D3..     a member has another address now")]
    Members(ClusterPlace),
    /// Take another node into the cluster: it fetches everything, proves that it has it, and then votes
    #[command(after_help = "\
Examples:
  fluence cluster join /ip4/10.0.0.5/tcp/4401/p2p/12D3..
  fluence cluster join /ip4/10.0.0.5/tcp/4401/p2p/12D3.. --no-wait")]
    Join(ClusterJoin),
    /// Let a member go
    #[command(after_help = "Examples:\n  fluence cluster leave 5f2c91..\n  fluence cluster leave 12D3KooW..")]
    Leave(ClusterLeave),
    /// Take a node into the cluster in the place of a member
    #[command(after_help = "\
Examples:
  fluence cluster replace --out 5f2c91.. --with /ip4/10.0.0.5/tcp/4401/p2p/12D3..")]
    Replace(ClusterReplace),
    /// Name the nodes that take the place of members that are missing for long, without being asked again
    #[command(after_help = "\
Examples:
  fluence cluster standby /ip4/10.0.0.5/tcp/4401/p2p/12D3.. /ip4/10.0.0.6/tcp/4401/p2p/12D3..
  fluence cluster standby                 who waits now
  fluence cluster standby --clear")]
    Standby(ClusterStandby),
    /// Have the chain know the cluster by its present committee, so that its members post their certificates there
    #[command(after_help = "\
Examples:
  fluence cluster register --rpc http://127.0.0.1:8545 --deployment deployment.json

Once for a database, by its owner's account, which pays for the transaction. From then on the chain follows the committee by itself, from
certificate to certificate, and refuses every height below the last one.")]
    Register(ClusterRegister),
    /// Drop what was asked for by `join`, `leave` or `replace` and has not come true
    #[command(after_help = "Examples:\n  fluence cluster cancel")]
    Cancel(ClusterPlace),
}

/// `cluster create`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterCreate {
    /// Name of the database, as --db takes it from now on
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Address of a member, as /ip4/10.0.0.1/tcp/4401/p2p/ID; once for each
    #[arg(long, value_name = "ADDR", required_unless_present = "seats", conflicts_with = "seats")]
    pub(crate) node: Vec<String>,
    /// Members to draw on chain
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=31))]
    pub(crate) seats: Option<u8>,
    /// Nodes to draw beside them that wait for a seat
    #[arg(long, value_name = "N", default_value_t = 0, requires = "seats", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub(crate) standbys: u8,
    /// Where a drawn member does not answer, take the next one of the draw
    #[arg(long, requires = "seats")]
    pub(crate) skip_silent: bool,
    /// Seconds to wait for the block whose hash draws the members
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, requires = "seats", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) chain: ChainPlace,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `cluster register`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterRegister {
    #[command(flatten)]
    pub(crate) chain: ChainPlace,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `cluster members` and `cluster cancel`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterPlace {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `cluster status`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterStatus {
    /// Again every second, until ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) chain: ChainPlace,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// Whether to wait for a change.
#[derive(Args, Debug, Clone)]
pub(crate) struct Wait {
    /// Do not wait until the change is certified
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Seconds to wait; the change goes on after that
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

/// `cluster join`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterJoin {
    /// Address of the newcomer
    #[arg(value_name = "ADDR")]
    pub(crate) newcomer: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `cluster leave`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterLeave {
    /// The member: its id or the first digits of it, its peer id, or its address
    #[arg(value_name = "NODE")]
    pub(crate) member: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `cluster replace`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterReplace {
    /// The member that goes: its id or the first digits of it, its peer id, or its address
    #[arg(long, value_name = "NODE")]
    pub(crate) out: String,
    /// Address of the node that comes
    #[arg(long, value_name = "ADDR")]
    pub(crate) with: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `cluster standby`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterStandby {
    /// Addresses of the nodes, in order of preference; they replace the list that was
    #[arg(value_name = "ADDR")]
    pub(crate) nodes: Vec<String>,
    /// Nobody waits any more
    #[arg(long, conflicts_with = "nodes")]
    pub(crate) clear: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `up`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence up                              four nodes, their data in ./fluence-up
  fluence up -n 7 --dir /tmp/cluster
  fluence up --json                       one object when all are ready

Each node is a process of its own, on a free port of the loopback interface. Run again with the same --dir, they come back with the same
identities, ports and data. Without --home the owner's home is made in --dir, with a passphrase in a file: for trials, not for keys that
matter. The nodes end with this command: by ctrl-C, or however else it ends.")]
pub(crate) struct Up {
    /// Nodes; 4 bear the loss of one, 7 of two [default: 4, or as many as there are in DIR]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=31))]
    pub(crate) nodes: Option<u8>,
    /// Where the nodes keep everything
    #[arg(long, value_name = "DIR", default_value = "fluence-up")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// Stop when standard input closes, so that a parent's death stops the cluster
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}
