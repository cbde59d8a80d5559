//! The network as the members see it: the library's simulated one, with a tap where a liar's messages leave.

use crate::scenario::Conduct;
use commonware_actor::{Feedback, Unreliable};
use commonware_p2p::simulated::{Receiver as InnerReceiver, Sender as InnerSender};
use commonware_p2p::{CheckedSender, LimitedSender, Message, Receiver, Recipients, Sender};
use commonware_runtime::{IoBufs, deterministic};
use fluence_consensus::Identity;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::mpsc;

pub(crate) type Inner = InnerSender<Identity, deterministic::Context>;

/// Channels of a replica, by the order in which they are registered.
pub(crate) const CHANNELS: usize = 7;
/// Blocks, finalized blocks that were missed, cells.
const BLOCK_CHANNELS: [usize; 3] = [3, 4, 6];
const FETCH: usize = 6;
/// Old messages a liar keeps.
const OLD_MAX: usize = 64;

/// What leaves a liar.
pub(crate) struct Tap {
    pub(crate) conduct: Conduct,
    /// All members in order, by which `mask` counts.
    pub(crate) peers: Vec<Identity>,
    /// Those it speaks with.
    pub(crate) mask: Arc<AtomicU32>,
    pub(crate) rng: Mutex<StdRng>,
    /// Messages sent before, by channel.
    pub(crate) old: Mutex<[Vec<Vec<u8>>; CHANNELS]>,
    /// Messages that no honest member would have sent so.
    pub(crate) acts: Arc<AtomicU64>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tap({:?})", self.conduct)
    }
}

/// Whether a member is among those of a mask.
pub(crate) fn among(peers: &[Identity], mask: u32, peer: &Identity) -> bool {
    peers.iter().position(|p| p == peer).is_some_and(|at| mask & (1 << at) != 0)
}

impl Tap {
    /// What is sent to whom in the place of a message.
    fn outgoing(&self, channel: usize, to: Vec<Identity>, message: &[u8]) -> Vec<(Identity, Vec<u8>)> {
        let mask = self.mask.load(Ordering::SeqCst);
        let act = || self.acts.fetch_add(1, Ordering::SeqCst);
        let rng = &mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        for peer in to {
            if !among(&self.peers, mask, &peer) {
                act();
                continue;
            }
            match self.conduct {
                Conduct::Silent => {
                    act();
                }
                Conduct::Withhold if BLOCK_CHANNELS.contains(&channel) && rng.gen_bool(0.8) => {
                    act();
                }
                Conduct::BadPages if channel == FETCH && is_state(message) => {
                    act();
                    let mut bytes = message.to_vec();
                    // Past the numbers and the root's parts, in the cells or what proves them.
                    let at = rng.gen_range(bytes.len() / 3..bytes.len());
                    bytes[at] ^= 1;
                    out.push((peer, bytes));
                }
                Conduct::Garbage if rng.gen_bool(0.02) => {
                    act();
                    out.push((peer, garbage(rng, message)));
                }
                Conduct::Replay => {
                    out.push((peer.clone(), message.to_vec()));
                    let old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
                    if rng.gen_bool(0.3)
                        && let Some(again) = old[channel].choose(rng)
                    {
                        act();
                        out.push((peer, again.clone()));
                    }
                }
                _ => out.push((peer, message.to_vec())),
            }
        }
        if self.conduct == Conduct::Replay {
            let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
            let old = &mut old[channel];
            if old.len() < OLD_MAX {
                old.push(message.to_vec());
            } else {
                let at = rng.gen_range(0..OLD_MAX);
                old[at] = message.to_vec();
            }
        }
        out
    }
}

/// An answer with cells, a snapshot's head or a piece of one: the second kind of message, a number, one of the first kinds of answer.
fn is_state(message: &[u8]) -> bool {
    message.len() > 200 && message[0] == 1 && message[9] <= 2
}

fn garbage(rng: &mut StdRng, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    match rng.gen_range(0..3) {
        0 => (0..rng.gen_range(0..300)).map(|_| rng.r#gen()).collect(),
        1 if !bytes.is_empty() => {
            let at = rng.gen_range(0..bytes.len());
            bytes[at] ^= 1 << rng.gen_range(0..8);
            bytes
        }
        _ => {
            bytes.truncate(rng.gen_range(0..=bytes.len()));
            bytes
        }
    }
}

/// One end of a channel.
#[derive(Clone, Debug)]
pub(crate) struct SimSender {
    pub(crate) inner: Inner,
    pub(crate) tap: Option<Arc<Tap>>,
    pub(crate) channel: usize,
}

pub(crate) enum SimChecked<'a> {
    Plain(<Inner as LimitedSender>::Checked<'a>),
    Tapped { inner: Inner, tap: Arc<Tap>, channel: usize, to: Vec<Identity> },
}

impl LimitedSender for SimSender {
    type PublicKey = Identity;
    type Checked<'a> = SimChecked<'a>;

    fn check(&mut self, recipients: Recipients<Identity>) -> Result<SimChecked<'_>, SystemTime> {
        let inner = self.tap.is_some().then(|| self.inner.clone());
        let checked = self.inner.check(recipients)?;
        Ok(match (&self.tap, inner) {
            (Some(tap), Some(inner)) => {
                let to = checked.recipients();
                SimChecked::Tapped { inner, tap: Arc::clone(tap), channel: self.channel, to }
            }
            _ => SimChecked::Plain(checked),
        })
    }
}

impl CheckedSender for SimChecked<'_> {
    type PublicKey = Identity;

    fn recipients(&self) -> Vec<Identity> {
        match self {
            Self::Plain(checked) => checked.recipients(),
            Self::Tapped { to, .. } => to.clone(),
        }
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        match self {
            Self::Plain(checked) => checked.send(message, priority),
            Self::Tapped { mut inner, tap, channel, to } => {
                let message = message.into().coalesce();
                for (peer, bytes) in tap.outgoing(channel, to, message.as_ref()) {
                    let _ = Sender::send(&mut inner, Recipients::One(peer), bytes, priority);
                }
                Unreliable::new(Feedback::Ok)
            }
        }
    }
}

/// The other end.
#[derive(Debug)]
pub(crate) enum SimReceiver {
    Whole(InnerReceiver<Identity>),
    /// What reaches one of two twins.
    Half(mpsc::UnboundedReceiver<Message<Identity>>),
}

impl Receiver for SimReceiver {
    type Error = commonware_p2p::simulated::Error;
    type PublicKey = Identity;

    async fn recv(&mut self) -> Result<Message<Identity>, Self::Error> {
        match self {
            Self::Whole(inner) => inner.recv().await,
            Self::Half(inner) => inner.recv().await.ok_or(commonware_p2p::simulated::Error::NetworkClosed),
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        // The library's own figure is a burst of every possible peer; whoever queues behind it would reserve megabytes.
        NonZeroUsize::new(1024).expect("not 0")
    }
}

/// Hands what arrives to the twins whose mask names the sender.
pub(crate) async fn divide(
    mut from: InnerReceiver<Identity>,
    peers: Vec<Identity>,
    halves: [(mpsc::UnboundedSender<Message<Identity>>, Arc<AtomicU32>); 2],
) {
    while let Ok(message) = from.recv().await {
        for (half, mask) in &halves {
            if among(&peers, mask.load(Ordering::SeqCst), &message.0) {
                let _ = half.send(message.clone());
            }
        }
    }
}
