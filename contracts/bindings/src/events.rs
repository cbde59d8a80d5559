//! Events, as the chain tells what happened: balances before and after a slash are read from here, never computed.

use crate::abi::{Collateral, EpochProofs, NodeRegistry};
use crate::chain::{Chain, ChallengeId, db_of, flu_of, node_of, ours, root_of};
use crate::error::ChainError;
use fluence_types::{Address, DatabaseId, DbRoot, Epoch, FieldBytes, Height, NodeId};

/// A node was registered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Registered {
    /// The node.
    pub node: NodeId,
    /// Its operator.
    pub operator: Address,
    /// Its address as it was registered; `NodeRecord` has the current one.
    pub multiaddr: Vec<u8>,
    /// Where it happened.
    pub block: u64,
}

/// A database's root was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RootRegistered {
    /// The node.
    pub node: NodeId,
    /// The database.
    pub db: DatabaseId,
    /// Its owner.
    pub owner: Address,
    /// The root.
    pub root: DbRoot,
    /// Cells under it.
    pub cells: u64,
    /// Its height.
    pub height: Height,
    /// First epoch in which it is owed.
    pub from: Epoch,
    /// Last epoch in which it is owed.
    pub until: Epoch,
    /// Where it happened.
    pub block: u64,
}

/// Collateral came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Deposited {
    /// The node.
    pub node: NodeId,
    /// Who paid.
    pub from: Address,
    /// In 1e-18 FLU.
    pub amount: u128,
    /// Where it happened.
    pub block: u64,
}

/// A challenge was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Challenged {
    /// The challenge.
    pub id: ChallengeId,
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The database, or none for the holdings.
    pub db: Option<DatabaseId>,
    /// Which proof of the epoch.
    pub proof_index: u16,
    /// Who challenged.
    pub challenger: Address,
    /// Last block for an answer.
    pub deadline: u64,
    /// First public input.
    pub root: FieldBytes,
    /// Second public input.
    pub cells: u64,
    /// Third public input.
    pub seed: FieldBytes,
    /// Where it happened.
    pub block: u64,
}

/// A challenge was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Answered {
    /// The challenge.
    pub id: ChallengeId,
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// Who posted the proof.
    pub responder: Address,
    /// Where it happened.
    pub block: u64,
}

/// A challenge ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Expired {
    /// The challenge.
    pub id: ChallengeId,
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The database, or none for the holdings.
    pub db: Option<DatabaseId>,
    /// Slashed by it, in 1e-18 FLU; 0 where this debt was slashed before.
    pub slashed: u128,
    /// Where it happened.
    pub block: u64,
}

/// A node was slashed; all amounts in 1e-18 FLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Slashed {
    /// The node.
    pub node: NodeId,
    /// Who challenged.
    pub challenger: Address,
    /// Burned: at least half.
    pub burned: u128,
    /// To owners of the databases: at most 30 %.
    pub to_harmed: u128,
    /// To the challenger: at most 20 %.
    pub to_challenger: u128,
    /// All collateral of the node before.
    pub before: u128,
    /// All collateral of the node after.
    pub after: u128,
    /// Where it happened.
    pub block: u64,
}

/// Someone may withdraw a share of a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Credited {
    /// Who.
    pub account: Address,
    /// The slashed node.
    pub node: NodeId,
    /// In 1e-18 FLU.
    pub amount: u128,
    /// Where it happened.
    pub block: u64,
}

/// Reads all events of one kind from a block on, each turned into ours.
macro_rules! query {
    ($chain:expr, $act:literal, $contract:ident, $at:ident, $filter:ident, $from:expr, |$e:ident, $block:ident| $make:expr) => {{
        let address = alloy::primitives::Address::from($chain.deployment().$at.to_bytes());
        let contract = $contract::new(address, $chain.connection().provider());
        let from = $from.max($chain.deployment().first_block);
        let logs = contract.$filter().from_block(from).query().await;
        let logs = logs.map_err(|e| ChainError::from_contract($act, e))?;
        logs.into_iter()
            .map(|($e, log)| {
                let $block = log.block_number.ok_or_else(|| ChainError::rpc($act, "a log without a block"))?;
                Ok($make)
            })
            .collect::<Result<Vec<_>, ChainError>>()
    }};
}

pub(crate) use query;

fn db(db: alloy::primitives::B128) -> Option<DatabaseId> {
    (!db.is_zero()).then(|| db_of(db))
}

impl Chain {
    /// Nodes registered from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn registered_events(&self, from_block: u64) -> Result<Vec<Registered>, ChainError> {
        query!(self, "registered", NodeRegistry, registry, Registered_filter, from_block, |e, block| Registered {
            node: node_of(e.node),
            operator: ours(e.operator),
            multiaddr: e.multiaddr.to_vec(),
            block,
        })
    }

    /// Roots registered from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn root_events(&self, from_block: u64) -> Result<Vec<RootRegistered>, ChainError> {
        query!(self, "roots", EpochProofs, epoch_proofs, RootRegistered_filter, from_block, |e, block| RootRegistered {
            node: node_of(e.node),
            db: db_of(e.db),
            owner: ours(e.owner),
            root: DbRoot::from_field(root_of("database root", e.root)?),
            cells: e.cells,
            height: Height(e.height),
            from: Epoch(e.fromEpoch),
            until: Epoch(e.untilEpoch),
            block,
        })
    }

    /// Deposits from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn deposited_events(&self, from_block: u64) -> Result<Vec<Deposited>, ChainError> {
        query!(self, "deposits", Collateral, collateral, Deposited_filter, from_block, |e, block| Deposited {
            node: node_of(e.node),
            from: ours(e.from),
            amount: flu_of("deposit", e.amount)?,
            block,
        })
    }

    /// Challenges opened from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn challenged_events(&self, from_block: u64) -> Result<Vec<Challenged>, ChainError> {
        query!(self, "challenges", EpochProofs, epoch_proofs, Challenged_filter, from_block, |e, block| Challenged {
            id: ChallengeId(e.id.0),
            node: node_of(e.node),
            epoch: Epoch(e.epoch),
            db: db(e.db),
            proof_index: e.proofIndex,
            challenger: ours(e.challenger),
            deadline: e.deadline,
            root: root_of("challenge root", e.root)?,
            cells: e.cells,
            seed: root_of("seed", e.seed)?,
            block,
        })
    }

    /// Answers from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn answered_events(&self, from_block: u64) -> Result<Vec<Answered>, ChainError> {
        query!(self, "answers", EpochProofs, epoch_proofs, Answered_filter, from_block, |e, block| Answered {
            id: ChallengeId(e.id.0),
            node: node_of(e.node),
            epoch: Epoch(e.epoch),
            responder: ours(e.responder),
            block,
        })
    }

    /// Challenges that ran out from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn expired_events(&self, from_block: u64) -> Result<Vec<Expired>, ChainError> {
        query!(self, "expiries", EpochProofs, epoch_proofs, Expired_filter, from_block, |e, block| Expired {
            id: ChallengeId(e.id.0),
            node: node_of(e.node),
            epoch: Epoch(e.epoch),
            db: db(e.db),
            slashed: flu_of("slash", e.slashed)?,
            block,
        })
    }

    /// Slashes from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn slashed_events(&self, from_block: u64) -> Result<Vec<Slashed>, ChainError> {
        query!(self, "slashes", Collateral, collateral, Slashed_filter, from_block, |e, block| Slashed {
            node: node_of(e.node),
            challenger: ours(e.challenger),
            burned: flu_of("burned", e.burned)?,
            to_harmed: flu_of("harmed share", e.toHarmed)?,
            to_challenger: flu_of("challenger share", e.toChallenger)?,
            before: flu_of("collateral", e.before)?,
            after: flu_of("collateral", e.left)?,
            block,
        })
    }

    /// Credits from `from_block` on.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn credited_events(&self, from_block: u64) -> Result<Vec<Credited>, ChainError> {
        query!(self, "credits", Collateral, collateral, Credited_filter, from_block, |e, block| Credited {
            account: ours(e.account),
            node: node_of(e.node),
            amount: flu_of("credit", e.amount)?,
            block,
        })
    }
}
