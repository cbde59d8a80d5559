//! Damage: bytes of a stopped node's pages are overwritten in the store's files by plain OS writes.
//!
//! Why     the node must not know: nothing of its own code takes part but the reading of its pages, to know where they lie.
//! Sure    so many pages that a storage proof whose samples all miss them has a chance below 10^-6: each of the samples is an
//!         independent, uniform choice of a cell (the node keeps one database, so both ways of choosing are the same).

use crate::error::{Context, Failure, Result};
use fluence_engine::damage::locate_pages_on_disk;
use fluence_engine::{Engine, EngineConfig, FjallOptions, FjallStore};
use fluence_types::limits::PAGE_CELLS;
use rand::RngCore;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The chance of a proof in spite of the damage is to be below this.
pub(crate) const CHANCE_MAX: f64 = 1e-6;
/// Bytes overwritten in each page.
const BYTES: usize = 16;
/// Bytes of a cell's record.
const CELL_BYTES: usize = 256;

/// What was done.
#[derive(Debug)]
pub(crate) struct Damage {
    /// Pages of the node.
    pub(crate) pages: usize,
    /// Pages overwritten.
    pub(crate) damaged: usize,
    /// Cells of the node.
    pub(crate) cells: u64,
    /// Cells in overwritten pages.
    pub(crate) bad_cells: u64,
    /// Writes to files.
    pub(crate) writes: usize,
    /// The chance that none of a proof's samples is a bad cell.
    pub(crate) chance: f64,
    /// Files written to.
    pub(crate) files: Vec<PathBuf>,
}

/// The chance that none of `samples` uniform cells is among `bad` of `total`.
pub(crate) fn chance(bad: u64, total: u64, samples: u32) -> f64 {
    (1.0 - bad as f64 / total as f64).powi(samples as i32)
}

/// Overwrites pages of the store in `folder`, chosen by `rng`, until the chance is below [`CHANCE_MAX`]. The node must be stopped.
pub(crate) fn overwrite(folder: &Path, samples: u32, rng: &mut StdRng) -> Result<Damage> {
    let pages = read_pages(folder)?;
    let total: u64 = pages.iter().map(|p| (p.len() / CELL_BYTES) as u64).sum();
    let mut order: Vec<usize> = (0..pages.len()).collect();
    order.shuffle(rng);
    let mut bad = 0;
    let mut chosen = Vec::new();
    for page in order {
        if chance(bad, total, samples) < CHANCE_MAX {
            break;
        }
        bad += (pages[page].len() / CELL_BYTES) as u64;
        chosen.push(page);
    }
    let places = locate_pages_on_disk(folder, &pages).doing("cannot search the node's files")?;
    let (mut writes, mut files) = (0, Vec::new());
    for page in &chosen {
        if places[*page].is_empty() {
            return Err(Failure::failed(format!("page {page} of the node was not found in its files")));
        }
        for (path, offset) in &places[*page] {
            let mut noise = [0; BYTES];
            rng.fill_bytes(&mut noise);
            let within = u64::from(rng.next_u32()) % (pages[*page].len() - BYTES) as u64;
            let file =
                std::fs::File::options().write(true).open(path).doing(format!("cannot open {}", path.display()))?;
            file.write_all_at(&noise, offset + within).doing(format!("cannot write to {}", path.display()))?;
            writes += 1;
            if !files.contains(path) {
                files.push(path.clone());
            }
        }
    }
    for path in &files {
        let synced = std::fs::File::open(path).and_then(|f| f.sync_all());
        synced.doing(format!("cannot sync {}", path.display()))?;
    }
    let chance = chance(bad, total, samples);
    Ok(Damage { pages: pages.len(), damaged: chosen.len(), cells: total, bad_cells: bad, writes, chance, files })
}

/// Every page of every segment, as the engine reads it.
fn read_pages(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let store = FjallStore::open(folder, FjallOptions::default()).doing("cannot open the node's store")?;
    let engine = Engine::open(Arc::new(store), EngineConfig::default()).doing("cannot open the node's engine")?;
    let mut pages = Vec::new();
    for db in engine.databases() {
        let view = engine.view(db).doing("cannot read the node's database")?;
        for segment in view.segments() {
            for page in 0..segment.preimage.cells.div_ceil(PAGE_CELLS as u64) {
                pages.push(view.page(segment.root, page).doing("cannot read a page of the node")?);
            }
        }
    }
    Ok(pages)
}

/// Copies a folder.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        let mut open = vec![(from.to_owned(), to.to_owned())];
        while let Some((from, to)) = open.pop() {
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(&from)? {
                let entry = entry?;
                let target = to.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    open.push((entry.path(), target));
                } else {
                    std::fs::copy(entry.path(), target)?;
                }
            }
        }
        Ok(())
    };
    copy().doing(format!("cannot copy {}", from.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_is_that_of_independent_uniform_samples() {
        assert_eq!(chance(0, 10, 16), 1.0);
        assert_eq!(chance(10, 10, 16), 0.0);
        assert!((chance(5, 10, 16) - 1.0 / 65536.0).abs() < 1e-12);
        // 58 % is the least that suffices for 16 samples.
        assert!(chance(57, 100, 16) > CHANCE_MAX && chance(58, 100, 16) < CHANCE_MAX);
    }
}
