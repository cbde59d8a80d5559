//! Evidence against a member, as a file that the chain can judge: two votes that no honest member gives.
//!
//! Form    JSON: `db`, `node`, `vote_key` (256 bytes), `consensus_epoch`, `view`, and two `votes`: `kind`, `parent_view`, `block`,
//!         `signature` (128 bytes). Points are in EIP-2537's encoding, bytes in hex after `0x`.
//! Rule    what is read is not believed: [`read`] checks form, conflict and both signatures.

use crate::chain::clusters::Conflict;
use fluence_consensus::Evidence;
use fluence_crypto::sign::SignError;
use fluence_crypto::vote::{Vote, conflict, signature_eip2537, verify_vote_eip2537, vote_key_eip2537};
use fluence_types::block::{Members, VoteSignature, position};
use fluence_types::{BlockHash, DatabaseId, NodeId};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file; what [`write`] makes has about 1.5 KiB.
const BYTES_MAX: u64 = 16 << 10;

/// Why a file is no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file is too long.
    #[error("more than {BYTES_MAX} bytes")]
    Long,
    /// It is not in the form that nodes write.
    #[error("{0}")]
    Form(String),
    /// Two votes that an honest member may give.
    #[error("the votes do not contradict each other")]
    NoConflict,
    /// A vote is not by the key named.
    #[error("vote {index}: {why}")]
    Vote {
        /// Which.
        index: usize,
        /// Why not.
        why: SignError,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Notarize,
    Nullify,
    Finalize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileVote {
    kind: Kind,
    parent_view: Option<u64>,
    block: Option<BlockHash>,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    db: DatabaseId,
    node: NodeId,
    vote_key: String,
    consensus_epoch: u64,
    view: u64,
    votes: [FileVote; 2],
}

/// Writes evidence below `dir`; once for each member, epoch and view. `None` where it is there, or the node is no member.
///
/// # Errors
/// The system's, and where a point of the evidence is none.
pub fn write(dir: &Path, db: DatabaseId, members: &Members, evidence: &Evidence) -> std::io::Result<Option<PathBuf>> {
    let Evidence { node, epoch, view, first, second } = evidence;
    let Some(at) = position(members, node) else { return Ok(None) };
    let hex0x = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    let vote = |(vote, by): &(Vote, VoteSignature)| {
        let signature = hex0x(&signature_eip2537(by).map_err(std::io::Error::other)?);
        let (kind, parent_view, block) = match *vote {
            Vote::Notarize { parent_view, block } => (Kind::Notarize, Some(parent_view), Some(block)),
            Vote::Nullify => (Kind::Nullify, None, None),
            Vote::Finalize { parent_view, block } => (Kind::Finalize, Some(parent_view), Some(block)),
        };
        Ok::<_, std::io::Error>(FileVote { kind, parent_view, block, signature })
    };
    let file = File {
        db,
        node: *node,
        vote_key: hex0x(&vote_key_eip2537(&members[at]).map_err(std::io::Error::other)?),
        consensus_epoch: *epoch,
        view: *view,
        votes: [vote(first)?, vote(second)?],
    };
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{db}-{epoch}-{view}-{node}.json"));
    if path.exists() {
        return Ok(None);
    }
    let text = serde_json::to_string_pretty(&file).expect("text and numbers are JSON");
    crate::datadir::write_atomic(&path, (text + "\n").as_bytes()).map_err(std::io::Error::other)?;
    Ok(Some(path))
}

/// Reads a file and checks that it shows what it says.
///
/// # Errors
/// [`EvidenceError`].
pub fn read(path: &Path) -> Result<Conflict, EvidenceError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(EvidenceError::Long);
    }
    let file: File = serde_json::from_slice(&bytes).map_err(|e| EvidenceError::Form(e.to_string()))?;
    let vote = |v: &FileVote| {
        let vote = match (v.kind, v.parent_view, v.block) {
            (Kind::Notarize, Some(parent_view), Some(block)) => Vote::Notarize { parent_view, block },
            (Kind::Finalize, Some(parent_view), Some(block)) => Vote::Finalize { parent_view, block },
            (Kind::Nullify, None, None) => Vote::Nullify,
            _ => return Err(EvidenceError::Form("a nullify vote names no block, every other one does".to_owned())),
        };
        Ok((vote, bytes_of("signature", &v.signature)?))
    };
    let conflict = Conflict {
        node: file.node,
        key: bytes_of("vote key", &file.vote_key)?,
        db: file.db,
        epoch: file.consensus_epoch,
        view: file.view,
        votes: [vote(&file.votes[0])?, vote(&file.votes[1])?],
    };
    verify(&conflict)?;
    Ok(conflict)
}

/// Checks a conflict as the contract does, so that no gas is spent on what it would refuse.
fn verify(c: &Conflict) -> Result<(), EvidenceError> {
    if !conflict(&c.votes[0].0, &c.votes[1].0) {
        return Err(EvidenceError::NoConflict);
    }
    for (index, (vote, by)) in c.votes.iter().enumerate() {
        verify_vote_eip2537(&c.node, &c.key, c.db, c.epoch, c.view, *vote, by)
            .map_err(|why| EvidenceError::Vote { index, why })?;
    }
    Ok(())
}

fn bytes_of<const N: usize>(what: &str, text: &str) -> Result<Box<[u8; N]>, EvidenceError> {
    let mut out = Box::new([0; N]);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode_to_slice(digits, out.as_mut_slice())
        .map_err(|_| EvidenceError::Form(format!("{what} is not {N} bytes of hex")))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_crypto::secret::Secret;
    use fluence_crypto::sign::NodeKey;

    const DB: DatabaseId = DatabaseId::from_bytes([7; 16]);

    fn notarize(block: u8) -> Vote {
        Vote::Notarize { parent_view: 4, block: BlockHash::from_bytes([block; 32]) }
    }

    /// Evidence with the second vote signed for `view`.
    fn evidence(key: &NodeKey, votes: [Vote; 2], view: u64) -> Evidence {
        let sign = |vote, view| (vote, key.vote().sign(DB, 2, view, vote));
        Evidence { node: key.id(), epoch: 2, view: 5, first: sign(votes[0], 5), second: sign(votes[1], view) }
    }

    #[test]
    fn what_is_written_is_read_and_written_once() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::new(Secret::new([1; 32])));
        let members: Members = vec![key.member()].try_into().unwrap();
        let found = evidence(&key, [notarize(1), notarize(2)], 5);
        let path = write(dir.path(), DB, &members, &found).unwrap().unwrap();
        assert_eq!(write(dir.path(), DB, &members, &found).unwrap(), None);
        let read = read(&path).unwrap();
        assert_eq!((read.node, read.db, read.epoch, read.view), (key.id(), DB, 2, 5));
        let stranger = NodeKey::new(Secret::new([2; 32]));
        let of_stranger = evidence(&stranger, [notarize(1), notarize(2)], 5);
        assert_eq!(write(dir.path(), DB, &members, &of_stranger).unwrap(), None, "no member");
    }

    #[test]
    fn honest_votes_forged_votes_and_malformed_files_are_no_evidence() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::new(Secret::new([1; 32])));
        let members: Members = vec![key.member()].try_into().unwrap();
        let honest = evidence(&key, [notarize(1), Vote::Nullify], 5);
        let path = write(dir.path(), DB, &members, &honest).unwrap().unwrap();
        assert!(matches!(read(&path), Err(EvidenceError::NoConflict)));
        std::fs::remove_file(&path).unwrap();
        // The second vote is of another view, and passed off as one of this.
        let forged = evidence(&key, [notarize(1), notarize(2)], 6);
        let path = write(dir.path(), DB, &members, &forged).unwrap().unwrap();
        assert!(matches!(read(&path), Err(EvidenceError::Vote { index: 1, .. })));
        let text = std::fs::read_to_string(&path).unwrap();
        for bad in [
            text.replace("notarize", "nullify"),
            text.replace("\"view\"", "\"vue\""),
            text.replace("0x", "0xz"),
            "{".into(),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path), Err(EvidenceError::Form(_))));
        }
        std::fs::write(&path, " ".repeat(BYTES_MAX as usize + 1)).unwrap();
        assert!(matches!(read(&path), Err(EvidenceError::Long)));
    }
}
