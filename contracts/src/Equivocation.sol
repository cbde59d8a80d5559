// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICollateral} from "./interfaces/ICollateral.sol";
import {IEquivocation} from "./interfaces/IEquivocation.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {BlsVotes} from "./libraries/BlsVotes.sol";

/// @title Evidence of conflicting votes, and what it costs.
/// @notice Rule: only two valid signatures slash. Nothing is inferred from silence, from heights, or from a failed call.
/// @dev No owner. Assumes the EIP-2537 precompiles, and that a node never votes twice under one (db, epoch, view): it journals its
/// votes, and takes part in no second cluster of the same database id.
contract Equivocation is IEquivocation {
    /// @inheritdoc IEquivocation
    INodeRegistry public immutable registry;
    /// @inheritdoc IEquivocation
    ICollateral public immutable collateral;

    mapping(bytes32 commitment => uint256 blockNumber) private _commitments;
    mapping(bytes32 id => bool) private _proven;

    /// @param registry_ Must name this contract as its vote judge, and so must `collateral_`.
    constructor(INodeRegistry registry_, ICollateral collateral_) {
        if (registry_.voteJudge() != address(this)) revert WrongJudge(registry_.voteJudge());
        if (collateral_.voteJudge() != address(this)) revert WrongJudge(collateral_.voteJudge());
        registry = registry_;
        collateral = collateral_;
    }

    /// @inheritdoc IEquivocation
    function commitAccusation(bytes32 commitment) external {
        if (_commitments[commitment] != 0) revert CommitmentExists(commitment);
        _commitments[commitment] = block.number;
        emit Committed(commitment);
    }

    /// @inheritdoc IEquivocation
    function accuse(Evidence calldata evidence, bytes32 salt) external returns (uint256 taken) {
        _useCommitment(commitmentOf(evidence, msg.sender, salt));
        bytes32 node = evidence.node;
        bytes32 registered = registry.voteKeyOf(node);
        bytes32 got = keccak256(evidence.key);
        if (got != registered) revert VoteKeyUnknown(node, got, registered);
        _checkConflict(evidence.first, evidence.second);
        bytes32 id = _id(node, evidence.db, evidence.epoch, evidence.view_);
        if (_proven[id]) revert AlreadyProven(node, evidence.db, evidence.epoch, evidence.view_);
        _checkSignature(evidence, evidence.first, 0);
        _checkSignature(evidence, evidence.second, 1);

        _proven[id] = true;
        registry.suspend(node);
        // Nobody is paid for damage: who owns a database id, the chain cannot tell. That share is burned.
        taken = collateral.slash(node, type(uint256).max, msg.sender, new address[](0), new uint256[](0));
        emit Proven(node, evidence.db, evidence.epoch, evidence.view_, msg.sender, taken);
    }

    /// @inheritdoc IEquivocation
    function commitmentOf(Evidence calldata evidence, address accuser, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(keccak256(abi.encode(evidence)), accuser, salt));
    }

    /// @inheritdoc IEquivocation
    function proven(bytes32 node, bytes16 db, uint64 epoch, uint64 view_) external view returns (bool) {
        return _proven[_id(node, db, epoch, view_)];
    }

    function _useCommitment(bytes32 commitment) private {
        uint256 madeIn = _commitments[commitment];
        if (madeIn == 0 || madeIn >= block.number) revert CommitmentMissing(commitment);
        delete _commitments[commitment];
    }

    function _checkConflict(Vote calldata a, Vote calldata b) private pure {
        _checkForm(a, 0);
        _checkForm(b, 1);
        BlsVotes.Kind first = a.kind;
        BlsVotes.Kind second = b.kind;
        bool conflict;
        if (first == second) {
            // Two nullify votes of a view are one.
            conflict = a.block_ != b.block_ || a.parentView != b.parentView;
        } else {
            conflict = first != BlsVotes.Kind.Notarize && second != BlsVotes.Kind.Notarize;
        }
        if (!conflict) revert NoConflict(first, second);
    }

    /// @dev A nullify vote names no proposal.
    function _checkForm(Vote calldata vote, uint256 index) private pure {
        if (vote.kind == BlsVotes.Kind.Nullify && (vote.block_ != 0 || vote.parentView != 0)) {
            revert VoteMalformed(index);
        }
    }

    function _checkSignature(Evidence calldata evidence, Vote calldata vote, uint256 index) private view {
        uint256 frame = BlsVotes.begin();
        bytes calldata key = evidence.key;
        uint256 offset;
        assembly ("memory-safe") {
            offset := key.offset
        }
        BlsVotes.setKey(frame, offset); // 256 bytes: its hash is that of a key which the registry checked
        bytes memory text =
            BlsVotes.message(evidence.db, evidence.epoch, evidence.view_, vote.kind, vote.parentView, vote.block_);
        if (!BlsVotes.matches(frame, BlsVotes.VOTE_SUITE, text, vote.signature)) revert SignatureMismatch(index);
    }

    function _id(bytes32 node, bytes16 db, uint64 epoch, uint64 view_) private pure returns (bytes32) {
        return keccak256(abi.encode(node, db, epoch, view_));
    }
}
