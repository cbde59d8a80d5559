//! Between field bytes and field elements: 32 bytes, big-endian, canonical.
//!
//! Rule    [`FieldBytes`] is always below r, so nothing here can fail on bytes from outside.

use crate::Fr;
use ark_ff::{BigInt, PrimeField, Zero};
use fluence_types::FieldBytes;
use fluence_types::tree::Cell;

/// The canonical bytes of a field element.
#[must_use]
pub fn to_bytes(f: &Fr) -> FieldBytes {
    let limbs = f.into_bigint().0;
    let mut bytes = [0; 32];
    for (chunk, limb) in bytes.rchunks_exact_mut(8).zip(limbs) {
        chunk.copy_from_slice(&limb.to_be_bytes());
    }
    FieldBytes::from_canonical(bytes).expect("ark keeps elements below r")
}

/// The field element of canonical bytes.
#[must_use]
pub fn from_bytes(b: &FieldBytes) -> Fr {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(b.as_bytes().rchunks_exact(8)) {
        *limb = u64::from_be_bytes(chunk.try_into().expect("chunks of 8"));
    }
    Fr::from_bigint(BigInt(limbs)).expect("FieldBytes are below r")
}

/// A cell as field elements.
#[must_use]
pub fn cell_to_fr(c: &Cell) -> [Fr; 8] {
    std::array::from_fn(|i| from_bytes(&c[i]))
}

/// A cell as bytes.
#[must_use]
pub fn cell_from_fr(c: &[Fr; 8]) -> Cell {
    std::array::from_fn(|i| to_bytes(&c[i]))
}

/// A signed integer as a field element; negative ones are `r - |value|`.
#[must_use]
pub fn i128_to_fr(value: i128) -> Fr {
    let magnitude = Fr::from(value.unsigned_abs());
    if value < 0 { -magnitude } else { magnitude }
}

/// The signed integer of a field element, if it is one in the range of `i128`.
#[must_use]
pub fn fr_to_i128(f: &Fr) -> Option<i128> {
    let small = |f: &Fr| match f.into_bigint().0 {
        [lo, hi, 0, 0] => Some(u128::from(lo) | u128::from(hi) << 64),
        _ => None,
    };
    if let Some(magnitude) = small(f) {
        return i128::try_from(magnitude).ok();
    }
    // 2^127 is the magnitude of i128::MIN and of no other i128, so negation goes through the wrapped value.
    let magnitude = small(&-*f).filter(|m| *m <= 1 << 127)?;
    debug_assert!(!f.is_zero());
    Some((magnitude as i128).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::field::MODULUS_BE;

    #[test]
    fn bytes_round_trip_at_the_edges() {
        let mut top = MODULUS_BE;
        top[31] -= 1;
        for bytes in [[0; 32], FieldBytes::from_u128(u128::MAX).to_bytes(), top] {
            let f = FieldBytes::from_canonical(bytes).unwrap();
            assert_eq!(to_bytes(&from_bytes(&f)), f);
        }
        assert_eq!(from_bytes(&FieldBytes::from_canonical(top).unwrap()), -Fr::from(1u64));
        assert_eq!(from_bytes(&FieldBytes::from_u128(1 << 64 | 5)), Fr::from(1u128 << 64 | 5));
    }

    #[test]
    fn signed_integers_round_trip_and_others_are_refused() {
        for v in [0, 1, -1, i128::MAX, i128::MIN, i128::MIN + 1, 1 << 64, -(1 << 64)] {
            assert_eq!(fr_to_i128(&i128_to_fr(v)), Some(v), "{v}");
        }
        let past = Fr::from(1u128 << 127);
        assert_eq!(fr_to_i128(&past), None);
        assert_eq!(fr_to_i128(&(-past - Fr::from(1u64))), None);
        assert_eq!(fr_to_i128(&(past * past)), None);
    }
}
