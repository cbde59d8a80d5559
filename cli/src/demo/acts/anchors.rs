//! The clusters on chain: the owner registers each, and its members post its certificate by themselves.

use super::{PATIENCE, Play, World};
use crate::demo::story::Story;
use crate::error::{Context, Failure, Result};
use fluence_bindings::{Chain, CommitteeMember, Connection};
use fluence_client::Table;
use fluence_client::dial::Dialer;
use fluence_crypto::vote::{signature_eip2537, vote_key_eip2537};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the owner may spend on gas, in wei.
const GAS_MONEY: u128 = 1_000_000_000_000_000_000;

impl Play {
    /// Registers every database's cluster, and waits until its members have posted a certificate.
    pub(super) async fn anchor(&self, story: &mut Story, world: &World, tables: &[Table<Dialer>]) -> Result<()> {
        story.begin("certificates on chain");
        let (owner, keyring) = (world.session.address(), Arc::clone(world.session.keyring()));
        self.anvil().fund(&owner, GAS_MONEY).await.doing("cannot fund the owner")?;
        let sign: fluence_bindings::SignHash = Arc::new(move |hash| keyring.sign_prehash(hash));
        let connection =
            Connection::signing(self.anvil().rpc_url(), owner, sign).doing("cannot connect to the chain")?;
        let chain =
            Chain::open(connection, world.chain.deployment().clone()).await.doing("the chain does not answer")?;
        for table in tables {
            let trust = world.session.trust(&table.db()).doing("a database is unknown")?;
            let mut members = Vec::new();
            for member in trust.committee.members.iter() {
                let key = vote_key_eip2537(member).doing("a member's key is malformed")?;
                let possession = signature_eip2537(&member.possession).doing("a member's key is malformed")?;
                members.push((CommitteeMember { node: member.node, key }, possession));
            }
            chain.open_cluster(&table.db(), &members).await.doing("a cluster cannot be registered")?;
        }
        let begun = Instant::now();
        for table in tables {
            while chain.latest_checkpoint(&owner, &table.db()).await.doing("the chain does not answer")?.is_none() {
                if begun.elapsed() > PATIENCE {
                    return Err(Failure::failed("the members posted no certificate"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let posted = chain.certified_events(0).await.doing("the chain does not answer")?.len();
        story.fact("clusters", tables.len());
        story.fact("certificates", posted);
        story.end(format!(
            "{} clusters registered by their owner; their members posted {posted} certificates, checked by the contract",
            tables.len()
        ));
        Ok(())
    }
}
