//! The sequential model: what each operation must do, written once more and without trees, stores or signatures.
//!
//! Rule    versions, chains, rights and live segments as `fluence_types::op::OpRefusal` says them; it shares no code with the engine.

use fluence_types::op::{Delivery, Op, OpOutcome, OpRefusal, UnsignedOp};
use fluence_types::{Address, OpId, SegmentId};
use std::collections::{BTreeMap, BTreeSet};

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
    members: usize,
}

fn conflict(why: impl std::fmt::Display) -> Result<(), String> {
    Err(why.to_string())
}

impl Model {
    /// A database as its creation makes it.
    pub(crate) fn create(op: &UnsignedOp, id: OpId, members: usize) -> Self {
        let owner = Chain { allowed: true, next: 1, previous: id };
        Self { owner: op.writer, chains: BTreeMap::from([(op.writer, owner)]), members, ..Self::default() }
    }

    /// Does the next operation in the order of the log.
    ///
    /// # Errors
    /// Why what became of it is not what had to.
    pub(crate) fn act(&mut self, op: &UnsignedOp, id: OpId, outcome: &OpOutcome) -> Result<(), String> {
        let must = self.expected(op);
        match (must, outcome) {
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

    fn expected(&self, op: &UnsignedOp) -> Result<(), String> {
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
            Op::SetWriters { .. } if op.writer != self.owner => Err(reason(&OpRefusal::NotAllowed(op.writer))),
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
                        let (valid, quorum) = (receipts.len(), 2 * ((self.members - 1) / 3) + 1);
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
    use fluence_types::{ProjectionId, Version};

    /// What the model says of outcomes that no sequential execution has.
    #[test]
    fn accepts_what_a_sequence_does_and_rejects_what_none_does() {
        let mut db = TestDb::new(1, 4);
        let created = db.owner.sign(db.db, db.creation());
        let id = fluence_crypto::sign::op_id(&created.unsigned);
        let mut model = Model::create(&created.unsigned, id, 4);
        db.owner.advance(&created);
        let defined = db.owner.sign(db.db, define(0, schema(1, 0)));
        let id = fluence_crypto::sign::op_id(&defined.unsigned);
        assert!(model.act(&defined.unsigned, id, &Err(OpRefusal::Projection(ProjectionId(0)))).is_err());
        assert_eq!(model.act(&defined.unsigned, id, &Ok(())), Ok(()));
        // The same again is a replay.
        assert!(model.act(&defined.unsigned, id, &Ok(())).is_err());
        let replay = OpRefusal::Sequence { got: 1, expected: 2 };
        assert_eq!(model.act(&defined.unsigned, id, &Err(replay)), Ok(()));
        db.owner.advance(&defined);
        let add = |n, read| {
            commit(&[(0, read)], vec![change(0, vec![TestSegment::new(n, &schema(1, 0), 1, 1).inline()], vec![])])
        };
        let first = db.owner.sign(db.db, add(1, 0));
        let id = fluence_crypto::sign::op_id(&first.unsigned);
        assert_eq!(model.act(&first.unsigned, id, &Ok(())), Ok(()));
        db.owner.advance(&first);
        // A lost update: it read version 0, and somebody committed first.
        let second = db.owner.sign(db.db, add(2, 0));
        let id = fluence_crypto::sign::op_id(&second.unsigned);
        assert!(model.act(&second.unsigned, id, &Ok(())).is_err());
        let stale = OpRefusal::Conflict { projection: ProjectionId(0), read: Version(0), current: Version(1) };
        assert_eq!(model.act(&second.unsigned, id, &Err(stale)), Ok(()));
        assert_eq!(model.versions(), [(ProjectionId(0), 1)]);
    }
}
