//! `fluence-chaos`: rounds of real nodes under faults, one a seed.

use anyhow::Context;
use clap::Parser;
use fluence_chaos::{Fault, Machine, Outcome, Settings, run};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Breaks real nodes under load, and checks what clients were told. The same seed draws the same faults.
#[derive(Parser)]
#[command(name = "fluence-chaos", max_term_width = 120)]
struct Args {
    /// The program whose `node` command is a node.
    #[arg(long, value_name = "FILE")]
    fluence: PathBuf,
    /// How many seeds.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    seed0: u64,
    /// Nodes of a round; else as the seed draws, 4 to 7.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=31))]
    members: Option<u8>,
    /// What is broken; all that this machine can unless named.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Seconds for which things are broken in a round, about.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Databases, each with two writers and a reader.
    #[arg(long, default_value_t = 2)]
    databases: u8,
    /// Where rounds keep everything; those that fail stay.
    #[arg(long, value_name = "DIR", default_value = "target/chaos")]
    out: PathBuf,
    /// Prints the table of docs/chaos.md.
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(mut inside) = Machine::inside() {
        return match inside.status() {
            Ok(status) => status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)),
            Err(why) => {
                eprintln!("fluence-chaos: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be had");
    match runtime.block_on(rounds(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("fluence-chaos: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// What all rounds showed of one kind of fault.
#[derive(Default)]
struct OfKind {
    strokes: usize,
    victims: usize,
    ended: usize,
    stubborn: usize,
}

async fn rounds(args: &Args) -> anyhow::Result<bool> {
    let machine = Machine::look()?;
    let asked = if args.faults.is_empty() { Fault::ALL.to_vec() } else { args.faults.clone() };
    let mut faults = Vec::new();
    for fault in asked {
        match machine.lacks(fault) {
            None => faults.push(fault),
            Some(why) => println!("SKIPPED {}: {why}", fault.name()),
        }
    }
    anyhow::ensure!(!faults.is_empty(), "no kind of fault that was asked for can be had here");
    let program = args.fluence.canonicalize().with_context(|| format!("there is no {}", args.fluence.display()))?;
    std::fs::create_dir_all(&args.out)?;
    let out = args.out.canonicalize()?;
    let mut kinds: BTreeMap<&'static str, OfKind> = BTreeMap::new();
    let (mut seeds, mut violations, mut reads, mut healed) = (0, 0, 0, 0);
    let mut writes = (0, 0, 0);
    for seed in args.seed0..args.seed0 + args.seeds {
        let dir = out.join(format!("seed-{seed}"));
        let _ = std::fs::remove_dir_all(&dir);
        let settings = Settings {
            program: program.clone(),
            dir: dir.clone(),
            machine: machine.clone(),
            faults: faults.clone(),
            members: args.members.map(usize::from),
            length: Duration::from_secs(args.seconds),
            databases: args.databases.max(1).into(),
            writers: 2,
        };
        let outcome = match run(seed, &settings).await {
            Ok(outcome) => outcome,
            Err(why) => {
                println!("seed {seed}: the round was not played to its end: {why:#}");
                println!("  what it left: {}", dir.display());
                violations += 1;
                continue;
            }
        };
        seeds += 1;
        show(&outcome, &dir);
        for struck in &outcome.struck {
            let kind = kinds.entry(struck.fault).or_default();
            kind.strokes += 1;
            kind.victims += struck.victims.len();
            kind.ended += struck.ended.len();
            kind.stubborn += struck.stubborn.len();
        }
        let (acknowledged, refused, unknown) = outcome.writes();
        writes = (writes.0 + acknowledged, writes.1 + refused, writes.2 + unknown);
        reads += outcome.history.reads.len();
        healed = healed.max(outcome.healed_ms);
        violations += outcome.violations.len();
        if outcome.violations.is_empty() {
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
    if args.table {
        println!(
            "| fault | strokes | nodes struck | ended by themselves | had to be killed |\n|---|---:|---:|---:|---:|"
        );
        for (kind, k) in &kinds {
            println!("| {kind} | {} | {} | {} | {} |", k.strokes, k.victims, k.ended, k.stubborn);
        }
        println!("longest healing {healed} ms");
    }
    let faults: usize = kinds.values().map(|k| k.strokes).sum();
    println!(
        "seeds={seeds} faults={faults} acknowledged={} refused={} unknown={} reads={reads} violations={violations}",
        writes.0, writes.1, writes.2
    );
    Ok(seeds == args.seeds && violations == 0)
}

fn show(outcome: &Outcome, dir: &std::path::Path) {
    let (acknowledged, refused, unknown) = outcome.writes();
    println!(
        "seed {}: {} members, {} strokes, {acknowledged} rows acknowledged, {refused} refused, {unknown} unknown, {} reads, healed in {} ms, {} violations",
        outcome.seed,
        outcome.members,
        outcome.struck.len(),
        outcome.history.reads.len(),
        outcome.healed_ms,
        outcome.violations.len(),
    );
    for struck in outcome.struck.iter().filter(|s| !s.ended.is_empty() || !s.stubborn.is_empty()) {
        println!("  {} of {:?}: ended {:?}, killed {:?}", struck.fault, struck.victims, struck.ended, struck.stubborn);
    }
    for violation in outcome.violations.iter().take(20) {
        println!("  violation: {violation}");
    }
    if !outcome.violations.is_empty() {
        println!("  history, logs and stores: {}; again: --seeds 1 --seed0 {}", dir.display(), outcome.seed);
    }
}
