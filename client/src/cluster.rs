//! An owner's cluster: how it stands, how its members find each other, and how its committee changes.
//!
//! Status   every member is asked at once; what they say of themselves is not signed, the certificate among it is, and is checked.
//! Change   the owner's operation is a wish. That it came true is believed when the committee before has handed over, by a certificate.
//! Source   DESIGN section 7; `docs/protocol/cluster.md`

use crate::ask::is_lie;
use crate::error::ClientError;
use crate::session::{Database, Ordered, Session, unexpected};
use crate::transport::{Transport, TransportError};
use fluence_types::answer::OpenRefusal;
use fluence_types::block::Member;
use fluence_types::codec::{self, Bounded};
use fluence_types::op::{ClusterChange, Op, OpReceipt};
use fluence_types::{DatabaseId, NodeId};
use fluence_verifier::answer::{self, AnswerError};
use fluence_verifier::committee::Committee;
use fluence_wire::message::{Addresses, ClusterStatus, INTRODUCE_MAX, Refusal};
use fluence_wire::{RESPONSE_BYTES_MAX, Request, Response};
use futures::future::{Either, join_all, select};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// Between two looks at members that do not know a database yet.
const AGAIN: Duration = Duration::from_millis(100);
/// Times that the committee is followed while members are asked how they stand.
const COMMITTEES_MAX: usize = 3;

/// Epochs before the present one from which on a newcomer is told the committee: what it is given may be of an earlier one.
const EPOCHS_BACK: u64 = 2;

/// What each node says of the cluster, or why it does not.
pub type Statuses = Vec<(NodeId, Result<ClusterStatus, ClientError>)>;

impl<T: Transport> Database<T> {
    /// The committee that is known: who keeps the database, as far as certificates seen show.
    ///
    /// # Errors
    /// [`ClientError::UnknownDatabase`].
    pub fn committee(&self) -> Result<Committee, ClientError> {
        Ok(self.session().trust(&self.id())?.committee)
    }

    /// Asks every member at once how the cluster stands. Where their certificates are by a later committee, it is followed first.
    ///
    /// # Errors
    /// [`ClientError::UnknownDatabase`]; what single members fail of is in the list.
    pub async fn cluster_status(&self) -> Result<Statuses, ClientError> {
        let members = |committee: Committee| committee.members.iter().map(|m| m.node).collect::<Vec<_>>();
        let mut followed = 0;
        loop {
            let known = self.committee()?;
            let since = known.since;
            let nodes = members(known);
            let statuses = self.cluster_status_of(&nodes).await;
            let newer = |r: &Result<_, ClientError>| r.as_ref().is_err_and(other_committee);
            let newer: Vec<_> = statuses.iter().filter(|(_, r)| newer(r)).map(|(node, _)| *node).collect();
            if newer.is_empty() || followed == COMMITTEES_MAX {
                return Ok(statuses);
            }
            // Another task of this session may have taken the change over meanwhile.
            let followed_here = self.session().follow(&self.id(), &newer).await?;
            if !followed_here && self.committee()?.since == since {
                return Ok(statuses);
            }
            followed += 1;
        }
    }

    /// Asks these nodes how the cluster stands: also such as wait for a seat.
    pub async fn cluster_status_of(&self, nodes: &[NodeId]) -> Statuses {
        join_all(nodes.iter().map(|node| async { (*node, self.status_by(node).await) })).await
    }

    async fn status_by(&self, node: &NodeId) -> Result<ClusterStatus, ClientError> {
        let (session, db) = (self.session(), self.id());
        let request = Request::Cluster { db };
        let status = match session.ask_within(node, request.clone()).await? {
            Response::Cluster(status) if status.db == db => *status,
            Response::Cluster(status) => {
                let what = format!("asked for database {db}, it answered for {}", status.db);
                return Err(ClientError::Protocol { node: *node, what });
            }
            other => return Err(unexpected(node, "its cluster's status", other)),
        };
        let Some(certificate) = &status.certificate else { return Ok(status) };
        match answer::verify_certificate(&session.trust(&db)?, certificate) {
            Ok(certified) => session.note(&db, &certified)?,
            // A member that is behind says so.
            Err(AnswerError::OldHeight { .. } | AnswerError::OldCommittee { .. }) => {}
            Err(why) => {
                let error = ClientError::answer(node, why);
                if is_lie(&error) {
                    let response = codec::encode(&Response::Cluster(Box::new(status)));
                    session.blame(*node, &error, codec::encode(&request), response);
                }
                return Err(error);
            }
        }
        Ok(status)
    }

    /// Remembers where a node is reached, instead of where it was. The transport must be told by the caller.
    ///
    /// # Errors
    /// [`ClientError`] where it cannot be remembered.
    pub fn set_address(&self, node: NodeId, address: &str) -> Result<(), ClientError> {
        let (session, db) = (self.session(), self.id());
        let mut known = session.known().remove(&db).ok_or(ClientError::UnknownDatabase(db))?;
        known.addresses.retain(|(n, _)| *n != node);
        known.addresses.push((node, address.to_owned()));
        session.remember(db, known)
    }

    /// Tells every member, and `others`, where all nodes of the cluster are reached. A member that lacks the database is asked to fetch it
    /// from the others.
    ///
    /// # Errors
    /// [`ClientError::UnknownDatabase`]; what single nodes fail of is in the list.
    pub async fn introduce(&self, others: &[NodeId]) -> Result<Vec<(NodeId, Result<(), ClientError>)>, ClientError> {
        let committee = self.committee()?;
        let nodes: BTreeSet<NodeId> = committee.members.iter().map(|m| m.node).chain(others.iter().copied()).collect();
        let peers = &self.session().peers(&self.id());
        let told = nodes.iter().map(|node| async {
            let told = self.session().introduce_to(&self.id(), node, peers.clone()).await;
            match told {
                Err(error) if lacks(&error) && committee.member(node).is_some() => (*node, self.invite(node).await),
                told => (*node, told),
            }
        });
        Ok(join_all(told).await)
    }

    /// Asks a node to follow the database: to fetch it from the members, and keep level with them. It learns of the committee from the
    /// caller, and of all later ones from certificates.
    ///
    /// # Errors
    /// [`ClientError`] where it does not answer, or does not want to.
    pub async fn invite(&self, node: &NodeId) -> Result<(), ClientError> {
        let statuses = self.cluster_status().await?;
        let Committee { since, members, .. } = self.committee()?;
        // Of those whose certificates hold: the committee is the same until then, and a node looks a limited number of epochs ahead.
        let certificates = statuses.iter().filter_map(|(_, r)| r.as_ref().ok()?.certificate.as_ref());
        let latest = certificates.map(|c| c.header.consensus_epoch).max().unwrap_or(since);
        let epoch = latest.saturating_sub(EPOCHS_BACK).max(since);
        let peers = self.session().peers(&self.id());
        let request = Request::Follow { db: self.id(), epoch, members, peers };
        noted(node, self.session().ask_within(node, request).await?)
    }

    /// A node that may come into the cluster, with the key it votes with, which it proves to have.
    ///
    /// # Errors
    /// [`ClientError::Member`] where it is a member already, or [`ClientError`] where it does not answer or has not that key.
    pub async fn newcomer(&self, node: &NodeId) -> Result<Member, ClientError> {
        if self.committee()?.member(node).is_some() {
            return Err(ClientError::Member { node: *node, db: self.id() });
        }
        self.session().within(node, self.session().member(node)).await
    }

    /// Says what the owner wants of its cluster, and has it ordered. Nobody's seat changes before the members agree to it;
    /// [`Self::await_committee`] waits for that.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn change_cluster(&self, change: ClusterChange) -> Result<OpReceipt, ClientError> {
        let Ordered { node, response, .. } = self.session().submit(&self.id(), Op::Cluster(change)).await?;
        match codec::decode("response", &response, RESPONSE_BYTES_MAX) {
            Ok(Response::Submit { receipt, .. }) => Ok(receipt),
            Ok(other) => Err(unexpected(&node, "an operation's outcome", other)),
            Err(e) => Err(ClientError::Protocol { node, what: e.to_string() }),
        }
    }

    /// Waits until the committee is as `wanted`, looking every `every`. Between two looks `progress` hears how members, and those of
    /// `also`, stand; it ends the waiting by an error.
    ///
    /// # Errors
    /// [`ClientError`] where the database is unknown, or the error of `progress`.
    pub async fn await_committee<E: From<ClientError>>(
        &self,
        wanted: impl Fn(&Committee) -> bool,
        also: &[NodeId],
        every: Duration,
        mut progress: impl AsyncFnMut(&Statuses) -> Result<(), E>,
    ) -> Result<Committee, E> {
        loop {
            while self.session().follow(&self.id(), also).await? {}
            let committee = self.committee()?;
            if wanted(&committee) {
                return Ok(committee);
            }
            let mut statuses = self.cluster_status().await?;
            let others: Vec<_> = also.iter().copied().filter(|n| statuses.iter().all(|(m, _)| m != n)).collect();
            statuses.extend(self.cluster_status_of(&others).await);
            progress(&statuses).await?;
            self.session().inner.transport.sleep(every).await;
        }
    }
}

impl<T: Transport> Session<T> {
    /// Asks nodes at once for the keys they vote with; each proves that it has it.
    pub async fn members(&self, nodes: &[NodeId]) -> Vec<(NodeId, Result<Member, ClientError>)> {
        join_all(nodes.iter().map(|node| async { (*node, self.within(node, self.member(node)).await) })).await
    }

    /// Asks one node, for no longer than the session's patience.
    async fn ask_within(&self, node: &NodeId, request: Request) -> Result<Response, ClientError> {
        self.within(node, self.ask_node(node, request)).await
    }

    /// Waits for a node's answer no longer than the session's patience.
    async fn within<R>(
        &self,
        node: &NodeId,
        asking: impl Future<Output = Result<R, ClientError>>,
    ) -> Result<R, ClientError> {
        let patience = self.inner.options.patience;
        match select(pin!(asking), pin!(self.inner.transport.sleep(patience))).await {
            Either::Left((answered, _)) => answered,
            Either::Right(_) => Err(TransportError::Timeout { node: *node, seconds: patience.as_secs().max(1) }.into()),
        }
    }

    /// Where the nodes of a database's cluster are reached, as far as is known.
    fn peers(&self, db: &DatabaseId) -> Bounded<(NodeId, Addresses), INTRODUCE_MAX> {
        let known = self.known().remove(db).map(|k| k.addresses).unwrap_or_default();
        let mut of_node: BTreeMap<NodeId, Vec<Bounded<u8, 256>>> = BTreeMap::new();
        for (node, address) in known {
            // Longer ones are no addresses that a node takes.
            if let Ok(address) = Bounded::new(address.into_bytes()) {
                of_node.entry(node).or_default().push(address);
            }
        }
        let list = of_node.into_iter().map(|(node, mut addresses)| {
            addresses.truncate(8);
            (node, Bounded::new(addresses).expect("cut to the limit"))
        });
        Bounded::new(list.take(INTRODUCE_MAX).collect()).expect("cut to the limit")
    }

    async fn introduce_to(
        &self,
        db: &DatabaseId,
        node: &NodeId,
        peers: Bounded<(NodeId, Addresses), INTRODUCE_MAX>,
    ) -> Result<(), ClientError> {
        noted(node, self.ask_within(node, Request::Introduce { db: *db, peers }).await?)
    }

    /// Has a database's first operation done by its members, while they are told where the others are: they answer when they have agreed
    /// on the first block after it, and for that must have found each other.
    pub(crate) async fn submit_introduced(&self, db: &DatabaseId, op: Op) -> Result<Ordered, ClientError> {
        let (members, peers) = (self.trust(db)?.committee.members, self.peers(db));
        let submitting = pin!(self.submit(db, op));
        if members.len() == 1 || peers.is_empty() {
            return submitting.await;
        }
        let peers = &peers;
        let introducing = join_all(members.iter().map(|member| async move {
            // Until the member has done the operation it does not know the database, and until it is reached it knows nothing.
            loop {
                match self.introduce_to(db, &member.node, peers.clone()).await {
                    Err(error) if lacks(&error) || matches!(error, ClientError::Transport(_)) => {}
                    Err(error) => {
                        tracing::warn!(node = %member.node, %error, "a member does not hear where the others are");
                        return;
                    }
                    Ok(()) => return,
                }
                self.inner.transport.sleep(AGAIN).await;
            }
        }));
        match select(submitting, pin!(introducing)).await {
            Either::Left((made, _)) => made,
            Either::Right((_, submitting)) => submitting.await,
        }
    }
}

fn noted(node: &NodeId, response: Response) -> Result<(), ClientError> {
    match response {
        Response::Noted => Ok(()),
        other => Err(unexpected(node, "to take note", other)),
    }
}

/// Whether the node does not have the database.
#[must_use]
pub fn lacks(error: &ClientError) -> bool {
    let ClientError::Refused { refusal, .. } = error else { return false };
    matches!(refusal, Refusal::Open(OpenRefusal::UnknownDatabase(_)))
}

fn other_committee(error: &ClientError) -> bool {
    matches!(error, ClientError::Answer { why, .. } if matches!(**why, AnswerError::NewCommittee { .. }))
}
