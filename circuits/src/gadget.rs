//! Pieces both statements share: choosing a child, depth from a bound count, canonical bits, a path up a tree.

use crate::poseidon2;
use crate::r1cs::{Cs, Num};
use ark_bls12_381::Fr;
use ark_ff::{BigInteger, One, PrimeField};
use ark_relations::gr1cs::SynthesisError;
use fluence_crypto::field;
use fluence_types::FieldBytes;
use fluence_types::limits::COUNT_BITS;
use fluence_types::tree::NodeKind;

pub(crate) fn fr(f: FieldBytes) -> Fr {
    field::from_bytes(&f)
}

/// `2^n` as a scalar.
pub(crate) fn power(n: u32) -> Fr {
    Fr::from_bigint(Fr::one().into_bigint() << n).expect("below r")
}

/// Halves the list by each bit but the last `keep`.
fn fold(cs: &mut Cs, name: &'static str, items: &[Num], bits: &[Num]) -> Result<Vec<Num>, SynthesisError> {
    let mut items = items.to_vec();
    for bit in bits {
        items = items
            .chunks(2)
            .map(|pair| Ok(&pair[0] + &cs.product(name, bit, &(&pair[1] - &pair[0]))?))
            .collect::<Result<_, SynthesisError>>()?;
    }
    Ok(items)
}

/// `items[index]` for the index of which `bits` are the bits, lowest first.
pub(crate) fn pick(cs: &mut Cs, name: &'static str, items: &[Num], bits: &[Num]) -> Result<Num, SynthesisError> {
    Ok(fold(cs, name, items, bits)?.swap_remove(0))
}

/// Enforces `items[index] = target`; the last choice and the comparison are one constraint.
pub(crate) fn pick_equals(
    cs: &mut Cs,
    name: &'static str,
    items: &[Num],
    bits: &[Num],
    target: &Num,
) -> Result<(), SynthesisError> {
    let Some((last, bits)) = bits.split_last() else { return cs.enforce_equal(name, &items[0], target) };
    let two = fold(cs, name, items, bits)?;
    cs.enforce(name, last, &(&two[1] - &two[0]), &(target - &two[0]))
}

/// Which levels a tree over `count` things has, from the bits of `count - 1`, `per` bits a level: level l is there iff
/// `count - 1 >= 2^(per l)`. So depth is computed from the bound count, never taken from the prover.
pub(crate) fn levels(cs: &mut Cs, name: &'static str, bits: &[Num], per: usize) -> Result<Vec<Num>, SynthesisError> {
    (0..bits.len() / per)
        .map(|l| {
            let none = cs.is_zero(name, &Num::sum(&bits[per * l..]))?;
            Ok(&Num::one() - &none)
        })
        .collect()
}

/// Bits by which an integer is seen to be below r.
pub(crate) const TOP_BITS: u32 = 80;

/// The 255 bits of `x`, lowest first; they are those of the integer below r, not of that integer plus r.
///
/// The top [`TOP_BITS`] must be below those of r, so no other bits need be looked at. An `x` whose top bits are those of r has no bits here:
/// of hashes that is one in 2^80.
pub(crate) fn canonical_bits(cs: &mut Cs, name: &'static str, x: &Num) -> Result<Vec<Num>, SynthesisError> {
    let bits = cs.bits(name, x.value().into_bigint(), Fr::MODULUS_BIT_SIZE)?;
    cs.enforce_equal(name, x, &Num::from_bits(&bits, 0))?;
    // Walk the largest they may be from the top. `tight` is 1 while every bit that is 1 in it was 1: then a 1 where it has 0 makes them larger.
    let rest = (Fr::MODULUS_BIT_SIZE - TOP_BITS) as usize;
    let mut bound = Fr::MODULUS >> rest as u32;
    bound.sub_with_borrow(&1u64.into());
    bound <<= rest as u32;
    let mut tight = Num::one();
    let mut top = Fr::MODULUS_BIT_SIZE as usize;
    while top > rest {
        let ones = bound.get_bit(top - 1);
        let run = (rest..top).rev().take_while(|i| bound.get_bit(*i) == ones).count();
        let sum = Num::sum(&bits[top - run..top]);
        if ones {
            // tight AND all bits of the run: the count of ones is run + 1.
            let missing = &Num::constant(run as u64 + 1) - &(&tight + &sum);
            tight = cs.is_zero("canonical", &missing)?;
        } else {
            cs.enforce_zero_if("canonical", &tight, &sum)?;
        }
        top -= run;
    }
    Ok(bits)
}

/// Enforces `index = floor(random * total / 2^64)` for a `random` below 2^64 and counts far below r.
pub(crate) fn scaled(
    cs: &mut Cs,
    name: &'static str,
    random: &Num,
    total: &Num,
    index: &Num,
) -> Result<(), SynthesisError> {
    // Both sides stay below 2^110, so this is an equation of integers, and a rest below 2^64 makes the index the only one.
    let honest = (random.value() * total.value()).into_bigint();
    let rest = Num::from_bits(&cs.bits(name, honest, 64)?, 0);
    cs.enforce(name, random, total, &(&index.scale(power(64)) + &rest))
}

/// A cell and its path as the witness gives them, padded to the shape's levels.
pub(crate) struct OpenedCell {
    pub(crate) cell: [Num; 8],
    pub(crate) index: Num,
    pub(crate) root: Num,
}

/// Opens a cell to the root of an 8-ary tree. `last` is `cells - 1`, `active` its [`levels`].
///
/// Enforces `index < cells`. That also makes the digits of absent levels 0; a liar could else name one cell by many indices.
pub(crate) fn open_cell(
    cs: &mut Cs,
    witness: &CellValues,
    last: &Num,
    active: &[Num],
) -> Result<OpenedCell, SynthesisError> {
    let mut cell = Vec::with_capacity(8);
    for scalar in witness.cell {
        cell.push(cs.witness("cell", scalar)?);
    }
    let cell: [Num; 8] = cell.try_into().expect("eight scalars");
    let leaf = poseidon2::compress(cs, NodeKind::Cell, &cell)?;
    let digits = cs.bits("cell index", witness.index.into(), 3 * active.len() as u32)?;
    let index = Num::from_bits(&digits, 0);
    cs.range("cell index below cells", &(last - &index), digits.len() as u32)?;
    let mut running = leaf;
    for (l, active) in active.iter().enumerate() {
        let digits = &digits[3 * l..3 * l + 3];
        let (parent, _) = node(cs, NodeKind::Node, &running, digits, &witness.siblings(l))?;
        running = cs.select("tree level", active, &parent, &running)?;
    }
    Ok(OpenedCell { cell, index, root: running })
}

/// The parent of `child` at the place that `digits` name among seven siblings.
pub(crate) fn node(
    cs: &mut Cs,
    kind: NodeKind,
    child: &Num,
    digits: &[Num],
    siblings: &[Fr; 7],
) -> Result<(Num, [Num; 8]), SynthesisError> {
    let place = Num::from_bits(digits, 0).int() as usize % 8;
    let mut siblings = siblings.iter();
    let mut children = Vec::with_capacity(8);
    for i in 0..8 {
        let value = if i == place { child.value() } else { *siblings.next().expect("seven siblings") };
        children.push(cs.witness("tree child", value)?);
    }
    let children: [Num; 8] = children.try_into().expect("eight children");
    pick_equals(cs, "tree child", &children, digits, child)?;
    Ok((poseidon2::compress(cs, kind, &children)?, children))
}

/// What a witness says of a cell, of any length; the circuit reads zeros beyond it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellValues {
    pub(crate) index: u64,
    pub(crate) cell: [Fr; 8],
    pub(crate) path: Vec<[Fr; 7]>,
}

impl CellValues {
    fn siblings(&self, level: usize) -> [Fr; 7] {
        self.path.get(level).copied().unwrap_or_default()
    }
}

impl From<&fluence_crypto::witness::CellOpening> for CellValues {
    fn from(o: &fluence_crypto::witness::CellOpening) -> Self {
        Self { index: o.index, cell: o.cell, path: o.siblings.clone() }
    }
}

/// The number of a count in every statement: below 2^40.
pub(crate) fn count(cs: &mut Cs, name: &'static str, x: &Num) -> Result<Vec<Num>, SynthesisError> {
    cs.range(name, x, COUNT_BITS)
}
