//! Readiness by openings: the cells that a claim's seed picks, each with its path to the database root.
//!
//! Rule    the same cells as a storage proof of one database picks, but shown, not proven: members may see ciphertext, so nothing is lost,
//!         and a check takes milliseconds. Who has nine tenths of the cells passes with a chance of 0.9^64, one in 800.
//! Source  `crypto::seed`, `crypto::tree`, `crypto::sum_tree`

use crate::prover::{Claim, Prover};
use crate::wire::PROOF_BYTES_MAX;
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_crypto::field;
use fluence_crypto::roots::db_root;
use fluence_crypto::seed::{challenge, scale};
use fluence_crypto::sum_tree::{SumPath, verify};
use fluence_crypto::tree::{Path, check_path, segment_root};
use fluence_engine::Engine;
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::{SEGMENT_LEVELS_MAX, STORED_LEVELS_MAX};
use fluence_types::shape::StorageShape;
use fluence_types::statement::Storage;
use fluence_types::tree::{Cell, DbPreimage, SegmentPreimage};
use fluence_types::{FieldBytes, HoldingsRoot};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Cells shown.
const SAMPLES: u32 = 64;
const SHAPE: StorageShape = StorageShape {
    samples: SAMPLES,
    holdings_levels: 1,
    stored_levels: STORED_LEVELS_MAX as u32,
    tree_levels: SEGMENT_LEVELS_MAX as u32,
};

#[derive(BorshSerialize, BorshDeserialize)]
struct Sample {
    cell: Cell,
    siblings: Bounded<[FieldBytes; 7], SEGMENT_LEVELS_MAX>,
    segment: SegmentPreimage,
    slot: u64,
    stored: Bounded<[(FieldBytes, u64); 4], STORED_LEVELS_MAX>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Shown {
    db: DbPreimage,
    samples: Bounded<Sample, { SAMPLES as usize }>,
}

/// A [`Prover`] that opens cells.
pub struct Openings {
    engine: Arc<Engine>,
}

impl Openings {
    /// Over what an engine holds.
    #[must_use]
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

fn show(engine: &Engine, claim: &Claim) -> Option<Vec<u8>> {
    let root = HoldingsRoot::from_field(claim.root.to_field());
    let statement = Storage { root, total_cells: claim.cells, seed: claim.seed };
    let witness = match engine.storage_witness_at(&[(claim.db, claim.root)], &statement, SHAPE) {
        Ok(witness) => witness,
        Err(error) => {
            tracing::warn!(db = %claim.db, height = %claim.height, %error, "cannot show the cells of a claim");
            return None;
        }
    };
    let db = witness.samples.first()?.db;
    let bytes = |scalar: &fluence_crypto::Fr| field::to_bytes(scalar);
    let sample = |s: fluence_crypto::witness::StorageSample| {
        let siblings: Vec<_> = s.cell.siblings.iter().map(|level| level.each_ref().map(bytes)).collect();
        let stored: Vec<_> = s.stored.levels.iter().map(|four| four.each_ref().map(|(d, w)| (bytes(d), *w))).collect();
        Some(Sample {
            cell: s.cell.cell.each_ref().map(bytes),
            siblings: siblings.try_into().ok()?,
            segment: s.segment,
            slot: s.stored.slot,
            stored: stored.try_into().ok()?,
        })
    };
    let samples: Vec<_> = witness.samples.into_iter().map(sample).collect::<Option<_>>()?;
    Some(codec::encode(&Shown { db, samples: samples.try_into().ok()? }))
}

fn holds(claim: &Claim, proof: &[u8]) -> bool {
    let Ok(Shown { db, samples }) = codec::decode("openings", proof, PROOF_BYTES_MAX) else { return false };
    if db_root(&db) != claim.root || db.stored_cells != claim.cells || samples.len() != SAMPLES as usize {
        return false;
    }
    let (seed, scalar) = (field::from_bytes(&claim.seed), field::from_bytes);
    let stored_root = scalar(&db.stored_root.to_field());
    samples.iter().enumerate().all(|(k, s)| {
        let (a, b) = challenge(&seed, k as u64);
        let position = scale(if k.is_multiple_of(2) { a } else { b }, claim.cells);
        let leaf = (scalar(&segment_root(&s.segment).to_field()), s.segment.cells);
        let levels = s.stored.iter().map(|four| four.each_ref().map(|(d, w)| (scalar(d), *w))).collect();
        let first = verify(&stored_root, claim.cells, &leaf, &SumPath { slot: s.slot, levels });
        let Some(index) = first.ok().and_then(|first| position.checked_sub(first)) else { return false };
        let siblings = s.siblings.iter().map(|level| level.each_ref().map(scalar)).collect();
        let root = scalar(&s.segment.tree_root);
        check_path(&root, s.segment.cells, index, &field::cell_to_fr(&s.cell), &Path { index, siblings }).is_ok()
    })
}

impl Prover for Openings {
    fn prove(&self, claim: &Claim) -> BoxFuture<'static, Option<Vec<u8>>> {
        let (engine, claim) = (Arc::clone(&self.engine), *claim);
        async move { show(&engine, &claim) }.boxed()
    }

    fn verify(&self, claim: &Claim, proof: &[u8]) -> BoxFuture<'static, bool> {
        std::future::ready(holds(claim, proof)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
    use fluence_engine::{EngineConfig, MemStore};
    use fluence_types::NodeId;

    #[test]
    fn openings_show_what_is_here_and_nothing_else_passes() {
        let engine = Arc::new(Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).unwrap());
        let mut db = TestDb::new(1, 1);
        db.create(&engine).unwrap();
        db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
        for i in 0..3 {
            let segment = TestSegment::new(i, &schema(1, 1), 40 + i * 30, 9);
            db.act(&engine, commit(&[(0, i)], vec![change(0, vec![segment.inline()], vec![])])).unwrap().unwrap();
        }
        let view = engine.view(db.db).unwrap();
        let (me, height) = (NodeId::from_bytes([7; 32]), view.checkpoint().height);
        let claim = Claim::of(&me, height, &view.preimage());
        let proof = show(&engine, &claim).unwrap();
        assert!(holds(&claim, &proof));
        assert!(proof.len() < PROOF_BYTES_MAX / 4, "{}", proof.len());
        // Of another node, another root, with more cells; cut, and with one bit of each kilobyte wrong.
        assert!(!holds(&Claim::of(&NodeId::default(), height, &view.preimage()), &proof));
        assert!(!holds(&Claim { cells: claim.cells + 1, ..claim }, &proof));
        assert!(!holds(&Claim { root: Default::default(), ..claim }, &proof));
        assert!(!holds(&claim, &proof[..proof.len() - 1]));
        assert!(!holds(&claim, &[]));
        for at in (0..proof.len()).step_by(997) {
            let mut bad = proof.clone();
            bad[at] ^= 1;
            assert!(!holds(&claim, &bad), "a flip at {at} passes");
        }
    }
}
