//! Blocks, checkpoints and certificates: what a cluster agrees on.
//!
//! A cluster of one signs its own checkpoints; the types are those of 3f + 1 members.
//! Source  DESIGN section 7

use crate::codec::Bounded;
use crate::limits::{BLOCK_OPS_MAX, MEMBERS_MAX};
use crate::op::{NodeSignature, SignedOp};
use crate::{BlockHash, DatabaseId, DbRoot, Height, NodeId};
use borsh::{BorshDeserialize, BorshSerialize};

/// The fixed-size head of a block: 176 bytes in canonical encoding, hashed with Keccak-256 so that Solidity can recompute it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct BlockHeader {
    /// The database, and so the cluster.
    pub db: DatabaseId,
    /// The consensus epoch (a period with one committee).
    pub consensus_epoch: u64,
    /// Height; one more than the parent's.
    pub height: Height,
    /// Hash of the parent's header; all 0 below genesis.
    pub parent: BlockHash,
    /// Milliseconds since 1970 as the proposer says, never below the parent's. The state machine's only clock.
    pub timestamp_ms: u64,
    /// BLAKE3 over the operation ids in order.
    pub ops_hash: [u8; 32],
    /// Height of the last block whose root the proposer had computed.
    pub executed_height: Height,
    /// Database root after that block.
    pub executed_root: DbRoot,
    /// BLAKE3 of the canonical list of the next committee.
    pub next_members_hash: [u8; 32],
}

/// A block: ordered operations.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// The head.
    pub header: BlockHeader,
    /// The operations, in the order in which they apply.
    pub ops: Bounded<SignedOp, BLOCK_OPS_MAX>,
}

/// A database root at a height: what members sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// The database.
    pub db: DatabaseId,
    /// The height.
    pub height: Height,
    /// Hash of the block at that height.
    pub block: BlockHash,
    /// Root after applying it.
    pub root: DbRoot,
}

/// A checkpoint with attributable signatures of members (domain `CHECKPOINT`). Becomes a
/// `CertifiedCheckpoint` in `verifier`, against a member set the caller trusts.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// Index into the member list, strictly increasing, and that member's signature.
    pub signatures: Bounded<(u16, NodeSignature), MEMBERS_MAX>,
}

/// The members of a cluster, in the order in which signatures name them.
pub type Members = Bounded<NodeId, MEMBERS_MAX>;

/// Signatures needed of `members`: 2f + 1 where `members` >= 3f + 1; all of 1.
#[must_use]
pub const fn quorum(members: usize) -> usize {
    members - members.saturating_sub(1) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorum_is_two_f_plus_one() {
        for (members, want) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (31, 21)] {
            assert_eq!(quorum(members), want, "{members}");
        }
    }

    #[test]
    fn header_stays_within_256_bytes() {
        let header = BlockHeader {
            db: DatabaseId::default(),
            consensus_epoch: 0,
            height: Height(0),
            parent: BlockHash::default(),
            timestamp_ms: 0,
            ops_hash: [0; 32],
            executed_height: Height(0),
            executed_root: DbRoot::default(),
            next_members_hash: [0; 32],
        };
        assert_eq!(crate::codec::encode(&header).len(), 176);
    }
}
