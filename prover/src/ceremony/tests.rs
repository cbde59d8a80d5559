//! Ceremonies of a tiny circuit, honest and not.

use super::error::Refusal;
use super::initial::{Combination, evaluate, rows_log2};
use super::knowledge::{Knowledge, hash_to_g2, secrets};
use super::output::blake2_of;
use super::phase1::{Layout, Powers, Section};
use super::points::{decode_single, encode};
use super::radix::Radix;
use super::ratio::combine;
use super::state::{Query, State, Writer};
use super::transcript::{Contribution, Head, Kind, Transcript};
use super::*;
use crate::{Keys, Phase, prove};
use ark_bls12_381::{Bls12_381, Fq, Fr, G1Affine, G1Projective, G2Affine};
use ark_ec::short_weierstrass::Affine;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{Field, One, UniformRand, Zero};
use ark_groth16::{Groth16, ProvingKey};
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use ark_serialize::Compress;
use fluence_circuits::fixture::{self, Owed};
use fluence_circuits::pin::Matrices;
use fluence_circuits::{Circuit, StorageCircuit};
use fluence_crypto::seed;
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::statement::StorageSeed;
use fluence_types::{Address, Epoch, NodeId};
use fluence_verifier::groth16;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The holdings root alone, no sample: 400 constraints and a few.
const SHAPE: StorageShape = StorageShape { samples: 0, holdings_levels: 1, stored_levels: 1, tree_levels: 1 };
const CIRCUIT: CircuitId = CircuitId::Storage(SHAPE);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn quiet() -> impl FnMut(&'static str, u64, u64) {
    |_, _, _| ()
}

fn g1(x: Fr) -> G1Affine {
    (G1Affine::generator() * x).into_affine()
}

fn g2(x: Fr) -> G2Affine {
    (G2Affine::generator() * x).into_affine()
}

/// A challenge written down from known secrets, by the format's description and not by our code.
fn challenge(path: &Path, power: u32, tau: Fr, alpha: Fr, beta: Fr) {
    let n = 1u64 << power;
    let mut bytes = vec![7; 64];
    let g1s = |count: u64, by: Fr| (0..count).map(|i| g1(by * tau.pow([i]))).collect::<Vec<_>>();
    bytes.extend(encode(&g1s(2 * n - 1, Fr::one()), Compress::No));
    bytes.extend(encode(&(0..n).map(|i| g2(tau.pow([i]))).collect::<Vec<_>>(), Compress::No));
    bytes.extend(encode(&g1s(n, alpha), Compress::No));
    bytes.extend(encode(&g1s(n, beta), Compress::No));
    bytes.extend(encode(&[g2(beta)], Compress::No));
    std::fs::write(path, bytes).unwrap();
}

/// A phase 1 with known secrets, and ceremonies on it, made once.
struct World {
    dir: TempDir,
    matrices: Matrices,
    log2: u32,
    ark: ProvingKey<Bls12_381>,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A fresh name in the folder.
    fn fresh(&self) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        self.path(&format!("t{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
    }

    fn radix(&self) -> Radix {
        Radix::read(&self.path("phase1"), &mut rng(3), &mut quiet()).unwrap()
    }
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let matrices = Matrices::of(CIRCUIT).unwrap();
        let log2 = rows_log2(&matrices);
        // The oracle draws tau itself, as its first draw: draw the same.
        let tau = Radix2EvaluationDomain::<Fr>::new(1 << log2).unwrap().sample_element_outside_domain(&mut rng(1));
        let (alpha, beta) = (Fr::rand(&mut rng(2)), Fr::rand(&mut rng(3)));
        let ark = Groth16::<Bls12_381>::generate_parameters_with_qap(
            StorageCircuit::blank(SHAPE),
            alpha,
            beta,
            Fr::one(),
            Fr::one(),
            G1Projective::from(G1Affine::generator()),
            G2Affine::generator().into(),
            &mut rng(1),
        )
        .unwrap();
        challenge(&path("challenge"), log2, tau, alpha, beta);
        import(&path("challenge"), &path("phase1"), log2, None, &mut rng(4), &mut quiet()).unwrap();
        let mut r = rng(5);
        create(&path("phase1"), CIRCUIT, &path("0"), &mut r, &mut quiet()).unwrap();
        contribute(&path("0"), &path("1"), "anna", b"a text", &mut r, &mut quiet()).unwrap();
        contribute(&path("1"), &path("2"), "bela", b"", &mut r, &mut quiet()).unwrap();
        beacon(&path("2"), &path("3"), [9; 32], 4, &mut quiet()).unwrap();
        World { dir, matrices, log2, ark }
    })
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, CeremonyError>) -> Refusal {
    match outcome {
        Err(CeremonyError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn verified(state: &Path) -> Result<Verified, CeremonyError> {
    verify(state, &world().path("phase1"), &mut rng(6), &mut quiet())
}

/// A state with another transcript, or other H and L, and a checksum that holds.
fn forged(from: &str, change: impl FnOnce(&mut Transcript, &mut Vec<G1Affine>, &mut Vec<G1Affine>)) -> PathBuf {
    let w = world();
    let mut state = State::open(&w.path(from)).unwrap();
    let (mut transcript, mut h, mut l) = (state.transcript.clone(), vec![], vec![]);
    let take = |_, p: Vec<G1Affine>| {
        h.extend(p);
        Ok(())
    };
    state.pieces(Query::H, take).unwrap();
    let take = |_, p: Vec<G1Affine>| {
        l.extend(p);
        Ok(())
    };
    state.pieces(Query::L, take).unwrap();
    change(&mut transcript, &mut h, &mut l);
    let path = w.fresh();
    let mut writer = Writer::create(&path, &transcript).unwrap();
    writer.points(&h).unwrap();
    writer.points(&l).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn the_initial_key_is_that_of_ark_for_the_same_secrets() {
    let w = world();
    let radix = w.radix();
    let initial = evaluate(&w.matrices, &radix, &mut quiet());
    assert_eq!(initial.a, w.ark.a_query);
    assert_eq!(initial.b_g1, w.ark.b_g1_query);
    assert_eq!(initial.b_g2, w.ark.b_g2_query);
    let (ic, l) = initial.ic_and_l.split_at(w.matrices.inputs);
    assert_eq!((ic, l), (&w.ark.vk.gamma_abc_g1[..], &w.ark.l_query[..]));
    assert_eq!(radix.h, w.ark.h_query);
    assert_eq!((radix.alpha_g1, radix.beta_g1, radix.beta_g2), (w.ark.vk.alpha_g1, w.ark.beta_g1, w.ark.vk.beta_g2));
    // The random combination of rows says the same without computing the columns.
    let all = Combination::new(&w.matrices, 1 << w.log2, 0..initial.a.len(), &mut rng(8));
    let sum = |v: &[G1Affine]| combine::<G1Projective>(v, &all.rho).into_affine();
    assert_eq!((sum(&initial.a), sum(&initial.ic_and_l)), (all.a(&radix), all.ic_and_l(&radix)));
    assert_eq!(sum(&initial.b_g1), all.b(&radix).0);
}

#[test]
fn a_ceremony_ends_in_a_key_that_proves_and_is_not_marked_insecure() {
    let w = world();
    let status = verified(&w.path("3")).unwrap().status;
    assert!(status.ended);
    let names: Vec<_> = status.contributions.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["anna", "bela", "beacon"]);
    assert_eq!(status.contributions[2].hash, status.hash);
    assert_eq!(super::status(&w.path("3")).unwrap().hash, status.hash);

    let dir = w.fresh();
    let done = finalize(&w.path("3"), &w.path("phase1"), &dir, &mut rng(7), &mut quiet()).unwrap();
    let keys = Keys::load_or_setup_with(&dir, CIRCUIT, &mut rng(0), &mut |p| assert_ne!(p, Phase::Setup)).unwrap();
    assert!(!keys.insecure_dev);
    assert_eq!(keys.transcript.unwrap().to_bytes(), status.hash);
    assert_eq!((keys.fingerprint, keys.vk.pinned_hash()), (done.fingerprint, done.pinned_hash));
    let written = std::fs::read(&done.transcript).unwrap();
    assert_eq!(Transcript::read(&written).unwrap().hash(), status.hash);
    let vkey = fluence_verifier::proof_file::KeyFile::read(&std::fs::read(&done.verification_key).unwrap()).unwrap();
    assert_eq!((vkey.insecure_dev_key, vkey.transcript), (false, keys.transcript));
    check_key(&dir, &w.path("3"), &w.path("phase1"), &mut rng(9), &mut quiet()).unwrap();

    let parts = StorageSeed {
        chain_id: 1,
        contract: Address::from_bytes([1; 20]),
        node: NodeId::from_bytes([2; 32]),
        epoch: Epoch(3),
        beacon: [4; 32],
        shape: StorageSeed::shape_word(SHAPE),
        proof_index: 0,
    };
    let (statement, witness) =
        fixture::storage(SHAPE, &fixture::databases()[1..2], Owed::Holdings, seed::storage_seed(&parts));
    let circuit = StorageCircuit::new(SHAPE, statement, witness);
    let inputs = circuit.public_inputs().unwrap();
    let proved = prove(&keys, circuit, &mut rng(10)).unwrap();
    groth16::verify(&keys.vk, &inputs, &proved.proof).unwrap();
    // A proof under a development key of the same circuit is another key's.
    let dev = Keys::ephemeral(CIRCUIT, &mut rng(11)).unwrap();
    assert!(groth16::verify(&dev.vk, &inputs, &proved.proof).is_err());
    // Nothing is overwritten, and a development key in its place is found out.
    let again = finalize(&w.path("3"), &w.path("phase1"), &dir, &mut rng(7), &mut quiet());
    assert!(matches!(again, Err(CeremonyError::Io { .. })), "{again:?}");
    let other = w.fresh();
    Keys::load_or_setup_with(&other, CIRCUIT, &mut rng(12), &mut |_| ()).unwrap();
    let why = refusal(check_key(&other, &w.path("3"), &w.path("phase1"), &mut rng(9), &mut quiet()));
    assert!(matches!(why, Refusal::Relation("the key names another transcript")), "{why:?}");
}

#[test]
fn a_ceremony_without_contributors_or_beacon_makes_no_key() {
    let w = world();
    let make = |state: &str| finalize(&w.path(state), &w.path("phase1"), &w.fresh(), &mut rng(7), &mut quiet());
    assert!(matches!(make("0"), Err(CeremonyError::NotEnded { contributions: 0 })));
    assert!(matches!(make("2"), Err(CeremonyError::NotEnded { contributions: 2 })));
    let alone = beacon(&w.path("0"), &w.fresh(), [1; 32], 4, &mut quiet());
    assert!(matches!(alone, Err(CeremonyError::NoContribution)), "{alone:?}");
    let more = contribute(&w.path("3"), &w.fresh(), "late", b"", &mut rng(1), &mut quiet());
    assert!(matches!(more, Err(CeremonyError::Ended)), "{more:?}");
}

#[test]
fn rejects_a_proof_of_knowledge_that_does_not_hold() {
    for spoil in [
        (|c: &mut Contribution| c.proof.r_x = g2(Fr::from(5u64))) as fn(&mut Contribution),
        |c| c.proof.s_x = g1(Fr::from(5u64)),
        |c| c.name = "somebody else".to_owned(),
        |c| c.delta_g1 = g1(Fr::from(5u64)),
    ] {
        let why = refusal(verified(&forged("2", |t, _, _| spoil(&mut t.contributions[1]))));
        assert!(matches!(why, Refusal::Contribution { number: 2, .. }), "{why:?}");
    }
    // The proof is for the factor, but delta moved by another; with a proof by the statement's rule.
    let path = forged("1", |t, _, _| {
        let (x, delta) = (Fr::from(7u64), t.delta().0);
        let claim = (delta, (t.delta().1 * Fr::from(8u64)).into_affine());
        let delta_g1 = (claim.0 * Fr::from(8u64)).into_affine();
        let bytes = Contribution::claim(&Kind::Contributor, "liar", &delta_g1, &claim.1);
        let proof = Knowledge::of(&x, g1(Fr::from(3u64)), Contribution::message(t.hash(), bytes));
        let c = Contribution { kind: Kind::Contributor, name: "liar".into(), delta_g1, delta_g2: claim.1, proof };
        t.contributions.push(c);
    });
    let why = refusal(verified(&path));
    assert!(matches!(why, Refusal::Contribution { number: 2, why } if why.contains("not the one before")), "{why:?}");
    // Delta in G2 moved by another.
    let path = forged("1", |t, _, _| {
        let x = Fr::from(7u64);
        let (delta_g1, delta_g2) = ((t.delta().0 * x).into_affine(), (t.delta().1 * Fr::from(8u64)).into_affine());
        let bytes = Contribution::claim(&Kind::Contributor, "liar", &delta_g1, &delta_g2);
        let proof = Knowledge::of(&x, g1(Fr::from(3u64)), Contribution::message(t.hash(), bytes));
        t.contributions.push(Contribution { kind: Kind::Contributor, name: "liar".into(), delta_g1, delta_g2, proof });
    });
    let why = refusal(verified(&path));
    assert!(matches!(why, Refusal::Contribution { number: 2, why } if why.contains("G2")), "{why:?}");
}

#[test]
fn rejects_a_contribution_of_another_ceremony_or_place() {
    let w = world();
    // Another ceremony of the same circuit and phase 1: its first contribution is bound to the same T_0, its second is not.
    let (one, two) = (w.fresh(), w.fresh());
    contribute(&w.path("0"), &one, "eve", b"", &mut rng(20), &mut quiet()).unwrap();
    contribute(&one, &two, "mallory", b"", &mut rng(21), &mut quiet()).unwrap();
    let stolen = State::open(&two).unwrap().transcript.contributions[1].clone();
    let why = refusal(verified(&forged("1", |t, _, _| t.contributions.push(stolen))));
    assert!(matches!(why, Refusal::Contribution { number: 2, .. }), "{why:?}");
    // The same one twice, and two in the other order.
    let why = refusal(verified(&forged("1", |t, _, _| t.contributions.push(t.contributions[0].clone()))));
    assert!(matches!(why, Refusal::Contribution { number: 2, .. }), "{why:?}");
    let why = refusal(verified(&forged("2", |t, _, _| t.contributions.swap(0, 1))));
    assert!(matches!(why, Refusal::Contribution { number: 1, .. }), "{why:?}");
    // Left out: what follows is bound to it.
    let why = refusal(verified(&forged("2", |t, _, _| drop(t.contributions.remove(0)))));
    assert!(matches!(why, Refusal::Contribution { number: 1, .. }), "{why:?}");
}

#[test]
fn rejects_a_factor_of_1_and_points_that_are_none() {
    let why = refusal(verified(&forged("1", |t, _, _| {
        let (delta_g1, delta_g2) = t.delta();
        let bytes = Contribution::claim(&Kind::Contributor, "idle", &delta_g1, &delta_g2);
        let proof = Knowledge::of(&Fr::one(), g1(Fr::from(3u64)), Contribution::message(t.hash(), bytes));
        t.contributions.push(Contribution { kind: Kind::Contributor, name: "idle".into(), delta_g1, delta_g2, proof });
    })));
    assert!(matches!(why, Refusal::Contribution { number: 2, why } if why.contains("is 1")), "{why:?}");

    let w = world();
    let bytes = State::open(&w.path("1")).unwrap().transcript.bytes();
    // delta in G1, delta in G2, s, s x, r x of the last contribution, from the end.
    for (from_end, length, what) in
        [(336, 48, "delta in G1"), (288, 96, "delta in G2"), (192, 48, "s"), (144, 48, "s x"), (96, 96, "r x")]
    {
        let at = bytes.len() - from_end;
        let mut infinity = bytes.clone();
        infinity[at..at + length].fill(0);
        infinity[at] = 0xc0;
        let why = Transcript::read(&infinity).unwrap_err();
        assert_eq!(why, Refusal::Point { what, index: 0, why: "the point at infinity" });
        if length == 48 {
            let mut outside = bytes.clone();
            outside[at..at + 48].copy_from_slice(&encode(&[outside_the_subgroup()], Compress::Yes));
            let why = Transcript::read(&outside).unwrap_err();
            assert!(matches!(why, Refusal::Point { why, .. } if why.contains("subgroup")), "{why:?}");
        }
    }
    // In H too, and off the curve: an uncompressed encoding can name any pair of coordinates.
    let why = refusal(verified(&forged("1", |_, h, _| h[5] = outside_the_subgroup())));
    assert!(matches!(why, Refusal::Point { what: "H", index: 5, .. }), "{why:?}");
    let off = Affine::new_unchecked(Fq::from(3u64), Fq::from(4u64));
    let why = refusal(verified(&forged("1", |_, _, l| l[2] = off)));
    assert!(matches!(why, Refusal::Point { what: "L", index: 2, .. }), "{why:?}");
}

fn outside_the_subgroup() -> G1Affine {
    (1u64..)
        .filter_map(|x| G1Affine::get_point_from_x_unchecked(Fq::from(x), false))
        .find(|p| !p.is_in_correct_subgroup_assuming_on_curve())
        .unwrap()
}

#[test]
fn rejects_h_or_l_that_was_not_divided() {
    let (mut h0, mut l0) = (vec![], vec![]);
    forged("0", |_, h, l| (h0, l0) = (h.clone(), l.clone()));
    let why = refusal(verified(&forged("1", |_, h, _| h.clone_from(&h0))));
    assert_eq!(why, Refusal::Relation("H is not the initial one divided by delta"));
    let why = refusal(verified(&forged("1", |_, _, l| l.clone_from(&l0))));
    assert_eq!(why, Refusal::Relation("L is not the initial one divided by delta"));
    // One point of many, another point in its place, or two exchanged.
    for at in [0, 100, h0.len() - 1] {
        let why = refusal(verified(&forged("1", |_, h, _| h[at] = (h[at] + G1Affine::generator()).into_affine())));
        assert_eq!(why, Refusal::Relation("H is not the initial one divided by delta"), "{at}");
    }
    let why = refusal(verified(&forged("1", |_, _, l| l.swap(3, 4))));
    assert_eq!(why, Refusal::Relation("L is not the initial one divided by delta"));
    // H and L divided, but the transcript has forgotten by whom.
    let why = refusal(verified(&forged("2", |t, _, _| drop(t.contributions.pop()))));
    assert_eq!(why, Refusal::Relation("H is not the initial one divided by delta"));
}

#[test]
fn rejects_a_head_of_another_circuit_or_phase_1() {
    let w = world();
    let head = |change: fn(&mut Head)| refusal(verified(&forged("0", |t, _, _| change(&mut t.head))));
    let why = head(|h| h.matrix_hash[0] ^= 1);
    assert!(matches!(why, Refusal::OtherCircuit { .. }), "{why:?}");
    let why = head(|h| h.circuit = CircuitId::Storage(StorageShape { holdings_levels: 2, ..SHAPE }));
    assert!(matches!(why, Refusal::OtherCircuit { .. }), "{why:?}");
    let why = head(|h| h.phase1_hash[0] ^= 1);
    assert!(matches!(why, Refusal::OtherPhase1 { .. }), "{why:?}");
    let why = head(|h| h.inputs += 1);
    assert!(matches!(why, Refusal::Vectors { what: "the inputs", .. }), "{why:?}");
    // A shape that would take all memory is refused before it is built.
    let huge = StorageShape { samples: 1024, ..SHAPE };
    let path = forged("0", |t, _, _| t.head.circuit = CircuitId::Storage(huge));
    assert!(matches!(verified(&path), Err(CeremonyError::Circuit(_))));
    // The right head, but another phase 1 is given.
    let (other, radix) = (w.fresh(), w.fresh());
    challenge(&other, w.log2, Fr::from(11u64), Fr::from(12u64), Fr::from(13u64));
    import(&other, &radix, w.log2, None, &mut rng(4), &mut quiet()).unwrap();
    let why = refusal(verify(&w.path("1"), &radix, &mut rng(6), &mut quiet()));
    assert!(matches!(why, Refusal::OtherPhase1 { .. }), "{why:?}");
}

#[test]
fn rejects_a_beacon_that_is_another_or_not_the_last() {
    let beacon_of = |value: [u8; 32], log2: u8| {
        forged("3", |t, _, _| t.contributions[2].kind = Kind::Beacon { value, iterations_log2: log2 })
    };
    for path in [beacon_of([8; 32], 4), beacon_of([9; 32], 5)] {
        let why = refusal(verified(&path));
        assert!(matches!(why, Refusal::Contribution { number: 3, .. }), "{why:?}");
    }
    // A contributor's secret, with a proof that holds, dressed as a beacon.
    let path = forged("2", |t, h, l| {
        let x = Fr::from(77u64);
        let kind = Kind::Beacon { value: [1; 32], iterations_log2: 1 };
        let (delta_g1, delta_g2) = ((t.delta().0 * x).into_affine(), (t.delta().1 * x).into_affine());
        let bytes = Contribution::claim(&kind, "beacon", &delta_g1, &delta_g2);
        let proof = Knowledge::of(&x, g1(Fr::from(3u64)), Contribution::message(t.hash(), bytes));
        t.contributions.push(Contribution { kind, name: "beacon".into(), delta_g1, delta_g2, proof });
        let inverse = x.inverse().unwrap();
        h.iter_mut().chain(l).for_each(|p| *p = (*p * inverse).into_affine());
    });
    let why = refusal(verified(&path));
    assert!(matches!(why, Refusal::Contribution { number: 3, why } if why.contains("beacon")), "{why:?}");
    let more = forged("3", |t, _, _| t.contributions.push(t.contributions[0].clone()));
    let why = refusal(verified(&more));
    assert!(matches!(why, Refusal::Contribution { number: 4, why } if why.contains("beacon")), "{why:?}");
}

#[test]
fn rejects_every_cut_and_flipped_byte_and_every_huge_length() {
    let w = world();
    let bytes = State::open(&w.path("1")).unwrap().transcript.bytes();
    assert!(Transcript::read(&bytes).unwrap().check(true, &mut quiet()).is_ok());
    for cut in 0..bytes.len() {
        assert!(Transcript::read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(Transcript::read(&[&bytes[..], &[0]].concat()).is_err());
    // Every byte, another bit of each: refused where it is read, or by an equation.
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let outcome = Transcript::read(&bad).and_then(|t| t.check(true, &mut quiet()));
        assert!(outcome.is_err(), "byte {at}");
    }
    let head = State::open(&w.path("1")).unwrap().transcript.head;
    let count = Transcript { head, contributions: vec![] }.bytes().len() - 2;
    let mut many = bytes.clone();
    many[count..count + 2].fill(0xff);
    assert!(matches!(Transcript::read(&many), Err(Refusal::Limit { what: "the number of contributions", .. })));
    let mut long = bytes.clone();
    long[count + 3] = 0xff;
    assert!(matches!(Transcript::read(&long), Err(Refusal::Limit { what: "a contributor's name", .. })));

    // The file around it.
    let whole = std::fs::read(w.path("2")).unwrap();
    let path = w.fresh();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        State::open(&path).err()
    };
    assert!(open(&whole).is_none());
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        assert!(open(&bad).is_some(), "byte {at}");
        assert!(open(&whole[..at]).is_some(), "cut at {at}");
    }
    let mut huge = whole.clone();
    huge[8..12].fill(0xff);
    assert!(matches!(
        open(&huge),
        Some(CeremonyError::Refused { why: Refusal::Limit { what: "the length of the transcript", .. }, .. })
    ));
    // A number that asks for 2^22 rows meets a file that has not as many.
    let k = 8 + 1 + CIRCUIT.to_string().len() + 32 + 64;
    let mut rows = whole;
    rows[12 + k] = 22;
    assert!(matches!(open(&rows), Some(CeremonyError::Refused { why: Refusal::Size { .. }, .. })));
}

#[test]
fn names_and_texts_have_limits_and_files_are_never_replaced() {
    let w = world();
    let give =
        |name: &str, text: &[u8], out: &Path| contribute(&w.path("0"), out, name, text, &mut rng(1), &mut quiet());
    let out = w.fresh();
    assert!(matches!(refusal(give(&"x".repeat(65), b"", &out)), Refusal::Malformed(_)));
    assert!(matches!(refusal(give("bell\u{7}", b"", &out)), Refusal::Malformed(_)));
    assert!(matches!(give("x", &vec![0; (1 << 16) + 1], &out), Err(CeremonyError::Limit { .. })));
    assert!(!out.exists());
    let before = std::fs::read(w.path("1")).unwrap();
    assert!(matches!(give("x", b"", &w.path("1")), Err(CeremonyError::Io { .. })));
    assert_eq!(std::fs::read(w.path("1")).unwrap(), before);
}

#[test]
fn a_contribution_that_is_killed_leaves_what_was_there_and_nothing_else() {
    let w = world();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("next");
    let before = std::fs::read(w.path("1")).unwrap();
    let killed = std::panic::catch_unwind(|| {
        contribute(&w.path("1"), &out, "x", b"", &mut rng(1), &mut |what, _, _| assert_ne!(what, "L", "killed here"))
    });
    assert!(killed.is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read(w.path("1")).unwrap(), before);
    contribute(&w.path("1"), &out, "x", b"", &mut rng(1), &mut quiet()).unwrap();
    verified(&out).unwrap();
}

#[test]
fn secrets_come_from_generator_and_text_and_are_never_0_or_1() {
    let draw = |seed, text: &[u8]| *secrets(2, text, &mut rng(seed))[1];
    assert_eq!(draw(1, b"a"), draw(1, b"a"));
    assert_ne!(draw(1, b"a"), draw(1, b"b"));
    assert_ne!(draw(1, b"a"), draw(2, b"a"));
    assert!(secrets(64, b"", &mut rng(1)).iter().all(|x| !x.is_zero() && !x.is_one()));
}

// ---- phase 1 ----------------------------------------------------------------------------------------------------------------

#[test]
fn phase_1_goes_round_and_its_result_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let first = phase1_create(&path("c0"), 3, &mut quiet()).unwrap();
    for i in 0..2u32 {
        let (c, r, next) = (path(&format!("c{i}")), path(&format!("r{i}")), path(&format!("c{}", i + 1)));
        let made = phase1_contribute(&c, &r, b"text", &mut rng(30 + u64::from(i)), &mut quiet()).unwrap();
        let seen = phase1_verify(&c, &r, Some(&next), &mut rng(1), &mut quiet()).unwrap();
        assert_eq!((made.response, made.challenge), (seen.response, seen.challenge));
        assert_eq!(std::fs::read(&next).unwrap()[..64], made.response);
    }
    assert_eq!(blake2_of(&path("c0"), &mut quiet()).unwrap(), first);
    // From the response and from the challenge made of it, for the whole and for less.
    for log2 in [1, 2, 3] {
        let [a, b] = ["r1", "c2"].map(|source| {
            let out = path(&format!("{source}-{log2}"));
            let done = import(&path(source), &out, log2, None, &mut rng(2), &mut quiet()).unwrap();
            assert_eq!((done.power, done.log2), (3, log2));
            std::fs::read(out).unwrap()
        });
        assert_eq!(a, b);
        assert_eq!(a.len() as u64, super::radix::length(log2));
    }
    // Imported again it is the same; with another published hash, too small, or of no length, it is refused.
    let again = import(&path("r1-2"), &path("again"), 2, None, &mut rng(2), &mut quiet()).unwrap();
    assert_eq!((again.origin, again.hash), (Origin::Radix, again.source_hash));
    let why = refusal(import(&path("r1"), &path("x"), 2, Some(&[1; 64]), &mut rng(2), &mut quiet()));
    assert!(matches!(why, Refusal::Hash { .. }), "{why:?}");
    import(
        &path("r1"),
        &path("expected"),
        2,
        Some(&blake2_of(&path("r1"), &mut quiet()).unwrap()),
        &mut rng(2),
        &mut quiet(),
    )
    .unwrap();
    let why = refusal(import(&path("r1"), &path("x"), 4, None, &mut rng(2), &mut quiet()));
    assert_eq!(why, Refusal::TooSmall { has: 3, need: 4 });
    std::fs::write(path("odd"), [0; 1000]).unwrap();
    assert_eq!(refusal(import(&path("odd"), &path("x"), 2, None, &mut rng(2), &mut quiet())), Refusal::Length(1000));
    // A phase 1 to which nobody contributed.
    let why = refusal(import(&path("c0"), &path("x"), 2, None, &mut rng(2), &mut quiet()));
    assert!(matches!(why, Refusal::Relation(what) if what.contains("nobody")), "{why:?}");
    assert!(!path("x").exists());
}

#[test]
fn rejects_a_response_that_lies() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    phase1_create(&path("c0"), 2, &mut quiet()).unwrap();
    phase1_contribute(&path("c0"), &path("r0"), b"", &mut rng(1), &mut quiet()).unwrap();
    phase1_verify(&path("c0"), &path("r0"), Some(&path("c1")), &mut rng(2), &mut quiet()).unwrap();
    phase1_contribute(&path("c1"), &path("r1"), b"", &mut rng(3), &mut quiet()).unwrap();
    let good = std::fs::read(path("r1")).unwrap();
    let layout = Layout::of_length(good.len() as u64).unwrap();
    assert!(layout.is_response() && layout.power == 2);
    let lie = |bytes: &[u8]| {
        std::fs::write(path("lie"), bytes).unwrap();
        refusal(phase1_verify(&path("c1"), &path("lie"), Some(&path("next")), &mut rng(2), &mut quiet()))
    };
    // An answer to the challenge before.
    assert_eq!(lie(&std::fs::read(path("r0")).unwrap()), Refusal::Challenge);
    // Any point of the accumulator or of the key replaced by another good one.
    let (points, key) = (64, good.len() - (6 * 96 + 3 * 192));
    let other = encode(&[g1(Fr::from(99u64))], Compress::Yes);
    let mut replaced = 0;
    for at in (points..points + 7 * 48).step_by(48).chain((points + 7 * 48 + 4 * 96..key - 96).step_by(48)) {
        let mut bad = good.clone();
        bad[at..at + 48].copy_from_slice(&other);
        assert!(matches!(lie(&bad), Refusal::Relation(_)), "byte {at}");
        replaced += 1;
    }
    assert_eq!(replaced, 7 + 4 + 4);
    let other = encode(&[g2(Fr::from(99u64))], Compress::Yes);
    for at in (points + 7 * 48..points + 7 * 48 + 4 * 96).step_by(96).chain([key - 96]) {
        let mut bad = good.clone();
        bad[at..at + 96].copy_from_slice(&other);
        assert!(matches!(lie(&bad), Refusal::Relation(_)), "byte {at}");
    }
    for at in (key..key + 6 * 96).step_by(96) {
        let mut bad = good.clone();
        bad[at..at + 96].copy_from_slice(&encode(&[g1(Fr::from(99u64))], Compress::No));
        assert!(matches!(lie(&bad), Refusal::Contribution { .. }), "byte {at}");
    }
    for at in (key + 6 * 96..good.len()).step_by(192) {
        let mut bad = good.clone();
        bad[at..at + 192].copy_from_slice(&encode(&[g2(Fr::from(99u64))], Compress::No));
        assert!(matches!(lie(&bad), Refusal::Contribution { .. }), "byte {at}");
    }
    for at in (0..good.len()).step_by(61) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        lie(&bad);
    }
    assert!(matches!(lie(&good[..good.len() - 1]), Refusal::Length(_)));
    assert!(!path("next").exists(), "a refused response makes no challenge");
}

#[test]
fn rejects_a_lagrange_file_with_any_point_replaced() {
    let w = world();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    challenge(&path("c"), 3, Fr::from(11u64), Fr::from(12u64), Fr::from(13u64));
    import(&path("c"), &path("radix"), 3, None, &mut rng(1), &mut quiet()).unwrap();
    let good = std::fs::read(path("radix")).unwrap();
    let (one, two) = (encode(&[g1(Fr::from(99u64))], Compress::No), encode(&[g2(Fr::from(99u64))], Compress::No));
    let m = 8;
    let g2_from = 384 + 96 * m;
    let places = (0..2 * 96).step_by(96).chain((384..g2_from).step_by(96)).map(|at| (at, &one));
    let places = places.chain((g2_from + 192 * m..good.len()).step_by(96).map(|at| (at, &one)));
    let places = places.chain([192].into_iter().chain((g2_from..g2_from + 192 * m).step_by(192)).map(|at| (at, &two)));
    let mut count = 0;
    for (at, point) in places {
        let mut bad = good.clone();
        bad[at..at + point.len()].copy_from_slice(point);
        std::fs::write(path("bad"), bad).unwrap();
        let why = Radix::read(&path("bad"), &mut rng(2), &mut quiet()).map(|_| ());
        assert!(matches!(refusal(why), Refusal::Relation(_)), "byte {at}");
        count += 1;
    }
    assert_eq!(count, 2 + 1 + 4 * m + m - 1);
    assert!(w.radix().h.len() + 1 == 1 << w.log2);
}

/// `tests/vectors/phase1.json` is written by JavaScript with @noble/curves: each format byte by byte, from secrets it names.
#[test]
fn reads_files_that_another_program_wrote() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/phase1.json")).unwrap();
    let vector: serde_json::Value = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["challenge", "response", "phase1radix2m2"] {
        let bytes = hex::decode(vector[name].as_str().unwrap()).unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let path = |name: &str| dir.path().join(name);
    let radix = std::fs::read(path("phase1radix2m2")).unwrap();
    for (source, origin) in
        [("response", Origin::Response), ("next", Origin::Challenge), ("phase1radix2m2", Origin::Radix)]
    {
        if source == "next" {
            // Its proofs of knowledge hold, so both programs hash to the same points of G2.
            let seen =
                phase1_verify(&path("challenge"), &path("response"), Some(&path("next")), &mut rng(1), &mut quiet())
                    .unwrap();
            assert_eq!(hex::encode(seen.response), vector["response_hash"].as_str().unwrap());
        }
        let out = path(&format!("{source}.radix"));
        let done = import(&path(source), &out, 2, None, &mut rng(2), &mut quiet()).unwrap();
        assert_eq!((done.origin, hex::encode(done.hash).as_str()), (origin, vector["radix_hash"].as_str().unwrap()));
        assert_eq!(std::fs::read(out).unwrap(), radix, "{source}");
    }
    let g2_hash = encode(&[hash_to_g2(b"abc")], Compress::Yes);
    assert_eq!(hex::encode(g2_hash), vector["hash_to_g2_abc"].as_str().unwrap());
    // The first power in the file is the one the vector's secret makes.
    let mut powers = Powers::open(&path("response")).unwrap();
    let tau: G1Affine = powers.read(Section::TauG1, 1, 1).unwrap()[0];
    let known: Fr = vector["tau"].as_str().unwrap().parse().unwrap();
    assert_eq!(tau, g1(known));
    let bytes = encode(&[tau], Compress::Yes);
    assert_eq!(decode_single::<G1Affine>(&bytes, Compress::Yes, "tau").unwrap(), tau);
}
