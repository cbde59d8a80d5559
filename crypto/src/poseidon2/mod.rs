//! Poseidon2, width 8: the permutation, one compression per kind of node, digests of lists.
//!
//! Compression  `compress(kind, x) = permute(x)[w] + x[w]`, `w = kind.word()`. A liar who could pass a value of one kind for another
//!              would need a word of one output to equal another word of another output, so no tag enters the input.
//! Digest       `acc = tag * 2^64 + length; acc = compress(Digest, [acc, x1..x7])` a chunk, the last padded with 0.
//! Instance     BLS12-381 Fr, t = 8, alpha = 5, 8 full and 57 partial rounds; [`params`] gives it to circuits.
//! Source       ePrint 2023/323; constants by `tests/poseidon2/generate.py`; `docs/poseidon2.md` answers ePrint 2025/954.

mod constants;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod params;
mod permutation;

use crate::{Fr, field};
use fluence_types::FieldBytes;
use fluence_types::tree::{Cell, DigestTag, NodeKind};
pub use permutation::permute;

/// Compresses eight scalars to the output word of `kind`.
#[must_use]
pub fn compress(kind: NodeKind, x: &[Fr; 8]) -> Fr {
    let mut state = *x;
    permute(&mut state);
    state[kind.word()] + x[kind.word()]
}

/// [`compress`] of each of many inputs, on this thread: eight at a time where the processor has AVX-512 IFMA, one by one elsewhere.
#[must_use]
pub fn compress_many(kind: NodeKind, inputs: &[[Fr; 8]]) -> Vec<Fr> {
    #[cfg(target_arch = "x86_64")]
    if let Some(ifma) = crate::lanes::Ifma::detect() {
        return lanes::compress_many(ifma, kind, inputs);
    }
    inputs.iter().map(|x| compress(kind, x)).collect()
}

/// [`compress`] of canonical bytes.
#[must_use]
pub fn compress_cell(kind: NodeKind, x: &Cell) -> FieldBytes {
    field::to_bytes(&compress(kind, &field::cell_to_fr(x)))
}

/// Digest of a list under a tag; the length is bound, and an empty list costs one compression.
#[must_use]
pub fn digest(tag: DigestTag, xs: &[Fr]) -> Fr {
    let mut acc = field::from_bytes(&tag.start(xs.len() as u64));
    let mut absorb = |chunk: &[Fr]| {
        let mut input = [Fr::from(0u64); 8];
        input[0] = acc;
        input[1..=chunk.len()].copy_from_slice(chunk);
        acc = compress(NodeKind::Digest, &input);
    };
    if xs.is_empty() {
        absorb(&[]);
    }
    xs.chunks(7).for_each(absorb);
    acc
}

/// [`digest`] of canonical bytes.
#[must_use]
pub fn digest_bytes(tag: DigestTag, xs: &[FieldBytes]) -> FieldBytes {
    let xs: Vec<Fr> = xs.iter().map(field::from_bytes).collect();
    field::to_bytes(&digest(tag, &xs))
}

#[cfg(test)]
mod tests;
