//! What clusters cost when nobody uses them: processor time and memory of real nodes that each keep many databases.
//!
//! Source  `/proc/PID/stat` and `/proc/PID/status` (Linux)

use crate::client::Owner;
use crate::machine::Machine;
use crate::nemesis::Nemesis;
use crate::process::{Node, Pace};
use anyhow::Context;
use fluence_types::limits::EPOCH_BLOCKS;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one node used in a while.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time, over the time that passed: 1 is a whole core.
    pub cores: f64,
    /// Resident memory at the end, in MiB.
    pub memory_mib: u64,
    /// Threads at the end.
    pub threads: u64,
    /// Blocks a second of each of its clusters, on average.
    pub blocks_per_second: f64,
}

/// Nodes that keep databases which nobody uses.
pub struct Idle {
    nemesis: Nemesis,
    owners: Vec<Owner>,
}

/// Times as a node has them by default.
const PACE: Pace = Pace { idle_ms: 1000, quiet_ms: 4000, leader_ms: 2000 };

impl Idle {
    /// Starts `nodes` nodes that together keep `databases` databases, each with a table and a row.
    ///
    /// # Errors
    /// Where one does not start, or a database cannot be made.
    pub async fn start(program: &Path, dir: &Path, nodes: usize, databases: usize) -> anyhow::Result<Self> {
        let machine = Machine::plain();
        let prepared = (0..nodes).map(|i| Node::prepare(&machine, program, dir, i, PACE));
        let mut nemesis = Nemesis { nodes: prepared.collect::<anyhow::Result<_>>()?, machine, pace: PACE };
        let nemesis = tokio::task::spawn_blocking(move || nemesis.mend().map(|_| nemesis)).await??;
        let known: Vec<_> = nemesis.nodes.iter().map(|n| (n.id(), n.address().to_owned())).collect();
        let mut owners = Vec::new();
        for number in 0..databases {
            let owner = Owner::create(number, &known).await.with_context(|| format!("database {number}"))?;
            owners.push(owner);
        }
        Ok(Self { nemesis, owners })
    }

    /// Waits until every cluster is in its third epoch: nothing has happened in the one before, so it is a quiet one.
    ///
    /// # Errors
    /// Where the first node is gone.
    pub async fn until_quiet(&self) -> anyhow::Result<()> {
        let node = self.nemesis.nodes[0].id();
        for owner in &self.owners {
            // Some blocks beyond, for the other members to enter it too.
            while owner.stand(&node).await?.height.0 < 2 * EPOCH_BLOCKS + 4 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }

    /// What each node uses in the time to come.
    ///
    /// # Errors
    /// Where a node is gone.
    pub async fn measure(&self, during: Duration) -> anyhow::Result<Vec<Usage>> {
        let pids: Vec<u32> = self.nemesis.nodes.iter().filter_map(Node::pid).collect();
        let spent = || pids.iter().map(|pid| cpu(*pid)).collect::<anyhow::Result<Vec<f64>>>();
        let (begun, before, low) = (Instant::now(), spent()?, self.heights().await?);
        tokio::time::sleep(during).await;
        let (passed, after) = (begun.elapsed().as_secs_f64(), spent()?);
        let blocks = (self.heights().await? - low) as f64 / self.owners.len() as f64 / passed;
        let used = before.iter().zip(&after).map(|(b, a)| (a - b) / passed);
        used.zip(&pids)
            .map(|(cores, pid)| {
                let memory_mib = field(*pid, "VmRSS:")? / 1024;
                Ok(Usage { cores, memory_mib, threads: field(*pid, "Threads:")?, blocks_per_second: blocks })
            })
            .collect()
    }

    /// The heights of all databases at the first node, added up.
    async fn heights(&self) -> anyhow::Result<u64> {
        let node = self.nemesis.nodes[0].id();
        let mut sum = 0;
        for owner in &self.owners {
            sum += owner.stand(&node).await?.height.0;
        }
        Ok(sum)
    }
}

/// Seconds of processor time that a process has used. A tick is a hundredth of a second on every Linux that counts.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name before it may hold spaces.
    let rest = stat.rsplit_once(')').context("a process has a name")?.1;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

fn field(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name} of {pid}"))?;
    line.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("{name} of {pid}: {line}"))
}
