//! What only the simulator sets: an ear at the executor, a clock that is wrong, lies of a leader, and bugs put in on purpose.
//!
//! Rule    without the feature `planted` there is nothing to set, and a replica behaves as its other modules say. `node` never enables it.

use fluence_types::block::Block;
use fluence_types::op::OpReceipt;
#[cfg(feature = "planted")]
use std::sync::Arc;
#[cfg(feature = "planted")]
use std::time::Duration;
use std::time::SystemTime;

/// A bug that the simulator must find.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Votes without comparing the executed root and the next committee with ours.
    UncheckedRoot,
    /// Takes operations out of the mempool when they are proposed.
    DrainedMempool,
    /// Votes again in an epoch whose vote journal is gone.
    LostVoteJournal,
}

/// Hears of each block that was executed for the first time, and what became of its operations.
#[cfg(feature = "planted")]
pub type Ear = Arc<dyn Fn(&Block, &[OpReceipt]) + Send + Sync>;
/// Changes what a leader is about to propose.
#[cfg(feature = "planted")]
pub type Lie = Arc<dyn Fn(&mut Block) + Send + Sync>;

/// Told when a leader begins to wait for something to propose, and when it waits no more.
#[cfg(feature = "planted")]
pub type Wait = Arc<dyn Fn(bool) + Send + Sync>;

/// Lasts for as long as a leader waits.
#[cfg(feature = "planted")]
pub(crate) struct Waiting(Option<Wait>);

#[cfg(feature = "planted")]
impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(told) = &self.0 {
            told(false);
        }
    }
}

/// What is planted in a replica.
#[cfg_attr(not(feature = "planted"), allow(unreachable_pub))]
#[derive(Clone, Default)]
pub struct Planted {
    /// A bug.
    #[cfg(feature = "planted")]
    pub bug: Option<Bug>,
    /// Listens.
    #[cfg(feature = "planted")]
    pub executed: Option<Ear>,
    /// Lies in proposals.
    #[cfg(feature = "planted")]
    pub lie: Option<Lie>,
    /// Votes for every proposal.
    #[cfg(feature = "planted")]
    pub credulous: bool,
    /// Hears of a leader that waits.
    #[cfg(feature = "planted")]
    pub waits: Option<Wait>,
    /// How far the clock is ahead that blocks are dated by, in milliseconds.
    #[cfg(feature = "planted")]
    pub clock_ms: i64,
}

#[cfg(feature = "planted")]
impl Planted {
    pub(crate) fn trusts_roots(&self) -> bool {
        self.bug == Some(Bug::UncheckedRoot)
    }

    pub(crate) fn is_credulous(&self) -> bool {
        self.credulous
    }

    pub(crate) fn drains_mempool(&self) -> bool {
        self.bug == Some(Bug::DrainedMempool)
    }

    pub(crate) fn votes_without_journal(&self) -> bool {
        self.bug == Some(Bug::LostVoteJournal)
    }

    pub(crate) fn waits(&self) -> Waiting {
        if let Some(told) = &self.waits {
            told(true);
        }
        Waiting(self.waits.clone())
    }

    pub(crate) fn clock(&self, now: SystemTime) -> SystemTime {
        let off = Duration::from_millis(self.clock_ms.unsigned_abs());
        if self.clock_ms < 0 { now - off } else { now + off }
    }

    pub(crate) fn propose(&self, mut block: Block) -> Block {
        if let Some(lie) = &self.lie {
            lie(&mut block);
        }
        block
    }

    pub(crate) fn executed(&self, block: &Block, outcomes: &[OpReceipt]) {
        if let Some(ear) = &self.executed {
            ear(block, outcomes);
        }
    }
}

#[cfg(not(feature = "planted"))]
#[allow(clippy::unused_self)]
impl Planted {
    pub(crate) const fn trusts_roots(&self) -> bool {
        false
    }

    pub(crate) const fn is_credulous(&self) -> bool {
        false
    }

    pub(crate) const fn drains_mempool(&self) -> bool {
        false
    }

    pub(crate) const fn votes_without_journal(&self) -> bool {
        false
    }

    pub(crate) const fn waits(&self) {}

    pub(crate) const fn clock(&self, now: SystemTime) -> SystemTime {
        now
    }

    pub(crate) const fn propose(&self, block: Block) -> Block {
        block
    }

    pub(crate) const fn executed(&self, _: &Block, _: &[OpReceipt]) {}
}
