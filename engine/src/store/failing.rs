//! A store that fails at the n-th write, before or after the write took effect: what a full disk or a crash in `fsync` looks like.

use super::{Anchor, Batch, Durability, Entry, Store, StoreError};
use crate::keys::Cf;
use fluence_types::DatabaseId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the failing write stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nothing is written.
    Before,
    /// All is written, and the caller is told that it failed.
    After,
}

/// Wraps a store and fails its write number `at` (counted from 0) and every write after it.
pub struct FailingStore<S> {
    inner: S,
    at: u64,
    failure: Failure,
    commits: AtomicU64,
}

impl<S: Store> FailingStore<S> {
    /// Lets `at` writes pass, then fails.
    pub const fn new(inner: S, at: u64, failure: Failure) -> Self {
        Self { inner, at, failure, commits: AtomicU64::new(0) }
    }

    /// Writes asked for so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// The store within: what a process would find when it opens the files again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Store> Store for FailingStore<S> {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(cf, key)
    }

    fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.inner.scan(cf, prefix, after, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let n = self.commits.fetch_add(1, Ordering::SeqCst);
        if n > self.at {
            return Err(StoreError::Poisoned);
        }
        if n < self.at {
            return self.inner.commit(batch, durability);
        }
        if self.failure == Failure::After {
            self.inner.commit(batch, durability)?;
        }
        Err(StoreError::Injected(n))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn anchors(&self) -> BTreeMap<DatabaseId, Anchor> {
        self.inner.anchors()
    }
}

impl<S: Store> Store for std::sync::Arc<S> {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.as_ref().get(cf, key)
    }
    fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.as_ref().scan(cf, prefix, after, limit)
    }
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.as_ref().commit(batch, durability)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.as_ref().flush()
    }
    fn anchors(&self) -> BTreeMap<DatabaseId, Anchor> {
        self.as_ref().anchors()
    }
}
