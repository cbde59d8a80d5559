//! The store in memory: the twin that all others are compared with, and the one to read first.

use super::{Anchor, Batch, Durability, Entry, Store, StoreError, prefix_end};
use crate::keys::Cf;
use fluence_types::DatabaseId;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError, RwLock};

type Entries = BTreeMap<(Cf, Vec<u8>), Vec<u8>>;

/// Keys in a sorted map. Nothing survives the process; [`MemStore::snapshot`] is what a test reopens.
#[derive(Default)]
pub struct MemStore {
    entries: RwLock<Entries>,
    anchors: Mutex<BTreeMap<DatabaseId, Anchor>>,
}

impl MemStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what is stored now.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner).clone();
        let anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { entries: RwLock::new(entries), anchors: Mutex::new(anchors) }
    }
}

impl Store for MemStore {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.get(&(cf, key.to_vec())).cloned())
    }

    fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((cf, after.to_vec())),
            _ => Bound::Included((cf, prefix.to_vec())),
        };
        let end = prefix_end(prefix);
        let inside = |key: &(Cf, Vec<u8>)| key.0 == cf && end.as_ref().is_none_or(|end| key.1 < *end);
        Ok(entries
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| inside(key))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let (writes, anchors) = batch.into_parts();
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in writes {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        if durability == Durability::Synced {
            self.anchors.lock().unwrap_or_else(PoisonError::into_inner).extend(anchors);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn anchors(&self) -> BTreeMap<DatabaseId, Anchor> {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
