//! Storage statement in R1CS: the prover had the cells that the seed picks from everything under `root`.
//!
//! Relation    for each sample k a cell opens, level by level, to a segment root, the stored root, a database root and one of the nodes, at most
//!             16, that lie two levels below the sum root and are opened to it once for all samples;
//!             its place is the one that `digest(Challenge, [seed, floor(k / 2)])` names: even k among all `T` cells by its lowest word, odd k
//!             in database `floor(a n / 2^64)` at `floor(b stored / 2^64)` by the next two. `root` is the holdings root over (n, sum root, T), or, where a
//!             challenge names one database, that database's root; then n = 1 and T is its stored cells
//! Public      `[root, T, seed]`, order fixed by `types::statement::Storage`
//! Witness     cells and paths. The depth of a segment tree follows from the cell count in the segment root, that of the holdings
//!             from n; that of the stored tree is free, because a segment root is another output word than an inner sum node:
//!             a path of another length would need one hash to equal another
//! Counts      every weight beside the path is below what its level can hold, 2^40 at most, and T is below 2^40; sums of a few dozen of them do
//!             not wrap, so `stored <= T` is below 2^40 too. Without it a liar's siblings of weight r - k would move every sample onto
//!             cells it kept
//! Native      `native.rs`, compared in `tests.rs`
//! Size        pinned in `circuits/shapes.toml`, checked by the tests
//! Source      DESIGN sections 4 and 6; `docs/protocol/statements.md`
//! Deviations  a sibling or shared node of weight 0 may carry a digest here, which `crypto::sum_tree` refuses: no sample can land on it

use crate::gadget::{CellValues, canonical_bits, count, fr, levels, open_cell, pick, pick_equals, power, scaled};
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
        let children = self.top(cs, &holdings_active, &top, &total)?;

        let shared = Shared { total, seed, databases, holdings_active, children };
        for first in (0..self.shape.samples).step_by(2) {
            let bits = challenge(cs, &shared.seed, first / 2)?;
            let words: [Num; 3] = std::array::from_fn(|i| Num::from_bits(&bits[64 * i..64 * (i + 1)], 0));
            for k in first..self.shape.samples.min(first + 2) {
                self.sample(cs, k, &shared, &words)?;
            }
        }
        Ok(())
    }

    /// The nodes under the top levels of the tree over databases, all of them, opened once: each sample picks its own among them.
    ///
    /// Levels that are not there have one node, the first, which passes through; the others weigh nothing. A sample's node weighs at least
    /// one cell, so it cannot be one of those.
    fn top(&self, cs: &mut Cs, active: &[Num], top: &Num, total: &Num) -> Result<Vec<Weighted>, SynthesisError> {
        let own = self.shape.own_holdings_levels();
        let active = &active[own as usize..];
        let mut children = Vec::new();
        for i in 0..1usize << (2 * active.len()) {
            let value = self.witness.as_ref().and_then(|w| w.top.get(i)).copied().unwrap_or_default();
            let digest = cs.witness("top child", value.0)?;
            let weight = cs.witness("top child weight", Fr::from(value.1))?;
            cs.range("top child weight fits its level", &weight, super::holdings_bits(self.shape, own))?;
            children.push(Weighted { digest, weight });
        }
        let mut nodes = children.clone();
        for there in active {
            let rest = Num::sum(nodes[1..].iter().map(|node| &node.weight));
            cs.enforce_zero_if("absent top level weighs nothing", &(&Num::one() - there), &rest)?;
            let mut above = Vec::with_capacity(nodes.len() / 4);
            for (i, four) in nodes.chunks(4).enumerate() {
                let input = std::array::from_fn(|k| if k % 2 == 0 { &four[k / 2].digest } else { &four[k / 2].weight });
                let digest = compress(cs, NodeKind::Sum, &input.map(Num::clone))?;
                let weight = cs.name("top node weight", &Num::sum(four.iter().map(|node| &node.weight)))?;
                let digest = if i == 0 {
                    cs.select("top level", there, &digest, &four[0].digest)?
                } else {
                    // A node over nothing is 0, not the hash of zeros.
                    let empty = cs.is_zero("top node is empty", &weight)?;
                    cs.product("top node", &digest, &(&Num::one() - &empty))?
                };
                above.push(Weighted { digest, weight });
            }
            nodes = above;
        }
        cs.enforce_equal("shared digest", &nodes[0].digest, top)?;
        cs.enforce_equal("shared weight", &nodes[0].weight, total)?;
        Ok(children)
    }

    /// `words` are those of the hash that the sample shares with its neighbour: one is the even sample's, two the odd one's.
    fn sample(&self, cs: &mut Cs, k: u32, shared: &Shared, words: &[Num; 3]) -> Result<(), SynthesisError> {
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
        for l in 0..self.shape.stored_levels {
            let bits = super::stored_bits(self.shape, l);
            let l = l as usize;
            let there = cs.boolean("stored level", sample.is_some_and(|s| l < s.stored.levels.len()))?;
            // Levels fill from the bottom: one form for each depth.
            cs.enforce_zero_if("stored level order", &there, &(&Num::one() - &before))?;
            let siblings = Siblings::of(sample.map(|s| &s.stored), l);
            let (up, skipped, _) = sum_level(cs, &at, &siblings, &there, bits)?;
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

        // The database, up to the node that all samples share (or nothing at all where there is one database).
        let mut at = Weighted { digest: database_root, weight: stored.clone() };
        let offset_in_database = offset.clone();
        let mut place = Num::zero();
        let own = self.shape.own_holdings_levels() as usize;
        for (l, there) in shared.holdings_active[..own].iter().enumerate() {
            let siblings = Siblings::of(sample.map(|s| &s.holdings), l);
            let bits = super::holdings_bits(self.shape, l as u32);
            let (up, skipped, digit) = sum_level(cs, &at, &siblings, there, bits)?;
            at = up;
            offset = &offset + &skipped;
            place.add_scaled(&digit, power(2 * l as u32));
        }
        let slot = sample.map_or(0, |s| s.holdings.slot) >> (2 * own) & (shared.children.len() as u64 - 1);
        let digits = cs.bits("top digit", slot.into(), shared.children.len().ilog2())?;
        let digests: Vec<Num> = shared.children.iter().map(|node| node.digest.clone()).collect();
        let weights: Vec<Num> = shared.children.iter().map(|node| node.weight.clone()).collect();
        pick_equals(cs, "top digest", &digests, &digits, &at.digest)?;
        pick_equals(cs, "top weight", &weights, &digits, &at.weight)?;
        let before: Vec<Num> = (0..weights.len()).map(|i| Num::sum(&weights[..i])).collect();
        offset = &offset + &pick(cs, "top before", &before, &digits)?;
        place.add_scaled(&Num::from_bits(&digits, 0), power(2 * own as u32));

        // The place the seed asks for.
        let [first, a, b] = words;
        if k.is_multiple_of(2) {
            scaled(cs, "place by size", first, &shared.total, &offset)
        } else {
            // A place at or beyond n cannot be asked for, so digits of absent levels are 0.
            scaled(cs, "database by number", a, &shared.databases, &place)?;
            scaled(cs, "place in database", b, &stored, &offset_in_database)
        }
    }
}

/// The bits of the hash that samples `2 pair` and `2 pair + 1` share.
fn challenge(cs: &mut Cs, seed: &Num, pair: u32) -> Result<Vec<Num>, SynthesisError> {
    let start = Num::constant(fr(DigestTag::Challenge.start(2)));
    let z = Num::zero();
    let input = [start, seed.clone(), Num::constant(u64::from(pair)), z.clone(), z.clone(), z.clone(), z.clone(), z];
    let challenge = compress(cs, NodeKind::Digest, &input)?;
    canonical_bits(cs, "challenge bits", &challenge)
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
    /// The nodes that samples pick from, in order.
    children: Vec<Weighted>,
}

/// A digest and the cells under it.
#[derive(Clone)]
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

/// One level of a sum tree, with weights of so many bits: the node above `own`, the weight before it, and the digit of its place.
///
/// The own child is inserted among its siblings by exchanging neighbours: with `m_i` = (digit >= i) and
/// `p_i = m_i (s_{i-1} - own)`, the children are `own + p_1, s_0 - p_1 + p_2, s_1 - p_2 + p_3, s_2 - p_3`.
fn sum_level(
    cs: &mut Cs,
    own: &Weighted,
    siblings: &Siblings,
    there: &Num,
    bits: u32,
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
        cs.range("sum weight fits its level", &weight, bits)?;
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
    // Three weights that do not wrap add up to 0 only where each is 0; then nothing stands before either.
    cs.enforce_zero_if("absent level weighs nothing", &(&Num::one() - there), &added)?;
    let weight = cs.name("sum total", &(&own.weight + &added))?;
    Ok((Weighted { digest, weight }, before, digit))
}
