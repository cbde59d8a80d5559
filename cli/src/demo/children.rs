//! The processes of the demo: chain, nodes, arbiter. Each has its own group and log, and none outlives the demo.
//!
//! Rule    dropping a [`Child`] ends it: a node is asked to stop by closing its standard input, then killed. So every way out of
//!         the demo (success, failure, ctrl-C, panic) ends them all; and if the demo itself is killed, its nodes see their
//!         standard input close and stop.

use crate::error::{Context, Failure, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a child may take to stop by itself.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Bytes of a log shown when something failed.
const TAIL_BYTES: u64 = 3000;

/// A running process that ends with this value.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    graceful: bool,
}

impl Child {
    /// Starts `command` with its output in `log` (appended). `graceful`: it stops when its standard input closes.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path, graceful: bool) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let stdout = open().doing(format!("cannot open {}", log.display()))?;
        let stderr = open().doing(format!("cannot open {}", log.display()))?;
        let process = command
            .stdin(if graceful { Stdio::piped() } else { Stdio::null() })
            .stdout(stdout)
            .stderr(stderr)
            // Its own group: ctrl-C reaches the demo alone, which then ends its children in order.
            .process_group(0)
            .spawn()
            .doing(format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), process, log: log.to_owned(), graceful })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Fails if the process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::failed(format!("{} ended early ({status})", self.name))
                .because(self.tail())
                .help(format!("the whole log is {}", self.log.display()))),
            Err(e) => Err(e).doing(format!("cannot watch {}", self.name)),
        }
    }

    /// Stops it: asked first where it listens, killed where it does not.
    pub(crate) fn stop(&mut self) {
        if self.graceful {
            drop(self.process.stdin.take());
            let deadline = Instant::now() + STOP_GRACE;
            while Instant::now() < deadline {
                if !matches!(self.process.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // Fails only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// The last lines of a log file.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let from = if length > TAIL_BYTES { text.find('\n').map_or(0, |i| i + 1) } else { 0 };
        Ok(text[from..].trim_end().to_owned())
    };
    read().unwrap_or_else(|e| format!("({}: {e})", log.display()))
}

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
