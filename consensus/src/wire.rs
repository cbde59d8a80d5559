//! What members ask of each other and tell each other beside the log: one channel, borsh, each message under its limit.

use crate::block::MESSAGE_BYTES_MAX;
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_engine::{SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES};
use fluence_types::answer::{CellRange, SegmentOpening};
use fluence_types::block::{Certificate, Handover};
use fluence_types::codec::{self, Bounded};
use fluence_types::limits::HANDOVERS_MAX;
use fluence_types::op::{NodeSignature, Seat};
use fluence_types::tree::DbPreimage;
use fluence_types::{BlockHash, DbRoot, Height, NodeId, SegmentRoot};

/// Longest readiness proof.
pub const PROOF_BYTES_MAX: usize = 1 << 20;
/// Pieces of the longest snapshot.
const CHUNKS_MAX: usize = SNAPSHOT_BYTES_MAX.div_ceil(SNAPSHOT_CHUNK_BYTES);
/// Cells asked for at once: 16 pages.
pub(crate) const CELLS_MAX: u64 = 1024;

/// A message.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Message {
    /// A question, with a number that its answer repeats.
    Ask(u64, Ask),
    /// An answer.
    Answer(u64, Answer),
    /// What wants no answer.
    Notice(Notice),
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Ask {
    /// Cells of a segment, at most [`CELLS_MAX`].
    Cells(SegmentRoot, CellRange),
    /// A snapshot of this height or above. Where there is none yet, one is made soon.
    Head(Height),
    /// A piece of the snapshot with this digest.
    Chunk([u8; 32], u32),
    /// The snapshot of just this height, if it is here.
    HeadAt(Height),
    /// How committees handed over, at the end of this epoch and later.
    Handovers(u64),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Answer {
    /// The cells, with what recomputes the tree's root.
    Cells(Box<SegmentOpening>),
    /// A snapshot.
    Head(Box<SnapshotHead>),
    /// A piece.
    Chunk(Bounded<u8, SNAPSHOT_CHUNK_BYTES>),
    /// Not here, not now, or too much at once. No fault of anyone.
    Not,
    /// Handovers, oldest first.
    Handovers(Bounded<Handover, HANDOVERS_MAX>),
}

/// What a member says of a snapshot it has.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) height: Height,
    pub(crate) root: DbRoot,
    pub(crate) block: BlockHash,
    pub(crate) len: u64,
    pub(crate) chunks: Bounded<[u8; 32], CHUNKS_MAX>,
    /// Of a block that carries the root after `height`. Not every member has it, for a block may be final by its descendant's.
    pub(crate) root_certificate: Option<Certificate>,
    /// Of block `height` itself: where the log goes on. Likewise.
    pub(crate) floor: Option<Certificate>,
}

/// What is told.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Notice {
    /// A member is missing: who waits for a seat should show that it is ready.
    Wanted(NodeId),
    /// The sender has everything that lay under a root.
    Ready(Box<Ready>),
    /// The sender's vote for a seat change.
    Vote(Box<Seat>, NodeSignature),
}

/// A newcomer's claim, with its proof.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Ready {
    pub(crate) height: Height,
    /// Parts of the root after it.
    pub(crate) preimage: DbPreimage,
    /// Empty where nothing is stored.
    pub(crate) proof: Bounded<u8, PROOF_BYTES_MAX>,
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        codec::decode("message", bytes, MESSAGE_BYTES_MAX).map_err(|e| e.to_string())
    }
}
