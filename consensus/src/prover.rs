//! How a newcomer shows that it has every cell before it gets a seat. The proof system is the node's affair; this is its place.

use fluence_crypto::roots::db_root;
use fluence_crypto::seed::readiness_seed;
use fluence_types::block::epoch_of;
use fluence_types::tree::DbPreimage;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, Height, NodeId};
use futures::future::BoxFuture;

/// What a newcomer says it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The database.
    pub db: DatabaseId,
    /// A recent height.
    pub height: Height,
    /// The root after it.
    pub root: DbRoot,
    /// Cells under that root, at least 1.
    pub cells: u64,
    /// Picks the cells to show: nobody chose it, and it is another one for each newcomer and root.
    pub seed: FieldBytes,
}

impl Claim {
    pub(crate) fn of(node: &NodeId, height: Height, preimage: &DbPreimage) -> Self {
        let (db, root) = (preimage.db, db_root(preimage));
        let seed = readiness_seed(db, epoch_of(height), node, root);
        Self { db, height, root, cells: preimage.stored_cells, seed }
    }
}

/// Proves and checks claims. Both may take minutes: the replica waits beside its work.
pub trait Prover: Send + Sync + 'static {
    /// A proof that this node has the cells that the claim's seed picks, at most [`crate::PROOF_BYTES_MAX`] long. `None`: it cannot now.
    fn prove(&self, claim: &Claim) -> BoxFuture<'static, Option<Vec<u8>>>;

    /// Whether a proof is one of this claim.
    fn verify(&self, claim: &Claim, proof: &[u8]) -> BoxFuture<'static, bool>;
}
