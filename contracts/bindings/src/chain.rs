//! One deployment, read and written: a function per contract call, in the words of `types`.

use crate::abi::EpochProofs;
use crate::connection::{Connection, Sent};
use crate::deploy::Deployment;
use crate::error::ChainError;
use crate::registration::Domain;
use alloy::contract::{CallBuilder, CallDecoder};
use alloy::network::Ethereum;
use alloy::primitives::{B128, B256, U256};
use fluence_types::{Address, DatabaseId, FieldBytes, NodeId};

/// One deployment.
#[derive(Clone, Debug)]
pub struct Chain {
    connection: Connection,
    deployment: Deployment,
}

macro_rules! contract {
    ($self:ident, $name:ident, $at:ident) => {
        $name::new($crate::chain::theirs($self.deployment.$at), $self.connection.provider())
    };
}

macro_rules! view {
    ($act:literal, $call:expr) => {
        $call.call().await.map_err(|e| ChainError::from_contract($act, e))
    };
}

// Below the macros, which they use.
pub(crate) mod clusters;
mod nodes;
pub(crate) mod placement;
mod proofs;
mod records;
mod verifiers;

pub use records::{
    Challenge, ChallengeId, ChallengeStatus, CollateralBalance, NodeRecord, NodeStatus, Owed, StakedVersion,
};

impl Chain {
    /// Opens a deployment and checks that the chain is the one it names and that the contracts are there.
    ///
    /// # Errors
    /// [`ChainError::Setup`] for another chain or an address without our contract; [`ChainError::Rpc`].
    pub async fn open(connection: Connection, deployment: Deployment) -> Result<Self, ChainError> {
        let chain_id = connection.chain_id().await?;
        if chain_id != deployment.chain_id {
            let why = format!("deployed on chain {}, the RPC is of chain {chain_id}", deployment.chain_id);
            return Err(ChainError::Setup { what: "deployment", why });
        }
        let chain = Self { connection, deployment };
        let start = contract!(chain, EpochProofs, epoch_proofs).startBlock().call().await;
        match start {
            Ok(start) if start == U256::from(chain.deployment.start_block) => Ok(chain),
            Ok(start) => Err(ChainError::Setup { what: "deployment", why: format!("EpochProofs started at {start}") }),
            Err(e) => Err(match ChainError::from_contract("open", e) {
                rpc @ ChainError::Rpc { .. } => rpc,
                other => ChainError::Setup { what: "deployment", why: other.to_string() },
            }),
        }
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where the contracts are.
    #[must_use]
    pub const fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The EIP-712 domain that registrations are signed in.
    #[must_use]
    pub const fn domain(&self) -> Domain {
        Domain { chain_id: self.deployment.chain_id, contract: self.deployment.epoch_proofs }
    }

    async fn send<P: alloy::providers::Provider, D: CallDecoder>(
        &self,
        act: &'static str,
        call: CallBuilder<P, D, Ethereum>,
    ) -> Result<Sent, ChainError> {
        self.connection.send(act, call).await.map(Sent::from)
    }
}

fn b256(node: &NodeId) -> B256 {
    B256::from(node.to_bytes())
}

fn b128(db: &DatabaseId) -> B128 {
    B128::from(db.to_bytes())
}

pub(crate) fn theirs(a: Address) -> alloy::primitives::Address {
    a.to_bytes().into()
}

pub(crate) fn ours(a: alloy::primitives::Address) -> Address {
    Address::from_bytes(a.into_array())
}

pub(crate) fn node_of(node: B256) -> NodeId {
    NodeId::from_bytes(node.0)
}

pub(crate) fn db_of(db: B128) -> DatabaseId {
    DatabaseId::from_bytes(db.0)
}

pub(crate) fn root_of(what: &'static str, word: B256) -> Result<FieldBytes, ChainError> {
    FieldBytes::from_canonical(word.0).map_err(|_| ChainError::OutOfRange { what })
}

pub(crate) fn flu_of(what: &'static str, amount: U256) -> Result<u128, ChainError> {
    u128::try_from(amount).map_err(|_| ChainError::OutOfRange { what })
}
