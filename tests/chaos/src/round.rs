//! One round: nodes start, clients work, things break and are mended, and what must hold is checked.

use crate::check::check;
use crate::client::{self, Owner, all_rows};
use crate::history::{Final, History, Outcome as Became, Recorder};
use crate::machine::Machine;
use crate::nemesis::{Nemesis, Struck};
use crate::plan::{Fault, Plan};
use crate::process::{Node, Pace};
use anyhow::Context;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long members may take to be level once all is mended, and a row to be taken.
const HEALED_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Rows that must be acknowledged before the first stroke: else it would strike a cluster that nobody uses.
const ROWS_FIRST: usize = 2;

/// How a round is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program whose `node` command is a node.
    pub program: PathBuf,
    /// Where it keeps everything; emptied before.
    pub dir: PathBuf,
    /// What can be broken.
    pub machine: Machine,
    /// What is broken.
    pub faults: Vec<Fault>,
    /// Nodes; none: as the seed draws.
    pub members: Option<usize>,
    /// How long things are broken, about.
    pub length: Duration,
    /// Databases, each with an owner of its own.
    pub databases: usize,
    /// Writers of a database.
    pub writers: usize,
}

/// What a round showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Nodes.
    pub members: usize,
    /// What was recorded.
    pub history: History,
    /// What was broken.
    pub struck: Vec<Struck>,
    /// Milliseconds from the last mending until all members were level and had taken a row of each writer.
    pub healed_ms: u64,
    /// What does not hold.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Writes by outcome: acknowledged, refused, unknown.
    #[must_use]
    pub fn writes(&self) -> (usize, usize, usize) {
        self.history.writes.iter().fold((0, 0, 0), |(a, r, u), write| match write.outcome {
            Became::Acknowledged { .. } => (a + 1, r, u),
            Became::Refused(_) => (a, r + 1, u),
            Became::Unknown(_) => (a, r, u + 1),
        })
    }
}

/// Runs a round.
///
/// # Errors
/// Where the machine fails the round: a node that does not start, a folder that cannot be made. What nodes do wrong is in
/// [`Outcome::violations`].
pub async fn run(seed: u64, settings: &Settings) -> anyhow::Result<Outcome> {
    let plan = Plan::draw(seed, settings.members, &settings.faults, settings.length);
    let pace = Pace { idle_ms: 300, quiet_ms: 1000, leader_ms: 1500 };
    std::fs::create_dir_all(&settings.dir).with_context(|| format!("cannot make {}", settings.dir.display()))?;
    let machine = settings.machine.for_faults(&settings.faults);
    let mut nodes = Vec::new();
    for i in 0..plan.members {
        nodes.push(Node::prepare(&machine, &settings.program, &settings.dir, i, pace)?);
    }
    let mut nemesis = Nemesis { nodes, machine, pace };
    // Starting is mending nodes that never ran.
    let mut nemesis = blocking(move || nemesis.mend().map(|_| nemesis)).await?;
    let known: Vec<_> = nemesis.nodes.iter().map(|n| (n.id(), n.address().to_owned())).collect();

    let mut owners = Vec::new();
    for number in 0..settings.databases {
        owners.push(Owner::create(number, &known).await.context("a database cannot be made")?);
    }
    let record = Arc::new(Recorder::new());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut writing, mut reading) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    for owner in &owners {
        for writer in 0..settings.writers {
            let writer = (owner.number * settings.writers + writer) as i64;
            let task = client::write(owner.number, owner.table(), writer, 0, Arc::clone(&record), Arc::clone(&stop));
            let number = owner.number;
            writing.spawn(async move { (number, writer, task.await) });
        }
        let table = owner.beside(owner.nodes()).await.context("a reader does not find the table")?;
        reading.spawn(client::read(owner.number, table, owner.number, Arc::clone(&record), Arc::clone(&stop)));
    }
    until("the first rows are not acknowledged", || async { Ok(record.acknowledged() >= ROWS_FIRST) }).await?;

    let mut struck = Vec::new();
    for strike in plan.strikes.clone() {
        tokio::time::sleep(strike.after).await;
        let (again, came) = blocking(move || nemesis.strike(&strike).map(|came| (nemesis, came))).await?;
        nemesis = again;
        struck.push(came);
    }
    let (mut nemesis, ended) = blocking(move || nemesis.mend().map(|ended| (nemesis, ended))).await?;

    // All is well again: every writer gets a row through, and every member becomes level.
    let begun = Instant::now();
    stop.store(true, Ordering::Relaxed);
    let mut next = Vec::new();
    while let Some(ended) = writing.join_next().await {
        next.push(ended.context("a writer panicked")?);
    }
    while let Some(ended) = reading.join_next().await {
        ended.context("a reader panicked")?;
    }
    let mut violations = Vec::new();
    if !ended.is_empty() {
        violations.push(format!("liveness: nodes ended by themselves when nothing was broken: {ended:?}"));
    }
    for (number, writer, from) in next {
        if let Err(why) = last_row(&owners[number], writer, from, &record).await {
            violations.push(format!("liveness: writer {writer}: {why:#}"));
        }
    }
    for owner in &owners {
        match finals(owner).await {
            Ok(said) => record.lock().finals.extend(said),
            Err(why) => violations.push(format!("liveness: database {}: {why:#}", owner.number)),
        }
    }
    let healed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut history = record.lock().clone();
    for node in &nemesis.nodes {
        history.evidence.extend(node.evidence().into_iter().map(|file| (node.i, file)));
        if node.log().contains("DIVERGED") {
            history.diverged.push(node.i);
        }
    }
    violations.extend(check(&history));
    if !violations.is_empty() {
        let written = serde_json::to_vec_pretty(&history).map_err(anyhow::Error::from);
        std::fs::write(settings.dir.join("history.json"), written?).context("the history cannot be kept")?;
        nemesis.nodes.iter_mut().for_each(|node| {
            node.stop();
            node.keep();
        });
    }
    // Waiting for processes blocks.
    let members = plan.members;
    blocking(move || {
        drop(nemesis);
        Ok(())
    })
    .await?;
    Ok(Outcome { seed, members, history, struck, healed_ms, violations })
}

async fn blocking<R: Send + 'static>(act: impl FnOnce() -> anyhow::Result<R> + Send + 'static) -> anyhow::Result<R> {
    tokio::task::spawn_blocking(act).await.context("a task of the round panicked")?
}

/// Waits until something is so.
async fn until<F: Future<Output = anyhow::Result<bool>>>(what: &str, mut so: impl FnMut() -> F) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        match so().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => last = format!(": {why:#}"),
        }
        anyhow::ensure!(begun.elapsed() < HEALED_LIMIT, "{what} within {} s{last}", HEALED_LIMIT.as_secs());
        tokio::time::sleep(POLL).await;
    }
}

/// A writer goes on until one more row is acknowledged.
async fn last_row(owner: &Owner, writer: i64, from: i64, record: &Arc<Recorder>) -> anyhow::Result<()> {
    let before = record.acknowledged();
    let stop = Arc::new(AtomicBool::new(false));
    let task =
        tokio::spawn(client::write(owner.number, owner.table(), writer, from, Arc::clone(record), Arc::clone(&stop)));
    let taken = until("no row is taken", || async { Ok(record.acknowledged() > before) }).await;
    stop.store(true, Ordering::Relaxed);
    task.await.context("a writer panicked")?;
    taken
}

/// Waits until all members are level and whole, and asks each of them alone.
async fn finals(owner: &Owner) -> anyhow::Result<Vec<Final>> {
    let database = owner.database()?;
    until("members are not level", || async {
        let mut heights = Vec::new();
        for (node, said) in database.cluster_status().await? {
            let status = said.with_context(|| format!("member {node}"))?;
            let certified = status.certificate.as_ref().map_or(0, |c| c.header.executed_height.0);
            anyhow::ensure!(status.missing_segments == 0, "member {node} lacks {} segments", status.missing_segments);
            heights.push((status.height.0, certified, status.root));
        }
        let top = heights.iter().map(|h| h.0).max().unwrap_or(0);
        // Nobody writes any more: empty blocks leave the root as it is.
        let level = heights.iter().all(|h| h.0 + 4 >= top && h.1 + 4 >= top);
        anyhow::ensure!(
            level,
            "heights and certified heights {:?}",
            heights.iter().map(|h| (h.0, h.1)).collect::<Vec<_>>()
        );
        Ok(true)
    })
    .await?;
    let mut said = Vec::new();
    for (member, known) in owner.nodes().iter().enumerate() {
        let table = owner.beside(std::slice::from_ref(known)).await?;
        let begun = Instant::now();
        let (height, rows) = loop {
            match all_rows(&table).await {
                // A member may be a block behind what others showed, for a moment.
                Err(_) if begun.elapsed() < HEALED_LIMIT => tokio::time::sleep(POLL).await,
                all => break all.with_context(|| format!("member {member} alone"))?,
            }
        };
        let status = owner.stand(&known.0).await?;
        said.push(Final { database: owner.number, member, height, root: status.root.to_string(), rows });
    }
    Ok(said)
}
