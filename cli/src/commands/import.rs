//! `fluence import`: a CSV file, sealed here, stored with a node, live in one transaction.
//!
//! Rule    the same file is not imported twice into a table: a note in the home names its content and the table's version before, so an
//!         import that was interrupted is found again; whether it had been ordered is read from the certified version.

use crate::args::Import;
use crate::error::{Context, Failure, Help, Result};
use crate::home::{Home, private_dir, replace_file};
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use fluence_client::csv::{CsvBatches, CsvOptions, infer_columns};
use fluence_client::{
    ClientError, Column, ColumnType, Committed, Database, ImportOptions, Keeper, Lease, LeaseOptions, Progress,
    SumExpr, Table, TableSchema, Transport,
};
use fluence_types::Version;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A note of an import.
#[derive(Serialize, Deserialize)]
struct Note {
    file: PathBuf,
    version_before: Version,
    done: bool,
}

pub(crate) async fn run(args: &Import, home: &Home, out: &Out) -> Result<()> {
    if !args.file.is_file() {
        return Err(Failure::failed(format!("there is no file {}", args.file.display())).help("check the path"));
    }
    let options = CsvOptions { null: args.null.clone(), ..CsvOptions::default() };
    let progress = out.progress("reading types", "", 0);
    let schema = schema(args, &options)?;
    progress.done();

    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database_or_new(home, &args.place, out).await?;
    let table = match database.table(&args.table).await {
        Ok(table) => same_schema(table, &schema)?,
        Err(ClientError::UnknownTable(_)) => {
            database.create_table(schema.clone()).await.map_err(|e| remote::failure(e, "cannot make the table"))?
        }
        Err(e) => return Err(remote::failure(e, "cannot look for the table")),
    };
    let version = version(&database, &table).await?;
    let (note_path, note) = note(home, &database, &args.file, &args.table)?;
    if note.as_ref().is_some_and(|n| n.done) {
        let value = json!({ "imported": false, "why": "this file is in the table already", "table": args.table, "version": version });
        out.result(&value, |out| out.line(format!("{} was imported before; nothing to do", args.file.display())));
        return Ok(());
    }
    if let Some(note) = note.filter(|n| n.version_before < version) {
        // The import before this one broke off, and someone has committed since: perhaps it, perhaps another.
        return Err(Failure::failed(format!(
            "an import of {} broke off at version {} of table {}, which is at version {version} now: its rows may be in the table",
            args.file.display(), note.version_before, args.table
        ))
        .help(format!(
            "count the rows (fluence query {} --agg count); if they are not there, remove {} and import again",
            args.table, note_path.display()
        )));
    }
    let (lease, keeper) = lease(&table, out).await?;
    write_note(&note_path, &Note { file: args.file.clone(), version_before: version, done: false })?;
    let begun = Instant::now();
    let outcome = {
        let mut importing = std::pin::pin!(imported(&table, &args.file, &options, out));
        tokio::select! {
            outcome = &mut importing => outcome,
            // The lease is lost: the commit says so.
            () = keeper.run() => importing.await,
        }
    };
    let committed = match outcome? {
        Ok(committed) => committed,
        Err(e) => return Err(remote::failure_of(&database, e, NOT_DONE).await),
    };
    write_note(&note_path, &Note { file: args.file.clone(), version_before: version, done: true })?;
    if let Err(error) = lease.release().await {
        out.note(format!("the table's lease was not given up, it lapses: {error}"));
    }

    let seconds = begun.elapsed().as_secs_f64();
    let per_second = (committed.rows as f64 / seconds) as u64;
    let value = json!({
        "imported": true, "table": args.table, "db": database.id(), "rows": committed.rows, "segments": committed.segments,
        "height": committed.height, "root": committed.root, "version": committed.version, "cells": committed.seal.cells,
        "permutations": committed.seal.permutations, "seal_ms": committed.seal.ms, "hash_ms": committed.seal.hash_ms,
        "seconds": seconds, "rows_per_second": per_second,
    });
    out.result(&value, |out| {
        out.line(format!(
            "{} rows in table {} at {} rows/s; {} cells, {}",
            output::count(committed.rows),
            args.table,
            output::count(per_second),
            output::count(committed.seal.cells),
            output::bytes(committed.seal.cells * 256),
        ));
        out.line(format!("certified at height {}, root {}", committed.height, committed.root));
    });
    Ok(())
}

/// How long a table stays an import's that was interrupted.
const LEASE: LeaseOptions = LeaseOptions { duration: Duration::from_secs(30), renew: Duration::from_secs(8) };

/// Takes the table for as long as the import runs, so that it does not seal and send for nothing. The lease of an import before this one
/// that broke off is waited for.
async fn lease<T: Transport>(table: &Table<T>, out: &Out) -> Result<(Lease<T>, Keeper<T>)> {
    let mut waited = false;
    loop {
        match table.lease(LEASE).await {
            Err(ClientError::Leased { holder, until_ms, now_ms, .. })
                if !waited && until_ms.saturating_sub(now_ms) <= LEASE.duration.as_millis() as u64 =>
            {
                let left = Duration::from_millis(until_ms.saturating_sub(now_ms)) + Duration::from_secs(2);
                out.note(format!("{holder} writes this table now; waiting {} s for its lease to end", left.as_secs()));
                tokio::time::sleep(left).await;
                waited = true;
            }
            other => return other.map_err(|e| remote::failure(e, NOT_DONE)),
        }
    }
}

/// What to say of an import that failed.
const NOT_DONE: &str = "the import did not happen";

/// Imports a file into a table with progress.
pub(crate) async fn file_into<T: Transport>(
    table: &Table<T>,
    file: &Path,
    options: &CsvOptions,
    out: &Out,
) -> Result<Committed> {
    imported(table, file, options, out).await?.map_err(|e| remote::failure(e, NOT_DONE))
}

/// The same: rows read and sealed, then bytes sent.
async fn imported<T: Transport>(
    table: &Table<T>,
    file: &Path,
    options: &CsvOptions,
    out: &Out,
) -> Result<Result<Committed, ClientError>> {
    let total = lines(file).doing(format!("cannot read {}", file.display()))?.saturating_sub(1);
    let batches = CsvBatches::open(file, table.schema(), options)
        .doing(format!("cannot read {}", file.display()))
        .or_help("--types COL=TYPE corrects a type, --null TEXT says what stands for NULL")?;
    let mut reading = Some(out.progress("reading", "rows", total));
    let mut sending = None;
    let outcome = table
        .import(batches, ImportOptions::default(), |progress| match progress {
            Progress::Read { rows } => {
                if let Some(bar) = &reading {
                    // Quoted line ends make fewer rows than lines.
                    bar.set(rows, total.max(rows));
                    bar.message(if rows < total { "reading" } else { "sealing" });
                }
            }
            Progress::Uploaded { bytes, total } => {
                if let Some(bar) = reading.take() {
                    bar.done();
                }
                let bar = sending.get_or_insert_with(|| out.progress("sending sealed cells", "bytes", total));
                bar.set(bytes, total);
                bar.message(if bytes < total { "sending sealed cells" } else { "the node checks the tree" });
            }
            _ => {}
        })
        .await;
    for bar in reading.into_iter().chain(sending) {
        bar.done();
    }
    Ok(outcome)
}

/// Line ends of a file.
fn lines(file: &Path) -> std::io::Result<u64> {
    let mut reader = std::io::BufReader::with_capacity(1 << 18, std::fs::File::open(file)?);
    let mut count = 0;
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            return Ok(count);
        }
        count += part.iter().filter(|b| **b == b'\n').count() as u64;
        let read = part.len();
        reader.consume(read);
    }
}

/// The schema that file and flags make.
fn schema(args: &Import, options: &CsvOptions) -> Result<TableSchema> {
    let mut columns = infer_columns(&args.file, options)
        .doing(format!("cannot read {}", args.file.display()))
        .or_help("a CSV file needs a header line and the same number of fields in every row")?;
    for text in split_types(&args.types) {
        let (name, ty) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--types {text:?} is not COL=TYPE")).help("as price=decimal(12,4)")
        })?;
        let ty: ColumnType = ty
            .trim()
            .parse()
            .usage(format!("--types {text:?}"))
            .or_help("types: int64, float64, decimal(P,S), text, bool, timestamp, date, bytes")?;
        columns
            .iter_mut()
            .find(|c| c.name == name.trim())
            .ok_or_else(|| {
                Failure::usage(format!("there is no column {name:?}")).help("names are those of the file's header")
            })?
            .ty = ty;
    }
    make_schema(&args.table, columns, &args.key, &args.sum)
}

/// `price=decimal(12,4),day=date` has a comma that does not separate.
fn split_types(types: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in types.iter().flat_map(|t| t.split(',')) {
        match parts.last_mut() {
            Some(last) if last.contains('(') && !last.contains(')') => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

/// A checked schema.
pub(crate) fn make_schema(table: &str, columns: Vec<Column>, key: &[String], sums: &[String]) -> Result<TableSchema> {
    let key: Vec<&str> = key.iter().map(|k| k.trim()).collect();
    let sums: Vec<SumExpr> = sums
        .iter()
        .map(|s| {
            s.parse().usage(format!("--sum {s:?}")).or_help("a column, or a product of two as arr_delay*arr_delay")
        })
        .collect::<Result<_>>()?;
    TableSchema::new(table, columns, &key, sums)
        .usage(format!("table {table:?} cannot be made so"))
        .or_help("--key and --sum name columns of the file; sums need int64, decimal or bool columns (see --types)")
}

fn same_schema<T: Transport>(table: Table<T>, wanted: &TableSchema) -> Result<Table<T>> {
    let have = table.schema();
    let names = |s: &TableSchema| s.columns().iter().map(|c| (c.name.clone(), c.ty)).collect::<Vec<_>>();
    if names(have) != names(wanted) || have.key() != wanted.key() {
        return Err(Failure::usage(format!("table {:?} is there, with other columns or another key", have.name()))
            .help("import into another table, or give the types of the table with --types; `fluence sql -c 'DROP TABLE ..'` removes one"));
    }
    Ok(table)
}

async fn version<T: Transport>(database: &Database<T>, table: &Table<T>) -> Result<Version> {
    let snapshot = database.snapshot(table).await.map_err(|e| remote::failure(e, "cannot read the table's version"))?;
    Ok(snapshot.entry().version)
}

fn note<T: Transport>(
    home: &Home,
    database: &Database<T>,
    file: &Path,
    table: &str,
) -> Result<(PathBuf, Option<Note>)> {
    let mut hasher = blake3::Hasher::new_derive_key("FLU/cli/import-note/v1");
    hasher.update(database.id().as_bytes()).update(table.as_bytes()).update(&[0]);
    let source = std::fs::File::open(file).doing(format!("cannot read {}", file.display()))?;
    hasher.update_reader(source).doing(format!("cannot read {}", file.display()))?;
    let dir = home.dir().join("imports");
    private_dir(&dir)?;
    let path = dir.join(format!("{}.json", hasher.finalize().to_hex()));
    let note = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok((path, note))
}

fn write_note(path: &Path, note: &Note) -> Result<()> {
    replace_file(path, &serde_json::to_vec(note).expect("a note is plain data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_inside_a_decimal_does_not_separate_types() {
        let types = ["a=decimal(12,4),b=date".to_owned(), "c=text".to_owned()];
        assert_eq!(split_types(&types), ["a=decimal(12,4)", "b=date", "c=text"]);
    }

    #[test]
    fn sums_of_text_and_unknown_keys_are_usage_errors() {
        let columns = || vec![Column::new("a", ColumnType::Int64), Column::new("t", ColumnType::Text)];
        let text = |s: &str| vec![s.to_owned()];
        assert!(make_schema("x", columns(), &text("a"), &text("a*a")).is_ok());
        assert!(make_schema("x", columns(), &text("nope"), &[]).is_err());
        assert!(make_schema("x", columns(), &text("a"), &text("t")).is_err());
    }
}
