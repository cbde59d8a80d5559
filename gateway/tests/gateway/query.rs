//! Queries: what DataFusion gives on verified rows, settings, prepared statements, the system catalogue.

use crate::real::{rows, say, session, state, tag};
use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use fluence_gateway::SqlSession;

async fn with_rows() -> SqlSession {
    let mut s = session().await;
    tag(&mut s, "CREATE TABLE a (id bigint PRIMARY KEY, g text, n bigint); CREATE TABLE b (id bigint PRIMARY KEY, aid bigint, v numeric(6,2))").await;
    tag(&mut s, "INSERT INTO a VALUES (1, 'x', 1), (2, 'x', 2), (3, 'y', 3), (4, NULL, NULL)").await;
    tag(&mut s, "INSERT INTO b VALUES (1, 1, 1.50), (2, 1, 2.25), (3, 3, 3.00), (4, 9, 4.00)").await;
    s
}

#[tokio::test]
async fn joins_windows_groups_and_subqueries() {
    let s = &mut with_rows().await;
    for (text, expected) in [
        ("SELECT a.id, sum(b.v) FROM a JOIN b ON b.aid = a.id GROUP BY a.id ORDER BY 1", vec!["1|3.75", "3|3.00"]),
        (
            "SELECT a.id, b.id FROM a LEFT JOIN b ON b.aid = a.id WHERE b.id IS NULL ORDER BY 1",
            vec!["2|NULL", "4|NULL"],
        ),
        (
            "SELECT g, count(*), avg(n) FROM a GROUP BY g ORDER BY g NULLS LAST",
            vec!["x|2|1.500000000000", "y|1|3.000000000000", "NULL|1|NULL"],
        ),
        (
            "SELECT id, row_number() OVER (PARTITION BY g ORDER BY id DESC) FROM a WHERE g = 'x' ORDER BY id",
            vec!["1|2", "2|1"],
        ),
        ("WITH t AS (SELECT n FROM a WHERE n > 1) SELECT max(n), min(n) FROM t", vec!["3|2"]),
        ("SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.aid = a.id) ORDER BY id", vec!["1", "3"]),
        ("SELECT id FROM a WHERE n > (SELECT avg(n) FROM a)", vec!["3"]),
        ("SELECT id FROM a UNION SELECT id FROM b EXCEPT SELECT 1 ORDER BY 1", vec!["2", "3", "4"]),
        ("SELECT x.id FROM a x JOIN a y ON x.id = y.id + 1 ORDER BY 1", vec!["2", "3", "4"]),
        ("SELECT count(*), count(n), sum(n), avg(n), min(id) FROM a", vec!["4|3|6|2.000000000000|1"]),
        ("SELECT count(*), sum(n) FROM a WHERE id > 100", vec!["0|NULL"]),
        ("SELECT id FROM a ORDER BY id LIMIT 2 OFFSET 1", vec!["2", "3"]),
        ("SELECT id FROM a ORDER BY id DESC LIMIT 1", vec!["4"]),
    ] {
        assert_eq!(rows(s, text).await, expected, "{text}");
    }
    for (text, code) in [
        ("SELECT nosuch FROM a", "42703"),
        ("SELECT id FROM a, b", "42702"),
        ("SELECT nosuch(1)", "42883"),
        ("SELECT 1 / 0", "22012"),
        ("SELEC 1", "42601"),
        ("SELECT g, n FROM a GROUP BY g", "42803"),
        ("SELECT (SELECT id FROM a) FROM b", "21000"),
        ("INSERT INTO b VALUES (9, 1, 12345678)", "22003"),
        ("SELECT 1::nosuchtype", "42704"),
        ("SELECT 'x'::bigint", "22P02"),
        ("GRANT SELECT ON a TO bob", "0A000"),
    ] {
        assert_eq!(state(s, text).await, code, "{text}");
    }
}

#[tokio::test]
async fn what_the_planner_would_misunderstand_is_said_or_refused() {
    let s = &mut with_rows().await;
    tag(s, "CREATE TABLE n (id bigint PRIMARY KEY, y bigint); INSERT INTO n VALUES (1, 1), (2, 5), (3, NULL)").await;
    tag(s, "CREATE TABLE m (id bigint PRIMARY KEY, y bigint); INSERT INTO m VALUES (1, 1), (2, NULL)").await;
    assert!(rows(s, "SELECT id FROM n WHERE y NOT IN (SELECT y FROM m)").await.is_empty());
    for text in [
        "SELECT id FROM n WHERE y NOT IN (SELECT y FROM m) OR id = 99",
        "SELECT id FROM n WHERE NOT (y IN (SELECT y FROM m) AND id > 0)",
        "DELETE FROM n WHERE y NOT IN (SELECT y FROM m) OR id = 99",
        "UPDATE n SET y = 0 WHERE (y IN (SELECT y FROM m)) IS NULL",
    ] {
        assert_eq!(state(s, text).await, "0A000", "{text}");
    }
    // Where no NULL can be, nothing is in doubt.
    assert_eq!(rows(s, "SELECT id FROM n WHERE id NOT IN (SELECT id FROM m) OR id = 1 ORDER BY id").await, ["1", "3"]);
    assert_eq!(state(s, "SELECT id FROM n WHERE y IS DISTINCT FROM 1 AND id > 2").await, "42601");
    assert_eq!(rows(s, "SELECT id FROM n WHERE (y IS DISTINCT FROM 1) AND id > 2").await, ["3"]);
    assert_eq!(rows(s, "SELECT n, n, count(*), count(*) FROM a WHERE id = 2 GROUP BY n").await, ["2|2|1|1"]);
    assert_eq!(rows(s, "SELECT 1, 1").await, ["1|1"]);
    assert_eq!(rows(s, "SELECT current_user").await, ["ada"]);
    tag(s, "SET application_name = 'x'; RESET application_name").await;
    assert_eq!(rows(s, "SHOW application_name").await, [""]);
}

#[tokio::test]
async fn arithmetic_gives_what_postgres_gives() {
    let s = &mut session().await;
    tag(s, "CREATE TABLE o (id bigint PRIMARY KEY, d date, x numeric(15,2)); CREATE INDEX o_d ON o (d)").await;
    tag(s, "INSERT INTO o VALUES (1, '1995-01-01', 1.00), (2, '1995-01-02', 1.00), (3, '1995-01-03', 1.01)").await;
    for (text, expected) in [
        ("SELECT count(*) FROM o WHERE d < date '1995-01-01' + interval '36 hours'", "2"),
        ("SELECT count(*) FROM o WHERE d < date '1995-01-01' + interval '1 day'", "1"),
        ("SELECT count(*) FROM o WHERE d + interval '12 hours' < timestamp '1995-01-01 12:00:00'", "0"),
        ("SELECT d + interval '12 hours' FROM o WHERE id = 1", "1995-01-01T12:00:00"),
        ("SELECT date '1995-01-31' + interval '1 month'", "1995-02-28"),
        ("SELECT avg(x) FROM o", "1.003333333333333"),
        ("SELECT avg(x) FROM o WHERE id <= 3 AND x > 0", "1.003333333333333"),
        ("SELECT count(*) FROM o WHERE x >= (SELECT avg(x) FROM o)", "1"),
        (
            "SELECT round(1 / 3.0, 10), round(2 / 3.0, 10), round(1.00 / 7, 12)",
            "0.3333333333|0.6666666667|0.142857142857",
        ),
        ("SELECT sum(x) / count(*) > 1.0033 FROM o", "true"),
        ("SELECT 7 / 2, -7 / 2, 7.0 / 2", "3|-3|3.500000000000000000"),
    ] {
        let came = rows(s, text).await.join("/");
        // Zeros at the end are a matter of scale.
        let plain = |t: &str| {
            t.split('|')
                .map(|v| if v.contains('.') { v.trim_end_matches('0').trim_end_matches('.') } else { v }.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(&came), plain(expected), "{text}");
    }
    let plan = rows(s, "EXPLAIN SELECT avg(x), count(*) FROM o WHERE d < date '1995-01-01' + interval '2 days'")
        .await
        .join("\n");
    assert!(plan.contains("ProvenAggregate"), "{plan}");
    assert_eq!(rows(s, "SELECT variance(x) IS NULL FROM o WHERE id = 1").await, ["true"]);
}

#[tokio::test]
async fn arrays_are_read_as_they_are_written_and_unnested_side_by_side() {
    let s = &mut with_rows().await;
    assert_eq!(rows(s, "SELECT array_length('{3,1,NULL}'::bigint[], 1), ('{a,\"b,c\"}'::text[])[2]").await, ["3|b,c"]);
    assert_eq!(rows(s, "SELECT 2 = ANY('{1,2}'::int[]), 3 = ANY('{1,2}'::int[])").await, ["true|false"]);
    assert_eq!(rows(s, "SELECT count(*) FROM unnest('{}'::int[]) AS t(x)").await, ["0"]);
    let both = "SELECT * FROM UNNEST(('{1,2}')::smallint[], ('{x,NULL}')::varchar[]) AS t(n, w)";
    assert_eq!(rows(s, both).await, ["1|x", "2|NULL"]);
    assert_eq!(state(s, "SELECT '{1,2'::int[]").await, "22P02");
    assert_eq!(state(s, "SELECT '{x}'::int[]").await, "22P02");
    tag(s, "CREATE TABLE many (id serial PRIMARY KEY, n smallint NOT NULL, w varchar(5))").await;
    let insert =
        "INSERT INTO many (n, w) SELECT * FROM UNNEST(('{4,5,6}')::smallint[], ('{a,b,c}')::varchar[]) RETURNING n";
    assert_eq!(rows(s, insert).await, ["4", "5", "6"]);
    assert_eq!(rows(s, "SELECT n, w FROM many ORDER BY id").await, ["4|a", "5|b", "6|c"]);
}

#[tokio::test]
async fn what_is_grouped_by_a_primary_key_shows_every_column() {
    let s = &mut session().await;
    tag(
        s,
        "CREATE TABLE g (id bigint PRIMARY KEY, name text, size int); CREATE TABLE m (id bigint PRIMARY KEY, g bigint)",
    )
    .await;
    tag(s, "INSERT INTO g VALUES (1, 'one', 10), (2, NULL, 20), (3, 'one', 30); INSERT INTO m VALUES (1, 1), (2, 1), (3, 3)").await;
    let counted = "SELECT g.id, g.name, count(m.id) FROM g LEFT JOIN m ON m.g = g.id GROUP BY g.id ORDER BY g.id";
    assert_eq!(rows(s, counted).await, ["1|one|2", "2|NULL|0", "3|one|1"]);
    let having = "SELECT name, sum(m.id) AS s FROM g JOIN m ON m.g = g.id GROUP BY g.id HAVING size > 10 ORDER BY size";
    assert_eq!(rows(s, having).await, ["one|3"]);
    // Not by less than the key, and not of the side that an outer join fills up.
    assert_eq!(state(s, "SELECT id, name, count(*) FROM g GROUP BY name").await, "42803");
    let filled = "SELECT m.id, g.name FROM g LEFT JOIN m ON m.g = g.id GROUP BY m.id, g.id ORDER BY g.id, m.id";
    assert_eq!(rows(s, filled).await, ["1|one", "2|one", "NULL|NULL", "3|one"]);
    assert_eq!(rows(s, "SELECT DISTINCT id, name FROM g ORDER BY id").await.len(), 3);
    // What a transaction changes is grouped as it stands.
    tag(s, "BEGIN; UPDATE g SET name = 'two' WHERE id = 2").await;
    assert_eq!(
        rows(s, "SELECT id, name, count(*) FROM g GROUP BY id ORDER BY id").await,
        ["1|one|1", "2|two|1", "3|one|1"]
    );
    tag(s, "ROLLBACK").await;
}

#[tokio::test]
async fn parameters_have_types_and_are_values_only() {
    let s = &mut with_rows().await;
    for (text, types) in [
        ("SELECT id FROM a WHERE n = $1 AND g = $2", vec![DataType::Int64, DataType::Utf8]),
        ("INSERT INTO a VALUES ($1, $2, $3)", vec![DataType::Int64, DataType::Utf8, DataType::Int64]),
        ("UPDATE b SET v = $1 WHERE id = $2", vec![DataType::Decimal128(6, 2), DataType::Int64]),
        ("SELECT $1::date", vec![DataType::Date32]),
        ("SELECT $1", vec![DataType::Utf8]),
    ] {
        let statement = s.parse(text).unwrap().pop().unwrap();
        assert_eq!(s.prepare(statement, Vec::new()).await.unwrap().params, types, "{text}");
    }
    let statement = s.parse("INSERT INTO a VALUES ($1, $2, $3) RETURNING *").unwrap().pop().unwrap();
    let prepared = s.prepare(statement, Vec::new()).await.unwrap();
    let nasty = "'); DROP TABLE a; --\\";
    let values =
        vec![ScalarValue::Int64(Some(-7)), ScalarValue::Utf8(Some(nasty.to_owned())), ScalarValue::Int64(None)];
    let said = say(s.execute(&prepared, values).await.unwrap()).await.unwrap();
    assert_eq!(said.rows, [format!("-7|{nasty}|NULL")]);
    let statement = s.parse("SELECT id FROM a WHERE g = $1").unwrap().pop().unwrap();
    let prepared = s.prepare(statement, Vec::new()).await.unwrap();
    let said = say(s.execute(&prepared, vec![ScalarValue::Utf8(Some(nasty.to_owned()))]).await.unwrap()).await.unwrap();
    assert_eq!(said.rows, ["-7"]);
    assert!(s.execute(&prepared, Vec::new()).await.is_err(), "a parameter without a value");
    tag(s, "PREPARE q (bigint) AS SELECT g FROM a WHERE id = $1").await;
    assert_eq!(rows(s, "EXECUTE q (3)").await, ["y"]);
    assert_eq!(state(s, "EXECUTE q (1, 2)").await, "42601");
    tag(s, "DEALLOCATE q").await;
    assert_eq!(state(s, "EXECUTE q (3)").await, "42704");
}

#[tokio::test]
async fn settings_are_shown_and_refused() {
    let s = &mut session().await;
    assert_eq!(rows(s, "SHOW TIME ZONE").await, ["UTC"]);
    assert_eq!(rows(s, "SHOW transaction_isolation").await, ["serializable"]);
    tag(s, "SET application_name = 'tests'").await;
    assert_eq!(rows(s, "SHOW application_name").await, ["tests"]);
    assert_eq!(state(s, "SET client_encoding = 'LATIN1'").await, "0A000");
    assert_eq!(state(s, "SET TIME ZONE 'Europe/Berlin'").await, "0A000");
    assert_eq!(state(s, "SHOW nosuch").await, "42704");
    tag(s, "SET CONSTRAINTS ALL IMMEDIATE").await;
    tag(s, "set constraints all deferred;").await;
    assert_eq!(state(s, "SET CONSTRAINTS fk DEFERRED").await, "42601");
    assert_eq!(state(s, "SET fluence.nosuch = 1").await, "42704");
    assert_eq!(state(s, "SET fluence.proof = 'groth16'").await, "0A000");
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY); SET fluence.notices = on").await;
    s.take_notices();
    rows(s, "SELECT count(*) FROM t").await;
    let notices = s.take_notices();
    assert!(notices.iter().any(|n| n.message.starts_with("verified at height")), "{notices:?}");
}

#[tokio::test]
async fn the_system_catalogue_answers_tools() {
    let s = &mut with_rows().await;
    let listed = rows(s, "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY 1").await;
    assert_eq!(listed, ["a", "b"]);
    assert_eq!(rows(s, "SELECT current_schema()").await, ["public"]);
    assert!(rows(s, "SELECT version()").await[0].contains("PostgreSQL"));
}
