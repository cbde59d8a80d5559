//! From a statement to an accepted proof file, and every way there that must fail.

use fluence_circuits::fixture::{self, Owed};
use fluence_circuits::{Circuit, RangeSumCircuit, StorageCircuit};
use fluence_crypto::seed;
use fluence_prover::{
    KeyError, Keys, Limits, Phase, ProveError, ProverPath, Scheduler, export_key, proof_file, prove, prove_with,
};
use fluence_types::proof::{ProofContext, ProofFile};
use fluence_types::shape::{CircuitId, RangeSumShape, StorageShape};
use fluence_types::statement::{RangeSumQuery, RowRange, StorageSeed};
use fluence_types::{Address, DatabaseId, Epoch, FieldBytes, Height, NodeId};
use fluence_verifier::proof_file::{KeyFile, KeySource, ProofFileError, check, check_with_table, read};
use fluence_verifier::{groth16, known_keys::KnownKey, snarkjs};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::OnceLock;

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn seed_parts(shape: StorageShape) -> StorageSeed {
    StorageSeed {
        chain_id: 31337,
        contract: Address::from_bytes([1; 20]),
        node: NodeId::from_bytes([2; 32]),
        epoch: Epoch(3),
        beacon: [4; 32],
        shape: StorageSeed::shape_word(shape),
        proof_index: 0,
    }
}

fn storage_circuit(shape: StorageShape) -> StorageCircuit {
    let seed = seed::storage_seed(&seed_parts(shape));
    let (statement, witness) = fixture::storage(shape, &fixture::databases(), Owed::Holdings, seed);
    StorageCircuit::new(shape, statement, witness)
}

fn range_sum_context(query: RangeSumQuery) -> ProofContext {
    ProofContext::RangeSum { height: Height(9), db: query.db, query }
}

/// Keys and an accepted file of each statement, made once.
struct Made {
    storage: (Keys, ProofFile),
    range_sum: (Keys, ProofFile),
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut rng = rng(1);
        let circuit = storage_circuit(StorageShape::TINY);
        let keys = Keys::ephemeral(circuit.id(), &mut rng).unwrap();
        let proved = prove(&keys, circuit, &mut rng).unwrap();
        let file = proof_file(&keys, &proved, ProofContext::Storage { seed: seed_parts(StorageShape::TINY) });
        let storage = (keys, file);
        let (_, query, circuit) = fixture::tiny_range_sum();
        let keys = Keys::ephemeral(circuit.id(), &mut rng).unwrap();
        let proved = prove(&keys, circuit, &mut rng).unwrap();
        let file = proof_file(&keys, &proved, range_sum_context(query));
        Made { storage, range_sum: (keys, file) }
    })
}

#[test]
fn proof_files_are_accepted_under_each_kind_of_trusted_key() {
    for (keys, file) in [&made().storage, &made().range_sum] {
        let bytes = serde_json::to_vec(file).unwrap();
        let file = read(&bytes).unwrap();
        let key = export_key(keys);
        let key = KeyFile::read(&serde_json::to_vec(&key).unwrap()).unwrap();
        let verdict = check(&file, &KeySource::File(&key)).unwrap();
        assert!(verdict.insecure_dev_key);
        assert_eq!((verdict.circuit, verdict.fingerprint), (keys.id, keys.fingerprint));
        let chain = KeySource::Chain { pinned_hash: keys.vk.pinned_hash() };
        assert!(check(&file, &chain).unwrap().insecure_dev_key);
        // Were the key a ceremony's, the binary would know it.
        let (circuit, hex) = (keys.id.to_string(), keys.vk.to_hex());
        let table = [KnownKey { circuit: circuit.leak(), key: hex.leak(), transcript: "" }];
        let file = ProofFile { insecure_dev_key: false, ..file };
        assert!(!check_with_table(&file, &KeySource::Binary, &table).unwrap().insecure_dev_key);
    }
}

#[test]
fn rejects_a_valid_triple_under_a_self_made_key() {
    let mut rng = rng(2);
    let honest = &made().storage;
    // The forger makes a key, so proves what it likes, and puts the key into the file with everything consistent.
    let forger = Keys::ephemeral(honest.0.id, &mut rng).unwrap();
    let proved = prove(&forger, storage_circuit(StorageShape::TINY), &mut rng).unwrap();
    let file = proof_file(&forger, &proved, honest.1.context.clone());
    groth16::verify(&forger.vk, &file.public_inputs, &file.proof).unwrap();
    let trusted = export_key(&honest.0);
    let unknown = |source: &KeySource<'_>| {
        assert!(matches!(check(&file, source), Err(ProofFileError::UnknownKey { .. })), "{source:?}");
    };
    unknown(&KeySource::Binary);
    unknown(&KeySource::File(&trusted));
    unknown(&KeySource::Chain { pinned_hash: honest.0.vk.pinned_hash() });
    // With the honest key's fingerprint over its own key, or the honest key over its own proof.
    let mislabelled = ProofFile { fingerprint: honest.0.fingerprint, ..file.clone() };
    assert!(matches!(check(&mislabelled, &KeySource::File(&trusted)), Err(ProofFileError::FileKey(_))));
    let borrowed = ProofFile { verification_key: honest.0.vk.to_hex(), ..mislabelled };
    assert!(matches!(check(&borrowed, &KeySource::File(&trusted)), Err(ProofFileError::Proof(_))));
}

#[test]
fn rejects_each_false_field() {
    let made = made();
    type Spoil<T> = fn(&mut T);
    let spoils: [(&str, Spoil<ProofFile>); 13] = [
        ("format", |f| f.format = "fluence-proof/2".to_owned()),
        ("curve", |f| f.curve = "bn128".to_owned()),
        ("protocol", |f| f.protocol = "plonk".to_owned()),
        ("circuit", |f| f.circuit = CircuitId::Storage(StorageShape::SMALL)),
        ("statement", |f| f.circuit = CircuitId::RangeSum(RangeSumShape::TINY)),
        ("dev key", |f| f.insecure_dev_key = false),
        ("too few inputs", |f| f.public_inputs.truncate(2)),
        ("too many inputs", |f| f.public_inputs.push(FieldBytes::ZERO)),
        ("root", |f| f.public_inputs[0] = FieldBytes::from_u64(1)),
        ("total", |f| f.public_inputs[1] = FieldBytes::from_u64(0)),
        ("seed", |f| f.public_inputs[2] = FieldBytes::from_u64(1)),
        ("proof", |f| f.proof.0[100] ^= 1),
        ("key", |f| f.verification_key.replace_range(10..11, "f")),
    ];
    let key = export_key(&made.storage.0);
    for (name, spoil) in spoils {
        let mut file = made.storage.1.clone();
        spoil(&mut file);
        assert!(check(&file, &KeySource::File(&key)).is_err(), "{name}");
    }
    let seeds: [(&str, Spoil<StorageSeed>); 7] = [
        ("chain", |s| s.chain_id += 1),
        ("contract", |s| s.contract = Address::from_bytes([9; 20])),
        ("node", |s| s.node = NodeId::from_bytes([9; 32])),
        ("epoch", |s| s.epoch.0 += 1),
        ("beacon", |s| s.beacon[0] ^= 1),
        ("shape", |s| s.shape += 1),
        ("proof index", |s| s.proof_index += 1),
    ];
    for (name, spoil) in seeds {
        let mut file = made.storage.1.clone();
        let ProofContext::Storage { seed } = &mut file.context else { unreachable!() };
        spoil(seed);
        let refused = check(&file, &KeySource::File(&key));
        assert!(matches!(refused, Err(ProofFileError::Context(_))), "{name}: {refused:?}");
    }
    let key = export_key(&made.range_sum.0);
    let queries: [(&str, Spoil<RangeSumQuery>); 6] = [
        ("database", |q| q.db = DatabaseId::from_bytes([9; 16])),
        ("projection", |q| q.projection.0 += 1),
        ("lane", |q| q.lane.0 += 1),
        ("lo", |q| q.ranges[0].lo += 1),
        ("a range less", |q| q.ranges.truncate(1)),
        // 2^40 more in lo and one less in hi make the same scalar.
        ("overflow", |q| (q.ranges[0].lo, q.ranges[0].hi) = (q.ranges[0].lo + (1 << 40), q.ranges[0].hi - 1)),
    ];
    for (name, spoil) in queries {
        let mut file = made.range_sum.1.clone();
        let ProofContext::RangeSum { query, .. } = &mut file.context else { unreachable!() };
        spoil(query);
        let refused = check(&file, &KeySource::File(&key));
        assert!(matches!(refused, Err(ProofFileError::Context(_))), "{name}: {refused:?}");
    }
    // Another sum for the same query.
    let mut file = made.range_sum.1.clone();
    file.public_inputs[2] = FieldBytes::from_u64(5);
    assert!(matches!(check(&file, &KeySource::File(&key)), Err(ProofFileError::Proof(_))));
}

#[test]
fn a_false_statement_is_refused_before_proving() {
    let (keys, _) = &made().range_sum;
    let (statement, witness) = fixture::range_sum(&fixture::two_live_segments(), &[RowRange { lo: 1, hi: 5 }; 2]);
    let mut phases = Vec::new();
    let wrong = fluence_types::statement::RangeSum { sum: FieldBytes::from_u64(7), ..statement };
    let circuit = RangeSumCircuit::new(RangeSumShape::TINY, wrong, witness);
    let refused = prove_with(keys, circuit, &mut rng(3), &mut |p| phases.push(p)).unwrap_err();
    assert!(matches!(refused, ProveError::Witness(_)), "{refused}");
    assert_eq!(phases, [Phase::Witness]);
    let refused = prove(keys, storage_circuit(StorageShape::TINY), &mut rng(3)).unwrap_err();
    assert!(matches!(refused, ProveError::Key { .. }), "{refused}");
    let refused = prove(keys, RangeSumCircuit::blank(RangeSumShape::TINY), &mut rng(3)).unwrap_err();
    assert!(matches!(refused, ProveError::Witness(_)), "{refused}");
}

#[test]
fn every_path_proves_under_one_key_and_refuses_a_false_statement() {
    let (_, query, circuit) = fixture::tiny_range_sum();
    for path in ProverPath::all() {
        // The same randomness makes the same key.
        let keys = Keys::ephemeral(circuit.id(), &mut rng(4)).unwrap().with_path(path);
        assert_eq!(keys.path_of_proofs(), path);
        let proved = prove(&keys, circuit.clone(), &mut rng(5)).unwrap();
        let file = proof_file(&keys, &proved, range_sum_context(query.clone()));
        check(&file, &KeySource::File(&export_key(&keys))).unwrap();
        let (statement, witness) = fixture::range_sum(&fixture::two_live_segments(), &[RowRange { lo: 1, hi: 5 }; 2]);
        let wrong = fluence_types::statement::RangeSum { sum: FieldBytes::from_u64(7), ..statement };
        let refused = prove(&keys, RangeSumCircuit::new(RangeSumShape::TINY, wrong, witness), &mut rng(6)).unwrap_err();
        assert!(matches!(refused, ProveError::Witness(_)), "{path:?}: {refused}");
    }
}

#[test]
fn a_scheduler_keeps_to_its_limits() {
    let (keys, _) = &made().range_sum;
    let (_, _, circuit) = fixture::tiny_range_sum();
    let two = NonZeroUsize::new(2).unwrap();
    let with = |memory_bytes| Scheduler::new(Limits { threads: Some(two), at_once: two, memory_bytes });
    // Memory for one proof at a time: both are made, one after the other.
    let need = keys.proof_memory_bytes(1);
    let narrow = with(Some(need));
    std::thread::scope(|s| {
        for seed in 0..2 {
            let (narrow, circuit) = (&narrow, circuit.clone());
            s.spawn(move || narrow.prove(keys, circuit, &mut rng(seed), &mut |_| ()).unwrap());
        }
    });
    let refused = with(Some(need - 1)).prove(keys, circuit.clone(), &mut rng(1), &mut |_| ()).unwrap_err();
    assert!(matches!(refused, ProveError::Memory { .. }), "{refused}");
    // Paused before it starts: it has told nothing when another thread looks, and goes on when let.
    let paused = with(None);
    paused.pause();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        let (paused_ref, circuit) = (&paused, circuit.clone());
        let proof = s.spawn(move || {
            paused_ref.prove(keys, circuit, &mut rng(2), &mut |phase| told.send(phase).unwrap()).unwrap();
        });
        assert!(heard.try_recv().is_err());
        paused.resume();
        proof.join().unwrap();
        assert_eq!(heard.into_iter().collect::<Vec<_>>(), [Phase::Witness, Phase::Prove, Phase::Verify]);
    });
}

#[test]
fn a_cached_key_is_made_once_and_damage_is_refused() {
    let id = CircuitId::Storage(StorageShape { samples: 1, holdings_levels: 0, stored_levels: 0, tree_levels: 0 });
    let dir = tempfile::tempdir().unwrap();
    // Two at once: the file lock lets one make the key.
    let load = |seed: u64| {
        let mut phases = Vec::new();
        let keys = Keys::load_or_setup_with(dir.path(), id, &mut rng(seed), &mut |p| phases.push(p)).unwrap();
        (keys.fingerprint, phases.contains(&Phase::Setup))
    };
    let ((a, made_a), (b, made_b)) = std::thread::scope(|s| {
        let (a, b) = (s.spawn(|| load(1)), s.spawn(|| load(2)));
        (a.join().unwrap(), b.join().unwrap())
    });
    assert_eq!(a, b);
    assert!(made_a != made_b, "one of the two makes it");
    assert_eq!(load(3), (a, false));

    let path = Keys::path(dir.path(), id);
    let whole = std::fs::read(&path).unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the key and its lock, no temporary file: {names:?}");
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let e = Keys::load_or_setup(dir.path(), id, |_| ()).unwrap_err();
        assert!(matches!(e, KeyError::Damaged { .. }), "{what}: {e}");
    };
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        refused(&bytes, "flipped");
        refused(&whole[..at], "cut");
    }
    // Whole, but another circuit's.
    let other = CircuitId::Storage(StorageShape { samples: 2, holdings_levels: 0, stored_levels: 0, tree_levels: 0 });
    std::fs::write(Keys::path(dir.path(), other), &whole).unwrap();
    let e = Keys::load_or_setup(dir.path(), other, |_| ()).unwrap_err();
    assert!(matches!(e, KeyError::Damaged { .. }), "{e}");
    // A folder that cannot be.
    let e = Keys::load_or_setup(path.join("x"), id, |_| ()).unwrap_err();
    assert!(matches!(e, KeyError::Io { .. }), "{e}");
}

#[test]
fn rows_are_kept_beside_the_key_of_a_pinned_shape_and_damage_is_made_good() {
    let (id, dir) = (CircuitId::Storage(StorageShape::TINY), tempfile::tempdir().unwrap());
    let load = || Keys::load_or_setup_with(dir.path(), id, &mut rng(1), &mut |_| ()).unwrap();
    let rows = Keys::path(dir.path(), id).with_extension("rows");
    let made = load();
    assert!(!rows.exists(), "whoever makes a key has the matrices");
    load();
    let whole = std::fs::read(&rows).unwrap();
    let proves = || {
        let keys = load();
        assert_eq!((keys.fingerprint, keys.constraints()), (made.fingerprint, made.constraints()));
        prove(&keys, storage_circuit(StorageShape::TINY), &mut rng(2)).unwrap();
    };
    proves();
    for bytes in [&whole[..whole.len() - 1], &[0; 100][..], &[]] {
        std::fs::write(&rows, bytes).unwrap();
        proves();
        assert_eq!(std::fs::read(&rows).unwrap(), whole);
    }
}

#[test]
fn points_are_read_from_the_file_that_was_checked_by_every_path() {
    let (id, dir) = (CircuitId::Storage(StorageShape::TINY), tempfile::tempdir().unwrap());
    let load = || Keys::load_or_setup_with(dir.path(), id, &mut rng(1), &mut |_| ()).unwrap();
    load();
    let path = Keys::path(dir.path(), id);
    for prover in ProverPath::all() {
        let keys = load().with_path(prover);
        // Another key takes its place, under the same name: the one that was checked is still the one that proves.
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"not a key").unwrap();
        prove(&keys, storage_circuit(StorageShape::TINY), &mut rng(2)).unwrap();
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_file_changed_after_its_check_makes_no_proof() {
    let (id, dir) = (CircuitId::Storage(StorageShape::TINY), tempfile::tempdir().unwrap());
    let load = || Keys::load_or_setup_with(dir.path(), id, &mut rng(1), &mut |_| ()).unwrap();
    load();
    let path = Keys::path(dir.path(), id);
    let whole = std::fs::read(&path).unwrap();
    type Change = fn(&mut Vec<u8>);
    // In place, so the open file sees it: cut, not canonical, other points.
    let changes: [(Change, bool); 3] = [
        (|b| b.truncate(b.len() / 2), true),
        (|b| b[2000..].fill(0xff), true),
        (
            |b| {
                let at = b.len() - 32 - 96 * 40;
                b.copy_within(at..at + 96 * 20, at + 96 * 20)
            },
            false,
        ),
    ];
    for (change, unreadable) in changes {
        for prover in ProverPath::all() {
            let keys = load().with_path(prover);
            let mut bytes = whole.clone();
            change(&mut bytes);
            std::fs::write(&path, &bytes).unwrap();
            let refused = prove(&keys, storage_circuit(StorageShape::TINY), &mut rng(2)).unwrap_err();
            match refused {
                ProveError::Points(_) => assert!(unreadable, "{prover:?}: {refused}"),
                ProveError::Unsound { .. } => assert!(!unreadable, "{prover:?}: {refused}"),
                other => panic!("{prover:?}: {other}"),
            }
            std::fs::write(&path, &whole).unwrap();
        }
    }
}

/// Writes `DIR/<statement>/{proof,public,vkey}.json` and `pinned.json` for `tests/interop/verify.mjs`, which checks them with snarkjs and
/// with @noble/curves: `FLUENCE_INTEROP_DIR=DIR cargo test -p fluence-prover --test prove export_for_other_tools`.
#[test]
fn export_for_other_tools() {
    let given = std::env::var_os("FLUENCE_INTEROP_DIR");
    let temporary = tempfile::tempdir().unwrap();
    let root = given.as_deref().map_or(temporary.path(), Path::new);
    for (keys, file) in [&made().storage, &made().range_sum] {
        let dir = root.join(keys.id.to_string().split('/').next().unwrap());
        std::fs::create_dir_all(&dir).unwrap();
        let files = snarkjs::export(file).unwrap();
        for (name, value) in files.named() {
            std::fs::write(dir.join(name), serde_json::to_string_pretty(value).unwrap() + "\n").unwrap();
        }
        let pinned = serde_json::json!({ "vk_hash": format!("0x{}", hex::encode(keys.vk.pinned_hash())) });
        std::fs::write(dir.join("pinned.json"), pinned.to_string() + "\n").unwrap();
        assert_eq!(files.public.as_array().unwrap().len(), files.vkey["nPublic"].as_u64().unwrap() as usize);
        assert_eq!(files.vkey["IC"].as_array().unwrap().len(), 4);
        assert_eq!(files.proof["curve"], "bls12381");
    }
    // What is no proof is not exported.
    let mut bad = made().storage.1.clone();
    bad.proof.0[0] = 0;
    assert!(snarkjs::export(&bad).is_err());
}

#[test]
fn the_figures_of_a_proof_are_reported() {
    let (keys, _) = &made().storage;
    let mut phases = Vec::new();
    let circuit = storage_circuit(StorageShape::TINY);
    let proved = prove_with(keys, circuit, &mut rng(5), &mut |p| phases.push(p)).unwrap();
    assert_eq!(phases, [Phase::Witness, Phase::Prove, Phase::Verify]);
    assert_eq!(proved.constraints, keys.constraints());
    assert!(proved.ms >= proved.prove_ms);
    assert!(proved.peak_memory_bytes.is_none_or(|b| b > 1 << 20));
}

/// CPU time of this process so far, in seconds; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<i64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
    // utime and stime, the eleventh and twelfth number after the state, in hundredths.
    fields.get(10..12).map_or(0.0, |t| t.iter().sum::<i64>() as f64 / 100.0)
}

/// Every path in turn, on one key and one witness: `cargo test -p fluence-prover --test prove paths_side_by_side -- --ignored --nocapture`.
/// Prints, and holds only that each proves; `make bench-compare` has the figures to go by.
#[test]
#[ignore = "slow: make test-slow"]
fn paths_side_by_side_slow() {
    let circuit = storage_circuit(StorageShape::SMALL);
    let mut keys = Keys::ephemeral(circuit.id(), &mut rng(7)).unwrap();
    println!("{} constraints, {} threads", keys.constraints(), std::thread::available_parallelism().unwrap());
    for _ in 0..3 {
        for path in ProverPath::all() {
            keys = keys.with_path(path);
            let (start, cpu) = (std::time::Instant::now(), cpu_seconds());
            keys.prepare().unwrap();
            let (ready, ready_cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            let (start, cpu) = (std::time::Instant::now(), cpu_seconds());
            let proved = prove(&keys, circuit.clone(), &mut rng(8)).unwrap();
            println!(
                "{path:?}: {:.2} s, {:.2} s of CPU ({} ms witness, {} ms proof, {} ms check); key made ready in {ready:.2} s, {ready_cpu:.2} s of CPU",
                start.elapsed().as_secs_f64(),
                cpu_seconds() - cpu,
                proved.witness_ms,
                proved.prove_ms,
                proved.verify_ms
            );
        }
    }
}

/// The shape of the demo, from setup to proof.
#[test]
#[ignore = "slow: make test-slow"]
fn small_storage_proof_slow() {
    let mut rng = rng(7);
    let circuit = storage_circuit(StorageShape::SMALL);
    let start = std::time::Instant::now();
    let keys = Keys::ephemeral(circuit.id(), &mut rng).unwrap();
    println!("setup {:?}, {} constraints", start.elapsed(), keys.constraints());
    let proved = prove(&keys, circuit, &mut rng).unwrap();
    println!("{proved:?}");
    let file = proof_file(&keys, &proved, ProofContext::Storage { seed: seed_parts(StorageShape::SMALL) });
    check(&file, &KeySource::File(&export_key(&keys))).unwrap();
}
