//! Writing rows: batches of a table's columns as CSV, JSON lines, Parquet or Arrow IPC, streaming.
//!
//! CSV     RFC 4180, lines end in `\n`; NULL is the token given, bytes are `\x0a0b`, timestamps and dates as ISO 8601. A text that is the
//!         token for NULL is refused: read back it would be NULL.
//! JSON    integers up to 2^53 and doubles are numbers; larger integers, decimals, dates, timestamps and bytes are strings, so that no
//!         reader rounds them. NULL is null.
//!         Dates outside the years 1 to 9999 have no such text, and are refused in both.
//! Parquet Snappy, row groups of at most 131,072 rows or some 64 MiB. Arrow: the file format, not compressed.
//! Rule    what is written here is read back by this module to the same values.

use super::Format;
use crate::time;
use crate::value::Value;
use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Largest integer that every JSON reader keeps exactly.
const JSON_INTEGER_MAX: u64 = 1 << 53;
/// Rows and bytes of a Parquet row group.
const GROUP_ROWS: usize = 1 << 17;
const GROUP_BYTES: usize = 64 << 20;

const DAY_US: i64 = 86_400_000_000;

/// Why rows were not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The disk, or whoever reads.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Arrow IPC.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// Parquet.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// A date or timestamp that no text is read back to.
    #[error("column {column:?} holds {text}, which is outside the years 1 to 9999; Parquet and Arrow keep it")]
    Year {
        /// The column.
        column: String,
        /// As it would be written.
        text: String,
    },
    /// A text that would be read back as NULL.
    #[error("column {column:?} holds the text {null:?}, which stands for NULL; name another text for it")]
    Null {
        /// The column.
        column: String,
        /// The token.
        null: String,
    },
}

/// How rows are written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions {
    /// CSV's token for NULL.
    pub null: String,
}

/// Writes rows of one schema, whose columns are of this crate's types.
pub struct Writer<W: Write + Send>(Inner<W>);

enum Inner<W: Write + Send> {
    Csv { to: W, options: WriteOptions },
    Json { to: W },
    Parquet(Box<ArrowWriter<W>>),
    Arrow(Box<FileWriter<W>>),
}

impl<W: Write + Send> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

/// A Parquet writer of any Arrow schema.
///
/// # Errors
/// [`WriteError`] for types that Parquet does not have.
pub fn parquet_writer<W: Write + Send>(to: W, schema: SchemaRef) -> Result<ArrowWriter<W>, WriteError> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let properties = properties.set_max_row_group_row_count(Some(GROUP_ROWS)).build();
    Ok(ArrowWriter::try_new(to, schema, Some(properties))?)
}

impl<W: Write + Send> Writer<W> {
    /// Begins: of CSV, the header line is written.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn new(mut to: W, format: Format, schema: SchemaRef, options: WriteOptions) -> Result<Self, WriteError> {
        Ok(Self(match format {
            Format::Csv => {
                let mut line = String::new();
                for (i, field) in schema.fields().iter().enumerate() {
                    push_field(&mut line, i, field.name());
                }
                line.push('\n');
                to.write_all(line.as_bytes())?;
                Inner::Csv { to, options }
            }
            Format::JsonLines => Inner::Json { to },
            Format::Parquet => Inner::Parquet(Box::new(parquet_writer(to, schema)?)),
            Format::Arrow => Inner::Arrow(Box::new(FileWriter::try_new(to, &schema)?)),
        }))
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// [`WriteError`]; the file is of no use then.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let value = |column: usize, row| {
            let value = Value::at(batch.column(column), row).expect("columns of this crate's types");
            let in_range = match &value {
                Value::Date(days) => is_writable(*days),
                Value::Timestamp(us) => i32::try_from(us.div_euclid(DAY_US)).is_ok_and(is_writable),
                _ => true,
            };
            match in_range {
                true => Ok(value),
                false => {
                    let column = batch.schema_ref().field(column).name().clone();
                    Err(WriteError::Year { column, text: value.to_string() })
                }
            }
        };
        match &mut self.0 {
            Inner::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > GROUP_BYTES {
                    writer.flush()?;
                }
            }
            Inner::Arrow(writer) => writer.write(batch)?,
            Inner::Csv { to, options } => {
                let mut text = String::new();
                for row in 0..batch.num_rows() {
                    for column in 0..batch.num_columns() {
                        match value(column, row)? {
                            // A line with nothing on it is no row to most readers.
                            Value::Null if options.null.is_empty() && batch.num_columns() == 1 => text.push_str("\"\""),
                            Value::Null => push_null(&mut text, column, &options.null),
                            Value::Text(field) if field == options.null => {
                                let column = batch.schema_ref().field(column).name().clone();
                                return Err(WriteError::Null { column, null: options.null.clone() });
                            }
                            other => push_field(&mut text, column, &other.to_string()),
                        }
                    }
                    text.push('\n');
                }
                to.write_all(text.as_bytes())?;
            }
            Inner::Json { to } => {
                let names: Vec<String> = batch.schema_ref().fields().iter().map(|f| quoted(f.name())).collect();
                let mut text = String::new();
                for row in 0..batch.num_rows() {
                    for (column, name) in names.iter().enumerate() {
                        text.push(if column == 0 { '{' } else { ',' });
                        text.push_str(name);
                        text.push(':');
                        push_json(&mut text, &value(column, row)?);
                    }
                    text.push_str("}\n");
                }
                to.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Ends the file, and gives back what it was written to.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(self) -> Result<W, WriteError> {
        Ok(match self.0 {
            Inner::Csv { mut to, .. } | Inner::Json { mut to } => {
                to.flush()?;
                to
            }
            Inner::Parquet(writer) => writer.into_inner()?,
            Inner::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()?
            }
        })
    }
}

/// Whether a day is in the years that text has.
fn is_writable(days: i32) -> bool {
    (1..=9999).contains(&time::civil(days).0)
}

fn push_null(line: &mut String, column: usize, null: &str) {
    if column > 0 {
        line.push(',');
    }
    line.push_str(null);
}

/// One field of RFC 4180.
fn push_field(line: &mut String, column: usize, field: &str) {
    if column > 0 {
        line.push(',');
    }
    if field.is_empty() || field.contains(['"', ',', '\n', '\r']) {
        line.push('"');
        line.push_str(&field.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(field);
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

fn push_json(text: &mut String, value: &Value) {
    let done = match value {
        Value::Null => {
            text.push_str("null");
            Ok(())
        }
        Value::Int64(v) if v.unsigned_abs() <= JSON_INTEGER_MAX => write!(text, "{v}"),
        Value::Bool(b) => write!(text, "{b}"),
        Value::Float64(v) if v.is_finite() => write!(text, "{v:?}"),
        other => {
            text.push_str(&quoted(&other.to_string()));
            Ok(())
        }
    };
    done.expect("writing to a String does not fail");
}
