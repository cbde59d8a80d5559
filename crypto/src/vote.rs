//! Votes of a cluster's members: BLS multi-signatures that Ethereum can check (EIP-2537), and the certificates they add up to.
//!
//! Suite     minimal-signature-size, proof of possession: public keys in G2, signatures in G1, messages hashed by
//!           `BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_`.
//! Message   `uvarint(len ns) ns uvarint(epoch) uvarint(view) [uvarint(parent view) block hash]`, where `ns` is the tag [`domain::VOTE`],
//!           the database id, and `_NOTARIZE`, `_NULLIFY` or `_FINALIZE`; a nullify vote names no block. It is what
//!           `commonware-consensus` 2026.10 signs; `consensus` has the test that both agree.
//! Rule      a member's key is bound to its node by a proof of possession, checked where the member enters a committee, so that the
//!           keys of a certificate may be added up.
//! Source    draft-irtf-cfrg-bls-signature-05, sections 2 and 3.3; DESIGN section 7

use crate::domain;
use crate::secret::Secret;
use crate::sign::{SignError, block_hash};
use blst::BLST_ERROR;
use blst::min_sig::{AggregatePublicKey, AggregateSignature, PublicKey, SecretKey, Signature};
use fluence_types::block::{Certificate, Member, Members, VoteKeyBytes, VoteSignature, position, quorum};
use fluence_types::limits::MEMBERS_MAX;
use fluence_types::{BlockHash, DatabaseId, NodeId};
use sha3::{Digest, Keccak256};

/// Hash-to-curve suite of votes.
const VOTE_SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// Hash-to-curve suite of proofs of possession.
const POSSESSION_SUITE: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// What a member votes for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vote {
    /// A proposal that it checked.
    Notarize {
        /// The view of the proposal's parent.
        parent_view: u64,
        /// The proposal.
        block: BlockHash,
    },
    /// To skip the view.
    Nullify,
    /// A proposal that a quorum notarized.
    Finalize {
        /// The view of the proposal's parent.
        parent_view: u64,
        /// The proposal.
        block: BlockHash,
    },
}

/// The namespace of a cluster's votes, without the suffix of their kind.
#[must_use]
pub fn namespace(db: DatabaseId) -> Vec<u8> {
    [domain::VOTE.as_bytes(), db.as_bytes()].concat()
}

fn uvarint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes of a vote, before they are hashed to the curve.
#[must_use]
pub fn vote_message(db: DatabaseId, epoch: u64, view: u64, vote: Vote) -> Vec<u8> {
    let (suffix, proposal) = match vote {
        Vote::Notarize { parent_view, block } => (&b"_NOTARIZE"[..], Some((parent_view, block))),
        Vote::Nullify => (&b"_NULLIFY"[..], None),
        Vote::Finalize { parent_view, block } => (&b"_FINALIZE"[..], Some((parent_view, block))),
    };
    let namespace = [&namespace(db)[..], suffix].concat();
    let mut out = Vec::with_capacity(128);
    uvarint(namespace.len() as u64, &mut out);
    out.extend_from_slice(&namespace);
    uvarint(epoch, &mut out);
    uvarint(view, &mut out);
    if let Some((parent_view, block)) = proposal {
        uvarint(parent_view, &mut out);
        out.extend_from_slice(block.as_bytes());
    }
    out
}

/// A node's key for votes.
pub struct VoteKey {
    key: SecretKey,
    public: VoteKeyBytes,
}

impl VoteKey {
    /// The key that belongs to a node's identity seed.
    #[must_use]
    pub fn derive(seed: &Secret<32>) -> Self {
        let material = Secret::<32>::fill(|out| {
            seed.expose(|seed| *out = blake3::derive_key(domain::KEY_VOTE, seed));
        });
        let key = material.expose(|m| SecretKey::key_gen(m, &[])).expect("32 bytes are enough for a key");
        Self { public: key.sk_to_pk().compress(), key }
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> VoteKeyBytes {
        self.public
    }

    /// Proves to whoever admits `node` that this is its key.
    #[must_use]
    pub fn possession(&self, node: &NodeId) -> VoteSignature {
        let message = possession_message(node, &encode_key(&self.key.sk_to_pk()));
        self.key.sign(&message, POSSESSION_SUITE, &[]).compress()
    }

    /// A vote.
    #[must_use]
    pub fn sign(&self, db: DatabaseId, epoch: u64, view: u64, vote: Vote) -> VoteSignature {
        self.key.sign(&vote_message(db, epoch, view, vote), VOTE_SUITE, &[]).compress()
    }

    /// Lends the scalar, 32 bytes big-endian, to the consensus engine.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        Secret::new(self.key.to_bytes()).expose(f)
    }
}

/// A public key as EIP-2537 writes it: x.c0, x.c1, y.c0, y.c1, each 64 bytes big-endian.
fn encode_key(key: &PublicKey) -> [u8; 256] {
    let zcash = key.serialize();
    let mut out = [0; 256];
    for (at, from) in [(0, 48), (1, 0), (2, 144), (3, 96)] {
        out[at * 64 + 16..(at + 1) * 64].copy_from_slice(&zcash[from..from + 48]);
    }
    out
}

fn possession_message(node: &NodeId, key: &[u8; 256]) -> Vec<u8> {
    [domain::POSSESSION.as_bytes(), node.as_bytes(), key].concat()
}

fn public(member: &Member) -> Result<PublicKey, SignError> {
    PublicKey::key_validate(&member.vote_key).map_err(|_| SignError::VoteKey(member.node))
}

fn signature(bytes: &VoteSignature) -> Result<Signature, SignError> {
    Signature::sig_validate(bytes, true).map_err(|_| SignError::Malformed("a vote is no point of the group"))
}

/// A member's vote key as EIP-2537 writes it, 256 bytes.
///
/// # Errors
/// [`SignError::VoteKey`] for bytes that are no key.
pub fn vote_key_eip2537(member: &Member) -> Result<[u8; 256], SignError> {
    Ok(encode_key(&public(member)?))
}

/// A vote or certificate's signature as EIP-2537 writes it: x, y, each 64 bytes big-endian.
///
/// # Errors
/// [`SignError::Malformed`] for bytes that are no point.
pub fn signature_eip2537(bytes: &VoteSignature) -> Result<[u8; 128], SignError> {
    let zcash = signature(bytes)?.serialize();
    let mut out = [0; 128];
    out[16..64].copy_from_slice(&zcash[..48]);
    out[80..].copy_from_slice(&zcash[48..]);
    Ok(out)
}

/// Checks that a node has the vote key it names.
///
/// # Errors
/// [`SignError::VoteKey`] where the key is malformed, or the proof is not by it for this node.
pub fn verify_member(member: &Member) -> Result<(), SignError> {
    let refused = SignError::VoteKey(member.node);
    let key = public(member)?;
    let proof = signature(&member.possession).map_err(|_| refused.clone())?;
    let message = possession_message(&member.node, &encode_key(&key));
    match proof.verify(false, &message, POSSESSION_SUITE, &[], &key, false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(refused),
    }
}

/// Checks a committee: at least one member, strictly increasing node ids, each with its key.
///
/// # Errors
/// [`SignError`] naming the first that is wrong.
pub fn verify_members(members: &Members) -> Result<(), SignError> {
    if members.is_empty() {
        return Err(SignError::Quorum { signed: 0, members: 0, quorum: 1 });
    }
    for (i, pair) in members.windows(2).enumerate() {
        if pair[0].node >= pair[1].node {
            return Err(SignError::Order(i as u16 + 1));
        }
    }
    members.iter().try_for_each(verify_member)
}

/// Checks one vote.
///
/// # Errors
/// [`SignError::VoteKey`] or [`SignError::Node`] where it is not by this member.
pub fn verify_vote(
    member: &Member,
    db: DatabaseId,
    epoch: u64,
    view: u64,
    vote: Vote,
    by: &VoteSignature,
) -> Result<(), SignError> {
    let message = vote_message(db, epoch, view, vote);
    match signature(by)?.verify(false, &message, VOTE_SUITE, &[], &public(member)?, false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(SignError::Node(member.node)),
    }
}

/// Whether two votes of one view are such that no honest member gives both: two different proposals notarized, two different proposals
/// finalized, or one finalized and the view skipped. It may notarize and then skip the view, or finalize what it notarized.
#[must_use]
pub fn conflict(first: &Vote, second: &Vote) -> bool {
    match (first, second) {
        (Vote::Notarize { .. }, Vote::Notarize { .. }) | (Vote::Finalize { .. }, Vote::Finalize { .. }) => {
            first != second
        }
        (Vote::Nullify, Vote::Finalize { .. }) | (Vote::Finalize { .. }, Vote::Nullify) => true,
        _ => false,
    }
}

/// The coordinates of a point as EIP-2537 writes it, each without its 16 bytes of padding.
fn coordinates(point: &[u8]) -> Option<Vec<&[u8]>> {
    point.chunks_exact(64).map(|fp| fp[..16].iter().all(|b| *b == 0).then_some(&fp[16..])).collect()
}

/// Checks one vote whose key and signature are given as EIP-2537 writes them, as the contract `Equivocation` does.
///
/// # Errors
/// [`SignError::Malformed`] for bytes that are no point of their group; [`SignError::Node`] where the vote is not by this key.
pub fn verify_vote_eip2537(
    node: &NodeId,
    key: &[u8; 256],
    db: DatabaseId,
    epoch: u64,
    view: u64,
    vote: Vote,
    by: &[u8; 128],
) -> Result<(), SignError> {
    let no_key = || SignError::Malformed("a vote key is no point of the group");
    let no_vote = || SignError::Malformed("a vote is no point of the group");
    let x = coordinates(key).ok_or_else(no_key)?;
    let key = PublicKey::deserialize(&[x[1], x[0], x[3], x[2]].concat()).map_err(|_| no_key())?;
    key.validate().map_err(|_| no_key())?;
    let by = Signature::deserialize(&coordinates(by).ok_or_else(no_vote)?.concat()).map_err(|_| no_vote())?;
    by.validate(true).map_err(|_| no_vote())?;
    match by.verify(false, &vote_message(db, epoch, view, vote), VOTE_SUITE, &[], &key, false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(SignError::Node(*node)),
    }
}

/// Adds votes up.
///
/// # Errors
/// [`SignError::Malformed`] for none, or one that is no point.
pub fn aggregate(votes: &[VoteSignature]) -> Result<VoteSignature, SignError> {
    let votes = votes.iter().map(signature).collect::<Result<Vec<_>, _>>()?;
    AggregateSignature::aggregate(&votes.iter().collect::<Vec<_>>(), false)
        .map(|sum| sum.to_signature().compress())
        .map_err(|_| SignError::Malformed("no vote to add up"))
}

/// Hash of a committee: Keccak-256 of the tag and, for each member, node id and vote key as EIP-2537 writes it.
///
/// # Errors
/// [`SignError::VoteKey`] for a member whose key is malformed.
pub fn members_hash(members: &Members) -> Result<[u8; 32], SignError> {
    let mut hasher = Keccak256::new().chain_update(domain::MEMBERS);
    for member in members.iter() {
        hasher.update(member.node.as_bytes());
        hasher.update(vote_key_eip2537(member)?);
    }
    Ok(hasher.finalize().into())
}

/// Checks that a quorum of `members` finalized the block. The caller trusts them as the committee of its epoch, and their keys were
/// checked by [`verify_members`] when they entered it.
///
/// # Errors
/// [`SignError`] saying what is wrong.
pub fn verify_certificate(certificate: &Certificate, members: &Members) -> Result<(), SignError> {
    let count = |n: usize| u16::try_from(n).expect("MEMBERS_MAX is small");
    let signed = certificate.signers.count_ones() as usize;
    let need = quorum(members.len()).max(1);
    let beyond = (members.len()..MEMBERS_MAX.max(32)).find(|i| certificate.signers & (1 << i) != 0);
    if let Some(index) = beyond {
        return Err(SignError::Member { index: count(index), members: count(members.len()) });
    }
    if signed < need {
        return Err(SignError::Quorum { signed: count(signed), members: count(members.len()), quorum: count(need) });
    }
    let signers = members.iter().enumerate().filter(|(i, _)| certificate.signers & (1 << i) != 0);
    let keys = signers.map(|(_, m)| public(m)).collect::<Result<Vec<_>, _>>()?;
    let sum = AggregatePublicKey::aggregate(&keys.iter().collect::<Vec<_>>(), false)
        .map_err(|_| SignError::Malformed("no key to add up"))?
        .to_public_key();
    let vote = Vote::Finalize { parent_view: certificate.parent_view, block: block_hash(&certificate.header) };
    let message = vote_message(certificate.header.db, certificate.header.consensus_epoch, certificate.view, vote);
    match signature(&certificate.signature)?.verify(false, &message, VOTE_SUITE, &[], &sum, false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(SignError::Certificate(certificate.header.height)),
    }
}

/// A certificate of a block by those of `keys` that are members: for clusters whose keys are all at hand.
///
/// # Errors
/// [`SignError`] where none of them is a member.
pub fn certify(
    header: fluence_types::block::BlockHeader,
    view: u64,
    parent_view: u64,
    members: &Members,
    keys: &[&crate::sign::NodeKey],
) -> Result<Certificate, SignError> {
    let vote = Vote::Finalize { parent_view, block: block_hash(&header) };
    let mut signers = 0;
    let mut votes = Vec::new();
    for key in keys {
        if let Some(at) = position(members, &key.id()) {
            signers |= 1 << at;
            votes.push(key.vote().sign(header.db, header.consensus_epoch, view, vote));
        }
    }
    let signature = aggregate(&votes)?;
    Ok(Certificate { header, view, parent_view, signers, signature })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
