//! The command line: every command, flag, default and example; a file for each group of commands. `docs/cli.md` is generated from these
//! definitions.
//!
//! Rule    no secret is an argument: passphrases and phrases come from a file, an environment variable naming a file, or a prompt.

mod ceremony;
mod cluster;
mod data;
mod demo;
mod keys;
mod proofs;
mod service;
mod sql;

pub(crate) use ceremony::{
    Ceremony, CeremonyBeacon, CeremonyContribute, CeremonyFinalize, CeremonyImport, CeremonyNew, CeremonyVerify,
    Phase1, Text,
};
pub(crate) use cluster::{
    Cluster, ClusterCreate, ClusterJoin, ClusterLeave, ClusterPlace, ClusterRegister, ClusterReplace, ClusterStandby,
    ClusterStatus, Up, Wait,
};
pub(crate) use data::{Export, Import, Query, Table, TableName, TablePlace, VerifyExport};
pub(crate) use demo::{Damage, Demo};
pub(crate) use keys::{Init, Keys, KeysBackup, KeysNew, KeysRestore};
pub(crate) use proofs::{Format, Proofs, Verify};
pub(crate) use service::{Operator, OperatorJoin, OperatorPlace, Service};
#[cfg(feature = "sql")]
pub(crate) use sql::RowFormat;
pub(crate) use sql::Sql;

use clap::{Args, Parser, Subcommand};
use fluence_types::DatabaseId;
use std::path::PathBuf;

const TOP_EXAMPLES: &str = "\
Examples:
  fluence demo                              the whole system on this machine, in under five minutes
  fluence init && fluence keys backup       a home with a root key, and its recovery phrase to write down
  fluence up                                four nodes on this machine, to try a cluster with
  fluence import flights.csv --table flights --key time_hour,carrier,flight --null NA --sum distance
  fluence query flights --agg count --agg avg:distance
  fluence export flights --out flights.parquet --verify
  fluence sql -c 'SELECT carrier, count(*) FROM flights GROUP BY carrier'
  fluence verify proof.json --vkey key.json

Exit codes:
  0 done   1 something failed   2 wrong usage   3 a proof or an answer was refused

Environment:
  FLUENCE_HOME, FLUENCE_PASSPHRASE_FILE, FLUENCE_KEYS (proving keys), FLUENCE_ANVIL, RUST_LOG (log filter), NO_COLOR";

/// A database whose nodes hold sealed data they cannot read, prove every answer, and prove every hour that they still have it.
#[derive(Parser, Debug)]
#[command(name = "fluence", version, propagate_version = true, after_help = TOP_EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Args, Debug, Clone)]
pub(crate) struct Global {
    /// Where keys, configuration, caches and proofs are kept [default: ~/.fluence]
    #[arg(long, global = true, env = "FLUENCE_HOME", value_name = "DIR", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// Print one JSON value on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the whole system on this machine: seal, store, query with proof, prove storage, catch and slash a cheat
    Demo(Demo),
    /// Make a home: configuration, folders, and a keystore if there is none
    Init(Init),
    /// Make, back up and restore the root key
    #[command(subcommand)]
    Keys(Keys),
    /// Seal the rows of a file on this machine and store them with the nodes
    Import(Import),
    /// Ask for rows or aggregates over a key range, and verify the answer
    Query(Query),
    /// Write a table's rows to a file, and what they came from to a manifest
    Export(Export),
    /// Check an exported file and its manifest: without the cluster, or with the owner's keys
    VerifyExport(VerifyExport),
    /// List tables, show how one stands, merge its segments
    #[command(subcommand)]
    Table(Table),
    /// Use a database with SQL: a shell here, or a server for psql and other Postgres clients
    Sql(Sql),
    /// Make and change the cluster of nodes that keeps a database, and see how it stands
    #[command(subcommand)]
    Cluster(Cluster),
    /// Run a local cluster of nodes on this machine, until ctrl-C
    Up(Up),
    /// Run a storage node
    Node(Service),
    /// Put a node on chain, by its operator: register it, stake, offer it to owners, take it off the list
    #[command(subcommand)]
    Operator(Operator),
    /// Run an arbiter: audits nodes, and challenges on chain what is missing or false
    Arbiter(Service),
    /// Verify a proof file, with a key that does not come from the file
    Verify(Verify),
    /// List, show and export proof files
    #[command(subcommand)]
    Proofs(Proofs),
    /// Make a proving key together with others, so that nobody need be trusted; or take part, or check
    #[command(subcommand)]
    Ceremony(Ceremony),
    /// Check this machine, the home, the nodes and the chain, with advice
    Doctor(Doctor),
    /// Print the reference page of every command, as Markdown
    #[command(hide = true)]
    MarkdownHelp,
    /// A node that lies: serves damaged pages with their checksums redone. For the demo and tests only
    #[command(hide = true)]
    DemoLiar(Service),
}

/// How to unlock the keystore.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Unlock {
    /// File whose first line is the keystore's passphrase; without it, you are asked
    #[arg(long, env = "FLUENCE_PASSPHRASE_FILE", value_name = "FILE", hide_env_values = true)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Which database, and who keeps it.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Place {
    /// Database, by its name in the configuration
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub(crate) db: String,
    /// Another owner's database, by its id: its public columns are read, and --db is its name here from now on
    #[arg(long, value_name = "ID")]
    pub(crate) db_id: Option<DatabaseId>,
    /// Address of a node that keeps it, as /ip4/127.0.0.1/tcp/4401/p2p/ID; remembered in the configuration; once for each member
    #[arg(long, value_name = "ADDR")]
    pub(crate) node: Vec<String>,
}

/// Which chain, and where the contracts are.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct ChainPlace {
    /// JSON-RPC address of the chain [default: chain.rpc in config.toml]
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: Option<String>,
    /// File that says where the contracts are [default: chain.deployment in config.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) deployment: Option<PathBuf>,
}

/// `doctor`.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Examples:\n  fluence doctor\n  fluence doctor --json | jq '.checks[] | select(.state != \"ok\")'"
)]
pub(crate) struct Doctor {
    /// Seconds to wait for a node or the chain
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) timeout: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret_by_value() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str();
                let secret =
                    ["passphrase", "password", "phrase", "secret", "mnemonic"].iter().any(|s| name.contains(s));
                assert!(
                    !secret || name.ends_with("_file") || name.ends_with("_out"),
                    "{} --{name}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
