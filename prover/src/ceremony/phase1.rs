//! Phase 1 in the published layout of "powers of tau": challenges and responses, written, read and checked in pieces.
//!
//! ```text
//! challenge   64 BLAKE2b-512 of the response before (of nothing, at first) | accumulator, uncompressed
//! response    64 BLAKE2b-512 of the challenge | accumulator, compressed | public key
//! accumulator tau^i G, i < 2n - 1 | tau^i H, i < n | alpha tau^i G, i < n | beta tau^i G, i < n | beta H        n = 2^power
//! public key  uncompressed: (s, s x) in G1 for tau, alpha, beta; then r x in G2 for each
//! ```
//! Power    follows from the file's length, and so does which of the two it is
//! Memory   two pieces of 2^13 points, whatever the power
//! Source   github.com/ebfull/powersoftau src/lib.rs (Zcash, power 21; Filecoin, power 27)
//! Deviation r is hashed to G2 by RFC 9380 (`knowledge.rs`), so `verify` says nothing of the published contributions; what `import` takes of
//!          theirs is the result, whose hash is published

use super::error::{CeremonyError, Refusal, io, refused};
use super::knowledge::{ENTROPY_BYTES_MAX, Knowledge, secrets};
use super::output::{Output, blake2_of};
use super::points::{Point, decode, decode_single, encode, size};
use super::ratio::{Shifted, same};
use super::{CHUNK, POWER_MAX, Progress, Random};
use ark_bls12_381::{Fr, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{Field, One};
use ark_serialize::Compress;
use blake2::{Blake2b512, Digest};
use rayon::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub(super) const HASH_BYTES: u64 = 64;
const PUBLIC_KEY_BYTES: u64 = 6 * 96 + 3 * 192;

/// A vector of the accumulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    TauG1,
    TauG2,
    AlphaTauG1,
    BetaTauG1,
    BetaG2,
}

impl Section {
    const fn name(self) -> &'static str {
        match self {
            Self::TauG1 => "tau in G1",
            Self::TauG2 => "tau in G2",
            Self::AlphaTauG1 => "alpha tau in G1",
            Self::BetaTauG1 => "beta tau in G1",
            Self::BetaG2 => "beta in G2",
        }
    }
}

/// Where everything is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) power: u32,
    pub(super) compress: Compress,
}

impl Layout {
    /// By the length of a file.
    pub(super) fn of_length(length: u64) -> Option<Self> {
        (1..=POWER_MAX)
            .flat_map(|power| [Compress::No, Compress::Yes].map(|compress| Self { power, compress }))
            .find(|l| l.length() == length)
    }

    fn g1(self) -> u64 {
        size::<G1Affine>(self.compress) as u64
    }

    fn g2(self) -> u64 {
        size::<G2Affine>(self.compress) as u64
    }

    pub(super) fn count(self, section: Section) -> u64 {
        let n = 1 << self.power;
        match section {
            Section::TauG1 => 2 * n - 1,
            Section::BetaG2 => 1,
            _ => n,
        }
    }

    fn offset(self, section: Section) -> u64 {
        let n: u64 = 1 << self.power;
        HASH_BYTES
            + match section {
                Section::TauG1 => 0,
                Section::TauG2 => (2 * n - 1) * self.g1(),
                Section::AlphaTauG1 => (2 * n - 1) * self.g1() + n * self.g2(),
                Section::BetaTauG1 => (3 * n - 1) * self.g1() + n * self.g2(),
                Section::BetaG2 => (4 * n - 1) * self.g1() + n * self.g2(),
            }
    }

    fn end(self) -> u64 {
        self.offset(Section::BetaG2) + self.g2()
    }

    /// Of the file: only responses are compressed, and only they have a public key.
    pub(super) fn length(self) -> u64 {
        self.end() + if self.compress == Compress::Yes { PUBLIC_KEY_BYTES } else { 0 }
    }

    pub(super) fn is_response(self) -> bool {
        self.compress == Compress::Yes
    }
}

/// An open challenge or response.
pub(super) struct Powers {
    path: PathBuf,
    file: File,
    pub(super) layout: Layout,
}

impl Powers {
    pub(super) fn open(path: &Path) -> Result<Self, CeremonyError> {
        let file = File::open(path).map_err(io(path))?;
        let length = file.metadata().map_err(io(path))?.len();
        let layout = Layout::of_length(length).ok_or(Refusal::Length(length)).map_err(refused(path))?;
        Ok(Self { path: path.to_owned(), file, layout })
    }

    fn bytes(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, CeremonyError> {
        let mut bytes = vec![0; length];
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(io(&self.path))?;
        Ok(bytes)
    }

    /// Points `from ..` of a vector, `count` of them, checked.
    pub(super) fn read<P: Point>(&mut self, section: Section, from: u64, count: u64) -> Result<Vec<P>, CeremonyError> {
        let size = size::<P>(self.layout.compress);
        assert!(from + count <= self.layout.count(section), "a vector is read within its length");
        let bytes = self.bytes(self.layout.offset(section) + from * size as u64, size * count as usize)?;
        decode(&bytes, self.layout.compress, section.name(), from).map_err(refused(&self.path))
    }

    pub(super) fn first<P: Point>(&mut self, section: Section) -> Result<P, CeremonyError> {
        Ok(self.read(section, 0, 1)?[0])
    }

    /// A vector's first `count` points in pieces.
    pub(super) fn pieces<P: Point>(
        &mut self,
        section: Section,
        count: u64,
        progress: Progress<'_>,
        mut each: impl FnMut(u64, Vec<P>) -> Result<(), CeremonyError>,
    ) -> Result<(), CeremonyError> {
        let mut from = 0;
        while from < count {
            let n = (count - from).min(CHUNK as u64);
            let piece = self.read(section, from, n)?;
            each(from, piece)?;
            from += n;
            progress(section.name(), from, count);
        }
        Ok(())
    }
}

/// Checks the first `n` powers of an accumulator (2n - 1 in G1) for one tau, alpha, beta throughout; hands each piece on as it comes.
pub(super) fn check_powers(
    powers: &mut Powers,
    n: u64,
    rng: &mut dyn Random,
    progress: Progress<'_>,
    mut g1: impl FnMut(Section, Vec<G1Affine>) -> Result<(), CeremonyError>,
    mut g2: impl FnMut(Section, Vec<G2Affine>) -> Result<(), CeremonyError>,
) -> Result<(), CeremonyError> {
    let path = powers.path.clone();
    let holds = |ok: bool, what| if ok { Ok(()) } else { Err(refused(&path)(Refusal::Relation(what))) };
    let one = (G1Affine::generator(), G2Affine::generator());
    let tau = (powers.read::<G1Affine>(Section::TauG1, 1, 1)?[0], powers.read::<G2Affine>(Section::TauG2, 1, 1)?[0]);
    holds(powers.first::<G1Affine>(Section::TauG1)? == one.0, "the powers in G1 do not begin with the generator")?;
    holds(powers.first::<G2Affine>(Section::TauG2)? == one.1, "the powers in G2 do not begin with the generator")?;
    holds(same((one.0, tau.0), (one.1, tau.1)), "tau in G1 is not tau in G2")?;
    for section in [Section::TauG1, Section::TauG2, Section::AlphaTauG1, Section::BetaTauG1] {
        if section == Section::TauG2 {
            let mut sum = Shifted::<G2Projective>::new();
            powers.pieces(section, n, progress, |_, piece: Vec<G2Affine>| {
                sum.add(&piece, rng);
                g2(section, piece)
            })?;
            holds(same((one.0, tau.0), sum.pair()), "the powers of tau in G2 are not powers")?;
        } else {
            let count = if section == Section::TauG1 { 2 * n - 1 } else { n };
            let mut sum = Shifted::<G1Projective>::new();
            powers.pieces(section, count, progress, |_, piece: Vec<G1Affine>| {
                sum.add(&piece, rng);
                g1(section, piece)
            })?;
            let what = match section {
                Section::TauG1 => "the powers of tau in G1 are not powers",
                Section::AlphaTauG1 => "the powers with alpha are not powers of tau",
                _ => "the powers with beta are not powers of tau",
            };
            holds(same(sum.pair(), (one.1, tau.1)), what)?;
        }
    }
    let beta = (powers.first::<G1Affine>(Section::BetaTauG1)?, powers.first::<G2Affine>(Section::BetaG2)?);
    holds(same((one.0, beta.0), (one.1, beta.1)), "beta in G1 is not beta in G2")?;
    g2(Section::BetaG2, vec![beta.1])
}

fn power(power: u32) -> Result<u32, CeremonyError> {
    if (1..=POWER_MAX).contains(&power) {
        Ok(power)
    } else {
        Err(CeremonyError::Limit { what: "the power", got: power.into(), min: 1, max: POWER_MAX.into() })
    }
}

/// Writes the first challenge of a phase 1 of 2^`power` powers: tau, alpha and beta are 1. Gives its BLAKE2b-512.
///
/// # Errors
/// [`CeremonyError`]: a power beyond its limits, or the file.
pub fn create(path: &Path, power_log2: u32, progress: Progress<'_>) -> Result<[u8; 64], CeremonyError> {
    let layout = Layout { power: power(power_log2)?, compress: Compress::No };
    let mut out = Output::create(path)?;
    out.write(&Blake2b512::digest([]))?;
    let (g1, g2) = (encode(&[G1Affine::generator()], Compress::No), encode(&[G2Affine::generator()], Compress::No));
    for section in [Section::TauG1, Section::TauG2, Section::AlphaTauG1, Section::BetaTauG1, Section::BetaG2] {
        let one = if matches!(section, Section::TauG2 | Section::BetaG2) { &g2 } else { &g1 };
        let (mut left, count) = (layout.count(section), layout.count(section));
        while left > 0 {
            let n = left.min(CHUNK as u64);
            out.write(&one.repeat(n as usize))?;
            left -= n;
            progress(section.name(), count - left, count);
        }
    }
    out.finish()
}

/// A contribution to phase 1.
#[derive(Clone, Copy, Debug)]
pub struct Contributed1 {
    /// 2^power powers.
    pub power: u32,
    /// BLAKE2b-512 of the challenge.
    pub challenge: [u8; 64],
    /// BLAKE2b-512 of the response: what the contributor publishes.
    pub response: [u8; 64],
}

fn message(personalization: u8, digest: &[u8; 64]) -> impl Fn(&G1Affine, &G1Affine) -> Vec<u8> + '_ {
    move |s, s_x| [&[personalization], &digest[..], &encode(&[*s, *s_x], Compress::No)].concat()
}

/// Multiplies piece by piece: `point_i * factor * x^i`.
fn raised<P: Point>(piece: &[P], from: u64, x: &Fr, factor: &Fr) -> Vec<P>
where
    P::Group: CurveGroup<Affine = P>,
{
    let start = x.pow([from]) * factor;
    let step = 256;
    let products: Vec<P::Group> = piece
        .par_chunks(step)
        .enumerate()
        .flat_map_iter(|(i, part)| {
            let mut by = start * x.pow([(i * step) as u64]);
            part.iter().map(move |p| {
                let product = *p * by;
                by *= x;
                product
            })
        })
        .collect();
    P::Group::normalize_batch(&products)
}

/// Answers a challenge with fresh secrets: writes the response.
///
/// # Errors
/// [`CeremonyError`]: a challenge that is none, with its reason, or a file. Points are checked; whether they are powers is for [`verify`].
pub fn contribute(
    challenge: &Path,
    response: &Path,
    text: &[u8],
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Contributed1, CeremonyError> {
    entropy_limit(text)?;
    let mut before = Powers::open(challenge)?;
    if before.layout.is_response() {
        return Err(refused(challenge)(Refusal::Magic("challenge")));
    }
    let digest = blake2_of(challenge, progress)?;
    let mut out = Output::create(response)?;
    let secret = secrets(6, text, rng);
    let [tau, alpha, beta] = [0, 1, 2].map(|i| &*secret[i]);
    let keys: Vec<Knowledge> = (0..3)
        .map(|i| {
            let s = (G1Affine::generator() * *secret[3 + i]).into_affine();
            Knowledge::of(&secret[i], s, message(i as u8, &digest))
        })
        .collect();
    out.write(&digest)?;
    let one = Fr::one();
    let layout = before.layout;
    for (section, factor) in
        [(Section::TauG1, &one), (Section::TauG2, &one), (Section::AlphaTauG1, alpha), (Section::BetaTauG1, beta)]
    {
        if section == Section::TauG2 {
            before.pieces(section, layout.count(section), progress, |from, piece: Vec<G2Affine>| {
                out.write(&encode(&raised(&piece, from, tau, factor), Compress::Yes))
            })?;
        } else {
            before.pieces(section, layout.count(section), progress, |from, piece: Vec<G1Affine>| {
                out.write(&encode(&raised(&piece, from, tau, factor), Compress::Yes))
            })?;
        }
    }
    let beta_g2 = (before.first::<G2Affine>(Section::BetaG2)? * beta).into_affine();
    out.write(&encode(&[beta_g2], Compress::Yes))?;
    for key in &keys {
        out.write(&encode(&[key.s, key.s_x], Compress::No))?;
    }
    for key in &keys {
        out.write(&encode(&[key.r_x], Compress::No))?;
    }
    Ok(Contributed1 { power: layout.power, challenge: digest, response: out.finish()? })
}

/// Checks a response against its challenge, and writes the next challenge if it holds.
///
/// # Errors
/// [`CeremonyError::Refused`] with the first thing that is wrong.
pub fn verify(
    challenge: &Path,
    response: &Path,
    next: Option<&Path>,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Contributed1, CeremonyError> {
    let (mut before, mut after) = (Powers::open(challenge)?, Powers::open(response)?);
    let refuse = |why| Err(refused(response)(why));
    if before.layout.is_response() {
        return Err(refused(challenge)(Refusal::Magic("challenge")));
    }
    if !after.layout.is_response() {
        return refuse(Refusal::Magic("response"));
    }
    if before.layout.power != after.layout.power {
        return refuse(Refusal::TooSmall { has: after.layout.power, need: before.layout.power });
    }
    let digest = blake2_of(challenge, progress)?;
    if after.bytes(0, HASH_BYTES as usize)? != digest {
        return refuse(Refusal::Challenge);
    }
    let keys = public_key(&mut after)?;
    let mut ratios = Vec::with_capacity(3);
    for (i, what) in ["tau", "alpha", "beta"].into_iter().enumerate() {
        let wrong = |why: &'static str| Refusal::Contribution { number: 1, why };
        let ratio = keys[i].check(message(i as u8, &digest)).ok_or(match what {
            "tau" => wrong("its proof of knowledge of tau does not hold"),
            "alpha" => wrong("its proof of knowledge of alpha does not hold"),
            _ => wrong("its proof of knowledge of beta does not hold"),
        });
        let ratio = ratio.map_err(refused(response))?;
        if keys[i].s == keys[i].s_x {
            return refuse(wrong("its factor is 1: nothing was contributed"));
        }
        ratios.push(ratio);
    }
    let places = [(Section::TauG1, 1), (Section::AlphaTauG1, 0), (Section::BetaTauG1, 0)];
    let reasons = [
        "tau is not the one before times the one proven",
        "alpha is not the one before times the one proven",
        "beta is not the one before times the one proven",
    ];
    for ((ratio, (section, at)), why) in ratios.into_iter().zip(places).zip(reasons) {
        let old = before.read::<G1Affine>(section, at, 1)?[0];
        let new = after.read::<G1Affine>(section, at, 1)?[0];
        if !same((old, new), ratio) {
            return refuse(Refusal::Relation(why));
        }
    }
    let hash = blake2_of(response, progress)?;
    let mut out = next.map(Output::create).transpose()?;
    if let Some(out) = &mut out {
        out.write(&hash)?;
    }
    let out = std::cell::RefCell::new(out);
    let write = |bytes: Vec<u8>| out.borrow_mut().as_mut().map_or(Ok(()), |out| out.write(&bytes));
    check_powers(
        &mut after,
        1 << before.layout.power,
        rng,
        progress,
        |_, piece| write(encode(&piece, Compress::No)),
        |_, piece| write(encode(&piece, Compress::No)),
    )?;
    if let Some(out) = out.into_inner() {
        out.finish()?;
    }
    Ok(Contributed1 { power: before.layout.power, challenge: digest, response: hash })
}

fn public_key(response: &mut Powers) -> Result<[Knowledge; 3], CeremonyError> {
    let bytes = response.bytes(response.layout.end(), PUBLIC_KEY_BYTES as usize)?;
    let refuse = refused(&response.path);
    let g1 = decode::<G1Affine>(&bytes[..6 * 96], Compress::No, "public key in G1", 0).map_err(&refuse)?;
    let g2 = |i: usize| {
        let at = 6 * 96 + 192 * i;
        decode_single::<G2Affine>(&bytes[at..at + 192], Compress::No, "public key in G2").map_err(&refuse)
    };
    let key = |i: usize| Ok::<_, CeremonyError>(Knowledge { s: g1[2 * i], s_x: g1[2 * i + 1], r_x: g2(i)? });
    Ok([key(0)?, key(1)?, key(2)?])
}

pub(super) fn entropy_limit(text: &[u8]) -> Result<(), CeremonyError> {
    if text.len() > ENTROPY_BYTES_MAX {
        let (got, max) = (text.len() as u64, ENTROPY_BYTES_MAX as u64);
        return Err(CeremonyError::Limit { what: "the length of the contributor's text", got, min: 0, max });
    }
    Ok(())
}
