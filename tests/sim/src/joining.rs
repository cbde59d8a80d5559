//! Nodes that begin with a snapshot: the newcomer of a run, and a member that is too far behind.

use crate::net::{SimReceiver, SimSender};
use crate::scenario::Scenario;
use crate::world::{World, lock};
use commonware_runtime::{Clock, Quota, Spawner, Supervisor};
use fluence_consensus::{JoinConfig, join};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_engine::testkit::TestDb;
use fluence_engine::{Engine, EngineConfig};
use fluence_types::block::Block;
use fluence_types::op::{Op, OpReceipt};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The channel on which snapshots travel.
const FETCH: usize = 6;

/// A node that has its snapshot, or needs one.
pub(crate) struct Joined {
    pub(crate) node: usize,
    pub(crate) start: u64,
    pub(crate) whole: bool,
}

fn copy(key: &NodeKey) -> NodeKey {
    key.expose(|seed| NodeKey::new(Secret::new(*seed)))
}

/// Keys of all nodes of a run.
pub(crate) fn keys(db: &TestDb, scenario: &Scenario) -> Vec<NodeKey> {
    let mut keys: Vec<NodeKey> = db.members.iter().map(copy).collect();
    if scenario.newcomer().is_some() {
        let seed = blake3::hash(&[&b"newcomer"[..], &scenario.seed.to_be_bytes()].concat());
        keys.push(NodeKey::new(Secret::new(*seed.as_bytes())));
    }
    keys
}

impl World {
    pub(crate) fn key(&self, node: usize) -> Arc<NodeKey> {
        Arc::new(copy(&self.keys[node]))
    }

    /// Whether it runs, or is about to.
    pub(crate) fn is_up(&self, node: usize) -> bool {
        let slots = lock(&self.shared.slots);
        slots[node].running.is_some() || slots[node].joining.is_some()
    }

    fn open(&self, node: usize) -> Option<Engine> {
        let disk = Arc::clone(&lock(&self.shared.slots)[node].disk);
        match Engine::open(disk, EngineConfig::default()) {
            Ok(engine) => Some(engine),
            Err(error) => {
                self.shared.record.violation(format!("durability: node {node} cannot open its engine: {error}"));
                None
            }
        }
    }

    pub(crate) fn needs_snapshot(&self, node: usize) -> bool {
        let behind = lock(&self.shared.slots)[node].behind;
        behind || (node >= self.scenario.members && self.open(node).is_some_and(|e| e.databases().is_empty()))
    }

    /// Asks for a snapshot until there is one.
    pub(crate) async fn start_joining(&mut self, node: usize) {
        let Some(engine) = self.open(node).map(Arc::new) else { return };
        let start = {
            let mut slots = lock(&self.shared.slots);
            slots[node].starts += 1;
            slots[node].starts
        };
        let quota = Quota::per_second(NonZeroU32::new(10_000).expect("not 0"));
        let control = self.oracle.control(self.identity(node));
        let (inner, receiver) = control.register(FETCH as u64, quota).await.expect("the network runs");
        let mut link = (SimSender { inner, tap: None, channel: FETCH }, SimReceiver::Whole(receiver));
        let config = {
            let (db, key, timing) = (self.db.db, self.key(node), self.scenario.timing);
            let committees = BTreeMap::from([(0, self.db.member_list())]);
            move || JoinConfig {
                db,
                key: Arc::clone(&key),
                committees: committees.clone(),
                timing,
                patience: Duration::from_secs(20),
            }
        };
        let (mut manager, joined) = (self.oracle.manager(), self.join.clone());
        let context = self.context.child("join").with_attribute("member", node).with_attribute("start", start);
        let handle = context.spawn(move |context| async move {
            for attempt in 0u64.. {
                let own = context.child("attempt").with_attribute("number", attempt);
                let fetched = join(own, Arc::clone(&engine), config(), &mut link, &mut manager, control.clone()).await;
                match fetched {
                    Ok(_) => break,
                    Err(_) => context.sleep(Duration::from_millis(300)).await,
                }
            }
            drop(link);
            let _ = joined.send(Joined { node, start, whole: true });
        });
        lock(&self.shared.slots)[node].joining = Some(handle);
    }

    /// Starts the replicas of nodes that have their snapshots, and fetches snapshots for those that need one.
    pub(crate) async fn tend(&mut self) {
        while let Ok(Joined { node, start, whole }) = self.joined.try_recv() {
            if lock(&self.shared.slots)[node].starts != start {
                continue;
            }
            self.crash(node, false).await;
            if whole {
                let Some(engine) = self.open(node) else { continue };
                self.snapshots += 1;
                self.say(format_args!("node {node} has a snapshot of {:?}", engine.head(self.db.db).map(|h| h.height)));
                let began_with = engine.missing(self.db.db).iter().map(|m| m.segment).collect();
                let mut slots = lock(&self.shared.slots);
                (slots[node].behind, slots[node].began_with) = (false, began_with);
            } else {
                self.say(format_args!("member {node} is too far behind"));
                lock(&self.shared.slots)[node].behind = true;
            }
            self.start(node).await;
        }
    }

    /// What the newcomer's seat must find: everything that lay under the snapshot it began with.
    pub(crate) fn seated(
        &self,
        node: usize,
        engine: &Arc<Engine>,
    ) -> impl Fn(&Block, &[OpReceipt]) + Send + Sync + 'static {
        let (me, db) = (self.keys[node].id(), self.db.db);
        let began_with = lock(&self.shared.slots)[node].began_with.clone();
        let (record, engine) = (Arc::clone(&self.shared.record), Arc::clone(engine));
        move |block, outcomes| {
            for (op, receipt) in block.ops.iter().zip(outcomes) {
                let Op::Seat(change) = &op.unsigned.op else { continue };
                let comes = change.seat.join.as_ref().is_some_and(|m| m.node == me) && receipt.outcome.is_ok();
                let missing = began_with.iter().filter(|root| engine.is_missing(db, **root)).count();
                if comes && missing > 0 {
                    let height = block.header.height;
                    record.violation(format!("readiness: a seat in block {height} for who misses {missing} segments"));
                }
            }
        }
    }
}
