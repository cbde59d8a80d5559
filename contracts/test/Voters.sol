// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {BlsVotes} from "../src/libraries/BlsVotes.sol";
import {Toy} from "./Toy.sol";

/// @title Members whose secret keys the tests know, and what they sign.
/// @notice The hash to the curve is the one under test; `checkpoints.json`, which Rust wrote with another library, holds it to account.
library Voters {
    bytes16 internal constant DB = bytes16(keccak256("db"));

    function secret(uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("voter", i))) % Toy.R;
    }

    /// @notice Node ids grow with i.
    function node(uint256 i) internal pure returns (bytes32) {
        return bytes32((0x1000 + i) << 240 | uint256(keccak256(abi.encode("node", i))) >> 16);
    }

    function key(uint256 i) internal view returns (bytes memory) {
        return Toy.g2(secret(i));
    }

    /// @notice Signs with any scalar: the sum of secrets makes an aggregate.
    function sign(uint256 scalar, bytes32 suite, bytes memory text) internal view returns (bytes memory) {
        bytes memory point = new bytes(128);
        uint256 out;
        assembly ("memory-safe") {
            out := add(point, 32)
        }
        BlsVotes.hashToG1(suite, text, out);
        (bool good, bytes memory signature) = address(0x0c).staticcall(bytes.concat(point, bytes32(scalar)));
        require(good && signature.length == 128, "msm");
        return signature;
    }

    function possession(bytes32 node_, uint256 i) internal view returns (bytes memory) {
        bytes memory text = abi.encodePacked(BlsVotes.POSSESSION_TAG, node_, key(i));
        return sign(secret(i), BlsVotes.POSSESSION_SUITE, text);
    }

    /// @notice Members `first..first + n` and their proofs.
    function committee(uint256 first, uint256 n)
        internal
        view
        returns (bytes memory members, bytes memory possessions)
    {
        for (uint256 i = first; i < first + n; ++i) {
            members = bytes.concat(members, node(i), key(i));
            possessions = bytes.concat(possessions, possession(node(i), i));
        }
    }

    function hash(bytes memory members) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("FLU/crypto/members/v1", members));
    }

    function header(bytes16 db, uint64 epoch, uint64 height, bytes32 next) internal pure returns (bytes memory) {
        return abi.encodePacked(
            db,
            little(epoch),
            little(height),
            keccak256("parent"),
            little(1_790_000_000_000 + height),
            keccak256("ops"),
            little(height - 1),
            keccak256(abi.encode("root", height)),
            next
        );
    }

    function little(uint64 value) internal pure returns (bytes8 out) {
        for (uint256 i = 0; i < 8; ++i) {
            out |= bytes8(uint64(uint8(value >> (8 * i)))) << 56 >> (8 * i);
        }
    }

    /// @notice A certificate of the header by those of the members from `first` on whose bit is set.
    function certify(bytes memory header_, uint64 view_, uint256 first, uint32 signers)
        internal
        view
        returns (ICheckpoints.Certificate memory)
    {
        uint256 sum = 0;
        for (uint256 i = 0; i < 32; ++i) {
            if (signers >> i & 1 != 0) sum = addmod(sum, secret(first + i), Toy.R);
        }
        bytes16 db;
        bytes8 epoch;
        assembly ("memory-safe") {
            db := mload(add(header_, 32))
            epoch := mload(add(header_, 48))
        }
        bytes32 blockHash = keccak256(abi.encodePacked("FLU/crypto/block/v1", header_));
        bytes memory text =
            BlsVotes.message(db, uint64(little(uint64(epoch))), view_, BlsVotes.Kind.Finalize, view_ - 1, blockHash);
        return ICheckpoints.Certificate(header_, view_, view_ - 1, signers, sign(sum, BlsVotes.VOTE_SUITE, text));
    }
}
