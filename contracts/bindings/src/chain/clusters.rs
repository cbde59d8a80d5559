//! Clusters on chain: opening one, its certified checkpoints, vote keys, and evidence of conflicting votes.
//!
//! Rule    points are given as EIP-2537 writes them (`crypto::vote::{vote_key_eip2537, signature_eip2537}`): no curve is known here. A
//!         certificate or evidence is simulated first, so that a refused one costs nothing.

use super::{Chain, b128, b256, db_of, flu_of, node_of, ours, root_of, theirs};
use crate::abi::{Checkpoints, Equivocation, NodeRegistry, checkpoints, equivocation};
use crate::connection::Sent;
use crate::error::ChainError;
use crate::events::query;
use alloy::primitives::{B256, Bytes};
use fluence_types::block::Certificate;
use fluence_types::codec::encode;
use fluence_types::{Address, BlockHash, DatabaseId, DbRoot, Height, NodeId};

/// A vote key, uncompressed: x.c0, x.c1, y.c0, y.c1.
pub type KeyPoint = [u8; 256];
/// A vote, several of them together, or a proof of possession, uncompressed: x, y.
pub type SignaturePoint = [u8; 128];

/// Gas limits, never estimated (see `RESPOND_GAS`): before the members, and for each.
const SUBMIT_GAS: u64 = 250_000;
const SUBMIT_GAS_PER_MEMBER: u64 = 10_000;
const OPEN_GAS: u64 = 250_000;
const OPEN_GAS_PER_MEMBER: u64 = 150_000;
const VOTE_KEY_GAS: u64 = 300_000;
const ACCUSE_GAS: u64 = 500_000;

/// A member of a committee as the chain takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitteeMember {
    /// The node.
    pub node: NodeId,
    /// Its vote key.
    pub key: KeyPoint,
}

/// What the last certificate of a cluster said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CertifiedCheckpoint {
    /// The block that was finalized.
    pub height: Height,
    /// Its consensus epoch.
    pub consensus_epoch: u64,
    /// Its hash.
    pub block: BlockHash,
    /// The height whose root it certifies.
    pub executed_height: Height,
    /// That root.
    pub executed_root: DbRoot,
    /// The block's time as its proposer said, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The Ethereum block in which it was accepted.
    pub accepted_at: u64,
}

/// How far the chain is with a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ClusterOnChain {
    /// The last block whose certificate was accepted; 0 before the first.
    pub height: Height,
    /// The Ethereum block of that, or of the opening.
    pub accepted_at: u64,
    /// Hash of the committee that may certify next: `crypto::vote::members_hash`.
    #[serde(with = "hex::serde")]
    pub committee: [u8; 32],
}

/// What a vote is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteFor {
    /// A proposal that it checked.
    Notarize {
        /// The view of the proposal's parent.
        parent_view: u64,
        /// The proposal.
        block: BlockHash,
    },
    /// To skip the view.
    Nullify,
    /// A proposal that a quorum notarized.
    Finalize {
        /// The view of the proposal's parent.
        parent_view: u64,
        /// The proposal.
        block: BlockHash,
    },
}

/// Two votes by one key in one view, of which an honest member signs one at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The node.
    pub node: NodeId,
    /// Its vote key, as the registry has it.
    pub key: KeyPoint,
    /// The cluster's database.
    pub db: DatabaseId,
    /// The consensus epoch.
    pub consensus_epoch: u64,
    /// The view.
    pub view: u64,
    /// The votes.
    pub votes: [(VoteFor, SignaturePoint); 2],
}

/// A certificate was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Certified {
    /// The cluster's owner.
    pub owner: Address,
    /// Its database.
    pub db: DatabaseId,
    /// The block that was finalized.
    pub height: Height,
    /// Its hash.
    pub header: BlockHash,
    /// The height whose root it certifies.
    pub executed_height: Height,
    /// That root.
    pub executed_root: DbRoot,
    /// Where it happened.
    pub block: u64,
}

/// A committee was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HandedOver {
    /// The cluster's owner.
    pub owner: Address,
    /// Its database.
    pub db: DatabaseId,
    /// The first consensus epoch of the new committee.
    pub consensus_epoch: u64,
    /// Its hash: `crypto::vote::members_hash`.
    #[serde(with = "hex::serde")]
    pub committee: [u8; 32],
    /// Where it happened.
    pub block: u64,
}

/// Conflicting votes were proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EquivocationProven {
    /// Who signed both.
    pub node: NodeId,
    /// In which cluster.
    pub db: DatabaseId,
    /// In which consensus epoch.
    pub consensus_epoch: u64,
    /// In which view.
    pub view: u64,
    /// Who showed it.
    pub accuser: Address,
    /// Slashed by it, in 1e-18 FLU.
    pub slashed: u128,
    /// Where it happened.
    pub block: u64,
}

impl Chain {
    /// Opens this account's cluster of `db` with its first committee: members in the order of their ids, each with its proof that it has
    /// its key.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `AlreadyOpen`, `MemberCount`, `MembersOutOfOrder`, `PossessionMismatch`, or `PrecompileFailed` for
    /// a point that is none.
    pub async fn open_cluster(
        &self,
        db: &DatabaseId,
        members: &[(CommitteeMember, SignaturePoint)],
    ) -> Result<Sent, ChainError> {
        let possessions: Vec<u8> = members.iter().flat_map(|(_, possession)| *possession).collect();
        let committee = committee(members.iter().map(|(member, _)| member));
        let contract = contract!(self, Checkpoints, checkpoints);
        let gas = OPEN_GAS + OPEN_GAS_PER_MEMBER * members.len() as u64;
        let call = contract.open(b128(db), committee, possessions.into()).from(self.connection.sender()?).gas(gas);
        view!("open cluster", call)?;
        self.send("open cluster", call).await
    }

    /// Posts a certificate of the cluster of `owner`. `signature` is the certificate's, uncompressed; `members` are the committee that
    /// the chain knows by its hash.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `HeightNotAbove` where a later one was posted, with `CommitteeMismatch`, `QuorumMissing`,
    /// `SignatureMismatch` and more.
    pub async fn submit_certificate(
        &self,
        owner: &Address,
        certificate: &Certificate,
        signature: &SignaturePoint,
        members: &[CommitteeMember],
    ) -> Result<Sent, ChainError> {
        let theirs_ = checkpoints::ICheckpoints::Certificate {
            header: encode(&certificate.header).into(),
            view_: certificate.view,
            parentView: certificate.parent_view,
            signers: certificate.signers,
            signature: Bytes::copy_from_slice(signature),
        };
        let contract = contract!(self, Checkpoints, checkpoints);
        let gas = SUBMIT_GAS + SUBMIT_GAS_PER_MEMBER * members.len() as u64;
        let call = contract.submit(theirs(*owner), theirs_, committee(members.iter()));
        let call = call.from(self.connection.sender()?).gas(gas);
        view!("submit certificate", call)?;
        self.send("submit certificate", call).await
    }

    /// The last certified checkpoint of a cluster, or `None` where there is no certificate yet.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `ClusterUnknown` where nobody opened it.
    pub async fn latest_checkpoint(
        &self,
        owner: &Address,
        db: &DatabaseId,
    ) -> Result<Option<CertifiedCheckpoint>, ChainError> {
        let c = view!("latest checkpoint", contract!(self, Checkpoints, checkpoints).latest(theirs(*owner), b128(db)))?;
        if c.height == 0 {
            return Ok(None);
        }
        Ok(Some(CertifiedCheckpoint {
            height: Height(c.height),
            consensus_epoch: c.epoch,
            block: BlockHash::from_bytes(c.blockHash.0),
            executed_height: Height(c.executedHeight),
            executed_root: DbRoot::from_field(root_of("executed root", c.executedRoot)?),
            timestamp_ms: c.timestampMs,
            accepted_at: c.acceptedAt,
        }))
    }

    /// How far the chain is with a cluster, read at one block; `None` where nobody opened it.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn cluster_status(&self, owner: &Address, db: &DatabaseId) -> Result<Option<ClusterOnChain>, ChainError> {
        let contract = contract!(self, Checkpoints, checkpoints);
        match view!("cluster", contract.statusOf(theirs(*owner), b128(db))) {
            Ok(s) => Ok(Some(ClusterOnChain {
                height: Height(s.height),
                accepted_at: s.acceptedAt,
                committee: s.committee.0,
            })),
            Err(e) if e.refusal() == Some("ClusterUnknown") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Hash of the committee that may certify next.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `ClusterUnknown` where nobody opened it.
    pub async fn committee_of(&self, owner: &Address, db: &DatabaseId) -> Result<[u8; 32], ChainError> {
        Ok(view!("committee", contract!(self, Checkpoints, checkpoints).committeeOf(theirs(*owner), b128(db)))?.0)
    }

    /// Names the key with which a node votes, for good; by its operator, who answers for its votes with the node's collateral.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NotOperator`, `VoteKeyExists` or `PossessionMismatch`.
    pub async fn register_vote_key(
        &self,
        node: &NodeId,
        key: &KeyPoint,
        possession: &SignaturePoint,
    ) -> Result<Sent, ChainError> {
        let (key, possession) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(possession));
        let contract = contract!(self, NodeRegistry, registry);
        let call = contract.registerVoteKey(b256(node), key, possession);
        let call = call.from(self.connection.sender()?).gas(VOTE_KEY_GAS);
        view!("register vote key", call)?;
        self.send("register vote key", call).await
    }

    /// Keccak-256 of a node's vote key, or `None` where its operator named none.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn vote_key(&self, node: &NodeId) -> Result<Option<[u8; 32]>, ChainError> {
        let hash = view!("vote key", contract!(self, NodeRegistry, registry).voteKeyOf(b256(node)))?;
        Ok((!hash.is_zero()).then_some(hash.0))
    }

    /// Commits to evidence and shows it in a later block: all of the node's collateral is slashed, a fifth of it credited to this
    /// account. `salt` is random: it hides the evidence until the second transaction.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `VoteKeyUnknown`, `NoConflict`, `SignatureMismatch` or `AlreadyProven`.
    pub async fn accuse(&self, evidence: &Evidence, salt: [u8; 32]) -> Result<Sent, ChainError> {
        let contract = contract!(self, Equivocation, equivocation);
        let (sender, salt) = (self.connection.sender()?, B256::from(salt));
        let evidence = equivocation::IEquivocation::Evidence::from(evidence);
        let commitment = view!("accuse", contract.commitmentOf(evidence.clone(), sender, salt))?;
        match self.send("commit to an accusation", contract.commitAccusation(commitment)).await {
            // Committed before, by us in an earlier try or by who saw the transaction; it serves this account either way.
            Err(e) if e.refusal() == Some("CommitmentExists") => {}
            other => drop(other?),
        }
        // Not simulated: that may run in the commitment's own block, where the accusation is still too early.
        self.send("accuse", contract.accuse(evidence, salt).gas(ACCUSE_GAS)).await
    }

    /// Whether a node was slashed for a view already.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn equivocation_proven(
        &self,
        node: &NodeId,
        db: &DatabaseId,
        consensus_epoch: u64,
        view: u64,
    ) -> Result<bool, ChainError> {
        let contract = contract!(self, Equivocation, equivocation);
        view!("proven", contract.proven(b256(node), b128(db), consensus_epoch, view))
    }

    /// Certificates accepted from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn certified_events(&self, from_block: u64) -> Result<Vec<Certified>, ChainError> {
        query!(self, "certified", Checkpoints, checkpoints, Certified_filter, from_block, |e, block| Certified {
            owner: ours(e.owner),
            db: db_of(e.db),
            height: Height(e.height),
            header: BlockHash::from_bytes(e.blockHash.0),
            executed_height: Height(e.executedHeight),
            executed_root: DbRoot::from_field(root_of("executed root", e.executedRoot)?),
            block,
        })
    }

    /// Committees replaced from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn handed_over_events(&self, from_block: u64) -> Result<Vec<HandedOver>, ChainError> {
        query!(self, "handed over", Checkpoints, checkpoints, HandedOver_filter, from_block, |e, block| HandedOver {
            owner: ours(e.owner),
            db: db_of(e.db),
            consensus_epoch: e.epoch,
            committee: e.committee.0,
            block,
        })
    }

    /// Equivocations proven from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn equivocation_events(&self, from_block: u64) -> Result<Vec<EquivocationProven>, ChainError> {
        query!(self, "equivocations", Equivocation, equivocation, Proven_filter, from_block, |e, block| {
            EquivocationProven {
                node: node_of(e.node),
                db: db_of(e.db),
                consensus_epoch: e.epoch,
                view: e.view_,
                accuser: ours(e.accuser),
                slashed: flu_of("slash", e.slashed)?,
                block,
            }
        })
    }
}

/// Members as they travel: node id and vote key, one after the other.
fn committee<'a>(members: impl Iterator<Item = &'a CommitteeMember>) -> Bytes {
    let mut out = Vec::new();
    for member in members {
        out.extend_from_slice(member.node.as_bytes());
        out.extend_from_slice(&member.key);
    }
    out.into()
}

impl From<&Evidence> for equivocation::IEquivocation::Evidence {
    fn from(e: &Evidence) -> Self {
        let vote = |(vote, signature): &(VoteFor, SignaturePoint)| {
            // The numbers of `BlsVotes.Kind`.
            let (kind, parent_view, block) = match vote {
                VoteFor::Notarize { parent_view, block } => (0, *parent_view, *block),
                VoteFor::Nullify => (1, 0, BlockHash::default()),
                VoteFor::Finalize { parent_view, block } => (2, *parent_view, *block),
            };
            equivocation::IEquivocation::Vote {
                kind,
                parentView: parent_view,
                block_: B256::from(block.to_bytes()),
                signature: Bytes::copy_from_slice(signature),
            }
        };
        Self {
            node: b256(&e.node),
            key: Bytes::copy_from_slice(&e.key),
            db: b128(&e.db),
            epoch: e.consensus_epoch,
            view_: e.view,
            first: vote(&e.votes[0]),
            second: vote(&e.votes[1]),
        }
    }
}
