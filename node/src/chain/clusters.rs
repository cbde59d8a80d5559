//! What the chain keeps of clusters, as a node reads and writes it: checkpoints, and evidence of conflicting votes.
//!
//! Rule    a part of [`super::Chain`] that a chain may lack: without it nothing is posted.
//! Source  `contracts/src/interfaces/{ICheckpoints,IEquivocation}.sol`; `docs/protocol/checkpoints.md`

use super::ChainError;
use fluence_crypto::vote::Vote;
use fluence_types::block::{Certificate, Members};
use fluence_types::{Address, DatabaseId, Height, NodeId};

/// How far the chain is with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The last block whose certificate it accepted; 0 before the first.
    pub height: Height,
    /// The block of that, or of the opening.
    pub accepted_at: u64,
    /// Hash of the committee that may certify next.
    pub committee: [u8; 32],
}

/// Two votes by one key in one view, as the chain takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who voted.
    pub node: NodeId,
    /// Its vote key as EIP-2537 writes it.
    pub key: Box<[u8; 256]>,
    /// The cluster's database.
    pub db: DatabaseId,
    /// The consensus epoch.
    pub epoch: u64,
    /// The view.
    pub view: u64,
    /// The votes, with their signatures as EIP-2537 writes them.
    pub votes: [(Vote, Box<[u8; 128]>); 2],
}

/// Reads and writes what the chain keeps of clusters.
#[async_trait::async_trait]
pub trait ClusterChain: Send + Sync {
    /// How far the chain is with a cluster; `None` where its owner did not register it.
    async fn anchor(&self, owner: Address, db: DatabaseId) -> Result<Option<Anchor>, ChainError>;
    /// Posts a certificate by `members`.
    async fn submit(&self, owner: Address, certificate: &Certificate, members: &Members) -> Result<(), ChainError>;
    /// Keccak-256 of a node's registered vote key.
    async fn vote_key(&self, node: NodeId) -> Result<Option<[u8; 32]>, ChainError>;
    /// All of a node's collateral: what evidence can take.
    async fn stake(&self, node: NodeId) -> Result<u128, ChainError>;
    /// Whether evidence of this node, database, epoch and view was shown before.
    async fn proven(&self, conflict: &Conflict) -> Result<bool, ChainError>;
    /// Commits to evidence and shows it. `salt` hides what is committed to.
    async fn accuse(&self, conflict: &Conflict, salt: [u8; 32]) -> Result<(), ChainError>;
}
