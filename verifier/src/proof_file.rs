//! Proof files: read under limits, checked against a key that did not come with the proof.
//!
//! Rule    the key in a proof file is for other tools. Here the key is found by (circuit, fingerprint) in the binary's table, or given
//!         by the caller in a key file, or named by a contract's pinned hash; only then may its bytes be read from the proof file.
//! Rule    what the context determines is computed again: a file whose seed or query does not make its public inputs is refused, so a
//!         reader may believe the context of an accepted file. What a proof does not bind is in `docs/protocol/proof-file.md`.
//! Source  DESIGN section 6; `docs/protocol/proof-file.md`

use crate::groth16::{self, KeyError, VerificationKey, VerifyError};
use crate::known_keys::{KNOWN_KEYS, KnownKey};
use fluence_crypto::{roots, seed};
use fluence_types::limits::{COUNT_BITS, LANES_MAX, PROJECTIONS_MAX, PROOF_FILE_BYTES_MAX};
use fluence_types::proof::{PROOF_FILE_FORMAT, ProofContext, ProofFile};
use fluence_types::shape::CircuitId;
use fluence_types::statement::StorageSeed;
use fluence_types::{FieldBytes, Fingerprint, TranscriptHash};

/// The `curve` field.
pub const CURVE: &str = "bls12381";
/// The `protocol` field.
pub const PROTOCOL: &str = "groth16";
/// The `format` field of a key file.
pub const KEY_FILE_FORMAT: &str = "fluence-vkey/1";
/// Bytes of a key file.
pub const KEY_FILE_BYTES_MAX: usize = 16 << 10;

/// Why a proof file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofFileError {
    /// Longer than any proof file.
    #[error("the file is {got} bytes, the limit is {limit}")]
    TooLong {
        /// Its length.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON of the documented form: a missing, unknown or malformed field, or an input of r or more.
    #[error("the file is malformed: {0}")]
    Malformed(String),
    /// A field has a value of another format, curve or protocol.
    #[error("field {field} is {got:?}, expected {want:?}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        got: String,
        /// The only one accepted.
        want: &'static str,
    },
    /// The statement has another number of public inputs.
    #[error("{got} public inputs, {circuit} has {want}")]
    InputCount {
        /// The circuit.
        circuit: CircuitId,
        /// Given.
        got: usize,
        /// Expected.
        want: usize,
    },
    /// The context does not make the public inputs, or is no statement of this circuit.
    #[error("the context does not fit the proof: {0}")]
    Context(&'static str),
    /// The verification key inside the file is malformed or is not the one named by the fingerprint.
    #[error("the key in the file: {0}")]
    FileKey(String),
    /// No trusted key has that circuit and fingerprint.
    #[error("no trusted key for {circuit} with fingerprint {fingerprint} {}", .source_name)]
    UnknownKey {
        /// The circuit.
        circuit: CircuitId,
        /// The fingerprint the file names.
        fingerprint: Fingerprint,
        /// Where it was looked for.
        source_name: &'static str,
    },
    /// The file claims that its key is of another kind than it is.
    #[error("the file says insecure_dev_key = {file}, but the key's source says {key}")]
    DevKey {
        /// What the proof file says.
        file: bool,
        /// What is known of the key.
        key: bool,
    },
    /// The proof does not hold.
    #[error(transparent)]
    Proof(#[from] VerifyError),
}

/// A verification key as a file, for `--vkey`. Whoever passes it trusts it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// [`KEY_FILE_FORMAT`].
    pub format: String,
    /// The circuit and its shape.
    pub circuit: CircuitId,
    /// BLAKE3 of the key.
    pub fingerprint: Fingerprint,
    /// Made on one machine: whoever ran it can forge.
    pub insecure_dev_key: bool,
    /// The ceremony it comes from, for whoever checks that; the file alone shows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<TranscriptHash>,
    /// The canonical bytes in hex.
    pub key: String,
}

impl KeyFile {
    /// The file of a key: of a development key where there is no transcript.
    #[must_use]
    pub fn new(circuit: CircuitId, key: &VerificationKey, transcript: Option<TranscriptHash>) -> Self {
        let (format, fingerprint) = (KEY_FILE_FORMAT.to_owned(), key.fingerprint());
        Self { format, circuit, fingerprint, insecure_dev_key: transcript.is_none(), transcript, key: key.to_hex() }
    }

    /// Reads a key file and checks that it is consistent.
    ///
    /// # Errors
    /// [`ProofFileError`] naming what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let file: Self = json(bytes, KEY_FILE_BYTES_MAX)?;
        field("format", &file.format, KEY_FILE_FORMAT)?;
        if file.insecure_dev_key == file.transcript.is_some() {
            return Err(ProofFileError::FileKey("a key has a transcript, or is a development key".to_owned()));
        }
        file.decode()?;
        Ok(file)
    }

    /// The key, with its points and its fingerprint checked.
    ///
    /// # Errors
    /// [`ProofFileError::FileKey`].
    pub fn decode(&self) -> Result<VerificationKey, ProofFileError> {
        decode_key(&self.key, &self.fingerprint)
    }
}

/// Where the trusted key comes from; never the proof file alone.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum KeySource<'a> {
    /// The binary's table of ceremony keys.
    Binary,
    /// A key file that the caller trusts.
    File(&'a KeyFile),
    /// The key whose keccak hash a contract pins for this circuit; the caller has read it from a chain it trusts.
    Chain {
        /// As `VerificationKey::pinned_hash`.
        pinned_hash: [u8; 32],
    },
}

impl KeySource<'_> {
    /// In words, for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Binary => "in this binary",
            Self::File(_) => "in the given key file",
            Self::Chain { .. } => "in the contract",
        }
    }
}

/// An accepted proof file: what was shown, and under whose key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The circuit.
    pub circuit: CircuitId,
    /// The key.
    pub fingerprint: Fingerprint,
    /// The key was made on one machine, or nothing says that it was not: whoever made it can forge.
    pub insecure_dev_key: bool,
    /// Where the key came from, in words.
    pub key_source: &'static str,
}

/// Reads a proof file. Nothing in it is checked yet but its form.
///
/// # Errors
/// [`ProofFileError::TooLong`] or [`ProofFileError::Malformed`].
pub fn read(bytes: &[u8]) -> Result<ProofFile, ProofFileError> {
    json(bytes, PROOF_FILE_BYTES_MAX)
}

/// Checks everything a proof file says, under a key from `source`.
///
/// # Errors
/// [`ProofFileError`] naming the first thing that is wrong.
pub fn check(file: &ProofFile, source: &KeySource<'_>) -> Result<Verdict, ProofFileError> {
    check_with_table(file, source, KNOWN_KEYS)
}

/// [`check`] with another table than the binary's own.
///
/// # Errors
/// As [`check`].
pub fn check_with_table(
    file: &ProofFile,
    source: &KeySource<'_>,
    table: &[KnownKey],
) -> Result<Verdict, ProofFileError> {
    field("format", &file.format, PROOF_FILE_FORMAT)?;
    field("curve", &file.curve, CURVE)?;
    field("protocol", &file.protocol, PROTOCOL)?;
    let (circuit, want) = (file.circuit, file.circuit.public_inputs());
    if file.public_inputs.len() != want {
        return Err(ProofFileError::InputCount { circuit, got: file.public_inputs.len(), want });
    }
    check_context(file)?;
    // The key in the file is checked for what it claims, so that other tools read what we read. It is not trusted by that.
    let carried = decode_key(&file.verification_key, &file.fingerprint)?;
    let (key, dev) = trusted(file, carried, source, table)?;
    if file.insecure_dev_key != dev {
        return Err(ProofFileError::DevKey { file: file.insecure_dev_key, key: dev });
    }
    groth16::verify(&key, &file.public_inputs, &file.proof)?;
    Ok(Verdict { circuit, fingerprint: file.fingerprint, insecure_dev_key: dev, key_source: source.name() })
}

/// The trusted key, and whether it is a development key.
fn trusted(
    file: &ProofFile,
    carried: VerificationKey,
    source: &KeySource<'_>,
    table: &[KnownKey],
) -> Result<(VerificationKey, bool), ProofFileError> {
    let unknown =
        ProofFileError::UnknownKey { circuit: file.circuit, fingerprint: file.fingerprint, source_name: source.name() };
    let known = table
        .iter()
        .filter(|k| k.circuit == file.circuit.to_string())
        .filter_map(|k| VerificationKey::from_hex(k.key).ok())
        .find(|k| k.fingerprint() == file.fingerprint);
    match source {
        KeySource::Binary => known.map(|k| (k, false)).ok_or(unknown),
        KeySource::File(given) => {
            if given.circuit != file.circuit || given.fingerprint != file.fingerprint {
                return Err(unknown);
            }
            Ok((given.decode()?, given.insecure_dev_key))
        }
        KeySource::Chain { pinned_hash } => {
            if carried.pinned_hash() != *pinned_hash {
                return Err(unknown);
            }
            // A contract pins a key but does not say how it was made.
            Ok((carried, known.is_none()))
        }
    }
}

fn check_context(file: &ProofFile) -> Result<(), ProofFileError> {
    let wrong = |why| Err(ProofFileError::Context(why));
    let inputs = &file.public_inputs;
    match (&file.context, file.circuit) {
        (ProofContext::Storage { seed: parts }, CircuitId::Storage(shape)) => {
            if parts.shape != StorageSeed::shape_word(shape) {
                return wrong("the seed names another shape");
            }
            if seed::storage_seed(parts) != inputs[2] {
                return wrong("the seed's parts do not make the third input");
            }
            if !inputs[1].to_u64().is_some_and(|t| t > 0 && t >> COUNT_BITS == 0) {
                return wrong("the second input is no count of cells");
            }
            Ok(())
        }
        (ProofContext::RangeSum { height: _, db, query }, CircuitId::RangeSum(shape)) => {
            if query.db != *db {
                return wrong("the query is for another database");
            }
            if query.ranges.len() > shape.segments as usize {
                return wrong("more ranges than the shape has segments");
            }
            if query.projection.0 >= PROJECTIONS_MAX || usize::from(query.lane.0) >= LANES_MAX {
                return wrong("no such projection or lane");
            }
            // Above 2^40 two pairs of ends could make one scalar.
            if query.ranges.iter().any(|r| r.lo > r.hi || r.hi >> COUNT_BITS != 0) {
                return wrong("a range is not lo <= hi < 2^40");
            }
            if roots::query_digest(query) != inputs[1] {
                return wrong("the query does not make the second input");
            }
            Ok(())
        }
        _ => wrong("it is for another statement than the circuit"),
    }
}

fn decode_key(hex: &str, fingerprint: &Fingerprint) -> Result<VerificationKey, ProofFileError> {
    let key = VerificationKey::from_hex(hex).map_err(|e: KeyError| ProofFileError::FileKey(e.to_string()))?;
    if key.fingerprint() == *fingerprint {
        Ok(key)
    } else {
        Err(ProofFileError::FileKey(format!("its fingerprint is {}, the file names {fingerprint}", key.fingerprint())))
    }
}

fn field(field: &'static str, got: &str, want: &'static str) -> Result<(), ProofFileError> {
    if got == want { Ok(()) } else { Err(ProofFileError::Field { field, got: got.chars().take(80).collect(), want }) }
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, ProofFileError> {
    if bytes.len() > limit {
        return Err(ProofFileError::TooLong { got: bytes.len(), limit });
    }
    serde_json::from_slice(bytes).map_err(|e| ProofFileError::Malformed(e.to_string()))
}

/// The public inputs of a file as 32-byte big-endian words, as Solidity takes them.
#[must_use]
pub fn input_words(inputs: &[FieldBytes]) -> Vec<[u8; 32]> {
    inputs.iter().map(|f| f.to_bytes()).collect()
}

#[cfg(test)]
mod tests;
