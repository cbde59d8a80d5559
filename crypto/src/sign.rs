//! Signatures: owners and writers by secp256k1 (Solidity can check them), nodes by Ed25519 (it is also their libp2p identity).
//!
//! Rule     what is signed starts with a tag of [`domain`], so no signature serves twice. One message has one valid signature a key:
//!          secp256k1 only with the low s and v 27 or 28, Ed25519 by the strict equation and canonical s.
//! States   `SignedOp -> VerifiedOp`: what acts on an operation takes the latter.
//! Source   DESIGN section 7; EIP-2 (low s); RFC 8032

use crate::domain;
use crate::secret::Secret;
use crate::vote::VoteKey;
use ed25519_dalek::Signer as _;
use fluence_types::block::{BlockHeader, Member, Members, quorum};
use fluence_types::codec::encode;
use fluence_types::export::ExportStatement;
use fluence_types::op::{
    NodeSignature, Op, OwnerSignature, Receipt, Seat, SeatChange, SignedOp, SignedReceipt, UnsignedOp,
};
use fluence_types::{Address, BlockHash, Height, NodeId, OpId};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use sha3::{Digest, Keccak256};

/// Why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// Not a signature: r or s out of range, s in the upper half, or v neither 27 nor 28.
    #[error("malformed signature: {0}")]
    Malformed(&'static str),
    /// A valid signature by somebody else, or over something else.
    #[error("signed by {signer}, not by {expected}")]
    Signer {
        /// Who signed.
        signer: Address,
        /// Who should have.
        expected: Address,
    },
    /// The node's signature does not verify.
    #[error("not a signature by node {0}")]
    Node(NodeId),
    /// A certificate names members out of order, or one twice.
    #[error("member {0} is out of order or repeated")]
    Order(u16),
    /// A certificate names a member that is not there.
    #[error("member {index} of {members}")]
    Member {
        /// The index named.
        index: u16,
        /// Members of the cluster.
        members: u16,
    },
    /// Too few signatures.
    #[error("{signed} of {members} members signed, {quorum} needed")]
    Quorum {
        /// Signatures.
        signed: u16,
        /// Members of the cluster.
        members: u16,
        /// Signatures needed.
        quorum: u16,
    },
    /// A node's vote key is malformed, or its proof of possession does not hold.
    #[error("node {0} does not prove that it has the vote key it names")]
    VoteKey(NodeId),
    /// The signature of a certificate is not by the members it names.
    #[error("the certificate of block {0} is not signed by the members it names")]
    Certificate(Height),
}

fn keccak(tag: &str, bytes: &[u8]) -> [u8; 32] {
    Keccak256::new().chain_update(tag).chain_update(bytes).finalize().into()
}

// --- Owners ------------------------------------------------------------------------------------------------------------

/// An owner's or writer's signing key.
pub struct OwnerKey(SigningKey);

impl OwnerKey {
    /// The key of 32 secret bytes.
    ///
    /// # Errors
    /// [`SignError::Malformed`] for 0 and for values of the group order or more.
    pub fn new(secret: &Secret<32>) -> Result<Self, SignError> {
        let key = secret.expose(|bytes| SigningKey::from_bytes(bytes.into()));
        key.map(Self).map_err(|_| SignError::Malformed("secret key out of range"))
    }

    /// The Ethereum address.
    #[must_use]
    pub fn address(&self) -> Address {
        address(self.0.verifying_key())
    }

    /// Signs a 32-byte hash.
    ///
    /// # Panics
    /// Never in practice: only for a nonce that makes r or s zero.
    #[must_use]
    pub fn sign_prehash(&self, prehash: [u8; 32]) -> OwnerSignature {
        let (signature, recovery) = self.0.sign_prehash_recoverable(&prehash).expect("32 bytes always sign");
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        bytes
    }
}

fn address(key: &VerifyingKey) -> Address {
    let point = key.to_encoded_point(false);
    let hash: [u8; 32] = Keccak256::digest(&point.as_bytes()[1..]).into();
    let mut tail = [0; 20];
    tail.copy_from_slice(&hash[12..]);
    Address::from_bytes(tail)
}

/// Who signed `prehash`.
///
/// # Errors
/// [`SignError::Malformed`] for anything but a canonical signature.
pub fn recover(prehash: [u8; 32], signature: &OwnerSignature) -> Result<Address, SignError> {
    let recovery = match signature[64] {
        27 => RecoveryId::new(false, false),
        28 => RecoveryId::new(true, false),
        _ => return Err(SignError::Malformed("v is neither 27 nor 28")),
    };
    let rs = Signature::from_slice(&signature[..64]).map_err(|_| SignError::Malformed("r or s out of range"))?;
    // The upper half would be a second signature over the same message by the same key.
    if rs.normalize_s().is_some() {
        return Err(SignError::Malformed("s is in the upper half"));
    }
    let key = VerifyingKey::recover_from_prehash(&prehash, &rs, recovery);
    key.map(|k| address(&k)).map_err(|_| SignError::Malformed("no key made it"))
}

/// The id of an operation: what its writer signs.
#[must_use]
pub fn op_id(op: &UnsignedOp) -> OpId {
    OpId::from_bytes(keccak(domain::OP, &encode(op)))
}

/// Signs an operation. The caller sets `writer` to the key's address, else nobody accepts it.
#[must_use]
pub fn sign_op(unsigned: UnsignedOp, key: &OwnerKey) -> SignedOp {
    let signature = key.sign_prehash(op_id(&unsigned).to_bytes());
    SignedOp { unsigned, signature }
}

/// An operation signed by the writer it names. Whether that writer may do this is the state machine's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedOp {
    id: OpId,
    signed: SignedOp,
}

impl VerifiedOp {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> OpId {
        self.id
    }
    /// What was signed.
    #[must_use]
    pub const fn unsigned(&self) -> &UnsignedOp {
        &self.signed.unsigned
    }
    /// The operation with its signature.
    #[must_use]
    pub const fn signed(&self) -> &SignedOp {
        &self.signed
    }
    /// The operation as it travels.
    #[must_use]
    pub fn into_signed(self) -> SignedOp {
        self.signed
    }
}

/// Checks an operation's signature.
///
/// # Errors
/// [`SignError`] if it is not by the writer named.
pub fn verify_op(signed: SignedOp) -> Result<VerifiedOp, SignError> {
    let id = op_id(&signed.unsigned);
    if let Op::Seat(change) = &signed.unsigned.op {
        // Its authority is its votes, which the state machine checks against the members of the time.
        let UnsignedOp { db, writer, sequence, previous, .. } = &signed.unsigned;
        let empty = *writer == Address::default() && *sequence == 0 && *previous == OpId::default();
        return match empty && signed.signature == [0; 65] && *db == change.seat.db {
            true => Ok(VerifiedOp { id, signed }),
            false => Err(SignError::Malformed("a seat change has no signer, and is of its own database")),
        };
    }
    let signer = recover(id.to_bytes(), &signed.signature)?;
    let expected = signed.unsigned.writer;
    if signer != expected {
        return Err(SignError::Signer { signer, expected });
    }
    Ok(VerifiedOp { id, signed })
}

/// What an owner signs of an export: the canonical encoding of its statement.
#[must_use]
pub fn export_digest(statement: &ExportStatement) -> [u8; 32] {
    keccak(domain::EXPORT, &encode(statement))
}

// --- Nodes -------------------------------------------------------------------------------------------------------------

/// A node's signing key.
pub struct NodeKey {
    key: ed25519_dalek::SigningKey,
    vote: VoteKey,
    secret: Secret<32>,
}

impl NodeKey {
    /// The key of an Ed25519 seed.
    #[must_use]
    pub fn new(secret: Secret<32>) -> Self {
        Self { key: secret.expose(ed25519_dalek::SigningKey::from_bytes), vote: VoteKey::derive(&secret), secret }
    }

    /// The key it votes with.
    #[must_use]
    pub const fn vote(&self) -> &VoteKey {
        &self.vote
    }

    /// The node as a member of a cluster.
    #[must_use]
    pub fn member(&self) -> Member {
        let node = self.id();
        Member { node, vote_key: self.vote.public(), possession: self.vote.possession(&node) }
    }

    /// The public key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// Signs `tag || bytes`, the tag one of [`domain`].
    #[must_use]
    pub fn sign(&self, tag: &str, bytes: &[u8]) -> NodeSignature {
        self.key.sign(&[tag.as_bytes(), bytes].concat()).to_bytes()
    }

    /// Lends the seed, for libp2p's identity.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.secret.expose(f)
    }
}

/// Checks a node's signature on `tag || bytes`.
///
/// # Errors
/// [`SignError::Node`].
pub fn verify_node(tag: &str, node: &NodeId, bytes: &[u8], signature: &NodeSignature) -> Result<(), SignError> {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    ed25519_dalek::VerifyingKey::from_bytes(node.as_bytes())
        .and_then(|key| key.verify_strict(&[tag.as_bytes(), bytes].concat(), &signature))
        .map_err(|_| SignError::Node(*node))
}

/// Signs a receipt. The caller sets `node` to the key's id.
#[must_use]
pub fn sign_receipt(receipt: Receipt, key: &NodeKey) -> SignedReceipt {
    let signature = key.sign(domain::RECEIPT, &encode(&receipt));
    SignedReceipt { receipt, signature }
}

/// Checks that the node named in a receipt signed it.
///
/// # Errors
/// [`SignError::Node`].
pub fn verify_receipt(r: &SignedReceipt) -> Result<(), SignError> {
    verify_node(domain::RECEIPT, &r.receipt.node, &encode(&r.receipt), &r.signature)
}

// --- Blocks ------------------------------------------------------------------------------------------------------------

/// Hash of a block header.
#[must_use]
pub fn block_hash(header: &BlockHeader) -> BlockHash {
    BlockHash::from_bytes(keccak(domain::BLOCK, &encode(header)))
}

/// BLAKE3 over the operations of a block: how many, as 8 bytes big-endian, then each in its canonical encoding, with its signature. So one
/// block hash has one block: who passes a block on cannot alter anything in it.
#[must_use]
pub fn ops_hash(ops: &[SignedOp]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(domain::OPS);
    hasher.update(&(ops.len() as u64).to_be_bytes());
    for op in ops {
        hasher.update(&encode(op));
    }
    *hasher.finalize().as_bytes()
}

// --- Seats -------------------------------------------------------------------------------------------------------------

/// Signs a seat change.
#[must_use]
pub fn sign_seat(seat: &Seat, key: &NodeKey) -> NodeSignature {
    key.sign(domain::SEAT, &encode(seat))
}

/// Checks one vote for a seat change.
///
/// # Errors
/// [`SignError::Node`].
pub fn verify_seat_vote(seat: &Seat, node: &NodeId, signature: &NodeSignature) -> Result<(), SignError> {
    verify_node(domain::SEAT, node, &encode(seat), signature)
}

/// Checks that a quorum of `members` voted for a seat change; one bad vote refuses all.
///
/// # Errors
/// [`SignError`] saying what is wrong.
pub fn verify_seat(change: &SeatChange, members: &Members) -> Result<(), SignError> {
    let count = |n: usize| u16::try_from(n).expect("MEMBERS_MAX is small");
    let (signed, total, need) = (change.votes.len(), members.len(), quorum(members.len()).max(1));
    if signed < need {
        return Err(SignError::Quorum { signed: count(signed), members: count(total), quorum: count(need) });
    }
    let mut next = 0;
    for (index, signature) in change.votes.iter() {
        let member = members.get(usize::from(*index));
        let member = member.ok_or(SignError::Member { index: *index, members: count(total) })?;
        if *index < next {
            return Err(SignError::Order(*index));
        }
        verify_seat_vote(&change.seat, &member.node, signature)?;
        next = index + 1;
    }
    Ok(())
}

/// A seat change as an operation: nobody signs it, so the fields of a signer are empty.
#[must_use]
pub fn seat_op(change: SeatChange) -> SignedOp {
    let (writer, sequence, previous) = (Address::default(), 0, OpId::default());
    let unsigned = UnsignedOp { db: change.seat.db, writer, sequence, previous, op: Op::Seat(change) };
    SignedOp { unsigned, signature: [0; 65] }
}

#[cfg(test)]
mod tests;
