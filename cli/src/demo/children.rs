//! The demo's processes, and how much memory they take together.

pub(crate) use crate::processes::{Child, tail};
use std::time::Duration;

/// Resident memory of processes, sampled: the largest sum seen.
#[derive(Debug, Default)]
pub(crate) struct MemoryWatch {
    peak_kib: std::sync::Arc<std::sync::atomic::AtomicU64>,
    pids: std::sync::Arc<std::sync::Mutex<Vec<u32>>>,
}

impl MemoryWatch {
    /// Starts sampling this process; ends when the value is dropped.
    pub(crate) fn start() -> Self {
        let watch = Self::default();
        watch.add(std::process::id());
        let (peak, pids) = (std::sync::Arc::downgrade(&watch.peak_kib), watch.pids.clone());
        std::thread::spawn(move || {
            while let Some(peak) = peak.upgrade() {
                let list = pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                let sum = list.into_iter().filter_map(resident_kib).sum();
                peak.fetch_max(sum, std::sync::atomic::Ordering::Relaxed);
                drop(peak);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        watch
    }

    /// Counts another process in.
    pub(crate) fn add(&self, pid: u32) {
        self.pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(pid);
    }

    /// The largest sum so far, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.peak_kib.load(std::sync::atomic::Ordering::Relaxed).div_ceil(1024)
    }
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
