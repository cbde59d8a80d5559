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
    let (mut pushed, mut asked, mut from_the_end) = (0, 0, 0);
    for _ in 0..500 {
        let filters: Vec<String> = (0..rng.gen_range(0..4)).map(|_| filter(&mut rng)).collect();
        let filter = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
        let what = *[
            "count(*)",
            "count(n), count(k), count(*)",
            "sum(n), sum(x)",
            "avg(n), avg(x), count(*)",
            "min(a), max(a)",
            "min(k), min(id)",
            "max(k), max(id)",
            "min(id), max(id), count(*)",
            "sum(a), avg(a), count(DISTINCT a)",
        ]
        .choose(&mut rng)
        .unwrap();
        let by = *[
            "a DESC, id DESC",
            "a DESC",
            "a, id DESC",
            "k DESC NULLS LAST, a DESC, id DESC",
            "k DESC, a DESC, id DESC",
            "k DESC NULLS LAST, a",
            "id DESC",
            "a DESC, k DESC NULLS LAST",
        ]
        .choose(&mut rng)
        .unwrap();
        let page = match rng.gen_range(0..3) {
            0 => String::new(),
            1 => format!(" LIMIT {}", rng.gen_range(0..40)),
            _ => format!(" LIMIT {} OFFSET {}", rng.gen_range(1..40), rng.gen_range(0..20)),
        };
        let text = match rng.gen_range(0..5) {
            // Only the columns of the order, so that which rows are equal by it makes no difference.
            3 => format!(
                "SELECT {} FROM t{filter} ORDER BY {by}{page}",
                by.split(", ").map(|c| c.split(' ').next().unwrap()).collect::<Vec<_>>().join(", ")
            ),
            4 => {
                let and = if filters.is_empty() { " WHERE" } else { " AND" };
                let (a, desc) = (rng.gen_range(-3..3), if rng.gen_bool(0.7) { " DESC" } else { "" });
                match rng.gen_bool(0.5) {
                    true => format!("SELECT id, x, a FROM t{filter}{and} a = {a} ORDER BY id{desc}{page}"),
                    false => format!("SELECT max(id), min(id) FROM t{filter}{and} a = {a}"),
                }
            }
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
        from_the_end += usize::from(plan.contains("backwards"));
        pushed += usize::from(
            plan.contains("ProvenAggregate") || plan.contains("VerifiedScan") && !plan.contains("range=all"),
        );
        let plan = rows(&mut without, &format!("EXPLAIN {text}")).await.join("\n");
        // Where the planner sees that no row can be meant, nothing is read.
        let whole = !plan.contains("VerifiedScan") || plan.contains("range=all");
        assert!(!plan.contains("ProvenAggregate") && whole, "{plan}");
    }
    println!("pushed down: {pushed} of {asked} plans, {from_the_end} from the end");
    assert!(from_the_end > 30, "reverse scans fire: {from_the_end} of {asked}");
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
        ("SELECT a, b FROM t ORDER BY a DESC, b DESC LIMIT 2", vec!["VerifiedScan", "backwards, limit=2"], "SortExec"),
        ("SELECT n FROM t ORDER BY a DESC, b DESC", vec!["backwards"], "SortExec"),
        ("SELECT a, n FROM t ORDER BY a DESC LIMIT 2", vec!["backwards, limit=2"], "SortExec"),
        (
            "SELECT a FROM t WHERE a < 7 AND n > 3 ORDER BY a DESC LIMIT 2",
            vec!["(a) < (7)", "filter=", "backwards, limit=2"],
            "SortExec",
        ),
        ("SELECT b, n FROM t WHERE a = 1 ORDER BY b DESC LIMIT 2", vec!["(a) = (1)", "backwards, limit=2"], "SortExec"),
        (
            "SELECT a, b FROM t WHERE a = 1 ORDER BY a, b DESC LIMIT 2",
            vec!["(a) = (1)", "backwards, limit=2"],
            "SortExec",
        ),
        ("SELECT a, b FROM t WHERE a = 1 ORDER BY b LIMIT 2", vec!["(a) = (1)", "limit=2"], "SortExec"),
        (
            "SELECT a, b FROM t WHERE a IN (1, 4) ORDER BY a DESC, b DESC LIMIT 2",
            vec!["2 ranges", "backwards, limit=2"],
            "SortExec",
        ),
        ("SELECT a, b FROM t WHERE a IN (1, 4) ORDER BY b DESC LIMIT 2", vec!["2 ranges", "SortExec"], "backwards"),
        ("SELECT a, b FROM t ORDER BY a DESC, b LIMIT 2", vec!["SortExec"], "backwards"),
        // NULL comes first where nothing else is said, and last in a key from the end.
        ("SELECT n FROM t ORDER BY n DESC LIMIT 3", vec!["SortExec"], "backwards"),
        ("SELECT n FROM t ORDER BY n DESC NULLS LAST LIMIT 3", vec!["t~n", "backwards, limit=3"], "SortExec"),
        ("SELECT max(b), min(b) FROM t WHERE a = 1", vec!["ProvenAggregate", "(a) = (1)"], "VerifiedScan"),
        ("SELECT max(b) FROM t WHERE a > 1", vec!["VerifiedScan"], "ProvenAggregate"),
        ("SELECT max(n), min(n) FROM t", vec!["ProvenAggregate", "t~n"], "VerifiedScan"),
        ("SELECT max(n), min(a) FROM t", vec!["VerifiedScan"], "ProvenAggregate"),
        ("SELECT n FROM t WHERE n > 3 LIMIT 2", vec!["limit=2"], "LimitExec"),
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
