//! How much of the log a replica keeps: blocks and certificates, in sections that are files of their own.
//!
//! Rule     a section's size is fixed when a replica is started first, and noted: files that were begun with another cannot be read.
//! Source   DESIGN section 7; commonware-storage 2026.10 (`archive::prunable`)

use crate::replica::StartError;
use fluence_engine::{Engine, StoreError};
use fluence_types::DatabaseId;
use fluence_types::limits::EPOCH_BLOCKS;
use std::num::NonZeroU64;

/// The engine's note of [`History::section`].
const NOTE_SECTION: &[u8] = b"section";

/// What a replica keeps of the log for members that were away. Who was away for longer begins again with a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Blocks that are kept, with their certificates; at least 128. At the end of an epoch what is older goes, by whole sections.
    pub blocks: u64,
    /// Blocks of a section, which is a file of its own. It stays as it was when the replica was started first.
    pub section: NonZeroU64,
}

impl History {
    /// Fewest blocks: two epochs, so that whoever misses the end of the last one gets it.
    pub const BLOCKS_MIN: u64 = 2 * EPOCH_BLOCKS;

    /// This many blocks, at least [`Self::BLOCKS_MIN`], in sections as the replica was started with first.
    ///
    /// # Errors
    /// [`StoreError`] where that cannot be read.
    pub fn keeping(engine: &Engine, db: DatabaseId, blocks: u64) -> Result<Self, StoreError> {
        let (blocks, usual) = (blocks.max(Self::BLOCKS_MIN), Self::default().section);
        let section = NonZeroU64::new(blocks / 2).map_or(usual, |half| half.min(usual));
        let noted = Self::noted(engine, db)?.and_then(NonZeroU64::new);
        Ok(Self { blocks, section: noted.unwrap_or(section) })
    }

    fn noted(engine: &Engine, db: DatabaseId) -> Result<Option<u64>, StoreError> {
        let note = engine.note(db, NOTE_SECTION)?;
        Ok(note.and_then(|note| note.try_into().ok()).map(u64::from_be_bytes))
    }

    /// Checks against what was noted when the replica was started first, and notes it then.
    pub(crate) fn check(&self, engine: &Engine, db: DatabaseId) -> Result<(), StartError> {
        if self.blocks < Self::BLOCKS_MIN {
            return Err(StartError::History { blocks: self.blocks });
        }
        match Self::noted(engine, db)? {
            Some(noted) if noted != self.section.get() => Err(StartError::Section { noted, asked: self.section.get() }),
            Some(_) => Ok(()),
            None => Ok(engine.set_note(db, NOTE_SECTION, self.section.get().to_be_bytes().to_vec())?),
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { blocks: 8192, section: NonZeroU64::new(1024).expect("not 0") }
    }
}
