//! What a storage node answers: every request of the wire, through the engine and the log.
//!
//! Rule    an answer is opened from one view and certified at that view's root. A refusal names what is wrong; wrong bytes are never
//!         served. Blocking work runs on blocking threads; the network task never waits for it.

use super::proofs::{ProofKey, Proofs};
use super::prover::{ProveError, Prover};
use crate::config::StoreConfig;
use crate::log::{Log, SubmitError, certified};
use crate::net::{Inbound, NetHandle, Offence};
use fluence_crypto::sign::{NodeKey, sign_receipt, verify_op};
use fluence_crypto::tree::segment_root;
use fluence_engine::{Engine, UploadError, View, WitnessError};
use fluence_types::answer::{Answer, OpenRefusal, OpenRequest, Snapshot};
use fluence_types::block::{Certificate, epoch_of};
use fluence_types::limits::HANDOVERS_MAX;
use fluence_types::op::{Delivery, Op, SignedOp};
use fluence_types::tree::SegmentPreimage;
use fluence_types::{DatabaseId, Height, NodeId, SegmentRoot};
use fluence_wire::message::{Addresses, DatabaseStatus, Refusal, STATUS_DATABASES_MAX, Status};
use fluence_wire::{Request, Response};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long a stop waits for answers in the making.
const STOP: Duration = Duration::from_secs(5);
/// Bytes of a cell's record.
const CELL_BYTES: u64 = 256;

/// A storage node's service.
pub struct Service<L> {
    key: Arc<NodeKey>,
    engine: Arc<Engine>,
    log: Arc<L>,
    prover: Arc<Prover>,
    proofs: Arc<Proofs>,
    store: StoreConfig,
    /// Uploads begin one after the other, so that two cannot both take the last of the quota.
    beginning: Mutex<()>,
}

impl<L: Log> Service<L> {
    /// A service over its parts.
    #[must_use]
    pub fn new(
        key: Arc<NodeKey>,
        engine: Arc<Engine>,
        log: Arc<L>,
        prover: Arc<Prover>,
        proofs: Arc<Proofs>,
        store: StoreConfig,
    ) -> Self {
        Self { key, engine, log, prover, proofs, store, beginning: Mutex::default() }
    }

    /// Answers requests until the network ends, then those in flight.
    pub async fn run(self, net: NetHandle, mut inbound: mpsc::Receiver<Inbound>) {
        let service = Arc::new(self);
        let mut answering = JoinSet::new();
        loop {
            let next = tokio::select! {
                next = inbound.recv() => next,
                Some(_) = answering.join_next(), if !answering.is_empty() => continue,
            };
            let Some(request) = next else { break };
            let (service, net) = (Arc::clone(&service), net.clone());
            answering.spawn(async move {
                let (from, request, reply) = request.into_parts();
                let (kind, started) = (crate::net::kind(&request), Instant::now());
                let response = service.answer(request).await;
                metrics::histogram!("fluence_request_seconds", "kind" => kind).record(started.elapsed().as_secs_f64());
                if let Response::Refused(why) = &response {
                    tracing::debug!(node = %from, kind, %why, "refused");
                    metrics::counter!("fluence_requests_refused_total", "kind" => kind).increment(1);
                    // A signature that does not verify is nobody's mistake.
                    if matches!(why, Refusal::Operation(why) if why.starts_with(BAD_SIGNATURE)) {
                        net.offend(from, Offence::Malformed).await;
                    }
                }
                reply.send(response);
            });
        }
        // The network is gone, so nobody waits for more than the log's answers: what was submitted is ordered all the same.
        let _ = tokio::time::timeout(STOP, async { while answering.join_next().await.is_some() {} }).await;
        answering.shutdown().await;
    }

    /// The answer to one request.
    pub async fn answer(self: &Arc<Self>, request: Request) -> Response {
        let result = match request {
            Request::Submit(op) => self.submit(*op).await,
            Request::ProveRangeSum(query) => {
                let log = Arc::clone(&self.log);
                let proved = self.prover.range_sum(query, move |engine, db| certified(engine, log.as_ref(), db)).await;
                proved.map(|p| Response::ProveRangeSum(Box::new(p))).map_err(unprovable)
            }
            other => {
                let service = Arc::clone(self);
                let answered = tokio::task::spawn_blocking(move || service.answer_blocking(other)).await;
                answered.unwrap_or_else(|e| {
                    tracing::error!(error = %e, "a request made the node panic");
                    Err(OpenRefusal::Internal("the node failed; its log says why".to_owned()).into())
                })
            }
        };
        result.unwrap_or_else(|why| {
            if let Refusal::Open(refusal) = &why {
                self.prover.note_lost(refusal);
            }
            Response::Refused(why)
        })
    }

    fn answer_blocking(&self, request: Request) -> Result<Response, Refusal> {
        match request {
            Request::Status => Ok(Response::Status(self.status())),
            Request::UploadBegin { db, segment } => self.upload_begin(db, &segment),
            Request::UploadChunk { segment, offset, bytes } => {
                metrics::counter!("fluence_upload_bytes_total").increment(bytes.len() as u64);
                let have = self.engine.append_upload(segment, offset, &bytes);
                // A chunk sent twice is no error: the sender learns where to go on.
                match have {
                    Err(UploadError::Offset { have, .. }) | Ok(have) => Ok(Response::Upload { have }),
                    Err(e) => Err(upload(e)),
                }
            }
            Request::UploadEnd { segment } => self.upload_end(segment),
            Request::Catalogue { db, projection } => {
                let (view, certificate) = self.certified(db)?;
                Ok(Response::Catalogue(Box::new(Snapshot { certificate, opening: view.snapshot(projection)? })))
            }
            Request::Header { db, segment } => Ok(Response::Header(self.engine.view(db)?.header(segment)?)),
            Request::Open(request) => self.open(&request),
            Request::EpochProof { epoch, proof_index, db } => {
                let key = ProofKey { epoch, proof_index, db };
                match self.proofs.get(&key) {
                    Some(proof) => Ok(Response::EpochProof(Box::new(proof))),
                    None => Err(Refusal::NoProof { epoch, why: self.proofs.why_missing(&key) }),
                }
            }
            Request::Writer { db, address } => {
                let writer = self.engine.view(db)?.writer(address);
                Ok(Response::Writer { next_sequence: writer.next_sequence, previous: writer.previous })
            }
            Request::Schemas { db } => {
                let schemas = self.certified(db)?.0.schemas()?;
                let bounded = schemas.try_into().map_err(|e| OpenRefusal::Internal(format!("schemas: {e}")))?;
                Ok(Response::Schemas(bounded))
            }
            Request::Handovers { db, from_epoch } => {
                // The refusal where there is no such database.
                self.engine.view(db)?;
                let mut handovers = self.log.handovers(db, from_epoch);
                handovers.truncate(HANDOVERS_MAX);
                Ok(Response::Handovers(handovers.try_into().expect("cut to the limit")))
            }
            Request::Introduce { db, peers } => {
                self.engine.view(db)?;
                self.log.introduce(db, addresses(&peers));
                Ok(Response::Noted)
            }
            Request::Cluster { db } => {
                let status = self.log.cluster(db).ok_or_else(|| not_ordered(SubmitError::absent(&self.engine, db)))?;
                Ok(Response::Cluster(Box::new(status)))
            }
            Request::Follow { db, epoch, members, peers } => {
                self.keeps(db).map_err(Refusal::Operation)?;
                self.log.follow(db, epoch, members).map_err(|e| Refusal::Operation(e.to_string()))?;
                self.log.introduce(db, addresses(&peers));
                Ok(Response::Noted)
            }
            Request::Lease { db, table } => {
                let (lease, now_ms) = self.certified(db)?.0.lease(table);
                Ok(Response::Lease { lease, now_ms })
            }
            _ => Err(Refusal::Malformed("a request that this version does not know".to_owned())),
        }
    }

    fn status(&self) -> Status {
        let shape = self.prover.shape();
        let databases = self.engine.databases().into_iter().filter_map(|db| self.database_status(db));
        let databases: Vec<_> = databases.take(STATUS_DATABASES_MAX).collect();
        Status {
            member: self.key.member(),
            software: crate::SOFTWARE.as_bytes().to_vec().try_into().expect("the name is short"),
            databases: databases.try_into().expect("cut to the limit"),
            storage_shape: [shape.samples, shape.holdings_levels, shape.stored_levels, shape.tree_levels],
        }
    }

    fn database_status(&self, db: DatabaseId) -> Option<DatabaseStatus> {
        let (certificate, height) = (self.log.latest(db)?, self.engine.head(db)?.height);
        let summary = self.engine.view(db).ok()?.summary();
        Some(DatabaseStatus {
            db,
            owner: summary.owner,
            members: summary.members,
            // What `members` are the committee of: the block after the last one.
            epoch: epoch_of(Height(height.0 + 1)),
            height,
            peers: self.log.peers(db),
            certificate,
            projections: summary.projections,
            stored_cells: summary.stored_cells,
            segments: summary.segments,
            lost_pages: summary.lost_pages,
        })
    }

    /// Bytes of cells that are stored, or announced by uploads.
    fn used_bytes(&self) -> u64 {
        let databases = self.engine.databases();
        let stored = databases.iter().filter_map(|db| Some(self.engine.view(*db).ok()?.summary().stored_cells));
        stored.sum::<u64>().saturating_mul(CELL_BYTES).saturating_add(self.engine.upload_bytes())
    }

    fn within_quota(&self, more: u64) -> Result<(), String> {
        let (used, quota) = (self.used_bytes(), self.store.quota_bytes);
        metrics::gauge!("fluence_store_used_bytes").set(used as f64);
        if used.saturating_add(more) > quota {
            return Err(format!("{more} bytes more than the {used} kept here would be above the quota of {quota}"));
        }
        Ok(())
    }

    fn upload_begin(&self, db: DatabaseId, segment: &SegmentPreimage) -> Result<Response, Refusal> {
        let _one = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = self.within_quota(segment.cells.saturating_mul(CELL_BYTES)) {
            // What is here already, or was announced before, is counted already.
            let root = segment_root(segment);
            let stored = self.engine.view(db)?.header(root).is_ok();
            let announced = matches!(self.engine.append_upload(root, u64::MAX, &[]), Err(UploadError::Offset { .. }));
            if !stored && !announced {
                return Err(Refusal::Upload(why));
            }
        }
        let have = self.engine.begin_upload(db, segment).map_err(upload)?;
        Ok(Response::Upload { have })
    }

    fn upload_end(&self, segment: SegmentRoot) -> Result<Response, Refusal> {
        let started = Instant::now();
        let checked = self.engine.finish_upload(segment).map_err(upload)?;
        metrics::histogram!("fluence_upload_check_seconds").record(started.elapsed().as_secs_f64());
        Ok(Response::UploadEnd(sign_receipt(checked.receipt(self.key.id()), &self.key)))
    }

    /// What reads are answered from: one state, and the certificate of its root.
    fn certified(&self, db: DatabaseId) -> Result<(View<'_>, Certificate), OpenRefusal> {
        certified(&self.engine, self.log.as_ref(), db)
    }

    fn open(&self, request: &OpenRequest) -> Result<Response, Refusal> {
        let (view, certificate) = self.certified(request.db)?;
        let (opening, segments) = view.open_cells(request)?;
        let segments = segments.try_into().expect("as many as there are live segments");
        Ok(Response::Open(Box::new(Answer { snapshot: Snapshot { certificate, opening }, segments })))
    }

    async fn submit(self: &Arc<Self>, op: SignedOp) -> Result<Response, Refusal> {
        let service = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || {
            let op = verify_op(op).map_err(|e| Refusal::Operation(format!("{BAD_SIGNATURE}{e}")))?;
            service.admit(&op.unsigned().op, op.unsigned().db)?;
            Ok::<_, Refusal>(op)
        });
        let op = checked.await.map_err(|e| OpenRefusal::Internal(e.to_string()))??;
        let (receipt, certificate) = self.log.submit(op).await.map_err(not_ordered)?;
        Ok(Response::Submit { receipt, certificate })
    }

    /// Whether the configuration lets a database in.
    fn keeps(&self, db: DatabaseId) -> Result<(), String> {
        if !self.store.databases.is_empty() && !self.store.databases.contains(&db) {
            return Err(format!("this node was not configured to keep database {db}"));
        }
        let here = self.engine.databases();
        if !here.contains(&db) && here.len() >= self.store.databases_max as usize {
            return Err(format!("this node keeps {} databases, its limit", here.len()));
        }
        Ok(())
    }

    /// What the configuration lets in.
    fn admit(&self, op: &Op, db: DatabaseId) -> Result<(), Refusal> {
        match op {
            Op::CreateDatabase { .. } => self.keeps(db).map_err(Refusal::Operation),
            Op::Commit { changes, .. } => {
                let inline = changes.iter().flat_map(|c| c.append.iter()).filter_map(|s| match &s.delivery {
                    Delivery::Inline(bytes) => Some(bytes.len() as u64),
                    _ => None,
                });
                match inline.sum::<u64>() {
                    0 => Ok(()),
                    more => self.within_quota(more).map_err(Refusal::Operation),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Addresses as text; what is no text is no address.
fn addresses(peers: &[(NodeId, Addresses)]) -> Vec<(NodeId, Vec<String>)> {
    let text = |a: &fluence_types::codec::Bounded<u8, 256>| String::from_utf8(a.to_vec()).ok();
    peers.iter().map(|(node, list)| (*node, list.iter().filter_map(text).collect())).collect()
}

/// How refusals of unsigned operations begin.
const BAD_SIGNATURE: &str = "the signature does not verify: ";

fn not_ordered(e: SubmitError) -> Refusal {
    match e {
        SubmitError::UnknownDatabase(db) => Refusal::Open(OpenRefusal::UnknownDatabase(db)),
        SubmitError::Refused(why) => Refusal::Operation(why),
        SubmitError::Busy(_) | SubmitError::Away(_) => Refusal::Busy(e.to_string()),
        SubmitError::Stopped(why) => Refusal::Open(OpenRefusal::Internal(why)),
    }
}

fn upload(e: UploadError) -> Refusal {
    match e {
        UploadError::UnknownDatabase(db) => Refusal::Open(OpenRefusal::UnknownDatabase(db)),
        UploadError::Store(e) => {
            tracing::error!(error = %e, "the store failed");
            Refusal::Open(OpenRefusal::Internal("the store failed".to_owned()))
        }
        other => Refusal::Upload(other.to_string()),
    }
}

fn unprovable(e: ProveError) -> Refusal {
    match e {
        ProveError::Witness(WitnessError::Open(e)) => Refusal::Open(e),
        ProveError::Busy => Refusal::Busy(e.to_string()),
        other => Refusal::Unprovable(other.to_string()),
    }
}
