//! Import, query, update, delete, compact; every answer compared with a plain computation over the same rows.

use crate::data::{Plain, batches, csv, hour, schema};
use crate::local::{Net, Node};
use fluence_client::{
    Aggregate, AggregateValue, ClientError, Database, ImportOptions, KeyRange, Keyring, Keystore, Progress, Select,
    Session, SumExpr, Table, TransportError, Value,
};
use fluence_types::op::OpRefusal;
use fluence_wire::{Request, Response};
use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

pub(crate) type Flights = Table<Arc<Net>>;

pub(crate) fn session(net: &Arc<Net>, seed: u64) -> Session<Arc<Net>> {
    let keystore = Keystore::in_memory(Keyring::generate(&mut StdRng::seed_from_u64(seed)));
    Session::new(Arc::clone(net), keystore, StdRng::seed_from_u64(seed + 1000))
}

pub(crate) async fn database(net: &Arc<Net>, nodes: &[Arc<Node>]) -> Database<Arc<Net>> {
    session(net, 1).create_database("test", nodes.iter().map(|n| n.id()).collect(), Vec::new()).await.unwrap()
}

pub(crate) async fn imported(rows: usize, segment_rows: usize) -> (Arc<Net>, Arc<Node>, Flights, Plain) {
    let (net, nodes) = Net::of(&[1]);
    let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
    let text = csv(rows, 7);
    table.import(batches(&text), ImportOptions { segment_rows }, |_| {}).await.unwrap();
    (net, Arc::clone(&nodes[0]), table, Plain::of(&text))
}

/// Whether a plain row is in a range.
type Keep = Box<dyn Fn(&[Value]) -> bool>;

fn ranges() -> Vec<(KeyRange, Keep)> {
    let ts = |v: &Value| match v {
        Value::Timestamp(t) => *t,
        other => panic!("{other:?}"),
    };
    let (a, b) = (ts(&hour(5, 3)), ts(&hour(9, 17)));
    let text = |v: &Value, t: &str| matches!(v, Value::Text(x) if x == t);
    vec![
        (KeyRange::ALL, Box::new(|_| true)),
        (KeyRange::between(vec![hour(5, 3)], vec![hour(9, 17)]), Box::new(move |r| (a..=b).contains(&ts(&r[0])))),
        (
            KeyRange { lower: Bound::Excluded(vec![hour(5, 3)]), upper: Bound::Excluded(vec![hour(9, 17)]) },
            Box::new(move |r| a < ts(&r[0]) && ts(&r[0]) < b),
        ),
        (
            KeyRange { lower: Bound::Unbounded, upper: Bound::Included(vec![hour(5, 3)]) },
            Box::new(move |r| ts(&r[0]) <= a),
        ),
        (
            KeyRange::prefix(vec![hour(5, 3), Value::Text("UA".into())]),
            Box::new(move |r| ts(&r[0]) == a && text(&r[1], "UA")),
        ),
        (KeyRange::prefix(vec![Value::Timestamp(5)]), Box::new(|_| false)),
        (KeyRange::between(vec![hour(9, 0)], vec![hour(5, 0)]), Box::new(|_| false)),
    ]
}

/// Compares every query over every range with the plain rows.
pub(crate) async fn check_all(table: &Flights, plain: &Plain) {
    for (range, keep) in ranges() {
        check(table, &plain.filter(keep), &range).await;
    }
}

async fn check(table: &Flights, want: &Plain, range: &KeyRange) {
    let got = table.select(&Select::range(range.clone())).await.unwrap();
    assert_eq!(Plain::of_batch(&got.value).canonical(), want.canonical());
    let keys = fluence_client::key::Keys::of(&got.value.columns()[..3]);
    assert!(keys.sorted(), "rows come in key order");

    let aggregates = [
        Aggregate::Count,
        Aggregate::CountColumn("delay".into()),
        Aggregate::Sum(SumExpr::Column("delay".into())),
        Aggregate::Sum(SumExpr::Column("distance".into())),
        Aggregate::Sum("delay*distance".parse().unwrap()),
        Aggregate::Sum(SumExpr::Column("ontime".into())),
        Aggregate::Avg(SumExpr::Column("delay".into())),
        Aggregate::VarPop("distance".into()),
        Aggregate::VarSamp("delay".into()),
        Aggregate::Min("delay".into()),
        Aggregate::Max("distance".into()),
        Aggregate::Min("hour".into()),
        Aggregate::Max("tail".into()),
    ];
    let got = table.aggregates(range, &aggregates).await.unwrap();
    let delay = want.integers(3);
    let distance = want.integers(4);
    let both: Vec<i128> = want
        .0
        .iter()
        .filter_map(|r| match (&r[3], &r[4]) {
            (Value::Int64(a), Value::Decimal { unscaled, .. }) => Some(i128::from(*a) * unscaled),
            _ => None,
        })
        .collect();
    let sum = |v: &[i128], scale| match v {
        [] => AggregateValue::Null,
        _ => AggregateValue::Sum { unscaled: v.iter().sum(), scale },
    };
    let value = |v: Option<Value>| v.map_or(AggregateValue::Null, AggregateValue::Value);
    assert_eq!(got.value[0], AggregateValue::Count(want.0.len() as u64));
    assert_eq!(got.value[1], AggregateValue::Count(delay.len() as u64));
    assert_eq!(got.value[2], sum(&delay, 0));
    assert_eq!(got.value[3], sum(&distance, 1));
    assert_eq!(got.value[4], sum(&both, 1));
    assert_eq!(got.value[5], sum(&want.integers(6), 0));
    close(&got.value[6], mean(&delay));
    close(&got.value[7], variance(&distance, false).map(|v| v / 100.0));
    close(&got.value[8], variance(&delay, true));
    assert_eq!(got.value[9], value(delay.iter().min().map(|v| Value::Int64(*v as i64))));
    assert_eq!(got.value[10], value(distance.iter().max().map(|v| Value::Decimal { unscaled: *v, scale: 1 })));
    let hours = want.0.iter().map(|r| r[0].clone());
    assert_eq!(got.value[11], value(hours.min_by_key(|v| if let Value::Timestamp(t) = v { *t } else { i64::MAX })));
    let tails = want.0.iter().filter_map(|r| if let Value::Text(t) = &r[8] { Some(t.clone()) } else { None });
    assert_eq!(got.value[12], value(tails.max().map(Value::Text)));
}

fn mean(v: &[i128]) -> Option<f64> {
    (!v.is_empty()).then(|| v.iter().sum::<i128>() as f64 / v.len() as f64)
}

fn variance(v: &[i128], sample: bool) -> Option<f64> {
    let divisor = v.len().checked_sub(usize::from(sample)).filter(|n| *n > 0)? as f64;
    let mean = mean(v)?;
    Some(v.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / divisor)
}

fn close(got: &AggregateValue, want: Option<f64>) {
    match (got.to_f64(), want) {
        (None, None) => assert_eq!(*got, AggregateValue::Null),
        (Some(a), Some(b)) => assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} {b}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn queries_equal_the_plain_computation() {
    block_on(async {
        // Several segments, uploaded and inline, whose key ranges overlap.
        let (_, _, table, plain) = imported(3000, 900).await;
        assert_eq!(plain.0.len(), 3000);
        check_all(&table, &plain).await;
        let one = table.select(&Select::range(KeyRange::ALL).columns(&["tail", "hour"]).limit(17)).await.unwrap();
        assert_eq!((one.value.num_rows(), one.value.num_columns()), (17, 2));
        assert_eq!(one.value.schema().field(0).name(), "tail");
        let first = table.select(&Select::range(KeyRange::ALL).limit(17)).await.unwrap();
        let all = table.select(&Select::range(KeyRange::ALL)).await.unwrap();
        assert_eq!(first.value, all.value.slice(0, 17));
    });
}

#[test]
fn an_empty_table_counts_nothing_and_sums_to_null() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        check_all(&table, &Plain::default()).await;
        assert!(table.compact().await.unwrap().is_none());
        assert!(table.delete(&KeyRange::ALL, |_| true).await.unwrap().is_none());
        let empty: [Result<_, ClientError>; 0] = [];
        let nothing = table.import(empty, ImportOptions::default(), |_| {}).await.unwrap();
        assert_eq!((nothing.rows, nothing.segments.len()), (0, 0));
    });
}

#[test]
fn updates_and_deletes_cancel_exactly_and_compaction_changes_no_answer() {
    block_on(async {
        let (_, node, table, mut plain) = imported(1200, 500).await;
        let late = |r: &[Value]| matches!(r[3], Value::Int64(d) if d > 700);
        let is_late = |row: &fluence_client::Row<'_>| matches!(row.get("delay"), Some(Value::Int64(d)) if d > 700);
        let deleted = table.delete(&KeyRange::ALL, is_late).await.unwrap().unwrap();
        assert_eq!(deleted.rows as usize, plain.filter(late).0.len());
        plain = plain.filter(|r| !late(r));
        check_all(&table, &plain).await;

        // Retracting again finds nothing: a row is never retracted twice.
        assert!(table.delete(&KeyRange::ALL, is_late).await.unwrap().is_none());

        let range = KeyRange::between(vec![hour(10, 0)], vec![hour(12, 23)]);
        let in_range = |r: &Vec<Value>| match (&r[0], hour(10, 0), hour(12, 23)) {
            (Value::Timestamp(t), Value::Timestamp(a), Value::Timestamp(b)) => (a..=b).contains(t),
            _ => false,
        };
        let change = |row: &fluence_client::Row<'_>| {
            let delay = match row.get("delay") {
                Some(Value::Int64(d)) => Value::Int64(d + 1),
                _ => Value::Int64(0),
            };
            Some(vec![("delay".to_owned(), delay), ("tail".to_owned(), Value::Null)])
        };
        let updated = table.update(&range, change).await.unwrap().unwrap();
        let mut touched = 0;
        for row in plain.0.iter_mut().filter(|r| in_range(r)) {
            row[3] = if let Value::Int64(d) = row[3] { Value::Int64(d + 1) } else { Value::Int64(0) };
            row[8] = Value::Null;
            touched += 1;
        }
        assert_eq!(updated.rows, touched);
        check_all(&table, &plain).await;

        // By key; a longer key inside a shorter one is not retracted twice.
        let Value::Timestamp(_) = plain.0[0][0] else { panic!() };
        let short = vec![plain.0[0][0].clone()];
        let long = plain.0[0][..3].to_vec();
        let gone = table.delete_keys(&[long, short.clone()]).await.unwrap().unwrap();
        let before = plain.0.len();
        plain = plain.filter(|r| r[0] != short[0]);
        assert_eq!(gone.rows as usize, before - plain.0.len());
        check_all(&table, &plain).await;

        let live = node.engine.view(table.db()).unwrap().segments().iter().filter(|s| s.live).count();
        assert_eq!(live, 6);
        let compacted = table.compact().await.unwrap().unwrap();
        assert_eq!(compacted.rows as usize, plain.0.len());
        let live = node.engine.view(table.db()).unwrap().segments().iter().filter(|s| s.live).count();
        assert_eq!(live, 1);
        check_all(&table, &plain).await;
        assert!(table.compact().await.unwrap().is_none(), "there is nothing left to gain");

        // Everything deleted, everything compacted away.
        table.delete(&KeyRange::ALL, |_| true).await.unwrap().unwrap();
        check_all(&table, &Plain::default()).await;
        let emptied = table.compact().await.unwrap().unwrap();
        assert_eq!((emptied.rows, emptied.segments.len()), (0, 0));
        check_all(&table, &Plain::default()).await;
    });
}

#[test]
fn many_small_appends_are_compacted_before_the_live_limit() {
    block_on(async {
        let (_, node, table, _) = imported(40, 40).await;
        let row = table.select(&Select::range(KeyRange::ALL).limit(1)).await.unwrap().value;
        for _ in 0..20 {
            table.append(&row).await.unwrap();
        }
        let live = node.engine.view(table.db()).unwrap().segments().iter().filter(|s| s.live).count();
        assert!(live <= 16, "{live}");
        let count = table.aggregate(&KeyRange::ALL, &Aggregate::Count).await.unwrap();
        assert_eq!(count.value, AggregateValue::Count(60));
    });
}

/// A second client of the same owner: the same keys, its own caches.
fn second(net: &Arc<Net>, table: &Flights) -> Session<Arc<Net>> {
    let keyring = Keyring::from_phrase(&table_session_phrase(table)).unwrap();
    Session::new(Arc::clone(net), Keystore::in_memory(keyring), StdRng::seed_from_u64(77))
}

fn table_session_phrase(table: &Flights) -> fluence_client::Phrase {
    table.session().keyring().phrase()
}

#[test]
fn a_writer_that_lost_the_race_repeats_an_append_and_reads_again_for_an_update() {
    block_on(async {
        let (net, node, table, plain) = imported(60, 60).await;
        let row = table.select(&Select::range(KeyRange::ALL).limit(1)).await.unwrap().value;
        let other = second(&net, &table);
        other.recover(&[(node.id(), String::new())]).await.unwrap();
        let theirs = other.database(table.db()).unwrap().table("flights").await.unwrap();

        // The other client's commit is held back on the line ..
        let held: Arc<Mutex<Option<Request>>> = Arc::default();
        let slot = Arc::clone(&held);
        net.tamper(move |node, request| match request {
            Request::Submit(_) => {
                *slot.lock().unwrap() = Some(request);
                Err(TransportError::Closed)
            }
            other => Ok(node.answer(other)),
        });
        assert!(theirs.append(&row).await.is_err());
        // .. and arrives just after we read the version that we then commit against.
        for round in 0..2 {
            let slot = Arc::clone(&held);
            let conflicts: Arc<Mutex<u32>> = Arc::default();
            let seen = Arc::clone(&conflicts);
            net.tamper(move |node, request| {
                if matches!(request, Request::Writer { .. } | Request::Submit(_))
                    && let Some(late) = slot.lock().unwrap().take()
                {
                    assert!(matches!(node.answer(late), Response::Submit { receipt, .. } if receipt.outcome.is_ok()));
                }
                let response = node.answer(request);
                if let Response::Submit { receipt, .. } = &response
                    && matches!(receipt.outcome, Err(OpRefusal::Conflict { .. }))
                {
                    *seen.lock().unwrap() += 1;
                }
                Ok(response)
            });
            if round == 0 {
                table.append(&row).await.unwrap();
                assert_eq!(*conflicts.lock().unwrap(), 1, "the append lost the race once");
                // Hold another one back for the second round.
                let slot = Arc::clone(&held);
                net.tamper(move |node, request| match request {
                    Request::Submit(_) => {
                        *slot.lock().unwrap() = Some(request);
                        Err(TransportError::Closed)
                    }
                    other => Ok(node.answer(other)),
                });
                assert!(theirs.append(&row).await.is_err());
            } else {
                let set = |r: &fluence_client::Row<'_>| Some(vec![("flight".to_owned(), r.get("flight").unwrap())]);
                let all = table.update(&KeyRange::ALL, set).await.unwrap().unwrap();
                assert_eq!(*conflicts.lock().unwrap(), 1, "the update lost the race once");
                assert_eq!(all.rows as usize, plain.0.len() + 3, "and then saw the row that came in between");
            }
        }
        net.honest();
        let count = table.aggregate(&KeyRange::ALL, &Aggregate::Count).await.unwrap();
        assert_eq!(count.value, AggregateValue::Count(63));
        // The other client's plan is older than all of that: it is told so, plans again, and sees the same.
        let count = theirs.aggregate(&KeyRange::ALL, &Aggregate::Count).await.unwrap();
        assert_eq!(count.value, AggregateValue::Count(63));
    });
}

#[test]
fn a_broken_line_resumes_the_upload_and_orders_the_operation_once() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        let (text, id) = (csv(6000, 3), nodes[0].id());
        let (mut chunk_lost, mut submit_lost) = (false, false);
        net.tamper(move |node, request| {
            // The first chunk and the first operation arrive, but their answers are lost.
            let lost = match request {
                Request::UploadChunk { .. } => !std::mem::replace(&mut chunk_lost, true),
                Request::Submit(_) => !std::mem::replace(&mut submit_lost, true),
                _ => false,
            };
            let response = node.answer(request);
            if lost { Err(TransportError::Unreachable { node: id, why: "cut".into() }) } else { Ok(response) }
        });
        let mut seen = Vec::new();
        table.import(batches(&text), ImportOptions::default(), |p| seen.push(p)).await.unwrap();
        assert!(matches!(seen.last(), Some(Progress::Committed { .. })));
        let chunks = net.requests.lock().unwrap().iter().filter(|r| **r == "chunk").count();
        let uploaded = seen.iter().filter(|p| matches!(p, Progress::Uploaded { .. })).count();
        assert_eq!(chunks, uploaded + 1, "the chunk that arrived was not sent again");
        net.honest();
        let count = table.aggregate(&KeyRange::ALL, &Aggregate::Count).await.unwrap();
        assert_eq!(count.value, AggregateValue::Count(6000));
    });
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema()).await.unwrap();
        assert!(matches!(db.create_table(schema()).await, Err(ClientError::TableExists(_))));
        assert!(matches!(db.table("nope").await, Err(ClientError::UnknownTable(_))));
        let float = table.aggregate(&KeyRange::ALL, &Aggregate::Sum(SumExpr::Column("ratio".into()))).await;
        assert!(float.unwrap_err().to_string().contains("cannot be summed exactly"));
        let undeclared = table.aggregate(&KeyRange::ALL, &Aggregate::Sum(SumExpr::Square("flight".into()))).await;
        assert!(undeclared.unwrap_err().to_string().contains("keeps no sum of flight*flight"));
        let wrong = table.select(&Select::range(KeyRange::prefix(vec![Value::Int64(1)]))).await;
        assert!(matches!(wrong, Err(ClientError::Schema(_))));
        let stranger = session(&net, 99);
        assert!(matches!(stranger.database(db.id()), Err(ClientError::UnknownDatabase(_))));
        // Another owner may not write here.
        stranger.remember(db.id(), db.session().known()[&db.id()].clone()).unwrap();
        let refused = stranger.database(db.id()).unwrap().create_table(schema()).await.unwrap_err();
        assert!(
            matches!(
                refused,
                ClientError::Op(OpRefusal::NotAllowed(_)) | ClientError::Refused { .. } | ClientError::Key(_)
            ),
            "{refused}"
        );
    });
}

#[test]
fn a_warm_aggregate_takes_one_request_and_few_bytes() {
    block_on(async {
        let (_, _, table, _) = imported(3000, 3000).await;
        let range = KeyRange::between(vec![hour(5, 3)], vec![hour(9, 17)]);
        let sum = Aggregate::Sum(SumExpr::Column("delay".into()));
        let cold = table.aggregate(&range, &sum).await.unwrap();
        let warm = table.aggregate(&range, &sum).await.unwrap();
        assert_eq!(cold.value, warm.value);
        assert_eq!((warm.evidence.requests, warm.evidence.plan_bytes), (1, 0));
        assert!(warm.evidence.native_bytes < 20 << 10, "{} bytes", warm.evidence.native_bytes);
        println!("cold {:?}\nwarm {:?}", cold.evidence, warm.evidence);
    });
}
