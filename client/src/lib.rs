//! The owner's side of Fluence: keys, sealing, planning, opening, verified queries.
//!
//! Write   batches -> [`seal`] -> upload, commit ([`session`], [`write`]) -> certified root.
//! Query   key range -> [`plan`] (fences to positions) -> cells from a node -> `verifier::answer` -> [`open`] -> rows or sums.
//! Rule    nothing is decrypted that was not verified: [`open`] takes only a `VerifiedAnswer`. Nodes see neither keys, names nor predicates.
//! Source  DESIGN sections 3, 5, 6, 7, 10 and 11; `docs/protocol/segment.md`, `docs/protocol/query.md`

pub mod ask;
pub mod block;
pub mod cluster;
pub mod csv;
#[cfg(feature = "dial")]
pub mod dial;
pub mod error;
#[cfg(feature = "files")]
pub mod export;
#[cfg(feature = "files")]
pub mod files;
mod fresh;
pub mod group;
pub mod key;
pub mod keyring;
pub mod keystore;
pub mod lease;
pub mod open;
pub mod packing;
pub mod plan;
pub mod prove;
pub mod query;
pub mod range;
pub mod schema;
pub mod seal;
pub mod session;
pub mod sums;
mod tiers;
pub mod time;
pub mod transaction;
pub mod transport;
pub mod value;
pub mod write;

pub use ask::{LieEvidence, PORTION_CELLS, SessionOptions};
pub use error::ClientError;
pub use group::{Group, GroupDriver, GroupError, GroupOptions, GroupStats, Inserted};
pub use keyring::{Keyring, Phrase};
pub use keystore::{Keystore, Passphrase, WorkFactor};
pub use lease::{Keeper, Lease, LeaseOptions, LeaseStatus};
pub use query::{
    Aggregate, AggregateValue, Answered, Direction, Evidence, PairStatistic, Pinned, RowStream, SegmentStats, Select,
    TableStats,
};
pub use range::KeyRange;
pub use schema::{Column, SumExpr, TableSchema};
pub use seal::{SealedSegment, Sealer};
pub use session::{Database, Session, Table};
pub use transaction::{Retry, Transaction, TransactionCommitted};
pub use transport::{Transport, TransportError};
pub use value::{ColumnType, Value};
pub use write::{Committed, ImportOptions, PreparedMerge, Progress, Row, SealedPart};
