//! Storage statement in R1CS: the prover had the cells that the seed picks from everything under `root`.
//!
//! Relation    for each sample k a cell opens, level by level, to a segment root, the stored root, a database root and the sum root;
//!             its place is the one that `digest(Challenge, [seed, k])` names: even k among all `T` cells, odd k in database
//!             `floor(a n / 2^64)` at `floor(b stored / 2^64)`. `root` is the holdings root over (n, sum root, T), or, where a
//!             challenge names one database, that database's root; then n = 1 and T is its stored cells
//! Public      `[root, T, seed]`, order fixed by `types::statement::Storage`
//! Witness     cells and paths. The depth of a segment tree follows from the cell count in the segment root, that of the holdings
//!             from n; that of the stored tree is free, because a segment root is another output word than an inner sum node:
//!             a path of another length would need one hash to equal another
//! Counts      every weight beside the path is below 2^40 and T is; sums of a few dozen of them do not wrap, so `stored <= T` is below 2^40
//!             too. Without it a liar's siblings of weight r - k would move every sample onto cells it kept
//! Native      `native.rs`, compared in `tests.rs`
//! Size        pinned in `circuits/shapes.toml`, checked by the tests
//! Source      DESIGN sections 4 and 6; `docs/protocol/statements.md`
//! Deviations  a sibling of weight 0 may carry a digest here, which `crypto::sum_tree` refuses: no sample can land on it

use crate::gadget::{CellValues, canonical_bits, count, fr, levels, open_cell, power, scaled};
use crate::poseidon2::compress;
use crate::r1cs::{Cs, Num};
use crate::{Circuit, WitnessError};
use ark_bls12_381::Fr;
use ark_ff::Zero;
use ark_relations::gr1cs::{ConstraintSynthesizer, ConstraintSystemRef, SynthesisError};
use fluence_crypto::sum_tree::SumPath;
use fluence_crypto::witness::StorageWitness;
use fluence_types::FieldBytes;
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::statement::Storage;
use fluence_types::tree::{DigestTag, NodeKind, TREE_VERSION};

/// One statement with its witness, or a blank of the same form for making keys.
#[derive(Clone, Debug)]
pub struct StorageCircuit {
    shape: StorageShape,
    inputs: [Fr; 3],
    statement: Option<Storage>,
    witness: Option<StorageWitness>,
}

impl StorageCircuit {
    /// The circuit for a statement and its witness. A witness that does not fit makes an unsatisfied circuit, not a panic:
    /// [`super::check_storage`] says what is wrong with it.
    #[must_use]
    pub fn new(shape: StorageShape, statement: Storage, witness: StorageWitness) -> Self {
        Self { shape, inputs: statement.public_inputs().map(fr), statement: Some(statement), witness: Some(witness) }
    }

    /// The circuit without values, for making a key.
    #[must_use]
    pub fn blank(shape: StorageShape) -> Self {
        Self { shape, inputs: [Fr::zero(); 3], statement: None, witness: None }
    }

    #[cfg(test)]
    pub(crate) fn set_input(&mut self, position: usize, value: Fr) {
        self.inputs[position] = value;
    }

    pub(crate) fn synthesize(&self, cs: &mut Cs) -> Result<(), SynthesisError> {
        let [root, total, seed] = self.inputs;
        let (root, total, seed) = (cs.input(root)?, cs.input(total)?, cs.input(seed)?);
        count(cs, "T below 2^40", &total)?;

        // What all samples share: how many databases there are, and what their digests must lead to.
        let holdings = self.witness.as_ref().and_then(|w| w.holdings);
        let single = cs.boolean("single", self.witness.is_some() && holdings.is_none())?;
        let databases = holdings.map_or(1, |h| h.databases);
        let bits = cs.bits("databases", databases.saturating_sub(1).into(), 2 * self.shape.holdings_levels)?;
        let databases_less_one = Num::from_bits(&bits, 0);
        cs.enforce_zero_if("one database", &single, &databases_less_one)?;
        let databases = &Num::one() + &databases_less_one;
        let holdings_active = levels(cs, "holdings levels", &bits, 2)?;
        let sum_root = cs.witness("sum root", holdings.map_or(Fr::zero(), |h| fr(h.sum_root)))?;
        let holdings_root = {
            let [z, version] = [0, TREE_VERSION].map(Num::constant);
            let n = cs.name("databases", &databases)?;
            let input = [version, n, sum_root.clone(), total.clone(), z.clone(), z.clone(), z.clone(), z];
            compress(cs, NodeKind::Holdings, &input)?
        };
        let not_single = &Num::one() - &single;
        cs.enforce_zero_if("holdings root", &not_single, &(&holdings_root - &root))?;
        let top = cs.select("top", &single, &root, &sum_root)?;

        let shared = Shared { total, seed, databases, holdings_active, top };
        for k in 0..self.shape.samples {
            self.sample(cs, k, &shared)?;
        }
        Ok(())
    }

    fn sample(&self, cs: &mut Cs, k: u32, shared: &Shared) -> Result<(), SynthesisError> {
        let sample = self.witness.as_ref().and_then(|w| w.samples.get(k as usize));

        // The cell, up to the segment root. Its depth follows from the cells bound there.
        let last_cell = sample.map_or(0, |s| s.segment.cells.saturating_sub(1));
        let last_bits = cs.bits("segment cells", last_cell.into(), 3 * self.shape.tree_levels)?;
        let last = Num::from_bits(&last_bits, 0);
        let active = levels(cs, "segment levels", &last_bits, 3)?;
        let opened = open_cell(cs, &sample.map(|s| CellValues::from(&s.cell)).unwrap_or_default(), &last, &active)?;
        let cells = cs.name("segment cells named", &(&Num::one() + &last))?;
        let segment_root = {
            let scalars = sample.map_or([Fr::zero(); 8], |s| s.segment.scalars().map(fr));
            let [hi, lo] = [cs.witness("header hash", scalars[2])?, cs.witness("header hash", scalars[3])?];
            let [z, version] = [0, TREE_VERSION].map(Num::constant);
            compress(cs, NodeKind::Segment, &[opened.root, cells.clone(), hi, lo, version, z.clone(), z.clone(), z])?
        };

        // The segment, up to the stored root. Levels that are not there pass the digest through and weigh nothing.
        let mut at = Weighted { digest: segment_root, weight: cells };
        let mut offset = opened.index;
        let mut before = Num::one();
        for l in 0..self.shape.stored_levels as usize {
            let there = cs.boolean("stored level", sample.is_some_and(|s| l < s.stored.levels.len()))?;
            // Levels fill from the bottom: one form for each depth.
            cs.enforce_zero_if("stored level order", &there, &(&Num::one() - &before))?;
            let siblings = Siblings::of(sample.map(|s| &s.stored), l);
            let (up, skipped, _) = sum_level(cs, &at, &siblings, &there)?;
            (at, before) = (up, there);
            offset = &offset + &skipped;
        }

        let stored = cs.name("stored cells", &at.weight)?;
        let database_root = {
            let scalars = sample.map_or([Fr::zero(); 8], |s| s.db.scalars().map(fr));
            let [db, catalogue, aux] = [scalars[1], scalars[4], scalars[5]].map(|v| cs.witness("database", v));
            let [z, version] = [0, TREE_VERSION].map(Num::constant);
            compress(
                cs,
                NodeKind::Database,
                &[version, db?, at.digest, stored.clone(), catalogue?, aux?, z.clone(), z],
            )?
        };

        // The database, up to the sum root (or nothing at all where there is one database).
        let mut at = Weighted { digest: database_root, weight: stored.clone() };
        let offset_in_database = offset.clone();
        let mut place = Num::zero();
        for (l, there) in shared.holdings_active.iter().enumerate() {
            let siblings = Siblings::of(sample.map(|s| &s.holdings), l);
            let (up, skipped, digit) = sum_level(cs, &at, &siblings, there)?;
            at = up;
            offset = &offset + &skipped;
            place.add_scaled(&digit, power(2 * l as u32));
        }
        cs.enforce_equal("top digest", &at.digest, &shared.top)?;
        cs.enforce_equal("top weight", &at.weight, &shared.total)?;

        // The place the seed asks for.
        let start = Num::constant(fr(DigestTag::Challenge.start(2)));
        let z = Num::zero();
        let input =
            [start, shared.seed.clone(), Num::constant(u64::from(k)), z.clone(), z.clone(), z.clone(), z.clone(), z];
        let challenge = compress(cs, NodeKind::Digest, &input)?;
        let bits = canonical_bits(cs, "challenge bits", &challenge)?;
        let [a, b] = [Num::from_bits(&bits[..64], 0), Num::from_bits(&bits[64..128], 0)];
        if k.is_multiple_of(2) {
            scaled(cs, "place by size", &a, &shared.total, &offset)
        } else {
            // A place at or beyond n cannot be asked for, so digits of absent levels are 0.
            scaled(cs, "database by number", &a, &shared.databases, &place)?;
            scaled(cs, "place in database", &b, &stored, &offset_in_database)
        }
    }
}

impl Circuit for StorageCircuit {
    fn id(&self) -> CircuitId {
        CircuitId::Storage(self.shape)
    }

    fn public_inputs(&self) -> Option<[FieldBytes; 3]> {
        self.statement.as_ref().map(Storage::public_inputs)
    }

    fn check(&self) -> Result<(), WitnessError> {
        match (&self.statement, &self.witness) {
            (Some(statement), Some(witness)) => super::check_storage(self.shape, statement, witness),
            _ => Err(WitnessError::Blank),
        }
    }
}

impl ConstraintSynthesizer<Fr> for StorageCircuit {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        self.synthesize(&mut Cs::new(cs))
    }
}

struct Shared {
    total: Num,
    seed: Num,
    databases: Num,
    holdings_active: Vec<Num>,
    top: Num,
}

/// A digest and the cells under it.
struct Weighted {
    digest: Num,
    weight: Num,
}

/// What the witness says of one level of a sum tree: the digit of the own child and the other three children.
#[derive(Default)]
struct Siblings {
    digit: u64,
    others: [(Fr, u64); 3],
}

impl Siblings {
    fn of(path: Option<&SumPath>, level: usize) -> Self {
        let Some((path, children)) = path.and_then(|p| Some((p, p.levels.get(level)?))) else {
            return Self::default();
        };
        let digit = path.slot >> (2 * level as u32) & 3;
        let mut others = [(Fr::zero(), 0); 3];
        let rest = children.iter().enumerate().filter(|(i, _)| *i as u64 != digit).map(|(_, c)| *c);
        others.iter_mut().zip(rest).for_each(|(o, c)| *o = c);
        Self { digit, others }
    }
}

/// One level of a sum tree: the node above `own`, the weight before it, and the digit of its place.
///
/// The own child is inserted among its siblings by exchanging neighbours: with `m_i` = (digit >= i) and
/// `p_i = m_i (s_{i-1} - own)`, the children are `own + p_1, s_0 - p_1 + p_2, s_1 - p_2 + p_3, s_2 - p_3`.
fn sum_level(
    cs: &mut Cs,
    own: &Weighted,
    siblings: &Siblings,
    there: &Num,
) -> Result<(Weighted, Num, Num), SynthesisError> {
    let digits = cs.bits("sum digit", siblings.digit.into(), 2)?;
    let digit = Num::from_bits(&digits, 0);
    let m3 = cs.product("sum digit 3", &digits[0], &digits[1])?;
    let m1 = &(&digits[0] + &digits[1]) - &m3;
    let m = [m1, digits[1].clone(), m3];

    let (mut digests, mut weights) = (Vec::with_capacity(3), Vec::with_capacity(3));
    for (digest, weight) in siblings.others {
        digests.push(cs.witness("sum sibling", digest)?);
        let weight = cs.witness("sum weight", Fr::from(weight))?;
        count(cs, "sum weight below 2^40", &weight)?;
        weights.push(weight);
    }
    let insert = |cs: &mut Cs, own: &Num, s: &[Num]| -> Result<([Num; 4], Num), SynthesisError> {
        let mut p = Vec::with_capacity(3);
        for (m, s) in m.iter().zip(s) {
            p.push(cs.product("sum insert", m, &(s - own))?);
        }
        let children = [own + &p[0], &(&s[0] - &p[0]) + &p[1], &(&s[1] - &p[1]) + &p[2], &s[2] - &p[2]];
        Ok((children, Num::sum(&p)))
    };
    let ([d0, d1, d2, d3], _) = insert(cs, &own.digest, &digests)?;
    let ([w0, w1, w2, w3], moved) = insert(cs, &own.weight, &weights)?;
    // sum m_i s_{i-1} = sum p_i + digit * own
    let before = &moved + &cs.product("sum before", &digit, &own.weight)?;

    let parent = compress(cs, NodeKind::Sum, &[d0, w0, d1, w1, d2, w2, d3, w3])?;
    let digest = cs.select("sum level", there, &parent, &own.digest)?;
    let added = Num::sum(&weights);
    // Three weights below 2^40 add up to 0 only where each is 0; then nothing stands before either.
    cs.enforce_zero_if("absent level weighs nothing", &(&Num::one() - there), &added)?;
    let weight = cs.name("sum total", &(&own.weight + &added))?;
    Ok((Weighted { digest, weight }, before, digit))
}
