//! What a node notes beside a database: where its log began here, and where members are reached.

use fluence_consensus::Origin;
use fluence_engine::{Engine, StoreError};
use fluence_types::block::Block;
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::{BLOCK_BYTES_MAX, MEMBERS_MAX};
use fluence_types::{DatabaseId, NodeId};
use std::collections::BTreeMap;

const GENESIS: &[u8] = b"genesis";
const ADDRESSES: &[u8] = b"addresses";
/// Longest record but the genesis block.
const RECORD_MAX: usize = 64 << 10;
/// Nodes whose addresses are noted: members and those that wait.
pub(super) const KNOWN_MAX: usize = 2 * MEMBERS_MAX;
/// Addresses of one node.
pub(super) const ADDRESSES_MAX: usize = 8;
/// Longest address.
const ADDRESS_BYTES: usize = 256;

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("the note of {what}"))
}

/// Notes where the log begins; before its first block is executed.
pub(super) fn set_origin(engine: &Engine, db: DatabaseId, origin: &Origin) -> Result<(), StoreError> {
    match origin {
        Origin::Genesis(block) => engine.set_note(db, GENESIS, codec::encode(&**block)),
        // The library's join noted it with the state.
        Origin::Certificate(_) => Ok(()),
    }
}

/// Where the log begins.
pub(super) fn origin(engine: &Engine, db: DatabaseId) -> Result<Option<Origin>, StoreError> {
    if let Some(certificate) = fluence_consensus::origin(engine, db)? {
        return Ok(Some(Origin::Certificate(Box::new(certificate))));
    }
    let Some(bytes) = engine.note(db, GENESIS)? else { return Ok(None) };
    let block: Block = codec::decode("block", &bytes, BLOCK_BYTES_MAX).map_err(|_| damaged("the genesis block"))?;
    Ok(Some(Origin::Genesis(Box::new(block))))
}

type Addresses = Bounded<(NodeId, Bounded<Bounded<u8, ADDRESS_BYTES>, ADDRESSES_MAX>), KNOWN_MAX>;

/// Where nodes are reached.
pub(super) fn addresses(engine: &Engine, db: DatabaseId) -> BTreeMap<NodeId, Vec<String>> {
    let bytes = engine.note(db, ADDRESSES).ok().flatten().unwrap_or_default();
    let known = codec::decode::<Addresses>("addresses", &bytes, RECORD_MAX).unwrap_or_default();
    let text = |a: &Bounded<u8, ADDRESS_BYTES>| String::from_utf8(a.to_vec()).ok();
    known.iter().map(|(node, list)| (*node, list.iter().filter_map(text).collect())).collect()
}

/// Notes where nodes are reached.
pub(super) fn set_addresses(
    engine: &Engine,
    db: DatabaseId,
    known: &BTreeMap<NodeId, Vec<String>>,
) -> Result<(), StoreError> {
    let list = |addresses: &Vec<String>| {
        let fitting = addresses.iter().filter_map(|a| Bounded::new(a.clone().into_bytes()).ok());
        Bounded::new(fitting.take(ADDRESSES_MAX).collect()).expect("cut to the limit")
    };
    let all: Vec<_> = known.iter().take(KNOWN_MAX).map(|(node, a)| (*node, list(a))).collect();
    let all: Addresses = Bounded::new(all).expect("cut to the limit");
    engine.set_note(db, ADDRESSES, codec::encode(&all))
}
