//! `fluence cluster create`: a database, and the nodes that keep it.

use super::{bears, warn_of_size};
use crate::args::{ClusterCreate, Place};
use crate::error::{Failure, Result};
use crate::home::Home;
use crate::output::Out;
use crate::remote::{self, Remote};
use serde_json::json;

pub(crate) async fn run(args: &ClusterCreate, home: &Home, out: &Out) -> Result<()> {
    if home.config()?.databases.get(&args.name).is_some_and(|d| d.id.is_some()) {
        return Err(Failure::usage(format!("there is a database {:?} already", args.name))
            .help("choose another name; `fluence cluster members` lists who keeps it"));
    }
    let place = Place { db: args.name.clone(), node: args.node.clone() };
    let remote = Remote::open(home, &place, &args.unlock, false).await?;
    warn_of_size(remote.nodes().len(), out);
    let bar = out.progress("the members agree on the first block", "", 0);
    let made = remote.create(home, &place, out).await;
    bar.done();
    let database = made?;
    let statuses = database.cluster_status().await.map_err(|e| remote::failure(e, "cannot ask the members"))?;
    let missing: Vec<_> = statuses.iter().filter(|(_, r)| r.is_err()).map(|(node, _)| *node).collect();
    if !missing.is_empty() {
        // A quorum made it. The rest fetch it from them.
        super::introduce(&database, None, out).await?;
    }
    let members: Vec<_> =
        remote.nodes().iter().map(|(node, address)| json!({ "node": node, "address": address })).collect();
    let value = json!({
        "db": database.id(), "name": args.name, "owner": remote.session().address(), "members": members,
        "behind": missing,
    });
    out.result(&value, |out| {
        out.line(format!("database {} ({})", out.bold(&args.name), database.id()));
        out.line(format!("kept by {}", bears(members.len())));
        for (node, address) in remote.nodes() {
            out.line(format!("  {node}  {address}"));
        }
        out.note(format!("now: fluence import FILE --table NAME --key COLS --db {}", args.name));
    });
    Ok(())
}
