// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Groth16Verifier} from "../src/Groth16Verifier.sol";
import {ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {IEpochProofs} from "../src/interfaces/IEpochProofs.sol";
import {IEquivocation} from "../src/interfaces/IEquivocation.sol";
import {BlsVotes} from "../src/libraries/BlsVotes.sol";
import {Toy} from "./Toy.sol";
import {Voters} from "./Voters.sol";
import {World} from "./World.t.sol";

/// @title What each act costs as a transaction: 21,000 gas, calldata, cold storage. Writes `docs/gas.md`.
/// @dev `isolate` runs every call as a transaction of its own. The bindings' anvil test holds the receipts of a real chain to the same
/// limit.
/// forge-config: default.isolate = true
contract GasTest is World {
    /// @dev What a transaction that verifies a proof may cost, calldata included.
    uint256 private constant VERIFY_MAX = 260_000;
    /// @dev What a transaction with a certificate may cost, of 4 members who all signed, and of 16.
    uint256 private constant SUBMIT_4_MAX = 200_000;
    uint256 private constant SUBMIT_16_MAX = 260_000;

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
        _checkpoint(1, SUBMIT_4_MAX);
        _checkpoint(4, SUBMIT_4_MAX);
        _checkpoint(16, SUBMIT_16_MAX);
        _accuse();
        _place();
        vm.writeFile(
            "../docs/gas.md",
            string.concat(
                "# Gas\n\nWritten by `contracts/test/Gas.t.sol`: gas of each act as a transaction of its own, with its 21,000 and its calldata, before\n",
                "refunds. solc 0.8.37, 200 optimizer runs, Prague. A verification may cost at most 260,000;\n",
                "a certificate of 4 members who all signed 200,000, of 16 who all signed 260,000, be it a cluster's first or a handover.\n\n",
                "| act | gas |\n|---|---:|\n",
                _table
            )
        );
    }

    /// @dev A committee of `n` of which all sign: its first certificate, a later one, and the handover.
    function _checkpoint(uint256 n, uint256 most) private {
        (bytes memory members, bytes memory possessions) = Voters.committee(0, n);
        string memory suffix = string.concat(", ", vm.toString(n), " members");
        vm.prank(address(uint160(uint256(keccak256(abi.encode("owner", n))))));
        checkpoints.open(Voters.DB, members, possessions);
        _row(string.concat("Checkpoints.open", suffix));
        string[3] memory names = [", a cluster's first", "", ", a handover"];
        uint64[3] memory heights = [uint64(64 * 70_000), 64 * 80_000 + 1, 64 * 90_000 - 1];
        for (uint256 i = 0; i < 3; ++i) {
            bytes memory header = Voters.header(
                Voters.DB, heights[i] / 64, heights[i], i == 2 ? keccak256("next") : Voters.hash(members)
            );
            ICheckpoints.Certificate memory c = Voters.certify(header, 70_000, 0, uint32((1 << n) - 1));
            checkpoints.submit(address(uint160(uint256(keccak256(abi.encode("owner", n))))), c, members);
            yes(_row(string.concat("Checkpoints.submit", suffix, names[i])) <= most, "submit");
        }
    }

    function _accuse() private {
        bytes memory key = Voters.key(0);
        bytes memory possession = Voters.possession(NODE, 0);
        vm.prank(operator);
        registry.registerVoteKey(NODE, key, possession);
        _row("NodeRegistry.registerVoteKey");
        IEquivocation.Evidence memory e;
        (e.node, e.key, e.db, e.epoch, e.view_) = (NODE, key, Voters.DB, 80_000, 70_000);
        (e.first, e.second) = (_notarize(e, "one"), _notarize(e, "two"));
        bytes32 commitment = equivocation.commitmentOf(e, challenger, "salt");
        equivocation.commitAccusation(commitment);
        _row("Equivocation.commitAccusation");
        vm.roll(block.number + 1);
        vm.prank(challenger);
        equivocation.accuse(e, "salt");
        _row("Equivocation.accuse");
    }

    /// @dev 4 seats and 2 standbys of 12 nodes, and of 600 slots of which every third is free.
    function _place() private {
        for (uint256 i = 0; i < 600; ++i) {
            bytes32 node = keccak256(abi.encode("place", i));
            address by = address(uint160(0x20000 + i));
            vm.prank(by);
            registry.register(node, "/ip4/127.0.0.1/tcp/1");
            fund(node, STAKE_MIN);
            vm.mockCall(address(registry), abi.encodeCall(registry.voteKeyOf, (node)), abi.encode(keccak256("key")));
            vm.prank(by);
            placement.announce(node);
            if (i == 11) _row("Placement.announce");
            if (i == 11) _draw(bytes16(uint128(1)), ", 4 seats and 2 standbys of 12 nodes");
        }
        for (uint256 i = 0; i < 600; i += 3) {
            vm.prank(address(uint160(0x20000 + i)));
            placement.withdraw(keccak256(abi.encode("place", i)));
        }
        _draw(bytes16(uint128(2)), ", 4 seats and 2 standbys of 400 nodes in 600 slots");
    }

    function _draw(bytes16 db, string memory name) private {
        vm.roll(block.number + 1);
        placement.request(db, 4, 2);
        _row(string.concat("Placement.request", name));
        uint256 seedBlock = placement.requestOf(address(this), db).seedBlock;
        vm.roll(seedBlock + 1);
        vm.setBlockhash(seedBlock, keccak256(abi.encode("beacon", db)));
        placement.settle(address(this), db);
        _row(string.concat("Placement.settle", name));
    }

    function _notarize(IEquivocation.Evidence memory e, bytes32 block_)
        private
        view
        returns (IEquivocation.Vote memory)
    {
        bytes memory text = BlsVotes.message(e.db, e.epoch, e.view_, BlsVotes.Kind.Notarize, 69_999, block_);
        bytes memory signature = Voters.sign(Voters.secret(0), BlsVotes.VOTE_SUITE, text);
        return IEquivocation.Vote(BlsVotes.Kind.Notarize, 69_999, block_, signature);
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
