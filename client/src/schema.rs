//! Table schemas: columns, sort key, declared sums, and the lanes that follow from them.
//!
//! ```text
//! lane order   one byte lane per column, the public ones first | byte lane of the weights | sum lanes: weight, not-null counts, declared
//!              expressions, packed; those of public columns alone first, in lanes of their own
//! ```
//! Rule    nodes know only the kinds of the lanes; names, types, key and expressions travel sealed ([`crate::keyring`]).
//!         A row of weight w adds `w * expression` to a sum, 0 where the expression is NULL. Sums share lanes: [`crate::packing`].
//! Public  a table with a public column is open: everyone reads these columns, the key, the weights and their counts, which stand in clear.
//!         The key must be public then, because where a row stands tells its key's rank. [`TableSchema::open_part`] is all that others know.
//! Source  DESIGN section 3; `docs/protocol/segment.md`

use crate::packing::{self, SumField};
use crate::value::{ColumnType, DECIMAL_PRECISION_MAX};
use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_types::LaneId;
use fluence_types::codec::Bounded;
use fluence_types::limits::LANES_MAX;
use fluence_types::segment::LaneKind;
use std::fmt;
use std::sync::Arc;

/// Longest table or column name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most columns of a sort key.
pub const KEY_COLUMNS_MAX: usize = 16;

/// Why a schema, or a batch that should fit one, was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A name is empty, too long, or has control characters.
    #[error("bad name {0:?}: 1 to {NAME_BYTES_MAX} bytes without control characters")]
    Name(String),
    /// Two columns of one name.
    #[error("column {0:?} is there twice")]
    Repeated(String),
    /// A key or sum names a column that is not there.
    #[error("there is no column {0:?}")]
    NoColumn(String),
    /// No column at all, or no key.
    #[error("a table needs at least one column and one key column, at most {KEY_COLUMNS_MAX} key columns")]
    Key,
    /// The column's type has no exact sums.
    #[error("column {column:?} is {ty}, which cannot be summed exactly; declare it int64, decimal or bool")]
    NotSummable {
        /// The column.
        column: String,
        /// Its type.
        ty: ColumnType,
    },
    /// A query needs a sum that the table does not keep.
    #[error("table {table:?} keeps no sum of {expr}; declare it when the table is created")]
    NotDeclared {
        /// The table.
        table: String,
        /// The expression.
        expr: String,
    },
    /// More lanes than a segment may have.
    #[error("{got} lanes, a segment holds {LANES_MAX}")]
    TooManyLanes {
        /// Lanes of this schema.
        got: usize,
    },
    /// A decimal's precision or scale is out of range.
    #[error("column {0:?}: a decimal has 1 to {DECIMAL_PRECISION_MAX} digits, and no more after the point than in all")]
    Decimal(String),
    /// A column's bits are no int64's.
    #[error("column {0:?}: an int64 may have 1 to 63 bits, and no other type has any")]
    Bits(String),
    /// A batch lacks a column, or has it with another type.
    #[error("column {column:?}: the batch has {got}, the table {want}")]
    Batch {
        /// The column.
        column: String,
        /// What the batch has.
        got: String,
        /// What the table has.
        want: String,
    },
    /// NULL in a column that is not nullable.
    #[error("column {0:?} is not nullable, the batch has NULL in it")]
    Null(String),
    /// The sealed schema's lanes are not those that its columns and sums make.
    #[error("the lanes that nodes know are not those of the sealed schema")]
    Lanes,
    /// A public column beside a sealed key.
    #[error(
        "column {column:?} is public, so key column {key:?} must be public too: where a row stands tells its key's rank"
    )]
    SealedKey {
        /// The public column.
        column: String,
        /// The sealed key column.
        key: String,
    },
    /// What a schema says in clear is not what its sealed part says.
    #[error("what the schema says in clear of its public columns is not what it seals")]
    Open,
}

/// A column.
#[derive(Clone, PartialEq, Eq, Debug, Hash, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub ty: ColumnType,
    /// Whether NULL may stand in it.
    pub nullable: bool,
    /// Whether it is open data: neither encrypted nor masked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    /// Of an int64, the bits that the magnitude of every value has at most, where they are fewer than 64: its sums take less room then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u8>,
}

impl Column {
    /// A column that never is NULL.
    #[must_use]
    pub fn new(name: &str, ty: ColumnType) -> Self {
        Self { name: name.to_owned(), ty, nullable: false, public: false, bits: None }
    }
    /// A column that may be NULL.
    #[must_use]
    pub fn nullable(name: &str, ty: ColumnType) -> Self {
        Self { nullable: true, ..Self::new(name, ty) }
    }
    /// The same as open data.
    #[must_use]
    pub fn public(self) -> Self {
        Self { public: true, ..self }
    }
    /// The same of integers below `2^bits` in magnitude.
    #[must_use]
    pub fn bits(self, bits: u8) -> Self {
        Self { bits: Some(bits), ..self }
    }

    /// Bits that hold the magnitude of every value, as an integer of the column's scale.
    #[must_use]
    pub fn magnitude_bits(&self) -> u32 {
        self.bits.map_or(self.ty.magnitude_bits(), u32::from)
    }
}

/// An expression whose prefix sums a table keeps, by column names.
#[derive(
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum SumExpr {
    /// The column itself.
    Column(String) = 1,
    /// Its square, for variances.
    Square(String) = 2,
    /// The product of two columns, for covariances.
    Product(String, String) = 3,
}

impl SumExpr {
    /// The columns it reads.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Column(c) | Self::Square(c) => vec![c],
            Self::Product(a, b) => vec![a, b],
        }
    }
    /// What a variance of `column` needs: the column and its square.
    #[must_use]
    pub fn variance(column: &str) -> [Self; 2] {
        [Self::Column(column.to_owned()), Self::Square(column.to_owned())]
    }
}

impl fmt::Display for SumExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(c) => f.write_str(c),
            Self::Square(c) => write!(f, "{c}*{c}"),
            Self::Product(a, b) => write!(f, "{a}*{b}"),
        }
    }
}

impl std::str::FromStr for SumExpr {
    type Err = SchemaError;
    /// `a`, `a*a`, `a*b` or `a^2`.
    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let clean = |s: &str| {
            let s = s.trim();
            if s.is_empty() { Err(SchemaError::Name(text.chars().take(80).collect())) } else { Ok(s.to_owned()) }
        };
        if let Some(column) = text.trim().strip_suffix("^2") {
            return Ok(Self::Square(clean(column)?));
        }
        match text.split_once('*') {
            None => Ok(Self::Column(clean(text)?)),
            Some((a, b)) => {
                let (a, b) = (clean(a)?, clean(b)?);
                Ok(if a == b { Self::Square(a) } else { Self::Product(a, b) })
            }
        }
    }
}

/// What is summed, by column index.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Summand {
    /// The weights: +1 for a row, -1 for a retraction. Its sum is COUNT(*).
    Weight,
    /// The weights of rows in which none of these nullable columns is NULL.
    NotNull(Vec<usize>),
    /// A column.
    Column(usize),
    /// A column squared.
    Square(usize),
    /// Two columns multiplied.
    Product(usize, usize),
}

/// A table as its owner sees it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize)]
pub struct TableSchema {
    name: String,
    columns: Vec<Column>,
    key: Vec<String>,
    sums: Vec<SumExpr>,
    #[serde(default, skip_serializing_if = "Hidden::is_nothing")]
    hidden: Hidden,
}

/// Lanes of an open table that a reader without its keys knows the number of.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, BorshSerialize, BorshDeserialize, serde::Serialize, serde::Deserialize,
)]
struct Hidden {
    columns: u16,
    sum_lanes: u16,
}

impl Hidden {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl TableSchema {
    /// A checked schema. Repeated sums are dropped; the factors of a product are put in column order.
    ///
    /// # Errors
    /// [`SchemaError`] naming the column or limit.
    pub fn new(name: &str, columns: Vec<Column>, key: &[&str], sums: Vec<SumExpr>) -> Result<Self, SchemaError> {
        let key = key.iter().map(|k| (*k).to_owned()).collect();
        let mut schema = Self { name: name.to_owned(), columns, key, sums: Vec::new(), hidden: Hidden::default() };
        for sum in sums {
            let sum = schema.canonical(sum)?;
            if !schema.sums.contains(&sum) {
                schema.sums.push(sum);
            }
        }
        schema.check()?;
        Ok(schema)
    }

    /// Checks a schema that was decoded.
    ///
    /// # Errors
    /// [`SchemaError`] as [`Self::new`].
    pub fn check(&self) -> Result<(), SchemaError> {
        check_name(&self.name)?;
        for (i, column) in self.columns.iter().enumerate() {
            check_name(&column.name)?;
            if self.columns[..i].iter().any(|c| c.name == column.name) {
                return Err(SchemaError::Repeated(column.name.clone()));
            }
            if let ColumnType::Decimal { precision, scale } = column.ty
                && (precision == 0 || precision > DECIMAL_PRECISION_MAX || scale > precision)
            {
                return Err(SchemaError::Decimal(column.name.clone()));
            }
            if column.bits.is_some_and(|bits| column.ty != ColumnType::Int64 || !(1..64).contains(&bits)) {
                return Err(SchemaError::Bits(column.name.clone()));
            }
        }
        if self.key.is_empty() || self.key.len() > KEY_COLUMNS_MAX || self.columns.is_empty() {
            return Err(SchemaError::Key);
        }
        for (i, key) in self.key.iter().enumerate() {
            self.index(key)?;
            if self.key[..i].contains(key) {
                return Err(SchemaError::Repeated(key.clone()));
            }
        }
        for (i, sum) in self.sums.iter().enumerate() {
            if self.canonical(sum.clone())? != *sum || self.sums[..i].contains(sum) {
                return Err(SchemaError::Repeated(sum.to_string()));
            }
        }
        if let Some(column) = self.columns.iter().find(|c| c.public)
            && let Some(key) = self.key_indices().into_iter().map(|i| &self.columns[i]).find(|k| !k.public)
        {
            return Err(SchemaError::SealedKey { column: column.name.clone(), key: key.name.clone() });
        }
        // What a reader is told is public, all of it.
        if !self.hidden.is_nothing() && self.columns.iter().any(|c| !c.public) {
            return Err(SchemaError::Open);
        }
        let got = self.lane_kinds_unbounded().len();
        if got > LANES_MAX { Err(SchemaError::TooManyLanes { got }) } else { Ok(()) }
    }

    fn canonical(&self, sum: SumExpr) -> Result<SumExpr, SchemaError> {
        for name in sum.columns() {
            let column = &self.columns[self.index(name)?];
            if !column.ty.summable() {
                return Err(SchemaError::NotSummable { column: name.to_owned(), ty: column.ty });
            }
        }
        Ok(match sum {
            SumExpr::Product(a, b) if a == b => SumExpr::Square(a),
            SumExpr::Product(a, b) if self.index(&a)? > self.index(&b)? => SumExpr::Product(b, a),
            other => other,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its columns.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
    /// Names of the key columns, most significant first.
    #[must_use]
    pub fn key(&self) -> &[String] {
        &self.key
    }
    /// The declared sums.
    #[must_use]
    pub fn sums(&self) -> &[SumExpr] {
        &self.sums
    }

    /// Position of a column.
    ///
    /// # Errors
    /// [`SchemaError::NoColumn`].
    pub fn index(&self, column: &str) -> Result<usize, SchemaError> {
        self.columns
            .iter()
            .position(|c| c.name == column)
            .ok_or_else(|| SchemaError::NoColumn(column.chars().take(NAME_BYTES_MAX).collect()))
    }

    /// Positions of the key columns.
    #[must_use]
    pub fn key_indices(&self) -> Vec<usize> {
        self.key.iter().map(|k| self.index(k).expect("checked when the schema was made")).collect()
    }

    /// Whether it has public columns.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.columns.iter().any(|c| c.public)
    }

    /// What everyone is told of an open table: its public columns, its key, the sums of public columns alone.
    #[must_use]
    pub fn open_part(&self) -> Option<Self> {
        if !self.is_open() {
            return None;
        }
        let columns: Vec<Column> = self.columns.iter().filter(|c| c.public).cloned().collect();
        let sums = self.sums.iter().filter(|sum| self.is_public(sum)).cloned().collect();
        let hidden = Hidden {
            columns: (self.columns.len() - columns.len()) as u16 + self.hidden.columns,
            sum_lanes: (self.sum_lanes() - self.open_sum_lanes()) as u16,
        };
        Some(Self { name: self.name.clone(), columns, key: self.key.clone(), sums, hidden })
    }

    /// Whether all columns of an expression are public.
    fn is_public(&self, sum: &SumExpr) -> bool {
        sum.columns().into_iter().all(|c| self.index(c).is_ok_and(|c| self.columns[c].public))
    }

    /// Whether a lane stands in clear.
    #[must_use]
    pub fn is_public_lane(&self, lane: LaneId) -> bool {
        if !self.is_open() {
            return false;
        }
        let (at, weights) = (usize::from(lane.0), usize::from(self.weight_lane().0));
        match at.checked_sub(weights) {
            None => at < self.columns.iter().filter(|c| c.public).count(),
            Some(0) => true,
            Some(past) => past <= self.open_sum_lanes(),
        }
    }

    /// Whether a byte lane is a sealed column of which nothing is known here.
    pub(crate) fn is_hidden_lane(&self, lane: LaneId) -> bool {
        let at = usize::from(lane.0);
        at >= self.columns.len() && at < usize::from(self.weight_lane().0)
    }

    /// The byte lane of a column.
    #[must_use]
    pub fn column_lane(&self, column: usize) -> LaneId {
        let sealed = !self.columns[column].public;
        let first = if sealed { self.columns.iter().filter(|c| c.public).count() } else { 0 };
        let before = self.columns[..column].iter().filter(|c| c.public != sealed).count();
        LaneId((first + before) as _)
    }

    /// The byte lane of the weights.
    #[must_use]
    pub fn weight_lane(&self) -> LaneId {
        LaneId((self.columns.len() + usize::from(self.hidden.columns)) as _)
    }

    /// Byte lanes: one a column, and the weights.
    #[must_use]
    pub fn byte_lanes(&self) -> usize {
        usize::from(self.weight_lane().0) + 1
    }

    /// What is summed, in order: what everyone may know of an open table, and what is sealed.
    fn summands(&self) -> [Vec<Summand>; 2] {
        let index = |name: &str| self.index(name).expect("checked when the schema was made");
        let [mut open, mut sealed] = match self.is_open() {
            true => [vec![Summand::Weight], Vec::new()],
            false => [Vec::new(), vec![Summand::Weight]],
        };
        for public in [true, false] {
            let sums = || self.sums.iter().filter(|sum| self.is_public(sum) == public);
            let counts: Vec<_> = sums().map(|s| self.nullable_columns(s)).filter(|c| !c.is_empty()).collect();
            let known = open.clone();
            let group = if public { &mut open } else { &mut sealed };
            for count in counts.into_iter().map(Summand::NotNull) {
                if !known.contains(&count) && !group.contains(&count) {
                    group.push(count);
                }
            }
            group.extend(sums().map(|sum| match sum {
                SumExpr::Column(c) => Summand::Column(index(c)),
                SumExpr::Square(c) => Summand::Square(index(c)),
                SumExpr::Product(a, b) => Summand::Product(index(a), index(b)),
            }));
        }
        [open, sealed]
    }

    /// What is summed, and where each sum stands.
    #[must_use]
    pub fn sum_fields(&self) -> Vec<(Summand, SumField)> {
        let bits = |column: &usize| self.columns[*column].magnitude_bits();
        let value_bits = |summand: &Summand| match summand {
            Summand::Weight | Summand::NotNull(_) => 1,
            Summand::Column(c) => bits(c),
            Summand::Square(c) => 2 * bits(c),
            Summand::Product(a, b) => bits(a) + bits(b),
        };
        let mut placed: Vec<(Summand, SumField)> = Vec::new();
        for group in self.summands() {
            let first = placed.iter().map(|(_, field)| usize::from(field.lane.0) + 1).max();
            let bits = group.iter().map(|s| packing::field_bits(value_bits(s)));
            let fields = packing::pack(first.unwrap_or(self.byte_lanes()), bits);
            placed.extend(group.into_iter().zip(fields));
        }
        placed
    }

    /// Sum lanes that stand in clear: the first ones.
    fn open_sum_lanes(&self) -> usize {
        let [open, _] = self.summands();
        let last = self.sum_fields()[..open.len()].iter().map(|(_, field)| usize::from(field.lane.0)).max();
        last.map_or(0, |last| last + 1 - self.byte_lanes())
    }

    /// The nullable columns of an expression, in order: where it is empty, the expression is never NULL.
    fn nullable_columns(&self, sum: &SumExpr) -> Vec<usize> {
        let mut columns: Vec<usize> = sum
            .columns()
            .into_iter()
            .map(|c| self.index(c).expect("checked when the schema was made"))
            .filter(|c| self.columns[*c].nullable)
            .collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Where all rows are counted.
    #[must_use]
    pub fn count_field(&self) -> SumField {
        self.sum_fields()[0].1
    }

    /// Where the rows are counted in which `sum` is not NULL.
    ///
    /// # Errors
    /// [`SchemaError::NotDeclared`] where the column is nullable and no declared sum reads it.
    pub fn not_null_field(&self, sum: &SumExpr) -> Result<SumField, SchemaError> {
        for column in sum.columns() {
            self.index(column)?;
        }
        let nullable = self.nullable_columns(sum);
        let wanted = if nullable.is_empty() { Summand::Weight } else { Summand::NotNull(nullable) };
        self.find_field(&wanted, &format!("{sum} (not-null count)"))
    }

    /// Where an expression is summed, and its scale: the sum is the field's integer over `10^scale`.
    ///
    /// # Errors
    /// [`SchemaError`] where the column is missing, not summable, or its sum not declared.
    pub fn expr_field(&self, sum: &SumExpr) -> Result<(SumField, u32), SchemaError> {
        let sum = self.canonical(sum.clone())?;
        let scale = |c: &str| self.columns[self.index(c).expect("canonical checks the columns")].ty.scale();
        let (wanted, scale) = match &sum {
            SumExpr::Column(c) => (Summand::Column(self.index(c)?), scale(c)),
            SumExpr::Square(c) => (Summand::Square(self.index(c)?), 2 * scale(c)),
            SumExpr::Product(a, b) => (Summand::Product(self.index(a)?, self.index(b)?), scale(a) + scale(b)),
        };
        Ok((self.find_field(&wanted, &sum.to_string())?, scale))
    }

    fn find_field(&self, wanted: &Summand, expr: &str) -> Result<SumField, SchemaError> {
        let field = self.sum_fields().into_iter().find(|(summand, _)| summand == wanted);
        let declared = || SchemaError::NotDeclared { table: self.name.clone(), expr: expr.to_owned() };
        field.map(|(_, field)| field).ok_or_else(declared)
    }

    /// Sum lanes, from the first after the byte lanes.
    #[must_use]
    pub fn sum_lanes(&self) -> usize {
        let last = self.sum_fields().iter().map(|(_, field)| usize::from(field.lane.0)).max();
        last.expect("rows are always counted") + 1 - self.byte_lanes() + usize::from(self.hidden.sum_lanes)
    }

    fn lane_kinds_unbounded(&self) -> Vec<LaneKind> {
        let mut kinds = vec![LaneKind::Bytes; self.byte_lanes()];
        kinds.resize(self.byte_lanes() + self.sum_lanes(), LaneKind::Sum);
        kinds
    }

    /// What nodes know: the kinds of the lanes.
    #[must_use]
    pub fn lane_kinds(&self) -> Bounded<LaneKind, LANES_MAX> {
        Bounded::new(self.lane_kinds_unbounded()).expect("checked when the schema was made")
    }

    /// The Arrow schema of its batches.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        self.arrow_of(&(0..self.columns.len()).collect::<Vec<_>>())
    }

    /// The Arrow schema of some of its columns.
    #[must_use]
    pub fn arrow_of(&self, columns: &[usize]) -> SchemaRef {
        let field = |i: &usize| {
            let c = &self.columns[*i];
            Field::new(&c.name, c.ty.data_type(), c.nullable)
        };
        Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The batch with the table's columns in the table's order.
    ///
    /// # Errors
    /// [`SchemaError`] naming the column that is missing, of another type, or NULL where it must not be.
    pub fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, SchemaError> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let want = column.ty.data_type();
            let wrong = |got: String| SchemaError::Batch { column: column.name.clone(), got, want: want.to_string() };
            let array = batch.column_by_name(&column.name).ok_or_else(|| wrong("no such column".to_owned()))?;
            if *array.data_type() != want {
                return Err(wrong(array.data_type().to_string()));
            }
            if !column.nullable && array.null_count() > 0 {
                return Err(SchemaError::Null(column.name.clone()));
            }
            arrays.push(Arc::clone(array));
        }
        RecordBatch::try_new(self.arrow(), arrays).map_err(|e| SchemaError::Batch {
            column: "*".to_owned(),
            got: e.to_string(),
            want: "the table's columns".to_owned(),
        })
    }
}

fn check_name(name: &str) -> Result<(), SchemaError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(SchemaError::Name(name.chars().take(NAME_BYTES_MAX).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flights() -> TableSchema {
        let columns = vec![
            Column::new("hour", ColumnType::Timestamp),
            Column::new("carrier", ColumnType::Text),
            Column::nullable("delay", ColumnType::Int64),
            Column::new("distance", ColumnType::Decimal { precision: 8, scale: 1 }),
            Column::nullable("ratio", ColumnType::Float64),
        ];
        let mut sums = SumExpr::variance("delay").to_vec();
        sums.push(SumExpr::Product("distance".into(), "delay".into()));
        sums.push(SumExpr::Column("distance".into()));
        TableSchema::new("flights", columns, &["hour", "carrier"], sums).unwrap()
    }

    #[test]
    fn what_is_public_comes_first_and_stands_alike_for_those_who_know_no_more() {
        let columns = vec![
            Column::nullable("cost", ColumnType::Int64),
            Column::new("id", ColumnType::Int64).public(),
            Column::new("note", ColumnType::Text),
            Column::nullable("height", ColumnType::Int64).public(),
        ];
        let sums = ["cost", "cost*height", "height", "id", "height*note", "height*height"];
        let sums = sums.iter().filter(|s| !s.contains("note")).map(|s| s.parse().unwrap()).collect();
        let whole = TableSchema::new("t", columns.clone(), &["id"], sums).unwrap();
        let lanes: Vec<u16> = (0..4).map(|c| whole.column_lane(c).0).collect();
        assert_eq!((lanes, whole.weight_lane(), whole.byte_lanes()), (vec![2, 0, 3, 1], LaneId(4), 5));
        let public: Vec<bool> = (0..=10).map(|l| whole.is_public_lane(LaneId(l))).collect();
        assert_eq!(public[..6], [true, true, false, false, true, true]);
        // Counts and sums of public columns are in no lane with others.
        let open = whole.open_part().unwrap();
        assert_eq!(open.lane_kinds(), whole.lane_kinds());
        let open_lanes = 5 + whole.open_sum_lanes();
        assert!(
            (5..open_lanes).all(|l| public[l]) && !public[open_lanes] && whole.sum_lanes() > whole.open_sum_lanes()
        );
        for sum in ["height", "id", "height*height"].map(|s| s.parse::<SumExpr>().unwrap()) {
            assert_eq!(open.expr_field(&sum).unwrap(), whole.expr_field(&sum).unwrap());
            assert_eq!(open.not_null_field(&sum).unwrap(), whole.not_null_field(&sum).unwrap());
            assert!(whole.is_public_lane(whole.expr_field(&sum).unwrap().0.lane));
        }
        for sum in ["cost", "cost*height"].map(|s| s.parse::<SumExpr>().unwrap()) {
            assert!(!whole.is_public_lane(whole.expr_field(&sum).unwrap().0.lane));
            assert!(!whole.is_public_lane(whole.not_null_field(&sum).unwrap().lane));
        }
        assert_eq!((open.count_field(), open.weight_lane()), (whole.count_field(), whole.weight_lane()));
        let hidden: Vec<u16> = (0..5).filter(|l| open.is_hidden_lane(LaneId(*l))).collect();
        assert_eq!(hidden, [2, 3]);
        assert!((0..5).all(|l| !whole.is_hidden_lane(LaneId(l))));
        assert_eq!(open.open_part().as_ref(), Some(&open), "there is no more to leave out");
        assert!(open.check().is_ok());

        // A count that only a sealed product needs is sealed, though its column is public: others could not tell where it stands.
        let sums = vec!["note*height".parse().unwrap()];
        let mut mixed = columns.clone();
        mixed[2] = Column::new("note", ColumnType::Int64);
        let mixed = TableSchema::new("t", mixed, &["id"], sums).unwrap();
        let open = mixed.open_part().unwrap();
        assert_eq!((open.lane_kinds(), open.count_field()), (mixed.lane_kinds(), mixed.count_field()));
        assert_eq!(mixed.open_sum_lanes(), 1);

        let sealed_key = TableSchema::new("t", columns, &["id", "note"], Vec::new()).unwrap_err();
        assert_eq!(sealed_key, SchemaError::SealedKey { column: "id".into(), key: "note".into() });
        assert_eq!(flights().open_part(), None);
        assert!(!(0..40).any(|l| flights().is_public_lane(LaneId(l))));
    }

    #[test]
    fn lanes_follow_from_columns_and_sums() {
        let s = flights();
        let at = |f: SumField| (f.lane.0, f.shift, f.bits);
        let fields: Vec<_> = s.sum_fields().into_iter().map(|(summand, field)| (summand, at(field))).collect();
        assert_eq!(
            fields,
            [
                (Summand::Weight, (6, 0, 26)),
                (Summand::NotNull(vec![2]), (6, 26, 26)),
                (Summand::Column(2), (6, 52, 89)),
                (Summand::Square(2), (7, 0, 153)),
                (Summand::Product(2, 3), (8, 0, 116)),
                (Summand::Column(3), (6, 141, 52))
            ]
        );
        assert_eq!(s.weight_lane().0, 5);
        assert_eq!(at(s.count_field()), (6, 0, 26));
        assert_eq!(s.lane_kinds().len(), 9);
        assert_eq!(at(s.expr_field(&SumExpr::Column("distance".into())).unwrap().0), (6, 141, 52));
        // A product is one sum whatever the order of its factors.
        let (product, scale) = s.expr_field(&"distance*delay".parse().unwrap()).unwrap();
        assert_eq!((at(product), scale), ((8, 0, 116), 1));
        assert_eq!(at(s.not_null_field(&"delay".parse().unwrap()).unwrap()), (6, 26, 26));
        assert_eq!(s.not_null_field(&"distance".parse().unwrap()).unwrap(), s.count_field());
    }

    #[test]
    fn refuses_sums_that_are_not_exact_or_not_declared() {
        let s = flights();
        let not_summable = s.expr_field(&"ratio".parse().unwrap()).unwrap_err();
        assert!(not_summable.to_string().contains("cannot be summed exactly"), "{not_summable}");
        assert!(matches!(s.expr_field(&"distance^2".parse().unwrap()), Err(SchemaError::NotDeclared { .. })));
        assert!(matches!(s.not_null_field(&"ratio".parse().unwrap()), Err(SchemaError::NotDeclared { .. })));
        assert!(matches!(s.expr_field(&"nope".parse().unwrap()), Err(SchemaError::NoColumn(_))));
    }

    #[test]
    fn refuses_each_malformed_schema() {
        let c = |n: &str| Column::new(n, ColumnType::Int64);
        let make = |name: &str, columns, key: &[&str], sums| TableSchema::new(name, columns, key, sums);
        assert!(matches!(make("", vec![c("a")], &["a"], vec![]), Err(SchemaError::Name(_))));
        assert!(matches!(make("t", vec![c("a"), c("a")], &["a"], vec![]), Err(SchemaError::Repeated(_))));
        assert!(matches!(make("t", vec![c("a")], &[], vec![]), Err(SchemaError::Key)));
        assert!(matches!(make("t", vec![c("a")], &["b"], vec![]), Err(SchemaError::NoColumn(_))));
        assert!(matches!(make("t", vec![c("a")], &["a", "a"], vec![]), Err(SchemaError::Repeated(_))));
        let bad = Column::new("d", ColumnType::Decimal { precision: 29, scale: 0 });
        assert!(matches!(make("t", vec![bad], &["d"], vec![]), Err(SchemaError::Decimal(_))));
        let many = (0..300).map(|i| c(&format!("c{i}"))).collect();
        assert!(matches!(make("t", many, &["c0"], vec![]), Err(SchemaError::TooManyLanes { got: 302 })));
    }
}
