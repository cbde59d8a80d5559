//! The cluster of a run: disks, replicas, links, and the driver that lets the faults happen.

use crate::joining::Joined;
use crate::net::{CHANNELS, SimReceiver, SimSender, Tap, divide};
use crate::record::Record;
use crate::scenario::{Conduct, Falsehood, Fault, Manner, Scenario};
use commonware_p2p::simulated::{Config as NetConfig, Control, Link, Network, Oracle};
use commonware_runtime::{Clock, Handle, Quota, Spawner, Storage, Supervisor, deterministic};
use commonware_utils::Probability;
use fluence_consensus::{
    Channels, Config, Event, History, Identity, Lie, MESSAGE_BYTES_MAX, MempoolLimits, Openings, Origin, Parts,
    Planted, Replica, StartError, identity,
};
use fluence_crypto::sign::{NodeKey, ops_hash};
use fluence_engine::testkit::TestDb;
use fluence_engine::{Engine, EngineConfig, FailingStore, Failure, MemStore, VerifiedBlock};
use fluence_types::block::{Block, Members};
use fluence_types::op::SignedOp;
use fluence_types::{DatabaseId, DbRoot, FieldBytes, Height, NodeId, SegmentRoot};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// All members, as a mask.
const ALL: u32 = u32::MAX;
/// What the right clock says when a run begins: clocks that are wrong go both ways from there.
pub(crate) const START: Duration = Duration::from_secs(1_700_000_000);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client reaches of a member that runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) engine: Arc<Engine>,
    pub(crate) replica: Arc<Replica>,
    /// Which start of the member this is.
    pub(crate) start: u64,
}

/// A member's disk and what runs on it.
pub(crate) struct Slot {
    pub(crate) disk: Arc<MemStore>,
    pub(crate) running: Option<Running>,
    pub(crate) starts: u64,
    /// Fetches a snapshot; ends with it.
    pub(crate) joining: Option<Handle<()>>,
    /// Others are too far ahead for it.
    pub(crate) behind: bool,
    /// Segments under the snapshot that it began with.
    pub(crate) began_with: Vec<SegmentRoot>,
    /// The write that is to fail after the next start, and whether it takes effect.
    doomed: Option<(u64, bool)>,
}

/// What clients and the driver share.
pub(crate) struct Shared {
    pub(crate) slots: Mutex<Vec<Slot>>,
    pub(crate) record: Arc<Record>,
    /// No new operations after this.
    pub(crate) healed: std::sync::atomic::AtomicBool,
    /// Who is to leave: nobody asks it for anything any more.
    pub(crate) leaving: Mutex<Option<usize>>,
    /// The member that clients are near to just now.
    pub(crate) near: Mutex<Option<usize>>,
    /// Messages of liars that no honest member sends.
    pub(crate) acts: Arc<AtomicU64>,
    /// Honest leaders that wait for something to propose: bit i is member i.
    pub(crate) waiting: Arc<AtomicU32>,
    /// Patient writers that want nothing just now.
    pub(crate) patient: AtomicU32,
}

impl Shared {
    pub(crate) fn running(&self, member: usize) -> Option<Running> {
        lock(&self.slots)[member].running.clone()
    }

    /// The committee of an epoch, as whoever runs knows it: what a client would follow by handovers.
    pub(crate) fn committee(&self, scenario: &Scenario, db: DatabaseId, epoch: u64) -> Option<Members> {
        let honest = (0..scenario.nodes()).filter(|m| !scenario.liars.contains_key(m));
        honest.filter_map(|m| self.running(m)).find_map(|r| r.engine.committee(db, epoch).ok().flatten())
    }
}

/// What is wrong with the links now.
#[derive(Clone, Default)]
struct Weather {
    sides: Vec<(u64, u32)>,
    cuts: Vec<(u64, usize, usize)>,
    loss: Vec<(u64, u64)>,
    delay: Vec<(u64, u64)>,
    slow: Vec<(u64, usize)>,
}

impl Weather {
    /// Latency, jitter and loss from one member to another; `None` where nothing gets through.
    fn link(&self, scenario: &Scenario, from: usize, to: usize, healed: bool) -> Option<(u64, u64, u64)> {
        let apart = self.sides.iter().any(|(_, side)| (side >> from) & 1 != (side >> to) & 1);
        if apart || self.cuts.iter().any(|(_, a, b)| (*a, *b) == (from, to)) {
            return None;
        }
        let base = scenario.latency_ms;
        let delay = self.delay.iter().map(|(_, ms)| *ms).max().unwrap_or(0);
        let slow = if self.slow.iter().any(|(_, m)| *m == from || *m == to) { 700 } else { 0 };
        let latency = base.max(delay).max(slow);
        let always = if healed { 0 } else { scenario.loss_percent };
        let loss = self.loss.iter().map(|(_, p)| *p).max().unwrap_or(0).max(always);
        Some((latency, latency / if delay > 0 { 2 } else { 5 }, loss))
    }

    fn clear_before(&mut self, now: u64) {
        self.sides.retain(|(until, ..)| *until > now);
        self.cuts.retain(|(until, ..)| *until > now);
        self.loss.retain(|(until, ..)| *until > now);
        self.delay.retain(|(until, ..)| *until > now);
        self.slow.retain(|(until, ..)| *until > now);
    }
}

/// Next acts of the driver.
enum Act {
    Fault(Fault),
    Weather,
    Near(Option<usize>),
    Start(usize),
    Masks,
}

pub(crate) struct World {
    pub(crate) context: deterministic::Context,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) db: Arc<TestDb>,
    /// Keys of all nodes: the members', then the newcomer's.
    pub(crate) keys: Arc<Vec<NodeKey>>,
    pub(crate) genesis: Block,
    pub(crate) oracle: Oracle<Identity, deterministic::Context>,
    peers: Vec<Identity>,
    links: BTreeMap<(usize, usize), (u64, u64, u64)>,
    weather: Weather,
    /// Of each liar: whom its one or two replicas speak with.
    masks: BTreeMap<usize, Vec<Arc<AtomicU32>>>,
    /// Second twins.
    twins: Vec<Arc<Replica>>,
    rng: StdRng,
    pub(crate) trace: bool,
    /// Disks that failed and wait for a new start.
    failed: mpsc::UnboundedReceiver<(usize, u64)>,
    fail: mpsc::UnboundedSender<(usize, u64)>,
    /// Nodes that have their snapshot, or need one.
    pub(crate) joined: mpsc::UnboundedReceiver<Joined>,
    pub(crate) join: mpsc::UnboundedSender<Joined>,
    /// Snapshots fetched.
    pub(crate) snapshots: u64,
    pub(crate) happened: [u64; Fault::KINDS.len()],
}

impl World {
    pub(crate) async fn new(context: deterministic::Context, scenario: Scenario, trace: bool) -> Self {
        let mut db = TestDb::new(scenario.seed, scenario.members);
        let op = db.owner.sign(db.db, db.creation());
        let mut genesis = db.block(vec![op.clone()]);
        genesis.header.timestamp_ms = 0;
        db.owner.advance(&op);
        let keys = Arc::new(crate::joining::keys(&db, &scenario));
        let peers: Vec<Identity> = keys.iter().map(|key| identity(&key.id()).expect("a key's id is a point")).collect();
        let net = NetConfig {
            max_size: u32::try_from(MESSAGE_BYTES_MAX).expect("a few megabytes"),
            max_peers_per_set: NonZeroUsize::new(64).expect("not 0"),
            disconnect_on_block: true,
            tracked_peer_sets: NonZeroUsize::new(3).expect("not 0"),
        };
        let (network, oracle) = Network::new_with_peers(context.child("network"), net, peers.clone()).await;
        network.start();
        let checked = VerifiedBlock::verify(genesis.clone()).expect("its operation is signed");
        let slots = (0..scenario.nodes()).map(|node| {
            let disk = Arc::new(MemStore::new());
            if node < scenario.members {
                let engine = Engine::open(disk.clone(), EngineConfig::default()).expect("an empty store opens");
                engine.apply(&checked).expect("genesis applies");
            }
            let (running, joining, began_with) = (None, None, Vec::new());
            Slot { disk, running, starts: 0, joining, behind: false, began_with, doomed: None }
        });
        let shared = Shared {
            slots: Mutex::new(slots.collect()),
            record: Arc::default(),
            healed: false.into(),
            leaving: Mutex::default(),
            near: Mutex::default(),
            acts: Arc::default(),
            waiting: Arc::default(),
            patient: AtomicU32::new(0),
        };
        shared.record.executed(0, context.current(), &genesis, &[]);
        let rng = StdRng::seed_from_u64(scenario.seed ^ 0x77);
        let (fail, failed) = mpsc::unbounded_channel();
        let (join, joined) = mpsc::unbounded_channel();
        Self {
            context,
            scenario: Arc::new(scenario),
            shared: Arc::new(shared),
            db: Arc::new(db),
            keys,
            genesis,
            oracle,
            peers,
            links: BTreeMap::new(),
            weather: Weather::default(),
            masks: BTreeMap::new(),
            twins: Vec::new(),
            rng,
            trace,
            failed,
            fail,
            joined,
            join,
            snapshots: 0,
            happened: [0; Fault::KINDS.len()],
        }
    }

    pub(crate) fn identity(&self, node: usize) -> Identity {
        self.peers[node].clone()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.context.current())
    }

    pub(crate) fn say(&self, what: std::fmt::Arguments<'_>) {
        if self.trace {
            println!("{:>8} ms  {what}", self.now_ms());
        }
    }

    /// Sets all links as the weather is.
    async fn link(&mut self, healed: bool) {
        for from in 0..self.peers.len() {
            for to in (0..self.peers.len()).filter(|to| *to != from) {
                let want = self.weather.link(&self.scenario, from, to, healed);
                let have = self.links.get(&(from, to)).copied();
                if want == have {
                    continue;
                }
                let (a, b) = (self.peers[from].clone(), self.peers[to].clone());
                if have.is_some() {
                    self.oracle.remove_link(a.clone(), b.clone()).await.expect("it is there");
                    self.links.remove(&(from, to));
                }
                if let Some((latency, jitter, loss)) = want {
                    let link = Link {
                        latency: Duration::from_millis(latency),
                        jitter: Duration::from_millis(jitter),
                        success_rate: Probability::new(100 - loss, 100).expect("at most 1"),
                    };
                    self.oracle.add_link(a, b, link).await.expect("it is not there");
                    self.links.insert((from, to), (latency, jitter, loss));
                }
            }
        }
    }

    /// Starts a member, or both of its twins; or fetches the state of one that has none, or is too far behind.
    pub(crate) async fn start(&mut self, member: usize) {
        if self.needs_snapshot(member) {
            return self.start_joining(member).await;
        }
        let quota = Quota::per_second(NonZeroU32::new(10_000).expect("not 0"));
        let control = self.oracle.control(self.peers[member].clone());
        let mut links = Vec::new();
        for channel in 0..CHANNELS {
            links.push(control.register(channel as u64, quota).await.expect("the network runs"));
        }
        let conduct = self.scenario.liars.get(&member).copied();
        if conduct != Some(Conduct::Twins) {
            let tap = conduct.map(|conduct| self.tap(member, conduct, Arc::new(AtomicU32::new(ALL))));
            let links = links.into_iter().enumerate().map(|(channel, (inner, receiver))| {
                (SimSender { inner, tap: tap.clone(), channel }, SimReceiver::Whole(receiver))
            });
            let links = links.collect();
            self.start_replica(member, 0, links, control).await;
            return;
        }
        let masks = vec![Arc::new(AtomicU32::new(ALL)), Arc::new(AtomicU32::new(ALL))];
        let taps: Vec<_> = masks.iter().map(|m| self.tap(member, Conduct::Twins, Arc::clone(m))).collect();
        self.masks.insert(member, masks.clone());
        self.draw_masks();
        let mut halves = [Vec::new(), Vec::new()];
        for (channel, (inner, receiver)) in links.into_iter().enumerate() {
            let mut ends = Vec::new();
            for (half, side) in halves.iter_mut().enumerate() {
                let (to, from) = mpsc::unbounded_channel();
                let sender = SimSender { inner: inner.clone(), tap: Some(Arc::clone(&taps[half])), channel };
                side.push((sender, SimReceiver::Half(from)));
                ends.push((to, Arc::clone(&masks[half])));
            }
            let ends: [_; 2] = ends.try_into().unwrap_or_else(|_| unreachable!("there are two halves"));
            let peers = self.peers.clone();
            let context =
                self.context.child("divide").with_attribute("member", member).with_attribute("channel", channel);
            context.spawn(move |_| divide(receiver, peers, ends));
        }
        for (half, links) in halves.into_iter().enumerate() {
            self.start_replica(member, half, links, control.clone()).await;
        }
    }

    fn tap(&mut self, member: usize, conduct: Conduct, mask: Arc<AtomicU32>) -> Arc<Tap> {
        let seed = self.scenario.seed ^ (member as u64) << 8 ^ self.rng.r#gen::<u64>();
        Arc::new(Tap {
            conduct,
            peers: self.peers.clone(),
            mask,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            old: Mutex::default(),
            acts: Arc::clone(&self.shared.acts),
        })
    }

    /// Whom the twins speak with from now on: together with all, and sometimes both with some.
    fn draw_masks(&mut self) {
        for masks in self.masks.values() {
            let (a, both): (u32, u32) = (self.rng.r#gen(), self.rng.r#gen::<u32>() & self.rng.r#gen::<u32>());
            let healed = self.shared.healed.load(Ordering::SeqCst);
            masks[0].store(a | both, Ordering::SeqCst);
            masks[1].store(if healed { 0 } else { !a | both }, Ordering::SeqCst);
            if healed {
                masks[0].store(ALL, Ordering::SeqCst);
            }
        }
    }

    async fn start_replica(
        &mut self,
        member: usize,
        half: usize,
        links: Vec<(SimSender, SimReceiver)>,
        control: Control<Identity, deterministic::Context>,
    ) {
        let mut links = links.into_iter();
        let mut link = || links.next().expect("there are seven");
        let channels = Channels {
            vote: link(),
            certificate: link(),
            resolver: link(),
            broadcast: link(),
            backfill: link(),
            mempool: link(),
            fetch: link(),
        };
        let (starts, doomed, engine) = {
            let mut slots = lock(&self.shared.slots);
            let slot = &mut slots[member];
            let doomed = slot.doomed.is_some();
            slot.starts += 1;
            let disk: Arc<dyn fluence_engine::Store> = if half == 1 {
                let disk = Arc::new(MemStore::new());
                let engine = Engine::open(disk.clone(), EngineConfig::default()).expect("an empty store opens");
                engine.apply(&VerifiedBlock::verify(self.genesis.clone()).expect("signed")).expect("genesis applies");
                disk
            } else {
                match slot.doomed.take() {
                    Some((at, written)) => {
                        let failure = if written { Failure::After } else { Failure::Before };
                        Arc::new(FailingStore::new(Arc::clone(&slot.disk), at, failure))
                    }
                    None => Arc::clone(&slot.disk) as _,
                }
            };
            (slot.starts, doomed, Engine::open(disk, EngineConfig::default()))
        };
        let engine = match engine {
            Ok(engine) => Arc::new(engine),
            Err(error) => {
                self.shared.record.violation(format!("durability: member {member} cannot open its engine: {error}"));
                return;
            }
        };
        let origin = match fluence_consensus::origin(&engine, self.db.db) {
            Ok(Some(certificate)) => Origin::Certificate(Box::new(certificate)),
            _ => Origin::Genesis(Box::new(self.genesis.clone())),
        };
        let config = Config {
            db: self.db.db,
            key: self.key(member),
            origin,
            timing: self.scenario.timing,
            limits: MempoolLimits::default(),
            history: History { blocks: History::BLOCKS_MIN, section: NonZeroU64::new(32).expect("not 0") },
            partition: partition(member, half),
            prover: Arc::new(Openings::new(Arc::clone(&engine))),
        };
        let conduct = self.scenario.liars.get(&member).copied();
        let planted = self.plant(member, conduct, &engine);
        let context = self.context.child("node").with_attribute("member", member);
        let context = context.with_attribute("half", half).with_attribute("start", starts);
        // Not a child of the replica: it hears its last words.
        let events_context =
            self.context.child("events").with_attribute("member", member).with_attribute("start", starts);
        let manager = self.oracle.manager();
        let parts = Parts { context, engine: Arc::clone(&engine), config, channels, manager, blocker: control };
        let (replica, events) = match parts.start_planted(planted).await {
            Ok(started) => started,
            // Its disk failed before it ran: the next one is good.
            Err(StartError::Store(_)) if doomed => return Box::pin(self.start(member)).await,
            Err(error) => {
                if conduct.is_none() {
                    self.shared.record.violation(format!("durability: member {member} cannot start: {error}"));
                }
                return;
            }
        };
        let replica = Arc::new(replica);
        if half == 1 {
            self.twins.push(replica);
            return;
        }
        lock(&self.shared.slots)[member].running = Some(Running { engine, replica, start: starts });
        let listener = Listener {
            member,
            start: starts,
            honest: conduct.is_none(),
            shared: Arc::clone(&self.shared),
            scenario: Arc::clone(&self.scenario),
            keys: Arc::clone(&self.keys),
            fail: self.fail.clone(),
            behind: self.join.clone(),
        };
        events_context.spawn(move |_| listener.run(events));
    }

    fn plant(&mut self, member: usize, conduct: Option<Conduct>, engine: &Arc<Engine>) -> Planted {
        let mut planted = Planted { clock_ms: self.scenario.clocks_ms[member], ..Planted::default() };
        match conduct {
            None => {
                // Not all that is shared: that holds the replica, which holds this.
                let record = Arc::clone(&self.shared.record);
                let seated = self.seated(member, engine);
                let clock = self.context.child("ear").with_attribute("member", member);
                planted.executed = Some(Arc::new(move |block, outcomes| {
                    seated(block, outcomes);
                    record.executed(member, clock.current(), block, outcomes);
                }));
                let waiting = Arc::clone(&self.shared.waiting);
                planted.waits = Some(Arc::new(move |waits| {
                    let _ = match waits {
                        true => waiting.fetch_or(1 << member, Ordering::SeqCst),
                        false => waiting.fetch_and(!(1 << member), Ordering::SeqCst),
                    };
                }));
                planted.bug = self.scenario.planted.and_then(crate::scenario::Planted::bug);
            }
            Some(Conduct::Lie(falsehood)) => {
                planted.credulous = true;
                planted.lie = Some(lie(falsehood, self.rng.r#gen(), Arc::clone(&self.shared.record)));
            }
            Some(_) => {}
        }
        planted
    }

    /// A member's tasks end where they are; what was not synced is lost.
    pub(crate) async fn crash(&mut self, member: usize, lose_journal: bool) {
        let (running, joining) = {
            let mut slots = lock(&self.shared.slots);
            (slots[member].running.take(), slots[member].joining.take())
        };
        if let Some(joining) = joining {
            joining.abort();
            self.context.sleep(Duration::from_millis(5)).await;
        }
        let Some(running) = running else { return };
        running.replica.stop();
        let epoch = running.replica.status().epoch;
        drop(running);
        // Its tasks see that they are stopped when they are polled next.
        self.context.sleep(Duration::from_millis(5)).await;
        if lose_journal {
            for epoch in epoch.saturating_sub(1)..=epoch + 1 {
                let _ = self.context.remove(&format!("{}-votes-{epoch}", partition(member, 0)), None).await;
            }
        }
    }

    /// Lets everything happen that the scenario says, then ends all faults.
    pub(crate) async fn play(&mut self) {
        self.link(false).await;
        for member in 0..self.scenario.members {
            self.start(member).await;
        }
        let mut acts: BTreeMap<(u64, u64), Act> = BTreeMap::new();
        let mut order = 0;
        let mut plan = |acts: &mut BTreeMap<(u64, u64), Act>, at: u64, act: Act| {
            order += 1;
            acts.insert((at, order), act);
        };
        for (at, fault) in self.scenario.faults.clone() {
            plan(&mut acts, at, Act::Fault(fault));
        }
        if let (Some(newcomer), Some((at, _))) = (self.scenario.newcomer(), self.scenario.change) {
            plan(&mut acts, at, Act::Start(newcomer));
        }
        let mut at = 300;
        while !self.masks.is_empty() && at < self.scenario.heal_ms {
            plan(&mut acts, at, Act::Masks);
            at += self.rng.gen_range(100..2_500);
        }
        let heal = self.scenario.heal_ms;
        loop {
            let now = self.now_ms();
            self.tend().await;
            while let Ok((member, start)) = self.failed.try_recv() {
                // Nobody else has restarted it meanwhile.
                let same = self.shared.running(member).is_some_and(|r| r.start == start);
                if same {
                    let down = self.rng.gen_range(20..2_000);
                    self.say(format_args!("the disk of member {member} failed; down for {down} ms"));
                    self.crash(member, false).await;
                    plan(&mut acts, (now + down).min(heal), Act::Start(member));
                }
            }
            let due = acts.first_key_value().map(|((at, _), _)| *at);
            match due {
                Some(at) if at <= now => {
                    let act = acts.pop_first().expect("it was there").1;
                    self.act(act, &mut acts, &mut plan).await;
                }
                _ if now >= heal && due.is_none_or(|at| at > heal) => break,
                _ => {
                    // Disks are looked at often enough.
                    let until = due.unwrap_or(heal).min(heal).min(now + 50).max(now + 1);
                    self.context.sleep(Duration::from_millis(until - now)).await;
                }
            }
        }
        self.heal().await;
    }

    async fn act(
        &mut self,
        act: Act,
        acts: &mut BTreeMap<(u64, u64), Act>,
        plan: &mut impl FnMut(&mut BTreeMap<(u64, u64), Act>, u64, Act),
    ) {
        let now = self.now_ms();
        let heal = self.scenario.heal_ms;
        match act {
            Act::Masks => self.draw_masks(),
            Act::Near(member) => *lock(&self.shared.near) = member,
            Act::Weather => {
                self.weather.clear_before(now);
                self.link(false).await;
            }
            Act::Start(member) => {
                if !self.is_up(member) {
                    self.say(format_args!("member {member} starts"));
                    self.start(member).await;
                }
            }
            Act::Fault(fault) => {
                self.say(format_args!("{fault:?}"));
                let ambushed = match fault {
                    Fault::Leader { .. } => self.ambush(heal).await,
                    _ => None,
                };
                if matches!(fault, Fault::Leader { .. }) && ambushed.is_none() {
                    return;
                }
                self.happened[fault.kind()] += 1;
                match fault {
                    Fault::Partition { side, ms } => self.weather.sides.push((now + ms, side)),
                    Fault::Leader { ms } => {
                        let leader = ambushed.expect("else it does not happen");
                        self.say(format_args!("the leader is member {leader}"));
                        self.weather.sides.push((self.now_ms() + ms, 1 << leader));
                        *lock(&self.shared.near) = Some(leader);
                        plan(acts, (self.now_ms() + 900).min(heal), Act::Near(None));
                    }
                    Fault::Cut { from, to, ms } => self.weather.cuts.push((now + ms, from, to)),
                    Fault::Loss { percent, ms } => self.weather.loss.push((now + ms, percent)),
                    Fault::Delay { latency_ms, ms } => self.weather.delay.push((now + ms, latency_ms)),
                    Fault::Slow { member, ms } => self.weather.slow.push((now + ms, member)),
                    Fault::Crash { member, down_ms, lose_journal } => {
                        self.crash(member, lose_journal).await;
                        plan(acts, (now + down_ms).min(heal), Act::Start(member));
                    }
                    Fault::Outage { down_ms } => {
                        for member in self.scenario.honest().collect::<Vec<_>>() {
                            self.crash(member, false).await;
                            let jitter = self.rng.gen_range(0..300);
                            plan(acts, (now + down_ms + jitter).min(heal), Act::Start(member));
                        }
                    }
                    Fault::Disk { member, write, written, .. } => {
                        // The disk fails some writes after the next start, which is now.
                        self.crash(member, false).await;
                        lock(&self.shared.slots)[member].doomed = Some((write, written));
                        self.start(member).await;
                    }
                }
                if let Fault::Partition { ms, .. }
                | Fault::Leader { ms }
                | Fault::Cut { ms, .. }
                | Fault::Loss { ms, .. }
                | Fault::Delay { ms, .. }
                | Fault::Slow { ms, .. } = fault
                {
                    self.link(false).await;
                    plan(acts, (self.now_ms() + ms).min(heal), Act::Weather);
                }
            }
        }
    }

    /// The next honest leader that waits for something to propose, at the moment at which it hurts most: when a writer that sends nothing
    /// twice is about to come. `None` where there is no such moment.
    async fn ambush(&self, heal: u64) -> Option<usize> {
        let any = self.scenario.writers.iter().any(|w| w.manner == Manner::Patient);
        let until = (self.now_ms() + 3_000).min(heal);
        while self.now_ms() < until {
            let waiting = self.shared.waiting.load(Ordering::SeqCst);
            let ready = !any || self.shared.patient.load(Ordering::SeqCst) > 0;
            let leader = self.scenario.honest().find(|m| waiting & (1 << m) != 0).filter(|_| ready);
            if leader.is_some() {
                return leader;
            }
            self.context.sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Ends all faults: links are good, all members run, on good disks. Liars go on.
    async fn heal(&mut self) {
        self.say(format_args!("all faults end"));
        self.shared.healed.store(true, Ordering::SeqCst);
        self.draw_masks();
        self.weather = Weather::default();
        *lock(&self.shared.near) = None;
        self.link(true).await;
        for member in self.scenario.honest().chain(self.scenario.newcomer()).collect::<Vec<_>>() {
            let on_bad_disk =
                self.scenario.faults.iter().any(|(_, f)| matches!(f, Fault::Disk { member: m, .. } if *m == member));
            if on_bad_disk {
                self.crash(member, false).await;
            }
            lock(&self.shared.slots)[member].doomed = None;
            if !self.is_up(member) {
                self.start(member).await;
            }
        }
    }

    /// Pairs of honest members of which one has blocked the other.
    pub(crate) async fn blocked(&self) -> Vec<(usize, usize)> {
        let place = |peer: &Identity| self.peers.iter().position(|p| p == peer);
        let honest = |member: &usize| !self.scenario.liars.contains_key(member);
        let blocked = self.oracle.blocked().await.expect("the network runs");
        let pairs = blocked.iter().filter_map(|(a, b)| Some((place(a)?, place(b)?)));
        pairs.filter(|(a, b)| honest(a) && honest(b)).collect()
    }
}

fn partition(member: usize, half: usize) -> String {
    format!("node-{member}-{half}")
}

/// Milliseconds since the run began.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH + START).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Hears what a replica says of itself.
struct Listener {
    member: usize,
    start: u64,
    honest: bool,
    shared: Arc<Shared>,
    scenario: Arc<Scenario>,
    keys: Arc<Vec<NodeKey>>,
    fail: mpsc::UnboundedSender<(usize, u64)>,
    behind: mpsc::UnboundedSender<Joined>,
}

impl Listener {
    async fn run(self, mut events: mpsc::UnboundedReceiver<Event>) {
        let ids: Vec<NodeId> = self.keys.iter().map(NodeKey::id).collect();
        while let Some(event) = events.recv().await {
            if !self.honest {
                continue;
            }
            match event {
                Event::Behind(_) => {
                    let _ = self.behind.send(Joined { node: self.member, start: self.start, whole: false });
                }
                Event::Certified(certificate) => self.shared.record.certified(*certificate),
                Event::Conflict(evidence) => {
                    let is_liar = |node: &_| {
                        ids.iter().position(|id| id == node).is_some_and(|m| self.scenario.liars.contains_key(&m))
                    };
                    self.shared.record.conflict(*evidence, is_liar);
                }
                Event::Diverged { height, why } => {
                    let disk = why.contains("injected failure") || why.contains("a write failed before");
                    let doomed = self
                        .scenario
                        .faults
                        .iter()
                        .any(|(_, f)| matches!(f, Fault::Disk { member, .. } if *member == self.member));
                    if disk && doomed {
                        let _ = self.fail.send((self.member, self.start));
                    } else {
                        let why = format!("divergence: member {} stopped at block {height}: {why}", self.member);
                        self.shared.record.violation(why);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Makes a proposal wrong.
fn lie(falsehood: Falsehood, seed: u64, record: Arc<Record>) -> Lie {
    let rng = Mutex::new(StdRng::seed_from_u64(seed));
    Arc::new(move |block: &mut Block| {
        let rng = &mut *lock(&rng);
        // Now and then the truth, so that its blocks are in the chain too.
        if rng.gen_bool(0.3) {
            return;
        }
        let header = &mut block.header;
        match falsehood {
            Falsehood::Root => {
                let mut root = *header.executed_root.to_field().as_bytes();
                root[31] ^= 1;
                let root = FieldBytes::from_canonical(root).expect("only the lowest bit differs");
                header.executed_root = DbRoot::from_field(root);
            }
            Falsehood::Committee => header.next_members_hash[0] ^= 1,
            Falsehood::Future => header.timestamp_ms += 86_400_000,
            Falsehood::Height => {
                header.executed_height = Height(header.executed_height.0.saturating_sub(1 + rng.gen_range(0..3)));
            }
            Falsehood::Signature | Falsehood::Operations => {
                let mut ops = block.ops.to_vec();
                match (falsehood, ops.first_mut()) {
                    (_, None) => return,
                    (Falsehood::Signature, Some(op)) => op.signature[rng.gen_range(0..64)] ^= 1,
                    (_, Some(_)) => {
                        ops.pop();
                    }
                }
                if falsehood == Falsehood::Signature {
                    block.header.ops_hash = ops_hash(&ops);
                }
                block.ops = ops.try_into().expect("no more than before");
            }
            Falsehood::Again => {
                let notes = record.lock();
                let done: Vec<SignedOp> = notes.blocks.values().flat_map(|(b, _)| b.ops.iter().cloned()).collect();
                drop(notes);
                let mut ops = block.ops.to_vec();
                let again = done[rng.gen_range(0..done.len())].clone();
                ops.insert(rng.gen_range(0..=ops.len()), again);
                block.header.ops_hash = ops_hash(&ops);
                block.ops = ops.try_into().expect("one more than a few");
            }
        }
        record.lock().lies += 1;
    })
}
