// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Holdings} from "../src/Holdings.sol";
import {IHoldings} from "../src/interfaces/IHoldings.sol";
import {Poseidon2} from "../src/libraries/Poseidon2.sol";
import {Base} from "./Base.t.sol";

/// @title The same JSON vectors as Rust reads.
contract VectorsTest is Base {
    string private constant FOLDER = "../tests/vectors/";
    IHoldings private hasher = new Holdings();

    function test_poseidon2_permutes_and_compresses_like_the_vectors() external view {
        string memory json = vm.readFile(string.concat(FOLDER, "poseidon2.json"));
        bytes memory constants = Poseidon2.load();
        uint256 n = count(json, "input");
        yes(n > 0, "no vectors");
        for (uint256 i = 0; i < n; ++i) {
            uint256[] memory input = vm.parseJsonUintArray(json, key(i, "input"));
            uint256[] memory output = vm.parseJsonUintArray(json, key(i, "output"));
            uint256[] memory compressed = vm.parseJsonUintArray(json, key(i, "compress"));
            uint256[8] memory x = _eight(input);
            Poseidon2.permute(constants, x);
            for (uint256 w = 0; w < 8; ++w) {
                eq(x[w], output[w], "permute");
                eq(Poseidon2.compress(constants, w, _eight(input)), compressed[w], "compress");
            }
        }
    }

    function test_holdings_roots_are_those_of_the_vectors() external view {
        string memory json = vm.readFile(string.concat(FOLDER, "sum_tree.json"));
        uint256 n = count(json, "digests");
        uint256 checked = 0;
        for (uint256 i = 0; i < n; ++i) {
            uint256[] memory digests = vm.parseJsonUintArray(json, key(i, "digests"));
            uint256[] memory weights = vm.parseJsonUintArray(json, key(i, "weights"));
            // Holdings have neither: a registered database has at least one cell.
            if (digests.length == 0 || _anyZero(weights)) continue;
            (uint256 root, uint256 total) = hasher.root(digests, weights);
            uint256 sumRoot = vm.parseJsonUint(json, key(i, "root"));
            eq(total, vm.parseJsonUint(json, key(i, "total")), "total");
            uint256[8] memory x = [1, digests.length, sumRoot, total, 0, 0, 0, 0];
            eq(root, Poseidon2.compress(Poseidon2.load(), Poseidon2.HOLDINGS, x), "root");
            ++checked;
        }
        yes(checked > 3, "too few vectors");
    }

    /// @dev The vectors bind (databases, sum root, cells), with the stored root standing for a sum root.
    function test_holdings_roots_bind_number_root_and_cells_like_the_vectors() external view {
        string memory json = vm.readFile(string.concat(FOLDER, "roots.json"));
        uint256 n = count(json, "holdingsRoot");
        yes(n > 1, "no vectors");
        for (uint256 i = 0; i < n; ++i) {
            uint256 sumRoot = vm.parseJsonUint(json, key(i, "storedRoot"));
            uint256 cells = vm.parseJsonUint(json, key(i, "storedCells"));
            uint256 databases = vm.parseJsonUint(json, key(i, "databases"));
            uint256 want = vm.parseJsonUint(json, key(i, "holdingsRoot"));
            uint256[8] memory x = [1, databases, sumRoot, cells, 0, 0, 0, 0];
            eq(Poseidon2.compress(Poseidon2.load(), Poseidon2.HOLDINGS, x), want, "holdings root");
            if (databases != 1) continue;
            uint256[] memory digests = new uint256[](1);
            uint256[] memory weights = new uint256[](1);
            (digests[0], weights[0]) = (sumRoot, cells);
            (uint256 root,) = hasher.root(digests, weights);
            eq(root, want, "of one database");
        }
    }

    function test_rejects_no_leaves_and_lists_of_two_lengths() external {
        vm.expectRevert(abi.encodeWithSelector(IHoldings.LeafCount.selector, 0, 0));
        hasher.root(new uint256[](0), new uint256[](0));
        vm.expectRevert(abi.encodeWithSelector(IHoldings.LeafCount.selector, 2, 1));
        hasher.root(new uint256[](2), new uint256[](1));
    }

    function testFuzz_order_and_weights_change_the_root(uint256 a, uint256 b) external view {
        uint256[] memory digests = new uint256[](2);
        uint256[] memory weights = new uint256[](2);
        (digests[0], digests[1]) = (a % Poseidon2.R, b % Poseidon2.R);
        (weights[0], weights[1]) = (3, 4);
        vm.assume(digests[0] != digests[1]);
        (uint256 root,) = hasher.root(digests, weights);
        (uint256 swapped,) = hasher.root(_swap(digests), _swap(weights));
        (uint256 reweighted,) = hasher.root(digests, _swap(weights));
        yes(root != swapped && root != reweighted && swapped != reweighted, "collision");
    }

    function _anyZero(uint256[] memory list) private pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == 0) return true;
        }
        return false;
    }

    function _swap(uint256[] memory pair) private pure returns (uint256[] memory out) {
        out = new uint256[](2);
        (out[0], out[1]) = (pair[1], pair[0]);
    }

    function _eight(uint256[] memory list) private pure returns (uint256[8] memory x) {
        for (uint256 i = 0; i < 8; ++i) {
            x[i] = list[i];
        }
    }
}
