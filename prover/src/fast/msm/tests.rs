//! Sums on every path against one multiplication after the other, with the scalars and points that are easy to get wrong.

use super::*;
use ark_bls12_381::{g1, g2};
use ark_ec::CurveGroup;
use ark_ec::short_weierstrass::SWCurveConfig;
use ark_ff::{Field, One, UniformRand, Zero};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

fn paths() -> impl Iterator<Item = Path> {
    Path::all().into_iter().filter(|p| *p != Path::Ark)
}

fn compare<C: Curve<D>, const D: usize>(points: &[Affine<C>], values: &[Fr], what: &str) {
    let want: Projective<C> = points.iter().zip(values).map(|(p, k)| *p * *k).sum();
    for path in paths() {
        let got = Query::<C, D>::new(path, points).sum(&scalars(values), &Gate::default());
        assert_eq!(got, want, "{what}, {path:?}");
    }
}

/// Points, the same point again, its negative, infinity, a small multiple: everything that meets in one bucket.
fn points<C: Curve<D>, const D: usize>(count: usize, rng: &mut ChaCha20Rng) -> Vec<Affine<C>> {
    let mut out: Vec<Affine<C>> = Vec::with_capacity(count);
    for i in 0..count {
        let before = if i == 0 { C::GENERATOR } else { out[rng.gen_range(0..i)] };
        out.push(match i % 6 {
            0 => before,
            1 => -before,
            2 => Affine::identity(),
            3 => (before + before).into_affine(),
            _ => (C::GENERATOR * Fr::rand(rng)).into_affine(),
        });
    }
    out
}

fn awkward(i: usize, rng: &mut ChaCha20Rng) -> Fr {
    match i % 9 {
        0 => Fr::zero(),
        1 => Fr::one(),
        2 => -Fr::one(),
        3 => Fr::from(rng.gen_range(0..1000u64)),
        4 => -Fr::from(rng.gen_range(0..1000u64)),
        5 => Fr::from(2u64).pow([rng.gen_range(0..255u64)]),
        6 => Fr::from_bigint(Fr::MODULUS_MINUS_ONE_DIV_TWO).unwrap() + Fr::from(rng.gen_range(0..3u64)) - Fr::one(),
        _ => Fr::rand(rng),
    }
}

fn all_kinds<C: Curve<D>, const D: usize>(counts: &[usize]) {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    for count in counts {
        let points = points::<C, D>(*count, &mut rng);
        let values: Vec<Fr> = (0..*count).map(|i| awkward(i, &mut rng)).collect();
        compare::<C, D>(&points, &values, "awkward");
        let values: Vec<Fr> = (0..*count).map(|_| Fr::rand(&mut rng)).collect();
        compare::<C, D>(&points, &values, "random");
        for value in [Fr::zero(), Fr::one(), -Fr::one(), Fr::from(3u64)] {
            compare::<C, D>(&points, &vec![value; *count], "all the same");
        }
    }
}

#[test]
fn sums_in_g1_are_those_of_one_multiplication_after_the_other() {
    all_kinds::<g1::Config, 1>(&[0, 1, 2, 7, 8, 9, 65, 300]);
}

#[test]
fn sums_in_g2_are_those_of_one_multiplication_after_the_other() {
    all_kinds::<g2::Config, 2>(&[0, 1, 3, 16, 130]);
}

/// More pairs than share an inversion, and a bucket that holds them all.
#[test]
fn a_bucket_of_thousands_is_added_up() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let mut sum = g1::Config::GENERATOR;
    let points: Vec<_> = (0..3000)
        .map(|_| {
            sum = (sum + g1::Config::GENERATOR).into_affine();
            sum
        })
        .collect();
    let twos = vec![Fr::from(2u64); points.len()];
    // 2 sum_(k = 2)^3001 k
    let want = g1::Config::GENERATOR * Fr::from(3001u64 * 3002 - 2);
    for path in paths() {
        let query = Query::<g1::Config, 1>::new(path, &points);
        assert_eq!(query.sum(&scalars(&twos), &Gate::default()), want, "{path:?}");
        let values: Vec<Fr> = points.iter().map(|_| Fr::rand(&mut rng)).collect();
        let total: Fr = values.iter().enumerate().map(|(i, v)| *v * Fr::from(i as u64 + 2)).sum();
        assert_eq!(query.sum(&scalars(&values), &Gate::default()), g1::Config::GENERATOR * total, "{path:?}");
    }
}

#[test]
fn digits_make_the_scalar_again() {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let values: Vec<Fr> = (0..200).map(|i| awkward(i, &mut rng)).collect();
    for bits in 2..=BITS_MAX {
        let digits = digits(&scalars(&values), bits);
        for (i, value) in values.iter().enumerate() {
            let mut sum = Fr::zero();
            for window in digits.iter().rev() {
                assert!(window[i].unsigned_abs() <= 1 << (bits - 1));
                sum = sum * Fr::from(1u64 << bits) + Fr::from(i64::from(window[i]));
            }
            assert_eq!(sum, *value, "{bits} bits");
        }
    }
}

#[test]
fn minus_one_takes_no_more_windows_than_one() {
    let digits = digits(&scalars(&[Fr::one(), -Fr::one()]), 8);
    assert_eq!((digits[0].as_slice(), digits[1..].iter().all(|w| w == &[0, 0])), (&[1, -1][..], true));
}
