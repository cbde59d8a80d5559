//! How a seat changes: who is ready, who votes, and when the votes are enough.
//!
//! ```text
//! newcomer  has every cell, proves it at a recent root ──> Ready ──> each member checks the proof
//! member    the owner wished for it, or a member was not heard for too long and this is the first standby that is ready
//!           ──> signs Seat {epoch, out, join} ──> Vote to members and newcomer ──> a quorum ──> Op::Seat ──> the next epoch's committee
//! ```
//! Rule      for one place, a member signs one seat in an epoch, unless the first can no longer come true; what it signed is on disk before it
//!           is sent. A member that is behind itself calls nobody missing. Votes end with their epoch and are given again in the next.
//! Standby   a node that only waits proves nothing until a member says that somebody is missing: proofs are dear.
//! Source    DESIGN section 7; `docs/protocol/cluster.md`

use crate::app::Shared;
use crate::epochs::Heard;
use crate::executor::Desk;
use crate::fetch::Fetch;
use crate::fill::members as peers_of;
use crate::prover::{Claim, Prover};
use crate::scheme::{Identity, identity, node_id};
use crate::status::Event;
use crate::wire::{Notice, PROOF_BYTES_MAX, Ready};
use commonware_p2p::Blocker;
use commonware_runtime::Clock;
use fluence_crypto::roots::db_root;
use fluence_crypto::sign::{NodeKey, VerifiedOp, seat_op, sign_seat, verify_op, verify_seat_vote};
use fluence_engine::View;
use fluence_types::block::{Member, Members, epoch_of, position, quorum};
use fluence_types::limits::MEMBERS_MAX;
use fluence_types::op::{ClusterChange, NodeSignature, Seat, SeatChange};
use fluence_types::{Height, NodeId, codec};
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// The engine's note of what this node signed in an epoch.
const NOTE_SIGNED: &[u8] = b"seats";
const SIGNED_BYTES_MAX: usize = 64 << 10;
/// Blocks for which a proof stands.
const READY_BLOCKS: u64 = 512;
/// Seats that votes are kept of, of each member in an epoch.
const SEATS_PER_MEMBER_MAX: usize = 4;
/// Proofs that are checked at once.
const CHECKS_MAX: usize = 4;
/// How far below the highest finalized block a replica may be and still count as level.
const LEVEL: u64 = 4;

/// What finished beside the work.
enum Done {
    Proven(Height, Option<Ready>),
    Checked(Identity, Height, bool),
}

/// Votes of members for one seat change.
struct Poll {
    seat: Seat,
    votes: BTreeMap<u16, NodeSignature>,
    /// Looks at it since the votes were enough.
    enough: usize,
}

pub(crate) struct Seats<E, B> {
    pub(crate) clock: E,
    pub(crate) shared: Arc<Shared>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) key: Arc<NodeKey>,
    pub(crate) prover: Arc<dyn Prover>,
    pub(crate) heard: Heard,
    pub(crate) fetch: Fetch,
    pub(crate) blocker: B,
    pub(crate) ours: mpsc::Sender<Arc<VerifiedOp>>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

/// What a replica knows of the seats.
#[derive(Default)]
struct Book {
    epoch: u64,
    /// By canonical seat.
    polls: BTreeMap<Vec<u8>, Poll>,
    signed: Vec<Seat>,
    /// Who proved, and at which height.
    ready: BTreeMap<NodeId, Height>,
    /// Whose proofs are being checked.
    checking: BTreeMap<NodeId, SystemTime>,
    level_since: Option<SystemTime>,
    /// When each was seen to be a member first.
    member_since: BTreeMap<NodeId, SystemTime>,
    /// Our own proof, and whether one is being made.
    proof: Option<Ready>,
    proving: bool,
    /// A member said that a standby is wanted.
    wanted: bool,
}

impl<E: Clock, B: Blocker<PublicKey = Identity>> Seats<E, B> {
    pub(crate) async fn run(mut self, mut notices: mpsc::Receiver<(Identity, Notice)>) {
        let mut book = Book::default();
        let mut work: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        let mut next = self.clock.current();
        loop {
            let notice = {
                let timer = std::pin::pin!(self.clock.sleep_until(next));
                let heard = std::pin::pin!(notices.recv());
                let done = std::pin::pin!(async {
                    match work.next().await {
                        Some(done) => done,
                        None => std::future::pending().await,
                    }
                });
                match select(select(heard, done), timer).await {
                    Either::Left((Either::Left((Some(notice), _)), _)) => Some(Either::Left(notice)),
                    Either::Left((Either::Left((None, _)), _)) => return,
                    Either::Left((Either::Right((done, _)), _)) => Some(Either::Right(done)),
                    Either::Right(_) => None,
                }
            };
            match notice {
                Some(Either::Left((peer, notice))) => self.hear(&mut book, &mut work, peer, notice),
                Some(Either::Right(done)) => self.finished(&mut book, done),
                None => {
                    self.look(&mut book, &mut work);
                    next = self.clock.current() + self.shared.timing.again;
                }
            }
        }
    }

    fn view(&self) -> Option<View<'_>> {
        self.shared.engine.view(self.shared.db).ok()
    }

    fn me(&self) -> NodeId {
        self.key.id()
    }

    /// Whether this replica has executed what it knows to be finalized.
    fn level(&self) -> bool {
        self.desk.finalized().0 <= self.shared.head().height.0 + LEVEL
    }

    // --- At every look ------------------------------------------------------------------------------------------------

    fn look(&self, book: &mut Book, work: &mut FuturesUnordered<BoxFuture<'static, Done>>) {
        let Some(view) = self.view() else { return };
        let (now, epoch) = (self.clock.current(), epoch_of(Height(view.checkpoint().height.0 + 1)));
        if book.epoch != epoch || (book.signed.is_empty() && book.polls.is_empty()) {
            book.polls.retain(|_, poll| poll.seat.epoch == epoch);
            (book.epoch, book.signed) = (epoch, self.signed(epoch));
        }
        book.level_since = self.level().then(|| book.level_since.unwrap_or(now));
        book.member_since.retain(|node, _| position(view.members(), node).is_some());
        for member in view.members().iter() {
            book.member_since.entry(member.node).or_insert(now);
        }
        let head = view.checkpoint().height.0;
        book.ready.retain(|_, height| height.0 + READY_BLOCKS >= head);
        let is_member = position(view.members(), &self.me()).is_some();
        if is_member {
            book.wanted = false;
            self.vote(book, &view, now);
        } else if position(view.next_members(), &self.me()).is_none() {
            self.show(book, &view, work);
        }
        self.count(book, &view);
    }

    /// A newcomer's part: it proves, and says so.
    fn show(&self, book: &mut Book, view: &View<'_>, work: &mut FuturesUnordered<BoxFuture<'static, Done>>) {
        let me = self.me();
        let wished = wished(view).is_some_and(|m| m.node == me);
        let waits = view.standby().iter().any(|m| m.node == me);
        let engine = &self.shared.engine;
        if !(wished || (waits && book.wanted)) || !self.level() || !engine.missing(self.shared.db).is_empty() {
            return;
        }
        let head = view.checkpoint().height.0;
        // Half its time is left for the votes.
        if let Some(proof) = book.proof.as_ref().filter(|p| p.height.0 + READY_BLOCKS / 2 >= head) {
            self.fetch.tell(peers_of(&self.shared, &me), Notice::Ready(Box::new(proof.clone())));
            return;
        }
        if book.proving {
            return;
        }
        let certified = self.desk.latest().borrow().as_ref().map(|c| c.header.executed_height);
        let Some(height) = certified else { return };
        let Some(at) = engine.view_at(self.shared.db, height) else { return };
        let preimage = at.preimage();
        if preimage.stored_cells == 0 {
            book.proof = Some(Ready { height, preimage, proof: codec::Bounded::default() });
            return;
        }
        book.proving = true;
        let claim = Claim::of(&me, height, &preimage);
        let proving = self.prover.prove(&claim);
        work.push(
            async move {
                let proof = proving.await.and_then(|bytes| bytes.try_into().ok());
                Done::Proven(height, proof.map(|proof| Ready { height, preimage, proof }))
            }
            .boxed(),
        );
    }

    /// A member's part: what should change, it signs.
    fn vote(&self, book: &mut Book, view: &View<'_>, now: SystemTime) {
        let missing = self.missing(book, view, now);
        if !missing.is_empty() {
            let standby = view.standby().iter().filter_map(|m| identity(&m.node).ok()).collect();
            self.fetch.tell(standby, Notice::Wanted(missing[0]));
        }
        if !view.seats_open() {
            return;
        }
        let (db, epoch) = (self.shared.db, book.epoch);
        let is_ready = |m: &Member| book.ready.contains_key(&m.node);
        let seat = |out, join| Seat { db, epoch, out, join };
        let mut wanted = Vec::new();
        match view.wish() {
            Some(ClusterChange::Join(m)) if is_ready(m) => wanted.push(seat(None, Some(m.clone()))),
            Some(ClusterChange::Leave(out)) => wanted.push(seat(Some(*out), None)),
            Some(ClusterChange::Replace { out, with }) if is_ready(with) => {
                wanted.push(seat(Some(*out), Some(with.clone())));
            }
            _ => {}
        }
        let mut standby = view.standby().iter().filter(|m| is_ready(m));
        for out in missing {
            wanted.extend(standby.next().map(|m| seat(Some(out), Some(m.clone()))));
        }
        for seat in wanted {
            if !possible(view, &seat) {
                continue;
            }
            if !book.signed.contains(&seat) {
                let taken = |s: &Seat| possible(view, s) && same_place(s, &seat);
                if book.signed.iter().any(taken) || !self.note(book, &seat) {
                    continue;
                }
                tracing::info!(%db, epoch, out = ?seat.out, join = ?seat.join.as_ref().map(|m| m.node), "voting for a seat change");
            }
            let signature = sign_seat(&seat, &self.key);
            let mut to = peers_of(&self.shared, &self.me());
            to.extend(seat.join.as_ref().and_then(|m| identity(&m.node).ok()));
            self.fetch.tell(to, Notice::Vote(Box::new(seat.clone()), signature));
            self.take(book, view, self.me(), seat, signature);
        }
    }

    /// Members that were not heard for too long, while this replica was level; in order of id.
    fn missing(&self, book: &Book, view: &View<'_>, now: SystemTime) -> Vec<NodeId> {
        let Some(level) = book.level_since else { return Vec::new() };
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gone = |node: &NodeId| {
            let last = [heard.get(node), book.member_since.get(node), Some(&level)].into_iter().flatten().max();
            last.is_none_or(|last| now.duration_since(*last).is_ok_and(|d| d >= self.shared.timing.missing))
        };
        let others = view.members().iter().map(|m| m.node).filter(|n| *n != self.me());
        let stays = |n: &NodeId| position(view.next_members(), n).is_some();
        others.filter(stays).filter(gone).collect()
    }

    /// Whose votes are enough, goes into the log: by the newcomer at once, by the members in turn if it does not.
    fn count(&self, book: &mut Book, view: &View<'_>) {
        let members = view.members();
        let me = self.me();
        for poll in book.polls.values_mut() {
            if poll.votes.len() < quorum(members.len()).max(1) || !possible(view, &poll.seat) || !view.seats_open() {
                continue;
            }
            let newcomer = poll.seat.join.as_ref().is_some_and(|m| m.node == me);
            let turn = match position(members, &me) {
                _ if newcomer => 0,
                Some(at) => at + usize::from(poll.seat.join.is_some()),
                None => MEMBERS_MAX,
            };
            poll.enough += 1;
            if poll.enough <= turn || self.shared.mempool.has_seat(&poll.seat) {
                continue;
            }
            let votes: Vec<_> = poll.votes.iter().map(|(at, by)| (*at, *by)).collect();
            let change = SeatChange { seat: poll.seat.clone(), votes: votes.try_into().expect("one of each member") };
            let Ok(op) = verify_op(seat_op(change.clone())) else { continue };
            let op = Arc::new(op);
            if matches!(self.shared.mempool.insert(Arc::clone(&op), 0, self.clock.current()), Ok(true)) {
                let _ = self.ours.try_send(op);
                let _ = self.events.send(Event::Seat(Box::new(change)));
            }
        }
    }

    // --- What others say ----------------------------------------------------------------------------------------------

    fn hear(
        &mut self,
        book: &mut Book,
        work: &mut FuturesUnordered<BoxFuture<'static, Done>>,
        peer: Identity,
        notice: Notice,
    ) {
        let shared = Arc::clone(&self.shared);
        let Ok(view) = shared.engine.view(shared.db) else { return };
        let node = node_id(&peer);
        match notice {
            Notice::Wanted(_) => book.wanted |= position(view.members(), &node).is_some(),
            Notice::Vote(seat, by) => {
                // Votes of strangers, and of other epochs, are nothing: members and epochs change.
                let ours = seat.db == shared.db && seat.epoch == epoch_of(Height(view.checkpoint().height.0 + 1));
                if !ours || position(view.members(), &node).is_none() {
                    return;
                }
                if verify_seat_vote(&seat, &node, &by).is_err() {
                    commonware_p2p::block!(self.blocker, peer, "a vote for a seat that it did not sign");
                    return;
                }
                self.take(book, &view, node, *seat, by);
            }
            Notice::Ready(ready) => {
                let expected = wished(&view).into_iter().chain(view.standby()).any(|m| m.node == node);
                let head = view.checkpoint().height;
                let Ready { height, preimage, proof } = *ready;
                let recent = height <= head && height.0 + READY_BLOCKS >= head.0;
                let known = book.ready.get(&node).is_some_and(|h| *h >= height);
                let now = self.clock.current();
                let again = self.shared.timing.again;
                let waits = book.checking.get(&node).is_some_and(|last| now < *last + again);
                if !expected || !recent || known || waits || work.len() >= CHECKS_MAX {
                    return;
                }
                let ours = self.shared.engine.block_record(self.shared.db, height).ok().flatten();
                let Some(ours) = ours else { return };
                if preimage.db != self.shared.db || db_root(&preimage) != ours.root {
                    commonware_p2p::block!(self.blocker, peer, "a claim about a root that the database never had");
                    return;
                }
                if preimage.stored_cells == 0 {
                    book.ready.insert(node, height);
                    return;
                }
                book.checking.insert(node, now);
                debug_assert!(proof.len() <= PROOF_BYTES_MAX);
                let checking = self.prover.verify(&Claim::of(&node, height, &preimage), &proof);
                work.push(async move { Done::Checked(peer, height, checking.await) }.boxed());
            }
        }
    }

    fn finished(&mut self, book: &mut Book, done: Done) {
        match done {
            Done::Proven(height, ready) => {
                book.proving = false;
                if ready.is_none() {
                    tracing::warn!(db = %self.shared.db, %height, "cannot prove that everything is here");
                }
                book.proof = ready;
            }
            Done::Checked(peer, height, true) => {
                tracing::info!(db = %self.shared.db, node = %node_id(&peer), %height, "a newcomer has everything");
                book.ready.insert(node_id(&peer), height);
            }
            Done::Checked(peer, ..) => {
                commonware_p2p::block!(self.blocker, peer, "a readiness proof that does not hold");
            }
        }
    }

    /// Keeps a vote that was checked.
    fn take(&self, book: &mut Book, view: &View<'_>, node: NodeId, seat: Seat, by: NodeSignature) {
        let Some(at) = position(view.members(), &node).and_then(|at| u16::try_from(at).ok()) else { return };
        let of_member = book.polls.values().filter(|p| p.seat != seat && p.votes.contains_key(&at)).count();
        if of_member >= SEATS_PER_MEMBER_MAX {
            return;
        }
        let poll = book.polls.entry(codec::encode(&seat));
        poll.or_insert_with(|| Poll { seat, votes: BTreeMap::new(), enough: 0 }).votes.insert(at, by);
    }

    // --- What this node signed ----------------------------------------------------------------------------------------

    fn signed(&self, epoch: u64) -> Vec<Seat> {
        let note = self.shared.engine.note(self.shared.db, NOTE_SIGNED).ok().flatten();
        let signed = note.and_then(|n| codec::decode::<Vec<Seat>>("signed seats", &n, SIGNED_BYTES_MAX).ok());
        signed.unwrap_or_default().into_iter().filter(|s| s.epoch == epoch).collect()
    }

    /// Writes down what is about to be signed; false if it cannot.
    fn note(&self, book: &mut Book, seat: &Seat) -> bool {
        book.signed.push(seat.clone());
        match self.shared.engine.set_note(self.shared.db, NOTE_SIGNED, codec::encode(&book.signed)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(db = %self.shared.db, %error, "cannot note a vote for a seat; not giving it");
                book.signed.pop();
                false
            }
        }
    }
}

/// Whom the owner wants in.
fn wished<'a>(view: &'a View<'_>) -> Option<&'a Member> {
    match view.wish() {
        Some(ClusterChange::Join(m) | ClusterChange::Replace { with: m, .. }) => Some(m),
        _ => None,
    }
}

/// Whether a seat change may still come true.
fn possible(view: &View<'_>, seat: &Seat) -> bool {
    let next: &Members = view.next_members();
    let out = seat.out.as_ref().is_none_or(|out| position(next, out).is_some());
    out && seat.join.as_ref().is_none_or(|m| position(next, &m.node).is_none())
}

/// Whether two seat changes give or take the same place.
fn same_place(a: &Seat, b: &Seat) -> bool {
    let join = |s: &Seat| s.join.as_ref().map(|m| m.node);
    (a.out.is_some() && a.out == b.out) || (join(a).is_some() && join(a) == join(b))
}

#[cfg(test)]
mod tests;
