//! Clusters and the real contracts: certificates are posted by the members in turn, evidence slashes who voted twice. Skipped, and says
//! so, where anvil is not installed.

use crate::cluster::{OWNER, World, settings};
use crate::common::key;
use crate::hour::{SHAPE, make_key};
use fluence_bindings::anvil::{Anvil, AnvilConfig, find};
use fluence_bindings::{
    Chain as Contracts, ChainParams, CommitteeMember, Connection, Deployment, NodeStatus, VerifierKey, deploy_all,
};
use fluence_consensus::Evidence;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote::{Vote, signature_eip2537, vote_key_eip2537};
use fluence_engine::testkit::{TestWriter, define, schema};
use fluence_node::chain::Chain;
use fluence_node::chain::ethereum::Ethereum;
use fluence_node::cluster::accuser::Accuser;
use fluence_node::cluster::evidence;
use fluence_node::config::{ChainConfig, RpcUrl, StorageConfig};
use fluence_types::block::Members;
use fluence_types::shape::CircuitId;
use fluence_types::{BlockHash, DatabaseId, Height, NodeId};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const FLU: u128 = 1_000_000_000_000_000_000;
/// Longest wait for what nodes do by themselves.
pub const PATIENCE: Duration = Duration::from_secs(60);
const EVERY_BLOCKS: u64 = 40;
const TURN_BLOCKS: u64 = 10;

/// A local chain with the contracts.
pub struct Ground {
    anvil: Anvil,
    deployment: Deployment,
    pub treasury: Contracts,
}

/// Settings of a node that looks at the chain often, and posts no certificates.
pub fn on_chain(dir: &Path) -> StorageConfig {
    let mut config = settings(dir);
    // What is asked of a connection that a test gives is not read from the file.
    let mut chain = ChainConfig::new(RpcUrl(String::new()), "unused".into(), None);
    chain.poll_ms = 50;
    config.chain = Some(chain);
    config
}

impl Ground {
    pub async fn new(keys: &Path) -> Option<Self> {
        let contracts_dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("contracts");
        let Some(binary) = find(&contracts_dir) else {
            println!("SKIPPED node-anchoring: anvil is not installed");
            return None;
        };
        let vk = make_key(keys);
        let anvil = Anvil::spawn(&AnvilConfig::new(binary)).unwrap();
        let pinned = VerifierKey { circuit: CircuitId::Storage(SHAPE), key: vk.to_eip2537(), insecure_dev: true };
        let deployer = anvil.connection(0).unwrap();
        let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &[pinned]).await.unwrap();
        let treasury = Contracts::open(deployer, deployment.clone()).await.unwrap();
        Some(Self { anvil, deployment, treasury })
    }

    async fn contracts(&self, account: usize) -> Contracts {
        Contracts::open(self.anvil.connection(account).unwrap(), self.deployment.clone()).await.unwrap()
    }

    async fn ethereum(&self, account: usize) -> Arc<Ethereum> {
        Arc::new(Ethereum::new(self.contracts(account).await).await.unwrap())
    }

    /// The chain as the nodes of four operators have it, whose accounts are 1 to 4.
    pub async fn four(&self) -> Vec<Option<Arc<dyn Chain>>> {
        let mut chains: Vec<Option<Arc<dyn Chain>>> = Vec::new();
        for account in 1..=4 {
            chains.push(Some(self.ethereum(account).await));
        }
        chains
    }

    /// Registers a node with its vote key and collateral, by the operator of an account.
    pub async fn join(&self, account: usize, key: &NodeKey) -> Contracts {
        let operator = self.contracts(account).await;
        self.treasury.transfer_flu(&operator.connection().account().unwrap(), 1_000 * FLU).await.unwrap();
        operator.register_node(&key.id(), b"/ip4/127.0.0.1/tcp/1").await.unwrap();
        operator.deposit(&key.id(), 1_000 * FLU).await.unwrap();
        let member = key.member();
        let (point, possession) = (vote_key_eip2537(&member).unwrap(), signature_eip2537(&member.possession).unwrap());
        operator.register_vote_key(&key.id(), &point, &possession).await.unwrap();
        operator
    }

    /// Waits until the chain has a checkpoint above `height`, mining a block between two looks.
    async fn above(&self, owner: &fluence_types::Address, db: &DatabaseId, height: Height) -> Height {
        let begun = Instant::now();
        loop {
            let status = self.treasury.cluster_status(owner, db).await.unwrap().unwrap();
            if status.height > height {
                return status.height;
            }
            assert!(begun.elapsed() < PATIENCE, "no certificate above {height}");
            self.anvil.mine(1).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_post_certificates_in_turn_and_go_on_without_one_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let Some(ground) = Ground::new(&keys).await else { return };
    let configure = |dir: &Path| {
        let mut config = on_chain(dir);
        let chain = config.chain.as_mut().unwrap();
        chain.checkpoint_blocks = NonZeroU64::new(EVERY_BLOCKS);
        chain.turn_blocks = TURN_BLOCKS;
        config
    };
    let mut world = World::with(ground.four().await, configure).await;
    world.act(0, define(0, schema(1, 1))).await;

    // The owner's account opens the cluster; its key signs elsewhere.
    let owner_key = TestWriter::new(OWNER).key;
    let owner = owner_key.address();
    ground.anvil.fund(&owner, 1_000_000_000_000_000_000).await.unwrap();
    let connection =
        Connection::signing(ground.anvil.rpc_url(), owner, Arc::new(move |hash| owner_key.sign_prehash(hash))).unwrap();
    let as_owner = Contracts::open(connection, ground.deployment.clone()).await.unwrap();
    let committee: Vec<(CommitteeMember, _)> = world
        .members
        .iter()
        .map(|m| {
            let key = vote_key_eip2537(m).unwrap();
            (CommitteeMember { node: m.node, key }, signature_eip2537(&m.possession).unwrap())
        })
        .collect();
    as_owner.open_cluster(&world.db, &committee).await.unwrap();

    let first = ground.above(&owner, &world.db, Height(0)).await;
    let second = ground.above(&owner, &world.db, first).await;
    // Whose turn it would be next is gone; the one after it posts.
    let place = usize::try_from(second.0 % 4).unwrap();
    let gone = world.places.iter().position(|p| p.peer.node == world.members[place].node).unwrap();
    world.stop(gone).await;
    let third = ground.above(&owner, &world.db, second).await;
    world.restart(gone).await;
    ground.above(&owner, &world.db, third).await;

    // No certificate was paid for twice, none came too early, and what the chain has is what the members have.
    let posted = ground.treasury.certified_events(0).await.unwrap();
    assert!(posted.len() >= 4);
    assert!(posted.windows(2).all(|w| w[0].height < w[1].height && w[1].block >= w[0].block + EVERY_BLOCKS));
    let checkpoint = ground.treasury.latest_checkpoint(&owner, &world.db).await.unwrap().unwrap();
    assert!(checkpoint.executed_height >= Height(1));
    world.end().await;
}

/// Two votes by one key for one view, as files, and an accuser over them.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_voted_twice_is_slashed_once_and_an_honest_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let Some(ground) = Ground::new(&dir.path().join("keys")).await else { return };
    let (twin, honest, own) = (key(41), key(42), key(43));
    let operator = ground.join(1, &twin).await;
    ground.join(2, &honest).await;
    ground.join(3, &own).await;
    let mut members = vec![twin.member(), honest.member(), own.member(), key(44).member()];
    members.sort_by_key(|m| m.node);
    let members: Members = members.try_into().unwrap();
    let folder = dir.path().join("evidence");
    let db = DatabaseId::from_bytes([5; 16]);
    let notarize = |block| Vote::Notarize { parent_view: 6, block: BlockHash::from_bytes([block; 32]) };
    // The second vote is signed for `view`.
    let write = |key: &NodeKey, epoch, votes: [Vote; 2], view| {
        let sign = |vote, view| (vote, key.vote().sign(db, epoch, view, vote));
        let found = Evidence { node: key.id(), epoch, view: 7, first: sign(votes[0], 7), second: sign(votes[1], view) };
        evidence::write(&folder, db, &members, &found).unwrap().unwrap()
    };
    write(&twin, 1, [notarize(1), notarize(2)], 7);
    write(&twin, 2, [Vote::Finalize { parent_view: 6, block: BlockHash::default() }, Vote::Nullify], 7);
    // Honest votes, and a vote of another view passed off as one of this.
    write(&honest, 1, [notarize(1), Vote::Nullify], 7);
    write(&honest, 2, [notarize(1), notarize(2)], 8);
    // One against the accuser itself, and one against a node that the chain does not know.
    write(&own, 1, [notarize(1), notarize(2)], 7);
    write(&key(44), 1, [notarize(1), notarize(2)], 7);

    let mut accuser = Accuser::new(folder.clone(), own.id(), ground.ethereum(3).await);
    let accuser_account = ground.contracts(3).await.connection().account().unwrap();
    let before = ground.treasury.connection().block_number().await.unwrap();
    for _ in 0..4 {
        let head = ground.treasury.connection().block_number().await.unwrap();
        accuser.round(head).await.unwrap();
    }
    let proven = ground.treasury.equivocation_events(0).await.unwrap();
    assert_eq!(proven.iter().map(|p| (p.node, p.consensus_epoch)).collect::<Vec<_>>(), [(twin.id(), 1)]);
    assert_eq!(proven[0].accuser, accuser_account);
    assert_eq!(operator.collateral(&twin.id()).await.unwrap().total(), 0);
    assert_eq!(ground.treasury.credit(&accuser_account).await.unwrap(), 200 * FLU);
    assert_eq!(operator.node(&twin.id()).await.unwrap().unwrap().status, NodeStatus::Suspended);
    for id in [honest.id(), own.id()] {
        assert_eq!(operator.collateral(&id).await.unwrap().total(), 1_000 * FLU);
    }
    // A commitment and an accusation, and nothing spent on the rest: anvil mines a block for each transaction.
    assert_eq!(ground.treasury.connection().block_number().await.unwrap(), before + 2);

    // The node is staked again: the second pair is worth its gas now. Another accuser is faster, and that is no failure.
    operator.deposit(&twin.id(), 0).await.unwrap_err();
    ground.treasury.transfer_flu(&operator.connection().account().unwrap(), 100 * FLU).await.unwrap();
    operator.deposit(&twin.id(), 100 * FLU).await.unwrap();
    let head = ground.treasury.connection().block_number().await.unwrap();
    Accuser::new(folder.clone(), NodeId::default(), ground.ethereum(4).await).round(head).await.unwrap();
    let mut again = Accuser::new(folder.clone(), own.id(), ground.ethereum(3).await);
    let head = ground.treasury.connection().block_number().await.unwrap();
    again.round(head).await.unwrap();
    assert_eq!(ground.treasury.connection().block_number().await.unwrap(), head, "nothing was left to prove");
    let proven = ground.treasury.equivocation_events(0).await.unwrap();
    assert!(proven.iter().all(|p| p.node != honest.id()));
    assert_eq!(proven.iter().filter(|p| p.node == twin.id()).count(), 2);
}
