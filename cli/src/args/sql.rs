//! `sql`: a shell, or a server for Postgres clients.

use super::{ChainPlace, Place, Unlock};
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// `sql`.
#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("serve").args(["listen", "http"]).multiple(true))]
#[command(after_help = "\
Examples:
  fluence sql                                             a shell: statements end with a semicolon, \\? tells the rest
  fluence sql -c 'SELECT count(*) FROM flights'           one statement, and out
  fluence sql -f schema.sql --format csv
  fluence sql -c 'SELECT * FROM flights' --format parquet > flights.parquet
  fluence sql --listen 127.0.0.1:5433                     a server; psql and drivers connect as they do to Postgres
  fluence sql --listen 127.0.0.1:5433 --http 127.0.0.1:8433    and JSON over HTTP

The server's user has a password: the first line of --password-file, or one that is made and kept in the home's pgpass file, which
psql reads: psql 'host=127.0.0.1 port=5433 user=fluence dbname=main passfile=HOME/pgpass'. Off loopback, give a certificate.")]
pub(crate) struct Sql {
    /// Serve Postgres clients at this address instead; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["command", "file"])]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Serve JSON over HTTP at this address, too or instead; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["command", "file"])]
    pub(crate) http: Option<std::net::SocketAddr>,
    /// Name by which HTTP clients may call the server, beside those of loopback; may be given more than once [default off loopback: any]
    #[arg(long, value_name = "NAME", requires = "http")]
    pub(crate) http_host: Vec<String>,
    /// The server's user
    #[arg(long, value_name = "NAME", default_value = "fluence", requires = "serve")]
    pub(crate) user: String,
    /// File whose first line is the user's password [default: one is made, in the home's pgpass file]
    #[arg(long, env = "FLUENCE_SQL_PASSWORD_FILE", value_name = "FILE", hide_env_values = true, requires = "serve")]
    pub(crate) password_file: Option<PathBuf>,
    /// Certificate chain of the server, PEM
    #[arg(long, value_name = "FILE", requires_all = ["serve", "tls_key"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve clients that do not encrypt, off loopback or with a certificate
    #[arg(long, requires = "serve")]
    pub(crate) allow_plaintext: bool,
    /// Most sessions at once, of each protocol
    #[arg(long, value_name = "N", default_value_t = 100, requires = "serve")]
    pub(crate) sessions_max: usize,
    /// Stop when standard input ends, as a child of another program does
    #[arg(long, hide = true, requires = "serve")]
    pub(crate) stop_with_stdin: bool,
    /// Run these statements, and out; may be given more than once
    #[arg(short, long, value_name = "SQL")]
    pub(crate) command: Vec<String>,
    /// Run the statements of a file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = RowFormat::Table, conflicts_with = "serve")]
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
    /// Apache Parquet: one statement's rows; to a file or a pipe, not to a terminal.
    Parquet,
}
