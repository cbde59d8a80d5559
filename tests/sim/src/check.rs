//! What must hold of a run, computed anew from its blocks.
//!
//! ```text
//! agreement        one block, one record, one root at every height of every honest member
//! no loss          what an honest member answered is in the blocks, with that outcome
//! re-execution     all blocks from genesis into a fresh engine give every certified root; every certificate verifies
//! handovers        every honest member can show how the first committee became the last
//! availability     every honest member has the cells of every live segment, and they are the segment's
//! serializability  every outcome is that of the sequential model; what was answered before another was asked comes first
//! ```

use crate::model::Model;
use crate::record::Notes;
use fluence_consensus::handovers;
use fluence_crypto::sign::op_id;
use fluence_crypto::vote::{members_hash, verify_certificate};
use fluence_crypto::{field, tree::multi_root};
use fluence_engine::testkit::TestDb;
use fluence_engine::{Engine, EngineConfig, MemStore, SegmentSummary, VerifiedBlock, View};
use fluence_types::answer::{CellRange, OpenRequest, SegmentRanges};
use fluence_types::block::{Members, ends_epoch, epoch_of};
use fluence_types::op::OpOutcome;
use fluence_types::{Height, SegmentRoot};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything wrong with a run. `honest` are the engines of the honest nodes, by place; those of `staying` are members at its end.
pub(crate) fn check(notes: &Notes, db: &TestDb, honest: &[(usize, Arc<Engine>)], staying: &[usize]) -> Vec<String> {
    let mut wrong = notes.violations.clone();
    let fresh = Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).expect("an empty store opens");
    let top = re_execute(notes, &fresh, &mut wrong);
    agree(db, honest, &fresh, top, &mut wrong);
    certificates(notes, db, &fresh, top, &mut wrong);
    let honest: Vec<_> = honest.iter().filter(|(node, _)| staying.contains(node)).cloned().collect();
    handed_over(db, &honest, &fresh, top, &mut wrong);
    bytes(notes, db, &honest, &mut wrong);
    serial(notes, &mut wrong);
    wrong
}

/// Applies all blocks; the height that was reached.
fn re_execute(notes: &Notes, fresh: &Engine, wrong: &mut Vec<String>) -> Height {
    let mut top = Height(0);
    for (height, (block, outcomes)) in &notes.blocks {
        let applied = VerifiedBlock::verify(block.clone()).and_then(|b| fresh.apply(&b));
        match applied {
            Ok(applied) if *height > Height(0) && applied.outcomes != *outcomes => {
                wrong.push(format!("re-execution: block {height} has other outcomes"));
            }
            Ok(_) => {}
            Err(why) => {
                wrong.push(format!("re-execution: block {height}: {why}"));
                break;
            }
        }
        top = *height;
    }
    top
}

fn agree(db: &TestDb, honest: &[(usize, Arc<Engine>)], fresh: &Engine, top: Height, wrong: &mut Vec<String>) {
    for height in 0..=top.0 {
        let want = fresh.block_record(db.db, Height(height)).ok().flatten();
        for (member, engine) in honest {
            let have = engine.block_record(db.db, Height(height)).ok().flatten();
            // One that is behind has agreed to nothing else.
            if have.is_some() && have != want {
                wrong.push(format!("agreement: member {member} has another block {height} than re-execution"));
                return;
            }
        }
    }
}

fn certificates(notes: &Notes, db: &TestDb, fresh: &Engine, top: Height, wrong: &mut Vec<String>) {
    for certificate in notes.certificates.values() {
        let header = &certificate.header;
        // Who may sign is what re-execution made of the seats.
        match fresh.committee(db.db, header.consensus_epoch).ok().flatten() {
            Some(members) => {
                if let Err(why) = verify_certificate(certificate, &members) {
                    wrong.push(format!("certificate of block {}: {why}", header.height));
                }
            }
            None if header.height <= top => {
                wrong.push(format!("certificate of block {}: no such epoch", header.height))
            }
            None => {}
        }
        if header.height <= top {
            let ours = fresh.block_record(db.db, header.executed_height).ok().flatten();
            if ours.as_ref().is_none_or(|r| r.root != header.executed_root) {
                wrong.push(format!(
                    "certified root: block {} certifies {} after block {}, re-execution has {:?}",
                    header.height,
                    header.executed_root,
                    header.executed_height,
                    ours.map(|r| r.root)
                ));
            }
        }
    }
}

/// Follows the handovers that each honest member keeps, from the first committee to that of the last block.
fn handed_over(db: &TestDb, honest: &[(usize, Arc<Engine>)], fresh: &Engine, top: Height, wrong: &mut Vec<String>) {
    let epoch = epoch_of(top);
    for (member, engine) in honest {
        let mut committee: Members = db.member_list();
        for handover in handovers(engine, db.db, 0, 64) {
            let header = &handover.certificate.header;
            let signed = verify_certificate(&handover.certificate, &committee).is_ok();
            let named = members_hash(&handover.members) == Ok(header.next_members_hash);
            if !signed || !named || !ends_epoch(header.height) {
                wrong.push(format!("handover: member {member} keeps one of block {} that is none", header.height));
                return;
            }
            if header.consensus_epoch < epoch {
                committee = handover.members;
            }
        }
        if fresh.committee(db.db, epoch).ok().flatten() != Some(committee) {
            wrong.push(format!("handover: member {member} cannot show who is in the committee of epoch {epoch}"));
        }
    }
}

/// Opens every uploaded segment that is live, at every honest member.
fn bytes(notes: &Notes, db: &TestDb, honest: &[(usize, Arc<Engine>)], wrong: &mut Vec<String>) {
    for (member, engine) in honest {
        let Ok(view) = engine.view(db.db) else { continue };
        let mut segments = view.segments();
        segments.retain(|s| s.live && notes.uploaded.contains(&s.root));
        for segment in segments {
            let opened = open(&view, &segment);
            if let Err(why) = opened {
                wrong.push(format!("availability: member {member}, segment {}: {why}", segment.root));
                return;
            }
        }
    }
}

fn open(view: &View<'_>, segment: &SegmentSummary) -> Result<(), String> {
    let snapshot = view.snapshot(segment.projection).map_err(|e| e.to_string())?;
    let count = segment.preimage.cells;
    let ranges = |root: &SegmentRoot| {
        let all = if *root == segment.root { vec![CellRange { first: 0, count }] } else { Vec::new() };
        SegmentRanges { segment: *root, ranges: all.try_into().expect("at most one") }
    };
    let segments: Vec<_> = snapshot.entry.live.iter().map(ranges).collect();
    let request = OpenRequest {
        db: snapshot.db.db,
        projection: segment.projection,
        version: snapshot.entry.version,
        segments: segments.try_into().map_err(|_| "more live segments than may be")?,
    };
    let (_, openings) = view.open_cells(&request).map_err(|e| e.to_string())?;
    let opening = openings.iter().find(|o| o.preimage == segment.preimage).ok_or("it is not opened")?;
    let cells: Vec<_> = (0..).zip(opening.cells.iter().map(field::cell_to_fr)).collect();
    let siblings: Vec<_> = opening.siblings.iter().map(field::from_bytes).collect();
    let root = multi_root(count, &cells, &siblings).map_err(|e| format!("{e:?}"))?;
    if field::to_bytes(&root) == segment.preimage.tree_root {
        Ok(())
    } else {
        Err("its cells are not the segment's".to_owned())
    }
}

fn serial(notes: &Notes, wrong: &mut Vec<String>) {
    let Some((genesis, _)) = notes.blocks.get(&Height(0)) else { return };
    let created = &genesis.ops[0].unsigned;
    let fluence_types::op::Op::CreateDatabase { members } = &created.op else { return };
    let mut model = Model::create(created, op_id(created), members);
    // Where each operation was done or last refused.
    let mut places: BTreeMap<_, (Height, usize, OpOutcome)> = BTreeMap::new();
    for (height, (block, outcomes)) in notes.blocks.iter().filter(|(h, _)| **h > Height(0)) {
        for (index, (op, receipt)) in block.ops.iter().zip(outcomes).enumerate() {
            if let Err(why) = model.act(*height, &op.unsigned, receipt.op, &receipt.outcome) {
                wrong.push(format!("serializability: block {height}, operation {}: {why}", receipt.op));
            }
            let place = (*height, index, receipt.outcome.clone());
            let known = places.entry(receipt.op).or_insert_with(|| place.clone());
            if known.2.is_err() {
                *known = place;
            } else if receipt.outcome.is_ok() && (known.0, known.1) != (*height, index) {
                wrong.push(format!("serializability: operation {} was done twice", receipt.op));
            }
        }
    }
    for (id, asked) in &notes.asked {
        let Some((_, height, outcome)) = &asked.answer else { continue };
        match places.get(id) {
            None => wrong.push(format!("lost: operation {id} was answered at height {height}, and is in no block")),
            Some((at, _, became)) if outcome.is_ok() && (at != height || became != outcome) => {
                wrong.push(format!(
                    "lost: operation {id} was answered as done in block {height}; it is {became:?} in {at}"
                ));
            }
            Some((at, _, Ok(()))) if outcome.is_err() && !may_be_done_later(outcome) => {
                wrong.push(format!("operation {id} was refused as {outcome:?}, and then done in block {at}"));
            }
            Some(_) => {}
        }
    }
    // Real time: answered before asked means before in the log.
    let mut done: Vec<_> = notes
        .asked
        .iter()
        .filter_map(|(id, asked)| {
            let (answered, _, outcome) = asked.answer.as_ref()?;
            let (height, index, _) = places.get(id)?;
            outcome.is_ok().then_some((*id, asked, *answered, (*height, *index)))
        })
        .collect();
    done.sort_by_key(|(_, _, _, place)| *place);
    // Going down the log, the earliest answer below each place.
    let mut earliest = None;
    for (id, asked, answered, _) in done.iter().rev() {
        if let Some((other, at)) = earliest
            && at < asked.at
        {
            wrong.push(format!(
                "real time: {id} of writer {} was asked after {other} was answered, and comes before it",
                asked.writer
            ));
        }
        if earliest.is_none_or(|(_, at)| *answered < at) {
            earliest = Some((*id, *answered));
        }
    }
}

/// A gap in a chain may close.
fn may_be_done_later(outcome: &OpOutcome) -> bool {
    use fluence_types::op::OpRefusal;
    matches!(outcome, Err(OpRefusal::Sequence { .. } | OpRefusal::NotAllowed(_)))
}
