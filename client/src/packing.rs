//! How sums share a lane: several integers, each in its own bits of one scalar.
//!
//! ```text
//! scalar of row i, before its mask = S_0(i) + S_1(i) 2^shift_1 + S_2(i) 2^shift_2 + ..
//! ```
//! Why     a count needs 26 bits and an int64's sum 89, a scalar has 254: one scalar a sum was seven times a row's own bytes.
//! Range   every `|S_k|` is below `2^(bits_k - 1)`: values are below `2^v`, a projection has at most 2^24 rows in its live segments, and
//!         `bits = v + 25`. So the whole is below `2^253 < r/2` in magnitude, nothing wraps, and no sum reaches into the next one's bits,
//!         in a row, in a range, or added over all live segments.
//! Mask    one a scalar, uniform in Fr: it hides all that stand in it. A grant of a lane's masks is a grant of every sum in it.
//! Source  `docs/decisions/0014-packed-sums.md`, `docs/protocol/segment.md`

use crate::seal::SEGMENT_ROWS_MAX;
use fluence_crypto::Fr;
use fluence_types::LaneId;
use fluence_types::limits::LIVE_SEGMENTS_MAX;
use num_bigint::BigInt;

/// Bits of a scalar that sums may fill: `2^253 < r/2`.
pub const PACKED_BITS_MAX: u32 = 254;
/// Rows in the live segments of a projection, as a power of two.
const ROWS_LOG2: u32 = 24;
const _: () = assert!(SEGMENT_ROWS_MAX * LIVE_SEGMENTS_MAX <= 1 << ROWS_LOG2);

/// Where a sum stands: a lane, and bits of its scalars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SumField {
    /// The lane.
    pub lane: LaneId,
    /// Bits below it.
    pub shift: u32,
    /// Its bits, the sign among them.
    pub bits: u32,
}

impl SumField {
    /// Its sum in the integer of a lane.
    #[must_use]
    pub fn of(&self, packed: &BigInt) -> BigInt {
        let one = BigInt::from(1u32);
        // What stands below is less than half of 2^shift in magnitude, whatever its sign.
        let rounded: BigInt = if self.shift == 0 { packed.clone() } else { packed + (&one << (self.shift - 1)) };
        let half = &one << (self.bits - 1);
        // `>>` rounds down, and `& mask` is modulo 2^bits, of negative numbers too.
        (((rounded >> self.shift) + &half) & ((one << self.bits) - 1u32)) - half
    }

    /// What its sum is multiplied by in the scalar.
    pub(crate) fn factor(&self) -> Fr {
        (0..self.shift).fold(Fr::from(1u64), |f, _| f + f)
    }
}

/// Bits of a sum of values below `2^value_bits` in magnitude.
pub(crate) const fn field_bits(value_bits: u32) -> u32 {
    value_bits + ROWS_LOG2 + 1
}

/// Places sums of these bits in lanes from `first`: each in the first lane that has room for it.
pub(crate) fn pack(first: usize, bits: impl IntoIterator<Item = u32>) -> Vec<SumField> {
    let mut filled: Vec<u32> = Vec::new();
    let place = |bits: u32| {
        debug_assert!(bits <= PACKED_BITS_MAX, "the widest product is 213 bits");
        let at = filled.iter().position(|f| f + bits <= PACKED_BITS_MAX).unwrap_or(filled.len());
        if at == filled.len() {
            filled.push(0);
        }
        let shift = filled[at];
        filled[at] += bits;
        SumField { lane: LaneId((first + at) as u16), shift, bits }
    };
    bits.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn sums_keep_to_their_bits() {
        let mut rng = StdRng::seed_from_u64(11);
        for _ in 0..500 {
            let widths: Vec<u32> = (0..rng.gen_range(1..20)).map(|_| rng.gen_range(26..=213)).collect();
            let fields = pack(3, widths.iter().copied());
            assert_eq!(fields.len(), widths.len());
            for lane in fields.iter().map(|f| f.lane) {
                let here: Vec<&SumField> = fields.iter().filter(|f| f.lane == lane).collect();
                assert!(here.iter().map(|f| f.bits).sum::<u32>() <= PACKED_BITS_MAX);
                // The extremes, and anything between.
                let values: Vec<BigInt> = here
                    .iter()
                    .map(|f| {
                        let top = (BigInt::from(1u32) << (f.bits - 1)) - 1u32;
                        match rng.gen_range(0..5) {
                            0 => -top,
                            1 => top,
                            2 => BigInt::from(0u32),
                            3 => BigInt::from(-1),
                            _ => top / rng.gen_range(-9i32..-1),
                        }
                    })
                    .collect();
                let packed: BigInt = here.iter().zip(&values).map(|(f, v)| v << f.shift).sum();
                assert!(packed.magnitude().bits() <= 253);
                for (field, value) in here.iter().zip(&values) {
                    assert_eq!(field.of(&packed), *value, "{field:?} of {packed}");
                }
            }
        }
    }

    #[test]
    fn a_sum_goes_where_there_is_room() {
        let at = |f: &SumField| (f.lane.0, f.shift, f.bits);
        let fields = pack(5, [26, 213, 89, 89, 26, 89]);
        let places: Vec<_> = fields.iter().map(at).collect();
        assert_eq!(places, [(5, 0, 26), (5, 26, 213), (6, 0, 89), (6, 89, 89), (6, 178, 26), (7, 0, 89)]);
        assert_eq!(fields[4].factor(), (0..178).fold(Fr::from(1u64), |f, _| f * Fr::from(2u64)));
    }
}
