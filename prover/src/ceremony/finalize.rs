//! The end: a proving key that is not marked insecure, its verification key, and the transcript, each with the transcript's hash.
//!
//! Rule    everything is verified from the beginning first, and the beacon must have been. What is written is checked again as a stranger would.
//! Trust   a file that says it comes from a ceremony shows nothing: a key is accepted because its hash is in `verifier::known_keys` and
//!         in `CeremonyKeys.sol`, or pinned by a contract, and it gets there by people who ran [`check_key`] themselves.

use super::error::{CeremonyError, Refusal, io, refused};
use super::initial::{Combination, Initial, evaluate};
use super::output::Output;
use super::phase2::{self, Status, check, check_head, radix_for, status_of};
use super::points::Point;
use super::radix::Radix;
use super::ratio::combine;
use super::state::{Query, State};
use super::{Progress, Random};
use crate::file;
use crate::keys::{KeyError, Keys};
use crate::points::KeyPoints;
use crate::rows::Rows;
use ark_bls12_381::{Bls12_381, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::{AffineRepr, CurveGroup};
use ark_groth16::{ProvingKey, VerifyingKey};
use fluence_circuits::pin::Matrices;
use fluence_types::shape::CircuitId;
use fluence_types::{Fingerprint, TranscriptHash};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Clone, Debug)]
pub struct Finalized {
    /// The ceremony.
    pub status: Status,
    /// The proving key, as `proving.keys_dir` holds it.
    pub key: PathBuf,
    /// The verification key, `fluence-vkey/1`.
    pub verification_key: PathBuf,
    /// The transcript alone.
    pub transcript: PathBuf,
    /// BLAKE3 of the verification key.
    pub fingerprint: Fingerprint,
    /// Keccak-256 of it as EIP-2537 points: what contracts pin.
    pub pinned_hash: [u8; 32],
}

/// Verifies a ceremony from its beginning and writes its key into `dir`.
///
/// # Errors
/// [`CeremonyError`]: what [`super::verify`] refuses, a ceremony that has not ended or to which nobody contributed, files that are there already.
pub fn finalize(
    state: &Path,
    phase1: &Path,
    dir: &Path,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Finalized, CeremonyError> {
    let mut state = State::open(state)?;
    let contributions = state.transcript.contributions.len();
    if !state.transcript.has_ended() {
        return Err(CeremonyError::NotEnded { contributions });
    }
    if contributions < 2 {
        return Err(CeremonyError::NoContribution);
    }
    let matrices = check_head(&state)?;
    let radix = radix_for(phase1, &matrices, rng, progress)?;
    check(&mut state, &matrices, &radix, rng, progress)?;

    let id = state.transcript.head.circuit;
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let key = Keys::path(dir, id);
    let (verification_key, transcript) = (key.with_extension("vkey.json"), key.with_extension("transcript"));
    if let Some(path) = [&key, &verification_key, &transcript].into_iter().find(|p| p.exists()) {
        let exists = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "there is a key of this circuit already");
        return Err(io(path)(exists));
    }
    let initial = evaluate(&matrices, &radix, progress);
    let keys = assemble(&mut state, &matrices, &radix, initial)?;
    progress("checking the key", 0, 0);
    let pk = keys.proving_key().map_err(|e| key_error(&key, e))?;
    compare(&keys, pk, &matrices, &mut state, &radix, rng)?.map_err(refused(&key))?;
    let json = serde_json::to_vec_pretty(&crate::export_key(&keys)).expect("a key file is text");
    for (path, bytes) in [(&transcript, state.transcript.bytes()), (&verification_key, json)] {
        let mut out = Output::create(path)?;
        out.write(&bytes)?;
        out.finish()?;
    }
    file::save(&key, &keys).map_err(|e| key_error(&key, e))?;
    let (fingerprint, pinned_hash) = (keys.fingerprint, keys.vk.pinned_hash());
    Ok(Finalized { status: status_of(&state.transcript), key, verification_key, transcript, fingerprint, pinned_hash })
}

fn assemble(state: &mut State, matrices: &Matrices, radix: &Radix, initial: Initial) -> Result<Keys, CeremonyError> {
    let (mut h_query, mut l_query) = (Vec::new(), Vec::new());
    for (query, out) in [(Query::H, &mut h_query), (Query::L, &mut l_query)] {
        state.pieces(query, |_, piece| {
            out.extend(piece);
            Ok(())
        })?;
    }
    let (delta_g1, delta_g2) = state.transcript.delta();
    let gamma_abc_g1 = initial.ic_and_l[..matrices.inputs].to_vec();
    let (alpha_g1, beta_g2, gamma_g2) = (radix.alpha_g1, radix.beta_g2, G2Affine::generator());
    let vk = VerifyingKey { alpha_g1, beta_g2, gamma_g2, delta_g2, gamma_abc_g1 };
    let pk = ProvingKey {
        vk,
        beta_g1: radix.beta_g1,
        delta_g1,
        a_query: initial.a,
        b_g1_query: initial.b_g1,
        b_g2_query: initial.b_g2,
        h_query,
        l_query,
    };
    let mut keys = Keys::of_rows(state.transcript.head.circuit, KeyPoints::of(pk), Rows::of(matrices), matrices.hash());
    keys.insecure_dev = false;
    keys.transcript = Some(TranscriptHash::from_bytes(state.transcript.hash()));
    Ok(keys)
}

/// Checks that a key file in `dir` is what a ceremony made: the ceremony from its beginning, and every point of the key.
///
/// # Errors
/// [`CeremonyError::Refused`] with the first thing that is wrong.
pub fn check_key(
    dir: &Path,
    state: &Path,
    phase1: &Path,
    rng: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<Finalized, CeremonyError> {
    let mut state = State::open(state)?;
    let matrices = check_head(&state)?;
    let radix = radix_for(phase1, &matrices, rng, progress)?;
    check(&mut state, &matrices, &radix, rng, progress)?;
    let key = Keys::path(dir, state.transcript.head.circuit);
    progress("checking the key", 0, 0);
    let keys = file::load(&key, state.transcript.head.circuit).map_err(|e| key_error(&key, e))?;
    let pk = keys.proving_key().map_err(|e| key_error(&key, e))?;
    let valid = valid::<G1Affine>(&[&pk.a_query, &pk.b_g1_query, &pk.h_query, &pk.l_query])
        && valid::<G2Affine>(&[&pk.b_g2_query]);
    if !valid {
        return Err(refused(&key)(Refusal::Relation("a point of the key is off its curve or outside the subgroup")));
    }
    compare(&keys, pk, &matrices, &mut state, &radix, rng)?.map_err(refused(&key))?;
    let (verification_key, transcript) = (key.with_extension("vkey.json"), key.with_extension("transcript"));
    let (fingerprint, pinned_hash) = (keys.fingerprint, keys.vk.pinned_hash());
    Ok(Finalized { status: status_of(&state.transcript), key, verification_key, transcript, fingerprint, pinned_hash })
}

/// Points of A and B may be infinity: variables that a matrix does not use.
fn valid<P: Point>(vectors: &[&Vec<P>]) -> bool {
    vectors.iter().all(|v| v.par_iter().all(|p| p.is_zero() || p.valid()))
}

/// A key against a verified ceremony.
fn compare(
    keys: &Keys,
    pk: &ProvingKey<Bls12_381>,
    matrices: &Matrices,
    state: &mut State,
    radix: &Radix,
    rng: &mut dyn Random,
) -> Result<Result<(), Refusal>, CeremonyError> {
    let vk = &pk.vk;
    let hash = TranscriptHash::from_bytes(state.transcript.hash());
    let (delta_g1, delta_g2) = state.transcript.delta();
    let head = (vk.alpha_g1, pk.beta_g1, vk.beta_g2, vk.gamma_g2, pk.delta_g1, vk.delta_g2);
    let want = (radix.alpha_g1, radix.beta_g1, radix.beta_g2, G2Affine::generator(), delta_g1, delta_g2);
    let (m, variables) = (1 << radix.log2, matrices.inputs + matrices.witnesses);
    let all = Combination::new(matrices, m, 0..variables, rng);
    let a = combine::<G1Projective>(&pk.a_query, &all.rho).into_affine();
    let b = (
        combine::<G1Projective>(&pk.b_g1_query, &all.rho).into_affine(),
        combine::<G2Projective>(&pk.b_g2_query, &all.rho).into_affine(),
    );
    let inputs = Combination::new(matrices, m, 0..matrices.inputs, rng);
    let ic = combine::<G1Projective>(&vk.gamma_abc_g1, &inputs.rho[..matrices.inputs]).into_affine();
    let mut vectors = true;
    for (query, have) in [(Query::H, &pk.h_query), (Query::L, &pk.l_query)] {
        vectors &= have.len() as u64 == state.count(query);
        state.pieces(query, |from, piece| {
            vectors &= have.get(from as usize..from as usize + piece.len()) == Some(&piece[..]);
            Ok(())
        })?;
    }
    let wrong = [
        (keys.transcript != Some(hash) || keys.insecure_dev, "the key names another transcript"),
        (head != want, "alpha, beta, gamma or delta of the key is not the ceremony's"),
        (a != all.a(radix), "A of the key is not the circuit's"),
        (b != all.b(radix), "B of the key is not the circuit's"),
        (ic != inputs.ic_and_l(radix), "IC of the key is not the circuit's"),
        (!vectors, "H or L of the key is not the ceremony's"),
    ];
    Ok(wrong.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, what)| Err(Refusal::Relation(what))))
}

fn key_error(path: &Path, error: KeyError) -> CeremonyError {
    match error {
        KeyError::Io { path, source } => CeremonyError::Io { path, source },
        other => io(path)(std::io::Error::other(other.to_string())),
    }
}

/// Writes a circuit's matrices as the bytes that their pinned hash is of, for a second implementation.
///
/// # Errors
/// [`CeremonyError`]: no such circuit, a file.
pub fn export_matrices(circuit: CircuitId, path: &Path) -> Result<[u8; 32], CeremonyError> {
    let matrices = phase2::matrices(circuit)?;
    let mut out = Output::create(path)?;
    let mut written = Ok(());
    matrices.bytes(&mut |bytes| {
        if written.is_ok() {
            written = out.write(bytes);
        }
    });
    written?;
    let hash = out.blake3();
    out.finish()?;
    Ok(hash)
}
