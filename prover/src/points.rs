//! The points of a key: whole in memory as ark-groth16 holds them, or in the key's file, read query by query by whoever needs them.
//!
//! Why     a proof reads the points in a form of its own, and never B in G1: of a key from a file no second copy stays in memory
//! Rule    the file is kept open from its check on, so one put in its place is another. One that is changed beneath us gives an error or points that
//!         make no proof that verifies, and none is handed out unverified; it is read, not mapped, so it cannot change what has been read
//! Bytes   where queries lie follows from their lengths, which the file's checksum covers and the circuit has to agree with

use crate::keys::KeyError;
use ark_bls12_381::{Bls12_381, G1Affine, G2Affine};
use ark_groth16::{ProvingKey, VerifyingKey};
use ark_serialize::{CanonicalDeserialize, Compress, SerializationError, Validate};
use rayon::prelude::*;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A vector of points of G1. B's is read by ark-groth16 alone, with the whole key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Query {
    /// A of each variable.
    A,
    /// Powers of tau, times the vanishing polynomial.
    H,
    /// The rest of each witness.
    L,
}

/// Where a vector lies in a file.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// Byte of its first point.
    pub(crate) at: u64,
    /// Points.
    pub(crate) count: usize,
}

/// An open key file whose checksum has been seen.
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) file: Mutex<File>,
    pub(crate) vk: VerifyingKey<Bls12_381>,
    pub(crate) beta_g1: G1Affine,
    pub(crate) delta_g1: G1Affine,
    /// A, B in G1, B in G2, H, L: the order in the file.
    pub(crate) spans: [Span; 5],
}

/// Points that are read at a time: what threads collect is in memory twice.
pub(crate) const PIECE: usize = 1 << 13;

/// Bytes of an uncompressed point of each span.
pub(crate) const POINT_BYTES: [usize; 5] = [96, 96, 192, 96, 96];

/// The points of a key.
pub(crate) struct KeyPoints {
    whole: OnceLock<ProvingKey<Bls12_381>>,
    stored: Option<Stored>,
}

impl KeyPoints {
    pub(crate) fn of(pk: ProvingKey<Bls12_381>) -> Self {
        Self { whole: OnceLock::from(pk), stored: None }
    }

    pub(crate) const fn of_file(stored: Stored) -> Self {
        Self { whole: OnceLock::new(), stored: Some(stored) }
    }

    fn stored(&self) -> &Stored {
        self.stored.as_ref().expect("a key is in memory or in a file")
    }

    pub(crate) fn vk(&self) -> &VerifyingKey<Bls12_381> {
        self.whole.get().map_or_else(|| &self.stored().vk, |pk| &pk.vk)
    }

    /// Points of H, one less than the domain has.
    pub(crate) fn h_count(&self) -> usize {
        self.whole.get().map_or_else(|| self.stored().spans[3].count, |pk| pk.h_query.len())
    }

    /// A vector in G1.
    pub(crate) fn g1(&self, query: Query) -> Result<Cow<'_, [G1Affine]>, KeyError> {
        let Some(pk) = self.whole.get() else {
            let span = match query {
                Query::A => 0,
                Query::H => 3,
                Query::L => 4,
            };
            return self.stored().read(span).map(Cow::Owned);
        };
        Ok(Cow::Borrowed(match query {
            Query::A => &pk.a_query,
            Query::H => &pk.h_query,
            Query::L => &pk.l_query,
        }))
    }

    /// B in G2.
    pub(crate) fn b_g2(&self) -> Result<Cow<'_, [G2Affine]>, KeyError> {
        match self.whole.get() {
            Some(pk) => Ok(Cow::Borrowed(&pk.b_g2_query)),
            None => self.stored().read(2).map(Cow::Owned),
        }
    }

    /// All of it in memory, from then on.
    pub(crate) fn whole(&self) -> Result<&ProvingKey<Bls12_381>, KeyError> {
        if let Some(pk) = self.whole.get() {
            return Ok(pk);
        }
        let stored = self.stored();
        let pk = ProvingKey {
            vk: stored.vk.clone(),
            beta_g1: stored.beta_g1,
            delta_g1: stored.delta_g1,
            a_query: stored.read(0)?,
            b_g1_query: stored.read(1)?,
            b_g2_query: stored.read(2)?,
            h_query: stored.read(3)?,
            l_query: stored.read(4)?,
        };
        Ok(self.whole.get_or_init(|| pk))
    }
}

impl Stored {
    /// Without subgroup checks, like all of a key file: it is our own.
    fn read<P: CanonicalDeserialize + Send>(&self, span: usize) -> Result<Vec<P>, KeyError> {
        let (Span { at, count }, size) = (self.spans[span], POINT_BYTES[span]);
        let point = |bytes: &[u8]| P::deserialize_with_mode(bytes, Compress::No, Validate::No);
        let damaged = |e: SerializationError| KeyError::Damaged { path: self.path.clone(), why: e.to_string() };
        // A cursor is set before each use, so what a panic left does not matter.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at)).map_err(|source| KeyError::Io { path: self.path.clone(), source })?;
        let (mut out, mut bytes) = (Vec::with_capacity(count), vec![0; PIECE.min(count) * size]);
        while out.len() < count {
            let piece = &mut bytes[..(count - out.len()).min(PIECE) * size];
            file.read_exact(piece).map_err(|source| KeyError::Io { path: self.path.clone(), source })?;
            let points: Result<Vec<P>, _> = piece.par_chunks_exact(size).with_min_len(1 << 8).map(point).collect();
            out.extend(points.map_err(damaged)?);
        }
        Ok(out)
    }
}

/// Where the vectors of a proving key lie that follows `reader`'s position `at`; `end` is the first byte after it.
pub(crate) fn spans(reader: &mut (impl Read + Seek), mut at: u64, end: u64) -> io::Result<[Span; 5]> {
    let mut spans = [Span { at: 0, count: 0 }; 5];
    for (span, size) in spans.iter_mut().zip(POINT_BYTES) {
        let mut count = [0; 8];
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut count)?;
        let count = u64::from_le_bytes(count);
        let next = count.checked_mul(size as u64).and_then(|bytes| bytes.checked_add(at + 8));
        let next = next.filter(|next| *next <= end).ok_or(io::ErrorKind::UnexpectedEof)?;
        *span = Span { at: at + 8, count: usize::try_from(count).map_err(|_| io::ErrorKind::UnexpectedEof)? };
        at = next;
    }
    if at == end { Ok(spans) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
