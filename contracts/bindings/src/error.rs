//! Why the chain said no, with the contract's own error by name.

use crate::abi::{
    Checkpoints, Collateral, EpochProofs, Equivocation, FluToken, Groth16Verifier, Holdings, NodeRegistry, Placement,
};
use alloy::primitives::Bytes;
use alloy::sol_types::{Panic, Revert, SolError, SolInterface};
use std::fmt::Debug;

/// Why a call, a transaction or a local chain failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The RPC does not answer, or not sensibly. Trying again may help.
    #[error("{act}: the RPC failed: {why}")]
    Rpc {
        /// What was asked.
        act: &'static str,
        /// The transport's reason.
        why: String,
    },
    /// A contract refused. The same call will be refused again unless the chain changes.
    #[error("{act}: refused with {name}: {detail}")]
    Refused {
        /// The call.
        act: &'static str,
        /// Name of the contract's error, or `Revert`, `Panic`, `Unknown`.
        name: String,
        /// The error with its values.
        detail: String,
    },
    /// A transaction was mined and failed all the same, because the chain changed between its simulation and its block.
    #[error("{act}: transaction {tx} failed in block {block}")]
    Failed {
        /// The call.
        act: &'static str,
        /// Transaction hash.
        tx: String,
        /// Its block.
        block: u64,
    },
    /// The chain answered something that the vocabulary does not hold.
    #[error("{what} on chain is out of range")]
    OutOfRange {
        /// What it is.
        what: &'static str,
    },
    /// An address, a key or a URL cannot be used.
    #[error("{what}: {why}")]
    Setup {
        /// What was given.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// anvil could not be started.
    #[error("anvil: {0}")]
    Anvil(String),
}

impl ChainError {
    /// Name of the contract's error, where a contract refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { name, .. } => Some(name),
            _ => None,
        }
    }

    pub(crate) fn rpc(act: &'static str, why: impl ToString) -> Self {
        Self::Rpc { act, why: without_secrets(&why.to_string()) }
    }

    pub(crate) fn from_contract(act: &'static str, error: alloy::contract::Error) -> Self {
        if let Some(data) = error.as_revert_data() {
            return Self::from_revert(act, &data);
        }
        match error {
            alloy::contract::Error::TransportError(e) => Self::from_transport(act, e),
            other => Self::rpc(act, other),
        }
    }

    pub(crate) fn from_transport(act: &'static str, error: alloy::transports::TransportError) -> Self {
        let Some(payload) = error.as_error_resp() else { return Self::rpc(act, error) };
        match payload.as_revert_data() {
            Some(data) => Self::from_revert(act, &data),
            None => Self::rpc(act, payload),
        }
    }

    pub(crate) fn from_revert(act: &'static str, data: &Bytes) -> Self {
        let (name, detail) = name_revert(data);
        Self::Refused { act, name, detail }
    }
}

/// A text with every address in it cut to scheme and host: the rest of an RPC's address may be an access key.
fn without_secrets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        // None of these stands unescaped in an address; a bracket or a comma may, and is cut with it.
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`')).unwrap_or(after.len());
        let (address, next) = after.split_at(end);
        let authority = address.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        out.push_str(authority.rsplit('@').next().unwrap_or_default());
        if authority.len() < address.len() && address.ends_with(')') {
            out.push(')');
        }
        rest = next;
    }
    out + rest
}

/// Name and values of revert data, by the errors of all our contracts: a caller's ABI does not list what it passes on.
fn name_revert(data: &[u8]) -> (String, String) {
    fn of<E: SolInterface + Debug>(data: &[u8]) -> Option<(String, String)> {
        let error = E::abi_decode(data).ok()?;
        // The derived form is `Variant(Error { .. })`: the variant is the error's name.
        let text = format!("{error:?}");
        let name = text.split('(').next().unwrap_or_default().to_owned();
        let detail =
            text.strip_prefix(&format!("{name}(")).and_then(|t| t.strip_suffix(')')).unwrap_or(&text).to_owned();
        Some((name, detail))
    }
    of::<EpochProofs::EpochProofsErrors>(data)
        .or_else(|| of::<Collateral::CollateralErrors>(data))
        .or_else(|| of::<NodeRegistry::NodeRegistryErrors>(data))
        .or_else(|| of::<Groth16Verifier::Groth16VerifierErrors>(data))
        .or_else(|| of::<Checkpoints::CheckpointsErrors>(data))
        .or_else(|| of::<Equivocation::EquivocationErrors>(data))
        .or_else(|| of::<Placement::PlacementErrors>(data))
        .or_else(|| of::<FluToken::FluTokenErrors>(data))
        .or_else(|| of::<Holdings::HoldingsErrors>(data))
        .or_else(|| Revert::abi_decode(data).ok().map(|r| ("Revert".to_owned(), r.reason)))
        .or_else(|| Panic::abi_decode(data).ok().map(|p| ("Panic".to_owned(), p.to_string())))
        .unwrap_or_else(|| ("Unknown".to_owned(), format!("0x{}", hex::encode(&data[..data.len().min(132)]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::{Address, B256};

    #[test]
    fn addresses_in_error_text_are_cut_to_scheme_and_host() {
        for (text, cut) in [
            ("no address at all", "no address at all"),
            ("for url (https://eth.example.org/v3/KEY)", "for url (https://eth.example.org)"),
            ("https://user:KEY@[::1]:8545/KEY?a=KEY#KEY: timed out", "https://[::1]:8545 timed out"),
            ("ws://KEY@a.example?KEY then http://b.example", "ws://a.example then http://b.example"),
            ("\"http://a.example/KEY\" and (http://b.example:1)", "\"http://a.example\" and (http://b.example:1)"),
            ("http://a.example/KE)Y,KEY://KEY/KEY", "http://a.example"),
            ("http://", "http://"),
        ] {
            assert_eq!(without_secrets(text), cut);
        }
    }

    #[test]
    fn names_errors_of_every_contract_and_shows_unknown_bytes() {
        let own = EpochProofs::BeaconNotYet { epoch: 7, block_: alloy::primitives::U256::from(9) }.abi_encode();
        let (name, detail) = name_revert(&own);
        assert_eq!(name, "BeaconNotYet");
        assert!(detail.contains("epoch: 7"), "{detail}");
        let passed_on = Groth16Verifier::PrecompileFailed { precompile: Address::with_last_byte(15) }.abi_encode();
        assert_eq!(name_revert(&passed_on).0, "PrecompileFailed");
        let registry = NodeRegistry::NodeExists { node: B256::ZERO }.abi_encode();
        assert_eq!(name_revert(&registry).0, "NodeExists");
        assert_eq!(name_revert(&[1, 2, 3, 4]), ("Unknown".into(), "0x01020304".into()));
        assert_eq!(name_revert(&[]), ("Unknown".into(), "0x".into()));
    }
}
