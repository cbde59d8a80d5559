//! Public columns: anyone reads them with proof, of the rest nothing, and nobody but the owner writes.

use crate::flows::{database, session};
use crate::local::Net;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use fluence_client::keyring::KeyError;
use fluence_client::schema::SchemaError;
use fluence_client::{
    Aggregate, AggregateValue, ClientError, Column, ColumnType, KeyRange, Select, SumExpr, TableSchema, Value,
};
use fluence_types::DatabaseId;
use fluence_types::answer::SegmentOpening;
use fluence_types::codec::Bounded;
use fluence_wire::Response;
use futures::executor::block_on;
use std::sync::Arc;

/// Stations that everyone may know, with what they cost, which nobody may; columns and sums mixed.
fn schema() -> TableSchema {
    let columns = vec![
        Column::new("cost", ColumnType::Int64),
        Column::new("id", ColumnType::Int64).public(),
        Column::nullable("note", ColumnType::Text),
        Column::nullable("height", ColumnType::Int64).public(),
        Column::new("name", ColumnType::Text).public(),
    ];
    let column = |c: &str| SumExpr::Column(c.to_owned());
    let both = SumExpr::Product("cost".to_owned(), "height".to_owned());
    let sums = vec![column("cost"), both, column("height"), SumExpr::Square("height".to_owned())];
    TableSchema::new("stations", columns, &["id"], sums).unwrap()
}

fn rows(n: i64) -> RecordBatch {
    let ints = |f: &dyn Fn(i64) -> Option<i64>| Arc::new((0..n).map(f).collect::<Int64Array>()) as ArrayRef;
    let texts = |f: &dyn Fn(i64) -> String| Arc::new(StringArray::from_iter_values((0..n).map(f))) as ArrayRef;
    let columns = vec![
        ints(&|i| Some(1_000_003 * i)),
        ints(&Some),
        texts(&|i| format!("secret {i}")),
        ints(&|i| (i % 5 != 0).then_some(i - 7)),
        texts(&|i| format!("station {i}")),
    ];
    RecordBatch::try_new(schema().arrow(), columns).unwrap()
}

#[test]
fn a_stranger_reads_and_sums_what_is_public_and_learns_of_the_rest_that_it_is_there() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let owner = database(&net, &nodes).await;
        let table = owner.create_table(schema()).await.unwrap();
        // A table beside it that is sealed, and is not shown.
        let sealed = vec![Column::new("a", ColumnType::Int64)];
        owner.create_table(TableSchema::new("sealed", sealed, &["a"], Vec::new()).unwrap()).await.unwrap();
        table.append(&rows(700)).await.unwrap();
        table.delete(&KeyRange::between(vec![Value::Int64(10)], vec![Value::Int64(19)]), |_| true).await.unwrap();
        table.append(&rows(1)).await.unwrap();

        let stranger = session(&net, 77);
        assert!(stranger.recover(&[(nodes[0].id(), String::new())]).await.unwrap().is_empty());
        let db = stranger.find_database(table.db(), &[(nodes[0].id(), String::new())]).await.unwrap();
        let told = db.tables().await.unwrap();
        assert_eq!(told, [schema().open_part().unwrap()]);
        let names: Vec<&str> = told[0].columns().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["id", "height", "name"]);

        let open = db.table("stations").await.unwrap();
        for range in [KeyRange::ALL, KeyRange::between(vec![Value::Int64(5)], vec![Value::Int64(300)])] {
            let want = table.select(&Select::range(range.clone()).columns(&["id", "height", "name"])).await.unwrap();
            let got = open.select(&Select::range(range.clone())).await.unwrap();
            assert_eq!(got.value, want.value);
            assert_eq!(got.evidence.root, want.evidence.root);
            let all = [
                Aggregate::Count,
                Aggregate::CountColumn("height".into()),
                Aggregate::Sum(SumExpr::Column("height".into())),
                Aggregate::VarPop("height".into()),
                Aggregate::Max("name".into()),
            ];
            let (got, want) =
                (open.aggregates(&range, &all).await.unwrap(), table.aggregates(&range, &all).await.unwrap());
            assert_eq!(got.value, want.value);
            assert!(matches!(got.value[0], AggregateValue::Count(n) if n > 200));
        }
        assert!(
            !open
                .select(&Select::range(KeyRange::ALL))
                .await
                .unwrap()
                .value
                .column(0)
                .as_primitive::<Int64Type>()
                .is_empty()
        );
        // The owner's own sums, of sealed columns and of both kinds, are what they are.
        let mixed: Aggregate = Aggregate::Sum("cost*height".parse().unwrap());
        let rows = table.select(&Select::range(KeyRange::ALL)).await.unwrap().value;
        let column = |i: usize| rows.column(i).as_primitive::<Int64Type>();
        let sum: i128 =
            column(0).iter().zip(column(3)).filter_map(|(a, b)| Some(i128::from(a?) * i128::from(b?))).sum();
        let got = table.aggregate(&KeyRange::ALL, &mixed).await.unwrap().value;
        assert_eq!(got, AggregateValue::Sum { unscaled: sum, scale: 0 });

        // What is sealed has not even a name.
        for sealed in [Aggregate::Sum(SumExpr::Column("cost".into())), mixed, Aggregate::Max("note".into())] {
            let error = open.aggregate(&KeyRange::ALL, &sealed).await.unwrap_err();
            assert!(matches!(error, ClientError::Schema(SchemaError::NoColumn(_))), "{error}");
        }
        assert!(matches!(db.table("sealed").await, Err(ClientError::UnknownTable(_))));
        // It writes nothing.
        let own = RecordBatch::try_new(
            open.schema().arrow(),
            vec![
                Arc::new(Int64Array::from(vec![9_999])) as ArrayRef,
                Arc::new(Int64Array::from(vec![Some(1)])),
                Arc::new(StringArray::from(vec!["mine"])),
            ],
        );
        let before = table.session().database(table.db()).unwrap().snapshot(&table).await.unwrap().entry().version;
        open.append(&own.unwrap()).await.unwrap_err();
        open.compact().await.unwrap_err();
        db.create_table(schema()).await.unwrap_err();
        let after = table.session().database(table.db()).unwrap().snapshot(&table).await.unwrap().entry().version;
        assert_eq!(before, after);
    });
}

#[test]
fn a_database_without_public_columns_is_not_opened_to_strangers() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let owner = database(&net, &nodes).await;
        let columns = vec![Column::new("a", ColumnType::Int64)];
        owner.create_table(TableSchema::new("sealed", columns, &["a"], Vec::new()).unwrap()).await.unwrap();
        let stranger = session(&net, 77);
        let at = [(nodes[0].id(), String::new())];
        let refused = stranger.find_database(owner.id(), &at).await.unwrap_err();
        assert!(matches!(refused, ClientError::Key(KeyError::Sealed { .. })), "{refused}");
        let nowhere = DatabaseId::from_bytes([5; 16]);
        let refused = stranger.find_database(nowhere, &at).await.unwrap_err();
        assert!(matches!(refused, ClientError::UnknownDatabase(id) if id == nowhere), "{refused}");
    });
}

#[test]
fn a_node_that_changes_public_cells_is_caught_by_a_stranger_too() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        table.append(&rows(700)).await.unwrap();
        let stranger = session(&net, 77);
        let open = stranger.find_database(table.db(), &[(nodes[0].id(), String::new())]).await.unwrap();
        let open = open.table("stations").await.unwrap();
        open.select(&Select::range(KeyRange::ALL)).await.unwrap();
        net.tamper(|node, request| {
            let mut response = node.answer(request);
            if let Response::Open(answer) = &mut response {
                let mut segments: Vec<SegmentOpening> = std::mem::take(&mut answer.segments).into_vec();
                let cell = segments.iter_mut().find_map(|s| s.cells.first_mut()).unwrap();
                cell.swap(0, 1);
                answer.segments = Bounded::new(segments).unwrap();
            }
            Ok(response)
        });
        let sum = Aggregate::Sum(SumExpr::Column("height".into()));
        let refused = [
            open.select(&Select::range(KeyRange::ALL)).await.unwrap_err(),
            open.aggregate(&KeyRange::ALL, &sum).await.unwrap_err(),
        ];
        for error in refused {
            assert!(matches!(error, ClientError::Page { .. } | ClientError::Answer { .. }), "{error}");
        }
    });
}
