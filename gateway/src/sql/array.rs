//! Arrays as PostgreSQL writes them in text: `{1,"two",NULL}`, of one dimension.
//!
//! Why     the planner reads such a text as an array of one item, itself. A cast of a literal becomes ARRAY[..] of casts before it is planned.
//! Source  PostgreSQL 15, "Array Input and Output Syntax"

use super::ddl::parse_expr;
use super::types;
use crate::error::{SqlError, SqlState};
use datafusion::sql::sqlparser::ast::{self, CastKind, DataType, Expr, Value};

/// The items of an array, NULL as `None`; `None` where the text is no array of one dimension.
pub(crate) fn items(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut chars = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(items);
    }
    loop {
        let (mut item, mut quoted) = (String::new(), false);
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => item.push(chars.next()?),
                    other => item.push(other),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(next) = chars.next_if(|c| *c != ',') {
                match next {
                    '\\' => item.push(chars.next()?),
                    '{' | '}' | '"' => return None,
                    other => item.push(other),
                }
            }
            item.truncate(item.trim_end().len());
        }
        match quoted {
            true => items.push(Some(item)),
            false if item.is_empty() => return None,
            false => items.push(Some(item).filter(|item| !item.eq_ignore_ascii_case("null"))),
        }
        match chars.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// What stands for a cast of a literal to an array; `None` where the expression is none.
///
/// # Errors
/// [`SqlState::InvalidText`] for a literal that is no array of one dimension.
pub(super) fn of_literal(expr: &Expr) -> Result<Option<Expr>, SqlError> {
    let Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: literal, data_type, .. } = expr else {
        return Ok(None);
    };
    let DataType::Array(ast::ArrayElemTypeDef::SquareBracket(item, _)) = data_type else { return Ok(None) };
    let Some(text) = literal_text(literal).filter(|_| types::cast_type(item).is_some()) else { return Ok(None) };
    let items = items(text).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        SqlError::new(SqlState::InvalidText, format!("malformed array literal: \"{shown}\""))
            .detail("arrays have one dimension here")
    })?;
    if items.is_empty() {
        let ty = types::cast_type(data_type).ok_or_else(|| SqlError::unsupported(format!("an empty {data_type}")))?;
        return parse_expr(&format!("arrow_cast(make_array(), '{ty}')")).map(Some);
    }
    let one = |item_text: Option<String>| {
        let value = item_text.map_or(Value::Null, Value::SingleQuotedString);
        let (expr, data_type) = (Box::new(Expr::Value(value.into())), (**item).clone());
        Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None }
    };
    Ok(Some(Expr::Array(ast::Array { elem: items.into_iter().map(one).collect(), named: true })))
}

fn literal_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Nested(inner) => literal_text(inner),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_as_they_are_written() {
        assert_eq!(
            items(r#"{"a,b", c d ,"\"","null",NULL}"#).unwrap(),
            [Some("a,b".to_owned()), Some("c d".to_owned()), Some("\"".to_owned()), Some("null".to_owned()), None,]
        );
        assert_eq!(items("{}").unwrap(), []);
        for not in ["", "{", "1,2", "{{1},{2}}", "{1,}", "{\"a\"b}", "{\"a}"] {
            assert_eq!(items(not), None, "{not}");
        }
    }

    #[test]
    fn a_cast_of_a_literal_is_an_array_of_casts() {
        let of = |text: &str| of_literal(&parse_expr(text).unwrap());
        for (text, array) in [
            ("('{1,NULL}')::smallint[]", "ARRAY[CAST('1' AS SMALLINT), CAST(NULL AS SMALLINT)]"),
            ("CAST('{\"a,b\",null}' AS varchar(5)[])", "ARRAY[CAST('a,b' AS VARCHAR(5)), CAST(NULL AS VARCHAR(5))]"),
        ] {
            assert_eq!(of(text).unwrap().unwrap().to_string(), array);
        }
        let empty = of("'{}'::bigint[]").unwrap().unwrap().to_string();
        assert!(empty.starts_with("arrow_cast(make_array(), 'List("), "{empty}");
        for same in ["'{1}'::text", "x::bigint[]", "'{1}'::regtype[]"] {
            assert!(of(same).unwrap().is_none(), "{same}");
        }
        assert_eq!(of("'{1,2'::bigint[]").unwrap_err().state, SqlState::InvalidText);
    }
}
