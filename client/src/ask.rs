//! Asking a cluster: one member after the other, all of them at once, and what to do with those that are slow, behind, or lie.
//!
//! Order   members are asked in turn, starting with the last one that answered well; the first good answer counts. A member that has not
//!         answered within [`SessionOptions::patience`] is not given up: the next is asked beside it, and the first good answer counts.
//! Behind  a member at a height, or of an epoch, that was seen before is passed over; that is no lie. Where all are behind (a committee that has
//!         just taken over has certified nothing yet) they are asked again for a while.
//! Lies    an answer that decodes and does not verify is kept as [`LieEvidence`], request and response as they were encoded.
//! Change  where no member's certificate is by the committee that is known, the handovers since are fetched, checked and remembered, and
//!         the members are asked again.
//! Source  DESIGN section 7

use crate::error::ClientError;
use crate::session::{Session, lock, unexpected};
use crate::transport::Transport;
use fluence_types::answer::OpenRefusal;
use fluence_types::block::{Members, quorum};
use fluence_types::codec;
use fluence_types::limits::HANDOVERS_MAX;
use fluence_types::{DatabaseId, NodeId};
use fluence_verifier::answer::{AnswerError, Trust};
use fluence_verifier::committee;
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// Lies kept; older ones go.
const LIES_MAX: usize = 32;
/// Bytes of lies kept: the one that comes last is kept whatever its size.
const LIES_BYTES_MAX: usize = 64 << 20;
/// Times that a session follows the committee while it asks one thing.
const COMMITTEES_MAX: usize = 3;
/// Between two looks at members of which all are behind, and how many there are: 6 s, longer than a quiet cluster takes for a block.
const BEHIND_AGAIN: Duration = Duration::from_millis(200);
const BEHIND_LOOKS_MAX: usize = 30;
/// Full lists of handovers that are taken of one member: 1,024 changes of the committee.
const LISTS_MAX: usize = 16;

/// How a session deals with members that take their time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionOptions {
    /// How long a member may take to answer before the next one is asked as well.
    pub patience: Duration,
    /// The same for operations, which wait for the cluster to agree, and for the check of a whole upload.
    pub write_patience: Duration,
    /// How long the rest may take where a quorum has done what all members should do.
    pub grace: Duration,
    /// Whether queries also ask f + 1 members what is the newest, beside what they read (`fresh.rs` says what that gives).
    pub fresh: bool,
    /// Cells, of 256 bytes, that a scan asks for at once: what it holds in memory is some of these.
    pub portion_cells: u64,
}

/// What scans ask for at once, unless told otherwise: 4 MiB.
pub const PORTION_CELLS: u64 = 1 << 14;

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5),
            write_patience: Duration::from_secs(20),
            grace: Duration::from_secs(2),
            fresh: false,
            portion_cells: PORTION_CELLS,
        }
    }
}

impl SessionOptions {
    /// How long to wait for this answer; `None` where only the transport's own limit holds.
    const fn patience_for(&self, request: &Request) -> Option<Duration> {
        match request {
            // A second prover would not be faster.
            Request::ProveRangeSum(_) | Request::EpochProof { .. } => None,
            Request::Submit(_) | Request::UploadEnd { .. } => Some(self.write_patience),
            _ => Some(self.patience),
        }
    }
}

/// An answer that does not verify, with what was asked: enough to show to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LieEvidence {
    /// Who gave it. The connection proved that; the bytes do not.
    pub node: NodeId,
    /// What is wrong with it.
    pub what: String,
    /// The request, encoded.
    pub request: Vec<u8>,
    /// The response, encoded.
    pub response: Vec<u8>,
}

/// Lies told so far, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lies(VecDeque<LieEvidence>);

impl Lies {
    fn push(&mut self, lie: LieEvidence) {
        self.0.push_back(lie);
        let bytes = |l: &LieEvidence| l.request.len() + l.response.len();
        let mut total: usize = self.0.iter().map(bytes).sum();
        while self.0.len() > 1 && (self.0.len() > LIES_MAX || total > LIES_BYTES_MAX) {
            total -= self.0.pop_front().as_ref().map_or(0, bytes);
        }
    }
}

/// Who answered, and what is trusted.
pub(crate) struct Asked<'a> {
    /// What is trusted of the database.
    pub(crate) trust: &'a Trust,
    /// The member that answered.
    pub(crate) node: &'a NodeId,
    /// Its response, encoded.
    pub(crate) encoded: &'a [u8],
}

impl Asked<'_> {
    /// Bytes of the response.
    pub(crate) const fn bytes(&self) -> u64 {
        self.encoded.len() as u64
    }

    /// The error of an answer that does not verify.
    pub(crate) fn refuse(&self, why: AnswerError) -> ClientError {
        ClientError::answer(self.node, why)
    }
}

/// A member that did not answer well.
struct Failure {
    node: NodeId,
    error: ClientError,
    response: Vec<u8>,
}

/// Whether the plan was made for another version than is current.
pub(crate) fn moved(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { refusal: Refusal::Open(OpenRefusal::Moved(_)), .. } => true,
        ClientError::Answer { why, .. } => matches!(**why, AnswerError::Version { .. }),
        _ => false,
    }
}

fn other_committee(error: &ClientError) -> bool {
    matches!(error, ClientError::Answer { why, .. } if matches!(**why, AnswerError::NewCommittee { .. }))
}

/// Whether a member has not seen yet what we have seen.
fn is_behind(error: &ClientError) -> bool {
    match error {
        ClientError::Behind { .. } => true,
        ClientError::Answer { why, .. } => {
            matches!(**why, AnswerError::OldHeight { .. } | AnswerError::OldCommittee { .. })
        }
        _ => false,
    }
}

/// Whether an honest member, however slow or far behind, could not have answered so.
pub(crate) fn is_lie(error: &ClientError) -> bool {
    match error {
        ClientError::Answer { why, .. } => !matches!(
            **why,
            AnswerError::OldHeight { .. }
                | AnswerError::OldCommittee { .. }
                | AnswerError::NewCommittee { .. }
                | AnswerError::Version { .. }
                | AnswerError::Request(_)
        ),
        ClientError::Page { .. }
        | ClientError::Protocol { .. }
        | ClientError::Signature { .. }
        | ClientError::Committee { .. }
        | ClientError::Proof { .. } => true,
        _ => false,
    }
}

/// What to tell the caller of several failures: that its plan is old, else what a member said, else that none was reached.
fn gravest(failures: Vec<Failure>) -> ClientError {
    let rank = |error: &ClientError| match error {
        e if moved(e) => 0,
        ClientError::Transport(_) => 3,
        ClientError::Behind { .. } => 2,
        _ => 1,
    };
    failures.into_iter().map(|f| f.error).min_by_key(rank).unwrap_or(ClientError::NoMembers)
}

impl<T: Transport> Session<T> {
    /// The lies that members told this session, the oldest first; only the last ones are kept.
    #[must_use]
    pub fn liars(&self) -> Vec<LieEvidence> {
        lock(&self.inner.lies).0.iter().cloned().collect()
    }

    /// Keeps a lie.
    pub(crate) fn blame(&self, node: NodeId, what: &impl std::fmt::Display, request: Vec<u8>, response: Vec<u8>) {
        let what = what.to_string();
        tracing::warn!(%node, what, "MEMBER LIED");
        lock(&self.inner.lies).push(LieEvidence { node, what, request, response });
    }

    fn blame_failures(&self, request: &Request, failures: &mut [Failure]) {
        for failure in failures.iter_mut().filter(|f| is_lie(&f.error)) {
            let response = std::mem::take(&mut failure.response);
            self.blame(failure.node, &failure.error, codec::encode(request), response);
        }
    }

    /// Asks one node.
    pub(crate) async fn ask_node(&self, node: &NodeId, request: Request) -> Result<Response, ClientError> {
        Ok(self.inner.transport.request(node, request).await?)
    }

    /// Asks the members until one answers what `check` accepts.
    pub(crate) async fn ask<R>(
        &self,
        db: &DatabaseId,
        request: &Request,
        check: impl Fn(&Asked<'_>, Response) -> Result<R, ClientError>,
    ) -> Result<(NodeId, R), ClientError> {
        let (mut followed, mut looks) = (0, 0);
        loop {
            let trust = self.trust(db)?;
            let mut failures = match self.ask_members(&trust, request, &check).await {
                Ok(answered) => return Ok(answered),
                Err(failures) => failures,
            };
            self.blame_failures(request, &mut failures);
            let others: Vec<NodeId> = failures.iter().filter(|f| other_committee(&f.error)).map(|f| f.node).collect();
            let soon = |f: &Failure| is_behind(&f.error) || matches!(f.error, ClientError::Transport(_));
            if others.is_empty()
                && looks < BEHIND_LOOKS_MAX
                && failures.iter().any(|f| is_behind(&f.error))
                && failures.iter().all(soon)
            {
                looks += 1;
                self.inner.transport.sleep(BEHIND_AGAIN).await;
                continue;
            }
            if others.is_empty() || followed == COMMITTEES_MAX {
                return Err(gravest(failures));
            }
            followed += 1;
            // Another task of this session may have taken the same change over between our question and now.
            let followed_here = self.follow(db, &others).await?;
            if !followed_here && self.trust(db)?.committee.since == trust.committee.since {
                // They speak of a committee that nobody can show: whoever does that made it up.
                for failure in failures.iter_mut().filter(|f| other_committee(&f.error)) {
                    let response = std::mem::take(&mut failure.response);
                    self.blame(failure.node, &failure.error, codec::encode(request), response);
                }
                return Err(gravest(failures));
            }
        }
    }

    /// One round over the members.
    async fn ask_members<R>(
        &self,
        trust: &Trust,
        request: &Request,
        check: &impl Fn(&Asked<'_>, Response) -> Result<R, ClientError>,
    ) -> Result<(NodeId, R), Vec<Failure>> {
        let members = &trust.committee.members;
        let first = self.preferred();
        let mut rest = (0..members.len()).map(|i| (first + i) % members.len());
        let patience = self.inner.options.patience_for(request);
        let mut failures: Vec<Failure> = Vec::new();
        let mut pending = FuturesUnordered::new();
        // Each turn asks one more: the first, then whenever one has failed or is slow.
        loop {
            if let Some(at) = rest.next() {
                let node = members[at].node;
                pending.push(async move { (at, node, self.ask_node(&node, request.clone()).await) });
            }
            let timer = async {
                match patience {
                    Some(patience) if rest.len() > 0 => self.inner.transport.sleep(patience).await,
                    _ => std::future::pending().await,
                }
            };
            let answered = match select(pending.next(), pin!(timer)).await {
                Either::Left((answered, _)) => answered,
                Either::Right(_) => {
                    tracing::warn!(
                        request = crate::session::request_kind(request),
                        "a member is slow; asking the next one too"
                    );
                    continue;
                }
            };
            let Some((at, node, result)) = answered else { return Err(failures) };
            let (error, response) = match result {
                Err(error) => (error, Vec::new()),
                Ok(response) => {
                    let encoded = codec::encode(&response);
                    match check(&Asked { trust, node: &node, encoded: &encoded }, response) {
                        Ok(value) => {
                            self.prefer(at);
                            self.blame_failures(request, &mut failures);
                            return Ok((node, value));
                        }
                        Err(error) => (error, encoded),
                    }
                }
            };
            tracing::warn!(%node, %error, "member did not answer well");
            failures.push(Failure { node, error, response });
        }
    }

    /// Has every member do something at once. Done when a quorum has, and the rest had their grace.
    pub(crate) async fn gather<R, F: Future<Output = Result<R, ClientError>>>(
        &self,
        members: &Members,
        act: impl Fn(NodeId) -> F,
    ) -> Result<Vec<R>, ClientError> {
        let need = quorum(members.len()).max(1);
        let mut pending: FuturesUnordered<_> = members
            .iter()
            .map(|m| {
                let (node, acting) = (m.node, act(m.node));
                async move { (node, acting.await) }
            })
            .collect();
        let mut done = Vec::with_capacity(members.len());
        let mut failures = Vec::new();
        let mut take = |(node, result): (NodeId, Result<R, ClientError>), done: &mut Vec<R>| match result {
            Ok(value) => done.push(value),
            Err(error) => {
                tracing::warn!(%node, %error, "member did not do its part");
                failures.push(Failure { node, error, response: Vec::new() });
            }
        };
        while done.len() < need && done.len() + pending.len() >= need {
            match pending.next().await {
                Some(one) => take(one, &mut done),
                None => break,
            }
        }
        if done.len() >= need {
            let mut grace = pin!(self.inner.transport.sleep(self.inner.options.grace));
            while let Either::Left((Some(one), _)) = select(pending.next(), grace.as_mut()).await {
                take(one, &mut done);
            }
            return Ok(done);
        }
        let failed = failures.len();
        let why = gravest(failures);
        match failed == members.len() {
            true => Err(why),
            false => Err(ClientError::TooFew { failed, members: members.len(), quorum: need, why: Box::new(why) }),
        }
    }

    /// Asks whether the committee of a database has changed since the one that is known, and takes the change over. A session does so by
    /// itself where it meets a certificate of others.
    ///
    /// # Errors
    /// [`ClientError`] where the database is not known, or the keystore cannot be saved.
    pub async fn follow_committee(&self, db: &DatabaseId) -> Result<bool, ClientError> {
        self.follow(db, &[]).await
    }

    /// Fetches the handovers since the committee that is known from the first of `nodes`, or of the members, that has any, checks and
    /// remembers them. Whether there was a newer committee.
    pub(crate) async fn follow(&self, db: &DatabaseId, nodes: &[NodeId]) -> Result<bool, ClientError> {
        let members = self.trust(db)?.committee.members;
        let others = members.iter().map(|m| m.node).filter(|n| !nodes.contains(n));
        for node in nodes.iter().copied().chain(others) {
            match self.follow_by(db, &node).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error @ ClientError::Keystore(_)) => return Err(error),
                Err(error) => tracing::warn!(%node, %error, "member did not show how its committee came about"),
            }
        }
        Ok(false)
    }

    async fn follow_by(&self, db: &DatabaseId, node: &NodeId) -> Result<bool, ClientError> {
        let mut newer = false;
        for _ in 0..LISTS_MAX {
            let known = self.trust(db)?.committee;
            let request = Request::Handovers { db: *db, from_epoch: known.since };
            let list = match self.ask_node(node, request.clone()).await? {
                Response::Handovers(list) => list,
                other => return Err(unexpected(node, "handovers", other)),
            };
            let next = committee::follow(*db, &known, &list).map_err(|why| {
                let response = codec::encode(&Response::Handovers(list.clone()));
                self.blame(*node, &why, codec::encode(&request), response);
                ClientError::Committee { node: *node, why: Box::new(why) }
            })?;
            if next.since <= known.since {
                break;
            }
            tracing::info!(%db, since = next.since, members = next.members.len(), "the cluster has a new committee");
            self.adopt(db, next)?;
            newer = true;
            if list.len() < HANDOVERS_MAX {
                break;
            }
        }
        Ok(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lie(i: u8, bytes: usize) -> LieEvidence {
        LieEvidence {
            node: NodeId::from_bytes([i; 32]),
            what: String::new(),
            request: vec![],
            response: vec![0; bytes],
        }
    }

    #[test]
    fn lies_are_kept_within_bounds_and_the_last_one_always() {
        let mut lies = Lies::default();
        (0..100).for_each(|i| lies.push(lie(i, 1)));
        assert_eq!(lies.0.len(), LIES_MAX);
        assert_eq!(lies.0.back(), Some(&lie(99, 1)));
        lies.push(lie(100, LIES_BYTES_MAX));
        assert_eq!(lies.0.len(), 1);
        lies.push(lie(101, LIES_BYTES_MAX + 1));
        assert_eq!(lies.0.iter().map(|l| l.node).collect::<Vec<_>>(), [lie(101, 0).node]);
    }
}
