//! Writers: they read versions from a member, sign, submit, wait, try again elsewhere, and note what they were answered.
//!
//! Rule    an answer counts only from an honest member and with a certificate that verifies: what a real client would take.

use crate::scenario::{Change, Manner, Scenario};
use crate::world::{Running, Shared, lock, millis};
use commonware_runtime::{Clock, deterministic};
use fluence_consensus::SubmitError;
use fluence_crypto::sign::{NodeKey, VerifiedOp, op_id, sign_op, sign_receipt, verify_op};
use fluence_crypto::vote::verify_certificate;
use fluence_engine::testkit::{TestDb, TestSegment, TestWriter, change, commit, define, schema};
use fluence_types::block::{Certificate, Members, position};
use fluence_types::limits::LIVE_SEGMENTS_MAX;
use fluence_types::op::{ClusterChange, Delivery, Op, OpReceipt, Receipt, SegmentRef, SignedOp};
use fluence_types::{Address, DatabaseId, Height, OpId, ProjectionId};
use futures::future::{Either, select};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Live segments of a projection above which a writer compacts.
const LIVE_MAX: usize = 8;

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) context: deterministic::Context,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) db: Arc<TestDb>,
    /// Its key, and its place in its chain.
    pub(crate) writer: TestWriter,
    /// All writers.
    pub(crate) writers: Vec<Address>,
    /// Keys of all nodes.
    pub(crate) keys: Arc<Vec<NodeKey>>,
    /// Counts those that have finished.
    pub(crate) done: Arc<AtomicUsize>,
    pub(crate) rng: StdRng,
    /// Segments made so far.
    pub(crate) made: u64,
    /// Operations that were done.
    pub(crate) past: Vec<SignedOp>,
}

/// The key of a writer.
pub(crate) fn key(seed: u64, index: usize) -> TestWriter {
    match index {
        0 => TestWriter::new(seed),
        _ => TestWriter::new(seed ^ 0xabcd_0000_0000 ^ ((index as u64) << 48)),
    }
}

impl Client {
    pub(crate) fn new(
        index: usize,
        context: deterministic::Context,
        (scenario, shared, db, keys): (Arc<Scenario>, Arc<Shared>, Arc<TestDb>, Arc<Vec<NodeKey>>),
        done: Arc<AtomicUsize>,
    ) -> Self {
        let seed = scenario.seed;
        let mut writer = key(seed, index);
        if index == 0 {
            (writer.sequence, writer.previous) = (db.owner.sequence, db.owner.previous);
        }
        let writers = (0..scenario.writers.len()).map(|i| key(seed, i).key.address()).collect();
        let rng = StdRng::seed_from_u64(seed ^ 0x0c11_e470 ^ (index as u64) << 32);
        Self { index, context, scenario, shared, db, writer, writers, keys, done, rng, made: 0, past: Vec::new() }
    }

    pub(crate) async fn run(mut self) {
        let plan = self.scenario.writers[self.index];
        if self.index == 0 {
            for projection in 0..self.scenario.projections {
                self.act(&|_, _| Some(define(projection, schema(1, 0)))).await;
            }
            let mut writers = self.writers[1..].to_vec();
            writers.sort();
            let writers: Op = Op::SetWriters { writers: writers.try_into().expect("a few") };
            self.act(&|_, _| Some(writers.clone())).await;
            self.wish().await;
        }
        for _ in 0..plan.ops {
            let pause = self.rng.gen_range(1..=plan.pause_ms);
            self.pause(pause, plan.manner).await;
            if self.is_over() {
                break;
            }
            self.transact(plan.manner).await;
        }
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits. A patient writer, who never sends anything twice, comes at the worst moment: when its member is the one that is cut off.
    async fn pause(&self, ms: u64, manner: Manner) {
        if manner != Manner::Patient {
            return self.context.sleep(Duration::from_millis(ms)).await;
        }
        self.shared.patient.fetch_add(1, Ordering::SeqCst);
        let until = self.context.current() + Duration::from_millis(ms);
        while self.context.current() < until && lock(&self.shared.near).is_none() {
            self.context.sleep(Duration::from_millis(10)).await;
        }
        self.shared.patient.fetch_sub(1, Ordering::SeqCst);
    }

    /// What the owner wishes of the members.
    async fn wish(&mut self) {
        let Some((at, change)) = self.scenario.change else { return };
        let wait = at.saturating_sub(millis(self.context.current()));
        self.context.sleep(Duration::from_millis(wait)).await;
        let id = |member: usize| self.keys[member].id();
        let newcomer = || self.keys[self.scenario.members].member();
        let wish = match change {
            Change::Join => ClusterChange::Join(newcomer()),
            Change::Leave(out) => ClusterChange::Leave(id(out)),
            Change::Replace(out) => ClusterChange::Replace { out: id(out), with: newcomer() },
        };
        *lock(&self.shared.leaving) = change.out();
        self.act(&|_, _| Some(Op::Cluster(wish.clone()))).await;
    }

    fn is_over(&self) -> bool {
        self.shared.healed.load(Ordering::SeqCst)
    }

    /// A member that runs; a liar's now and then.
    async fn member(&mut self) -> (usize, Running) {
        loop {
            let leaving = *lock(&self.shared.leaving);
            let near = lock(&self.shared.near).filter(|near| *near < self.scenario.members);
            let member = near.unwrap_or_else(|| self.rng.gen_range(0..self.scenario.members));
            if Some(member) != leaving
                && let Some(running) = self.shared.running(member)
            {
                return (member, running);
            }
            self.context.sleep(Duration::from_millis(100)).await;
        }
    }

    /// A transaction on one or two projections, until it is done or the run is over.
    async fn transact(&mut self, manner: Manner) {
        let count = if self.rng.gen_bool(0.3) { 2 } else { 1 };
        let mut projections: Vec<u32> = (0..self.scenario.projections).collect();
        projections.shuffle(&mut self.rng);
        projections.truncate(count);
        let writes = if self.rng.gen_bool(0.5) { 1 } else { projections.len() };
        let delivery = match manner {
            Manner::ShortReceipts if self.rng.gen_bool(0.5) => By::TooFewReceipts,
            Manner::Upload if self.rng.gen_bool(0.6) => By::Receipts,
            _ => By::Inline,
        };
        match manner {
            Manner::Double if self.rng.gen_bool(0.5) => self.double(&projections, writes).await,
            _ => {
                let index = self.index;
                let parts = (Arc::clone(&self.scenario), Arc::clone(&self.db), Arc::clone(&self.shared));
                let build = move |made: u64, running: &Running| {
                    build(index, (&parts.0, &parts.1, &parts.2), running, &projections, writes, made, delivery)
                };
                self.act(&build).await;
            }
        }
        if manner == Manner::Repeat && self.rng.gen_bool(0.5) {
            self.repeat().await;
        }
    }

    /// Has one operation done: built anew after a conflict, sent again after a timeout. Whether it was.
    async fn act(&mut self, build: &(dyn Fn(u64, &Running) -> Option<Op> + Send + Sync)) -> bool {
        loop {
            let (_, running) = self.member().await;
            let made = self.made;
            self.made += 2;
            let Some(op) = build(made, &running) else {
                if self.is_over() {
                    return false;
                }
                self.context.sleep(Duration::from_millis(200)).await;
                continue;
            };
            drop(running);
            let signed = self.writer.sign(self.db.db, op);
            match self.insist(&signed).await {
                Some(receipt) if receipt.outcome.is_ok() => {
                    self.writer.advance(&signed);
                    self.past.push(signed);
                    return true;
                }
                // Refused: somebody committed first, or this was wrong on purpose. It is never done later.
                Some(_) if self.is_over() => return false,
                Some(_) if self.scenario.writers[self.index].manner == Manner::ShortReceipts => return false,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Sends an operation until it is answered. `None` where it can never be.
    async fn insist(&mut self, signed: &SignedOp) -> Option<OpReceipt> {
        let id = op_id(&signed.unsigned);
        let verified = verify_op(signed.clone()).expect("it is signed");
        self.shared.record.asked(id, self.index, self.context.current());
        let manner = self.scenario.writers[self.index].manner;
        loop {
            let (member, running) = self.member().await;
            if manner == Manner::Repeat
                && let (_, other) = self.member().await
            {
                // The same to another at once; nobody waits for that one.
                let _ = self.submit(&other, &verified, Duration::from_millis(1)).await;
            }
            let patience = match manner {
                Manner::Patient if !self.scenario.liars.contains_key(&member) => None,
                _ => Some(Duration::from_millis(self.rng.gen_range(1_000..4_000))),
            };
            let answer = match patience {
                Some(limit) => self.submit(&running, &verified, limit).await,
                None => self.wait(member, &running, &verified).await,
            };
            match answer {
                Some(Ok((receipt, certificate))) => {
                    if !self.scenario.liars.contains_key(&member) && self.is_good(&receipt, &certificate) {
                        self.shared.record.answered(&receipt, self.context.current());
                        return Some(receipt);
                    }
                }
                Some(Err(SubmitError::Refused(_))) => {
                    // Perhaps done through another member, whose answer did not arrive.
                    if let Some(receipt) = self.look(member, &running, id).await {
                        return Some(receipt);
                    }
                    if self.is_hopeless(&running, signed) {
                        return None;
                    }
                    self.context.sleep(Duration::from_millis(200)).await;
                }
                Some(Err(_)) => self.context.sleep(Duration::from_millis(200)).await,
                None => {
                    if let Some(receipt) = self.look(member, &running, id).await {
                        return Some(receipt);
                    }
                }
            }
        }
    }

    async fn submit(
        &self,
        running: &Running,
        op: &VerifiedOp,
        limit: Duration,
    ) -> Option<Result<(OpReceipt, Certificate), SubmitError>> {
        let answer = std::pin::pin!(running.replica.submit(op.clone()));
        let timer = std::pin::pin!(self.context.sleep(limit));
        match select(answer, timer).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    /// Waits for as long as the member runs. After the end of all faults it may take so long, and no longer.
    async fn wait(
        &self,
        member: usize,
        running: &Running,
        op: &VerifiedOp,
    ) -> Option<Result<(OpReceipt, Certificate), SubmitError>> {
        let mut answer = std::pin::pin!(running.replica.submit(op.clone()));
        loop {
            let timer = std::pin::pin!(self.context.sleep(Duration::from_millis(250)));
            match select(answer, timer).await {
                Either::Left((answer, _)) => return Some(answer),
                Either::Right((_, rest)) => answer = rest,
            }
            let leaves = *lock(&self.shared.leaving) == Some(member);
            if leaves || self.shared.running(member).is_none_or(|now| now.start != running.start) {
                return None;
            }
        }
    }

    /// What a member says became of an operation, where it is certified.
    async fn look(&self, member: usize, running: &Running, id: OpId) -> Option<OpReceipt> {
        if self.scenario.liars.contains_key(&member) {
            return None;
        }
        let receipt = running.engine.receipt(self.db.db, id).ok()??;
        let certificate = running.replica.latest()?;
        if !self.is_good(&receipt, &certificate) {
            return None;
        }
        self.shared.record.answered(&receipt, self.context.current());
        Some(receipt)
    }

    fn is_good(&self, receipt: &OpReceipt, certificate: &Certificate) -> bool {
        let committee = self.shared.committee(&self.scenario, self.db.db, certificate.header.consensus_epoch);
        // Nobody runs that knows it: asked again later.
        let Some(members) = committee else { return false };
        if let Err(why) = verify_certificate(certificate, &members) {
            self.shared.record.violation(format!("a certificate that does not verify: {why}"));
            return false;
        }
        certificate.header.executed_height >= receipt.height
    }

    /// Whether the chain of the writer has passed an operation that was not done.
    fn is_hopeless(&self, running: &Running, signed: &SignedOp) -> bool {
        let Ok(view) = running.engine.view(self.db.db) else { return false };
        // Done there, and not certified yet: the next question will be answered.
        if running.engine.receipt(self.db.db, op_id(&signed.unsigned)).is_ok_and(|receipt| receipt.is_some()) {
            return false;
        }
        let state = view.writer(signed.unsigned.writer);
        state.next_sequence > signed.unsigned.sequence || (self.is_over() && !state.allowed)
    }

    /// Two operations with one number, each to another member. At most one may be done.
    async fn double(&mut self, projections: &[u32], writes: usize) {
        let (_, running) = self.member().await;
        let mut pair = Vec::new();
        for _ in 0..2 {
            self.made += 2;
            let made = self.made;
            let parts = (&*self.scenario, &*self.db, &*self.shared);
            let op = build(self.index, parts, &running, projections, writes, made, By::Inline);
            let Some(op) = op else { return };
            pair.push(self.writer.sign(self.db.db, op));
        }
        drop(running);
        let at = self.context.current();
        for signed in &pair {
            self.shared.record.asked(op_id(&signed.unsigned), self.index, at);
        }
        loop {
            // Each comes first in turn: what waits keeps the other out of the pools, and a refused one may wait again and again.
            pair.reverse();
            for signed in &pair {
                let (_, running) = self.member().await;
                let verified = verify_op(signed.clone()).expect("it is signed");
                let _ = self.submit(&running, &verified, Duration::from_millis(20)).await;
            }
            self.context.sleep(Duration::from_millis(700)).await;
            let (member, running) = self.member().await;
            if self.scenario.liars.contains_key(&member) {
                continue;
            }
            for signed in &pair {
                let receipt = self.look(member, &running, op_id(&signed.unsigned)).await;
                if receipt.is_some_and(|r| r.outcome.is_ok()) {
                    self.writer.advance(signed);
                    self.past.push(signed.clone());
                    return;
                }
            }
            // Both refused by a conflict: neither is ever done.
            let refused = |signed: &SignedOp| {
                let receipt = running.engine.receipt(self.db.db, op_id(&signed.unsigned)).ok().flatten();
                receipt.is_some_and(|r| matches!(r.outcome, Err(fluence_types::op::OpRefusal::Conflict { .. })))
            };
            if pair.iter().all(refused) {
                return;
            }
        }
    }

    /// Sends something that was done long ago once more.
    async fn repeat(&mut self) {
        let Some(old) = self.past.choose(&mut self.rng).cloned() else { return };
        let (_, running) = self.member().await;
        let verified = verify_op(old).expect("it was done");
        let _ = self.submit(&running, &verified, Duration::from_millis(300)).await;
    }
}

/// How the cells of a segment reach the members.
#[derive(Clone, Copy)]
enum By {
    Inline,
    Receipts,
    TooFewReceipts,
}

/// A commit that reads the versions which a member has now. `None` where it is not there yet, or too few members take an upload.
fn build(
    index: usize,
    (scenario, db, shared): (&Scenario, &TestDb, &Shared),
    running: &Running,
    projections: &[u32],
    writes: usize,
    made: u64,
    by: By,
) -> Option<Op> {
    let view = running.engine.view(db.db).ok()?;
    let mut reads = Vec::new();
    let mut changes = Vec::new();
    for (i, projection) in projections.iter().enumerate() {
        let entry = view.snapshot(ProjectionId(*projection)).ok()?.entry;
        reads.push((*projection, entry.version.0));
        // The owner alone retires without a lease. The others stop short of what the engine bears.
        if i < writes && (index == 0 || entry.live.len() + 1 < LIVE_SEGMENTS_MAX) {
            let seed = scenario.seed << 20 ^ (index as u64) << 16 ^ (made + i as u64);
            // What is uploaded has more than one page.
            let bytes = if matches!(by, By::Receipts) { 18_000 } else { 3 };
            let segment = TestSegment::new(seed, &schema(1, 0), 1, bytes);
            let appended = match by {
                By::Inline => segment.inline(),
                By::Receipts => upload(seed, (scenario, db, shared), view.members(), &segment)?,
                By::TooFewReceipts => too_few_receipts(db, &segment),
            };
            let retire = if index == 0 && entry.live.len() >= LIVE_MAX { entry.live[..4].to_vec() } else { Vec::new() };
            changes.push(change(*projection, vec![appended], retire));
        }
    }
    (!changes.is_empty()).then(|| commit(&reads, changes))
}

/// A segment that was uploaded to a quorum of the members that run, whichever they are.
fn upload(
    seed: u64,
    (scenario, db, shared): (&Scenario, &TestDb, &Shared),
    members: &Members,
    segment: &TestSegment,
) -> Option<SegmentRef> {
    let is_member = |member: &usize| position(members, &db.members[*member].id()).is_some();
    let mut order: Vec<usize> = (0..scenario.members).filter(is_member).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    let quorum = members.len() - (members.len() - 1) / 3;
    let mut receipts: Vec<(usize, Receipt)> = Vec::new();
    let mut blind = Vec::new();
    for member in order {
        if receipts.len() + blind.len() == quorum && !receipts.is_empty() {
            break;
        }
        let Some(running) = shared.running(member) else { continue };
        if scenario.liars.get(&member).is_some_and(|conduct| conduct.signs_blindly()) {
            blind.push(member);
        } else if let Ok(checked) = segment.upload(&running.engine, db.db, 8 << 10) {
            receipts.push((member, checked.receipt(db.members[member].id())));
        }
    }
    let copied = receipts.first()?.1.clone();
    receipts.extend(blind.iter().map(|m| (*m, Receipt { node: db.members[*m].id(), ..copied.clone() })));
    if receipts.len() < quorum {
        return None;
    }
    shared.record.lock().uploaded.insert(segment.root());
    let signed: Vec<_> =
        receipts.into_iter().map(|(member, receipt)| sign_receipt(receipt, &db.members[member])).collect();
    Some(segment.delivered(Delivery::Receipts(signed.try_into().expect("few members"))))
}

/// A segment that one member less than a quorum signed for.
fn too_few_receipts(db: &TestDb, segment: &TestSegment) -> SegmentRef {
    let f = (db.members.len() - 1) / 3;
    let sign = |key: &NodeKey| {
        let receipt = Receipt {
            node: key.id(),
            db: db.db,
            segment: segment.preimage,
            id: segment.header.id,
            rows: segment.header.rows,
            schema: segment.header.schema,
            expiry: Height(1000),
        };
        sign_receipt(receipt, key)
    };
    let receipts: Vec<_> = db.members.iter().take(2 * f).map(sign).collect();
    segment.delivered(Delivery::Receipts(receipts.try_into().expect("few members")))
}

/// An operation of the owner, at its place in the chain.
pub(crate) fn owners(db: DatabaseId, writer: &TestWriter, op: Op) -> SignedOp {
    let (address, sequence, previous) = (writer.key.address(), writer.sequence, writer.previous);
    sign_op(fluence_types::op::UnsignedOp { db, writer: address, sequence, previous, op }, &writer.key)
}
