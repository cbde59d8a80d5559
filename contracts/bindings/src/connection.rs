//! A chain's RPC, and the account that sends to it.
//!
//! Rule    a write waits for its receipt and says what it cost; a revert comes back as the contract's error by name.
//! Rule    an account is a key (an operator's), or a closure that signs hashes (an owner's: its key stays in its keyring).

use crate::Provider;
use crate::chain::ours;
use crate::error::ChainError;
use alloy::consensus::SignableTransaction;
use alloy::contract::{CallBuilder, CallDecoder};
use alloy::network::{Ethereum, EthereumWallet, TxSigner};
use alloy::primitives::{B256, Signature};
use alloy::providers::{Provider as _, ProviderBuilder};
use alloy::rpc::client::RpcClient;
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::local::PrivateKeySigner;
use fluence_types::Address;
use fluence_types::op::OwnerSignature;
use futures::lock::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How often receipts are asked for on a chain of this machine.
const LOCAL_POLL: Duration = Duration::from_millis(20);

/// Signs a hash with a key that is lent for nothing else.
pub type SignHash = Arc<dyn Fn([u8; 32]) -> OwnerSignature + Send + Sync>;

struct HashSigner {
    account: alloy::primitives::Address,
    sign: SignHash,
}

#[async_trait::async_trait]
impl TxSigner<Signature> for HashSigner {
    fn address(&self) -> alloy::primitives::Address {
        self.account
    }

    async fn sign_transaction(&self, tx: &mut dyn SignableTransaction<Signature>) -> alloy::signers::Result<Signature> {
        let signature = (self.sign)(tx.signature_hash().0);
        Signature::from_raw_array(&signature).map_err(alloy::signers::Error::other)
    }
}

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
        let signer = key.map(signer).transpose()?;
        let account = signer.as_ref().map(PrivateKeySigner::address);
        let provider = connect_provider(rpc_url, signer.map(EthereumWallet::from))?;
        Ok(Self { provider, account, sending: Arc::default() })
    }

    /// The same for an account whose key stays where it is: `sign` signs the hashes of its transactions.
    ///
    /// # Errors
    /// [`ChainError::Setup`] for a URL that cannot be one.
    pub fn signing(rpc_url: &str, account: Address, sign: SignHash) -> Result<Self, ChainError> {
        let account = alloy::primitives::Address::from(account.to_bytes());
        let wallet = EthereumWallet::from(HashSigner { account, sign });
        Ok(Self { provider: connect_provider(rpc_url, Some(wallet))?, account: Some(account), sending: Arc::default() })
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

    pub(crate) async fn send<P: alloy::providers::Provider, D: CallDecoder>(
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

pub(crate) fn connect_provider(rpc_url: &str, wallet: Option<EthereumWallet>) -> Result<Provider, ChainError> {
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
    Ok(match wallet {
        Some(wallet) => builder.wallet(wallet).connect_client(client).erased(),
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
