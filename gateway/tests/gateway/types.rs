//! Columns are what they are declared as: in what they take, in what they give, in what the catalogue says.

use crate::real::{real, rows, state, tag};
use fluence_gateway::DataType;
use fluence_gateway::session::{GatewayOptions, Outcome};

#[tokio::test]
async fn what_does_not_fit_its_column_is_refused() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    tag(s, "CREATE TABLE t (id integer PRIMARY KEY, s smallint, u uuid, j json, v varchar(3), t timestamp)").await;
    tag(s, "INSERT INTO t VALUES (2147483647, -32768, 'A0EEBC999C0B4EF8BB6D6BB9BD380A11', '{\"a\": 1}', 'abc', '2020-01-02 03:04:05')").await;
    for (text, code) in [
        ("INSERT INTO t (id) VALUES (2147483648)", "22003"),
        ("INSERT INTO t (id, s) VALUES (1, 32768)", "22003"),
        ("INSERT INTO t (id, u) VALUES (1, 'no')", "22P02"),
        ("INSERT INTO t (id, j) VALUES (1, '{a}')", "22P02"),
        ("INSERT INTO t (id, v) VALUES (1, 'abcd')", "22001"),
        ("UPDATE t SET id = id + 1", "22003"),
        ("UPDATE t SET s = s - 1", "22003"),
        ("SELECT id + 1 FROM t", "22003"),
        ("SELECT 9223372036854775807 + id FROM t", "22003"),
        ("SELECT -(s::smallint) FROM t", "22003"),
        ("SELECT 'no'::uuid", "22P02"),
    ] {
        assert_eq!(state(s, text).await, code, "{text}");
    }
    let all = "2147483647|-32768|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{\"a\": 1}|abc|2020-01-02T03:04:05";
    assert_eq!(rows(s, "SELECT * FROM t").await, [all]);
    // Numbers are rounded where they become integers, in casts and in assignments.
    let rounded = "SELECT 1.5::integer, (-2.5)::integer, 2.4::bigint, 2.5::float8::integer, 3.5::float8::smallint";
    assert_eq!(rows(s, rounded).await, ["2|-3|2|2|4"]);
    tag(s, "CREATE TABLE r (n integer, b bytea PRIMARY KEY); INSERT INTO r VALUES (1.5, '\\x00ff'), (-0.5, '\\x01')")
        .await;
    assert_eq!(rows(s, "SELECT n FROM r ORDER BY n").await, ["-1", "2"]);
    // Bytes beside a text are what the text writes.
    for text in ["b = '\\x00ff'", "b IN ('\\x00ff', '\\x02')", "b BETWEEN '\\x00' AND '\\x00ffff'", "'\\x01' > b"] {
        assert_eq!(rows(s, &format!("SELECT n FROM r WHERE {text}")).await, ["2"], "{text}");
    }
    assert_eq!(state(s, "SELECT n FROM r WHERE b = '\\x0'").await, "22P02");
    // A sum of what is wide does not wrap around; a mean is exact.
    tag(s, "CREATE TABLE w (n bigint); INSERT INTO w VALUES (9223372036854775807), (9223372036854775807)").await;
    for text in ["SELECT sum(n) FROM w", "SELECT sum(n) FROM w WHERE n > 0"] {
        assert_eq!(rows(s, text).await, ["18446744073709551614"], "{text}");
    }
    assert_eq!(rows(s, "SELECT avg(n) FROM w").await, ["9223372036854775807.000000000000"]);
}

#[tokio::test]
async fn keys_of_every_type_are_found_by_their_range() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    for (ty, low, mid, high) in [
        ("integer", "-5", "0", "7"),
        ("smallint", "-5", "0", "7"),
        (
            "uuid",
            "'00000000-0000-0000-0000-000000000001'",
            "'10000000-0000-0000-0000-000000000000'",
            "'F0000000-0000-0000-0000-000000000000'",
        ),
        ("timestamp", "'2000-01-01'", "'2020-01-01 10:00:00'", "'2021-01-01'"),
        ("timestamptz", "'2000-01-01'", "'2020-01-01 10:00:00+02:00'", "'2021-01-01'"),
        ("varchar(40)", "'a'", "'b'", "'c'"),
    ] {
        let table = format!("k_{}", ty.split('(').next().unwrap());
        tag(s, &format!("CREATE TABLE {table} (k {ty} PRIMARY KEY, n integer)")).await;
        tag(s, &format!("INSERT INTO {table} VALUES ({low}, 1), ({mid}, 2), ({high}, 3)")).await;
        let cast = ty.split('(').next().unwrap();
        for (filter, wanted) in [
            (format!("k = {mid}::{cast}"), "2"),
            (format!("k > {low}::{cast} AND k < {high}::{cast}"), "2"),
            (format!("k IN ({high}::{cast}, {low}::{cast})"), "1 3"),
        ] {
            let text = format!("SELECT n FROM {table} WHERE {filter} ORDER BY n");
            assert_eq!(rows(s, &text).await.join(" "), wanted, "{text}");
            let plan = rows(s, &format!("EXPLAIN {text}")).await.join("\n");
            assert!(!plan.contains("range=all") && !plan.contains("FilterExec"), "{text}\n{plan}");
        }
        tag(s, &format!("UPDATE {table} SET n = 9 WHERE k = {mid}::{cast}")).await;
        assert_eq!(state(s, &format!("INSERT INTO {table} VALUES ({high}, 4)")).await, "23505");
        assert_eq!(rows(s, &format!("SELECT sum(n) FROM {table}")).await, ["13"]);
    }
}

#[tokio::test]
async fn a_declared_type_goes_through_queries_views_and_new_tables() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    tag(s, "CREATE TABLE t (id serial PRIMARY KEY, s smallint DEFAULT 3, u uuid, v varchar(9), d numeric)").await;
    tag(s, "INSERT INTO t (u, v) VALUES (NULL, 'x') RETURNING id, s").await;
    tag(s, "CREATE TABLE copy AS SELECT id, s, v, u FROM t; CREATE VIEW seen AS SELECT id, u AS who FROM t").await;
    tag(s, "ALTER TABLE t ADD COLUMN more integer DEFAULT 5; ALTER TABLE t ALTER COLUMN s TYPE integer").await;
    let wanted = [
        "copy|id|integer",
        "copy|s|smallint",
        "copy|u|uuid",
        "copy|v|character varying",
        "seen|id|integer",
        "seen|who|uuid",
        "t|d|numeric",
        "t|id|integer",
        "t|more|integer",
        "t|s|integer",
        "t|u|uuid",
        "t|v|character varying",
    ];
    let text = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2";
    assert_eq!(rows(s, text).await, wanted);
    let statement = s.parse("SELECT id, s, id + s, more * 2 FROM t").unwrap().remove(0);
    let prepared = s.prepare(statement, Vec::new()).await.unwrap();
    let types: Vec<DataType> =
        prepared.columns.clone().unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, vec![DataType::Int32; 4]);
    assert!(matches!(s.execute(&prepared, Vec::new()).await.unwrap(), Outcome::Rows { .. }));
    assert_eq!(rows(s, "SELECT more, s FROM t").await, ["5|3"]);
}

#[tokio::test]
async fn the_catalogue_knows_keys_indexes_and_checks() {
    let real = real().await;
    let mut s = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    let s = &mut s;
    tag(s, "CREATE TABLE t (a integer, b text, c bigint UNIQUE, PRIMARY KEY (b, a), CHECK (a > 0)); CREATE INDEX \"T i\" ON t (c, b)").await;
    let of_t = "SELECT oid FROM pg_class WHERE relname = 't'";
    let text = format!(
        "SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = ({of_t}) ORDER BY 1"
    );
    assert_eq!(
        rows(s, &text).await,
        ["t_c_key|u|UNIQUE (c)", "t_check0|c|CHECK ((a > 0))", "t_pkey|p|PRIMARY KEY (b, a)"]
    );
    let text = format!(
        "SELECT pg_get_indexdef(indexrelid), indisprimary, indkey FROM pg_index WHERE indrelid = ({of_t}) ORDER BY 1"
    );
    assert_eq!(
        rows(s, &text).await,
        [
            "CREATE INDEX \"T i\" ON public.t USING btree (c, b)|false|[3, 2]",
            "CREATE UNIQUE INDEX t_c_key ON public.t USING btree (c)|false|[3]",
            "CREATE UNIQUE INDEX t_pkey ON public.t USING btree (b, a)|true|[2, 1]",
        ]
    );
    let before = rows(s, of_t).await;
    tag(s, "CREATE TABLE a_before (n integer); ALTER TABLE t ADD COLUMN d date").await;
    assert_eq!(rows(s, of_t).await, before, "an OID stays");
    let usage = "SELECT column_name, ordinal_position FROM information_schema.key_column_usage WHERE constraint_name = 't_pkey' ORDER BY 2";
    assert_eq!(rows(s, usage).await, ["b|1", "a|2"]);
    assert_eq!(rows(s, "SELECT generate_subscripts(ARRAY[7, 8], 1), unnest(ARRAY[7, 8])").await, ["1|7", "2|8"]);
    assert_eq!(
        rows(s, "SELECT json_build_object('a', 1, 'b', NULL, 'c', 'x\"')").await,
        [r#"{"a" : 1, "b" : null, "c" : "x\""}"#]
    );
    assert_eq!(rows(s, "SELECT ARRAY(SELECT a FROM (VALUES (2)) AS v(a))").await, ["[2]"]);
    assert_eq!(rows(s, "SELECT ARRAY(SELECT a FROM (VALUES (2), (1)) AS v(a) ORDER BY a)").await, ["[1, 2]"]);
    assert_eq!(
        rows(s, "SELECT ARRAY(SELECT abs(a) AS b FROM (VALUES (1), (-2)) AS v(a) ORDER BY b DESC)").await,
        ["[2, 1]"]
    );
    assert_eq!(state(s, "SELECT ARRAY(SELECT a FROM (VALUES (2), (1)) AS v(a) ORDER BY a LIMIT 1)").await, "0A000");
    assert_eq!(
        rows(s, "SELECT a, a::text, (a + 1)::text, a + 1, a::bigint + 1 FROM (VALUES (2)) AS v(a)").await,
        ["2|2|3|3|3"]
    );
    assert_eq!(state(s, "SELECT current_setting('nothing')").await, "42704");
}
