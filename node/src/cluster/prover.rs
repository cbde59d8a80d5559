//! How a newcomer shows that it has everything: the storage proof of the one database, under a seed that members chose.

use crate::storage::prover::Prover;
use fluence_consensus::{Claim, Prover as SeatProver};
use fluence_types::proof::ProofBytes;
use fluence_types::shape::CircuitId;
use fluence_types::statement::Storage;
use fluence_types::{Epoch, HoldingsRoot};
use fluence_verifier::groth16;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Groth16 storage proofs for seats. It works on the node's runtime, not on that of the replicas.
pub(crate) struct Groth16Seats {
    pub(crate) prover: Arc<Prover>,
    pub(crate) runtime: Handle,
}

const fn statement(claim: &Claim) -> Storage {
    Storage { root: HoldingsRoot::from_field(claim.root.to_field()), total_cells: claim.cells, seed: claim.seed }
}

impl SeatProver for Groth16Seats {
    fn prove(&self, claim: &Claim) -> BoxFuture<'static, Option<Vec<u8>>> {
        let (prover, claim) = (Arc::clone(&self.prover), *claim);
        let work = self.runtime.spawn(async move {
            let proved = prover.storage(vec![(claim.db, claim.root)], Epoch(0), statement(&claim)).await;
            match proved {
                Ok(proved) => Some(proved.proof.0.to_vec()),
                Err(error) => {
                    tracing::warn!(db = %claim.db, %error, "no storage proof for a seat yet");
                    None
                }
            }
        });
        async move { work.await.ok().flatten() }.boxed()
    }

    fn verify(&self, claim: &Claim, proof: &[u8]) -> BoxFuture<'static, bool> {
        let (prover, claim) = (Arc::clone(&self.prover), *claim);
        let Ok(proof) = proof.try_into().map(ProofBytes) else { return futures::future::ready(false).boxed() };
        let work = self.runtime.spawn_blocking(move || {
            let keys = match prover.keys(CircuitId::Storage(prover.shape())) {
                Ok(keys) => keys,
                Err(error) => {
                    tracing::warn!(db = %claim.db, %error, "a newcomer's proof cannot be checked");
                    return false;
                }
            };
            groth16::verify(&keys.vk, &statement(&claim).public_inputs(), &proof).is_ok()
        });
        async move { work.await.unwrap_or(false) }.boxed()
    }
}
