//! Seed and challenges of the storage proof: natively what `EpochProofs` computes on chain and the circuit inside.
//!
//! Seed        `keccak256(abi.encode(chain id, contract, node, epoch, beacon, shape, proof index)) mod 2^253`
//! Challenge   samples 2 j and 2 j + 1: `h = digest(Challenge, [seed, j])`; `a` of the first is its low 64 bits, `a` and `b` of the second are
//!             the next 64 and the 64 after. No bit serves two samples
//! Index       `floor(a * total / 2^64)`: total is below 2^40, so no index is likelier than another by more than 2^-24

use crate::{Fr, poseidon2};
use ark_ff::PrimeField;
use fluence_types::statement::StorageSeed;
use fluence_types::tree::DigestTag;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, NodeId};
use sha3::{Digest, Keccak256};

/// The seed of a storage proof.
#[must_use]
pub fn storage_seed(s: &StorageSeed) -> FieldBytes {
    let number = |n: u64| FieldBytes::from_u64(n).to_bytes();
    let mut address = [0; 32];
    address[12..].copy_from_slice(s.contract.as_bytes());
    let words = [
        number(s.chain_id),
        address,
        s.node.to_bytes(),
        number(s.epoch.0),
        s.beacon,
        number(s.shape),
        number(u64::from(s.proof_index)),
    ];
    let mut hash: [u8; 32] = Keccak256::digest(words.as_flattened()).into();
    hash[0] &= 0x1f;
    FieldBytes::from_canonical(hash).expect("2^253 is below r")
}

/// The seed with which a newcomer to a cluster shows that it has what lies under a root: `keccak256(tag, database, epoch, node, root)
/// mod 2^253`.
#[must_use]
pub fn readiness_seed(db: DatabaseId, epoch: u64, node: &NodeId, root: DbRoot) -> FieldBytes {
    let mut hasher = Keccak256::new().chain_update(crate::domain::READINESS).chain_update(db.as_bytes());
    hasher.update(epoch.to_be_bytes());
    hasher.update(node.as_bytes());
    hasher.update(root.to_field().as_bytes());
    let mut hash: [u8; 32] = hasher.finalize().into();
    hash[0] &= 0x1f;
    FieldBytes::from_canonical(hash).expect("2^253 is below r")
}

/// The two random numbers of sample `k`; an even one has no second, which is 0.
#[must_use]
pub fn challenge(seed: &Fr, k: u64) -> (u64, u64) {
    let [first, a, b, _] = poseidon2::digest(DigestTag::Challenge, &[*seed, Fr::from(k / 2)]).into_bigint().0;
    if k.is_multiple_of(2) { (first, 0) } else { (a, b) }
}

/// `floor(r * total / 2^64)`: an index below `total` (0 where `total` is 0).
#[must_use]
pub fn scale(r: u64, total: u64) -> u64 {
    ((u128::from(r) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;
    use crate::test_vectors::{load, number, numbers, parsed};
    use fluence_types::Epoch;

    #[test]
    fn seeds_and_challenges_match_the_independent_implementation() {
        for v in load("seed") {
            let parts = StorageSeed {
                chain_id: number(&v["chainId"]),
                contract: parsed(&v["contract"]),
                node: parsed(&v["node"]),
                epoch: Epoch(number(&v["epoch"])),
                beacon: parsed::<fluence_types::SchemaHash>(&v["beacon"]).to_bytes(),
                shape: number(&v["shape"]),
                proof_index: number(&v["proofIndex"]) as u32,
            };
            let seed = storage_seed(&parts);
            assert_eq!(seed, parsed(&v["seed"]));
            for (k, want) in numbers(&v["a"]).into_iter().zip(numbers(&v["b"])).enumerate() {
                assert_eq!(challenge(&field::from_bytes(&seed), k as u64), want);
            }
            // Every part moves the seed.
            for other in [
                StorageSeed { chain_id: parts.chain_id ^ 1, ..parts },
                StorageSeed { contract: Default::default(), ..parts },
                StorageSeed { node: Default::default(), ..parts },
                StorageSeed { epoch: Epoch(parts.epoch.0 ^ 1), ..parts },
                StorageSeed { beacon: [0; 32], ..parts },
                StorageSeed { shape: parts.shape ^ 1, ..parts },
                StorageSeed { proof_index: parts.proof_index ^ 1, ..parts },
            ] {
                assert_ne!(storage_seed(&other), seed);
            }
        }
    }

    #[test]
    fn scaled_index_stays_below_the_total() {
        for total in [1, 2, 3, 1 << 40] {
            assert_eq!(scale(0, total), 0);
            assert_eq!(scale(u64::MAX, total), total - 1);
        }
        assert_eq!(scale(1 << 63, 10), 5);
    }

    #[test]
    fn a_readiness_seed_depends_on_all_of_its_parts() {
        let root = |n| DbRoot::from_field(FieldBytes::from_u64(n));
        let (db, node) = (DatabaseId::from_bytes([1; 16]), NodeId::from_bytes([2; 32]));
        let seed = readiness_seed(db, 3, &node, root(4));
        assert_eq!(seed, readiness_seed(db, 3, &node, root(4)));
        assert_ne!(seed, readiness_seed(DatabaseId::default(), 3, &node, root(4)));
        assert_ne!(seed, readiness_seed(db, 4, &node, root(4)));
        assert_ne!(seed, readiness_seed(db, 3, &NodeId::default(), root(4)));
        assert_ne!(seed, readiness_seed(db, 3, &node, root(5)));
    }
}
