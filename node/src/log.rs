//! The log of a database's cluster, as the service sees it: what orders operations, executes them, and certifies roots.
//!
//! Seam    [`Log`]; `cluster::ClusterLog` implements it, for clusters of one as well.
//! Rule    an answer to `submit` means: the block is executed and on disk, and its root is certified by a later block's certificate.
//! Reads   are answered at the latest root that is certified, [`certified`]: never one root's cells under another's certificate.
//! Source  DESIGN section 7

use fluence_crypto::sign::VerifiedOp;
use fluence_engine::{Engine, View};
use fluence_types::answer::OpenRefusal;
use fluence_types::block::{Certificate, Handover, Members};
use fluence_types::op::OpReceipt;
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::message::ClusterStatus;

/// Why an operation was not ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The database is not kept here, and the operation does not create it.
    #[error("database {0} is not kept here")]
    UnknownDatabase(DatabaseId),
    /// The database was behind and its replica does not run: a snapshot is being fetched.
    #[error("database {0} is being brought forward by a snapshot; ask another member, or later")]
    Away(DatabaseId),
    /// The operation can never be ordered here.
    #[error("{0}")]
    Refused(String),
    /// Too many are waiting.
    #[error("{0} operations are waiting")]
    Busy(usize),
    /// The log has stopped, or its disk failed.
    #[error("the log has stopped: {0}")]
    Stopped(String),
}

impl SubmitError {
    /// Why a database has no replica that runs.
    pub(crate) fn absent(engine: &Engine, db: DatabaseId) -> Self {
        if engine.checkpoint(db).is_some() { Self::Away(db) } else { Self::UnknownDatabase(db) }
    }
}

/// Orders operations and certifies roots.
pub trait Log: Send + Sync + 'static {
    /// Orders an operation; returns when it is in an executed block, with a certified root at or after it. Given twice, an operation is
    /// done once and answered alike.
    fn submit(&self, op: VerifiedOp) -> impl Future<Output = Result<(OpReceipt, Certificate), SubmitError>> + Send;

    /// The latest certificate of a database; `None` where it is not kept here, or nothing of it is certified yet.
    fn latest(&self, db: DatabaseId) -> Option<Certificate>;

    /// How the committee changed since the one of `from_epoch`, oldest first, at most as many as one answer holds.
    fn handovers(&self, db: DatabaseId, from_epoch: u64) -> Vec<Handover> {
        let _ = (db, from_epoch);
        Vec::new()
    }

    /// Other members that are heard now.
    fn peers(&self, db: DatabaseId) -> u32 {
        let _ = db;
        0
    }

    /// How a database's cluster stands.
    fn cluster(&self, db: DatabaseId) -> Option<ClusterStatus> {
        let _ = db;
        None
    }

    /// Takes note of where members are reached.
    fn introduce(&self, db: DatabaseId, peers: Vec<(NodeId, Vec<String>)>) {
        let _ = (db, peers);
    }

    /// Begins to follow a database whose committee is `members` since `epoch`, to take a seat in it.
    ///
    /// # Errors
    /// [`SubmitError::Refused`] where this log cannot.
    fn follow(&self, db: DatabaseId, epoch: u64, members: Members) -> Result<(), SubmitError> {
        let _ = (db, epoch, members);
        Err(SubmitError::Refused("this node follows no databases".to_owned()))
    }
}

/// Times that a reader looks for a state whose root is certified.
const LOOKS: usize = 40;
/// How long it waits between two looks.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// The newest state of a database whose root is certified, and the certificate. Blocking: for threads that may wait.
///
/// # Errors
/// [`OpenRefusal`] where the database is not kept here, or nothing of it is certified yet.
pub fn certified<'e>(
    engine: &'e Engine,
    log: &(impl Log + ?Sized),
    db: DatabaseId,
) -> Result<(View<'e>, Certificate), OpenRefusal> {
    for _ in 0..LOOKS {
        // Also the refusal where there is no such database.
        let head = engine.view(db)?;
        if let Some(certificate) = log.latest(db) {
            let (executed, root) = (certificate.header.executed_height, certificate.header.executed_root);
            // After a restart only the head is in memory; where it is an empty block, it has the root of the one before.
            let view = engine.view_at(db, executed).into_iter().chain([head]).find(|v| v.checkpoint().root == root);
            if let Some(view) = view {
                return Ok((view, certificate));
            }
        }
        // Just started: the first certificate, or one of a root that is in memory, comes with the next block.
        std::thread::sleep(PAUSE);
    }
    Err(OpenRefusal::Internal("no root of this database is certified yet; try again".to_owned()))
}
