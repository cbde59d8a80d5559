//! Scans in both directions and in portions of every size: the same rows, of one version, and few cells for few rows.

use crate::data::{Plain, csv};
use crate::flows::{database, imported};
use crate::local::{Net, Node};
use crate::small::{Small, batch, live, pairs, schema};
use fluence_client::{
    Aggregate, AggregateValue, Answered, ClientError, Column, ColumnType, Database, Direction, ImportOptions, KeyRange,
    Keyring, Keystore, Phrase, RowStream, Select, Session, SessionOptions, TableSchema, Value,
};
use fluence_types::FieldBytes;
use fluence_types::codec::Bounded;
use fluence_types::op::OpRefusal;
use fluence_wire::{Request, Response};
use futures::FutureExt;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

type Pairs = Vec<(i64, i64)>;

/// The owner on another machine, whose scans ask for so many cells at once.
fn reader(net: &Arc<Net>, of: &Database<Arc<Net>>, portion_cells: u64) -> Database<Arc<Net>> {
    let words = of.session().keyring().phrase().expose(|words| Phrase::new(words.to_owned()));
    let keystore = Keystore::in_memory(Keyring::from_phrase(&words).unwrap());
    let options = SessionOptions { portion_cells, ..SessionOptions::default() };
    let session = Session::with(Arc::clone(net), keystore, StdRng::seed_from_u64(portion_cells), options);
    session.remember(of.id(), of.session().known().remove(&of.id()).unwrap()).unwrap();
    session.database(of.id()).unwrap()
}

/// Segments that overlap, with rows twice over, retractions at both ends, in the middle and of whole groups, and one key of 700 rows.
async fn messy() -> (Arc<Net>, Arc<Node>, Database<Arc<Net>>, Small, Pairs) {
    let (net, nodes) = Net::of(&[1]);
    let db = database(&net, &nodes).await;
    let table = db.create_table(schema("t")).await.unwrap();
    let mut rows: Pairs = Vec::new();
    let mut parts: Vec<Pairs> = vec![
        (0..1500).map(|i| (i, i * 3)).collect(),
        (0..1000).map(|i| (i * 2, i % 5)).collect(),
        (0..700).map(|i| (777, i % 50)).collect(),
        (1400..2300).map(|i| (i, -i)).collect(),
        (0..40).map(|i| (i * 50, i * 150)).collect(),
    ];
    parts.push(parts[4].clone());
    for part in parts {
        table.append(&batch(&part)).await.unwrap();
        rows.extend(part);
    }
    let range = |a: i64, b: i64| KeyRange::between(vec![Value::Int64(a)], vec![Value::Int64(b)]);
    for (a, b, nth) in [(0, 310, 1), (1900, 2300, 1), (0, 2300, 11), (777, 777, 2)] {
        let mut count = 0;
        let pick = |id: i64, cents: i64| match nth {
            2 => cents % 2 == 0,
            nth => id % nth == 0,
        };
        let which = |row: &fluence_client::Row<'_>| match (row.get("id"), row.get("cents")) {
            (Some(Value::Int64(id)), Some(Value::Int64(cents))) => pick(id, cents),
            other => panic!("{other:?}"),
        };
        table.delete(&range(a, b), which).await.unwrap().unwrap();
        rows.retain(|(id, cents)| {
            let gone = (a..=b).contains(id) && pick(*id, *cents);
            count += usize::from(gone);
            !gone
        });
        assert!(count > 0);
    }
    table.append(&batch(&[(5, 5), (2299, 1), (777, 2)])).await.unwrap();
    rows.extend([(5, 5), (2299, 1), (777, 2)]);
    rows.sort_unstable();
    assert!(live(&nodes[0], &table) > 5);
    (net, Arc::clone(&nodes[0]), db, table, rows)
}

/// Whether an id is in a range.
type Keep = Box<dyn Fn(i64) -> bool>;

fn ranges() -> Vec<(KeyRange, Keep)> {
    let v = |id: i64| vec![Value::Int64(id)];
    let range = |lower, upper| KeyRange { lower, upper };
    use Bound::{Excluded, Included, Unbounded};
    vec![
        (KeyRange::ALL, Box::new(|_| true)),
        (range(Unbounded, Excluded(v(777))), Box::new(|id| id < 777)),
        (range(Unbounded, Included(v(777))), Box::new(|id| id <= 777)),
        (range(Included(v(777)), Unbounded), Box::new(|id| id >= 777)),
        (range(Excluded(v(777)), Unbounded), Box::new(|id| id > 777)),
        (range(Included(v(256)), Excluded(v(1024))), Box::new(|id| (256..1024).contains(&id))),
        (range(Excluded(v(300)), Included(v(320))), Box::new(|id| (301..=320).contains(&id))),
        (KeyRange::prefix(v(777)), Box::new(|id| id == 777)),
        (KeyRange::prefix(v(12)), Box::new(|id| id == 12)),
        (range(Included(v(1900)), Unbounded), Box::new(|id| id >= 1900)),
        (range(Excluded(v(5000)), Unbounded), Box::new(|_| false)),
        (range(Included(v(900)), Included(v(100))), Box::new(|_| false)),
    ]
}

async fn gathered(rows: &mut RowStream<Arc<Net>>) -> Result<Pairs, ClientError> {
    let mut all = Vec::new();
    while let Some(batch) = rows.next().await? {
        assert!(batch.num_rows() > 0);
        all.extend(pairs(&batch));
    }
    assert!(rows.next().await?.is_none(), "an end is an end");
    Ok(all)
}

#[test]
fn rows_backwards_are_those_forwards_in_reverse_whatever_the_portions() {
    block_on(async {
        let (net, _, db, _, model) = messy().await;
        let mut scans = 0;
        // One group a request; some; all at once.
        for cells in [1, 100, 1 << 14] {
            let table = reader(&net, &db, cells).table("t").await.unwrap();
            // One group a request takes its time.
            for (range, keep) in ranges().into_iter().step_by(if cells == 1 { 2 } else { 1 }) {
                let forwards: Pairs = model.iter().copied().filter(|(id, _)| keep(*id)).collect();
                let backwards: Pairs = forwards.iter().rev().copied().collect();
                let limits = [None, Some(0), Some(1), Some(257), Some(2), Some(255), Some(256)];
                let all = forwards.len() as u64;
                let limits: Vec<_> = limits.into_iter().chain([Some(all), Some(all + 1)]).collect();
                for limit in limits.into_iter().step_by(if cells == 1 { 3 } else { 1 }) {
                    for (direction, want) in [(Direction::Forwards, &forwards), (Direction::Backwards, &backwards)] {
                        let columns = ["id", "who", "cents"].map(str::to_owned).to_vec();
                        let select = Select { columns, limit, direction, ..Select::range(range.clone()) };
                        let n = limit.map_or(want.len(), |l| want.len().min(l as usize));
                        let Answered { value, evidence } = table.rows(&select).await.unwrap();
                        let got: Pairs = value.iter().flat_map(pairs).collect();
                        assert!(got == want[..n], "{range:?} {limit:?} {direction:?} in portions of {cells}");
                        let mut rows = table.read(&select).await.unwrap();
                        let pinned = rows.pinned().unwrap();
                        assert!(gathered(&mut rows).await.unwrap() == got, "{range:?} {limit:?} {direction:?} {cells}");
                        assert_eq!(rows.evidence().unwrap().version, evidence.version);
                        if limit.is_none() {
                            assert_eq!(rows.evidence().unwrap().rows, evidence.rows);
                        }
                        if cells == 100 {
                            let mut rows = table.read_at(&pinned, &select).await.unwrap();
                            let again = gathered(&mut rows).await.unwrap();
                            assert!(again == got, "{range:?} {limit:?} {direction:?} {cells}");
                        }
                        scans += 3;
                    }
                }
            }
        }
        println!("{scans} scans");
    });
}

#[test]
fn columns_without_the_key_come_in_its_order() {
    block_on(async {
        let (net, _, db, _, model) = messy().await;
        let table = reader(&net, &db, 50).table("t").await.unwrap();
        let cents =
            |batch: &arrow_array::RecordBatch| Plain::of_batch(batch).0.into_iter().flatten().collect::<Vec<_>>();
        let select = Select::range(KeyRange::ALL).columns(&["cents"]).backwards();
        let got = cents(&table.select(&select).await.unwrap().value);
        let want: Vec<Value> = model.iter().rev().map(|(_, cents)| Value::Int64(*cents)).collect();
        assert_eq!(got, want);
    });
}

#[test]
fn an_empty_table_has_no_row_at_either_end_and_evidence_all_the_same() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema("t")).await.unwrap();
        for select in [Select::range(KeyRange::ALL), Select::range(KeyRange::ALL).backwards()] {
            for limit in [None, Some(0), Some(1)] {
                let select = Select { limit, ..select.clone() };
                let mut rows = table.read(&select).await.unwrap();
                assert!(gathered(&mut rows).await.unwrap().is_empty());
                let evidence = rows.evidence().unwrap();
                assert_eq!((evidence.requests, evidence.rows, evidence.segments), (1, 0, 0));
                assert!(evidence.height.0 > 0, "the version was shown");
                assert_eq!(table.select(&select).await.unwrap().value.num_rows(), 0);
            }
        }
        let max = table.aggregate(&KeyRange::ALL, &Aggregate::Max("id".into())).await.unwrap();
        assert_eq!(max.value, AggregateValue::Null);
    });
}

#[test]
fn the_last_rows_cost_as_many_cells_as_the_first() {
    block_on(async {
        let (_, _, table, plain) = imported(6000, 6000).await;
        let whole = table.rows(&Select::range(KeyRange::ALL)).await.unwrap().evidence;
        let first = table.rows(&Select::range(KeyRange::ALL).limit(20)).await.unwrap().evidence;
        let last = table.rows(&Select::range(KeyRange::ALL).limit(20).backwards()).await.unwrap().evidence;
        assert_eq!((first.requests, last.requests), (1, 1));
        assert_eq!((first.rows, whole.rows), (256, plain.0.len() as u64));
        assert!(last.rows <= 256 && last.openings * 10 < whole.openings, "{last:?} of {whole:?}");
        assert!(last.native_bytes * 10 < whole.native_bytes);
        // Below a bound: the group in which it falls, and the one before.
        let below = KeyRange { lower: Bound::Unbounded, upper: Bound::Excluded(vec![crate::data::hour(14, 0)]) };
        let page = table.select(&Select::range(below.clone()).limit(20).backwards()).await.unwrap();
        assert_eq!(page.value.num_rows(), 20);
        assert!(page.evidence.requests == 1 && page.evidence.rows <= 512, "{:?}", page.evidence);
        assert!(page.evidence.openings * 6 < whole.openings, "{:?} of {whole:?}", page.evidence);
        // The greatest value of the leading column is in the last row.
        let max = table.aggregate(&below, &Aggregate::Max("hour".into())).await.unwrap();
        assert!(max.evidence.openings * 6 < whole.openings, "{:?} of {whole:?}", max.evidence);
        println!("whole {} cells, first 20 {}, last 20 {}", whole.openings, first.openings, last.openings);
    });
}

#[test]
fn retractions_at_the_end_lead_further_back() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema("t")).await.unwrap();
        table.append(&batch(&(0..6000).map(|i| (i, i)).collect::<Vec<_>>())).await.unwrap();
        let tail = KeyRange { lower: Bound::Included(vec![Value::Int64(5000)]), upper: Bound::Unbounded };
        table.delete(&tail, |_| true).await.unwrap().unwrap();
        let whole = table.rows(&Select::range(KeyRange::ALL)).await.unwrap().evidence;
        let last = table.select(&Select::range(KeyRange::ALL).limit(3).backwards()).await.unwrap();
        assert_eq!(pairs(&last.value), [(4999, 4999), (4998, 4998), (4997, 4997)]);
        assert!(last.evidence.rows * 2 < whole.rows, "{:?} of {whole:?}", last.evidence);
        assert!(last.evidence.requests <= 5, "each request asks for more: {:?}", last.evidence);
        let max = table.aggregate(&KeyRange::ALL, &Aggregate::Max("id".into())).await.unwrap();
        assert_eq!(max.value, AggregateValue::Value(Value::Int64(4999)));
        // Nothing is left: it goes on to the beginning, and says so.
        table.delete(&KeyRange::ALL, |_| true).await.unwrap().unwrap();
        let last = table.select(&Select::range(KeyRange::ALL).limit(3).backwards()).await.unwrap();
        assert_eq!(last.value.num_rows(), 0);
        assert_eq!(last.evidence.rows, 12000);
    });
}

#[test]
fn a_retraction_without_its_row_is_an_error_from_both_ends() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(schema("t")).await.unwrap();
        table.append(&batch(&(0..600).map(|i| (i, i)).collect::<Vec<_>>())).await.unwrap();
        let mut tx = db.transaction();
        tx.read(&table, &Select::range(KeyRange::ALL)).await.unwrap();
        tx.weigh(&table, &batch(&[(300, 7)]), &[-1]).unwrap();
        tx.commit().await.unwrap();
        for cells in [1, 1 << 14] {
            let table = reader(&net, &db, cells).table("t").await.unwrap();
            for select in [Select::range(KeyRange::ALL), Select::range(KeyRange::ALL).backwards()] {
                assert!(matches!(table.rows(&select).await, Err(ClientError::Unmatched)));
                let mut rows = table.read(&select).await.unwrap();
                let error = loop {
                    match rows.next().await {
                        Ok(batch) => assert!(batch.is_some(), "it ended as if nothing had been"),
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, ClientError::Unmatched), "{error}");
                assert!(rows.next().await.unwrap().is_none(), "an error is the end");
                // Rows on this side of it are as they were.
                let few = table.select(&Select { limit: Some(5), ..select }).await.unwrap();
                assert_eq!(few.value.num_rows(), 5);
            }
        }
    });
}

#[test]
fn a_stream_is_of_one_version_whatever_is_committed_meanwhile_and_ends_in_an_error_where_that_is_merged_away() {
    block_on(async {
        let (net, _, db, writer, model) = messy().await;
        let table = reader(&net, &db, 60).table("t").await.unwrap();
        for direction in [Direction::Forwards, Direction::Backwards] {
            let want: Pairs = match direction {
                Direction::Forwards => model.clone(),
                Direction::Backwards => model.iter().rev().copied().collect(),
            };
            let select = Select { direction, ..Select::range(KeyRange::ALL) };
            let mut rows = table.read(&select).await.unwrap();
            let pinned = rows.pinned().unwrap();
            let mut got = pairs(&rows.next().await.unwrap().unwrap());
            // A row more in front and behind, and one retracted that was not read yet.
            writer.append(&batch(&[(-1, 0), (9999, 0)])).await.unwrap();
            let far = if direction == Direction::Forwards { 1800 } else { 400 };
            writer.delete(&KeyRange::prefix(vec![Value::Int64(far)]), |_| true).await.unwrap().unwrap();
            got.extend(gathered(&mut rows).await.unwrap());
            assert!(got == want, "{direction:?}");
            assert_eq!(rows.evidence().unwrap().version, pinned.version);
            let mut again = table.read_at(&pinned, &select).await.unwrap();
            assert!(gathered(&mut again).await.unwrap() == want);
            // And back, so that the other direction begins with the same rows.
            writer.delete(&KeyRange::prefix(vec![Value::Int64(-1)]), |_| true).await.unwrap().unwrap();
            writer.delete(&KeyRange::prefix(vec![Value::Int64(9999)]), |_| true).await.unwrap().unwrap();
            let back: Pairs = model.iter().copied().filter(|(id, _)| *id == far).collect();
            writer.append(&batch(&back)).await.unwrap();
            writer.compact().await.unwrap().unwrap();
            // Segments of before are gone: at once for a new read of that version, and in the middle of one.
            let mut late = table.read_at(&pinned, &select).await.unwrap();
            let error = gathered(&mut late).await.unwrap_err();
            assert!(matches!(error, ClientError::Op(OpRefusal::NotLive(_))), "{error}");
            let mut rows = table.read(&select).await.unwrap();
            rows.next().await.unwrap().unwrap();
            writer.append(&batch(&[(1, 1)])).await.unwrap();
            writer.compact().await.unwrap().unwrap();
            let error = gathered(&mut rows).await.unwrap_err();
            assert!(matches!(error, ClientError::Op(OpRefusal::NotLive(_))), "{error}");
            writer.delete(&KeyRange::prefix(vec![Value::Int64(1)]), |_| true).await.unwrap().unwrap();
            assert!(pairs(&table.select(&Select::range(KeyRange::ALL)).await.unwrap().value) == model);
        }
    });
}

#[test]
fn a_future_that_is_dropped_loses_no_row() {
    block_on(async {
        let (net, _, db, _, model) = messy().await;
        let table = reader(&net, &db, 40).table("t").await.unwrap();
        let mut rows = table.read(&Select::range(KeyRange::ALL)).await.unwrap();
        let (mut got, mut dropped) = (Vec::new(), 0);
        loop {
            match rows.next().now_or_never() {
                Some(next) => match next.unwrap() {
                    Some(batch) => got.extend(pairs(&batch)),
                    None => break,
                },
                None => {
                    dropped += 1;
                    std::thread::yield_now();
                }
            }
        }
        assert!(got == model && dropped > 0);
    });
}

#[test]
fn a_lie_in_any_portion_of_a_reverse_scan_is_caught() {
    block_on(async {
        let (net, node, db, _, model) = messy().await;
        let honest: Pairs = model.iter().rev().copied().collect();
        let table = reader(&net, &db, 8).table("t").await.unwrap();
        let select = Select::range(KeyRange::ALL).backwards();
        let mut caught = 0;
        for bad in 0..6 {
            let seen = AtomicUsize::new(0);
            net.tamper(move |node, request| {
                let opens = matches!(request, Request::Open(_));
                let mut response = node.answer(request);
                if let (true, Response::Open(answer)) = (opens && seen.fetch_add(1, Relaxed) >= bad, &mut response) {
                    let mut segments = std::mem::take(&mut answer.segments).into_vec();
                    if let Some(s) = segments.iter_mut().find(|s| !s.cells.is_empty()) {
                        match bad % 3 {
                            0 => s.cells[0][1] = FieldBytes::from_u64(1),
                            1 => drop(s.cells.pop()),
                            _ => s.cells.reverse(),
                        }
                    }
                    answer.segments = Bounded::new(segments).unwrap();
                }
                Ok(response)
            });
            let mut got = Vec::new();
            let error = match table.read(&select).await {
                Err(error) => error,
                Ok(mut rows) => loop {
                    match rows.next().await {
                        Ok(Some(batch)) => got.extend(pairs(&batch)),
                        Ok(None) => panic!("a lie in answer {bad} was believed"),
                        Err(error) => break error,
                    }
                },
            };
            assert!(matches!(error, ClientError::Answer { .. } | ClientError::Page { .. }), "{error}");
            assert!(got == honest[..got.len()], "what came before the lie is true");
            assert!(table.rows(&Select { limit: Some(300), ..select.clone() }).await.is_err() || bad > 1);
            net.honest();
            caught += 1;
        }
        assert_eq!((caught, node.id()), (6, table.session().liars()[0].node));
        assert!(gathered(&mut table.read(&select).await.unwrap()).await.unwrap() == honest);
    });
}

/// MIN and MAX of every key column over every kind of range, NULLs among the values.
#[test]
fn ends_of_a_range_are_the_least_and_the_greatest_values() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let db = database(&net, &nodes).await;
        let columns = vec![Column::nullable("a", ColumnType::Int64), Column::nullable("b", ColumnType::Int64)];
        let table = db.create_table(TableSchema::new("n", columns, &["a", "b"], Vec::new()).unwrap()).await.unwrap();
        let mut rng = StdRng::seed_from_u64(3);
        let mut rows: Vec<[Option<i64>; 2]> = Vec::new();
        for _ in 0..3 {
            let mut value = |n: i64| rng.gen_bool(0.8).then(|| rng.gen_range(0..n));
            let part: Vec<[Option<i64>; 2]> = (0..400).map(|_| [value(4), value(50)]).collect();
            let arrays = [0, 1].map(|c| Arc::new(part.iter().map(|r| r[c]).collect::<arrow_array::Int64Array>()) as _);
            let batch = arrow_array::RecordBatch::try_new(table.schema().arrow(), arrays.to_vec()).unwrap();
            table.append(&batch).await.unwrap();
            rows.extend(part);
        }
        // The rows with the greatest values of all go.
        let top = KeyRange { lower: Bound::Included(vec![Value::Int64(3)]), upper: Bound::Unbounded };
        table.delete(&top, |r| matches!(r.get("b"), Some(Value::Int64(b)) if b > 40)).await.unwrap().unwrap();
        rows.retain(|[a, b]| !(*a >= Some(3) && *b > Some(40)));
        let v = |x: Option<i64>| x.map_or(Value::Null, Value::Int64);
        let of = |list: &[Option<i64>]| list.iter().map(|x| v(*x)).collect::<Vec<_>>();
        let sides: Vec<Option<Vec<Option<i64>>>> = vec![
            None,
            Some(vec![None]),
            Some(vec![Some(2)]),
            Some(vec![Some(3)]),
            Some(vec![Some(2), None]),
            Some(vec![Some(2), Some(30)]),
            Some(vec![Some(2), Some(10)]),
        ];
        let mut compared = 0;
        for (lower, upper, open) in
            sides.iter().flat_map(|l| sides.iter().flat_map(move |u| [(l, u, 0), (l, u, 1), (l, u, 2), (l, u, 3)]))
        {
            let side = |s: &Option<Vec<Option<i64>>>, excluded: bool| match s {
                None => Bound::Unbounded,
                Some(s) if excluded => Bound::Excluded(of(s)),
                Some(s) => Bound::Included(of(s)),
            };
            let range = KeyRange { lower: side(lower, open & 1 > 0), upper: side(upper, open & 2 > 0) };
            let inside = |row: &[Option<i64>; 2]| {
                let above = lower.as_ref().is_none_or(|l| {
                    let order = row[..l.len()].cmp(l.as_slice());
                    order.is_gt() || order.is_eq() && open & 1 == 0
                });
                let below = upper.as_ref().is_none_or(|u| {
                    let order = row[..u.len()].cmp(u.as_slice());
                    order.is_lt() || order.is_eq() && open & 2 == 0
                });
                above && below
            };
            let names = ["a", "a", "b", "b"];
            let aggregates = [0, 1, 2, 3].map(|i| {
                let name = names[i].to_owned();
                if i % 2 == 0 { Aggregate::Min(name) } else { Aggregate::Max(name) }
            });
            let got = table.aggregates(&range, &aggregates).await.unwrap().value;
            for (i, got) in got.into_iter().enumerate() {
                let values = rows.iter().filter(|r| inside(r)).filter_map(|r| r[i / 2]);
                let want = if i % 2 == 0 { values.min() } else { values.max() };
                let want = want.map_or(AggregateValue::Null, |x| AggregateValue::Value(Value::Int64(x)));
                assert_eq!(got, want, "{} of {range:?}", names[i]);
                compared += 1;
            }
        }
        println!("{compared} ends");
    });
}

#[test]
fn an_import_in_several_segments_streams_as_it_is_selected() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let db = database(&net, &nodes).await;
        let table = db.create_table(crate::data::schema()).await.unwrap();
        let text = csv(2500, 9);
        table.import(crate::data::batches(&text), ImportOptions { segment_rows: 700 }, |_| {}).await.unwrap();
        let table = reader(&net, &db, 50).table("flights").await.unwrap();
        let whole = table.select(&Select::range(KeyRange::ALL)).await.unwrap().value;
        for direction in [Direction::Forwards, Direction::Backwards] {
            let mut rows = table.read(&Select { direction, ..Select::range(KeyRange::ALL) }).await.unwrap();
            let (mut got, mut portions) = (Vec::new(), 0);
            while let Some(batch) = rows.next().await.unwrap() {
                got.extend(Plain::of_batch(&batch).0);
                portions += 1;
            }
            if direction == Direction::Backwards {
                got.reverse();
            }
            assert!(format!("{got:?}") == format!("{:?}", Plain::of_batch(&whole).0), "{direction:?}");
            assert!(portions > 5, "{portions}");
        }
    });
}
