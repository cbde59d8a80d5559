//! The thread on which all replicas run: one runtime of the consensus library, many clusters.

use super::{Replicas, evidence, notes};
use crate::net::NetHandle;
use crate::net::cluster::{Channel, ClusterPeers, ClusterReceiver, ClusterSender};
use commonware_runtime::{Clock, Runner, Spawner, Supervisor, tokio as runtime};
use fluence_consensus::{
    Channels, Config, Event, History, JoinConfig, MempoolLimits, Parts, Prover, Replica, Timing, join,
};
use fluence_crypto::sign::NodeKey;
use fluence_engine::Engine;
use fluence_types::block::{Members, epoch_of};
use fluence_types::op::ClusterChange;
use fluence_types::{DatabaseId, Height, NodeId};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Last epoch that a committee may be vouched for in: its heights stay far below 2^64.
pub(super) const EPOCH_MAX: u64 = 1 << 48;
/// Databases whose state is fetched at once: anybody may ask for it.
const FOLLOWING_MAX: usize = 16;
/// Looks, 50 ms apart, whether a replica that was stopped has let go of its channels.
const LETTING_GO: usize = 200;
/// Longest fetch of a database's state.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where replicas keep their journals, and how they behave.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Folder of the journals.
    pub journals: PathBuf,
    /// Folder of evidence.
    pub evidence: PathBuf,
    /// Times.
    pub timing: Timing,
    /// Blocks of a log that are kept for members that were away.
    pub keep_blocks: u64,
    /// Most databases.
    pub databases_max: usize,
    /// Threads of the runtime.
    pub threads: usize,
}

pub(super) enum Command {
    /// Starts the replica of a database that is in the engine.
    Host { db: DatabaseId, reply: oneshot::Sender<Result<(), String>> },
    /// Says where members are reached.
    Introduce { db: DatabaseId, peers: Vec<(NodeId, Vec<String>)> },
    /// Fetches the state of a database from its members, and starts its replica.
    Follow { db: DatabaseId, epoch: u64, members: Members },
}

/// A replica that runs.
pub(super) struct Hosted {
    pub(super) replica: Arc<Replica>,
    peers: ClusterPeers,
    present: watch::Receiver<Vec<NodeId>>,
}

impl Hosted {
    /// The members with an open connection.
    pub(super) fn present(&self) -> Vec<NodeId> {
        self.present.borrow().clone()
    }
}

pub(super) struct Host {
    pub(super) engine: Arc<Engine>,
    pub(super) key: Arc<NodeKey>,
    pub(super) net: NetHandle,
    pub(super) config: ClusterConfig,
    pub(super) prover: Arc<dyn Prover>,
    pub(super) hosted: Replicas,
    /// Databases whose state is being fetched, and where their members are.
    pub(super) following: Arc<Mutex<BTreeMap<DatabaseId, Following>>>,
    pub(super) failed: CancellationToken,
}

/// A database whose state is being fetched.
pub(super) struct Following {
    peers: ClusterPeers,
    members: BTreeSet<NodeId>,
}

/// Why nobody hears a replica any more.
#[derive(PartialEq, Eq)]
enum Ended {
    Stopped,
    /// It needs a snapshot.
    Behind,
}

/// What a replica needs of the network.
struct Links {
    channels: Channels<ClusterSender, ClusterReceiver>,
    peers: ClusterPeers,
}

impl Host {
    /// Runs until all senders of commands are gone.
    pub(super) fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        // Cancels where a panic ends this thread.
        let unless_done = self.failed.clone().drop_guard();
        let config = runtime::Config::new()
            .with_storage_directory(&self.config.journals)
            .with_worker_threads(self.config.threads)
            .with_catch_panics(false);
        runtime::Runner::new(config).start(|context| async move {
            let host = Arc::new(self);
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Host { db, reply } => {
                        let started = Self::host(&host, &context, db).await;
                        if let Err(why) = &started {
                            tracing::error!(%db, %why, "the replica of a database does not start");
                        }
                        let _ = reply.send(started);
                    }
                    Command::Introduce { db, peers } => host.introduce(db, peers),
                    Command::Follow { db, epoch, members } => Self::follow(&host, &context, db, epoch, &members),
                }
            }
            for hosted in
                std::mem::take(&mut *host.hosted.write().unwrap_or_else(PoisonError::into_inner)).into_values()
            {
                hosted.replica.stop();
            }
            let _ = context.stop(0, None).await;
        });
        unless_done.disarm();
    }

    fn links(&self, db: DatabaseId) -> Result<Links, String> {
        let mut net = self.net.cluster(db).map_err(|e| e.to_string())?;
        let channels = Channels {
            vote: net.channel(Channel::Vote),
            certificate: net.channel(Channel::Certificate),
            resolver: net.channel(Channel::Resolver),
            broadcast: net.channel(Channel::Broadcast),
            backfill: net.channel(Channel::Backfill),
            mempool: net.channel(Channel::Mempool),
            fetch: net.channel(Channel::Fetch),
        };
        let peers = net.peers();
        for (node, addresses) in notes::addresses(&self.engine, db) {
            let _ = peers.set_addresses(node, &addresses);
        }
        Ok(Links { channels, peers })
    }

    async fn host(host: &Arc<Self>, context: &runtime::Context, db: DatabaseId) -> Result<(), String> {
        if host.hosted.read().unwrap_or_else(PoisonError::into_inner).contains_key(&db) {
            return Ok(());
        }
        let links = host.links(db)?;
        Self::start(host, context, db, links).await
    }

    /// Starts the replica of a database that is in the engine.
    async fn start(host: &Arc<Self>, context: &runtime::Context, db: DatabaseId, links: Links) -> Result<(), String> {
        let origin = notes::origin(&host.engine, db).map_err(|e| e.to_string())?;
        let origin = origin.ok_or("where its log begins was never noted")?;
        let history = History::keeping(&host.engine, db, host.config.keep_blocks).map_err(|e| e.to_string())?;
        let Links { channels, peers } = links;
        let config = Config {
            db,
            key: Arc::clone(&host.key),
            origin,
            timing: host.config.timing,
            limits: MempoolLimits::default(),
            history,
            partition: hex::encode(db.as_bytes()),
            prover: Arc::clone(&host.prover),
        };
        let of_db = context.child("cluster").with_attribute("db", db);
        let engine = Arc::clone(&host.engine);
        let (manager, blocker) = (peers.clone(), peers.clone());
        let parts = Parts { context: of_db, engine, config, channels, manager, blocker };
        let (replica, events) = parts.start().await.map_err(|e| e.to_string())?;
        let present = peers.present();
        let hosted = Arc::new(Hosted { replica: Arc::new(replica), peers, present });
        host.hosted.write().unwrap_or_else(PoisonError::into_inner).insert(db, hosted);
        let listener = Arc::clone(host);
        context.child("events").with_attribute("db", db).spawn(move |context| async move {
            if listener.listen(db, events).await == Ended::Behind {
                Self::catch_up(listener, context, db).await;
            }
        });
        Ok(())
    }

    /// Brings a database forward whose blocks the others do not give any more: its state is replaced by a later snapshot. Runs for as long
    /// as the replica that it starts then.
    fn catch_up(host: Arc<Self>, context: runtime::Context, db: DatabaseId) -> BoxFuture<'static, ()> {
        async move {
            let old = host.hosted.write().unwrap_or_else(PoisonError::into_inner).remove(&db);
            if let Some(old) = old {
                old.replica.stop();
            }
            // Its tasks let go of their channels when they are polled next.
            let mut links = host.links(db);
            for _ in 0..LETTING_GO {
                if links.is_ok() {
                    break;
                }
                context.sleep(Duration::from_millis(50)).await;
                links = host.links(db);
            }
            let mut links = match links {
                Ok(links) => links,
                Err(why) => return tracing::error!(%db, %why, "a database that is behind cannot be brought forward"),
            };
            let epoch = host.engine.head(db).map_or(0, |head| epoch_of(Height(head.height.0 + 1)));
            let members = host.engine.committee(db, epoch).ok().flatten().unwrap_or_default();
            let join_config = JoinConfig {
                db,
                key: Arc::clone(&host.key),
                committees: BTreeMap::from([(epoch, members)]),
                timing: host.config.timing,
                patience: PATIENCE,
            };
            let (engine, mut manager) = (Arc::clone(&host.engine), links.peers.clone());
            let (of_join, blocker) = (context.child("fetch"), links.peers.clone());
            match join(of_join, engine, join_config, &mut links.channels.fetch, &mut manager, blocker).await {
                Ok(floor) => tracing::info!(%db, height = %floor.header.height, "brought forward by a snapshot"),
                // It goes on from where it was, and says again that it is behind.
                Err(error) => tracing::error!(%db, %error, "no snapshot for a database that is behind"),
            }
            match Self::start(&host, &context, db, links).await {
                // The replica is a child of this task.
                Ok(()) => std::future::pending::<()>().await,
                Err(why) => tracing::error!(%db, %why, "the replica of a database does not start"),
            }
        }
        .boxed()
    }

    /// Fetches a database from its members in a task of its own; once at a time.
    fn follow(host: &Arc<Self>, context: &runtime::Context, db: DatabaseId, epoch: u64, members: &Members) {
        let following = || host.following.lock().unwrap_or_else(PoisonError::into_inner);
        if host.engine.checkpoint(db).is_some() || following().contains_key(&db) {
            return;
        }
        if following().len() >= FOLLOWING_MAX {
            return tracing::warn!(%db, limit = FOLLOWING_MAX, "too many databases are being fetched");
        }
        let mut links = match host.links(db) {
            Ok(links) => links,
            Err(why) => return tracing::error!(%db, %why, "cannot follow"),
        };
        let nodes = members.iter().map(|m| m.node).collect();
        following().insert(db, Following { peers: links.peers.clone(), members: nodes });
        let join_config = JoinConfig {
            db,
            key: Arc::clone(&host.key),
            committees: BTreeMap::from([(epoch, members.clone())]),
            timing: host.config.timing,
            patience: PATIENCE,
        };
        let host = Arc::clone(host);
        context.child("join").with_attribute("db", db).spawn(move |context| async move {
            tracing::info!(%db, epoch, "fetching the state of a database from its members");
            let (engine, mut manager) = (Arc::clone(&host.engine), links.peers.clone());
            let (of_join, blocker) = (context.child("fetch"), links.peers.clone());
            let joined = join(of_join, engine, join_config, &mut links.channels.fetch, &mut manager, blocker).await;
            let started = match joined {
                Ok(_) => Self::start(&host, &context, db, links).await,
                Err(error) => Err(error.to_string()),
            };
            host.following.lock().unwrap_or_else(PoisonError::into_inner).remove(&db);
            match started {
                Ok(()) => {
                    tracing::info!(%db, "following");
                    // The replica is a child of this task.
                    std::future::pending::<()>().await;
                }
                Err(why) => tracing::error!(%db, %why, "the database cannot be followed"),
            }
        });
    }

    /// The nodes that a database names: members now and next, those that wait, and a newcomer.
    fn named(&self, db: DatabaseId) -> BTreeSet<NodeId> {
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: BTreeSet<NodeId> = following.get(&db).map(|f| f.members.clone()).unwrap_or_default();
        if let Ok(view) = self.engine.view(db) {
            let members = view.members().iter().chain(view.next_members().iter()).chain(view.standby());
            named.extend(members.map(|m| m.node));
            if let Some(ClusterChange::Join(member) | ClusterChange::Replace { with: member, .. }) = view.wish() {
                named.insert(member.node);
            }
        }
        named
    }

    fn introduce(&self, db: DatabaseId, peers: Vec<(NodeId, Vec<String>)>) {
        let mut known: BTreeMap<_, _> = notes::addresses(&self.engine, db);
        let named = self.named(db);
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner).get(&db).map(|h| h.peers.clone());
        let book = hosted.or_else(|| {
            self.following.lock().unwrap_or_else(PoisonError::into_inner).get(&db).map(|f| f.peers.clone())
        });
        for (node, addresses) in peers {
            // A hint may come from anybody: it is about nodes that the database names, and the addresses known before stay.
            if node == self.key.id() || addresses.is_empty() || !named.contains(&node) {
                continue;
            }
            let before = known.get(&node).cloned().unwrap_or_default();
            let mut merged = addresses;
            merged.truncate(notes::ADDRESSES_MAX / 2);
            merged.extend(before.iter().filter(|a| !merged.contains(a)).cloned().collect::<Vec<_>>());
            merged.truncate(notes::ADDRESSES_MAX);
            if merged == before {
                continue;
            }
            let addresses = merged;
            if let Some(book) = &book
                && let Err(error) = book.set_addresses(node, &addresses)
            {
                tracing::debug!(%db, %node, %error, "an address that is none");
                continue;
            }
            known.insert(node, addresses);
        }
        if let Err(error) = notes::set_addresses(&self.engine, db, &known) {
            tracing::error!(%db, %error, "addresses cannot be noted");
        }
    }

    /// Hears what a replica says, until it ends or cannot go on by itself.
    async fn listen(&self, db: DatabaseId, mut events: mpsc::UnboundedReceiver<Event>) -> Ended {
        let label = db.to_string();
        while let Some(event) = events.recv().await {
            match event {
                Event::Executed(height) => {
                    metrics::gauge!("fluence_cluster_height", "db" => label.clone()).set(height.0 as f64);
                }
                Event::Certified(certificate) => {
                    metrics::gauge!("fluence_cluster_certified_height", "db" => label.clone())
                        .set(certificate.header.executed_height.0 as f64);
                }
                Event::Epoch(epoch) => {
                    metrics::gauge!("fluence_cluster_epoch", "db" => label.clone()).set(epoch as f64);
                }
                Event::Missing(segments) => {
                    metrics::counter!("fluence_cluster_missing_segments_total").increment(segments.len() as u64);
                }
                Event::Conflict(evidence) => self.conflict(db, &evidence),
                Event::Diverged { height, why } => {
                    tracing::error!(%db, %height, %why, "DIVERGED: a quorum finalized what this node cannot execute; the node stops");
                    self.failed.cancel();
                    return Ended::Stopped;
                }
                Event::Behind(height) => {
                    tracing::warn!(%db, %height, "the others are too far ahead");
                    metrics::counter!("fluence_cluster_behind_total").increment(1);
                    return Ended::Behind;
                }
                Event::Failed { height, why } => {
                    tracing::error!(%db, %height, %why, "DISK: the store does not take a block; the node stops, and executes it after the next start");
                    self.failed.cancel();
                    return Ended::Stopped;
                }
                _ => {}
            }
        }
        Ended::Stopped
    }

    fn conflict(&self, db: DatabaseId, found: &fluence_consensus::Evidence) {
        metrics::counter!("fluence_cluster_equivocations_total").increment(1);
        let members = self.engine.committee(db, found.epoch).ok().flatten().unwrap_or_default();
        match evidence::write(&self.config.evidence, db, &members, found) {
            Ok(Some(path)) => {
                tracing::error!(%db, node = %found.node, path = %path.display(), "EQUIVOCATION: evidence is kept");
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%db, %error, "evidence cannot be kept"),
        }
    }
}
