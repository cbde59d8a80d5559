//! One proof: check natively, compute the assignment, prove, verify, hand out.

use crate::fast::Points;
use crate::keys::{KeyError, Keys, Phase};
use crate::memory::peak_memory_bytes;
use crate::schedule::{Gate, Scheduler};
use ark_bls12_381::{Bls12_381, Fr};
use ark_ff::UniformRand;
use ark_groth16::Groth16;
use ark_relations::gr1cs::{ConstraintSystem, SynthesisError, SynthesisMode};
use fluence_circuits::{Circuit, RangeSumCircuit, StorageCircuit, WitnessError};
use fluence_types::FieldBytes;
use fluence_types::proof::ProofBytes;
use fluence_types::shape::CircuitId;
use fluence_verifier::groth16::{self, Proof, VerifyError};
use rand::rngs::OsRng;
use rand::{CryptoRng, RngCore};
use std::time::Instant;

/// A proof with what it cost.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The proof.
    pub proof: ProofBytes,
    /// Its public inputs, in circuit order.
    pub public_inputs: [FieldBytes; 3],
    /// Constraints of the circuit.
    pub constraints: usize,
    /// Time from the start of the call, waiting for another proof included, in milliseconds.
    pub ms: u64,
    /// Time of the native check and the assignment, in milliseconds.
    pub witness_ms: u64,
    /// Time of the proof itself, in milliseconds.
    pub prove_ms: u64,
    /// Time of the check before handing out, in milliseconds.
    pub verify_ms: u64,
    /// Largest resident set of the process so far, in bytes, where the system says.
    pub peak_memory_bytes: Option<u64>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The key is for another circuit.
    #[error("the key is for {key}, the statement needs {need}")]
    Key {
        /// The key's circuit.
        key: CircuitId,
        /// The statement's.
        need: CircuitId,
    },
    /// The witness does not show the statement.
    #[error("the witness does not show the statement: {0}")]
    Witness(#[from] WitnessError),
    /// The circuit could not be filled.
    #[error("the circuit could not be filled: {0}")]
    Synthesis(#[from] SynthesisError),
    /// The points of the key cannot be read from its file any more.
    #[error(transparent)]
    Points(#[from] KeyError),
    /// A proof of this circuit needs more memory than proofs may have.
    #[error("a proof needs {need} bytes of memory, the limit is {limit}")]
    Memory {
        /// What it needs.
        need: u64,
        /// What there is.
        limit: u64,
    },
    /// The proof did not verify: the native twin accepted what the circuit does not, which is our fault.
    #[error("the proof does not verify ({why}); the first broken constraint is {constraint:?}")]
    Unsound {
        /// What the verifier said.
        why: VerifyError,
        /// Row of the matrices.
        constraint: Option<usize>,
    },
}

/// Proves a statement, one at a time in the process, on all cores: [`Scheduler`] has other ways. Blocking.
///
/// # Errors
/// [`ProveError`]; a false statement is refused before any proving.
pub fn prove<C: Circuit + Send, R: RngCore + CryptoRng + Send>(
    keys: &Keys,
    circuit: C,
    rng: &mut R,
) -> Result<Proved, ProveError> {
    prove_with(keys, circuit, rng, &mut |_| ())
}

/// [`prove_with`] of a storage statement, compiled here: a caller's crate need not be optimised for it.
///
/// # Errors
/// As [`prove`].
pub fn prove_storage(
    keys: &Keys,
    circuit: StorageCircuit,
    progress: &mut (dyn FnMut(Phase) + Send),
) -> Result<Proved, ProveError> {
    prove_with(keys, circuit, &mut OsRng, progress)
}

/// [`prove`] of a range sum, compiled here.
///
/// # Errors
/// As [`prove`].
pub fn prove_range_sum(keys: &Keys, circuit: RangeSumCircuit) -> Result<Proved, ProveError> {
    prove(keys, circuit, &mut OsRng)
}

/// [`prove`], telling what it does.
///
/// # Errors
/// As [`prove`].
pub fn prove_with<C: Circuit + Send, R: RngCore + CryptoRng + Send>(
    keys: &Keys,
    circuit: C,
    rng: &mut R,
    progress: &mut (dyn FnMut(Phase) + Send),
) -> Result<Proved, ProveError> {
    Scheduler::global().prove(keys, circuit, rng, progress)
}

impl Scheduler {
    /// Proves a statement in a slot of this scheduler. Blocking.
    ///
    /// # Errors
    /// [`ProveError`]; a false statement is refused before any proving.
    pub fn prove<C: Circuit + Send, R: RngCore + CryptoRng + Send>(
        &self,
        keys: &Keys,
        circuit: C,
        rng: &mut R,
        progress: &mut (dyn FnMut(Phase) + Send),
    ) -> Result<Proved, ProveError> {
        let start = Instant::now();
        if circuit.id() != keys.id {
            return Err(ProveError::Key { key: keys.id, need: circuit.id() });
        }
        self.run(keys, |gate| prove_now(keys, circuit, rng, progress, gate, start))?
    }

    /// [`Self::prove`] of a storage statement, compiled here: a caller's crate need not be optimised for it.
    ///
    /// # Errors
    /// As [`Self::prove`].
    pub fn prove_storage(
        &self,
        keys: &Keys,
        circuit: StorageCircuit,
        progress: &mut (dyn FnMut(Phase) + Send),
    ) -> Result<Proved, ProveError> {
        self.prove(keys, circuit, &mut OsRng, progress)
    }

    /// [`Self::prove`] of a range sum, compiled here.
    ///
    /// # Errors
    /// As [`Self::prove`].
    pub fn prove_range_sum(&self, keys: &Keys, circuit: RangeSumCircuit) -> Result<Proved, ProveError> {
        self.prove(keys, circuit, &mut OsRng, &mut |_| ())
    }
}

fn prove_now<C: Circuit, R: RngCore + CryptoRng>(
    keys: &Keys,
    circuit: C,
    rng: &mut R,
    progress: &mut (dyn FnMut(Phase) + Send),
    gate: &Gate,
    start: Instant,
) -> Result<Proved, ProveError> {
    let begun = Instant::now();
    progress(Phase::Witness);
    circuit.check()?;
    let public_inputs = circuit.public_inputs().ok_or(WitnessError::Blank)?;
    let assignment = assignment(circuit)?;
    assert_eq!(assignment.len(), keys.assignment_len(), "a circuit has one form, whatever its witness");
    let witness_ms = millis(begun);

    progress(Phase::Prove);
    let begun = Instant::now();
    let fast = keys.fast()?.and_then(|key| key.prove(&keys.rows, &assignment, gate, rng));
    let (a, b, c) = match fast {
        Some(points) => points,
        None => by_ark(keys, &assignment, rng)?,
    };
    let proof = Proof::from_points(a, b, c).to_bytes();
    let prove_ms = millis(begun);

    progress(Phase::Verify);
    let begun = Instant::now();
    groth16::verify(&keys.vk, &public_inputs, &proof)
        .map_err(|why| ProveError::Unsound { why, constraint: keys.broken(&assignment) })?;
    let (verify_ms, ms) = (millis(begun), millis(start));
    let (constraints, peak_memory_bytes) = (keys.constraints(), peak_memory_bytes());
    Ok(Proved { proof, public_inputs, constraints, ms, witness_ms, prove_ms, verify_ms, peak_memory_bytes })
}

/// ark-groth16's proof: on its own path, and for a key that our form does not take.
fn by_ark(keys: &Keys, assignment: &[Fr], rng: &mut dyn RngCore) -> Result<Points, ProveError> {
    let (r, s) = (Fr::rand(rng), Fr::rand(rng));
    let m = keys.matrices()?;
    let made = Groth16::<Bls12_381>::create_proof_with_reduction_and_matrices(
        keys.proving_key()?,
        r,
        s,
        &m.abc,
        m.inputs,
        m.constraints(),
        assignment,
    )?;
    Ok((made.a, made.b, made.c))
}

/// One, the inputs, the witnesses, for whoever proves by other means; no rows are built.
///
/// # Errors
/// Where the circuit cannot be filled.
pub fn assignment<C: Circuit>(circuit: C) -> Result<Vec<Fr>, SynthesisError> {
    let cs = ConstraintSystem::new_ref();
    cs.set_mode(SynthesisMode::Prove { construct_matrices: false, generate_lc_assignments: false });
    circuit.generate_constraints(cs.clone())?;
    let cs = cs.into_inner().ok_or(SynthesisError::MissingCS)?;
    let mut full = cs.assignments.instance_assignment;
    full.extend(cs.assignments.witness_assignment);
    Ok(full)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
