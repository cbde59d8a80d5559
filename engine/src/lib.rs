//! The engine: a deterministic state machine over a segment store.
//!
//! ```text
//! block ── VerifiedBlock::verify ── Engine::apply ──> database root, outcomes
//! cells ── begin_upload, append_upload, finish_upload ──> CheckedUpload (a member signs its receipt)
//! Engine::view ──> openings, headers, schemas, witnesses          Engine::scrub ──> lost pages
//! ```
//! Rule    the same blocks give the same roots on every member, on every store, across every crash. No clock, randomness, float, thread
//!         order or hash order in what is computed; `clippy.toml` says so too.
//! Source  DESIGN sections 3, 4, 6 and 7; `docs/protocol/store.md`

mod apply;
mod block;
mod cluster;
mod engine;
mod error;
mod fill;
mod lease;
mod nodes;
mod past;
mod renew;
mod scrub;
mod segment;
mod snapshot;
mod state;
mod upload;
mod view;
mod witness;

pub mod damage;
pub mod keys;
pub mod page;
pub mod store;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use apply::Applied;
pub use block::VerifiedBlock;
pub use engine::{Engine, EngineConfig, Head, RECENT, Rules};
pub use error::{ApplyError, EngineError, SegmentError, UploadError};
pub use fill::Missing;
pub use nodes::Lost;
pub use scrub::{LostPage, ScrubProgress};
pub use snapshot::{SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, Snapshot, SnapshotError, chunk_digest, snapshot_digest};
pub use state::BlockRecord;
#[cfg(feature = "rocksdb")]
pub use store::RocksStore;
pub use store::{FailingStore, Failure, FjallOptions, FjallStore, MemStore, Store, StoreError};
pub use upload::{CHUNK_BYTES_MAX, CheckedUpload};
pub use view::{DatabaseSummary, SegmentSummary, View, WriterState};
pub use witness::{Holdings, WitnessError};
