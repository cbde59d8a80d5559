//! Test only: a node that lies. It changes the bytes of its stored pages and makes their checksums right again, then serves them.
//!
//! Why     the demo shows that a client refuses each of its answers. It serves through the same code as an honest node: only its disk
//!         differs, which is what a real liar would do.
//! Guard   it starts only where `FLUENCE_DEMO_LIAR=1` is set and the chain, if any, is local. It destroys the data it is given: run it
//!         on a copy.

use crate::config::StorageConfig;
use crate::storage::{NodeError, Prepared, StorageNode, connect};
use fluence_engine::damage::forge_page;
use fluence_types::limits::PAGE_CELLS;
use tokio_util::sync::CancellationToken;

/// The variable that must be `1`.
pub const ENABLE: &str = "FLUENCE_DEMO_LIAR";
/// Bytes of a cell in a page.
const CELL_BYTES: usize = 256;

/// What the liar changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie {
    /// Leaves the pages that hold header cells alone, so that a client gets as far as asking for data.
    pub spare_headers: bool,
}

/// Runs the liar until `shutdown`: one bit of every cell of every page is flipped, checksums redone.
///
/// # Errors
/// [`NodeError::Unsupported`] without the guard, else as [`crate::run_storage`].
pub async fn run(config: StorageConfig, lie: Lie, shutdown: CancellationToken) -> Result<(), NodeError> {
    if std::env::var_os(ENABLE).is_none_or(|v| v != "1") {
        return Err(NodeError::Unsupported(format!("the lying node is for the demo only: it needs {ENABLE}=1")));
    }
    let chain = connect(config.chain.as_ref()).await?;
    StorageNode::start_with(config, chain, &mut |prepared| spoil(prepared, lie)).await?.run(shutdown).await
}

fn spoil(prepared: &Prepared<'_>, lie: Lie) -> Result<(), NodeError> {
    if let Some(info) = prepared.chain.map(|c| c.info()).filter(|info| !info.is_local()) {
        return Err(NodeError::Unsupported(format!(
            "the lying node runs on local chains only, not on {}",
            info.chain_id
        )));
    }
    let mut spoilt = 0u64;
    for db in prepared.engine.databases() {
        // The one whose identity it has stole may run as well: a second voter under one key would convict it.
        crate::cluster::forget_members(prepared.engine, db)?;
        let Ok(view) = prepared.engine.view(db) else { continue };
        for segment in view.segments() {
            let cells = segment.preimage.cells;
            let header = view.header(segment.root).map_or(0, |h| h.cells.len() as u64);
            let first = if lie.spare_headers { header.div_ceil(PAGE_CELLS as u64) } else { 0 };
            for page in first..cells.div_ceil(PAGE_CELLS as u64) {
                forge_page(prepared.store, db, segment.root, cells, page, &mut flip)?;
                spoilt += 1;
            }
        }
    }
    tracing::warn!(pages = spoilt, "THIS NODE LIES: its pages were changed and their checksums redone");
    Ok(())
}

/// Flips the lowest bit of the first scalar of every cell: still canonical, but for one value in 2^255.
fn flip(page: &mut [u8]) {
    page.chunks_mut(CELL_BYTES).for_each(|cell| cell[31] ^= 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
    use fluence_engine::{Engine, EngineConfig, MemStore, Store};
    use fluence_types::answer::{CellRange, OpenRequest, SegmentRanges};
    use fluence_types::{ProjectionId, Version};
    use std::sync::Arc;

    #[test]
    fn a_liar_serves_changed_cells_as_if_nothing_were_wrong_with_them() {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let engine = Engine::open(Arc::clone(&store), EngineConfig::default()).unwrap();
        let (mut db, schema) = (TestDb::new(1, 1), schema(1, 1));
        db.create(&engine).unwrap();
        db.act(&engine, define(0, schema.clone())).unwrap().unwrap();
        let segment = TestSegment::new(1, &schema, 1000, 20);
        db.act(&engine, commit(&[(0, 0)], vec![change(0, vec![segment.inline()], vec![])])).unwrap().unwrap();
        spoil(&Prepared { store: store.as_ref(), engine: &engine, chain: None }, Lie { spare_headers: true }).unwrap();

        assert!(engine.scrub(&mut |_| true).is_empty(), "every checksum is right");
        let header = engine.view(db.db).unwrap().header(segment.root()).unwrap();
        assert_eq!(header.cells[..], segment.cells[..header.cells.len()]);
        let ranges = vec![CellRange { first: 70, count: 2 }].try_into().unwrap();
        let segments = vec![SegmentRanges { segment: segment.root(), ranges }].try_into().unwrap();
        let request = OpenRequest { db: db.db, projection: ProjectionId(0), version: Version(1), segments };
        let (_, opened) = engine.open_cells(&request).unwrap();
        for (served, sealed) in opened[0].cells.iter().zip(&segment.cells[70..]) {
            assert_ne!(served, sealed);
        }
    }
}
