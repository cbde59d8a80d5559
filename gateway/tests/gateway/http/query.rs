//! Statements: their parameters, their values, their errors, in one text and in lines.

use super::support::{options, start};
use serde_json::json;

#[tokio::test]
async fn a_statement_says_columns_rows_tag_and_what_it_rests_on() {
    let server = start(options()).await;
    let made =
        server.query("CREATE TABLE t (id bigint PRIMARY KEY, name text, w numeric(5,1))", json!([])).await.json();
    assert_eq!(
        (&made["command"], &made["verified"], &made["rows"]),
        (&json!("CREATE TABLE"), &json!(null), &json!([]))
    );
    let written = server.query("INSERT INTO t VALUES ($1, $2, $3)", json!([1, "Ada", "61.5"])).await.json();
    assert_eq!((&written["command"], &written["row_count"]), (&json!("INSERT 0 1"), &json!(1)));
    let read = server.query("SELECT id, name, w FROM t WHERE id = $1", json!([1])).await.json();
    assert_eq!(read["rows"], json!([[1, "Ada", "61.5"]]));
    assert_eq!(
        read["columns"],
        json!([
            {"name": "id", "type": "bigint"},
            {"name": "name", "type": "text"},
            {"name": "w", "type": "numeric", "precision": 5, "scale": 1},
        ])
    );
    assert_eq!(
        (&read["command"], &read["row_count"], &read["transaction"]),
        (&json!("SELECT 1"), &json!(1), &json!("idle"))
    );
    assert!(
        read["verified"]["height"].as_u64().unwrap() > 0 && read["verified"]["bytes"].as_u64().unwrap() > 0,
        "{read}"
    );
    assert_eq!(
        server.query("DELETE FROM t WHERE id = 1 RETURNING name", json!([])).await.json()["rows"],
        json!([["Ada"]])
    );
    server.stop().await;
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_went() {
    let server = start(options()).await;
    let sql = "CREATE TABLE v (id bigint PRIMARY KEY, i bigint, n numeric(20,4), f double precision, b boolean, d date, \
        z timestamptz, y bytea, s text)";
    assert_eq!(server.query(sql, json!([])).await.status, 200);
    let typed = |ty: &str, value: serde_json::Value| json!({"type": ty, "value": value});
    let rows = [
        json!([
            1,
            9007199254740991i64,
            "12345678901234.5678",
            0.1,
            true,
            "2013-05-01",
            "2013-05-01T12:00:00.123456Z",
            "\\x00ff",
            "é\n\"\\"
        ]),
        json!([2, i64::MIN, "-0.0001", 1e300, false, "0001-01-01", "1969-12-31T23:59:59.999999Z", "\\x", ""]),
        json!([3, null, null, null, null, null, null, null, null]),
    ];
    for row in &rows {
        let answer = server.query("INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", row.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let said = server.rows("SELECT * FROM v ORDER BY id").await;
    assert_eq!(said[0], rows[0]);
    // Beyond 2^53 - 1 an integer is a string; as a parameter it may be one too.
    assert_eq!(
        (&said[1][1], &said[1][2], &said[1][3]),
        (&json!("-9223372036854775808"), &json!("-0.0001"), &json!(1e300))
    );
    assert_eq!(said[2], rows[2]);
    let again = server.query("SELECT id FROM v WHERE i = $1", json!(["-9223372036854775808"])).await.json();
    assert_eq!(again["rows"], json!([[2]]));
    let types = json!([
        typed("bigint", json!(7)),
        typed("numeric", json!("1.50")),
        typed("double precision", json!("NaN")),
        typed("date", json!("2013-05-01")),
        typed("timestamp", json!("2013-05-01 12:00:00")),
        typed("bytea", json!("\\x0a")),
        typed("boolean", json!(null)),
        "told by nothing",
    ]);
    let back = server.query("SELECT $1 a, $2 b, $3 c, $4 d, $5 e, $6 f, $7 g, $8 h", types).await;
    assert_eq!(back.status, 200, "{}", back.text());
    let back = back.json();
    assert_eq!(
        back["rows"],
        json!([[7, "1.50", "NaN", "2013-05-01", "2013-05-01T12:00:00", "\\x0a", null, "told by nothing"]])
    );
    let names: Vec<_> = back["columns"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    let expected = ["bigint", "numeric", "double precision", "date", "timestamp", "bytea", "boolean", "text"];
    assert_eq!(names, expected);
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_has_status_sqlstate_and_place() {
    let server = start(options()).await;
    server.query("CREATE TABLE t (id bigint PRIMARY KEY, v text NOT NULL)", json!([])).await;
    server.query("INSERT INTO t VALUES (1, 'a')", json!([])).await;
    for (sql, params, status, state) in [
        ("SELECT (", json!([]), 400, "42601"),
        ("SELECT * FROM nosuch", json!([]), 400, "42P01"),
        ("SELECT nosuch FROM t", json!([]), 400, "42703"),
        ("INSERT INTO t VALUES (1, 'b')", json!([]), 409, "23505"),
        ("INSERT INTO t VALUES (2, NULL)", json!([]), 422, "23502"),
        ("SELECT * FROM t WHERE id = $1", json!(["x"]), 422, "22P02"),
        ("SELECT * FROM t WHERE id = $1", json!([1.5]), 422, "22P02"),
        ("SELECT * FROM t WHERE id = $1", json!([[1]]), 422, "22023"),
        ("SELECT * FROM t WHERE id = $1", json!([{"type": "nosuch", "value": 1}]), 400, "42704"),
        ("SELECT * FROM t WHERE v = $1", json!(["a\u{0}"]), 422, "22021"),
        ("SELECT * FROM t WHERE id = $1", json!([]), 400, "08P01"),
        ("SELECT 1", json!([1]), 400, "08P01"),
        ("SELECT 1; SELECT 2", json!([]), 400, "42601"),
        ("", json!([]), 400, "42601"),
        ("BEGIN", json!([]), 400, "0A000"),
        ("COPY t FROM STDIN", json!([]), 400, "0A000"),
        ("COPY t FROM '/etc/passwd'", json!([]), 400, "0A000"),
    ] {
        let answer = server.query(sql, params).await;
        assert_eq!((answer.status, answer.state().as_str()), (status, state), "{sql}: {}", answer.text());
    }
    let problem = server.query("SELECT 1\n  )", json!([])).await.json();
    assert!(problem["position"].as_u64() == Some(12), "{problem}");
    assert_eq!(server.rows("SELECT count(*) FROM t").await, json!([[1]]));
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let server = start(options()).await;
    let json_type = "Content-Type: application/json";
    for (body, kind, expected) in [
        (b"{\"sql\": \"SELECT 1\"}".as_slice(), "", 415),
        (b"{\"sql\": \"SELECT 1\"}", "Content-Type: text/plain", 415),
        (b"sql=SELECT+1", "Content-Type: application/x-www-form-urlencoded", 415),
        (b"", json_type, 400),
        (b"{", json_type, 400),
        (b"[]", json_type, 400),
        (b"\xff\xfe", json_type, 400),
        (b"{\"sql\": 1}", json_type, 400),
        (b"{\"sql\": \"SELECT 1\", \"more\": 1}", json_type, 400),
        (b"{\"sql\": \"SELECT 1\", \"sql\": \"SELECT 2\"}", json_type, 400),
        (b"{\"sql\": \"SELECT 1\", \"params\": {}}", json_type, 400),
        (b"{\"sql\": \"SELECT 1\", \"params\": [1}", json_type, 400),
    ] {
        let answer = server.ada("POST", "/v1/query", &[kind], body).await;
        assert_eq!(answer.status, expected, "{} {kind}", String::from_utf8_lossy(body));
    }
    // Deep nesting is an error, not a stack that ends.
    let deep = format!("{{\"sql\": \"SELECT $1\", \"params\": [{}1{}]}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!((400..500).contains(&server.ada("POST", "/v1/query", &[json_type], deep.as_bytes()).await.status));
    server.stop().await;
}

#[tokio::test]
async fn rows_come_as_lines_and_the_last_line_says_how_it_ended() {
    let server = start(options()).await;
    let ask = async |sql: &str| {
        let body = json!({ "sql": sql }).to_string();
        let fields = ["Content-Type: application/json", "Accept: text/html, application/x-ndjson;q=0.9"];
        server.ada("POST", "/v1/query", &fields, body.as_bytes()).await
    };
    let lines = ask("SELECT value, 'x' FROM generate_series(1, 100000)").await.lines();
    assert_eq!(lines.len(), 100_002);
    assert_eq!(lines[0]["columns"][0], json!({"name": "value", "type": "bigint"}));
    assert_eq!((&lines[1], &lines[100_000]), (&json!([1, "x"]), &json!([100_000, "x"])));
    assert_eq!((&lines[100_001]["command"], &lines[100_001]["row_count"]), (&json!("SELECT 100000"), &json!(100_000)));
    assert_eq!(ask("CREATE TABLE t (id bigint)").await.lines()[1]["command"], "CREATE TABLE");
    // What fails before the first row has a status; what fails on the way has a last line.
    assert_eq!(ask("SELECT nosuch").await.state(), "42703");
    let late = ask("SELECT 1 / (value - 3000000) FROM generate_series(1, 4000000)").await.lines();
    assert_eq!(late.last().unwrap()["error"]["sqlstate"], "22012", "{:?}", late.last());
    server.stop().await;
}

#[tokio::test]
async fn an_answer_in_one_text_is_bounded() {
    let mut options = options();
    options.answer_bytes_max = 10_000;
    let server = start(options).await;
    assert_eq!(server.rows("SELECT count(*) FROM generate_series(1, 100000)").await, json!([[100_000]]));
    let answer = server.query("SELECT value FROM generate_series(1, 100000)", json!([])).await;
    assert_eq!((answer.status, answer.state().as_str()), (413, "54000"));
    assert!(answer.json()["hint"].as_str().unwrap().contains("application/x-ndjson"));
    server.stop().await;
}
