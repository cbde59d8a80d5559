// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title Hashes of past blocks.
/// @dev BLOCKHASH reaches 256 blocks back; the history contract of EIP-2935 (Prague) 8,191. Where it is missing, the call returns
/// nothing and only the 256 remain. Source: https://eips.ethereum.org/EIPS/eip-2935
library Beacons {
    /// @notice The history contract of EIP-2935.
    address internal constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    /// @notice The hash of block `number`, or zero where the chain does not know it (any more, or yet).
    function hashOf(uint256 number) internal view returns (bytes32 hash) {
        hash = blockhash(number);
        if (hash != 0 || number >= block.number) return hash;
        (bool good, bytes memory out) = HISTORY.staticcall(abi.encode(number));
        if (good && out.length == 32) hash = abi.decode(out, (bytes32));
    }
}
