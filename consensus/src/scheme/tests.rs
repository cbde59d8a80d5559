use super::*;
use commonware_consensus::simplex::types::{Finalize, Notarize, Nullify};
use commonware_cryptography::certificate::Scheme as _;
use commonware_utils::iter::NonEmpty;
use fluence_crypto::secret::Secret;
use fluence_crypto::vote::{self, Vote};
use fluence_types::{BlockHash, DbRoot, Height};

fn keys(n: u8) -> Vec<NodeKey> {
    let mut keys: Vec<_> = (1..=n).map(|i| NodeKey::new(Secret::new([i; 32]))).collect();
    keys.sort_by_key(NodeKey::id);
    keys
}

fn members(keys: &[NodeKey]) -> Members {
    keys.iter().map(NodeKey::member).collect::<Vec<_>>().try_into().unwrap()
}

fn header() -> BlockHeader {
    BlockHeader {
        db: DatabaseId::from_bytes([9; 16]),
        consensus_epoch: 3,
        height: Height(200),
        parent: BlockHash::from_bytes([1; 32]),
        timestamp_ms: 5,
        ops_hash: [2; 32],
        executed_height: Height(199),
        executed_root: DbRoot::default(),
        next_members_hash: [3; 32],
    }
}

#[test]
fn the_library_orders_and_counts_members_as_we_do() {
    let keys = keys(7);
    let scheme = committee_scheme(header().db, &members(&keys), Some(&keys[3])).unwrap();
    let order: Vec<NodeId> = scheme.participants().iter().map(node_id).collect();
    assert_eq!(order, keys.iter().map(NodeKey::id).collect::<Vec<_>>());
}

#[test]
fn the_library_signs_what_we_check_and_checks_what_we_sign() {
    let (keys, header) = (keys(4), header());
    let members = members(&keys);
    let (view, parent_view, block) = (300, 7, block_hash(&header));
    let round = Round::new(Epoch::new(3), View::new(view));
    let proposal = Proposal::new(round, View::new(parent_view), digest(&block));
    let mut finalizes = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let scheme = committee_scheme(header.db, &members, Some(key)).unwrap();
        let check = |vote: Vote, signature: &[u8]| {
            let ours = key.vote().sign(header.db, 3, view, vote);
            assert_eq!(ours.as_slice(), signature, "{vote:?}");
            vote::verify_vote(&members[i], header.db, 3, view, vote, &ours).unwrap();
        };
        let notarize = Notarize::sign(&scheme, proposal.clone()).unwrap();
        let finalize = Finalize::sign(&scheme, proposal.clone()).unwrap();
        let nullify = Nullify::sign::<BlockDigest>(&scheme, round).unwrap();
        check(Vote::Notarize { parent_view, block }, &notarize.attestation.signature.get().unwrap().encode());
        check(Vote::Finalize { parent_view, block }, &finalize.attestation.signature.get().unwrap().encode());
        check(Vote::Nullify, &nullify.attestation.signature.get().unwrap().encode());
        finalizes.push(finalize);
    }
    let scheme = committee_scheme(header.db, &members, None).unwrap();
    let sequential = commonware_parallel::Sequential;
    let theirs =
        Finalization::from_finalizes(&scheme, NonEmpty::try_new(finalizes[1..].iter()).unwrap(), &sequential).unwrap();
    let certificate = certificate(header.clone(), &theirs).unwrap();
    assert_eq!(certificate.signers, 0b1110);
    vote::verify_certificate(&certificate, &members).unwrap();
    let signers: Vec<&NodeKey> = keys[1..].iter().collect();
    assert_eq!(vote::certify(header, view, parent_view, &members, &signers).unwrap(), certificate);
    // And back: what we carry, the library takes for its own.
    let again = finalization(&certificate, members.len()).unwrap();
    assert_eq!(again, theirs);
    assert!(finalization(&certificate, 2).is_err());
}

#[test]
fn a_stranger_only_checks() {
    let keys = keys(4);
    let stranger = NodeKey::new(Secret::new([99; 32]));
    let scheme = committee_scheme(header().db, &members(&keys), Some(&stranger)).unwrap();
    assert!(
        Notarize::sign(
            &scheme,
            Proposal::new(Round::new(Epoch::zero(), View::new(1)), View::new(0), digest(&BlockHash::default()))
        )
        .is_none()
    );
}
