//! Damage on purpose, for tests and the demo: finding a page's bytes in the store's files, and serving wrong bytes with good checksums.
//!
//! Rule    nothing here is reachable from a request. A node that runs `forge_page` is a liar, and says so in its configuration.

use crate::keys::{self, Cf};
use crate::page::{CELL_BYTES, cells_in_page, seal, unseal};
use crate::store::{Batch, Durability, Store, StoreError};
use fluence_types::{DatabaseId, SegmentRoot};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes by which a page is looked for: its first scalars are ciphertext or prefix sums, so they are its own.
const NEEDLE: usize = 64;

/// Where the bytes of each page lie under a folder: for each, all (file, offset) that hold the whole of it.
///
/// Write-ahead logs (`.jnl`, `.log`) are passed over: flush first, and nothing is served from them. Pages shorter than 64 bytes do not exist.
///
/// # Errors
/// What reading the files says.
pub fn locate_pages_on_disk(folder: &Path, pages: &[Vec<u8>]) -> io::Result<Vec<Vec<(PathBuf, u64)>>> {
    let mut found = vec![Vec::new(); pages.len()];
    let mut needles: Vec<(&[u8], usize)> =
        pages.iter().enumerate().filter_map(|(i, page)| Some((page.get(..NEEDLE)?, i))).collect();
    needles.sort_unstable();
    // Most offsets are passed over by their first two bytes alone.
    let mut starts = vec![false; 1 << 16];
    for (needle, _) in &needles {
        starts[usize::from(u16::from_be_bytes([needle[0], needle[1]]))] = true;
    }
    let mut files = Vec::new();
    list(folder, &mut files)?;
    for path in files {
        let mut bytes = Vec::new();
        fs::File::open(&path)?.read_to_end(&mut bytes)?;
        for at in 0..bytes.len().saturating_sub(NEEDLE - 1) {
            if !starts[usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))] {
                continue;
            }
            let window = &bytes[at..at + NEEDLE];
            let first = needles.partition_point(|(needle, _)| *needle < window);
            for (_, page) in needles[first..].iter().take_while(|(needle, _)| *needle == window) {
                if bytes[at..].starts_with(&pages[*page]) {
                    found[*page].push((path.clone(), at as u64));
                }
            }
        }
    }
    Ok(found)
}

/// [`locate_pages_on_disk`] for one page.
///
/// # Errors
/// As there.
pub fn locate_page_on_disk(folder: &Path, page: &[u8]) -> io::Result<Vec<(PathBuf, u64)>> {
    Ok(locate_pages_on_disk(folder, &[page.to_vec()])?.remove(0))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        let log = path.extension().is_some_and(|e| e == "jnl" || e == "log");
        if entry.file_type()?.is_dir() {
            list(&path, files)?;
        } else if !log {
            files.push(path);
        }
    }
    Ok(())
}

/// Changes the bytes of a stored page and makes its checksum right again: what a lying node serves. The tree's nodes stay as they
/// were, so a verifier finds out.
///
/// # Errors
/// [`StoreError`] where there is no such page or it cannot be written.
pub fn forge_page(
    store: &dyn Store,
    db: DatabaseId,
    root: SegmentRoot,
    cells: u64,
    page: u64,
    change: &mut dyn FnMut(&mut [u8]),
) -> Result<(), StoreError> {
    let key = keys::page(db, root, page);
    let len = cells_in_page(cells, page) * CELL_BYTES;
    let record = store.get(Cf::Pages, &key)?.and_then(|record| unseal(&key, record, len));
    let mut bytes = record.ok_or_else(|| StoreError::Damaged(format!("page {page} of segment {root} is not here")))?;
    change(&mut bytes);
    let record = seal(&key, &bytes);
    let mut batch = Batch::new();
    batch.put(Cf::Pages, key, record);
    store.commit(batch, Durability::Synced)
}
