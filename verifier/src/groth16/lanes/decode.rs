//! Eight compressed points: square roots, and the two subgroup checks by endomorphisms.
//!
//! Root      `p = 3 mod 4`, so `a^((p + 1) / 4)` is a root where there is one. In Fp2 by the complex method: a root of the norm, then one of
//!           `(a0 + root) / 2`, or of its negative where that has none. Whatever comes out is squared and compared with `a`
//! Subgroup  `[x^2] P = -phi(P)` in G1 and `[x] P = psi(P)` in G2, x the curve's parameter: Scott, eprint 2021/1130, section 6 and 4
//! Left out  what the method cannot do or has two forms: infinity, a root with a part that is 0. blst decides those

use ark_bls12_381::{Config, Fq, Fq2, FqConfig, G1Affine, G2Affine};
use ark_ec::bls12::Bls12Config;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{BigInt, BigInteger, Field, MontConfig, PrimeField};
use fluence_crypto::lanes::base::{self, Element, P381, fq_to_limbs};
use fluence_crypto::lanes::curve::{Projective, one};
use fluence_crypto::lanes::{self, Lanes, pack, splat, split, transpose, vector, words};
use std::sync::LazyLock;

/// Bits of a window of the exponent.
const WINDOW: usize = 5;
/// `|x|`; x is negative.
const X: u64 = Config::X[0];
/// The integer 1: a product by it takes Montgomery's factor away.
const PLAIN: [u64; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
/// A product by it makes lanes' form ark's.
const ARK: [u64; 8] = split(&<FqConfig as MontConfig<6>>::R.0);

struct Constants {
    /// A product by it makes an integer an element.
    enter: [u64; 8],
    half: [u64; 8],
    four: [u64; 8],
    /// `phi(x, y) = (beta x, y)`
    beta: [u64; 8],
    /// `psi(x, y) = (psi[0] conj(x), psi[1] conj(y))`
    psi: [[[u64; 8]; 2]; 2],
    /// `(p - 3) / 4`: so many squarings, then the product with this odd power.
    steps: Vec<(usize, usize)>,
    /// Squarings after the last.
    rest: usize,
}

/// The endomorphisms' factors are read off the generators, on which they are multiplications.
static CONSTANTS: LazyLock<Constants> = LazyLock::new(|| {
    let (g, h) = (G1Affine::generator(), G2Affine::generator());
    let phi = -g.mul_bigint([X]).into_affine().mul_bigint([X]).into_affine();
    let psi = -h.mul_bigint([X]).into_affine();
    let conjugate = |x: Fq2| Fq2::new(x.c0, -x.c1);
    let over = |a: Fq2, b: Fq2| {
        let quotient = a / conjugate(b);
        [fq_to_limbs(&quotient.c0), fq_to_limbs(&quotient.c1)]
    };
    let (steps, rest) = steps();
    Constants {
        enter: fq_to_limbs(&Fq::from(2u64).pow([416])),
        half: fq_to_limbs(&Fq::from(2u64).inverse().expect("2 is not 0")),
        four: fq_to_limbs(&Fq::from(4u64)),
        beta: fq_to_limbs(&(phi.x / g.x)),
        psi: [over(psi.x, h.x), over(psi.y, h.y)],
        steps,
        rest,
    }
});

/// Windows of the exponent from the top, each ending in a one.
fn steps() -> (Vec<(usize, usize)>, usize) {
    let mut exponent = Fq::MODULUS;
    exponent.sub_with_borrow(&BigInt::from(3u64));
    exponent >>= 2;
    let bit = |i: usize| exponent.0[i / 64] >> (i % 64) & 1 == 1;
    let (mut steps, mut pending, mut next) = (Vec::new(), 0, 64 * 6);
    while next > 0 {
        if !bit(next - 1) {
            (pending, next) = (pending + 1, next - 1);
            continue;
        }
        let low = (next.saturating_sub(WINDOW)..next).find(|i| bit(*i)).expect("the top bit of the window is a one");
        let value = (low..next).rev().fold(0, |value, i| 2 * value + usize::from(bit(i)));
        steps.push((pending + next - low, value / 2));
        (pending, next) = (0, low);
    }
    (steps, pending)
}

/// `x^((p - 3) / 4)` of elements below 2^6 p; gives below 1.01 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn power<const N: usize>(x: &[Lanes<8>; N]) -> [Lanes<8>; N] {
    let constants = &*CONSTANTS;
    // The odd powers.
    let mut table = [*x; 1 << (WINDOW - 1)];
    for n in 0..N {
        let square = base::base_square(&x[n]);
        for i in 1..table.len() {
            table[i][n] = base::base_mul(&table[i - 1][n], &square);
        }
    }
    let mut out = table[constants.steps[0].1];
    let squared = |times: usize, out: &mut [Lanes<8>; N]| {
        for _ in 0..times {
            for n in 0..N {
                out[n] = base::base_square(&out[n]);
            }
        }
    };
    for (squarings, odd) in &constants.steps[1..] {
        squared(*squarings, &mut out);
        for n in 0..N {
            out[n] = base::base_mul(&out[n], &table[*odd][n]);
        }
    }
    squared(constants.rest, &mut out);
    out
}

/// The integers below p that `x factor / 2^416` are, as ark-ff's words.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn integers(x: &Lanes<8>, factor: &[u64; 8]) -> [BigInt<6>; 8] {
    let x = lanes::less_if_not_below::<1, P381, 8>(&base::base_mul(x, &splat(factor)));
    let mut columns = [[0; 8]; 8];
    for i in 0..8 {
        words(x.0[i], &mut columns[i]);
    }
    std::array::from_fn(|lane| BigInt(pack(&columns.each_ref().map(|c| c[lane]))))
}

/// Elements of the integers below p; below 1.01 p.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn elements(integers: &[[u64; 8]; 8]) -> Lanes<8> {
    let mut rows = [vector(&integers[0]); 8];
    for i in 1..8 {
        rows[i] = vector(&integers[i]);
    }
    base::base_mul(&Lanes(transpose(&rows)), &splat(&CONSTANTS.enter))
}

/// A coordinate, if it is below p, without the three bits that are flags in the first.
fn coordinate(bytes: &[u8], flags: bool) -> Option<[u64; 8]> {
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    let mut words: [u64; 6] = words.iter().rev().map(|w| u64::from_be_bytes(*w)).collect::<Vec<_>>().try_into().ok()?;
    if flags {
        words[5] &= u64::MAX >> 3;
    }
    (BigInt(words) < Fq::MODULUS).then(|| split(&words))
}

/// The flags' word on the sign, where they say: compressed, and not infinity.
fn sign(bytes: &[u8]) -> Option<bool> {
    let first = *bytes.first()?;
    (first & 0xc0 == 0x80).then_some(first & 0x20 != 0)
}

fn is_upper(y: &BigInt<6>) -> bool {
    *y > Fq::MODULUS_MINUS_ONE_DIV_TWO
}

/// `[|x|] p`
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn times_x<const D: usize>(p: &Projective<D>) -> Projective<D> {
    let mut out = *p;
    for bit in (0..63 - X.leading_zeros()).rev() {
        out = out.double();
        if X >> bit & 1 == 1 {
            out = out.plus(p);
        }
    }
    out
}

/// Lanes in which `q` is the affine point `(x, -y)`, exactly.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn is_negative_of<const D: usize>(q: &Projective<D>, x: &Element<D>, y: &Element<D>) -> u8 {
    let zero = [splat(&[0; 8]); D];
    let y = base::add(&q.y, &base::mul(y, &q.z));
    base::equal(&q.x, &base::mul(x, &q.z)) & base::equal(&y, &zero) & !base::equal(&q.z, &zero)
}

/// Lanes of points on the curve that are in the subgroup.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn in_g1(x: &Lanes<8>, y: &Lanes<8>) -> u8 {
    let q = times_x(&times_x(&Projective { x: [*x], y: [*y], z: one() }));
    is_negative_of(&q, &[base::base_mul(x, &splat(&CONSTANTS.beta))], &[*y])
}

/// The same in the twist: psi has the eigenvalue x, which is negative.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn in_g2(x: &Element<2>, y: &Element<2>) -> u8 {
    let q = times_x(&Projective { x: *x, y: *y, z: one() });
    let psi = |c: &Element<2>, factor: &[[u64; 8]; 2]| {
        let conjugate = [c[0], lanes::negate_where::<2, P381, 8>(0xff, &c[1])];
        base::mul(&conjugate, &[splat(&factor[0]), splat(&factor[1])])
    };
    is_negative_of(&q, &psi(x, &CONSTANTS.psi[0]), &psi(y, &CONSTANTS.psi[1]))
}

/// Points of G1 from encodings of 48 bytes.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn g1<const N: usize>(encodings: &[[Option<&[u8]>; 8]; N]) -> [[Option<G1Affine>; 8]; N] {
    let mut x = [splat(&[0; 8]); N];
    let (mut square, mut sure, mut signs) = (x, [0u8; N], [0u8; N]);
    for n in 0..N {
        let mut integers = [[0; 8]; 8];
        for i in 0..8 {
            let parsed = encodings[n][i].and_then(|bytes| Some((sign(bytes)?, coordinate(bytes, true)?)));
            if let Some((sign, integer)) = parsed {
                integers[i] = integer;
                sure[n] |= 1 << i;
                signs[n] |= u8::from(sign) << i;
            }
        }
        x[n] = elements(&integers);
        let cube = base::base_mul(&base::base_square(&x[n]), &x[n]);
        square[n] = lanes::add(&cube, &splat(&CONSTANTS.four));
    }
    let powers = power(&square);
    let mut out = [[None; 8]; N];
    for n in 0..N {
        let mut y = base::base_mul(&powers[n], &square[n]);
        sure[n] &= base::equal(&[base::base_square(&y)], &[square[n]]);
        let upper = mask(&integers(&y, &PLAIN), is_upper);
        y = lanes::reduce::<P381, 8>(&lanes::negate_where::<2, P381, 8>(upper ^ signs[n], &y));
        sure[n] &= in_g1(&x[n], &y);
        let (x, y) = (integers(&x[n], &ARK), integers(&y, &ARK));
        for i in (0..8).filter(|i| sure[n] >> i & 1 == 1) {
            out[n][i] = Some(G1Affine::new_unchecked(Fq::new_unchecked(x[i]), Fq::new_unchecked(y[i])));
        }
    }
    out
}

/// Points of G2 from encodings of 96 bytes.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn g2(encodings: &[Option<&[u8]>; 8]) -> [Option<G2Affine>; 8] {
    let mut parts = [[[0; 8]; 8]; 2];
    let (mut sure, mut signs) = (0u8, 0u8);
    for i in 0..8 {
        let parsed = encodings[i].and_then(|bytes| {
            let (c1, c0) = bytes.split_at_checked(48)?;
            Some((sign(c1)?, coordinate(c0, false)?, coordinate(c1, true)?))
        });
        if let Some((sign, c0, c1)) = parsed {
            (parts[0][i], parts[1][i]) = (c0, c1);
            sure |= 1 << i;
            signs |= u8::from(sign) << i;
        }
    }
    let x = [elements(&parts[0]), elements(&parts[1])];
    let four = splat(&CONSTANTS.four);
    let a = base::reduce(&base::add(&base::mul(&base::square(&x), &x), &[four, four]));
    let y = root(&a);
    sure &= base::equal(&base::square(&y), &a);
    let [c0, c1] = y.each_ref().map(|c| integers(c, &PLAIN));
    // Of a part that is 0 the other would have the say.
    sure &= !mask(&c0, BigInt::is_zero) & !mask(&c1, BigInt::is_zero);
    let turned = mask(&c1, is_upper) ^ signs;
    let y = base::reduce(&y.each_ref().map(|c| lanes::negate_where::<2, P381, 8>(turned, c)));
    sure &= in_g2(&x, &y);
    let [x0, x1] = x.each_ref().map(|c| integers(c, &ARK));
    let [y0, y1] = y.each_ref().map(|c| integers(c, &ARK));
    let fq2 = |c0: BigInt<6>, c1: BigInt<6>| Fq2::new(Fq::new_unchecked(c0), Fq::new_unchecked(c1));
    std::array::from_fn(|i| (sure >> i & 1 == 1).then(|| G2Affine::new_unchecked(fq2(x0[i], x1[i]), fq2(y0[i], y1[i]))))
}

/// A root of `a` where there is one, below 1.01 p; elsewhere anything.
///
/// With `t = (a0 + s) / 2`, s a root of the norm, and `w = t t^((p - 3) / 4)`: `w^2 = t` and the root is `(w, a1 / 2 w)`, or `w^2 = -t`, and then it
/// is `(a1 / 2 w, w)` up to its sign, because `t (a0 - s) / 2 = -a1^2 / 4`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn root(a: &Element<2>) -> Element<2> {
    let half = splat(&CONSTANTS.half);
    let norm = base::norm(a);
    let [power_of_norm] = power(&[norm]);
    let s = base::base_mul(&power_of_norm, &norm);
    let t = base::base_mul(&lanes::add(&a[0], &s), &half);
    let [v] = power(&[t]);
    let w = base::base_mul(&t, &v);
    // v w is 1 or -1, so 1 / w is v or -v.
    let quotient = base::base_mul(&a[1], &base::base_mul(&v, &half));
    let plain = base::equal(&[base::base_square(&w)], &[t]);
    let negative = lanes::reduce::<P381, 8>(&lanes::negate_where::<2, P381, 8>(0xff, &quotient));
    [lanes::blend(plain, &negative, &w), lanes::blend(plain, &w, &quotient)]
}

fn mask(values: &[BigInt<6>; 8], holds: impl Fn(&BigInt<6>) -> bool) -> u8 {
    (0..8).fold(0, |mask, i| mask | u8::from(holds(&values[i])) << i)
}
