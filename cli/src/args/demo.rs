//! `demo`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

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

/// What breaks in the demo.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// Bytes of one node's stored pages are overwritten from outside
    Pages,
    /// Nothing; nobody is slashed
    None,
}
