//! What tools ask of the catalogue, in words that the planner knows.
//!
//! Which   statements that name a table or a function of `pg_catalog`, a view of the standard, or a type of names and OIDs; no others, because
//!         some of these rules change what a query means
//! Rules   those of datafusion-pg-catalog, without the one that has NULL for subqueries it does not know; ours say what `x::regclass` is
//!         (see `oids`)
//! Source  PostgreSQL 15, "Object Identifier Types"; datafusion-pg-catalog 0.19

use super::{oids, pg};
use crate::sql::ddl::parse_expr;
use crate::sql::fold;
use datafusion::sql::sqlparser::ast::{
    self, Expr, ObjectName, SelectItem, SetExpr, Statement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion_pg_catalog::sql::rules::{
    AliasDuplicatedProjectionRewrite, CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral,
    FixVersionColumnName, PrependUnqualifiedPgTableName, ResolveUnqualifiedIdentifier, RewriteArrayAnyAllOperation,
    RewritePgCatalogOperator, SqlStatementRewriteRule, StripCallableQualifier, StripCollate,
};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// What the library calls a column that stands in a SELECT list beside all columns of its table.
pub(in crate::sql) const TWIN: &str = "__alias_";

/// The statement, in words that the planner knows.
pub(in crate::sql) fn known(mut statement: Statement) -> Statement {
    if Visit::visit(&statement, &mut Asks).is_continue() {
        return statement;
    }
    let _ = VisitMut::visit(&mut statement, &mut Rooms);
    let rules: [&dyn SqlStatementRewriteRule; 10] = [
        &AliasDuplicatedProjectionRewrite,
        &ResolveUnqualifiedIdentifier,
        &RewriteArrayAnyAllOperation,
        &PrependUnqualifiedPgTableName,
        &StripCallableQualifier,
        &FixArrayLiteral,
        &CurrentUserVariableToSessionUserFunctionCall,
        &StripCollate,
        &RewritePgCatalogOperator,
        &FixVersionColumnName,
    ];
    let mut statement = rules.into_iter().fold(statement, |statement, rule| rule.rewrite(statement));
    if let Statement::Query(query) = &mut statement {
        shown(&mut query.body);
    }
    let _ = VisitMut::visit(&mut statement, &mut Regs);
    statement
}

fn names(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect()
}

fn is_space(name: &str) -> bool {
    matches!(name, "pg_catalog" | "information_schema")
}

/// Stops at what only the catalogue has.
struct Asks;

impl Visitor for Asks {
    type Break = ();
    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let found = match names(name).as_slice() {
            [name] => pg::is_own(name),
            [.., space, _] => is_space(space),
            [] => false,
        };
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let found = match expr {
            Expr::Function(call) => match names(&call.name).as_slice() {
                [space, .., _] => is_space(space),
                [name] => name.strip_prefix("to_").is_some_and(oids::is_kind),
                [] => false,
            },
            Expr::Cast { data_type, .. } => match data_type {
                ast::DataType::Regclass => true,
                ast::DataType::Custom(name, _) => {
                    names(name).iter().any(|part| is_space(part)) || reg(data_type).is_some()
                }
                ast::DataType::Array(_) => data_type.to_string().to_lowercase().contains("oid"),
                _ => false,
            },
            Expr::BinaryOp { op: ast::BinaryOperator::PGCustomBinaryOperator(_), .. } => true,
            _ => false,
        };
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Tables of ours that the library does not know get their schema, and rows the OID of their table.
struct Rooms;

impl VisitorMut for Rooms {
    type Break = ();
    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = table
            && let [one] = names(name).as_slice()
            && pg::is_own(one)
        {
            name.0.insert(0, ast::ObjectNamePart::Identifier(ast::Ident::new("pg_catalog")));
        }
        ControlFlow::Continue(())
    }
    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        let tables =
            select.from.iter().flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)));
        let oid = |table: &TableFactor| {
            let TableFactor::Table { name, alias, args: None, .. } = table else { return None };
            let name = names(name).pop()?;
            let oid = pg::oid_of("pg_catalog", &name)?;
            Some((alias.as_ref().map_or(name, |a| fold(&a.name)), oid))
        };
        let oids = tables.filter_map(oid).collect();
        VisitMut::visit(select, &mut TableOids(oids))
    }
}

/// The OID of the table that a row is of, by the names that tables have in a SELECT.
struct TableOids(HashMap<String, u32>);

impl VisitorMut for TableOids {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, column] = parts.as_slice()
            && fold(column) == "tableoid"
            && let Some(oid) = self.0.get(&fold(table))
        {
            *expr = Expr::Value(Value::Number(oid.to_string(), false).into());
        }
        ControlFlow::Continue(())
    }
}

/// A type of names and OIDs, by its name.
fn reg(data_type: &ast::DataType) -> Option<String> {
    let name = match data_type {
        ast::DataType::Regclass => "regclass".to_owned(),
        ast::DataType::Custom(name, _) => names(name).pop()?,
        _ => return None,
    };
    name.starts_with("reg").then_some(name)
}

fn is_text(data_type: &ast::DataType) -> bool {
    match data_type {
        ast::DataType::Text | ast::DataType::Varchar(_) | ast::DataType::CharacterVarying(_) => true,
        ast::DataType::Custom(name, _) => {
            matches!(names(name).last().map(String::as_str), Some("text" | "varchar" | "name"))
        }
        _ => false,
    }
}

/// A literal's text.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn text(literal: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(literal.to_owned()).into())
}

/// What stands for a cast to a type of names and OIDs; `named` where the name is wanted.
fn said(kind: &str, inner: &Expr, named: bool) -> Option<Expr> {
    if oids::is_kind(kind) {
        let function = if named { "fluence_name_of" } else { "fluence_oid_of" };
        return parse_expr(&format!("{function}('{kind}', CAST({inner} AS TEXT))")).ok();
    }
    // Functions and operators stand by name.
    match literal(inner) {
        Some(name) => Some(text(name.strip_prefix("pg_catalog.").unwrap_or(name))),
        None => parse_expr(&format!("CAST({inner} AS TEXT)")).ok(),
    }
}

/// Names instead of numbers in what is shown.
fn shown(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
                if let Expr::Cast { expr: inner, data_type, .. } = expr
                    && let Some(name) = reg(data_type).and_then(|kind| said(&kind, inner, true))
                {
                    *expr = name;
                }
            }
        }
        SetExpr::Query(query) => shown(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            shown(left);
            shown(right);
        }
        _ => {}
    }
}

/// What `_pg_expandarray` is called with.
fn expanded(call: &ast::Function) -> Option<String> {
    let ast::FunctionArguments::List(list) = &call.args else { return None };
    (names(&call.name).pop()? == "_pg_expandarray" && list.args.len() == 1).then(|| list.args[0].to_string())
}

fn first(list: &ast::FunctionArgumentList) -> Option<&Expr> {
    match list.args.first()? {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// What stands for a call.
fn called(call: &ast::Function) -> Option<Expr> {
    let ast::FunctionArguments::List(list) = &call.args else { return None };
    let name = names(&call.name).pop()?;
    let args: Vec<String> = list.args.iter().map(ToString::to_string).collect();
    // The row of a function, where its OID is asked for by its name.
    let row = || args.first()?.strip_suffix(".oid").map(str::to_owned);
    let text = match (name.as_str(), args.as_slice()) {
        // A column may be a text where PostgreSQL has an array.
        ("array_contains", [array, item])
            if matches!(first(list), Some(Expr::Identifier(_) | Expr::CompoundIdentifier(_))) =>
        {
            format!("fluence_has({array}, {item})")
        }
        ("array_to_string", args) => format!("fluence_array_text({})", args.join(", ")),
        ("_pg_expandarray", [array]) => format!("unnest(fluence_expanded({array}))"),
        ("pg_get_function_result", [_]) => {
            let row = row()?;
            format!("fluence_result_of({row}.proretset, {row}.prorettype)")
        }
        ("pg_get_function_arguments" | "pg_get_function_identity_arguments", [_]) => {
            format!("fluence_types_of({}.proargtypes)", row()?)
        }
        (name, [object]) if name.strip_prefix("to_").is_some_and(oids::is_kind) => {
            format!("fluence_oid_if('{}', CAST({object} AS TEXT))", &name[3..])
        }
        _ => return None,
    };
    parse_expr(&text).ok()
}

/// Casts to types of names and OIDs, and the functions that look for one.
struct Regs;

impl VisitorMut for Regs {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let instead = match &*expr {
            Expr::Cast { expr: inner, data_type, .. } => match (&**inner, reg(data_type)) {
                (_, Some(kind)) => said(&kind, inner, false),
                (Expr::Cast { expr: inmost, data_type: reg_type, .. }, None) => match reg(reg_type) {
                    Some(kind) if is_text(data_type) => said(&kind, inmost, true),
                    // A function by its name: there may be several.
                    Some(kind) if !oids::is_kind(&kind) => {
                        let query = "(SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.proname = ";
                        said(&kind, inmost, true).and_then(|name| parse_expr(&format!("{query}{name})")).ok())
                    }
                    _ => None,
                },
                _ => None,
            },
            Expr::Function(call) => called(call),
            // What publications choose of a table's columns, a series as long as an array in a row: there are no publications.
            Expr::Subquery(query) if query.to_string().contains("array_upper(pr.prattrs") => {
                Some(Expr::Value(Value::Null.into()))
            }
            // PostgreSQL 17 calls it otherwise.
            Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|part| fold(part) == "colliculocale") => {
                let mut parts = parts.clone();
                *parts.last_mut().expect("it has a last") = ast::Ident::new("colllocale");
                Some(Expr::CompoundIdentifier(parts))
            }
            // A part of a row: of what `_pg_expandarray` gives for each item, or of another.
            Expr::CompoundFieldAccess { root, access_chain } => match (&**root, access_chain.as_slice()) {
                (Expr::Nested(inner), [ast::AccessExpr::Dot(Expr::Identifier(part))]) => {
                    let part = fold(part);
                    let array = match &**inner {
                        Expr::Function(call) => expanded(call),
                        _ => None,
                    };
                    let text = match (array, part.as_str()) {
                        (Some(array), "n") => format!("unnest(fluence_places({array}))"),
                        (Some(array), "x") => format!("unnest({array})"),
                        _ => format!("get_field({inner}, '{part}')"),
                    };
                    parse_expr(&text).ok()
                }
                _ => None,
            },
            _ => None,
        };
        if let Some(instead) = instead {
            *expr = instead;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_oids_are_looked_up_and_other_statements_stay() {
        for (asked, known) in [
            ("SELECT 'books'::regclass::oid", "SELECT fluence_oid_of('regclass', CAST('books' AS TEXT))::oid"),
            (
                "SELECT a.oid::pg_catalog.regclass FROM pg_class AS a",
                "SELECT fluence_name_of('regclass', CAST(a.oid AS TEXT)) FROM pg_catalog.pg_class AS a",
            ),
            ("SELECT 1 WHERE 1 = 2::regtype", "SELECT 1 WHERE 1 = fluence_oid_of('regtype', CAST(2 AS TEXT))"),
            ("SELECT 1 WHERE a = 'pg_catalog.array_in'::regproc", "SELECT 1 WHERE a = 'array_in'"),
            (
                "SELECT 'pg_class', x FROM y WHERE z = 'pg_catalog.x'",
                "SELECT 'pg_class', x FROM y WHERE z = 'pg_catalog.x'",
            ),
        ] {
            assert_eq!(crate::sql::parse(asked).unwrap()[0].to_string(), known, "{asked}");
        }
    }
}
