//! The sequential model: what each operation must do, written once more and without trees, stores or signatures.
//!
//! Rule    versions, chains, rights, live segments and seats as `fluence_types::op::OpRefusal` says them; it shares no code with the
//!         engine.

use fluence_crypto::sign::verify_seat;
use fluence_types::block::{Member, Members};
use fluence_types::op::{ClusterChange, Delivery, Op, OpOutcome, OpRefusal, SeatChange, UnsignedOp};
use fluence_types::{Address, Height, NodeId, OpId, SegmentId};
use std::collections::{BTreeMap, BTreeSet};

/// Blocks of a consensus epoch, and those at its end in which no seat changes.
const EPOCH: u64 = 64;
const CLOSED: u64 = 8;

#[derive(Clone, Copy, Default)]
struct Chain {
    allowed: bool,
    next: u64,
    previous: OpId,
}

#[derive(Default)]
struct Projection {
    version: u64,
    live: usize,
}

/// The state of one database.
#[derive(Default)]
pub(crate) struct Model {
    owner: Address,
    chains: BTreeMap<Address, Chain>,
    projections: Vec<Projection>,
    segments: BTreeSet<SegmentId>,
    epoch: u64,
    members: BTreeMap<NodeId, Member>,
    /// The members of the next epoch, and how many seats changed in this one.
    next: BTreeMap<NodeId, Member>,
    changed: usize,
}

fn conflict(why: impl std::fmt::Display) -> Result<(), String> {
    Err(why.to_string())
}

impl Model {
    /// A database as its creation makes it.
    pub(crate) fn create(op: &UnsignedOp, id: OpId, members: &Members) -> Self {
        let owner = Chain { allowed: true, next: 1, previous: id };
        let members: BTreeMap<NodeId, Member> = members.iter().map(|m| (m.node, m.clone())).collect();
        let chains = BTreeMap::from([(op.writer, owner)]);
        Self { owner: op.writer, chains, next: members.clone(), members, ..Self::default() }
    }

    fn quorum(&self) -> usize {
        self.members.len() - (self.members.len() - 1) / 3
    }

    /// Why a seat may not change.
    fn seat(&self, change: &SeatChange, height: Height) -> Result<(), String> {
        let SeatChange { seat, votes } = change;
        let members: Vec<Member> = self.members.values().cloned().collect();
        let members: Members = members.try_into().map_err(|_| "too many members")?;
        let at = height.0 % EPOCH;
        match () {
            () if seat.epoch != height.0 / EPOCH => Err("it was voted for in another epoch".to_owned()),
            () if EPOCH - 1 - at < CLOSED => Err("the epoch ends".to_owned()),
            () if self.changed >= ((self.members.len() - 1) / 3).max(1) => Err("enough seats changed".to_owned()),
            () if votes.len() < self.quorum() || verify_seat(change, &members).is_err() => Err("no quorum".to_owned()),
            () if seat.out.as_ref().is_some_and(|out| !self.next.contains_key(out)) => {
                Err("who leaves is none".to_owned())
            }
            () if seat.join.as_ref().is_some_and(|m| self.next.contains_key(&m.node)) => {
                Err("who comes is one".to_owned())
            }
            () => Ok(()),
        }
    }

    /// Why the owner may not wish for this.
    fn wish(&self, change: &ClusterChange) -> Result<(), String> {
        let (out, join) = match change {
            ClusterChange::Join(member) => (None, Some(member.node)),
            ClusterChange::Leave(node) => (Some(*node), None),
            ClusterChange::Replace { out, with } => (Some(*out), Some(with.node)),
            _ => (None, None),
        };
        match () {
            () if out.is_some_and(|out| !self.next.contains_key(&out)) => Err("who leaves is none".to_owned()),
            () if join.is_some_and(|join| self.next.contains_key(&join)) => Err("who comes is one".to_owned()),
            () => Ok(()),
        }
    }

    /// Does the next operation in the order of the log.
    ///
    /// # Errors
    /// Why what became of it is not what had to.
    pub(crate) fn act(&mut self, height: Height, op: &UnsignedOp, id: OpId, outcome: &OpOutcome) -> Result<(), String> {
        if height.0 / EPOCH > self.epoch {
            (self.epoch, self.changed, self.members) = (height.0 / EPOCH, 0, self.next.clone());
        }
        let must = self.expected(op, height);
        match (must, outcome) {
            // What is said of seats is for people.
            (Err(_), Err(OpRefusal::Cluster(_))) if matches!(op.op, Op::Seat(_) | Op::Cluster(_)) => Ok(()),
            (Ok(()), Ok(())) => {
                self.accept(op, id);
                Ok(())
            }
            (Ok(()), Err(refusal)) => conflict(format!("refused without reason: {refusal}")),
            (Err(why), Ok(())) => conflict(format!("accepted, but {why}")),
            (Err(why), Err(refusal)) if why == reason(refusal) => Ok(()),
            (Err(why), Err(refusal)) => conflict(format!("refused as {refusal}, but {why}")),
        }
    }

    fn expected(&self, op: &UnsignedOp, height: Height) -> Result<(), String> {
        if let Op::Seat(change) = &op.op {
            return self.seat(change, height);
        }
        let chain = self.chains.get(&op.writer).copied().unwrap_or_default();
        if !chain.allowed {
            return Err(reason(&OpRefusal::NotAllowed(op.writer)));
        }
        if op.sequence != chain.next {
            return Err(reason(&OpRefusal::Sequence { got: op.sequence, expected: chain.next }));
        }
        if op.previous != chain.previous {
            return Err(reason(&OpRefusal::Chain { got: op.previous, expected: chain.previous }));
        }
        match &op.op {
            Op::DefineProjection { projection, .. } if projection.0 as usize != self.projections.len() => {
                Err(reason(&OpRefusal::Projection(*projection)))
            }
            Op::SetWriters { .. } | Op::Cluster(_) if op.writer != self.owner => {
                Err(reason(&OpRefusal::NotAllowed(op.writer)))
            }
            Op::Cluster(change) => self.wish(change),
            Op::Commit { reads, changes, .. } => {
                for (id, read) in reads.iter() {
                    let found = self.projections.get(id.0 as usize);
                    let found = found.ok_or_else(|| reason(&OpRefusal::Projection(*id)))?;
                    if found.version != read.0 {
                        return Err(format!("projection {id} read at {read}, is at {}", found.version));
                    }
                }
                for segment in changes.iter().flat_map(|c| c.append.iter()) {
                    if self.segments.contains(&segment.id) {
                        return Err(reason(&OpRefusal::Repeated(segment.id)));
                    }
                    if let Delivery::Receipts(receipts) = &segment.delivery {
                        let of_member =
                            |r: &&fluence_types::op::SignedReceipt| self.members.contains_key(&r.receipt.node);
                        let (valid, quorum) = (receipts.iter().filter(of_member).count(), self.quorum());
                        if valid < quorum {
                            return Err(format!("{valid} receipts of {quorum}"));
                        }
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self, op: &UnsignedOp, id: OpId) {
        match &op.op {
            Op::Seat(change) => {
                if let Some(out) = &change.seat.out {
                    self.next.remove(out);
                }
                self.next.extend(change.seat.join.iter().map(|m| (m.node, m.clone())));
                self.changed += 1;
                // It has no writer.
                return;
            }
            Op::DefineProjection { .. } => self.projections.push(Projection::default()),
            Op::SetWriters { writers } => {
                for (address, chain) in &mut self.chains {
                    chain.allowed = *address == self.owner || writers.contains(address);
                }
                for address in writers.iter() {
                    self.chains.entry(*address).or_default().allowed = true;
                }
            }
            Op::Commit { changes, .. } => {
                for change in changes.iter() {
                    let projection = &mut self.projections[change.projection.0 as usize];
                    projection.version += 1;
                    projection.live = projection.live + change.append.len() - change.retire.len();
                    self.segments.extend(change.append.iter().map(|s| s.id));
                }
            }
            _ => {}
        }
        let chain = self.chains.entry(op.writer).or_default();
        *chain = Chain { next: chain.next + 1, previous: id, ..*chain };
    }

    #[cfg(test)]
    pub(crate) fn versions(&self) -> Vec<(fluence_types::ProjectionId, u64)> {
        self.projections.iter().enumerate().map(|(i, p)| (fluence_types::ProjectionId(i as u32), p.version)).collect()
    }
}

/// A refusal in the model's words.
fn reason(refusal: &OpRefusal) -> String {
    match refusal {
        OpRefusal::Conflict { projection, read, current } => {
            format!("projection {projection} read at {read}, is at {current}")
        }
        OpRefusal::Receipts { valid, quorum, .. } => format!("{valid} receipts of {quorum}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
    use fluence_types::{Height, ProjectionId, Version};

    /// What the model says of outcomes that no sequential execution has.
    #[test]
    fn accepts_what_a_sequence_does_and_rejects_what_none_does() {
        let mut db = TestDb::new(1, 4);
        let created = db.owner.sign(db.db, db.creation());
        let id = fluence_crypto::sign::op_id(&created.unsigned);
        let mut model = Model::create(&created.unsigned, id, &db.member_list());
        db.owner.advance(&created);
        let defined = db.owner.sign(db.db, define(0, schema(1, 0)));
        let id = fluence_crypto::sign::op_id(&defined.unsigned);
        assert!(model.act(Height(1), &defined.unsigned, id, &Err(OpRefusal::Projection(ProjectionId(0)))).is_err());
        assert_eq!(model.act(Height(1), &defined.unsigned, id, &Ok(())), Ok(()));
        // The same again is a replay.
        assert!(model.act(Height(1), &defined.unsigned, id, &Ok(())).is_err());
        let replay = OpRefusal::Sequence { got: 1, expected: 2 };
        assert_eq!(model.act(Height(1), &defined.unsigned, id, &Err(replay)), Ok(()));
        db.owner.advance(&defined);
        let add = |n, read| {
            commit(&[(0, read)], vec![change(0, vec![TestSegment::new(n, &schema(1, 0), 1, 1).inline()], vec![])])
        };
        let first = db.owner.sign(db.db, add(1, 0));
        let id = fluence_crypto::sign::op_id(&first.unsigned);
        assert_eq!(model.act(Height(1), &first.unsigned, id, &Ok(())), Ok(()));
        db.owner.advance(&first);
        // A lost update: it read version 0, and somebody committed first.
        let second = db.owner.sign(db.db, add(2, 0));
        let id = fluence_crypto::sign::op_id(&second.unsigned);
        assert!(model.act(Height(1), &second.unsigned, id, &Ok(())).is_err());
        let stale = OpRefusal::Conflict { projection: ProjectionId(0), read: Version(0), current: Version(1) };
        assert_eq!(model.act(Height(1), &second.unsigned, id, &Err(stale)), Ok(()));
        assert_eq!(model.versions(), [(ProjectionId(0), 1)]);
    }

    /// Seats change by votes of a quorum of their epoch, before its end, and count from the next one on.
    #[test]
    fn seats_need_a_quorum_of_their_epoch_and_count_from_the_next() {
        let db = TestDb::new(2, 4);
        let created = db.owner.sign(db.db, db.creation());
        let id = fluence_crypto::sign::op_id(&created.unsigned);
        let mut model = Model::create(&created.unsigned, id, &db.member_list());
        let newcomer = TestDb::new(3, 1).member_list()[0].clone();
        let no = Err(OpRefusal::Cluster("for people".to_owned()));
        let seat = |model: &mut Model, height, epoch, votes, outcome: &OpOutcome| {
            let op = db.seat(epoch, None, Some(newcomer.clone()), votes);
            let id = fluence_crypto::sign::op_id(&op.unsigned);
            model.act(Height(height), &op.unsigned, id, outcome)
        };
        for (height, epoch, votes) in [(9, 0, 2), (9, 1, 3), (56, 0, 3), (70, 0, 3)] {
            assert!(seat(&mut model, height, epoch, votes, &Ok(())).is_err(), "{height} {epoch} {votes}");
            assert_eq!(seat(&mut model, height, epoch, votes, &no), Ok(()), "{height} {epoch} {votes}");
        }
        assert!(seat(&mut model, 71, 1, 3, &no).is_err());
        assert_eq!(seat(&mut model, 71, 1, 3, &Ok(())), Ok(()));
        assert_eq!((model.members.len(), model.next.len(), model.quorum()), (4, 5, 3));
        assert!(seat(&mut model, 72, 1, 3, &Ok(())).is_err(), "twice");
        let _ = seat(&mut model, 128, 9, 3, &no);
        assert_eq!((model.members.len(), model.quorum()), (5, 4));
    }
}
