//! The hour with a chain of this test's: nodes prove what they owe, the arbiter accepts it, challenges what is missing, and a node that
//! has its data answers on chain. The real contracts are met in the end-to-end tests.

use crate::common::{self, Peer, key};
use fluence_crypto::sign::NodeKey;
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{Engine, EngineConfig, MemStore, Rules, Store};
use fluence_node::arbiter::Arbiter;
use fluence_node::arbiter::judge::Case;
use fluence_node::arbiter::ledger::Ledger;
use fluence_node::chain::{
    Chain, ChainError, ChainInfo, Challenge, ChallengeId, ChallengeStatus, Debt, Owed, RegisteredNode, Subject,
};
use fluence_node::config::StoreKind;
use fluence_node::config::{JudgeConfig, ProvingConfig, StoreConfig};
use fluence_node::log::{Log, SubmitError};
use fluence_node::net::{self, NetConfig, NetHandle};
use fluence_node::storage::duty::Duty;
use fluence_node::storage::proofs::{ProofKey, Proofs};
use fluence_node::storage::prover::Prover;
use fluence_node::storage::service::Service;
use fluence_node::telemetry::Health;
use fluence_node::{CancellationToken, NodeError, StorageNode};
use fluence_types::block::Certificate;
use fluence_types::op::OpReceipt;
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::{Address, DatabaseId, DbRoot, Epoch, NodeId};
use fluence_verifier::groth16::{VerificationKey, proof_eip2537};
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub const SHAPE: StorageShape = crate::common::SHAPE;

/// A chain in memory: epochs of ten blocks, answers in five.
struct FakeChain {
    info: ChainInfo,
    operator: Address,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    head: u64,
    debts: BTreeMap<NodeId, Debt>,
    nodes: Vec<RegisteredNode>,
    challenges: BTreeMap<ChallengeId, Challenge>,
    answers: BTreeMap<ChallengeId, Vec<u8>>,
    slashed: Vec<NodeId>,
    claimed: usize,
    /// The RPC does not answer.
    down: bool,
    /// The RPC makes whoever asks it panic.
    broken: bool,
    /// The RPC has no logs yet.
    lags: bool,
    /// There is no room for a challenge.
    full: bool,
    /// Answers are refused, and how many were.
    refuses: bool,
    refused: usize,
}

impl FakeChain {
    fn new() -> Self {
        let info = ChainInfo {
            chain_id: 31337,
            contract: Address::from_bytes([1; 20]),
            start_block: 100,
            epoch_blocks: 10,
            window_blocks: 40,
            response_blocks: 5,
            proofs_per_epoch: 1,
            shape: SHAPE,
            storage_vk_hash: [0; 32],
            insecure_dev_keys: true,
        };
        let state = State { head: 121, ..State::default() };
        Self { info, operator: Address::from_bytes([7; 20]), state: Arc::new(Mutex::new(state)) }
    }

    /// The same chain as another account sees it.
    fn of(&self, operator: u8) -> Arc<dyn Chain> {
        let (info, state) = (self.info, Arc::clone(&self.state));
        Arc::new(Self { info, operator: Address::from_bytes([operator; 20]), state })
    }

    fn mine(&self, blocks: u64) {
        self.state.lock().unwrap().head += blocks;
    }

    fn id(subject: Subject, db: Option<DatabaseId>) -> ChallengeId {
        let mut id = subject.node.to_bytes();
        id[0] = subject.epoch.0 as u8;
        id[1] = u8::from(db.is_some());
        ChallengeId(id)
    }

    fn open(&self, subject: Subject, db: Option<DatabaseId>) -> Result<ChallengeId, ChainError> {
        let mut state = self.state.lock().unwrap();
        let id = Self::id(subject, db);
        if state.full {
            return Err(ChainError::Refused { act: "challenge", why: "QueueFull: 150".to_owned() });
        }
        if state.challenges.contains_key(&id) {
            return Err(ChainError::Refused { act: "challenge", why: "ChallengeExists".to_owned() });
        }
        let debt = &state.debts[&subject.node];
        let (root, cells) = db.map_or_else(|| debt.holdings(), |db| debt.database(db).unwrap());
        let seed = self.info.seed(subject.node, subject.epoch, beacon_of(subject.epoch), subject.proof_index);
        state.head += 2;
        let challenge = Challenge {
            id,
            node: subject.node,
            epoch: subject.epoch,
            db,
            proof_index: subject.proof_index,
            status: ChallengeStatus::Open,
            deadline: state.head + self.info.response_blocks,
            challenger: self.operator,
            root,
            cells,
            seed: fluence_crypto::seed::storage_seed(&seed),
        };
        state.challenges.insert(id, challenge);
        Ok(id)
    }
}

fn beacon_of(epoch: Epoch) -> [u8; 32] {
    [epoch.0 as u8 + 1; 32]
}

#[async_trait::async_trait]
impl Chain for FakeChain {
    fn info(&self) -> &ChainInfo {
        &self.info
    }
    fn operator(&self) -> Option<Address> {
        Some(self.operator)
    }
    async fn head(&self) -> Result<u64, ChainError> {
        let (head, down, broken) = {
            let state = self.state.lock().unwrap();
            (state.head, state.down, state.broken)
        };
        assert!(!broken, "this test's chain panics");
        if down { Err(ChainError::Rpc("down".to_owned())) } else { Ok(head) }
    }
    async fn beacon(&self, epoch: Epoch) -> Result<Option<[u8; 32]>, ChainError> {
        let known = self.state.lock().unwrap().head > self.info.epoch_start(epoch);
        Ok(known.then(|| beacon_of(epoch)))
    }
    async fn debt(&self, node: NodeId, _: Epoch) -> Result<Option<Debt>, ChainError> {
        Ok(self.state.lock().unwrap().debts.get(&node).cloned())
    }
    async fn nodes(&self) -> Result<Vec<RegisteredNode>, ChainError> {
        Ok(self.state.lock().unwrap().nodes.clone())
    }
    async fn challenges(&self, node: NodeId, from: u64) -> Result<Vec<Challenge>, ChainError> {
        let state = self.state.lock().unwrap();
        let seen = |c: &&Challenge| c.node == node && c.deadline - self.info.response_blocks >= from && !state.lags;
        Ok(state.challenges.values().filter(seen).copied().collect())
    }
    async fn challenge_of(&self, subject: Subject) -> Result<Option<Challenge>, ChainError> {
        Ok(self.state.lock().unwrap().challenges.get(&Self::id(subject, None)).copied())
    }
    async fn challenge(&self, subject: Subject, _: [u8; 32]) -> Result<(), ChainError> {
        self.open(subject, None).map(|_| ())
    }
    async fn respond(&self, id: ChallengeId, proof: &[u8; 512]) -> Result<(), ChainError> {
        let mut state = self.state.lock().unwrap();
        if state.refuses {
            state.refused += 1;
            return Err(ChainError::Refused { act: "respond", why: "InvalidProof".to_owned() });
        }
        state.challenges.get_mut(&id).unwrap().status = ChallengeStatus::Answered;
        state.answers.insert(id, proof.to_vec());
        Ok(())
    }
    async fn expire(&self, id: ChallengeId) -> Result<u128, ChainError> {
        let mut state = self.state.lock().unwrap();
        let head = state.head;
        let challenge = state.challenges.get_mut(&id).unwrap();
        assert!(head > challenge.deadline, "expired before the deadline");
        challenge.status = ChallengeStatus::Expired;
        let node = challenge.node;
        state.slashed.push(node);
        Ok(5)
    }
    async fn claim_bond(&self, _: ChallengeId) -> Result<(), ChainError> {
        self.state.lock().unwrap().claimed += 1;
        Ok(())
    }
}

/// Blocks that the engines here keep without a pin.
const RETENTION: u64 = 8;

/// A storage node with one database, its duty driven by hand.
pub struct Node {
    pub id: NodeId,
    pub db: TestDb,
    pub engine: Arc<Engine>,
    store: Arc<dyn Store>,
    pub proofs: Arc<Proofs>,
    pub duty: Duty,
    pub net: NetHandle,
}

/// The log of a node whose blocks the test applies itself.
struct NoLog;

impl Log for NoLog {
    async fn submit(&self, _: fluence_crypto::sign::VerifiedOp) -> Result<(OpReceipt, Certificate), SubmitError> {
        Err(SubmitError::Refused("nothing is ordered here".to_owned()))
    }

    fn latest(&self, _: DatabaseId) -> Option<Certificate> {
        None
    }
}

impl Node {
    pub async fn new(n: u8, dir: &Path, keys: &Path, chain: Arc<dyn Chain>) -> Self {
        let node_key = Arc::new(key(n));
        let mut db = TestDb::new(u64::from(n), 1);
        db.members = vec![NodeKey::new(fluence_crypto::secret::Secret::new([n; 32]))];
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let config = EngineConfig { rules: Rules::retaining(RETENTION), ..EngineConfig::default() };
        let engine = Arc::new(Engine::open(Arc::clone(&store), config).unwrap());
        db.create(&engine).unwrap();
        let schema = schema(1, 1);
        db.act(&engine, define(0, schema.clone())).unwrap().unwrap();
        let segment = TestSegment::new(u64::from(n), &schema, 100, 10);
        db.act(&engine, commit(&[(0, 0)], vec![change(0, vec![segment.inline()], vec![])])).unwrap().unwrap();

        let proving = ProvingConfig {
            keys_dir: keys.to_owned(),
            storage: CircuitId::Storage(SHAPE),
            make_dev_keys: true,
            ..ProvingConfig::default()
        };
        let prover = Arc::new(Prover::new(Arc::clone(&engine), proving, SHAPE, Some(chain.info().chain_id)));
        let proofs = Arc::new(Proofs::new(dir.join(format!("proofs-{n}"))));
        let (net, inbound, _) = net::start(&node_key, &NetConfig::default()).await.unwrap();
        let service = Service::new(
            Arc::clone(&node_key),
            Arc::clone(&engine),
            Arc::new(NoLog),
            Arc::clone(&prover),
            Arc::clone(&proofs),
            StoreConfig::default(),
        );
        tokio::spawn(service.run(net.clone(), inbound));
        let health = watch::channel(Health::Ready).0;
        let duty = Duty::new(node_key.id(), chain, prover, Arc::clone(&proofs), health);
        Self { id: node_key.id(), db, engine, store, proofs, duty, net }
    }

    fn register(&self, chain: &FakeChain) {
        let view = self.engine.view(self.db.db).unwrap();
        let owed = Owed { db: self.db.db, root: view.checkpoint().root, cells: view.summary().stored_cells };
        let mut state = chain.state.lock().unwrap();
        state.debts.insert(self.id, Debt { owed: vec![owed] });
        let multiaddr = Some(self.net.listeners()[0].clone());
        state.nodes.retain(|r| r.node != self.id);
        state.nodes.push(RegisteredNode { node: self.id, operator: Address::default(), left: false, multiaddr });
    }

    pub fn subject(&self, epoch: u64) -> Subject {
        Subject { epoch: Epoch(epoch), node: self.id, proof_index: 0 }
    }

    /// Overwrites every stored page, as a failing disk would.
    pub fn lose_everything(&self) {
        let view = self.engine.view(self.db.db).unwrap();
        let mut batch = fluence_engine::store::Batch::new();
        for segment in view.segments() {
            let page = fluence_engine::keys::page(self.db.db, segment.root, 0);
            batch.put(fluence_engine::keys::Cf::Pages, page, vec![0; 64]);
        }
        self.store.commit(batch, fluence_engine::store::Durability::Synced).unwrap();
    }
}

/// A node that the fake chain knows, and that owes its database.
async fn fake_node(n: u8, dir: &Path, keys: &Path, chain: &FakeChain) -> Node {
    let node = Node::new(n, dir, keys, chain.of(n)).await;
    node.register(chain);
    node
}

pub async fn arbiter(dir: &Path, vk: &VerificationKey, chain: Arc<dyn Chain>) -> Arbiter {
    let config = NetConfig { listen: Vec::new(), ..NetConfig::default() };
    let (net, mut inbound, _) = net::start(&key(200), &config).await.unwrap();
    tokio::spawn(async move { while inbound.recv().await.is_some() {} });
    std::fs::create_dir_all(dir).unwrap();
    let (ledger, cases) = Ledger::open(&dir.join("ledger.jsonl")).unwrap();
    let judge = JudgeConfig { grace_blocks: 3, ask_every_ms: 0, ..JudgeConfig::default() };
    Arbiter::new(net, chain, vk.clone(), judge, ledger, cases)
}

pub fn make_key(keys: &Path) -> VerificationKey {
    fluence_prover::Keys::load_or_setup(keys, CircuitId::Storage(SHAPE), |_| ()).unwrap().vk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_nodes_are_accepted_and_the_one_that_lost_its_data_is_slashed() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let vk = make_key(&keys);
    let chain = FakeChain::new();
    let mut honest = fake_node(1, dir.path(), &keys, &chain).await;
    let mut lost = fake_node(2, dir.path(), &keys, &chain).await;
    let mut arbiter = arbiter(dir.path(), &vk, chain.of(200)).await;

    // Epoch 2: both prove.
    assert_eq!(honest.duty.round().await.unwrap(), None);
    assert_eq!(lost.duty.round().await.unwrap(), None);
    arbiter.round().await.unwrap();
    for node in [&honest, &lost] {
        assert_eq!(arbiter.cases()[&node.subject(2)], Case::Accepted);
    }

    // Epoch 3: one disk fails. The node says so, loudly and in its answer, and does not pretend.
    lost.lose_everything();
    chain.mine(10);
    honest.duty.round().await.unwrap();
    let trouble = lost.duty.round().await.unwrap().unwrap();
    assert!(trouble.contains("is lost"), "{trouble}");
    let peer = Peer::to(150, lost.id, lost.net.listeners()).await;
    let why = peer.refused(Request::EpochProof { epoch: Epoch(3), proof_index: 0, db: None }).await;
    assert!(matches!(&why, Refusal::NoProof { epoch: Epoch(3), why } if why.contains("is lost")), "{why}");
    arbiter.round().await.unwrap();
    assert_eq!(arbiter.cases()[&honest.subject(3)], Case::Accepted);
    assert!(chain.state.lock().unwrap().challenges.is_empty(), "the grace period is not over");

    // After the grace period it is challenged, and after the deadline slashed; the honest one is not.
    chain.mine(3);
    arbiter.round().await.unwrap();
    assert!(matches!(arbiter.cases()[&lost.subject(3)], Case::Challenged { ours: true, .. }));
    lost.duty.round().await.unwrap().unwrap();
    chain.mine(6);
    arbiter.round().await.unwrap();
    assert!(matches!(arbiter.cases()[&lost.subject(3)], Case::Expired { .. }));
    arbiter.round().await.unwrap();
    assert_eq!(arbiter.cases()[&lost.subject(3)], Case::Closed);
    {
        let state = chain.state.lock().unwrap();
        assert_eq!((&state.slashed[..], state.claimed, state.challenges.len()), (&[lost.id][..], 1, 1));
    }
    // A restarted arbiter knows all of it from its ledger.
    let again = self::arbiter(dir.path(), &vk, chain.of(200)).await;
    assert_eq!(again.cases()[&lost.subject(3)], Case::Closed);
    assert_eq!(again.cases()[&honest.subject(3)], Case::Accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenged_node_that_has_its_data_answers_on_chain() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let vk = make_key(&keys);
    let chain = FakeChain::new();
    let mut node = fake_node(3, dir.path(), &keys, &chain).await;
    // Unreachable, so that the arbiter finds no proof and must challenge.
    chain.state.lock().unwrap().nodes[0].multiaddr = Some("/ip4/127.0.0.1/tcp/1".to_owned());
    let mut arbiter = arbiter(dir.path(), &vk, chain.of(200)).await;
    chain.mine(3);
    arbiter.round().await.unwrap();
    arbiter.round().await.unwrap();
    assert!(matches!(arbiter.cases()[&node.subject(2)], Case::Challenged { .. }));
    let one = chain.open(node.subject(2), Some(node.db.db)).unwrap();
    assert_eq!(node.duty.round().await.unwrap(), None);
    arbiter.round().await.unwrap();
    assert_eq!(arbiter.cases()[&node.subject(2)], Case::Answered);

    // What it posted is what it keeps: of the holdings, and of the one database.
    let state = chain.state.lock().unwrap();
    assert!(state.slashed.is_empty());
    for (id, db) in [(FakeChain::id(node.subject(2), None), None), (one, Some(node.db.db))] {
        let kept = node.proofs.get(&ProofKey { epoch: Epoch(2), proof_index: 0, db }).unwrap();
        let challenge = state.challenges[&id];
        assert_eq!((kept.root, kept.total_cells, kept.seed), (challenge.root, challenge.cells, challenge.seed));
        assert_eq!(state.answers[&id], proof_eip2537(&kept.proof).unwrap());
        let inputs = kept.statement().public_inputs();
        fluence_verifier::groth16::verify(&vk, &inputs, &kept.proof).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_of_another_debt_or_under_another_key_is_not_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    make_key(&keys);
    let other = make_key(&dir.path().join("other-keys"));
    let chain = FakeChain::new();
    let mut node = fake_node(4, dir.path(), &keys, &chain).await;
    node.duty.round().await.unwrap();
    let waiting = |arbiter: &Arbiter, want: &str| match &arbiter.cases()[&node.subject(2)] {
        Case::Waiting { why, .. } => assert!(why.contains(want), "{why}"),
        case => panic!("{case:?}"),
    };
    let mut wrong_key = arbiter(&dir.path().join("a"), &other, chain.of(200)).await;
    wrong_key.round().await.unwrap();
    waiting(&wrong_key, "does not match");
    // The chain says that more is owed than what was proven.
    chain.state.lock().unwrap().debts.get_mut(&node.id).unwrap().owed[0].cells += 1;
    let mut more = arbiter(&dir.path().join("b"), &other, chain.of(200)).await;
    more.round().await.unwrap();
    waiting(&more, "owed is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_moved_on_is_proven_at_the_root_that_is_owed_and_a_root_it_never_had_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    make_key(&keys);
    let chain = FakeChain::new();
    let mut node = fake_node(5, dir.path(), &keys, &chain).await;
    node.db.act(&node.engine, define(1, schema(1, 2))).unwrap().unwrap();
    assert_eq!(node.duty.round().await.unwrap(), None);
    let peer = Peer::to(151, node.id, node.net.listeners()).await;
    let answer = peer.get(Request::EpochProof { epoch: Epoch(2), proof_index: 0, db: None }).await;
    let owed = chain.state.lock().unwrap().debts[&node.id].holdings();
    assert!(matches!(answer, Response::EpochProof(p) if p.epoch == Epoch(2) && (p.root, p.total_cells) == owed));

    // Far more blocks than the retention, and the root is still there.
    let height = node.engine.pinned(node.db.db).unwrap();
    for _ in 0..RETENTION + 20 {
        node.db.apply(&node.engine, vec![]).unwrap();
    }
    chain.mine(10);
    assert_eq!(node.duty.round().await.unwrap(), None);
    assert_eq!(node.engine.pinned(node.db.db), Some(height));

    chain.state.lock().unwrap().debts.get_mut(&node.id).unwrap().owed[0].root = DbRoot::default();
    chain.mine(10);
    let trouble = node.duty.round().await.unwrap().unwrap();
    assert!(trouble.contains("can no longer be proven at root"), "{trouble}");
    node.register(&chain);
    chain.mine(10);
    assert_eq!(node.duty.round().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_arbiter_judges_who_has_not_proven_and_epochs_in_which_the_rpc_was_down() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let vk = make_key(&keys);
    let chain = FakeChain::new();
    let mut honest = fake_node(6, dir.path(), &keys, &chain).await;
    let silent = fake_node(7, dir.path(), &keys, &chain).await;
    honest.duty.round().await.unwrap();
    {
        let mut before = arbiter(dir.path(), &vk, chain.of(200)).await;
        before.round().await.unwrap();
        assert_eq!(before.cases()[&honest.subject(2)], Case::Accepted);
        assert!(matches!(before.cases()[&silent.subject(2)], Case::Waiting { .. }));
    }
    // Restarted before the grace period ends: only the accepted one is in the ledger.
    let mut arbiter = arbiter(dir.path(), &vk, chain.of(200)).await;
    assert_eq!(arbiter.cases().len(), 1);
    chain.mine(3);
    // No room for a challenge yet: it is sent again later.
    chain.state.lock().unwrap().full = true;
    arbiter.round().await.unwrap();
    arbiter.round().await.unwrap();
    assert!(matches!(arbiter.cases()[&silent.subject(2)], Case::Waiting { .. }));
    chain.state.lock().unwrap().full = false;
    chain.mine(5);
    arbiter.round().await.unwrap();
    assert!(matches!(arbiter.cases()[&silent.subject(2)], Case::Challenged { ours: true, .. }));
    assert_eq!(arbiter.cases()[&honest.subject(2)], Case::Accepted);
    assert_eq!(arbiter.cases().len(), 2, "epochs before the first one in the ledger are not judged");

    // Epoch 3 passes without the arbiter seeing a block of it.
    chain.state.lock().unwrap().head = 131;
    honest.duty.round().await.unwrap();
    chain.state.lock().unwrap().down = true;
    arbiter.round().await.unwrap_err();
    {
        let mut state = chain.state.lock().unwrap();
        (state.head, state.down) = (141, false);
    }
    arbiter.round().await.unwrap();
    arbiter.round().await.unwrap();
    assert_eq!(arbiter.cases()[&honest.subject(3)], Case::Accepted);
    assert!(matches!(arbiter.cases()[&silent.subject(3)], Case::Challenged { ours: true, .. }));
    let challenged = chain.state.lock().unwrap().challenges.values().map(|c| c.node).collect::<Vec<_>>();
    assert!(challenged.iter().all(|node| *node == silent.id), "{challenged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_failed_for_want_of_a_key_is_tried_again_after_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, late) = (dir.path().join("keys"), dir.path().join("late"));
    make_key(&keys);
    let chain = FakeChain::new();
    // A file where the folder of keys should be.
    std::fs::write(&late, "").unwrap();
    let mut node = fake_node(8, dir.path(), &late, &chain).await;
    assert!(node.duty.round().await.unwrap().is_some());
    std::fs::remove_file(&late).unwrap();
    std::fs::rename(&keys, &late).unwrap();
    assert!(node.duty.round().await.unwrap().is_some(), "not in the same block");
    chain.mine(1);
    assert_eq!(node.duty.round().await.unwrap(), None);
    assert!(node.proofs.get(&ProofKey { epoch: Epoch(2), proof_index: 0, db: None }).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_behind_a_lagging_rpc_is_found_and_one_given_up_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    make_key(&keys);
    let chain = FakeChain::new();
    let mut node = fake_node(9, dir.path(), &keys, &chain).await;
    let found = chain.open(node.subject(2), None).unwrap();
    chain.mine(1);
    chain.state.lock().unwrap().lags = true;
    assert_eq!(node.duty.round().await.unwrap(), None);
    assert_eq!(chain.state.lock().unwrap().challenges[&found].status, ChallengeStatus::Open);
    chain.state.lock().unwrap().lags = false;
    assert_eq!(node.duty.round().await.unwrap(), None);
    assert_eq!(chain.state.lock().unwrap().challenges[&found].status, ChallengeStatus::Answered);

    // A contract that refuses every answer is not asked for ever.
    chain.state.lock().unwrap().refuses = true;
    chain.open(node.subject(2), Some(node.db.db)).unwrap();
    for _ in 0..10 {
        node.duty.round().await.unwrap();
    }
    assert_eq!(chain.state.lock().unwrap().refused, 5);
}

#[tokio::test]
async fn a_node_whose_duty_panics_stops_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new();
    chain.state.lock().unwrap().broken = true;
    let node = StorageNode::start(common::config(dir.path(), StoreKind::Memory), Some(chain.of(1))).await.unwrap();
    let ended = node.run(CancellationToken::new()).await;
    assert!(matches!(ended, Err(NodeError::TaskEnded { task: "duty", why: "panicked" })), "{ended:?}");
}
