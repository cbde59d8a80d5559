//! bellperson: a chain of fifth powers, three products each as in our S-boxes, with as many constraints as the circuit it stands beside.
//!
//! Rule    every value but the one is a full-size scalar, and two thirds of them stand in B, as in ours. Its rows have one term where ours
//!         have twenty, so it has less to fill in

use bellperson::groth16::{
    Parameters, Proof, create_random_proof, generate_random_parameters, prepare_verifying_key, verify_proof,
};
use bellperson::{Circuit, ConstraintSystem, SynthesisError};
use blstrs::{Bls12, Scalar};
use ff::Field;
use rand::rngs::OsRng;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

#[derive(Clone)]
struct Powers {
    constraints: usize,
    start: Option<Scalar>,
}

impl Circuit<Scalar> for Powers {
    fn synthesize<CS: ConstraintSystem<Scalar>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        let missing = SynthesisError::AssignmentMissing;
        let x = cs.alloc_input(|| "x", || self.start.ok_or(missing))?;
        let (mut x, mut x2, mut x4) = ((x, self.start), (x, self.start), (x, self.start));
        for i in 0..self.constraints {
            let (a, b) = [(x, x), (x2, x2), (x4, x)][i % 3];
            let value = a.1.zip(b.1).map(|(a, b)| a * b);
            let missing = SynthesisError::AssignmentMissing;
            let product = (cs.alloc(|| "product", || value.ok_or(missing))?, value);
            cs.enforce(|| "product", |lc| lc + a.0, |lc| lc + b.0, |lc| lc + product.0);
            *[&mut x2, &mut x4, &mut x][i % 3] = product;
        }
        Ok(())
    }
}

pub struct Bell {
    parameters: Parameters<Bls12>,
    circuit: Powers,
}

impl Bell {
    pub fn setup(path: &Path, constraints: usize) {
        let circuit = Powers { constraints, start: None };
        let made = generate_random_parameters::<Bls12, _, _>(circuit, &mut OsRng).expect("a circuit");
        let mut out = BufWriter::new(File::create(path).expect("the target folder can be written"));
        made.write(&mut out).and_then(|()| out.flush()).expect("the disk has room");
    }

    pub fn load(path: &Path, constraints: usize) -> Self {
        let file = BufReader::with_capacity(1 << 20, File::open(path).expect("set up before"));
        let parameters = Parameters::read(file, false).expect("our own file");
        Self { parameters, circuit: Powers { constraints, start: Some(Scalar::random(OsRng)) } }
    }

    pub fn prove(&self) -> Proof<Bls12> {
        create_random_proof(self.circuit.clone(), &self.parameters, &mut OsRng).expect("a proof")
    }

    pub fn check(&self, proof: &Proof<Bls12>) {
        let inputs = [self.circuit.start.expect("a witness")];
        let key = prepare_verifying_key(&self.parameters.vk);
        assert!(verify_proof(&key, proof, &inputs).expect("a key"), "bellperson proves");
    }
}
