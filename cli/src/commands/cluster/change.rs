//! `fluence cluster join`, `leave`, `replace`, `standby`, `cancel`: what the owner wants, and how it comes true.
//!
//! ```text
//! newcomer proves its vote key -> members learn its address -> it follows -> the wish is ordered -> it fetches, proves, gets its seat
//! ```
//! Rule    done is when the committee before has handed over, by certificate. Until then writes go on, and the wish may be dropped.

use super::status::EVERY;
use super::{introduce, member_of, warn_of_size};
use crate::args::{ClusterJoin, ClusterLeave, ClusterPlace, ClusterReplace, ClusterStandby, Wait};
use crate::error::{Context, Failure, Result};
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote, check_address, failure_of};
use fluence_client::cluster::{Statuses, lacks};
use fluence_client::dial::Dialer;
use fluence_client::{ClientError, Database};
use fluence_types::block::{Member, ends_epoch, quorum};
use fluence_types::codec::Bounded;
use fluence_types::limits::{EPOCH_BLOCKS, STANDBY_MAX};
use fluence_types::op::{ClusterChange, OpReceipt};
use fluence_types::{Height, NodeId};
use fluence_verifier::committee::Committee;
use serde_json::json;
use std::time::{Duration, Instant};

/// Between two invitations of a newcomer that has not begun.
const INVITE_AGAIN: Duration = Duration::from_secs(10);

/// The database, and who is asked.
struct Owned {
    remote: Remote,
    database: Database<Dialer>,
    name: String,
}

impl Owned {
    async fn open(home: &Home, place: &crate::args::Place, unlock: &crate::args::Unlock) -> Result<Self> {
        let remote = Remote::open(home, place, unlock, true).await?;
        let database = remote.database(home, place).await?;
        // The committee of today, not the one that was seen last.
        let statuses = database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
        if let Some(why) = remote::no_quorum(&statuses) {
            return Err(Failure::failed(why)
                .help("a change of the cluster needs a quorum of it: start the members that are missing"));
        }
        Ok(Self { remote, database, name: place.db.clone() })
    }

    fn committee(&self) -> Result<Committee> {
        self.database.committee().map_err(|e| remote::failure(e, "the database is not known"))
    }

    /// A node that may get a seat: it shows that it has its key, and everybody learns where it is.
    async fn newcomer(&self, address: &str, out: &Out) -> Result<Member> {
        let node = check_address(address)?;
        let dialer = self.remote.session().transport();
        dialer.add_address(&node, address).usage(format!("{address} cannot be used"))?;
        let member = self.database.newcomer(&node).await;
        let member = member.map_err(|e| remote::failure(e, &format!("{address} cannot become a member")))?;
        self.database.set_address(node, address).map_err(|e| remote::failure(e, "cannot remember the address"))?;
        let kept = self.remote.session().status(&node).await;
        if kept.is_ok_and(|status| status.databases.iter().any(|d| d.db == self.database.id())) {
            out.note(format!("node {node} keeps this database already; it catches up from where it is"));
        }
        Ok(member)
    }

    async fn invite(&self, node: &NodeId) -> Result<()> {
        let invited = self.database.invite(node).await;
        invited.map_err(|e| remote::failure(e, &format!("node {node} does not follow the database")))
    }

    async fn order(&self, change: ClusterChange, what: &str) -> Result<OpReceipt> {
        match self.database.change_cluster(change).await {
            Ok(receipt) => Ok(receipt),
            Err(e) => Err(failure_of(&self.database, e, what).await),
        }
    }

    /// Orders a change of seats and, unless told not to, waits for it.
    async fn seat(
        &self,
        change: ClusterChange,
        comes: Option<NodeId>,
        goes: Option<NodeId>,
        wait: &Wait,
        home: &Home,
        out: &Out,
    ) -> Result<()> {
        let receipt = self.order(change, "the change was not ordered").await?;
        let mut value = json!({
            "db": self.database.id(), "name": self.name, "joins": comes, "leaves": goes, "ordered_at": receipt.height, "done": false,
        });
        if wait.no_wait {
            out.result(&value, |out| {
                out.line(format!(
                    "ordered at height {}; `fluence cluster status` shows how it comes true",
                    receipt.height
                ));
            });
            return self.keep(home);
        }
        let wanted =
            |c: &Committee| comes.is_none_or(|n| c.member(&n).is_some()) && goes.is_none_or(|n| c.member(&n).is_none());
        let begun = Instant::now();
        let limit = Duration::from_secs(wait.timeout);
        let bar = out.progress("waiting for the members", "", 0);
        let mut invited = begun;
        let mut said = String::new();
        let also: Vec<NodeId> = comes.into_iter().collect();
        let done = self.database.await_committee(wanted, &also, EVERY, async |statuses: &Statuses| {
            said = stage(statuses, comes, goes);
            bar.message(&said);
            bar.set(0, 0);
            if dropped(statuses, receipt.height, comes, goes) {
                return Err(Waited::Dropped);
            }
            if begun.elapsed() > limit {
                return Err(Waited::Timeout);
            }
            let lacking = |(n, r): &(NodeId, Result<_, ClientError>)| Some(*n) == comes && r.as_ref().is_err_and(lacks);
            if let Some((node, _)) = statuses.iter().find(|s| lacking(s))
                && invited.elapsed() > INVITE_AGAIN
            {
                // It was told to follow, and gave up or was started anew.
                invited = Instant::now();
                let _ = self.database.invite(node).await;
            }
            Ok(())
        });
        let done = done.await;
        bar.done();
        let committee = done.map_err(|e| match e {
            Waited::Client(e) => remote::failure(e, "cannot follow the cluster"),
            Waited::Dropped => Failure::failed("the change was dropped: the owner asked for another one, or cancelled it"),
            Waited::Timeout => Failure::failed(format!("the change did not come true within {} s", limit.as_secs()))
                .because(&said)
                .help("it goes on without this command: `fluence cluster status --watch` shows it, `fluence cluster cancel` drops it"),
        })?;
        self.keep(home)?;
        value["done"] = json!(true);
        value["since_epoch"] = json!(committee.since);
        value["members"] = json!(committee.members.iter().map(|m| m.node).collect::<Vec<_>>());
        out.result(&value, |out| {
            out.line(format!(
                "{}; the committee since consensus epoch {}:",
                super::bears(committee.members.len()),
                committee.since
            ));
            committee.members.iter().for_each(|m| out.line(format!("  {}", m.node)));
        });
        Ok(())
    }

    /// Writes the addresses of those who keep the database, and of those who are to, into the configuration.
    fn keep(&self, home: &Home) -> Result<()> {
        let known = self.database.session().known().remove(&self.database.id());
        let committee = self.committee()?;
        let named = |n: &NodeId| committee.member(n).is_some();
        let nodes = known.map(|k| k.addresses).unwrap_or_default().into_iter().filter(|(n, _)| named(n));
        let nodes: Vec<String> = nodes.map(|(_, address)| address).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        let mut config = home.config()?;
        config.databases.entry(self.name.clone()).or_default().nodes = nodes;
        home.save(&config)
    }
}

/// Why the waiting ended.
enum Waited {
    Client(ClientError),
    Dropped,
    Timeout,
}

impl From<ClientError> for Waited {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Whether every member that is past the operation has forgotten the wish, and has not agreed to it.
fn dropped(statuses: &Statuses, ordered: Height, comes: Option<NodeId>, goes: Option<NodeId>) -> bool {
    let mut past = statuses.iter().filter_map(|(_, r)| r.as_ref().ok()).filter(|s| s.height > ordered).peekable();
    let wished = |wish: &ClusterChange| match wish {
        ClusterChange::Join(member) => comes == Some(member.node) && goes.is_none(),
        ClusterChange::Leave(node) => goes == Some(*node) && comes.is_none(),
        ClusterChange::Replace { out, with } => goes == Some(*out) && comes == Some(with.node),
        _ => false,
    };
    past.peek().is_some()
        && past.all(|s| {
            let agreed = comes.is_none_or(|n| s.next.contains(&n)) && goes.is_none_or(|n| !s.next.contains(&n));
            !agreed && !s.wish.as_ref().is_some_and(wished)
        })
}

/// How far a change is, in words.
fn stage(statuses: &Statuses, comes: Option<NodeId>, goes: Option<NodeId>) -> String {
    let members = statuses.iter().filter(|(n, _)| Some(*n) != comes);
    let (total, good) = members.clone().fold((0, 0), |(t, g), (_, r)| (t + 1, g + usize::from(r.is_ok())));
    if good < quorum(total) {
        return format!("no quorum: {good} of {total} members answer, {} are needed", quorum(total));
    }
    let furthest = members.filter_map(|(_, r)| r.as_ref().ok()).max_by_key(|s| s.height);
    let Some(at) = furthest else { return "no member answers".to_owned() };
    let agreed = comes.is_none_or(|n| at.next.contains(&n)) && goes.is_none_or(|n| !at.next.contains(&n));
    let left = if ends_epoch(at.height) { EPOCH_BLOCKS } else { EPOCH_BLOCKS - 1 - at.height.0 % EPOCH_BLOCKS };
    if agreed {
        return format!("agreed; epoch {} ends in {left} blocks, then the seat changes", at.epoch);
    }
    let of_newcomer = statuses.iter().find(|(n, _)| Some(*n) == comes).map(|(_, r)| r);
    match of_newcomer {
        Some(Err(error)) if lacks(error) => "the newcomer fetches the state".to_owned(),
        Some(Err(error)) => format!("the newcomer does not answer: {error}"),
        Some(Ok(s)) if s.missing_segments > 0 => {
            format!("the newcomer fetches {} in {} segments", output::bytes(s.missing_bytes), s.missing_segments)
        }
        Some(Ok(s)) if s.height.0 + 2 < at.height.0 => {
            format!("the newcomer catches up: block {} of {}", s.height, at.height)
        }
        Some(Ok(_)) => "the newcomer has everything; it proves that, and the members vote".to_owned(),
        None => format!("the members vote; epoch {} has {left} blocks left", at.epoch),
    }
}

pub(crate) async fn join(args: &ClusterJoin, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let member = owned.newcomer(&args.newcomer, out).await?;
    introduce(&owned.database, out).await?;
    owned.invite(&member.node).await?;
    let node = member.node;
    owned.seat(ClusterChange::Join(member), Some(node), None, &args.wait, home, out).await
}

pub(crate) async fn leave(args: &ClusterLeave, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let committee = owned.committee()?;
    let node = member_of(&committee.members, &args.member)?;
    warn_of_size(committee.members.len().saturating_sub(1), out);
    owned.seat(ClusterChange::Leave(node), None, Some(node), &args.wait, home, out).await
}

pub(crate) async fn replace(args: &ClusterReplace, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let goes = member_of(&owned.committee()?.members, &args.out)?;
    let with = owned.newcomer(&args.with, out).await?;
    introduce(&owned.database, out).await?;
    owned.invite(&with.node).await?;
    let comes = with.node;
    owned.seat(ClusterChange::Replace { out: goes, with }, Some(comes), Some(goes), &args.wait, home, out).await
}

pub(crate) async fn standby(args: &ClusterStandby, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    if args.nodes.is_empty() && !args.clear {
        let statuses =
            owned.database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
        let furthest = statuses.iter().filter_map(|(_, r)| r.as_ref().ok()).max_by_key(|s| s.height);
        let standby = furthest.map(|s| s.standby.to_vec()).unwrap_or_default();
        out.result(&json!({ "db": owned.database.id(), "name": owned.name, "standby": standby }), |out| {
            if standby.is_empty() {
                out.line("nobody waits");
            }
            standby.iter().for_each(|node| out.line(node));
        });
        return Ok(());
    }
    if args.nodes.len() > STANDBY_MAX {
        return Err(
            Failure::usage(format!("{} nodes, at most {STANDBY_MAX} may wait", args.nodes.len())).help("name fewer")
        );
    }
    let mut members: Vec<Member> = Vec::with_capacity(args.nodes.len());
    for address in &args.nodes {
        let member = owned.newcomer(address, out).await?;
        if members.iter().any(|m| m.node == member.node) {
            return Err(Failure::usage(format!("node {} is named twice", member.node)).help("each node once"));
        }
        members.push(member);
    }
    let nodes: Vec<NodeId> = members.iter().map(|m| m.node).collect();
    introduce(&owned.database, out).await?;
    for node in &nodes {
        owned.invite(node).await?;
    }
    let list = Bounded::new(members).expect("checked above");
    let receipt = owned.order(ClusterChange::Standby(list), "the list was not ordered").await?;
    let value =
        json!({ "db": owned.database.id(), "name": owned.name, "standby": nodes, "ordered_at": receipt.height });
    out.result(&value, |out| match nodes.len() {
        0 => out.line("nobody waits any more"),
        n => out.line(format!("{n} nodes fetch the database and wait for a seat; `fluence cluster status` shows them")),
    });
    Ok(())
}

pub(crate) async fn cancel(args: &ClusterPlace, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let receipt = owned.order(ClusterChange::Cancel, "nothing was cancelled").await?;
    let value = json!({ "db": owned.database.id(), "name": owned.name, "ordered_at": receipt.height });
    out.result(&value, |out| out.line(format!("dropped at height {}", receipt.height)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_client::TransportError;
    use fluence_crypto::secret::Secret;
    use fluence_crypto::sign::NodeKey;
    use fluence_types::answer::OpenRefusal;
    use fluence_types::{DatabaseId, DbRoot};
    use fluence_wire::message::{ClusterStatus, Refusal};

    fn member(i: u8) -> Member {
        NodeKey::new(Secret::new([i; 32])).member()
    }

    fn status(height: u64, next: &[u8], wish: Option<ClusterChange>) -> ClusterStatus {
        ClusterStatus {
            db: DatabaseId::default(),
            epoch: 0,
            view: 1,
            height: Height(height),
            finalized: Height(height),
            root: DbRoot::default(),
            voting: true,
            waiting: 0,
            missing_segments: 0,
            missing_bytes: 0,
            members: Bounded::default(),
            next: Bounded::new(next.iter().map(|i| member(*i).node).collect()).unwrap(),
            wish,
            standby: Bounded::default(),
            certificate: None,
        }
    }

    fn cluster(height: u64, next: &[u8], wish: Option<ClusterChange>) -> Statuses {
        (1..=4).map(|i| (member(i).node, Ok(status(height, next, wish.clone())))).collect()
    }

    const NOW: &[u8] = &[1, 2, 3, 4];

    #[test]
    fn a_wish_is_dropped_when_members_that_saw_it_forgot_it_and_did_not_agree() {
        let (five, six) = (member(5), member(6));
        let comes = Some(five.node);
        let join = |m: &Member| Some(ClusterChange::Join(m.clone()));
        assert!(!dropped(&cluster(10, NOW, join(&five)), Height(8), comes, None), "it stands");
        assert!(!dropped(&cluster(8, NOW, None), Height(8), comes, None), "nobody is past it");
        assert!(!dropped(&cluster(10, &[1, 2, 3, 4, 5], None), Height(8), comes, None), "agreed");
        assert!(dropped(&cluster(10, NOW, None), Height(8), comes, None), "cancelled");
        assert!(dropped(&cluster(10, NOW, join(&six)), Height(8), comes, None), "another wish");
        let replace = Some(ClusterChange::Replace { out: member(1).node, with: five });
        assert!(!dropped(&cluster(10, NOW, replace.clone()), Height(8), comes, Some(member(1).node)));
        assert!(dropped(&cluster(10, NOW, replace), Height(8), comes, Some(member(2).node)));
    }

    #[test]
    fn the_stage_says_what_is_waited_for() {
        let five = member(5).node;
        let lacking = ClientError::Refused {
            node: five,
            refusal: Refusal::Open(OpenRefusal::UnknownDatabase(DatabaseId::default())),
        };
        let with = |newcomer: Result<ClusterStatus, ClientError>, next: &[u8]| {
            let mut all = cluster(70, next, None);
            all.push((five, newcomer));
            stage(&all, Some(five), None)
        };
        assert!(with(Err(lacking), NOW).contains("fetches the state"));
        let filling = ClusterStatus { missing_segments: 2, missing_bytes: 3 << 20, ..status(70, NOW, None) };
        assert!(with(Ok(filling), NOW).contains("3.00 MiB in 2 segments"));
        assert!(with(Ok(status(20, NOW, None)), NOW).contains("block 20 of 70"));
        assert!(with(Ok(status(70, NOW, None)), NOW).contains("proves"));
        assert!(with(Ok(status(70, NOW, None)), &[1, 2, 3, 4, 5]).contains("ends in 57 blocks"));
        let mut few = cluster(70, NOW, None);
        for (node, result) in few.iter_mut().take(2) {
            *result = Err(TransportError::NoAddress(*node).into());
        }
        assert!(stage(&few, Some(five), None).contains("2 of 4 members answer, 3 are needed"));
    }
}
