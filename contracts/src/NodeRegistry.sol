// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IEpochProofs} from "./interfaces/IEpochProofs.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {BlsVotes} from "./libraries/BlsVotes.sol";

/// @title The node registry.
/// @dev No owner. The judges are fixed at construction: their addresses are computed before they are deployed, and each refuses a
/// registry that names another.
contract NodeRegistry is INodeRegistry {
    /// @notice Most bytes of a multiaddr.
    uint256 public constant MULTIADDR_BYTES_MAX = 256;

    /// @inheritdoc INodeRegistry
    address public immutable judge;
    /// @inheritdoc INodeRegistry
    address public immutable voteJudge;

    mapping(bytes32 node => Node) private _nodes;
    /// @inheritdoc INodeRegistry
    mapping(bytes32 node => bytes32) public voteKeyOf;

    constructor(address judge_, address voteJudge_) {
        judge = judge_;
        voteJudge = voteJudge_;
    }

    modifier onlyOperator(bytes32 node) {
        if (operatorOf(node) != msg.sender) revert NotOperator(node, msg.sender);
        _;
    }

    modifier onlyJudge() {
        if (msg.sender != judge) revert NotJudge(msg.sender);
        _;
    }

    /// @inheritdoc INodeRegistry
    function register(bytes32 node, bytes calldata multiaddr) external {
        if (node == bytes32(0)) revert NodeIdZero();
        if (_nodes[node].status != Status.None) revert NodeExists(node);
        _checkMultiaddr(multiaddr);
        _nodes[node] = Node(msg.sender, Status.Active, multiaddr);
        emit Registered(node, msg.sender, multiaddr);
    }

    /// @inheritdoc INodeRegistry
    function move(bytes32 node, bytes calldata multiaddr) external onlyOperator(node) {
        _checkMultiaddr(multiaddr);
        _nodes[node].multiaddr = multiaddr;
        emit Moved(node, multiaddr);
    }

    /// @inheritdoc INodeRegistry
    function registerVoteKey(bytes32 node, bytes calldata key, bytes calldata possession) external onlyOperator(node) {
        if (voteKeyOf[node] != 0) revert VoteKeyExists(node);
        if (!BlsVotes.possesses(node, key, possession)) revert PossessionMismatch(node);
        voteKeyOf[node] = keccak256(key);
        emit VoteKeyRegistered(node, key);
    }

    /// @inheritdoc INodeRegistry
    function retire(bytes32 node) external onlyOperator(node) {
        Status status = _nodes[node].status;
        if (status == Status.Left) revert NodeNotActive(node, status);
        uint256 databases = IEpochProofs(judge).databaseCount(node);
        if (databases != 0) revert NodeOwesDatabases(node, databases);
        _set(node, Status.Left);
    }

    /// @inheritdoc INodeRegistry
    function suspend(bytes32 node) external {
        if (msg.sender != judge && msg.sender != voteJudge) revert NotJudge(msg.sender);
        if (_nodes[node].status == Status.Active) _set(node, Status.Suspended);
    }

    /// @inheritdoc INodeRegistry
    function resume(bytes32 node) external onlyJudge {
        if (_nodes[node].status == Status.Suspended) _set(node, Status.Active);
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(bytes32 node) external view returns (Node memory) {
        return _nodes[node];
    }

    /// @inheritdoc INodeRegistry
    function operatorOf(bytes32 node) public view returns (address operator) {
        operator = _nodes[node].operator;
        if (operator == address(0)) revert NodeUnknown(node);
    }

    /// @inheritdoc INodeRegistry
    function statusOf(bytes32 node) external view returns (Status) {
        return _nodes[node].status;
    }

    function _set(bytes32 node, Status status) private {
        _nodes[node].status = status;
        emit StatusChanged(node, status);
    }

    function _checkMultiaddr(bytes calldata multiaddr) private pure {
        if (multiaddr.length > MULTIADDR_BYTES_MAX) revert MultiaddrLength(multiaddr.length, MULTIADDR_BYTES_MAX);
    }
}
