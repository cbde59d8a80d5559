//! Posts certificates to the chain: the latest one every so often, and every change of the committee, in order.
//!
//! ```text
//! what the chain has (height, block, committee) + what the cluster can show -> step -> wait, or one certificate
//! ```
//! Turn    members take turns: the first in line follows from the height that the chain has, so that all pay alike; each one after it gets
//!         its turn some blocks later. What one posts, the others see on the chain and do not post.
//! Rule    decided from the chain and the engine alone, so nothing is kept and a restart repeats nothing. A certificate is checked here
//!         against the committee that the chain knows before it is sent. What fails is tried again ever later, a bounded number of times
//!         for each height that the chain has.
//! Source  `docs/protocol/checkpoints.md`, Who posts

use crate::chain::clusters::{Anchor, ClusterChain};
use crate::chain::{Chain, ChainError};
use fluence_crypto::vote::{members_hash, verify_certificate};
use fluence_types::block::{Certificate, Members, position};
use fluence_types::{Address, DatabaseId, Height, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Failures at one height of the chain before a node leaves it to the others.
const FAILURES_MAX: u32 = 5;
/// Looks that pass over a cluster that the chain did not know.
const UNKNOWN_LOOKS: u32 = 4;
/// Rounds without a new block in which clusters are not looked at.
const IDLE_ROUNDS: u32 = 10;

/// When certificates are posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PosterConfig {
    /// Blocks from one certificate on chain to the next.
    pub every_blocks: u64,
    /// Blocks that a member has before it is the next one's turn.
    pub turn_blocks: u64,
}

/// What a cluster can show, as far as this node knows.
#[derive(Clone, Debug)]
pub struct Showing {
    /// The database's owner, under whom the chain knows the cluster.
    pub owner: Address,
    /// The members of now, who take turns.
    pub members: Members,
    /// The latest certificate.
    pub latest: Option<Certificate>,
    /// The certificates with which a committee handed over to another one, oldest first.
    pub handovers: Vec<Certificate>,
    /// Committees of the present and of the past.
    pub committees: Vec<Members>,
}

/// Who knows what clusters can show.
pub trait Shows: Send + Sync {
    /// The databases kept here.
    fn databases(&self) -> Vec<DatabaseId>;
    /// What one of them can show; `None` where its replica does not run.
    fn showing(&self, db: DatabaseId) -> Option<Showing>;
}

/// What to do about a cluster now.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The chain has all that is due.
    Nothing,
    /// It is another member's turn, or not time yet.
    Wait,
    /// This certificate, by this committee.
    Post(Box<(Certificate, Members)>),
    /// The chain cannot be brought on from what is known here.
    Stuck(&'static str),
}

/// What is remembered of a cluster between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Height that the chain had at the last look.
    chain_height: Height,
    /// A handover above it that is due, and the block in which that was seen.
    handover: Option<(Height, u64)>,
    failures: u32,
    /// Not looked at before this block.
    not_before: u64,
    /// Looks that pass it over.
    passes: u32,
    stuck: bool,
}

/// Posts what is due.
pub struct Poster {
    own: NodeId,
    chain: Arc<dyn Chain>,
    shows: Arc<dyn Shows>,
    config: PosterConfig,
    memory: BTreeMap<DatabaseId, Memory>,
    /// The block of the last look, and how often it was the latest since.
    looked: (u64, u32),
}

impl Poster {
    /// For node `own`.
    #[must_use]
    pub fn new(own: NodeId, chain: Arc<dyn Chain>, shows: Arc<dyn Shows>, config: PosterConfig) -> Self {
        Self { own, chain, shows, config, memory: BTreeMap::new(), looked: (0, 0) }
    }

    /// One look at every cluster, at block `head`.
    ///
    /// # Errors
    /// [`ChainError`] where the chain does not answer; the next round goes on from here.
    pub async fn round(&mut self, head: u64) -> Result<(), ChainError> {
        let chain = Arc::clone(&self.chain);
        let Some(clusters) = chain.clusters() else { return Ok(()) };
        // Without a new block little is new; a local chain may make none for long.
        let (block, idle) = self.looked;
        self.looked = if block == head && idle < IDLE_ROUNDS { (head, idle + 1) } else { (head, 0) };
        if self.looked.1 != 0 {
            return Ok(());
        }
        for db in self.shows.databases() {
            let mut memory = self.memory.get(&db).copied().unwrap_or_default();
            if memory.not_before > head {
                continue;
            }
            if memory.passes > 0 {
                memory.passes -= 1;
                self.memory.insert(db, memory);
                continue;
            }
            let Some(showing) = self.shows.showing(db) else { continue };
            let looked = self.look(clusters, db, &showing, head, &mut memory).await;
            self.memory.insert(db, memory);
            looked?;
        }
        Ok(())
    }

    async fn look(
        &self,
        clusters: &dyn ClusterChain,
        db: DatabaseId,
        showing: &Showing,
        head: u64,
        memory: &mut Memory,
    ) -> Result<(), ChainError> {
        let Some(anchor) = clusters.anchor(showing.owner, db).await? else {
            memory.passes = UNKNOWN_LOOKS;
            return Ok(());
        };
        metrics::gauge!("fluence_chain_checkpoint_height", "db" => db.to_string()).set(anchor.height.0 as f64);
        if anchor.height != memory.chain_height {
            *memory = Memory { chain_height: anchor.height, ..Memory::default() };
        }
        match step(showing, &anchor, self.own, head, self.config, &mut memory.handover) {
            Step::Nothing | Step::Wait => Ok(()),
            Step::Stuck(why) => {
                if !std::mem::replace(&mut memory.stuck, true) {
                    tracing::warn!(%db, why, chain_height = %anchor.height, "this node cannot bring the chain on");
                }
                Ok(())
            }
            Step::Post(what) if memory.failures < FAILURES_MAX => {
                let (certificate, members) = *what;
                self.post(clusters, db, showing.owner, &certificate, &members, head, memory).await
            }
            Step::Post(_) => Ok(()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one act, said whole")]
    async fn post(
        &self,
        clusters: &dyn ClusterChain,
        db: DatabaseId,
        owner: Address,
        certificate: &Certificate,
        members: &Members,
        head: u64,
        memory: &mut Memory,
    ) -> Result<(), ChainError> {
        let height = certificate.header.height;
        let Err(error) = clusters.submit(owner, certificate, members).await else {
            tracing::info!(%db, %height, "certificate posted");
            count("posted");
            return Ok(());
        };
        // Another member may have been faster: then the chain is further, and that is all.
        let anchor = clusters.anchor(owner, db).await?;
        if anchor.is_some_and(|a| a.height != memory.chain_height) {
            tracing::debug!(%db, %height, "another member was first");
            count("overtaken");
            return Ok(());
        }
        memory.failures += 1;
        memory.not_before = head + (self.config.turn_blocks.max(1) << memory.failures.min(6));
        count("failed");
        if memory.failures >= FAILURES_MAX {
            tracing::error!(%db, %height, %error, failures = memory.failures, "the certificate is left to other members: does the operator's account have ether?");
        } else {
            tracing::warn!(%db, %height, %error, again_in_block = memory.not_before, "a certificate was not posted");
        }
        Ok(())
    }
}

/// What is due, and whether it is `own`'s turn. `handover` remembers since when a handover is due.
fn step(
    showing: &Showing,
    anchor: &Anchor,
    own: NodeId,
    head: u64,
    config: PosterConfig,
    handover: &mut Option<(Height, u64)>,
) -> Step {
    let members = &showing.members;
    let Some(place) = position(members, &own) else { return Step::Nothing };
    // First in line: follows from what all read on the chain.
    let count = members.len() as u64;
    let first = anchor.height.0 % count;
    let turn = (place as u64 + count - first) % count * config.turn_blocks;
    let above = |c: &&Certificate| c.header.height > anchor.height;
    let latest = showing.latest.as_ref().filter(above);
    let handovers: Vec<_> = showing.handovers.iter().filter(above).collect();
    let pause = if anchor.height == Height(0) { 0 } else { config.every_blocks };
    let due = anchor.accepted_at.saturating_add(pause).saturating_add(turn) <= head;
    if handovers.is_empty() && latest.is_none() {
        return Step::Nothing;
    }
    if handovers.is_empty() && !due {
        return Step::Wait;
    }
    let hash = |m: &&Members| members_hash(m).is_ok_and(|hash| hash == anchor.committee);
    let Some(committee) = showing.committees.iter().find(hash) else {
        return Step::Stuck("it does not know the committee that the chain trusts");
    };
    let by_committee = |c: &&Certificate| verify_certificate(c, committee).is_ok();
    // The oldest change that this committee certified: without it the chain refuses everything later.
    if let Some(change) =
        handovers.into_iter().find(|c| by_committee(c) && c.header.next_members_hash != anchor.committee)
    {
        let height = change.header.height;
        let since = match *handover {
            Some((of, since)) if of == height => since,
            _ => {
                *handover = Some((height, head));
                head
            }
        };
        return match since + turn <= head {
            true => Step::Post(Box::new((change.clone(), committee.clone()))),
            false => Step::Wait,
        };
    }
    match latest {
        None => Step::Nothing,
        Some(latest) if !by_committee(&latest) => {
            Step::Stuck("it does not have the certificate of a change of the committee")
        }
        Some(_) if !due => Step::Wait,
        Some(latest) => Step::Post(Box::new((latest.clone(), committee.clone()))),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("fluence_chain_certificates_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
