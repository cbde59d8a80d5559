//! JSON lines: one object a line, read as it stands, so that no number goes through a double on its way to an exact column.
//!
//! Values  a number is read by its digits; a string by the column's type, as in CSV (dates, decimals, `\x0a` for bytes); null and a
//!         missing member are NULL. A member that the table does not have, a member twice, an array or an object is refused.
//! Source  <https://jsonlines.org>

use super::{BATCH_ROWS, Batches, COLUMNS_MAX, FileError, Format, Found, LINE_BYTES_MAX, cut, cut_long, no_fit};
use crate::csv::{Guess, parse_value};
use crate::schema::{Column, TableSchema};
use crate::value::{ColumnBuilder, ColumnType, Value};
use arrow_array::RecordBatch;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};

/// Bytes of lines that one batch is made of at most, beside its last line.
const BATCH_BYTES: usize = 64 << 20;

/// The members of one object in order, their values as they are written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    if members.len() == COLUMNS_MAX {
                        return Err(serde::de::Error::custom(format!("more than {COLUMNS_MAX} members")));
                    }
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Seen)
    }
}

/// A name, copied only where it holds escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// What stands at a member.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
}

/// The scalar that is written so; `None` for arrays and objects.
fn scalar(raw: &RawValue) -> Option<Scalar<'_>> {
    let text = raw.get();
    Some(match text.as_bytes().first()? {
        b'n' => Scalar::Null,
        b't' => Scalar::Bool(true),
        b'f' => Scalar::Bool(false),
        b'"' => Scalar::Text(serde_json::from_str::<Name<'_>>(text).ok()?.0),
        b'[' | b'{' => return None,
        _ => Scalar::Number(text),
    })
}

fn malformed(line: u64, why: &dyn fmt::Display) -> FileError {
    FileError::Malformed { format: Format::JsonLines, why: format!("line {line}: {}", cut_long(&why.to_string())) }
}

/// Lines of a source, none longer than the limit, with their numbers.
struct Source<R> {
    inner: BufReader<R>,
    line: u64,
    bytes: Vec<u8>,
}

impl<R: Read> Source<R> {
    fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(1 << 18, inner), line: 0, bytes: Vec::new() }
    }

    /// Reads the next line that is not blank; whether there was one.
    fn next(&mut self) -> Result<bool, FileError> {
        loop {
            self.bytes.clear();
            self.line += 1;
            let most = LINE_BYTES_MAX as u64 + 1;
            let read = self.inner.by_ref().take(most).read_until(b'\n', &mut self.bytes);
            if read.map_err(|e| malformed(self.line, &e))? == 0 {
                return Ok(false);
            }
            if self.bytes.len() > LINE_BYTES_MAX {
                let (got, limit) = (self.bytes.len() as u64, LINE_BYTES_MAX as u64);
                return Err(FileError::Limit { what: format!("bytes of line {}", self.line), got, limit });
            }
            if self.line == 1 && self.bytes.starts_with(b"\xef\xbb\xbf") {
                self.bytes.drain(..3);
            }
            if !self.bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
    }

    fn members(&self) -> Result<Members<'_>, FileError> {
        serde_json::from_slice(&self.bytes).map_err(|e| malformed(self.line, &e))
    }
}

/// Proposes columns, in the order in which members first appear.
pub(super) fn infer(source: impl Read, rows_max: Option<u64>) -> Result<Found, FileError> {
    let mut source = Source::new(source);
    let mut guesses: Vec<(String, Guess, u64)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let (mut rows, mut all) = (0u64, true);
    while source.next()? {
        if rows_max.is_some_and(|most| rows >= most) {
            all = false;
            break;
        }
        rows += 1;
        for (name, raw) in source.members()?.0 {
            let at = match places.get(name.as_ref()) {
                Some(at) => *at,
                None if guesses.len() == COLUMNS_MAX => {
                    let (got, limit) = (guesses.len() as u64 + 1, COLUMNS_MAX as u64);
                    return Err(FileError::Limit { what: "columns".to_owned(), got, limit });
                }
                None => {
                    places.insert(name.clone().into_owned(), guesses.len());
                    guesses.push((name.clone().into_owned(), Guess::new(), 0));
                    guesses.len() - 1
                }
            };
            let (_, guess, seen) = &mut guesses[at];
            *seen += 1;
            match scalar(raw) {
                Some(Scalar::Null) => guess.see_null(),
                Some(Scalar::Bool(b)) => guess.see_value(if b { "true" } else { "false" }),
                Some(Scalar::Number(digits)) => guess.see_value(digits),
                Some(Scalar::Text(text)) => guess.see_text(&text),
                None => {
                    let ty = if raw.get().starts_with('[') { "an array" } else { "an object" };
                    let why =
                        "nested values are not kept; write what is inside as members of their own, or as a string";
                    return Err(FileError::Column { column: cut(&name), ty: ty.to_owned(), why });
                }
            }
        }
    }
    let column = |(name, mut guess, seen): (String, Guess, u64)| {
        if seen < rows {
            guess.see_null();
        }
        Column { name, ty: guess.ty(), nullable: guess.is_nullable(), public: false, bits: None }
    };
    Ok(Found { columns: guesses.into_iter().map(column).collect(), rows: all.then_some(rows) })
}

/// Batches of lines.
pub(super) struct Lines {
    source: Source<Box<dyn Read + Send>>,
    schema: TableSchema,
    places: HashMap<String, usize>,
    row: u64,
}

impl Lines {
    pub(super) fn new(source: Box<dyn Read + Send>, schema: &TableSchema) -> Self {
        let places = schema.columns().iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        Self { source: Source::new(source), schema: schema.clone(), places, row: 0 }
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, FileError> {
        let columns = self.schema.columns();
        let mut builders: Vec<ColumnBuilder> = columns.iter().map(|c| ColumnBuilder::new(c.ty, BATCH_ROWS)).collect();
        let (mut rows, mut bytes) = (0, 0);
        let mut seen = vec![false; columns.len()];
        while rows < BATCH_ROWS && bytes < BATCH_BYTES && self.source.next()? {
            self.row += 1;
            rows += 1;
            bytes += self.source.bytes.len();
            seen.fill(false);
            for (name, raw) in self.source.members()?.0 {
                let Some(at) = self.places.get(name.as_ref()).copied() else {
                    let what = format!("line {}: member {:?} is not in the table", self.source.line, cut(&name));
                    return Err(FileError::Columns(what));
                };
                if std::mem::replace(&mut seen[at], true) {
                    return Err(malformed(self.source.line, &format!("member {:?} is there twice", cut(&name))));
                }
                let column = &columns[at];
                let wrong = || no_fit(self.row, column, raw.get());
                let value = match scalar(raw).ok_or_else(wrong)? {
                    Scalar::Null => None,
                    Scalar::Bool(b) if column.ty == ColumnType::Bool => Some(Value::Bool(b)),
                    Scalar::Text(text) if column.ty == ColumnType::Text => Some(Value::Text(text.into_owned())),
                    Scalar::Number(text) if column.ty == ColumnType::Bool => {
                        return Err(no_fit(self.row, column, text));
                    }
                    Scalar::Text(text) => Some(parse_value(&text, column.ty).ok_or_else(wrong)?),
                    // Into a text it goes as it is written.
                    _ => Some(parse_value(raw.get(), column.ty).ok_or_else(wrong)?),
                };
                match value {
                    Some(value) if builders[at].push(&value) => {}
                    Some(_) => return Err(wrong()),
                    None if column.nullable => builders[at].push_null(),
                    None => return Err(FileError::Null { row: self.row, column: column.name.clone() }),
                }
            }
            for (at, column) in columns.iter().enumerate().filter(|(at, _)| !seen[*at]) {
                if !column.nullable {
                    return Err(FileError::Null { row: self.row, column: column.name.clone() });
                }
                builders[at].push_null();
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let arrays = builders.into_iter().map(ColumnBuilder::finish).collect();
        Ok(Some(RecordBatch::try_new(self.schema.arrow(), arrays).expect("one array of the schema's type per column")))
    }
}

impl Iterator for Lines {
    type Item = <Batches as Iterator>::Item;
    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}
