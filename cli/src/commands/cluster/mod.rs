//! `fluence cluster`: the nodes that keep a database together, from the first to the next committee.
//!
//! Rule    what a member says of itself is shown, and believed only where a certificate stands behind it: that a seat changed is the word
//!         of the committee before.

mod change;
mod create;
mod draw;
mod register;
pub(crate) mod seat;
mod status;

use crate::args::{Cluster, ClusterPlace};
use crate::error::{Failure, Result};
use crate::home::Home;
use crate::output::Out;
use crate::remote::{self, Remote, node_of};
use fluence_client::Database;
use fluence_client::dial::{Dialer, peer_id};
use fluence_types::block::{Members, quorum};
use fluence_types::{CommitteeHash, NodeId};
use fluence_verifier::committee::Committee;
use serde_json::{Value, json};

pub(crate) async fn run(command: &Cluster, home: &Home, out: &Out) -> Result<()> {
    match command {
        Cluster::Create(args) => create::run(args, home, out).await,
        Cluster::Status(args) => status::run(args, home, out).await,
        Cluster::Members(args) => members(args, home, out).await,
        Cluster::Join(args) => change::join(args, home, out).await,
        Cluster::Leave(args) => change::leave(args, home, out).await,
        Cluster::Replace(args) => change::replace(args, home, out).await,
        Cluster::Standby(args) => change::standby(args, home, out).await,
        Cluster::Register(args) => register::run(args, home, out).await,
        Cluster::Cancel(args) => change::cancel(args, home, out).await,
    }
}

/// What the cluster bears, in words.
fn bears(members: usize) -> String {
    match (members, members.saturating_sub(1) / 3) {
        (1, _) => "one node: it stops with it".to_owned(),
        (n, 0) => format!("{n} members bear no fault: all of them must be there"),
        (n, f) => format!("{n} members, a quorum is {}: it bears {f} that are missing or lie", quorum(n)),
    }
}

/// Warns of a cluster that bears no fault.
fn warn_of_size(members: usize, out: &Out) {
    if members.saturating_sub(1) / 3 == 0 {
        out.warn(format!("{}; 4 bear one, 7 bear two", bears(members)));
    }
}

/// The member that a text names: an id, the first digits of one, a peer id, or an address.
fn member_of(members: &Members, text: &str) -> Result<NodeId> {
    // Ids are printed cut, with dots after them.
    let text = text.trim_end_matches('.');
    let digits = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    let by_peer = |node: &NodeId| peer_id(node).is_ok_and(|peer| peer.to_string() == text);
    let by_id = |node: &NodeId| digits.len() >= 4 && node.to_string()[2..].starts_with(&digits);
    let address = node_of(text);
    let found: Vec<NodeId> =
        members.iter().map(|m| m.node).filter(|n| address == Some(*n) || by_peer(n) || by_id(n)).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Failure::usage(format!("{text:?} names no member"))
            .help("`fluence cluster members` lists them; an id, at least 4 of its first digits, a peer id or an address names one")),
        _ => Err(Failure::usage(format!("{} members' ids begin with {text:?}", found.len())).help("give more digits")),
    }
}

/// Where a node is reached, as far as is known here.
fn address_of(database: &Database<Dialer>, node: &NodeId) -> Option<String> {
    let known = database.session().known().remove(&database.id())?;
    known.addresses.into_iter().find(|(n, _)| n == node).map(|(_, address)| address)
}

/// Tells every member where all are; what fails is said, and stops nothing. Nothing is said of one that is to go.
async fn introduce(database: &Database<Dialer>, goes: Option<NodeId>, out: &Out) -> Result<Value> {
    let told = database.introduce(&[]).await;
    let told = told.map_err(|e| remote::failure(e, "cannot tell the members where the others are"))?;
    let mut list = Vec::new();
    for (node, result) in told {
        if let Err(error) = &result
            && goes != Some(node)
        {
            out.warn(format!("{node} was not told where the others are: {error}"));
        }
        list.push(json!({ "node": node, "told": result.is_ok(), "error": result.err().map(|e| e.to_string()) }));
    }
    Ok(json!(list))
}

/// `members`.
async fn members(args: &ClusterPlace, home: &Home, out: &Out) -> Result<()> {
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    // Which committee is the latest is what the members' certificates say.
    let statuses = database.cluster_status().await;
    let statuses = statuses.map_err(|e| remote::failure(e, "cannot ask the members"))?;
    let told = introduce(&database, None, out).await?;
    let committee = database.committee().map_err(|e| remote::failure(e, "the database is not known"))?;
    let Committee { since, ref members, .. } = committee;
    // As chains know it, and `fluence verify-export` takes it.
    let hash = fluence_crypto::vote::members_hash(members).ok().map(CommitteeHash::from_bytes);
    let list: Vec<Value> = members
        .iter()
        .map(|m| {
            let peer = peer_id(&m.node).map(|p| p.to_string()).unwrap_or_default();
            json!({ "node": m.node, "peer": peer, "address": address_of(&database, &m.node), "vote_key": hex::encode(m.vote_key) })
        })
        .collect();
    let value = json!({
        "db": database.id(), "name": args.place.db, "since_epoch": since, "quorum": quorum(members.len()), "members": list,
        "introduced": told, "committee": hash,
    });
    out.result(&value, |out| {
        out.line(format!("database {} ({})", out.bold(&args.place.db), database.id()));
        out.line(format!("{}; the committee since consensus epoch {since}", bears(members.len())));
        if let Some(hash) = &hash {
            out.line(format!("committee {hash}"));
        }
        for m in members.iter() {
            let address = address_of(&database, &m.node).unwrap_or_else(|| "no address known".to_owned());
            out.line(format!("  {}  {address}", m.node));
        }
    });
    match remote::no_quorum(&statuses) {
        Some(why) => Err(Failure::failed(why).help("start the members that are missing")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_crypto::secret::Secret;
    use fluence_crypto::sign::NodeKey;

    #[test]
    fn members_are_named_by_id_prefix_peer_or_address_and_nobody_else_is() {
        let mut list: Vec<_> = (0..4).map(|i| NodeKey::new(Secret::new([i; 32])).member()).collect();
        list.sort_by_key(|m| m.node);
        let (node, other) = (list[2].node, NodeKey::new(Secret::new([9; 32])).id());
        let members: Members = list.try_into().unwrap();
        let peer = peer_id(&node).unwrap();
        let (id, address) = (node.to_string(), format!("/ip4/10.0.0.1/tcp/4401/p2p/{peer}"));
        for text in [&id[..], &id[2..], &id[2..10], &id[2..10].to_uppercase(), &peer.to_string(), &address] {
            assert_eq!(member_of(&members, text).unwrap(), node, "{text}");
        }
        for text in ["", "0x", &id[2..5], &other.to_string(), &peer_id(&other).unwrap().to_string(), "zzzz"] {
            assert!(member_of(&members, text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_cluster_bears_is_said_by_its_size() {
        for (members, words) in [(1, "stops"), (2, "no fault"), (3, "no fault"), (4, "bears 1"), (7, "bears 2")] {
            assert!(bears(members).contains(words), "{members}: {}", bears(members));
        }
    }
}
