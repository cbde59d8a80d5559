//! `fluence sql`: a shell over a database, statements from the command line or a file, or a server for Postgres and HTTP clients.
//!
//! Rooms  `keys` what succinct proofs are checked with, `serve` the server, `shell` reading statements, `print` what they say. Built with the feature `sql` only.

#[cfg(feature = "sql")]
mod keys;
#[cfg(feature = "sql")]
mod print;
#[cfg(feature = "sql")]
mod serve;
#[cfg(feature = "sql")]
mod shell;

use crate::args::Sql;
use crate::error::Result;
use crate::home::Home;
use crate::output::Out;

#[cfg(not(feature = "sql"))]
pub(crate) async fn run(_: &Sql, _: &Home, _: &Out) -> Result<()> {
    Err(crate::error::Failure::failed("this fluence was built without SQL")
        .help("build it with: cargo build -p fluence-cli --features sql"))
}

#[cfg(feature = "sql")]
pub(crate) async fn run(args: &Sql, home: &Home, out: &Out) -> Result<()> {
    use crate::remote::Remote;
    use fluence_gateway::Gateway;
    use fluence_gateway::session::GatewayOptions;
    use std::sync::Arc;

    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database_or_new(home, &args.place, out).await?;
    crate::chain::floor(&args.chain, home, remote.session(), database.id(), out).await?;
    let options = GatewayOptions {
        database: Some(args.place.db.clone()),
        proof_keys: Some(Arc::new(keys::HomeKeys::new(home))),
        ..GatewayOptions::default()
    };
    let gateway = Gateway::new(Arc::new(database), options);
    if args.listen.is_some() || args.http.is_some() {
        serve::run(gateway, args, home, out).await
    } else {
        shell::run(gateway, args, home, out).await
    }
}
