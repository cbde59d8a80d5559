//! The worst bug that this crate can have: an answer that pushdown changes. Random queries on random rows, with and without it.

use crate::real::{Real, real, rows, tag};
use fluence_gateway::SqlSession;
use fluence_gateway::session::GatewayOptions;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

pub(crate) async fn both(real: &Real) -> (SqlSession, SqlSession) {
    let off = GatewayOptions { pushdown: false, ..GatewayOptions::default() };
    let with = real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    (with, real.gateway(off).session("a", "db").await.unwrap())
}

fn values(rng: &mut StdRng, rows: i64) -> String {
    let mut out = Vec::new();
    for id in 0..rows {
        let k = ["NULL", "''", "'a'", "'b'", "'ba'", "'\u{e9}'"].choose(rng).unwrap().to_string();
        let n = if rng.gen_bool(0.2) { "NULL".to_owned() } else { rng.gen_range(-9..9).to_string() };
        let x = if rng.gen_bool(0.2) {
            "NULL".to_owned()
        } else {
            format!("{}.{:02}", rng.gen_range(-9..9), rng.gen_range(0..100))
        };
        out.push(format!("({}, {k}, {id}, {n}, {x}, {})", rng.gen_range(-3..3), rng.gen_bool(0.5)));
    }
    out.join(", ")
}

fn filter(rng: &mut StdRng) -> String {
    let int = |rng: &mut StdRng| rng.gen_range(-4..5).to_string();
    let op = |rng: &mut StdRng| *["=", "<", "<=", ">", ">=", "<>"].choose(rng).unwrap();
    match rng.gen_range(0..13) {
        0 | 1 => format!("a {} {}", op(rng), int(rng)),
        2 => format!("{} {} a", int(rng), op(rng)),
        3 | 4 => format!("k {} {}", op(rng), ["''", "'a'", "'b'", "'zz'"].choose(rng).unwrap()),
        5 => format!("a BETWEEN {} AND {}", int(rng), int(rng)),
        6 => format!("id {} {}", op(rng), rng.gen_range(0..60)),
        7 => format!("k IS {}NULL", if rng.gen_bool(0.5) { "NOT " } else { "" }),
        10 => format!("a IN ({}, {}, {}, NULL, {})", int(rng), int(rng), int(rng), int(rng)),
        11 => format!("k IN ('a', {}, '')", ["'b'", "'zz'", "NULL"].choose(rng).unwrap()),
        12 => format!("id = ANY(ARRAY[{}, {}, 7])", rng.gen_range(0..60), rng.gen_range(0..60)),
        8 => format!("a IN ({}, {})", int(rng), int(rng)),
        _ => format!("(n {} {} OR a {} {})", op(rng), int(rng), op(rng), int(rng)),
    }
}

#[tokio::test]
async fn answers_are_the_same_with_and_without_pushdown() {
    let real = real().await;
    let (mut with, mut without) = both(&real).await;
    let mut rng = StdRng::seed_from_u64(5);
    tag(
        &mut with,
        "CREATE TABLE t (a bigint, k text, id bigint, n bigint, x numeric(6,2), ok boolean, PRIMARY KEY (a, id))",
    )
    .await;
    tag(&mut with, "CREATE INDEX t_k ON t (k, a)").await;
    let rows_of = values(&mut rng, 60);
    tag(&mut with, &format!("INSERT INTO t VALUES {rows_of}")).await;
    tag(&mut with, "DELETE FROM t WHERE id % 7 = 0; UPDATE t SET n = n + 1, k = 'b' WHERE id % 5 = 0").await;
    let (mut pushed, mut asked) = (0, 0);
    for _ in 0..300 {
        let filters: Vec<String> = (0..rng.gen_range(0..4)).map(|_| filter(&mut rng)).collect();
        let filter = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
        let what = *[
            "count(*)",
            "count(n), count(k), count(*)",
            "sum(n), sum(x)",
            "avg(n), avg(x), count(*)",
            "min(a), max(a)",
            "min(k), min(id)",
            "sum(a), avg(a), count(DISTINCT a)",
        ]
        .choose(&mut rng)
        .unwrap();
        let text = match rng.gen_range(0..3) {
            0 if rng.gen_bool(0.3) => {
                format!("SELECT k, a FROM t{filter} ORDER BY k NULLS FIRST, a LIMIT {}", rng.gen_range(1..70))
            }
            0 => format!("SELECT * FROM t{filter} ORDER BY a, id LIMIT {}", rng.gen_range(1..70)),
            1 => format!("SELECT id, k FROM t{filter} ORDER BY k NULLS FIRST, a, id"),
            _ => format!("SELECT {what} FROM t{filter}"),
        };
        assert_eq!(rows(&mut with, &text).await, rows(&mut without, &text).await, "{text}");
        let plan = rows(&mut with, &format!("EXPLAIN {text}")).await.join("\n");
        asked += 1;
        pushed += usize::from(
            plan.contains("ProvenAggregate") || plan.contains("VerifiedScan") && !plan.contains("range=all"),
        );
        let plan = rows(&mut without, &format!("EXPLAIN {text}")).await.join("\n");
        // Where the planner sees that no row can be meant, nothing is read.
        let whole = !plan.contains("VerifiedScan") || plan.contains("range=all");
        assert!(!plan.contains("ProvenAggregate") && whole, "{plan}");
    }
    println!("pushed down: {pushed} of {asked} plans");
    assert!(pushed * 2 > asked, "pushdown fires: {pushed} of {asked}");
}

#[tokio::test]
async fn plans_say_what_is_pushed_down() {
    let real = real().await;
    let (mut s, _) = both(&real).await;
    let s = &mut s;
    tag(s, "CREATE TABLE t (a bigint, b text, n bigint, f double precision, PRIMARY KEY (a, b)); INSERT INTO t VALUES (1, 'x', 5, 0.5); CREATE INDEX n ON t (n)").await;
    for (text, wanted, never) in [
        (
            "SELECT count(*), sum(n), avg(n) FROM t WHERE a >= 1 AND a < 9",
            vec!["ProvenAggregate", "(a) >= (1)", "(a) < (9)"],
            "VerifiedScan",
        ),
        ("SELECT sum(n) FROM t WHERE a = 1 AND b > 'a'", vec!["ProvenAggregate", "(a, b) > (1, a)"], "VerifiedScan"),
        ("SELECT sum(n) FROM t WHERE f > 1", vec!["VerifiedScan", "range=all"], "ProvenAggregate"),
        ("SELECT sum(f) FROM t", vec!["VerifiedScan"], "ProvenAggregate"),
        ("SELECT sum(DISTINCT n) FROM t", vec!["VerifiedScan"], "ProvenAggregate"),
        (
            "SELECT n FROM t WHERE a = 1 LIMIT 3",
            vec!["VerifiedScan", "(a) = (1)", "limit=3", "columns=[n]"],
            "FilterExec",
        ),
        ("SELECT a, b FROM t ORDER BY a, b LIMIT 2", vec!["VerifiedScan", "limit=2"], "SortExec"),
        ("SELECT min(a), max(a) FROM t", vec!["ProvenAggregate"], "VerifiedScan"),
        ("SELECT n FROM t ORDER BY n NULLS FIRST LIMIT 3", vec!["t~n", "limit=3"], "SortExec"),
        ("SELECT n FROM t ORDER BY n LIMIT 3", vec!["SortExec"], "limit=3"),
        ("SELECT b, a FROM t ORDER BY b DESC LIMIT 3", vec!["SortExec"], "limit=3"),
        ("SELECT n FROM t WHERE a IN (3, 1) AND b = 'x'", vec!["2 ranges from (a, b) = (1, x)"], "FilterExec"),
        ("SELECT n FROM t WHERE a = ANY(ARRAY[5, 4, 1, 2])", vec!["4 ranges from (a) = (1)"], "FilterExec"),
    ] {
        let plan = rows(s, &format!("EXPLAIN {text}")).await.join("\n");
        for wanted in wanted {
            assert!(plan.contains(wanted), "{text}: no {wanted} in\n{plan}");
        }
        assert!(!plan.contains(never), "{text}: {never} in\n{plan}");
    }
    let told = rows(s, "EXPLAIN (PRIVACY) SELECT sum(n) FROM t WHERE a = 1").await.join("\n");
    assert!(told.contains("What each node that is asked learns"), "{told}");
    let told = rows(s, "EXPLAIN ANALYZE SELECT n FROM t").await.join("\n");
    assert!(told.contains("1 rows in") && told.contains("verified at height"), "{told}");
}
