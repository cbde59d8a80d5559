// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// @title The holdings root: a 4-ary sum tree over a node's databases, and one more compression that binds their number.
/// @notice Inner node = compress(Sum, [d0, w0, d1, w1, d2, w2, d3, w3]) of weight w0 + .. + w3; a missing child is (0, 0); one leaf
/// is its own root. Root = compress(Holdings, [version, databases, sum root, cells, 0, 0, 0, 0]). As `crypto::roots::holdings_root`.
interface IHoldings {
    /// @notice A tree has at least one leaf, and as many weights as digests.
    error LeafCount(uint256 digests, uint256 weights);

    /// @notice The root and the sum of the weights. Cost: about 50k gas for every 4 databases, every 16, and so on, and once more.
    /// @param digests Database roots below r, in id order.
    /// @param weights Their cells, together below 2^40.
    function root(uint256[] calldata digests, uint256[] calldata weights) external pure returns (uint256, uint256);
}
