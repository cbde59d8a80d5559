//! Proofs checked by view calls, and the keys that the contracts pin.

use super::Chain;
use crate::Provider;
use crate::abi::{EpochProofs, Groth16Verifier};
use crate::error::ChainError;
use alloy::primitives::{B256, Bytes, U256, keccak256};
use fluence_types::FieldBytes;
use fluence_types::shape::CircuitId;

impl Chain {
    /// Whether a `range_sum` proof holds, by `eth_call`.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`, `InputNotCanonical`, `ProofLength`, or `PrecompileFailed` for a bad point.
    pub async fn verify_range_sum(
        &self,
        circuit: &CircuitId,
        inputs: &[FieldBytes],
        proof: &[u8; 512],
    ) -> Result<bool, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let call = contract.verifyRangeSum(circuit_hash(circuit), words(inputs), Bytes::copy_from_slice(proof));
        view!("verify range sum", call)
    }

    /// What the same check costs as a transaction, calldata included.
    ///
    /// # Errors
    /// As [`Self::verify_range_sum`].
    pub async fn verify_range_sum_gas(
        &self,
        circuit: &CircuitId,
        inputs: &[FieldBytes],
        proof: &[u8; 512],
    ) -> Result<u64, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let call = contract.verifyRangeSum(circuit_hash(circuit), words(inputs), Bytes::copy_from_slice(proof));
        call.estimate_gas().await.map_err(|e| ChainError::from_contract("verify range sum", e))
    }

    /// Whether any proof of a pinned circuit holds, by `eth_call` of its verifier.
    ///
    /// # Errors
    /// As [`Self::verify_range_sum`].
    pub async fn verify(
        &self,
        circuit: &CircuitId,
        inputs: &[FieldBytes],
        proof: &[u8; 512],
    ) -> Result<bool, ChainError> {
        let verifier = self.verifier(circuit).await?;
        view!("verify", verifier.verify(words(inputs), Bytes::copy_from_slice(proof)))
    }

    /// Keccak-256 of a circuit's pinned key.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`.
    pub async fn vk_hash(&self, circuit: &CircuitId) -> Result<[u8; 32], ChainError> {
        Ok(view!("key hash", contract!(self, EpochProofs, epoch_proofs).vkHash(circuit_hash(circuit)))?.0)
    }

    /// A circuit's pinned key: alpha G1, beta, gamma, delta G2, then the IC points, as EIP-2537 points.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`.
    pub async fn verification_key(&self, circuit: &CircuitId) -> Result<Vec<u8>, ChainError> {
        Ok(view!("key", self.verifier(circuit).await?.verificationKey())?.to_vec())
    }

    /// Whether a circuit's pinned key is marked insecure.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with `CircuitUnknown`.
    pub async fn insecure_dev_key(&self, circuit: &CircuitId) -> Result<bool, ChainError> {
        view!("key mark", self.verifier(circuit).await?.insecureDevKey())
    }

    async fn verifier(
        &self,
        circuit: &CircuitId,
    ) -> Result<Groth16Verifier::Groth16VerifierInstance<&Provider>, ChainError> {
        let contract = contract!(self, EpochProofs, epoch_proofs);
        let address = view!("verifier", contract.verifierOf(circuit_hash(circuit)))?;
        Ok(Groth16Verifier::new(address, self.connection.provider()))
    }
}

/// A circuit as the contract names it: Keccak-256 of its id's text.
fn circuit_hash(circuit: &CircuitId) -> B256 {
    keccak256(circuit.to_string())
}

fn words(inputs: &[FieldBytes]) -> Vec<U256> {
    inputs.iter().map(|f| U256::from_be_bytes(f.to_bytes())).collect()
}
