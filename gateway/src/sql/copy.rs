//! COPY: rows as text or CSV, in and out.
//!
//! In      bytes come in pieces of any size; a row is taken when it is whole. Rows are checked and written in the transaction in batches of
//!         [`BATCH_ROWS`], so what is held in text is bounded; what a transaction writes is bounded by what a segment takes.
//! Out     one piece a row, as PostgreSQL does and drivers expect.
//! Source  PostgreSQL 15, "COPY": text and CSV formats

use super::{fold, relation};
use crate::error::{SqlError, SqlState};
use crate::session::CopyFormat;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::sql::sqlparser::ast::{self, CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource};
use std::sync::Arc;

/// Rows of one batch of a COPY in.
pub(crate) const BATCH_ROWS: usize = 32_768;
/// Longest row, in bytes.
const ROW_BYTES_MAX: usize = 8 << 20;

/// How a COPY writes rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub(crate) format: CopyFormat,
    delimiter: u8,
    null: String,
    pub(crate) header: bool,
    quote: u8,
    escape: u8,
}

impl Options {
    /// The options of a COPY.
    ///
    /// # Errors
    /// [`SqlError`] for what is not supported, or contradicts itself.
    pub(crate) fn of(options: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<Self, SqlError> {
        let mut format = CopyFormat::Text;
        let (mut delimiter, mut null, mut header, mut quote, mut escape) = (None, None, false, '"', None);
        for option in options {
            match option {
                CopyOption::Format(name) => {
                    format = match fold(name).as_str() {
                        "text" => CopyFormat::Text,
                        "csv" => CopyFormat::Csv,
                        "binary" => CopyFormat::Binary,
                        other => return Err(SqlError::unsupported(format!("COPY format \"{other}\""))),
                    }
                }
                CopyOption::Delimiter(c) => delimiter = Some(*c),
                CopyOption::Null(text) => null = Some(text.clone()),
                CopyOption::Header(on) => header = *on,
                CopyOption::Quote(c) => quote = *c,
                CopyOption::Escape(c) => escape = Some(*c),
                CopyOption::Freeze(_) => {}
                CopyOption::Encoding(name)
                    if name.eq_ignore_ascii_case("utf8") || name.eq_ignore_ascii_case("utf-8") => {}
                other => return Err(SqlError::unsupported(format!("COPY option {other}"))),
            }
        }
        for option in legacy {
            match option {
                CopyLegacyOption::Csv(more) => {
                    format = CopyFormat::Csv;
                    for option in more {
                        match option {
                            CopyLegacyCsvOption::Header => header = true,
                            CopyLegacyCsvOption::Quote(c) => quote = *c,
                            CopyLegacyCsvOption::Escape(c) => escape = Some(*c),
                            other => return Err(SqlError::unsupported(format!("COPY option {other}"))),
                        }
                    }
                }
                CopyLegacyOption::Binary => format = CopyFormat::Binary,
                CopyLegacyOption::Delimiter(c) => delimiter = Some(*c),
                CopyLegacyOption::Null(text) => null = Some(text.clone()),
                CopyLegacyOption::Header => header = true,
                other => return Err(SqlError::unsupported(format!("COPY option {other}"))),
            }
        }
        if format == CopyFormat::Binary && (delimiter.is_some() || null.is_some() || header || escape.is_some()) {
            return Err(SqlError::new(
                SqlState::SyntaxError,
                "cannot specify DELIMITER, NULL, HEADER or ESCAPE in BINARY mode",
            ));
        }
        let csv = format == CopyFormat::Csv;
        let byte = |what: &str, c: char| {
            let plain = c.is_ascii() && !matches!(c, '\n' | '\r' | '\\' | '.') && (csv || !c.is_ascii_alphanumeric());
            let why = || SqlError::new(SqlState::InvalidParameter, format!("COPY {what} cannot be {c:?}"));
            plain.then_some(c as u8).ok_or_else(why)
        };
        let quote = byte("quote", quote)?;
        // A CSV may be escaped with a backslash.
        let escape = escape.map_or(Ok(quote), |c| if c == '\\' { Ok(b'\\') } else { byte("escape", c) })?;
        let delimiter = byte("delimiter", delimiter.unwrap_or(if csv { ',' } else { '\t' }))?;
        let null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
        Ok(Self { format, delimiter, null, header, quote, escape })
    }
}

/// The table and columns that a COPY names.
pub(crate) fn table_of(source: &CopySource) -> Result<(String, Vec<String>), SqlError> {
    match source {
        CopySource::Table { table_name, columns } => Ok((relation(table_name)?, columns.iter().map(fold).collect())),
        CopySource::Query(_) => Err(SqlError::new(SqlState::SyntaxError, "COPY query FROM is not possible")),
    }
}

/// The query that a COPY TO sends.
pub(crate) fn query_of(source: &CopySource) -> Result<String, SqlError> {
    match source {
        CopySource::Query(query) => Ok(query.to_string()),
        CopySource::Table { .. } => {
            let (table, columns) = table_of(source)?;
            let columns: Vec<String> = columns.iter().map(|c| super::quote(c)).collect();
            let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
            Ok(format!("SELECT {columns} FROM {}", super::quote(&table)))
        }
    }
}

fn malformed(line: u64, why: &str) -> SqlError {
    SqlError::new(SqlState::BadCopyFormat, format!("COPY line {line}: {why}"))
}

/// Takes the bytes of a COPY in, and gives the texts of whole rows.
#[derive(Debug)]
pub(crate) struct Rows {
    options: Options,
    width: usize,
    pending: Vec<u8>,
    /// Bytes of `pending` that were looked at, and whether they end inside quotes.
    seen: usize,
    quoted: bool,
    skip_header: bool,
    /// The end marker `\.` was there.
    ended: bool,
    line: u64,
    builders: Vec<StringBuilder>,
    rows: usize,
}

impl Rows {
    pub(crate) fn new(options: Options, width: usize) -> Self {
        let builders = (0..width).map(|_| StringBuilder::new()).collect();
        let skip_header = options.header;
        Self {
            options,
            width,
            pending: Vec::new(),
            seen: 0,
            quoted: false,
            skip_header,
            ended: false,
            line: 0,
            builders,
            rows: 0,
        }
    }

    /// Takes bytes; gives the rows once there are [`BATCH_ROWS`].
    ///
    /// # Errors
    /// [`SqlState::BadCopyFormat`] with the line.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<ArrayRef>>, SqlError> {
        self.pending.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = self.line_end() {
            let line = self.pending[start..end].to_vec();
            self.take_line(&line)?;
            start = end + 1;
        }
        self.pending.drain(..start);
        self.seen -= start;
        if self.pending.len() > ROW_BYTES_MAX {
            return Err(malformed(self.line + 1, &format!("a row is longer than {ROW_BYTES_MAX} bytes")));
        }
        Ok((self.rows >= BATCH_ROWS).then(|| self.finish_batch()))
    }

    /// The rest of the rows.
    ///
    /// # Errors
    /// [`SqlState::BadCopyFormat`] where the last row is not whole.
    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>, SqlError> {
        if self.quoted {
            return Err(malformed(self.line + 1, "unterminated CSV quoted field"));
        }
        let rest = std::mem::take(&mut self.pending);
        self.seen = 0;
        if !rest.is_empty() {
            self.take_line(&rest)?;
        }
        Ok(self.finish_batch())
    }

    fn finish_batch(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        self.builders.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef).collect()
    }

    /// The place of the next line feed that ends a row.
    fn line_end(&mut self) -> Option<usize> {
        while let Some(byte) = self.pending.get(self.seen).copied() {
            let csv = self.options.format == CopyFormat::Csv;
            if csv && self.quoted && byte == self.options.escape && self.options.escape != self.options.quote {
                // An escaped byte cannot end the quotes.
                if self.seen + 1 >= self.pending.len() {
                    return None;
                }
                self.seen += 2;
                continue;
            }
            if csv && byte == self.options.quote {
                self.quoted = !self.quoted;
            }
            self.seen += 1;
            if byte == b'\n' && !self.quoted {
                return Some(self.seen - 1);
            }
        }
        None
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), SqlError> {
        self.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if std::mem::take(&mut self.skip_header) || self.ended {
            return Ok(());
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let text = std::str::from_utf8(line)
            .map_err(|_| malformed(self.line, "invalid byte sequence for encoding \"UTF8\""))?;
        let fields = match self.options.format {
            CopyFormat::Csv => self.csv_fields(text)?,
            _ => self.text_fields(text)?,
        };
        if fields.len() != self.width {
            let what = if fields.len() < self.width {
                "missing data for a column"
            } else {
                "extra data after last expected column"
            };
            return Err(malformed(self.line, &format!("{what}: {} of {}", fields.len(), self.width)));
        }
        for (builder, field) in self.builders.iter_mut().zip(fields) {
            builder.append_option(field);
        }
        self.rows += 1;
        Ok(())
    }

    fn text_fields(&self, text: &str) -> Result<Vec<Option<String>>, SqlError> {
        let mut fields = Vec::with_capacity(self.width);
        for raw in text.split(self.options.delimiter as char) {
            if raw == self.options.null {
                fields.push(None);
                continue;
            }
            if !raw.contains('\\') {
                fields.push(Some(raw.to_owned()));
                continue;
            }
            let mut bytes = Vec::with_capacity(raw.len());
            let mut rest = raw.bytes().peekable();
            while let Some(byte) = rest.next() {
                if byte != b'\\' {
                    bytes.push(byte);
                    continue;
                }
                match rest.next() {
                    None => return Err(malformed(self.line, "a backslash at the end of a field")),
                    Some(b'b') => bytes.push(8),
                    Some(b'f') => bytes.push(12),
                    Some(b'n') => bytes.push(b'\n'),
                    Some(b'r') => bytes.push(b'\r'),
                    Some(b't') => bytes.push(b'\t'),
                    Some(b'v') => bytes.push(11),
                    Some(other) => bytes.push(other),
                }
            }
            let text = String::from_utf8(bytes)
                .map_err(|_| malformed(self.line, "invalid byte sequence for encoding \"UTF8\""))?;
            fields.push(Some(text));
        }
        Ok(fields)
    }

    fn csv_fields(&self, text: &str) -> Result<Vec<Option<String>>, SqlError> {
        let Options { delimiter, quote, escape, null, .. } = &self.options;
        let (delimiter, quote, escape) = (*delimiter as char, *quote as char, *escape as char);
        let mut fields = Vec::with_capacity(self.width);
        let mut chars = text.chars().peekable();
        loop {
            let (mut field, mut was_quoted, mut inside) = (String::new(), false, false);
            let more = loop {
                match chars.next() {
                    None => break false,
                    Some(c) if inside && c == escape && chars.peek().is_some_and(|n| *n == quote || *n == escape) => {
                        field.extend(chars.next());
                    }
                    Some(c) if c == quote => {
                        inside = !inside;
                        was_quoted = true;
                    }
                    Some(c) if !inside && c == delimiter => break true,
                    Some(c) => field.push(c),
                }
            };
            if inside {
                return Err(malformed(self.line, "unterminated CSV quoted field"));
            }
            // A quoted field is never NULL.
            fields.push((was_quoted || field != *null).then_some(field));
            if !more {
                return Ok(fields);
            }
        }
    }
}

/// A value in PostgreSQL's words; `None` for NULL.
///
/// # Errors
/// [`SqlState::InternalError`] for a type that has no words.
pub fn text_of(array: &dyn Array, row: usize) -> Result<Option<String>, SqlError> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Boolean => if array.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => format!("\\x{}", hex::encode(array.as_binary::<i32>().value(row))),
        DataType::Date32 => fluence_client::time::date_text(array.as_primitive::<Date32Type>().value(row)),
        DataType::Float64 => {
            let v = array.as_primitive::<Float64Type>().value(row);
            match v {
                v if v.is_nan() => "NaN".to_owned(),
                v if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
                v => v.to_string(),
            }
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
            let text = fluence_client::time::timestamp_text(us).replace('T', " ");
            let text = text.trim_end_matches('Z');
            if zone.is_some() { format!("{text}+00") } else { text.to_owned() }
        }
        DataType::Null => return Ok(None),
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options)
                .map_err(|e| SqlError::new(SqlState::InternalError, e.to_string()))?;
            formatter.value(row).to_string()
        }
    }))
}

/// The rows of a batch as COPY writes them; where each ends.
pub(crate) fn write(options: &Options, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<Vec<usize>, SqlError> {
    let mut ends = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        for (i, column) in batch.columns().iter().enumerate() {
            if i > 0 {
                out.push(options.delimiter);
            }
            match text_of(column, row)? {
                None => out.extend_from_slice(options.null.as_bytes()),
                Some(text) => put(options, &text, out),
            }
        }
        out.push(b'\n');
        ends.push(out.len());
    }
    Ok(ends)
}

/// The names of the columns as a CSV's first line.
pub(crate) fn write_header(options: &Options, names: &[&str], out: &mut Vec<u8>) {
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            out.push(options.delimiter);
        }
        put(options, name, out);
    }
    out.push(b'\n');
}

fn put(options: &Options, text: &str, out: &mut Vec<u8>) {
    if options.format == CopyFormat::Csv {
        let special = |b: u8| b == options.delimiter || b == options.quote || b == b'\n' || b == b'\r';
        if text != options.null && text != "\\." && !text.bytes().any(special) {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.push(options.quote);
        for byte in text.bytes() {
            if byte == options.quote || byte == options.escape {
                out.push(options.escape);
            }
            out.push(byte);
        }
        out.push(options.quote);
        return;
    }
    for byte in text.bytes() {
        let escaped = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            other if other == options.delimiter => other,
            other => {
                out.push(other);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escaped]);
    }
}

/// Refuses a COPY with a file or program of the server.
///
/// # Errors
/// [`SqlState::FeatureNotSupported`].
pub(crate) fn is_stdio(target: &ast::CopyTarget) -> Result<(), SqlError> {
    match target {
        ast::CopyTarget::Stdin | ast::CopyTarget::Stdout => Ok(()),
        _ => Err(SqlError::unsupported("COPY with a file or a program on the server")
            .hint("use \\copy, which reads the file at the client")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(format: CopyFormat, width: usize, pieces: &[&str]) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let legacy = if format == CopyFormat::Csv { vec![CopyLegacyOption::Csv(Vec::new())] } else { Vec::new() };
        let mut rows = Rows::new(Options::of(&[], &legacy)?, width);
        for piece in pieces {
            assert!(rows.push(piece.as_bytes())?.is_none());
        }
        let columns = rows.finish()?;
        Ok((0..columns[0].len()).map(|r| columns.iter().map(|c| text_of(c, r).unwrap()).collect()).collect())
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|v| (*v != "NULL").then(|| (*v).to_owned())).collect()
    }

    #[test]
    fn text_rows_come_whole_however_they_are_cut() {
        let text = "a\\tb\t\\N\n\\\\N\tx\\\ny\nlast\t\n";
        let expected = [some(&["a\tb", "NULL"]), some(&["\\N", "x\ny"]), some(&["last", ""])];
        // The second row's line feed is written as a backslash and a line feed in old files; here it is `\n`.
        let text = text.replace("x\\\ny", "x\\ny");
        assert_eq!(rows(CopyFormat::Text, 2, &[&text]).unwrap(), expected);
        for cut in 1..text.len() {
            assert_eq!(rows(CopyFormat::Text, 2, &[&text[..cut], &text[cut..]]).unwrap(), expected, "{cut}");
        }
        assert_eq!(rows(CopyFormat::Text, 1, &["a\n\\.\nnot this\n"]).unwrap(), [some(&["a"])]);
    }

    #[test]
    fn csv_rows_come_whole_however_they_are_cut() {
        let text = "1,\"a,\"\"b\"\"\nc\",\r\n2,,\"\"\n";
        let expected = [some(&["1", "a,\"b\"\nc", "NULL"]), some(&["2", "NULL", ""])];
        for cut in 0..text.len() {
            assert_eq!(rows(CopyFormat::Csv, 3, &[&text[..cut], &text[cut..]]).unwrap(), expected, "{cut}");
        }
    }

    #[test]
    fn refuses_rows_that_are_not_rows() {
        for (format, text) in [
            (CopyFormat::Text, "a\n"),
            (CopyFormat::Text, "a\tb\tc\n"),
            (CopyFormat::Text, "a\tb\\\n"),
            (CopyFormat::Csv, "a,\"b\n"),
            (CopyFormat::Csv, "a\n"),
        ] {
            let error = rows(format, 2, &[text]).unwrap_err();
            assert_eq!(error.state, SqlState::BadCopyFormat, "{text:?}");
            assert!(error.message.contains("line 1") || error.message.contains("line 2"), "{error}");
        }
        let mut long = Rows::new(Options::of(&[], &[]).unwrap(), 1);
        assert!(long.push(&vec![b'x'; ROW_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        use datafusion::arrow::array::StringArray;
        use datafusion::arrow::datatypes::{Field, Schema};
        let values =
            vec![Some("a\tb"), None, Some(""), Some("\\N"), Some("\\."), Some("x,\"y\"\r\nz\\"), Some("\u{e9}")];
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(values.clone()))]).unwrap();
        for format in [CopyFormat::Text, CopyFormat::Csv] {
            let legacy = if format == CopyFormat::Csv { vec![CopyLegacyOption::Csv(Vec::new())] } else { Vec::new() };
            let mut out = Vec::new();
            write(&Options::of(&[], &legacy).unwrap(), &batch, &mut out).unwrap();
            let back = rows(format, 1, &[std::str::from_utf8(&out).unwrap()]).unwrap();
            let expected: Vec<_> = values.iter().map(|v| vec![v.map(str::to_owned)]).collect();
            assert_eq!(back, expected, "{format:?}");
        }
    }
}
