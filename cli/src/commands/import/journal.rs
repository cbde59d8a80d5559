//! What an import has done so far, in the home: so that one that broke off goes on where it was, and none is done twice.
//!
//! ```text
//! HOME/imports/KEY.json   KEY from database, table and the file's content; rows committed, the part about to be, whether all is done
//! HOME/imports/KEY.lock   held while an import of that file into that table runs
//! ```
//! Order   the root of a part is written down before the part is committed. What became of it is read from the certified catalogue, under a
//!         lease taken after the crash: what the dead process still has on its way is refused under the old one.

use crate::error::{Context, Failure, Help, Result};
use crate::home::{Home, private_dir, replace_file};
use fluence_types::tree::CatalogueEntry;
use fluence_types::{ContentHash, DatabaseId, ProjectionId, SegmentRoot, Version};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A file to import, by its content.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) digest: ContentHash,
    pub(super) bytes: u64,
    modified: Option<std::time::SystemTime>,
}

impl Source {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let doing = || format!("cannot read {}", path.display());
        let whole = path.canonicalize().doing(doing())?;
        let file = File::open(&whole).doing(doing())?;
        let metadata = file.metadata().doing(doing())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).doing(doing())?;
        let digest = ContentHash::from_bytes(*hasher.finalize().as_bytes());
        Ok(Self { path: whole, digest, bytes: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Fails where the file was written since it was looked at.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(&self.path).doing(format!("cannot read {}", self.path.display()))?;
        match now.len() == self.bytes && now.modified().ok() == self.modified {
            true => Ok(()),
            false => Err(Failure::failed(format!("{} was changed while it was read", self.path.display()))
                .help("import a file that nobody writes meanwhile: a copy, say")),
        }
    }
}

/// A part that is about to be committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    /// Rows of the file up to its end.
    rows: u64,
    root: SegmentRoot,
}

/// What is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    file: PathBuf,
    digest: ContentHash,
    database: DatabaseId,
    table: String,
    /// The table by its number, once there is one.
    projection: Option<ProjectionId>,
    /// The lease under which it was written.
    fence: Option<u64>,
    /// Rows of the file that are in the table.
    rows: u64,
    segments: u64,
    /// The table's version before the pending part.
    version: Version,
    pending: Option<Pending>,
    done: bool,
}

/// The note of one import, held.
pub(super) struct Journal {
    path: PathBuf,
    note: Note,
    _lock: File,
}

impl Journal {
    /// Finds or begins the note of a file and a table. `again` begins anew, whatever was done.
    pub(super) fn open(home: &Home, db: DatabaseId, table: &str, source: &Source, again: bool) -> Result<Self> {
        let dir = home.dir().join("imports");
        private_dir(&dir)?;
        let mut hasher = blake3::Hasher::new_derive_key("FLU/cli/import-note/v2");
        hasher.update(db.as_bytes()).update(table.as_bytes()).update(&[0]).update(source.digest.as_bytes());
        let path = dir.join(format!("{}.json", hasher.finalize().to_hex()));
        let lock = path.with_extension("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&lock);
        let file = file.doing(format!("cannot write {}", lock.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::failed(format!("another `fluence import` of {} runs", source.path.display()))
                    .help("wait for it, or stop it and run this again: it goes on where that one was"));
            }
            Err(TryLockError::Error(e)) => return Err(e).doing(format!("cannot lock {}", lock.display())),
        }
        if !again {
            unchanged(&dir, db, table, source)?;
        }
        let fresh = Note {
            file: source.path.clone(),
            digest: source.digest,
            database: db,
            table: table.to_owned(),
            projection: None,
            fence: None,
            rows: 0,
            segments: 0,
            version: Version(0),
            pending: None,
            done: false,
        };
        // A note that cannot be read says that something was done, not what: to begin anew would be to import it twice.
        let note = match read(&path) {
            Some(note) if !again => note,
            None if !again && path.exists() => {
                return Err(Failure::failed(format!("what was imported before cannot be read: {}", path.display()))
                    .help("count the table's rows; --again imports the file from its beginning"));
            }
            _ => fresh,
        };
        Ok(Self { path, note, _lock: file })
    }

    pub(super) const fn is_done(&self) -> bool {
        self.note.done
    }

    /// Rows of the file that are in the table.
    pub(super) const fn rows(&self) -> u64 {
        self.note.rows
    }

    /// The lease of an import that broke off.
    pub(super) const fn fence(&self) -> Option<u64> {
        self.note.fence
    }

    /// Takes up what an import that broke off left, by the table as it is certified under our lease.
    pub(super) fn resume(&mut self, entry: &CatalogueEntry, fence: u64) -> Result<()> {
        let note = &mut self.note;
        if note.projection.is_some_and(|p| p != entry.projection) {
            // Another table of that name: nothing of the file is in it.
            (note.rows, note.segments, note.pending, note.done) = (0, 0, None, false);
        }
        if let Some(pending) = note.pending.take() {
            if entry.live.contains(&pending.root) {
                note.rows = pending.rows;
                note.segments += 1;
            } else if entry.version != note.version {
                let (file, table, end) = (note.file.display(), &note.table, pending.rows);
                return Err(Failure::failed(format!(
                    "an import of {file} broke off while rows {} to {end} were committed, and table {table} was changed since: they may be in it",
                    note.rows + 1
                ))
                .help(format!(
                    "count the rows (fluence query {table} --agg count); then remove {}, and import what is missing", self.path.display()
                )));
            }
        }
        (note.projection, note.fence) = (Some(entry.projection), Some(fence));
        self.write()
    }

    /// Writes down a part before it is committed.
    pub(super) fn begin(&mut self, rows: u64, root: SegmentRoot, version: Version) -> Result<()> {
        (self.note.pending, self.note.version) = (Some(Pending { rows, root }), version);
        self.write()
    }

    /// Writes down that it was.
    pub(super) fn committed(&mut self) -> Result<()> {
        if let Some(pending) = self.note.pending.take() {
            self.note.rows = pending.rows;
            self.note.segments += 1;
        }
        self.write()
    }

    /// Writes down that all is done.
    pub(super) fn done(&mut self) -> Result<()> {
        self.note.done = true;
        self.write()
    }

    fn write(&self) -> Result<()> {
        replace_file(&self.path, &serde_json::to_vec(&self.note).expect("a note is plain data"))
    }
}

fn read(path: &Path) -> Option<Note> {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// Fails where an import of the file as it was before broke off in the middle: what is left of it is no longer known.
fn unchanged(dir: &Path, db: DatabaseId, table: &str, source: &Source) -> Result<()> {
    let entries = std::fs::read_dir(dir).doing(format!("cannot read {}", dir.display()))?;
    let notes = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
    let broken_off = notes.filter_map(|p| read(&p)).find(|n| {
        let same = n.database == db && n.table == table && n.file == source.path && n.digest != source.digest;
        same && !n.done && (n.rows > 0 || n.pending.is_some())
    });
    match broken_off {
        None => Ok(()),
        Some(note) => Err(Failure::failed(format!(
            "{} has changed since its import into table {table} broke off after {} rows",
            source.path.display(),
            note.rows
        ))
        .because(format!("it was {}, and is {} now", note.digest, source.digest)))
        .or_help("put the old file back and import it to the end; or import the new one with --again: rows of the old one stay in the table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::codec::Bounded;
    use fluence_types::{FieldBytes, SchemaHash, TableId};

    fn entry(version: u64, live: &[u64]) -> CatalogueEntry {
        let root = |n: &u64| SegmentRoot::from_field(FieldBytes::from_u64(*n));
        CatalogueEntry {
            projection: ProjectionId(3),
            table: TableId(3),
            version: Version(version),
            schema: SchemaHash::default(),
            live: Bounded::new(live.iter().map(root).collect()).unwrap(),
        }
    }

    fn root(n: u64) -> SegmentRoot {
        SegmentRoot::from_field(FieldBytes::from_u64(n))
    }

    #[test]
    fn an_import_that_broke_off_goes_on_where_the_catalogue_says_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        let file = dir.path().join("a.csv");
        std::fs::write(&file, "a\n1\n").unwrap();
        let source = Source::of(&file).unwrap();
        let db = DatabaseId::from_bytes([1; 16]);
        let open = || Journal::open(&home, db, "t", &source, false);
        let mut journal = open().unwrap();
        assert!(open().err().unwrap().one_line().contains("another `fluence import`"));
        journal.resume(&entry(5, &[]), 1).unwrap();
        journal.begin(100, root(7), Version(5)).unwrap();
        drop(journal);
        // It was not ordered: the same rows again.
        let mut journal = open().unwrap();
        journal.resume(&entry(5, &[]), 2).unwrap();
        assert_eq!((journal.rows(), journal.fence()), (0, Some(2)));
        journal.begin(100, root(8), Version(5)).unwrap();
        drop(journal);
        // It was: those after it.
        let mut journal = open().unwrap();
        journal.resume(&entry(6, &[8]), 3).unwrap();
        assert_eq!(journal.rows(), 100);
        journal.begin(200, root(9), Version(6)).unwrap();
        drop(journal);
        // Somebody merged since: nobody knows.
        assert!(open().unwrap().resume(&entry(8, &[10]), 4).unwrap_err().one_line().contains("rows 101 to 200"));
        // The file is another now, and its import is not over.
        std::fs::write(&file, "a\n2\n").unwrap();
        let changed = Source::of(&file).unwrap();
        let refused = Journal::open(&home, db, "t", &changed, false).err().unwrap();
        assert!(refused.one_line().contains("has changed since"), "{}", refused.one_line());
        assert!(Journal::open(&home, db, "other", &changed, false).is_ok());
        assert_eq!(Journal::open(&home, db, "t", &changed, true).unwrap().rows(), 0);
        // Done, it says so; and a new file of that name is a new import.
        let mut journal = open().unwrap();
        journal.resume(&entry(7, &[8, 9]), 5).unwrap();
        journal.done().unwrap();
        drop(journal);
        assert!(open().unwrap().is_done());
        assert!(Journal::open(&home, db, "t", &changed, false).is_ok());
    }

    #[test]
    fn a_file_that_is_written_meanwhile_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        std::fs::write(&file, "a\n1\n").unwrap();
        let source = Source::of(&file).unwrap();
        source.check_unchanged().unwrap();
        std::fs::write(&file, "a\n1\n2\n").unwrap();
        assert!(source.check_unchanged().is_err());
    }
}
