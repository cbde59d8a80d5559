// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

import {ICollateral} from "./ICollateral.sol";
import {IGroth16Verifier} from "./IGroth16Verifier.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

/// @title What nodes owe in each epoch, and what happens to one that cannot produce it.
/// @notice An epoch's debt is fixed before its beacon is known: the databases registered at the node, in id order, each at the last
/// root registered before the epoch's start minus a margin. A challenge names (node, epoch, database or all of them); anyone may
/// answer with a Groth16 storage proof until the deadline; only a deadline that passed slashes.
interface IEpochProofs {
    /// @notice All numbers of the protocol, fixed at construction.
    struct Params {
        /// @dev Blocks of an epoch. Epoch 0 starts at the block of construction.
        uint64 epochBlocks;
        /// @dev A registration counts from the first epoch that starts more than this many blocks later.
        uint64 marginBlocks;
        /// @dev An epoch may be challenged until this many blocks after its start.
        uint64 windowBlocks;
        /// @dev Blocks from a challenge to its deadline.
        uint64 responseBlocks;
        /// @dev Blocks one proof may take. A node is asked for no more than it can prove one at a time until their deadlines.
        uint64 proofBlocks;
        /// @dev Proofs a node owes each epoch for its holdings: proof indices are below it. A named database has index 0 only.
        uint16 proofsPerEpoch;
        /// @dev The storage circuit's shape; its verifier is pinned for circuit id `storage/v2/k..-h..-d..-t..`.
        StorageShape shape;
        /// @dev Collateral for each started page of 64 cells, in 1e-18 FLU.
        uint96 stakePerPage;
        /// @dev Least collateral for a database.
        uint96 stakeMin;
        /// @dev Least bond of a challenge, in wei.
        uint96 bondMin;
    }

    /// @notice As `types::shape::StorageShape`.
    struct StorageShape {
        uint16 samples;
        uint16 holdingsLevels;
        uint16 storedLevels;
        uint16 treeLevels;
    }

    /// @notice As `types::shape::RangeSumShape`, with its verifier.
    struct RangeSumCircuit {
        uint16 segments;
        uint16 treeLevels;
        IGroth16Verifier verifier;
    }

    /// @notice What an owner and an operator agree on and both sign (EIP-712), or send.
    struct Registration {
        bytes32 node;
        address operator;
        address owner;
        bytes16 db;
        /// @dev The database root at `height`, a scalar below r.
        bytes32 dbRoot;
        /// @dev Stored cells under it, at least 1.
        uint64 cells;
        /// @dev Must grow with every registration of the database at the node, so a signature is used once.
        uint64 height;
        /// @dev Last epoch in which the database is owed.
        uint64 untilEpoch;
        /// @dev The most the owner gets when the node is slashed for this database, in 1e-18 FLU.
        uint96 damageMax;
    }

    /// @notice A root that a node owes from an epoch on.
    struct Version {
        bytes32 root;
        uint64 fromEpoch;
        uint64 untilEpoch;
        uint64 height;
        uint64 cells;
        address owner;
        uint96 damageMax;
    }

    /// @notice One database as owed in an epoch.
    struct Owed {
        bytes16 db;
        bytes32 root;
        uint64 cells;
        address owner;
        uint96 damageMax;
    }

    /// @notice None -> Open -> Answered or Expired -> Closed (bond paid).
    enum ChallengeStatus {
        None,
        Open,
        Answered,
        Expired,
        Closed
    }

    struct Challenge {
        /// @dev First public input: the holdings root, or the root of the one database named.
        bytes32 root;
        /// @dev Third public input.
        bytes32 seed;
        /// @dev Second public input.
        uint64 cells;
        /// @dev Last block in which it may be answered.
        uint64 deadline;
        uint64 epoch;
        uint16 proofIndex;
        ChallengeStatus status;
        bytes32 node;
        /// @dev Who gets the bond once it can be claimed: the challenger, or after an answer the node's operator.
        address challenger;
        uint96 bond;
        /// @dev Zero for the holdings.
        bytes16 db;
        /// @dev What expiry slashes, at most.
        uint128 stake;
    }

    event CircuitPinned(bytes32 indexed circuit, string name, IGroth16Verifier verifier, bytes32 vkHash);
    event RootRegistered(
        bytes32 indexed node,
        bytes16 indexed db,
        address indexed owner,
        bytes32 root,
        uint64 cells,
        uint64 height,
        uint64 fromEpoch,
        uint64 untilEpoch
    );
    event Released(bytes32 indexed node, bytes16 indexed db, uint64 untilEpoch);
    event DatabaseClosed(bytes32 indexed node, bytes16 indexed db);
    event BeaconRecorded(uint64 indexed epoch, bytes32 beacon);
    event Committed(bytes32 indexed commitment);
    event Challenged(
        bytes32 indexed id,
        bytes32 indexed node,
        uint64 indexed epoch,
        bytes16 db,
        uint16 proofIndex,
        address challenger,
        uint64 deadline,
        bytes32 root,
        uint64 cells,
        bytes32 seed
    );
    event Answered(bytes32 indexed id, bytes32 indexed node, uint64 indexed epoch, address responder);
    event Expired(bytes32 indexed id, bytes32 indexed node, uint64 indexed epoch, bytes16 db, uint256 slashed);
    event BondPaid(bytes32 indexed id, address indexed to, uint256 amount);

    error BadParams(string why);
    error WrongJudge(address got);
    error CircuitUnknown(bytes32 circuit);
    error CircuitInputs(bytes32 circuit, uint256 inputs);
    error WrongOperator(bytes32 node, address operator, address got);
    error NodeNotActive(bytes32 node, INodeRegistry.Status status);
    error NotSigned(address by);
    error NotOwner(address owner, address got);
    error DatabaseZero();
    error DatabaseUnknown(bytes32 node, bytes16 db);
    error TooManyDatabases(bytes32 node, uint256 most);
    error RootNotCanonical(bytes32 root);
    error CellsOutOfRange(uint64 cells, uint64 most);
    error HeightNotAbove(uint64 got, uint64 last);
    error EpochOutOfRange(uint64 got, uint64 least);
    error StillOwed(bytes32 node, bytes16 db, uint256 untilBlock);
    error BeaconNotYet(uint64 epoch, uint256 block_);
    error BeaconLost(uint64 epoch, uint256 block_);
    error CommitmentExists(bytes32 commitment);
    error CommitmentMissing(bytes32 commitment);
    error WindowClosed(uint64 epoch, uint256 lastBlock);
    error ProofIndexOutOfRange(uint16 got, uint16 proofsPerEpoch);
    error QueueFull(bytes32 node, uint64 untilBlock);
    error NothingOwed(bytes32 node, uint64 epoch, bytes16 db);
    error BondTooSmall(uint256 got, uint256 want);
    error ChallengeExists(bytes32 id);
    error ChallengeNotOpen(bytes32 id, ChallengeStatus status);
    error DeadlinePassed(bytes32 id, uint64 deadline);
    error DeadlineNotPassed(bytes32 id, uint64 deadline);
    error ProofMismatch(bytes32 id);
    error BondNotYours(bytes32 id, address to);
    error BondNotClaimable(bytes32 id, ChallengeStatus status);
    error PaymentFailed(address to, uint256 amount);

    /// @notice Registers a database's root at a node, owed from `effectiveEpoch()` to `untilEpoch`, and locks the node's collateral
    /// for it. Owner and operator must both agree: each by sending this or by a signature over `registrationDigest`.
    /// @param ownerSignature 65 bytes r|s|v; empty where the owner sends.
    /// @param operatorSignature 65 bytes r|s|v; empty where the operator sends.
    function registerRoot(
        Registration calldata registration,
        bytes calldata ownerSignature,
        bytes calldata operatorSignature
    ) external;

    /// @notice Ends a database's debt before `effectiveEpoch()`; by its owner, who sends or signed `releaseDigest`. The node's word
    /// alone ends nothing.
    function release(bytes32 node, bytes16 db, bytes calldata ownerSignature) external;

    /// @notice Forgets a database that is owed no more and unlocks its collateral; by anyone, once the last challenge of it could be
    /// expired for `responseBlocks`.
    function close(bytes32 node, bytes16 db) external;

    /// @notice Locks free collateral up to what the node's databases need, and makes a suspended node active; by its operator.
    function restake(bytes32 node) external;

    /// @notice Keeps an epoch's beacon while the chain still knows it; by anyone.
    function recordBeacon(uint64 epoch) external returns (bytes32);

    /// @notice Commits to a challenge before it is shown, so that a copy of it comes too late: `commitmentOf` names what is hashed.
    function commitChallenge(bytes32 commitment) external;

    /// @notice Opens a challenge committed to in an earlier block, with a bond that covers the response's gas. Reverts with `QueueFull`
    /// where the node, at `proofBlocks` a proof, could not answer it in time after those opened before.
    /// @param db Zero for all of the node's holdings.
    /// @return id `challengeId(node, epoch, db, proofIndex)`; there is one challenge per id.
    function challenge(bytes32 node, uint64 epoch, bytes16 db, uint16 proofIndex, bytes32 salt)
        external
        payable
        returns (bytes32 id);

    /// @notice Answers a challenge; by anyone, until its deadline. A proof that does not match, or that the precompiles refuse,
    /// reverts and changes nothing. The bond goes to the node's operator whoever answers, so there is no gain in copying an answer.
    /// @param proof A|B|C, 512 bytes.
    function respond(bytes32 id, bytes calldata proof) external;

    /// @notice After the deadline of an unanswered challenge: slashes the stake, suspends the node, and frees the challenger's bond;
    /// by anyone. Each database's stake is slashed once an epoch, whether by its own challenge or as part of the holdings.
    function expire(bytes32 id) external;

    /// @notice Pays the bond of an answered challenge to the node's operator, of an expired one to the challenger; by him.
    function claimBond(bytes32 id) external;

    /// @notice Whether a `range_sum` proof holds. See `IGroth16Verifier.verify` for what reverts.
    /// @param circuit Keccak-256 of the circuit id's text, as `range_sum/v1/s1-t7`.
    /// @param inputs Database root, query digest, masked sum.
    function verifyRangeSum(bytes32 circuit, uint256[] calldata inputs, bytes calldata proof)
        external
        view
        returns (bool);

    /// @notice The verifier pinned for a circuit, by Keccak-256 of its id's text; storage and range sums alike.
    function verifierOf(bytes32 circuit) external view returns (IGroth16Verifier);

    /// @notice The storage circuit.
    function storageCircuit() external view returns (bytes32);

    /// @notice The pinned key's hash of a circuit.
    function vkHash(bytes32 circuit) external view returns (bytes32);

    /// @notice The epoch of this block.
    function currentEpoch() external view returns (uint64);

    /// @notice First block of an epoch; its hash is the epoch's beacon, known from the next block on.
    function epochStart(uint64 epoch) external view returns (uint256);

    /// @notice The epoch from which a registration of this block counts.
    function effectiveEpoch() external view returns (uint64);

    /// @notice An epoch's beacon; reverts before it is known and after it was forgotten unrecorded.
    function beacon(uint64 epoch) external view returns (bytes32);

    /// @notice The third public input of a node's storage proof.
    function seed(bytes32 node, uint64 epoch, uint16 proofIndex) external view returns (bytes32);

    /// @notice `keccak256(abi.encode(..)) mod 2^253`, each argument one word; `types::statement::StorageSeed`.
    function seedOf(
        uint256 chainId,
        address contract_,
        bytes32 node,
        uint64 epoch,
        bytes32 beacon_,
        uint64 shape,
        uint32 proofIndex
    ) external pure returns (bytes32);

    /// @notice Samples, holdings, stored and tree levels, 16 bits each from the top.
    function shapeWord() external view returns (uint64);

    /// @notice What a node owes in an epoch, in id order.
    function owed(bytes32 node, uint64 epoch) external view returns (Owed[] memory);

    /// @notice First two public inputs of a holdings proof: the holdings root and the cells under it. About 50k gas a tree node.
    function holdings(bytes32 node, uint64 epoch) external view returns (bytes32 root, uint64 cells);

    /// @notice Number of databases registered and not closed.
    function databaseCount(bytes32 node) external view returns (uint256);

    /// @notice The last version registered of a database at a node.
    function latest(bytes32 node, bytes16 db) external view returns (Version memory);

    /// @notice Collateral that `cells` cells need.
    function stakeFor(uint64 cells) external view returns (uint256);

    /// @notice Collateral that the node's databases need together.
    function stakeRequired(bytes32 node) external view returns (uint256);

    /// @notice The bond a challenge needs in this block, in wei.
    function bondRequired() external view returns (uint256);

    /// @notice A challenge's id.
    function challengeId(bytes32 node, uint64 epoch, bytes16 db, uint16 proofIndex) external pure returns (bytes32);

    /// @notice What a challenger commits to.
    function commitmentOf(bytes32 node, uint64 epoch, bytes16 db, uint16 proofIndex, address challenger, bytes32 salt)
        external
        pure
        returns (bytes32);

    /// @notice A challenge.
    function challengeOf(bytes32 id) external view returns (Challenge memory);

    /// @notice EIP-712 digest that owner and operator sign.
    function registrationDigest(Registration calldata registration) external view returns (bytes32);

    /// @notice EIP-712 digest that the owner signs to release a database registered last at `height`.
    function releaseDigest(bytes32 node, bytes16 db, uint64 height) external view returns (bytes32);

    /// @notice The node registry.
    function registry() external view returns (INodeRegistry);

    /// @notice The collateral.
    function collateral() external view returns (ICollateral);

    /// @notice The protocol's numbers.
    function params() external view returns (Params memory);
}
