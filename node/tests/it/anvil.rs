//! The hour on a real chain: anvil with the real contracts. Skipped, and says so, where anvil is not installed.

use crate::hour::{Node, SHAPE, arbiter, make_key};
use fluence_bindings::anvil::{Anvil, AnvilConfig, find};
use fluence_bindings::{Chain as Contracts, ChainParams, Deployment, Registration, VerifierKey, deploy_all};
use fluence_node::arbiter::judge::Case;
use fluence_node::chain::ethereum::Ethereum;
use fluence_node::chain::{Chain, ChallengeStatus};
use fluence_types::Epoch;
use fluence_types::shape::CircuitId;
use std::path::Path;
use std::sync::Arc;

const FLU: u128 = 1_000_000_000_000_000_000;

async fn contracts(anvil: &Anvil, account: usize, deployment: &Deployment) -> Contracts {
    Contracts::open(anvil.connection(account).unwrap(), deployment.clone()).await.unwrap()
}

async fn ethereum(anvil: &Anvil, account: usize, deployment: &Deployment) -> Arc<Ethereum> {
    Arc::new(Ethereum::new(contracts(anvil, account, deployment).await).await.unwrap())
}

/// Mines up to the block after which an epoch's beacon is known.
async fn mine_to(anvil: &Anvil, chain: &Ethereum, epoch: Epoch) {
    let head = chain.head().await.unwrap();
    anvil.mine(chain.info().epoch_start(epoch) + 1 - head).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_real_contracts_the_honest_answer_and_the_one_without_data_is_slashed() {
    let contracts_dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("contracts");
    let Some(binary) = find(&contracts_dir) else {
        println!("SKIPPED node-anvil: anvil is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let vk = make_key(&keys);
    let anvil = Anvil::spawn(&AnvilConfig::new(binary)).unwrap();
    let circuit = CircuitId::Storage(SHAPE);
    let pinned = VerifierKey { circuit, key: vk.to_eip2537(), insecure_dev: true };
    let deployer = anvil.connection(0).unwrap();
    let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &[pinned]).await.unwrap();
    let treasury = Contracts::open(deployer, deployment.clone()).await.unwrap();
    let watcher = ethereum(&anvil, 3, &deployment).await;
    assert_eq!(watcher.info().storage_vk_hash, vk.pinned_hash());
    assert_eq!(watcher.info().shape, SHAPE);

    let mut nodes = Vec::new();
    for account in 1..=2 {
        let node = Node::new(account as u8, dir.path(), &keys, ethereum(&anvil, account, &deployment).await).await;
        let operator = contracts(&anvil, account, &deployment).await;
        let address = operator.connection().account().unwrap();
        treasury.transfer_flu(&address, 1_000 * FLU).await.unwrap();
        operator.register_node(&node.id, node.net.listeners()[0].as_bytes()).await.unwrap();
        operator.deposit(&node.id, 1_000 * FLU).await.unwrap();
        let view = node.engine.view(node.db.db).unwrap();
        let registration = Registration {
            node: node.id,
            operator: address,
            owner: node.db.owner.key.address(),
            db: node.db.db,
            root: view.checkpoint().root,
            cells: view.summary().stored_cells,
            height: view.checkpoint().height,
            until: Epoch(1000),
            damage_max: 0,
        };
        drop(view);
        let signature = node.db.owner.key.sign_prehash(treasury.domain().registration_digest(&registration));
        operator.register_root(&registration, Some(&signature), None).await.unwrap();
        nodes.push(node);
    }
    let registered = watcher.nodes().await.unwrap();
    assert_eq!(registered.len(), 2);
    assert_eq!(registered[0].multiaddr, Some(nodes[0].net.listeners()[0].clone()));

    // What is owed, computed here, is what the contract says.
    let epoch = treasury.effective_epoch().await.unwrap();
    assert_eq!(watcher.beacon(epoch).await.unwrap(), None);
    mine_to(&anvil, &watcher, epoch).await;
    let debt = watcher.debt(nodes[0].id, epoch).await.unwrap().unwrap();
    assert_eq!(Some(debt.holdings()), treasury.holdings(&nodes[0].id, epoch).await.unwrap());

    let mut arbiter = arbiter(dir.path(), &vk, ethereum(&anvil, 3, &deployment).await).await;
    for node in &mut nodes {
        assert_eq!(node.duty.round().await.unwrap(), None);
    }
    arbiter.round().await.unwrap();
    for node in &nodes {
        assert_eq!(arbiter.cases()[&node.subject(epoch.0)], Case::Accepted);
    }

    // The next epoch: one has lost its data. The other is challenged for no reason, and answers.
    let next = Epoch(epoch.0 + 1);
    nodes[1].lose_everything();
    mine_to(&anvil, &watcher, next).await;
    for node in &mut nodes {
        node.duty.round().await.unwrap();
    }
    anvil.mine(3).await.unwrap();
    watcher.challenge(nodes[0].subject(next.0), [4; 32]).await.unwrap();
    assert_eq!(nodes[0].duty.round().await.unwrap(), None);
    let challenge = watcher.challenge_of(nodes[0].subject(next.0)).await.unwrap().unwrap();
    assert_eq!(challenge.status, ChallengeStatus::Answered);
    // Asked in the first round, challenged in the second.
    arbiter.round().await.unwrap();
    arbiter.round().await.unwrap();
    assert_eq!(arbiter.cases()[&nodes[0].subject(next.0)], Case::Accepted);
    assert!(matches!(arbiter.cases()[&nodes[1].subject(next.0)], Case::Challenged { ours: true, .. }));
    assert!(nodes[1].duty.round().await.unwrap().is_some());
    anvil.mine(deployment.params.response_blocks + 1).await.unwrap();
    arbiter.round().await.unwrap();
    let Case::Expired { slashed, .. } = &arbiter.cases()[&nodes[1].subject(next.0)] else { panic!() };
    assert_eq!(slashed.as_deref(), Some((100 * FLU).to_string().as_str()));
    arbiter.round().await.unwrap();
    assert_eq!(arbiter.cases()[&nodes[1].subject(next.0)], Case::Closed);
    let slashes = treasury.slashed_events(0).await.unwrap();
    assert_eq!(slashes.iter().map(|s| s.node).collect::<Vec<_>>(), [nodes[1].id]);
}
