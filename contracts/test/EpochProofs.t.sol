// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Collateral} from "../src/Collateral.sol";
import {Groth16Verifier} from "../src/Groth16Verifier.sol";
import {Holdings} from "../src/Holdings.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {ICollateral} from "../src/interfaces/ICollateral.sol";
import {IEpochProofs} from "../src/interfaces/IEpochProofs.sol";
import {IGroth16Verifier} from "../src/interfaces/IGroth16Verifier.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {Bls12381} from "../src/libraries/Bls12381.sol";
import {Toy} from "./Toy.sol";
import {World} from "./World.t.sol";

/// @dev Registration, history, beacons, seeds.
contract DebtTest is World {
    function setUp() external {
        deploy();
        join(NODE, 100_000e18);
    }

    // ---- construction ---------------------------------------------------------------------------------------------------------

    function test_refuses_parts_with_another_judge_and_bad_numbers() external {
        IEpochProofs.RangeSumCircuit[] memory none;
        Holdings hasher = new Holdings();
        bytes memory arguments = abi.encode(registry, collateral, hasher, verifier, none, params());
        refuses("EpochProofs", arguments, abi.encodeWithSelector(IEpochProofs.WrongJudge.selector, address(proofs)));
        string[9] memory reasons = [
            "zero blocks",
            "window shorter than an epoch",
            "zero blocks",
            "no proofs",
            "no stake",
            "shape",
            "thaws too fast",
            "zero blocks",
            "no time to prove"
        ];
        for (uint256 i = 0; i < 9; ++i) {
            IEpochProofs.Params memory p = params();
            if (i == 0) p.epochBlocks = 0;
            if (i == 1) p.windowBlocks = EPOCH_BLOCKS - 1;
            if (i == 2) p.responseBlocks = 0;
            if (i == 3) p.proofsPerEpoch = 0;
            if (i == 4) p.stakeMin = 0;
            if (i == 5) p.shape.treeLevels = 8;
            if (i == 6) p.windowBlocks = uint64(THAW_BLOCKS - 2 * RESPONSE_BLOCKS + 1); // a withdrawal would outrun an expiry
            if (i == 7) p.proofBlocks = 0;
            if (i == 8) p.proofBlocks = RESPONSE_BLOCKS + 1;
            _refusesParams(hasher, p, abi.encodeWithSelector(IEpochProofs.BadParams.selector, reasons[i]));
        }
        bytes memory six = abi.encodeWithSelector(IEpochProofs.CircuitInputs.selector, proofs.storageCircuit(), 6);
        verifier = new Groth16Verifier(Toy.key(6), true);
        _refusesParams(hasher, params(), six);
    }

    function test_pins_circuits_by_their_names() external view {
        bytes32 storage_ = keccak256("storage/v2/k16-h4-d6-t7");
        eq(proofs.storageCircuit(), storage_, "storage");
        eq(proofs.vkHash(storage_), verifier.vkHash(), "key");
        eq(address(proofs.verifierOf(keccak256("range_sum/v1/s4-t7"))), address(verifier), "range sum");
        eq(proofs.shapeWord(), 0x0010_0004_0006_0007, "shape");
        eq(abi.encode(proofs.params()), abi.encode(params()), "params");
    }

    // ---- registering ----------------------------------------------------------------------------------------------------------

    function test_rejects_a_registration_without_both_words() external {
        IEpochProofs.Registration memory r = registration(DB, 1);
        bytes32 digest = proofs.registrationDigest(r);
        bytes memory byOwner = sign(OWNER_KEY, digest);
        bytes memory byOperator = sign(OPERATOR_KEY, digest);
        // Otherwise anyone registers an impossible root at a node and has it slashed.
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotSigned.selector, operator));
        proofs.registerRoot(r, byOwner, "");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotSigned.selector, operator));
        proofs.registerRoot(r, byOwner, byOwner);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotSigned.selector, owner));
        proofs.registerRoot(r, byOperator, byOperator);
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotSigned.selector, owner));
        proofs.registerRoot(r, "", "");
        // A signature of one thing is none of another.
        r.cells += 1;
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotSigned.selector, owner));
        proofs.registerRoot(r, byOwner, "");
        r.cells -= 1;
        proofs.registerRoot(r, byOwner, byOperator); // and with both, anyone may send it
        r.height = 2;
        byOperator = sign(OPERATOR_KEY, proofs.registrationDigest(r));
        vm.prank(owner);
        proofs.registerRoot(r, "", byOperator);
    }

    function test_rejects_what_a_circuit_could_not_prove() external {
        IEpochProofs.Registration memory r = registration(0, 1);
        _refused(r, abi.encodeWithSelector(IEpochProofs.DatabaseZero.selector));
        r = registration(DB, 1);
        r.dbRoot = bytes32(Toy.R);
        _refused(r, abi.encodeWithSelector(IEpochProofs.RootNotCanonical.selector, r.dbRoot));
        r = registration(DB, 1);
        r.cells = 0;
        _refused(r, abi.encodeWithSelector(IEpochProofs.CellsOutOfRange.selector, 0, proofs.cellsMax()));
        r.cells = proofs.cellsMax() + 1;
        _refused(r, abi.encodeWithSelector(IEpochProofs.CellsOutOfRange.selector, r.cells, proofs.cellsMax()));
        r = registration(DB, 1);
        r.untilEpoch = proofs.effectiveEpoch() - 1;
        _refused(r, abi.encodeWithSelector(IEpochProofs.EpochOutOfRange.selector, r.untilEpoch, r.untilEpoch + 1));
        r = registration(DB, 1);
        r.operator = owner;
        _refused(r, abi.encodeWithSelector(IEpochProofs.WrongOperator.selector, NODE, operator, owner));
        r = registration(DB, 1);
        r.node = "nobody";
        _refused(r, abi.encodeWithSelector(IEpochProofs.NodeNotActive.selector, r.node, INodeRegistry.Status.None));
    }

    function test_rejects_old_heights_other_owners_and_too_little_collateral() external {
        register(registration(DB, 5));
        _refused(registration(DB, 5), abi.encodeWithSelector(IEpochProofs.HeightNotAbove.selector, 5, 5));
        _refused(registration(DB, 4), abi.encodeWithSelector(IEpochProofs.HeightNotAbove.selector, 4, 5));
        IEpochProofs.Registration memory r = registration(DB, 6);
        r.owner = vm.addr(99);
        bytes memory signature = sign(99, proofs.registrationDigest(r));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotOwner.selector, owner, r.owner));
        proofs.registerRoot(r, signature, "");
        r = registration(DB, 6);
        r.cells = 64 * 100_001;
        _refused(
            r,
            abi.encodeWithSelector(ICollateral.NotEnoughFree.selector, NODE, 100_000e18 - 100e18, 100_001e18 - 100e18)
        );
    }

    function test_holds_at_most_64_databases() external {
        for (uint128 i = 1; i <= 64; ++i) {
            register(registration(bytes16(i), 1));
        }
        _refused(
            registration(bytes16(uint128(65)), 1),
            abi.encodeWithSelector(IEpochProofs.TooManyDatabases.selector, NODE, 64)
        );
        register(registration(bytes16(uint128(64)), 2)); // one that is there may still grow
        uint64 epoch = proofs.effectiveEpoch();
        enter(epoch);
        uint256 before = gasleft();
        (, uint64 cells) = proofs.holdings(NODE, epoch);
        yes(before - gasleft() < 3_000_000, "a full node can be challenged");
        eq(cells, 64 * 640, "cells");
    }

    function testFuzz_locks_the_largest_stake_and_never_less_while_registered(uint64 a, uint64 b) external {
        a = uint64(within(a, 1, 64 * 40_000));
        b = uint64(within(b, 1, 64 * 40_000));
        IEpochProofs.Registration memory r = registration(DB, 1);
        r.cells = a;
        register(r);
        r = registration(DB, 2);
        r.cells = b;
        register(r);
        uint256 want = proofs.stakeFor(a > b ? a : b);
        eq(collateral.balanceOf(NODE).locked, want, "locked");
        eq(proofs.stakeRequired(NODE), want, "required");
        uint256 pages = (uint256(a) + 63) / 64;
        eq(proofs.stakeFor(a), pages * 1e18 > STAKE_MIN ? pages * 1e18 : STAKE_MIN, "per started page, with a least");
    }

    // ---- what is owed is fixed before the beacon is known ---------------------------------------------------------------------

    function testFuzz_a_registration_counts_from_the_first_epoch_that_starts_after_the_margin(uint256 blocks) external {
        vm.roll(block.number + within(blocks, 0, 500));
        uint256 sent = block.number;
        register(registration(DB, 1));
        uint64 from = proofs.latest(NODE, DB).fromEpoch;
        yes(proofs.epochStart(from) > sent + MARGIN_BLOCKS, "starts after the margin");
        yes(proofs.epochStart(from - 1) <= sent + MARGIN_BLOCKS, "and is the first that does");
        eq(proofs.owed(NODE, from - 1).length, 0, "nothing before");
        eq(proofs.owed(NODE, from).length, 1, "from then on");
        eq(proofs.owed(NODE, 1000).length, 1, "until its end");
        eq(proofs.owed(NODE, 1001).length, 0, "and not after");
    }

    function testFuzz_nothing_sent_after_the_margin_changes_what_an_epoch_owes(uint256 when, uint8 act) external {
        register(registration(DB, 1));
        register(registration(bytes16(uint128(7)), 1));
        uint64 epoch = proofs.effectiveEpoch() + 3;
        vm.roll(proofs.epochStart(epoch) - MARGIN_BLOCKS + within(when, 0, 2 * EPOCH_BLOCKS));
        bytes32 before = keccak256(abi.encode(proofs.owed(NODE, epoch)));
        (bytes32 root, uint64 cells) = proofs.holdings(NODE, epoch);
        if (act % 4 == 0) register(registration(DB, 2));
        if (act % 4 == 1) register(registration(bytes16(uint128(9)), 1));
        if (act % 4 == 2) {
            vm.prank(owner);
            proofs.release(NODE, DB, "");
        }
        if (act % 4 == 3) {
            register(registration(DB, 2));
            register(registration(DB, 3));
            vm.prank(owner);
            proofs.release(NODE, DB, "");
        }
        eq(keccak256(abi.encode(proofs.owed(NODE, epoch))), before, "owed");
        (bytes32 rootNow, uint64 cellsNow) = proofs.holdings(NODE, epoch);
        eq(rootNow, root, "root");
        eq(cellsNow, cells, "cells");
    }

    function test_every_epoch_keeps_its_own_version() external {
        uint64 first = proofs.effectiveEpoch();
        for (uint64 h = 1; h <= 12; ++h) {
            if (h % 3 != 0) register(registration(DB, h)); // some epochs without a new one
            vm.roll(block.number + EPOCH_BLOCKS);
        }
        for (uint64 h = 1; h <= 12; ++h) {
            uint64 want = h % 3 == 0 ? h - 1 : h;
            eq(proofs.owed(NODE, first + h - 1)[0].root, registration(DB, want).dbRoot, "version");
        }
    }

    function testFuzz_databases_are_in_id_order_whatever_the_order_of_arrival(uint128[6] memory ids) external {
        uint256 distinct = 0;
        for (uint256 i = 0; i < 6; ++i) {
            ids[i] = uint128(within(ids[i], 1, 20));
            bool seen = false;
            for (uint256 k = 0; k < i; ++k) {
                seen = seen || ids[k] == ids[i];
            }
            if (seen) continue;
            ++distinct;
            register(registration(bytes16(ids[i]), 1));
        }
        IEpochProofs.Owed[] memory list = proofs.owed(NODE, proofs.effectiveEpoch());
        eq(list.length, distinct, "all");
        for (uint256 i = 1; i < list.length; ++i) {
            yes(list[i - 1].db < list[i].db, "in order");
        }
    }

    function test_only_the_owner_releases_and_the_collateral_comes_free_after_the_last_challenge() external {
        register(registration(DB, 1));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.NotSigned.selector, owner));
        proofs.release(NODE, DB, "");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.DatabaseUnknown.selector, NODE, bytes16(uint128(3))));
        proofs.release(NODE, bytes16(uint128(3)), "");
        enter(5);
        proofs.release(NODE, DB, sign(OWNER_KEY, proofs.releaseDigest(NODE, DB, 1)));
        uint64 last = proofs.latest(NODE, DB).untilEpoch;
        eq(last, proofs.effectiveEpoch() - 1, "owed until then");
        uint256 untilBlock = proofs.epochStart(last) + WINDOW_BLOCKS + 2 * RESPONSE_BLOCKS;
        vm.roll(untilBlock);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.StillOwed.selector, NODE, DB, untilBlock));
        proofs.close(NODE, DB);
        vm.roll(untilBlock + 1);
        proofs.close(NODE, DB);
        eq(collateral.balanceOf(NODE).locked, 0, "unlocked");
        eq(proofs.databaseCount(NODE), 0, "forgotten");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.DatabaseUnknown.selector, NODE, DB));
        proofs.close(NODE, DB);
        // An old signature does not bring it back; a new height by a new owner does.
        _refused(registration(DB, 1), abi.encodeWithSelector(IEpochProofs.HeightNotAbove.selector, 1, 1));
        register(registration(DB, 2));
        eq(proofs.databaseCount(NODE), 1, "again");
    }

    // ---- beacons and seeds ----------------------------------------------------------------------------------------------------

    function test_a_beacon_is_the_hash_of_the_epochs_first_block_kept_once_recorded() external {
        uint256 start = proofs.epochStart(4);
        vm.roll(start);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.BeaconNotYet.selector, 4, start));
        proofs.beacon(4);
        enter(4);
        eq(proofs.beacon(4), keccak256(abi.encode("beacon", uint64(4))), "known");
        proofs.recordBeacon(4);
        vm.roll(start + 1_000_000);
        eq(proofs.beacon(4), keccak256(abi.encode("beacon", uint64(4))), "kept");
    }

    function test_an_unrecorded_beacon_is_lost_where_there_is_no_history_and_found_where_there_is() external {
        uint256 start = proofs.epochStart(4);
        vm.roll(start + 257);
        vm.etch(0x0000F90827F1C53a10cb7A02335B175320002935, "");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.BeaconLost.selector, 4, start));
        proofs.beacon(4);
        // A history contract that answers every question with the number asked: PUSH0 CALLDATALOAD PUSH0 MSTORE PUSH1 32 PUSH0 RETURN.
        vm.etch(0x0000F90827F1C53a10cb7A02335B175320002935, hex"5f355f5260205ff3");
        eq(proofs.beacon(4), bytes32(start), "by EIP-2935");
    }

    function test_seeds_are_those_of_the_vectors() external view {
        string memory json = vm.readFile("../tests/vectors/seed.json");
        uint256 n = count(json, "seed");
        yes(n > 1, "no vectors");
        for (uint256 i = 0; i < n; ++i) {
            bytes32 got = proofs.seedOf(
                vm.parseJsonUint(json, key(i, "chainId")),
                vm.parseJsonAddress(json, key(i, "contract")),
                vm.parseJsonBytes32(json, key(i, "node")),
                uint64(vm.parseJsonUint(json, key(i, "epoch"))),
                vm.parseJsonBytes32(json, key(i, "beacon")),
                uint64(vm.parseJsonUint(json, key(i, "shape"))),
                uint32(vm.parseJsonUint(json, key(i, "proofIndex")))
            );
            eq(got, vm.parseJsonBytes32(json, key(i, "seed")), "seed");
        }
    }

    function testFuzz_seeds_fit_the_field_and_differ_by_every_part(bytes32 node, uint64 epoch, uint16 index) external {
        vm.assume(epoch > 0 && epoch < 1 << 40 && index < type(uint16).max);
        bytes32 b = keccak256("beacon");
        bytes32 s = proofs.seedOf(1, address(1), node, epoch, b, 5, index);
        yes(uint256(s) < 1 << 253, "below 2^253");
        yes(s != proofs.seedOf(2, address(1), node, epoch, b, 5, index), "chain");
        yes(s != proofs.seedOf(1, address(2), node, epoch, b, 5, index), "contract");
        yes(s != proofs.seedOf(1, address(1), ~node, epoch, b, 5, index), "node");
        yes(s != proofs.seedOf(1, address(1), node, epoch + 1, b, 5, index), "epoch");
        yes(s != proofs.seedOf(1, address(1), node, epoch, ~b, 5, index), "beacon");
        yes(s != proofs.seedOf(1, address(1), node, epoch, b, 6, index), "shape");
        yes(s != proofs.seedOf(1, address(1), node, epoch, b, 5, index + 1), "index");
        enter(3);
        eq(
            proofs.seed(node, 3, index),
            proofs.seedOf(31337, address(proofs), node, 3, proofs.beacon(3), proofs.shapeWord(), index),
            "own"
        );
    }

    function _refusesParams(Holdings hasher, IEpochProofs.Params memory p, bytes memory reason) private {
        address judge = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 2);
        NodeRegistry r = new NodeRegistry(judge, address(0));
        Collateral c = new Collateral(flu, r, judge, address(0), THAW_BLOCKS);
        refuses("EpochProofs", abi.encode(r, c, hasher, verifier, new IEpochProofs.RangeSumCircuit[](0), p), reason);
    }

    function _refused(IEpochProofs.Registration memory r, bytes memory reason) private {
        bytes memory signature = sign(OWNER_KEY, proofs.registrationDigest(r));
        vm.expectRevert(reason);
        vm.prank(operator);
        proofs.registerRoot(r, signature, "");
    }
}

/// @dev Challenges, answers, expiry, money.
contract ChallengeTest is World {
    uint64 private epoch;

    function setUp() external {
        deploy();
        join(NODE, 1000e18);
        register(registration(DB, 1));
        register(registration(bytes16(uint128(7)), 1));
        epoch = proofs.effectiveEpoch();
        enter(epoch);
    }

    // ---- opening --------------------------------------------------------------------------------------------------------------

    function test_rejects_a_challenge_that_was_not_committed_to_before() external {
        bytes32 commitment = proofs.commitmentOf(NODE, epoch, DB, 0, challenger, "salt");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.CommitmentMissing.selector, commitment));
        vm.prank(challenger);
        proofs.challenge{value: BOND_MIN}(NODE, epoch, DB, 0, "salt");
        proofs.commitChallenge(commitment);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.CommitmentExists.selector, commitment));
        proofs.commitChallenge(commitment);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.CommitmentMissing.selector, commitment));
        vm.prank(challenger);
        proofs.challenge{value: BOND_MIN}(NODE, epoch, DB, 0, "salt"); // in the same block
        vm.roll(block.number + 1);
        // A copier has no commitment of his own.
        address copier = address(0xc0b1e5);
        vm.deal(copier, 1 ether);
        vm.expectPartialRevert(IEpochProofs.CommitmentMissing.selector);
        vm.prank(copier);
        proofs.challenge{value: BOND_MIN}(NODE, epoch, DB, 0, "salt");
        vm.prank(challenger);
        proofs.challenge{value: BOND_MIN}(NODE, epoch, DB, 0, "salt");
    }

    function test_rejects_a_closed_window_a_small_bond_a_wrong_index_and_a_second_time() external {
        _refused(
            epoch,
            0,
            PROOFS,
            BOND_MIN,
            abi.encodeWithSelector(IEpochProofs.ProofIndexOutOfRange.selector, PROOFS, PROOFS)
        );
        _refused(epoch, DB, 1, BOND_MIN, abi.encodeWithSelector(IEpochProofs.ProofIndexOutOfRange.selector, 1, 1));
        _refused(
            epoch,
            DB,
            0,
            BOND_MIN - 1,
            abi.encodeWithSelector(IEpochProofs.BondTooSmall.selector, BOND_MIN - 1, BOND_MIN)
        );
        _refused(
            epoch,
            bytes16(uint128(8)),
            0,
            BOND_MIN,
            abi.encodeWithSelector(IEpochProofs.NothingOwed.selector, NODE, epoch, bytes16(uint128(8)))
        );
        _refused(
            epoch + 1,
            DB,
            0,
            BOND_MIN,
            abi.encodeWithSelector(IEpochProofs.BeaconNotYet.selector, epoch + 1, proofs.epochStart(epoch + 1))
        );
        _refused(
            epoch - 1,
            0,
            0,
            BOND_MIN,
            abi.encodeWithSelector(IEpochProofs.NothingOwed.selector, NODE, epoch - 1, bytes16(0))
        );
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        _refused(epoch, DB, 0, BOND_MIN, abi.encodeWithSelector(IEpochProofs.ChallengeExists.selector, id));
        uint256 last = proofs.epochStart(epoch) + WINDOW_BLOCKS;
        vm.roll(last);
        _refused(epoch, 0, 1, BOND_MIN, abi.encodeWithSelector(IEpochProofs.WindowClosed.selector, epoch, last));
    }

    function testFuzz_the_bond_covers_an_answer_at_twice_the_fee(uint64 fee) external {
        vm.fee(fee);
        uint256 bond = proofs.bondRequired();
        yes(bond >= BOND_MIN && bond >= 2 * 300_000 * uint256(fee), "covers");
    }

    function test_a_challenge_holds_the_three_inputs_of_the_proof() external {
        bytes32 all = challengeAs(challenger, epoch, 0, 1);
        bytes32 one = challengeAs(challenger, epoch, DB, 0);
        IEpochProofs.Challenge memory c = proofs.challengeOf(all);
        (bytes32 root, uint64 cells) = proofs.holdings(NODE, epoch);
        eq(c.root, root, "holdings root");
        eq(c.cells, cells, "cells");
        eq(c.seed, proofs.seed(NODE, epoch, 1), "seed");
        eq(c.stake, 2 * proofs.stakeFor(640), "stake of all");
        c = proofs.challengeOf(one);
        eq(c.root, registration(DB, 1).dbRoot, "database root");
        eq(c.cells, 640, "cells");
        eq(c.stake, proofs.stakeFor(640), "stake of one");
        eq(one, proofs.challengeId(NODE, epoch, DB, 0), "id");
    }

    // ---- answering ------------------------------------------------------------------------------------------------------------

    function test_anyone_answers_and_the_bond_goes_to_the_operator() external {
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        vm.prank(address(0xabc));
        proofs.respond(id, answer(id));
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.BondNotYours.selector, id, operator));
        vm.prank(address(0xabc));
        proofs.claimBond(id);
        vm.prank(operator);
        proofs.claimBond(id);
        eq(operator.balance, BOND_MIN, "paid");
        vm.expectRevert(
            abi.encodeWithSelector(IEpochProofs.BondNotClaimable.selector, id, IEpochProofs.ChallengeStatus.Closed)
        );
        vm.prank(operator);
        proofs.claimBond(id);
        vm.roll(block.number + 1000);
        vm.expectRevert(
            abi.encodeWithSelector(IEpochProofs.ChallengeNotOpen.selector, id, IEpochProofs.ChallengeStatus.Closed)
        );
        proofs.expire(id);
        eq(total(NODE), 1000e18, "nothing lost");
    }

    function test_a_proof_of_something_else_reverts_and_slashes_nobody() external {
        bytes32 id = challengeAs(challenger, epoch, 0, 0);
        bytes32 other = challengeAs(challenger, epoch, 0, 1);
        bytes memory wrong = answer(other);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.ProofMismatch.selector, id));
        proofs.respond(id, wrong);
        bytes memory broken = answer(id);
        broken[5 * 64 + 60] ^= 0x04;
        vm.expectRevert(abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, address(0x0f)));
        proofs.respond(id, broken);
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.ProofLength.selector, 0));
        proofs.respond(id, "");
        eq(total(NODE), 1000e18, "nothing lost");
        eq(uint256(proofs.challengeOf(id).status), uint256(IEpochProofs.ChallengeStatus.Open), "still open");
        proofs.respond(id, answer(id));
    }

    /// @dev The attack of DESIGN section 8: call `respond` with a good proof and just so little gas that the pairing starves while
    /// the frame around it goes on. Whatever the gas, the challenge is answered or nothing has happened; nobody is slashed.
    function testFuzz_starving_a_response_of_gas_neither_slashes_nor_closes(uint256 gasLimit) external {
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        bytes memory call = abi.encodeCall(proofs.respond, (id, answer(id)));
        (bool done,) = address(proofs).call{gas: within(gasLimit, 20_000, 300_000)}(call);
        IEpochProofs.ChallengeStatus status = proofs.challengeOf(id).status;
        IEpochProofs.ChallengeStatus want =
            done ? IEpochProofs.ChallengeStatus.Answered : IEpochProofs.ChallengeStatus.Open;
        eq(uint256(status), uint256(want), "answered or untouched");
        eq(total(NODE), 1000e18, "nobody is slashed");
        if (!done) proofs.respond(id, answer(id)); // and the node still answers with enough
    }

    function test_an_answer_in_the_last_block_counts_and_one_later_does_not() external {
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        bytes32 late = challengeAs(challenger, epoch, 0, 1);
        uint64 deadline = proofs.challengeOf(id).deadline;
        vm.roll(deadline);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.DeadlineNotPassed.selector, id, deadline));
        proofs.expire(id);
        proofs.respond(id, answer(id));
        deadline = proofs.challengeOf(late).deadline;
        vm.roll(deadline + 1);
        bytes memory proof = answer(late);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.DeadlinePassed.selector, late, deadline));
        proofs.respond(late, proof);
    }

    // ---- many challenges at once ----------------------------------------------------------------------------------------------

    /// @dev A node is asked for no more proofs than it makes in time, one after the other, however many challengers there are.
    function test_refuses_a_challenge_that_a_node_could_not_answer_after_those_before() external {
        uint256 most = RESPONSE_BLOCKS / PROOF_BLOCKS;
        for (uint128 i = 0; i <= most; ++i) {
            register(registration(bytes16(100 + i), 1));
        }
        epoch = proofs.effectiveEpoch();
        enter(epoch);
        vm.roll(block.number + 1);
        for (uint128 i = 0; i <= most; ++i) {
            vm.prank(challenger);
            proofs.commitChallenge(proofs.commitmentOf(NODE, epoch, bytes16(100 + i), 0, challenger, "salt"));
        }
        vm.roll(block.number + 1);
        uint256 first = block.number;
        bytes32[] memory ids = new bytes32[](most);
        for (uint128 i = 0; i < most; ++i) {
            vm.prank(challenger);
            ids[i] = proofs.challenge{value: BOND_MIN}(NODE, epoch, bytes16(100 + i), 0, "salt");
            eq(proofs.challengeOf(ids[i]).deadline, first + RESPONSE_BLOCKS, "the same time for each");
        }
        bytes16 next = bytes16(uint128(100 + most));
        vm.roll(first + PROOF_BLOCKS - 1);
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.QueueFull.selector, NODE, first + PROOF_BLOCKS));
        vm.prank(challenger);
        proofs.challenge{value: BOND_MIN}(NODE, epoch, next, 0, "salt");
        // From that block on there is room for one; the commitment is still there, and another node was never busy.
        vm.roll(first + PROOF_BLOCKS);
        vm.prank(challenger);
        bytes32 id = proofs.challenge{value: BOND_MIN}(NODE, epoch, next, 0, "salt");
        eq(proofs.challengeOf(id).deadline, first + PROOF_BLOCKS + RESPONSE_BLOCKS, "its own time");
        // A node that proves one at a time, in order, answers them all.
        for (uint256 i = 0; i < most; ++i) {
            vm.roll(first + (i + 1) * PROOF_BLOCKS);
            proofs.respond(ids[i], answer(ids[i]));
        }
        vm.roll(first + (most + 1) * PROOF_BLOCKS);
        proofs.respond(id, answer(id));
        eq(total(NODE), 1000e18, "and keeps its collateral");
    }

    /// @dev Challenges at any times: whatever is let in is answered in time by a node that takes `PROOF_BLOCKS` for each, and only a
    /// full queue refuses.
    function testFuzz_a_node_that_proves_one_at_a_time_meets_every_deadline(uint8[32] memory waits) external {
        fund(NODE, 10_000e18);
        for (uint128 i = 0; i < 32; ++i) {
            register(registration(bytes16(100 + i), 1));
        }
        epoch = proofs.effectiveEpoch();
        enter(epoch);
        for (uint128 i = 0; i < 32; ++i) {
            vm.prank(challenger);
            proofs.commitChallenge(proofs.commitmentOf(NODE, epoch, bytes16(100 + i), 0, challenger, "salt"));
        }
        vm.roll(block.number + 1);
        uint256 free = 0; // when the node is done with all before
        for (uint128 i = 0; i < 32; ++i) {
            vm.roll(block.number + (waits[i] < 200 ? 0 : waits[i] % 8)); // mostly in bursts
            uint256 done = (free > block.number ? free : block.number) + PROOF_BLOCKS;
            bool late = done > block.number + RESPONSE_BLOCKS;
            if (late) {
                vm.expectRevert(abi.encodeWithSelector(IEpochProofs.QueueFull.selector, NODE, done - RESPONSE_BLOCKS));
            }
            vm.prank(challenger);
            bytes32 id = proofs.challenge{value: BOND_MIN}(NODE, epoch, bytes16(100 + i), 0, "salt");
            if (late) continue;
            free = done;
            yes(free <= proofs.challengeOf(id).deadline, "in time");
        }
    }

    /// @dev A challenge opened in the last block of the window can be expired before its database can be closed.
    function test_a_database_is_closed_only_after_its_last_challenge_could_be_expired() external {
        vm.prank(owner);
        proofs.release(NODE, DB, "");
        uint64 last = proofs.latest(NODE, DB).untilEpoch;
        enter(last);
        proofs.recordBeacon(last);
        vm.roll(proofs.epochStart(last) + WINDOW_BLOCKS - 1);
        bytes32 id = challengeAs(challenger, last, DB, 0);
        vm.roll(proofs.challengeOf(id).deadline + 1);
        vm.expectPartialRevert(IEpochProofs.StillOwed.selector);
        proofs.close(NODE, DB);
        vm.roll(block.number + RESPONSE_BLOCKS - 1);
        vm.expectPartialRevert(IEpochProofs.StillOwed.selector);
        proofs.close(NODE, DB);
        proofs.expire(id);
        eq(total(NODE), 900e18, "slashed out of what is locked");
        eq(collateral.balanceOf(NODE).locked, 100e18, "locked");
        vm.roll(block.number + 1);
        proofs.close(NODE, DB);
    }

    // ---- expiring -------------------------------------------------------------------------------------------------------------

    function test_expiry_slashes_the_stake_suspends_and_frees_the_bond() external {
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        uint256 supply = flu.totalSupply();
        proofs.expire(id);
        eq(total(NODE), 900e18, "slashed");
        eq(supply - flu.totalSupply(), 50e18, "burned");
        eq(collateral.creditOf(owner), 30e18, "the harmed owner");
        eq(collateral.creditOf(challenger), 20e18, "the challenger");
        eq(uint256(registry.statusOf(NODE)), uint256(INodeRegistry.Status.Suspended), "suspended");
        uint256 before = challenger.balance;
        vm.prank(challenger);
        proofs.claimBond(id);
        eq(challenger.balance, before + BOND_MIN, "bond back");
        vm.expectRevert(
            abi.encodeWithSelector(IEpochProofs.ChallengeNotOpen.selector, id, IEpochProofs.ChallengeStatus.Closed)
        );
        proofs.expire(id);
        IEpochProofs.Registration memory r = registration(DB, 2);
        bytes memory signature = sign(OWNER_KEY, proofs.registrationDigest(r));
        vm.expectPartialRevert(IEpochProofs.NodeNotActive.selector);
        vm.prank(operator);
        proofs.registerRoot(r, signature, "");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.WrongOperator.selector, NODE, operator, address(this)));
        proofs.restake(NODE);
        vm.prank(operator);
        proofs.restake(NODE);
        eq(collateral.balanceOf(NODE).locked, proofs.stakeRequired(NODE), "locked again");
        register(r);
    }

    function test_the_owner_gets_no_more_than_the_damage_agreed() external {
        IEpochProofs.Registration memory r = registration(DB, 2);
        r.damageMax = 1e18;
        register(r);
        epoch = proofs.latest(NODE, DB).fromEpoch;
        enter(epoch);
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        uint256 supply = flu.totalSupply();
        proofs.expire(id);
        eq(collateral.creditOf(owner), 1e18, "capped");
        eq(supply - flu.totalSupply(), 79e18, "the rest is burned");
    }

    function test_one_debt_is_slashed_once_whatever_the_proof_index() external {
        bytes32 a = challengeAs(challenger, epoch, 0, 0);
        bytes32 b = challengeAs(challenger, epoch, 0, 1);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(a);
        proofs.expire(b);
        eq(total(NODE), 800e18, "once");
        vm.prank(challenger);
        proofs.claimBond(b);
    }

    function test_a_loss_is_slashed_once_whether_it_shows_in_the_holdings_or_in_a_database() external {
        // First one database, then the holdings: those cost what is left, and the owner of the other database is paid.
        bytes32 db = challengeAs(challenger, epoch, DB, 0);
        bytes32 all = challengeAs(challenger, epoch, 0, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(db);
        eq(total(NODE), 900e18, "one database");
        proofs.expire(all);
        eq(total(NODE), 800e18, "the rest");
        eq(collateral.creditOf(owner), 60e18, "each owner once");
        eq(collateral.creditOf(challenger), 40e18, "each reward once");
        // First the holdings, then each database: nothing is left, and nobody is suspended twice.
        enter(epoch + 1);
        all = challengeAs(challenger, epoch + 1, 0, 0);
        db = challengeAs(challenger, epoch + 1, DB, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(all);
        eq(total(NODE), 600e18, "another epoch is another loss");
        vm.prank(operator);
        proofs.restake(NODE);
        proofs.expire(db);
        eq(total(NODE), 600e18, "once");
        eq(uint256(registry.statusOf(NODE)), uint256(INodeRegistry.Status.Active), "active");
        vm.prank(challenger);
        proofs.claimBond(db); // the challenger was right all the same
    }

    function test_an_owner_whose_database_was_slashed_alone_is_not_paid_again_out_of_the_others() external {
        IEpochProofs.Registration memory r = registration(bytes16(uint128(8)), 1);
        r.owner = operator; // any other owner
        vm.prank(operator);
        proofs.registerRoot(r, "", "");
        vm.prank(owner);
        proofs.release(NODE, bytes16(uint128(7)), "");
        epoch = proofs.effectiveEpoch();
        enter(epoch);
        bytes32 db = challengeAs(challenger, epoch, DB, 0);
        bytes32 all = challengeAs(challenger, epoch, 0, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(db);
        proofs.expire(all);
        eq(collateral.creditOf(owner), 30e18, "once");
        eq(collateral.creditOf(operator), 30e18, "the whole part of the other");
    }

    function test_holdings_of_which_every_database_was_slashed_cost_no_more() external {
        bytes32 a = challengeAs(challenger, epoch, DB, 0);
        bytes32 b = challengeAs(challenger, epoch, bytes16(uint128(7)), 0);
        bytes32 all = challengeAs(challenger, epoch, 0, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(a);
        proofs.expire(b);
        proofs.expire(all);
        eq(total(NODE), 800e18, "twice 100");
        eq(collateral.creditOf(owner), 60e18, "twice 30");
    }

    /// @dev The operator registers a database of his own, with all the damage there is, and has himself slashed for everything.
    function testFuzz_a_sham_database_takes_nothing_from_the_honest_owners(uint96 damage, uint256 left) external {
        damage = uint96(within(damage, 0, 60e18));
        IEpochProofs.Registration memory honest = registration(DB, 2);
        honest.damageMax = damage;
        honest.cells = 64 * 200; // 200 FLU
        register(honest);
        IEpochProofs.Registration memory sham = registration(bytes16(uint128(8)), 1);
        sham.owner = operator;
        sham.damageMax = type(uint96).max;
        vm.prank(operator);
        proofs.registerRoot(sham, "", "");
        vm.prank(owner);
        proofs.release(NODE, bytes16(uint128(7)), "");
        epoch = proofs.effectiveEpoch();
        enter(epoch);
        // What there is may be less than the stake, 300 FLU: then all shares shrink alike.
        left = within(left, 1e18, 400e18);
        if (left < 400e18) {
            uint256 before = total(NODE) - left;
            vm.prank(address(proofs));
            collateral.slash(NODE, before, address(1), new address[](0), new uint256[](0));
        }
        left = total(NODE);
        uint256 yielded = left < 300e18 ? left : 300e18;
        bytes32 id = challengeAs(challenger, epoch, 0, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(id);
        eq(left - total(NODE), yielded, "taken");
        uint256 budget = yielded * 30 / 100;
        uint256 share = budget * 200 / 300;
        eq(collateral.creditOf(owner), damage < share ? damage : share, "the honest owner: his own share or his damage");
        eq(collateral.creditOf(operator), budget * 100 / 300, "the sham's owner: a part of the sham's own stake");
    }

    function test_an_answer_to_a_lucky_index_does_not_block_another() external {
        // The node challenges itself for the index whose samples it happens to hold.
        vm.deal(operator, 1 ether);
        bytes32 lucky = challengeAs(operator, epoch, 0, 0);
        proofs.respond(lucky, answer(lucky));
        bytes32 id = challengeAs(challenger, epoch, 0, 1);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(id);
        eq(total(NODE), 800e18, "slashed for both databases all the same");
    }

    function test_what_thaws_is_still_slashed() external {
        vm.prank(operator);
        collateral.thaw(NODE, 800e18);
        bytes32 id = challengeAs(challenger, epoch, 0, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(id);
        enter(epoch + 1);
        bytes32 db = challengeAs(challenger, epoch + 1, DB, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(db);
        eq(total(NODE), 700e18, "locked, then what thaws");
        vm.expectPartialRevert(ICollateral.NotThawed.selector);
        vm.prank(operator);
        collateral.withdraw(NODE);
    }

    /// @dev The operator is owner and challenger too, with any damage agreed with himself: he gets back less than he loses.
    function testFuzz_slashing_oneself_never_profits(uint96 damageMax, uint64 cells, uint256 collateral_, bool all)
        external
    {
        bytes32 node = NODE;
        uint256 extra = within(collateral_, 0, 10_000e18);
        if (extra != 0) fund(node, extra);
        IEpochProofs.Registration memory r = registration(DB, 2);
        r.owner = owner;
        r.damageMax = damageMax;
        r.cells = uint64(within(cells, 1, 64 * 500));
        register(r);
        epoch = proofs.latest(node, DB).fromEpoch;
        enter(epoch);
        vm.deal(operator, 1 ether);
        uint256 before = total(node);
        bytes32 id = challengeAs(operator, epoch, all ? bytes16(0) : DB, 0);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(id);
        vm.prank(operator);
        proofs.claimBond(id);
        uint256 lost = before - total(node);
        uint256 back = collateral.creditOf(operator) + collateral.creditOf(owner);
        yes(lost > 0 && back * 2 <= lost, "half is gone for good");
        yes(operator.balance <= 1 ether, "and no ether gained");
    }

    function test_the_bond_cannot_be_claimed_while_open_nor_by_a_contract_that_refuses_it() external {
        bytes32 id = challengeAs(challenger, epoch, DB, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IEpochProofs.BondNotClaimable.selector, id, IEpochProofs.ChallengeStatus.Open)
        );
        vm.prank(challenger);
        proofs.claimBond(id);
        vm.roll(block.number + RESPONSE_BLOCKS + 1);
        proofs.expire(id);
        vm.etch(challenger, hex"5f5ffd"); // reverts on everything
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.PaymentFailed.selector, challenger, uint256(BOND_MIN)));
        vm.prank(challenger);
        proofs.claimBond(id);
        eq(uint256(proofs.challengeOf(id).status), uint256(IEpochProofs.ChallengeStatus.Expired), "not lost");
    }

    // ---- range sums -----------------------------------------------------------------------------------------------------------

    function testFuzz_range_sum_proofs_are_checked_by_a_view(uint256[3] memory raw) external {
        uint256[] memory inputs = new uint256[](3);
        for (uint256 i = 0; i < 3; ++i) {
            inputs[i] = raw[i] % Toy.R;
        }
        bytes memory proof = Toy.prove(inputs, 4);
        yes(proofs.verifyRangeSum(keccak256("range_sum/v1/s1-t7"), inputs, proof), "one segment");
        yes(proofs.verifyRangeSum(keccak256("range_sum/v1/s4-t7"), inputs, proof), "four");
        inputs[2] = addmod(inputs[2], 1, Toy.R);
        yes(!proofs.verifyRangeSum(keccak256("range_sum/v1/s1-t7"), inputs, proof), "another sum");
        bytes32 unknown = keccak256("range_sum/v1/s2-t7");
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.CircuitUnknown.selector, unknown));
        proofs.verifyRangeSum(unknown, inputs, proof);
        bytes32 storage_ = proofs.storageCircuit();
        vm.expectRevert(abi.encodeWithSelector(IEpochProofs.CircuitUnknown.selector, storage_));
        proofs.verifyRangeSum(storage_, inputs, proof);
    }

    function _refused(uint64 e, bytes16 db, uint16 index, uint256 bond, bytes memory reason) private {
        vm.prank(challenger);
        proofs.commitChallenge(proofs.commitmentOf(NODE, e, db, index, challenger, bytes32(block.number)));
        bytes32 salt = bytes32(block.number);
        vm.roll(block.number + 1);
        vm.expectRevert(reason);
        vm.prank(challenger);
        proofs.challenge{value: bond}(NODE, e, db, index, salt);
    }
}
