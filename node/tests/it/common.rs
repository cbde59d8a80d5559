//! A storage node in this process, and an owner who talks to it over a real connection.

use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_engine::testkit::{TestSegment, TestWriter, change, commit, define, schema};
use fluence_node::config::{StorageConfig, StoreKind};
use fluence_node::net::{self, NetConfig, NetError, NetHandle};
use fluence_node::{NodeError, StorageNode};
use fluence_types::answer::{Answer, CellRange, OpenRequest, SegmentRanges, Snapshot};
use fluence_types::block::{Certificate, Member, Members};
use fluence_types::op::{Delivery, Op, OpReceipt, SignedReceipt};
use fluence_types::segment::PublicSchema;
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::{DatabaseId, Height, NodeId, ProjectionId};
use fluence_verifier::answer::Trust;
use fluence_verifier::committee::Committee;
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};
use std::path::Path;

/// A circuit that is made in no time, over trees that hold what the tests write.
pub const SHAPE: StorageShape = StorageShape { samples: 2, holdings_levels: 3, stored_levels: 3, tree_levels: 5 };

/// A key that follows from a number.
pub fn key(n: u8) -> NodeKey {
    NodeKey::new(Secret::new([n; 32]))
}

/// A storage node's configuration under `dir`, tiny circuits, no chain.
pub fn config(dir: &Path, engine: StoreKind) -> StorageConfig {
    let mut config = StorageConfig { data_dir: dir.join("node"), ..StorageConfig::default() };
    config.store.engine = engine;
    config.proving.keys_dir = dir.join("keys");
    config.proving.storage = CircuitId::Storage(SHAPE);
    config.proving.make_dev_keys = true;
    config
}

pub async fn start(config: &StorageConfig) -> Result<StorageNode, NodeError> {
    StorageNode::start(config.clone(), None).await
}

/// Someone who asks a node.
#[derive(Clone)]
pub struct Peer {
    pub net: NetHandle,
    pub node: NodeId,
    pub addresses: Vec<String>,
    /// The node as a member, where it was asked.
    pub member: Option<Member>,
}

impl Peer {
    /// A peer with the key of `n`, which only dials.
    pub async fn new(n: u8, node: &StorageNode) -> Self {
        let mut peer = Self::to(n, node.run_file().node, node.run_file().listen.clone()).await;
        if let Response::Status(status) = peer.get(Request::Status).await {
            fluence_crypto::vote::verify_member(&status.member).unwrap();
            peer.member = Some(status.member);
        }
        peer
    }

    pub async fn to(n: u8, node: NodeId, addresses: Vec<String>) -> Self {
        let config = NetConfig { listen: Vec::new(), ..NetConfig::default() };
        let (net, mut inbound, _) = net::start(&key(n), &config).await.unwrap();
        tokio::spawn(async move { while inbound.recv().await.is_some() {} });
        Self { net, node, addresses, member: None }
    }

    pub async fn ask(&self, request: Request) -> Result<Response, NetError> {
        self.net.request(&self.node, &self.addresses, request).await
    }

    /// The answer, where it must be one.
    pub async fn get(&self, request: Request) -> Response {
        match self.ask(request).await.unwrap() {
            Response::Refused(why) => panic!("refused: {why}"),
            response => response,
        }
    }

    /// The refusal, where it must be one.
    pub async fn refused(&self, request: Request) -> Refusal {
        match self.ask(request).await.unwrap() {
            Response::Refused(why) => why,
            response => panic!("not refused: {response:?}"),
        }
    }

    /// Whether the node still answers.
    pub async fn is_alive(&self) -> bool {
        matches!(self.ask(Request::Status).await, Ok(Response::Status(_)))
    }
}

/// An owner with a database of one projection on one node.
pub struct Owner {
    pub peer: Peer,
    pub writer: TestWriter,
    pub db: DatabaseId,
    pub schema: PublicSchema,
}

impl Owner {
    pub fn new(seed: u64, peer: Peer) -> Self {
        let mut db = [0; 16];
        db[..8].copy_from_slice(&seed.to_be_bytes());
        db[15] = 1;
        Self { peer, writer: TestWriter::new(seed), db: DatabaseId::from_bytes(db), schema: schema(1, 1) }
    }

    pub fn creation(&self) -> Op {
        Op::CreateDatabase { members: self.members() }
    }

    fn members(&self) -> Members {
        vec![self.peer.member.clone().expect("the node said who it is")].try_into().unwrap()
    }

    /// Submits an operation at the writer's place; moves on where it was done.
    pub async fn submit(&mut self, op: Op) -> Result<(OpReceipt, Certificate), Refusal> {
        let signed = self.writer.sign(self.db, op);
        match self.peer.ask(Request::Submit(Box::new(signed.clone()))).await.unwrap() {
            Response::Submit { receipt, certificate } => {
                if receipt.outcome.is_ok() {
                    self.writer.advance(&signed);
                }
                Ok((receipt, certificate))
            }
            Response::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub async fn act(&mut self, op: Op) -> Certificate {
        let (receipt, certificate) = self.submit(op).await.unwrap();
        assert_eq!(receipt.outcome, Ok(()));
        certificate
    }

    /// Creates the database and its projection.
    pub async fn create(&mut self) {
        self.act(self.creation()).await;
        self.act(define(0, self.schema.clone())).await;
    }

    pub fn segment(&self, seed: u64, rows: u64) -> TestSegment {
        TestSegment::new(seed, &self.schema, rows, 20)
    }

    /// Uploads a segment in chunks.
    pub async fn upload(&self, segment: &TestSegment) -> Result<SignedReceipt, Refusal> {
        let (bytes, root) = (segment.bytes(), segment.root());
        let begin = Request::UploadBegin { db: self.db, segment: segment.preimage };
        let mut response = self.peer.ask(begin).await.unwrap();
        loop {
            let have = match response {
                Response::Upload { have } => have as usize,
                Response::Refused(why) => return Err(why),
                other => panic!("{other:?}"),
            };
            if have == bytes.len() {
                break;
            }
            let chunk = bytes[have..bytes.len().min(have + 50_000)].to_vec();
            let request = Request::UploadChunk { segment: root, offset: have as u64, bytes: chunk.try_into().unwrap() };
            response = self.peer.ask(request).await.unwrap();
        }
        match self.peer.ask(Request::UploadEnd { segment: root }).await.unwrap() {
            Response::UploadEnd(receipt) => Ok(receipt),
            Response::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    /// Uploads a segment and makes it live; the projection was changed `version` times before.
    pub async fn append(&mut self, segment: &TestSegment, version: u64) -> Certificate {
        let receipt = self.upload(segment).await.unwrap();
        let named = segment.delivered(Delivery::Receipts(vec![receipt].try_into().unwrap()));
        self.act(commit(&[(0, version)], vec![change(0, vec![named], vec![])])).await
    }

    pub fn trust(&self) -> Trust {
        Trust { db: self.db, committee: Committee::new(0, self.members()), min_height: Height(0) }
    }

    pub async fn snapshot(&self) -> Snapshot {
        match self.peer.get(Request::Catalogue { db: self.db, projection: ProjectionId(0) }).await {
            Response::Catalogue(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }

    /// A request for cells `first..first + count` of every live segment.
    pub async fn request(&self, first: u64, count: u64) -> OpenRequest {
        let entry = self.snapshot().await.opening.entry;
        let ranges = |_: &_| vec![CellRange { first, count }].try_into().unwrap();
        let segments = entry.live.iter().map(|s| SegmentRanges { segment: *s, ranges: ranges(s) }).collect::<Vec<_>>();
        OpenRequest {
            db: self.db,
            projection: ProjectionId(0),
            version: entry.version,
            segments: segments.try_into().unwrap(),
        }
    }

    pub async fn open(&self, request: &OpenRequest) -> Answer {
        match self.peer.get(Request::Open(Box::new(request.clone()))).await {
            Response::Open(answer) => *answer,
            other => panic!("{other:?}"),
        }
    }
}
