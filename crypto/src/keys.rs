//! Key derivation: from the root key to every key of every segment.
//!
//! ```text
//! root key ── table key (database, table, key epoch) ── lane key (segment id, lane, purpose) ── cells, fences: GGM root ── group keys
//!     │                                                                                      └─ sums: first mask key ── levels
//!     ├── schema key (database, table)    ├── segment id key    └── owner's signing key
//! ```
//! Step     `BLAKE3 derive_key(tag, key || length || part || ..)`: a tag of [`domain`] per arrow, every part led by its length
//! Rule     a key that encrypts is named by a segment id, and segment ids never repeat with other data; sequence numbers select no key
//! Source   DESIGN sections 3 and 5; `docs/protocol/keys.md`

use crate::domain;
use crate::ggm::GroupKeys;
use crate::mask::LaneMask;
use crate::secret::Secret;
use crate::sign::OwnerKey;
use fluence_types::{DatabaseId, LaneId, SegmentId, TableId};
use rand::{CryptoRng, RngCore};
use zeroize::Zeroize;

/// Derives a key: tag, parent, and parts that are each led by their length.
#[must_use]
pub fn derive(tag: &'static str, key: &Secret<32>, parts: &[&[u8]]) -> Secret<32> {
    let mut hasher = blake3::Hasher::new_derive_key(tag);
    key.expose(|k| hasher.update(k));
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let out = Secret::fill(|bytes| hasher.finalize_xof().fill(bytes));
    hasher.zeroize();
    out
}

/// What a lane key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Blocks of a byte lane.
    Cells = 1,
    /// Masks of a sum lane.
    Sums = 2,
    /// Fences of a segment; they are no lane, so the lane is [`FENCES`].
    Fences = 3,
}

/// The lane id that stands for the fences.
pub const FENCES: LaneId = LaneId(u16::MAX);

/// An owner's root key: the recovery phrase gives it, and it gives everything else.
pub struct RootKey(Secret<32>);

/// The key of a table in one key epoch.
pub struct TableKey(Secret<32>);

/// The key of one lane of one segment, for one purpose.
pub struct LaneKey {
    purpose: Purpose,
    key: Secret<32>,
}

impl RootKey {
    /// Takes the bytes that the recovery phrase stands for.
    #[must_use]
    pub const fn new(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// A fresh root key.
    #[must_use]
    pub fn random(rng: &mut (impl CryptoRng + RngCore + ?Sized)) -> Self {
        Self(Secret::random(rng))
    }

    /// Lends the bytes, for the recovery phrase and the keystore.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.0.expose(f)
    }

    /// The key of a table in a key epoch.
    #[must_use]
    pub fn table(&self, db: &DatabaseId, table: &TableId, key_epoch: u64) -> TableKey {
        let parts: [&[u8]; 3] = [db.as_bytes(), &table.0.to_le_bytes(), &key_epoch.to_le_bytes()];
        TableKey(derive(domain::KEY_TABLE, &self.0, &parts))
    }

    /// The key that seals the schemas of a table, equal in all key epochs. It seals more than once: use [`crate::aead::seal_salted`].
    #[must_use]
    pub fn schema_key(&self, db: &DatabaseId, table: &TableId) -> Secret<32> {
        derive(domain::KEY_SCHEMA, &self.0, &[db.as_bytes(), &table.0.to_le_bytes()])
    }

    /// The owner's signing key: the first of a sequence of candidates that is in range, and the first one practically always is.
    #[must_use]
    pub fn owner_key(&self) -> OwnerKey {
        let mut candidates = (0u64..).map(|n| derive(domain::KEY_OWNER, &self.0, &[&n.to_le_bytes()]));
        candidates
            .find_map(|secret| OwnerKey::new(&secret).ok())
            .expect("half of all 32-byte strings and more are in range")
    }

    /// The id of a segment: BLAKE3 under the owner's key of fresh randomness and the digest of the plaintext. A generator that repeats itself (a
    /// restored snapshot, a second gateway) still cannot name other data by the same id, and so repeats no key or mask.
    #[must_use]
    pub fn segment_id(&self, random: &[u8; 32], plaintext_digest: &[u8; 32]) -> SegmentId {
        segment_id(&self.0, random, plaintext_digest)
    }
}

/// [`RootKey::segment_id`] for a holder of the key alone.
#[must_use]
pub fn segment_id(owner: &Secret<32>, random: &[u8; 32], plaintext_digest: &[u8; 32]) -> SegmentId {
    let out = derive(domain::KEY_SEGMENT_ID, owner, &[random, plaintext_digest]);
    let mut id = [0; 16];
    out.expose(|bytes| id.copy_from_slice(&bytes[..16]));
    SegmentId::from_bytes(id)
}

impl TableKey {
    /// Takes a table key that was handed over whole.
    #[must_use]
    pub const fn new(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// Lends the bytes, for a grant of the whole table.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.0.expose(f)
    }

    /// The key of a lane of a segment.
    #[must_use]
    pub fn lane(&self, segment: &SegmentId, lane: LaneId, purpose: Purpose) -> LaneKey {
        let parts: [&[u8]; 3] = [segment.as_bytes(), &lane.0.to_le_bytes(), &[purpose as u8]];
        LaneKey { purpose, key: derive(domain::KEY_LANE, &self.0, &parts) }
    }

    /// The key of a segment's fences.
    #[must_use]
    pub fn fences(&self, segment: &SegmentId) -> LaneKey {
        self.lane(segment, FENCES, Purpose::Fences)
    }
}

impl LaneKey {
    /// What it is for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The group keys.
    ///
    /// # Panics
    /// If this is a key for sums.
    #[must_use]
    pub fn group_keys(&self) -> GroupKeys {
        assert!(self.purpose != Purpose::Sums, "sum lanes have masks, not blocks");
        GroupKeys::from_root(self.key.expose(|k| Secret::new(*k)))
    }

    /// The masks.
    ///
    /// # Panics
    /// If this is a key for cells or fences.
    #[must_use]
    pub fn mask(&self) -> LaneMask {
        assert!(self.purpose == Purpose::Sums, "only sum lanes have masks");
        LaneMask::new(&self.key)
    }
}

/// Commitment to a lane key, in the segment header: a node or a grantee's peer that was given another key is found out.
#[must_use]
pub fn commitment(key: &LaneKey) -> [u8; 32] {
    derive(domain::KEY_COMMITMENT, &key.key, &[&[key.purpose as u8]]).expose(|bytes| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn root(byte: u8) -> RootKey {
        RootKey::new(Secret::new([byte; 32]))
    }

    #[test]
    fn every_path_gives_another_key() {
        let mut seen = BTreeSet::new();
        for (db, table, epoch) in [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)] {
            let (db, table) = (DatabaseId::from_bytes([db; 16]), TableId(table));
            let key = root(1).table(&db, &table, epoch);
            assert!(seen.insert(key.expose(|k| *k)));
            for (segment, lane, purpose) in [
                (1, 0, Purpose::Cells),
                (2, 0, Purpose::Cells),
                (1, 1, Purpose::Cells),
                (1, 0, Purpose::Sums),
                (1, 0, Purpose::Fences),
                (1, u16::MAX, Purpose::Fences),
            ] {
                let lane = key.lane(&SegmentId::from_bytes([segment; 16]), LaneId(lane), purpose);
                assert!(seen.insert(lane.key.expose(|k| *k)));
                assert!(seen.insert(commitment(&lane)));
            }
        }
        let (db, table) = (DatabaseId::from_bytes([1; 16]), TableId(1));
        assert!(seen.insert(root(1).schema_key(&db, &table).expose(|k| *k)));
        assert!(seen.insert(root(2).schema_key(&db, &table).expose(|k| *k)));
        assert!(seen.insert(root(1).expose(|k| *k)));
    }

    #[test]
    fn parts_that_concatenate_alike_derive_apart() {
        let key = Secret::new([1; 32]);
        let (a, b) = (derive(domain::KEY_LANE, &key, &[b"ab", b"c"]), derive(domain::KEY_LANE, &key, &[b"a", b"bc"]));
        assert!(!a.ct_eq(&b));
        assert!(!a.ct_eq(&derive(domain::KEY_TABLE, &key, &[b"ab", b"c"])));
        assert!(a.ct_eq(&derive(domain::KEY_LANE, &key, &[b"ab", b"c"])));
    }

    #[test]
    fn segment_id_follows_randomness_and_plaintext() {
        let id = |root: &RootKey, random, digest| root.segment_id(&[random; 32], &[digest; 32]);
        assert_eq!(id(&root(1), 1, 1), id(&root(1), 1, 1));
        let all = [id(&root(1), 1, 1), id(&root(1), 2, 1), id(&root(1), 1, 2), id(&root(2), 1, 1)];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn owner_key_is_a_function_of_the_root_key() {
        assert_eq!(root(1).owner_key().address(), root(1).owner_key().address());
        assert_ne!(root(1).owner_key().address(), root(2).owner_key().address());
    }
}
