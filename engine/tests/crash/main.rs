//! Power cuts: a store is stopped at every write, fsync, truncation, rename and removal it does, what was not fsynced is dropped, and
//! it is opened again.
//!
//! How      this program runs itself with `power.c` preloaded, which ends the process at event n and notes what was fsynced. Then, in
//!          a copy of the folder, every file is cut back to what its last fsync covered, in four ways ([`Loss`]).
//! Holds    after a power cut the store opens, at the last acknowledged root or the one in flight; the rest of the log goes on to the same roots; no page
//!          is lost. With bytes flipped or files cut that were durable: it refuses to open
//!          (fjall may end the process), or has the last root, and no page is wrong.
//!          `FLUENCE_CRASH_EVERY_WAY=1` loses all four ways at every event; without it, each event loses one way, in turn.
//! Stores   fjall; with feature `rocksdb` and `FLUENCE_CRASH_STORE=rocksdb`, RocksDB (power cuts only).
//! Limits   a directory entry is taken as durable once its file is, except for renames, which are undone in one of the ways; the order in
//!          which unsynced blocks reach the disk is not permuted; renames inside fjall bypass libc and are not seen. Linux only.

#![allow(
    clippy::disallowed_methods,
    reason = "a test harness tells its own child processes what to do through the environment"
)]

use fluence_engine::store::conformance::copy;
use fluence_engine::testkit::{TestDb, TestSegment, change, commit, define, schema};
use fluence_engine::{
    Engine, EngineConfig, FjallOptions, FjallStore, MemStore, Rules, Store, StoreError, VerifiedBlock,
};
use fluence_types::answer::OpenRefusal;
use fluence_types::block::{Block, Checkpoint};
use fluence_types::op::SignedOp;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const CONFIG: EngineConfig = EngineConfig {
    rules: Rules::retaining(2),
    upload_blocks: 50,
    upload_margin_blocks: 1,
    upload_bytes_max: 1 << 30,
    uploads_max: 100,
};

enum Step {
    Block {
        uploads: Vec<TestSegment>,
        block: Block,
        after: Checkpoint,
    },
    /// The cells of a segment that the block before named come from others.
    Fill(TestSegment),
    Flush,
    Reopen,
}

/// The log: inline, uploaded and filled segments, retirement, compaction, collection, with flushes and a clean restart in between.
fn script() -> (TestDb, Vec<Step>, Vec<TestSegment>) {
    let engine = Engine::open(Arc::new(MemStore::new()), CONFIG).expect("memory opens");
    let mut db = TestDb::new(1, 1);
    let small = |seed| TestSegment::new(seed, &schema(1, 1), 9, 9);
    let (large, later) = (TestSegment::new(50, &schema(1, 1), 900, 20), TestSegment::new(51, &schema(1, 1), 700, 20));
    let mut steps = Vec::new();
    let block = |db: &mut TestDb, steps: &mut Vec<Step>, uploads: Vec<TestSegment>, ops: Vec<SignedOp>| {
        for upload in &uploads {
            upload.upload(&engine, db.db, 20_000).expect("a valid segment");
        }
        let block = db.block(ops.clone());
        let applied = engine.apply(&VerifiedBlock::verify(block.clone()).expect("signed")).expect("it follows");
        assert!(applied.outcomes.iter().all(|o| o.outcome.is_ok()), "{:?}", applied.outcomes);
        db.last = engine.head(db.db);
        ops.iter().for_each(|op| db.owner.advance(op));
        steps.push(Step::Block { uploads, block, after: applied.checkpoint });
    };
    let sign = |db: &TestDb, op| vec![db.owner.sign(db.db, op)];
    let ops = sign(&db, db.creation());
    block(&mut db, &mut steps, vec![], ops);
    let ops = sign(&db, define(0, schema(1, 1)));
    block(&mut db, &mut steps, vec![], ops);
    let ops = sign(&db, commit(&[(0, 0)], vec![change(0, vec![small(1).inline(), small(2).inline()], vec![])]));
    block(&mut db, &mut steps, vec![], ops);
    steps.push(Step::Flush);
    for (version, segment, retire) in [(1, &large, vec![]), (2, &later, vec![small(1).root()])] {
        let checked = segment.upload(&engine, db.db, 20_000).expect("a valid segment");
        let named = segment.delivered(db.receipts(&checked, 1));
        let ops = sign(&db, commit(&[(0, version)], vec![change(0, vec![named], retire)]));
        block(&mut db, &mut steps, vec![segment.clone()], ops);
        steps.push(if version == 1 { Step::Reopen } else { Step::Flush });
    }
    let ops =
        sign(&db, commit(&[(0, 3)], vec![change(0, vec![small(3).inline()], vec![large.root(), small(2).root()])]));
    block(&mut db, &mut steps, vec![], ops);
    for _ in 0..2 {
        block(&mut db, &mut steps, vec![], vec![]);
    }
    steps.push(Step::Flush);
    let ops = sign(&db, commit(&[(0, 4)], vec![change(0, vec![small(4).inline()], vec![])]));
    block(&mut db, &mut steps, vec![], ops);
    let filled = TestSegment::new(52, &schema(1, 1), 700, 20);
    let checked = filled.upload(&engine, db.db, 20_000).expect("a valid segment");
    let named = filled.delivered(db.receipts(&checked, 1));
    let ops = sign(&db, commit(&[(0, 5)], vec![change(0, vec![named], vec![])]));
    block(&mut db, &mut steps, vec![], ops);
    steps.push(Step::Fill(filled.clone()));
    (db, steps, vec![later, small(3), small(4), filled])
}

/// Whether RocksDB is under test instead of fjall: feature `rocksdb`, and `FLUENCE_CRASH_STORE=rocksdb`.
fn rocks() -> bool {
    cfg!(feature = "rocksdb") && std::env::var_os("FLUENCE_CRASH_STORE").is_some_and(|store| store == "rocksdb")
}

fn store(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    #[cfg(feature = "rocksdb")]
    if rocks() {
        return Ok(Arc::new(fluence_engine::RocksStore::open(folder)?));
    }
    let options = FjallOptions { workers: 1, ..FjallOptions::default() };
    Ok(Arc::new(FjallStore::open(folder, options)?))
}

fn open(folder: &Path) -> Result<Engine, String> {
    let store = store(folder).map_err(|e| e.to_string())?;
    Engine::open(store, CONFIG).map_err(|e| e.to_string())
}

/// Plays the steps that are not done yet; `acknowledged` is called after each block.
fn play(folder: &Path, mut engine: Engine, steps: &[Step], acknowledged: &mut dyn FnMut(&Checkpoint)) -> Engine {
    for step in steps {
        match step {
            Step::Flush => engine.flush().expect("a healthy disk flushes"),
            Step::Fill(segment) => {
                let (db, root, all) = (engine.databases()[0], segment.root(), segment.bytes());
                while let Some(missing) = engine.missing_one(db, root) {
                    let from = missing.have as usize;
                    if from == all.len() {
                        engine.finish_fill(db, root).expect("the right cells");
                        break;
                    }
                    let to = all.len().min(from + 40_000);
                    engine.append_fill(db, root, missing.have, &all[from..to]).expect("a healthy disk writes");
                }
            }
            Step::Reopen => {
                drop(engine);
                engine = open(folder).expect("a closed store opens");
            }
            Step::Block { uploads, block, after } => {
                let db = block.header.db;
                if engine.checkpoint(db).is_some_and(|c| c.height >= block.header.height) {
                    continue;
                }
                for upload in uploads {
                    upload.upload(&engine, db, 20_000).expect("a valid segment");
                }
                let applied = engine.apply(&VerifiedBlock::verify(block.clone()).expect("signed")).expect("it follows");
                assert_eq!(applied.checkpoint, *after);
                assert!(applied.missing.is_empty() || uploads.is_empty(), "what was uploaded is here");
                acknowledged(after);
            }
        }
    }
    engine
}

fn child(folder: &Path) {
    let (_, steps, _) = script();
    let engine = open(folder).expect("a new store opens");
    drop(play(folder, engine, &steps, &mut |after| {
        println!("ack {}", after.height);
        std::io::stdout().flush().expect("the parent listens");
    }));
}

/// What a power cut leaves of what was not fsynced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// All of it is gone: each file is cut back to its last fsync.
    All,
    /// The same, and renames whose folder was not fsynced did not happen.
    AllAndRenames,
    /// Of each file's unsynced writes, the first half is there.
    Half,
    /// All of it is there, as after `kill -9`.
    Nothing,
}

#[derive(Default, Clone)]
struct FileState {
    durable: u64,
    dirty: Vec<(u64, u64)>,
}

/// Reads the notes of `power.c`: files by inode, and renames that no fsync of their folder followed.
fn read_notes(notes: &str) -> (BTreeMap<u64, FileState>, Vec<[String; 3]>) {
    let mut files: BTreeMap<u64, FileState> = BTreeMap::new();
    let mut renames: Vec<[String; 3]> = Vec::new();
    for line in notes.lines() {
        let (kind, rest) = line.split_once(' ').expect("a note has a kind");
        let numbers: Vec<u64> = rest.split(' ').filter_map(|n| n.parse().ok()).collect();
        match kind {
            "W" => files.entry(numbers[0]).or_default().dirty.push((numbers[1], numbers[2])),
            "S" => {
                files.insert(numbers[0], FileState { durable: numbers[1], dirty: Vec::new() });
            }
            "T" => {
                files.entry(numbers[0]).or_default().durable =
                    files.get(&numbers[0]).map_or(0, |f| f.durable).min(numbers[1])
            }
            "U" => {
                files.remove(&numbers[0]);
            }
            "D" => renames.retain(|[_, _, to]| Path::new(to).parent() != Some(Path::new(rest))),
            "R" => {
                let parts: Vec<String> = rest.split('\t').map(str::to_owned).collect();
                renames.push(parts.try_into().expect("three parts"));
            }
            other => panic!("unknown note {other}"),
        }
    }
    (files, renames)
}

fn files_in(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("readable").map(|e| e.expect("readable").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_in(&path, found) } else { found.push(path) }
    }
}

/// Copies what the process left and takes away what was not fsynced.
fn after_power_cut(left: &Path, to: &Path, notes: &str, loss: Loss) {
    copy(left, to);
    if loss == Loss::Nothing {
        return;
    }
    let (states, renames) = read_notes(notes);
    let mut files = Vec::new();
    files_in(left, &mut files);
    for path in files {
        let Some(state) = states.get(&path.metadata().expect("it is there").ino()) else { continue };
        let file =
            fs::OpenOptions::new().write(true).open(to.join(path.strip_prefix(left).expect("below"))).expect("a copy");
        let kept = if loss == Loss::Half { state.dirty.len() / 2 } else { 0 };
        let end = state.dirty[..kept].iter().map(|(at, len)| at + len).max().unwrap_or(0).max(state.durable);
        for (at, len) in &state.dirty[kept..] {
            let len = len.min(&end.saturating_sub(*at)).to_owned() as usize;
            file.write_all_at(&vec![0; len], *at).expect("a copy is writable");
        }
        if file.metadata().expect("a file").len() > end {
            file.set_len(end).expect("a copy is writable");
        }
    }
    if loss == Loss::AllAndRenames {
        let there = |path: &str| to.join(Path::new(path).strip_prefix(left).expect("below"));
        for [saved, from, target] in renames.iter().rev() {
            fs::rename(there(target), there(from)).expect("the rename is undone");
            if saved != "-" {
                fs::copy(saved, there(target)).expect("the old target is back");
            }
        }
    }
}

struct Run {
    folder: tempfile::TempDir,
    notes: String,
    acknowledged: usize,
    /// The power was cut; else the program came to its end before that event.
    cut: bool,
}

/// A folder in memory where there is one: nothing here depends on real disks.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder can be made")
}

fn run(switch: &Path, at: Option<usize>) -> Run {
    let folder = scratch();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("saved")).expect("a fresh folder");
    let mut command = Command::new(std::env::current_exe().expect("a program knows its path"));
    command.env("LD_PRELOAD", switch).env("CRASH_DIR", path("store")).env("CRASH_SAVED", path("saved"));
    command.env("CRASH_LOG", path("notes")).env("CRASH_AT", at.map_or("-1".to_owned(), |n| n.to_string()));
    let output = command.output().expect("the program runs itself");
    let code = output.status.code();
    assert!(code == Some(0) || code == Some(77), "{code:?} at {at:?}: {}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.starts_with("ack ")).count();
    let notes = fs::read_to_string(path("notes")).expect("the switch takes notes");
    Run { folder, notes, acknowledged, cut: code == Some(77) }
}

/// Opens what a power cut left, checks the root, and plays the rest.
fn check(folder: &Path, db: &TestDb, steps: &[Step], last: &[TestSegment], acknowledged: usize) -> Result<(), String> {
    let roots: Vec<Checkpoint> =
        steps.iter().filter_map(|s| if let Step::Block { after, .. } = s { Some(*after) } else { None }).collect();
    let engine = open(folder)?;
    let now = engine.checkpoint(db.db);
    let allowed = [acknowledged.checked_sub(1).map(|i| roots[i]), roots.get(acknowledged).copied()];
    if !allowed.contains(&now) {
        return Err(format!("opened at {now:?}, acknowledged were {acknowledged} blocks"));
    }
    if !engine.scrub(&mut |_| true).is_empty() {
        return Err("pages are lost".to_owned());
    }
    let engine = play(folder, engine, steps, &mut |_| {});
    let view = engine.view(db.db).map_err(|e| e.to_string())?;
    for segment in last {
        let pages: Vec<u8> = (0..segment.preimage.cells.div_ceil(64))
            .filter_map(|p| view.page(segment.root(), p).ok())
            .flatten()
            .collect();
        if pages != segment.bytes() {
            return Err("a page is not what was uploaded".to_owned());
        }
    }
    if engine.scrub(&mut |_| true).is_empty() { Ok(()) } else { Err("pages are lost at the end".to_owned()) }
}

fn power_cuts(switch: &Path, db: &TestDb, steps: &[Step], last: &[TestSegment]) {
    let whole = run(switch, None);
    let events = whole.notes.lines().count();
    assert!(events > 60, "the switch sees the store's writes: {events}");
    let every_way = std::env::var_os("FLUENCE_CRASH_EVERY_WAY").is_some();
    let tried: Vec<Result<usize, String>> = (1..=events)
        .into_par_iter()
        .map(|n| {
            let cut = run(switch, Some(n));
            if !cut.cut {
                return Ok(0);
            }
            const WAYS: [Loss; 4] = [Loss::All, Loss::AllAndRenames, Loss::Half, Loss::Nothing];
            // Each event in one way, neighbours in different ones; or every event in every way.
            let losses = if every_way { WAYS.to_vec() } else { vec![WAYS[(n * 7 + n / 5) % 4]] };
            for loss in &losses {
                let copy = scratch();
                let folder = copy.path().join("store");
                after_power_cut(&cut.folder.path().join("store"), &folder, &cut.notes, *loss);
                check(&folder, db, steps, last, cut.acknowledged).map_err(|e| {
                    format!("event {n} of {events}, lost: {loss:?}: {e}; last: {:?}", cut.notes.lines().last())
                })?;
            }
            Ok(losses.len())
        })
        .collect();
    let failed: Vec<&String> = tried.iter().filter_map(|t| t.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {events} power cuts: {failed:#?}", failed.len());
    // The store's own threads make runs differ by a few events.
    let reached = tried.iter().flatten().filter(|openings| **openings > 0).count();
    assert!(reached * 10 >= events * 9, "only {reached} of {events} events were reached");
    let openings: usize = tried.iter().flatten().sum();
    println!(
        "power cuts: {reached} events of {events}, {openings} reopenings, each at the acknowledged root or the one in flight"
    );
}

/// Opens a store and says what is there, for another process to compare.
fn report(folder: &Path) {
    let engine = match open(folder) {
        Ok(engine) => engine,
        Err(why) => return println!("refused: {why}"),
    };
    for db in engine.databases() {
        println!("{:?}", engine.checkpoint(db));
        let view = engine.view(db).expect("it was listed");
        for segment in view.segments() {
            for page in 0..segment.preimage.cells.div_ceil(64) {
                match view.page(segment.root, page) {
                    Ok(bytes) => println!("{} {page} {}", segment.root, blake3::hash(&bytes)),
                    Err(OpenRefusal::Lost { .. }) => println!("{} {page} lost", segment.root),
                    Err(e) => println!("{} {page} {e}", segment.root),
                }
            }
        }
    }
    println!("scrub{}", if engine.scrub(&mut |_| true).is_empty() { "" } else { " lost" });
}

/// [`report`] in a process of its own: fjall trusts some lengths on disk, and asks for more memory than there is. `None` if it died.
fn describe(folder: &Path) -> Option<String> {
    let output =
        Command::new(std::env::current_exe().expect("a program knows its path")).env("CRASH_REPORT", folder).output();
    let output = output.expect("the program runs itself");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Flips bytes and cuts files that were durable.
fn damage(switch: &Path, steps: &[Step]) {
    let whole = run(switch, None);
    let store = whole.folder.path().join("store");
    let end = steps.iter().rev().find_map(|s| if let Step::Block { after, .. } = s { Some(*after) } else { None });
    let mut files = Vec::new();
    files_in(&store, &mut files);
    let mut harms: Vec<(PathBuf, u64, bool)> = Vec::new();
    for path in files {
        let bytes = fs::read(&path).expect("readable");
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        let relative = path.strip_prefix(&store).expect("below").to_owned();
        let step = (used / 12).max(1);
        harms.extend((0..used).step_by(step).map(|at| (relative.clone(), at as u64, false)));
        harms.extend([used / 3, used * 2 / 3].map(|at| (relative.clone(), at as u64, true)));
    }
    // Opening a store changes its files, so this is a copy as well.
    let unharmed = scratch();
    copy(&store, &unharmed.path().join("store"));
    let healthy = describe(&unharmed.path().join("store")).expect("an unharmed store opens");
    assert!(healthy.contains(&format!("{end:?}")) && !healthy.contains("lost"));
    let outcomes: Vec<Result<&str, String>> = harms
        .par_iter()
        .map(|(file, at, cut)| {
            let folder = scratch();
            let folder = folder.path().join("store");
            copy(&store, &folder);
            let target = fs::OpenOptions::new().read(true).write(true).open(folder.join(file)).expect("a copy");
            if *cut {
                target.set_len(*at).expect("writable");
            } else {
                let mut byte = [0];
                target.read_exact_at(&mut byte, *at).expect("readable");
                target.write_all_at(&[byte[0] ^ 0x5a], *at).expect("writable");
            }
            let Some(found) = describe(&folder) else { return Ok("the process ended") };
            if found.starts_with("refused") {
                return Ok("refused to open");
            }
            // Line by line, what is there must be what was there; a page may say that it is lost.
            let wrong = |(now, then): (&str, &str)| now != then && !now.ends_with(" lost");
            if found.lines().count() != healthy.lines().count() || found.lines().zip(healthy.lines()).any(wrong) {
                return Err(format!("{} {} at {at}: {found}", if *cut { "cut" } else { "flip" }, file.display()));
            }
            Ok(if found == healthy { "no harm" } else { "said what is lost" })
        })
        .collect();
    let failed: Vec<&String> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} damages: {failed:#?}", failed.len(), harms.len());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    outcomes.iter().flatten().for_each(|o| *counts.entry(o).or_default() += 1);
    println!("damage to durable bytes: {} cases, {counts:?}", harms.len());
    assert!(
        counts.get("refused to open").is_some_and(|n| *n > 0)
            && counts.get("said what is lost").is_some_and(|n| *n > 0)
    );
}

/// The harness itself: without our record, the same damage goes unnoticed. If this fails, fjall has learnt to notice.
fn a_cut_journal_is_noticed_only_by_the_record(switch: &Path) {
    let whole = run(switch, None);
    let store = whole.folder.path().join("store");
    let mut files = Vec::new();
    files_in(&store, &mut files);
    let journal = files.iter().rfind(|p| p.extension().is_some_and(|e| e == "jnl")).expect("a journal");
    let bytes = fs::read(journal).expect("readable");
    let used = bytes.iter().rposition(|b| *b != 0).expect("not empty") + 1;
    fs::OpenOptions::new().write(true).open(journal).and_then(|f| f.set_len(used as u64 - 40)).expect("writable");
    let refused = FjallStore::open(&store, FjallOptions::default());
    assert!(
        matches!(refused, Err(StoreError::Behind { .. })),
        "{:?}",
        refused.map(|s| s.anchors()).map_err(|e| e.to_string())
    );
}

fn main() {
    if let Some(folder) = std::env::var_os("CRASH_DIR") {
        return child(Path::new(&folder));
    }
    if let Some(folder) = std::env::var_os("CRASH_REPORT") {
        return report(Path::new(&folder));
    }
    // `cargo test NAME` and `--list` reach this program too.
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    if std::env::args().any(|a| a == "--list") || arguments.next().is_some_and(|name| !"crash".contains(name.as_str()))
    {
        return;
    }
    let built = scratch();
    let switch = built.path().join("power.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/power.c");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&switch).arg(&source).arg("-ldl").status();
    assert!(compiled.is_ok_and(|s| s.success()), "the C compiler that Rust links with must build power.c");
    let (db, steps, last) = script();
    power_cuts(&switch, &db, &steps, &last);
    if !rocks() {
        // What follows knows fjall's files.
        a_cut_journal_is_noticed_only_by_the_record(&switch);
        damage(&switch, &steps);
    }
}
