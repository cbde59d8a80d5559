//! Test support: run a circuit with lies and name the constraints that catch them.

use crate::Circuit;
use crate::pin::Matrices;
use crate::r1cs::{Cs, Lie};
use crate::{RangeSumCircuit, StorageCircuit};
use ark_bls12_381::Fr;
use ark_ff::{One, PrimeField};
use ark_relations::gr1cs::{ConstraintSystem, ConstraintSystemRef, SynthesisError};
use fluence_types::shape::CircuitId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

pub(crate) trait Synthesize: Circuit {
    fn fill(&self, cs: &mut Cs) -> Result<(), SynthesisError>;
}

impl Synthesize for StorageCircuit {
    fn fill(&self, cs: &mut Cs) -> Result<(), SynthesisError> {
        self.synthesize(cs)
    }
}

impl Synthesize for RangeSumCircuit {
    fn fill(&self, cs: &mut Cs) -> Result<(), SynthesisError> {
        self.synthesize(cs)
    }
}

pub(crate) fn lie(name: &'static str, occurrence: usize, value: impl Into<Fr>) -> Lie {
    Lie { name, occurrence, value: value.into().into_bigint() }
}

fn matrices(id: CircuitId) -> Arc<Matrices> {
    static CACHE: Mutex<BTreeMap<CircuitId, Arc<Matrices>>> = Mutex::new(BTreeMap::new());
    let mut cache = CACHE.lock().unwrap();
    Arc::clone(cache.entry(id).or_insert_with(|| Arc::new(Matrices::of(id).unwrap())))
}

fn run<C: Synthesize>(circuit: &C, lies: &[Lie]) -> (Cs, Vec<Fr>, Arc<Matrices>) {
    let inner: ConstraintSystemRef<Fr> = ConstraintSystem::new_ref();
    let mut cs = Cs::new(inner.clone());
    cs.lies = lies.to_vec();
    circuit.fill(&mut cs).unwrap();
    let full = [inner.instance_assignment().unwrap(), inner.witness_assignment().unwrap()].concat();
    let matrices = matrices(circuit.id());
    // One form, whatever the witness: else a key would not fit.
    assert_eq!(cs.names.len(), matrices.constraints());
    assert_eq!(full.len(), matrices.inputs + matrices.witnesses);
    (cs, full, matrices)
}

/// The families of constraints that refuse the circuit; none if it is satisfied.
pub(crate) fn broken<C: Synthesize>(circuit: &C, lies: &[Lie]) -> BTreeSet<&'static str> {
    let (cs, full, matrices) = run(circuit, lies);
    matrices.broken(&full).map(|row| cs.names[row]).collect()
}

/// Asserts that just these families refuse it: each alone would let the lie pass if it were removed.
pub(crate) fn assert_caught<C: Synthesize>(circuit: &C, lies: &[Lie], by: &[&'static str]) {
    assert_eq!(broken(circuit, lies), by.iter().copied().collect(), "{lies:?}");
}

/// Changes each witness alone; every change must break a row, but for inverses of 0. `idle_bits` is how many booleans may take either
/// value because nothing is read by them. Returns how many were changed.
pub(crate) fn assert_no_free_witness<C: Synthesize>(circuit: &C, idle_bits: usize) -> usize {
    let (cs, mut full, matrices) = run(circuit, &[]);
    assert_eq!(matrices.first_broken(&full), None);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); full.len()];
    for matrix in &matrices.abc {
        for (row, terms) in matrix.iter().enumerate() {
            terms.iter().for_each(|(_, column)| rows[*column].push(row));
        }
    }
    let holds = |full: &[Fr], row: usize| {
        let dot = |m: usize| matrices.abc[m][row].iter().map(|(c, i)| *c * full[*i]).sum::<Fr>();
        dot(0) * dot(1) == dot(2)
    };
    // By 1, which turns a boolean into the other where it is 0, and by 2, which makes it none.
    for (change, allowed) in [(1u64, cs.free + idle_bits), (2, cs.free)] {
        let mut free = 0;
        for column in matrices.inputs..full.len() {
            full[column] += Fr::from(change);
            free += usize::from(rows[column].iter().all(|row| holds(&full, *row)));
            full[column] -= Fr::from(change);
        }
        assert_eq!(free, allowed, "witnesses that nothing constrains, changed by {change}");
    }
    matrices.witnesses
}

/// Changes each public input alone.
pub(crate) fn assert_inputs_bound<C: Synthesize + Clone>(circuit: &C, set: impl Fn(&mut C, usize, Fr)) {
    let inputs = circuit.public_inputs().unwrap();
    for (i, input) in inputs.iter().enumerate() {
        for change in [Fr::one(), -Fr::one(), Fr::from(1u64 << 41)] {
            let mut changed = circuit.clone();
            set(&mut changed, i, fluence_crypto::field::from_bytes(input) + change);
            assert!(!broken(&changed, &[]).is_empty(), "input {i} is not bound");
        }
    }
}
