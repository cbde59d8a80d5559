//! Binary COPY: a header, tuples of counted fields, a trailer.
//!
//! ```text
//! PGCOPY\n\xff\r\n\0  flags u32  length u32 of what follows  ( count i16  ( length i32, -1 for NULL  bytes )* )*  -1 i16
//! ```
//! Fields  are those of a binary DataRow and of a binary parameter, of the type that the column has on the wire
//! Memory  a tuple that is not whole yet, at most [`TUPLE_BYTES_MAX`], and [`BATCH_ROWS`] rows
//! Source  PostgreSQL 15, "COPY", "Binary Format"

use super::encode::{encode, fields};
use super::errors::{Fault, code};
use super::params;
use crate::pg_type::type_of;
use crate::sql::copy::BATCH_ROWS;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use datafusion::arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{DataRowEncoder, FieldInfo};
use std::sync::Arc;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Bit of the flags that says that tuples have OIDs; others above bit 15 are not known either.
const CRITICAL: u32 = 0xffff_0000;
/// Longest tuple, and longest header extension.
const TUPLE_BYTES_MAX: usize = 8 << 20;

/// What stands before the tuples.
pub(super) fn header() -> Bytes {
    let mut out = BytesMut::from(SIGNATURE);
    out.put_u32(0);
    out.put_u32(0);
    out.freeze()
}

/// What stands after them.
pub(super) fn trailer() -> Bytes {
    Bytes::from_static(&[0xff, 0xff])
}

/// Writes tuples.
pub(super) struct TupleWriter {
    encoder: DataRowEncoder,
    fields: Arc<Vec<FieldInfo>>,
}

impl TupleWriter {
    /// For rows of a schema.
    pub(super) fn new(schema: &Schema) -> Result<Self, Fault> {
        let fields = Arc::new(fields(schema, &Format::UnifiedBinary)?);
        Ok(Self { encoder: DataRowEncoder::new(Arc::clone(&fields)), fields })
    }

    /// A row.
    pub(super) fn encode(&mut self, batch: &RecordBatch, row: usize) -> Result<Bytes, Fault> {
        let row = encode(&mut self.encoder, &self.fields, batch, row)?;
        let mut out = BytesMut::with_capacity(row.data.len() + 2);
        out.put_i16(row.field_count);
        out.put_slice(&row.data);
        Ok(out.freeze())
    }
}

/// Takes the bytes of a binary COPY in, and gives the rows as columns.
pub(super) struct Tuples {
    columns: Vec<(Type, DataType)>,
    pending: BytesMut,
    started: bool,
    ended: bool,
    count: u64,
    values: Vec<Vec<ScalarValue>>,
}

fn malformed(why: impl std::fmt::Display) -> Fault {
    Fault::error(code::BAD_COPY_FORMAT, format!("COPY in binary: {why}"))
}

impl Tuples {
    /// For rows of these columns.
    pub(super) fn new(fields: &[Field]) -> Result<Self, Fault> {
        let column = |f: &Field| Ok::<_, Fault>((type_of(f)?, f.data_type().clone()));
        let columns = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let values = columns.iter().map(|_| Vec::new()).collect();
        Ok(Self { columns, pending: BytesMut::new(), started: false, ended: false, count: 0, values })
    }

    /// Takes bytes; gives the rows once there are [`BATCH_ROWS`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<ArrayRef>>, Fault> {
        if self.ended {
            return Err(malformed("bytes after the end"));
        }
        self.pending.extend_from_slice(bytes);
        if !self.started && !self.start()? {
            return Ok(None);
        }
        while let Some(length) = self.whole()? {
            self.take(length)?;
            if self.ended && !self.pending.is_empty() {
                return Err(malformed("bytes after the end"));
            }
        }
        if self.pending.len() > TUPLE_BYTES_MAX {
            return Err(malformed(format!("tuple {} is longer than {TUPLE_BYTES_MAX} bytes", self.count + 1)));
        }
        let full = self.values.first().is_some_and(|v| v.len() >= BATCH_ROWS);
        full.then(|| self.batch()).transpose()
    }

    /// The rest of the rows.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, Fault> {
        if !self.ended {
            return Err(malformed("it ends before its trailer"));
        }
        self.batch()
    }

    /// Takes the header; `false` where it is not whole yet.
    fn start(&mut self) -> Result<bool, Fault> {
        let fixed = SIGNATURE.len() + 8;
        let known = self.pending.len().min(SIGNATURE.len());
        if self.pending[..known] != SIGNATURE[..known] {
            return Err(malformed("no signature"));
        }
        if self.pending.len() < fixed {
            return Ok(false);
        }
        let mut head = &self.pending[SIGNATURE.len()..fixed];
        let (flags, extension) = (head.get_u32(), head.get_u32() as usize);
        if flags & CRITICAL != 0 {
            return Err(malformed("unrecognized critical flags in its header"));
        }
        if extension > TUPLE_BYTES_MAX {
            return Err(malformed(format!("a header extension of {extension} bytes, at most {TUPLE_BYTES_MAX}")));
        }
        if self.pending.len() < fixed + extension {
            return Ok(false);
        }
        self.pending.advance(fixed + extension);
        self.started = true;
        Ok(true)
    }

    /// The length of the next tuple, where all of it is here.
    fn whole(&self) -> Result<Option<usize>, Fault> {
        let mut rest = &self.pending[..];
        if rest.len() < 2 || self.ended {
            return Ok(None);
        }
        let count = rest.get_i16();
        if count == -1 {
            return Ok(Some(2));
        }
        if usize::try_from(count) != Ok(self.columns.len()) {
            return Err(malformed(format!(
                "row field count of tuple {} is {count}, expected {}",
                self.count + 1,
                self.columns.len()
            )));
        }
        for _ in 0..count {
            if rest.len() < 4 {
                return Ok(None);
            }
            let length = rest.get_i32();
            match usize::try_from(length) {
                Ok(length) if length > TUPLE_BYTES_MAX => {
                    return Err(malformed(format!("a field of {length} bytes, at most {TUPLE_BYTES_MAX}")));
                }
                Ok(length) if rest.len() < length => return Ok(None),
                Ok(length) => rest.advance(length),
                Err(_) if length == -1 => {}
                Err(_) => return Err(malformed(format!("a field of {length} bytes"))),
            }
        }
        Ok(Some(self.pending.len() - rest.len()))
    }

    /// Takes a tuple that is whole.
    fn take(&mut self, length: usize) -> Result<(), Fault> {
        let tuple = self.pending.split_to(length);
        let mut rest = &tuple[..];
        if rest.get_i16() == -1 {
            self.ended = true;
            return Ok(());
        }
        self.count += 1;
        for ((ty, data_type), values) in self.columns.iter().zip(&mut self.values) {
            let raw = match usize::try_from(rest.get_i32()) {
                Ok(length) => {
                    let (raw, left) = rest.split_at(length);
                    rest = left;
                    Some(raw)
                }
                Err(_) => None,
            };
            let value = params::decode(raw, true, ty, data_type)?;
            // A number of more digits than its column has is rounded, as in an assignment.
            values.push(value.cast_to(data_type).map_err(crate::error::SqlError::from)?);
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<Vec<ArrayRef>, Fault> {
        let columns = self.columns.iter().zip(&mut self.values).map(|((_, ty), values)| {
            let values = std::mem::take(values);
            if values.is_empty() {
                return Ok(new_empty_array(ty));
            }
            Ok::<_, Fault>(ScalarValue::iter_to_array(values).map_err(crate::error::SqlError::from)?)
        });
        columns.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Tuples {
        let fields = [Field::new("a", DataType::Int64, true), Field::new("t", DataType::Utf8, true)];
        Tuples::new(&fields).unwrap()
    }

    fn bytes() -> Vec<u8> {
        let mut out = header().to_vec();
        out.extend(b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x01x");
        out.extend(b"\0\x02\xff\xff\xff\xff\0\0\0\0");
        out.extend(trailer());
        out
    }

    #[test]
    fn rows_come_out_however_the_bytes_are_cut() {
        for size in 1..=bytes().len() {
            let mut tuples = two();
            for chunk in bytes().chunks(size) {
                assert!(tuples.push(chunk).unwrap().is_none());
            }
            let columns = tuples.finish().unwrap();
            let batch =
                RecordBatch::try_from_iter(vec![("a", Arc::clone(&columns[0])), ("t", Arc::clone(&columns[1]))]);
            let text = datafusion::arrow::util::pretty::pretty_format_batches(&[batch.unwrap()]).unwrap().to_string();
            assert!(text.contains("| 7 | x |") && text.contains("|   |   |"), "{text}");
        }
    }

    #[test]
    fn what_is_no_tuple_is_refused() {
        let at = |place: usize, byte: u8| {
            let mut changed = bytes();
            changed[place] = byte;
            let mut tuples = two();
            tuples.push(&changed).err().or_else(|| tuples.finish().err()).map(|f| f.message).unwrap_or_default()
        };
        assert!(at(0, b'X').contains("signature"));
        assert!(at(11, 1).contains("critical flags"));
        assert!(at(15, 0x7f).contains("header extension"));
        assert!(at(20, 3).contains("field count"));
        assert!(at(21, 0x7f).contains("at most"));
        assert!(at(24, 7).contains("binary") || !at(24, 7).is_empty());
        let mut short = two();
        short.push(&bytes()[..30]).unwrap();
        assert!(short.finish().unwrap_err().message.contains("before its trailer"));
        let mut long = two();
        let mut more = bytes();
        more.push(0);
        assert!(long.push(&more).unwrap_err().message.contains("after the end"));
    }
}
