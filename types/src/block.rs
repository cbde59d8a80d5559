//! Blocks, members and certificates: what a cluster agrees on.
//!
//! Rule    a block's header carries the root after an earlier block, so the certificate of a block certifies that root. A block without
//!         operations leaves the root as it was; every block with some is followed by one that carries its root.
//! Source  DESIGN section 7

use crate::codec::Bounded;
use crate::limits::{BLOCK_OPS_MAX, EPOCH_BLOCKS, MEMBERS_MAX};
use crate::op::SignedOp;
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
    /// BLAKE3 over the operations in order, with their signatures.
    pub ops_hash: [u8; 32],
    /// Height of the last block whose root the proposer had computed.
    pub executed_height: Height,
    /// Database root after that block.
    pub executed_root: DbRoot,
    /// Hash of the next epoch's committee, as it stood after `executed_height`. Settled in an epoch's last block.
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

/// A key for votes: a BLS12-381 public key in G2, compressed as Zcash does.
pub type VoteKeyBytes = [u8; 96];
/// A vote, several of them together, or a proof of possession: a point of G1, compressed.
pub type VoteSignature = [u8; 48];

/// A member of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// Who it is: its Ed25519 key, by which peers know it and receipts are signed.
    pub node: NodeId,
    /// The key it votes with.
    pub vote_key: VoteKeyBytes,
    /// Its proof that it has that key, bound to `node`. Without it, keys could be made of others' keys.
    pub possession: VoteSignature,
}

/// The members of a cluster, strictly increasing by node id: the order in which certificates name them.
pub type Members = Bounded<Member, MEMBERS_MAX>;

/// The place of a node among members.
#[must_use]
pub fn position(members: &[Member], node: &NodeId) -> Option<usize> {
    members.binary_search_by(|m| m.node.cmp(node)).ok()
}

/// A database root at a height: what a certificate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// The database.
    pub db: DatabaseId,
    /// The height.
    pub height: Height,
    /// Root after applying the block at that height.
    pub root: DbRoot,
}

/// A block that a quorum of its epoch's committee finalized, and so the root that its header carries. Becomes a `CertifiedCheckpoint`
/// in `verifier`, against a committee the caller trusts.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// The block's header. The votes are over its hash.
    pub header: BlockHeader,
    /// The view in which it was finalized; views are counted anew in each epoch, from 1.
    pub view: u64,
    /// The view of its parent, 0 for the epoch's first block.
    pub parent_view: u64,
    /// Who signed: bit i is the i-th member.
    pub signers: u32,
    /// Their finalize votes, added up.
    pub signature: VoteSignature,
}

impl Certificate {
    /// The root it certifies: that after `header.executed_height`, not after the block itself.
    #[must_use]
    pub const fn checkpoint(&self) -> Checkpoint {
        Checkpoint { db: self.header.db, height: self.header.executed_height, root: self.header.executed_root }
    }
}

/// A committee handing over to the next: the certificate of its epoch's last block, which names the next by its hash, and that committee.
/// Bytes from a stranger until `verifier::committee::follow` has checked them.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Handover {
    /// Of the last block of an epoch.
    pub certificate: Certificate,
    /// The committee of the next epoch.
    pub members: Members,
}

/// The consensus epoch of a height: a period of [`EPOCH_BLOCKS`] blocks with one committee.
#[must_use]
pub const fn epoch_of(height: Height) -> u64 {
    height.0 / EPOCH_BLOCKS
}

/// Whether a height is its epoch's last. The certificate of that block settles the next committee.
#[must_use]
pub const fn ends_epoch(height: Height) -> bool {
    height.0 % EPOCH_BLOCKS == EPOCH_BLOCKS - 1
}

/// Signatures needed of `members`: 2f + 1 where `members` >= 3f + 1; all of 1.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn quorum(members: usize) -> usize {
    members - members.saturating_sub(1) / 3
}

/// Signatures needed of `members`, and one less on a thread where the simulator planted that bug.
#[cfg(feature = "planted")]
#[must_use]
pub fn quorum(members: usize) -> usize {
    members - members.saturating_sub(1) / 3 - usize::from(members > 1 && crate::planted::is_quorum_short())
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
