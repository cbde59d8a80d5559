//! `fluence export`: verified rows of a table into a file, in bounded memory; on demand with a manifest of what they came from.
//!
//! Order   the table is certified and opened to its segments first, then their rows are read; another writer may add segments meanwhile, but
//!         where one of these is merged away the export starts over.
//! Rule    the file appears under its name when it is whole; no file is replaced.

use crate::args::Export;
use crate::commands::query::write_json;
use crate::error::{Context, Failure, Help, Result};
use crate::home::Home;
use crate::output::{self, Out};
use crate::remote::{self, Remote};
use crate::values;
use fluence_client::dial::Dialer;
use fluence_client::export::{Evidenced, RowDigests, Written};
use fluence_client::files::{Format, WriteError, WriteOptions, Writer};
use fluence_client::{Aggregate, AggregateValue, ClientError, Column, Database, Select, Table};
use fluence_types::ContentHash;
use fluence_types::export::{ExportedFile, ExportedRange};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Times that an export starts over because the table's segments were merged away while it read them.
const STARTS: usize = 5;

pub(crate) async fn run(args: &Export, home: &Home, out: &Out) -> Result<()> {
    let format = match args.format {
        Some(format) => Format::from(format),
        None => Format::of_path(&args.out).ok_or_else(|| {
            Failure::usage(format!("what {} is to be does not follow from its name", args.out.display()))
                .help("name it: --format csv, parquet, arrow or jsonl")
        })?,
    };
    let manifest_path = args.verify.then(|| manifest_of(&args.out));
    for path in [Some(&args.out), manifest_path.as_ref()].into_iter().flatten() {
        if path.exists() {
            return Err(Failure::usage(format!("{} is there already", path.display()))
                .help("name another file with --out, or remove it"));
        }
    }
    let remote = Remote::open(home, &args.place, &args.unlock, true).await?;
    let database = remote.database(home, &args.place).await?;
    crate::chain::floor(&args.chain, home, remote.session(), database.id(), out).await?;
    let table = remote::table_named(&database, &args.table).await?;
    let range =
        values::key_range(table.schema(), args.from.as_deref(), args.to.as_deref(), args.where_prefix.as_deref())?;
    let select = Select { columns: args.select.clone(), ..Select::range(range) };
    let columns = columns_of(&table, &args.select)?;

    let begun = Instant::now();
    let mut start = 1;
    let (evidenced, written) = loop {
        let work = Work { args, format, table: &table, select: &select, columns: &columns, out };
        match work.file().await {
            Err(Stop::Moved(_)) if start < STARTS => {
                out.note("segments were merged away while they were read; starting over");
                start += 1;
            }
            Err(stop) => return Err(stop.into_failure(&database).await),
            Ok(done) => break done,
        }
    };
    let rows = written.digests.rows();
    let (bytes, digest) = (written.file.bytes, written.file.blake3);
    let live = evidenced.live().len();
    let manifest = table.manifest(evidenced, written).map_err(|e| remote::failure(e, "cannot make the manifest"))?;
    let statement = &manifest.statement;
    let (height, root) = (statement.height, statement.root);
    if let Some(path) = &manifest_path {
        write_json(path, &manifest)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let value = json!({
        "table": table.schema().name(), "db": database.id(), "file": args.out, "format": format.name(), "rows": rows, "bytes": bytes,
        "blake3": digest, "segments": live, "height": height, "root": root, "manifest": manifest_path,
        "committee": statement.committee, "owner": statement.owner, "seconds": seconds,
    });
    out.result(&value, |out| {
        out.line(format!(
            "{} rows verified at height {height} in {}, {} at {} rows/s",
            output::count(rows),
            args.out.display(),
            output::bytes(bytes),
            output::count((rows as f64 / seconds) as u64)
        ));
        if let Some(path) = &manifest_path {
            out.line(format!("what they came from is in {}", path.display()));
            out.note(format!(
                "others check it with: fluence verify-export {} --committee {} --owner {}",
                args.out.display(),
                statement.committee,
                statement.owner
            ));
        }
    });
    Ok(())
}

/// The manifest beside a file.
pub(crate) fn manifest_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".manifest.json");
    name.into()
}

fn columns_of<T>(table: &Table<T>, names: &[String]) -> Result<Vec<Column>> {
    let all = table.schema().columns();
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let mut columns: Vec<Column> = Vec::with_capacity(names.len());
    for name in names {
        let index = table.schema().index(name).usage("--select").or_help("`fluence table ls` lists columns")?;
        if columns.iter().any(|c| c.name == *name) {
            return Err(Failure::usage(format!("column {name:?} is selected twice")).help("each column once"));
        }
        columns.push(all[index].clone());
    }
    Ok(columns)
}

/// Why a file was not written.
enum Stop {
    /// Segments are no longer there.
    Moved(ClientError),
    Client(ClientError),
    Failed(Failure),
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Op(fluence_types::op::OpRefusal::NotLive(_)) | ClientError::Moving { .. } => {
                Self::Moved(error)
            }
            _ => Self::Client(error),
        }
    }
}

impl Stop {
    async fn into_failure(self, database: &Database<Dialer>) -> Failure {
        match self {
            Self::Moved(error) => remote::failure(error, "the table keeps being rewritten while it is read")
                .help_more("export it when fewer rows are written, or a range of it"),
            Self::Client(error) => remote::failure_of(database, error, "the rows were not read").await,
            Self::Failed(failure) => failure,
        }
    }
}

/// One attempt.
struct Work<'a> {
    args: &'a Export,
    format: Format,
    table: &'a Table<Dialer>,
    select: &'a Select,
    columns: &'a [Column],
    out: &'a Out,
}

impl Work<'_> {
    async fn file(&self) -> Result<(Evidenced, Written), Stop> {
        let evidenced = self.table.evidence().await?;
        let total = match self.table.aggregate(&self.select.range, &Aggregate::Count).await?.value {
            AggregateValue::Count(rows) => rows,
            _ => 0,
        };
        let part = Part::new(&self.args.out).map_err(Stop::Failed)?;
        let schema = self.table.schema();
        let indices: Vec<usize> =
            self.columns.iter().map(|c| schema.index(&c.name).expect("they were looked up in it")).collect();
        let options = WriteOptions { null: self.args.null.clone() };
        let hashing = Hashing { inner: BufWriter::new(part.file()?), hasher: blake3::Hasher::new(), bytes: 0 };
        let failed = |e: WriteError| Stop::Failed(self.failed(e));
        let mut writer = Writer::new(hashing, self.format, schema.arrow_of(&indices), options).map_err(failed)?;
        let (bar, begun) = (self.out.progress("exporting", "rows", total), Instant::now());
        let mut digests = RowDigests::default();
        let mut rows = self.table.stream(evidenced.live(), self.select).await?;
        while let Some(batch) = rows.next().await? {
            digests.add(&batch);
            writer.write(&batch).map_err(failed)?;
            let per_second = digests.rows() as f64 / begun.elapsed().as_secs_f64().max(0.001);
            bar.message(&format!("exporting, {} rows/s", output::count(per_second as u64)));
            bar.set(digests.rows(), total.max(digests.rows()));
        }
        bar.done();
        let Hashing { inner, hasher, bytes } = writer.finish().map_err(failed)?;
        let file = inner.into_inner().map_err(|e| failed(e.into_error().into()))?;
        part.keep(&file).map_err(Stop::Failed)?;
        let blake3 = ContentHash::from_bytes(*hasher.finalize().as_bytes());
        let null = if self.format == Format::Csv { self.args.null.clone() } else { String::new() };
        let file = ExportedFile { format: self.format.name().to_owned(), null, bytes, blake3 };
        let range =
            (self.args.from.is_some() || self.args.to.is_some() || self.args.where_prefix.is_some()).then(|| {
                let Export { from, to, where_prefix, .. } = self.args;
                ExportedRange { from: from.clone(), to: to.clone(), prefix: where_prefix.clone() }
            });
        Ok((evidenced, Written { columns: self.columns.to_vec(), range, digests, file }))
    }

    fn failed(&self, error: WriteError) -> Failure {
        let help = match &error {
            WriteError::Null { .. } => "--null TEXT names another text for NULL, as '\\N'; Parquet and Arrow need none",
            WriteError::Year { .. } => "choose --format parquet or arrow",
            _ => "is there room on the disk?",
        };
        Failure::failed(format!("cannot write {}", self.args.out.display())).because(error).help(help)
    }
}

/// A file under a name of its own until it is whole; gone where it never is.
struct Part {
    path: PathBuf,
    to: PathBuf,
}

impl Part {
    fn new(to: &Path) -> Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(".part");
        Ok(Self { path: name.into(), to: to.to_owned() })
    }

    fn file(&self) -> Result<File, Stop> {
        use std::os::unix::fs::OpenOptionsExt;
        // The owner's plaintext: for the owner only, until the owner says otherwise.
        let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&self.path);
        file.doing(format!("cannot write {}", self.path.display())).map_err(Stop::Failed)
    }

    fn keep(&self, file: &File) -> Result<()> {
        let keep = || -> std::io::Result<()> {
            file.sync_all()?;
            // Unlike a rename, a link does not replace what came there meanwhile; some disks have no links.
            match std::fs::hard_link(&self.path, &self.to) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists && !self.to.exists() => {
                    std::fs::rename(&self.path, &self.to)
                }
                linked => linked,
            }
        };
        keep().doing(format!("cannot write {}", self.to.display())).or_help("name another file with --out")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Hashes and counts what passes.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
