// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title The cheatcodes our tests use, as forge's EVM answers them.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }

    function roll(uint256) external;
    function fee(uint256) external;
    function chainId(uint256) external;
    function deal(address, uint256) external;
    function prank(address) external;
    function startPrank(address) external;
    function stopPrank() external;
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function addr(uint256 key) external pure returns (address);
    function expectRevert() external;
    function expectRevert(bytes calldata) external;
    function expectRevert(bytes4) external;
    function expectPartialRevert(bytes4) external;
    function assume(bool) external pure;
    function setBlockhash(uint256 number, bytes32 hash) external;
    function etch(address, bytes calldata) external;
    function mockCall(address, bytes calldata, bytes calldata) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function lastCallGas() external view returns (Gas memory);
    function readFile(string calldata) external view returns (string memory);
    function writeFile(string calldata, string calldata) external;
    function exists(string calldata) external view returns (bool);
    function parseJsonUint(string calldata, string calldata) external pure returns (uint256);
    function parseJsonUintArray(string calldata, string calldata) external pure returns (uint256[] memory);
    function parseJsonBytes32(string calldata, string calldata) external pure returns (bytes32);
    function parseJsonBytes32Array(string calldata, string calldata) external pure returns (bytes32[] memory);
    function parseJsonAddress(string calldata, string calldata) external pure returns (address);
    function parseJsonBytes(string calldata, string calldata) external pure returns (bytes memory);
    function parseJsonString(string calldata, string calldata) external pure returns (string memory);
    function keyExistsJson(string calldata, string calldata) external view returns (bool);
    function toString(uint256) external pure returns (string memory);
    function computeCreateAddress(address, uint256) external pure returns (address);
    function getNonce(address) external view returns (uint64);
    function skip(bool, string calldata) external;
    function getCode(string calldata) external view returns (bytes memory);
}

/// @title What every test needs: cheatcodes and assertions. Written here because no package carries forge-std as files.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error NotEqual(string what, bytes32 got, bytes32 want);
    error NotTrue(string what);

    function eq(uint256 got, uint256 want, string memory what) internal pure {
        if (got != want) revert NotEqual(what, bytes32(got), bytes32(want));
    }

    function eq(bytes32 got, bytes32 want, string memory what) internal pure {
        if (got != want) revert NotEqual(what, got, want);
    }

    function eq(address got, address want, string memory what) internal pure {
        eq(uint256(uint160(got)), uint256(uint160(want)), what);
    }

    function eq(bool got, bool want, string memory what) internal pure {
        if (got != want) revert NotTrue(what);
    }

    function eq(bytes memory got, bytes memory want, string memory what) internal pure {
        eq(keccak256(got), keccak256(want), what);
    }

    function yes(bool it, string memory what) internal pure {
        if (!it) revert NotTrue(what);
    }

    /// @dev Deploying `name` with these constructor arguments fails with `reason`; with a reason of four bytes, with that error.
    /// `expectRevert` before `new` proves nothing here: tests are linked to what is deployed by a cheatcode.
    function refuses(string memory name, bytes memory arguments, bytes memory reason) internal {
        bytes memory init = bytes.concat(vm.getCode(string.concat(name, ".sol:", name)), arguments);
        address made;
        bytes memory got;
        assembly ("memory-safe") {
            made := create(0, add(init, 32), mload(init))
            got := mload(0x40)
            mstore(0x40, add(got, and(add(returndatasize(), 63), not(31))))
            mstore(got, returndatasize())
            returndatacopy(add(got, 32), 0, returndatasize())
        }
        yes(made == address(0), string.concat(name, " was deployed"));
        if (reason.length == 4) eq(bytes32(bytes4(got)), bytes32(bytes4(reason)), "reason");
        else eq(got, reason, "reason");
    }

    /// @dev `value` folded into `[low, high]`.
    function within(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }

    /// @dev Elements of the JSON array at the root of `json`.
    function count(string memory json, string memory field) internal view returns (uint256 n) {
        while (vm.keyExistsJson(json, key(n, field))) ++n;
    }

    /// @dev `$[index].field`.
    function key(uint256 index, string memory field) internal pure returns (string memory) {
        return string.concat("$[", vm.toString(index), "].", field);
    }
}
