//! The databases of this node, each a cluster: replicas hosted on one runtime, over the node's one swarm.
//!
//! ```text
//! service -> ClusterLog -> replica (consensus) -> engine          replica <-> net::cluster <-> members
//!                 |            |
//!               notes       events: certificates, handovers, missing segments, evidence, divergence
//!                 └──────────────── anchoring: poster (certificates), accuser (evidence) -> chain
//! ```
//! Rule     what a replica needs to start again is noted beside the database before its first block is executed. A replica whose root
//!          differs from a quorum's stops the node. Evidence against a member is kept as a file.
//! Source   DESIGN section 7; `docs/protocol/cluster.md`

pub mod accuser;
pub mod anchoring;
pub mod evidence;
mod host;
mod notes;
pub mod poster;
pub(crate) mod prover;

pub use host::ClusterConfig;

use crate::log::{Log, SubmitError};
use crate::net::NetHandle;
use fluence_consensus::{Replica, SubmitError as ReplicaError};
use fluence_crypto::sign::{NodeKey, VerifiedOp, ops_hash};
use fluence_crypto::vote;
use fluence_engine::{ApplyError, Engine, StoreError, VerifiedBlock};
use fluence_types::block::{Block, BlockHeader, Certificate, Handover, Members, position};
use fluence_types::limits::HANDOVERS_MAX;
use fluence_types::op::{Op, OpReceipt};
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, NodeId};
use fluence_wire::message::{ClusterStatus, MemberStatus};
use host::{Command, Hosted};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Bytes of a cell.
const CELL_BYTES: u64 = 256;
/// A member that was not heard for so long is not counted as present.
const PRESENT: Duration = Duration::from_secs(30);

type Replicas = Arc<RwLock<BTreeMap<DatabaseId, Arc<Hosted>>>>;

/// The log of every database kept here.
pub struct ClusterLog {
    engine: Arc<Engine>,
    key: Arc<NodeKey>,
    hosted: Replicas,
    commands: mpsc::UnboundedSender<Command>,
    /// Databases are created one after the other.
    creating: tokio::sync::Mutex<()>,
    databases_max: usize,
}

impl ClusterLog {
    /// Starts the runtime of the replicas. It ends when the log is dropped; `failed` is
    /// cancelled where a replica cannot go on, and then the node must stop.
    ///
    /// # Errors
    /// The system's, where it cannot start a thread.
    pub fn start(
        engine: Arc<Engine>,
        key: Arc<NodeKey>,
        net: NetHandle,
        config: ClusterConfig,
        prover: Arc<dyn fluence_consensus::Prover>,
        failed: CancellationToken,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let hosted = Replicas::default();
        let (commands, inbox) = mpsc::unbounded_channel();
        let databases_max = config.databases_max;
        let host = host::Host {
            engine: Arc::clone(&engine),
            key: Arc::clone(&key),
            net,
            config,
            prover,
            hosted: Arc::clone(&hosted),
            following: Arc::default(),
            failed,
        };
        let thread = std::thread::Builder::new().name("fluence-cluster".to_owned()).spawn(move || host.run(inbox))?;
        Ok((Self { engine, key, hosted, commands, creating: tokio::sync::Mutex::default(), databases_max }, thread))
    }

    /// Starts a replica for every database that is here.
    ///
    /// # Errors
    /// Why one does not start.
    pub async fn resume(&self) -> Result<(), String> {
        for db in self.engine.databases() {
            self.host(db).await?;
        }
        Ok(())
    }

    async fn host(&self, db: DatabaseId) -> Result<(), String> {
        let ended = |_| "the cluster runtime has ended".to_owned();
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Host { db, reply }).map_err(|_| ended(()))?;
        answer.await.map_err(|_| ended(()))?
    }

    fn hosted(&self, db: DatabaseId) -> Option<Arc<Hosted>> {
        self.hosted.read().unwrap_or_else(PoisonError::into_inner).get(&db).cloned()
    }

    fn replica(&self, db: DatabaseId) -> Option<Arc<Replica>> {
        self.hosted(db).map(|h| Arc::clone(&h.replica))
    }

    /// Executes the block that creates a database, and starts its replica.
    async fn create(&self, op: VerifiedOp) -> Result<(OpReceipt, Certificate), SubmitError> {
        let one = self.creating.lock().await;
        let (db, id) = (op.unsigned().db, op.id());
        let stopped = |why: &dyn std::fmt::Display| SubmitError::Stopped(why.to_string());
        if self.engine.checkpoint(db).is_none() {
            // Looked at before, but others may have been created since.
            let here = self.engine.databases().len();
            if here >= self.databases_max {
                return Err(SubmitError::Refused(format!("this node keeps {here} databases, its limit")));
            }
            let block = genesis(op);
            let engine = Arc::clone(&self.engine);
            let made = tokio::task::spawn_blocking(move || {
                let checked = VerifiedBlock::verify(block.clone())?;
                notes::set_origin(&engine, db, &fluence_consensus::Origin::Genesis(Box::new(block)))?;
                engine.apply(&checked)
            });
            match made.await.map_err(|e| stopped(&e))? {
                Ok(_) => {}
                Err(ApplyError::Genesis { why, .. }) => return Err(SubmitError::Refused(why.to_string())),
                Err(e) => return Err(stopped(&e)),
            }
        }
        let receipt = self.engine.receipt(db, id).map_err(|e| stopped(&e))?;
        let refused = || SubmitError::Refused(format!("database {db} was created by another operation"));
        let receipt = receipt.ok_or_else(refused)?;
        if self.hosted(db).is_none() {
            self.host(db).await.map_err(|e| stopped(&e))?;
        }
        // A database whose other members never come must not keep the next one from being created.
        drop(one);
        let replica = self.replica(db).ok_or(SubmitError::UnknownDatabase(db))?;
        let certificate = replica.certified(Height(0)).await.map_err(|e| stopped(&e))?;
        Ok((receipt, certificate))
    }

    fn status(&self, db: DatabaseId) -> Option<ClusterStatus> {
        let hosted = self.hosted(db)?;
        let view = self.engine.view(db).ok()?;
        let (status, missing) = (hosted.replica.status(), hosted.replica.missing());
        let now = SystemTime::now();
        let heard: BTreeMap<NodeId, SystemTime> = hosted.replica.heard().into_iter().collect();
        let signed: BTreeMap<NodeId, Height> = status.signed.iter().copied().collect();
        let members = view.members().iter().map(|m| MemberStatus {
            node: m.node,
            heard_ms_ago: heard.get(&m.node).map(|at| millis(now.duration_since(*at).unwrap_or_default())),
            signed: signed.get(&m.node).copied(),
            connected: m.node == self.key.id() || hosted.present().contains(&m.node),
        });
        let members = members.collect::<Vec<_>>();
        let next = view.next_members().iter().map(|m| m.node).collect::<Vec<_>>();
        let standby = view.standby().iter().map(|m| m.node).collect::<Vec<_>>();
        Some(ClusterStatus {
            db,
            epoch: status.epoch,
            view: status.view,
            height: status.height,
            finalized: status.finalized,
            root: view.checkpoint().root,
            voting: status.voting,
            waiting: status.waiting as u64,
            missing_segments: missing.len() as u64,
            missing_bytes: missing.iter().map(|m| (m.preimage.cells * CELL_BYTES).saturating_sub(m.have)).sum(),
            members: members.try_into().ok()?,
            next: next.try_into().ok()?,
            wish: view.wish().cloned(),
            standby: standby.try_into().ok()?,
            certificate: hosted.replica.latest(),
        })
    }
}

impl poster::Shows for ClusterLog {
    fn databases(&self) -> Vec<DatabaseId> {
        self.hosted.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn showing(&self, db: DatabaseId) -> Option<poster::Showing> {
        let view = self.engine.view(db).ok()?;
        let handovers = fluence_consensus::handovers(&self.engine, db, 0, usize::MAX);
        let genesis = match notes::origin(&self.engine, db) {
            Ok(Some(fluence_consensus::Origin::Genesis(block))) => {
                block.ops.first().and_then(|op| match &op.unsigned.op {
                    Op::CreateDatabase { members } => Some(members.clone()),
                    _ => None,
                })
            }
            _ => None,
        };
        let mut committees: Vec<Members> = genesis.into_iter().collect();
        committees.extend(handovers.iter().map(|h| h.members.clone()));
        committees.push(view.members().clone());
        Some(poster::Showing {
            owner: view.owner(),
            members: view.members().clone(),
            latest: self.latest(db),
            handovers: handovers.into_iter().map(|h| h.certificate).collect(),
            committees,
        })
    }
}

/// Forgets where a database's members are reached.
///
/// # Errors
/// [`StoreError`] where the note cannot be written.
pub(crate) fn forget_members(engine: &Engine, db: DatabaseId) -> Result<(), StoreError> {
    notes::set_addresses(engine, db, &BTreeMap::new())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The first block of a database: every member makes the same of the same operation.
fn genesis(op: VerifiedOp) -> Block {
    let db = op.unsigned().db;
    let ops = [op.into_signed()];
    let header = BlockHeader {
        db,
        consensus_epoch: 0,
        height: Height(0),
        parent: BlockHash::default(),
        timestamp_ms: 0,
        ops_hash: ops_hash(&ops),
        executed_height: Height(0),
        executed_root: DbRoot::default(),
        next_members_hash: [0; 32],
    };
    Block { header, ops: Vec::from(ops).try_into().expect("one operation") }
}

impl Log for ClusterLog {
    async fn submit(&self, op: VerifiedOp) -> Result<(OpReceipt, Certificate), SubmitError> {
        let db = op.unsigned().db;
        if let Op::CreateDatabase { members } = &op.unsigned().op {
            if position(members, &self.key.id()).is_none() {
                let why = "this node keeps only databases that name it as a member".to_owned();
                return Err(SubmitError::Refused(why));
            }
            return self.create(op).await;
        }
        let replica = self.replica(db).ok_or_else(|| SubmitError::absent(&self.engine, db))?;
        replica.submit(op).await.map_err(|e| match e {
            ReplicaError::Refused(why) => SubmitError::Refused(why),
            ReplicaError::Busy(_) | ReplicaError::Expired => SubmitError::Busy(replica.status().waiting),
            other => SubmitError::Stopped(other.to_string()),
        })
    }

    fn latest(&self, db: DatabaseId) -> Option<Certificate> {
        self.replica(db)?.latest()
    }

    fn handovers(&self, db: DatabaseId, from_epoch: u64) -> Vec<Handover> {
        fluence_consensus::handovers(&self.engine, db, from_epoch, HANDOVERS_MAX)
    }

    fn cluster(&self, db: DatabaseId) -> Option<ClusterStatus> {
        self.status(db)
    }

    fn introduce(&self, db: DatabaseId, peers: Vec<(NodeId, Vec<String>)>) {
        let _ = self.commands.send(Command::Introduce { db, peers });
    }

    fn follow(&self, db: DatabaseId, epoch: u64, members: Members) -> Result<(), SubmitError> {
        if self.engine.checkpoint(db).is_some() {
            return Ok(());
        }
        vote::verify_members(&members).map_err(|e| SubmitError::Refused(e.to_string()))?;
        if epoch > host::EPOCH_MAX {
            return Err(SubmitError::Refused(format!("consensus epoch {epoch}, the limit is {}", host::EPOCH_MAX)));
        }
        let follow = Command::Follow { db, epoch, members };
        self.commands.send(follow).map_err(|_| SubmitError::Stopped("the cluster runtime has ended".to_owned()))
    }

    fn peers(&self, db: DatabaseId) -> u32 {
        let now = SystemTime::now();
        let heard = self.replica(db).map(|r| r.heard()).unwrap_or_default();
        let present = |at: &SystemTime| now.duration_since(*at).unwrap_or_default() < PRESENT;
        heard.iter().filter(|(node, at)| *node != self.key.id() && present(at)).count() as u32
    }
}
