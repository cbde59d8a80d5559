//! The contracts behind [`Chain`], by way of `fluence-bindings`.
//!
//! Rule    a transaction is not trusted to have done what it should: its receipt is waited for, and state is read again.

use super::clusters::{Anchor, ClusterChain, Conflict};
use super::{
    Chain, ChainError, ChainInfo, Challenge, ChallengeId, ChallengeStatus, Debt, Owed, RegisteredNode, Subject,
};
use crate::config::ChainConfig;
use crate::identity;
use fluence_bindings as contracts;
use fluence_bindings::{Connection, Deployment};
use fluence_crypto::vote::{Vote, signature_eip2537, vote_key_eip2537};
use fluence_types::block::{Certificate, Members};
use fluence_types::shape::CircuitId;
use fluence_types::{Address, DatabaseId, Epoch, HoldingsRoot, NodeId};

/// A deployment on an Ethereum chain.
#[derive(Debug)]
pub struct Ethereum {
    chain: contracts::Chain,
    info: ChainInfo,
}

impl From<contracts::ChainError> for ChainError {
    fn from(e: contracts::ChainError) -> Self {
        match e {
            contracts::ChainError::Refused { act, name, detail } => {
                Self::Refused { act, why: format!("{name}: {detail}") }
            }
            // Someone was first: what follows is the same as after a refusal.
            contracts::ChainError::Failed { act, tx, block } => {
                Self::Refused { act, why: format!("transaction {tx} failed in block {block}") }
            }
            contracts::ChainError::Setup { .. } => Self::Setup(e.to_string()),
            other => Self::Rpc(other.to_string()),
        }
    }
}

impl Ethereum {
    /// Reads the deployment file and the operator's key, and checks that the contracts are there.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn connect(config: &ChainConfig) -> Result<Self, ChainError> {
        let deployment = Deployment::read(&config.deployment)?;
        let connection = match &config.operator_key {
            Some(path) => {
                let secret = identity::load_secret(path).map_err(|e| ChainError::Setup(e.to_string()))?;
                secret.expose(|key| Connection::new(&config.rpc_url.0, Some(key)))?
            }
            None => Connection::new(&config.rpc_url.0, None)?,
        };
        Self::new(contracts::Chain::open(connection, deployment).await?).await
    }

    /// Over a deployment that is open.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn new(chain: contracts::Chain) -> Result<Self, ChainError> {
        let d = chain.deployment();
        let CircuitId::Storage(shape) = d.storage else {
            return Err(ChainError::Setup(format!("the deployment's storage circuit is {}", d.storage)));
        };
        let info = ChainInfo {
            chain_id: d.chain_id,
            contract: d.epoch_proofs,
            start_block: d.start_block,
            epoch_blocks: d.params.epoch_blocks.max(1),
            window_blocks: d.params.window_blocks,
            response_blocks: d.params.response_blocks,
            proofs_per_epoch: u32::from(d.params.proofs_per_epoch),
            shape,
            storage_vk_hash: chain.vk_hash(&d.storage).await?,
            insecure_dev_keys: chain.insecure_dev_key(&d.storage).await?,
        };
        Ok(Self { chain, info })
    }

    fn id_of(&self, subject: Subject) -> Result<(u16, contracts::ChallengeId), ChainError> {
        let index = u16::try_from(subject.proof_index);
        let index = index.map_err(|_| ChainError::Setup(format!("proof index {}", subject.proof_index)))?;
        Ok((index, self.chain.challenge_id(&subject.node, subject.epoch, None, index)))
    }
}

fn ours(c: &contracts::Challenge) -> Challenge {
    let [root, cells, seed] = c.inputs;
    Challenge {
        id: ChallengeId(c.id.0),
        node: c.node,
        epoch: c.epoch,
        db: c.db,
        proof_index: u32::from(c.proof_index),
        status: match c.status {
            contracts::ChallengeStatus::Open => ChallengeStatus::Open,
            contracts::ChallengeStatus::Answered => ChallengeStatus::Answered,
            contracts::ChallengeStatus::Expired => ChallengeStatus::Expired,
            contracts::ChallengeStatus::Closed => ChallengeStatus::Closed,
            _ => ChallengeStatus::None,
        },
        deadline: c.deadline,
        challenger: c.challenger,
        root: HoldingsRoot::from_field(root),
        cells: cells.to_u64().unwrap_or_default(),
        seed,
    }
}

#[async_trait::async_trait]
impl Chain for Ethereum {
    fn info(&self) -> &ChainInfo {
        &self.info
    }

    fn clusters(&self) -> Option<&dyn ClusterChain> {
        Some(self)
    }

    fn operator(&self) -> Option<Address> {
        self.chain.connection().account()
    }

    async fn head(&self) -> Result<u64, ChainError> {
        Ok(self.chain.connection().block_number().await?)
    }

    async fn beacon(&self, epoch: Epoch) -> Result<Option<[u8; 32]>, ChainError> {
        match self.chain.beacon(epoch).await {
            Ok(beacon) => Ok(Some(beacon)),
            Err(e) if matches!(e.refusal(), Some("BeaconNotYet" | "BeaconLost")) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn debt(&self, node: NodeId, epoch: Epoch) -> Result<Option<Debt>, ChainError> {
        let owed = self.chain.owed(&node, epoch).await?;
        let owed: Vec<Owed> = owed.iter().map(|o| Owed { db: o.db, root: o.root, cells: o.cells }).collect();
        Ok((!owed.is_empty()).then_some(Debt { owed }))
    }

    async fn nodes(&self) -> Result<Vec<RegisteredNode>, ChainError> {
        let mut nodes = Vec::new();
        for event in self.chain.registered_events(0).await? {
            let Some(record) = self.chain.node(&event.node).await? else { continue };
            nodes.push(RegisteredNode {
                node: record.node,
                operator: record.operator,
                left: record.status == contracts::NodeStatus::Left,
                multiaddr: String::from_utf8(record.multiaddr).ok().filter(|a| a.starts_with('/')),
            });
        }
        Ok(nodes)
    }

    async fn challenges(&self, node: NodeId, from: u64) -> Result<Vec<Challenge>, ChainError> {
        let mut found = Vec::new();
        for event in self.chain.challenged_events(from).await?.into_iter().filter(|e| e.node == node) {
            if let Some(challenge) = self.chain.challenge_of(&event.id).await? {
                found.push(ours(&challenge));
            }
        }
        Ok(found)
    }

    async fn challenge_of(&self, subject: Subject) -> Result<Option<Challenge>, ChainError> {
        let (_, id) = self.id_of(subject)?;
        Ok(self.chain.challenge_of(&id).await?.as_ref().map(ours))
    }

    async fn challenge(&self, subject: Subject, salt: [u8; 32]) -> Result<(), ChainError> {
        let (index, _) = self.id_of(subject)?;
        self.chain.challenge(&subject.node, subject.epoch, None, index, salt).await?;
        Ok(())
    }

    async fn respond(&self, id: ChallengeId, proof: &[u8; 512]) -> Result<(), ChainError> {
        self.chain.respond(&contracts::ChallengeId(id.0), proof).await?;
        Ok(())
    }

    async fn expire(&self, id: ChallengeId) -> Result<u128, ChainError> {
        let sent = self.chain.expire(&contracts::ChallengeId(id.0)).await?;
        let events = self.chain.expired_events(sent.block).await?;
        Ok(events.iter().find(|e| e.id.0 == id.0).map_or(0, |e| e.slashed))
    }

    async fn claim_bond(&self, id: ChallengeId) -> Result<(), ChainError> {
        self.chain.claim_bond(&contracts::ChallengeId(id.0)).await?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl ClusterChain for Ethereum {
    async fn anchor(&self, owner: Address, db: DatabaseId) -> Result<Option<Anchor>, ChainError> {
        let Some(status) = self.chain.cluster_status(&owner, &db).await? else { return Ok(None) };
        Ok(Some(Anchor { height: status.height, accepted_at: status.accepted_at, committee: status.committee }))
    }

    async fn submit(&self, owner: Address, certificate: &Certificate, members: &Members) -> Result<(), ChainError> {
        let malformed = |e: fluence_crypto::sign::SignError| ChainError::Setup(e.to_string());
        let mut committee = Vec::with_capacity(members.len());
        for member in members.iter() {
            let key = vote_key_eip2537(member).map_err(malformed)?;
            committee.push(contracts::CommitteeMember { node: member.node, key });
        }
        let signature = signature_eip2537(&certificate.signature).map_err(malformed)?;
        self.chain.submit_certificate(&owner, certificate, &signature, &committee).await?;
        Ok(())
    }

    async fn vote_key(&self, node: NodeId) -> Result<Option<[u8; 32]>, ChainError> {
        Ok(self.chain.vote_key(&node).await?)
    }

    async fn stake(&self, node: NodeId) -> Result<u128, ChainError> {
        Ok(self.chain.collateral(&node).await?.total())
    }

    async fn proven(&self, c: &Conflict) -> Result<bool, ChainError> {
        Ok(self.chain.equivocation_proven(&c.node, &c.db, c.epoch, c.view).await?)
    }

    async fn accuse(&self, c: &Conflict, salt: [u8; 32]) -> Result<(), ChainError> {
        let vote = |(vote, signature): &(Vote, Box<[u8; 128]>)| {
            let vote = match *vote {
                Vote::Notarize { parent_view, block } => contracts::VoteFor::Notarize { parent_view, block },
                Vote::Nullify => contracts::VoteFor::Nullify,
                Vote::Finalize { parent_view, block } => contracts::VoteFor::Finalize { parent_view, block },
            };
            (vote, **signature)
        };
        let evidence = contracts::Evidence {
            node: c.node,
            key: *c.key,
            db: c.db,
            consensus_epoch: c.epoch,
            view: c.view,
            votes: [vote(&c.votes[0]), vote(&c.votes[1])],
        };
        self.chain.accuse(&evidence, salt).await?;
        Ok(())
    }
}
