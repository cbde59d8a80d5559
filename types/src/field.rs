//! Field elements as bytes: 32 bytes, big-endian, always below the BLS12-381 scalar modulus r.
//!
//! Why     the vocabulary needs no curve arithmetic, only "this is a canonical scalar"; Solidity reads the same 32 bytes as a `uint256`.
//! Rule    each value has one encoding: [`FieldBytes::from_canonical`] is the only way in for bytes from outside.
//! Source  r of BLS12-381: <https://eips.ethereum.org/EIPS/eip-2537>

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// The order r of the BLS12-381 scalar field, big-endian.
pub const MODULUS_BE: [u8; 32] = [
    0x73, 0xed, 0xa7, 0x53, 0x29, 0x9d, 0x7d, 0x48, 0x33, 0x39, 0xd8, 0x08, 0x09, 0xa1, 0xd8, 0x05, 0x53, 0xbd, 0xa4,
    0x02, 0xff, 0xfe, 0x5b, 0xfe, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01,
];

/// Why bytes are not a field element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The value is r or larger, so it would be a second encoding of a smaller one.
    #[error("scalar is not below the field modulus")]
    NotCanonical,
    /// The text is not 32 bytes of hex.
    #[error("expected 32 bytes of hex, got {0:?}")]
    Hex(String),
}

/// A canonical BLS12-381 scalar: 32 bytes, big-endian, below r.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize)]
pub struct FieldBytes([u8; 32]);

impl FieldBytes {
    /// The scalar 0.
    pub const ZERO: Self = Self([0; 32]);

    /// Accepts 32 big-endian bytes only if they are below r.
    ///
    /// # Errors
    /// [`FieldError::NotCanonical`] for a value of r or more.
    pub fn from_canonical(bytes: [u8; 32]) -> Result<Self, FieldError> {
        // Arrays compare lexicographically, which for big-endian bytes is numerically.
        if bytes < MODULUS_BE { Ok(Self(bytes)) } else { Err(FieldError::NotCanonical) }
    }

    /// A small integer as a scalar.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        let mut bytes = [0; 32];
        let tail = value.to_be_bytes();
        let mut i = 0;
        while i < 16 {
            bytes[16 + i] = tail[i];
            i += 1;
        }
        Self(bytes)
    }

    /// A small integer as a scalar.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self::from_u128(value as u128)
    }

    /// The scalar of 31 payload bytes: the bytes big-endian, so always below 2^248 < r.
    #[must_use]
    pub fn from_payload(payload: &[u8; 31]) -> Self {
        let mut bytes = [0; 32];
        bytes[1..].copy_from_slice(payload);
        Self(bytes)
    }

    /// The 32 big-endian bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The 32 big-endian bytes, borrowed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The value as an integer, if it fits 128 bits.
    #[must_use]
    pub fn to_u128(self) -> Option<u128> {
        if self.0[..16].iter().any(|b| *b != 0) {
            return None;
        }
        let mut tail = [0; 16];
        tail.copy_from_slice(&self.0[16..]);
        Some(u128::from_be_bytes(tail))
    }

    /// The value as an integer, if it fits 64 bits.
    #[must_use]
    pub fn to_u64(self) -> Option<u64> {
        self.to_u128().and_then(|v| u64::try_from(v).ok())
    }
}

impl BorshDeserialize for FieldBytes {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        let bytes = <[u8; 32]>::deserialize_reader(reader)?;
        Self::from_canonical(bytes).map_err(|e| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, e))
    }
}

impl fmt::Display for FieldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for FieldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for FieldBytes {
    type Err = FieldError;
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| FieldError::Hex(text.chars().take(80).collect()))?;
        Self::from_canonical(bytes)
    }
}

impl serde::Serialize for FieldBytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for FieldBytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_r_minus_one_and_rejects_r() {
        let mut below = MODULUS_BE;
        below[31] -= 1;
        assert!(FieldBytes::from_canonical(below).is_ok());
        assert_eq!(FieldBytes::from_canonical(MODULUS_BE), Err(FieldError::NotCanonical));
        assert_eq!(FieldBytes::from_canonical([0xff; 32]), Err(FieldError::NotCanonical));
        assert!(borsh::from_slice::<FieldBytes>(&MODULUS_BE).is_err());
    }

    #[test]
    fn integers_round_trip_and_large_values_do_not_fit() {
        assert_eq!(FieldBytes::from_u128(u128::MAX).to_u128(), Some(u128::MAX));
        assert_eq!(FieldBytes::from_u64(7).to_u64(), Some(7));
        assert_eq!(FieldBytes::from_u128(1 << 64).to_u64(), None);
        assert_eq!(FieldBytes::from_payload(&[0xff; 31]).to_u128(), None);
    }

    #[test]
    fn text_round_trips_and_rejects_garbage() {
        let f = FieldBytes::from_u64(0xabc);
        assert_eq!(f.to_string().parse::<FieldBytes>(), Ok(f));
        assert!("0x12".parse::<FieldBytes>().is_err());
    }
}
