//! A ceremony through the public calls alone, and its files for a second implementation (`tests/interop/ceremony.mjs`).

use fluence_prover::Keys;
use fluence_prover::ceremony::{self, CeremonyError};
use fluence_types::shape::{CircuitId, StorageShape};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::path::Path;

/// The holdings root alone, without a sample: 2^9 rows, so that the other implementation takes seconds.
const CIRCUIT: CircuitId =
    CircuitId::Storage(StorageShape { samples: 0, holdings_levels: 0, stored_levels: 1, tree_levels: 1 });
const LOG2: u32 = 9;

/// Phase 1 by two, phase 2 by two, a beacon, the key. Fails where anything is refused.
fn hold(dir: &Path) -> Result<ceremony::Finalized, CeremonyError> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let path = |name: &str| dir.join(name);
    let quiet = &mut |_: &'static str, _, _| ();
    ceremony::phase1_create(&path("challenge0"), LOG2, quiet)?;
    for i in 0..2 {
        let [c, r, next] =
            [format!("challenge{i}"), format!("response{i}"), format!("challenge{}", i + 1)].map(|n| path(&n));
        ceremony::phase1_contribute(&c, &r, b"", &mut rng, quiet)?;
        ceremony::phase1_verify(&c, &r, Some(&next), &mut rng, quiet)?;
    }
    let imported = ceremony::import(&path("response1"), &path("phase1"), LOG2, None, &mut rng, quiet)?;
    let status = ceremony::create(&path("phase1"), CIRCUIT, &path("state0"), &mut rng, quiet)?;
    assert_eq!(status.phase1_hash, imported.hash);
    ceremony::contribute(&path("state0"), &path("state1"), "anna", b"dice: 4 2 6", &mut rng, quiet)?;
    ceremony::contribute(&path("state1"), &path("state2"), "bela", b"", &mut rng, quiet)?;
    ceremony::beacon(&path("state2"), &path("state"), [7; 32], 6, quiet)?;
    assert_eq!(ceremony::export_matrices(CIRCUIT, &path("matrices"))?, status.matrix_hash);
    ceremony::finalize(&path("state"), &path("phase1"), &path("keys"), &mut rng, quiet)
}

/// `scripts/interop.sh` names a folder and has it verified there; without one the folder is thrown away.
#[test]
fn export_for_other_tools() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("FLUENCE_INTEROP_DIR")
        .map_or_else(|| temporary.path().join("ceremony"), |d| Path::new(&d).join("ceremony"));
    std::fs::create_dir_all(&dir).unwrap();
    let done = hold(&dir).unwrap();
    std::fs::copy(&done.verification_key, dir.join("vkey.json")).unwrap();
    let keys = Keys::load_or_setup(dir.join("keys"), CIRCUIT, |_| ()).unwrap();
    assert_eq!((keys.insecure_dev, keys.transcript.map(|t| t.to_bytes())), (false, Some(done.status.hash)));
}
