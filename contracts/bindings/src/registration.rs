//! What an owner and an operator both sign (EIP-712), so that a node owes a database from the next epoch on.
//!
//! Rule    the digest is computed here without the chain and equals `EpochProofs.registrationDigest`; a test compares the two.

use crate::abi::IEpochProofs;
use alloy::primitives::{B128, B256};
use alloy::sol_types::{Eip712Domain, SolStruct, eip712_domain};
use fluence_types::{Address, DatabaseId, DbRoot, Epoch, Height, NodeId};

mod typed {
    //! The EIP-712 types, by the names that are hashed.
    #![allow(missing_docs, unreachable_pub)]
    alloy::sol! {
        struct Registration {
            bytes32 node;
            address operator;
            address owner;
            bytes16 db;
            bytes32 dbRoot;
            uint64 cells;
            uint64 height;
            uint64 untilEpoch;
            uint96 damageMax;
        }
        struct Release {
            bytes32 node;
            bytes16 db;
            uint64 height;
        }
    }
}

/// A database's root that a node will owe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Registration {
    /// Who keeps it.
    pub node: NodeId,
    /// The node's operator, so that a stranger who registered the node's id first gets no signature.
    pub operator: Address,
    /// Who is paid when the node fails.
    pub owner: Address,
    /// The database, not all zero.
    pub db: DatabaseId,
    /// Its root at `height`.
    pub root: DbRoot,
    /// Stored cells under the root, at least 1.
    pub cells: u64,
    /// Must grow with each registration of the database at the node.
    pub height: Height,
    /// Last epoch in which it is owed.
    pub until: Epoch,
    /// The most the owner gets out of a slash for this database, in 1e-18 FLU; below 2^96.
    pub damage_max: u128,
}

/// The EIP-712 domain of one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `EpochProofs`.
    pub contract: Address,
}

impl Domain {
    fn eip712(&self) -> Eip712Domain {
        eip712_domain! {
            name: "Fluence EpochProofs",
            version: "1",
            chain_id: self.chain_id,
            verifying_contract: alloy::primitives::Address::from(self.contract.to_bytes()),
        }
    }

    /// The 32 bytes that owner and operator sign to register.
    #[must_use]
    pub fn registration_digest(&self, r: &Registration) -> [u8; 32] {
        let typed = typed::Registration {
            node: B256::from(r.node.to_bytes()),
            operator: r.operator.to_bytes().into(),
            owner: r.owner.to_bytes().into(),
            db: B128::from(r.db.to_bytes()),
            dbRoot: B256::from(r.root.to_field().to_bytes()),
            cells: r.cells,
            height: r.height.0,
            untilEpoch: r.until.0,
            damageMax: alloy::primitives::aliases::U96::saturating_from(r.damage_max),
        };
        typed.eip712_signing_hash(&self.eip712()).0
    }

    /// The 32 bytes that the owner signs to release a database last registered at `height`.
    #[must_use]
    pub fn release_digest(&self, node: &NodeId, db: &DatabaseId, height: Height) -> [u8; 32] {
        let typed =
            typed::Release { node: B256::from(node.to_bytes()), db: B128::from(db.to_bytes()), height: height.0 };
        typed.eip712_signing_hash(&self.eip712()).0
    }
}

impl From<&Registration> for IEpochProofs::Registration {
    fn from(r: &Registration) -> Self {
        Self {
            node: B256::from(r.node.to_bytes()),
            operator: r.operator.to_bytes().into(),
            owner: r.owner.to_bytes().into(),
            db: B128::from(r.db.to_bytes()),
            dbRoot: B256::from(r.root.to_field().to_bytes()),
            cells: r.cells,
            height: r.height.0,
            untilEpoch: r.until.0,
            damageMax: alloy::primitives::aliases::U96::saturating_from(r.damage_max),
        }
    }
}
