// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICollateral} from "../src/interfaces/ICollateral.sol";
import {IEpochProofs} from "../src/interfaces/IEpochProofs.sol";
import {Base, Vm} from "./Base.t.sol";
import {World} from "./World.t.sol";

/// @dev Everyone's acts in any order, with what they should have added up to.
contract Handler is World {
    bytes32[] private _ids;
    bytes32[2] private _nodes = [NODE, keccak256("second")];
    uint64[2] private _heights;
    /// @dev The stakes of all that the challenged node owed in the challenged epoch.
    mapping(bytes32 id => uint256) private _due;
    mapping(bytes32 node => mapping(uint64 epoch => uint256)) private _slashedIn;
    uint256 public slashedTwice;
    uint256 public deposited;
    uint256 public withdrawn;
    uint256 public slashedByEvents;
    uint256 public slashedByBalance;
    uint256 public answers;
    uint256 public expiries;
    uint256 public lossWithoutExpiry;

    constructor() {
        deploy();
        join(_nodes[0], 1000e18);
        join(_nodes[1], 500e18);
        deposited = 1500e18;
    }

    // ---- acts -----------------------------------------------------------------------------------------------------------------

    function roll(uint256 blocks) external {
        vm.roll(block.number + within(blocks, 1, 40));
    }

    function deposit(uint256 which, uint256 amount) external {
        amount = within(amount, 1, 200e18);
        fund(_nodes[which % 2], amount);
        deposited += amount;
    }

    function thaw(uint256 which, uint256 amount) external {
        bytes32 node = _nodes[which % 2];
        uint256 free = collateral.balanceOf(node).free;
        if (free == 0) return;
        vm.prank(operator);
        collateral.thaw(node, within(amount, 1, free));
    }

    function withdraw(uint256 which) external {
        bytes32 node = _nodes[which % 2];
        ICollateral.Balance memory b = collateral.balanceOf(node);
        if (b.thawing == 0 || block.number < b.thawedAt) return;
        vm.prank(operator);
        collateral.withdraw(node);
        withdrawn += b.thawing;
    }

    function withdrawCredit(bool ofOwner) external {
        address who = ofOwner ? owner : challenger;
        if (collateral.creditOf(who) == 0) return;
        vm.prank(who);
        collateral.withdrawCredit();
    }

    function registerRoot(uint256 which, uint8 db, uint64 cells, uint64 until) external {
        IEpochProofs.Registration memory r = registration(bytes16(uint128(1 + db % 3)), ++_heights[which % 2]);
        r.node = _nodes[which % 2];
        r.cells = uint64(within(cells, 1, 64 * 150));
        r.untilEpoch = proofs.effectiveEpoch() + uint64(within(until, 0, 10));
        bytes memory signature = sign(OWNER_KEY, proofs.registrationDigest(r));
        vm.prank(operator);
        try proofs.registerRoot(r, signature, "") {} catch {}
    }

    function release(uint256 which, uint8 db) external {
        vm.prank(owner);
        try proofs.release(_nodes[which % 2], bytes16(uint128(1 + db % 3)), "") {} catch {}
    }

    function close(uint256 which, uint8 db) external {
        try proofs.close(_nodes[which % 2], bytes16(uint128(1 + db % 3))) {} catch {}
    }

    function restake(uint256 which) external {
        vm.prank(operator);
        try proofs.restake(_nodes[which % 2]) {} catch {}
    }

    function challenge(uint256 which, uint8 db, uint16 index, uint64 back) external {
        bytes32 node = _nodes[which % 2];
        uint64 epoch = proofs.currentEpoch();
        back = back % 3;
        epoch = epoch > back ? epoch - back : epoch;
        uint256 start = proofs.epochStart(epoch);
        if (block.number + 1 > start + WINDOW_BLOCKS) return;
        bytes16 id = bytes16(uint128(db % 4)); // 0: the holdings
        index = id == 0 ? index % PROOFS : 0;
        vm.prank(challenger);
        proofs.commitChallenge(proofs.commitmentOf(node, epoch, id, index, challenger, bytes32(_ids.length)));
        vm.roll(block.number + 1);
        vm.setBlockhash(start, keccak256(abi.encode("beacon", epoch)));
        vm.deal(challenger, challenger.balance + BOND_MIN);
        vm.prank(challenger);
        try proofs.challenge{value: BOND_MIN}(node, epoch, id, index, bytes32(_ids.length)) returns (bytes32 made) {
            _ids.push(made);
            uint256 due = 0;
            IEpochProofs.Owed[] memory list = proofs.owed(node, epoch);
            for (uint256 i = 0; i < list.length; ++i) {
                due += proofs.stakeFor(list[i].cells);
            }
            _due[made] = due;
        } catch {}
    }

    function respond(uint256 which, bool wrong) external {
        if (_ids.length == 0) return;
        bytes32 id = _ids[which % _ids.length];
        uint256 before = _totals();
        bytes memory proof = answer(id);
        if (wrong) proof = answer(_ids[(which + 1) % _ids.length]);
        try proofs.respond(id, proof) {
            ++answers;
        } catch {}
        if (_totals() != before) lossWithoutExpiry += 1;
    }

    function expire(uint256 which) external {
        if (_ids.length == 0) return;
        uint256 before = _totals();
        bytes32 id = _ids[which % _ids.length];
        vm.recordLogs();
        try proofs.expire(id) {
            ++expiries;
            IEpochProofs.Challenge memory c = proofs.challengeOf(id);
            _slashedIn[c.node][c.epoch] += before - _totals();
            if (_slashedIn[c.node][c.epoch] > _due[id]) ++slashedTwice;
        } catch {}
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != ICollateral.Slashed.selector) continue;
            (uint256 burned, uint256 harmed, uint256 reward, uint256 had, uint256 left) =
                abi.decode(logs[i].data, (uint256, uint256, uint256, uint256, uint256));
            slashedByEvents += burned + harmed + reward;
            if (had - left != burned + harmed + reward) lossWithoutExpiry += 1;
        }
        slashedByBalance += before - _totals();
    }

    function claimBond(uint256 which, bool asOperator) external {
        if (_ids.length == 0) return;
        vm.prank(asOperator ? operator : challenger);
        try proofs.claimBond(_ids[which % _ids.length]) {} catch {}
    }

    // ---- what must hold -------------------------------------------------------------------------------------------------------

    function check() external view {
        uint256 credits = collateral.creditOf(owner) + collateral.creditOf(challenger);
        eq(flu.balanceOf(address(collateral)), _totals() + credits, "collateral holds what it owes");
        eq(deposited, _totals() + withdrawn + slashedByBalance, "nothing appears and nothing leaks");
        eq(slashedByEvents, slashedByBalance, "events tell every slash");
        eq(lossWithoutExpiry, 0, "only expiry takes collateral");
        eq(slashedTwice, 0, "an epoch costs no more than the stakes of what it owes");
        uint256 held = flu.balanceOf(address(this)) + flu.balanceOf(operator) + flu.balanceOf(owner)
            + flu.balanceOf(challenger) + flu.balanceOf(address(collateral));
        eq(held, flu.totalSupply(), "supply");
        uint256 burned = flu.CAP() - flu.totalSupply();
        yes(burned * 2 >= slashedByBalance && burned <= slashedByBalance, "at least half of every slash is burned");
        uint256 bonds = 0;
        for (uint256 i = 0; i < _ids.length; ++i) {
            IEpochProofs.Challenge memory c = proofs.challengeOf(_ids[i]);
            if (c.status != IEpochProofs.ChallengeStatus.Closed) bonds += c.bond;
        }
        eq(address(proofs).balance, bonds, "bonds are there until they are paid");
        for (uint256 n = 0; n < 2; ++n) {
            ICollateral.Balance memory b = collateral.balanceOf(_nodes[n]);
            yes(b.locked <= proofs.stakeRequired(_nodes[n]), "no more is locked than is needed");
            if (expiries == 0) eq(b.locked, proofs.stakeRequired(_nodes[n]), "and before any slash all of it is");
        }
    }

    function _totals() private view returns (uint256) {
        return total(_nodes[0]) + total(_nodes[1]);
    }
}

/// @dev `targetContracts` is what forge asks for.
contract InvariantsTest is Base {
    Handler private handler;

    function setUp() external {
        handler = new Handler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_money_is_conserved_and_only_expiry_slashes() external view {
        handler.check();
    }

    /// @dev The acts are not all no-ops: one run by hand in which each kind of them does something.
    function test_the_handler_reaches_answers_and_slashes() external {
        handler.registerRoot(0, 0, 640, 8);
        for (uint256 i = 0; i < 3; ++i) {
            handler.roll(39);
        }
        handler.challenge(0, 0, 0, 0);
        handler.challenge(0, 1, 0, 0);
        handler.respond(0, true);
        handler.respond(0, false);
        handler.roll(39);
        handler.expire(0);
        handler.expire(1);
        handler.claimBond(0, true);
        handler.check();
        eq(handler.answers(), 1, "answers");
        eq(handler.expiries(), 1, "expiries");
        yes(handler.slashedByBalance() > 0, "slashed");
    }
}
