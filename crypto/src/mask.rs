//! Masks of a sum lane: a PRF of the row boundary into the field, keyed by how round the boundary is.
//!
//! Mask     boundary `b >= 1`: `l = min(trailing zeros of b, 20)`; 48 bytes of AES-256 under `K_l` over the blocks
//!          `[b as u64 LE, n as u64 LE]`, n = 0, 1, 2, read as a little-endian integer and reduced mod r (bias below 2^-128).
//!          Boundary 0 has no prefix, so its mask is zero.
//! Keys     `K_0` is the lane key, `K_{l+1} = derive(K_l)`: who has `K_l` has every level above, and none below. Sums between
//!          boundaries that are multiples of `2^l` open to such a grantee, others do not.
//! Rule     a mask is used once, ever: prefix sums of a changed segment go under a new segment id, and so under other keys
//! Source   DESIGN sections 3 and 5

use crate::Fr;
use crate::domain;
use crate::keys::derive;
use crate::secret::Secret;
use aes::Aes256;
use aes::cipher::{BlockEncrypt, KeyInit};
use ark_ff::{AdditiveGroup, BigInt, Field, Zero};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::LazyLock;

/// The coarsest level: boundaries that are multiples of 2^20.
pub const LEVEL_MAX: u32 = 20;

/// `2^(256 + 128 k)` for k = 0, 1, 2. An integer below r, taken as the Montgomery form of an element, stands for itself times 2^-256;
/// times these it stands for itself, moved up by k halves: a reduction of 384 bits costs one sum of three products.
static HALVES: LazyLock<[Fr; 3]> = LazyLock::new(|| {
    let half = Fr::from(1u128 << 127).double();
    let r = Fr::new(Fr::R);
    [r, r * half, r * half * half]
});

/// AES blocks of a mask.
const BLOCKS: usize = 3;
/// Boundaries that are masked together: enough to keep the AES pipeline full, few enough for the stack.
const CHUNK: usize = 32;

fn level(boundary: u64) -> u32 {
    boundary.trailing_zeros().min(LEVEL_MAX)
}

fn next_level(key: &Secret<32>) -> Secret<32> {
    derive(domain::MASK_LEVEL, key, &[])
}

/// The level keys from one level up; a whole lane's, or what a grant gives.
struct Levels {
    first: u32,
    ciphers: Vec<Aes256>,
}

impl Levels {
    fn new(first: u32, key: &Secret<32>) -> Self {
        let mut key = key.expose(|k| Secret::new(*k));
        let mut ciphers = Vec::with_capacity((LEVEL_MAX - first + 1) as usize);
        for _ in first..=LEVEL_MAX {
            ciphers.push(key.expose(|k| Aes256::new(k.into())));
            key = next_level(&key);
        }
        Self { first, ciphers }
    }

    /// Masks of boundaries that all have `level >= first`.
    fn masks(&self, boundaries: &[u64], out: &mut Vec<Fr>) {
        let halves = &*HALVES;
        let mut blocks = [aes::Block::default(); BLOCKS * CHUNK];
        for chunk in boundaries.chunks(CHUNK) {
            let blocks = &mut blocks[..BLOCKS * chunk.len()];
            for (b, three) in chunk.iter().zip(blocks.chunks_exact_mut(BLOCKS)) {
                for (n, block) in three.iter_mut().enumerate() {
                    block[..8].copy_from_slice(&b.to_le_bytes());
                    block[8..].copy_from_slice(&(n as u64).to_le_bytes());
                }
                self.ciphers[(level(*b) - self.first) as usize].encrypt_blocks(three);
            }
            out.extend(chunk.iter().zip(blocks.chunks_exact(BLOCKS)).map(|(b, three)| {
                if *b == 0 {
                    return Fr::zero();
                }
                let half = |block: &aes::Block| {
                    let (lo, hi) = block.split_at(8);
                    let limb = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("8 of 16 bytes"));
                    Fr::new_unchecked(BigInt([limb(lo), limb(hi), 0, 0]))
                };
                Fr::sum_of_products(&[half(&three[0]), half(&three[1]), half(&three[2])], halves)
            }));
        }
    }

    fn mask(&self, boundary: u64) -> Option<Fr> {
        if boundary == 0 {
            return Some(Fr::zero());
        }
        if level(boundary) < self.first {
            return None;
        }
        let mut out = Vec::with_capacity(1);
        self.masks(&[boundary], &mut out);
        out.pop()
    }
}

/// All masks of a lane.
pub struct LaneMask {
    key: Secret<32>,
    levels: Levels,
}

/// The masks of a lane at boundaries that are multiples of `2^level`.
pub struct MaskGrant {
    level: u32,
    key: Secret<32>,
    levels: Levels,
}

impl LaneMask {
    /// The masks of a lane sum key.
    #[must_use]
    pub fn new(key: &Secret<32>) -> Self {
        Self { key: key.expose(|k| Secret::new(*k)), levels: Levels::new(0, key) }
    }

    /// The mask of a boundary; zero at 0.
    #[must_use]
    pub fn mask(&self, boundary: u64) -> Fr {
        self.levels.mask(boundary).expect("a lane's key gives every level")
    }

    /// The masks of consecutive boundaries, in parallel.
    #[must_use]
    pub fn fill(&self, boundaries: Range<u64>) -> Vec<Fr> {
        const PART: u64 = 4096;
        let parts = boundaries.end.saturating_sub(boundaries.start).div_ceil(PART);
        let part = |n: u64| {
            let start = boundaries.start + n * PART;
            let list: Vec<u64> = (start..boundaries.end.min(start + PART)).collect();
            let mut out = Vec::with_capacity(list.len());
            self.levels.masks(&list, &mut out);
            out
        };
        if parts <= 1 {
            return (0..parts).flat_map(part).collect();
        }
        (0..parts).into_par_iter().map(part).collect::<Vec<_>>().concat()
    }

    /// The masks at multiples of `2^level` and no others; `None` above [`LEVEL_MAX`].
    #[must_use]
    pub fn grant(&self, level: u32) -> Option<MaskGrant> {
        let mut key = self.key.expose(|k| Secret::new(*k));
        for _ in 0..level.min(LEVEL_MAX) {
            key = next_level(&key);
        }
        MaskGrant::new(level, key)
    }
}

impl MaskGrant {
    /// A grant as it was handed over; `None` above [`LEVEL_MAX`].
    #[must_use]
    pub fn new(level: u32, key: Secret<32>) -> Option<Self> {
        (level <= LEVEL_MAX).then(|| Self { level, levels: Levels::new(level, &key), key })
    }

    /// Boundaries must be multiples of 2 to this.
    #[must_use]
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// Lends the level's key, to hand the grant over.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.key.expose(f)
    }

    /// The mask of a boundary; `None` if the grant does not give it.
    #[must_use]
    pub fn mask(&self, boundary: u64) -> Option<Fr> {
        self.levels.mask(boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_ff::PrimeField;
    use std::collections::BTreeSet;

    fn lane(byte: u8) -> LaneMask {
        LaneMask::new(&Secret::new([byte; 32]))
    }

    #[test]
    fn mask_is_the_reduced_aes_output_of_its_level() {
        let mut keys = vec![Secret::new([3; 32])];
        for _ in 0..LEVEL_MAX {
            keys.push(next_level(keys.last().unwrap()));
        }
        for b in [1u64, 2, 3, 4, 255, 256, 1 << 19, 1 << 20, 1 << 30, 3 << 20, (1 << 40) - 1, u64::MAX] {
            let cipher = keys[b.trailing_zeros().min(20) as usize].expose(|k| Aes256::new(k.into()));
            let mut bytes = Vec::new();
            for n in 0..3u64 {
                let mut block = [0; 16];
                block[..8].copy_from_slice(&b.to_le_bytes());
                block[8..].copy_from_slice(&n.to_le_bytes());
                cipher.encrypt_block((&mut block).into());
                bytes.extend(block);
            }
            assert_eq!(lane(3).mask(b), Fr::from_le_bytes_mod_order(&bytes), "{b}");
        }
        assert_eq!(lane(3).mask(0), Fr::zero());
    }

    #[test]
    fn masks_in_bulk_are_the_masks_one_by_one() {
        let lane = lane(1);
        for range in [0..0, 0..1, 5..300, 4000..13_000] {
            let bulk = lane.fill(range.clone());
            assert_eq!(bulk.len() as u64, range.end - range.start);
            assert!(range.zip(bulk).all(|(b, m)| lane.mask(b) == m));
        }
    }

    #[test]
    fn masks_of_two_lanes_and_all_boundaries_differ() {
        let all: BTreeSet<_> = [lane(1).fill(1..20_000), lane(2).fill(1..20_000)].concat().into_iter().collect();
        assert_eq!(all.len(), 2 * 19_999);
    }

    #[test]
    fn grant_gives_its_level_and_above_and_nothing_below() {
        let lane = lane(1);
        for level in [0, 1, 8, LEVEL_MAX] {
            let grant = lane.grant(level).unwrap();
            for b in (0..600).chain([1 << 20, 1 << 21, 3 << 19]) {
                let given = b == 0 || b % (1 << level) == 0;
                assert_eq!(grant.mask(b), given.then(|| lane.mask(b)), "{level} {b}");
            }
            let again = MaskGrant::new(level, Secret::new(grant.expose(|k| *k))).unwrap();
            assert_eq!(again.mask(1 << 20), grant.mask(1 << 20));
        }
        assert!(lane.grant(LEVEL_MAX + 1).is_none());
    }
}
