//! `tests/vectors/checkpoints.json` as the bindings take it.

use fluence_bindings::{CommitteeMember, Evidence, KeyPoint, SignaturePoint, VoteFor};
use fluence_types::block::{BlockHeader, Certificate};
use fluence_types::codec::decode;
use fluence_types::{BlockHash, DatabaseId, NodeId};
use serde_json::Value;

/// A certificate, and its signature uncompressed.
pub(crate) type Post = (Certificate, SignaturePoint);

/// A cluster of the vectors.
pub(crate) struct Cluster {
    pub(crate) db: DatabaseId,
    pub(crate) first: Vec<(CommitteeMember, SignaturePoint)>,
    pub(crate) first_hash: [u8; 32],
    pub(crate) second: Vec<CommitteeMember>,
    pub(crate) second_hash: [u8; 32],
    pub(crate) by_first: Vec<Post>,
    pub(crate) by_second: Post,
}

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/checkpoints.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(v: &Value) -> Vec<u8> {
    hex::decode(v.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap()
}

fn fixed<const N: usize>(v: &Value) -> [u8; N] {
    bytes(v).try_into().unwrap()
}

fn members(v: &Value) -> Vec<(CommitteeMember, SignaturePoint)> {
    let (committee, possessions) = (bytes(&v["committee"]), bytes(&v["possessions"]));
    let members = committee.chunks_exact(288).zip(possessions.chunks_exact(128));
    let member = |m: &[u8]| CommitteeMember {
        node: NodeId::from_bytes(m[..32].try_into().unwrap()),
        key: m[32..].try_into().unwrap(),
    };
    members.map(|(m, p)| (member(m), p.try_into().unwrap())).collect()
}

fn post(v: &Value) -> Post {
    let header: BlockHeader = decode("header", &bytes(&v["header"]), 176).unwrap();
    let number = |name: &str| v[name].as_u64().unwrap();
    let signers = u32::try_from(number("signers")).unwrap();
    // The chain takes the point; the compressed form stays at home.
    let signature = [0; 48];
    let certificate =
        Certificate { header, view: number("view"), parent_view: number("parent_view"), signers, signature };
    (certificate, fixed(&v["signature"]))
}

/// The cluster with so many members.
pub(crate) fn cluster(size: usize) -> Cluster {
    let all = vectors();
    let c = all["clusters"].as_array().unwrap().iter().find(|c| c["first"]["members"] == size).unwrap();
    Cluster {
        db: DatabaseId::from_bytes(fixed(&c["db"])),
        first: members(&c["first"]),
        first_hash: fixed(&c["first"]["hash"]),
        second: members(&c["second"]).into_iter().map(|(m, _)| m).collect(),
        second_hash: fixed(&c["second"]["hash"]),
        by_first: c["by_first"].as_array().unwrap().iter().map(post).collect(),
        by_second: post(&c["by_second"][0]),
    }
}

/// Evidence that slashes, pairs of votes that do not, and the proof that the node has its key.
pub(crate) fn evidence() -> (Vec<Evidence>, Vec<Evidence>, SignaturePoint) {
    let all = vectors();
    let e = &all["evidence"];
    let (node, db, key): (_, _, KeyPoint) =
        (NodeId::from_bytes(fixed(&e["node"])), DatabaseId::from_bytes(fixed(&e["db"])), fixed(&e["key"]));
    let vote = |v: &Value| {
        let (parent_view, block) = (v["parent_view"].as_u64().unwrap(), BlockHash::from_bytes(fixed(&v["block"])));
        let vote = match v["kind"].as_u64().unwrap() {
            0 => VoteFor::Notarize { parent_view, block },
            1 => VoteFor::Nullify,
            _ => VoteFor::Finalize { parent_view, block },
        };
        (vote, fixed(&v["signature"]))
    };
    let list = |name: &str| -> Vec<_> {
        let pairs = e[name].as_array().unwrap().iter();
        let (number, votes) = (|v: &Value| v.as_u64().unwrap(), |p: &Value| [vote(&p["first"]), vote(&p["second"])]);
        pairs
            .map(|p| Evidence {
                node,
                key,
                db,
                consensus_epoch: number(&p["epoch"]),
                view: number(&p["view"]),
                votes: votes(p),
            })
            .collect()
    };
    (list("proven"), list("innocent"), fixed(&e["possession"]))
}
