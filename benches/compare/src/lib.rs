//! Adapters: one function per implementation, over the same 32-byte scalars.
//!
//! Rule    values cross as canonical little-endian bytes; nobody's field types meet.

use ark_ff::{BigInteger, PrimeField};
use fluence_crypto::Fr;
use neptune::poseidon::{Poseidon as NeptuneHasher, PoseidonConstants};
use zkhash::fields::bls12::FpBLS12 as OldFr;
use zkhash::poseidon2::poseidon2::Poseidon2;
use zkhash::poseidon2::poseidon2_instance_bls12::POSEIDON2_BLS_8_PARAMS;

/// neptune's field element.
pub type BlstFr = blstrs::Scalar;
/// neptune's arity.
pub type Arity8 = generic_array::typenum::U8;

/// zkhash's Poseidon2 instance of our parameters: plain ark 0.4, by other authors.
pub struct Zkhash(Poseidon2<OldFr>);

impl Default for Zkhash {
    fn default() -> Self {
        Self(Poseidon2::new(&POSEIDON2_BLS_8_PARAMS))
    }
}

/// A scalar in zkhash's field type.
#[must_use]
pub fn to_zkhash(f: &Fr) -> OldFr {
    use ark_ff_04::PrimeField as _;
    OldFr::from_le_bytes_mod_order(&f.into_bigint().to_bytes_le())
}

/// A scalar in ours.
#[must_use]
pub fn from_zkhash(f: &OldFr) -> Fr {
    use ark_ff_04::{BigInteger as _, PrimeField as _};
    Fr::from_le_bytes_mod_order(&f.into_bigint().to_bytes_le())
}

impl Zkhash {
    /// The permutation.
    #[must_use]
    pub fn permute(&self, state: &[OldFr; 8]) -> Vec<OldFr> {
        self.0.permutation(state)
    }
}

/// neptune's Poseidon of arity 8 (width 9), as Filecoin uses it, over blst's field.
pub struct Neptune(PoseidonConstants<BlstFr, Arity8>);

impl Default for Neptune {
    fn default() -> Self {
        Self(PoseidonConstants::new())
    }
}

impl Neptune {
    /// Eight scalars to one.
    #[must_use]
    pub fn hash(&self, x: &[BlstFr; 8]) -> BlstFr {
        NeptuneHasher::new_with_preimage(x, &self.0).hash()
    }
}
