//! A key that votes twice in a running cluster: heard by a member, kept as evidence, shown to the chain, slashed. Skipped, and says so,
//! where anvil is not installed.
//!
//! Rule    the twin speaks the cluster's protocol over a connection of its own, and nobody is told what to look for. It lies only about
//!         rounds that the node whose key it has took no part in, so that what is found is what it said.

use crate::anchoring::{FLU, Ground, PATIENCE, on_chain};
use crate::cluster::World;
use commonware_actor::Feedback;
use commonware_codec::varint::UInt;
use commonware_codec::{DecodeExt, Encode};
use commonware_consensus::simplex::types::{Finalize, Notarize, Nullify, Proposal, Vote};
use commonware_consensus::types::{Epoch, Round, View};
use commonware_consensus::{Epochable, Viewable};
use commonware_p2p::utils::mux;
use commonware_p2p::{Manager, Receiver, Recipients, Sender};
use commonware_utils::ordered::Set;
use fluence_bindings::NodeStatus;
use fluence_consensus::{BlockDigest, Scheme, committee_scheme};
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote;
use fluence_engine::testkit::{TestSegment, change, commit, define, schema};
use fluence_node::cluster::evidence;
use fluence_node::net::cluster::key_of;
use fluence_node::net::{self, Channel, ClusterPeers, ClusterReceiver, ClusterSender, NetConfig, NetHandle};
use fluence_types::NodeId;
use fluence_types::block::Certificate;
use std::time::{Duration, Instant};

type Ballot = Vote<Scheme, BlockDigest>;

/// Somebody who has a member's key, and votes as he likes.
struct Twin {
    /// Its swarm runs for as long.
    _net: NetHandle,
    peers: ClusterPeers,
    sender: ClusterSender,
    receiver: ClusterReceiver,
    scheme: Scheme,
    /// It lies about later rounds only.
    after: Round,
}

impl Twin {
    /// Comes to the cluster in the place of the node with this key, and waits until the others speak with it.
    async fn new(key: &NodeKey, world: &World, after: Round) -> Self {
        let (net, mut inbound, _) = net::start(key, &NetConfig::default()).await.unwrap();
        tokio::spawn(async move { while inbound.recv().await.is_some() {} });
        let mut cluster = net.cluster(world.db).unwrap();
        let (sender, receiver) = cluster.channel(Channel::Vote);
        let mut peers = cluster.peers();
        let members = world.members.iter().map(|m| key_of(&m.node).unwrap());
        assert_eq!(peers.track(0, Set::from_iter_dedup(members)), Feedback::Ok);
        for peer in world.places.iter().map(|p| &p.peer).filter(|p| p.node != key.id()) {
            peers.set_addresses(peer.node, &peer.addresses).unwrap();
        }
        let mut present = peers.present();
        let all = present.wait_for(|present| present.len() == world.members.len() - 1);
        drop(tokio::time::timeout(PATIENCE, all).await.expect("the others let the twin in").unwrap());
        let scheme = committee_scheme(world.db, &world.members, Some(key)).unwrap();
        Self { _net: net, peers, sender, receiver, scheme, after }
    }

    fn hears(&self, node: NodeId) -> bool {
        self.peers.present().borrow().contains(&node)
    }

    /// Of every round that somebody votes in, tells `to` what `ballots` makes of it, until `enough`.
    async fn tell(&mut self, to: NodeId, ballots: fn(&Scheme, Round) -> Vec<Ballot>, enough: impl Fn(&Self) -> bool) {
        let told = async {
            while !enough(self) {
                let (_, frame) = self.receiver.recv().await.unwrap();
                let (epoch, ballot) = mux::parse(frame).unwrap();
                let ballot = Ballot::decode(ballot).unwrap();
                let round = Round::new(ballot.epoch(), ballot.view());
                assert_eq!(round.epoch().get(), epoch);
                if round <= self.after {
                    continue;
                }
                for ballot in ballots(&self.scheme, round) {
                    let frame = [&UInt(epoch).encode()[..], &ballot.encode()[..]].concat();
                    self.sender.send(Recipients::One(key_of(&to).unwrap()), frame, false);
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("what the twin says has its effect");
    }
}

/// A proposal that nobody made.
fn proposal(round: Round, block: u8) -> Proposal<BlockDigest> {
    Proposal::new(round, View::new(round.view().get().saturating_sub(1)), BlockDigest::from([block; 32]))
}

/// What an honest member may say, and at last what contradicts it: the view is skipped, and a block of it finalized.
fn skips_and_finalizes(scheme: &Scheme, round: Round) -> Vec<Ballot> {
    let skip = || Vote::Nullify(Nullify::sign::<BlockDigest>(scheme, round).unwrap());
    let notarize = Vote::Notarize(Notarize::sign(scheme, proposal(round, 1)).unwrap());
    vec![notarize, skip(), skip(), Vote::Finalize(Finalize::sign(scheme, proposal(round, 1)).unwrap())]
}

/// Two notarized proposals of one view, but the signature of the second is that of the first.
fn forges(scheme: &Scheme, round: Round) -> Vec<Ballot> {
    let first = Notarize::sign(scheme, proposal(round, 1)).unwrap();
    let second = Notarize { proposal: proposal(round, 2), ..first.clone() };
    vec![Vote::Notarize(first), Vote::Notarize(second)]
}

/// The last round that a node can have voted in that was stopped before an operation was submitted, which this certifies: the quorum
/// that finalized it was in that view later, and a quorum less one had to be in the view before the node's own.
fn last_round(certificate: &Certificate) -> Round {
    Round::new(Epoch::new(certificate.header.consensus_epoch), View::new(certificate.view + 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_votes_twice_in_a_running_cluster_is_slashed_and_honest_members_keep_what_they_have() {
    // Who hears both votes; who hears one and a forgery; who stops and starts again; whose key it is.
    const WITNESS: usize = 0;
    const DECEIVED: usize = 1;
    const RESTARTED: usize = 2;
    const TWIN: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let Some(ground) = Ground::new(&dir.path().join("keys")).await else { return };
    let mut world = World::with(ground.four().await, on_chain).await;
    let mut operators = Vec::new();
    for (i, place) in world.places.iter().enumerate() {
        operators.push(ground.join(i + 1, &place.key()).await);
    }
    let supply = ground.treasury.flu_supply().await.unwrap();

    // Four honest members, one of which votes again by its journal.
    world.act(WITNESS, define(0, schema(1, 1))).await;
    let rows = |seed| vec![change(0, vec![TestSegment::new(seed, &schema(1, 1), 20, 20).inline()], vec![])];
    let (receipt, _) = world.act(TWIN, commit(&[(0, 0)], rows(1))).await;
    world.stop(RESTARTED).await;
    world.restart(RESTARTED).await;
    world.level(RESTARTED, receipt.height).await;

    // The node of one is stopped, and its key comes back with somebody who lies.
    world.stop(TWIN).await;
    let (_, certificate) = world.act(RESTARTED, commit(&[(0, 1)], rows(2))).await;
    assert!(world.places.iter().all(|place| place.evidence().is_empty()), "evidence against an honest member");
    let key = world.places[TWIN].key();
    let mut twin = Twin::new(&key, &world, last_round(&certificate)).await;

    // A forgery has the one who sends it blocked, and is no evidence.
    let deceived = world.places[DECEIVED].peer.node;
    twin.tell(deceived, forges, |twin| !twin.hears(deceived)).await;
    let witness = &world.places[WITNESS];
    twin.tell(witness.peer.node, skips_and_finalizes, |_| !witness.evidence().is_empty()).await;

    // The member that heard both accuses, by itself.
    let begun = Instant::now();
    while operators[TWIN].collateral(&key.id()).await.unwrap().total() != 0 {
        assert!(begun.elapsed() < PATIENCE, "nobody was slashed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let accuser = operators[WITNESS].connection().account().unwrap();
    let proven = ground.treasury.equivocation_events(0).await.unwrap();
    assert_eq!(proven.iter().map(|p| (p.node, p.db, p.accuser)).collect::<Vec<_>>(), [(key.id(), world.db, accuser)]);
    let round = Round::new(Epoch::new(proven[0].consensus_epoch), View::new(proven[0].view));
    assert!(round > last_round(&certificate), "what was found is what the twin said");
    // A fifth is the accuser's, and the rest is burned.
    assert_eq!(proven[0].slashed, 1_000 * FLU);
    assert_eq!(ground.treasury.credit(&accuser).await.unwrap(), 200 * FLU);
    assert_eq!(ground.treasury.flu_supply().await.unwrap(), supply - 800 * FLU);
    assert_eq!(operators[TWIN].node(&key.id()).await.unwrap().unwrap().status, NodeStatus::Suspended);

    // The honest ones go on, and lose nothing.
    world.act(DECEIVED, commit(&[(0, 2)], rows(3))).await;
    for i in [WITNESS, DECEIVED, RESTARTED] {
        let node = world.places[i].peer.node;
        assert_eq!(operators[i].collateral(&node).await.unwrap().total(), 1_000 * FLU);
        assert_eq!(operators[i].node(&node).await.unwrap().unwrap().status, NodeStatus::Active);
    }
    for i in [DECEIVED, RESTARTED, TWIN] {
        let found = world.places[i].evidence();
        assert!(found.is_empty(), "{found:?}");
    }
    for path in world.places[WITNESS].evidence() {
        let found = evidence::read(&path).unwrap();
        assert_eq!((found.node, found.db), (key.id(), world.db));
        let [(first, _), (second, _)] = &found.votes;
        assert!(matches!((first, second), (vote::Vote::Nullify, vote::Vote::Finalize { .. })));
    }
    assert_eq!(ground.treasury.equivocation_events(0).await.unwrap().len(), 1);
    world.end().await;
}
