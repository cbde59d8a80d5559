//! The hour: what is owed, beacons and seeds, challenges.

use super::{
    Chain, Challenge, ChallengeId, ChallengeStatus, Owed, StakedVersion, b128, b256, db_of, flu_of, node_of, ours,
    root_of,
};
use crate::abi::EpochProofs;
use crate::connection::Sent;
use crate::error::ChainError;
use crate::registration::Registration;
use alloy::primitives::{B256, Bytes, keccak256};
use fluence_types::op::OwnerSignature;
use fluence_types::shape::CircuitId;
use fluence_types::statement::StorageSeed;
use fluence_types::{DatabaseId, DbRoot, Epoch, FieldBytes, Height, HoldingsRoot, NodeId};

/// Gas limit of a response: `EpochProofs.RESPONSE_GAS` and room above it. Never estimated: an estimator searches for the least gas
/// at which a call does not revert, and a starved precompile reverts.
const RESPOND_GAS: u64 = 500_000;
/// Gas of a challenge before its databases, and for each.
const CHALLENGE_GAS: u64 = 700_000;
const CHALLENGE_GAS_PER_DATABASE: u64 = 60_000;

impl Chain {
    // ---- what is owed ---------------------------------------------------------------------------------------------------------

    /// Registers a root. A signature is left out by who sends: owner or operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`], as with `NotSigned`, `NodeNotActive`, `HeightNotAbove`, `EpochOutOfRange` or `NotEnoughFree`.
    pub async fn register_root(
        &self,
        registration: &Registration,
        owner: Option<&OwnerSignature>,
        operator: Option<&OwnerSignature>,
    ) -> Result<Sent, ChainError> {
        let bytes = |s: Option<&OwnerSignature>| s.map(|s| Bytes::copy_from_slice(s)).unwrap_or_default();
        let contract = contract!(self, EpochProofs, epoch_proofs);
        self.send("register root", contract.registerRoot(registration.into(), bytes(owner), bytes(operator))).await
    }

    /// Ends a database's debt from the next epoch on; by its owner, who sends or signed [`crate::Domain::release_digest`].
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `DatabaseUnknown` or `NotSigned`.
    pub async fn release(
        &self,
        node: &NodeId,
        db: &DatabaseId,
        owner: Option<&OwnerSignature>,
    ) -> Result<Sent, ChainError> {
        let signature = owner.map(|s| Bytes::copy_from_slice(s)).unwrap_or_default();
        let contract = contract!(self, EpochProofs, epoch_proofs);
        self.send("release", contract.release(b256(node), b128(db), signature)).await
    }

    /// Unlocks the collateral of a database that is owed no more.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `StillOwed` or `DatabaseUnknown`.
    pub async fn close(&self, node: &NodeId, db: &DatabaseId) -> Result<Sent, ChainError> {
        self.send("close", contract!(self, EpochProofs, epoch_proofs).close(b256(node), b128(db))).await
    }

    /// Locks what the node's databases need, and makes it active again; by its operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `WrongOperator` or `NotEnoughFree`.
    pub async fn restake(&self, node: &NodeId) -> Result<Sent, ChainError> {
        self.send("restake", contract!(self, EpochProofs, epoch_proofs).restake(b256(node))).await
    }

    /// Collateral that a database of `cells` cells needs, in 1e-18 FLU.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn stake_for(&self, cells: u64) -> Result<u128, ChainError> {
        flu_of("stake", view!("stake", contract!(self, EpochProofs, epoch_proofs).stakeFor(cells))?)
    }

    /// What a node owes in an epoch, in id order.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn owed(&self, node: &NodeId, epoch: Epoch) -> Result<Vec<Owed>, ChainError> {
        let list = view!("owed", contract!(self, EpochProofs, epoch_proofs).owed(b256(node), epoch.0))?;
        list.into_iter()
            .map(|o| {
                Ok(Owed {
                    db: db_of(o.db),
                    root: DbRoot::from_field(root_of("database root", o.root)?),
                    cells: o.cells,
                    owner: ours(o.owner),
                    damage_max: o.damageMax.to::<u128>(),
                })
            })
            .collect()
    }

    /// First two public inputs of a holdings proof, or `None` where the node owes nothing in that epoch.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn holdings(&self, node: &NodeId, epoch: Epoch) -> Result<Option<(HoldingsRoot, u64)>, ChainError> {
        match view!("holdings", contract!(self, EpochProofs, epoch_proofs).holdings(b256(node), epoch.0)) {
            Ok(h) => Ok(Some((HoldingsRoot::from_field(root_of("holdings root", h.root)?), h.cells))),
            Err(e) if e.refusal() == Some("NothingOwed") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The last registration of a database at a node, or `None`.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn latest(&self, node: &NodeId, db: &DatabaseId) -> Result<Option<StakedVersion>, ChainError> {
        match view!("latest", contract!(self, EpochProofs, epoch_proofs).latest(b256(node), b128(db))) {
            Ok(v) => Ok(Some(StakedVersion {
                root: DbRoot::from_field(root_of("database root", v.root)?),
                cells: v.cells,
                height: Height(v.height),
                from: Epoch(v.fromEpoch),
                until: Epoch(v.untilEpoch),
                owner: ours(v.owner),
            })),
            Err(e) if e.refusal() == Some("DatabaseUnknown") => Ok(None),
            Err(e) => Err(e),
        }
    }

    // ---- epochs, beacons, seeds -----------------------------------------------------------------------------------------------

    /// The epoch of the latest block.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn current_epoch(&self) -> Result<Epoch, ChainError> {
        Ok(Epoch(view!("current epoch", contract!(self, EpochProofs, epoch_proofs).currentEpoch())?))
    }

    /// The epoch from which a registration counts that is sent now.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn effective_epoch(&self) -> Result<Epoch, ChainError> {
        Ok(Epoch(view!("effective epoch", contract!(self, EpochProofs, epoch_proofs).effectiveEpoch())?))
    }

    /// First block of an epoch. Its hash is the epoch's beacon, known from the next block on.
    #[must_use]
    pub const fn epoch_start(&self, epoch: Epoch) -> u64 {
        self.deployment.start_block + epoch.0 * self.deployment.params.epoch_blocks
    }

    /// An epoch's beacon.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `BeaconNotYet`, or with `BeaconLost` where nobody recorded it in time.
    pub async fn beacon(&self, epoch: Epoch) -> Result<[u8; 32], ChainError> {
        Ok(view!("beacon", contract!(self, EpochProofs, epoch_proofs).beacon(epoch.0))?.0)
    }

    /// Keeps an epoch's beacon on chain while the chain still knows it.
    ///
    /// # Errors
    /// As [`Self::beacon`].
    pub async fn record_beacon(&self, epoch: Epoch) -> Result<Sent, ChainError> {
        self.send("record beacon", contract!(self, EpochProofs, epoch_proofs).recordBeacon(epoch.0)).await
    }

    /// A node's seed as the contract computes it.
    ///
    /// # Errors
    /// As [`Self::beacon`].
    pub async fn seed(&self, node: &NodeId, epoch: Epoch, proof_index: u16) -> Result<FieldBytes, ChainError> {
        let seed = view!("seed", contract!(self, EpochProofs, epoch_proofs).seed(b256(node), epoch.0, proof_index))?;
        root_of("seed", seed)
    }

    /// The parts of a node's seed, from which `crypto::seed` computes it without asking.
    ///
    /// # Errors
    /// As [`Self::beacon`].
    pub async fn seed_parts(&self, node: &NodeId, epoch: Epoch, proof_index: u16) -> Result<StorageSeed, ChainError> {
        let CircuitId::Storage(shape) = self.deployment.storage else {
            return Err(ChainError::OutOfRange { what: "storage circuit" });
        };
        Ok(StorageSeed {
            chain_id: self.deployment.chain_id,
            contract: self.deployment.epoch_proofs,
            node: *node,
            epoch,
            beacon: self.beacon(epoch).await?,
            shape: StorageSeed::shape_word(shape),
            proof_index: u32::from(proof_index),
        })
    }

    // ---- challenges -----------------------------------------------------------------------------------------------------------

    /// Commits to a challenge and opens it in a later block, with the least bond. `salt` is random: it hides what is challenged until
    /// the second transaction.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `WindowClosed`, `BeaconNotYet`, `BeaconLost`, `NothingOwed`, `ChallengeExists` and more.
    pub async fn challenge(
        &self,
        node: &NodeId,
        epoch: Epoch,
        db: Option<&DatabaseId>,
        proof_index: u16,
        salt: [u8; 32],
    ) -> Result<(ChallengeId, Sent), ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let (node_word, db_word, salt) = (b256(node), db.map(b128).unwrap_or_default(), B256::from(salt));
        let sender = self.connection.sender()?;
        let commitment =
            view!("challenge", contract.commitmentOf(node_word, epoch.0, db_word, proof_index, sender, salt))?;
        match self.send("commit to a challenge", contract.commitChallenge(commitment)).await {
            // Committed before, by us in an earlier try or by who saw the transaction; it serves this account either way.
            Err(e) if e.refusal() == Some("CommitmentExists") => {}
            other => drop(other?),
        }
        let bond = view!("bond", contract.bondRequired())?;
        let databases = match db {
            Some(_) => 1,
            None => view!("challenge", contract.databaseCount(node_word))?.saturating_to::<u64>().min(64),
        };
        // The gas is set: an estimate may run in the commitment's own block, where the challenge is still too early.
        let call = contract
            .challenge(node_word, epoch.0, db_word, proof_index, salt)
            .value(bond)
            .gas(CHALLENGE_GAS + CHALLENGE_GAS_PER_DATABASE * databases);
        let sent = self.send("challenge", call).await?;
        Ok((self.challenge_id(node, epoch, db, proof_index), sent))
    }

    /// The id of a challenge, computed here.
    #[must_use]
    pub fn challenge_id(&self, node: &NodeId, epoch: Epoch, db: Option<&DatabaseId>, proof_index: u16) -> ChallengeId {
        let mut words = [0u8; 128];
        words[..32].copy_from_slice(node.as_bytes());
        words[56..64].copy_from_slice(&epoch.0.to_be_bytes());
        if let Some(db) = db {
            words[64..80].copy_from_slice(db.as_bytes());
        }
        words[126..].copy_from_slice(&proof_index.to_be_bytes());
        ChallengeId(keccak256(words).0)
    }

    /// Answers a challenge with an uncompressed proof. Simulated first, so that a refused proof costs nothing.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `ProofMismatch`, `PrecompileFailed`, `DeadlinePassed` or `ChallengeNotOpen`.
    pub async fn respond(&self, id: &ChallengeId, proof: &[u8; 512]) -> Result<Sent, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let call = contract.respond(B256::from(id.0), Bytes::copy_from_slice(proof)).from(self.connection.sender()?);
        let call = call.gas(RESPOND_GAS);
        view!("respond", call)?;
        self.send("respond", call).await
    }

    /// Slashes for a challenge whose deadline passed.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `DeadlineNotPassed` or `ChallengeNotOpen`.
    pub async fn expire(&self, id: &ChallengeId) -> Result<Sent, ChainError> {
        self.send("expire", contract!(self, EpochProofs, epoch_proofs).expire(B256::from(id.0))).await
    }

    /// Pays the bond of an answered challenge to the operator, of an expired one to the challenger; to this account.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `BondNotYours` or `BondNotClaimable`.
    pub async fn claim_bond(&self, id: &ChallengeId) -> Result<Sent, ChainError> {
        self.send("claim bond", contract!(self, EpochProofs, epoch_proofs).claimBond(B256::from(id.0))).await
    }

    /// A challenge, or `None`.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn challenge_of(&self, id: &ChallengeId) -> Result<Option<Challenge>, ChainError> {
        let c = view!("challenge", contract!(self, EpochProofs, epoch_proofs).challengeOf(B256::from(id.0)))?;
        let status = match c.status {
            0 => return Ok(None),
            1 => ChallengeStatus::Open,
            2 => ChallengeStatus::Answered,
            3 => ChallengeStatus::Expired,
            4 => ChallengeStatus::Closed,
            _ => return Err(ChainError::OutOfRange { what: "challenge status" }),
        };
        Ok(Some(Challenge {
            id: *id,
            node: node_of(c.node),
            epoch: Epoch(c.epoch),
            db: (!c.db.is_zero()).then(|| db_of(c.db)),
            proof_index: c.proofIndex,
            inputs: [root_of("challenge root", c.root)?, FieldBytes::from_u64(c.cells), root_of("seed", c.seed)?],
            deadline: c.deadline,
            status,
            challenger: ours(c.challenger),
            bond: c.bond.to::<u128>(),
            stake: c.stake,
        }))
    }
}
