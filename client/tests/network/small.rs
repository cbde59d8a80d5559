//! A small table for tests of writing: `id, who, cents, note`, sorted by `id`, with the sum of `cents`.

use crate::local::{Net, Node};
use arrow_array::{Array, Int64Array, RecordBatch, StringArray};
use fluence_client::{Column, ColumnType, Database, KeyRange, Select, Session, SumExpr, Table, TableSchema, Value};
use std::sync::Arc;

pub(crate) type Small = Table<Arc<Net>>;

pub(crate) fn schema(name: &str) -> TableSchema {
    let columns = vec![
        Column::new("id", ColumnType::Int64),
        Column::new("who", ColumnType::Text),
        Column::new("cents", ColumnType::Int64),
        Column::nullable("note", ColumnType::Text),
    ];
    TableSchema::new(name, columns, &["id"], vec![SumExpr::Column("cents".into())]).unwrap()
}

pub(crate) fn row(id: i64, cents: i64) -> Vec<Value> {
    vec![Value::Int64(id), Value::Text(format!("writer {}", id % 7)), Value::Int64(cents), Value::Null]
}

pub(crate) fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let who = StringArray::from_iter_values(rows.iter().map(|r| format!("writer {}", r.0 % 7)));
    let cents = Int64Array::from_iter_values(rows.iter().map(|r| r.1));
    let note = StringArray::from(vec![None::<&str>; rows.len()]);
    let arrays: [Arc<dyn Array>; 4] = [Arc::new(ids), Arc::new(who), Arc::new(cents), Arc::new(note)];
    RecordBatch::try_new(schema("x").arrow(), arrays.to_vec()).unwrap()
}

pub(crate) fn pairs(batch: &RecordBatch) -> Vec<(i64, i64)> {
    let ints = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        column.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
    };
    ints("id").into_iter().zip(ints("cents")).collect()
}

/// All rows, in key order.
pub(crate) async fn all(table: &Small) -> Vec<(i64, i64)> {
    pairs(&table.select(&Select::range(KeyRange::ALL)).await.unwrap().value)
}

/// Another process with the same keys: what it knows is what the first has in its keystore.
pub(crate) fn twin(net: &Arc<Net>, of: &Database<Arc<Net>>, seed: u64) -> Database<Arc<Net>> {
    use fluence_client::{Keyring, Keystore, Phrase};
    use rand::SeedableRng;
    let words = of.session().keyring().phrase().expose(|words| Phrase::new(words.to_owned()));
    let keystore = Keystore::in_memory(Keyring::from_phrase(&words).unwrap());
    let session = Session::new(Arc::clone(net), keystore, rand::rngs::StdRng::seed_from_u64(seed));
    session.remember(of.id(), of.session().known().remove(&of.id()).unwrap()).unwrap();
    session.database(of.id()).unwrap()
}

/// Has a session ask this member first.
pub(crate) fn ask_first(db: &Database<Arc<Net>>, node: &Node) {
    let members = db.committee().unwrap().members;
    db.session().ask_first(members.iter().position(|m| m.node == node.id()).unwrap());
}

/// Live segments of a table, as a node has them.
pub(crate) fn live(node: &Node, table: &Small) -> usize {
    let view = node.engine.view(table.db()).unwrap();
    view.segments().iter().filter(|s| s.live && s.projection == table.projection()).count()
}
