//! What lanes decode against what blst and ark-ec decode, with every encoding that is easy to get wrong; multiples against ark-ec's.

use super::super::{blst_points, point, put};
use super::*;
use ark_bls12_381::{Fq, Fq2, Fr, G2Projective};
use ark_ec::short_weierstrass::{Affine, SWCurveConfig};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{AdditiveGroup, BigInteger, Field, PrimeField, UniformRand, Zero};
use fluence_crypto::lanes::base;
use fluence_crypto::lanes::curve::{load, rows};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(3)
}

fn encoded<P: ark_serialize::CanonicalSerialize>(point: &P) -> Vec<u8> {
    let mut out = Vec::new();
    put(point, &mut out);
    out
}

/// Any point of the whole curve.
fn anywhere<C: SWCurveConfig>(rng: &mut ChaCha20Rng) -> Affine<C> {
    let mut point = || Affine::<C>::get_point_from_x_unchecked(C::BaseField::rand(rng), rng.r#gen());
    std::iter::repeat_with(&mut point).flatten().next().unwrap()
}

/// Points of the orders that divide the cofactor, and the sums of one of each with a point of the subgroup.
fn stray<C: SWCurveConfig<ScalarField = Fr>>(orders: &[u64], rng: &mut ChaCha20Rng) -> Vec<Affine<C>> {
    let mut out: Vec<Affine<C>> = Vec::new();
    for order in orders {
        // The cofactor without this prime, however often it is in it: what is left of any point has a power of it as its order.
        let (mut rest, mut next) = (C::COFACTOR.to_vec(), divided(C::COFACTOR, *order));
        assert_eq!(next.1, 0, "{order} divides the cofactor");
        while next.1 == 0 {
            (rest, next) = (next.0.clone(), divided(&next.0, *order));
        }
        let left = |point: Affine<C>| point.mul_bigint(Fr::MODULUS).into_affine().mul_bigint(&rest).into_affine();
        let mut any = std::iter::repeat_with(|| left(anywhere(rng))).take(100);
        let mut component = any.find(|p| !p.is_zero()).expect("a share of 1 / order has no component of it");
        loop {
            let next = component.mul_bigint([*order]).into_affine();
            if next.is_zero() {
                break;
            }
            component = next;
        }
        let member = (C::GENERATOR * Fr::rand(rng)).into_affine();
        out.extend([component, (component + member).into_affine()]);
    }
    out
}

/// `a / b` and the rest, of words from the lowest.
fn divided(a: &[u64], b: u64) -> (Vec<u64>, u64) {
    let (mut out, mut rest) = (a.to_vec(), 0u128);
    for word in out.iter_mut().rev() {
        let x = rest << 64 | u128::from(*word);
        (*word, rest) = ((x / u128::from(b)) as u64, x % u128::from(b));
    }
    (out, rest as u64)
}

/// One flip of each bit, and what no encoder writes.
fn spoilt(bytes: &[u8]) -> Vec<Vec<u8>> {
    let flip = |bit: usize| {
        let mut other = bytes.to_vec();
        other[bit / 8] ^= 0x80 >> (bit % 8);
        other
    };
    let first = |value: u8| {
        let mut other = bytes.to_vec();
        other[0] = value;
        other
    };
    let infinity = |first: u8| {
        let mut out = vec![0; bytes.len()];
        out[0] = first;
        out
    };
    let mut out: Vec<_> = (0..8 * bytes.len()).map(flip).collect();
    out.extend([0x00, 0x20, 0x40, 0x60, 0xc0, 0xe0, 0xff].map(first));
    out.extend([0x00, 0x80, 0xa0, 0xc0, 0xe0].map(infinity));
    out.push(vec![0xff; bytes.len()]);
    out
}

/// The coordinate that stands at `at`, plus q, where that fits its 381 bits.
fn plus_q(bytes: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    let flags = if at == 0 { out[0] & 0xe0 } else { 0 };
    out[at] &= if at == 0 { 0x1f } else { 0xff };
    let mut carry = 0;
    for (byte, q) in out[at..at + 48].iter_mut().zip(Fq::MODULUS.to_bytes_be()).rev() {
        let sum = u16::from(*byte) + u16::from(q) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    (carry == 0 && (at > 0 || out[0] & 0xe0 == 0)).then(|| {
        out[0] |= flags;
        out
    })
}

/// What lanes say of encodings, those of the other points being good.
fn in_lanes(seen: Ifma, cases: &[Vec<u8>], good: &Proof) -> Vec<Option<Proof>> {
    let proofs: Vec<ProofBytes> = cases
        .iter()
        .map(|case| {
            let mut proof = good.to_bytes();
            if case.len() == 96 {
                proof.0[48..144].copy_from_slice(case)
            } else {
                proof.0[..48].copy_from_slice(case)
            }
            proof
        })
        .collect();
    decode(seen, &proofs.iter().collect::<Vec<_>>())
}

fn good(rng: &mut ChaCha20Rng) -> Proof {
    let g1 = G1Projective::rand(rng).into_affine();
    Proof { a: g1, b: G2Projective::rand(rng).into_affine(), c: -g1 }
}

/// Lanes give the point that blst and ark-ec give, or leave it to blst. Says how many they gave, and how many of those that they left were good.
fn compare(seen: Ifma, cases: &[Vec<u8>], good: &Proof) -> (usize, usize) {
    let (mut given, mut left) = (0, 0);
    for (case, lanes) in cases.iter().zip(in_lanes(seen, cases, good)) {
        let hex = hex::encode(case);
        if case.len() == 96 {
            let want = blst_points::g2(case);
            assert_eq!(want, point::<G2Affine>(case), "{hex}");
            assert!(lanes.is_none_or(|p| Some(p.b) == want && (p.a, p.c) == (good.a, good.c)), "{hex}");
            left += usize::from(want.is_some() && lanes.is_none());
        } else {
            let want = blst_points::g1(case);
            assert_eq!(want, point::<G1Affine>(case), "{hex}");
            assert!(lanes.is_none_or(|p| Some(p.a) == want && (p.b, p.c) == (good.b, good.c)), "{hex}");
            left += usize::from(want.is_some() && lanes.is_none());
        }
        given += usize::from(lanes.is_some());
    }
    (given, left)
}

#[test]
fn members_are_decoded_both_signs_and_all_lanes() {
    let Some(seen) = Ifma::detect() else { return };
    let mut rng = rng();
    let proofs: Vec<Proof> =
        (0..83).map(|_| good(&mut rng)).flat_map(|p| [p, Proof { a: -p.a, b: -p.b, c: -p.c }]).collect();
    let bytes: Vec<ProofBytes> = proofs.iter().map(Proof::to_bytes).collect();
    for n in [0, 1, 7, 8, 9, 16, 17, bytes.len()] {
        let got = decode(seen, &bytes[..n].iter().collect::<Vec<_>>());
        assert_eq!(got, proofs[..n].iter().map(|p| Some(*p)).collect::<Vec<_>>(), "{n}");
    }
}

#[test]
fn encodings_one_bit_away_are_those_that_blst_and_ark_take() {
    let Some(seen) = Ifma::detect() else { return };
    let good = good(&mut rng());
    let g1: Vec<_> = spoilt(&encoded(&good.a));
    let g2: Vec<_> = spoilt(&encoded(&good.b));
    for cases in [g1, g2] {
        let (given, left) = compare(seen, &cases, &good);
        // The other sign; infinity and, of a member, nothing else is left.
        assert!(given >= 1 && left == 1, "{given} given, {left} left");
    }
}

#[test]
fn coordinates_of_q_and_more_are_left() {
    let Some(seen) = Ifma::detect() else { return };
    let mut rng = rng();
    let (mut of_g1, mut of_g2) = (0, [0, 0]);
    for _ in 0..40 {
        let good = good(&mut rng);
        for (point, at) in [(encoded(&good.a), 0), (encoded(&good.b), 0), (encoded(&good.b), 48)] {
            let Some(other) = plus_q(&point, at) else { continue };
            assert_eq!(compare(seen, std::slice::from_ref(&other), &good), (0, 0));
            if other.len() == 48 { of_g1 += 1 } else { of_g2[at / 48] += 1 }
        }
    }
    assert!(of_g1 > 0 && of_g2.iter().all(|n| *n > 0), "{of_g1} {of_g2:?}");
}

#[test]
fn points_outside_the_subgroup_are_left_whatever_their_order() {
    let Some(seen) = Ifma::detect() else { return };
    let mut rng = rng();
    let good = good(&mut rng);
    // The primes of the cofactors that fit a word; what else there is, points anywhere have.
    let mut g1 = stray::<ark_bls12_381::g1::Config>(&[3, 11, 10_177, 859_267, 52_437_899], &mut rng);
    let mut g2 = stray::<ark_bls12_381::g2::Config>(&[13, 23, 2_713, 11_953, 262_069], &mut rng);
    g1.extend((0..100).map(|_| anywhere(&mut rng)));
    g2.extend((0..100).map(|_| anywhere(&mut rng)));
    assert!(g1.iter().all(|p| !p.is_in_correct_subgroup_assuming_on_curve()));
    assert!(g2.iter().all(|p| !p.is_in_correct_subgroup_assuming_on_curve()));
    let (g1, g2): (Vec<_>, Vec<_>) = (g1.iter().map(encoded).collect(), g2.iter().map(encoded).collect());
    assert_eq!(compare(seen, &g1, &good), (0, 0));
    assert_eq!(compare(seen, &g2, &good), (0, 0));
}

#[test]
fn coordinates_without_a_point_are_left() {
    let Some(seen) = Ifma::detect() else { return };
    let mut rng = rng();
    let good = good(&mut rng);
    // x of small size, of either part 0, and any: half of them on no point, hardly any in the subgroup.
    let encode = |x: &[Fq]| {
        let mut out: Vec<u8> = x.iter().flat_map(|x| x.into_bigint().to_bytes_be()).collect();
        out[0] |= 0x80;
        out
    };
    let mut g1: Vec<_> = (0..64u64).map(|x| encode(&[Fq::from(x)])).collect();
    g1.extend((0..64).map(|_| encode(&[Fq::rand(&mut rng)])));
    let mut g2: Vec<_> =
        (0..32u64).flat_map(|x| [encode(&[Fq::ZERO, Fq::from(x)]), encode(&[Fq::from(x), Fq::ZERO])]).collect();
    g2.extend((0..64).map(|_| encode(&[Fq::rand(&mut rng), Fq::rand(&mut rng)])));
    assert_eq!(compare(seen, &g1, &good), (0, 0));
    assert_eq!(compare(seen, &g2, &good), (0, 0));
}

/// Roots in Fp2, of squares with a part that is 0 too: what the method cannot do is seen by squaring.
#[test]
fn a_root_is_one_or_does_not_square_to_its_element() {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn roots(a: &[Fq2; 8]) -> (Vec<Fq2>, u8) {
        let part = |pick: fn(&Fq2) -> Fq| {
            let rows = a.each_ref().map(|x| [base::fq_to_limbs(&pick(x))]);
            load::<1>(&rows.each_ref())[0]
        };
        let a = [part(|x| x.c0), part(|x| x.c1)];
        let y = decode::root(&a);
        let fq = |limbs: &[u64; 8]| base::fq_from_limbs(limbs);
        let out = rows::<2>(&y).iter().map(|[c0, c1]| Fq2::new(fq(c0), fq(c1))).collect();
        (out, base::equal(&base::square(&y), &a))
    }
    if Ifma::detect().is_none() {
        return;
    }
    let mut rng = rng();
    let (mut roots_found, mut squares) = (0, 0);
    for round in 0..40u64 {
        let x = Fq::rand(&mut rng);
        let any = Fq2::rand(&mut rng);
        let cases = [
            Fq2::ZERO,
            Fq2::new(x, Fq::ZERO),
            Fq2::new(-x, Fq::ZERO),
            Fq2::new(Fq::ZERO, x),
            Fq2::new(Fq::from(round), Fq::from(1u64)),
            any,
            any.square(),
            -any.square(),
        ];
        // SAFETY: the features were seen.
        let (found, equal) = unsafe { roots(&cases) };
        for (i, (a, y)) in cases.iter().zip(found).enumerate() {
            assert_eq!(equal >> i & 1 == 1, y.square() == *a, "{a}");
            let is_square = a.is_zero() || a.legendre().is_qr();
            // Two parts that are not 0: a root is always found where there is one.
            assert!(a.c0.is_zero() || a.c1.is_zero() || y.square() == *a || !is_square, "{a}");
            roots_found += u32::from(y.square() == *a);
            squares += u32::from(is_square);
        }
    }
    assert!(roots_found > 150 && roots_found <= squares && squares < 320, "{roots_found} of {squares}");
}

#[test]
fn multiples_are_those_of_ark() {
    let Some(seen) = Ifma::detect() else { return };
    let mut rng = rng();
    let mut points: Vec<G1Affine> = (0..27).map(|_| G1Projective::rand(&mut rng).into_affine()).collect();
    [points[3], points[11]] = [G1Affine::zero(); 2];
    let mut by: Vec<u128> = (0..27).map(|_| rng.r#gen()).collect();
    [by[0], by[1], by[2], by[3], by[12]] = [0, 1, u128::MAX, 5, 1 << 127];
    for n in [0, 1, 8, 13, 27] {
        let want: Vec<G1Affine> = points[..n].iter().zip(&by).map(|(p, k)| (*p * Fr::from(*k)).into_affine()).collect();
        assert_eq!(multiples(seen, &points[..n], &by[..n]), want, "{n}");
    }
}

/// Prints what the parts of a batch cost, interleaved, by one thread: `cargo test -p fluence-verifier --lib -- --ignored --nocapture slow`.
#[test]
#[ignore = "slow: a measurement"]
fn lanes_and_blst_side_by_side_slow() {
    let Some(seen) = Ifma::detect() else { return };
    let mut rng = rng();
    let proofs: Vec<Proof> = (0..100).map(|_| good(&mut rng)).collect();
    let bytes: Vec<ProofBytes> = proofs.iter().map(Proof::to_bytes).collect();
    let bytes: Vec<&ProofBytes> = bytes.iter().collect();
    let points: Vec<G1Affine> = proofs.iter().map(|p| p.a).collect();
    let by: Vec<u128> = (0..100).map(|_| rng.r#gen()).collect();
    let multiple = |(p, k): (&G1Affine, &u128)| blst_points::sum_of_multiples(&[*p], &[Fr::from(*k)], 128);
    let pairs: Vec<_> = proofs.iter().map(|p| (p.a, p.b)).collect();
    let parts: [(&str, &(dyn Fn() + Sync)); 5] = [
        ("decode, lanes", &|| assert!(decode(seen, &bytes).iter().all(Option::is_some))),
        ("decode, blst", &|| bytes.iter().for_each(|p| assert!(Proof::from_bytes(p).is_ok()))),
        ("multiples, lanes", &|| assert_eq!(multiples(seen, &points, &by).len(), 100)),
        ("multiples, blst", &|| assert_eq!(points.iter().zip(&by).map(multiple).collect::<Vec<_>>().len(), 100)),
        ("Miller loops", &|| assert!(!blst_points::product_is_one(&pairs))),
    ];
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut best = [f64::MAX; 5];
    for _ in 0..20 {
        for (best, (_, act)) in best.iter_mut().zip(&parts) {
            let start = std::time::Instant::now();
            one.install(act);
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    for ((name, _), seconds) in parts.iter().zip(best) {
        println!("100 proofs, best of 20: {name:<18} {:>7.2} ms", seconds * 1e3);
    }
}
