// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IGroth16Verifier} from "./interfaces/IGroth16Verifier.sol";
import {Bls12381} from "./libraries/Bls12381.sol";
import {CeremonyKeys} from "./libraries/CeremonyKeys.sol";

/// @title Groth16 over BLS12-381 with a key that is pinned at construction.
/// @notice Relation: `e(A, B) = e(alpha, beta) e(IC_0 + sum input_i IC_{i+1}, gamma) e(C, delta)`, checked as one product of four
/// pairings against stored -alpha, -gamma, -delta, so that a proof's points are never touched.
/// @dev The key is the code of a data contract (EXTCODECOPY is 3 gas a word, SLOAD 2,100). No owner, no storage, no upgrade.
/// Assumes the EIP-2537 precompiles. Source: https://eprint.iacr.org/2016/260 section 3.2
contract Groth16Verifier is IGroth16Verifier {
    uint256 private constant G1_BYTES = 128;
    uint256 private constant G2_BYTES = 256;
    uint256 private constant PROOF_BYTES = G1_BYTES + G2_BYTES + G1_BYTES;
    /// @dev Bytes of a key before its IC points.
    uint256 private constant HEAD_BYTES = G1_BYTES + 3 * G2_BYTES;
    /// @dev `types::limits::PUBLIC_INPUTS_MAX`.
    uint256 private constant INPUTS_MAX = 6;
    /// @dev Bytes of one pair of the pairing, and of all four.
    uint256 private constant PAIR_BYTES = G1_BYTES + G2_BYTES;

    /// @inheritdoc IGroth16Verifier
    bytes32 public immutable vkHash;
    /// @inheritdoc IGroth16Verifier
    uint256 public immutable inputCount;
    /// @inheritdoc IGroth16Verifier
    bool public immutable insecureDevKey;
    /// @dev Its code: a STOP byte, then -alpha|beta|-gamma|-delta|IC.
    address private immutable keyData;

    /// @param key As `verificationKey` gives it back. Every point is checked, on its curve and in its subgroup.
    /// @param insecureDev The key's file says that it is a development key; refused unless the chain id is 31337 or 1337. Whatever its file
    /// says, elsewhere a key must be a ceremony's.
    constructor(bytes memory key, bool insecureDev) {
        if (block.chainid != 31337 && block.chainid != 1337) {
            if (insecureDev) revert InsecureKey(block.chainid);
            if (!_isCeremonyKey(keccak256(key))) revert UnknownKey(keccak256(key), block.chainid);
        }
        uint256 n = key.length;
        if (n < HEAD_BYTES + 2 * G1_BYTES || (n - HEAD_BYTES) % G1_BYTES != 0) revert KeyLength(n);
        uint256 inputs = (n - HEAD_BYTES) / G1_BYTES - 1;
        if (inputs > INPUTS_MAX) revert KeyLength(n);
        vkHash = keccak256(key);
        inputCount = inputs;
        insecureDevKey = insecureDev;
        _checkPoints(key, inputs);
        _negate(key);
        // Init code: copy what follows these 10 bytes and return it; the returned code starts with STOP.
        bytes memory init = abi.encodePacked(hex"61", uint16(n + 1), hex"80600a3d393df3", hex"00", key);
        address data;
        assembly ("memory-safe") {
            data := create(0, add(init, 32), mload(init))
        }
        if (data == address(0)) revert KeyNotStored();
        keyData = data;
    }

    /// @inheritdoc IGroth16Verifier
    function verify(uint256[] calldata inputs, bytes calldata proof) external view returns (bool matches) {
        uint256 count = inputCount;
        if (inputs.length != count) revert InputCount(inputs.length, count);
        if (proof.length != PROOF_BYTES) revert ProofLength(proof.length);
        address data = keyData;
        uint256 pairs; // four pairs: (A, B), (-alpha, beta), (X, -gamma), (C, -delta)
        uint256 sum; // two points to add: the MSM's result and IC_0
        uint256 terms; // the MSM's (IC_i, input_i)
        assembly ("memory-safe") {
            pairs := mload(0x40)
            sum := add(pairs, 1536)
            terms := add(sum, 256)
            mstore(0x40, add(terms, mul(count, 160)))
            calldatacopy(pairs, proof.offset, 384)
            extcodecopy(data, add(pairs, 384), 1, 384)
            extcodecopy(data, add(pairs, 896), 385, 256)
            calldatacopy(add(pairs, 1152), add(proof.offset, 384), 128)
            extcodecopy(data, add(pairs, 1280), 641, 256)
            extcodecopy(data, add(sum, 128), 897, 128)
        }
        for (uint256 i = 0; i < count; ++i) {
            uint256 input = inputs[i];
            if (input >= Bls12381.R) revert InputNotCanonical(i, input);
            assembly ("memory-safe") {
                let term := add(terms, mul(i, 160))
                extcodecopy(data, term, add(1025, mul(i, 128)), 128)
                mstore(add(term, 128), input)
            }
        }
        Bls12381.call(Bls12381.G1_MSM, terms, count * (G1_BYTES + 32), sum, G1_BYTES);
        Bls12381.call(Bls12381.G1_ADD, sum, 2 * G1_BYTES, pairs + 2 * PAIR_BYTES, G1_BYTES);
        Bls12381.call(Bls12381.PAIRING, pairs, 4 * PAIR_BYTES, sum, 32);
        assembly ("memory-safe") {
            matches := eq(mload(sum), 1)
        }
    }

    /// @inheritdoc IGroth16Verifier
    function verificationKey() external view returns (bytes memory key) {
        address data = keyData;
        key = new bytes(HEAD_BYTES + (inputCount + 1) * G1_BYTES);
        assembly ("memory-safe") {
            extcodecopy(data, add(key, 32), 1, mload(key))
        }
        _negate(key);
    }

    /// @dev Virtual for tests alone, which have no ceremony.
    function _isCeremonyKey(bytes32 hash) internal view virtual returns (bool) {
        return CeremonyKeys.isKnown(hash);
    }

    /// @dev One pairing call names every point once, which checks curve and subgroup of each; its result says nothing.
    function _checkPoints(bytes memory key, uint256 inputs) private view {
        for (uint256 i = 0; i < 4; ++i) {
            uint256 from = i == 0 ? 0 : G1_BYTES + (i - 1) * G2_BYTES;
            uint256 end = G1_BYTES + i * G2_BYTES;
            uint256 any = 0;
            for (uint256 p = from; p < end; p += 32) {
                any |= _word(key, p);
            }
            if (any == 0) revert KeyPointAtInfinity(i);
        }
        bytes memory pairs = bytes.concat(_slice(key, 0, G1_BYTES), _slice(key, G1_BYTES, G2_BYTES));
        for (uint256 i = 0; i <= inputs; ++i) {
            // IC_0 with gamma, the others with delta.
            uint256 g2 = G1_BYTES + (i == 0 ? 1 : 2) * G2_BYTES;
            pairs = bytes.concat(pairs, _slice(key, HEAD_BYTES + i * G1_BYTES, G1_BYTES), _slice(key, g2, G2_BYTES));
        }
        uint256 start;
        uint256 scratch;
        assembly ("memory-safe") {
            start := add(pairs, 32)
            scratch := mload(0x40)
        }
        Bls12381.call(Bls12381.PAIRING, start, pairs.length, scratch, 32);
    }

    /// @dev Negates alpha, gamma and delta in place: their y coordinates. Its own inverse.
    function _negate(bytes memory key) private pure {
        uint256 start;
        assembly ("memory-safe") {
            start := add(key, 32)
        }
        Bls12381.negate(start + 64);
        for (uint256 i = 1; i < 3; ++i) {
            uint256 y = start + G1_BYTES + i * G2_BYTES + G1_BYTES;
            Bls12381.negate(y);
            Bls12381.negate(y + 64);
        }
    }

    function _word(bytes memory b, uint256 offset) private pure returns (uint256 w) {
        assembly ("memory-safe") {
            w := mload(add(add(b, 32), offset))
        }
    }

    function _slice(bytes memory b, uint256 offset, uint256 length) private pure returns (bytes memory out) {
        out = new bytes(length);
        for (uint256 i = 0; i < length; i += 32) {
            uint256 w = _word(b, offset + i);
            assembly ("memory-safe") {
                mstore(add(add(out, 32), i), w)
            }
        }
    }
}
