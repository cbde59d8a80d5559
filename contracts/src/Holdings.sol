// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IHoldings} from "./interfaces/IHoldings.sol";
import {Poseidon2} from "./libraries/Poseidon2.sol";

/// @title Computes holdings roots.
/// @dev A contract of its own only because Poseidon2's constants do not fit beside `EpochProofs` in 24 KiB. Pure: no storage, no owner.
contract Holdings is IHoldings {
    /// @notice `types::tree::TREE_VERSION`.
    uint256 public constant VERSION = 1;

    /// @inheritdoc IHoldings
    function root(uint256[] memory digests, uint256[] memory weights) external pure returns (uint256, uint256) {
        uint256 leaves = digests.length;
        if (leaves == 0 || weights.length != leaves) revert LeafCount(leaves, weights.length);
        bytes memory constants = Poseidon2.load();
        uint256[8] memory x;
        for (uint256 n = leaves; n > 1;) {
            uint256 parents = (n + 3) / 4; // rounds up
            for (uint256 p = 0; p < parents; ++p) {
                uint256 weight = 0;
                for (uint256 k = 0; k < 4; ++k) {
                    uint256 child = 4 * p + k;
                    bool there = child < n;
                    x[2 * k] = there ? digests[child] : 0;
                    x[2 * k + 1] = there ? weights[child] : 0;
                    weight += x[2 * k + 1];
                }
                // In place: parent p is written after children 4p.. are read, and p <= 4p.
                digests[p] = Poseidon2.compress(constants, Poseidon2.SUM, x);
                weights[p] = weight;
            }
            n = parents;
        }
        x = [VERSION, leaves, digests[0], weights[0], 0, 0, 0, 0];
        return (Poseidon2.compress(constants, Poseidon2.HOLDINGS, x), weights[0]);
    }
}
