//! `fluence cluster join`, `leave`, `replace`, `standby`, `cancel`: what the owner wants, and how it comes true.

use super::seat::{self, Places};
use super::{member_of, warn_of_size};
use crate::args::{ClusterJoin, ClusterLeave, ClusterPlace, ClusterReplace, ClusterStandby, Wait};
use crate::error::{Failure, Result};
use crate::home::Home;
use crate::output::Out;
use crate::remote::{self, Remote};
use fluence_client::Database;
use fluence_client::dial::Dialer;
use fluence_types::NodeId;
use fluence_types::op::ClusterChange;
use fluence_verifier::committee::Committee;
use serde_json::json;
use std::time::Duration;

/// The database, and who is asked.
struct Owned {
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
        Ok(Self { database, name: place.db.clone() })
    }

    fn committee(&self) -> Result<Committee> {
        self.database.committee().map_err(|e| remote::failure(e, "the database is not known"))
    }

    /// Orders a change of seats and, unless told not to, waits for it.
    async fn seat(&self, change: ClusterChange, places: Places, wait: &Wait, home: &Home, out: &Out) -> Result<()> {
        let Places { comes, goes } = places;
        let receipt = seat::order(&self.database, change, "the change was not ordered").await?;
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
        let bar = out.progress("waiting for the members", "", 0);
        let limit = Duration::from_secs(wait.timeout);
        let committee = seat::come_true(&self.database, receipt.height, places, limit, |said| {
            bar.message(said);
            bar.set(0, 0);
        });
        let committee = committee.await;
        bar.done();
        let committee = committee?;
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

pub(crate) async fn join(args: &ClusterJoin, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let member = seat::newcomer(&owned.database, &args.newcomer, out).await?;
    seat::invite(&owned.database, &[member.node], None, out).await?;
    let node = member.node;
    let places = Places { comes: Some(node), goes: None };
    owned.seat(ClusterChange::Join(member), places, &args.wait, home, out).await
}

pub(crate) async fn leave(args: &ClusterLeave, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let committee = owned.committee()?;
    let node = member_of(&committee.members, &args.member)?;
    warn_of_size(committee.members.len().saturating_sub(1), out);
    let places = Places { comes: None, goes: Some(node) };
    owned.seat(ClusterChange::Leave(node), places, &args.wait, home, out).await
}

pub(crate) async fn replace(args: &ClusterReplace, home: &Home, out: &Out) -> Result<()> {
    let owned = Owned::open(home, &args.place, &args.unlock).await?;
    let goes = member_of(&owned.committee()?.members, &args.out)?;
    let with = seat::newcomer(&owned.database, &args.with, out).await?;
    seat::invite(&owned.database, &[with.node], Some(goes), out).await?;
    let places = Places { comes: Some(with.node), goes: Some(goes) };
    owned.seat(ClusterChange::Replace { out: goes, with }, places, &args.wait, home, out).await
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
    let (nodes, receipt) = seat::stand_by(&owned.database, &args.nodes, out).await?;
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
    let statuses = owned.database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
    let furthest = statuses.iter().filter_map(|(_, r)| r.as_ref().ok()).max_by_key(|s| s.height);
    if furthest.is_some_and(|s| s.wish.is_none()) {
        return Err(Failure::failed("nothing is wished for: there is nothing to cancel").help(
            "`fluence cluster status` shows what is; a seat change that the members agreed to cannot be taken back",
        ));
    }
    let receipt = seat::order(&owned.database, ClusterChange::Cancel, "nothing was cancelled").await?;
    let value = json!({ "db": owned.database.id(), "name": owned.name, "ordered_at": receipt.height });
    out.result(&value, |out| out.line(format!("dropped at height {}", receipt.height)));
    Ok(())
}
