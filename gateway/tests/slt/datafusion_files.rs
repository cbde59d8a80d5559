//! The files inside datafusion-sqllogictest: what they say of SQL that both have, and that pushdown changes none of it.
//!
//! Table  `datafusion.tsv`, a line each: the file, `ci`, `full` or `skip`, how many records pass at least, and why others do not, or it is
//!        not run. A file that it does not name is a failure: nothing is left out silently.
//! Place  $FLUENCE_SLT, or the folder that `tests/sql/slt_corpus.py` unpacks into; without it the short run is skipped and says so.

use crate::corpus::{self, Dialect, Ran};
use crate::pair::{Place, Tally};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version whose files the table speaks of.
const VERSION: &str = "55.2.0";
/// Plans that are pushed down, at least: in the short run, and in the full one.
const PUSHED_MIN: (usize, usize) = (10, 15);

/// What the table says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    /// Run in CI, or in the full run only; so many records pass at least.
    Run {
        ci: bool,
        passed_min: usize,
    },
    Skip,
}

fn table() -> BTreeMap<String, Entry> {
    let text = include_str!("datafusion.tsv");
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [file, when, passed_min, why] = fields[..] else { panic!("four fields are due: {line:?}") };
            let entry = match when {
                "skip" => {
                    assert!(!why.is_empty(), "no reason: {line:?}");
                    Entry::Skip
                }
                "ci" | "full" => Entry::Run { ci: when == "ci", passed_min: passed_min.parse().unwrap() },
                other => panic!("{other:?} is none of ci, full, skip"),
            };
            (file.to_owned(), entry)
        })
        .collect()
}

/// The folder of the files, if they were fetched.
fn folder() -> Option<PathBuf> {
    if let Some(told) = std::env::var_os("FLUENCE_SLT") {
        let told = PathBuf::from(told);
        assert!(told.is_dir(), "FLUENCE_SLT is no folder: {}", told.display());
        return Some(told);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("FLUENCE_CACHE").map_or_else(|| home.join(".cache/fluence"), PathBuf::from);
    Some(cache.join("slt").join(format!("datafusion-sqllogictest-{VERSION}/test_files"))).filter(|f| f.is_dir())
}

fn all_files(folder: &Path, below: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(folder, &path, into);
        } else if path.extension().is_some_and(|e| e == "slt") {
            into.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// What the table says of a file: of itself, or, with `/*`, of a folder above it.
fn entry_of(table: &BTreeMap<String, Entry>, file: &str) -> Option<Entry> {
    let mut names = vec![file.to_owned()];
    names.extend(file.match_indices('/').map(|(i, _)| format!("{}/*", &file[..i])));
    names.iter().find_map(|n| table.get(n).copied())
}

/// Runs the files for which the table says so.
async fn run(ci: bool, pushed_min: usize) {
    let Some(folder) = folder() else {
        assert!(ci, "the files are not there: tests/sql/slt_corpus.py fetches them");
        println!("SKIPPED slt-datafusion: its files are not there; scripts/bootstrap.sh sql fetches them");
        return;
    };
    let only = std::env::var("FLUENCE_SLT_ONLY").ok();
    let table = table();
    let mut files = Vec::new();
    all_files(&folder, &folder, &mut files);
    files.sort();
    let (mut tally, mut wrong, mut passed, mut failed) = (Tally::default(), Vec::new(), 0, 0);
    for file in files {
        let passed_min = match entry_of(&table, &file) {
            None => {
                wrong.push(format!("{file}: datafusion.tsv says nothing of it"));
                continue;
            }
            Some(Entry::Run { ci: short, passed_min }) if short || !ci => passed_min,
            Some(_) => continue,
        };
        if only.as_ref().is_some_and(|word| !file.contains(word)) {
            continue;
        }
        let path = folder.join(&file);
        // A panic ends its file alone.
        let task =
            tokio::spawn(async move { corpus::run(&path, Dialect::DataFusion, Place::empty(|_| None).await).await });
        let ran = match task.await {
            Ok(ran) => ran,
            Err(error) => Ran { failed: vec![error.to_string()], ..Ran::default() },
        };
        println!(
            "{file}\t{}\t{}\t{}\t{}\t{}\t{}",
            ran.passed,
            ran.refused,
            ran.failed.len(),
            ran.tally.pushed,
            ran.tally.reading,
            ran.tally.open,
        );
        if only.is_some() {
            ran.failed.iter().for_each(|f| println!("{f}"));
        }
        if ran.passed < passed_min {
            let why = ran.failed.join("\n");
            wrong.push(format!("{file}: {} records pass, {passed_min} are due; those that do not:\n{why}", ran.passed));
        }
        (passed, failed) = (passed + ran.passed, failed + ran.failed.len());
        let of_file = ran.tally.differences.iter().map(|d| format!("{file}: {d}"));
        wrong.extend(of_file);
        tally.add(ran.tally);
    }
    println!("pushed down: {} of {} plans; {} answers compared", tally.pushed, tally.reading, tally.compared);
    println!("{passed} records pass, {failed} do not");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(only.is_some() || tally.pushed >= pushed_min, "{} plans pushed down, {pushed_min} are due", tally.pushed);
}

#[tokio::test]
async fn files_of_datafusion_in_short() {
    run(true, PUSHED_MIN.0).await;
}

#[tokio::test]
#[ignore = "slow: all files, some minutes; make sql-corpus"]
async fn files_of_datafusion_in_full_slow() {
    run(false, PUSHED_MIN.1).await;
}
