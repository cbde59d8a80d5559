//! Processes of this program that it starts itself: nodes, arbiters, a chain. Each has its own group and log, and none outlives it.
//!
//! Rule    dropping a [`Child`] ends it: a node is asked to stop by closing its standard input, then killed. So every way out of a
//!         command (success, failure, ctrl-C, panic) ends them all; and if the command itself is killed, its nodes see their
//!         standard input close and stop.

use crate::error::{Context, Failure, Help, Result};
use fluence_node::RunFile;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest start of a process: it opens its store and checks every page.
const START_LIMIT: Duration = Duration::from_secs(60);
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

    /// Ends it at once, as a power cut would: it is not asked.
    pub(crate) fn kill(&mut self) {
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

/// This program again, in another role.
pub(crate) fn service(role: &str, config: &Path) -> Result<Command> {
    let mut command = Command::new(crate::demo::place::own_program()?);
    command.args([role, "--quiet", "--stop-with-stdin", "--config"]).arg(config);
    // Its environment must not reconfigure its nodes.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLUENCE_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Writes a configuration.
pub(crate) fn write_toml(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = toml::to_string_pretty(value).doing("a configuration cannot be written down")?;
    std::fs::write(path, text).doing(format!("cannot write {}", path.display()))
}

/// Waits until a node or an arbiter says where it listens.
pub(crate) async fn await_run_file(child: &mut Child, data_dir: &Path) -> Result<RunFile> {
    let begun = Instant::now();
    loop {
        child.check()?;
        if let Ok(run) = RunFile::read(data_dir)
            && run.pid == child.pid()
        {
            return Ok(run);
        }
        if begun.elapsed() > START_LIMIT {
            return Err(Failure::failed(format!("{} was not ready within {} s", child.name(), START_LIMIT.as_secs())))
                .or_help(child.tail());
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
