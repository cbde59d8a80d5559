//! The draw of a database's members: the list of nodes, an owner's request, and what came of it.
//!
//! Rule    who is drawn follows from the list and the seed: `crypto::placement` computes it, and the caller compares it with the
//!         contract's word. Nothing is computed here.

use super::{Chain, b128, b256, node_of, ours, theirs};
use crate::abi::Placement;
use crate::connection::Sent;
use crate::error::ChainError;
use alloy::primitives::U256;
use fluence_types::{Address, DatabaseId, NodeId};

/// Slots read in one call: each is up to four storage reads.
const CANDIDATES_AT_ONCE: u64 = 256;
/// Longest list that is read: 2^20 slots of 96 bytes.
const SLOTS_MAX: u64 = 1 << 20;
/// Gas limit of a settlement, never estimated beside what an operator does meanwhile: `Draws.STEPS_MAX` steps and 47 nodes kept.
const SETTLE_GAS: u64 = 8_000_000;

/// A slot of the list, as it stands for one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Candidate {
    /// Who is there; all zero where the slot is free.
    pub node: NodeId,
    /// Its operator, or none where it does not count.
    pub operator: Option<Address>,
}

/// What an owner asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PlacementRequest {
    /// The block of the request.
    pub requested_at: u64,
    /// The block whose hash makes the seed.
    pub seed_block: u64,
    /// The block of the settlement.
    pub settled_at: Option<u64>,
    /// Slots of the list at the request.
    pub slots: u64,
    /// Members wanted.
    pub seats: usize,
    /// Standbys wanted.
    pub standbys: usize,
    /// The seed, once settled.
    #[serde(with = "hex::serde")]
    pub seed: [u8; 32],
}

impl Chain {
    /// Puts a node on the list of those that accept databases; by its operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NotOperator`, `NodeNotActive`, `AddressMissing`, `VoteKeyMissing`, `CollateralMissing` or
    /// `AlreadyAnnounced`.
    pub async fn announce_node(&self, node: &NodeId) -> Result<Sent, ChainError> {
        self.send("announce", contract!(self, Placement, placement).announce(b256(node))).await
    }

    /// Takes a node off the list; by its operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NotOperator` or `NotAnnounced`.
    pub async fn withdraw_node(&self, node: &NodeId) -> Result<Sent, ChainError> {
        self.send("withdraw a node", contract!(self, Placement, placement).withdraw(b256(node))).await
    }

    /// Takes a node off the list that is not active or lacks its collateral; by anyone.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `StillFit` or `NotAnnounced`.
    pub async fn evict_node(&self, node: &NodeId) -> Result<Sent, ChainError> {
        self.send("evict a node", contract!(self, Placement, placement).evict(b256(node))).await
    }

    /// Whether a node is on the list.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn is_announced(&self, node: &NodeId) -> Result<bool, ChainError> {
        match view!("slot", contract!(self, Placement, placement).slotOf(b256(node))) {
            Ok(_) => Ok(true),
            Err(e) if e.refusal() == Some("NotAnnounced") => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Asks for a draw for this account's database; once for each.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `AlreadyRequested`, `TooFewOperators`, `SeatCount`, `StandbyCount` or `DatabaseZero`.
    pub async fn request_placement(&self, db: &DatabaseId, seats: u8, standbys: u8) -> Result<Sent, ChainError> {
        self.send("request members", contract!(self, Placement, placement).request(b128(db), seats, standbys)).await
    }

    /// An owner's request, or `None`.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn placement_request(
        &self,
        owner: &Address,
        db: &DatabaseId,
    ) -> Result<Option<PlacementRequest>, ChainError> {
        let r = view!("request", contract!(self, Placement, placement).requestOf(theirs(*owner), b128(db)))?;
        Ok((r.requestedAt != 0).then(|| PlacementRequest {
            requested_at: r.requestedAt,
            seed_block: r.seedBlock,
            settled_at: (r.settledAt != 0).then_some(r.settledAt),
            slots: u64::from(r.slots),
            seats: usize::from(r.seats),
            standbys: usize::from(r.standbys),
            seed: r.seed.0,
        }))
    }

    /// Requests that an owner ever made.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn placement_requests(&self, owner: &Address) -> Result<u64, ChainError> {
        Ok(view!("requests", contract!(self, Placement, placement).requestsOf(theirs(*owner)))?.saturating_to())
    }

    /// Draws for an owner's request, for good; by anyone.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `SeedNotYet`, `SeedLost`, `TooFewOperators`, `AlreadySettled` or `RequestUnknown`.
    pub async fn settle_placement(&self, owner: &Address, db: &DatabaseId) -> Result<Sent, ChainError> {
        let contract = contract!(self, Placement, placement);
        let call = contract.settle(theirs(*owner), b128(db)).from(self.connection.sender()?).gas(SETTLE_GAS);
        view!("settle", call)?;
        self.send("settle", call).await
    }

    /// What a settlement would keep now, or kept: the seed, and the nodes in order. Seats first.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `SeedNotYet`, `SeedLost` or `RequestUnknown`.
    pub async fn placement_preview(
        &self,
        owner: &Address,
        db: &DatabaseId,
    ) -> Result<([u8; 32], Vec<NodeId>), ChainError> {
        let p = view!("preview", contract!(self, Placement, placement).preview(theirs(*owner), b128(db)))?;
        Ok((p.seed.0, p.order.into_iter().map(node_of).collect()))
    }

    /// The list as it stands for a request: `slots` of it, as of block `at`.
    ///
    /// # Errors
    /// [`ChainError::Rpc`], also where the chain does not keep the state of that block any more; [`ChainError::OutOfRange`] for a list
    /// of more than a million slots.
    pub async fn placement_candidates(
        &self,
        request: &PlacementRequest,
        at: u64,
    ) -> Result<Vec<Candidate>, ChainError> {
        if request.slots > SLOTS_MAX {
            return Err(ChainError::OutOfRange { what: "the length of the list of nodes" });
        }
        let contract = contract!(self, Placement, placement);
        let mut all = Vec::new();
        while (all.len() as u64) < request.slots {
            let from = all.len() as u64;
            let count = CANDIDATES_AT_ONCE.min(request.slots - from);
            let call = contract.candidates(request.requested_at, U256::from(from), U256::from(count)).block(at.into());
            let list = view!("candidates", call)?;
            if list.len() as u64 != count {
                return Err(ChainError::OutOfRange { what: "the number of candidates" });
            }
            all.extend(list.into_iter().map(|slot| Candidate {
                node: node_of(slot.node),
                operator: (!slot.operator.is_zero()).then(|| ours(slot.operator)),
            }));
        }
        Ok(all)
    }

    /// Hash of a block, or `None` where there is none yet.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn block_hash(&self, number: u64) -> Result<Option<[u8; 32]>, ChainError> {
        use alloy::providers::Provider as _;
        let block = self.connection.provider().get_block_by_number(number.into()).await;
        let block = block.map_err(|e| ChainError::from_transport("block", e))?;
        Ok(block.map(|b| b.header.hash.0))
    }
}
