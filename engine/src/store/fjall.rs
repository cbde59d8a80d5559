//! The embedded default: fjall 3.1, one keyspace a column family.
//!
//! ```text
//! folder/record      the record of `record.rs`
//! folder/fjall/      the database; made as `fjall.new` and renamed, so a crash while it is made leaves nothing half done
//! ```
//! Every batch writes its number into every keyspace, so a journal that was cut, or a keyspace that went back alone, shows at the
//! next opening. Pages are kept apart from their keys (key-value separation) and never compressed: they are ciphertext.
//! fjall has checksums of its own; where they fail, the read is an error, and the engine calls the page lost.

use super::record::{Record, RecordFile, io, reconcile, sync_folder};
use super::{Anchor, Batch, Durability, Entry, Store, StoreError, prefix_end};
use crate::keys::Cf;
use ::fjall::config::CompressionPolicy;
use ::fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable as _,
};
use fluence_types::DatabaseId;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The store's own key in every keyspace: number of the last batch, 8 bytes big-endian.
const BATCH_KEY: [u8; 1] = [0];

/// Sizes of a fjall store.
#[derive(Clone, Copy, Debug)]
pub struct FjallOptions {
    /// Block cache, in bytes. It is empty after every opening.
    pub cache_bytes: u64,
    /// Memory of one keyspace's unflushed writes, in bytes; up to five times that while flushes are behind.
    pub memtable_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, memtable_bytes: 16 << 20, workers: 2 }
    }
}

/// A fjall database with its record.
pub struct FjallStore {
    // Handles before the database: dropping the database waits for its threads.
    keyspaces: BTreeMap<Cf, Keyspace>,
    db: Database,
    file: RecordFile,
    last: Mutex<Last>,
}

/// What the last commit left.
struct Last {
    batch: u64,
    record: Record,
    poisoned: bool,
}

impl FjallStore {
    /// Opens the store in `folder`, creating it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Behind`] and [`StoreError::Damaged`] where acknowledged batches are not all there; [`StoreError::Io`] otherwise.
    pub fn open(folder: &Path, options: FjallOptions) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|e| io("creating the folder", &e))?;
        let file = RecordFile::new(folder);
        let record = file.read()?;
        let path = folder.join("fjall");
        let there = path.try_exists().map_err(|e| io("looking for the database", &e))?;
        match &record {
            Some(record) if !there => return Err(StoreError::Behind { have: 0, recorded: record.batch }),
            None if !there => create(folder, options)?,
            _ => {}
        }
        let (db, keyspaces) = unwound("opening fjall", || open_at(&path, options))?;
        let mut batches = Vec::new();
        for (cf, keyspace) in &keyspaces {
            match unwound("reading the batch number", || batch_of(keyspace)) {
                Ok(batch) => batches.push((cf.name(), batch)),
                Err(e) if cf.must_be_whole() => return Err(e),
                Err(_) => {}
            }
        }
        let batch = reconcile(&batches, record.as_ref())?;
        let record = match record {
            Some(record) => record,
            None => {
                file.write(&Record::default())?;
                Record::default()
            }
        };
        Ok(Self { keyspaces, db, file, last: Mutex::new(Last { batch, record, poisoned: false }) })
    }

    fn keyspace(&self, cf: Cf) -> &Keyspace {
        self.keyspaces.get(&cf).expect("every family is opened")
    }
}

/// Makes the database under another name, so that it appears whole.
fn create(folder: &Path, options: FjallOptions) -> Result<(), StoreError> {
    let fresh = folder.join("fjall.new");
    if fresh.try_exists().map_err(|e| io("looking for a half-made database", &e))? {
        fs::remove_dir_all(&fresh).map_err(|e| io("removing a half-made database", &e))?;
    }
    let (db, keyspaces) = unwound("creating fjall", || open_at(&fresh, options))?;
    db.persist(PersistMode::SyncAll).map_err(|e| io("creating fjall", &e))?;
    drop(keyspaces);
    drop(db);
    fs::rename(&fresh, folder.join("fjall"))
        .and_then(|()| sync_folder(folder))
        .map_err(|e| io("naming the new database", &e))
}

fn open_at(path: &Path, options: FjallOptions) -> Result<(Database, BTreeMap<Cf, Keyspace>), StoreError> {
    let failed = |e: ::fjall::Error| match e {
        ::fjall::Error::Io(e) => io("opening fjall", &e),
        ::fjall::Error::Locked => io("opening fjall", &"another process has it open"),
        e => StoreError::Damaged(e.to_string()),
    };
    let db = Database::builder(path)
        .cache_size(options.cache_bytes)
        .worker_threads(options.workers)
        .journal_compression(CompressionType::None)
        .open()
        .map_err(failed)?;
    let mut keyspaces = BTreeMap::new();
    for cf in Cf::ALL {
        let with = || {
            let base = KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
                .max_memtable_size(options.memtable_bytes);
            let apart = KvSeparationOptions::default().compression(CompressionType::None).separation_threshold(4096);
            if cf == Cf::Pages { base.with_kv_separation(Some(apart)) } else { base }
        };
        keyspaces.insert(cf, db.keyspace(cf.name(), with).map_err(failed)?);
    }
    Ok((db, keyspaces))
}

fn batch_of(keyspace: &Keyspace) -> Result<u64, StoreError> {
    let Some(value) = keyspace.get(BATCH_KEY).map_err(|e| StoreError::Damaged(e.to_string()))? else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(&*value)
        .map_err(|_| StoreError::Damaged(format!("batch number of {} bytes", value.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

/// A panic inside fjall over bytes it did not expect is damage, not the end of the process.
fn unwound<T>(act: &'static str, f: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(StoreError::Damaged(format!("{act}: the store under us panicked"))))
}

impl Store for FjallStore {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        unwound("reading", || match self.keyspace(cf).get(key) {
            Ok(value) => Ok(value.map(|v| v.to_vec())),
            Err(e) => Err(StoreError::Damaged(e.to_string())),
        })
    }

    fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            // The empty prefix must pass over the store's own key.
            _ if prefix.is_empty() => Bound::Excluded(BATCH_KEY.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let to = prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        unwound("scanning", || {
            let snapshot = self.db.snapshot();
            let mut found = Vec::new();
            for guard in snapshot.range(self.keyspace(cf), (from, to)).take(limit) {
                let (key, value) = guard.into_inner().map_err(|e| StoreError::Damaged(e.to_string()))?;
                found.push((key.to_vec(), value.to_vec()));
            }
            Ok(found)
        })
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        // A poisoned lock means a commit panicked half-way: as bad as one that failed.
        let mut last = self.last.lock().map_err(|_| StoreError::Poisoned)?;
        if last.poisoned {
            return Err(StoreError::Poisoned);
        }
        let (writes, anchors) = batch.into_parts();
        let number = last.batch + 1;
        let mode = match durability {
            Durability::Synced => PersistMode::SyncAll,
            Durability::Buffered => PersistMode::Buffer,
        };
        let mut items = ::fjall::OwnedWriteBatch::with_capacity(self.db.clone(), writes.len() + Cf::ALL.len())
            .durability(Some(mode));
        for keyspace in self.keyspaces.values() {
            items.insert(keyspace, BATCH_KEY, number.to_be_bytes());
        }
        for ((cf, key), value) in writes {
            match value {
                Some(value) => items.insert(self.keyspace(cf), key, value),
                None => items.remove(self.keyspace(cf), key),
            }
        }
        last.poisoned = true;
        items.commit().map_err(|e| io("committing a batch", &e))?;
        last.batch = number;
        last.record.anchors.extend(anchors);
        if durability == Durability::Synced {
            last.record.batch = number;
            self.file.write(&last.record)?;
        }
        last.poisoned = false;
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let failed = |e: ::fjall::Error| io("flushing", &e);
        for keyspace in self.keyspaces.values() {
            keyspace.rotate_memtable().map_err(failed)?;
        }
        for keyspace in self.keyspaces.values() {
            while keyspace.sealed_memtable_count() > 0 {
                // A worker that failed poisons the database and never finishes the flush.
                self.db.persist(PersistMode::Buffer).map_err(failed)?;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        Ok(())
    }

    fn anchors(&self) -> BTreeMap<DatabaseId, Anchor> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).record.anchors.clone()
    }
}
