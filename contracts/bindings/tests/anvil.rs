//! The contracts on a real chain: anvil at hard fork Prague, through the bindings only.

mod support;

use alloy::primitives::B256;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use fluence_bindings::anvil::{Anvil, AnvilConfig, find};
use fluence_bindings::{
    Chain, ChainError, ChainParams, ChallengeStatus, Connection, Deployment, NodeStatus, Registration, SignHash,
    VerifierKey, VoteFor, deploy_all,
};
use fluence_crypto::placement::{self, PlacementSeed};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote::{signature_eip2537, vote_key_eip2537};
use fluence_types::op::OwnerSignature;
use fluence_types::shape::{CircuitId, RangeSumShape, StorageShape};
use fluence_types::{Address, DatabaseId, DbRoot, Epoch, FieldBytes, Height, NodeId};
use std::path::Path;
use std::sync::Arc;

const FLU: u128 = 1_000_000_000_000_000_000;
/// What a transaction that verifies a proof may cost, calldata included (issue 2).
const VERIFY_GAS_MAX: u64 = 260_000;
/// What a transaction with a certificate may cost, of up to 4 members and of 16 (issue 3).
const SUBMIT_GAS_MAX: [(usize, u64); 3] = [(1, 200_000), (4, 200_000), (16, 260_000)];

/// Starts anvil with changes to the usual configuration, or says that it is not installed.
fn anvil(change: impl FnOnce(&mut AnvilConfig)) -> Option<Anvil> {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let Some(binary) = find(contracts) else {
        println!("SKIPPED bindings-anvil: anvil is not installed");
        return None;
    };
    let mut config = AnvilConfig::new(binary);
    change(&mut config);
    Some(Anvil::spawn(&config).unwrap())
}

fn connection(anvil: &Anvil, account: usize) -> Connection {
    anvil.connection(account).unwrap()
}

async fn toy_keys(from: &Connection) -> Vec<VerifierKey> {
    let key = support::key(from.provider()).await;
    [
        CircuitId::Storage(StorageShape::SMALL),
        CircuitId::RangeSum(RangeSumShape::ONE),
        CircuitId::RangeSum(RangeSumShape::FOUR),
    ]
    .map(|circuit| VerifierKey { circuit, key: key.clone(), insecure_dev: true })
    .to_vec()
}

async fn chain(anvil: &Anvil, account: usize, deployment: &Deployment) -> Chain {
    Chain::open(connection(anvil, account), deployment.clone()).await.unwrap()
}

/// The operator of account `account` registers a node and puts 1,000 FLU behind it.
async fn join(anvil: &Anvil, treasury: &Chain, account: usize, node: NodeId) -> Chain {
    let operator = chain(anvil, account, treasury.deployment()).await;
    treasury.transfer_flu(&operator.connection().account().unwrap(), 1_000 * FLU).await.unwrap();
    operator.register_node(&node, b"/ip4/127.0.0.1/tcp/1").await.unwrap();
    operator.deposit(&node, 1_000 * FLU).await.unwrap();
    operator
}

fn owner() -> (PrivateKeySigner, Address) {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x42)).unwrap();
    let address = Address::from_bytes(signer.address().into_array());
    (signer, address)
}

fn sign(signer: &PrivateKeySigner, digest: [u8; 32]) -> OwnerSignature {
    signer.sign_hash_sync(&B256::from(digest)).unwrap().as_bytes()
}

fn registration(node: NodeId, operator: &Chain, db: u8) -> Registration {
    Registration {
        node,
        operator: operator.connection().account().unwrap(),
        owner: owner().1,
        db: DatabaseId::from_bytes([db; 16]),
        root: DbRoot::from_field(FieldBytes::from_u64(u64::from(db) * 1_000_003)),
        cells: 640,
        height: Height(3),
        until: Epoch(1_000),
        damage_max: 7 * FLU,
    }
}

#[tokio::test]
async fn a_node_that_answers_keeps_its_collateral_and_one_that_does_not_is_slashed() {
    let Some(anvil) = anvil(|_| {}) else { return };
    let deployer = connection(&anvil, 0);
    let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &toy_keys(&deployer).await).await.unwrap();
    assert_eq!(serde_json::from_str::<Deployment>(&serde_json::to_string(&deployment).unwrap()).unwrap(), deployment);
    let treasury = Chain::open(deployer, deployment.clone()).await.unwrap();
    let (honest_id, lossy_id) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    let honest = join(&anvil, &treasury, 1, honest_id).await;
    let lossy = join(&anvil, &treasury, 2, lossy_id).await;
    let arbiter = chain(&anvil, 3, &deployment).await;
    assert_eq!(honest.register_node(&honest_id, b"").await.unwrap_err().refusal(), Some("NodeExists"));

    // Registration: the owner's signature counts, a stranger's does not, and the digest is the contract's.
    let (signer, _) = owner();
    for (operator, node, dbs) in [(&honest, honest_id, &[5u8, 4][..]), (&lossy, lossy_id, &[6u8][..])] {
        for db in dbs {
            let r = registration(node, operator, *db);
            let digest = treasury.domain().registration_digest(&r);
            let stranger = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x43)).unwrap();
            let refused = operator.register_root(&r, Some(&sign(&stranger, digest)), None).await.unwrap_err();
            assert_eq!(refused.refusal(), Some("NotSigned"));
            operator.register_root(&r, Some(&sign(&signer, digest)), None).await.unwrap();
        }
    }
    assert_eq!(honest.collateral(&honest_id).await.unwrap().locked, 200 * FLU);
    assert_eq!(treasury.root_events(0).await.unwrap().len(), 3);
    assert_eq!(treasury.registered_events(0).await.unwrap().len(), 2);

    // Owed from the next epoch on, in id order; the seed is the one of the parts.
    let epoch = treasury.latest(&honest_id, &DatabaseId::from_bytes([4; 16])).await.unwrap().unwrap().from;
    assert_eq!(treasury.holdings(&honest_id, Epoch(epoch.0 - 1)).await.unwrap(), None);
    assert_eq!(treasury.beacon(epoch).await.unwrap_err().refusal(), Some("BeaconNotYet"));
    let now = treasury.connection().block_number().await.unwrap();
    anvil.mine(treasury.epoch_start(epoch) + 1 - now).await.unwrap();
    assert_eq!(treasury.current_epoch().await.unwrap(), epoch);
    let owed = treasury.owed(&honest_id, epoch).await.unwrap();
    assert_eq!(owed.iter().map(|o| o.db.to_bytes()[0]).collect::<Vec<_>>(), [4, 5]);
    let (root, cells) = treasury.holdings(&honest_id, epoch).await.unwrap().unwrap();
    assert_eq!(cells, 1_280);
    let parts = treasury.seed_parts(&honest_id, epoch, 0).await.unwrap();
    assert_eq!(parts.beacon, treasury.beacon(epoch).await.unwrap());

    // Challenged for its holdings, the honest node answers; a wrong proof changes nothing.
    let (id, _) = arbiter.challenge(&honest_id, epoch, None, 0, [9; 32]).await.unwrap();
    let open = treasury.challenge_of(&id).await.unwrap().unwrap();
    assert_eq!((open.id, open.status, open.db), (id, ChallengeStatus::Open, None));
    assert_eq!(open.inputs[0], root.to_field());
    assert_eq!(open.inputs[2], treasury.seed(&honest_id, epoch, 0).await.unwrap());
    let provider = treasury.connection().provider();
    let wrong = support::prove(provider, &[open.inputs[0], open.inputs[2], open.inputs[1]], 1).await;
    assert_eq!(honest.respond(&id, &wrong).await.unwrap_err().refusal(), Some("ProofMismatch"));
    let mut broken = wrong;
    broken[100] ^= 1;
    assert_eq!(honest.respond(&id, &broken).await.unwrap_err().refusal(), Some("PrecompileFailed"));
    let proof = support::prove(provider, &open.inputs, 2).await;
    let answered = honest.respond(&id, &proof).await.unwrap();
    println!("respond: {} gas", answered.gas);
    assert!(answered.gas <= VERIFY_GAS_MAX, "{} gas", answered.gas);
    assert_eq!(arbiter.claim_bond(&id).await.unwrap_err().refusal(), Some("BondNotYours"));
    honest.claim_bond(&id).await.unwrap();
    assert_eq!(treasury.challenge_of(&id).await.unwrap().unwrap().status, ChallengeStatus::Closed);

    // The other node is silent. Only the deadline slashes.
    let db = DatabaseId::from_bytes([6; 16]);
    let (id, _) = arbiter.challenge(&lossy_id, epoch, Some(&db), 0, [8; 32]).await.unwrap();
    assert_eq!(arbiter.expire(&id).await.unwrap_err().refusal(), Some("DeadlineNotPassed"));
    anvil.mine(deployment.params.response_blocks).await.unwrap();
    let supply = treasury.flu_supply().await.unwrap();
    arbiter.expire(&id).await.unwrap();
    let slashed = treasury.slashed_events(0).await.unwrap();
    assert_eq!(slashed.len(), 1);
    let s = slashed[0];
    assert_eq!((s.node, s.before, s.after), (lossy_id, 1_000 * FLU, 900 * FLU));
    assert_eq!((s.to_challenger, s.to_harmed, s.burned), (20 * FLU, 7 * FLU, 73 * FLU));
    assert_eq!(treasury.flu_supply().await.unwrap(), supply - s.burned);
    assert_eq!(treasury.expired_events(0).await.unwrap()[0].slashed, 100 * FLU);
    assert_eq!(treasury.challenged_events(0).await.unwrap().len(), 2);
    assert_eq!(treasury.answered_events(0).await.unwrap()[0].node, honest_id);
    assert_eq!(treasury.collateral(&honest_id).await.unwrap().total(), 1_000 * FLU);
    assert_eq!(treasury.node(&lossy_id).await.unwrap().unwrap().status, NodeStatus::Suspended);
    assert_eq!(treasury.node(&honest_id).await.unwrap().unwrap().status, NodeStatus::Active);
    assert_eq!(arbiter.credit(&arbiter.connection().account().unwrap()).await.unwrap(), 20 * FLU);
    arbiter.withdraw_credit().await.unwrap();
    assert_eq!(arbiter.flu_balance(&arbiter.connection().account().unwrap()).await.unwrap(), 20 * FLU);
    arbiter.claim_bond(&id).await.unwrap();
    lossy.restake(&lossy_id).await.unwrap();
    assert_eq!(treasury.node(&lossy_id).await.unwrap().unwrap().status, NodeStatus::Active);
}

#[tokio::test]
async fn a_challenge_that_a_node_could_not_answer_in_time_is_refused() {
    let Some(anvil) = anvil(|_| {}) else { return };
    let deployer = connection(&anvil, 0);
    // A proof may take half of the response time: two at once, and no third.
    let params = ChainParams { proof_blocks: ChainParams::LOCAL.response_blocks / 2, ..ChainParams::LOCAL };
    let deployment = deploy_all(&deployer, &params, &toy_keys(&deployer).await).await.unwrap();
    let never = ChainParams { proof_blocks: params.response_blocks + 1, ..params };
    let refused = deploy_all(&deployer, &never, &toy_keys(&deployer).await).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("BadParams"));
    let treasury = Chain::open(deployer, deployment.clone()).await.unwrap();
    let node = NodeId::from_bytes([1; 32]);
    let operator = join(&anvil, &treasury, 1, node).await;
    let arbiter = chain(&anvil, 3, &deployment).await;
    let dbs = [4u8, 5, 6];
    for db in dbs {
        let r = registration(node, &operator, db);
        let signature = sign(&owner().0, treasury.domain().registration_digest(&r));
        operator.register_root(&r, Some(&signature), None).await.unwrap();
    }
    let epoch = treasury.latest(&node, &DatabaseId::from_bytes([6; 16])).await.unwrap().unwrap().from;
    let now = treasury.connection().block_number().await.unwrap();
    anvil.mine(treasury.epoch_start(epoch) + 1 - now).await.unwrap();
    let [a, b, c] = dbs.map(|db| DatabaseId::from_bytes([db; 16]));
    let refused = arbiter.challenge(&node, epoch, Some(&a), 1, [9; 32]).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("ProofIndexOutOfRange"));
    arbiter.challenge(&node, epoch, Some(&a), 0, [9; 32]).await.unwrap();
    arbiter.challenge(&node, epoch, Some(&b), 0, [9; 32]).await.unwrap();
    let refused = arbiter.challenge(&node, epoch, Some(&c), 0, [9; 32]).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("QueueFull"));
    anvil.mine(params.proof_blocks).await.unwrap();
    arbiter.challenge(&node, epoch, Some(&c), 0, [8; 32]).await.unwrap();
}

#[tokio::test]
async fn certificates_of_clusters_are_kept_and_hand_over() {
    let Some(anvil) = anvil(|_| {}) else { return };
    let deployer = connection(&anvil, 0);
    let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &toy_keys(&deployer).await).await.unwrap();
    let stranger = chain(&anvil, 9, &deployment).await;
    for (i, (members, gas_max)) in SUBMIT_GAS_MAX.into_iter().enumerate() {
        let cluster = support::clusters::cluster(members);
        // An owner each: the clusters of the vectors have one database id.
        let owner = chain(&anvil, 1 + i, &deployment).await;
        let address = owner.connection().account().unwrap();
        let unknown = stranger.latest_checkpoint(&address, &cluster.db).await.unwrap_err();
        assert_eq!(unknown.refusal(), Some("ClusterUnknown"));
        let mut swapped = cluster.first.clone();
        swapped[0].1 = [0; 128];
        assert_eq!(owner.open_cluster(&cluster.db, &swapped).await.unwrap_err().refusal(), Some("PointAtInfinity"));
        owner.open_cluster(&cluster.db, &cluster.first).await.unwrap();
        let again = owner.open_cluster(&cluster.db, &cluster.first).await.unwrap_err();
        assert_eq!(again.refusal(), Some("AlreadyOpen"));
        assert_eq!(owner.latest_checkpoint(&address, &cluster.db).await.unwrap(), None);
        assert_eq!(owner.committee_of(&address, &cluster.db).await.unwrap(), cluster.first_hash);

        let first: Vec<_> = cluster.first.iter().map(|(member, _)| member.clone()).collect();
        let posts = cluster.by_first.iter().map(|c| (c, &first)).chain([(&cluster.by_second, &cluster.second)]);
        for ((certificate, signature), committee) in posts {
            let mut other = certificate.clone();
            other.view += 1;
            let refused = stranger.submit_certificate(&address, &other, signature, committee).await.unwrap_err();
            assert_eq!(refused.refusal(), Some("SignatureMismatch"));
            let sent = stranger.submit_certificate(&address, certificate, signature, committee).await.unwrap();
            println!("submit, {members} members, height {}: {} gas", certificate.header.height, sent.gas);
            assert!(sent.gas <= gas_max, "{} gas", sent.gas);
            let latest = stranger.latest_checkpoint(&address, &cluster.db).await.unwrap().unwrap();
            let header = &certificate.header;
            assert_eq!((latest.height, latest.consensus_epoch), (header.height, header.consensus_epoch));
            assert_eq!((latest.executed_height, latest.executed_root), (header.executed_height, header.executed_root));
            assert_eq!((latest.timestamp_ms, latest.accepted_at), (header.timestamp_ms, sent.block));
        }
        assert_eq!(owner.committee_of(&address, &cluster.db).await.unwrap(), cluster.second_hash);
        let (certificate, signature) = &cluster.by_first[0];
        let late = stranger.submit_certificate(&address, certificate, signature, &first).await.unwrap_err();
        assert_eq!(late.refusal(), Some("HeightNotAbove"));
    }
    let certified = stranger.certified_events(0).await.unwrap();
    assert_eq!(certified.len(), 12);
    assert_eq!(certified[0].executed_height, Height(0));
    let handed_over = stranger.handed_over_events(0).await.unwrap();
    assert_eq!(handed_over.len(), 3);
    assert_eq!(handed_over[2].committee, support::clusters::cluster(16).second_hash);
}

#[tokio::test]
async fn conflicting_votes_cost_a_node_everything_and_others_nothing() {
    let Some(anvil) = anvil(|_| {}) else { return };
    let deployer = connection(&anvil, 0);
    let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &toy_keys(&deployer).await).await.unwrap();
    let treasury = Chain::open(deployer, deployment.clone()).await.unwrap();
    let accuser = chain(&anvil, 3, &deployment).await;
    let (proven, innocent, possession) = support::clusters::evidence();
    let node = proven[0].node;
    let operator = join(&anvil, &treasury, 1, node).await;
    assert_eq!(accuser.accuse(&proven[0], [1; 32]).await.unwrap_err().refusal(), Some("VoteKeyUnknown"));
    let stranger = accuser.register_vote_key(&node, &proven[0].key, &possession).await.unwrap_err();
    assert_eq!(stranger.refusal(), Some("NotOperator"));
    assert_eq!(operator.vote_key(&node).await.unwrap(), None);
    operator.register_vote_key(&node, &proven[0].key, &possession).await.unwrap();
    assert_eq!(operator.vote_key(&node).await.unwrap(), Some(alloy::primitives::keccak256(proven[0].key).0));

    for evidence in &innocent {
        assert_eq!(accuser.accuse(evidence, [2; 32]).await.unwrap_err().refusal(), Some("NoConflict"));
    }
    let mut forged = proven[0].clone();
    forged.votes[1].0 = VoteFor::Nullify;
    forged.votes[0].0 = VoteFor::Finalize { parent_view: 199, block: fluence_types::BlockHash::default() };
    assert_eq!(accuser.accuse(&forged, [2; 32]).await.unwrap_err().refusal(), Some("SignatureMismatch"));
    assert_eq!(treasury.collateral(&node).await.unwrap().total(), 1_000 * FLU);

    let (db, epoch, view) = (proven[0].db, proven[0].consensus_epoch, proven[0].view);
    assert!(!treasury.equivocation_proven(&node, &db, epoch, view).await.unwrap());
    let sent = accuser.accuse(&proven[0], [3; 32]).await.unwrap();
    println!("accuse: {} gas", sent.gas);
    assert!(treasury.equivocation_proven(&node, &db, epoch, view).await.unwrap());
    assert_eq!(treasury.collateral(&node).await.unwrap().total(), 0);
    assert_eq!(treasury.node(&node).await.unwrap().unwrap().status, NodeStatus::Suspended);
    assert_eq!(accuser.credit(&accuser.connection().account().unwrap()).await.unwrap(), 200 * FLU);
    let events = treasury.equivocation_events(0).await.unwrap();
    assert_eq!((events.len(), events[0].node, events[0].slashed), (1, node, 1_000 * FLU));
    assert_eq!(accuser.accuse(&proven[1], [4; 32]).await.unwrap_err().refusal(), Some("AlreadyProven"));
}

/// A node of operator `account` with a vote key, its collateral, and a place on the list.
async fn offer(anvil: &Anvil, treasury: &Chain, account: usize, byte: u8) -> NodeId {
    let key = NodeKey::new(Secret::new([byte; 32]));
    let operator = join(anvil, treasury, account, key.id()).await;
    let refused = operator.announce_node(&key.id()).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("VoteKeyMissing"));
    let member = key.member();
    let (point, possession) = (vote_key_eip2537(&member).unwrap(), signature_eip2537(&member.possession).unwrap());
    operator.register_vote_key(&key.id(), &point, &possession).await.unwrap();
    operator.announce_node(&key.id()).await.unwrap();
    assert!(operator.is_announced(&key.id()).await.unwrap());
    key.id()
}

#[tokio::test]
async fn members_are_drawn_by_a_later_block_as_they_are_computed_here() {
    let Some(anvil) = anvil(|_| {}) else { return };
    let deployer = connection(&anvil, 0);
    let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &toy_keys(&deployer).await).await.unwrap();
    let treasury = Chain::open(deployer, deployment.clone()).await.unwrap();
    // The owner's key signs elsewhere: the account is a closure.
    let (signer, address) = owner();
    anvil.fund(&address, 1_000_000_000_000_000_000).await.unwrap();
    let sign: SignHash = Arc::new(move |hash| sign(&signer, hash));
    let owner = Connection::signing(anvil.rpc_url(), address, sign).unwrap();
    let owner = Chain::open(owner, deployment.clone()).await.unwrap();

    let db = DatabaseId::from_bytes([7; 16]);
    assert_eq!(owner.request_placement(&db, 4, 2).await.unwrap_err().refusal(), Some("TooFewOperators"));
    let mut nodes = Vec::new();
    for account in 1..=5 {
        nodes.push(offer(&anvil, &treasury, account, account as u8).await);
    }
    // A second node of an operator that has one.
    nodes.push(offer(&anvil, &treasury, 5, 6).await);
    assert_eq!(owner.placement_request(&address, &db).await.unwrap(), None);
    owner.request_placement(&db, 4, 2).await.unwrap();
    assert_eq!(owner.request_placement(&db, 4, 2).await.unwrap_err().refusal(), Some("AlreadyRequested"));
    assert_eq!(treasury.settle_placement(&address, &db).await.unwrap_err().refusal(), Some("SeedNotYet"));
    anvil.mine(deployment.params.seed_blocks + 1).await.unwrap();
    let request = owner.placement_request(&address, &db).await.unwrap().unwrap();
    assert_eq!((request.seats, request.standbys, request.slots, request.settled_at), (4, 2, 6, None));

    let seed = placement::seed(&PlacementSeed {
        chain_id: deployment.chain_id,
        contract: deployment.placement,
        owner: address,
        db,
        beacon: owner.block_hash(request.seed_block).await.unwrap().unwrap(),
    });
    let list = owner.placement_candidates(&request, owner.connection().block_number().await.unwrap()).await.unwrap();
    let operators: Vec<_> = list.iter().map(|c| c.operator).collect();
    let order: Vec<_> = placement::draw(&seed, &operators, 6).into_iter().map(|slot| list[slot].node).collect();
    assert_eq!(order.len(), 5, "five operators, six nodes");
    // A stranger settles: it is the same draw.
    let sent = treasury.settle_placement(&address, &db).await.unwrap();
    println!("settle: {} gas", sent.gas);
    assert_eq!(owner.placement_preview(&address, &db).await.unwrap(), (seed, order.clone()));
    assert_eq!(treasury.settle_placement(&address, &db).await.unwrap_err().refusal(), Some("AlreadySettled"));
    assert_eq!(owner.placement_requests(&address).await.unwrap(), 1);

    // Who thaws its collateral may be taken off the list by anybody; who did not, not.
    let operator = chain(&anvil, 1, &deployment).await;
    assert_eq!(treasury.evict_node(&nodes[0]).await.unwrap_err().refusal(), Some("StillFit"));
    operator.thaw(&nodes[0], 950 * FLU).await.unwrap();
    treasury.evict_node(&nodes[0]).await.unwrap();
    chain(&anvil, 2, &deployment).await.withdraw_node(&nodes[1]).await.unwrap();
    assert!(!treasury.is_announced(&nodes[0]).await.unwrap() && !treasury.is_announced(&nodes[1]).await.unwrap());
    assert_eq!(owner.placement_preview(&address, &db).await.unwrap().1, order, "settled for good");
}

#[tokio::test]
async fn range_sum_proofs_are_checked_by_a_view_call_against_the_pinned_key() {
    let Some(anvil) = anvil(|_| {}) else { return };
    let deployer = connection(&anvil, 0);
    let keys = toy_keys(&deployer).await;
    let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &keys).await.unwrap();
    let reader = Chain::open(Connection::new(anvil.rpc_url(), None).unwrap(), deployment).await.unwrap();
    let inputs = [7, 8, 9].map(FieldBytes::from_u64);
    let proof = support::prove(reader.connection().provider(), &inputs, 3).await;
    for shape in [RangeSumShape::ONE, RangeSumShape::FOUR] {
        let circuit = CircuitId::RangeSum(shape);
        assert!(reader.verify_range_sum(&circuit, &inputs, &proof).await.unwrap());
        assert!(!reader.verify_range_sum(&circuit, &[7, 8, 10].map(FieldBytes::from_u64), &proof).await.unwrap());
        let gas = reader.verify_range_sum_gas(&circuit, &inputs, &proof).await.unwrap();
        println!("verifyRangeSum: {gas} gas");
        assert!(gas <= VERIFY_GAS_MAX, "{gas} gas");
        assert_eq!(reader.verification_key(&circuit).await.unwrap(), keys[1].key);
        assert_eq!(reader.vk_hash(&circuit).await.unwrap(), alloy::primitives::keccak256(&keys[1].key).0);
        assert!(reader.insecure_dev_key(&circuit).await.unwrap());
    }
    let unknown = CircuitId::RangeSum(RangeSumShape::TINY);
    let refused = reader.verify_range_sum(&unknown, &inputs, &proof).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("CircuitUnknown"));
    let refused = reader.verify_range_sum(&CircuitId::RangeSum(RangeSumShape::ONE), &inputs[..2], &proof).await;
    assert_eq!(refused.unwrap_err().refusal(), Some("InputCount"));
    // Without a key nothing can be sent.
    let sent = reader.register_node(&NodeId::from_bytes([1; 32]), b"").await;
    assert!(matches!(sent, Err(ChainError::Setup { what: "account", .. })));
}

#[tokio::test]
async fn keys_of_no_ceremony_are_refused_on_a_chain_that_is_not_local() {
    let Some(anvil) = anvil(|c| c.chain_id = 5) else { return };
    let deployer = connection(&anvil, 0);
    let mut keys = toy_keys(&deployer).await;
    let refused = deploy_all(&deployer, &ChainParams::LOCAL, &keys).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("InsecureKey"));
    // Not calling it a development key does not help: it is in no table.
    keys.iter_mut().for_each(|k| k.insecure_dev = false);
    let refused = deploy_all(&deployer, &ChainParams::HOURLY, &keys).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("UnknownKey"));
}

#[tokio::test]
async fn a_deployment_is_opened_on_its_own_chain_and_address_alone() {
    let Some(anvil) = anvil(|c| c.chain_id = 1337) else { return };
    let deployer = connection(&anvil, 0);
    let keys = toy_keys(&deployer).await;
    let deployment = deploy_all(&deployer, &ChainParams::HOURLY, &keys).await.unwrap();
    // A deployment is opened on the chain it names and no other.
    let elsewhere = Deployment { chain_id: 6, ..deployment.clone() };
    assert!(matches!(Chain::open(deployer.clone(), elsewhere).await, Err(ChainError::Setup { .. })));
    let nowhere = Deployment { epoch_proofs: Address::from_bytes([9; 20]), ..deployment };
    assert!(matches!(Chain::open(deployer, nowhere).await, Err(ChainError::Setup { .. } | ChainError::Rpc { .. })));
}

#[tokio::test]
async fn a_chain_without_the_precompiles_is_refused_at_deployment() {
    let Some(prague) = anvil(|_| {}) else { return };
    let keys = toy_keys(&connection(&prague, 0)).await;
    let Some(cancun) = anvil(|c| c.hardfork = "cancun".into()) else { return };
    let refused = deploy_all(&connection(&cancun, 0), &ChainParams::LOCAL, &keys).await.unwrap_err();
    assert_eq!(refused.refusal(), Some("PrecompileFailed"), "{refused}");
}
