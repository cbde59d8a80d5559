//! Multiples of eight points by numbers of 128 bits, a window of four bits at a time.

use ark_bls12_381::{G1Affine, G1Projective, g1};
use fluence_crypto::lanes::base;
use fluence_crypto::lanes::curve::{Point, Projective, load, one};

const WINDOW: u32 = 4;

/// `by[i] points[i]`
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn multiples(points: &[G1Affine; 8], by: &[u128; 8]) -> [G1Projective; 8] {
    let rows = points.each_ref().map(Point::from_ark::<g1::Config>);
    let absent = (0..8).fold(0, |mask, i| mask | u8::from(rows[i] == Point::INFINITY) << i);
    let infinity = Projective::<1>::infinity();
    let (x, y) = (load(&rows.each_ref().map(|p| &p.x)), load(&rows.each_ref().map(|p| &p.y)));
    let point = Projective::blend(absent, &Projective { x: base::reduce(&x), y, z: one() }, &infinity);

    let mut table = [infinity; 1 << WINDOW];
    for i in 1..table.len() {
        table[i] = if i % 2 == 0 { table[i / 2].double() } else { table[i - 1].plus(&point) };
    }
    let mut out = infinity;
    for window in (0..u128::BITS / WINDOW).rev() {
        if window + 1 < u128::BITS / WINDOW {
            for _ in 0..WINDOW {
                out = out.double();
            }
        }
        let digits = by.map(|k| (k >> (WINDOW * window)) as usize % table.len());
        let mut multiple = table[0];
        for i in 1..table.len() {
            let mask = (0..8).fold(0, |mask, lane| mask | u8::from(digits[lane] == i) << lane);
            multiple = Projective::blend(mask, &multiple, &table[i]);
        }
        out = out.plus(&multiple);
    }
    out.to_ark::<g1::Config>()
}
