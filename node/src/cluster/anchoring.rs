//! The part of a node that writes to the chain for its clusters: certificates by [`super::poster`], evidence by [`super::accuser`].
//!
//! Rule    what fails here stops nothing else: the cluster agrees without a chain. It is logged, counted, and tried again.

use super::accuser::Accuser;
use super::poster::Poster;
use crate::chain::{Chain, ChainError};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What is written to the chain.
pub struct Anchoring {
    chain: Arc<dyn Chain>,
    poster: Option<Poster>,
    accuser: Option<Accuser>,
    /// A chain out of reach is said once, and again when it is back.
    unreachable: bool,
}

impl Anchoring {
    /// Writes what the two have to write; either may be missing.
    #[must_use]
    pub fn new(chain: Arc<dyn Chain>, poster: Option<Poster>, accuser: Option<Accuser>) -> Self {
        Self { chain, poster, accuser, unreachable: false }
    }

    /// Works until `stop`, looking every `poll`.
    pub async fn run(mut self, poll: Duration, stop: CancellationToken) {
        loop {
            let round = tokio::select! {
                round = self.round() => round,
                () = stop.cancelled() => return,
            };
            match round {
                Ok(()) if self.unreachable => {
                    self.unreachable = false;
                    tracing::info!("the chain takes certificates and evidence again");
                }
                Err(error) if !self.unreachable => {
                    self.unreachable = true;
                    tracing::warn!(%error, "the chain was not read: certificates and evidence wait");
                }
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One look at the chain, and what is due.
    ///
    /// # Errors
    /// [`ChainError`] where the chain does not answer.
    pub async fn round(&mut self) -> Result<(), ChainError> {
        let head = self.chain.head().await?;
        // Evidence first: it is rare, and somebody else may be faster.
        if let Some(accuser) = &mut self.accuser {
            accuser.round(head).await?;
        }
        if let Some(poster) = &mut self.poster {
            poster.round(head).await?;
        }
        Ok(())
    }
}
