//! Bounded queues: frames on their way to a peer, frames that wait for a consumer, and the bytes of both.
//!
//! Rule    nothing here waits for room. What does not fit is dropped and counted: agreement repeats itself, a stalled queue would not.
//! Out     a queue per (cluster, channel) and peer; they take turns, so no cluster starves another. A full queue loses its oldest frame:
//!         of votes, blocks and operations the newest are worth most. Nobody makes room at another's cost.
//! In      a queue per (cluster, channel), in which each member has its own share: one that floods loses its own frames.

use super::frame::{Kind, Lane};
use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use fluence_types::{DatabaseId, NodeId};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that may be in memory.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// Takes `bytes`, or nothing.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Charge { budget: self.clone(), bytes })
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// Bytes taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// How fast something may happen.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    refilled: Instant,
}

impl Bucket {
    pub(super) const fn full(burst: f64, now: Instant) -> Self {
        Self { tokens: burst, refilled: now }
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&mut self, per_second: f64, burst: f64, now: Instant) -> Result<(), Duration> {
        let refill = now.saturating_duration_since(self.refilled).as_secs_f64() * per_second;
        self.tokens = (self.tokens + refill).min(burst);
        self.refilled = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / per_second));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// An encoded frame. Those who send it to several peers share it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) _charge: Option<Arc<Charge>>,
}

/// What became of a frame for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Push {
    Taken,
    /// Taken; so many older ones were lost.
    Evicted(usize),
    /// Lost: other queues of this peer hold too many bytes.
    Full,
    /// Lost: no stream is up.
    Offline,
}

/// Control frames have a queue of their own, so that they are never lost to data: the newest says what holds.
type Key = (DatabaseId, Option<super::Channel>);

#[derive(Debug, Default)]
struct LaneQueue {
    /// The writer that may take frames, and how it is woken.
    writer: Option<(u64, Arc<Notify>)>,
    queues: HashMap<Key, VecDeque<Frame>>,
    /// Queues that are not empty, in turn.
    turn: VecDeque<Key>,
    bytes: usize,
}

/// Control frames of one cluster that wait for a peer.
const CONTROL_QUEUE: usize = 8;

/// Frames on their way to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: [Mutex<LaneQueue>; 2],
}

impl Outbox {
    /// A stream came up: `writer` takes frames from now.
    pub(super) fn attach(&self, lane: Lane, writer: u64) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        *lock(&self.lanes[lane as usize]) =
            LaneQueue { writer: Some((writer, notify.clone())), ..LaneQueue::default() };
        notify
    }

    /// The stream of `writer` is down; what waited is lost. False where another writer has taken over.
    pub(super) fn detach(&self, lane: Lane, writer: u64) -> bool {
        let mut state = lock(&self.lanes[lane as usize]);
        let is_writer = state.writer.as_ref().is_some_and(|(id, _)| *id == writer);
        if is_writer {
            *state = LaneQueue::default();
        }
        is_writer
    }

    pub(super) fn push(&self, db: DatabaseId, kind: Kind, lane: Lane, frame: Frame) -> Push {
        let (key, limit) = match kind {
            Kind::Data(channel) => ((db, Some(channel)), channel.rule().queue),
            Kind::Control(_) => ((db, None), CONTROL_QUEUE),
        };
        let mut guard = lock(&self.lanes[lane as usize]);
        let state = &mut *guard;
        let Some((_, notify)) = &state.writer else { return Push::Offline };
        if state.bytes + frame.bytes.len() > lane.queue_bytes_max() {
            let own: usize = state.queues.get(&key).map_or(0, |queue| queue.iter().map(|f| f.bytes.len()).sum());
            if state.bytes - own + frame.bytes.len() > lane.queue_bytes_max() {
                return Push::Full;
            }
        }
        let queue = state.queues.entry(key).or_default();
        let (was_empty, mut evicted) = (queue.is_empty(), 0);
        while queue.len() >= limit || state.bytes + frame.bytes.len() > lane.queue_bytes_max() {
            let oldest = queue.pop_front().expect("the limit is not 0, and an empty queue has room");
            state.bytes -= oldest.bytes.len();
            evicted += 1;
        }
        state.bytes += frame.bytes.len();
        queue.push_back(frame);
        if was_empty {
            state.turn.push_back(key);
        }
        notify.notify_one();
        if evicted > 0 { Push::Evicted(evicted) } else { Push::Taken }
    }

    /// The next frame for `writer`; `Err` where it is not the writer any more.
    pub(super) fn pop(&self, lane: Lane, writer: u64) -> Result<Option<Frame>, ()> {
        let mut guard = lock(&self.lanes[lane as usize]);
        let state = &mut *guard;
        if state.writer.as_ref().is_none_or(|(id, _)| *id != writer) {
            return Err(());
        }
        if let Some(key) = state.turn.pop_front() {
            let queue = state.queues.get_mut(&key).expect("a queue whose turn it is");
            let frame = queue.pop_front().expect("a queue whose turn it is has a frame");
            if queue.is_empty() {
                state.queues.remove(&key);
            } else {
                state.turn.push_back(key);
            }
            state.bytes -= frame.bytes.len();
            return Ok(Some(frame));
        }
        Ok(None)
    }

    /// Drops what a cluster has waiting, control frames excepted.
    pub(super) fn forget(&self, db: DatabaseId) {
        for lane in &self.lanes {
            let mut state = lock(lane);
            let gone: Vec<Key> = state.queues.keys().filter(|key| key.0 == db && key.1.is_some()).copied().collect();
            for key in gone {
                let queue = state.queues.remove(&key).expect("a key of the map");
                state.bytes -= queue.iter().map(|frame| frame.bytes.len()).sum::<usize>();
                state.turn.retain(|k| *k != key);
            }
        }
    }
}

/// A frame that waits for its consumer.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) from: PublicKey,
    pub(super) node: NodeId,
    pub(super) payload: Vec<u8>,
    pub(super) _charges: [Charge; 2],
}

#[derive(Debug, Default)]
struct InboxState {
    queue: VecDeque<Delivery>,
    shares: HashMap<NodeId, usize>,
    closed: bool,
}

/// Frames of one (cluster, channel) that wait for their consumer.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    notify: Notify,
    share: usize,
}

impl Inbox {
    /// An inbox in which each member may have `share` frames.
    pub(super) fn new(share: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), notify: Notify::new(), share })
    }

    /// Whether a frame of `node` would be taken now.
    pub(super) fn has_room(&self, node: &NodeId) -> bool {
        let state = lock(&self.state);
        !state.closed && state.shares.get(node).copied().unwrap_or(0) < self.share
    }

    /// Takes a frame; false where there is no room or no consumer.
    pub(super) fn push(&self, delivery: Delivery) -> bool {
        let mut state = lock(&self.state);
        let share = state.shares.get(&delivery.node).copied().unwrap_or(0);
        if state.closed || share >= self.share {
            return false;
        }
        state.shares.insert(delivery.node, share + 1);
        state.queue.push_back(delivery);
        self.notify.notify_one();
        true
    }

    /// The next frame; `None` once the inbox is closed and empty. May be dropped while it waits: nothing is lost.
    pub(super) async fn pop(&self) -> Option<Delivery> {
        loop {
            {
                let mut guard = lock(&self.state);
                let state = &mut *guard;
                if let Some(delivery) = state.queue.pop_front() {
                    if let Some(share) = state.shares.get_mut(&delivery.node) {
                        *share -= 1;
                        if *share == 0 {
                            state.shares.remove(&delivery.node);
                        }
                    }
                    return Some(delivery);
                }
                if state.closed {
                    return None;
                }
            }
            self.notify.notified().await;
        }
    }

    /// Takes nothing more. With `discard`, what waits is dropped: nobody will ask for it.
    pub(super) fn close(&self, discard: bool) {
        let mut state = lock(&self.state);
        state.closed = true;
        if discard {
            state.queue.clear();
            state.shares.clear();
        }
        self.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Channel;
    use super::*;

    fn db(n: u8) -> DatabaseId {
        DatabaseId::from_bytes([n; 16])
    }

    fn frame(bytes: usize, mark: u8) -> Frame {
        Frame { bytes: vec![mark; bytes].into(), _charge: None }
    }

    const VOTE: Kind = Kind::Data(Channel::Vote);
    const BLOCK: Kind = Kind::Data(Channel::Broadcast);

    fn drain(outbox: &Outbox, lane: Lane) -> Vec<u8> {
        std::iter::from_fn(|| outbox.pop(lane, 1).unwrap()).map(|f| f.bytes[0]).collect()
    }

    #[test]
    fn a_full_queue_loses_its_oldest_frames() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(db(1), VOTE, Lane::Urgent, frame(1, 0)), Push::Offline);
        outbox.attach(Lane::Urgent, 1);
        let limit = Channel::Vote.rule().queue;
        for n in 0..limit {
            assert_eq!(outbox.push(db(1), VOTE, Lane::Urgent, frame(1, n as u8)), Push::Taken);
        }
        assert_eq!(outbox.push(db(1), VOTE, Lane::Urgent, frame(1, limit as u8)), Push::Evicted(1));
        let left = drain(&outbox, Lane::Urgent);
        assert_eq!((left.len(), left[0], left[limit - 1]), (limit, 1, limit as u8));
    }

    #[test]
    fn clusters_take_turns_and_none_makes_room_at_anothers_cost() {
        let outbox = Outbox::default();
        outbox.attach(Lane::Bulk, 1);
        let third = Lane::Bulk.queue_bytes_max() / 3;
        for n in 0..3 {
            assert_eq!(outbox.push(db(1), BLOCK, Lane::Bulk, frame(third, n)), Push::Taken);
        }
        assert_eq!(outbox.push(db(2), BLOCK, Lane::Bulk, frame(third, 9)), Push::Full);
        assert_eq!(outbox.push(db(1), BLOCK, Lane::Bulk, frame(third, 3)), Push::Evicted(1));
        assert_eq!(outbox.pop(Lane::Bulk, 1).unwrap().unwrap().bytes[0], 1);
        assert_eq!(outbox.push(db(2), BLOCK, Lane::Bulk, frame(third, 9)), Push::Taken);
        assert_eq!(outbox.pop(Lane::Bulk, 1).unwrap().unwrap().bytes[0], 2);
        assert_eq!(drain(&outbox, Lane::Bulk), [9, 3], "its turn came before the other's next");
    }

    #[test]
    fn only_the_attached_writer_takes_frames_and_a_detached_stream_keeps_none() {
        let outbox = Outbox::default();
        outbox.attach(Lane::Urgent, 1);
        outbox.push(db(1), VOTE, Lane::Urgent, frame(1, 0));
        outbox.attach(Lane::Urgent, 2);
        assert!(outbox.pop(Lane::Urgent, 1).is_err());
        assert!(outbox.pop(Lane::Urgent, 2).unwrap().is_none());
        outbox.detach(Lane::Urgent, 1);
        assert_eq!(outbox.push(db(1), VOTE, Lane::Urgent, frame(1, 0)), Push::Taken, "not its stream");
        outbox.detach(Lane::Urgent, 2);
        assert_eq!(outbox.push(db(1), VOTE, Lane::Urgent, frame(1, 0)), Push::Offline);
    }

    #[test]
    fn a_cluster_that_leaves_keeps_nothing_but_its_goodbye() {
        let outbox = Outbox::default();
        outbox.attach(Lane::Urgent, 1);
        outbox.push(db(1), VOTE, Lane::Urgent, frame(1, 1));
        outbox.push(db(2), VOTE, Lane::Urgent, frame(1, 2));
        outbox.push(db(1), Kind::Control(super::super::frame::Control::Gone), Lane::Urgent, frame(1, 3));
        outbox.forget(db(1));
        assert_eq!(drain(&outbox, Lane::Urgent), [2, 3]);
    }

    fn delivery(n: u8, budget: &Arc<Budget>, bytes: usize) -> Delivery {
        use commonware_cryptography::Signer as _;
        let from = commonware_cryptography::ed25519::PrivateKey::from_seed(u64::from(n)).public_key();
        let charges = [budget.take(bytes).unwrap(), budget.take(bytes).unwrap()];
        Delivery { from, node: NodeId::from_bytes([n; 32]), payload: vec![n; bytes], _charges: charges }
    }

    #[tokio::test]
    async fn a_member_that_floods_loses_its_own_frames_only() {
        let (inbox, budget) = (Inbox::new(2), Budget::new(1 << 20));
        assert!(inbox.push(delivery(1, &budget, 5)) && inbox.push(delivery(1, &budget, 5)));
        assert!(!inbox.has_room(&NodeId::from_bytes([1; 32])));
        assert!(!inbox.push(delivery(1, &budget, 5)));
        assert!(inbox.push(delivery(2, &budget, 5)));
        assert_eq!(budget.used(), 30);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(inbox.pop().await.unwrap().node.as_bytes()[0]);
        }
        assert_eq!((seen, budget.used()), (vec![1, 1, 2], 0));
        assert!(inbox.push(delivery(1, &budget, 5)));
        inbox.close(false);
        assert!(!inbox.push(delivery(2, &budget, 5)));
        assert!(inbox.pop().await.is_some());
        assert!(inbox.pop().await.is_none());
    }

    #[test]
    fn a_budget_is_never_overdrawn() {
        let budget = Budget::new(10);
        let six = budget.take(6).unwrap();
        assert!(budget.take(5).is_none() && budget.take(usize::MAX).is_none());
        let four = budget.take(4).unwrap();
        drop(six);
        assert!(budget.take(6).is_some());
        drop(four);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_bucket_says_when_to_come_back() {
        let start = Instant::now();
        let mut bucket = Bucket::full(2.0, start);
        assert!(bucket.take(10.0, 2.0, start).is_ok() && bucket.take(10.0, 2.0, start).is_ok());
        let wait = bucket.take(10.0, 2.0, start).unwrap_err();
        assert!(wait <= Duration::from_millis(101), "{wait:?}");
        assert!(bucket.take(10.0, 2.0, start + Duration::from_millis(101)).is_ok());
    }
}
