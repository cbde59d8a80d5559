// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {FluToken} from "../src/FluToken.sol";
import {Base} from "./Base.t.sol";

contract FluTokenTest is Base {
    FluToken private flu;
    uint256 private constant KEY = 0xa11ce;

    function setUp() external {
        flu = new FluToken(address(this));
    }

    function test_mints_the_whole_cap_once_to_the_treasury() external view {
        eq(flu.totalSupply(), 100_000_000e18, "supply");
        eq(flu.balanceOf(address(this)), flu.CAP(), "treasury");
    }

    function test_has_no_way_to_mint_or_to_be_owned() external {
        string[5] memory calls = ["mint(address,uint256)", "mint(uint256)", "owner()", "pause()", "upgradeTo(address)"];
        for (uint256 i = 0; i < calls.length; ++i) {
            (bool good,) = address(flu).call(abi.encodeWithSignature(calls[i], address(this), 1));
            yes(!good, calls[i]);
        }
    }

    function test_rejects_an_expired_permit_a_strangers_and_a_replay() external {
        address owner = vm.addr(KEY);
        bytes32 digest = _digest(owner, 5, 0, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, digest);
        vm.expectPartialRevert(ERC20Permit.ERC2612ExpiredSignature.selector);
        flu.permit(owner, address(this), 5, block.timestamp - 1, v, r, s);
        vm.expectPartialRevert(ERC20Permit.ERC2612InvalidSigner.selector);
        flu.permit(owner, address(this), 6, block.timestamp, v, r, s);
        flu.permit(owner, address(this), 5, block.timestamp, v, r, s);
        eq(flu.allowance(owner, address(this)), 5, "allowance");
        vm.expectPartialRevert(ERC20Permit.ERC2612InvalidSigner.selector);
        flu.permit(owner, address(this), 5, block.timestamp, v, r, s);
    }

    function testFuzz_burning_lowers_supply_and_nothing_raises_it(uint256 amount, uint256 sent) external {
        amount = within(amount, 0, flu.CAP());
        flu.burn(amount);
        eq(flu.totalSupply(), flu.CAP() - amount, "supply");
        sent = within(sent, 0, flu.CAP() - amount);
        yes(flu.transfer(address(1), sent), "transfer");
        eq(flu.totalSupply(), flu.balanceOf(address(this)) + flu.balanceOf(address(1)), "conserved");
    }

    function _digest(address owner, uint256 value, uint256 nonce, uint256 deadline) private view returns (bytes32) {
        bytes32 hash = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                owner,
                address(this),
                value,
                nonce,
                deadline
            )
        );
        return keccak256(abi.encodePacked(hex"1901", flu.DOMAIN_SEPARATOR(), hash));
    }
}
