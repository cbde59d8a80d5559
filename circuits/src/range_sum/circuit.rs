//! Range sum statement in R1CS: `C` is the sum, over every live segment of a projection, of `P[hi-1] - P[lo-1]` of one lane.
//!
//! Relation    the database root opens to the projection's entry in the catalogue, the entry to the exact list of live segments. For
//!             each, cell `1 + lane` says where the lane lies; `hi <= rows`; the two cells that hold row `hi-1` and row `lo-1` open to the
//!             segment's root. `lo = 0` has no lower term, `lo = hi` contributes nothing
//! Public      `[database root, query digest, C]`, order fixed by `types::statement::RangeSum`
//! Witness     entry, paths, cells. The number of live segments is bound twice, in the entry and in the digest of the list; slots of
//!             the shape beyond it are zero in that digest, absent from the query's, and contribute nothing
//! Trust       that lanes do not overlap and that the writer summed honestly is checked by members, or is the writer's word
//! Native      `native.rs`, compared in `tests.rs`
//! Size        pinned in `circuits/shapes.toml`, checked by the tests
//! Source      DESIGN sections 3 and 6; `docs/protocol/statements.md`
//! Deviations  none

use crate::gadget::{CellValues, OpenedCell, count, fr, levels, node, open_cell, pick, power};
use crate::poseidon2::compress;
use crate::r1cs::{Cs, Num};
use crate::range_sum::SEGMENTS_MAX;
use crate::{Circuit, WitnessError};
use ark_bls12_381::Fr;
use ark_ff::{One, Zero};
use ark_relations::gr1cs::{ConstraintSynthesizer, ConstraintSystemRef, SynthesisError};
use fluence_crypto::witness::{RangeSumSegment, RangeSumWitness};
use fluence_types::FieldBytes;
use fluence_types::limits::{CATALOGUE_LEVELS, COUNT_BITS};
use fluence_types::segment::LaneKind;
use fluence_types::shape::{CircuitId, RangeSumShape};
use fluence_types::statement::{RangeSum, RowRange};
use fluence_types::tree::{DigestTag, NodeKind, TREE_VERSION};

/// Bits of a lane number: there are at most 256.
const LANE_BITS: u32 = 8;

/// One statement with its witness, or a blank of the same form for making keys.
#[derive(Clone, Debug)]
pub struct RangeSumCircuit {
    shape: RangeSumShape,
    inputs: [Fr; 3],
    statement: Option<RangeSum>,
    witness: Option<RangeSumWitness>,
}

impl RangeSumCircuit {
    /// The circuit for a statement and its witness. A witness that does not fit makes an unsatisfied circuit, not a panic:
    /// [`super::check_range_sum`] says what is wrong with it.
    #[must_use]
    pub fn new(shape: RangeSumShape, statement: RangeSum, witness: RangeSumWitness) -> Self {
        Self { shape, inputs: statement.public_inputs().map(fr), statement: Some(statement), witness: Some(witness) }
    }

    /// The circuit without values, for making a key.
    #[must_use]
    pub fn blank(shape: RangeSumShape) -> Self {
        Self { shape, inputs: [Fr::zero(); 3], statement: None, witness: None }
    }

    #[cfg(test)]
    pub(crate) fn set_input(&mut self, position: usize, value: Fr) {
        self.inputs[position] = value;
    }

    pub(crate) fn synthesize(&self, cs: &mut Cs) -> Result<(), SynthesisError> {
        if self.shape.segments > SEGMENTS_MAX {
            return Err(SynthesisError::Unsatisfiable);
        }
        let [root, query_digest, sum] = self.inputs;
        let (root, query_digest, sum) = (cs.input(root)?, cs.input(query_digest)?, cs.input(sum)?);
        let z = Num::zero();

        // Which slots hold a live segment: the first n.
        let live = self.witness.as_ref().map_or(0, |w| w.segments.len());
        let mut active: Vec<Num> = Vec::new();
        for j in 0..self.shape.segments as usize {
            let flag = cs.boolean("live", j < live)?;
            if let Some(before) = active.last() {
                cs.enforce_zero_if("live in order", &flag, &(&Num::one() - before))?;
            }
            active.push(flag);
        }
        let n = Num::sum(&active);

        let lane = self.witness.as_ref().map_or(0, |w| w.query.lane.0);
        let lane = Num::from_bits(&cs.bits("lane", u64::from(lane).into(), LANE_BITS)?, 0);

        // Each segment: its root in the list of live ones, its range in the query, its share of C.
        let (mut roots, mut ranges, mut terms) = (Vec::new(), Vec::new(), Num::zero());
        for (j, active) in active.iter().enumerate() {
            let witness = self.witness.as_ref().and_then(|w| {
                let segment = w.segments.get(j)?;
                Some((segment, w.query.ranges.get(j).copied().unwrap_or_default()))
            });
            let segment = self.segment(cs, witness, active, &lane)?;
            roots.push(cs.product("live segment", active, &segment.root)?);
            ranges.push(segment.range);
            terms = &terms + &segment.term;
        }
        cs.enforce_equal("sum", &terms, &sum)?;

        // The query digest: database, projection, lane, and one range for each live segment and no more.
        let catalogue = self.witness.as_ref().map(|w| &w.catalogue);
        let db_scalars = catalogue.map_or([Fr::zero(); 8], |c| c.db.scalars().map(fr));
        let db = cs.witness("database id", db_scalars[1])?;
        let projection = catalogue.map_or(0, |c| c.entry.projection.0);
        let projection_bits = cs.bits("projection", u64::from(projection).into(), 3 * CATALOGUE_LEVELS as u32)?;
        let projection = cs.name("projection named", &Num::from_bits(&projection_bits, 0))?;
        let lane = cs.name("lane named", &lane)?;
        let list = [&[db.clone(), projection.clone(), lane], &ranges[..]].concat();
        let start = &Num::constant(fr(DigestTag::RangeSum.start(3))) + &n;
        let mut digest = start;
        for (c, chunk) in list.chunks(7).enumerate() {
            let input: [Num; 8] =
                std::array::from_fn(|i| if i == 0 { digest.clone() } else { chunk.get(i - 1).unwrap_or(&z).clone() });
            let next = compress(cs, NodeKind::Digest, &input)?;
            // A later chunk is there where its first slot is live.
            digest = if c == 0 { next } else { cs.select("query chunk", &active[7 * c - 3], &next, &digest)? };
        }
        cs.enforce_equal("query digest", &digest, &query_digest)?;

        // The list of live segments, the entry, the catalogue, the database root.
        let start = &Num::constant(fr(DigestTag::Live.start(0))) + &n;
        let input: [Num; 8] =
            std::array::from_fn(|i| if i == 0 { start.clone() } else { roots.get(i - 1).unwrap_or(&z).clone() });
        let live_digest = compress(cs, NodeKind::Digest, &input)?;
        let entry = catalogue.map_or([Fr::zero(); 8], |c| c.entry.scalars(FieldBytes::ZERO).map(fr));
        let [version, schema_hi, schema_lo, table] = [1, 2, 3, 6].map(|i| cs.witness("entry", entry[i]));
        let input = [projection, version?, schema_hi?, schema_lo?, n, live_digest, table?, z.clone()];
        let mut running = compress(cs, NodeKind::Catalogue, &input)?;
        for l in 0..CATALOGUE_LEVELS {
            let siblings = catalogue.map_or([Fr::zero(); 7], |c| c.path[l].map(fr));
            (running, _) = node(cs, NodeKind::Catalogue, &running, &projection_bits[3 * l..3 * l + 3], &siblings)?;
        }
        let [stored_root, stored_cells, aux] = [2, 3, 5].map(|i| cs.witness("database", db_scalars[i]));
        let version = Num::constant(TREE_VERSION);
        let input = [version, db, stored_root?, stored_cells?, running, aux?, z.clone(), z];
        let database_root = compress(cs, NodeKind::Database, &input)?;
        cs.enforce_equal("database root", &database_root, &root)
    }

    fn segment(
        &self,
        cs: &mut Cs,
        witness: Option<(&RangeSumSegment, RowRange)>,
        active: &Num,
        lane: &Num,
    ) -> Result<Segment, SynthesisError> {
        let bits = 3 * self.shape.tree_levels;
        let (segment, RowRange { lo, hi }) = match witness {
            Some((segment, range)) => (Some(segment), range),
            None => (None, RowRange::default()),
        };
        let scalars = segment.map_or([Fr::zero(); 8], |s| s.preimage.scalars().map(fr));
        let last = segment.map_or(0, |s| s.preimage.cells.saturating_sub(1));
        let last_bits = cs.bits("segment cells", last.into(), bits)?;
        let last = Num::from_bits(&last_bits, 0);
        let levels = levels(cs, "segment levels", &last_bits, 3)?;
        let tree_root = cs.witness("tree root", scalars[0])?;
        let root = {
            let cells = cs.name("segment cells named", &(&Num::one() + &last))?;
            let [hi, lo] = [cs.witness("header hash", scalars[2])?, cs.witness("header hash", scalars[3])?];
            let [z, version] = [0, TREE_VERSION].map(Num::constant);
            compress(cs, NodeKind::Segment, &[tree_root.clone(), cells, hi, lo, version, z.clone(), z.clone(), z])?
        };

        // Where the lane lies: cell 1 + lane of the header.
        let values = segment.map(|s| CellValues::from(&s.directory)).unwrap_or_default();
        let directory = open_cell(cs, &values, &last, &levels)?;
        cs.enforce_zero_if("directory path", active, &(&directory.root - &tree_root))?;
        cs.enforce_zero_if("directory index", active, &(&directory.index - &(&Num::one() + lane)))?;
        let [kind, first, cells, rows, zeros @ ..] = &directory.cell;
        cs.enforce_zero_if("lane kind", active, &(kind - &Num::constant(LaneKind::Sum as u64)))?;
        for zero in zeros {
            cs.enforce_zero_if("directory padding", active, zero)?;
        }
        cs.range("lane first cell", first, bits)?;
        // The lane has just the cells that its rows fill, so a row below `rows` is in one of them.
        cs.range("lane cells", cells, bits)?;
        cs.range("lane rows", &(&cells.scale(8u64) - rows), 3)?;

        // lo <= hi <= rows. Where there is no segment both are 0, so that the query has no range for it.
        let lo = Num::from_bits(&cs.bits("lo", lo.into(), COUNT_BITS)?, 0);
        let hi = Num::from_bits(&cs.bits("hi", hi.into(), COUNT_BITS)?, 0);
        let (lo, hi) = (cs.name("lo named", &lo)?, cs.name("hi named", &hi)?);
        count(cs, "lo at most hi", &(&hi - &lo))?;
        count(cs, "hi at most rows", &(rows - &hi))?;
        cs.enforce_zero_if("range of no segment", &(&Num::one() - active), &(&lo + &hi))?;
        let empty = cs.is_zero("empty run", &(&hi - &lo))?;
        let first_row = cs.is_zero("run from the first row", &lo)?;
        let upper = &Num::one() - &empty;
        let lower = cs.product("lower term", &upper, &(&Num::one() - &first_row))?;

        let mut term = Num::zero();
        for (wanted, end, opening, sign) in [
            (&upper, &hi, segment.and_then(|s| s.hi.as_ref()), Fr::one()),
            (&lower, &lo, segment.and_then(|s| s.lo.as_ref()), -Fr::one()),
        ] {
            let values = opening.map(CellValues::from).unwrap_or_default();
            let opened = open_cell(cs, &values, &last, &levels)?;
            let value = prefix_sum(cs, &opened, wanted, end, first, &tree_root)?;
            term.add_scaled(&value, sign);
        }
        let mut range = lo;
        range.add_scaled(&hi, power(COUNT_BITS));
        Ok(Segment { root, range, term })
    }
}

/// `P[end - 1]` out of its cell, or 0 where it is not wanted; enforced to be the lane's scalar at that row where it is.
fn prefix_sum(
    cs: &mut Cs,
    opened: &OpenedCell,
    wanted: &Num,
    end: &Num,
    first_cell: &Num,
    tree_root: &Num,
) -> Result<Num, SynthesisError> {
    cs.enforce_zero_if("sum path", wanted, &(&opened.root - tree_root))?;
    let row = end.int().wrapping_sub(1);
    let word = cs.bits("row in cell", if wanted.is_set() { row % 8 } else { 0 }.into(), 3)?;
    // Integers below 2^41 on both sides, and a rest below 8: cell and word are the only ones of that row.
    let at = &(&opened.index - first_cell).scale(8u64) + &Num::from_bits(&word, 0);
    cs.enforce_zero_if("row", wanted, &(&at - &(end - &Num::one())))?;
    let value = pick(cs, "prefix sum", &opened.cell, &word)?;
    cs.product("term", wanted, &value)
}

impl Circuit for RangeSumCircuit {
    fn id(&self) -> CircuitId {
        CircuitId::RangeSum(self.shape)
    }

    fn public_inputs(&self) -> Option<[FieldBytes; 3]> {
        self.statement.as_ref().map(RangeSum::public_inputs)
    }

    fn check(&self) -> Result<(), WitnessError> {
        match (&self.statement, &self.witness) {
            (Some(statement), Some(witness)) => super::check_range_sum(self.shape, statement, witness),
            _ => Err(WitnessError::Blank),
        }
    }
}

impl ConstraintSynthesizer<Fr> for RangeSumCircuit {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        self.synthesize(&mut Cs::new(cs))
    }
}

struct Segment {
    root: Num,
    range: Num,
    term: Num,
}
