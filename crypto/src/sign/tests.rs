use super::*;
use fluence_types::codec::Bounded;
use fluence_types::op::Op;
use fluence_types::tree::SegmentPreimage;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, HeaderHash, Height, SchemaHash, SegmentId};

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
    let members = Bounded::new(vec![node(1).member()]).unwrap();
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
        (domain::SEAT, node(1).id(), &b"text"[..]),
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
        id: SegmentId::from_bytes([3; 16]),
        rows: 5,
        schema: SchemaHash::default(),
        expiry: Height(9),
    };
    let signed = sign_receipt(receipt, &node(1));
    assert_eq!(verify_receipt(&signed), Ok(()));
    type Spoil = fn(&mut SignedReceipt);
    let spoils: [Spoil; 8] = [
        |r| r.receipt.id = SegmentId::from_bytes([4; 16]),
        |r| r.receipt.rows += 1,
        |r| r.receipt.schema = SchemaHash::from_bytes([1; 32]),
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

fn members(n: u8) -> Members {
    let mut all: Vec<_> = (1..=n).map(|i| node(i).member()).collect();
    all.sort_by_key(|m| m.node);
    Bounded::new(all).unwrap()
}

/// The nodes behind [`members`], in their order.
fn keys(n: u8) -> Vec<NodeKey> {
    let mut all: Vec<_> = (1..=n).map(node).collect();
    all.sort_by_key(NodeKey::id);
    all
}

fn seat() -> Seat {
    let (out, join) = (Some(members(4)[0].node), Some(node(9).member()));
    Seat { db: DatabaseId::from_bytes([1; 16]), epoch: 3, out, join }
}

/// Votes of the members with these places, of four.
fn change(voters: &[u16]) -> SeatChange {
    let keys = keys(4);
    let vote = |i: &u16| (*i, sign_seat(&seat(), &keys[usize::from(*i).min(3)]));
    SeatChange { seat: seat(), votes: Bounded::new(voters.iter().map(vote).collect()).unwrap() }
}

#[test]
fn seat_change_needs_the_votes_of_a_quorum_of_distinct_members_in_order() {
    for voters in [&[0, 1, 2][..], &[1, 2, 3], &[0, 1, 2, 3]] {
        assert_eq!(verify_seat(&change(voters), &members(4)), Ok(()), "{voters:?}");
    }
    let refused = |voters: &[u16]| verify_seat(&change(voters), &members(4)).unwrap_err();
    assert_eq!(refused(&[0, 3]), SignError::Quorum { signed: 2, members: 4, quorum: 3 });
    assert_eq!(refused(&[0, 0, 1]), SignError::Order(0));
    assert_eq!(refused(&[0, 2, 1]), SignError::Order(1));
    assert_eq!(refused(&[0, 1, 4]), SignError::Member { index: 4, members: 4 });
    // Nobody's word is not a quorum of nobody.
    let none = SeatChange { seat: seat(), votes: Bounded::default() };
    assert_eq!(verify_seat(&none, &Members::default()), Err(SignError::Quorum { signed: 0, members: 0, quorum: 1 }));
    let one = change(&[0]);
    assert_eq!(verify_seat(&one, &Members::default()), Err(SignError::Member { index: 0, members: 0 }));
}

#[test]
fn a_bad_seat_vote_refuses_all_and_every_field_is_bound() {
    let honest = change(&[0, 1, 2, 3]);
    type Spoil = fn(&mut SeatChange);
    let spoils: [Spoil; 6] = [
        |c| c.seat.db = DatabaseId::default(),
        |c| c.seat.epoch += 1,
        |c| c.seat.out = None,
        |c| c.seat.out = Some(node(8).id()),
        |c| c.seat.join = None,
        |c| c.seat.join = Some(node(8).member()),
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut bad = honest.clone();
        spoil(&mut bad);
        assert_eq!(verify_seat(&bad, &members(4)), Err(SignError::Node(members(4)[0].node)), "{i}");
    }
    let mut one_bad = honest.votes.to_vec();
    one_bad[3].1[5] ^= 1;
    let one_bad = SeatChange { seat: seat(), votes: Bounded::new(one_bad).unwrap() };
    assert_eq!(verify_seat(&one_bad, &members(4)), Err(SignError::Node(members(4)[3].node)));
    // A receipt's signature is no vote, whatever it is over.
    let misplaced = keys(4)[0].sign(domain::RECEIPT, &encode(&seat()));
    assert!(verify_seat_vote(&seat(), &members(4)[0].node, &misplaced).is_err());
    assert_eq!(verify_seat_vote(&seat(), &members(4)[0].node, &sign_seat(&seat(), &keys(4)[0])), Ok(()));
}

#[test]
fn seat_change_travels_as_an_operation_without_a_signer() {
    let op = seat_op(change(&[0, 1, 2]));
    let verified = verify_op(op.clone()).unwrap();
    assert_eq!((verified.id(), verified.signed()), (op_id(&op.unsigned), &op));
    type Spoil = fn(&mut SignedOp);
    let spoils: [Spoil; 5] = [
        |o| o.unsigned.writer = owner(1).address(),
        |o| o.unsigned.sequence = 1,
        |o| o.unsigned.previous = OpId::from_bytes([1; 32]),
        |o| o.unsigned.db = DatabaseId::from_bytes([2; 16]),
        |o| o.signature[64] = 27,
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut bad = op.clone();
        spoil(&mut bad);
        assert!(matches!(refusal(bad), SignError::Malformed(_)), "{i}");
    }
    // No other operation goes without its signer.
    let mut unsigned = op.clone();
    unsigned.unsigned.op = Op::SetWriters { writers: Bounded::default() };
    assert!(verify_op(unsigned).is_err());
    // Nor does a signer's word make a seat change.
    let mut signed = op.unsigned;
    signed.writer = owner(1).address();
    assert!(matches!(refusal(sign_op(signed, &owner(1))), SignError::Malformed(_)));
}

fn header() -> BlockHeader {
    BlockHeader {
        db: DatabaseId::default(),
        consensus_epoch: 0,
        height: Height(1),
        parent: BlockHash::default(),
        timestamp_ms: 2,
        ops_hash: [0; 32],
        executed_height: Height(0),
        executed_root: DbRoot::default(),
        next_members_hash: [0; 32],
    }
}

#[test]
fn block_hash_and_ops_hash_bind_their_parts() {
    type Spoil = fn(&mut BlockHeader);
    let spoils: [Spoil; 10] = [
        |_| (),
        |h| h.db = DatabaseId::from_bytes([1; 16]),
        |h| h.consensus_epoch = 1,
        |h| h.height.0 = 2,
        |h| h.parent = BlockHash::from_bytes([1; 32]),
        |h| h.timestamp_ms = 3,
        |h| h.ops_hash[0] = 1,
        |h| h.executed_height.0 = 1,
        |h| h.executed_root = DbRoot::from_field(FieldBytes::from_u64(1)),
        |h| h.next_members_hash[31] = 1,
    ];
    let hashes = spoils.iter().map(|spoil| {
        let mut header = header();
        spoil(&mut header);
        block_hash(&header)
    });
    assert_eq!(hashes.collect::<std::collections::BTreeSet<_>>().len(), spoils.len());
    let signed = |by: u8| sign_op(op(owner(by).address()), &owner(by));
    let (a, b) = (signed(1), signed(2));
    let mut altered = a.clone();
    altered.signature[0] ^= 1;
    let lists = [vec![], vec![a.clone()], vec![a.clone(), b.clone()], vec![b, a], vec![altered]];
    assert_eq!(lists.iter().map(|ops| ops_hash(ops)).collect::<std::collections::BTreeSet<_>>().len(), lists.len());
}
