//! Operations: signed in the writer's chain, sent, and what came back checked.
//!
//! Rule    an operation whose outcome is not known is sent again as the same signed bytes, so it happens once or not at all.
//! Source  DESIGN section 7; `docs/protocol/cluster.md`

use super::{ATTEMPTS, Session, lock, unexpected};
use crate::ask::{Asked, is_lie};
use crate::error::ClientError;
use crate::transport::Transport;
use fluence_crypto::sign;
use fluence_types::codec;
use fluence_types::op::{Op, OpReceipt, OpRefusal, UnsignedOp};
use fluence_types::{DatabaseId, NodeId, OpId};
use fluence_verifier::answer::{self, CertifiedCheckpoint};
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};
use std::time::Duration;

/// How often an operation is sent while a member has yet to do the one that waits with its number, and how long is waited between.
const TAKEN_ATTEMPTS: usize = 25;
const TAKEN_AGAIN: Duration = Duration::from_millis(200);

impl<T: Transport> Session<T> {
    /// Where this writer stands.
    async fn writer(&self, db: &DatabaseId) -> Result<(u64, OpId), ClientError> {
        let address = self.address();
        let check = |asked: &Asked<'_>, response| match response {
            Response::Writer { next_sequence, previous } => Ok((next_sequence, previous)),
            other => Err(unexpected(asked.node, "a writer's state", other)),
        };
        Ok(self.ask(db, &Request::Writer { db: *db, address }, check).await?.1)
    }

    /// Signs an operation as the writer's next, has it ordered, and checks the certificate. A cluster that was not reached is asked again
    /// with the same signed bytes, so the operation happens once. The number of an operation that was refused is used again: a member that
    /// has yet to hear of the refusal is waited for. Returns which member says so.
    pub(crate) async fn submit(&self, db: &DatabaseId, op: Op) -> Result<Ordered, ClientError> {
        let _one_at_a_time = self.inner.writing.lock().await;
        if let Op::CreateDatabase { .. } = &op {
            let (sequence, previous) = (0, OpId::default());
            return self
                .submit_to_all(db, UnsignedOp { db: *db, writer: self.address(), sequence, previous, op })
                .await;
        }
        // Where we stand after our own last operation; where that is not known, a member says.
        let mut known = lock(&self.inner.chains).remove(db);
        let (mut attempt, mut taken) = (0, 0);
        loop {
            attempt += 1;
            let remembered = known.is_some();
            let (sequence, previous) = match known.take() {
                Some(known) => known,
                None => self.writer(db).await?,
            };
            let unsigned = UnsignedOp { db: *db, writer: self.address(), sequence, previous, op: op.clone() };
            let id = sign::op_id(&unsigned);
            let request = Request::Submit(Box::new(self.inner.keyring.sign(unsigned)));
            let mut sent = self.send(db, &request, id).await;
            if remembered && matches!(sent, Err(ClientError::Refused { refusal: Refusal::Operation(_), .. })) {
                // Another client with this key may have taken the number. Whether it did, or the operation is done, the same bytes tell.
                let fresh = self.writer(db).await?;
                if fresh.0 > sequence {
                    sent = self.send(db, &request, id).await;
                    if matches!(sent, Err(ClientError::Refused { refusal: Refusal::Operation(_), .. })) {
                        known = Some(fresh);
                        continue;
                    }
                }
            }
            match sent {
                Err(error) if is_taken(&error) && taken < TAKEN_ATTEMPTS => {
                    taken += 1;
                    attempt -= 1;
                    known = Some((sequence, previous));
                    self.inner.transport.sleep(TAKEN_AGAIN).await;
                }
                // Another client with the same key was faster, or the member that said where we stand is behind: the operation did not
                // happen, so it is signed anew.
                Err(ClientError::Op(OpRefusal::Sequence { .. } | OpRefusal::Chain { .. })) if attempt < ATTEMPTS => {
                    self.prefer_another();
                }
                Ok(ordered) => {
                    lock(&self.inner.chains).insert(*db, (sequence + 1, id));
                    return Ok(ordered);
                }
                // An operation that was refused leaves the chain where it was.
                Err(error) => {
                    if matches!(error, ClientError::Op(_) | ClientError::Conflict { .. } | ClientError::Leased { .. }) {
                        lock(&self.inner.chains).insert(*db, (sequence, previous));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Has a signed operation ordered by whichever member answers.
    async fn send(&self, db: &DatabaseId, request: &Request, id: OpId) -> Result<Ordered, ClientError> {
        let mut attempt = 0;
        let check = |asked: &Asked<'_>, response| Ok((submitted(asked, response, id)?, asked.encoded.to_vec()));
        let (node, ((certified, receipt), response)) = loop {
            attempt += 1;
            match self.ask(db, request, check).await {
                Err(ClientError::Transport(error)) if attempt < ATTEMPTS => {
                    tracing::warn!(%error, "operation may not have arrived; sending the same bytes again");
                }
                other => break other?,
            }
        };
        self.note(db, &certified)?;
        receipt.outcome.map_err(ClientError::from)?;
        Ok(Ordered { node, request: request.clone(), response })
    }

    /// Has an operation done by every member by itself: only the first of a database is.
    async fn submit_to_all(&self, db: &DatabaseId, unsigned: UnsignedOp) -> Result<Ordered, ClientError> {
        let id = sign::op_id(&unsigned);
        let request = &Request::Submit(Box::new(self.inner.keyring.sign(unsigned)));
        let trust = &self.trust(db)?;
        let members = &trust.committee.members;
        let done = self.gather(members, |node| async move {
            let mut attempt = 0;
            let response = loop {
                attempt += 1;
                match self.ask_node(&node, request.clone()).await {
                    Err(ClientError::Transport(error)) if attempt < ATTEMPTS && error.may_pass() => {
                        tracing::warn!(%node, %error, "operation may not have arrived; sending the same bytes again");
                    }
                    other => break other?,
                }
            };
            let encoded = codec::encode(&response);
            let asked = Asked { trust, node: &node, encoded: &encoded };
            let (certified, receipt) = submitted(&asked, response, id).inspect_err(|error| {
                if is_lie(error) {
                    self.blame(node, error, codec::encode(request), encoded.clone());
                }
            })?;
            receipt.outcome.map_err(ClientError::from)?;
            Ok((node, certified, encoded))
        });
        let mut done = done.await?;
        for (_, certified, _) in &done {
            self.note(db, certified)?;
        }
        let (node, _, response) = done.swap_remove(0);
        Ok(Ordered { node, request: request.clone(), response })
    }
}

/// Whether a member refuses an operation because another of the writer waits with its number.
fn is_taken(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { refusal: Refusal::Operation(why), .. } if why.contains("waits with number"))
}

/// An operation that a member says was ordered.
pub(crate) struct Ordered {
    /// Who says so.
    pub(crate) node: NodeId,
    /// What it was asked.
    pub(crate) request: Request,
    /// Its response, encoded.
    pub(crate) response: Vec<u8>,
}

/// Checks what came back for an operation.
fn submitted(asked: &Asked<'_>, response: Response, id: OpId) -> Result<(CertifiedCheckpoint, OpReceipt), ClientError> {
    let protocol = |what: String| ClientError::Protocol { node: *asked.node, what };
    match response {
        Response::Submit { receipt, certificate } => {
            if receipt.op != id {
                return Err(protocol(format!("a receipt for {}", receipt.op)));
            }
            let certified = answer::verify_certificate(asked.trust, &certificate).map_err(|why| asked.refuse(why))?;
            let height = certified.get().height;
            if height < receipt.height {
                return Err(protocol(format!("a certificate of height {height} for block {}", receipt.height)));
            }
            Ok((certified, receipt))
        }
        other => Err(unexpected(asked.node, "an operation's outcome", other)),
    }
}
