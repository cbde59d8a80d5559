//! Benches of `crypto`: the hash, committing a segment, openings, masks, sealing a block, signatures.
//!
//! Names    `crypto::<what>/<parameter>=<value> ..`
//! Compare  other implementations of the hash are in `benches/compare`

use ark_bls12_381::Fr;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fluence_crypto::ggm::GroupKeys;
use fluence_crypto::mask::LaneMask;
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{NodeKey, OwnerKey, recover, verify_node};
use fluence_crypto::{aead, domain, poseidon2, tree};
use fluence_types::tree::NodeKind;
use std::convert::Infallible;
use std::hint::black_box;

/// Cells of 256 bytes with scalars that fill the field.
fn cells(count: usize) -> Vec<[Fr; 8]> {
    let mut x = Fr::from(3u64);
    let mut next = || {
        x = x * x + Fr::from(1u64);
        x
    };
    (0..count).map(|_| std::array::from_fn(|_| next())).collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool")
}

fn hash(c: &mut Criterion) {
    let mut state = cells(1)[0];
    c.bench_function("crypto::poseidon2/permutations=1", |b| b.iter(|| poseidon2::permute(black_box(&mut state))));
    // The same eight inputs one by one and as one call: in lanes where the processor has them.
    let inputs = cells(8);
    let mut group = c.benchmark_group("crypto::poseidon2");
    group.throughput(Throughput::Elements(8));
    group.bench_function("compressions=8 one_by_one", |b| {
        b.iter(|| black_box(&inputs).iter().map(|x| poseidon2::compress(NodeKind::Node, x)).collect::<Vec<_>>());
    });
    group.bench_function("compressions=8 many", |b| {
        b.iter(|| poseidon2::compress_many(NodeKind::Node, black_box(&inputs)));
    });
    group.finish();
}

fn commit(c: &mut Criterion) {
    for (mib, threads) in [(8, 1), (64, 2)] {
        let cells = cells(mib << 12);
        let pool = pool(threads);
        let mut group = c.benchmark_group("crypto::tree");
        group.sample_size(10).throughput(Throughput::Bytes((mib as u64) << 20));
        group.bench_function(format!("commit_mib={mib} threads={threads}"), |b| {
            b.iter(|| pool.install(|| tree::SegmentTree::build(black_box(&cells)).root()));
        });
        group.finish();
    }
}

fn open(c: &mut Criterion) {
    let cells = cells(1 << 15);
    let built = tree::SegmentTree::build(&cells);
    let mut lend = |i: u64| Ok::<_, Infallible>(cells[i as usize]);
    c.bench_function("crypto::tree/open cells=1", |b| b.iter(|| tree::open(&built, 12_345, &mut lend)));
    let pool = pool(1);
    for count in [64u64, 4096] {
        let indices: Vec<u64> = (12_345..12_345 + count).collect();
        let Ok(siblings) = tree::multi_open(&built, &indices, &mut lend);
        let opened: Vec<_> = indices.iter().map(|i| (*i, cells[*i as usize])).collect();
        c.bench_function(&format!("crypto::tree/multi_root cells={count} threads=1"), |b| {
            b.iter(|| pool.install(|| tree::multi_root(1 << 15, black_box(&opened), &siblings)));
        });
    }
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("crypto::seal");
    let lane = LaneMask::new(&Secret::new([1; 32]));
    let pool = pool(1);
    group.throughput(Throughput::Elements(1 << 20));
    group.bench_function("masks=1048576 threads=1", |b| {
        b.iter(|| pool.install(|| lane.fill(black_box(1)..(1 << 20) + 1)));
    });
    let keys = GroupKeys::from_root(Secret::new([2; 32]));
    group.throughput(Throughput::Elements(4096));
    group.bench_function("group_keys=4096", |b| {
        b.iter(|| keys.for_each(0..4096, &mut |_, key| drop(black_box(key))));
    });
    let (key, block) = (Secret::new([3; 32]), vec![7; 4096]);
    group.throughput(Throughput::Bytes(4096));
    group.bench_function("block_bytes=4096", |b| b.iter(|| aead::seal_block(&key, b"aad", black_box(&block))));
    group.finish();
}

fn sign(c: &mut Criterion) {
    let owner = OwnerKey::new(&Secret::new([1; 32])).expect("in range");
    let signature = owner.sign_prehash([5; 32]);
    c.bench_function("crypto::sign/owner=sign", |b| b.iter(|| owner.sign_prehash(black_box([5; 32]))));
    c.bench_function("crypto::sign/owner=recover", |b| b.iter(|| recover(black_box([5; 32]), &signature)));
    let node = NodeKey::new(Secret::new([1; 32]));
    let (id, signature) = (node.id(), node.sign(domain::RECEIPT, b"receipt"));
    c.bench_function("crypto::sign/node=verify", |b| {
        b.iter(|| verify_node(domain::RECEIPT, &id, black_box(b"receipt"), &signature));
    });
}

criterion_group!(benches, hash, commit, open, seal, sign);
criterion_main!(benches);
