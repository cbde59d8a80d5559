//! The chain as commands of owners use it: opened from flags or the configuration, and as a floor under what members say.
//!
//! Rule    the owner's key stays in the keyring: it signs the hashes of its transactions there.

use crate::args::ChainPlace;
use crate::error::{Context, Failure, Help, Result};
use crate::home::Home;
use crate::output::Out;
use fluence_bindings::{CertifiedCheckpoint, Chain, ChainError, Connection, Deployment};
use fluence_client::{Keyring, Session, Transport};
use fluence_types::{Address, DatabaseId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a chain may take to say how high a checkpoint is.
const FLOOR_LIMIT: Duration = Duration::from_secs(10);

/// RPC address and deployment file, from the flags, else from the configuration; none where either is missing there.
fn place(args: &ChainPlace, home: &Home) -> Result<Option<(String, PathBuf)>> {
    let known = home.config()?.chain.unwrap_or_default();
    match (args.rpc.clone().or(known.rpc), args.deployment.clone().or(known.deployment)) {
        (Some(rpc), Some(deployment)) => Ok(Some((rpc, deployment))),
        (_, None) if args.rpc.is_some() => Err(Failure::usage("--rpc needs --deployment").help(HELP)),
        (None, _) if args.deployment.is_some() => Err(Failure::usage("--deployment needs --rpc").help(HELP)),
        _ => Ok(None),
    }
}

const HELP: &str = "name both, --rpc URL --deployment FILE, or keep them: fluence init --rpc URL --deployment FILE";

async fn open(deployment: &Path, connection: Result<Connection, ChainError>) -> Result<Chain> {
    let deployment = Deployment::read(deployment).usage("the deployment cannot be used")?;
    let connection = connection.usage("the chain cannot be used")?;
    Chain::open(connection, deployment).await.doing("the chain cannot be used").or_help(HELP)
}

/// The chain, with the owner's account as sender.
pub(crate) async fn as_owner(args: &ChainPlace, home: &Home, keyring: &Arc<Keyring>) -> Result<Chain> {
    let (rpc, deployment) = place(args, home)?.ok_or_else(|| Failure::usage("no chain is named").help(HELP))?;
    let signer = Arc::clone(keyring);
    let sign: fluence_bindings::SignHash = Arc::new(move |hash| signer.sign_prehash(hash));
    open(&deployment, Connection::signing(&rpc, keyring.address(), sign)).await
}

/// The last checkpoint of an owner's database that the chain has; none where no chain is named, nobody registered the cluster, or no
/// certificate came yet.
async fn checkpoint(
    args: &ChainPlace,
    home: &Home,
    owner: Address,
    db: DatabaseId,
) -> Result<Option<CertifiedCheckpoint>> {
    let Some((rpc, deployment)) = place(args, home)? else { return Ok(None) };
    let looked = tokio::time::timeout(FLOOR_LIMIT, async {
        let chain = open(&deployment, Connection::new(&rpc, None)).await?;
        match chain.latest_checkpoint(&owner, &db).await {
            Err(e) if e.refusal() == Some("ClusterUnknown") => Ok(None),
            other => other.doing("the chain does not say how high its checkpoint is"),
        }
    });
    looked.await.unwrap_or_else(|_| {
        Err(Failure::failed(format!("the chain did not answer within {} s", FLOOR_LIMIT.as_secs())).help(HELP))
    })
}

/// Makes the chain's checkpoint the least height that is believed of a database. A chain named by flags must answer; one that only the
/// configuration names is done without, with a warning.
pub(crate) async fn floor<T: Transport>(
    args: &ChainPlace,
    home: &Home,
    session: &Session<T>,
    db: DatabaseId,
    out: &Out,
) -> Result<Option<CertifiedCheckpoint>> {
    match checkpoint(args, home, session.address(), db).await {
        Ok(found) => {
            if let Some(checkpoint) = &found {
                session.raise_floor(db, checkpoint.executed_height);
            }
            Ok(found)
        }
        Err(failure) if args.rpc.is_none() && args.deployment.is_none() => {
            out.warn(format!("without the chain's checkpoint: {}", failure.one_line()));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}
