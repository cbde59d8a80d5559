//! Where the engine keeps its bytes: one trait, one atomic durable batch, several stores behind it.
//!
//! Rule    after a crash a store opens with the last batch it acknowledged as synced, or the one in flight; never an older
//!         state, never a mixture. A store that cannot show this refuses to open.
//! Source  DESIGN section 12; `docs/protocol/store.md`

mod failing;
mod fjall;
mod mem;
mod record;
#[cfg(feature = "rocksdb")]
mod rocks;

#[cfg(any(test, feature = "testkit"))]
pub mod conformance;

pub use self::fjall::{FjallOptions, FjallStore};
pub use failing::{FailingStore, Failure};
pub use mem::MemStore;
#[cfg(feature = "rocksdb")]
pub use rocks::RocksStore;

use crate::keys::Cf;
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_types::{DatabaseId, DbRoot, Height};
use std::collections::BTreeMap;

/// Why a store failed. After a failed commit the store takes no more writes: open it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system or the store under us failed.
    #[error("{act}: {why}")]
    Io {
        /// What we were doing.
        act: &'static str,
        /// What it said.
        why: String,
    },
    /// Bytes on disk are not what was written.
    #[error("store is damaged: {0}")]
    Damaged(String),
    /// The store lost batches that it had acknowledged.
    #[error("store is at batch {have}, but batch {recorded} was acknowledged; {} batches are lost", recorded - have)]
    Behind {
        /// Last batch in the store.
        have: u64,
        /// Last batch in the record.
        recorded: u64,
    },
    /// A commit failed before, so what is in memory may not be what is on disk.
    #[error("a write failed before; open the store again")]
    Poisoned,
    /// A [`FailingStore`] did as told.
    #[error("injected failure of write {0}")]
    Injected(u64),
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A database's height and root, kept apart from the store's own files, so that a store that silently lost batches is found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Anchor {
    /// The height.
    pub height: Height,
    /// Root after it.
    pub root: DbRoot,
}

type Writes = BTreeMap<(Cf, Vec<u8>), Option<Vec<u8>>>;

/// Writes that happen together. A later write of a key replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    writes: Writes,
    anchors: BTreeMap<DatabaseId, Anchor>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    ///
    /// # Panics
    /// For a key that begins with byte 0 or is empty: those are the store's.
    pub fn put(&mut self, cf: Cf, key: Vec<u8>, value: Vec<u8>) {
        assert!(key.first().is_some_and(|b| *b != 0), "keys come from `keys.rs`, whose prefixes are letters");
        self.writes.insert((cf, key), Some(value));
    }

    /// Removes a key, there or not.
    pub fn delete(&mut self, cf: Cf, key: Vec<u8>) {
        self.writes.insert((cf, key), None);
    }

    /// Names the height and root that `db` has once this batch is durable.
    pub fn anchor(&mut self, db: DatabaseId, anchor: Anchor) {
        self.anchors.insert(db, anchor);
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.writes.iter().map(|((_, k), v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum()
    }

    /// The writes, in key order; `None` removes.
    pub fn writes(&self) -> impl Iterator<Item = (Cf, &[u8], Option<&[u8]>)> {
        self.writes.iter().map(|((cf, key), value)| (*cf, key.as_slice(), value.as_deref()))
    }

    fn into_parts(self) -> (Writes, BTreeMap<DatabaseId, Anchor>) {
        (self.writes, self.anchors)
    }
}

/// When a batch must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Before `commit` returns, together with every batch before it.
    Synced,
    /// With the next synced batch. A crash loses a suffix of the buffered batches, each wholly.
    Buffered,
}

/// A store of keys in column families.
///
/// Reads see every batch whose `commit` returned. Calls may come from many threads; commits happen one after the other.
/// After a `commit` fails, every later `commit` fails with [`StoreError::Poisoned`] until the store is opened again.
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`] where the value cannot be read back as it was written.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` entries whose keys begin with `prefix` and come after `after`, in key order.
    ///
    /// # Errors
    /// [`StoreError`] where an entry cannot be read back as it was written.
    fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// Writes the batch, all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError`]; the batch may or may not be there when the store is opened again.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// Moves what is only in the write-ahead log and in memory into the files that reads are served from.
    ///
    /// # Errors
    /// [`StoreError`] where a file cannot be written.
    fn flush(&self) -> Result<(), StoreError>;

    /// Height and root of every database as of the last synced batch, from a record that does not share the fate of the rest.
    fn anchors(&self) -> BTreeMap<DatabaseId, Anchor>;
}

/// All entries under a prefix, fetched `step` at a time.
pub(crate) fn scan_all(
    store: &dyn Store,
    cf: Cf,
    prefix: &[u8],
    step: usize,
    each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let found = store.scan(cf, prefix, after.as_deref(), step)?;
        let last = found.len() < step;
        after = found.last().map(|(key, _)| key.clone());
        for entry in found {
            each(entry)?;
        }
        if last {
            return Ok(());
        }
    }
}

/// The least key above every key that begins with `prefix`; `None` where there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}
