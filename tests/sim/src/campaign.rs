//! Many seeds, on all cores, in the same order whatever the cores do.

use crate::run::{Outcome, run};
use crate::scenario::{Change, Fault, Planted};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// What became of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that ran to their end.
    pub seeds: u64,
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
    /// Seeds in which each kind happened.
    pub fault_seeds: [u64; Fault::KINDS.len()],
    /// Members that were not honest, by how, and those of them that were shown to contradict themselves.
    pub liars: BTreeMap<String, (u64, u64)>,
    /// Messages and proposals of liars that no honest member would have sent so.
    pub acts: u64,
    /// Seeds in which a member was shown to contradict itself.
    pub caught: u64,
    /// Seeds that reached a later consensus epoch.
    pub epochs: u64,
    /// Seeds in which the members changed, by [`Change::KINDS`].
    pub changes: [u64; Change::KINDS.len()],
    /// Snapshots that nodes began with.
    pub snapshots: u64,
    /// The longest time from the end of all faults until everything asked was done, in virtual milliseconds.
    pub healed_ms_max: u64,
    /// What did not hold, by seed.
    pub violations: Vec<(u64, String)>,
    /// Of all seeds in order.
    pub digest: [u8; 32],
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.blocks += outcome.blocks;
        self.ops += outcome.ops;
        self.answered += outcome.answered;
        self.refused += outcome.refused;
        for (kind, count) in outcome.faults.iter().enumerate() {
            self.faults[kind] += count;
            self.fault_seeds[kind] += u64::from(*count > 0);
        }
        for (name, count) in &outcome.liars {
            let entry = self.liars.entry(name.clone()).or_default();
            entry.0 += count.0;
            entry.1 += count.1;
        }
        self.acts += outcome.acts;
        self.caught += u64::from(outcome.evidence > 0);
        self.epochs += u64::from(outcome.epochs > 0);
        if let Some(change) = outcome.change {
            self.changes[change.kind()] += 1;
        }
        self.snapshots += outcome.snapshots;
        self.healed_ms_max = self.healed_ms_max.max(outcome.healed_ms);
        self.violations.extend(outcome.violations.iter().map(|v| (outcome.seed, v.clone())));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.digest).update(&outcome.digest);
        self.digest = *hasher.finalize().as_bytes();
    }

    /// Faults of all kinds.
    #[must_use]
    pub fn faults_all(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Members that were not honest, over all seeds.
    #[must_use]
    pub fn byzantine(&self) -> u64 {
        self.liars.values().map(|(count, _)| count).sum()
    }
}

/// Runs seeds `first .. first + count`, and tells `progress` of each as it ends, in order.
pub fn campaign(
    first: u64,
    count: u64,
    planted: Option<Planted>,
    progress: impl FnMut(&Outcome, &Summary) + Send,
) -> Summary {
    over(first, count, planted, false, progress)
}

/// Runs seeds until one shows a violation: that one, and how many ran before it. Fewer than `count` may have run.
#[must_use]
pub fn find(first: u64, count: u64, planted: Option<Planted>) -> Option<Outcome> {
    let found = Mutex::new(None);
    let _ = over(first, count, planted, true, |outcome, _| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_none() && !outcome.violations.is_empty() {
            *found = Some(outcome.clone());
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

struct Ordered<P> {
    waiting: BTreeMap<u64, Outcome>,
    next: u64,
    summary: Summary,
    progress: P,
}

fn over(
    first: u64,
    count: u64,
    planted: Option<Planted>,
    until_found: bool,
    progress: impl FnMut(&Outcome, &Summary) + Send,
) -> Summary {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let ordered = Mutex::new(Ordered { waiting: BTreeMap::new(), next: first, summary: Summary::default(), progress });
    let work = || {
        // One thread of rayon's for each of ours: a seed never waits for another's work, nor does it.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread starts");
        pool.install(|| {
            while !stop.load(Ordering::SeqCst) {
                let at = next.fetch_add(1, Ordering::SeqCst);
                if at >= count {
                    return;
                }
                let outcome = run(first + at, planted, false);
                if until_found && !outcome.violations.is_empty() {
                    stop.store(true, Ordering::SeqCst);
                }
                let mut ordered = ordered.lock().unwrap_or_else(PoisonError::into_inner);
                let Ordered { waiting, next, summary, progress } = &mut *ordered;
                waiting.insert(outcome.seed, outcome);
                while let Some(outcome) = waiting.remove(next) {
                    *next += 1;
                    summary.add(&outcome);
                    progress(&outcome, summary);
                }
            }
        });
    };
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    ordered.into_inner().unwrap_or_else(PoisonError::into_inner).summary
}
