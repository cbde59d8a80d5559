//! Arrow IPC, the stream format and the file format, which is a stream with a magic word before it and a footer behind.
//!
//! Reading  both are read from the front, message by message, so a pipe does. Before a message goes to the library, its metadata is
//!          verified, its lengths are held against the limits, and what its buffers unpack to is added up; LZ4 is measured first, because the
//!          library unpacks to whatever comes out.
//! End      a stream ends with its mark, a file with a footer that names as many batches as came: one that is cut short is refused.
//! Source   <https://arrow.apache.org/docs/format/Columnar.html>, "Serialization and Interprocess Communication"

use super::{
    BATCH_BYTES_MAX, BATCH_ROWS, Batches, FileError, Format, Found, METADATA_BYTES_MAX, convert, guarded, places,
};
use crate::schema::TableSchema;
use crate::value::ColumnType;
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{CompressionType, MessageHeader, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, Schema};
use std::io::{self, Read};

const MAGIC: &[u8; 6] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Words of padding after the magic word.
const PADDING_WORDS_MAX: usize = 32;
/// A buffer that was left as it is although its batch is compressed.
const NOT_COMPRESSED: i64 = -1;

fn malformed(why: impl Into<String>) -> FileError {
    FileError::Malformed { format: Format::Arrow, why: why.into() }
}

fn limit(what: &str, got: u64, limit: u64) -> FileError {
    FileError::Limit { what: what.to_owned(), got, limit }
}

/// One message, checked.
struct Message {
    kind: MessageHeader,
    /// As it stood: length, metadata, body.
    bytes: Vec<u8>,
    /// Where its metadata is in `bytes`.
    metadata: std::ops::Range<usize>,
    /// Bytes of its buffers, unpacked.
    unpacked: u64,
}

/// Messages of a source.
struct Messages {
    source: Box<dyn Read + Send>,
    /// Whether it is the file format; its first bytes, where they are not.
    file: bool,
    first: Option<[u8; 4]>,
}

impl Messages {
    fn open(mut source: Box<dyn Read + Send>) -> Result<Self, FileError> {
        let mut head = [0; 4];
        exactly(&mut source, &mut head, "its first bytes")?;
        if head != MAGIC[..4] {
            return Ok(Self { source, file: false, first: Some(head) });
        }
        let mut rest = [0; 4];
        exactly(&mut source, &mut rest, "its first bytes")?;
        if rest[..2] != MAGIC[4..] {
            return Err(malformed("it does not begin as one"));
        }
        // Writers pad the magic word with zeros, some to more than the eight bytes of the format.
        for _ in 0..PADDING_WORDS_MAX {
            exactly(&mut source, &mut rest, "its schema")?;
            if rest != [0; 4] {
                return Ok(Self { source, file: true, first: Some(rest) });
            }
        }
        Err(malformed("it does not begin with a schema"))
    }

    /// The next message; none after the mark of the end.
    fn next(&mut self) -> Result<Option<Message>, FileError> {
        let mut word = match self.first.take() {
            Some(word) => word,
            None => {
                let mut word = [0; 4];
                exactly(&mut self.source, &mut word, "the mark of its end")?;
                word
            }
        };
        let mut bytes = word.to_vec();
        // Before version 0.15 of the format the length stood alone.
        if word == CONTINUATION {
            exactly(&mut self.source, &mut word, "a message's length")?;
            bytes.extend(word);
        }
        let length = u64::from(u32::from_le_bytes(word));
        if length == 0 {
            return Ok(None);
        }
        if length > METADATA_BYTES_MAX as u64 {
            return Err(match self.file || bytes.len() == 8 {
                true => limit("bytes of a message's metadata", length, METADATA_BYTES_MAX as u64),
                false => malformed("it does not begin as one"),
            });
        }
        let metadata = bytes.len()..bytes.len() + length as usize;
        self.append(&mut bytes, length, "a message")?;
        let message = root_as_message(&bytes[metadata.clone()]).map_err(|e| malformed(format!("a message: {e}")))?;
        let body =
            u64::try_from(message.bodyLength()).map_err(|_| malformed("a message with a body of less than nothing"))?;
        if body > BATCH_BYTES_MAX {
            return Err(limit("bytes of a batch", body, BATCH_BYTES_MAX));
        }
        let kind = message.header_type();
        self.append(&mut bytes, body, "a batch")?;
        let message = root_as_message(&bytes[metadata.clone()]).expect("it was verified above");
        let batch = match kind {
            MessageHeader::RecordBatch => message.header_as_record_batch(),
            MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|d| d.data()),
            MessageHeader::Schema => None,
            other => return Err(malformed(format!("a message of kind {}", other.0))),
        };
        let unpacked = match batch {
            Some(batch) => unpacked(batch, &bytes[metadata.end..])?,
            None => 0,
        };
        Ok(Some(Message { kind, bytes, metadata, unpacked }))
    }

    /// Reads as many bytes as are really there, so that a length alone reserves nothing.
    fn append(&mut self, to: &mut Vec<u8>, count: u64, what: &str) -> Result<(), FileError> {
        let read = self.source.by_ref().take(count).read_to_end(to).map_err(|e| malformed(e.to_string()))?;
        if read as u64 == count { Ok(()) } else { Err(malformed(format!("it is cut short in {what}"))) }
    }

    /// Of the file format, reads the footer: it must name as many batches.
    fn end(&mut self, batches: usize) -> Result<(), FileError> {
        if !self.file {
            return Ok(());
        }
        let mut rest = Vec::new();
        let most = METADATA_BYTES_MAX as u64 + 10;
        self.source.by_ref().take(most + 1).read_to_end(&mut rest).map_err(|e| malformed(e.to_string()))?;
        if rest.len() as u64 > most {
            return Err(limit("bytes of the footer", rest.len() as u64, most));
        }
        let footer = rest.strip_suffix(MAGIC).and_then(|rest| rest.split_last_chunk::<4>());
        let named = footer.filter(|(footer, length)| u32::from_le_bytes(**length) as usize == footer.len());
        let (footer, _) = named.ok_or_else(|| malformed("its footer is damaged, or it is cut short"))?;
        let footer = root_as_footer(footer).map_err(|e| malformed(format!("its footer: {e}")))?;
        let named = footer.recordBatches().map_or(0, |list| list.len());
        if named != batches {
            return Err(malformed(format!("its footer names {named} batches, it holds {batches}")));
        }
        Ok(())
    }
}

/// What the buffers of a batch unpack to.
fn unpacked(batch: arrow_ipc::RecordBatch<'_>, body: &[u8]) -> Result<u64, FileError> {
    let Some(compression) = batch.compression() else { return Ok(body.len() as u64) };
    let lz4 = compression.codec() == CompressionType::LZ4_FRAME;
    let mut total = 0u64;
    for buffer in batch.buffers().iter().flatten() {
        let outside = || malformed("a buffer outside its batch");
        let start = usize::try_from(buffer.offset()).map_err(|_| outside())?;
        let length = usize::try_from(buffer.length()).map_err(|_| outside())?;
        let end = start.checked_add(length).ok_or_else(outside)?;
        let buffer = body.get(start..end).ok_or_else(outside)?;
        let Some((prefix, packed)) = buffer.split_first_chunk::<8>() else { continue };
        let size = match i64::from_le_bytes(*prefix) {
            NOT_COMPRESSED => packed.len() as u64,
            size => u64::try_from(size).map_err(|_| malformed("a buffer of less than nothing"))?,
        };
        total = total.saturating_add(size);
        if total > BATCH_BYTES_MAX {
            return Err(limit("bytes of a batch, unpacked,", total, BATCH_BYTES_MAX));
        }
        if lz4 && i64::from_le_bytes(*prefix) > 0 {
            let mut decoder = lz4_flex::frame::FrameDecoder::new(packed).take(size + 1);
            let got = io::copy(&mut decoder, &mut io::sink()).map_err(|e| malformed(e.to_string()))?;
            if got != size {
                return Err(malformed(format!("a buffer unpacks to another length than the {size} bytes it names")));
            }
        }
    }
    Ok(total)
}

/// Reads all of `to`.
fn exactly(source: &mut impl Read, to: &mut [u8], what: &str) -> Result<(), FileError> {
    source.read_exact(to).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => malformed(format!("it is cut short before {what}")),
        _ => malformed(e.to_string()),
    })
}

fn schema_of(message: &Message) -> Result<Schema, FileError> {
    guarded(Format::Arrow, || {
        let metadata = root_as_message(&message.bytes[message.metadata.clone()]);
        let metadata = metadata.map_err(|e| ArrowError::IpcError(e.to_string()))?;
        let schema = metadata.header_as_schema().ok_or_else(|| ArrowError::IpcError("no schema".to_owned()))?;
        Ok(arrow_ipc::convert::fb_to_schema(schema))
    })
}

fn begin(source: Box<dyn Read + Send>) -> Result<(Messages, Message, Schema), FileError> {
    let mut messages = Messages::open(source)?;
    let first = messages.next()?.filter(|m| m.kind == MessageHeader::Schema);
    let first = first.ok_or_else(|| malformed("it does not begin with a schema"))?;
    let schema = schema_of(&first)?;
    Ok((messages, first, schema))
}

pub(super) fn inspect(source: Box<dyn Read + Send>, types: &[(String, ColumnType)]) -> Result<Found, FileError> {
    let (_, _, schema) = begin(source)?;
    Ok(Found { columns: convert::columns(schema.fields().iter().map(|f| &**f), types)?, rows: None })
}

/// Batches of a stream.
pub(super) struct Reader {
    messages: Messages,
    decoder: StreamDecoder,
    schema: TableSchema,
    places: Vec<usize>,
    /// A batch that is handed on in pieces.
    pending: Option<RecordBatch>,
    dictionaries: u64,
    batches: usize,
    row: u64,
    done: bool,
}

impl Reader {
    pub(super) fn open(source: Box<dyn Read + Send>, schema: &TableSchema) -> Result<Self, FileError> {
        let (messages, first, arrow) = begin(source)?;
        let names: Vec<String> = arrow.fields().iter().map(|f| f.name().clone()).collect();
        let places = places(&names, schema)?;
        convert::check(arrow.fields().iter().map(|f| &**f), schema.columns())?;
        let (decoder, schema) = (StreamDecoder::new(), schema.clone());
        let mut reader =
            Self { messages, decoder, schema, places, pending: None, dictionaries: 0, batches: 0, row: 0, done: false };
        reader.decode(first.bytes)?;
        Ok(reader)
    }

    /// Hands bytes to the library; the batch that they end, if any.
    fn decode(&mut self, bytes: Vec<u8>) -> Result<Option<RecordBatch>, FileError> {
        let (decoder, mut buffer) = (&mut self.decoder, Buffer::from_vec(bytes));
        guarded(Format::Arrow, || {
            let mut found = None;
            while !buffer.is_empty() {
                // A message without a body is taken when the next one comes; two batches in one call there are not.
                found = decoder.decode(&mut buffer)?.or(found);
            }
            Ok(found)
        })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, FileError> {
        loop {
            if let Some(batch) = self.pending.take() {
                let rows = batch.num_rows().min(BATCH_ROWS);
                if rows < batch.num_rows() {
                    self.pending = Some(batch.slice(rows, batch.num_rows() - rows));
                }
                return self.convert(&batch.slice(0, rows)).map(Some);
            }
            match self.messages.next()? {
                Some(message) => {
                    match message.kind {
                        MessageHeader::RecordBatch => self.batches += 1,
                        MessageHeader::DictionaryBatch => self.dictionaries += message.unpacked,
                        _ => return Err(malformed("a second schema")),
                    }
                    if self.dictionaries > BATCH_BYTES_MAX {
                        return Err(limit("bytes of dictionaries", self.dictionaries, BATCH_BYTES_MAX));
                    }
                    self.pending = self.decode(message.bytes)?;
                }
                None => {
                    self.done = true;
                    self.messages.end(self.batches)?;
                    // The mark of the end, for a message without a body that came last.
                    self.pending = self.decode([CONTINUATION, [0; 4]].concat())?;
                }
            }
            self.pending = self.pending.take().filter(|b| b.num_rows() > 0);
            if self.done && self.pending.is_none() {
                return Ok(None);
            }
        }
    }

    fn convert(&mut self, batch: &RecordBatch) -> Result<RecordBatch, FileError> {
        let arrays = self.schema.columns().iter().zip(&self.places);
        let arrays = arrays.map(|(column, place)| {
            let array = batch.columns().get(*place).ok_or_else(|| malformed("a batch that lacks a column"))?;
            guarded(Format::Arrow, || Ok::<_, ArrowError>(convert::array(array, column, self.row)))?
        });
        let arrays = arrays.collect::<Result<Vec<_>, FileError>>()?;
        self.row += batch.num_rows() as u64;
        Ok(RecordBatch::try_new(self.schema.arrow(), arrays).expect("one array of the schema's type per column"))
    }
}

impl Iterator for Reader {
    type Item = <Batches as Iterator>::Item;
    fn next(&mut self) -> Option<Self::Item> {
        if self.done && self.pending.is_none() {
            return None;
        }
        let batch = self.batch();
        if batch.is_err() {
            (self.done, self.pending) = (true, None);
        }
        batch.transpose()
    }
}
