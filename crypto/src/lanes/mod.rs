//! Eight field elements at once, in 52-bit limbs, by AVX-512 IFMA.
//!
//! Form     limb i of eight elements is one vector; a value is `x R mod p` with R = 2^(52 L), so Fp has 8 limbs and 35 spare bits, Fr has 5 and 5
//! Bounds   values are only loosely reduced. Every function says what it takes and gives, in multiples of p, and limbs are always below 2^52
//!          when a product reads them: the multiplier looks at no higher bit. A product of factors below `a p` and `b p` is below
//!          `p (1 + a b p / R)`: for Fp that is 1.01 p up to a b = 2^28, for Fr 1.5 p up to a b = 16
//! Source   Gueron and Krasnov, "Accelerating big integer arithmetic using Intel IFMA extensions", ARITH 2016; Montgomery's reduction, limb by limb
//! Rule     no function here can be called but from code compiled for the same instructions, and the way there is [`Ifma`]: the value is the
//!          permission, and only seeing the instructions makes one

// The load and the store below.
#![allow(unsafe_code)]
// The one condition is the instructions, and a call from code that is compiled for them is safe.
#![allow(clippy::missing_safety_doc)]
// Limbs and lanes are counted: several arrays go by one index.
#![allow(clippy::needless_range_loop)]

pub mod base;
pub mod curve;
mod scalar;

pub use scalar::{Fixed, Limbs, R255, from_ark, limbs, pack, plus, settled, split, to_ark, wrapped};

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_loadu_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_mask_sub_epi64, _mm512_movepi64_mask,
    _mm512_permutexvar_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_srai_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

/// Bits of a limb.
pub const BITS: u32 = 52;
/// A limb's ones.
pub const MASK: u64 = (1 << BITS) - 1;

/// The proof that this processor has the instructions: AVX-512 F, DQ and IFMA.
#[derive(Clone, Copy, Debug)]
pub struct Ifma(());

impl Ifma {
    /// `None` where one of them is missing.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512ifma");
        there.then_some(Self(()))
    }
}

/// A modulus in limbs.
pub trait Modulus<const L: usize> {
    /// The modulus.
    const P: [u64; L];
    /// `-P^-1 mod 2^52`
    const INVERSE: u64 = {
        // Newton: each step doubles the bits that are right.
        let mut inverse = 1u64;
        let mut i = 0;
        while i < 6 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(Self::P[0].wrapping_mul(inverse)));
            i += 1;
        }
        inverse.wrapping_neg() & MASK
    };
    /// Limb i of 0, P, 2 P .. 7 P.
    const MULTIPLES: [[u64; 8]; L] = {
        let mut table = [[0; 8]; L];
        let mut k = 0;
        while k < 8 {
            let (mut i, mut carry) = (0, 0);
            while i < L {
                let x = Self::P[i] * k as u64 + carry;
                table[i][k] = if i + 1 == L { x } else { x & MASK };
                carry = x >> BITS;
                i += 1;
            }
            k += 1;
        }
        table
    };
    /// `floor(2^52 / (top limb of P + 1))`
    const TOP_INVERSE: u64 = (1 << BITS) / (Self::P[L - 1] + 1);
}

/// Eight elements.
#[derive(Clone, Copy)]
pub struct Lanes<const L: usize>(pub [__m512i; L]);

/// One limb of eight elements.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn vector(limb: &[u64; 8]) -> __m512i {
    // SAFETY: a reference to eight words is readable for 64 bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(limb.as_ptr().cast()) }
}

/// The other way.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn words(v: __m512i, out: &mut [u64; 8]) {
    // SAFETY: a unique reference to eight words is writable for 64 bytes, and the store asks for no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
}

/// The same element in every lane.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn splat<const L: usize>(limbs: &[u64; L]) -> Lanes<L> {
    let mut out = [_mm512_setzero_si512(); L];
    for i in 0..L {
        out[i] = _mm512_set1_epi64(limbs[i] as i64);
    }
    Lanes(out)
}

/// Carries from limb to limb, the highest takes the rest; limbs may be negative, the value may not.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn carried<const L: usize>(mut x: [__m512i; L]) -> Lanes<L> {
    let mask = _mm512_set1_epi64(MASK as i64);
    for i in 0..L - 1 {
        x[i + 1] = _mm512_add_epi64(x[i + 1], _mm512_srai_epi64::<BITS>(x[i]));
        x[i] = _mm512_and_si512(x[i], mask);
    }
    Lanes(x)
}

/// A product before its reduction: `2 L` limbs that have taken no carry yet.
#[derive(Clone, Copy)]
pub struct Wide(pub [__m512i; 16]);

/// `a b`, unreduced.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn product<const L: usize>(a: &Lanes<L>, b: &Lanes<L>) -> Wide {
    let mut x = [_mm512_setzero_si512(); 16];
    for i in 0..L {
        for j in 0..L {
            x[i + j] = _mm512_madd52lo_epu64(x[i + j], a.0[j], b.0[i]);
        }
        for j in 0..L {
            x[i + j + 1] = _mm512_madd52hi_epu64(x[i + j + 1], a.0[j], b.0[i]);
        }
    }
    Wide(x)
}

/// `x / R`, the limbs of `x` signed, its value not negative: below `p (1 + x / (p R))`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn reduced<M: Modulus<L>, const L: usize>(x: &Wide) -> Lanes<L> {
    let mut x = x.0;
    for i in 0..L {
        // What makes the lowest limb 0: it is added, its carry kept.
        let m = _mm512_madd52lo_epu64(_mm512_setzero_si512(), x[i], _mm512_set1_epi64(M::INVERSE as i64));
        for j in 0..L {
            x[i + j] = _mm512_madd52lo_epu64(x[i + j], _mm512_set1_epi64(M::P[j] as i64), m);
        }
        for j in 0..L {
            x[i + j + 1] = _mm512_madd52hi_epu64(x[i + j + 1], _mm512_set1_epi64(M::P[j] as i64), m);
        }
        x[i + 1] = _mm512_add_epi64(x[i + 1], _mm512_srai_epi64::<BITS>(x[i]));
    }
    let mut high = [_mm512_setzero_si512(); L];
    high.copy_from_slice(&x[L..2 * L]);
    carried(high)
}

/// `a b / R`; see the bounds above.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn mul<M: Modulus<L>, const L: usize>(a: &Lanes<L>, b: &Lanes<L>) -> Lanes<L> {
    reduced::<M, L>(&product(a, b))
}

/// `a a / R`: each product of two different limbs is made once.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn square<M: Modulus<L>, const L: usize>(a: &Lanes<L>) -> Lanes<L> {
    let mut x = [_mm512_setzero_si512(); 16];
    for i in 0..L {
        for j in i + 1..L {
            x[i + j] = _mm512_madd52lo_epu64(x[i + j], a.0[j], a.0[i]);
            x[i + j + 1] = _mm512_madd52hi_epu64(x[i + j + 1], a.0[j], a.0[i]);
        }
    }
    for limb in &mut x[1..2 * L - 1] {
        *limb = _mm512_add_epi64(*limb, *limb);
    }
    for i in 0..L {
        x[2 * i] = _mm512_madd52lo_epu64(x[2 * i], a.0[i], a.0[i]);
        x[2 * i + 1] = _mm512_madd52hi_epu64(x[2 * i + 1], a.0[i], a.0[i]);
    }
    reduced::<M, L>(&Wide(x))
}

/// `a + b`; the bounds add up.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn add<const L: usize>(a: &Lanes<L>, b: &Lanes<L>) -> Lanes<L> {
    let mut out = a.0;
    for i in 0..L {
        out[i] = _mm512_add_epi64(out[i], b.0[i]);
    }
    carried(out)
}

/// `a - b + K p` for a `b` below `K p`; `K` is at most 7.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn sub<const K: usize, M: Modulus<L>, const L: usize>(a: &Lanes<L>, b: &Lanes<L>) -> Lanes<L> {
    let mut out = a.0;
    for i in 0..L {
        out[i] = _mm512_add_epi64(_mm512_sub_epi64(out[i], b.0[i]), _mm512_set1_epi64(M::MULTIPLES[i][K] as i64));
    }
    carried(out)
}

/// `K p - a` in the lanes of `mask`, for an `a` below `K p`; `a` in the others.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn negate_where<const K: usize, M: Modulus<L>, const L: usize>(mask: u8, a: &Lanes<L>) -> Lanes<L> {
    let mut out = a.0;
    for i in 0..L {
        out[i] = _mm512_mask_sub_epi64(a.0[i], mask, _mm512_set1_epi64(M::MULTIPLES[i][K] as i64), a.0[i]);
    }
    carried(out)
}

/// The same element below 1.01 p, of one below 7 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn reduce<M: Modulus<L>, const L: usize>(a: &Lanes<L>) -> Lanes<L> {
    // A quotient from the top limb: right or one too small, and that only where the rest is hardly above p.
    let quotient = _mm512_madd52hi_epu64(_mm512_setzero_si512(), a.0[L - 1], _mm512_set1_epi64(M::TOP_INVERSE as i64));
    let mut out = a.0;
    for i in 0..L {
        out[i] = _mm512_sub_epi64(out[i], _mm512_permutexvar_epi64(quotient, vector(&M::MULTIPLES[i])));
    }
    carried(out)
}

/// Lanes of `b` where `mask` has a bit, of `a` elsewhere.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn blend<const L: usize>(mask: u8, a: &Lanes<L>, b: &Lanes<L>) -> Lanes<L> {
    let mut out = a.0;
    for i in 0..L {
        out[i] = _mm512_mask_blend_epi64(mask, a.0[i], b.0[i]);
    }
    Lanes(out)
}

/// Lanes whose lowest limb is that of `K p` for a K up to `UP_TO`: all that are 0 mod p, and one in 2^50 that is not.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn maybe_zero<const UP_TO: usize, M: Modulus<L>, const L: usize>(a: &Lanes<L>) -> u8 {
    let mut mask = 0;
    for k in 0..=UP_TO {
        mask |= _mm512_cmpeq_epi64_mask(a.0[0], _mm512_set1_epi64(M::MULTIPLES[0][k] as i64));
    }
    mask
}

/// Lanes that are 0 mod p, of elements below 2 p: every limb is compared, so it is exact.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn zero<M: Modulus<L>, const L: usize>(a: &Lanes<L>) -> u8 {
    let (mut none, mut p) = (0xff, 0xff);
    for i in 0..L {
        none &= _mm512_cmpeq_epi64_mask(a.0[i], _mm512_setzero_si512());
        p &= _mm512_cmpeq_epi64_mask(a.0[i], _mm512_set1_epi64(M::P[i] as i64));
    }
    none | p
}

/// `a - K p` where that is not negative, `a` elsewhere.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn less_if_not_below<const K: usize, M: Modulus<L>, const L: usize>(a: &Lanes<L>) -> Lanes<L> {
    let mut less = a.0;
    for i in 0..L {
        less[i] = _mm512_sub_epi64(less[i], _mm512_set1_epi64(M::MULTIPLES[i][K] as i64));
    }
    let less = carried(less);
    blend(_mm512_movepi64_mask(less.0[L - 1]), &less, a)
}

/// Rows to columns: from eight elements of eight words to one vector for each word, and back.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
pub fn transpose(r: &[__m512i; 8]) -> [__m512i; 8] {
    // Pairs, quarters, halves.
    let a = [
        _mm512_unpacklo_epi64(r[0], r[1]),
        _mm512_unpackhi_epi64(r[0], r[1]),
        _mm512_unpacklo_epi64(r[2], r[3]),
        _mm512_unpackhi_epi64(r[2], r[3]),
        _mm512_unpacklo_epi64(r[4], r[5]),
        _mm512_unpackhi_epi64(r[4], r[5]),
        _mm512_unpacklo_epi64(r[6], r[7]),
        _mm512_unpackhi_epi64(r[6], r[7]),
    ];
    // a[0] = r0.0 r1.0 | r0.2 r1.2 | r0.4 r1.4 | r0.6 r1.6 ; 128-bit pieces are shuffled as in a 4 by 4 transpose.
    let b = [
        _mm512_shuffle_i64x2::<0x88>(a[0], a[2]),
        _mm512_shuffle_i64x2::<0xdd>(a[0], a[2]),
        _mm512_shuffle_i64x2::<0x88>(a[4], a[6]),
        _mm512_shuffle_i64x2::<0xdd>(a[4], a[6]),
        _mm512_shuffle_i64x2::<0x88>(a[1], a[3]),
        _mm512_shuffle_i64x2::<0xdd>(a[1], a[3]),
        _mm512_shuffle_i64x2::<0x88>(a[5], a[7]),
        _mm512_shuffle_i64x2::<0xdd>(a[5], a[7]),
    ];
    // b[0] = word 0 of r0 r1, word 4 of r0 r1, word 0 of r2 r3, word 4 of r2 r3.
    [
        _mm512_shuffle_i64x2::<0x88>(b[0], b[2]),
        _mm512_shuffle_i64x2::<0x88>(b[4], b[6]),
        _mm512_shuffle_i64x2::<0x88>(b[1], b[3]),
        _mm512_shuffle_i64x2::<0x88>(b[5], b[7]),
        _mm512_shuffle_i64x2::<0xdd>(b[0], b[2]),
        _mm512_shuffle_i64x2::<0xdd>(b[4], b[6]),
        _mm512_shuffle_i64x2::<0xdd>(b[1], b[3]),
        _mm512_shuffle_i64x2::<0xdd>(b[5], b[7]),
    ]
}

#[cfg(test)]
mod tests;
