//! Statements in words that the planner takes: the same meaning, said so that it is understood, or refused where it would be misunderstood.
//!
//! Twice      an expression that stands twice in a SELECT list gets another name; `names.rs` gives the answer the name that is expected.
//! Distinct   `a IS DISTINCT FROM b AND c` is read by the parser as `a IS DISTINCT FROM (b AND c)`: refused until there are parentheses.
//! User       `current_user` is who is connected.
//! Texts      a cast to UUID or JSON is a call of the function that reads it.

use super::ddl::parse_expr;
use super::fold;
use crate::error::{SqlError, SqlState};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, Ident, Query, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};
use std::collections::HashSet;
use std::ops::ControlFlow;

struct Words<'a> {
    user: &'a str,
}

impl VisitorMut for Words<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        name_twins(&mut query.body);
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
            Expr::Identifier(ident) if ident.quote_style.is_none() && is_user(&fold(ident)) => {
                *expr = Expr::Value(Value::SingleQuotedString(self.user.to_owned()).into());
            }
            Expr::Function(call)
                if matches!(call.args, ast::FunctionArguments::None)
                    && is_user(&call.name.to_string().to_lowercase()) =>
            {
                *expr = Expr::Value(Value::SingleQuotedString(self.user.to_owned()).into());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_user(name: &str) -> bool {
    matches!(name, "current_user" | "session_user" | "current_role")
}

/// Gives the second of two equal expressions of a SELECT list a name of its own.
fn name_twins(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut seen = HashSet::new();
            for (i, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !seen.insert(expr.to_string())
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
pub(crate) fn rewrite(statement: &mut ast::Statement, user: &str) -> Result<(), SqlError> {
    match statement.visit(&mut Words { user }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}
