//! `tests/vectors/checkpoints.json`: committees, certificates and conflicting votes as the contracts take them, read by Solidity too.
//!
//! Again   `cargo test -p fluence-crypto --lib -- --ignored writes_checkpoint_vectors`; nothing in it is random, so a diff is a change
//!         of a format.

use super::*;
use crate::secret::Secret;
use crate::sign::NodeKey;
use fluence_types::block::{BlockHeader, epoch_of};
use fluence_types::codec::{Bounded, encode};
use fluence_types::{DbRoot, FieldBytes, Height};
use serde_json::{Value, json};
use std::path::PathBuf;

const DB: DatabaseId = DatabaseId::from_bytes([0xdb; 16]);

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/checkpoints.json")
}

fn hex0x(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

struct Committee {
    keys: Vec<NodeKey>,
    members: Members,
}

impl Committee {
    /// The nodes of seeds `first..first + n`, in the order of their ids.
    fn new(first: u8, n: u8) -> Self {
        let mut keys: Vec<_> = (first..first + n).map(|i| NodeKey::new(Secret::new([i; 32]))).collect();
        keys.sort_by_key(NodeKey::id);
        let members = Bounded::new(keys.iter().map(NodeKey::member).collect()).unwrap();
        verify_members(&members).unwrap();
        Self { keys, members }
    }

    fn hash(&self) -> [u8; 32] {
        members_hash(&self.members).unwrap()
    }

    fn json(&self) -> Value {
        let member = |m: &Member| [&m.node.to_bytes()[..], &vote_key_eip2537(m).unwrap()].concat();
        let possession = |m: &Member| signature_eip2537(&m.possession).unwrap();
        json!({
            "members": self.members.len(),
            "committee": hex0x(self.members.iter().map(member).collect::<Vec<_>>().concat()),
            "possessions": hex0x(self.members.iter().map(possession).collect::<Vec<_>>().concat()),
            "hash": hex0x(self.hash()),
        })
    }

    /// A certificate of block `height` by the last `signed` members.
    fn certify(&self, height: u64, next: [u8; 32], view: u64, parent_view: u64, signed: usize) -> Value {
        let header = BlockHeader {
            db: DB,
            consensus_epoch: epoch_of(Height(height)),
            height: Height(height),
            parent: BlockHash::from_bytes([0xaa; 32]),
            timestamp_ms: 1_790_000_000_123 + height,
            ops_hash: [0xbb; 32],
            executed_height: Height(height - 1),
            executed_root: DbRoot::from_field(FieldBytes::from_u64(0x0123_4567_89ab_cdef ^ height)),
            next_members_hash: next,
        };
        let signers: Vec<_> = self.keys.iter().skip(self.keys.len() - signed).collect();
        let certificate = certify(header, view, parent_view, &self.members, &signers).unwrap();
        verify_certificate(&certificate, &self.members).unwrap();
        json!({
            "header": hex0x(encode(&certificate.header)),
            "height": height,
            "timestamp_ms": certificate.header.timestamp_ms,
            "executed_root": hex0x(certificate.header.executed_root.to_field().to_bytes()),
            "block_hash": hex0x(block_hash(&certificate.header).as_bytes()),
            "view": view,
            "parent_view": parent_view,
            "signers": certificate.signers,
            "signature": hex0x(signature_eip2537(&certificate.signature).unwrap()),
        })
    }
}

/// A cluster of `n`: a certificate by all, one by a quorum with long numbers, the handover, and the first of the next committee.
fn cluster(n: u8) -> Value {
    let (first, second) = (Committee::new(1, n), Committee::new(101, n));
    let (all, least) = (usize::from(n), quorum(usize::from(n)));
    json!({
        "db": hex0x(DB.as_bytes()),
        "first": first.json(),
        "second": second.json(),
        "by_first": [
            first.certify(1, first.hash(), 1, 0, all),
            first.certify(64 * 200 + 5, first.hash(), 70_000, 300, least),
            first.certify(64 * 201 - 1, second.hash(), 70_100, 70_099, all),
        ],
        "by_second": [second.certify(64 * 201, second.hash(), 1, 0, least)],
    })
}

fn evidence(name: &str, views: [(u64, u64); 2], votes: [Vote; 2]) -> Value {
    let committee = Committee::new(7, 1);
    let (key, member) = (&committee.keys[0], &committee.members[0]);
    let vote = |(epoch, view), vote| {
        let (kind, parent_view, block) = match vote {
            Vote::Notarize { parent_view, block } => (0, parent_view, block),
            Vote::Nullify => (1, 0, BlockHash::default()),
            Vote::Finalize { parent_view, block } => (2, parent_view, block),
        };
        let by = key.vote().sign(DB, epoch, view, vote);
        verify_vote(member, DB, epoch, view, vote, &by).unwrap();
        json!({
            "kind": kind,
            "parent_view": parent_view,
            "block": hex0x(block.as_bytes()),
            "signature": hex0x(signature_eip2537(&by).unwrap()),
        })
    };
    json!({
        "name": name,
        "epoch": views[0].0,
        "view": views[0].1,
        "first": vote(views[0], votes[0]),
        "second": vote(views[1], votes[1]),
    })
}

fn make() -> Value {
    let block = |byte| BlockHash::from_bytes([byte; 32]);
    let notarize = |parent_view, byte| Vote::Notarize { parent_view, block: block(byte) };
    let finalize = |parent_view, byte| Vote::Finalize { parent_view, block: block(byte) };
    let same = [(3, 200); 2];
    let node = Committee::new(7, 1);
    json!({
        "about": "Certificates and conflicting votes as contracts/src/Checkpoints.sol and Equivocation.sol take them. Points as in \
                  EIP-2537. A committee is node id | vote key for each member. Kinds: 0 notarize, 1 nullify, 2 finalize.",
        "clusters": [cluster(1), cluster(4), cluster(16)],
        "evidence": {
            "db": hex0x(DB.as_bytes()),
            "node": hex0x(node.members[0].node.as_bytes()),
            "key": hex0x(vote_key_eip2537(&node.members[0]).unwrap()),
            "possession": hex0x(signature_eip2537(&node.members[0].possession).unwrap()),
            "proven": [
                evidence("two blocks notarized", same, [notarize(199, 1), notarize(199, 2)]),
                evidence("one block notarized on two parents", same, [notarize(198, 1), notarize(199, 1)]),
                evidence("two blocks finalized", same, [finalize(199, 1), finalize(199, 2)]),
                evidence("nullified and finalized", same, [Vote::Nullify, finalize(199, 1)]),
                evidence("finalized and nullified", same, [finalize(199, 1), Vote::Nullify]),
            ],
            // Every vote here is genuine, and no pair of them is evidence.
            "innocent": [
                evidence("one block notarized twice", same, [notarize(199, 1), notarize(199, 1)]),
                evidence("one block finalized twice", same, [finalize(199, 1), finalize(199, 1)]),
                evidence("nullified twice", same, [Vote::Nullify, Vote::Nullify]),
                evidence("notarized and finalized", same, [notarize(199, 1), finalize(199, 1)]),
                evidence("notarized one, finalized another", same, [notarize(199, 1), finalize(199, 2)]),
                evidence("notarized and nullified", same, [notarize(199, 1), Vote::Nullify]),
                evidence("nullified and notarized", same, [Vote::Nullify, notarize(199, 1)]),
            ],
            // The second vote is of another view or epoch, and passed off as one of the first's.
            "misplaced": [
                evidence("two views", [(3, 200), (3, 201)], [notarize(199, 1), notarize(199, 2)]),
                evidence("two epochs", [(3, 200), (4, 200)], [finalize(199, 1), finalize(199, 2)]),
                evidence("nullified one view, finalized another", [(3, 200), (3, 201)], [Vote::Nullify, finalize(199, 1)]),
            ],
        },
    })
}

#[test]
#[ignore = "writes tests/vectors/checkpoints.json"]
fn writes_checkpoint_vectors() {
    std::fs::write(path(), serde_json::to_string_pretty(&make()).unwrap() + "\n").unwrap();
}

#[test]
fn checkpoint_vectors_are_what_this_code_makes() {
    let committed: Value = serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap();
    assert!(committed == make(), "a format changed; if on purpose, write tests/vectors/checkpoints.json again");
}
