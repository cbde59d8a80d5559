//! Nodes in this process: a real engine each, a log that keeps those of a cluster in step, and places where a test may lie, break the
//! line, or leave a member behind.

use fluence_client::{Transport, TransportError};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{self, NodeKey};
use fluence_crypto::vote;
use fluence_engine::{Engine, EngineConfig, MemStore, VerifiedBlock, View};
use fluence_types::answer::{Answer, OpenRefusal, Snapshot};
use fluence_types::block::{
    Block, BlockHeader, Certificate, Checkpoint, Handover, Member, Members, ends_epoch, epoch_of, position,
};
use fluence_types::codec::Bounded;
use fluence_types::op::{Op, OpReceipt, Seat, SeatChange, SignedOp};
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, NodeId, OpId, ProjectionId};
use fluence_wire::message::{ClusterStatus, DatabaseStatus, MemberStatus, Refusal, Status};
use fluence_wire::{Request, Response};
use futures::future::{Either, ready};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What a test does with a request instead of handing it to the node.
pub(crate) type Tamper = Box<dyn FnMut(&Node, Request) -> Result<Response, TransportError> + Send>;

pub(crate) struct Node {
    key: NodeKey,
    pub(crate) engine: Engine,
    hub: Weak<Hub>,
    /// The last certificate that it has of each database.
    latest: Mutex<BTreeMap<DatabaseId, Certificate>>,
    /// Cannot be reached, and takes no part.
    pub(crate) dead: AtomicBool,
    /// Answers, but gets no more blocks.
    pub(crate) lags: AtomicBool,
    /// Never answers.
    pub(crate) stuck: AtomicBool,
    /// Where it was told that nodes are.
    pub(crate) told: Mutex<Vec<(DatabaseId, Vec<NodeId>)>>,
    /// What it was asked to follow, and by whose word.
    pub(crate) followed: Mutex<Vec<(DatabaseId, u64, Members)>>,
}

impl Node {
    fn new(seed: u8, hub: Weak<Hub>, config: EngineConfig) -> Self {
        let engine = Engine::open(Arc::new(MemStore::new()), config).unwrap();
        let (dead, lags, stuck, told, followed) = Default::default();
        let key = NodeKey::new(Secret::new([seed; 32]));
        Self { key, engine, hub, latest: Mutex::default(), dead, lags, stuck, told, followed }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) fn member(&self) -> Member {
        self.key.member()
    }

    /// A certificate of any block, signed by this node as if it were the only member.
    pub(crate) fn certify(&self, header: BlockHeader) -> Certificate {
        let members = Bounded::new(vec![self.member()]).unwrap();
        vote::certify(header, 2, 1, &members, &[&self.key]).unwrap()
    }

    /// A root of this node's own.
    pub(crate) fn certify_root(&self, checkpoint: Checkpoint) -> Certificate {
        let height = Height(checkpoint.height.0 + 1);
        let header = BlockHeader {
            db: checkpoint.db,
            consensus_epoch: epoch_of(height),
            height,
            executed_height: checkpoint.height,
            executed_root: checkpoint.root,
            ..genesis(checkpoint.db)
        };
        self.certify(header)
    }

    pub(crate) fn latest(&self, db: DatabaseId) -> Option<Certificate> {
        self.latest.lock().unwrap().get(&db).cloned()
    }

    fn certified(&self, db: DatabaseId) -> Result<(View<'_>, Certificate), OpenRefusal> {
        let head = self.engine.view(db)?;
        let certificate = self.latest(db).expect("what is here is certified");
        let view = self.engine.view_at(db, certificate.header.executed_height).unwrap_or(head);
        assert_eq!(view.checkpoint().root, certificate.header.executed_root);
        Ok((view, certificate))
    }

    pub(crate) fn snapshot(&self, db: DatabaseId, projection: ProjectionId) -> Result<Snapshot, OpenRefusal> {
        let (view, certificate) = self.certified(db)?;
        Ok(Snapshot { certificate, opening: view.snapshot(projection)? })
    }

    pub(crate) fn answer(&self, request: Request) -> Response {
        self.try_answer(request).unwrap_or_else(Response::Refused)
    }

    fn status(&self) -> Status {
        let status = |db: &DatabaseId| {
            let summary = self.engine.view(*db).unwrap().summary();
            let height = self.engine.head(*db).unwrap().height;
            DatabaseStatus {
                db: *db,
                owner: summary.owner,
                members: summary.members,
                epoch: epoch_of(Height(height.0 + 1)),
                height,
                peers: 0,
                certificate: self.latest(*db).unwrap(),
                projections: summary.projections,
                stored_cells: summary.stored_cells,
                segments: summary.segments,
                lost_pages: summary.lost_pages,
            }
        };
        Status {
            member: self.member(),
            software: Bounded::default(),
            databases: Bounded::new(self.engine.databases().iter().map(status).collect()).unwrap(),
            storage_shape: [2, 1, 1, 2],
        }
    }

    fn try_answer(&self, request: Request) -> Result<Response, Refusal> {
        let upload = |e: &dyn std::fmt::Display| Refusal::Upload(e.to_string());
        Ok(match request {
            Request::Status => Response::Status(self.status()),
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
            Request::Submit(op) => {
                let hub = self.hub.upgrade().expect("the net is there");
                let (receipt, certificate) = hub.submit(self, *op).map_err(Refusal::Operation)?;
                Response::Submit { receipt, certificate }
            }
            Request::Catalogue { db, projection } => Response::Catalogue(Box::new(self.snapshot(db, projection)?)),
            Request::Header { db, segment } => Response::Header(self.engine.view(db)?.header(segment)?),
            Request::Open(request) => {
                let (view, certificate) = self.certified(request.db)?;
                let (opening, segments) = view.open_cells(&request)?;
                let snapshot = Snapshot { certificate, opening };
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
                Response::Schemas(Bounded::new(self.certified(db)?.0.schemas()?).expect("few projections"))
            }
            Request::Handovers { db, from_epoch } => {
                let hub = self.hub.upgrade().expect("the net is there");
                let logs = hub.logs.lock().unwrap();
                let all = logs.get(&db).map(|l| l.handovers.clone()).unwrap_or_default();
                let since = all.into_iter().filter(|h| h.certificate.header.consensus_epoch >= from_epoch);
                Response::Handovers(Bounded::new(since.collect()).expect("few handovers"))
            }
            Request::Introduce { db, peers } => {
                self.engine.view(db)?;
                self.told.lock().unwrap().push((db, peers.iter().map(|(node, _)| *node).collect()));
                Response::Noted
            }
            Request::Follow { db, epoch, members, .. } => {
                self.followed.lock().unwrap().push((db, epoch, members));
                Response::Noted
            }
            Request::Cluster { db } => Response::Cluster(Box::new(self.cluster(db)?)),
            Request::Lease { db, table } => {
                let (lease, now_ms) = self.certified(db)?.0.lease(table);
                Response::Lease { lease, now_ms }
            }
            other => return Err(Refusal::Unprovable(format!("{other:?}"))),
        })
    }

    fn cluster(&self, db: DatabaseId) -> Result<ClusterStatus, Refusal> {
        let (view, height) = (self.engine.view(db)?, self.engine.head(db).expect("it is here").height);
        let members = view.members().iter().map(|m| MemberStatus {
            node: m.node,
            heard_ms_ago: Some(1),
            signed: Some(height),
            connected: true,
        });
        let nodes = |list: &[Member]| list.iter().map(|m| m.node).collect::<Vec<_>>();
        Ok(ClusterStatus {
            db,
            epoch: epoch_of(Height(height.0 + 1)),
            view: 1,
            height,
            finalized: height,
            root: view.checkpoint().root,
            voting: position(view.members(), &self.id()).is_some(),
            waiting: 0,
            missing_segments: 0,
            missing_bytes: 0,
            members: members.collect::<Vec<_>>().try_into().unwrap(),
            next: nodes(view.next_members()).try_into().unwrap(),
            wish: view.wish().cloned(),
            standby: nodes(view.standby()).try_into().unwrap(),
            certificate: self.latest(db),
        })
    }
}

fn genesis(db: DatabaseId) -> BlockHeader {
    BlockHeader {
        db,
        consensus_epoch: 0,
        height: Height(0),
        parent: BlockHash::default(),
        timestamp_ms: 1_700_000_000_000,
        ops_hash: sign::ops_hash(&[]),
        executed_height: Height(0),
        executed_root: DbRoot::default(),
        next_members_hash: [0; 32],
    }
}

/// One database's blocks, and how its committee changed.
#[derive(Default)]
struct Log {
    blocks: Vec<Block>,
    handovers: Vec<Handover>,
    last: Option<Certificate>,
}

/// What stands in for agreement: one log a database, which every member that is up applies.
#[derive(Default)]
pub(crate) struct Hub {
    /// Milliseconds that pass before the next block.
    pub(crate) pass_ms: AtomicU64,
    nodes: Mutex<Vec<Arc<Node>>>,
    logs: Mutex<BTreeMap<DatabaseId, Log>>,
}

impl Hub {
    fn submit(&self, by: &Node, op: SignedOp) -> Result<(OpReceipt, Certificate), String> {
        let (db, id) = (op.unsigned.db, sign::op_id(&op.unsigned));
        let mut logs = self.logs.lock().unwrap();
        let here = by.engine.head(db).is_some();
        // Done is done; what was refused is ordered once more, as a replica does.
        if here && let Some(receipt) = by.engine.receipt(db, id).unwrap().filter(|r| r.outcome.is_ok()) {
            return Ok((receipt, by.latest(db).unwrap()));
        }
        if !here && !matches!(op.unsigned.op, Op::CreateDatabase { .. }) {
            return Err("no such database".to_owned());
        }
        if by.lags.load(Ordering::Relaxed) {
            return Err("this member hears nobody".to_owned());
        }
        let log = logs.entry(db).or_default();
        self.block(log, db, vec![op])?;
        self.block(log, db, vec![])?;
        let receipt = by.engine.receipt(db, id).unwrap().expect("it was ordered");
        Ok((receipt, by.latest(db).unwrap()))
    }

    /// Makes the next block, has every member apply it, and all that did certify it.
    fn block(&self, log: &mut Log, db: DatabaseId, ops: Vec<SignedOp>) -> Result<(), String> {
        let nodes = self.nodes.lock().unwrap();
        let up: Vec<&Arc<Node>> = nodes
            .iter()
            .filter(|n| !n.dead.load(Ordering::Relaxed) && !n.lags.load(Ordering::Relaxed))
            .filter(|n| n.engine.head(db).map_or(0, |h| h.height.0 + 1) == log.blocks.len() as u64)
            .collect();
        let committee: Members = match log.blocks.first().map(|_| up.first().ok_or("nobody is up")) {
            Some(node) => node?.engine.view(db).unwrap().members().clone(),
            None => match &ops[0].unsigned.op {
                Op::CreateDatabase { members } => members.clone(),
                _ => return Err("not a first operation".to_owned()),
            },
        };
        let up: Vec<_> = up.into_iter().filter(|n| position(&committee, &n.id()).is_some()).collect();
        let first = up.first().ok_or("no member is up")?;
        let mut header = BlockHeader { ops_hash: sign::ops_hash(&ops), ..genesis(db) };
        if let Some(last) = first.engine.head(db) {
            header.height = Height(last.height.0 + 1);
            header.consensus_epoch = epoch_of(header.height);
            let passed = 1 + self.pass_ms.swap(0, Ordering::Relaxed);
            (header.parent, header.timestamp_ms) = (last.block, last.timestamp_ms + passed);
            (header.executed_height, header.executed_root) = (last.height, last.root);
            header.next_members_hash = last.next_members_hash;
        }
        let block = Block { header: header.clone(), ops: Bounded::new(ops).unwrap() };
        let verified = VerifiedBlock::verify(block.clone()).map_err(|e| e.to_string())?;
        for node in &up {
            node.engine.apply(&verified).map_err(|e| e.to_string())?;
        }
        log.blocks.push(block);
        if header.height == Height(0) {
            return Ok(());
        }
        let view = header.height.0 % 64 + 1;
        let keys: Vec<&NodeKey> = up.iter().map(|n| &n.key).collect();
        let certificate = vote::certify(header.clone(), view, view - 1, &committee, &keys).unwrap();
        if ends_epoch(header.height) {
            let next = first.engine.view(db).unwrap().members().clone();
            if next != committee {
                log.handovers.push(Handover { certificate: certificate.clone(), members: next });
            }
        }
        log.last = Some(certificate.clone());
        for node in &up {
            node.latest.lock().unwrap().insert(db, certificate.clone());
        }
        Ok(())
    }

    /// Empty blocks, up to this height.
    pub(crate) fn pass(&self, db: DatabaseId, height: Height) {
        let mut logs = self.logs.lock().unwrap();
        let log = logs.get_mut(&db).unwrap();
        while log.blocks.len() as u64 <= height.0 {
            self.block(log, db, vec![]).unwrap();
        }
    }

    /// Has a member apply what it missed.
    pub(crate) fn catch_up(&self, db: DatabaseId, node: &Node) {
        let logs = self.logs.lock().unwrap();
        let Some(log) = logs.get(&db) else { return };
        for block in &log.blocks {
            node.engine.apply(&VerifiedBlock::verify(block.clone()).unwrap()).unwrap();
        }
        node.latest.lock().unwrap().insert(db, log.last.clone().unwrap());
    }

    /// Replaces one member by another, voted for by all that are up, and goes on to the next epoch, where the newcomer votes.
    pub(crate) fn replace(&self, db: DatabaseId, out: &Node, with: &Node) {
        let nodes = self.nodes.lock().unwrap().clone();
        let mut logs = self.logs.lock().unwrap();
        let log = logs.get_mut(&db).unwrap();
        let voter = nodes.iter().find(|n| n.engine.head(db).is_some() && !n.dead.load(Ordering::Relaxed)).unwrap();
        let members = voter.engine.view(db).unwrap().members().clone();
        let epoch = epoch_of(Height(log.blocks.len() as u64));
        let seat = Seat { db, epoch, out: Some(out.id()), join: Some(with.member()) };
        let votes = nodes.iter().filter_map(|n| {
            let at = position(&members, &n.id())?;
            (n.id() != out.id()).then(|| (at as u16, sign::sign_seat(&seat, &n.key)))
        });
        let mut votes: Vec<_> = votes.collect();
        votes.sort_by_key(|(at, _)| *at);
        let op = sign::seat_op(SeatChange { seat, votes: Bounded::new(votes).unwrap() });
        let id = sign::op_id(&op.unsigned);
        self.block(log, db, vec![op]).unwrap();
        assert_eq!(voter.engine.receipt(db, id).unwrap().unwrap().outcome, Ok(()));
        while !ends_epoch(log.blocks.last().unwrap().header.height) {
            self.block(log, db, vec![]).unwrap();
        }
        drop(logs);
        self.catch_up(db, with);
        let mut logs = self.logs.lock().unwrap();
        let log = logs.get_mut(&db).unwrap();
        // The first block of the epoch, which the newcomer votes for too, and one more: idle clusters go on.
        self.block(log, db, vec![]).unwrap();
        self.block(log, db, vec![]).unwrap();
    }
}

/// All nodes, and the line to them.
pub(crate) struct Net {
    nodes: HashMap<NodeId, Arc<Node>>,
    pub(crate) hub: Arc<Hub>,
    tamper: Mutex<Option<Tamper>>,
    /// Requests so far.
    pub(crate) requests: Mutex<Vec<&'static str>>,
    /// Who was asked.
    pub(crate) asked: Mutex<Vec<NodeId>>,
}

impl Net {
    pub(crate) fn of(seeds: &[u8]) -> (Arc<Self>, Vec<Arc<Node>>) {
        Self::with(seeds, EngineConfig::default())
    }

    /// Nodes whose engines are opened so.
    pub(crate) fn with(seeds: &[u8], config: EngineConfig) -> (Arc<Self>, Vec<Arc<Node>>) {
        let hub = Arc::new(Hub::default());
        let nodes: Vec<_> = seeds.iter().map(|s| Arc::new(Node::new(*s, Arc::downgrade(&hub), config))).collect();
        *hub.nodes.lock().unwrap() = nodes.clone();
        let map = nodes.iter().map(|n| (n.id(), Arc::clone(n))).collect();
        let (tamper, requests, asked) = Default::default();
        (Arc::new(Self { nodes: map, hub, tamper, requests, asked }), nodes)
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
        Request::Handovers { .. } => "handovers",
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
            Some(found) if found.dead.load(Ordering::Relaxed) => {
                Err(TransportError::Unreachable { node: *node, why: "it is dead".to_owned() })
            }
            Some(found) if found.stuck.load(Ordering::Relaxed) => return Either::Left(std::future::pending()),
            Some(found) => {
                self.requests.lock().unwrap().push(kind(&request));
                self.asked.lock().unwrap().push(*node);
                let mut tamper = self.tamper.lock().unwrap();
                match tamper.as_mut() {
                    None => Ok(found.answer(request)),
                    Some(tamper) => tamper(found, request),
                }
            }
        };
        Either::Right(ready(result))
    }

    /// Time passes whenever nothing else happens.
    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send {
        let mut turns = 0;
        futures::future::poll_fn(move |cx| {
            turns += 1;
            if turns > 3 {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
    }
}
