// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICollateral} from "../src/interfaces/ICollateral.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {World} from "./World.t.sol";

contract CollateralTest is World {
    address private judge;

    function setUp() external {
        deploy();
        judge = address(proofs);
        join(NODE, 1000e18);
    }

    function test_rejects_strangers_everywhere() external {
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotOperator.selector, NODE, address(this)));
        collateral.thaw(NODE, 1);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotOperator.selector, NODE, address(this)));
        collateral.withdraw(NODE);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotJudge.selector, address(this)));
        collateral.lock(NODE, 1);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotJudge.selector, address(this)));
        collateral.unlock(NODE, 1);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotJudge.selector, address(this)));
        collateral.slash(NODE, 1, challenger, new address[](0), new uint256[](0));
    }

    function test_rejects_nothing_unknown_nodes_and_more_than_is_free() external {
        vm.expectRevert(abi.encodeWithSelector(ICollateral.AmountZero.selector));
        collateral.deposit(NODE, 0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeUnknown.selector, bytes32("x")));
        collateral.deposit("x", 1);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotEnoughFree.selector, NODE, 1000e18, 1000e18 + 1));
        vm.prank(operator);
        collateral.thaw(NODE, 1000e18 + 1);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NothingToWithdraw.selector));
        collateral.withdrawCredit();
        vm.expectRevert(abi.encodeWithSelector(ICollateral.LengthMismatch.selector, 1, 0));
        vm.prank(judge);
        collateral.slash(NODE, 1, challenger, new address[](1), new uint256[](0));
    }

    function testFuzz_thaws_then_withdraws_to_the_operator_and_never_early(uint256 amount) external {
        amount = within(amount, 1, 1000e18);
        vm.prank(operator);
        collateral.thaw(NODE, amount);
        uint64 thawedAt = uint64(block.number) + THAW_BLOCKS;
        vm.roll(thawedAt - 1);
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NotThawed.selector, NODE, thawedAt));
        vm.prank(operator);
        collateral.withdraw(NODE);
        vm.roll(thawedAt);
        vm.prank(operator);
        collateral.withdraw(NODE);
        eq(flu.balanceOf(operator), amount, "paid");
        eq(total(NODE), 1000e18 - amount, "left");
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NothingToWithdraw.selector));
        vm.prank(operator);
        collateral.withdraw(NODE);
    }

    /// @dev The split, whatever the numbers: at least half burned, at most 30 % and the claims to the harmed, at most 20 % to the
    /// challenger, every unit accounted for.
    function testFuzz_the_split_keeps_its_bounds_and_conserves(
        uint256 amount,
        uint96[4] calldata claims_,
        uint256 locked,
        uint256 thawing
    ) external {
        amount = within(amount, 0, 1200e18);
        locked = within(locked, 0, 1000e18);
        thawing = within(thawing, 0, 1000e18 - locked);
        vm.prank(judge);
        collateral.lock(NODE, locked);
        if (thawing != 0) {
            vm.prank(operator);
            collateral.thaw(NODE, thawing);
        }
        address[] memory owners = new address[](4);
        uint256[] memory claims = new uint256[](4);
        for (uint256 i = 0; i < 4; ++i) {
            owners[i] = address(uint160(100 + i));
            claims[i] = claims_[i] % 400e18;
        }
        uint256 supply = flu.totalSupply();
        vm.prank(judge);
        uint256 taken = collateral.slash(NODE, amount, challenger, owners, claims);
        eq(taken, amount < 1000e18 ? amount : 1000e18, "taken");
        eq(total(NODE), 1000e18 - taken, "left");
        uint256 burned = supply - flu.totalSupply();
        uint256 harmed = 0;
        for (uint256 i = 0; i < 4; ++i) {
            uint256 share = collateral.creditOf(owners[i]);
            yes(share <= claims[i], "no more than the claim");
            harmed += share;
        }
        uint256 reward = collateral.creditOf(challenger);
        yes(burned * 2 >= taken, "at least half is burned");
        yes(harmed * 100 <= taken * 30, "at most 30 % to the harmed");
        yes(reward * 100 <= taken * 20, "at most 20 % to the challenger");
        eq(burned + harmed + reward, taken, "conserved");
        eq(flu.balanceOf(address(collateral)), total(NODE) + harmed + reward, "held");
    }

    function test_slashes_locked_first_then_free_then_thawing() external {
        vm.prank(judge);
        collateral.lock(NODE, 300e18);
        vm.prank(operator);
        collateral.thaw(NODE, 300e18);
        vm.prank(judge);
        collateral.slash(NODE, 500e18, challenger, new address[](0), new uint256[](0));
        ICollateral.Balance memory b = collateral.balanceOf(NODE);
        eq(b.locked, 0, "locked");
        eq(b.free, 200e18, "free");
        eq(b.thawing, 300e18, "thawing");
        vm.prank(judge);
        collateral.slash(NODE, 300e18, challenger, new address[](0), new uint256[](0));
        b = collateral.balanceOf(NODE);
        eq(b.free, 0, "free");
        eq(b.thawing, 200e18, "what thaws is within reach");
    }

    function test_one_nodes_slash_leaves_another_nodes_collateral_alone() external {
        bytes32 other = keccak256("other");
        join(other, 500e18);
        vm.prank(judge);
        collateral.slash(NODE, 5000e18, challenger, new address[](0), new uint256[](0));
        eq(total(NODE), 0, "slashed");
        eq(total(other), 500e18, "untouched");
    }

    function test_credits_are_paid_once_and_to_their_account() external {
        vm.prank(judge);
        collateral.slash(NODE, 100e18, challenger, new address[](0), new uint256[](0));
        vm.prank(challenger);
        collateral.withdrawCredit();
        eq(flu.balanceOf(challenger), 20e18, "paid");
        vm.expectRevert(abi.encodeWithSelector(ICollateral.NothingToWithdraw.selector));
        vm.prank(challenger);
        collateral.withdrawCredit();
    }

    function test_a_used_permit_does_not_stop_the_deposit() external {
        address giver = vm.addr(7);
        yes(flu.transfer(giver, 10e18), "transfer");
        bytes32 hash = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                giver,
                address(collateral),
                10e18,
                0,
                block.timestamp
            )
        );
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(7, keccak256(abi.encodePacked(hex"1901", flu.DOMAIN_SEPARATOR(), hash)));
        flu.permit(giver, address(collateral), 10e18, block.timestamp, v, r, s); // someone else's transaction came first
        vm.prank(giver);
        collateral.depositWithPermit(NODE, 10e18, block.timestamp, v, r, s);
        eq(total(NODE), 1010e18, "deposited");
    }
}
