// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ICollateral} from "./interfaces/ICollateral.sol";
import {IEpochProofs} from "./interfaces/IEpochProofs.sol";
import {IGroth16Verifier} from "./interfaces/IGroth16Verifier.sol";
import {IHoldings} from "./interfaces/IHoldings.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Beacons} from "./libraries/Beacons.sol";

/// @title Epoch proofs: registered roots, challenges, answers, expiry.
/// @notice Rule: nothing slashes because `verify` returned false. A wrong proof reverts; only an unanswered deadline slashes.
/// @dev No owner, no upgrade. Assumes the EIP-2537 precompiles (else nobody can answer, and nobody should deploy here: the
/// verifiers' constructors fail), and block hashes that a proposer can influence only by withholding a block.
contract EpochProofs is IEpochProofs, EIP712 {
    bytes32 private constant REGISTRATION_TYPEHASH = keccak256(
        "Registration(bytes32 node,address operator,address owner,bytes16 db,bytes32 dbRoot,uint64 cells,uint64 height,uint64 untilEpoch,uint96 damageMax)"
    );
    bytes32 private constant RELEASE_TYPEHASH = keccak256("Release(bytes32 node,bytes16 db,uint64 height)");
    /// @notice Most databases of a node, whatever the shape: bounds the gas of `challenge` and `expire`.
    uint256 public constant DATABASES_MAX = 64;
    /// @notice Cells of a database are below this, so 64 of them stay below 2^40.
    uint64 public constant CELLS_LIMIT = 1 << 34;
    /// @notice Cells of a page.
    uint64 public constant PAGE_CELLS = 64;
    /// @notice Gas the bond pays for: a `respond` transaction, rounded up.
    uint256 public constant RESPONSE_GAS = 300_000;
    uint256 private constant R = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;

    /// @inheritdoc IEpochProofs
    INodeRegistry public immutable registry;
    /// @inheritdoc IEpochProofs
    ICollateral public immutable collateral;
    /// @inheritdoc IEpochProofs
    bytes32 public immutable storageCircuit;
    /// @inheritdoc IEpochProofs
    uint64 public immutable shapeWord;
    /// @notice Block of construction, the first of epoch 0.
    uint256 public immutable startBlock;
    /// @notice Most databases of a node under this shape.
    uint256 public immutable databasesMax;
    /// @notice Most cells of a database under this shape.
    uint64 public immutable cellsMax;
    /// @notice Computes holdings roots.
    IHoldings public immutable holdingsHasher;
    IGroth16Verifier private immutable _storageVerifier;
    uint64 private immutable _epochBlocks;
    uint64 private immutable _marginBlocks;
    uint64 private immutable _windowBlocks;
    uint64 private immutable _responseBlocks;
    uint64 private immutable _proofBlocks;
    uint16 private immutable _proofsPerEpoch;
    uint96 private immutable _stakePerPage;
    uint96 private immutable _stakeMin;
    uint96 private immutable _bondMin;

    mapping(bytes32 circuit => IGroth16Verifier) private _verifiers;
    mapping(uint64 epoch => bytes32) private _beacons;
    /// @dev Databases registered and not closed, in no order.
    mapping(bytes32 node => bytes16[]) private _databases;
    /// @dev By `fromEpoch`, strictly increasing; never shortened, so a debt once fixed stays provable.
    mapping(bytes32 node => mapping(bytes16 db => Version[])) private _versions;
    /// @dev The largest stake of any version since the database was last opened; zero where it is closed.
    mapping(bytes32 node => mapping(bytes16 db => uint256)) private _stakes;
    /// @inheritdoc IEpochProofs
    mapping(bytes32 node => uint256) public stakeRequired;
    mapping(bytes32 commitment => uint256 blockNumber) private _commitments;
    mapping(bytes32 id => Challenge) private _challenges;
    /// @dev When the proofs asked of a node are done, at `_proofBlocks` each and one after the other; past where it has none to make.
    mapping(bytes32 node => uint64 blockNumber) private _busyUntil;
    /// @dev Slashed already; of database zero: for the holdings.
    mapping(bytes32 node => mapping(uint64 epoch => mapping(bytes16 db => bool))) private _slashed;
    /// @dev The stakes slashed for single databases.
    mapping(bytes32 node => mapping(uint64 epoch => uint256)) private _slashedAlone;

    /// @param registry_ Must name this contract as its judge, and so must `collateral_`: their addresses are made first.
    /// @param hasher Pure code: `Holdings`.
    /// @param storageVerifier Verifier of the storage circuit of `p.shape`.
    /// @param rangeSums Verifiers of the `range_sum` circuits.
    constructor(
        INodeRegistry registry_,
        ICollateral collateral_,
        IHoldings hasher,
        IGroth16Verifier storageVerifier,
        RangeSumCircuit[] memory rangeSums,
        Params memory p
    ) EIP712("Fluence EpochProofs", "1") {
        if (registry_.judge() != address(this)) revert WrongJudge(registry_.judge());
        if (collateral_.judge() != address(this)) revert WrongJudge(collateral_.judge());
        if (p.epochBlocks == 0 || p.responseBlocks == 0 || p.proofBlocks == 0) revert BadParams("zero blocks");
        if (p.proofBlocks > p.responseBlocks) revert BadParams("no time to prove");
        if (p.windowBlocks < p.epochBlocks) revert BadParams("window shorter than an epoch");
        if (p.proofsPerEpoch == 0) revert BadParams("no proofs");
        if (p.stakeMin == 0) revert BadParams("no stake");
        // Withdrawing takes longer than the last challenge of a debt can stay open, and leaves as long again to expire it.
        if (collateral_.thawBlocks() < p.windowBlocks + 2 * p.responseBlocks) revert BadParams("thaws too fast");
        StorageShape memory s = p.shape;
        if (s.samples == 0 || s.holdingsLevels > 6 || s.storedLevels > 8 || s.treeLevels > 7) {
            revert BadParams("shape");
        }
        registry = registry_;
        collateral = collateral_;
        holdingsHasher = hasher;
        startBlock = block.number;
        shapeWord =
            uint64(s.samples) << 48 | uint64(s.holdingsLevels) << 32 | uint64(s.storedLevels) << 16 | s.treeLevels;
        databasesMax = s.holdingsLevels >= 3 ? DATABASES_MAX : 1 << (2 * s.holdingsLevels);
        uint256 capacity = 1 << (2 * uint256(s.storedLevels) + 3 * uint256(s.treeLevels));
        cellsMax = capacity < CELLS_LIMIT ? uint64(capacity) : CELLS_LIMIT - 1;
        _epochBlocks = p.epochBlocks;
        _marginBlocks = p.marginBlocks;
        _windowBlocks = p.windowBlocks;
        _responseBlocks = p.responseBlocks;
        _proofBlocks = p.proofBlocks;
        _proofsPerEpoch = p.proofsPerEpoch;
        _stakePerPage = p.stakePerPage;
        _stakeMin = p.stakeMin;
        _bondMin = p.bondMin;
        _storageVerifier = storageVerifier;
        storageCircuit = _pin(_storageName(s), storageVerifier);
        for (uint256 i = 0; i < rangeSums.length; ++i) {
            RangeSumCircuit memory c = rangeSums[i];
            _pin(
                string.concat("range_sum/v1/s", Strings.toString(c.segments), "-t", Strings.toString(c.treeLevels)),
                c.verifier
            );
        }
    }

    // ---- acts of owners and operators -----------------------------------------------------------------------------------------

    /// @inheritdoc IEpochProofs
    function registerRoot(
        Registration calldata registration,
        bytes calldata ownerSignature,
        bytes calldata operatorSignature
    ) external {
        _checkRegistration(registration);
        bytes32 digest = registrationDigest(registration);
        _checkWord(registration.owner, digest, ownerSignature);
        _checkWord(registration.operator, digest, operatorSignature);
        uint64 fromEpoch = effectiveEpoch();
        if (registration.untilEpoch < fromEpoch) revert EpochOutOfRange(registration.untilEpoch, fromEpoch);
        _addVersion(registration, fromEpoch);
        _emitRegistered(registration, fromEpoch);
        _raiseStake(registration.node, registration.db, stakeFor(registration.cells));
    }

    /// @inheritdoc IEpochProofs
    function release(bytes32 node, bytes16 db, bytes calldata ownerSignature) external {
        Version storage last = _last(node, db);
        _checkWord(last.owner, releaseDigest(node, db, last.height), ownerSignature);
        uint64 untilEpoch = effectiveEpoch() - 1; // at least 1: effectiveEpoch is never 0
        if (untilEpoch < last.untilEpoch) last.untilEpoch = untilEpoch;
        emit Released(node, db, last.untilEpoch);
    }

    /// @inheritdoc IEpochProofs
    function close(bytes32 node, bytes16 db) external {
        uint256 stake = _stakes[node][db];
        if (stake == 0) revert DatabaseUnknown(node, db);
        // The last epoch in which any version was owed, then its window, the response to a challenge at its end, and as long again
        // in which that challenge can be expired.
        uint256 untilBlock = epochStart(_last(node, db).untilEpoch) + _windowBlocks + 2 * _responseBlocks;
        if (block.number <= untilBlock) revert StillOwed(node, db, untilBlock);
        bytes16[] storage databases = _databases[node];
        uint256 last = databases.length - 1;
        for (uint256 i = 0; i <= last; ++i) {
            if (databases[i] == db) {
                databases[i] = databases[last];
                databases.pop();
                break;
            }
        }
        delete _stakes[node][db];
        uint256 required = stakeRequired[node] - stake;
        stakeRequired[node] = required;
        emit DatabaseClosed(node, db);
        uint256 locked = collateral.balanceOf(node).locked; // less than required after a slash
        if (locked > required) collateral.unlock(node, locked - required);
    }

    /// @inheritdoc IEpochProofs
    function restake(bytes32 node) external {
        address operator = registry.operatorOf(node);
        if (msg.sender != operator) revert WrongOperator(node, operator, msg.sender);
        uint256 locked = collateral.balanceOf(node).locked;
        uint256 required = stakeRequired[node];
        if (locked < required) collateral.lock(node, required - locked);
        registry.resume(node);
    }

    // ---- acts of challengers and responders -----------------------------------------------------------------------------------

    /// @inheritdoc IEpochProofs
    function recordBeacon(uint64 epoch) public returns (bytes32 value) {
        value = _beacons[epoch];
        if (value != 0) return value;
        value = beacon(epoch);
        _beacons[epoch] = value;
        emit BeaconRecorded(epoch, value);
    }

    /// @inheritdoc IEpochProofs
    function commitChallenge(bytes32 commitment) external {
        if (_commitments[commitment] != 0) revert CommitmentExists(commitment);
        _commitments[commitment] = block.number;
        emit Committed(commitment);
    }

    /// @inheritdoc IEpochProofs
    function challenge(bytes32 node, uint64 epoch, bytes16 db, uint16 proofIndex, bytes32 salt)
        external
        payable
        returns (bytes32 id)
    {
        _useCommitment(commitmentOf(node, epoch, db, proofIndex, msg.sender, salt));
        uint16 proofs = db == bytes16(0) ? _proofsPerEpoch : 1;
        if (proofIndex >= proofs) revert ProofIndexOutOfRange(proofIndex, proofs);
        uint256 lastBlock = epochStart(epoch) + _windowBlocks;
        if (block.number > lastBlock) revert WindowClosed(epoch, lastBlock);
        if (msg.value < bondRequired()) revert BondTooSmall(msg.value, bondRequired());
        id = challengeId(node, epoch, db, proofIndex);
        Challenge storage c = _challenges[id];
        if (c.status != ChallengeStatus.None) revert ChallengeExists(id);

        bytes32 beacon_ = recordBeacon(epoch);
        (c.root, c.cells, c.stake) = _debt(node, epoch, db);
        c.seed = seedOf(block.chainid, address(this), node, epoch, beacon_, shapeWord, proofIndex);
        c.deadline = _enqueue(node);
        c.epoch = epoch;
        c.proofIndex = proofIndex;
        c.status = ChallengeStatus.Open;
        c.node = node;
        c.challenger = msg.sender;
        c.bond = uint96(msg.value); // there are less than 2^96 wei
        c.db = db;
        emit Challenged(id, node, epoch, db, proofIndex, msg.sender, c.deadline, c.root, c.cells, c.seed);
    }

    /// @inheritdoc IEpochProofs
    function respond(bytes32 id, bytes calldata proof) external {
        Challenge storage c = _challenges[id];
        if (c.status != ChallengeStatus.Open) revert ChallengeNotOpen(id, c.status);
        if (block.number > c.deadline) revert DeadlinePassed(id, c.deadline);
        uint256[] memory inputs = new uint256[](3);
        inputs[0] = uint256(c.root);
        inputs[1] = c.cells;
        inputs[2] = uint256(c.seed);
        // Reverts on a precompile failure, which says nothing of the proof; the challenge stays open either way.
        if (!_storageVerifier.verify(inputs, proof)) revert ProofMismatch(id);
        c.status = ChallengeStatus.Answered;
        emit Answered(id, c.node, c.epoch, msg.sender);
    }

    /// @inheritdoc IEpochProofs
    function expire(bytes32 id) external {
        Challenge storage c = _challenges[id];
        if (c.status != ChallengeStatus.Open) revert ChallengeNotOpen(id, c.status);
        if (block.number <= c.deadline) revert DeadlineNotPassed(id, c.deadline);
        c.status = ChallengeStatus.Expired;
        bytes32 node = c.node;
        uint256 stake = _forfeit(c);
        uint256 taken = 0;
        if (stake != 0) {
            registry.suspend(node);
            (address[] memory owners, uint256[] memory claims) = _harmed(node, c.epoch, c.db, stake);
            taken = collateral.slash(node, stake, c.challenger, owners, claims);
        }
        emit Expired(id, node, c.epoch, c.db, taken);
    }

    /// @inheritdoc IEpochProofs
    function claimBond(bytes32 id) external {
        Challenge storage c = _challenges[id];
        ChallengeStatus status = c.status;
        address to;
        if (status == ChallengeStatus.Answered) to = registry.operatorOf(c.node);
        else if (status == ChallengeStatus.Expired) to = c.challenger;
        else revert BondNotClaimable(id, status);
        if (msg.sender != to) revert BondNotYours(id, to);
        c.status = ChallengeStatus.Closed;
        uint256 amount = c.bond;
        emit BondPaid(id, to, amount);
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert PaymentFailed(to, amount);
    }

    // ---- views ----------------------------------------------------------------------------------------------------------------

    /// @inheritdoc IEpochProofs
    function verifyRangeSum(bytes32 circuit, uint256[] calldata inputs, bytes calldata proof)
        external
        view
        returns (bool)
    {
        if (circuit == storageCircuit) revert CircuitUnknown(circuit);
        return verifierOf(circuit).verify(inputs, proof);
    }

    /// @inheritdoc IEpochProofs
    function verifierOf(bytes32 circuit) public view returns (IGroth16Verifier verifier) {
        verifier = _verifiers[circuit];
        if (address(verifier) == address(0)) revert CircuitUnknown(circuit);
    }

    /// @inheritdoc IEpochProofs
    function vkHash(bytes32 circuit) external view returns (bytes32) {
        return verifierOf(circuit).vkHash();
    }

    /// @inheritdoc IEpochProofs
    function currentEpoch() public view returns (uint64) {
        return uint64((block.number - startBlock) / _epochBlocks); // rounds down
    }

    /// @inheritdoc IEpochProofs
    function epochStart(uint64 epoch) public view returns (uint256) {
        return startBlock + uint256(epoch) * _epochBlocks;
    }

    /// @inheritdoc IEpochProofs
    function effectiveEpoch() public view returns (uint64) {
        return uint64((block.number + _marginBlocks - startBlock) / _epochBlocks) + 1; // starts after block + margin
    }

    /// @inheritdoc IEpochProofs
    function beacon(uint64 epoch) public view returns (bytes32 value) {
        value = _beacons[epoch];
        if (value != 0) return value;
        uint256 number = epochStart(epoch);
        if (block.number <= number) revert BeaconNotYet(epoch, number);
        value = Beacons.hashOf(number);
        if (value == 0) revert BeaconLost(epoch, number);
    }

    /// @inheritdoc IEpochProofs
    function seed(bytes32 node, uint64 epoch, uint16 proofIndex) external view returns (bytes32) {
        return seedOf(block.chainid, address(this), node, epoch, beacon(epoch), shapeWord, proofIndex);
    }

    /// @inheritdoc IEpochProofs
    function seedOf(
        uint256 chainId,
        address contract_,
        bytes32 node,
        uint64 epoch,
        bytes32 beacon_,
        uint64 shape,
        uint32 proofIndex
    ) public pure returns (bytes32) {
        bytes32 digest = keccak256(abi.encode(chainId, contract_, node, epoch, beacon_, shape, proofIndex));
        return digest & bytes32(uint256((1 << 253) - 1));
    }

    /// @inheritdoc IEpochProofs
    function owed(bytes32 node, uint64 epoch) public view returns (Owed[] memory list) {
        bytes16[] memory databases = _databases[node];
        list = new Owed[](databases.length);
        uint256 count = 0;
        for (uint256 i = 0; i < databases.length; ++i) {
            (bool found, Owed memory item) = _owedAt(node, databases[i], epoch);
            if (!found) continue;
            // Insertion into id order: the list is short, and no order is stored that a removal could break.
            uint256 slot = count++;
            while (slot > 0 && list[slot - 1].db > item.db) {
                list[slot] = list[slot - 1];
                --slot;
            }
            list[slot] = item;
        }
        assembly ("memory-safe") {
            mstore(list, count)
        }
    }

    /// @inheritdoc IEpochProofs
    function holdings(bytes32 node, uint64 epoch) public view returns (bytes32 root, uint64 cells) {
        return _holdings(node, epoch, owed(node, epoch));
    }

    /// @inheritdoc IEpochProofs
    function databaseCount(bytes32 node) external view returns (uint256) {
        return _databases[node].length;
    }

    /// @inheritdoc IEpochProofs
    function latest(bytes32 node, bytes16 db) external view returns (Version memory) {
        return _last(node, db);
    }

    /// @inheritdoc IEpochProofs
    function stakeFor(uint64 cells) public view returns (uint256 stake) {
        uint256 pages = (uint256(cells) + PAGE_CELLS - 1) / PAGE_CELLS; // rounds up
        stake = pages * _stakePerPage;
        if (stake < _stakeMin) stake = _stakeMin;
    }

    /// @inheritdoc IEpochProofs
    function bondRequired() public view returns (uint256 bond) {
        bond = 2 * RESPONSE_GAS * block.basefee; // the fee may double before the answer
        if (bond < _bondMin) bond = _bondMin;
    }

    /// @inheritdoc IEpochProofs
    function challengeId(bytes32 node, uint64 epoch, bytes16 db, uint16 proofIndex) public pure returns (bytes32) {
        return keccak256(abi.encode(node, epoch, db, proofIndex));
    }

    /// @inheritdoc IEpochProofs
    function commitmentOf(bytes32 node, uint64 epoch, bytes16 db, uint16 proofIndex, address challenger, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(node, epoch, db, proofIndex, challenger, salt));
    }

    /// @inheritdoc IEpochProofs
    function challengeOf(bytes32 id) external view returns (Challenge memory) {
        return _challenges[id];
    }

    /// @inheritdoc IEpochProofs
    function registrationDigest(Registration calldata registration) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(REGISTRATION_TYPEHASH, registration)));
    }

    /// @inheritdoc IEpochProofs
    function releaseDigest(bytes32 node, bytes16 db, uint64 height) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(RELEASE_TYPEHASH, node, db, height)));
    }

    /// @inheritdoc IEpochProofs
    function params() external view returns (Params memory) {
        return Params({
            epochBlocks: _epochBlocks,
            marginBlocks: _marginBlocks,
            windowBlocks: _windowBlocks,
            responseBlocks: _responseBlocks,
            proofBlocks: _proofBlocks,
            proofsPerEpoch: _proofsPerEpoch,
            shape: StorageShape(
                uint16(shapeWord >> 48), uint16(shapeWord >> 32), uint16(shapeWord >> 16), uint16(shapeWord)
            ),
            stakePerPage: _stakePerPage,
            stakeMin: _stakeMin,
            bondMin: _bondMin
        });
    }

    // ---- internals ------------------------------------------------------------------------------------------------------------

    function _pin(string memory name, IGroth16Verifier verifier) private returns (bytes32 circuit) {
        circuit = keccak256(bytes(name));
        if (verifier.inputCount() != 3) revert CircuitInputs(circuit, verifier.inputCount());
        _verifiers[circuit] = verifier;
        emit CircuitPinned(circuit, name, verifier, verifier.vkHash());
    }

    function _storageName(StorageShape memory s) private pure returns (string memory) {
        return string.concat(
            "storage/v2/k",
            Strings.toString(s.samples),
            "-h",
            Strings.toString(s.holdingsLevels),
            "-d",
            Strings.toString(s.storedLevels),
            "-t",
            Strings.toString(s.treeLevels)
        );
    }

    function _checkRegistration(Registration calldata registration) private view {
        bytes32 node = registration.node;
        INodeRegistry.Node memory record = registry.nodeOf(node);
        if (record.status != INodeRegistry.Status.Active) revert NodeNotActive(node, record.status);
        if (record.operator != registration.operator) {
            revert WrongOperator(node, record.operator, registration.operator);
        }
        if (registration.db == bytes16(0)) revert DatabaseZero(); // zero names the holdings
        if (uint256(registration.dbRoot) >= R) revert RootNotCanonical(registration.dbRoot);
        if (registration.cells == 0 || registration.cells > cellsMax) {
            revert CellsOutOfRange(registration.cells, cellsMax);
        }
    }

    function _addVersion(Registration calldata registration, uint64 fromEpoch) private {
        bytes32 node = registration.node;
        bytes16 db = registration.db;
        Version[] storage versions = _versions[node][db];
        uint256 count = versions.length;
        bool open = _stakes[node][db] != 0;
        bool replaces = false;
        if (count != 0) {
            Version storage last = versions[count - 1];
            if (registration.height <= last.height) revert HeightNotAbove(registration.height, last.height);
            if (open && registration.owner != last.owner) revert NotOwner(last.owner, registration.owner);
            replaces = last.fromEpoch == fromEpoch; // twice in one epoch: the later one counts, neither has a beacon yet
        }
        if (!open) {
            if (_databases[node].length >= databasesMax) revert TooManyDatabases(node, databasesMax);
            _databases[node].push(db);
        }
        if (!replaces) {
            versions.push();
            ++count;
        }
        versions[count - 1] = Version({
            root: registration.dbRoot,
            fromEpoch: fromEpoch,
            untilEpoch: registration.untilEpoch,
            height: registration.height,
            cells: registration.cells,
            owner: registration.owner,
            damageMax: registration.damageMax
        });
    }

    function _emitRegistered(Registration calldata registration, uint64 fromEpoch) private {
        emit RootRegistered(
            registration.node,
            registration.db,
            registration.owner,
            registration.dbRoot,
            registration.cells,
            registration.height,
            fromEpoch,
            registration.untilEpoch
        );
    }

    /// @dev `by` sends this transaction or signed `digest`.
    function _checkWord(address by, bytes32 digest, bytes calldata signature) private view {
        if (msg.sender == by) return;
        (address signer, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (problem != ECDSA.RecoverError.NoError || signer != by) revert NotSigned(by);
    }

    function _raiseStake(bytes32 node, bytes16 db, uint256 stake) private {
        uint256 before = _stakes[node][db];
        if (stake <= before) return; // an earlier, larger version may still be challenged
        _stakes[node][db] = stake;
        stakeRequired[node] += stake - before;
        collateral.lock(node, stake - before);
    }

    function _useCommitment(bytes32 commitment) private {
        uint256 madeIn = _commitments[commitment];
        if (madeIn == 0 || madeIn >= block.number) revert CommitmentMissing(commitment);
        delete _commitments[commitment];
    }

    function _last(bytes32 node, bytes16 db) private view returns (Version storage) {
        Version[] storage versions = _versions[node][db];
        if (versions.length == 0) revert DatabaseUnknown(node, db);
        return versions[versions.length - 1];
    }

    /// @dev The last version with `fromEpoch <= epoch`, if it is still owed in `epoch`.
    function _owedAt(bytes32 node, bytes16 db, uint64 epoch) private view returns (bool found, Owed memory item) {
        Version[] storage versions = _versions[node][db];
        uint256 low = 0;
        uint256 high = versions.length; // versions[..low] start by `epoch`, versions[high..] start after it
        while (low < high) {
            uint256 middle = (low + high) / 2; // rounds down
            if (versions[middle].fromEpoch <= epoch) low = middle + 1;
            else high = middle;
        }
        if (low == 0) return (false, item);
        Version storage version = versions[low - 1];
        if (version.untilEpoch < epoch) return (false, item);
        item = Owed(db, version.root, version.cells, version.owner, version.damageMax);
        found = true;
    }

    /// @dev Root, cells and stake that a challenge is about.
    function _debt(bytes32 node, uint64 epoch, bytes16 db)
        private
        view
        returns (bytes32 root, uint64 cells, uint128 stake)
    {
        if (db != bytes16(0)) {
            (bool found, Owed memory item) = _owedAt(node, db, epoch);
            if (!found) revert NothingOwed(node, epoch, db);
            return (item.root, item.cells, uint128(stakeFor(item.cells)));
        }
        Owed[] memory list = owed(node, epoch);
        (root, cells) = _holdings(node, epoch, list);
        for (uint256 i = 0; i < list.length; ++i) {
            stake += uint128(stakeFor(list[i].cells));
        }
    }

    function _holdings(bytes32 node, uint64 epoch, Owed[] memory list)
        private
        view
        returns (bytes32 root, uint64 cells)
    {
        uint256 count = list.length;
        if (count == 0) revert NothingOwed(node, epoch, bytes16(0));
        uint256[] memory digests = new uint256[](count);
        uint256[] memory weights = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            digests[i] = uint256(list[i].root);
            weights[i] = list[i].cells;
        }
        (uint256 r, uint256 total) = holdingsHasher.root(digests, weights);
        return (bytes32(r), uint64(total)); // below 2^40: 64 databases of less than 2^34 cells
    }

    /// @dev The deadline of a challenge made now. Each is let in only where its proof is done in time after those asked for before, so
    /// a node that proves one at a time, first come first proved, meets all its deadlines however many challenge it.
    function _enqueue(bytes32 node) private returns (uint64 deadline) {
        deadline = uint64(block.number) + _responseBlocks;
        uint64 done = uint64(Math.max(block.number, _busyUntil[node])) + _proofBlocks;
        if (done > deadline) revert QueueFull(node, done - _responseBlocks);
        _busyUntil[node] = done;
    }

    /// @dev What of the challenge's stake was not slashed before, and marks it: a loss in an epoch costs once, whether it shows in
    /// the holdings or in one database. A debt is fixed, so the holdings' stake has those of all its databases in it.
    function _forfeit(Challenge storage c) private returns (uint256 stake) {
        mapping(bytes16 => bool) storage slashed = _slashed[c.node][c.epoch];
        bytes16 db = c.db;
        if (slashed[db] || slashed[bytes16(0)]) return 0;
        slashed[db] = true;
        stake = c.stake;
        if (db != bytes16(0)) _slashedAlone[c.node][c.epoch] += stake;
        else stake -= _slashedAlone[c.node][c.epoch];
    }

    /// @dev Who is paid out of a slash of `stake`: each at most the damage agreed for its database, and at most the harmed clients'
    /// part of what its own database's stake yields. So a sham database with a great damage takes nothing from the others.
    function _harmed(bytes32 node, uint64 epoch, bytes16 db, uint256 stake)
        private
        view
        returns (address[] memory owners, uint256[] memory claims)
    {
        Owed[] memory list;
        if (db == bytes16(0)) {
            list = owed(node, epoch);
        } else {
            list = new Owed[](1);
            (, list[0]) = _owedAt(node, db, epoch);
        }
        ICollateral.Balance memory balance = collateral.balanceOf(node);
        uint256 yielded = Math.min(stake, uint256(balance.locked) + balance.free + balance.thawing);
        uint256 budget = yielded * collateral.HARMED_PERCENT_MAX() / 100; // rounds down
        owners = new address[](list.length);
        claims = new uint256[](list.length);
        for (uint256 i = 0; i < list.length; ++i) {
            if (db == bytes16(0) && _slashed[node][epoch][list[i].db]) continue; // paid by that slash
            owners[i] = list[i].owner;
            claims[i] = Math.min(list[i].damageMax, budget * stakeFor(list[i].cells) / stake); // rounds down
        }
    }
}
