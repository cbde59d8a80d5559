//! Real nodes under faults: what a seed draws, what is broken, and what must hold of the history that clients recorded.
//!
//! ```text
//! seed ── plan ── nemesis ──> kill -9, SIGSTOP, restart, full disk, wrong clock, cut network
//!                                │
//!                       4 to 7 `fluence node` processes <── writers and readers through the client library ── history
//!                                │                                                                              │
//!                             healed ── every member asked alone ────────────────────────────────────────── check ──> violations
//! ```
//! Rule     the same seed draws the same faults; when they strike is the machine's affair, so a round's verdict must not depend on it.
//!          Whatever a round starts ends with it, also where it fails or panics.
//! Beside   `tests/sim` checks replicas block by block on a virtual clock. Here nothing of a node is seen but what a client sees, so
//!          the history is one of rows and answers, and has a model of its own.
//! Source   DESIGN section 7; Jepsen's way of recording invocations and completions; `docs/chaos.md`

pub mod check;
mod client;
pub mod history;
pub mod idle;
mod machine;
pub mod nemesis;
pub mod plan;
mod process;
mod round;

pub use machine::Machine;
pub use plan::{Fault, Plan};
pub use round::{Outcome, Settings, run};
