//! The committees of a cluster by consensus epoch, for whoever verifies certificates.

use crate::scheme::Scheme;
use commonware_consensus::types::Epoch;
use commonware_cryptography::certificate::{Provider, Scoped};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Epochs whose committees are remembered.
const EPOCHS_KEPT: usize = 8;

/// Shared between the parts of a replica.
#[derive(Clone, Default)]
pub(crate) struct Committees(Arc<RwLock<BTreeMap<u64, Arc<Scheme>>>>);

impl Committees {
    pub(crate) fn register(&self, epoch: u64, scheme: Scheme) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(epoch, Arc::new(scheme));
        while known.len() > EPOCHS_KEPT {
            known.pop_first();
        }
    }
}

impl Provider for Committees {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, scope: Epoch) -> Option<Scoped<Scheme>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&scope.get()).cloned().map(Scoped::scheme)
    }
}
