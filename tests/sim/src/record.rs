//! What happened in a run: blocks, certificates, what clients asked and were answered.

use crate::scenario::CLOCK_MS_MAX;
use fluence_consensus::Evidence;
use fluence_crypto::sign::block_hash;
use fluence_types::block::{Block, Certificate};
use fluence_types::op::{OpOutcome, OpReceipt};
use fluence_types::{BlockHash, Height, NodeId, OpId, SegmentRoot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far ahead a block may be of the clock of a member that votes for it.
const EARLY_MS: u64 = 60_000;

fn millis_since_1970(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// One operation as its writer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Which writer.
    pub(crate) writer: usize,
    /// When it was first sent.
    pub(crate) at: SystemTime,
    /// When an honest member answered it, and what.
    pub(crate) answer: Option<(SystemTime, Height, OpOutcome)>,
}

/// Everything that is noted while a run goes on.
#[derive(Default)]
pub(crate) struct Notes {
    /// By height: the block that the first honest member executed, and what became of its operations.
    pub(crate) blocks: BTreeMap<Height, (Block, Vec<OpReceipt>)>,
    /// By certified block, view and signers.
    pub(crate) certificates: BTreeMap<(BlockHash, u64, u32), Certificate>,
    pub(crate) asked: BTreeMap<OpId, Asked>,
    /// Segments that were uploaded to members, whether or not an operation came to name them.
    pub(crate) uploaded: BTreeSet<SegmentRoot>,
    /// Who was shown to contradict itself.
    pub(crate) conflicts: Vec<Evidence>,
    /// Proposals with something wrong in them, as their liars made them.
    pub(crate) lies: u64,
    pub(crate) violations: Vec<String>,
}

/// Shared by all that run.
#[derive(Default)]
pub(crate) struct Record(Mutex<Notes>);

impl Record {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn violation(&self, what: String) {
        let mut notes = self.lock();
        if notes.violations.len() < 16 {
            notes.violations.push(what);
        }
    }

    /// An honest member executed a block.
    pub(crate) fn executed(&self, member: usize, at: SystemTime, block: &Block, outcomes: &[OpReceipt]) {
        let height = block.header.height;
        // An honest member voted for it, by its own clock.
        let latest = millis_since_1970(at) + EARLY_MS + CLOCK_MS_MAX.unsigned_abs();
        if block.header.timestamp_ms > latest {
            let ahead = block.header.timestamp_ms - millis_since_1970(at);
            self.violation(format!("time: block {height} is {ahead} ms ahead, and member {member} executed it"));
        }
        let mut notes = self.lock();
        let differs = match notes.blocks.get(&height) {
            None => {
                notes.blocks.insert(height, (block.clone(), outcomes.to_vec()));
                None
            }
            Some((known, _)) if known != block => Some(format!(
                "agreement: member {member} executed block {} at height {height}, another {}",
                block_hash(&block.header),
                block_hash(&known.header)
            )),
            Some((_, known)) if known != outcomes => {
                Some(format!("agreement: member {member} has other outcomes in block {height}"))
            }
            Some(_) => None,
        };
        drop(notes);
        if let Some(what) = differs {
            self.violation(what);
        }
    }

    pub(crate) fn certified(&self, certificate: Certificate) {
        let key = (block_hash(&certificate.header), certificate.view, certificate.signers);
        self.lock().certificates.insert(key, certificate);
    }

    pub(crate) fn asked(&self, op: OpId, writer: usize, at: SystemTime) {
        self.lock().asked.entry(op).or_insert(Asked { writer, at, answer: None });
    }

    pub(crate) fn answered(&self, receipt: &OpReceipt, at: SystemTime) {
        let mut notes = self.lock();
        let asked = notes.asked.get_mut(&receipt.op).expect("what is answered was asked");
        if asked.answer.is_none() {
            asked.answer = Some((at, receipt.height, receipt.outcome.clone()));
        }
    }

    pub(crate) fn conflict(&self, evidence: Evidence, is_liar: impl Fn(&NodeId) -> bool) {
        if !is_liar(&evidence.node) {
            self.violation(format!("evidence against an honest member: {evidence:?}"));
        }
        self.lock().conflicts.push(evidence);
    }
}
