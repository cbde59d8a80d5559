//! What idle clusters cost: real `fluence node` processes on loopback that keep many databases which nobody uses.
//!
//! ```text
//! FLUENCE_BIN=.. cargo bench -p fluence-benches --bench idle      4 nodes, 24 databases (FLUENCE_IDLE_NODES, FLUENCE_IDLE_DATABASES)
//! ```
//! Twice    in the first epochs, whose blocks follow each other at `idle_ms`, and in a quiet one, where they do at `quiet_ms`: before and
//!          after of one run on one machine.

use fluence_chaos::idle::{Idle, Usage};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long is measured.
const DURING: Duration = Duration::from_secs(20);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() {
    // `cargo test --benches` asks for a look, not for a measurement.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let Some(program) = std::env::var_os("FLUENCE_BIN").map(PathBuf::from) else {
        println!("SKIPPED idle: FLUENCE_BIN names no `fluence` program");
        return;
    };
    let (nodes, databases) = (number("FLUENCE_IDLE_NODES", 4), number("FLUENCE_IDLE_DATABASES", 24));
    let dir = tempfile::tempdir().expect("a folder can be made");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be had");
    runtime.block_on(async {
        let begun = Instant::now();
        let idle = Idle::start(&program, dir.path(), nodes, databases).await.expect("the nodes start");
        println!("{nodes} nodes keep {databases} databases after {:.0} s", begun.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_secs(5)).await;
        show("first", databases, &idle.measure(DURING).await.expect("the nodes run"));
        idle.until_quiet().await.expect("the nodes run");
        show("quiet", databases, &idle.measure(DURING).await.expect("the nodes run"));
    });
}

fn show(epoch: &str, databases: usize, used: &[Usage]) {
    for (i, u) in used.iter().enumerate() {
        println!(
            "idle::{epoch}/databases={databases} node={i}: {:.1} % of a core, {} MiB, {} threads, {:.2} blocks/s a cluster",
            u.cores * 100.0,
            u.memory_mib,
            u.threads,
            u.blocks_per_second
        );
    }
}
