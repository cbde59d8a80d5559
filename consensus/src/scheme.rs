//! Our keys and certificates in the library's types, and back.
//!
//! Rule    both sides must sign the same bytes: `crypto::vote` and the library are compared in this module's tests.

use crate::block::{BlockDigest, digest};
use bytes::Bytes;
use commonware_codec::{DecodeExt, Encode};
use commonware_consensus::simplex::scheme::bls12381_multisig;
use commonware_consensus::simplex::types::{Finalization as LibraryFinalization, Proposal};
use commonware_consensus::types::{Epoch, Round, View};
use commonware_cryptography::bls12381::primitives::group::Private;
use commonware_cryptography::bls12381::primitives::variant::{MinSig, Variant};
use commonware_cryptography::certificate::Signers;
use commonware_cryptography::ed25519;
use commonware_utils::Participant;
use commonware_utils::TryFromIterator;
use commonware_utils::ordered::BiMap;
use fluence_crypto::sign::{NodeKey, block_hash};
use fluence_crypto::vote::namespace;
use fluence_types::block::{BlockHeader, Certificate, Members};
use fluence_types::{DatabaseId, NodeId};
use zeroize::Zeroizing;

/// A node as the library names it: the same 32 bytes as its [`NodeId`].
pub type Identity = ed25519::PublicKey;
/// Attributable BLS multi-signatures, signatures in G1.
pub type Scheme = bls12381_multisig::Scheme<Identity, MinSig>;
/// A finalization certificate of the library.
pub type Finalization = LibraryFinalization<Scheme, BlockDigest>;

/// Keys or certificates that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemeError {
    /// The id is no Ed25519 point.
    #[error("{0} is not the id of a node")]
    Node(NodeId),
    /// The vote key is no point of G2.
    #[error("node {0} has no vote key")]
    VoteKey(NodeId),
    /// Members that repeat a node or a key.
    #[error("the members repeat a node or a vote key")]
    Repeated,
    /// A certificate that cannot be one of this committee.
    #[error("the certificate does not fit {0} members")]
    Certificate(usize),
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A node in the library's terms.
///
/// # Errors
/// [`SchemeError::Node`].
pub fn identity(node: &NodeId) -> Result<Identity, SchemeError> {
    Identity::decode(copy(node.as_bytes())).map_err(|_| SchemeError::Node(*node))
}

/// A node in ours.
#[must_use]
pub fn node_id(identity: &Identity) -> NodeId {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(identity.as_ref());
    NodeId::from_bytes(bytes)
}

/// The committee of a cluster; it signs where `key` is a member's, and only checks otherwise. Its members' proofs of possession were
/// checked when they entered it.
///
/// # Errors
/// [`SchemeError`].
pub fn committee_scheme(db: DatabaseId, members: &Members, key: Option<&NodeKey>) -> Result<Scheme, SchemeError> {
    let pairs = members.iter().map(|m| {
        let vote = <MinSig as Variant>::Public::decode(copy(&m.vote_key));
        Ok((identity(&m.node)?, vote.map_err(|_| SchemeError::VoteKey(m.node))?))
    });
    let pairs = pairs.collect::<Result<Vec<_>, SchemeError>>()?;
    let participants = BiMap::try_from_iter(pairs).map_err(|_| SchemeError::Repeated)?;
    let namespace = namespace(db);
    let signer = key.and_then(|key| {
        let private = key.vote().expose(|scalar| Private::decode(Bytes::from_owner(Zeroizing::new(*scalar)))).ok()?;
        Scheme::signer(&namespace, participants.clone(), private)
    });
    Ok(signer.unwrap_or_else(|| Scheme::verifier(&namespace, participants)))
}

/// Our certificate of the block with this header.
#[must_use]
pub fn certificate(header: BlockHeader, finalization: &Finalization) -> Option<Certificate> {
    let signers = finalization.certificate.signers.iter().fold(0, |bits, at| bits | 1 << at.get());
    let signature = finalization.certificate.signature.get()?.encode();
    Some(Certificate {
        header,
        view: finalization.proposal.round.view().get(),
        parent_view: finalization.proposal.parent.get(),
        signers,
        signature: signature.as_ref().try_into().ok()?,
    })
}

/// The library's certificate, to start from. It is not verified here.
///
/// # Errors
/// [`SchemeError::Certificate`].
pub fn finalization(certificate: &Certificate, members: usize) -> Result<Finalization, SchemeError> {
    let wrong = SchemeError::Certificate(members);
    let round = Round::new(Epoch::new(certificate.header.consensus_epoch), View::new(certificate.view));
    let payload = digest(&block_hash(&certificate.header));
    let proposal = Proposal::new(round, View::new(certificate.parent_view), payload);
    let named = (0..32u32).filter(|i| certificate.signers & (1 << i) != 0).map(Participant::new);
    let count = u32::try_from(members).map_err(|_| wrong.clone())?;
    let signers = Signers::new(count, named).map_err(|_| wrong.clone())?;
    let signature = DecodeExt::decode(copy(&certificate.signature)).map_err(|_| wrong)?;
    let certificate = commonware_cryptography::bls12381::certificate::multisig::Certificate { signers, signature };
    Ok(Finalization { proposal, certificate })
}

#[cfg(test)]
mod tests;
