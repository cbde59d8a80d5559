//! What the contracts say, in the words of `types`.

use fluence_types::{Address, DatabaseId, DbRoot, Epoch, FieldBytes, Height, NodeId};
use std::fmt;

/// A challenge's id: keccak256 of (node, epoch, database, proof index).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChallengeStatus {
    /// There is none.
    None,
    /// Waits for an answer or for its deadline.
    Open,
    /// A proof was posted in time.
    Answered,
    /// The deadline passed; the node was slashed.
    Expired,
    /// As the last two, and the bond is paid.
    Closed,
}

/// A challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Challenge {
    /// Its id.
    pub id: ChallengeId,
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The database, or none for the holdings.
    pub db: Option<DatabaseId>,
    /// Which proof of the epoch.
    pub proof_index: u16,
    /// Public inputs of the proof that answers it: root, cells, seed.
    pub inputs: [FieldBytes; 3],
    /// Last block for an answer.
    pub deadline: u64,
    /// Where it stands.
    pub status: ChallengeStatus,
    /// Who opened it.
    pub challenger: Address,
    /// In wei.
    pub bond: u128,
    /// What expiry slashes at most, in 1e-18 FLU.
    pub stake: u128,
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeStatus {
    /// Not registered.
    None,
    /// May take on databases.
    Active,
    /// Missed a challenge; must restake.
    Suspended,
    /// Gone for good.
    Left,
}

/// A node's record.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct NodeRecord {
    /// The node.
    pub node: NodeId,
    /// Sends its transactions, owns its collateral.
    pub operator: Address,
    /// Where it stands.
    pub status: NodeStatus,
    /// Where to reach it.
    pub multiaddr: Vec<u8>,
}

/// A node's collateral, in 1e-18 FLU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CollateralBalance {
    /// Backs nothing.
    pub free: u128,
    /// Backs databases.
    pub locked: u128,
    /// On its way out.
    pub thawing: u128,
    /// First block at which `thawing` may be withdrawn.
    pub thawed_at: u64,
}

impl CollateralBalance {
    /// All of it: what a slash can reach.
    #[must_use]
    pub const fn total(&self) -> u128 {
        self.free + self.locked + self.thawing // the supply is below 2^87
    }
}

/// One database as a node owes it in an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Owed {
    /// The database.
    pub db: DatabaseId,
    /// Its root.
    pub root: DbRoot,
    /// Cells under it.
    pub cells: u64,
    /// Its owner.
    pub owner: Address,
    /// The most the owner gets out of a slash for it, in 1e-18 FLU.
    pub damage_max: u128,
}

/// The last registration of a database at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct StakedVersion {
    /// Its root.
    pub root: DbRoot,
    /// Cells under it.
    pub cells: u64,
    /// Its height.
    pub height: Height,
    /// First epoch in which it is owed.
    pub from: Epoch,
    /// Last epoch in which it is owed.
    pub until: Epoch,
    /// Its owner.
    pub owner: Address,
}
