//! Evidence against a member, as a file that the chain can judge: two votes that no honest member gives.

use fluence_consensus::Evidence;
use fluence_crypto::vote::{Vote, signature_eip2537, vote_key_eip2537};
use fluence_types::DatabaseId;
use fluence_types::block::{Members, VoteSignature, position};
use std::path::{Path, PathBuf};

/// Writes evidence below `dir`; once for each member, epoch and view.
pub(super) fn write(
    dir: &Path,
    db: DatabaseId,
    members: &Members,
    evidence: &Evidence,
) -> std::io::Result<Option<PathBuf>> {
    let Evidence { node, epoch, view, first, second } = evidence;
    let Some(at) = position(members, node) else { return Ok(None) };
    let key = vote_key_eip2537(&members[at]).map(hex::encode).unwrap_or_default();
    let vote = |(vote, by): &(Vote, VoteSignature)| {
        let signature = signature_eip2537(by).map(hex::encode).unwrap_or_default();
        let (kind, parent_view, block) = match vote {
            Vote::Notarize { parent_view, block } => ("notarize", Some(*parent_view), Some(block.to_string())),
            Vote::Nullify => ("nullify", None, None),
            Vote::Finalize { parent_view, block } => ("finalize", Some(*parent_view), Some(block.to_string())),
        };
        serde_json::json!({ "kind": kind, "parent_view": parent_view, "block": block, "signature": format!("0x{signature}") })
    };
    let text = serde_json::json!({
        "db": db.to_string(),
        "node": node.to_string(),
        "vote_key": format!("0x{key}"),
        "consensus_epoch": epoch,
        "view": view,
        "votes": [vote(first), vote(second)],
    });
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{db}-{epoch}-{view}-{node}.json"));
    if path.exists() {
        return Ok(None);
    }
    crate::datadir::write_atomic(&path, format!("{text:#}\n").as_bytes()).map_err(std::io::Error::other)?;
    Ok(Some(path))
}
