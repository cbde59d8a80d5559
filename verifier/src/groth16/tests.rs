//! Proofs and keys are those of `tests/vectors/groth16.json`; the oracle is ark-groth16.

use super::*;
use ark_bls12_381::{Bls12_381, Fq, Fq2, G1Projective, G2Projective};
use ark_ec::pairing::Pairing;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{BigInteger, Field, UniformRand};
use ark_groth16::Groth16;
use ark_snark::SNARK;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

struct Vector {
    vk: VerificationKey,
    inputs: Vec<FieldBytes>,
    proof: ProofBytes,
}

fn vectors() -> Vec<Vector> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/groth16.json");
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let one = |case: &serde_json::Value| Vector {
        vk: VerificationKey::from_hex(case["vk_compressed"].as_str().unwrap()).unwrap(),
        inputs: serde_json::from_value(case["public_inputs"].clone()).unwrap(),
        proof: serde_json::from_value(case["proof_compressed"].clone()).unwrap(),
    };
    all["cases"].as_array().unwrap().iter().map(one).collect()
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

/// The library the prover uses, without our code.
fn oracle(v: &Vector, proof: &Proof) -> bool {
    let (alpha, [beta, gamma, delta]) = v.vk.head();
    let vk = ark_groth16::VerifyingKey::<Bls12_381> {
        alpha_g1: *alpha,
        beta_g2: *beta,
        gamma_g2: *gamma,
        delta_g2: *delta,
        gamma_abc_g1: v.vk.ic().to_vec(),
    };
    let inputs: Vec<Fr> = v.inputs.iter().map(scalar).collect();
    let proof = ark_groth16::Proof { a: proof.a, b: proof.b, c: proof.c };
    Groth16::<Bls12_381>::verify(&vk, &inputs, &proof).unwrap()
}

/// The same proof, made to look another: A / r, r B, C.
fn rerandomised(proof: &Proof, r: Fr) -> Proof {
    Proof { a: (proof.a * r.inverse().unwrap()).into_affine(), b: (proof.b * r).into_affine(), c: proof.c }
}

#[test]
fn agrees_with_ark_groth16_on_good_and_bad_proofs() {
    let mut rng = rng();
    for v in vectors() {
        let good = Proof::from_bytes(&v.proof).unwrap();
        let (a, b, c) = (good.a, good.b, good.c);
        let again = rerandomised(&good, Fr::rand(&mut rng));
        // Anyone can do this to a proof: its bytes name nothing.
        assert_ne!(again.to_bytes(), v.proof);
        let cases = [
            good,
            again,
            Proof { a: -a, b, c },
            Proof { a, b: -b, c },
            Proof { a: -a, b: -b, c },
            Proof { a: c, b, c: a },
            Proof { a: G1Affine::zero(), b, c },
            Proof { a, b: G2Affine::zero(), c },
            Proof { a, b, c: G1Affine::zero() },
            Proof { a: G1Affine::zero(), b: G2Affine::zero(), c: G1Affine::zero() },
        ];
        for (i, proof) in cases.iter().enumerate() {
            let ours = verify(&v.vk, &v.inputs, &proof.to_bytes()).is_ok();
            assert_eq!((ours, twin(&v, &v.inputs, proof)), (oracle(&v, proof), ours), "case {i}");
        }
        assert!(oracle(&v, &good) && oracle(&v, &again) && !oracle(&v, &cases[2]));
    }
}

/// The twin on ark-ec of what blst does for us.
fn twin(v: &Vector, inputs: &[FieldBytes], proof: &Proof) -> bool {
    let x: G1Projective =
        v.vk.ic()[0] + v.vk.ic()[1..].iter().zip(inputs).map(|(p, x)| *p * scalar(x)).sum::<G1Projective>();
    let (alpha, [beta, gamma, delta]) = v.vk.head();
    Bls12_381::multi_pairing([proof.a, -*alpha, (-x).into_affine(), -proof.c], [proof.b, *beta, *gamma, *delta])
        .is_zero()
}

#[test]
fn blst_and_ark_agree_on_every_encoding_one_bit_away() {
    let v = &vectors()[0];
    let (mut good, mut bad) = (0, 0);
    for (from, to) in [(0, 48), (48, 144), (144, 192)] {
        let bytes = &v.proof.0[from..to];
        let mut infinity = vec![0; bytes.len()];
        infinity[0] = 0xc0;
        let flips = |start: &[u8]| -> Vec<Vec<u8>> {
            let flip = |bit: usize| {
                let mut other = start.to_vec();
                other[bit / 8] ^= 0x80 >> (bit % 8);
                other
            };
            (0..8 * start.len()).map(flip).chain([start.to_vec(), start[1..].to_vec()]).collect()
        };
        for case in flips(bytes).into_iter().chain(flips(&infinity)).chain([vec![0xff; bytes.len()], vec![]]) {
            let same = if to - from == 96 {
                let (ours, theirs) = (blst_points::g2(&case), point::<G2Affine>(&case));
                (ours == theirs, ours.is_some())
            } else {
                let (ours, theirs) = (blst_points::g1(&case), point::<G1Affine>(&case));
                (ours == theirs, ours.is_some())
            };
            assert!(same.0, "{}", hex::encode(&case));
            if same.1 { good += 1 } else { bad += 1 }
        }
    }
    // The points, infinity, and each with its sign turned where that is another point.
    assert!((6..20).contains(&good) && bad > 3000, "{good} good, {bad} bad");
}

#[test]
fn sums_and_products_of_blst_are_those_of_ark() {
    let mut rng = rng();
    let points: Vec<G1Affine> =
        (0..14).map(|i| if i == 3 { G1Affine::zero() } else { G1Projective::rand(&mut rng).into_affine() }).collect();
    let mut scalars: Vec<Fr> = (0..14u64).map(|i| if i == 5 { Fr::zero() } else { Fr::rand(&mut rng) }).collect();
    [scalars[1], scalars[2], scalars[7]] = [Fr::from(1u64), Fr::from(1000u64), -Fr::from(1u64)];
    for n in 0..=points.len() {
        let want: G1Projective = points[..n].iter().zip(&scalars).map(|(p, k)| *p * *k).sum();
        assert_eq!(blst_points::sum_of_multiples(&points[..n], &scalars[..n], 255), want.into_affine(), "{n}");
    }
    // p - p: a sum that is infinity.
    let both = [points[0], points[0]];
    assert!(blst_points::sum_of_multiples(&both, &[Fr::from(1u64), -Fr::from(1u64)], 255).is_zero());

    // e(a P, Q) e(-P, a Q) = 1, many times over, with infinity among the pairs.
    let mut pairs = vec![(G1Affine::zero(), G2Affine::generator()), (points[0], G2Affine::zero())];
    assert!(blst_points::product_is_one(&pairs) && blst_points::product_is_one(&[]));
    for k in &scalars[..4] {
        let (p, q) = (G1Projective::rand(&mut rng), G2Projective::rand(&mut rng));
        pairs.extend([((p * k).into_affine(), q.into_affine()), ((-p).into_affine(), (q * k).into_affine())]);
        assert!(blst_points::product_is_one(&pairs));
    }
    pairs.pop();
    let (p, q): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    assert!(!blst_points::product_is_one(&pairs) && !Bls12_381::multi_pairing(p, q).is_zero());
}

#[test]
fn rejects_every_single_bit_flip_of_proof_inputs_and_key() {
    let (mut proofs, mut inputs, mut keys) = (0, 0, 0);
    for v in vectors() {
        verify(&v.vk, &v.inputs, &v.proof).unwrap();
        for bit in 0..192 * 8 {
            let mut flipped = v.proof;
            flipped.0[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(verify(&v.vk, &v.inputs, &flipped).is_err(), "proof bit {bit}");
            proofs += 1;
        }
        for (i, input) in v.inputs.iter().enumerate() {
            for bit in 0..256 {
                let mut flipped = input.to_bytes();
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
                let refused = FieldBytes::from_canonical(flipped).map_or(true, |word| {
                    let mut words = v.inputs.clone();
                    words[i] = word;
                    verify(&v.vk, &words, &v.proof) == Err(VerifyError::Mismatch)
                });
                assert!(refused, "input {i} bit {bit}");
                inputs += 1;
            }
        }
        let bytes = v.vk.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 0x80 >> (bit % 8);
            if let Ok(key) = VerificationKey::from_bytes(&flipped) {
                assert_ne!(key.fingerprint(), v.vk.fingerprint());
                assert_ne!(key.pinned_hash(), v.vk.pinned_hash());
                assert!(verify(&key, &v.inputs, &v.proof).is_err(), "key bit {bit}");
            }
            keys += 1;
        }
    }
    println!("refused: {proofs} flips of proofs, {inputs} of public inputs, {keys} of keys");
    assert_eq!((proofs, inputs, keys), (2 * 1536, 2 * 768, 2 * 8 * (336 + 4 * 48)));
}

#[test]
fn rejects_points_outside_the_subgroup() {
    let v = &vectors()[0];
    let g1 = (1u64..)
        .filter_map(|x| G1Affine::get_point_from_x_unchecked(Fq::from(x), false))
        .find(|p| !p.is_in_correct_subgroup_assuming_on_curve())
        .unwrap();
    let g2 = (1u64..)
        .filter_map(|x| G2Affine::get_point_from_x_unchecked(Fq2::new(Fq::from(x), Fq::zero()), false))
        .find(|p| !p.is_in_correct_subgroup_assuming_on_curve())
        .unwrap();
    let good = Proof::from_bytes(&v.proof).unwrap();
    for (name, bad) in [
        ("A", Proof { a: g1, ..good }),
        ("B", Proof { b: g2, ..good }),
        ("C", Proof { c: g1, ..good }),
        // The honest point with a component of small order: the pairing alone would not see the difference.
        ("A", Proof { a: (good.a + cofactor_component(g1)).into_affine(), ..good }),
    ] {
        assert_eq!(verify(&v.vk, &v.inputs, &bad.to_bytes()), Err(VerifyError::Point(name)));
        assert_eq!(proof_eip2537(&bad.to_bytes()), Err(VerifyError::Point(name)));
    }
    let mut key = v.vk.to_bytes();
    let mut stray = Vec::new();
    put(&g1, &mut stray);
    key[..48].copy_from_slice(&stray);
    assert_eq!(VerificationKey::from_bytes(&key), Err(KeyError::Point("alpha".to_owned())));
}

/// r times a point: what is left of it outside the subgroup.
fn cofactor_component(p: G1Affine) -> G1Projective {
    let left = p.mul_bigint(Fr::MODULUS);
    assert!(!left.is_zero());
    left
}

#[test]
fn rejects_a_coordinate_plus_q_an_input_plus_r_and_other_encodings() {
    let v = &vectors()[0];
    // A proof whose A has an x so small that x + q fits the 381 bits: one in five.
    let good = Proof::from_bytes(&v.proof).unwrap();
    let q = Fq::MODULUS.to_bytes_be();
    let (proof, plus_q) = (2u64..)
        .find_map(|r| {
            let proof = rerandomised(&good, Fr::from(r)).to_bytes();
            let flags = proof.0[0] & 0xe0;
            let mut x = proof.0[..48].to_vec();
            x[0] &= 0x1f;
            let mut carry = 0u16;
            for i in (0..48).rev() {
                let sum = u16::from(x[i]) + u16::from(q[i]) + carry;
                (x[i], carry) = (sum as u8, sum >> 8);
            }
            (x[0] & 0xe0 == 0).then(|| {
                let mut other = proof;
                other.0[..48].copy_from_slice(&x);
                other.0[0] |= flags;
                (proof, other)
            })
        })
        .unwrap();
    assert_eq!(verify(&v.vk, &v.inputs, &proof), Ok(()));
    assert_eq!(verify(&v.vk, &v.inputs, &plus_q), Err(VerifyError::Point("A")));

    // Infinity with a rest, the uncompressed flag, all ones.
    for first in [0xc0 | 0x01, 0x00, 0x40, 0xe0, 0xff] {
        let mut other = v.proof;
        other.0[0] = first;
        assert!(verify(&v.vk, &v.inputs, &other).is_err());
    }

    for input in &v.inputs {
        let mut bytes = input.to_bytes();
        let mut carry = 0u16;
        for i in (0..32).rev() {
            let sum = u16::from(bytes[i]) + u16::from(fluence_types::field::MODULUS_BE[i]) + carry;
            (bytes[i], carry) = (sum as u8, sum >> 8);
        }
        assert!(FieldBytes::from_canonical(bytes).is_err());
    }
    let inputs = &v.inputs;
    assert_eq!(verify(&v.vk, &inputs[..2], &v.proof), Err(VerifyError::InputCount { got: 2, want: 3 }));
    assert_eq!(verify(&v.vk, &[], &v.proof), Err(VerifyError::InputCount { got: 0, want: 3 }));
}

#[test]
fn rejects_keys_of_wrong_length_with_infinity_or_bad_hex() {
    let v = &vectors()[0];
    let bytes = v.vk.to_bytes();
    assert_eq!(VerificationKey::from_bytes(&bytes).unwrap(), v.vk);
    for len in [0, 48, 336, 336 + 48, bytes.len() - 1, bytes.len() + 1] {
        assert!(VerificationKey::from_bytes(&[&bytes[..], &[0]].concat()[..len]).is_err(), "{len}");
    }
    let mut long = bytes.clone();
    long.resize(336 + 48 * 8, 0);
    assert_eq!(VerificationKey::from_bytes(&long), Err(KeyError::Length { got: long.len() }));
    // With infinity as delta or as an IC point, C or an input would not matter.
    for (at, len, name) in
        [(0, 48, "alpha"), (48, 96, "beta"), (144, 96, "gamma"), (240, 96, "delta"), (384, 48, "IC[1]")]
    {
        let mut key = bytes.clone();
        key[at..at + len].fill(0);
        key[at] = 0xc0;
        assert_eq!(VerificationKey::from_bytes(&key), Err(KeyError::Point(name.to_owned())));
    }
    assert_eq!(VerificationKey::from_hex(&v.vk.to_hex()).unwrap(), v.vk);
    assert_eq!(VerificationKey::from_hex("0xzz"), Err(KeyError::Hex));
    assert_eq!(VerificationKey::from_hex(&"00".repeat(4096)), Err(KeyError::Hex));
}

fn with_c_moved(proof: &Proof, by: G1Projective) -> ProofBytes {
    let c: G1Projective = by + proof.c;
    Proof::from_points(proof.a, proof.b, c.into_affine()).to_bytes()
}

#[test]
fn a_batch_names_its_bad_proofs() {
    let v = &vectors()[0];
    let good = Proof::from_bytes(&v.proof).unwrap();
    let proofs: Vec<ProofBytes> = (1..6u64).map(|r| rerandomised(&good, Fr::from(r)).to_bytes()).collect();
    let mut batch: Vec<(&[FieldBytes], &ProofBytes)> = proofs.iter().map(|p| (&v.inputs[..], p)).collect();
    verify_batch(&v.vk, &batch, &mut rng()).unwrap();
    verify_batch(&v.vk, &[], &mut rng()).unwrap();

    let mut others = v.inputs.clone();
    others[1] = FieldBytes::from_u64(5);
    let negated = Proof { a: -good.a, ..good }.to_bytes();
    let mut garbage = v.proof;
    garbage.0[0] = 0;
    batch[1].0 = &others;
    batch[3].1 = &negated;
    let e = verify_batch(&v.vk, &batch, &mut rng()).unwrap_err();
    assert_eq!(e.bad, [(1, VerifyError::Mismatch), (3, VerifyError::Mismatch)]);
    assert!(e.to_string().contains("2 of 5"), "{e}");
    batch[0].1 = &garbage;
    batch[4].0 = &others[..1];
    let e = verify_batch(&v.vk, &batch, &mut rng()).unwrap_err();
    assert_eq!(e.bad.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [0, 1, 3, 4]);
    // A hundred, the last of them a liar's: it and no other is named.
    let good_ones = vec![(&v.inputs[..], &proofs[1]); 99];
    let hundred: Vec<_> = good_ones.iter().copied().chain([(&v.inputs[..], &negated)]).collect();
    let e = verify_batch(&v.vk, &hundred, &mut rng()).unwrap_err();
    assert_eq!((e.bad, e.of), (vec![(99, VerifyError::Mismatch)], 100));
    verify_batch(&v.vk, &hundred[..99], &mut rng()).unwrap();
    // Two wrongs that would cancel without random weights.
    let shift = G1Affine::generator().into_group();
    let (up, down) = (with_c_moved(&good, shift), with_c_moved(&good, -shift));
    let e = verify_batch(&v.vk, &[(&v.inputs, &up), (&v.inputs, &down)], &mut rng()).unwrap_err();
    assert_eq!(e.bad.len(), 2);
}

/// As many as go through lanes, where the processor has them: each bad point is named, as when it comes alone.
#[test]
fn a_large_batch_refuses_each_proof_as_it_is_refused_alone() {
    let v = &vectors()[0];
    let good = Proof::from_bytes(&v.proof).unwrap();
    let stray = (1u64..)
        .filter_map(|x| G1Affine::get_point_from_x_unchecked(Fq::from(x), false))
        .find(|p| !p.is_in_correct_subgroup_assuming_on_curve())
        .unwrap();
    let flipped = |bit: usize| {
        let mut proof = v.proof;
        proof.0[bit / 8] ^= 0x80 >> (bit % 8);
        proof
    };
    let mut proofs: Vec<ProofBytes> = (1..40u64).map(|r| rerandomised(&good, Fr::from(r)).to_bytes()).collect();
    verify_batch(&v.vk, &proofs.iter().map(|p| (&v.inputs[..], p)).collect::<Vec<_>>(), &mut rng()).unwrap();
    // Flags, coordinates, the signs of A, B and C, infinity as each, a point outside the subgroup as A and as C.
    let bits = [0, 1, 2, 9, 100, 384, 386, 391, 700, 800, 1152, 1154, 1300, 1535];
    let infinity = G1Affine::zero();
    let whole = [
        Proof { a: infinity, ..good },
        Proof { b: G2Affine::zero(), ..good },
        Proof { c: infinity, ..good },
        Proof { a: stray, ..good },
        Proof { c: stray, ..good },
    ];
    let bad = bits.map(flipped).into_iter().chain(whole.map(|p| p.to_bytes()));
    for (i, bad) in bad.enumerate() {
        proofs[2 * i] = bad;
    }
    let want: Vec<_> =
        proofs.iter().enumerate().filter_map(|(i, p)| Some((i, verify(&v.vk, &v.inputs, p).err()?))).collect();
    assert_eq!(want.len(), bits.len() + whole.len());
    let batch: Vec<_> = proofs.iter().map(|p| (&v.inputs[..], p)).collect();
    assert_eq!(verify_batch(&v.vk, &batch, &mut rng()).unwrap_err().bad, want);
}

#[test]
fn the_pinned_hash_is_keccak_of_the_eip_2537_points() {
    let v = &vectors()[0];
    assert_eq!(v.vk.to_eip2537().len(), 128 + 3 * 256 + 4 * 128);
    let words = proof_eip2537(&v.proof).unwrap();
    assert_eq!(words.len(), 512);
    assert!(words[..16].iter().all(|b| *b == 0));
}
