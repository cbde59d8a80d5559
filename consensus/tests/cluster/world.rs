//! A cluster in one deterministic runtime: its members, nodes that may join it, their disks in memory, their network.

use crate::tamper::{Hook, Tamper};
use commonware_p2p::simulated::{Config as NetConfig, Control, Link, Network, Oracle, Receiver, Sender};
use commonware_runtime::{Clock, Quota, Runner, Supervisor, deterministic};
use commonware_utils::probability;
use fluence_consensus::{
    Channels, Config, Event, History, Identity, JoinConfig, JoinError, MESSAGE_BYTES_MAX, Openings, Origin, Parts,
    Replica, StartError, Timing, identity, join, origin,
};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{NodeKey, verify_op};
use fluence_crypto::vote::verify_certificate;
use fluence_engine::testkit::{TestDb, TestSegment, change, commit};
use fluence_engine::{Engine, EngineConfig, MemStore, VerifiedBlock};
use fluence_types::block::{Block, Certificate, position};
use fluence_types::op::{Delivery, Op, OpReceipt};
use fluence_types::{Height, NodeId};
use std::collections::BTreeMap;
use std::future::Future;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) type Context = deterministic::Context;
type Linked = (Tamper<Sender<Identity, Context>>, Receiver<Identity>);

pub(crate) struct Node {
    pub(crate) key: Arc<NodeKey>,
    pub(crate) store: Arc<MemStore>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) replica: Option<Replica>,
    pub(crate) events: Option<mpsc::UnboundedReceiver<Event>>,
    /// What it does to its own messages of cells, snapshots and seats.
    pub(crate) lie: Option<Hook>,
    starts: u64,
}

impl Node {
    fn new(key: Arc<NodeKey>) -> Self {
        let store = Arc::new(MemStore::new());
        let engine = Arc::new(Engine::open(store.clone(), EngineConfig::default()).unwrap());
        Self { key, store, engine, replica: None, events: None, lie: None, starts: 0 }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) fn reopen(&mut self) {
        self.engine = Arc::new(Engine::open(self.store.clone(), EngineConfig::default()).unwrap());
    }
}

pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) oracle: Oracle<Identity, Context>,
    pub(crate) db: TestDb,
    pub(crate) genesis: Block,
    /// Members, then those that are none.
    pub(crate) nodes: Vec<Node>,
    pub(crate) timing: Timing,
    pub(crate) history: History,
    /// The version of projection 0.
    pub(crate) version: u64,
}

impl World {
    /// Runs a test in a cluster of `n`; gives the digest of everything that happened.
    pub(crate) fn run<F, Fut>(seed: u64, n: usize, test: F) -> String
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        Self::run_with(seed, n, 0, test)
    }

    /// The same, with `more` nodes that are no members.
    pub(crate) fn run_with<F, Fut>(seed: u64, n: usize, more: u64, test: F) -> String
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        // RUST_LOG=debug shows what went wrong.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let config = deterministic::Config::new().with_seed(seed).with_timeout(Some(Duration::from_secs(7200)));
        deterministic::Runner::new(config).start(|context| async move {
            let mut db = TestDb::new(seed, n);
            let op = db.owner.sign(db.db, db.creation());
            let genesis = db.block(vec![op.clone()]);
            db.owner.advance(&op);
            let copy = |key: &NodeKey| key.expose(|seed| Arc::new(NodeKey::new(Secret::new(*seed))));
            let strangers = (0..more).map(|i| Arc::new(NodeKey::new(Secret::new([i as u8 + 100; 32]))));
            let nodes: Vec<Node> = db.members.iter().map(copy).chain(strangers).map(Node::new).collect();
            for node in &nodes[..n] {
                node.engine.apply(&VerifiedBlock::verify(genesis.clone()).unwrap()).unwrap();
            }
            let peers: Vec<Identity> = nodes.iter().map(|node| identity(&node.id()).unwrap()).collect();
            let net = NetConfig {
                max_size: u32::try_from(MESSAGE_BYTES_MAX).unwrap(),
                max_peers_per_set: NonZeroUsize::new(64).unwrap(),
                disconnect_on_block: true,
                tracked_peer_sets: NonZeroUsize::new(3).unwrap(),
            };
            let (network, oracle) = Network::new_with_peers(context.child("network"), net, peers.clone()).await;
            network.start();
            for a in &peers {
                for b in peers.iter().filter(|b| *b != a) {
                    let link = Link {
                        latency: Duration::from_millis(10),
                        jitter: Duration::from_millis(3),
                        success_rate: probability!(1.0),
                    };
                    oracle.add_link(a.clone(), b.clone(), link).await.unwrap();
                }
            }
            let timing = Timing::default();
            let (history, context_of_world) = (History::default(), context.child("world"));
            let world = Self { context: context_of_world, oracle, db, nodes, genesis, timing, history, version: 0 };
            test(world).await;
            context.auditor().state()
        })
    }

    pub(crate) async fn start_all(&mut self) {
        for i in 0..self.db.members.len() {
            self.start(i).await;
        }
    }

    fn quota() -> Quota {
        Quota::per_second(NonZeroU32::new(10_000).unwrap())
    }

    fn control(&self, i: usize) -> Control<Identity, Context> {
        self.oracle.control(identity(&self.nodes[i].id()).unwrap())
    }

    /// A node's end of a channel.
    pub(crate) async fn link(&self, i: usize, channel: u64) -> Linked {
        let (inner, receiver) = self.control(i).register(channel, Self::quota()).await.unwrap();
        let hook = if channel == 6 { self.nodes[i].lie.clone() } else { None };
        (Tamper { inner, hook }, receiver)
    }

    fn child(&mut self, i: usize) -> Context {
        self.nodes[i].starts += 1;
        self.context.child("node").with_attribute("index", i).with_attribute("start", self.nodes[i].starts)
    }

    pub(crate) async fn start(&mut self, i: usize) {
        let fetch = self.link(i, 6).await;
        self.start_over(i, fetch).await;
    }

    async fn start_over(&mut self, i: usize, fetch: Linked) {
        self.try_over(i, fetch).await.unwrap();
    }

    pub(crate) async fn try_start(&mut self, i: usize) -> Result<(), StartError> {
        let fetch = self.link(i, 6).await;
        self.try_over(i, fetch).await
    }

    async fn try_over(&mut self, i: usize, fetch: Linked) -> Result<(), StartError> {
        let channels = Channels {
            vote: self.link(i, 0).await,
            certificate: self.link(i, 1).await,
            resolver: self.link(i, 2).await,
            broadcast: self.link(i, 3).await,
            backfill: self.link(i, 4).await,
            mempool: self.link(i, 5).await,
            fetch,
        };
        let (engine, db) = (Arc::clone(&self.nodes[i].engine), self.db.db);
        let config = Config {
            db,
            key: Arc::clone(&self.nodes[i].key),
            origin: match origin(&engine, db).unwrap() {
                Some(certificate) => Origin::Certificate(Box::new(certificate)),
                None => Origin::Genesis(Box::new(self.genesis.clone())),
            },
            timing: self.timing,
            limits: fluence_consensus::MempoolLimits::default(),
            history: self.history,
            partition: format!("node-{i}"),
            prover: Arc::new(Openings::new(Arc::clone(&engine))),
        };
        let (context, control) = (self.child(i), self.control(i));
        let manager = self.oracle.manager();
        let parts = Parts { context, engine, config, channels, manager, blocker: control };
        let (replica, events) = parts.start().await?;
        self.nodes[i].replica = Some(replica);
        self.nodes[i].events = Some(events);
        Ok(())
    }

    /// Fetches a snapshot for a node that has none.
    pub(crate) async fn fetch(&mut self, i: usize, patience: Duration) -> Result<(Certificate, Linked), JoinError> {
        let now = self.nodes[0].replica.as_ref().map_or(0, |r| r.status().epoch);
        self.fetch_at(i, patience, now).await
    }

    /// The same, trusting the committee of `epoch`, and those that it leads to.
    pub(crate) async fn fetch_at(
        &mut self,
        i: usize,
        patience: Duration,
        epoch: u64,
    ) -> Result<(Certificate, Linked), JoinError> {
        let mut link = self.link(i, 6).await;
        // What a client would take from the chain.
        let known = self.nodes[0].engine.committee(self.db.db, epoch).unwrap().unwrap();
        let committees = BTreeMap::from([(epoch, known)]);
        let (db, key, timing) = (self.db.db, Arc::clone(&self.nodes[i].key), self.timing);
        let config = JoinConfig { db, key, committees, timing, patience };
        let (context, control) = (self.child(i), self.control(i));
        let engine = Arc::clone(&self.nodes[i].engine);
        let certificate = join(context, engine, config, &mut link, &mut self.oracle.manager(), control).await?;
        Ok((certificate, link))
    }

    /// The same as [`World::join`], trusting the committee of `epoch`.
    pub(crate) async fn join_at(&mut self, i: usize, epoch: u64) -> Certificate {
        let (certificate, link) = self.fetch_at(i, Duration::from_secs(120), epoch).await.unwrap();
        self.start_over(i, link).await;
        certificate
    }

    /// Fetches a snapshot and follows from there.
    pub(crate) async fn join(&mut self, i: usize) -> Certificate {
        let (certificate, link) = self.fetch(i, Duration::from_secs(120)).await.unwrap();
        self.start_over(i, link).await;
        certificate
    }

    pub(crate) fn stop(&mut self, i: usize) {
        if let Some(replica) = self.nodes[i].replica.take() {
            replica.stop();
        }
    }

    pub(crate) fn replica(&self, i: usize) -> &Replica {
        self.nodes[i].replica.as_ref().expect("it runs")
    }

    pub(crate) fn check(&self, certificate: &Certificate) {
        let committee = self.nodes.iter().find_map(|n| {
            n.replica.as_ref()?;
            n.engine.committee(self.db.db, certificate.header.consensus_epoch).ok().flatten()
        });
        verify_certificate(certificate, &committee.unwrap()).unwrap();
    }

    /// Has the owner do something, through node `i`.
    pub(crate) async fn act(&mut self, i: usize, op: Op) -> OpReceipt {
        let signed = self.db.owner.sign(self.db.db, op);
        let (receipt, certificate) = self.replica(i).submit(verify_op(signed.clone()).unwrap()).await.unwrap();
        if receipt.outcome.is_ok() {
            self.db.owner.advance(&signed);
        }
        self.check(&certificate);
        assert!(certificate.header.executed_height >= receipt.height);
        receipt
    }

    /// Appends a small segment to projection 0, which keeps the last few.
    pub(crate) async fn write(&mut self, i: usize) {
        let schema = fluence_engine::testkit::schema(1, 1);
        let segment = |n: u64| TestSegment::new(1000 + n, &schema, 9, 9);
        let n = self.version;
        let live = self.nodes[i].engine.view(self.db.db).unwrap().snapshot(fluence_types::ProjectionId(0)).unwrap();
        let retire = if live.entry.live.len() < 10 { vec![] } else { vec![live.entry.live[0]] };
        let op = commit(&[(0, n)], vec![change(0, vec![segment(n).inline()], retire)]);
        assert_eq!(self.act(i, op).await.outcome, Ok(()));
        self.version += 1;
    }

    /// Uploads a segment to `holders` and has it ordered by their receipts.
    pub(crate) async fn deliver(&mut self, segment: &TestSegment, holders: &[usize]) {
        let mut receipts = Vec::new();
        for i in holders {
            let checked = segment.upload(&self.nodes[*i].engine, self.db.db, 1 << 20).unwrap();
            let node = &self.nodes[*i];
            receipts.push(fluence_crypto::sign::sign_receipt(checked.receipt(node.id()), &node.key));
        }
        let delivery = Delivery::Receipts(receipts.try_into().unwrap());
        let op = commit(&[(0, self.version)], vec![change(0, vec![segment.delivered(delivery)], vec![])]);
        assert_eq!(self.act(holders[0], op).await.outcome, Ok(()));
        self.version += 1;
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, limit: Duration, so: impl Fn(&Self) -> bool) {
        let until = self.context.current() + limit;
        while !so(self) {
            let heads: Vec<_> = self.nodes.iter().map(|n| n.replica.as_ref().map(Replica::status)).collect();
            assert!(self.context.current() < until, "not in {limit:?}: {what}; {heads:?}");
            self.context.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The virtual time.
    pub(crate) fn now(&self) -> std::time::SystemTime {
        self.context.current()
    }

    /// Whether node `i` has signed a recent certificate that node `at` knows, in an epoch where it is a member.
    pub(crate) fn signs(&self, i: usize, at: usize) -> bool {
        let Some(certificate) = self.replica(at).latest() else { return false };
        let committee = self.nodes[at].engine.committee(self.db.db, certificate.header.consensus_epoch).unwrap();
        let place = committee.and_then(|members| position(&members, &self.nodes[i].id()));
        place.is_some_and(|place| certificate.signers & (1 << place) != 0)
    }

    pub(crate) fn is_member(&self, i: usize, at: usize) -> bool {
        let view = self.nodes[at].engine.view(self.db.db).unwrap();
        position(view.members(), &self.nodes[i].id()).is_some()
    }

    /// Waits until all replicas that run have the same head, and compares them.
    pub(crate) async fn level(&self, limit: Duration) {
        let heads = |world: &Self| -> Vec<Height> {
            let running = world.nodes.iter().filter(|n| n.replica.is_some());
            running.map(|n| n.engine.head(world.db.db).unwrap().height).collect()
        };
        let near = |world: &Self| {
            let heads = heads(world);
            heads.iter().all(|h| h.0 + 2 >= heads.iter().max().unwrap().0)
        };
        self.until("all replicas level", limit, near).await;
        let lowest = heads(self).into_iter().min().unwrap();
        for height in 0..=lowest.0 {
            let running = self.nodes.iter().filter(|n| n.replica.is_some());
            let records: Vec<_> =
                running.filter_map(|n| n.engine.block_record(self.db.db, Height(height)).unwrap()).collect();
            assert!(records.iter().all(|r| *r == records[0]), "block {height} differs: {records:?}");
        }
    }
}
