// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Groth16Verifier} from "../src/Groth16Verifier.sol";
import {IGroth16Verifier} from "../src/interfaces/IGroth16Verifier.sol";
import {Bls12381} from "../src/libraries/Bls12381.sol";
import {Base} from "./Base.t.sol";
import {Toy} from "./Toy.sol";

/// @dev Calls the library at any address, to stand for a chain that has no precompile there.
contract Caller {
    function call(address precompile, uint256 outputBytes) external view {
        Bls12381.call(precompile, 0, 256, 0, outputBytes);
    }
}

/// @dev A verifier that knows one ceremony's key.
contract AfterCeremony is Groth16Verifier {
    constructor(bytes memory key) Groth16Verifier(key, false) {}

    function _isCeremonyKey(bytes32 hash) internal view override returns (bool) {
        return hash == keccak256(Toy.key(3));
    }
}

contract Groth16VerifierTest is Base {
    Groth16Verifier private verifier;

    function setUp() external {
        vm.chainId(31337);
        verifier = new Groth16Verifier(Toy.key(3), true);
    }

    // ---- accepts --------------------------------------------------------------------------------------------------------------

    function testFuzz_accepts_a_proof_of_its_inputs_and_no_other(uint256[3] memory raw, uint256 salt, uint256 which)
        external
        view
    {
        uint256[] memory inputs = new uint256[](3);
        for (uint256 i = 0; i < 3; ++i) {
            inputs[i] = raw[i] % Toy.R;
        }
        bytes memory proof = Toy.prove(inputs, salt);
        yes(verifier.verify(inputs, proof), "accepts");
        which %= 3;
        inputs[which] = addmod(inputs[which], 1, Toy.R);
        yes(!verifier.verify(inputs, proof), "another input");
    }

    function test_accepts_keys_of_one_to_six_inputs() external {
        for (uint256 n = 1; n <= 6; ++n) {
            Groth16Verifier v = new Groth16Verifier(Toy.key(n), true);
            eq(v.inputCount(), n, "inputs");
            uint256[] memory inputs = new uint256[](n);
            for (uint256 i = 0; i < n; ++i) {
                inputs[i] = 7 * i;
            }
            yes(v.verify(inputs, Toy.prove(inputs, n)), "accepts");
        }
    }

    function test_keeps_the_key_and_its_hash() external view {
        bytes memory key = Toy.key(3);
        eq(verifier.verificationKey(), key, "key");
        eq(verifier.vkHash(), keccak256(key), "hash");
        yes(verifier.insecureDevKey(), "mark");
    }

    // ---- rejects --------------------------------------------------------------------------------------------------------------

    function test_refuses_a_dev_key_on_any_chain_but_a_local_one() external {
        bytes memory key = Toy.key(3);
        vm.chainId(1);
        _refuses(key, abi.encodeWithSelector(IGroth16Verifier.InsecureKey.selector, 1));
        vm.chainId(1337);
        yes(new Groth16Verifier(key, true).insecureDevKey(), "a local chain");
    }

    function testFuzz_takes_ceremony_keys_alone_on_any_chain_but_a_local_one(uint32 chainId) external {
        if (chainId == 31337 || chainId == 1337) return;
        vm.chainId(chainId);
        // That its file does not call it a development key is no reason to believe it.
        bytes memory key = Toy.key(3);
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.UnknownKey.selector, keccak256(key), uint256(chainId)));
        new Groth16Verifier(key, false);
        AfterCeremony known = new AfterCeremony(key);
        yes(!known.insecureDevKey(), "a ceremony's key");
        eq(known.vkHash(), keccak256(key), "hash");
        bytes memory other = Toy.key(4);
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.UnknownKey.selector, keccak256(other), uint256(chainId)));
        new AfterCeremony(other);
    }

    function test_refuses_keys_of_a_wrong_length_or_with_a_bad_point() external {
        bytes memory key = Toy.key(3);
        _refuses(new bytes(895), abi.encodeWithSelector(IGroth16Verifier.KeyLength.selector, 895));
        _refuses(new bytes(896 + 128), abi.encodeWithSelector(IGroth16Verifier.KeyLength.selector, 896 + 128));
        _refuses(
            bytes.concat(key, hex"00"), abi.encodeWithSelector(IGroth16Verifier.KeyLength.selector, key.length + 1)
        );
        bytes memory seven = Toy.key(7);
        _refuses(seven, abi.encodeWithSelector(IGroth16Verifier.KeyLength.selector, seven.length));
        uint256[6] memory points = [uint256(0), 128, 384, 640, 896, 1280];
        for (uint256 i = 0; i < 6; ++i) {
            bytes memory bad = bytes.concat(key);
            bad[points[i] + 100] ^= 0x01;
            _refuses(bad, abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, address(0x0f)));
        }
        for (uint256 i = 0; i < 4; ++i) {
            bytes memory bad = bytes.concat(key);
            for (uint256 b = points[i]; b < points[i + 1]; ++b) {
                bad[b] = 0;
            }
            _refuses(bad, abi.encodeWithSelector(IGroth16Verifier.KeyPointAtInfinity.selector, i));
        }
    }

    function test_reverts_on_a_wrong_number_of_inputs_or_proof_bytes() external {
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.InputCount.selector, 2, 3));
        verifier.verify(new uint256[](2), new bytes(512));
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.ProofLength.selector, 511));
        verifier.verify(new uint256[](3), new bytes(511));
    }

    function testFuzz_reverts_on_an_input_of_r_or_more(uint256 index, uint256 small) external {
        uint256[] memory inputs = _inputs();
        bytes memory proof = Toy.prove(inputs, 1);
        index %= 3;
        // The second name of the same scalar: the precompile alone would accept it.
        inputs[index] += Toy.R;
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.InputNotCanonical.selector, index, inputs[index]));
        verifier.verify(inputs, proof);
        inputs[index] = within(small, Toy.R, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IGroth16Verifier.InputNotCanonical.selector, index, inputs[index]));
        verifier.verify(inputs, proof);
    }

    function testFuzz_any_flipped_bit_of_the_proof_reverts(uint256 bit) external {
        uint256[] memory inputs = _inputs();
        bytes memory proof = Toy.prove(inputs, 1);
        bit %= 4096;
        proof[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        // A flipped coordinate leaves the curve, so the precompile fails; that is a revert, not a "no".
        vm.expectRevert(abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, address(0x0f)));
        verifier.verify(inputs, proof);
    }

    function test_says_no_to_good_points_that_prove_nothing() external view {
        uint256[] memory inputs = _inputs();
        bytes memory one = Toy.prove(inputs, 1);
        bytes memory two = Toy.prove(inputs, 2);
        for (uint256 i = 0; i < 128; ++i) {
            one[i] = two[i];
        }
        yes(!verifier.verify(inputs, one), "A of another proof");
        yes(!verifier.verify(inputs, new bytes(512)), "three points at infinity");
    }

    function test_reverts_on_a_point_outside_the_subgroup_and_on_a_coordinate_plus_q() external {
        uint256[] memory inputs = _inputs();
        bytes memory proof = Toy.prove(inputs, 1);
        // (0, 2) is on y^2 = x^3 + 4 and has order 3, not r.
        bytes memory order3 = bytes.concat(proof);
        for (uint256 i = 0; i < 128; ++i) {
            order3[i] = 0;
        }
        order3[127] = 0x02;
        vm.expectRevert(abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, address(0x0f)));
        verifier.verify(inputs, order3);
        // C.x + q, the same residue by another name.
        (uint256 hi, uint256 lo) = (_word(proof, 384), _word(proof, 416));
        uint256 qLo = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;
        uint256 sumLo;
        unchecked {
            sumLo = lo + qLo;
        }
        hi += 0x1a0111ea397fe69a4b1ba7b6434bacd7 + (sumLo < lo ? 1 : 0);
        assembly {
            mstore(add(proof, 416), hi)
            mstore(add(proof, 448), sumLo)
        }
        vm.expectRevert(abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, address(0x0f)));
        verifier.verify(inputs, proof);
    }

    function test_a_precompile_that_is_not_there_reverts_although_the_call_succeeds() external {
        Caller caller = new Caller();
        address nobody = address(0xdead);
        vm.expectRevert(abi.encodeWithSelector(Bls12381.PrecompileFailed.selector, nobody));
        caller.call(nobody, 32);
    }

    // ---- starving -------------------------------------------------------------------------------------------------------------

    /// @dev A caller leaves the precompile 63/64 of any gas it likes. A good proof is then accepted or the call reverts; a bad one is
    /// refused or the call reverts. Never the other way round.
    function testFuzz_starved_of_gas_it_reverts_and_never_lies(uint256 gasLimit) external view {
        uint256[] memory inputs = _inputs();
        bytes memory proof = Toy.prove(inputs, 1);
        bytes memory good = abi.encodeCall(verifier.verify, (inputs, proof));
        inputs[0] += 1;
        bytes memory bad = abi.encodeCall(verifier.verify, (inputs, proof));
        gasLimit = within(gasLimit, 0, 260_000);
        (bool done, bytes memory out) = address(verifier).staticcall{gas: gasLimit}(good);
        if (done) yes(abi.decode(out, (bool)), "a good proof never reads as false");
        (done, out) = address(verifier).staticcall{gas: gasLimit}(bad);
        if (done) yes(!abi.decode(out, (bool)), "a bad proof never reads as true");
    }

    function test_starving_sweeps_the_whole_range() external view {
        uint256[] memory inputs = _inputs();
        bytes memory good = abi.encodeCall(verifier.verify, (inputs, Toy.prove(inputs, 1)));
        uint256 failed = 0;
        uint256 named = 0;
        uint256 passed = 0;
        for (uint256 g = 1_000; g < 260_000; g += 997) {
            (bool done, bytes memory out) = address(verifier).staticcall{gas: g}(good);
            if (done) {
                yes(abi.decode(out, (bool)), "accepted or reverted");
                ++passed;
            } else {
                ++failed;
                if (out.length == 36 && bytes4(out) == Bls12381.PrecompileFailed.selector) ++named;
            }
        }
        yes(passed > 10 && failed > 150 && named > 100, "the sweep met all three");
    }

    function _refuses(bytes memory key, bytes memory reason) private {
        refuses("Groth16Verifier", abi.encode(key, true), reason);
    }

    function _inputs() private pure returns (uint256[] memory inputs) {
        inputs = new uint256[](3);
        (inputs[0], inputs[1], inputs[2]) = (uint256(keccak256("root")) % Toy.R, 12345, (1 << 253) - 1);
    }

    function _word(bytes memory b, uint256 offset) private pure returns (uint256 w) {
        assembly {
            w := mload(add(add(b, 32), offset))
        }
    }
}
