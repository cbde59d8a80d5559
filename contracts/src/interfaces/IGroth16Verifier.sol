// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// @title One circuit's verifier: says whether a Groth16 proof over BLS12-381 matches public inputs under one pinned key.
/// @notice A false is a word about the proof, a revert is not: see `verify`.
interface IGroth16Verifier {
    /// @notice The key was made on one machine, so whoever ran it can forge; such a key lives on local chains only.
    error InsecureKey(uint256 chainId);
    /// @notice The key is no ceremony's that this contract knows, whatever its file says; such a key lives on local chains only.
    error UnknownKey(bytes32 vkHash, uint256 chainId);
    /// @notice A key has four points and then one G1 point per input and one more, for 1 to 6 inputs.
    error KeyLength(uint256 bytes_);
    /// @notice Alpha, beta, gamma and delta are never the point at infinity: with one of them anything would verify.
    error KeyPointAtInfinity(uint256 index);
    /// @notice The data contract that holds the key could not be made.
    error KeyNotStored();
    /// @notice The circuit has `want` public inputs.
    error InputCount(uint256 got, uint256 want);
    /// @notice Input `index` is r or more, a second name of a smaller scalar.
    error InputNotCanonical(uint256 index, uint256 value);
    /// @notice A proof is 512 bytes.
    error ProofLength(uint256 got);

    /// @notice Whether `proof` proves the statement with these public inputs.
    /// @param inputs In circuit order, each below r.
    /// @param proof A|B|C as EIP-2537 points: 128 + 256 + 128 bytes.
    /// @return matches False only for well-formed points whose pairing equation does not hold. Everything else reverts:
    /// a wrong count or length, an input of r or more, a point off the curve or outside its subgroup, a precompile that is
    /// missing or was starved of gas. So nobody can make a good proof read as false by choosing the gas.
    function verify(uint256[] calldata inputs, bytes calldata proof) external view returns (bool matches);

    /// @notice Keccak-256 of `verificationKey()`.
    function vkHash() external view returns (bytes32);

    /// @notice The pinned key: alpha (G1), beta, gamma, delta (G2), then one G1 point per input and one more, as EIP-2537 points.
    function verificationKey() external view returns (bytes memory);

    /// @notice Number of public inputs.
    function inputCount() external view returns (uint256);

    /// @notice The key is marked insecure by who deployed it.
    function insecureDevKey() external view returns (bool);
}
