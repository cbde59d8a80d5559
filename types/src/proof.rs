//! Proofs as they travel: 192 bytes, and the JSON proof file.
//!
//! Rule    a proof file carries a verification key for other tools to read; `fluence verify` never trusts it.
//! Source  `docs/protocol/proof-file.md`

use crate::shape::CircuitId;
use crate::statement::{RangeSumQuery, StorageSeed};
use crate::{DatabaseId, FieldBytes, Fingerprint, Height};

/// A Groth16 proof over BLS12-381: A (48 bytes), B (96), C (48), compressed big-endian points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ProofBytes(pub [u8; 192]);

impl serde::Serialize for ProofBytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("0x{}", hex::encode(self.0)))
    }
}

impl<'de> serde::Deserialize<'de> for ProofBytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        let mut bytes = [0; 192];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut bytes)
            .map_err(|_| serde::de::Error::custom("a proof is 192 bytes of hex"))?;
        Ok(Self(bytes))
    }
}

impl borsh::BorshSerialize for ProofBytes {
    fn serialize<W: borsh::io::Write>(&self, w: &mut W) -> borsh::io::Result<()> {
        w.write_all(&self.0)
    }
}

impl borsh::BorshDeserialize for ProofBytes {
    fn deserialize_reader<R: borsh::io::Read>(r: &mut R) -> borsh::io::Result<Self> {
        let mut bytes = [0; 192];
        r.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// The `format` field of a proof file.
pub const PROOF_FILE_FORMAT: &str = "fluence-proof/1";

/// A proof file. Unknown fields are refused: a field nobody checks must not look checked.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    /// [`PROOF_FILE_FORMAT`].
    pub format: String,
    /// `bls12381`.
    pub curve: String,
    /// `groth16`.
    pub protocol: String,
    /// The circuit and its shape.
    pub circuit: CircuitId,
    /// BLAKE3 of the verification key the proof was made under.
    pub fingerprint: Fingerprint,
    /// The key was made on one machine, so whoever ran it can forge: for local chains only.
    pub insecure_dev_key: bool,
    /// In circuit order.
    pub public_inputs: Vec<FieldBytes>,
    /// What the public inputs were made from, so that a reader can recompute them.
    pub context: ProofContext,
    /// The proof.
    pub proof: ProofBytes,
    /// The verification key, compressed canonical points in hex: alpha G1, beta G2, gamma G2, delta G2, then one G1 per input and one more.
    pub verification_key: String,
}

/// What the public inputs were made from.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "statement", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ProofContext {
    /// `storage`.
    Storage {
        /// The parts of the seed.
        seed: StorageSeed,
    },
    /// `range_sum`.
    RangeSum {
        /// Height of the database root.
        height: Height,
        /// The database.
        db: DatabaseId,
        /// The query whose digest is the second input.
        query: RangeSumQuery,
    },
}
