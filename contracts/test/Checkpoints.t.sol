// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Checkpoints} from "../src/Checkpoints.sol";
import {ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {Bls12381} from "../src/libraries/Bls12381.sol";
import {BlsVotes} from "../src/libraries/BlsVotes.sol";
import {Base, Vm} from "./Base.t.sol";
import {Toy} from "./Toy.sol";
import {Voters} from "./Voters.sol";

/// @title Certificates that Rust made, with another implementation of everything.
contract CheckpointVectorsTest is Base {
    string private constant FILE = "../tests/vectors/checkpoints.json";
    Checkpoints private checkpoints = new Checkpoints();
    string private _json;
    bytes16 private _db;

    function test_accepts_the_certificates_of_clusters_of_1_4_and_16() external {
        _json = vm.readFile(FILE);
        uint256[3] memory sizes = [uint256(1), 4, 16];
        for (uint256 i = 0; i < 3; ++i) {
            string memory path = string.concat("$.clusters[", vm.toString(i), "].");
            eq(vm.parseJsonUint(_json, string.concat(path, "first.members")), sizes[i], "size");
            _db = bytes16(vm.parseJsonBytes(_json, string.concat(path, "db")));
            address owner = address(uint160(1000 + i)); // one database id, three owners
            _cluster(path, owner);
        }
    }

    function _cluster(string memory path, address owner) private {
        (bytes memory first, bytes32 firstHash) = _committee(string.concat(path, "first."));
        (bytes memory second, bytes32 secondHash) = _committee(string.concat(path, "second."));
        vm.prank(owner);
        checkpoints.open(_db, first, vm.parseJsonBytes(_json, string.concat(path, "first.possessions")));
        eq(checkpoints.committeeOf(owner, _db), firstHash, "committee");
        (uint64 height, uint64 acceptedAt, bytes32 committee) = checkpoints.statusOf(owner, _db);
        yes(height == 0 && acceptedAt == block.number && committee == firstHash, "status");
        uint256 n = 0;
        for (; vm.keyExistsJson(_json, _item(path, "by_first", n)); ++n) {
            eq(checkpoints.committeeOf(owner, _db), firstHash, "still the first");
            _accepts(owner, _item(path, "by_first", n), first);
        }
        yes(n == 3, "certificates of the first committee");
        eq(checkpoints.committeeOf(owner, _db), secondHash, "handed over");
        ICheckpoints.Certificate memory next = _certificate(_item(path, "by_second", 0));
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.CommitteeMismatch.selector, firstHash, secondHash));
        checkpoints.submit(owner, next, first);
        _accepts(owner, _item(path, "by_second", 0), second);
    }

    function _accepts(address owner, string memory path, bytes memory committee) private {
        ICheckpoints.Certificate memory c = _certificate(path);
        // One bit of the signature, and of what is signed: refused, before it is accepted.
        ICheckpoints.Certificate memory other = _certificate(path);
        other.view_ ^= 1;
        vm.expectPartialRevert(ICheckpoints.SignatureMismatch.selector);
        checkpoints.submit(owner, other, committee);
        checkpoints.submit(owner, c, committee);
        ICheckpoints.Checkpoint memory got = checkpoints.latest(owner, _db);
        uint256 height = vm.parseJsonUint(_json, string.concat(path, ".height"));
        eq(got.height, height, "height");
        eq(got.epoch, height / 64, "epoch");
        eq(got.executedHeight, height - 1, "executed height");
        eq(got.executedRoot, vm.parseJsonBytes32(_json, string.concat(path, ".executed_root")), "root");
        eq(got.blockHash, vm.parseJsonBytes32(_json, string.concat(path, ".block_hash")), "block hash");
        eq(got.timestampMs, vm.parseJsonUint(_json, string.concat(path, ".timestamp_ms")), "time");
        eq(got.acceptedAt, block.number, "accepted");
    }

    function _committee(string memory path) private view returns (bytes memory members, bytes32 hash) {
        members = vm.parseJsonBytes(_json, string.concat(path, "committee"));
        hash = vm.parseJsonBytes32(_json, string.concat(path, "hash"));
        eq(Voters.hash(members), hash, "hash of a committee");
    }

    function _certificate(string memory path) private view returns (ICheckpoints.Certificate memory) {
        return ICheckpoints.Certificate(
            vm.parseJsonBytes(_json, string.concat(path, ".header")),
            uint64(vm.parseJsonUint(_json, string.concat(path, ".view"))),
            uint64(vm.parseJsonUint(_json, string.concat(path, ".parent_view"))),
            uint32(vm.parseJsonUint(_json, string.concat(path, ".signers"))),
            vm.parseJsonBytes(_json, string.concat(path, ".signature"))
        );
    }

    function _item(string memory path, string memory list, uint256 i) private pure returns (string memory) {
        return string.concat(path, list, "[", vm.toString(i), "]");
    }
}

/// @dev What `open` accepts and refuses.
contract OpenTest is Base {
    /// @dev On the twist with x = 2, and not in the subgroup.
    bytes private constant OUTSIDE = hex"00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000002"
        hex"00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000000000018c6b864ae17dc9da64203ffefb966306425a7bc6aeb7c75247438372716284a4173830420cd476ba1a365b95bfcec38"
        hex"00000000000000000000000000000000172e93db764a8400a7d5071b6b6f5de0da2f0f4a063119abca014006b7c40a2cfe291a1924e65db0d6d0fcfbf3bf3d5c";
    Checkpoints private checkpoints = new Checkpoints();
    bytes16 private constant DB = Voters.DB;

    function testFuzz_opens_with_any_committee_and_only_once(uint256 n) external {
        n = within(n, 1, 5);
        (bytes memory members, bytes memory proofs) = Voters.committee(0, n);
        vm.recordLogs();
        checkpoints.open(DB, members, proofs);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs[0].topics[0], ICheckpoints.Opened.selector, "event");
        eq(logs[0].data, abi.encode(Voters.hash(members), n), "hash and members");
        eq(checkpoints.committeeOf(address(this), DB), Voters.hash(members), "hash");
        eq(abi.encode(checkpoints.latest(address(this), DB)), new bytes(7 * 32), "nothing certified yet");
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.AlreadyOpen.selector, address(this), DB));
        checkpoints.open(DB, members, proofs);
        // Another owner's cluster of the same database is another cluster; so is another database of this owner.
        vm.prank(address(1));
        checkpoints.open(DB, members, proofs);
        checkpoints.open(bytes16(uint128(1)), members, proofs);
    }

    function test_opens_with_31_members_and_refuses_none_and_32() external {
        (bytes memory members, bytes memory proofs) = Voters.committee(0, 32);
        _refused(members, proofs, abi.encodeWithSelector(ICheckpoints.MemberCount.selector, 32, 31));
        _refused("", "", abi.encodeWithSelector(ICheckpoints.MemberCount.selector, 0, 31));
        (members, proofs) = Voters.committee(0, 31);
        checkpoints.open(DB, members, proofs);
    }

    function test_refuses_other_lengths() external {
        (bytes memory members, bytes memory proofs) = Voters.committee(0, 2);
        bytes memory longer = bytes.concat(members, hex"00");
        _refused(longer, proofs, abi.encodeWithSelector(ICheckpoints.CommitteeLength.selector, 577));
        bytes memory wrong = abi.encodeWithSelector(ICheckpoints.PossessionsLength.selector, 257, 256);
        _refused(members, bytes.concat(proofs, hex"00"), wrong);
        wrong = abi.encodeWithSelector(ICheckpoints.PossessionsLength.selector, 0, 256);
        _refused(members, "", wrong);
    }

    function test_refuses_members_out_of_order_and_twice() external {
        (bytes memory a, bytes memory pa) = Voters.committee(0, 1);
        (bytes memory b, bytes memory pb) = Voters.committee(1, 1);
        bytes memory reason = abi.encodeWithSelector(ICheckpoints.MembersOutOfOrder.selector, 1);
        _refused(bytes.concat(b, a), bytes.concat(pb, pa), reason);
        _refused(bytes.concat(a, a), bytes.concat(pa, pa), reason);
        checkpoints.open(DB, bytes.concat(a, b), bytes.concat(pa, pb));
    }

    function test_refuses_a_proof_by_another_key_for_another_node_and_in_the_suite_of_votes() external {
        (bytes memory members, bytes memory proofs) = Voters.committee(0, 2);
        bytes memory first = _slice(proofs, 0, 128);
        bytes memory reason = abi.encodeWithSelector(ICheckpoints.PossessionMismatch.selector, 1);
        _refused(members, bytes.concat(first, first), reason);
        _refused(members, bytes.concat(first, Voters.possession(Voters.node(2), 1)), reason);
        bytes memory text = abi.encodePacked(BlsVotes.POSSESSION_TAG, Voters.node(1), Voters.key(1));
        bytes memory inVotes = Voters.sign(Voters.secret(1), BlsVotes.VOTE_SUITE, text);
        _refused(members, bytes.concat(first, inVotes), reason);
    }

    /// @dev The rogue key: the difference of a key of ours and the victim's, so that the two add up to ours.
    function test_refuses_a_key_made_of_another_members_key() external {
        bytes memory victim = Voters.key(0);
        uint256 mine = Voters.secret(9);
        bytes memory rogue = _add(Toy.g2(mine), _negative(victim));
        bytes memory members = bytes.concat(Voters.node(0), victim, Voters.node(1), rogue);
        bytes memory text = abi.encodePacked(BlsVotes.POSSESSION_TAG, Voters.node(1), rogue);
        bytes memory proofs =
            bytes.concat(Voters.possession(Voters.node(0), 0), Voters.sign(mine, BlsVotes.POSSESSION_SUITE, text));
        _refused(members, proofs, abi.encodeWithSelector(ICheckpoints.PossessionMismatch.selector, 1));
    }

    function test_refuses_infinity_as_key_and_as_proof() external {
        bytes memory reason = abi.encodeWithSelector(BlsVotes.PointAtInfinity.selector);
        bytes memory nothing = bytes.concat(Voters.node(0), new bytes(256));
        _refused(nothing, new bytes(128), reason);
        _refused(nothing, Voters.possession(Voters.node(0), 0), reason);
        (bytes memory members,) = Voters.committee(0, 1);
        _refused(members, new bytes(128), reason);
    }

    /// @dev A key in the curve's full group: additions take it, so the pairing must not.
    function test_refuses_a_key_outside_the_subgroup_and_points_off_the_curve() external {
        bytes memory failed = abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, Bls12381.PAIRING);
        bytes memory stray = OUTSIDE;
        // It is on the curve: the addition takes it.
        (bool added,) = Bls12381.G2_ADD.staticcall(bytes.concat(stray, new bytes(256)));
        yes(added, "on the curve");
        (bytes memory members, bytes memory proofs) = Voters.committee(0, 1);
        _refused(bytes.concat(Voters.node(0), stray), proofs, failed);
        members[288 - 1] ^= 0x01;
        _refused(members, proofs, failed);
        members[288 - 1] ^= 0x01;
        proofs[127] ^= 0x01;
        _refused(members, proofs, failed);
    }

    function _refused(bytes memory members, bytes memory proofs, bytes memory reason) private {
        // A failing precompile eats what it is given.
        try checkpoints.open{gas: 6_000_000}(DB, members, proofs) {
            revert("opened");
        } catch (bytes memory got) {
            eq(got, reason, "reason");
        }
    }

    function _slice(bytes memory b, uint256 from, uint256 length) private pure returns (bytes memory out) {
        out = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            out[i] = b[from + i];
        }
    }

    function _add(bytes memory a, bytes memory b) private view returns (bytes memory) {
        (bool good, bytes memory sum) = Bls12381.G2_ADD.staticcall(bytes.concat(a, b));
        yes(good, "adds");
        return sum;
    }

    function _negative(bytes memory p) private pure returns (bytes memory out) {
        out = bytes.concat(p);
        uint256 y;
        assembly ("memory-safe") {
            y := add(out, 160)
        }
        Bls12381.negate(y);
        Bls12381.negate(y + 64);
    }
}

/// @dev What `submit` accepts and refuses. The secrets are the test's, so every variant is signed as it should be, except for the one
/// thing that is wrong.
contract SubmitTest is Base {
    bytes16 private constant DB = Voters.DB;
    Checkpoints private checkpoints = new Checkpoints();
    address private owner = address(this);
    bytes private members;
    bytes32 private hash;

    function setUp() external {
        bytes memory proofs;
        (members, proofs) = Voters.committee(0, 4);
        hash = Voters.hash(members);
        checkpoints.open(DB, members, proofs);
    }

    function testFuzz_keeps_what_the_header_says(uint64 height, uint64 view_, uint256 signers) external {
        height = uint64(within(height, 1, type(uint64).max - 1_790_000_000_000));
        view_ = uint64(within(view_, 1, type(uint64).max));
        uint32[5] memory enough = [uint32(15), 7, 11, 13, 14];
        bytes memory header = Voters.header(DB, height / 64, height, hash);
        ICheckpoints.Certificate memory c = Voters.certify(header, view_, 0, enough[signers % 5]);
        vm.recordLogs();
        vm.prank(address(0xbeef)); // anyone may send it
        checkpoints.submit(owner, c, members);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 1, "one event: no handover to the same committee");
        ICheckpoints.Checkpoint memory got = checkpoints.latest(owner, DB);
        eq(got.height, height, "height");
        eq(got.epoch, height / 64, "epoch");
        eq(got.executedHeight, height - 1, "executed height");
        eq(got.executedRoot, keccak256(abi.encode("root", height)), "root");
        eq(got.blockHash, keccak256(abi.encodePacked("FLU/crypto/block/v1", header)), "block hash");
        eq(got.timestampMs, uint64(1_790_000_000_000 + uint256(height)), "time");
        eq(logs[0].topics[0], ICheckpoints.Certified.selector, "event");
        eq(logs[0].topics[3], bytes32(uint256(height)), "event height");
        eq(logs[0].data, abi.encode(height - 1, got.executedRoot, got.blockHash), "event data");
    }

    function testFuzz_refuses_every_minority_and_every_stranger(uint256 n, uint32 signers) external {
        n = within(n, 1, 7);
        (bytes memory some, bytes memory proofs) = Voters.committee(20, n);
        vm.prank(address(7));
        checkpoints.open(DB, some, proofs);
        uint256 quorum = n - (n - 1) / 3;
        uint32 inside = signers % uint32(1 << n);
        uint256 signed = 0;
        for (uint256 i = 0; i < n; ++i) {
            signed += inside >> i & 1;
        }
        bytes memory header = Voters.header(DB, 0, 5, 0);
        ICheckpoints.Certificate memory c = Voters.certify(header, 3, 20, inside);
        if (signed >= quorum) {
            checkpoints.submit(address(7), c, some);
            return;
        }
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.QuorumMissing.selector, signed, n, quorum));
        checkpoints.submit(address(7), c, some);
        // Strangers make up the number.
        c = Voters.certify(header, 3, 20, inside | uint32(uint256(type(uint32).max) << n));
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.SignerUnknown.selector, c.signers, n));
        checkpoints.submit(address(7), c, some);
    }

    function test_the_quorum_is_two_f_plus_one() external {
        uint256[7] memory sizes = [uint256(1), 2, 3, 4, 5, 7, 10];
        uint256[7] memory quorums = [uint256(1), 2, 3, 3, 4, 5, 7];
        for (uint256 i = 0; i < 7; ++i) {
            (bytes memory some, bytes memory proofs) = Voters.committee(0, sizes[i]);
            address by = address(uint160(100 + i));
            vm.prank(by);
            checkpoints.open(DB, some, proofs);
            ICheckpoints.Certificate memory c = _certify(1, 1, uint32((1 << (quorums[i] - 1)) - 1));
            bytes memory reason =
                abi.encodeWithSelector(ICheckpoints.QuorumMissing.selector, quorums[i] - 1, sizes[i], quorums[i]);
            vm.expectRevert(reason);
            checkpoints.submit(by, c, some);
            checkpoints.submit(by, _certify(1, 1, uint32((1 << quorums[i]) - 1)), some);
        }
    }

    function test_refuses_heights_that_do_not_grow_and_epochs_that_do_not_match() external {
        bytes memory zero = Voters.certify(_zeroHeight(), 1, 0, 15).header;
        ICheckpoints.Certificate memory c = Voters.certify(zero, 1, 0, 15);
        _refused(c, abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 0, 0));
        checkpoints.submit(owner, _certify(100, 9, 15), members);
        _refused(_certify(100, 9, 15), abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 100, 100));
        _refused(_certify(100, 10, 15), abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 100, 100));
        _refused(_certify(99, 9, 15), abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 99, 100));
        _refused(_certify(63, 9, 15), abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 63, 100));
        for (uint64 epoch = 0; epoch < 4; ++epoch) {
            if (epoch == 1) continue;
            c = Voters.certify(Voters.header(DB, epoch, 127, hash), 9, 0, 15);
            _refused(c, abi.encodeWithSelector(ICheckpoints.EpochMismatch.selector, epoch, 127));
        }
        checkpoints.submit(owner, _certify(127, 9, 15), members);
    }

    function test_refuses_another_owner_another_database_and_other_lengths() external {
        ICheckpoints.Certificate memory c = _certify(5, 2, 15);
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.ClusterUnknown.selector, address(9), DB));
        checkpoints.submit(address(9), c, members);
        bytes16 other = bytes16(uint128(5));
        bytes memory unknown = abi.encodeWithSelector(ICheckpoints.ClusterUnknown.selector, owner, other);
        _refused(Voters.certify(Voters.header(other, 0, 5, hash), 2, 0, 15), unknown);
        vm.expectRevert(unknown);
        checkpoints.latest(owner, other);
        vm.expectRevert(unknown);
        checkpoints.committeeOf(owner, other);
        bytes memory header = c.header;
        c.header = bytes.concat(header, hex"00");
        _refused(c, abi.encodeWithSelector(ICheckpoints.HeaderLength.selector, 177));
        c.header = "";
        _refused(c, abi.encodeWithSelector(ICheckpoints.HeaderLength.selector, 0));
        c.header = header;
        bytes memory signature = c.signature;
        c.signature = bytes.concat(signature, hex"00");
        _refused(c, abi.encodeWithSelector(BlsVotes.SignatureLength.selector, 129));
        c.signature = "";
        _refused(c, abi.encodeWithSelector(BlsVotes.SignatureLength.selector, 0));
        c.signature = signature;
        checkpoints.submit(owner, c, members);
    }

    function test_refuses_another_committee_a_part_of_it_and_another_order() external {
        ICheckpoints.Certificate memory c = _certify(5, 2, 15);
        (bytes memory other,) = Voters.committee(10, 4);
        (bytes memory three,) = Voters.committee(0, 3);
        (bytes memory late,) = Voters.committee(1, 3);
        (bytes memory early,) = Voters.committee(0, 1);
        bytes[5] memory lists = [other, three, bytes.concat(late, early), bytes(""), bytes.concat(members, early)];
        for (uint256 i = 0; i < 5; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(ICheckpoints.CommitteeMismatch.selector, Voters.hash(lists[i]), hash)
            );
            checkpoints.submit(owner, c, lists[i]);
        }
    }

    function test_refuses_votes_of_another_kind_view_parent_and_database() external {
        ICheckpoints.Certificate memory c = _certify(5, 300, 15);
        bytes32 blockHash = keccak256(abi.encodePacked("FLU/crypto/block/v1", c.header));
        bytes memory mismatch = abi.encodeWithSelector(ICheckpoints.SignatureMismatch.selector, blockHash);
        uint256 sum = _sum(15);
        bytes[6] memory others = [
            BlsVotes.message(DB, 0, 300, BlsVotes.Kind.Notarize, 299, blockHash),
            BlsVotes.message(DB, 0, 300, BlsVotes.Kind.Nullify, 0, 0),
            BlsVotes.message(DB, 0, 301, BlsVotes.Kind.Finalize, 299, blockHash),
            BlsVotes.message(DB, 0, 300, BlsVotes.Kind.Finalize, 298, blockHash),
            BlsVotes.message(DB, 1, 300, BlsVotes.Kind.Finalize, 299, blockHash),
            BlsVotes.message(bytes16(uint128(1)), 0, 300, BlsVotes.Kind.Finalize, 299, blockHash)
        ];
        bytes memory right = c.signature;
        for (uint256 i = 0; i < 6; ++i) {
            c.signature = Voters.sign(sum, BlsVotes.VOTE_SUITE, others[i]);
            _refused(c, mismatch);
        }
        bytes memory text = BlsVotes.message(DB, 0, 300, BlsVotes.Kind.Finalize, 299, blockHash);
        c.signature = Voters.sign(sum, BlsVotes.POSSESSION_SUITE, text);
        _refused(c, mismatch);
        c.signature = Voters.sign(_sum(7), BlsVotes.VOTE_SUITE, text); // three signed, four are named
        _refused(c, mismatch);
        c.signature = Voters.sign(sum, BlsVotes.VOTE_SUITE, text);
        eq(c.signature, right, "the test's own signature");
        checkpoints.submit(owner, c, members);
    }

    /// @dev Any bit of what is sent, at any place.
    function testFuzz_any_flipped_bit_is_refused(uint256 bit) external {
        ICheckpoints.Certificate memory c = _certify(127, 300, 7);
        uint256 sizes = (176 + 8 + 8 + 4 + 128 + 1152) * 8;
        bit = within(bit, 0, sizes - 1);
        bytes memory list = members;
        (uint256 which, uint8 mask) = (bit / 8, uint8(1 << bit % 8));
        if (which < 176) c.header[which] ^= bytes1(mask);
        else if (which < 184) c.view_ ^= uint64(mask) << uint64(8 * (which - 176));
        else if (which < 192) c.parentView ^= uint64(mask) << uint64(8 * (which - 184));
        else if (which < 196) c.signers ^= uint32(mask) << uint32(8 * (which - 192));
        else if (which < 324) c.signature[which - 196] ^= bytes1(mask);
        else list[which - 324] ^= bytes1(mask);
        try checkpoints.submit{gas: 1_000_000}(owner, c, list) {
            revert("accepted");
        } catch (bytes memory got) {
            bytes4 why = bytes4(got);
            // The signature's own bits make a point that is none, or another's; a failed precompile is not called a mismatch.
            bytes4 want = which < 16
                ? ICheckpoints.ClusterUnknown.selector
                : which < 24
                    ? ICheckpoints.EpochMismatch.selector
                    : which < 32
                        ? why == ICheckpoints.HeightNotAbove.selector || why == ICheckpoints.SignatureMismatch.selector
                            ? why
                            : ICheckpoints.EpochMismatch.selector
                        : which < 192
                            ? ICheckpoints.SignatureMismatch.selector
                            : which < 196
                                ? _signersReason(c.signers)
                                : which < 324
                                    ? Bls12381.PrecompileFailed.selector
                                    : ICheckpoints.CommitteeMismatch.selector;
            eq(bytes32(why), bytes32(want), "reason");
        }
        checkpoints.submit(owner, _certify(127, 300, 7), members);
    }

    function _signersReason(uint32 signers) private pure returns (bytes4) {
        if (signers >= 16) return ICheckpoints.SignerUnknown.selector;
        return signers == 15 ? ICheckpoints.SignatureMismatch.selector : ICheckpoints.QuorumMissing.selector;
    }

    /// @dev Two keys that cancel out, each with its proof: infinity must not be a signature of everything.
    function test_refuses_infinity_although_two_members_keys_cancel_out() external {
        uint256 secret = Voters.secret(0);
        bytes memory opposite = Toy.g2(Toy.R - secret);
        bytes32 second = Voters.node(1);
        bytes memory text = abi.encodePacked(BlsVotes.POSSESSION_TAG, second, opposite);
        bytes memory proofs = bytes.concat(
            Voters.possession(Voters.node(0), 0), Voters.sign(Toy.R - secret, BlsVotes.POSSESSION_SUITE, text)
        );
        bytes memory both = bytes.concat(Voters.node(0), Voters.key(0), second, opposite);
        vm.prank(address(3));
        checkpoints.open(DB, both, proofs);
        ICheckpoints.Certificate memory c =
            ICheckpoints.Certificate(Voters.header(DB, 0, 5, 0), 2, 1, 3, new bytes(128));
        vm.expectRevert(abi.encodeWithSelector(BlsVotes.PointAtInfinity.selector));
        checkpoints.submit(address(3), c, both);
        c.signature = Toy.g1(1);
        vm.expectPartialRevert(ICheckpoints.SignatureMismatch.selector);
        checkpoints.submit(address(3), c, both);
    }

    // ---- committees -----------------------------------------------------------------------------------------------------------

    function test_hands_over_at_an_epochs_last_block_only() external {
        (bytes memory next,) = Voters.committee(4, 7);
        bytes32 nextHash = Voters.hash(next);
        // Any other block names the next committee as it stands; that settles nothing.
        for (uint64 height = 61; height < 63; ++height) {
            checkpoints.submit(owner, Voters.certify(Voters.header(DB, 0, height, nextHash), 9, 0, 15), members);
            eq(checkpoints.committeeOf(owner, DB), hash, "not yet");
        }
        vm.recordLogs();
        checkpoints.submit(owner, Voters.certify(Voters.header(DB, 0, 63, nextHash), 9, 0, 15), members);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs[1].topics[0], ICheckpoints.HandedOver.selector, "event");
        eq(logs[1].topics[3], bytes32(uint256(1)), "from epoch 1");
        eq(logs[1].data, abi.encode(nextHash), "to the next committee");
        eq(checkpoints.committeeOf(owner, DB), nextHash, "handed over");
        // The old one certifies nothing any more: not in its own epoch, not in the next.
        bytes memory gone = abi.encodeWithSelector(ICheckpoints.CommitteeMismatch.selector, hash, nextHash);
        _refused(_certify(64, 1, 15), gone);
        _refused(_certify(6400, 1, 15), gone);
        _refused(_certify(62, 10, 15), abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 62, 63));
        // Nor does the new one in the old one's epoch.
        ICheckpoints.Certificate memory early = Voters.certify(Voters.header(DB, 0, 62, hash), 1, 4, 31);
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.HeightNotAbove.selector, 62, 63));
        checkpoints.submit(owner, early, next);
        checkpoints.submit(owner, Voters.certify(Voters.header(DB, 1, 64, nextHash), 1, 4, 31), next);
        eq(checkpoints.latest(owner, DB).epoch, 1, "the new one goes on");
        // And back: its last block of epoch 3 names the first again.
        checkpoints.submit(owner, Voters.certify(Voters.header(DB, 3, 255, hash), 1, 4, 124), next);
        checkpoints.submit(owner, _certify(256, 1, 15), members);
    }

    /// @dev A committee that stays certifies in any later epoch: nobody has to send a certificate of every epoch.
    function test_epochs_may_be_skipped_while_the_committee_stays() external {
        checkpoints.submit(owner, _certify(1, 1, 15), members);
        checkpoints.submit(owner, _certify(64 * 1000, 1, 15), members);
        eq(checkpoints.latest(owner, DB).epoch, 1000, "epoch");
    }

    function test_clusters_do_not_touch_each_other() external {
        (bytes memory some, bytes memory proofs) = Voters.committee(4, 1);
        vm.prank(address(5));
        checkpoints.open(DB, some, proofs);
        checkpoints.submit(owner, _certify(10, 1, 15), members);
        eq(checkpoints.latest(address(5), DB).height, 0, "the other cluster");
        ICheckpoints.Certificate memory c = _certify(11, 1, 15);
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.CommitteeMismatch.selector, hash, Voters.hash(some)));
        checkpoints.submit(address(5), c, members);
    }

    // ---- starving -------------------------------------------------------------------------------------------------------------

    /// @dev With any gas, a good certificate is accepted or the call reverts, and never with a mismatch.
    function test_starved_of_gas_it_never_calls_a_good_certificate_a_mismatch() external {
        bytes memory good = abi.encodeCall(checkpoints.submit, (owner, _certify(5, 2, 15), members));
        uint256 named = 0;
        uint256 passed = 0;
        for (uint256 gas_ = 1_000; gas_ < 230_000 && passed == 0; gas_ += 499) {
            (bool done, bytes memory out) = address(checkpoints).call{gas: gas_}(good);
            if (done) ++passed;
            else if (out.length == 36 && bytes4(out) == Bls12381.PrecompileFailed.selector) ++named;
            else eq(out.length, 0, "out of gas");
        }
        yes(passed == 1 && named > 100, "the sweep met all three");
    }

    function _certify(uint64 height, uint64 view_, uint32 signers)
        private
        view
        returns (ICheckpoints.Certificate memory)
    {
        return Voters.certify(Voters.header(DB, height / 64, height, hash), view_, 0, signers);
    }

    function _zeroHeight() private view returns (bytes memory header) {
        header = Voters.header(DB, 0, 1, hash);
        header[24] = 0;
    }

    function _sum(uint32 signers) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < 4; ++i) {
            if (signers >> i & 1 != 0) sum = addmod(sum, Voters.secret(i), Toy.R);
        }
    }

    function _refused(ICheckpoints.Certificate memory c, bytes memory reason) private {
        vm.expectRevert(reason);
        checkpoints.submit(owner, c, members);
    }
}

/// @dev Messages and hashes, apart from any contract.
contract VoteMessageTest is Base {
    function testFuzz_messages_are_those_of_the_specification(
        bytes16 db,
        uint64 epoch,
        uint64 view_,
        uint64 parent,
        bytes32 hash
    ) external pure {
        (epoch, view_, parent) = (epoch >> (epoch % 64), view_ >> (view_ % 64), parent >> (parent % 64)); // all lengths
        bytes memory numbers = bytes.concat(_uvarint(epoch), _uvarint(view_));
        bytes memory proposal = bytes.concat(_uvarint(parent), hash);
        eq(
            BlsVotes.message(db, epoch, view_, BlsVotes.Kind.Notarize, parent, hash),
            bytes.concat(hex"2b", "FLU/crypto/vote/v1", db, "_NOTARIZE", numbers, proposal),
            "notarize"
        );
        eq(
            BlsVotes.message(db, epoch, view_, BlsVotes.Kind.Finalize, parent, hash),
            bytes.concat(hex"2b", "FLU/crypto/vote/v1", db, "_FINALIZE", numbers, proposal),
            "finalize"
        );
        eq(
            BlsVotes.message(db, epoch, view_, BlsVotes.Kind.Nullify, parent, hash),
            bytes.concat(hex"2a", "FLU/crypto/vote/v1", db, "_NULLIFY", numbers),
            "nullify"
        );
    }

    /// @dev The suites' names, which the constants hold in two parts.
    function test_the_suites_are_named_in_full() external pure {
        bytes memory rest = bytes("SWU_RO_POP_");
        eq(abi.encodePacked(BlsVotes.VOTE_SUITE, rest), "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_", "votes");
        bytes memory possession = abi.encodePacked(BlsVotes.POSSESSION_SUITE, rest);
        eq(possession, "BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_", "possession");
    }

    function _uvarint(uint64 value) private pure returns (bytes memory out) {
        while (value >= 128) {
            out = bytes.concat(out, bytes1(uint8(value % 128 + 128)));
            value /= 128;
        }
        out = bytes.concat(out, bytes1(uint8(value)));
    }
}
