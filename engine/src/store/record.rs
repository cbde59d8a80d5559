//! The record beside a store: number of the last synced batch, and height and root of every database after it.
//!
//! Rule    it is replaced by write, fsync, rename, fsync of the folder, after the store's own fsync and before the batch is
//!         acknowledged. So the store is at the recorded batch or one or more after it, and a store below it has lost something.
//! Why     a log-structured store cuts its journal where framing breaks; seen in fjall 3.1: batches after that place vanish without a word.

use super::{Anchor, StoreError};
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_types::{DatabaseId, codec};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"FLUREC01";
/// 4,096 databases of 56 bytes are 230 KB.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What the record says.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub(super) struct Record {
    /// Number of the last synced batch; 0 for a new store.
    pub batch: u64,
    /// Height and root of each database after it.
    pub anchors: BTreeMap<DatabaseId, Anchor>,
}

/// Where the record lies.
pub(super) struct RecordFile {
    folder: PathBuf,
}

impl RecordFile {
    pub(super) const NAME: &'static str = "record";

    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The record; `None` where there is no file.
    pub(super) fn read(&self) -> Result<Option<Record>, StoreError> {
        let bytes = match fs::read(self.folder.join(Self::NAME)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("reading the record", &e)),
        };
        let damaged = || StoreError::Damaged("the record of heights and roots fails its checksum".to_owned());
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        let payload = body.strip_prefix(&MAGIC).ok_or_else(damaged)?;
        if blake3::hash(body).as_bytes() != checksum {
            return Err(damaged());
        }
        codec::decode("record", payload, RECORD_BYTES_MAX)
            .map(Some)
            .map_err(|e| StoreError::Damaged(format!("the record of heights and roots: {e}")))
    }

    /// Replaces the record; durable when it returns.
    pub(super) fn write(&self, record: &Record) -> Result<(), StoreError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(codec::encode(record));
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let fresh = self.folder.join("record.new");
        let written = (|| {
            let mut file = File::create(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, self.folder.join(Self::NAME))?;
            sync_folder(&self.folder)
        })();
        written.map_err(|e| io("writing the record", &e))
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Checks a store against its record: each column family names the last batch it holds.
///
/// Returns the number of the last batch.
pub(super) fn reconcile(batches: &[(&'static str, u64)], record: Option<&Record>) -> Result<u64, StoreError> {
    let have = batches.first().map_or(0, |(_, batch)| *batch);
    if batches.iter().any(|(_, batch)| *batch != have) {
        return Err(StoreError::Damaged(format!("column families disagree on the last batch: {batches:?}")));
    }
    match record {
        None if have > 0 => {
            Err(StoreError::Damaged(format!("batch {have} is here, but the record of heights and roots is not")))
        }
        Some(record) if have < record.batch => Err(StoreError::Behind { have, recorded: record.batch }),
        _ => Ok(have),
    }
}

pub(super) fn io(act: &'static str, e: &dyn std::fmt::Display) -> StoreError {
    StoreError::Io { act, why: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::{DbRoot, Height};

    fn record(batch: u64) -> Record {
        let anchor = Anchor { height: Height(batch), root: DbRoot::default() };
        Record { batch, anchors: [(DatabaseId::from_bytes([7; 16]), anchor)].into() }
    }

    #[test]
    fn record_round_trips_and_every_flip_and_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::new(folder.path());
        assert_eq!(file.read().unwrap(), None);
        file.write(&record(3)).unwrap();
        file.write(&record(4)).unwrap();
        assert_eq!(file.read().unwrap(), Some(record(4)));
        let path = folder.path().join(RecordFile::NAME);
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[i] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(matches!(file.read(), Err(StoreError::Damaged(_))), "flip at {i}");
            fs::write(&path, &whole[..i]).unwrap();
            assert!(matches!(file.read(), Err(StoreError::Damaged(_))), "cut at {i}");
        }
    }

    #[test]
    fn refuses_a_store_below_its_record_or_without_one() {
        assert_eq!(reconcile(&[("a", 4), ("b", 4)], Some(&record(4))).unwrap(), 4);
        assert_eq!(reconcile(&[("a", 5), ("b", 5)], Some(&record(4))).unwrap(), 5);
        assert_eq!(reconcile(&[("a", 0), ("b", 0)], None).unwrap(), 0);
        assert!(matches!(
            reconcile(&[("a", 3), ("b", 3)], Some(&record(4))),
            Err(StoreError::Behind { have: 3, recorded: 4 })
        ));
        assert!(matches!(reconcile(&[("a", 4), ("b", 3)], Some(&record(4))), Err(StoreError::Damaged(_))));
        assert!(matches!(reconcile(&[("a", 4), ("b", 4)], None), Err(StoreError::Damaged(_))));
    }
}
