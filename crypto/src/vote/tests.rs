use super::*;
use crate::sign::NodeKey;
use crate::test_vectors::{load, number, parsed};
use fluence_types::block::BlockHeader;
use fluence_types::codec::{Bounded, encode};
use fluence_types::{DbRoot, FieldBytes, Height};
use serde_json::Value;

/// Order of the groups.
const ORDER: [u8; 32] = [
    0x73, 0xed, 0xa7, 0x53, 0x29, 0x9d, 0x7d, 0x48, 0x33, 0x39, 0xd8, 0x08, 0x09, 0xa1, 0xd8, 0x05, 0x53, 0xbd, 0xa4,
    0x02, 0xff, 0xfe, 0x5b, 0xfe, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01,
];
const DB: DatabaseId = DatabaseId::from_bytes([0xdb; 16]);
const VIEW: u64 = 300;

/// `n` nodes, in the order of their ids.
fn keys(n: u8) -> Vec<NodeKey> {
    let mut keys: Vec<_> = (1..=n).map(|i| NodeKey::new(Secret::new([i; 32]))).collect();
    keys.sort_by_key(NodeKey::id);
    keys
}

fn members_of(keys: &[NodeKey]) -> Members {
    Bounded::new(keys.iter().map(NodeKey::member).collect()).unwrap()
}

fn members(n: u8) -> Members {
    members_of(&keys(n))
}

fn header() -> BlockHeader {
    BlockHeader {
        db: DB,
        consensus_epoch: 2,
        height: Height(130),
        parent: BlockHash::from_bytes([1; 32]),
        timestamp_ms: 1_700_000_000_000,
        ops_hash: [2; 32],
        executed_height: Height(129),
        executed_root: DbRoot::from_field(FieldBytes::from_u64(3)),
        next_members_hash: [4; 32],
    }
}

/// A certificate by the members with these places, of `n`.
fn certificate(n: u8, signers: &[usize]) -> Certificate {
    let keys = keys(n);
    let of: Vec<_> = signers.iter().map(|i| &keys[*i]).collect();
    certify(header(), VIEW, VIEW - 1, &members(n), &of).unwrap()
}

/// The neutral element, and a point of the curve that is outside the group.
fn bad_g1() -> [VoteSignature; 2] {
    let mut infinity = [0; 48];
    infinity[0] = 0xc0;
    let outside = (1..=255u8).map(|x| {
        let mut bytes = [0; 48];
        (bytes[0], bytes[47]) = (0x80, x);
        bytes
    });
    let mut outside = outside.filter(|b| Signature::uncompress(b).is_ok_and(|p| !p.subgroup_check()));
    [infinity, outside.next().expect("few points of the curve are in the group")]
}

fn bad_g2() -> [VoteKeyBytes; 2] {
    let mut infinity = [0; 96];
    infinity[0] = 0xc0;
    let outside = (1..=255u8).map(|x| {
        let mut bytes = [0; 96];
        (bytes[0], bytes[95]) = (0x80, x);
        bytes
    });
    let mut outside = outside.filter(|b| PublicKey::uncompress(b).is_ok_and(|p| p.validate().is_err()));
    [infinity, outside.next().expect("few points of the curve are in the group")]
}

fn altered(member: &Member, change: impl FnOnce(&mut Member)) -> Member {
    let mut member = member.clone();
    change(&mut member);
    member
}

// --- Certificates ------------------------------------------------------------------------------------------------------

#[test]
fn certificate_of_any_quorum_verifies() {
    for (n, signers) in
        [(1, &[0][..]), (2, &[0, 1]), (4, &[0, 1, 2]), (4, &[1, 2, 3]), (4, &[0, 1, 2, 3]), (7, &[0, 2, 3, 5, 6])]
    {
        let certificate = certificate(n, signers);
        assert_eq!(verify_certificate(&certificate, &members(n)), Ok(()), "{n} {signers:?}");
        assert_eq!(certificate.signers, signers.iter().fold(0, |bits, i| bits | 1 << i));
    }
    let certified = certificate(1, &[0]).checkpoint();
    assert_eq!((certified.height, certified.root), (header().executed_height, header().executed_root));
}

#[test]
fn rejects_a_certificate_of_less_than_a_quorum_or_of_nobody() {
    let refused = |n, signers: &[usize]| verify_certificate(&certificate(n, signers), &members(n)).unwrap_err();
    assert_eq!(refused(4, &[0, 3]), SignError::Quorum { signed: 2, members: 4, quorum: 3 });
    assert_eq!(refused(7, &[0, 1, 2, 3]), SignError::Quorum { signed: 4, members: 7, quorum: 5 });
    let mut nobody = certificate(1, &[0]);
    nobody.signers = 0;
    assert_eq!(verify_certificate(&nobody, &members(1)), Err(SignError::Quorum { signed: 0, members: 1, quorum: 1 }));
    assert_eq!(
        verify_certificate(&nobody, &Members::default()),
        Err(SignError::Quorum { signed: 0, members: 0, quorum: 1 })
    );
    assert!(matches!(certify(header(), 1, 0, &members(4), &[]), Err(SignError::Malformed(_))));
}

#[test]
fn rejects_bits_beyond_the_members() {
    for bit in 4..32 {
        let mut bad = certificate(4, &[0, 1, 2]);
        bad.signers |= 1 << bit;
        let want = SignError::Member { index: bit, members: 4 };
        assert_eq!(verify_certificate(&bad, &members(4)), Err(want), "{bit}");
    }
    let full = members(31);
    let mut bad = certificate(31, &(0..21).collect::<Vec<_>>());
    assert_eq!(verify_certificate(&bad, &full), Ok(()));
    bad.signers |= 1 << 31;
    assert_eq!(verify_certificate(&bad, &full), Err(SignError::Member { index: 31, members: 31 }));
}

#[test]
fn rejects_a_sum_of_other_votes_than_it_names() {
    let wrong = SignError::Certificate(header().height);
    // One vote is missing from the sum, or there is one more than named, or one twice, or another member's.
    let (three, four) = (certificate(4, &[0, 1, 2]), certificate(4, &[0, 1, 2, 3]));
    let missing = Certificate { signers: four.signers, ..three.clone() };
    let extra = Certificate { signers: three.signers, ..four.clone() };
    let other = Certificate { signers: 0b1110, ..three.clone() };
    let vote = |key: &NodeKey| {
        let vote = Vote::Finalize { parent_view: VIEW - 1, block: block_hash(&header()) };
        key.vote().sign(DB, header().consensus_epoch, VIEW, vote)
    };
    let keys = keys(4);
    let twice = aggregate(&[vote(&keys[0]), vote(&keys[1]), vote(&keys[1])]).unwrap();
    let twice = Certificate { signature: twice, ..three.clone() };
    let stranger = NodeKey::new(Secret::new([9; 32]));
    let foreign = aggregate(&[vote(&keys[0]), vote(&keys[1]), vote(&stranger)]).unwrap();
    let foreign = Certificate { signature: foreign, ..three.clone() };
    for (i, bad) in [missing, extra, other, twice, foreign].iter().enumerate() {
        assert_eq!(verify_certificate(bad, &members(4)), Err(wrong.clone()), "{i}");
    }
    // The right votes, held against a committee with a stranger's key in one seat.
    let mut with_stranger = members(4).to_vec();
    with_stranger[1].vote_key = stranger.member().vote_key;
    assert_eq!(verify_certificate(&three, &Bounded::new(with_stranger).unwrap()), Err(wrong));
    // Who is no member is left out of a certificate that is made.
    let made = certify(header(), VIEW, VIEW - 1, &members(4), &[&keys[0], &stranger]).unwrap();
    assert_eq!(made.signers, 1);
}

#[test]
fn rejects_every_changed_field_of_a_certificate() {
    let honest = certificate(4, &[0, 1, 2]);
    type Spoil = fn(&mut Certificate);
    let spoils: [Spoil; 12] = [
        |c| c.header.db = DatabaseId::default(),
        |c| c.header.consensus_epoch += 1,
        |c| c.header.height.0 += 1,
        |c| c.header.parent = BlockHash::default(),
        |c| c.header.timestamp_ms += 1,
        |c| c.header.ops_hash[0] ^= 1,
        |c| c.header.executed_height.0 -= 1,
        |c| c.header.executed_root = DbRoot::default(),
        |c| c.header.next_members_hash[31] ^= 1,
        |c| c.view += 1,
        |c| c.parent_view -= 1,
        |c| (c.view, c.parent_view) = (c.parent_view, c.view),
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut bad = honest.clone();
        spoil(&mut bad);
        assert_eq!(verify_certificate(&bad, &members(4)), Err(SignError::Certificate(bad.header.height)), "{i}");
    }
}

#[test]
fn rejects_votes_of_another_kind() {
    let keys = keys(4);
    let hash = block_hash(&header());
    for vote in [Vote::Notarize { parent_view: VIEW - 1, block: hash }, Vote::Nullify] {
        let votes = keys.iter().map(|k| k.vote().sign(DB, header().consensus_epoch, VIEW, vote)).collect::<Vec<_>>();
        let bad = Certificate { signature: aggregate(&votes).unwrap(), ..certificate(4, &[0, 1, 2, 3]) };
        assert_eq!(verify_certificate(&bad, &members(4)), Err(SignError::Certificate(header().height)));
    }
}

#[test]
fn rejects_signatures_that_are_no_points_of_the_group() {
    let honest = certificate(4, &[0, 1, 2]);
    let malformed = SignError::Malformed("a vote is no point of the group");
    for signature in bad_g1().into_iter().chain([[0; 48], [0xff; 48]]) {
        let bad = Certificate { signature, ..honest.clone() };
        assert_eq!(verify_certificate(&bad, &members(4)), Err(malformed.clone()));
        assert!(aggregate(&[honest.signature, signature]).is_err());
        assert!(signature_eip2537(&signature).is_err());
    }
    for bit in 0..48 * 8 {
        let mut bad = honest.clone();
        bad.signature[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_certificate(&bad, &members(4)).is_err(), "bit {bit}");
    }
}

#[test]
fn rejects_vote_keys_that_are_no_points_of_the_group() {
    let honest = certificate(4, &[0, 1, 2]);
    for key in bad_g2().into_iter().chain([[0; 96], [0xff; 96]]) {
        let mut list = members(4).to_vec();
        list[1].vote_key = key;
        let refused = SignError::VoteKey(list[1].node);
        assert_eq!(verify_member(&list[1]), Err(refused.clone()));
        let list = Bounded::new(list).unwrap();
        assert_eq!(verify_certificate(&honest, &list), Err(refused.clone()));
        assert_eq!(members_hash(&list), Err(refused.clone()));
        assert_eq!(vote_key_eip2537(&list[1]), Err(refused));
    }
}

/// Two keys of one liar that add up to nothing would be signed for by the neutral element, whatever the block.
#[test]
fn keys_that_cancel_certify_nothing() {
    let (a, b) = (&keys(2)[0], &keys(2)[1]);
    let mut negated = [0; 32];
    a.vote().expose(|k| {
        let mut borrow = 0;
        for i in (0..32).rev() {
            let d = i16::from(ORDER[i]) - i16::from(k[i]) - borrow;
            borrow = i16::from(d < 0);
            negated[i] = (d + 256 * borrow) as u8;
        }
    });
    let key = SecretKey::from_bytes(&negated).unwrap();
    let opposite = VoteKey { public: key.sk_to_pk().compress(), key };
    let twin = Member { node: b.id(), vote_key: opposite.public(), possession: opposite.possession(&b.id()) };
    assert_eq!(verify_member(&twin), Ok(()));
    let members = Bounded::new(vec![a.member(), twin]).unwrap();
    assert_eq!(verify_members(&members), Ok(()));
    let vote = Vote::Finalize { parent_view: VIEW - 1, block: block_hash(&header()) };
    let votes = [a.vote(), &opposite].map(|k| k.sign(DB, header().consensus_epoch, VIEW, vote));
    for signature in [aggregate(&votes).unwrap(), bad_g1()[0], votes[0]] {
        let bad = Certificate { signature, ..certificate(2, &[0, 1]) };
        assert!(verify_certificate(&bad, &members).is_err());
    }
}

// --- Members -----------------------------------------------------------------------------------------------------------

#[test]
fn a_nodes_own_member_verifies() {
    for key in keys(7) {
        assert_eq!(verify_member(&key.member()), Ok(()));
    }
}

#[test]
fn rejects_a_vote_key_that_was_copied_from_another_node() {
    let (a, b) = (members(2)[0].clone(), members(2)[1].clone());
    let refused = Err(SignError::VoteKey(a.node));
    // Its key; with its proof; its key with our proof; our key with its proof.
    let copied = altered(&a, |m| (m.vote_key, m.possession) = (b.vote_key, b.possession));
    assert_eq!(verify_member(&copied), refused);
    assert_eq!(verify_member(&altered(&a, |m| m.vote_key = b.vote_key)), refused);
    assert_eq!(verify_member(&altered(&a, |m| m.possession = b.possession)), refused);
    assert_eq!(verify_member(&altered(&a, |m| m.node = b.node)), Err(SignError::VoteKey(b.node)));
}

#[test]
fn rejects_a_vote_in_the_place_of_a_proof_of_possession() {
    let key = &keys(1)[0];
    let message = possession_message(&key.id(), &vote_key_eip2537(&key.member()).unwrap());
    let vote = key.vote().key.sign(&message, VOTE_SUITE, &[]).compress();
    assert!(verify_member(&altered(&key.member(), |m| m.possession = vote)).is_err());
}

#[test]
fn rejects_every_flipped_bit_of_a_member() {
    let honest = keys(1)[0].member();
    for bit in 0..96 * 8 {
        let bad = altered(&honest, |m| m.vote_key[bit / 8] ^= 1 << (bit % 8));
        assert!(verify_member(&bad).is_err(), "key bit {bit}");
    }
    for bit in 0..48 * 8 {
        let bad = altered(&honest, |m| m.possession[bit / 8] ^= 1 << (bit % 8));
        assert!(verify_member(&bad).is_err(), "proof bit {bit}");
    }
    for possession in bad_g1() {
        assert!(verify_member(&altered(&honest, |m| m.possession = possession)).is_err());
    }
}

#[test]
fn a_committee_is_in_order_without_repeats_and_each_has_its_key() {
    for n in [1, 4, 7] {
        assert_eq!(verify_members(&members(n)), Ok(()));
    }
    let refused = |list: Vec<Member>| verify_members(&Bounded::new(list).unwrap()).unwrap_err();
    assert_eq!(refused(vec![]), SignError::Quorum { signed: 0, members: 0, quorum: 1 });
    let four = members(4).into_vec();
    let mut swapped = four.clone();
    swapped.swap(1, 2);
    assert_eq!(refused(swapped), SignError::Order(2));
    let twice = vec![four[0].clone(), four[1].clone(), four[1].clone()];
    assert_eq!(refused(twice), SignError::Order(2));
    let mut copied = four.clone();
    copied[3] = altered(&four[3], |m| (m.vote_key, m.possession) = (four[0].vote_key, four[0].possession));
    assert_eq!(refused(copied), SignError::VoteKey(four[3].node));
}

#[test]
fn members_hash_binds_nodes_keys_their_order_and_their_number() {
    let four = members(4).into_vec();
    let hash = |list: &[Member]| members_hash(&Bounded::new(list.to_vec()).unwrap()).unwrap();
    let stranger = NodeKey::new(Secret::new([9; 32])).member();
    let mut lists = vec![vec![], four[..1].to_vec(), four[..3].to_vec(), four.clone()];
    let mut swapped = four.clone();
    swapped.swap(0, 1);
    let mut other_node = four.clone();
    other_node[2].node = stranger.node;
    let mut other_key = four.clone();
    other_key[2].vote_key = stranger.vote_key;
    let mut crossed = four.clone();
    (crossed[0].vote_key, crossed[1].vote_key) = (four[1].vote_key, four[0].vote_key);
    lists.extend([swapped, other_node, other_key, crossed]);
    let hashes: std::collections::BTreeSet<_> = lists.iter().map(|l| hash(l)).collect();
    assert_eq!(hashes.len(), lists.len());
    // The proof is not part of it: it says no more than that the key is one.
    let mut other_proof = four.clone();
    other_proof[0].possession = stranger.possession;
    assert_eq!(hash(&other_proof), hash(&four));
}

// --- Votes -------------------------------------------------------------------------------------------------------------

#[test]
fn a_vote_of_each_kind_is_bound_to_its_key_cluster_epoch_view_parent_block_and_kind() {
    let keys = keys(2);
    let (key, member, stranger) = (&keys[0], keys[0].member(), keys[1].member());
    let block = block_hash(&header());
    let kinds = [Vote::Notarize { parent_view: 4, block }, Vote::Nullify, Vote::Finalize { parent_view: 4, block }];
    for vote in kinds {
        let by = key.vote().sign(DB, 2, 5, vote);
        assert_eq!(verify_vote(&member, DB, 2, 5, vote, &by), Ok(()));
        let refused = Err(SignError::Node(member.node));
        assert_eq!(verify_vote(&member, DatabaseId::default(), 2, 5, vote, &by), refused);
        assert_eq!(verify_vote(&member, DB, 3, 5, vote, &by), refused);
        assert_eq!(verify_vote(&member, DB, 2, 6, vote, &by), refused);
        assert_eq!(verify_vote(&stranger, DB, 2, 5, vote, &by), Err(SignError::Node(stranger.node)));
        let others = [
            Vote::Notarize { parent_view: 3, block },
            Vote::Notarize { parent_view: 4, block: BlockHash::default() },
            Vote::Finalize { parent_view: 3, block },
            Vote::Finalize { parent_view: 4, block: BlockHash::default() },
        ];
        for other in kinds.into_iter().chain(others).filter(|o| *o != vote) {
            assert_eq!(verify_vote(&member, DB, 2, 5, other, &by), refused, "{vote:?} as {other:?}");
        }
        for bit in 0..48 * 8 {
            let mut bad = by;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_vote(&member, DB, 2, 5, vote, &bad).is_err(), "bit {bit}");
        }
        for bad in bad_g1() {
            assert!(verify_vote(&member, DB, 2, 5, vote, &bad).is_err());
        }
    }
}

#[test]
fn no_two_votes_have_the_same_bytes() {
    let mut seen = std::collections::BTreeSet::new();
    let mut votes = 0;
    for db in [DB, DatabaseId::default()] {
        for epoch in [0, 1, 127, 128, u64::MAX] {
            for view in [0, 1, 127, 128, 16384, u64::MAX] {
                for parent_view in [0, 1, 128, u64::MAX] {
                    for block in [BlockHash::default(), BlockHash::from_bytes([7; 32])] {
                        votes += 2;
                        seen.insert(vote_message(db, epoch, view, Vote::Notarize { parent_view, block }));
                        seen.insert(vote_message(db, epoch, view, Vote::Finalize { parent_view, block }));
                    }
                }
                votes += 1;
                seen.insert(vote_message(db, epoch, view, Vote::Nullify));
            }
        }
    }
    assert_eq!(seen.len(), votes);
}

#[test]
fn vote_key_is_the_seeds_alone() {
    let key = |byte| VoteKey::derive(&Secret::new([byte; 32]));
    assert_eq!(key(1).public(), key(1).public());
    assert_ne!(key(1).public(), key(2).public());
}

// --- Vectors -----------------------------------------------------------------------------------------------------------

fn bytes<const N: usize>(v: &Value) -> [u8; N] {
    let text = v.as_str().unwrap().strip_prefix("0x").unwrap();
    hex::decode(text).unwrap().try_into().unwrap()
}

/// `tests/interop/votes.mjs` writes them, with @noble/curves and @noble/hashes.
#[test]
fn keys_messages_votes_hashes_and_certificates_are_those_of_the_vectors() {
    let vectors = load("votes");
    let of = |kind: &str| vectors.iter().filter(|v| v["kind"] == kind).cloned().collect::<Vec<_>>();
    let members: Vec<Member> = of("member")
        .iter()
        .map(|v| {
            let key = NodeKey::new(Secret::new(bytes(&v["seed"])));
            let member = key.member();
            assert_eq!(member.node.to_bytes(), bytes(&v["node"]));
            assert_eq!(member.vote_key, bytes(&v["voteKey"]));
            assert_eq!(vote_key_eip2537(&member).unwrap(), bytes(&v["voteKeyEip2537"]));
            assert_eq!(member.possession, bytes(&v["possession"]));
            assert_eq!(verify_member(&member), Ok(()));
            for v in of("vote").iter().filter(|w| w["seed"] == v["seed"]) {
                let (db, epoch, view) =
                    (DatabaseId::from_bytes(bytes(&v["db"])), number(&v["epoch"]), number(&v["view"]));
                let parent_view = number(&v["parentView"]);
                let block = BlockHash::from_bytes(bytes(&v["block"]));
                let vote = match v["vote"].as_str().unwrap() {
                    "notarize" => Vote::Notarize { parent_view, block },
                    "nullify" => Vote::Nullify,
                    "finalize" => Vote::Finalize { parent_view, block },
                    other => panic!("{other}"),
                };
                let message = format!("0x{}", hex::encode(vote_message(db, epoch, view, vote)));
                assert_eq!(message, v["message"].as_str().unwrap());
                let by = key.vote().sign(db, epoch, view, vote);
                assert_eq!(by, bytes(&v["signature"]));
                assert_eq!(signature_eip2537(&by).unwrap(), bytes(&v["signatureEip2537"]));
                assert_eq!(verify_vote(&member, db, epoch, view, vote, &by), Ok(()));
            }
            member
        })
        .collect();
    assert!(of("vote").len() >= 4 && members.len() == 4);
    let members: Members = Bounded::new(members).unwrap();
    assert_eq!(verify_members(&members), Ok(()));
    let list = &of("members")[0];
    assert_eq!(members_hash(&members).unwrap(), bytes(&list["hash"]));
    for v in of("certificate") {
        let header = BlockHeader {
            db: DatabaseId::from_bytes(bytes(&v["db"])),
            consensus_epoch: number(&v["epoch"]),
            height: Height(number(&v["height"])),
            parent: BlockHash::from_bytes(bytes(&v["parent"])),
            timestamp_ms: number(&v["timestampMs"]),
            ops_hash: bytes(&v["opsHash"]),
            executed_height: Height(number(&v["executedHeight"])),
            executed_root: parsed(&v["executedRoot"]),
            next_members_hash: bytes(&v["nextMembersHash"]),
        };
        assert_eq!(encode(&header), bytes::<176>(&v["header"]));
        assert_eq!(block_hash(&header).to_bytes(), bytes(&v["blockHash"]));
        let (view, parent_view) = (number(&v["view"]), number(&v["parentView"]));
        let signers = u32::try_from(number(&v["signers"])).unwrap();
        let certificate = Certificate { header, view, parent_view, signers, signature: bytes(&v["signature"]) };
        assert_eq!(verify_certificate(&certificate, &members), Ok(()));
        assert_eq!(signature_eip2537(&certificate.signature).unwrap(), bytes(&v["signatureEip2537"]));
    }
}

#[test]
fn two_votes_conflict_as_the_contract_says() {
    let notarize = |i| Vote::Notarize { parent_view: 1, block: BlockHash::from_bytes([i; 32]) };
    let finalize = |i| Vote::Finalize { parent_view: 1, block: BlockHash::from_bytes([i; 32]) };
    let later = Vote::Notarize { parent_view: 2, block: BlockHash::from_bytes([1; 32]) };
    for (a, b) in
        [(notarize(1), notarize(2)), (notarize(1), later), (finalize(1), finalize(2)), (finalize(1), Vote::Nullify)]
    {
        assert!(conflict(&a, &b) && conflict(&b, &a), "{a:?} {b:?}");
    }
    let honest = [
        (notarize(1), notarize(1)),
        (finalize(1), finalize(1)),
        (Vote::Nullify, Vote::Nullify),
        (notarize(1), finalize(1)),
        (notarize(1), finalize(2)),
        (notarize(1), Vote::Nullify),
    ];
    for (a, b) in honest {
        assert!(!conflict(&a, &b) && !conflict(&b, &a), "{a:?} {b:?}");
    }
}

#[test]
fn votes_in_the_chains_encoding_verify_and_changed_ones_do_not() {
    let key = crate::sign::NodeKey::new(crate::secret::Secret::new([5; 32]));
    let (db, node) = (DatabaseId::from_bytes([9; 16]), key.id());
    let vote = Vote::Notarize { parent_view: 6, block: BlockHash::from_bytes([3; 32]) };
    let point = vote_key_eip2537(&key.member()).unwrap();
    let by = signature_eip2537(&key.vote().sign(db, 4, 7, vote)).unwrap();
    let check = |point: &[u8; 256], epoch, view, vote, by: &[u8; 128]| {
        verify_vote_eip2537(&node, point, db, epoch, view, vote, by)
    };
    assert_eq!(check(&point, 4, 7, vote, &by), Ok(()));
    assert_eq!(check(&point, 4, 8, vote, &by), Err(SignError::Node(node)));
    assert_eq!(check(&point, 5, 7, vote, &by), Err(SignError::Node(node)));
    assert_eq!(check(&point, 4, 7, Vote::Nullify, &by), Err(SignError::Node(node)));
    let other = crate::sign::NodeKey::new(crate::secret::Secret::new([6; 32]));
    let others = vote_key_eip2537(&other.member()).unwrap();
    assert_eq!(check(&others, 4, 7, vote, &by), Err(SignError::Node(node)));
    // Padding, infinity, and points off the curve.
    for at in [0, 15, 64, 127] {
        let mut padded = by;
        padded[at] ^= 1;
        assert!(matches!(check(&point, 4, 7, vote, &padded), Err(SignError::Malformed(_))), "signature byte {at}");
    }
    for at in [0, 63, 128, 200] {
        let mut padded = point;
        padded[at] ^= 1;
        assert!(matches!(check(&padded, 4, 7, vote, &by), Err(SignError::Malformed(_))), "key byte {at}");
    }
    assert!(matches!(check(&[0; 256], 4, 7, vote, &by), Err(SignError::Malformed(_))));
    assert!(matches!(check(&point, 4, 7, vote, &[0; 128]), Err(SignError::Malformed(_))));
}
