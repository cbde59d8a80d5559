//! Eight compressions at a time by AVX-512 IFMA.
//!
//! Form     the lanes' form from the first layer to the last; words come in by a shift and go out by one product
//! Bounds   in multiples of r, products by their rules. What is settled is below 1.2. S-box: of a word below 12.3, 1.7; of 1.2, 1.1.
//!          Internal layer: words below 11.3 come out (10.1 and 1.2), so with the S-box's the sum is below 81; with a constant on top, word 0
//!          is below 12.3. External layer: 48 times the largest word, 58 at first and 53 then. All that is settled is below 105
//! Count    242 squares and 121 products with Montgomery's reduction, 456 products by the diagonal, which are fixed factors
//! Checked  against [`super::permute`] for every kind of node

#![allow(unsafe_code)] // the call into code compiled for these instructions
// Words and limbs are counted: several arrays go by one index.
#![allow(clippy::needless_range_loop)]

use super::params::{DIAGONAL_MINUS_ONE, FULL, PARTIAL};
use crate::Fr;
use crate::lanes::{self, Fixed, Ifma, Lanes, Limbs, R255, from_ark, limbs, plus, settled, splat, to_ark, wrapped};
use ark_ff::Zero;
use fluence_types::tree::NodeKind;
use std::sync::LazyLock;

type V = Lanes<5>;

struct Tables {
    full: [[[u64; 5]; 8]; FULL.len()],
    /// The last is followed by a 0: what is added to word 0 after each internal layer.
    partial: [[u64; 5]; PARTIAL.len() + 1],
    diagonal: [Fixed; 8],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    full: FULL.map(|round| round.map(limbs)),
    partial: std::array::from_fn(|i| PARTIAL.get(i).copied().map_or([0; 5], limbs)),
    diagonal: DIAGONAL_MINUS_ONE.map(Fixed::new),
});

/// See [`super::compress_many`].
pub(super) fn compress_many(_seen: Ifma, kind: NodeKind, inputs: &[[Fr; 8]]) -> Vec<Fr> {
    // SAFETY: an `Ifma` is made only where every feature was seen that the function is compiled for.
    let compress = |eight: &[[Fr; 8]; 8]| unsafe { compress(kind.word(), eight) };
    let (eights, rest) = inputs.as_chunks::<8>();
    let mut out = Vec::with_capacity(inputs.len());
    out.extend(eights.iter().flat_map(compress));
    match rest {
        [] => {}
        [one] => out.push(super::compress(kind, one)),
        _ => {
            let mut padded = [[Fr::zero(); 8]; 8];
            padded[..rest.len()].copy_from_slice(rest);
            out.extend_from_slice(&compress(&padded)[..rest.len()]);
        }
    }
    out
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn compress(word: usize, inputs: &[[Fr; 8]; 8]) -> [Fr; 8] {
    let mut x = [splat(&[0; 5]); 8];
    for i in 0..4 {
        let mut rows = [[0; 8]; 8];
        for (row, input) in rows.iter_mut().zip(inputs) {
            row[..4].copy_from_slice(&input[2 * i].0.0);
            row[4..].copy_from_slice(&input[2 * i + 1].0.0);
        }
        let [a, b] = from_ark(&rows);
        (x[2 * i], x[2 * i + 1]) = (settled(&a.0), settled(&b.0));
    }
    let forward = x[word];
    let out = permute(x);
    to_ark(&wrapped(plus(&settled(&out[word]).0, &forward.0)))
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn permute(mut x: [V; 8]) -> [Limbs; 8] {
    let tables = &*TABLES;
    let (begin, end) = tables.full.split_at(FULL.len() / 2);
    let mut sums = external(&x);
    for constants in begin {
        sums = full(&sums, constants);
    }
    x[0] = settled(&plus(&sums[0], &splat(&tables.partial[0]).0));
    for i in 1..8 {
        x[i] = settled(&sums[i]);
    }
    for next in &tables.partial[1..] {
        partial(&mut x, &tables.diagonal, next);
    }
    sums = x.map(|word| word.0);
    for constants in end {
        sums = full(&sums, constants);
    }
    sums
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn square(x: &V) -> V {
    lanes::square::<R255, 5>(x)
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn full(sums: &[Limbs; 8], constants: &[[u64; 5]; 8]) -> [Limbs; 8] {
    let mut x = [splat(&[0; 5]); 8];
    for i in 0..8 {
        let base = settled(&plus(&sums[i], &splat(&constants[i]).0));
        x[i] = lanes::mul::<R255, 5>(&square(&square(&base)), &base);
    }
    external(&x)
}

/// The S-box of word 0, to which its constant was added already, the internal layer, and the constant of the round after.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn partial(x: &mut [V; 8], diagonal: &[Fixed; 8], next: &[u64; 5]) {
    let mut products = [[splat::<1>(&[0]).0[0]; 5]; 8];
    let base = x[0];
    let second = square(&base);
    for i in 1..4 {
        products[i] = diagonal[i].times(&x[i]);
    }
    let fourth = square(&second);
    for i in 4..7 {
        products[i] = diagonal[i].times(&x[i]);
    }
    x[0] = lanes::mul::<R255, 5>(&fourth, &base);
    products[7] = diagonal[7].times(&x[7]);
    products[0] = plus(&diagonal[0].times(&x[0]), &splat(next).0);
    let mut sum = x[0].0;
    for word in &x[1..] {
        sum = plus(&sum, &word.0);
    }
    let sum = settled(&sum);
    for i in 0..8 {
        x[i] = wrapped(plus(&products[i], &sum.0));
    }
}

/// circ(2 M4, M4), by the addition chain of the Poseidon2 paper's appendix.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn external(x: &[V; 8]) -> [Limbs; 8] {
    let [a, b, c, d, e, f, g, h] = x;
    let (lo, hi) = (m4([a, b, c, d]), m4([e, f, g, h]));
    let mut out = [x[0].0; 8];
    for i in 0..4 {
        let both = plus(&lo[i], &hi[i]);
        out[i] = plus(&lo[i], &both);
        out[i + 4] = plus(&hi[i], &both);
    }
    out
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
#[inline]
fn m4(x: [&V; 4]) -> [Limbs; 4] {
    let [a, b, c, d] = x.map(|word| word.0);
    let double = |a: &Limbs| plus(a, a);
    let (ab, cd) = (plus(&a, &b), plus(&c, &d));
    let (b2, d2) = (plus(&double(&b), &cd), plus(&double(&d), &ab));
    let (ab4, cd4) = (plus(&double(&double(&ab)), &b2), plus(&double(&double(&cd)), &d2));
    [plus(&d2, &ab4), ab4, plus(&b2, &cd4), cd4]
}
