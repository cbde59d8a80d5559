// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICollateral} from "./interfaces/ICollateral.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IPlacement} from "./interfaces/IPlacement.sol";
import {Beacons} from "./libraries/Beacons.sol";
import {Draws} from "./libraries/Draws.sol";

/// @title The draw of nodes for databases.
/// @notice Rule: the slots of a draw and their order are fixed by a seed that nobody knows when the request is made. After that a node can
/// leave its place empty (or fill it again with its collateral), and all others keep theirs.
/// @dev No owner, holds no money. Assumes that a proposer does not withhold its block to change one draw. A freed slot is used again by
/// the next node, so that the list does not fill with free ones; who sits there for a draw made before does not count in it.
contract Placement is IPlacement {
    /// @notice `types::limits::MEMBERS_MAX`.
    uint256 public constant SEATS_MAX = 31;
    /// @notice `types::limits::STANDBY_MAX`.
    uint256 public constant STANDBYS_MAX = 16;

    /// @inheritdoc IPlacement
    INodeRegistry public immutable registry;
    /// @inheritdoc IPlacement
    ICollateral public immutable collateral;
    /// @inheritdoc IPlacement
    uint64 public immutable seedDelay;
    /// @inheritdoc IPlacement
    uint256 public immutable collateralMin;

    Slot[] private _slots;
    uint256[] private _free;
    /// @dev One more than the slot; zero where the node has none.
    mapping(bytes32 node => uint256) private _slotOf;
    mapping(address operator => uint256) private _listed;
    /// @inheritdoc IPlacement
    uint256 public operatorCount;
    mapping(address owner => mapping(bytes16 db => Request)) private _requests;
    mapping(address owner => mapping(bytes16 db => bytes32[])) private _orders;
    /// @inheritdoc IPlacement
    mapping(address owner => uint256) public requestsOf;

    /// @param seedDelay_ At least 1: the hash of a request's own block would be in its proposer's hand together with the request.
    constructor(INodeRegistry registry_, ICollateral collateral_, uint64 seedDelay_, uint256 collateralMin_) {
        if (seedDelay_ == 0) revert SeedNotYet(0);
        registry = registry_;
        collateral = collateral_;
        seedDelay = seedDelay_;
        collateralMin = collateralMin_;
    }

    modifier onlyOperator(bytes32 node) {
        if (registry.operatorOf(node) != msg.sender) revert NotOperator(node, msg.sender);
        _;
    }

    /// @inheritdoc IPlacement
    function announce(bytes32 node) external onlyOperator(node) {
        if (_slotOf[node] != 0) revert AlreadyAnnounced(node, _slotOf[node] - 1);
        INodeRegistry.Node memory record = registry.nodeOf(node);
        if (record.status != INodeRegistry.Status.Active) revert NodeNotActive(node, record.status);
        if (record.multiaddr.length == 0) revert AddressMissing(node);
        // Without one it could vote twice and lose nothing.
        if (registry.voteKeyOf(node) == 0) revert VoteKeyMissing(node);
        uint256 free = collateral.balanceOf(node).free;
        if (free < collateralMin) revert CollateralMissing(node, free, collateralMin);
        uint256 slot;
        if (_free.length != 0) {
            slot = _free[_free.length - 1];
            _free.pop();
        } else {
            slot = _slots.length;
            _slots.push();
        }
        _slots[slot] = Slot(node, msg.sender, uint64(block.number));
        _slotOf[node] = slot + 1;
        if (_listed[msg.sender]++ == 0) ++operatorCount;
        emit Announced(node, msg.sender, slot);
    }

    /// @inheritdoc IPlacement
    function withdraw(bytes32 node) external onlyOperator(node) {
        _remove(node);
    }

    /// @inheritdoc IPlacement
    function evict(bytes32 node) external {
        if (_isFit(node)) revert StillFit(node);
        _remove(node);
    }

    /// @inheritdoc IPlacement
    function request(bytes16 db, uint8 seats, uint8 standbys) external {
        if (db == 0) revert DatabaseZero();
        if (seats == 0 || seats > SEATS_MAX) revert SeatCount(seats, SEATS_MAX);
        if (standbys > STANDBYS_MAX) revert StandbyCount(standbys, STANDBYS_MAX);
        Request storage made = _requests[msg.sender][db];
        if (made.requestedAt != 0) revert AlreadyRequested(msg.sender, db, made.requestedAt);
        // Who is on the list may still not count; this keeps an id from being spent where it is plain that they are too few.
        if (operatorCount < seats) revert TooFewOperators(operatorCount, seats);
        uint64 seedBlock = uint64(block.number) + seedDelay;
        _requests[msg.sender][db] =
            Request(uint64(block.number), seedBlock, 0, uint32(_slots.length), seats, standbys, 0);
        ++requestsOf[msg.sender];
        emit Requested(msg.sender, db, seats, standbys, seedBlock);
    }

    /// @inheritdoc IPlacement
    function settle(address owner, bytes16 db) external returns (bytes32[] memory order) {
        Request storage made = _known(owner, db);
        if (made.settledAt != 0) revert AlreadySettled(owner, db, made.settledAt);
        bytes32 seed;
        (seed, order) = _draw(owner, db, made);
        uint256 seats = made.seats;
        if (order.length < seats) revert TooFewOperators(order.length, seats);
        made.settledAt = uint64(block.number);
        made.seed = seed;
        _orders[owner][db] = order;
        emit Settled(owner, db, seed, seats, order);
    }

    /// @inheritdoc IPlacement
    function preview(address owner, bytes16 db) external view returns (bytes32 seed, bytes32[] memory order) {
        Request storage made = _known(owner, db);
        if (made.settledAt != 0) return (made.seed, _orders[owner][db]);
        return _draw(owner, db, made);
    }

    /// @inheritdoc IPlacement
    function orderOf(address owner, bytes16 db)
        external
        view
        returns (bytes32[] memory seats, bytes32[] memory standbys)
    {
        Request storage made = _known(owner, db);
        if (made.settledAt == 0) revert NotSettled(owner, db);
        bytes32[] storage order = _orders[owner][db];
        seats = new bytes32[](made.seats);
        standbys = new bytes32[](order.length - made.seats);
        for (uint256 i = 0; i < order.length; ++i) {
            if (i < seats.length) seats[i] = order[i];
            else standbys[i - seats.length] = order[i];
        }
    }

    /// @inheritdoc IPlacement
    function requestOf(address owner, bytes16 db) external view returns (Request memory) {
        return _requests[owner][db];
    }

    /// @inheritdoc IPlacement
    function candidates(uint64 before, uint256 from, uint256 count) external view returns (Slot[] memory list) {
        uint256 end = from + count < _slots.length ? from + count : _slots.length;
        list = new Slot[](from < end ? end - from : 0);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = _slots[from + i];
            list[i].operator = _operatorAt(from + i, before);
        }
    }

    /// @inheritdoc IPlacement
    function slotCount() external view returns (uint256) {
        return _slots.length;
    }

    /// @inheritdoc IPlacement
    function slotOf(bytes32 node) external view returns (uint256) {
        if (_slotOf[node] == 0) revert NotAnnounced(node);
        return _slotOf[node] - 1;
    }

    function _known(address owner, bytes16 db) private view returns (Request storage made) {
        made = _requests[owner][db];
        if (made.requestedAt == 0) revert RequestUnknown(owner, db);
    }

    function _draw(address owner, bytes16 db, Request storage made)
        private
        view
        returns (bytes32 seed, bytes32[] memory order)
    {
        uint256 seedBlock = made.seedBlock;
        if (seedBlock >= block.number) revert SeedNotYet(seedBlock);
        bytes32 beacon = Beacons.hashOf(seedBlock);
        if (beacon == 0) revert SeedLost(seedBlock);
        seed = Draws.seedOf(address(this), owner, db, beacon);
        uint256 want = uint256(made.seats) + made.standbys;
        uint256[] memory slots = Draws.order(seed, made.slots, want, made.requestedAt, _operatorAt);
        order = new bytes32[](slots.length);
        for (uint256 i = 0; i < slots.length; ++i) {
            order[i] = _slots[slots[i]].node;
        }
    }

    /// @dev The operator of a slot that counts in a request of block `before`, or zero.
    function _operatorAt(uint256 slot, uint64 before) private view returns (address) {
        Slot storage place = _slots[slot];
        bytes32 node = place.node;
        return node != 0 && place.since < before && _isFit(node) ? place.operator : address(0);
    }

    function _isFit(bytes32 node) private view returns (bool) {
        return
            registry.statusOf(node) == INodeRegistry.Status.Active && collateral.balanceOf(node).free >= collateralMin;
    }

    function _remove(bytes32 node) private {
        if (_slotOf[node] == 0) revert NotAnnounced(node);
        uint256 slot = _slotOf[node] - 1;
        address operator = _slots[slot].operator;
        delete _slotOf[node];
        delete _slots[slot];
        _free.push(slot);
        if (--_listed[operator] == 0) --operatorCount;
        emit Withdrawn(node, msg.sender, slot);
    }
}
