// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title Calls of the BLS12-381 precompiles (EIP-2537, Prague and later).
/// @notice Rule: a call that does not return exactly what it should *reverts*, it never reads as "no". The precompile fails in the
/// same way for a point off the curve, a point outside the subgroup, a coordinate of q or more, and for a call that was starved of
/// gas; and on a chain without the precompiles the call succeeds with empty output. None of these may look like a false statement.
/// @dev Encoding: Fp is 64 bytes big-endian, G1 is x|y (128), G2 is x.c0|x.c1|y.c0|y.c1 (256); infinity is all zero.
/// MSM and pairing check the subgroup of every point, addition does not. Source: https://eips.ethereum.org/EIPS/eip-2537
library Bls12381 {
    /// @notice The order r of the groups and of the scalar field.
    uint256 internal constant R = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;
    /// @notice The base field modulus q in the two words of an encoded Fp.
    uint256 internal constant Q_HI = 0x000000000000000000000000000000001a0111ea397fe69a4b1ba7b6434bacd7;
    uint256 internal constant Q_LO = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;

    /// @notice Addition in G1: two points in, one out.
    address internal constant G1_ADD = address(0x0b);
    /// @notice Sum of scalar multiples in G1: (point, scalar) pairs in, one point out.
    address internal constant G1_MSM = address(0x0c);
    /// @notice Addition in G2: two points in, one out. Checks the curve, not the subgroup.
    address internal constant G2_ADD = address(0x0d);
    /// @notice Product of pairings: (G1, G2) pairs in, 1 out if the product is one, else 0.
    address internal constant PAIRING = address(0x0f);
    /// @notice A base field element to a point of G1: the map of RFC 9380, its isogeny and the cofactor.
    address internal constant MAP_FP_TO_G1 = address(0x10);
    /// @notice Precompiles that every chain has; they are called in the same way.
    address internal constant SHA256 = address(0x02);
    /// @notice Modular exponentiation.
    address internal constant MODEXP = address(0x05);

    /// @notice A precompile call failed or is not there: a bad point, too little gas, or a chain before Prague. Says nothing about the statement.
    error PrecompileFailed(address precompile);

    /// @notice Calls `precompile` on memory `[input, input + inputBytes)` and puts `outputBytes` at `output`.
    function call(address precompile, uint256 input, uint256 inputBytes, uint256 output, uint256 outputBytes)
        internal
        view
    {
        bool good;
        assembly ("memory-safe") {
            good := staticcall(gas(), precompile, input, inputBytes, output, outputBytes)
            good := and(good, eq(returndatasize(), outputBytes))
        }
        if (!good) revert PrecompileFailed(precompile);
    }

    /// @notice Replaces the Fp at memory `p` by its negative. It must be below q, which the precompiles check of the result's point.
    function negate(uint256 p) internal pure {
        assembly ("memory-safe") {
            let hi := mload(p)
            let lo := mload(add(p, 32))
            if or(hi, lo) {
                mstore(p, sub(sub(Q_HI, hi), lt(Q_LO, lo)))
                mstore(add(p, 32), sub(Q_LO, lo))
            }
        }
    }
}
