// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {World} from "./World.t.sol";

contract NodeRegistryTest is World {
    function setUp() external {
        deploy();
    }

    function test_rejects_a_zero_id_a_second_registration_and_a_long_address() external {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeIdZero.selector));
        registry.register(0, "");
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.MultiaddrLength.selector, 257, 256));
        registry.register(NODE, new bytes(257));
        registry.register(NODE, new bytes(256));
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeExists.selector, NODE));
        registry.register(NODE, "");
    }

    function test_rejects_strangers() external {
        join(NODE, 1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NotOperator.selector, NODE, address(this)));
        registry.move(NODE, "x");
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NotOperator.selector, NODE, address(this)));
        registry.retire(NODE);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NotJudge.selector, address(this)));
        registry.suspend(NODE);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NotJudge.selector, address(this)));
        registry.resume(NODE);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeUnknown.selector, bytes32(uint256(1))));
        registry.move(bytes32(uint256(1)), "x");
    }

    function testFuzz_keeps_operator_and_address(bytes32 node, bytes calldata multiaddr) external {
        vm.assume(node != 0 && multiaddr.length <= 256);
        vm.prank(operator);
        registry.register(node, multiaddr);
        INodeRegistry.Node memory record = registry.nodeOf(node);
        eq(record.operator, operator, "operator");
        eq(record.multiaddr, multiaddr, "address");
        eq(uint256(record.status), uint256(INodeRegistry.Status.Active), "status");
        vm.prank(operator);
        registry.move(node, "/elsewhere");
        eq(registry.nodeOf(node).multiaddr, "/elsewhere", "moved");
    }

    function test_retires_only_when_nothing_is_registered_and_for_good() external {
        join(NODE, 1000e18);
        register(registration(DB, 1));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeOwesDatabases.selector, NODE, 1));
        registry.retire(NODE);
        bytes32 empty = keccak256("another");
        join(empty, 1);
        vm.prank(operator);
        registry.retire(empty);
        eq(uint256(registry.statusOf(empty)), uint256(INodeRegistry.Status.Left), "left");
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeExists.selector, empty));
        registry.register(empty, "");
        vm.prank(address(proofs));
        registry.resume(empty);
        eq(uint256(registry.statusOf(empty)), uint256(INodeRegistry.Status.Left), "still left");
    }
}
