//! Rows in files: CSV, Parquet, Arrow IPC and JSON lines, read into record batches of a table's schema and written from them.
//!
//! Rule    a file is bytes from a stranger: what is read of it at once is bounded by the limits below, whatever it claims of itself, and a
//!         malformed one is a [`FileError`]. The columnar libraries are called behind [`guarded`]: a panic of theirs is an error too.
//! Rule    nothing is changed silently: a value that does not fit its column exactly is an error that names row and column; a column that
//!         cannot be kept is refused by name before a row is read.
//! Order   [`inspect`] proposes columns, [`read`] gives batches of a schema; both take an [`Input`], a file or a stream.
//! Rooms   `convert` Arrow's types to ours, `pages` the pages of a Parquet file, `from_parquet`, `from_arrow`, `from_json`, `write`

mod convert;
mod from_arrow;
mod from_json;
mod from_parquet;
mod pages;
mod write;

pub use write::{WriteError, WriteOptions, Writer, parquet_writer};

use crate::csv::{self, CsvError, CsvOptions};
use crate::schema::{Column, TableSchema};
use crate::value::{ColumnType, Value};
use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of a batch that is read.
pub(crate) const BATCH_ROWS: usize = 8192;
/// Bytes of the start of a stream that are kept to infer types from.
pub const HEAD_BYTES: usize = 8 << 20;
/// Longest line of a file of JSON lines.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Metadata of a Parquet file, a schema message of Arrow.
pub const METADATA_BYTES_MAX: usize = 64 << 20;
/// A Parquet page, unpacked; dictionaries are pages.
pub const PAGE_BYTES_MAX: u64 = 64 << 20;
/// A row group of Parquet, unpacked. It is read page by page.
pub const GROUP_BYTES_MAX: u64 = 4 << 30;
/// A batch of Arrow, unpacked; and all dictionaries of a file together.
pub const BATCH_BYTES_MAX: u64 = 512 << 20;
/// Row groups of a Parquet file.
pub const GROUPS_MAX: usize = 1 << 16;
/// Columns of a file.
pub const COLUMNS_MAX: usize = 1024;

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("{path}: {why}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        why: io::Error,
    },
    /// A CSV file.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// It is not a file of that format, or a damaged one.
    #[error("malformed {format}: {why}")]
    Malformed {
        /// The format.
        format: Format,
        /// What is wrong, and where.
        why: String,
    },
    /// It is larger somewhere than this program reads at once.
    #[error("{what}: {got}, the limit is {limit}")]
    Limit {
        /// What of it.
        what: String,
        /// How large it is, or claims to be.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A column that no column of a table can keep.
    #[error("column {column:?} is {ty}: {why}")]
    Column {
        /// The column.
        column: String,
        /// Its type in the file.
        ty: String,
        /// Why not.
        why: &'static str,
    },
    /// The file's columns are not the table's.
    #[error("columns: {0}")]
    Columns(String),
    /// A value does not fit its column.
    #[error("row {row}, column {column:?}: {text:?} is no {ty}")]
    Value {
        /// Row, 1 for the first.
        row: u64,
        /// The column.
        column: String,
        /// The value, cut to 80 characters.
        text: String,
        /// What it should be.
        ty: ColumnType,
    },
    /// NULL where it may not be.
    #[error("row {row}, column {column:?}: NULL, but the column is not nullable")]
    Null {
        /// Row, 1 for the first.
        row: u64,
        /// The column.
        column: String,
    },
    /// The format needs a file that can be read from its end.
    #[error("{0} is not read from a stream: its metadata stands at the end; name a file")]
    NotStreaming(Format),
}

/// A file format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC: the file format ("Feather 2") or the stream format.
    Arrow,
    /// One JSON object a line.
    JsonLines,
}

impl Format {
    /// The format that a file's name ends in.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "csv" => Self::Csv,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "arrows" | "feather" | "ipc" => Self::Arrow,
            "jsonl" | "ndjson" | "json" => Self::JsonLines,
            _ => return None,
        })
    }

    /// Its short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::JsonLines => "jsonl",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Csv => "CSV",
            Self::Parquet => "Parquet",
            Self::Arrow => "Arrow IPC",
            Self::JsonLines => "JSON lines",
        })
    }
}

/// How a file is read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadOptions {
    /// CSV's token for NULL and delimiter.
    pub csv: CsvOptions,
    /// Rows of CSV and JSON lines that types are inferred from; all of a file where none is given.
    pub sample_rows: Option<u64>,
}

/// Where rows come from.
pub enum Input {
    /// A file.
    File(PathBuf),
    /// A stream, its beginning read.
    Stream(Stream),
}

/// A stream whose first bytes are kept, so that types can be inferred from them.
pub struct Stream {
    head: Arc<Vec<u8>>,
    rest: Box<dyn Read + Send>,
    whole: bool,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "Input({})", path.display()),
            Self::Stream(stream) => write!(f, "Input(a stream, {} bytes of it read)", stream.head.len()),
        }
    }
}

impl Input {
    /// Reads the beginning of a stream.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn stream(mut source: impl Read + Send + 'static) -> Result<Self, FileError> {
        let mut head = Vec::new();
        let read = source.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head);
        read.map_err(|why| FileError::Io { path: "standard input".to_owned(), why })?;
        let whole = head.len() < HEAD_BYTES;
        Ok(Self::Stream(Stream { head: Arc::new(head), rest: Box::new(source), whole }))
    }

    /// What types are inferred from: of a stream that is longer, the whole lines of its beginning.
    fn sample(&self, format: Format) -> Result<Box<dyn Read + Send>, FileError> {
        match self {
            Self::File(path) => Ok(Box::new(open(path)?)),
            Self::Stream(stream) if stream.whole || format == Format::Arrow => {
                Ok(Box::new(Cursor::new(stream.head.to_vec())))
            }
            Self::Stream(stream) => Ok(Box::new(Cursor::new(whole_lines(&stream.head).to_vec()))),
        }
    }

    fn into_read(self) -> Result<Box<dyn Read + Send>, FileError> {
        match self {
            Self::File(path) => Ok(Box::new(open(&path)?)),
            Self::Stream(stream) => {
                let head = Arc::try_unwrap(stream.head).unwrap_or_else(|shared| shared.to_vec());
                Ok(Box::new(Cursor::new(head).chain(stream.rest)))
            }
        }
    }
}

/// Up to the last line end that is not inside quotes.
fn whole_lines(head: &[u8]) -> &[u8] {
    let (mut quoted, mut end) = (false, head.len());
    for (i, byte) in head.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => end = i + 1,
            _ => {}
        }
    }
    &head[..end]
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|why| FileError::Io { path: path.display().to_string(), why })
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its columns, by their names in the file.
    pub columns: Vec<Column>,
    /// Its rows, where they were counted or it says so.
    pub rows: Option<u64>,
}

/// Proposes columns for a file: of CSV and JSON lines the narrowest types that hold what was sampled, of the others what they declare.
/// `types` says otherwise for columns by name.
///
/// # Errors
/// [`FileError`]; each column that cannot be kept is named with its type.
pub fn inspect(
    input: &Input,
    format: Format,
    options: &ReadOptions,
    types: &[(String, ColumnType)],
) -> Result<Found, FileError> {
    let mut found = match format {
        Format::Csv => {
            let mut source = input.sample(format)?;
            let names = csv::header(&options.csv, &mut source)?;
            let (columns, rows) = csv::infer(names, input.sample(format)?, &options.csv, options.sample_rows)?;
            Found { columns, rows }
        }
        Format::JsonLines => from_json::infer(input.sample(format)?, options.sample_rows)?,
        Format::Arrow => from_arrow::inspect(input.sample(format)?, types)?,
        Format::Parquet => match input {
            Input::File(path) => from_parquet::inspect(open(path)?, types)?,
            Input::Stream(_) => return Err(FileError::NotStreaming(format)),
        },
    };
    if let Input::Stream(Stream { whole: false, .. }) = input {
        found.rows = None;
    }
    if found.columns.len() > COLUMNS_MAX {
        let (got, limit) = (found.columns.len() as u64, COLUMNS_MAX as u64);
        return Err(FileError::Limit { what: "columns".to_owned(), got, limit });
    }
    for (name, ty) in types {
        let column = found.columns.iter_mut().find(|c| c.name == *name);
        column.ok_or_else(|| FileError::Columns(format!("there is no column {name:?}")))?.ty = *ty;
    }
    if matches!(format, Format::Csv | Format::JsonLines) && (options.sample_rows.is_some() || found.rows.is_none()) {
        // A sample without NULL says nothing of the rest.
        found.columns.iter_mut().for_each(|c| c.nullable = true);
    }
    Ok(found)
}

/// Batches of a file, in its order.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, FileError>> + Send>;

/// Reads a file's rows as those of a table. Its columns may stand in any order; all of the table's must be there and no others.
///
/// # Errors
/// [`FileError`] where it cannot be opened or its columns are not the table's; the batches give what comes later.
pub fn read(input: Input, format: Format, schema: &TableSchema, options: &ReadOptions) -> Result<Batches, FileError> {
    Ok(match format {
        Format::Csv => {
            let names = csv::header(&options.csv, input.sample(format)?)?;
            let batches = csv::CsvBatches::with_names(names, input.into_read()?, schema, &options.csv)?;
            Box::new(batches.map(|batch| batch.map_err(FileError::from)))
        }
        Format::JsonLines => Box::new(from_json::Lines::new(input.into_read()?, schema)),
        Format::Arrow => Box::new(from_arrow::Reader::open(input.into_read()?, schema)?),
        Format::Parquet => match input {
            Input::File(path) => Box::new(from_parquet::Reader::open(open(&path)?, schema)?),
            Input::Stream(_) => return Err(FileError::NotStreaming(format)),
        },
    })
}

/// For each of the table's columns, its place among the file's.
fn places(names: &[String], schema: &TableSchema) -> Result<Vec<usize>, FileError> {
    let place = |c: &Column| {
        let mut at = names.iter().enumerate().filter(|(_, n)| **n == c.name).map(|(i, _)| i);
        match (at.next(), at.next()) {
            (Some(i), None) => Ok(i),
            (None, _) => Err(FileError::Columns(format!("column {:?} is missing", c.name))),
            _ => Err(FileError::Columns(format!("column {:?} is there twice", c.name))),
        }
    };
    let places = schema.columns().iter().map(place).collect::<Result<Vec<_>, _>>()?;
    match names.iter().enumerate().find(|(i, _)| !places.contains(i)) {
        Some((_, extra)) => Err(FileError::Columns(format!("column {:?} is not in the table", cut(extra)))),
        None => Ok(places),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn no_fit(row: u64, column: &Column, text: &str) -> FileError {
    FileError::Value { row, column: column.name.clone(), text: cut(text), ty: column.ty }
}

/// The value of another type that is exactly this one; `None` where there is none.
pub(crate) fn cast(value: Value, ty: ColumnType) -> Option<Value> {
    if ty.holds(&value) {
        return Some(value);
    }
    const DAY_US: i64 = 86_400_000_000;
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    match (value, ty) {
        (Value::Text(text), ty) => csv::parse_value(&text, ty),
        (Value::Bytes(_), _) => None,
        (value, ColumnType::Text) => Some(Value::Text(value.to_string())),
        (value @ (Value::Int64(_) | Value::Decimal { .. }), ColumnType::Int64 | ColumnType::Decimal { .. }) => {
            csv::parse_value(&value.to_string(), ty)
        }
        (Value::Int64(v), ColumnType::Float64) if v.unsigned_abs() <= EXACT => Some(Value::Float64(v as f64)),
        (Value::Date(days), ColumnType::Timestamp) => Some(Value::Timestamp(i64::from(days) * DAY_US)),
        (Value::Timestamp(us), ColumnType::Date) if us % DAY_US == 0 => {
            Some(Value::Date(i32::try_from(us / DAY_US).ok()?))
        }
        _ => None,
    }
}

/// Calls a library that decodes bytes from strangers. What it panics over, it should have refused.
fn guarded<R>(format: Format, work: impl FnOnce() -> Result<R, ArrowError>) -> Result<R, FileError> {
    let malformed = |why: String| FileError::Malformed { format, why: cut_long(&why) };
    // The state inside is dropped with the reader: after an error nothing is asked of it any more.
    match quiet(std::panic::AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|e| malformed(e.to_string())),
        Err(()) => Err(malformed("it is damaged: the library gave up on it".to_owned())),
    }
}

/// Runs without the panic message that would otherwise be printed for a damaged file.
fn quiet<R>(work: impl FnOnce() -> R + std::panic::UnwindSafe) -> Result<R, ()> {
    use std::cell::Cell;
    use std::sync::Once;
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let done = std::panic::catch_unwind(work);
    QUIET.set(false);
    done.map_err(|_| ())
}

fn cut_long(text: &str) -> String {
    text.chars().take(400).collect()
}
