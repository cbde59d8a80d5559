//! Consensus epochs: one engine each, with the committee of the time.
//!
//! Rule     a new epoch's engine starts when the block that ends the one before is executed. A peer that speaks of a later epoch makes us
//!          fetch that block. An engine whose vote journal is gone does not vote again in its epoch: it may have voted already.
//! Quiet    an epoch after one in which nothing happened is slower: a leader with nothing to say holds its proposal longer, and is waited for
//!          longer. An operation is proposed at once there too.
//! Pruning  the vote journals of an epoch go two epochs later: by then the block that ended it is executed and on disk, so that this node
//!          never enters it again, and nothing of its engine runs any more.
//! Source   DESIGN section 7; commonware monorepo issue 2456

use crate::app::{App, Shared};
use crate::block::{BlockDigest, ClusterBlock};
use crate::committees::Committees;
use crate::executor::Marshal;
use crate::join::agreement;
use crate::replica::{Link, Runtime};
use crate::scheme::{Identity, Scheme, committee_scheme, node_id};
use crate::status::{Event, Evidence};
use commonware_actor::Feedback;
use commonware_consensus::marshal::standard::Inline;
use commonware_consensus::simplex::elector::RoundRobin;
use commonware_consensus::simplex::types::{Activity, Finalization, Finalize, Notarize, Nullify};
use commonware_consensus::simplex::{self, Engine as Simplex, Floor, ForwardPolicy, SkipPolicy, config::SkipBudget};
use commonware_consensus::types::{Epoch, FixedEpocher, Height as ConsensusHeight, ViewDelta};
use commonware_consensus::{Reporter, Reporters, Viewable};
use commonware_cryptography::Sha256;
use commonware_p2p::utils::mux::{Builder, MuxHandle, Muxer};
use commonware_p2p::{Blocker, Receiver, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_runtime::{Blob, Handle};
use commonware_utils::NonZeroDuration;
use commonware_utils::vec::NonEmptyVec;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote::{Vote, verify_vote};
use fluence_types::block::{Members, VoteSignature, epoch_of, position};
use fluence_types::limits::EPOCH_BLOCKS;
use fluence_types::{BlockHash, Height, NodeId};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// The engine's note of the last epoch in which this node voted.
const NOTE_VOTED: &[u8] = b"voted";
/// The engine's note of the first epoch whose vote journal may still be there.
const NOTE_JOURNALS: &[u8] = b"journals";
/// For how many timeouts of a question the head must stand still before others that are ahead count as out of reach; fewer where they
/// are further ahead than blocks are kept.
const STILL: u32 = 60;
const STILL_FAR: u32 = 6;
/// Views behind the tip whose votes are kept.
const VIEWS_KEPT: u64 = 64;

/// Where the vote journal of an epoch lies.
fn journal(partition: &str, epoch: u64) -> String {
    format!("{partition}-votes-{epoch}")
}

pub(crate) type Automaton<E> = Inline<E, Scheme, App, ClusterBlock, FixedEpocher>;

/// When each member was heard voting last.
pub(crate) type Heard = Arc<Mutex<BTreeMap<NodeId, SystemTime>>>;

/// What runs now.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Running {
    pub(crate) epoch: u64,
    pub(crate) view: u64,
    pub(crate) voting: bool,
}

/// Who speaks of later epochs while our head stands still.
struct Ahead {
    head: Height,
    since: SystemTime,
    /// The latest epoch that each spoke of.
    peers: BTreeMap<NodeId, u64>,
}

pub(crate) struct Epochs<E: Runtime, B> {
    pub(crate) context: E,
    pub(crate) shared: Arc<Shared>,
    pub(crate) committees: Committees,
    pub(crate) key: Arc<NodeKey>,
    pub(crate) marshal: Marshal,
    pub(crate) automaton: Automaton<E>,
    pub(crate) blocker: B,
    pub(crate) cache: CacheRef,
    pub(crate) partition: String,
    pub(crate) keep_blocks: u64,
    pub(crate) running: Arc<Mutex<Running>>,
    pub(crate) heard: Heard,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

impl<E: Runtime, B: Blocker<PublicKey = Identity>> Epochs<E, B> {
    pub(crate) async fn run<S: Sender<PublicKey = Identity>, R: Receiver<PublicKey = Identity>>(
        mut self,
        (vote, certificate, resolver): (Link<S, R>, Link<S, R>, Link<S, R>),
        mut enter: mpsc::UnboundedReceiver<u64>,
    ) {
        let (mux, mut votes, mut later) =
            Muxer::builder(self.context.child("vote_mux"), vote.0, vote.1).with_backup().build();
        mux.start();
        let (mux, mut certificates) = Muxer::new(self.context.child("certificate_mux"), certificate.0, certificate.1);
        mux.start();
        let (mux, mut resolvers) = Muxer::new(self.context.child("resolver_mux"), resolver.0, resolver.1);
        mux.start();
        let mut engines: BTreeMap<u64, Handle<()>> = BTreeMap::new();
        let first = epoch_of(Height(self.shared.head().height.0 + 1));
        let mut next = Some(first);
        let mut ahead = Ahead { head: Height(0), since: self.context.current(), peers: BTreeMap::new() };
        loop {
            if let Some(epoch) = next.take()
                && engines.keys().next_back().is_none_or(|last| *last < epoch)
            {
                match self.enter(epoch, &mut votes, &mut certificates, &mut resolvers).await {
                    Some(engine) => {
                        engines.insert(epoch, engine);
                        let _ = self.events.send(Event::Epoch(epoch));
                    }
                    None => return,
                }
                self.prune(epoch).await;
                // The one before ends, else its last block is proposed again and again for ever. Who misses that block hears of the
                // later epoch and fetches it.
                while engines.len() > 1 {
                    engines.pop_first().expect("there are some").1.abort();
                }
            }
            let heard = std::pin::pin!(later.recv());
            let entered = std::pin::pin!(enter.recv());
            match futures::future::select(entered, heard).await {
                futures::future::Either::Left((Some(epoch), _)) => next = Some(epoch),
                futures::future::Either::Left((None, _)) | futures::future::Either::Right((None, _)) => return,
                futures::future::Either::Right((Some((theirs, (peer, _))), _)) => {
                    let ours = engines.keys().next_back().copied().unwrap_or(0);
                    if theirs > ours {
                        self.look_ahead(&mut ahead, ours, node_id(&peer), theirs);
                        let end = (ours + 1) * EPOCH_BLOCKS - 1;
                        self.marshal.hint_finalized(ConsensusHeight::new(end), NonEmptyVec::new(peer));
                    }
                }
            }
        }
    }

    /// Removes the vote journals of epochs before the last.
    async fn prune(&mut self, epoch: u64) {
        let (engine, db) = (Arc::clone(&self.shared.engine), self.shared.db);
        let noted = engine.note(db, NOTE_JOURNALS).ok().flatten();
        let noted = noted.and_then(|n| n.try_into().ok()).map(u64::from_be_bytes);
        let first = || engine.origin(db).ok().flatten().map_or(0, |origin| epoch_of(origin.height));
        let (known, first) = (noted.is_some(), noted.unwrap_or_else(first));
        let keep = epoch.saturating_sub(1).max(first);
        if known && first == keep {
            return;
        }
        for over in first..keep {
            match self.context.remove(&journal(&self.partition, over), None).await {
                // Never begun: this node was no member, or was away.
                Ok(()) | Err(commonware_runtime::Error::PartitionMissing(_)) => {}
                Err(error) => {
                    tracing::warn!(%db, epoch = over, %error, "a vote journal cannot be removed; trying again later");
                    return;
                }
            }
        }
        if let Err(error) = engine.set_note(db, NOTE_JOURNALS, keep.to_be_bytes().to_vec()) {
            tracing::warn!(%db, epoch, %error, "cannot note which vote journals were removed");
        }
    }

    /// Says so when members that are ahead do not give us the blocks in between.
    fn look_ahead(&self, ahead: &mut Ahead, ours: u64, peer: NodeId, theirs: u64) {
        let (head, now) = (self.shared.head().height, self.context.current());
        if ahead.head != head {
            *ahead = Ahead { head, since: now, peers: BTreeMap::new() };
        }
        let Ok(Some(members)) = self.shared.engine.committee(self.shared.db, ours) else { return };
        if position(&members, &peer).is_none() {
            return;
        }
        ahead.peers.insert(peer, theirs);
        // One of so many is honest, and its epoch began at this height or above.
        let mut epochs: Vec<u64> = ahead.peers.values().copied().collect();
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        let Some(epoch) = epochs.get(agreement(&members) - 1) else { return };
        let at = Height(epoch.saturating_mul(EPOCH_BLOCKS));
        let still = if at.0 > head.0.saturating_add(self.keep_blocks) { STILL_FAR } else { STILL };
        if now.duration_since(ahead.since).is_ok_and(|passed| passed >= self.shared.timing.fetch * still) {
            tracing::warn!(db = %self.shared.db, %head, others = %at, "out of reach of the log; a snapshot is needed");
            let _ = self.events.send(Event::Behind(at));
            ahead.since = now;
        }
    }

    /// Whether the journal of an epoch in which this node voted before is there.
    async fn may_vote(&mut self, epoch: u64, partition: &str) -> bool {
        let (engine, db) = (Arc::clone(&self.shared.engine), self.shared.db);
        let voted = match engine.note(db, NOTE_VOTED) {
            Ok(note) => note.and_then(|n| n.try_into().ok()).map(u64::from_be_bytes),
            Err(_) => return false,
        };
        if voted.is_some_and(|last| last >= epoch) {
            let journal = self.context.scan(partition).await.is_ok_and(|blobs| !blobs.is_empty())
                || self.shared.planted.votes_without_journal();
            if !journal {
                tracing::error!(%db, epoch, "the vote journal of this epoch is gone; not voting before the next");
            }
            return journal && voted == Some(epoch);
        }
        // The journal begins before the note: else a crash between them looks as if it had been lost, and if all members crash there,
        // nobody votes again. View 0 has no votes.
        let began = match self.context.open(partition, &0u64.to_be_bytes()).await {
            Ok((journal, _)) => journal.sync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = began {
            tracing::error!(%db, epoch, %error, "cannot begin the vote journal");
            return false;
        }
        if let Err(error) = engine.set_note(db, NOTE_VOTED, epoch.to_be_bytes().to_vec()) {
            tracing::error!(%db, epoch, %error, "cannot note that this node votes");
            return false;
        }
        true
    }

    /// Whether nothing changed the root in the epoch before. All members see the same log, so all give this epoch the same times; one that
    /// lacks the record is only less patient than the others.
    fn is_quiet(&self, epoch: u64) -> bool {
        let root =
            |height| self.shared.engine.block_record(self.shared.db, Height(height)).ok().flatten().map(|r| r.root);
        // Its last block, and the last one of the epoch before that.
        let last = |epoch: u64| root((epoch + 1) * EPOCH_BLOCKS - 1);
        epoch >= 2 && last(epoch - 1).is_some_and(|r| Some(r) == last(epoch - 2))
    }

    async fn enter<S: Sender<PublicKey = Identity>>(
        &mut self,
        epoch: u64,
        votes: &mut MuxHandle<S>,
        certificates: &mut MuxHandle<S>,
        resolvers: &mut MuxHandle<S>,
    ) -> Option<Handle<()>> {
        let (engine, db) = (Arc::clone(&self.shared.engine), self.shared.db);
        let members = match engine.committee(db, epoch) {
            Ok(Some(members)) => members,
            other => {
                tracing::error!(%db, epoch, ?other, "no committee for this epoch");
                return None;
            }
        };
        let partition = journal(&self.partition, epoch);
        let member = position(&members, &self.key.id()).is_some();
        let voting = member && self.may_vote(epoch, &partition).await;
        let scheme = match committee_scheme(db, &members, voting.then_some(&*self.key)) {
            Ok(scheme) => scheme,
            Err(error) => {
                tracing::error!(%db, epoch, %error, "no committee for this epoch");
                return None;
            }
        };
        self.committees.register(epoch, scheme.clone());
        let anchor = match epoch {
            0 => Height(0),
            _ => Height(epoch * EPOCH_BLOCKS - 1),
        };
        let genesis = engine.block_record(db, anchor).ok().flatten()?.hash;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Running { epoch, view: 0, voting };
        let observer = Observer {
            shared: Arc::clone(&self.shared),
            members: Arc::new(members),
            epoch,
            running: Arc::clone(&self.running),
            heard: Arc::clone(&self.heard),
            now: Arc::new({
                let clock = self.context.child("observer");
                move || clock.current()
            }),
            events: self.events.clone(),
        };
        let quiet = self.is_quiet(epoch);
        self.shared.quiet.store(quiet, Ordering::Relaxed);
        let timing = self.shared.timing.of_epoch(quiet);
        let engine = Simplex::new(
            self.context.child("simplex").with_attribute("epoch", epoch),
            simplex::Config {
                scheme,
                elector: RoundRobin::<Sha256>::default(),
                blocker: self.blocker.clone(),
                automaton: self.automaton.clone(),
                relay: self.automaton.clone(),
                reporter: Reporters::from((self.automaton.clone(), observer)),
                track_historical_votes: true,
                strategy: Sequential,
                partition,
                mailbox_size: NonZeroUsize::new(1024).expect("not 0"),
                epoch: Epoch::new(epoch),
                floor: Floor::Genesis(crate::block::digest(&genesis)),
                replay_buffer: NonZeroUsize::new(1 << 20).expect("not 0"),
                write_buffer: NonZeroUsize::new(64 << 10).expect("not 0"),
                page_cache: self.cache.clone(),
                leader_timeout: timing.leader,
                certification_timeout: timing.certification,
                timeout_retry: timing.retry,
                view_retention: ViewDelta::new(VIEWS_KEPT),
                skip: SkipPolicy::Enabled { timeout: timing.skip, budget: SkipBudget::Participants },
                fetch_timeout: NonZeroDuration::new_panic(timing.fetch),
                fetch_retry_delay: timing.fetch / 10,
                forward: ForwardPolicy::SilentVoters,
            },
        );
        let vote = votes.register(epoch).await.ok()?;
        let certificate = certificates.register(epoch).await.ok()?;
        let resolver = resolvers.register(epoch).await.ok()?;
        tracing::info!(%db, epoch, voting, quiet, "consensus epoch begins");
        Some(engine.start(vote, certificate, resolver))
    }
}

/// Listens to the votes: who is there, and who contradicts itself.
#[derive(Clone)]
struct Observer {
    shared: Arc<Shared>,
    members: Arc<Members>,
    epoch: u64,
    running: Arc<Mutex<Running>>,
    heard: Heard,
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    events: mpsc::UnboundedSender<Event>,
}

impl Observer {
    fn hear(&self, signer: u32) {
        if let Some(member) = self.members.get(signer as usize) {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.insert(member.node, (self.now)());
        }
    }

    fn conflict(&self, signer: u32, view: u64, first: Cast, second: Cast) {
        let Some(member) = self.members.get(signer as usize) else { return };
        let (Some(first), Some(second)) = (first, second) else { return };
        // What is reported is not checked yet, and a stranger's forgery is no evidence.
        let good = |(vote, by): &(Vote, VoteSignature)| {
            verify_vote(member, self.shared.db, self.epoch, view, *vote, by).is_ok()
        };
        if !good(&first) || !good(&second) {
            return;
        }
        tracing::error!(db = %self.shared.db, node = %member.node, epoch = self.epoch, view, "a member contradicts itself");
        let evidence = Evidence { node: member.node, epoch: self.epoch, view, first, second };
        let _ = self.events.send(Event::Conflict(Box::new(evidence)));
    }
}

/// A vote with its signature.
type Cast = Option<(Vote, VoteSignature)>;

fn bytes(signature: Option<impl commonware_codec::Encode>) -> Option<VoteSignature> {
    signature?.encode().as_ref().try_into().ok()
}

fn notarize(vote: &Notarize<Scheme, BlockDigest>) -> Cast {
    let (parent_view, block) = (vote.proposal.parent.get(), BlockHash::from_bytes(vote.proposal.payload.0));
    Some((Vote::Notarize { parent_view, block }, bytes(vote.attestation.signature.get().cloned())?))
}

fn finalize(vote: &Finalize<Scheme, BlockDigest>) -> Cast {
    let (parent_view, block) = (vote.proposal.parent.get(), BlockHash::from_bytes(vote.proposal.payload.0));
    Some((Vote::Finalize { parent_view, block }, bytes(vote.attestation.signature.get().cloned())?))
}

fn nullify(vote: &Nullify<Scheme>) -> Cast {
    Some((Vote::Nullify, bytes(vote.attestation.signature.get().cloned())?))
}

/// The two votes of a conflict, whose fields the library keeps to itself: they are its encoding, one after the other.
fn parts<A, C>(conflict: &impl commonware_codec::Encode) -> Option<(A, C)>
where
    A: commonware_codec::Read<Cfg = ()>,
    C: commonware_codec::Read<Cfg = ()>,
{
    let mut encoded = conflict.encode();
    let first = A::read_cfg(&mut encoded, &()).ok()?;
    Some((first, C::read_cfg(&mut encoded, &()).ok()?))
}

impl Reporter for Observer {
    type Activity = Activity<Scheme, BlockDigest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match activity {
            Activity::Notarize(vote) => self.hear(vote.attestation.signer.get()),
            Activity::Nullify(vote) => self.hear(vote.attestation.signer.get()),
            Activity::Finalize(vote) => self.hear(vote.attestation.signer.get()),
            Activity::Finalization(Finalization { proposal, .. }) => {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                if running.epoch == self.epoch {
                    running.view = running.view.max(proposal.round.view().get());
                }
            }
            Activity::ConflictingNotarize(c) => {
                if let Some((a, b)) = parts::<Notarize<_, _>, Notarize<_, _>>(&c) {
                    self.conflict(a.attestation.signer.get(), c.view().get(), notarize(&a), notarize(&b));
                }
            }
            Activity::ConflictingFinalize(c) => {
                if let Some((a, b)) = parts::<Finalize<_, _>, Finalize<_, _>>(&c) {
                    self.conflict(a.attestation.signer.get(), c.view().get(), finalize(&a), finalize(&b));
                }
            }
            Activity::NullifyFinalize(c) => {
                if let Some((a, b)) = parts::<Nullify<_>, Finalize<_, _>>(&c) {
                    self.conflict(a.attestation.signer.get(), c.view().get(), nullify(&a), finalize(&b));
                }
            }
            _ => {}
        }
        Feedback::Ok
    }
}
