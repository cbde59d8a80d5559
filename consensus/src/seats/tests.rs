use super::*;
use crate::fetch::Order;
use crate::mempool::{Limits, Mempool};
use crate::openings::Openings;
use crate::planted::Planted;
use crate::replica::Timing;
use commonware_actor::Feedback;
use commonware_p2p::BlockedSubscription;
use commonware_runtime::{Runner, Supervisor, deterministic};
use fluence_crypto::secret::Secret;
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{Engine, EngineConfig, MemStore};
use fluence_types::DatabaseId;
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::op::Op;
use std::sync::Mutex;
use std::time::Duration;

#[derive(Clone, Default)]
struct Blocks(Arc<Mutex<Vec<NodeId>>>);

impl Blocker for Blocks {
    type PublicKey = Identity;

    fn block(&mut self, peer: Identity) -> Feedback {
        self.0.lock().unwrap().push(node_id(&peer));
        Feedback::Ok
    }

    fn blocked(&mut self) -> BlockedSubscription<Identity> {
        unreachable!("nobody asks here")
    }
}

type Work = FuturesUnordered<BoxFuture<'static, Done>>;

/// The first member of a cluster, with nothing around it.
struct Bench {
    context: deterministic::Context,
    seats: Seats<deterministic::Context, Blocks>,
    engine: Arc<Engine>,
    db: TestDb,
    book: Book,
    work: Work,
    orders: mpsc::Receiver<Order>,
    blocks: Blocks,
}

fn key(i: u8) -> NodeKey {
    NodeKey::new(Secret::new([i + 50; 32]))
}

impl Bench {
    fn run(members: usize, test: impl FnOnce(Self)) {
        deterministic::Runner::default().start(|context| async move {
            let engine = Arc::new(Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).unwrap());
            let mut db = TestDb::new(1, members);
            db.create(&engine).unwrap();
            let timing = Timing { missing: Duration::from_secs(40), ..Timing::default() };
            let mempool = Mempool::new(Limits::default());
            let shared = Arc::new(Shared::new(db.db, Arc::clone(&engine), mempool, timing, Planted::default()));
            let (fetch, orders) = Fetch::new();
            let blocks = Blocks::default();
            let seats = Seats {
                clock: context.child("seats"),
                shared,
                desk: Arc::default(),
                key: db.members[0].expose(|seed| Arc::new(NodeKey::new(Secret::new(*seed)))),
                prover: Arc::new(Openings::new(Arc::clone(&engine))),
                heard: Heard::default(),
                fetch,
                blocker: blocks.clone(),
                ours: mpsc::channel(16).0,
                events: mpsc::unbounded_channel().0,
            };
            let (book, work) = (Book::default(), FuturesUnordered::new());
            test(Self { context, seats, engine, db, book, work, orders, blocks });
        });
    }

    fn act(&mut self, op: Op) {
        self.db.act(&self.engine, op).unwrap().unwrap();
    }

    fn look(&mut self) {
        self.seats.look(&mut self.book, &mut self.work);
    }

    fn hear(&mut self, from: &NodeKey, notice: Notice) {
        self.seats.hear(&mut self.book, &mut self.work, identity(&from.id()).unwrap(), notice);
    }

    fn vote(&mut self, from: &NodeKey, seat: &Seat) {
        self.hear(from, Notice::Vote(Box::new(seat.clone()), sign_seat(seat, from)));
    }

    fn votes(&self) -> usize {
        self.book.polls.values().map(|p| p.votes.len()).sum()
    }

    /// Lets all proofs that wait be checked.
    fn finish(&mut self) {
        while let Some(Some(done)) = self.work.next().now_or_never() {
            self.seats.finished(&mut self.book, done);
        }
    }

    /// What was sent as votes since the last look.
    fn sent(&mut self) -> Vec<Seat> {
        let mut sent = Vec::new();
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Tell(_, Notice::Vote(seat, by)) = order {
                verify_seat_vote(&seat, &self.seats.me(), &by).unwrap();
                sent.push(*seat);
            }
        }
        sent
    }

    /// What a newcomer that has everything would say now.
    fn ready(&self, from: &NodeKey) -> Ready {
        let view = self.engine.view(self.db.db).unwrap();
        let (height, preimage) = (view.checkpoint().height, view.preimage());
        let claim = Claim::of(&from.id(), height, &preimage);
        let prove = |_| self.seats.prover.prove(&claim).now_or_never().unwrap().unwrap();
        let proof = (preimage.stored_cells > 0).then_some(()).map(prove).unwrap_or_default();
        Ready { height, preimage, proof: proof.try_into().unwrap() }
    }

    fn fill(&mut self) {
        self.act(define(0, schema(1, 1)));
        let segment = TestSegment::new(1, &schema(1, 1), 40, 9);
        self.act(commit(&[(0, 0)], vec![change(0, vec![segment.inline()], vec![])]));
    }

    fn go_to_epoch(&mut self, epoch: u64) {
        while self.db.last.unwrap().height.0 + 1 < epoch * EPOCH_BLOCKS {
            self.db.apply(&self.engine, vec![]).unwrap();
        }
    }

    fn blocked(&self) -> Vec<NodeId> {
        self.blocks.0.lock().unwrap().clone()
    }
}

fn member_key(bench: &Bench, i: usize) -> NodeKey {
    bench.db.members[i].expose(|seed| NodeKey::new(Secret::new(*seed)))
}

#[test]
fn votes_count_from_members_for_this_epoch_and_database_only() {
    Bench::run(4, |mut bench| {
        bench.look();
        let seat = Seat { db: bench.db.db, epoch: 0, out: None, join: Some(key(1).member()) };
        bench.vote(&key(1), &seat);
        bench.vote(&key(2), &seat);
        let one = member_key(&bench, 1);
        bench.vote(&one, &Seat { epoch: 1, ..seat.clone() });
        bench.vote(&one, &Seat { db: DatabaseId::default(), ..seat.clone() });
        assert_eq!((bench.votes(), bench.blocked()), (0, vec![]));
        // By another key than the sender's: a lie.
        bench.hear(&one, Notice::Vote(Box::new(seat.clone()), sign_seat(&seat, &key(1))));
        assert_eq!((bench.votes(), bench.blocked()), (0, vec![one.id()]));
        bench.vote(&one, &seat);
        bench.vote(&one, &seat);
        assert_eq!(bench.votes(), 1);
        let two = member_key(&bench, 2);
        bench.vote(&two, &seat);
        assert_eq!(bench.votes(), 2);
        // One member cannot make us keep seats without end.
        for i in 2..40 {
            bench.vote(&one, &Seat { join: Some(key(i).member()), ..seat.clone() });
        }
        assert_eq!(bench.book.polls.len(), SEATS_PER_MEMBER_MAX);
        // Votes end with their epoch.
        bench.go_to_epoch(1);
        bench.look();
        assert_eq!(bench.votes(), 0);
    });
}

#[test]
fn a_quorum_of_votes_is_put_before_the_cluster_once() {
    Bench::run(4, |mut bench| {
        bench.look();
        let seat = Seat { db: bench.db.db, epoch: 0, out: Some(bench.db.members[3].id()), join: None };
        for i in 1..3 {
            let key = member_key(&bench, i);
            bench.vote(&key, &seat);
        }
        bench.look();
        assert_eq!(bench.seats.shared.mempool.len(), 0, "two of four are too few");
        let three = member_key(&bench, 3);
        bench.vote(&three, &seat);
        bench.look();
        bench.look();
        assert_eq!(bench.seats.shared.mempool.len(), 1);
        let op = bench.seats.shared.mempool.waiting(1).remove(0).signed().clone();
        assert_eq!(bench.db.apply(&bench.engine, vec![op]).unwrap().outcomes[0].outcome, Ok(()));
        bench.seats.shared.mempool.executed([bench.seats.shared.mempool.waiting(1)[0].id()].into_iter(), |_| 0);
        bench.look();
        assert_eq!(bench.seats.shared.mempool.len(), 0, "what has come true is not proposed again");
    });
}

#[test]
fn a_newcomer_is_ready_by_its_own_proof_at_a_root_of_ours() {
    Bench::run(4, |mut bench| {
        bench.fill();
        let (newcomer, stranger) = (key(1), key(2));
        bench.act(Op::Cluster(ClusterChange::Join(newcomer.member())));
        bench.look();
        let good = bench.ready(&newcomer);
        let say = |bench: &mut Bench, from: &NodeKey, ready: &Ready| {
            bench.book.checking.clear();
            bench.hear(from, Notice::Ready(Box::new(ready.clone())));
            bench.finish();
        };
        // Nobody asked for the stranger; and what is ahead of us or too old is nothing.
        let of_stranger = bench.ready(&stranger);
        say(&mut bench, &stranger, &of_stranger);
        say(&mut bench, &newcomer, &Ready { height: Height(good.height.0 + 1), ..good.clone() });
        assert!(bench.book.ready.is_empty() && bench.blocked().is_empty());
        // A root that never was; a proof of another node; none.
        let mut other = good.clone();
        other.preimage.stored_cells = 0;
        say(&mut bench, &newcomer, &other);
        assert_eq!(bench.blocked().len(), 1);
        say(&mut bench, &newcomer, &of_stranger);
        assert_eq!(bench.blocked().len(), 2);
        say(&mut bench, &newcomer, &Ready { proof: codec::Bounded::default(), ..good.clone() });
        assert_eq!(bench.blocked().len(), 3);
        assert!(bench.book.ready.is_empty());
        bench.look();
        assert!(bench.sent().is_empty(), "no vote before it is ready");
        say(&mut bench, &newcomer, &good);
        assert_eq!(bench.blocked().len(), 3);
        assert!(bench.book.ready.contains_key(&newcomer.id()));
        bench.look();
        let seat = Seat { db: bench.db.db, epoch: 0, out: None, join: Some(newcomer.member()) };
        assert_eq!(bench.sent(), std::slice::from_ref(&seat));
        // In the next epoch the vote is given again; long after, the proof counts no more.
        bench.go_to_epoch(1);
        bench.look();
        assert_eq!(bench.sent(), [Seat { epoch: 1, ..seat }]);
        while bench.db.last.unwrap().height.0 <= good.height.0 + READY_BLOCKS {
            bench.db.apply(&bench.engine, vec![]).unwrap();
        }
        bench.look();
        assert!(bench.sent().is_empty());
    });
}

#[test]
fn for_one_place_one_seat_is_signed_in_an_epoch_across_restarts() {
    Bench::run(4, |mut bench| {
        let out = bench.db.members[3].id();
        let replace = |i: u8| ClusterChange::Replace { out, with: key(i).member() };
        let seat = |epoch, i: u8| Seat { db: bench.db.db, epoch, out: Some(out), join: Some(key(i).member()) };
        let (first, later) = (seat(0, 1), seat(1, 2));
        for i in [1, 2] {
            bench.act(Op::Cluster(replace(i)));
            bench.look();
            let (key, ready) = (key(i), bench.ready(&key(i)));
            bench.hear(&key, Notice::Ready(Box::new(ready)));
            bench.look();
            assert_eq!(bench.sent(), if i == 1 { vec![first.clone()] } else { vec![] });
        }
        let ready = bench.book.ready.clone();
        bench.book = Book { ready: ready.clone(), ..Book::default() };
        bench.look();
        assert!(bench.sent().is_empty(), "a restart forgets nothing");
        // Nor does a vote for a member that leaves go to the same place.
        bench.act(Op::Cluster(ClusterChange::Leave(out)));
        bench.look();
        assert!(bench.sent().is_empty());
        bench.act(Op::Cluster(replace(2)));
        bench.go_to_epoch(1);
        bench.look();
        assert_eq!(bench.sent(), [later]);
    });
}

#[test]
fn what_can_no_longer_come_true_frees_its_place() {
    Bench::run(7, |mut bench| {
        let (a, b) = (bench.db.members[5].id(), bench.db.members[6].id());
        bench.act(Op::Cluster(ClusterChange::Replace { out: a, with: key(1).member() }));
        bench.look();
        let ready = bench.ready(&key(1));
        bench.hear(&key(1), Notice::Ready(Box::new(ready)));
        bench.look();
        assert_eq!(bench.sent().len(), 1);
        // Meanwhile the first member left by other votes: the newcomer may take another's place.
        let op = bench.db.seat(0, Some(a), None, 5);
        assert_eq!(bench.db.apply(&bench.engine, vec![op]).unwrap().outcomes[0].outcome, Ok(()));
        bench.act(Op::Cluster(ClusterChange::Replace { out: b, with: key(1).member() }));
        bench.look();
        let want = Seat { db: bench.db.db, epoch: 0, out: Some(b), join: Some(key(1).member()) };
        assert_eq!(bench.sent(), [want]);
    });
}

#[test]
fn a_member_is_missing_only_when_not_heard_while_we_were_level() {
    Bench::run(4, |mut bench| {
        bench.look();
        let gone = |bench: &Bench| {
            let view = bench.engine.view(bench.db.db).unwrap();
            bench.seats.missing(&bench.book, &view, bench.context.current())
        };
        let ids = bench.db.member_ids();
        assert!(gone(&bench).is_empty());
        let wait = |bench: &mut Bench, seconds: u64| {
            let long_ago = bench.context.current() - Duration::from_secs(seconds);
            for since in bench.book.member_since.values_mut().chain(bench.book.level_since.as_mut()) {
                *since = (*since).min(long_ago);
            }
        };
        wait(&mut bench, 39);
        assert!(gone(&bench).is_empty());
        wait(&mut bench, 40);
        assert_eq!(gone(&bench), ids[1..], "all but ourselves");
        bench.seats.heard.lock().unwrap().insert(ids[2], bench.context.current());
        assert_eq!(gone(&bench), [ids[1], ids[3]]);
        // A standby is ready, and takes the first one's place.
        bench.act(Op::Cluster(ClusterChange::Standby(vec![key(1).member(), key(2).member()].try_into().unwrap())));
        let ready = bench.ready(&key(2));
        bench.hear(&key(2), Notice::Ready(Box::new(ready)));
        bench.look();
        let want = Seat { db: bench.db.db, epoch: 0, out: Some(ids[1]), join: Some(key(2).member()) };
        assert_eq!(bench.sent(), [want]);
        // Behind, we call nobody missing, and the time begins anew.
        bench.book.level_since = None;
        assert!(gone(&bench).is_empty());
        bench.look();
        assert!(gone(&bench).is_empty());
        assert!(bench.sent().is_empty());
    });
}
