//! `fluence import`: rows of a file or of standard input, sealed here in segments, each live at one certified height.
//!
//! Order   what the file is and holds is found first; a table that is new is made when its first segment's rows have been read, so a file
//!         that is refused leaves nothing behind.
//! Rule    a part of a file is not imported twice into a table, and one that broke off goes on where it was: `journal`.
//! Rooms   `journal` what was done, `schema` what the columns will be

mod journal;
mod schema;

pub(crate) use schema::make_schema;
use schema::opened;

use crate::args::Import;
use crate::error::{Context, Failure, Help, Result};
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use arrow_array::RecordBatch;
use fluence_client::csv::{CsvBatches, CsvOptions};
use fluence_client::dial::Dialer;
use fluence_client::files::{self, Batches, FileError, Format, Found, Input, ReadOptions};
use fluence_client::seal::SealStats;
use fluence_client::{
    ClientError, Committed, Database, ImportOptions, Keeper, Lease, LeaseOptions, Progress, Table, TableSchema,
    Transport,
};
use fluence_types::tree::CatalogueEntry;
use fluence_types::{DbRoot, Height, SegmentRoot, Version};
use journal::{Journal, Source};
use serde_json::json;
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of rows that one segment is made of at most.
const PART_BYTES_MAX: usize = 512 << 20;
/// What to say of an import that failed.
const NOT_DONE: &str = "the import did not happen";

pub(crate) async fn run(args: &Import, home: &Home, out: &Out) -> Result<()> {
    let piped = args.file == Path::new("-");
    if !piped && !args.file.is_file() {
        return Err(Failure::failed(format!("there is no file {}", args.file.display())).help("check the path"));
    }
    let format = format_of(args)?;
    let types = schema::types(args)?;
    let csv = CsvOptions { null: args.null.clone(), ..CsvOptions::default() };
    let options = ReadOptions { csv, sample_rows: args.sample };
    let bar = out.progress("reading types", "", 0);
    let input = match piped {
        true => Input::stream(std::io::stdin()).doing("cannot read standard input")?,
        false => Input::File(args.file.clone()),
    };
    let found = files::inspect(&input, format, &options, &types).map_err(|e| refused(args, e))?;
    let source = (!piped).then(|| Source::of(&args.file)).transpose()?;
    bar.done();
    if args.dry_run {
        return dry_run(args, &found, out);
    }

    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database_or_new(home, &args.place, out).await?;
    let table = match database.table(&args.table).await {
        Ok(table) => {
            schema::check_fits(table.schema(), &found, args, &types)?;
            Some(table)
        }
        Err(ClientError::UnknownTable(_)) => None,
        Err(e) => return Err(remote::failure_of(&database, e, "cannot look for the table").await),
    };
    let wanted = match &table {
        Some(table) => table.schema().clone(),
        None => new_schema(args, &found)?,
    };
    let open = |s: &Source| Journal::open(home, database.id(), &args.table, s, args.again);
    let mut journal = source.as_ref().map(open).transpose()?;
    if let Some(journal) = journal.as_ref().filter(|j| j.is_done() && table.is_some()) {
        return nothing_to_do(args, journal.rows(), out);
    }
    let batches = files::read(input, format, &wanted, &options).map_err(|e| refused(args, e))?;
    let mut rows = Rows::new(batches, args.segment_rows, found.rows, out);

    // Of a file whose first rows do not fit, no table is left behind.
    let mut first = None;
    let table = match table {
        Some(table) => table,
        None => {
            schema::show(&wanted, out);
            let part = rows.part().await;
            first = part.map_err(|e| refused(args, e).help_more("no row was stored, and no table made"))?;
            let made = remote::watched(&database, out, database.create_table(wanted)).await;
            match made {
                Ok(table) => table,
                Err(e) => return Err(remote::failure_of(&database, e, "cannot make the table").await),
            }
        }
    };
    let held = lease(&table, journal.as_ref().and_then(Journal::fence), out);
    let (lease, keeper) = match remote::watched(&database, out, held).await {
        Ok(held) => held,
        Err(e) => {
            return Err(remote::failure_of(&database, e, NOT_DONE)
                .await
                .help_more("the table is there; run it again to go on"));
        }
    };
    let entry = snapshot(&database, &table).await?;
    let mut total = Total { version: entry.version, ..Total::default() };
    if let Some(journal) = &mut journal {
        journal.resume(&entry, lease.fence().0)?;
        total.resumed = journal.rows();
    }
    if total.resumed > 0 {
        out.note(format!("going on after row {}", output::count(total.resumed)));
        rows.skip(total.resumed).await.map_err(|e| refused(args, e))?;
    }

    let begun = Instant::now();
    let outcome = {
        let work = Work { database: &database, table: &table, source: source.as_ref(), args, out };
        let mut importing = std::pin::pin!(work.parts(first, &mut rows, journal.as_mut(), &mut total));
        tokio::select! {
            outcome = &mut importing => outcome,
            // The lease is lost: the commit says so.
            () = keeper.run() => importing.await,
        }
    };
    rows.end();
    if let Err(failure) = outcome {
        let in_table = total.resumed + total.rows;
        return Err(failure.help_more(match (in_table, journal.is_some()) {
            (0, true) => {
                "no row was stored, and the table is there without rows: run it again, and it goes on".to_owned()
            }
            (0, false) => "no row was stored".to_owned(),
            (n, true) => format!("{n} rows are in the table: run it again, and it goes on after them"),
            (n, false) => format!("{n} rows are in the table; a stream cannot be gone on with"),
        }));
    }
    if let Some(journal) = &mut journal {
        journal.done()?;
    }
    if let Err(error) = lease.release().await {
        out.note(format!("the table's lease was not given up, it lapses: {error}"));
    }
    total.report(args, &table, begun.elapsed(), out);
    Ok(())
}

fn format_of(args: &Import) -> Result<Format> {
    match args.format {
        Some(format) => Ok(format.into()),
        None => Format::of_path(&args.file).ok_or_else(|| {
            Failure::usage(format!("what {} is does not follow from its name", args.file.display()))
                .help("name it: --format csv, parquet, arrow or jsonl")
        }),
    }
}

fn new_schema(args: &Import, found: &Found) -> Result<TableSchema> {
    if args.key.is_empty() {
        return Err(Failure::usage(format!("table {:?} is new, and --key does not say how it is sorted", args.table))
            .help("--key COLS names the columns that together are unique; `--dry-run` lists the file's"));
    }
    make_schema(&args.table, opened(found.columns.clone(), &args.public)?, &args.key, &args.sum)
}

fn dry_run(args: &Import, found: &Found, out: &Out) -> Result<()> {
    let schema = match args.key.is_empty() {
        true => None,
        false => Some(new_schema(args, found)?),
    };
    let value = json!({ "imported": false, "columns": found.columns, "rows": found.rows, "key": args.key, "sums": schema.map(|s| s.sums().to_vec()) });
    out.result(&value, |out| {
        let rows = found
            .columns
            .iter()
            .map(|c| vec![c.name.clone(), c.ty.to_string(), if c.nullable { "" } else { "not null" }.to_owned()]);
        out.table(&["column", "type", ""], rows);
        if let Some(rows) = found.rows {
            out.line(format!("{} rows", output::count(rows)));
        }
        out.note("nothing was written");
    });
    Ok(())
}

fn nothing_to_do(args: &Import, rows: u64, out: &Out) -> Result<()> {
    let value =
        json!({ "imported": false, "why": "this file is in the table already", "table": args.table, "rows": rows });
    out.result(&value, |out| {
        out.line(format!("{} was imported before; nothing to do", args.file.display()));
        out.note("--again imports it once more: its rows will be there twice");
    });
    Ok(())
}

/// A file that was refused: usage, because it is what the caller gave.
fn refused(args: &Import, error: FileError) -> Failure {
    let name = if args.file == Path::new("-") { "standard input".to_owned() } else { args.file.display().to_string() };
    let help = match &error {
        FileError::Csv(_) => {
            "a CSV file needs a header line and the same number of fields in every row; --types COL=TYPE corrects a type, --null TEXT says what stands for NULL"
        }
        FileError::Column { .. } => "leave the column out of the file, or write it as another type",
        FileError::Value { .. } | FileError::Null { .. } => {
            "--types COL=TYPE corrects a type; types that were sampled may not hold for all rows (--sample)"
        }
        FileError::Columns(_) => "`fluence import --dry-run` lists the file's columns",
        FileError::Limit { .. } => "write the file with smaller row groups, pages, batches or lines",
        _ => "is the file whole, and of that format? --format says which it is",
    };
    Failure::failed(format!("cannot read {name}")).because(error).help(help)
}

async fn snapshot<T: Transport>(database: &Database<T>, table: &Table<T>) -> Result<CatalogueEntry> {
    let snapshot = database.snapshot(table).await.map_err(|e| remote::failure(e, "cannot read the table's version"))?;
    Ok(snapshot.entry().clone())
}

/// How long a table stays an import's that was interrupted.
const LEASE: LeaseOptions = LeaseOptions { duration: Duration::from_secs(30), renew: Duration::from_secs(8) };

/// Takes the table for as long as the import runs, so that it does not seal and send for nothing. The lease of our own import that broke off
/// is ended: its process is gone, because we hold its note. Any other is waited for once.
async fn lease<T: Transport>(
    table: &Table<T>,
    ours: Option<u64>,
    out: &Out,
) -> Result<(Lease<T>, Keeper<T>), ClientError> {
    let mut waited = false;
    loop {
        match table.lease(LEASE).await {
            Err(ClientError::Leased { .. })
                if !waited && ours.is_some() && ours == Some(table.lease_status().await?.fence.0) =>
            {
                table.break_lease().await?;
            }
            Err(ClientError::Leased { holder, until_ms, now_ms, .. })
                if !waited && until_ms.saturating_sub(now_ms) <= LEASE.duration.as_millis() as u64 =>
            {
                let left = Duration::from_millis(until_ms.saturating_sub(now_ms)) + Duration::from_secs(2);
                out.note(format!("{holder} writes this table now; waiting {} s for its lease to end", left.as_secs()));
                tokio::time::sleep(left).await;
            }
            other => return other,
        }
        waited = true;
    }
}

/// What an import works with.
struct Work<'a> {
    database: &'a Database<Dialer>,
    table: &'a Table<Dialer>,
    source: Option<&'a Source>,
    args: &'a Import,
    out: &'a Out,
}

impl Work<'_> {
    /// Seals and commits part after part.
    async fn parts(
        &self,
        first: Option<Vec<RecordBatch>>,
        rows: &mut Rows,
        mut journal: Option<&mut Journal>,
        total: &mut Total,
    ) -> Result<()> {
        let mut next = match first {
            Some(part) => Some(part),
            None => rows.part().await.map_err(|e| refused(self.args, e))?,
        };
        while let Some(part) = next {
            if let Some(source) = self.source {
                source.check_unchanged()?;
            }
            let step = self.part(&part, rows, journal.as_deref_mut());
            let committed = remote::watched(self.database, self.out, step).await?;
            drop(part);
            total.add(&committed);
            next = rows.part().await.map_err(|e| refused(self.args, e))?;
        }
        Ok(())
    }

    async fn part(&self, part: &[RecordBatch], rows: &Rows, mut journal: Option<&mut Journal>) -> Result<Committed> {
        let failed = async |error| remote::failure_of(self.database, error, NOT_DONE).await;
        rows.say("sealing");
        let sealed = self.table.seal_part(part, |progress| {
            if let Progress::Uploaded { bytes, total } = progress {
                rows.say(&match bytes < total {
                    true => format!("sending {} of {}", output::bytes(bytes), output::bytes(total)),
                    false => "the members check the tree".to_owned(),
                });
            }
        });
        let sealed = match sealed.await {
            Ok(sealed) => sealed,
            Err(e) => return Err(failed(e).await),
        };
        if let Err(e) = self.table.make_room().await {
            return Err(failed(e).await);
        }
        if let Some(journal) = &mut journal {
            let version = snapshot(self.database, self.table).await?.version;
            journal.begin(rows.read, sealed.root(), version)?;
        }
        rows.say("committing");
        let committed = match self.table.commit_part(sealed).await {
            Ok(committed) => committed,
            Err(e) => return Err(failed(e).await),
        };
        if let Some(journal) = &mut journal {
            journal.committed()?;
        }
        Ok(committed)
    }
}

/// The rows of a file, in parts of a segment each.
struct Rows {
    batches: Batches,
    /// What is left of a batch that did not fit into the last part.
    left: Option<RecordBatch>,
    part_rows: usize,
    read: u64,
    total: Option<u64>,
    begun: Instant,
    bar: Option<output::Progress>,
}

impl Rows {
    fn new(batches: Batches, part_rows: u32, total: Option<u64>, out: &Out) -> Self {
        let bar = Some(out.progress("reading", "rows", total.unwrap_or(0)));
        Self { batches, left: None, part_rows: part_rows as usize, read: 0, total, begun: Instant::now(), bar }
    }

    fn say(&self, what: &str) {
        let Some(bar) = &self.bar else { return };
        let per_second = (self.read as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64;
        bar.message(&match self.total {
            Some(_) => format!("{what}, {} rows/s", output::count(per_second)),
            None => format!("{what}, {} rows, {} rows/s", output::count(self.read), output::count(per_second)),
        });
        bar.set(self.read, self.total.map_or(0, |total| total.max(self.read)));
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, FileError> {
        match self.left.take() {
            Some(batch) => Ok(Some(batch)),
            None => self.batches.next().transpose(),
        }
    }

    /// The next part; none at the end.
    async fn part(&mut self) -> Result<Option<Vec<RecordBatch>>, FileError> {
        let (mut part, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < self.part_rows && bytes < PART_BYTES_MAX {
            let Some(batch) = self.next()? else { break };
            let take = batch.num_rows().min(self.part_rows - rows);
            if take < batch.num_rows() {
                self.left = Some(batch.slice(take, batch.num_rows() - take));
            }
            rows += take;
            bytes += batch.get_array_memory_size();
            self.read += take as u64;
            part.push(batch.slice(0, take));
            self.say("reading");
            // The lease is renewed meanwhile.
            tokio::task::yield_now().await;
        }
        Ok((!part.is_empty()).then_some(part))
    }

    /// Passes over rows that are in the table.
    async fn skip(&mut self, rows: u64) -> Result<(), FileError> {
        while self.read < rows {
            let Some(batch) = self.next()? else { break };
            let take = batch.num_rows().min(usize::try_from(rows - self.read).unwrap_or(usize::MAX));
            if take < batch.num_rows() {
                self.left = Some(batch.slice(take, batch.num_rows() - take));
            }
            self.read += take as u64;
            self.say("passing over what is stored");
            tokio::task::yield_now().await;
        }
        self.begun = Instant::now();
        Ok(())
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.done();
        }
    }
}

/// What an import has done.
#[derive(Default)]
struct Total {
    resumed: u64,
    rows: u64,
    segments: Vec<SegmentRoot>,
    height: Height,
    root: DbRoot,
    version: Version,
    seal: SealStats,
}

impl Total {
    fn add(&mut self, committed: &Committed) {
        self.rows += committed.rows;
        self.segments.extend(&committed.segments);
        (self.height, self.root, self.version) = (committed.height, committed.root, committed.version);
        self.seal.cells += committed.seal.cells;
        self.seal.permutations += committed.seal.permutations;
        self.seal.ms += committed.seal.ms;
        self.seal.hash_ms += committed.seal.hash_ms;
        self.seal.repeated_keys += committed.seal.repeated_keys;
    }

    fn report<T>(&self, args: &Import, table: &Table<T>, took: Duration, out: &Out) {
        let seconds = took.as_secs_f64();
        let per_second = (self.rows as f64 / seconds) as u64;
        let value = json!({
            "imported": true, "table": args.table, "db": table.db(), "rows": self.rows, "after_row": self.resumed, "segments": self.segments,
            "height": self.height, "root": self.root, "version": self.version, "cells": self.seal.cells,
            "permutations": self.seal.permutations, "seal_ms": self.seal.ms, "hash_ms": self.seal.hash_ms,
            "repeated_keys": self.seal.repeated_keys, "seconds": seconds, "rows_per_second": per_second,
        });
        out.result(&value, |out| {
            out.line(format!(
                "{} rows in table {} at {} rows/s; {} cells, {}",
                output::count(self.rows),
                args.table,
                output::count(per_second),
                output::count(self.seal.cells),
                output::bytes(self.seal.cells * 256),
            ));
            if !self.segments.is_empty() {
                out.line(format!("certified at height {}, root {}", self.height, self.root));
            }
        });
        if self.seal.repeated_keys > 0 {
            out.warn(format!(
                "the key ({}) is not unique: {} times a row of a segment has that of another; nobody checks that keys are unique",
                table.schema().key().join(", "),
                output::count(self.seal.repeated_keys),
            ));
        }
    }
}

/// Imports a CSV file into a table in one transaction, with progress.
pub(crate) async fn file_into<T: Transport>(
    table: &Table<T>,
    file: &Path,
    options: &CsvOptions,
    out: &Out,
) -> Result<Committed> {
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
    outcome.map_err(|e| remote::failure(e, NOT_DONE))
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
