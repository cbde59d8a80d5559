//! A node: its folder, its process, and what can be done to it.
//!
//! Rule    the process is in a group of its own and ends with the value, however that is dropped; its standard input is a pipe, so that it
//!         stops by itself where this program is killed.

use crate::machine::{Machine, run};
use anyhow::{Context, bail};
use fluence_client::dial::peer_id;
use fluence_types::NodeId;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest start of a node on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a graceful stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Fills a disk.
const BALLAST: &str = "ballast";

/// Times of the clusters, in milliseconds: what a busy machine of two cores keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) idle_ms: u64,
    pub(crate) quiet_ms: u64,
    pub(crate) leader_ms: u64,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) i: usize,
    machine: Machine,
    program: PathBuf,
    dir: PathBuf,
    child: Option<Child>,
    id: Option<NodeId>,
    address: Option<String>,
}

impl Node {
    pub(crate) fn prepare(
        machine: &Machine,
        program: &Path,
        round: &Path,
        i: usize,
        pace: Pace,
    ) -> anyhow::Result<Self> {
        let dir = round.join(format!("node-{i}"));
        std::fs::create_dir_all(dir.join("data"))?;
        machine.disk(&dir.join("data"))?;
        let node = Self {
            i,
            machine: machine.clone(),
            program: program.to_owned(),
            dir,
            child: None,
            id: None,
            address: None,
        };
        node.set_clock(0)?;
        let listen = machine.plug(i)?;
        node.configure(&listen, pace)?;
        Ok(node)
    }

    fn configure(&self, listen: &str, pace: Pace) -> anyhow::Result<()> {
        let Pace { idle_ms, quiet_ms, leader_ms } = pace;
        let text = format!(
            "data_dir = {:?}\n[net]\nlisten = [{listen:?}]\n[cluster]\nidle_ms = {idle_ms}\nquiet_ms = {quiet_ms}\nleader_ms = {leader_ms}\n[proving]\nkeys_dir = {:?}\n",
            self.data(),
            self.dir.join("keys"),
        );
        std::fs::write(self.config(), text).context("a configuration cannot be written")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    fn clock(&self) -> PathBuf {
        self.dir.join("clock")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id.expect("a node that was started has an id")
    }

    /// With its peer id.
    pub(crate) fn address(&self) -> &str {
        self.address.as_deref().expect("a node that was started has an address")
    }

    /// Starts the process; it does not serve yet.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = || File::options().create(true).append(true).open(self.dir.join("log"));
        let mut command = self.machine.command(&self.program, self.i, &self.clock());
        command.args(["node", "--quiet", "--stop-with-stdin", "--config"]).arg(self.config());
        command.env("NO_COLOR", "1").env_remove("FLUENCE_HOME").process_group(0);
        let child = command.stdin(Stdio::piped()).stdout(log()?).stderr(log()?).spawn();
        self.child = Some(child.with_context(|| format!("node {} does not start", self.i))?);
        Ok(())
    }

    /// Waits until it serves. The port is its own from then on.
    pub(crate) fn ready(&mut self, pace: Pace) -> anyhow::Result<()> {
        let begun = Instant::now();
        let run_file = self.data().join("run.json");
        loop {
            if let Some(status) = self.ended() {
                bail!("node {} ended at its start: {status}\n{}", self.i, self.log_end());
            }
            let read = std::fs::read(&run_file).ok().and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
            // The note is this process's, or this one has not come to removing an old one.
            let pid = self.child.as_ref().map(Child::id);
            if let Some(run) = read.filter(|run| run["pid"].as_u64() == pid.map(u64::from)) {
                let address = run["listen"][0].as_str().context("it listens nowhere")?;
                let id: NodeId = run["node"].as_str().context("it has no id")?.parse().context("it has no id")?;
                let bare = address.split("/p2p/").next().unwrap_or(address);
                self.address = Some(format!("{bare}/p2p/{}", peer_id(&id)?));
                self.id = Some(id);
                return self.configure(bare, pace);
            }
            if begun.elapsed() > START_LIMIT {
                bail!("node {} was not ready within {} s\n{}", self.i, START_LIMIT.as_secs(), self.log_end());
            }
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, where it has ended by itself; it is forgotten then.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Whether it has ended; [`Self::ended`] still says how.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    pub(crate) const fn runs(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            // Fails only where it is gone already.
            let _ = run(&["kill", name, "--", &format!("-{}", child.id())]);
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    /// Asks it to stop, and waits until it has. False where it had to be killed.
    pub(crate) fn stop(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if self.child.is_none() || self.ended().is_some() {
                return true;
            }
            std::thread::sleep(POLL);
        }
        self.kill();
        false
    }

    /// The wall clock that it is shown: so many seconds off.
    pub(crate) fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        let next = self.dir.join("clock.next");
        std::fs::write(&next, format!("{seconds:+}\n"))?;
        std::fs::rename(next, self.clock()).context("a clock cannot be set")
    }

    /// Writes until its disk takes no more. Returns the bytes that it took.
    pub(crate) fn fill(&self) -> anyhow::Result<u64> {
        let mut file = File::create(self.data().join(BALLAST))?;
        let mut bytes = 0;
        let mut piece = 1 << 20;
        while piece > 0 {
            match file.write(&vec![0; piece]) {
                Ok(n) => bytes += n as u64,
                Err(e) if e.kind() == ErrorKind::StorageFull => piece /= 2,
                Err(e) => return Err(e).context("a disk cannot be filled"),
            }
        }
        Ok(bytes)
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        let _ = std::fs::remove_file(self.data().join(BALLAST));
    }

    /// Evidence that it wrote.
    pub(crate) fn evidence(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.data().join("evidence")).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The last lines of its log.
    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Keeps what it stored, out of the file system that goes with it.
    pub(crate) fn keep(&self) {
        if self.machine.disks {
            let _ =
                run(&["cp", "-a", &self.data().display().to_string(), &self.dir.join("kept").display().to_string()]);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        self.machine.unplug_for_good(self.i);
        self.machine.no_disk(&self.data());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in a node's place, told to ignore what can be ignored.
    #[test]
    fn a_process_ends_with_its_value_even_where_it_is_paused() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("node");
        std::fs::write(&script, "#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 1; done\n").unwrap();
        run(&["chmod", "+x", &script.display().to_string()]).unwrap();
        let pace = Pace { idle_ms: 100, quiet_ms: 100, leader_ms: 1000 };
        let mut node = Node::prepare(&Machine::plain(), &script, dir.path(), 0, pace).unwrap();
        node.spawn().unwrap();
        let pid = node.child.as_ref().unwrap().id();
        let runs = || Path::new(&format!("/proc/{pid}/stat")).exists();
        assert!(runs() && node.ended().is_none());
        node.pause();
        drop(node);
        assert!(!runs(), "process {pid} outlives its node");
    }
}
