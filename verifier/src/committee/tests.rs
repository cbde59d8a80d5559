use super::*;
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_types::block::Certificate;
use fluence_types::codec::Bounded;
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::{BlockHash, DbRoot};

const DB: DatabaseId = DatabaseId::from_bytes([5; 16]);

/// The nodes with these numbers, in the order of their ids.
fn keys(nodes: &[u8]) -> Vec<NodeKey> {
    let mut keys: Vec<_> = nodes.iter().map(|i| NodeKey::new(Secret::new([*i; 32]))).collect();
    keys.sort_by_key(NodeKey::id);
    keys
}

fn members(nodes: &[u8]) -> Members {
    Bounded::new(keys(nodes).iter().map(NodeKey::member).collect()).unwrap()
}

fn header(epoch: u64, next: &Members) -> BlockHeader {
    BlockHeader {
        db: DB,
        consensus_epoch: epoch,
        height: Height((epoch + 1) * EPOCH_BLOCKS - 1),
        parent: BlockHash::from_bytes([1; 32]),
        timestamp_ms: 1,
        ops_hash: [0; 32],
        executed_height: Height((epoch + 1) * EPOCH_BLOCKS - 2),
        executed_root: DbRoot::default(),
        next_members_hash: vote::members_hash(next).unwrap(),
    }
}

fn certificate(header: BlockHeader, by: &[u8]) -> Certificate {
    let keys = keys(by);
    vote::certify(header, 64, 63, &members(by), &keys.iter().collect::<Vec<_>>()).unwrap()
}

/// The last block of `epoch`, signed by `by`, hands over to `next`.
fn handover(epoch: u64, by: &[u8], next: &[u8]) -> Handover {
    let members = members(next);
    Handover { certificate: certificate(header(epoch, &members), by), members }
}

const A: &[u8] = &[1, 2, 3, 4];
const B: &[u8] = &[2, 3, 4, 5];
const C: &[u8] = &[3, 4, 5, 6];

fn start() -> Committee {
    Committee::new(0, members(A))
}

/// Three changes, with epochs in between in which nothing changed.
fn chain() -> Vec<Handover> {
    vec![handover(0, A, B), handover(4, B, C), handover(5, C, A)]
}

#[test]
fn each_committee_is_believed_by_the_word_of_the_one_before() {
    assert_eq!(follow(DB, &start(), &[]), Ok(start()));
    assert_eq!(follow(DB, &start(), &chain()[..1]), Ok(Committee::new(1, members(B))));
    assert_eq!(follow(DB, &start(), &chain()[..2]), Ok(Committee::new(5, members(C))));
    assert_eq!(follow(DB, &start(), &chain()), Ok(Committee::new(6, members(A))));
    // In parts as well as at once, and with the epochs in which nothing changed.
    let part = follow(DB, &start(), &chain()[..1]).unwrap();
    assert_eq!(follow(DB, &part, &[handover(2, B, B), handover(4, B, C)]), Ok(Committee::new(5, members(C))));
}

#[test]
fn rejects_a_change_that_was_left_out() {
    let skipped = [chain()[0].clone(), chain()[2].clone()];
    assert!(matches!(
        follow(DB, &start(), &skipped),
        Err(CommitteeError::Certificate { epoch: 5, since: 1, why: SignError::Certificate(_) })
    ));
    assert!(matches!(follow(DB, &start(), &chain()[1..]), Err(CommitteeError::Certificate { epoch: 4, since: 0, .. })));
}

#[test]
fn rejects_next_members_that_were_not_signed_for() {
    let mut forged = chain();
    forged[0].members = members(&[7, 8, 9, 10]);
    assert_eq!(follow(DB, &start(), &forged), Err(CommitteeError::OtherMembers { epoch: 0 }));
    // One seat, or one vote key, exchanged.
    forged[0].members = members(&[2, 3, 4, 9]);
    assert_eq!(follow(DB, &start(), &forged), Err(CommitteeError::OtherMembers { epoch: 0 }));
    let mut stolen = members(B).into_vec();
    let thief = NodeKey::new(Secret::new([9; 32]));
    (stolen[2].vote_key, stolen[2].possession) = (thief.vote().public(), thief.vote().possession(&stolen[2].node));
    forged[0].members = Bounded::new(stolen).unwrap();
    assert_eq!(follow(DB, &start(), &forged), Err(CommitteeError::OtherMembers { epoch: 0 }));
    // A member fewer, the hash exchanged with the list, members out of order, nobody.
    forged[0].members = members(&[2, 3, 4]);
    assert_eq!(follow(DB, &start(), &forged), Err(CommitteeError::OtherMembers { epoch: 0 }));
    forged[0].certificate.header.next_members_hash = vote::members_hash(&forged[0].members).unwrap();
    assert!(matches!(follow(DB, &start(), &forged), Err(CommitteeError::Certificate { epoch: 0, since: 0, .. })));
    for list in [
        {
            let mut l = members(B).into_vec();
            l.swap(0, 1);
            l
        },
        vec![],
    ] {
        let mut bad = chain();
        bad[0].members = Bounded::new(list).unwrap();
        assert!(matches!(follow(DB, &start(), &bad), Err(CommitteeError::Members { epoch: 0, .. })));
    }
    // The proof of possession is outside the hash, so it is checked by itself.
    let mut bad = chain();
    let mut list = members(B).into_vec();
    list[0].possession = list[1].possession;
    let node = list[0].node;
    bad[0].members = Bounded::new(list).unwrap();
    let why = SignError::VoteKey(node);
    assert_eq!(follow(DB, &start(), &bad), Err(CommitteeError::Members { epoch: 0, why }));
}

#[test]
fn rejects_what_members_sign_after_they_handed_over() {
    let now = follow(DB, &start(), &chain()[..1]).unwrap();
    // The old committee goes on as if nothing had happened, or hands over to its friends.
    for next in [A, &[7, 8, 9, 10]] {
        let late = handover(3, A, next);
        assert!(matches!(follow(DB, &now, &[late]), Err(CommitteeError::Certificate { epoch: 3, since: 1, .. })));
    }
    // Its last word, twice: the one of an epoch that is over is no news.
    let again = handover(0, A, &[7, 8, 9, 10]);
    assert_eq!(follow(DB, &now, &[again]), Err(CommitteeError::Order { epoch: 0, since: 1 }));
    // A caller that knows that a committee has ended, but not who came after it.
    let ended = Committee { until: Some(0), ..start() };
    assert_eq!(follow(DB, &ended, &[handover(3, A, A)]), Err(CommitteeError::Order { epoch: 3, since: 0 }));
    assert_eq!(follow(DB, &ended, &chain()[..1]), Ok(Committee::new(1, members(B))));
}

#[test]
fn rejects_less_than_a_quorum_another_database_and_blocks_that_end_nothing() {
    let keys = keys(A);
    let make = |header, keys: &[&NodeKey]| {
        let certificate = vote::certify(header, 64, 63, &members(A), keys).unwrap();
        Handover { certificate, members: members(B) }
    };
    let few = make(header(0, &members(B)), &[&keys[0], &keys[1]]);
    let why = SignError::Quorum { signed: 2, members: 4, quorum: 3 };
    assert_eq!(follow(DB, &start(), &[few]), Err(CommitteeError::Certificate { epoch: 0, since: 0, why }));
    let all: Vec<_> = keys.iter().collect();
    let foreign = make(BlockHeader { db: DatabaseId::default(), ..header(0, &members(B)) }, &all);
    assert!(matches!(follow(DB, &start(), &[foreign]), Err(CommitteeError::ForeignDatabase { .. })));
    for (height, epoch) in [(62, 0), (64, 1), (63, 1), (127, 0)] {
        let header = BlockHeader { height: Height(height), consensus_epoch: epoch, ..header(0, &members(B)) };
        let want = CommitteeError::NotLast { height: Height(height), epoch };
        assert_eq!(follow(DB, &start(), &[make(header, &all)]), Err(want));
    }
}

#[test]
fn rejects_handovers_out_of_order_repeated_or_too_many() {
    let (mut swapped, mut twice) = (chain(), chain());
    swapped.swap(0, 1);
    assert!(matches!(follow(DB, &start(), &swapped), Err(CommitteeError::Certificate { epoch: 4, .. })));
    twice.insert(1, twice[0].clone());
    assert_eq!(follow(DB, &start(), &twice), Err(CommitteeError::Order { epoch: 0, since: 1 }));
    let many = vec![chain()[0].clone(); HANDOVERS_MAX + 1];
    assert_eq!(follow(DB, &start(), &many), Err(CommitteeError::TooMany(HANDOVERS_MAX + 1)));
}

#[test]
fn a_member_is_found_by_its_id() {
    let committee = start();
    for member in committee.members.iter() {
        assert_eq!(committee.member(&member.node), Some(member));
    }
    let stranger = NodeKey::new(Secret::new([9; 32])).id();
    assert_eq!(committee.member(&stranger), None);
}
