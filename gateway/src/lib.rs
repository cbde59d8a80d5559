//! The gateway: Fluence as a common database, over the Postgres protocol.
//!
//! ```text
//! HTTP, JSON ──── http ─┐
//! psql, drivers ── server ── session ── sql ── DataFusion ── table, pushdown ── store ── fluence-client ── nodes
//! ```
//! Runs    on the owner's side, with the keys. Nodes learn sizes and positions, never SQL.
//! Rule    every row and every sum that DataFusion sees was verified by the client; what cannot be pushed down is computed here on
//!         verified rows. An answer with and without pushdown is the same.
//! Source  DESIGN section 10

mod commit;
pub mod error;
mod gateway;
pub mod http;
mod pg_type;
mod pins;
pub mod server;
pub mod session;
pub mod sql;
pub mod store;

pub use commit::Counts;
pub use datafusion::arrow::datatypes::DataType;
pub use error::{SqlError, SqlState};
pub use gateway::{Gateway, GatewayOptions};
pub use session::SqlSession;
pub use sql::copy::text_of;
pub use sql::is_whole;
