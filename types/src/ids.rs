//! Identifiers and digests: one newtype per meaning, so that a node id does not fit where a segment id is wanted.
//!
//! Text    lower-case hex with `0x`; JSON uses the same text.

use crate::field::FieldBytes;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {bytes} bytes of hex for a {what}, got {got:?}")]
pub struct IdError {
    what: &'static str,
    bytes: usize,
    got: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps the raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
            /// The raw bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $len] {
                self.0
            }
            /// The raw bytes, borrowed.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text.strip_prefix("0x").unwrap_or(text);
                let mut bytes = [0; $len];
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| IdError {
                    what: $what,
                    bytes: $len,
                    got: text.chars().take(80).collect(),
                })?;
                Ok(Self(bytes))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

byte_id!(
    /// A database, random, chosen by its owner. As a field element: the big-endian integer.
    DatabaseId, 16, "database id"
);
byte_id!(
    /// A segment: keyed BLAKE3 of fresh randomness and the plaintext digest (DESIGN section 3). Selects every key and mask of the segment.
    SegmentId, 16, "segment id"
);
byte_id!(
    /// A storage node or arbiter: its Ed25519 public key, which is also its libp2p identity.
    NodeId, 32, "node id"
);
byte_id!(
    /// An Ethereum address: owners, writers and node operators sign with secp256k1, so that Solidity can check them.
    Address, 20, "address"
);
byte_id!(
    /// Keccak-256 of the canonical signed operation without its signature.
    OpId, 32, "operation id"
);
byte_id!(
    /// Keccak-256 of a block header.
    BlockHash, 32, "block hash"
);
byte_id!(
    /// BLAKE3 of a public schema.
    SchemaHash, 32, "schema hash"
);
byte_id!(
    /// BLAKE3 of the header cells of a segment, each scalar as 32 big-endian bytes.
    HeaderHash, 32, "header hash"
);
byte_id!(
    /// BLAKE3 of a verification key in its canonical compressed encoding.
    Fingerprint, 32, "key fingerprint"
);
byte_id!(
    /// The last hash of a key ceremony's transcript: `docs/protocol/ceremony.md`.
    TranscriptHash, 32, "transcript hash"
);

byte_id!(
    /// BLAKE3 of a file, or of a batch of rows in it.
    ContentHash, 32, "content hash"
);
byte_id!(
    /// Keccak-256 of a committee's members, as chains know it.
    CommitteeHash, 32, "committee hash"
);

impl DatabaseId {
    /// The id as a scalar, as it stands in the database root.
    #[must_use]
    pub const fn to_field(self) -> FieldBytes {
        FieldBytes::from_u128(u128::from_be_bytes(self.0))
    }
}
impl SegmentId {
    /// The id as a scalar, as it stands in the header.
    #[must_use]
    pub const fn to_field(self) -> FieldBytes {
        FieldBytes::from_u128(u128::from_be_bytes(self.0))
    }
}

/// A 32-byte hash as two scalars of 128 bits: (high, low).
#[must_use]
pub fn hash_halves(hash: &[u8; 32]) -> (FieldBytes, FieldBytes) {
    let (mut hi, mut lo) = ([0; 16], [0; 16]);
    hi.copy_from_slice(&hash[..16]);
    lo.copy_from_slice(&hash[16..]);
    (FieldBytes::from_u128(u128::from_be_bytes(hi)), FieldBytes::from_u128(u128::from_be_bytes(lo)))
}

macro_rules! root {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize,
            serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(FieldBytes);

        impl $name {
            /// Wraps a computed or received digest.
            #[must_use]
            pub const fn from_field(f: FieldBytes) -> Self {
                Self(f)
            }
            /// The digest as a scalar.
            #[must_use]
            pub const fn to_field(self) -> FieldBytes {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = crate::field::FieldError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

root!(
    /// Root of one segment: compress(tree root, cells, header hash hi, lo, version), output word 3.
    SegmentRoot
);
root!(
    /// Root of the 4-ary sum tree over a database's stored segments.
    StoredRoot
);
root!(
    /// Root of the catalogue: 8-ary, depth 4, leaf index = projection id.
    CatalogueRoot
);
root!(
    /// Root of all other replicated state of a database: owner, writers, operation chains, members.
    AuxRoot
);
root!(
    /// Root of a database at a height, output word 4.
    DbRoot
);
root!(
    /// Root of everything a node owes in an epoch, output word 7; or, where a challenge names one database, its `DbRoot`.
    HoldingsRoot
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, BorshSerialize, BorshDeserialize,
            serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(
    /// A sorted copy of a table; the first is the table itself. It is also the leaf index in the catalogue, so it is below 4,096.
    ProjectionId, u32
);
number!(
    /// A table of a database.
    TableId, u32
);
number!(
    /// Position of a lane in its segment's lane directory: equal in all segments of a projection.
    LaneId, u16
);
number!(
    /// How often a projection changed; a commit names the version it read.
    Version, u64
);
number!(
    /// The number of a table's lease: it grows whenever somebody takes it, so that what an earlier holder still sends is told apart.
    Fence, u64
);
number!(
    /// Height of a block in a cluster's log; 0 is genesis.
    Height, u64
);
number!(
    /// The proof hour. Never a consensus epoch.
    Epoch, u64
);
