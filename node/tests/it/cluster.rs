//! Four nodes in this process, over real connections: one database, one log.

use crate::common::{Peer, config, key, start};
use fluence_crypto::sign::NodeKey;
use fluence_engine::testkit::{TestSegment, TestWriter, change, commit, define, schema};
use fluence_node::chain::Chain;
use fluence_node::config::{StorageConfig, StoreKind};
use fluence_node::{StorageNode, identity};
use fluence_types::block::{Certificate, Members};
use fluence_types::codec::Bounded;
use fluence_types::op::{Delivery, Op, OpReceipt, SignedOp, SignedReceipt};
use fluence_types::{DatabaseId, Height, NodeId};
use fluence_wire::message::{Addresses, ClusterStatus, Refusal};
use fluence_wire::{Request, Response};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for what nodes do by themselves.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Place {
    config: StorageConfig,
    chain: Option<Arc<dyn Chain>>,
    node: Option<StorageNode>,
    pub peer: Peer,
    _dir: TempDir,
}

impl Place {
    /// The key that the node made for itself.
    pub fn key(&self) -> NodeKey {
        identity::load_or_create(&self.config.data_dir.join("identity.key")).unwrap()
    }

    /// Files of evidence that the node keeps against others.
    pub fn evidence(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.config.data_dir.join("evidence")).into_iter().flatten();
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect()
    }
}

/// A cluster and its owner.
pub struct World {
    pub places: Vec<Place>,
    owner: TestWriter,
    pub db: DatabaseId,
    pub members: Members,
}

/// The seed of the owner's key.
pub const OWNER: u64 = 7;

pub fn settings(dir: &Path) -> StorageConfig {
    let mut config = config(dir, StoreKind::Fjall);
    config.cluster.idle_ms = 200;
    config.cluster.leader_ms = 1000;
    config
}

impl World {
    async fn new(n: usize) -> Self {
        Self::with(vec![None; n], settings).await
    }

    /// One node for each chain, configured by `configure`.
    pub async fn with(chains: Vec<Option<Arc<dyn Chain>>>, configure: impl Fn(&Path) -> StorageConfig) -> Self {
        let mut places = Vec::new();
        for (i, chain) in chains.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let config = configure(dir.path());
            let node = StorageNode::start(config.clone(), chain.clone()).await.unwrap();
            let peer = Peer::new(100 + i as u8, &node).await;
            places.push(Place { config, chain, node: Some(node), peer, _dir: dir });
        }
        let mut members = Vec::new();
        for place in &places {
            match place.peer.get(Request::Status).await {
                Response::Status(status) => members.push(status.member),
                other => panic!("{other:?}"),
            }
        }
        members.sort_by_key(|m| m.node);
        let mut world = Self {
            places,
            owner: TestWriter::new(OWNER),
            db: DatabaseId::from_bytes([7; 16]),
            members: members.try_into().unwrap(),
        };
        let op = world.sign(Op::CreateDatabase { members: world.members.clone() });
        // Each member makes the first block itself; none can answer before a quorum of them knows the others.
        let asked = world.places.iter().map(|p| p.peer.ask(Request::Submit(Box::new(op.clone()))));
        let introduced = async {
            for place in &world.places {
                loop {
                    match place.peer.ask(world.introduction()).await.unwrap() {
                        Response::Noted => break,
                        // Not created there yet.
                        Response::Refused(_) => tokio::task::yield_now().await,
                        other => panic!("{other:?}"),
                    }
                }
            }
        };
        let (answers, ()) = tokio::join!(futures::future::join_all(asked), introduced);
        for answer in answers {
            match answer.unwrap() {
                Response::Submit { receipt, certificate } => {
                    assert_eq!(receipt.outcome, Ok(()));
                    world.check(&certificate);
                }
                other => panic!("{other:?}"),
            }
        }
        world.owner.advance(&op);
        world
    }

    fn introduction(&self) -> Request {
        let text = |a: &String| Bounded::new(a.clone().into_bytes()).unwrap();
        let of = |p: &Place| -> (NodeId, Addresses) {
            (p.peer.node, Bounded::new(p.peer.addresses.iter().map(text).collect()).unwrap())
        };
        Request::Introduce { db: self.db, peers: Bounded::new(self.places.iter().map(of).collect()).unwrap() }
    }

    fn sign(&self, op: Op) -> SignedOp {
        self.owner.sign(self.db, op)
    }

    fn check(&self, certificate: &Certificate) {
        fluence_crypto::vote::verify_certificate(certificate, &self.members).unwrap();
    }

    /// Has the owner do something through node `i`.
    pub async fn act(&mut self, i: usize, op: Op) -> (OpReceipt, Certificate) {
        let op = self.sign(op);
        match self.places[i].peer.get(Request::Submit(Box::new(op.clone()))).await {
            Response::Submit { receipt, certificate } => {
                assert_eq!(receipt.outcome, Ok(()));
                self.check(&certificate);
                assert!(certificate.header.executed_height >= receipt.height);
                self.owner.advance(&op);
                (receipt, certificate)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Uploads a segment to node `i`.
    async fn upload(&self, i: usize, segment: &TestSegment) -> SignedReceipt {
        let (peer, bytes) = (&self.places[i].peer, segment.bytes());
        peer.get(Request::UploadBegin { db: self.db, segment: segment.preimage }).await;
        let bytes = bytes.try_into().unwrap();
        peer.get(Request::UploadChunk { segment: segment.root(), offset: 0, bytes }).await;
        match peer.get(Request::UploadEnd { segment: segment.root() }).await {
            Response::UploadEnd(receipt) => receipt,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until node `i` has executed `height` and lacks no segment.
    pub async fn level(&self, i: usize, height: Height) -> ClusterStatus {
        let begun = std::time::Instant::now();
        loop {
            let answer = self.places[i].peer.ask(Request::Cluster { db: self.db }).await.unwrap();
            match &answer {
                Response::Cluster(status) if status.height >= height && status.missing_segments == 0 => {
                    return (**status).clone();
                }
                // While a snapshot is fetched.
                Response::Cluster(_) | Response::Refused(Refusal::Busy(_)) => {}
                other => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < PATIENCE, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn stop(&mut self, i: usize) {
        self.places[i].node.take().unwrap().stop().await.unwrap();
    }

    pub async fn restart(&mut self, i: usize) {
        let place = &mut self.places[i];
        // The same port: what others know of it stays true.
        let address = place.peer.addresses[0].split("/p2p/").next().unwrap().to_owned();
        place.config.net.listen = vec![address];
        place.node = Some(StorageNode::start(place.config.clone(), place.chain.clone()).await.unwrap());
    }

    pub async fn end(mut self) {
        for i in 0..self.places.len() {
            if self.places[i].node.is_some() {
                self.stop(i).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_keep_one_database_through_the_loss_of_one() {
    let mut world = World::new(4).await;
    world.act(0, define(0, schema(1, 1))).await;
    let small = TestSegment::new(1, &schema(1, 1), 20, 20);
    world.act(1, commit(&[(0, 0)], vec![change(0, vec![small.inline()], vec![])])).await;

    // One is stopped; uploads to the other three suffice, and so do their votes.
    world.stop(3).await;
    let large = TestSegment::new(2, &schema(1, 1), 900, 100);
    let mut receipts = Vec::new();
    for i in 0..3 {
        receipts.push(world.upload(i, &large).await);
    }
    let named = large.delivered(Delivery::Receipts(receipts.try_into().unwrap()));
    let (receipt, certificate) = world.act(2, commit(&[(0, 1)], vec![change(0, vec![named], vec![])])).await;
    assert_eq!(certificate.signers.count_ones(), 3);

    // It comes back, executes what it missed, and fetches the segment from the others.
    world.restart(3).await;
    let status = world.level(3, receipt.height).await;
    assert_eq!(status.members.len(), 4);
    let roots: Vec<_> = {
        let mut roots = Vec::new();
        for i in 0..4 {
            roots.push(world.level(i, receipt.height).await.root);
        }
        roots
    };
    assert!(roots.iter().all(|r| *r == roots[0]), "{roots:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_longer_than_blocks_are_kept_goes_on_from_a_snapshot() {
    const KEPT: u64 = 128;
    let configure = |dir: &Path| {
        let mut config = settings(dir);
        (config.cluster.idle_ms, config.cluster.quiet_ms, config.cluster.keep_blocks) = (10, 10, KEPT);
        config
    };
    let mut world = World::with(vec![None; 4], configure).await;
    world.act(0, define(0, schema(1, 1))).await;
    let first = TestSegment::new(1, &schema(1, 1), 20, 20);
    world.act(0, commit(&[(0, 0)], vec![change(0, vec![first.inline()], vec![])])).await;
    let left = world.level(3, Height(1)).await.height;
    world.stop(3).await;
    let second = TestSegment::new(2, &schema(1, 1), 20, 20);
    world.act(1, commit(&[(0, 1)], vec![change(0, vec![second.inline()], vec![])])).await;
    // Until the others have dropped, at an epoch's end and by whole sections of 64, the block after the last that it had.
    let gone = Height(left.0 + KEPT + 3 * 64);
    for i in 0..3 {
        world.level(i, gone).await;
    }
    world.restart(3).await;
    let status = world.level(3, gone).await;
    assert_eq!(status.missing_segments, 0);
    // It is a member as before: with it, the cluster does without another.
    world.stop(0).await;
    let third = TestSegment::new(3, &schema(1, 1), 20, 20);
    let (_, certificate) = world.act(3, commit(&[(0, 2)], vec![change(0, vec![third.inline()], vec![])])).await;
    let place = world.members.iter().position(|m| m.node == world.places[3].peer.node).unwrap();
    assert_eq!((certificate.signers.count_ones(), certificate.signers >> place & 1), (3, 1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_a_database_that_does_not_name_it_and_seats_that_nobody_voted_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&settings(dir.path())).await.unwrap();
    let peer = Peer::new(120, &node).await;
    let writer = TestWriter::new(9);
    let db = DatabaseId::from_bytes([9; 16]);
    let members: Members = vec![key(1).member()].try_into().unwrap();
    let op = writer.sign(db, Op::CreateDatabase { members });
    let refusal = peer.refused(Request::Submit(Box::new(op))).await;
    assert!(refusal.to_string().contains("member"), "{refusal}");
    let refusal = peer.refused(Request::Cluster { db }).await;
    assert!(refusal.to_string().contains("database"), "{refusal}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_other_members_never_come_keeps_no_other_from_being_created() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&settings(dir.path())).await.unwrap();
    let peer = Peer::new(121, &node).await;
    let mut members = vec![key(1).member(), key(2).member(), key(3).member(), peer.member.clone().unwrap()];
    members.sort_by_key(|m| m.node);
    let alone: Members = members.try_into().unwrap();
    let (writer, db) = (TestWriter::new(11), DatabaseId::from_bytes([11; 16]));
    let stuck = Request::Submit(Box::new(writer.sign(db, Op::CreateDatabase { members: alone })));
    let mut stuck = std::pin::pin!(peer.ask(stuck));
    // It is created, and waits for a quorum that is not there.
    let created =
        async { while peer.ask(Request::Cluster { db }).await.is_ok_and(|r| matches!(r, Response::Refused(_))) {} };
    tokio::select! {
        answer = &mut stuck => panic!("{answer:?}"),
        () = created => {}
    }
    let (writer, db) = (TestWriter::new(12), DatabaseId::from_bytes([12; 16]));
    let own: Members = vec![peer.member.clone().unwrap()].try_into().unwrap();
    let op = writer.sign(db, Op::CreateDatabase { members: own });
    tokio::select! {
        answer = &mut stuck => panic!("{answer:?}"),
        answer = peer.get(Request::Submit(Box::new(op))) => assert!(matches!(answer, Response::Submit { .. })),
    }
    // Nor does a committee vouched for in an epoch that no log reaches, nor nodes that the database does not name.
    let members: Members = vec![key(1).member()].try_into().unwrap();
    let far =
        Request::Follow { db: DatabaseId::from_bytes([13; 16]), epoch: u64::MAX, members, peers: Bounded::default() };
    let refusal = peer.refused(far).await;
    assert!(refusal.to_string().contains("limit"), "{refusal}");
    assert!(peer.is_alive().await);
}
