//! The rows of A and B as proofs read them: few coefficients, many terms; and the file beside a key that keeps them.
//!
//! Why     building a circuit's matrices takes a second and a few hundred MiB for the production shape; reading these rows takes neither
//! File    a cache of what the circuit says, for shapes that `circuits/shapes.toml` pins: it names the pinned hash and ends with its own
//!         checksum. Missing, cut, changed or of other matrices: it is made again. For other shapes there is none
//! Rule    a proof from wrong rows does not verify, and none is handed out unverified
//! Bytes   "FLUROWS\1" | matrix hash 32 | inputs, witnesses, constraints, coefficients u64 | coefficients 32 each | of A, then of B: ends of
//!         rows u32 each, then terms of (column u32, coefficient u32) | BLAKE3 of all before. Little-endian

use ark_bls12_381::Fr;
use ark_ff::{BigInt, Field, PrimeField, Zero};
use fluence_circuits::pin::Matrices;
use fluence_types::shape::CircuitId;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"FLUROWS\x01";
const HASH_BYTES: usize = 32;
const SCALAR_BYTES: usize = 32;
/// The coefficient 1, which multiplies nothing.
const ONE: u32 = 0;

/// Rows of one matrix.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Sparse {
    /// Where each row ends in `terms`.
    ends: Vec<u32>,
    /// Column and number of the coefficient.
    terms: Vec<[u32; 2]>,
}

/// Rows of A and B, and the sizes of the circuit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rows {
    /// Public inputs and the one.
    pub(crate) inputs: usize,
    /// Witness variables.
    pub(crate) witnesses: usize,
    coefficients: Vec<Fr>,
    ab: [Sparse; 2],
}

impl Rows {
    pub(crate) fn of(matrices: &Matrices) -> Self {
        let (mut coefficients, mut numbers) = (vec![Fr::ONE], HashMap::from([(Fr::ONE, ONE)]));
        let mut sparse = |which: usize| {
            let mut out = Sparse::default();
            for row in &matrices.abc[which] {
                out.terms.extend(row.iter().map(|(coefficient, column)| {
                    let number = *numbers.entry(*coefficient).or_insert_with(|| {
                        coefficients.push(*coefficient);
                        coefficients.len() as u32 - 1
                    });
                    [*column as u32, number]
                }));
                out.ends.push(out.terms.len() as u32);
            }
            out
        };
        let ab = [sparse(0), sparse(1)];
        Self { inputs: matrices.inputs, witnesses: matrices.witnesses, coefficients, ab }
    }

    /// Number of constraints.
    pub(crate) fn constraints(&self) -> usize {
        self.ab[0].ends.len()
    }

    /// Length of an assignment: one, inputs, witnesses.
    pub(crate) fn variables(&self) -> usize {
        self.inputs + self.witnesses
    }

    /// Row `i` of A times an assignment. After the constraints come the rows that bind the inputs, then zeros.
    pub(crate) fn a(&self, i: usize, assignment: &[Fr]) -> Fr {
        match i.checked_sub(self.constraints()) {
            None => self.dot(0, i, assignment),
            Some(input) if input < self.inputs => assignment[input],
            Some(_) => Fr::zero(),
        }
    }

    /// Row `i` of B times an assignment.
    pub(crate) fn b(&self, i: usize, assignment: &[Fr]) -> Fr {
        if i < self.constraints() { self.dot(1, i, assignment) } else { Fr::zero() }
    }

    fn dot(&self, which: usize, i: usize, assignment: &[Fr]) -> Fr {
        let Sparse { ends, terms } = &self.ab[which];
        let start = if i == 0 { 0 } else { ends[i - 1] };
        let mut sum = Fr::zero();
        for [column, coefficient] in &terms[start as usize..ends[i] as usize] {
            let value = assignment[*column as usize];
            sum += if *coefficient == ONE { value } else { value * self.coefficients[*coefficient as usize] };
        }
        sum
    }

    fn to_bytes(&self, matrix_hash: &[u8; HASH_BYTES]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(matrix_hash);
        for n in [self.inputs, self.witnesses, self.constraints(), self.coefficients.len()] {
            out.extend((n as u64).to_le_bytes());
        }
        for c in &self.coefficients {
            c.into_bigint().0.iter().for_each(|word| out.extend(word.to_le_bytes()));
        }
        for sparse in &self.ab {
            sparse.ends.iter().for_each(|end| out.extend(end.to_le_bytes()));
            sparse.terms.iter().flatten().for_each(|n| out.extend(n.to_le_bytes()));
        }
        let checksum = blake3::hash(&out);
        out.extend(checksum.as_bytes());
        out
    }

    /// `None` for anything but what [`Self::to_bytes`] makes with this hash.
    fn from_bytes(bytes: &[u8], matrix_hash: &[u8; HASH_BYTES]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<HASH_BYTES>()?;
        if blake3::hash(body) != blake3::Hash::from_bytes(*checksum) {
            return None;
        }
        let mut rest = body.strip_prefix(&MAGIC)?.strip_prefix(matrix_hash)?;
        let mut number =
            || take(&mut rest, 8).and_then(|n| usize::try_from(u64::from_le_bytes(n.try_into().ok()?)).ok());
        let (inputs, witnesses, constraints, count) = (number()?, number()?, number()?, number()?);
        let variables = inputs.checked_add(witnesses)?;
        let coefficients = take(&mut rest, count.checked_mul(SCALAR_BYTES)?)?
            .chunks_exact(SCALAR_BYTES)
            .map(|c| Fr::from_bigint(BigInt(std::array::from_fn(|i| word(&c[8 * i..])))))
            .collect::<Option<Vec<_>>>()?;
        if coefficients.first() != Some(&Fr::ONE) {
            return None;
        }
        let mut sparse = || {
            let ends = take(&mut rest, constraints.checked_mul(4)?)?.chunks_exact(4).map(half).collect::<Vec<_>>();
            let terms = usize::try_from(ends.last().copied().unwrap_or(0)).ok()?.checked_mul(8)?;
            let pair = |c: &[u8]| [half(&c[..4]), half(&c[4..])];
            let terms: Vec<[u32; 2]> = take(&mut rest, terms)?.chunks_exact(8).map(pair).collect();
            let inside = |[column, c]: &[u32; 2]| (*column as usize) < variables && (*c as usize) < count;
            (ends.is_sorted() && terms.iter().all(inside)).then_some(Sparse { ends, terms })
        };
        let ab = [sparse()?, sparse()?];
        rest.is_empty().then_some(Self { inputs, witnesses, coefficients, ab })
    }

    /// The rows that a file keeps, if it is whole and of these matrices.
    pub(crate) fn read(path: &Path, matrix_hash: &[u8; HASH_BYTES]) -> Option<Self> {
        Self::from_bytes(&fs::read(path).ok()?, matrix_hash)
    }

    /// Keeps them.
    pub(crate) fn write(&self, path: &Path, matrix_hash: &[u8; HASH_BYTES]) -> io::Result<()> {
        let temporary = path.with_extension(format!("rows-tmp-{}", std::process::id()));
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(&self.to_bytes(matrix_hash)))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // Best effort: the error that counts is the one we return.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    rest.split_off(..bytes)
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[i]))
}

fn half(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[i]))
}

/// The hash of a circuit's matrices, for the shapes that are pinned: a test of `circuits` holds the pins against the code.
pub(crate) fn pinned_hash(id: CircuitId) -> Option<[u8; HASH_BYTES]> {
    const PINS: &str = include_str!("../../circuits/shapes.toml");
    let (_, shape) = PINS.split_once(&format!("[\"{id}\"]\n"))?;
    let shape = shape.split("\n[").next()?;
    let line = shape.lines().find_map(|line| line.strip_prefix("matrix_hash = \""))?;
    hex::decode(line.strip_suffix('"')?).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::shape::{RangeSumShape, StorageShape};

    const ID: CircuitId = CircuitId::RangeSum(RangeSumShape { segments: 1, tree_levels: 1 });

    fn matrices() -> Matrices {
        Matrices::of(ID).unwrap()
    }

    #[test]
    fn rows_are_the_matrices() {
        let matrices = matrices();
        let rows = Rows::of(&matrices);
        let assignment: Vec<Fr> = (0..rows.variables() as u64).map(|i| Fr::from(i * i + 1).pow([9])).collect();
        let dot = |row: &[(Fr, usize)]| row.iter().map(|(c, i)| *c * assignment[*i]).sum::<Fr>();
        for i in 0..rows.constraints() {
            assert_eq!(rows.a(i, &assignment), dot(&matrices.abc[0][i]), "A {i}");
            assert_eq!(rows.b(i, &assignment), dot(&matrices.abc[1][i]), "B {i}");
        }
        for i in 0..rows.inputs + 3 {
            let want = if i < rows.inputs { assignment[i] } else { Fr::zero() };
            assert_eq!(rows.a(rows.constraints() + i, &assignment), want);
            assert_eq!(rows.b(rows.constraints() + i, &assignment), Fr::zero());
        }
    }

    #[test]
    fn a_file_gives_them_back_and_no_other_file_does() {
        let (rows, hash) = (Rows::of(&matrices()), [7; 32]);
        let whole = rows.to_bytes(&hash);
        assert_eq!(Rows::from_bytes(&whole, &hash), Some(rows));
        assert_eq!(Rows::from_bytes(&whole, &[8; 32]), None);
        for at in (0..whole.len()).step_by(whole.len() / 50) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(Rows::from_bytes(&bytes, &hash), None, "flipped at {at}");
            assert_eq!(Rows::from_bytes(&whole[..at], &hash), None, "cut at {at}");
        }
    }

    #[test]
    fn a_file_with_a_good_checksum_and_bad_numbers_is_none() {
        let (rows, hash) = (Rows::of(&matrices()), [7; 32]);
        let spoilt = |spoil: fn(&mut Rows)| {
            let mut rows = rows.clone();
            spoil(&mut rows);
            Rows::from_bytes(&rows.to_bytes(&hash), &hash)
        };
        assert!(spoilt(|_| ()).is_some());
        assert_eq!(spoilt(|r| r.ab[1].terms[5][0] = r.variables() as u32), None, "a column that is not there");
        assert_eq!(
            spoilt(|r| r.ab[0].terms[5][1] = r.coefficients.len() as u32),
            None,
            "a coefficient that is not there"
        );
        assert_eq!(spoilt(|r| r.ab[0].ends.swap(3, 9)), None, "rows out of order");
        assert_eq!(spoilt(|r| *r.ab[0].ends.last_mut().unwrap() += 1), None, "a row that goes on");
        assert_eq!(spoilt(|r| r.coefficients[0] = Fr::from(2u64)), None, "a one that is none");
        // Lengths that no file has, under a checksum that holds.
        for at in [40, 48, 56, 64] {
            let mut bytes = rows.to_bytes(&hash);
            bytes.truncate(bytes.len() - HASH_BYTES);
            bytes[at..at + 8].fill(0xff);
            let checksum = blake3::hash(&bytes);
            bytes.extend(checksum.as_bytes());
            assert_eq!(Rows::from_bytes(&bytes, &hash), None, "number at {at}");
        }
    }

    #[test]
    fn pins_are_found_for_the_shapes_that_have_one() {
        let tiny = CircuitId::Storage(StorageShape::TINY);
        assert_eq!(pinned_hash(tiny), Some(Matrices::of(tiny).unwrap().hash()));
        for id in [CircuitId::Storage(StorageShape::PRODUCTION), CircuitId::RangeSum(RangeSumShape::FOUR)] {
            assert!(pinned_hash(id).is_some(), "{id}");
        }
        assert_eq!(pinned_hash(ID), None);
    }
}
