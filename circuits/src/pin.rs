//! Size and hash of a circuit's matrices: what `shapes.toml` pins, and what a key file names.
//!
//! Hash    BLAKE3 over "FLU/circuits/matrices/v1", then as u64 little-endian: inputs (with the one), witnesses, constraints; then for A,
//!         B, C each row: number of terms, and by increasing column the column and the coefficient (32 bytes big-endian).
//! Rule    two circuits with one hash are the same circuit, so a key made for one serves the other.
//! Again   `FLUENCE_PIN=1 cargo test -p fluence-circuits --lib shapes` writes the file anew; a changed pin is a changed circuit and
//!         needs a new key ceremony.

use crate::{RangeSumCircuit, StorageCircuit};
use ark_bls12_381::Fr;
use ark_relations::gr1cs::{
    ConstraintSynthesizer, ConstraintSystem, Matrix, R1CS_PREDICATE_LABEL, SynthesisError, SynthesisMode,
};
use fluence_crypto::field;
use fluence_types::shape::CircuitId;

/// The matrices of a circuit: what it says, whatever the witness.
pub struct Matrices {
    /// A, B, C by row; terms by increasing column. Column 0 is the one, then the inputs, then the witnesses.
    pub abc: Vec<Matrix<Fr>>,
    /// Public inputs and the one.
    pub inputs: usize,
    /// Witness variables.
    pub witnesses: usize,
}

impl Matrices {
    /// The matrices of a circuit.
    ///
    /// # Errors
    /// [`SynthesisError`] for a shape that no circuit has.
    pub fn of(id: CircuitId) -> Result<Self, SynthesisError> {
        let cs = ConstraintSystem::new_ref();
        cs.set_mode(SynthesisMode::Setup);
        match id {
            CircuitId::Storage(shape) => StorageCircuit::blank(shape).generate_constraints(cs.clone())?,
            CircuitId::RangeSum(shape) => RangeSumCircuit::blank(shape).generate_constraints(cs.clone())?,
            _ => return Err(SynthesisError::Unsatisfiable),
        }
        let abc = cs.to_matrices()?.remove(R1CS_PREDICATE_LABEL).ok_or(SynthesisError::PredicateNotFound)?;
        Ok(Self { abc, inputs: cs.num_instance_variables(), witnesses: cs.num_witness_variables() })
    }

    /// Number of constraints.
    #[must_use]
    pub fn constraints(&self) -> usize {
        self.abc[0].len()
    }

    /// Terms in all rows: what building and multiplying the matrices costs.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.abc.iter().flatten().map(Vec::len).sum()
    }

    /// The pinned hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.bytes(&mut |bytes| {
            hasher.update(bytes);
        });
        *hasher.finalize().as_bytes()
    }

    /// The bytes that the pinned hash is of, piece by piece: the circuit for a second implementation.
    pub fn bytes(&self, each: &mut dyn FnMut(&[u8])) {
        let number = |each: &mut dyn FnMut(&[u8]), n: usize| each(&(n as u64).to_le_bytes());
        each(b"FLU/circuits/matrices/v1");
        [self.inputs, self.witnesses, self.constraints()].iter().for_each(|n| number(each, *n));
        for row in self.abc.iter().flatten() {
            let mut row = row.clone();
            row.sort_unstable_by_key(|(_, column)| *column);
            number(each, row.len());
            for (coefficient, column) in row {
                number(each, column);
                each(field::to_bytes(&coefficient).as_bytes());
            }
        }
    }

    /// The first row that an assignment (one, inputs, witnesses) breaks.
    #[must_use]
    pub fn first_broken(&self, assignment: &[Fr]) -> Option<usize> {
        self.broken(assignment).next()
    }

    /// Every row that an assignment breaks.
    pub fn broken<'a>(&'a self, assignment: &'a [Fr]) -> impl Iterator<Item = usize> + 'a {
        let dot = |row: &[(Fr, usize)]| row.iter().map(|(c, i)| *c * assignment[*i]).sum::<Fr>();
        (0..self.constraints()).filter(move |i| dot(&self.abc[0][*i]) * dot(&self.abc[1][*i]) != dot(&self.abc[2][*i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::shape::{RangeSumShape, StorageShape};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Eq, Debug)]
    struct Pin {
        constraints: usize,
        witnesses: usize,
        terms: usize,
        matrix_hash: String,
    }

    fn shapes() -> Vec<CircuitId> {
        let storage = [StorageShape::TINY, StorageShape::SMALL, StorageShape::PRODUCTION].map(CircuitId::Storage);
        let range_sum = [RangeSumShape::TINY, RangeSumShape::ONE, RangeSumShape::FOUR].map(CircuitId::RangeSum);
        storage.into_iter().chain(range_sum).collect()
    }

    fn measure() -> BTreeMap<String, Pin> {
        let pin = |id: CircuitId| {
            let m = Matrices::of(id).unwrap();
            let matrix_hash = blake3::Hash::from_bytes(m.hash()).to_hex().to_string();
            Pin { constraints: m.constraints(), witnesses: m.witnesses, terms: m.terms(), matrix_hash }
        };
        shapes().into_iter().map(|id| (id.to_string(), pin(id))).collect()
    }

    #[test]
    fn shapes_are_as_pinned() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("shapes.toml");
        let now = measure();
        if std::env::var_os("FLUENCE_PIN").is_some() {
            let head =
                "# Pinned sizes and matrices. How to write this file anew, and what that means: `src/pin.rs`.\n\n";
            std::fs::write(&path, format!("{head}{}", toml::to_string(&now).unwrap())).unwrap();
        }
        let pinned: BTreeMap<String, Pin> = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(pinned, now);
    }

    #[test]
    fn shapes_are_within_their_budget() {
        let size = |id| Matrices::of(id).unwrap().constraints();
        let per_sample = size(CircuitId::Storage(StorageShape::PRODUCTION)).div_ceil(16);
        assert!(per_sample <= 12_000, "{per_sample} constraints a sample");
        let one = size(CircuitId::RangeSum(RangeSumShape::ONE));
        assert!(one <= 14_000, "{one} constraints for one segment");
    }

    #[test]
    fn a_hash_tells_circuits_apart_and_is_the_same_twice() {
        let id = CircuitId::Storage(StorageShape { samples: 1, holdings_levels: 1, stored_levels: 1, tree_levels: 1 });
        let (one, mut two) = (Matrices::of(id).unwrap(), Matrices::of(id).unwrap());
        assert_eq!(one.hash(), two.hash());
        two.abc[0][0][0].1 += 1;
        assert_ne!(one.hash(), two.hash());
    }
}
