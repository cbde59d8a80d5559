//! `fluence cluster create`: a database, and the nodes that keep it: named, or drawn on chain.

use super::draw::{self, Draw, Drawn, Wanted};
use super::{bears, seat, warn_of_size};
use crate::args::{ClusterCreate, Place};
use crate::chain;
use crate::commands::keys;
use crate::error::{Failure, Result};
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use fluence_client::Database;
use fluence_client::dial::Dialer;
use fluence_types::NodeId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn run(args: &ClusterCreate, home: &Home, out: &Out) -> Result<()> {
    if home.config()?.databases.get(&args.name).is_some_and(|d| d.id.is_some()) {
        return Err(Failure::usage(format!("there is a database {:?} already", args.name))
            .help("choose another name; `fluence cluster members` lists who keeps it"));
    }
    if let Some(seats) = args.seats {
        return drawn(args, seats, home, out).await;
    }
    let place = Place { db: args.name.clone(), node: args.node.clone(), db_id: None };
    let remote = Remote::open(home, &place, &args.unlock, false).await?;
    warn_of_size(remote.nodes().len(), out);
    let bar = out.progress("the members agree on the first block", "", 0);
    let made = remote.create(home, &place, out).await;
    bar.done();
    made_by(&remote, &made?, args, json!({}), out).await
}

/// Members by the draw.
async fn drawn(args: &ClusterCreate, seats: u8, home: &Home, out: &Out) -> Result<()> {
    let keystore = keys::open(home, &args.unlock)?;
    let keyring = Arc::clone(keystore.keyring());
    let chain = chain::as_owner(&args.chain, home, &keyring).await?;
    let wanted = Wanted { seats, standbys: args.standbys, patience: Duration::from_secs(args.timeout) };
    let Draw { db, request, order, requests } =
        draw::run(&chain, keyring.address(), &args.name, wanted, home, out).await?;
    let seats = usize::from(seats);
    let node = order.iter().map(|d| d.address.clone()).collect();
    let place = Place { db: args.name.clone(), node, db_id: None };
    let mut remote = Remote::of(keystore, home, &place, false)?;
    let (passed_over, order) = match args.skip_silent {
        true => answering(&remote, order).await,
        false => (Vec::new(), order),
    };
    if order.len() < seats {
        let silent = passed_over.iter().map(output::short).collect::<Vec<_>>().join(", ");
        let what = format!("{} of {seats} seats: {silent} do not answer, and the draw has no more", order.len());
        return Err(Failure::failed(what).help("run the same command again when they are back"));
    }
    let (members, standbys) = order.split_at(seats);
    remote.retain(|node| members.iter().any(|d| d.node == *node));
    warn_of_size(seats, out);
    let bar = out.progress("the members agree on the first block", "", 0);
    let made = remote.create_as(db, home, &place, out).await;
    bar.done();
    let database = made?;
    let mut config = home.config()?;
    config.databases.entry(args.name.clone()).or_default().draw = None;
    home.save(&config)?;
    if !standbys.is_empty() {
        let addresses: Vec<String> = standbys.iter().map(|d| d.address.clone()).collect();
        seat::stand_by(&database, &addresses, out).await?;
    }
    let also = json!({ "draw": {
        "requested_at": request.requested_at, "seed_block": request.seed_block, "seed": hex::encode(request.seed),
        "settled_at": request.settled_at, "candidates": request.slots, "requests_of_owner": requests,
        "passed_over": passed_over, "standbys": standbys,
    } });
    made_by(&remote, &database, args, also, out).await
}

/// Passes over those of a draw who do not answer, as members or as standbys.
async fn answering(remote: &Remote, order: Vec<Drawn>) -> (Vec<NodeId>, Vec<Drawn>) {
    let nodes: Vec<NodeId> = order.iter().map(|d| d.node).collect();
    let answers: BTreeSet<NodeId> =
        remote.session().members(&nodes).await.into_iter().filter(|(_, r)| r.is_ok()).map(|(node, _)| node).collect();
    let (there, silent): (Vec<_>, Vec<_>) = order.into_iter().partition(|d| answers.contains(&d.node));
    (silent.into_iter().map(|d| d.node).collect(), there)
}

async fn made_by(
    remote: &Remote,
    database: &Database<Dialer>,
    args: &ClusterCreate,
    also: Value,
    out: &Out,
) -> Result<()> {
    let statuses = database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
    let missing: Vec<_> = statuses.iter().filter(|(_, r)| r.is_err()).map(|(node, _)| *node).collect();
    if !missing.is_empty() {
        // A quorum made it. The rest fetch it from them.
        super::introduce(database, None, out).await?;
    }
    let members: Vec<_> =
        remote.nodes().iter().map(|(node, address)| json!({ "node": node, "address": address })).collect();
    let mut value = json!({
        "db": database.id(), "name": args.name, "owner": remote.session().address(), "members": members,
        "behind": missing,
    });
    if let (Value::Object(value), Value::Object(also)) = (&mut value, &also) {
        value.extend(also.clone());
    }
    out.result(&value, |out| {
        out.line(format!("database {} ({})", out.bold(&args.name), database.id()));
        out.line(format!("kept by {}", bears(members.len())));
        for (node, address) in remote.nodes() {
            out.line(format!("  {node}  {address}"));
        }
        if let Some(draw) = also.get("draw") {
            let number = |what: &str| draw[what].as_u64().unwrap_or_default();
            out.line(format!("drawn of {} slots by the hash of block {}", number("candidates"), number("seed_block")));
            let list = |what: &str| draw[what].as_array().cloned().unwrap_or_default();
            for node in list("passed_over") {
                out.line(format!("  {} was drawn and did not answer", node.as_str().unwrap_or_default()));
            }
            for standby in list("standbys") {
                out.line(format!("  {} waits for a seat", standby["node"].as_str().unwrap_or_default()));
            }
        }
        out.note(format!("now: fluence import FILE --table NAME --key COLS --db {}", args.name));
    });
    Ok(())
}
