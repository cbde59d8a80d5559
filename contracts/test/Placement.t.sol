// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Placement} from "../src/Placement.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IPlacement} from "../src/interfaces/IPlacement.sol";
import {Draws} from "../src/libraries/Draws.sol";
import {Vm} from "./Base.t.sol";
import {World} from "./World.t.sol";

contract PlacementTest is World {
    string private constant VECTORS = "../tests/vectors/placement.json";
    address private constant ALICE = address(0xa11ce);

    /// @dev Operators by slot, for draws from a list that is in no contract.
    address[] private _operators;

    function setUp() external {
        deploy();
    }

    // ---- the list ---------------------------------------------------------------------------------------------------------

    function test_refuses_nodes_that_may_not_be_on_the_list() external {
        bytes32 node = _node(1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeUnknown.selector, node));
        placement.announce(node);
        vm.startPrank(_operator(1));
        registry.register(node, "");
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IPlacement.NotOperator.selector, node, address(this)));
        placement.announce(node);
        _refused(node, abi.encodeWithSelector(IPlacement.AddressMissing.selector, node));
        vm.prank(_operator(1));
        registry.move(node, "/ip4/127.0.0.1/tcp/1");
        _refused(node, abi.encodeWithSelector(IPlacement.VoteKeyMissing.selector, node));
        _giveVoteKey(node);
        _refused(node, abi.encodeWithSelector(IPlacement.CollateralMissing.selector, node, 0, STAKE_MIN));
        fund(node, STAKE_MIN - 1);
        _refused(node, abi.encodeWithSelector(IPlacement.CollateralMissing.selector, node, STAKE_MIN - 1, STAKE_MIN));
        fund(node, 1);
        vm.prank(address(proofs));
        registry.suspend(node);
        _refused(node, abi.encodeWithSelector(IPlacement.NodeNotActive.selector, node, INodeRegistry.Status.Suspended));
        vm.prank(address(proofs));
        registry.resume(node);
        vm.prank(_operator(1));
        placement.announce(node);
        eq(placement.slotOf(node), 0, "slot");
        _refused(node, abi.encodeWithSelector(IPlacement.AlreadyAnnounced.selector, node, 0));
    }

    function test_only_the_operator_withdraws_and_anyone_evicts_who_is_not_fit() external {
        _list(1, 1);
        bytes32 node = _node(1);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.NotOperator.selector, node, address(this)));
        placement.withdraw(node);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.StillFit.selector, node));
        placement.evict(node);
        vm.prank(_operator(1));
        collateral.thaw(node, 1);
        placement.evict(node);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.NotAnnounced.selector, node));
        placement.slotOf(node);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.NotAnnounced.selector, node));
        placement.evict(node);
        eq(placement.operatorCount(), 0, "operators");
    }

    function test_a_free_slot_is_used_again_and_operators_are_counted_once() external {
        _list(1, 3);
        _join(4, _operator(3));
        eq(placement.operatorCount(), 3, "operators");
        eq(placement.slotCount(), 4, "slots");
        vm.prank(_operator(2));
        placement.withdraw(_node(2));
        eq(placement.operatorCount(), 2, "operators");
        vm.prank(_operator(3));
        placement.withdraw(_node(3));
        eq(placement.operatorCount(), 2, "one of two nodes");
        _list(5, 2);
        eq(placement.slotCount(), 4, "slots");
        eq(placement.slotOf(_node(5)), 2, "the slot freed last");
        eq(placement.slotOf(_node(6)), 1, "the slot freed first");
        eq(placement.operatorCount(), 4, "operators");
    }

    // ---- requests ---------------------------------------------------------------------------------------------------------

    function test_refuses_requests_that_cannot_be_met_or_were_made_before() external {
        _list(1, 4);
        vm.roll(block.number + 1);
        vm.expectRevert(IPlacement.DatabaseZero.selector);
        placement.request(0, 4, 0);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.SeatCount.selector, 0, 31));
        placement.request(DB, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.SeatCount.selector, 32, 31));
        placement.request(DB, 32, 0);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.StandbyCount.selector, 17, 16));
        placement.request(DB, 4, 17);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.TooFewOperators.selector, 4, 5));
        placement.request(DB, 5, 0);
        placement.request(DB, 4, 0);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.AlreadyRequested.selector, address(this), DB, block.number));
        placement.request(DB, 4, 0);
        // Another owner's database of the same id is another.
        vm.prank(ALICE);
        placement.request(DB, 4, 0);
        eq(placement.requestsOf(address(this)), 1, "requests");
    }

    function test_settles_once_after_the_seed_and_before_it_is_lost() external {
        _list(1, 6);
        vm.roll(block.number + 1);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.RequestUnknown.selector, address(this), DB));
        placement.settle(address(this), DB);
        uint256 seedBlock = block.number + SEED_BLOCKS;
        placement.request(DB, 4, 2);
        for (uint256 i = 0; i <= SEED_BLOCKS; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPlacement.SeedNotYet.selector, seedBlock));
            placement.settle(address(this), DB);
            vm.roll(block.number + 1);
        }
        vm.setBlockhash(seedBlock, keccak256("beacon"));
        vm.expectRevert(abi.encodeWithSelector(IPlacement.NotSettled.selector, address(this), DB));
        placement.orderOf(address(this), DB);
        (bytes32 seed, bytes32[] memory shown) = placement.preview(address(this), DB);
        eq(seed, Draws.seedOf(address(placement), address(this), DB, keccak256("beacon")), "seed");
        vm.prank(ALICE); // anyone
        bytes32[] memory order = placement.settle(address(this), DB);
        eq(keccak256(abi.encode(order)), keccak256(abi.encode(shown)), "preview");
        eq(order.length, 6, "length");
        vm.expectRevert(
            abi.encodeWithSelector(IPlacement.AlreadySettled.selector, address(this), DB, uint64(block.number))
        );
        placement.settle(address(this), DB);
        (bytes32[] memory seats, bytes32[] memory standbys) = placement.orderOf(address(this), DB);
        eq(seats.length, 4, "seats");
        eq(standbys.length, 2, "standbys");
        for (uint256 i = 0; i < 6; ++i) {
            eq(i < 4 ? seats[i] : standbys[i - 4], order[i], "order");
        }
        // Whatever happens to the list later.
        vm.prank(_operator(1));
        placement.withdraw(_node(1));
        (seed, shown) = placement.preview(address(this), DB);
        eq(keccak256(abi.encode(order)), keccak256(abi.encode(shown)), "kept");
    }

    /// @dev Where nobody settled in time the id is spent: waiting for another seed is no way to draw again.
    function test_a_seed_that_was_lost_is_lost_and_so_is_the_id() external {
        _list(1, 4);
        vm.roll(block.number + 1);
        uint256 seedBlock = block.number + SEED_BLOCKS;
        placement.request(DB, 4, 0);
        vm.roll(seedBlock + 10_000);
        vm.expectRevert(abi.encodeWithSelector(IPlacement.SeedLost.selector, seedBlock));
        placement.settle(address(this), DB);
        vm.expectPartialRevert(IPlacement.AlreadyRequested.selector);
        placement.request(DB, 4, 0);
    }

    // ---- who is drawn -----------------------------------------------------------------------------------------------------

    function test_who_came_in_the_block_of_the_request_or_later_does_not_count() external {
        _list(1, 4);
        vm.roll(block.number + 1);
        _list(5, 1); // the request's own block
        placement.request(DB, 4, 16);
        vm.roll(block.number + 1);
        _list(6, 3);
        // One of the first leaves, and a new one takes its slot.
        _list(20, 1);
        vm.prank(_operator(1));
        placement.withdraw(_node(1));
        _list(21, 1);
        eq(placement.slotOf(_node(21)), 0, "slot");
        _seed("beacon");
        (, bytes32[] memory order) = placement.preview(address(this), DB);
        eq(order.length, 3, "length");
        for (uint256 i = 0; i < 3; ++i) {
            yes(order[i] == _node(2) || order[i] == _node(3) || order[i] == _node(4), "a stranger");
        }
        vm.expectRevert(abi.encodeWithSelector(IPlacement.TooFewOperators.selector, 3, 4));
        placement.settle(address(this), DB);
        IPlacement.Slot[] memory list = placement.candidates(placement.requestOf(address(this), DB).requestedAt, 0, 100);
        for (uint256 i = 0; i < list.length; ++i) {
            eq(list[i].operator != address(0), i > 0 && i < 4, "counts");
        }
    }

    function test_who_lost_its_collateral_or_its_standing_is_passed_over() external {
        _list(1, 6);
        vm.roll(block.number + 1);
        placement.request(DB, 4, 2);
        _seed("beacon");
        (, bytes32[] memory before) = placement.preview(address(this), DB);
        eq(before.length, 6, "all");
        bytes32 poor = before[0];
        bytes32 bad = before[2];
        vm.prank(registry.operatorOf(poor));
        collateral.thaw(poor, 1);
        vm.prank(address(equivocation));
        registry.suspend(bad);
        bytes32[] memory order = placement.settle(address(this), DB);
        bytes32[4] memory want = [before[1], before[3], before[4], before[5]];
        eq(order.length, 4, "rest");
        for (uint256 i = 0; i < 4; ++i) {
            eq(order[i], want[i], "the others keep their order");
        }
    }

    function testFuzz_operators_are_distinct_and_another_seed_is_another_draw(bytes32 beacon, uint8 nodes, uint8 seats)
        external
    {
        nodes = uint8(within(nodes, 1, 24));
        for (uint256 i = 1; i <= nodes; ++i) {
            _join(i, _operator(i % 5)); // five operators at most
        }
        uint256 operators = placement.operatorCount();
        seats = uint8(within(seats, 1, operators));
        vm.roll(block.number + 1);
        placement.request(DB, seats, 16);
        _seed(beacon);
        bytes32[] memory order = placement.settle(address(this), DB);
        eq(order.length, operators, "every operator once");
        for (uint256 i = 0; i < order.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                yes(registry.operatorOf(order[i]) != registry.operatorOf(order[j]), "an operator twice");
            }
        }
    }

    /// @dev 256 steps through a list of nobody, the most a draw may cost.
    function test_a_long_list_of_free_slots_ends_in_bounded_gas() external {
        for (uint256 i = 0; i < 2000; ++i) {
            _operators.push(address(0));
        }
        uint256 before = gasleft();
        uint256[] memory order = Draws.order(keccak256("seed"), 2000, 47, 0, _operatorOf);
        eq(order.length, 0, "nobody");
        yes(before - gasleft() < 6_000_000, "gas");
    }

    function test_draws_are_those_of_the_vectors() external {
        string memory json = vm.readFile(VECTORS);
        uint256 n = count(json, "seed");
        yes(n >= 10, "too few vectors");
        for (uint256 i = 0; i < n; ++i) {
            vm.chainId(vm.parseJsonUint(json, key(i, "chain_id")));
            bytes32 seed = Draws.seedOf(
                vm.parseJsonAddress(json, key(i, "contract")),
                vm.parseJsonAddress(json, key(i, "owner")),
                bytes16(vm.parseJsonBytes(json, key(i, "db"))),
                vm.parseJsonBytes32(json, key(i, "beacon"))
            );
            eq(seed, vm.parseJsonBytes32(json, key(i, "seed")), "seed");
            uint256[] memory operators = vm.parseJsonUintArray(json, key(i, "operators"));
            delete _operators;
            for (uint256 k = 0; k < operators.length; ++k) {
                // 20 times the byte.
                _operators.push(address(uint160(operators[k] * (type(uint160).max / 255))));
            }
            uint256[] memory want = vm.parseJsonUintArray(json, key(i, "order"));
            uint256 most = vm.parseJsonUint(json, key(i, "want"));
            uint256[] memory got = Draws.order(seed, operators.length, most, 0, _operatorOf);
            eq(keccak256(abi.encode(got)), keccak256(abi.encode(want)), "order");
        }
    }

    function _operatorOf(uint256 slot, uint64) private view returns (address) {
        return _operators[slot];
    }

    // ---- helpers ----------------------------------------------------------------------------------------------------------

    function _node(uint256 i) private pure returns (bytes32) {
        return keccak256(abi.encode("node", i));
    }

    function _operator(uint256 i) private pure returns (address) {
        return address(uint160(0x10000 + i));
    }

    function _refused(bytes32 node, bytes memory reason) private {
        vm.prank(_operator(1));
        vm.expectRevert(reason);
        placement.announce(node);
    }

    /// @dev The key's proof is `NodeRegistry.t.sol`'s business.
    function _giveVoteKey(bytes32 node) private {
        vm.mockCall(
            address(registry), abi.encodeCall(INodeRegistry.voteKeyOf, (node)), abi.encode(keccak256("a vote key"))
        );
    }

    function _join(uint256 i, address by) private {
        vm.prank(by);
        registry.register(_node(i), "/ip4/127.0.0.1/tcp/1");
        fund(_node(i), STAKE_MIN);
        _giveVoteKey(_node(i));
        vm.prank(by);
        placement.announce(_node(i));
    }

    /// @dev `count` nodes from `first` on, each of an operator of its own.
    function _list(uint256 first, uint256 count) private {
        for (uint256 i = first; i < first + count; ++i) {
            _join(i, _operator(i));
        }
    }

    function _seed(bytes32 beacon) private {
        uint256 seedBlock = placement.requestOf(address(this), DB).seedBlock;
        vm.roll(seedBlock + 1);
        vm.setBlockhash(seedBlock, beacon == 0 ? bytes32(uint256(1)) : beacon);
    }
}
