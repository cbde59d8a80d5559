//! PUBLIC columns in SQL: the owner's clause, what is said of it, and what a gateway without the keys shows.

use crate::real::{Real, fresh, real, rows, session, state, tag};
use fluence_client::{Keyring, Keystore, Session};
use fluence_gateway::session::GatewayOptions;
use fluence_gateway::{Gateway, SqlSession};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

/// A session of somebody who has other keys.
async fn stranger(real: &Real) -> SqlSession {
    let keystore = Keystore::in_memory(Keyring::generate(&mut StdRng::seed_from_u64(77)));
    let session = Session::new(Arc::clone(&real.net), keystore, StdRng::seed_from_u64(78));
    let database = session.find_database(real.database.id(), &[(real.nodes[0].id(), String::new())]).await.unwrap();
    Gateway::new(Arc::new(database), fresh()).session("eve", "db").await.unwrap()
}

#[tokio::test]
async fn everyone_reads_what_is_public_with_proof_and_only_the_owner_writes() {
    let real = real().await;
    let s = &mut real.gateway(GatewayOptions::default()).session("ada", "db").await.unwrap();
    let made = "CREATE TABLE stations (id int PRIMARY KEY PUBLIC, name text NOT NULL PUBLIC, cost numeric(9,2), height int PUBLIC)";
    assert_eq!(tag(s, made).await, "CREATE TABLE");
    let notices = s.take_notices();
    let said = |what: &str| notices.iter().any(|n| n.message.contains(what));
    assert!(said("everyone who reaches a node reads id, name, height") && said("of what is not public"), "{notices:?}");
    tag(s, "CREATE TABLE secrets (id int PRIMARY KEY)").await;
    tag(s, "CREATE INDEX by_height ON stations (height)").await;
    tag(s, "CREATE INDEX by_cost ON stations (cost)").await;
    let values: Vec<String> = (0..300).map(|i| format!("({i}, 'n{i}', {i}.25, {})", i % 7)).collect();
    tag(s, &format!("INSERT INTO stations VALUES {}", values.join(", "))).await;
    tag(s, "UPDATE stations SET name = 'changed', cost = 1 WHERE id = 7").await;
    tag(s, "DELETE FROM stations WHERE id >= 290").await;
    let queries = [
        "SELECT id, name, height FROM stations ORDER BY id",
        "SELECT name FROM stations WHERE id = 7",
        "SELECT count(*), sum(height), max(height) FROM stations WHERE id BETWEEN 10 AND 200",
        "SELECT height, count(*) FROM stations GROUP BY height ORDER BY height",
        "SELECT a.name FROM stations a JOIN stations b ON a.id = b.height ORDER BY b.id LIMIT 9",
    ];
    let mut want = Vec::new();
    for text in queries {
        want.push(rows(s, text).await);
    }
    assert_eq!(rows(s, "SELECT sum(cost) FROM stations WHERE id < 3").await, ["3.75"]);

    let e = &mut stranger(&real).await;
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(rows(e, tables).await, ["stations"]);
    for (text, want) in queries.iter().zip(&want) {
        assert_eq!(rows(e, text).await, *want, "{text}");
    }
    let plan = rows(e, "EXPLAIN SELECT sum(height) FROM stations WHERE id < 50").await.join("\n");
    assert!(plan.contains("ProvenAggregate"), "{plan}");
    assert_eq!(rows(e, "SELECT * FROM stations WHERE id = 1").await, ["1|n1|1"]);
    assert_eq!(state(e, "SELECT cost FROM stations").await, "42703");
    assert_eq!(state(e, "SELECT * FROM secrets").await, "42P01");
    for text in [
        "INSERT INTO stations VALUES (1000, 'x', 1)",
        "DELETE FROM stations",
        "UPDATE stations SET name = 'x' WHERE id = 1",
        "DROP TABLE stations",
        "CREATE TABLE mine (id int PRIMARY KEY)",
    ] {
        assert_eq!(state(e, text).await, "42501", "{text}");
    }
    assert_eq!(rows(s, queries[0]).await, want[0]);

    // What was rebuilt is shown by its name, and what became public with it.
    tag(s, "ALTER TABLE stations ADD COLUMN zone text PUBLIC").await;
    tag(s, "UPDATE stations SET zone = 'z' WHERE id = 7").await;
    let e = &mut stranger(&real).await;
    assert_eq!(rows(e, "SELECT * FROM stations WHERE id = 7").await, ["7|changed|0|z"]);
    // What was dropped is there still, without rows.
    tag(s, "DROP TABLE stations").await;
    assert_eq!(rows(&mut stranger(&real).await, "SELECT count(*) FROM stations").await, ["0"]);
}

#[tokio::test]
async fn a_table_without_a_key_has_public_columns_too() {
    let real = real().await;
    let s = &mut real.gateway(GatewayOptions::default()).session("ada", "db").await.unwrap();
    tag(s, "CREATE TABLE log (at date PUBLIC, who text)").await;
    tag(s, "INSERT INTO log VALUES ('2024-02-29', 'a'), ('2024-02-29', 'b'), (NULL, 'c')").await;
    let e = &mut stranger(&real).await;
    assert_eq!(rows(e, "SELECT * FROM log ORDER BY at").await, ["2024-02-29", "2024-02-29", "NULL"]);
    assert_eq!(rows(e, "SELECT count(*), count(at) FROM log").await, ["3|2"]);
}

#[tokio::test]
async fn a_public_column_needs_a_public_key_and_is_named_where_privacy_is_asked_for() {
    let s = &mut session().await;
    for text in [
        "CREATE TABLE t (id int PRIMARY KEY, v text PUBLIC)",
        "CREATE TABLE t (a int PUBLIC, b int, PRIMARY KEY (a, b))",
    ] {
        assert_eq!(state(s, text).await, "42P16", "{text}");
    }
    tag(s, "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    assert_eq!(state(s, "ALTER TABLE t ADD COLUMN w int PUBLIC").await, "42P16");
    assert_eq!(rows(s, "SELECT count(*) FROM t").await, ["0"]);
    tag(s, "CREATE TABLE public.o (public int PRIMARY KEY PUBLIC, v text)").await;
    let told = rows(s, "EXPLAIN (PRIVACY) SELECT v FROM o").await.join("\n");
    assert!(told.contains("o: public PUBLIC: everyone who reaches a node reads it"), "{told}");
    assert!(told.contains("Of all else it does not learn names"), "{told}");
    let told = rows(s, "EXPLAIN (PRIVACY) SELECT v FROM t").await.join("\n");
    assert!(!told.contains("PUBLIC") && told.contains("It does not learn names"), "{told}");
}
