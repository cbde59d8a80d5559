//! What each node did in each epoch, one JSON object a line, appended and synced before anything is done about it.
//!
//! Rule    the last line of a case is where it stands, so a restart reads the file and goes on. A torn last line is cut off.

use super::judge::Case;
use crate::chain::Subject;
use crate::datadir::DataDirError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A line.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// Which case.
    #[serde(flatten)]
    pub subject: Subject,
    /// Block at which it came to this.
    pub block: u64,
    /// Where it stands.
    #[serde(flatten)]
    pub case: Case,
    /// Milliseconds that verifying took, where a proof was verified.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verify_ms: Option<f64>,
    /// Milliseconds that the node says it took to prove.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prove_ms: Option<u64>,
    /// Constraints that the node says the circuit has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub constraints: Option<u64>,
}

/// The file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens the ledger and reads where the cases stand.
    ///
    /// # Errors
    /// [`DataDirError::Io`], also where a line before the last is no entry.
    pub fn open(path: &Path) -> Result<(Self, BTreeMap<Subject, Case>), DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        let mut cases = BTreeMap::new();
        let mut whole = 0;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(io)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let entry: Entry = serde_json::from_slice(&line).map_err(|e| {
                io(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("at byte {whole}: {e}")))
            })?;
            cases.insert(entry.subject, entry.case);
            whole += read as u64;
        }
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).map_err(io)?;
        Ok((Self { path: path.to_owned(), file }, cases))
    }

    /// Appends a line and waits until it is on disk.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), DataDirError> {
        let mut line = serde_json::to_vec(entry).expect("an entry is plain data");
        line.push(b'\n');
        let done = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        done.map_err(|source| DataDirError::Io { path: self.path.clone(), source })
    }

    /// All entries of a ledger, for reports.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn read(path: &Path) -> Result<Vec<Entry>, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|l| serde_json::from_str(l).map_err(|e| io(std::io::Error::new(std::io::ErrorKind::InvalidData, e))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::ChallengeId;
    use fluence_types::{Epoch, NodeId};

    fn entry(epoch: u64, case: Case) -> Entry {
        let subject = Subject { epoch: Epoch(epoch), node: NodeId::from_bytes([1; 32]), proof_index: 0 };
        Entry { subject, block: 5, case, verify_ms: None, prove_ms: None, constraints: None }
    }

    #[test]
    fn the_last_line_of_a_case_is_where_it_stands_and_a_torn_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let (mut ledger, cases) = Ledger::open(&path).unwrap();
        assert!(cases.is_empty());
        let waiting = Case::Waiting { asked: 7, why: "silent".to_owned() };
        let challenged = Case::Challenged { id: ChallengeId([2; 32]), deadline: 9, ours: true };
        let expired =
            Case::Expired { id: ChallengeId([2; 32]), slashed: Some("340282366920938463463".to_owned()), ours: true };
        for case in [&waiting, &challenged, &expired] {
            ledger.append(&entry(1, case.clone())).unwrap();
        }
        ledger.append(&entry(2, Case::Accepted)).unwrap();
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"epoch\":3,\"no");
        std::fs::write(&path, &bytes).unwrap();
        let (mut ledger, cases) = Ledger::open(&path).unwrap();
        assert_eq!(cases.values().cloned().collect::<Vec<_>>(), [expired, Case::Accepted]);
        ledger.append(&entry(3, Case::Accepted)).unwrap();
        assert_eq!(Ledger::read(&path).unwrap().len(), 5);
        assert_eq!(Ledger::open(&path).unwrap().1.len(), 3);
    }

    #[test]
    fn rejects_a_ledger_with_a_line_that_is_no_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(Ledger::open(&path).is_err());
    }
}
