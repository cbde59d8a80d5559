//! The clusters on chain: the owner registers each, and its members post its certificate by themselves.

use super::fifth::REPLACED_IN;
use super::{PATIENCE, Play, World};
use crate::demo::story::Story;
use crate::error::{Context, Failure, Result};
use fluence_bindings::{Chain, CommitteeMember, Connection};
use fluence_client::Table;
use fluence_client::dial::Dialer;
use fluence_crypto::vote::{members_hash, signature_eip2537, vote_key_eip2537};
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
                self.pass_a_block().await?;
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

    /// Lets a block pass, as it does on every other chain: one member is down, and the turn of the next comes by the blocks.
    async fn pass_a_block(&self) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(400)).await;
        self.anvil().mine(1).await.doing("the chain does not answer")
    }

    /// Waits until the members have shown the chain that the fifth is one of them: the committee before has signed who comes after it.
    pub(super) async fn hand_over_on_chain(
        &self,
        story: &mut Story,
        world: &World,
        tables: &[Table<Dialer>],
    ) -> Result<()> {
        story.begin("handover on chain");
        let (db, owner) = (tables[REPLACED_IN].db(), world.session.address());
        let members = world.session.trust(&db).doing("a database is unknown")?.committee.members;
        let wanted = members_hash(&members).doing("the members make no committee")?;
        let begun = Instant::now();
        while world.chain.committee_of(&owner, &db).await.doing("the chain does not answer")? != wanted {
            if begun.elapsed() > PATIENCE {
                return Err(Failure::failed("the members did not post how their committee changed"));
            }
            self.pass_a_block().await?;
        }
        story.fact("committee", hex::encode(wanted));
        story.end(format!(
            "the contract checked the certificate by which quarter-{}'s committee handed over, and takes only the new one's from now on",
            REPLACED_IN + 1
        ));
        Ok(())
    }
}
