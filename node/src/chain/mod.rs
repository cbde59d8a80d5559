//! The chain as a node sees it: what is owed, the beacon, challenges. [`ethereum`] speaks to the contracts; tests have their own.
//!
//! Rule    nothing here decides: the contract says what is owed and what is open, the node and the arbiter compute the rest themselves.
//! Source  DESIGN section 8; `contracts/src/interfaces/IEpochProofs.sol`

pub mod clusters;
pub mod ethereum;

use fluence_crypto::field;
use fluence_crypto::roots::holdings_root;
use fluence_crypto::sum_tree::SumTree;
use fluence_types::shape::StorageShape;
use fluence_types::statement::StorageSeed;
use fluence_types::tree::HoldingsPreimage;
use fluence_types::{Address, DatabaseId, DbRoot, Epoch, FieldBytes, HoldingsRoot, NodeId};
use std::fmt;

/// Why the chain was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The RPC does not answer, or not sensibly. Try again.
    #[error("chain: {0}")]
    Rpc(String),
    /// The contract refused a transaction.
    #[error("the contract refused {act}: {why}")]
    Refused {
        /// The call.
        act: &'static str,
        /// Its error.
        why: String,
    },
    /// The configuration does not fit the chain.
    #[error("chain setup: {0}")]
    Setup(String),
}

/// The protocol's numbers, fixed at the contract's construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `EpochProofs`.
    pub contract: Address,
    /// First block of epoch 0.
    pub start_block: u64,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
    /// An epoch may be challenged until this many blocks after its start.
    pub window_blocks: u64,
    /// Blocks from a challenge to its deadline.
    pub response_blocks: u64,
    /// Proofs owed each epoch.
    pub proofs_per_epoch: u32,
    /// Shape of the storage circuit.
    pub shape: StorageShape,
    /// Keccak-256 of the storage circuit's pinned verification key.
    pub storage_vk_hash: [u8; 32],
    /// Whether the contract says that its keys were made on one machine.
    pub insecure_dev_keys: bool,
}

impl ChainInfo {
    /// The epoch of a block; `None` before epoch 0.
    #[must_use]
    pub const fn epoch_at(&self, block: u64) -> Option<Epoch> {
        match block.checked_sub(self.start_block) {
            Some(since) => Some(Epoch(since / self.epoch_blocks)), // rounds down
            None => None,
        }
    }

    /// First block of an epoch; the epoch's beacon is its hash, known from the next block on.
    #[must_use]
    pub const fn epoch_start(&self, epoch: Epoch) -> u64 {
        self.start_block.saturating_add(epoch.0.saturating_mul(self.epoch_blocks))
    }

    /// The seed of a node's proof: computed here, never taken from the node.
    #[must_use]
    pub fn seed(&self, node: NodeId, epoch: Epoch, beacon: [u8; 32], proof_index: u32) -> StorageSeed {
        StorageSeed {
            chain_id: self.chain_id,
            contract: self.contract,
            node,
            epoch,
            beacon,
            shape: StorageSeed::shape_word(self.shape),
            proof_index,
        }
    }

    /// A chain that lives on one machine: dev keys and the test-only liar are allowed on no other.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self.chain_id, 1337 | 31337)
    }
}

/// One database as owed in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The database.
    pub db: DatabaseId,
    /// The root registered for it.
    pub root: DbRoot,
    /// Cells under it.
    pub cells: u64,
}

/// What a node owes in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// In id order, not empty.
    pub owed: Vec<Owed>,
}

impl Debt {
    /// First two public inputs of the holdings proof, computed here; the contract computes the same in a challenge.
    #[must_use]
    pub fn holdings(&self) -> (HoldingsRoot, u64) {
        let leaves: Vec<_> = self.owed.iter().map(|o| (field::from_bytes(&o.root.to_field()), o.cells)).collect();
        let (sum_root, total_cells) = SumTree::new(leaves).root();
        let databases = self.owed.len() as u64;
        let preimage = HoldingsPreimage { databases, sum_root: field::to_bytes(&sum_root), total_cells };
        (holdings_root(&preimage), total_cells)
    }

    /// First two public inputs of the proof of one database.
    #[must_use]
    pub fn database(&self, db: DatabaseId) -> Option<(HoldingsRoot, u64)> {
        let owed = self.owed.iter().find(|o| o.db == db)?;
        Some((HoldingsRoot::from_field(owed.root.to_field()), owed.cells))
    }
}

/// A node of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredNode {
    /// The node.
    pub node: NodeId,
    /// Its operator.
    pub operator: Address,
    /// Whether it has left for good.
    pub left: bool,
    /// Its address as registered, where it is a text.
    pub multiaddr: Option<String>,
}

/// A challenge's id on chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ChallengeId(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Display for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a challenge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChallengeStatus {
    /// None that we know.
    None,
    /// May be answered.
    Open,
    /// A valid proof was posted.
    Answered,
    /// Its deadline passed unanswered: slashed.
    Expired,
    /// Over, bond paid.
    Closed,
}

/// A challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its id.
    pub id: ChallengeId,
    /// Against whom.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// One database, or the holdings.
    pub db: Option<DatabaseId>,
    /// Which proof of the epoch.
    pub proof_index: u32,
    /// Where it stands.
    pub status: ChallengeStatus,
    /// Last block in which it may be answered.
    pub deadline: u64,
    /// Who gets the bond when it expires.
    pub challenger: Address,
    /// Public inputs: root, cells, seed.
    pub root: HoldingsRoot,
    /// Cells under the root.
    pub cells: u64,
    /// The seed.
    pub seed: FieldBytes,
}

/// What a challenge is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Subject {
    /// The epoch.
    pub epoch: Epoch,
    /// The node.
    pub node: NodeId,
    /// Which proof of the epoch.
    pub proof_index: u32,
}

/// Reads and writes the chain. Reads are of the latest block; a caller must bear that two reads see different blocks.
#[async_trait::async_trait]
pub trait Chain: Send + Sync + 'static {
    /// The protocol's numbers.
    fn info(&self) -> &ChainInfo;
    /// What it keeps of clusters; `None` where it keeps nothing.
    fn clusters(&self) -> Option<&dyn clusters::ClusterChain> {
        None
    }
    /// Whose transactions these are; `None`: reads only.
    fn operator(&self) -> Option<Address>;
    /// The latest block.
    async fn head(&self) -> Result<u64, ChainError>;
    /// An epoch's beacon; `None` where it is not known yet, or no more.
    async fn beacon(&self, epoch: Epoch) -> Result<Option<[u8; 32]>, ChainError>;
    /// What a node owes in an epoch; `None`: nothing.
    async fn debt(&self, node: NodeId, epoch: Epoch) -> Result<Option<Debt>, ChainError>;
    /// All nodes ever registered.
    async fn nodes(&self) -> Result<Vec<RegisteredNode>, ChainError>;
    /// Challenges against `node` opened in block `from` or later, as they stand now.
    async fn challenges(&self, node: NodeId, from: u64) -> Result<Vec<Challenge>, ChainError>;
    /// The challenge against a node's holdings, if there is one.
    async fn challenge_of(&self, subject: Subject) -> Result<Option<Challenge>, ChainError>;
    /// Commits to a challenge of the holdings, and opens it in a later block. `salt` must be random: it hides what is challenged until
    /// the second transaction.
    async fn challenge(&self, subject: Subject, salt: [u8; 32]) -> Result<(), ChainError>;
    /// Answers a challenge with A|B|C as EIP-2537 points.
    async fn respond(&self, id: ChallengeId, proof: &[u8; 512]) -> Result<(), ChainError>;
    /// Closes a challenge whose deadline passed; returns what was slashed, in 1e-18 FLU.
    async fn expire(&self, id: ChallengeId) -> Result<u128, ChainError>;
    /// Gets the bond of a challenge that is over.
    async fn claim_bond(&self, id: ChallengeId) -> Result<(), ChainError>;
}
