//! Statements in words that the planner takes: the same meaning, said so that it is understood, or refused where it would be misunderstood.
//!
//! Twice      an expression that stands twice in a SELECT list gets another name; `names.rs` gives the answer the name that is expected.
//! Fetch      FETCH FIRST n ROWS ONLY is LIMIT n.
//! Distinct   `a IS DISTINCT FROM b AND c` is read by the parser as `a IS DISTINCT FROM (b AND c)`: refused until there are parentheses.
//! User       `current_user` is who is connected.
//! Settings   `current_setting('x')` is what the session has chosen.
//! Subscripts `generate_subscripts(a, 1)` are the numbers of a's elements: from 0 for the vectors of the catalogue, else from 1.
//! Arrays     `ARRAY(SELECT x ..)` without an order is what array_agg gathers. `reloptions || ..`, which psql asks and nothing here has, is reloptions.
//!            A literal that is cast to an array is ARRAY[..].
//! Escapes    LIKE .. ESCAPE '/' of a pattern in literals is written with backslashes.
//! Texts      a cast to UUID or JSON is a call of the function that reads it.

use super::ddl::parse_expr;
use super::settings::Settings;
use super::{array, fold};
use crate::error::{SqlError, SqlState};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, Ident, Query, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};
use std::collections::HashSet;
use std::ops::ControlFlow;

struct Words<'a> {
    user: &'a str,
    number: i32,
    settings: &'a Settings,
}

/// A call's name, and its arguments where they are plain.
fn plain_call(call: &ast::Function) -> Option<(String, Vec<&Expr>)> {
    let name = call.name.0.last()?.as_ident().map(fold)?;
    let ast::FunctionArguments::List(list) = &call.args else { return None };
    let arg = |a| match a {
        &ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    Some((name, list.args.iter().map(arg).collect::<Option<_>>()?))
}

impl Words<'_> {
    /// What stands for a call that the planner does not know.
    fn call(&self, call: &ast::Function) -> Result<Option<Expr>, SqlError> {
        let Some((name, args)) = plain_call(call) else { return Ok(None) };
        match (name.as_str(), args.as_slice()) {
            ("pg_backend_pid", []) => parse_expr(&format!("CAST({} AS INT)", self.number)).map(Some),
            ("current_setting", [setting, missing @ ..]) => {
                let setting = match setting {
                    Expr::Cast { expr, .. } => &**expr,
                    other => *other,
                };
                let Expr::Value(setting) = setting else { return Ok(None) };
                let Value::SingleQuotedString(setting) = &setting.value else { return Ok(None) };
                let known = self.settings.get(&setting.to_lowercase());
                let missing_ok = matches!(missing, [Expr::Value(v)] if matches!(v.value, Value::Boolean(true)));
                match known {
                    Some(value) => Ok(Some(Expr::Value(Value::SingleQuotedString(value.to_owned()).into()))),
                    None if missing_ok => Ok(Some(Expr::Value(Value::Null.into()))),
                    None => Err(SqlError::new(
                        SqlState::UndefinedObject,
                        format!("unrecognized configuration parameter \"{setting}\""),
                    )),
                }
            }
            ("generate_subscripts", [array, _dimension]) => {
                let text = array.to_string().to_lowercase();
                let vector = ["indkey", "indclass", "indoption", "indcollation"].iter().any(|v| text.ends_with(v));
                let first = i32::from(!vector);
                let length = format!("CAST(coalesce(array_length({array}), 0) AS BIGINT)");
                parse_expr(&format!("unnest(range({first}, {first} + {length}))")).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl VisitorMut for Words<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        name_twins(&mut query.body);
        fetch_as_limit(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match array::of_literal(expr) {
            Ok(None) => {}
            Ok(Some(array)) => *expr = array,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let swallows = |e: &Expr| {
            matches!(e, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. })
        };
        match expr {
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if swallows(right) => {
                let why = "AND or OR after IS DISTINCT FROM needs parentheses: (a IS DISTINCT FROM b) AND c";
                return ControlFlow::Break(SqlError::new(SqlState::SyntaxError, why));
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. }
                if matches!(data_type, DataType::Uuid | DataType::JSON | DataType::JSONB) =>
            {
                let name = format!("fluence_{}", data_type.to_string().to_lowercase());
                match parse_expr(&format!("{name}(CAST({inner} AS TEXT))")) {
                    Ok(call) => *expr = call,
                    Err(error) => return ControlFlow::Break(error),
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                escaped(pattern, escape_char);
            }
            Expr::Identifier(ident) if ident.quote_style.is_none() && is_user(&fold(ident)) => {
                *expr = Expr::Value(Value::SingleQuotedString(self.user.to_owned()).into());
            }
            Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right }
                if left.to_string().ends_with("reloptions") && !matches!(**right, Expr::Value(_)) =>
            {
                *expr = (**left).clone();
            }
            Expr::Function(call)
                if matches!(call.args, ast::FunctionArguments::None)
                    && is_user(&call.name.to_string().to_lowercase()) =>
            {
                *expr = Expr::Value(Value::SingleQuotedString(self.user.to_owned()).into());
            }
            Expr::Function(call) if array_of_query(call).is_some() => match array_of_query(call).map(gathered) {
                Some(Ok(instead)) => *expr = instead,
                Some(Err(error)) => return ControlFlow::Break(error),
                None => {}
            },
            Expr::Function(call) => match self.call(call) {
                Ok(Some(instead)) => *expr = instead,
                Ok(None) => {}
                Err(error) => return ControlFlow::Break(error),
            },
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Has the pattern of a LIKE be escaped by backslashes, where it is made of literals and each escape stands before what it escapes.
fn escaped(pattern: &mut Expr, escape: &mut Option<ast::ValueWithSpan>) {
    struct Literals(char, bool);
    impl VisitorMut for Literals {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Value(value) => {
                    let Value::SingleQuotedString(text) = &mut value.value else { return ControlFlow::Break(()) };
                    let (mut out, mut chars) = (String::new(), text.chars());
                    while let Some(c) = chars.next() {
                        match c {
                            c if c == self.0 => match chars.next() {
                                Some(next) => out.extend(['\\', next]),
                                None => return ControlFlow::Break(()),
                            },
                            '\\' => out.push_str("\\\\"),
                            c => out.push(c),
                        }
                    }
                    *text = out;
                }
                Expr::Cast { .. } | Expr::Nested(_) | Expr::BinaryOp { op: BinaryOperator::StringConcat, .. } => {}
                _ => self.1 = true,
            }
            if self.1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let by = escape.as_ref().and_then(|e| e.value.clone().into_string()).filter(|e| e != "\\");
    let mut by = by.iter().flat_map(|e| e.chars());
    let (Some(by), None) = (by.next(), by.next()) else { return };
    let mut instead = pattern.clone();
    if instead.visit(&mut Literals(by, false)).is_continue() {
        *pattern = instead;
        *escape = None;
    }
}

fn array_of_query(call: &ast::Function) -> Option<&Query> {
    match &call.args {
        ast::FunctionArguments::Subquery(query) if call.name.to_string().eq_ignore_ascii_case("array") => Some(query),
        _ => None,
    }
}

/// `ARRAY(SELECT ..)` in words of an aggregate, which gathers in the query's order.
fn gathered(query: &Query) -> Result<Expr, SqlError> {
    let refused = || {
        let why = SqlError::unsupported("ARRAY(SELECT .. ORDER BY ..) of more than one query without groups");
        why.hint("write (SELECT array_agg(x ORDER BY ..) FROM ..)")
    };
    if let Some(array) = unnested(query) {
        return Ok(array.clone());
    }
    let Some(order) = &query.order_by else {
        return parse_expr(&format!(
            "(SELECT coalesce(array_agg(fluence_item), make_array()) FROM ({query}) AS fluence_items(fluence_item))"
        ));
    };
    let plain = query.limit_clause.is_none() && query.fetch.is_none() && query.with.is_none();
    let (SetExpr::Select(select), ast::OrderByKind::Expressions(order)) = (&*query.body, &order.kind) else {
        return Err(refused());
    };
    let grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(by, _) if by.is_empty());
    let (item, alias) = match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(item)] => (item, None),
        [SelectItem::ExprWithAlias { expr, alias }] => (expr, Some(alias)),
        _ => return Err(refused()),
    };
    if !plain || grouped || select.distinct.is_some() {
        return Err(refused());
    }
    // By number or name, the one column.
    let keys = order.iter().map(|key| {
        let mut key = key.clone();
        let own = match &key.expr {
            Expr::Value(number) => number.value.to_string() == "1",
            Expr::Identifier(name) => alias.is_some_and(|a| fold(a) == fold(name)),
            _ => false,
        };
        if own {
            key.expr = item.clone();
        }
        key.to_string()
    });
    let call = format!("array_agg({item} ORDER BY {})", keys.collect::<Vec<_>>().join(", "));
    let mut select = select.clone();
    select.projection = vec![SelectItem::UnnamedExpr(parse_expr(&format!("coalesce({call}, make_array())"))?)];
    parse_expr(&format!("({select})"))
}

/// The array of which `SELECT x FROM unnest(array) AS t(x)` has the items.
fn unnested(query: &Query) -> Option<&Expr> {
    let (SetExpr::Select(select), None) = (&*query.body, &query.order_by) else { return None };
    let ([from], [SelectItem::UnnamedExpr(Expr::Identifier(item))]) = (&*select.from, &*select.projection) else {
        return None;
    };
    let (array, alias) = match &from.relation {
        ast::TableFactor::UNNEST { array_exprs, alias: Some(alias), .. } => (array_exprs.first()?, alias),
        ast::TableFactor::Table { name, args: Some(args), alias: Some(alias), .. } if name.to_string() == "unnest" => {
            match args.args.as_slice() {
                [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(array))] => (array, alias),
                _ => return None,
            }
        }
        _ => return None,
    };
    let named = alias.columns.first().map_or(&alias.name, |column| &column.name);
    (from.joins.is_empty() && select.selection.is_none() && fold(named) == fold(item)).then_some(array)
}

fn is_user(name: &str) -> bool {
    matches!(name, "current_user" | "session_user" | "current_role")
}

/// FETCH FIRST n ROWS ONLY is LIMIT n.
fn fetch_as_limit(query: &mut Query) {
    let Some(ast::Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let limit = quantity.clone().unwrap_or_else(|| Expr::Value(Value::Number("1".to_owned(), false).into()));
    match &mut query.limit_clause {
        Some(ast::LimitClause::LimitOffset { limit: free @ None, .. }) => *free = Some(limit),
        clause @ None => {
            let (offset, limit_by) = (None, Vec::new());
            *clause = Some(ast::LimitClause::LimitOffset { limit: Some(limit), offset, limit_by });
        }
        Some(_) => return,
    }
    query.fetch = None;
}

/// An expression's text as far as the planner's names go: casts are left out of those, and queries are not told apart.
fn bare_text(expr: &Expr) -> String {
    struct Bare;
    impl VisitorMut for Bare {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = expr {
                *expr = (**inner).clone();
            }
            if matches!(expr, Expr::Subquery(_)) {
                *expr = Expr::Identifier(Ident::new("(subquery)"));
            }
            ControlFlow::Continue(())
        }
    }
    let mut bare = expr.clone();
    let _ = bare.visit(&mut Bare);
    bare.to_string()
}

/// Gives the second of two equal expressions of a SELECT list a name of its own.
fn name_twins(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut seen = HashSet::new();
            for (i, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !seen.insert(bare_text(expr))
                {
                    *item = SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias: Ident::new(format!("fluence_twin_{i}")),
                    };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_twins(left);
            name_twins(right);
        }
        _ => {}
    }
}

/// A statement in the planner's words.
///
/// # Errors
/// [`SqlState::SyntaxError`] for what the parser is known to misread.
pub(crate) fn rewrite(
    statement: &mut ast::Statement,
    user: &str,
    number: i32,
    settings: &Settings,
) -> Result<(), SqlError> {
    match statement.visit(&mut Words { user, number, settings }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}
