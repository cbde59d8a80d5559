//! The permutation, natively: additions only in the external layer, eight products in the internal one, reductions put off.
//!
//! Words    Montgomery form, four 64-bit limbs. *Tight* is below r; *loose* is below 2^256 (r is 0.453 * 2^256), and each function
//!          says which it takes and gives. Sums of loose words have a fifth limb and are reduced once, at the end.
//! Why      with reduced additions (`ark_ff`'s) half the time goes into comparisons whose outcome no branch predictor can guess.
//! Checked  against whole matrices over `ark_ff`, against the Python program's vectors, and against `zkhash` (`benches/compare`)
//! Source   Montgomery 1985; interleaved products: Koc, Acar, Kaliski 1996 (CIOS), without the top carry as r has a spare bit

use super::params::{DIAGONAL_MINUS_ONE, FULL, PARTIAL};
use crate::Fr;
use ark_bls12_381::FrConfig;
use ark_ff::{BigInt, MontConfig};

type Word = [u64; 4];
type Wide = [u64; 5];

const R: Word = <FrConfig as MontConfig<4>>::MODULUS.0;
/// -1/r mod 2^64.
const INV: u64 = <FrConfig as MontConfig<4>>::INV;

/// Permutes the state in place.
pub fn permute(state: &mut [Fr; 8]) {
    let mut x: [Word; 8] = std::array::from_fn(|i| state[i].0.0);
    let (begin, end) = FULL.split_at(FULL.len() / 2);
    let mut sums = external(&x);
    for constants in begin {
        sums = external(&full_sbox(&sums, constants));
    }
    x = std::array::from_fn(|i| reduce(&sums[i]));
    let mut first = sums[0];
    for constant in &PARTIAL {
        add(&mut first, &constant.0.0);
        x[0] = sbox(&reduce(&first));
        first = internal(&mut x);
    }
    sums = x.map(|word| widen(&word));
    sums[0] = first;
    for constants in end {
        sums = external(&full_sbox(&sums, constants));
    }
    *state = std::array::from_fn(|i| Fr::new_unchecked(BigInt(reduce(&sums[i]))));
}

/// Adds the constants and applies the S-box to every word. Gives loose words.
#[inline]
fn full_sbox(sums: &[Wide; 8], constants: &[Fr; 8]) -> [Word; 8] {
    std::array::from_fn(|i| {
        let mut sum = sums[i];
        add(&mut sum, &constants[i].0.0);
        sbox(&reduce(&sum))
    })
}

/// The fifth power of a tight word. Gives a loose one, below 1.89 r: the square is below 1.46 r, its square below 1.96 r.
#[inline]
fn sbox(x: &Word) -> Word {
    mul(&square(&square(x)), x)
}

/// circ(2 M4, M4), by the addition chain of the Poseidon2 paper's appendix. Takes loose words; the sums are below 48 * 2^256.
#[inline]
fn external(x: &[Word; 8]) -> [Wide; 8] {
    let [a, b, c, d, e, f, g, h] = x;
    let (lo, hi) = (m4([a, b, c, d]), m4([e, f, g, h]));
    std::array::from_fn(|i| {
        let own = if i < 4 { &lo[i] } else { &hi[i - 4] };
        plus(own, &plus(&lo[i % 4], &hi[i % 4]))
    })
}

#[inline]
fn m4(x: [&Word; 4]) -> [Wide; 4] {
    let [a, b, c, d] = x.map(widen);
    let (ab, cd) = (plus(&a, &b), plus(&c, &d));
    let (b2, d2) = (plus(&plus(&b, &b), &cd), plus(&plus(&d, &d), &ab));
    let (ab4, cd4) = (plus(&shl2(&ab), &b2), plus(&shl2(&cd), &d2));
    [plus(&d2, &ab4), ab4, plus(&b2, &cd4), cd4]
}

/// `x_i = sum + d_i x_i` on loose words. Word 0 is given as a sum of its own, for the next round's constant to be added before it is
/// reduced; the others stay in place, loose.
#[inline]
fn internal(x: &mut [Word; 8]) -> Wide {
    let mut sum = widen(&x[0]);
    for word in &x[1..] {
        add(&mut sum, word);
    }
    let mut first = sum;
    add(&mut first, &mul(&x[0], &DIAGONAL_MINUS_ONE[0].0.0));
    let sum = reduce(&sum);
    for (word, d) in x.iter_mut().zip(&DIAGONAL_MINUS_ONE).skip(1) {
        // Two tight words make a loose one.
        let product = subtract_once(&mul(word, &d.0.0));
        let (a, carry) = product[0].carrying_add(sum[0], false);
        let (b, carry) = product[1].carrying_add(sum[1], carry);
        let (c, carry) = product[2].carrying_add(sum[2], carry);
        *word = [a, b, c, product[3].wrapping_add(sum[3]).wrapping_add(u64::from(carry))];
    }
    first
}

// --- Words -------------------------------------------------------------------------------------------------------------

#[inline(always)]
fn widen(x: &Word) -> Wide {
    [x[0], x[1], x[2], x[3], 0]
}

#[inline(always)]
fn plus(a: &Wide, b: &Wide) -> Wide {
    let (r0, c) = a[0].carrying_add(b[0], false);
    let (r1, c) = a[1].carrying_add(b[1], c);
    let (r2, c) = a[2].carrying_add(b[2], c);
    let (r3, c) = a[3].carrying_add(b[3], c);
    [r0, r1, r2, r3, a[4].wrapping_add(b[4]).wrapping_add(u64::from(c))]
}

#[inline(always)]
fn add(sum: &mut Wide, x: &Word) {
    *sum = plus(sum, &widen(x));
}

/// Four times a sum.
#[inline(always)]
fn shl2(a: &Wide) -> Wide {
    [a[0] << 2, a[1] << 2 | a[0] >> 62, a[2] << 2 | a[1] >> 62, a[3] << 2 | a[2] >> 62, a[4] << 2 | a[3] >> 62]
}

/// The tight word of a word below 2 r.
#[inline(always)]
fn subtract_once(x: &Word) -> Word {
    let (d0, b) = x[0].borrowing_sub(R[0], false);
    let (d1, b) = x[1].borrowing_sub(R[1], b);
    let (d2, b) = x[2].borrowing_sub(R[2], b);
    let (d3, b) = x[3].borrowing_sub(R[3], b);
    let keep = (b as u64).wrapping_neg();
    [d0 ^ ((d0 ^ x[0]) & keep), d1 ^ ((d1 ^ x[1]) & keep), d2 ^ ((d2 ^ x[2]) & keep), d3 ^ ((d3 ^ x[3]) & keep)]
}

/// The tight word of a sum below 2^262.
///
/// With `h` the sum's top 8 bits in units of 2^254 and 2^254 / r = 0.55205.., `q = floor(h * 0.55204..)` is the quotient or one less:
/// `sum / r - q < (h + 1) * 0.55206 - h * 0.55203 + 1 < 1.57`, so one subtraction is left.
#[inline(always)]
fn reduce(sum: &Wide) -> Word {
    let h = sum[4] << 2 | sum[3] >> 62;
    let q = h.wrapping_mul(QUOTIENT) >> 16;
    let (m0, c) = q.carrying_mul(R[0], 0);
    let (m1, c) = q.carrying_mul(R[1], c);
    let (m2, c) = q.carrying_mul(R[2], c);
    // What is left fits four limbs, so the fifth need not be computed.
    let m3 = q.wrapping_mul(R[3]).wrapping_add(c);
    let (d0, b) = sum[0].borrowing_sub(m0, false);
    let (d1, b) = sum[1].borrowing_sub(m1, b);
    let (d2, b) = sum[2].borrowing_sub(m2, b);
    let d3 = sum[3].wrapping_sub(m3).wrapping_sub(b as u64);
    subtract_once(&[d0, d1, d2, d3])
}

/// floor(2^16 * 2^254 / r).
const QUOTIENT: u64 = 36_180;

/// `a b / 2^256`, `a` loose, `b` tight. Gives a word below `a b / 2^256 + r`, and so below 2 r.
///
/// After each step the running value is below `b + r`, whatever `a` is, so it fits four limbs.
#[inline(always)]
fn mul(a: &Word, b: &Word) -> Word {
    let mut t = [0u64; 4];
    let mut i = 0;
    while i < 4 {
        let (t0, c) = a[i].carrying_mul_add(b[0], t[0], 0);
        let (t1, c) = a[i].carrying_mul_add(b[1], t[1], c);
        let (t2, c) = a[i].carrying_mul_add(b[2], t[2], c);
        let (t3, t4) = a[i].carrying_mul_add(b[3], t[3], c);
        let q = t0.wrapping_mul(INV);
        let (_, c) = q.carrying_mul_add(R[0], t0, 0);
        let (n0, c) = q.carrying_mul_add(R[1], t1, c);
        let (n1, c) = q.carrying_mul_add(R[2], t2, c);
        let (n2, c) = q.carrying_mul_add(R[3], t3, c);
        t = [n0, n1, n2, t4.wrapping_add(c)];
        i += 1;
    }
    t
}

/// `a^2 / 2^256` for `a` below 1.46 r. Gives a word below `a^2 / 2^256 + r`, which is below 1.46 r of a tight word, else below 1.96 r.
#[inline(always)]
fn square(a: &Word) -> Word {
    // The products of different limbs, doubled, and the squares of the limbs.
    let (p1, c) = a[0].carrying_mul(a[1], 0);
    let (p2, c) = a[0].carrying_mul(a[2], c);
    let (p3, p4) = a[0].carrying_mul(a[3], c);
    let (p3, c) = a[1].carrying_mul_add(a[2], p3, 0);
    let (p4, p5) = a[1].carrying_mul_add(a[3], p4, c);
    let (p5, p6) = a[2].carrying_mul_add(a[3], p5, 0);
    let p7 = p6 >> 63;
    let (p6, p5) = (p6 << 1 | p5 >> 63, p5 << 1 | p4 >> 63);
    let (p4, p3) = (p4 << 1 | p3 >> 63, p3 << 1 | p2 >> 63);
    let (p2, p1) = (p2 << 1 | p1 >> 63, p1 << 1);
    let (p0, s) = a[0].carrying_mul(a[0], 0);
    let (p1, c) = p1.carrying_add(s, false);
    let (s, h) = a[1].carrying_mul(a[1], 0);
    let (p2, c) = p2.carrying_add(s, c);
    let (p3, c) = p3.carrying_add(h, c);
    let (s, h) = a[2].carrying_mul(a[2], 0);
    let (p4, c) = p4.carrying_add(s, c);
    let (p5, c) = p5.carrying_add(h, c);
    let (s, h) = a[3].carrying_mul(a[3], 0);
    let (p6, c) = p6.carrying_add(s, c);
    let p7 = p7.wrapping_add(h).wrapping_add(c as u64);

    let mut t = [p0, p1, p2, p3];
    let high = [p4, p5, p6, p7];
    let mut carry = false;
    let mut i = 0;
    while i < 4 {
        let q = t[0].wrapping_mul(INV);
        let (_, c) = q.carrying_mul_add(R[0], t[0], 0);
        let (n0, c) = q.carrying_mul_add(R[1], t[1], c);
        let (n1, c) = q.carrying_mul_add(R[2], t[2], c);
        let (n2, c) = q.carrying_mul_add(R[3], t[3], c);
        let (n3, o) = high[i].carrying_add(c, carry);
        t = [n0, n1, n2, n3];
        carry = o;
        i += 1;
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_ff::{PrimeField, Zero};
    use proptest::prelude::*;

    /// A word as the element it stands for, by way of its integer.
    fn element(limbs: &[u64]) -> Fr {
        let shift = Fr::from(1u128 << 64);
        let integer = limbs.iter().rev().fold(Fr::zero(), |acc, l| acc * shift + Fr::from(*l));
        integer * Fr::new_unchecked(BigInt([1, 0, 0, 0]))
    }

    fn below(limit: [u64; 4]) -> impl Strategy<Value = Word> {
        let edge = (0u64..4).prop_map(move |n| subtract(&limit, n + 1));
        let any = any::<Word>().prop_map(move |mut w| {
            while w.iter().rev().ge(limit.iter().rev()) {
                w[3] >>= 1;
            }
            w
        });
        prop_oneof![1 => edge, 1 => (0u64..4).prop_map(|n| [n, 0, 0, 0]), 4 => any]
    }

    fn subtract(limit: &Word, n: u64) -> Word {
        let mut out = *limit;
        let mut borrow = n;
        for limb in &mut out {
            let (d, b) = limb.overflowing_sub(borrow);
            (*limb, borrow) = (d, u64::from(b));
        }
        out
    }

    fn is_tight(x: &Word) -> bool {
        x.iter().rev().lt(R.iter().rev())
    }

    /// 1.453 r, the bound of a tight word's square.
    fn squared_bound() -> Word {
        let mut bound = [0; 4];
        let mut carry = 0u128;
        for i in 0..4 {
            let v = u128::from(R[i]) * 1453 + carry;
            (bound[i], carry) = (v as u64, v >> 64);
        }
        let mut rest = carry;
        for limb in bound.iter_mut().rev() {
            let v = rest << 64 | u128::from(*limb);
            (*limb, rest) = ((v / 1000) as u64, v % 1000);
        }
        bound
    }

    #[test]
    fn quotient_constant_is_what_it_says() {
        // 2^270 / r, from the top limbs of r rounded both ways.
        let scaled = |r: u64| (1u128 << 78) / u128::from(r);
        assert_eq!((scaled(R[3] + 1) as u64, scaled(R[3]) as u64), (QUOTIENT, QUOTIENT));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn product_of_a_loose_and_a_tight_word_is_right_and_below_two_r(a in below([u64::MAX; 4]), b in below(R)) {
            let product = mul(&a, &b);
            prop_assert_eq!(element(&product), element(&a) * element(&b));
            prop_assert!(is_tight(&subtract_once(&product)));
        }

        #[test]
        fn square_of_a_word_below_its_bound_is_right_and_below_two_r(a in below(squared_bound())) {
            let squared = square(&a);
            prop_assert_eq!(element(&squared), element(&a) * element(&a));
            prop_assert!(is_tight(&subtract_once(&squared)));
        }

        #[test]
        fn reduced_sum_is_tight_and_the_same_element(lo in below([u64::MAX; 4]), top in 0u64..64) {
            let [a, b, c, d] = lo;
            let sum = [a, b, c, d, top];
            prop_assert!(is_tight(&reduce(&sum)));
            prop_assert_eq!(element(&reduce(&sum)), element(&sum));
        }

        /// Sums just below and above multiples of r, where a quotient that is off by one shows.
        #[test]
        fn reduction_is_right_around_every_multiple_of_r(k in 0u64..64, n in 0u64..6) {
            let mut sum: Wide = [n, 0, 0, 0, 0];
            for _ in 0..k {
                add(&mut sum, &R);
            }
            prop_assert_eq!(reduce(&sum), [n, 0, 0, 0]);
            if k > 0 {
                let mut less: Wide = [0; 5];
                for _ in 1..k {
                    add(&mut less, &R);
                }
                add(&mut less, &subtract(&R, n + 1));
                prop_assert_eq!(reduce(&less), subtract(&R, n + 1));
            }
        }
    }

    #[test]
    fn sbox_is_the_fifth_power_at_the_edges() {
        for f in [Fr::zero(), Fr::from(1u64), -Fr::from(1u64), -Fr::from(2u64)] {
            let x = subtract_once(&sbox(&f.0.0));
            assert_eq!(Fr::new_unchecked(BigInt(x)), f * f * f * f * f);
            assert!(Fr::new_unchecked(BigInt(x)).into_bigint() < Fr::MODULUS);
        }
    }
}
