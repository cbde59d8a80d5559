use super::*;
use ark_bls12_381::Fr;
use ark_ff::{Field, PrimeField, Zero};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Limbs of `k r + n`.
fn multiple(k: u64, n: u64) -> [u64; 5] {
    let mut out = [0; 5];
    let mut carry = u128::from(n);
    for (out, p) in out.iter_mut().zip(R255::P) {
        let x = u128::from(p) * u128::from(k) + carry;
        *out = x as u64 & MASK;
        carry = x >> BITS;
    }
    assert_eq!(carry, 0, "{k} r + {n} is not below 2^260");
    out
}

/// The integer as an element.
fn element(limbs: &[u64; 5]) -> Fr {
    limbs.iter().rev().fold(Fr::zero(), |sum, limb| sum * Fr::from(1u64 << BITS) + Fr::from(*limb))
}

fn is_below(x: &[u64; 5], bound: &[u64; 5]) -> bool {
    x.iter().rev().lt(bound.iter().rev())
}

/// Integers below 2^260 in groups of eight: around every multiple of r, at the ends, anywhere.
fn eights() -> Vec<[[u64; 5]; 8]> {
    let mut all: Vec<[u64; 5]> = (0..35).flat_map(|k| [multiple(k, 0), multiple(k, 1)]).collect();
    all.extend([[MASK; 5], [0, 0, 0, 0, MASK], [MASK, 0, 0, 0, 0], multiple(1, 0).map(|p| p ^ 1)]);
    let mut rng = StdRng::seed_from_u64(1);
    while all.len() < 256 {
        all.push(std::array::from_fn(|_| rng.r#gen::<u64>() & MASK));
    }
    all.as_chunks::<8>().0.to_vec()
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn lanes(x: &[[u64; 5]; 8]) -> Lanes<5> {
    let mut out = splat(&[0; 5]);
    for i in 0..5 {
        out.0[i] = vector(&x.map(|x| x[i]));
    }
    out
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn integers(x: &Lanes<5>) -> [[u64; 5]; 8] {
    let mut columns = [[0; 8]; 5];
    for i in 0..5 {
        words(x.0[i], &mut columns[i]);
    }
    std::array::from_fn(|lane| columns.map(|c| c[lane]))
}

#[test]
fn products_by_fixed_factors_are_right_and_below_their_bound() {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn check(factor: Fr) {
        let fixed = Fixed::new(factor);
        for x in eights() {
            let product = integers(&wrapped(fixed.times(&lanes(&x))));
            for (x, product) in x.iter().zip(&product) {
                assert_eq!(element(product), element(x) * factor);
                assert!(is_below(product, &multiple(11, 0)), "{x:?} times {factor}");
            }
        }
    }
    if Ifma::detect().is_none() {
        return;
    }
    let factor = Fr::from(3u64).pow([12_345]);
    for factor in [Fr::zero(), Fr::from(1u64), Fr::from(2u64), -Fr::from(1u64), factor, factor.square()] {
        // SAFETY: the features were seen.
        unsafe { check(factor) };
    }
}

#[test]
fn squares_are_products() {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn check() {
        for x in eights() {
            let x = lanes(&x);
            assert_eq!(integers(&square::<R255, 5>(&x)), integers(&mul::<R255, 5>(&x, &x)));
        }
    }
    if Ifma::detect().is_some() {
        // SAFETY: the features were seen.
        unsafe { check() };
    }
}

#[test]
fn settled_sums_are_the_same_elements_and_below_their_bound() {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn check(times: u64, bound: &[u64; 5]) {
        for x in eights() {
            let sum = lanes(&x.map(|x| x.map(|limb| limb * times)));
            for (x, out) in x.iter().zip(integers(&settled(&sum.0))) {
                assert_eq!(element(&out), element(x) * Fr::from(times));
                assert!(is_below(&out, bound), "{x:?} {times} times");
            }
        }
    }
    if Ifma::detect().is_none() {
        return;
    }
    for times in 1..=3 {
        // SAFETY: the features were seen.
        unsafe { check(times, &R255::P.map(|p| p + p / 5)) };
    }
}

#[test]
fn words_come_in_and_go_out_as_they_were() {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn check() {
        for x in eights() {
            let elements = x.map(|x| element(&x));
            let rows = elements.map(|x| {
                let mut row = [0; 8];
                row[..4].copy_from_slice(&x.0.0);
                row[4..].copy_from_slice(&(-x).0.0);
                row
            });
            let [same, negative] = from_ark(&rows);
            for (x, got) in elements.iter().zip(integers(&same)) {
                assert_eq!(element(&got), element(&limbs(*x)));
                assert!(is_below(&got, &multiple(16, 0)));
            }
            assert_eq!(to_ark(&same), elements);
            assert_eq!(to_ark(&negative), elements.map(|x| -x));
            assert_eq!(elements.map(|x| x.into_bigint().0), elements.map(|x| pack(&split::<4, 5>(&x.into_bigint().0))));
        }
    }
    if Ifma::detect().is_some() {
        // SAFETY: the features were seen.
        unsafe { check() };
    }
}
