//! A local chain: the pinned anvil as a child process, for the demo and for tests.
//!
//! Rule    the port is the operating system's choice (`--port 0`), read from what anvil prints; the child dies with this value.
//! Why     hard fork Prague: the contracts need the precompiles of EIP-2537. Chain id 31337, on which dev keys are allowed.

use crate::connection::connect_provider;
use crate::error::ChainError;
use crate::{Connection, Provider};
use alloy::primitives::{B256, U256};
use alloy::providers::Provider as _;
use fluence_types::Address;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread::JoinHandle;

/// The most lines anvil may print before the one that names its port.
const BANNER_LINES_MAX: usize = 500;

/// A running anvil. Dropping it kills the process.
#[derive(Debug)]
pub struct Anvil {
    child: Child,
    drain: Option<JoinHandle<()>>,
    rpc_url: String,
    keys: Vec<DevKey>,
}

/// The key of an account that anvil made and funded. It is printed by anvil and worth nothing; a newtype so that it is not mistaken
/// for one that is, and still not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DevKey(pub [u8; 32]);

impl std::fmt::Debug for DevKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DevKey")
    }
}

/// How to start anvil.
#[derive(Clone, Debug)]
pub struct AnvilConfig {
    /// The executable; see [`find`].
    pub binary: PathBuf,
    /// `prague` or later; an older one for tests of a chain without the precompiles.
    pub hardfork: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Funded accounts.
    pub accounts: u8,
}

impl AnvilConfig {
    /// Prague, chain id 31337, 10 accounts.
    #[must_use]
    pub fn new(binary: PathBuf) -> Self {
        Self { binary, hardfork: "prague".into(), chain_id: 31337, accounts: 10 }
    }
}

/// The anvil that `npm ci` put under `contracts`, or the one in the folder that `FOUNDRY_BIN` names; `None` where there is neither.
#[must_use]
pub fn find(contracts: &Path) -> Option<PathBuf> {
    let folder = std::env::var_os("FOUNDRY_BIN")
        .map_or_else(|| contracts.join("node_modules/@foundry-rs/anvil-linux-amd64/bin"), PathBuf::from);
    let binary = folder.join("anvil");
    binary.is_file().then_some(binary)
}

impl Anvil {
    /// Starts anvil and waits until it listens.
    ///
    /// # Errors
    /// [`ChainError::Anvil`] where the process does not start, or ends or prints something else before it listens.
    pub fn spawn(config: &AnvilConfig) -> Result<Self, ChainError> {
        let mut child = Command::new(&config.binary)
            .args(["--host", "127.0.0.1", "--port", "0", "--hardfork", &config.hardfork])
            .args(["--chain-id", &config.chain_id.to_string(), "--accounts", &config.accounts.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| ChainError::Anvil(format!("{} does not start: {e}", config.binary.display())))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut reader = BufReader::new(stdout);
        match read_banner(&mut reader) {
            Ok((address, keys)) => {
                // Its log goes nowhere, but must be read, or anvil stops when the pipe is full.
                let drain = std::thread::spawn(move || {
                    let _ = std::io::copy(&mut reader, &mut std::io::sink());
                });
                Ok(Self { child, drain: Some(drain), rpc_url: format!("http://{address}"), keys })
            }
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(ChainError::Anvil(why))
            }
        }
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn rpc_url(&self) -> &str {
        &self.rpc_url
    }

    /// Keys of the funded accounts.
    #[must_use]
    pub fn keys(&self) -> &[DevKey] {
        &self.keys
    }

    /// The process id, for who has to watch or report it.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// A connection that sends as funded account `index`.
    ///
    /// # Errors
    /// [`ChainError::Setup`] for an index that has no account.
    pub fn connection(&self, index: usize) -> Result<Connection, ChainError> {
        let key = self.keys.get(index).ok_or_else(|| ChainError::Setup {
            what: "account",
            why: format!("{index} of {} accounts", self.keys.len()),
        })?;
        Connection::new(&self.rpc_url, Some(&key.0))
    }

    /// Mines `blocks` empty blocks at once.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn mine(&self, blocks: u64) -> Result<(), ChainError> {
        mine(&connect_provider(&self.rpc_url, None)?, blocks).await
    }

    /// Sets an account's balance, in wei.
    ///
    /// # Errors
    /// [`ChainError::Rpc`].
    pub async fn fund(&self, account: &Address, wei: u128) -> Result<(), ChainError> {
        let provider = connect_provider(&self.rpc_url, None)?;
        let to = alloy::primitives::Address::from(account.to_bytes());
        provider
            .raw_request::<_, Option<bool>>("anvil_setBalance".into(), (to, U256::from(wei)))
            .await
            .map(|_| ())
            .map_err(|e| ChainError::rpc("set balance", e))
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }
}

/// Mines `blocks` empty blocks on an anvil that someone else started.
///
/// # Errors
/// [`ChainError::Rpc`], also where the chain is no anvil.
pub async fn mine(provider: &Provider, blocks: u64) -> Result<(), ChainError> {
    provider
        .raw_request::<_, serde_json::Value>("anvil_mine".into(), (U256::from(blocks),))
        .await
        .map(|_| ())
        .map_err(|e| ChainError::rpc("mine", e))
}

/// Reads what anvil prints until it listens: the funded keys and the address.
fn read_banner(reader: &mut impl BufRead) -> Result<(String, Vec<DevKey>), String> {
    let mut keys = Vec::new();
    for _ in 0..BANNER_LINES_MAX {
        let mut line = String::new();
        let read = reader.by_ref().take(4096).read_line(&mut line).map_err(|e| e.to_string())?;
        if read == 0 {
            return Err("it ended before it listened".into());
        }
        let line = line.trim();
        if let Some(address) = line.strip_prefix("Listening on ") {
            return Ok((address.to_owned(), keys));
        }
        // `(0) 0x` and 64 digits is a key; the list of accounts has 40 digits.
        if let Some((_, key)) = line.split_once(") 0x")
            && key.len() == 64
            && let Ok(key) = B256::from_str(key)
        {
            keys.push(DevKey(key.0));
        }
    }
    Err(format!("it printed {BANNER_LINES_MAX} lines and does not listen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keys_and_address_and_rejects_an_early_end() {
        let key = "11".repeat(32);
        let text = format!(
            "Accounts\n(0) 0x{} (10000 ETH)\n\nPrivate Keys\n(0) 0x{key}\n\nListening on 127.0.0.1:41\n",
            "22".repeat(20)
        );
        let (address, keys) = read_banner(&mut text.as_bytes()).unwrap();
        assert_eq!((address.as_str(), keys), ("127.0.0.1:41", vec![DevKey([0x11; 32])]));
        assert!(read_banner(&mut "Private Keys\n".as_bytes()).is_err());
        assert!(read_banner(&mut "noise\n".repeat(BANNER_LINES_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_missing_binary_is_an_error_and_not_a_panic() {
        let config = AnvilConfig::new("does-not-exist/anvil".into());
        assert!(matches!(Anvil::spawn(&config), Err(ChainError::Anvil(_))));
        if std::env::var_os("FOUNDRY_BIN").is_none() {
            assert_eq!(find(Path::new("does-not-exist")), None);
        }
    }
}
