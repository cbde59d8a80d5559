//! Names of objects and their OIDs, each from the other: `'books'::regclass`, `atttypid::regtype::text`, `to_regclass('books')`.
//!
//! ```text
//! x::regclass          fluence_oid_of('regclass', x)      by name or number; a name that nothing has is an error
//! x::regclass::text    fluence_name_of('regclass', x)     in quotes, and with its schema, where SQL would need them; a number that nothing has stays
//! to_regclass(x)       fluence_oid_if('regclass', x)      NULL instead of an error
//! ```
//! Kinds   regclass, regtype, regnamespace, regrole. Functions and operators stand in these tables by name already.
//! Source  PostgreSQL 15, "Object Identifier Types"

use super::functions::written;
use super::{INFORMATION, Objects, PG_CATALOG, PUBLIC, pg};
use crate::error::{SqlError, SqlState};
use crate::sql::context::Shared;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{Array, Int32Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;
use pgwire::api::Type;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

/// Built-in types by the names that PostgreSQL's tables have for them.
static TYPES: LazyLock<BTreeMap<String, Type>> =
    LazyLock::new(|| (16..=6157).filter_map(Type::from_oid).map(|ty| (ty.name().to_owned(), ty)).collect());

/// What the standard calls types that have another name in PostgreSQL's tables.
const STANDARD: &[(&str, &str)] = &[
    ("bool", "boolean"),
    ("bpchar", "character"),
    ("float4", "real"),
    ("float8", "double precision"),
    ("int2", "smallint"),
    ("int4", "integer"),
    ("int8", "bigint"),
    ("time", "time without time zone"),
    ("timestamp", "timestamp without time zone"),
    ("timestamptz", "timestamp with time zone"),
    ("timetz", "time with time zone"),
    ("varbit", "bit varying"),
    ("varchar", "character varying"),
];
/// More that a type may be called.
const ALSO: &[(&str, &str)] = &[("int4", "int"), ("bpchar", "char"), ("numeric", "decimal"), ("float8", "float")];

/// What a number or a name may stand for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Class,
    Type,
    Namespace,
    Role,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "regclass" => Self::Class,
            "regtype" => Self::Type,
            "regnamespace" => Self::Namespace,
            "regrole" => Self::Role,
            _ => return None,
        })
    }

    fn unknown(self, name: &str) -> SqlError {
        let (state, what) = match self {
            Self::Class => (SqlState::UndefinedTable, "relation"),
            Self::Type => (SqlState::UndefinedObject, "type"),
            Self::Namespace => (SqlState::UndefinedObject, "schema"),
            Self::Role => (SqlState::UndefinedObject, "role"),
        };
        SqlError::new(state, format!("{what} \"{name}\" does not exist"))
    }
}

/// Whether a cast to a type of that name is one of these.
pub(super) fn is_kind(name: &str) -> bool {
    Kind::of(name).is_some()
}

/// A name as it is written, in its parts: folded to lower case unless in quotes.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = name.trim().chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.last_mut().expect("never empty");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => last.push(c),
            c => last.extend(c.to_lowercase()),
        }
    }
    parts
}

fn type_oid(name: &str) -> Option<u32> {
    let (name, array) = match name.strip_suffix("[]") {
        Some(item) => (item.trim_end(), true),
        None => (name, false),
    };
    let known = STANDARD.iter().chain(ALSO).find(|(_, standard)| *standard == name);
    let name = known.map_or(name, |(name, _)| *name);
    TYPES.get(&if array { format!("_{name}") } else { name.to_owned() }).map(Type::oid)
}

/// A built-in type's name as SQL has it.
pub(super) fn type_name(oid: u32) -> Option<String> {
    let ty = Type::from_oid(oid)?;
    let standard = |name: &str| {
        STANDARD
            .iter()
            .find(|(own, _)| *own == name)
            .map_or_else(|| written(name), |(_, standard)| (*standard).to_owned())
    };
    Some(match ty.kind() {
        postgres_types::Kind::Array(item) => format!("{}[]", standard(item.name())),
        _ if ty == Type::CHAR => "\"char\"".to_owned(),
        _ => standard(ty.name()),
    })
}

const SPACES: [(u32, &str); 3] = [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public"), (INFORMATION, "information_schema")];

/// An object's OID by its name, or by its number in digits; `None` where nothing has the name.
fn oid_of(kind: Kind, objects: &Objects, name: &str) -> Option<u32> {
    if name == "-" {
        return Some(0);
    }
    if let Ok(oid) = name.parse::<u32>() {
        return Some(oid);
    }
    let parts = parts(name);
    let (space, last) = match parts.as_slice() {
        [last] => (None, last.as_str()),
        [space, last] => (Some(space.as_str()), last.as_str()),
        _ => return None,
    };
    match kind {
        Kind::Class => {
            let own = || objects.relations.iter().find(|o| o.name == last).map(|o| o.oid);
            match space {
                Some("public") => own(),
                Some(space) => pg::oid_of(space, last),
                None => own().or_else(|| pg::oid_of("pg_catalog", last)),
            }
        }
        Kind::Type if space.is_none_or(|s| s == "pg_catalog") => type_oid(last),
        Kind::Namespace => SPACES.iter().find(|(_, n)| *n == last).map(|(oid, _)| *oid),
        Kind::Role => (last == pg::OWNER_NAME).then_some(pg::OWNER as u32),
        Kind::Type => None,
    }
}

/// An object's name by its number; the number where nothing has it.
fn name_of(kind: Kind, objects: &Objects, oid: u32) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    let found = match kind {
        Kind::Class => match objects.relations.iter().find(|o| o.oid == oid) {
            Some(own) => Some(written(&own.name)),
            None => pg::name_of(oid),
        },
        Kind::Type => type_name(oid),
        Kind::Namespace => SPACES.iter().find(|(o, _)| *o == oid).map(|(_, name)| (*name).to_owned()),
        Kind::Role => (oid == pg::OWNER as u32).then(|| pg::OWNER_NAME.to_owned()),
    };
    found.unwrap_or_else(|| oid.to_string())
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Way {
    /// The OID of a name.
    Oid,
    /// The same, NULL where there is none.
    OidIf,
    /// The name of an OID.
    Name,
}

struct Names {
    way: Way,
    shared: Arc<Shared>,
    signature: Signature,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.way.fmt(f)
    }
}
impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.way == other.way && Arc::ptr_eq(&self.shared, &other.shared)
    }
}
impl Eq for Names {}
impl Hash for Names {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.way.hash(state);
    }
}

impl ScalarUDFImpl for Names {
    fn name(&self) -> &str {
        match self.way {
            Way::Oid => "fluence_oid_of",
            Way::OidIf => "fluence_oid_if",
            Way::Name => "fluence_name_of",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.way == Way::Name { DataType::Utf8 } else { DataType::Int32 })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = arrays.iter().map(|a| cast(a, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
        let (kinds, names) = (texts[0].as_string::<i32>(), texts[1].as_string::<i32>());
        let objects = self.shared.objects(&self.shared.get().catalog);
        let oids = kinds.iter().zip(names).map(|(kind, name)| -> Result<Option<u32>, SqlError> {
            let (Some(kind), Some(name)) = (kind.and_then(Kind::of), name) else { return Ok(None) };
            match oid_of(kind, &objects, name) {
                None if self.way != Way::OidIf => Err(kind.unknown(name)),
                oid => Ok(oid),
            }
        });
        let oids = oids.collect::<Result<Vec<_>, _>>()?;
        Ok(ColumnarValue::Array(match self.way {
            Way::Name => {
                let kind = |row: usize| kinds.is_valid(row).then(|| Kind::of(kinds.value(row))).flatten();
                let name = |(row, oid): (usize, &Option<u32>)| Some(name_of(kind(row)?, &objects, (*oid)?));
                Arc::new(oids.iter().enumerate().map(name).collect::<StringArray>())
            }
            _ => Arc::new(oids.into_iter().map(|oid| oid.and_then(|o| i32::try_from(o).ok())).collect::<Int32Array>()),
        }))
    }
}

/// Has a session know them.
pub(in crate::sql) fn register(context: &SessionContext, shared: &Arc<Shared>) {
    for way in [Way::Oid, Way::OidIf, Way::Name] {
        let signature = Signature::any(2, Volatility::Stable);
        context.register_udf(ScalarUDF::new_from_impl(Names { way, shared: Arc::clone(shared), signature }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_as_sql_has_them() {
        assert_eq!(parts("Public.\"Odd.\"\"Name\""), ["public", "Odd.\"Name"]);
        for (name, oid, standard) in [
            ("int4", 23, "integer"),
            ("integer[]", 1007, "integer[]"),
            ("timestamp with time zone", 1184, "timestamp with time zone"),
            ("_text", 1009, "text[]"),
            ("text", 25, "text"),
        ] {
            assert_eq!((type_oid(name), type_name(oid).as_deref()), (Some(oid), Some(standard)), "{name}");
        }
        assert_eq!(type_oid("nosuchtype"), None);
    }
}
