//! What was found to hold, by the hash of all that it depends on: the same bytes are not checked twice.
//!
//! Why     the members of a cluster at rest show one certificate and one catalogue for as long as nothing is written, and checking them is two
//!         pairings and some thirty permutations
//! Sound   what is kept is what a function of just the hashed bytes gave (BLAKE3, whole certificate and whole committee). Nothing that did
//!         not hold is kept
//! Memory  the last [`KEPT`] of each kind

use fluence_crypto::roots::{self, CatalogueError};
use fluence_crypto::sign::SignError;
use fluence_crypto::vote;
use fluence_types::DbRoot;
use fluence_types::block::{Certificate, Members};
use fluence_types::codec;
use fluence_types::tree::CatalogueOpening;
use std::collections::{HashMap, VecDeque};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Results that are kept of a kind.
const KEPT: usize = 1024;

struct Memo<V>(Mutex<Kept<V>>);

struct Kept<V> {
    values: HashMap<[u8; 32], V>,
    /// The oldest first.
    order: VecDeque<[u8; 32]>,
}

impl<V: Copy> Memo<V> {
    fn new() -> Self {
        Self(Mutex::new(Kept { values: HashMap::new(), order: VecDeque::new() }))
    }

    /// What `compute` gives, which depends on `parts` alone.
    fn get<E>(&self, parts: &[&[u8]], compute: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let key = *hasher.finalize().as_bytes();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).values.get(&key).copied();
        if let Some(value) = known {
            return Ok(value);
        }
        let value = compute()?;
        let Kept { values, order } = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if values.insert(key, value).is_none() {
            order.push_back(key);
            if order.len() > KEPT
                && let Some(oldest) = order.pop_front()
            {
                values.remove(&oldest);
            }
        }
        Ok(value)
    }
}

/// [`vote::verify_certificate`].
pub(super) fn verify_certificate(certificate: &Certificate, members: &Members) -> Result<(), SignError> {
    static HELD: LazyLock<Memo<()>> = LazyLock::new(Memo::new);
    let parts = [codec::encode(certificate), codec::encode(members)];
    HELD.get(&[&parts[0], &parts[1]], || vote::verify_certificate(certificate, members))
}

/// [`roots::verify_catalogue`].
pub(super) fn verify_catalogue(opening: &CatalogueOpening) -> Result<DbRoot, CatalogueError> {
    static ROOTS: LazyLock<Memo<DbRoot>> = LazyLock::new(Memo::new);
    ROOTS.get(&[&codec::encode(opening)], || roots::verify_catalogue(opening))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_asked_again_and_what_is_kept_is_bounded() {
        let memo = Memo::new();
        let mut asked = 0;
        let mut get = |key: &[&[u8]], value: Result<u64, ()>| {
            let mut computed = false;
            let got = memo.get(key, || {
                computed = true;
                value
            });
            asked += u64::from(computed);
            (got, computed)
        };
        assert_eq!(get(&[b"a"], Err(())), (Err(()), true));
        assert_eq!(get(&[b"a"], Ok(1)), (Ok(1), true));
        assert_eq!(get(&[b"a"], Err(())), (Ok(1), false));
        // Parts do not run into each other.
        assert_eq!(get(&[b"ab", b"c"], Ok(2)), (Ok(2), true));
        assert_eq!(get(&[b"a", b"bc"], Ok(3)), (Ok(3), true));
        for n in 0..2 * KEPT as u64 {
            assert_eq!(get(&[&n.to_le_bytes()], Ok(n)), (Ok(n), true));
        }
        assert_eq!(get(&[b"a"], Ok(9)), (Ok(9), true));
        let Kept { values, order } = &*memo.0.lock().unwrap();
        assert_eq!((values.len(), order.len()), (KEPT, KEPT));
    }
}
