//! tokio-postgres, the driver of Rust, does what its users do: all types both ways in binary, prepared statements, transactions, errors
//! that say their SQLSTATE, COPY, statements one behind the other without waiting.

use super::support::{Running, start, state, trusting};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use std::time::{Duration, SystemTime};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

const TYPED: &str = "CREATE TABLE typed (id INTEGER PRIMARY KEY, s SMALLINT, b BIGINT, r REAL, f DOUBLE PRECISION, o BOOLEAN, t TEXT, \
                     v VARCHAR(9), y BYTEA, ts TIMESTAMP, z TIMESTAMPTZ)";

async fn typed() -> (Running, Client) {
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute(TYPED).await.unwrap();
    (server, client)
}

type Row = (
    i32,
    Option<i16>,
    Option<i64>,
    Option<f32>,
    Option<f64>,
    Option<bool>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
    Option<SystemTime>,
    Option<SystemTime>,
);

fn rows() -> Vec<Row> {
    // Microseconds, as PostgreSQL keeps them; one is before 1970.
    let leap = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_251_199_999_999);
    let old = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
    let text = Some("\u{c4}'\\\n\"\u{20ac}".to_owned());
    vec![
        (
            1,
            Some(i16::MIN),
            Some(i64::MAX),
            Some(1.5),
            Some(-1e300),
            Some(true),
            text,
            Some(String::new()),
            Some((0..=255).collect()),
            Some(leap),
            Some(old),
        ),
        (i32::MIN, None, None, None, None, None, None, None, None, None, None),
    ]
}

#[tokio::test]
async fn values_of_all_types_go_in_and_out_in_binary() {
    let (server, client) = typed().await;
    let insert =
        client.prepare("INSERT INTO typed VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)").await.unwrap();
    let types = [
        Type::INT4,
        Type::INT2,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::BOOL,
        Type::TEXT,
        Type::VARCHAR,
        Type::BYTEA,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
    ];
    // A parameter for a varchar is told as text, of which it takes the bytes.
    let told = types.clone().map(|t| if t == Type::VARCHAR { Type::TEXT } else { t });
    assert_eq!(insert.params(), told);
    for r in rows() {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] =
            [&r.0, &r.1, &r.2, &r.3, &r.4, &r.5, &r.6, &r.7, &r.8, &r.9, &r.10];
        assert_eq!(client.execute(&insert, &values).await.unwrap(), 1);
    }
    let select = client.prepare("SELECT * FROM typed ORDER BY id DESC").await.unwrap();
    assert_eq!(select.columns().iter().map(|c| c.type_().clone()).collect::<Vec<_>>(), types);
    let got: Vec<Row> = client
        .query(&select, &[])
        .await
        .unwrap()
        .iter()
        .map(|r| {
            let (id, s, b, f4, f8) = (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4));
            (id, s, b, f4, f8, r.get(5), r.get(6), r.get(7), r.get(8), r.get(9), r.get(10))
        })
        .collect();
    assert_eq!(got, rows());
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_parameter_of_each_type_finds_its_row() {
    let (server, client) = typed().await;
    let mut row = rows().remove(0);
    client
        .execute(
            "INSERT INTO typed (id, s, b, t, z) VALUES ($1, $2, $3, $4, $5)",
            &[&row.0, &row.1, &row.2, &row.6, &row.10],
        )
        .await
        .unwrap();
    let found = |column: &'static str| format!("SELECT id FROM typed WHERE {column} = $1");
    assert_eq!(client.query_one(found("s").as_str(), &[&row.1]).await.unwrap().get::<_, i32>(0), 1);
    assert_eq!(client.query_one(found("b").as_str(), &[&row.2]).await.unwrap().get::<_, i32>(0), 1);
    assert_eq!(client.query_one(found("t").as_str(), &[&row.6]).await.unwrap().get::<_, i32>(0), 1);
    assert_eq!(client.query_one(found("z").as_str(), &[&row.10]).await.unwrap().get::<_, i32>(0), 1);
    row.2 = Some(0);
    assert!(client.query_opt(found("b").as_str(), &[&row.2]).await.unwrap().is_none());
    // One that does not fit is refused by the driver, which asked for the type.
    assert!(client.query(found("b").as_str(), &[&"x"]).await.is_err());
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn errors_say_their_sqlstate_and_the_connection_goes_on() {
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n > 0))").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, 1)").await.unwrap();
    for (text, code) in [
        ("INSERT INTO t VALUES (1, 1)", SqlState::UNIQUE_VIOLATION),
        ("INSERT INTO t VALUES (2, NULL)", SqlState::NOT_NULL_VIOLATION),
        ("INSERT INTO t VALUES (2, 0)", SqlState::CHECK_VIOLATION),
        ("INSERT INTO t VALUES (3000000000, 1)", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("SELECT * FROM nowhere", SqlState::UNDEFINED_TABLE),
        ("SELECT nothing FROM t", SqlState::UNDEFINED_COLUMN),
        ("SELEC", SqlState::SYNTAX_ERROR),
        ("SELECT n / 0 FROM t", SqlState::DIVISION_BY_ZERO),
    ] {
        assert_eq!(state(client.query(text, &[]).await), code.code(), "{text}");
    }
    assert_eq!(client.query_one("SELECT n FROM t", &[]).await.unwrap().get::<_, i32>(0), 1);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back_and_savepoints_nest() {
    let server = start(trusting()).await;
    let mut client = server.client().await;
    client.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    drop(transaction);
    let mut transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    let inner = transaction.transaction().await.unwrap();
    assert_eq!(state(inner.execute("INSERT INTO t VALUES (2)", &[]).await), "23505");
    inner.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    let ids: Vec<i32> = client.query("SELECT id FROM t", &[]).await.unwrap().iter().map(|r| r.get(0)).collect();
    assert_eq!(ids, [2]);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn statements_that_do_not_wait_for_each_other_are_answered_in_order() {
    let server = start(trusting()).await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n BIGINT)").await.unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2)").await.unwrap();
    let wanted: Vec<(i32, i64)> = (0..20).map(|i| (i, i64::from(i) * 3)).collect();
    let writes = wanted.iter().map(|(id, n)| {
        let (client, insert) = (&client, &insert);
        async move { client.execute(insert, &[id, n]).await }
    });
    assert_eq!(futures::future::try_join_all(writes).await.unwrap(), vec![1; 20]);
    let got: Vec<(i32, i64)> =
        client.query("SELECT * FROM t ORDER BY id", &[]).await.unwrap().iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_eq!(got, wanted);
    let out: Vec<Bytes> = client
        .copy_out("COPY (SELECT * FROM t ORDER BY id LIMIT 2) TO STDOUT (FORMAT csv)")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(out.concat(), b"0,0\n1,3\n");
    let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN (FORMAT csv)").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"50,\"7\"\n51,\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    drop(client);
    server.stop().await;
}
