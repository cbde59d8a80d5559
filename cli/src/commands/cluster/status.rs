//! `fluence cluster status`: who is there, how far, and what is being mended; once, or every second.
//!
//! Source  every member is asked at once. Height, epoch and what is missing are each member's word on itself; who is connected, heard and
//!         has signed is what the others say of it. The root is the latest one that is certified.

use super::{address_of, bears};
use crate::args::ClusterStatus as Args;
use crate::chain;
use crate::error::{Failure, Result};
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use fluence_bindings::CertifiedCheckpoint;
use fluence_client::Database;
use fluence_client::cluster::Statuses;
use fluence_client::dial::Dialer;
use fluence_types::block::quorum;
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::op::ClusterChange;
use fluence_types::{DatabaseId, DbRoot, Height, NodeId};
use fluence_wire::message::ClusterStatus;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the chain.
const CHAIN_EVERY: Duration = Duration::from_secs(12);

/// What a node is to the cluster.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Role {
    /// Votes in this epoch.
    Member,
    /// Votes in this epoch for the last time.
    Leaving,
    /// Votes from the next epoch on.
    Next,
    /// Is to get a seat when it has everything.
    Joining,
    /// Waits for a seat.
    Standby,
}

/// A node of the cluster.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Row {
    node: NodeId,
    role: Role,
    address: Option<String>,
    answers: bool,
    error: Option<String>,
    /// Of the other members that answer, those with a connection to it.
    connected: usize,
    /// Other members that answer.
    asked: usize,
    /// Milliseconds since one of them heard it vote.
    heard_ms_ago: Option<u64>,
    height: Option<Height>,
    lag: Option<u64>,
    epoch: Option<u64>,
    /// The last block whose certificate it signed, among the last ones.
    signed: Option<Height>,
    voting: Option<bool>,
    waiting: Option<u64>,
    missing_segments: Option<u64>,
    missing_bytes: Option<u64>,
}

/// The cluster.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct Picture {
    db: DatabaseId,
    name: String,
    /// The highest of any member.
    epoch: u64,
    height: Height,
    finalized: Height,
    certified_height: Option<Height>,
    root: Option<DbRoot>,
    waiting: u64,
    members_total: usize,
    quorum: usize,
    answering: usize,
    /// Two members say different roots after one block.
    diverged: bool,
    wish: Option<Value>,
    next: Vec<NodeId>,
    members: Vec<Row>,
    /// The last checkpoint that the chain has, where one is asked.
    chain: Option<CertifiedCheckpoint>,
}

pub(crate) async fn run(args: &Args, home: &Home, out: &Out) -> Result<()> {
    let remote = Remote::look(home, &args.place, &args.unlock).await?;
    let database = remote.database(home, &args.place).await?;
    let name = &args.place.db;
    let on_chain = || chain::floor(&args.chain, home, remote.session(), database.id(), out);
    let mut checkpoint = on_chain().await?;
    if !args.watch {
        let picture = look(&database, name).await?.beside(checkpoint);
        out.result(&picture, |out| picture.show(out));
        return match picture.trouble() {
            Some(why) => Err(Failure::failed(why)
                .help("start the members that are missing; docs/runbook.md says what to do where they are lost")),
            None => Ok(()),
        };
    }
    let stop = fluence_node::shutdown_on_signal();
    let mut asked = Instant::now();
    loop {
        if asked.elapsed() > CHAIN_EVERY {
            asked = Instant::now();
            checkpoint = on_chain().await?;
        }
        let picture = tokio::select! {
            picture = look(&database, name) => picture?.beside(checkpoint),
            () = stop.cancelled() => return Ok(()),
        };
        out.json_line(&picture);
        out.clear();
        picture.show(out);
        out.line("");
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Asks everybody.
pub(super) async fn look(database: &Database<Dialer>, name: &str) -> Result<Picture> {
    let statuses = database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
    let members: BTreeSet<NodeId> = statuses.iter().map(|(node, _)| *node).collect();
    let others: BTreeSet<NodeId> = statuses.iter().filter_map(|(_, r)| r.as_ref().ok()).flat_map(others).collect();
    let others: Vec<NodeId> = others.into_iter().filter(|n| !members.contains(n)).collect();
    let waiting = database.cluster_status_of(&others).await;
    let seen = database.session().trust(&database.id()).map_err(|e| remote::failure(e, "the database is not known"))?;
    let address = |node: &NodeId| address_of(database, node);
    Ok(Picture::of(database.id(), name, &statuses, &waiting, seen.min_height, address))
}

/// Those who are not members, and may become some.
fn others(status: &ClusterStatus) -> impl Iterator<Item = NodeId> {
    let wished = status.wish.as_ref().and_then(newcomer);
    status.next.iter().chain(status.standby.iter()).copied().chain(wished)
}

fn newcomer(wish: &ClusterChange) -> Option<NodeId> {
    match wish {
        ClusterChange::Join(member) | ClusterChange::Replace { with: member, .. } => Some(member.node),
        _ => None,
    }
}

/// A wish for programs.
fn wish_json(wish: &ClusterChange) -> Value {
    match wish {
        ClusterChange::Join(member) => json!({ "join": member.node }),
        ClusterChange::Leave(node) => json!({ "leave": node }),
        ClusterChange::Replace { out, with } => json!({ "leave": out, "join": with.node }),
        _ => json!("another change"),
    }
}

impl Picture {
    fn of(
        db: DatabaseId,
        name: &str,
        statuses: &Statuses,
        waiting: &Statuses,
        seen: Height,
        address: impl Fn(&NodeId) -> Option<String>,
    ) -> Self {
        let good = || statuses.iter().filter_map(|(node, r)| Some((*node, r.as_ref().ok()?)));
        // Who is furthest knows best what comes.
        let furthest = good().max_by_key(|(_, s)| s.height).map(|(_, s)| s);
        let max = |f: &dyn Fn(&ClusterStatus) -> u64| good().map(|(_, s)| f(s)).max().unwrap_or(0);
        let finalized = Height(max(&|s| s.finalized.0));
        // An older one than what was seen was not checked to the end.
        let certified = good().filter_map(|(_, s)| s.certificate.as_ref()).map(|c| c.checkpoint());
        let certified = certified.filter(|c| c.height >= seen).max_by_key(|c| c.height);
        let mut roots: BTreeMap<Height, DbRoot> = BTreeMap::new();
        let diverged = good().any(|(_, s)| *roots.entry(s.height).or_insert(s.root) != s.root);
        let next: Vec<NodeId> = furthest.map(|s| s.next.to_vec()).unwrap_or_default();
        let wish = furthest.and_then(|s| s.wish.as_ref());
        let joining = wish.and_then(newcomer);
        let is_member = |node: &NodeId| statuses.iter().any(|(n, _)| n == node);
        let role = |node: &NodeId| match (is_member(node), next.contains(node)) {
            (true, false) if furthest.is_some() => Role::Leaving,
            (true, _) => Role::Member,
            (false, true) => Role::Next,
            (false, false) if joining == Some(*node) => Role::Joining,
            (false, false) => Role::Standby,
        };
        let row = |(node, result): &(NodeId, Result<ClusterStatus, fluence_client::ClientError>)| {
            let said = || good().filter(|(by, _)| by != node);
            let of_it = || said().filter_map(|(_, s)| s.members.iter().find(|m| m.node == *node));
            let status = result.as_ref().ok();
            Row {
                node: *node,
                role: role(node),
                address: address(node),
                answers: status.is_some(),
                error: result.as_ref().err().map(ToString::to_string),
                connected: of_it().filter(|m| m.connected).count(),
                asked: said().count(),
                heard_ms_ago: of_it().filter_map(|m| m.heard_ms_ago).min(),
                height: status.map(|s| s.height),
                lag: status.map(|s| finalized.0.saturating_sub(s.height.0)),
                epoch: status.map(|s| s.epoch),
                signed: good()
                    .flat_map(|(_, s)| s.members.iter())
                    .filter(|m| m.node == *node)
                    .filter_map(|m| m.signed)
                    .max(),
                voting: status.map(|s| s.voting),
                waiting: status.map(|s| s.waiting),
                missing_segments: status.map(|s| s.missing_segments),
                missing_bytes: status.map(|s| s.missing_bytes),
            }
        };
        Self {
            db,
            name: name.to_owned(),
            epoch: max(&|s| s.epoch),
            height: Height(max(&|s| s.height.0)),
            finalized,
            certified_height: certified.map(|c| c.height),
            root: certified.map(|c| c.root),
            waiting: max(&|s| s.waiting),
            members_total: statuses.len(),
            quorum: quorum(statuses.len()),
            answering: good().count(),
            diverged,
            wish: wish.map(wish_json),
            members: statuses.iter().chain(waiting).map(row).collect(),
            next,
            chain: None,
        }
    }

    /// The picture with the chain's word beside the members'.
    fn beside(self, chain: Option<CertifiedCheckpoint>) -> Self {
        Self { chain, ..self }
    }

    /// What keeps the cluster from working.
    fn trouble(&self) -> Option<String> {
        let Self { answering, members_total, quorum, .. } = self;
        if self.diverged {
            return Some("two members say different roots after one block".to_owned());
        }
        if let Some(checkpoint) = self.chain.filter(|c| c.executed_height > self.height && *answering > 0) {
            let had = checkpoint.executed_height;
            return Some(format!(
                "the chain has a certificate of height {had}, the members that answer are at {}",
                self.height
            ));
        }
        (answering < quorum).then(|| {
            format!("the cluster has no quorum: {answering} of {members_total} members answer, {quorum} are needed")
        })
    }

    fn show(&self, out: &Out) {
        out.line(format!("database {} ({}): {}", out.bold(&self.name), self.db, bears(self.members_total)));
        let block = self.height.0 % EPOCH_BLOCKS + 1;
        out.line(format!(
            "{} of {} answer; height {}, consensus epoch {}, block {block} of {EPOCH_BLOCKS}; {} operations wait",
            self.answering, self.members_total, self.height, self.epoch, self.waiting
        ));
        match (&self.root, &self.certified_height) {
            (Some(root), Some(height)) => out.line(format!("root {root}, certified at height {height}")),
            _ => out.line("no newer root is certified than was seen before"),
        }
        if let Some(checkpoint) = &self.chain {
            let (certified, block) = (checkpoint.executed_height, checkpoint.accepted_at);
            out.line(format!("the chain has the root of height {certified}, since its block {block}"));
        }
        if let Some(wish) = &self.wish {
            let part = |what: &str| wish[what].as_str().map(|node| format!("{what} {}", output::short(node)));
            let parts: Vec<_> = ["leave", "join"].into_iter().filter_map(part).collect();
            out.line(out.yellow(&format!("asked for, and not agreed to yet: {}", parts.join(", "))));
        }
        if let Some(why) = self.trouble() {
            out.line(out.red(&why));
        }
        out.line("");
        let header = [
            "node",
            "role",
            "answers",
            "connected",
            "heard",
            "height",
            "lag",
            "signed",
            "votes",
            "waiting",
            "to fetch",
        ];
        out.table(&header, self.members.iter().map(|row| row.cells(out)));
    }
}

impl Row {
    fn cells(&self, out: &Out) -> Vec<String> {
        let dash = || "-".to_owned();
        let number = |n: Option<u64>| n.map_or_else(dash, |n| n.to_string());
        let role = serde_json::to_value(self.role).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        vec![
            output::short(self.node),
            role,
            if self.answers { out.green("yes") } else { out.red("no") },
            format!("{}/{}", self.connected, self.asked),
            self.heard_ms_ago.map_or_else(dash, |ms| format!("{:.1} s ago", ms as f64 / 1000.0)),
            number(self.height.map(|h| h.0)),
            match self.lag {
                Some(lag) if lag > 2 => out.yellow(&lag.to_string()),
                lag => number(lag),
            },
            number(self.signed.map(|h| h.0)),
            self.voting.map_or_else(dash, |v| if v { "yes".to_owned() } else { "no".to_owned() }),
            number(self.waiting),
            match (self.missing_segments, self.missing_bytes) {
                (Some(0), _) => "nothing".to_owned(),
                (Some(segments), Some(bytes)) => out.yellow(&format!("{} in {segments}", output::bytes(bytes))),
                _ => dash(),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_client::{ClientError, TransportError};
    use fluence_crypto::secret::Secret;
    use fluence_crypto::sign::NodeKey;
    use fluence_wire::message::MemberStatus;

    fn node(i: u8) -> NodeId {
        NodeId::from_bytes([i; 32])
    }

    fn status(height: u64, root: u8) -> ClusterStatus {
        let member = |i: u8| MemberStatus {
            node: node(i),
            heard_ms_ago: (i != 4).then_some(u64::from(i) * 100),
            signed: (i != 4).then_some(Height(height)),
            connected: i != 4,
        };
        ClusterStatus {
            db: DatabaseId::default(),
            epoch: 1,
            view: 3,
            height: Height(height),
            finalized: Height(height),
            root: DbRoot::from_field(fluence_types::FieldBytes::from_u64(u64::from(root))),
            voting: true,
            waiting: 2,
            missing_segments: 0,
            missing_bytes: 0,
            members: (1..=4).map(member).collect::<Vec<_>>().try_into().unwrap(),
            next: (1..=4).map(node).collect::<Vec<_>>().try_into().unwrap(),
            wish: None,
            standby: vec![].try_into().unwrap(),
            certificate: None,
        }
    }

    fn picture(statuses: Vec<Option<ClusterStatus>>) -> Picture {
        let silent = |i| ClientError::Transport(TransportError::Unreachable { node: node(i), why: "gone".to_owned() });
        let statuses: Statuses = (1..).zip(statuses).map(|(i, s)| (node(i), s.ok_or_else(|| silent(i)))).collect();
        Picture::of(DatabaseId::default(), "main", &statuses, &Vec::new(), Height(0), |_| None)
    }

    #[test]
    fn a_missing_member_is_seen_by_the_others_and_a_quorum_goes_on() {
        let shown = picture(vec![Some(status(70, 1)), Some(status(70, 1)), Some(status(66, 2)), None]);
        assert_eq!((shown.answering, shown.quorum, shown.trouble()), (3, 3, None));
        let [a, _, late, gone] = &shown.members[..] else { panic!("{shown:?}") };
        assert_eq!((a.connected, a.asked, a.heard_ms_ago, a.lag), (2, 2, Some(100), Some(0)));
        assert_eq!((late.lag, late.answers), (Some(4), true));
        assert_eq!(
            (gone.answers, gone.connected, gone.asked, gone.heard_ms_ago, gone.signed),
            (false, 0, 3, None, None)
        );
        assert!(gone.error.as_ref().unwrap().contains("gone"));
    }

    #[test]
    fn too_few_members_and_roots_that_differ_are_trouble() {
        let few = picture(vec![Some(status(70, 1)), None, None, Some(status(70, 1))]);
        assert!(few.trouble().unwrap().contains("2 of 4 members answer, 3 are needed"));
        let differ = picture(vec![Some(status(70, 1)), Some(status(70, 2)), Some(status(70, 1)), None]);
        assert!(differ.diverged && differ.trouble().unwrap().contains("different roots"));
    }

    #[test]
    fn members_below_the_chains_checkpoint_are_trouble() {
        let at = |executed| CertifiedCheckpoint {
            height: Height(executed + 1),
            consensus_epoch: 1,
            block: fluence_types::BlockHash::default(),
            executed_height: Height(executed),
            executed_root: DbRoot::default(),
            timestamp_ms: 0,
            accepted_at: 9,
        };
        let shown = || picture(vec![Some(status(70, 1)), Some(status(69, 2)), Some(status(70, 1)), None]);
        assert_eq!(shown().beside(Some(at(70))).trouble(), None);
        assert!(shown().beside(Some(at(71))).trouble().unwrap().contains("height 71"));
    }

    #[test]
    fn roles_follow_from_the_next_committee_and_the_wish() {
        let comes = NodeKey::new(Secret::new([5; 32])).member();
        let mut said = status(70, 1);
        said.wish = Some(ClusterChange::Replace { out: node(4), with: comes.clone() });
        said.standby = vec![node(6)].try_into().unwrap();
        let statuses: Statuses = (1..=4).map(|i| (node(i), Ok(said.clone()))).collect();
        let seen: BTreeSet<_> = others(&said).filter(|n| !(1..=4).any(|i| node(i) == *n)).collect();
        assert_eq!(seen, BTreeSet::from([node(6), comes.node]));
        let waiting: Statuses = seen.iter().map(|n| (*n, Ok(said.clone()))).collect();
        let shown = Picture::of(DatabaseId::default(), "main", &statuses, &waiting, Height(0), |_| None);
        let role = |n| shown.members.iter().find(|r| r.node == n).unwrap().role;
        assert_eq!((role(node(4)), role(comes.node), role(node(6))), (Role::Member, Role::Joining, Role::Standby));
        assert_eq!(shown.wish, Some(json!({ "leave": node(4), "join": comes.node })));

        said.next = vec![node(1), node(2), node(3), comes.node].try_into().unwrap();
        said.wish = None;
        let statuses: Statuses = (1..=4).map(|i| (node(i), Ok(said.clone()))).collect();
        let shown = Picture::of(DatabaseId::default(), "main", &statuses, &waiting, Height(0), |_| None);
        let role = |n| shown.members.iter().find(|r| r.node == n).unwrap().role;
        assert_eq!((role(node(4)), role(node(1)), role(comes.node)), (Role::Leaving, Role::Member, Role::Next));
    }
}
