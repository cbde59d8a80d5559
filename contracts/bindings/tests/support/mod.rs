//! A Groth16 key whose secrets the test knows, as `contracts/test/Toy.sol`; curve points come from the chain's own precompiles.

pub(crate) mod clusters;

use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, U256, address, keccak256};
use alloy::providers::Provider as _;
use alloy::rpc::types::TransactionRequest;
use fluence_bindings::Provider;
use fluence_types::FieldBytes;
use fluence_types::field::MODULUS_BE;

const G1_MSM: Address = address!("000000000000000000000000000000000000000c");
const G2_MSM: Address = address!("000000000000000000000000000000000000000e");
const G1: &str = "0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb0000000000000000000000000000000008b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1";
const G2: &str = "00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb80000000000000000000000000000000013e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e000000000000000000000000000000000ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801000000000000000000000000000000000606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be";
const ALPHA: u64 = 0x0123_4567;
const BETA: u64 = 0x89ab_cdef;
const GAMMA: u64 = 0x1357;
const DELTA: u64 = 0x0246_8ace;

fn r() -> U256 {
    U256::from_be_bytes(MODULUS_BE)
}

fn hashed(what: &str, i: u64) -> U256 {
    U256::from_be_bytes(keccak256(format!("{what} {i}")).0) % r()
}

async fn msm(provider: &Provider, precompile: Address, point: &str, k: U256) -> Vec<u8> {
    let mut input = hex::decode(point).unwrap();
    input.extend(k.to_be_bytes::<32>());
    let out = provider.call(TransactionRequest::default().with_to(precompile).with_input(input)).await.unwrap();
    out.to_vec()
}

/// A key for three public inputs.
pub(crate) async fn key(provider: &Provider) -> Vec<u8> {
    let mut key = msm(provider, G1_MSM, G1, U256::from(ALPHA)).await;
    for k in [BETA, GAMMA, DELTA] {
        key.extend(msm(provider, G2_MSM, G2, U256::from(k)).await);
    }
    for i in 0..4 {
        key.extend(msm(provider, G1_MSM, G1, hashed("ic", i)).await);
    }
    key
}

/// A proof of any three inputs; `salt` picks one of the many.
pub(crate) async fn prove(provider: &Provider, inputs: &[FieldBytes; 3], salt: u64) -> [u8; 512] {
    let r = r();
    let mut x = hashed("ic", 0);
    for (i, input) in inputs.iter().enumerate() {
        x = x.add_mod(U256::from_be_bytes(input.to_bytes()).mul_mod(hashed("ic", i as u64 + 1), r), r);
    }
    let (a, b) = (hashed("a", salt), hashed("b", salt));
    let product = U256::from(ALPHA).mul_mod(U256::from(BETA), r).add_mod(U256::from(GAMMA).mul_mod(x, r), r);
    let c = a.mul_mod(b, r).add_mod(r - product, r).mul_mod(U256::from(DELTA).inv_mod(r).unwrap(), r);
    let mut proof = msm(provider, G1_MSM, G1, a).await;
    proof.extend(msm(provider, G2_MSM, G2, b).await);
    proof.extend(msm(provider, G1_MSM, G1, c).await);
    proof.try_into().unwrap()
}
