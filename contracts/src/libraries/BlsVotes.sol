// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Bls12381} from "./Bls12381.sol";

/// @title Votes of a cluster's members: BLS with keys in G2 and signatures in G1.
/// @notice Relation: `e(signature, -G2) e(H(message), key) = 1`, where `H` hashes to G1 as RFC 9380 does, and `key` is one member's or
/// the sum of several. Twin of `crypto/src/vote.rs`; `tests/vectors/checkpoints.json` holds both to the same bytes.
/// @dev Three outcomes that are never mixed up: true, false, and a revert where a precompile failed (see `Bls12381`).
/// The pairing checks that signature and key are in their subgroups. Source: RFC 9380 sections 3, 5.2 and 5.3.1;
/// draft-irtf-cfrg-bls-signature-05 sections 2 and 3.3
library BlsVotes {
    /// @notice What a vote is for.
    enum Kind {
        Notarize,
        Nullify,
        Finalize
    }

    /// @notice Bytes of a key in EIP-2537's encoding.
    uint256 internal constant KEY_BYTES = 256;
    /// @notice Bytes of a signature in EIP-2537's encoding.
    uint256 internal constant SIGNATURE_BYTES = 128;

    /// @notice `crypto::domain::VOTE`.
    bytes18 internal constant VOTE_TAG = "FLU/crypto/vote/v1";
    /// @notice `crypto::domain::POSSESSION`.
    bytes24 internal constant POSSESSION_TAG = "FLU/crypto/possession/v1";
    /// @notice First 32 of the 43 bytes that name the suite of votes.
    bytes32 internal constant VOTE_SUITE = "BLS_SIG_BLS12381G1_XMD:SHA-256_S";
    /// @notice First 32 of the 43 bytes that name the suite of proofs of possession.
    bytes32 internal constant POSSESSION_SUITE = "BLS_POP_BLS12381G1_XMD:SHA-256_S";
    /// @dev The rest of either name, and its length, 43, which is `+`.
    bytes12 private constant SUITE_REST = "SWU_RO_POP_+";

    /// @dev Where things are in the memory that `begin` reserves: the pairing's input, then room for one more key.
    uint256 private constant NEG_G2_AT = 128;
    uint256 private constant HASH_AT = 384;
    uint256 private constant KEY_AT = 512;
    uint256 private constant NEXT_KEY_AT = 768;
    uint256 private constant FRAME_BYTES = 1024;

    /// @notice A key of another length than 256 bytes.
    error KeyLength(uint256 got);
    /// @notice A signature of another length than 128 bytes.
    error SignatureLength(uint256 got);
    /// @notice The point at infinity: it would verify under the key at infinity, whatever the message.
    error PointAtInfinity();

    /// @notice Reserves memory for one check.
    function begin() internal pure returns (uint256 frame) {
        assembly ("memory-safe") {
            frame := mload(0x40)
            mstore(0x40, add(frame, FRAME_BYTES))
        }
    }

    /// @notice Makes the 256 bytes at `offset` of the calldata the key to check against.
    function setKey(uint256 frame, uint256 offset) internal pure {
        assembly ("memory-safe") {
            calldatacopy(add(frame, KEY_AT), offset, KEY_BYTES)
        }
    }

    /// @notice Adds the 256 bytes at `offset` of the calldata to that key.
    function addKey(uint256 frame, uint256 offset) internal view {
        uint256 key;
        assembly ("memory-safe") {
            key := add(frame, KEY_AT)
            calldatacopy(add(key, KEY_BYTES), offset, KEY_BYTES)
        }
        Bls12381.call(Bls12381.G2_ADD, key, 512, key, 256);
    }

    /// @notice Whether `signature` is over `text` by the key of the frame.
    function matches(uint256 frame, bytes32 suite, bytes memory text, bytes calldata signature)
        internal
        view
        returns (bool good)
    {
        if (signature.length != SIGNATURE_BYTES) revert SignatureLength(signature.length);
        uint256 any;
        assembly ("memory-safe") {
            calldatacopy(frame, signature.offset, SIGNATURE_BYTES)
            any := or(or(mload(frame), mload(add(frame, 32))), or(mload(add(frame, 64)), mload(add(frame, 96))))
            let p := add(frame, NEG_G2_AT)
            mstore(p, 0x024aa2b2f08f0a91260805272dc51051)
            mstore(add(p, 32), 0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8)
            mstore(add(p, 64), 0x13e02b6052719f607dacd3a088274f65)
            mstore(add(p, 96), 0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e)
            mstore(add(p, 128), 0x0d1b3cc2c7027888be51d9ef691d77bc)
            mstore(add(p, 160), 0xb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa)
            mstore(add(p, 192), 0x13fa4d4a0ad8b1ce186ed5061789213d)
            mstore(add(p, 224), 0x993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed)
        }
        if (any == 0) revert PointAtInfinity();
        unchecked {
            hashToG1(suite, text, frame + HASH_AT);
        }
        Bls12381.call(Bls12381.PAIRING, frame, NEXT_KEY_AT, frame, 32);
        assembly ("memory-safe") {
            good := eq(mload(frame), 1)
        }
    }

    /// @notice Whether `possession` proves that whoever names `node` has `key`. Reverts for a key that is no point of its subgroup, or
    /// infinity.
    function possesses(bytes32 node, bytes calldata key, bytes calldata possession) internal view returns (bool) {
        if (key.length != KEY_BYTES) revert KeyLength(key.length);
        uint256 frame = begin();
        uint256 offset;
        uint256 any = 0;
        assembly ("memory-safe") {
            offset := key.offset
            for { let i := 0 } lt(i, KEY_BYTES) { i := add(i, 32) } { any := or(any, calldataload(add(offset, i))) }
        }
        if (any == 0) revert PointAtInfinity();
        setKey(frame, offset);
        return matches(frame, POSSESSION_SUITE, abi.encodePacked(POSSESSION_TAG, node, key), possession);
    }

    /// @notice The bytes of a vote: `crypto::vote::vote_message`. A nullify vote names no proposal.
    function message(bytes16 db, uint64 epoch, uint64 view_, Kind kind, uint64 parentView, bytes32 block_)
        internal
        pure
        returns (bytes memory text)
    {
        bool proposal = kind != Kind.Nullify;
        // The namespace's length, the namespace, and then numbers of seven bits a byte: the lowest first, the top bit set in all but
        // the last.
        bytes32 suffix =
            proposal ? (kind == Kind.Notarize ? bytes32("_NOTARIZE") : bytes32("_FINALIZE")) : bytes32("_NULLIFY");
        assembly ("memory-safe") {
            function uvarint(start, value) -> p {
                p := start
                value := and(value, 0xffffffffffffffff) // the compiler leaves what is above a uint64 as it is
                for {} gt(value, 127) {} {
                    mstore8(p, or(value, 128))
                    value := shr(7, value)
                    p := add(p, 1)
                }
                mstore8(p, value)
                p := add(p, 1)
            }
            text := mload(0x40)
            let length := add(42, proposal)
            mstore8(add(text, 32), length)
            mstore(add(text, 33), VOTE_TAG)
            mstore(add(text, 51), db)
            mstore(add(text, 67), suffix)
            let p := uvarint(uvarint(add(add(text, 33), length), epoch), view_)
            if proposal {
                p := uvarint(p, parentView)
                mstore(p, block_)
                p := add(p, 32)
            }
            mstore(text, sub(sub(p, text), 32))
            mstore(0x40, and(add(p, 31), not(31)))
        }
    }

    /// @notice Hashes `text` to G1 and puts the point, 128 bytes, at memory `out`.
    /// @param suite The first 32 bytes of the suite's name.
    function hashToG1(bytes32 suite, bytes memory text, uint256 out) internal view {
        // expand_message_xmd to 128 bytes: b0 = H(Z_pad text 0x0080 0x00 DST'), b_i = H((b0 xor b_(i-1)) i DST').
        bytes32 b0 = sha256(abi.encodePacked(bytes32(0), bytes32(0), text, hex"008000", suite, SUITE_REST));
        (uint256 qHi, uint256 qLo) = (Bls12381.Q_HI, Bls12381.Q_LO);
        uint256 digest; // input of b_i, 77 bytes
        uint256 power; // input of a reduction by q, 225 bytes, of which `base` is the number
        uint256 base;
        uint256 points; // the two points to add, 256 bytes; the number reduced, 64 bytes, is where the second will be
        assembly ("memory-safe") {
            digest := mload(0x40)
            mstore(digest, b0)
            mstore(add(digest, 33), suite)
            mstore(add(digest, 65), SUITE_REST)
            mstore8(add(digest, 32), 1)
            power := add(digest, 96)
            base := add(power, 96)
            mstore(power, 64)
            mstore(add(power, 32), 1)
            mstore(add(power, 64), 64)
            mstore8(add(power, 160), 1)
            mstore(add(power, 161), qHi)
            mstore(add(power, 193), qLo)
            points := add(power, 256)
        }
        unchecked {
            Bls12381.call(Bls12381.SHA256, digest, 77, base, 32);
            _next(digest, b0, base, 2);
            Bls12381.call(Bls12381.SHA256, digest, 77, base + 32, 32);
            _next(digest, b0, base + 32, 3);
            Bls12381.call(Bls12381.MODEXP, power, 225, points + 128, 64);
            Bls12381.call(Bls12381.MAP_FP_TO_G1, points + 128, 64, points, SIGNATURE_BYTES);
            Bls12381.call(Bls12381.SHA256, digest, 77, base, 32);
            _next(digest, b0, base, 4);
            Bls12381.call(Bls12381.SHA256, digest, 77, base + 32, 32);
            Bls12381.call(Bls12381.MODEXP, power, 225, points + 128, 64);
            Bls12381.call(Bls12381.MAP_FP_TO_G1, points + 128, 64, points + 128, SIGNATURE_BYTES);
            Bls12381.call(Bls12381.G1_ADD, points, 256, out, SIGNATURE_BYTES);
        }
    }

    /// @dev Turns the input of b_(i-1), which is at `last`, into that of b_i.
    function _next(uint256 digest, bytes32 b0, uint256 last, uint256 i) private pure {
        assembly ("memory-safe") {
            mstore(digest, xor(b0, mload(last)))
            mstore8(add(digest, 32), i)
        }
    }
}
