//! What a replica says of itself.

use fluence_types::block::Certificate;
use fluence_types::op::SeatChange;
use fluence_types::{Height, NodeId, SegmentRoot};

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Last block executed.
    pub height: Height,
    /// The highest block it knows to be finalized; above `height` while it catches up.
    pub finalized: Height,
    /// The consensus epoch of the next block.
    pub epoch: u64,
    /// The last view finalized in it.
    pub view: u64,
    /// Whether it votes in this epoch.
    pub voting: bool,
    /// Operations that wait.
    pub waiting: usize,
    /// Stored segments whose cells are not all here.
    pub missing: usize,
    /// The members that have signed one of the last certificates, with the height of the last they signed.
    pub signed: Vec<(NodeId, Height)>,
}

/// What the node must hear of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A block was executed.
    Executed(Height),
    /// A newer root is certified.
    Certified(Box<Certificate>),
    /// Segments were ordered whose cells are not here.
    Missing(Vec<SegmentRoot>),
    /// A segment that was missing is here.
    Filled(SegmentRoot),
    /// A new consensus epoch began.
    Epoch(u64),
    /// Enough members voted for a seat change; it was put before the cluster.
    Seat(Box<SeatChange>),
    /// A member signed votes that contradict each other: what slashes it.
    Conflict(Box<Evidence>),
    /// The others are so far ahead that they do not give the blocks in between any more. The replica goes on asking; whoever runs it
    /// stops it, fetches a snapshot with [`crate::join`], and starts it again.
    Behind(Height),
    /// A quorum finalized a root that is not ours. The replica has stopped.
    Diverged {
        /// The block that says so.
        height: Height,
        /// What differs.
        why: String,
    },
    /// Our own store does not take a finalized block: a full disk, say. The replica has stopped; nothing is lost, for the block comes again.
    Failed {
        /// The block.
        height: Height,
        /// What the store said.
        why: String,
    },
}

/// Two votes of one member that no honest member gives, for one epoch and view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The member.
    pub node: NodeId,
    /// The consensus epoch.
    pub epoch: u64,
    /// The view.
    pub view: u64,
    /// One vote, with its signature.
    pub first: (fluence_crypto::vote::Vote, fluence_types::block::VoteSignature),
    /// The other.
    pub second: (fluence_crypto::vote::Vote, fluence_types::block::VoteSignature),
}
