//! Who proves when: an operator's limits on threads and memory, several proofs at once, pause and resume.
//!
//! Slots    the threads are shared out in equal pools, one for each proof that may run at once. One slot has the first proof done soonest;
//!          one slot a thread has the most proofs done in an hour, for as many times the memory
//! Memory   each proof's need is known from its circuit before it starts ([`Keys::proof_memory_bytes`]): it waits until that much is free,
//!          and one that needs more than there is at all is refused
//! Pause    new proofs wait, running ones stop before their next piece of work (a window of a sum, tens of milliseconds) and hold what
//!          they have; dropping the scheduler waits for nobody

use crate::keys::Keys;
use crate::proof::ProveError;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

/// What an operator gives to proving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Threads in all; `None`: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Proofs at once; never more than threads.
    pub at_once: NonZeroUsize,
    /// Bytes that running proofs may need beyond their keys; `None`: no limit.
    pub memory_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: None, at_once: NonZeroUsize::MIN, memory_bytes: None }
    }
}

/// A door that work passes, or waits before.
#[derive(Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    /// Waits while the gate is closed.
    pub(crate) fn pass(&self) {
        if self.closed.load(Ordering::Acquire) {
            let mut guard = lock(&self.lock);
            while self.closed.load(Ordering::Acquire) {
                guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn set(&self, closed: bool) {
        // Under the lock, so that no one looks, finds it closed, and goes to sleep after the opening.
        let _guard = lock(&self.lock);
        self.closed.store(closed, Ordering::Release);
        self.opened.notify_all();
    }
}

struct Free {
    pools: Vec<rayon::ThreadPool>,
    memory_bytes: Option<u64>,
}

/// Runs proofs within [`Limits`]. Shared by reference; its calls block.
pub struct Scheduler {
    limits: Limits,
    threads: NonZeroUsize,
    gate: Arc<Gate>,
    free: Mutex<Free>,
    freed: Condvar,
}

/// A slot while a proof has it; it goes back when this is dropped, also by a panic.
struct Turn<'a> {
    scheduler: &'a Scheduler,
    pool: Option<rayon::ThreadPool>,
    need: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut free = lock(&self.scheduler.free);
        free.pools.extend(self.pool.take());
        if let Some(bytes) = &mut free.memory_bytes {
            *bytes += self.need;
        }
        drop(free);
        self.scheduler.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole after any panic: it is changed in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scheduler {
    /// Starts its threads.
    ///
    /// # Panics
    /// Where the system starts no thread.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = limits.threads.unwrap_or(cores);
        let slots = limits.at_once.min(threads).get();
        let pools = (0..slots)
            .map(|slot| {
                // The rest of the division goes to the first slots.
                let share = threads.get() / slots + usize::from(slot < threads.get() % slots);
                let name = move |i| format!("prove-{slot}-{i}");
                let built = rayon::ThreadPoolBuilder::new().num_threads(share).thread_name(name).build();
                built.expect("the system can start a thread")
            })
            .collect();
        let free = Free { pools, memory_bytes: limits.memory_bytes };
        Self { limits, threads, gate: Arc::default(), free: Mutex::new(free), freed: Condvar::new() }
    }

    /// One proof at a time on all cores: what [`crate::prove`] uses.
    pub(crate) fn global() -> &'static Self {
        static GLOBAL: LazyLock<Scheduler> = LazyLock::new(|| Scheduler::new(Limits::default()));
        &GLOBAL
    }

    /// The limits it was made with.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Threads of all slots together.
    #[must_use]
    pub const fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Proofs that may run at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.limits.at_once.min(self.threads).get()
    }

    /// Holds new proofs back and stops running ones before their next piece of work.
    pub fn pause(&self) {
        self.gate.set(true);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.gate.set(false);
    }

    /// Threads of the slots that proofs have now.
    #[must_use]
    pub fn busy_threads(&self) -> usize {
        let idle: usize = lock(&self.free).pools.iter().map(rayon::ThreadPool::current_num_threads).sum();
        self.threads.get() - idle
    }

    /// Whether [`Self::pause`] holds.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.gate.closed.load(Ordering::Acquire)
    }

    /// Runs `work` in a slot, once there is one and memory for it.
    pub(crate) fn run<T: Send>(&self, keys: &Keys, work: impl FnOnce(&Gate) -> T + Send) -> Result<T, ProveError> {
        let share = self.threads.get().div_ceil(self.slots());
        let turn = self.turn(keys.proof_memory_bytes(share))?;
        self.gate.pass();
        Ok(turn.pool.as_ref().expect("a turn has a pool").install(|| work(&self.gate)))
    }

    fn turn(&self, need: u64) -> Result<Turn<'_>, ProveError> {
        if let Some(limit) = self.limits.memory_bytes.filter(|limit| need > *limit) {
            return Err(ProveError::Memory { need, limit });
        }
        let mut free = lock(&self.free);
        loop {
            if free.memory_bytes.is_none_or(|bytes| bytes >= need)
                && let Some(pool) = free.pools.pop()
            {
                if let Some(bytes) = &mut free.memory_bytes {
                    *bytes -= need;
                }
                return Ok(Turn { scheduler: self, pool: Some(pool), need });
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scheduler({:?}, paused: {})", self.limits, self.is_paused())
    }
}

#[cfg(test)]
mod tests;
