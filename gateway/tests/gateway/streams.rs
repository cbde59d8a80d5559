//! Rows that go through in portions: how many are in memory at once, what they cost, of which version they are, and where a scan ends.

use crate::real::{Real, real_with, rows, run, say, state, tag};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::buffer::{Buffer, ScalarBuffer};
use datafusion::arrow::datatypes::Int64Type;
use fluence_client::prove::{Proved, ProvenSum};
use fluence_client::query::Evidence;
use fluence_client::schema::TableSchema;
use fluence_client::{Aggregate, AggregateValue, Direction, KeyRange, PreparedMerge, SessionOptions, Value};
use fluence_gateway::session::{Cost, GatewayOptions, Outcome};
use fluence_gateway::store::{Committed, Portions, ProofKeys, Scan, Store, Write};
use fluence_gateway::{Gateway, SqlError, SqlSession};
use fluence_types::Version;
use futures::{StreamExt, TryStreamExt};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

const ROWS: i64 = 20_000;

/// A store that counts the rows it gave which are still in memory, and keeps what stands behind them.
#[derive(Clone)]
struct Counting {
    store: Arc<dyn Store>,
    alive: Arc<Alive>,
    told: Arc<Mutex<Vec<Evidence>>>,
}

#[derive(Default, Debug)]
struct Alive {
    now: AtomicI64,
    most: AtomicI64,
    portion: AtomicI64,
}

/// A column's bytes, as long as somebody has them.
struct Held {
    bytes: Buffer,
    rows: i64,
    alive: Arc<Alive>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.alive.now.fetch_sub(self.rows, Ordering::SeqCst);
    }
}

/// The same rows, whose first column is counted as long as it lives.
fn counted(alive: &Arc<Alive>, batch: &RecordBatch) -> RecordBatch {
    let rows = batch.num_rows() as i64;
    let now = alive.now.fetch_add(rows, Ordering::SeqCst) + rows;
    alive.most.fetch_max(now, Ordering::SeqCst);
    alive.portion.fetch_max(rows, Ordering::SeqCst);
    let bytes = Buffer::from_slice_ref(batch.column(0).as_primitive::<Int64Type>().values());
    let held = Held { bytes, rows, alive: Arc::clone(alive) };
    let column = Int64Array::new(ScalarBuffer::from(Buffer::from(Bytes::from_owner(held))), None);
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns[0] = Arc::new(column);
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[async_trait]
impl Store for Counting {
    async fn tables(&self) -> Result<Vec<Arc<TableSchema>>, SqlError> {
        self.store.tables().await
    }
    async fn create_table(&self, schema: TableSchema) -> Result<(), SqlError> {
        self.store.create_table(schema).await
    }
    async fn scan(&self, table: &str, scan: &Scan) -> Result<Portions, SqlError> {
        let portions = self.store.scan(table, scan).await?;
        let (alive, told, own) = (Arc::clone(&self.alive), Arc::clone(&self.told), table.starts_with("fluence_"));
        Ok(portions
            .map_ok(move |mut portion| {
                if !own {
                    portion.rows = portion.rows.map(|rows| counted(&alive, &rows));
                    told.lock().unwrap().push(portion.evidence.clone());
                }
                portion
            })
            .boxed())
    }
    async fn aggregates(
        &self,
        table: &str,
        range: &KeyRange,
        aggregates: &[Aggregate],
    ) -> Result<(Vec<AggregateValue>, Evidence), SqlError> {
        self.store.aggregates(table, range, aggregates).await
    }
    async fn commit(&self, reads: &[(String, Version)], writes: Vec<Write>) -> Result<Committed, SqlError> {
        self.store.commit(reads, writes).await
    }
    async fn clear(&self, table: &str) -> Result<(), SqlError> {
        self.store.clear(table).await
    }
    async fn prepare_merge(&self, table: &str) -> Result<Option<PreparedMerge>, SqlError> {
        self.store.prepare_merge(table).await
    }
    async fn commit_merge(&self, table: &str, merge: PreparedMerge) -> Result<Committed, SqlError> {
        self.store.commit_merge(table, merge).await
    }
    async fn prove(
        &self,
        table: &str,
        range: &KeyRange,
        sum: &ProvenSum,
        keys: &dyn ProofKeys,
    ) -> Result<Proved, SqlError> {
        self.store.prove(table, range, sum, keys).await
    }
}

/// A table `t (id, n)` of which a request brings some hundred rows.
async fn streamed() -> (Real, Counting, SqlSession) {
    let real = real_with(SessionOptions { portion_cells: 24, ..SessionOptions::default() }).await;
    let store: Arc<dyn Store> = Arc::new(real.database.clone());
    let store = Counting { store, alive: Arc::default(), told: Arc::default() };
    // No answer is gathered before it goes out.
    let options = GatewayOptions { answer_bytes: 0, ..GatewayOptions::default() };
    let mut s = Gateway::new(Arc::new(store.clone()), options).session("a", "db").await.unwrap();
    tag(&mut s, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL)").await;
    let half = ROWS / 2;
    tag(&mut s, &format!("INSERT INTO t SELECT value, value * 7 % 1000 FROM generate_series(1, {half})")).await;
    tag(&mut s, &format!("INSERT INTO t SELECT value, value * 7 % 1000 FROM generate_series({}, {ROWS})", half + 1))
        .await;
    (real, store, s)
}

/// Runs a statement, and lets go of its rows as they come; how many there were.
async fn flow(s: &mut SqlSession, text: &str) -> usize {
    let statement = s.parse(text).unwrap().pop().unwrap();
    let prepared = s.prepare(statement, Vec::new()).await.unwrap();
    let mut count = 0;
    match s.execute(&prepared, Vec::new()).await.unwrap() {
        Outcome::Rows { mut stream, .. } | Outcome::CopyRows { mut stream, .. } => {
            while let Some(batch) = stream.next().await {
                count += batch.unwrap().num_rows();
            }
        }
        Outcome::CopyOut { mut stream, .. } => {
            while let Some(piece) = stream.next().await {
                count += piece.unwrap().1 as usize;
            }
        }
        other => panic!("{other:?}"),
    }
    count
}

/// The sealed table behind `t`.
async fn sealed(real: &Real) -> String {
    let tables = real.database.tables().await.unwrap();
    let mut names = tables.into_iter().map(|t| t.name().to_owned());
    names.rfind(|name| !name.starts_with("fluence_")).unwrap()
}

fn cost(s: &SqlSession) -> Cost {
    s.cost().expect("something was read")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_never_whole_in_memory() {
    let (_real, store, mut s) = streamed().await;
    let all = ROWS as usize;
    for (text, count) in [
        ("SELECT * FROM t", all),
        ("SELECT id, n FROM t ORDER BY id DESC", all),
        ("SELECT n + 1 FROM t WHERE n % 2 = 0", all / 2),
        ("SELECT n % 10, count(*), sum(id) FROM t GROUP BY n % 10", 10),
        ("SELECT max(n), avg(id) FROM t WHERE n > 5", 1),
        ("SELECT id FROM t ORDER BY n, id LIMIT 10", 10),
        ("COPY t TO STDOUT", all),
        ("COPY (SELECT id, n FROM t) TO STDOUT WITH (FORMAT csv)", all),
        ("COPY t TO STDOUT WITH (FORMAT binary)", all),
        // One side of the join is kept.
        ("SELECT count(*) FROM t JOIN (SELECT id FROM t WHERE id <= 100) few ON t.id = few.id", 1),
    ] {
        store.alive.most.store(0, Ordering::SeqCst);
        store.alive.portion.store(0, Ordering::SeqCst);
        assert_eq!(flow(&mut s, text).await, count, "{text}");
        let (most, portion) = (store.alive.most.load(Ordering::SeqCst), store.alive.portion.load(Ordering::SeqCst));
        println!("{most:>6} rows of {ROWS} at once, portions of {portion}: {text}");
        assert!(portion * 8 < ROWS, "portions are small: {portion}");
        // The one that came, and those that operators are at.
        assert!(most <= 3 * portion, "{most} rows at once, portions of {portion}: {text}");
        assert_eq!(store.alive.now.load(Ordering::SeqCst), 0, "{text}");
    }
}

#[tokio::test]
async fn costs_of_all_portions_add_up_to_those_of_the_statement() {
    let (real, store, mut s) = streamed().await;
    tag(&mut s, "SET fluence.notices = on").await;
    for text in [
        "SELECT * FROM t",
        "SELECT sum(n) FROM t WHERE n < 500",
        "COPY t TO STDOUT",
        "SELECT n FROM t WHERE id IN (5, 9000, 19000)",
    ] {
        store.told.lock().unwrap().clear();
        s.take_notices();
        flow(&mut s, text).await;
        let told = store.told.lock().unwrap().clone();
        let cost = cost(&s);
        let sum = |of: fn(&Evidence) -> u64| told.iter().map(of).sum::<u64>();
        assert_eq!(cost.rows, sum(|e| e.rows), "{text}");
        assert_eq!(cost.openings, sum(|e| e.openings), "{text}");
        assert_eq!(cost.requests, sum(|e| e.requests), "{text}");
        assert_eq!(cost.bytes, sum(|e| e.native_bytes + e.plan_bytes), "{text}");
        assert_eq!(cost.scans, if text.contains("IN") { 3 } else { 1 }, "{text}");
        assert!(told.iter().all(|e| e.version == told[0].version), "{text}");
        let notices = s.take_notices();
        assert!(notices.iter().any(|n| n.message.contains(&format!("{} cells opened", cost.openings))), "{notices:?}");
        if !text.contains("IN") {
            assert_eq!(cost.rows, ROWS as u64, "{text}");
            assert!(told.len() > 16, "{text}");
        }
    }
    // The store's own reads, gathered, say the same.
    let read = fluence_client::Select::range(KeyRange::ALL);
    let (batches, evidence) = store.read(&sealed(&real).await, &read).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), ROWS as usize);
    assert_eq!(evidence.rows, ROWS as u64);
    store.told.lock().unwrap().clear();
    let told = rows(&mut s, "EXPLAIN ANALYZE SELECT * FROM t").await.join("\n");
    let openings: u64 = store.told.lock().unwrap().iter().map(|e| e.openings).sum();
    assert!(told.contains(&format!("{ROWS} rows in")) && told.contains(&format!("{openings} cells opened")), "{told}");
}

#[tokio::test]
async fn a_limit_above_a_filter_ends_the_scan() {
    let (_real, _store, mut s) = streamed().await;
    flow(&mut s, "SELECT * FROM t").await;
    let whole = cost(&s);
    for (text, count) in [
        ("SELECT id FROM t WHERE n % 100 = 7 LIMIT 1", 1),
        ("SELECT id FROM t WHERE n > 3 LIMIT 20", 20),
        ("SELECT id FROM t WHERE n > 3 ORDER BY id DESC LIMIT 20", 20),
        ("SELECT id FROM t WHERE n > 3 ORDER BY id LIMIT 5 OFFSET 5", 5),
        ("SELECT * FROM (SELECT id, n * 2 AS m FROM t) q WHERE m > 7 LIMIT 3", 3),
        ("SELECT id FROM t LIMIT 0", 0),
    ] {
        assert_eq!(flow(&mut s, text).await, count, "{text}");
        let cost = s.cost().unwrap_or_default();
        assert!(cost.openings * 10 < whole.openings, "{text}: {cost:?} of {whole:?}");
    }
    // Of what a cursor has not fetched, no more than a portion is read.
    tag(&mut s, "BEGIN; DECLARE c CURSOR FOR SELECT id FROM t").await;
    assert_eq!(rows(&mut s, "FETCH 3 FROM c").await, ["1", "2", "3"]);
    tag(&mut s, "COMMIT").await;
}

#[tokio::test]
async fn a_page_from_the_end_reads_a_few_groups() {
    let (_real, _store, mut s) = streamed().await;
    flow(&mut s, "SELECT * FROM t").await;
    let whole = cost(&s);
    let page = |from: i64, count: i64| (0..count).map(|i| (from - i).to_string()).collect::<Vec<_>>();
    for (text, want) in [
        ("SELECT id FROM t ORDER BY id DESC LIMIT 20", page(ROWS, 20)),
        ("SELECT id FROM t WHERE id < 12345 ORDER BY id DESC LIMIT 20", page(12344, 20)),
        ("SELECT id FROM t WHERE id <= 256 ORDER BY id DESC LIMIT 2", page(256, 2)),
        ("SELECT id FROM t WHERE id > 700 AND id < 800 ORDER BY id DESC LIMIT 1", page(799, 1)),
        ("SELECT id FROM t WHERE id < 2 ORDER BY id DESC LIMIT 20", page(1, 1)),
        ("SELECT max(id) FROM t", page(ROWS, 1)),
        ("SELECT max(id) FROM t WHERE id < 9999", page(9998, 1)),
        ("SELECT min(id), max(id) FROM t WHERE id > 5 AND id < 9999", vec!["6|9998".to_owned()]),
        (
            "SELECT id FROM t WHERE id IN (7, 9, 11000) ORDER BY id DESC LIMIT 2",
            vec!["11000".to_owned(), "9".to_owned()],
        ),
    ] {
        assert_eq!(rows(&mut s, text).await, want, "{text}");
        let cost = cost(&s);
        assert!(cost.openings * 8 < whole.openings, "{text}: {cost:?} of {whole:?}");
        assert!(cost.requests <= 8, "{text}: {cost:?}");
    }
    // Rows that were retracted lead further back, in a few requests.
    tag(&mut s, &format!("DELETE FROM t WHERE id > {}", ROWS - 1000)).await;
    assert_eq!(rows(&mut s, "SELECT id FROM t ORDER BY id DESC LIMIT 3").await, page(ROWS - 1000, 3));
    let after = cost(&s);
    assert!(after.rows < 3500 && after.rows > 2000, "{after:?}");
}

/// Rows that go out are those of one version, whatever is committed meanwhile.
#[tokio::test]
async fn rows_that_go_out_are_of_one_version_or_end_in_a_conflict() {
    let (real, _store, mut s) = streamed().await;
    let writer = &mut real.gateway(GatewayOptions::default()).session("b", "db").await.unwrap();
    let before = rows(&mut s, "SELECT id, n FROM t").await;
    let begin = async |s: &mut SqlSession, text: &str| {
        let statement = s.parse(text).unwrap().pop().unwrap();
        let prepared = s.prepare(statement, Vec::new()).await.unwrap();
        s.execute(&prepared, Vec::new()).await.unwrap()
    };
    let outcome = begin(&mut s, "SELECT id, n FROM t").await;
    tag(writer, "UPDATE t SET n = -1 WHERE id > 19990; DELETE FROM t WHERE id = 15000; INSERT INTO t VALUES (0, 0)")
        .await;
    assert!(say(outcome).await.unwrap().rows == before);
    let after = rows(&mut s, "SELECT id, n FROM t").await;
    assert!(after.len() == before.len() && after != before);
    // Ranges of one scan too.
    let text = "SELECT id, n FROM t WHERE id IN (1, 19995, 19996)";
    let outcome = begin(&mut s, text).await;
    tag(writer, "UPDATE t SET n = -2 WHERE id > 19990").await;
    assert_eq!(say(outcome).await.unwrap().rows, ["1|7", "19995|-1", "19996|-1"]);
    assert_eq!(rows(&mut s, text).await, ["1|7", "19995|-2", "19996|-2"]);
    // Segments that are merged away are opened no more.
    for text in ["SELECT id, n FROM t", "COPY t TO STDOUT", "SELECT id FROM t ORDER BY id DESC"] {
        tag(writer, "UPDATE t SET n = n - 1 WHERE id > 19990").await;
        let outcome = begin(&mut s, text).await;
        real.database.table(&sealed(&real).await).await.unwrap().compact().await.unwrap().unwrap();
        let error = say(outcome).await.unwrap_err();
        assert_eq!(error.state.code(), "40001", "{text}: {error:?}");
        assert!(error.message.contains("merged"), "{error:?}");
    }
    assert!(run(&mut s, "SELECT id, n FROM t").await.is_ok());
    assert_eq!(state(&mut s, "SELECT 1 / 0").await, "22012");
}

#[tokio::test]
async fn merges_of_a_gateway_wait_for_its_scans() {
    let real = real_with(SessionOptions { portion_cells: 24, ..SessionOptions::default() }).await;
    let gateway = real.gateway(GatewayOptions { answer_bytes: 0, ..GatewayOptions::default() });
    let [a, b] = &mut [gateway.session("a", "db").await.unwrap(), gateway.session("b", "db").await.unwrap()];
    tag(a, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL)").await;
    tag(a, &format!("INSERT INTO t SELECT value, 0 FROM generate_series(1, {ROWS})")).await;
    let statement = a.parse("SELECT id, n FROM t").unwrap().pop().unwrap();
    let prepared = a.prepare(statement, Vec::new()).await.unwrap();
    let Outcome::Rows { mut stream, .. } = a.execute(&prepared, Vec::new()).await.unwrap() else { panic!("no rows") };
    let mut count = 0;
    for _ in 0..4 {
        count += stream.next().await.unwrap().unwrap().num_rows();
    }
    for id in 1..=12 {
        tag(b, &format!("UPDATE t SET n = 1 WHERE id = {id}")).await;
    }
    while let Some(batch) = stream.next().await {
        count += batch.unwrap().num_rows();
    }
    drop(stream);
    assert_eq!((count as i64, gateway.counts().merges), (ROWS, 0));
    // The next ones come with the next commits.
    for more in 0.. {
        if gateway.counts().merges > 0 {
            break;
        }
        assert!(more < 40, "{:?}", gateway.counts());
        tag(b, "UPDATE t SET n = n + 1 WHERE id = 1").await;
    }
    assert_eq!(rows(b, "SELECT count(*) FROM t WHERE n > 0").await, ["12"]);
}

#[tokio::test]
async fn what_a_transaction_wrote_is_laid_over_every_portion() {
    let (_real, store, mut s) = streamed().await;
    tag(&mut s, "BEGIN; DELETE FROM t WHERE id % 1000 = 0; UPDATE t SET n = -id WHERE id IN (1, 9999, 19999); INSERT INTO t VALUES (0, 0), (50000, 5)").await;
    let count = ROWS - 20 + 2;
    assert_eq!(rows(&mut s, "SELECT count(*), min(n), max(id) FROM t").await, [format!("{count}|-19999|50000")]);
    assert_eq!(
        rows(&mut s, "SELECT id, n FROM t WHERE n < 0 ORDER BY id DESC").await,
        ["19999|-19999", "9999|-9999", "1|-1"]
    );
    assert_eq!(rows(&mut s, "SELECT id FROM t ORDER BY id DESC LIMIT 3").await, ["50000", "19999", "19998"]);
    assert_eq!(rows(&mut s, "SELECT id FROM t LIMIT 7").await.len(), 7);
    tag(&mut s, "DELETE FROM t WHERE id = 50000; INSERT INTO t VALUES (1000, 1)").await;
    assert_eq!(rows(&mut s, "SELECT id FROM t WHERE id % 1000 = 0 ORDER BY id").await, ["0", "1000"]);
    store.alive.most.store(0, Ordering::SeqCst);
    assert_eq!(flow(&mut s, "SELECT * FROM t").await as i64, count);
    assert!(store.alive.most.load(Ordering::SeqCst) < ROWS / 4);
    tag(&mut s, "ROLLBACK").await;
    assert_eq!(rows(&mut s, "SELECT count(*) FROM t").await, [ROWS.to_string()]);
}

/// The store's own contract: ranges in order, one version, at most so many rows of all.
#[tokio::test]
async fn a_scan_of_several_ranges_gives_their_rows_in_either_order() {
    let (real, store, _s) = streamed().await;
    let table = sealed(&real).await;
    let range = |a: i64, b: i64| KeyRange {
        lower: Bound::Included(vec![Value::Int64(a)]),
        upper: Bound::Excluded(vec![Value::Int64(b)]),
    };
    let ranges = vec![range(10, 900), range(1000, 1001), range(3000, 3000), range(9000, 11000), range(30000, 40000)];
    let ids: Vec<i64> = (10..900).chain(1000..1001).chain(9000..11000).collect();
    for direction in [Direction::Forwards, Direction::Backwards] {
        let want: Vec<i64> = match direction {
            Direction::Forwards => ids.clone(),
            Direction::Backwards => ids.iter().rev().copied().collect(),
        };
        for limit in [None, Some(0), Some(1), Some(890), Some(891), Some(2000), Some(2891), Some(5000)] {
            let scan = Scan { ranges: ranges.clone(), columns: vec!["id".to_owned()], limit, direction };
            let portions: Vec<_> = store.scan(&table, &scan).await.unwrap().try_collect().await.unwrap();
            let got: Vec<i64> = portions
                .iter()
                .filter_map(|p| p.rows.as_ref())
                .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            let n = limit.map_or(want.len(), |l| want.len().min(l as usize));
            assert!(got == want[..n], "{limit:?} {direction:?}: {} rows", got.len());
            let mut order: Vec<usize> = portions.iter().map(|p| p.range).collect();
            if direction == Direction::Backwards {
                order.reverse();
            }
            assert!(order.is_sorted(), "{order:?}");
            assert!(
                !portions.is_empty() && portions.iter().all(|p| p.evidence.version == portions[0].evidence.version)
            );
            if limit.is_none() {
                order.dedup();
                assert_eq!(order, [0, 1, 2, 3, 4], "each range says what it rests on");
            }
        }
    }
}
