//! Eight scalars to one digest, in one run: our Poseidon2, zkhash's of the same instance, neptune's Poseidon of arity 8.
//!
//! Reads like `compare::hash8/engine=fluence`. The last lines are the ratios, from the medians of interleaved rounds, so that a
//! machine that slows down slows all three.

use criterion::{Criterion, criterion_group, criterion_main};
use fluence_compare::{BlstFr, Neptune, Zkhash, to_zkhash};
use fluence_crypto::{Fr, poseidon2};
use fluence_types::tree::NodeKind;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn compare(c: &mut Criterion) {
    let ours: [Fr; 8] = std::array::from_fn(|i| Fr::from(i as u64 + 1));
    let theirs: [_; 8] = std::array::from_fn(|i| to_zkhash(&ours[i]));
    let blst: [_; 8] = std::array::from_fn(|i| BlstFr::from(i as u64 + 1));
    let (zkhash, neptune) = (Zkhash::default(), Neptune::default());

    let fluence = || poseidon2::compress(NodeKind::Node, black_box(&ours));
    let zkhash = || zkhash.permute(black_box(&theirs));
    let neptune = || neptune.hash(black_box(&blst));
    c.bench_function("compare::hash8/engine=fluence", |b| b.iter(&fluence));
    c.bench_function("compare::hash8/engine=zkhash", |b| b.iter(&zkhash));
    c.bench_function("compare::hash8/engine=neptune", |b| b.iter(&neptune));

    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..101 {
        times[0].push(time(&fluence));
        times[1].push(time(&zkhash));
        times[2].push(time(&neptune));
    }
    let [ours, zkhash, neptune] = times.map(|mut list| {
        list.sort_unstable();
        list[list.len() / 2]
    });
    let us = |d: Duration| d.as_secs_f64() * 1e6 / f64::from(ROUND);
    println!(
        "fluence {:.1} us, zkhash {:.1} us, neptune {:.1} us per hash of eight scalars",
        us(ours),
        us(zkhash),
        us(neptune)
    );
    println!("zkhash / fluence = {:.2}, neptune / fluence = {:.2}", us(zkhash) / us(ours), us(neptune) / us(ours));
}

const ROUND: u32 = 50;

fn time<T>(f: &impl Fn() -> T) -> Duration {
    let start = Instant::now();
    (0..ROUND).for_each(|_| drop(black_box(f())));
    start.elapsed()
}

criterion_group!(benches, compare);
criterion_main!(benches);
