//! `CREATE INDEX .. INCLUDE (x*x, x*y)`: products whose sums the index declares, so that variances and regressions over it are proven.
//!
//! Why     the parser takes names in INCLUDE, as PostgreSQL does. An expression there becomes a name in quotes before it is parsed.
//! Form    a column, or a product of two; a column's own sum is always declared

use super::catalog::TableDef;
use super::ddl::parse_expr;
use super::fold;
use crate::error::SqlError;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;
use fluence_client::SumExpr;

/// Whether a text may hold an INCLUDE, by a look at it in lower case.
pub(super) fn is_likely(lower: &str) -> bool {
    lower.contains("include") && lower.contains("index")
}

/// Puts names in the place of expressions in an INCLUDE. Whether there were any.
pub(super) fn name_expressions(list: &mut Vec<Token>) -> bool {
    let mut out = Vec::with_capacity(list.len());
    let mut tokens = std::mem::take(list).into_iter().peekable();
    let (mut index, mut found) = (false, false);
    while let Some(token) = tokens.next() {
        index = match &token {
            Token::SemiColon => false,
            Token::Word(word) => index || word.keyword == Keyword::INDEX,
            _ => index,
        };
        let list = index && matches!(&token, Token::Word(word) if word.keyword == Keyword::INCLUDE);
        out.push(token);
        if !list {
            continue;
        }
        out.extend(std::iter::from_fn(|| tokens.next_if(|t| matches!(t, Token::Whitespace(_)))));
        let Some(open) = tokens.next_if_eq(&Token::LParen) else { continue };
        out.push(open);
        let (mut depth, mut item) = (0usize, Vec::new());
        for token in tokens.by_ref() {
            match token {
                Token::RParen if depth == 0 => {
                    found |= name(&mut out, std::mem::take(&mut item));
                    out.push(Token::RParen);
                    break;
                }
                Token::Comma if depth == 0 => {
                    found |= name(&mut out, std::mem::take(&mut item));
                    out.push(Token::Comma);
                    continue;
                }
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            item.push(token);
        }
        out.extend(item);
    }
    *list = out;
    found
}

/// Puts an item of the list there: as it is, or as a name if it is more than one word.
fn name(out: &mut Vec<Token>, item: Vec<Token>) -> bool {
    let words = item.iter().filter(|t| !matches!(t, Token::Whitespace(_))).count();
    if words <= 1 {
        out.extend(item);
        return false;
    }
    let text: String = item.iter().map(ToString::to_string).collect();
    out.push(Token::make_word(text.trim(), Some('"')));
    true
}

/// The sums that the items of an INCLUDE ask for.
///
/// # Errors
/// [`crate::error::SqlState::FeatureNotSupported`] for what is neither a column nor a product of two, and what naming a column says.
pub(super) fn sums(def: &TableDef, items: &[Ident]) -> Result<Vec<SumExpr>, SqlError> {
    let mut sums = Vec::new();
    for item in items {
        let name = fold(item);
        // A column of that name needs nothing: the index holds it, and its sum.
        if item.quote_style.is_none() || def.column(&name).is_ok() {
            def.column(&name)?;
            continue;
        }
        let factor = |expr: &Expr| match expr {
            Expr::Identifier(ident) => Ok(def.column(&fold(ident))?.physical.clone()),
            _ => Err(unsupported(&name)),
        };
        let Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } = unnested(parse_expr(&name)?) else {
            return Err(unsupported(&name));
        };
        let (left, right) = (factor(&left)?, factor(&right)?);
        sums.push(if left == right { SumExpr::Square(left) } else { SumExpr::Product(left, right) });
    }
    Ok(sums)
}

fn unnested(expr: Expr) -> Expr {
    match expr {
        Expr::Nested(inner) => unnested(*inner),
        other => other,
    }
}

fn unsupported(text: &str) -> SqlError {
    SqlError::unsupported(format!("INCLUDE ({text})")).hint("a column, or a product of two columns: INCLUDE (x*x, x*y)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    fn words(text: &str) -> Option<String> {
        let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().ok()?;
        let found = name_expressions(&mut tokens);
        let out: String = tokens.iter().map(ToString::to_string).collect();
        assert!(found || out == text, "{out}");
        found.then_some(out)
    }

    #[test]
    fn expressions_become_names_and_nothing_else_does() {
        let got = words("CREATE INDEX i ON t (a) INCLUDE (b, x * x,(x*y) , \"c d\"); SELECT 1").unwrap();
        assert_eq!(got, "CREATE INDEX i ON t (a) INCLUDE (b,\"x * x\",\"(x*y)\", \"c d\"); SELECT 1");
        for same in [
            "CREATE INDEX i ON t (a) INCLUDE (b, c)",
            "SELECT include(x*x) FROM t",
            "CREATE INDEX i ON t (a); SELECT include (x*x)",
            "SELECT 'index include (x*x)'",
            "CREATE INDEX i ON t (a) INCLUDE (x*x",
            "CREATE INDEX i ON t (a) INCLUDE",
            "CREATE INDEX i ON t (a) INCLUDE ('",
        ] {
            assert_eq!(words(same), None, "{same}");
        }
    }
}
