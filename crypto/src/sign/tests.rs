use super::*;
use fluence_types::codec::Bounded;
use fluence_types::op::Op;
use fluence_types::tree::SegmentPreimage;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, HeaderHash, Height};

/// Order of secp256k1.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

fn owner(byte: u8) -> OwnerKey {
    OwnerKey::new(&Secret::new([byte; 32])).unwrap()
}

fn node(byte: u8) -> NodeKey {
    NodeKey::new(Secret::new([byte; 32]))
}

fn op(writer: Address) -> UnsignedOp {
    let members = Bounded::new(vec![node(1).id()]).unwrap();
    let db = DatabaseId::from_bytes([1; 16]);
    UnsignedOp { db, writer, sequence: 0, previous: OpId::default(), op: Op::CreateDatabase { members } }
}

fn refusal(op: SignedOp) -> SignError {
    verify_op(op).unwrap_err()
}

/// n - s, big-endian.
fn negate(s: &[u8]) -> [u8; 32] {
    let (mut out, mut borrow) = ([0; 32], 0i16);
    for i in (0..32).rev() {
        let d = i16::from(ORDER[i]) - i16::from(s[i]) - borrow;
        borrow = i16::from(d < 0);
        out[i] = (d + 256 * borrow) as u8;
    }
    out
}

#[test]
fn address_is_ethereums() {
    // The first account of every local chain: its key is in anvil's documentation.
    let key = hex::decode("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
    let key = OwnerKey::new(&Secret::new(<[u8; 32]>::try_from(key).unwrap())).unwrap();
    assert_eq!(key.address().to_string(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
}

#[test]
fn signed_operation_verifies_and_keeps_its_id() {
    let key = owner(1);
    let signed = sign_op(op(key.address()), &key);
    let verified = verify_op(signed.clone()).unwrap();
    assert_eq!(verified.id(), op_id(&signed.unsigned));
    assert_eq!(verified.unsigned(), &signed.unsigned);
    assert_eq!(verified.signed(), &signed);
    assert_eq!(verified.into_signed(), signed);
}

#[test]
fn rejects_an_operation_signed_by_another_or_altered_after() {
    let signed = sign_op(op(owner(1).address()), &owner(2));
    let (signer, expected) = (owner(2).address(), owner(1).address());
    assert_eq!(refusal(signed), SignError::Signer { signer, expected });
    type Spoil = fn(&mut UnsignedOp);
    let spoils: [Spoil; 5] = [
        |o| o.db = DatabaseId::from_bytes([2; 16]),
        |o| o.writer = owner(2).address(),
        |o| o.sequence = 1,
        |o| o.previous = OpId::from_bytes([1; 32]),
        |o| o.op = Op::SetWriters { writers: Bounded::default() },
    ];
    for spoil in spoils {
        let mut altered = sign_op(op(owner(1).address()), &owner(1));
        spoil(&mut altered.unsigned);
        assert!(matches!(refusal(altered), SignError::Signer { .. } | SignError::Malformed(_)));
    }
}

#[test]
fn rejects_every_flipped_bit_of_an_owner_signature() {
    let key = owner(1);
    let signed = sign_op(op(key.address()), &key);
    for bit in 0..65 * 8 {
        let mut bad = signed.clone();
        bad.signature[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_op(bad).is_err(), "bit {bit}");
    }
}

#[test]
fn rejects_the_second_signature_that_malleability_gives() {
    let key = owner(1);
    let signed = sign_op(op(key.address()), &key);
    let mut twin = signed.clone();
    twin.signature[32..64].copy_from_slice(&negate(&signed.signature[32..64]));
    twin.signature[64] ^= 27 ^ 28;
    assert_eq!(refusal(twin), SignError::Malformed("s is in the upper half"));
}

#[test]
fn rejects_signatures_that_are_none() {
    let key = owner(1);
    let signed = sign_op(op(key.address()), &key);
    for v in [0, 1, 26, 29, 255] {
        let mut bad = signed.clone();
        bad.signature[64] = v;
        assert_eq!(refusal(bad), SignError::Malformed("v is neither 27 nor 28"));
    }
    for part in [0..32, 32..64] {
        for value in [[0; 32], ORDER, [0xff; 32]] {
            let mut bad = signed.clone();
            bad.signature[part.clone()].copy_from_slice(&value);
            assert!(matches!(refusal(bad), SignError::Malformed(_)));
        }
    }
    for secret in [[0; 32], ORDER, [0xff; 32]] {
        assert!(OwnerKey::new(&Secret::new(secret)).is_err());
    }
}

#[test]
fn node_signature_is_bound_to_tag_bytes_and_node() {
    let signature = node(1).sign(domain::RECEIPT, b"text");
    assert_eq!(verify_node(domain::RECEIPT, &node(1).id(), b"text", &signature), Ok(()));
    for (tag, id, bytes) in [
        (domain::CHECKPOINT, node(1).id(), &b"text"[..]),
        (domain::RECEIPT, node(2).id(), b"text"),
        (domain::RECEIPT, node(1).id(), b"texu"),
        (domain::RECEIPT, node(1).id(), b""),
    ] {
        assert_eq!(verify_node(tag, &id, bytes, &signature), Err(SignError::Node(id)));
    }
    for bit in 0..64 * 8 {
        let mut bad = signature;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_node(domain::RECEIPT, &node(1).id(), b"text", &bad).is_err(), "bit {bit}");
    }
}

#[test]
fn rejects_node_ids_that_are_no_keys_or_of_small_order() {
    // The neutral element as key and R, s = 0: the equation without a subgroup check would hold for every message.
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&identity);
    for key in [identity, [0; 32], [0xff; 32]] {
        let id = NodeId::from_bytes(key);
        assert_eq!(verify_node(domain::RECEIPT, &id, b"text", &signature), Err(SignError::Node(id)));
    }
}

#[test]
fn receipt_is_its_nodes_word_on_every_field() {
    let receipt = Receipt {
        node: node(1).id(),
        db: DatabaseId::from_bytes([1; 16]),
        segment: SegmentPreimage { tree_root: FieldBytes::ZERO, cells: 9, header_hash: HeaderHash::default() },
        expiry: Height(9),
    };
    let signed = sign_receipt(receipt, &node(1));
    assert_eq!(verify_receipt(&signed), Ok(()));
    type Spoil = fn(&mut SignedReceipt);
    let spoils: [Spoil; 5] = [
        |r| r.receipt.node = node(2).id(),
        |r| r.receipt.db = DatabaseId::default(),
        |r| r.receipt.segment.cells += 1,
        |r| r.receipt.expiry.0 += 1,
        |r| r.signature[0] ^= 1,
    ];
    for spoil in spoils {
        let mut bad = signed.clone();
        spoil(&mut bad);
        assert!(verify_receipt(&bad).is_err());
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        db: DatabaseId::from_bytes([1; 16]),
        height: Height(5),
        block: BlockHash::from_bytes([2; 32]),
        root: DbRoot::from_field(FieldBytes::from_u64(3)),
    }
}

fn members(n: u8) -> Members {
    Bounded::new((1..=n).map(|i| node(i).id()).collect()).unwrap()
}

/// A certificate signed by the members with these indices.
fn certificate(signers: &[u16]) -> Certificate {
    let sign = |i: &u16| (*i, sign_checkpoint(&checkpoint(), &node(*i as u8 + 1)));
    Certificate { checkpoint: checkpoint(), signatures: Bounded::new(signers.iter().map(sign).collect()).unwrap() }
}

#[test]
fn certificate_needs_a_quorum_of_distinct_members_in_order() {
    for (n, signers) in
        [(1u8, &[0u16][..]), (4, &[0, 1, 2]), (4, &[1, 2, 3]), (4, &[0, 1, 2, 3]), (7, &[0, 2, 3, 5, 6])]
    {
        assert_eq!(verify_certificate(&certificate(signers), &members(n)), Ok(()), "{n} {signers:?}");
    }
    let refused = |signers: &[u16], n| verify_certificate(&certificate(signers), &members(n)).unwrap_err();
    assert_eq!(refused(&[0, 3], 4), SignError::Quorum { signed: 2, members: 4, quorum: 3 });
    assert_eq!(refused(&[], 1), SignError::Quorum { signed: 0, members: 1, quorum: 1 });
    assert_eq!(refused(&[], 0), SignError::Quorum { signed: 0, members: 0, quorum: 1 });
    assert_eq!(refused(&[0, 0, 1], 4), SignError::Order(0));
    assert_eq!(refused(&[0, 2, 1], 4), SignError::Order(1));
    assert_eq!(refused(&[0, 1, 4], 4), SignError::Member { index: 4, members: 4 });
    assert_eq!(refused(&[0], 0), SignError::Member { index: 0, members: 0 });
}

#[test]
fn rejects_a_certificate_with_a_strangers_or_misplaced_signature_or_another_checkpoint() {
    let honest = certificate(&[0, 1, 2]);
    let strangers: Members = Bounded::new(vec![node(1).id(), node(2).id(), node(9).id(), node(4).id()]).unwrap();
    assert_eq!(verify_certificate(&honest, &strangers), Err(SignError::Node(node(9).id())));
    let mut swapped = honest.signatures.to_vec();
    (swapped[0].1, swapped[1].1) = (swapped[1].1, swapped[0].1);
    let swapped = Certificate { checkpoint: checkpoint(), signatures: Bounded::new(swapped).unwrap() };
    assert_eq!(verify_certificate(&swapped, &members(4)), Err(SignError::Node(node(1).id())));
    type Spoil = fn(&mut Checkpoint);
    let spoils: [Spoil; 4] = [
        |c| c.db = DatabaseId::default(),
        |c| c.height.0 += 1,
        |c| c.block = BlockHash::default(),
        |c| c.root = DbRoot::default(),
    ];
    for spoil in spoils {
        let mut bad = honest.clone();
        spoil(&mut bad.checkpoint);
        assert!(verify_certificate(&bad, &members(4)).is_err());
    }
}

#[test]
fn block_hash_and_list_hashes_bind_their_parts() {
    let header = BlockHeader {
        db: DatabaseId::default(),
        consensus_epoch: 0,
        height: Height(1),
        parent: BlockHash::default(),
        timestamp_ms: 2,
        ops_hash: [0; 32],
        executed_height: Height(0),
        executed_root: DbRoot::default(),
        next_members_hash: [0; 32],
    };
    let other = BlockHeader { timestamp_ms: 3, ..header.clone() };
    assert_ne!(block_hash(&header), block_hash(&other));
    let ids = [OpId::from_bytes([1; 32]), OpId::from_bytes([2; 32])];
    let all = [ops_hash(&[]), ops_hash(&ids[..1]), ops_hash(&ids), ops_hash(&[ids[1], ids[0]])];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert_ne!(members_hash(&members(1)), members_hash(&members(2)));
}
