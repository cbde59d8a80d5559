// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Groth16Verifier} from "../src/Groth16Verifier.sol";
import {Base} from "./Base.t.sol";

/// @title Proofs that the Rust prover made, under keys that it made: the vectors that the Rust verifier reads too.
contract RealProofsTest is Base {
    string private constant FILE = "../tests/vectors/groth16.json";

    function test_accepts_the_rust_provers_proofs_and_refuses_every_invalid_variant() external {
        vm.chainId(31337);
        string memory json = vm.readFile(FILE);
        uint256 cases = 0;
        uint256 mismatched = 0;
        uint256 reverted = 0;
        for (; vm.keyExistsJson(json, _case(cases, "proof")); ++cases) {
            Groth16Verifier verifier = new Groth16Verifier(_key(json, cases), true);
            eq(verifier.vkHash(), vm.parseJsonBytes32(json, _case(cases, "vk_hash")), "key hash");
            uint256[] memory inputs = vm.parseJsonUintArray(json, _case(cases, "public_inputs"));
            yes(verifier.verify(inputs, vm.parseJsonBytes(json, _case(cases, "proof"))), "accepts");
            for (uint256 i = 0; vm.keyExistsJson(json, _invalid(cases, i, "expect")); ++i) {
                (bool said, bool no) = _verify(verifier, json, cases, i);
                string memory name = vm.parseJsonString(json, _invalid(cases, i, "name"));
                bool mismatch = _same(vm.parseJsonString(json, _invalid(cases, i, "expect")), "mismatch");
                // A well-formed proof of something else is a "no"; everything malformed reverts.
                eq(said, mismatch, string.concat("says no to: ", name));
                if (said) yes(no, name);
                if (said) ++mismatched;
                else ++reverted;
            }
        }
        yes(cases >= 2 && mismatched >= 4 && reverted >= 4, "vectors of both kinds");
    }

    function _verify(Groth16Verifier verifier, string memory json, uint256 c, uint256 i)
        private
        view
        returns (bool said, bool no)
    {
        uint256[] memory inputs = vm.parseJsonUintArray(json, _invalid(c, i, "public_inputs"));
        bytes memory proof = vm.parseJsonBytes(json, _invalid(c, i, "proof"));
        // A failing precompile eats the gas it is given, so it gets no more than it needs.
        try verifier.verify{gas: 1_000_000}(inputs, proof) returns (bool matches) {
            return (true, !matches);
        } catch {
            return (false, false);
        }
    }

    function _key(string memory json, uint256 c) private view returns (bytes memory key) {
        key = bytes.concat(
            vm.parseJsonBytes(json, _case(c, "vk.alpha")),
            vm.parseJsonBytes(json, _case(c, "vk.beta")),
            vm.parseJsonBytes(json, _case(c, "vk.gamma")),
            vm.parseJsonBytes(json, _case(c, "vk.delta"))
        );
        for (uint256 i = 0;; ++i) {
            string memory ic = _case(c, string.concat("vk.ic[", vm.toString(i), "]"));
            if (!vm.keyExistsJson(json, ic)) break;
            key = bytes.concat(key, vm.parseJsonBytes(json, ic));
        }
    }

    function _case(uint256 c, string memory field) private pure returns (string memory) {
        return string.concat("$.cases[", vm.toString(c), "].", field);
    }

    function _invalid(uint256 c, uint256 i, string memory field) private pure returns (string memory) {
        return _case(c, string.concat("invalid[", vm.toString(i), "].", field));
    }

    function _same(string memory a, string memory b) private pure returns (bool) {
        return keccak256(bytes(a)) == keccak256(bytes(b));
    }
}
