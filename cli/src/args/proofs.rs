//! `verify` and `proofs`: proof files.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `verify`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence verify proof.json --vkey storage.vkey.json
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

/// Layouts of exported proofs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// proof.json, public.json and vkey.json for snarkjs (bls12381)
    Snarkjs,
}
