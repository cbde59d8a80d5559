//! Parquet: one row group at a time, its pages checked before they are unpacked.
//!
//! Types   those of Parquet's own schema; what a writer noted of Arrow's beside it is not read. Strings are read as views, so that a
//!         dictionary's entry is not copied for every row that names it.

use super::pages::{self, malformed};
use super::{BATCH_ROWS, Batches, FileError, Format, Found, GROUP_BYTES_MAX, GROUPS_MAX, convert, guarded, places};
use crate::schema::TableSchema;
use crate::value::ColumnType;
use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use std::fs::File;
use std::sync::Arc;

/// Bytes of pages that are in memory at once: of each column the two largest of a row group.
const RESIDENT_BYTES_MAX: u64 = 1 << 30;

fn metadata(file: &File) -> Result<(ArrowReaderMetadata, u64), FileError> {
    let length = file.metadata().map_err(|e| malformed(e.to_string()))?.len();
    let footer = pages::footer(file, length)?;
    let metadata = guarded(Format::Parquet, || Ok(ParquetMetaDataReader::decode_metadata(&footer)?))?;
    if metadata.num_row_groups() > GROUPS_MAX {
        let (got, limit) = (metadata.num_row_groups() as u64, GROUPS_MAX as u64);
        return Err(FileError::Limit { what: "row groups of the Parquet file".to_owned(), got, limit });
    }
    let metadata = Arc::new(metadata);
    let arrow = guarded(Format::Parquet, || {
        let own = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let own = ArrowReaderMetadata::try_new(Arc::clone(&metadata), own)?;
        let views: Vec<Field> = own.schema().fields().iter().map(|f| as_view(f)).collect();
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(views)));
        Ok(ArrowReaderMetadata::try_new(Arc::clone(&metadata), options)?)
    })?;
    Ok((arrow, length))
}

fn as_view(field: &Field) -> Field {
    let view = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        other => other.clone(),
    };
    Field::new(field.name(), view, field.is_nullable())
}

fn rows(metadata: &ParquetMetaData) -> Result<u64, FileError> {
    let mut rows = metadata.row_groups().iter().map(|g| u64::try_from(g.num_rows()).ok());
    let rows = rows.try_fold(0u64, |sum, rows| sum.checked_add(rows?));
    rows.ok_or_else(|| malformed("row groups of less than no rows"))
}

pub(super) fn inspect(file: File, types: &[(String, ColumnType)]) -> Result<Found, FileError> {
    let (metadata, _) = metadata(&file)?;
    let columns = convert::columns(metadata.schema().fields().iter().map(|f| &**f), types)?;
    Ok(Found { columns, rows: Some(rows(metadata.metadata())?) })
}

/// Batches of a file.
pub(super) struct Reader {
    file: File,
    length: u64,
    metadata: ArrowReaderMetadata,
    schema: TableSchema,
    places: Vec<usize>,
    /// The row group at hand, the next one, and rows left in the one at hand.
    group: Option<ParquetRecordBatchReader>,
    next: usize,
    left: u64,
    row: u64,
    failed: bool,
}

impl Reader {
    pub(super) fn open(file: File, schema: &TableSchema) -> Result<Self, FileError> {
        let (metadata, length) = metadata(&file)?;
        let names: Vec<String> = metadata.schema().fields().iter().map(|f| f.name().clone()).collect();
        let places = places(&names, schema)?;
        convert::check(metadata.schema().fields().iter().map(|f| &**f), schema.columns())?;
        let (schema, group, failed) = (schema.clone(), None, false);
        Ok(Self { file, length, metadata, schema, places, group, next: 0, left: 0, row: 0, failed })
    }

    /// Checks a row group's pages and begins to read it.
    fn begin(&mut self) -> Result<ParquetRecordBatchReader, FileError> {
        let group = self.metadata.metadata().row_group(self.next);
        let bytes = u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX);
        if bytes > GROUP_BYTES_MAX {
            let what = format!("bytes of row group {}", self.next);
            return Err(FileError::Limit { what, got: bytes, limit: GROUP_BYTES_MAX });
        }
        let mut resident = 0u64;
        for chunk in group.columns() {
            resident = resident.saturating_add(pages::check(&self.file, self.length, chunk)?);
        }
        if resident > RESIDENT_BYTES_MAX {
            let what = format!("bytes of the largest pages of all columns of row group {}", self.next);
            return Err(FileError::Limit { what, got: resident, limit: RESIDENT_BYTES_MAX });
        }
        self.left = u64::try_from(group.num_rows()).unwrap_or(0);
        let file = self.file.try_clone().map_err(|e| malformed(e.to_string()))?;
        let (metadata, next) = (self.metadata.clone(), self.next);
        guarded(Format::Parquet, move || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
            Ok(builder.with_row_groups(vec![next]).with_batch_size(BATCH_ROWS).build()?)
        })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, FileError> {
        loop {
            let Some(group) = &mut self.group else {
                if self.next == self.metadata.metadata().num_row_groups() {
                    return Ok(None);
                }
                self.group = Some(self.begin()?);
                self.next += 1;
                continue;
            };
            let batch = guarded(Format::Parquet, || group.next().transpose())?;
            let Some(batch) = batch.filter(|b| b.num_rows() > 0) else {
                self.group = None;
                if self.left > 0 {
                    let group = self.next - 1;
                    return Err(malformed(format!("row group {group} lacks {} of the rows that it names", self.left)));
                }
                continue;
            };
            let rows = batch.num_rows() as u64;
            self.left = self
                .left
                .checked_sub(rows)
                .ok_or_else(|| malformed(format!("row group {} holds more rows than it names", self.next - 1)))?;
            let arrays = self.schema.columns().iter().zip(&self.places);
            let arrays = arrays.map(|(column, place)| {
                // Arrays of a damaged file may be inconsistent in themselves.
                guarded(Format::Parquet, || {
                    Ok::<_, ArrowError>(convert::array(batch.column(*place), column, self.row))
                })?
            });
            let arrays = arrays.collect::<Result<Vec<_>, FileError>>()?;
            self.row += rows;
            let batch =
                RecordBatch::try_new(self.schema.arrow(), arrays).expect("one array of the schema's type per column");
            return Ok(Some(batch));
        }
    }
}

impl Iterator for Reader {
    type Item = <Batches as Iterator>::Item;
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.batch();
        self.failed = batch.is_err();
        batch.transpose()
    }
}
