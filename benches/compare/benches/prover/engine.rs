//! What runs in a process of its own: one engine, one circuit, orders from standard input, one line of figures for each.

use crate::bell::Bell;
use ark_bls12_381::{Bls12_381, Fr};
use ark_groth16::{Groth16, ProvingKey, prepare_verifying_key};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use fluence_circuits::fixture::{self, Database, Owed, Segment};
use fluence_circuits::pin::Matrices;
use fluence_circuits::{Circuit, RangeSumCircuit, StorageCircuit};
use fluence_crypto::field;
use fluence_prover::{Keys, Limits, Proved, ProverPath, Scheduler, peak_memory_bytes};
use fluence_types::FieldBytes;
use fluence_types::shape::{CircuitId, RangeSumShape, StorageShape};
use fluence_types::statement::RowRange;
use fluence_verifier::groth16::{verify, verify_batch};
use rand::rngs::OsRng;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

/// Where keys are kept between runs.
pub const KEYS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/prover-keys");

/// Domain and circuit: one run, ten samples of the demo's shape, the production shape and one of twice its samples.
pub const CIRCUITS: [(u32, CircuitId); 4] = [
    (14, CircuitId::RangeSum(RangeSumShape::ONE)),
    (16, CircuitId::Storage(StorageShape { samples: 10, ..StorageShape::SMALL })),
    (17, CircuitId::Storage(StorageShape::PRODUCTION)),
    (18, CircuitId::Storage(StorageShape { samples: 32, ..StorageShape::PRODUCTION })),
];

/// Rows of the segment that a range sum is about.
const ROWS: u64 = 1 << 17;

/// Who proves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours(ProverPath),
    Ark,
    Bellperson,
}

/// All of them, ours first; the first that runs here is what the others are compared with.
pub const KINDS: [Kind; 4] = [Kind::Ours(ProverPath::Ifma), Kind::Ours(ProverPath::Blst), Kind::Ark, Kind::Bellperson];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours(ProverPath::Ifma) => "fluence-ifma",
            Self::Ours(ProverPath::Blst) => "fluence-blst",
            Self::Ours(_) => "fluence",
            Self::Ark => "ark",
            Self::Bellperson => "bellperson",
        }
    }

    pub fn runs_here(self) -> bool {
        match self {
            Self::Ours(path) => ProverPath::all().contains(&path),
            _ => true,
        }
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        KINDS.into_iter().find(|k| k.name() == name).ok_or_else(|| format!("no engine {name}"))
    }
}

/// What an order cost.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub wall_s: f64,
    pub cpu_s: f64,
    /// Largest resident set of the process so far.
    pub peak_mib: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.wall_s, self.cpu_s, self.peak_mib)
    }
}

impl FromStr for Figures {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        match numbers.map_err(|e| e.to_string())?[..] {
            [wall_s, cpu_s, peak_mib] => Ok(Self { wall_s, cpu_s, peak_mib }),
            _ => Err("three numbers expected".to_owned()),
        }
    }
}

/// CPU time of this process so far, in seconds: utime and stime, in hundredths.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split(' ').collect();
    fields[12..14].iter().map(|t| t.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

fn peak_mib() -> f64 {
    peak_memory_bytes().expect("Linux") as f64 / f64::from(1 << 20)
}

fn timed<T>(act: impl FnOnce() -> T) -> (Figures, T) {
    let (start, cpu) = (Instant::now(), cpu_s());
    let value = act();
    (Figures { wall_s: start.elapsed().as_secs_f64(), cpu_s: cpu_s() - cpu, peak_mib: peak_mib() }, value)
}

pub fn constraints(circuit: CircuitId) -> usize {
    Matrices::of(circuit).expect("a circuit of ours").constraints()
}

fn storage(shape: StorageShape) -> StorageCircuit {
    let segments = (0..20u64).map(|i| Segment::plain(i, 1 << (i % 10))).collect();
    let databases = [Database::new(1, segments), Database::new(2, vec![Segment::plain(99, 3_000)])];
    let (statement, witness) = fixture::storage(shape, &databases, Owed::Holdings, FieldBytes::from_u64(7));
    StorageCircuit::new(shape, statement, witness)
}

fn range_sum(shape: RangeSumShape) -> RangeSumCircuit {
    let database = Database::new(3, vec![Segment::with_lane(0, ROWS)]);
    let (statement, witness) = fixture::range_sum(&database, &[RowRange { lo: ROWS / 7, hi: ROWS - ROWS / 5 }]);
    RangeSumCircuit::new(shape, statement, witness)
}

/// Does what standard input says until it ends.
pub fn obey(kind: Kind, circuit: CircuitId) {
    match circuit {
        CircuitId::Storage(shape) => orders(kind, circuit, || storage(shape)),
        CircuitId::RangeSum(shape) => orders(kind, circuit, || range_sum(shape)),
        _ => panic!("no such statement"),
    }
}

/// One of `times` in a row: the system counts CPU time in hundredths of a second.
fn each(times: u32, act: impl Fn()) -> Figures {
    let (Figures { wall_s, cpu_s, peak_mib }, ()) = timed(|| (0..times).for_each(|_| act()));
    Figures { wall_s: wall_s / f64::from(times), cpu_s: cpu_s / f64::from(times), peak_mib }
}

fn orders<C: Circuit + Clone + Send>(kind: Kind, id: CircuitId, circuit: impl FnOnce() -> C) {
    let file = |ending: &str| PathBuf::from(KEYS).join(format!("{}.{ending}", id.to_string().replace('/', "_")));
    let mut lines = std::io::stdin().lines().map(|l| l.expect("text"));
    let first = lines.next().expect("an order");
    if first == "setup" {
        return say(timed(|| setup(kind, id, &file)).0);
    }
    assert_eq!(first, "load");
    let (figures, loaded) = timed(|| Loaded::new(kind, id, &file));
    say(figures);
    let circuit = (kind != Kind::Bellperson).then(circuit);
    let mut last = None;
    for order in lines {
        match (&last, &order[..]) {
            (Some(Proved { witness_ms, prove_ms, verify_ms, .. }), "phases") => {
                say(format!(
                    "{witness_ms} ms check and assignment, {prove_ms} ms points, {verify_ms} ms check of the proof"
                ));
            }
            _ => say(loaded.run(&order, circuit.as_ref(), &mut last)),
        }
    }
}

fn say(answer: impl fmt::Display) {
    println!("{answer}");
    std::io::stdout().flush().expect("somebody reads");
}

fn read_ark(path: &Path) -> ProvingKey<Bls12_381> {
    let file = BufReader::with_capacity(1 << 20, File::open(path).expect("set up before"));
    ProvingKey::deserialize_uncompressed_unchecked(file).expect("our own file")
}

fn setup(kind: Kind, id: CircuitId, file: &dyn Fn(&str) -> PathBuf) {
    match kind {
        Kind::Ours(_) => drop(Keys::load_or_setup(KEYS, id, |_| ()).expect("a key")),
        // The same key, as ark-groth16 would keep it: the bare proving key, points as they are in memory.
        Kind::Ark => {
            let keys = Keys::load_or_setup(KEYS, id, |_| ()).expect("a key");
            let mut out = BufWriter::new(File::create(file("ark")).expect("the target folder can be written"));
            keys.proving_key().expect("a key").serialize_uncompressed(&mut out).expect("the disk has room");
            out.flush().expect("the disk has room");
        }
        Kind::Bellperson if file("bell").exists() => {}
        Kind::Bellperson => Bell::setup(&file("bell"), constraints(id)),
    }
}

/// An engine with its key.
#[allow(clippy::large_enum_variant)] // there is one
enum Loaded {
    Ours(Keys, Scheduler),
    Ark(ProvingKey<Bls12_381>),
    Bellperson(Bell),
}

impl Loaded {
    fn new(kind: Kind, id: CircuitId, file: &dyn Fn(&str) -> PathBuf) -> Self {
        match kind {
            Kind::Ours(path) => {
                let keys = Keys::load_or_setup(KEYS, id, |_| ()).expect("set up before").with_path(path);
                keys.prepare().expect("our own file");
                let threads = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
                Self::Ours(keys, Scheduler::new(Limits { threads, ..Limits::default() }))
            }
            Kind::Ark => Self::Ark(read_ark(&file("ark"))),
            Kind::Bellperson => Self::Bellperson(Bell::load(&file("bell"), constraints(id))),
        }
    }

    fn run<C: Circuit + Clone + Send>(&self, order: &str, circuit: Option<&C>, last: &mut Option<Proved>) -> Figures {
        let circuit = || circuit.expect("made for this engine").clone();
        match (self, order) {
            (Self::Ours(keys, scheduler), "prove") => {
                let prove = || scheduler.prove(keys, circuit(), &mut OsRng, &mut |_| ()).expect("a proof");
                let (figures, proved) = timed(prove);
                *last = Some(proved);
                figures
            }
            // Two proofs, each on half of the threads.
            (Self::Ours(keys, scheduler), "two") => {
                let at_once = NonZeroUsize::new(2).expect("not 0");
                let two = Scheduler::new(Limits { at_once, ..scheduler.limits() });
                let prove = |circuit: C| two.prove(keys, circuit, &mut OsRng, &mut |_| ()).expect("a proof");
                let circuits = [circuit(), circuit()];
                timed(|| std::thread::scope(|s| circuits.map(|c| s.spawn(|| prove(c))).map(|t| drop(t.join())))).0
            }
            (Self::Ours(keys, _), order) => {
                let proved = last.as_ref().expect("proven before");
                let inputs = &proved.public_inputs[..];
                match order {
                    "verify" => each(20, || verify(&keys.vk, inputs, &proved.proof).expect("it verifies")),
                    "batch" => {
                        let batch = vec![(inputs, &proved.proof); 100];
                        each(5, || verify_batch(&keys.vk, &batch, &mut OsRng).expect("all verify"))
                    }
                    order => panic!("no order {order}"),
                }
            }
            (Self::Ark(pk), "prove") => {
                let prove = || Groth16::<Bls12_381>::create_random_proof_with_reduction(circuit(), pk, &mut OsRng);
                let (figures, proof) = timed(|| prove().expect("a proof"));
                let inputs: Vec<Fr> =
                    circuit().public_inputs().expect("a statement").iter().map(field::from_bytes).collect();
                let key = prepare_verifying_key(&pk.vk);
                assert!(Groth16::<Bls12_381>::verify_proof(&key, &proof, &inputs).expect("a key"));
                figures
            }
            (Self::Bellperson(bell), "prove") => {
                let (figures, proof) = timed(|| bell.prove());
                bell.check(&proof);
                figures
            }
            (_, order) => panic!("no order {order}"),
        }
    }
}
