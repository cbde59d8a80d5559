// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// @title The latest certified root of each cluster, by the votes of its members.
/// @notice A cluster is named by its owner and its database. Its owner opens it with its first committee; from then on a committee
/// certifies the roots of its epochs, and in the last block of an epoch the next committee. The contract keeps a committee's hash
/// only; whoever sends a certificate sends the members along.
/// @dev A committee travels as `node id (32) || vote key (256, EIP-2537)` for each member, in the order of node ids.
interface ICheckpoints {
    /// @notice `types::block::Certificate`: the finalize votes of a quorum for one block.
    struct Certificate {
        /// @dev The block's header, 176 bytes, as `types::block::BlockHeader` is encoded: integers little-endian.
        bytes header;
        /// @dev The view in which it was finalized.
        uint64 view_;
        /// @dev The view of its parent.
        uint64 parentView;
        /// @dev Bit i: the i-th member signed.
        uint32 signers;
        /// @dev The sum of their votes, a point of G1 in EIP-2537's encoding, 128 bytes.
        bytes signature;
    }

    /// @notice What the last certificate said. All zero before the first.
    struct Checkpoint {
        /// @dev The block that was finalized, and its consensus epoch.
        uint64 height;
        uint64 epoch;
        bytes32 blockHash;
        /// @dev The root that it certifies, and the height after which the database had it: never above `height`.
        uint64 executedHeight;
        bytes32 executedRoot;
        /// @dev The block's time as its proposer said, in milliseconds since 1970.
        uint64 timestampMs;
        /// @dev The Ethereum block in which it was accepted.
        uint64 acceptedAt;
    }

    event Opened(address indexed owner, bytes16 indexed db, bytes32 committee, uint256 members);
    event Certified(
        address indexed owner,
        bytes16 indexed db,
        uint64 indexed height,
        uint64 executedHeight,
        bytes32 executedRoot,
        bytes32 blockHash
    );
    /// @param epoch The first epoch of the new committee.
    event HandedOver(address indexed owner, bytes16 indexed db, uint64 indexed epoch, bytes32 committee);

    error AlreadyOpen(address owner, bytes16 db);
    error ClusterUnknown(address owner, bytes16 db);
    error CommitteeLength(uint256 bytes_);
    error MemberCount(uint256 got, uint256 most);
    error PossessionsLength(uint256 got, uint256 want);
    error MembersOutOfOrder(uint256 index);
    error PossessionMismatch(uint256 index);
    error CommitteeMismatch(bytes32 got, bytes32 want);
    error HeaderLength(uint256 got);
    error EpochMismatch(uint64 epoch, uint64 height);
    error HeightNotAbove(uint64 got, uint64 last);
    error SignerUnknown(uint32 signers, uint256 members);
    error QuorumMissing(uint256 signed, uint256 members, uint256 quorum);
    error SignatureMismatch(bytes32 blockHash);

    /// @notice Opens the caller's cluster for `db` with its first committee, of 1 to 31 members in strict order of node ids. Every
    /// member proves that it has its key. Once for each (owner, db).
    /// @param committee Members as above, 288 bytes each.
    /// @param possessions One proof a member, 128 bytes each.
    function open(bytes16 db, bytes calldata committee, bytes calldata possessions) external;

    /// @notice Accepts a certificate of a block above the last one; anyone may send it. The header names the database. Where the
    /// block is its epoch's last, the committee that it names replaces the one that signed it.
    /// @param committee The members whose hash the contract keeps, as above.
    function submit(address owner, Certificate calldata certificate, bytes calldata committee) external;

    /// @notice The last checkpoint of a cluster; reverts where nobody opened it.
    function latest(address owner, bytes16 db) external view returns (Checkpoint memory);

    /// @notice Where a cluster stands: the last height accepted (0 before the first), the Ethereum block of that or of the opening, and
    /// the hash of the committee that may certify next. Reverts where nobody opened it.
    function statusOf(address owner, bytes16 db)
        external
        view
        returns (uint64 height, uint64 acceptedAt, bytes32 committee);

    /// @notice Hash of the committee that may certify next: `crypto::vote::members_hash`.
    function committeeOf(address owner, bytes16 db) external view returns (bytes32);
}
