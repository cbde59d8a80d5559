//! Our own files: each record says what PostgreSQL 15 says, whether pushed down or not; and a pushdown that is off by one is noticed.

use crate::corpus::{self, Dialect};
use crate::pair::{Place, Tally};
use crate::planted::{FAULTS, Planted};
use std::path::PathBuf;

/// Plans of our own files that are pushed down, at least.
const PUSHED_MIN: usize = 140;

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/slt/files");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[tokio::test]
async fn our_files_say_what_postgresql_says() {
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    for file in files() {
        let ran = corpus::run(&file, Dialect::Postgres, Place::empty(|_| None).await).await;
        println!(
            "{}: {} records pass, {} errors are due and come, {} known to differ, {} of them no more (take `skipif` out), {} fail; \
             {} of {} plans pushed down",
            file.file_name().unwrap().to_string_lossy(),
            ran.passed,
            ran.refused,
            ran.known + ran.held,
            ran.held,
            ran.failed.len(),
            ran.tally.pushed,
            ran.tally.reading,
        );
        failed.extend(ran.failed);
        tally.add(ran.tally);
    }
    println!("pushed down: {} of {} plans; {} answers compared", tally.pushed, tally.reading, tally.compared);
    assert!(failed.is_empty(), "{} records fail:\n{}", failed.len(), failed.join("\n"));
    assert!(tally.differences.is_empty(), "pushdown changes answers:\n{}", tally.differences.join("\n\n"));
    assert_eq!(tally.open, 0, "a query of ours leaves open which rows it gives");
    assert!(tally.pushed >= PUSHED_MIN, "{} plans pushed down, {PUSHED_MIN} are due", tally.pushed);
}

#[tokio::test]
async fn a_pushdown_that_is_off_by_one_is_noticed() {
    let file = files().into_iter().find(|f| f.ends_with("pushdown.slt")).unwrap();
    for fault in FAULTS {
        let place = Place::empty(|store| Some(Planted::new(store, fault))).await;
        let ran = corpus::run(&file, Dialect::Postgres, place).await;
        println!("{fault:?}: noticed at the {}th answer", ran.tally.compared);
        assert!(!ran.tally.differences.is_empty(), "{fault:?} goes unnoticed");
        assert!(!ran.failed.is_empty(), "{fault:?} gives what PostgreSQL gives");
    }
}
