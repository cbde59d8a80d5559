//! Rows of Arrow batches as DataRow messages, text or binary per column.
//!
//! Types   those of arrow-pg; decimals are ours, because its encoder fails above 96 bits and a proven sum is wider
//! Memory  one batch and one row
//! Source  arrow-pg 0.16 `row_encoder`; PostgreSQL 15, `numeric_send` (digits of base 10000)

use super::errors::{Failure, Fault, code};
use super::wire::Wire;
use crate::pg_type::{decimal, type_modifier, type_of, type_size};
use crate::session::Tag;
use crate::sql::origins;
use arrow_pg::encoder::encode_value;
use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, Int32Type, Schema,
};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{DataRowEncoder, FieldInfo};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::types::ToSqlText;
use pgwire::types::format::FormatOptions;
use postgres_types::{IsNull, ToSql, to_sql_checked};
use std::error::Error;
use std::sync::Arc;

type Boxed = Box<dyn Error + Sync + Send>;

/// The columns of `schema` as the protocol names them. `format` fits their number.
pub(super) fn fields(schema: &Schema, format: &Format) -> Result<Vec<FieldInfo>, Fault> {
    let field = |(index, field): (usize, &Arc<Field>)| -> Result<FieldInfo, Fault> {
        let datatype = type_of(field)?;
        let size = type_size(&datatype);
        let (table, column) = origins::of(field).unzip();
        let info = FieldInfo::new(field.name().clone(), table, column, datatype, format.format_for(index));
        Ok(info.with_type_size(size).with_type_modifier(type_modifier(field)))
    };
    schema.fields().iter().enumerate().map(field).collect()
}

/// RowDescription.
pub(super) fn describe(fields: &[FieldInfo]) -> PgWireBackendMessage {
    PgWireBackendMessage::RowDescription(RowDescription::new(fields.iter().map(FieldDescription::from).collect()))
}

/// Rows that are being sent.
pub(super) struct Rows {
    stream: SendableRecordBatchStream,
    fields: Arc<Vec<FieldInfo>>,
    encoder: DataRowEncoder,
    /// The batch at hand, and its next row.
    batch: Option<(RecordBatch, usize)>,
    tag: Tag,
}

impl Rows {
    /// Rows of `stream`, whose batches have `schema`.
    pub(super) fn new(
        schema: &Schema,
        format: &Format,
        stream: SendableRecordBatchStream,
        tag: Tag,
    ) -> Result<Self, Fault> {
        let fields = Arc::new(fields(schema, format)?);
        Ok(Self { stream, encoder: DataRowEncoder::new(Arc::clone(&fields)), fields, batch: None, tag })
    }
    /// Their columns.
    pub(super) fn fields(&self) -> &[FieldInfo] {
        &self.fields
    }
    /// What they come from.
    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Sends at most `rows_max` rows. Gives how many, and whether they have ended.
    pub(super) async fn send(&mut self, wire: &mut Wire, rows_max: Option<u64>) -> Result<(u64, bool), Failure> {
        let mut count = 0;
        while rows_max.is_none_or(|max| count < max) {
            match &mut self.batch {
                Some((batch, next)) if *next < batch.num_rows() => {
                    let row = encode(&mut self.encoder, &self.fields, batch, *next)?;
                    *next += 1;
                    count += 1;
                    wire.feed(PgWireBackendMessage::DataRow(row)).await?;
                }
                _ => match self.stream.next().await {
                    None => return Ok((count, true)),
                    Some(batch) => {
                        let batch = batch.map_err(crate::error::SqlError::from)?;
                        if batch.num_columns() != self.fields.len() {
                            return Err(Fault::error(code::INTERNAL, "a batch with other columns than its plan").into());
                        }
                        self.batch = Some((batch, 0));
                    }
                },
            }
        }
        Ok((count, false))
    }
}

pub(super) fn encode(
    encoder: &mut DataRowEncoder,
    fields: &[FieldInfo],
    batch: &RecordBatch,
    row: usize,
) -> Result<DataRow, Fault> {
    for ((column, field), arrow_field) in batch.columns().iter().zip(fields).zip(batch.schema_ref().fields()) {
        let numeric = match column.data_type() {
            _ if column.is_null(row) => None,
            DataType::Decimal32(..) => Some(column.as_primitive::<Decimal32Type>().value_as_string(row)),
            DataType::Decimal64(..) => Some(column.as_primitive::<Decimal64Type>().value_as_string(row)),
            DataType::Decimal128(..) => Some(column.as_primitive::<Decimal128Type>().value_as_string(row)),
            DataType::Decimal256(..) => Some(column.as_primitive::<Decimal256Type>().value_as_string(row)),
            _ => None,
        };
        if decimal(column.data_type()).is_some() {
            encoder.encode_field_with_type_and_format(
                &numeric.map(Numeric),
                field.datatype(),
                field.format(),
                field.format_options(),
            )?;
        } else if matches!(*field.datatype(), Type::INT2_VECTOR | Type::OID_VECTOR) {
            let numbers = (!column.is_null(row)).then(|| Vector::of(column, row)).transpose()?;
            encoder.encode_field_with_type_and_format(
                &numbers,
                field.datatype(),
                field.format(),
                field.format_options(),
            )?;
        } else if matches!(*field.datatype(), Type::UUID | Type::JSONB) {
            let text = (!column.is_null(row)).then(|| column.as_string::<i32>().value(row));
            encoder.encode_field_with_type_and_format(
                &text.map(Named),
                field.datatype(),
                field.format(),
                field.format_options(),
            )?;
        } else {
            encode_value(encoder, column, row, arrow_field, field)?;
        }
    }
    Ok(encoder.take_row())
}

/// A vector of small integers or OIDs, as PostgreSQL's own tables have them.
#[derive(Debug)]
struct Vector(Vec<i32>);

impl Vector {
    fn of(column: &ArrayRef, row: usize) -> Result<Self, Fault> {
        let items = column.as_list_opt::<i32>().map(|list| list.value(row));
        let items = items.ok_or_else(|| Fault::error(code::INTERNAL, "a vector that is no list"))?;
        let items = cast(&items, &DataType::Int32).map_err(|e| Fault::error(code::INTERNAL, e.to_string()))?;
        Ok(Self(items.as_primitive::<Int32Type>().values().to_vec()))
    }
}

impl ToSqlText for Vector {
    fn to_sql_text(&self, _: &Type, out: &mut BytesMut, _: &FormatOptions) -> Result<IsNull, Boxed> {
        let items: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        out.put_slice(items.join(" ").as_bytes());
        Ok(IsNull::No)
    }
}

impl ToSql for Vector {
    /// An array of one dimension that begins at 0.
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        let narrow = *ty == Type::INT2_VECTOR;
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(if narrow { Type::INT2.oid() } else { Type::OID.oid() });
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(0);
        for item in &self.0 {
            if narrow {
                out.put_i32(2);
                out.put_i16(i16::try_from(*item)?);
            } else {
                out.put_i32(4);
                out.put_i32(*item);
            }
        }
        Ok(IsNull::No)
    }
    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT2_VECTOR | Type::OID_VECTOR)
    }
    to_sql_checked!();
}

/// A text whose type has bytes of its own: a UUID, `jsonb`.
#[derive(Debug)]
struct Named<'a>(&'a str);

impl ToSqlText for Named<'_> {
    fn to_sql_text(&self, _: &Type, out: &mut BytesMut, _: &FormatOptions) -> Result<IsNull, Boxed> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl ToSql for Named<'_> {
    /// The 16 bytes of a UUID; the version, 1, and the text of a `jsonb`.
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        if *ty == Type::UUID {
            let digits: String = self.0.chars().filter(|c| *c != '-').collect();
            let bytes = hex::decode(digits)?;
            out.put_slice(<&[u8; 16]>::try_from(bytes.as_slice())?);
        } else {
            out.put_u8(1);
            out.put_slice(self.0.as_bytes());
        }
        Ok(IsNull::No)
    }
    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::UUID | Type::JSONB)
    }
    to_sql_checked!();
}

/// A number in decimal digits: `-12.50`.
#[derive(Debug)]
pub(super) struct Numeric(pub(super) String);

impl ToSqlText for Numeric {
    fn to_sql_text(&self, _: &Type, out: &mut BytesMut, _: &FormatOptions) -> Result<IsNull, Boxed> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl ToSql for Numeric {
    /// Count of digits, weight of the first, sign, scale; then digits of base 10000 without zeros at either end.
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        let (sign, digits) = match self.0.strip_prefix('-') {
            Some(digits) => (0x4000_u16, digits),
            None => (0, self.0.as_str()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err("a decimal with something else than digits".into());
        }
        let lead = (4 - whole.len() % 4) % 4;
        let tail = (4 - fraction.len() % 4) % 4;
        let padded = [&"000"[..lead], whole, fraction, &"000"[..tail]].concat();
        let groups = padded.as_bytes().chunks(4);
        let all: Vec<u16> =
            groups.map(|group| group.iter().fold(0, |n, byte| n * 10 + u16::from(byte - b'0'))).collect();
        let first = all.iter().position(|group| *group != 0).unwrap_or(all.len());
        let last = all.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
        let weight =
            if first == all.len() { 0 } else { i16::try_from(whole.len().div_ceil(4))? - 1 - i16::try_from(first)? };
        out.put_u16(u16::try_from(last - first)?);
        out.put_i16(weight);
        out.put_u16(if first == last { 0 } else { sign });
        out.put_u16(u16::try_from(fraction.len())?);
        all[first..last].iter().for_each(|group| out.put_u16(*group));
        Ok(IsNull::No)
    }
    fn accepts(datatype: &Type) -> bool {
        *datatype == Type::NUMERIC
    }
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, Decimal128Array, Int64Array, NullArray, StringArray};

    fn numeric(text: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        Numeric(text.to_owned()).to_sql(&Type::NUMERIC, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn numbers_have_the_bytes_that_postgresql_sends() {
        // SELECT numeric_send(..) of PostgreSQL 15.
        assert_eq!(hex::encode(numeric("0")), "0000000000000000");
        assert_eq!(hex::encode(numeric("0.00")), "0000000000000002");
        assert_eq!(hex::encode(numeric("1")), "00010000000000000001");
        assert_eq!(hex::encode(numeric("-12345.678")), "0003000140000003000109291a7c");
        assert_eq!(hex::encode(numeric("0.0001")), "0001ffff000000040001");
        assert_eq!(hex::encode(numeric("100000000")), "00010002000000000001");
    }

    #[test]
    fn a_decimal_wider_than_96_bits_has_a_row() {
        let wide = Decimal128Array::from(vec![Some(i128::MAX / 10), None]).with_precision_and_scale(38, 2).unwrap();
        let batch = RecordBatch::try_from_iter(vec![("d", Arc::new(wide) as ArrayRef)]).unwrap();
        let fields = Arc::new(fields(&batch.schema(), &Format::UnifiedText).unwrap());
        let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
        let row = encode(&mut encoder, &fields, &batch, 0).unwrap();
        assert_eq!(&row.data[4..], b"170141183460469231731687303715884105.72");
        assert_eq!(encode(&mut encoder, &fields, &batch, 1).unwrap().data.as_ref(), (-1_i32).to_be_bytes());
        assert_eq!((fields[0].datatype(), fields[0].type_modifier()), (&Type::NUMERIC, (38 << 16) + 2 + 4));
    }

    #[test]
    fn columns_say_type_size_and_format() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![7]))),
            ("t", Arc::new(StringArray::from(vec!["x"]))),
            ("u", Arc::new(NullArray::new(1))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let fields = Arc::new(fields(&batch.schema(), &Format::Individual(vec![1, 0, 0])).unwrap());
        let types: Vec<_> = fields.iter().map(|f| (f.datatype().clone(), f.type_size(), f.format().value())).collect();
        assert_eq!(types, [(Type::INT8, 8, 1), (Type::TEXT, -1, 0), (Type::TEXT, -1, 0)]);
        let row = encode(&mut DataRowEncoder::new(Arc::clone(&fields)), &fields, &batch, 0).unwrap();
        assert_eq!(row.data.as_ref(), b"\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x01x\xff\xff\xff\xff");
    }
}
