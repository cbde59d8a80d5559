//! What every store must do: one suite for all of them. A failure panics with the rule that was broken.

use super::{Anchor, Batch, Durability, Store, StoreError};
use crate::keys::Cf;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, Height};
use std::path::Path;

/// Opens a store in a folder.
pub type Open<'a> = &'a dyn Fn(&Path) -> Result<Box<dyn Store>, StoreError>;

fn batch(puts: &[(Cf, &[u8], &[u8])], deletes: &[(Cf, &[u8])]) -> Batch {
    let mut batch = Batch::new();
    puts.iter().for_each(|(cf, key, value)| batch.put(*cf, key.to_vec(), value.to_vec()));
    deletes.iter().for_each(|(cf, key)| batch.delete(*cf, key.to_vec()));
    batch
}

fn keys(store: &dyn Store, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    store.scan(Cf::State, prefix, after, limit).expect("a healthy store scans").into_iter().map(|(k, _)| k).collect()
}

/// Reads see commits; families are apart; scans are ordered, bounded and resumable.
///
/// # Panics
/// Where the store does not do what [`Store`] says.
pub fn reads_and_writes(store: &dyn Store) {
    let ok = |b| store.commit(b, Durability::Synced).expect("a healthy store commits");
    assert_eq!(store.get(Cf::State, b"a").unwrap(), None);
    ok(batch(&[(Cf::State, b"a", b"1"), (Cf::Pages, b"a", b"2"), (Cf::State, b"b", b"")], &[]));
    assert_eq!(store.get(Cf::State, b"a").unwrap().as_deref(), Some(&b"1"[..]), "families are apart");
    assert_eq!(store.get(Cf::Pages, b"a").unwrap().as_deref(), Some(&b"2"[..]), "families are apart");
    assert_eq!(store.get(Cf::Nodes, b"a").unwrap(), None, "families are apart");
    assert_eq!(store.get(Cf::State, b"b").unwrap().as_deref(), Some(&b""[..]), "an empty value is a value");
    ok(batch(&[(Cf::State, b"a", b"3")], &[(Cf::Pages, b"a"), (Cf::Nodes, b"never there")]));
    assert_eq!(store.get(Cf::State, b"a").unwrap().as_deref(), Some(&b"3"[..]), "the last write counts");
    assert_eq!(store.get(Cf::Pages, b"a").unwrap(), None, "a removed key is gone");
    // Within one batch, too, the last write counts.
    let mut twice = batch(&[(Cf::State, b"twice", b"1")], &[]);
    twice.put(Cf::State, b"twice".to_vec(), b"2".to_vec());
    twice.put(Cf::State, b"gone".to_vec(), b"1".to_vec());
    twice.delete(Cf::State, b"gone".to_vec());
    ok(twice);
    assert_eq!(store.get(Cf::State, b"twice").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.get(Cf::State, b"gone").unwrap(), None);
    ok(Batch::new());

    let many: Vec<Vec<u8>> = (0..100u8).map(|i| vec![b'm', 0xff, i]).collect();
    let mut fill = Batch::new();
    many.iter().for_each(|k| fill.put(Cf::State, k.clone(), k.repeat(9)));
    fill.put(Cf::State, vec![b'n'], vec![1]);
    ok(fill);
    assert_eq!(keys(store, &[b'm', 0xff], None, 1000), many, "a prefix that ends in 0xff");
    assert_eq!(keys(store, b"m", None, 3), many[..3], "a limit");
    assert_eq!(keys(store, b"m", Some(&many[2]), 2), many[3..5], "what comes after");
    assert_eq!(keys(store, b"m", Some(&many[99]), 2), Vec::<Vec<u8>>::new(), "nothing after the last");
    assert_eq!(keys(store, b"m", Some(b"a"), 1), many[..1], "a start before the prefix");
    assert_eq!(keys(store, b"x", None, 9), Vec::<Vec<u8>>::new(), "an empty prefix range");
    assert_eq!(keys(store, b"", None, 2), [b"a".to_vec(), b"b".to_vec()], "everything, without the store's own keys");
    assert_eq!(store.scan(Cf::State, b"m", None, 1).unwrap()[0].1, many[0].repeat(9), "values come along");

    // A value of the size of a page, and a batch of many.
    let mut pages = Batch::new();
    (0..70u8).for_each(|i| pages.put(Cf::Pages, vec![b'p', i], vec![i; 16_416]));
    ok(pages);
    store.flush().expect("a healthy store flushes");
    for i in 0..70u8 {
        assert_eq!(store.get(Cf::Pages, &[b'p', i]).unwrap(), Some(vec![i; 16_416]), "page {i} after a flush");
    }
}

/// Synced batches survive reopening, buffered ones before them too, and anchors are those of the last synced batch.
///
/// # Panics
/// Where the store does not do what [`Store`] says.
pub fn survives_reopening(open: Open<'_>, folder: &Path) {
    let db = DatabaseId::from_bytes([9; 16]);
    let anchor = |n: u64| Anchor { height: Height(n), root: DbRoot::from_field(FieldBytes::from_u64(n)) };
    {
        let store = open(folder).expect("a new store opens");
        assert!(store.anchors().is_empty());
        store.commit(batch(&[(Cf::State, b"buffered", b"1")], &[]), Durability::Buffered).unwrap();
        let mut synced = batch(&[(Cf::State, b"synced", b"1"), (Cf::Pages, b"page", &[7; 16_416])], &[]);
        synced.anchor(db, anchor(1));
        store.commit(synced, Durability::Synced).unwrap();
        assert_eq!(store.anchors().get(&db), Some(&anchor(1)));
    }
    for round in 2..5u64 {
        let store = open(folder).expect("a closed store opens");
        assert_eq!(store.anchors().get(&db), Some(&anchor(round - 1)));
        for key in [&b"buffered"[..], b"synced"] {
            assert_eq!(store.get(Cf::State, key).unwrap().as_deref(), Some(&b"1"[..]));
        }
        assert_eq!(store.get(Cf::Pages, b"page").unwrap(), Some(vec![7; 16_416]));
        if round == 3 {
            store.flush().unwrap();
        }
        let mut next = batch(&[(Cf::State, &[b'r', round as u8], b"x")], &[]);
        next.anchor(db, anchor(round));
        store.commit(next, Durability::Synced).unwrap();
    }
    assert_eq!(open(folder).unwrap().scan(Cf::State, b"r", None, 9).unwrap().len(), 3);
}

/// A store whose record says more than it holds does not open, nor one whose record is gone or damaged.
///
/// # Panics
/// Where such a store opens.
pub fn refuses_to_open_below_its_record(open: Open<'_>, folder: &Path) {
    let (live, old) = (folder.join("live"), folder.join("old"));
    let put = |n: u8| batch(&[(Cf::State, &[b'k', n], b"v")], &[]);
    drop(open(&live).map(|s| s.commit(put(1), Durability::Synced)).expect("a new store opens"));
    copy(&live, &old);
    drop(open(&live).map(|s| s.commit(put(2), Durability::Synced)).expect("a closed store opens"));
    // The old files under the new record: a disk restored from a backup, or a journal that lost its end.
    std::fs::copy(live.join("record"), old.join("record")).unwrap();
    assert!(matches!(open(&old), Err(StoreError::Behind { have: 1, recorded: 2 })), "an old store under a new record");
    let record = std::fs::read(live.join("record")).unwrap();
    let mut flipped = record.clone();
    flipped[9] ^= 1;
    std::fs::write(live.join("record"), flipped).unwrap();
    assert!(matches!(open(&live), Err(StoreError::Damaged(_))), "a damaged record");
    std::fs::remove_file(live.join("record")).unwrap();
    assert!(matches!(open(&live), Err(StoreError::Damaged(_))), "a missing record");
    std::fs::write(live.join("record"), record).unwrap();
    assert!(open(&live).is_ok());
}

/// Copies a folder with everything in it.
///
/// # Panics
/// Where a file cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("the folder is readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            copy_sparse(&entry.path(), &target);
        }
    }
}

/// Copies a file, leaving out the zeros at its end: journals are allocated 64 MiB at a time.
fn copy_sparse(from: &Path, to: &Path) {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut source = std::fs::File::open(from).expect("the file opens");
    let mut target = std::fs::File::create(to).expect("the copy can be made");
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let n = source.read(&mut buffer).expect("the file reads");
        if n == 0 {
            break;
        }
        if buffer[..n].iter().any(|b| *b != 0) {
            target.seek(SeekFrom::Start(at)).and_then(|_| target.write_all(&buffer[..n])).expect("the copy writes");
        }
        at += n as u64;
    }
    target.set_len(at).expect("the copy has the same length");
}
