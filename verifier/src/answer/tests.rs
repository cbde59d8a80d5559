use super::*;
use fluence_crypto::roots::Catalogue;
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::tree::SegmentTree;
use fluence_crypto::{roots, vote};
use fluence_types::answer::CellRange;
use fluence_types::block::{BlockHeader, Members};
use fluence_types::codec::{Bounded, decode, encode};
use fluence_types::limits::ANSWER_BYTES_MAX;
use fluence_types::segment::{HeaderBlob, Lane, LaneKind};
use fluence_types::tree::DbPreimage;
use fluence_types::{
    AuxRoot, BlockHash, CatalogueRoot, FieldBytes, SchemaHash, SegmentId, StoredRoot, TableId, hash_halves,
};
use std::collections::BTreeMap;

const DB: DatabaseId = DatabaseId::from_bytes([5; 16]);

struct Segment {
    cells: Vec<Cell>,
    tree: SegmentTree,
    preimage: SegmentPreimage,
    header_cells: usize,
}

impl Segment {
    /// One byte lane and one sum lane of `rows` rows.
    fn new(id: u8, rows: u64) -> Self {
        let blob =
            HeaderBlob { block_ends: vec![vec![700]], fences: vec![vec![1; 40]], key_commitments: vec![[3; 32]; 2] };
        let mut header = SegmentHeader {
            id: SegmentId::from_bytes([id; 16]),
            rows,
            schema: SchemaHash::from_bytes([9; 32]),
            key_epoch: 0,
            lanes: vec![Lane { kind: LaneKind::Bytes, first_cell: 1, cells: 3, rows, bytes: 700 }; 2],
            blob,
        };
        let sums = rows.div_ceil(8);
        header.lanes[0].first_cell = header.cells();
        header.lanes[1] = Lane { kind: LaneKind::Sum, first_cell: header.cells() + 3, cells: sums, rows, bytes: 0 };
        let mut cells = header.to_cells();
        let header_cells = cells.len();
        for i in 0..3 + sums {
            cells.push(std::array::from_fn(|w| FieldBytes::from_u64(u64::from(id) * 1_000_000 + i * 8 + w as u64)));
        }
        let tree = SegmentTree::from_bytes_cells(&cells);
        let preimage = SegmentPreimage {
            tree_root: field::to_bytes(&tree.root()),
            cells: cells.len() as u64,
            header_hash: tree::header_hash(&cells[..header_cells]),
        };
        Self { cells, tree, preimage, header_cells }
    }

    fn root(&self) -> SegmentRoot {
        tree::segment_root(&self.preimage)
    }

    fn open(&self, ranges: &[CellRange]) -> SegmentOpening {
        let indices: Vec<u64> = ranges.iter().flat_map(|r| r.first..r.end()).collect();
        let mut cell_at = |i: u64| Ok::<_, ()>(field::cell_to_fr(&self.cells[i as usize]));
        let siblings =
            if indices.is_empty() { Vec::new() } else { tree::multi_open(&self.tree, &indices, &mut cell_at).unwrap() };
        SegmentOpening {
            preimage: self.preimage,
            cells: indices.iter().map(|i| self.cells[*i as usize]).collect(),
            siblings: siblings.iter().map(field::to_bytes).collect(),
        }
    }
}

fn members(keys: &[&NodeKey]) -> Members {
    let mut members: Vec<_> = keys.iter().map(|k| k.member()).collect();
    members.sort_by_key(|m| m.node);
    Bounded::new(members).unwrap()
}

/// The block that carries the root after `executed`.
fn header(db: DatabaseId, executed: Height, root: DbRoot) -> BlockHeader {
    let height = Height(executed.0 + 1);
    BlockHeader {
        db,
        consensus_epoch: epoch_of(height),
        height,
        parent: BlockHash::from_bytes([1; 32]),
        timestamp_ms: 1,
        ops_hash: [0; 32],
        executed_height: executed,
        executed_root: root,
        next_members_hash: [0; 32],
    }
}

fn certify(header: &BlockHeader, keys: &[&NodeKey]) -> Certificate {
    vote::certify(header.clone(), 11, 10, &members(keys), keys).unwrap()
}

struct World {
    node: NodeKey,
    segments: Vec<Segment>,
    version: Version,
    height: Height,
    db: DatabaseId,
}

impl World {
    fn new() -> Self {
        let node = NodeKey::new(Secret::new([7; 32]));
        let segments = vec![Segment::new(1, 256), Segment::new(2, 9), Segment::new(3, 64)];
        Self { node, segments, version: Version(4), height: Height(10), db: DB }
    }

    fn trust(&self) -> Trust {
        Trust { db: DB, committee: Committee::new(0, members(&[&self.node])), min_height: Height(10) }
    }

    fn snapshot(&self) -> Snapshot {
        let entry = CatalogueEntry {
            projection: ProjectionId(1),
            table: TableId(1),
            version: self.version,
            schema: SchemaHash::from_bytes([9; 32]),
            live: Bounded::new(self.segments.iter().map(Segment::root).collect()).unwrap(),
        };
        let catalogue = Catalogue::new(&[Fr::from(77u64), roots::catalogue_leaf(&entry)]);
        let db = DbPreimage {
            db: self.db,
            stored_root: StoredRoot::from_field(FieldBytes::from_u64(11)),
            stored_cells: 1234,
            catalogue_root: catalogue.root(),
            aux_root: AuxRoot::from_field(FieldBytes::from_u64(12)),
        };
        let certificate = certify(&header(self.db, self.height, roots::db_root(&db)), &[&self.node]);
        Snapshot { certificate, opening: CatalogueOpening { db, entry, path: catalogue.path(1) } }
    }

    fn ranges(&self) -> Vec<Vec<CellRange>> {
        let at = |s: &Segment, k: u64| s.header_cells as u64 + k;
        vec![
            vec![
                CellRange { first: 1, count: 1 },
                CellRange { first: at(&self.segments[0], 0), count: 3 },
                CellRange { first: at(&self.segments[0], 20), count: 2 },
            ],
            vec![CellRange { first: at(&self.segments[1], 3), count: 1 }],
            vec![],
        ]
    }

    fn request(&self) -> OpenRequest {
        let segments = self
            .segments
            .iter()
            .zip(self.ranges())
            .map(|(s, r)| SegmentRanges { segment: s.root(), ranges: Bounded::new(r).unwrap() });
        OpenRequest {
            db: DB,
            projection: ProjectionId(1),
            version: Version(4),
            segments: Bounded::new(segments.collect()).unwrap(),
        }
    }

    fn answer(&self) -> Answer {
        let openings = self.segments.iter().zip(self.ranges()).map(|(s, r)| s.open(&r));
        Answer { snapshot: self.snapshot(), segments: Bounded::new(openings.collect()).unwrap() }
    }
}

fn with_segments(answer: &mut Answer, change: impl FnOnce(&mut Vec<SegmentOpening>)) {
    let mut segments = std::mem::take(&mut answer.segments).into_vec();
    change(&mut segments);
    answer.segments = Bounded::new(segments).unwrap();
}

#[test]
fn accepts_the_honest_answer_and_hands_out_its_cells() {
    let world = World::new();
    let verified = verify(&world.trust(), &world.request(), world.answer()).unwrap();
    assert_eq!(verified.checkpoint().height, Height(10));
    assert_eq!(verified.entry().live.len(), 3);
    let first = &verified.segments()[0];
    let lane = world.segments[0].header_cells as u64;
    assert_eq!(first.cell(lane + 20), Some(&world.segments[0].cells[lane as usize + 20]));
    assert_eq!(first.cell(lane + 19), None);
    assert_eq!(first.span(lane, 3).unwrap().len(), 3);
    assert!(first.span(lane, 4).is_none() && first.span(lane + 19, 2).is_none());
    assert!(verified.segments()[2].cells().is_empty());
}

#[test]
fn rejects_each_kind_of_lie_with_an_error_that_names_it() {
    type Lie = Box<dyn Fn(&mut World, &mut Answer)>;
    let lies: Vec<(&str, Lie)> = vec![
        ("segment 0 of the answer", Box::new(|_, a| with_segments(a, |s| s.swap(0, 1)))),
        ("2 segments opened, 3 are live", Box::new(|_, a| with_segments(a, |s| drop(s.remove(1))))),
        ("4 segments opened, 3 are live", Box::new(|_, a| with_segments(a, |s| s.push(s[0].clone())))),
        ("segment 1 of the answer", Box::new(|_, a| with_segments(a, |s| s[1] = s[0].clone()))),
        ("5 cells, 6 were asked for", Box::new(|_, a| with_segments(a, |s| s[0].cells.truncate(5)))),
        (
            "7 cells, 6 were asked for",
            Box::new(|_, a| {
                with_segments(a, |s| {
                    let c = s[0].cells[0];
                    s[0].cells.push(c);
                })
            }),
        ),
        ("are not the ones stored", Box::new(|_, a| with_segments(a, |s| s[0].cells.swap(1, 2)))),
        ("are not the ones stored", Box::new(|_, a| with_segments(a, |s| s[0].cells[3][5] = FieldBytes::from_u64(1)))),
        ("left over", Box::new(|_, a| with_segments(a, |s| s[0].siblings.push(FieldBytes::ZERO)))),
        (
            "more are needed",
            Box::new(|_, a| {
                with_segments(a, |s| {
                    let keep = s[0].siblings.len() - 1;
                    s[0].siblings.truncate(keep);
                })
            }),
        ),
        ("left over", Box::new(|_, a| with_segments(a, |s| s[2].siblings.push(FieldBytes::ZERO)))),
        ("segment 0 of the answer", Box::new(|_, a| with_segments(a, |s| s[0].preimage.cells += 1))),
        // A stale segment: the one that was live before a compaction.
        (
            "segment 1 of the answer",
            Box::new(|w, a| {
                let old = Segment::new(8, 9).open(&w.ranges()[1]);
                with_segments(a, |s| s[1] = old);
            }),
        ),
        (
            "height 9 is older than 10",
            Box::new(|w, a| {
                w.height = Height(9);
                a.snapshot = w.snapshot();
            }),
        ),
        (
            "projection is at version 3, the plan was made for 4",
            Box::new(|w, a| {
                w.version = Version(3);
                a.snapshot = w.snapshot();
            }),
        ),
        (
            "certificate is about database",
            Box::new(|w, a| {
                w.db = DatabaseId::from_bytes([6; 16]);
                a.snapshot = w.snapshot();
            }),
        ),
        ("catalogue is about database", Box::new(|_, a| a.snapshot.opening.db.db = DatabaseId::from_bytes([6; 16]))),
        (
            "not signed by the members",
            Box::new(|w, a| {
                w.node = NodeKey::new(Secret::new([8; 32]));
                a.snapshot = w.snapshot();
                w.node = NodeKey::new(Secret::new([7; 32]));
            }),
        ),
        ("0 of 1 members signed", Box::new(|_, a| a.snapshot.certificate.signers = 0)),
        ("not signed by the members", Box::new(|_, a| a.snapshot.certificate.header.height = Height(12))),
        (
            "not one that an honest committee",
            Box::new(|_, a| a.snapshot.certificate.header.executed_height = Height(11)),
        ),
        ("catalogue opens to database root", Box::new(|_, a| a.snapshot.opening.db.stored_cells += 1)),
        // An entry with the retraction segment left out, or a superseded one still counted.
        (
            "does not open to the catalogue root",
            Box::new(|_, a| {
                let mut live = a.snapshot.opening.entry.live.to_vec();
                live.pop();
                a.snapshot.opening.entry.live = Bounded::new(live).unwrap();
            }),
        ),
        (
            "does not open to the catalogue root",
            Box::new(|_, a| {
                a.snapshot.opening.entry.projection = ProjectionId(0);
            }),
        ),
        (
            "catalogue opens to database root",
            Box::new(|_, a| {
                let db = &mut a.snapshot.opening.db;
                db.aux_root = AuxRoot::from_field(FieldBytes::from_u64(13));
            }),
        ),
        (
            "does not open to the catalogue root",
            Box::new(|_, a| {
                a.snapshot.opening.db.catalogue_root = CatalogueRoot::from_field(FieldBytes::from_u64(13));
            }),
        ),
    ];
    for (i, (want, lie)) in lies.iter().enumerate() {
        let mut world = World::new();
        let (trust, request, mut answer) = (world.trust(), world.request(), world.answer());
        lie(&mut world, &mut answer);
        let error = verify(&trust, &request, answer).expect_err(want).to_string();
        assert!(error.contains(want), "lie {i}: {error:?} lacks {want:?}");
    }
}

#[test]
fn rejects_plans_that_leave_a_live_segment_out_or_reach_beyond_its_end() {
    let world = World::new();
    let mut short = world.request();
    short.segments = Bounded::new(short.segments[..2].to_vec()).unwrap();
    let mut answer = world.answer();
    with_segments(&mut answer, |s| drop(s.pop()));
    assert!(matches!(verify(&world.trust(), &short, answer), Err(AnswerError::Request(_))));

    let mut far = world.request();
    let mut segments = far.segments.to_vec();
    segments[1].ranges = Bounded::new(vec![CellRange { first: 100_000, count: 1 }]).unwrap();
    far.segments = Bounded::new(segments).unwrap();
    assert!(matches!(verify(&world.trust(), &far, world.answer()), Err(AnswerError::Beyond { cell: 100_000, .. })));
}

#[test]
fn a_wrong_cell_is_named_by_segment_and_page() {
    let world = World::new();
    let mut answer = world.answer();
    with_segments(&mut answer, |s| s[1].cells[0][0] = FieldBytes::from_u64(3));
    match verify(&world.trust(), &world.request(), answer).unwrap_err() {
        AnswerError::Cells { segment, first, last, why: TreeError::Root } => {
            assert_eq!(segment, world.segments[1].root());
            assert_eq!((first, last), (world.ranges()[1][0].first, world.ranges()[1][0].first));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn headers_are_checked_against_the_segment_root() {
    let world = World::new();
    let s = &world.segments[0];
    let honest = HeaderAnswer { preimage: s.preimage, cells: s.cells[..s.header_cells].to_vec() };
    assert_eq!(verify_header(&s.root(), &honest).unwrap().rows, 256);
    let mut wrong = honest.clone();
    wrong.cells[2][3] = FieldBytes::from_u64(1);
    assert!(matches!(verify_header(&s.root(), &wrong), Err(AnswerError::HeaderCells { .. })));
    let mut longer = honest.clone();
    longer.cells.push(s.cells[s.header_cells]);
    assert!(matches!(verify_header(&s.root(), &longer), Err(AnswerError::HeaderCells { .. })));
    assert!(matches!(verify_header(&world.segments[1].root(), &honest), Err(AnswerError::Segment { .. })));
    // A header whose hash is bound but whose lanes are longer than the segment.
    let mut preimage = s.preimage;
    preimage.cells += 1;
    let lie = HeaderAnswer { preimage, cells: honest.cells };
    assert!(matches!(verify_header(&tree::segment_root(&preimage), &lie), Err(AnswerError::HeaderCells { .. })));
    let (hi, _) = hash_halves(&[9; 32]);
    assert_eq!(s.cells[0][5], hi);
}

#[test]
fn every_flipped_byte_of_an_answer_is_refused() {
    let world = World::new();
    let (trust, request) = (world.trust(), world.request());
    let honest = encode(&world.answer());
    let mut refused = BTreeMap::<&str, usize>::new();
    for at in 0..honest.len() {
        let mut bytes = honest.clone();
        bytes[at] ^= 1 << (at % 8);
        let by = match decode::<Answer>("answer", &bytes, ANSWER_BYTES_MAX) {
            Err(_) => "codec",
            Ok(answer) => {
                assert!(verify(&trust, &request, answer).is_err(), "flip at byte {at} of {}", honest.len());
                "verifier"
            }
        };
        *refused.entry(by).or_default() += 1;
    }
    println!("{} flips, all refused: {refused:?}", honest.len());
    assert_eq!(refused.values().sum::<usize>(), honest.len());
}

#[test]
fn a_committee_is_taken_for_later_epochs_as_long_as_it_signs_them() {
    let key = |i| NodeKey::new(Secret::new([i; 32]));
    let keys: Vec<_> = (1..=4).map(key).collect();
    let all: Vec<_> = keys.iter().collect();
    let strangers: Vec<_> = (5..=8).map(key).collect();
    let strangers: Vec<_> = strangers.iter().collect();
    let root = DbRoot::from_field(FieldBytes::from_u64(9));
    let trust = |since, until| {
        let committee = Committee { since, until, members: members(&all) };
        Trust { db: DB, committee, min_height: Height(0) }
    };
    // Heights of epochs 1, 2, 3 and 9.
    for height in [65, 130, 200, 600] {
        let certificate = certify(&header(DB, Height(height), root), &all);
        let certified = verify_certificate(&trust(1, None), &certificate).unwrap();
        assert_eq!((certified.get().height, certified.epoch()), (Height(height), height / 64));
    }
    let at = |height| certify(&header(DB, Height(height), root), &all);
    // The committee was another one then.
    let old = verify_certificate(&trust(2, None), &at(65)).unwrap_err();
    assert!(matches!(old, AnswerError::OldCommittee { epoch: 1, since: 2 }), "{old}");
    // It has ended.
    verify_certificate(&trust(1, Some(2)), &at(130)).unwrap();
    let late = verify_certificate(&trust(1, Some(2)), &at(200)).unwrap_err();
    assert!(matches!(late, AnswerError::NewCommittee { epoch: 3, since: 1 }), "{late}");
    // Others sign: in an epoch of ours they lie, later they may have taken over.
    let by_strangers = |height| certify(&header(DB, Height(height), root), &strangers);
    let lie = verify_certificate(&trust(1, None), &by_strangers(66)).unwrap_err();
    assert!(matches!(lie, AnswerError::Certificate { why: SignError::Certificate(_), .. }), "{lie}");
    let new = verify_certificate(&trust(1, None), &by_strangers(130)).unwrap_err();
    assert!(matches!(new, AnswerError::NewCommittee { epoch: 2, since: 1 }), "{new}");
    // The epoch is the height's, or nobody could say whose committee signs.
    let mut shifted = header(DB, Height(130), root);
    shifted.consensus_epoch = 1;
    let impossible = verify_certificate(&trust(1, None), &certify(&shifted, &all)).unwrap_err();
    assert!(matches!(impossible, AnswerError::Impossible { epoch: 1, .. }), "{impossible}");
}

#[test]
fn the_last_certificate_of_a_committee_says_that_it_ends() {
    let key = NodeKey::new(Secret::new([1; 32]));
    let other = NodeKey::new(Secret::new([2; 32]));
    let trust = Trust { db: DB, committee: Committee::new(0, members(&[&key])), min_height: Height(0) };
    let ended = |executed, next: &NodeKey| {
        let mut header = header(DB, Height(executed), DbRoot::default());
        header.next_members_hash = vote::members_hash(&members(&[next])).unwrap();
        verify_certificate(&trust, &certify(&header, &[&key])).unwrap().ended()
    };
    assert!(ended(62, &other));
    assert!(!ended(62, &key));
    // Before the end nothing is settled.
    assert!(!ended(61, &other));
}
