//! The production store: RocksDB, one column family each, behind the feature `rocksdb`.
//!
//! ```text
//! folder/record      the record of `record.rs`
//! folder/rocksdb/    the database; made as `rocksdb.new` and renamed
//! ```
//! Same arrangement as the fjall store: every batch writes its number into every family, and the record says how far batches were
//! acknowledged. RocksDB's point-in-time recovery, too, stops at the first record of its log that fails its checksum, and forgets
//! what comes after. Families are flushed together (`atomic_flush`), pages lie in blob files, nothing is compressed.

use super::record::{Record, RecordFile, io, reconcile, sync_folder};
use super::{Anchor, Batch, Durability, Entry, Store, StoreError};
use crate::keys::Cf;
use fluence_types::DatabaseId;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction,
    FlushOptions, IteratorMode, Options, WriteBatch, WriteOptions,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The store's own key in every family: number of the last batch, 8 bytes big-endian.
const BATCH_KEY: [u8; 1] = [0];
/// Block cache, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// A RocksDB database with its record.
pub struct RocksStore {
    db: DB,
    file: RecordFile,
    last: Mutex<Last>,
}

struct Last {
    batch: u64,
    record: Record,
    poisoned: bool,
}

impl RocksStore {
    /// Opens the store in `folder`, creating it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Behind`] and [`StoreError::Damaged`] where acknowledged batches are not all there; [`StoreError::Io`] otherwise.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|e| io("creating the folder", &e))?;
        let file = RecordFile::new(folder);
        let record = file.read()?;
        let path = folder.join("rocksdb");
        let there = path.try_exists().map_err(|e| io("looking for the database", &e))?;
        match &record {
            Some(record) if !there => return Err(StoreError::Behind { have: 0, recorded: record.batch }),
            None if !there => create(folder)?,
            _ => {}
        }
        let db = open_at(&path, false)?;
        let mut batches = Vec::new();
        for cf in Cf::ALL {
            match batch_of(&db, cf) {
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
        Ok(Self { db, file, last: Mutex::new(Last { batch, record, poisoned: false }) })
    }
}

/// Makes the database under another name, so that it appears whole.
fn create(folder: &Path) -> Result<(), StoreError> {
    let fresh = folder.join("rocksdb.new");
    if fresh.try_exists().map_err(|e| io("looking for a half-made database", &e))? {
        fs::remove_dir_all(&fresh).map_err(|e| io("removing a half-made database", &e))?;
    }
    drop(open_at(&fresh, true)?);
    fs::rename(&fresh, folder.join("rocksdb"))
        .and_then(|()| sync_folder(folder))
        .map_err(|e| io("naming the new database", &e))
}

fn open_at(path: &Path, create: bool) -> Result<DB, StoreError> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    options.set_atomic_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    let family = |cf: Cf| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::None);
        if cf == Cf::Pages {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(4096);
            options.set_blob_compression_type(DBCompressionType::None);
            options.set_enable_blob_gc(true);
        }
        ColumnFamilyDescriptor::new(cf.name(), options)
    };
    // RocksDB insists on its default family, which stays empty.
    let families = std::iter::once(ColumnFamilyDescriptor::new("default", Options::default()));
    DB::open_cf_descriptors(&options, path, families.chain(Cf::ALL.map(family))).map_err(failed("opening rocksdb"))
}

fn failed(act: &'static str) -> impl Fn(rocksdb::Error) -> StoreError {
    move |e| match e.kind() {
        rocksdb::ErrorKind::Corruption => StoreError::Damaged(e.into_string()),
        _ => io(act, &e),
    }
}

fn handle(db: &DB, cf: Cf) -> &ColumnFamily {
    db.cf_handle(cf.name()).expect("every family is opened")
}

fn batch_of(db: &DB, cf: Cf) -> Result<u64, StoreError> {
    let value = db.get_cf(handle(db, cf), BATCH_KEY).map_err(failed("reading the batch number"))?;
    let Some(value) = value else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(value.as_slice())
        .map_err(|_| StoreError::Damaged(format!("batch number of {} bytes", value.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

impl Store for RocksStore {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(handle(&self.db, cf), key).map_err(failed("reading"))
    }

    fn scan(&self, cf: Cf, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let after = match after {
            Some(after) if after >= prefix => Some(after),
            // The empty prefix must pass over the store's own key.
            _ if prefix.is_empty() => Some(&BATCH_KEY[..]),
            _ => None,
        };
        let mode = IteratorMode::From(after.unwrap_or(prefix), Direction::Forward);
        let mut found = Vec::new();
        for entry in self.db.iterator_cf(handle(&self.db, cf), mode) {
            let (key, value) = entry.map_err(failed("scanning"))?;
            if found.len() == limit || !key.starts_with(prefix) {
                break;
            }
            if after != Some(&*key) {
                found.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(found)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        // A poisoned lock means a commit panicked half-way: as bad as one that failed.
        let mut last = self.last.lock().map_err(|_| StoreError::Poisoned)?;
        if last.poisoned {
            return Err(StoreError::Poisoned);
        }
        let (writes, anchors) = batch.into_parts();
        let number = last.batch + 1;
        let mut items = WriteBatch::default();
        for cf in Cf::ALL {
            items.put_cf(handle(&self.db, cf), BATCH_KEY, number.to_be_bytes());
        }
        for ((cf, key), value) in writes {
            match value {
                Some(value) => items.put_cf(handle(&self.db, cf), key, value),
                None => items.delete_cf(handle(&self.db, cf), key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        last.poisoned = true;
        self.db.write_opt(items, &options).map_err(failed("committing a batch"))?;
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
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<&ColumnFamily> = Cf::ALL.iter().map(|cf| handle(&self.db, *cf)).collect();
        self.db.flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options).map_err(failed("flushing"))
    }

    fn anchors(&self) -> BTreeMap<DatabaseId, Anchor> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).record.anchors.clone()
    }
}
