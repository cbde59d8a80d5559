//! `client::writes`: one-row INSERTs of a 4-column table into a cluster of real node processes on loopback, grouped and not.
//!
//! Needs    the binary `fluence` of the same tree: `FLUENCE_BIN`, or `debug/fluence` beside this bench's target folder. It runs `fluence up`.
//! Modes    closed: each session sends its next row when the last is certified. open: rows fall due at a fixed rate, whether the ones before
//!          are answered or not, and a row's time counts from when it was due, so that a stall is not hidden. single: one commit a row.
//! Says     rows/s, p50, p99 and the worst, commits, bytes and rows written again by merging, and that exactly the rows acknowledged
//!          are in the table. `SECONDS=60 SESSIONS=64 RATE=1000 NODES=4`.

use arrow_array::{Array, Int64Array, RecordBatch, StringArray};
use fluence_client::dial::{DialOptions, Dialer};
use fluence_client::{
    Aggregate, AggregateValue, Column, ColumnType, Database, Group, GroupOptions, GroupStats, KeyRange, Keyring,
    Keystore, Session, SumExpr, Table, TableSchema, Value,
};
use fluence_types::NodeId;
use rand::SeedableRng;
use rand::rngs::{OsRng, StdRng};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// `fluence up`, which stops with its standard input.
struct Cluster {
    child: Child,
    nodes: Vec<(NodeId, String)>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start(binary: &Path, nodes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(binary)
            .args(["--json", "up", "--stop-with-stdin", "--nodes", &nodes.to_string(), "--dir"])
            .arg(dir.path().join("up"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let first = lines.next().expect("it says where the nodes are").expect("text");
        let said: serde_json::Value = serde_json::from_str(&first).expect("a line of JSON");
        let node = |n: &serde_json::Value| {
            let text = |key: &str| n[key].as_str().expect("it is there").to_owned();
            (text("node").parse::<NodeId>().expect("a node id"), text("address"))
        };
        let nodes = said["nodes"].as_array().expect("a list").iter().map(node).collect();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, nodes, _dir: dir }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn schema(name: &str) -> TableSchema {
    let columns = vec![
        Column::new("id", ColumnType::Int64),
        Column::new("customer", ColumnType::Text),
        Column::new("cents", ColumnType::Int64),
        Column::nullable("note", ColumnType::Text),
    ];
    TableSchema::new(name, columns, &["id"], vec![SumExpr::Column("cents".into())]).expect("a valid schema")
}

fn row(id: i64) -> Vec<Value> {
    let customer = Value::Text(format!("customer {:05}", id.wrapping_mul(7919) % 100_000));
    vec![Value::Int64(id), customer, Value::Int64(id % 10_000), Value::Null]
}

fn batch(id: i64) -> RecordBatch {
    let Value::Text(customer) = &row(id)[1] else { unreachable!("it is a text") };
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from(vec![id])),
        Arc::new(StringArray::from(vec![customer.as_str()])),
        Arc::new(Int64Array::from(vec![id % 10_000])),
        Arc::new(StringArray::from(vec![None::<&str>])),
    ];
    RecordBatch::try_new(schema("x").arrow(), columns).expect("it fits")
}

/// Times of rows, in microseconds.
#[derive(Default)]
struct Times(std::sync::Mutex<Vec<u64>>);

impl Times {
    fn note(&self, since: Instant) {
        self.0.lock().expect("nobody panics with it").push(since.elapsed().as_micros() as u64);
    }

    fn line(&self, seconds: f64) -> String {
        let mut all = self.0.lock().expect("nobody panics with it").clone();
        all.sort_unstable();
        let at = |q: f64| all.get(((all.len() as f64 * q) as usize).min(all.len().saturating_sub(1))).copied();
        let ms = |q| at(q).map_or(0.0, |us| us as f64 / 1e3);
        let rate = all.len() as f64 / seconds;
        format!("{rate:8.1} rows/s  p50 {:7.1} ms  p99 {:7.1} ms  worst {:7.1} ms", ms(0.5), ms(0.99), ms(1.0))
    }
}

type Rows = Table<Dialer>;

async fn check(table: &Rows, want: u64) {
    let count = table.aggregate(&KeyRange::ALL, &Aggregate::Count).await.expect("it answers").value;
    assert_eq!(count, AggregateValue::Count(want), "exactly the rows that were acknowledged are there");
}

/// One commit a row. Rows of one writer follow each other: its operations form a chain.
async fn single(database: &Database<Dialer>, sessions: u64, limit: Duration) -> String {
    let table = database.create_table(schema("single")).await.expect("a table");
    let (times, ids, turn) = (Times::default(), AtomicI64::new(0), Mutex::new(()));
    let begun = Instant::now();
    let work = (0..sessions).map(|_| async {
        while begun.elapsed() < limit {
            let since = Instant::now();
            let _turn = turn.lock().await;
            if begun.elapsed() >= limit {
                return;
            }
            table.append(&batch(ids.fetch_add(1, Relaxed))).await.expect("it is inserted");
            times.note(since);
        }
    });
    futures::future::join_all(work).await;
    let line = times.line(begun.elapsed().as_secs_f64());
    check(&table, ids.load(Relaxed) as u64).await;
    line
}

async fn closed(group: Group, sessions: u64, limit: Duration) -> String {
    let (times, ids) = (Arc::new(Times::default()), Arc::new(AtomicI64::new(0)));
    let begun = Instant::now();
    let work = (0..sessions).map(|_| {
        let (group, times, ids) = (group.clone(), Arc::clone(&times), Arc::clone(&ids));
        tokio::spawn(async move {
            while begun.elapsed() < limit {
                let since = Instant::now();
                group.insert(row(ids.fetch_add(1, Relaxed))).await.expect("it is inserted");
                times.note(since);
            }
        })
    });
    for task in work.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    times.line(begun.elapsed().as_secs_f64())
}

async fn open(group: Group, sessions: u64, rate: u64, limit: Duration) -> String {
    let (times, ids) = (Arc::new(Times::default()), Arc::new(AtomicI64::new(0)));
    let every = Duration::from_secs_f64(sessions as f64 / rate as f64);
    let begun = Instant::now();
    let work = (0..sessions).map(|s| {
        let (group, times, ids) = (group.clone(), Arc::clone(&times), Arc::clone(&ids));
        tokio::spawn(async move {
            let mut due = begun + every.mul_f64(s as f64 / sessions as f64);
            let mut sent = Vec::new();
            while due < begun + limit {
                tokio::time::sleep_until(due.into()).await;
                let (group, times, id, since) = (group.clone(), Arc::clone(&times), ids.fetch_add(1, Relaxed), due);
                sent.push(tokio::spawn(async move {
                    group.insert(row(id)).await.expect("it is inserted");
                    times.note(since);
                }));
                sent.retain(|task| !task.is_finished());
                due += every;
            }
            for task in sent {
                task.await.expect("no panic");
            }
        })
    });
    for task in work.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    times.line(begun.elapsed().as_secs_f64())
}

fn stats(stats: &GroupStats) -> String {
    let rows = stats.rows.max(1) as f64;
    format!(
        "{} rows in {} commits ({:.1} a commit), {} merges, live at most {}, each row written {:.2} times, {:.0} bytes a row in all",
        stats.rows,
        stats.commits,
        rows / stats.commits.max(1) as f64,
        stats.merges,
        stats.live_max,
        stats.write_amplification(),
        stats.bytes_written as f64 / rows,
    )
}

async fn run(cluster: &Cluster) {
    let (sessions, rate, nodes) = (env("SESSIONS", 64), env("RATE", 1000), cluster.nodes.len());
    let limit = Duration::from_secs(env("SECONDS", 60));
    let dialer = Dialer::start(DialOptions::default()).expect("a dialer");
    for (node, address) in &cluster.nodes {
        dialer.add_address(node, address).expect("an address");
    }
    let keystore = Keystore::in_memory(Keyring::generate(&mut OsRng));
    let session = Session::new(dialer, keystore, StdRng::from_entropy());
    let members = cluster.nodes.iter().map(|(node, _)| *node).collect();
    let database = session.create_database("bench", members, cluster.nodes.clone()).await.expect("a database");

    let name = |mode: &str| format!("client::writes/members={nodes} sessions={sessions} mode={mode}");
    println!("{}: {}", name("single"), single(&database, sessions, limit / 3).await);
    for (mode, at) in [("closed", None), ("open", Some(rate))] {
        let table = database.create_table(schema(mode)).await.expect("a table");
        let (group, driver) = table.group(GroupOptions::default());
        let work = async {
            let line = match at {
                None => closed(group.clone(), sessions, limit).await,
                Some(rate) => open(group.clone(), sessions, rate, limit).await,
            };
            group.close();
            line
        };
        let (line, done) = tokio::join!(work, driver.run());
        let done = done.expect("the driver ends well");
        println!("{}: {line}", name(&at.map_or(mode.to_owned(), |rate| format!("{mode} rate={rate}"))));
        println!("    {}", stats(&done));
        check(&table, done.rows).await;
    }
}

fn main() {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.parent()?.join("debug/fluence"));
    let binary = std::env::var_os("FLUENCE_BIN").map(PathBuf::from).or_else(beside).filter(|path| path.is_file());
    let Some(binary) = binary else {
        println!("client::writes: skipped, there is no binary; `make build`, and FLUENCE_BIN=.. names it");
        return;
    };
    let cluster = Cluster::start(&binary, env("NODES", 4));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&cluster));
}
