//! The initial key of a circuit: its matrices applied to the Lagrange points of phase 1, with gamma = delta = 1.
//!
//! ```text
//! A_j   = sum_i A[i][j] L_i, and L_(rows + j) more for input j            IC_j = beta A_j + alpha B_j + C_j     for inputs
//! B_j   = sum_i B[i][j] L_i, in G1 and in G2                              L_j  = the same                       for witnesses
//! H_i   = tau^i (tau^m - 1)
//! ```
//! Same as   `ark-groth16` 0.6 with the libsnark reduction, for tau, alpha, beta and gamma = delta = 1 (a test compares), and as bellman, whose
//!           rows `input * 0 = 0` at the end are the L_(rows + j). Nothing is drawn at random: phase 1 and matrices determine the key.
//! Cost      a column is a sum of a few dozen products whose points recur in other columns: odd multiples of each point once, then one chain of
//!           255 doublings a column (Straus) over signed digits. Long columns are cut in pieces of 256 terms.
//! Check     [`Combination`] checks a whole key by one random combination, without computing it: the coefficients of the columns
//!           become those of the rows.
//! Source    Groth, EUROCRYPT 2016, section 3.2; ePrint 2017/1050, section 6

use super::radix::Radix;
use super::ratio::{coefficients, combine};
use super::{Progress, Random};
use ark_bls12_381::{Fr, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::CurveGroup;
use ark_ff::{BigInteger, PrimeField, Zero};
use fluence_circuits::pin::Matrices;
use rayon::prelude::*;

/// Digits are odd, below 2^3 in size: four multiples of a point.
const WINDOW: usize = 3;
const MULTIPLES: usize = 1 << (WINDOW - 1);
const TERMS_MAX: usize = 256;
const BATCH: usize = 1 << 10;

/// What phase 1 and the matrices make.
pub(super) struct Initial {
    pub(super) a: Vec<G1Affine>,
    pub(super) b_g1: Vec<G1Affine>,
    pub(super) b_g2: Vec<G2Affine>,
    /// Inputs first, then witnesses.
    pub(super) ic_and_l: Vec<G1Affine>,
}

/// log2 of the rows a circuit needs: its constraints, and one for each input.
pub(super) fn rows_log2(matrices: &Matrices) -> u32 {
    (matrices.constraints() + matrices.inputs).next_power_of_two().trailing_zeros()
}

type Term = (Fr, u32);

/// Columns of a matrix; terms by row.
fn columns(matrices: &Matrices, which: usize) -> Vec<Vec<Term>> {
    let mut columns = vec![Vec::new(); matrices.inputs + matrices.witnesses];
    for (i, row) in matrices.abc[which].iter().enumerate() {
        row.iter().for_each(|(c, j)| columns[*j].push((*c, i as u32)));
    }
    if which == 0 {
        let rows = matrices.constraints();
        columns[..matrices.inputs]
            .iter_mut()
            .enumerate()
            .for_each(|(j, c)| c.push((Fr::from(1u64), (rows + j) as u32)));
    }
    columns
}

/// P, 3P, 5P, 7P of each point.
struct Table<G: CurveGroup>(Vec<[G::Affine; MULTIPLES]>);

impl<G: CurveGroup<ScalarField = Fr>> Table<G> {
    fn of(points: &[G::Affine]) -> Self {
        let rows = points.par_chunks(1024).flat_map_iter(|piece| {
            let mut all = Vec::with_capacity(piece.len() * MULTIPLES);
            for p in piece {
                let mut multiple: G = (*p).into();
                let twice = multiple.double();
                for _ in 0..MULTIPLES {
                    all.push(multiple);
                    multiple += twice;
                }
            }
            let all = G::normalize_batch(&all);
            all.chunks(MULTIPLES).map(|m| m.try_into().expect("as many as asked")).collect::<Vec<_>>()
        });
        Self(rows.collect())
    }
}

/// Signed digits of a scalar, of the smaller of it and its negative.
fn digits(c: &Fr) -> Vec<i8> {
    let (plus, minus) = (c.into_bigint(), (-*c).into_bigint());
    let (small, sign) = if minus < plus { (minus, -1) } else { (plus, 1) };
    let naf = small.find_wnaf(WINDOW).expect("the window is in range");
    naf.into_iter().map(|d| sign * d as i8).collect()
}

/// `sum c_k P_k`, each point with its multiples.
fn straus<G: CurveGroup<ScalarField = Fr>>(terms: &[(&[G::Affine; MULTIPLES], &Fr)]) -> G {
    let terms: Vec<(&[G::Affine; MULTIPLES], Vec<i8>)> = terms.iter().map(|(table, c)| (*table, digits(c))).collect();
    let mut sum = G::zero();
    for bit in (0..terms.iter().map(|(_, d)| d.len()).max().unwrap_or(0)).rev() {
        sum.double_in_place();
        for (table, digits) in &terms {
            match digits.get(bit).copied().unwrap_or(0) {
                0 => {}
                d if d > 0 => sum += table[d as usize / 2],
                d => sum -= table[-d as usize / 2],
            }
        }
    }
    sum
}

/// One point a column: the sum over `parts`, each a table and its columns.
fn apply<'a, G: CurveGroup<ScalarField = Fr>>(
    what: &'static str,
    parts: &[(&'a Table<G>, &'a [Vec<Term>])],
    progress: Progress<'_>,
) -> Vec<G::Affine> {
    let count = parts[0].1.len();
    let mut out = Vec::with_capacity(count);
    for from in (0..count).step_by(BATCH) {
        let batch: Vec<G> = (from..count.min(from + BATCH))
            .into_par_iter()
            .map(|j| {
                let of = |(table, columns): &(&'a Table<G>, &'a [Vec<Term>])| {
                    let table = *table;
                    columns[j].iter().map(move |(c, i)| (&table.0[*i as usize], c))
                };
                let terms: Vec<_> = parts.iter().flat_map(of).collect();
                terms.par_chunks(TERMS_MAX).map(straus::<G>).reduce(G::zero, |a, b| a + b)
            })
            .collect();
        out.extend(G::normalize_batch(&batch));
        progress(what, out.len() as u64, count as u64);
    }
    out
}

/// Computes the key's vectors.
pub(super) fn evaluate(matrices: &Matrices, radix: &Radix, progress: Progress<'_>) -> Initial {
    let [a, b, c] = [0, 1, 2].map(|which| columns(matrices, which));
    let l = Table::<G1Projective>::of(&radix.l_g1);
    let a_g1 = apply("A", &[(&l, &a[..])], progress);
    let b_g1 = apply("B in G1", &[(&l, &b[..])], progress);
    let ic_and_l = {
        let (beta, alpha) = (Table::of(&radix.beta_l), Table::of(&radix.alpha_l));
        apply("L", &[(&beta, &a[..]), (&alpha, &b[..]), (&l, &c[..])], progress)
    };
    drop(l);
    let l_g2 = Table::<G2Projective>::of(&radix.l_g2);
    let b_g2 = apply("B in G2", &[(&l_g2, &b[..])], progress);
    Initial { a: a_g1, b_g1, b_g2, ic_and_l }
}

/// One random coefficient a column, and what the rows' become by the matrices.
pub(super) struct Combination {
    pub(super) rho: Vec<Fr>,
    rows: [Vec<Fr>; 3],
}

impl Combination {
    /// Over these columns; the others have 0.
    pub(super) fn new(matrices: &Matrices, m: usize, over: std::ops::Range<usize>, rng: &mut dyn Random) -> Self {
        let mut rho = vec![Fr::zero(); over.start];
        rho.extend(coefficients(over.len(), rng));
        rho.resize(matrices.inputs + matrices.witnesses, Fr::zero());
        let rows = [0, 1, 2].map(|which| {
            let mut rows: Vec<Fr> =
                matrices.abc[which].par_iter().map(|row| row.iter().map(|(c, j)| *c * rho[*j]).sum()).collect();
            if which == 0 {
                rows.extend_from_slice(&rho[..matrices.inputs]);
            }
            rows.resize(m, Fr::zero());
            rows
        });
        Self { rho, rows }
    }

    /// `sum rho_j (beta A_j + alpha B_j + C_j)`
    pub(super) fn ic_and_l(&self, radix: &Radix) -> G1Affine {
        let [a, b, c] = &self.rows;
        let sum: G1Projective = combine::<G1Projective>(&radix.beta_l, a)
            + combine::<G1Projective>(&radix.alpha_l, b)
            + combine::<G1Projective>(&radix.l_g1, c);
        sum.into_affine()
    }

    /// `sum rho_j A_j`
    pub(super) fn a(&self, radix: &Radix) -> G1Affine {
        combine::<G1Projective>(&radix.l_g1, &self.rows[0]).into_affine()
    }

    /// `sum rho_j B_j` in both groups
    pub(super) fn b(&self, radix: &Radix) -> (G1Affine, G2Affine) {
        let rows = &self.rows[1];
        (
            combine::<G1Projective>(&radix.l_g1, rows).into_affine(),
            combine::<G2Projective>(&radix.l_g2, rows).into_affine(),
        )
    }
}
