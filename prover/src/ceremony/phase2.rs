//! Phase 2: from the initial key, each contribution multiplies delta by a secret and divides H and L by it.
//!
//! Trust   whoever knows every factor can forge. One contributor who forgot theirs is enough. The beacon at the end is public.
//! Check   H and L are compared with the initial key by one random combination each:
//!         `e(sum rho H', delta H) = e(sum rho H, H)`; so a contribution in the middle needs no vectors kept
//! Source  ePrint 2017/1050, section 6; ePrint 2021/219; github.com/filecoin-project/filecoin-phase2

use super::error::{CeremonyError, Refusal, refused};
use super::initial::{Combination, evaluate, rows_log2};
use super::knowledge::{Knowledge, expand, secrets};
use super::phase1::entropy_limit;
use super::radix::Radix;
use super::ratio::{coefficients, combine, same};
use super::state::{Query, State, Writer};
use super::transcript::{
    BEACON_ITERATIONS_LOG2_MAX, CONTRIBUTIONS_MAX, Contribution, Head, Kind, Transcript, check_name,
};
use super::{Progress, Random};
use ark_bls12_381::{Fr, G1Affine, G1Projective, G2Affine};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{Field, Zero};
use fluence_circuits::pin::Matrices;
use fluence_crypto::domain;
use fluence_types::shape::CircuitId;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;
use zeroize::Zeroizing;

/// Where a ceremony stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The circuit.
    pub circuit: CircuitId,
    /// Hash of its matrices.
    pub matrix_hash: [u8; 32],
    /// BLAKE2b-512 of `phase1radix2m<log2>`.
    pub phase1_hash: [u8; 64],
    /// It has room for 2^this rows.
    pub log2: u32,
    /// What was contributed, in order.
    pub contributions: Vec<Contributed>,
    /// The last is a beacon.
    pub ended: bool,
    /// T_n, which the next contribution is bound to, and the key names in the end.
    pub hash: [u8; 32],
}

/// One contribution, as it is published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contributed {
    /// From 1.
    pub number: usize,
    /// As the contributor gave it; nothing shows that it is theirs but their own publishing the hash.
    pub name: String,
    /// Value and log2 of the iterations, of a beacon.
    pub beacon: Option<([u8; 32], u8)>,
    /// T_n: what the contributor publishes.
    pub hash: [u8; 32],
}

/// A ceremony that was verified.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What was verified.
    pub status: Status,
}

pub(super) fn status_of(transcript: &Transcript) -> Status {
    let hashes = transcript.hashes();
    let contributions = transcript.contributions.iter().enumerate().map(|(i, c)| Contributed {
        number: i + 1,
        name: c.name.clone(),
        beacon: match c.kind {
            Kind::Contributor => None,
            Kind::Beacon { value, iterations_log2 } => Some((value, iterations_log2)),
        },
        hash: hashes[i + 1],
    });
    let head = &transcript.head;
    Status {
        circuit: head.circuit,
        matrix_hash: head.matrix_hash,
        phase1_hash: head.phase1_hash,
        log2: head.log2,
        contributions: contributions.collect(),
        ended: transcript.has_ended(),
        hash: transcript.hash(),
    }
}

/// Starts a ceremony: writes the initial key's H and L with an empty transcript.
///
/// # Errors
/// [`CeremonyError`]: no such circuit, a phase 1 that does not hold or has another size, a file.
pub fn create(
    phase1: &Path,
    circuit: CircuitId,
    out: &Path,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Status, CeremonyError> {
    let matrices = matrices(circuit)?;
    let radix = radix_for(phase1, &matrices, rng, progress)?;
    let head = Head {
        circuit,
        matrix_hash: matrices.hash(),
        phase1_hash: radix.hash,
        log2: radix.log2,
        inputs: matrices.inputs as u32,
        witnesses: matrices.witnesses as u32,
    };
    let initial = evaluate(&matrices, &radix, progress);
    let transcript = Transcript { head, contributions: Vec::new() };
    let mut writer = Writer::create(out, &transcript)?;
    writer.points(&radix.h)?;
    writer.points(&initial.ic_and_l[matrices.inputs..])?;
    writer.finish()?;
    Ok(status_of(&transcript))
}

/// The circuit, if its shape is within what any of ours needs: a shape from a file must not cost what it likes.
pub(super) fn matrices(circuit: CircuitId) -> Result<Matrices, CeremonyError> {
    let bounded = match circuit {
        CircuitId::Storage(s) => {
            s.samples <= 64 && s.holdings_levels <= 8 && s.stored_levels <= 12 && (1..=13).contains(&s.tree_levels)
        }
        CircuitId::RangeSum(s) => s.segments <= 16 && (1..=13).contains(&s.tree_levels),
        _ => false,
    };
    let refuse = || CeremonyError::Circuit(circuit);
    if bounded { Matrices::of(circuit).map_err(|_| refuse()) } else { Err(refuse()) }
}

/// A circuit takes a `phase1radix2m<k>` of just this k.
///
/// # Errors
/// [`CeremonyError::Circuit`].
pub fn log2_rows(circuit: CircuitId) -> Result<u32, CeremonyError> {
    Ok(rows_log2(&matrices(circuit)?))
}

pub(super) fn radix_for(
    phase1: &Path,
    matrices: &Matrices,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Radix, CeremonyError> {
    let radix = Radix::read(phase1, rng, progress)?;
    let need = rows_log2(matrices);
    if radix.log2 == need { Ok(radix) } else { Err(refused(phase1)(Refusal::TooSmall { has: radix.log2, need })) }
}

/// Reads where a ceremony stands: every proof of the transcript is checked, but neither H and L nor a beacon's iterations.
///
/// # Errors
/// [`CeremonyError::Refused`].
pub fn status(state: &Path) -> Result<Status, CeremonyError> {
    let state = State::open(state)?;
    state.transcript.check(false, &mut |_, _, _| ()).map_err(refused(state.path()))?;
    Ok(status_of(&state.transcript))
}

/// Adds a contribution with fresh secrets.
///
/// # Errors
/// [`CeremonyError`]: a file or transcript that does not hold, [`CeremonyError::Ended`], a name or text beyond its limit.
pub fn contribute(
    state: &Path,
    out: &Path,
    name: &str,
    text: &[u8],
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Contributed, CeremonyError> {
    entropy_limit(text)?;
    check_name(name).map_err(refused(out))?;
    let before = open_for_more(state)?;
    let secret = secrets(2, text, rng);
    let s = (G1Affine::generator() * *secret[1]).into_affine();
    let contribution = contribution(&before.transcript, Kind::Contributor, name, &secret[0], s);
    apply(before, out, contribution, &secret[0], progress)
}

/// Ends a ceremony with a public random value that was announced before it was known.
///
/// # Errors
/// As [`contribute`], and [`CeremonyError::Limit`] for the iterations.
pub fn beacon(
    state: &Path,
    out: &Path,
    value: [u8; 32],
    iterations_log2: u8,
    progress: Progress<'_>,
) -> Result<Contributed, CeremonyError> {
    let max = BEACON_ITERATIONS_LOG2_MAX;
    if iterations_log2 > max {
        let (got, max) = (iterations_log2.into(), max.into());
        return Err(CeremonyError::Limit { what: "log2 of the beacon's iterations", got, min: 0, max });
    }
    let before = open_for_more(state)?;
    if before.transcript.contributions.is_empty() {
        return Err(CeremonyError::NoContribution);
    }
    let (contribution, factor) = beacon_contribution(&before.transcript, value, iterations_log2, progress);
    apply(before, out, contribution, &factor, progress)
}

fn open_for_more(path: &Path) -> Result<State, CeremonyError> {
    let state = State::open(path)?;
    if state.transcript.has_ended() {
        return Err(CeremonyError::Ended);
    }
    // The last place is the beacon's.
    let (got, max) = (state.transcript.contributions.len(), CONTRIBUTIONS_MAX - 1);
    if got > max {
        let (got, max) = (got as u64, max as u64);
        return Err(CeremonyError::Limit { what: "the number of contributions", got, min: 0, max });
    }
    state.transcript.check(false, &mut |_, _, _| ()).map_err(refused(path))?;
    Ok(state)
}

fn contribution(before: &Transcript, kind: Kind, name: &str, factor: &Fr, s: G1Affine) -> Contribution {
    let (delta_g1, delta_g2) = before.delta();
    let (delta_g1, delta_g2) = ((delta_g1 * factor).into_affine(), (delta_g2 * factor).into_affine());
    let claim = Contribution::claim(&kind, name, &delta_g1, &delta_g2);
    let proof = Knowledge::of(factor, s, Contribution::message(before.hash(), claim));
    Contribution { kind, name: name.to_owned(), delta_g1, delta_g2, proof }
}

/// The contribution that everyone can make: SHA-256 iterated over the value, expanded with the transcript before it.
pub(super) fn beacon_contribution(
    before: &Transcript,
    value: [u8; 32],
    iterations_log2: u8,
    progress: Progress<'_>,
) -> (Contribution, Zeroizing<Fr>) {
    let (mut hash, total) = (value, 1u64 << iterations_log2);
    for i in 0..total {
        hash = Sha256::digest(hash).into();
        if i % (1 << 22) == 0 {
            progress("iterating the beacon", i, total);
        }
    }
    let mut hasher = blake3::Hasher::new_derive_key(domain::CEREMONY_BEACON);
    hasher.update(&hash).update(&before.hash());
    let scalars = expand(2, &mut hasher.finalize_xof());
    let s = (G1Affine::generator() * *scalars[1]).into_affine();
    let kind = Kind::Beacon { value, iterations_log2 };
    (contribution(before, kind, "beacon", &scalars[0], s), scalars[0].clone())
}

/// Writes the next file: the transcript with one more, H and L divided.
fn apply(
    mut before: State,
    out: &Path,
    contribution: Contribution,
    factor: &Fr,
    progress: Progress<'_>,
) -> Result<Contributed, CeremonyError> {
    let mut transcript = before.transcript.clone();
    transcript.contributions.push(contribution);
    let inverse = Zeroizing::new(factor.inverse().expect("a factor is not 0"));
    let mut writer = Writer::create(out, &transcript)?;
    for query in [Query::H, Query::L] {
        let count = before.count(query);
        before.pieces(query, |from, piece| {
            let products: Vec<G1Projective> = piece.par_iter().map(|p| *p * *inverse).collect();
            let done = from + piece.len() as u64;
            writer.points(&G1Projective::normalize_batch(&products))?;
            progress(query.name(), done, count);
            Ok(())
        })?;
    }
    writer.finish()?;
    Ok(status_of(&transcript).contributions.pop().expect("one was added"))
}

/// Checks a ceremony from its beginning: circuit, phase 1, each contribution, and H and L against the initial key.
///
/// # Errors
/// [`CeremonyError::Refused`] with the first thing that is wrong.
pub fn verify(
    state: &Path,
    phase1: &Path,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Verified, CeremonyError> {
    let mut state = State::open(state)?;
    let matrices = check_head(&state)?;
    let radix = radix_for(phase1, &matrices, rng, progress)?;
    check(&mut state, &matrices, &radix, rng, progress)?;
    Ok(Verified { status: status_of(&state.transcript) })
}

/// The circuit a state claims, built by this program.
pub(super) fn check_head(state: &State) -> Result<Matrices, CeremonyError> {
    let head = &state.transcript.head;
    let refuse = refused(state.path());
    let matrices = self::matrices(head.circuit)?;
    let hash = matrices.hash();
    if head.matrix_hash != hash {
        let name = |h: &[u8; 32]| format!("{} with matrices {}..", head.circuit, hex::encode(&h[..8]));
        return Err(refuse(Refusal::OtherCircuit { got: name(&head.matrix_hash), want: name(&hash) }));
    }
    for (what, got, want) in [
        ("the inputs", u64::from(head.inputs), matrices.inputs as u64),
        ("the witnesses", head.witnesses.into(), matrices.witnesses as u64),
        ("log2 of the rows", head.log2.into(), rows_log2(&matrices).into()),
    ] {
        if got != want {
            return Err(refuse(Refusal::Vectors { what, got, want }));
        }
    }
    Ok(matrices)
}

/// Transcript, H and L against a checked phase 1.
pub(super) fn check(
    state: &mut State,
    matrices: &Matrices,
    radix: &Radix,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<(), CeremonyError> {
    let path = state.path().to_owned();
    let refuse = refused(&path);
    if state.transcript.head.phase1_hash != radix.hash {
        let short = |h: &[u8; 64]| hex::encode(&h[..8]);
        let (got, want) = (short(&state.transcript.head.phase1_hash), short(&radix.hash));
        return Err(refuse(Refusal::OtherPhase1 { got, want }));
    }
    state.transcript.check(true, progress).map_err(&refuse)?;
    let (one, (_, delta)) = (G2Affine::generator(), state.transcript.delta());

    let (mut sum, mut initial) = (G1Projective::zero(), G1Projective::zero());
    let count = state.count(Query::H);
    state.pieces(Query::H, |from, piece| {
        let rho = coefficients(piece.len(), rng);
        sum += combine::<G1Projective>(&piece, &rho);
        initial += combine::<G1Projective>(&radix.h[from as usize..][..piece.len()], &rho);
        progress("checking H", from + piece.len() as u64, count);
        Ok(())
    })?;
    if !same((sum.into_affine(), initial.into_affine()), (one, delta)) {
        return Err(refuse(Refusal::Relation("H is not the initial one divided by delta")));
    }

    let columns = matrices.inputs..matrices.inputs + matrices.witnesses;
    let all = Combination::new(matrices, 1 << radix.log2, columns, rng);
    let (mut sum, count) = (G1Projective::zero(), state.count(Query::L));
    state.pieces(Query::L, |from, piece| {
        let rho = &all.rho[matrices.inputs + from as usize..][..piece.len()];
        sum += combine::<G1Projective>(&piece, rho);
        progress("checking L", from + piece.len() as u64, count);
        Ok(())
    })?;
    progress("combining the initial L", 0, 0);
    if !same((sum.into_affine(), all.ic_and_l(radix)), (one, delta)) {
        return Err(refuse(Refusal::Relation("L is not the initial one divided by delta")));
    }
    Ok(())
}
