//! What travels between clients, nodes and arbiters: one request, one response, both bounded.
//!
//! Rule    a message is canonical borsh, at most [`REQUEST_BYTES_MAX`] or [`RESPONSE_BYTES_MAX`]; a longer one closes the stream.
//! Source  DESIGN section 7; `docs/protocol/wire.md`

pub mod message;

#[cfg(feature = "libp2p")]
pub mod codec;

pub use message::{Request, Response};

/// The libp2p protocol name of requests.
pub const PROTOCOL: &str = "/flu/request/1";
/// Longest request: an operation or an upload chunk, with its frame.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Longest response: an answer.
pub const RESPONSE_BYTES_MAX: usize = fluence_types::limits::ANSWER_BYTES_MAX + (1 << 16);
/// Payload bytes of an upload chunk: 64 page records.
pub const CHUNK_BYTES: usize = 1 << 20;
