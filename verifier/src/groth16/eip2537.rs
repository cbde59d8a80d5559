//! Points as the EIP-2537 precompiles read them.
//!
//! Rule    a base field element is 64 bytes big-endian, the first 16 zero; G2 coordinates are c0 then c1; infinity is all zero.
//! Source  <https://eips.ethereum.org/EIPS/eip-2537>, "Fine points and encoding of base elements"

use ark_bls12_381::{Fq, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::{BigInteger, PrimeField};

/// Bytes of a G1 point.
pub const G1_BYTES: usize = 128;
/// Bytes of a G2 point.
pub const G2_BYTES: usize = 256;
/// Bytes of a proof: A, B, C.
pub const PROOF_BYTES: usize = 2 * G1_BYTES + G2_BYTES;

fn coordinate(f: &Fq, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&f.into_bigint().to_bytes_be());
}

pub(super) fn g1(p: &G1Affine, out: &mut Vec<u8>) {
    match p.xy() {
        Some((x, y)) => {
            coordinate(&x, out);
            coordinate(&y, out);
        }
        None => out.extend_from_slice(&[0; G1_BYTES]),
    }
}

pub(super) fn g2(p: &G2Affine, out: &mut Vec<u8>) {
    match p.xy() {
        Some((x, y)) => {
            for f in [&x.c0, &x.c1, &y.c0, &y.c1] {
                coordinate(f, out);
            }
        }
        None => out.extend_from_slice(&[0; G2_BYTES]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_encode_as_in_the_eip() {
        let mut out = Vec::new();
        g1(&G1Affine::generator(), &mut out);
        // The G1 generator as the EIP lists it.
        let want = "0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb\
                    0000000000000000000000000000000008b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1";
        assert_eq!(hex::encode(&out), want);
        out.clear();
        g2(&G2Affine::generator(), &mut out);
        assert_eq!(out.len(), G2_BYTES);
        // x.c0 of the G2 generator comes first.
        let c0 = "00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8";
        assert_eq!(hex::encode(&out[..64]), c0);
    }

    #[test]
    fn infinity_is_all_zero() {
        let mut out = Vec::new();
        g1(&G1Affine::zero(), &mut out);
        g2(&G2Affine::zero(), &mut out);
        assert_eq!(out, vec![0; G1_BYTES + G2_BYTES]);
    }
}
