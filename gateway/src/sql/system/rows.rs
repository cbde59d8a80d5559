//! Rows of a system table, cell by cell: few, and made anew for each query.

use crate::sql::types::TYPE_NAME;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::MemTable;
use datafusion::common::Result;
use datafusion::datasource::TableProvider;
use datafusion::scalar::ScalarValue;
use datafusion_pg_catalog::pg_catalog::oid_field::{kind, oid_field};
use std::collections::HashMap;
use std::sync::Arc;

/// What a column holds. `Names` is an array of texts, `Numbers` one of 16 bits; vectors are the arrays that PostgreSQL's own tables have.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Oid,
    Int2,
    Int4,
    Int8,
    Float,
    Bool,
    Text,
    Numbers,
    Vector,
    OidVector,
    Names,
}

fn item() -> Field {
    Field::new_list_field(DataType::Null, true)
}

impl Kind {
    fn field(self, name: &str) -> Field {
        let list = |ty| DataType::List(Arc::new(item().with_data_type(ty)));
        let named = |kind: &str, ty| {
            Field::new(name, ty, true).with_metadata(HashMap::from([(TYPE_NAME.to_owned(), kind.to_owned())]))
        };
        let ty = match self {
            Self::Oid => return oid_field(name, kind::OID, true),
            Self::Vector => return named("int2vector", list(DataType::Int16)),
            Self::OidVector => return named("oidvector", list(DataType::Int32)),
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
            Self::Numbers => list(DataType::Int16),
            Self::Names => list(DataType::Utf8),
        };
        Field::new(name, ty, true)
    }
}

/// A cell.
#[derive(Clone)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Cell>),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<bool> for Cell {
    fn from(on: bool) -> Self {
        Self::Bool(on)
    }
}
impl From<i32> for Cell {
    fn from(n: i32) -> Self {
        Self::Int(i64::from(n))
    }
}
impl From<i64> for Cell {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}
impl From<u32> for Cell {
    fn from(n: u32) -> Self {
        Self::Int(i64::from(n))
    }
}
impl From<usize> for Cell {
    fn from(n: usize) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}
impl From<f64> for Cell {
    fn from(n: f64) -> Self {
        Self::Float(n)
    }
}
impl<C: Into<Cell>> From<Option<C>> for Cell {
    fn from(cell: Option<C>) -> Self {
        cell.map_or(Self::Null, Into::into)
    }
}
impl<C: Into<Cell>> From<Vec<C>> for Cell {
    fn from(cells: Vec<C>) -> Self {
        Self::List(cells.into_iter().map(Into::into).collect())
    }
}

fn scalar(cell: &Cell, ty: &DataType) -> Result<ScalarValue> {
    let own = match cell {
        Cell::Null => return ScalarValue::try_from(ty),
        Cell::Int(n) => ScalarValue::Int64(Some(*n)),
        Cell::Float(n) => ScalarValue::Float64(Some(*n)),
        Cell::Bool(on) => ScalarValue::Boolean(Some(*on)),
        Cell::Text(text) => ScalarValue::Utf8(Some(text.clone())),
        Cell::List(cells) => {
            let DataType::List(item) = ty else { return ScalarValue::try_from(ty) };
            let cells = cells.iter().map(|c| scalar(c, item.data_type())).collect::<Result<Vec<_>>>()?;
            return Ok(ScalarValue::List(ScalarValue::new_list(&cells, item.data_type(), true)));
        }
    };
    own.cast_to(ty)
}

/// A row from cells of several kinds.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($crate::sql::system::rows::Cell::from($cell)),*] };
}
pub(super) use row;

/// A table of rows.
///
/// # Errors
/// A cell of another kind than its column.
pub(super) fn table(columns: &[(&str, Kind)], rows: &[Vec<Cell>]) -> Result<Arc<dyn TableProvider>> {
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| kind.field(name)).collect();
    let column = |(i, field): (usize, &Field)| -> Result<ArrayRef> {
        let cells = rows.iter().map(|row| scalar(row.get(i).unwrap_or(&Cell::Null), field.data_type()));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        if cells.is_empty() {
            return Ok(datafusion::arrow::array::new_empty_array(field.data_type()));
        }
        ScalarValue::iter_to_array(cells)
    };
    let arrays = fields.iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}
