// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title Verification keys of ceremonies: the only ones a verifier takes on a chain that is not local.
/// @notice The twin of `verifier::known_keys`; a Rust test holds the two equal. A key enters with its ceremony's transcript and in no other way:
/// see `docs/protocol/ceremony.md`. There has been no ceremony yet, so there is no key.
library CeremonyKeys {
    /// @param vkHash Keccak-256 of the key as EIP-2537 points, as `fluence ceremony finalize` prints it.
    function isKnown(bytes32 vkHash) internal pure returns (bool) {
        bytes32[] memory known = new bytes32[](0);
        for (uint256 i = 0; i < known.length; ++i) {
            if (known[i] == vkHash) return true;
        }
        return false;
    }
}
