//! Making databases, and finding them again.
//!
//! Source  DESIGN sections 5 and 7; `docs/protocol/cluster.md`, "What a client checks"

use super::{Database, Session, lock};
use crate::error::ClientError;
use crate::keystore::KnownDatabase;
use crate::transport::Transport;
use fluence_crypto::vote;
use fluence_types::block::Members;
use fluence_types::codec::{self, Bounded};
use fluence_types::op::Op;
use fluence_types::{DatabaseId, Height, NodeId};
use fluence_verifier::answer::{self, AnswerError, CertifiedCheckpoint, Trust};
use fluence_verifier::committee::Committee;
use fluence_wire::message::DatabaseStatus;
use rand::RngCore;

impl<T: Transport> Session<T> {
    /// A fresh random database id.
    #[must_use]
    pub fn new_database_id(&self) -> DatabaseId {
        let mut id = [0; 16];
        lock(&self.inner.rng).fill_bytes(&mut id);
        DatabaseId::from_bytes(id)
    }

    /// Creates a database kept by `nodes`, with a fresh random id. Each is asked for its vote key first; then each makes the first block
    /// by itself, and a quorum of them must.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_database(
        &self,
        label: &str,
        nodes: Vec<NodeId>,
        addresses: Vec<(NodeId, String)>,
    ) -> Result<Database<T>, ClientError> {
        self.create_database_as(self.new_database_id(), label, nodes, addresses).await
    }

    /// The same with an id from [`Self::new_database_id`] for which something was done before: members were drawn on chain.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_database_as(
        &self,
        id: DatabaseId,
        label: &str,
        nodes: Vec<NodeId>,
        addresses: Vec<(NodeId, String)>,
    ) -> Result<Database<T>, ClientError> {
        if nodes.is_empty() {
            return Err(ClientError::NoMembers);
        }
        let asked = futures::future::join_all(nodes.iter().map(|node| self.member(node))).await;
        let mut members = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
        members.sort_by_key(|m| m.node);
        let too_many = |e: codec::TooMany| ClientError::Source(format!("members: {e}"));
        let members: Members = Bounded::new(members).map_err(too_many)?;
        vote::verify_members(&members).map_err(ClientError::Members)?;
        self.remember(id, KnownDatabase { addresses, ..KnownDatabase::of(label, Committee::new(0, members.clone())) })?;
        let op = Op::CreateDatabase { members };
        let made = self.submit_introduced(&id, op).await;
        if let Err(ClientError::Op(_) | ClientError::Conflict { .. } | ClientError::Refused { .. }) = &made {
            // It does not exist, so there is nothing to remember. After a broken connection it may: keep it.
            lock(&self.inner.keystore).state.databases.remove(&id);
        }
        made?;
        self.database(id)
    }

    /// Finds the owner's databases on nodes: all that is needed beside the recovery phrase. Only databases whose members are all among
    /// `nodes` are taken, because members are what certificates are checked against; naming the nodes is the caller's trust. Of a
    /// database that is known, the committee is followed from the one that is known. Nodes that are not reached are passed over, as long
    /// as one is.
    ///
    /// # Errors
    /// [`ClientError`] where no node answers, or what one keeps does not verify or open.
    pub async fn recover(&self, nodes: &[(NodeId, String)]) -> Result<Vec<DatabaseId>, ClientError> {
        let mut found = Vec::new();
        let mut unreached = None;
        let mut reached = 0;
        for (node, _) in nodes {
            let status = match self.status(node).await {
                Err(error @ ClientError::Transport(_)) => {
                    tracing::warn!(%node, %error, "node passed over");
                    unreached = Some(error);
                    continue;
                }
                other => other?,
            };
            reached += 1;
            for database in status.databases.iter().filter(|d| d.owner == self.address()) {
                if !found.contains(&database.db) {
                    self.take(node, database, nodes).await?;
                    found.push(database.db);
                }
            }
        }
        match unreached {
            Some(error) if reached == 0 => Err(error),
            _ => Ok(found),
        }
    }

    /// Finds another owner's database on nodes, to read its public columns. The members are trusted as by [`Self::recover`].
    ///
    /// # Errors
    /// [`ClientError::UnknownDatabase`] where no node that answers keeps it, [`ClientError::Key`] where nothing in it is public, and what
    /// [`Self::recover`] says.
    pub async fn find_database(&self, id: DatabaseId, nodes: &[(NodeId, String)]) -> Result<Database<T>, ClientError> {
        let mut unreached = None;
        for (node, _) in nodes {
            match self.status(node).await {
                Err(error @ ClientError::Transport(_)) => unreached = Some(error),
                Err(error) => return Err(error),
                Ok(status) => {
                    if let Some(database) = status.databases.iter().find(|d| d.db == id) {
                        self.take(node, database, nodes).await?;
                        return self.database(id);
                    }
                }
            }
        }
        Err(unreached.unwrap_or(ClientError::UnknownDatabase(id)))
    }

    /// Checks a database that a node shows, and remembers it with its tables.
    async fn take(
        &self,
        node: &NodeId,
        database: &DatabaseStatus,
        nodes: &[(NodeId, String)],
    ) -> Result<(), ClientError> {
        let db = database.db;
        let (committee, certified) = self.recovered(node, database, nodes).await?;
        let named = |n: &NodeId| committee.member(n).is_some();
        let addresses = nodes.iter().filter(|(n, _)| named(n)).cloned().collect();
        let last_seen = certified.get().height;
        self.remember(db, KnownDatabase { addresses, last_seen, ..KnownDatabase::of("", committee) })?;
        self.note(&db, &certified)?;
        self.database(db)?.refresh_tables().await?;
        Ok(())
    }

    /// The committee of a database that a node shows, and its certificate, checked.
    async fn recovered(
        &self,
        node: &NodeId,
        database: &DatabaseStatus,
        nodes: &[(NodeId, String)],
    ) -> Result<(Committee, CertifiedCheckpoint), ClientError> {
        let db = database.db;
        let verify = |trust: &Trust| {
            let certified = answer::verify_certificate(trust, &database.certificate);
            certified.map_err(|why| ClientError::answer(node, why))
        };
        if let Ok(mut trust) = self.trust(&db) {
            let certified = match verify(&trust) {
                Err(ClientError::Answer { why, .. }) if matches!(*why, AnswerError::NewCommittee { .. }) => {
                    self.follow(&db, &[*node]).await?;
                    trust = self.trust(&db)?;
                    verify(&trust)?
                }
                other => other?,
            };
            return Ok((trust.committee, certified));
        }
        let members = &database.members;
        if let Some(stranger) = members.iter().find(|m| !nodes.iter().any(|(n, _)| *n == m.node)) {
            return Err(ClientError::Stranger { db, stranger: stranger.node });
        }
        vote::verify_members(members).map_err(ClientError::Members)?;
        let committee = Committee::new(database.certificate.header.consensus_epoch, members.clone());
        let trust = Trust { db, committee, min_height: Height(0) };
        let certified = verify(&trust)?;
        Ok((trust.committee, certified))
    }
}
