//! Canonical encoding: borsh, where each value has one encoding, decoded under an explicit byte limit with nothing left over.

use borsh::{BorshDeserialize, BorshSerialize};
use std::ops::Deref;

/// Why bytes were not decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The input is longer than what this message may be.
    #[error("{what} is {got} bytes, the limit is {limit}")]
    TooLong {
        /// What was decoded.
        what: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The most it may have.
        limit: usize,
    },
    /// The bytes are not the canonical encoding of the type.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// What was decoded.
        what: &'static str,
        /// The decoder's reason.
        why: String,
    },
}

/// The canonical bytes of `value`.
pub fn encode<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to a Vec does not fail, and lengths are below 2^32")
}

/// Decodes exactly one `T` from all of `bytes`, refusing more than `limit` of them.
///
/// # Errors
/// [`CodecError`] naming `what`.
pub fn decode<T: BorshDeserialize>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLong { what, got: bytes.len(), limit });
    }
    borsh::from_slice(bytes).map_err(|e| CodecError::Malformed { what, why: e.to_string() })
}

/// A list of at most `MAX` items; decoding more is an error before they are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Bounded<T, const MAX: usize>(Vec<T>);

/// More items than the type allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got} items, the limit is {limit}")]
pub struct TooMany {
    /// Items given.
    pub got: usize,
    /// Items allowed.
    pub limit: usize,
}

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// Takes the list if it is short enough.
    ///
    /// # Errors
    /// [`TooMany`] above `MAX` items.
    pub fn new(items: Vec<T>) -> Result<Self, TooMany> {
        if items.len() > MAX { Err(TooMany { got: items.len(), limit: MAX }) } else { Ok(Self(items)) }
    }
    /// The list.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Deref for Bounded<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for Bounded<T, MAX> {
    type Error = TooMany;
    fn try_from(items: Vec<T>) -> Result<Self, TooMany> {
        Self::new(items)
    }
}

impl<T: BorshDeserialize, const MAX: usize> BorshDeserialize for Bounded<T, MAX> {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        let len = u32::deserialize_reader(reader)? as usize;
        if len > MAX {
            let why = TooMany { got: len, limit: MAX };
            return Err(borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, why));
        }
        // Reserve little up front: the length is the sender's word until the items have been read.
        let mut items = Vec::with_capacity(len.min(1024));
        for _ in 0..len {
            items.push(T::deserialize_reader(reader)?);
        }
        Ok(Self(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_trailing_bytes_long_input_and_long_lists() {
        let mut bytes = encode(&7u32);
        assert_eq!(decode::<u32>("n", &bytes, 4).unwrap(), 7);
        bytes.push(0);
        assert!(matches!(decode::<u32>("n", &bytes, 9), Err(CodecError::Malformed { .. })));
        assert!(matches!(decode::<u32>("n", &bytes, 4), Err(CodecError::TooLong { got: 5, limit: 4, .. })));
        let three = encode(&vec![1u8, 2, 3]);
        assert!(decode::<Bounded<u8, 3>>("list", &three, 99).is_ok());
        assert!(decode::<Bounded<u8, 2>>("list", &three, 99).is_err());
        // A length that promises four billion items costs an error, not memory.
        assert!(decode::<Bounded<u8, 2>>("list", &[0xff; 4], 99).is_err());
    }
}
