//! Committees, followed from one that is trusted to the one of today: `Committee -> Handover .. -> Committee`.
//!
//! Rule    a committee is believed because the one before it signed its hash, in the certificate of its epoch's last block. Each step is
//!         checked by the committee before it, in order, so a step that is forged or left out ends the walk. Epochs in which nothing
//!         changed may be left out.
//! Not     that members who left did not sign again later: what they sign is refused as soon as the change is known, and a caller that has
//!         been away for long should also look at the checkpoint on chain.
//! Source  DESIGN section 7

use fluence_crypto::sign::SignError;
use fluence_crypto::vote;
use fluence_types::block::{BlockHeader, Handover, Member, Members, ends_epoch, epoch_of, position};
use fluence_types::limits::HANDOVERS_MAX;
use fluence_types::{DatabaseId, Height, NodeId};

/// The members of a cluster, and the consensus epochs for which they are trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committee {
    /// The first epoch.
    pub since: u64,
    /// The last one, where it is known that others follow. Until then they are taken for as long as they sign.
    pub until: Option<u64>,
    /// Who they are, in the order in which certificates name them.
    pub members: Members,
}

impl Committee {
    /// Members that the caller trusts from an epoch on.
    #[must_use]
    pub const fn new(since: u64, members: Members) -> Self {
        Self { since, until: None, members }
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        position(&self.members, node).map(|at| &self.members[at])
    }

    /// Whether a block, certified by this committee, hands over to another.
    pub(crate) fn ends_with(&self, header: &BlockHeader) -> bool {
        ends_epoch(header.height) && vote::members_hash(&self.members) != Ok(header.next_members_hash)
    }
}

/// Why handovers were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitteeError {
    /// More than one answer may hold.
    #[error("{0} handovers in one answer, the limit is {HANDOVERS_MAX}")]
    TooMany(usize),
    /// Of another cluster.
    #[error("handover of database {got}, asked was {expected}")]
    ForeignDatabase {
        /// The handover's.
        got: DatabaseId,
        /// The one asked about.
        expected: DatabaseId,
    },
    /// Only an epoch's last block settles the next committee.
    #[error("block {height} is not the last of epoch {epoch}")]
    NotLast {
        /// The block.
        height: Height,
        /// The epoch it claims.
        epoch: u64,
    },
    /// Of an epoch that is over for the caller, or out of order.
    #[error("handover of epoch {epoch}, the next one is of epoch {since} or later")]
    Order {
        /// The handover's.
        epoch: u64,
        /// The first epoch of the committee that must have signed it.
        since: u64,
    },
    /// The committee before did not sign it: it is forged, or a change before it is missing.
    #[error("handover of epoch {epoch} is not by the committee of epoch {since}: {why}")]
    Certificate {
        /// The handover's.
        epoch: u64,
        /// The first epoch of the committee that must have signed it.
        since: u64,
        /// What is wrong.
        why: SignError,
    },
    /// The list is no committee.
    #[error("members after epoch {epoch} refused: {why}")]
    Members {
        /// The handover's.
        epoch: u64,
        /// What is wrong.
        why: SignError,
    },
    /// Other members than the ones that were signed for.
    #[error("members after epoch {epoch} are not the ones that its last block names")]
    OtherMembers {
        /// The handover's.
        epoch: u64,
    },
}

/// The committee at the end of `handovers`, each signed by the one before it, the first by `committee`.
///
/// # Errors
/// [`CommitteeError`] naming the first handover that is wrong.
pub fn follow(db: DatabaseId, committee: &Committee, handovers: &[Handover]) -> Result<Committee, CommitteeError> {
    if handovers.len() > HANDOVERS_MAX {
        return Err(CommitteeError::TooMany(handovers.len()));
    }
    handovers.iter().try_fold(committee.clone(), |committee, handover| step(db, &committee, handover))
}

fn step(db: DatabaseId, committee: &Committee, handover: &Handover) -> Result<Committee, CommitteeError> {
    let header = &handover.certificate.header;
    let (epoch, since) = (header.consensus_epoch, committee.since);
    if header.db != db {
        return Err(CommitteeError::ForeignDatabase { got: header.db, expected: db });
    }
    if !ends_epoch(header.height) || epoch != epoch_of(header.height) {
        return Err(CommitteeError::NotLast { height: header.height, epoch });
    }
    // What a committee signs after its end is worth nothing: its members may have left, with their stake.
    if epoch < since || committee.until.is_some_and(|until| epoch > until) {
        return Err(CommitteeError::Order { epoch, since });
    }
    vote::verify_certificate(&handover.certificate, &committee.members).map_err(|why| CommitteeError::Certificate {
        epoch,
        since,
        why,
    })?;
    vote::verify_members(&handover.members).map_err(|why| CommitteeError::Members { epoch, why })?;
    if vote::members_hash(&handover.members) != Ok(header.next_members_hash) {
        return Err(CommitteeError::OtherMembers { epoch });
    }
    // `ends_epoch` keeps the epoch below 2^58.
    Ok(Committee::new(epoch + 1, handover.members.clone()))
}

#[cfg(test)]
mod tests;
