//! Sealing a block: AES-256-GCM where the machine has AES instructions, else XChaCha20-Poly1305; length padded to a bucket.
//!
//! Block    `algorithm (1 byte) || AEAD(length as u32 LE || plaintext || zeros up to the bucket)`; the algorithm byte leads the AAD too
//! Rule     a key seals one block, ever, so the nonce is zero. Keys come from [`crate::ggm`] under a fresh segment id; where a key must
//!          serve more than once, [`seal_salted`] derives a fresh one from a random salt.
//! Rule     GCM does not commit to its key: the segment header does ([`crate::keys::commitment`]), so no block opens two ways.
//! Source   NIST SP 800-38D; RFC 8439 and draft-irtf-cfrg-xchacha; buckets after Padmé, Nikitin et al., PETS 2019

use crate::domain;
use crate::keys::derive;
use crate::secret::Secret;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::XChaCha20Poly1305;
use rand::{CryptoRng, RngCore};

/// Why a block did not open. It does not say where the bytes went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AeadError {
    /// Too short, or not of a length that sealing makes.
    #[error("a sealed block is not {0} bytes long")]
    Length(usize),
    /// The first byte names no algorithm.
    #[error("unknown sealing algorithm {0}")]
    Algorithm(u8),
    /// Wrong key, wrong associated data, or changed bytes.
    #[error("block does not authenticate")]
    Tag,
    /// The plaintext is not padded as sealing does it; only a key holder can have made such a block.
    #[error("block is padded wrongly")]
    Padding,
}

/// How a block is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// AES-256-GCM.
    Aes256Gcm = 1,
    /// XChaCha20-Poly1305.
    XChaCha20Poly1305 = 2,
}

const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
const BUCKET_MIN: usize = 16;
/// Bytes of the salt of [`seal_salted`].
pub const SALT_BYTES: usize = 32;

impl Algorithm {
    /// The faster one here: AES without its instructions is slow, and hard to keep constant in time.
    #[must_use]
    pub fn native() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
        let aes = false;
        if aes { Self::Aes256Gcm } else { Self::XChaCha20Poly1305 }
    }

    fn seal(self, key: &[u8; 32], aad: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = match self {
            Self::Aes256Gcm => Aes256Gcm::new(key.into()).encrypt_in_place_detached(&[0; 12].into(), aad, bytes),
            Self::XChaCha20Poly1305 => {
                XChaCha20Poly1305::new(key.into()).encrypt_in_place_detached(&[0; 24].into(), aad, bytes)
            }
        };
        tag.expect("blocks are far below the limits of both ciphers").into()
    }

    fn open(self, key: &[u8; 32], aad: &[u8], bytes: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), AeadError> {
        let opened = match self {
            Self::Aes256Gcm => {
                Aes256Gcm::new(key.into()).decrypt_in_place_detached(&[0; 12].into(), aad, bytes, tag.into())
            }
            Self::XChaCha20Poly1305 => {
                XChaCha20Poly1305::new(key.into()).decrypt_in_place_detached(&[0; 24].into(), aad, bytes, tag.into())
            }
        };
        opened.map_err(|_| AeadError::Tag)
    }
}

/// The length that `len` bytes are padded to, their length field included: at most 12 % more, telling only log log of the length.
///
/// # Panics
/// Above 1 GiB; a row group's block is far smaller.
#[must_use]
pub fn bucket(len: usize) -> usize {
    assert!(len <= 1 << 30, "a block of {len} bytes");
    let len = (len + LENGTH_BYTES).max(BUCKET_MIN);
    // Padmé: of the length's binary digits keep the top log2(log2(len)) + 1, round the rest up.
    let exponent = len.ilog2();
    let keep = exponent.ilog2() + 1;
    len.next_multiple_of(1 << exponent.saturating_sub(keep))
}

/// Bytes of the sealed block of `len` plaintext bytes.
#[must_use]
pub fn sealed_len(len: usize) -> usize {
    1 + bucket(len) + TAG_BYTES
}

fn bound_aad(algorithm: Algorithm, aad: &[u8]) -> Vec<u8> {
    [&[algorithm as u8], aad].concat()
}

/// Seals one block under a key that seals nothing else.
#[must_use]
pub fn seal_block(key: &Secret<32>, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    seal_block_with(Algorithm::native(), key, aad, plaintext)
}

/// [`seal_block`] with the algorithm named.
#[must_use]
pub fn seal_block_with(algorithm: Algorithm, key: &Secret<32>, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let padded = bucket(plaintext.len());
    let mut block = Vec::with_capacity(sealed_len(plaintext.len()));
    block.push(algorithm as u8);
    block.extend_from_slice(&u32::try_from(plaintext.len()).expect("checked by bucket").to_le_bytes());
    block.extend_from_slice(plaintext);
    block.resize(1 + padded, 0);
    let tag = key.expose(|k| algorithm.seal(k, &bound_aad(algorithm, aad), &mut block[1..]));
    block.extend_from_slice(&tag);
    block
}

/// Opens a block.
///
/// # Errors
/// [`AeadError`].
pub fn open_block(key: &Secret<32>, aad: &[u8], block: &[u8]) -> Result<Vec<u8>, AeadError> {
    let length = || AeadError::Length(block.len());
    let (first, rest) = block.split_first().ok_or_else(length)?;
    let algorithm = match first {
        1 => Algorithm::Aes256Gcm,
        2 => Algorithm::XChaCha20Poly1305,
        other => return Err(AeadError::Algorithm(*other)),
    };
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(length)?;
    if body.len() < BUCKET_MIN || body.len() > bucket(1 << 30) {
        return Err(length());
    }
    let mut plaintext = body.to_vec();
    key.expose(|k| algorithm.open(k, &bound_aad(algorithm, aad), &mut plaintext, tag))?;
    let (prefix, padded) = plaintext.split_first_chunk::<LENGTH_BYTES>().ok_or_else(length)?;
    let len = u32::from_le_bytes(*prefix) as usize;
    // One plaintext has one padding: else a writer could smuggle bits, and two blocks would open to the same rows.
    if len > padded.len() || bucket(len) != body.len() || padded[len..].iter().any(|b| *b != 0) {
        return Err(AeadError::Padding);
    }
    plaintext.drain(..LENGTH_BYTES);
    plaintext.truncate(len);
    Ok(plaintext)
}

/// Seals under a key that may seal many things: `salt || block`, the block's key derived from the random salt.
#[must_use]
pub fn seal_salted(
    key: &Secret<32>,
    aad: &[u8],
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + RngCore + ?Sized),
) -> Vec<u8> {
    let mut salt = [0; SALT_BYTES];
    rng.fill_bytes(&mut salt);
    let mut sealed = salt.to_vec();
    sealed.extend(seal_block(&derive(domain::KEY_SALTED, key, &[&salt]), aad, plaintext));
    sealed
}

/// Opens what [`seal_salted`] made.
///
/// # Errors
/// [`AeadError`].
pub fn open_salted(key: &Secret<32>, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, AeadError> {
    let (salt, block) = sealed.split_first_chunk::<SALT_BYTES>().ok_or(AeadError::Length(sealed.len()))?;
    open_block(&derive(domain::KEY_SALTED, key, &[salt]), aad, block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const BOTH: [Algorithm; 2] = [Algorithm::Aes256Gcm, Algorithm::XChaCha20Poly1305];

    fn key(byte: u8) -> Secret<32> {
        Secret::new([byte; 32])
    }

    #[test]
    fn blocks_of_every_length_round_trip() {
        for algorithm in BOTH {
            for len in (0..200).chain([1000, 4096, 70_000]) {
                let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let block = seal_block_with(algorithm, &key(1), b"aad", &plain);
                assert_eq!(block.len(), sealed_len(len));
                assert_eq!(open_block(&key(1), b"aad", &block).as_ref(), Ok(&plain));
            }
        }
    }

    #[test]
    fn rejects_every_flipped_bit_cut_and_extension() {
        for algorithm in BOTH {
            let block = seal_block_with(algorithm, &key(1), b"aad", b"twenty bytes of text");
            for bit in 0..block.len() * 8 {
                let mut bad = block.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(open_block(&key(1), b"aad", &bad).is_err(), "bit {bit}");
            }
            for len in 0..block.len() {
                assert!(open_block(&key(1), b"aad", &block[..len]).is_err(), "{len}");
            }
            assert!(open_block(&key(1), b"aad", &[block.clone(), vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn rejects_other_associated_data_other_key_and_other_algorithm() {
        let block = seal_block(&key(1), b"aad", b"text");
        for aad in [&b""[..], b"aae", b"aad\0"] {
            assert_eq!(open_block(&key(1), aad, &block), Err(AeadError::Tag));
        }
        assert_eq!(open_block(&key(2), b"aad", &block), Err(AeadError::Tag));
        for other in [0, 3, 255] {
            let mut bad = block.clone();
            bad[0] = other;
            assert_eq!(open_block(&key(1), b"aad", &bad), Err(AeadError::Algorithm(other)));
        }
    }

    /// A block with authentic but odd padding, as only a key holder could make it.
    fn seal_raw(body: &[u8]) -> Vec<u8> {
        let mut block = [&[1], body].concat();
        let tag = Algorithm::Aes256Gcm.seal(&[1; 32], &bound_aad(Algorithm::Aes256Gcm, b""), &mut block[1..]);
        block.extend(tag);
        block
    }

    #[test]
    fn rejects_authentic_blocks_with_odd_padding() {
        let mut body = [0; 16];
        assert_eq!(open_block(&key(1), b"", &seal_raw(&body)), Ok(vec![]));
        body[15] = 1;
        assert_eq!(open_block(&key(1), b"", &seal_raw(&body)), Err(AeadError::Padding));
        body[15] = 0;
        body[0] = 13;
        assert_eq!(open_block(&key(1), b"", &seal_raw(&body)), Err(AeadError::Padding));
        body[3] = 0xff;
        assert_eq!(open_block(&key(1), b"", &seal_raw(&body)), Err(AeadError::Padding));
        assert_eq!(open_block(&key(1), b"", &seal_raw(&[0; 32])), Err(AeadError::Padding));
        assert_eq!(open_block(&key(1), b"", &seal_raw(&[0; 12])), Err(AeadError::Length(29)));
    }

    #[test]
    fn buckets_grow_with_the_length_and_waste_an_eighth_at_most() {
        let mut last = 0;
        let mut sizes = std::collections::BTreeSet::new();
        for len in 0..100_000 {
            let b = bucket(len);
            assert!(b >= last && b >= len + 4);
            assert!(len < 12 || b * 8 <= (len + 4) * 9, "{len} -> {b}");
            last = b;
            sizes.insert(b);
        }
        assert!(sizes.len() < 200, "{}", sizes.len());
    }

    #[test]
    fn salted_seals_of_one_text_differ_and_open() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let (a, b) = (seal_salted(&key(1), b"s", b"text", &mut rng), seal_salted(&key(1), b"s", b"text", &mut rng));
        assert_ne!(a, b);
        assert_eq!(open_salted(&key(1), b"s", &a).unwrap(), b"text");
        assert!(open_salted(&key(1), b"t", &a).is_err());
        assert!(open_salted(&key(1), b"s", &a[..31]).is_err());
        let mut swapped = a.clone();
        swapped[..32].copy_from_slice(&b[..32]);
        assert!(open_salted(&key(1), b"s", &swapped).is_err());
    }
}
