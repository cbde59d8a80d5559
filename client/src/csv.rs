//! CSV to record batches: streaming, bounded, by an explicit schema; and a helper that proposes a schema.
//!
//! Rule    nothing is changed silently: a field that does not fit its column's type exactly is an error that names row and column.
//!         The null token is NULL in every column; an empty field is NULL where the type has no empty value (all but text and bytes).
//! Format  first line: column names, in any order; all columns of the schema must be there, others are refused.
//!         Dates `2013-01-31`, timestamps `2013-01-31[T ]05:00[:00[.5]][Z|+01:00]`, bytes `\x0a0b` or `0x0a0b`, bools `true`/`false`/`t`/`f`/`1`/`0`.

use crate::schema::{Column, SchemaError, TableSchema};
use crate::time;
use crate::value::{ColumnBuilder, ColumnType, DECIMAL_PRECISION_MAX, VALUE_BYTES_MAX, Value};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Format;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Most bytes of the file read for one batch, so that a missing quote does not swallow memory.
const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Why a CSV was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CsvError {
    /// The file cannot be read.
    #[error("{path}: {why}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        why: io::Error,
    },
    /// Not a CSV, or a record of another length.
    #[error("malformed CSV near row {row}: {why}")]
    Malformed {
        /// Data row, 1 for the first.
        row: u64,
        /// The reader's reason.
        why: String,
    },
    /// The header line does not fit the schema.
    #[error("header: {0}")]
    Header(String),
    /// A field does not fit its column.
    #[error("row {row}, column {column:?}: {text:?} is no {ty}")]
    Field {
        /// Data row, 1 for the first.
        row: u64,
        /// The column.
        column: String,
        /// The field, cut to 80 characters.
        text: String,
        /// What it should be.
        ty: ColumnType,
    },
    /// NULL where it may not be.
    #[error("row {row}, column {column:?}: NULL, but the column is not nullable")]
    Null {
        /// Data row.
        row: u64,
        /// The column.
        column: String,
    },
    /// The schema that would follow from the file is not one.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// How a CSV file is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsvOptions {
    /// The text that stands for NULL, as `NA`.
    pub null: String,
    /// The byte between fields.
    pub delimiter: u8,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { null: "NA".to_owned(), delimiter: b',' }
    }
}

/// Counts what is read between two batches and stops above the limit.
struct Metered<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if self.read.fetch_add(n as u64, Ordering::Relaxed) + n as u64 > BATCH_BYTES_MAX {
            let why = format!("{BATCH_ROWS} rows take more than {BATCH_BYTES_MAX} bytes; is a quote missing?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(n)
    }
}

/// Reads every field as text.
type TextReader = arrow_csv::reader::BufReader<BufReader<Metered<Box<dyn Read + Send>>>>;

/// Record batches of a CSV file.
pub struct CsvBatches {
    reader: TextReader,
    read: Arc<AtomicU64>,
    schema: TableSchema,
    arrow: SchemaRef,
    /// For each column of the schema, the field it stands in.
    places: Vec<usize>,
    null: String,
    row: u64,
    bytes: u64,
}

impl std::fmt::Debug for CsvBatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CsvBatches(row {})", self.row)
    }
}

/// Column names of the first line.
pub(crate) fn header(options: &CsvOptions, source: impl Read) -> Result<Vec<String>, CsvError> {
    let format = Format::default().with_header(true).with_delimiter(options.delimiter);
    let capped = source.take(1 << 20);
    let (schema, _) = format.infer_schema(capped, Some(0)).map_err(|e| CsvError::Header(e.to_string()))?;
    // Spreadsheets begin a file with a byte order mark; it is no part of the first name.
    let name = |f: &Arc<Field>| f.name().trim_start_matches('\u{feff}').to_owned();
    Ok(schema.fields().iter().map(name).collect())
}

fn open(path: &Path) -> Result<std::fs::File, CsvError> {
    std::fs::File::open(path).map_err(|why| CsvError::Io { path: path.display().to_string(), why })
}

fn text_reader(
    fields: usize,
    options: &CsvOptions,
    source: Box<dyn Read + Send>,
    read: &Arc<AtomicU64>,
) -> Result<TextReader, CsvError> {
    // Every field as text: the types are ours to read, so that nothing is rounded on the way.
    let text = Schema::new((0..fields).map(|i| Field::new(i.to_string(), DataType::Utf8, true)).collect::<Vec<_>>());
    let metered = Metered { inner: source, read: Arc::clone(read) };
    ReaderBuilder::new(Arc::new(text))
        .with_header(true)
        .with_delimiter(options.delimiter)
        .with_batch_size(BATCH_ROWS)
        .build_buffered(BufReader::with_capacity(1 << 18, metered))
        .map_err(|e| CsvError::Header(e.to_string()))
}

impl CsvBatches {
    /// Opens a file of the schema's columns.
    ///
    /// # Errors
    /// [`CsvError`] where it cannot be read or its header does not fit.
    pub fn open(path: &Path, schema: &TableSchema, options: &CsvOptions) -> Result<Self, CsvError> {
        let names = header(options, open(path)?)?;
        Self::with_names(names, Box::new(open(path)?), schema, options)
    }

    /// The same of bytes in memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>, schema: &TableSchema, options: &CsvOptions) -> Result<Self, CsvError> {
        let names = header(options, &bytes[..])?;
        Self::with_names(names, Box::new(io::Cursor::new(bytes)), schema, options)
    }

    pub(crate) fn with_names(
        names: Vec<String>,
        source: Box<dyn Read + Send>,
        schema: &TableSchema,
        options: &CsvOptions,
    ) -> Result<Self, CsvError> {
        let place = |c: &Column| {
            let mut at = names.iter().enumerate().filter(|(_, n)| **n == c.name).map(|(i, _)| i);
            match (at.next(), at.next()) {
                (Some(i), None) => Ok(i),
                (None, _) => Err(CsvError::Header(format!("column {:?} is missing", c.name))),
                _ => Err(CsvError::Header(format!("column {:?} is there twice", c.name))),
            }
        };
        let places = schema.columns().iter().map(place).collect::<Result<Vec<_>, _>>()?;
        if let Some((_, extra)) = names.iter().enumerate().find(|(i, _)| !places.contains(i)) {
            let extra: String = extra.chars().take(80).collect();
            return Err(CsvError::Header(format!("column {extra:?} is not in the table")));
        }
        let read = Arc::new(AtomicU64::new(0));
        Ok(Self {
            reader: text_reader(names.len(), options, source, &read)?,
            read,
            arrow: schema.arrow(),
            schema: schema.clone(),
            places,
            null: options.null.clone(),
            row: 0,
            bytes: 0,
        })
    }

    /// Rows read so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.row
    }

    /// Bytes read so far, for progress bars.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn convert(&self, text: &RecordBatch) -> Result<RecordBatch, CsvError> {
        let columns = self.schema.columns().iter().zip(&self.places);
        let arrays = columns
            .map(|(column, place)| {
                let fields: &StringArray = text.column(*place).as_string();
                let mut builder = ColumnBuilder::new(column.ty, fields.len());
                for i in 0..fields.len() {
                    let field = if fields.is_null(i) { "" } else { fields.value(i) };
                    let row = self.row + 1 + i as u64;
                    let wrong = || CsvError::Field {
                        row,
                        column: column.name.clone(),
                        text: field.chars().take(80).collect(),
                        ty: column.ty,
                    };
                    if is_null(field, column.ty, &self.null) {
                        if !column.nullable {
                            return Err(CsvError::Null { row, column: column.name.clone() });
                        }
                        builder.push_null();
                    } else if column.ty == ColumnType::Text {
                        if !builder.push_str(field) {
                            return Err(wrong());
                        }
                    } else {
                        let value = parse_value(field, column.ty).ok_or_else(wrong)?;
                        if !builder.push(&value) {
                            return Err(wrong());
                        }
                    }
                }
                Ok(builder.finish())
            })
            .collect::<Result<Vec<_>, CsvError>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.arrow), arrays).expect("one array of the schema's type per column"))
    }
}

impl Iterator for CsvBatches {
    type Item = Result<RecordBatch, CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        self.bytes += self.read.swap(0, Ordering::Relaxed);
        let batch = batch.map_err(|e| malformed(self.row + 1, &e)).and_then(|text| self.convert(&text));
        if let Ok(batch) = &batch {
            self.row += batch.num_rows() as u64;
        }
        Some(batch)
    }
}

fn malformed(row: u64, e: &ArrowError) -> CsvError {
    CsvError::Malformed { row, why: e.to_string() }
}

fn is_null(field: &str, ty: ColumnType, null: &str) -> bool {
    field == null || field.is_empty() && !matches!(ty, ColumnType::Text | ColumnType::Bytes)
}

/// Reads a value as it stands in CSV or on a command line; `None` where it does not fit the type exactly.
#[must_use]
pub fn parse_value(text: &str, ty: ColumnType) -> Option<Value> {
    Some(match ty {
        ColumnType::Int64 => {
            // "517.0" is an integer to whoever wrote it; nothing is lost.
            let whole = match text.split_once('.') {
                Some((whole, part)) if !part.is_empty() && part.bytes().all(|b| b == b'0') => whole,
                Some(_) => return None,
                None => text,
            };
            Value::Int64(whole.parse().ok()?)
        }
        ColumnType::Decimal { precision, scale } => {
            let unscaled = parse_decimal(text, scale)?;
            let value = Value::Decimal { unscaled, scale };
            (ColumnType::Decimal { precision, scale }).holds(&value).then_some(value)?
        }
        ColumnType::Float64 => Value::Float64(text.parse().ok()?),
        ColumnType::Text => (text.len() <= VALUE_BYTES_MAX).then(|| Value::Text(text.to_owned()))?,
        ColumnType::Bool => Value::Bool(match text {
            "true" | "TRUE" | "True" | "t" | "1" => true,
            "false" | "FALSE" | "False" | "f" | "0" => false,
            _ => return None,
        }),
        ColumnType::Timestamp => Value::Timestamp(time::parse_timestamp(text)?),
        ColumnType::Date => Value::Date(time::parse_date(text)?),
        ColumnType::Bytes => {
            let digits = text.strip_prefix("\\x").or_else(|| text.strip_prefix("0x")).unwrap_or(text);
            let bytes = hex::decode(digits).ok()?;
            (bytes.len() <= VALUE_BYTES_MAX).then_some(Value::Bytes(bytes))?
        }
    })
}

/// `text * 10^scale`, if that is an integer of at most 28 digits.
fn parse_decimal(text: &str, scale: u8) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.trim_end_matches('0');
    if whole.is_empty() && part.is_empty() && !digits.contains('0') || part.len() > usize::from(scale) {
        return None;
    }
    let padding = usize::from(scale) - part.len();
    let mut value = 0i128;
    for b in whole.bytes().chain(part.bytes()).chain(std::iter::repeat_n(b'0', padding)) {
        if !b.is_ascii_digit() || value >= 10i128.pow(u32::from(DECIMAL_PRECISION_MAX)) {
            return None;
        }
        value = value * 10 + i128::from(b - b'0');
    }
    Some(if negative { -value } else { value })
}

/// What the fields of one column have in common so far.
#[derive(Clone, Debug)]
pub(crate) struct Guess {
    any: bool,
    null: bool,
    int: bool,
    decimal: bool,
    float: bool,
    bool: bool,
    date: bool,
    timestamp: bool,
    whole_digits: usize,
    part_digits: usize,
}

impl Guess {
    pub(crate) const fn new() -> Self {
        Self {
            any: false,
            null: false,
            int: true,
            decimal: true,
            float: true,
            bool: true,
            date: true,
            timestamp: true,
            whole_digits: 0,
            part_digits: 0,
        }
    }

    fn see(&mut self, field: &str, null: &str) {
        if field == null || field.is_empty() {
            // Whether an empty field is NULL follows from the type; a nullable column suits both.
            self.null = true;
            return;
        }
        self.see_value(field);
    }

    /// A NULL, or no field at all.
    #[cfg(feature = "files")]
    pub(crate) const fn see_null(&mut self) {
        self.null = true;
    }

    /// A text that is marked as one: it may be a date or a time, and is no number.
    #[cfg(feature = "files")]
    pub(crate) fn see_text(&mut self, text: &str) {
        self.see_value(text);
        (self.int, self.decimal, self.float, self.bool) = (false, false, false, false);
    }

    /// A field that is not NULL.
    pub(crate) fn see_value(&mut self, field: &str) {
        self.any = true;
        self.int &= field.parse::<i64>().is_ok();
        if self.decimal {
            let digits = field.strip_prefix(['-', '+']).unwrap_or(field);
            let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
            self.decimal = !whole.is_empty() && whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit());
            self.whole_digits = self.whole_digits.max(whole.trim_start_matches('0').len());
            self.part_digits = self.part_digits.max(part.len());
            self.decimal &= self.whole_digits + self.part_digits <= usize::from(DECIMAL_PRECISION_MAX);
        }
        self.float = self.float && field.parse::<f64>().is_ok();
        self.bool = self.bool && matches!(field, "true" | "false" | "TRUE" | "FALSE" | "True" | "False");
        self.date = self.date && time::parse_date(field).is_some();
        self.timestamp = self.timestamp && time::parse_timestamp(field).is_some();
    }

    /// Whether a NULL was among them.
    #[cfg(feature = "files")]
    pub(crate) const fn is_nullable(&self) -> bool {
        self.null
    }

    /// The narrowest type.
    pub(crate) fn ty(&self) -> ColumnType {
        match self {
            Self { any: false, .. } => ColumnType::Text,
            Self { bool: true, .. } => ColumnType::Bool,
            Self { int: true, .. } => ColumnType::Int64,
            Self { decimal: true, .. } => {
                let scale = self.part_digits as u8;
                let precision =
                    (self.whole_digits + self.part_digits + 2).min(usize::from(DECIMAL_PRECISION_MAX)) as u8;
                ColumnType::Decimal { precision, scale }
            }
            Self { float: true, .. } => ColumnType::Float64,
            Self { date: true, .. } => ColumnType::Date,
            Self { timestamp: true, .. } => ColumnType::Timestamp,
            _ => ColumnType::Text,
        }
    }
}

/// Proposes columns for a CSV file, from all its rows: the narrowest type that holds every field, nullable where one is missing.
///
/// # Errors
/// [`CsvError`] where it cannot be read.
pub fn infer_columns(path: &Path, options: &CsvOptions) -> Result<Vec<Column>, CsvError> {
    let names = header(options, open(path)?)?;
    Ok(infer(names, Box::new(open(path)?), options, None)?.0)
}

/// [`infer_columns`] of bytes in memory.
///
/// # Errors
/// As [`infer_columns`].
pub fn infer_columns_from_bytes(bytes: Vec<u8>, options: &CsvOptions) -> Result<Vec<Column>, CsvError> {
    let names = header(options, &bytes[..])?;
    Ok(infer(names, Box::new(io::Cursor::new(bytes)), options, None)?.0)
}

/// Columns by the first `rows_max` rows, or all, and the number of rows where all were read.
pub(crate) fn infer(
    names: Vec<String>,
    source: Box<dyn Read + Send>,
    options: &CsvOptions,
    rows_max: Option<u64>,
) -> Result<(Vec<Column>, Option<u64>), CsvError> {
    let read = Arc::new(AtomicU64::new(0));
    let mut guesses = vec![Guess::new(); names.len()];
    let (mut rows, mut all) = (0, true);
    for batch in text_reader(names.len(), options, source, &read)? {
        if rows_max.is_some_and(|most| rows >= most) {
            all = false;
            break;
        }
        let batch = batch.map_err(|e| malformed(rows + 1, &e))?;
        read.store(0, Ordering::Relaxed);
        for (guess, column) in guesses.iter_mut().zip(batch.columns()) {
            let fields: &StringArray = column.as_string();
            for i in 0..fields.len() {
                guess.see(if fields.is_null(i) { "" } else { fields.value(i) }, &options.null);
            }
        }
        rows += batch.num_rows() as u64;
    }
    let columns = names.into_iter().zip(guesses).map(|(name, g)| Column {
        name,
        ty: g.ty(),
        nullable: g.null,
        public: false,
        bits: None,
    });
    Ok((columns.collect(), all.then_some(rows)))
}

/// The name a file's table gets: its file name up to the first point.
#[must_use]
pub fn table_name(path: &Path) -> String {
    let name = PathBuf::from(path.file_name().unwrap_or_default()).to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "n,price,ok,day,at,name,x,raw\n\
        1,2.50,true,2013-01-31,2013-01-31 05:00:00,\"a,b\",1e3,0x00ff\n\
        -7,NA,false,2013-02-01,2013-02-01T00:00Z,,NA,\n\
        NA,10.125,true,NA,NA,NA,2.5,0x\n";

    fn schema() -> TableSchema {
        let columns = vec![
            Column::nullable("n", ColumnType::Int64),
            Column::nullable("price", ColumnType::Decimal { precision: 7, scale: 3 }),
            Column::new("ok", ColumnType::Bool),
            Column::nullable("day", ColumnType::Date),
            Column::nullable("at", ColumnType::Timestamp),
            Column::nullable("name", ColumnType::Text),
            Column::nullable("x", ColumnType::Float64),
            Column::nullable("raw", ColumnType::Bytes),
        ];
        TableSchema::new("t", columns, &["n"], vec![]).unwrap()
    }

    fn read(text: &str) -> Result<RecordBatch, CsvError> {
        CsvBatches::from_bytes(text.as_bytes().to_vec(), &schema(), &CsvOptions::default())?.next().unwrap()
    }

    #[test]
    fn reads_every_type_and_null() {
        let batch = read(SAMPLE).unwrap();
        let at = |column: &str, row| Value::at(batch.column_by_name(column).unwrap(), row).unwrap();
        assert_eq!(at("n", 1), Value::Int64(-7));
        assert_eq!(at("n", 2), Value::Null);
        assert_eq!(at("price", 0), Value::Decimal { unscaled: 2500, scale: 3 });
        assert_eq!(at("price", 2), Value::Decimal { unscaled: 10_125, scale: 3 });
        assert_eq!(at("day", 0).to_string(), "2013-01-31");
        assert_eq!(at("at", 0).to_string(), "2013-01-31T05:00:00Z");
        assert_eq!(at("name", 0), Value::Text("a,b".into()));
        assert_eq!(at("name", 1), Value::Text(String::new()), "an empty text is a text");
        assert_eq!(at("name", 2), Value::Null);
        assert_eq!(at("x", 0), Value::Float64(1000.0));
        assert_eq!(at("raw", 0), Value::Bytes(vec![0, 255]));
        assert_eq!(at("raw", 1), Value::Bytes(vec![]));
    }

    #[test]
    fn columns_may_stand_in_another_order_but_none_missing_or_extra() {
        let turned = "raw,n,price,ok,day,at,name,x\n0x01,1,2,t,NA,NA,q,1\n";
        assert_eq!(Value::at(read(turned).unwrap().column(0), 0), Some(Value::Int64(1)));
        let missing = read("n,price\n1,2\n").unwrap_err();
        assert!(missing.to_string().contains("\"ok\" is missing"), "{missing}");
        let extra = read(&turned.replace("raw,", "raw,more,").replace("0x01,", "0x01,9,")).unwrap_err();
        assert!(extra.to_string().contains("\"more\" is not in the table"), "{extra}");
    }

    #[test]
    fn a_field_that_does_not_fit_is_named() {
        for (from, to, want) in [
            ("-7", "7.5", "row 2, column \"n\": \"7.5\" is no int64"),
            ("10.125", "10.1255", "row 3, column \"price\": \"10.1255\" is no decimal(7,3)"),
            ("10.125", "10000", "row 3, column \"price\": \"10000\" is no decimal(7,3)"),
            ("2013-02-01T", "2013-02-30T", "column \"at\""),
            ("false", "no", "row 2, column \"ok\": \"no\" is no bool"),
            ("false", "NA", "row 2, column \"ok\": NULL"),
            ("0x00ff", "0x0", "column \"raw\""),
        ] {
            let error = read(&SAMPLE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} lacks {want:?}");
        }
        assert!(matches!(read(&SAMPLE.replace("-7,", "")), Err(CsvError::Malformed { row: 1, .. })));
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, want) in [
            ("1", Some(100)),
            ("-1.25", Some(-125)),
            (".5", Some(50)),
            ("+0.10", Some(10)),
            ("0", Some(0)),
            ("1.250", Some(125)),
            ("1.255", None),
            ("", None),
            ("-", None),
            (".", None),
            ("1e2", None),
            ("1.2.3", None),
            ("99999999999999999999999999999", None),
        ] {
            assert_eq!(parse_decimal(text, 2), want, "{text}");
        }
        assert_eq!(parse_value("517.0", ColumnType::Int64), Some(Value::Int64(517)));
        assert_eq!(parse_value("517.", ColumnType::Int64), None);
    }

    #[test]
    fn inference_proposes_the_narrowest_types() {
        let columns = infer_columns_from_bytes(SAMPLE.as_bytes().to_vec(), &CsvOptions::default()).unwrap();
        let got: Vec<_> =
            columns.iter().map(|c| format!("{} {}{}", c.name, c.ty, if c.nullable { "?" } else { "" })).collect();
        assert_eq!(
            got,
            [
                "n int64?",
                "price decimal(7,3)?",
                "ok bool",
                "day date?",
                "at timestamp?",
                "name text?",
                "x float64?",
                "raw text?"
            ]
        );
    }

    #[test]
    fn many_batches_count_their_rows() {
        let mut text = "n\n".to_owned();
        (0..20_000).for_each(|i| text.push_str(&format!("{i}\n")));
        let schema = TableSchema::new("t", vec![Column::new("n", ColumnType::Int64)], &["n"], vec![]).unwrap();
        let mut batches = CsvBatches::from_bytes(text.into_bytes(), &schema, &CsvOptions::default()).unwrap();
        let rows: usize = batches.by_ref().map(|b| b.unwrap().num_rows()).sum();
        assert_eq!((rows, batches.rows()), (20_000, 20_000));
        assert!(batches.bytes() > 100_000);
    }
}
