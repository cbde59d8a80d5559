// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title A random order of slots, each operator once.
/// @notice Relation: the slots are shuffled by the seed (Fisher-Yates, from the front); a slot counts if it has an operator whom no
/// slot before it has. Twin of `crypto/src/placement.rs`; `tests/vectors/placement.json` holds both to the same order.
/// @dev Only the places that the shuffle touched are kept, so the cost follows the steps and not the length of the list.
library Draws {
    /// @notice Slots looked at in one draw. A list of so many is looked at to its end; of a longer one, that is the bound on gas.
    uint256 internal constant STEPS_MAX = 256;
    /// @notice `crypto::domain::PLACEMENT`.
    bytes23 internal constant TAG = "FLU/crypto/placement/v1";

    /// @notice The seed of a draw of `placement`: nobody's but this owner's and database's.
    function seedOf(address placement, address owner, bytes16 db, bytes32 beacon) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(TAG, block.chainid, placement, owner, db, beacon));
    }

    /// @notice Up to `want` of `count` slots, in the order of the draw; fewer where operators or steps run out.
    /// @param before Passed on to `operatorAt`, which gives the operator of a slot, or zero for a slot that does not count.
    /// The modulus favours no slot by more than 2^-200.
    function order(
        bytes32 seed,
        uint256 count,
        uint256 want,
        uint64 before,
        function(uint256, uint64) internal view returns (address) operatorAt
    ) internal view returns (uint256[] memory slots) {
        uint256 steps = count < STEPS_MAX ? count : STEPS_MAX;
        // Place `places[k]` of the shuffled list holds slot `values[k]`; a place that is not among them holds its own number.
        uint256[] memory places = new uint256[](steps);
        uint256[] memory values = new uint256[](steps);
        address[] memory operators = new address[](want);
        slots = new uint256[](want);
        uint256 found = 0;
        for (uint256 step = 0; step < steps && found < want; ++step) {
            uint256 slot = _next(seed, step, count, places, values);
            address operator = operatorAt(slot, before);
            if (operator == address(0) || _has(operators, found, operator)) continue;
            operators[found] = operator;
            slots[found++] = slot;
        }
        assembly ("memory-safe") {
            mstore(slots, found)
        }
    }

    /// @dev Exchanges place `step` with a random one at or after it, and says what is at `step` now.
    function _next(bytes32 seed, uint256 step, uint256 count, uint256[] memory places, uint256[] memory values)
        private
        pure
        returns (uint256 slot)
    {
        uint256 target = step + uint256(keccak256(abi.encodePacked(seed, uint32(step)))) % (count - step);
        uint256 moved = step;
        uint256 entry = step;
        slot = target;
        // An entry that was never written says place 0, which no step after the first looks at.
        for (uint256 k = 0; k < step; ++k) {
            uint256 place = places[k];
            if (place == target) (slot, entry) = (values[k], k);
            if (place == step) moved = values[k];
        }
        (places[entry], values[entry]) = (target, moved);
    }

    function _has(address[] memory list, uint256 length, address one) private pure returns (bool) {
        for (uint256 i = 0; i < length; ++i) {
            if (list[i] == one) return true;
        }
        return false;
    }
}
