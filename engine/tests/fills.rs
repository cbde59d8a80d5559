//! Fills: segments that a block stored and whose cells were not here arrive later; nothing of them is served before.

use fluence_engine::store::{Batch, Durability};
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{
    CheckedUpload, Engine, EngineConfig, FailingStore, Failure, FjallOptions, FjallStore, MemStore, Missing, Rules,
    Store, UploadError,
};
use fluence_types::answer::{CellRange, OpenRefusal};
use fluence_types::op::{OpRefusal, SegmentRef};
use fluence_types::{DatabaseId, FieldBytes, Height, SchemaHash, SegmentId};
use std::sync::Arc;

const CONFIG: EngineConfig = EngineConfig {
    rules: Rules::retaining(3),
    upload_blocks: 2,
    upload_margin_blocks: 1,
    upload_bytes_max: 2 << 20,
    uploads_max: 1,
};

fn open(store: &Arc<MemStore>) -> Engine {
    Engine::open(store.clone(), CONFIG).unwrap()
}

fn segment(seed: u64, rows: u64) -> TestSegment {
    TestSegment::new(seed, &schema(1, 1), rows, 10)
}

/// Two engines with the same log: the segments are in the first one, and ordered on both.
struct Pair {
    there: Engine,
    twin: TestDb,
    store: Arc<MemStore>,
    here: Engine,
    db: TestDb,
}

impl Pair {
    fn new() -> Self {
        let prepare = |store: &Arc<MemStore>| {
            let (engine, mut db) = (open(store), TestDb::new(1, 1));
            db.create(&engine).unwrap();
            db.act(&engine, define(0, schema(1, 1))).unwrap().unwrap();
            (engine, db)
        };
        let (there, twin) = prepare(&Arc::default());
        let store = Arc::default();
        let (here, db) = prepare(&store);
        Self { there, twin, store, here, db }
    }

    fn order(&mut self, version: u64, s: &TestSegment) {
        let checked = s.upload(&self.there, self.twin.db, 1 << 20).unwrap();
        let op = commit(&[(0, version)], vec![change(0, vec![s.delivered(self.twin.receipts(&checked, 1))], vec![])]);
        self.twin.act(&self.there, op.clone()).unwrap().unwrap();
        let op = self.db.owner.sign(self.db.db, op);
        assert_eq!(self.db.apply(&self.here, vec![op.clone()]).unwrap().missing, vec![s.root()]);
        self.db.owner.advance(&op);
        assert_eq!(self.db.last, self.twin.last, "the root does not depend on who has the cells");
    }

    fn missing(&self) -> Vec<Missing> {
        self.here.missing(self.db.db)
    }

    fn have(&self) -> u64 {
        self.missing()[0].have
    }

    /// Every way to read, refused.
    fn refused(&self, s: &TestSegment) {
        let refusal = OpenRefusal::NotHere(s.root());
        let view = self.here.view(self.db.db).unwrap();
        assert_eq!(view.page(s.root(), 0), Err(refusal.clone()));
        assert_eq!(view.header(s.root()).unwrap_err(), refusal);
        assert_eq!(view.cells(s.root(), CellRange { first: 0, count: 1 }).unwrap_err(), refusal);
        assert!(self.here.scrub(&mut |_| true).is_empty(), "what is on its way is not lost");
        assert_eq!(view.summary().lost_pages, 0);
    }

    fn served(&self, s: &TestSegment) {
        assert!(self.missing().is_empty());
        let view = self.here.view(self.db.db).unwrap();
        let pages = s.preimage.cells.div_ceil(64);
        let bytes: Vec<u8> = (0..pages).flat_map(|p| view.page(s.root(), p).unwrap()).collect();
        assert_eq!(bytes, s.bytes());
        let range = CellRange { first: 0, count: s.preimage.cells };
        let view = self.there.view(self.db.db).unwrap();
        assert_eq!(self.here.view(self.db.db).unwrap().cells(s.root(), range), view.cells(s.root(), range));
        assert!(self.here.scrub(&mut |_| true).is_empty());
    }

    fn fill(&self, s: &TestSegment) -> Result<(), UploadError> {
        let all = s.bytes();
        let mut have = self.have() as usize;
        while have < all.len() {
            let to = all.len().min(have + 32_768);
            have = self.here.append_fill(self.db.db, s.root(), have as u64, &all[have..to])? as usize;
        }
        self.here.finish_fill(self.db.db, s.root())
    }
}

#[test]
fn a_segment_that_others_hold_is_refused_until_it_is_whole_and_then_served() {
    for rows in [1, 20, 360, 3300] {
        let mut pair = Pair::new();
        let s = segment(1, rows);
        pair.order(0, &s);
        let want = Missing { segment: s.root(), preimage: s.preimage, have: 0 };
        assert_eq!(pair.missing(), vec![want]);
        pair.refused(&s);
        let need = s.bytes().len() as u64;
        assert!(matches!(
            pair.here.finish_fill(pair.db.db, s.root()),
            Err(UploadError::Incomplete { have: 0, need: n }) if n == need
        ));
        pair.fill(&s).unwrap();
        pair.served(&s);
        assert!(matches!(pair.here.finish_fill(pair.db.db, s.root()), Err(UploadError::Unknown(_))));
        pair.here = open(&pair.store);
        pair.served(&s);
    }
}

#[test]
fn a_fill_survives_restarts_up_to_its_last_whole_page() {
    let mut pair = Pair::new();
    let s = segment(1, 3300);
    pair.order(0, &s);
    let all = s.bytes();
    let mut have = 0;
    while have < all.len() {
        let to = all.len().min(have + 50_000);
        let now = pair.here.append_fill(pair.db.db, s.root(), have as u64, &all[have..to]).unwrap();
        assert_eq!((now, pair.have()), (to as u64, to as u64));
        pair.here = open(&pair.store);
        have = pair.have() as usize;
        assert!(have == to || have == to / 16_384 * 16_384, "{have} of {to}");
        pair.refused(&s);
    }
    pair.here = open(&pair.store);
    pair.here.finish_fill(pair.db.db, s.root()).unwrap();
    pair.served(&s);
}

#[test]
fn a_wrong_whole_is_thrown_away_and_strangers_are_not_believed_again() {
    let mut pair = Pair::new();
    let s = segment(1, 1200);
    pair.order(0, &s);
    let mut noise = s.bytes();
    noise[40_031] ^= 1;
    let need = noise.len() as u64;
    // A client's upload that comes too late goes on with the fill.
    assert_eq!(pair.here.begin_upload(pair.db.db, &s.preimage).unwrap(), 0);
    assert_eq!(pair.here.append_upload(s.root(), 0, &noise).unwrap(), need);
    assert!(matches!(pair.here.finish_upload(s.root()), Err(UploadError::Segment(_))));
    for restart in [false, true] {
        if restart {
            pair.here = open(&pair.store);
        }
        assert_eq!(pair.have(), 0);
        pair.refused(&s);
        assert!(matches!(pair.here.append_upload(s.root(), 0, &noise), Err(UploadError::Unknown(_))));
    }
    // A peer's bytes were checked on arrival, but what is wrong as a whole goes all the same.
    assert_eq!(pair.here.append_fill(pair.db.db, s.root(), 0, &noise).unwrap(), need);
    assert!(matches!(pair.here.finish_fill(pair.db.db, s.root()), Err(UploadError::Segment(_))));
    let mut odd = s.bytes();
    odd[20_000 / 32 * 32] = 0xff;
    assert!(matches!(pair.here.append_fill(pair.db.db, s.root(), 0, &odd), Err(UploadError::Scalar(_))));
    assert_eq!(pair.have(), 0);
    pair.fill(&s).unwrap();
    pair.served(&s);
}

#[test]
fn a_straggling_client_completes_a_fill() {
    let mut pair = Pair::new();
    let s = segment(1, 1200);
    let all = s.bytes();
    // It began before the block came, and is half-way.
    pair.here.begin_upload(pair.db.db, &s.preimage).unwrap();
    pair.here.append_upload(s.root(), 0, &all[..40_000]).unwrap();
    pair.order(0, &s);
    assert_eq!(pair.here.upload_bytes(), 0, "a fill is under no quota");
    pair.refused(&s);
    let have = pair.here.begin_upload(pair.db.db, &s.preimage).unwrap();
    assert_eq!(have, 32_768, "whole pages stay");
    assert!(matches!(pair.here.append_upload(s.root(), 0, &all), Err(UploadError::Offset { .. })));
    pair.here.append_upload(s.root(), have, &all[have as usize..]).unwrap();
    let checked = pair.here.finish_upload(s.root()).unwrap();
    let (id, rows, schema) = (s.header.id, s.header.rows, s.header.schema);
    let expiry = pair.db.last.unwrap().height;
    assert_eq!(checked, CheckedUpload { db: pair.db.db, preimage: s.preimage, id, rows, schema, expiry });
    pair.served(&s);
    assert_eq!(pair.here.begin_upload(pair.db.db, &s.preimage).unwrap(), all.len() as u64);
}

#[test]
fn fills_count_against_no_quota_and_expire_with_their_cells_only() {
    let mut pair = Pair::new();
    let (a, b) = (segment(1, 1200), segment(2, 1200));
    pair.order(0, &a);
    pair.order(1, &b);
    // One upload is allowed at once, and both fills are none.
    pair.here.begin_upload(pair.db.db, &segment(3, 20).preimage).unwrap();
    assert_eq!(pair.missing().len(), 2);
    let retire = |pair: &mut Pair| {
        let op = commit(&[(0, 2)], vec![change(0, vec![], vec![a.root(), b.root()])]);
        pair.db.act(&pair.here, op).unwrap().unwrap();
    };
    retire(&mut pair);
    pair.here.append_fill(pair.db.db, a.root(), 0, &a.bytes()[..32_768]).unwrap();
    for blocks in 1..=6 {
        assert_eq!(pair.missing().len(), 2, "{blocks}");
        pair.db.apply(&pair.here, vec![]).unwrap();
    }
    // Superseded for the retention, then kept for it once more: now the cells are gone, and nobody need send them.
    assert!(pair.missing().is_empty());
    assert!(matches!(pair.here.append_fill(pair.db.db, a.root(), 32_768, &[]), Err(UploadError::Unknown(_))));
    use fluence_engine::keys::{Cf, FILL};
    for (cf, prefix) in [(Cf::Pages, &[][..]), (Cf::Nodes, &[]), (Cf::State, &[FILL])] {
        assert!(pair.store.scan(cf, prefix, None, 10).unwrap().is_empty(), "{cf:?}");
    }
    assert!(open(&pair.store).missing(pair.db.db).is_empty());
}

#[test]
fn a_segment_that_left_the_stored_tree_is_filled_and_served_while_it_is_owed() {
    let mut pair = Pair::new();
    let s = segment(1, 1200);
    pair.order(0, &s);
    for (engine, db) in [(&pair.here, &mut pair.db), (&pair.there, &mut pair.twin)] {
        db.act(engine, commit(&[(0, 1)], vec![change(0, vec![], vec![s.root()])])).unwrap().unwrap();
        for _ in 0..3 {
            db.apply(engine, vec![]).unwrap();
        }
        assert_eq!(engine.view(db.db).unwrap().summary().segments, 0);
    }
    let range = CellRange { first: 64, count: 64 };
    let view = pair.here.view(pair.db.db).unwrap();
    assert_eq!(view.cells(s.root(), range), Err(OpenRefusal::NotHere(s.root())));
    pair.fill(&s).unwrap();
    let view = pair.here.view(pair.db.db).unwrap();
    let opened = view.cells(s.root(), range).unwrap();
    assert_eq!(opened.cells[..], s.cells[64..128]);
    for (first, count) in [(0, 0), (s.preimage.cells, 1), (u64::MAX, 2), (0, s.preimage.cells + 1)] {
        assert!(matches!(view.cells(s.root(), CellRange { first, count }), Err(OpenRefusal::BadRequest(_))));
    }
}

#[test]
fn every_field_of_a_receipt_is_required_to_be_the_operations() {
    let mut pair = Pair::new();
    let s = segment(1, 360);
    let checked = s.upload(&pair.there, pair.twin.db, 1 << 20).unwrap();
    let checked = CheckedUpload { expiry: Height(8), ..checked };
    let order = |upload: &CheckedUpload, named: &dyn Fn(&mut SegmentRef), db: &TestDb| {
        let mut segment = s.delivered(db.receipts(upload, 1));
        named(&mut segment);
        commit(&[(0, 0)], vec![change(0, vec![segment], vec![])])
    };
    let mut wrong = Vec::new();
    wrong.push(order(&checked, &|s| s.rows += 1, &pair.db));
    wrong.push(order(&checked, &|s| s.id = SegmentId::default(), &pair.db));
    wrong.push(order(&CheckedUpload { schema: SchemaHash::default(), ..checked }, &|_| {}, &pair.db));
    wrong.push(order(&CheckedUpload { db: DatabaseId::default(), ..checked }, &|_| {}, &pair.db));
    let mut other = checked.preimage;
    other.tree_root = FieldBytes::from_u64(3);
    wrong.push(order(&CheckedUpload { expiry: Height(5), ..checked }, &|_| {}, &pair.db));
    wrong.push(order(&CheckedUpload { preimage: other, ..checked }, &|_| {}, &pair.db));
    // The same outcome where the segment is and where it is not.
    for op in wrong {
        let here = pair.db.act(&pair.here, op.clone()).unwrap();
        assert!(matches!(here, Err(OpRefusal::Receipts { valid: 0, quorum: 1, .. })), "{here:?}");
        assert_eq!(pair.twin.act(&pair.there, op).unwrap(), here);
    }
    let right = order(&checked, &|_| {}, &pair.db);
    assert_eq!(pair.db.act(&pair.here, right.clone()).unwrap(), Ok(()));
    assert_eq!(pair.twin.act(&pair.there, right).unwrap(), Ok(()));
    assert_eq!(pair.db.last, pair.twin.last);
}

#[test]
fn a_store_that_fails_at_any_write_leaves_a_fill_that_can_go_on() {
    let s = segment(1, 1200);
    for failure in [Failure::Before, Failure::After] {
        for at in 0.. {
            let mut pair = Pair::new();
            let failing = Arc::new(FailingStore::new(pair.store.clone(), at, failure));
            pair.here = Engine::open(failing.clone(), CONFIG).unwrap();
            let checked = s.upload(&pair.there, pair.twin.db, 1 << 20).unwrap();
            let receipts = pair.twin.receipts(&checked, 1);
            let op = commit(&[(0, 0)], vec![change(0, vec![s.delivered(receipts)], vec![])]);
            pair.twin.act(&pair.there, op.clone()).unwrap().unwrap();
            let block = {
                let op = pair.db.owner.sign(pair.db.db, op);
                fluence_engine::VerifiedBlock::verify(pair.db.block(vec![op])).unwrap()
            };
            let (here, root, all) = (&pair.here, s.root(), s.bytes());
            let id = pair.db.db;
            let done = here.apply(&block).is_ok()
                && (0..all.len()).step_by(32_768).all(|from| {
                    here.append_fill(id, root, from as u64, &all[from..all.len().min(from + 32_768)]).is_ok()
                })
                && here.finish_fill(id, root).is_ok();
            let tried = failing.commits();
            pair.here = open(&pair.store);
            pair.here.apply(&block).unwrap();
            assert_eq!(pair.here.checkpoint(id), pair.there.checkpoint(id));
            if !pair.missing().is_empty() {
                pair.refused(&s);
                pair.fill(&s).unwrap();
            }
            pair.served(&s);
            if done {
                assert!(tried >= 4 && at >= tried, "every write was tried");
                break;
            }
        }
    }
}

#[test]
fn a_fill_survives_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::new();
    let s = segment(1, 1200);
    let disk = || Engine::open(Arc::new(FjallStore::open(folder.path(), FjallOptions::default()).unwrap()), CONFIG);
    pair.db = TestDb::new(1, 1);
    pair.here = disk().unwrap();
    pair.db.create(&pair.here).unwrap();
    pair.db.act(&pair.here, define(0, schema(1, 1))).unwrap().unwrap();
    pair.order(0, &s);
    pair.here.append_fill(pair.db.db, s.root(), 0, &s.bytes()[..50_000]).unwrap();
    pair.here.flush().unwrap();
    pair.here = open(&Arc::default());
    pair.here = disk().unwrap();
    assert_eq!(pair.have(), 49_152);
    pair.refused(&s);
    pair.fill(&s).unwrap();
    pair.here = open(&Arc::default());
    pair.here = disk().unwrap();
    pair.served(&s);
}

#[test]
fn refuses_to_open_over_a_fill_of_a_segment_that_is_not_stored() {
    let mut pair = Pair::new();
    let s = segment(1, 360);
    pair.order(0, &s);
    use fluence_engine::keys::{Cf, FILL, fill};
    let (key, value) = pair.store.scan(Cf::State, &[FILL], None, 1).unwrap().remove(0);
    let mut batch = Batch::new();
    batch.delete(Cf::State, key);
    batch.put(Cf::State, fill(DatabaseId::default(), s.root()), value);
    pair.store.commit(batch, Durability::Synced).unwrap();
    assert!(Engine::open(pair.store.clone(), CONFIG).is_err());
}
