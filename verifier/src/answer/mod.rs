//! Answers of nodes, checked: `Snapshot -> CertifiedSnapshot`, `HeaderAnswer -> SegmentHeader`, `Answer -> VerifiedAnswer`.
//!
//! Rule    an answer is bytes from a stranger. What leaves here is bound, scalar by scalar, to a root that a quorum of the members the
//!         caller trusts signed, for the database asked about, at a height not below the last one seen, with every live segment of the
//!         projection opened, in catalogue order. Each refusal says which certificate, segment or cells were wrong.
//! Epochs  a committee that is trusted for one epoch is taken for later ones too, as long as it signs them: it changes only by handovers
//!         ([`crate::committee`]). What an earlier committee signs, or one that is known to have ended, is refused.
//! Limits  the multi-opening has one root for all cells of a segment, so a wrong cell is named by the span of pages that was asked for;
//!         a caller that wants the page asks page by page (`client` does).
//! Source  DESIGN sections 3, 6 and 7

use crate::committee::Committee;
use fluence_crypto::roots::CatalogueError;
use fluence_crypto::sign::SignError;
use fluence_crypto::tree::{self, TreeError};
use fluence_crypto::{Fr, field};
use fluence_types::answer::{Answer, HeaderAnswer, OpenRequest, SegmentOpening, SegmentRanges, Snapshot};
use fluence_types::block::{Certificate, Checkpoint, epoch_of};
use fluence_types::limits::{PAGE_CELLS, SEGMENT_CELLS_MAX};
use fluence_types::segment::{HeaderError, SegmentHeader};
use fluence_types::tree::{CatalogueEntry, CatalogueOpening, Cell, SegmentPreimage};
use fluence_types::{DatabaseId, DbRoot, Height, ProjectionId, SegmentRoot, Version};

mod memo;
#[cfg(test)]
mod tests;

/// What the caller trusts before it asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    /// The database.
    pub db: DatabaseId,
    /// Its committee, as far as the caller knows.
    pub committee: Committee,
    /// The last height seen; nothing older is believed.
    pub min_height: Height,
}

/// Why an answer was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It speaks of another database.
    #[error("the {what} is about database {got}, asked was {expected}")]
    ForeignDatabase {
        /// Certificate, catalogue or request.
        what: &'static str,
        /// Its database.
        got: DatabaseId,
        /// The one asked about.
        expected: DatabaseId,
    },
    /// The certificate does not hold against the members the caller trusts.
    #[error("certificate of height {height} refused: {why}")]
    Certificate {
        /// The height it claims.
        height: Height,
        /// What is wrong.
        why: SignError,
    },
    /// Its height and the epoch it claims do not fit, or it certifies a root above itself.
    #[error("block {height} of epoch {epoch} is not one that an honest committee signs")]
    Impossible {
        /// The block's height.
        height: Height,
        /// The epoch it claims.
        epoch: u64,
    },
    /// Of an epoch before the committee that the caller trusts: nobody answers for what earlier members sign now.
    #[error("certificate of epoch {epoch}, the committee trusted is that of epoch {since} and later")]
    OldCommittee {
        /// The certificate's epoch.
        epoch: u64,
        /// The first epoch of the committee trusted.
        since: u64,
    },
    /// Of a later epoch, and not signed by the committee that the caller trusts: ask for the handovers since then.
    #[error("certificate of epoch {epoch} is not by the committee of epoch {since}; it may have handed over since")]
    NewCommittee {
        /// The certificate's epoch.
        epoch: u64,
        /// The first epoch of the committee trusted.
        since: u64,
    },
    /// Older than what was seen before: a roll-back, or a node that is behind.
    #[error("height {got} is older than {seen}, which was seen before")]
    OldHeight {
        /// Certified height.
        got: Height,
        /// Last height seen.
        seen: Height,
    },
    /// The catalogue entry does not open.
    #[error("catalogue refused: {0}")]
    Catalogue(#[from] CatalogueError),
    /// It opens, to a root that is not the certified one.
    #[error("the catalogue opens to database root {got}, certified is {certified}")]
    DbRoot {
        /// Root it opens to.
        got: DbRoot,
        /// Root that is certified.
        certified: DbRoot,
    },
    /// Another projection's entry.
    #[error("entry of projection {got}, asked was {expected}")]
    Projection {
        /// The entry's.
        got: ProjectionId,
        /// The one asked about.
        expected: ProjectionId,
    },
    /// The projection is not at the version that was planned for: plan again.
    #[error("projection is at version {got}, the plan was made for {expected}")]
    Version {
        /// The entry's.
        got: Version,
        /// The plan's.
        expected: Version,
    },
    /// The request itself is malformed, or names other segments than are live.
    #[error("bad request: {0}")]
    Request(String),
    /// A live segment is not opened, or one is opened that is not live.
    #[error("{got} segments opened, {live} are live")]
    SegmentCount {
        /// Segments in the answer.
        got: usize,
        /// Live segments by the catalogue.
        live: usize,
    },
    /// The parts given do not make the root of the live segment at this place: a wrong, reordered, superseded or foreign segment.
    #[error("segment {position} of the answer is {got}, live there is {expected}")]
    Segment {
        /// Place in the catalogue's list.
        position: usize,
        /// Root the parts make.
        got: SegmentRoot,
        /// Root that is live.
        expected: SegmentRoot,
    },
    /// The plan asks for cells beyond the segment's end.
    #[error("segment {segment} has {cells} cells, cell {cell} was asked for")]
    Beyond {
        /// The segment.
        segment: SegmentRoot,
        /// Its cells.
        cells: u64,
        /// The first cell beyond.
        cell: u64,
    },
    /// Cells are missing, or there are more than were asked for.
    #[error("segment {segment}: {got} cells, {expected} were asked for")]
    CellCount {
        /// The segment.
        segment: SegmentRoot,
        /// Cells given.
        got: usize,
        /// Cells asked for.
        expected: u64,
    },
    /// The cells are not those of the segment: one is wrong, stale or out of its place.
    #[error(
        "segment {segment}: cells {first}..={last} (pages {}..={}) are not the ones stored: {why}",
        first / PAGE_CELLS as u64,
        last / PAGE_CELLS as u64
    )]
    Cells {
        /// The segment.
        segment: SegmentRoot,
        /// First cell asked for.
        first: u64,
        /// Last cell asked for.
        last: u64,
        /// What the tree says.
        why: TreeError,
    },
    /// The header cells are malformed.
    #[error("header of segment {segment} refused: {why}")]
    Header {
        /// The segment.
        segment: SegmentRoot,
        /// What is wrong.
        why: HeaderError,
    },
    /// The header cells do not hash to what the segment root binds, or are more than the header.
    #[error("header of segment {segment} refused: {why}")]
    HeaderCells {
        /// The segment.
        segment: SegmentRoot,
        /// What is wrong.
        why: &'static str,
    },
}

/// A checkpoint that a quorum of the trusted members signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertifiedCheckpoint {
    checkpoint: Checkpoint,
    epoch: u64,
    ended: bool,
}

impl CertifiedCheckpoint {
    /// What was signed.
    #[must_use]
    pub const fn get(&self) -> &Checkpoint {
        &self.checkpoint
    }
    /// The consensus epoch in which it was signed.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Whether the certificate is also the one by which the committee hands over to another: [`Committee::until`] is its epoch.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }
}

/// A projection's catalogue entry under a certified root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertifiedSnapshot {
    certified: CertifiedCheckpoint,
    opening: CatalogueOpening,
}

impl CertifiedSnapshot {
    /// The checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        self.certified.get()
    }
    /// The checkpoint, with what its certificate says of the committee.
    #[must_use]
    pub const fn certified(&self) -> &CertifiedCheckpoint {
        &self.certified
    }
    /// The projection's entry: its version, schema hash and live segments.
    #[must_use]
    pub const fn entry(&self) -> &CatalogueEntry {
        &self.opening.entry
    }
    /// The opening it was read from.
    #[must_use]
    pub const fn opening(&self) -> &CatalogueOpening {
        &self.opening
    }
}

/// Cells of one live segment, bound to its root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedSegment {
    root: SegmentRoot,
    preimage: SegmentPreimage,
    cells: Vec<(u64, Cell)>,
}

impl VerifiedSegment {
    /// The segment.
    #[must_use]
    pub const fn root(&self) -> SegmentRoot {
        self.root
    }
    /// The parts of its root.
    #[must_use]
    pub const fn preimage(&self) -> &SegmentPreimage {
        &self.preimage
    }
    /// Index and content of each cell, increasing.
    #[must_use]
    pub fn cells(&self) -> &[(u64, Cell)] {
        &self.cells
    }
    /// The cell at `index`, if it was asked for.
    #[must_use]
    pub fn cell(&self, index: u64) -> Option<&Cell> {
        self.cells.binary_search_by_key(&index, |(i, _)| *i).ok().map(|at| &self.cells[at].1)
    }
    /// Cells `first..first + count`, if all of them were asked for.
    #[must_use]
    pub fn span(&self, first: u64, count: u64) -> Option<&[(u64, Cell)]> {
        let at = self.cells.binary_search_by_key(&first, |(i, _)| *i).ok()?;
        let span = self.cells.get(at..at.checked_add(usize::try_from(count).ok()?)?)?;
        (span.last()?.0 == first + count - 1).then_some(span)
    }
}

/// An answer of which every cell is bound to a certified root, with all live segments of the projection. Made by [`verify`] only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedAnswer {
    snapshot: CertifiedSnapshot,
    segments: Vec<VerifiedSegment>,
}

impl VerifiedAnswer {
    /// The certified checkpoint it was answered at.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        self.snapshot.checkpoint()
    }
    /// The projection's entry.
    #[must_use]
    pub const fn entry(&self) -> &CatalogueEntry {
        self.snapshot.entry()
    }
    /// The snapshot.
    #[must_use]
    pub const fn snapshot(&self) -> &CertifiedSnapshot {
        &self.snapshot
    }
    /// One per live segment, in catalogue order.
    #[must_use]
    pub fn segments(&self) -> &[VerifiedSegment] {
        &self.segments
    }
}

/// Checks a certificate: database, committee, quorum, and that it does not go back.
///
/// # Errors
/// [`AnswerError`] naming what was wrong.
pub fn verify_certificate(trust: &Trust, certificate: &Certificate) -> Result<CertifiedCheckpoint, AnswerError> {
    let (header, checkpoint) = (&certificate.header, certificate.checkpoint());
    let (epoch, since) = (header.consensus_epoch, trust.committee.since);
    if header.db != trust.db {
        return Err(AnswerError::ForeignDatabase { what: "certificate", got: header.db, expected: trust.db });
    }
    if epoch != epoch_of(header.height) || header.executed_height >= header.height {
        return Err(AnswerError::Impossible { height: header.height, epoch });
    }
    if epoch < since {
        return Err(AnswerError::OldCommittee { epoch, since });
    }
    if trust.committee.until.is_some_and(|until| epoch > until) {
        return Err(AnswerError::NewCommittee { epoch, since });
    }
    memo::verify_certificate(certificate, &trust.committee.members).map_err(|why| match epoch > since {
        true => AnswerError::NewCommittee { epoch, since },
        false => AnswerError::Certificate { height: checkpoint.height, why },
    })?;
    if checkpoint.height < trust.min_height {
        return Err(AnswerError::OldHeight { got: checkpoint.height, seen: trust.min_height });
    }
    Ok(CertifiedCheckpoint { checkpoint, epoch, ended: trust.committee.ends_with(header) })
}

/// Checks a snapshot: its certificate, and that the catalogue entry stands under the certified root.
///
/// # Errors
/// [`AnswerError`] naming what was wrong.
pub fn verify_snapshot(trust: &Trust, snapshot: Snapshot) -> Result<CertifiedSnapshot, AnswerError> {
    let certified = verify_certificate(trust, &snapshot.certificate)?;
    let checkpoint = certified.checkpoint;
    let opening = snapshot.opening;
    // Without this a node answers from another database it certifies itself, should roots ever be shared.
    if opening.db.db != trust.db {
        return Err(AnswerError::ForeignDatabase { what: "catalogue", got: opening.db.db, expected: trust.db });
    }
    let got = memo::verify_catalogue(&opening)?;
    if got != checkpoint.root {
        return Err(AnswerError::DbRoot { got, certified: checkpoint.root });
    }
    Ok(CertifiedSnapshot { certified, opening })
}

/// Checks a header against the root of its segment.
///
/// # Errors
/// [`AnswerError`] naming the segment and what was wrong.
pub fn verify_header(root: &SegmentRoot, answer: &HeaderAnswer) -> Result<SegmentHeader, AnswerError> {
    let segment = *root;
    let got = tree::segment_root(&answer.preimage);
    if got != segment {
        return Err(AnswerError::Segment { position: 0, got, expected: segment });
    }
    let wrong = |why| Err(AnswerError::HeaderCells { segment, why });
    if answer.cells.len() as u64 > answer.preimage.cells {
        return wrong("more cells than the segment has");
    }
    if tree::header_hash(&answer.cells) != answer.preimage.header_hash {
        return wrong("the cells do not hash to what the segment root binds");
    }
    let header = SegmentHeader::from_cells(&answer.cells).map_err(|why| AnswerError::Header { segment, why })?;
    if header.cells() != answer.cells.len() as u64 {
        return wrong("more cells than the header");
    }
    if header.segment_cells() != answer.preimage.cells {
        return wrong("the lanes do not end where the segment does");
    }
    Ok(header)
}

/// Checks an answer against the request it should answer.
///
/// # Errors
/// [`AnswerError`] naming what was wrong.
pub fn verify(trust: &Trust, request: &OpenRequest, answer: Answer) -> Result<VerifiedAnswer, AnswerError> {
    if request.db != trust.db {
        return Err(AnswerError::ForeignDatabase { what: "request", got: request.db, expected: trust.db });
    }
    if request.cells().is_none() {
        return Err(AnswerError::Request("ranges are malformed or too many".to_owned()));
    }
    let snapshot = verify_snapshot(trust, answer.snapshot)?;
    let entry = snapshot.entry();
    if entry.projection != request.projection {
        return Err(AnswerError::Projection { got: entry.projection, expected: request.projection });
    }
    if entry.version != request.version {
        return Err(AnswerError::Version { got: entry.version, expected: request.version });
    }
    // The catalogue says what is live, not the request: a plan that left a segment out gets no answer either.
    if !entry.live.iter().eq(request.segments.iter().map(|s| &s.segment)) {
        return Err(AnswerError::Request("the plan's segments are not the live ones".to_owned()));
    }
    if answer.segments.len() != entry.live.len() {
        return Err(AnswerError::SegmentCount { got: answer.segments.len(), live: entry.live.len() });
    }
    let pairs = request.segments.iter().zip(answer.segments.into_vec());
    let segments = pairs
        .enumerate()
        .map(|(position, (wanted, opening))| verify_segment(position, wanted, opening))
        .collect::<Result<_, _>>()?;
    Ok(VerifiedAnswer { snapshot, segments })
}

fn verify_segment(
    position: usize,
    wanted: &SegmentRanges,
    opening: SegmentOpening,
) -> Result<VerifiedSegment, AnswerError> {
    let segment = wanted.segment;
    let preimage = opening.preimage;
    let got = tree::segment_root(&preimage);
    if got != segment {
        return Err(AnswerError::Segment { position, got, expected: segment });
    }
    if preimage.cells == 0 || preimage.cells > SEGMENT_CELLS_MAX {
        return Err(AnswerError::Cells { segment, first: 0, last: 0, why: TreeError::Cells(preimage.cells) });
    }
    let expected = wanted.cells().ok_or_else(|| AnswerError::Request("ranges are malformed".to_owned()))?;
    if let Some(range) = wanted.ranges.iter().find(|r| r.end() > preimage.cells) {
        let cell = range.first.max(preimage.cells);
        return Err(AnswerError::Beyond { segment, cells: preimage.cells, cell });
    }
    if opening.cells.len() as u64 != expected {
        return Err(AnswerError::CellCount { segment, got: opening.cells.len(), expected });
    }
    let indices = wanted.ranges.iter().flat_map(|r| r.first..r.end());
    let cells: Vec<(u64, Cell)> = indices.zip(opening.cells).collect();
    let (Some((first, _)), Some((last, _))) = (cells.first(), cells.last()) else {
        // Nothing was asked of this segment; siblings would be bytes that nobody checks.
        return match opening.siblings.len() {
            0 => Ok(VerifiedSegment { root: segment, preimage, cells }),
            n => Err(AnswerError::Cells { segment, first: 0, last: 0, why: TreeError::Extra(n) }),
        };
    };
    let wrong = |why| AnswerError::Cells { segment, first: *first, last: *last, why };
    let opened: Vec<(u64, [Fr; 8])> = cells.iter().map(|(i, c)| (*i, field::cell_to_fr(c))).collect();
    let siblings: Vec<Fr> = opening.siblings.iter().map(field::from_bytes).collect();
    let root = tree::multi_root(preimage.cells, &opened, &siblings).map_err(wrong)?;
    if field::to_bytes(&root) != preimage.tree_root {
        return Err(wrong(TreeError::Root));
    }
    Ok(VerifiedSegment { root: segment, preimage, cells })
}
