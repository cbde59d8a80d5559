//! The command line: every command, flag, default and example. `docs/cli.md` is generated from these definitions.
//!
//! Rule    no secret is an argument: passphrases and phrases come from a file, an environment variable naming a file, or a prompt.

use clap::{Args, Parser, Subcommand, ValueEnum};
use fluence_types::shape::CircuitId;
use std::path::PathBuf;

const TOP_EXAMPLES: &str = "\
Examples:
  fluence demo                              the whole system on this machine, in under five minutes
  fluence init && fluence keys new          a home, and a root key with its recovery phrase
  fluence up                                four nodes on this machine, to try a cluster with
  fluence import flights.csv --table flights --key time_hour,carrier,flight --null NA --sum distance
  fluence query flights --agg count --agg avg:distance
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
    /// Seal a CSV file on this machine and store it with a node
    Import(Import),
    /// Ask for rows or aggregates over a key range, and verify the answer
    Query(Query),
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

/// What breaks in the demo.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// Bytes of one node's stored pages are overwritten from outside
    Pages,
    /// Nothing; nobody is slashed
    None,
}

/// `demo`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence demo                      the story, non-interactive; exit code 0 if every step held
  DEMO_SEED=7 fluence demo          another node is damaged
  fluence demo --damage none        nobody is slashed
  fluence demo --keep               leaves chain, nodes and arbiter running until ctrl-C

Writes report.json and the proof files to --out. Needs anvil (npm @foundry-rs/anvil), python3, and the flights
(tests/demo/fetch_flights.py gets them).")]
pub(crate) struct Demo {
    /// Chooses the damaged node and its pages
    #[arg(long, env = "DEMO_SEED", default_value_t = 2013)]
    pub(crate) seed: u64,
    /// What breaks
    #[arg(long, env = "DAMAGE", value_enum, default_value_t = Damage::Pages)]
    pub(crate) damage: Damage,
    /// Leave everything running at the end, until ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// The flights [default: .cache/flights/flights.csv in the repository]
    #[arg(long, env = "FLIGHTS_CSV", value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Where report, proofs and logs go [default: target/demo in the repository]
    #[arg(long, env = "FLUENCE_DEMO_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Epochs in which all nodes prove
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), hide = true)]
    pub(crate) epochs: u32,
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

/// `init`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence init
  fluence init --node /ip4/127.0.0.1/tcp/4401/p2p/12D3KooW...
  fluence init --no-keystore --home ./scratch")]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) place: Place,
    /// JSON-RPC address of the chain
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: Option<String>,
    /// Address of the EpochProofs contract
    #[arg(long, value_name = "ADDR")]
    pub(crate) contract: Option<String>,
    /// File that says where all contracts are
    #[arg(long, value_name = "FILE")]
    pub(crate) deployment: Option<PathBuf>,
    /// Make no keystore; `fluence keys new` or `keys restore` makes it later
    #[arg(long)]
    pub(crate) no_keystore: bool,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `keys`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Keys {
    /// Make a root key, encrypted in the home's keystore, and print its recovery phrase once
    #[command(after_help = "\
Examples:
  fluence keys new
  fluence keys new --passphrase-file ~/.secret/fluence --phrase-out /media/usb/phrase.txt")]
    New(KeysNew),
    /// Print the recovery phrase again
    #[command(after_help = "\
Examples:
  fluence keys backup                         asks for the passphrase, prints the phrase
  fluence keys backup --phrase-out phrase.txt     a file that only you can read")]
    Backup(KeysBackup),
    /// Make the keystore from a recovery phrase
    #[command(after_help = "\
Examples:
  fluence keys restore                        asks for the phrase and a new passphrase
  fluence keys restore --phrase-file phrase.txt --passphrase-file ~/.secret/fluence")]
    Restore(KeysRestore),
}

/// `keys new`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KeysNew {
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// Write the recovery phrase to a new file (mode 0600) rather than to the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) phrase_out: Option<PathBuf>,
}

/// `keys backup`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KeysBackup {
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// Write the recovery phrase to a new file (mode 0600) rather than to the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) phrase_out: Option<PathBuf>,
}

/// `keys restore`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KeysRestore {
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// File with the recovery phrase; `-` reads standard input; without it, you are asked
    #[arg(long, value_name = "FILE")]
    pub(crate) phrase_file: Option<PathBuf>,
}

/// `import`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence import flights.csv --table flights --key time_hour,carrier,flight --null NA \\
      --sum distance,arr_delay,arr_delay*arr_delay --types time_hour=timestamp
  fluence import prices.csv --table prices --key day --types day=date,price=decimal(12,4) --sum price

Types are inferred from the file (int64, float64, timestamp, date, bool, text); --types overrides.
Sums answer COUNT, SUM, AVG and VAR without reading rows; a square (`x*x`) is what VAR needs.
Run it again after an interruption: what is stored already is not stored twice.")]
pub(crate) struct Import {
    /// CSV file with a header line
    pub(crate) file: PathBuf,
    /// Table; made if there is none of that name
    #[arg(long, value_name = "NAME")]
    pub(crate) table: String,
    /// Sort key: columns that together are unique
    #[arg(long, value_name = "COLS", value_delimiter = ',', required = true)]
    pub(crate) key: Vec<String>,
    /// Text that stands for NULL
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) null: String,
    /// Columns, or products of two columns, to keep running sums of
    #[arg(long, value_name = "EXPRS", value_delimiter = ',')]
    pub(crate) sum: Vec<String>,
    /// Column types, as `price=decimal(12,4)`: int64, float64, decimal(P,S), text, bool, timestamp, date, bytes
    #[arg(long, value_name = "COL=TYPE")]
    pub(crate) types: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `query`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence query flights --where-prefix 2013-02-08T22:00:00Z --select carrier,flight,dest,arr_delay --limit 20
  fluence query flights --from 2013-07-01T00:00:00Z --to 2013-08-01T00:00:00Z --agg count --agg avg:arr_delay
  fluence query flights --agg sum:distance --prove --vkey range_sum.vkey.json     also a Groth16 proof, kept in a file

A key is the values of the first key columns, separated by commas: rows from --from on, and before --to.
With a chain named, by flags or in config.toml, answers below the height of its checkpoint are refused.")]
pub(crate) struct Query {
    /// Table
    pub(crate) table: String,
    /// First key, included
    #[arg(long, value_name = "KEY", conflicts_with = "where_prefix")]
    pub(crate) from: Option<String>,
    /// Last key, not included
    #[arg(long, value_name = "KEY", conflicts_with = "where_prefix")]
    pub(crate) to: Option<String>,
    /// All rows whose key begins with these values
    #[arg(long, value_name = "KEY")]
    pub(crate) where_prefix: Option<String>,
    /// Columns, in the order wanted [default: all]
    #[arg(long, value_name = "COLS", value_delimiter = ',', conflicts_with = "agg")]
    pub(crate) select: Vec<String>,
    /// Most rows to return
    #[arg(long, value_name = "N", conflicts_with = "agg")]
    pub(crate) limit: Option<u64>,
    /// count, sum:COL, avg:COL, var:COL, min:COL or max:COL; may be given more than once
    #[arg(long, value_name = "AGG")]
    pub(crate) agg: Vec<String>,
    /// Ask the node for a Groth16 proof of each sum, verify it, and keep it in the home's proofs folder
    #[arg(long, requires = "agg")]
    pub(crate) prove: bool,
    /// File with the verification key that proofs must be under [default: the home's vkeys folder]
    #[arg(long, value_name = "FILE", requires = "prove")]
    pub(crate) vkey: Option<PathBuf>,
    /// Where to write the proof file, if there is one aggregate [default: the home's proofs folder]
    #[arg(long, value_name = "FILE", requires = "prove")]
    pub(crate) proof_out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) chain: ChainPlace,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `sql`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence sql                                             a shell: statements end with a semicolon, \\? tells the rest
  fluence sql -c 'SELECT count(*) FROM flights'           one statement, and out
  fluence sql -f schema.sql --format csv
  fluence sql --listen 127.0.0.1:5433                     a server; psql and drivers connect as they do to Postgres

The server's user has a password: the first line of --password-file, or one that is made and kept in the home's pgpass file, which
psql reads: psql 'host=127.0.0.1 port=5433 user=fluence dbname=main passfile=HOME/pgpass'. Off loopback, give a certificate.")]
pub(crate) struct Sql {
    /// Serve Postgres clients at this address instead; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["command", "file"])]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// The server's user
    #[arg(long, value_name = "NAME", default_value = "fluence", requires = "listen")]
    pub(crate) user: String,
    /// File whose first line is the user's password [default: one is made, in the home's pgpass file]
    #[arg(long, env = "FLUENCE_SQL_PASSWORD_FILE", value_name = "FILE", hide_env_values = true, requires = "listen")]
    pub(crate) password_file: Option<PathBuf>,
    /// Certificate chain of the server, PEM
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve clients that do not encrypt, off loopback or with a certificate
    #[arg(long, requires = "listen")]
    pub(crate) allow_plaintext: bool,
    /// Most sessions at once
    #[arg(long, value_name = "N", default_value_t = 100, requires = "listen")]
    pub(crate) sessions_max: usize,
    /// Stop when standard input ends, as a child of another program does
    #[arg(long, hide = true, requires = "listen")]
    pub(crate) stop_with_stdin: bool,
    /// Run these statements, and out; may be given more than once
    #[arg(short, long, value_name = "SQL")]
    pub(crate) command: Vec<String>,
    /// Run the statements of a file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = RowFormat::Table, conflicts_with = "listen")]
    pub(crate) format: RowFormat,
    #[command(flatten)]
    pub(crate) chain: ChainPlace,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// How `sql` writes rows.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RowFormat {
    /// Columns for people.
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// One object a row, one row a line.
    Json,
}

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

/// `verify`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence verify proof.json --vkey storage.vk.hex
  fluence verify proof.json --rpc http://127.0.0.1:8545 --contract 0x5FbD...

The key inside a proof file is never trusted: it comes from this binary's table, from --vkey, or from the contract.
Exit code 3 if the proof is refused.")]
pub(crate) struct Verify {
    /// Proof file
    pub(crate) file: PathBuf,
    /// File with the verification key you trust (fluence-vkey/1, as key caches write it)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rpc", "contract"])]
    pub(crate) vkey: Option<PathBuf>,
    /// JSON-RPC address of the chain whose contract pins the key
    #[arg(long, value_name = "URL", requires = "contract")]
    pub(crate) rpc: Option<String>,
    /// Address of the contract that pins the key
    #[arg(long, value_name = "ADDR", requires = "rpc")]
    pub(crate) contract: Option<String>,
}

/// `proofs`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Proofs {
    /// List the proof files of a folder
    #[command(after_help = "Examples:\n  fluence proofs ls\n  fluence proofs ls --dir target/demo")]
    Ls {
        /// Folder [default: the home's proofs folder]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Show what a proof file says; does not verify it
    #[command(after_help = "Examples:\n  fluence proofs show target/demo/range_sum.json")]
    Show {
        /// Proof file
        file: PathBuf,
    },
    /// Write a proof in another tool's layout
    #[command(after_help = "\
Examples:
  fluence proofs export proof.json --format snarkjs --out exported
  snarkjs groth16 verify exported/vkey.json exported/public.json exported/proof.json")]
    Export {
        /// Proof file
        file: PathBuf,
        /// The layout
        #[arg(long, value_enum, default_value_t = Format::Snarkjs)]
        format: Format,
        /// Folder to write to; made if missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// `ceremony`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Ceremony {
    /// Phase 1 of one's own: powers of tau, for every circuit up to a size
    #[command(subcommand)]
    Phase1(Phase1),
    /// Take a published phase 1 (Zcash, Filecoin), or one's own, for one circuit: check its powers, bring them to Lagrange form
    #[command(after_help = "\
Examples:
  fluence ceremony import response --circuit range_sum/v1/s1-t7 --expect 60d1..9c --out phase1radix2m14
  fluence ceremony import phase1radix2m14 --circuit range_sum/v1/s1-t7 --out checked

The file is a challenge or a response of `powersoftau`, or a phase1radix2m<k>; which, and how many powers it has, follows from its length.
Well-formed powers may still be known to whoever made them: compare the hash with the published one, best by --expect.")]
    Import(CeremonyImport),
    /// Start a ceremony: the initial key of a circuit, by phase 1 alone
    #[command(after_help = "\
Examples:
  fluence ceremony new --phase1 phase1radix2m14 --circuit range_sum/v1/s1-t7 --out 0000.ceremony")]
    New(CeremonyNew),
    /// Contribute a secret that nobody keeps
    #[command(after_help = "\
Examples:
  fluence ceremony contribute 0000.ceremony --out 0001.ceremony --name anna
  fluence ceremony contribute 0000.ceremony --out 0001.ceremony --name anna --text-file -     more randomness, from standard input

The secret comes from the operating system's generator; what you type is mixed in. Publish the hash that is printed.")]
    Contribute(CeremonyContribute),
    /// End a ceremony with a public random value that was announced before it was known
    #[command(after_help = "\
Examples:
  fluence ceremony beacon 0007.ceremony --out final.ceremony --value 7c2f..e1 --iterations-log2 32")]
    Beacon(CeremonyBeacon),
    /// Check a ceremony from its beginning, and a key made of it
    #[command(after_help = "\
Examples:
  fluence ceremony verify final.ceremony --phase1 phase1radix2m14
  fluence ceremony verify final.ceremony --phase1 phase1radix2m14 --keys-dir keys

Exit code 3 if anything is refused.")]
    Verify(CeremonyVerify),
    /// Write the key of a ceremony that has ended; it is not marked insecure
    #[command(after_help = "\
Examples:
  fluence ceremony finalize final.ceremony --phase1 phase1radix2m14 --out keys

Verifies everything first. Writes the proving key, the verification key and the transcript.")]
    Finalize(CeremonyFinalize),
    /// Show who has contributed
    #[command(
        after_help = "Examples:\n  fluence ceremony status 0003.ceremony\n  fluence ceremony status 0003.ceremony --json | jq .hash"
    )]
    Status {
        /// Ceremony file
        file: PathBuf,
    },
    /// Write a circuit's matrices, for another implementation to check a ceremony with
    #[command(after_help = "Examples:\n  fluence ceremony matrices range_sum/v1/s1-t7 --out matrices")]
    Matrices {
        /// Circuit, as circuits/shapes.toml names it
        circuit: CircuitId,
        /// File to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// `ceremony phase1`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Phase1 {
    /// Write the first challenge
    #[command(after_help = "Examples:\n  fluence ceremony phase1 new --power 14 --out challenge0")]
    New {
        /// log2 of the powers: at least that of the rows of the largest circuit
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=28))]
        power: u32,
        /// File to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Answer a challenge with a secret that nobody keeps
    #[command(after_help = "Examples:\n  fluence ceremony phase1 contribute challenge0 --out response0")]
    Contribute {
        /// Challenge
        file: PathBuf,
        /// Response to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        text: Text,
    },
    /// Check a response, and write the next challenge
    #[command(after_help = "Examples:\n  fluence ceremony phase1 verify challenge0 response0 --out challenge1")]
    Verify {
        /// Challenge
        challenge: PathBuf,
        /// Response to it
        response: PathBuf,
        /// Next challenge to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// More randomness.
#[derive(Args, Debug, Clone)]
pub(crate) struct Text {
    /// File whose bytes are mixed into the secret, at most 64 KiB; `-` reads standard input. The operating system's randomness is always in it
    #[arg(long, value_name = "FILE")]
    pub(crate) text_file: Option<PathBuf>,
}

/// `ceremony import`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyImport {
    /// Challenge, response or phase1radix2m<k>
    pub(crate) file: PathBuf,
    /// Circuit it is for, as circuits/shapes.toml names it
    #[arg(long, value_name = "CIRCUIT")]
    pub(crate) circuit: CircuitId,
    /// BLAKE2b-512 that the ceremony published for the file, in hex
    #[arg(long, value_name = "HASH")]
    pub(crate) expect: Option<String>,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `ceremony new`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyNew {
    /// What `import` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) phase1: PathBuf,
    /// Circuit, as circuits/shapes.toml names it
    #[arg(long, value_name = "CIRCUIT")]
    pub(crate) circuit: CircuitId,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `ceremony contribute`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyContribute {
    /// Ceremony file to build on
    pub(crate) file: PathBuf,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Your name in the transcript, at most 64 bytes
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) text: Text,
}

/// `ceremony beacon`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyBeacon {
    /// Ceremony file to end
    pub(crate) file: PathBuf,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// The public value: 32 bytes in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) value: String,
    /// SHA-256 is iterated over it 2^N times, so that nobody could choose it by trying
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=40))]
    pub(crate) iterations_log2: u8,
}

/// `ceremony verify`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyVerify {
    /// Ceremony file
    pub(crate) file: PathBuf,
    /// The phase 1 it was started from
    #[arg(long, value_name = "FILE")]
    pub(crate) phase1: PathBuf,
    /// Folder with the key made of it, to check that too
    #[arg(long, value_name = "DIR")]
    pub(crate) keys_dir: Option<PathBuf>,
}

/// `ceremony finalize`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyFinalize {
    /// Ceremony file that a beacon ended
    pub(crate) file: PathBuf,
    /// The phase 1 it was started from
    #[arg(long, value_name = "FILE")]
    pub(crate) phase1: PathBuf,
    /// Folder to write to; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Layouts of exported proofs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// proof.json, public.json and vkey.json for snarkjs (bls12381)
    Snarkjs,
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
