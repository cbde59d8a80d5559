//! `import` and `query`: rows in, rows and aggregates out.

use super::{ChainPlace, Place, Unlock};
use clap::Args;
use std::path::PathBuf;

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
