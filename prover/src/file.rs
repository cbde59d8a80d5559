//! The key file.
//!
//! ```text
//! 8       "FLUKEY\0\1"
//! 4       length of the head, u32 little-endian
//! ..      head: JSON {circuit, matrix_hash, fingerprint, insecure_dev_key, transcript (of ceremonies), proving_key_bytes}
//! ..      proving key: ark-serialize, uncompressed
//! 32      BLAKE3 of all before
//! ```
//! Rule    written to a temporary name, synced, renamed: a file is whole or absent. Read in two passes over one handle: the checksum,
//!         then the lengths of its parts. Points are read when they are needed ([`points`]), without subgroup checks, which only our own
//!         bytes may skip. A key for other matrices is refused.
//!
//! [`points`]: crate::points

use crate::keys::{KeyError, Keys};
use crate::points::{self, KeyPoints, Stored};
use crate::rows::{Rows, pinned_hash};
use ark_bls12_381::{Bls12_381, G1Affine};
use ark_groth16::{ProvingKey, VerifyingKey};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize, Compress, SerializationError, Validate};
use fluence_circuits::pin::Matrices;
use fluence_types::shape::CircuitId;
use fluence_types::{Fingerprint, TranscriptHash};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;

const MAGIC: [u8; 8] = *b"FLUKEY\0\x01";
const HEAD_BYTES_MAX: u32 = 1 << 12;
const CHECKSUM_BYTES: u64 = 32;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    circuit: CircuitId,
    #[serde(with = "hex::serde")]
    matrix_hash: [u8; 32],
    fingerprint: Fingerprint,
    insecure_dev_key: bool,
    /// Of every key but development keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transcript: Option<TranscriptHash>,
    proving_key_bytes: u64,
}

/// Hashes what goes through it.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(crate) fn save(path: &Path, keys: &Keys) -> Result<(), KeyError> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let pk = keys.proving_key()?;
    let written = write(&temporary, keys, pk).and_then(|()| std::fs::rename(&temporary, path)).and_then(|()| {
        // The name is durable only when its folder is.
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    });
    written.map_err(|source| {
        // Best effort: the error that counts is the one we return.
        let _ = std::fs::remove_file(&temporary);
        KeyError::Io { path: path.to_owned(), source }
    })
}

fn write(path: &Path, keys: &Keys, pk: &ProvingKey<Bls12_381>) -> io::Result<()> {
    let head = Head {
        circuit: keys.id,
        matrix_hash: keys.matrix_hash,
        fingerprint: keys.fingerprint,
        insecure_dev_key: keys.insecure_dev,
        transcript: keys.transcript,
        proving_key_bytes: pk.serialized_size(Compress::No) as u64,
    };
    let head = serde_json::to_vec(&head)?;
    let file = File::create(path)?;
    let mut out = Hashing { inner: BufWriter::with_capacity(1 << 20, file), hasher: blake3::Hasher::new() };
    out.write_all(&MAGIC)?;
    out.write_all(&(head.len() as u32).to_le_bytes())?;
    out.write_all(&head)?;
    pk.serialize_with_mode(&mut out, Compress::No).map_err(io::Error::other)?;
    let checksum = out.hasher.finalize();
    out.inner.write_all(checksum.as_bytes())?;
    out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

pub(crate) fn load(path: &Path, id: CircuitId) -> Result<Keys, KeyError> {
    let damaged = |why: String| KeyError::Damaged { path: path.to_owned(), why };
    // Side by side: the key must be the circuit's, whose matrices are pinned or made anew, not the file's word for it.
    let (rows, read) = rayon::join(|| rows_of(id, path), || read(path));
    let (matrix_hash, rows) = rows?;
    let (head, stored) = read.map_err(|e| match e {
        ReadError::Io(source) => KeyError::Io { path: path.to_owned(), source },
        ReadError::Damaged(why) => damaged(why),
    })?;
    if head.circuit != id {
        return Err(damaged(format!("it is a key for {}", head.circuit)));
    }
    if head.matrix_hash != matrix_hash {
        return Err(damaged(format!("it was made for another version of {id}")));
    }
    // Vector lengths are the file's word, which the checksum made ours; a proof with another length would be a panic in the library.
    let (variables, inputs) = (rows.variables(), rows.inputs);
    let [a, b_g1, b_g2, _, l] = stored.spans.map(|span| span.count);
    if [a, b_g1, b_g2] != [variables; 3] || l != rows.witnesses || stored.vk.gamma_abc_g1.len() != inputs {
        return Err(damaged("its lengths are not the circuit's".to_owned()));
    }
    let mut keys = Keys::of_rows(id, KeyPoints::of_file(stored), rows, matrix_hash);
    if head.insecure_dev_key == head.transcript.is_some() {
        return Err(damaged("a key has a transcript, or is a development key".to_owned()));
    }
    (keys.insecure_dev, keys.transcript) = (head.insecure_dev_key, head.transcript);
    if keys.fingerprint != head.fingerprint {
        return Err(damaged("its fingerprint is another".to_owned()));
    }
    Ok(keys)
}

/// The circuit's rows and the hash of its matrices: from the file beside the key at `path`, or made, and kept there.
fn rows_of(id: CircuitId, path: &Path) -> Result<([u8; 32], Rows), KeyError> {
    let (pinned, kept) = (pinned_hash(id), path.with_extension("rows"));
    if let Some(hash) = pinned
        && let Some(rows) = Rows::read(&kept, &hash)
    {
        return Ok((hash, rows));
    }
    let matrices = Matrices::of(id).map_err(|e| KeyError::Circuit(id, e))?;
    let (hash, rows) = (matrices.hash(), Rows::of(&matrices));
    if pinned == Some(hash) {
        // Best effort: a folder that cannot be written costs the next load a second.
        let _ = rows.write(&kept, &hash);
    }
    Ok((hash, rows))
}

enum ReadError {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::UnexpectedEof { Self::Damaged("it is cut short".to_owned()) } else { Self::Io(e) }
    }
}

fn read(path: &Path) -> Result<(Head, Stored), ReadError> {
    let damaged = |why: &str| ReadError::Damaged(why.to_owned());
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let body = bytes.checked_sub(CHECKSUM_BYTES).ok_or_else(|| damaged("it is cut short"))?;

    let mut hasher = blake3::Hasher::new();
    io::copy(&mut BufReader::with_capacity(1 << 20, &mut file).take(body), &mut hasher)?;
    let mut checksum = [0; CHECKSUM_BYTES as usize];
    file.seek(SeekFrom::Start(body))?;
    file.read_exact(&mut checksum)?;
    if hasher.finalize() != blake3::Hash::from_bytes(checksum) {
        return Err(damaged("its checksum does not match"));
    }

    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 14, file);
    let (mut magic, mut length) = ([0; 8], [0; 4]);
    reader.read_exact(&mut magic)?;
    reader.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if magic != MAGIC || length > HEAD_BYTES_MAX {
        return Err(damaged("it is not a key file of this version"));
    }
    let mut head = vec![0; length as usize];
    reader.read_exact(&mut head)?;
    let head: Head = serde_json::from_slice(&head).map_err(|e| ReadError::Damaged(e.to_string()))?;
    let start = reader.stream_position()?;
    if start.checked_add(head.proving_key_bytes) != Some(body) {
        return Err(damaged("its length is another"));
    }
    let (vk, beta_g1, delta_g1) = heads(&mut reader).map_err(|e| ReadError::Damaged(e.to_string()))?;
    let after = reader.stream_position()?;
    let spans = points::spans(&mut reader, after, body)?;
    let file = Mutex::new(reader.into_inner());
    Ok((head, Stored { path: path.to_owned(), file, vk, beta_g1, delta_g1, spans }))
}

/// What a proving key has before its vectors.
fn heads(reader: &mut impl Read) -> Result<(VerifyingKey<Bls12_381>, G1Affine, G1Affine), SerializationError> {
    let (no, unchecked) = (Compress::No, Validate::No);
    let vk = VerifyingKey::deserialize_with_mode(&mut *reader, no, unchecked)?;
    let beta_g1 = G1Affine::deserialize_with_mode(&mut *reader, no, unchecked)?;
    Ok((vk, beta_g1, G1Affine::deserialize_with_mode(reader, no, unchecked)?))
}
