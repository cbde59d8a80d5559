//! Parameters of prepared statements: what types they have, and how values take their places.
//!
//! Rule    a value takes its place in the parsed statement, as a literal: no text is put together, so none can be broken out of.
//! Types   what the client says; else the cast that stands around the parameter; else what the planner infers; else text.

use super::types;
use crate::error::{SqlError, SqlState};
use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, CastKind, Expr, Value, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Most parameters of a statement: as many as Bind can count.
const PARAMS_MAX: usize = u16::MAX as usize;

/// The number of a placeholder, from 0.
fn number(expr: &Expr) -> Option<Result<usize, SqlError>> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(text) = &value.value else { return None };
    let parsed = text.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| (1..=PARAMS_MAX).contains(n));
    Some(parsed.map(|n| n - 1).ok_or_else(|| {
        SqlError::new(
            SqlState::SyntaxError,
            format!("there is no parameter {}", text.chars().take(20).collect::<String>()),
        )
    }))
}

/// Looks at every placeholder, with the type of the cast around it.
struct Look {
    casts: Vec<Option<DataType>>,
    failed: Option<SqlError>,
}

impl Look {
    fn at(&mut self, expr: &Expr, cast: Option<DataType>) {
        match number(expr) {
            Some(Ok(n)) => {
                if self.casts.len() <= n {
                    self.casts.resize(n + 1, None);
                }
                if cast.is_some() {
                    self.casts[n] = cast;
                }
            }
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }
}

impl VisitorMut for Look {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr, data_type, .. } = expr {
            self.at(expr, types::cast_type(data_type));
        }
        self.at(expr, None);
        ControlFlow::Continue(())
    }
}

/// The types that casts give the parameters of a statement; as many as there are.
///
/// # Errors
/// [`SqlState::SyntaxError`] for a placeholder that is not `$1` to `$65535`.
pub(crate) fn casts(statement: &mut ast::Statement) -> Result<Vec<Option<DataType>>, SqlError> {
    let mut look = Look { casts: Vec::new(), failed: None };
    let _ = statement.visit(&mut look);
    look.failed.map_or(Ok(look.casts), Err)
}

/// Parameters that stand for an array: `column = ANY($1)`. The number of each, from 0, and the column's name.
pub(crate) fn arrays(statement: &mut ast::Statement) -> Vec<(usize, String)> {
    struct Arrays(Vec<(usize, String)>);
    impl VisitorMut for Arrays {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } = expr {
                let right = match &**right {
                    Expr::Nested(inner) => inner,
                    other => other,
                };
                let column = match &**left {
                    Expr::Identifier(ident) => Some(super::fold(ident)),
                    Expr::CompoundIdentifier(parts) => parts.last().map(super::fold),
                    _ => None,
                };
                if let (Some(Ok(n)), Some(column)) = (number(right), column) {
                    self.0.push((n, column));
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Arrays(Vec::new());
    let _ = statement.visit(&mut found);
    found.0
}

/// Puts literals in the places of parameters.
struct Fill<'a> {
    literals: &'a [Expr],
    missing: Option<usize>,
}

impl VisitorMut for Fill<'_> {
    type Break = ();
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(Ok(n)) = number(expr) {
            match self.literals.get(n) {
                Some(literal) => *expr = literal.clone(),
                None => self.missing = Some(n),
            }
        }
        ControlFlow::Continue(())
    }
}

/// Puts values in the places of parameters.
///
/// # Errors
/// [`SqlError`] where there are too few, or one is of a type that SQL cannot say.
pub(crate) fn fill(statement: &mut ast::Statement, values: &[ScalarValue]) -> Result<(), SqlError> {
    let literals = values.iter().map(literal).collect::<Result<Vec<_>, _>>()?;
    fill_exprs(statement, &literals)
}

/// Puts expressions in the places of parameters.
///
/// # Errors
/// [`SqlError`] where there are too few.
pub(crate) fn fill_exprs(statement: &mut ast::Statement, exprs: &[Expr]) -> Result<(), SqlError> {
    let mut fill = Fill { literals: exprs, missing: None };
    let _ = statement.visit(&mut fill);
    match fill.missing {
        Some(n) => Err(SqlError::new(SqlState::SyntaxError, format!("there is no value for parameter ${}", n + 1))),
        None => Ok(()),
    }
}

fn string(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

fn cast(expr: Expr, ty: &DataType) -> Result<Expr, SqlError> {
    let name = types::cast_name(ty).ok_or_else(|| SqlError::unsupported(format!("a parameter of type {ty}")))?;
    let data_type = Parser::new(&PostgreSqlDialect {})
        .try_with_sql(&name)
        .and_then(|mut p| p.parse_data_type())
        .map_err(|e| SqlError::new(SqlState::InternalError, e.to_string()))?;
    Ok(Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None })
}

/// A value as a literal of its type.
pub(crate) fn literal(value: &ScalarValue) -> Result<Expr, SqlError> {
    let null = || Expr::Value(Value::Null.into());
    if value.is_null() {
        return if value.data_type() == DataType::Null { Ok(null()) } else { cast(null(), &value.data_type()) };
    }
    Ok(match value {
        ScalarValue::Boolean(Some(b)) => Expr::Value(Value::Boolean(*b).into()),
        ScalarValue::Utf8(Some(t)) | ScalarValue::LargeUtf8(Some(t)) | ScalarValue::Utf8View(Some(t)) => {
            string(t.clone())
        }
        ScalarValue::Binary(Some(b)) | ScalarValue::LargeBinary(Some(b)) | ScalarValue::BinaryView(Some(b)) => {
            Expr::Value(Value::HexStringLiteral(hex::encode(b)).into())
        }
        ScalarValue::List(list) => {
            let items = list.values();
            if items.is_empty() {
                return super::ddl::parse_expr(&format!("arrow_cast(make_array(), '{}')", value.data_type()));
            }
            let item = |i| literal(&ScalarValue::try_from_array(items, i)?);
            let elem = (0..items.len()).map(item).collect::<Result<Vec<_>, _>>()?;
            Expr::Array(ast::Array { elem, named: true })
        }
        ScalarValue::Date32(Some(days)) => cast(string(fluence_client::time::date_text(*days)), &value.data_type())?,
        ScalarValue::TimestampMicrosecond(Some(us), _) => {
            cast(string(fluence_client::time::timestamp_text(*us)), &value.data_type())?
        }
        other => cast(string(other.to_string()), &value.data_type())?,
    })
}

/// What stands for a parameter of a known type while a statement is only planned.
pub(crate) fn stand_in(ty: &DataType) -> Result<ScalarValue, SqlError> {
    Ok(ScalarValue::try_from(ty)?)
}
