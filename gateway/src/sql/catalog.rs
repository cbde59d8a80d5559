//! Tables, views and indexes as SQL knows them, over the tables that the database keeps.
//!
//! ```text
//! fluence_objects (kind, name) -> body     sealed like any table: what SQL knows beyond a schema (defaults, checks, views, dropped columns)
//! fluence_sequences (name) -> next         apart, because it changes without changing what a statement means
//! ```
//! Rule      a table that no object speaks of is shown as it is: what `fluence import` made is there in SQL. Its key is not known to be
//!           unique, so it is not called a primary key.
//! Others    of another owner's database, whose objects are sealed, the open tables are shown, of several of one name the newest.
//! Versions  a writing transaction follows from the version of `fluence_objects` that its catalogue was read at: DDL by another gateway in
//!           between is a conflict, never a row that breaks a rule.
//! Source    DESIGN section 10

use super::types::{self, SqlType};
use crate::error::{SqlError, SqlState};
use crate::store::Store;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use fluence_client::schema::TableSchema;
use fluence_client::{Column, ColumnType, KeyRange, Select};
use fluence_types::Version;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The table of objects.
pub const OBJECTS: &str = "fluence_objects";
/// The table of sequences.
pub const SEQUENCES: &str = "fluence_sequences";
/// A column of this name keeps rows of a table without a primary key apart, and is not shown.
pub const ROW_ID: &str = "fluence_row";

/// A column.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ColumnDef {
    /// Its name in SQL.
    pub name: String,
    /// Its name in the schema that is sealed.
    pub physical: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub ty: ColumnType,
    /// What it is declared as.
    #[serde(default, skip_serializing_if = "is_sealed")]
    pub sql: SqlType,
    /// Whether NULL may stand in it.
    pub nullable: bool,
    /// Its default, an SQL expression.
    pub default: Option<String>,
    /// Whether numbers are given out for it.
    pub identity: bool,
    /// Longest text, in characters.
    pub chars_max: Option<u64>,
    /// Not shown: dropped, or the row's number.
    pub hidden: bool,
    /// Whether it is open data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    /// The sequence of its numbers, where that is not called by its table and itself: it goes on where a table was made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
}

/// Whether a column is declared as what is sealed.
const fn is_sealed(sql: &SqlType) -> bool {
    matches!(sql, SqlType::Sealed)
}

impl ColumnDef {
    /// The Arrow type that the planner computes with.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        self.sql.data_type(self.ty)
    }
}

/// A CHECK.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckDef {
    /// Its name.
    pub name: String,
    /// The condition, an SQL expression.
    pub expr: String,
}

/// An index: a sorted copy of the table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IndexDef {
    /// Its name.
    pub name: String,
    /// The table that holds the copy.
    pub physical: String,
    /// Columns by which it is sorted, before the table's key; names in the sealed schema.
    pub columns: Vec<String>,
    /// Whether no two rows agree in these columns, unless one of them is NULL.
    pub unique: bool,
}

/// A table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TableDef {
    /// Its name in SQL.
    pub name: String,
    /// The table that holds its rows.
    pub physical: String,
    /// Its columns in the order of the sealed schema.
    pub columns: Vec<ColumnDef>,
    /// The sort key; names in the sealed schema.
    pub key: Vec<String>,
    /// Whether the key is unique: a PRIMARY KEY.
    pub primary: bool,
    /// Its checks.
    pub checks: Vec<CheckDef>,
    /// Its indexes.
    pub indexes: Vec<IndexDef>,
}

impl TableDef {
    /// A table that no object speaks of.
    pub(crate) fn of_schema(schema: &TableSchema) -> Self {
        let column = |c: &Column| ColumnDef {
            name: c.name.clone(),
            physical: c.name.clone(),
            ty: c.ty,
            sql: SqlType::Sealed,
            nullable: c.nullable,
            default: None,
            identity: false,
            chars_max: None,
            hidden: c.name == ROW_ID,
            public: c.public,
            sequence: None,
        };
        Self {
            name: schema.name().to_owned(),
            physical: schema.name().to_owned(),
            columns: schema.columns().iter().map(column).collect(),
            key: schema.key().to_vec(),
            primary: false,
            checks: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// The columns that are shown.
    pub fn visible(&self) -> impl Iterator<Item = &ColumnDef> {
        self.columns.iter().filter(|c| !c.hidden)
    }

    /// A column that is shown, by name.
    ///
    /// # Errors
    /// [`SqlState::UndefinedColumn`].
    pub fn column(&self, name: &str) -> Result<&ColumnDef, SqlError> {
        self.visible().find(|c| c.name == name).ok_or_else(|| {
            SqlError::new(
                SqlState::UndefinedColumn,
                format!("column \"{name}\" of relation \"{}\" does not exist", self.name),
            )
        })
    }

    /// The place of a column of the sealed schema.
    #[must_use]
    pub fn place(&self, physical: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.physical == physical)
    }

    /// The Arrow schema of its columns under their SQL names: of those shown, or of all.
    #[must_use]
    pub fn arrow(&self, hidden: bool) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().filter(|c| hidden || !c.hidden).map(types::field_of).collect();
        Arc::new(Schema::new(fields))
    }

    /// Whole sealed rows as the planner computes with them, under their SQL names; NULL may stand anywhere.
    ///
    /// # Errors
    /// A value that does not fit what its column is declared as.
    pub(crate) fn shown(&self, sealed: &RecordBatch) -> Result<RecordBatch, SqlError> {
        let fields: Vec<Field> = self.columns.iter().map(|c| types::field_of(c).with_nullable(true)).collect();
        let columns = self.columns.iter().zip(sealed.columns()).map(|(c, a)| types::recast(a, &c.data_type()));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect::<Result<_, _>>()?)
            .map_err(|e| datafusion::common::DataFusionError::from(e).into())
    }

    /// The table's copies, itself first: the physical table of each, and the key that it is sorted by.
    #[must_use]
    pub fn copies(&self) -> Vec<(&str, Vec<String>)> {
        let mut copies = vec![(self.physical.as_str(), self.key.clone())];
        copies.extend(self.indexes.iter().map(|index| {
            let mut key = index.columns.clone();
            key.extend(self.key.iter().filter(|k| !index.columns.contains(k)).cloned());
            (index.physical.as_str(), key)
        }));
        copies
    }

    /// The sequence of an identity column.
    #[must_use]
    pub fn sequence(&self, column: &ColumnDef) -> String {
        column.sequence.clone().unwrap_or_else(|| format!("{}.{}", self.physical, column.physical))
    }
}

/// Everything that SQL knows, at one version.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Tables by name.
    pub tables: BTreeMap<String, Arc<TableDef>>,
    /// Views by name: their query.
    pub views: BTreeMap<String, String>,
    /// The sealed schemas by name, used or not.
    pub physical: HashMap<String, Arc<TableSchema>>,
    /// The version of the table of objects; `None` while there is none.
    pub version: Option<Version>,
}

/// Whether a table is the gateway's own.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    name == OBJECTS || name == SEQUENCES
}

/// The name that a physical table was made under, and its number; `None` for an index, and for what SQL did not make.
fn made_as(physical: &str) -> Option<(&str, u32)> {
    let (name, n) = physical.rsplit_once('~')?;
    if name.contains('~') { None } else { Some((name, n.parse().ok()?)) }
}

/// The schema of the table of objects.
pub(crate) fn objects_schema() -> TableSchema {
    let text = |n| Column::new(n, ColumnType::Text);
    TableSchema::new(OBJECTS, vec![text("kind"), text("name"), text("body")], &["kind", "name"], Vec::new())
        .expect("a fixed schema")
}

/// The schema of the table of sequences.
pub(crate) fn sequences_schema() -> TableSchema {
    let columns = vec![Column::new("name", ColumnType::Text), Column::new("next", ColumnType::Int64)];
    TableSchema::new(SEQUENCES, columns, &["name"], Vec::new()).expect("a fixed schema")
}

impl Catalog {
    /// Reads it.
    ///
    /// # Errors
    /// What reading says; [`SqlState::DataCorrupted`] for an object that cannot be understood.
    pub async fn load(store: &dyn Store) -> Result<Self, SqlError> {
        let mut catalog = Self::default();
        for schema in store.tables().await? {
            catalog.physical.insert(schema.name().to_owned(), schema);
        }
        // Physical tables that an object uses, or that were used by one that was dropped.
        let mut owned: Vec<String> = Vec::new();
        if catalog.physical.contains_key(OBJECTS) {
            let (batches, evidence) = store.read(OBJECTS, &Select::range(KeyRange::ALL)).await?;
            catalog.version = Some(evidence.version);
            for batch in &batches {
                let column = |i: usize| batch.column(i).as_string::<i32>();
                for row in 0..batch.num_rows() {
                    let (kind, name, body) = (column(0).value(row), column(1).value(row), column(2).value(row));
                    match kind {
                        "table" => {
                            let table: TableDef = serde_json::from_str(body).map_err(|e| {
                                SqlError::new(SqlState::DataCorrupted, format!("the object of table \"{name}\": {e}"))
                            })?;
                            owned.push(table.physical.clone());
                            owned.extend(table.indexes.iter().map(|i| i.physical.clone()));
                            catalog.tables.insert(table.name.clone(), Arc::new(table));
                        }
                        "view" => drop(catalog.views.insert(name.to_owned(), body.to_owned())),
                        // A table that was dropped, by the name of what held it.
                        "dropped" => owned.push(name.to_owned()),
                        other => {
                            let why = format!("an object of the kind {other:?}, which a newer version may know");
                            return Err(SqlError::new(SqlState::DataCorrupted, why));
                        }
                    }
                }
            }
        }
        // Another owner's database: what its objects say is sealed, so its open tables have the names that they were made under.
        let mut newest: BTreeMap<&str, (u32, &TableSchema)> = BTreeMap::new();
        for (name, schema) in &catalog.physical {
            if let (None, Some((name, n))) = (catalog.version, made_as(name))
                && newest.get(name).is_none_or(|(before, _)| *before < n)
            {
                newest.insert(name, (n, schema));
            }
        }
        for (name, (_, schema)) in newest {
            let def = TableDef { name: name.to_owned(), ..TableDef::of_schema(schema) };
            catalog.tables.insert(name.to_owned(), Arc::new(def));
        }
        for (name, schema) in &catalog.physical {
            if !is_internal(name) && !name.contains('~') && !owned.contains(name) {
                catalog.tables.entry(name.clone()).or_insert_with(|| Arc::new(TableDef::of_schema(schema)));
            }
        }
        Ok(catalog)
    }

    /// A table by name.
    ///
    /// # Errors
    /// [`SqlState::UndefinedTable`].
    pub fn table(&self, name: &str) -> Result<&Arc<TableDef>, SqlError> {
        self.tables.get(name).ok_or_else(|| {
            let what = if self.views.contains_key(name) { "is a view" } else { "does not exist" };
            SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" {what}"))
        })
    }

    /// Whether a table or view has the name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tables.contains_key(name) || self.views.contains_key(name)
    }

    /// A name for a new physical table: the name, and a number that was not used before. Imported tables have no `~` in their names.
    #[must_use]
    pub fn free_physical(&self, name: &str) -> String {
        (1u32..).map(|n| format!("{name}~{n}")).find(|n| !self.physical.contains_key(n)).expect("numbers do not end")
    }
}
