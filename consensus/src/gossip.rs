//! Operations on their way to the members: each is sent to all by the replica that took it, and again while it waits.

use crate::app::Shared;
use crate::executor::Desk;
use crate::scheme::Identity;
use commonware_p2p::{Blocker, Receiver, Recipients, Sender};
use commonware_runtime::Clock;
use fluence_crypto::sign::{VerifiedOp, verify_op, verify_seat};
use fluence_types::block::epoch_of;
use fluence_types::limits::OP_BYTES_MAX;
use fluence_types::op::{Op, SeatChange, SignedOp};
use fluence_types::{Height, codec};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Operations sent again at once.
const AGAIN_MAX: usize = 256;

/// Sends our operations, and again those that wait.
pub(crate) async fn send<E: Clock>(
    clock: E,
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    mut sender: impl Sender<PublicKey = Identity>,
    mut ours: mpsc::Receiver<Arc<VerifiedOp>>,
) {
    let mut again = clock.current() + shared.timing.again;
    loop {
        let next = {
            let timer = std::pin::pin!(clock.sleep_until(again));
            let op = std::pin::pin!(ours.recv());
            match futures::future::select(op, timer).await {
                futures::future::Either::Left((Some(op), _)) => Some(op),
                futures::future::Either::Left((None, _)) => return,
                futures::future::Either::Right(_) => None,
            }
        };
        match next {
            Some(op) => {
                let _ = sender.send(Recipients::All, codec::encode(op.signed()), false);
            }
            None => {
                let now = clock.current();
                let gone = shared.mempool.expire(now - shared.timing.expiry);
                desk.give_up(&gone);
                for op in shared.mempool.waiting(AGAIN_MAX) {
                    let _ = sender.send(Recipients::All, codec::encode(op.signed()), false);
                }
                again = now + shared.timing.again;
            }
        }
    }
}

/// Takes the operations of other members.
pub(crate) async fn receive<E: Clock>(
    clock: E,
    shared: Arc<Shared>,
    mut receiver: impl Receiver<PublicKey = Identity>,
    mut blocker: impl Blocker<PublicKey = Identity>,
) {
    while let Ok((peer, bytes)) = receiver.recv().await {
        let op = codec::decode::<SignedOp>("operation", bytes.as_ref(), OP_BYTES_MAX).map_err(|e| e.to_string());
        let op = op.and_then(|op| verify_op(op).map_err(|e| e.to_string()));
        match op {
            Ok(op) if op.unsigned().db == shared.db => {
                if let Ok(view) = shared.engine.view(shared.db) {
                    let state = view.writer(op.unsigned().writer);
                    let votes = |change: &SeatChange| {
                        let epoch = epoch_of(Height(view.checkpoint().height.0 + 1));
                        change.seat.epoch == epoch && verify_seat(change, view.members()).is_ok()
                    };
                    if matches!(&op.unsigned().op, Op::Seat(change) if votes(change)) || state.allowed {
                        // Full, over or here already: the sender has it, and sends it again.
                        let _ = shared.mempool.insert(Arc::new(op), state.next_sequence, clock.current());
                    }
                }
            }
            Ok(_) => {
                commonware_p2p::block!(blocker, peer, "an operation of another database");
            }
            Err(why) => {
                commonware_p2p::block!(blocker, peer, %why, "bytes that are no operation");
            }
        }
    }
}
