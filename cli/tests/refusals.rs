//! `fluence verify` against files made to look right: garbage, a self-made key with a valid proof, changed fields. No network.

use ark_bls12_381::{Fr, G1Projective, G2Projective};
use ark_ec::{CurveGroup, PrimeGroup};
use ark_ff::{Field, UniformRand};
use fluence_crypto::{field, roots};
use fluence_types::proof::{ProofContext, ProofFile};
use fluence_types::shape::{CircuitId, RangeSumShape};
use fluence_types::statement::{RangeSumQuery, RowRange};
use fluence_types::{DatabaseId, FieldBytes, Height, LaneId, ProjectionId, TranscriptHash};
use fluence_verifier::groth16::{Proof, VerificationKey};
use fluence_verifier::proof_file::KeyFile;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const CIRCUIT: CircuitId = CircuitId::RangeSum(RangeSumShape::ONE);
/// As of a ceremony: what a key file says of itself counts only because the caller trusts the file.
const TRANSCRIPT: Option<TranscriptHash> = Some(TranscriptHash::from_bytes([5; 32]));

fn verify(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fluence"))
        .arg("verify")
        .args(args)
        .arg("--json")
        .env_clear()
        .env("FLUENCE_HOME", dir.join("home"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the program under test starts")
}

/// A key whose maker kept its secrets, and a proof of anything under it: the triple satisfies the pairing equation.
fn self_made(seed: u64) -> (VerificationKey, ProofFile) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let (g, h) = (G1Projective::generator(), G2Projective::generator());
    let mut scalar = || Fr::rand(rng);
    let (alpha, beta, gamma, delta, a, b) = (scalar(), scalar(), scalar(), scalar(), scalar(), scalar());
    let ic = [scalar(), scalar(), scalar(), scalar()];
    let db = DatabaseId::from_bytes([7; 16]);
    let query = RangeSumQuery {
        db,
        projection: ProjectionId(0),
        lane: LaneId(3),
        ranges: vec![RowRange { lo: 0, hi: 1_000_000 }],
    };
    let inputs = [FieldBytes::from_u64(1), roots::query_digest(&query), FieldBytes::from_u64(42)];
    let x = inputs.iter().zip(&ic[1..]).fold(ic[0], |sum, (x, i)| sum + field::from_bytes(x) * i);
    let c = (a * b - alpha * beta - x * gamma) * delta.inverse().expect("not zero");
    let (g1, g2) = (|s: Fr| (g * s).into_affine(), |s: Fr| (h * s).into_affine());
    let ic: Vec<_> = ic.into_iter().map(g1).collect();
    let key = VerificationKey::from_points(&g1(alpha), &g2(beta), &g2(gamma), &g2(delta), &ic).unwrap();
    let file = ProofFile {
        format: fluence_types::proof::PROOF_FILE_FORMAT.to_owned(),
        curve: "bls12381".to_owned(),
        protocol: "groth16".to_owned(),
        circuit: CIRCUIT,
        fingerprint: key.fingerprint(),
        insecure_dev_key: false,
        public_inputs: inputs.to_vec(),
        context: ProofContext::RangeSum { height: Height(1), db, query },
        proof: Proof::from_points(g1(a), g2(b), g1(c)).to_bytes(),
        verification_key: key.to_hex(),
    };
    (key, file)
}

fn write(path: &Path, value: &impl serde::Serialize) -> String {
    std::fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_valid_proof_under_a_self_made_key_is_refused_unless_the_caller_trusts_that_key() {
    let dir = tempfile::tempdir().unwrap();
    let (key, file) = self_made(1);
    let proof = write(&dir.path().join("proof.json"), &file);
    let own = write(&dir.path().join("own.json"), &KeyFile::new(CIRCUIT, &key, TRANSCRIPT));
    let other = write(&dir.path().join("other.json"), &KeyFile::new(CIRCUIT, &self_made(2).0, TRANSCRIPT));

    let alone = verify(dir.path(), &[&proof]);
    assert_eq!(alone.status.code(), Some(3), "{}", String::from_utf8_lossy(&alone.stderr));
    assert!(alone.stdout.is_empty());
    let error: Value = serde_json::from_slice(&alone.stderr).unwrap();
    assert!(error["help"].as_str().unwrap().contains("--vkey"), "{error}");
    assert_eq!(verify(dir.path(), &[&proof, "--vkey", &other]).status.code(), Some(3));

    // A key file is marked insecure or names a ceremony's transcript.
    let mut unmarked = serde_json::to_value(KeyFile::new(CIRCUIT, &key, TRANSCRIPT)).unwrap();
    unmarked.as_object_mut().unwrap().remove("transcript");
    let unmarked = write(&dir.path().join("unmarked.json"), &unmarked);
    assert_eq!(verify(dir.path(), &[&proof, "--vkey", &unmarked]).status.code(), Some(2));

    // The triple is a good one: under its own key, named by the caller, it holds. That is what makes the refusals above mean something.
    let trusted = verify(dir.path(), &[&proof, "--vkey", &own]);
    assert_eq!(trusted.status.code(), Some(0), "{}", String::from_utf8_lossy(&trusted.stderr));
    let verdict: Value = serde_json::from_slice(&trusted.stdout).unwrap();
    assert_eq!((verdict["verified"].as_bool(), verdict["insecure_dev_key"].as_bool()), (Some(true), Some(false)));
}

#[test]
fn a_changed_field_of_a_proof_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (key, file) = self_made(3);
    let own = write(&dir.path().join("own.json"), &KeyFile::new(CIRCUIT, &key, TRANSCRIPT));
    let good = serde_json::to_value(&file).unwrap();
    let zero = format!("0x{}", "00".repeat(32));
    let r = "0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";
    let changes: [(&str, Value); 9] = [
        ("/public_inputs/2", json!(zero)),
        ("/public_inputs/0", json!(r)),
        ("/public_inputs", json!([zero, zero])),
        ("/context/query/ranges/0/hi", json!(999_999)),
        ("/circuit", json!("range_sum/v1/s4-t7")),
        ("/insecure_dev_key", json!(true)),
        ("/fingerprint", json!(zero)),
        ("/curve", json!("bn128")),
        ("/proof", json!(format!("0x{}", "00".repeat(192)))),
    ];
    for (pointer, value) in changes {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let path = write(&dir.path().join("bad.json"), &bad);
        assert_eq!(verify(dir.path(), &[&path, "--vkey", &own]).status.code(), Some(3), "{pointer}");
    }
    let mut extra = good;
    extra["note"] = json!("trust me");
    let path = write(&dir.path().join("bad.json"), &extra);
    assert_eq!(verify(dir.path(), &[&path, "--vkey", &own]).status.code(), Some(3), "an unknown field");
}

#[test]
fn garbage_is_refused_and_a_missing_file_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("object", b"{}"),
        ("binary", &[0xff; 300]),
        ("long", &[b' '; (1 << 20) + 1]),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        assert_eq!(verify(dir.path(), &[name]).status.code(), Some(3), "{name}");
    }
    assert_eq!(verify(dir.path(), &["nowhere"]).status.code(), Some(1));
    let proof = write(&dir.path().join("proof.json"), &self_made(4).1);
    // A key file that is none is the caller's mistake, and no verdict about the proof.
    assert_eq!(verify(dir.path(), &[&proof, "--vkey", "text"]).status.code(), Some(2));
    assert_eq!(
        verify(dir.path(), &[&proof, "--rpc", "http://127.0.0.1:1", "--contract", "0x12"]).status.code(),
        Some(2)
    );
}

#[test]
fn proofs_are_listed_shown_and_exported_for_another_tool() {
    let dir = tempfile::tempdir().unwrap();
    let proof = write(&dir.path().join("proof.json"), &self_made(5).1);
    std::fs::write(dir.path().join("report.json"), "{}").unwrap();
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_fluence")).arg("proofs").args(args).arg("--json").output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    let folder = dir.path().to_str().unwrap();
    let (code, list) = run(&["ls", "--dir", folder]);
    assert_eq!((code, list["proofs"].as_array().unwrap().len()), (Some(0), 1), "other JSON is passed over");
    let (code, shown) = run(&["show", &proof]);
    assert_eq!((code, shown["verified"].is_null()), (Some(0), true), "showing is not verifying");
    let out = dir.path().join("exported");
    assert_eq!(run(&["export", &proof, "--out", out.to_str().unwrap()]).0, Some(0));
    let vkey: Value = serde_json::from_slice(&std::fs::read(out.join("vkey.json")).unwrap()).unwrap();
    assert_eq!((vkey["nPublic"].as_u64(), vkey["curve"].as_str()), (Some(3), Some("bls12381")));
    let public: Vec<String> = serde_json::from_slice(&std::fs::read(out.join("public.json")).unwrap()).unwrap();
    assert_eq!((public.len(), public[2].as_str()), (3, "42"));
}
