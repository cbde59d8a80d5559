// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICheckpoints} from "./interfaces/ICheckpoints.sol";
import {BlsVotes} from "./libraries/BlsVotes.sol";

/// @title Certified checkpoints of clusters.
/// @notice Rule: the height of a cluster only grows, and every step is signed by a quorum of the committee known here. The first
/// committee is its owner's word; each later one is the word of a quorum of the one before.
/// @dev No owner, no upgrade, no clock. Assumes the EIP-2537 precompiles. The possession proofs of later committees are not seen here:
/// the members checked each before they admitted it, and a quorum of them certified the hash.
contract Checkpoints is ICheckpoints {
    /// @notice `types::limits::MEMBERS_MAX`.
    uint256 public constant MEMBERS_MAX = 31;
    /// @notice `types::limits::EPOCH_BLOCKS`: blocks with one committee.
    uint64 public constant EPOCH_BLOCKS = 64;
    uint256 private constant HEADER_BYTES = 176;
    uint256 private constant NODE_BYTES = 32;
    uint256 private constant MEMBER_BYTES = 288;
    /// @dev `crypto::domain::MEMBERS`.
    bytes21 private constant MEMBERS_TAG = "FLU/crypto/members/v1";
    /// @dev `crypto::domain::BLOCK`.
    bytes19 private constant BLOCK_TAG = "FLU/crypto/block/v1";

    struct Cluster {
        bytes32 committee;
        bytes32 blockHash;
        bytes32 executedRoot;
        uint64 executedHeight;
        uint64 height;
        uint64 timestampMs;
        /// @dev Zero where nobody opened the cluster.
        uint64 acceptedAt;
    }

    mapping(address owner => mapping(bytes16 db => Cluster)) private _clusters;

    /// @inheritdoc ICheckpoints
    function open(bytes16 db, bytes calldata committee, bytes calldata possessions) external {
        Cluster storage cluster = _clusters[msg.sender][db];
        if (cluster.acceptedAt != 0) revert AlreadyOpen(msg.sender, db);
        uint256 members = _count(committee);
        if (members == 0 || members > MEMBERS_MAX) revert MemberCount(members, MEMBERS_MAX);
        uint256 want = members * BlsVotes.SIGNATURE_BYTES;
        if (possessions.length != want) revert PossessionsLength(possessions.length, want);
        _checkMembers(committee, possessions, members);
        bytes32 hash = _hash(committee);
        cluster.committee = hash;
        // Anything but zero, so that the first certificate costs what the others do; `latest` does not show it.
        cluster.blockHash = bytes32(uint256(1));
        cluster.executedRoot = bytes32(uint256(1));
        cluster.acceptedAt = uint64(block.number);
        emit Opened(msg.sender, db, hash, members);
    }

    /// @inheritdoc ICheckpoints
    function submit(address owner, Certificate calldata certificate, bytes calldata committee) external {
        bytes calldata header = certificate.header;
        if (header.length != HEADER_BYTES) revert HeaderLength(header.length);
        bytes16 db = bytes16(header[:16]);
        Cluster storage cluster = _clusters[owner][db];
        (uint64 last, uint64 acceptedAt) = (cluster.height, cluster.acceptedAt);
        if (acceptedAt == 0) revert ClusterUnknown(owner, db);
        uint64 height = _integer(header, 24);
        // Its epoch is then not below the last one's: a committee that was replaced certifies nothing any more.
        if (height <= last) revert HeightNotAbove(height, last);
        bytes32 hash = _hash(committee);
        if (hash != cluster.committee) revert CommitteeMismatch(hash, cluster.committee);
        bytes32 blockHash = _verify(db, height, certificate, committee);
        _accept(owner, db, header, blockHash);
        if (height % EPOCH_BLOCKS == EPOCH_BLOCKS - 1) {
            bytes32 next = bytes32(header[144:176]);
            if (next != hash) {
                cluster.committee = next;
                emit HandedOver(owner, db, height / EPOCH_BLOCKS + 1, next);
            }
        }
    }

    /// @inheritdoc ICheckpoints
    function latest(address owner, bytes16 db) external view returns (Checkpoint memory checkpoint) {
        Cluster storage cluster = _known(owner, db);
        if (cluster.height == 0) return checkpoint;
        checkpoint = Checkpoint({
            height: cluster.height,
            epoch: cluster.height / EPOCH_BLOCKS,
            blockHash: cluster.blockHash,
            executedHeight: cluster.executedHeight,
            executedRoot: cluster.executedRoot,
            timestampMs: cluster.timestampMs,
            acceptedAt: cluster.acceptedAt
        });
    }

    /// @inheritdoc ICheckpoints
    function statusOf(address owner, bytes16 db)
        external
        view
        returns (uint64 height, uint64 acceptedAt, bytes32 committee)
    {
        Cluster storage cluster = _known(owner, db);
        return (cluster.height, cluster.acceptedAt, cluster.committee);
    }

    /// @inheritdoc ICheckpoints
    function committeeOf(address owner, bytes16 db) external view returns (bytes32) {
        return _known(owner, db).committee;
    }

    function _known(address owner, bytes16 db) private view returns (Cluster storage cluster) {
        cluster = _clusters[owner][db];
        if (cluster.acceptedAt == 0) revert ClusterUnknown(owner, db);
    }

    /// @dev Checks that a quorum of `committee` voted to finalize the block.
    function _verify(bytes16 db, uint64 height, Certificate calldata certificate, bytes calldata committee)
        private
        view
        returns (bytes32 blockHash)
    {
        uint64 epoch = _integer(certificate.header, 16);
        if (epoch != height / EPOCH_BLOCKS) revert EpochMismatch(epoch, height);
        uint256 frame = _sumKeys(certificate.signers, committee);
        blockHash = keccak256(abi.encodePacked(BLOCK_TAG, certificate.header));
        bytes memory vote =
            BlsVotes.message(db, epoch, certificate.view_, BlsVotes.Kind.Finalize, certificate.parentView, blockHash);
        bool good = BlsVotes.matches(frame, BlsVotes.VOTE_SUITE, vote, certificate.signature);
        if (!good) revert SignatureMismatch(blockHash);
    }

    function _accept(address owner, bytes16 db, bytes calldata header, bytes32 blockHash) private {
        Cluster storage cluster = _clusters[owner][db];
        bytes32 executedRoot = bytes32(header[112:144]);
        (uint64 executedHeight, uint64 height) = (_integer(header, 104), _integer(header, 24));
        cluster.blockHash = blockHash;
        cluster.executedRoot = executedRoot;
        (cluster.executedHeight, cluster.height) = (executedHeight, height);
        (cluster.timestampMs, cluster.acceptedAt) = (_integer(header, 64), uint64(block.number));
        emit Certified(owner, db, height, executedHeight, executedRoot, blockHash);
    }

    /// @dev Order, keys and proofs of a first committee. The pairing inside checks that each key is in its subgroup, which the
    /// addition in `submit` does not.
    function _checkMembers(bytes calldata committee, bytes calldata possessions, uint256 members) private view {
        bytes32 before = 0;
        for (uint256 i = 0; i < members; ++i) {
            bytes calldata member = committee[i * MEMBER_BYTES:(i + 1) * MEMBER_BYTES];
            bytes32 node = bytes32(member[:NODE_BYTES]);
            if (i != 0 && node <= before) revert MembersOutOfOrder(i);
            before = node;
            bytes calldata possession = possessions[i * BlsVotes.SIGNATURE_BYTES:(i + 1) * BlsVotes.SIGNATURE_BYTES];
            if (!BlsVotes.possesses(node, member[NODE_BYTES:], possession)) revert PossessionMismatch(i);
        }
    }

    /// @dev Adds up the keys of those who signed, and checks that they are members and a quorum.
    /// @return frame Memory of a check with that key.
    function _sumKeys(uint32 signers, bytes calldata committee) private view returns (uint256 frame) {
        uint256 members = _count(committee);
        if (uint256(signers) >> members != 0) revert SignerUnknown(signers, members);
        frame = BlsVotes.begin();
        uint256 offset;
        assembly ("memory-safe") {
            offset := add(committee.offset, NODE_BYTES)
        }
        uint256 signed = 0;
        unchecked {
            for (uint256 rest = signers; rest != 0; rest >>= 1) {
                if (rest & 1 != 0) {
                    if (signed == 0) BlsVotes.setKey(frame, offset);
                    else BlsVotes.addKey(frame, offset);
                    ++signed;
                }
                offset += MEMBER_BYTES;
            }
        }
        uint256 quorum = members - (members - 1) / 3; // 2f + 1 of 3f + 1; members is not 0: its hash was kept by `open`
        if (signed < quorum) revert QuorumMissing(signed, members, quorum);
    }

    function _count(bytes calldata committee) private pure returns (uint256 members) {
        if (committee.length % MEMBER_BYTES != 0) revert CommitteeLength(committee.length);
        members = committee.length / MEMBER_BYTES;
    }

    /// @dev `crypto::vote::members_hash`.
    function _hash(bytes calldata committee) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(MEMBERS_TAG, committee));
    }

    /// @dev The little-endian integer at byte `offset` of a header.
    function _integer(bytes calldata header, uint256 offset) private pure returns (uint64 value) {
        assembly ("memory-safe") {
            value := shr(192, calldataload(add(header.offset, offset)))
        }
        value = ((value & 0x00ff00ff00ff00ff) << 8) | ((value >> 8) & 0x00ff00ff00ff00ff);
        value = ((value & 0x0000ffff0000ffff) << 16) | ((value >> 16) & 0x0000ffff0000ffff);
        value = (value << 32) | (value >> 32);
    }
}
