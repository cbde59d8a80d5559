//! `tests/vectors/groth16.json`: proofs, keys and their refusals, read by Rust and by Solidity.
//!
//! Again   `cargo test -p fluence-prover --test vectors -- --ignored regenerate_vectors`; the randomness is fixed, so a diff is a change
//!         of a circuit, an encoding or the proof system.

use ark_bls12_381::{Fq, Fq2, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::{BigInteger, Field, PrimeField, Zero};
use fluence_circuits::{Circuit, fixture};
use fluence_prover::{Keys, prove};
use fluence_types::FieldBytes;
use fluence_types::field::MODULUS_BE;
use fluence_types::proof::ProofBytes;
use fluence_types::shape::CircuitId;
use fluence_verifier::groth16::{Proof, VerificationKey, proof_eip2537, verify};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};
use std::path::PathBuf;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/groth16.json")
}

fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap()
}

fn coordinate(f: &Fq) -> Vec<u8> {
    [vec![0; 16], f.into_bigint().to_bytes_be()].concat()
}

/// A point on the curve, outside the prime-order subgroup.
fn stray_g1() -> G1Affine {
    (1u64..)
        .filter_map(|x| G1Affine::get_point_from_x_unchecked(Fq::from(x), false))
        .find(|p| !p.is_in_correct_subgroup_assuming_on_curve())
        .unwrap()
}

fn stray_g2() -> G2Affine {
    (1u64..)
        .filter_map(|x| G2Affine::get_point_from_x_unchecked(Fq2::new(Fq::from(x), Fq::zero()), false))
        .find(|p| !p.is_in_correct_subgroup_assuming_on_curve())
        .unwrap()
}

fn add_be(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut out = a.to_vec();
    let mut carry = 0u16;
    for i in 0..out.len() {
        let at = out.len() - 1 - i;
        let sum = u16::from(out[at]) + u16::from(*b.iter().rev().nth(i).unwrap_or(&0)) + carry;
        out[at] = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    out
}

/// A case and every way we know to spoil it. `expect`: `mismatch` where all is well formed and the equation fails, `malformed` else.
fn case(id: CircuitId, keys: &Keys, inputs: &[FieldBytes], proof: &ProofBytes, other: &ProofBytes) -> Value {
    let vk = &keys.vk;
    let key = vk.to_eip2537();
    let ic: Vec<String> = key[896..].chunks(128).map(hex0x).collect();
    let good = proof_eip2537(proof).unwrap().to_vec();
    let words: Vec<String> = inputs.iter().map(ToString::to_string).collect();
    let mut invalid = Vec::new();
    let mut spoil = |name: &str, words: Vec<String>, proof: Vec<u8>, expect: &str| {
        invalid.push(json!({ "name": name, "expect": expect, "public_inputs": words, "proof": hex0x(&proof) }));
    };
    for i in 0..inputs.len() {
        let mut changed = words.clone();
        let mut one = inputs[i].to_bytes();
        one[31] ^= 1;
        changed[i] = hex0x(&one);
        spoil(&format!("input {i} with its lowest bit flipped"), changed.clone(), good.clone(), "mismatch");
        changed[i] = hex0x(&add_be(inputs[i].as_bytes(), &MODULUS_BE));
        spoil(&format!("input {i} plus r"), changed, good.clone(), "malformed");
    }
    spoil("one input too few", words[..2].to_vec(), good.clone(), "malformed");
    spoil("one input too many", [&words[..], &words[..1]].concat(), good.clone(), "malformed");
    let parsed = Proof::from_bytes(proof).unwrap();
    let (a, b, c) = parsed.points();
    let at = |offset: usize, with: &[u8]| {
        let mut p = good.clone();
        p[offset..offset + with.len()].copy_from_slice(with);
        p
    };
    let negated = |a: &G1Affine, b: &G2Affine, c: &G1Affine| {
        proof_eip2537(&Proof::from_points(*a, *b, *c).to_bytes()).unwrap().to_vec()
    };
    spoil("A negated", words.clone(), negated(&-*a, b, c), "mismatch");
    spoil("B negated", words.clone(), negated(a, &-*b, c), "mismatch");
    spoil("C negated", words.clone(), negated(a, b, &-*c), "mismatch");
    spoil("A and C exchanged", words.clone(), negated(c, b, a), "mismatch");
    spoil("A is infinity", words.clone(), at(0, &[0; 128]), "mismatch");
    spoil("B is infinity", words.clone(), at(128, &[0; 256]), "mismatch");
    spoil("C is infinity", words.clone(), at(384, &[0; 128]), "mismatch");
    spoil("all zero", words.clone(), vec![0; 512], "mismatch");
    spoil("proof of another statement", words.clone(), proof_eip2537(other).unwrap().to_vec(), "mismatch");
    let q = Fq::MODULUS.to_bytes_be();
    spoil("x of A plus q", words.clone(), at(16, &add_be(&good[16..64], &q)), "malformed");
    spoil("y of C plus q", words.clone(), at(384 + 80, &add_be(&good[464..512], &q)), "malformed");
    spoil("padding of A is not zero", words.clone(), at(0, &[1]), "malformed");
    let (x, y) = a.xy().unwrap();
    spoil("A off the curve", words.clone(), at(64, &coordinate(&(y + Fq::ONE))), "malformed");
    spoil("x of A alone changed", words.clone(), at(0, &coordinate(&(x + Fq::ONE))), "malformed");
    let (sx, sy) = stray_g1().xy().unwrap();
    let stray = [coordinate(&sx), coordinate(&sy)].concat();
    spoil("A outside the subgroup", words.clone(), at(0, &stray), "malformed");
    spoil("C outside the subgroup", words.clone(), at(384, &stray), "malformed");
    let (tx, ty) = stray_g2().xy().unwrap();
    let stray: Vec<u8> = [&tx.c0, &tx.c1, &ty.c0, &ty.c1].into_iter().flat_map(coordinate).collect();
    spoil("B outside the subgroup", words.clone(), at(128, &stray), "malformed");
    let swapped = [&good[192..256], &good[128..192], &good[320..384], &good[256..320]].concat();
    spoil("B with c0 and c1 exchanged", words.clone(), at(128, &swapped), "malformed");
    spoil("one byte short", words.clone(), good[..511].to_vec(), "malformed");
    spoil("one byte long", words.clone(), [&good[..], &[0]].concat(), "malformed");
    spoil("empty", words.clone(), Vec::new(), "malformed");
    json!({
        "circuit": id,
        "fingerprint": keys.fingerprint,
        "vk_compressed": vk.to_hex(),
        "vk": {
            "alpha": hex0x(&key[..128]),
            "beta": hex0x(&key[128..384]),
            "gamma": hex0x(&key[384..640]),
            "delta": hex0x(&key[640..896]),
            "ic": ic,
        },
        "vk_hash": hex0x(&vk.pinned_hash()),
        "public_inputs": words,
        "proof": hex0x(&good),
        "proof_compressed": hex0x(&proof.0),
        "invalid": invalid,
    })
}

fn make() -> Value {
    let mut rng = ChaCha20Rng::seed_from_u64(2026);
    let mut cases = Vec::new();
    let (_, storage) = fixture::tiny_storage();
    let (_, _, range_sum) = fixture::tiny_range_sum();
    let mut both = |a: ProofBytes, b: ProofBytes, keys: Keys, inputs: [FieldBytes; 3]| {
        cases.push(case(keys.id, &keys, &inputs, &a, &b));
    };
    {
        let keys = Keys::ephemeral(storage.id(), &mut rng).unwrap();
        let other = fixture::storage(
            fluence_types::shape::StorageShape::TINY,
            &fixture::databases(),
            fixture::Owed::Single(1),
            FieldBytes::from_u64(43),
        );
        let other = fluence_circuits::StorageCircuit::new(fluence_types::shape::StorageShape::TINY, other.0, other.1);
        let (a, b) = (prove(&keys, storage, &mut rng).unwrap(), prove(&keys, other, &mut rng).unwrap());
        both(a.proof, b.proof, keys, a.public_inputs);
    }
    {
        let keys = Keys::ephemeral(range_sum.id(), &mut rng).unwrap();
        let ranges = [fluence_types::statement::RowRange { lo: 1, hi: 2 }; 2];
        let (statement, witness) = fixture::range_sum(&fixture::two_live_segments(), &ranges);
        let shape = fluence_types::shape::RangeSumShape::TINY;
        let other = fluence_circuits::RangeSumCircuit::new(shape, statement, witness);
        let (a, b) = (prove(&keys, range_sum, &mut rng).unwrap(), prove(&keys, other, &mut rng).unwrap());
        both(a.proof, b.proof, keys, a.public_inputs);
    }
    json!({
        "about": "Groth16 over BLS12-381. Points as in EIP-2537: G1 128 bytes, G2 256 bytes (c0 before c1). proof = A | B | C. \
                  vk_hash = keccak256(alpha | beta | gamma | delta | ic..). Keys are development keys, for tests only.",
        "cases": cases,
    })
}

#[test]
#[ignore = "writes tests/vectors/groth16.json"]
fn regenerate_vectors() {
    let path = path();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, serde_json::to_string_pretty(&make()).unwrap() + "\n").unwrap();
}

#[test]
fn vectors_verify_and_their_spoiled_variants_do_not() {
    let all: Value = serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap();
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    let mut refused = 0;
    for case in cases {
        let vk = VerificationKey::from_hex(case["vk_compressed"].as_str().unwrap()).unwrap();
        assert_eq!(hex0x(&vk.pinned_hash()), case["vk_hash"].as_str().unwrap());
        assert_eq!(vk.fingerprint().to_string(), case["fingerprint"].as_str().unwrap());
        let ic: Vec<Vec<u8>> = case["vk"]["ic"].as_array().unwrap().iter().map(bytes).collect();
        let head = ["alpha", "beta", "gamma", "delta"].map(|n| bytes(&case["vk"][n])).concat();
        assert_eq!([head, ic.concat()].concat(), vk.to_eip2537());
        let proof = ProofBytes(bytes(&case["proof_compressed"]).try_into().unwrap());
        assert_eq!(proof_eip2537(&proof).unwrap().to_vec(), bytes(&case["proof"]));
        let inputs = words(&case["public_inputs"]).unwrap();
        verify(&vk, &inputs, &proof).unwrap();
        for bad in case["invalid"].as_array().unwrap() {
            assert!(!accepted(&vk, bad), "{}", bad["name"]);
            refused += 1;
        }
    }
    assert!(refused > 50, "{refused}");
    println!("{refused} spoiled variants refused");
}

fn words(value: &Value) -> Option<Vec<FieldBytes>> {
    value.as_array().unwrap().iter().map(|w| w.as_str().unwrap().parse().ok()).collect()
}

/// What a verifier of the uncompressed form does, by way of the compressed one.
fn accepted(vk: &VerificationKey, bad: &Value) -> bool {
    let (Some(inputs), proof) = (words(&bad["public_inputs"]), bytes(&bad["proof"])) else { return false };
    let Some(proof) = compress(&proof) else { return false };
    verify(vk, &inputs, &proof).is_ok()
}

fn compress(proof: &[u8]) -> Option<ProofBytes> {
    let fq = |b: &[u8]| -> Option<Fq> {
        let value = Fq::from_be_bytes_mod_order(&b[16..]);
        (coordinate(&value) == b).then_some(value)
    };
    let g1 = |b: &[u8]| -> Option<G1Affine> {
        if b.iter().all(|b| *b == 0) {
            return Some(G1Affine::zero());
        }
        let p = G1Affine::new_unchecked(fq(&b[..64])?, fq(&b[64..])?);
        p.is_on_curve().then_some(p)
    };
    let g2 = |b: &[u8]| -> Option<G2Affine> {
        if b.iter().all(|b| *b == 0) {
            return Some(G2Affine::zero());
        }
        let f2 = |b: &[u8]| Some(Fq2::new(fq(&b[..64])?, fq(&b[64..])?));
        let p = G2Affine::new_unchecked(f2(&b[..128])?, f2(&b[128..])?);
        p.is_on_curve().then_some(p)
    };
    if proof.len() != 512 {
        return None;
    }
    Some(Proof::from_points(g1(&proof[..128])?, g2(&proof[128..384])?, g1(&proof[384..])?).to_bytes())
}
