//! Clusters under faults, in a deterministic runtime: what a seed draws, what happens, and what must hold of it.
//!
//! ```text
//! seed ── Scenario::draw ── members, links, faults, liars, writers
//!              │
//!              └─ run ── World (replicas on one virtual clock) ── Record ── check ──> violations, digest
//! ```
//! Rule     everything follows from the seed: the same seed gives the same digest on every machine. What is checked of a run is
//!          computed anew from its blocks, not asked of the replicas.
//! Source   DESIGN section 7; TigerBeetle's VOPR and Commonware's `simplex` tests for the way; Bano et al., Twins (2020), for the
//!          members that are two; `docs/simulation.md`

mod campaign;
mod check;
mod client;
mod joining;
mod model;
mod net;
mod record;
mod run;
mod scenario;
mod world;

pub use campaign::{Summary, campaign, find};
pub use run::{Outcome, run};
pub use scenario::{Change, Conduct, Fault, Planted, Scenario};
