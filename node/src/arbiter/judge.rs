//! What an arbiter does next: a state machine over cases, without socket, clock or file.
//!
//! ```text
//! Waiting -> Accepted                         a proof that verifies, before the challenge is on chain
//!         -> Challenged -> Answered           on chain, by whoever; the bond goes to the node
//!                       -> Expired -> Closed  slashed; the bond comes back to who challenged
//!         -> Dropped                          the contract refuses the challenge, or the window closed
//! ```
//! Rule    a case is challenged only after the grace period and after the node was asked. What is said on chain is undone by nobody's word.
//! Source  DESIGN section 8

use crate::chain::{ChainInfo, Challenge, ChallengeId, ChallengeStatus, Subject};
use fluence_types::{Epoch, NodeId};
use std::collections::BTreeMap;

/// Epochs whose finished cases are remembered.
pub(super) const EPOCHS_KEPT: u64 = 64;

/// Where a case stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Case {
    /// No valid proof yet.
    Waiting {
        /// Times the node was asked.
        asked: u64,
        /// The last thing that was wrong.
        why: String,
    },
    /// A proof was verified.
    Accepted,
    /// A challenge is open.
    Challenged {
        /// Its id.
        id: ChallengeId,
        /// Last block in which it may be answered.
        deadline: u64,
        /// It is ours, so the bond may be.
        ours: bool,
    },
    /// The node answered on chain.
    Answered,
    /// It did not; slashed.
    Expired {
        /// Its id.
        id: ChallengeId,
        /// In 1e-18 FLU, where we expired it.
        slashed: Option<String>,
        /// The bond may be claimed by us.
        ours: bool,
    },
    /// Over, and the bond claimed.
    Closed,
    /// Nothing more to do.
    Dropped {
        /// Why.
        why: String,
    },
}

impl Case {
    /// Nothing more happens.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Accepted | Self::Answered | Self::Closed | Self::Dropped { .. } => true,
            Self::Expired { ours, .. } => !*ours,
            _ => false,
        }
    }
}

/// What to do next for a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the node for its proof and verify it.
    Ask(Subject),
    /// Commit to a challenge and open it.
    Challenge(Subject),
    /// Look where the challenge stands.
    Look(Subject),
    /// Close the unanswered challenge.
    Expire(Subject, ChallengeId),
    /// Get the bond.
    Claim(Subject, ChallengeId),
}

/// The cases.
#[derive(Debug)]
pub struct Judge {
    info: ChainInfo,
    grace_blocks: u64,
    challenge: bool,
    cases: BTreeMap<Subject, Case>,
}

impl Judge {
    /// Starts with the cases of a ledger.
    #[must_use]
    pub fn new(info: ChainInfo, grace_blocks: u64, challenge: bool, cases: BTreeMap<Subject, Case>) -> Self {
        Self { info, grace_blocks, challenge, cases }
    }

    /// The cases.
    #[must_use]
    pub const fn cases(&self) -> &BTreeMap<Subject, Case> {
        &self.cases
    }

    /// Opens the cases of a node that owes in an epoch.
    pub fn owes(&mut self, node: NodeId, epoch: Epoch) {
        for proof_index in 0..self.info.proofs_per_epoch {
            let fresh = Case::Waiting { asked: 0, why: "not asked yet".to_owned() };
            self.cases.entry(Subject { epoch, node, proof_index }).or_insert(fresh);
        }
    }

    /// What to do at block `head`.
    #[must_use]
    pub fn plan(&self, head: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for (subject, case) in &self.cases {
            let start = self.info.epoch_start(subject.epoch);
            match case {
                Case::Waiting { asked, .. } => {
                    actions.push(Action::Ask(*subject));
                    let due = head >= start.saturating_add(self.grace_blocks) && *asked > 0;
                    if self.challenge && due {
                        actions.push(Action::Challenge(*subject));
                    }
                }
                Case::Challenged { id, deadline, .. } if head > *deadline => {
                    actions.push(Action::Expire(*subject, *id))
                }
                Case::Challenged { .. } => actions.push(Action::Look(*subject)),
                Case::Expired { id, ours: true, .. } => actions.push(Action::Claim(*subject, *id)),
                _ => {}
            }
        }
        actions
    }

    fn set(&mut self, subject: Subject, case: Case) -> bool {
        match self.cases.get_mut(&subject) {
            Some(old) if *old != case => {
                *old = case;
                true
            }
            _ => false,
        }
    }

    /// The node's proof verifies. Changes nothing once the challenge is on chain: there the node must answer. True: case changed.
    pub fn accepted(&mut self, subject: Subject) -> bool {
        match self.cases.get(&subject) {
            Some(Case::Waiting { .. }) => self.set(subject, Case::Accepted),
            _ => false,
        }
    }

    /// The node was asked, and had no valid proof.
    pub fn refused(&mut self, subject: Subject, reason: String) {
        if let Some(Case::Waiting { asked, why }) = self.cases.get_mut(&subject) {
            *asked += 1;
            *why = reason;
        }
    }

    /// What the chain says of the challenge.
    pub fn seen(&mut self, subject: Subject, challenge: &Challenge, ours: bool) -> bool {
        let case = match challenge.status {
            ChallengeStatus::Open => Case::Challenged { id: challenge.id, deadline: challenge.deadline, ours },
            ChallengeStatus::Answered => Case::Answered,
            ChallengeStatus::Expired => Case::Expired { id: challenge.id, slashed: None, ours },
            ChallengeStatus::Closed => Case::Closed,
            ChallengeStatus::None => return false,
        };
        self.set(subject, case)
    }

    /// We closed the challenge.
    pub fn expired(&mut self, subject: Subject, id: ChallengeId, slashed: u128) -> bool {
        let ours = matches!(self.cases.get(&subject), Some(Case::Challenged { ours: true, .. }));
        self.set(subject, Case::Expired { id, slashed: Some(slashed.to_string()), ours })
    }

    /// The bond is ours again.
    pub fn claimed(&mut self, subject: Subject) -> bool {
        self.set(subject, Case::Closed)
    }

    /// The case cannot go on.
    pub fn dropped(&mut self, subject: Subject, why: String) -> bool {
        self.set(subject, Case::Dropped { why })
    }

    /// Drops cases whose window closed before their challenge was opened, and forgets finished ones of old epochs. Returns the dropped.
    pub fn tidy(&mut self, head: u64) -> Vec<Subject> {
        let mut late = Vec::new();
        for (subject, case) in &mut self.cases {
            let window = self.info.epoch_start(subject.epoch).saturating_add(self.info.window_blocks);
            let unopened = match case {
                Case::Waiting { why, .. } => Some(why.clone()),
                _ => None,
            };
            if let (true, Some(why)) = (head > window, unopened) {
                *case = Case::Dropped { why: format!("the window closed at block {window}; last: {why}") };
                late.push(*subject);
            }
        }
        let oldest = self.info.epoch_at(head).map_or(0, |e| e.0.saturating_sub(EPOCHS_KEPT));
        self.cases.retain(|subject, case| subject.epoch.0 >= oldest || !case.is_final());
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::shape::StorageShape;
    use fluence_types::{Address, FieldBytes, HoldingsRoot};

    const INFO: ChainInfo = ChainInfo {
        chain_id: 31337,
        contract: Address::from_bytes([1; 20]),
        start_block: 100,
        epoch_blocks: 10,
        window_blocks: 40,
        response_blocks: 5,
        proofs_per_epoch: 1,
        shape: StorageShape::TINY,
        storage_vk_hash: [0; 32],
        insecure_dev_keys: true,
    };
    const NODE: NodeId = NodeId::from_bytes([9; 32]);
    const SUBJECT: Subject = Subject { epoch: Epoch(2), node: NODE, proof_index: 0 };
    const ID: ChallengeId = ChallengeId([3; 32]);

    fn judge() -> Judge {
        let mut judge = Judge::new(INFO, 4, true, BTreeMap::new());
        judge.owes(NODE, Epoch(2));
        judge
    }

    fn challenge(status: ChallengeStatus) -> Challenge {
        Challenge {
            id: ID,
            node: NODE,
            epoch: Epoch(2),
            db: None,
            proof_index: 0,
            status,
            deadline: 131,
            challenger: Address::default(),
            root: HoldingsRoot::default(),
            cells: 1,
            seed: FieldBytes::ZERO,
        }
    }

    #[test]
    fn an_honest_node_is_asked_and_never_challenged() {
        let mut judge = judge();
        assert_eq!(judge.plan(121), [Action::Ask(SUBJECT)]);
        assert!(judge.accepted(SUBJECT));
        assert!(judge.plan(999).is_empty());
    }

    #[test]
    fn a_silent_node_is_challenged_after_the_grace_period_and_expired_after_the_deadline() {
        let mut judge = judge();
        judge.refused(SUBJECT, "no answer".to_owned());
        assert_eq!(judge.plan(123), [Action::Ask(SUBJECT)], "grace ends at block 124");
        assert_eq!(judge.plan(124), [Action::Ask(SUBJECT), Action::Challenge(SUBJECT)]);
        judge.seen(SUBJECT, &challenge(ChallengeStatus::Open), true);
        assert_eq!(judge.plan(131), [Action::Look(SUBJECT)]);
        assert_eq!(judge.plan(132), [Action::Expire(SUBJECT, ID)]);
        judge.expired(SUBJECT, ID, 5);
        assert_eq!(judge.plan(133), [Action::Claim(SUBJECT, ID)]);
        judge.claimed(SUBJECT);
        assert!(judge.plan(134).is_empty());
    }

    #[test]
    fn is_not_challenged_before_it_was_asked_once() {
        assert_eq!(judge().plan(139), [Action::Ask(SUBJECT)]);
    }

    #[test]
    fn a_late_proof_ends_the_waiting_but_not_an_open_challenge() {
        let mut judge = judge();
        judge.refused(SUBJECT, String::new());
        let mut open = Judge::new(INFO, 4, true, judge.cases().clone());
        assert!(judge.accepted(SUBJECT));
        open.seen(SUBJECT, &challenge(ChallengeStatus::Open), true);
        assert!(!open.accepted(SUBJECT));
        assert!(open.seen(SUBJECT, &challenge(ChallengeStatus::Answered), true));
        assert!(open.cases()[&SUBJECT].is_final());
    }

    #[test]
    fn claims_no_bond_of_another_challenger() {
        let mut judge = judge();
        judge.seen(SUBJECT, &challenge(ChallengeStatus::Open), false);
        judge.expired(SUBJECT, ID, 5);
        assert!(judge.plan(140).is_empty());
    }

    #[test]
    fn drops_a_case_whose_window_closed_and_forgets_old_ones() {
        let mut judge = judge();
        assert!(judge.tidy(160).is_empty());
        assert_eq!(judge.tidy(161), [SUBJECT]);
        assert!(judge.plan(162).is_empty());
        judge.tidy(100 + 10 * (2 + EPOCHS_KEPT));
        assert_eq!(judge.cases().len(), 1);
        judge.tidy(100 + 10 * (3 + EPOCHS_KEPT));
        assert!(judge.cases().is_empty());
    }

    #[test]
    fn an_observer_asks_and_never_challenges() {
        let mut judge = Judge::new(INFO, 4, false, BTreeMap::new());
        judge.owes(NODE, Epoch(2));
        judge.refused(SUBJECT, String::new());
        assert_eq!(judge.plan(150), [Action::Ask(SUBJECT)]);
    }
}
