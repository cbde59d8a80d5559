//! Phase 1 in Lagrange form for one size, in the published format `phase1radix2m<k>`.
//!
//! ```text
//! uncompressed    alpha G | beta G | beta H | L_i G, i < m | L_i H | alpha L_i G | beta L_i G | tau^i (tau^m - 1) G, i < m - 1        m = 2^k
//! ```
//! where `L_i` is the i-th Lagrange polynomial over the m-th roots of unity, at tau. The length is 288 + 576 m, so it tells k.
//! Checks   L is a basis change of powers: `P_k = sum_i w^(ik) L_i`. So `sum rho_k P_k` and `sum rho_k P_(k+1)` are combinations of the `L_i`
//!          by the transform of rho, one multi-exponentiation each; their ratio is tau's, and `P_0` is what it must be. No group transform
//!          is needed to check, and each point has its part in an equation.
//! Source   github.com/filecoin-project/filecoin-phase2 src/lib.rs `MPCParameters::new`, which reads it; github.com/ebfull/phase2 before

use super::error::{CeremonyError, Refusal, io, refused};
use super::output::{Output, blake2_of};
use super::phase1::{Layout, Powers, Section, check_powers};
use super::points::{Point, decode, encode, size};
use super::ratio::{Shifted, coefficients, combine, same};
use super::{CHUNK, CIRCUIT_POWER_MAX, Progress, Random};
use ark_bls12_381::{Bls12_381, Fr, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::pairing::Pairing;
use ark_ec::{AffineRepr, CurveGroup, VariableBaseMSM};
use ark_ff::Zero;
use ark_poly::{EvaluationDomain, Radix2EvaluationDomain};
use ark_serialize::Compress;
use blake2::{Blake2b512, Digest};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Phase 1 for circuits of up to `m` rows, checked.
pub(super) struct Radix {
    pub(super) log2: u32,
    /// BLAKE2b-512 of the file.
    pub(super) hash: [u8; 64],
    pub(super) alpha_g1: G1Affine,
    pub(super) beta_g1: G1Affine,
    pub(super) beta_g2: G2Affine,
    pub(super) l_g1: Vec<G1Affine>,
    pub(super) l_g2: Vec<G2Affine>,
    pub(super) alpha_l: Vec<G1Affine>,
    pub(super) beta_l: Vec<G1Affine>,
    pub(super) h: Vec<G1Affine>,
}

/// Bytes of a file for 2^`log2` rows.
pub(super) const fn length(log2: u32) -> u64 {
    288 + (576 << log2)
}

fn log2_of(length_bytes: u64) -> Option<u32> {
    (1..=CIRCUIT_POWER_MAX).find(|k| length(*k) == length_bytes)
}

fn domain(log2: u32) -> Radix2EvaluationDomain<Fr> {
    Radix2EvaluationDomain::new(1 << log2).expect("the field has 2^32 roots of unity")
}

impl Radix {
    /// Reads a file and checks all of it.
    pub(super) fn read(path: &Path, rng: &mut dyn Random, progress: Progress<'_>) -> Result<Self, CeremonyError> {
        let mut file = File::open(path).map_err(io(path))?;
        let bytes = file.metadata().map_err(io(path))?.len();
        let log2 = log2_of(bytes).ok_or(Refusal::Length(bytes)).map_err(refused(path))?;
        let m = 1usize << log2;
        let mut reader = Reader { path, file: &mut file, hasher: Blake2b512::new() };
        let [alpha_g1, beta_g1]: [G1Affine; 2] =
            reader.points("alpha and beta in G1", 2, progress)?.try_into().expect("two were asked for");
        let beta_g2 = reader.points::<G2Affine>("beta in G2", 1, progress)?[0];
        let l_g1 = reader.points("Lagrange in G1", m, progress)?;
        let l_g2 = reader.points("Lagrange in G2", m, progress)?;
        let alpha_l = reader.points("Lagrange with alpha", m, progress)?;
        let beta_l = reader.points("Lagrange with beta", m, progress)?;
        let h = reader.points("H", m - 1, progress)?;
        let hash = reader.hasher.finalize().into();
        let radix = Self { log2, hash, alpha_g1, beta_g1, beta_g2, l_g1, l_g2, alpha_l, beta_l, h };
        progress("checking powers", 0, 0);
        radix.check(rng).map_err(|what| refused(path)(Refusal::Relation(what)))?;
        Ok(radix)
    }

    fn check(&self, rng: &mut dyn Random) -> Result<(), &'static str> {
        let holds = |ok: bool, what| if ok { Ok(()) } else { Err(what) };
        let (g, h) = (G1Affine::generator(), G2Affine::generator());
        let (m, domain) = (1usize << self.log2, domain(self.log2));
        let roots: Vec<Fr> = domain.elements().collect();
        let tau_g1 = combine::<G1Projective>(&self.l_g1, &roots).into_affine();
        let tau_g2 = combine::<G2Projective>(&self.l_g2, &roots).into_affine();
        let sum_g1 = |v: &[G1Affine]| v.iter().fold(G1Projective::zero(), |s, p| s + p).into_affine();
        let sum_g2 = self.l_g2.iter().fold(G2Projective::zero(), |s, p| s + p).into_affine();
        holds(sum_g1(&self.l_g1) == g, "the Lagrange points in G1 do not add up to the generator")?;
        holds(sum_g2 == h, "the Lagrange points in G2 do not add up to the generator")?;
        holds(sum_g1(&self.alpha_l) == self.alpha_g1, "the Lagrange points with alpha do not add up to alpha")?;
        holds(sum_g1(&self.beta_l) == self.beta_g1, "the Lagrange points with beta do not add up to beta")?;
        holds(same((g, tau_g1), (h, tau_g2)), "tau in G1 is not tau in G2")?;
        holds(same((g, self.beta_g1), (h, self.beta_g2)), "beta in G1 is not beta in G2")?;
        holds(tau_g1 != g && self.alpha_g1 != g && self.beta_g1 != g, "tau, alpha or beta is 1: nobody contributed")?;

        // rho_0 .. rho_(m-2) and a zero, transformed; times the roots it is that of rho moved up by one.
        let mut rho = coefficients(m - 1, rng);
        rho.push(Fr::zero());
        let low = domain.fft(&rho);
        let high: Vec<Fr> = low.iter().zip(&roots).map(|(l, w)| *l * w).collect();
        for (v, what) in [
            (&self.l_g1, "the Lagrange points in G1 are not of powers of tau"),
            (&self.alpha_l, "the Lagrange points with alpha are not of powers of tau"),
            (&self.beta_l, "the Lagrange points with beta are not of powers of tau"),
        ] {
            let pair =
                (combine::<G1Projective>(v, &low).into_affine(), combine::<G1Projective>(v, &high).into_affine());
            holds(same(pair, (h, tau_g2)), what)?;
        }
        let pair = (
            combine::<G2Projective>(&self.l_g2, &low).into_affine(),
            combine::<G2Projective>(&self.l_g2, &high).into_affine(),
        );
        holds(same((g, tau_g1), pair), "the Lagrange points in G2 are not of powers of tau")?;

        // h_i = tau^i (tau^m - 1): the first by tau^(m-1) = sum w^-i L_i, the others as powers.
        let inverse: Vec<Fr> = std::iter::once(roots[0]).chain(roots[1..].iter().rev().copied()).collect();
        let tau_last = combine::<G1Projective>(&self.l_g1, &inverse).into_affine();
        let first = Bls12_381::multi_pairing([-self.h[0], tau_last, -g], [h, tau_g2, h]);
        holds(first.is_zero(), "H does not begin with tau^m - 1")?;
        let mut sum = Shifted::<G1Projective>::new();
        self.h.chunks(CHUNK).for_each(|piece| sum.add(piece, rng));
        holds(same(sum.pair(), (h, tau_g2)), "H is not of powers of tau")
    }
}

struct Reader<'a> {
    path: &'a Path,
    file: &'a mut File,
    hasher: Blake2b512,
}

impl Reader<'_> {
    fn points<P: Point>(
        &mut self,
        what: &'static str,
        count: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<P>, CeremonyError> {
        let mut out = Vec::with_capacity(count);
        let mut bytes = vec![0; CHUNK.min(count) * size::<P>(Compress::No)];
        while out.len() < count {
            let n = (count - out.len()).min(CHUNK);
            let piece = &mut bytes[..n * size::<P>(Compress::No)];
            self.file.read_exact(piece).map_err(io(self.path))?;
            self.hasher.update(&piece);
            out.extend(decode::<P>(piece, Compress::No, what, out.len() as u64).map_err(refused(self.path))?);
            progress(what, out.len() as u64, count as u64);
        }
        Ok(out)
    }
}

/// What a phase-1 file was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// `phase1radix2m<k>`, used as it is.
    Radix,
    /// A challenge: an accumulator with uncompressed points.
    Challenge,
    /// A response: an accumulator with compressed points, and its maker's public key.
    Response,
}

/// A phase 1 that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What the source is.
    pub origin: Origin,
    /// It holds 2^this powers.
    pub power: u32,
    /// The new file serves circuits of up to 2^this rows.
    pub log2: u32,
    /// BLAKE2b-512 of the source: to compare with what its ceremony published.
    pub source_hash: [u8; 64],
    /// BLAKE2b-512 of the new file: what phase 2 names.
    pub hash: [u8; 64],
}

/// Reads a published phase 1 (its kind and power follow from its length), checks the powers that a circuit of 2^`log2` rows needs, and
/// writes them as `phase1radix2m<log2>`.
///
/// That the powers are well formed says nothing of who knows tau: compare the source's hash with what its ceremony published, by `expect`.
///
/// # Errors
/// [`CeremonyError::Refused`] with the first thing that is wrong, [`Refusal::Hash`] before anything else.
pub fn import(
    source: &Path,
    out: &Path,
    log2: u32,
    expect: Option<&[u8; 64]>,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Imported, CeremonyError> {
    if !(1..=CIRCUIT_POWER_MAX).contains(&log2) {
        let (got, max) = (log2.into(), CIRCUIT_POWER_MAX.into());
        return Err(CeremonyError::Limit { what: "log2 of the rows", got, min: 1, max });
    }
    let bytes = std::fs::metadata(source).map_err(io(source))?.len();
    let radix = log2_of(bytes);
    if radix.is_none() && Layout::of_length(bytes).is_none() {
        return Err(refused(source)(Refusal::Length(bytes)));
    }
    let source_hash = blake2_of(source, progress)?;
    if let Some(want) = expect.filter(|want| **want != source_hash) {
        let why = Refusal::Hash { got: hex::encode(source_hash), want: hex::encode(want) };
        return Err(refused(source)(why));
    }
    if let Some(has) = radix {
        if has != log2 {
            return Err(refused(source)(Refusal::TooSmall { has, need: log2 }));
        }
        let radix = Radix::read(source, rng, progress)?;
        let hash = write(out, &radix, progress)?;
        assert_eq!(hash, radix.hash, "points have one encoding");
        return Ok(Imported { origin: Origin::Radix, power: log2, log2, source_hash, hash });
    }
    let mut powers = Powers::open(source)?;
    let power = powers.layout.power;
    if power < log2 {
        return Err(refused(source)(Refusal::TooSmall { has: power, need: log2 }));
    }
    let origin = if powers.layout.is_response() { Origin::Response } else { Origin::Challenge };
    let radix = transform(&mut powers, source, log2, rng, progress)?;
    let hash = write(out, &radix, progress)?;
    Ok(Imported { origin, power, log2, source_hash, hash })
}

/// Powers to Lagrange form: an inverse transform in each group.
fn transform(
    powers: &mut Powers,
    source: &Path,
    log2: u32,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Radix, CeremonyError> {
    let (m, domain) = (1usize << log2, domain(log2));
    let (mut tau, mut alpha, mut beta, mut tau_g2, mut beta_g2) = (vec![], vec![], vec![], vec![], None);
    check_powers(
        powers,
        m as u64,
        rng,
        progress,
        |section, piece| {
            match section {
                Section::TauG1 => &mut tau,
                Section::AlphaTauG1 => &mut alpha,
                _ => &mut beta,
            }
            .extend(piece);
            Ok(())
        },
        |section, piece| {
            if section == Section::BetaG2 {
                beta_g2 = piece.first().copied();
            } else {
                tau_g2.extend(piece);
            }
            Ok(())
        },
    )?;
    let trivial = |what| refused(source)(Refusal::Relation(what));
    if tau[1] == tau[0] || alpha[0] == tau[0] || beta[0] == tau[0] {
        return Err(trivial("tau, alpha or beta is 1: nobody contributed"));
    }
    let h: Vec<G1Projective> = (0..m - 1).map(|i| tau[i + m] - tau[i]).collect();
    let h = G1Projective::normalize_batch(&h);
    let (alpha_g1, beta_g1) = (alpha[0], beta[0]);
    let mut step = |n| progress("to Lagrange form", n, 4);
    step(0);
    let l_g1 = lagrange::<G1Projective>(&domain, &tau[..m]);
    step(1);
    let l_g2 = lagrange::<G2Projective>(&domain, &tau_g2);
    step(2);
    let alpha_l = lagrange::<G1Projective>(&domain, &alpha);
    step(3);
    let beta_l = lagrange::<G1Projective>(&domain, &beta);
    step(4);
    if h.iter().chain(&l_g1).any(AffineRepr::is_zero) {
        return Err(trivial("tau is a root of unity of this size"));
    }
    let beta_g2 = beta_g2.expect("the check ends with beta in G2");
    let hash = [0; 64];
    Ok(Radix { log2, hash, alpha_g1, beta_g1, beta_g2, l_g1, l_g2, alpha_l, beta_l, h })
}

fn lagrange<G>(domain: &Radix2EvaluationDomain<Fr>, powers: &[G::Affine]) -> Vec<G::Affine>
where
    G: CurveGroup<ScalarField = Fr> + VariableBaseMSM,
{
    let mut v: Vec<G> = powers.iter().map(|p| (*p).into()).collect();
    domain.ifft_in_place(&mut v);
    G::normalize_batch(&v)
}

fn write(path: &Path, radix: &Radix, progress: Progress<'_>) -> Result<[u8; 64], CeremonyError> {
    let mut out = Output::create(path)?;
    out.write(&encode(&[radix.alpha_g1, radix.beta_g1], Compress::No))?;
    out.write(&encode(&[radix.beta_g2], Compress::No))?;
    let g1 = |out: &mut Output, v: &[G1Affine]| v.chunks(CHUNK).try_for_each(|p| out.write(&encode(p, Compress::No)));
    progress("writing", 0, 0);
    g1(&mut out, &radix.l_g1)?;
    radix.l_g2.chunks(CHUNK).try_for_each(|p| out.write(&encode(p, Compress::No)))?;
    g1(&mut out, &radix.alpha_l)?;
    g1(&mut out, &radix.beta_l)?;
    g1(&mut out, &radix.h)?;
    out.finish()
}
