//! One seed, from beginning to end.

use crate::check::check;
use crate::client::{Client, owners};
use crate::scenario::{Change, Fault, Planted, Scenario};
use crate::world::{Running, START, World, millis};
use commonware_runtime::{Clock, Runner, Spawner, Supervisor, deterministic};
use fluence_crypto::sign::{block_hash, verify_op};
use fluence_types::Height;
use fluence_types::block::{Block, Members, position};
use fluence_types::op::Op;
use futures::future::Either;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, UNIX_EPOCH};

/// How long after the end of all faults everything that was asked must be done, in virtual time.
const HEALED_MS: u64 = 90_000;

/// What became of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Blocks finalized.
    pub blocks: u64,
    /// Operations in them.
    pub ops: u64,
    /// Operations answered to clients as done.
    pub answered: u64,
    /// Operations refused in order.
    pub refused: u64,
    /// Faults that happened, by [`Fault::KINDS`].
    pub faults: [u64; Fault::KINDS.len()],
    /// Members that were not honest, by how; and those of them that were shown to contradict themselves.
    pub liars: BTreeMap<String, (u64, u64)>,
    /// Messages and proposals of liars that no honest member would have sent so.
    pub acts: u64,
    /// Of those, wrong proposals.
    pub lies: u64,
    /// Members that were shown to contradict themselves.
    pub evidence: u64,
    /// Views that took all faults, and the epoch reached.
    pub epochs: u64,
    /// Virtual milliseconds.
    pub ms: u64,
    /// Milliseconds from the end of all faults until everything asked was done.
    pub healed_ms: u64,
    /// What the owner wished of the members.
    pub change: Option<Change>,
    /// Snapshots that nodes began with.
    pub snapshots: u64,
    /// What did not hold.
    pub violations: Vec<String>,
    /// Of everything that happened.
    pub digest: [u8; 32],
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, planted: Option<Planted>, trace: bool) -> Outcome {
    let scenario = Scenario::draw(seed, planted);
    if trace {
        println!("{scenario:#?}");
    }
    fluence_types::planted::short_quorum(planted == Some(Planted::ShortQuorum));
    fluence_types::planted::trust_pages(planted == Some(Planted::BadPage));
    let config = deterministic::Config::new().with_seed(seed).with_timeout(Some(Duration::from_secs(3600)));
    let config = config.with_start_time(UNIX_EPOCH + START);
    catch_panics(trace);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        deterministic::Runner::new(config).start(|context| async move { live(context, scenario, trace).await })
    }));
    right_rules();
    let panicked = PANIC.take().flatten();
    ran.unwrap_or_else(|_| {
        let why = panicked.unwrap_or_else(|| "without a message".to_owned());
        let digest = *blake3::hash(why.as_bytes()).as_bytes();
        Outcome { seed, violations: vec![format!("panic: {why}")], digest, ..Outcome::default() }
    })
}

/// The rules as they should be.
fn right_rules() {
    fluence_types::planted::short_quorum(false);
    fluence_types::planted::trust_pages(false);
}

thread_local! {
    /// While a seed runs on this thread: the first panic in it.
    static PANIC: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// From now on, panics on this thread are noted; those of other threads are reported as before.
fn catch_panics(trace: bool) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANIC.with_borrow_mut(|panic| match panic {
                None => false,
                Some(first) => {
                    // Those after it are the runtime's, about what the first left behind.
                    first.get_or_insert_with(|| info.to_string().replace('\n', " "));
                    true
                }
            });
            if !noted || trace {
                usual(info);
            }
        }));
    });
    PANIC.set(Some(None));
}

async fn live(context: deterministic::Context, scenario: Scenario, trace: bool) -> Outcome {
    let mut world = World::new(context.child("world"), scenario, trace).await;
    let done = Arc::new(AtomicUsize::new(0));
    let writers = world.scenario.writers.len();
    for index in 0..writers {
        let parts = (Arc::clone(&world.scenario), Arc::clone(&world.shared));
        let parts = (parts.0, parts.1, Arc::clone(&world.db), Arc::clone(&world.keys));
        let own = context.child("client").with_attribute("index", index);
        let client = Client::new(index, own.child("clock"), parts, Arc::clone(&done));
        own.spawn(move |_| client.run());
    }
    world.play().await;
    let healed = world.now_ms();
    let late = settle(&mut world, &done, writers, healed + HEALED_MS).await;
    let mut outcome = finish(&world, healed).await;
    if let Some(late) = late {
        outcome.violations.insert(0, late);
    }
    outcome.digest = digest(&outcome, &context.auditor().state());
    for violation in &outcome.violations {
        world.say(format_args!("VIOLATION {violation}"));
    }
    outcome
}

/// Waits until all writers are done, one more operation of the owner is done, and all honest members are level. Else says what is missing.
async fn settle(world: &mut World, done: &AtomicUsize, writers: usize, until: u64) -> Option<String> {
    let step = Duration::from_millis(100);
    let broken = |world: &World| !world.shared.record.lock().violations.is_empty();
    while done.load(Ordering::SeqCst) < writers {
        if broken(world) {
            return None;
        }
        if world.now_ms() > until {
            let waiting = writers - done.load(Ordering::SeqCst);
            return Some(format!(
                "liveness: {waiting} of {writers} writers still wait {HEALED_MS} ms after the end of all faults"
            ));
        }
        world.tend().await;
        world.context.sleep(step).await;
    }
    // One more, signed where the owner's chain stands now.
    let member = world.scenario.staying().next().expect("most are honest");
    let running = world.shared.running(member)?;
    let mut owner = crate::client::key(world.scenario.seed, 0);
    let state = running.engine.view(world.db.db).ok()?.writer(owner.key.address());
    (owner.sequence, owner.previous) = (state.next_sequence, state.previous);
    let last = owners(world.db.db, &owner, Op::SetWriters { writers: Vec::new().try_into().expect("none") });
    let last = verify_op(last).expect("it is signed");
    world.shared.record.asked(last.id(), 0, world.context.current());
    loop {
        let answer = std::pin::pin!(running.replica.submit(last.clone()));
        let timer = std::pin::pin!(world.context.sleep(Duration::from_secs(2)));
        match futures::future::select(answer, timer).await {
            Either::Left((Ok((receipt, _)), _)) => {
                world.shared.record.answered(&receipt, world.context.current());
                if let Err(why) = receipt.outcome {
                    return Some(format!("liveness: the last operation was refused: {why}"));
                }
                break;
            }
            // An older one with that number may wait there until it is refused once more.
            Either::Left((Err(_), _)) => world.context.sleep(step).await,
            Either::Right(_) => {}
        }
        if broken(world) {
            return None;
        }
        if world.now_ms() > until {
            return Some("liveness: an operation asked after the end of all faults is not done".to_owned());
        }
    }
    // What the owner wished for comes true.
    while !has_changed(world) {
        if broken(world) {
            return None;
        }
        if world.now_ms() > until {
            return Some(format!("liveness: {:?} has not come true", world.scenario.change));
        }
        world.tend().await;
        world.context.sleep(step).await;
    }
    // All honest members come level, and far enough.
    loop {
        world.tend().await;
        let heights: Vec<u64> = honest(world).map(|r| r.engine.head(world.db.db).map_or(0, |h| h.height.0)).collect();
        let (low, high) = (heights.iter().min().copied()?, heights.iter().max().copied()?);
        let missing: usize = honest(world).map(|r| r.engine.missing(world.db.db).len()).sum();
        let enough = low + 3 >= high && high >= world.scenario.height_min;
        if (enough && missing == 0) || broken(world) {
            return None;
        }
        if world.now_ms() > until {
            let reach = world.scenario.height_min;
            return Some(match enough {
                true => format!("liveness: {missing} segments are still missing at honest members"),
                false => format!("liveness: honest members stand at {heights:?}, {reach} was to be reached"),
            });
        }
        world.context.sleep(step).await;
    }
}

fn honest(world: &World) -> impl Iterator<Item = Running> + '_ {
    world.scenario.staying().filter_map(|m| world.shared.running(m))
}

/// Whether the committee is as the owner wished, and who came votes in it.
fn has_changed(world: &World) -> bool {
    let Some((_, change)) = world.scenario.change else { return true };
    let is_in = |members: &Members, node: usize| position(members, &world.keys[node].id()).is_some();
    let votes = |node: usize| world.shared.running(node).is_some_and(|r| r.replica.status().voting);
    let stays = |r: &Running| {
        r.engine.view(world.db.db).is_ok_and(|view| {
            change.out().is_none_or(|out| !is_in(view.members(), out))
                && world.scenario.newcomer().is_none_or(|node| is_in(view.members(), node))
        })
    };
    honest(world).all(|r| stays(&r)) && world.scenario.newcomer().is_none_or(votes)
}

async fn finish(world: &World, healed: u64) -> Outcome {
    let scenario = &world.scenario;
    for (a, b) in world.blocked().await {
        world.shared.record.violation(format!("honest member {a} has blocked honest member {b}"));
    }
    let running = |m: usize| Some((m, world.shared.running(m)?.engine));
    let engines = scenario.honest().chain(scenario.newcomer()).filter_map(running).collect::<Vec<_>>();
    let staying: Vec<usize> = scenario.staying().collect();
    // What is checked is computed by the rules as they should be.
    right_rules();
    let notes = world.shared.record.lock();
    let violations = check(&notes, &world.db, &engines, &staying);
    let mut liars: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for conduct in scenario.liars.values() {
        liars.entry(conduct.name().to_owned()).or_insert((0, 0)).0 += 1;
    }
    let outcomes = || notes.blocks.values().flat_map(|(_, outcomes)| outcomes);
    let mut shown: Vec<_> = notes.conflicts.iter().map(|e| e.node).collect();
    shown.sort();
    shown.dedup();
    for node in &shown {
        let member = world.db.member_ids().iter().position(|id| id == node);
        if let Some(conduct) = member.and_then(|m| scenario.liars.get(&m)) {
            liars.entry(conduct.name().to_owned()).or_insert((0, 0)).1 += 1;
        }
    }
    for (height, (block, outcomes)) in notes.blocks.iter().filter(|_| world.trace) {
        for (op, receipt) in block.ops.iter().zip(outcomes) {
            let done = receipt.outcome.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
            let text = format!("{:?}", op.unsigned.op);
            let kind = text.split([' ', '(']).next().unwrap_or_default();
            world.say(format_args!("block {height}: {kind} by {}: {done}", op.unsigned.writer));
        }
    }
    let top = notes.blocks.keys().next_back().map_or(0, |h| h.0);
    Outcome {
        seed: scenario.seed,
        blocks: top,
        ops: outcomes().count() as u64,
        answered: notes.asked.values().filter(|a| a.answer.as_ref().is_some_and(|(.., o)| o.is_ok())).count() as u64,
        refused: outcomes().filter(|o| o.outcome.is_err()).count() as u64,
        faults: world.happened,
        liars,
        acts: world.shared.acts.load(Ordering::SeqCst) + notes.lies,
        lies: notes.lies,
        evidence: shown.len() as u64,
        epochs: fluence_types::block::epoch_of(Height(top)),
        ms: millis(world.context.current()),
        healed_ms: world.now_ms() - healed,
        change: scenario.change.map(|(_, change)| change),
        snapshots: world.snapshots,
        violations,
        digest: history(notes.blocks.values().map(|(b, _)| b)),
    }
}

fn history<'a>(blocks: impl Iterator<Item = &'a Block>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for block in blocks {
        hasher.update(block_hash(&block.header).as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn digest(outcome: &Outcome, auditor: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(auditor.as_bytes()).update(&outcome.digest);
    let counts = [
        outcome.seed,
        outcome.blocks,
        outcome.ops,
        outcome.answered,
        outcome.refused,
        outcome.acts,
        outcome.evidence,
        outcome.ms,
        outcome.snapshots,
        outcome.violations.len() as u64,
    ];
    for count in counts.into_iter().chain(outcome.faults) {
        hasher.update(&count.to_be_bytes());
    }
    *hasher.finalize().as_bytes()
}
