//! `fluence-sim`: many seeds, one seed again, or the search for a planted bug.

use clap::Parser;
use fluence_sim::{Change, Fault, Planted, Summary, campaign, find, run};
use std::process::ExitCode;
use std::time::Instant;

/// Simulates clusters under faults. The same arguments give the same digest.
#[derive(Parser)]
#[command(name = "fluence-sim", max_term_width = 120)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    seed0: u64,
    /// Runs this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "seed0"])]
    seed: Option<u64>,
    /// Says what happens, with `--seed`. RUST_LOG=debug shows the replicas' own log too.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Puts a bug into every honest member, and succeeds where a seed shows it.
    #[arg(long)]
    planted: Option<Planted>,
    /// Prints the table of faults and liars, as in docs/simulation.md.
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.trace {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    match (args.seed, args.planted) {
        (Some(seed), planted) => replay(seed, planted, args.trace),
        (None, Some(planted)) => search(planted, &args),
        (None, None) => long(&args),
    }
}

fn replay(seed: u64, planted: Option<Planted>, trace: bool) -> ExitCode {
    let outcome = run(seed, planted, trace);
    for violation in &outcome.violations {
        println!("violation: {violation}");
    }
    println!(
        "seed={seed} blocks={} ops={} faults={} byzantine={} violations={} digest={}",
        outcome.blocks,
        outcome.ops,
        outcome.faults.iter().sum::<u64>(),
        outcome.liars.values().map(|(count, _)| count).sum::<u64>(),
        outcome.violations.len(),
        hex::encode(outcome.digest)
    );
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn search(planted: Planted, args: &Args) -> ExitCode {
    match find(args.seed0, args.seeds, Some(planted)) {
        Some(outcome) => {
            let ran = outcome.seed - args.seed0 + 1;
            println!("planted={planted} found=yes seed={} seeds={ran}", outcome.seed);
            println!("  {}", outcome.violations[0]);
            println!("  replay: fluence-sim --planted {planted} --seed {} --trace", outcome.seed);
            ExitCode::SUCCESS
        }
        None => {
            println!("planted={planted} found=no seeds={}", args.seeds);
            ExitCode::FAILURE
        }
    }
}

fn long(args: &Args) -> ExitCode {
    let began = Instant::now();
    let step = (args.seeds / 20).max(1);
    let summary = campaign(args.seed0, args.seeds, None, |outcome, summary| {
        for violation in &outcome.violations {
            println!("seed {}: {violation}", outcome.seed);
            println!("  replay: fluence-sim --seed {} --trace", outcome.seed);
        }
        if summary.seeds % step == 0 {
            println!(
                "{:>6} seeds, {} blocks, {} operations, {} faults, {} violations, {} s",
                summary.seeds,
                summary.blocks,
                summary.ops,
                summary.faults_all(),
                summary.violations.len(),
                began.elapsed().as_secs()
            );
        }
    });
    if args.table {
        table(&summary);
    }
    println!(
        "seeds={} blocks={} faults={} byzantine={} violations={} digest={}",
        summary.seeds,
        summary.blocks,
        summary.faults_all(),
        summary.byzantine(),
        summary.violations.len(),
        hex::encode(summary.digest)
    );
    if summary.seeds == args.seeds && summary.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(summary: &Summary) {
    println!("| fault | times | seeds |\n|---|---|---|");
    for (kind, name) in Fault::KINDS.iter().enumerate() {
        println!("| {name} | {} | {} |", summary.faults[kind], summary.fault_seeds[kind]);
    }
    println!("| members change meanwhile | seeds |\n|---|---|");
    for (kind, name) in Change::KINDS.iter().enumerate() {
        println!("| {name} | {} |", summary.changes[kind]);
    }
    println!("| liar | members | shown to contradict themselves |\n|---|---|---|");
    for (name, (members, caught)) in &summary.liars {
        println!("| {name} | {members} | {caught} |");
    }
    println!(
        "operations {} ({} refused, {} answered as done), messages and proposals of liars {}, seeds with evidence {}, \
         seeds past an epoch {}, snapshots {}, longest recovery {} ms",
        summary.ops,
        summary.refused,
        summary.answered,
        summary.acts,
        summary.caught,
        summary.epochs,
        summary.snapshots,
        summary.healed_ms_max
    );
}
