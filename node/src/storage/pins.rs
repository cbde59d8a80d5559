//! What the chain may still ask for stays provable: the lowest height of each database that an open epoch names is pinned in the engine.
//!
//! Epoch   on the first look, each database's height now and the height of the root that is owed. A root that is registered later is
//!         of a later height than the look before it.
//! Pin     the lowest of the epochs that may still be challenged. After a restart the pin of before counts as the first epoch's, so
//!         that it moves only when a whole window has been seen.
//! Source  `docs/decisions/0005-earlier-roots.md`

use crate::chain::{ChainInfo, Debt};
use fluence_engine::Engine;
use fluence_engine::store::StoreError;
use fluence_types::{DatabaseId, Epoch, Height};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The heights that open epochs name.
#[derive(Debug, Default)]
pub(super) struct Pins(BTreeMap<Epoch, BTreeMap<DatabaseId, Height>>);

impl Pins {
    /// Whether an epoch was not looked at yet.
    pub(super) fn is_new(&self, epoch: Epoch) -> bool {
        !self.0.contains_key(&epoch)
    }

    /// Takes an epoch in, and pins what follows. Reads and writes the store: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`StoreError`]; the epoch is then new still.
    pub(super) fn take(
        &mut self,
        engine: &Engine,
        info: &ChainInfo,
        epoch: Epoch,
        debt: Option<&Debt>,
    ) -> Result<(), StoreError> {
        let first = self.0.is_empty();
        let mut heights = BTreeMap::new();
        for db in engine.databases() {
            let Some(now) = engine.checkpoint(db).map(|c| c.height) else { continue };
            let owed = debt.and_then(|d| d.owed.iter().find(|o| o.db == db));
            let owed = owed.map_or(Ok(None), |o| engine.height_of(db, o.root))?;
            let before = engine.pinned(db).filter(|_| first);
            heights.insert(db, [Some(now), owed, before].into_iter().flatten().min().unwrap_or(now));
        }
        self.0.insert(epoch, heights);
        let open = (info.window_blocks + 2 * info.response_blocks).div_ceil(info.epoch_blocks) + 1;
        self.0.retain(|e, _| e.0 + open >= epoch.0);
        let mut lowest: BTreeMap<DatabaseId, Height> = BTreeMap::new();
        for (db, height) in self.0.values().flatten() {
            lowest.entry(*db).and_modify(|l| *l = (*l).min(*height)).or_insert(*height);
        }
        let pinned = lowest.into_iter().try_for_each(|(db, height)| engine.pin(db, height));
        if pinned.is_err() {
            self.0.remove(&epoch);
        }
        pinned
    }
}

/// [`Pins::take`] on a thread that may block.
pub(super) async fn take(
    mut pins: Pins,
    engine: Arc<Engine>,
    info: ChainInfo,
    epoch: Epoch,
    debt: Option<Debt>,
) -> (Pins, Result<(), String>) {
    let work = tokio::task::spawn_blocking(move || {
        let taken = pins.take(&engine, &info, epoch, debt.as_ref()).map_err(|e| e.to_string());
        (pins, taken)
    });
    work.await.unwrap_or_else(|e| (Pins::default(), Err(e.to_string())))
}
