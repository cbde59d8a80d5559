//! Every path against ark-groth16, on a circuit of our own making with everything that is awkward: columns without entries, the same
//! column twice, rows without terms, public inputs in B and C.

use super::*;
use ark_bls12_381::Bls12_381;
use ark_ec::pairing::Pairing;
use ark_groth16::Groth16;
use ark_relations::gr1cs::{
    ConstraintSynthesizer, ConstraintSystem, ConstraintSystemRef, LinearCombination, R1CS_PREDICATE_LABEL,
    SynthesisError, SynthesisMode,
};
use fluence_circuits::pin::Matrices;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// `rows` products of what came before, a few scalars that are 0, 1, -1 and small among them.
#[derive(Clone)]
struct Chain {
    rows: usize,
    seed: Fr,
}

impl ConstraintSynthesizer<Fr> for Chain {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        let one = ark_relations::gr1cs::Variable::One;
        let public = cs.new_input_variable(|| Ok(self.seed))?;
        let unused = cs.new_witness_variable(|| Ok(Fr::from(5u64)))?;
        let _ = unused;
        let mut last = (public, self.seed);
        for i in 0..self.rows {
            let other = match i % 5 {
                0 => last.1,
                1 => Fr::zero(),
                2 => -Fr::from(1u64),
                3 => Fr::from(i as u64),
                _ => self.seed,
            };
            let twin = cs.new_witness_variable(|| Ok(other))?;
            let again = cs.new_witness_variable(|| Ok(other))?;
            let product = (last.1 + Fr::from(1u64)) * (other + other);
            let next = cs.new_witness_variable(|| Ok(product))?;
            let (a, b) = (last.0, twin);
            cs.enforce_r1cs_constraint(
                || LinearCombination::from(a) + one,
                || LinearCombination::from(b) + again,
                || LinearCombination::from(next),
            )?;
            if i % 7 == 0 {
                cs.enforce_r1cs_constraint(
                    LinearCombination::zero,
                    || LinearCombination::from(a),
                    LinearCombination::zero,
                )?;
                let square = self.seed * self.seed;
                let held = cs.new_witness_variable(|| Ok(square))?;
                let (x, y) = (public, held);
                cs.enforce_r1cs_constraint(
                    || LinearCombination::from(x),
                    || LinearCombination::from(x),
                    || LinearCombination::from(y),
                )?;
                // The seed again, as what a product makes.
                let z = Fr::from(1u64);
                let unit = cs.new_witness_variable(|| Ok(z))?;
                cs.enforce_r1cs_constraint(
                    || LinearCombination::from(x),
                    || LinearCombination::from(unit),
                    || LinearCombination::from(x),
                )?;
            }
            last = (next, product);
        }
        Ok(())
    }
}

struct Made {
    points: KeyPoints,
    matrices: Matrices,
    rows: Rows,
    assignment: Vec<Fr>,
}

fn made(rows: usize) -> Made {
    let mut rng = ChaCha20Rng::seed_from_u64(rows as u64);
    let circuit = Chain { rows, seed: Fr::rand(&mut rng) };
    let pk = Groth16::<Bls12_381>::generate_random_parameters_with_reduction(circuit.clone(), &mut rng).unwrap();
    let cs = ConstraintSystem::new_ref();
    cs.set_mode(SynthesisMode::Prove { construct_matrices: true, generate_lc_assignments: false });
    circuit.generate_constraints(cs.clone()).unwrap();
    cs.finalize();
    let abc = cs.to_matrices().unwrap().remove(R1CS_PREDICATE_LABEL).unwrap();
    let matrices = Matrices { abc, inputs: cs.num_instance_variables(), witnesses: cs.num_witness_variables() };
    let cs = cs.into_inner().unwrap();
    let mut assignment = cs.assignments.instance_assignment;
    assignment.extend(cs.assignments.witness_assignment);
    assert_eq!(matrices.first_broken(&assignment), None);
    Made { points: KeyPoints::of(pk), rows: Rows::of(&matrices), matrices, assignment }
}

fn ark(made: &Made, assignment: &[Fr]) -> Points {
    let m = &made.matrices;
    let zero = Fr::zero();
    let proof = Groth16::<Bls12_381>::create_proof_with_reduction_and_matrices(
        made.points.whole().unwrap(),
        zero,
        zero,
        &m.abc,
        m.inputs,
        m.constraints(),
        assignment,
    )
    .unwrap();
    (proof.a, proof.b, proof.c)
}

fn paths() -> impl Iterator<Item = Path> {
    Path::all().into_iter().filter(|p| *p != Path::Ark)
}

fn verifies(made: &Made, (a, b, c): Points) -> bool {
    let vk = ark_groth16::prepare_verifying_key(made.points.vk());
    let inputs = &made.assignment[1..made.matrices.inputs];
    Groth16::<Bls12_381>::verify_proof(&vk, &ark_groth16::Proof { a, b, c }, inputs).unwrap()
}

#[test]
fn every_path_makes_the_points_that_ark_makes() {
    for rows in [1, 2, 9, 100, 700] {
        let made = made(rows);
        let want = ark(&made, &made.assignment);
        for path in paths() {
            let key = FastKey::new(path, &made.points, &made.rows).unwrap().unwrap();
            assert_eq!(key.plain(&made.rows, &made.assignment, &Gate::default()), want, "{path:?}, {rows} rows");
        }
    }
}

#[test]
fn a_fresh_proof_verifies_and_no_two_share_a_point() {
    let made = made(40);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for path in paths() {
        let key = FastKey::new(path, &made.points, &made.rows).unwrap().unwrap();
        let plain = key.plain(&made.rows, &made.assignment, &Gate::default());
        let one = key.prove(&made.rows, &made.assignment, &Gate::default(), &mut rng).unwrap();
        let two = key.prove(&made.rows, &made.assignment, &Gate::default(), &mut rng).unwrap();
        for (x, y) in [(&plain, &one), (&plain, &two), (&one, &two)] {
            assert!(x.0 != y.0 && x.1 != y.1 && x.2 != y.2, "{path:?}");
        }
        for points in [plain, one, two] {
            assert!(verifies(&made, points), "{path:?}");
        }
        // What the last step keeps is the equation, so it cannot be all there is: A and B alone are scaled against each other.
        assert_ne!(Bls12_381::pairing(one.0, one.1), Bls12_381::pairing(two.0, two.1));
    }
}

#[test]
fn a_false_assignment_makes_no_proof_on_any_path() {
    let made = made(40);
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for path in paths() {
        let key = FastKey::new(path, &made.points, &made.rows).unwrap().unwrap();
        for at in [made.matrices.inputs + 1, made.assignment.len() - 1] {
            let mut wrong = made.assignment.clone();
            wrong[at] += Fr::from(1u64);
            assert!(made.matrices.first_broken(&wrong).is_some());
            let points = key.prove(&made.rows, &wrong, &Gate::default(), &mut rng).unwrap();
            assert!(!verifies(&made, points), "{path:?}, value {at}");
        }
    }
}

#[test]
fn threads_make_no_difference() {
    let made = made(100);
    for path in paths() {
        let key = FastKey::new(path, &made.points, &made.rows).unwrap().unwrap();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| key.plain(&made.rows, &made.assignment, &Gate::default()))
        };
        assert_eq!(with(1), with(3), "{path:?}");
    }
}

#[test]
fn a_key_of_another_size_is_refused() {
    let (small, large) = (made(9), made(100));
    for path in paths() {
        assert!(FastKey::new(path, &small.points, &large.rows).unwrap().is_none());
        assert!(FastKey::new(path, &large.points, &small.rows).unwrap().is_none());
    }
    assert!(FastKey::new(Path::Ark, &small.points, &small.rows).unwrap().is_none());
}
