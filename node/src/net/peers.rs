//! What a node remembers of each peer: how fast it may ask, how much at once, and what it did wrong.
//!
//! Rule    pure bookkeeping: time comes in as an argument, no socket inside, so tests need no clock. Size is bounded: a peer that is
//!         gone, idle, rested and without a bad score is forgotten, and above `PEERS_MAX` the least guilty that is not connected goes
//!         first. Hanging up is no way to ask faster: a peer is remembered until it could ask at full burst anyway.
//! Score   offences add up and halve every `halve`; at `ban_score` a peer is blocked for `ban`. What a liar gains without it: each broken
//!         frame costs us a handshake and a read, and costs the sender nothing.

use fluence_types::NodeId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Most peers remembered.
const PEERS_MAX: usize = 4096;

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerLimits {
    /// Requests a second, sustained.
    pub requests_per_second: f64,
    /// Requests at once after a pause.
    pub burst: f64,
    /// Requests being answered at once.
    pub in_flight: u32,
    /// Score at which a peer is blocked.
    pub ban_score: f64,
    /// How long it stays blocked.
    pub ban: Duration,
    /// Time in which a score halves.
    pub halve: Duration,
}

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offence {
    /// A frame that is no message, or longer than the limit.
    Malformed,
    /// A frame that ends early. Broken lines do this too.
    Truncated,
    /// A request above its rate.
    Flood,
    /// A message for a cluster that does not count the sender as a member.
    Stranger,
    /// An answer or a proof that does not verify.
    Lie,
}

impl Offence {
    const fn weight(self) -> f64 {
        match self {
            Self::Malformed => 25.0,
            Self::Truncated => 5.0,
            Self::Flood => 0.5,
            Self::Stranger => 5.0,
            Self::Lie => 50.0,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Flood => "flood",
            Self::Stranger => "stranger",
            Self::Lie => "lie",
        }
    }
}

/// May this request be answered now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes; it counts until [`PeerBook::done`].
    Admitted,
    /// No: too many of this peer's requests are being answered.
    TooMany(u32),
    /// No: it asks too fast.
    TooFast,
}

#[derive(Debug)]
struct Peer {
    tokens: f64,
    refilled: Instant,
    in_flight: u32,
    score: f64,
    scored: Instant,
    blocked_until: Option<Instant>,
    connected: bool,
}

impl Peer {
    /// Requests it may make now.
    fn tokens(&self, limits: &PeerLimits, now: Instant) -> f64 {
        let refill = now.saturating_duration_since(self.refilled).as_secs_f64() * limits.requests_per_second;
        (self.tokens + refill).min(limits.burst)
    }

    fn score(&self, limits: &PeerLimits, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.scored).as_secs_f64();
        self.score * 0.5f64.powf(since / limits.halve.as_secs_f64().max(1e-3))
    }

    /// Nothing about it matters any more: forgetting it gives it nothing.
    fn is_forgettable(&self, limits: &PeerLimits, now: Instant) -> bool {
        !self.connected
            && self.in_flight == 0
            && self.blocked_until.is_none()
            && self.score(limits, now) < 1.0
            && self.tokens(limits, now) >= limits.burst
    }
}

/// The book.
#[derive(Debug)]
pub struct PeerBook {
    limits: PeerLimits,
    peers: HashMap<NodeId, Peer>,
    /// Blocked, then forgotten for want of room.
    released_early: Vec<NodeId>,
}

impl PeerBook {
    /// An empty book.
    #[must_use]
    pub fn new(limits: PeerLimits) -> Self {
        Self { limits, peers: HashMap::new(), released_early: Vec::new() }
    }

    fn peer(&mut self, node: NodeId, now: Instant) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&node) {
            let limits = self.limits;
            let rank = |p: &Peer| {
                let busy = p.connected || p.in_flight > 0;
                (busy, p.blocked_until.is_some(), p.score(&limits, now), -p.tokens(&limits, now))
            };
            let least = self
                .peers
                .iter()
                .min_by(|a, b| rank(a.1).partial_cmp(&rank(b.1)).expect("scores and tokens are numbers"));
            if let Some(least) = least.map(|(id, _)| *id)
                && self.peers.remove(&least).is_some_and(|p| p.blocked_until.is_some())
            {
                self.released_early.push(least);
            }
        }
        let burst = self.limits.burst;
        self.peers.entry(node).or_insert(Peer {
            tokens: burst,
            refilled: now,
            in_flight: 0,
            score: 0.0,
            scored: now,
            blocked_until: None,
            connected: false,
        })
    }

    /// A connection came up.
    pub fn connected(&mut self, node: NodeId, now: Instant) {
        self.peer(node, now).connected = true;
    }

    /// The last connection went down. The peer is forgotten here or in [`Self::released`], once nothing about it matters.
    pub fn disconnected(&mut self, node: &NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.connected = false;
            if peer.is_forgettable(&self.limits, now) {
                self.peers.remove(node);
            }
        }
    }

    /// Asks for a place; [`Admission::Admitted`] takes one.
    pub fn admit(&mut self, node: NodeId, now: Instant) -> Admission {
        let limits = self.limits;
        let peer = self.peer(node, now);
        peer.tokens = peer.tokens(&limits, now);
        peer.refilled = now;
        if peer.tokens < 1.0 {
            return Admission::TooFast;
        }
        if peer.in_flight >= limits.in_flight {
            return Admission::TooMany(limits.in_flight);
        }
        peer.tokens -= 1.0;
        peer.in_flight += 1;
        Admission::Admitted
    }

    /// A request is over: nobody works on it, and nobody waits for its answer.
    pub fn done(&mut self, node: &NodeId) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
    }

    /// Adds an offence; true if the peer is to be blocked from now.
    pub fn offend(&mut self, node: NodeId, offence: Offence, now: Instant) -> bool {
        let limits = self.limits;
        let peer = self.peer(node, now);
        peer.score = peer.score(&limits, now) + offence.weight();
        peer.scored = now;
        let block = peer.score >= limits.ban_score && peer.blocked_until.is_none();
        if block {
            peer.blocked_until = Some(now + limits.ban);
        }
        block
    }

    /// Peers whose time is over; they start again with half the score that blocked them. Forgets what does not matter any more.
    pub fn released(&mut self, now: Instant) -> Vec<NodeId> {
        let mut released = std::mem::take(&mut self.released_early);
        for (node, peer) in &mut self.peers {
            if peer.blocked_until.is_some_and(|until| until <= now) {
                peer.blocked_until = None;
                peer.score = self.limits.ban_score / 2.0;
                peer.scored = now;
                released.push(*node);
            }
        }
        let limits = self.limits;
        self.peers.retain(|_, peer| !peer.is_forgettable(&limits, now));
        released
    }

    /// Peers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// No peers remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PeerLimits = PeerLimits {
        requests_per_second: 10.0,
        burst: 4.0,
        in_flight: 3,
        ban_score: 100.0,
        ban: Duration::from_secs(60),
        halve: Duration::from_secs(60),
    };

    fn node(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn admits_up_to_the_in_flight_limit_and_again_when_one_is_done() {
        let (mut book, now) = (PeerBook::new(LIMITS), Instant::now());
        for _ in 0..3 {
            assert_eq!(book.admit(node(1), now), Admission::Admitted);
        }
        assert_eq!(book.admit(node(1), now), Admission::TooMany(3));
        assert_eq!(book.admit(node(2), now), Admission::Admitted, "another peer is not held back");
        book.done(&node(1));
        assert_eq!(book.admit(node(1), now), Admission::Admitted);
    }

    #[test]
    fn rate_refills_with_time_and_not_above_the_burst() {
        let (mut book, start) = (PeerBook::new(LIMITS), Instant::now());
        let mut admitted = |now| {
            let n = (0..100).take_while(|_| {
                book.admit(node(1), now) == Admission::Admitted && {
                    book.done(&node(1));
                    true
                }
            });
            n.count()
        };
        assert_eq!(admitted(start), 4);
        assert_eq!(admitted(start), 0);
        assert_eq!(admitted(start + Duration::from_millis(250)), 2);
        assert_eq!(admitted(start + Duration::from_secs(99)), 4);
    }

    #[test]
    fn hanging_up_gives_no_new_burst_and_a_rested_peer_is_forgotten() {
        let (mut book, start) = (PeerBook::new(LIMITS), Instant::now());
        book.connected(node(1), start);
        for _ in 0..3 {
            assert_eq!(book.admit(node(1), start), Admission::Admitted);
        }
        book.disconnected(&node(1), start);
        book.connected(node(1), start);
        assert_eq!(book.admit(node(1), start), Admission::TooMany(3), "its work goes on");
        for _ in 0..3 {
            book.done(&node(1));
        }
        assert_eq!(book.admit(node(1), start), Admission::Admitted);
        book.done(&node(1));
        book.disconnected(&node(1), start);
        book.connected(node(1), start);
        assert_eq!(book.admit(node(1), start), Admission::TooFast);
        book.disconnected(&node(1), start);
        book.released(start + Duration::from_millis(399));
        assert_eq!(book.len(), 1, "four tokens take 400 ms");
        book.released(start + Duration::from_millis(401));
        assert!(book.is_empty());
    }

    #[test]
    fn blocks_after_four_broken_frames_and_releases_after_the_ban() {
        let (mut book, now) = (PeerBook::new(LIMITS), Instant::now());
        for _ in 0..3 {
            assert!(!book.offend(node(1), Offence::Malformed, now));
        }
        assert!(book.offend(node(1), Offence::Malformed, now));
        assert!(!book.offend(node(1), Offence::Malformed, now), "blocked once");
        assert!(book.released(now + Duration::from_secs(59)).is_empty());
        assert_eq!(book.released(now + Duration::from_secs(60)), [node(1)]);
        // Half the score is still there, so two more suffice.
        let later = now + Duration::from_secs(60);
        assert!(!book.offend(node(1), Offence::Malformed, later));
        assert!(book.offend(node(1), Offence::Malformed, later));
    }

    #[test]
    fn scores_fade_so_a_rare_broken_line_never_blocks() {
        let (mut book, start) = (PeerBook::new(LIMITS), Instant::now());
        for minute in 0..1000 {
            assert!(!book.offend(node(1), Offence::Truncated, start + Duration::from_secs(60 * minute)));
        }
    }

    #[test]
    fn forgets_clean_peers_and_stays_bounded_while_keeping_the_guilty() {
        let (mut book, now) = (PeerBook::new(LIMITS), Instant::now());
        book.connected(node(1), now);
        book.disconnected(&node(1), now);
        assert!(book.is_empty());
        for _ in 0..4 {
            book.offend(node(0), Offence::Malformed, now);
        }
        for n in 1..2 * PEERS_MAX as u32 {
            book.connected(node(n), now);
            book.offend(node(n), Offence::Truncated, now);
            book.disconnected(&node(n), now);
        }
        assert_eq!(book.len(), PEERS_MAX);
        assert_eq!(book.released(now + LIMITS.ban), [node(0)]);
    }

    #[test]
    fn a_blocked_peer_that_is_forgotten_is_released() {
        let (mut book, now) = (PeerBook::new(LIMITS), Instant::now());
        for n in 0..=PEERS_MAX as u32 {
            for _ in 0..4 {
                book.offend(node(n), Offence::Malformed, now);
            }
        }
        assert_eq!(book.len(), PEERS_MAX);
        assert_eq!(book.released(now).len(), 1);
    }
}
