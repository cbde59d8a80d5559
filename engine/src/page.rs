//! Records of pages and tree nodes: bytes, then a BLAKE3 checksum over key and bytes.
//!
//! Rule    a record whose checksum fails, or that the store cannot read, is lost: the engine says which page, and serves nothing of it.
//!         The key is under the checksum, so a record that answers for another page is as lost as a torn one.
//! ```text
//! page    1..=64 cells of 256 bytes, checksum 32        16,416 bytes when full
//! node    1..=8 digests of 32 bytes, checksum 32          288 bytes when full
//! ```

use fluence_crypto::{Fr, field};
use fluence_types::FieldBytes;
use fluence_types::limits::{CELL_SCALARS, PAGE_CELLS};
use fluence_types::tree::Cell;

/// Bytes of a cell.
pub const CELL_BYTES: usize = CELL_SCALARS * 32;

/// Pages of a segment of `cells` cells.
#[must_use]
pub const fn pages(cells: u64) -> u64 {
    cells.div_ceil(PAGE_CELLS as u64)
}

/// Cells in page `page` of a segment of `cells` cells.
#[must_use]
pub const fn cells_in_page(cells: u64, page: u64) -> usize {
    let rest = cells.saturating_sub(page * PAGE_CELLS as u64);
    if rest < PAGE_CELLS as u64 { rest as usize } else { PAGE_CELLS }
}

fn checksum(key: &[u8], bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(bytes);
    hasher.finalize()
}

/// The record of `bytes` under `key`.
#[must_use]
pub fn seal(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(bytes.len() + 32);
    record.extend_from_slice(bytes);
    record.extend_from_slice(checksum(key, bytes).as_bytes());
    record
}

/// The bytes of a record, if they are the ones that were sealed under `key` and there are `len` of them.
#[must_use]
pub fn unseal(key: &[u8], mut record: Vec<u8>, len: usize) -> Option<Vec<u8>> {
    let (bytes, sum) = record.split_last_chunk::<32>()?;
    if bytes.len() != len || checksum(key, bytes).as_bytes() != sum {
        return None;
    }
    record.truncate(len);
    Some(record)
}

/// 256 bytes as a cell; `None` where a scalar is not canonical.
#[must_use]
pub fn cell(bytes: &[u8]) -> Option<Cell> {
    let mut cell = [FieldBytes::ZERO; CELL_SCALARS];
    let (scalars, rest) = bytes.as_chunks::<32>();
    if scalars.len() != CELL_SCALARS || !rest.is_empty() {
        return None;
    }
    for (to, from) in cell.iter_mut().zip(scalars) {
        *to = FieldBytes::from_canonical(*from).ok()?;
    }
    Some(cell)
}

/// Whole cells as field elements; the error is the index of the first cell with a scalar that is not canonical.
pub(crate) fn cells_fr(bytes: &[u8]) -> Result<Vec<[Fr; 8]>, usize> {
    bytes.chunks(CELL_BYTES).enumerate().map(|(i, raw)| cell(raw).map(|c| field::cell_to_fr(&c)).ok_or(i)).collect()
}

/// Cells as bytes.
#[must_use]
pub fn cell_bytes(cells: &[Cell]) -> Vec<u8> {
    cells.iter().flatten().flat_map(|scalar| *scalar.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_under_its_key_and_length_only_and_no_flip_passes() {
        let record = seal(b"key", &[7; 64]);
        assert_eq!(unseal(b"key", record.clone(), 64), Some(vec![7; 64]));
        assert_eq!(unseal(b"kex", record.clone(), 64), None);
        assert_eq!(unseal(b"key", record.clone(), 63), None);
        assert_eq!(unseal(b"key", vec![], 0), None);
        for i in 0..record.len() {
            let mut bad = record.clone();
            bad[i] ^= 0x10;
            assert_eq!(unseal(b"key", bad, 64), None, "flip at {i}");
        }
    }

    #[test]
    fn cells_are_canonical_or_refused() {
        let mut bytes = [0; CELL_BYTES];
        assert!(cell(&bytes).is_some());
        bytes[32..64].copy_from_slice(&fluence_types::field::MODULUS_BE);
        assert!(cell(&bytes).is_none());
        assert!(cell(&bytes[..255]).is_none());
        assert_eq!(cells_fr(&[[0; CELL_BYTES], bytes].concat()), Err(1));
    }

    #[test]
    fn the_last_page_is_as_long_as_its_cells() {
        assert_eq!((pages(1), pages(64), pages(65)), (1, 1, 2));
        assert_eq!((cells_in_page(65, 0), cells_in_page(65, 1), cells_in_page(65, 2)), (64, 1, 0));
    }
}
