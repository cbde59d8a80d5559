//! The file that goes from contributor to contributor: the transcript, and what delta divides.
//!
//! ```text
//! 8     "FLUCER\0\1"
//! 4     length of the transcript (u32 little-endian)     ..  the transcript
//! ..    H: 2^k - 1 points of G1     L: one a witness; uncompressed
//! 32    BLAKE3 of all before
//! ```
//! Lengths  follow from the transcript's head, which has limits, and must be those of the file: nothing is allocated by a number inside.
//! Memory   one piece of 2^13 points

use super::CHUNK;
use super::error::{CeremonyError, Refusal, io, refused};
use super::output::Output;
use super::points::{decode, encode};
use super::transcript::{TRANSCRIPT_BYTES_MAX, Transcript};
use ark_bls12_381::G1Affine;
use ark_serialize::Compress;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"FLUCER\0\x01";
const G1_BYTES: usize = 96;
const CHECKSUM_BYTES: u64 = 32;

/// An open file whose checksum holds and whose transcript is read.
pub(super) struct State {
    path: PathBuf,
    file: File,
    body: u64,
    pub(super) transcript: Transcript,
}

/// Which vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Query {
    H,
    L,
}

impl Query {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::H => "H",
            Self::L => "L",
        }
    }
}

impl State {
    pub(super) fn open(path: &Path) -> Result<Self, CeremonyError> {
        let refuse = refused(path);
        let mut file = File::open(path).map_err(io(path))?;
        let length = file.metadata().map_err(io(path))?.len();
        let mut head = [0; 12];
        let short = Refusal::Size { got: length, want: head.len() as u64 + CHECKSUM_BYTES };
        if length < head.len() as u64 + CHECKSUM_BYTES {
            return Err(refuse(short));
        }
        file.read_exact(&mut head).map_err(io(path))?;
        if head[..8] != MAGIC {
            return Err(refuse(Refusal::Magic("ceremony file")));
        }
        let transcript = u32::from_le_bytes(head[8..].try_into().expect("four bytes"));
        if transcript as usize > TRANSCRIPT_BYTES_MAX {
            let (got, max) = (transcript.into(), TRANSCRIPT_BYTES_MAX as u64);
            return Err(refuse(Refusal::Limit { what: "the length of the transcript", got, max }));
        }
        let body = head.len() as u64 + u64::from(transcript);
        if length < body + CHECKSUM_BYTES {
            return Err(refuse(Refusal::Size { got: length, want: body + CHECKSUM_BYTES }));
        }
        let mut bytes = vec![0; transcript as usize];
        file.read_exact(&mut bytes).map_err(io(path))?;
        let transcript = Transcript::read(&bytes).map_err(&refuse)?;
        let mut state = Self { path: path.to_owned(), file, body, transcript };
        let want = body + (state.count(Query::H) + state.count(Query::L)) * G1_BYTES as u64 + CHECKSUM_BYTES;
        if length != want {
            return Err(refuse(Refusal::Size { got: length, want }));
        }
        state.checksum(length - CHECKSUM_BYTES)?;
        Ok(state)
    }

    fn checksum(&mut self, end: u64) -> Result<(), CeremonyError> {
        let mut hasher = blake3::Hasher::new();
        let mut checksum = [0; CHECKSUM_BYTES as usize];
        let mut hash = || -> io::Result<()> {
            self.file.seek(SeekFrom::Start(0))?;
            io::copy(&mut BufReader::with_capacity(1 << 20, &mut self.file).take(end), &mut hasher)?;
            self.file.seek(SeekFrom::Start(end))?;
            self.file.read_exact(&mut checksum)
        };
        hash().map_err(io(&self.path))?;
        if hasher.finalize() == blake3::Hash::from_bytes(checksum) {
            Ok(())
        } else {
            Err(refused(&self.path)(Refusal::Checksum))
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn count(&self, query: Query) -> u64 {
        match query {
            Query::H => (1 << self.transcript.head.log2) - 1,
            Query::L => self.transcript.head.witnesses.into(),
        }
    }

    /// Points of a vector, checked, in pieces with the place of their first.
    pub(super) fn pieces(
        &mut self,
        query: Query,
        mut each: impl FnMut(u64, Vec<G1Affine>) -> Result<(), CeremonyError>,
    ) -> Result<(), CeremonyError> {
        let skip = if query == Query::H { 0 } else { self.count(Query::H) };
        self.file.seek(SeekFrom::Start(self.body + skip * G1_BYTES as u64)).map_err(io(&self.path))?;
        let (mut from, count) = (0, self.count(query));
        let mut bytes = vec![0; CHUNK * G1_BYTES];
        while from < count {
            let n = (count - from).min(CHUNK as u64);
            let piece = &mut bytes[..n as usize * G1_BYTES];
            self.file.read_exact(piece).map_err(io(&self.path))?;
            each(from, decode(piece, Compress::No, query.name(), from).map_err(refused(&self.path))?)?;
            from += n;
        }
        Ok(())
    }
}

/// A file being written.
pub(super) struct Writer(Output);

impl Writer {
    pub(super) fn create(path: &Path, transcript: &Transcript) -> Result<Self, CeremonyError> {
        let mut out = Output::create(path)?;
        let bytes = transcript.bytes();
        out.write(&MAGIC)?;
        out.write(&(bytes.len() as u32).to_le_bytes())?;
        out.write(&bytes)?;
        Ok(Self(out))
    }

    /// H whole, then L whole.
    pub(super) fn points(&mut self, points: &[G1Affine]) -> Result<(), CeremonyError> {
        points.chunks(CHUNK).try_for_each(|p| self.0.write(&encode(p, Compress::No)))
    }

    pub(super) fn finish(mut self) -> Result<(), CeremonyError> {
        let checksum = self.0.blake3();
        self.0.write(&checksum)?;
        self.0.finish().map(|_| ())
    }
}
