// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

import {BlsVotes} from "../libraries/BlsVotes.sol";
import {ICollateral} from "./ICollateral.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

/// @title Slashes nodes whose vote key signed two votes that no honest member signs both.
/// @notice Within one (database, epoch, view), that is: two notarize votes for different proposals, two finalize votes for different
/// proposals, or a nullify and a finalize vote. A proposal is a block and the view of its parent. Nothing else is evidence: an honest
/// member may notarize and then nullify, and across views honest votes may differ.
/// @dev The link from key to node is `INodeRegistry.registerVoteKey`, by the operator whose collateral it is. A committee in
/// `Checkpoints` would be none: anyone may open a cluster whose member names another's node and a key of his own.
interface IEquivocation {
    /// @notice One vote, as `crypto::vote::Vote` and its signature.
    struct Vote {
        BlsVotes.Kind kind;
        /// @dev Zero in a nullify vote.
        uint64 parentView;
        /// @dev Block hash; zero in a nullify vote.
        bytes32 block_;
        /// @dev A point of G1 in EIP-2537's encoding, 128 bytes.
        bytes signature;
    }

    /// @notice Two votes by one key in one view.
    struct Evidence {
        bytes32 node;
        /// @dev The node's vote key, 256 bytes: the registry keeps its hash.
        bytes key;
        bytes16 db;
        uint64 epoch;
        uint64 view_;
        Vote first;
        Vote second;
    }

    event Committed(bytes32 indexed commitment);
    event Proven(
        bytes32 indexed node, bytes16 indexed db, uint64 epoch, uint64 view_, address indexed accuser, uint256 slashed
    );

    error WrongJudge(address got);
    error CommitmentExists(bytes32 commitment);
    error CommitmentMissing(bytes32 commitment);
    error VoteKeyUnknown(bytes32 node, bytes32 got, bytes32 registered);
    error VoteMalformed(uint256 index);
    error NoConflict(BlsVotes.Kind first, BlsVotes.Kind second);
    error AlreadyProven(bytes32 node, bytes16 db, uint64 epoch, uint64 view_);
    error SignatureMismatch(uint256 index);

    /// @notice Commits to an accusation before it is shown, so that who copies it comes too late: `commitmentOf` names what is hashed.
    function commitAccusation(bytes32 commitment) external;

    /// @notice Proves an equivocation that the caller committed to in an earlier block: takes all of the node's collateral, of which the
    /// caller gets `Collateral.CHALLENGER_PERCENT` and the rest is burned, and suspends the node. Once for each (node, db, epoch, view).
    /// A vote that does not verify reverts with `SignatureMismatch`; a bad point or too little gas with `PrecompileFailed`.
    /// @return taken What was slashed.
    function accuse(Evidence calldata evidence, bytes32 salt) external returns (uint256 taken);

    /// @notice What an accuser commits to.
    function commitmentOf(Evidence calldata evidence, address accuser, bytes32 salt) external pure returns (bytes32);

    /// @notice Whether a node was slashed for this view already.
    function proven(bytes32 node, bytes16 db, uint64 epoch, uint64 view_) external view returns (bool);

    /// @notice The node registry.
    function registry() external view returns (INodeRegistry);

    /// @notice The collateral.
    function collateral() external view returns (ICollateral);
}
