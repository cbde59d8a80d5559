//! What a statement says, as a table, CSV, a JSON object a row, or a Parquet file.

use crate::args::RowFormat;
use crate::error::{Context, Failure, Result};
use crate::output::Out;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use fluence_client::files::{WriteError, parquet_writer};
use fluence_gateway::DataType;
use fluence_gateway::session::{Outcome, Tag};
use fluence_gateway::{SqlError, text_of};
use futures::{Stream, StreamExt};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::io::Write;

/// Rows of a table that are shown in a terminal: the rest is counted.
const SHOWN_MAX: usize = 1000;

/// How rows are written.
pub(crate) struct Rows {
    pub(crate) format: RowFormat,
    /// Whether a statement's rows were written as a file.
    written: Cell<bool>,
}

impl Rows {
    pub(crate) const fn new(format: RowFormat) -> Self {
        Self { format, written: Cell::new(false) }
    }
}

/// An SQL error as a failure of the command.
pub(crate) fn failure(error: &SqlError) -> Failure {
    let mut failure = Failure::failed(format!("{} ({})", error.message, error.state.code()));
    if let Some(detail) = &error.detail {
        failure = failure.because(detail);
    }
    match &error.hint {
        Some(hint) => failure.help(hint.clone()),
        None => failure,
    }
}

/// Prints what a statement says, to its end.
pub(crate) async fn outcome(outcome: Outcome, rows: &Rows, out: &Out) -> Result<()> {
    let format = rows.format;
    match outcome {
        Outcome::Rows { schema, stream, .. } if format == RowFormat::Parquet => {
            if rows.written.replace(true) {
                return Err(Failure::usage(
                    "more than one statement gives rows, and a Parquet file holds those of one",
                )
                .help("run the statements one by one, each into a file of its own"));
            }
            parquet(schema, stream).await?;
        }
        Outcome::Rows { schema, mut stream, tag } => {
            let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
            let mut shown: Vec<Vec<String>> = Vec::new();
            let mut rows = 0u64;
            let mut stdout = std::io::stdout().lock();
            if format == RowFormat::Csv {
                write_csv(&mut stdout, names.iter().map(|n| Some(n.as_str())))?;
            }
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|e| failure(&SqlError::from(e)))?;
                for row in 0..batch.num_rows() {
                    let mut texts = Vec::with_capacity(names.len());
                    for column in batch.columns() {
                        texts.push(text_of(column.as_ref(), row).map_err(|e| failure(&e))?);
                    }
                    rows += 1;
                    match format {
                        RowFormat::Csv => write_csv(&mut stdout, texts.iter().map(|t| t.as_deref()))?,
                        RowFormat::Json => {
                            let values = texts.into_iter().zip(batch.columns());
                            let values = values.map(|(text, column)| json_value(text, column.data_type()));
                            let object: Map<String, Value> = names.iter().cloned().zip(values).collect();
                            writeln!(stdout, "{}", Value::Object(object)).doing("cannot write")?;
                        }
                        RowFormat::Table if shown.len() < SHOWN_MAX => {
                            shown.push(texts.into_iter().map(|t| t.unwrap_or_default()).collect());
                        }
                        RowFormat::Table | RowFormat::Parquet => {}
                    }
                }
            }
            drop(stdout);
            if format == RowFormat::Table {
                let header: Vec<&str> = names.iter().map(String::as_str).collect();
                let more = rows - shown.len() as u64;
                out.table(&header, shown);
                if more > 0 {
                    out.note(format!("and {more} rows more: --format csv writes them all"));
                }
                out.note(out.dim(&match tag {
                    Tag::Select | Tag::Fetch | Tag::Command(_) if rows == 1 => "1 row".to_owned(),
                    Tag::Select | Tag::Fetch | Tag::Command(_) => format!("{rows} rows"),
                    other => text(&other),
                }));
            }
        }
        Outcome::Done(tag) => {
            if format == RowFormat::Json {
                out.json_line(&json!({ "done": text(&tag) }));
            }
            out.note(text(&tag));
        }
        Outcome::CopyOut { mut stream, .. } => {
            let mut stdout = std::io::stdout().lock();
            while let Some(piece) = stream.next().await {
                let (bytes, _) = piece.map_err(|e| failure(&e))?;
                stdout.write_all(&bytes).doing("cannot write")?;
            }
        }
        Outcome::CopyRows { .. } => {
            return Err(Failure::failed("COPY in binary needs a client of the server, as psql is"));
        }
        Outcome::CopyIn { .. } => {
            return Err(Failure::failed("COPY FROM STDIN needs a client of the server, as psql is"));
        }
        Outcome::Empty => {}
    }
    Ok(())
}

/// One statement's rows as a Parquet file.
async fn parquet<E>(
    schema: SchemaRef,
    mut stream: impl Stream<Item = std::result::Result<RecordBatch, E>> + Unpin,
) -> Result<()>
where
    SqlError: From<E>,
{
    let wrong = |e: WriteError| {
        Failure::failed("the rows cannot be written as Parquet").because(e).help("--format csv writes every type")
    };
    // The lock is not held while rows are waited for.
    let mut writer = parquet_writer(std::io::stdout(), schema).map_err(wrong)?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|e| failure(&SqlError::from(e)))?;
        writer.write(&batch).map_err(|e| wrong(e.into()))?;
    }
    writer.close().map_err(|e| wrong(e.into()))?;
    Ok(())
}

/// A value for programs: integers, doubles and booleans as such; all else as text, so that decimals stay exact.
fn json_value(text: Option<String>, ty: &DataType) -> Value {
    let Some(text) = text else { return Value::Null };
    let number = match ty {
        DataType::Boolean => return Value::Bool(text == "t"),
        DataType::Float64 => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64),
        ty if ty.is_integer() => text.parse::<i64>().ok().map(Into::into),
        _ => None,
    };
    number.map_or(Value::String(text), Value::Number)
}

fn text(tag: &Tag) -> String {
    match tag {
        Tag::Select => "SELECT".to_owned(),
        Tag::Fetch => "FETCH".to_owned(),
        Tag::Move(n) => format!("MOVE {n}"),
        Tag::SelectInto(n) => format!("SELECT {n}"),
        Tag::Insert(n) => format!("INSERT 0 {n}"),
        Tag::Update(n) => format!("UPDATE {n}"),
        Tag::Delete(n) => format!("DELETE {n}"),
        Tag::Copy(n) => format!("COPY {n}"),
        Tag::Command(text) => (*text).to_owned(),
    }
}

/// One line of RFC 4180; NULL is an empty field without quotes.
fn write_csv<'a>(to: &mut impl Write, fields: impl Iterator<Item = Option<&'a str>>) -> Result<()> {
    let mut line = String::new();
    for (i, field) in fields.enumerate() {
        if i > 0 {
            line.push(',');
        }
        let Some(field) = field else { continue };
        if field.is_empty() || field.contains(['"', ',', '\n', '\r']) {
            line.push('"');
            line.push_str(&field.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(field);
        }
    }
    line.push('\n');
    to.write_all(line.as_bytes()).doing("cannot write")
}
