//! The contracts as Rust calls them: deploy, register, deposit, challenge, respond, expire, read events; and a local chain.
//!
//! Rule    thin: what is owed, seeds, holdings and splits are the contracts' business and are read from them. ABI and bytecode come
//!         from `contracts/artifacts`, so building needs no solc; `contracts/scripts/artifacts.mjs --check` says whether they are fresh.
//! Rule    keys of owners never come here: registrations and an owner's own transactions are signed by a closure, or come signed. An
//!         operator's key is in the provider's wallet.
//! Source  DESIGN sections 8 and 9; `contracts/src/interfaces`; `docs/protocol/chain.md`

pub mod abi;
pub mod anvil;
mod chain;
mod connection;
mod deploy;
mod error;
mod events;
mod registration;

pub use chain::clusters::{
    Certified, CertifiedCheckpoint, ClusterOnChain, CommitteeMember, EquivocationProven, Evidence, HandedOver,
    KeyPoint, SignaturePoint, VoteFor,
};
pub use chain::placement::{Candidate, PlacementRequest};
pub use chain::{
    Chain, Challenge, ChallengeId, ChallengeStatus, CollateralBalance, NodeRecord, NodeStatus, Owed, StakedVersion,
};
pub use connection::{Connection, Sent, SignHash};
pub use deploy::{ChainParams, Deployment, VerifierKey, deploy_all};
pub use error::ChainError;
pub use events::{Answered, Challenged, Credited, Deposited, Expired, Registered, RootRegistered, Slashed};
pub use registration::{Domain, Registration};

/// A provider whose network and transport are erased, with a wallet or without.
pub type Provider = alloy::providers::DynProvider;
