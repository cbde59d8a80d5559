//! Statistics and groups that nodes answer from declared sums: the same answers as from rows, and what fires where.

use crate::pushdown::both;
use crate::real::{real, rows, state, tag};
use fluence_gateway::SqlSession;

/// Rows whose fields agree, doubles up to their last digits: sums of doubles depend on the order, fractions of exact sums do not.
fn close(a: &[String], b: &[String]) -> bool {
    let field = |(a, b): (&str, &str)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) if a.contains('.') || a.contains('e') => (x - y).abs() <= 1e-9 * x.abs().max(1.0),
        _ => a == b,
    };
    let line = |(a, b): (&String, &String)| {
        a.split('|').count() == b.split('|').count() && a.split('|').zip(b.split('|')).all(field)
    };
    a.len() == b.len() && a.iter().zip(b).all(line)
}

async fn explained(session: &mut SqlSession, text: &str) -> String {
    rows(session, &format!("EXPLAIN {text}")).await.join("\n")
}

#[tokio::test]
async fn statistics_come_from_declared_sums() {
    let real = real().await;
    let (mut s, mut whole) = both(&real).await;
    tag(&mut s, "CREATE TABLE t (id bigint PRIMARY KEY, x bigint NOT NULL, y numeric(8,2) NOT NULL, n integer)").await;
    tag(&mut s, "INSERT INTO t SELECT value, value * 7 % 13, value % 5 * 0.25 - value, CASE WHEN value % 3 = 0 THEN NULL ELSE value END FROM generate_series(1, 40)").await;
    // Without squares nothing is proven, and the answer is the same.
    assert!(!explained(&mut s, "SELECT var_pop(x) FROM t").await.contains("ProvenAggregate"));
    tag(&mut s, "CREATE INDEX moments ON t (id) INCLUDE (x*x, y*y, (x * y), n*n, id)").await;
    tag(&mut s, "DELETE FROM t WHERE id % 11 = 0; UPDATE t SET x = x + 1, n = n - 3 WHERE id % 4 = 0").await;
    let one = ["var_pop", "var_samp", "var", "stddev", "stddev_samp", "stddev_pop"];
    let two = [
        "covar_pop",
        "covar_samp",
        "corr",
        "regr_slope",
        "regr_intercept",
        "regr_r2",
        "regr_count",
        "regr_avgx",
        "regr_avgy",
        "regr_sxx",
        "regr_syy",
        "regr_sxy",
    ];
    let calls = one.iter().flat_map(|f| ["x", "y", "n"].map(|c| format!("{f}({c})")));
    let calls: Vec<String> =
        calls.chain(two.iter().flat_map(|f| ["y, x", "x, y"].map(|c| format!("{f}({c})")))).collect();
    for range in ["", " WHERE id > 7 AND id <= 31", " WHERE id = 5", " WHERE id > 100"] {
        for call in &calls {
            let text = format!("SELECT {call} FROM t{range}");
            assert!(explained(&mut s, &text).await.contains("ProvenAggregate"), "{text}");
            let (got, want) = (rows(&mut s, &text).await, rows(&mut whole, &text).await);
            assert!(close(&got, &want), "{text}: {got:?} {want:?}");
        }
        // All at once, under another name, where the planner makes a projection of what they share.
        let text = format!("SELECT {}, avg(v.x) FROM t AS v{range}", calls.join(", "));
        let plan = explained(&mut s, &text).await;
        assert!(plan.contains("ProvenAggregate"), "{text}:\n{plan}");
        let (got, want) = (rows(&mut s, &text).await, rows(&mut whole, &text).await);
        assert!(close(&got, &want), "{text}: {got:?} {want:?}");
    }
    // A pair with a NULL counts for nothing, and no sum says so.
    for text in ["SELECT covar_pop(x, n) FROM t", "SELECT corr(n, x) FROM t", "SELECT var_pop(DISTINCT x) FROM t"] {
        assert!(!explained(&mut s, text).await.contains("ProvenAggregate"), "{text}");
    }
    for (text, code) in [
        ("CREATE INDEX j ON t (x) INCLUDE (x + y)", "0A000"),
        ("CREATE INDEX j ON t (x) INCLUDE (x * 2)", "0A000"),
        ("CREATE INDEX j ON t (x) INCLUDE (x * z)", "42703"),
        ("CREATE INDEX j ON t (x) INCLUDE (z)", "42703"),
    ] {
        assert_eq!(state(&mut s, text).await, code, "{text}");
    }
    // What ALTER TABLE copies keeps its sums, as far as their columns are there.
    tag(&mut s, "ALTER TABLE t ADD COLUMN z bigint; ALTER TABLE t DROP COLUMN y").await;
    assert!(explained(&mut s, "SELECT var_pop(x) FROM t").await.contains("ProvenAggregate"));
}

#[tokio::test]
async fn groups_are_asked_about_one_by_one() {
    let real = real().await;
    let (mut s, mut whole) = both(&real).await;
    tag(
        &mut s,
        "CREATE TABLE t (a bigint, b text, id bigint, n integer, x numeric(6,2) NOT NULL, day date, PRIMARY KEY (a, b, id))",
    )
    .await;
    tag(&mut s, "INSERT INTO t SELECT value % 4, CASE WHEN value % 3 = 0 THEN 'u' ELSE 'v' END, value, CASE WHEN value % 8 = 0 THEN NULL ELSE value % 8 END, value % 100 * 0.5, CASE WHEN value % 7 < 3 THEN DATE '2024-02-29' END FROM generate_series(1, 9000)").await;
    tag(&mut s, "CREATE INDEX by_n ON t (n); CREATE INDEX by_day ON t (day, a)").await;
    tag(&mut s, "DELETE FROM t WHERE a = 2 AND b = 'u'; UPDATE t SET n = NULL WHERE id % 500 = 1; UPDATE t SET b = 'w' WHERE a = 3 AND b = 'v'").await;
    for (text, proven) in [
        ("SELECT a, count(*), sum(n), avg(x), count(n) FROM t GROUP BY a", true),
        ("SELECT sum(x), a FROM t GROUP BY a HAVING sum(x) > 56000", true),
        ("SELECT b, sum(x) FROM t WHERE a = 3 GROUP BY b", false),
        ("SELECT a, b, count(*) FROM t WHERE a >= 1 AND a < 4 GROUP BY a, b", true),
        ("SELECT b, a, min(x) FROM t GROUP BY a, b", false),
        ("SELECT DISTINCT a FROM t", true),
        ("SELECT count(DISTINCT a) FROM t", true),
        ("SELECT DISTINCT b, a FROM t WHERE a IN (0, 1)", false),
        ("SELECT n, count(*), avg(n) FROM t GROUP BY n", true),
        ("SELECT n, sum(x) FROM t WHERE n > 2 GROUP BY n", true),
        ("SELECT n, sum(x) FROM t WHERE n < 5 GROUP BY n", true),
        ("SELECT day, count(*) FROM t GROUP BY day", true),
        ("SELECT a, day, sum(n) FROM t AS other GROUP BY other.day, other.a", true),
        ("SELECT g, sum(y) FROM (SELECT n AS g, x AS y FROM t) v GROUP BY g", true),
        ("SELECT a, count(*) FROM t WHERE a > 100 GROUP BY a", false),
        // Groups that are no range of a key; a range inside of one; groups of one row each, which are read.
        ("SELECT b, count(*) FROM t GROUP BY b", false),
        ("SELECT a % 2, count(*) FROM t GROUP BY a % 2", false),
        ("SELECT a, count(*) FROM t WHERE a = 1 AND b = 'v' GROUP BY a", false),
        ("SELECT a, count(*) FROM t WHERE a = 1 AND b > 'u' GROUP BY a", false),
        ("SELECT a, b, count(*) FROM t WHERE b > 'u' GROUP BY a, b", false),
        ("SELECT a, b, id, sum(x) FROM t GROUP BY a, b, id ORDER BY 1, 2, 3 LIMIT 40", false),
    ] {
        let (mut got, mut want) = (rows(&mut s, text).await, rows(&mut whole, text).await);
        let cost = s.cost().unwrap_or_default();
        got.sort();
        want.sort();
        assert_eq!(got, want, "{text}");
        assert!(!got.is_empty() || text.contains("> 100"), "{text}");
        // The count of the range, and a request for each group at least.
        assert_eq!(
            cost.proven as usize > got.len().clamp(1, 40),
            proven,
            "{text}: {cost:?}\n{}",
            explained(&mut s, text).await
        );
    }
    let plan = explained(&mut s, "SELECT n, sum(x) FROM t WHERE n > 2 GROUP BY n").await;
    assert!(plan.contains("ProvenGroups") && plan.contains("groups=(n)") && plan.contains("(n) > (2)"), "{plan}");
    // What the transaction changed is not known to nodes.
    tag(&mut s, "BEGIN").await;
    tag(&mut s, "INSERT INTO t VALUES (9, 'z', 1, 1, 1, NULL)").await;
    assert!(!explained(&mut s, "SELECT a, count(*) FROM t GROUP BY a").await.contains("ProvenGroups"));
    assert_eq!(rows(&mut s, "SELECT a, count(*) FROM t GROUP BY a HAVING a = 9").await, ["9|1"]);
    tag(&mut s, "ROLLBACK").await;
}
