//! Tables in which a scan of several portions is under way: their segments are not merged away from under it by this gateway.
//!
//! Why     nodes open only what is live, so a merge ends a scan that has not read everything yet in a conflict
//! Limit   a commit that finds a table full merges all the same, and so may another gateway

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many scans are under way, by table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins(Arc<Mutex<HashMap<String, usize>>>);

impl Pins {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scan is under way until what this gives is dropped.
    pub(crate) fn pin(&self, table: &str) -> Pin {
        *self.lock().entry(table.to_owned()).or_default() += 1;
        Pin { pins: self.clone(), table: table.to_owned() }
    }

    /// Whether one is.
    pub(crate) fn holds(&self, table: &str) -> bool {
        self.lock().contains_key(table)
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
        drop(b);
        assert!(!pins.holds("t"));
    }
}
