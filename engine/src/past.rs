//! Earlier roots: what a node owes is fixed before the beacon is known, and the database goes on meanwhile.
//!
//! Kept    with every block that changed the root, its parts and what the block did to the slots of the stored tree. Going back
//!         undoes one block after the other, from the state now.
//! Until   `retention_blocks` later: as long the cells of every segment that the root names are kept, though they may have left the
//!         stored tree since.
//! Pinned  what the chain says is owed, or may still challenge, is kept longer: [`crate::Engine::pin`].
//! Source  DESIGN section 8: "each at its last certified root at or before epoch start"

use crate::keys::{self, Cf};
use crate::state::{DbState, damaged, decode};
use crate::store::{Batch, Store, StoreError, scan_all};
use crate::witness::WitnessError;
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_crypto::roots::db_root;
use fluence_crypto::sum_tree::SumTree;
use fluence_crypto::{Fr, field};
use fluence_types::answer::OpenRefusal;
use fluence_types::tree::DbPreimage;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, Height};
use std::collections::BTreeMap;

/// A block as it is undone.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
struct Record {
    /// Parts of the root after the block.
    after: DbPreimage,
    /// Slots before it.
    slots: u64,
    /// Slots that it changed, and what was in them.
    undo: Vec<(u64, FieldBytes, u64)>,
}

/// A database at one of its roots, as far as a storage proof needs it.
pub(crate) struct Past {
    pub(crate) preimage: DbPreimage,
    pub(crate) stored: SumTree,
}

impl Past {
    /// The present.
    pub(crate) fn now(state: &DbState) -> Self {
        Self { preimage: state.preimage, stored: state.stored.clone() }
    }

    /// The state at `root`, going back from now.
    ///
    /// # Errors
    /// [`WitnessError::Gone`] where no kept height had it.
    pub(crate) fn at(store: &dyn Store, state: &DbState, root: DbRoot) -> Result<Self, WitnessError> {
        if state.head.root == root {
            return Ok(Self::now(state));
        }
        let db = state.head.db;
        let read = |height: u64| -> Result<Option<Record>, WitnessError> {
            let record = store.get(Cf::History, &keys::past(db, Height(height)));
            let record = record.and_then(|bytes| bytes.map(|b| decode("past record", &b)).transpose());
            record.map_err(|e| OpenRefusal::Internal(e.to_string()).into())
        };
        let gone = WitnessError::Gone { db, asked: root, height: state.head.height };
        let mut leaves = state.stored.leaves().to_vec();
        let mut height = state.head.height.0;
        while let Some(record) = read(height)? {
            for (slot, digest, cells) in &record.undo {
                let leaf = leaves.get_mut(*slot as usize);
                let leaf =
                    leaf.ok_or_else(|| OpenRefusal::Internal(damaged(db, "a past slot".to_owned()).to_string()))?;
                *leaf = (field::from_bytes(digest), *cells);
            }
            leaves.truncate(record.slots as usize);
            height = height.checked_sub(1).ok_or_else(|| gone.clone())?;
            let Some(before) = read(height)? else { break };
            if db_root(&before.after) == root {
                let stored = SumTree::new(leaves);
                let (stored_root, cells) = stored.root();
                // Our own records, but a proof made from wrong ones would be refused, and cost the collateral.
                if (before.after.stored_root.to_field(), before.after.stored_cells)
                    != (field::to_bytes(&stored_root), cells)
                {
                    let why = format!("the records of height {height} do not make its stored root");
                    return Err(OpenRefusal::Internal(damaged(db, why).to_string()).into());
                }
                return Ok(Self { preimage: before.after, stored });
            }
        }
        Err(gone)
    }
}

/// The latest height at which the database had `root`, going back as far as records are kept.
pub(crate) fn height_of(store: &dyn Store, state: &DbState, root: DbRoot) -> Result<Option<Height>, StoreError> {
    let db = state.head.db;
    let mut height = state.head.height;
    while let Some(bytes) = store.get(Cf::History, &keys::past(db, height))? {
        let record: Record = decode("past record", &bytes)?;
        if db_root(&record.after) == root {
            return Ok(Some(height));
        }
        let Some(below) = height.0.checked_sub(1) else { break };
        height = Height(below);
    }
    Ok(None)
}

/// Writes the record of the block that made `after` of `before`, and drops the one whose time is over.
pub(crate) fn record(batch: &mut Batch, before: Option<&DbState>, after: &DbState, pin: Option<Height>) {
    let empty = (Fr::from(0u64), 0);
    let old = before.map_or(&[][..], |state| state.stored.leaves());
    let undo = after.stored.leaves().iter().enumerate().filter_map(|(slot, leaf)| {
        let was = old.get(slot).copied().unwrap_or(empty);
        (was != *leaf && slot < old.len()).then(|| (slot as u64, field::to_bytes(&was.0), was.1))
    });
    let record = Record { after: after.preimage, slots: old.len() as u64, undo: undo.collect() };
    let (db, height) = (after.head.db, after.head.height.0);
    batch.put(Cf::History, keys::past(db, Height(height)), fluence_types::codec::encode(&record));
    if let Some(over) = height.checked_sub(after.head.rules.retention_blocks).map(Height)
        && pin.is_none_or(|pin| over < pin)
    {
        batch.delete(Cf::History, keys::past(db, over));
    }
}

/// Writes the record from which going back begins: nothing before `state` is known here.
pub(crate) fn begin(batch: &mut Batch, state: &DbState) {
    let record = Record { after: state.preimage, slots: state.stored.len(), undo: Vec::new() };
    let key = keys::past(state.head.db, state.head.height);
    batch.put(Cf::History, key, fluence_types::codec::encode(&record));
}

/// Drops the records that the pin `before` kept beyond the retention and `now` does not.
pub(crate) fn forget(batch: &mut Batch, state: &DbState, before: Height, now: Height) {
    let (db, head) = (state.head.db, state.head.height.0);
    let end = now.0.min((head + 1).saturating_sub(state.head.rules.retention_blocks));
    for height in before.0..end {
        batch.delete(Cf::History, keys::past(db, Height(height)));
    }
}

/// All pins.
pub(crate) fn pins(store: &dyn Store) -> Result<BTreeMap<DatabaseId, Height>, StoreError> {
    let mut found = BTreeMap::new();
    scan_all(store, Cf::State, &[keys::PIN], 1024, &mut |(key, value)| {
        let db = <[u8; 16]>::try_from(&key[1..]).map_err(|_| StoreError::Damaged("a pin's key".to_owned()))?;
        found.insert(DatabaseId::from_bytes(db), decode("pin", &value)?);
        Ok(())
    })?;
    Ok(found)
}
