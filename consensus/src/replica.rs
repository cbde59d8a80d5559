//! One replica of one cluster: its parts, wired.

use crate::app::{App, Shared};
use crate::block::ClusterBlock;
use crate::committees::Committees;
use crate::epochs::{Epochs, Heard, Running};
use crate::executor::{Desk, Executor, Inbox, Marshal};
use crate::fetch::{self, Fetch};
use crate::fill::Filler;
use crate::gossip;
use crate::history::History;
use crate::mempool::{Limits, Mempool, MempoolError};
use crate::planted::Planted;
use crate::prover::Prover;
use crate::scheme::{Identity, Scheme, SchemeError, committee_scheme, finalization, identity};
use crate::seats::Seats;
use crate::status::{Event, Status};
use crate::sync;
use commonware_broadcast::buffered;
use commonware_consensus::marshal::core::Actor as MarshalActor;
use commonware_consensus::marshal::resolver::p2p as resolver;
use commonware_consensus::marshal::standard::Inline;
use commonware_consensus::marshal::{self, Start};
use commonware_consensus::types::{FixedEpocher, ViewDelta};
use commonware_cryptography::certificate::Verifier;
use commonware_p2p::{Blocker, Manager, Receiver, Sender, TrackedPeers};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_runtime::{Clock, Handle, Metrics, Spawner, Storage};
use commonware_storage::archive::prunable;
use commonware_storage::translator::EightCap;
use commonware_utils::NonZeroDuration;
use commonware_utils::ordered::Set;
use fluence_crypto::sign::{NodeKey, VerifiedOp};
use fluence_engine::{Engine, Missing};
use fluence_types::block::{Block, Certificate, epoch_of, position};
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::op::{ClusterChange, Op, OpReceipt, OpRefusal};
use fluence_types::{DatabaseId, Height, NodeId, OpId};
use rand_core_next::CryptoRng;
use std::num::{NonZeroU16, NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};

/// What a replica runs on.
pub trait Runtime: Clock + CryptoRng + Spawner + Storage + Metrics + Send + Sync + 'static {}
impl<E: Clock + CryptoRng + Spawner + Storage + Metrics + Send + Sync + 'static> Runtime for E {}

/// Both ends of a channel.
pub type Link<S, R> = (S, R);

/// The channels of a cluster, each for all of its members.
pub struct Channels<S, R> {
    /// Votes; small, first.
    pub vote: Link<S, R>,
    /// Certificates.
    pub certificate: Link<S, R>,
    /// Certificates that were missed.
    pub resolver: Link<S, R>,
    /// Proposed blocks.
    pub broadcast: Link<S, R>,
    /// Finalized blocks that were missed.
    pub backfill: Link<S, R>,
    /// Operations.
    pub mempool: Link<S, R>,
    /// Cells, snapshots and seats.
    pub fetch: Link<S, R>,
}

/// Times of a replica. All members of a cluster should have the same.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a leader with nothing to propose waits.
    pub idle: Duration,
    /// The same in a quiet epoch: one after an epoch in which the root stayed as it was. Leaders may take longer there by the difference.
    pub quiet: Duration,
    /// How long a leader may take.
    pub leader: Duration,
    /// How long a view may take.
    pub certification: Duration,
    /// How often a vote to skip is repeated.
    pub retry: Duration,
    /// How long a member is not heard before its views are skipped at once.
    pub skip: Duration,
    /// How long a peer may take to answer.
    pub fetch: Duration,
    /// How often operations that wait are sent again.
    pub again: Duration,
    /// How long an operation may wait.
    pub expiry: Duration,
    /// How long a member is not heard before a standby may take its seat.
    pub missing: Duration,
}

impl Timing {
    /// Whether a cluster can run by these times.
    ///
    /// # Errors
    /// [`StartError::Timing`] naming the pair that cannot be.
    pub fn check(&self) -> Result<(), StartError> {
        let times = [
            ("idle", self.idle, "leader", self.leader),
            ("leader", self.leader, "certification", self.certification + Duration::from_nanos(1)),
            ("0", Duration::ZERO, "retry", self.retry),
            ("0", Duration::ZERO, "fetch", self.fetch),
            ("0", Duration::ZERO, "again", self.again),
        ];
        // A leader that waits for as long as it is waited for is given up each time, and nothing is ever agreed.
        let wrong = times.into_iter().find(|(_, less, _, more)| less >= more);
        wrong.map_or(Ok(()), |(what, less, than, more)| Err(StartError::Timing { what, less, than, more }))
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(1),
            quiet: Duration::from_secs(4),
            leader: Duration::from_secs(2),
            certification: Duration::from_secs(3),
            retry: Duration::from_secs(3),
            skip: Duration::from_secs(4),
            fetch: Duration::from_secs(1),
            again: Duration::from_secs(2),
            expiry: Duration::from_secs(120),
            missing: Duration::from_secs(600),
        }
    }
}

impl Timing {
    /// The times of an epoch. A leader that holds its proposal longer must not be taken for one that is gone.
    #[must_use]
    pub fn of_epoch(self, quiet: bool) -> Self {
        let more = if quiet { self.quiet.saturating_sub(self.idle) } else { Duration::ZERO };
        Self {
            leader: self.leader + more,
            certification: self.certification + more,
            retry: self.retry + more,
            skip: self.skip + more,
            ..self
        }
    }
}

/// Where a replica's log begins.
#[derive(Clone, Debug)]
pub enum Origin {
    /// At the block that created the database.
    Genesis(Box<Block>),
    /// At a finalized block, whose state was fetched from other members.
    Certificate(Box<Certificate>),
}

/// A replica's settings.
pub struct Config {
    /// The database.
    pub db: DatabaseId,
    /// The node's key.
    pub key: Arc<NodeKey>,
    /// Where its log begins. The engine has applied it already.
    pub origin: Origin,
    /// Times.
    pub timing: Timing,
    /// What may wait.
    pub limits: Limits,
    /// What is kept.
    pub history: History,
    /// Prefix of its files.
    pub partition: String,
    /// What shows that a newcomer has every cell.
    pub prover: Arc<dyn Prover>,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database is not in the engine.
    #[error("database {0} is not in the engine")]
    UnknownDatabase(DatabaseId),
    /// A committee that is none.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Times by which no cluster runs.
    #[error("{what} ({less:?}) must be below {than} ({more:?})")]
    Timing {
        /// Which time.
        what: &'static str,
        /// How long it is.
        less: Duration,
        /// Below which other.
        than: &'static str,
        /// How long that is.
        more: Duration,
    },
    /// Too little is kept.
    #[error("{blocks} blocks are to be kept, at least {} must be", History::BLOCKS_MIN)]
    History {
        /// Blocks to be kept.
        blocks: u64,
    },
    /// The files were begun with other sections.
    #[error("the files of this replica have {noted} blocks in a section, not {asked}")]
    Section {
        /// As the files were begun.
        noted: u64,
        /// As is asked now.
        asked: u64,
    },
    /// The engine's disk.
    #[error(transparent)]
    Store(#[from] fluence_engine::StoreError),
    /// A file of the replica cannot be opened.
    #[error("{what}: {why}")]
    Archive {
        /// Which.
        what: &'static str,
        /// What the library said.
        why: String,
    },
}

/// Why an operation was not ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It can never be ordered here.
    #[error("{0}")]
    Refused(String),
    /// Too much is waiting.
    #[error("busy: {0}")]
    Busy(String),
    /// It was not ordered in time: the cluster has no quorum, or the writer's chain has a gap.
    #[error("not ordered in time")]
    Expired,
    /// The replica has stopped.
    #[error("the replica has stopped")]
    Stopped,
}

/// A running replica. Dropping it stops nothing; see [`Replica::stop`].
pub struct Replica {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    running: Arc<Mutex<Running>>,
    heard: Heard,
    ours: mpsc::Sender<Arc<VerifiedOp>>,
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    handle: Mutex<Option<Handle<()>>>,
}

/// Views behind the last finalized one whose proposals are kept for others; as many epochs before this one, where it has fewer views.
const CACHED_VIEWS: u64 = 16;

fn nonzero(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("a constant above 0")
}

fn archive<C>(
    partition: &str,
    what: &str,
    cache: &CacheRef,
    section: NonZeroU64,
    codec_config: C,
) -> prunable::Config<EightCap, C> {
    prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{partition}-{what}-metadata"),
        key_partition: format!("{partition}-{what}-keys"),
        key_page_cache: cache.clone(),
        value_partition: format!("{partition}-{what}-values"),
        compression: None,
        codec_config,
        items_per_section: section,
        key_write_buffer: nonzero(16 << 10),
        value_write_buffer: nonzero(64 << 10),
        replay_buffer: nonzero(1 << 20),
    }
}

/// What a replica starts with.
pub struct Parts<E, S, R, M, B> {
    /// The runtime; the replica's tasks are its children.
    pub context: E,
    /// Where the database is.
    pub engine: Arc<Engine>,
    /// Settings.
    pub config: Config,
    /// Links to the other members.
    pub channels: Channels<S, R>,
    /// Told whom the cluster speaks with.
    pub manager: M,
    /// Told who misbehaves.
    pub blocker: B,
}

/// A replica that runs, and what it says of itself.
pub type Started = (Replica, mpsc::UnboundedReceiver<Event>);

impl<E, S, R, M, B> Parts<E, S, R, M, B>
where
    E: Runtime,
    S: Sender<PublicKey = Identity>,
    R: Receiver<PublicKey = Identity>,
    M: Manager<PublicKey = Identity>,
    B: Blocker<PublicKey = Identity>,
{
    /// Starts a replica.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Started, StartError> {
        self.start_with(Planted::default()).await
    }

    /// Starts a replica with something planted in it; see [`Planted`].
    ///
    /// # Errors
    /// [`StartError`].
    #[cfg(feature = "planted")]
    pub async fn start_planted(self, planted: Planted) -> Result<Started, StartError> {
        self.start_with(planted).await
    }

    async fn start_with(self, planted: Planted) -> Result<Started, StartError> {
        let Self { context, engine, config, channels, manager, blocker } = self;
        let Config { db, key, origin, timing, limits, history, partition, prover } = config;
        timing.check()?;
        let head = engine.head(db).ok_or(StartError::UnknownDatabase(db))?;
        history.check(&engine, db)?;
        let (me, key_id, seat_key) = (identity(&key.id())?, key.id(), Arc::clone(&key));
        let committees = Committees::default();
        // Those whose certificates may still be checked: the epoch of the head, and the one before.
        let now_epoch = epoch_of(Height(head.height.0 + 1));
        for epoch in now_epoch.saturating_sub(1)..=now_epoch {
            if let Some(members) = engine.committee(db, epoch)? {
                committees.register(epoch, committee_scheme(db, &members, None)?);
            }
        }
        let cache = CacheRef::new(NonZeroU16::new(4084).expect("not 0"), nonzero(256));
        let failed =
            |what| move |e: commonware_storage::archive::Error| StartError::Archive { what, why: e.to_string() };
        let codec = <Scheme as Verifier>::certificate_codec_config_unbounded();
        let finalizations = archive(&partition, "finalizations", &cache, history.section, codec);
        let finalizations = prunable::Archive::init(context.child("finalizations"), finalizations).await;
        let finalizations = finalizations.map_err(failed("certificates"))?;
        let blocks = archive(&partition, "blocks", &cache, history.section, ());
        let blocks = prunable::Archive::init(context.child("blocks"), blocks).await.map_err(failed("blocks"))?;
        let epocher = FixedEpocher::new(NonZeroU64::new(EPOCH_BLOCKS).expect("not 0"));
        let start = match origin {
            Origin::Genesis(block) => {
                let block = ClusterBlock::new(*block);
                let digest = crate::block::digest(&block.hash());
                Start::Genesis(commonware_cryptography::Digested::precomputed(block, digest))
            }
            Origin::Certificate(certificate) => {
                let epoch = certificate.header.consensus_epoch;
                let members = engine.committee(db, epoch)?.map_or(0, |m| m.len());
                if let Some(members) = engine.committee(db, epoch)? {
                    committees.register(epoch, committee_scheme(db, &members, None)?);
                }
                Start::Floor(finalization(&certificate, members)?)
            }
        };
        let (marshal_actor, marshal, _): (_, Marshal, _) = MarshalActor::init(
            context.child("marshal"),
            finalizations,
            blocks,
            marshal::Config {
                provider: committees.clone(),
                epocher: epocher.clone(),
                start,
                partition_prefix: format!("{partition}-marshal"),
                mailbox_size: nonzero(1024),
                view_retention: ViewDelta::new(CACHED_VIEWS),
                prunable_items_per_section: NonZeroU64::new(1024).expect("not 0"),
                page_cache: cache.clone(),
                replay_buffer: nonzero(1 << 20),
                key_write_buffer: nonzero(16 << 10),
                value_write_buffer: nonzero(64 << 10),
                block_codec_config: (),
                max_repair: nonzero(16),
                max_pending_acks: nonzero(8),
                strategy: Sequential,
            },
        )
        .await;
        let backfill = resolver::init(
            context.child("backfill"),
            resolver::Config {
                public_key: me.clone(),
                peer_provider: manager.clone(),
                blocker: blocker.clone(),
                mailbox_size: nonzero(256),
                fetch_timeout: NonZeroDuration::new_panic(timing.fetch),
                fetch_retry_delay: timing.fetch / 10,
                priority_requests: false,
                priority_responses: false,
            },
            channels.backfill,
        );
        let (buffer_engine, buffer) = buffered::Engine::new(
            context.child("broadcast"),
            buffered::Config {
                public_key: me,
                mailbox_size: nonzero(256),
                deque_size: 16,
                priority: false,
                codec_config: (),
                peer_provider: manager.clone(),
                strategy: Sequential,
            },
        );
        let shared = Arc::new(Shared::new(db, Arc::clone(&engine), Mempool::new(limits), timing, planted));
        let desk = Arc::new(Desk::default());
        let running = Arc::new(Mutex::new(Running::default()));
        let heard = Heard::default();
        let (events, events_rx) = mpsc::unbounded_channel();
        let (enter, enter_rx) = mpsc::unbounded_channel();
        let (peers, peers_rx) = mpsc::unbounded_channel();
        let (inbox, inbox_rx) = mpsc::unbounded_channel();
        let (ours, ours_rx) = mpsc::channel(1024);
        let app = App { shared: Arc::clone(&shared) };
        let automaton = Inline::new(context.child("automaton"), app, marshal.clone(), epocher);
        let epochs = Epochs {
            context: context.child("epochs"),
            shared: Arc::clone(&shared),
            committees,
            key,
            marshal: marshal.clone(),
            automaton,
            blocker: blocker.clone(),
            cache,
            partition,
            keep_blocks: history.blocks,
            running: Arc::clone(&running),
            heard: Arc::clone(&heard),
            events: events.clone(),
        };
        let node = key_id;
        let (ask, orders) = Fetch::new();
        let filler = Filler {
            clock: context.child("fill_clock"),
            shared: Arc::clone(&shared),
            me: node,
            fetch: ask.clone(),
            blocker: Mutex::new(blocker.clone()),
            events: events.clone(),
        };
        let seats = Seats {
            clock: context.child("seats_clock"),
            shared: Arc::clone(&shared),
            desk: Arc::clone(&desk),
            key: seat_key,
            prover,
            heard: Arc::clone(&heard),
            fetch: ask,
            blocker: blocker.clone(),
            ours: ours.clone(),
            events: events.clone(),
        };
        let serve = sync::serve(Arc::clone(&engine), db, Arc::clone(&shared.snapshots));
        let (notices, notices_rx) = mpsc::channel(256);
        let executor = Executor {
            shared: Arc::clone(&shared),
            desk: Arc::clone(&desk),
            marshal,
            events,
            epochs: enter,
            peers,
            keep_blocks: history.blocks,
        };
        let now = {
            let clock = context.child("clock");
            Arc::new(move || clock.current())
        };
        let handle = context.spawn({
            let (shared, desk) = (Arc::clone(&shared), Arc::clone(&desk));
            move |context| async move {
                let mut parts = vec![buffer_engine.start(channels.broadcast)];
                parts.push(marshal_actor.start(Inbox(inbox), buffer, backfill));
                // Peers are those that vote now or next; those that are to come follow along.
                let tracked = Arc::clone(&shared);
                parts.push(context.child("peers").spawn(move |_| track(tracked, manager, peers_rx)));
                parts.push(context.child("executor").dedicated().spawn(move |_| executor.run(inbox_rx)));
                let links = (channels.vote, channels.certificate, channels.resolver);
                parts.push(context.child("epochs").spawn(move |_| epochs.run(links, enter_rx)));
                let (mut sender, mut receiver) = channels.fetch;
                let (keeper, timeout) = (blocker.clone(), timing.fetch);
                parts.push(context.child("fetch").dedicated().spawn(move |clock| async move {
                    fetch::run(&clock, (&mut sender, &mut receiver), orders, serve, Some(notices), keeper, timeout)
                        .await;
                }));
                parts.push(context.child("fill").dedicated().spawn(move |_| filler.run()));
                parts.push(context.child("seats").spawn(move |_| seats.run(notices_rx)));
                let (sender, receiver) = channels.mempool;
                let (of, to) = (Arc::clone(&shared), desk);
                parts.push(context.child("send").spawn(move |clock| gossip::send(clock, of, to, sender, ours_rx)));
                parts.push(
                    context.child("receive").spawn(move |clock| gossip::receive(clock, shared, receiver, blocker)),
                );
                // The replica ends with the first of its parts, and all others with it.
                let _ = futures::future::select_all(parts).await;
            }
        });
        let replica = Replica { shared, desk, running, heard, ours, now, handle: Mutex::new(Some(handle)) };
        Ok((replica, events_rx))
    }
}

/// Tells the network whom the cluster speaks with, whenever that changes.
async fn track<M: Manager<PublicKey = Identity>>(
    shared: Arc<Shared>,
    mut manager: M,
    mut changed: mpsc::UnboundedReceiver<Height>,
) {
    let mut last: Option<TrackedPeers<Identity>> = None;
    let mut at = shared.head().height;
    loop {
        if let Ok(view) = shared.engine.view(shared.db) {
            let newcomer = match view.wish() {
                Some(ClusterChange::Join(member) | ClusterChange::Replace { with: member, .. }) => Some(member),
                _ => None,
            };
            let voters = view.members().iter().chain(view.next_members().iter());
            // Who left the committee still hears that it did.
            let epoch = epoch_of(Height(view.checkpoint().height.0 + 1));
            let before = epoch.checked_sub(1).and_then(|e| shared.engine.committee(shared.db, e).ok().flatten());
            let before = before.unwrap_or_default();
            let followers = view.standby().iter().chain(newcomer).chain(before.iter());
            let set =
                |nodes: &mut dyn Iterator<Item = &NodeId>| Set::from_iter_dedup(nodes.filter_map(|n| identity(n).ok()));
            let peers = TrackedPeers::new(set(&mut voters.map(|m| &m.node)), set(&mut followers.map(|m| &m.node)));
            if last.as_ref() != Some(&peers) {
                let _ = manager.track(at.0 + 1, peers.clone());
                last = Some(peers);
            }
        }
        match changed.recv().await {
            Some(height) => at = at.max(height),
            None => return,
        }
    }
}

impl Replica {
    /// Has an operation ordered: answered when it is executed and a root at or after it is certified. Given twice, it is done once.
    ///
    /// # Errors
    /// [`SubmitError`]. After [`SubmitError::Expired`] and [`SubmitError::Stopped`] it may still be ordered.
    pub async fn submit(&self, op: VerifiedOp) -> Result<(OpReceipt, Certificate), SubmitError> {
        let (engine, db, id) = (&self.shared.engine, self.shared.db, op.id());
        let stopped = |_| SubmitError::Stopped;
        // A retry after a lost answer: done is done.
        if let Some(receipt) = self.done(id)? {
            let certificate = self.certified(receipt.height).await?;
            return Ok((receipt, certificate));
        }
        let writer = |op: &VerifiedOp| {
            let view = engine.view(db).map_err(|e| SubmitError::Refused(e.to_string()))?;
            Ok::<_, SubmitError>(view.writer(op.unsigned().writer))
        };
        // A replica that lags may not have the operation before this one yet.
        let mut head = self.shared.head.subscribe();
        let until = (self.now)() + self.shared.timing.certification;
        let state = loop {
            head.borrow_and_update();
            let state = writer(&op)?;
            match self.out_of_chain(&op, state.next_sequence, state.previous) {
                Some(OpRefusal::Sequence { .. }) if (self.now)() < until => {
                    head.changed().await.map_err(|_| SubmitError::Stopped)?;
                }
                _ => break state,
            }
        };
        if !state.allowed && !matches!(op.unsigned().op, Op::Seat(_)) {
            let why = OpRefusal::NotAllowed(op.unsigned().writer);
            return Err(SubmitError::Refused(why.to_string()));
        }
        if let Err(why) = engine.check_uploaded(op.unsigned()) {
            return Err(SubmitError::Refused(why.to_string()));
        }
        if let Some(why) = self.out_of_chain(&op, state.next_sequence, state.previous) {
            return Err(SubmitError::Refused(why.to_string()));
        }
        // Whoever waits is remembered only now: what is refused leaves nothing behind.
        let answer = self.desk.wait(id).ok_or_else(|| SubmitError::Busy("many wait for this operation".to_owned()))?;
        // Another replica may have had it ordered meanwhile.
        if let Some(receipt) = self.done(id)? {
            self.desk.give_up(&[id]);
            let certificate = self.certified(receipt.height).await?;
            return Ok((receipt, certificate));
        }
        let op = Arc::new(op);
        let fresh = self.shared.mempool.insert(Arc::clone(&op), state.next_sequence, (self.now)());
        match fresh {
            Ok(true) => self.ours.send(op).await.map_err(|_| SubmitError::Stopped)?,
            Ok(false) => {}
            Err(e) => {
                self.desk.give_up(&[id]);
                return Err(match e {
                    MempoolError::Over { .. } | MempoolError::Taken { .. } => SubmitError::Refused(e.to_string()),
                    _ => SubmitError::Busy(e.to_string()),
                });
            }
        }
        answer.await.map_err(|_: oneshot::error::RecvError| match self.ours.is_closed() {
            true => stopped(()),
            false => SubmitError::Expired,
        })
    }

    /// The receipt of an operation that was done.
    fn done(&self, op: OpId) -> Result<Option<OpReceipt>, SubmitError> {
        let receipt = self.shared.engine.receipt(self.shared.db, op).map_err(|_| SubmitError::Stopped)?;
        Ok(receipt.filter(|r| r.outcome.is_ok()))
    }

    /// Why an operation does not follow its writer's last, nor one that waits: it would wait for nothing.
    fn out_of_chain(&self, op: &VerifiedOp, next: u64, last: OpId) -> Option<OpRefusal> {
        let unsigned = op.unsigned();
        if matches!(unsigned.op, Op::Seat(_)) || unsigned.sequence < next {
            return None;
        }
        let before = match unsigned.sequence == next {
            true => Some(last),
            false => self.shared.mempool.id_of(unsigned.writer, unsigned.sequence - 1),
        };
        match before {
            None => Some(OpRefusal::Sequence { got: unsigned.sequence, expected: next }),
            Some(expected) if expected != unsigned.previous => {
                Some(OpRefusal::Chain { got: unsigned.previous, expected })
            }
            Some(_) => None,
        }
    }

    /// Waits for a certificate of a root at or after `height`.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn certified(&self, height: Height) -> Result<Certificate, SubmitError> {
        let mut latest = self.desk.latest();
        let covers = |c: &Option<Certificate>| c.as_ref().is_some_and(|c| c.header.executed_height >= height);
        let certificate = latest.wait_for(covers).await.map_err(|_| SubmitError::Stopped)?;
        certificate.clone().ok_or(SubmitError::Stopped)
    }

    /// The latest certificate.
    #[must_use]
    pub fn latest(&self) -> Option<Certificate> {
        self.desk.latest().borrow().clone()
    }

    /// Follows the latest certificate.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Option<Certificate>> {
        self.desk.latest()
    }

    /// A recent certificate of the root after `height`.
    #[must_use]
    pub fn certificate_at(&self, height: Height) -> Option<Certificate> {
        self.desk.certificate_at(height)
    }

    /// When each member was heard voting last, as this replica's clock says.
    #[must_use]
    pub fn heard(&self) -> Vec<(NodeId, SystemTime)> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().map(|(n, t)| (*n, *t)).collect()
    }

    /// The stored segments whose cells are not all here yet.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        self.shared.engine.missing(self.shared.db)
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let head = shared.head();
        let Running { epoch, view, voting } = *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let members = shared.engine.view(shared.db).map(|v| v.members().clone()).unwrap_or_default();
        let mut signed: Vec<(NodeId, Height)> = Vec::new();
        let recent = self.desk.recent();
        for member in members.iter() {
            let at = position(&members, &member.node).unwrap_or(0);
            let last = recent.iter().rev().find(|c| c.header.consensus_epoch == epoch && c.signers & (1 << at) != 0);
            if let Some(certificate) = last {
                signed.push((member.node, certificate.header.height));
            }
        }
        let missing = self.missing().len();
        let finalized = self.desk.finalized().max(head.height);
        Status { height: head.height, finalized, epoch, view, voting, waiting: shared.mempool.len(), missing, signed }
    }

    /// Stops all of its parts.
    pub fn stop(&self) {
        if let Some(handle) = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            handle.abort();
        }
    }
}
