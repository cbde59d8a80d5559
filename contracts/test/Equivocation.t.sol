// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICollateral} from "../src/interfaces/ICollateral.sol";
import {IEquivocation} from "../src/interfaces/IEquivocation.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {Bls12381} from "../src/libraries/Bls12381.sol";
import {BlsVotes} from "../src/libraries/BlsVotes.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {Collateral} from "../src/Collateral.sol";
import {Toy} from "./Toy.sol";
import {Voters} from "./Voters.sol";
import {World} from "./World.t.sol";

/// @dev The acts that every test of accusations takes.
abstract contract Accusing is World {
    address internal accuser = address(0xacc);

    function commitTo(IEquivocation.Evidence memory evidence) internal {
        bytes32 commitment = equivocation.commitmentOf(evidence, accuser, "salt");
        vm.prank(accuser);
        equivocation.commitAccusation(commitment);
        vm.roll(block.number + 1);
    }

    function accuse(IEquivocation.Evidence memory evidence) internal returns (uint256) {
        commitTo(evidence);
        vm.prank(accuser);
        return equivocation.accuse(evidence, "salt");
    }

    function refused(IEquivocation.Evidence memory evidence, bytes memory reason) internal {
        commitTo(evidence);
        vm.prank(accuser);
        try equivocation.accuse{gas: 1_000_000}(evidence, "salt") {
            revert("slashed");
        } catch (bytes memory got) {
            eq(got, reason, "reason");
        }
    }
}

/// @title Votes that Rust signed: what is evidence and what is not.
contract EquivocationVectorsTest is Accusing {
    string private _json;
    bytes32 private _node;

    function setUp() external {
        deploy();
        _json = vm.readFile("../tests/vectors/checkpoints.json");
        _node = vm.parseJsonBytes32(_json, "$.evidence.node");
        join(_node, 1000e18);
        bytes memory key = vm.parseJsonBytes(_json, "$.evidence.key");
        bytes memory possession = vm.parseJsonBytes(_json, "$.evidence.possession");
        vm.prank(operator);
        registry.registerVoteKey(_node, key, possession);
    }

    function test_every_conflict_slashes_all() external {
        uint256 n = 0;
        for (; vm.keyExistsJson(_json, _path("proven", n, "name")); ++n) {
            try this.slashesAll(_evidence("proven", n)) {
                revert("the case undoes what it did");
            } catch (bytes memory got) {
                eq(got, "slashed", vm.parseJsonString(_json, _path("proven", n, "name")));
            }
        }
        eq(n, 5, "cases");
    }

    /// @dev Always reverts, so that every case starts from the same chain.
    function slashesAll(IEquivocation.Evidence memory evidence) external {
        eq(accuse(evidence), 1000e18, "all of it");
        eq(total(_node), 0, "nothing is left");
        bytes memory done = "slashed";
        assembly ("memory-safe") {
            revert(add(done, 32), mload(done))
        }
    }

    function test_no_other_pair_of_votes_slashes() external {
        uint256 n = 0;
        for (; vm.keyExistsJson(_json, _path("innocent", n, "name")); ++n) {
            IEquivocation.Evidence memory e = _evidence("innocent", n);
            bytes4 reason = IEquivocation.NoConflict.selector;
            refused(e, abi.encodeWithSelector(reason, e.first.kind, e.second.kind));
        }
        eq(n, 7, "cases");
        eq(total(_node), 1000e18, "untouched");
    }

    function test_votes_of_two_views_or_epochs_do_not_slash() external {
        uint256 n = 0;
        for (; vm.keyExistsJson(_json, _path("misplaced", n, "name")); ++n) {
            refused(_evidence("misplaced", n), abi.encodeWithSelector(IEquivocation.SignatureMismatch.selector, 1));
        }
        eq(n, 3, "cases");
        eq(total(_node), 1000e18, "untouched");
    }

    function _evidence(string memory list, uint256 i) private view returns (IEquivocation.Evidence memory) {
        return IEquivocation.Evidence({
            node: _node,
            key: vm.parseJsonBytes(_json, "$.evidence.key"),
            db: bytes16(vm.parseJsonBytes(_json, "$.evidence.db")),
            epoch: uint64(vm.parseJsonUint(_json, _path(list, i, "epoch"))),
            view_: uint64(vm.parseJsonUint(_json, _path(list, i, "view"))),
            first: _vote(_path(list, i, "first")),
            second: _vote(_path(list, i, "second"))
        });
    }

    function _vote(string memory path) private view returns (IEquivocation.Vote memory) {
        return IEquivocation.Vote({
            kind: BlsVotes.Kind(vm.parseJsonUint(_json, string.concat(path, ".kind"))),
            parentView: uint64(vm.parseJsonUint(_json, string.concat(path, ".parent_view"))),
            block_: vm.parseJsonBytes32(_json, string.concat(path, ".block")),
            signature: vm.parseJsonBytes(_json, string.concat(path, ".signature"))
        });
    }

    function _path(string memory list, uint256 i, string memory field) private pure returns (string memory) {
        return string.concat("$.evidence.", list, "[", vm.toString(i), "].", field);
    }
}

/// @dev Accusations by keys whose secrets the test knows.
contract EquivocationTest is Accusing {
    BlsVotes.Kind private constant NOTARIZE = BlsVotes.Kind.Notarize;
    BlsVotes.Kind private constant NULLIFY = BlsVotes.Kind.Nullify;
    BlsVotes.Kind private constant FINALIZE = BlsVotes.Kind.Finalize;

    function setUp() external {
        deploy();
        join(NODE, 1000e18);
        bytes memory key = Voters.key(0);
        bytes memory possession = Voters.possession(NODE, 0);
        vm.prank(operator);
        registry.registerVoteKey(NODE, key, possession);
    }

    /// @dev Every pair of kinds, with equal and different proposals: exactly the three conflicts slash.
    function testFuzz_exactly_the_three_conflicts_slash(
        uint256 a,
        uint256 b,
        bool block_,
        bool parent,
        uint64 epoch,
        uint64 view_
    ) external {
        (BlsVotes.Kind first, BlsVotes.Kind second) = (BlsVotes.Kind(a % 3), BlsVotes.Kind(b % 3));
        IEquivocation.Evidence memory evidence = _empty(epoch, view_);
        evidence.first = _vote(evidence, first, 7, "one");
        evidence.second = _vote(evidence, second, parent ? 8 : 7, block_ ? bytes32("two") : bytes32("one"));
        bool differ = block_ || parent;
        bool conflict = (first == NOTARIZE && second == NOTARIZE && differ)
            || (first == FINALIZE && second == FINALIZE && differ) || (first == NULLIFY && second == FINALIZE)
            || (first == FINALIZE && second == NULLIFY);
        if (conflict) {
            eq(accuse(evidence), 1000e18, "slashed");
            yes(equivocation.proven(NODE, Voters.DB, epoch, view_), "proven");
        } else {
            refused(evidence, abi.encodeWithSelector(IEquivocation.NoConflict.selector, first, second));
            eq(total(NODE), 1000e18, "untouched");
            yes(!equivocation.proven(NODE, Voters.DB, epoch, view_), "not proven");
        }
    }

    function test_slashes_all_burns_four_fifths_and_suspends() external {
        register(registration(DB, 1));
        vm.prank(operator);
        collateral.thaw(NODE, 200e18);
        uint256 supply = flu.totalSupply();
        accuse(_double());
        eq(total(NODE), 0, "locked, free and thawing");
        eq(collateral.creditOf(accuser), 200e18, "a fifth to the accuser");
        eq(supply - flu.totalSupply(), 800e18, "the rest is burned: whose database it is, the chain cannot tell");
        eq(uint256(registry.statusOf(NODE)), uint256(INodeRegistry.Status.Suspended), "suspended");
        vm.prank(accuser);
        collateral.withdrawCredit();
        eq(flu.balanceOf(accuser), 200e18, "paid");
        // It takes on nothing until it stakes again.
        fund(NODE, 500e18);
        vm.prank(operator);
        proofs.restake(NODE);
        eq(uint256(registry.statusOf(NODE)), uint256(INodeRegistry.Status.Active), "active again");
    }

    function test_one_view_slashes_once_and_another_again() external {
        accuse(_double());
        fund(NODE, 300e18);
        bytes memory again =
            abi.encodeWithSelector(IEquivocation.AlreadyProven.selector, NODE, Voters.DB, uint64(3), uint64(200));
        refused(_double(), again);
        IEquivocation.Evidence memory evidence = _empty(3, 200);
        evidence.first = _vote(evidence, NULLIFY, 0, 0);
        evidence.second = _vote(evidence, FINALIZE, 7, "one");
        refused(evidence, again);
        eq(total(NODE), 300e18, "untouched");
        evidence = _empty(3, 201);
        evidence.first = _vote(evidence, NULLIFY, 0, 0);
        evidence.second = _vote(evidence, FINALIZE, 7, "one");
        eq(accuse(evidence), 300e18, "another view");
    }

    function test_leaves_other_nodes_alone() external {
        bytes32 other = keccak256("other");
        join(other, 500e18);
        accuse(_double());
        eq(total(other), 500e18, "untouched");
        eq(uint256(registry.statusOf(other)), uint256(INodeRegistry.Status.Active), "active");
    }

    // ---- keys -----------------------------------------------------------------------------------------------------------------

    /// @dev What makes the committee no link: a key of the accuser's, under a name that is not his.
    function test_a_strangers_key_in_an_open_cluster_slashes_nobody() external {
        bytes memory members = bytes.concat(NODE, Voters.key(66));
        bytes memory possession = Voters.possession(NODE, 66);
        checkpoints.open(Voters.DB, members, possession);
        IEquivocation.Evidence memory evidence = _empty(3, 200);
        evidence.key = Voters.key(66);
        evidence.first = _voteBy(66, evidence, NOTARIZE, 7, "one");
        evidence.second = _voteBy(66, evidence, NOTARIZE, 7, "two");
        bytes memory unknown = abi.encodeWithSelector(
            IEquivocation.VoteKeyUnknown.selector, NODE, keccak256(evidence.key), keccak256(Voters.key(0))
        );
        refused(evidence, unknown);
        // Nor does the right key with the stranger's votes.
        evidence.key = Voters.key(0);
        refused(evidence, abi.encodeWithSelector(IEquivocation.SignatureMismatch.selector, 0));
        evidence.first = _vote(evidence, NOTARIZE, 7, "one");
        refused(evidence, abi.encodeWithSelector(IEquivocation.SignatureMismatch.selector, 1));
        eq(total(NODE), 1000e18, "untouched");
    }

    function test_refuses_nodes_without_a_key_and_keys_of_another_length() external {
        IEquivocation.Evidence memory evidence = _double();
        bytes32 got = keccak256(evidence.key);
        evidence.node = keccak256("other");
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteKeyUnknown.selector, evidence.node, got, 0));
        evidence.node = NODE;
        evidence.key = bytes.concat(evidence.key, hex"00");
        bytes32 longer = keccak256(evidence.key);
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteKeyUnknown.selector, NODE, longer, got));
        evidence.key = "";
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteKeyUnknown.selector, NODE, keccak256(""), got));
    }

    function test_vote_keys_are_registered_once_by_the_operator_with_a_proof() external {
        bytes32 other = keccak256("other");
        join(other, 1);
        bytes memory key = Voters.key(1);
        bytes memory possession = Voters.possession(other, 1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NotOperator.selector, other, address(this)));
        registry.registerVoteKey(other, key, possession);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeUnknown.selector, bytes32("x")));
        registry.registerVoteKey("x", key, possession);
        bytes memory forAnother = Voters.possession(NODE, 1);
        bytes memory mismatch = abi.encodeWithSelector(INodeRegistry.PossessionMismatch.selector, other);
        _refusesKey(other, key, forAnother, mismatch);
        _refusesKey(other, Voters.key(2), possession, mismatch);
        _refusesKey(other, "", possession, abi.encodeWithSelector(BlsVotes.KeyLength.selector, 0));
        _refusesKey(other, key, "", abi.encodeWithSelector(BlsVotes.SignatureLength.selector, 0));
        bytes memory infinity = abi.encodeWithSelector(BlsVotes.PointAtInfinity.selector);
        _refusesKey(other, new bytes(256), new bytes(128), infinity);
        _refusesKey(other, key, new bytes(128), infinity);
        bytes memory broken = bytes.concat(possession);
        broken[127] ^= 0x01;
        bytes memory failed = abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, Bls12381.PAIRING);
        _refusesKey(other, key, broken, failed);
        eq(registry.voteKeyOf(other), 0, "none yet");
        vm.prank(operator);
        registry.registerVoteKey(other, key, possession);
        eq(registry.voteKeyOf(other), keccak256(key), "registered");
        // For good: a new key would take the old one's votes out of reach.
        bytes memory another = Voters.key(2);
        bytes memory itsProof = Voters.possession(other, 2);
        _refusesKey(other, another, itsProof, abi.encodeWithSelector(INodeRegistry.VoteKeyExists.selector, other));
    }

    // ---- commitments ----------------------------------------------------------------------------------------------------------

    function test_an_accusation_needs_an_earlier_commitment_of_its_own() external {
        IEquivocation.Evidence memory evidence = _double();
        bytes32 commitment = equivocation.commitmentOf(evidence, accuser, "salt");
        bytes memory missing = abi.encodeWithSelector(IEquivocation.CommitmentMissing.selector, commitment);
        vm.expectRevert(missing);
        vm.prank(accuser);
        equivocation.accuse(evidence, "salt");
        equivocation.commitAccusation(commitment);
        vm.expectRevert(abi.encodeWithSelector(IEquivocation.CommitmentExists.selector, commitment));
        equivocation.commitAccusation(commitment);
        // The same block is too early: whoever copies the accusation could commit there.
        vm.expectRevert(missing);
        vm.prank(accuser);
        equivocation.accuse(evidence, "salt");
        vm.roll(block.number + 1);
        // Another sender, another salt and other evidence have commitments of their own.
        bytes32 theirs = equivocation.commitmentOf(evidence, address(this), "salt");
        vm.expectRevert(abi.encodeWithSelector(IEquivocation.CommitmentMissing.selector, theirs));
        equivocation.accuse(evidence, "salt");
        bytes32 salted = equivocation.commitmentOf(evidence, accuser, "pepper");
        vm.expectRevert(abi.encodeWithSelector(IEquivocation.CommitmentMissing.selector, salted));
        vm.prank(accuser);
        equivocation.accuse(evidence, "pepper");
        IEquivocation.Evidence memory other = _empty(3, 201);
        other.first = _vote(other, NULLIFY, 0, 0);
        other.second = _vote(other, FINALIZE, 7, "one");
        bytes32 ofOther = equivocation.commitmentOf(other, accuser, "salt");
        vm.expectRevert(abi.encodeWithSelector(IEquivocation.CommitmentMissing.selector, ofOther));
        vm.prank(accuser);
        equivocation.accuse(other, "salt");
        vm.prank(accuser);
        equivocation.accuse(evidence, "salt");
        vm.expectRevert(missing);
        vm.prank(accuser);
        equivocation.accuse(evidence, "salt");
    }

    /// @dev Who sees the accusation in flight commits in the same block at the earliest, and then finds the reward taken.
    function test_who_copies_an_accusation_comes_too_late() external {
        IEquivocation.Evidence memory evidence = _double();
        commitTo(evidence);
        address thief = address(0x7417f);
        bytes32 stolen = equivocation.commitmentOf(evidence, thief, "salt");
        equivocation.commitAccusation(stolen);
        vm.expectRevert(abi.encodeWithSelector(IEquivocation.CommitmentMissing.selector, stolen));
        vm.prank(thief);
        equivocation.accuse(evidence, "salt");
        vm.prank(accuser);
        equivocation.accuse(evidence, "salt");
        vm.roll(block.number + 1);
        vm.expectPartialRevert(IEquivocation.AlreadyProven.selector);
        vm.prank(thief);
        equivocation.accuse(evidence, "salt");
        eq(collateral.creditOf(thief), 0, "nothing");
    }

    // ---- malformed evidence ---------------------------------------------------------------------------------------------------

    function test_refuses_a_nullify_vote_that_names_a_proposal() external {
        IEquivocation.Evidence memory evidence = _empty(3, 200);
        evidence.first = _vote(evidence, FINALIZE, 7, "one");
        evidence.second = _vote(evidence, NULLIFY, 0, 0);
        evidence.second.block_ = "x";
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteMalformed.selector, 1));
        evidence.second.block_ = 0;
        evidence.second.parentView = 1;
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteMalformed.selector, 1));
        evidence.second.parentView = 0;
        (evidence.first, evidence.second) = (evidence.second, evidence.first);
        evidence.first.block_ = "x";
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteMalformed.selector, 0));
        evidence.first.block_ = 0;
        accuse(evidence);
    }

    /// @dev Two nullify votes with different fields are not two votes.
    function test_two_nullify_votes_are_one() external {
        IEquivocation.Evidence memory evidence = _empty(3, 200);
        evidence.first = _vote(evidence, NULLIFY, 0, 0);
        evidence.second = _vote(evidence, NULLIFY, 0, 0);
        refused(evidence, abi.encodeWithSelector(IEquivocation.NoConflict.selector, NULLIFY, NULLIFY));
        evidence.second.parentView = 1;
        refused(evidence, abi.encodeWithSelector(IEquivocation.VoteMalformed.selector, 1));
    }

    function testFuzz_any_flipped_bit_is_refused(uint256 bit) external {
        IEquivocation.Evidence memory e = _double();
        bit = within(bit, 0, (32 + 256 + 16 + 8 + 8 + 2 * (8 + 32 + 128)) * 8 - 1);
        (uint256 which, uint8 mask) = (bit / 8, uint8(1 << bit % 8));
        uint256 word = uint256(mask);
        bytes4 want = IEquivocation.SignatureMismatch.selector;
        if (which < 288) want = IEquivocation.VoteKeyUnknown.selector;
        if (which < 32) {
            e.node ^= bytes32(word << 8 * which);
        } else if (which < 288) {
            e.key[which - 32] ^= bytes1(mask);
        } else if (which < 304) {
            e.db ^= bytes16(uint128(word << 8 * (which - 288)));
        } else if (which < 312) {
            e.epoch ^= uint64(word << 8 * (which - 304));
        } else if (which < 320) {
            e.view_ ^= uint64(word << 8 * (which - 312));
        } else {
            which -= 320;
            IEquivocation.Vote memory v = which < 168 ? e.first : e.second;
            which %= 168;
            if (which < 8) v.parentView ^= uint64(word << 8 * which);
            else if (which < 40) v.block_ ^= bytes32(word << 8 * (which - 8));
            else v.signature[which - 40] ^= bytes1(mask);
            if (which >= 40) want = Bls12381.PrecompileFailed.selector;
        }
        commitTo(e);
        vm.prank(accuser);
        try equivocation.accuse{gas: 1_000_000}(e, "salt") {
            revert("slashed");
        } catch (bytes memory got) {
            eq(bytes32(bytes4(got)), bytes32(want), "reason");
        }
        eq(total(NODE), 1000e18, "untouched");
        eq(accuse(_double()), 1000e18, "unflipped");
    }

    function test_refuses_infinity_and_points_outside_the_group_as_votes() external {
        IEquivocation.Evidence memory evidence = _double();
        evidence.second.signature = new bytes(128);
        refused(evidence, abi.encodeWithSelector(BlsVotes.PointAtInfinity.selector));
        // (0, 2) is on the curve y^2 = x^3 + 4 and of order 3.
        evidence.second.signature[127] = 0x02;
        refused(evidence, abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, Bls12381.PAIRING));
        evidence.second.signature = "";
        refused(evidence, abi.encodeWithSelector(BlsVotes.SignatureLength.selector, 0));
    }

    /// @dev With any gas, the evidence is proven or the call reverts, and never with a mismatch.
    function test_starved_of_gas_it_never_calls_good_evidence_a_mismatch() external {
        IEquivocation.Evidence memory evidence = _double();
        commitTo(evidence);
        bytes memory call = abi.encodeCall(equivocation.accuse, (evidence, "salt"));
        uint256 named = 0;
        uint256 passed = 0;
        for (uint256 gas_ = 1_000; gas_ < 600_000 && passed == 0; gas_ += 1_499) {
            vm.prank(accuser);
            (bool done, bytes memory out) = address(equivocation).call{gas: gas_}(call);
            if (done) ++passed;
            else if (out.length == 36 && bytes4(out) == Bls12381.PrecompileFailed.selector) ++named;
            else eq(out.length, 0, "out of gas");
        }
        yes(passed == 1 && named > 100, "the sweep met all three");
    }

    // ---- judges ---------------------------------------------------------------------------------------------------------------

    function test_the_vote_judge_slashes_and_suspends_and_does_nothing_else() external {
        address voteJudge = address(equivocation);
        eq(collateral.voteJudge(), voteJudge, "collateral");
        eq(registry.voteJudge(), voteJudge, "registry");
        bytes memory notInCollateral = abi.encodeWithSelector(ICollateral.NotJudge.selector, voteJudge);
        vm.startPrank(voteJudge);
        vm.expectRevert(notInCollateral);
        collateral.lock(NODE, 1);
        vm.expectRevert(notInCollateral);
        collateral.unlock(NODE, 0);
        registry.suspend(NODE);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NotJudge.selector, voteJudge));
        registry.resume(NODE);
        eq(collateral.slash(NODE, 10e18, accuser, new address[](0), new uint256[](0)), 10e18, "slashed");
        vm.stopPrank();
    }

    function test_is_not_built_where_another_is_the_vote_judge() external {
        bytes memory wrong = abi.encodeWithSelector(IEquivocation.WrongJudge.selector, address(1));
        NodeRegistry strangers = new NodeRegistry(address(proofs), address(1));
        address made = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 2);
        NodeRegistry ours = new NodeRegistry(address(proofs), made);
        Collateral theirs = new Collateral(flu, ours, address(proofs), address(1), THAW_BLOCKS);
        refuses("Equivocation", abi.encode(ours, theirs), wrong);
        refuses("Equivocation", abi.encode(strangers, collateral), wrong);
    }

    // ---- internals ------------------------------------------------------------------------------------------------------------

    function _refusesKey(bytes32 node, bytes memory key, bytes memory possession, bytes memory reason) private {
        vm.prank(operator);
        try registry.registerVoteKey{gas: 1_000_000}(node, key, possession) {
            revert("registered");
        } catch (bytes memory got) {
            eq(got, reason, "reason");
        }
    }

    function _empty(uint64 epoch, uint64 view_) private view returns (IEquivocation.Evidence memory evidence) {
        (evidence.node, evidence.key, evidence.db) = (NODE, Voters.key(0), Voters.DB);
        (evidence.epoch, evidence.view_) = (epoch, view_);
    }

    function _double() private view returns (IEquivocation.Evidence memory evidence) {
        evidence = _empty(3, 200);
        evidence.first = _vote(evidence, NOTARIZE, 199, "one");
        evidence.second = _vote(evidence, NOTARIZE, 199, "two");
    }

    function _vote(IEquivocation.Evidence memory e, BlsVotes.Kind kind, uint64 parent, bytes32 block_)
        private
        view
        returns (IEquivocation.Vote memory)
    {
        return _voteBy(0, e, kind, parent, block_);
    }

    function _voteBy(uint256 voter, IEquivocation.Evidence memory e, BlsVotes.Kind kind, uint64 parent, bytes32 block_)
        private
        view
        returns (IEquivocation.Vote memory)
    {
        if (kind == NULLIFY) (parent, block_) = (0, 0);
        bytes memory text = BlsVotes.message(e.db, e.epoch, e.view_, kind, parent, block_);
        return IEquivocation.Vote(kind, parent, block_, Voters.sign(Voters.secret(voter), BlsVotes.VOTE_SUITE, text));
    }
}
