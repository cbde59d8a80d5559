//! The system catalogue as tools ask it: subqueries that DataFusion does not join, names and OIDs, sets of rows in a SELECT list.

use crate::real::{rows, session, state, tag};
use fluence_gateway::SqlSession;

async fn library() -> SqlSession {
    let mut s = session().await;
    tag(&mut s, "CREATE TABLE authors (id serial PRIMARY KEY, name varchar(50) NOT NULL)").await;
    tag(&mut s, "CREATE TABLE books (a integer, b integer, price numeric(8,2) DEFAULT 1.5, PRIMARY KEY (b, a))").await;
    tag(&mut s, "CREATE UNIQUE INDEX books_price ON books (price, a)").await;
    tag(&mut s, "CREATE VIEW names AS SELECT name FROM authors").await;
    tag(&mut s, "INSERT INTO authors (name) VALUES ('Ada'), ('Bob')").await;
    s
}

#[tokio::test]
async fn subqueries_of_the_catalogue_mention_what_is_around_them_however_far_out() {
    let s = &mut library().await;
    for (text, expected) in [
        (
            "SELECT a.attname, (SELECT t.typname FROM pg_type t WHERE t.oid = a.atttypid) FROM pg_attribute a \
             WHERE a.attrelid = 'books'::regclass ORDER BY a.attnum",
            vec!["a|int4", "b|int4", "price|numeric"],
        ),
        // In a CASE, and two queries out.
        (
            "SELECT c.relname, CASE WHEN c.relkind = 'r' THEN (SELECT d.adbin FROM pg_attrdef d WHERE d.adrelid = \
             (SELECT a.attrelid FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = d.adnum)) END FROM pg_class c \
             WHERE c.relname IN ('books', 'names') ORDER BY 1",
            vec!["books|1.5", "names|NULL"],
        ),
        // Not an aggregate, and one; EXISTS as a value; an order within ARRAY.
        (
            "SELECT c.relname, (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid), \
             EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND NOT i.indisprimary), \
             array_to_string(ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum DESC), ',') \
             FROM pg_class c WHERE c.relname IN ('authors', 'books') ORDER BY 1",
            vec!["authors|1|false|name,id", "books|2|true|price,b,a"],
        ),
        // IN below OR, with a NULL in it: not known, which is not true.
        (
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 2200 AND c.relkind = 'r' AND (c.relname = 'authors' OR \
             c.oid NOT IN (SELECT CASE WHEN i.indisprimary THEN i.indrelid END FROM pg_index i)) ORDER BY 1",
            vec!["authors"],
        ),
        (
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 2200 AND c.relkind IN ('r', 'v') \
             AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid) ORDER BY 1",
            vec!["names"],
        ),
        // A recursive query within, as asyncpg has it.
        (
            "SELECT t.typname, (WITH RECURSIVE b(oid, depth) AS (SELECT x.typelem, 0 FROM pg_type x WHERE x.oid = t.oid UNION ALL \
             SELECT x.typelem, b.depth + 1 FROM pg_type x, b WHERE b.oid = x.oid AND x.typelem <> 0) \
             SELECT oid FROM b ORDER BY depth DESC LIMIT 1) FROM pg_type t WHERE t.typname IN ('_int4', 'int4') ORDER BY 1",
            vec!["_int4|23", "int4|0"],
        ),
        // Around it may be a table of the owner's.
        (
            "SELECT a.name, (SELECT c.relname FROM pg_class c WHERE c.relname = 'books' AND a.id = 1) FROM authors a ORDER BY a.id",
            vec!["Ada|books", "Bob|NULL"],
        ),
    ] {
        assert_eq!(rows(s, text).await, expected, "{text}");
    }
}

#[tokio::test]
async fn a_value_of_two_rows_is_an_error_and_the_owners_tables_are_left_to_the_planner() {
    let s = &mut library().await;
    let two = "SELECT (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid) FROM pg_class c WHERE c.relname = 'books'";
    assert_eq!(state(s, two).await, "21000");
    // Of the owner's tables a value that might have two rows is refused, and never the first or the greatest of them.
    for text in [
        "SELECT (SELECT b.a FROM books b WHERE b.b = x.id) FROM authors x",
        "SELECT (SELECT b.a FROM books b, pg_class c WHERE b.b = x.id) FROM authors x",
    ] {
        let _refused = state(s, text).await;
    }
}

#[tokio::test]
async fn names_become_oids_and_oids_names() {
    let s = &mut library().await;
    for (text, expected) in [
        ("SELECT c.relname FROM pg_class c WHERE c.oid = 'books'::regclass", "books"),
        ("SELECT c.relname FROM pg_class c WHERE c.oid = 'public.books'::regclass", "books"),
        ("SELECT 'books'::regclass::oid::regclass::text", "books"),
        ("SELECT 'pg_catalog.pg_class'::regclass::oid", "1259"),
        ("SELECT 'integer'::regtype::oid", "23"),
        ("SELECT 1184::regtype::text", "timestamp with time zone"),
        ("SELECT to_regclass('nowhere') IS NULL, to_regtype('nosuchtype') IS NULL, to_regtype('int4')", "true|true|23"),
        ("SELECT nspname FROM pg_namespace WHERE oid = 'public'::regnamespace", "public"),
        ("SELECT pg_get_userbyid(10), 10::regrole::text", "fluence|fluence"),
        ("SELECT setting FROM pg_settings WHERE name = 'max_index_keys'", "32"),
    ] {
        assert_eq!(rows(s, text).await, [expected], "{text}");
    }
    assert_eq!(state(s, "SELECT 'nowhere'::regclass").await, "42P01");
    assert_eq!(state(s, "SELECT 'nosuchtype'::regtype").await, "42704");
    tag(s, "SET application_name = 'tests'").await;
    assert_eq!(rows(s, "SELECT setting FROM pg_settings WHERE name = 'application_name'").await, ["tests"]);
}

/// The words of PostgreSQL's driver for Java.
#[tokio::test]
async fn keys_are_listed_in_their_order_as_jdbc_asks() {
    let s = &mut library().await;
    let keys = "SELECT result.COLUMN_NAME, result.KEY_SEQ, result.PK_NAME FROM (SELECT ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME, \
        (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME, \
        information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM FROM pg_catalog.pg_class ct \
        JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) \
        JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE true AND ct.relname = 'books' AND i.indisprimary) result \
        where result.A_ATTNUM = (result.KEYS).x ORDER BY result.key_seq";
    assert_eq!(rows(s, keys).await, ["b|1|books_pkey", "a|2|books_pkey"]);
}

#[tokio::test]
async fn a_setting_is_made_by_a_function_and_rolled_back_as_by_set() {
    let s = &mut library().await;
    assert_eq!(rows(s, "SELECT set_config('application_name', 'tests', false)").await, ["tests"]);
    assert_eq!(rows(s, "SHOW application_name").await, ["tests"]);
    tag(s, "BEGIN").await;
    rows(s, "SELECT set_config('application_name', 'other', true), current_setting('application_name')").await;
    assert_eq!(rows(s, "SHOW application_name").await, ["other"]);
    tag(s, "COMMIT").await;
    assert_eq!(rows(s, "SHOW application_name").await, ["tests"]);
    assert_eq!(state(s, "SELECT set_config('timezone', 'Mars/Olympus', false)").await, "0A000");
}

#[tokio::test]
async fn a_table_may_be_called_like_a_column_within() {
    let s = &mut library().await;
    let text = "SELECT a.* FROM authors a WHERE EXISTS (SELECT 1 FROM books b WHERE b.b = a.id) ORDER BY a.id";
    assert!(rows(s, text).await.is_empty());
    tag(s, "INSERT INTO books (a, b) VALUES (9, 2)").await;
    assert_eq!(rows(s, text).await, ["2|Bob"]);
}
