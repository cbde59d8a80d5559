//! Every key of the store, in one place: column families, prefixes, and how a key is put together.
//!
//! ```text
//! State    'H' db                      head and all small replicated state of a database
//!          'W' db address              a writer: allowed, next sequence number, last operation
//!          'P' db projection           a catalogue entry
//!          'C' db projection           a public schema
//!          'S' db root                 a stored segment
//!          'T' db table                 a table's lease
//!          'D' db root                  a segment that left the stored tree, its cells kept for proofs of earlier roots
//!          'N' db                       the lowest height that must stay provable (local, not replicated)
//!          'L' db name                  a note of this node's own on the database (local, not replicated)
//!          'U' root                    an upload that no operation has named yet (local, not replicated)
//!          'F' db root                 a stored segment whose cells are not all here yet (local, not replicated)
//!          'O' db                      where the log begins here, if not at genesis (local, not replicated)
//! History  'B' db height               block hash and root after it
//!          'V' db height               what the block changed, to go back to the root before it
//!          'I' db segment id           an id that was used, for ever
//!          'R' db operation            what became of an operation
//!          'M' db epoch                the committee of a consensus epoch
//! Pages    'p' db root page            a page record: cells, then their checksum
//! Nodes    'n' db root level group     eight sibling digests of a segment tree, then their checksum
//! ```
//! Rule    numbers in keys are big-endian, so that order of keys is order of numbers. Keys that begin with byte 0 belong to the store.

use fluence_types::{Address, DatabaseId, Height, OpId, ProjectionId, SegmentId, SegmentRoot, TableId};

/// A column family: a key space with its own tuning, in the same atomic batch as all others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cf {
    /// Small records read at every opening of the engine.
    State,
    /// What only grows: blocks, segment ids, receipts.
    History,
    /// Page records, 16 KiB each.
    Pages,
    /// Tree nodes, 256 bytes each.
    Nodes,
}

impl Cf {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::State, Self::History, Self::Pages, Self::Nodes];

    /// Whether a store may open only if this family can be read. Damage to pages and nodes is found record by record, and an engine
    /// that has lost some of them still has the rest to serve.
    #[must_use]
    pub const fn must_be_whole(self) -> bool {
        matches!(self, Self::State | Self::History)
    }

    /// The name under which a store keeps it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::History => "history",
            Self::Pages => "pages",
            Self::Nodes => "nodes",
        }
    }
}

/// Prefix of [`Cf::State`]: heads.
pub const HEAD: u8 = b'H';
/// Prefix of [`Cf::State`]: writers.
pub const WRITER: u8 = b'W';
/// Prefix of [`Cf::State`]: catalogue entries.
pub const PROJECTION: u8 = b'P';
/// Prefix of [`Cf::State`]: public schemas.
pub const SCHEMA: u8 = b'C';
/// Prefix of [`Cf::State`]: stored segments.
pub const SEGMENT: u8 = b'S';
/// Prefix of [`Cf::State`]: leases of tables.
pub const LEASE: u8 = b'T';
/// Prefix of [`Cf::State`]: segments that left the stored tree.
pub const COLLECTED: u8 = b'D';
/// Prefix of [`Cf::State`]: pins.
pub const PIN: u8 = b'N';
/// Prefix of [`Cf::State`]: notes.
pub const NOTE: u8 = b'L';
/// Prefix of [`Cf::State`]: uploads.
pub const UPLOAD: u8 = b'U';
/// Prefix of [`Cf::State`]: fills.
pub const FILL: u8 = b'F';
/// Prefix of [`Cf::State`]: origins.
pub const ORIGIN: u8 = b'O';
/// Prefix of [`Cf::History`]: blocks.
pub const BLOCK: u8 = b'B';
/// Prefix of [`Cf::History`]: how to go back.
pub const PAST: u8 = b'V';
/// Prefix of [`Cf::History`]: used segment ids.
pub const SEGMENT_ID: u8 = b'I';
/// Prefix of [`Cf::History`]: receipts of operations.
pub const RECEIPT: u8 = b'R';
/// Prefix of [`Cf::History`]: committees.
pub const COMMITTEE: u8 = b'M';
/// Prefix of [`Cf::Pages`].
pub const PAGE: u8 = b'p';
/// Prefix of [`Cf::Nodes`].
pub const NODE: u8 = b'n';

fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(prefix);
    parts.iter().for_each(|p| key.extend_from_slice(p));
    key
}

/// All keys of `prefix` of one database.
#[must_use]
pub fn of_database(prefix: u8, db: DatabaseId) -> Vec<u8> {
    key(prefix, &[db.as_bytes()])
}
/// A database's head.
#[must_use]
pub fn head(db: DatabaseId) -> Vec<u8> {
    of_database(HEAD, db)
}
/// A writer.
#[must_use]
pub fn writer(db: DatabaseId, address: Address) -> Vec<u8> {
    key(WRITER, &[db.as_bytes(), address.as_bytes()])
}
/// A catalogue entry.
#[must_use]
pub fn projection(db: DatabaseId, id: ProjectionId) -> Vec<u8> {
    key(PROJECTION, &[db.as_bytes(), &id.0.to_be_bytes()])
}
/// A public schema.
#[must_use]
pub fn schema(db: DatabaseId, id: ProjectionId) -> Vec<u8> {
    key(SCHEMA, &[db.as_bytes(), &id.0.to_be_bytes()])
}
/// A stored segment.
#[must_use]
pub fn segment(db: DatabaseId, root: SegmentRoot) -> Vec<u8> {
    key(SEGMENT, &[db.as_bytes(), root.to_field().as_bytes()])
}
/// A table's lease.
#[must_use]
pub fn lease(db: DatabaseId, table: TableId) -> Vec<u8> {
    key(LEASE, &[db.as_bytes(), &table.0.to_be_bytes()])
}
/// A segment that left the stored tree.
#[must_use]
pub fn collected(db: DatabaseId, root: SegmentRoot) -> Vec<u8> {
    key(COLLECTED, &[db.as_bytes(), root.to_field().as_bytes()])
}
/// A pin.
#[must_use]
pub fn pin(db: DatabaseId) -> Vec<u8> {
    of_database(PIN, db)
}
/// A note.
#[must_use]
pub fn note(db: DatabaseId, name: &[u8]) -> Vec<u8> {
    key(NOTE, &[db.as_bytes(), name])
}
/// A committee.
#[must_use]
pub fn committee(db: DatabaseId, epoch: u64) -> Vec<u8> {
    key(COMMITTEE, &[db.as_bytes(), &epoch.to_be_bytes()])
}
/// An upload.
#[must_use]
pub fn upload(root: SegmentRoot) -> Vec<u8> {
    key(UPLOAD, &[root.to_field().as_bytes()])
}
/// A fill.
#[must_use]
pub fn fill(db: DatabaseId, root: SegmentRoot) -> Vec<u8> {
    key(FILL, &[db.as_bytes(), root.to_field().as_bytes()])
}
/// An origin.
#[must_use]
pub fn origin(db: DatabaseId) -> Vec<u8> {
    of_database(ORIGIN, db)
}
/// A block of the log.
#[must_use]
pub fn block(db: DatabaseId, height: Height) -> Vec<u8> {
    key(BLOCK, &[db.as_bytes(), &height.0.to_be_bytes()])
}
/// How to go back over a block.
#[must_use]
pub fn past(db: DatabaseId, height: Height) -> Vec<u8> {
    key(PAST, &[db.as_bytes(), &height.0.to_be_bytes()])
}
/// A used segment id.
#[must_use]
pub fn segment_id(db: DatabaseId, id: SegmentId) -> Vec<u8> {
    key(SEGMENT_ID, &[db.as_bytes(), id.as_bytes()])
}
/// A receipt.
#[must_use]
pub fn receipt(db: DatabaseId, op: OpId) -> Vec<u8> {
    key(RECEIPT, &[db.as_bytes(), op.as_bytes()])
}
/// A page of a segment, 64 cells.
#[must_use]
pub fn page(db: DatabaseId, root: SegmentRoot, page: u64) -> Vec<u8> {
    key(PAGE, &[db.as_bytes(), root.to_field().as_bytes(), &page.to_be_bytes()])
}
/// Eight sibling nodes of a segment tree: those with indices `8 * group ..` at `level`, each over `8^level` cells.
#[must_use]
pub fn node(db: DatabaseId, root: SegmentRoot, level: u8, group: u64) -> Vec<u8> {
    key(NODE, &[db.as_bytes(), root.to_field().as_bytes(), &[level], &group.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_unique_within_their_family_and_never_the_stores_own() {
        let families: [&[u8]; 4] = [
            &[HEAD, WRITER, PROJECTION, SCHEMA, SEGMENT, LEASE, COLLECTED, PIN, NOTE, UPLOAD, FILL, ORIGIN],
            &[BLOCK, PAST, SEGMENT_ID, RECEIPT, COMMITTEE],
            &[PAGE],
            &[NODE],
        ];
        for family in families {
            let mut sorted = family.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), family.len());
            assert!(!family.contains(&0));
        }
    }

    #[test]
    fn order_of_keys_is_order_of_numbers() {
        let (db, root) = (DatabaseId::default(), SegmentRoot::default());
        assert!(page(db, root, 255) < page(db, root, 256));
        assert!(block(db, Height(255)) < block(db, Height(256)));
        assert!(node(db, root, 1, u64::MAX) < node(db, root, 2, 0));
    }
}
