//! `storage`: the prover had the cells that the seed picks from everything under the root.

use crate::shape::StorageShape;
use crate::{Address, Epoch, FieldBytes, HoldingsRoot, NodeId};

/// Public inputs: `[root, total cells, seed]`.
///
/// For sample `k`, `h = digest(Challenge, [seed, k])`, `a` its low 64 bits, `b` the next 64. Even `k`: the cell at
/// `floor(a * T / 2^64)` of all cells under the root. Odd `k`: of the database at `floor(a * n / 2^64)` in id order, the cell at
/// `floor(b * stored / 2^64)`. Where the root is a single database's, `n = 1` and `T` is its stored cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub struct Storage {
    /// A holdings root (output word 7) or a database root (word 4).
    pub root: HoldingsRoot,
    /// Cells under it, at least 1 and below 2^40.
    pub total_cells: u64,
    /// The seed, below 2^253.
    pub seed: FieldBytes,
}

impl Storage {
    /// The public inputs in circuit order.
    #[must_use]
    pub fn public_inputs(&self) -> [FieldBytes; 3] {
        [self.root.to_field(), FieldBytes::from_u64(self.total_cells), self.seed]
    }
}

/// What the seed is made of. `seed = keccak256(abi.encode(chain id, contract, node, epoch, beacon, shape, proof index)) mod 2^253`,
/// each field one 32-byte word, shape as [`StorageSeed::shape_word`]; made natively by `crypto::seed` and on chain by `EpochProofs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct StorageSeed {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The contract that names the beacon.
    pub contract: Address,
    /// Who proves.
    pub node: NodeId,
    /// The proof hour.
    pub epoch: Epoch,
    /// The epoch's beacon.
    #[serde(with = "hex::serde")]
    pub beacon: [u8; 32],
    /// As packed by [`Self::shape_word`].
    pub shape: u64,
    /// 0 for the first proof of the epoch.
    pub proof_index: u32,
}

impl StorageSeed {
    /// A shape as one number: samples, holdings, stored and tree levels, 16 bits each from the top.
    #[must_use]
    pub const fn shape_word(shape: StorageShape) -> u64 {
        (shape.samples as u64) << 48
            | (shape.holdings_levels as u64) << 32
            | (shape.stored_levels as u64) << 16
            | shape.tree_levels as u64
    }
}
