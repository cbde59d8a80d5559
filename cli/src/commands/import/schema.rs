//! The schema that a file and flags make, and whether a table that is there takes the file.

use crate::args::Import;
use crate::error::{Context, Failure, Help, Result};
use crate::output::Out;
use fluence_client::files::Found;
use fluence_client::{Column, ColumnType, SumExpr, TableSchema};

/// The types that flags name, by column.
pub(super) fn types(args: &Import) -> Result<Vec<(String, ColumnType)>> {
    let parse = |text: String| {
        let (name, ty) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--types {text:?} is not COL=TYPE")).help("as price=decimal(12,4)")
        })?;
        let ty: ColumnType = ty
            .trim()
            .parse()
            .usage(format!("--types {text:?}"))
            .or_help("types: int64, float64, decimal(P,S), text, bool, timestamp, date, bytes")?;
        Ok((name.trim().to_owned(), ty))
    };
    split_types(&args.types).into_iter().map(parse).collect()
}

/// `price=decimal(12,4),day=date` has a comma that does not separate.
fn split_types(types: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in types.iter().flat_map(|t| t.split(',')) {
        match parts.last_mut() {
            Some(last) if last.contains('(') && !last.contains(')') => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

/// The columns with those of `--public` as open data.
pub(super) fn opened(mut columns: Vec<Column>, public: &[String]) -> Result<Vec<Column>> {
    for name in public.iter().map(|p| p.trim()) {
        let column = columns.iter_mut().find(|c| c.name == name).ok_or_else(|| {
            Failure::usage(format!("--public {name:?} is no column of the file")).help("`--dry-run` lists them")
        })?;
        column.public = true;
    }
    Ok(columns)
}

/// A checked schema.
pub(crate) fn make_schema(table: &str, columns: Vec<Column>, key: &[String], sums: &[String]) -> Result<TableSchema> {
    let key: Vec<&str> = key.iter().map(|k| k.trim()).collect();
    let sums: Vec<SumExpr> = sums
        .iter()
        .map(|s| {
            s.parse().usage(format!("--sum {s:?}")).or_help("a column, or a product of two as arr_delay*arr_delay")
        })
        .collect::<Result<_>>()?;
    TableSchema::new(table, columns, &key, sums)
        .usage(format!("table {table:?} cannot be made so"))
        .or_help("--key and --sum name columns of the file; sums need int64, decimal or bool columns (see --types), --public the key")
}

/// Whether a table that is there can take the file's rows as `types` and `--key` would have them.
pub(super) fn check_fits(
    table: &TableSchema,
    found: &Found,
    args: &Import,
    types: &[(String, ColumnType)],
) -> Result<()> {
    let names = |columns: &[Column]| {
        let mut names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        names.sort_unstable();
        names
    };
    let key: Vec<&str> = args.key.iter().map(|k| k.trim()).collect();
    // As `--key`, what is left away is as it is.
    let mut public: Vec<&str> = args.public.iter().map(|p| p.trim()).collect();
    let mut open: Vec<&str> = table.columns().iter().filter(|c| c.public).map(|c| c.name.as_str()).collect();
    public.sort_unstable();
    open.sort_unstable();
    if !public.is_empty() && public != open {
        let is = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
        return Err(Failure::usage(format!(
            "table {:?} is there, and --public is not what is public in it",
            table.name()
        ))
        .because(format!("public there: {is}"))
        .help("a column is public from the start or never: import into another table"));
    }
    let other_type = types.iter().any(|(name, ty)| table.columns().iter().any(|c| c.name == *name && c.ty != *ty));
    if names(table.columns()) == names(&found.columns) && (key.is_empty() || table.key() == key) && !other_type {
        return Ok(());
    }
    Err(Failure::usage(format!("table {:?} is there, with other columns or another key", table.name()))
        .because(format!("it has {}, key ({})", described(table.columns()), table.key().join(", ")))
        .because(format!("the file has {}", described(&found.columns)))
        .help("import into another table; without --key and --types a table that is there decides them. `fluence sql -c 'DROP TABLE ..'` removes one"))
}

fn described(columns: &[Column]) -> String {
    columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect::<Vec<_>>().join(", ")
}

/// Prints what the columns will be.
pub(super) fn show(schema: &TableSchema, out: &Out) {
    let rows = schema.columns().iter().map(|c| {
        let key = schema.key().iter().position(|k| *k == c.name).map(|i| format!("key {}", i + 1)).unwrap_or_default();
        let public = if c.public { "public" } else { "" };
        let null = if c.nullable { "" } else { "not null" };
        vec![c.name.clone(), c.ty.to_string(), null.to_owned(), key, public.to_owned()]
    });
    out.note_table(&["column", "type", "", "", ""], rows);
    if !schema.sums().is_empty() {
        let sums: Vec<String> = schema.sums().iter().map(ToString::to_string).collect();
        out.note(format!("running sums of {}", sums.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_inside_a_decimal_does_not_separate_types() {
        let types = ["a=decimal(12,4),b=date".to_owned(), "c=text".to_owned()];
        assert_eq!(split_types(&types), ["a=decimal(12,4)", "b=date", "c=text"]);
    }

    #[test]
    fn sums_of_text_and_unknown_keys_are_usage_errors() {
        let columns = || vec![Column::new("a", ColumnType::Int64), Column::new("t", ColumnType::Text)];
        let text = |s: &str| vec![s.to_owned()];
        assert!(make_schema("x", columns(), &text("a"), &text("a*a")).is_ok());
        assert!(make_schema("x", columns(), &text("nope"), &[]).is_err());
        assert!(make_schema("x", columns(), &text("a"), &text("t")).is_err());
        // Public columns are the file's, and the key is one of them.
        assert!(opened(columns(), &text("nope")).is_err());
        let public = |name: &str| make_schema("x", opened(columns(), &text(name)).unwrap(), &text("a"), &[]);
        assert!(public("a").unwrap().is_open());
        assert!(public("t").is_err());
    }
}
