//! Nodes, their collateral, and FLU.

use super::{Chain, CollateralBalance, NodeRecord, NodeStatus, b256, flu_of, ours, theirs};
use crate::abi::{Collateral, FluToken, NodeRegistry};
use crate::connection::Sent;
use crate::error::ChainError;
use alloy::primitives::{Bytes, U256};
use fluence_types::{Address, NodeId};

impl Chain {
    /// Registers `node` with this account as operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NodeExists`, `NodeIdZero` or `MultiaddrLength`.
    pub async fn register_node(&self, node: &NodeId, multiaddr: &[u8]) -> Result<Sent, ChainError> {
        let registry = contract!(self, NodeRegistry, registry);
        self.send("register node", registry.register(b256(node), Bytes::copy_from_slice(multiaddr))).await
    }

    /// Replaces a node's address; by its operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NotOperator`, `NodeUnknown` or `MultiaddrLength`.
    pub async fn move_node(&self, node: &NodeId, multiaddr: &[u8]) -> Result<Sent, ChainError> {
        let registry = contract!(self, NodeRegistry, registry);
        self.send("move node", registry.r#move(b256(node), Bytes::copy_from_slice(multiaddr))).await
    }

    /// A node's record, or `None` where it is not registered.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn node(&self, node: &NodeId) -> Result<Option<NodeRecord>, ChainError> {
        let record = view!("node", contract!(self, NodeRegistry, registry).nodeOf(b256(node)))?;
        let status = match record.status {
            0 => return Ok(None),
            1 => NodeStatus::Active,
            2 => NodeStatus::Suspended,
            3 => NodeStatus::Left,
            _ => return Err(ChainError::OutOfRange { what: "node status" }),
        };
        let multiaddr = record.multiaddr.to_vec();
        Ok(Some(NodeRecord { node: *node, operator: ours(record.operator), status, multiaddr }))
    }

    /// Adds this account's FLU to a node's free collateral; approves first where needed.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NodeUnknown`, `AmountZero` or `ERC20InsufficientBalance`.
    pub async fn deposit(&self, node: &NodeId, amount: u128) -> Result<Sent, ChainError> {
        let (token, collateral) = (contract!(self, FluToken, token), contract!(self, Collateral, collateral));
        let amount = U256::from(amount);
        let spender = theirs(self.deployment.collateral);
        let allowed = view!("allowance", token.allowance(self.connection.sender()?, spender))?;
        if allowed < amount {
            self.send("approve", token.approve(spender, amount)).await?;
        }
        self.send("deposit", collateral.deposit(b256(node), amount)).await
    }

    /// A node's collateral.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn collateral(&self, node: &NodeId) -> Result<CollateralBalance, ChainError> {
        let b = view!("collateral", contract!(self, Collateral, collateral).balanceOf(b256(node)))?;
        Ok(CollateralBalance { free: b.free, locked: b.locked, thawing: b.thawing, thawed_at: b.thawedAt })
    }

    /// Starts the way out for free collateral; by the operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NotOperator` or `NotEnoughFree`.
    pub async fn thaw(&self, node: &NodeId, amount: u128) -> Result<Sent, ChainError> {
        let collateral = contract!(self, Collateral, collateral);
        self.send("thaw", collateral.thaw(b256(node), U256::from(amount))).await
    }

    /// Pays out what has thawed; by the operator.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NotThawed` or `NothingToWithdraw`.
    pub async fn withdraw(&self, node: &NodeId) -> Result<Sent, ChainError> {
        self.send("withdraw", contract!(self, Collateral, collateral).withdraw(b256(node))).await
    }

    /// FLU that slashes credited to an account and that it may withdraw.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn credit(&self, account: &Address) -> Result<u128, ChainError> {
        flu_of("credit", view!("credit", contract!(self, Collateral, collateral).creditOf(theirs(*account)))?)
    }

    /// Pays this account what slashes credited to it.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `NothingToWithdraw`.
    pub async fn withdraw_credit(&self) -> Result<Sent, ChainError> {
        self.send("withdraw credit", contract!(self, Collateral, collateral).withdrawCredit()).await
    }

    /// An account's FLU.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn flu_balance(&self, account: &Address) -> Result<u128, ChainError> {
        flu_of("balance", view!("balance", contract!(self, FluToken, token).balanceOf(theirs(*account)))?)
    }

    /// All FLU there is: the cap less what was burned.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn flu_supply(&self) -> Result<u128, ChainError> {
        flu_of("supply", view!("supply", contract!(self, FluToken, token).totalSupply())?)
    }

    /// Sends FLU of this account.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `ERC20InsufficientBalance`.
    pub async fn transfer_flu(&self, to: &Address, amount: u128) -> Result<Sent, ChainError> {
        let token = contract!(self, FluToken, token);
        self.send("transfer", token.transfer(theirs(*to), U256::from(amount))).await
    }
}
