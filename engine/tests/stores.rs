//! The conformance suite of stores, over each of them.

use fluence_engine::store::conformance::{reads_and_writes, refuses_to_open_below_its_record, survives_reopening};
use fluence_engine::{FailingStore, Failure, FjallOptions, FjallStore, MemStore, Store, StoreError};
use std::path::Path;

fn fjall(folder: &Path) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(FjallStore::open(folder, FjallOptions::default())?))
}

#[test]
fn memory_store_reads_and_writes() {
    reads_and_writes(&MemStore::new());
    reads_and_writes(&FailingStore::new(MemStore::new(), u64::MAX, Failure::Before));
}

#[test]
fn failing_store_fails_at_its_write_before_or_after_it_took_effect_and_then_always() {
    use fluence_engine::keys::Cf;
    use fluence_engine::store::{Batch, Durability};
    for (failure, there) in [(Failure::Before, false), (Failure::After, true)] {
        let store = FailingStore::new(MemStore::new(), 1, failure);
        let put = |key: &[u8]| {
            let mut batch = Batch::new();
            batch.put(Cf::State, key.to_vec(), vec![1]);
            store.commit(batch, Durability::Synced)
        };
        put(b"a").unwrap();
        assert!(matches!(put(b"b"), Err(StoreError::Injected(1))));
        assert!(matches!(put(b"c"), Err(StoreError::Poisoned)));
        assert_eq!(store.get(Cf::State, b"a").unwrap(), Some(vec![1]));
        assert_eq!(store.get(Cf::State, b"b").unwrap().is_some(), there);
        assert_eq!(store.get(Cf::State, b"c").unwrap(), None);
    }
}

#[test]
fn fjall_store_reads_and_writes() {
    let folder = tempfile::tempdir().unwrap();
    reads_and_writes(fjall(folder.path()).unwrap().as_ref());
}

#[test]
fn fjall_store_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    survives_reopening(&fjall, folder.path());
}

#[test]
fn fjall_store_refuses_to_open_below_its_record() {
    let folder = tempfile::tempdir().unwrap();
    refuses_to_open_below_its_record(&fjall, folder.path());
}

#[test]
fn fjall_store_that_was_half_made_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("fjall.new/keyspaces/1")).unwrap();
    std::fs::write(folder.path().join("fjall.new/0.jnl"), b"torn").unwrap();
    reads_and_writes(fjall(folder.path()).unwrap().as_ref());
}

#[test]
fn fjall_store_with_one_family_gone_back_alone_does_not_open() {
    use fluence_engine::keys::Cf;
    use fluence_engine::store::conformance::copy;
    use fluence_engine::store::{Batch, Durability};
    let folder = tempfile::tempdir().unwrap();
    let (now, old) = (folder.path().join("now"), folder.path().join("old"));
    for round in [1u8, 2] {
        let store = fjall(&now).unwrap();
        let mut batch = Batch::new();
        Cf::ALL.iter().for_each(|cf| batch.put(*cf, vec![b'k', round], vec![round]));
        store.commit(batch, Durability::Synced).unwrap();
        store.flush().unwrap();
        drop(store);
        if round == 1 {
            copy(&now, &old);
        }
    }
    let families: Vec<_> =
        std::fs::read_dir(now.join("fjall/keyspaces")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let mut refused = 0;
    for family in &families {
        let mixed = folder.path().join("mixed");
        copy(&now, &mixed);
        let target = mixed.join("fjall/keyspaces").join(family);
        std::fs::remove_dir_all(&target).unwrap();
        copy(&old.join("fjall/keyspaces").join(family), &target);
        // Without its journal, fjall cannot make up for it.
        for entry in std::fs::read_dir(mixed.join("fjall")).unwrap().map(|e| e.unwrap().path()) {
            if entry.extension().is_some_and(|e| e == "jnl") {
                std::fs::remove_file(entry).unwrap();
            }
        }
        refused += u32::from(matches!(fjall(&mixed), Err(StoreError::Damaged(_))));
        std::fs::remove_dir_all(&mixed).unwrap();
    }
    assert_eq!(refused, 4, "all four families; fjall's own, the fifth, did not change");
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use super::*;
    use fluence_engine::RocksStore;

    fn rocks(folder: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(RocksStore::open(folder)?))
    }

    #[test]
    fn rocksdb_store_reads_and_writes() {
        let folder = tempfile::tempdir().unwrap();
        reads_and_writes(rocks(folder.path()).unwrap().as_ref());
    }

    #[test]
    fn rocksdb_store_survives_reopening() {
        let folder = tempfile::tempdir().unwrap();
        survives_reopening(&rocks, folder.path());
    }

    #[test]
    fn rocksdb_store_refuses_to_open_below_its_record() {
        let folder = tempfile::tempdir().unwrap();
        refuses_to_open_below_its_record(&rocks, folder.path());
    }
}
