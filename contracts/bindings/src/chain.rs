//! One deployment, read and written: a function per contract call, in the words of `types`.
//!
//! Rule    a write waits for its receipt and says what it cost; a revert comes back as the contract's error by name.

use crate::Provider;
use crate::abi::{Collateral, EpochProofs, FluToken, Groth16Verifier, NodeRegistry};
use crate::deploy::Deployment;
use crate::error::ChainError;
use crate::registration::{Domain, Registration};
use alloy::contract::{CallBuilder, CallDecoder};
use alloy::network::{Ethereum, EthereumWallet};
use alloy::primitives::{B128, B256, Bytes, U256, keccak256};
use alloy::providers::{Provider as _, ProviderBuilder};
use alloy::rpc::client::RpcClient;
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::local::PrivateKeySigner;
use fluence_types::op::OwnerSignature;
use fluence_types::shape::CircuitId;
use fluence_types::statement::StorageSeed;
use fluence_types::{Address, DatabaseId, DbRoot, Epoch, FieldBytes, Height, HoldingsRoot, NodeId};
use futures::lock::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Gas limit of a response: `EpochProofs.RESPONSE_GAS` and room above it. Never estimated: an estimator searches for the least gas
/// at which a call does not revert, and a starved precompile reverts.
const RESPOND_GAS: u64 = 500_000;
/// Gas of a challenge before its databases, and for each.
const CHALLENGE_GAS: u64 = 700_000;
const CHALLENGE_GAS_PER_DATABASE: u64 = 60_000;
/// How often receipts are asked for on a chain of this machine.
const LOCAL_POLL: Duration = Duration::from_millis(20);

/// A chain, and the account that sends to it. Clones share the account's place in the queue.
#[derive(Clone, Debug)]
pub struct Connection {
    provider: Provider,
    account: Option<alloy::primitives::Address>,
    /// Held from asking for a nonce until the node has the transaction, so that no two take the same one.
    sending: Arc<Mutex<()>>,
}

impl Connection {
    /// Connects lazily: nothing is asked yet. With a key, transactions are sent by its account.
    ///
    /// # Errors
    /// [`ChainError::Setup`] for a URL or a key that cannot be one.
    pub fn new(rpc_url: &str, key: Option<&[u8; 32]>) -> Result<Self, ChainError> {
        let account = key.map(signer).transpose()?.map(|s| s.address());
        Ok(Self { provider: connect_provider(rpc_url, key)?, account, sending: Arc::default() })
    }

    /// The account that sends, if there is one.
    #[must_use]
    pub fn account(&self) -> Option<Address> {
        self.account.map(ours)
    }

    /// The provider.
    #[must_use]
    pub const fn provider(&self) -> &Provider {
        &self.provider
    }

    /// EIP-155 chain id.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        self.provider.get_chain_id().await.map_err(|e| ChainError::from_transport("chain id", e))
    }

    /// The latest block.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn block_number(&self) -> Result<u64, ChainError> {
        self.provider.get_block_number().await.map_err(|e| ChainError::from_transport("block number", e))
    }

    pub(crate) fn sender(&self) -> Result<alloy::primitives::Address, ChainError> {
        self.account.ok_or_else(|| ChainError::Setup { what: "account", why: "this connection has no key".into() })
    }

    pub(crate) async fn deploy<P: alloy::providers::Provider, D: CallDecoder>(
        &self,
        act: &'static str,
        call: CallBuilder<P, D, Ethereum>,
    ) -> Result<(alloy::primitives::Address, u64), ChainError> {
        let receipt = self.send(act, call).await?;
        let address = receipt.contract_address.ok_or_else(|| ChainError::rpc(act, "no contract address"))?;
        Ok((address, receipt.block_number.unwrap_or_default()))
    }

    async fn send<P: alloy::providers::Provider, D: CallDecoder>(
        &self,
        act: &'static str,
        call: CallBuilder<P, D, Ethereum>,
    ) -> Result<TransactionReceipt, ChainError> {
        let call = call.from(self.sender()?);
        let pending = {
            let _turn = self.sending.lock().await;
            call.send().await.map_err(|e| ChainError::from_contract(act, e))?
        };
        let receipt = pending.get_receipt().await.map_err(|e| ChainError::rpc(act, e))?;
        if receipt.status() {
            return Ok(receipt);
        }
        // Ask once more at that block why; where it would pass now, the chain has changed in between.
        let block = receipt.block_number.unwrap_or_default();
        match call.block(block.into()).call_raw().await {
            Err(e) => Err(ChainError::from_contract(act, e)),
            Ok(_) => Err(ChainError::Failed { act, tx: receipt.transaction_hash.to_string(), block }),
        }
    }
}

fn signer(key: &[u8; 32]) -> Result<PrivateKeySigner, ChainError> {
    PrivateKeySigner::from_bytes(&B256::from(*key))
        .map_err(|_| ChainError::Setup { what: "account key", why: "not a secp256k1 secret key".into() })
}

pub(crate) fn connect_provider(rpc_url: &str, key: Option<&[u8; 32]>) -> Result<Provider, ChainError> {
    let url: alloy::transports::http::reqwest::Url =
        // The text is not repeated: it may hold an access key, and malformed as it is, nobody knows where.
        rpc_url.parse().map_err(|e| ChainError::Setup { what: "RPC URL", why: format!("malformed: {e}") })?;
    let local = url.host_str().is_some_and(|h| h == "localhost" || h.starts_with("127.") || h == "[::1]");
    let client = RpcClient::new_http(url);
    if local {
        client.set_poll_interval(LOCAL_POLL);
    }
    // The nonce is asked for each time: a cached one is used up by a transaction that is refused before it is sent, and then every
    // later one waits forever behind the gap.
    let builder = ProviderBuilder::new().with_simple_nonce_management();
    Ok(match key {
        Some(key) => builder.wallet(EthereumWallet::from(signer(key)?)).connect_client(client).erased(),
        None => builder.connect_client(client).erased(),
    })
}

/// A transaction that was mined and succeeded.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sent {
    /// Its hash, in hex.
    pub tx: String,
    /// Its block.
    pub block: u64,
    /// What it used.
    pub gas: u64,
}

impl From<TransactionReceipt> for Sent {
    fn from(r: TransactionReceipt) -> Self {
        Self { tx: r.transaction_hash.to_string(), block: r.block_number.unwrap_or_default(), gas: r.gas_used }
    }
}

/// A challenge's id: keccak256 of (node, epoch, database, proof index).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ChallengeId(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Display for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a challenge stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChallengeStatus {
    /// There is none.
    None,
    /// Waits for an answer or for its deadline.
    Open,
    /// A proof was posted in time.
    Answered,
    /// The deadline passed; the node was slashed.
    Expired,
    /// As the last two, and the bond is paid.
    Closed,
}

/// A challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Challenge {
    /// Its id.
    pub id: ChallengeId,
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The database, or none for the holdings.
    pub db: Option<DatabaseId>,
    /// Which proof of the epoch.
    pub proof_index: u16,
    /// Public inputs of the proof that answers it: root, cells, seed.
    pub inputs: [FieldBytes; 3],
    /// Last block for an answer.
    pub deadline: u64,
    /// Where it stands.
    pub status: ChallengeStatus,
    /// Who opened it.
    pub challenger: Address,
    /// In wei.
    pub bond: u128,
    /// What expiry slashes at most, in 1e-18 FLU.
    pub stake: u128,
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeStatus {
    /// Not registered.
    None,
    /// May take on databases.
    Active,
    /// Missed a challenge; must restake.
    Suspended,
    /// Gone for good.
    Left,
}

/// A node's record.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct NodeRecord {
    /// The node.
    pub node: NodeId,
    /// Sends its transactions, owns its collateral.
    pub operator: Address,
    /// Where it stands.
    pub status: NodeStatus,
    /// Where to reach it.
    pub multiaddr: Vec<u8>,
}

/// A node's collateral, in 1e-18 FLU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CollateralBalance {
    /// Backs nothing.
    pub free: u128,
    /// Backs databases.
    pub locked: u128,
    /// On its way out.
    pub thawing: u128,
    /// First block at which `thawing` may be withdrawn.
    pub thawed_at: u64,
}

impl CollateralBalance {
    /// All of it: what a slash can reach.
    #[must_use]
    pub const fn total(&self) -> u128 {
        self.free + self.locked + self.thawing // the supply is below 2^87
    }
}

/// One database as a node owes it in an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Owed {
    /// The database.
    pub db: DatabaseId,
    /// Its root.
    pub root: DbRoot,
    /// Cells under it.
    pub cells: u64,
    /// Its owner.
    pub owner: Address,
    /// The most the owner gets out of a slash for it, in 1e-18 FLU.
    pub damage_max: u128,
}

/// The last registration of a database at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct StakedVersion {
    /// Its root.
    pub root: DbRoot,
    /// Cells under it.
    pub cells: u64,
    /// Its height.
    pub height: Height,
    /// First epoch in which it is owed.
    pub from: Epoch,
    /// Last epoch in which it is owed.
    pub until: Epoch,
    /// Its owner.
    pub owner: Address,
}

/// One deployment.
#[derive(Clone, Debug)]
pub struct Chain {
    connection: Connection,
    deployment: Deployment,
}

macro_rules! contract {
    ($self:ident, $name:ident, $at:ident) => {
        $name::new(theirs($self.deployment.$at), &$self.connection.provider)
    };
}

macro_rules! view {
    ($act:literal, $call:expr) => {
        $call.call().await.map_err(|e| ChainError::from_contract($act, e))
    };
}

// Below the macros, which it uses.
pub(crate) mod clusters;

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

    // ---- nodes and collateral -------------------------------------------------------------------------------------------------

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

    /// Ends a database's debt from the next epoch on; by its owner, who sends or signed [`Domain::release_digest`].
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

    // ---- verifiers ------------------------------------------------------------------------------------------------------------

    /// Whether a `range_sum` proof holds, by `eth_call`.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`, `InputNotCanonical`, `ProofLength`, or `PrecompileFailed` for a bad point.
    pub async fn verify_range_sum(
        &self,
        circuit: &CircuitId,
        inputs: &[FieldBytes],
        proof: &[u8; 512],
    ) -> Result<bool, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let call = contract.verifyRangeSum(circuit_hash(circuit), words(inputs), Bytes::copy_from_slice(proof));
        view!("verify range sum", call)
    }

    /// What the same check costs as a transaction, calldata included.
    ///
    /// # Errors
    /// As [`Self::verify_range_sum`].
    pub async fn verify_range_sum_gas(
        &self,
        circuit: &CircuitId,
        inputs: &[FieldBytes],
        proof: &[u8; 512],
    ) -> Result<u64, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let call = contract.verifyRangeSum(circuit_hash(circuit), words(inputs), Bytes::copy_from_slice(proof));
        call.estimate_gas().await.map_err(|e| ChainError::from_contract("verify range sum", e))
    }

    /// Whether any proof of a pinned circuit holds, by `eth_call` of its verifier.
    ///
    /// # Errors
    /// As [`Self::verify_range_sum`].
    pub async fn verify(
        &self,
        circuit: &CircuitId,
        inputs: &[FieldBytes],
        proof: &[u8; 512],
    ) -> Result<bool, ChainError> {
        let verifier = self.verifier(circuit).await?;
        view!("verify", verifier.verify(words(inputs), Bytes::copy_from_slice(proof)))
    }

    /// Keccak-256 of a circuit's pinned key.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`.
    pub async fn vk_hash(&self, circuit: &CircuitId) -> Result<[u8; 32], ChainError> {
        Ok(view!("key hash", contract!(self, EpochProofs, epoch_proofs).vkHash(circuit_hash(circuit)))?.0)
    }

    /// A circuit's pinned key: alpha G1, beta, gamma, delta G2, then the IC points, as EIP-2537 points.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`.
    pub async fn verification_key(&self, circuit: &CircuitId) -> Result<Vec<u8>, ChainError> {
        Ok(view!("key", self.verifier(circuit).await?.verificationKey())?.to_vec())
    }

    /// Whether a circuit's pinned key is marked insecure.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`.
    pub async fn insecure_dev_key(&self, circuit: &CircuitId) -> Result<bool, ChainError> {
        view!("key mark", self.verifier(circuit).await?.insecureDevKey())
    }

    async fn verifier(
        &self,
        circuit: &CircuitId,
    ) -> Result<Groth16Verifier::Groth16VerifierInstance<&Provider>, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let address = view!("verifier", contract.verifierOf(circuit_hash(circuit)))?;
        Ok(Groth16Verifier::new(address, &self.connection.provider))
    }

    async fn send<P: alloy::providers::Provider, D: CallDecoder>(
        &self,
        act: &'static str,
        call: CallBuilder<P, D, Ethereum>,
    ) -> Result<Sent, ChainError> {
        self.connection.send(act, call).await.map(Sent::from)
    }
}

/// A circuit as the contract names it: Keccak-256 of its id's text.
fn circuit_hash(circuit: &CircuitId) -> B256 {
    keccak256(circuit.to_string())
}

fn words(inputs: &[FieldBytes]) -> Vec<U256> {
    inputs.iter().map(|f| U256::from_be_bytes(f.to_bytes())).collect()
}

fn b256(node: &NodeId) -> B256 {
    B256::from(node.to_bytes())
}

fn b128(db: &DatabaseId) -> B128 {
    B128::from(db.to_bytes())
}

fn theirs(a: Address) -> alloy::primitives::Address {
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
