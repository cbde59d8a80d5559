//! `CREATE TABLE t (k integer PRIMARY KEY PUBLIC, v text PUBLIC)`: columns that are open data.
//!
//! Why     the parser does not know the word as a column's option. It becomes a collation of a name that nobody else has, which it does know.
//! Where   after a column's type, in CREATE TABLE and in ALTER TABLE .. ADD; as a name, or a schema's, it stays what it is

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Whitespace, Word};

/// The collation that stands for the word.
const PUBLIC: &str = "fluence_public";

/// Whether a text may hold the word, by a look at it in lower case.
pub(super) fn is_likely(lower: &str) -> bool {
    lower.contains("public") && lower.contains("table")
}

/// Whether a column's collation stands for the word.
pub(super) fn is_public(collation: &ObjectName) -> bool {
    matches!(collation.0.as_slice(), [part] if part.as_ident().is_some_and(|i| i.value == PUBLIC))
}

/// Puts the collation in the word's place. Whether there was one.
pub(super) fn mark(tokens: &mut Vec<Token>) -> bool {
    let mut marked = Vec::with_capacity(tokens.len());
    let mut statement = Where::Elsewhere;
    let mut depth = 0usize;
    let mut found = false;
    // The last two tokens that are not space.
    let (mut before, mut last) = (None::<Token>, None::<Token>);
    let mut rest = std::mem::take(tokens).into_iter().peekable();
    while let Some(token) = rest.next() {
        if matches!(token, Token::Whitespace(_)) {
            marked.push(token);
            continue;
        }
        statement = match (&statement, &token) {
            (_, Token::SemiColon) => Where::Elsewhere,
            (Where::Elsewhere, Token::Word(w)) if w.keyword == Keyword::TABLE => match &last {
                Some(Token::Word(verb)) if verb.keyword == Keyword::ALTER => Where::Alter,
                Some(Token::Word(verb)) if verb.keyword == Keyword::CREATE => Where::Create,
                _ => Where::Elsewhere,
            },
            (Where::Alter, Token::Word(w)) if w.keyword == Keyword::ADD => Where::Add,
            // What follows AS is a query.
            (Where::Create, Token::Word(w)) if w.keyword == Keyword::AS && depth == 0 => Where::Elsewhere,
            (same, _) => *same,
        };
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::SemiColon => depth = 0,
            _ => {}
        }
        let declares = match statement {
            Where::Create => depth == 1,
            Where::Add => depth == 0,
            Where::Alter | Where::Elsewhere => false,
        };
        let option = declares && is_word(&token) && follows_type(before.as_ref(), last.as_ref());
        if option && !matches!(rest.peek(), Some(Token::Period)) {
            found = true;
            marked.push(Token::make_keyword("COLLATE"));
            marked.push(Token::Whitespace(Whitespace::Space));
            marked.push(Token::make_word(PUBLIC, Some('"')));
        } else {
            marked.push(token.clone());
        }
        before = last.replace(token);
    }
    *tokens = marked;
    found
}

/// Which part of a statement a token stands in.
#[derive(Clone, Copy)]
enum Where {
    Create,
    Alter,
    Add,
    Elsewhere,
}

fn is_word(token: &Token) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case("public"))
}

/// Whether an option of a column may follow these tokens: it has a name and, at least, the first word of a type.
fn follows_type(before: Option<&Token>, last: Option<&Token>) -> bool {
    let begins = |t: Option<&Token>| match t {
        None | Some(Token::LParen | Token::Comma | Token::Period) => true,
        // The words between ADD and a column's name.
        Some(Token::Word(w)) => matches!(w.keyword, Keyword::ADD | Keyword::COLUMN | Keyword::EXISTS),
        _ => false,
    };
    // The column's name stands where a declaration begins, or came last.
    let is_name = begins(last) || begins(before) && matches!(last, Some(Token::Word(_)));
    let names = [Keyword::REFERENCES, Keyword::CONSTRAINT, Keyword::COLLATE];
    let is_named = matches!(last, Some(Token::Word(w)) if names.contains(&w.keyword));
    !is_name && !is_named
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    fn marked(text: &str) -> String {
        let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().unwrap();
        mark(&mut tokens);
        tokens.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_word_is_an_option_after_a_type_and_a_name_elsewhere() {
        for (text, options) in [
            ("CREATE TABLE t (a int PUBLIC, b numeric(8, 2) NOT NULL public DEFAULT 1, c text)", 2),
            ("create table public.t (a int primary key Public)", 1),
            ("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY PUBLIC); CREATE TABLE u (k int PUBLIC)", 2),
            ("ALTER TABLE t ADD COLUMN x timestamp with time zone PUBLIC", 1),
            ("ALTER TABLE t ADD COLUMN IF NOT EXISTS x int PUBLIC, ADD y int PUBLIC", 2),
            ("CREATE TABLE t (public int, b int REFERENCES public.u (public), \"PUBLIC\" text)", 0),
            ("CREATE TABLE t (b int REFERENCES public)", 0),
            ("CREATE TABLE t (a int CONSTRAINT public CHECK (a > 0), CONSTRAINT public UNIQUE (a))", 0),
            ("CREATE TABLE t (public public, CHECK (public > 0))", 0),
            ("CREATE TABLE public.t AS SELECT public FROM (SELECT 1 a, 2 public) q", 0),
            ("ALTER TABLE t ADD COLUMN public int", 0),
            ("ALTER TABLE public.t RENAME TO public", 0),
            ("ALTER TABLE t SET SCHEMA public", 0),
            ("SELECT 'CREATE TABLE t (a int PUBLIC)' AS public FROM public.tables public", 0),
        ] {
            let got = marked(text);
            assert_eq!(got.matches(PUBLIC).count(), options, "{text}: {got}");
            if options == 0 {
                assert_eq!(got, text);
            }
        }
        let got = marked("CREATE TABLE t (a int PUBLIC NOT NULL)");
        assert_eq!(got, "CREATE TABLE t (a int COLLATE \"fluence_public\" NOT NULL)");
    }
}
