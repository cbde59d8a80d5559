//! One proof by each engine, in one run: ours on each of its paths, ark-groth16 0.6, bellperson 0.27; and what a key, a check and a batch of
//! checks cost ours.
//!
//! Fair     each engine is a process of its own with its key in memory, so that its peak memory is its own; rounds are interleaved, so that a
//!          machine that slows down slows all. Two threads each. ark-groth16 with its assembly: `RUSTFLAGS=-C target-cpu=native`.
//!          Ours and ark's prove the same statement under the same key, from statement and witness to proof; ours also checks the
//!          witness natively before and the proof after. bellperson proves a chain of fifth powers with as many constraints
//! Says     medians of wall time and CPU time, largest resident set, all as parts of ours; a row where we lose says so
//! Knobs    `ROUNDS=5`; `SIZES=14,16,17,18`. Keys are made once and kept in the target folder
//! Reads    `compare::prove/domain=2^16 engine=ark`

mod bell;
mod engine;

use engine::{CIRCUITS, Figures, KINDS, Kind};
use fluence_types::shape::CircuitId;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const THREADS: &str = "2";

/// An engine waiting for orders.
struct Engine {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Engine {
    fn start(kind: Kind, circuit: CircuitId) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a binary"))
            .args(["engine", kind.name(), &circuit.to_string()])
            .envs([("RAYON_NUM_THREADS", THREADS), ("EC_GPU_NUM_THREADS", THREADS)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, orders, answers }
    }

    /// What the engine says to `order`.
    fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("the engine listens");
        self.answers.next().expect("the engine answers").expect("text")
    }

    /// Does `order`, and says what it cost.
    fn run(&mut self, order: &str) -> Figures {
        let answer = self.ask(order);
        answer.parse().unwrap_or_else(|why| panic!("{order}: {answer}: {why}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It ends by itself when its orders end; this makes sure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn medians(runs: &[Figures]) -> Figures {
    let of = |f: fn(&Figures) -> f64| median(runs.iter().map(f).collect());
    let peak_mib = runs.iter().map(|r| r.peak_mib).fold(0.0, f64::max);
    Figures { wall_s: of(|r| r.wall_s), cpu_s: of(|r| r.cpu_s), peak_mib }
}

fn line(name: &str, figures: &Figures, rest: &str) {
    let Figures { wall_s, cpu_s, peak_mib } = figures;
    println!("{name:<58} {wall_s:>9.4} s  {cpu_s:>9.4} s CPU  {peak_mib:>5.0} MiB  {rest}");
}

fn compare(domain: u32, circuit: CircuitId, rounds: usize) {
    println!("\n{circuit}: {} constraints", engine::constraints(circuit));
    let kinds: Vec<Kind> = KINDS.into_iter().filter(|k| k.runs_here()).collect();
    for kind in &kinds {
        Engine::start(*kind, circuit).run("setup");
    }
    let mut engines: Vec<Engine> = kinds.iter().map(|k| Engine::start(*k, circuit)).collect();
    for (kind, engine) in kinds.iter().zip(&mut engines) {
        line(&format!("compare::load/domain=2^{domain} engine={}", kind.name()), &engine.run("load"), "");
    }
    let mut runs = vec![Vec::new(); kinds.len()];
    for _ in 0..rounds {
        for (engine, runs) in engines.iter_mut().zip(&mut runs) {
            runs.push(engine.run("prove"));
        }
    }
    let runs: Vec<Figures> = runs.iter().map(|r| medians(r)).collect();
    for (kind, r) in kinds.iter().zip(&runs) {
        let ours = &runs[0];
        let rest = format!(
            "x {:.2} wall, x {:.2} CPU, x {:.2} memory",
            r.wall_s / ours.wall_s,
            r.cpu_s / ours.cpu_s,
            r.peak_mib / ours.peak_mib
        );
        line(&format!("compare::prove/domain=2^{domain} engine={}", kind.name()), r, &rest);
    }
    // What only ours does, on the fastest path.
    let ours = &mut engines[0];
    println!("fluence::phases/domain=2^{domain}: {}", ours.ask("phases"));
    line(&format!("fluence::two_at_once/domain=2^{domain}"), &ours.run("two"), "both done");
    for (name, order) in [("verify", "verify"), ("verify_batch proofs=100", "batch")] {
        let runs: Vec<Figures> = (0..7).map(|_| ours.run(order)).collect();
        line(&format!("fluence::{name}/domain=2^{domain}"), &medians(&runs), "median of 7");
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, engine, kind, circuit] = &args[..]
        && engine == "engine"
    {
        return engine::obey(kind.parse().expect("an engine"), circuit.parse().expect("a circuit"));
    }
    // `cargo test --benches` runs this with `--test`: nothing to check there.
    if args.iter().any(|a| a == "--test") {
        return;
    }
    let knob = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let rounds = knob("ROUNDS", "5").parse().expect("ROUNDS is a number");
    let sizes = knob("SIZES", "14,16,17,18");
    let sizes: Vec<u32> = sizes.split(',').map(|s| s.parse().expect("SIZES are numbers")).collect();
    std::fs::create_dir_all(Path::new(engine::KEYS)).expect("the target folder can be written");
    for (domain, circuit) in CIRCUITS.into_iter().filter(|(domain, _)| sizes.contains(domain)) {
        compare(domain, circuit, rounds);
    }
}
