//! What this gateway's merges of segments wait for: transactions of several statements, and scans of several portions.
//!
//! Why     nodes open only what is live: a merge ends a scan that has not read everything yet in a conflict, and a transaction that read a table
//!         before it and after it has read two versions
//! How     a merge takes effect while no such transaction is open, and one that begins waits for it, the time of one commit; nobody else waits
//! Limit   a commit that finds a table full merges all the same, and so may another gateway

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// A transaction of several statements that is open.
pub(crate) type Block = OwnedRwLockReadGuard<()>;

/// Scans under way, by table, and transactions that are open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    scans: Arc<Mutex<HashMap<String, usize>>>,
    blocks: Arc<RwLock<()>>,
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scan is under way until what this gives is dropped.
    pub(crate) fn pin(&self, table: &str) -> Pin {
        *self.lock().entry(table.to_owned()).or_default() += 1;
        Pin { pins: self.clone(), table: table.to_owned() }
    }

    fn holds(&self, table: &str) -> bool {
        self.lock().contains_key(table)
    }

    /// A transaction is open until what this gives is dropped. Waits for a merge that takes effect.
    pub(crate) async fn block(&self) -> Block {
        Arc::clone(&self.blocks).read_owned().await
    }

    /// Has none begin until what this gives is dropped; `None` where one is open, or a scan of the table is under way.
    pub(crate) fn alone(&self, table: &str) -> Option<OwnedRwLockWriteGuard<()>> {
        let alone = Arc::clone(&self.blocks).try_write_owned().ok()?;
        (!self.holds(table)).then_some(alone)
    }
}

/// A scan under way.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Pins,
    table: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&self.table) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_held_until_the_last_scan_ends() {
        let pins = Pins::default();
        let (a, b) = (pins.pin("t"), pins.clone().pin("t"));
        drop(a);
        assert!(pins.holds("t") && !pins.holds("u"));
        assert!(pins.alone("t").is_none() && pins.alone("u").is_some());
        drop(b);
        assert!(!pins.holds("t"));
    }

    #[tokio::test]
    async fn a_merge_waits_for_transactions_and_they_for_it() {
        let pins = Pins::default();
        let open = pins.block().await;
        assert!(pins.alone("t").is_none());
        drop(open);
        let merging = pins.alone("t").unwrap();
        let begun = tokio::spawn({
            let pins = pins.clone();
            async move { pins.block().await }
        });
        tokio::task::yield_now().await;
        assert!(!begun.is_finished());
        drop(merging);
        drop(begun.await.unwrap());
        assert!(pins.alone("t").is_some());
    }
}
