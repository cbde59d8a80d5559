//! What travels between members: frames, the channels they belong to, and what each channel may carry.
//!
//! ```text
//! stream  `/flu/cluster/1/urgent` (votes, certificates, fetches of certificates) or `/flu/cluster/1/bulk`, one of each per direction and peer
//! frame   u32 LE: bytes that follow | cluster: 16 bytes | channel: u8 | payload
//! ```
//! Lanes   two streams, so that a block of megabytes on its way does not hold back a vote: Yamux interleaves them.
//! Control `HERE` (we are a member and count you as one; answer), `ACK` (the answer), `GONE` (we do not count you any more), without
//!         payload. Who was not told `HERE` or `ACK` sends nothing, so a frame for a cluster we are not in is an offence and not the
//!         race of a start.
//! Source  DESIGN section 7

use fluence_types::DatabaseId;
use libp2p::StreamProtocol;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// Votes of simplex.
    Vote = 0,
    /// Certificates of simplex.
    Certificate = 1,
    /// Certificates that a member missed.
    Resolver = 2,
    /// Blocks.
    Broadcast = 3,
    /// Blocks that a member missed.
    Backfill = 4,
    /// Operations on their way to a block.
    Mempool = 5,
    /// Cells, snapshots and votes for seats.
    Fetch = 6,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Vote, Self::Certificate, Self::Resolver, Self::Broadcast, Self::Backfill, Self::Mempool, Self::Fetch];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Certificate => "certificate",
            Self::Resolver => "resolver",
            Self::Broadcast => "broadcast",
            Self::Backfill => "backfill",
            Self::Mempool => "mempool",
            Self::Fetch => "fetch",
        }
    }

    /// Most bytes of a payload.
    #[must_use]
    pub const fn payload_bytes_max(self) -> usize {
        self.rule().payload_max
    }

    pub(super) const fn rule(self) -> Rule {
        let (lane, payload_max, queue, per_second, burst) = match self {
            Self::Vote => (Lane::Urgent, 64 << 10, 512, 2000.0, 1000.0),
            Self::Certificate => (Lane::Urgent, 64 << 10, 256, 1000.0, 500.0),
            Self::Resolver => (Lane::Urgent, 64 << 10, 128, 500.0, 250.0),
            Self::Broadcast => (Lane::Bulk, 5 << 20, 32, 500.0, 100.0),
            Self::Backfill => (Lane::Bulk, 5 << 20, 32, 200.0, 100.0),
            Self::Mempool => (Lane::Bulk, 4 << 20, 64, 1000.0, 500.0),
            Self::Fetch => (Lane::Bulk, 5 << 20, 32, 500.0, 250.0),
        };
        Rule { lane, payload_max, queue, per_second, burst }
    }
}

/// What a channel may carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) lane: Lane,
    /// Bytes of a payload.
    pub(super) payload_max: usize,
    /// Frames that wait for a peer, and frames of one member that wait for us, per cluster.
    pub(super) queue: usize,
    /// Frames a second to one peer, sustained. A peer may send us twice as many: it keeps the same limit, on another clock.
    pub(super) per_second: f64,
    /// Frames to one peer at once after a pause.
    pub(super) burst: f64,
}

/// One of the two streams to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::net) enum Lane {
    Urgent = 0,
    Bulk = 1,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Urgent, Self::Bulk];

    pub(super) const fn protocol(self) -> StreamProtocol {
        match self {
            Self::Urgent => StreamProtocol::new("/flu/cluster/1/urgent"),
            Self::Bulk => StreamProtocol::new("/flu/cluster/1/bulk"),
        }
    }

    /// Most bytes of a payload on this stream.
    const fn payload_max(self) -> usize {
        match self {
            Self::Urgent => 64 << 10,
            Self::Bulk => 5 << 20,
        }
    }

    /// Bytes that wait for one peer.
    pub(super) const fn queue_bytes_max(self) -> usize {
        match self {
            Self::Urgent => 4 << 20,
            Self::Bulk => 32 << 20,
        }
    }
}

/// Says who is where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Control {
    Here = 0xf0,
    Ack = 0xf1,
    Gone = 0xf2,
}

/// What a frame is about, control included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Data(Channel),
    Control(Control),
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Data(channel) => channel as u8,
            Self::Control(control) => control as u8,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let control = [Control::Here, Control::Ack, Control::Gone].into_iter().find(|c| *c as u8 == byte);
        let data = || Channel::ALL.into_iter().find(|c| *c as u8 == byte).map(Self::Data);
        control.map(Self::Control).or_else(data)
    }

    const fn lane(self) -> Lane {
        match self {
            Self::Data(channel) => channel.rule().lane,
            Self::Control(_) => Lane::Urgent,
        }
    }

    const fn payload_max(self) -> usize {
        match self {
            Self::Data(channel) => channel.rule().payload_max,
            Self::Control(_) => 0,
        }
    }
}

/// Bytes of the length.
pub(super) const LENGTH_BYTES: usize = 4;
/// Bytes between the length and the payload.
pub(super) const HEADER_BYTES: usize = 17;

/// A frame's head, checked against its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) db: DatabaseId,
    pub(super) kind: Kind,
    pub(super) payload: usize,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes, at most {1}")]
    Length(usize, usize),
    #[error("a frame of {0} bytes, at least {HEADER_BYTES}")]
    Short(usize),
    #[error("no channel {0}")]
    Channel(u8),
    #[error("channel {0} on the other stream")]
    Lane(u8),
}

/// The bytes that follow a length, within the limit of the stream.
pub(super) fn parse_length(lane: Lane, bytes: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let (length, most) = (u32::from_le_bytes(bytes) as usize, HEADER_BYTES + lane.payload_max());
    match length {
        n if n > most => Err(FrameError::Length(n, most)),
        n if n < HEADER_BYTES => Err(FrameError::Short(n)),
        n => Ok(n),
    }
}

/// A frame's head; `length` is what [`parse_length`] gave.
pub(super) fn parse_head(lane: Lane, length: usize, bytes: &[u8; HEADER_BYTES]) -> Result<Head, FrameError> {
    let (db, byte) = (bytes[..16].try_into().expect("16 bytes"), bytes[16]);
    let kind = Kind::of(byte).ok_or(FrameError::Channel(byte))?;
    if kind.lane() != lane {
        return Err(FrameError::Lane(byte));
    }
    if length > HEADER_BYTES + kind.payload_max() {
        return Err(FrameError::Length(length, HEADER_BYTES + kind.payload_max()));
    }
    Ok(Head { db: DatabaseId::from_bytes(db), kind, payload: length - HEADER_BYTES })
}

/// The length and the head of a frame with `payload` bytes.
///
/// # Panics
/// Where the payload is above the limit of its channel: the callers check.
pub(super) fn head(db: DatabaseId, kind: Kind, payload: usize) -> [u8; LENGTH_BYTES + HEADER_BYTES] {
    assert!(payload <= kind.payload_max(), "a payload above the limit of its channel");
    let mut bytes = [0; LENGTH_BYTES + HEADER_BYTES];
    bytes[..4].copy_from_slice(&((HEADER_BYTES + payload) as u32).to_le_bytes());
    bytes[4..20].copy_from_slice(db.as_bytes());
    bytes[20] = kind.byte();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lane: Lane, bytes: &[u8]) -> Result<Head, FrameError> {
        let length = parse_length(lane, bytes[..4].try_into().unwrap())?;
        parse_head(lane, length, bytes[4..21].try_into().unwrap())
    }

    #[test]
    fn every_kind_comes_back_at_its_largest_and_not_above() {
        let db = DatabaseId::from_bytes([7; 16]);
        let controls = [Control::Here, Control::Ack, Control::Gone].map(Kind::Control);
        for kind in Channel::ALL.into_iter().map(Kind::Data).chain(controls) {
            let most = kind.payload_max();
            for payload in [0, most] {
                assert_eq!(parse(kind.lane(), &head(db, kind, payload)), Ok(Head { db, kind, payload }));
            }
            let mut above = head(db, kind, most);
            above[..4].copy_from_slice(&((HEADER_BYTES + most + 1) as u32).to_le_bytes());
            let named = FrameError::Length(HEADER_BYTES + most + 1, HEADER_BYTES + most);
            assert_eq!(parse(kind.lane(), &above), Err(named));
        }
    }

    #[test]
    fn the_bytes_are_pinned() {
        let bytes = head(DatabaseId::from_bytes([0xab; 16]), Kind::Data(Channel::Mempool), 3);
        let mut expected = vec![20, 0, 0, 0];
        expected.extend([0xab; 16]);
        expected.push(5);
        assert_eq!(bytes.to_vec(), expected);
    }

    #[test]
    fn rejects_short_and_unknown_frames_and_those_on_the_other_stream() {
        let mut bytes = head(DatabaseId::default(), Kind::Data(Channel::Vote), 0);
        assert_eq!(parse(Lane::Bulk, &bytes), Err(FrameError::Lane(0)));
        bytes[20] = 7;
        assert_eq!(parse(Lane::Urgent, &bytes), Err(FrameError::Channel(7)));
        bytes[0] = 16;
        assert_eq!(parse(Lane::Urgent, &bytes), Err(FrameError::Short(16)));
        assert_eq!(parse_length(Lane::Bulk, [0xff; 4]), Err(FrameError::Length(u32::MAX as usize, 17 + (5 << 20))));
    }
}
