//! Proving keys: made on this machine once per circuit, kept in a cache folder, loaded by the next process.
//!
//! Trust    a key made here is a development key: whoever ran the setup knew its secrets for a moment and could forge. Its file says so,
//!          and `node` and `cli` refuse it on any chain but a local one. Production keys come from a ceremony (`ceremony`).
//! Sharing  several processes of one demo use one folder: the first takes the lock and makes the key, the others wait and load it.

use crate::fast::{FastKey, Path as ProverPath};
use crate::file;
use crate::points::KeyPoints;
use crate::rows::Rows;
use ark_bls12_381::{Bls12_381, Fr};
use ark_groth16::{Groth16, ProvingKey};
use ark_relations::gr1cs::SynthesisError;
use fluence_circuits::pin::Matrices;
use fluence_circuits::{RangeSumCircuit, StorageCircuit};
use fluence_types::shape::CircuitId;
use fluence_types::{Fingerprint, TranscriptHash};
use fluence_verifier::groth16::VerificationKey;
use rand::{CryptoRng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What a long call is doing, for progress bars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// Writing down the constraints.
    Synthesise,
    /// Reading a key from the cache.
    Load,
    /// Waiting for another process that is making the same key.
    Wait,
    /// Making a development key.
    Setup,
    /// Writing it to the cache.
    Save,
    /// Computing the assignment.
    Witness,
    /// Computing the proof.
    Prove,
    /// Checking the proof before handing it out.
    Verify,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The cache folder or file cannot be read or written.
    #[error("key cache {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a key file, or was cut or changed since it was written.
    #[error("key file {path} is damaged: {why}; delete it and it is made again")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No circuit has this shape.
    #[error("circuit {0} cannot be built: {1}")]
    Circuit(CircuitId, SynthesisError),
}

/// The keys of one circuit.
pub struct Keys {
    /// The circuit.
    pub id: CircuitId,
    /// Checks proofs.
    pub vk: VerificationKey,
    points: KeyPoints,
    /// Names the key.
    pub fingerprint: Fingerprint,
    /// Made on one machine: for local chains only.
    pub insecure_dev: bool,
    /// The ceremony it comes from: of every key that is not a development key.
    pub transcript: Option<TranscriptHash>,
    pub(crate) rows: Rows,
    /// For ark-groth16, and to say what is broken: built where they are needed.
    matrices: OnceLock<Matrices>,
    /// BLAKE3 of the matrices the key was made for, as pinned in `circuits/shapes.toml`.
    pub matrix_hash: [u8; 32],
    path: ProverPath,
    /// The key as `path` reads it, made when it is first needed; `None` inside for [`ProverPath::Ark`].
    fast: OnceLock<Option<FastKey>>,
    /// Held by who makes it, so that two proofs at once do not make it twice.
    making: Mutex<()>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({}, {}, insecure_dev: {})", self.id, self.fingerprint, self.insecure_dev)
    }
}

impl Keys {
    /// Loads the key from `dir`, or makes a development key there. Safe to call from several processes at once.
    ///
    /// The file's points are read without subgroup checks, after its checksum: it is our own cache, not a key from outside.
    /// The randomness of a new key is the operating system's.
    ///
    /// # Errors
    /// [`KeyError`]; a damaged file is reported, not silently replaced.
    pub fn load_or_setup(
        dir: impl AsRef<Path>,
        id: CircuitId,
        mut progress: impl FnMut(Phase),
    ) -> Result<Self, KeyError> {
        Self::load_or_setup_with(dir.as_ref(), id, &mut rand::rngs::OsRng, &mut progress)
    }

    /// The same with the caller's randomness, for tests that need the same key twice.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load_or_setup_with<R: RngCore + CryptoRng>(
        dir: &Path,
        id: CircuitId,
        rng: &mut R,
        progress: &mut dyn FnMut(Phase),
    ) -> Result<Self, KeyError> {
        let path = Self::path(dir, id);
        let io = |source| KeyError::Io { path: path.clone(), source };
        // A file appears whole, by rename, so reading needs no lock.
        if path.exists() {
            progress(Phase::Load);
            return file::load(&path, id);
        }
        fs::create_dir_all(dir).map_err(io)?;
        let lock = File::create(path.with_extension("lock")).map_err(io)?;
        if lock.try_lock().is_err() {
            progress(Phase::Wait);
            lock.lock().map_err(io)?;
        }
        // Another process may have made it while we waited. The lock goes with its file handle.
        if path.exists() {
            progress(Phase::Load);
            return file::load(&path, id);
        }
        progress(Phase::Synthesise);
        let matrices = Matrices::of(id).map_err(|e| KeyError::Circuit(id, e))?;
        progress(Phase::Setup);
        let keys = Self::setup(id, matrices, rng)?;
        progress(Phase::Save);
        file::save(&path, &keys)?;
        Ok(Self { matrices: OnceLock::new(), ..keys })
    }

    /// A development key that is kept nowhere.
    ///
    /// # Errors
    /// [`KeyError::Circuit`].
    pub fn ephemeral<R: RngCore + CryptoRng>(id: CircuitId, rng: &mut R) -> Result<Self, KeyError> {
        Self::setup(id, Matrices::of(id).map_err(|e| KeyError::Circuit(id, e))?, rng)
    }

    /// Where the key of a circuit lies in a cache folder.
    #[must_use]
    pub fn path(dir: &Path, id: CircuitId) -> PathBuf {
        dir.join(format!("{}.key", id.to_string().replace('/', "_")))
    }

    fn setup<R: RngCore + CryptoRng>(id: CircuitId, matrices: Matrices, rng: &mut R) -> Result<Self, KeyError> {
        // A fast generator seeded once; the seed and with it the setup's secrets end with this call.
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let made = match id {
            CircuitId::Storage(shape) => {
                Groth16::<Bls12_381>::generate_random_parameters_with_reduction(StorageCircuit::blank(shape), &mut rng)
            }
            CircuitId::RangeSum(shape) => {
                Groth16::<Bls12_381>::generate_random_parameters_with_reduction(RangeSumCircuit::blank(shape), &mut rng)
            }
            _ => Err(SynthesisError::Unsatisfiable),
        };
        let pk = made.map_err(|e| KeyError::Circuit(id, e))?;
        Ok(Self::of(id, pk, matrices))
    }

    pub(crate) fn of(id: CircuitId, pk: ProvingKey<Bls12_381>, matrices: Matrices) -> Self {
        let keys = Self::of_rows(id, KeyPoints::of(pk), Rows::of(&matrices), matrices.hash());
        Self { matrices: OnceLock::from(matrices), ..keys }
    }

    /// The same, where the matrices are not at hand.
    pub(crate) fn of_rows(id: CircuitId, points: KeyPoints, rows: Rows, matrix_hash: [u8; 32]) -> Self {
        let k = points.vk();
        let vk = VerificationKey::from_points(&k.alpha_g1, &k.beta_g2, &k.gamma_g2, &k.delta_g2, &k.gamma_abc_g1)
            .expect("a setup's points are multiples of the generators by secrets that are not 0");
        let fingerprint = vk.fingerprint();
        Self {
            id,
            vk,
            points,
            fingerprint,
            insecure_dev: true,
            transcript: None,
            rows,
            matrices: OnceLock::new(),
            matrix_hash,
            path: ProverPath::detect(),
            fast: OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    /// Proves by another path than the processor's fastest; all make the same proofs.
    #[must_use]
    pub fn with_path(mut self, path: ProverPath) -> Self {
        (self.path, self.fast) = (path, OnceLock::new());
        self
    }

    /// The path that proofs take.
    #[must_use]
    pub const fn path_of_proofs(&self) -> ProverPath {
        self.path
    }

    /// Brings the key into the form that proofs read; the first proof does it where nobody has.
    ///
    /// # Errors
    /// [`KeyError`] where the key's file can no longer be read.
    pub fn prepare(&self) -> Result<(), KeyError> {
        self.fast().map(|_| ())
    }

    pub(crate) fn fast(&self) -> Result<Option<&FastKey>, KeyError> {
        // It guards no data.
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.fast.get().is_none() {
            let made = FastKey::new(self.path, &self.points, &self.rows)?;
            let _ = self.fast.set(made);
        }
        Ok(self.fast.get().and_then(Option::as_ref))
    }

    /// The key as ark-groth16 holds it; of one from a file, read now and kept.
    ///
    /// # Errors
    /// [`KeyError`] where the file can no longer be read.
    pub fn proving_key(&self) -> Result<&ProvingKey<Bls12_381>, KeyError> {
        self.points.whole()
    }

    /// What one proof needs beyond its keys, in bytes: three transformed vectors, canonical scalars and digits, and for each thread a
    /// window's sorted points and sums. By count, not by measurement.
    #[must_use]
    pub fn proof_memory_bytes(&self, threads: usize) -> u64 {
        let (domain, variables) = (self.points.h_count() as u64 + 1, self.assignment_len() as u64);
        // 40 bytes a value in lanes; 32 a scalar and 2 for each of about 20 digits; 4 a sorted point and 3/4 of a G2 point of 256 bytes.
        let window = 4 * domain.max(variables) + 192 * variables;
        3 * 40 * domain + (32 + 40) * (domain + 3 * variables) + threads as u64 * window
    }

    /// Number of constraints of the circuit.
    #[must_use]
    pub fn constraints(&self) -> usize {
        self.rows.constraints()
    }

    pub(crate) fn assignment_len(&self) -> usize {
        self.rows.variables()
    }

    /// The circuit's matrices, built at the first call.
    pub(crate) fn matrices(&self) -> Result<&Matrices, SynthesisError> {
        match self.matrices.get() {
            Some(matrices) => Ok(matrices),
            None => Matrices::of(self.id).map(|m| self.matrices.get_or_init(|| m)),
        }
    }

    pub(crate) fn broken(&self, assignment: &[Fr]) -> Option<usize> {
        self.matrices().ok()?.first_broken(assignment)
    }
}
