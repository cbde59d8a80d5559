//! How requests reach nodes: a trait, so that the session runs over libp2p, in one process, or over a liar in a test.
//!
//! Contract  one request, one response or one error; no order between requests; an implementation bounds time and message length.
//!           Whatever a transport returns is bytes from a stranger: the session verifies it.

use fluence_types::NodeId;
use fluence_wire::{Request, Response};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

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

impl TransportError {
    /// Whether another try may do better.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }
}

/// Carries requests to nodes.
pub trait Transport: Send + Sync {
    /// Sends `request` to `node` and waits for its response.
    fn request(&self, node: &NodeId, request: Request)
    -> impl Future<Output = Result<Response, TransportError>> + Send;

    /// Lets time pass. A transport without a clock never wakes the caller: then a slow member is waited for as long as the transport
    /// itself waits, and a cluster whose members are all behind for ever.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        let _ = time;
        std::future::pending()
    }
}

impl<T: Transport> Transport for Arc<T> {
    fn request(
        &self,
        node: &NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        T::request(self, node, request)
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        T::sleep(self, time)
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

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        T::sleep(self, time)
    }
}
