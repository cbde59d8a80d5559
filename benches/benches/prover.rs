//! Keys, proofs and verification of each shape, by plain clock: a proof takes seconds, so a few runs say enough.
//!
//! Names    `prover::<act>/<circuit> threads=<n>`, `verifier::<act>/<circuit>`; one line each with the median of the runs
//! Says     constraints, terms, setup, load, witness, prove, native verification, peak memory; `range_sum` is over 2^20 rows
//! Knobs    `RUNS=3`; `CIRCUITS=production` adds `storage` of the production shape, whose setup takes most of a minute on 2 cores
//! Owed     issue 2: `range_sum` of one segment over 2^20 rows proven in 2.5 s on 2 cores and verified in 5 ms; `storage` in 20 s and 2 GiB

use fluence_circuits::fixture::{self, Database, Owed, Segment};
use fluence_circuits::pin::Matrices;
use fluence_circuits::{Circuit, RangeSumCircuit, StorageCircuit};
use fluence_prover::{Keys, peak_memory_bytes, prove};
use fluence_types::FieldBytes;
use fluence_types::shape::{RangeSumShape, StorageShape};
use fluence_types::statement::RowRange;
use fluence_verifier::groth16::{verify, verify_batch};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows of the segment that `range_sum` is measured on.
const ROWS: u64 = 1 << 20;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed<T>(runs: usize, mut act: impl FnMut() -> T) -> (Duration, T) {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        last = Some(act());
        times.push(start.elapsed());
    }
    (median(times), last.expect("at least one run"))
}

fn line(name: &str, time: Duration, rest: &str) {
    println!("{name:<64} {:>10.3} ms  {rest}", time.as_secs_f64() * 1e3);
}

fn measure<C: Circuit + Clone + Send>(dir: &Path, circuit: &C, runs: usize) {
    let id = circuit.id();
    let threads = rayon::current_num_threads();
    let (time, matrices) = timed(1, || Matrices::of(id).expect("a shape of ours"));
    line(
        &format!("circuits::matrices/{id}"),
        time,
        &format!("{} constraints, {} terms", matrices.constraints(), matrices.terms()),
    );
    let (time, keys) = timed(1, || Keys::load_or_setup(dir, id, |_| ()).expect("a key"));
    let bytes = std::fs::metadata(Keys::path(dir, id)).map_or(0, |m| m.len());
    line(&format!("prover::setup/{id} threads={threads}"), time, &format!("{} MiB key", bytes >> 20));
    let (time, _) = timed(1, || Keys::load_or_setup(dir, id, |_| ()).expect("the same key"));
    line(&format!("prover::load/{id} threads={threads}"), time, "");
    let (time, ()) = timed(runs, || circuit.check().expect("an honest witness"));
    line(&format!("circuits::native/{id}"), time, "");
    let mut rng = StdRng::seed_from_u64(1);
    let (time, proved) = timed(runs, || prove(&keys, circuit.clone(), &mut rng).expect("a proof"));
    let rest = format!(
        "of these {} ms witness, {} ms proof, {} ms check",
        proved.witness_ms, proved.prove_ms, proved.verify_ms
    );
    line(&format!("prover::{id} threads={threads}"), time, &rest);
    let inputs = proved.public_inputs;
    let (time, ()) = timed(20, || verify(&keys.vk, &inputs, &proved.proof).expect("it verifies"));
    line(&format!("verifier::verify/{id}"), time, "192 bytes");
    let batch = vec![(&inputs[..], &proved.proof); 100];
    let (time, ()) = timed(5, || verify_batch(&keys.vk, &batch, &mut rng).expect("all verify"));
    line(
        &format!("verifier::verify_batch/{id} proofs=100"),
        time,
        &format!("{:.3} ms a proof", time.as_secs_f64() * 1e3 / 100.0),
    );
    let peak = peak_memory_bytes().map_or("unknown".to_owned(), |b| format!("{} MiB", b >> 20));
    println!("{:<64} {peak:>13}  largest resident set so far", "prover::memory");
}

fn storage(shape: StorageShape) -> StorageCircuit {
    let segments = (0..20u64).map(|i| Segment::plain(i, 1 << (i % 10))).collect();
    let databases = [Database::new(1, segments), Database::new(2, vec![Segment::plain(99, 3_000)])];
    let (statement, witness) = fixture::storage(shape, &databases, Owed::Holdings, FieldBytes::from_u64(7));
    StorageCircuit::new(shape, statement, witness)
}

fn range_sum(shape: RangeSumShape, rows: &[u64]) -> RangeSumCircuit {
    let segments = rows.iter().enumerate().map(|(i, rows)| Segment::with_lane(i as u64, *rows)).collect();
    let ranges: Vec<_> = rows.iter().map(|rows| RowRange { lo: rows / 7, hi: rows - rows / 5 }).collect();
    let (statement, witness) = fixture::range_sum(&Database::new(3, segments), &ranges);
    RangeSumCircuit::new(shape, statement, witness)
}

fn main() {
    // `cargo test --benches` runs this with `--test`: nothing to check there.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let runs = std::env::var("RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let dir = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let one = range_sum(RangeSumShape::ONE, &[ROWS]);
    line(&format!("fixture::segment/rows={ROWS}"), start.elapsed(), "cells and tree of the sum lane");
    measure(dir.path(), &one, runs);
    drop(one);
    measure(dir.path(), &range_sum(RangeSumShape::FOUR, &[1 << 14, 1 << 10, 500, 100]), runs);
    measure(dir.path(), &storage(StorageShape::SMALL), runs);
    if std::env::var("CIRCUITS").is_ok_and(|c| c == "production") {
        measure(dir.path(), &storage(StorageShape::PRODUCTION), runs);
    }
}
