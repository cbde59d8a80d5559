// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

import {ICollateral} from "./ICollateral.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

/// @title Who keeps a database: nodes of distinct operators, drawn by the hash of a block that was not there when the owner asked.
/// @notice Operators announce nodes that accept databases. An owner asks, for a database id, for a number of seats and of standbys; a
/// few blocks later a block hash is the seed, and whoever settles has the contract draw the order: first the seats, then the standbys.
/// A node counts if it was announced in a block before the request, and at settlement is active and has the free collateral.
/// @dev What an owner can do about a draw that he does not like: nothing for that id, ever, also where nobody settled while the seed
/// was known. He may ask for another id; that costs a request, and `requestsOf` counts them. He may also ignore the draw: nodes do
/// not ask for it. Whoever relies on it compares the committee with `orderOf`.
interface IPlacement {
    /// @notice A place in the list of nodes. All zero where it is free.
    struct Slot {
        bytes32 node;
        address operator;
        /// @dev The block of its announcement.
        uint64 since;
    }

    /// @notice What an owner asked for.
    struct Request {
        /// @dev Its block; zero where there is none.
        uint64 requestedAt;
        /// @dev The block whose hash makes the seed.
        uint64 seedBlock;
        /// @dev The block of settlement; zero before.
        uint64 settledAt;
        /// @dev Slots of the list at the request.
        uint32 slots;
        uint8 seats;
        uint8 standbys;
        /// @dev Zero before settlement.
        bytes32 seed;
    }

    event Announced(bytes32 indexed node, address indexed operator, uint256 slot);
    /// @param by The operator, or whoever found that the node may not be there.
    event Withdrawn(bytes32 indexed node, address indexed by, uint256 slot);
    event Requested(address indexed owner, bytes16 indexed db, uint256 seats, uint256 standbys, uint256 seedBlock);
    /// @param order The seats, then the standbys.
    event Settled(address indexed owner, bytes16 indexed db, bytes32 seed, uint256 seats, bytes32[] order);

    error NotOperator(bytes32 node, address caller);
    error NodeNotActive(bytes32 node, INodeRegistry.Status status);
    error VoteKeyMissing(bytes32 node);
    error AddressMissing(bytes32 node);
    error CollateralMissing(bytes32 node, uint256 free, uint256 least);
    error AlreadyAnnounced(bytes32 node, uint256 slot);
    error NotAnnounced(bytes32 node);
    error StillFit(bytes32 node);
    error DatabaseZero();
    error SeatCount(uint256 got, uint256 most);
    error StandbyCount(uint256 got, uint256 most);
    error AlreadyRequested(address owner, bytes16 db, uint64 requestedAt);
    error RequestUnknown(address owner, bytes16 db);
    error TooFewOperators(uint256 operators, uint256 seats);
    error SeedNotYet(uint256 seedBlock);
    error SeedLost(uint256 seedBlock);
    error AlreadySettled(address owner, bytes16 db, uint64 settledAt);
    error NotSettled(address owner, bytes16 db);

    /// @notice Puts a node on the list; by its operator. It must be active, have a vote key, an address, and the free collateral.
    function announce(bytes32 node) external;

    /// @notice Takes a node off the list; by its operator. Draws that are settled stay as they are.
    function withdraw(bytes32 node) external;

    /// @notice Takes a node off the list that is not active or lacks the collateral; by anyone.
    function evict(bytes32 node) external;

    /// @notice Asks for a draw for the caller's database. Once for each (owner, database), whatever comes of it.
    /// @param seats 1 to 31.
    /// @param standbys Up to 16; fewer are drawn where there are no more.
    function request(bytes16 db, uint8 seats, uint8 standbys) external;

    /// @notice Draws, and keeps the order; by anyone, once the seed's block is there and as long as the chain knows its hash.
    /// Reverts with `TooFewOperators` where fewer count than seats were asked for; that may change until the seed is lost.
    /// @return order The seats, then the standbys.
    function settle(address owner, bytes16 db) external returns (bytes32[] memory order);

    /// @notice What `settle` would keep now, and the seed. As many as there are, also where they are too few.
    function preview(address owner, bytes16 db) external view returns (bytes32 seed, bytes32[] memory order);

    /// @notice The drawn nodes of a settled request.
    function orderOf(address owner, bytes16 db)
        external
        view
        returns (bytes32[] memory seats, bytes32[] memory standbys);

    /// @notice A request; all zero where there is none.
    function requestOf(address owner, bytes16 db) external view returns (Request memory);

    /// @notice Requests that an owner ever made: more than his databases means that he drew again.
    function requestsOf(address owner) external view returns (uint256);

    /// @notice Slots `from` to `from + count` of the list, cut at its end. The operator is zero where a request in block `before`
    /// would not count the slot now.
    function candidates(uint64 before, uint256 from, uint256 count) external view returns (Slot[] memory);

    /// @notice Length of the list, free slots included.
    function slotCount() external view returns (uint256);

    /// @notice Distinct operators on the list.
    function operatorCount() external view returns (uint256);

    /// @notice A node's slot; reverts where it has none.
    function slotOf(bytes32 node) external view returns (uint256);

    /// @notice Blocks from a request to the one whose hash is the seed.
    function seedDelay() external view returns (uint64);

    /// @notice Free collateral that a node on the list must have, in 1e-18 FLU.
    function collateralMin() external view returns (uint256);

    /// @notice The node registry.
    function registry() external view returns (INodeRegistry);

    /// @notice The collateral.
    function collateral() external view returns (ICollateral);
}
