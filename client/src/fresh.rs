//! Fresh reads: at least as new as what f + 1 members had certified when the query began.
//!
//! Why     a certificate shows that a root was certified, not that it is the last one. A member that serves an old one lies about nothing that
//!         can be checked; a session refuses only what is older than it has seen itself.
//! How     beside what it reads, the session asks f + 1 members for their latest certificate and takes the newest: an answer at an older version
//!         of the table does not count, and is read again. Of f + 1 members at least one is honest.
//! Gives   the answer holds everything that the honest one among them had executed and seen certified. It is not more: a write that was
//!         acknowledged elsewhere, and has not reached that member, may be missing. In clusters of fewer than four, f is 0, and there is
//!         nothing to gain.
//! Source  DESIGN section 7; `docs/protocol/cluster.md`, "What a client checks"

use crate::ask::{is_lie, moved};
use crate::error::ClientError;
use crate::query::still_moving;
use crate::session::{ATTEMPTS, Session, TableHandle, unexpected};
use crate::transport::{Transport, TransportError};
use fluence_types::codec;
use fluence_types::{NodeId, Version};
use fluence_verifier::answer::{self, AnswerError, CertifiedSnapshot, Trust};
use fluence_wire::{Request, Response};
use futures::StreamExt;
use futures::future::{Either, join, select};
use futures::stream::FuturesUnordered;
use std::future::Future;
use std::pin::pin;

/// Times that the committee is followed meanwhile.
const COMMITTEES_MAX: usize = 3;

/// What a member says is the newest.
enum Says {
    /// A certified root, not below what was seen.
    Newest(Box<CertifiedSnapshot>),
    /// A root below what was seen: it knows of nothing newer.
    Older,
    /// A certificate by a committee that we do not know yet, or that there is not.
    Others(ClientError),
}

impl<T: Transport> Session<T> {
    /// Reads as freshly as the session is to. What is read is asked for beside what is the newest, and again where that shows a later version:
    /// an answer at the version that members call the last holds what theirs would.
    pub(crate) async fn freshly<R, F>(
        &self,
        table: &TableHandle,
        version: impl Fn(&R) -> Version,
        read: impl Fn() -> F,
    ) -> Result<R, ClientError>
    where
        F: Future<Output = Result<R, ClientError>>,
    {
        let (newest, mut answered) = join(self.freshen(table), read()).await;
        newest?;
        let needed = self.known_version(table);
        for attempt in 1.. {
            match answered {
                Ok(value) if version(&value) >= needed => return Ok(value),
                Ok(_) if attempt < ATTEMPTS => {}
                Ok(_) => return Err(ClientError::Moving { projection: table.projection, attempts: ATTEMPTS }),
                Err(error) if moved(&error) && attempt < ATTEMPTS => self.forget_entry(table),
                Err(error) => return Err(still_moving(error, table)),
            }
            answered = read().await;
        }
        unreachable!("the loop returns")
    }

    /// Where the session is to read freshly: has f + 1 members say what is the newest, and remembers it.
    pub(crate) async fn freshen(&self, table: &TableHandle) -> Result<(), ClientError> {
        if !self.inner.options.fresh {
            return Ok(());
        }
        let db = table.keys.db();
        for followed in 0.. {
            let trust = self.trust(&db)?;
            let members: Vec<NodeId> = trust.committee.members.iter().map(|m| m.node).collect();
            let need = members.len().saturating_sub(1) / 3 + 1;
            if need == 1 {
                break;
            }
            let others = self.newest(&trust, table, &members, need).await?;
            let nodes: Vec<NodeId> = others.iter().map(|(node, _)| *node).collect();
            let Some((_, error)) = others.into_iter().next() else { break };
            if followed == COMMITTEES_MAX || !self.follow(&db, &nodes).await? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Asks members until `need` of them have said what is the newest. Gives those that speak of a committee which is not known, if
    /// without them there are too few.
    async fn newest(
        &self,
        trust: &Trust,
        table: &TableHandle,
        members: &[NodeId],
        need: usize,
    ) -> Result<Vec<(NodeId, ClientError)>, ClientError> {
        let first = self.preferred();
        let mut rest = (0..members.len()).map(|i| members[(first + i) % members.len()]);
        let (mut said, mut others, mut failed) = (0, Vec::new(), Vec::new());
        let mut pending = FuturesUnordered::new();
        let ask = |node: NodeId| async move { (node, self.says(trust, table, &node).await) };
        loop {
            while said + pending.len() < need {
                let Some(node) = rest.next() else { break };
                pending.push(ask(node));
            }
            if said >= need {
                return Ok(Vec::new());
            }
            let left = rest.len();
            let timer = async move {
                match left {
                    0 => std::future::pending().await,
                    _ => self.inner.transport.sleep(self.inner.options.patience).await,
                }
            };
            let answered = match select(pending.next(), pin!(timer)).await {
                Either::Left((Some(answered), _)) => answered,
                // Nobody is left: who spoke of another committee may be right.
                Either::Left((None, _)) if said + others.len() >= need => return Ok(others),
                Either::Left((None, _)) => {
                    let why = failed.pop().unwrap_or(ClientError::Transport(TransportError::Closed));
                    let (failed, members) = (members.len() - said, members.len());
                    return Err(ClientError::TooFew { failed, members, quorum: need, why: Box::new(why) });
                }
                // One is slow: another is asked beside it.
                Either::Right(_) => {
                    let node = rest.next().expect("the timer runs while somebody is left");
                    pending.push(ask(node));
                    continue;
                }
            };
            match answered {
                (_, Ok(Says::Newest(snapshot))) => {
                    said += 1;
                    self.note_snapshot(&trust.db, &snapshot)?;
                    self.learn(table, snapshot.entry());
                }
                (_, Ok(Says::Older)) => said += 1,
                (node, Ok(Says::Others(error))) => others.push((node, error)),
                (node, Err(error)) => {
                    tracing::warn!(%node, %error, "member did not say what is the newest");
                    failed.push(error);
                }
            }
        }
    }

    async fn says(&self, trust: &Trust, table: &TableHandle, node: &NodeId) -> Result<Says, ClientError> {
        let request = Request::Catalogue { db: trust.db, projection: table.projection };
        let response = self.ask_node(node, request.clone()).await?;
        let encoded = codec::encode(&response);
        let said = match response {
            Response::Catalogue(snapshot) => match answer::verify_snapshot(trust, *snapshot) {
                Ok(snapshot) if snapshot.entry().projection == table.projection => Ok(Says::Newest(Box::new(snapshot))),
                Ok(snapshot) => {
                    let got = snapshot.entry().projection;
                    let why = AnswerError::Projection { got, expected: table.projection };
                    Err(ClientError::answer(node, why))
                }
                Err(AnswerError::OldHeight { .. } | AnswerError::OldCommittee { .. }) => Ok(Says::Older),
                Err(why @ AnswerError::NewCommittee { .. }) => Ok(Says::Others(ClientError::answer(node, why))),
                Err(why) => Err(ClientError::answer(node, why)),
            },
            other => Err(unexpected(node, "a catalogue entry", other)),
        };
        if let Err(error) = &said
            && is_lie(error)
        {
            self.blame(*node, error, codec::encode(&request), encoded);
        }
        said
    }
}
