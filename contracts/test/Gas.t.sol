// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Groth16Verifier} from "../src/Groth16Verifier.sol";
import {IEpochProofs} from "../src/interfaces/IEpochProofs.sol";
import {Toy} from "./Toy.sol";
import {World} from "./World.t.sol";

/// @title What each act costs as a transaction: 21,000 gas, calldata, cold storage. Writes `docs/gas.md`.
/// @dev `isolate` runs every call as a transaction of its own. The bindings' anvil test holds the receipts of a real chain to the same
/// limit.
/// forge-config: default.isolate = true
contract GasTest is World {
    /// @dev What a transaction that verifies a proof may cost, calldata included.
    uint256 private constant VERIFY_MAX = 260_000;

    string private _table;
    uint64 private _epoch;

    function setUp() external {
        deploy();
        join(NODE, 1_000_000e18);
    }

    function test_writes_the_gas_table_and_holds_verification_to_its_limit() external {
        uint256[] memory inputs = new uint256[](3);
        (inputs[0], inputs[1], inputs[2]) = (uint256(keccak256("root")) % Toy.R, 640, uint256(keccak256("seed")) >> 3);
        bytes memory proof = Toy.prove(inputs, 1);
        for (uint256 n = 1; n <= 6; ++n) {
            Groth16Verifier v = new Groth16Verifier(Toy.key(n), true);
            uint256[] memory some = new uint256[](n);
            for (uint256 i = 0; i < n; ++i) {
                some[i] = uint256(keccak256(abi.encode(i))) % Toy.R;
            }
            bytes memory one = Toy.prove(some, n);
            _send(address(v), abi.encodeCall(v.verify, (some, one)));
            uint256 gas = _row(string.concat("Groth16Verifier.verify, ", vm.toString(n), " inputs"));
            if (n == 3) yes(gas <= VERIFY_MAX, "verify");
        }
        _send(address(proofs), abi.encodeCall(proofs.verifyRangeSum, (keccak256("range_sum/v1/s1-t7"), inputs, proof)));
        yes(_row("EpochProofs.verifyRangeSum") <= VERIFY_MAX, "verifyRangeSum");

        IEpochProofs.Registration memory r = registration(DB, 1);
        bytes memory signature = sign(OWNER_KEY, proofs.registrationDigest(r));
        vm.prank(operator);
        proofs.registerRoot(r, signature, "");
        _row("EpochProofs.registerRoot, a node's first");
        vm.roll(block.number + EPOCH_BLOCKS);
        r = registration(DB, 2);
        signature = sign(OWNER_KEY, proofs.registrationDigest(r));
        vm.prank(operator);
        proofs.registerRoot(r, signature, "");
        _row("EpochProofs.registerRoot, a new height");

        enter(proofs.effectiveEpoch());
        _epoch = proofs.currentEpoch();
        bytes32 id = _challenge(DB, "EpochProofs.challenge, one database");
        proof = answer(id);
        proofs.respond(id, proof);
        yes(_row("EpochProofs.respond") <= VERIFY_MAX, "respond");
        vm.prank(operator);
        proofs.claimBond(id);
        _row("EpochProofs.claimBond");

        uint256[3] memory sizes = [uint256(4), 16, 64];
        uint128 next = 1000;
        for (uint256 s = 0; s < 3; ++s) {
            while (proofs.databaseCount(NODE) < sizes[s]) {
                register(registration(bytes16(next++), 1));
            }
            enter(proofs.effectiveEpoch());
            _epoch = proofs.currentEpoch();
            string memory suffix = string.concat(", holdings of ", vm.toString(sizes[s]));
            bytes32 all = _challenge(0, string.concat("EpochProofs.challenge", suffix));
            vm.roll(block.number + RESPONSE_BLOCKS + 1);
            proofs.expire(all);
            _row(string.concat("EpochProofs.expire", suffix));
            vm.prank(operator);
            proofs.restake(NODE);
        }
        vm.writeFile(
            "../docs/gas.md",
            string.concat(
                "# Gas\n\nWritten by `contracts/test/Gas.t.sol`: gas of each act as a transaction of its own, with its 21,000 and its calldata, before\n",
                "refunds. solc 0.8.37, 200 optimizer runs, Prague. A verification may cost at most 260,000.\n\n",
                "| act | gas |\n|---|---:|\n",
                _table
            )
        );
    }

    function _challenge(bytes16 db, string memory name) private returns (bytes32 id) {
        vm.prank(challenger);
        proofs.commitChallenge(proofs.commitmentOf(NODE, _epoch, db, 0, challenger, "salt"));
        if (db != 0) _row("EpochProofs.commitChallenge");
        vm.roll(block.number + 1);
        vm.prank(challenger);
        id = proofs.challenge{value: BOND_MIN}(NODE, _epoch, db, 0, "salt");
        _row(name);
    }

    /// @dev A view as a transaction: isolation does not reach static calls.
    function _send(address to, bytes memory data) private {
        (bool done, bytes memory out) = to.call(data);
        yes(done && abi.decode(out, (bool)), "verifies");
    }

    /// @dev The last call's gas, as a line of the table.
    function _row(string memory name) private returns (uint256 gas) {
        gas = vm.lastCallGas().gasTotalUsed;
        _table = string.concat(_table, "| ", name, " | ", vm.toString(gas), " |\n");
    }
}
