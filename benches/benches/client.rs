//! `client::seal`: rows per second from batches to a sealed segment, and with the node's check on the same cores.
//!
//! Data     flights-like: 19 columns as in nycflights13, key (time_hour, carrier, flight), three declared sums (arr_delay, its square,
//!          distance), so 5 sum lanes with the weights and the not-null count of arr_delay.
//! Says     rows/s, cells, permutations, and the tree's share of the sealing time. `ROWS=84194` sets the size (a quarter of the real year).

use arrow_array::RecordBatch;
use fluence_client::csv::{CsvBatches, CsvOptions};
use fluence_client::keyring::Keyring;
use fluence_client::seal::{Sealer, TableKeys};
use fluence_client::{Column, ColumnType, SumExpr, TableSchema};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{self, NodeKey};
use fluence_engine::{Engine, EngineConfig, MemStore, VerifiedBlock};
use fluence_types::block::{Block, BlockHeader};
use fluence_types::codec::Bounded;
use fluence_types::op::{Op, UnsignedOp};
use fluence_types::segment::PublicSchema;
use fluence_types::{BlockHash, DatabaseId, DbRoot, Height, OpId, ProjectionId, TableId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

/// What a client sends at once.
const CHUNK_BYTES: usize = 1 << 20;
const DB: DatabaseId = DatabaseId::from_bytes([1; 16]);

fn schema() -> TableSchema {
    let int = |n: &str| Column::new(n, ColumnType::Int64);
    let maybe = |n: &str| Column::nullable(n, ColumnType::Int64);
    let text = |n: &str| Column::new(n, ColumnType::Text);
    let columns = vec![
        int("year"),
        int("month"),
        int("day"),
        maybe("dep_time"),
        int("sched_dep_time"),
        maybe("dep_delay"),
        maybe("arr_time"),
        int("sched_arr_time"),
        maybe("arr_delay"),
        text("carrier"),
        int("flight"),
        Column::nullable("tailnum", ColumnType::Text),
        text("origin"),
        text("dest"),
        maybe("air_time"),
        int("distance"),
        int("hour"),
        int("minute"),
        Column::new("time_hour", ColumnType::Timestamp),
    ];
    let mut sums = SumExpr::variance("arr_delay").to_vec();
    sums.push(SumExpr::Column("distance".into()));
    TableSchema::new("flights", columns, &["time_hour", "carrier", "flight"], sums).expect("a valid schema")
}

fn csv(rows: usize) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(1);
    let schema = schema();
    let mut text = schema.columns().iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(",");
    text.push('\n');
    let carriers = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL", "AS", "F9", "YV", "HA", "OO"];
    for i in 0..rows {
        let minute_of_quarter = i * 90 * 24 * 60 / rows;
        let (day, hour, minute) = (minute_of_quarter / 1440, minute_of_quarter / 60 % 24, minute_of_quarter % 60);
        let (month, day) = (1 + day / 30, 1 + day % 28);
        let scheduled = hour * 100 + minute;
        let (dep, arr) = (rng.gen_range(-20..120i64), rng.gen_range(-60..150i64));
        let cancelled = rng.gen_ratio(1, 40);
        let or_na = |v: i64| if cancelled { "NA".to_owned() } else { v.to_string() };
        let _ = writeln!(
            text,
            "2013,{month},{day},{},{scheduled},{},{},{},{},{},{},N{}{},{},{:.3},{},{},{hour},{minute},2013-{month:02}-{day:02} {hour:02}:00:00",
            or_na((scheduled as i64 + dep).rem_euclid(2400)),
            or_na(dep),
            or_na((scheduled as i64 + arr + 200).rem_euclid(2400)),
            (scheduled + 200) % 2400,
            or_na(arr),
            carriers[rng.gen_range(0..carriers.len())],
            rng.gen_range(1..8500),
            rng.gen_range(100..999),
            ["UA", "JB", "DL"][rng.gen_range(0..3)],
            ["EWR", "JFK", "LGA"][rng.gen_range(0..3)],
            format!("D{:02}", rng.gen_range(0..99)),
            or_na(rng.gen_range(20..695)),
            rng.gen_range(80..4983),
        );
    }
    text.into_bytes()
}

/// An engine with the database and the table in it.
fn engine(keyring: &Keyring, public: &PublicSchema, node: &NodeKey) -> Engine {
    let engine = Engine::open(Arc::new(MemStore::new()), EngineConfig::default()).expect("an empty store");
    let create = Op::CreateDatabase { members: Bounded::new(vec![node.member()]).expect("one member") };
    let define = Op::DefineProjection { projection: ProjectionId(0), table: TableId(0), schema: public.clone() };
    let mut previous = OpId::default();
    for (i, op) in [create, define].into_iter().enumerate() {
        let unsigned = UnsignedOp { db: DB, writer: keyring.address(), sequence: i as u64, previous, op };
        previous = sign::op_id(&unsigned);
        let ops = Bounded::new(vec![keyring.sign(unsigned)]).expect("one operation");
        let head = engine.head(DB);
        let header = BlockHeader {
            db: DB,
            consensus_epoch: 0,
            height: Height(i as u64),
            parent: head.map_or_else(BlockHash::default, |h| h.block),
            timestamp_ms: i as u64,
            ops_hash: sign::ops_hash(&ops),
            executed_height: Height(0),
            executed_root: head.map_or_else(DbRoot::default, |h| h.root),
            next_members_hash: head.map_or([0; 32], |h| h.next_members_hash),
        };
        let applied = engine.apply(&VerifiedBlock::verify(Block { header, ops }).expect("signed")).expect("applies");
        assert_eq!(applied.outcomes[0].outcome, Ok(()));
    }
    engine
}

fn main() {
    let rows: usize = std::env::var("ROWS").ok().and_then(|r| r.parse().ok()).unwrap_or(84_194);
    let mut rng = StdRng::seed_from_u64(2);
    let keyring = Arc::new(Keyring::generate(&mut rng));
    let public = keyring.seal_schema(&DB, &TableId(0), &schema(), &mut rng).expect("short enough");
    let table = keyring.open_schema(&DB, &TableId(0), &public).expect("our own");
    let keys = TableKeys::new(Arc::clone(&keyring), DB, TableId(0), Arc::new(table));
    let text = csv(rows);
    let node = NodeKey::new(Secret::new([3; 32]));

    let start = Instant::now();
    let batches: Vec<RecordBatch> = CsvBatches::from_bytes(text.clone(), &schema(), &CsvOptions::default())
        .expect("our own header")
        .collect::<Result<_, _>>()
        .expect("our own rows");
    let parse = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let mut sealer = Sealer::new(keys);
    batches.iter().for_each(|b| sealer.push(b).expect("fits"));
    let segment = sealer.seal(&mut rng).expect("seals");
    let seal = start.elapsed().as_secs_f64();
    let stats = segment.stats();

    let engine = engine(&keyring, &public, &node);
    let start = Instant::now();
    let mut have = engine.begin_upload(DB, &segment.preimage()).expect("begins");
    while have < segment.byte_len() {
        let bytes = segment.bytes(have, CHUNK_BYTES);
        have = engine.append_upload(segment.root(), have, &bytes).expect("takes it");
    }
    engine.finish_upload(segment.root()).expect("checks");
    let check = start.elapsed().as_secs_f64();

    let n = rows as f64;
    println!("client::seal/rows={rows} threads={}", rayon::current_num_threads());
    println!("csv      {:>9.0} rows/s  {:>8.1} MB", n / parse, text.len() as f64 / 1e6);
    println!("seal     {:>9.0} rows/s  {:>8.1} ms", n / seal, seal * 1e3);
    println!("check    {:>9.0} rows/s  {:>8.1} ms", n / check, check * 1e3);
    println!(
        "import   {:>9.0} rows/s  (csv, seal, check one after the other; owed: 15000)",
        n / (parse + seal + check)
    );
    println!(
        "cells    {} ({:.2} a row), {:.1} bytes a row stored",
        stats.cells,
        stats.cells as f64 / n,
        stats.cells as f64 * 256.0 / n
    );
    println!(
        "hash     {} permutations, {:.1} us each on these threads, {:.0} % of sealing",
        stats.permutations,
        stats.hash_ms * 1e3 / stats.permutations as f64,
        100.0 * stats.hash_ms / stats.ms
    );
}
