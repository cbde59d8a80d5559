//! `import`, `query`, `export`, `verify-export` and `table`: rows in, rows and aggregates out, and how a table stands.

use super::{ChainPlace, Place, Unlock};
use clap::{Args, Subcommand, ValueEnum};
use fluence_client::files;
use std::path::PathBuf;

/// `import`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence import flights.csv --table flights --key time_hour,carrier,flight --null NA \\
      --sum distance,arr_delay,arr_delay*arr_delay --types time_hour=timestamp
  fluence import trips.parquet --table trips --key pickup,id --sum fare
  zcat events.jsonl.gz | fluence import - --format jsonl --table events --key at,id
  fluence import stations.csv --table stations --key id --public id,name,place
  fluence import prices.csv --dry-run                                    what it holds, and nothing is written

CSV and JSON lines: types are inferred (int64, decimal, float64, timestamp, date, bool, text); --types overrides. Parquet and Arrow name theirs.
Sums answer COUNT, SUM, AVG and VAR without reading rows; a square (`x*x`) is what VAR needs.
Each segment of --segment-rows rows is live as soon as it is certified. Run it again after an interruption: it goes on after the last one.")]
pub(crate) struct Import {
    /// CSV with a header line, Parquet, Arrow IPC or JSON lines; - for standard input, which cannot be gone on with
    pub(crate) file: PathBuf,
    /// Table; made if there is none of that name
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "dry_run",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) table: String,
    /// Sort key of a new table: columns that together are unique
    #[arg(long, value_name = "COLS", value_delimiter = ',')]
    pub(crate) key: Vec<String>,
    /// Format of the file [default: by its name]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// Text that stands for NULL in CSV
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) null: String,
    /// Columns, or products of two columns, to keep running sums of
    #[arg(long, value_name = "EXPRS", value_delimiter = ',')]
    pub(crate) sum: Vec<String>,
    /// Columns of a new table that are open data: everyone who reaches a node reads them. The key must be among them
    #[arg(long, value_name = "COLS", value_delimiter = ',')]
    pub(crate) public: Vec<String>,
    /// Column types, as `price=decimal(12,4)`: int64, float64, decimal(P,S), text, bool, timestamp, date, bytes
    #[arg(long, value_name = "COL=TYPE")]
    pub(crate) types: Vec<String>,
    /// Infer types from the first N rows of CSV and JSON lines only [default: from all rows of a file, the first 8 MiB of a stream]
    #[arg(long, value_name = "N")]
    pub(crate) sample: Option<u64>,
    /// Most rows of a segment; memory is about a kilobyte a row
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    pub(crate) segment_rows: u32,
    /// Import a file that was imported before once more, or instead of one that broke off
    #[arg(long)]
    pub(crate) again: bool,
    /// Only say what the file holds
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// Formats of files.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileFormat {
    /// Comma-separated, with a header line
    Csv,
    /// Apache Parquet
    Parquet,
    /// Arrow IPC: file ("Feather 2") or stream
    Arrow,
    /// One JSON object a line
    Jsonl,
}

impl From<FileFormat> for files::Format {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Csv => Self::Csv,
            FileFormat::Parquet => Self::Parquet,
            FileFormat::Arrow => Self::Arrow,
            FileFormat::Jsonl => Self::JsonLines,
        }
    }
}

/// `export`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence export flights --out flights.parquet
  fluence export flights --out july.csv --from 2013-07-01T00:00:00Z --to 2013-08-01T00:00:00Z --select time_hour,carrier,dest
  fluence export flights --out flights.parquet --verify        also flights.parquet.manifest.json

Every row is verified before it is written. With --verify a manifest says which certified segments the rows came from, and is signed; what it
shows to whom is in docs/protocol/export.md, and `fluence verify-export` checks it.")]
pub(crate) struct Export {
    /// Table
    pub(crate) table: String,
    /// File to write; made, never replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Format of the file [default: by its name]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
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
    #[arg(long, value_name = "COLS", value_delimiter = ',')]
    pub(crate) select: Vec<String>,
    /// Text that stands for NULL in CSV
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) null: String,
    /// Also write FILE.manifest.json: what the rows came from, signed
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) chain: ChainPlace,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `verify-export`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence verify-export flights.parquet --committee 0x5f.. --owner 0x8a..     by anybody, with file and manifest only
  fluence verify-export flights.parquet --recompute                           by the owner: rows are read from the cluster again

The committee in a manifest is never trusted: name it by its hash (`fluence cluster members` prints it, the contract Checkpoints has it), or be the
owner, whose keystore knows it. docs/protocol/export.md says what is shown then, and what is not. Exit code 3 if the export is refused.")]
pub(crate) struct VerifyExport {
    /// The file of rows
    pub(crate) file: PathBuf,
    /// Its manifest [default: FILE.manifest.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Hash of the committee that you trust to have certified the root
    #[arg(long, value_name = "HASH")]
    pub(crate) committee: Option<String>,
    /// Address of the owner who must have signed
    #[arg(long, value_name = "ADDR")]
    pub(crate) owner: Option<String>,
    /// Refuse what was exported below this height
    #[arg(long, value_name = "HEIGHT", default_value_t = 0)]
    pub(crate) min_height: u64,
    /// Read the rows from the cluster again, with the owner's keys, and compare
    #[arg(long, conflicts_with_all = ["committee", "owner"])]
    pub(crate) recompute: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `table`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Table {
    /// List the tables of a database
    #[command(after_help = "Examples:\n  fluence table ls")]
    Ls(TablePlace),
    /// Show how a table stands: segments, rows, dead rows, bytes, and the limits
    #[command(after_help = "\
Examples:
  fluence table stats flights
  fluence table stats flights --json | jq .amplification")]
    Stats(TableName),
    /// Merge a table's live segments into as few as possible, without dead rows
    #[command(after_help = "\
Examples:
  fluence table compact flights

All rows are read, verified, sealed anew and sent again: memory and time as for importing the whole table.")]
    Compact(TableName),
}

/// Where tables are.
#[derive(Args, Debug, Clone)]
pub(crate) struct TablePlace {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// Which table.
#[derive(Args, Debug, Clone)]
pub(crate) struct TableName {
    /// Table
    pub(crate) table: String,
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
