//! How committees handed over: noted by every member when it happens, and followed by who was away.
//!
//! Rule     a handover is the certificate of an epoch's last block, which names the next committee by its hash, with that committee. It is
//!          noted before the certificate may be pruned, and kept for ever: who has been away follows one after the other.
//! Source   `docs/protocol/cluster.md`, "Consensus epochs and committees"; `verifier::committee` is the client's side of it

use fluence_crypto::vote::{members_hash, verify_certificate, verify_members};
use fluence_engine::{Engine, StoreError};
use fluence_types::block::{Certificate, Handover, Members, ends_epoch, epoch_of};
use fluence_types::{DatabaseId, codec};

const NOTE: &[u8] = b"handover/";
/// Longest handover.
const BYTES_MAX: usize = 64 << 10;

fn name(epoch: u64) -> Vec<u8> {
    [NOTE, &epoch.to_be_bytes()].concat()
}

/// As it is noted beside a database.
pub(crate) fn noted(handover: &Handover) -> (Vec<u8>, Vec<u8>) {
    (name(handover.certificate.header.consensus_epoch), codec::encode(handover))
}

/// Notes a handover, where the certificate is that of an epoch's last block and the committee changes with it.
pub(crate) fn note(engine: &Engine, certificate: &Certificate) -> Result<(), StoreError> {
    let header = &certificate.header;
    let (db, epoch) = (header.db, header.consensus_epoch);
    if !ends_epoch(header.height) {
        return Ok(());
    }
    let (Some(now), Some(members)) = (engine.committee(db, epoch)?, engine.committee(db, epoch + 1)?) else {
        return Ok(());
    };
    if now == members || engine.note(db, &name(epoch))?.is_some() {
        return Ok(());
    }
    let (name, bytes) = noted(&Handover { certificate: certificate.clone(), members });
    engine.set_note(db, &name, bytes)
}

/// The handovers at the ends of `from_epoch` and later that are noted here, oldest first.
#[must_use]
pub fn handovers(engine: &Engine, db: DatabaseId, from_epoch: u64, max: usize) -> Vec<Handover> {
    let (notes, from) = (engine.notes(db, NOTE).unwrap_or_default(), name(from_epoch));
    let later = notes.into_iter().filter(|(name, _)| *name >= from);
    later.filter_map(|(_, bytes)| codec::decode("handover", &bytes, BYTES_MAX).ok()).take(max).collect()
}

/// Whether `members`, who are the committee from epoch `since` on, hand over like this.
pub(crate) fn check(db: DatabaseId, since: u64, members: &Members, handover: &Handover) -> Result<(), &'static str> {
    let header = &handover.certificate.header;
    if header.db != db || !ends_epoch(header.height) || header.consensus_epoch != epoch_of(header.height) {
        return Err("a handover that is not of an epoch's last block");
    }
    if header.consensus_epoch < since {
        return Err("a handover that is over");
    }
    if verify_certificate(&handover.certificate, members).is_err() {
        return Err("a handover that the committee before did not sign");
    }
    if verify_members(&handover.members).is_err() || members_hash(&handover.members) != Ok(header.next_members_hash) {
        return Err("a handover to others than the ones that were signed for");
    }
    Ok(())
}
