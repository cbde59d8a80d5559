//! The system catalogue: what drivers and tools ask to find tables, columns, keys and indexes.
//!
//! ```text
//! Catalog ── Objects (an OID for each) ─┬─ pg          pg_class, pg_attribute, pg_index, pg_constraint, ..
//!                                       ├─ information information_schema
//!                                       ├─ functions   pg_get_indexdef(), pg_get_constraintdef(), ..
//!                                       └─ oids        'books'::regclass, 23::regtype::text
//! statement ── words (what the planner knows) ── plan ── nested (subqueries that it does not join)
//! all else (types, operators, functions) ── datafusion-pg-catalog; constants for functions of which nothing is here
//! ```
//! OIDs    a hash of kind and name, so that they stay what they are while other objects come and go, and two gateways agree.
//! Source  PostgreSQL 15, "System Catalogs", "The Information Schema"

pub(super) mod constants;
pub(super) mod functions;
mod information;
pub(super) mod nested;
pub(super) mod oids;
mod pg;
mod rows;
pub(super) mod words;

use super::catalog::{Catalog, ColumnDef, IndexDef, TableDef};
use super::types::field_of;
use crate::pg_type;
use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::catalog::SchemaProvider;
use datafusion::common::Result;
use datafusion::datasource::TableProvider;
use pgwire::api::Type;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The OID of `public`.
pub(super) const PUBLIC: u32 = 2200;
/// The OID of `pg_catalog`.
const PG_CATALOG: u32 = 11;
/// The OID of `information_schema`.
const INFORMATION: u32 = 13_000;
/// The first OID that is not PostgreSQL's own.
const FIRST: u32 = 16_384;

/// What a relation is.
#[derive(Clone)]
pub(crate) enum What {
    Table(Arc<TableDef>),
    View(String),
    /// The index of a primary key, or another.
    Index(Arc<TableDef>, Option<IndexDef>),
    /// The numbers of an identity column.
    Sequence(Arc<TableDef>, ColumnDef),
}

/// A relation.
pub(crate) struct Object {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) what: What,
}

/// A rule of a table.
pub(crate) struct Constraint {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) table: Arc<TableDef>,
    /// `p`, `u` or `c`.
    pub(super) kind: &'static str,
    /// Numbers of its columns, from 1.
    pub(super) columns: Vec<i32>,
    /// The name of its index.
    pub(super) index: Option<String>,
    pub(super) check: Option<String>,
}

/// Everything that has an OID.
pub(crate) struct Objects {
    pub(super) relations: Vec<Object>,
    pub(super) constraints: Vec<Constraint>,
}

/// Gives out OIDs.
#[derive(Default)]
struct Oids(BTreeSet<u32>);

impl Oids {
    fn of(&mut self, kind: &str, name: &str) -> u32 {
        let hash = blake3::hash(format!("{kind}\0{name}").as_bytes());
        let bytes = hash.as_bytes();
        let mut oid = FIRST + (u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) >> 2);
        while !self.0.insert(oid) {
            oid += 1;
        }
        oid
    }
}

/// The name of a primary key and its index.
pub(super) fn primary_key(def: &TableDef) -> String {
    format!("{}_pkey", def.name)
}

/// The name of an identity column's sequence.
pub(super) fn sequence_name(def: &TableDef, column: &ColumnDef) -> String {
    format!("{}_{}_seq", def.name, column.name)
}

/// The number of a column that is shown, from 1, by its name in the sealed schema; 0 for one that is not.
pub(super) fn number(def: &TableDef, physical: &str) -> i32 {
    let at = def.visible().position(|c| c.physical == physical);
    at.and_then(|at| i32::try_from(at + 1).ok()).unwrap_or(0)
}

/// The number of a column that is shown, from 1, by its name.
pub(super) fn column_number(def: &TableDef, name: &str) -> Option<i32> {
    def.visible().position(|c| c.name == name).and_then(|at| i32::try_from(at + 1).ok())
}

/// The OID of a relation by its name; 0 where there is none.
pub(super) fn oid_of(objects: &Objects, name: &str) -> u32 {
    objects.oid(name)
}

/// The name of a column that is shown, by its name in the sealed schema.
pub(super) fn column_name(def: &TableDef, physical: &str) -> String {
    def.visible().find(|c| c.physical == physical).map_or_else(|| physical.to_owned(), |c| c.name.clone())
}

/// The type on the wire of a field, and its modifier.
pub(super) fn type_of(field: &Field) -> (Type, i32) {
    (pg_type::type_of(field).unwrap_or(Type::TEXT), pg_type::type_modifier(field))
}

impl Objects {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let mut oids = Oids::default();
        let (mut relations, mut constraints) = (Vec::new(), Vec::new());
        let mut add = |oids: &mut Oids, kind: &str, name: String, what: What| {
            relations.push(Object { oid: oids.of(kind, &name), name, what });
        };
        for def in catalog.tables.values() {
            add(&mut oids, "table", def.name.clone(), What::Table(Arc::clone(def)));
            if def.primary {
                let name = primary_key(def);
                add(&mut oids, "index", name.clone(), What::Index(Arc::clone(def), None));
                constraints.push(Constraint {
                    oid: oids.of("constraint", &name),
                    table: Arc::clone(def),
                    kind: "p",
                    columns: def.key.iter().map(|c| number(def, c)).collect(),
                    index: Some(name.clone()),
                    check: None,
                    name,
                });
            }
            for index in &def.indexes {
                add(&mut oids, "index", index.name.clone(), What::Index(Arc::clone(def), Some(index.clone())));
                if index.unique {
                    constraints.push(Constraint {
                        oid: oids.of("constraint", &index.name),
                        name: index.name.clone(),
                        table: Arc::clone(def),
                        kind: "u",
                        columns: index.columns.iter().map(|c| number(def, c)).collect(),
                        index: Some(index.name.clone()),
                        check: None,
                    });
                }
            }
            for check in &def.checks {
                constraints.push(Constraint {
                    oid: oids.of("constraint", &format!("{}.{}", def.name, check.name)),
                    name: check.name.clone(),
                    table: Arc::clone(def),
                    kind: "c",
                    columns: Vec::new(),
                    index: None,
                    check: Some(check.expr.clone()),
                });
            }
            for column in def.visible().filter(|c| c.identity) {
                let what = What::Sequence(Arc::clone(def), column.clone());
                add(&mut oids, "sequence", sequence_name(def, column), what);
            }
        }
        for (name, query) in &catalog.views {
            add(&mut oids, "view", name.clone(), What::View(query.clone()));
        }
        Self { relations, constraints }
    }

    /// The OID of a relation by its name; 0 where there is none.
    pub(super) fn oid(&self, name: &str) -> u32 {
        self.relations.iter().find(|o| o.name == name).map_or(0, |o| o.oid)
    }
}

/// A schema that describes: ours before those of the library.
pub(super) struct System {
    pub(super) shared: Arc<super::context::Shared>,
    /// `public`, for the columns of views.
    pub(super) public: Arc<dyn SchemaProvider>,
    /// The rest; none for `information_schema`.
    pub(super) rest: Option<Arc<dyn SchemaProvider>>,
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("System")
    }
}

/// The columns of every relation that has some, by name. A view whose query is no longer valid has none.
type Columns = BTreeMap<String, SchemaRef>;

impl System {
    async fn columns(&self, catalog: &Catalog) -> Columns {
        let mut columns = Columns::new();
        for def in catalog.tables.values() {
            let fields: Vec<Field> = def.visible().map(field_of).collect();
            columns.insert(def.name.clone(), Arc::new(datafusion::arrow::datatypes::Schema::new(fields)));
        }
        for name in catalog.views.keys() {
            if let Ok(Some(view)) = self.public.table(name).await {
                columns.insert(name.clone(), view.schema());
            }
        }
        columns
    }
}

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        match &self.rest {
            None => information::NAMES.iter().map(|n| (*n).to_owned()).collect(),
            Some(rest) => {
                let mut names = rest.table_names();
                names.extend(pg::NAMES.iter().filter(|n| !rest.table_exist(n)).map(|n| (*n).to_owned()));
                names
            }
        }
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let catalog = self.shared.get().catalog;
        let name = name.to_ascii_lowercase();
        let own = match &self.rest {
            None => information::NAMES.contains(&name.as_str()),
            Some(_) => pg::NAMES.contains(&name.as_str()),
        };
        if own {
            let columns = self.columns(&catalog).await;
            let objects = self.shared.objects(&catalog);
            return match self.rest {
                None => information::table(&name, &objects, &columns, &self.shared.database).map(Some),
                Some(_) => pg::table(&name, &objects, &columns, &self.shared).map(Some),
            };
        }
        match &self.rest {
            Some(rest) => rest.table(&name).await,
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        match &self.rest {
            None => information::NAMES.contains(&name),
            Some(rest) => pg::NAMES.contains(&name) || rest.table_exist(name),
        }
    }
}
