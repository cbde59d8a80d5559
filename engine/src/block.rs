//! A block whose signatures and inline segments were checked: everything that needs no state, in parallel.

use crate::error::ApplyError;
use crate::segment::{Inspected, inspect};
use fluence_crypto::sign::{VerifiedOp, block_hash, ops_hash, verify_op};
use fluence_types::BlockHash;
use fluence_types::block::{Block, BlockHeader};
use fluence_types::op::{Delivery, Op};
use rayon::prelude::*;

/// A block that [`crate::Engine::apply`] takes.
#[derive(Debug)]
pub struct VerifiedBlock {
    header: BlockHeader,
    hash: BlockHash,
    pub(crate) ops: Vec<CheckedOp>,
}

/// An operation, and for each segment that its commit appends, in order, what the check of inline cells said; `None` for uploads.
#[derive(Debug)]
pub(crate) struct CheckedOp {
    pub(crate) op: VerifiedOp,
    pub(crate) inline: Vec<Option<Result<Inspected, String>>>,
}

impl CheckedOp {
    pub(crate) fn new(op: VerifiedOp) -> Self {
        let mut inline = Vec::new();
        if let Op::Commit { changes, .. } = &op.unsigned().op {
            for segment in changes.iter().flat_map(|c| c.append.iter()) {
                inline.push(match &segment.delivery {
                    Delivery::Inline(bytes) => {
                        Some(inspect(op.unsigned().db, &segment.preimage, bytes).map_err(|e| e.to_string()))
                    }
                    _ => None,
                });
            }
        }
        Self { op, inline }
    }
}

impl VerifiedBlock {
    /// Checks every signature, that all operations are of the block's database, and that the header's hash is theirs.
    ///
    /// # Errors
    /// [`ApplyError`] naming the first operation that is wrong. A block with one such operation is no block: nobody may propose it.
    pub fn verify(block: Block) -> Result<Self, ApplyError> {
        let Block { header, ops } = block;
        if ops_hash(&ops) != header.ops_hash {
            return Err(ApplyError::OpsHash);
        }
        let db = header.db;
        let ops = ops
            .into_vec()
            .into_par_iter()
            .enumerate()
            .map(|(index, signed)| {
                let op = verify_op(signed).map_err(|why| ApplyError::Signature { index, why })?;
                if op.unsigned().db != db {
                    return Err(ApplyError::OtherDatabase(op.id()));
                }
                Ok(CheckedOp::new(op))
            })
            .collect::<Vec<_>>();
        // The first error in order of position, whichever thread was first.
        let ops = ops.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Self { hash: block_hash(&header), header, ops })
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Its operations, in order.
    pub fn ops(&self) -> impl Iterator<Item = &VerifiedOp> {
        self.ops.iter().map(|checked| &checked.op)
    }
}
