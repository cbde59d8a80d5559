//! A cluster's log: the members of a database agree on its blocks, execute them, and certify its roots.
//!
//! ```text
//! submit -> mempool -> propose -> votes (simplex) -> finalized, in order (marshal) -> engine.apply -> root
//!              |                                                                                       |
//!              +-- gossip to the other members              certificate of a later block <-- its header carries the root
//! ```
//! Rule     an operation leaves the mempool when it is finalized, never when it is proposed: a view that is nullified loses nothing.
//!          A vote is given after the block was checked whole, its executed root included. A root that differs from ours stops the
//!          replica loudly.
//! Generic  over the runtime and the network, so that the same code runs in `node` and in the deterministic simulation.
//! Source   DESIGN section 7; commonware-consensus 2026.10 (`simplex`, `marshal`); `docs/protocol/cluster.md`

mod app;
mod block;
mod committees;
mod epochs;
mod executor;
mod fetch;
mod fill;
mod gossip;
mod handover;
mod history;
mod join;
mod mempool;
mod openings;
mod planted;
mod prover;
mod replica;
mod scheme;
mod seats;
mod status;
mod sync;
mod wire;

pub use block::{BlockDigest, ClusterBlock, MESSAGE_BYTES_MAX};
pub use handover::handovers;
pub use history::History;
pub use join::{JoinConfig, JoinError, join, origin};
pub use mempool::{Limits as MempoolLimits, MempoolError};
pub use openings::Openings;
#[cfg(feature = "planted")]
pub use planted::{Bug, Ear, Lie, Planted, Wait};
pub use prover::{Claim, Prover};
pub use replica::{Channels, Config, Link, Origin, Parts, Replica, StartError, Started, SubmitError, Timing};
pub use scheme::{
    Finalization, Identity, Scheme, SchemeError, certificate, committee_scheme, finalization, identity, node_id,
};
pub use status::{Event, Evidence, Status};
pub use wire::PROOF_BYTES_MAX;
