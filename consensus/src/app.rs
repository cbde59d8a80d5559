//! The application under agreement: what to propose, and when a proposal is right.
//!
//! Propose  at once where operations wait, or where the head's root is not carried yet; else after the idle time, so that a quiet cluster
//!          costs little.
//! Verify   everything that can be checked before a vote: form, time, signatures, inline segments, the executed root and the next
//!          committee. Where we have not executed that far yet, the answer waits: it is no refusal.

use crate::block::{BlockDigest, ClusterBlock};
use crate::mempool::Mempool;
use crate::planted::Planted;
use crate::replica::Timing;
use crate::scheme::{Identity, Scheme};
use crate::sync::Snapshots;
use commonware_consensus::Application;
use commonware_consensus::marshal::ancestry::Ancestry;
use commonware_consensus::simplex::types::Context;
use commonware_cryptography::Digested;
use commonware_runtime::Clock;
use fluence_crypto::sign::{op_id, ops_hash};
use fluence_engine::{Engine, Head, VerifiedBlock};
use fluence_types::block::{Block, BlockHeader, epoch_of};
use fluence_types::limits::{BLOCK_BYTES_MAX, BLOCK_OPS_MAX, EXECUTION_LAG_MAX};
use fluence_types::{BlockHash, DatabaseId, Height, OpId};
use futures::StreamExt;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// Bytes left in a block for its header and lengths.
const BLOCK_ROOM: usize = 4 << 10;
/// Blocks checked whole that are remembered until they are executed.
const CHECKED_MAX: usize = 16;
/// How far a proposer's clock may be ahead of ours.
const CLOCK_AHEAD: Duration = Duration::from_secs(60);

/// What the parts of a replica share.
pub(crate) struct Shared {
    pub(crate) db: DatabaseId,
    pub(crate) engine: Arc<Engine>,
    pub(crate) mempool: Mempool,
    /// The last block executed.
    pub(crate) head: watch::Sender<Height>,
    pub(crate) timing: Timing,
    /// The epoch at hand is a quiet one.
    pub(crate) quiet: AtomicBool,
    pub(crate) planted: Planted,
    /// Told when segments are missing.
    pub(crate) missing: Notify,
    pub(crate) snapshots: Arc<Snapshots>,
    checked: Mutex<VecDeque<(BlockHash, Arc<VerifiedBlock>)>>,
}

impl Shared {
    pub(crate) fn new(db: DatabaseId, engine: Arc<Engine>, mempool: Mempool, timing: Timing, planted: Planted) -> Self {
        let head = engine.head(db).map_or(Height(0), |h| h.height);
        let (missing, snapshots, checked) = (Notify::new(), Arc::default(), Mutex::default());
        let (head, quiet) = (watch::Sender::new(head), AtomicBool::new(false));
        Self { db, engine, mempool, head, timing, quiet, planted, missing, snapshots, checked }
    }

    /// How long a leader with nothing to propose waits. Where somebody is to come or to go, others wait for blocks.
    fn idle(&self) -> Duration {
        let changing = || self.engine.view(self.db).is_ok_and(|view| view.wish().is_some());
        if self.quiet.load(Ordering::Relaxed) && !changing() { self.timing.quiet } else { self.timing.idle }
    }

    pub(crate) fn head(&self) -> Head {
        self.engine.head(self.db).expect("a replica's database was created before it started")
    }

    /// Checks a block's signatures and inline segments, once.
    pub(crate) fn check(&self, block: &ClusterBlock) -> Result<Arc<VerifiedBlock>, String> {
        let lock = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, checked)) = lock().iter().find(|(hash, _)| *hash == block.hash()) {
            return Ok(Arc::clone(checked));
        }
        let checked = Arc::new(VerifiedBlock::verify(block.block().clone()).map_err(|e| e.to_string())?);
        let mut known = lock();
        if known.len() == CHECKED_MAX {
            known.pop_front();
        }
        known.push_back((block.hash(), Arc::clone(&checked)));
        Ok(checked)
    }

    fn next_sequence(&self, view: &fluence_engine::View<'_>, writer: fluence_types::Address) -> u64 {
        view.writer(writer).next_sequence
    }
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// One replica's side of the agreement.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) shared: Arc<Shared>,
}

/// Blocks between the executed head and the proposal: their heights and operations.
struct Flying(Vec<(Height, Vec<OpId>)>);

impl Flying {
    fn above(&self, head: Height) -> BTreeSet<OpId> {
        self.0.iter().filter(|(height, _)| *height > head).flat_map(|(_, ops)| ops.iter().copied()).collect()
    }
}

impl App {
    /// The proposal on `parent`, if there is a reason for one now.
    fn build(
        &self,
        parent: &BlockHeader,
        parent_hash: BlockHash,
        flying: &Flying,
        now: SystemTime,
        idle: bool,
    ) -> Option<Block> {
        let shared = &self.shared;
        let head = shared.head();
        let height = Height(parent.height.0 + 1);
        if head.height > parent.height || head.height.0 + EXECUTION_LAG_MAX < height.0 {
            return None;
        }
        let view = shared.engine.view(shared.db).ok()?;
        let flying = flying.above(head.height);
        let next = |writer| shared.next_sequence(&view, writer);
        let ops = shared.mempool.select(&flying, next, BLOCK_OPS_MAX, BLOCK_BYTES_MAX - BLOCK_ROOM);
        let news = head.height == parent.height && head.root != parent.executed_root;
        let change = view.next_members() != view.members();
        if ops.is_empty() && !news && !change && !idle {
            return None;
        }
        let header = BlockHeader {
            db: shared.db,
            consensus_epoch: epoch_of(height),
            height,
            parent: parent_hash,
            timestamp_ms: millis(shared.planted.clock(now)).max(parent.timestamp_ms),
            ops_hash: ops_hash(&ops),
            executed_height: head.height,
            executed_root: head.root,
            next_members_hash: head.next_members_hash,
        };
        if shared.planted.drains_mempool() {
            shared.mempool.executed(ops.iter().map(|op| op_id(&op.unsigned)), |_| 0);
        }
        Some(shared.planted.propose(Block { header, ops: ops.try_into().expect("select keeps to the limit") }))
    }

    /// Why a block is wrong, for ever; `None` if it is right.
    async fn wrong<E: Clock>(&self, clock: &E, block: &ClusterBlock, parent: &BlockHeader) -> Option<String> {
        let shared = &self.shared;
        let header = block.header();
        if shared.planted.is_credulous() {
            return None;
        }
        if header.db != shared.db {
            return Some(format!("it is of database {}", header.db));
        }
        if block.size() > BLOCK_BYTES_MAX {
            return Some(format!("it has {} bytes, the limit is {BLOCK_BYTES_MAX}", block.size()));
        }
        if header.consensus_epoch != epoch_of(header.height) {
            return Some(format!("it says epoch {}", header.consensus_epoch));
        }
        if header.timestamp_ms < parent.timestamp_ms {
            return Some("its time is before its parent's".to_owned());
        }
        if header.executed_height >= header.height || header.executed_height.0 + EXECUTION_LAG_MAX < header.height.0 {
            return Some(format!("it carries the root of block {}", header.executed_height));
        }
        if header.executed_height < parent.executed_height {
            return Some("it carries an older root than its parent".to_owned());
        }
        // A clock that runs ahead is not wrong for ever, it is early.
        let now = shared.planted.clock(clock.current());
        let ahead = Duration::from_millis(header.timestamp_ms.saturating_sub(millis(now)));
        if let Some(early) = ahead.checked_sub(CLOCK_AHEAD)
            && header.timestamp_ms > parent.timestamp_ms
        {
            clock.sleep(early).await;
        }
        if let Err(why) = shared.check(block) {
            return Some(why);
        }
        if shared.planted.trusts_roots() {
            return None;
        }
        let mut head = shared.head.subscribe();
        if head.wait_for(|h| *h >= header.executed_height).await.is_err() {
            return std::future::pending().await;
        }
        match shared.engine.block_record(shared.db, header.executed_height) {
            Ok(Some(ours)) if ours.root != header.executed_root => Some(format!(
                "it says root {} after block {}, ours is {}",
                header.executed_root, header.executed_height, ours.root
            )),
            Ok(Some(ours)) if ours.next_members_hash != header.next_members_hash => {
                Some("it names another next committee than ours".to_owned())
            }
            Ok(Some(_)) => None,
            // Our own disk is no reason against a block.
            _ => std::future::pending().await,
        }
    }
}

impl<E: Clock + 'static> Application<E> for App {
    type SigningScheme = Scheme;
    type Context = Context<BlockDigest, Identity>;
    type Block = ClusterBlock;
    type Input = ();

    async fn propose(
        &mut self,
        (clock, _): (E, Self::Context),
        mut ancestry: impl Ancestry<ClusterBlock>,
        (): (),
    ) -> Option<Digested<ClusterBlock>> {
        let parent = ancestry.next().await?;
        let (header, hash) = (parent.inner().header().clone(), parent.inner().hash());
        let mut head = self.shared.head.subscribe();
        let mut mempool = self.shared.mempool.subscribe();
        let mut flying = Flying(Vec::new());
        let executed = *head.borrow_and_update();
        let mut block = Some(parent);
        while let Some(b) = block.filter(|b| b.inner().header().height > executed) {
            let ops = b.inner().block().ops.iter().map(|op| op_id(&op.unsigned)).collect();
            flying.0.push((b.inner().header().height, ops));
            block = ancestry.next().await;
        }
        let idle = self.shared.idle();
        let until = clock.current() + idle;
        #[allow(clippy::let_unit_value, reason = "nobody hears of it but the simulator")]
        let _waits = self.shared.planted.waits();
        loop {
            head.borrow_and_update();
            mempool.borrow_and_update();
            let now = clock.current();
            if let Some(block) = self.build(&header, hash, &flying, now, now >= until) {
                let block = ClusterBlock::new(block);
                let digest = crate::block::digest(&block.hash());
                return Some(Digested::precomputed(block, digest));
            }
            let wake = if now >= until { now + idle } else { until };
            let timer = std::pin::pin!(clock.sleep_until(wake));
            let (executed, added) = (std::pin::pin!(head.changed()), std::pin::pin!(mempool.changed()));
            futures::future::select(futures::future::select(executed, added), timer).await;
        }
    }

    async fn verify(
        &mut self,
        (clock, context): (E, Self::Context),
        mut ancestry: impl Ancestry<ClusterBlock>,
    ) -> bool {
        let Some(block) = ancestry.next().await else { return false };
        let Some(parent) = ancestry.next().await else { return false };
        match self.wrong(&clock, block.inner(), parent.inner().header()).await {
            None => true,
            Some(why) => {
                let block = block.inner().header().height;
                tracing::warn!(db = %self.shared.db, %block, leader = %context.leader, %why, "a proposal is wrong");
                false
            }
        }
    }
}
