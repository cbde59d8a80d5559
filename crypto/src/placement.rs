//! The draw of a database's members: a random order of the nodes that offer themselves, each operator once.
//!
//! Seed        `keccak256(tag, chain id, Placement, owner, database, beacon)`: chain id as 32 bytes big-endian, the beacon a block hash
//! Shuffle     Fisher-Yates from the front: step i exchanges place i with place `i + keccak256(seed, i) mod (count - i)`, the step as 4
//!             bytes big-endian, the hash as a number big-endian; the modulus favours no slot by more than 2^-200
//! Order       slot after slot as shuffled; one counts if it has an operator whom no slot before it has. At most [`STEPS_MAX`] are
//!             looked at.
//! Twin        `contracts/src/libraries/Draws.sol`; `tests/vectors/placement.json` holds both to the same order.
//! Source      Knuth, The Art of Computer Programming, vol. 2, 3.4.2, algorithm P, run upwards

use crate::domain;
use fluence_types::{Address, DatabaseId};
use sha3::{Digest, Keccak256};
use std::collections::{BTreeMap, BTreeSet};

/// Slots looked at in one draw: bounds what the contract spends on it.
pub const STEPS_MAX: u32 = 256;

/// What a seed is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlacementSeed {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `Placement`.
    pub contract: Address,
    /// Who asked.
    pub owner: Address,
    /// For which database.
    pub db: DatabaseId,
    /// Hash of the block that was named before it was there.
    pub beacon: [u8; 32],
}

/// The seed of a draw.
#[must_use]
pub fn seed(of: &PlacementSeed) -> [u8; 32] {
    let mut chain_id = [0; 32];
    chain_id[24..].copy_from_slice(&of.chain_id.to_be_bytes());
    let hasher = Keccak256::new().chain_update(domain::PLACEMENT).chain_update(chain_id);
    let hasher = hasher.chain_update(of.contract.as_bytes()).chain_update(of.owner.as_bytes());
    hasher.chain_update(of.db.as_bytes()).chain_update(of.beacon).finalize().into()
}

/// Up to `want` slots in the order of the draw; fewer where operators or steps run out. `operators` has one entry a slot: `None` where
/// it does not count.
#[must_use]
pub fn draw(seed: &[u8; 32], operators: &[Option<Address>], want: usize) -> Vec<usize> {
    // Places of the shuffled list that do not hold their own number.
    let mut moved: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen: BTreeSet<Address> = BTreeSet::new();
    let mut order = Vec::new();
    let count = operators.len() as u64;
    for step in 0..count.min(u64::from(STEPS_MAX)) {
        if order.len() == want {
            break;
        }
        let hash = Keccak256::new().chain_update(seed).chain_update((step as u32).to_be_bytes()).finalize();
        let target = step + reduce(&hash.into(), count - step);
        let slot = moved.get(&target).copied().unwrap_or(target);
        moved.insert(target, moved.get(&step).copied().unwrap_or(step));
        let slot = usize::try_from(slot).expect("below the length of a list");
        if let Some(operator) = operators[slot]
            && seen.insert(operator)
        {
            order.push(slot);
        }
    }
    order
}

/// A big-endian number modulo `m`, which is not 0.
fn reduce(number: &[u8; 32], m: u64) -> u64 {
    let step = |rest: u128, byte: &u8| ((rest << 8) | u128::from(*byte)) % u128::from(m);
    u64::try_from(number.iter().fold(0, step)).expect("below m")
}

#[cfg(test)]
mod tests;
