//! Uploads: the cells of a segment to all members at once, and their receipts back.
//!
//! Source  DESIGN section 7; `docs/protocol/wire.md`, "An upload and its commit"

use super::Progress;
use crate::error::ClientError;
use crate::seal::SealedSegment;
use crate::session::{ATTEMPTS, Session, unexpected};
use crate::transport::Transport;
use fluence_crypto::sign;
use fluence_types::block::quorum;
use fluence_types::codec::{self, Bounded};
use fluence_types::op::SignedReceipt;
use fluence_types::{DatabaseId, NodeId};
use fluence_wire::{CHUNK_BYTES, Request, Response};
use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use std::collections::HashMap;

impl<T: Transport> Session<T> {
    /// Uploads a segment to all members at once and collects their receipts; a quorum suffices. Memory is one chunk a member.
    pub(crate) async fn upload(
        &self,
        db: &DatabaseId,
        segment: &SealedSegment,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Vec<SignedReceipt>, ClientError> {
        let members = self.trust(db)?.committee.members;
        // What a quorum has is what the caller is told: it grows with the member that is the last one needed.
        let (need, total) = (quorum(members.len()).max(1), segment.byte_len());
        let (sent, mut at) = futures::channel::mpsc::unbounded::<(NodeId, u64)>();
        let receipts = async {
            let sent = sent;
            self.gather(&members, |node| {
                let sent = sent.clone();
                async move { self.upload_to(&node, db, segment, &sent).await }
            })
            .await
        };
        let told = async {
            let (mut have, mut shown) = (HashMap::<NodeId, u64>::new(), 0);
            while let Some((node, bytes)) = at.next().await {
                have.insert(node, bytes);
                let mut all: Vec<u64> = have.values().copied().collect();
                all.sort_unstable_by(|a, b| b.cmp(a));
                if let Some(bytes) = all.get(need - 1).filter(|bytes| **bytes > shown) {
                    shown = *bytes;
                    progress(Progress::Uploaded { bytes: shown, total });
                }
            }
        };
        let (receipts, ()) = futures::future::join(receipts, told).await;
        receipts
    }

    /// Uploads to one member, going on where it was when the connection broke.
    async fn upload_to(
        &self,
        node: &NodeId,
        db: &DatabaseId,
        segment: &SealedSegment,
        sent: &UnboundedSender<(NodeId, u64)>,
    ) -> Result<SignedReceipt, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_upload(node, db, segment, sent).await {
                Err(ClientError::Transport(error)) if attempt < ATTEMPTS && error.may_pass() => {
                    tracing::warn!(%node, %error, "upload interrupted; going on where the node is");
                }
                other => return other,
            }
        }
    }

    async fn try_upload(
        &self,
        node: &NodeId,
        db: &DatabaseId,
        segment: &SealedSegment,
        sent_to: &UnboundedSender<(NodeId, u64)>,
    ) -> Result<SignedReceipt, ClientError> {
        let protocol = |what: String| ClientError::Protocol { node: *node, what };
        let total = segment.byte_len();
        let begin = Request::UploadBegin { db: *db, segment: segment.preimage() };
        let mut have = match self.ask_node(node, begin).await? {
            Response::Upload { have } => have,
            other => return Err(unexpected(node, "an upload state", other)),
        };
        while have < total {
            let bytes = segment.bytes(have, CHUNK_BYTES);
            let sent = bytes.len() as u64;
            let bytes = Bounded::new(bytes).expect("a chunk is at most CHUNK_BYTES");
            let chunk = Request::UploadChunk { segment: segment.root(), offset: have, bytes };
            match self.ask_node(node, chunk).await? {
                Response::Upload { have: now } if now == have + sent => have = now,
                Response::Upload { have: now } => {
                    return Err(protocol(format!("it has {now} bytes of {}", have + sent)));
                }
                other => return Err(unexpected(node, "an upload state", other)),
            }
            // Nobody listens where the caller has gone away; then nobody polls this either.
            let _ = sent_to.unbounded_send((*node, have));
        }
        if have > total {
            return Err(protocol(format!("it has {have} bytes of a segment of {total}")));
        }
        let end = Request::UploadEnd { segment: segment.root() };
        let receipt = match self.ask_node(node, end.clone()).await? {
            Response::UploadEnd(receipt) => receipt,
            other => return Err(unexpected(node, "a receipt", other)),
        };
        let r = &receipt.receipt;
        let ours = (r.segment, r.id, r.rows) == (segment.preimage(), segment.id(), segment.rows());
        let good = match r.node != *node || r.db != *db || !ours {
            true => Err(protocol("its receipt is for something else".to_owned())),
            false => sign::verify_receipt(&receipt).map_err(|why| ClientError::Signature { node: *node, why }),
        };
        if let Err(error) = &good {
            let response = codec::encode(&Response::UploadEnd(receipt.clone()));
            self.blame(*node, error, codec::encode(&end), response);
        }
        good.map(|()| receipt)
    }
}
