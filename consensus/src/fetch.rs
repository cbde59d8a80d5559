//! Questions and answers between members: a bounded table of what was asked, timeouts, and bounded service of what is asked of us.
//!
//! Rule    an answer counts only from the peer that was asked. Whoever sends what does not decode is blocked; who asks too much at once is
//!         told [`Answer::Not`]. Checking an answer is the asker's, and so is blocking whoever gave a wrong one.

use crate::scheme::Identity;
use crate::wire::{Answer, Ask, Message, Notice};
use commonware_p2p::{Blocker, Receiver, Recipients, Sender};
use commonware_runtime::Clock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// Questions that may be open at once.
const OPEN_MAX: usize = 256;
/// Questions that may be open at once with one peer.
const OPEN_PER_PEER_MAX: usize = 16;
/// Questions of one peer that are answered in [`WINDOW`].
const SERVED_PER_WINDOW: u32 = 256;
const WINDOW: Duration = Duration::from_secs(1);
/// How long a peer that did not answer is asked last.
const REST: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// It did not come in time.
    Timeout,
    /// The peer does not have it, or not now.
    Not,
    /// Too much is open already, or the fetcher has ended.
    Busy,
}

pub(crate) enum Order {
    Ask(Identity, Ask, oneshot::Sender<Result<Answer, Failure>>),
    Tell(Vec<Identity>, Notice),
}

#[derive(Clone, Copy, Default)]
struct Score {
    open: usize,
    rests_until: Option<SystemTime>,
}

/// What asks questions.
#[derive(Clone)]
pub(crate) struct Fetch {
    orders: mpsc::Sender<Order>,
    scores: Arc<Mutex<BTreeMap<Identity, Score>>>,
}

impl Fetch {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(OPEN_MAX);
        (Self { orders, scores: Arc::default() }, taken)
    }

    fn score<R>(&self, peer: &Identity, f: impl FnOnce(&mut Score) -> R) -> R {
        let mut scores = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        f(scores.entry(peer.clone()).or_default())
    }

    /// Asks one peer.
    pub(crate) async fn ask(&self, clock: &impl Clock, peer: &Identity, ask: Ask) -> Result<Answer, Failure> {
        let room = self.score(peer, |s| {
            let room = s.open < OPEN_PER_PEER_MAX;
            s.open += usize::from(room);
            room
        });
        if !room {
            return Err(Failure::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let result = match self.orders.send(Order::Ask(peer.clone(), ask, reply)).await {
            Ok(()) => answer.await.unwrap_or(Err(Failure::Busy)),
            Err(_) => Err(Failure::Busy),
        };
        let now = clock.current();
        self.score(peer, |s| {
            s.open -= 1;
            match result {
                Ok(_) => s.rests_until = None,
                Err(Failure::Timeout | Failure::Not) => s.rests_until = Some(now + REST),
                Err(Failure::Busy) => {}
            }
        });
        result
    }

    /// Tells peers something, once.
    pub(crate) fn tell(&self, peers: Vec<Identity>, notice: Notice) {
        if !peers.is_empty() {
            // Full: what is told is told again.
            let _ = self.orders.try_send(Order::Tell(peers, notice));
        }
    }

    /// The peers in the order in which to ask them: rested first, then those with the least open; `turn` breaks ties.
    pub(crate) fn order(&self, now: SystemTime, peers: &[Identity], turn: usize) -> Vec<Identity> {
        let rank = |(at, peer): (usize, &Identity)| {
            let score = self.score(peer, |s| *s);
            let place = (at + peers.len() - turn % peers.len().max(1)) % peers.len().max(1);
            (score.rests_until.is_some_and(|until| until > now), score.open, place, peer.clone())
        };
        let mut ranked: Vec<_> = peers.iter().enumerate().map(rank).collect();
        ranked.sort();
        ranked.into_iter().map(|(.., peer)| peer).collect()
    }
}

/// Answers what peers ask.
pub(crate) type Serve = Arc<dyn Fn(&Identity, Ask) -> Answer + Send + Sync>;

struct Open {
    peer: Identity,
    until: SystemTime,
    reply: oneshot::Sender<Result<Answer, Failure>>,
}

enum Step {
    Heard(Identity, Vec<u8>),
    Ordered(Order),
    Late,
    Ended,
}

/// Carries questions and answers until the network or all askers are gone.
pub(crate) async fn run<E: Clock>(
    clock: &E,
    (sender, receiver): (&mut impl Sender<PublicKey = Identity>, &mut impl Receiver<PublicKey = Identity>),
    mut orders: mpsc::Receiver<Order>,
    serve: Serve,
    notices: Option<mpsc::Sender<(Identity, Notice)>>,
    mut blocker: impl Blocker<PublicKey = Identity>,
    timeout: Duration,
) {
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    let mut served: BTreeMap<Identity, (SystemTime, u32)> = BTreeMap::new();
    // Numbers begin anew at each start: an answer to a question from before must not fit.
    let mut number = crate::app::millis(clock.current()) << 20;
    loop {
        let now = clock.current();
        let late: Vec<u64> = open.iter().filter(|(_, o)| o.until <= now).map(|(n, _)| *n).collect();
        for number in late {
            let late = open.remove(&number).expect("it was just found");
            let _ = late.reply.send(Err(Failure::Timeout));
        }
        let wake = open.values().map(|o| o.until).min().unwrap_or(now + Duration::from_secs(3600));
        let step = {
            let heard = std::pin::pin!(receiver.recv());
            let ordered = std::pin::pin!(orders.recv());
            let timer = std::pin::pin!(clock.sleep_until(wake));
            use futures::future::{Either, select};
            match select(select(heard, ordered), timer).await {
                Either::Left((Either::Left((Ok((peer, bytes)), _)), _)) => Step::Heard(peer, bytes.as_ref().to_vec()),
                Either::Left((Either::Right((Some(order), _)), _)) => Step::Ordered(order),
                Either::Left(_) => Step::Ended,
                Either::Right(_) => Step::Late,
            }
        };
        match step {
            Step::Ended => return,
            Step::Late => {}
            Step::Ordered(Order::Tell(peers, notice)) => {
                let _ = sender.send(Recipients::Some(peers), Message::Notice(notice).encode(), false);
            }
            Step::Ordered(Order::Ask(peer, ask, reply)) => {
                if open.len() >= OPEN_MAX {
                    let _ = reply.send(Err(Failure::Busy));
                    continue;
                }
                number += 1;
                let _ = sender.send(Recipients::One(peer.clone()), Message::Ask(number, ask).encode(), false);
                open.insert(number, Open { peer, until: now + timeout, reply });
            }
            Step::Heard(peer, bytes) => match Message::decode(&bytes) {
                Ok(Message::Ask(number, ask)) => {
                    let (since, count) = served.entry(peer.clone()).or_insert((now, 0));
                    if now.duration_since(*since).is_ok_and(|passed| passed >= WINDOW) {
                        (*since, *count) = (now, 0);
                    }
                    *count += 1;
                    let answer = if *count > SERVED_PER_WINDOW { Answer::Not } else { serve(&peer, ask) };
                    let _ = sender.send(Recipients::One(peer), Message::Answer(number, answer).encode(), false);
                }
                Ok(Message::Answer(number, answer)) => {
                    // Late, or nobody's: it is no fault to be slow.
                    if let Some(asked) = open.get(&number)
                        && asked.peer == peer
                    {
                        let asked = open.remove(&number).expect("it was just found");
                        let _ = asked.reply.send(if answer == Answer::Not { Err(Failure::Not) } else { Ok(answer) });
                    }
                }
                Ok(Message::Notice(notice)) => {
                    if let Some(notices) = &notices {
                        let _ = notices.try_send((peer, notice));
                    }
                }
                Err(why) => {
                    commonware_p2p::block!(blocker, peer, %why, "bytes that are no message");
                }
            },
        }
    }
}
