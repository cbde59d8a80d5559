//! How requests reach nodes: a trait, so that the session runs over libp2p, in one process, or over a liar in a test.
//!
//! Contract  one request, one response or one error; no order between requests; an implementation bounds time and message length.
//!           Whatever a transport returns is bytes from a stranger: the session verifies it.

use fluence_types::NodeId;
use fluence_wire::{Request, Response};
use std::future::Future;
use std::sync::Arc;

/// Why a node was not reached or did not answer. The request may or may not have arrived.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No address is known for the node.
    #[error("no address is known for node {0}")]
    NoAddress(NodeId),
    /// The connection could not be made or broke.
    #[error("node {node} is not reachable: {why}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// The reason.
        why: String,
    },
    /// No answer in time.
    #[error("node {node} did not answer within {seconds} s")]
    Timeout {
        /// The node.
        node: NodeId,
        /// How long was waited.
        seconds: u64,
    },
    /// The other end is not the node it should be.
    #[error("expected node {expected}, found peer {found}")]
    WrongPeer {
        /// The node asked for.
        expected: NodeId,
        /// Who answered, as text.
        found: String,
    },
    /// The transport was shut down.
    #[error("the transport is shut down")]
    Closed,
}

/// Carries requests to nodes.
pub trait Transport: Send + Sync {
    /// Sends `request` to `node` and waits for its response.
    fn request(&self, node: &NodeId, request: Request)
    -> impl Future<Output = Result<Response, TransportError>> + Send;
}

impl<T: Transport> Transport for Arc<T> {
    fn request(
        &self,
        node: &NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        T::request(self, node, request)
    }
}

impl<T: Transport> Transport for &T {
    fn request(
        &self,
        node: &NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        T::request(self, node, request)
    }
}
