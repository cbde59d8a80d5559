//! `pg_catalog`: the tables that speak of the owner's relations.

use super::rows::{Cell, Kind, row, table as of_rows};
use super::{
    Columns, FIRST, INFORMATION, Object, Objects, Oids, PG_CATALOG, PUBLIC, What, functions, information, number,
    type_of,
};
use crate::sql::catalog::TableDef;
use crate::sql::context::Shared;
use crate::sql::settings::Settings;
use datafusion::common::Result;
use datafusion::datasource::TableProvider;
use datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;
use std::sync::Arc;

/// What is here.
pub(super) const NAMES: &[&str] = &[
    "pg_attrdef",
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_constraint",
    "pg_database",
    "pg_index",
    "pg_indexes",
    "pg_namespace",
    "pg_parameter_acl",
    "pg_roles",
    "pg_sequence",
    "pg_sequences",
    "pg_settings",
    "pg_tables",
    "pg_user",
    "pg_user_mappings",
    "pg_views",
];

/// A table by name.
pub(super) fn table(
    name: &str,
    objects: &Objects,
    columns: &Columns,
    shared: &Shared,
) -> Result<Arc<dyn TableProvider>> {
    match name {
        "pg_attrdef" => attrdef(objects),
        "pg_attribute" => attribute(objects, columns),
        "pg_authid" | "pg_roles" | "pg_user" => roles(name),
        "pg_class" => class(objects, columns),
        "pg_constraint" => constraint(objects),
        "pg_database" => database(&shared.database),
        "pg_index" => index(objects),
        "pg_indexes" => indexes(objects),
        "pg_namespace" => namespace(),
        "pg_parameter_acl" => of_rows(&[("oid", Kind::Oid), ("parname", Kind::Text), ("paracl", Kind::Names)], &[]),
        "pg_sequence" => sequence(objects),
        "pg_sequences" => sequences(objects),
        "pg_settings" => settings(&shared.settings()),
        "pg_tables" => tables(objects),
        "pg_user_mappings" => of_rows(
            &[
                ("umid", Kind::Oid),
                ("srvid", Kind::Oid),
                ("srvname", Kind::Text),
                ("umuser", Kind::Oid),
                ("usename", Kind::Text),
            ],
            &[],
        ),
        _ => views(objects),
    }
}

/// Who owns everything.
pub(super) const OWNER: i32 = 10;
/// The same by name.
pub(super) const OWNER_NAME: &str = "fluence";
/// btree, and the heap.
const BTREE: i32 = 403;
const HEAP: i32 = 2;

/// The OIDs that PostgreSQL gives its own tables, where tools know them by heart; for the others, numbers by their place.
fn own_oid(name: &str, place: usize) -> u32 {
    match name {
        "pg_type" => 1247,
        "pg_attribute" => 1249,
        "pg_proc" => 1255,
        "pg_class" => 1259,
        "pg_authid" => 1260,
        "pg_database" => 1262,
        "pg_attrdef" => 2604,
        "pg_constraint" => 2606,
        "pg_description" => 2609,
        "pg_index" => 2610,
        "pg_namespace" => 2615,
        _ => INFORMATION + 1 + place as u32,
    }
}

/// Whether an OID is that of a view of the standard: those have the first below those of the owner's relations.
pub(super) fn is_information(oid: i64) -> bool {
    (i64::from(FIRST) - information::NAMES.len() as i64..i64::from(FIRST)).contains(&oid)
}

/// The OID of a view of the standard, by its place.
fn view_oid(place: usize) -> u32 {
    FIRST - 1 - place as u32
}

/// Whether one of PostgreSQL's own tables has that name.
pub(super) fn is_own(name: &str) -> bool {
    PG_CATALOG_TABLES.contains(&name) || NAMES.contains(&name)
}

/// The OID of a table that describes, by its schema and name.
pub(super) fn oid_of(space: &str, name: &str) -> Option<u32> {
    match space {
        "pg_catalog" => own_names().iter().position(|n| *n == name).map(|place| own_oid(name, place)),
        "information_schema" => information::NAMES.iter().position(|n| *n == name).map(view_oid),
        _ => None,
    }
}

/// The name of such a table by its OID, with the schema where it is not in the search path.
pub(super) fn name_of(oid: u32) -> Option<String> {
    let view = || information::NAMES.iter().enumerate().find(|(place, _)| view_oid(*place) == oid);
    let own = own_names().into_iter().enumerate().find(|(place, name)| own_oid(name, *place) == oid);
    own.map(|(_, name)| name.to_owned()).or_else(|| view().map(|(_, name)| format!("information_schema.{name}")))
}

/// The names of PostgreSQL's own tables.
fn own_names() -> std::collections::BTreeSet<&'static str> {
    PG_CATALOG_TABLES.iter().chain(NAMES).copied().collect()
}

fn class(objects: &Objects, columns: &Columns) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("oid", Kind::Oid),
        ("relname", Kind::Text),
        ("relnamespace", Kind::Oid),
        ("reltype", Kind::Oid),
        ("reloftype", Kind::Oid),
        ("relowner", Kind::Int4),
        ("relam", Kind::Int4),
        ("relfilenode", Kind::Int4),
        ("reltablespace", Kind::Int4),
        ("relpages", Kind::Int4),
        ("reltuples", Kind::Float),
        ("relallvisible", Kind::Int4),
        ("reltoastrelid", Kind::Oid),
        ("relhasindex", Kind::Bool),
        ("relisshared", Kind::Bool),
        ("relpersistence", Kind::Text),
        ("relkind", Kind::Text),
        ("relnatts", Kind::Int2),
        ("relchecks", Kind::Int2),
        ("relhasrules", Kind::Bool),
        ("relhastriggers", Kind::Bool),
        ("relhassubclass", Kind::Bool),
        ("relrowsecurity", Kind::Bool),
        ("relforcerowsecurity", Kind::Bool),
        ("relispopulated", Kind::Bool),
        ("relreplident", Kind::Text),
        ("relispartition", Kind::Bool),
        ("relrewrite", Kind::Oid),
        ("relfrozenxid", Kind::Int4),
        ("relminmxid", Kind::Int4),
        ("relacl", Kind::Names),
        ("reloptions", Kind::Names),
        ("relpartbound", Kind::Text),
    ];
    let class = |oid: u32, name: &str, space: u32, am: i32, natts: usize, indexed: bool, kind: &str, checks: usize| {
        row![
            oid,
            name,
            space,
            0,
            0,
            OWNER,
            am,
            oid,
            0,
            0,
            -1.0,
            0,
            0,
            indexed,
            false,
            "p",
            kind,
            natts,
            checks,
            false,
            false,
            false,
            false,
            false,
            true,
            if kind == "r" { "d" } else { "n" },
            false,
            0,
            0,
            0,
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ]
    };
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for Object { oid, name, what } in &objects.relations {
        let natts = columns.get(name).map_or(0, |c| c.fields().len());
        rows.push(match what {
            What::Table(def) => {
                let indexed = def.primary || !def.indexes.is_empty();
                class(*oid, name, PUBLIC, HEAP, natts, indexed, "r", def.checks.len())
            }
            What::View(_) => class(*oid, name, PUBLIC, 0, natts, false, "v", 0),
            What::Index(def, index) => {
                let natts = index.as_ref().map_or(def.key.len(), |i| i.columns.len());
                class(*oid, name, PUBLIC, BTREE, natts, false, "i", 0)
            }
            What::Sequence(..) => class(*oid, name, PUBLIC, 0, 3, false, "S", 0),
        });
    }
    for (place, name) in own_names().into_iter().enumerate() {
        rows.push(class(own_oid(name, place), name, PG_CATALOG, HEAP, 0, false, "r", 0));
    }
    for (place, name) in information::NAMES.iter().enumerate() {
        rows.push(class(view_oid(place), name, INFORMATION, 0, 0, false, "v", 0));
    }
    of_rows(&shape, &rows)
}

fn attribute(objects: &Objects, columns: &Columns) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("attrelid", Kind::Oid),
        ("attname", Kind::Text),
        ("atttypid", Kind::Oid),
        ("attstattarget", Kind::Int4),
        ("attlen", Kind::Int2),
        ("attnum", Kind::Int2),
        ("attndims", Kind::Int4),
        ("attcacheoff", Kind::Int4),
        ("atttypmod", Kind::Int4),
        ("attbyval", Kind::Bool),
        ("attalign", Kind::Text),
        ("attstorage", Kind::Text),
        ("attcompression", Kind::Text),
        ("attnotnull", Kind::Bool),
        ("atthasdef", Kind::Bool),
        ("atthasmissing", Kind::Bool),
        ("attidentity", Kind::Text),
        ("attgenerated", Kind::Text),
        ("attisdropped", Kind::Bool),
        ("attislocal", Kind::Bool),
        ("attinhcount", Kind::Int4),
        ("attcollation", Kind::Int4),
        ("attacl", Kind::Names),
        ("attoptions", Kind::Names),
        ("attfdwoptions", Kind::Names),
        ("attmissingval", Kind::Text),
    ];
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for Object { oid, name, what } in &objects.relations {
        let (of, numbers): (&str, Option<Vec<i32>>) = match what {
            What::Index(def, index) => {
                let keys = index.as_ref().map_or(&def.key, |i| &i.columns);
                (&def.name, Some(keys.iter().map(|k| number(def, k)).collect()))
            }
            _ => (name, None),
        };
        let Some(schema) = columns.get(of) else { continue };
        let def = match what {
            What::Table(def) => Some(def),
            _ => None,
        };
        let places: Vec<usize> = match numbers {
            Some(numbers) => numbers.iter().filter_map(|n| usize::try_from(n - 1).ok()).collect(),
            None => (0..schema.fields().len()).collect(),
        };
        for (at, place) in places.into_iter().enumerate() {
            let field = schema.field(place);
            let (ty, modifier) = type_of(field);
            let length = crate::pg_type::type_size(&ty);
            let column = def.and_then(|d| d.visible().find(|c| c.name == *field.name()));
            let identity = column.is_some_and(|c| c.identity);
            let text = matches!(ty.name(), "text" | "varchar" | "bpchar");
            rows.push(row![
                *oid,
                field.name().as_str(),
                ty.oid(),
                -1,
                i32::from(length),
                at + 1,
                0,
                -1,
                modifier,
                length > 0 && length <= 8,
                "i",
                if length > 0 { "p" } else { "x" },
                "",
                def.is_some() && !field.is_nullable(),
                column.is_some_and(|c| c.default.is_some()),
                false,
                if identity { "d" } else { "" },
                "",
                false,
                true,
                0,
                if text { 100 } else { 0 },
            ]);
        }
    }
    of_rows(&shape, &rows)
}

fn attrdef(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [("oid", Kind::Oid), ("adrelid", Kind::Oid), ("adnum", Kind::Int2), ("adbin", Kind::Text)];
    let mut oids = Oids::default();
    let mut rows = Vec::new();
    for Object { oid, what, .. } in &objects.relations {
        let What::Table(def) = what else { continue };
        for column in def.visible() {
            if let Some(default) = &column.default {
                let own = oids.of("default", &format!("{}.{}", def.name, column.name));
                rows.push(row![own, *oid, number(def, &column.physical), default.as_str()]);
            }
        }
    }
    of_rows(&shape, &rows)
}

fn index(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("indexrelid", Kind::Oid),
        ("indrelid", Kind::Oid),
        ("indnatts", Kind::Int2),
        ("indnkeyatts", Kind::Int2),
        ("indisunique", Kind::Bool),
        ("indnullsnotdistinct", Kind::Bool),
        ("indisprimary", Kind::Bool),
        ("indisexclusion", Kind::Bool),
        ("indimmediate", Kind::Bool),
        ("indisclustered", Kind::Bool),
        ("indisvalid", Kind::Bool),
        ("indcheckxmin", Kind::Bool),
        ("indisready", Kind::Bool),
        ("indislive", Kind::Bool),
        ("indisreplident", Kind::Bool),
        ("indkey", Kind::Vector),
        ("indcollation", Kind::OidVector),
        ("indclass", Kind::OidVector),
        ("indoption", Kind::Vector),
        ("indexprs", Kind::Text),
        ("indpred", Kind::Text),
    ];
    let mut rows = Vec::new();
    for Object { oid, what, .. } in &objects.relations {
        let What::Index(def, index) = what else { continue };
        let (keys, unique) = index.as_ref().map_or((&def.key, true), |i| (&i.columns, i.unique));
        let numbers: Vec<i32> = keys.iter().map(|k| number(def, k)).collect();
        let width = numbers.len();
        let zeros = vec![0; width];
        rows.push(row![
            *oid,
            objects.oid(&def.name),
            width,
            width,
            unique,
            false,
            index.is_none(),
            false,
            true,
            false,
            true,
            false,
            true,
            true,
            false,
            numbers,
            zeros.clone(),
            zeros.clone(),
            zeros,
            Cell::Null,
            Cell::Null,
        ]);
    }
    of_rows(&shape, &rows)
}

fn constraint(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("oid", Kind::Oid),
        ("conname", Kind::Text),
        ("connamespace", Kind::Oid),
        ("contype", Kind::Text),
        ("condeferrable", Kind::Bool),
        ("condeferred", Kind::Bool),
        ("convalidated", Kind::Bool),
        ("conrelid", Kind::Oid),
        ("contypid", Kind::Oid),
        ("conindid", Kind::Oid),
        ("conparentid", Kind::Oid),
        ("confrelid", Kind::Oid),
        ("confupdtype", Kind::Text),
        ("confdeltype", Kind::Text),
        ("confmatchtype", Kind::Text),
        ("conislocal", Kind::Bool),
        ("coninhcount", Kind::Int4),
        ("connoinherit", Kind::Bool),
        ("conkey", Kind::Numbers),
        ("confkey", Kind::Numbers),
        ("conbin", Kind::Text),
    ];
    let rows: Vec<Vec<Cell>> = objects
        .constraints
        .iter()
        .map(|c| {
            row![
                c.oid,
                c.name.as_str(),
                PUBLIC,
                c.kind,
                false,
                false,
                true,
                objects.oid(&c.table.name),
                0,
                c.index.as_deref().map_or(0, |i| objects.oid(i)),
                0,
                0,
                " ",
                " ",
                " ",
                true,
                0,
                true,
                c.columns.clone(),
                Cell::Null,
                c.check.clone(),
            ]
        })
        .collect();
    of_rows(&shape, &rows)
}

fn namespace() -> Result<Arc<dyn TableProvider>> {
    let shape = [("oid", Kind::Oid), ("nspname", Kind::Text), ("nspowner", Kind::Int4), ("nspacl", Kind::Names)];
    let spaces = [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public"), (INFORMATION, "information_schema")];
    let rows: Vec<Vec<Cell>> = spaces.into_iter().map(|(oid, name)| row![oid, name, OWNER, Cell::Null]).collect();
    of_rows(&shape, &rows)
}

/// Who is there: the owner. The columns of `pg_authid`, `pg_roles` and `pg_user` begin with their first letters.
fn roles(name: &str) -> Result<Arc<dyn TableProvider>> {
    if name == "pg_user" {
        let shape = [
            ("usename", Kind::Text),
            ("usesysid", Kind::Oid),
            ("usecreatedb", Kind::Bool),
            ("usesuper", Kind::Bool),
            ("userepl", Kind::Bool),
            ("usebypassrls", Kind::Bool),
            ("passwd", Kind::Text),
            ("valuntil", Kind::Text),
            ("useconfig", Kind::Names),
        ];
        return of_rows(&shape, &[row![OWNER_NAME, OWNER, true, true, false, true, "********"]]);
    }
    let shape = [
        ("oid", Kind::Oid),
        ("rolname", Kind::Text),
        ("rolsuper", Kind::Bool),
        ("rolinherit", Kind::Bool),
        ("rolcreaterole", Kind::Bool),
        ("rolcreatedb", Kind::Bool),
        ("rolcanlogin", Kind::Bool),
        ("rolreplication", Kind::Bool),
        ("rolbypassrls", Kind::Bool),
        ("rolconnlimit", Kind::Int4),
        ("rolpassword", Kind::Text),
        ("rolvaliduntil", Kind::Text),
        ("rolconfig", Kind::Names),
    ];
    of_rows(&shape, &[row![OWNER, OWNER_NAME, true, true, true, true, true, false, true, -1, "********"]])
}

fn database(name: &str) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("oid", Kind::Oid),
        ("datname", Kind::Text),
        ("datdba", Kind::Oid),
        ("encoding", Kind::Int4),
        ("datlocprovider", Kind::Text),
        ("datistemplate", Kind::Bool),
        ("datallowconn", Kind::Bool),
        ("datconnlimit", Kind::Int4),
        ("datfrozenxid", Kind::Int4),
        ("datminmxid", Kind::Int4),
        ("dattablespace", Kind::Oid),
        ("datcollate", Kind::Text),
        ("datctype", Kind::Text),
        ("daticulocale", Kind::Text),
        ("datcollversion", Kind::Text),
        ("datacl", Kind::Names),
    ];
    let oid = Oids::default().of("database", name);
    let row = row![oid, name, OWNER, 6, "c", false, true, -1, 1, 1, 1663, "C.UTF-8", "C.UTF-8"];
    of_rows(&shape, &[row])
}

fn settings(settings: &Settings) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("name", Kind::Text),
        ("setting", Kind::Text),
        ("unit", Kind::Text),
        ("category", Kind::Text),
        ("short_desc", Kind::Text),
        ("extra_desc", Kind::Text),
        ("context", Kind::Text),
        ("vartype", Kind::Text),
        ("source", Kind::Text),
        ("min_val", Kind::Text),
        ("max_val", Kind::Text),
        ("enumvals", Kind::Names),
        ("boot_val", Kind::Text),
        ("reset_val", Kind::Text),
        ("sourcefile", Kind::Text),
        ("sourceline", Kind::Int4),
        ("pending_restart", Kind::Bool),
    ];
    let null = Cell::Null;
    let of = |(name, value, begins, chosen): (String, String, String, bool)| {
        let context = if chosen { "user" } else { "internal" };
        let source = if value == begins { "default" } else { "session" };
        let unit = (name == "statement_timeout").then_some("ms");
        row![
            name,
            value,
            unit,
            "Customized Options",
            "",
            null.clone(),
            context,
            "string",
            source,
            null.clone(),
            null.clone(),
            null.clone(),
            begins.clone(),
            begins,
            null.clone(),
            null.clone(),
            false
        ]
    };
    of_rows(&shape, &settings.all().into_iter().map(of).collect::<Vec<_>>())
}

fn sequence(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("seqrelid", Kind::Oid),
        ("seqtypid", Kind::Oid),
        ("seqstart", Kind::Int8),
        ("seqincrement", Kind::Int8),
        ("seqmax", Kind::Int8),
        ("seqmin", Kind::Int8),
        ("seqcache", Kind::Int8),
        ("seqcycle", Kind::Bool),
    ];
    let of = |o: &Object| match &o.what {
        What::Sequence(..) => Some(row![o.oid, 20, 1, 1, i64::MAX, 1, 1024, false]),
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}

fn sequences(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [("schemaname", Kind::Text), ("sequencename", Kind::Text), ("sequenceowner", Kind::Text)];
    let of = |o: &Object| match &o.what {
        What::Sequence(..) => Some(row!["public", o.name.as_str(), OWNER_NAME]),
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}

fn tables(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("schemaname", Kind::Text),
        ("tablename", Kind::Text),
        ("tableowner", Kind::Text),
        ("tablespace", Kind::Text),
        ("hasindexes", Kind::Bool),
        ("hasrules", Kind::Bool),
        ("hastriggers", Kind::Bool),
        ("rowsecurity", Kind::Bool),
    ];
    let indexed = |def: &TableDef| def.primary || !def.indexes.is_empty();
    let of = |o: &Object| match &o.what {
        What::Table(def) => {
            Some(row!["public", o.name.as_str(), OWNER_NAME, Cell::Null, indexed(def), false, false, false])
        }
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}

fn views(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape =
        [("schemaname", Kind::Text), ("viewname", Kind::Text), ("viewowner", Kind::Text), ("definition", Kind::Text)];
    let of = |o: &Object| match &o.what {
        What::View(query) => Some(row!["public", o.name.as_str(), OWNER_NAME, format!("{query};")]),
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}

fn indexes(objects: &Objects) -> Result<Arc<dyn TableProvider>> {
    let shape = [
        ("schemaname", Kind::Text),
        ("tablename", Kind::Text),
        ("indexname", Kind::Text),
        ("tablespace", Kind::Text),
        ("indexdef", Kind::Text),
    ];
    let of = |o: &Object| match &o.what {
        What::Index(def, index) => {
            let text = functions::index_text(&o.name, def, index.as_ref());
            Some(row!["public", def.name.as_str(), o.name.as_str(), Cell::Null, text])
        }
        _ => None,
    };
    of_rows(&shape, &objects.relations.iter().filter_map(of).collect::<Vec<_>>())
}
