// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// @title Who the nodes are and where to reach them.
/// @notice A node id is an Ed25519 public key, which the EVM cannot check. So a stranger may register a node's id first; it gains him
/// nothing, because every owner signs for (node id, *operator*), and costs the node a new key.
interface INodeRegistry {
    /// @notice Active may take on databases; suspended missed a challenge and must restake first; left is for good.
    enum Status {
        None,
        Active,
        Suspended,
        Left
    }

    struct Node {
        /// @dev Sends the node's transactions and owns its collateral. Cannot change: retire, and register a new node id.
        address operator;
        Status status;
        /// @dev Binary multiaddr or its text; read by clients, not by contracts.
        bytes multiaddr;
    }

    event Registered(bytes32 indexed node, address indexed operator, bytes multiaddr);
    event Moved(bytes32 indexed node, bytes multiaddr);
    /// @param key The vote key, 256 bytes as EIP-2537 writes it.
    event VoteKeyRegistered(bytes32 indexed node, bytes key);
    event StatusChanged(bytes32 indexed node, Status status);

    error NodeIdZero();
    error NodeExists(bytes32 node);
    error NodeUnknown(bytes32 node);
    error NodeNotActive(bytes32 node, Status status);
    error NotOperator(bytes32 node, address caller);
    error NotJudge(address caller);
    error MultiaddrLength(uint256 got, uint256 most);
    error VoteKeyExists(bytes32 node);
    error PossessionMismatch(bytes32 node);
    error NodeOwesDatabases(bytes32 node, uint256 databases);

    /// @notice Registers `node` with the caller as operator.
    function register(bytes32 node, bytes calldata multiaddr) external;

    /// @notice Replaces the address; by the operator.
    function move(bytes32 node, bytes calldata multiaddr) external;

    /// @notice Names the key with which `node` votes in clusters; by the operator, who answers for its votes from then on. For good:
    /// a key that could be replaced would take its old votes with it.
    /// @param key 256 bytes, as EIP-2537 writes it.
    /// @param possession Proof that whoever names `node` has the key, 128 bytes: `crypto::vote::VoteKey::possession`.
    function registerVoteKey(bytes32 node, bytes calldata key, bytes calldata possession) external;

    /// @notice Leaves for good; by the operator, when nothing is registered at the node any more.
    function retire(bytes32 node) external;

    /// @notice Suspends an active node; by either judge.
    function suspend(bytes32 node) external;

    /// @notice Makes a suspended node active; by the judge.
    function resume(bytes32 node) external;

    /// @notice The contract that may suspend and resume: `EpochProofs`.
    function judge() external view returns (address);

    /// @notice The contract that may suspend for votes: `Equivocation`.
    function voteJudge() external view returns (address);

    /// @notice A node's record; status None where there is none.
    function nodeOf(bytes32 node) external view returns (Node memory);

    /// @notice A node's operator; reverts where there is no such node.
    function operatorOf(bytes32 node) external view returns (address);

    /// @notice Keccak-256 of the 256 bytes of a node's vote key, or zero where it has none.
    function voteKeyOf(bytes32 node) external view returns (bytes32);

    /// @notice A node's status.
    function statusOf(bytes32 node) external view returns (Status);
}
