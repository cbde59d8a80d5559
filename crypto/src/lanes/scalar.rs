//! The scalar field in lanes: the way to and from words, products by factors known beforehand, sums that are reduced late.
//!
//! Form     ark-ff holds `x 2^256 mod r`, lanes hold `x 2^260`: ark's words, shifted by four bits, are limbs of the same element, below 16 r
//! Bounds   in multiples of r; 2^260 is 35.3 r. [`Limbs`] are a value before its carries, and may stand for it plus a multiple of 2^260
//! Source   Shoup's product by a fixed factor (V. Shoup, NTL; D. Harvey, J. Symb. Comput. 60, 2014), here with half of the quotient's product
//!          left out: what that loses is at most 10 in the quotient, for which the spare bits are wide enough

use super::{BITS, Lanes, MASK, Modulus, mul, splat, transpose, vector, words};
use ark_bls12_381::{Fr, FrConfig};
use ark_ff::{BigInt, MontConfig, PrimeField};
use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_or_si512,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64,
};

/// The scalar field.
pub struct R255;

impl Modulus<5> for R255 {
    const P: [u64; 5] = split(&Fr::MODULUS.0);
}

/// `2^260 - r`
const NEGATIVE: [u64; 5] = {
    let mut out = [0; 5];
    let (mut i, mut borrow) = (0, 0);
    while i < 5 {
        let x = (1 << BITS) - R255::P[i] - borrow;
        out[i] = x & MASK;
        borrow = 1 - (x >> BITS);
        i += 1;
    }
    out
};

/// Eight values before their carries: limbs below 2^58, each value mod 2^260.
pub type Limbs = [__m512i; 5];

/// 64-bit words to 52-bit limbs.
#[must_use]
pub const fn split<const N: usize, const L: usize>(words: &[u64; N]) -> [u64; L] {
    let mut out = [0; L];
    let mut i = 0;
    while i < L {
        let (word, bit) = (i * BITS as usize / 64, i as u32 * BITS % 64);
        let mut limb = if word < N { words[word] >> bit } else { 0 };
        if bit > 64 - BITS && word + 1 < N {
            limb |= words[word + 1] << (64 - bit);
        }
        out[i] = limb & MASK;
        i += 1;
    }
    out
}

/// 52-bit limbs to 64-bit words; what does not fit is lost.
#[must_use]
pub const fn pack<const N: usize, const L: usize>(limbs: &[u64; L]) -> [u64; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < L {
        let (word, bit) = (i * BITS as usize / 64, i as u32 * BITS % 64);
        if word < N {
            out[word] |= limbs[i] << bit;
        }
        if bit > 64 - BITS && word + 1 < N {
            out[word + 1] |= limbs[i] >> (64 - bit);
        }
        i += 1;
    }
    out
}

/// A scalar as lanes hold it, below r.
#[must_use]
pub fn limbs(x: Fr) -> [u64; 5] {
    split(&(x * Fr::from(16u64)).0.0)
}

/// Two scalars a lane, four words each as ark-ff holds them. Gives below 16 r.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn from_ark(rows: &[[u64; 8]; 8]) -> [Lanes<5>; 2] {
    let mask = _mm512_set1_epi64(MASK as i64);
    let mut r = [_mm512_setzero_si512(); 8];
    for lane in 0..8 {
        r[lane] = vector(&rows[lane]);
    }
    let [a, b, c, d, e, f, g, h] = transpose(&r);
    let mut out = [Lanes([mask; 5]); 2];
    for (out, [a, b, c, d]) in out.iter_mut().zip([[a, b, c, d], [e, f, g, h]]) {
        out.0 = [
            _mm512_and_si512(_mm512_slli_epi64::<4>(a), mask),
            _mm512_and_si512(_mm512_or_si512(_mm512_srli_epi64::<48>(a), _mm512_slli_epi64::<16>(b)), mask),
            _mm512_and_si512(_mm512_or_si512(_mm512_srli_epi64::<36>(b), _mm512_slli_epi64::<28>(c)), mask),
            _mm512_and_si512(_mm512_or_si512(_mm512_srli_epi64::<24>(c), _mm512_slli_epi64::<40>(d)), mask),
            _mm512_srli_epi64::<12>(d),
        ];
    }
    out
}

/// The scalars, of lanes below 35 r.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn to_ark(x: &Lanes<5>) -> [Fr; 8] {
    // 2^256 / 2^260 from one form to the other; the product is below 2 r.
    const BACK: [u64; 5] = split(&<FrConfig as MontConfig<4>>::R.0);
    let x = super::less_if_not_below::<1, R255, 5>(&mul::<R255, 5>(x, &splat(&BACK)));
    let mut columns = [[0; 8]; 5];
    for i in 0..5 {
        words(x.0[i], &mut columns[i]);
    }
    std::array::from_fn(|lane| Fr::new_unchecked(BigInt(pack(&columns.each_ref().map(|c| c[lane])))))
}

/// `a + b`, carries put off.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn plus(a: &Limbs, b: &Limbs) -> Limbs {
    let mut out = *a;
    for i in 0..5 {
        out[i] = _mm512_add_epi64(a[i], b[i]);
    }
    out
}

/// The value, mod 2^260, with its carries taken.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn wrapped(mut x: Limbs) -> Lanes<5> {
    let mask = _mm512_set1_epi64(MASK as i64);
    for i in 0..4 {
        x[i + 1] = _mm512_add_epi64(x[i + 1], _mm512_srli_epi64::<BITS>(x[i]));
        x[i] = _mm512_and_si512(x[i], mask);
    }
    x[4] = _mm512_and_si512(x[4], mask);
    Lanes(x)
}

/// The same element below 1.2 r, of a value below 105 r that is not wrapped.
///
/// With T the value's bits from 208 up, or one less where a carry was put off, and t = floor(r / 2^208), the quotient taken is
/// `floor(floor(T / 16) C / 2^52)`, `C = floor(2^56 / (t + 1))`. It is not above the true one, and it is below `value / r` by less than
/// 1 for its own floor, `(T / 16) / 2^52` for that of C, and 2^-40 for the others; T is below `105 * 2^46.86`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn settled(sum: &Limbs) -> Lanes<5> {
    const C: u64 = (1 << (BITS + 4)) / (R255::P[4] + 1);
    let top = _mm512_add_epi64(sum[4], _mm512_srli_epi64::<BITS>(sum[3]));
    let quotient =
        _mm512_madd52hi_epu64(_mm512_setzero_si512(), _mm512_srli_epi64::<4>(top), _mm512_set1_epi64(C as i64));
    let mut x = *sum;
    for i in 0..5 {
        x[i] = _mm512_madd52lo_epu64(x[i], quotient, _mm512_set1_epi64(NEGATIVE[i] as i64));
    }
    for i in 0..4 {
        x[i + 1] = _mm512_madd52hi_epu64(x[i + 1], quotient, _mm512_set1_epi64(NEGATIVE[i] as i64));
    }
    wrapped(x)
}

/// A factor that is known beforehand: `d` and `floor(d 2^260 / r)`.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    factor: [u64; 5],
    quotient: [u64; 5],
}

impl Fixed {
    /// Of `d`, itself and not in Montgomery's form: products by it keep the form of the other factor.
    #[must_use]
    pub fn new(d: Fr) -> Self {
        // d 2^260 = q r + rest, so q = -rest / r mod 2^260: digit by digit, what makes the lowest limb 0.
        let mut x = limbs(d);
        let mut quotient = [0; 5];
        for i in 0..5 {
            quotient[i] = x[i].wrapping_mul(R255::INVERSE) & MASK;
            let mut carry = 0;
            for j in 0..5 - i {
                let t = u128::from(quotient[i]) * u128::from(R255::P[j]) + u128::from(x[i + j]) + carry;
                x[i + j] = t as u64 & MASK;
                carry = t >> BITS;
            }
        }
        Self { factor: split(&d.into_bigint().0), quotient }
    }

    /// `d x` of any x below 2^260: mod 2^260, below 10.01 r.
    ///
    /// The quotient's product is summed from its limb 5 up. What stands below is under 9.01 limbs' units, the digits of the quotient not taken
    /// under 1: the quotient is at most 10 too small, and never too large.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    pub fn times(&self, x: &Lanes<5>) -> Limbs {
        let broadcast = |limb: u64| _mm512_set1_epi64(limb as i64);
        let mut q = [_mm512_setzero_si512(); 5];
        for i in 0..5 {
            for j in 4 - i..5 {
                let d = broadcast(self.quotient[j]);
                if i + j > 4 {
                    q[i + j - 5] = _mm512_madd52lo_epu64(q[i + j - 5], x.0[i], d);
                }
                q[i + j - 4] = _mm512_madd52hi_epu64(q[i + j - 4], x.0[i], d);
            }
        }
        let mut out = [_mm512_setzero_si512(); 5];
        for i in 0..5 {
            for j in 0..5 - i {
                let d = broadcast(self.factor[j]);
                out[i + j] = _mm512_madd52lo_epu64(out[i + j], x.0[i], d);
                if i + j < 4 {
                    out[i + j + 1] = _mm512_madd52hi_epu64(out[i + j + 1], x.0[i], d);
                }
            }
        }
        // The multiplier reads the lowest 52 bits, so what was carried need not be cleared.
        for i in 0..4 {
            q[i + 1] = _mm512_add_epi64(q[i + 1], _mm512_srli_epi64::<BITS>(q[i]));
        }
        for i in 0..5 {
            for j in 0..5 - i {
                let n = broadcast(NEGATIVE[j]);
                out[i + j] = _mm512_madd52lo_epu64(out[i + j], q[i], n);
                if i + j < 4 {
                    out[i + j + 1] = _mm512_madd52hi_epu64(out[i + j + 1], q[i], n);
                }
            }
        }
        out
    }
}
