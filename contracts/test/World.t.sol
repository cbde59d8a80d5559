// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Collateral} from "../src/Collateral.sol";
import {Checkpoints} from "../src/Checkpoints.sol";
import {EpochProofs} from "../src/EpochProofs.sol";
import {Equivocation} from "../src/Equivocation.sol";
import {FluToken} from "../src/FluToken.sol";
import {Groth16Verifier} from "../src/Groth16Verifier.sol";
import {Holdings} from "../src/Holdings.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {Placement} from "../src/Placement.sol";
import {IEpochProofs} from "../src/interfaces/IEpochProofs.sol";
import {Base} from "./Base.t.sol";
import {Toy} from "./Toy.sol";

/// @title All contracts, deployed as `bindings` deploys them, with a node, an owner and a challenger.
abstract contract World is Base {
    uint256 internal constant OWNER_KEY = 0x0123;
    uint256 internal constant OPERATOR_KEY = 0x0456;
    bytes32 internal constant NODE = keccak256("node");
    bytes16 internal constant DB = bytes16(uint128(0xdb));
    uint64 internal constant EPOCH_BLOCKS = 50;
    uint64 internal constant MARGIN_BLOCKS = 5;
    uint64 internal constant WINDOW_BLOCKS = 100;
    uint64 internal constant RESPONSE_BLOCKS = 20;
    uint64 internal constant PROOF_BLOCKS = 4;
    uint64 internal constant THAW_BLOCKS = 200;
    uint16 internal constant PROOFS = 2;
    uint96 internal constant STAKE_MIN = 100e18;
    uint64 internal constant SEED_BLOCKS = 3;
    uint96 internal constant BOND_MIN = 0.01 ether;

    FluToken internal flu;
    NodeRegistry internal registry;
    Collateral internal collateral;
    EpochProofs internal proofs;
    Equivocation internal equivocation;
    Checkpoints internal checkpoints;
    Placement internal placement;
    Groth16Verifier internal verifier;
    address internal owner;
    address internal operator;
    address internal challenger = address(0xc4a11e);

    receive() external payable {}

    function deploy() internal {
        vm.chainId(31337);
        vm.roll(1000);
        owner = vm.addr(OWNER_KEY);
        operator = vm.addr(OPERATOR_KEY);
        flu = new FluToken(address(this));
        verifier = new Groth16Verifier(Toy.key(3), true);
        Holdings hasher = new Holdings();
        address judge = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 2);
        address voteJudge = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 3);
        registry = new NodeRegistry(judge, voteJudge);
        collateral = new Collateral(flu, registry, judge, voteJudge, THAW_BLOCKS);
        IEpochProofs.RangeSumCircuit[] memory rangeSums = new IEpochProofs.RangeSumCircuit[](2);
        rangeSums[0] = IEpochProofs.RangeSumCircuit(1, 7, verifier);
        rangeSums[1] = IEpochProofs.RangeSumCircuit(4, 7, verifier);
        proofs = new EpochProofs(registry, collateral, hasher, verifier, rangeSums, params());
        equivocation = new Equivocation(registry, collateral);
        checkpoints = new Checkpoints();
        placement = new Placement(registry, collateral, SEED_BLOCKS, STAKE_MIN);
        vm.deal(challenger, 100 ether);
    }

    function params() internal pure returns (IEpochProofs.Params memory) {
        return IEpochProofs.Params({
            epochBlocks: EPOCH_BLOCKS,
            marginBlocks: MARGIN_BLOCKS,
            windowBlocks: WINDOW_BLOCKS,
            responseBlocks: RESPONSE_BLOCKS,
            proofBlocks: PROOF_BLOCKS,
            proofsPerEpoch: PROOFS,
            shape: IEpochProofs.StorageShape(16, 4, 6, 7),
            stakePerPage: 1e18,
            stakeMin: STAKE_MIN,
            bondMin: BOND_MIN
        });
    }

    /// @dev A node with `amount` of free collateral.
    function join(bytes32 node, uint256 amount) internal {
        vm.prank(operator);
        registry.register(node, "/ip4/127.0.0.1/tcp/1");
        fund(node, amount);
    }

    function fund(bytes32 node, uint256 amount) internal {
        flu.approve(address(collateral), amount);
        collateral.deposit(node, amount);
    }

    function registration(bytes16 db, uint64 height) internal view returns (IEpochProofs.Registration memory) {
        return IEpochProofs.Registration({
            node: NODE,
            operator: operator,
            owner: owner,
            db: db,
            dbRoot: bytes32(uint256(keccak256(abi.encode(db, height))) % Toy.R),
            cells: 640,
            height: height,
            untilEpoch: 1000,
            damageMax: 1000e18
        });
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev Sent by the operator, signed by the owner.
    function register(IEpochProofs.Registration memory r) internal {
        bytes memory signature = sign(OWNER_KEY, proofs.registrationDigest(r));
        vm.prank(operator);
        proofs.registerRoot(r, signature, "");
    }

    /// @dev Into epoch `epoch`, one block after its start, with a beacon.
    function enter(uint64 epoch) internal {
        uint256 start = proofs.epochStart(epoch);
        vm.roll(start + 1);
        vm.setBlockhash(start, keccak256(abi.encode("beacon", epoch)));
    }

    function challengeAs(address by, uint64 epoch, bytes16 db, uint16 index) internal returns (bytes32 id) {
        vm.prank(by);
        proofs.commitChallenge(proofs.commitmentOf(NODE, epoch, db, index, by, "salt"));
        vm.roll(block.number + 1);
        vm.prank(by);
        return proofs.challenge{value: BOND_MIN}(NODE, epoch, db, index, "salt");
    }

    function answer(bytes32 id) internal view returns (bytes memory) {
        IEpochProofs.Challenge memory c = proofs.challengeOf(id);
        uint256[] memory inputs = new uint256[](3);
        (inputs[0], inputs[1], inputs[2]) = (uint256(c.root), c.cells, uint256(c.seed));
        return Toy.prove(inputs, uint256(id));
    }

    function total(bytes32 node) internal view returns (uint256) {
        Collateral.Balance memory b = collateral.balanceOf(node);
        return uint256(b.free) + b.locked + b.thawing;
    }
}
