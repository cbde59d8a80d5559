//! A seat changes hands: the newcomer is shown around, the wish is ordered, and watched until the committee has handed over.
//!
//! ```text
//! newcomer proves its vote key -> members learn its address -> it follows -> the wish is ordered -> it fetches, proves, gets its seat
//! ```
//! Rule    done is when the committee before has handed over, by certificate. Until then writes go on, and the wish may be dropped.
//! Used by `fluence cluster create|join|leave|replace|standby`, and by the demo.

use super::introduce;
use super::status::EVERY;
use crate::error::{Context, Failure, Result};
use crate::output::{self, Out};
use crate::remote::{self, check_address, failure_of};
use fluence_client::cluster::{Statuses, lacks};
use fluence_client::dial::Dialer;
use fluence_client::{ClientError, Database};
use fluence_types::block::{Member, ends_epoch, quorum};
use fluence_types::codec::Bounded;
use fluence_types::limits::{EPOCH_BLOCKS, STANDBY_MAX};
use fluence_types::op::{ClusterChange, OpReceipt};
use fluence_types::{Height, NodeId};
use fluence_verifier::committee::Committee;
use std::time::{Duration, Instant};

/// Between two invitations of a newcomer that has not begun.
const INVITE_AGAIN: Duration = Duration::from_secs(10);

/// Who comes and who goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Gets a seat.
    pub(crate) comes: Option<NodeId>,
    /// Loses one.
    pub(crate) goes: Option<NodeId>,
}

/// A node that may get a seat: it shows that it has its key, and its address is remembered.
pub(crate) async fn newcomer(database: &Database<Dialer>, address: &str, out: &Out) -> Result<Member> {
    let node = check_address(address)?;
    let session = database.session();
    session.transport().add_address(&node, address).usage(format!("{address} cannot be used"))?;
    let member = database.newcomer(&node).await;
    let member = member.map_err(|e| remote::failure(e, &format!("{address} cannot become a member")))?;
    database.set_address(node, address).map_err(|e| remote::failure(e, "cannot remember the address"))?;
    let kept = session.status(&node).await;
    if kept.is_ok_and(|status| status.databases.iter().any(|d| d.db == database.id())) {
        out.note(format!("node {node} keeps this database already; it catches up from where it is"));
    }
    Ok(member)
}

/// Everybody learns where everybody is, and newcomers begin to follow. One that is to go may be gone already.
pub(crate) async fn invite(
    database: &Database<Dialer>,
    nodes: &[NodeId],
    goes: Option<NodeId>,
    out: &Out,
) -> Result<()> {
    introduce(database, goes, out).await?;
    for node in nodes {
        let invited = database.invite(node).await;
        invited.map_err(|e| remote::failure(e, &format!("node {node} does not follow the database")))?;
    }
    Ok(())
}

/// Names the nodes at these addresses, in order of preference, as those that take the place of members that are missing for long.
pub(crate) async fn stand_by(
    database: &Database<Dialer>,
    addresses: &[String],
    out: &Out,
) -> Result<(Vec<NodeId>, OpReceipt)> {
    if addresses.len() > STANDBY_MAX {
        let what = format!("{} nodes, at most {STANDBY_MAX} may wait", addresses.len());
        return Err(Failure::usage(what).help("name fewer"));
    }
    let mut members: Vec<Member> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let member = newcomer(database, address, out).await?;
        if members.iter().any(|m| m.node == member.node) {
            return Err(Failure::usage(format!("node {} is named twice", member.node)).help("each node once"));
        }
        members.push(member);
    }
    let nodes: Vec<NodeId> = members.iter().map(|m| m.node).collect();
    invite(database, &nodes, None, out).await?;
    let list = Bounded::new(members).expect("checked above");
    let receipt = order(database, ClusterChange::Standby(list), "the list of those that wait was not ordered").await?;
    Ok((nodes, receipt))
}

/// Has the owner's wish ordered.
pub(crate) async fn order(database: &Database<Dialer>, change: ClusterChange, what: &str) -> Result<OpReceipt> {
    match database.change_cluster(change).await {
        Ok(receipt) => Ok(receipt),
        Err(e) => Err(failure_of(database, e, what).await),
    }
}

/// Waits until a change that was ordered has come true; `say` hears how far it is.
pub(crate) async fn come_true(
    database: &Database<Dialer>,
    ordered: Height,
    places: Places,
    limit: Duration,
    mut say: impl FnMut(&str),
) -> Result<Committee> {
    let Places { comes, goes } = places;
    let wanted =
        |c: &Committee| comes.is_none_or(|n| c.member(&n).is_some()) && goes.is_none_or(|n| c.member(&n).is_none());
    let begun = Instant::now();
    let mut invited = begun;
    let mut said = String::new();
    let also: Vec<NodeId> = comes.into_iter().collect();
    let done = database.await_committee(wanted, &also, EVERY, async |statuses: &Statuses| {
        said = stage(statuses, comes, goes);
        say(&said);
        if dropped(statuses, ordered, comes, goes) {
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
            let _ = database.invite(node).await;
        }
        Ok(())
    });
    let done = done.await;
    done.map_err(|e| match e {
        Waited::Client(e) => remote::failure(e, "cannot follow the cluster"),
        Waited::Dropped => Failure::failed("the change was dropped: the owner asked for another one, or cancelled it"),
        Waited::Timeout => Failure::failed(format!("the change did not come true within {} s", limit.as_secs()))
            .because(&said)
            .help("it goes on without this command: `fluence cluster status --watch` shows it, `fluence cluster cancel` drops it"),
    })
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
