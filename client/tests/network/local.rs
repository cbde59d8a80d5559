//! Nodes in this process: a real engine each, blocks of one operation, and a place where a test may lie or break the line.

use fluence_client::{Transport, TransportError};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{self, NodeKey};
use fluence_engine::{Engine, EngineConfig, MemStore, VerifiedBlock};
use fluence_types::answer::{Answer, Snapshot};
use fluence_types::block::{Block, BlockHeader, Certificate, Checkpoint};
use fluence_types::codec::Bounded;
use fluence_types::op::{Op, SignedOp};
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, NodeId, OpId};
use fluence_wire::message::{DatabaseStatus, Refusal, Status};
use fluence_wire::{Request, Response};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

/// What a test does with a request instead of handing it to the node.
pub(crate) type Tamper = Box<dyn FnMut(&Node, Request) -> Result<Response, TransportError> + Send>;

pub(crate) struct Node {
    key: NodeKey,
    pub(crate) engine: Engine,
    /// Blocks are made one at a time.
    turn: Mutex<u64>,
}

impl Node {
    pub(crate) fn new(seed: u8) -> Self {
        let engine = Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).unwrap();
        Self { key: NodeKey::new(Secret::new([seed; 32])), engine, turn: Mutex::new(0) }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) fn certify(&self, checkpoint: Checkpoint) -> Certificate {
        let signature = sign::sign_checkpoint(&checkpoint, &self.key);
        Certificate { checkpoint, signatures: Bounded::new(vec![(0, signature)]).unwrap() }
    }

    fn certificate(&self, db: DatabaseId) -> Certificate {
        self.certify(self.engine.checkpoint(db).expect("the database is here"))
    }

    fn submit(&self, op: SignedOp) -> Response {
        let mut turn = self.turn.lock().unwrap();
        let (db, id) = (op.unsigned.db, sign::op_id(&op.unsigned));
        if let Some(receipt) = self.engine.checkpoint(db).and_then(|_| self.engine.receipt(db, id).unwrap()) {
            return Response::Submit { receipt, certificate: self.certificate(db) };
        }
        let last = self.engine.checkpoint(db);
        let genesis = matches!(op.unsigned.op, Op::CreateDatabase { .. });
        if last.is_none() && !genesis {
            return Response::Refused(Refusal::Operation("no such database".into()));
        }
        *turn += 1;
        let (height, parent, executed_height, executed_root) = match &last {
            None => (Height(0), BlockHash::default(), Height(0), DbRoot::default()),
            Some(l) => (Height(l.height.0 + 1), l.block, l.height, l.root),
        };
        let header = BlockHeader {
            db,
            consensus_epoch: 0,
            height,
            parent,
            timestamp_ms: 1_700_000_000_000 + *turn,
            ops_hash: sign::ops_hash(&[id]),
            executed_height,
            executed_root,
            next_members_hash: [0; 32],
        };
        let block = Block { header, ops: Bounded::new(vec![op]).unwrap() };
        let applied = VerifiedBlock::verify(block).map_err(|e| e.to_string());
        match applied.and_then(|b| self.engine.apply(&b).map_err(|e| e.to_string())) {
            Ok(applied) => {
                Response::Submit { receipt: applied.outcomes[0].clone(), certificate: self.certify(applied.checkpoint) }
            }
            Err(why) => Response::Refused(Refusal::Operation(why)),
        }
    }

    pub(crate) fn answer(&self, request: Request) -> Response {
        self.try_answer(request).unwrap_or_else(Response::Refused)
    }

    fn try_answer(&self, request: Request) -> Result<Response, Refusal> {
        let upload = |e: &dyn std::fmt::Display| Refusal::Upload(e.to_string());
        Ok(match request {
            Request::Status => {
                let status = |db: &DatabaseId| {
                    let summary = self.engine.view(*db).unwrap().summary();
                    DatabaseStatus {
                        db: *db,
                        owner: summary.owner,
                        members: summary.members,
                        certificate: self.certify(summary.checkpoint),
                        projections: summary.projections,
                        stored_cells: summary.stored_cells,
                        segments: summary.segments,
                        lost_pages: summary.lost_pages,
                    }
                };
                Response::Status(Status {
                    node: self.id(),
                    software: Bounded::default(),
                    databases: Bounded::new(self.engine.databases().iter().map(status).collect()).unwrap(),
                    storage_shape: [2, 1, 1, 2],
                })
            }
            Request::UploadBegin { db, segment } => {
                let have = self.engine.begin_upload(db, &segment).map_err(|e| upload(&e))?;
                Response::Upload { have }
            }
            Request::UploadChunk { segment, offset, bytes } => {
                let have = self.engine.append_upload(segment, offset, &bytes).map_err(|e| upload(&e))?;
                Response::Upload { have }
            }
            Request::UploadEnd { segment } => {
                let checked = self.engine.finish_upload(segment).map_err(|e| upload(&e))?;
                Response::UploadEnd(sign::sign_receipt(checked.receipt(self.id()), &self.key))
            }
            Request::Submit(op) => self.submit(*op),
            Request::Catalogue { db, projection } => {
                let view = self.engine.view(db)?;
                let opening = view.snapshot(projection)?;
                Response::Catalogue(Box::new(Snapshot { certificate: self.certify(view.checkpoint()), opening }))
            }
            Request::Header { db, segment } => Response::Header(self.engine.view(db)?.header(segment)?),
            Request::Open(request) => {
                let view = self.engine.view(request.db)?;
                let (opening, segments) = view.open_cells(&request)?;
                let snapshot = Snapshot { certificate: self.certify(view.checkpoint()), opening };
                Response::Open(Box::new(Answer { snapshot, segments: Bounded::new(segments).unwrap() }))
            }
            Request::Writer { db, address } => match self.engine.view(db) {
                Ok(view) => {
                    let writer = view.writer(address);
                    Response::Writer { next_sequence: writer.next_sequence, previous: writer.previous }
                }
                Err(_) => Response::Writer { next_sequence: 0, previous: OpId::default() },
            },
            Request::Schemas { db } => {
                Response::Schemas(Bounded::new(self.engine.view(db)?.schemas()?).expect("few projections"))
            }
            other => return Err(Refusal::Unprovable(format!("{other:?}"))),
        })
    }
}

/// All nodes, and the line to them.
#[derive(Default)]
pub(crate) struct Net {
    nodes: HashMap<NodeId, Arc<Node>>,
    tamper: Mutex<Option<Tamper>>,
    /// Requests so far.
    pub(crate) requests: Mutex<Vec<&'static str>>,
}

impl Net {
    pub(crate) fn of(seeds: &[u8]) -> (Arc<Self>, Vec<Arc<Node>>) {
        let nodes: Vec<_> = seeds.iter().map(|s| Arc::new(Node::new(*s))).collect();
        let map = nodes.iter().map(|n| (n.id(), Arc::clone(n))).collect();
        (Arc::new(Self { nodes: map, ..Self::default() }), nodes)
    }

    pub(crate) fn tamper(&self, with: impl FnMut(&Node, Request) -> Result<Response, TransportError> + Send + 'static) {
        *self.tamper.lock().unwrap() = Some(Box::new(with));
    }

    pub(crate) fn honest(&self) {
        *self.tamper.lock().unwrap() = None;
    }
}

pub(crate) const fn kind(request: &Request) -> &'static str {
    match request {
        Request::Submit(_) => "submit",
        Request::Open(_) => "open",
        Request::Header { .. } => "header",
        Request::Catalogue { .. } => "catalogue",
        Request::UploadChunk { .. } => "chunk",
        _ => "other",
    }
}

impl Transport for Net {
    fn request(
        &self,
        node: &NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        let result = match self.nodes.get(node) {
            None => Err(TransportError::NoAddress(*node)),
            Some(found) => {
                self.requests.lock().unwrap().push(kind(&request));
                let mut tamper = self.tamper.lock().unwrap();
                match tamper.as_mut() {
                    None => Ok(found.answer(request)),
                    Some(tamper) => tamper(found, request),
                }
            }
        };
        std::future::ready(result)
    }
}
