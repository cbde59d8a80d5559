//! SQL: parsing, planning, and what each statement does.
//!
//! ```text
//! text ── Statement ─┬─ SELECT, EXPLAIN ── context (DataFusion) ── table, filter, aggregate ── rows
//!                    ├─ INSERT, UPDATE, DELETE, COPY ── write ── work (what a transaction changes)
//!                    └─ CREATE, ALTER, DROP ── ddl ── catalog
//! ```
//! Rule    rows to change are selected by our own query, with all their columns; DataFusion's hooks for DML are never used: it hands
//!         `DELETE .. WHERE x IN (SELECT ..)` to a provider without filters (apache/datafusion#24654).
//! Source  DESIGN section 10

pub(crate) mod aggregate;
pub(crate) mod aliases;
pub(crate) mod arithmetic;
pub(crate) mod array;
pub(crate) mod bytea;
pub mod catalog;
pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod ddl;
pub(crate) mod explain;
pub(crate) mod filter;
pub(crate) mod include;
pub(crate) mod json;
pub(crate) mod names;
pub(crate) mod origins;
pub(crate) mod overflow;
pub(crate) mod params;
pub(crate) mod proofs;
pub(crate) mod public;
pub(crate) mod rewrite;
pub(crate) mod rounding;
pub(crate) mod sequence;
pub(crate) mod settings;
pub(crate) mod system;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod types;
pub(crate) mod unique;
pub(crate) mod work;
pub(crate) mod write;

use crate::error::{SqlError, SqlState};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Longest text of statements, in bytes.
pub const SQL_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting that is parsed.
const DEPTH_MAX: usize = 64;

/// A statement that was parsed.
#[derive(Clone, Debug)]
pub struct Statement(pub(crate) ast::Statement);

impl std::fmt::Display for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn syntax(error: &ParserError) -> SqlError {
    match error {
        ParserError::TokenizerError(why) | ParserError::ParserError(why) => {
            SqlError::new(SqlState::SyntaxError, format!("syntax error: {why}"))
        }
        ParserError::RecursionLimitExceeded => {
            SqlError::new(SqlState::ProgramLimitExceeded, format!("a statement is nested deeper than {DEPTH_MAX}"))
        }
    }
}

/// The statements of a text, in order.
///
/// # Errors
/// [`SqlState::SyntaxError`]; [`SqlState::ProgramLimitExceeded`] above [`SQL_BYTES_MAX`].
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>, SqlError> {
    if text.len() > SQL_BYTES_MAX {
        let why = format!("{} bytes of SQL, at most {SQL_BYTES_MAX} are taken at once", text.len());
        return Err(SqlError::new(SqlState::ProgramLimitExceeded, why));
    }
    // MOVE has the words of FETCH, which the parser knows.
    let words = text.trim_start();
    if let Some(rest) = words.get(..5).filter(|w| w.eq_ignore_ascii_case("move ")).and(words.get(5..)) {
        let mut fetch = parse(&format!("FETCH {rest}"))?;
        for statement in &mut fetch {
            if let ast::Statement::Fetch { into, .. } = &mut statement.0 {
                *into = Some(ast::ObjectName::from(vec![ast::Ident::new(MOVE)]));
            }
        }
        return Ok(fetch);
    }
    if sets_constraints(words) {
        return parse(SAYS_NOTHING);
    }
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(DEPTH_MAX);
    let parser = match reworded(text) {
        Some(tokens) => Ok(parser.with_tokens(tokens)),
        None => parser.try_with_sql(text),
    };
    let parsed = parser.and_then(|mut p| p.parse_statements()).map_err(|e| syntax(&e))?;
    Ok(parsed.into_iter().map(system::words::known).map(Statement).collect())
}

/// The tokens of a text with words that the parser does not know put in others that it does; `None` where there are none.
fn reworded(text: &str) -> Option<Vec<Token>> {
    let lower = text.to_ascii_lowercase();
    let (includes, publics) = (include::is_likely(&lower), public::is_likely(&lower));
    if !includes && !publics {
        return None;
    }
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().ok()?;
    let named = includes && include::name_expressions(&mut tokens);
    let marked = publics && public::mark(&mut tokens);
    (named || marked).then_some(tokens)
}

/// A statement that changes nothing.
const SAYS_NOTHING: &str = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE";

/// Whether a text is SET CONSTRAINTS ALL, which the parser does not know. No constraint is deferrable here, so it changes nothing.
fn sets_constraints(text: &str) -> bool {
    let text = text.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    let mut words = text.split_whitespace().map(str::to_ascii_lowercase);
    let head = ["set", "constraints", "all"].iter().all(|word| words.next().as_deref() == Some(word));
    head && matches!(words.next().as_deref(), Some("immediate" | "deferred")) && words.next().is_none()
}

/// What stands for the place where FETCH puts a row, in a MOVE: it has the words of FETCH.
const MOVE: &str = "fluence_move";

/// Whether that is a MOVE.
pub(crate) fn is_move(into: &ast::ObjectName) -> bool {
    into.to_string() == MOVE
}

/// Whether a text is whole statements: it ends with a semicolon that stands in no string, comment or name.
#[must_use]
pub fn is_whole(text: &str) -> bool {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize();
    let last = tokens.ok().and_then(|t| t.into_iter().rfind(|t| !matches!(t, Token::Whitespace(_))));
    last == Some(Token::SemiColon)
}

/// An identifier as PostgreSQL reads it: folded to lower case unless quoted.
pub(crate) fn fold(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// An identifier in quotes.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name of a relation in the one schema that there is.
///
/// # Errors
/// [`SqlState::UndefinedObject`] for another schema.
pub(crate) fn relation(name: &ast::ObjectName) -> Result<String, SqlError> {
    let parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(fold).collect();
    match parts.as_slice() {
        [name] => Ok(name.clone()),
        [schema, name] | [_, schema, name] if schema == context::SCHEMA => Ok(name.clone()),
        _ => Err(SqlError::new(
            SqlState::UndefinedObject,
            format!("there is no schema for \"{name}\": tables are in \"public\""),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_where_its_last_semicolon_ends_it() {
        for whole in ["SELECT 1;", "SELECT ';' ; -- done\n", "a; b;"] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in ["", "SELECT 1", "SELECT ';", "SELECT 1 -- ;", "SELECT 1; SELECT"] {
            assert!(!is_whole(part), "{part}");
        }
    }

    #[test]
    fn what_is_no_sql_is_a_syntax_error() {
        for bad in ["SELEC", "SELECT (", "SELECT 'a", ")"] {
            assert_eq!(parse(bad).unwrap_err().state, SqlState::SyntaxError, "{bad}");
        }
        let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(parse(&deep).unwrap_err().state, SqlState::ProgramLimitExceeded);
        let long = " ".repeat(SQL_BYTES_MAX + 1);
        assert_eq!(parse(&long).unwrap_err().state, SqlState::ProgramLimitExceeded);
    }
}
