//! The acts, in order. Each leaves facts in the report and fails with its cause.

mod anchors;
mod fifth;
mod flights;
mod hours;
mod judgement;
mod questions;
mod ruin;
mod stage;
mod stranger;

use crate::args::{Damage, Demo};
use crate::demo::cast::{Arbiter, Node, Stage};
use crate::demo::children::MemoryWatch;
use crate::demo::data;
use crate::demo::story::Story;
use crate::error::Result;
use fluence_bindings::Chain;
use fluence_bindings::anvil::Anvil;
use fluence_client::Session;
use fluence_client::dial::Dialer;
use fluence_types::shape::{CircuitId, RangeSumShape, StorageShape};
use fluence_verifier::groth16::VerificationKey;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nodes that begin; a fifth comes later.
const NODES: usize = 4;
/// One FLU in its smallest unit.
const FLU: u128 = 1_000_000_000_000_000_000;
/// What each node puts up.
const DEPOSIT: u128 = 1000 * FLU;
/// The most an owner gets out of a slash.
const DAMAGE_MAX: u128 = 25 * FLU;
/// Gas money of each account, in wei.
const GAS_MONEY: u128 = 10 * FLU;
/// Longest wait for what nodes and arbiter do by themselves.
const PATIENCE: Duration = Duration::from_secs(300);
/// The circuits of the demo.
const SHAPE: StorageShape = StorageShape::SMALL;
const STORAGE: CircuitId = CircuitId::Storage(SHAPE);
const RANGE_SUM: CircuitId = CircuitId::RangeSum(RangeSumShape::ONE);

/// Everything on stage.
pub(crate) struct Play {
    args: Demo,
    dir: PathBuf,
    repo: PathBuf,
    csv: PathBuf,
    anvil_path: PathBuf,
    keys_dir: PathBuf,
    memory: MemoryWatch,
    // Dropped in this order: nodes before their chain.
    nodes: Vec<Node>,
    arbiter: Option<Arbiter>,
    anvil: Option<Anvil>,
}

/// A verification key, and whether it was made on one machine.
struct Key {
    vk: VerificationKey,
    insecure_dev: bool,
}

/// What the first act leaves for the others.
struct World {
    chain: Chain,
    session: Session<Dialer>,
    dialer: Dialer,
    storage: Key,
    range_sum: Key,
}

impl Play {
    pub(crate) fn new(
        args: &Demo,
        dir: PathBuf,
        repo: PathBuf,
        csv: PathBuf,
        anvil_path: PathBuf,
        keys_dir: PathBuf,
    ) -> Self {
        let (args, memory) = (args.clone(), MemoryWatch::start());
        Self { args, dir, repo, csv, anvil_path, keys_dir, memory, nodes: Vec::new(), arbiter: None, anvil: None }
    }

    /// The whole story.
    pub(crate) async fn run(&mut self, story: &mut Story) -> Result<()> {
        let expected = data::start_expected(&self.repo, &self.csv)?;
        let world = self.set_the_stage(story).await?;
        let tables = self.import(story, &world).await?;
        let expected = tokio::task::spawn_blocking(|| data::finish_expected(expected)).await;
        let expected = expected.expect("waiting for a process does not panic")?;
        self.questions(story, &tables, &expected).await?;
        self.proof_for_strangers(story, &world, &tables).await?;
        let mut epoch = self.hours(story, &world).await?;
        if self.args.damage == Damage::Pages {
            let chosen = StdRng::seed_from_u64(self.args.seed).gen_range(0..NODES);
            self.damage(story, &world, &tables, chosen).await?;
            epoch.0 += 1;
            self.judgement(story, &world, epoch, chosen).await?;
        }
        self.balances(story, &world).await
    }

    /// What all nodes share.
    fn stage(&self) -> Stage {
        Stage {
            dir: self.dir.clone(),
            keys_dir: self.keys_dir.clone(),
            shape: SHAPE,
            rpc_url: self.anvil().rpc_url().to_owned(),
            deployment: self.dir.join("deployment.json"),
        }
    }

    /// The largest memory of all processes together.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        self.memory.peak_mib()
    }

    /// Where everything can be reached.
    pub(crate) fn whereabouts(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.nodes.iter().map(|n| format!("{}  {}", n.name, n.address())).collect();
        lines.extend(self.anvil.as_ref().map(|a| format!("chain   {}", a.rpc_url())));
        lines.push(format!("contracts  {}", self.dir.join("deployment.json").display()));
        lines
    }

    /// The ends of the logs.
    pub(crate) fn log_tails(&self) -> Vec<(String, String)> {
        let mut tails: Vec<_> = self.nodes.iter().map(|n| (n.name.clone(), n.log_tail())).collect();
        tails.extend(self.arbiter.as_ref().map(|a| ("arbiter".to_owned(), a.log_tail())));
        tails.retain(|(_, tail)| !tail.is_empty());
        tails
    }

    fn anvil(&self) -> &Anvil {
        self.anvil.as_ref().expect("the chain is started first")
    }

    /// Fails if a process has ended by itself.
    fn check(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::check)?;
        self.arbiter.as_mut().map_or(Ok(()), Arbiter::check)
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
